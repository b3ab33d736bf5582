//! Groups of integers whose differences are not evenly spread: entropy-coded, or mostly one value.
//!
//! Bit packing gives every slot as many bits as the widest needs. Differences of walks and counters
//! crowd around their middle, which costs them about half a bit each, and small ones a quarter of their
//! size. So two more forms stand beside those of `integers.rs`, under first bytes that it leaves free:
//!
//! - **Prefix code**: a slot's low bits are packed as they are; what is above them is one of at most 16
//!   symbols in a Huffman code of its own, at most 8 bits long, in four interleaved streams. If there
//!   are at most four symbols, one code word stands for two slots.
//! - **Sparse**: a bit for every slot says whether it is the most frequent difference; the others follow
//!   as a group of their own.
//!
//! Either takes the values themselves or their differences as slots. They are chosen only where they
//! save a sixteenth, since they are slower to decode than packed bits. Bytes:
//! `docs/formats/value-column.md`.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into an `Op` is compiled for its vectors"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "symbols are below 16, lengths at most 8, sizes below 257; table entries are two bytes"
)]
#![expect(
    clippy::indexing_slicing,
    reason = "hot loops over fixed arrays; every length from outside is checked on entry"
)]

use super::{
    ColumnError, bitpack,
    integers::{self, GROUP},
    kernel::{Kernel, Op},
};
use crate::varint;

const CODE_PREFIX_VALUES: u8 = 252;
const CODE_PREFIX_DELTAS: u8 = 253;
const CODE_SPARSE_VALUES: u8 = 254;
const CODE_SPARSE_DELTAS: u8 = 255;

/// Shorter groups do not earn back the code's own description.
pub(super) const COUNT_MIN: usize = 192;
/// Symbols of a code.
const SYMBOLS: usize = 16;
/// The longest code word, in bits.
const LENGTH_MAX: usize = 8;
const STREAMS: usize = 4;
/// A stream's bytes: 256 words of 8 bits at most.
const STREAM_BYTES_MAX: usize = GROUP / STREAMS;
/// Low bits that may stay as they are.
const LOW_BITS_MAX: u32 = 48;
/// A form must save one part in so many.
const SAVING_SHARE: usize = 16;
/// Words of a stream between two refills of its 57 bits.
const WORDS_PER_REFILL: usize = 7;

/// Appends the best group of `values`, which are 1 to 1,024.
pub(super) fn encode_group(values: &[i64], out: &mut Vec<u8>) {
    let plan = integers::Plan::new(values);
    let cost = plan.cost_bytes();
    if values.len() >= COUNT_MIN && cost * 8 > values.len() / 4 {
        let deltas = plan.name().starts_with("delta");
        let start = out.len();
        let limit = cost - cost / SAVING_SHARE;
        let mut coded = encode_prefix(values, deltas, limit, out);
        if !coded {
            out.truncate(start);
        }
        let prefix_end = out.len();
        let limit = if coded { prefix_end - start } else { limit };
        if encode_sparse(values, deltas, limit, out) {
            out.drain(start..prefix_end);
            coded = true;
        } else {
            out.truncate(prefix_end);
        }
        if coded {
            return;
        }
    }
    plan.write(values, out);
}

/// Fills the slots of a group and returns them.
fn fill_slots<'a>(values: &[i64], deltas: bool, slots: &'a mut [i64; GROUP]) -> &'a mut [i64] {
    if deltas {
        let slots = &mut slots[..values.len() - 1];
        for (slot, pair) in slots.iter_mut().zip(values.windows(2)) {
            *slot = pair[1].wrapping_sub(pair[0]);
        }
        slots
    } else {
        let slots = &mut slots[..values.len()];
        slots.copy_from_slice(values);
        slots
    }
}

/// Up to 64 slots from all over the group, in order of size.
fn sorted_sample(slots: &[i64]) -> ([i64; 64], usize) {
    let mut sample = [0; 64];
    let step = slots.len().div_ceil(64).max(1);
    let mut found = 0;
    for (kept, &slot) in sample.iter_mut().zip(slots.iter().step_by(step)) {
        *kept = slot;
        found += 1;
    }
    sample[..found].sort_unstable();
    (sample, found)
}

