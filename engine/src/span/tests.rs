//! The head against a plain model: what it answers at every LSN, whatever came in whatever order.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use proptest::prelude::*;
use rootline_index::MatchOp;
use rootline_wal::{Lsn, SystemClock};

use super::*;
use crate::{
    budget::{Budget, Holder},
    control::{QueryControl, QueryLimits},
    id::{SpanId, TraceId},
    record::{Part, RecordWriter, Tag, parts},
    settings::Settings,
    time::{TimeRange, Timestamp},
    value::{Value, ValueRef, strategies::value},
};

// ---- sending ------------------------------------------------------------------------------------

fn pairs(attributes: &Attributes) -> Vec<(&str, ValueRef<'_>)> {
    attributes
        .iter()
        .map(|(key, value)| (&**key, value.as_ref()))
        .collect()
}

/// Pushes a span the way a server does.
pub(super) fn push(batch: &mut SpanBatch, span: &Span) {
    let resource = batch
        .resource(&ResourceFields {
            attributes: &pairs(&span.resource.attributes),
            dropped_attributes_count: span.resource.dropped_attributes_count,
            schema_url: &span.resource.schema_url,
            entity_refs: &span.resource.entity_refs,
        })
        .unwrap();
    let scope = batch
        .scope(&ScopeFields {
            name: &span.scope.name,
            version: &span.scope.version,
            attributes: &pairs(&span.scope.attributes),
            dropped_attributes_count: span.scope.dropped_attributes_count,
            schema_url: &span.scope.schema_url,
        })
        .unwrap();
    let mut writer = batch.span(resource, scope);
    for (key, value) in pairs(&span.attributes) {
        writer.attribute(key, value);
    }
    for event in &span.events {
        writer.event(event.time, &event.name, event.dropped_attributes_count);
        for (key, value) in pairs(&event.attributes) {
            writer.event_attribute(key, value);
        }
    }
    for link in &span.links {
        writer.link(&LinkFields {
            trace_id: link.trace_id,
            span_id: link.span_id,
            trace_state: &link.trace_state,
            flags: link.flags,
            dropped_attributes_count: link.dropped_attributes_count,
        });
        for (key, value) in pairs(&link.attributes) {
            writer.link_attribute(key, value);
        }
    }
    let fields = SpanFields {
        parent_span_id: span.parent_span_id,
        kind: span.kind,
        status: span.status,
        status_message: &span.status_message,
        trace_state: &span.trace_state,
        flags: span.flags,
        dropped_attributes_count: span.dropped_attributes_count,
        dropped_events_count: span.dropped_events_count,
        dropped_links_count: span.dropped_links_count,
        ..SpanFields::new(
            span.trace_id,
            span.span_id,
            &span.name,
            span.start,
            span.end,
        )
    };
    writer.finish(&fields).unwrap();
}

pub(super) fn new_head(shards: usize) -> SpanHead {
    let settings = Settings {
        span_shards: shards,
        ..Settings::default()
    };
    SpanHead::new(&settings, Budget::new(1 << 40))
}

/// Stores spans as one record, as the core does; by way of its bytes if `replayed`.
pub(super) fn write(head: &SpanHead, lsn: u64, spans: &[Span], replayed: bool) {
    let mut batch = SpanBatch::new();
    for span in spans {
        push(&mut batch, span);
    }
    write_batch(head, lsn, &mut batch, replayed);
}

pub(super) fn write_batch(head: &SpanHead, lsn: u64, batch: &mut SpanBatch, replayed: bool) {
    let mut record = RecordWriter::default();
    let mut prepared = head.prepare(batch, &mut record).unwrap();
    if replayed && !record.is_empty() {
        let part = parts(Lsn(lsn), record.payload()).next().unwrap().unwrap();
        assert_eq!(part.tag, Tag::Spans);
        let count = prepared.span_count();
        head.decode(part, &mut prepared).unwrap();
        assert_eq!(prepared.span_count(), count);
    }
    for shard in (0..head.shards()).filter(|&shard| prepared.touches(shard)) {
        head.apply(shard, Lsn(lsn), &prepared, Lsn(0));
    }
}

pub(super) fn control() -> QueryControl {
    QueryControl::new(Arc::new(SystemClock::new()), None, QueryLimits::default())
}

// ---- the model ----------------------------------------------------------------------------------

