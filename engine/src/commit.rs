//! The write path: prepare, log, apply, acknowledge.
//!
//! 1. *Prepare*: resolve series, validate, encode the record. No lock but the heads' own.
//! 2. *Order*: under the commit lock the record gets its LSN and is queued in every lane it touches,
//!    so that lanes fill in LSN order.
//! 3. *Log*: wait until the record is durable; one writer syncs for all who came meanwhile.
//! 4. *Apply*: drain the lanes up to the durable end; see `lanes.rs`.
//! 5. *Visible*: wait until the watermark has reached the batch; then it is acknowledged.
//!
//! A failure in 1 or 2 leaves nothing of the batch behind but unused series definitions. After a
//! failure in 3 the log is closed and the batch is never shown.
//!
//! Lock order: commit lock → the log's own → a lane's queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use rootline_index::Matcher;
use rootline_wal::{Durability, Lsn, Wal};

use crate::{
    batch::WriteBatch,
    budget::{Budget, Holder, Reservation},
    error::Error,
    heads::{Heads, Prepared},
    id::TraceId,
    lanes::{Lanes, Shards},
    outcome::WriteOutcome,
    record::{self, RecordWriter, Tag, deletes, deletes::Delete},
    time::TimeRange,
    visibility::Visibility,
};

/// Share of the memory limit past which writers wait, then are refused.
const WRITERS_WAIT_PERCENT: u64 = 85;

#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) heads: Heads,
    pub(crate) visibility: Arc<Visibility>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) budget: Arc<Budget>,
    lanes: Lanes<Prepared>,
    order: Mutex<()>,
    durability: Durability,
    memory_wait: Duration,
    /// Held shared by every write, so that closing can wait for those under way.
    open: RwLock<()>,
    closed: AtomicBool,
}

impl Committer {
    pub(crate) fn new(
        heads: Heads,
        visibility: Arc<Visibility>,
        wal: Arc<Wal>,
        budget: Arc<Budget>,
        durability: Durability,
        memory_wait: Duration,
    ) -> Self {
        let lanes = Lanes::new(heads.lanes());
        Self {
            heads,
            visibility,
            wal,
            budget,
            lanes,
            order: Mutex::new(()),
            durability,
            memory_wait,
            open: RwLock::new(()),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn write(&self, batch: &mut WriteBatch<'_>) -> Result<WriteOutcome, Error> {
        let _open = self.enter()?;
        self.wait_for_memory()?;
        batch.record.clear();
        let WriteBatch {
            metrics,
            spans,
            rejections,
            record,
        } = batch;
        let prepared = Prepared {
            metrics: self.heads.metrics.prepare(
                metrics,
                self.wal.durable_lsn(),
                record,
                rejections,
            )?,
            spans: self.heads.spans.prepare(spans, record, rejections)?,
            deletes: Vec::new(),
        };
        let mut outcome = WriteOutcome {
            lsn: None,
            samples: prepared.metrics.sample_count(),
            spans: prepared.spans.span_count(),
            rejections: std::mem::take(rejections),
        };
        if !record.is_empty() {
            outcome.lsn = Some(self.commit(prepared, record)?);
        }
        Ok(outcome)
    }

    pub(crate) fn delete_series(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Lsn, Error> {
        let mut record = RecordWriter::default();
        record.part(Tag::DeleteSeries, |out| {
            deletes::encode_series(out, matchers, range);
        })?;
        self.delete(
            Delete::Series {
                matchers: matchers.to_vec(),
                range,
            },
            &record,
        )
    }

    pub(crate) fn delete_trace(&self, id: TraceId) -> Result<Lsn, Error> {
        let mut record = RecordWriter::default();
        record.part(Tag::DeleteTrace, |out| out.extend_from_slice(id.as_bytes()))?;
        self.delete(Delete::Trace(id), &record)
    }

    /// Stops taking writes, waits for those under way, syncs and closes the log. Reads go on.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::Release);
        let _none_under_way = self.open.write();
        self.wal.close()?;
        Ok(())
    }

    // A delete frees memory in the end, so it does not wait for any.
    fn delete(&self, delete: Delete, record: &RecordWriter) -> Result<Lsn, Error> {
        let _open = self.enter()?;
        let prepared = Prepared {
            deletes: vec![delete],
            ..Prepared::default()
        };
        let lsn = self.commit(prepared, record)?;
        // Shards give back what no snapshot can see any more when they are next written to; one at
        // rest is told here.
        self.heads.metrics.reclaim(self.visibility.floor());
        Ok(lsn)
    }

    fn enter(&self) -> Result<parking_lot::RwLockReadGuard<'_, ()>, Error> {
        let closed = || Error::Closed {
            reason: "it was closed".to_owned(),
        };
        // `close` sets the flag first, so a writer that got past the lock saw it unset before.
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let open = self.open.read();
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        Ok(open)
    }

    fn wait_for_memory(&self) -> Result<(), Error> {
        if self
            .budget
            .wait_below(WRITERS_WAIT_PERCENT, self.memory_wait)
        {
            return Ok(());
        }
        Err(Error::MemoryFull {
            used_bytes: self.budget.used_bytes(),
            limit_bytes: self.budget.limit_bytes(),
            wanted_bytes: 0,
        })
    }

    fn commit(&self, prepared: Prepared, record: &RecordWriter) -> Result<Lsn, Error> {
        let reservation = self.reserve(&prepared, record)?;
        let (lsn, queued) = {
            let _order = self.order.lock();
            let lsn = self.wal.append(record::KIND_BATCH, &[record.payload()])?;
            self.heads.metrics.logged(&prepared.metrics, lsn);
            (
                lsn,
                self.lanes
                    .push(&self.heads, lsn, prepared, Some(reservation)),
            )
        };
        self.wal.wait_durable(lsn)?;
        if !queued {
            self.visibility.applied(lsn);
        }
        self.lanes
            .drain(&self.heads, &self.visibility, self.apply_limit());
        self.visibility.wait(lsn)?;
        Ok(lsn)
    }

    /// The record stays in the log's buffer and the batch in its lanes until both are done with it.
    fn reserve(&self, prepared: &Prepared, record: &RecordWriter) -> Result<Reservation, Error> {
        let bytes =
            record.payload().len() + prepared.metrics.heap_bytes() + prepared.spans.heap_bytes();
        if prepared.deletes.is_empty() {
            return self.budget.reserve(Holder::Log, bytes as u64);
        }
        self.budget.reserve(Holder::Log, 0)
    }

    fn apply_limit(&self) -> Lsn {
        match self.durability {
            Durability::Sync => self.wal.durable_lsn(),
            // Acknowledged by name before it is durable.
            Durability::Interval(_) => self.wal.last_lsn(),
        }
    }
}
