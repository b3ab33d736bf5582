//! Request bodies, read and decompressed within limits.
//!
//! Invariants
//! - No byte of a body is kept that the memory budget has not been asked for: by content length or
//!   gRPC message prefix before anything is read, else step by step as the body grows; before
//!   decompression by the declared length, else step by step as the output grows.
//! - A refused reservation is the transient refusal at once, never a wait.
//! - `decoded_bytes_max` holds for the decompressed form and is enforced while decompressing, so a
//!   zip bomb costs at most one step above it.
//! - Reading is async and ends after [`BodyLimits`]' times; decompression is plain computation and
//!   belongs on a blocking thread ([`crate::node::NodeState::write`] does both in order).
//!
//! A body that could never fit the budget is too large, not "later".

use std::{
    io::{BufRead as _, Read},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use rootline_engine::{Budget, Error, Holder, Reservation};

use crate::{
    buffer_pool::BufferPool,
    refusal::{Refusal, RefusalKind},
};

/// Smallest step by which a body of unknown length reserves memory.
const STEP_BYTES_MIN: usize = 16 << 10;
/// Largest step by which a body of unknown length reserves memory.
const STEP_BYTES_MAX: usize = 4 << 20;
/// Largest zstd window accepted: 8 MiB, as RFC 9659 sets for HTTP.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// What a decompressor holds beside its window.
const DECODER_BYTES: u64 = 128 << 10;
/// Compressed flag and length before every gRPC message.
const GRPC_PREFIX_BYTES: usize = 5;

/// How much and how long a body may be.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes after decompression.
    pub decoded_bytes_max: u64,
    /// Longest silence between two pieces of a body.
    pub idle_timeout: Duration,
    /// Longest time for a whole body.
    pub total_timeout: Duration,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 8878, one frame, window up to 8 MiB.
    Zstd,
    /// Snappy's block format, as remote write uses it.
    SnappyBlock,
}

impl Encoding {
    /// The `Content-Encoding` of an OTLP/HTTP request.
    ///
    /// # Errors
    /// A refusal naming what is spoken, for any other encoding or more than one.
    pub fn from_content_encoding(headers: &HeaderMap) -> Result<Self, Refusal> {
        Self::from_header(headers, header::CONTENT_ENCODING.as_str())
    }

    /// The `grpc-encoding` of a call.
    ///
    /// # Errors
    /// As [`from_content_encoding`](Self::from_content_encoding).
    pub fn from_grpc_encoding(headers: &HeaderMap) -> Result<Self, Refusal> {
        Self::from_header(headers, "grpc-encoding")
    }

    fn from_header(headers: &HeaderMap, name: &str) -> Result<Self, Refusal> {
        let mut encoding = Self::Identity;
        for value in headers.get_all(name) {
            let next = match value.as_bytes().trim_ascii() {
                v if v.is_empty() || v.eq_ignore_ascii_case(b"identity") => continue,
                v if v.eq_ignore_ascii_case(b"gzip") || v.eq_ignore_ascii_case(b"x-gzip") => {
                    Self::Gzip
                }
                v if v.eq_ignore_ascii_case(b"zstd") => Self::Zstd,
                v => {
                    return Err(Refusal::unsupported_media(format!(
                        "{name} {:?} is not supported: send gzip, zstd or identity",
                        String::from_utf8_lossy(v)
                    )));
                }
            };
            if encoding != Self::Identity {
                return Err(Refusal::unsupported_media(format!("more than one {name}")));
            }
            encoding = next;
        }
        Ok(encoding)
    }
}

/// A body as it came, with the memory it holds.
#[derive(Debug)]
pub struct WireBody {
    /// How `bytes` are compressed.
    pub encoding: Encoding,
    /// As received.
    pub bytes: Bytes,
    /// Covers `bytes`.
    pub reservation: Reservation,
}

impl WireBody {
    /// Decompresses on the calling thread, into one of `buffers` if there are any and it is worth it.
    ///
    /// # Errors
    /// See [`decompress`].
    pub fn decompress(
        self,
        limits: &BodyLimits,
        buffers: Option<&Arc<BufferPool>>,
    ) -> Result<(Bytes, Reservation), Refusal> {
        decompress(self.encoding, self.bytes, self.reservation, limits, buffers)
    }
}

