//! Figures over numbers, exact up to rounding.
//!
//! - Quantiles by selection (expected linear time), with linear interpolation between the two
//!   nearest ranks: rank `h = (n - 1) * q`, value `x[floor h] + (h - floor h) * (x[floor h + 1] -
//!   x[floor h])` over the sorted numbers. This is numpy's default and Excel's `PERCENTILE.INC`.
//! - The sum is compensated (Neumaier), so it does not depend on the order of the numbers beyond the
//!   last bit. The mean never leaves `[min, max]`: equal numbers have exactly themselves as mean.
//! - The standard deviation is the population's (divisor `n`), in two passes with the correction
//!   term: equal numbers have exactly 0.
//! - Infinite numbers take part: a quantile may be infinite, mean and deviation may become NaN.

/// Figures over at least one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// How many numbers.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the population.
    pub stddev: f64,
    /// Median.
    pub p50: f64,
    /// 0.95 quantile.
    pub p95: f64,
    /// 0.99 quantile.
    pub p99: f64,
}

impl Statistics {
    /// Of these numbers, none of them NaN; `None` if there are none. Reorders them.
    pub fn of(values: &mut [f64]) -> Option<Self> {
        let count = values.len() as u64;
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for &v in values.iter() {
            min = min.min(v);
            max = max.max(v);
        }
        let sum = sum(values.iter().copied());
        let mean = mean(values, sum, min, max)?;
        let stddev = stddev(values, mean);
        let [p50, p95, p99] = quantiles(values, [0.5, 0.95, 0.99])?;
        Some(Self {
            count,
            sum,
            min,
            max,
            mean,
            stddev,
            p50,
            p95,
            p99,
        })
    }
}

/// The quantiles `qs`, each from 0 to 1 and in rising order, of numbers none of which is NaN; `None` if
/// there are none. Reorders the numbers.
pub fn quantiles<const N: usize>(values: &mut [f64], qs: [f64; N]) -> Option<[f64; N]> {
    let mut found = [0.0; N];
    quantiles_into(values, &qs, &mut found).then_some(found)
}

/// The same for any number of quantiles, one place in `found` for each. Whether there are numbers.
pub(crate) fn quantiles_into(values: &mut [f64], qs: &[f64], found: &mut [f64]) -> bool {
    if values.is_empty() {
        return false;
    }
    let last = values.len() - 1;
    // From the highest to the lowest: each selection works only on what the one before left below
    // it. `rest` always holds the ranks from 0 up to its end.
    let mut rest = values;
    for (place, q) in found.iter_mut().zip(qs).rev() {
        let rank = last as f64 * q.clamp(0.0, 1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of values"
        )]
        let low_rank = (rank.floor() as usize).min(rest.len() - 1);
        let (_, &mut low, above) = rest.select_nth_unstable_by(low_rank, f64::total_cmp);
        let next = above
            .iter()
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(b.1))
            .map(|(at, _)| at);
        let (high, kept) = match next {
            Some(at) => {
                above.swap(0, at);
                (above.first().copied().unwrap_or(low), low_rank + 2)
            }
            None => (low, low_rank + 1),
        };
        *place = between(low, high, rank - rank.floor());
        let whole = std::mem::take(&mut rest);
        rest = whole.split_at_mut(kept).0;
    }
    true
}

/// `low + t * (high - low)`, rounded the better way from the nearer end, as numpy does.
#[expect(
    clippy::float_cmp,
    reason = "equal ends need no arithmetic, infinite ones bear none"
)]
fn between(low: f64, high: f64, t: f64) -> f64 {
    if t == 0.0 || low == high {
        return low;
    }
    let step = high - low;
    if t < 0.5 {
        low + step * t
    } else {
        high - step * (1.0 - t)
    }
}

/// Neumaier's compensated sum.
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    for v in values {
        let next = sum + v;
        lost += if sum.abs() >= v.abs() {
            (sum - next) + v
        } else {
            (v - next) + sum
        };
        sum = next;
    }
    // Past the range of doubles the compensation is NaN: the plain sum says it better.
    if lost.is_finite() { sum + lost } else { sum }
}

fn mean(values: &[f64], sum_of_all: f64, min: f64, max: f64) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let finite = min.is_finite() && max.is_finite();
    let mean = if sum_of_all.is_finite() || !finite {
        sum_of_all / n
    } else {
        sum(values.iter().map(|v| v / n))
    };
    Some(if finite { mean.clamp(min, max) } else { mean })
}

