//! The edges of a block that is being written, found in its columns as they come by.
//!
//! 1. [`EdgeRows::push_parent`] for each row in order finds the rows that are edges.
//! 2. [`EdgeRows::push_start`] and [`EdgeRows::push_duration`] for each row in order, one column after
//!    the other, say when and how long.
//! 3. [`EdgeRows::write`](super::section) writes the section.
//!
//! So no column needs to be in memory but the codes of classes, and 24 bytes for each row that is an edge.

use hashbrown::HashMap;

use super::{kind::EdgeKind, period::Level};

/// What a class says of its spans that edges need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassOwner {
    /// The service, by a number of the caller's: equal exactly for equal names.
    pub(crate) service: u32,
    /// Whether the status is an error.
    pub(crate) error: bool,
}

/// An edge of the block, by the caller's numbers of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct EdgeKey {
    pub(super) kind: EdgeKind,
    pub(super) caller: u32,
    pub(super) callee: u32,
}

/// A row that makes an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EdgeRow {
    row: u32,
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
    classes: Vec<ClassOwner>,
    numbers: HashMap<EdgeKey, u32>,
    /// Edges come in runs of the same few.
    last: Option<(EdgeKey, u32)>,
    pub(super) edges: Vec<EdgeKey>,
    pub(super) rows: Vec<EdgeRow>,
    parents: Column,
    starts: Column,
    durations: Column,
}

/// How far a column was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Column {
    /// The next row.
    row: u32,
    /// The place of the next row that is an edge.
    place: usize,
}

impl Column {
    /// Moves on by a row; the row's entry if it is an edge.
    #[inline]
    fn next<'r>(&mut self, rows: &'r mut [EdgeRow]) -> Option<&'r mut EdgeRow> {
        let row = self.row;
        self.row = row.wrapping_add(1);
        let entry = rows.get_mut(self.place).filter(|entry| entry.row == row)?;
        self.place += 1;
        Some(entry)
    }
}

impl EdgeRows {
    /// No row yet. `classes`: of the block, by code.
    pub(crate) fn new(classes: Vec<ClassOwner>) -> Self {
        Self {
            classes,
            ..Self::default()
        }
    }

    /// The next row: the distance back to its parent's row, 0 if it has none. `class_of` are the class
    /// codes of all rows up to it.
    #[inline]
    pub(crate) fn push_parent(&mut self, class_of: &[u32], distance: u32) {
        let row = self.parents.row;
        self.parents.row = row.wrapping_add(1);
        if distance == 0 {
            return;
        }
        let class = |row: u32| {
            let code = class_of.get(row as usize)?;
            self.classes.get(*code as usize).copied()
        };
        let parent = row.checked_sub(distance).and_then(class);
        if let (Some(child), Some(parent)) = (class(row), parent)
            && child.service != parent.service
        {
            self.push_call(row, parent.service, child);
        }
    }

    fn push_call(&mut self, row: u32, caller: u32, child: ClassOwner) {
        let key = EdgeKey {
            kind: EdgeKind::Call,
            caller,
            callee: child.service,
        };
        let number = match self.last {
            Some((known, number)) if known == key => number,
            _ => {
                let edges = &mut self.edges;
                *self.numbers.entry(key).or_insert_with(|| {
                    edges.push(key);
                    super::number(edges.len() - 1)
                })
            }
        };
        self.last = Some((key, number));
        self.rows.push(EdgeRow {
            row,
            edge: number << 1 | u32::from(child.error),
            minute: 0,
            duration_ns: 0,
        });
    }

    /// When the next row starts, absolute. All parents were pushed before.
    #[inline]
    pub(crate) fn push_start(&mut self, start_ns: i64) {
        if let Some(entry) = self.starts.next(&mut self.rows) {
            entry.minute = Level::Minute.number(start_ns);
        }
    }

    /// How long the next row took. All parents were pushed before.
    #[inline]
    pub(crate) fn push_duration(&mut self, duration_ns: u64) {
        if let Some(entry) = self.durations.next(&mut self.rows) {
            entry.duration_ns = duration_ns;
        }
    }
}
