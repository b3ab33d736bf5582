//! Corrections of the last bits: how far a float is from the one that an integer encoding predicts.
//!
//! Sums and products of decimals, such as 51.846000000000004, miss the nearest decimal by a few units
//! in the last place. The decimal and that distance together are far smaller than the mantissa.

/// The distances of `values` from `predicted`, counted in bit patterns, modulo 2^64.
pub(super) fn distances(values: &[f64], predicted: &[f64], out: &mut [i64]) {
    for ((o, v), p) in out.iter_mut().zip(values).zip(predicted) {
        *o = v.to_bits().wrapping_sub(p.to_bits()).cast_signed();
    }
}

/// Moves every float by its distance.
pub(super) fn apply(values: &mut [f64], distances: &[i64]) {
    for (v, d) in values.iter_mut().zip(distances) {
        *v = f64::from_bits(v.to_bits().wrapping_add(d.cast_unsigned()));
    }
}
