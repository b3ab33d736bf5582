//! Choosing the encoding of a group.
//!
//! 1. Equal values are a constant; nothing else is tried.
//! 2. Groups above [`SMALL`] values: each form is rated on a sample of them, and only forms near the
//!    best rating go on.
//! 3. The others: residuals of all values, and for these the exact cost of every width worth its
//!    exceptions. The cheapest wins; at equal cost the form that decodes faster.

use crate::varint;

use super::{
    super::bitpack::{self, WIDTH_MAX},
    FINE_BITS, Form, GROUP, LONG_CODES, SHORT_WIDTHS, bits_of,
    exceptions::{self, EXCEPTIONS_SHARE},
    signed_bytes, zigzag,
};

/// Values on which forms are rated.
const SAMPLE: usize = 64;
/// Values before each sampled one, for the form with the longest memory.
const LOOK_BACK: usize = 2;
/// Groups of no more get exceptions only in the form that is cheapest without.
const TINY: usize = 16;
/// Groups of no more are tried in every form.
const SMALL: usize = LOOK_BACK + SAMPLE - 1;
/// Values of a sample that may be exceptions: a little less than their greatest share.
const LEFT_OUT_MAX: usize = SAMPLE / EXCEPTIONS_SHARE - 2;
/// What a sample is wrong by: forms rated so many bits a value above the best one are tried as well.
const RATING_SLACK_BITS: f64 = 0.5;
/// A trend must be better than no trend by so many bits a value: some slope fits any noise.
const TREND_GAIN_BITS: f64 = 0.1;
/// Values so many times the middle half's span away from it pull at a line no more than nearer ones.
const RESTS_REACH: f64 = 2.0;
/// From so many bits a value on nothing predicts anything, and only the fastest form is tried.
const RATING_NOISE_BITS: f64 = 60.0;
/// What an exception must save beside its bytes, for the time it takes to decode it.
const EXCEPTION_PRICE_BITS: usize = 1;

/// The encoding of one group, chosen; what it costs is known before anything is written.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    form: Form,
    /// First value (`Delta`, `DeltaOfDelta`).
    first: i64,
    /// First difference (`DeltaOfDelta`) or slope (`Trend`, `FineTrend`).
    slope: i64,
    fit: Fit,
    count: usize,
    cost_bytes: usize,
}

/// Base, width and exceptions of the residuals of a form.
#[derive(Clone, Copy, Debug)]
struct Fit {
    base: i64,
    width: u32,
    exceptions: usize,
    rest_width: u32,
    /// Slots and exceptions, without the header.
    cost_bytes: usize,
}

impl Plan {
    /// Chooses the encoding of `values`, which are 1 to 1,024.
    ///
    /// # Panics
    ///
    /// If there are none or more.
    pub fn new(values: &[i64]) -> Self {
        assert!(
            (1..=GROUP).contains(&values.len()),
            "a group has 1 to {GROUP} values"
        );
        let (low, high) = low_and_high(values);
        if low == high {
            return Self::constant(low, values.len());
        }
        // The scratch of a small group is small: clearing 8 KiB costs more than all the rest.
        if values.len() <= TINY {
            let plain = Self::cheapest::<TINY>(values, |_| true, false);
            let patched = plain.with_exceptions(values);
            if patched.price() < plain.price() {
                patched
            } else {
                plain
            }
        } else if values.len() <= SMALL {
            Self::cheapest::<SMALL>(values, |_| true, true)
        } else {
            let ratings = Ratings::of(values);
            Self::cheapest::<GROUP>(values, |form| ratings.is_promising(form), true)
        }
    }

    fn constant(value: i64, count: usize) -> Self {
        let mut plan = Self {
            form: if value == 0 { Form::Zero } else { Form::Frame },
            first: value,
            slope: 0,
            fit: Fit {
                base: value,
                width: 0,
                exceptions: 0,
                rest_width: 0,
                cost_bytes: 0,
            },
            count,
            cost_bytes: 0,
        };
        plan.cost_bytes = plan.header_bytes();
        plan
    }

    /// The plan of a tiny group again, with exceptions if they pay.
    fn with_exceptions(&self, values: &[i64]) -> Self {
        let form = if self.form == Form::Zero {
            Form::Frame
        } else {
            self.form
        };
        Self::of_form::<TINY>(form, self.slope, values, &mut [0; TINY], true)
    }