/// Reads a whole HTTP body.
///
/// # Errors
/// Too large, too slow, cut short, or no memory.
pub async fn read<B>(
    headers: &HeaderMap,
    body: B,
    encoding: Encoding,
    budget: &Arc<Budget>,
    limits: &BodyLimits,
) -> Result<WireBody, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let declared = content_length(headers)?;
    let bytes_max = wire_bytes_max(encoding, limits);
    if let Some(declared) = declared
        && declared > bytes_max
    {
        return Err(Refusal::too_large(
            "request body",
            Some(declared),
            limits.decoded_bytes_max,
        ));
    }
    let reservation = reserve(budget, declared.unwrap_or(0))?;
    let mut collector = Collector {
        bytes: Vec::new(),
        reservation,
        bytes_max,
        limits,
    };
    let body = std::pin::pin!(body);
    let bytes = tokio::time::timeout(limits.total_timeout, collector.collect(body, declared))
        .await
        .map_err(|_| slow_body("in time", limits.total_timeout))??;
    let mut reservation = collector.reservation;
    reservation.shrink_to(bytes.len() as u64);
    Ok(WireBody {
        encoding,
        bytes,
        reservation,
    })
}

/// Reads the one message of a unary gRPC call: prefix, length, bytes.
///
/// # Errors
/// Too large, too slow, cut short, not exactly one message, or no memory.
pub async fn read_unary_wire<B>(
    headers: &HeaderMap,
    body: B,
    budget: &Arc<Budget>,
    limits: &BodyLimits,
) -> Result<WireBody, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let encoding = Encoding::from_grpc_encoding(headers)?;
    let mut body = std::pin::pin!(body);
    let read = async {
        // The prefix usually comes in one piece with the beginning of the message.
        let mut first = Bytes::new();
        while first.len() < GRPC_PREFIX_BYTES {
            let Some(data) = next_data(body.as_mut(), limits).await? else {
                return Err(cut_short(first.len() as u64, GRPC_PREFIX_BYTES as u64));
            };
            first = if first.is_empty() {
                data
            } else {
                [&first[..], &data[..]].concat().into()
            };
        }
        let compressed = first.get_u8();
        let declared = u64::from(first.get_u32());
        let encoding = match compressed {
            0 => Encoding::Identity,
            1 if encoding != Encoding::Identity => encoding,
            1 => {
                return Err(Refusal::invalid(
                    "the gRPC message is marked as compressed but the call has no grpc-encoding",
                ));
            }
            flag => return Err(Refusal::invalid(format!("gRPC compressed flag is {flag}"))),
        };
        let bytes_max = wire_bytes_max(encoding, limits);
        if declared > bytes_max {
            return Err(Refusal::too_large(
                "message",
                Some(declared),
                limits.decoded_bytes_max,
            ));
        }
        let reservation = reserve(budget, declared)?;
        // One byte more is let through, to tell "a second message" from "too large".
        let mut collector = Collector {
            bytes: Vec::new(),
            reservation,
            bytes_max,
            limits,
        };
        let bytes = collector.collect_from(first, body, Some(declared)).await?;
        Ok(WireBody {
            encoding,
            bytes,
            reservation: collector.reservation,
        })
    };
    tokio::time::timeout(limits.total_timeout, read)
        .await
        .map_err(|_| slow_body("in time", limits.total_timeout))?
}

/// Reads and decompresses the one message of a unary gRPC call, on the calling task.
///
/// # Errors
/// See [`read_unary_wire`] and [`decompress`].
pub async fn read_unary<B>(
    headers: &HeaderMap,
    body: B,
    budget: &Arc<Budget>,
    limits: &BodyLimits,
) -> Result<(Bytes, Reservation), Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    read_unary_wire(headers, body, budget, limits)
        .await?
        .decompress(limits, None)
}

