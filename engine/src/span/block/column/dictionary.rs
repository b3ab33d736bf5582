//! The distinct values of a column, sorted, by number.

use super::{
    Content,
    head::HeadReader,
    sink::Sink,
    source::ColumnSource,
    table::ValueTable,
    texts::{Texts, TextsCursor},
};
use crate::error::Error;

/// Where the values lie.
#[derive(Clone, Debug)]
pub(super) struct Dictionary {
    texts: Texts,
}

/// The page that was read last.
#[derive(Debug, Default)]
pub(super) struct DictionaryCursor {
    texts: TextsCursor,
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
        values: impl Iterator<Item = &'a [u8]>,
        sink: &mut Sink<'_>,
    ) -> Result<Self, Error> {
        Ok(Self {
            texts: Texts::write(values, true, sink)?,
        })
    }

    pub(super) fn put(&self, head: &mut Vec<u8>) {
        self.texts.put(head);
    }

    pub(super) fn take(head: &mut HeadReader<'_>) -> Result<Self, Error> {
        Ok(Self {
            texts: Texts::take(head)?,
        })
    }

    pub(super) fn len(&self) -> u32 {
        self.texts.len()
    }

    pub(super) fn section_bytes(&self) -> u64 {
        self.texts.section_bytes()
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
        out.extend_from_slice(self.texts.get(source, &mut cursor.texts, number)?);
        Ok(())
    }

    /// Every value with its number.
    pub(super) fn each(
        &self,
        source: &ColumnSource,
        visit: impl FnMut(u32, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.texts.each(source, visit)
    }

    /// The number of a value, if it is here.
    pub(super) fn find(&self, source: &ColumnSource, wanted: &[u8]) -> Result<Option<u32>, Error> {
        let mut cursor = TextsCursor::default();
        Ok(self.texts.find(source, &mut cursor, wanted)?.ok())
    }
}