fn encode_sparse(values: &[i64], deltas: bool, limit: usize, out: &mut Vec<u8>) -> bool {
    let mut slots = [0; GROUP];
    let slots = fill_slots(values, deltas, &mut slots);
    let (sample, found) = sorted_sample(slots);
    let (mut usual, mut most, mut run) = (sample[0], 1, 1);
    for pair in sample[..found].windows(2) {
        run = if pair[0] == pair[1] { run + 1 } else { 1 };
        if run > most {
            (usual, most) = (pair[1], run);
        }
    }
    if most * 4 < found {
        return false;
    }
    let mut bits = [0u8; GROUP / 8];
    let bits = &mut bits[..slots.len().div_ceil(8)];
    let mut others = 0;
    for i in 0..slots.len() {
        let slot = slots[i];
        if slot != usual {
            bits[i / 8] |= 1 << (i % 8);
            slots[others] = slot;
            others += 1;
        }
    }
    if others == 0 || bits.len() >= limit {
        return false;
    }
    let start = out.len();
    out.push(if deltas {
        CODE_SPARSE_DELTAS
    } else {
        CODE_SPARSE_VALUES
    });
    if deltas {
        varint::put_i64(out, values[0]);
    }
    varint::put_i64(out, usual);
    out.extend_from_slice(bits);
    let plan = integers::Plan::new(&slots[..others]);
    if out.len() - start + plan.cost_bytes() / 2 > limit {
        return false;
    }
    let limit_others = plan.cost_bytes() - plan.cost_bytes() / SAVING_SHARE;
    let inner = out.len();
    if others < COUNT_MIN || !encode_prefix(&slots[..others], false, limit_others, out) {
        out.truncate(inner);
        plan.write(&slots[..others], out);
    }
    out.len() - start <= limit
}

fn encode_prefix(values: &[i64], deltas: bool, limit: usize, out: &mut Vec<u8>) -> bool {
    let mut slots = [0; GROUP];
    let slots = fill_slots(values, deltas, &mut slots);
    let (sample, found) = sorted_sample(slots);
    // nine tenths of the slots shall fall on about six symbols
    let (low, high) = (sample[found / 20], sample[found - 1 - found / 20]);
    let Some(spread) = high.checked_sub(low).map(i64::cast_unsigned) else {
        return false;
    };
    let mut low_bits = (64 - (spread / 6).leading_zeros()).saturating_sub(1);
    if spread >= 7 << low_bits {
        low_bits += 1;
    }
    if low_bits > LOW_BITS_MAX {
        return false;
    }
    let Some(middle) = low.checked_add((spread / 2).cast_signed()) else {
        return false;
    };
    let base = middle.wrapping_sub(((SYMBOLS as i64) << low_bits) / 2);

    let mut symbols = [0u8; GROUP];
    let symbols = &mut symbols[..slots.len()];
    let mut counts = [0u32; SYMBOLS];
    let mut exceptions = Vec::new();
    for (i, (slot, symbol)) in slots.iter_mut().zip(symbols.iter_mut()).enumerate() {
        let offset = slot.wrapping_sub(base).cast_unsigned();
        let high = offset >> low_bits;
        *symbol = if high < SYMBOLS as u64 {
            high as u8
        } else {
            exceptions.push((i, *slot));
            SYMBOLS as u8 / 2
        };
        counts[usize::from(*symbol)] += 1;
        *slot = offset.cast_signed();
    }
    if exceptions.len() * 16 > slots.len() {
        return false;
    }
    let first = counts.iter().position(|&c| c > 0).unwrap_or_default();
    let last = counts.iter().rposition(|&c| c > 0).unwrap_or_default();
    let pairs = last - first < 4;
    let base = base.wrapping_add((first as i64) << low_bits);
    let mut words = [0u8; GROUP];
    let words = if pairs {
        let words = &mut words[..symbols.len().div_ceil(2)];
        counts = [0; SYMBOLS];
        for (word, pair) in words.iter_mut().zip(symbols.chunks(2)) {
            *word = pair[0] - first as u8;
            if let Some(second) = pair.get(1) {
                *word |= (second - first as u8) << 2;
            }
            counts[usize::from(*word)] += 1;
        }
        words
    } else {
        let words = &mut words[..symbols.len()];
        for (word, symbol) in words.iter_mut().zip(symbols.iter()) {
            *word = symbol - first as u8;
        }
        counts.copy_within(first..=last, 0);
        counts[last - first + 1..].fill(0);
        words
    };
    let used = counts.iter().rposition(|&c| c > 0).unwrap_or_default() + 1;
    let lengths = code_lengths(&counts[..used]);
    let bits: usize = counts
        .iter()
        .zip(&lengths)
        .map(|(&c, &l)| c as usize * usize::from(l))
        .sum();
    let start = out.len();
    let packed = bitpack::run_bytes(slots.len(), low_bits);
    if packed + bits / 8 + 8 + used * 3 / 8 > limit {
        return false;
    }

    out.push(if deltas {
        CODE_PREFIX_DELTAS
    } else {
        CODE_PREFIX_VALUES
    });
    // six bits: low bits; then whether words stand for pairs, and whether there are exceptions
    out.push(low_bits as u8 | u8::from(pairs) << 6 | u8::from(!exceptions.is_empty()) << 7);
    if deltas {
        varint::put_i64(out, values[0]);
    }
    varint::put_i64(out, base);
    if !exceptions.is_empty() {
        varint::put_u64(out, exceptions.len() as u64);
        let mut next = 0;
        for &(i, slot) in &exceptions {
            varint::put_u64(out, (i - next) as u64);
            varint::put_i64(out, slot.wrapping_sub(base));
            next = i + 1;
        }
    }
    // the code: the number of symbols and three bits for each length
    let mut description = used as u64 - 1;
    let mut filled = 4usize;
    for &length in &lengths[..used] {
        description |= u64::from(length - 1) << filled;
        filled += 3;
    }
    out.extend_from_slice(&description.to_le_bytes()[..filled.div_ceil(8)]);
    let low_mask = bitpack::mask(low_bits);
    let mut lows = [0u64; GROUP];
    for (low, &offset) in lows.iter_mut().zip(slots.iter()) {
        *low = offset.cast_unsigned() & low_mask;
    }
    if slots.len() == GROUP {
        bitpack::pack_group(&lows, low_bits, out);
    } else {
        bitpack::pack_run(&lows[..slots.len()], low_bits, out);
    }
    write_streams(words, &lengths, out);
    out.len() - start <= limit
}

