//! `rootline admin`: looking after a node.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use rootline_engine::{Clock as _, SystemClock};
use serde_json::json;

use super::{
    ask::{Failure, NodeArgs, RangeArgs, ask, end, info_json, json_text},
    query::{ConditionArgs, LabelsArgs, query_labels, selector, trace_id},
    show::{Align, Table, Terminal, bytes, count, duration, number, plain, rfc3339},
};
use crate::{api::upkeep::flushed_json, client::v1};

/// Look after a node.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Seal the samples and spans that are in memory into blocks
    Flush,
    /// Merge blocks until nothing is left to merge
    Compact,
    /// Copy the store, as it is now, to a directory that shares its blocks
    Snapshot(SnapshotArgs),
    /// What the node holds
    Stats,
    /// Where series come from: by metric name, label or label value, the largest first
    Cardinality(CardinalityArgs),
    /// Label names, or the values of one label; the same as `rootline query labels`
    #[command(visible_alias = "label-values")]
    Labels(LabelsArgs),
    /// Delete the samples of series, in a range that has to be given
    DeleteSeries(DeleteSeriesArgs),
    /// Delete the spans of a trace
    DeleteTrace(DeleteTraceArgs),
    /// Delete spans that meet all conditions, in a range that has to be given
    DeleteSpans(DeleteSpansArgs),
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("bounds").required(true).multiple(true)
    .args(["from", "to", "since", "all_time"]))]
struct DeleteSeriesArgs {
    /// Which series: name{label="value",other=~"pattern"}
    selector: String,
    #[command(flatten)]
    range: RangeArgs,
}

#[derive(Debug, Args)]
struct DeleteTraceArgs {
    /// 32 hexadecimal digits
    trace_id: String,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("span_bounds").required(true).multiple(true)
    .args(["from", "to", "since", "all_time"]))]
struct DeleteSpansArgs {
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten)]
    range: RangeArgs,
}

#[derive(Debug, Args)]
struct SnapshotArgs {
    /// Name of its directory in `snapshots` below the data directory; the time of day if not given
    name: Option<String>,
}

#[derive(Debug, Args)]
struct CardinalityArgs {
    /// What series are counted by
    #[arg(long, value_enum, default_value_t = By::Name)]
    by: By,
    /// Count by the values of this label instead of the metric name
    #[arg(long, value_name = "NAME", conflicts_with = "by")]
    of: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// Metric names
    Name,
    /// Label names
    Label,
    /// Labels with their values
    Pair,
}

/// Does what this command line says.
pub(crate) fn run(args: AdminArgs) -> ExitCode {
    let AdminArgs { node, action } = args;
    let json = node.json;
    match action {
        Action::Flush => ask(&node, async |client| {
            let flushed = client.flush().await?;
            Ok(if json {
                json_text(&flushed_json(&flushed))
            } else {
                flushed_text(&flushed)
            })
        }),
        Action::Compact => ask(&node, async |client| {
            let compacted = client.compact().await?;
            Ok(if json {
                json_text(&compacted_json(&compacted))
            } else {
                compacted_text(&compacted)
            })
        }),
        Action::Snapshot(args) => ask(&node, async |client| {
            let name = args
                .name
                .unwrap_or_else(|| snapshot_name(SystemClock::new().wall_ns()));
            let created = client.create_snapshot(&name).await?;
            Ok(if json {
                json_text(&created_json(&created))
            } else {
                created_text(&created)
            })
        }),
        Action::Cardinality(args) => ask(&node, async |client| {
            let request = v1::CardinalityRequest {
                by: args.by.message().into(),
                limit: args.limit,
                label: args.of.unwrap_or_default(),
            };
            let answer = client.cardinality(request).await?;
            Ok(if json {
                cardinality_json(&answer)
            } else {
                cardinality_text(&answer, args.by, Terminal::of_stdout())
            })
        }),
        Action::Labels(args) => query_labels(&node, args),
        Action::Stats => ask(&node, async |client| {
            let stats = client.stats().await?;
            Ok(if json {
                stats_json(&stats)
            } else {
                stats_text(&stats, Terminal::of_stdout())
            })
        }),
        Action::DeleteSeries(args) => match args.request() {
            Ok(request) => ask(&node, async |client| {
                let lsn = client.delete_series(request).await?;
                Ok(deleted(
                    "samples older than this delete are hidden",
                    lsn,
                    json,
                ))
            }),
            Err(failure) => end(Err(failure)),
        },
        Action::DeleteTrace(args) => match trace_id(&args.trace_id) {
            Ok(id) => ask(&node, async |client| {
                let lsn = client.delete_trace(&id.to_string()).await?;
                Ok(deleted(
                    "spans of the trace older than this delete are hidden",
                    lsn,
                    json,
                ))
            }),
            Err(failure) => end(Err(failure)),
        },
        Action::DeleteSpans(args) => match args.request() {
            Ok(request) => ask(&node, async |client| {
                let lsn = client.delete_spans(request).await?;
                Ok(deleted(
                    "spans that meet the conditions and are older than this delete are hidden",
                    lsn,
                    json,
                ))
            }),
            Err(failure) => end(Err(failure)),
        },
    }
}

