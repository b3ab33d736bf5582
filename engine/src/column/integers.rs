//! Columns of any `i64`, in groups of up to 1,024 values. Bytes: `docs/formats/integer-column.md`.
//!
//! A group is a *form* that predicts each value, and what the values differ from it, bit-packed:
//!
//! | form | value `i` is |
//! | --- | --- |
//! | `Zero` | slot |
//! | `Frame` | base + slot |
//! | `Delta` | value `i - 1` + base + slot |
//! | `DeltaOfDelta` | value `i - 1` + (their difference before) + base + slot |
//! | `Trend` | base + slope * i + slot |
//! | `FineTrend` | base + (slope * i) / 1,024, rounded down, + slot |
//!
//! Slots have one width for a group. A few values that would make it wider are *exceptions*: their slot
//! keeps its low bits, the rest stands in a list (patching as in Zukowski et al., "Super-Scalar
//! RAM-CPU Cache Compression", ICDE 2006).
//!
//! Invariants
//! - All arithmetic wraps in 64 bits, so that every column of `i64` has an encoding in every form.
//! - [`Plan::cost_bytes`] is exactly what [`Plan::write`] appends.
//! - A group says how long it is; it does not say how many values it has.
//! - Decoding takes any bytes: it ends with values or an error and allocates only what is asked for.

#![expect(
    clippy::indexing_slicing,
    reason = "hot loops over groups whose length is checked at every entry"
)]

use crate::{column::ColumnError, varint};

use super::bitpack::{self, GROUP_VALUES, WIDTH_MAX};

/// Values of a full group.
pub const GROUP: usize = GROUP_VALUES;

/// Widths that share the first byte with the form.
const SHORT_WIDTHS: u8 = 40;
/// First bytes from here on: the width has a byte of its own.
const LONG_CODES: u8 = Form::COUNT * SHORT_WIDTHS;
/// First bytes from here on are no group.
const CODES_END: u8 = LONG_CODES + 2 * Form::COUNT;
/// Bits of the fraction of a fine slope: over a group it is right to one unit.
const FINE_BITS: u32 = 10;
/// One in so many values may be an exception; beyond that a wider slot is cheaper, or nearly.
const EXCEPTIONS_SHARE: usize = 8;
const EXCEPTIONS_MAX: usize = GROUP / EXCEPTIONS_SHARE;

/// How a group predicts its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Zero,
    Frame,
    Delta,
    DeltaOfDelta,
    Trend,
    FineTrend,
}

impl Form {
    const COUNT: u8 = 6;

    fn code(self) -> u8 {
        self as u8
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Zero,
            1 => Self::Frame,
            2 => Self::Delta,
            3 => Self::DeltaOfDelta,
            4 => Self::Trend,
            5 => Self::FineTrend,
            _ => return None,
        })
    }

    /// Values at the front that stand in the header and need no slot.
    fn skipped(self) -> usize {
        match self {
            Self::Delta => 1,
            Self::DeltaOfDelta => 2,
            Self::Zero | Self::Frame | Self::Trend | Self::FineTrend => 0,
        }
    }

    /// The name of the form, for people.
    fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Frame => "frame",
            Self::Delta => "delta",
            Self::DeltaOfDelta => "delta of delta",
            Self::Trend => "trend",
            Self::FineTrend => "fine trend",
        }
    }
}

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
    exception_width: u32,
    /// Slots and exceptions, without the header.
    cost_bytes: usize,
}

/// What the best group of `values` (1 to 1,024) costs.
pub fn group_cost_bytes(values: &[i64]) -> usize {
    Plan::new(values).cost_bytes()
}

/// Appends the best group of `values`, which are 1 to 1,024.
pub fn encode_group(values: &[i64], out: &mut Vec<u8>) {
    Plan::new(values).write(values, out);
}

