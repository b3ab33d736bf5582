//! The distinct values of a column, sorted, by number.

use super::{
    Content,
    head::HeadReader,
    hex::{Hex, HexCursor, Pattern},
    sink::Sink,
    source::ColumnSource,
    table::ValueTable,
    texts::{Texts, TextsCursor},
};
use crate::error::Error;

/// Dictionaries of fewer values are a page or a few.
const PATTERN_VALUES_MIN: usize = 256;

const TEXTS: u8 = 0;
const HEX: u8 = 1;

/// Where the values lie.
#[derive(Clone, Debug)]
pub(super) enum Dictionary {
    /// In pages.
    Texts(Texts),
    /// As numbers.
    Hex(Hex),
}

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct DictionaryCursor {
    texts: TextsCursor,
    hex: HexCursor,
}

/// Which values of a table are used, and what number each has in a sorted dictionary of those.
#[derive(Debug)]
pub(super) struct Sorted {
    /// Numbers in the table, by rising value, each value once.
    pub(super) order: Vec<u32>,
    /// By number in the table, the number in `order`; `u32::MAX` for one that is not used.
    pub(super) places: Vec<u32>,
    /// How often each value of `order` occurs.
    pub(super) counts: Vec<u32>,
}

impl Sorted {
    /// Sorts the values that `counts` says are used. Equal ones become one.
    pub(super) fn new(values: &ValueTable, counts: &[u32], content: Content) -> Self {
        let stored = |number: u32| content.stored(values.get(number)).unwrap_or_default();
        let mut used: Vec<u32> = (0..)
            .zip(counts)
            .filter_map(|(number, &count)| (count > 0).then_some(number))
            .collect();
        used.sort_unstable_by(|&a, &b| stored(a).cmp(stored(b)));
        let mut places = vec![u32::MAX; counts.len()];
        let (mut order, mut merged): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for number in used {
            let is_new = order
                .last()
                .is_none_or(|&last| stored(last) != stored(number));
            if is_new {
                order.push(number);
                merged.push(0);
            }
            let count = counts.get(number as usize).copied().unwrap_or(0);
            if let Some(sum) = merged.last_mut() {
                *sum = sum.saturating_add(count);
            }
            if let Some(place) = places.get_mut(number as usize) {
                *place = u32::try_from(order.len() - 1).unwrap_or(u32::MAX);
            }
        }
        Self {
            order,
            places,
            counts: merged,
        }
    }
}

impl Dictionary {
    /// Writes values that rise strictly.
    pub(super) fn write<'a>(
        values: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
        sink: &mut Sink<'_>,
    ) -> Result<Self, Error> {
        if values.len() >= PATTERN_VALUES_MIN
            && let Some(pattern) = Pattern::of(values.clone())
        {
            return Ok(Self::Hex(Hex::write(pattern, values, sink)?));
        }
        Ok(Self::Texts(Texts::write(values, true, sink)?))
    }

    pub(super) fn put(&self, head: &mut Vec<u8>) {
        match self {
            Self::Texts(texts) => {
                head.push(TEXTS);
                texts.put(head);
            }
            Self::Hex(hex) => {
                head.push(HEX);
                hex.put(head);
            }
        }
    }

    pub(super) fn take(head: &mut HeadReader<'_>) -> Result<Self, Error> {
        match head.byte()? {
            TEXTS => Texts::take(head).map(Self::Texts),
            HEX => Hex::take(head).map(Self::Hex),
            _ => Err(head.damaged("unknown kind of dictionary")),
        }
    }

    pub(super) fn len(&self) -> u32 {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Hex(hex) => hex.len(),
        }
    }

    /// What it is made of, for people.
    #[cfg(test)]
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Texts(_) => "texts",
            Self::Hex(_) => "hex texts",
        }
    }

    #[cfg(test)]
    pub(super) fn section_bytes(&self) -> u64 {
        match self {
            Self::Texts(texts) => texts.section_bytes(),
            Self::Hex(hex) => hex.section_bytes(),
        }
    }

    /// Appends the value with this number.
    #[inline]
    pub(super) fn get(
        &self,
        source: &ColumnSource,
        cursor: &mut DictionaryCursor,
        number: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        match self {
            Self::Texts(texts) => {
                out.extend_from_slice(texts.get(source, &mut cursor.texts, number)?);
                Ok(())
            }
            Self::Hex(hex) => hex.get(source, &mut cursor.hex, number, out),
        }
    }

    /// Every value with its number.
    pub(super) fn each(
        &self,
        source: &ColumnSource,
        visit: impl FnMut(u32, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self {
            Self::Texts(texts) => texts.each(source, visit),
            Self::Hex(hex) => hex.each(source, visit),
        }
    }

    /// The number of a value, if it is here.
    pub(super) fn find(&self, source: &ColumnSource, wanted: &[u8]) -> Result<Option<u32>, Error> {
        match self {
            Self::Texts(texts) => {
                let mut cursor = TextsCursor::default();
                Ok(texts.find(source, &mut cursor, wanted)?.ok())
            }
            Self::Hex(hex) => hex.find_sorted(source, wanted),
        }
    }
}
