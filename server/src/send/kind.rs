//! Which request a message is, told from its content alone.
//!
//! All three kinds begin with a repeated message in field 1, so the difference is looked for two levels
//! down: a remote-write series holds samples (a double and a number) or labels (two strings), a
//! resource of OTLP holds scopes, and these hold spans (two ids, fixed 64-bit times) or metrics.

use super::wire::{METRICS, Schema, TRACES, WRITE_REQUEST};
use crate::otlp::wire::{Field, Message, Value};

/// What a request is, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `ExportTraceServiceRequest`, protobuf.
    Traces,
    /// `ExportMetricsServiceRequest`, protobuf.
    Metrics,
    /// `prometheus.WriteRequest`, protobuf, not compressed.
    RemoteWrite,
    /// Traces as OTLP JSON.
    TracesJson,
    /// Metrics as OTLP JSON.
    MetricsJson,
}

impl Kind {
    /// The name a person uses for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Traces => "OTLP traces",
            Self::Metrics => "OTLP metrics",
            Self::RemoteWrite => "remote write",
            Self::TracesJson => "OTLP JSON traces",
            Self::MetricsJson => "OTLP JSON metrics",
        }
    }

    /// The schema of the protobuf kinds.
    pub(crate) fn schema(self) -> Option<&'static Schema> {
        match self {
            Self::Traces => Some(&TRACES),
            Self::Metrics => Some(&METRICS),
            Self::RemoteWrite => Some(&WRITE_REQUEST),
            Self::TracesJson | Self::MetricsJson => None,
        }
    }
}

/// The kind of a protobuf message; `None` if nothing in it tells.
pub(crate) fn of_message(message: &[u8]) -> Option<Kind> {
    for field in fields(message) {
        let kind = match (field.number, field.value()) {
            (1, Value::Bytes(entry)) => of_entry(entry),
            // Metadata: type 1 (a number), family name 2.
            (3, Value::Bytes(entry)) => fields(entry)
                .any(|f| f.number == 2 && matches!(f.value(), Value::Bytes(_)))
                .then_some(Kind::RemoteWrite),
            _ => None,
        };
        if kind.is_some() {
            return kind;
        }
    }
    None
}

/// A well-formed prefix of the fields; a malformed rest is reported when the request is surveyed.
fn fields(message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    all_fields(message).map_while(|field| field)
}

/// The fields, and a `None` where the rest is malformed.
fn all_fields(message: &[u8]) -> impl Iterator<Item = Option<Field<'_>>> {
    let mut reader = Message::root(message).fields();
    let mut whole = true;
    std::iter::from_fn(move || match reader.next() {
        _ if !whole => None,
        Ok(field) => field.map(Some),
        Err(_) => {
            whole = false;
            Some(None)
        }
    })
}

fn of_entry(entry: &[u8]) -> Option<Kind> {
    let mut labels_only = true;
    for field in fields(entry) {
        match (field.number, field.value()) {
            (1, Value::Bytes(first)) => labels_only &= is_label(first),
            (2, Value::Bytes(second)) => {
                if is_sample(second) {
                    return Some(Kind::RemoteWrite);
                }
                labels_only = false;
                if let Some(kind) = of_scope(second) {
                    return Some(kind);
                }
            }
            _ => {}
        }
    }
    // A series whose samples are native histograms or missing shows itself by its metric name.
    let named = fields(entry).any(|f| match (f.number, f.value()) {
        (1, Value::Bytes(label)) => {
            fields(label).any(|f| f.number == 1 && f.value() == Value::Bytes(b"__name__"))
        }
        _ => false,
    });
    (labels_only && named).then_some(Kind::RemoteWrite)
}

fn is_label(label: &[u8]) -> bool {
    all_fields(label).all(|field| {
        let field = field.map(|f| (f.number, f.value()));
        matches!(field, Some((1 | 2, Value::Bytes(text))) if std::str::from_utf8(text).is_ok())
    })
}

fn is_sample(sample: &[u8]) -> bool {
    let mut any = false;
    for field in all_fields(sample) {
        match field.map(|f| (f.number, f.value())) {
            Some((1, Value::Fixed64(_)) | (2, Value::Varint(_))) => any = true,
            _ => return false,
        }
    }
    any
}