impl DeleteSpansArgs {
    fn request(&self) -> Result<v1::DeleteSpansRequest, Failure> {
        if self.conditions.is_empty() {
            return Err(Failure::Usage(
                "say which spans: --service, --operation, --tag, --status, --kind, --min-duration, \
                 --max-duration"
                    .to_owned(),
            ));
        }
        Ok(v1::DeleteSpansRequest {
            conditions: Some(self.conditions.message()?),
            range: Some(self.range.range()?.message),
        })
    }
}

impl DeleteSeriesArgs {
    fn request(&self) -> Result<v1::DeleteSeriesRequest, Failure> {
        Ok(v1::DeleteSeriesRequest {
            series: Some(selector(&self.selector, true)?),
            range: Some(self.range.range()?.message),
        })
    }
}

fn deleted(what: &str, lsn: u64, json: bool) -> String {
    if json {
        json_text(&json!({ "lsn": lsn }))
    } else {
        format!("{what} (lsn {lsn})\n")
    }
}

impl By {
    fn message(self) -> v1::cardinality_request::By {
        match self {
            Self::Name => v1::cardinality_request::By::Name,
            Self::Label => v1::cardinality_request::By::Label,
            Self::Pair => v1::cardinality_request::By::Pair,
        }
    }
}

fn flushed_text(flushed: &v1::FlushResponse) -> String {
    let spans = if flushed.spans_in_memory > 0 {
        format!(
            "; {} spans stay in memory and in the log",
            count(flushed.spans_in_memory)
        )
    } else {
        String::new()
    };
    if flushed.blocks == 0 {
        return format!("nothing to seal (lsn {}){spans}\n", flushed.lsn);
    }
    format!(
        "sealed {} samples and {} spans into {} blocks of {} (lsn {}){spans}\n",
        count(flushed.samples),
        count(flushed.spans),
        count(flushed.blocks),
        bytes(flushed.bytes),
        flushed.lsn,
    )
}

fn compacted_json(compacted: &v1::CompactResponse) -> serde_json::Value {
    json!({
        "merges": compacted.merges,
        "blocks_before": compacted.blocks_before,
        "blocks_after": compacted.blocks_after,
        "bytes_before": compacted.bytes_before,
        "bytes_after": compacted.bytes_after,
    })
}

fn compacted_text(compacted: &v1::CompactResponse) -> String {
    if compacted.merges == 0 {
        return "nothing to merge\n".to_owned();
    }
    format!(
        "merged {} blocks of {} into {} of {} ({} merges)\n",
        count(compacted.blocks_before),
        bytes(compacted.bytes_before),
        count(compacted.blocks_after),
        bytes(compacted.bytes_after),
        count(compacted.merges),
    )
}

fn created_json(created: &v1::CreateSnapshotResponse) -> serde_json::Value {
    json!({
        "path": created.path,
        "blocks": created.blocks,
        "linked_bytes": created.linked_bytes,
        "copied_bytes": created.copied_bytes,
    })
}

fn created_text(created: &v1::CreateSnapshotResponse) -> String {
    format!(
        "{}: {} blocks, {} linked, {} copied\n",
        plain(&created.path),
        count(created.blocks),
        bytes(created.linked_bytes),
        bytes(created.copied_bytes),
    )
}

/// A moment as a name that sorts by time: `20260823T120000Z`.
fn snapshot_name(now_ns: i64) -> String {
    let text = rfc3339(now_ns);
    let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
    seconds.replace(['-', ':'], "") + "Z"
}

fn cardinality_json(answer: &v1::CardinalityResponse) -> String {
    let entries: Vec<serde_json::Value> = answer
        .entries
        .iter()
        .map(|entry| {
            json!({
                "name": entry.name,
                "value": entry.value,
                "series": entry.series,
                "bytes": entry.bytes,
                "values": entry.values,
            })
        })
        .collect();
    json_text(&json!({
        "entries": entries,
        "series": answer.series,
        "info": info_json(answer.info.as_ref()),
    }))
}

