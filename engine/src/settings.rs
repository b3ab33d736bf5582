//! Numbers an embedder may set; components (storage, clock) enter through [`crate::Builder`].

use std::time::Duration;

use rootline_index::LabelLimits;
use rootline_wal::Durability;

/// Plain data with sane defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// When a write counts as durable. Default: when the log has been synced.
    pub durability: Durability,
    /// Bytes all of the store may hold in memory. Default 1 GiB; the node sets 75 % of the machine.
    pub memory_limit_bytes: u64,
    /// Shards of the metric head. Default 16.
    pub metric_shards: usize,
    /// Shards of the span head. Default: one for each processor, at most 8: a batch looks up each of
    /// its attributes once in every shard it touches, so more than can work at once only cost.
    pub span_shards: usize,
    /// Active series allowed: those written to since the last sealing. Default 50 million, which the memory budget reaches first.
    pub series_max: u64,
    /// Of each value of these labels, active series allowed: `("job", 100_000)` lets one job have so
    /// many. Default none. Series count until their generation is sealed.
    pub series_max_per_label: Vec<(String, u64)>,
    /// Spans of one trace; further ones are refused. Default 2 million.
    pub trace_spans_max: u64,
    /// Limits on label names and values.
    pub labels: LabelLimits,
    /// How long a snapshot may stay open. Default 10 minutes.
    pub snapshot_max_age: Duration,
    /// How long a writer waits for memory before the transient refusal. Default 5 s.
    pub memory_wait: Duration,
    /// Smallest and largest size of a log segment. Default 4 MiB and 64 MiB.
    pub segment_bytes: (u64, u64),
    /// What was not written to for so long is sealed into blocks. Default 5 minutes.
    pub seal_idle: Duration,
    /// Bytes of log beyond which what holds it is sealed: bounds replay. Default 1 GiB.
    pub log_bytes_max: u64,
    /// Whether a thread of the store seals in the background. Default yes. Without it,
    /// [`Engine::tick`](crate::Engine::tick) does what is due.
    pub maintenance_thread: bool,
    /// How long samples are kept. Default: for ever.
    pub retention_age: Option<Duration>,
    /// Bytes of blocks kept, the youngest. Default: all.
    pub retention_bytes: Option<u64>,
    /// Less than this free on disk, and writes are refused: it is kept for sealing and deletes. Default
    /// 64 MiB.
    pub disk_reserve_bytes: u64,
    /// How long after the last time all blocks are read and verified again. Default: a day; none turns
    /// it off.
    pub scrub_interval: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            memory_limit_bytes: 1 << 30,
            metric_shards: 16,
            span_shards: std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(8),
            series_max: 50_000_000,
            series_max_per_label: Vec::new(),
            trace_spans_max: 2_000_000,
            labels: LabelLimits::default(),
            snapshot_max_age: Duration::from_mins(10),
            memory_wait: Duration::from_secs(5),
            segment_bytes: (4 << 20, 64 << 20),
            seal_idle: Duration::from_mins(5),
            log_bytes_max: 1 << 30,
            maintenance_thread: true,
            retention_age: None,
            retention_bytes: None,
            disk_reserve_bytes: 64 << 20,
            scrub_interval: Some(Duration::from_hours(24)),
        }
    }
}
