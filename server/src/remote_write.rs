//! Prometheus remote write 1.0: from a decompressed request to a batch.
//!
//! The wire format is walked by hand, over the request's bytes, without building messages:
//!
//! ```text
//! WriteRequest = ( 1: TimeSeries | 3: MetricMetadata )*
//! TimeSeries   = ( 1: Label | 2: Sample | 3: Exemplar | 4: Histogram )*
//! ```
//!
//! 1. The `Label` fields of a series, tags included, stand one behind the other in what every known
//!    sender sends. That stretch of bytes goes to the batch as it is: it identifies the series, and
//!    only bytes never seen are parsed ([`parse_labels`]), so a known series costs one hash and no
//!    allocation. If other fields stand between them they are gathered in a buffer first.
//! 2. Samples are added in order; times go from milliseconds to nanoseconds, each checked.
//!
//! Bytes that are no protobuf refuse the whole request. What is wrong with one item (a time out of
//! range, a native histogram, labels that are not acceptable) costs that item; the rest is stored,
//! and the sender gets a 400 with count and first reason, which it does not retry.

use std::{fmt, sync::Arc};

use axum::{body::Body, extract::State, response::Response};
use http::{HeaderMap, Request, StatusCode, header};
use rootline_engine::{
    Exemplar, LabelError, Labels, LabelsBuilder, Metadata, MetricBatch, MetricKind, Rejections,
    SpanId, Timestamp, TraceId,
};

use crate::{
    body::{self, Encoding},
    node::NodeState,
    refusal::{ErrorBody, Refusal},
    self_metrics::Protocol,
};

/// The domain of series bytes: the same layout as canonical label bytes.
const DOMAIN_LABEL_FIELDS: u8 = 0;
/// Why native histograms are refused.
const NO_NATIVE_HISTOGRAMS: &str = "native histograms are not supported in this release";
/// The content type of remote write 2.0, which is refused by name.
const PROTO_V2: &str = "io.prometheus.write.v2.Request";

/// Bytes that are no `WriteRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What was expected.
    reason: &'static str,
    /// Bytes from there to the end of the request.
    rest_bytes: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the body is no remote write request: {} ({} bytes before its end)",
            self.reason, self.rest_bytes
        )
    }
}

impl std::error::Error for Malformed {}

/// Decodes a decompressed request into `metrics`; what it refuses item by item is counted in
/// `rejections`.
///
/// # Errors
/// [`Malformed`]; the batch then holds part of the request and must not be written.
pub fn decode<'a>(
    request: &'a [u8],
    metrics: &mut MetricBatch<'a>,
    rejections: &mut Rejections,
) -> Result<(), Malformed> {
    let mut gathered = Vec::new();
    let mut fields = Fields::new(request);
    while let Some(field) = fields.next()? {
        let outcome = match field {
            Field {
                number: 1,
                value: Value::Bytes(bytes),
                ..
            } => time_series(bytes, metrics, rejections, &mut gathered),
            Field {
                number: 3,
                value: Value::Bytes(bytes),
                ..
            } => metadata(bytes, metrics, rejections),
            Field { number: 1 | 3, .. } => Err(fields.malformed("a field of another wire type")),
            _ => Ok(()),
        };
        // Inside a message the distance to the request's end is not known: add what follows.
        outcome.map_err(|e| Malformed {
            rest_bytes: e.rest_bytes + fields.rest.len(),
            ..e
        })?;
    }
    Ok(())
}

/// Parses the `Label` fields of a series, in any order, into `labels`.
///
/// # Errors
/// Bytes that are no protobuf, or text that is not UTF-8. Limits, order and repetition are checked
/// by the engine.
pub fn parse_labels<'b>(
    fields: &'b [u8],
    labels: &mut LabelsBuilder<'b>,
) -> Result<(), LabelError> {
    *labels = LabelsBuilder::from_encoded(fields)?;
    Ok(())
}

/// Where the labels of a series stand in its bytes.
enum LabelFields {
    Absent,
    /// Start and end of the one stretch.
    Contiguous(usize, usize),
    Scattered,
}

