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
    tombstone::Tombstone,
    visibility::{Pin, Visibility},
};

/// The view of now.
#[derive(Debug)]
pub(crate) struct Store {
    view: Mutex<Arc<MetricView>>,
    /// Some block could not be opened: deletes are listed for it, in case it comes back.
    has_damaged_blocks: bool,
}

impl Store {
    pub(crate) fn new(view: MetricView, has_damaged_blocks: bool) -> Self {
        Self {
            has_damaged_blocks,
            view: Mutex::new(Arc::new(view)),
        }
    }

    /// The view of now.
    pub(crate) fn view(&self) -> Arc<MetricView> {
        Arc::clone(&self.view.lock())
    }

    /// Opens a snapshot: a pin on the watermark and the view that belongs to it.
    pub(crate) fn pin(&self, visibility: &Arc<Visibility>) -> (Pin, Arc<MetricView>) {
        let view = self.view.lock();
        (visibility.pin(), Arc::clone(&view))
    }

    /// Puts another view in the place of this one.
    pub(crate) fn swap(&self, change: impl FnOnce(&mut MetricView)) {
        let mut view = self.view.lock();
        let mut next = MetricView::clone(&view);
        change(&mut next);
        let before = std::mem::replace(&mut *view, Arc::new(next));
        drop(view);
        drop(before);
    }

    /// Lists a delete for the parts that do not apply it themselves. Called once the delete has its
    /// LSN and before it is visible, in rising order of LSNs.
    pub(crate) fn add_tombstone(&self, tombstone: Tombstone) {
        let view = self.view();
        let has_others = !view.frozen.is_empty() || !view.blocks.is_empty();
        if !has_others && !self.has_damaged_blocks {
            // Whoever freezes meanwhile waits for this delete first, and has it applied.
            return;
        }
        self.swap(|view| {
            view.tombstones = view.tombstones.iter().cloned().chain([tombstone]).collect();
        });
    }
}