fn cardinality_text(answer: &v1::CardinalityResponse, by: By, terminal: Terminal) -> String {
    let mut columns = match by {
        By::Name => vec![("value", Align::Left)],
        By::Label => vec![("label", Align::Left), ("values", Align::Right)],
        By::Pair => vec![("label", Align::Left), ("value", Align::Left)],
    };
    columns.extend([("series", Align::Right), ("bytes", Align::Right)]);
    let mut table = Table::new(&columns);
    for entry in &answer.entries {
        let cells = match by {
            By::Name => vec![entry.value.clone()],
            By::Label => vec![entry.name.clone(), count(entry.values)],
            By::Pair => vec![entry.name.clone(), entry.value.clone()],
        };
        table.row(
            cells
                .into_iter()
                .chain([count(entry.series), bytes(entry.bytes)]),
        );
    }
    let mut text = table.render(terminal);
    let info = answer.info.clone().unwrap_or_default();
    let at_most = if info.exact { "" } else { "at most " };
    let more = if info.truncated {
        "; there are more, see --limit"
    } else {
        ""
    };
    let line = format!("{at_most}{} series{more}", count(answer.series));
    text.push_str(&terminal.faint(&line));
    text.push('\n');
    text
}

fn work_json(work: Option<&v1::WorkStats>) -> serde_json::Value {
    let work = work.cloned().unwrap_or_default();
    json!({
        "count": work.count,
        "bytes_written": work.bytes_written,
        "last_duration_ns": work.last_duration_ns,
        "last_error": work.last_error,
    })
}

fn stats_json(stats: &v1::StatsResponse) -> String {
    let memory: serde_json::Map<String, serde_json::Value> = stats
        .memory
        .iter()
        .map(|m| (m.holder.clone(), m.bytes.into()))
        .collect();
    let blocks = stats.blocks.unwrap_or_default();
    let retention = stats.retention.unwrap_or_default();
    let scrub = stats.scrub.unwrap_or_default();
    let damage: Vec<serde_json::Value> = stats
        .damage
        .iter()
        .map(|d| json!({ "file": d.file, "offset_bytes": d.offset_bytes, "reason": d.reason }))
        .collect();
    json_text(&json!({
        "version": stats.version,
        "series": stats.series,
        "samples": stats.samples,
        "spans": stats.spans,
        "traces": stats.traces,
        "visible_lsn": stats.visible_lsn,
        "durable_lsn": stats.durable_lsn,
        "log_bytes": stats.log_bytes,
        "log_segments": stats.log_segments,
        "memory_used_bytes": stats.memory_used_bytes,
        "memory_limit_bytes": stats.memory_limit_bytes,
        "memory_bytes": memory,
        "blocks": {
            "blocks": blocks.blocks,
            "samples": blocks.samples,
            "series": blocks.series,
            "bytes": blocks.bytes,
        },
        "seals": work_json(stats.seals.as_ref()),
        "compactions": work_json(stats.compactions.as_ref()),
        "frozen_generations": stats.frozen_generations,
        "sealed_lsn": stats.sealed_lsn,
        "oldest_unsealed_lsn": stats.oldest_unsealed_lsn,
        "tombstones": stats.tombstones,
        "retention_floor_ns": stats.retention_floor_ns,
        "damage": damage,
        "read_only": stats.read_only,
        "disk_free_bytes": stats.disk_free_bytes,
        "disk_reserve_bytes": stats.disk_reserve_bytes,
        "disk_is_low": stats.disk_is_low,
        "retention": {
            "blocks": retention.blocks,
            "bytes": retention.bytes,
            "paused": retention.paused,
        },
        "scrub": { "count": scrub.count, "bytes": scrub.bytes },
    }))
}

fn stats_text(stats: &v1::StatsResponse, terminal: Terminal) -> String {
    let mut table = Table::new(&[("what", Align::Left), ("value", Align::Right)]);
    let mut row = |what: &str, value: String| table.row([what.to_owned(), value]);
    row("version", stats.version.clone());
    let blocks = stats.blocks.unwrap_or_default();
    row("blocks", count(blocks.blocks));
    row("samples in blocks", count(blocks.samples));
    row("spans in blocks", count(blocks.spans));
    row("blocks on disk", bytes(blocks.bytes));
    let of_samples = blocks.bytes.saturating_sub(blocks.span_bytes);
    for (what, bytes, items) in [
        ("bytes per sample", of_samples, blocks.samples),
        ("bytes per span", blocks.span_bytes, blocks.spans),
    ] {
        if items > 0 {
            row(what, number(bytes as f64 / items as f64));
        }
    }
    row("series in memory", count(stats.series));
    row("samples in memory", count(stats.samples));
    row("spans", count(stats.spans));
    row("traces", count(stats.traces));
    row("visible lsn", count(stats.visible_lsn));
    row("durable lsn", count(stats.durable_lsn));
    row("sealed lsn", count(stats.sealed_lsn));
    work_rows(&mut row, "seals", stats.seals.as_ref());
    work_rows(&mut row, "compactions", stats.compactions.as_ref());
    if let Some(floor_ns) = stats.retention_floor_ns {
        row("kept from", rfc3339(floor_ns));
    }
    if stats.retention.is_some_and(|retention| retention.paused) {
        row("retention", "waits: the clock jumped ahead".to_owned());
    }
    if stats.tombstones > 0 {
        row("deletes not yet applied", count(stats.tombstones));
    }
    if let Some(free_bytes) = stats.disk_free_bytes {
        row("disk free", bytes(free_bytes));
    }
    if stats.disk_is_low {
        row("writes", "refused: the disk is nearly full".to_owned());
    }
    row("log on disk", bytes(stats.log_bytes));
    row("log segments", count(stats.log_segments));
    row("memory used", bytes(stats.memory_used_bytes));
    row("memory limit", bytes(stats.memory_limit_bytes));
    for part in &stats.memory {
        row(
            &format!("memory of {}", part.holder.replace('_', " ")),
            bytes(part.bytes),
        );
    }
    let mut text = table.render(terminal);
    if !stats.read_only.is_empty() {
        let line = plain(&format!("read-only: {}", stats.read_only));
        text.push_str(&terminal.red(&line));
        text.push('\n');
    }
    for damage in &stats.damage {
        let line = format!(
            "damage: {} at byte {}: {}",
            damage.file, damage.offset_bytes, damage.reason
        );
        text.push_str(&terminal.red(&plain(&line)));
        text.push('\n');
    }
    text
}