/// How far the `Label` fields with a length of one byte reach that the series begins with: nearly
/// always all of its labels. What they hold is not looked at.
#[inline]
fn label_run(series: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&[0x0a, length @ 0..=0x7f]) = series.get(at..).and_then(<[u8]>::first_chunk::<2>)
    {
        let end = at + 2 + usize::from(length);
        if end > series.len() {
            break;
        }
        at = end;
    }
    at
}

/// Where the labels of `series` stand, whose first `run` bytes are [`label_run`].
fn find_labels(series: &[u8], run: usize) -> Result<LabelFields, Malformed> {
    let mut found = match run {
        0 => LabelFields::Absent,
        end => LabelFields::Contiguous(0, end),
    };
    let mut fields = Fields::new(series.get(run..).unwrap_or_default());
    loop {
        let start = series.len() - fields.rest.len();
        let Some(field) = fields.next()? else {
            return Ok(found);
        };
        if field.number != 1 {
            continue;
        }
        let end = series.len() - fields.rest.len();
        found = match found {
            LabelFields::Absent => LabelFields::Contiguous(start, end),
            LabelFields::Contiguous(first, last) if last == start => {
                LabelFields::Contiguous(first, end)
            }
            _ => LabelFields::Scattered,
        };
    }
}

fn time_series<'a>(
    series: &'a [u8],
    metrics: &mut MetricBatch<'a>,
    rejections: &mut Rejections,
    gathered: &mut Vec<u8>,
) -> Result<(), Malformed> {
    // What scrapers send: labels, then one sample, and nothing else.
    let run = label_run(series);
    if run > 0
        && let Some([0x12, length @ 0x0a..=0x7f, one @ ..]) = series.get(run..)
        && one.len() == usize::from(*length)
        && let Some((timestamp_ms, value)) = plain_sample(one)
    {
        match Timestamp::from_millis(timestamp_ms) {
            Ok(time) => {
                let bytes = series.get(..run).unwrap_or_default();
                let row = metrics.series_raw(DOMAIN_LABEL_FIELDS, bytes, parse_labels);
                metrics.sample(row, time, value);
            }
            Err(error) => rejections.reject_samples(1, error),
        }
        return Ok(());
    }
    let labels = find_labels(series, run)?;
    let mut row = None;
    // A row is added with the first thing that needs it, so that an empty series leaves no trace.
    let mut row_of = |metrics: &mut MetricBatch<'a>| match (row, &labels) {
        (Some(row), _) => Some(row),
        (None, LabelFields::Absent) => None,
        (None, LabelFields::Contiguous(start, end)) => {
            let bytes = series.get(*start..*end).unwrap_or_default();
            row = Some(metrics.series_raw(DOMAIN_LABEL_FIELDS, bytes, parse_labels));
            row
        }
        (None, LabelFields::Scattered) => {
            gather_labels(series, gathered);
            row = Some(metrics.series_bytes(DOMAIN_LABEL_FIELDS, gathered, parse_labels));
            row
        }
    };
    let after_labels = match labels {
        LabelFields::Contiguous(0, end) => series.get(end..).unwrap_or_default(),
        _ => series,
    };
    let mut fields = Fields::new(after_labels);
    while let Some(field) = fields.next()? {
        let Value::Bytes(bytes) = field.value else {
            if (1..=4).contains(&field.number) {
                return Err(fields.malformed("a field of another wire type"));
            }
            continue;
        };
        match field.number {
            2 => {
                let (timestamp_ms, value) = sample(bytes)?;
                match (row_of(metrics), Timestamp::from_millis(timestamp_ms)) {
                    (Some(row), Ok(time)) => metrics.sample(row, time, value),
                    (None, _) => rejections.reject_samples(1, "a series without labels"),
                    (_, Err(error)) => rejections.reject_samples(1, error),
                }
            }
            3 => match exemplar(bytes)? {
                Ok(exemplar) => match row_of(metrics) {
                    Some(row) => metrics.exemplar(row, exemplar),
                    None => rejections.reject_exemplars(1, "a series without labels"),
                },
                Err(reason) => rejections.reject_exemplars(1, reason),
            },
            4 => rejections.reject_samples(1, NO_NATIVE_HISTOGRAMS),
            _ => {}
        }
    }
    Ok(())
}