    fn cheapest<const ROOM: usize>(
        values: &[i64],
        is_promising: impl Fn(Form) -> bool,
        patched: bool,
    ) -> Self {
        let mut residuals = [0_i64; ROOM];
        let residuals = &mut residuals;
        let mut best: Option<Self> = None;
        let mut consider = |form, slope| {
            let bound = best.as_ref().map_or(usize::MAX, Self::price);
            let plan = Self::of_form::<ROOM>(form, slope, values, residuals, patched);
            if plan.price() < bound {
                best = Some(plan);
            }
        };
        if is_promising(Form::Frame) {
            consider(Form::Frame, 0);
        }
        if values.len() >= 3 && is_promising(Form::Trend) {
            let slope = if values.len() <= TINY {
                values[values.len() - 1].wrapping_sub(values[0]) as f64 / (values.len() - 1) as f64
            } else {
                slope_of(values.len(), |i| values[i])
            };
            let (whole, fine) = (whole(slope), whole(slope * f64::from(1 << FINE_BITS)));
            consider(Form::Trend, whole);
            // Where both are the same the whole slope is off by less than a unit over the group.
            if whole << FINE_BITS != fine && values.len() > TINY {
                consider(Form::FineTrend, fine);
            }
        }
        if is_promising(Form::Delta) {
            consider(Form::Delta, 0);
        }
        if values.len() >= 3 && is_promising(Form::DeltaOfDelta) {
            consider(Form::DeltaOfDelta, values[1].wrapping_sub(values[0]));
        }
        match best {
            Some(best) => best,
            // Not reached: the best rated form is promising.
            None => Self::of_form::<ROOM>(Form::Frame, 0, values, residuals, patched),
        }
    }

    fn of_form<const ROOM: usize>(
        form: Form,
        slope: i64,
        values: &[i64],
        residuals: &mut [i64],
        patched: bool,
    ) -> Self {
        let skipped = form.skipped();
        let residuals = &mut residuals[..values.len()];
        fill_residuals(form, slope, values, residuals);
        let mut plan = Self {
            form,
            first: values[0],
            slope,
            fit: Fit::of::<ROOM>(&residuals[skipped..], values.len() == GROUP, patched),
            count: values.len(),
            cost_bytes: 0,
        };
        if form == Form::Frame {
            plan.prefer_zero(values);
        }
        plan.cost_bytes = plan.header_bytes() + plan.fit.cost_bytes;
        plan
    }

    /// A frame whose base may as well be 0 does without.
    fn prefer_zero(&mut self, values: &[i64]) {
        let fit = &mut self.fit;
        if fit.base == 0 {
            self.form = Form::Zero;
        } else if fit.exceptions == 0 && fit.base > 0 {
            let all = values.iter().fold(0, |all, value| all | value);
            if all >= 0 && bits_of(all.cast_unsigned()) <= fit.width {
                fit.base = 0;
                self.form = Form::Zero;
            }
        }
    }

    /// Bits to compare by.
    fn price(&self) -> usize {
        self.cost_bytes * 8 + self.fit.exceptions * EXCEPTION_PRICE_BITS
    }