/// Lengths of a Huffman code, at most 8 bits; every symbol gets one, also if it does not occur.
fn code_lengths(counts: &[u32]) -> [u8; SYMBOLS] {
    let mut lengths = [0u8; SYMBOLS];
    if counts.len() == 1 {
        lengths[0] = 1;
        return lengths;
    }
    let mut weights = [0u32; SYMBOLS];
    for (weight, &count) in weights.iter_mut().zip(counts) {
        *weight = count.max(1) * 4;
    }
    loop {
        // trees as sets of symbols: joining two makes all of their words a bit longer
        let mut trees = [(u32::MAX, 0u16); SYMBOLS];
        for (i, tree) in trees.iter_mut().enumerate().take(counts.len()) {
            *tree = (weights[i], 1 << i);
        }
        lengths.fill(0);
        for _ in 1..counts.len() {
            let (mut least, mut second) = (0, 1);
            if trees[1].0 < trees[0].0 {
                (least, second) = (1, 0);
            }
            for i in 2..counts.len() {
                if trees[i].0 < trees[least].0 {
                    (least, second) = (i, least);
                } else if trees[i].0 < trees[second].0 {
                    second = i;
                }
            }
            trees[least].0 += trees[second].0;
            trees[least].1 |= trees[second].1;
            trees[second].0 = u32::MAX;
            let mut joined = trees[least].1;
            while joined != 0 {
                lengths[joined.trailing_zeros() as usize] += 1;
                joined &= joined - 1;
            }
        }
        if lengths.iter().all(|&l| usize::from(l) <= LENGTH_MAX) {
            return lengths;
        }
        for weight in &mut weights[..counts.len()] {
            *weight = *weight / 2 + 2;
        }
    }
}

/// Code words from lengths: shortest first, then in order of symbols.
fn code_words(lengths: &[u8; SYMBOLS]) -> [u8; SYMBOLS] {
    let mut words = [0; SYMBOLS];
    let mut next = 0u32;
    for length in 1..=LENGTH_MAX {
        for (word, &own) in words.iter_mut().zip(lengths) {
            if usize::from(own) == length {
                *word = next as u8;
                next += 1;
            }
        }
        next <<= 1;
    }
    words
}