fn gather_labels(series: &[u8], gathered: &mut Vec<u8>) {
    gathered.clear();
    let mut fields = Fields::new(series);
    loop {
        let before = fields.rest;
        // The walk went through once already, so it does not fail now.
        let Ok(Some(field)) = fields.next() else {
            return;
        };
        if field.number == 1 {
            let length = before.len() - fields.rest.len();
            gathered.extend_from_slice(before.get(..length).unwrap_or_default());
        }
    }
}

/// `(timestamp in ms, value)` of the form that every sender sends: value, then time.
#[inline]
fn plain_sample(bytes: &[u8]) -> Option<(i64, f64)> {
    let (value, rest) = bytes.strip_prefix(&[0x09])?.split_first_chunk()?;
    let mut fields = Fields::new(rest.strip_prefix(&[0x10])?);
    let timestamp = fields.varint().ok()?;
    let bits = u64::from_le_bytes(*value);
    let is_all = fields.rest.is_empty();
    is_all.then(|| (timestamp.cast_signed(), f64::from_bits(bits)))
}

/// `(timestamp in ms, value)`.
#[inline]
fn sample(bytes: &[u8]) -> Result<(i64, f64), Malformed> {
    if let Some(plain) = plain_sample(bytes) {
        return Ok(plain);
    }
    let (mut timestamp_ms, mut value) = (0, 0.0);
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next()? {
        match field {
            Field {
                number: 1,
                value: Value::Fixed64(bits),
            } => value = f64::from_bits(bits),
            Field {
                number: 2,
                value: Value::Varint(n),
            } => timestamp_ms = n.cast_signed(),
            Field { number: 1 | 2, .. } => {
                return Err(fields.malformed("a sample's field of another wire type"));
            }
            _ => {}
        }
    }
    Ok((timestamp_ms, value))
}

/// The inner result holds the reason for which one exemplar is refused.
fn exemplar(bytes: &[u8]) -> Result<Result<Exemplar, String>, Malformed> {
    let (mut timestamp_ms, mut value) = (0, 0.0);
    let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next()? {
        match field {
            Field {
                number: 1,
                value: Value::Bytes(label),
            } => pairs.push(label_pair(label)?),
            Field {
                number: 2,
                value: Value::Fixed64(bits),
            } => value = f64::from_bits(bits),
            Field {
                number: 3,
                value: Value::Varint(n),
            } => timestamp_ms = n.cast_signed(),
            Field { number: 1..=3, .. } => {
                return Err(fields.malformed("an exemplar's field of another wire type"));
            }
            _ => {}
        }
    }
    Ok(build_exemplar(timestamp_ms, value, &pairs))
}

fn build_exemplar(
    timestamp_ms: i64,
    value: f64,
    pairs: &[(&[u8], &[u8])],
) -> Result<Exemplar, String> {
    let time = Timestamp::from_millis(timestamp_ms).map_err(|e| e.to_string())?;
    let (mut trace_id, mut span_id) = (None, None);
    let mut labels = Labels::builder();
    for (name, value) in pairs {
        let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_| "an exemplar label is not UTF-8");
        let (name, value) = (utf8(name)?, utf8(value)?);
        // An id in its usual form is kept as an id; `trace_id` says then what the label said.
        match name {
            "trace_id" => {
                trace_id = TraceId::from_hex(value);
                if trace_id.is_some_and(|id| id.to_string() == value) {
                    continue;
                }
            }
            "span_id" => {
                span_id = SpanId::from_hex(value);
                if span_id.is_some_and(|id| id.to_string() == value) {
                    continue;
                }
            }
            "traceID" | "traceId" => trace_id = trace_id.or_else(|| TraceId::from_hex(value)),
            "spanID" | "spanId" => span_id = span_id.or_else(|| SpanId::from_hex(value)),
            _ => {}
        }
        labels.set(name, value);
    }
    let labels = labels.build().map_err(|e| e.to_string())?;
    Ok(Exemplar {
        time,
        value,
        trace_id,
        span_id,
        labels,
    })
}

