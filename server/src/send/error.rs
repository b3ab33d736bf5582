//! What can go wrong while sending; each names the file and, where there is one, the offset.

use std::{io, time::Duration};

/// An error of [`run`](super::run) or of one file in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened.
    #[error("cannot open {file}")]
    Open {
        /// As given.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be read, or not be decompressed.
    #[error("cannot read {file} at byte {offset_bytes} of its content")]
    Read {
        /// As given.
        file: String,
        /// Offset after decompression.
        offset_bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A frame or line is longer than allowed.
    #[error(
        "{file} at byte {offset_bytes}: a request of {bytes} bytes is larger than {max_bytes} \
         (option --max-request-bytes)"
    )]
    TooLarge {
        /// As given.
        file: String,
        /// Offset after decompression.
        offset_bytes: u64,
        /// Its length, or as much of it as was read.
        bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// A file ends inside a frame.
    #[error(
        "{file} at byte {offset_bytes}: ends inside a frame, {found_bytes} of {wanted_bytes} bytes are there"
    )]
    Truncated {
        /// As given.
        file: String,
        /// Offset after decompression.
        offset_bytes: u64,
        /// What the frame says.
        wanted_bytes: u64,
        /// What is left.
        found_bytes: u64,
    },
    /// Bytes that are no request this command knows.
    #[error("{file} at byte {offset_bytes}: {reason}")]
    Unrecognised {
        /// As given.
        file: String,
        /// Offset after decompression.
        offset_bytes: u64,
        /// What was found instead.
        reason: String,
    },
    /// Standard input cannot be read twice.
    #[error(
        "--shift-to-now reads everything twice, which standard input does not allow: save it to a file first"
    )]
    StdinTwice,
    /// A URL that cannot be used.
    #[error("{option} {url}: {reason}")]
    BadUrl {
        /// The option it came from.
        option: &'static str,
        /// As given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The node was not reached, or kept refusing for now, for as long as allowed.
    #[error(
        "{file} at byte {offset_bytes}: gave up on {url} after {}: {reason}",
        seconds(*after)
    )]
    GaveUp {
        /// As given.
        file: String,
        /// Offset of the request after decompression.
        offset_bytes: u64,
        /// Where it was sent to.
        url: String,
        /// How long it was tried.
        after: Duration,
        /// Whether the other side was there and asked to come back later.
        answered: bool,
        /// The last answer.
        reason: String,
    },
    /// The other side does not take this kind of request at all.
    #[error("{file}: {url} does not take {kind}: {reason}")]
    NotTaken {
        /// As given.
        file: String,
        /// Where it was sent to.
        url: String,
        /// What was sent.
        kind: &'static str,
        /// The answer.
        reason: String,
    },
    /// A thread that reads a file ended without an answer.
    #[error("{file}: the reader stopped unexpectedly")]
    ReaderLost {
        /// As given.
        file: String,
    },
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