fn write_streams(words: &[u8], lengths: &[u8; SYMBOLS], out: &mut Vec<u8>) {
    let code = code_words(lengths);
    let sizes_at = out.len();
    out.extend_from_slice(&[0; STREAMS]);
    for stream in 0..STREAMS {
        let start = out.len();
        // bits are filled from the top of `word`, as they are read
        let (mut word, mut filled) = (0u64, 0u32);
        for &symbol in words.iter().skip(stream).step_by(STREAMS) {
            let length = u32::from(lengths[usize::from(symbol)]);
            filled += length;
            word |= u64::from(code[usize::from(symbol)]) << (u64::BITS - filled);
            if filled >= 32 {
                out.extend_from_slice(&((word >> 32) as u32).to_be_bytes());
                word <<= 32;
                filled -= 32;
            }
        }
        out.extend_from_slice(&word.to_be_bytes()[..filled.div_ceil(8) as usize]);
        let bytes = out.len() - start;
        debug_assert!((1..=STREAM_BYTES_MAX).contains(&bytes));
        out[sizes_at + stream] = (bytes - 1) as u8;
    }
}

/// Decodes the group of `count` values (1 to 1,024) at the front of `bytes` into the front of `out` and
/// says how many bytes it took. `out` has room for 1,024 values, or for all of a group that is too short
/// for the forms here; behind `count` it may hold anything afterwards.
///
/// # Errors
///
/// If the bytes are no group of so many values.
pub(super) fn decode_group(
    bytes: &[u8],
    count: usize,
    out: &mut [i64],
) -> Result<usize, ColumnError> {
    let Some(values) = out.get_mut(..count) else {
        return Err(damaged(0, "a group has 1 to 1,024 values"));
    };
    let Some(&code @ CODE_PREFIX_VALUES..) = bytes.first() else {
        return integers::decode_group_into(bytes, values);
    };
    let out = match <&mut [i64; GROUP]>::try_from(out) {
        Ok(out) if count >= COUNT_MIN => out,
        _ => return Err(damaged(0, "a code for too few values")),
    };
    match code {
        CODE_PREFIX_VALUES => decode_prefix(bytes, count, false, out),
        CODE_PREFIX_DELTAS => decode_prefix(bytes, count, true, out),
        CODE_SPARSE_VALUES => decode_sparse(bytes, count, false, out),
        _ => decode_sparse(bytes, count, true, out),
    }
}

fn decode_sparse(
    bytes: &[u8],
    count: usize,
    deltas: bool,
    out: &mut [i64; GROUP],
) -> Result<usize, ColumnError> {
    let mut input = Input { bytes, at: 1 };
    let first = if deltas { input.signed()? } else { 0 };
    let slots = count - usize::from(deltas);
    let usual = input.signed()?;
    let marked = input.take(slots.div_ceil(8))?;
    let mut bits = [0u8; GROUP / 8];
    bits[..marked.len()].copy_from_slice(marked);
    let words = bits.as_chunks::<8>().0;
    let others = words
        .iter()
        .map(|word| u64::from_le_bytes(*word).count_ones() as usize)
        .sum();
    if others == 0 || others > slots {
        return Err(input.damaged("a sparse group of one value, or of too many"));
    }
    let mut dense = [0; GROUP];
    let rest = &bytes[input.at..];
    // one level: what is dense is not sparse again
    let taken = match rest.first() {
        Some(&CODE_PREFIX_VALUES) => decode_prefix(rest, others, false, &mut dense),
        _ => integers::decode_group(rest, others, &mut dense),
    };
    let taken = taken.map_err(|e| moved(e, input.at))?;
    input.at += taken;

    out[..slots].fill(usual);
    let mut next = 0;
    for (w, word) in words.iter().enumerate() {
        let mut word = u64::from_le_bytes(*word);
        while word != 0 {
            let at = w * 64 + word.trailing_zeros() as usize;
            // marks are counted: there are as many as dense slots, at most 1,024
            out[at] = dense[next % GROUP];
            next += 1;
            word &= word - 1;
        }
    }
    if deltas {
        sum_up(first, count, out);
    }
    Ok(input.at)
}

/// Turns differences into values, each one place further back.
fn sum_up(first: i64, count: usize, out: &mut [i64; GROUP]) {
    let mut value = first;
    for slot in &mut out[..count] {
        let delta = *slot;
        *slot = value;
        value = value.wrapping_add(delta);
    }
}