fn label_pair(label: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::new(label);
    while let Some(field) = fields.next()? {
        match field {
            Field {
                number: 1,
                value: Value::Bytes(bytes),
            } => name = bytes,
            Field {
                number: 2,
                value: Value::Bytes(bytes),
            } => value = bytes,
            Field { number: 1 | 2, .. } => {
                return Err(fields.malformed("a label's field of another wire type"));
            }
            _ => {}
        }
    }
    Ok((name, value))
}

fn metadata(
    bytes: &[u8],
    metrics: &mut MetricBatch<'_>,
    rejections: &mut Rejections,
) -> Result<(), Malformed> {
    let mut kind = 0;
    let [mut metric, mut help, mut unit]: [&[u8]; 3] = [&[]; 3];
    let mut fields = Fields::new(bytes);
    while let Some(field) = fields.next()? {
        match field {
            Field {
                number: 1,
                value: Value::Varint(n),
            } => kind = n,
            Field {
                number: 2,
                value: Value::Bytes(bytes),
            } => metric = bytes,
            Field {
                number: 4,
                value: Value::Bytes(bytes),
            } => help = bytes,
            Field {
                number: 5,
                value: Value::Bytes(bytes),
            } => unit = bytes,
            Field {
                number: 1 | 2 | 4 | 5,
                ..
            } => {
                return Err(fields.malformed("a metadata field of another wire type"));
            }
            _ => {}
        }
    }
    let kind = match kind {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 => MetricKind::Histogram,
        4 => MetricKind::GaugeHistogram,
        5 => MetricKind::Summary,
        6 => MetricKind::Info,
        7 => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
    match (text(metric), text(unit), text(help)) {
        (Ok(metric), Ok(unit), Ok(help)) if !metric.is_empty() => {
            metrics.metadata(Metadata {
                metric,
                kind,
                unit,
                help,
            });
        }
        (Ok(_), Ok(_), Ok(_)) => rejections.reject_metadata(1, "metadata without a metric name"),
        _ => rejections.reject_metadata(1, "metadata that is not UTF-8"),
    }
    Ok(())
}

/// One field of a message.
struct Field<'a> {
    number: u64,
    value: Value<'a>,
}

enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message, one by one. Every step is checked against the end of the bytes.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn malformed(&self, reason: &'static str) -> Malformed {
        Malformed {
            reason,
            rest_bytes: self.rest.len(),
        }
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || key > u64::from(u32::MAX) {
            return Err(self.malformed("a field number is out of range"));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.cut())?;
                self.rest = rest;
                Value::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = self.varint()?;
                let split = usize::try_from(length)
                    .ok()
                    .and_then(|n| self.rest.split_at_checked(n));
                let (bytes, rest) = split.ok_or_else(|| self.cut())?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => {
                let (_, rest) = self
                    .rest
                    .split_first_chunk::<4>()
                    .ok_or_else(|| self.cut())?;
                self.rest = rest;
                Value::Fixed32
            }
            _ => return Err(self.malformed("an unknown wire type")),
        };
        Ok(Some(Field { number, value }))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        if let [byte @ 0..=0x7f, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                if i == 9 && byte > 1 {
                    break;
                }
                self.rest = self.rest.get(i + 1..).unwrap_or_default();
                return Ok(number);
            }
        }
        Err(self.malformed("a number is cut or too long"))
    }

    fn cut(&self) -> Malformed {
        self.malformed("a field points past the end")
    }
}

/// `POST /api/v1/write`.
pub(crate) async fn handle(
    State(state): State<Arc<NodeState>>,
    request: Request<Body>,
) -> Response {
    match receive(&state, request).await {
        Ok(response) => response,
        Err(refusal) => {
            state.metrics().refused(Protocol::RemoteWrite, &refusal);
            refusal.to_http(ErrorBody::Text)
        }
    }
}