#[derive(Clone, Debug)]
pub(super) enum Op {
    Write(Vec<Span>),
    Delete(TraceId),
}

/// The spans of a trace at an LSN: in no order, repeats gone.
pub(super) fn visible(ops: &[Op], at: usize, trace: TraceId) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for op in ops.iter().take(at) {
        match op {
            Op::Write(new) => {
                for span in new.iter().filter(|span| span.trace_id == trace) {
                    if spans
                        .iter()
                        .all(|s| s.canonical_bytes() != span.canonical_bytes())
                    {
                        spans.push(span.clone());
                    }
                }
            }
            Op::Delete(id) if *id == trace => spans.clear(),
            Op::Delete(_) => {}
        }
    }
    spans.sort_by_key(|span| (span.start, span.span_id, span.content_hash()));
    spans
}

/// The parent rule, word for word and without any thought for speed.
pub(super) fn naive_parents(spans: &[Span]) -> Vec<Option<u32>> {
    let choice = |child: usize| -> Option<usize> {
        let parent_id = spans[child].parent_span_id?;
        let candidates = (0..spans.len()).filter(|&i| i != child && spans[i].span_id == parent_id);
        candidates.min_by_key(|&i| {
            let own = spans[i].service() == spans[child].service();
            let called = matches!(spans[i].kind, SpanKind::Server | SpanKind::Consumer);
            (!(own && called), spans[i].start, spans[i].content_hash())
        })
    };
    let chosen: Vec<Option<usize>> = (0..spans.len()).map(choice).collect();
    let key = |i: usize| (spans[i].start, spans[i].span_id, spans[i].content_hash());
    let is_cut = |i: usize| {
        // Follow the choices; a span that comes back to itself is on a cycle.
        let mut members = vec![i];
        let mut at = chosen[i];
        while let Some(next) = at {
            if next == i {
                return members.iter().all(|&m| key(i) <= key(m));
            }
            if members.contains(&next) {
                return false;
            }
            members.push(next);
            at = chosen[next];
        }
        false
    };
    (0..spans.len())
        .map(|i| {
            if is_cut(i) {
                None
            } else {
                chosen[i].map(|p| u32::try_from(p).unwrap())
            }
        })
        .collect()
}

fn display(attributes: &Attributes, key: &str) -> Vec<String> {
    let of_key = attributes.iter().filter(|(own, _)| &**own == key);
    of_key.map(|(_, value)| value.to_string()).collect()
}

/// The values of a key where a condition looks for them, in the form they are compared in.
pub(super) fn naive_values(span: &Span, key: &str, of: TagScope) -> Vec<String> {
    let own = display(&span.attributes, key);
    match of {
        TagScope::Resource => display(&span.resource.attributes, key),
        TagScope::Any if own.is_empty() => display(&span.resource.attributes, key),
        TagScope::Span | TagScope::Any => own,
        TagScope::Scope => display(&span.scope.attributes, key),
        TagScope::Event => {
            let events = span.events.iter();
            events
                .flat_map(|event| display(&event.attributes, key))
                .collect()
        }
        TagScope::Link => {
            let links = span.links.iter();
            links
                .flat_map(|link| display(&link.attributes, key))
                .collect()
        }
    }
}

fn naive_any(values: &[String], matches: &StringMatch) -> bool {
    if values.is_empty() {
        matches.matches("")
    } else {
        values.iter().any(|v| matches.matches(v))
    }
}

pub(super) fn naive_match(span: &Span, filter: &SpanFilter) -> bool {
    filter.range.contains(span.start)
        && filter.conditions.iter().all(|condition| match condition {
            SpanCondition::Service(matches) => matches.matches(span.service()),
            SpanCondition::Name(matches) => matches.matches(&span.name),
            SpanCondition::Kind(kind) => span.kind == *kind,
            SpanCondition::Status(status) => span.status == *status,
            SpanCondition::DurationNs { min, max } => (*min..=*max).contains(&span.duration_ns()),
            SpanCondition::Tag { key, of, matches } => {
                naive_any(&naive_values(span, key, *of), matches)
            }
            SpanCondition::Exists { key, of } => !naive_values(span, key, *of).is_empty(),
            SpanCondition::EventName(matches) => {
                let names: Vec<String> = span.events.iter().map(|e| e.name.clone()).collect();
                naive_any(&names, matches)
            }
            SpanCondition::ScopeName(matches) => matches.matches(&span.scope.name),
            SpanCondition::StatusMessage(matches) => matches.matches(&span.status_message),
        })
}