fn decode_prefix(
    bytes: &[u8],
    count: usize,
    deltas: bool,
    out: &mut [i64; GROUP],
) -> Result<usize, ColumnError> {
    let mut input = Input { bytes, at: 1 };
    let flags = input.byte()?;
    let low_bits = u32::from(flags & 0x3f);
    if low_bits > LOW_BITS_MAX {
        return Err(input.damaged("too many low bits"));
    }
    let pairs = flags & 0x40 != 0;
    let first = if deltas { input.signed()? } else { 0 };
    let slots = count - usize::from(deltas);
    if slots == 0 {
        return Err(input.damaged("a prefix code of no slots"));
    }
    let base = input.signed()?;
    let mut exceptions = &[][..];
    let mut exception_count = 0;
    if flags & 0x80 != 0 {
        exception_count = input.unsigned()?;
        if exception_count == 0 || exception_count > slots as u64 {
            return Err(input.damaged("no or too many exceptions"));
        }
        exceptions = &bytes[input.at..];
        let mut next = 0u64;
        for _ in 0..exception_count {
            let gap = input.unsigned()?;
            input.signed()?;
            match next.checked_add(gap) {
                Some(at) if at < slots as u64 => next = at + 1,
                _ => return Err(input.damaged("an exception beyond the last slot")),
            }
        }
    }
    let table = Table::read(&mut input)?;
    if low_bits == 0 {
        out.fill(base);
    } else if slots == GROUP {
        let packed = input.take(bitpack::group_bytes(low_bits))?;
        let fits = bitpack::unpack_group(packed, low_bits, base, out);
        debug_assert!(fits, "the bytes were cut to length");
    } else {
        let packed = input.take(bitpack::run_bytes(slots, low_bits))?;
        let fits = bitpack::unpack_run(packed, low_bits, base, &mut out[..slots]);
        debug_assert!(fits, "the bytes were cut to length");
    }
    let words = if pairs { slots.div_ceil(2) } else { slots };
    let streams = Streams::take(&mut input)?;
    let symbols = streams.read(&table, words);
    Kernel::best().run(AddSymbols {
        symbols: &symbols,
        pairs,
        low_bits,
        out,
    });
    let mut next = 0;
    for _ in 0..exception_count {
        // walked above
        let (Some(gap), Some(offset)) = (
            varint::take_u64(&mut exceptions),
            varint::take_i64(&mut exceptions),
        ) else {
            break;
        };
        let at = next + gap;
        next = at + 1;
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| out.get_mut(at)) {
            *slot = offset.wrapping_add(base);
        }
    }
    if deltas {
        sum_up(first, count, out);
    }
    Ok(input.at)
}

/// What the next eight bits of a stream mean: a symbol (low byte) and the length of its word.
struct Table([u16; 1 << LENGTH_MAX]);

impl Table {
    fn read(input: &mut Input<'_>) -> Result<Self, ColumnError> {
        let used = usize::from(input.peek()? & 0x0f) + 1;
        let described = input.take((4 + 3 * used).div_ceil(8))?;
        let mut description = [0; 8];
        description[..described.len()].copy_from_slice(described);
        let mut description = u64::from_le_bytes(description) >> 4;
        let mut lengths = [0u8; SYMBOLS];
        let mut room = 0;
        for length in &mut lengths[..used] {
            *length = (description & 7) as u8 + 1;
            room += (1 << LENGTH_MAX) >> *length;
            description >>= 3;
        }
        if room > 1 << LENGTH_MAX {
            return Err(input.damaged("code words that begin another"));
        }
        // a word's entries stand beside each other, words in their order; where none begins, any answer
        // will do
        let mut table = [1 << 8; 1 << LENGTH_MAX];
        let mut next = 0;
        for length in 1..=LENGTH_MAX {
            for (symbol, _) in (0u16..)
                .zip(&lengths)
                .filter(|&(_, &own)| usize::from(own) == length)
            {
                let entries = (1 << LENGTH_MAX) >> length;
                table[next..next + entries].fill(symbol | (length as u16) << 8);
                next += entries;
            }
        }
        Ok(Self(table))
    }
}

/// Four streams, each with zeros behind its end, so that a refill never looks beyond.
struct Streams([[u8; STREAM_BYTES_MAX + 16]; STREAMS]);

impl Streams {
    fn take(input: &mut Input<'_>) -> Result<Self, ColumnError> {
        let mut sizes = [0; STREAMS];
        sizes.copy_from_slice(input.take(STREAMS)?);
        let mut streams = [[0u8; STREAM_BYTES_MAX + 16]; STREAMS];
        for (stream, &size) in streams.iter_mut().zip(&sizes) {
            let bytes = input.take(usize::from(size) + 1)?;
            stream[..bytes.len()].copy_from_slice(bytes);
        }
        Ok(Self(streams))
    }