async fn receive(state: &Arc<NodeState>, request: Request<Body>) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let budget = state.budget()?;
    check_content_type(&parts.headers)?;
    let encoding = content_encoding(&parts.headers)?;
    let wire = body::read(&parts.headers, body, encoding, budget, &state.body_limits()).await?;
    let written = state
        .write(Protocol::RemoteWrite, wire, |bytes, batch| {
            let (metrics, _, rejections) = batch.split();
            decode(bytes, metrics, rejections).map_err(|e| Refusal::invalid(e.to_string()))
        })
        .await?;
    let rejections = &written.outcome.rejections;
    if rejections.is_empty() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let refused = rejections.samples + rejections.exemplars + rejections.metadata;
    let reason = rejections
        .first_reason
        .as_deref()
        .unwrap_or("not acceptable");
    let refusal = Refusal::invalid(format!(
        "{refused} items refused for good ({} samples, {} exemplars, {} metadata), the first because: \
         {reason}. The rest was stored ({} samples)",
        rejections.samples, rejections.exemplars, rejections.metadata, written.outcome.samples
    ));
    Ok(refusal.to_http(ErrorBody::Text))
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(Refusal::unsupported_media(format!(
            "content type {text:?} is not supported: remote write is application/x-protobuf"
        )));
    }
    for parameter in parts {
        if let Some(proto) = parameter.strip_prefix("proto=")
            && proto.trim_matches('"') != "prometheus.WriteRequest"
        {
            let hint = if proto.trim_matches('"') == PROTO_V2 {
                "remote write 2.0 is not supported in this release: send 1.0"
            } else {
                "this message is not known"
            };
            return Err(Refusal::unsupported_media(format!(
                "{hint} (content type {text:?}; supported: proto=prometheus.WriteRequest)"
            )));
        }
    }
    Ok(())
}

