//! What a writer fills: one atomic batch of either or both signals.

use crate::{metric::MetricBatch, outcome::Rejections, record::RecordWriter, span::SpanBatch};

/// A batch under construction, made by [`crate::Engine::batch`] and stored whole or not at all by
/// [`crate::Engine::write`].
///
/// Labels may be borrowed from the request's body (`'a`). After [`clear`](Self::clear) the batch
/// keeps its buffers for the next request.
#[derive(Debug)]
pub struct WriteBatch<'a> {
    pub(crate) metrics: MetricBatch<'a>,
    pub(crate) spans: SpanBatch,
    pub(crate) rejections: Rejections,
    pub(crate) record: RecordWriter,
}

impl<'a> WriteBatch<'a> {
    pub(crate) fn new(metrics: MetricBatch<'a>) -> Self {
        Self {
            metrics,
            spans: SpanBatch::new(),
            rejections: Rejections::default(),
            record: RecordWriter::default(),
        }
    }

    /// The metric side.
    pub fn metrics(&mut self) -> &mut MetricBatch<'a> {
        &mut self.metrics
    }

    /// The trace side.
    pub fn spans(&mut self) -> &mut SpanBatch {
        &mut self.spans
    }

    /// Where a decoder counts the items it refuses itself.
    pub fn rejections(&mut self) -> &mut Rejections {
        &mut self.rejections
    }

    /// All three at once, for decoders that need them side by side.
    pub fn split(&mut self) -> (&mut MetricBatch<'a>, &mut SpanBatch, &mut Rejections) {
        (&mut self.metrics, &mut self.spans, &mut self.rejections)
    }

    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.spans.is_empty()
    }

    /// This one's room, empty, to borrow from another body.
    pub(crate) fn recycle<'b>(mut self) -> WriteBatch<'b> {
        self.clear();
        WriteBatch {
            metrics: self.metrics.recycle(),
            spans: self.spans,
            rejections: self.rejections,
            record: self.record,
        }
    }

    /// Bytes of room held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.metrics.heap_bytes() + self.spans.heap_bytes() + self.record.heap_bytes()
    }

    /// Forgets everything, keeps the room.
    pub fn clear(&mut self) {
        self.metrics.clear();
        self.spans.clear();
        self.rejections = Rejections::default();
        self.record.clear();
    }
}
