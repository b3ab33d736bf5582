//! Loops with AVX-512.
//!
//! Invariant: `with_features` is called only where the machine has been asked for every feature that it
//! enables. That call is all that is unsafe here; the loops themselves are safe code.

#![expect(
    unsafe_code,
    reason = "calling a function that enables instructions is unsafe; the machine is asked first"
)]

use super::Op;

#[inline]
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

#[inline]
pub(super) fn run<O: Op>(op: O) -> O::Answer {
    if is_available() {
        // SAFETY: the machine has just said that it has all features of `with_features`.
        unsafe { with_features(op) }
    } else {
        op.run()
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
fn with_features<O: Op>(op: O) -> O::Answer {
    op.run()
}
