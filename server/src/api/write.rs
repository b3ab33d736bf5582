//! `rootline.v1.Write`: both signals in one batch.
//!
//! The request is read against the memory budget before tonic's codec would have allocated it, and
//! walked where it lies: a known series costs one hash of its label bytes, spans go through the
//! OTLP decoder. What is wrong with one item costs that item; what is wrong with the message refuses
//! all of it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use rootline_engine::{
    Exemplar, LabelError, Labels, LabelsBuilder, Metadata, MetricBatch, MetricKind, Rejections,
    SeriesRow, SpanBatch, SpanId, Timestamp, TraceId, WriteBatch, WriteOutcome,
};
use tonic::{Status, body::Body, server::NamedService};

use super::v1;
use crate::{
    body,
    node::NodeState,
    otlp::{DecodeError, decode_traces, wire::Message},
    refusal::Refusal,
    self_metrics::Protocol,
};

/// The domain of series bytes: label fields as canonical label bytes have them.
const DOMAIN_LABEL_FIELDS: u8 = 0;
/// Field 1 of length-delimited type, which label fields are re-tagged as; they have that tag here too.
const LABEL_TAG: u8 = 0x0a;
const METHOD: &str = "/rootline.v1.Write/Write";

/// The service, on the level of HTTP.
#[derive(Clone, Debug)]
pub(super) struct WriteService {
    node: Arc<NodeState>,
}

impl WriteService {
    pub(super) fn new(node: Arc<NodeState>) -> Self {
        Self { node }
    }
}

impl NamedService for WriteService {
    const NAME: &'static str = "rootline.v1.Write";
}

impl tower::Service<Request<Body>> for WriteService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let node = Arc::clone(&self.node);
        Box::pin(async move {
            if request.uri().path() != METHOD {
                let status = Status::unimplemented("rootline.v1.Write has the method Write");
                return Ok(status.into_http());
            }
            Ok(match write(&node, request).await {
                Ok(outcome) => answer(&response(outcome)),
                Err(refusal) => {
                    node.metrics().refused(Protocol::Api, &refusal);
                    refusal.to_grpc().into_http()
                }
            })
        })
    }
}

async fn write(node: &Arc<NodeState>, request: Request<Body>) -> Result<WriteOutcome, Refusal> {
    let (head, body) = request.into_parts();
    let limits = node.body_limits();
    let body = body::read_unary_wire(&head.headers, body, node.budget()?, &limits).await?;
    let written = node.write(Protocol::Api, body, decode_write).await?;
    Ok(written.outcome)
}

fn response(outcome: WriteOutcome) -> v1::WriteResponse {
    let rejections = outcome.rejections;
    v1::WriteResponse {
        lsn: outcome.lsn.map_or(0, |lsn| lsn.0),
        stored_samples: outcome.samples,
        stored_spans: outcome.spans,
        rejected_samples: rejections.samples,
        rejected_spans: rejections.spans,
        rejected_exemplars: rejections.exemplars,
        rejected_metadata: rejections.metadata,
        first_rejection: rejections.first_reason.unwrap_or_default(),
    }
}

/// A unary gRPC answer: prefix, message, trailers.
fn answer(message: &v1::WriteResponse) -> Response<Body> {
    let bytes = message.encode_to_vec();
    let mut framed = Vec::with_capacity(5 + bytes.len());
    framed.push(0);
    framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&bytes);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    let content_type = HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// A serialised `WriteRequest` into a batch. What is wrong with one item is counted in the batch's rejections.
///
/// # Errors
/// The message as a whole is malformed; the batch is then not to be written.
pub fn decode_write<'a>(bytes: &'a [u8], batch: &mut WriteBatch<'a>) -> Result<(), Refusal> {
    let (metrics, spans, rejections) = batch.split();
    walk(Message::root(bytes), metrics, spans, rejections).map_err(|error| {
        Refusal::invalid(format!(
            "the message is no rootline.v1.WriteRequest: {error}"
        ))
    })
}

