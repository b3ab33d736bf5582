//! The exceptions of a group: values too far from the others for its slots.
//!
//! Each has its position among the slots and its *rest*, what the value has above the slot's bits. Positions
//! rise, so that most of their bits need not be stored: the low ones stand beside the rest, the high ones
//! are a bit map with as many one-bits as exceptions and a zero-bit for each step of the high part (Elias
//! and Fano's form).

use crate::{column::ColumnError, varint};

use super::{
    super::bitpack::{self, WIDTH_MAX},
    GROUP, Input, bits_of, unsigned_bytes, unzigzag, zigzag,
};

/// One in so many slots may be an exception; beyond that a wider slot is cheaper, or nearly.
pub(super) const EXCEPTIONS_SHARE: usize = 4;
/// The least that a list takes: number, width, map and entry of one exception.
pub(super) const COST_BYTES_MIN: usize = 4;
const EXCEPTIONS_MAX: usize = GROUP / EXCEPTIONS_SHARE;

/// How a list of exceptions is laid out.
#[derive(Clone, Copy)]
struct Layout {
    /// Bits of a position that stand beside the rest.
    low_width: u32,
    /// Bits of an entry: low bits of the position, then the rest.
    entry_width: u32,
    /// Bytes of the bit map.
    map_bytes: usize,
}

impl Layout {
    /// `count` is 1 to `slots`, `rest_width` 1 to 64.
    fn of(slots: usize, count: usize, rest_width: u32) -> Self {
        let low_width = (slots / count).ilog2().min(WIDTH_MAX - rest_width);
        Self {
            low_width,
            entry_width: low_width + rest_width,
            map_bytes: (((slots - 1) >> low_width) + count).div_ceil(8),
        }
    }
}

/// What a list costs.
pub(super) fn cost_bytes(slots: usize, count: usize, rest_width: u32) -> usize {
    let layout = Layout::of(slots, count, rest_width);
    unsigned_bytes(count as u64)
        + 1
        + layout.map_bytes
        + bitpack::run_bytes(count, layout.entry_width)
}

/// Appends the list for `slots` of `width` bits: `count` of them are wider, the widest rest has
/// `rest_width` bits.
pub(super) fn write(slots: &[u64], width: u32, count: usize, rest_width: u32, out: &mut Vec<u8>) {
    let layout = Layout::of(slots.len(), count, rest_width);
    let mut entries = [0_u64; EXCEPTIONS_MAX];
    let mut found = 0;
    varint::put_u64(out, count as u64);
    #[expect(clippy::cast_possible_truncation, reason = "widths are at most 64")]
    out.push(rest_width as u8);
    let map_at = out.len();
    out.resize(map_at + layout.map_bytes, 0);
    for (position, slot) in slots.iter().enumerate() {
        let rest = slot.cast_signed() >> width;
        if rest != 0 {
            let bit = (position >> layout.low_width) + found;
            out[map_at + bit / 8] |= 1 << (bit % 8);
            let low = position as u64 & bitpack::mask(layout.low_width);
            entries[found] = zigzag(rest) << layout.low_width | low;
            found += 1;
        }
    }
    assert_eq!(found, count, "a plan is for its own values");
    bitpack::pack_run(&entries[..found], layout.entry_width, out);
}

/// The number and widest rest of the exceptions among `slots`, which lie `base` above what is packed.
pub(super) fn count(residuals: &[i64], base: i64, width: u32) -> (usize, u32) {
    let (mut count, mut all) = (0, 0);
    for residual in residuals {
        let rest = residual.wrapping_sub(base) >> width;
        count += usize::from(rest != 0);
        all |= zigzag(rest);
    }
    (count, bits_of(all))
}

/// A list as read: checked, to be applied when the slots are unpacked.
pub(super) struct Exceptions<'a> {
    count: usize,
    map: &'a [u8],
    entries: &'a [u8],
    layout: Layout,
}

impl<'a> Exceptions<'a> {
    /// Reads the list of a group with so many slots of `width` bits.
    pub(super) fn read(
        input: &mut Input<'a>,
        slots: usize,
        width: u32,
    ) -> Result<Self, ColumnError> {
        let count = match usize::try_from(input.unsigned()?) {
            Ok(count) if (1..=slots / EXCEPTIONS_SHARE).contains(&count) => count,
            _ => return Err(input.damaged("no or too many exceptions")),
        };
        let rest_width = u32::from(input.byte()?);
        if rest_width == 0 || rest_width + width > WIDTH_MAX {
            return Err(input.damaged("exceptions wider than 64 bits"));
        }
        let layout = Layout::of(slots, count, rest_width);
        let map = input.take(layout.map_bytes)?;
        let ones: u32 = map.iter().map(|byte| byte.count_ones()).sum();
        if ones as usize != count {
            return Err(input.damaged("the map of exceptions has another number of them"));
        }
        let entries = input.take(bitpack::run_bytes(count, layout.entry_width))?;
        Ok(Self {
            count,
            map,
            entries,
            layout,
        })
    }

    /// Adds the rests to unpacked `slots`. A position behind the last slot, which only damage makes, is
    /// left out: the bytes are not the writer's, the values neither.
    pub(super) fn patch(&self, slots: &mut [i64], width: u32) {
        let mut unpacked = [0; EXCEPTIONS_MAX];
        let entries = &mut unpacked[..self.count];
        let fits = bitpack::unpack_run(self.entries, self.layout.entry_width, 0, entries);
        debug_assert!(fits, "the bytes were cut to length");
        let low_width = self.layout.low_width;
        let mut words = self.map.chunks(size_of::<u64>());
        let (mut word, mut word_at) = (0, 0);
        for (passed, entry) in entries.iter().enumerate() {
            while word == 0 {
                // The map has as many one-bits as there are entries.
                let Some(bytes) = words.next() else { return };
                let mut padded = [0; size_of::<u64>()];
                padded[..bytes.len()].copy_from_slice(bytes);
                word = u64::from_le_bytes(padded);
                word_at += u64::BITS as usize;
            }
            let bit = word_at - u64::BITS as usize + word.trailing_zeros() as usize;
            word &= word - 1;
            let entry = entry.cast_unsigned();
            #[expect(clippy::cast_possible_truncation, reason = "at most ten bits")]
            let low = (entry & bitpack::mask(low_width)) as usize;
            let position = ((bit - passed) << low_width) | low;
            if let Some(slot) = slots.get_mut(position) {
                // Width and the rest's own width are at most 64 together, and a rest has a bit.
                let high = unzigzag(entry >> low_width) << width;
                *slot = slot.wrapping_add(high);
            }
        }
    }
}