    /// The bytes that [`Plan::write`] appends.
    pub fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// The name of the encoding, for people.
    pub fn name(&self) -> &'static str {
        if self.fit.width == 0 && self.fit.exceptions == 0 && self.form.is_frame() {
            "constant"
        } else {
            self.form.name()
        }
    }

    fn is_short(&self) -> bool {
        self.fit.exceptions == 0 && self.fit.width < u32::from(SHORT_WIDTHS)
    }

    fn header_bytes(&self) -> usize {
        let numbers: usize = self.numbers().map(signed_bytes).sum();
        (if self.is_short() { 1 } else { 2 }) + numbers
    }

    /// The numbers of the header in their order.
    fn numbers(&self) -> impl Iterator<Item = i64> {
        let (first, slope, base) = (Some(self.first), Some(self.slope), Some(self.fit.base));
        match self.form {
            Form::Zero => [None, None, None],
            Form::Frame => [None, None, base],
            Form::Delta => [first, None, base],
            Form::DeltaOfDelta => [first, slope, base],
            Form::Trend | Form::FineTrend => [None, slope, base],
        }
        .into_iter()
        .flatten()
    }

    /// Appends the group. `values` are those that the plan was made for.
    ///
    /// # Panics
    ///
    /// If their number is another.
    pub fn write(&self, values: &[i64], out: &mut Vec<u8>) {
        assert_eq!(values.len(), self.count, "a plan is for its own values");
        let start = out.len();
        #[expect(clippy::cast_possible_truncation, reason = "widths are at most 64")]
        let width = self.fit.width as u8;
        if self.is_short() {
            out.push(self.form.code() * SHORT_WIDTHS + width);
        } else {
            let patched = u8::from(self.fit.exceptions > 0);
            out.extend_from_slice(&[LONG_CODES + 2 * self.form.code() + patched, width]);
        }
        for number in self.numbers() {
            varint::put_i64(out, number);
        }
        if width > 0 || self.fit.exceptions > 0 {
            if values.len() <= TINY {
                self.write_slots::<TINY>(values, out);
            } else if values.len() <= SMALL {
                self.write_slots::<SMALL>(values, out);
            } else {
                self.write_slots::<GROUP>(values, out);
            }
        }
        debug_assert_eq!(out.len() - start, self.cost_bytes);
    }

    fn write_slots<const ROOM: usize>(&self, values: &[i64], out: &mut Vec<u8>) {
        let Fit { base, width, .. } = self.fit;
        let mut residuals = [0_i64; ROOM];
        let residuals = &mut residuals[..values.len()];
        fill_residuals(self.form, self.slope, values, residuals);
        let skipped = self.form.skipped();
        let mut slots = [0_u64; ROOM];
        for (slot, residual) in slots[skipped..].iter_mut().zip(&residuals[skipped..]) {
            *slot = residual.wrapping_sub(base).cast_unsigned();
        }
        let needed = &slots[skipped..values.len()];
        if self.fit.exceptions > 0 {
            exceptions::write(needed, width, self.fit.exceptions, self.fit.rest_width, out);
        }
        match slots[..values.len()].as_array() {
            Some(full) => bitpack::pack_group(full, width, out),
            None => bitpack::pack_run(needed, width, out),
        }
    }
}

impl Fit {
    /// The cheapest base, width and exceptions for `residuals` (at least one).
    fn of<const ROOM: usize>(residuals: &[i64], full: bool, patched: bool) -> Self {
        let (low, high) = low_and_high(residuals);
        let width = bits_of(difference(high, low));
        let mut best = Self {
            base: low,
            width,
            exceptions: 0,
            rest_width: 0,
            cost_bytes: slots_bytes(residuals.len(), full, width),
        };
        if patched
            && best.cost_bytes > exceptions::COST_BYTES_MIN
            && residuals.len() >= EXCEPTIONS_SHARE
        {
            let (mut lows, mut highs) = ([0; ROOM], [0; ROOM]);
            if let Some(ends) = Ends::of(residuals, &mut lows, &mut highs) {
                best.try_exceptions(residuals, full, &ends);
            }
        }
        best
    }

    /// Looks for a window of values so dense that packing it narrower pays for listing the rest: for each
    /// width from the least possible one up, slides the window's lower end over the low residuals; the
    /// upper end follows.
    fn try_exceptions(&mut self, residuals: &[i64], full: bool, ends: &Ends<'_>) {
        let &Ends { lows, highs } = ends;
        let allowed = (residuals.len() / EXCEPTIONS_SHARE).min(lows.len() + highs.len() - 2);
        let least = bits_of(difference(highs[0], lows[lows.len() - 1]));
        let mut best_price = self.price();
        for width in least..self.width {
            let slots_bytes = slots_bytes(residuals.len(), full, width);
            if slots_bytes * 8 >= best_price {
                break;
            }
            let mut kept_highs = 0;
            for (below, &base) in lows.iter().enumerate() {
                while kept_highs < highs.len()
                    && difference(highs[kept_highs], base) <= bitpack::mask(width)
                {
                    kept_highs += 1;
                }
                let exceptions = below + highs.len() - kept_highs;
                // The first high one is no exception: nothing is known about what is below it.
                if kept_highs == 0 || exceptions > allowed || exceptions == 0 {
                    continue;
                }
                let rest_width = [lows[0], highs[highs.len() - 1]]
                    .into_iter()
                    .map(|end| match end.checked_sub(base) {
                        Some(residual) => bits_of(zigzag(residual >> width)),
                        None => WIDTH_MAX - width,
                    })
                    .max()
                    .unwrap_or(0)
                    .max(1);
                let fit = Self {
                    base,
                    width,
                    exceptions,
                    rest_width,
                    cost_bytes: slots_bytes
                        + exceptions::cost_bytes(residuals.len(), exceptions, rest_width),
                };
                if fit.price() < best_price {
                    best_price = fit.price();
                    *self = fit;
                }
            }
        }
        if self.exceptions > 0 {
            self.count_exceptions(residuals, full);
        }
    }

