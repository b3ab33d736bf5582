use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{
        AnyValue as ProtoValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue,
        KeyValueList, any_value::Value as ProtoKind,
    },
    resource::v1::Resource as ProtoResource,
    trace::v1::{self as proto, ResourceSpans, ScopeSpans, Status, span},
};
use proptest::prelude::*;
use prost::Message as _;
use rootline_engine::{Attributes, Engine, Span, Value};

use super::*;

/// A store of its own: what went in can only be looked at by reading it back.
struct Store {
    engine: Engine,
    _dir: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            engine: Engine::builder(dir.path()).open().unwrap(),
            _dir: dir,
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<Rejections, DecodeError> {
        let mut batch = self.engine.batch();
        let (_, spans, rejections) = batch.split();
        decode_traces(bytes, spans, rejections)?;
        Ok(self.engine.write(&mut batch).unwrap().rejections)
    }

    fn trace(&self, id: [u8; 16]) -> Vec<Span> {
        let query = self
            .engine
            .query_control(None, rootline_engine::QueryLimits::default());
        let snapshot = self.engine.snapshot().unwrap();
        let trace = snapshot.trace(TraceId::new(id).unwrap(), &query).unwrap();
        trace.map(|trace| trace.spans).unwrap_or_default()
    }
}

fn proto_value(value: &Value) -> ProtoValue {
    let value = match value {
        Value::Empty => None,
        Value::Bool(v) => Some(ProtoKind::BoolValue(*v)),
        Value::Int(v) => Some(ProtoKind::IntValue(*v)),
        Value::Double(v) => Some(ProtoKind::DoubleValue(*v)),
        Value::Str(v) => Some(ProtoKind::StringValue(v.clone())),
        Value::Bytes(v) => Some(ProtoKind::BytesValue(v.clone())),
        Value::Array(v) => Some(ProtoKind::ArrayValue(ArrayValue {
            values: v.iter().map(proto_value).collect(),
        })),
        Value::KeyValues(v) => Some(ProtoKind::KvlistValue(KeyValueList {
            values: v
                .iter()
                .map(|(k, v)| key_value_of(k, proto_value(v)))
                .collect(),
        })),
    };
    ProtoValue { value }
}

fn key_value_of(key: &str, value: ProtoValue) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..Default::default()
    }
}

fn proto_attributes(attributes: &Attributes) -> Vec<KeyValue> {
    attributes
        .iter()
        .map(|(key, value)| key_value_of(key, proto_value(value)))
        .collect()
}

/// A stored span as the request that would send it alone.
fn proto_request(stored: &Span) -> ExportTraceServiceRequest {
    let span = proto::Span {
        trace_id: stored.trace_id.as_bytes().to_vec(),
        span_id: stored.span_id.as_bytes().to_vec(),
        trace_state: stored.trace_state.clone(),
        parent_span_id: stored
            .parent_span_id
            .map_or(vec![], |id| id.as_bytes().to_vec()),
        flags: stored.flags,
        name: stored.name.to_string(),
        kind: stored.kind.number(),
        start_time_unix_nano: stored.start.as_nanos().cast_unsigned(),
        end_time_unix_nano: stored.end.as_nanos().cast_unsigned(),
        attributes: proto_attributes(&stored.attributes),
        dropped_attributes_count: stored.dropped_attributes_count,
        events: stored
            .events
            .iter()
            .map(|event| span::Event {
                time_unix_nano: event.time.as_nanos().cast_unsigned(),
                name: event.name.clone(),
                attributes: proto_attributes(&event.attributes),
                dropped_attributes_count: event.dropped_attributes_count,
            })
            .collect(),
        dropped_events_count: stored.dropped_events_count,
        links: stored
            .links
            .iter()
            .map(|link| span::Link {
                trace_id: link.trace_id.map_or(vec![], |id| id.as_bytes().to_vec()),
                span_id: link.span_id.map_or(vec![], |id| id.as_bytes().to_vec()),
                trace_state: link.trace_state.clone(),
                attributes: proto_attributes(&link.attributes),
                dropped_attributes_count: link.dropped_attributes_count,
                flags: link.flags,
            })
            .collect(),
        dropped_links_count: stored.dropped_links_count,
        status: Some(Status {
            message: stored.status_message.clone(),
            code: stored.status.number(),
        }),
    };
    let resource = &stored.resource;
    let entity_refs = ProtoResource::decode(resource.entity_refs.as_slice())
        .unwrap()
        .entity_refs;
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(ProtoResource {
                attributes: proto_attributes(&resource.attributes),
                dropped_attributes_count: resource.dropped_attributes_count,
                entity_refs,
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: stored.scope.name.clone(),
                    version: stored.scope.version.clone(),
                    attributes: proto_attributes(&stored.scope.attributes),
                    dropped_attributes_count: stored.scope.dropped_attributes_count,
                }),
                spans: vec![span],
                schema_url: stored.scope.schema_url.clone(),
            }],
            schema_url: resource.schema_url.clone(),
        }],
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    key_value_of(
        key,
        ProtoValue {
            value: Some(ProtoKind::StringValue(value.into())),
        },
    )
}

