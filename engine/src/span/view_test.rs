//! A trace stays whole in one part whatever comes when: generations, recall, deletes, reopening.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use proptest::{collection::vec, prelude::*};
use rootline_wal::{Lsn, PowerCutStorage};

use crate::{
    Engine, QueryControl, QueryLimits, ResourceFields, ScopeFields, Settings, Snapshot, SpanFields,
    SpanFilter, SpanId, TimeRange, Timestamp, Trace, TraceId, ValueRef,
    span::{SpanCondition, StringMatch, TagScope},
};

/// Numbers of traces: from 1 to this.
const TRACES: u8 = 5;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// A trace, from the parts; it is in one at most.
pub(super) fn trace(snapshot: &Snapshot, of: u8) -> Option<Trace> {
    let (query, id) = (control(snapshot.engine()), trace_id(of));
    let parts = snapshot.span_parts().unwrap();
    let mut found = parts.iter().filter_map(|part| {
        let trace = part.find_trace(id, &query).unwrap()?;
        part.trace(trace, &query).unwrap()
    });
    let trace = found.next();
    assert_eq!(found.next(), None, "trace {of} is in two parts");
    trace
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
pub(super) fn counted(snapshot: &Snapshot) -> BTreeMap<TraceId, usize> {
    let traces = (1..=TRACES).filter_map(|of| trace(snapshot, of));
    traces.map(|trace| (trace.id, trace.spans.len())).collect()
}

/// Spans of this number, in all traces.
fn numbered(span: u8) -> SpanFilter {
    SpanFilter::in_range(TimeRange::ALL).and(SpanCondition::Tag {
        key: "number".to_owned(),
        of: TagScope::Span,
        matches: StringMatch::equal(&span.to_string()),
    })
}

fn freeze(engine: &Engine) {
    engine.committer().freeze_spans(Lsn::ZERO).unwrap();
}

#[test]
fn a_late_span_finds_its_parent_in_a_frozen_generation() {
    let engine = open(&PowerCutStorage::new());
    write(
        &engine,
        &[sent(1, 1, 0, 100), sent(1, 2, 1, 110), sent(2, 1, 0, 5)],
    );
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
    engine.delete_spans(&numbered(2)).unwrap();
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
    for (snapshot, spans) in [
        (before, 3),
        (deleted, 2),
        (recalled, 3),
        (again, 4),
        (back, 1),
    ] {
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
    let engine = builder
        .storage(Arc::new(PowerCutStorage::new()))
        .open()
        .unwrap();
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

#[test]
fn sealed_spans_come_back_from_blocks_and_late_ones_join_them() {
    let disk = PowerCutStorage::new();
    let engine = open(&disk);
    write(
        &engine,
        &[sent(1, 1, 0, 100), sent(1, 2, 1, 110), sent(2, 1, 0, 5)],
    );
    let before = engine.snapshot().unwrap();
    let flushed = engine.flush().unwrap();
    assert_eq!((flushed.blocks, flushed.spans), (1, 3));
    assert_eq!(engine.flush().unwrap().blocks, 0, "nothing is left");
    let sealed = engine.snapshot().unwrap();
    assert_eq!(engine.stats().spans.spans, 0, "sealed memory is given back");
    assert_eq!(shape(&sealed, 1), [(1, 0), (2, 1)]);
    write(&engine, &[sent(1, 3, 2, 120), sent(1, 1, 0, 100)]);
    write(&engine, &[sent(2, 1, 0, 5)]);
    let late = engine.snapshot().unwrap();
    for snapshot in [&before, &sealed] {
        assert_eq!(shape(snapshot, 1), [(1, 0), (2, 1)]);
        assert_eq!(shape(snapshot, 2), [(1, 0)]);
    }
    assert_eq!(shape(&late, 1), [(1, 0), (2, 1), (3, 2)]);
    engine.flush().unwrap();
    let again = engine.snapshot().unwrap();
    for snapshot in [&late, &again] {
        assert_eq!(shape(snapshot, 1), [(1, 0), (2, 1), (3, 2)]);
        assert_eq!(shape(snapshot, 2), [(1, 0)]);
    }
    drop((before, sealed, late, again));
    write(&engine, &[sent(1, 4, 3, 130)]);
    drop(engine);
    disk.cut(None);
    let engine = open(&disk.restarted());
    let reopened = engine.snapshot().unwrap();
    assert_eq!(shape(&reopened, 1), [(1, 0), (2, 1), (3, 2), (4, 3)]);
    assert_eq!(shape(&reopened, 2), [(1, 0)]);
    assert_eq!(engine.stats().spans.spans, 4, "recalled in replay");
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Sent>),
    DeleteTrace(u8),
    DeleteSpans(u8),
    Freeze,
    Flush,
    Compact,
    Look,
    Crash,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let span = (1..=TRACES, 1u8..6, 0u8..6, 0i64..4);
    let span = span.prop_map(|(trace, span, parent, start)| sent(trace, span, parent, start));
    prop_oneof![
        8 => vec(span, 1..6).prop_map(Step::Write),
        1 => (1..=TRACES).prop_map(Step::DeleteTrace),
        2 => (1u8..6).prop_map(Step::DeleteSpans),
        2 => Just(Step::Freeze),
        3 => Just(Step::Flush),
        2 => Just(Step::Compact),
        1 => Just(Step::Look),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
    ]
}

/// The traces of these spans if they had all come at once.
fn at_once(spans: &BTreeSet<Sent>) -> Vec<Option<Trace>> {
    let engine = open(&PowerCutStorage::new());
    if !spans.is_empty() {
        write(&engine, &spans.iter().copied().collect::<Vec<_>>());
    }
    let snapshot = engine.snapshot().unwrap();
    (1..=TRACES).map(|of| trace(&snapshot, of)).collect()
}

fn check(snapshot: &Snapshot, spans: &BTreeSet<Sent>) {
    for (of, expected) in (1..=TRACES).zip(at_once(spans)) {
        assert_eq!(trace(snapshot, of), expected, "trace {of}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Any interleaving of writes, deletes, flushes, merges and restarts answers as if what is left had
    /// come at once; snapshots keep their answer.
    #[test]
    fn whatever_happens_to_a_trace_it_is_answered_whole(steps in vec(step(), 1..40)) {
        let mut disk = PowerCutStorage::new();
        let mut engine = open(&disk);
        let mut spans = BTreeSet::new();
        let mut looks: Vec<(Snapshot, BTreeSet<Sent>)> = Vec::new();
        for step in steps {
            match step {
                Step::Write(new) => {
                    write(&engine, &new);
                    spans.extend(new);
                }
                Step::DeleteTrace(of) => {
                    engine.delete_trace(trace_id(of)).unwrap();
                    spans.retain(|span: &Sent| span.trace != of);
                }
                Step::DeleteSpans(number) => {
                    engine.delete_spans(&numbered(number)).unwrap();
                    spans.retain(|span: &Sent| span.span != number);
                }
                Step::Freeze => freeze(&engine),
                Step::Flush => {
                    engine.flush().unwrap();
                }
                Step::Compact => {
                    engine.compact().unwrap();
                }
                Step::Look => looks.push((engine.snapshot().unwrap(), spans.clone())),
                Step::Crash | Step::Close => {
                    for (snapshot, seen) in looks.drain(..) {
                        check(&snapshot, &seen);
                    }
                    if matches!(step, Step::Close) {
                        engine.close_within(std::time::Duration::from_mins(1)).unwrap();
                    }
                    drop(engine);
                    disk.cut(None);
                    disk = disk.restarted();
                    engine = open(&disk);
                }
            }
        }
        check(&engine.snapshot().unwrap(), &spans);
        for (snapshot, seen) in &looks {
            check(snapshot, seen);
        }
        engine.flush().unwrap();
        engine.compact().unwrap();
        check(&engine.snapshot().unwrap(), &spans);
    }
}
