//! Spans in memory, in the order that a block has them: what is sealed, and traces that a merge had to
//! rebuild.
//!
//! Invariants
//! - The columns of rows are equally long. A trace's rows lie end to end in preorder (`order.rs`).
//! - Numbers in classes and rows lie below the lengths of their tables.

use std::sync::Arc;

use super::{
    super::{
        dictionary::number,
        model::{Resource, Scope},
    },
    owners::{ClassRow, OwnerSource},
    traces::TraceRow,
};
use crate::{error::Error, id::TraceId};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LooseRows {
    pub(super) traces: Vec<TraceRow>,
    pub(super) symbols: Vec<Arc<str>>,
    pub(super) resources: Vec<Arc<Resource>>,
    /// The symbol of each resource's service.
    pub(super) services: Vec<u32>,
    pub(super) scopes: Vec<Arc<Scope>>,
    pub(super) classes: Vec<ClassRow>,
    pub(super) class_of: Vec<u32>,
    pub(super) span_ids: Vec<[u8; 8]>,
    /// Distance back to the parent's row; 0: none.
    pub(super) parents: Vec<u32>,
    pub(super) subtrees: Vec<u32>,
    pub(super) starts_ns: Vec<i64>,
    pub(super) durations_ns: Vec<u64>,
    /// Rows without a parent that were sent with one, and its id.
    pub(super) orphans: Vec<(u32, [u8; 8])>,
}

/// A row without what hangs on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlainRow {
    pub(super) class: u32,
    pub(super) span_id: [u8; 8],
    /// As sent; zeros if there is none.
    pub(super) parent_id: [u8; 8],
    pub(super) start_ns: i64,
    pub(super) duration_ns: u64,
}

impl LooseRows {
    /// Rows.
    pub(crate) fn rows(&self) -> u32 {
        number(self.class_of.len())
    }

    /// Its traces, in the order of their rows.
    pub(crate) fn traces(&self) -> &[TraceRow] {
        &self.traces
    }

    /// Memory held.
    pub(crate) fn heap_bytes(&self) -> usize {
        let rows = self.class_of.capacity() + self.parents.capacity() + self.subtrees.capacity();
        let wide = self.span_ids.capacity() + self.starts_ns.capacity() + self.durations_ns.capacity();
        rows * 4
            + wide * 8
            + self.orphans.capacity() * size_of::<(u32, [u8; 8])>()
            + self.traces.capacity() * size_of::<TraceRow>()
            + self.symbols.capacity() * size_of::<Arc<str>>()
            + (self.resources.capacity() + self.scopes.capacity()) * size_of::<usize>()
            + self.classes.capacity() * size_of::<ClassRow>()
    }

    /// Makes room for so many more rows.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.class_of.reserve_exact(rows);
        self.span_ids.reserve_exact(rows);
        self.parents.reserve_exact(rows);
        self.subtrees.reserve_exact(rows);
        self.starts_ns.reserve_exact(rows);
        self.durations_ns.reserve_exact(rows);
    }
}

/// Appends the rows of one trace.
#[derive(Debug)]
pub(super) struct TraceAppender<'l> {
    pub(super) loose: &'l mut LooseRows,
    trace: TraceRow,
}

impl<'l> TraceAppender<'l> {
    pub(super) fn new(loose: &'l mut LooseRows, id: TraceId) -> Self {
        let trace = TraceRow {
            id,
            first_row: loose.rows(),
            start_ns: i64::MAX,
            end_ns: i64::MIN,
        };
        Self { loose, trace }
    }

    /// Appends a row, in preorder, with the distance back to its parent and its descendants.
    pub(super) fn push(&mut self, row: &PlainRow, parent: u32, subtree: u32) {
        let end_ns = row.start_ns.wrapping_add_unsigned(row.duration_ns);
        self.trace.start_ns = self.trace.start_ns.min(row.start_ns);
        self.trace.end_ns = self.trace.end_ns.max(end_ns);
        let loose = &mut *self.loose;
        if parent == 0 && row.parent_id != [0; 8] {
            loose.orphans.push((loose.rows(), row.parent_id));
        }
        loose.class_of.push(row.class);
        loose.span_ids.push(row.span_id);
        loose.parents.push(parent);
        loose.subtrees.push(subtree);
        loose.starts_ns.push(row.start_ns);
        loose.durations_ns.push(row.duration_ns);
    }

    /// Ends the trace; one without a row is none.
    pub(super) fn finish(self) {
        if self.loose.rows() > self.trace.first_row {
            self.loose.traces.push(self.trace);
        }
    }
}

impl OwnerSource for LooseRows {
    fn classes(&self) -> &[ClassRow] {
        &self.classes
    }

    fn symbol(&self, symbol: u32) -> Arc<str> {
        let text = self.symbols.get(symbol as usize).cloned();
        text.unwrap_or_else(|| Arc::from(""))
    }

    fn resource(&self, resource: u32) -> Result<Arc<Resource>, Error> {
        Ok(self.resources.get(resource as usize).cloned().unwrap_or_default())
    }

    fn scope(&self, scope: u32) -> Result<Arc<Scope>, Error> {
        Ok(self.scopes.get(scope as usize).cloned().unwrap_or_default())
    }
}