impl Plan {
    /// Chooses the encoding of `values`, which are 1 to 1,024.
    ///
    /// # Panics
    ///
    /// If there are none or more.
    pub fn new(values: &[i64]) -> Self {
        let count = values.len();
        assert!(
            (1..=GROUP).contains(&count),
            "a group has 1 to {GROUP} values"
        );
        let mut residuals = [0_i64; GROUP];
        let residuals = &mut residuals[..count];

        let mut best = Self::of_form(Form::Frame, 0, values, residuals);
        if best.fit.width == 0 && best.fit.exceptions == 0 {
            return best;
        }
        let mut consider = |form, slope| {
            let plan = Self::of_form(form, slope, values, residuals);
            if plan.cost_bytes < best.cost_bytes {
                best = plan;
            }
        };
        if count >= 2 {
            consider(Form::Delta, 0);
        }
        if count >= 3 {
            consider(Form::DeltaOfDelta, values[1].wrapping_sub(values[0]));
            let slope = slope_of(values);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "saturates, which is as good as any"
            )]
            {
                consider(Form::Trend, slope.round() as i64);
                let fine = slope * f64::from(1 << FINE_BITS);
                consider(Form::FineTrend, fine.round() as i64);
            }
        }
        best
    }

    fn of_form(form: Form, slope: i64, values: &[i64], residuals: &mut [i64]) -> Self {
        let skipped = form.skipped();
        fill_residuals(form, slope, values, residuals);
        let mut plan = Self {
            form,
            first: values[0],
            slope,
            fit: Fit::of(&residuals[skipped..], values.len() == GROUP),
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
        } else if fit.exceptions == 0 {
            let all = values.iter().fold(0, |all, value| all | value);
            if all >= 0 && bits_of(all.cast_unsigned()) <= fit.width {
                fit.base = 0;
                self.form = Form::Zero;
            }
        }
    }

    /// The bytes that [`Plan::write`] appends.
    pub fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// The name of the encoding, for people.
    pub fn name(&self) -> &'static str {
        if self.fit.width == 0 && matches!(self.form, Form::Zero | Form::Frame) {
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
        let Fit {
            base,
            width,
            exceptions,
            exception_width,
            ..
        } = self.fit;

        #[expect(clippy::cast_possible_truncation, reason = "widths are at most 64")]
        if self.is_short() {
            out.push(self.form.code() * SHORT_WIDTHS + width as u8);
        } else {
            out.push(LONG_CODES + 2 * self.form.code() + u8::from(exceptions > 0));
            out.push(width as u8);
        }
        for number in self.numbers() {
            varint::put_i64(out, number);
        }

        let mut residuals = [0_i64; GROUP];
        fill_residuals(self.form, self.slope, values, &mut residuals[..self.count]);
        let skipped = self.form.skipped();
        let mut slots = [0_u64; GROUP];
        for (slot, residual) in slots[skipped..self.count]
            .iter_mut()
            .zip(&residuals[skipped..])
        {
            *slot = residual.wrapping_sub(base).cast_unsigned();
        }
        if exceptions > 0 {
            write_exceptions(
                &slots[skipped..self.count],
                width,
                exceptions,
                exception_width,
                out,
            );
        }
        if self.count == GROUP {
            bitpack::pack_group(&slots, width, out);
        } else {
            bitpack::pack_run(&slots[skipped..self.count], width, out);
        }
        debug_assert_eq!(out.len() - start, self.cost_bytes);
    }
}

impl Fit {
    /// The cheapest base, width and exceptions for `residuals` (at least one).
    fn of(residuals: &[i64], full: bool) -> Self {
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for &residual in residuals {
            low = low.min(residual);
            high = high.max(residual);
        }
        if residuals.is_empty() {
            (low, high) = (0, 0);
        }
        let width = bits_of(high.wrapping_sub(low).cast_unsigned());
        let mut best = Self {
            base: low,
            width,
            exceptions: 0,
            exception_width: 0,
            cost_bytes: slots_bytes(residuals.len(), full, width),
        };
        best.try_exceptions(residuals, full);
        best
    }

