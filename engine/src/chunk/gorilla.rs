//! The chunk of the metric head: timestamps as differences of differences, values as XOR with the
//! one before, after Pelkonen et al., "Gorilla: A Fast, Scalable, In-Memory Time Series Database",
//! VLDB 2015. Bytes: `docs/formats/gorilla-chunk.md`.
//!
//! Invariants
//! - A chunk has at least one sample and at most [`CHUNK_SAMPLES_MAX`]; timestamps rise strictly.
//! - All its timestamps are whole multiples of its unit, which the first one decides.
//! - Appending changes bits behind the last sample and the count, nothing else: who copied the
//!   bytes, or remembers a count, reads the same first samples for ever.
//! - Differences of timestamps wrap in 64 bits, so that every pair of `i64` has one.
//!
//! Where the paper leaves room: classes of timestamp differences are chosen per unit; a new
//! window of meaningful bits is opened not only when the old one is too narrow, but also when
//! it wastes more bits than a new one costs.

use crate::chunk::bitstream::{BitReader, BitWriter};

/// Samples of a full chunk. Measured: beyond some hundred samples the 19 bytes of the header no
/// longer show, and a reader that wants the newest sample decodes them all (some microseconds).
pub const CHUNK_SAMPLES_MAX: u16 = 1024;
/// Bytes of a full chunk: what noise in every bit takes is 9 KiB, so that only such series reach
/// this bound before the other one.
pub const CHUNK_BYTES_MAX: usize = 8 * 1024;

/// First byte: version in the high half, unit in the low half.
const VERSION: u8 = 1;
const COUNT_AT: usize = 1;
const FIRST_TIME_AT: usize = COUNT_AT + size_of::<u16>();
const FIRST_VALUE_AT: usize = FIRST_TIME_AT + size_of::<i64>();
const HEADER_BYTES: usize = FIRST_VALUE_AT + size_of::<u64>();
/// Room for the header and some samples that hardly change.
const CAPACITY_BYTES_FIRST: usize = 24;
/// A sample in its longest form: 5 + 64 bits of time, 2 + 5 + 6 + 64 bits of value.
const SAMPLE_BYTES_MAX: usize = (5 + 64 + 2 + 5 + 6 + 64_usize).div_ceil(8);

/// Bits of the leading-zero count of a window.
const LEADING_BITS: u32 = 5;
/// Bits of the length of a window, stored less one.
const LENGTH_BITS: u32 = 6;
/// What a new window costs beside its meaningful bits.
const WINDOW_BITS: u32 = LEADING_BITS + LENGTH_BITS;

const _: () = assert!(HEADER_BYTES <= CAPACITY_BYTES_FIRST);
const _: () = assert!(HEADER_BYTES + SAMPLE_BYTES_MAX <= CHUNK_BYTES_MAX);
const _: () = assert!(size_of::<Chunk>() <= 64);

/// What a chunk counts its time in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Any timestamp.
    Nanosecond,
    /// Timestamps that are whole milliseconds, as Prometheus sends them.
    Millisecond,
}

impl TimeUnit {
    fn of(time_ns: i64) -> Self {
        if time_ns % Self::Millisecond.ns() == 0 {
            Self::Millisecond
        } else {
            Self::Nanosecond
        }
    }

    const fn ns(self) -> i64 {
        match self {
            Self::Nanosecond => 1,
            Self::Millisecond => 1_000_000,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Nanosecond => 0,
            Self::Millisecond => 1,
        }
    }

    /// Bits of each class of delta-of-delta, behind the prefixes `10`, `110`, `1110`, `11110` and
    /// `11111`. Milliseconds: jitter of a scrape, of a push, a step of up to 65 s, 24 days, all.
    /// Nanoseconds: jitter of microseconds, milliseconds, half a second, a step of 9 min, all.
    const fn class_bits(self) -> [u32; 5] {
        match self {
            Self::Nanosecond => [13, 22, 30, 40, 64],
            Self::Millisecond => [7, 11, 17, 32, 64],
        }
    }
}

/// Why a sample was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefusal {
    /// The chunk is full: start a new one with this sample.
    #[error("the chunk is full")]
    Full,
    /// The timestamp is no multiple of the chunk's unit: start a new one with this sample.
    #[error("the timestamp is no multiple of the chunk's unit")]
    OtherUnit,
    /// The timestamp is not above the last one: this sample belongs elsewhere.
    #[error("the timestamp is not above the last one")]
    NotLater,
}

