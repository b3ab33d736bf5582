//! `rootline send FILE...`: sends recorded telemetry to a node and says what became of it
//! (`docs/send.md`).

use std::{fmt::Write, process::ExitCode, time::Duration};

use rootline_engine::{Clock, SystemClock};
use serde_json::json;

use crate::send::{self, Options, OtlpProtocol, Summary, error_chain};

/// Send recorded telemetry to a node.
///
/// Takes OTLP traces, OTLP metrics and Prometheus remote-write requests as frames (a u32 little-endian
/// length, then the serialized request), and the OpenTelemetry Collector's OTLP JSON lines. Files may
/// be compressed with zstd or gzip. What a file is, is told from its content.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct SendArgs {
    /// Files to send; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Move all times by one offset, so that the newest of all files is now. Reads the files twice.
    #[arg(long)]
    shift_to_now: bool,
    /// Where OTLP protobuf requests go over gRPC.
    #[arg(
        long,
        value_name = "URL",
        env = "ROOTLINE_ENDPOINT",
        default_value = "http://127.0.0.1:4317"
    )]
    endpoint: String,
    /// Where OTLP JSON goes, and protobuf with `--protocol http`; `/v1/traces` and `/v1/metrics` are
    /// added.
    #[arg(
        long,
        value_name = "URL",
        env = "ROOTLINE_OTLP_HTTP",
        default_value = "http://127.0.0.1:4318"
    )]
    otlp_http: String,
    /// Where remote-write requests go.
    #[arg(
        long,
        value_name = "URL",
        env = "ROOTLINE_REMOTE_WRITE",
        default_value = "http://127.0.0.1:7668/api/v1/write"
    )]
    remote_write: String,
    /// What carries OTLP protobuf requests.
    #[arg(long, value_enum, default_value_t = Protocol::Grpc)]
    protocol: Protocol,
    /// Files sent at once. Requests of one file are sent in order, one at a time.
    #[arg(long, value_name = "N", default_value_t = Options::CONCURRENCY_DEFAULT)]
    concurrency: usize,
    /// Let requests of one file overtake each other: as many in flight as `--concurrency` says.
    #[arg(long)]
    unordered: bool,
    /// Largest request taken from a file, in bytes.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = Options::REQUEST_BYTES_MAX_DEFAULT,
        value_parser = clap::value_parser!(u64).range(1..=send::REQUEST_BYTES_CEILING)
    )]
    max_request_bytes: u64,
    /// How many seconds a request is tried again while the node refuses it for now or is not reached.
    #[arg(long, value_name = "SECONDS", default_value_t = Options::RETRY_FOR_DEFAULT.as_secs())]
    retry_for: u64,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
    /// Show no progress bar. (It shows on terminals only.)
    #[arg(long)]
    no_progress: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
}

impl SendArgs {
    fn options(&self, now_ns: i64) -> Options {
        let mut options = Options::new(self.files.clone());
        options.endpoint.clone_from(&self.endpoint);
        options.otlp_http.clone_from(&self.otlp_http);
        options.remote_write.clone_from(&self.remote_write);
        options.protocol = match self.protocol {
            Protocol::Grpc => OtlpProtocol::Grpc,
            Protocol::Http => OtlpProtocol::Http,
        };
        options.concurrency = self.concurrency;
        options.unordered = self.unordered;
        options.shift_to_ns = self.shift_to_now.then_some(now_ns);
        options.request_bytes_max = self.max_request_bytes;
        options.retry_for = Duration::from_secs(self.retry_for);
        options.progress = !self.no_progress;
        options
    }
}

/// Runs the command: 0 if all was stored, 1 if not.
pub(crate) fn run(args: &SendArgs) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let options = args.options(SystemClock::new().wall_ns());
    let summary = match runtime.block_on(send::run(&options)) {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("error: {}", error_chain(&error));
            return ExitCode::FAILURE;
        }
    };
    if args.json {
        println!("{}", as_json(&summary));
    } else {
        print!("{}", as_text(&summary));
    }
    for error in &summary.errors {
        eprintln!("error: {}", error_chain(error));
        if let send::Error::GaveUp { answered, .. } = error {
            eprintln!("  {}", advice(*answered));
        }
    }
    if summary.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What to do about a request that was given up.
fn advice(answered: bool) -> &'static str {
    if answered {
        "the node is there and refuses for now: make room as it says and send the rest again, or wait \
         longer with --retry-for SECONDS"
    } else {
        "is a node running there? start one with: rootline serve --data-dir DIR"
    }
}

fn bytes_per_second(summary: &Summary) -> f64 {
    summary.body_bytes as f64 / summary.elapsed.as_secs_f64().max(1e-6)
}

fn as_text(summary: &Summary) -> String {
    let mut out = String::new();
    let line = format!(
        "sent {} and {} in {} from {}: {:.1} MB in {:.1} s ({:.1} MB/s)\n",
        counted(summary.spans, "span"),
        counted(summary.samples, "sample"),
        counted(summary.requests, "request"),
        counted(summary.files, "file"),
        summary.body_bytes as f64 / 1e6,
        summary.elapsed.as_secs_f64(),
        bytes_per_second(summary) / 1e6,
    );
    out.push_str(&line);
    if summary.exemplars + summary.metadata > 0 {
        let _ = writeln!(
            out,
            "with {} and {}",
            counted(summary.exemplars, "exemplar"),
            counted(summary.metadata, "metadata entry")
        );
    }
    if let Some(shift_ns) = summary.shift_ns {
        let _ = writeln!(out, "all times moved by {:+.3} s", shift_ns as f64 / 1e9);
    }
    if summary.retries > 0 {
        let _ = writeln!(
            out,
            "{} sent again after a transient refusal",
            counted(summary.retries, "request")
        );
    }
    if summary.refused_items + summary.refused_requests > 0 || !summary.reasons.is_empty() {
        let _ = writeln!(
            out,
            "refused for good: {}, and {} of others",
            counted(summary.refused_requests, "request"),
            counted(summary.refused_items, "item"),
        );
        for (reason, requests) in &summary.reasons {
            let _ = writeln!(out, "  {requests} x {reason}");
        }
    }
    out
}

fn counted(n: u64, noun: &str) -> String {
    match (n, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        (_, None) => format!("{n} {noun}s"),
    }
}

fn as_json(summary: &Summary) -> serde_json::Value {
    let reasons: Vec<_> = summary
        .reasons
        .iter()
        .map(|(reason, requests)| json!({ "reason": reason, "requests": requests }))
        .collect();
    let errors: Vec<_> = summary.errors.iter().map(|e| error_chain(e)).collect();
    json!({
        "files": summary.files,
        "requests": summary.requests,
        "spans": summary.spans,
        "samples": summary.samples,
        "exemplars": summary.exemplars,
        "metadata": summary.metadata,
        "refused_items": summary.refused_items,
        "refused_requests": summary.refused_requests,
        "reasons": reasons,
        "retries": summary.retries,
        "body_bytes": summary.body_bytes,
        "read_bytes": summary.read_bytes,
        "elapsed_seconds": summary.elapsed.as_secs_f64(),
        "bytes_per_second": bytes_per_second(summary),
        "shift_ns": summary.shift_ns,
        "errors": errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_as_english() {
        assert_eq!(counted(1, "span"), "1 span");
        assert_eq!(counted(0, "span"), "0 spans");
        assert_eq!(counted(2, "metadata entry"), "2 metadata entries");
    }
}
