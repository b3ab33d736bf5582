//! `rootline inspect`: what a data directory holds, without opening the store.

use std::{fmt::Write as _, path::PathBuf, sync::Arc};

use clap::Args;
use rootline_engine::{
    FsStorage, Storage,
    inspect::{BlockReport, BlockValues, Inspected, inspect, values},
};
use serde_json::{Value, json};

use super::{Answer, EXIT_DAMAGE, EXIT_WELL};
use crate::{
    cli::{
        ask::json_text,
        show::{Align, Table, Terminal, bytes, count, number, plain, rfc3339, span_of_time},
    },
    send::error_chain,
};

/// Show what a data directory holds: blocks, sections, encodings, log, manifest
///
/// Changes nothing. No node may use the directory meanwhile.
///
/// Exit codes: 0 shown, 1 shown, but some of it is damaged, 2 it could not be read.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Answer in JSON, with the fields of docs/cli.md
    #[arg(long)]
    json: bool,
    /// Show instead all values of this attribute that blocks of spans hold, hidden ones included: what
    /// a delete has left on disk
    #[arg(long, value_name = "KEY")]
    values: Option<String>,
}

pub(super) fn run(args: &InspectArgs) -> Answer {
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    if let Some(key) = &args.values {
        let found = values(&storage, &args.dir, key).map_err(|e| error_chain(&e))?;
        let text = if args.json {
            values_json(&found)
        } else {
            values_text(&found, key, Terminal::of_stdout())
        };
        return Ok((text, EXIT_WELL));
    }
    let inspected = inspect(&storage, &args.dir).map_err(|e| error_chain(&e))?;
    let damaged = !inspected.manifest.damage.is_empty()
        || inspected.blocks.iter().any(|block| !block.error.is_empty());
    let text = if args.json {
        inspected_json(&inspected)
    } else {
        inspected_text(&inspected, Terminal::of_stdout())
    };
    Ok((text, if damaged { EXIT_DAMAGE } else { EXIT_WELL }))
}

fn values_json(found: &[BlockValues]) -> String {
    let blocks = found.iter().map(|block| {
        let values = block.values.iter();
        let values = values.map(|(value, items)| json!({ "value": value, "items": items }));
        json!({ "block": block.block, "of": block.of, "values": values.collect::<Vec<_>>() })
    });
    json_text(&json!({ "blocks": blocks.collect::<Vec<_>>() }))
}

fn values_text(found: &[BlockValues], key: &str, terminal: Terminal) -> String {
    if found.iter().all(|block| block.values.is_empty()) {
        return format!("no block holds a value of {}\n", plain(key));
    }
    let mut table = Table::new(&[
        ("block", Align::Whole),
        ("of", Align::Left),
        ("items", Align::Right),
        ("value", Align::Left),
    ]);
    for block in found {
        for (value, items) in &block.values {
            table.row([
                block.block.clone(),
                block.of.to_owned(),
                count(*items),
                value.clone(),
            ]);
        }
    }
    table.render(terminal)
}

/// `None` for nothing by nothing.
fn per(bytes: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| bytes as f64 / of as f64)
}

fn block_json(block: &BlockReport) -> Value {
    let sections: Vec<Value> = block
        .sections
        .iter()
        .map(|s| json!({ "section": s.name, "bytes": s.bytes }))
        .collect();
    let encodings: Vec<Value> = block
        .encodings
        .iter()
        .map(|e| {
            json!({
                "encoding": e.name, "columns": e.columns, "bytes": e.bytes,
            })
        })
        .collect();
    json!({
        "block": block.id,
        "signal": block.signal,
        "level": block.level,
        "spanning": block.spanning,
        "first_ns": block.first_ns,
        "last_ns": block.last_ns,
        "first_lsn": block.first_lsn,
        "last_lsn": block.last_lsn,
        "clean_lsn": block.clean_lsn,
        "series": block.series,
        "samples": block.samples,
        "bytes": block.bytes,
        "bytes_per_sample": per(block.bytes, block.samples),
        "sections": sections,
        "encodings": encodings,
        "time_columns": block.time_columns,
        "is_named": block.is_named,
        "error": block.error,
    })
}

