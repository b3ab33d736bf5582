//! The edges of a block that is being written, found in its columns as they come by.
//!
//! 1. [`EdgeRows::of_calls`] takes class codes and parents and remembers the rows that are edges.
//! 2. [`EdgeRows::set_starts`] and [`EdgeRows::set_durations`] take one column more each.
//! 3. [`EdgeRows::write`](super::section) writes the section.
//!
//! So only the columns at hand are in memory, and 24 bytes for each row that is an edge.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{kind::EdgeKind, period::Level};

/// What a class says of its spans that edges need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassOwner {
    /// The service, by a number of the caller's.
    pub(crate) service: u32,
    /// Whether the status is an error.
    pub(crate) error: bool,
}

/// An edge of the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EdgeName {
    pub(super) kind: EdgeKind,
    pub(super) caller: Arc<str>,
    pub(super) callee: Arc<str>,
    pub(super) system: Arc<str>,
}

/// A row that makes an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EdgeRow {
    pub(super) row: u32,
    /// Number of the edge, times two, and one more for an error.
    edge: u32,
    /// Number of the minute that it starts in.
    pub(super) minute: i64,
    pub(super) duration_ns: u64,
}

impl EdgeRow {
    pub(super) fn edge(&self) -> u32 {
        self.edge >> 1
    }

    pub(super) fn error(&self) -> bool {
        self.edge & 1 == 1
    }
}

/// The rows of a block that make edges.
#[derive(Clone, Debug, Default)]
pub(crate) struct EdgeRows {
    pub(super) edges: Vec<EdgeName>,
    pub(super) rows: Vec<EdgeRow>,
}

impl EdgeRows {
    /// The calls among rows in final order: for each row its class code, and the distance back to its
    /// parent's row, 0 if it has none.
    pub(crate) fn of_calls(
        classes: &[ClassOwner],
        service: impl Fn(u32) -> Arc<str>,
        class_of: &[u32],
        parents: &[u32],
    ) -> Self {
        let mut found = Self::default();
        let mut numbers: HashMap<(u32, u32), u32> = HashMap::new();
        let class = |row: usize| class_of.get(row).and_then(|&c| classes.get(c as usize));
        // Edges come in runs of the same few.
        let mut last = None;
        for (row, &distance) in parents.iter().enumerate() {
            if distance == 0 {
                continue;
            }
            let parent = row.checked_sub(distance as usize).and_then(class);
            let (Some(child), Some(parent)) = (class(row), parent) else {
                continue;
            };
            if child.service == parent.service {
                continue;
            }
            let key = (parent.service, child.service);
            let edge = match last {
                Some((known, edge)) if known == key => edge,
                _ => *numbers.entry(key).or_insert_with(|| {
                    found.edges.push(EdgeName {
                        kind: EdgeKind::Call,
                        caller: service(key.0),
                        callee: service(key.1),
                        system: Arc::default(),
                    });
                    super::number(found.edges.len() - 1)
                }),
            };
            last = Some((key, edge));
            found.rows.push(EdgeRow {
                row: super::number(row),
                edge: edge << 1 | u32::from(child.error),
                minute: 0,
                duration_ns: 0,
            });
        }
        found
    }

    /// When the rows start, absolute, in ns.
    pub(crate) fn set_starts(&mut self, start_ns: impl Fn(u32) -> i64) {
        for row in &mut self.rows {
            row.minute = Level::Minute.number(start_ns(row.row));
        }
    }

    /// How long the rows took, in ns.
    pub(crate) fn set_durations(&mut self, duration_ns: impl Fn(u32) -> u64) {
        for row in &mut self.rows {
            row.duration_ns = duration_ns(row.row);
        }
    }

    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<EdgeRow>() + self.edges.capacity() * size_of::<EdgeName>()
    }
}