fn walk<'a>(
    message: Message<'a>,
    metrics: &mut MetricBatch<'a>,
    spans: &mut SpanBatch,
    rejections: &mut Rejections,
) -> Result<(), DecodeError> {
    let mut labels = Vec::new();
    // Of a field that occurs twice protobuf takes the last.
    let mut otlp_traces: &[u8] = &[];
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => series(field.message()?, metrics, rejections, &mut labels)?,
            2 => metadata(field.message()?, metrics, rejections)?,
            3 => otlp_traces = field.bytes()?,
            _ => {}
        }
    }
    decode_traces(otlp_traces, spans, rejections)
}

/// Times and values may come packed or not, and in any order with labels: a first walk gathers the
/// labels and counts, a second one pairs times with values.
fn series<'a>(
    message: Message<'a>,
    metrics: &mut MetricBatch<'a>,
    rejections: &mut Rejections,
    labels: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    labels.clear();
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => {
                let label = field.bytes()?;
                labels.push(LABEL_TAG);
                prost::encoding::encode_varint(label.len() as u64, labels);
                labels.extend_from_slice(label);
            }
            2 => times.extend(field.fixed64s()?),
            3 => values.extend(field.fixed64s()?),
            _ => {}
        }
    }
    let row = metrics.series_bytes(DOMAIN_LABEL_FIELDS, labels, parse_labels);
    if times.len() == values.len() {
        for (time, value) in times.iter().zip(&values) {
            let time = Timestamp::from_nanos(time.cast_signed());
            metrics.sample(row, time, f64::from_bits(*value));
        }
    } else {
        let (times, values) = (times.len(), values.len());
        rejections.reject_samples(
            times.max(values) as u64,
            format_args!("a series with {times} times and {values} values"),
        );
    }
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        if field.number == 4 {
            exemplar(field.message()?, row, metrics, rejections)?;
        }
    }
    Ok(())
}

/// Label fields as a sender wrote them; an empty value means that the label is absent.
fn parse_labels<'b>(bytes: &'b [u8], labels: &mut LabelsBuilder<'b>) -> Result<(), LabelError> {
    *labels = LabelsBuilder::from_encoded(bytes)?;
    Ok(())
}

fn exemplar(
    message: Message<'_>,
    row: SeriesRow,
    metrics: &mut MetricBatch<'_>,
    rejections: &mut Rejections,
) -> Result<(), DecodeError> {
    let (mut time_ns, mut value) = (0i64, 0.0);
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => time_ns = field.fixed64()?.cast_signed(),
            2 => value = field.double()?,
            3 => trace_id = field.bytes()?,
            4 => span_id = field.bytes()?,
            5 => pairs.push(label(field.message()?)?),
            _ => {}
        }
    }
    let made = (|| {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| "text is not UTF-8".to_owned());
        let trace_id = match text(trace_id)? {
            "" => None,
            hex => Some(TraceId::from_hex(hex).ok_or("trace_id is not 32 hexadecimal digits")?),
        };
        let span_id = match text(span_id)? {
            "" => None,
            hex => Some(SpanId::from_hex(hex).ok_or("span_id is not 16 hexadecimal digits")?),
        };
        let mut labels = Labels::builder();
        for (name, value) in pairs {
            labels.set(text(name)?, text(value)?);
        }
        let labels = labels.build().map_err(|error| error.to_string())?;
        Ok::<_, String>(Exemplar {
            time: Timestamp::from_nanos(time_ns),
            value,
            trace_id,
            span_id,
            labels,
        })
    })();
    match made {
        Ok(exemplar) => metrics.exemplar(row, exemplar),
        Err(reason) => rejections.reject_exemplars(1, format_args!("exemplar: {reason}")),
    }
    Ok(())
}

fn label(message: Message<'_>) -> Result<(&[u8], &[u8]), DecodeError> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((name, value))
}