fn inspected_json(inspected: &Inspected) -> String {
    let (log, manifest) = (&inspected.log, &inspected.manifest);
    let blocks: Vec<Value> = inspected.blocks.iter().map(block_json).collect();
    json_text(&json!({
        "blocks": blocks,
        "log": {
            "segments": log.segments,
            "bytes": log.bytes,
            "records": log.records,
            "first_lsn": log.first_lsn,
            "last_lsn": log.last_lsn,
        },
        "manifest": {
            "bytes": manifest.bytes,
            "blocks": manifest.blocks,
            "tombstones": manifest.tombstones,
            "metrics_cut_lsn": manifest.metrics_cut_lsn,
            "retention_floor_ns": manifest.retention_floor_ns,
            "damage": manifest.damage,
        },
    }))
}

/// Name, count and bytes, summed over blocks in the order they are first seen.
fn summed<'a>(items: impl Iterator<Item = (&'a str, u64, u64)>) -> Vec<(&'a str, u64, u64)> {
    let mut sums: Vec<(&str, u64, u64)> = Vec::new();
    for (name, columns, bytes) in items {
        match sums.iter_mut().find(|sum| sum.0 == name) {
            Some(sum) => {
                sum.1 += columns;
                sum.2 += bytes;
            }
            None => sums.push((name, columns, bytes)),
        }
    }
    sums
}

fn inspected_text(inspected: &Inspected, terminal: Terminal) -> String {
    let mut text = blocks_text(&inspected.blocks, terminal);
    let blocks = &inspected.blocks;
    let all = |get: fn(&BlockReport) -> u64| blocks.iter().map(get).sum::<u64>();
    let (file_bytes, samples) = (all(|b| b.bytes), all(|b| b.samples));
    let share = |part: u64| {
        per(part.saturating_mul(100), file_bytes).map_or_else(String::new, |p| format!("{p:.1} %"))
    };
    let ratio = |bytes, of| per(bytes, of).map_or_else(|| "-".to_owned(), number);

    let mut sections = Table::new(&[
        ("section", Align::Left),
        ("bytes", Align::Right),
        ("share", Align::Right),
        ("bytes/sample", Align::Right),
    ]);
    let by_section = blocks
        .iter()
        .flat_map(|b| b.sections.iter().map(|s| (s.name.as_str(), 0, s.bytes)));
    let by_section = summed(by_section);
    for (name, _, part) in &by_section {
        let cells = [bytes(*part), share(*part), ratio(*part, samples)];
        sections.row([(*name).to_owned()].into_iter().chain(cells));
    }
    if !by_section.is_empty() {
        text.push('\n');
        text.push_str(&sections.render(terminal));
    }

    let mut encodings = Table::new(&[
        ("encoding", Align::Left),
        ("columns", Align::Right),
        ("bytes", Align::Right),
        ("share", Align::Right),
    ]);
    let by_encoding = blocks.iter().flat_map(|b| {
        let encodings = b.encodings.iter();
        encodings.map(|e| (e.name.as_str(), e.columns, e.bytes))
    });
    let by_encoding = summed(by_encoding);
    for (name, columns, part) in &by_encoding {
        let cells = [count(*columns), bytes(*part), share(*part)];
        encodings.row([(*name).to_owned()].into_iter().chain(cells));
    }
    if !by_encoding.is_empty() {
        text.push('\n');
        text.push_str(&encodings.render(terminal));
    }

    let (log, manifest) = (&inspected.log, &inspected.manifest);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\nlog: {} in {} files, {} records",
        bytes(log.bytes),
        count(log.segments),
        count(log.records)
    );
    if let (Some(first), Some(last)) = (log.first_lsn, log.last_lsn) {
        let _ = write!(text, " (lsn {first} to {last})");
    }
    let _ = writeln!(
        text,
        "\nmanifest: {}, {} blocks, samples up to lsn {} sealed, {} deletes to apply",
        bytes(manifest.bytes),
        count(manifest.blocks),
        manifest.metrics_cut_lsn,
        count(manifest.tombstones)
    );
    for damage in &manifest.damage {
        let line = plain(&format!("the manifest is damaged: {damage}"));
        text.push_str(&terminal.red(&line));
        text.push('\n');
    }
    if let Some(floor_ns) = manifest.retention_floor_ns {
        let _ = writeln!(text, "retention: samples from {} on", rfc3339(floor_ns));
    }
    text
}

