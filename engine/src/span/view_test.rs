//! A trace stays whole in one part whatever comes when: generations, recall, deletes, reopening.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{path::Path, sync::Arc};

use rootline_wal::{Lsn, PowerCutStorage};

use crate::{
    Engine, QueryControl, QueryLimits, ResourceFields, ScopeFields, Settings, Snapshot, SpanFields,
    SpanFilter, SpanId, TimeRange, Timestamp, Trace, TraceId, ValueRef,
    span::{SpanCondition, StringMatch, TagScope},
};

pub(super) fn open(disk: &PowerCutStorage) -> Engine {
    let settings = Settings {
        metric_shards: 1,
        span_shards: 2,
        maintenance_thread: false,
        ..Settings::default()
    };
    Engine::builder(Path::new("/data"))
        .settings(settings)
        .storage(Arc::new(disk.clone()))
        .open()
        .unwrap()
}

/// What a span is made of: trace, id, parent (0 for none), start; the rest follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) trace: u8,
    pub(super) span: u8,
    pub(super) parent: u8,
    pub(super) start: i64,
}

pub(super) const fn sent(trace: u8, span: u8, parent: u8, start: i64) -> Sent {
    Sent {
        trace,
        span,
        parent,
        start,
    }
}

pub(super) fn trace_id(trace: u8) -> TraceId {
    TraceId::new([trace; 16]).unwrap()
}

pub(super) fn write(engine: &Engine, spans: &[Sent]) -> Lsn {
    let mut batch = engine.batch();
    for span in spans {
        let service = format!("service-{}", span.span % 3);
        let attributes = [("service.name", ValueRef::Str(&service))];
        let resource = batch.spans().resource(&ResourceFields {
            attributes: &attributes,
            ..ResourceFields::default()
        });
        let scope = batch.spans().scope(&ScopeFields::default()).unwrap();
        let mut writer = batch.spans().span(resource.unwrap(), scope);
        writer.attribute("number", ValueRef::Int(span.span.into()));
        writer.event(Timestamp::from_nanos(span.start), "began", 0);
        writer.event_attribute("by", ValueRef::Str("test"));
        let id = SpanId::new([span.span; 8]).unwrap();
        let (start, end) = (span.start, span.start + 10);
        let at = Timestamp::from_nanos;
        let fields = SpanFields {
            parent_span_id: SpanId::new([span.parent; 8]),
            ..SpanFields::new(trace_id(span.trace), id, "op", at(start), at(end))
        };
        writer.finish(&fields).unwrap();
    }
    let outcome = engine.write(&mut batch).unwrap();
    assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
    outcome.lsn.unwrap()
}

pub(super) fn control(engine: &Engine) -> QueryControl {
    engine.query_control(None, QueryLimits::default())
}

pub(super) fn trace(snapshot: &Snapshot, trace: u8) -> Option<Trace> {
    let query = control(snapshot.engine());
    snapshot.trace(trace_id(trace), &query).unwrap()
}

/// Span numbers of a trace with those of their parents, by start.
pub(super) fn shape(snapshot: &Snapshot, of: u8) -> Vec<(u8, u8)> {
    let Some(trace) = trace(snapshot, of) else {
        return Vec::new();
    };
    let number = |place: usize| trace.spans[place].span_id.as_bytes()[0];
    let parents = trace.parents.iter();
    let parents = parents.map(|parent| parent.map_or(0, |place| number(place as usize)));
    (0..trace.spans.len()).map(number).zip(parents).collect()
}

/// Spans that all parts together show, by trace.
pub(super) fn counted(snapshot: &Snapshot) -> std::collections::BTreeMap<TraceId, u64> {
    let query = control(snapshot.engine());
    let mut counts = std::collections::BTreeMap::new();
    for part in snapshot.span_parts().unwrap() {
        let filter = SpanFilter::in_range(TimeRange::ALL);
        let rows = part.select(&filter, &query).unwrap();
        assert_eq!(part.count(&filter, &query).unwrap(), rows.len());
        let mut traces = Vec::new();
        part.traces(&rows, &query, &mut traces).unwrap();
        let mut here = std::collections::BTreeMap::new();
        for trace in traces {
            *here.entry(part.trace_id(trace).unwrap()).or_insert(0) += 1;
        }
        for (id, count) in here {
            assert!(counts.insert(id, count).is_none(), "{id} is in two parts");
        }
    }
    counts
}

fn freeze(engine: &Engine) {
    engine.committer().freeze_spans(Lsn::ZERO).unwrap();
}