/// Decompresses `wire`. The answer's reservation covers the answer alone.
///
/// # Errors
/// - too large: past `decoded_bytes_max`, found out before or while decompressing;
/// - invalid: the bytes are not of that format, are cut, or go on behind its end;
/// - overloaded: the budget has no room.
pub fn decompress(
    encoding: Encoding,
    wire: Bytes,
    reservation: Reservation,
    limits: &BodyLimits,
    buffers: Option<&Arc<BufferPool>>,
) -> Result<(Bytes, Reservation), Refusal> {
    match encoding {
        Encoding::Identity => {
            if wire.len() as u64 > limits.decoded_bytes_max {
                let bytes = Some(wire.len() as u64);
                return Err(Refusal::too_large(
                    "request body",
                    bytes,
                    limits.decoded_bytes_max,
                ));
            }
            Ok((wire, reservation))
        }
        Encoding::SnappyBlock => snappy_block(&wire, reservation, limits, buffers),
        Encoding::Gzip => {
            let mut output = Output::new(reservation, wire.len(), limits)?;
            grow(&mut output.reservation, DECODER_BYTES)?;
            output.read_from(flate2::bufread::MultiGzDecoder::new(&wire[..]), "gzip")?;
            Ok(output.finish())
        }
        Encoding::Zstd => {
            let mut output = Output::new(reservation, wire.len(), limits)?;
            grow(
                &mut output.reservation,
                DECODER_BYTES + zstd_window_bytes(&wire),
            )?;
            let broken = |e: std::io::Error| malformed("zstd", &e);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&wire[..])
                .map_err(broken)?
                .single_frame();
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(broken)?;
            output.read_from(&mut decoder, "zstd")?;
            let mut rest = decoder.finish();
            if !rest.fill_buf().map_err(broken)?.is_empty() {
                return Err(Refusal::invalid("bytes follow the zstd frame of the body"));
            }
            Ok(output.finish())
        }
    }
}

/// The most wire bytes that can hold an acceptable body: stored blocks make any compressed form a
/// little larger than its content.
fn wire_bytes_max(encoding: Encoding, limits: &BodyLimits) -> u64 {
    match encoding {
        Encoding::Identity => limits.decoded_bytes_max,
        _ => limits
            .decoded_bytes_max
            .saturating_add(limits.decoded_bytes_max / 6 + 1024),
    }
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    length
        .map(Some)
        .ok_or_else(|| Refusal::invalid("Content-Length is not a number"))
}

fn reserve(budget: &Arc<Budget>, bytes: u64) -> Result<Reservation, Refusal> {
    if bytes > budget.limit_bytes() {
        return Err(Refusal::new(
            RefusalKind::TooLarge,
            format!(
                "request body of {bytes} bytes is larger than all of the node's memory budget of {} \
                 bytes (option memory-limit)",
                budget.limit_bytes()
            ),
        ));
    }
    Ok(budget.reserve(Holder::Requests, bytes)?)
}

/// Holds `bytes` more for a request. What could not fit an empty budget either is too large, not
/// "later".
///
/// # Errors
/// Too large or overloaded; what was held stays held.
pub fn grow(reservation: &mut Reservation, bytes: u64) -> Result<(), Refusal> {
    match reservation.grow(bytes) {
        Err(Error::MemoryFull { limit_bytes, .. })
            if reservation.bytes().saturating_add(bytes) > limit_bytes =>
        {
            Err(Refusal::new(
                RefusalKind::TooLarge,
                format!(
                    "the request needs more than all of the node's memory budget of {limit_bytes} \
                     bytes (option memory-limit)"
                ),
            ))
        }
        grown => Ok(grown?),
    }
}

fn slow_body(what: &str, limit: Duration) -> Refusal {
    Refusal::new(
        RefusalKind::SlowBody,
        format!(
            "the request body did not arrive {what} ({} s)",
            limit.as_secs_f64()
        ),
    )
}

fn cut_short(got_bytes: u64, declared_bytes: u64) -> Refusal {
    Refusal::invalid(format!(
        "the body ends after {got_bytes} of {declared_bytes} bytes"
    ))
}

fn malformed(format: &str, error: &std::io::Error) -> Refusal {
    Refusal::invalid(format!("the body is not valid {format}: {error}"))
}