    /// Bits to compare by: what an exception takes to decode counts as well.
    fn price(&self) -> usize {
        self.cost_bytes * 8 + self.exceptions * EXCEPTION_PRICE_BITS
    }

    /// Makes the numbers exact: residuals that span more than 63 bits wrap, so that one from the
    /// far end may lie in the window after all.
    fn count_exceptions(&mut self, residuals: &[i64], full: bool) {
        (self.exceptions, self.rest_width) = exceptions::count(residuals, self.base, self.width);
        self.cost_bytes = slots_bytes(residuals.len(), full, self.width);
        if self.exceptions > 0 {
            self.cost_bytes +=
                exceptions::cost_bytes(residuals.len(), self.exceptions, self.rest_width);
        }
    }
}

/// The residuals that may be exceptions, and the nearest on either side that is none; sorted.
struct Ends<'a> {
    lows: &'a [i64],
    highs: &'a [i64],
}

impl<'a> Ends<'a> {
    /// Finds them, at least one on either side, or `None` if no window is worth exceptions.
    fn of(residuals: &[i64], lows: &'a mut [i64], highs: &'a mut [i64]) -> Option<Self> {
        if residuals.len() <= SMALL {
            let lows = &mut lows[..residuals.len()];
            lows.copy_from_slice(residuals);
            lows.sort_unstable();
            let allowed = lows.len() / EXCEPTIONS_SHARE;
            let (lows, highs) = lows.split_at(lows.len() - 1 - allowed);
            return Some(Self {
                lows: &lows[..=allowed.min(lows.len() - 1)],
                highs,
            });
        }
        // How many are worth leaving out, and where about the others begin, says a sample.
        let between = residuals.len() / SAMPLE;
        let mut sample: [i64; SAMPLE] = std::array::from_fn(|k| residuals[sampled(k, between)]);
        let mut left_out = (2 * rate(&mut sample).left_out + 1).min(LEFT_OUT_MAX);
        loop {
            let (low, high) = (sample[left_out], sample[SAMPLE - 1 - left_out]);
            let lows_found = filter(residuals, |residual| residual < low, lows);
            let highs_found = filter(residuals, |residual| residual > high, highs);
            if let (Some(lows_found), Some(highs_found)) = (lows_found, highs_found) {
                lows[lows_found] = low;
                highs[highs_found] = high;
                let (lows, highs) = (&mut lows[..=lows_found], &mut highs[..=highs_found]);
                lows.sort_unstable();
                highs.sort_unstable();
                return Some(Self { lows, highs });
            }
            if left_out == 0 {
                return None;
            }
            left_out /= 2;
        }
    }
}

/// Copies the residuals that are `wanted` to the front of `found` and says how many they are; `None` if
/// there is no room for them and one more.
fn filter(residuals: &[i64], wanted: impl Fn(i64) -> bool, found: &mut [i64]) -> Option<usize> {
    let mut count = 0;
    for &residual in residuals {
        *found.get_mut(count)? = residual;
        count += usize::from(wanted(residual));
    }
    (count < found.len()).then_some(count)
}

/// What each form is expected to cost, by a sample of the values.
struct Ratings {
    /// Bits a value, by the form's code.
    bits: [f64; Form::COUNT as usize],
    best_bits: f64,
}

impl Ratings {
    fn of(values: &[i64]) -> Self {
        let between = (values.len() - LOOK_BACK) / SAMPLE;
        let at = |k: usize| LOOK_BACK + sampled(k, between);
        let sample = |residual: &dyn Fn(usize) -> i64| {
            let mut sample: [i64; SAMPLE] = std::array::from_fn(|k| residual(at(k)));
            rate(&mut sample).bits
        };
        let mut bits = [f64::MAX; Form::COUNT as usize];
        bits[Form::Frame as usize] = sample(&|i| values[i]);
        bits[Form::Delta as usize] = sample(&|i| values[i].wrapping_sub(values[i - 1]));
        bits[Form::DeltaOfDelta as usize] = sample(&|i| {
            let [a, b, c] = [values[i - 2], values[i - 1], values[i]];
            c.wrapping_sub(b).wrapping_sub(b.wrapping_sub(a))
        });
        let slope = slope_of(SAMPLE, |k| values[k * between]) / between as f64;
        bits[Form::Trend as usize] = sample(&|i| values[i].wrapping_sub(whole(slope * i as f64)));
        Self {
            bits,
            best_bits: bits.into_iter().fold(f64::MAX, f64::min),
        }
    }

