//! The node's own counters, and their Prometheus text form (version 0.0.4) for `/metrics`.
//!
//! Counters only rise while the process lives. `docs/operations.md` explains each name. Labels come
//! from closed sets (protocol, reason, code, holder), so the exposition is bounded.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use rootline_engine::{Engine, Holder, Rejections, WriteOutcome};

use crate::{
    node::{NodeState, Phase},
    refusal::{Refusal, RefusalKind},
};

/// Upper bounds of the write duration histogram, in microseconds.
const DURATION_BOUNDS_US: [u64; 12] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000,
];

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Protocol {
    /// Prometheus remote write.
    RemoteWrite,
    /// OTLP over gRPC.
    OtlpGrpc,
    /// OTLP over HTTP.
    OtlpHttp,
    /// `rootline.v1` over gRPC.
    Api,
    /// Everything else on the HTTP port.
    Http,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::RemoteWrite,
        Self::OtlpGrpc,
        Self::OtlpHttp,
        Self::Api,
        Self::Http,
    ];

    /// The value of the `protocol` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RemoteWrite => "remote_write",
            Self::OtlpGrpc => "otlp_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::Api => "api",
            Self::Http => "http",
        }
    }
}

#[derive(Debug, Default)]
struct ProtocolCounters {
    samples_stored: AtomicU64,
    spans_stored: AtomicU64,
    samples_rejected: AtomicU64,
    spans_rejected: AtomicU64,
    exemplars_rejected: AtomicU64,
    metadata_rejected: AtomicU64,
    wire_bytes: AtomicU64,
    decoded_bytes: AtomicU64,
    refused: [AtomicU64; RefusalKind::ALL.len()],
    write_durations: [AtomicU64; DURATION_BOUNDS_US.len() + 1],
    write_duration_us: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct QueryCounters {
    answered: u64,
    failed: u64,
    duration: Duration,
}

/// All counters of a node.
#[derive(Debug, Default)]
pub struct SelfMetrics {
    protocols: [ProtocolCounters; Protocol::ALL.len()],
    /// Requests by protocol and status code (HTTP's, or gRPC's for calls).
    requests: Mutex<BTreeMap<(Protocol, i32), u64>>,
    queries: Mutex<BTreeMap<&'static str, QueryCounters>>,
    collisions: AtomicU64,
    connections: AtomicI64,
    connections_total: AtomicU64,
}

impl SelfMetrics {
    fn of(&self, protocol: Protocol) -> &ProtocolCounters {
        let [remote_write, otlp_grpc, otlp_http, api, http] = &self.protocols;
        match protocol {
            Protocol::RemoteWrite => remote_write,
            Protocol::OtlpGrpc => otlp_grpc,
            Protocol::OtlpHttp => otlp_http,
            Protocol::Api => api,
            Protocol::Http => http,
        }
    }

    /// Counts a stored write.
    pub fn written(
        &self,
        protocol: Protocol,
        outcome: &WriteOutcome,
        wire_bytes: u64,
        decoded_bytes: u64,
        elapsed: Duration,
    ) {
        let counters = self.of(protocol);
        counters.samples_stored.fetch_add(outcome.samples, Relaxed);
        counters.spans_stored.fetch_add(outcome.spans, Relaxed);
        counters.wire_bytes.fetch_add(wire_bytes, Relaxed);
        counters.decoded_bytes.fetch_add(decoded_bytes, Relaxed);
        self.rejected(protocol, &outcome.rejections);
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_US.partition_point(|&bound| bound < us);
        if let Some(bucket) = counters.write_durations.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        counters.write_duration_us.fetch_add(us, Relaxed);
    }

    fn rejected(&self, protocol: Protocol, rejections: &Rejections) {
        let counters = self.of(protocol);
        counters
            .samples_rejected
            .fetch_add(rejections.samples, Relaxed);
        counters.spans_rejected.fetch_add(rejections.spans, Relaxed);
        counters
            .exemplars_rejected
            .fetch_add(rejections.exemplars, Relaxed);
        counters
            .metadata_rejected
            .fetch_add(rejections.metadata, Relaxed);
    }