    /// Looks for a window of values so dense that packing it narrower pays for listing the rest.
    ///
    /// 1. Only the lowest and highest few residuals can be outside of it: sort those.
    /// 2. For each width from the least possible one up: slide the window's lower end over the low
    ///    ones, the upper end follows.
    fn try_exceptions(&mut self, residuals: &[i64], full: bool) {
        let allowed = residuals.len() / EXCEPTIONS_SHARE;
        if allowed == 0 || self.width == 0 {
            return;
        }
        let mut sorted = [0_i64; GROUP];
        let sorted = &mut sorted[..residuals.len()];
        sorted.copy_from_slice(residuals);
        sorted.select_nth_unstable(allowed);
        let highs_at = sorted.len() - 1 - allowed;
        if highs_at > allowed {
            sorted[allowed + 1..].select_nth_unstable(highs_at - allowed - 1);
        }
        sorted[..=allowed].sort_unstable();
        sorted[highs_at..].sort_unstable();
        let (lows, highs) = (&sorted[..=allowed], &sorted[highs_at..]);
        let difference = |high: i64, low: i64| high.wrapping_sub(low).cast_unsigned();

        let least = (0..=allowed)
            .map(|below| bits_of(difference(highs[below], lows[below])))
            .min()
            .unwrap_or(0);
        let position_width = position_width(residuals.len());
        for width in least..self.width {
            if slots_bytes(residuals.len(), full, width) >= self.cost_bytes {
                break;
            }
            let mut kept_highs = 0;
            for below in 0..=allowed {
                let base = lows[below];
                while kept_highs <= allowed
                    && difference(highs[kept_highs], base) <= bitpack::mask(width)
                {
                    kept_highs += 1;
                }
                // `highs` begins with a value that no window may leave out.
                let above = allowed + 1 - kept_highs;
                let exceptions = below + above;
                if exceptions > allowed || exceptions == 0 {
                    continue;
                }
                let exception_width = [lows[0], highs[allowed]]
                    .into_iter()
                    .map(|end| match end.checked_sub(base) {
                        Some(residual) => bits_of(zigzag(residual >> width)),
                        None => WIDTH_MAX - width,
                    })
                    .max()
                    .unwrap_or(0);
                let cost_bytes = slots_bytes(residuals.len(), full, width)
                    + exceptions_bytes(exceptions, position_width, exception_width);
                if cost_bytes < self.cost_bytes {
                    *self = Self {
                        base,
                        width,
                        exceptions,
                        exception_width,
                        cost_bytes,
                    };
                }
            }
        }
        if self.exceptions > 0 {
            self.count_exceptions(residuals, full);
        }
    }

