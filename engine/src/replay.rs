//! Start-up: the log back into the heads.
//!
//! The log hands its records over in LSN order on one thread, which decodes them. Worker threads own
//! disjoint sets of shards and apply to them, so every shard sees LSN order and shards go in parallel.
//! Nothing is visible until all is replayed, so no version needs keeping: the floor is the record's
//! own LSN.
//!
//! What is sealed is in blocks: parts of a signal at or below its cut are skipped, deletes with them. A
//! trace that goes on behind the cut is recalled from blocks as when it was written. For metrics,
//! definitions are skipped as well: their generations defined their series themselves, so nothing above
//! the cut needs them.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use rootline_wal::{Clock, Lsn, Record, Recovery, Storage, Wal};

use crate::{
    budget::Budget,
    error::Error,
    files::StoreFiles,
    heads::{Heads, Prepared},
    id::TraceId,
    lanes::Shards,
    manifest::BySignal,
    metric::MetricHead,
    record::{self, Tag, deletes, deletes::Delete},
    seal::Windows,
    settings::Settings,
    span::{SpanHead, SpanView, recall},
    tombstone::{SpanTombstone, Tombstone},
};

/// Records a worker may lag behind the decoder: bounds the memory of replay.
const QUEUE_RECORDS: usize = 32;

/// How far replay has come. Read it from any thread.
#[derive(Debug, Default)]
pub struct ReplayProgress {
    records: AtomicU64,
    bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl ReplayProgress {
    /// Records replayed.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Bytes of records replayed.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of log files found at start: an upper bound for [`bytes`](Self::bytes).
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }
}

/// What start-up found, beyond what the log itself reports.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Replayed {
    /// What the log found: records, torn bytes, damage.
    pub log: Recovery,
    /// Samples whose series was defined only in damaged records.
    pub orphaned_samples: u64,
}

type Work = (Lsn, Arc<Prepared>);

/// What replay hands over beside what it put into the heads.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) wal: Arc<Wal>,
    pub(crate) replayed: Replayed,
    /// Deletes of series above the cut, by rising LSN: blocks do not have them applied.
    pub(crate) deletes: Vec<Tombstone>,
    /// Deletes of spans above the cut, by rising LSN: the same.
    pub(crate) span_deletes: Vec<SpanTombstone>,
    /// What times were written.
    pub(crate) windows: Windows,
    /// The last record of each signal.
    pub(crate) written: BySignal<Lsn>,
}

pub(crate) struct Replay<'a> {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) dir: &'a Path,
    pub(crate) settings: rootline_wal::Settings,
    pub(crate) heads: &'a Heads,
    pub(crate) budget: &'a Arc<Budget>,
    pub(crate) progress: &'a ReplayProgress,
    pub(crate) threads: usize,
    /// Parts up to here are in blocks.
    pub(crate) cuts: BySignal<Lsn>,
    /// What traces are recalled from: the blocks.
    pub(crate) spans: SpanView,
    /// Where damage that is met there goes.
    pub(crate) files: &'a StoreFiles,
}

/// What is gathered on the way.
#[derive(Debug)]
struct Gathered {
    deletes: Vec<Tombstone>,
    windows: Windows,
    written: BySignal<Lsn>,
    span_deletes: Vec<SpanTombstone>,
    /// What traces are recalled from, with the deletes of spans so far.
    spans: SpanView,
    /// Traces that the head has, or will have once the workers are through.
    known_traces: HashSet<TraceId>,
}

