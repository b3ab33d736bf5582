//! `rootline.v1.Admin`.

use rootline_engine::{EngineStats, SpanFilter, TimeRange, Timestamp};
use tonic::{Request, Response, Status};

use super::{
    query::{Command, Queries, Query},
    request, upkeep, v1,
};
use crate::refusal::Refusal;

#[derive(Debug)]
pub(super) struct AdminService {
    queries: Queries,
}

impl AdminService {
    pub(super) fn new(queries: Queries) -> Self {
        Self { queries }
    }
}

#[tonic::async_trait]
impl v1::admin_server::Admin for AdminService {
    async fn flush(
        &self,
        request: Request<v1::FlushRequest>,
    ) -> Result<Response<v1::FlushResponse>, Status> {
        let (metadata, _, _) = request.into_parts();
        let flush = |command: &mut Command| upkeep::flush(&command.engine);
        self.queries.upkeep("flush", &metadata, flush).await
    }

    async fn compact(
        &self,
        request: Request<v1::CompactRequest>,
    ) -> Result<Response<v1::CompactResponse>, Status> {
        let (metadata, _, _) = request.into_parts();
        let compact = |command: &mut Command| upkeep::compact(&command.engine);
        self.queries.upkeep("compact", &metadata, compact).await
    }

    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let create =
            move |command: &mut Command| upkeep::create_snapshot(&command.engine, &asked.name);
        self.queries
            .upkeep("create_snapshot", &metadata, create)
            .await
    }

    async fn stats(
        &self,
        request: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        let (metadata, _, _) = request.into_parts();
        let answer = |query: &mut Query| {
            let mut answer = stats(&query.engine.stats());
            (answer.spans, answer.traces) = (0, 0);
            // What is hidden does not count, so the parts are asked.
            for part in query.snapshot.span_parts()? {
                let all = SpanFilter::in_range(TimeRange::ALL);
                answer.spans += part.count(&all, &query.control)?;
                answer.traces += part.trace_count(&query.control)?;
            }
            Ok(answer)
        };
        self.queries.unary("stats", &metadata, answer).await
    }

    async fn delete_series(
        &self,
        request: Request<v1::DeleteSeriesRequest>,
    ) -> Result<Response<v1::DeleteSeriesResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let range = request::time_range(asked.range.as_ref())?;
        let delete = move |command: &mut Command| {
            let (control, memory) = (&command.control, &mut command.memory);
            let selector = request::selector(control, memory, asked.series.as_ref())?;
            selector.narrow()?;
            let lsn = command.engine.delete_series(selector.matchers(), range)?;
            Ok(v1::DeleteSeriesResponse { lsn: lsn.0 })
        };
        self.queries
            .command("delete_series", &metadata, delete)
            .await
    }

    async fn delete_trace(
        &self,
        request: Request<v1::DeleteTraceRequest>,
    ) -> Result<Response<v1::DeleteTraceResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let id = request::trace_id(&asked.trace_id)?;
        let delete = move |command: &mut Command| {
            let lsn = command.engine.delete_trace(id)?;
            Ok(v1::DeleteTraceResponse { lsn: lsn.0 })
        };
        self.queries
            .command("delete_trace", &metadata, delete)
            .await
    }

    async fn delete_spans(
        &self,
        request: Request<v1::DeleteSpansRequest>,
    ) -> Result<Response<v1::DeleteSpansResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let range = request::time_range(asked.range.as_ref())?;
        let delete = move |command: &mut Command| {
            let (control, memory) = (&command.control, &mut command.memory);
            let wanted = asked.conditions.as_ref();
            let conditions = request::span_conditions(control, memory, wanted)?;
            let filter = conditions.filter(range)?;
            if filter.conditions.is_empty() {
                return Err(Refusal::invalid(
                    "no condition is set: this would delete every span",
                ));
            }
            let lsn = command.engine.delete_spans(&filter)?;
            Ok(v1::DeleteSpansResponse { lsn: lsn.0 })
        };
        self.queries
            .command("delete_spans", &metadata, delete)
            .await
    }
}