impl AppendRefusal {
    /// Whether a new chunk can start with the refused sample.
    pub fn wants_new_chunk(self) -> bool {
        match self {
            Self::Full | Self::OtherUnit => true,
            Self::NotLater => false,
        }
    }
}

/// Why bytes are no chunk. Offsets are sample numbers from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The header does not fit.
    #[error("a chunk of {bytes} bytes, its header alone has {HEADER_BYTES}")]
    HeaderCut {
        /// Bytes found.
        bytes: usize,
    },
    /// More bytes than a chunk may have.
    #[error("a chunk of {bytes} bytes, at most {CHUNK_BYTES_MAX} are possible")]
    TooLong {
        /// Bytes found.
        bytes: usize,
    },
    /// The first byte names another version or unit.
    #[error("unknown chunk version or unit {found:#04x}")]
    UnknownVersion {
        /// The first byte.
        found: u8,
    },
    /// No sample, or more than a chunk may have.
    #[error("a chunk of {count} samples, 1 to {CHUNK_SAMPLES_MAX} are possible")]
    CountOutOfRange {
        /// The count found.
        count: u16,
    },
    /// The bits end inside a sample.
    #[error("the bits end inside sample {sample}")]
    BitsCut {
        /// The sample that is cut.
        sample: u16,
    },
    /// A timestamp is not above the one before it, or not in the range of nanoseconds.
    #[error("the timestamp of sample {sample} is out of order or out of range")]
    TimeOutOfRange {
        /// The sample.
        sample: u16,
    },
    /// A window of meaningful bits does not fit 64 bits, or was never opened.
    #[error("the value of sample {sample} has no valid window")]
    WindowOutOfRange {
        /// The sample.
        sample: u16,
    },
    /// There is more behind the last sample than zero bits up to the byte's end.
    #[error("data behind the last sample, from bit {at_bits}")]
    TrailingData {
        /// Where the last sample ends, counted behind the header.
        at_bits: usize,
    },
}

/// Samples of one series, compressed, growing at the end.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The chunk's bytes as they would be stored, header included.
    bytes: Vec<u8>,
    last_time_units: i64,
    /// Last difference of timestamps, modulo 2^64.
    last_delta_units: u64,
    last_value_bits: u64,
    count: u16,
    unit: TimeUnit,
    /// Unused low bits of the last byte.
    free_bits: u8,
    window: Window,
}

/// The meaningful bits of an XOR: how many zeros stand above them and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    leading: u8,
    /// 0 if no window was opened yet.
    len: u8,
}

impl Window {
    const NONE: Self = Self { leading: 0, len: 0 };

    #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
    fn of(xor: u64) -> Self {
        let leading = xor.leading_zeros().min((1 << LEADING_BITS) - 1);
        Self {
            leading: leading as u8,
            len: (64 - leading - xor.trailing_zeros()) as u8,
        }
    }

    fn trailing(self) -> u32 {
        64 - u32::from(self.leading) - u32::from(self.len)
    }

    /// Whether all set bits of `other` lie in this window and using it is not dearer than
    /// opening `other`.
    fn serves(self, other: Self) -> bool {
        self.leading <= other.leading
            && self.trailing() <= other.trailing()
            && u32::from(self.len) <= u32::from(other.len) + WINDOW_BITS
            && self.len > 0
    }
}

impl Chunk {
    /// A chunk of one sample, whose timestamp decides the unit.
    pub fn new(time_ns: i64, value: f64) -> Self {
        let unit = TimeUnit::of(time_ns);
        let time_units = time_ns / unit.ns();
        let mut bytes = Vec::with_capacity(CAPACITY_BYTES_FIRST);
        bytes.push(VERSION << 4 | unit.code());
        bytes.extend_from_slice(&1_u16.to_le_bytes());
        bytes.extend_from_slice(&time_units.to_le_bytes());
        bytes.extend_from_slice(&value.to_bits().to_le_bytes());
        Self {
            bytes,
            last_time_units: time_units,
            last_delta_units: 0,
            last_value_bits: value.to_bits(),
            count: 1,
            unit,
            free_bits: 0,
            window: Window::NONE,
        }
    }