impl Replay<'_> {
    pub(crate) fn run(self) -> Result<Outcome, Error> {
        let mut gathered = Gathered {
            deletes: Vec::new(),
            windows: Windows::default(),
            written: self.cuts,
            span_deletes: Vec::new(),
            spans: self.spans.clone(),
            known_traces: HashSet::new(),
        };
        let log_dir = self.dir.join(crate::filenames::LOG_DIR);
        self.progress
            .total_bytes
            .store(self.log_bytes(&log_dir), Ordering::Relaxed);
        thread::scope(|scope| {
            let workers: Vec<SyncSender<Work>> = (0..self.threads.max(1))
                .map(|worker| {
                    let (sender, receiver) = sync_channel(QUEUE_RECORDS);
                    let (heads, threads) = (self.heads, self.threads.max(1));
                    scope.spawn(move || apply(heads, worker, threads, &receiver));
                    sender
                })
                .collect();
            let mut failure = None;
            let opened = Wal::open(
                Arc::clone(&self.storage),
                Arc::clone(&self.clock),
                &log_dir,
                self.settings.clone(),
                &mut |record| {
                    let taken = self.record(&record, &workers, &mut gathered);
                    taken.map_err(|error| {
                        let text = error.to_string();
                        failure = Some(error);
                        text.into()
                    })
                },
            );
            drop(workers);
            match (failure, opened) {
                (Some(failure), _) => Err(failure),
                (None, Err(error)) => Err(error.into()),
                (None, Ok((wal, log))) => {
                    self.heads.metrics.replayed();
                    let orphaned_samples = self.heads.metrics.orphaned_samples();
                    Ok(Outcome {
                        wal,
                        replayed: Replayed {
                            log,
                            orphaned_samples,
                        },
                        deletes: gathered.deletes,
                        span_deletes: gathered.span_deletes,
                        windows: gathered.windows,
                        written: gathered.written,
                    })
                }
            }
        })
    }

    fn record(
        &self,
        record: &Record<'_>,
        workers: &[SyncSender<Work>],
        gathered: &mut Gathered,
    ) -> Result<(), Error> {
        if record.kind != record::KIND_BATCH {
            return Err(Error::UnknownRecord {
                lsn: record.lsn.0,
                what: "kind",
                found: record.kind.into(),
            });
        }
        let mut prepared = decode(self.heads, record, self.cuts)?;
        self.recall(record.lsn, &mut prepared, gathered)?;
        let prepared = Arc::new(prepared);
        for delete in &prepared.deletes {
            if let Some(tombstone) = SpanTombstone::of(record.lsn, delete) {
                gathered.span_deletes.push(tombstone.clone());
                let deletes = gathered.spans.tombstones.iter().cloned();
                gathered.spans.tombstones = deletes.chain([tombstone]).collect();
            }
            if let Delete::Series { matchers, range } = delete {
                gathered.deletes.push(Tombstone {
                    lsn: record.lsn,
                    matchers: matchers.clone(),
                    range: *range,
                });
            }
        }
        let (metrics, spans) = self.heads.signals(&prepared);
        if metrics {
            gathered.written.metrics = record.lsn;
        }
        if spans {
            gathered.written.spans = record.lsn;
        }
        if let Some((first_ns, last_ns)) = prepared.metrics.times_ns() {
            let samples = prepared.metrics.sample_count();
            let now = self.clock.monotonic();
            gathered.windows.note(first_ns, last_ns, samples, now);
        }
        let mut lanes_of = vec![false; workers.len()];
        for lane in 0..self.heads.lanes() {
            if self.heads.touches(lane, &prepared)
                && let Some(touched) = lanes_of.get_mut(lane % workers.len())
            {
                *touched = true;
            }
        }
        for (worker, _) in workers
            .iter()
            .zip(&lanes_of)
            .filter(|(_, touched)| **touched)
        {
            // A worker ends only by panicking; the scope then passes the panic on.
            if worker.send((record.lsn, Arc::clone(&prepared))).is_err() {
                return Err(Error::Closed {
                    reason: "a replay thread failed".to_owned(),
                });
            }
        }
        let records = self.progress.records.fetch_add(1, Ordering::Relaxed) + 1;
        self.progress
            .bytes
            .fetch_add(record.payload.len() as u64, Ordering::Relaxed);
        let used_bytes = self.budget.used_bytes();
        if used_bytes > self.budget.limit_bytes() {
            return Err(Error::ReplayOverBudget {
                dir: self.dir.to_owned(),
                limit_bytes: self.budget.limit_bytes(),
                used_bytes,
                records,
            });
        }
        Ok(())
    }

    /// What the batch recalled when it was written: see `span/recall.rs`.
    fn recall(
        &self,
        lsn: Lsn,
        prepared: &mut Prepared,
        gathered: &mut Gathered,
    ) -> Result<(), Error> {
        if gathered.spans.is_young() || prepared.spans.span_count() == 0 {
            return Ok(());
        }
        let traces = prepared.spans.traces().iter();
        let is_new = |id: &&TraceId| !gathered.known_traces.contains(*id);
        let unknown: Vec<TraceId> = traces.filter(is_new).copied().collect();
        let mut damaged = |error: Error| self.files.note_damage(&error, PathBuf::new());
        let before = Lsn(lsn.0.saturating_sub(1));
        let (head, batch) = (&self.heads.spans, &prepared.spans);
        let view = &gathered.spans;
        let found = recall::recall_traces(view, before, head, batch, &unknown, &mut damaged)?;
        let is_kept = |id: &TraceId| found.repeated.binary_search(id).is_err();
        let kept = unknown.into_iter().filter(is_kept);
        gathered.known_traces.extend(kept);
        prepared.spans.set_recall(found);
        Ok(())
    }

    fn log_bytes(&self, log_dir: &Path) -> u64 {
        let names = self.storage.list(log_dir).unwrap_or_default();
        names
            .iter()
            .filter_map(|name| self.storage.len(&log_dir.join(name)).ok())
            .sum()
    }
}