    /// The bits of a stream from `bit` on, at least 57.
    #[inline(always)]
    fn window(&self, stream: usize, bit: usize) -> u64 {
        // 256 words of 8 bits end at byte 256
        let at = (bit / 8).min(STREAM_BYTES_MAX);
        match self.0[stream][at..].first_chunk::<8>() {
            Some(bytes) => u64::from_be_bytes(*bytes) << (bit % 8),
            None => 0,
        }
    }

    /// The symbols of `words` code words. No loop for vectors: four streams in step are fastest with a
    /// register each.
    fn read(&self, table: &Table, words: usize) -> [u8; GROUP] {
        let Table(table) = table;
        let mut symbols = [0u8; GROUP];
        let (mut bit0, mut bit1, mut bit2, mut bit3) = (0, 0, 0, 0);
        let rows = &mut symbols[..words.next_multiple_of(STREAMS)];
        for rows in rows.chunks_mut(STREAMS * WORDS_PER_REFILL) {
            let mut window0 = self.window(0, bit0);
            let mut window1 = self.window(1, bit1);
            let mut window2 = self.window(2, bit2);
            let mut window3 = self.window(3, bit3);
            for row in rows.as_chunks_mut::<STREAMS>().0 {
                let word0 = table[(window0 >> 56) as usize];
                let word1 = table[(window1 >> 56) as usize];
                let word2 = table[(window2 >> 56) as usize];
                let word3 = table[(window3 >> 56) as usize];
                *row = [word0 as u8, word1 as u8, word2 as u8, word3 as u8];
                window0 <<= (word0 >> 8) & 63;
                window1 <<= (word1 >> 8) & 63;
                window2 <<= (word2 >> 8) & 63;
                window3 <<= (word3 >> 8) & 63;
                bit0 += usize::from(word0 >> 8);
                bit1 += usize::from(word1 >> 8);
                bit2 += usize::from(word2 >> 8);
                bit3 += usize::from(word3 >> 8);
            }
        }
        symbols
    }
}

/// Puts symbols above the low bits, which `out` holds.
struct AddSymbols<'a> {
    symbols: &'a [u8; GROUP],
    pairs: bool,
    low_bits: u32,
    out: &'a mut [i64; GROUP],
}

impl Op for AddSymbols<'_> {
    type Answer = ();

    #[inline(always)]
    fn run(self) {
        let shift = self.low_bits & 63;
        if self.pairs {
            let pairs = self.out.as_chunks_mut::<2>().0.iter_mut();
            for ([first, second], &word) in pairs.zip(self.symbols) {
                *first = first.wrapping_add(i64::from(word & 3) << shift);
                *second = second.wrapping_add(i64::from(word >> 2) << shift);
            }
        } else {
            for (slot, &symbol) in self.out.iter_mut().zip(self.symbols) {
                *slot = slot.wrapping_add(i64::from(symbol) << shift);
            }
        }
    }
}

fn damaged(offset_bytes: usize, reason: &'static str) -> ColumnError {
    ColumnError::Damaged {
        offset_bytes,
        reason,
    }
}

/// An error of bytes that begin at `at`.
fn moved(error: ColumnError, at: usize) -> ColumnError {
    let ColumnError::Damaged {
        offset_bytes,
        reason,
    } = error;
    damaged(at + offset_bytes, reason)
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

    fn take(&mut self, len: usize) -> Result<&'a [u8], ColumnError> {
        let taken = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.get(..len))
            .ok_or_else(|| self.damaged("a group is cut short"))?;
        self.at += len;
        Ok(taken)
    }

    fn peek(&self) -> Result<u8, ColumnError> {
        let byte = self.bytes.get(self.at).copied();
        byte.ok_or_else(|| self.damaged("a group is cut short"))
    }

    fn byte(&mut self) -> Result<u8, ColumnError> {
        Ok(self.take(1)?[0])
    }

    fn unsigned(&mut self) -> Result<u64, ColumnError> {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        let value = varint::take_u64(&mut rest);
        self.finish(value, rest)
    }

    fn signed(&mut self) -> Result<i64, ColumnError> {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        let value = varint::take_i64(&mut rest);
        self.finish(value, rest)
    }

    fn finish<T>(&mut self, value: Option<T>, rest: &[u8]) -> Result<T, ColumnError> {
        let value = value.ok_or_else(|| self.damaged("a number is cut short"))?;
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }
}