// ---- generated spans ----------------------------------------------------------------------------

pub(super) fn trace_id(n: u8) -> TraceId {
    TraceId::new([n + 1; 16]).unwrap()
}

fn span_id(n: u8) -> Option<SpanId> {
    SpanId::new([n; 8])
}

fn attributes() -> impl Strategy<Value = Attributes> {
    prop::collection::vec(("[a-c]{0,1}".prop_map(Arc::<str>::from), value()), 0..4)
}

fn resource() -> impl Strategy<Value = Arc<Resource>> {
    let service = prop_oneof![
        Just(Some(Value::Str("shop".into()))),
        Just(Some(Value::Str("cart".into()))),
        Just(Some(Value::Int(7))),
        Just(None),
    ];
    (
        service,
        attributes(),
        0u32..2,
        "[s]{0,1}",
        prop::collection::vec(any::<u8>(), 0..3),
    )
        .prop_map(
            |(service, mut attributes, dropped_attributes_count, schema_url, entity_refs)| {
                attributes.extend(service.map(|service| (Arc::from(SERVICE_NAME), service)));
                Arc::new(Resource {
                    attributes,
                    dropped_attributes_count,
                    schema_url,
                    entity_refs,
                })
            },
        )
}

fn scope() -> impl Strategy<Value = Arc<Scope>> {
    ("[lm]{0,1}", "[12]{0,1}", attributes(), 0u32..2, "[s]{0,1}").prop_map(
        |(name, version, attributes, dropped_attributes_count, schema_url)| {
            Arc::new(Scope {
                name,
                version,
                attributes,
                dropped_attributes_count,
                schema_url,
            })
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    (any::<i64>(), ".{0,3}", attributes(), 0u32..3).prop_map(
        |(time, name, attributes, dropped_attributes_count)| {
            let time = Timestamp::from_nanos(time);
            Event {
                time,
                name,
                attributes,
                dropped_attributes_count,
            }
        },
    )
}

fn link() -> impl Strategy<Value = Link> {
    (
        any::<[u8; 16]>(),
        0u8..3,
        0u8..3,
        "[x=1]{0,3}",
        any::<u32>(),
        attributes(),
        0u32..3,
    )
        .prop_map(
            |(trace, no_trace, span, trace_state, flags, attributes, dropped_attributes_count)| {
                Link {
                    trace_id: TraceId::new(trace).filter(|_| no_trace > 0),
                    span_id: span_id(span),
                    trace_state,
                    flags,
                    attributes,
                    dropped_attributes_count,
                }
            },
        )
}

/// Spans of few traces, ids and times, so that twins, cycles and repeats come up, with everything
/// OTLP carries.
pub(super) fn span() -> impl Strategy<Value = Span> {
    let ids = (0u8..3, 1u8..7, 0u8..7);
    let times = prop_oneof![
        8 => (0i64..5, 0i64..9),
        1 => (Just(i64::MIN), Just(i64::MAX)),
        1 => (any::<i64>(), 0i64..9),
    ];
    let codes = (0i32..6, 0i32..3, prop_oneof![Just(0x101u32), any::<u32>()]);
    let texts = ("[ab]{0,1}", "[me]{0,2}", "[t=1]{0,2}");
    let counts = (0u32..2, 0u32..2, 0u32..2);
    let lists = (
        attributes(),
        prop::collection::vec(event(), 0..2),
        prop::collection::vec(link(), 0..2),
    );
    (ids, times, codes, texts, counts, lists, resource(), scope()).prop_map(
        |(ids, (start, duration), codes, texts, counts, lists, resource, scope)| Span {
            trace_id: trace_id(ids.0),
            span_id: span_id(ids.1).unwrap(),
            parent_span_id: span_id(ids.2),
            trace_state: texts.2,
            flags: codes.2,
            name: Arc::from(texts.0),
            kind: SpanKind::from_number(codes.0).unwrap(),
            start: Timestamp::from_nanos(start),
            end: Timestamp::from_nanos(start.saturating_add(duration)),
            attributes: lists.0,
            dropped_attributes_count: counts.0,
            events: lists.1,
            dropped_events_count: counts.1,
            links: lists.2,
            dropped_links_count: counts.2,
            status: StatusCode::from_number(codes.1).unwrap(),
            status_message: texts.1,
            resource,
            scope,
        },
    )
}

/// A pool of spans, and records that take from it: repeats are common, also with attributes in
/// another order.
pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let pool = prop::collection::vec(span(), 1..12);
    let picks = prop::collection::vec(
        prop_oneof![
            6 => prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..6)
                .prop_map(Ok),
            1 => (0u8..3).prop_map(Err),
        ],
        0..10,
    );
    (pool, picks).prop_map(|(pool, picks)| {
        let pick = |(index, reorder): (prop::sample::Index, bool)| {
            let mut span = index.get(&pool).clone();
            if reorder {
                span.attributes.reverse();
                let mut resource = (*span.resource).clone();
                resource.attributes.reverse();
                // Only if the order does not decide which service name is the first.
                if resource.service() == span.service() {
                    span.resource = Arc::new(resource);
                }
            }
            span
        };
        picks
            .into_iter()
            .map(|op| match op {
                Ok(spans) => Op::Write(spans.into_iter().map(pick).collect()),
                Err(trace) => Op::Delete(trace_id(trace)),
            })
            .collect()
    })
}