fn stddev(values: &[f64], mean: f64) -> f64 {
    let n = values.len() as f64;
    let spread = values.iter().map(|v| (v - mean).abs()).fold(0.0, f64::max);
    if spread == 0.0 {
        return 0.0;
    }
    // Scaled where squares would leave the range of doubles.
    let scale = if (1e-140..1e140).contains(&spread) {
        1.0
    } else {
        spread
    };
    let (mut squares, mut first) = (0.0, 0.0);
    for v in values {
        let d = (v - mean) / scale;
        squares += d * d;
        first += d;
    }
    ((squares - first * first / n).max(0.0) / n).sqrt() * scale
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
        let h = (sorted.len() - 1) as f64 * q;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let low = h.floor() as usize;
        let high = (low + 1).min(sorted.len() - 1);
        sorted[low] + (h - h.floor()) * (sorted[high] - sorted[low])
    }

    fn near(a: f64, b: f64, relative: f64) -> bool {
        (a - b).abs() <= relative * a.abs().max(b.abs()).max(1e-300)
    }

    #[test]
    fn known_figures_of_a_small_set() {
        let s = Statistics::of(&mut [4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            (s.count, s.sum, s.min, s.max, s.mean),
            (4, 10.0, 1.0, 4.0, 2.5)
        );
        assert!(near(s.stddev, 1.25f64.sqrt(), 1e-15));
        assert!(near(s.p50, 2.5, 1e-15) && near(s.p95, 3.85, 1e-15) && near(s.p99, 3.97, 1e-15));
        assert_eq!(Statistics::of(&mut []), None);
    }

    #[test]
    fn equal_numbers_have_themselves_as_mean_and_no_deviation() {
        for n in 1..200 {
            let s = Statistics::of(&mut vec![0.1; n]).unwrap();
            assert_eq!((s.mean, s.stddev, s.p99), (0.1, 0.0, 0.1), "{n} numbers");
        }
    }

    #[test]
    fn a_small_spread_on_a_large_offset_survives() {
        let mut values: Vec<f64> = (0..1000).map(|i| 1e9 + f64::from(i % 2)).collect();
        let s = Statistics::of(&mut values).unwrap();
        assert_eq!((s.mean, s.stddev), (1e9 + 0.5, 0.5));
    }

    #[test]
    fn the_ends_of_the_double_range_do_not_overflow() {
        let s = Statistics::of(&mut [f64::MAX, f64::MAX / 2.0]).unwrap();
        assert!(near(s.mean, f64::MAX * 0.75, 1e-12), "{s:?}");
        assert!(near(s.stddev, f64::MAX / 4.0, 1e-12), "{s:?}");
        let tiny = Statistics::of(&mut [1e-300, 3e-300]).unwrap();
        assert!(near(tiny.stddev, 1e-300, 1e-12), "{tiny:?}");
    }

    #[test]
    fn infinite_numbers_take_part() {
        let s = Statistics::of(&mut [1.0, f64::INFINITY, 2.0]).unwrap();
        assert_eq!(
            (s.min, s.max, s.p50, s.sum),
            (1.0, f64::INFINITY, 2.0, f64::INFINITY)
        );
        assert_eq!(
            quantiles(&mut [f64::NEG_INFINITY; 3], [0.3]),
            Some([f64::NEG_INFINITY])
        );
    }

    proptest! {
        #[test]
        fn quantiles_agree_with_sorting(mut values in prop::collection::vec(-1e6f64..1e6, 1..300),
                                        mut qs in prop::array::uniform4(0.0f64..=1.0)) {
            qs.sort_by(f64::total_cmp);
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let found = quantiles(&mut values, qs).unwrap();
            for (q, v) in qs.into_iter().zip(found) {
                prop_assert!((v - quantile_of_sorted(&sorted, q)).abs() <= 1e-9, "q {q}: {v}");
            }
        }

        #[test]
        fn figures_agree_with_plain_ones(values in prop::collection::vec(-1000.0f64..1000.0, 1..200)) {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            let s = Statistics::of(&mut values.clone()).unwrap();
            prop_assert!((s.mean - mean).abs() <= 1e-9);
            prop_assert!((s.stddev - variance.sqrt()).abs() <= 1e-9);
            prop_assert!(s.min <= s.p50 && s.p50 <= s.p95 && s.p95 <= s.p99 && s.p99 <= s.max);
        }
    }

    /// numpy's own answers, where the shared data folder is at hand.
    #[test]
    fn percentiles_agree_with_numpy() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../shared/data/oracle/percentiles.json"
        );
        let Ok(text) = std::fs::read_to_string(path) else {
            println!("skipped: needs {path}");
            return;
        };
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let cases = file["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let name = &case["name"];
            let input: Vec<f64> = case["input"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap())
                .collect();
            for p in case["percentiles"].as_array().unwrap() {
                let q = p["p"].as_f64().unwrap() / 100.0;
                let [found] = quantiles(&mut input.clone(), [q]).unwrap();
                let expected = p["value"].as_f64().unwrap();
                assert!(
                    near(found, expected, 1e-12),
                    "{name} q {q}: {found} != {expected}"
                );
            }
            let s = Statistics::of(&mut input.clone()).unwrap();
            // Relative to the numbers' size: where they cancel, numpy's own sum is off by as much.
            let size = s.max.abs().max(s.min.abs());
            let mean = case["mean"].as_f64().unwrap();
            assert!(
                (s.mean - mean).abs() <= 1e-12 * size,
                "{name}: mean {} != {mean}",
                s.mean
            );
            if let Some(stddev) = case["std_population"].as_f64() {
                assert!(
                    near(s.stddev, stddev, 1e-12),
                    "{name}: stddev {} != {stddev}",
                    s.stddev
                );
            }
            let ends = [&case["min"], &case["max"]].map(|v| v.as_f64().unwrap().to_bits());
            assert_eq!([s.min.to_bits(), s.max.to_bits()], ends, "{name}");
        }
    }
}