#[test]
fn a_late_span_finds_its_parent_in_a_frozen_generation() {
    let engine = open(&PowerCutStorage::new());
    write(&engine, &[sent(1, 1, 0, 100), sent(1, 2, 1, 110), sent(2, 1, 0, 5)]);
    freeze(&engine);
    let before = engine.snapshot().unwrap();
    write(&engine, &[sent(1, 3, 2, 120)]);
    let after = engine.snapshot().unwrap();
    assert_eq!(shape(&before, 1), [(1, 0), (2, 1)]);
    assert_eq!(shape(&after, 1), [(1, 0), (2, 1), (3, 2)]);
    assert_eq!(counted(&before)[&trace_id(1)], 2);
    assert_eq!(counted(&after)[&trace_id(1)], 3);
    assert_eq!(counted(&after)[&trace_id(2)], 1);
    freeze(&engine);
    write(&engine, &[sent(1, 4, 9, 130)]);
    freeze(&engine);
    write(&engine, &[sent(1, 9, 1, 105)]);
    let last = engine.snapshot().unwrap();
    assert_eq!(
        shape(&last, 1),
        [(1, 0), (9, 1), (2, 1), (3, 2), (4, 9)],
        "a child before its parent"
    );
    assert_eq!(shape(&after, 1), [(1, 0), (2, 1), (3, 2)]);
    assert_eq!(counted(&last)[&trace_id(1)], 5);
}

#[test]
fn repeats_of_older_spans_add_nothing_and_recall_nothing() {
    let engine = open(&PowerCutStorage::new());
    let first = [sent(1, 1, 0, 100), sent(1, 2, 1, 110)];
    write(&engine, &first);
    freeze(&engine);
    write(&engine, &first);
    assert_eq!(engine.stats().spans.spans, 0);
    write(&engine, &[first[0], sent(1, 3, 1, 120)]);
    assert_eq!(engine.stats().spans.spans, 3);
    write(&engine, &first);
    let snapshot = engine.snapshot().unwrap();
    assert_eq!(counted(&snapshot)[&trace_id(1)], 3);
}

#[test]
fn deletes_hold_across_generations_and_what_is_sent_again_comes_back() {
    let engine = open(&PowerCutStorage::new());
    let first = [sent(1, 1, 0, 100), sent(1, 2, 1, 110), sent(1, 3, 2, 120)];
    write(&engine, &first);
    freeze(&engine);
    let before = engine.snapshot().unwrap();
    let second = SpanCondition::Tag {
        key: "number".to_owned(),
        of: TagScope::Span,
        matches: StringMatch::equal("2"),
    };
    let filter = SpanFilter::in_range(TimeRange::ALL).and(second);
    engine.delete_spans(&filter).unwrap();
    let deleted = engine.snapshot().unwrap();
    assert_eq!(shape(&deleted, 1), [(1, 0), (3, 0)], "an orphan now");
    write(&engine, &[sent(1, 4, 3, 130)]);
    let recalled = engine.snapshot().unwrap();
    assert_eq!(shape(&recalled, 1), [(1, 0), (3, 0), (4, 3)]);
    write(&engine, &[first[1]]);
    let again = engine.snapshot().unwrap();
    assert_eq!(shape(&again, 1), [(1, 0), (2, 1), (3, 2), (4, 3)]);
    engine.delete_trace(trace_id(1)).unwrap();
    let gone = engine.snapshot().unwrap();
    assert_eq!(shape(&gone, 1), []);
    freeze(&engine);
    write(&engine, &[first[2]]);
    let back = engine.snapshot().unwrap();
    assert_eq!(shape(&back, 1), [(3, 0)]);
    for (snapshot, spans) in [(before, 3), (deleted, 2), (recalled, 3), (again, 4), (back, 1)] {
        assert_eq!(counted(&snapshot)[&trace_id(1)], spans);
    }
    assert!(counted(&gone).is_empty());
}

#[test]
fn a_trace_takes_no_more_spans_than_it_may_have() {
    let settings = Settings {
        trace_spans_max: 3,
        maintenance_thread: false,
        ..Settings::default()
    };
    let builder = Engine::builder(Path::new("/data")).settings(settings);
    let engine = builder.storage(Arc::new(PowerCutStorage::new())).open().unwrap();
    write(&engine, &[sent(1, 1, 0, 1), sent(1, 2, 0, 1)]);
    freeze(&engine);
    write(&engine, &[sent(1, 3, 0, 1), sent(2, 1, 0, 1)]);
    let mut batch = engine.batch();
    let resource = batch.spans().resource(&ResourceFields::default()).unwrap();
    let scope = batch.spans().scope(&ScopeFields::default()).unwrap();
    let at = Timestamp::from_nanos(1);
    for trace in [1, 2] {
        let id = SpanId::new([4; 8]).unwrap();
        let fields = SpanFields::new(trace_id(trace), id, "op", at, at);
        batch.spans().span(resource, scope).finish(&fields).unwrap();
    }
    let outcome = engine.write(&mut batch).unwrap();
    assert_eq!((outcome.spans, outcome.rejections.spans), (1, 1));
    let reason = outcome.rejections.first_reason.unwrap();
    assert!(reason.contains("trace-spans-max"), "{reason}");
}
