//! The promise: version 1 of the spans part reads the same for ever.
//!
//! A record of two spans that use every field is kept in
//! `engine/tests/golden/v1/batch-record-spans.bin`. It must decode to what it was made of, and today's
//! writer must still write the same bytes; a change of either is a change of the format.

use std::sync::Arc;

use rootline_wal::Lsn;

use super::{
    head::PreparedSpans,
    tests::{control, new_head, push},
    *,
};
use crate::{
    id::{SpanId, TraceId},
    record::{RecordWriter, parts},
    time::Timestamp,
    value::Value,
};

const GOLDEN: &[u8] = include_bytes!("../../tests/golden/v1/batch-record-spans.bin");

fn every_value() -> Attributes {
    let values = [
        ("empty", Value::Empty),
        ("bool", Value::Bool(true)),
        ("int", Value::Int(-300)),
        ("double", Value::Double(-0.1)),
        ("text", Value::Str("ü".into())),
        ("bytes", Value::Bytes(vec![0, 255])),
        (
            "list",
            Value::Array(vec![Value::Int(i64::MAX), Value::Array(Vec::new())]),
        ),
        (
            "map",
            Value::KeyValues(vec![
                ("twice".into(), Value::Bool(false)),
                ("twice".into(), Value::Double(f64::NEG_INFINITY)),
            ]),
        ),
    ];
    values.map(|(key, value)| (key.into(), value)).into()
}

fn text(key: &str, value: &str) -> Attributes {
    [(key.into(), Value::Str(value.into()))].into()
}

fn trace() -> TraceId {
    TraceId::new(*b"\x01trace-id-bytes\xff").unwrap()
}

fn moment(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_123_456_789 + nanos)
}

/// One that says all that can be said, and its child that says next to nothing.
fn spans() -> [Span; 2] {
    let resource = Resource {
        attributes: text("service.name", "shop"),
        dropped_attributes_count: 1,
        schema_url: "https://example.org/resource".into(),
        entity_refs: vec![10, 1, 255],
    };
    let scope = Scope {
        name: "lib".into(),
        version: "1.2".into(),
        attributes: text("scope.key", "value"),
        dropped_attributes_count: 2,
        schema_url: "https://example.org/scope".into(),
    };
    let full = Span {
        trace_id: trace(),
        span_id: SpanId::new(*b"span-id\0").unwrap(),
        parent_span_id: SpanId::new(*b"parent!!"),
        trace_state: "vendor=1".into(),
        flags: 0x301,
        name: "GET /cart".into(),
        kind: SpanKind::Server,
        start: moment(0),
        end: moment(1_500_000),
        attributes: every_value(),
        dropped_attributes_count: 3,
        events: vec![Event {
            time: moment(-7),
            name: "exception".into(),
            attributes: text("exception.type", "Timeout"),
            dropped_attributes_count: 4,
        }],
        dropped_events_count: 5,
        links: vec![
            Link {
                trace_id: Some(trace()),
                span_id: SpanId::new(*b"linked!!"),
                trace_state: "other=2".into(),
                flags: 1,
                attributes: text("link.key", "value"),
                dropped_attributes_count: 6,
            },
            Link {
                trace_id: None,
                span_id: None,
                trace_state: String::new(),
                flags: 0,
                attributes: Attributes::default(),
                dropped_attributes_count: 0,
            },
        ],
        dropped_links_count: 7,
        status: StatusCode::Error,
        status_message: "too late".into(),
        resource: Arc::new(resource),
        scope: Arc::new(scope),
    };
    let bare = Span {
        span_id: SpanId::new(*b"child-id").unwrap(),
        parent_span_id: Some(full.span_id),
        trace_state: String::new(),
        flags: 0,
        name: "".into(),
        kind: SpanKind::Unspecified,
        start: moment(1),
        end: moment(1),
        attributes: Attributes::default(),
        dropped_attributes_count: 0,
        events: Vec::new(),
        dropped_events_count: 0,
        links: Vec::new(),
        dropped_links_count: 0,
        status: StatusCode::Unset,
        status_message: String::new(),
        resource: Arc::default(),
        scope: Arc::default(),
        ..full.clone()
    };
    [full, bare]
}

fn encode() -> Vec<u8> {
    let mut batch = SpanBatch::new();
    for span in &spans() {
        push(&mut batch, span);
    }
    let mut writer = RecordWriter::default();
    new_head(1).prepare(&mut batch, &mut writer).unwrap();
    writer.payload().to_vec()
}

#[test]
fn the_writer_still_writes_the_golden_record() {
    assert_eq!(encode(), GOLDEN);
}

#[test]
fn the_golden_record_reads_as_what_it_was_made_of() {
    let head = new_head(1);
    let mut prepared = PreparedSpans::default();
    for part in parts(Lsn(1), GOLDEN) {
        head.decode(part.unwrap(), &mut prepared).unwrap();
    }
    head.apply(0, Lsn(1), &prepared, Lsn(1));
    let read = head.trace(Lsn(1), trace(), &control()).unwrap().unwrap();
    assert_eq!(read.spans, spans());
}

#[test]
fn a_golden_record_cut_or_flipped_anywhere_is_read_or_refused() {
    let read = |bytes: &[u8]| {
        let head = new_head(1);
        let mut prepared = PreparedSpans::default();
        for part in parts(Lsn(1), bytes) {
            let Ok(part) = part else { break };
            if head.decode(part, &mut prepared).is_err() {
                return;
            }
        }
        head.apply(0, Lsn(1), &prepared, Lsn(1));
    };
    for at in 0..GOLDEN.len() {
        read(&GOLDEN[..at]);
        let mut flipped = GOLDEN.to_vec();
        flipped[at] ^= 1 << (at % 8);
        read(&flipped);
    }
}