fn a_span(id: u8) -> proto::Span {
    proto::Span {
        trace_id: vec![1; 16],
        span_id: vec![id; 8],
        name: "op".into(),
        start_time_unix_nano: 10,
        end_time_unix_nano: 20,
        ..Default::default()
    }
}

fn request_of(spans: Vec<proto::Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(ProtoResource {
                attributes: vec![text("service.name", "shop")],
                ..Default::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

#[test]
fn everything_a_span_carries_is_kept() {
    let nested = ProtoKind::KvlistValue(KeyValueList {
        values: vec![key_value_of("k", ProtoValue { value: None })],
    });
    let value = |value| ProtoValue { value: Some(value) };
    let array = ProtoKind::ArrayValue(ArrayValue {
        values: vec![value(ProtoKind::IntValue(-1)), value(nested)],
    });
    let span = proto::Span {
        trace_state: "a=b".into(),
        parent_span_id: vec![9; 8],
        flags: 0x301,
        kind: 3,
        attributes: vec![
            text("z", "ü"),
            key_value_of("b", value(ProtoKind::BoolValue(true))),
            key_value_of("d", value(ProtoKind::DoubleValue(f64::MIN_POSITIVE))),
            key_value_of("y", value(ProtoKind::BytesValue(vec![0, 255]))),
            key_value_of("a", value(array)),
            text("z", "again"),
        ],
        dropped_attributes_count: 1,
        events: vec![
            span::Event {
                time_unix_nano: 15,
                name: "exception".into(),
                attributes: vec![text("exception.type", "E")],
                dropped_attributes_count: 2,
            },
            span::Event {
                time_unix_nano: 0,
                name: "second".into(),
                ..Default::default()
            },
        ],
        dropped_events_count: 3,
        links: vec![
            span::Link {
                trace_id: vec![7; 16],
                span_id: vec![8; 8],
                trace_state: "c=d".into(),
                attributes: vec![text("l", "1")],
                dropped_attributes_count: 4,
                flags: 1,
            },
            span::Link::default(),
        ],
        dropped_links_count: 5,
        status: Some(Status {
            message: "no".into(),
            code: 2,
        }),
        ..a_span(2)
    };
    let mut request = request_of(vec![span]);
    let resource_spans = &mut request.resource_spans[0];
    resource_spans.schema_url = "https://resource".into();
    let resource = resource_spans.resource.as_mut().unwrap();
    resource.dropped_attributes_count = 6;
    resource.entity_refs = vec![
        EntityRef {
            schema_url: "https://entity".into(),
            r#type: "service".into(),
            id_keys: vec!["service.name".into()],
            description_keys: vec![],
        },
        EntityRef {
            r#type: "x".repeat(200),
            ..Default::default()
        },
    ];
    resource_spans.scope_spans[0].schema_url = "https://scope".into();
    resource_spans.scope_spans[0].scope = Some(InstrumentationScope {
        name: "lib".into(),
        version: "1".into(),
        attributes: vec![text("s", "t")],
        dropped_attributes_count: 7,
    });
    let store = Store::new();
    assert!(store.write(&request.encode_to_vec()).unwrap().is_empty());
    let stored = store.trace([1; 16]);
    assert_eq!(stored.len(), 1);
    assert_eq!(proto_request(&stored[0]), request);
}

#[test]
fn a_bad_span_costs_only_itself() {
    let cases: Vec<(proto::Span, &str)> = vec![
        (
            proto::Span {
                trace_id: vec![],
                ..a_span(1)
            },
            "trace_id has 0 bytes instead of 16",
        ),
        (
            proto::Span {
                trace_id: vec![0; 16],
                ..a_span(1)
            },
            "trace_id is all zero",
        ),
        (
            proto::Span {
                trace_id: vec![1; 15],
                ..a_span(1)
            },
            "trace_id has 15 bytes",
        ),
        (
            proto::Span {
                span_id: vec![],
                ..a_span(1)
            },
            "span_id has 0 bytes instead of 8",
        ),
        (
            proto::Span {
                span_id: vec![0; 8],
                ..a_span(1)
            },
            "span_id is all zero",
        ),
        (
            proto::Span {
                span_id: vec![1; 9],
                ..a_span(1)
            },
            "span_id has 9 bytes",
        ),
        (
            proto::Span {
                parent_span_id: vec![1; 4],
                ..a_span(1)
            },
            "parent_span_id has 4 bytes",
        ),
        (
            proto::Span {
                end_time_unix_nano: 9,
                ..a_span(1)
            },
            "before it starts",
        ),
        (
            proto::Span {
                end_time_unix_nano: u64::MAX,
                ..a_span(1)
            },
            "end_time_unix_nano",
        ),
        (
            proto::Span {
                start_time_unix_nano: 1 << 63,
                ..a_span(1)
            },
            "past the year 2262",
        ),
        (
            proto::Span {
                events: vec![span::Event {
                    time_unix_nano: u64::MAX,
                    ..Default::default()
                }],
                ..a_span(1)
            },
            "an event's time_unix_nano",
        ),
        (
            proto::Span {
                links: vec![span::Link {
                    trace_id: vec![1; 3],
                    ..Default::default()
                }],
                ..a_span(1)
            },
            "a link's trace_id has 3 bytes",
        ),
    ];
    for (bad, reason) in cases {
        let store = Store::new();
        let request = request_of(vec![bad, a_span(2)]);
        let rejections = store.write(&request.encode_to_vec()).unwrap();
        let said = rejections.first_reason.unwrap_or_default();
        assert_eq!(rejections.spans, 1, "{reason}");
        assert!(said.contains(reason), "{said} lacks {reason}");
        assert_eq!(store.trace([1; 16]).len(), 1, "{reason}");
    }
}

#[test]
fn a_parent_of_zeros_is_none_and_unknown_enums_are_unspecified() {
    let store = Store::new();
    let span = proto::Span {
        parent_span_id: vec![0; 8],
        kind: 77,
        status: Some(Status {
            code: 9,
            message: String::new(),
        }),
        ..a_span(1)
    };
    assert!(
        store
            .write(&request_of(vec![span]).encode_to_vec())
            .unwrap()
            .is_empty()
    );
    let stored = &store.trace([1; 16])[0];
    assert_eq!(stored.parent_span_id, None);
    assert_eq!(
        (stored.kind, stored.status),
        (SpanKind::Unspecified, StatusCode::Unset)
    );
}

#[test]
fn text_that_is_not_utf8_costs_what_holds_it() {
    let with = |name: &str| proto::Span {
        name: name.into(),
        ..a_span(1)
    };
    let mut request = request_of(vec![with("SPAN"), a_span(2)]);
    request.resource_spans[0].scope_spans.push(ScopeSpans {
        scope: Some(InstrumentationScope {
            name: "SCOPE".into(),
            ..Default::default()
        }),
        spans: vec![a_span(3)],
        ..Default::default()
    });
    let mut other = request_of(vec![a_span(4), a_span(5)]).resource_spans;
    other[0].resource.as_mut().unwrap().attributes = vec![text("k", "RESOURCE")];
    request.resource_spans.extend(other);
    let whole = request.encode_to_vec();
    for (spoiled, lost) in [("SPAN", 1), ("SCOPE", 1), ("RESOURCE", 2)] {
        let mut bytes = whole.clone();
        let at = bytes
            .windows(spoiled.len())
            .position(|w| w == spoiled.as_bytes())
            .unwrap();
        bytes[at] = 0xff;
        let store = Store::new();
        let rejections = store.write(&bytes).unwrap();
        assert_eq!(rejections.spans, lost, "{spoiled}");
        assert!(rejections.first_reason.unwrap().contains("not valid UTF-8"));
        assert_eq!(store.trace([1; 16]).len() as u64, 5 - lost, "{spoiled}");
    }
}

#[test]
fn a_resource_may_come_behind_its_spans_and_in_pieces() {
    let piece = |attribute| {
        let resource = ProtoResource {
            attributes: vec![attribute],
            ..Default::default()
        };
        ResourceSpans {
            resource: Some(resource),
            ..Default::default()
        }
        .encode_to_vec()
    };
    let mut spans = request_of(vec![a_span(1)]).resource_spans.remove(0);
    spans.resource = None;
    let merged = [
        spans.encode_to_vec(),
        piece(text("service.name", "cart")),
        piece(text("service.namespace", "shop")),
    ]
    .concat();
    let mut bytes = vec![0x0a];
    put_length(&mut bytes, merged.len());
    bytes.extend_from_slice(&merged);
    let store = Store::new();
    store.write(&bytes).unwrap();
    let stored = store.trace([1; 16]);
    assert_eq!(stored[0].service(), "cart");
    assert_eq!(stored[0].resource.attributes.len(), 2);
}

#[test]
fn a_malformed_request_leaves_an_empty_batch() {
    let mut bytes = request_of(vec![a_span(1), a_span(2)]).encode_to_vec();
    bytes.extend_from_slice(&[0x0a, 0x7f]);
    let mut batch = SpanBatch::new();
    let decoded = decode_traces(&bytes, &mut batch, &mut Rejections::default());
    assert!(matches!(decoded, Err(DecodeError::Protobuf { .. })));
    assert!(batch.is_empty());
}

#[test]
fn nesting_too_deep_refuses_the_span() {
    let mut deep = ProtoValue { value: None };
    for _ in 0..60 {
        let array = ArrayValue { values: vec![deep] };
        deep = ProtoValue {
            value: Some(ProtoKind::ArrayValue(array)),
        };
    }
    let span = proto::Span {
        attributes: vec![key_value_of("deep", deep)],
        ..a_span(1)
    };
    let store = Store::new();
    let rejections = store
        .write(&request_of(vec![span, a_span(2)]).encode_to_vec())
        .unwrap();
    assert_eq!(rejections.spans, 1);
    assert!(rejections.first_reason.unwrap().contains("nested too deep"));
}

fn any_proto_value() -> impl Strategy<Value = ProtoValue> {
    let leaf = prop_oneof![
        Just(None),
        "\\PC{0,8}".prop_map(|v| Some(ProtoKind::StringValue(v))),
        any::<bool>().prop_map(|v| Some(ProtoKind::BoolValue(v))),
        any::<i64>().prop_map(|v| Some(ProtoKind::IntValue(v))),
        // NaN is not equal to itself, which the comparison needs.
        prop::num::f64::NORMAL.prop_map(|v| Some(ProtoKind::DoubleValue(v))),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(|v| Some(ProtoKind::BytesValue(v))),
    ]
    .prop_map(|value| ProtoValue { value });
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|values| ProtoValue {
                value: Some(ProtoKind::ArrayValue(ArrayValue { values }))
            }),
            prop::collection::vec(("[a-z]{0,3}", inner), 0..3).prop_map(|pairs| ProtoValue {
                value: Some(ProtoKind::KvlistValue(KeyValueList {
                    values: pairs
                        .into_iter()
                        .map(|(k, v)| key_value_of(&k, v))
                        .collect(),
                }))
            }),
        ]
    })
}