    fn is_promising(&self, form: Form) -> bool {
        if self.best_bits > RATING_NOISE_BITS {
            form == Form::Frame
        } else {
            let bits = self.bits[form as usize];
            bits <= self.best_bits + RATING_SLACK_BITS
                && (form != Form::Trend || bits + TREND_GAIN_BITS < self.bits[Form::Frame as usize])
        }
    }
}

/// The place of the `k`th sampled value, one of each `between`: at irregular distances, so that values with a
/// period do not all look alike.
fn sampled(k: usize, between: usize) -> usize {
    k * between + k * (k + 3) / 2 % between
}

/// What a sample of residuals says about all of them.
struct Rating {
    /// Bits a value, exceptions counted.
    bits: f64,
    /// Values of the sample that are exceptions then.
    left_out: usize,
}

/// Rates a sample, which is sorted then.
fn rate(sample: &mut [i64; SAMPLE]) -> Rating {
    sample.sort_unstable();
    let bits = |difference: u64| (difference as f64 + 1.0).log2();
    let all_bits = bits(difference(sample[SAMPLE - 1], sample[0]));
    let mut best = Rating {
        bits: all_bits,
        left_out: 0,
    };
    for left_out in [1, 2, 4, 8, LEFT_OUT_MAX] {
        let window = (0..=left_out)
            .map(|below| difference(sample[SAMPLE - 1 - left_out + below], sample[below]))
            .min()
            .unwrap_or(0);
        let share = left_out as f64 / SAMPLE as f64;
        let window_bits = bits(window);
        // Position: its low bits, two bits of the map.
        let exception_bits =
            2.0 - share.log2() + EXCEPTION_PRICE_BITS as f64 + (all_bits - window_bits);
        let bits = window_bits + share * exception_bits;
        if bits < best.bits {
            best = Rating { bits, left_out };
        }
    }
    best
}

/// What `values` differ from the prediction of `form`; those in front that need no slot are 0.
fn fill_residuals(form: Form, slope: i64, values: &[i64], residuals: &mut [i64]) {
    match form {
        Form::Zero | Form::Frame => residuals.copy_from_slice(values),
        Form::Delta => {
            residuals[0] = 0;
            for (residual, pair) in residuals[1..].iter_mut().zip(values.windows(2)) {
                *residual = pair[1].wrapping_sub(pair[0]);
            }
        }
        Form::DeltaOfDelta => {
            residuals[..2].fill(0);
            for (residual, three) in residuals[2..].iter_mut().zip(values.windows(3)) {
                *residual = three[2]
                    .wrapping_sub(three[1])
                    .wrapping_sub(three[1].wrapping_sub(three[0]));
            }
        }
        Form::Trend => {
            let mut line = 0_i64;
            for (residual, value) in residuals.iter_mut().zip(values) {
                *residual = value.wrapping_sub(line);
                line = line.wrapping_add(slope);
            }
        }
        Form::FineTrend => {
            let mut line = 0_i64;
            for (residual, value) in residuals.iter_mut().zip(values) {
                *residual = value.wrapping_sub(line >> FINE_BITS);
                line = line.wrapping_add(slope);
            }
        }
    }
}

/// The slope of the line through `count` values (at least two) with the least squared distance, in which values
/// far from the others count no more than near ones.
///
/// 1. A first slope: the median of those between values half the group apart.
/// 2. How far from it the middle half of the values lies.
/// 3. Least squares, distances cut at several times that.
fn slope_of(count: usize, value: impl Fn(usize) -> i64) -> f64 {
    const PAIRS: usize = 32;
    let first = value(0);
    let height = |i: usize| value(i).wrapping_sub(first) as f64;

    let half = count / 2;
    let pairs = half.min(PAIRS);
    let mut slopes = [0.0; PAIRS];
    let slopes = &mut slopes[..pairs];
    for (k, slope) in slopes.iter_mut().enumerate() {
        let at = k * half / pairs;
        *slope = (height(at + half) - height(at)) / half as f64;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let slope = slopes[pairs / 2];

    let rest = |i: usize| height(i) - slope * i as f64;
    let mut rests = [0.0; 2 * PAIRS];
    let rests = &mut rests[..2 * pairs];
    for (k, found) in rests.iter_mut().enumerate() {
        *found = rest(k * half / pairs);
    }
    rests.sort_unstable_by(f64::total_cmp);
    let (low, high) = (rests[pairs / 2], rests[2 * pairs - 1 - pairs / 2]);
    let reach = RESTS_REACH * (high - low);

    let middle = (count as f64 - 1.0) / 2.0;
    let (mut weighted, mut x) = (0.0, -middle);
    for i in 0..count {
        weighted += x * rest(i).max(low - reach).min(high + reach);
        x += 1.0;
    }
    let count = count as f64;
    slope + weighted * 12.0 / (count * (count * count - 1.0))
}

/// The nearest integer, saturating: a slope out of range is as good as any.
#[expect(
    clippy::cast_possible_truncation,
    reason = "saturates, which is what is meant"
)]
fn whole(value: f64) -> i64 {
    value.round() as i64
}

