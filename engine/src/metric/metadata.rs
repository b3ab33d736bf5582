//! Type, unit and help text by metric name.
//!
//! All generations of the head share one map ([`SharedMetadata`]), which lives as long as the store is
//! open: a version knows the record it came in, so that a snapshot of any age finds its own.
//!
//! Invariants
//! - Versions of one metric rise by LSN; only the newest at or below the floor and newer ones stay.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{RwLock, RwLockReadGuard};
use rootline_wal::Lsn;

use crate::budget::{Budget, Holder};

/// Metrics that can have metadata: past it, metadata of new metrics are refused. Names of metrics
/// come from instrumentation, not from data; Prometheus' largest users have some ten thousand.
pub const METADATA_METRICS_MAX: usize = 1 << 20;

/// What a metric is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// Not said.
    #[default]
    Unknown,
    /// Only rises, but for resets.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets.
    Histogram,
    /// Buckets that go up and down.
    GaugeHistogram,
    /// Quantiles computed at the source.
    Summary,
    /// Constant 1; the labels are the information.
    Info,
    /// One boolean series for each state.
    StateSet,
}

impl MetricKind {
    /// Its stored number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Counter => 1,
            Self::Gauge => 2,
            Self::Histogram => 3,
            Self::GaugeHistogram => 4,
            Self::Summary => 5,
            Self::Info => 6,
            Self::StateSet => 7,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Unknown,
            1 => Self::Counter,
            2 => Self::Gauge,
            3 => Self::Histogram,
            4 => Self::GaugeHistogram,
            5 => Self::Summary,
            6 => Self::Info,
            7 => Self::StateSet,
            _ => return None,
        })
    }
}

/// What is known of a metric beside its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The metric's name: the value of `__name__`, less a histogram's or summary's suffix.
    pub metric: String,
    /// What it is.
    pub kind: MetricKind,
    /// Its unit; may be empty.
    pub unit: String,
    /// What it is about; may be empty.
    pub help: String,
}

/// The metadata of all metrics. The owner guards it by a lock.
#[derive(Debug, Default)]
pub(crate) struct MetadataStore {
    metrics: BTreeMap<Box<str>, Vec<(Lsn, Described)>>,
    text_bytes: usize,
}

/// The map behind its lock, with its share of the memory budget.
#[derive(Debug)]
pub(crate) struct SharedMetadata {
    store: RwLock<MetadataStore>,
    budget: Arc<Budget>,
    charged_bytes: AtomicU64,
}

impl SharedMetadata {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            store: RwLock::default(),
            budget,
            charged_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, MetadataStore> {
        self.store.read()
    }

    /// Applies what record `lsn` says.
    pub(crate) fn apply(&self, lsn: Lsn, entries: &[Metadata], floor: Lsn) {
        let mut store = self.store.write();
        for metadata in entries {
            store.apply(lsn, metadata, floor);
        }
        // Under the lock, so that of two changes the later one is the one that stands.
        let now = store.heap_bytes() as u64;
        let before = self.charged_bytes.swap(now, Ordering::Relaxed);
        if now >= before {
            self.budget.charge(Holder::MetricHead, now - before);
        } else {
            self.budget.release(Holder::MetricHead, before - now);
        }
    }

