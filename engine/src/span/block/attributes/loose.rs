//! Attributes of items in memory, as a head or a rebuilt trace gives them: what a table is written from.

use std::sync::Arc;

use crate::span::block::column::ValueTable;

/// Attributes of items: pairs of key and value by number, and for each item the numbers of its pairs.
///
/// A pair may stand under several numbers: equal ones are found when a table is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct LooseAttributes {
    /// Keys by number.
    pub(crate) keys: Vec<Arc<str>>,
    /// Pairs by number.
    pub(crate) values: LooseValues,
    /// Where the pairs of each item end in `tags`; rising.
    pub(crate) ends: Vec<u32>,
    /// Numbers of pairs, item after item, in the order sent.
    pub(crate) tags: Vec<u32>,
}

/// Pairs of key and value by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct LooseValues {
    keys: Vec<u32>,
    values: ValueTable,
}

impl LooseValues {
    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.keys.len()).unwrap_or(u32::MAX)
    }

    /// Appends the pair of a key, by its number, and an encoded value, and gives the pair's number. `None`
    /// if the values would have 4 GiB.
    #[inline]
    pub(crate) fn push(&mut self, key: u32, value: &[u8]) -> Option<u32> {
        let number = self.values.push(value)?;
        self.keys.push(key);
        Some(number)
    }

    /// The key's number and the encoded value.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> (u32, &[u8]) {
        let key = self.keys.get(number as usize).copied();
        (key.unwrap_or(u32::MAX), self.values.get(number))
    }

    /// Memory that they take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<u32>() + self.values.heap_bytes()
    }
}

impl LooseAttributes {
    /// How many items there are.
    pub(crate) fn items(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// The numbers of the pairs of an item; none for an item that there is not.
    #[inline]
    pub(crate) fn tags_of(&self, item: u32) -> &[u32] {
        let item = item as usize;
        let Some(&end) = self.ends.get(item) else {
            return &[];
        };
        let before = item.checked_sub(1).and_then(|before| self.ends.get(before));
        let start = before.map_or(0, |&start| start as usize);
        self.tags.get(start..end as usize).unwrap_or_default()
    }

    /// Appends an item whose pairs have these numbers.
    ///
    /// # Panics
    /// If all items together would have 2^32 attributes.
    #[inline]
    pub(crate) fn push_tags(&mut self, tags: impl IntoIterator<Item = u32>) {
        self.tags.extend(tags);
        self.end_item();
    }

    fn end_item(&mut self) {
        let end = u32::try_from(self.tags.len());
        self.ends
            .push(end.expect("what a generation holds has fewer than 2^32 attributes"));
    }

    /// Memory that they take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.keys.iter().map(|key| key.len() + 32).sum::<usize>()
            + self.values.heap_bytes()
            + (self.ends.capacity() + self.tags.capacity()) * size_of::<u32>()
    }
}