    /// Appends a sample, or leaves the chunk as it was.
    ///
    /// # Errors
    /// The reason; [`AppendRefusal::wants_new_chunk`] says whether the sample can start the next
    /// chunk.
    pub fn append(&mut self, time_ns: i64, value: f64) -> Result<(), AppendRefusal> {
        let time_units = match self.unit {
            TimeUnit::Nanosecond => time_ns,
            TimeUnit::Millisecond => {
                let time_units = time_ns / TimeUnit::Millisecond.ns();
                if time_units * TimeUnit::Millisecond.ns() != time_ns {
                    // A late sample belongs elsewhere, whatever its unit.
                    let is_later = time_ns > self.max_time_ns();
                    return Err(if is_later {
                        AppendRefusal::OtherUnit
                    } else {
                        AppendRefusal::NotLater
                    });
                }
                time_units
            }
        };
        if time_units <= self.last_time_units {
            return Err(AppendRefusal::NotLater);
        }
        if self.count >= CHUNK_SAMPLES_MAX || self.bytes.len() + SAMPLE_BYTES_MAX > CHUNK_BYTES_MAX
        {
            return Err(AppendRefusal::Full);
        }

        let mut writer = BitWriter::new(&mut self.bytes, u32::from(self.free_bits));
        let delta = time_units
            .wrapping_sub(self.last_time_units)
            .cast_unsigned();
        write_time(
            &mut writer,
            self.unit,
            delta.wrapping_sub(self.last_delta_units),
        );
        let xor = value.to_bits() ^ self.last_value_bits;
        write_value(&mut writer, &mut self.window, xor);
        #[expect(clippy::cast_possible_truncation, reason = "at most 7")]
        let free_bits = writer.free_bits() as u8;

        self.free_bits = free_bits;
        self.last_time_units = time_units;
        self.last_delta_units = delta;
        self.last_value_bits = value.to_bits();
        self.count += 1;
        if let Some(count) = self.bytes.get_mut(COUNT_AT..FIRST_TIME_AT) {
            count.copy_from_slice(&self.count.to_le_bytes());
        }
        Ok(())
    }

    /// Samples in the chunk, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub fn len(&self) -> u16 {
        self.count
    }

    /// Whether [`append`](Self::append) would refuse any further sample.
    pub fn is_full(&self) -> bool {
        self.count >= CHUNK_SAMPLES_MAX || self.bytes.len() + SAMPLE_BYTES_MAX > CHUNK_BYTES_MAX
    }

    /// The first timestamp, which is the least.
    pub fn min_time_ns(&self) -> i64 {
        first_sample(&self.bytes).0.wrapping_mul(self.unit.ns())
    }

    /// The last timestamp, which is the greatest.
    pub fn max_time_ns(&self) -> i64 {
        self.last_time_units.wrapping_mul(self.unit.ns())
    }

    /// The last value.
    pub fn last_value(&self) -> f64 {
        f64::from_bits(self.last_value_bits)
    }

    /// What the timestamps are counted in.
    pub fn unit(&self) -> TimeUnit {
        self.unit
    }

    /// All samples.
    pub fn iter(&self) -> ChunkIter<'_> {
        self.iter_prefix(self.count)
    }

    /// The first `count` samples, or all if there are fewer: a snapshot's view of a chunk that
    /// has grown since.
    pub fn iter_prefix(&self, count: u16) -> ChunkIter<'_> {
        ChunkIter {
            decoder: Decoder::new(&self.bytes, self.unit, count.min(self.count)),
        }
    }

    /// A copy of the first `count` samples, or of all if there are fewer, to be read outside the
    /// lock: one copy of bytes, nothing is decoded.
    pub fn copy_prefix(&self, count: u16) -> ChunkCopy {
        ChunkCopy {
            bytes: self.bytes.as_slice().into(),
            unit: self.unit,
            count: count.min(self.count),
        }
    }

    /// Gives back the room for growth.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// The stored form; [`from_bytes`](Self::from_bytes) reads it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The stored form.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes allocated beside the value itself.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Reads the stored form and checks it by decoding every sample; the chunk can be appended to.
    ///
    /// # Errors
    /// What is wrong and at which sample. Total: any bytes give a chunk or an error.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ChunkError> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(ChunkError::TooLong { bytes: bytes.len() });
        }
        let Some((&[first, low, high], _)) = bytes.split_first_chunk::<FIRST_TIME_AT>() else {
            return Err(ChunkError::HeaderCut { bytes: bytes.len() });
        };
        if bytes.len() < HEADER_BYTES {
            return Err(ChunkError::HeaderCut { bytes: bytes.len() });
        }
        let unit = [TimeUnit::Nanosecond, TimeUnit::Millisecond]
            .into_iter()
            .find(|unit| first == VERSION << 4 | unit.code())
            .ok_or(ChunkError::UnknownVersion { found: first })?;
        let count = u16::from_le_bytes([low, high]);
        if !(1..=CHUNK_SAMPLES_MAX).contains(&count) {
            return Err(ChunkError::CountOutOfRange { count });
        }

        let mut decoder = Decoder::new(bytes, unit, count);
        while let Some(sample) = decoder.next() {
            sample?;
        }
        let at_bits = decoder.reader.at_bits();
        let unused = decoder.reader.peek();
        if HEADER_BYTES + at_bits.div_ceil(8) != bytes.len() || unused != 0 {
            return Err(ChunkError::TrailingData { at_bits });
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 7")]
        let free_bits = (at_bits.wrapping_neg() & 7) as u8;
        Ok(Self {
            bytes: bytes.to_vec(),
            last_time_units: decoder.time_units,
            last_delta_units: decoder.delta_units,
            last_value_bits: decoder.value_bits,
            count,
            unit,
            free_bits,
            window: decoder.window,
        })
    }
}