    /// Makes the numbers exact: residuals that span more than 63 bits wrap, so that one from the
    /// far end may lie in the window after all.
    fn count_exceptions(&mut self, residuals: &[i64], full: bool) {
        let (mut exceptions, mut all) = (0, 0);
        for residual in residuals {
            let rest = residual.wrapping_sub(self.base) >> self.width;
            exceptions += usize::from(rest != 0);
            all |= zigzag(rest);
        }
        self.exceptions = exceptions;
        self.exception_width = bits_of(all);
        self.cost_bytes = slots_bytes(residuals.len(), full, self.width);
        if exceptions > 0 {
            self.cost_bytes += exceptions_bytes(
                exceptions,
                position_width(residuals.len()),
                self.exception_width,
            );
        }
    }
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

/// The slope of the line through `values` (at least two) with the least squared distance.
fn slope_of(values: &[i64]) -> f64 {
    let first = values[0];
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let (mut weighted, mut x) = (0.0, -middle);
    for value in values {
        weighted += x * value.wrapping_sub(first) as f64;
        x += 1.0;
    }
    weighted * 12.0 / (count * (count * count - 1.0))
}

/// The list of exceptions among `slots`: their number, the width of their high bits, positions, high
/// bits.
fn write_exceptions(
    slots: &[u64],
    width: u32,
    exceptions: usize,
    exception_width: u32,
    out: &mut Vec<u8>,
) {
    let mut positions = [0_u64; EXCEPTIONS_MAX];
    let mut rests = [0_u64; EXCEPTIONS_MAX];
    let mut found = 0;
    for (position, slot) in slots.iter().enumerate() {
        let rest = slot.cast_signed() >> width;
        if rest != 0 {
            positions[found] = position as u64;
            rests[found] = zigzag(rest);
            found += 1;
        }
    }
    assert_eq!(found, exceptions, "a plan is for its own values");
    varint::put_u64(out, exceptions as u64);
    #[expect(clippy::cast_possible_truncation, reason = "widths are at most 64")]
    out.push(exception_width as u8);
    bitpack::pack_run(&positions[..found], position_width(slots.len()), out);
    bitpack::pack_run(&rests[..found], exception_width, out);
}

/// Decodes the group of `count` values (1 to 1,024) at the front of `bytes` into the front of `out` and
/// says how many bytes it took. Behind `count`, `out` is left as it was.
///
/// # Errors
///
/// If the bytes are no group of so many values.
pub fn decode_group(
    bytes: &[u8],
    count: usize,
    out: &mut [i64; GROUP],
) -> Result<usize, ColumnError> {
    match out.get_mut(..count) {
        Some(out) if count > 0 => decode_into(bytes, out),
        _ => Err(damaged(0, "a group has 1 to 1,024 values")),
    }
}

/// Decodes the group at the front of `bytes`, which has as many values as `out`.
fn decode_into(bytes: &[u8], out: &mut [i64]) -> Result<usize, ColumnError> {
    let mut input = Input { bytes, at: 0 };
    let code = input.byte()?;
    let (form, width, patched) = if code < LONG_CODES {
        (code / SHORT_WIDTHS, code % SHORT_WIDTHS, false)
    } else if code < CODES_END {
        let code = code - LONG_CODES;
        (code / 2, input.byte()?, code % 2 == 1)
    } else {
        return Err(input.damaged("unknown form of a group"));
    };
    let Some(form) = Form::from_code(form) else {
        return Err(input.damaged("unknown form of a group"));
    };
    let width = u32::from(width);
    if width > WIDTH_MAX {
        return Err(input.damaged("a width above 64 bits"));
    }
    let skipped = form.skipped();
    if out.len() < skipped {
        return Err(input.damaged("fewer values than the form needs"));
    }
    let first = if skipped > 0 { input.signed()? } else { 0 };
    let slope = match form {
        Form::DeltaOfDelta | Form::Trend | Form::FineTrend => input.signed()?,
        Form::Zero | Form::Frame | Form::Delta => 0,
    };
    let base = if form == Form::Zero {
        0
    } else {
        input.signed()?
    };

    let mut exceptions = Exceptions::NONE;
    if patched {
        exceptions = Exceptions::read(&mut input, out.len() - skipped, width)?;
    }
    let fits = match <&mut [i64; GROUP]>::try_from(&mut *out) {
        Ok(out) => {
            let bytes = input.take(bitpack::group_bytes(width))?;
            bitpack::unpack_group(bytes, width, base, out)
        }
        Err(_) => {
            let slots = &mut out[skipped..];
            let bytes = input.take(bitpack::run_bytes(slots.len(), width))?;
            bitpack::unpack_run(bytes, width, base, slots)
        }
    };
    debug_assert!(fits, "the bytes were cut to length");
    exceptions.patch(&mut out[skipped..], width);

    match form {
        Form::Zero | Form::Frame => {}
        Form::Delta => {
            out[0] = first;
            let mut value = first;
            for slot in &mut out[1..] {
                value = value.wrapping_add(*slot);
                *slot = value;
            }
        }
        Form::DeltaOfDelta => {
            let (mut value, mut delta) = (first.wrapping_add(slope), slope);
            out[0] = first;
            out[1] = value;
            for slot in &mut out[2..] {
                delta = delta.wrapping_add(*slot);
                value = value.wrapping_add(delta);
                *slot = value;
            }
        }
        Form::Trend => {
            let mut line = 0_i64;
            for slot in out {
                *slot = slot.wrapping_add(line);
                line = line.wrapping_add(slope);
            }
        }
        Form::FineTrend => {
            let mut line = 0_i64;
            for slot in out {
                *slot = slot.wrapping_add(line >> FINE_BITS);
                line = line.wrapping_add(slope);
            }
        }
    }
    Ok(input.at)
}

/// Exceptions of a group, unpacked.
struct Exceptions {
    count: usize,
    positions: [i64; EXCEPTIONS_MAX],
    rests: [i64; EXCEPTIONS_MAX],
}

impl Exceptions {
    const NONE: Self = Self {
        count: 0,
        positions: [0; EXCEPTIONS_MAX],
        rests: [0; EXCEPTIONS_MAX],
    };

    fn read(input: &mut Input<'_>, slots: usize, width: u32) -> Result<Self, ColumnError> {
        let mut found = Self::NONE;
        let count = input.unsigned()?;
        found.count = match usize::try_from(count) {
            Ok(count) if (1..=slots / EXCEPTIONS_SHARE).contains(&count) => count,
            _ => return Err(input.damaged("no or too many exceptions")),
        };
        let rest_width = u32::from(input.byte()?);
        if rest_width == 0 || rest_width + width > WIDTH_MAX {
            return Err(input.damaged("exceptions wider than 64 bits"));
        }
        let position_width = position_width(slots);
        let positions = input.take(bitpack::run_bytes(found.count, position_width))?;
        let rests = input.take(bitpack::run_bytes(found.count, rest_width))?;
        let fits = bitpack::unpack_run(
            positions,
            position_width,
            0,
            &mut found.positions[..found.count],
        ) && bitpack::unpack_run(rests, rest_width, 0, &mut found.rests[..found.count]);
        debug_assert!(fits, "the bytes were cut to length");
        // Rising, so that the last one speaks for all.
        let positions = &found.positions[..found.count];
        if !positions.is_sorted_by(|a, b| a < b)
            || positions
                .last()
                .is_some_and(|&last| last.cast_unsigned() >= slots as u64)
        {
            return Err(input.damaged("exceptions out of order"));
        }
        Ok(found)
    }

