//! Sending recorded telemetry to a node: what `rootline send` does.
//!
//! A file is read and decompressed on a blocking thread (`source.rs`), its requests pass a short queue,
//! and a worker sends them one after the other (`delivery.rs`), so that memory stays bounded by a few
//! requests for each file in flight and the order of a file is kept. Transient refusals are retried
//! for a bounded time; permanent ones are counted and told at the end. With `shift_to_now` all files
//! are read twice: the newest time of all of them is found first, then everything moves by one offset,
//! a whole number of milliseconds, so that both signals keep their places to each other.

mod answer;
mod delivery;
mod error;
mod grpc;
mod http;
mod json;
mod kind;
mod progress;
mod source;
mod tally;
mod target;
mod wire;

pub use delivery::Delivery;
pub use error::{Error, chain as error_chain};
pub use source::REQUEST_BYTES_CEILING;
pub use tally::Summary;
pub use target::OtlpProtocol;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use self::{delivery::Targets, progress::Progress, source::Source, tally::Tally};

const USER_AGENT: &str = concat!("rootline-send/", env!("CARGO_PKG_VERSION"));

/// What to send, and where to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Paths; `-` is standard input.
    pub files: Vec<String>,
    /// OTLP/gRPC, for OTLP protobuf requests.
    pub endpoint: String,
    /// OTLP/HTTP without `/v1/...`, for OTLP JSON, and for protobuf where [`OtlpProtocol::Http`] is
    /// chosen.
    pub otlp_http: String,
    /// The whole URL of remote write.
    pub remote_write: String,
    /// What carries OTLP protobuf requests.
    pub protocol: OtlpProtocol,
    /// Files sent at once; with `unordered`, requests of one file as well.
    pub concurrency: usize,
    /// Whether requests of one file may overtake each other.
    pub unordered: bool,
    /// Moves all times so that the newest is this one, in nanoseconds since the epoch.
    pub shift_to_ns: Option<i64>,
    /// Largest request taken from a file, at most [`REQUEST_BYTES_CEILING`].
    pub request_bytes_max: u64,
    /// How long a request is tried again before its file is given up.
    pub retry_for: Duration,
    /// How long one answer is waited for.
    pub timeout: Duration,
    /// Whether a progress bar is wanted (it shows on terminals only).
    pub progress: bool,
}

impl Options {
    /// Files sent at once.
    pub const CONCURRENCY_DEFAULT: usize = 4;
    /// Largest request, the node's own default limit.
    pub const REQUEST_BYTES_MAX_DEFAULT: u64 = 64 << 20;
    /// How long a transient refusal is tried again.
    pub const RETRY_FOR_DEFAULT: Duration = Duration::from_mins(1);
    /// How long an answer is waited for.
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

    /// `files` to a node on its default ports.
    pub fn new(files: Vec<String>) -> Self {
        Self {
            files,
            endpoint: "http://127.0.0.1:4317".to_owned(),
            otlp_http: "http://127.0.0.1:4318".to_owned(),
            remote_write: "http://127.0.0.1:7668/api/v1/write".to_owned(),
            protocol: OtlpProtocol::default(),
            concurrency: Self::CONCURRENCY_DEFAULT,
            unordered: false,
            shift_to_ns: None,
            request_bytes_max: Self::REQUEST_BYTES_MAX_DEFAULT,
            retry_for: Self::RETRY_FOR_DEFAULT,
            timeout: Self::TIMEOUT_DEFAULT,
            progress: true,
        }
    }
}

/// Sends everything. What goes wrong with one file ends that file and is told in the summary.
///
/// # Errors
/// What makes sending pointless: a bad URL, or with `shift_to_ns` a file that cannot be read to its
/// end (nothing is sent then).
pub async fn run(options: &Options) -> Result<Summary, Error> {
    let targets = Arc::new(Targets::new(options)?);
    let shift_ns = match options.shift_to_ns {
        Some(now_ns) => shift(options, now_ns).await?,
        None => None,
    };
    let tally = Arc::new(Tally::default());
    let began = Instant::now();
    let progress = Progress::start(&tally, total_bytes(&options.files), options.progress);
    let slots = Arc::new(Semaphore::new(options.concurrency.max(1)));
    let mut files = JoinSet::new();
    for (index, file) in options.files.iter().enumerate() {
        let (targets, tally, slots) =
            (Arc::clone(&targets), Arc::clone(&tally), Arc::clone(&slots));
        let file = file.clone();
        let workers = if options.unordered {
            options.concurrency.max(1)
        } else {
            1
        };
        files.spawn(async move {
            // The semaphore is never closed; without a permit there is nothing to wait for.
            let _permit = slots.acquire().await;
            let sent = delivery::send_file(&file, shift_ns, &targets, &tally, workers).await;
            (index, file, sent)
        });
    }
    let mut errors = Vec::new();
    while let Some(joined) = files.join_next().await {
        match joined {
            Ok((_, _, Ok(()))) => {}
            Ok((index, _, Err(error))) => errors.push((index, error)),
            Err(_) => {
                errors.push((
                    usize::MAX,
                    Error::ReaderLost {
                        file: "a file".to_owned(),
                    },
                ));
            }
        }
    }
    progress.finish();
    errors.sort_by_key(|(index, _)| *index);
    let errors = errors.into_iter().map(|(_, error)| error).collect();
    let mut summary = tally.summary(options.files.len() as u64, began.elapsed(), errors);
    summary.shift_ns = shift_ns;
    Ok(summary)
}

/// Bytes of all files; `None` if one of them has no size.
fn total_bytes(files: &[String]) -> Option<u64> {
    files
        .iter()
        .map(|f| {
            std::fs::metadata(f)
                .ok()
                .filter(std::fs::Metadata::is_file)
                .map(|m| m.len())
        })
        .sum()
}

/// The offset that brings the newest time of all files to `now_ns`: whole milliseconds.
async fn shift(options: &Options, now_ns: i64) -> Result<Option<i64>, Error> {
    if options.files.iter().any(|f| f == "-") {
        return Err(Error::StdinTwice);
    }
    let files = options.files.clone();
    let request_bytes_max = options.request_bytes_max;
    let scan = tokio::task::spawn_blocking(move || {
        let mut newest_ns: Option<i128> = None;
        for file in &files {
            let mut source = Source::open(file, request_bytes_max, Arc::new(AtomicU64::new(0)))?;
            while let Some(request) = source.next_request()? {
                newest_ns = newest_ns.max(request.found.newest_ns);
            }
        }
        Ok(newest_ns)
    });
    let newest_ns = match scan.await {
        Ok(newest_ns) => newest_ns?,
        Err(_) => {
            return Err(Error::ReaderLost {
                file: options.files.join(", "),
            });
        }
    };
    Ok(newest_ns.map(|newest_ns| {
        let whole_ms = (i128::from(now_ns) - newest_ns).div_euclid(1_000_000) * 1_000_000;
        i64::try_from(whole_ms).unwrap_or(if whole_ms < 0 { i64::MIN } else { i64::MAX })
    }))
}