fn of_scope(scope: &[u8]) -> Option<Kind> {
    fields(scope).find_map(|field| match (field.number, field.value()) {
        (2, Value::Bytes(item)) => of_item(item),
        _ => None,
    })
}

fn of_item(item: &[u8]) -> Option<Kind> {
    let (mut ids, mut text, mut data) = (false, false, false);
    for field in fields(item) {
        match (field.number, field.value()) {
            // Start and end of a span; a metric has nothing of this wire type.
            (7 | 8, Value::Fixed64(_)) => return Some(Kind::Traces),
            (1, Value::Bytes(id)) => {
                ids = id.len() == 16;
                text = std::str::from_utf8(id).is_ok();
            }
            (5 | 7 | 9 | 10 | 11, Value::Bytes(_)) => data = true,
            _ => {}
        }
    }
    // A span without times: its id is 16 bytes, which are seldom text, as a metric's name must be.
    match (ids && !text, data) {
        (true, _) => Some(Kind::Traces),
        (false, true) => Some(Kind::Metrics),
        (false, false) => ids.then_some(Kind::Traces),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::{
            metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
        },
        common::v1::{AnyValue, KeyValue, any_value},
        metrics::v1::{
            Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
        },
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message;

    use super::*;

    fn resource() -> Resource {
        let value = any_value::Value::StringValue("cart".into());
        let value = Some(AnyValue { value: Some(value) });
        Resource {
            attributes: vec![KeyValue {
                key: "service.name".into(),
                value,
                ..Default::default()
            }],
            ..Resource::default()
        }
    }

    #[test]
    fn traces_are_told_by_their_spans() {
        let span = Span {
            trace_id: vec![7; 16],
            span_id: vec![8; 8],
            name: "a name of 16 b..".into(),
            start_time_unix_nano: 5,
            ..Span::default()
        };
        let scope = ScopeSpans {
            spans: vec![span],
            ..ScopeSpans::default()
        };
        let spans = ResourceSpans {
            resource: Some(resource()),
            scope_spans: vec![scope],
            ..ResourceSpans::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![spans],
        };
        assert_eq!(of_message(&request.encode_to_vec()), Some(Kind::Traces));
    }

    #[test]
    fn metrics_are_told_by_their_data() {
        let points = || {
            vec![NumberDataPoint {
                time_unix_nano: 9,
                ..NumberDataPoint::default()
            }]
        };
        for data in [
            Data::Gauge(Gauge {
                data_points: points(),
            }),
            Data::Sum(Sum {
                data_points: points(),
                ..Sum::default()
            }),
        ] {
            let metric = Metric {
                name: "as.long.as.an.id".into(),
                description: "8 bytes.".into(),
                data: Some(data),
                ..Metric::default()
            };
            let scope = ScopeMetrics {
                metrics: vec![metric],
                ..ScopeMetrics::default()
            };
            let metrics = ResourceMetrics {
                resource: Some(resource()),
                scope_metrics: vec![scope],
                ..ResourceMetrics::default()
            };
            let request = ExportMetricsServiceRequest {
                resource_metrics: vec![metrics],
            };
            assert_eq!(of_message(&request.encode_to_vec()), Some(Kind::Metrics));
        }
    }

    #[test]
    fn remote_write_is_told_by_samples_names_or_metadata() {
        let label = [&[0x0a, 8][..], b"__name__", &[0x12, 2], b"up"].concat();
        let with = |rest: &[u8]| {
            let len = u8::try_from(label.len()).unwrap();
            let series = [&[0x0a, len][..], &label, rest].concat();
            [&[0x0a, u8::try_from(series.len()).unwrap()][..], &series].concat()
        };
        let sample = [&[0x12, 11, 0x09][..], &1f64.to_le_bytes(), &[0x10, 5]].concat();
        assert_eq!(of_message(&with(&sample)), Some(Kind::RemoteWrite));
        assert_eq!(of_message(&with(&[])), Some(Kind::RemoteWrite));
        let metadata = [&[0x1a, 6, 0x08, 1, 0x12, 2][..], b"up"].concat();
        assert_eq!(of_message(&metadata), Some(Kind::RemoteWrite));
    }

    #[test]
    fn a_message_that_says_nothing_has_no_kind() {
        assert_eq!(of_message(&[]), None);
        assert_eq!(of_message(b"plain text"), None);
        assert_eq!(of_message(&[0x0a, 0]), None);
    }
}
