//! What the manifest says at one moment, and what changes it.

use std::collections::BTreeMap;

use rootline_wal::Lsn;

use crate::{
    block::{BlockId, BlockMeta, Signal},
    tombstone::{SpanTombstone, Tombstone},
};

/// One value for each signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BySignal<T> {
    /// For samples.
    pub(crate) metrics: T,
    /// For spans.
    pub(crate) spans: T,
}

impl<T> BySignal<T> {
    pub(crate) fn get(&self, signal: Signal) -> &T {
        match signal {
            Signal::Metrics => &self.metrics,
            Signal::Spans => &self.spans,
        }
    }

    pub(crate) fn get_mut(&mut self, signal: Signal) -> &mut T {
        match signal {
            Signal::Metrics => &mut self.metrics,
            Signal::Spans => &mut self.spans,
        }
    }
}

/// One step of an edit. The steps of an edit happen together or not at all.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A block is part of the store. Its file is durable.
    AddBlock(BlockMeta),
    /// A block is no longer part of the store. Its file goes after the edit is durable.
    DropBlock(BlockId),
    /// Records up to `lsn` are sealed, as far as they concern `signal`. Never goes back.
    Cut {
        /// Whose records.
        signal: Signal,
        /// The last one.
        lsn: Lsn,
    },
    /// A delete that blocks still need.
    AddTombstone(Tombstone),
    /// The deletes of one record are needed no more. None may be left.
    DropTombstone(Lsn),
    /// A delete of spans that blocks still need.
    AddSpanTombstone(SpanTombstone),
    /// The deletes of spans of one record are needed no more. None may be left.
    DropSpanTombstone(Lsn),
    /// Everything older than `time_ns` has expired. Never goes back.
    RetentionFloor {
        /// Of which signal.
        signal: Signal,
        /// Nanoseconds since the Unix epoch.
        time_ns: i64,
    },
    /// Small state under a name; an empty value removes it.
    SetState {
        /// Its name.
        name: String,
        /// Its value.
        value: Vec<u8>,
    },
}

/// The store as of one edit.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// The blocks that make up the store.
    pub(crate) blocks: BTreeMap<BlockId, BlockMeta>,
    /// Up to which record the log is sealed.
    pub(crate) cuts: BySignal<Lsn>,
    /// Deletes that blocks still need, by rising LSN.
    pub(crate) tombstones: Vec<Tombstone>,
    /// Deletes of spans that blocks still need, by rising LSN.
    pub(crate) span_tombstones: Vec<SpanTombstone>,
    /// Before which moment everything has expired, ns since the Unix epoch; `i64::MIN` if nothing has.
    pub(crate) floors: BySignal<i64>,
    /// Small state by name.
    pub(crate) state: BTreeMap<String, Vec<u8>>,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            blocks: BTreeMap::new(),
            cuts: BySignal::default(),
            tombstones: Vec::new(),
            span_tombstones: Vec::new(),
            floors: BySignal {
                metrics: i64::MIN,
                spans: i64::MIN,
            },
            state: BTreeMap::new(),
        }
    }
}

impl Version {
    /// Applies one change. `Err` says why it does not fit; some of an edit may have been applied then.
    pub(super) fn apply(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::AddBlock(meta) => {
                let id = meta.id;
                if self.blocks.insert(id, meta).is_some() {
                    return Err(format!("block {id} is added twice"));
                }
            }
            Change::DropBlock(id) => {
                if self.blocks.remove(&id).is_none() {
                    return Err(format!("block {id} is dropped and is not there"));
                }
            }
            Change::Cut { signal, lsn } => {
                let cut = self.cuts.get_mut(signal);
                *cut = (*cut).max(lsn);
            }
            Change::AddTombstone(tombstone) => {
                let behind = |t: &Tombstone| t.lsn <= tombstone.lsn;
                let at = self.tombstones.partition_point(behind);
                self.tombstones.insert(at, tombstone);
            }
            Change::DropTombstone(lsn) => self.tombstones.retain(|t| t.lsn != lsn),
            Change::AddSpanTombstone(tombstone) => {
                let behind = |t: &SpanTombstone| t.lsn <= tombstone.lsn;
                let at = self.span_tombstones.partition_point(behind);
                self.span_tombstones.insert(at, tombstone);
            }
            Change::DropSpanTombstone(lsn) => self.span_tombstones.retain(|t| t.lsn != lsn),
            Change::RetentionFloor { signal, time_ns } => {
                let floor = self.floors.get_mut(signal);
                *floor = (*floor).max(time_ns);
            }
            Change::SetState { name, value } if value.is_empty() => {
                self.state.remove(&name);
            }
            Change::SetState { name, value } => {
                self.state.insert(name, value);
            }
        }
        Ok(())
    }

    /// The changes that make this version out of an empty one.
    pub(super) fn to_changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(self.blocks.values().cloned().map(Change::AddBlock));
        changes.extend(self.tombstones.iter().cloned().map(Change::AddTombstone));
        let spans = self.span_tombstones.iter().cloned();
        changes.extend(spans.map(Change::AddSpanTombstone));
        for signal in [Signal::Metrics, Signal::Spans] {
            let lsn = *self.cuts.get(signal);
            if lsn > Lsn::ZERO {
                changes.push(Change::Cut { signal, lsn });
            }
            let time_ns = *self.floors.get(signal);
            if time_ns > i64::MIN {
                changes.push(Change::RetentionFloor { signal, time_ns });
            }
        }
        let state = self.state.iter();
        changes.extend(state.map(|(name, value)| Change::SetState {
            name: name.clone(),
            value: value.clone(),
        }));
        changes
    }
}