    fn patch(&self, slots: &mut [i64], width: u32) {
        for (&position, &rest) in self.positions.iter().zip(&self.rests).take(self.count) {
            if let Some(slot) = usize::try_from(position)
                .ok()
                .and_then(|position| slots.get_mut(position))
            {
                // Width and the rest's own width are at most 64 together.
                let high = unzigzag(rest.cast_unsigned())
                    .checked_shl(width)
                    .unwrap_or(0);
                *slot = slot.wrapping_add(high);
            }
        }
    }
}

/// Appends `values` as a column: groups of 1,024, the last one with the rest.
pub fn encode(values: &[i64], out: &mut Vec<u8>) {
    for group in values.chunks(GROUP) {
        encode_group(group, out);
    }
}

/// Decodes a column of `count` values, which is all of `bytes`, and appends them to `out`.
///
/// # Errors
///
/// If the bytes are no column of so many values; `out` is as long as before then.
pub fn decode(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<(), ColumnError> {
    // A group has a byte at least.
    if count.div_ceil(GROUP) > bytes.len() {
        return Err(damaged(bytes.len(), "the column ends inside a group"));
    }
    let start = out.len();
    out.resize(start + count, 0);
    let result = decode_groups(bytes, &mut out[start..]);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn decode_groups(bytes: &[u8], out: &mut [i64]) -> Result<(), ColumnError> {
    let mut at = 0;
    for group in out.chunks_mut(GROUP) {
        match decode_into(&bytes[at..], group) {
            Ok(taken) => at += taken,
            Err(ColumnError::Damaged {
                offset_bytes,
                reason,
            }) => return Err(damaged(at + offset_bytes, reason)),
        }
    }
    if at == bytes.len() {
        Ok(())
    } else {
        Err(damaged(at, "bytes behind the last group"))
    }
}

/// Bytes that are read from the front.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn damaged(&self, reason: &'static str) -> ColumnError {
        damaged(self.at, reason)
    }

    fn byte(&mut self) -> Result<u8, ColumnError> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte.ok_or_else(|| damaged(self.bytes.len(), "the group ends inside its header"))
    }

    fn unsigned(&mut self) -> Result<u64, ColumnError> {
        let mut rest = &self.bytes[self.at..];
        let value = varint::take_u64(&mut rest).ok_or_else(|| {
            self.damaged("a number of the group's header is cut short or too long")
        })?;
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }

    fn signed(&mut self) -> Result<i64, ColumnError> {
        self.unsigned().map(unzigzag)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ColumnError> {
        let taken = self.bytes[self.at..]
            .get(..count)
            .ok_or_else(|| self.damaged("the group ends inside its values"))?;
        self.at += count;
        Ok(taken)
    }
}

fn damaged(offset_bytes: usize, reason: &'static str) -> ColumnError {
    ColumnError::Damaged {
        offset_bytes,
        reason,
    }
}

/// Bits needed for `value`.
#[inline]
fn bits_of(value: u64) -> u32 {
    WIDTH_MAX - value.leading_zeros()
}

#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Bytes of `value` as a zigzag varint.
fn signed_bytes(value: i64) -> usize {
    unsigned_bytes(zigzag(value))
}

fn unsigned_bytes(value: u64) -> usize {
    (bits_of(value).max(1)).div_ceil(7) as usize
}

/// Bits of the position of one of `slots` slots.
fn position_width(slots: usize) -> u32 {
    bits_of(slots.saturating_sub(1) as u64)
}

fn slots_bytes(slots: usize, full: bool, width: u32) -> usize {
    if full {
        bitpack::group_bytes(width)
    } else {
        bitpack::run_bytes(slots, width)
    }
}

fn exceptions_bytes(count: usize, position_width: u32, rest_width: u32) -> usize {
    unsigned_bytes(count as u64)
        + 1
        + bitpack::run_bytes(count, position_width)
        + bitpack::run_bytes(count, rest_width)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[i64]) -> usize {
        let mut bytes = vec![0xaa; 3];
        encode(values, &mut bytes);
        let mut out = vec![7];
        decode(&bytes[3..], values.len(), &mut out).unwrap();
        assert_eq!(out[0], 7);
        assert!(out[1..] == *values);
        bytes.len() - 3
    }

