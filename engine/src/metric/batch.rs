//! The metric half of a batch: what a sender writes, before it is known which series are new.
//!
//! A row stands for a series in this batch. Its bytes are hashed when it is added and looked at
//! again only if the hash is new, so that a known series costs no parsing and no allocation. All
//! vectors are reused from batch to batch.

use rootline_index::{Labels, LabelsBuilder};

use super::{
    exemplar::Exemplar,
    metadata::Metadata,
    prepare::Scratch,
    series_hash::{DOMAIN_CANONICAL, HashKey},
};
use crate::time::Timestamp;

/// Turns a sender's series bytes into labels. Called only for bytes that were never seen; what it
/// sets may be unsorted, limits are checked behind it.
pub type ParseLabels =
    for<'b> fn(&'b [u8], &mut LabelsBuilder<'b>) -> Result<(), rootline_index::Error>;

/// A series' row in the batch it was added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesRow(u32);

/// Samples, exemplars and metadata to be written together. Borrows the request's body.
#[derive(Debug)]
pub struct MetricBatch<'a> {
    key: HashKey,
    pub(crate) hashes: Vec<u128>,
    keys: Vec<RowKey<'a>>,
    /// Samples of each row.
    pub(crate) row_samples: Vec<u32>,
    /// Exemplars of each row.
    pub(crate) row_exemplars: Vec<u32>,
    arena: Vec<u8>,
    pub(crate) samples: Vec<RowSample>,
    pub(crate) exemplars: Vec<(u32, Exemplar)>,
    pub(crate) metadata: Vec<Metadata>,
    pub(crate) scratch: Scratch,
}

#[derive(Debug, Clone, Copy)]
struct RowKey<'a> {
    bytes: KeyBytes<'a>,
    parse: ParseLabels,
}

#[derive(Debug, Clone, Copy)]
enum KeyBytes<'a> {
    Borrowed(&'a [u8]),
    Arena { start: usize, end: usize },
}

/// A sample of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowSample {
    pub(crate) row: u32,
    pub(crate) time_ns: i64,
    pub(crate) value: f64,
}

impl<'a> MetricBatch<'a> {
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            key,
            hashes: Vec::new(),
            keys: Vec::new(),
            row_samples: Vec::new(),
            row_exemplars: Vec::new(),
            arena: Vec::new(),
            samples: Vec::new(),
            exemplars: Vec::new(),
            metadata: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Adds a row for the series that a sender's own bytes identify; they stay borrowed.
    ///
    /// `domain` separates forms of bytes. 0 is that of canonical label bytes of `rootline_index`,
    /// which is also what a remote-write sender's label fields are (`parse` then copes with labels
    /// out of order); other forms take a number of their own.
    #[inline]
    pub fn series_raw(&mut self, domain: u8, bytes: &'a [u8], parse: ParseLabels) -> SeriesRow {
        let hash = self.key.hash(domain, bytes);
        self.push_row(
            hash,
            RowKey {
                bytes: KeyBytes::Borrowed(bytes),
                parse,
            },
        )
    }

    /// As [`series_raw`](Self::series_raw) for bytes that do not outlive the call: they are copied.
    #[inline]
    pub fn series_bytes(&mut self, domain: u8, bytes: &[u8], parse: ParseLabels) -> SeriesRow {
        let hash = self.key.hash(domain, bytes);
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        let bytes = KeyBytes::Arena {
            start,
            end: self.arena.len(),
        };
        self.push_row(hash, RowKey { bytes, parse })
    }

    /// Adds a row for the series with these labels.
    pub fn series(&mut self, labels: &Labels) -> SeriesRow {
        let start = self.arena.len();
        labels.encode_canonical(&mut self.arena);
        let end = self.arena.len();
        let hash = self.key.hash(
            DOMAIN_CANONICAL,
            self.arena.get(start..end).unwrap_or_default(),
        );
        self.push_row(
            hash,
            RowKey {
                bytes: KeyBytes::Arena { start, end },
                parse: parse_canonical,
            },
        )
    }

    /// Adds a sample. Of several with one series and time the last one counts.
    ///
    /// # Panics
    /// If `row` is of another batch.
    #[inline]
    pub fn sample(&mut self, row: SeriesRow, time: Timestamp, value: f64) {
        *self
            .row_samples
            .get_mut(row.0 as usize)
            .expect("the row is of this batch") += 1;
        self.samples.push(RowSample {
            row: row.0,
            time_ns: time.as_nanos(),
            value,
        });
    }

    /// Adds an exemplar.
    ///
    /// # Panics
    /// If `row` is of another batch.
    pub fn exemplar(&mut self, row: SeriesRow, exemplar: Exemplar) {
        *self
            .row_exemplars
            .get_mut(row.0 as usize)
            .expect("the row is of this batch") += 1;
        self.exemplars.push((row.0, exemplar));
    }

