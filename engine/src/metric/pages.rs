//! A list that grows by pages: nothing moves, nothing is copied, and no half of it stands empty.

/// Entries of a page. Small enough that a shard of few series costs little.
const PAGE: usize = 64;

/// An append-only list. An entry's place is stable.
#[derive(Debug)]
pub(crate) struct Pages<T> {
    pages: Vec<Vec<T>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> Pages<T> {
    pub(crate) fn len(&self) -> usize {
        match self.pages.split_last() {
            Some((last, full)) => full.len() * PAGE + last.len(),
            None => 0,
        }
    }

    pub(crate) fn push(&mut self, entry: T) {
        if let Some(last) = self.pages.last_mut().filter(|page| page.len() < PAGE) {
            last.push(entry);
            return;
        }
        let mut page = Vec::with_capacity(PAGE);
        page.push(entry);
        self.pages.push(page);
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.get(at % PAGE)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.pages.get_mut(at / PAGE)?.get_mut(at % PAGE)
    }

    /// Bytes allocated, not counting what entries hold.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<T>() + self.pages.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_places() {
        let mut list = Pages::default();
        for i in 0..1000 {
            assert_eq!(list.len(), i);
            list.push(i);
        }
        *list.get_mut(500).unwrap() = 7;
        assert_eq!(
            (list.get(0), list.get(500), list.get(999)),
            (Some(&0), Some(&7), Some(&999))
        );
        assert_eq!(list.get(1000), None);
        assert_eq!(list.len(), 1000);
    }
}