    /// Columns of the shapes that stores have, and of shapes that they never should.
    fn column() -> impl Strategy<Value = Vec<i64>> {
        let length = prop_oneof![1..40_usize, 1000..1050_usize, 1..4000_usize];
        let number = prop_oneof![
            any::<i64>(),
            -100..100_i64,
            Just(i64::MIN),
            Just(i64::MAX),
            Just(0)
        ];
        (
            length,
            number.clone(),
            number.clone(),
            0..64_u32,
            any::<u64>(),
            0..3_u8,
            proptest::collection::vec((any::<prop::sample::Index>(), number), 0..20),
        )
            .prop_map(|(length, start, step, noise_bits, seed, sums, outliers)| {
                let mut state = seed | 1;
                let mut values: Vec<i64> = (0..length as i64)
                    .map(|i| {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        let noise = (state & bitpack::mask(noise_bits)).cast_signed();
                        start.wrapping_add(step.wrapping_mul(i)).wrapping_add(noise)
                    })
                    .collect();
                for (index, outlier) in outliers {
                    let at = index.index(values.len());
                    values[at] = outlier;
                }
                for _ in 0..sums {
                    for i in 1..values.len() {
                        values[i] = values[i].wrapping_add(values[i - 1]);
                    }
                }
                values
            })
    }

    proptest! {
        #[test]
        fn columns_come_back(values in column()) {
            round_trip(&values);
        }

        #[test]
        fn a_plan_costs_what_it_writes_and_a_group_says_its_length(values in column()) {
            let values = &values[..values.len().min(GROUP)];
            let plan = Plan::new(values);
            let mut bytes = Vec::new();
            plan.write(values, &mut bytes);
            prop_assert_eq!(bytes.len(), plan.cost_bytes());
            bytes.extend_from_slice(&[0xff; 20]);
            let mut out = [0; GROUP];
            let taken = decode_group(&bytes, values.len(), &mut out).unwrap();
            prop_assert_eq!(taken, plan.cost_bytes());
            prop_assert!(out[..values.len()] == *values);
        }

        #[test]
        fn damaged_columns_are_refused_or_other_values(
            values in column(), at: prop::sample::Index, flip in 1..=255_u8, count in 0..5000_usize,
        ) {
            let mut bytes = Vec::new();
            encode(&values, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut out = Vec::new();
            let _ = decode(&bytes, values.len(), &mut out);
            let _ = decode(&bytes, count, &mut out);
            bytes.truncate(at);
            out.clear();
            prop_assert!(decode(&bytes, values.len(), &mut out).is_err());
            prop_assert!(out.is_empty());
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 0..3000_usize,
        ) {
            let mut out = Vec::new();
            let _ = decode(&bytes, count, &mut out);
            prop_assert!(out.is_empty() || out.len() == count);
        }
    }

    #[test]
    fn small_columns_cost_two_bytes_beside_their_bits() {
        assert_eq!(round_trip(&[5; 10]), 2);
        assert_eq!(round_trip(&[0; 1024]), 1);
        assert_eq!(round_trip(&[1, 7, 3, 0, 2, 6, 5, 4, 1, 2]), 1 + 4);
        assert_eq!(round_trip(&[41, 47, 43, 40, 42, 46, 45, 44, 41, 42]), 2 + 4);
    }

    #[test]
    fn outliers_cost_themselves_only() {
        let mut values: Vec<i64> = (0..1024).map(|i| i * 7 % 16).collect();
        values[100] = i64::MIN;
        values[200] = i64::MAX;
        values[300] = 1_000_000;
        assert!(round_trip(&values) < 4 * 128 + 50);
    }

    #[test]
    fn a_count_without_bytes_allocates_nothing() {
        let mut out = Vec::new();
        assert!(decode(&[], usize::MAX, &mut out).is_err());
        assert!(decode(&[0, 0], usize::MAX, &mut out).is_err());
        assert_eq!(out.capacity(), 0);
        assert!(decode(&[], 0, &mut out).is_ok());
        assert!(decode(&[0], 0, &mut out).is_err());
    }
}