    /// Adds what is known of a metric.
    pub fn metadata(&mut self, metadata: Metadata) {
        self.metadata.push(metadata);
    }

    /// Empties the batch, keeps its room.
    pub fn clear(&mut self) {
        self.hashes.clear();
        self.keys.clear();
        self.row_samples.clear();
        self.row_exemplars.clear();
        self.arena.clear();
        self.samples.clear();
        self.exemplars.clear();
        self.metadata.clear();
    }

    /// An empty batch with this one's room, to borrow from another body.
    #[must_use]
    pub fn recycle<'b>(mut self) -> MetricBatch<'b> {
        self.clear();
        // An empty vector is collected in place: the room goes over.
        let keys = self.keys.into_iter().map(|_| unreachable_key()).collect();
        MetricBatch {
            key: self.key,
            hashes: self.hashes,
            keys,
            row_samples: self.row_samples,
            row_exemplars: self.row_exemplars,
            arena: self.arena,
            samples: self.samples,
            exemplars: self.exemplars,
            metadata: self.metadata,
            scratch: self.scratch,
        }
    }

    /// Whether there is nothing to write. Rows alone are nothing.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.exemplars.is_empty() && self.metadata.is_empty()
    }

    /// Rows added.
    pub fn rows_len(&self) -> usize {
        self.hashes.len()
    }

    /// Samples added.
    pub fn samples_len(&self) -> usize {
        self.samples.len()
    }

    /// Exemplars added.
    pub fn exemplars_len(&self) -> usize {
        self.exemplars.len()
    }

    /// Metadata entries added.
    pub fn metadata_len(&self) -> usize {
        self.metadata.len()
    }

    /// Bytes of room held, texts of exemplars and metadata not counted.
    pub fn heap_bytes(&self) -> usize {
        self.hashes.capacity() * size_of::<u128>()
            + self.keys.capacity() * size_of::<RowKey<'_>>()
            + (self.row_samples.capacity() + self.row_exemplars.capacity()) * size_of::<u32>()
            + self.arena.capacity()
            + self.samples.capacity() * size_of::<RowSample>()
            + self.exemplars.capacity() * size_of::<(u32, Exemplar)>()
            + self.metadata.capacity() * size_of::<Metadata>()
            + self.scratch.heap_bytes()
    }

    /// The bytes of a row and how to parse them.
    pub(crate) fn row_key(&self, row: u32) -> Option<(&[u8], ParseLabels)> {
        let key = self.keys.get(row as usize)?;
        let bytes = match key.bytes {
            KeyBytes::Borrowed(bytes) => bytes,
            KeyBytes::Arena { start, end } => self.arena.get(start..end)?,
        };
        Some((bytes, key.parse))
    }

    #[inline]
    fn push_row(&mut self, hash: u128, key: RowKey<'a>) -> SeriesRow {
        let row = u32::try_from(self.hashes.len()).expect("a body of 64 MiB has fewer series");
        self.hashes.push(hash);
        self.keys.push(key);
        self.row_samples.push(0);
        self.row_exemplars.push(0);
        SeriesRow(row)
    }
}

/// The element that a mapping over an empty vector never asks for.
fn unreachable_key<'b>() -> RowKey<'b> {
    RowKey {
        bytes: KeyBytes::Borrowed(&[]),
        parse: parse_canonical,
    }
}

/// Parses canonical label bytes, and those of a remote-write sender.
pub(crate) fn parse_canonical<'b>(
    bytes: &'b [u8],
    labels: &mut LabelsBuilder<'b>,
) -> Result<(), rootline_index::Error> {
    *labels = LabelsBuilder::from_encoded(bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_series_hash_alike_however_they_are_given() {
        let mut batch = MetricBatch::new(HashKey::random());
        let labels = Labels::from_pairs([("a", "1")]).unwrap();
        let mut bytes = Vec::new();
        labels.encode_canonical(&mut bytes);
        batch.series(&labels);
        batch.series_raw(0, &bytes, parse_canonical);
        batch.series_bytes(0, &bytes, parse_canonical);
        batch.series_bytes(1, &bytes, parse_canonical);
        let [a, b, c, d] = batch.hashes[..] else {
            panic!("four rows")
        };
        assert!(a == b && b == c && c != d);
        assert!((0..4).all(|row| batch.row_key(row).unwrap().0 == bytes));
        assert!(batch.is_empty());
    }

    #[test]
    fn a_recycled_batch_keeps_its_room() {
        let mut batch = MetricBatch::new(HashKey::random());
        for i in 0..100 {
            let row = batch.series(&Labels::from_pairs([("i", i.to_string())]).unwrap());
            batch.sample(row, Timestamp::from_nanos(i), 0.0);
        }
        let room = batch.heap_bytes();
        let batch = batch.recycle();
        assert!(batch.is_empty() && batch.rows_len() == 0);
        assert_eq!(batch.heap_bytes(), room);
    }
}