impl<'c> IntoIterator for &'c Chunk {
    type Item = (i64, f64);
    type IntoIter = ChunkIter<'c>;

    fn into_iter(self) -> ChunkIter<'c> {
        self.iter()
    }
}

#[inline]
fn write_time(writer: &mut BitWriter<'_>, unit: TimeUnit, delta_of_delta: u64) {
    if delta_of_delta == 0 {
        writer.write(0, 1);
        return;
    }
    let signed = delta_of_delta.cast_signed();
    // Magnitude bits and a sign bit.
    let needed = 65 - (if signed < 0 { !signed } else { signed }).leading_zeros();
    let [a, b, c, d, all] = unit.class_bits();
    let (prefix, prefix_bits, bits) = if needed <= a {
        (0b10, 2, a)
    } else if needed <= b {
        (0b110, 3, b)
    } else if needed <= c {
        (0b1110, 4, c)
    } else if needed <= d {
        (0b1_1110, 5, d)
    } else {
        writer.write(0b1_1111, 5);
        writer.write(delta_of_delta, all);
        return;
    };
    let low = delta_of_delta & ((1 << bits) - 1);
    writer.write(prefix << bits | low, prefix_bits + bits);
}

#[inline]
fn write_value(writer: &mut BitWriter<'_>, window: &mut Window, xor: u64) {
    if xor == 0 {
        writer.write(0, 1);
        return;
    }
    let exact = Window::of(xor);
    if window.serves(exact) {
        let len = u32::from(window.len);
        write_joined(writer, 0b10, 2, xor >> window.trailing(), len);
        return;
    }
    *window = exact;
    let leading = u64::from(exact.leading);
    let control = (0b11 << LEADING_BITS | leading) << LENGTH_BITS | (u64::from(exact.len) - 1);
    write_joined(
        writer,
        control,
        2 + WINDOW_BITS,
        xor >> exact.trailing(),
        u32::from(exact.len),
    );
}

/// Writes control bits and the bits they announce, in one go where 64 bits hold both.
#[inline]
fn write_joined(writer: &mut BitWriter<'_>, control: u64, control_bits: u32, bits: u64, len: u32) {
    if control_bits + len <= 64 {
        writer.write(control << len | bits, control_bits + len);
    } else {
        writer.write(control, control_bits);
        writer.write(bits, len);
    }
}

/// Timestamp in units and value bits of the header; zeros if the header is cut, which is checked
/// before a chunk is made of foreign bytes.
fn first_sample(bytes: &[u8]) -> (i64, u64) {
    let field = |at: usize| {
        bytes
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .map_or(0, |b| u64::from_le_bytes(*b))
    };
    (field(FIRST_TIME_AT).cast_signed(), field(FIRST_VALUE_AT))
}

/// Decodes samples and says what is wrong with them.
#[derive(Debug, Clone)]
struct Decoder<'b> {
    reader: BitReader<'b>,
    /// The sample that comes next.
    sample: u16,
    count: u16,
    unit: TimeUnit,
    window: Window,
    time_units: i64,
    delta_units: u64,
    value_bits: u64,
}

impl<'b> Decoder<'b> {
    fn new(bytes: &'b [u8], unit: TimeUnit, count: u16) -> Self {
        let (time_units, value_bits) = first_sample(bytes);
        let reader = BitReader::new(bytes.get(HEADER_BYTES..).unwrap_or_default());
        let (sample, delta_units, window) = (0, 0, Window::NONE);
        Self {
            reader,
            sample,
            count,
            unit,
            window,
            time_units,
            delta_units,
            value_bits,
        }
    }