pub(super) fn filters() -> impl Strategy<Value = SpanFilter> {
    let text = prop_oneof![
        Just(""),
        Just("shop"),
        Just("a"),
        Just("500"),
        Just("b"),
        Just("0")
    ];
    let pattern = prop_oneof![
        Just(""),
        Just("sh.*|a"),
        Just(".+"),
        Just("[0-9]+"),
        Just("[ab].*")
    ];
    let matches = prop_oneof![
        (
            prop_oneof![Just(MatchOp::Equal), Just(MatchOp::NotEqual)],
            text
        ),
        (
            prop_oneof![Just(MatchOp::Regex), Just(MatchOp::NotRegex)],
            pattern
        ),
    ]
    .prop_map(|(op, value)| StringMatch::new(op, value).unwrap());
    let scopes = prop_oneof![
        Just(TagScope::Any),
        Just(TagScope::Span),
        Just(TagScope::Resource),
        Just(TagScope::Event),
        Just(TagScope::Link),
        Just(TagScope::Scope)
    ];
    let key = prop_oneof![
        Just(""),
        Just("a"),
        Just("b"),
        Just("nowhere"),
        Just(SERVICE_NAME)
    ];
    let condition = prop_oneof![
        matches.clone().prop_map(SpanCondition::Service),
        matches.clone().prop_map(SpanCondition::Name),
        (0i32..6).prop_map(|k| SpanCondition::Kind(SpanKind::from_number(k).unwrap())),
        (0i32..3).prop_map(|s| SpanCondition::Status(StatusCode::from_number(s).unwrap())),
        (0u64..9, 0u64..9).prop_map(|(min, max)| SpanCondition::DurationNs { min, max }),
        matches.clone().prop_map(SpanCondition::EventName),
        matches.clone().prop_map(SpanCondition::ScopeName),
        matches.clone().prop_map(SpanCondition::StatusMessage),
        (key.clone(), scopes.clone()).prop_map(|(key, of)| SpanCondition::Exists {
            key: key.to_owned(),
            of
        }),
        (key, scopes, matches).prop_map(|(key, of, matches)| SpanCondition::Tag {
            key: key.to_owned(),
            of,
            matches
        }),
    ];
    let range = prop_oneof![
        Just(TimeRange::ALL),
        (0i64..5, 0i64..5).prop_map(|(start, length)| {
            let (start, end) = (
                Timestamp::from_nanos(start),
                Timestamp::from_nanos(start + length),
            );
            TimeRange::new(start, end).unwrap()
        }),
    ];
    (range, prop::collection::vec(condition, 0..3))
        .prop_map(|(range, conditions)| SpanFilter { range, conditions })
}

// ---- the promises -------------------------------------------------------------------------------

pub(super) fn apply_all(head: &SpanHead, ops: &[Op], replayed: bool) {
    for (op, lsn) in ops.iter().zip(1..) {
        match op {
            Op::Write(spans) => write(head, lsn, spans, replayed),
            Op::Delete(id) => head.delete_trace(head.shard_of(*id), Lsn(lsn), *id, Lsn(0)),
        }
    }
}

