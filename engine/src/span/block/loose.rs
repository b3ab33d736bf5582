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
    attributes::LooseAttributes,
    owners::{ClassRow, OwnerSource},
    satellites::LooseItems,
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
    /// Of rows.
    pub(super) attributes: LooseAttributes,
    pub(super) extras: LooseItems,
    pub(super) events: LooseItems,
    pub(super) links: LooseItems,
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
        let wide =
            self.span_ids.capacity() + self.starts_ns.capacity() + self.durations_ns.capacity();
        rows * 4
            + wide * 8
            + self.orphans.capacity() * size_of::<(u32, [u8; 8])>()
            + self.traces.capacity() * size_of::<TraceRow>()
            + self.symbols.capacity() * size_of::<Arc<str>>()
            + (self.resources.capacity() + self.scopes.capacity()) * size_of::<usize>()
            + self.classes.capacity() * size_of::<ClassRow>()
            + self.attributes.heap_bytes()
            + self.extras.heap_bytes()
            + self.events.heap_bytes()
            + self.links.heap_bytes()
    }

    /// Makes room for so many more rows.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.class_of.reserve_exact(rows);
        self.span_ids.reserve_exact(rows);
        self.parents.reserve_exact(rows);
        self.subtrees.reserve_exact(rows);
        self.starts_ns.reserve_exact(rows);
        self.durations_ns.reserve_exact(rows);
        self.attributes.ends.reserve_exact(rows);
    }

    /// Appends the plain columns of a row, with the distance back to its parent and its descendants. Its
    /// trace's rows come in preorder.
    pub(super) fn push_row(&mut self, row: &PlainRow, parent: u32, subtree: u32) {
        if parent == 0 && row.parent_id != [0; 8] {
            self.orphans.push((self.rows(), row.parent_id));
        }
        self.class_of.push(row.class);
        self.span_ids.push(row.span_id);
        self.parents.push(parent);
        self.subtrees.push(subtree);
        self.starts_ns.push(row.start_ns);
        self.durations_ns.push(row.duration_ns);
    }

    /// Makes the rows from `first_row` on a trace; if there is none, there is no trace.
    pub(super) fn end_trace(&mut self, id: TraceId, first_row: u32) {
        let starts = self.starts_ns.get(first_row as usize..).unwrap_or_default();
        let durations = self.durations_ns.get(first_row as usize..);
        let ends = starts.iter().zip(durations.unwrap_or_default());
        let end_ns = ends
            .map(|(start, duration)| start.wrapping_add_unsigned(*duration))
            .max();
        if let (Some(&start_ns), Some(end_ns)) = (starts.iter().min(), end_ns) {
            self.traces.push(TraceRow {
                id,
                first_row,
                start_ns,
                end_ns,
            });
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
        Ok(self
            .resources
            .get(resource as usize)
            .cloned()
            .unwrap_or_default())
    }

    fn scope(&self, scope: u32) -> Result<Arc<Scope>, Error> {
        Ok(self.scopes.get(scope as usize).cloned().unwrap_or_default())
    }
}
