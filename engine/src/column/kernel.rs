//! Loops compiled once for each vector length, chosen when the program runs.
//!
//! An [`Op`] is a loop written in safe, plain Rust. [`Kernel::run`] runs it inside of a function that may use AVX2
//! or AVX-512, so that the compiler vectorises the very same source for them: the plain twin and the
//! fast one cannot disagree but by a compiler's mistake, and the tests of `integers.rs` and `bitpack.rs` compare them
//! all the same.
//!
//! What an `Op` calls takes part only if it is inlined: mark it `#[inline(always)]`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// A loop that gains from vectors.
pub trait Op {
    /// What it gives.
    type Answer;

    /// Does it; implementations are `#[inline(always)]`.
    fn run(self) -> Self::Answer;
}

/// The instructions that a loop may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// What every machine of the target has.
    Plain,
    /// Vectors of 256 bits.
    Avx2,
    /// Vectors of 512 bits.
    Avx512,
}

impl Kernel {
    /// All of them, the plain one first.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Avx2, Self::Avx512];

    /// The fastest one of this machine.
    #[inline]
    pub fn best() -> Self {
        if Self::Avx512.is_available() {
            Self::Avx512
        } else if Self::Avx2.is_available() {
            Self::Avx2
        } else {
            Self::Plain
        }
    }

    /// Whether this machine has the instructions. Costs a load: the answer is remembered.
    #[inline]
    pub fn is_available(self) -> bool {
        match self {
            Self::Plain => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// Runs `op` with these instructions, or with plain ones on a machine that has not got them.
    #[inline]
    pub fn run<O: Op>(self, op: O) -> O::Answer {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::run(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::run(op),
            _ => op.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Three;

    impl Op for Three {
        type Answer = u32;

        #[expect(clippy::inline_always, reason = "as the trait asks")]
        #[inline(always)]
        fn run(self) -> u32 {
            3
        }
    }

    #[test]
    fn a_kernel_that_the_machine_has_not_got_runs_plain_code() {
        assert!(Kernel::Plain.is_available());
        assert!(Kernel::best().is_available());
        for kernel in Kernel::ALL {
            assert_eq!(kernel.run(Three), 3);
        }
    }
}