fn any_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::vec(("[a-z.]{0,6}", any_proto_value()), 0..4).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(k, v)| key_value_of(&k, v))
            .collect()
    })
}

prop_compose! {
    fn any_span()(
        span_id in 1..=255u8,
        parent in prop::option::of(1..=255u8),
        (name, trace_state, message) in ("\\PC{0,12}", "[a-z=]{0,6}", "\\PC{0,6}"),
        (kind, code) in (0..6i32, 0..3i32),
        (start, duration) in (0..i64::MAX as u64 / 2, 0..1_000_000_000_000u64),
        (flags, dropped) in (any::<u32>(), any::<[u32; 3]>()),
        attributes in any_attributes(),
        events in prop::collection::vec((0..i64::MAX as u64, "\\PC{0,6}", any_attributes(), any::<u32>()), 0..3),
        links in prop::collection::vec((0..3u8, 0..3u8, "[a-z]{0,3}", any_attributes(), any::<[u32; 2]>()), 0..3),
    ) -> proto::Span {
        let id = |byte: u8, bytes: usize| if byte == 0 { vec![] } else { vec![byte; bytes] };
        proto::Span {
            trace_id: vec![1; 16],
            span_id: vec![span_id; 8],
            trace_state,
            parent_span_id: parent.map_or(vec![], |byte| vec![byte; 8]),
            flags,
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: start + duration,
            attributes,
            dropped_attributes_count: dropped[0],
            events: events.into_iter().map(|(time_unix_nano, name, attributes, dropped)| span::Event {
                time_unix_nano, name, attributes, dropped_attributes_count: dropped,
            }).collect(),
            dropped_events_count: dropped[1],
            links: links.into_iter().map(|(trace, span, trace_state, attributes, numbers)| span::Link {
                trace_id: id(trace, 16),
                span_id: id(span, 8),
                trace_state,
                attributes,
                dropped_attributes_count: numbers[0],
                flags: numbers[1],
            }).collect(),
            dropped_links_count: dropped[2],
            status: Some(Status { message, code }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What prost writes is read back as it was from the store.
    #[test]
    fn spans_come_back_as_they_were_sent(
        span in any_span(),
        resource in any_attributes(),
        scope in any_attributes(),
        (name, version, urls) in ("[a-z]{0,4}", "[0-9.]{0,3}", any::<[bool; 2]>()),
        dropped: [u32; 2],
    ) {
        let url = |there: bool| if there { "https://schema".to_owned() } else { String::new() };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(ProtoResource {
                    attributes: resource,
                    dropped_attributes_count: dropped[0],
                    entity_refs: vec![],
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name,
                        version,
                        attributes: scope,
                        dropped_attributes_count: dropped[1],
                    }),
                    spans: vec![span],
                    schema_url: url(urls[0]),
                }],
                schema_url: url(urls[1]),
            }],
        };
        let store = Store::new();
        let rejections = store.write(&request.encode_to_vec()).unwrap();
        prop_assert!(rejections.is_empty(), "{:?}", rejections);
        let stored = store.trace([1; 16]);
        prop_assert_eq!(stored.len(), 1);
        prop_assert_eq!(proto_request(&stored[0]), request);
    }
}

proptest! {
    #[test]
    fn damaged_bytes_are_decoded_or_refused(
        span in any_span(),
        at: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
    ) {
        let mut bytes = request_of(vec![span, a_span(3)]).encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            let mut batch = SpanBatch::new();
            let mut rejections = Rejections::default();
            let decoded = decode_traces(bytes, &mut batch, &mut rejections);
            prop_assert!(decoded.is_ok() || batch.is_empty());
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
        let _ = decode_traces(&bytes, &mut SpanBatch::new(), &mut Rejections::default());
    }
}