    /// Counts a request that was refused as a whole.
    pub fn refused(&self, protocol: Protocol, refusal: &Refusal) {
        let kind = RefusalKind::ALL
            .iter()
            .position(|&kind| kind == refusal.kind());
        if let Some(counter) = kind.and_then(|kind| self.of(protocol).refused.get(kind)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Counts an answered request by its HTTP status, or by its gRPC code for calls.
    pub fn answered(&self, protocol: Protocol, code: i32) {
        *self.requests.lock().entry((protocol, code)).or_default() += 1;
    }

    /// Counts a query that ended.
    pub fn queried(&self, kind: &'static str, succeeded: bool, elapsed: Duration) {
        let mut queries = self.queries.lock();
        let counters = queries.entry(kind).or_default();
        counters.answered += u64::from(succeeded);
        counters.failed += u64::from(!succeeded);
        counters.duration += elapsed;
    }

    /// Counts points of different OTLP streams that became one series and time.
    pub fn collided(&self, points: u64) {
        self.collisions.fetch_add(points, Relaxed);
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connection_opened(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connections_total.fetch_add(1, Relaxed);
    }

    /// The other end of [`connection_opened`](Self::connection_opened).
    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

/// One of a protocol's counters.
type Get = fn(&ProtocolCounters) -> &AtomicU64;

/// The text form of everything that `state` counts.
pub fn render(state: &NodeState) -> String {
    let mut text = Exposition::default();
    let metrics = state.metrics();
    text.family("rootline_build_info", "gauge", "The running release.");
    text.line(
        "rootline_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    text.family(
        "rootline_ready",
        "gauge",
        "1 while reads and writes are served.",
    );
    text.line(
        "rootline_ready",
        &[],
        u64::from(state.phase() == Phase::Ready),
    );
    let progress = state.progress();
    text.family(
        "rootline_replay_records_total",
        "counter",
        "Log records replayed at start.",
    );
    text.line("rootline_replay_records_total", &[], progress.records());
    text.family(
        "rootline_replay_bytes_total",
        "counter",
        "Log bytes replayed at start.",
    );
    text.line("rootline_replay_bytes_total", &[], progress.bytes());

    let by_protocol: [(&str, &str, Get); 8] = [
        ("rootline_samples_stored_total", "Samples stored.", |c| {
            &c.samples_stored
        }),
        ("rootline_spans_stored_total", "Spans stored.", |c| {
            &c.spans_stored
        }),
        (
            "rootline_samples_rejected_total",
            "Samples refused item by item.",
            |c| &c.samples_rejected,
        ),
        (
            "rootline_spans_rejected_total",
            "Spans refused item by item.",
            |c| &c.spans_rejected,
        ),
        (
            "rootline_exemplars_rejected_total",
            "Exemplars refused item by item.",
            |c| &c.exemplars_rejected,
        ),
        (
            "rootline_metadata_rejected_total",
            "Metadata entries refused item by item.",
            |c| &c.metadata_rejected,
        ),
        (
            "rootline_received_bytes_total",
            "Bytes of stored writes as received.",
            |c| &c.wire_bytes,
        ),
        (
            "rootline_decoded_bytes_total",
            "Bytes of stored writes after decompression.",
            |c| &c.decoded_bytes,
        ),
    ];
    for (name, help, get) in by_protocol {
        text.family(name, "counter", help);
        for protocol in Protocol::ALL {
            let value = get(metrics.of(protocol)).load(Relaxed);
            text.line(name, &[("protocol", protocol.as_str())], value);
        }
    }
    let name = "rootline_refused_requests_total";
    text.family(name, "counter", "Requests refused as a whole, by reason.");
    for protocol in Protocol::ALL {
        for (kind, counter) in RefusalKind::ALL.iter().zip(&metrics.of(protocol).refused) {
            let value = counter.load(Relaxed);
            if value > 0 {
                let labels = [("protocol", protocol.as_str()), ("reason", kind.as_str())];
                text.line(name, &labels, value);
            }
        }
    }
    let name = "rootline_requests_total";
    text.family(
        name,
        "counter",
        "Requests answered, by HTTP status or gRPC code.",
    );
    for ((protocol, code), value) in &*metrics.requests.lock() {
        let code = code.to_string();
        text.line(
            name,
            &[("protocol", protocol.as_str()), ("code", &code)],
            *value,
        );
    }
    write_durations(&mut text, metrics);
    let queries = metrics.queries.lock().clone();
    text.family(
        "rootline_queries_total",
        "counter",
        "Queries ended, by kind and result.",
    );
    for (kind, counters) in &queries {
        let name = "rootline_queries_total";
        text.line(name, &[("kind", kind), ("result", "ok")], counters.answered);
        text.line(
            name,
            &[("kind", kind), ("result", "error")],
            counters.failed,
        );
    }
    text.family(
        "rootline_query_seconds_total",
        "counter",
        "Time spent in queries, by kind.",
    );
    for (kind, counters) in &queries {
        let seconds = counters.duration.as_secs_f64();
        text.line("rootline_query_seconds_total", &[("kind", kind)], seconds);
    }
    let name = "rootline_otlp_collisions_total";
    text.family(
        name,
        "counter",
        "Points of different OTLP streams that became one series and time.",
    );
    text.line(name, &[], metrics.collisions.load(Relaxed));
    text.family("rootline_connections", "gauge", "Open connections.");
    text.line(
        "rootline_connections",
        &[],
        metrics.connections.load(Relaxed),
    );
    text.family(
        "rootline_connections_total",
        "counter",
        "Connections accepted.",
    );
    text.line(
        "rootline_connections_total",
        &[],
        metrics.connections_total.load(Relaxed),
    );
    if let Some(engine) = state.engine_opened() {
        store(&mut text, engine);
    }
    text.text
}

/// Figures of the store itself.
fn store(text: &mut Exposition, engine: &Engine) {
    let budget = engine.budget();
    text.family("rootline_memory_limit_bytes", "gauge", "The memory budget.");
    text.line("rootline_memory_limit_bytes", &[], budget.limit_bytes());
    text.family(
        "rootline_memory_used_bytes",
        "gauge",
        "The memory budget in use, by holder.",
    );
    for (holder, label) in [
        (Holder::Requests, "requests"),
        (Holder::Log, "log"),
        (Holder::MetricHead, "metric_head"),
        (Holder::SpanHead, "span_head"),
        (Holder::Queries, "queries"),
        (Holder::Buffers, "buffers"),
        (Holder::Blocks, "blocks"),
        (Holder::Sealing, "sealing"),
    ] {
        let value = budget.held_bytes(holder);
        text.line("rootline_memory_used_bytes", &[("holder", label)], value);
    }
    let stats = engine.stats();
    let (metrics, spans, log) = (&stats.metrics, &stats.spans, &stats.log);
    let recovery = &stats.replayed.log;
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        text.family(name, kind, help);
        text.line(name, &[], value);
    };
    one(
        "rootline_series",
        "gauge",
        "Series in memory.",
        metrics.series,
    );
    one(
        "rootline_samples",
        "gauge",
        "Samples in memory.",
        metrics.samples,
    );
    one(
        "rootline_side_samples",
        "gauge",
        "Samples out of order or rewritten.",
        metrics.side_samples,
    );
    one(
        "rootline_chunks",
        "gauge",
        "Chunks in memory.",
        metrics.chunks,
    );
    one(
        "rootline_exemplars",
        "gauge",
        "Exemplars in memory.",
        metrics.exemplars,
    );
    one(
        "rootline_frozen_generations",
        "gauge",
        "Generations of samples that wait to be sealed or are being sealed.",
        stats.frozen_generations,
    );
    one("rootline_blocks", "gauge", "Blocks.", stats.blocks);
    one(
        "rootline_block_series",
        "gauge",
        "Series in blocks, counted once for each block.",
        stats.block_series,
    );
    one(
        "rootline_block_samples",
        "gauge",
        "Samples in blocks.",
        stats.block_samples,
    );
    one(
        "rootline_block_bytes",
        "gauge",
        "Bytes of block files.",
        stats.block_bytes,
    );
    one(
        "rootline_manifest_bytes",
        "gauge",
        "Bytes of the manifest.",
        stats.manifest_bytes,
    );
    one(
        "rootline_tombstones",
        "gauge",
        "Deletes that some block does not have applied yet.",
        stats.tombstones,
    );
    one(
        "rootline_seals_total",
        "counter",
        "Generations sealed.",
        stats.seals.seals,
    );
    one(
        "rootline_seal_failures_total",
        "counter",
        "Tries to seal that failed; what they wanted to seal stays in memory and in the log.",
        stats.seals.failures,
    );
    one(
        "rootline_sealed_samples_total",
        "counter",
        "Samples sealed.",
        stats.seals.written.samples,
    );
    one(
        "rootline_sealed_bytes_total",
        "counter",
        "Bytes of blocks that sealing wrote.",
        stats.seals.written.bytes,
    );
    let merges = &stats.compactions;
    one(
        "rootline_compactions_total",
        "counter",
        "Merges of blocks.",
        merges.done.merges,
    );
    one(
        "rootline_compacted_blocks_total",
        "counter",
        "Blocks that merging replaced.",
        merges.done.blocks_before,
    );
    one(
        "rootline_compaction_read_bytes_total",
        "counter",
        "Bytes of blocks that merging replaced.",
        merges.done.bytes_before,
    );
    one(
        "rootline_compaction_written_bytes_total",
        "counter",
        "Bytes of blocks that merging wrote.",
        merges.done.bytes_after,
    );
    one(
        "rootline_compaction_failing",
        "gauge",
        "1 if the last try to merge failed; the log says why.",
        u64::from(merges.last_error.is_some()),
    );
    one(
        "rootline_retired_blocks_total",
        "counter",
        "Blocks that retention dropped.",
        merges.retired_blocks,
    );
    one(
        "rootline_retired_bytes_total",
        "counter",
        "Bytes of blocks that retention dropped.",
        merges.retired_bytes,
    );
    one(
        "rootline_retention_paused",
        "gauge",
        "1 while retention waits because the wall clock jumped ahead.",
        u64::from(merges.retention_paused),
    );
    one(
        "rootline_scrubs_total",
        "counter",
        "Times that all blocks were read and verified.",
        merges.scrubs,
    );
    one(
        "rootline_scrubbed_bytes_total",
        "counter",
        "Bytes that the scrub read.",
        merges.scrubbed_bytes,
    );
    one(
        "rootline_sealed_lsn",
        "gauge",
        "Every sample up to this batch is in blocks.",
        stats.metric_cut.0,
    );
    one(
        "rootline_read_only",
        "gauge",
        "1 if the store takes no writes: the manifest is damaged or a sync failed.",
        u64::from(stats.read_only.is_some() || log.poisoned),
    );
    // Until the disk was looked at, nothing is known.
    if stats.disk_free_bytes < u64::MAX {
        one(
            "rootline_disk_free_bytes",
            "gauge",
            "Free bytes of the disk that holds the data directory.",
            stats.disk_free_bytes,
        );
    }
    one(
        "rootline_disk_reserve_bytes",
        "gauge",
        "Bytes set aside on disk for sealing and deletes.",
        stats.disk_reserve_bytes,
    );
    one(
        "rootline_disk_low",
        "gauge",
        "1 while writes are refused because room on disk is short.",
        u64::from(stats.disk_is_low),
    );
    one(
        "rootline_damages",
        "gauge",
        "Damaged places found in blocks and the manifest, at start or since.",
        stats.damage.len() as u64,
    );
    one(
        "rootline_block_spans",
        "gauge",
        "Spans in blocks, with those that later blocks or deletes hide.",
        stats.block_spans,
    );
    one("rootline_spans", "gauge", "Spans in memory.", spans.spans);
    one(
        "rootline_traces",
        "gauge",
        "Traces in memory.",
        spans.traces,
    );
    one(
        "rootline_span_tags",
        "gauge",
        "Distinct tags of spans.",
        spans.tags,
    );
    one(
        "rootline_visible_lsn",
        "gauge",
        "Last batch that readers see.",
        stats.visible_lsn.0,
    );
    one(
        "rootline_durable_lsn",
        "gauge",
        "Last batch that is synced.",
        stats.durable_lsn.0,
    );
    one(
        "rootline_log_disk_bytes",
        "gauge",
        "Bytes of log files.",
        log.disk_bytes,
    );
    one("rootline_log_segments", "gauge", "Log files.", log.segments);
    one(
        "rootline_log_records_total",
        "counter",
        "Records appended.",
        log.records,
    );
    one(
        "rootline_log_record_bytes_total",
        "counter",
        "Bytes of records.",
        log.record_bytes,
    );
    one(
        "rootline_log_written_bytes_total",
        "counter",
        "Bytes written to the log.",
        log.written_bytes,
    );
    one(
        "rootline_log_syncs_total",
        "counter",
        "Group commits, idle markers among them.",
        log.groups + log.markers,
    );
    one(
        "rootline_log_disk_full_total",
        "counter",
        "Appends refused for want of disk.",
        log.disk_full,
    );
    one(
        "rootline_log_unsynced_bytes",
        "gauge",
        "Bytes that wait for a sync.",
        log.unsynced_bytes,
    );
    one(
        "rootline_log_poisoned",
        "gauge",
        "1 after a failed sync: writes are refused until a restart.",
        u64::from(log.poisoned),
    );
    one(
        "rootline_recovery_torn_bytes",
        "gauge",
        "Unacknowledged bytes cut off at start.",
        recovery.torn_bytes,
    );
    one(
        "rootline_recovery_damages",
        "gauge",
        "Damaged places found in the log at start.",
        recovery.corrupt.len() as u64,
    );
    one(
        "rootline_recovery_orphaned_samples",
        "gauge",
        "Samples lost at start because their series was defined in damaged records.",
        stats.replayed.orphaned_samples,
    );
    if let Some(floor) = stats.retention_floor {
        let name = "rootline_retention_floor_seconds";
        text.family(
            name,
            "gauge",
            "Oldest time that is kept, seconds since 1970.",
        );
        text.line(name, &[], floor.as_nanos() as f64 / 1e9);
    }
    let name = "rootline_compaction_last_seconds";
    text.family(name, "gauge", "Duration of the last merge.");
    text.line(name, &[], merges.last.as_secs_f64());
    let name = "rootline_seal_last_seconds";
    text.family(name, "gauge", "Duration of the last sealing.");
    text.line(name, &[], stats.seals.last.as_secs_f64());
    let name = "rootline_log_sync_seconds_total";
    text.family(name, "counter", "Time spent in syncs of the log.");
    text.line(name, &[], log.sync_total.as_secs_f64());
    let name = "rootline_log_sync_last_seconds";
    text.family(name, "gauge", "Duration of the last sync of the log.");
    text.line(name, &[], log.sync_last.as_secs_f64());
}

fn write_durations(text: &mut Exposition, metrics: &SelfMetrics) {
    let name = "rootline_write_duration_seconds";
    text.family(
        name,
        "histogram",
        "From decompression to durable and visible.",
    );
    for protocol in Protocol::ALL {
        let counters = metrics.of(protocol);
        let label = ("protocol", protocol.as_str());
        let mut total = 0;
        let bounds = DURATION_BOUNDS_US
            .iter()
            .map(|&us| (us as f64 / 1e6).to_string());
        let bounds = bounds.chain(["+Inf".to_owned()]);
        for (counter, bound) in counters.write_durations.iter().zip(bounds) {
            total += counter.load(Relaxed);
            text.line(&format!("{name}_bucket"), &[label, ("le", &bound)], total);
        }
        let seconds = counters.write_duration_us.load(Relaxed) as f64 / 1e6;
        text.line(&format!("{name}_sum"), &[label], seconds);
        text.line(&format!("{name}_count"), &[label], total);
    }
}

/// Prometheus text being written.
#[derive(Debug, Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(name);
        for (i, (label, value)) in labels.iter().enumerate() {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let open = if i == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{value}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_in_the_count() {
        let metrics = SelfMetrics::default();
        let outcome = WriteOutcome {
            samples: 3,
            ..WriteOutcome::default()
        };
        for us in [100, 700, 9_000_000] {
            metrics.written(
                Protocol::RemoteWrite,
                &outcome,
                1,
                2,
                Duration::from_micros(us),
            );
        }
        let mut text = Exposition::default();
        write_durations(&mut text, &metrics);
        let expect = |line: &str| assert!(text.text.lines().any(|l| l == line), "{line}");
        let name = "rootline_write_duration_seconds";
        expect(&format!(
            "{name}_bucket{{protocol=\"remote_write\",le=\"0.00025\"}} 1"
        ));
        expect(&format!(
            "{name}_bucket{{protocol=\"remote_write\",le=\"0.001\"}} 2"
        ));
        expect(&format!(
            "{name}_bucket{{protocol=\"remote_write\",le=\"+Inf\"}} 3"
        ));
        expect(&format!("{name}_count{{protocol=\"remote_write\"}} 3"));
    }

    #[test]
    fn label_values_are_escaped() {
        let mut text = Exposition::default();
        text.line("x", &[("a", "q\"\\\n")], 1);
        assert_eq!(text.text, "x{a=\"q\\\"\\\\\\n\"} 1\n");
    }
}
