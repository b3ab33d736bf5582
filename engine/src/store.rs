//! The one place where the parts of the store change hands: the view that snapshots are taken of.
//!
//! A view is swapped whole behind one lock. A snapshot takes its watermark and its view together
//! under that lock, so that no swap comes between the two: whoever holds a watermark before a cut
//! holds the view before it.
//!
//! Lock order: the committer's locks → the view's lock → `Visibility`. Nothing is read or written,
//! and no view is dropped, under the view's lock: dropping one may free a whole generation.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    metric::MetricView,
    span::SpanView,
    tombstone::{SpanTombstone, Tombstone},
    visibility::{Pin, Visibility},
};

/// The parts of both signals.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// What metrics are read from.
    pub(crate) metrics: MetricView,
    /// What spans are read from.
    pub(crate) spans: SpanView,
}

/// The view of now.
#[derive(Debug)]
pub(crate) struct Store {
    view: Mutex<Arc<View>>,
    /// Some block could not be opened: deletes are listed for it, in case it comes back.
    has_damaged_blocks: bool,
}

impl Store {
    pub(crate) fn new(view: View, has_damaged_blocks: bool) -> Self {
        Self {
            has_damaged_blocks,
            view: Mutex::new(Arc::new(view)),
        }
    }

    /// The view of now.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.lock())
    }

    /// Opens a snapshot: a pin on the watermark and the view that belongs to it.
    pub(crate) fn pin(&self, visibility: &Arc<Visibility>) -> (Pin, Arc<View>) {
        let view = self.view.lock();
        (visibility.pin(), Arc::clone(&view))
    }

    /// Puts another view in the place of this one.
    pub(crate) fn swap(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view.lock();
        let mut next = View::clone(&view);
        change(&mut next);
        let before = std::mem::replace(&mut *view, Arc::new(next));
        drop(view);
        drop(before);
    }

    /// Lists deletes of spans for the blocks, as [`add_tombstone`](Self::add_tombstone) does. Generations
    /// apply it themselves, frozen ones too.
    pub(crate) fn add_span_tombstones(&self, more: Vec<SpanTombstone>) {
        if self.view().spans.is_young() && !self.has_damaged_blocks {
            return;
        }
        self.swap(|view| {
            let tombstones = view.spans.tombstones.iter().cloned();
            view.spans.tombstones = tombstones.chain(more).collect();
        });
    }

    /// Lists a delete for the parts that do not apply it themselves. Called once the delete has its
    /// LSN and before it is visible, in rising order of LSNs.
    pub(crate) fn add_tombstone(&self, tombstone: Tombstone) {
        let metrics = &self.view().metrics;
        let has_others = !metrics.frozen.is_empty() || !metrics.blocks.is_empty();
        if !has_others && !self.has_damaged_blocks {
            // Whoever freezes meanwhile waits for this delete first, and has it applied.
            return;
        }
        self.swap(|view| {
            let tombstones = view.metrics.tombstones.iter().cloned();
            view.metrics.tombstones = tombstones.chain([tombstone]).collect();
        });
    }
}