/// The next data frame; `None` at the end. Trailers are passed over.
async fn next_data<B>(
    mut body: std::pin::Pin<&mut B>,
    limits: &BodyLimits,
) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    loop {
        let frame = tokio::time::timeout(limits.idle_timeout, body.frame())
            .await
            .map_err(|_| slow_body("without a pause", limits.idle_timeout))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(Refusal::invalid(format!(
                    "the request body broke off: {error}"
                )));
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Gathers frames; a body that comes in one frame is not copied.
struct Collector<'l> {
    bytes: Vec<u8>,
    reservation: Reservation,
    bytes_max: u64,
    limits: &'l BodyLimits,
}

impl Collector<'_> {
    async fn collect<B>(
        &mut self,
        mut body: std::pin::Pin<&mut B>,
        declared: Option<u64>,
    ) -> Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let first = next_data(body.as_mut(), self.limits)
            .await?
            .unwrap_or_default();
        self.collect_from(first, body, declared).await
    }

    async fn collect_from<B>(
        &mut self,
        first: Bytes,
        mut body: std::pin::Pin<&mut B>,
        declared: Option<u64>,
    ) -> Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        self.admit(first.len(), declared)?;
        let Some(mut next) = next_data(body.as_mut(), self.limits).await? else {
            return Self::whole(first, declared);
        };
        self.bytes.extend_from_slice(&first);
        drop(first);
        loop {
            let length = self.bytes.len() + next.len();
            self.admit(length, declared)?;
            if self.bytes.capacity() < length {
                // Within what is reserved, doubling, so that a long body is copied at most twice.
                let room = usize::try_from(self.reservation.bytes()).unwrap_or(usize::MAX);
                let target = length.max(self.bytes.capacity() * 2).min(room.max(length));
                self.bytes.reserve_exact(target - self.bytes.len());
            }
            self.bytes.extend_from_slice(&next);
            match next_data(body.as_mut(), self.limits).await? {
                Some(data) => next = data,
                None => break,
            }
        }
        Self::whole(std::mem::take(&mut self.bytes).into(), declared)
    }

    /// Makes sure that a body of `length` bytes so far is allowed and paid for.
    fn admit(&mut self, length: usize, declared: Option<u64>) -> Result<(), Refusal> {
        let length = length as u64;
        if let Some(declared) = declared {
            if length > declared {
                return Err(Refusal::invalid(format!(
                    "the body goes on behind the {declared} bytes that it declares"
                )));
            }
            return Ok(());
        }
        if length > self.bytes_max {
            return Err(Refusal::too_large(
                "request body",
                None,
                self.limits.decoded_bytes_max,
            ));
        }
        let held = self.reservation.bytes();
        if length > held {
            let step = held.clamp(STEP_BYTES_MIN as u64, STEP_BYTES_MAX as u64);
            grow(&mut self.reservation, (length - held).max(step))?;
        }
        Ok(())
    }

    fn whole(bytes: Bytes, declared: Option<u64>) -> Result<Bytes, Refusal> {
        match declared {
            Some(declared) if declared != bytes.len() as u64 => {
                Err(cut_short(bytes.len() as u64, declared))
            }
            _ => Ok(bytes),
        }
    }
}

fn snappy_block(
    wire: &[u8],
    mut reservation: Reservation,
    limits: &BodyLimits,
    buffers: Option<&Arc<BufferPool>>,
) -> Result<(Bytes, Reservation), Refusal> {
    let broken = |e: snap::Error| Refusal::invalid(format!("the body is not valid snappy: {e}"));
    let declared = snap::raw::decompress_len(wire).map_err(broken)? as u64;
    if declared > limits.decoded_bytes_max {
        let max_bytes = limits.decoded_bytes_max;
        return Err(Refusal::too_large(
            "decompressed body",
            Some(declared),
            max_bytes,
        ));
    }
    // A copy element makes at most 64 bytes of 2 or 3: what declares more is a lie, found out
    // before anything is allocated for it.
    if declared > (wire.len() as u64).saturating_mul(64) {
        return Err(Refusal::invalid(
            "the snappy body declares more than it can hold",
        ));
    }
    grow(&mut reservation, declared)?;
    let mut decoder = snap::raw::Decoder::new();
    let Some(buffers) = buffers else {
        let decoded = decoder.decompress_vec(wire).map_err(broken)?;
        reservation.shrink_to(declared);
        return Ok((decoded.into(), reservation));
    };
    // `declared` is at most `decoded_bytes_max`, which a `usize` holds.
    let mut buffer = buffers.take(usize::try_from(declared).unwrap_or(usize::MAX));
    let spare = (buffer.capacity_bytes() as u64).saturating_sub(declared);
    grow(&mut reservation, spare)?;
    let decoded = decoder
        .decompress(wire, buffer.bytes_mut())
        .map_err(broken)?;
    if decoded as u64 != declared {
        return Err(Refusal::invalid(
            "the snappy body holds less than it declares",
        ));
    }
    reservation.shrink_to(buffer.capacity_bytes() as u64);
    Ok((buffer.freeze(), reservation))
}