fn apply(heads: &Heads, worker: usize, workers: usize, work: &Receiver<Work>) {
    while let Ok((lsn, prepared)) = work.recv() {
        for lane in (worker..heads.lanes()).step_by(workers) {
            if heads.touches(lane, &prepared) {
                heads.apply(lane, lsn, &prepared, lsn);
            }
        }
    }
}

/// Decodes a batch record against the heads: what `prepare` made of it when it was written, less the
/// metric parts of a record at or below the cut.
///
/// # Errors
/// [`Error::UnknownRecord`] or [`Error::CorruptRecord`].
pub(crate) fn decode(
    heads: &Heads,
    record: &Record<'_>,
    cuts: BySignal<Lsn>,
) -> Result<Prepared, Error> {
    let is_sealed = record.lsn <= cuts.metrics;
    let spans_are_sealed = record.lsn <= cuts.spans;
    let mut prepared = Prepared::default();
    for part in record::parts(record.lsn, record.payload) {
        let part = part?;
        match part.tag {
            Tag::Definitions
            | Tag::Samples
            | Tag::Exemplars
            | Tag::Metadata
            | Tag::DeleteSeries
                if is_sealed => {}
            Tag::Spans | Tag::DeleteTrace | Tag::DeleteSpans if spans_are_sealed => {}
            Tag::Definitions | Tag::Samples | Tag::Exemplars | Tag::Metadata => {
                heads.metrics.decode(part, &mut prepared.metrics)?;
            }
            Tag::Spans => heads.spans.decode(part, &mut prepared.spans)?,
            Tag::DeleteSeries => prepared.deletes.push(deletes::decode_series(part)?),
            Tag::DeleteTrace => prepared.deletes.push(deletes::decode_trace(part)?),
            Tag::DeleteSpans => prepared.deletes.push(deletes::decode_spans(part)?),
        }
    }
    Ok(prepared)
}

/// Whether `payload` is a batch record that a fresh store can replay. Costs a small store; for tools
/// and fuzzers that look at logs.
///
/// # Errors
/// [`Error::UnknownRecord`] or [`Error::CorruptRecord`], as replay would end with.
pub fn check_record(lsn: Lsn, payload: &[u8]) -> Result<(), Error> {
    let budget = Budget::new(u64::MAX);
    let settings = Settings {
        metric_shards: 1,
        span_shards: 1,
        ..Settings::default()
    };
    let heads = Heads::new(
        Arc::new(MetricHead::new(&settings, Arc::clone(&budget))),
        Arc::new(SpanHead::new(&settings, budget)),
    );
    let record = Record {
        lsn,
        kind: record::KIND_BATCH,
        payload,
    };
    let prepared = decode(&heads, &record, BySignal::default())?;
    for lane in (0..heads.lanes()).filter(|lane| heads.touches(*lane, &prepared)) {
        heads.apply(lane, lsn, &prepared, lsn);
    }
    Ok(())
}