fn check_traces(head: &SpanHead, ops: &[Op], at: usize) {
    let (lsn, ctl) = (Lsn(at as u64), control());
    for id in (0..3).map(trace_id) {
        let expected = visible(ops, at, id);
        let found = head.trace(lsn, id, &ctl).unwrap();
        let summary = head.trace_summary(lsn, id, &ctl).unwrap();
        let Some(found) = found else {
            assert!(expected.is_empty() && summary.is_none());
            continue;
        };
        assert_eq!(found.spans.len(), expected.len(), "trace {id} at {lsn:?}");
        for (found, expected) in found.spans.iter().zip(&expected) {
            assert_eq!(found, expected, "trace {id} at {lsn:?}");
        }
        let parents = naive_parents(&expected);
        assert_eq!(found.parents, parents, "trace {id} at {lsn:?}");
        let summary = summary.unwrap();
        let root = expected
            .iter()
            .zip(&parents)
            .find(|(_, parent)| parent.is_none())
            .unwrap()
            .0;
        assert_eq!(&*summary.root_name, &*root.name);
        assert_eq!(&*summary.root_service, root.service());
        assert_eq!(summary.root_is_orphan, root.parent_span_id.is_some());
        assert_eq!(summary.spans, expected.len() as u64);
        assert_eq!(summary.end, expected.iter().map(|s| s.end).max().unwrap());
        assert_eq!(summary.start, expected[0].start);
        let services: BTreeSet<&str> = expected.iter().map(Span::service).collect();
        assert!(summary.services.iter().map(|s| &*s.service).eq(services));
    }
}

type HitKey = (
    TraceId,
    SpanId,
    i64,
    u64,
    String,
    String,
    Option<String>,
    Option<SpanId>,
);

fn hits(head: &Arc<SpanHead>, at: Lsn, filter: &SpanFilter) -> Vec<HitKey> {
    let ctl = &control();
    let mut found = Vec::new();
    for part in SpanPart::of_head(head, at) {
        let rows = part.select(filter, ctl).unwrap();
        let text = |symbol| part.symbol(symbol).to_string();
        let hits = part.hits(&rows, ctl).unwrap();
        found.extend(hits.iter().map(|hit| {
            (
                hit.trace_id,
                hit.span_id,
                hit.start.as_nanos(),
                hit.duration_ns,
                text(hit.name),
                text(hit.service),
                hit.parent_service.map(text),
                hit.parent_span_id,
            )
        }));
    }
    found.sort();
    found
}

