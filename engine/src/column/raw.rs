//! Bit patterns as integers, for mantissas that no formula gives: what is common to sign, exponent and
//! high bits, and zeros at the low end (floats of 32 bits), cost nothing.

/// Zero bits that all of `values` end with; 63 if all are +0.0.
pub(super) fn common_zeros(values: &[f64]) -> u8 {
    let union = values.iter().fold(0, |all, v| all | v.to_bits());
    u8::try_from(union.trailing_zeros().min(63)).unwrap_or_default()
}

/// Integers that rise as the floats do, without their `zeros` low bits.
pub(super) fn integers(values: &[f64], zeros: u8, out: &mut [i64]) {
    for (o, v) in out.iter_mut().zip(values) {
        let bits = v.to_bits().cast_signed();
        *o = (bits ^ ((bits >> 63) & i64::MAX)) >> zeros;
    }
}

/// The floats of such integers; `zeros` below 64.
pub(super) fn restore(integers: &[i64], zeros: u8, out: &mut [f64]) {
    let negative_low = (1u64 << zeros).wrapping_sub(1);
    for (o, &n) in out.iter_mut().zip(integers) {
        let shifted = n.wrapping_shl(u32::from(zeros));
        let bits = shifted ^ ((shifted >> 63) & i64::MAX);
        // of a negative float the low bits were ones after the flip
        let wrong = negative_low & (shifted >> 63).cast_unsigned();
        *o = f64::from_bits(bits.cast_unsigned() & !wrong);
    }
}