fn stats(stats: &EngineStats) -> v1::StatsResponse {
    let holder = |holder: &str, bytes| v1::MemoryUse {
        holder: holder.to_owned(),
        bytes,
    };
    let merges = &stats.compactions;
    v1::StatsResponse {
        visible_lsn: stats.visible_lsn.0,
        durable_lsn: stats.durable_lsn.0,
        series: stats.metrics.series,
        samples: stats.metrics.samples,
        spans: stats.spans.spans,
        traces: stats.spans.traces,
        memory_used_bytes: stats.memory_used_bytes,
        memory_limit_bytes: stats.memory_limit_bytes,
        memory: vec![
            holder("blocks", stats.memory_blocks_bytes),
            holder("buffers", stats.memory_buffers_bytes),
            holder("log", stats.memory_log_bytes),
            holder("metric_head", stats.memory_metric_head_bytes),
            holder("queries", stats.memory_queries_bytes),
            holder("requests", stats.memory_requests_bytes),
            holder("sealing", stats.memory_sealing_bytes),
            holder("span_head", stats.memory_span_head_bytes),
        ],
        log_bytes: stats.log.disk_bytes,
        log_segments: stats.log.segments,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        blocks: Some(v1::BlockStats {
            blocks: stats.blocks + stats.span_blocks,
            samples: stats.block_samples,
            series: stats.block_series,
            bytes: stats.block_bytes + stats.span_block_bytes,
            span_blocks: stats.span_blocks,
            spans: stats.block_spans,
            traces: stats.block_traces,
            span_bytes: stats.span_block_bytes,
        }),
        seals: Some(v1::WorkStats {
            count: stats.seals.seals,
            bytes_written: stats.seals.written.bytes,
            last_duration_ns: u64::try_from(stats.seals.last.as_nanos()).unwrap_or(u64::MAX),
            last_error: stats.seals.last_error.clone().unwrap_or_default(),
        }),
        compactions: Some(v1::WorkStats {
            count: merges.done.merges,
            bytes_written: merges.done.bytes_after,
            last_duration_ns: u64::try_from(merges.last.as_nanos()).unwrap_or(u64::MAX),
            last_error: merges.last_error.clone().unwrap_or_default(),
        }),
        retention_floor_ns: stats.retention_floor.map(Timestamp::as_nanos),
        retention: Some(v1::RetentionStats {
            blocks: merges.retired_blocks,
            bytes: merges.retired_bytes,
            paused: merges.retention_paused,
        }),
        scrub: Some(v1::ScrubStats {
            count: merges.scrubs,
            bytes: merges.scrubbed_bytes,
        }),
        frozen_generations: stats.frozen_generations + stats.frozen_span_generations,
        sealed_lsn: stats.metric_cut.min(stats.span_cut).0,
        oldest_unsealed_lsn: stats.oldest_unsealed_lsn.map(|lsn| lsn.0),
        tombstones: stats.tombstones + stats.span_tombstones,
        damage: damage(stats),
        read_only: stats.read_only.clone().unwrap_or_default(),
        // Until the disk was looked at, nothing is known.
        disk_free_bytes: (stats.disk_free_bytes < u64::MAX).then_some(stats.disk_free_bytes),
        disk_reserve_bytes: stats.disk_reserve_bytes,
        disk_is_low: stats.disk_is_low,
    }
}

/// Damage of the log as found at start, and of blocks and the manifest as met since.
fn damage(stats: &EngineStats) -> Vec<v1::Damage> {
    let log = stats.replayed.log.corrupt.iter().map(|d| v1::Damage {
        file: d.path.display().to_string(),
        offset_bytes: d.offset_bytes,
        reason: d.reason.to_string(),
    });
    let files = stats.damage.iter().map(|d| v1::Damage {
        file: d.path.display().to_string(),
        offset_bytes: d.offset_bytes,
        reason: d.reason.clone(),
    });
    log.chain(files).collect()
}