fn blocks_text(blocks: &[BlockReport], terminal: Terminal) -> String {
    let mut table = Table::new(&[
        ("block", Align::Whole),
        ("time (utc)", Align::Left),
        ("level", Align::Right),
        ("series", Align::Right),
        ("samples", Align::Right),
        ("bytes", Align::Right),
        ("bytes/sample", Align::Right),
    ]);
    for block in blocks {
        let spanning = if block.spanning { ", spanning" } else { "" };
        let remains = if block.is_named { "" } else { ", remains" };
        let time = span_of_time(block.first_ns, block.last_ns);
        table.row([
            block.id.clone(),
            format!("{time}{spanning}{remains}"),
            block.level.to_string(),
            count(block.series),
            count(block.samples),
            bytes(block.bytes),
            per(block.bytes, block.samples).map_or_else(|| "-".to_owned(), number),
        ]);
    }
    let mut text = if blocks.is_empty() {
        "no blocks\n".to_owned()
    } else {
        table.render(terminal)
    };
    for block in blocks.iter().filter(|block| !block.error.is_empty()) {
        let line = plain(&format!(
            "block {} cannot be read: {}",
            block.id, block.error
        ));
        text.push_str(&terminal.red(&line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use rootline_engine::inspect::{EncodingReport, SectionReport};

    use super::*;

    const HOUR: i64 = 3_600_000_000_000;
    const NOON: i64 = 1_661_256_000_000_000_000;

    fn block(id: &str, samples: u64, bytes: u64) -> BlockReport {
        let mut block = BlockReport::default();
        (block.id, block.signal) = (id.to_owned(), "metrics");
        (block.first_ns, block.last_ns) = (NOON, NOON + HOUR);
        (block.series, block.samples, block.bytes) = (10, samples, bytes);
        block.is_named = true;
        let mut section = SectionReport::default();
        (section.name, section.bytes) = ("values".to_owned(), bytes / 2);
        block.sections.push(section);
        let mut encoding = EncodingReport::default();
        (encoding.name, encoding.columns) = ("decimal".to_owned(), 10);
        encoding.bytes = bytes / 2;
        block.encodings.push(encoding);
        block
    }

    fn inspected() -> Inspected {
        let mut inspected = Inspected::default();
        inspected.blocks = vec![
            block("0000000000000001", 1_000, 1_200),
            block("0000000000000002", 3_000, 2_800),
        ];
        let log = &mut inspected.log;
        (log.segments, log.bytes, log.records) = (1, 65_536, 2);
        (log.first_lsn, log.last_lsn) = (Some(8), Some(9));
        let manifest = &mut inspected.manifest;
        (manifest.bytes, manifest.blocks) = (16_384, 2);
        manifest.metrics_cut_lsn = 7;
        inspected
    }

    #[test]
    fn blocks_sections_and_encodings_are_tables() {
        let text = inspected_text(
            &inspected(),
            Terminal {
                columns: None,
                colours: false,
            },
        );
        assert_eq!(
            text,
            "BLOCK             TIME (UTC)               LEVEL  SERIES  SAMPLES    BYTES  BYTES/SAMPLE\n\
             0000000000000001  2022-08-23 12:00..13:00      0      10    1,000  1.2 KiB           1.2\n\
             0000000000000002  2022-08-23 12:00..13:00      0      10    3,000  2.7 KiB      0.933333\n\
             \n\
             SECTION    BYTES   SHARE  BYTES/SAMPLE\n\
             values   2.0 KiB  50.0 %           0.5\n\
             \n\
             ENCODING  COLUMNS    BYTES   SHARE\n\
             decimal        20  2.0 KiB  50.0 %\n\
             \n\
             log: 64.0 KiB in 1 files, 2 records (lsn 8 to 9)\n\
             manifest: 16.0 KiB, 2 blocks, samples up to lsn 7 sealed, 0 deletes to apply\n"
        );
    }

    #[test]
    fn json_has_bytes_per_sample_where_there_are_samples() {
        let mut report = inspected();
        report.blocks.push(block("0000000000000003", 0, 100));
        let json: Value = serde_json::from_str(&inspected_json(&report)).unwrap();
        assert_eq!(json["blocks"][0]["bytes_per_sample"], 1.2);
        assert_eq!(json["blocks"][2]["bytes_per_sample"], Value::Null);
        assert_eq!(json["log"]["last_lsn"], 9);
    }

    #[test]
    fn a_block_that_cannot_be_read_is_told() {
        let mut report = inspected();
        report.blocks[1].error = "footer checksum".into();
        let text = blocks_text(
            &report.blocks,
            Terminal {
                columns: None,
                colours: false,
            },
        );
        assert!(text.ends_with("block 0000000000000002 cannot be read: footer checksum\n"));
    }
}