    /// Bytes charged to the budget.
    pub(crate) fn charged_bytes(&self) -> u64 {
        self.charged_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for SharedMetadata {
    fn drop(&mut self) {
        self.budget
            .release(Holder::MetricHead, self.charged_bytes());
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Described {
    kind: MetricKind,
    unit: Box<str>,
    help: Box<str>,
}

impl Described {
    fn is(&self, metadata: &Metadata) -> bool {
        self.kind == metadata.kind && *self.unit == *metadata.unit && *self.help == *metadata.help
    }

    fn of(&self, metric: &str) -> Metadata {
        Metadata {
            metric: metric.to_owned(),
            kind: self.kind,
            unit: self.unit.to_string(),
            help: self.help.to_string(),
        }
    }

    fn text_bytes(&self) -> usize {
        self.unit.len() + self.help.len()
    }
}

impl MetadataStore {
    /// Whether `metadata` is what the newest version says.
    pub(crate) fn is_known(&self, metadata: &Metadata) -> bool {
        let versions = self.metrics.get(metadata.metric.as_str());
        versions
            .and_then(|v| v.last())
            .is_some_and(|(_, newest)| newest.is(metadata))
    }

    /// Whether there is room for this metric.
    pub(crate) fn has_room_for(&self, metric: &str) -> bool {
        self.metrics.len() < METADATA_METRICS_MAX || self.metrics.contains_key(metric)
    }

    /// Adds a version.
    pub(crate) fn apply(&mut self, lsn: Lsn, metadata: &Metadata, floor: Lsn) {
        if self.is_known(metadata) {
            return;
        }
        if !self.metrics.contains_key(metadata.metric.as_str()) {
            self.text_bytes += metadata.metric.len();
        }
        let described = Described {
            kind: metadata.kind,
            unit: metadata.unit.as_str().into(),
            help: metadata.help.as_str().into(),
        };
        self.text_bytes += described.text_bytes();
        let versions = self
            .metrics
            .entry(metadata.metric.as_str().into())
            .or_default();
        versions.push((lsn, described));
        let seen_by_floor = versions.partition_point(|(lsn, _)| *lsn <= floor);
        for (_, old) in versions.drain(..seen_by_floor.saturating_sub(1)) {
            self.text_bytes -= old.text_bytes();
        }
    }

    /// What the snapshot `at` sees of one metric or of all, by rising name.
    pub(crate) fn at(&self, at: Lsn, metric: Option<&str>) -> Vec<Metadata> {
        let seen = |name: &str, versions: &[(Lsn, Described)]| {
            let end = versions.partition_point(|(lsn, _)| *lsn <= at);
            let (_, described) = versions.get(end.checked_sub(1)?)?;
            Some(described.of(name))
        };
        match metric {
            Some(name) => {
                let versions = self.metrics.get(name);
                versions
                    .and_then(|versions| seen(name, versions))
                    .into_iter()
                    .collect()
            }
            None => self
                .metrics
                .iter()
                .filter_map(|(n, versions)| seen(n, versions))
                .collect(),
        }
    }

    /// What came in the records after `after` up to `up_to` and was not replaced in them, by rising
    /// name. What a record after `up_to` replaced may be left out: that record says more.
    pub(crate) fn between(&self, after: Lsn, up_to: Lsn) -> impl Iterator<Item = (Lsn, Metadata)> {
        self.metrics.iter().filter_map(move |(name, versions)| {
            let end = versions.partition_point(|(lsn, _)| *lsn <= up_to);
            let (lsn, described) = versions.get(end.checked_sub(1)?)?;
            (*lsn > after).then(|| (*lsn, described.of(name)))
        })
    }

    /// Bytes held, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        // Key, version list with one version, and the tree's own share.
        self.metrics.len() * 128 + self.text_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(help: &str) -> Metadata {
        Metadata {
            metric: "m".into(),
            kind: MetricKind::Gauge,
            unit: String::new(),
            help: help.into(),
        }
    }

    #[test]
    fn a_snapshot_sees_the_version_of_its_time() {
        let mut store = MetadataStore::default();
        store.apply(Lsn(2), &gauge("old"), Lsn(1));
        store.apply(Lsn(5), &gauge("new"), Lsn(3));
        assert!(store.at(Lsn(1), None).is_empty());
        assert_eq!(store.at(Lsn(4), Some("m")), [gauge("old")]);
        assert_eq!(store.at(Lsn(5), None), [gauge("new")]);
        assert!(store.at(Lsn(9), Some("other")).is_empty());
        store.apply(Lsn(9), &gauge("newest"), Lsn(8));
        assert!(
            store.at(Lsn(4), None).is_empty(),
            "no snapshot below the floor is served"
        );
        assert_eq!(store.at(Lsn(8), None), [gauge("new")]);
    }

    #[test]
    fn a_repeat_is_known() {
        let mut store = MetadataStore::default();
        store.apply(Lsn(2), &gauge("x"), Lsn(1));
        assert!(store.is_known(&gauge("x")) && !store.is_known(&gauge("y")));
    }
}