    #[inline]
    fn next(&mut self) -> Option<Result<(i64, f64), ChunkError>> {
        if self.sample >= self.count {
            return None;
        }
        if self.sample > 0
            && let Err(error) = self.advance()
        {
            return Some(Err(error));
        }
        let sample = self.sample;
        self.sample += 1;
        let Some(time_ns) = self.time_units.checked_mul(self.unit.ns()) else {
            return Some(Err(ChunkError::TimeOutOfRange { sample }));
        };
        Some(Ok((time_ns, f64::from_bits(self.value_bits))))
    }

    #[inline]
    fn advance(&mut self) -> Result<(), ChunkError> {
        let word = self.reader.peek();
        // Both bits zero: the same step and the same value.
        if word >> 62 == 0 {
            self.reader.skip(2);
        } else {
            self.take_time(word);
            self.take_value()?;
        }
        if self.reader.is_past_end() {
            return Err(ChunkError::BitsCut {
                sample: self.sample,
            });
        }
        let time_units = self.time_units.wrapping_add_unsigned(self.delta_units);
        if time_units <= self.time_units {
            return Err(ChunkError::TimeOutOfRange {
                sample: self.sample,
            });
        }
        self.time_units = time_units;
        Ok(())
    }

    #[inline]
    fn take_time(&mut self, word: u64) {
        let [a, b, c, d, all] = self.unit.class_bits();
        let (prefix_bits, bits) = match (!word).leading_zeros() {
            0 => {
                self.reader.skip(1);
                return;
            }
            1 => (2, a),
            2 => (3, b),
            3 => (4, c),
            4 => (5, d),
            _ => (5, all),
        };
        self.reader.skip(prefix_bits);
        let unused = 64 - bits;
        let signed = (self.reader.read(bits) << unused).cast_signed() >> unused;
        self.delta_units = self.delta_units.wrapping_add_signed(signed);
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "fields of 5 and 6 bits")]
    fn take_value(&mut self) -> Result<(), ChunkError> {
        let word = self.reader.peek();
        if word >> 63 == 0 {
            self.reader.skip(1);
            return Ok(());
        }
        if word >> 62 == 0b11 {
            let leading = word >> (62 - LEADING_BITS) & ((1 << LEADING_BITS) - 1);
            let len = (word >> (62 - WINDOW_BITS) & ((1 << LENGTH_BITS) - 1)) + 1;
            if leading + len > 64 {
                return Err(ChunkError::WindowOutOfRange {
                    sample: self.sample,
                });
            }
            self.window = Window {
                leading: leading as u8,
                len: len as u8,
            };
            self.reader.skip(2 + WINDOW_BITS);
        } else {
            if self.window == Window::NONE {
                return Err(ChunkError::WindowOutOfRange {
                    sample: self.sample,
                });
            }
            self.reader.skip(2);
        }
        let bits = self.reader.read(u32::from(self.window.len));
        self.value_bits ^= bits << self.window.trailing();
        Ok(())
    }
}

/// Samples of a [`Chunk`] or [`ChunkCopy`] in rising order of time, as `(time_ns, value)`.
#[derive(Debug, Clone)]
pub struct ChunkIter<'c> {
    decoder: Decoder<'c>,
}

impl Iterator for ChunkIter<'_> {
    type Item = (i64, f64);

    #[inline]
    fn next(&mut self) -> Option<(i64, f64)> {
        // A chunk's own bytes always decode: it wrote them itself or checked them when it was read.
        self.decoder.next()?.ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::from(self.decoder.count - self.decoder.sample);
        (left, Some(left))
    }
}

impl ExactSizeIterator for ChunkIter<'_> {}
impl std::iter::FusedIterator for ChunkIter<'_> {}

/// The first samples of a chunk, copied. See [`Chunk::copy_prefix`].
#[derive(Debug, Clone)]
pub struct ChunkCopy {
    bytes: Box<[u8]>,
    unit: TimeUnit,
    count: u16,
}

