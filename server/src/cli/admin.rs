//! `rootline admin`: looking after a node.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    ask::{Failure, NodeArgs, RangeArgs, ask, end, json_text},
    query::{selector, trace_id},
    show::{Align, Table, Terminal, bytes, count},
};
use crate::client::v1;

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
    /// Seal what is in memory into blocks (not in this release)
    Flush,
    /// What the node holds
    Stats,
    /// Delete the samples of series, in a range that has to be given
    DeleteSeries(DeleteSeriesArgs),
    /// Delete the spans of a trace
    DeleteTrace(DeleteTraceArgs),
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

/// Does what this command line says.
pub(crate) fn run(args: AdminArgs) -> ExitCode {
    let AdminArgs { node, action } = args;
    let json = node.json;
    match action {
        Action::Flush => ask(&node, async |client| {
            client.flush().await?;
            Ok(if json {
                json_text(&json!({}))
            } else {
                "flushed\n".to_owned()
            })
        }),
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

fn stats_json(stats: &v1::StatsResponse) -> String {
    let memory: serde_json::Map<String, serde_json::Value> = stats
        .memory
        .iter()
        .map(|m| (m.holder.clone(), m.bytes.into()))
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
    }))
}

fn stats_text(stats: &v1::StatsResponse, terminal: Terminal) -> String {
    let mut table = Table::new(&[("what", Align::Left), ("value", Align::Right)]);
    let mut row = |what: &str, value: String| table.row([what.to_owned(), value]);
    row("version", stats.version.clone());
    row("series", count(stats.series));
    row("samples", count(stats.samples));
    row("spans", count(stats.spans));
    row("traces", count(stats.traces));
    row("visible lsn", count(stats.visible_lsn));
    row("durable lsn", count(stats.durable_lsn));
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
    table.render(terminal)
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
        assert!(text.contains("series                 4,000\n"), "{text}");
        assert!(text.contains("memory of span head    512 B\n"), "{text}");
    }
}
