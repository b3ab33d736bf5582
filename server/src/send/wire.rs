//! What a protobuf request holds: its items counted, its times found and moved.
//!
//! A [`Schema`] names the fields that matter on the way down to a time; all others are passed over
//! (and copied as they are when a request is rewritten), so that unknown fields survive. Walks are
//! total, and go no deeper than the schema.

use std::ops::AddAssign;

use prost::encoding::encode_varint;

use crate::otlp::{
    DecodeError,
    wire::{Message, Value},
};

/// What a request holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Spans.
    pub(crate) spans: u64,
    /// Samples: data points of OTLP, samples and histograms of remote write.
    pub(crate) samples: u64,
    /// Exemplars.
    pub(crate) exemplars: u64,
    /// Metadata entries of remote write.
    pub(crate) metadata: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.spans += other.spans;
        self.samples += other.samples;
        self.exemplars += other.exemplars;
        self.metadata += other.metadata;
    }
}

/// What a field counts as.
#[derive(Clone, Copy, Debug)]
enum Item {
    Span,
    Sample,
    Exemplar,
    Metadata,
}

#[derive(Clone, Copy, Debug)]
enum Role {
    /// A message on the way to a time.
    Message(&'static Schema),
    /// The same, and one of what is counted.
    Counted(&'static Schema, Item),
    /// Unsigned nanoseconds, fixed64; 0 means that it is not set.
    Nanos,
    /// Signed milliseconds, varint.
    Millis,
}

/// The fields of a message that lead to times.
#[derive(Debug)]
pub(crate) struct Schema(&'static [(u32, Role)]);

/// `ExportTraceServiceRequest`.
pub(crate) static TRACES: Schema = Schema(&[(1, Role::Message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Schema = Schema(&[(2, Role::Message(&SCOPE_SPANS))]);
static SCOPE_SPANS: Schema = Schema(&[(2, Role::Counted(&SPAN, Item::Span))]);
static SPAN: Schema = Schema(&[
    (7, Role::Nanos),
    (8, Role::Nanos),
    (11, Role::Message(&SPAN_EVENT)),
]);
static SPAN_EVENT: Schema = Schema(&[(1, Role::Nanos)]);

/// `ExportMetricsServiceRequest`.
pub(crate) static METRICS: Schema = Schema(&[(1, Role::Message(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Schema = Schema(&[(2, Role::Message(&SCOPE_METRICS))]);
static SCOPE_METRICS: Schema = Schema(&[(2, Role::Message(&METRIC))]);
static METRIC: Schema = Schema(&[
    (5, Role::Message(&NUMBERS)),
    (7, Role::Message(&NUMBERS)),
    (9, Role::Message(&HISTOGRAM)),
    (10, Role::Message(&EXPONENTIAL_HISTOGRAM)),
    (11, Role::Message(&SUMMARY)),
]);
static NUMBERS: Schema = Schema(&[(1, Role::Counted(&NUMBER_POINT, Item::Sample))]);
static HISTOGRAM: Schema = Schema(&[(1, Role::Counted(&HISTOGRAM_POINT, Item::Sample))]);
static EXPONENTIAL_HISTOGRAM: Schema =
    Schema(&[(1, Role::Counted(&EXPONENTIAL_HISTOGRAM_POINT, Item::Sample))]);
static SUMMARY: Schema = Schema(&[(1, Role::Counted(&SUMMARY_POINT, Item::Sample))]);
static NUMBER_POINT: Schema = Schema(&[
    (2, Role::Nanos),
    (3, Role::Nanos),
    (5, Role::Counted(&EXEMPLAR, Item::Exemplar)),
]);
static HISTOGRAM_POINT: Schema = Schema(&[
    (2, Role::Nanos),
    (3, Role::Nanos),
    (8, Role::Counted(&EXEMPLAR, Item::Exemplar)),
]);
static EXPONENTIAL_HISTOGRAM_POINT: Schema = Schema(&[
    (2, Role::Nanos),
    (3, Role::Nanos),
    (11, Role::Counted(&EXEMPLAR, Item::Exemplar)),
]);
static SUMMARY_POINT: Schema = Schema(&[(2, Role::Nanos), (3, Role::Nanos)]);
static EXEMPLAR: Schema = Schema(&[(2, Role::Nanos)]);

/// `prometheus.WriteRequest`.
pub(crate) static WRITE_REQUEST: Schema = Schema(&[
    (1, Role::Message(&TIME_SERIES)),
    (3, Role::Counted(&NOTHING, Item::Metadata)),
]);
static TIME_SERIES: Schema = Schema(&[
    (2, Role::Counted(&SAMPLE, Item::Sample)),
    (3, Role::Counted(&SERIES_EXEMPLAR, Item::Exemplar)),
    (4, Role::Counted(&NATIVE_HISTOGRAM, Item::Sample)),
]);
static SAMPLE: Schema = Schema(&[(2, Role::Millis)]);
static SERIES_EXEMPLAR: Schema = Schema(&[(3, Role::Millis)]);
static NATIVE_HISTOGRAM: Schema = Schema(&[(15, Role::Millis)]);
static NOTHING: Schema = Schema(&[]);

impl Schema {
    fn role(&self, number: u32) -> Option<Role> {
        self.0
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, role)| *role)
    }
}

/// Nanoseconds in a millisecond.
const NS_PER_MS: i128 = 1_000_000;

/// What a walk over a request found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// What the request holds.
    pub(crate) counts: Counts,
    /// Its newest time in nanoseconds since the epoch; `None` if it has none.
    pub(crate) newest_ns: Option<i128>,
}

impl Found {
    /// Takes notice of a time.
    pub(crate) fn see_ns(&mut self, ns: i128) {
        self.newest_ns = self.newest_ns.max(Some(ns));
    }
}

/// Counts what `message` holds and finds its newest time.
pub(crate) fn survey(message: &[u8], schema: &Schema) -> Result<Found, DecodeError> {
    let mut found = Found::default();
    survey_into(Message::root(message), schema, &mut found)?;
    Ok(found)
}

fn survey_into(
    message: Message<'_>,
    schema: &Schema,
    found: &mut Found,
) -> Result<(), DecodeError> {
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match (schema.role(field.number), field.value()) {
            (Some(Role::Message(inner)), Value::Bytes(_)) => {
                survey_into(field.message()?, inner, found)?;
            }
            (Some(Role::Counted(inner, item)), Value::Bytes(_)) => {
                let counts = &mut found.counts;
                *match item {
                    Item::Span => &mut counts.spans,
                    Item::Sample => &mut counts.samples,
                    Item::Exemplar => &mut counts.exemplars,
                    Item::Metadata => &mut counts.metadata,
                } += 1;
                survey_into(field.message()?, inner, found)?;
            }
            (Some(Role::Nanos), Value::Fixed64(ns)) if ns != 0 => found.see_ns(i128::from(ns)),
            (Some(Role::Millis), Value::Varint(ms)) => {
                found.see_ns(i128::from(ms.cast_signed()) * NS_PER_MS);
            }
            _ => {}
        }
    }
    Ok(())
}

/// `message` with all its times moved by `shift_ns`, held at the ends of what the format can say.
///
/// Millisecond times move by `shift_ns` rounded towards the past: give whole milliseconds to move
/// both signals alike.
pub(crate) fn shifted(
    message: &[u8],
    schema: &Schema,
    shift_ns: i64,
) -> Result<Vec<u8>, DecodeError> {
    shift_message(Message::root(message), schema, shift_ns)
}

fn shift_message(
    message: Message<'_>,
    schema: &Schema,
    shift_ns: i64,
) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::with_capacity(message.bytes().len() + message.bytes().len() / 64);
    let mut fields = message.fields();
    loop {
        let before = fields.rest();
        let Some(field) = fields.next()? else { break };
        let tag = u64::from(field.number) << 3;
        match (schema.role(field.number), field.value()) {
            (Some(Role::Message(inner) | Role::Counted(inner, _)), Value::Bytes(_)) => {
                let bytes = shift_message(field.message()?, inner, shift_ns)?;
                encode_varint(tag | 2, &mut out);
                encode_varint(bytes.len() as u64, &mut out);
                out.extend_from_slice(&bytes);
            }
            (Some(Role::Nanos), Value::Fixed64(ns)) if ns != 0 => {
                encode_varint(tag | 1, &mut out);
                out.extend_from_slice(&shift_nanos(ns, shift_ns).to_le_bytes());
            }
            (Some(Role::Millis), Value::Varint(ms)) => {
                let ms = ms
                    .cast_signed()
                    .saturating_add(shift_ns.div_euclid(1_000_000));
                encode_varint(tag, &mut out);
                encode_varint(ms.cast_unsigned(), &mut out);
            }
            _ => {
                let len = before.len() - fields.rest().len();
                out.extend_from_slice(before.get(..len).unwrap_or_default());
            }
        }
    }
    Ok(out)
}

/// An OTLP time moved; it never becomes 0, which would mean that it is not set.
pub(crate) fn shift_nanos(ns: u64, shift_ns: i64) -> u64 {
    ns.saturating_add_signed(shift_ns).max(1)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::{
            metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
        },
        metrics::v1::{
            Exemplar, Histogram, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics,
            metric::Data,
        },
        trace::v1::{ResourceSpans, ScopeSpans, Span, span::Event},
    };
    use prost::Message;

    use super::*;

    fn spans(start: u64, end: u64, event: u64) -> Vec<u8> {
        let span = Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: "GET /".into(),
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            events: vec![Event {
                time_unix_nano: event,
                name: "e".into(),
                ..Event::default()
            }],
            ..Span::default()
        };
        let scope = ScopeSpans {
            spans: vec![span],
            ..ScopeSpans::default()
        };
        let resource = ResourceSpans {
            scope_spans: vec![scope],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![resource],
        }
        .encode_to_vec()
    }

    #[test]
    fn spans_are_counted_and_moved_with_their_events() {
        let message = spans(1_000, 2_000, 1_500);
        let found = survey(&message, &TRACES).unwrap();
        assert_eq!(found.counts.spans, 1);
        assert_eq!(found.newest_ns, Some(2_000));
        assert_eq!(
            shifted(&message, &TRACES, 500).unwrap(),
            spans(1_500, 2_500, 2_000)
        );
        assert_eq!(shifted(&message, &TRACES, 0).unwrap(), message);
    }

    #[test]
    fn a_time_that_is_not_set_stays_so() {
        assert_eq!(
            shifted(&spans(0, 2_000, 7), &TRACES, 500).unwrap(),
            spans(0, 2_500, 507)
        );
    }

    #[test]
    fn data_points_move_with_their_start_and_exemplars() {
        let request = |shift: u64| {
            let point = HistogramDataPoint {
                start_time_unix_nano: 10 + shift,
                time_unix_nano: 20 + shift,
                exemplars: vec![Exemplar {
                    time_unix_nano: 15 + shift,
                    ..Exemplar::default()
                }],
                bucket_counts: vec![1, 2],
                explicit_bounds: vec![0.5],
                ..HistogramDataPoint::default()
            };
            let histogram = Histogram {
                data_points: vec![point],
                aggregation_temporality: 2,
            };
            let metric = Metric {
                data: Some(Data::Histogram(histogram)),
                ..Metric::default()
            };
            let scope = ScopeMetrics {
                metrics: vec![metric],
                ..ScopeMetrics::default()
            };
            let resource = ResourceMetrics {
                scope_metrics: vec![scope],
                ..Default::default()
            };
            ExportMetricsServiceRequest {
                resource_metrics: vec![resource],
            }
            .encode_to_vec()
        };
        let found = survey(&request(0), &METRICS).unwrap();
        assert_eq!((found.counts.samples, found.counts.exemplars), (1, 1));
        assert_eq!(
            shifted(&request(0), &METRICS, 1_000).unwrap(),
            request(1_000)
        );
    }

    #[test]
    fn remote_write_times_move_though_their_length_changes() {
        let sample = |ms: u64| {
            let mut sample = vec![0x09];
            sample.extend_from_slice(&1.5f64.to_le_bytes());
            sample.push(0x10);
            encode_varint(ms, &mut sample);
            let mut series = vec![0x12, u8::try_from(sample.len()).unwrap()];
            series.extend_from_slice(&sample);
            let mut request = vec![0x0a, u8::try_from(series.len()).unwrap()];
            request.extend_from_slice(&series);
            request
        };
        let found = survey(&sample(100), &WRITE_REQUEST).unwrap();
        assert_eq!(
            (found.counts.samples, found.newest_ns),
            (1, Some(100_000_000))
        );
        let moved = shifted(&sample(100), &WRITE_REQUEST, 1_000_000 * 1_000_000).unwrap();
        assert_eq!(moved, sample(1_000_100));
        let before = shifted(&sample(100), &WRITE_REQUEST, -200 * 1_000_000).unwrap();
        assert_eq!(before, sample((-100i64).cast_unsigned()));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_walked_without_a_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        ) {
            for schema in [&TRACES, &METRICS, &WRITE_REQUEST] {
                let surveyed = survey(&bytes, schema);
                let moved = shifted(&bytes, schema, -5);
                proptest::prop_assert_eq!(surveyed.is_ok(), moved.is_ok());
            }
        }

        #[test]
        fn a_truncated_request_is_refused_or_walked_never_read_past(cut in 0usize..60) {
            let message = spans(1_000, 2_000, 1_500);
            let cut = cut.min(message.len());
            if let Err(DecodeError::Protobuf { offset_bytes, .. }) =
                survey(&message[..cut], &TRACES)
            {
                proptest::prop_assert!(offset_bytes <= cut);
            }
        }
    }
}