fn naive_hits(ops: &[Op], at: usize, filter: &SpanFilter) -> Vec<HitKey> {
    let mut found = Vec::new();
    for id in (0..3).map(trace_id) {
        let spans = visible(ops, at, id);
        for (span, parent) in spans.iter().zip(naive_parents(&spans)) {
            if naive_match(span, filter) {
                found.push((
                    id,
                    span.span_id,
                    span.start.as_nanos(),
                    span.duration_ns(),
                    span.name.to_string(),
                    span.service().to_owned(),
                    parent.map(|p| spans[p as usize].service().to_owned()),
                    span.parent_span_id,
                ));
            }
        }
    }
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Twins, repeats, deletes, sends again, cycles and orphans: at every LSN the head answers what
    /// the model does, whether the spans came live or from the log.
    #[test]
    fn every_snapshot_agrees_with_the_model(ops in ops(), replayed: bool, shards in 1usize..4) {
        let head = Arc::new(new_head(shards));
        apply_all(&head, &ops, replayed);
        for at in 0..=ops.len() {
            check_traces(&head, &ops, at);
        }
    }

    #[test]
    fn searches_agree_with_the_model(
        ops in ops(),
        filters in prop::collection::vec(filters(), 4),
        back in 0usize..3,
    ) {
        let head = Arc::new(new_head(2));
        apply_all(&head, &ops, false);
        let at = ops.len().saturating_sub(back);
        for filter in &filters {
            let found = hits(&head, Lsn(at as u64), filter);
            prop_assert_eq!(found, naive_hits(&ops, at, filter), "{:?}", filter);
        }
    }

    /// The same spans in any order and in any batches are the same trace.
    #[test]
    fn the_order_of_arrival_changes_no_answer(
        spans in prop::collection::vec(span(), 1..24)
            .prop_flat_map(|spans| (Just(spans.clone()), Just(spans).prop_shuffle())),
        cut in 1usize..6,
    ) {
        let (one, other) = (Arc::new(new_head(2)), Arc::new(new_head(3)));
        write(&one, 1, &spans.0, false);
        for (part, lsn) in spans.1.chunks(cut).zip(1..) {
            write(&other, lsn, part, true);
        }
        for id in (0..3).map(trace_id) {
            let answer = |head: &Arc<SpanHead>| {
                let trace = head.trace(Lsn(99), id, &control()).unwrap()?;
                let spans: Vec<_> = trace.spans.iter().map(Span::canonical_bytes).collect();
                Some((spans, trace.parents))
            };
            prop_assert_eq!(answer(&one), answer(&other));
        }
        let all = SpanFilter::in_range(TimeRange::ALL);
        prop_assert_eq!(hits(&one, Lsn(99), &all), hits(&other, Lsn(99), &all));
    }

    #[test]
    fn any_bytes_are_a_spans_part_or_refused(bytes: Vec<u8>) {
        decode_anything(&bytes);
    }

    /// Real parts with some bytes changed or cut off reach deeper than noise does.
    #[test]
    fn damaged_parts_are_decoded_or_refused(
        spans in prop::collection::vec(span(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut batch = SpanBatch::new();
        for span in &spans {
push(&mut batch, span);
}
        let mut bytes = Vec::new();
        crate::record::spans::encode(&batch.data, &mut bytes);
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        decode_anything(&bytes);
    }
}

/// Whatever decodes can be applied and read.
fn decode_anything(bytes: &[u8]) {
    let head = Arc::new(new_head(2));
    let mut prepared = PreparedSpans::default();
    let part = Part {
        tag: Tag::Spans,
        bytes,
        lsn: Lsn(1),
    };
    if head.decode(part, &mut prepared).is_err() {
        return;
    }
    for shard in 0..head.shards() {
        head.apply(shard, Lsn(1), &prepared, Lsn(0));
    }
    let filter = SpanFilter::in_range(TimeRange::ALL);
    for hit in hits(&head, Lsn(1), &filter) {
        let trace = head.trace(Lsn(1), hit.0, &control()).unwrap().unwrap();
        assert_eq!(trace.spans.len(), trace.parents.len());
    }
}

pub(super) fn plain(trace: u8, id: u64, parent: u64, start: i64) -> Span {
    Span {
        trace_id: trace_id(trace),
        span_id: SpanId::new(id.to_be_bytes()).unwrap(),
        parent_span_id: SpanId::new(parent.to_be_bytes()),
        trace_state: String::new(),
        flags: 0,
        name: Arc::from("op"),
        kind: SpanKind::Internal,
        start: Timestamp::from_nanos(start),
        end: Timestamp::from_nanos(start + 1),
        attributes: vec![(Arc::from("n"), Value::Int((id % 100).cast_signed()))],
        dropped_attributes_count: 0,
        events: Vec::new(),
        dropped_events_count: 0,
        links: Vec::new(),
        dropped_links_count: 0,
        status: StatusCode::Unset,
        status_message: String::new(),
        resource: Arc::default(),
        scope: Arc::default(),
    }
}

/// Twins (all under one id), a chain, and a chain that arrives backwards: none may be quadratic or
/// recurse, or this test does not end.
#[test]
fn huge_traces_of_every_shape_are_read_in_linear_time() {
    let deep: Vec<Span> = (1..=100_000u64)
        .map(|i| plain(0, i, i - 1, i.cast_signed()))
        .collect();
    let backwards: Vec<Span> = (1..=50_000u64)
        .rev()
        .map(|i| plain(1, i, i - 1, -i.cast_signed()))
        .collect();
    let twins: Vec<Span> = (1..=30_000).map(|i| plain(2, 1, 1, i)).collect();
    let head = Arc::new(new_head(1));
    for (spans, lsn) in [deep, backwards, twins].into_iter().zip(1..) {
        write(&head, lsn, &spans, false);
    }
    let trace = |n| {
        head.trace(Lsn(9), trace_id(n), &control())
            .unwrap()
            .unwrap()
    };
    let deep = trace(0);
    assert_eq!(deep.spans.len(), 100_000);
    assert!((1..100_000).all(|i| deep.parents[i as usize] == Some(i - 1)));
    let backwards = trace(1);
    // Starts fall along the chain, so the last one sent (the root) sorts last.
    assert!((0..49_999).all(|i| backwards.parents[i as usize] == Some(i + 1)));
    let twins = trace(2);
    assert_eq!(
        twins
            .parents
            .iter()
            .filter(|parent| parent.is_none())
            .count(),
        1
    );
    let all = SpanFilter::in_range(TimeRange::ALL);
    assert_eq!(hits(&head, Lsn(9), &all).len(), 180_000);
}

#[test]
fn a_reader_at_one_lsn_sees_the_same_while_the_writer_goes_on() {
    let head = Arc::new(new_head(2));
    let batch = |n: u64| -> Vec<Span> {
        let start = (n * 7 % 50).cast_signed();
        (0..20)
            .map(|i| plain(u8::try_from(i % 3).unwrap(), 1 + n * 20 + i, n * 20, start))
            .collect()
    };
    for lsn in 1..=20 {
        write(&head, lsn, &batch(lsn), false);
    }
    let filter = SpanFilter::in_range(TimeRange::ALL).and(SpanCondition::Tag {
        key: "n".to_owned(),
        of: TagScope::Any,
        matches: StringMatch::new(MatchOp::Regex, "[1-5].*").unwrap(),
    });
    let bounds = |at| -> Vec<_> {
        let parts = SpanPart::of_head(&head, Lsn(at));
        parts
            .map(|part| part.time_bounds(&control()).unwrap())
            .collect()
    };
    let look = |at| {
        let traces: Vec<_> = (0..3)
            .map(|n| head.trace(Lsn(at), trace_id(n), &control()).unwrap())
            .collect();
        (traces, hits(&head, Lsn(at), &filter), bounds(at))
    };
    let expected: Vec<_> = [10, 20].map(|at| (at, look(at))).into();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for lsn in 21..=200 {
                write(&head, lsn, &batch(lsn), lsn % 2 == 0);
                if lsn % 10 == 0 {
                    let id = trace_id(u8::try_from(lsn / 10 % 3).unwrap());
                    head.delete_trace(head.shard_of(id), Lsn(lsn), id, Lsn(0));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        for (at, expected) in &expected {
            let (look, done) = (&look, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(&look(*at), expected);
                }
                assert_eq!(&look(*at), expected);
            });
        }
    });
}