/// The window that the first frame's header asks for, as far as it can be told, at most 8 MiB.
fn zstd_window_bytes(wire: &[u8]) -> u64 {
    const MAX: u64 = 1 << ZSTD_WINDOW_LOG_MAX;
    // Magic (4 bytes), frame header descriptor, window descriptor unless "single segment" is set
    // (RFC 8878, 3.1.1.1): then the content is the window, and the output pays for it.
    let (Some(descriptor), Some(window)) = (wire.get(4), wire.get(5)) else {
        return 0;
    };
    if descriptor & 0x20 != 0 {
        return MAX.min(wire.len() as u64 * 8);
    }
    let base = 1_u64 << (10 + (window >> 3));
    (base + base / 8 * u64::from(window & 7)).min(MAX)
}

/// Decompressed bytes, paid for as they grow.
struct Output<'l> {
    bytes: Vec<u8>,
    /// Covers the compressed body, the decompressor and `bytes`.
    reservation: Reservation,
    limits: &'l BodyLimits,
}

impl<'l> Output<'l> {
    fn new(
        mut reservation: Reservation,
        wire_bytes: usize,
        limits: &'l BodyLimits,
    ) -> Result<Self, Refusal> {
        let first = wire_bytes
            .saturating_mul(4)
            .clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let first = first.min(usize::try_from(limits.decoded_bytes_max).unwrap_or(usize::MAX)) + 1;
        grow(&mut reservation, first as u64)?;
        Ok(Self {
            bytes: vec![0; first],
            reservation,
            limits,
        })
    }

    /// Reads to the end. The buffer's length is its capacity; what is filled is counted apart.
    fn read_from(&mut self, mut input: impl Read, format: &str) -> Result<(), Refusal> {
        // One byte above the limit tells "exactly full" from "too large".
        let bytes_max = self.limits.decoded_bytes_max.saturating_add(1);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let mut filled = 0;
        loop {
            if filled == bytes_max {
                let max_bytes = self.limits.decoded_bytes_max;
                return Err(Refusal::too_large("decompressed body", None, max_bytes));
            }
            if filled == self.bytes.len() {
                let step = filled
                    .clamp(STEP_BYTES_MIN, STEP_BYTES_MAX)
                    .min(bytes_max - filled);
                grow(&mut self.reservation, step as u64)?;
                self.bytes.reserve_exact(step);
                self.bytes.resize(filled + step, 0);
            }
            let room = self.bytes.get_mut(filled..).unwrap_or_default();
            match input.read(room) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(malformed(format, &e)),
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }

    fn finish(mut self) -> (Bytes, Reservation) {
        if self.bytes.capacity() > self.bytes.len() * 2 {
            self.bytes.shrink_to_fit();
        }
        self.reservation.shrink_to(self.bytes.capacity() as u64);
        (self.bytes.into(), self.reservation)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        pin::Pin,
        task::{Context, Poll},
    };

    use http_body::Frame;
    use http_body_util::Full;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits {
        decoded_bytes_max: 1 << 20,
        idle_timeout: Duration::from_secs(10),
        total_timeout: Duration::from_secs(10),
    };

    /// A body that comes in pieces, and then ends or stays silent.
    struct Pieces {
        pieces: std::vec::IntoIter<Bytes>,
        ends: bool,
    }

    impl Pieces {
        fn new(bytes: &[u8], piece_bytes: usize, ends: bool) -> Self {
            let pieces: Vec<_> = bytes
                .chunks(piece_bytes)
                .map(Bytes::copy_from_slice)
                .collect();
            Self {
                pieces: pieces.into_iter(),
                ends,
            }
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.pieces.next() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap()))
            .collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn encode(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Identity => bytes.to_vec(),
            Encoding::Gzip => gzip(bytes),
            Encoding::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Encoding::SnappyBlock => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
        }
    }

