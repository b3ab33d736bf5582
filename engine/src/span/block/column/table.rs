//! Byte strings by number: bytes end to end, and where each ends.

/// Encoded values (`crate::value`), or any byte strings, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValueTable {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl ValueTable {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all of them.
    pub(crate) fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Memory that it takes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    /// Appends one and gives its number; `None` if the bytes of all would not fit 32 bits.
    #[inline]
    pub(crate) fn push(&mut self, value: &[u8]) -> Option<u32> {
        let number = u32::try_from(self.ends.len()).ok()?;
        let end = u32::try_from(self.bytes.len() + value.len()).ok()?;
        self.bytes.extend_from_slice(value);
        self.ends.push(end);
        Some(number)
    }

    /// Appends one that `write` appends to the bytes it is given.
    #[inline]
    pub(crate) fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Option<u32> {
        let number = u32::try_from(self.ends.len()).ok()?;
        let start = self.bytes.len();
        write(&mut self.bytes);
        let Ok(end) = u32::try_from(self.bytes.len()) else {
            self.bytes.truncate(start);
            return None;
        };
        self.ends.push(end);
        Some(number)
    }

    /// The value with a number; empty for a number that there is not.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let Some(&end) = self.ends.get(number) else {
            return &[];
        };
        let before = number.checked_sub(1).and_then(|n| self.ends.get(n));
        let start = before.map_or(0, |&start| start as usize);
        self.bytes.get(start..end as usize).unwrap_or_default()
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let value = self.bytes.get(start..end as usize).unwrap_or_default();
            start = end as usize;
            value
        })
    }

    /// Forgets them and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl<'a> FromIterator<&'a [u8]> for ValueTable {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(values: I) -> Self {
        let mut table = Self::default();
        for value in values {
            if table.push(value).is_none() {
                break;
            }
        }
        table
    }
}