fn content_encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    match headers.get(header::CONTENT_ENCODING) {
        None => Ok(Encoding::SnappyBlock),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"snappy") => {
            Ok(Encoding::SnappyBlock)
        }
        Some(value) => Err(Refusal::unsupported_media(format!(
            "content encoding {:?} is not supported: remote write is compressed with snappy",
            String::from_utf8_lossy(value.as_bytes())
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        ops::ControlFlow,
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use proptest::prelude::*;
    use prost::Message as _;
    use rootline_engine::{
        Durability, Engine, MatchOp, Matcher, QueryLimits, Settings, TimeRange, WriteOutcome,
    };

    use super::*;
    use crate::proto::prometheus as pb;

    struct Store {
        engine: Engine,
        _dir: tempfile::TempDir,
    }

    impl Store {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut settings = Settings::default();
            settings.durability = Durability::Interval(Duration::from_mins(1));
            let engine = Engine::builder(dir.path())
                .settings(settings)
                .open()
                .unwrap();
            Self { engine, _dir: dir }
        }

        fn write(&self, request: &[u8]) -> Result<WriteOutcome, Malformed> {
            let mut batch = self.engine.batch();
            let (metrics, _, rejections) = batch.split();
            decode(request, metrics, rejections)?;
            Ok(self.engine.write(&mut batch).unwrap())
        }

        /// Samples by labels without `case`, as `(ns, bits)`.
        fn samples(&self, case: &str) -> BTreeMap<String, Vec<(i64, u64)>> {
            let matchers = [Matcher::new(MatchOp::Equal, "case", case).unwrap()];
            let control = self.engine.query_control(None, QueryLimits::default());
            let mut all = BTreeMap::new();
            let snapshot = self.engine.snapshot().unwrap();
            snapshot
                .select(&matchers, TimeRange::ALL, &control, &mut |series| {
                    let bits = series.values.iter().map(|v| v.to_bits());
                    let samples = series.timestamps.iter().copied().zip(bits).collect();
                    all.insert(series.labels.to_string(), samples);
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
            all
        }
    }

    fn label(name: &str, value: &str) -> pb::Label {
        pb::Label {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    fn series(name: &str, samples: &[(i64, f64)]) -> pb::TimeSeries {
        pb::TimeSeries {
            labels: vec![label("__name__", name), label("case", "c")],
            samples: samples
                .iter()
                .map(|&(timestamp, value)| pb::Sample { value, timestamp })
                .collect(),
            ..pb::TimeSeries::default()
        }
    }

    fn request(timeseries: Vec<pb::TimeSeries>) -> Vec<u8> {
        pb::WriteRequest {
            timeseries,
            metadata: vec![],
        }
        .encode_to_vec()
    }

    #[test]
    fn a_time_out_of_range_costs_only_its_sample() {
        let store = Store::new();
        let outcome = store.write(&request(vec![series("up", &[(1, 1.0), (i64::MAX, 2.0)])]));
        let outcome = outcome.unwrap();
        assert_eq!((outcome.samples, outcome.rejections.samples), (1, 1));
        assert!(
            outcome
                .rejections
                .first_reason
                .unwrap()
                .contains("nanoseconds")
        );
        assert_eq!(
            store.samples("c")[r#"up{case="c"}"#],
            [(1_000_000, 1.0_f64.to_bits())]
        );
    }

    #[test]
    fn native_histograms_are_refused_and_the_rest_is_stored() {
        let store = Store::new();
        let mut with_histogram = series("h", &[(5, 1.0)]);
        with_histogram.histograms = vec![
            pb::Histogram {
                count_int: 3,
                ..Default::default()
            };
            2
        ];
        let outcome = store.write(&request(vec![with_histogram])).unwrap();
        assert_eq!((outcome.samples, outcome.rejections.samples), (1, 2));
        assert_eq!(
            outcome.rejections.first_reason.as_deref(),
            Some(NO_NATIVE_HISTOGRAMS)
        );
    }

    #[test]
    fn a_bad_label_set_costs_only_its_series() {
        let store = Store::new();
        let mut twice = series("a", &[(5, 1.0)]);
        twice.labels.push(label("case", "again"));
        let nameless = pb::TimeSeries {
            labels: vec![],
            ..series("b", &[(5, 1.0)])
        };
        let outcome = store.write(&request(vec![twice, nameless, series("ok", &[(5, 1.0)])]));
        let outcome = outcome.unwrap();
        assert_eq!((outcome.samples, outcome.rejections.samples), (1, 2));
        assert_eq!(store.samples("c").len(), 1);
    }

    #[test]
    fn empty_and_metadata_only_requests_are_fine() {
        let store = Store::new();
        assert_eq!(store.write(&[]).unwrap().lsn, None);
        let metadata = vec![pb::MetricMetadata {
            r#type: pb::metric_metadata::MetricType::Counter as i32,
            metric_family_name: "up".to_owned(),
            help: "Is it up?".to_owned(),
            unit: String::new(),
        }];
        let only_metadata = pb::WriteRequest {
            timeseries: vec![],
            metadata,
        }
        .encode_to_vec();
        let outcome = store.write(&only_metadata).unwrap();
        assert!(outcome.rejections.is_empty());
    }

    #[test]
    fn labels_that_do_not_stand_together_are_gathered() {
        let store = Store::new();
        let mut scattered = Vec::new();
        let sample = pb::Sample {
            value: 2.5,
            timestamp: 7,
        };
        // sample, label, sample, label
        let parts: [(u8, Vec<u8>); 4] = [
            (0x12, sample.encode_to_vec()),
            (0x0a, label("case", "c").encode_to_vec()),
            (
                0x12,
                pb::Sample {
                    value: 3.5,
                    timestamp: 8,
                }
                .encode_to_vec(),
            ),
            (0x0a, label("__name__", "up").encode_to_vec()),
        ];
        for (tag, part) in parts {
            scattered.extend([tag, u8::try_from(part.len()).unwrap()]);
            scattered.extend(part);
        }
        let wire = [
            &[0x0a, u8::try_from(scattered.len()).unwrap()],
            &scattered[..],
        ]
        .concat();
        assert_eq!(store.write(&wire).unwrap().samples, 2);
        assert_eq!(store.samples("c")[r#"up{case="c"}"#].len(), 2);
    }

    #[test]
    fn ids_of_exemplars_become_ids() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let pairs: [(&[u8], &[u8]); 3] = [
            (b"trace_id", id.as_bytes()),
            (b"span_id", b"not hex"),
            (b"user", b"7"),
        ];
        let exemplar = build_exemplar(1, 2.0, &pairs).unwrap();
        assert_eq!(exemplar.trace_id, TraceId::from_hex(id));
        assert_eq!(exemplar.span_id, None);
        // What is no id in its usual form stays a label, so nothing is lost.
        assert_eq!(
            exemplar.labels.to_string(),
            r#"{span_id="not hex", user="7"}"#
        );
        assert!(build_exemplar(i64::MAX, 2.0, &[]).is_err());
    }

    #[test]
    fn content_types_are_told_apart() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            check_content_type(&headers)
        };
        assert_eq!(of("application/x-protobuf"), Ok(()));
        assert_eq!(
            of("application/x-protobuf;proto=prometheus.WriteRequest"),
            Ok(())
        );
        let v2 = of("application/x-protobuf;proto=io.prometheus.write.v2.Request").unwrap_err();
        assert_eq!(v2.http_status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(v2.message().contains("2.0"));
        assert!(of("application/json").is_err());
    }

    fn any_series() -> impl Strategy<Value = pb::TimeSeries> {
        let samples = prop::collection::vec(
            (-9_000_000_000_000_i64..9_000_000_000_000, any::<u64>()).prop_map(
                |(timestamp, bits)| pb::Sample {
                    value: f64::from_bits(bits),
                    timestamp,
                },
            ),
            0..6,
        );
        let exemplars = prop::collection::vec(
            (0_i64..1_000, any::<f64>(), "[a-z]{1,8}").prop_map(|(timestamp, value, text)| {
                pb::Exemplar {
                    labels: vec![label("trace_id", &text)],
                    value,
                    timestamp,
                }
            }),
            0..3,
        );
        (0_u8..4, "[a-z é]{1,6}", samples, exemplars).prop_map(
            |(metric, value, samples, exemplars)| pb::TimeSeries {
                labels: vec![label("__name__", &format!("m{metric}")), label("v", &value)],
                samples,
                exemplars,
                histograms: vec![],
            },
        )
    }

    #[test]
    fn what_prost_encodes_is_what_is_stored() {
        let store = Store::new();
        let cases = AtomicU64::new(0);
        proptest!(|(mut timeseries in prop::collection::vec(any_series(), 0..8))| {
            let case = cases.fetch_add(1, Ordering::Relaxed).to_string();
            let mut expected: BTreeMap<String, BTreeMap<i64, u64>> = BTreeMap::new();
            for series in &mut timeseries {
                series.labels.insert(1, label("case", &case));
                let pairs = series.labels.iter().map(|l| (l.name.as_str(), l.value.as_str()));
                let labels = Labels::from_pairs(pairs).unwrap().to_string();
                for sample in &series.samples {
                    let ns = sample.timestamp * 1_000_000;
                    let of_series = expected.entry(labels.clone()).or_default();
                    of_series.insert(ns, sample.value.to_bits());
                }
            }
            let sent: usize = timeseries.iter().map(|s| s.samples.len()).sum();
            let outcome = store.write(&request(timeseries)).unwrap();
            prop_assert_eq!(outcome.samples, sent as u64);
            prop_assert!(outcome.rejections.is_empty());
            let stored = store.samples(&case);
            let expected: BTreeMap<_, Vec<_>> =
                expected.into_iter().map(|(l, s)| (l, s.into_iter().collect())).collect();
            prop_assert_eq!(stored, expected);
        });
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_without_panic() {
        let store = Store::new();
        proptest!(|(bytes in prop::collection::vec(any::<u8>(), 0..300))| {
            let mut batch = store.engine.batch();
            let (metrics, _, rejections) = batch.split();
            let ours = decode(&bytes, metrics, rejections);
            // Whatever we take, prost takes as well (it also checks text, which we leave to the
            // engine, so not the other way round).
            if pb::WriteRequest::decode(&bytes[..]).is_ok() {
                let groups = bytes.iter().any(|b| matches!(b & 7, 3 | 4));
                prop_assert!(ours.is_ok() || groups);
            }
        });
    }

    #[test]
    fn a_damaged_request_is_decoded_or_refused_without_panic() {
        let store = Store::new();
        let wire = request(vec![
            series("a", &[(1, 1.0), (2, 2.0)]),
            series("b", &[(3, 3.0)]),
        ]);
        proptest!(|(at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<prop::sample::Index>())| {
            let mut damaged = wire.clone();
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            damaged.truncate(cut.index(damaged.len() + 1));
            let mut batch = store.engine.batch();
            let (metrics, _, rejections) = batch.split();
            let _ = decode(&damaged, metrics, rejections);
        });
    }
}