    const ENCODINGS: [Encoding; 4] = [
        Encoding::Identity,
        Encoding::Gzip,
        Encoding::Zstd,
        Encoding::SnappyBlock,
    ];

    fn decompressed(
        encoding: Encoding,
        wire: Vec<u8>,
        budget: &Arc<Budget>,
        limits: &BodyLimits,
    ) -> Result<(Bytes, Reservation), Refusal> {
        let reservation = budget.reserve(Holder::Requests, wire.len() as u64)?;
        let pool = BufferPool::new(Budget::new(1 << 20));
        let pooled = decompress(
            encoding,
            Bytes::copy_from_slice(&wire),
            Budget::new(u64::MAX).reserve(Holder::Requests, 0).unwrap(),
            limits,
            Some(&pool),
        );
        let plain = decompress(encoding, wire.into(), reservation, limits, None);
        if let (Ok((a, _)), Ok((b, _))) = (&pooled, &plain) {
            assert_eq!(a, b, "a buffer's old content never shows");
        }
        plain
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together_with_and_without_its_length() {
        let budget = Budget::new(1 << 30);
        let bytes: Vec<u8> = (0..=255_u8).cycle().take(200_000).collect();
        for declared in [None, Some("200000")] {
            let headers = declared
                .map(|n| headers(&[("content-length", n)]))
                .unwrap_or_default();
            let body = Pieces::new(&bytes, 1_000, true);
            let read = read(&headers, body, Encoding::Identity, &budget, &LIMITS)
                .await
                .unwrap();
            assert_eq!(read.bytes, bytes);
            assert_eq!(budget.used_bytes(), bytes.len() as u64);
            drop(read);
            assert_eq!(budget.used_bytes(), 0);
        }
    }

    #[tokio::test]
    async fn too_large_is_told_from_the_length_alone_and_while_reading() {
        let budget = Budget::new(1 << 30);
        let declared = headers(&[("content-length", "2000000")]);
        let silent = Pieces::new(&[], 1, false);
        let refused = read(&declared, silent, Encoding::Identity, &budget, &LIMITS).await;
        assert_eq!(refused.unwrap_err().kind(), RefusalKind::TooLarge);
        let body = Pieces::new(&vec![0; 2_000_000], 10_000, false);
        let refused = read(
            &HeaderMap::new(),
            body,
            Encoding::Identity,
            &budget,
            &LIMITS,
        )
        .await;
        assert_eq!(refused.unwrap_err().kind(), RefusalKind::TooLarge);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_full_budget_refuses_before_anything_is_read() {
        let budget = Budget::new(100_000);
        let held = budget.reserve(Holder::MetricHead, 60_000).unwrap();
        let declared = headers(&[("content-length", "50000")]);
        let silent = Pieces::new(&[], 1, false);
        let refused = read(&declared, silent, Encoding::Identity, &budget, &LIMITS).await;
        assert_eq!(refused.unwrap_err().kind(), RefusalKind::Overloaded);
        let body = Pieces::new(&vec![0; 90_000], 1_000, false);
        let refused = read(
            &HeaderMap::new(),
            body,
            Encoding::Identity,
            &budget,
            &LIMITS,
        )
        .await;
        assert_eq!(refused.unwrap_err().kind(), RefusalKind::Overloaded);
        drop(held);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_body_larger_than_the_whole_budget_is_refused_for_good() {
        let budget = Budget::new(1_000);
        let declared = headers(&[("content-length", "5000")]);
        let silent = Pieces::new(&[], 1, false);
        let refused = read(&declared, silent, Encoding::Identity, &budget, &LIMITS).await;
        assert_eq!(refused.unwrap_err().kind(), RefusalKind::TooLarge);
    }

    #[tokio::test]
    async fn silence_inside_a_body_ends_the_request() {
        let budget = Budget::new(1 << 20);
        let limits = BodyLimits {
            idle_timeout: Duration::from_millis(20),
            ..LIMITS
        };
        let body = Pieces::new(b"abc", 1, false);
        let refused = read(
            &HeaderMap::new(),
            body,
            Encoding::Identity,
            &budget,
            &limits,
        )
        .await;
        assert_eq!(refused.unwrap_err().kind(), RefusalKind::SlowBody);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_body_that_is_not_as_long_as_it_says_is_refused() {
        let budget = Budget::new(1 << 20);
        for length in ["2", "4"] {
            let headers = headers(&[("content-length", length)]);
            let body = Pieces::new(b"abc", 1, true);
            let refused = read(&headers, body, Encoding::Identity, &budget, &LIMITS).await;
            assert_eq!(refused.unwrap_err().kind(), RefusalKind::Invalid);
        }
    }

    fn message(flag: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
        [&[flag], &length.to_be_bytes()[..], bytes].concat()
    }

    #[tokio::test]
    async fn a_unary_message_is_read_in_pieces_of_any_size() {
        let budget = Budget::new(1 << 20);
        let plain = message(0, 5, b"hello");
        let packed = gzip(b"hello");
        let packed = message(1, u32::try_from(packed.len()).unwrap(), &packed);
        for (call, wire) in [
            (headers(&[]), plain),
            (headers(&[("grpc-encoding", "gzip")]), packed),
        ] {
            for piece_bytes in 1..=wire.len() {
                let body = Pieces::new(&wire, piece_bytes, true);
                let (bytes, reservation) = read_unary(&call, body, &budget, &LIMITS).await.unwrap();
                assert_eq!(&bytes[..], b"hello");
                assert!(reservation.bytes() >= 5);
            }
        }
        let empty = Full::new(Bytes::from_static(&[0; 5]));
        assert!(
            read_unary(&headers(&[]), empty, &budget, &LIMITS)
                .await
                .unwrap()
                .0
                .is_empty()
        );
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn calls_that_are_not_one_message_are_refused() {
        let budget = Budget::new(1 << 20);
        let plain = headers(&[]);
        for (call, wire, kind) in [
            (&plain, message(0, 5, b"hell"), RefusalKind::Invalid),
            (
                &plain,
                message(0, 5, b"hello, and more"),
                RefusalKind::Invalid,
            ),
            (&plain, message(1, 5, b"hello"), RefusalKind::Invalid),
            (&plain, message(2, 5, b"hello"), RefusalKind::Invalid),
            (&plain, vec![0, 0, 0], RefusalKind::Invalid),
            (&plain, Vec::new(), RefusalKind::Invalid),
            (&plain, message(0, u32::MAX, b""), RefusalKind::TooLarge),
            (
                &headers(&[("grpc-encoding", "br")]),
                message(1, 5, b"hello"),
                RefusalKind::UnsupportedMedia,
            ),
        ] {
            let refused = read_unary(call, Pieces::new(&wire, 7, true), &budget, &LIMITS).await;
            assert_eq!(refused.unwrap_err().kind(), kind, "{wire:?}");
        }
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_zip_bomb_costs_at_most_a_step_above_the_limit() {
        // 64 MiB of zeros against a limit of 1 MiB and a budget of 12 MiB.
        let bomb = vec![0_u8; 64 << 20];
        for encoding in [Encoding::Gzip, Encoding::Zstd, Encoding::SnappyBlock] {
            let budget = Budget::new(12 << 20);
            let wire = encode(encoding, &bomb);
            let refused = decompressed(encoding, wire, &budget, &LIMITS).unwrap_err();
            assert_eq!(refused.kind(), RefusalKind::TooLarge, "{encoding:?}");
            assert_eq!(budget.used_bytes(), 0);
        }
    }

    #[test]
    fn a_budget_that_runs_out_while_decompressing_is_transient() {
        let limits = BodyLimits {
            decoded_bytes_max: 64 << 20,
            ..LIMITS
        };
        for encoding in [Encoding::Gzip, Encoding::Zstd, Encoding::SnappyBlock] {
            let budget = Budget::new(100 << 20);
            let wire = encode(encoding, &vec![0_u8; 32 << 20]);
            let held = budget.reserve(Holder::MetricHead, 90 << 20).unwrap();
            let refused = decompressed(encoding, wire.clone(), &budget, &limits).unwrap_err();
            assert_eq!(refused.kind(), RefusalKind::Overloaded, "{encoding:?}");
            drop(held);
            assert_eq!(budget.used_bytes(), 0);
            // What does not fit an empty budget either will never do.
            let small = Budget::new(10 << 20);
            let refused = decompressed(encoding, wire, &small, &limits).unwrap_err();
            assert_eq!(refused.kind(), RefusalKind::TooLarge, "{encoding:?}");
        }
    }

    #[test]
    fn exactly_the_limit_is_accepted() {
        for encoding in ENCODINGS {
            let budget = Budget::new(1 << 30);
            let full = vec![7_u8; 1 << 20];
            let (bytes, reservation) =
                decompressed(encoding, encode(encoding, &full), &budget, &LIMITS).unwrap();
            assert_eq!(bytes, full);
            assert!(reservation.bytes() >= full.len() as u64, "{encoding:?}");
            let more = vec![7_u8; (1 << 20) + 1];
            let refused = decompressed(encoding, encode(encoding, &more), &budget, &LIMITS);
            assert_eq!(
                refused.unwrap_err().kind(),
                RefusalKind::TooLarge,
                "{encoding:?}"
            );
        }
    }

    #[test]
    fn a_snappy_body_that_declares_more_than_it_can_hold_is_not_believed() {
        let budget = Budget::new(1 << 30);
        // 1,000,000 as the declared length, and nothing that makes it.
        let refused = decompressed(
            Encoding::SnappyBlock,
            vec![0xc0, 0x84, 0x3d, 0x00],
            &budget,
            &LIMITS,
        );
        assert_eq!(refused.unwrap_err().kind(), RefusalKind::Invalid);
    }

    #[test]
    fn bytes_behind_a_zstd_frame_are_refused() {
        let budget = Budget::new(1 << 30);
        let wire = [encode(Encoding::Zstd, b"abc"), b"x".to_vec()].concat();
        let refused = decompressed(Encoding::Zstd, wire, &budget, &LIMITS);
        assert_eq!(refused.unwrap_err().kind(), RefusalKind::Invalid);
    }

    #[test]
    fn encodings_are_read_from_headers_and_others_named() {
        let of = |value| Encoding::from_content_encoding(&headers(&[("content-encoding", value)]));
        assert_eq!(of("GZIP"), Ok(Encoding::Gzip));
        assert_eq!(of("identity"), Ok(Encoding::Identity));
        assert_eq!(of("zstd"), Ok(Encoding::Zstd));
        assert!(of("br").unwrap_err().message().contains("br"));
        assert!(of("gzip, gzip").is_err());
        assert_eq!(
            Encoding::from_content_encoding(&HeaderMap::new()),
            Ok(Encoding::Identity)
        );
    }

    proptest! {
        #[test]
        fn whatever_was_compressed_comes_back(
            bytes in prop::collection::vec(0_u8..4, 0..100_000),
            which in 0_usize..4,
        ) {
            let budget = Budget::new(1 << 30);
            let encoding = ENCODINGS[which];
            let (back, reservation) =
                decompressed(encoding, encode(encoding, &bytes), &budget, &LIMITS).unwrap();
            prop_assert_eq!(&back[..], &bytes[..]);
            drop(reservation);
            prop_assert_eq!(budget.used_bytes(), 0);
        }

        #[test]
        fn any_bytes_are_taken_or_refused_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            which in 0_usize..4,
        ) {
            let budget = Budget::new(1 << 30);
            let _ = decompressed(ENCODINGS[which], bytes, &budget, &LIMITS);
            prop_assert_eq!(budget.used_bytes(), 0);
        }

        #[test]
        fn a_damaged_body_is_taken_or_refused_without_panic(
            bytes in prop::collection::vec(0_u8..4, 1..5_000),
            which in 0_usize..4,
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let budget = Budget::new(1 << 30);
            let mut wire = encode(ENCODINGS[which], &bytes);
            let at = at.index(wire.len());
            wire[at] ^= flip;
            let _ = decompressed(ENCODINGS[which], wire, &budget, &LIMITS);
            prop_assert_eq!(budget.used_bytes(), 0);
        }
    }
}