/// From `low` to `high`, which may be further than an `i64` holds.
fn difference(high: i64, low: i64) -> u64 {
    high.wrapping_sub(low).cast_unsigned()
}

/// Least and greatest of `values`, which are at least one.
fn low_and_high(values: &[i64]) -> (i64, i64) {
    values
        .iter()
        .fold((values[0], values[0]), |(low, high), &value| {
            (low.min(value), high.max(value))
        })
}

fn slots_bytes(slots: usize, full: bool, width: u32) -> usize {
    if full {
        bitpack::group_bytes(width)
    } else {
        bitpack::run_bytes(slots, width)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    /// A small generator whose numbers never change (xorshift, Marsaglia 2003).
    struct Seeded(u64);

    impl Seeded {
        fn below(&mut self, bound: i64) -> i64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 1).cast_signed() % bound
        }
    }

    fn shape(mut value: impl FnMut(i64, &mut Seeded) -> i64) -> Vec<i64> {
        let mut seeded = Seeded(0x5eed_5eed_5eed_5eed);
        (0..1024).map(|i| value(i, &mut seeded)).collect()
    }

    /// Shapes of metrics, and what is best for each.
    fn shapes() -> Vec<(&'static str, Vec<i64>)> {
        let (mut walk, mut counter, mut smooth, mut speed, mut steps) = (0, 0, 0, 0, 500);
        let outlier = |seeded: &mut Seeded| match seeded.below(100) {
            0 => seeded.below(1 << 40),
            _ => 0,
        };
        vec![
            ("zero", shape(|_, seeded| seeded.below(900))),
            ("frame", shape(|_, seeded| 1_000_000 + seeded.below(900))),
            (
                "frame",
                shape(|_, seeded| 1_000_000 + seeded.below(900) - outlier(seeded)),
            ),
            (
                "delta",
                shape(|_, seeded| {
                    walk += seeded.below(101) - 50;
                    walk
                }),
            ),
            (
                "delta",
                shape(|_, seeded| {
                    counter += seeded.below(101) + outlier(seeded);
                    counter
                }),
            ),
            (
                "delta",
                shape(|_, seeded| {
                    if seeded.below(50) == 0 {
                        steps = seeded.below(1000);
                    }
                    steps
                }),
            ),
            (
                "delta of delta",
                shape(|_, seeded| {
                    speed += seeded.below(9) - 4;
                    smooth += speed;
                    smooth
                }),
            ),
            ("trend", shape(|i, seeded| i * 10_000 + seeded.below(100))),
            (
                "trend",
                shape(|i, seeded| i * 10_000 + seeded.below(100) + outlier(seeded)),
            ),
            (
                "fine trend",
                shape(|i, seeded| i * 7_003 / 10 + seeded.below(100)),
            ),
            (
                "fine trend",
                shape(|i, seeded| i * 7_003 / 10 + seeded.below(100) + outlier(seeded)),
            ),
        ]
    }

    #[test]
    fn every_shape_gets_its_form() {
        for (name, values) in shapes() {
            assert_eq!(Plan::new(&values).name(), name);
        }
    }

    #[test]
    fn rating_on_a_sample_costs_hardly_more_than_trying_every_form() {
        for (name, values) in shapes() {
            for values in [&values[..], &values[..200], &values[..100]] {
                let rated = Plan::new(values).cost_bytes();
                let best = Plan::cheapest::<GROUP>(values, |_| true, true).cost_bytes();
                assert!(
                    rated <= best + best / 50 + 2,
                    "{name}: {rated} bytes, {best} are possible"
                );
            }
        }
    }

    #[test]
    fn values_out_of_reach_of_each_other_are_exceptions() {
        let mut values = [7; 100];
        values[3] = i64::MIN;
        values[30] = i64::MAX;
        values[60] = 8;
        assert!(Plan::new(&values).cost_bytes() < 50);
    }
}