fn work_rows(row: &mut impl FnMut(&str, String), what: &str, work: Option<&v1::WorkStats>) {
    let work = work.cloned().unwrap_or_default();
    row(what, count(work.count));
    if work.count > 0 {
        row(
            &format!("last of the {what} took"),
            duration(work.last_duration_ns as f64),
        );
    }
    if !work.last_error.is_empty() {
        row(&format!("last of the {what} failed"), work.last_error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_node_are_a_table() {
        let stats = v1::StatsResponse {
            series: 4_000,
            memory_used_bytes: 3 << 20,
            memory: vec![v1::MemoryUse {
                holder: "span_head".into(),
                bytes: 512,
            }],
            version: "0.1.0".into(),
            ..Default::default()
        };
        let text = stats_text(
            &stats,
            Terminal {
                columns: None,
                colours: false,
            },
        );
        assert!(text.contains("series in memory       4,000\n"), "{text}");
        assert!(text.contains("memory of span head    512 B\n"), "{text}");
    }

    #[test]
    fn damage_and_a_store_that_cannot_be_written_are_told() {
        let stats = v1::StatsResponse {
            read_only: "the manifest is damaged".into(),
            damage: vec![v1::Damage {
                file: "d/blocks/block-0000000000000007.rlb".into(),
                offset_bytes: 65_536,
                reason: "checksum\x1b[2J".into(),
            }],
            ..Default::default()
        };
        let plain_text = Terminal {
            columns: None,
            colours: false,
        };
        let text = stats_text(&stats, plain_text);
        assert!(
            text.contains("\nread-only: the manifest is damaged\n"),
            "{text}"
        );
        assert!(
            text.contains("damage: d/blocks/block-0000000000000007.rlb at byte 65536: checksum\\u"),
            "{text}"
        );
    }

    #[test]
    fn a_flush_says_what_it_sealed_and_what_stays() {
        let sealed = v1::FlushResponse {
            lsn: 12,
            blocks: 2,
            samples: 34_560,
            spans: 7,
            bytes: 36_000,
            spans_in_memory: 0,
        };
        assert_eq!(
            flushed_text(&sealed),
            "sealed 34,560 samples and 7 spans into 2 blocks of 35.2 KiB (lsn 12)\n"
        );
        let spans = v1::FlushResponse {
            lsn: 3,
            spans_in_memory: 1_000,
            ..Default::default()
        };
        assert_eq!(
            flushed_text(&spans),
            "nothing to seal (lsn 3); 1,000 spans stay in memory and in the log\n"
        );
    }

    #[test]
    fn a_snapshot_is_called_after_its_moment() {
        assert_eq!(snapshot_name(1_661_256_000_000_000_000), "20220823T120000Z");
        assert_eq!(snapshot_name(1_661_256_000_123_456_789), "20220823T120000Z");
    }

    #[test]
    fn counts_that_are_bounds_say_so() {
        let answer = v1::CardinalityResponse {
            entries: vec![v1::CardinalityEntry {
                name: "job".into(),
                value: "api".into(),
                series: 7,
                bytes: 512,
                values: 1,
            }],
            series: 9,
            info: Some(v1::AnswerInfo {
                exact: false,
                truncated: true,
                ..Default::default()
            }),
        };
        let plain_text = Terminal {
            columns: None,
            colours: false,
        };
        assert_eq!(
            cardinality_text(&answer, By::Pair, plain_text),
            "LABEL  VALUE  SERIES  BYTES\n\
             job    api         7  512 B\n\
             at most 9 series; there are more, see --limit\n"
        );
    }
}