impl ChunkCopy {
    /// The samples.
    pub fn iter(&self) -> ChunkIter<'_> {
        ChunkIter {
            decoder: Decoder::new(&self.bytes, self.unit, self.count),
        }
    }

    /// Samples in the copy.
    pub fn len(&self) -> u16 {
        self.count
    }

    /// Whether the copy was asked for no sample.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes allocated beside the value itself.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl<'c> IntoIterator for &'c ChunkCopy {
    type Item = (i64, f64);
    type IntoIter = ChunkIter<'c>;

    fn into_iter(self) -> ChunkIter<'c> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;

    fn bits(samples: impl IntoIterator<Item = (i64, f64)>) -> Vec<(i64, u64)> {
        samples
            .into_iter()
            .map(|(time_ns, value)| (time_ns, value.to_bits()))
            .collect()
    }

    /// Puts samples in chunks as a head would.
    fn chunks_of(samples: &[(i64, f64)]) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = Vec::new();
        for &(time_ns, value) in samples {
            match chunks.last_mut().map(|chunk| chunk.append(time_ns, value)) {
                Some(Ok(())) => {}
                Some(Err(refusal)) => {
                    assert!(refusal.wants_new_chunk(), "{refusal}");
                    chunks.push(Chunk::new(time_ns, value));
                }
                None => chunks.push(Chunk::new(time_ns, value)),
            }
        }
        chunks
    }

    #[test]
    fn ten_regular_samples_take_less_than_a_hundred_bytes_in_all() {
        let mut chunk = Chunk::new(1_700_000_000 * SECOND_NS, 0.0);
        for i in 1..10 {
            let value = f64::from(u32::try_from(i).unwrap() % 3);
            chunk
                .append((1_700_000_000 + 15 * i) * SECOND_NS, value)
                .unwrap();
        }
        let all = size_of::<Chunk>() + chunk.heap_bytes();
        assert!(all < 100, "{all} bytes");
    }

    #[test]
    fn every_extreme_survives() {
        let samples = [
            (i64::MIN, f64::NAN),
            (i64::MIN + 1, f64::from_bits(0x7ff0_0000_0000_0002)),
            (-1, -0.0),
            (0, 0.0),
            (1, f64::INFINITY),
            (i64::MAX - 1, f64::MIN_POSITIVE / 2.0),
            (i64::MAX, f64::from_bits(u64::MAX)),
        ];
        let chunks = chunks_of(&samples);
        assert_eq!(bits(chunks.iter().flatten()), bits(samples));
        assert_eq!(chunks[0].min_time_ns(), i64::MIN);
        assert_eq!(chunks.last().unwrap().max_time_ns(), i64::MAX);
    }

    #[test]
    fn the_widest_step_fits_one_chunk() {
        let mut chunk = Chunk::new(i64::MIN, 1.0);
        chunk.append(i64::MAX, 2.0).unwrap();
        assert_eq!(bits(&chunk), bits([(i64::MIN, 1.0), (i64::MAX, 2.0)]));
        let widest_ms = i64::MAX / 1_000_000 * 1_000_000;
        let mut chunk = Chunk::new(-widest_ms, 1.0);
        chunk.append(widest_ms - 2_000_000, 2.0).unwrap();
        chunk.append(widest_ms, 3.0).unwrap();
        assert_eq!(chunk.unit(), TimeUnit::Millisecond);
        assert_eq!(
            chunk.iter().map(|s| s.0).collect::<Vec<_>>(),
            [-widest_ms, widest_ms - 2_000_000, widest_ms]
        );
    }

    #[test]
    fn a_sample_of_another_unit_starts_a_new_chunk() {
        let mut chunk = Chunk::new(SECOND_NS, 1.0);
        assert_eq!(
            chunk.append(2 * SECOND_NS + 1, 2.0),
            Err(AppendRefusal::OtherUnit)
        );
        assert_eq!(
            chunk.append(SECOND_NS - 1, 2.0),
            Err(AppendRefusal::NotLater)
        );
        chunk.append(2 * SECOND_NS, 2.0).unwrap();
        let mut chunk = Chunk::new(SECOND_NS + 1, 1.0);
        chunk.append(2 * SECOND_NS, 2.0).unwrap();
        assert_eq!(chunk.unit(), TimeUnit::Nanosecond);
    }

    #[test]
    fn a_sample_that_is_not_later_is_refused() {
        let mut chunk = Chunk::new(SECOND_NS, 1.0);
        let before = chunk.as_bytes().to_vec();
        assert_eq!(chunk.append(SECOND_NS, 2.0), Err(AppendRefusal::NotLater));
        assert_eq!(chunk.append(0, 2.0), Err(AppendRefusal::NotLater));
        assert_eq!(chunk.as_bytes(), before);
    }

    #[test]
    fn a_full_chunk_keeps_its_bounds() {
        let mut chunk = Chunk::new(0, 0.0);
        let mut times = 1..;
        while chunk.append(times.next().unwrap() * SECOND_NS, 1.0).is_ok() {}
        assert_eq!(chunk.len(), CHUNK_SAMPLES_MAX);
        assert!(chunk.is_full());

        // Noise in every bit, at times that never repeat a step.
        let mut state = 1_u64;
        let mut noise = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state ^ state >> 31
        };
        let mut time_ns = i64::MIN + 1;
        let mut chunk = Chunk::new(time_ns, 0.0);
        loop {
            time_ns += (noise() >> 11).cast_signed();
            match chunk.append(time_ns, f64::from_bits(noise())) {
                Ok(()) => {}
                Err(refusal) => break assert_eq!(refusal, AppendRefusal::Full),
            }
        }
        assert!(chunk.as_bytes().len() <= CHUNK_BYTES_MAX);
        assert!(chunk.len() > 256);
        assert_eq!(
            bits(&Chunk::from_bytes(chunk.as_bytes()).unwrap()),
            bits(&chunk)
        );
    }

    #[test]
    fn each_kind_of_damage_has_its_name() {
        let mut chunk = Chunk::new(SECOND_NS, 1.5);
        for i in 2..20 {
            chunk
                .append(i * SECOND_NS, f64::from(u32::try_from(i).unwrap()) * 0.1)
                .unwrap();
        }
        let good = chunk.into_bytes();
        let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            Chunk::from_bytes(&bytes).unwrap_err()
        };
        assert_eq!(
            damaged(&|b| b.truncate(18)),
            ChunkError::HeaderCut { bytes: 18 }
        );
        assert_eq!(damaged(&Vec::clear), ChunkError::HeaderCut { bytes: 0 });
        assert_eq!(
            damaged(&|b| b[0] = 0x21),
            ChunkError::UnknownVersion { found: 0x21 }
        );
        assert_eq!(
            damaged(&|b| b[0] = 0x12),
            ChunkError::UnknownVersion { found: 0x12 }
        );
        assert_eq!(
            damaged(&|b| b[1] = 0),
            ChunkError::CountOutOfRange { count: 0 }
        );
        assert_eq!(
            damaged(&|b| b[2] = 0xff),
            ChunkError::CountOutOfRange { count: 0xff13 }
        );
        assert!(matches!(
            damaged(&|b| b[1] -= 1),
            ChunkError::TrailingData { .. }
        ));
        assert!(matches!(
            damaged(&|b| b.push(0)),
            ChunkError::TrailingData { .. }
        ));
        assert!(matches!(
            damaged(&|b| b.truncate(b.len() - 1)),
            ChunkError::BitsCut { .. }
        ));
        assert_eq!(
            damaged(&|b| b[10] = 0x7f),
            ChunkError::TimeOutOfRange { sample: 0 }
        );
        let long = CHUNK_BYTES_MAX + 1;
        assert_eq!(
            damaged(&|b| b.resize(long, 0)),
            ChunkError::TooLong { bytes: long }
        );
    }

    /// Guards the stored form: what version 1 wrote is read, and written the same, for ever. After
    /// a change of format, add a file for the new version and keep this one.
    #[test]
    fn the_golden_chunk_of_version_1_reads_as_it_was_written() {
        let golden = include_bytes!("../../tests/golden/v1/gorilla-chunk.bin");
        let start = 1_700_000_000 * SECOND_NS;
        let jitter_ms = [0, 0, 3, -3, 400, 0, 70_000, 80_000, 3_000_000_000];
        let values = [
            0.0,
            0.0,
            1.0,
            51.846_000_000_000_004,
            f64::NAN,
            -0.0,
            1e300,
            1e300,
            -1.0,
        ];
        let samples: Vec<(i64, f64)> = (0..)
            .zip(jitter_ms.into_iter().zip(values))
            .map(|(i, (jitter, value))| (start + i * 15 * SECOND_NS + jitter * 1_000_000, value))
            .collect();
        let chunk = Chunk::from_bytes(golden).unwrap();
        assert_eq!(bits(&chunk), bits(samples.iter().copied()));
        let written = chunks_of(&samples);
        assert_eq!(written.len(), 1);
        assert_eq!(written[0].as_bytes(), golden);
    }

    /// Steps and values of many kinds, so that each class and window is met.
    fn samples(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(i64, f64)>> {
        let step = prop_oneof![
            4 => Just(15 * SECOND_NS),
            2 => (1_i64..100).prop_map(|ms| 15 * SECOND_NS + ms * 1_000_000),
            1 => 1_i64..1000,
            1 => 1_i64..i64::MAX / 4,
            1 => (0_u32..62).prop_map(|shift| 1 << shift),
        ];
        let value = prop_oneof![
            Just(1.0),
            (0_i32..1000).prop_map(f64::from),
            (0_i32..1000).prop_map(|n| f64::from(n) / 10.0),
            any::<u64>().prop_map(f64::from_bits),
            (0_u32..64).prop_map(|shift| f64::from_bits(1 << shift)),
        ];
        let start = prop_oneof![
            Just(1_700_000_000 * SECOND_NS),
            any::<i64>(),
            (-1000_i64..1000).prop_map(|s| s * SECOND_NS),
        ];
        (start, prop::collection::vec((step, value), count)).prop_map(|(start, steps)| {
            let mut time_ns = Some(start);
            let mut samples = Vec::new();
            for (step, value) in steps {
                let Some(now) = time_ns else { break };
                samples.push((now, value));
                time_ns = now.checked_add(step);
            }
            samples
        })
    }

    proptest! {
        #[test]
        fn chunks_hold_what_was_appended(samples in samples(1..300)) {
            let chunks = chunks_of(&samples);
            prop_assert_eq!(bits(chunks.iter().flatten()), bits(samples.iter().copied()));
            for chunk in &chunks {
                let times: Vec<i64> = chunk.iter().map(|s| s.0).collect();
                prop_assert_eq!(times.len(), usize::from(chunk.len()));
                prop_assert_eq!(chunk.iter().len(), times.len());
                prop_assert_eq!(chunk.min_time_ns(), times[0]);
                prop_assert_eq!(chunk.max_time_ns(), *times.last().unwrap());
            }
        }

        #[test]
        fn a_prefix_stays_as_it_was_while_the_chunk_grows(samples in samples(1..100)) {
            let mut chunk = Chunk::new(samples[0].0, samples[0].1);
            let mut copies = vec![chunk.copy_prefix(1)];
            for &(time_ns, value) in &samples[1..] {
                if chunk.append(time_ns, value).is_err() {
                    break;
                }
                copies.push(chunk.copy_prefix(chunk.len()));
            }
            for (copy, count) in copies.iter().zip(1..) {
                let expected = bits(samples.iter().copied().take(usize::from(count)));
                prop_assert_eq!(&bits(copy), &expected);
                prop_assert_eq!(&bits(chunk.iter_prefix(count)), &expected);
                prop_assert_eq!(&bits(&chunk.copy_prefix(count)), &expected);
            }
            prop_assert_eq!(chunk.iter_prefix(0).count(), 0);
        }

        #[test]
        fn a_chunk_read_back_goes_on_as_if_it_had_stayed(samples in samples(2..100), at: prop::sample::Index) {
            // At 0 the chunk is not read back but cloned: `samples` may hold a single one.
            let at = at.index(samples.len());
            let mut stayed = Chunk::new(samples[0].0, samples[0].1);
            let mut read = stayed.clone();
            for (i, &(time_ns, value)) in samples.iter().enumerate().skip(1) {
                if i == at {
                    read = Chunk::from_bytes(stayed.as_bytes()).unwrap();
                }
                let appended = stayed.append(time_ns, value);
                if i >= at {
                    prop_assert_eq!(read.append(time_ns, value), appended);
                }
                if appended.is_err() {
                    break;
                }
            }
            if read.len() == stayed.len() {
                prop_assert_eq!(read.as_bytes(), stayed.as_bytes());
            }
        }

        #[test]
        fn damaged_bytes_give_an_error_or_rising_samples(
            samples in samples(1..100), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut: Option<prop::sample::Index>,
        ) {
            let mut bytes = chunks_of(&samples).swap_remove(0).into_bytes();
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            check_foreign_bytes(&bytes)?;
        }

        #[test]
        fn any_bytes_give_an_error_or_rising_samples(
            unit in 0_u8..3, count: u16, mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            check_foreign_bytes(&bytes)?;
            if bytes.len() >= 3 {
                bytes[0] = VERSION << 4 | unit;
                bytes[1..3].copy_from_slice(&(count % 64).to_le_bytes());
            }
            check_foreign_bytes(&bytes)?;
        }
    }

    fn check_foreign_bytes(bytes: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(chunk) = Chunk::from_bytes(bytes) {
            let samples: Vec<(i64, f64)> = chunk.iter().collect();
            prop_assert_eq!(samples.len(), usize::from(chunk.len()));
            prop_assert!(samples.is_sorted_by(|a, b| a.0 < b.0));
            prop_assert_eq!(chunk.max_time_ns(), samples.last().unwrap().0);
            prop_assert_eq!(chunk.as_bytes(), bytes);
        }
        Ok(())
    }
}