fn metadata(
    message: Message<'_>,
    metrics: &mut MetricBatch<'_>,
    rejections: &mut Rejections,
) -> Result<(), DecodeError> {
    use v1::metric_metadata::Kind;
    let (mut metric, mut unit, mut help): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let mut kind = 0;
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => metric = field.bytes()?,
            2 => kind = field.int32()?,
            3 => unit = field.bytes()?,
            4 => help = field.bytes()?,
            _ => {}
        }
    }
    let kind = match Kind::try_from(kind) {
        Ok(Kind::Counter) => MetricKind::Counter,
        Ok(Kind::Gauge) => MetricKind::Gauge,
        Ok(Kind::Histogram) => MetricKind::Histogram,
        Ok(Kind::GaugeHistogram) => MetricKind::GaugeHistogram,
        Ok(Kind::Summary) => MetricKind::Summary,
        Ok(Kind::Info) => MetricKind::Info,
        Ok(Kind::StateSet) => MetricKind::StateSet,
        // A kind of a newer release is as good as none.
        Ok(Kind::Unknown) | Err(_) => MetricKind::Unknown,
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
    match (text(metric), text(unit), text(help)) {
        (Ok(metric), Ok(unit), Ok(help)) if !metric.is_empty() => {
            metrics.metadata(Metadata {
                metric,
                kind,
                unit,
                help,
            });
        }
        (Ok(_), Ok(_), Ok(_)) => rejections.reject_metadata(1, "metadata without a metric's name"),
        _ => rejections.reject_metadata(1, "metadata whose text is not UTF-8"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole request to break: every field in use.
    fn request() -> Vec<u8> {
        let label = |name: &str, value: &str| v1::Label {
            name: name.into(),
            value: value.into(),
        };
        let exemplar = v1::Exemplar {
            time_ns: 1,
            value: 2.0,
            trace_id: "0a".repeat(16),
            span_id: "0b".repeat(8),
            labels: vec![label("a", "b")],
        };
        let series = v1::SeriesWrite {
            labels: vec![label("job", "x"), label("__name__", "m"), label("gone", "")],
            times_ns: vec![5, -7],
            values: vec![1.0, f64::NAN],
            exemplars: vec![exemplar],
        };
        let metadata = v1::MetricMetadata {
            metric: "m".into(),
            kind: 2,
            ..Default::default()
        };
        v1::WriteRequest {
            series: vec![series],
            metadata: vec![metadata],
            otlp_traces: vec![],
        }
        .encode_to_vec()
    }

    fn engine() -> (rootline_engine::Engine, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (
            rootline_engine::Engine::builder(dir.path()).open().unwrap(),
            dir,
        )
    }

    #[test]
    fn every_field_reaches_the_batch_and_what_is_wrong_is_counted() {
        let (engine, _dir) = engine();
        let bytes = request();
        let mut batch = engine.batch();
        decode_write(&bytes, &mut batch).unwrap();
        assert!(batch.rejections().is_empty());
        assert_eq!(batch.metrics().samples_len(), 2);
        assert_eq!(
            (
                batch.metrics().exemplars_len(),
                batch.metrics().metadata_len()
            ),
            (1, 1)
        );
        let outcome = engine.write(&mut batch).unwrap();
        assert_eq!((outcome.samples, outcome.rejections.samples), (2, 0));

        let mut wrong = v1::WriteRequest::decode(request().as_slice()).unwrap();
        wrong.series[0].exemplars[0].trace_id = "xyz".into();
        wrong.series[0].values.pop();
        wrong.metadata[0].metric.clear();
        let bytes = wrong.encode_to_vec();
        let mut batch = engine.batch();
        decode_write(&bytes, &mut batch).unwrap();
        let rejections = batch.rejections();
        let counts = (
            rejections.samples,
            rejections.exemplars,
            rejections.metadata,
        );
        assert_eq!(counts, (2, 1, 1));
    }

    #[test]
    fn broken_bytes_are_decoded_or_refused() {
        let (engine, _dir) = engine();
        let whole = request();
        for cut in 0..whole.len() {
            let _ = decode_write(&whole[..cut], &mut engine.batch());
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let mut batch = engine.batch();
                if decode_write(&flipped, &mut batch).is_ok() {
                    engine.write(&mut batch).unwrap();
                }
            }
        }
    }

    #[test]
    fn an_answer_is_one_framed_message() {
        let message = v1::WriteResponse {
            lsn: 7,
            ..Default::default()
        };
        let response = answer(&message);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let collected = runtime.block_on(response.into_body().collect()).unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        let bytes = collected.to_bytes();
        assert_eq!(bytes[..5], [0, 0, 0, 0, 2]);
        assert_eq!(v1::WriteResponse::decode(&bytes[5..]).unwrap(), message);
    }
}