#[test]
fn what_the_head_holds_is_charged_and_given_back() {
    let budget = Budget::new(1 << 40);
    let head = SpanHead::new(&Settings::default(), Arc::clone(&budget));
    write(&head, 1, &[plain(0, 1, 0, 1)], false);
    let one = budget.held_bytes(Holder::SpanHead);
    assert!(one > 0 && one < 64 << 10, "{one} bytes for one span");
    let spans: Vec<Span> = (1..=50_000u64).map(|i| plain(0, i, 0, 1)).collect();
    write(&head, 2, &spans, false);
    let many = budget.held_bytes(Holder::SpanHead);
    write(&head, 3, &spans, false);
    assert_eq!(
        budget.held_bytes(Holder::SpanHead) - many,
        0,
        "repeats are not stored"
    );
    assert_eq!(head.stats().spans, 50_000);
    drop(head);
    assert_eq!(budget.used_bytes(), 0);
}

/// A resource was once told apart by a text number it does not use, so that the same resource was
/// another one in a batch whose first text differed, and repeats of its spans were kept.
#[test]
fn a_repeat_is_known_whatever_else_its_batch_holds() {
    let head = Arc::new(new_head(1));
    let resource = Arc::new(Resource {
        schema_url: "s".to_owned(),
        ..Resource::default()
    });
    let span = Span {
        resource,
        ..plain(0, 2, 0, 1)
    };
    write(&head, 1, &[plain(0, 1, 0, 1), span.clone()], false);
    write(&head, 2, &[span], false);
    assert_eq!(head.stats().spans, 2);
}

#[test]
fn numbers_are_found_by_what_they_display() {
    let head = Arc::new(new_head(1));
    let values = [
        Value::Int(500),
        Value::Double(500.0),
        Value::Str("500".into()),
        Value::Int(5),
    ];
    let spans: Vec<Span> = values
        .into_iter()
        .zip(1..)
        .map(|(value, id)| Span {
            attributes: vec![("code".into(), value)],
            ..plain(0, id, 0, 1)
        })
        .collect();
    write(&head, 1, &spans, false);
    let filter = SpanFilter::in_range(TimeRange::ALL).and(SpanCondition::Tag {
        key: "code".to_owned(),
        of: TagScope::Span,
        matches: StringMatch::equal("500"),
    });
    assert_eq!(hits(&head, Lsn(1), &filter).len(), 3);
}
