//! The promise guarded here: whatever is asked of sets of spans, the answer is that of a plain walk over
//! whole traces; and the pages of an answer, put together, are the answer.
//!
//! The spans lie in the head and in blocks, merged ones too, and some were deleted after that, so that
//! traces lost a part of their spans. Spans are drawn so that ids repeat, parents are missing, point at themselves or in circles, and
//! children come before their parents in other batches. Thresholds are small in tests, so that every
//! way of walking is taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    time::Duration,
};

use proptest::prelude::*;
use rootline_engine::{
    Attributes, Axis, Durability, Engine, MatchOp, QueryControl, QueryLimits, ResourceFields,
    ScopeFields, Settings, Snapshot, Span, SpanCondition, SpanFields, SpanFilter, SpanId, SpanKind,
    StatusCode, StringMatch, TagScope, TimeRange, Timestamp, Trace, TraceId, Value, ValueRef,
};
use tempfile::TempDir;

use crate::{
    FoundSpan, Memory, SpanAggregation, SpanFigure, SpanGroupKey, SpanMeasure, SpanSet,
    WantedFigures, aggregate_spans, count_spans, find_spans, find_traces, span_starts,
};

const SERVICES: [&str; 3] = ["cart", "frontend", ""];
const NAMES: [&str; 3] = ["get", "put", "get /x"];

#[derive(Clone, Debug)]
struct TestSpan {
    trace: u8,
    id: u8,
    /// 0: none.
    parent: u8,
    service: usize,
    name: usize,
    kind: i32,
    status: i32,
    start: i64,
    duration: i64,
    users: Vec<i64>,
    zone: bool,
    event: Option<i64>,
    message: bool,
}

fn any_span() -> impl Strategy<Value = TestSpan> {
    let what = (
        0u8..6,
        1u8..12,
        0u8..13,
        0usize..3,
        0usize..3,
        0i32..6,
        0i32..3,
    );
    let more = (
        0i64..100,
        0i64..60,
        prop::collection::vec(1i64..4, 0..3),
        any::<bool>(),
        prop::option::of(1i64..3),
        any::<bool>(),
    );
    (what, more).prop_map(|(what, more)| {
        let (trace, id, parent, service, name, kind, status) = what;
        let (start, duration, users, zone, event, message) = more;
        TestSpan {
            trace,
            id,
            parent,
            service,
            name,
            kind,
            status,
            start,
            duration,
            users,
            zone,
            event,
            message,
        }
    })
}

struct Store {
    engine: Engine,
    _dir: TempDir,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        // What a crash would lose is not the question here.
        settings.durability = Durability::Interval(Duration::from_mins(1));
        let engine = Engine::builder(dir.path())
            .settings(settings)
            .open()
            .unwrap();
        Self { engine, _dir: dir }
    }

    fn write(&self, spans: &[TestSpan]) {
        let mut batch = self.engine.batch();
        for span in spans {
            let mut attributes = vec![("service.name", ValueRef::Str(SERVICES[span.service]))];
            if span.zone {
                attributes.push(("user", ValueRef::Int(9)));
                attributes.push(("zone", ValueRef::Str("west")));
            }
            let fields = ResourceFields {
                attributes: &attributes,
                ..ResourceFields::default()
            };
            let resource = batch.spans().resource(&fields).unwrap();
            let fields = ScopeFields {
                name: ["", "lib"][usize::from(span.zone)],
                ..ScopeFields::default()
            };
            let scope = batch.spans().scope(&fields).unwrap();
            let mut writer = batch.spans().span(resource, scope);
            for &user in &span.users {
                writer.attribute("user", ValueRef::Int(user));
            }
            if let Some(event) = span.event {
                writer.event(Timestamp::from_nanos(span.start), "retry", 0);
                writer.event_attribute("try", ValueRef::Int(event));
            }
            let id = |n: u8| SpanId::from_slice(&[n; 8]).unwrap();
            let start = Timestamp::from_nanos(span.start);
            let end = Timestamp::from_nanos(span.start + span.duration);
            let trace = TraceId::from_slice(&[span.trace + 1; 16]).unwrap();
            let fields = SpanFields {
                parent_span_id: (span.parent > 0).then(|| id(span.parent)),
                kind: SpanKind::from_number(span.kind).unwrap(),
                status: StatusCode::from_number(span.status).unwrap(),
                status_message: ["", "broken"][usize::from(span.message)],
                ..SpanFields::new(trace, id(span.id), NAMES[span.name], start, end)
            };
            writer.finish(&fields).unwrap();
        }
        self.engine.write(&mut batch).unwrap();
    }

    fn control(&self) -> QueryControl {
        self.engine.query_control(None, QueryLimits::default())
    }

    fn memory(&self) -> Memory {
        Memory::new(self.engine.budget())
    }
}

fn any_text(values: &'static [&'static str]) -> impl Strategy<Value = StringMatch> {
    let value = prop::sample::select(values);
    (0usize..4, value).prop_map(|(op, value)| {
        let op = [
            MatchOp::Equal,
            MatchOp::NotEqual,
            MatchOp::Regex,
            MatchOp::NotRegex,
        ][op];
        StringMatch::new(op, value).unwrap()
    })
}

fn any_condition() -> impl Strategy<Value = SpanCondition> {
    let scope = prop::sample::select(vec![
        TagScope::Any,
        TagScope::Span,
        TagScope::Resource,
        TagScope::Event,
    ]);
    let key = prop::sample::select(vec!["user", "zone", "try", "absent"]);
    let key = key.prop_map(str::to_owned);
    prop_oneof![
        3 => any_text(&["cart", "frontend", ".*t", ""]).prop_map(SpanCondition::Service),
        2 => any_text(&["get", "put", "get.*"]).prop_map(SpanCondition::Name),
        1 => (0..6).prop_map(|n| SpanCondition::Kind(SpanKind::from_number(n).unwrap())),
        2 => (0..3).prop_map(|n| SpanCondition::Status(StatusCode::from_number(n).unwrap())),
        1 => (0u64..60, 0u64..60).prop_map(|(a, b)| SpanCondition::DurationNs {
            min: a.min(b),
            max: a.max(b),
        }),
        2 => (key.clone(), scope.clone(), any_text(&["1", "2", "9", "west", "1|3", ""]))
            .prop_map(|(key, of, matches)| SpanCondition::Tag { key, of, matches }),
        1 => (key, scope).prop_map(|(key, of)| SpanCondition::Exists { key, of }),
        1 => any_text(&["retry", ""]).prop_map(SpanCondition::EventName),
        1 => any_text(&["lib", ""]).prop_map(SpanCondition::ScopeName),
        1 => any_text(&["broken", ""]).prop_map(SpanCondition::StatusMessage),
    ]
}

fn any_set() -> impl Strategy<Value = SpanSet> {
    let leaf = prop::collection::vec(any_condition(), 0..3).prop_map(SpanSet::Where);
    leaf.prop_recursive(3, 10, 3, |inner| {
        let axis = prop::sample::select(vec![
            Axis::Child,
            Axis::Parent,
            Axis::Descendant,
            Axis::Ancestor,
            Axis::Sibling,
        ]);
        let figure = prop::sample::select(vec![
            (SpanFigure::Duration, 20),
            (SpanFigure::Own, 20),
            (SpanFigure::Depth, 1),
            (SpanFigure::Children, 1),
        ]);
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            4 => (boxed(), axis, boxed(), any::<bool>()).prop_map(|(among, axis, of, negated)| {
                SpanSet::Relative { among, axis, of, negated }
            }),
            1 => (boxed(), boxed(), any::<bool>())
                .prop_map(|(among, of, negated)| SpanSet::InSameTrace { among, of, negated }),
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(SpanSet::And),
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(SpanSet::Or),
            1 => (boxed(), boxed()).prop_map(|(a, b)| SpanSet::Minus(a, b)),
            2 => (inner.clone(), figure, any::<bool>()).prop_map(|(set, (figure, n), above)| {
                let (min, max) = if above { (n, u64::MAX) } else { (0, n) };
                set.having(figure, min, max)
            }),
        ]
    })
}

/// A trace, and what a plain walk knows of it.
struct Plain {
    trace: Trace,
    /// By span: the places of its children.
    children: Vec<Vec<usize>>,
}

impl Plain {
    fn new(trace: Trace) -> Self {
        let mut children = vec![Vec::new(); trace.spans.len()];
        for (child, parent) in trace.parents.iter().enumerate() {
            if let Some(parent) = parent {
                children[*parent as usize].push(child);
            }
        }
        Self { trace, children }
    }

    fn parent(&self, i: usize) -> Option<usize> {
        self.trace.parents[i].map(|parent| parent as usize)
    }

    fn ancestors(&self, i: usize) -> Vec<usize> {
        std::iter::successors(self.parent(i), |&i| self.parent(i)).collect()
    }

    /// What the spans at `axis` of a span are.
    fn relatives(&self, i: usize, axis: Axis) -> Vec<usize> {
        let all = 0..self.trace.spans.len();
        match axis {
            Axis::Child => self.children[i].clone(),
            Axis::Parent => self.parent(i).into_iter().collect(),
            Axis::Ancestor => self.ancestors(i),
            Axis::Descendant => all.filter(|&d| self.ancestors(d).contains(&i)).collect(),
            Axis::Sibling => {
                let parent = self.parent(i);
                all.filter(|&s| s != i && parent.is_some() && self.parent(s) == parent)
                    .collect()
            }
        }
    }

    fn own_ns(&self, i: usize) -> u64 {
        let span = &self.trace.spans[i];
        let (start, end) = (span.start.as_nanos(), span.end.as_nanos());
        let covered = (start..end).filter(|&ns| {
            self.children[i].iter().any(|&child| {
                let child = &self.trace.spans[child];
                child.start.as_nanos() <= ns && ns < child.end.as_nanos()
            })
        });
        span.duration_ns() - covered.count() as u64
    }

    fn members(&self, set: &SpanSet) -> BTreeSet<usize> {
        let all = || 0..self.trace.spans.len();
        match set {
            SpanSet::Where(conditions) => all()
                .filter(|&i| conditions.iter().all(|c| meets(&self.trace.spans[i], c)))
                .collect(),
            SpanSet::Relative {
                among,
                axis,
                of,
                negated,
            } => {
                let of = self.members(of);
                let mut among = self.members(among);
                among.retain(|&i| {
                    let has = self.relatives(i, *axis).iter().any(|i| of.contains(i));
                    has != *negated
                });
                among
            }
            SpanSet::InSameTrace { among, of, negated } => {
                if self.members(of).is_empty() == *negated {
                    self.members(among)
                } else {
                    BTreeSet::new()
                }
            }
            SpanSet::And(sets) => all()
                .filter(|i| sets.iter().all(|set| self.members(set).contains(i)))
                .collect(),
            SpanSet::Or(sets) => all()
                .filter(|i| sets.iter().any(|set| self.members(set).contains(i)))
                .collect(),
            SpanSet::Minus(from, what) => {
                let what = self.members(what);
                let mut from = self.members(from);
                from.retain(|i| !what.contains(i));
                from
            }
            SpanSet::Having {
                set,
                figure,
                min,
                max,
            } => {
                let mut set = self.members(set);
                set.retain(|&i| {
                    let number = match figure {
                        SpanFigure::Duration => self.trace.spans[i].duration_ns(),
                        SpanFigure::Own => self.own_ns(i),
                        SpanFigure::Depth => self.ancestors(i).len() as u64,
                        SpanFigure::Children => self.children[i].len() as u64,
                    };
                    (*min..=*max).contains(&number)
                });
                set
            }
        }
    }
}

/// The values of a key where it is looked for.
fn values<'s>(span: &'s Span, key: &str, of: TagScope) -> Vec<&'s Value> {
    let of_list = |list: &'s Attributes| -> Vec<&'s Value> {
        let found = list.iter().filter(|(k, _)| **k == *key);
        found.map(|(_, value)| value).collect()
    };
    match of {
        TagScope::Span => of_list(&span.attributes),
        TagScope::Resource => of_list(&span.resource.attributes),
        TagScope::Event => span
            .events
            .iter()
            .flat_map(|event| of_list(&event.attributes))
            .collect(),
        TagScope::Link => Vec::new(),
        TagScope::Scope => of_list(&span.scope.attributes),
        TagScope::Any => {
            let own = of_list(&span.attributes);
            if own.is_empty() {
                of_list(&span.resource.attributes)
            } else {
                own
            }
        }
    }
}

fn meets(span: &Span, condition: &SpanCondition) -> bool {
    let one_of = |texts: Vec<String>, wanted: &StringMatch| {
        if texts.is_empty() {
            wanted.matches_absent()
        } else {
            texts.iter().any(|text| wanted.matches(text))
        }
    };
    match condition {
        SpanCondition::Service(text) => text.matches(span.service()),
        SpanCondition::Name(text) => text.matches(&span.name),
        SpanCondition::Kind(kind) => span.kind == *kind,
        SpanCondition::Status(status) => span.status == *status,
        SpanCondition::DurationNs { min, max } => (*min..=*max).contains(&span.duration_ns()),
        SpanCondition::Tag { key, of, matches } => {
            let texts = values(span, key, *of);
            let texts = texts.iter().map(|v| v.as_ref().to_string()).collect();
            one_of(texts, matches)
        }
        SpanCondition::Exists { key, of } => !values(span, key, *of).is_empty(),
        SpanCondition::EventName(text) => {
            let names = span.events.iter().map(|event| event.name.clone());
            one_of(names.collect(), text)
        }
        SpanCondition::ScopeName(text) => text.matches(&span.scope.name),
        SpanCondition::StatusMessage(text) => text.matches(&span.status_message),
        other => panic!("{other:?}"),
    }
}

/// How many of `spans` differ: those that do not are one span.
fn distinct(spans: &[TestSpan]) -> usize {
    let sorted = |span: &TestSpan| {
        let mut span = span.clone();
        span.users.sort_unstable();
        format!("{span:?}")
    };
    spans.iter().map(sorted).collect::<BTreeSet<_>>().len()
}

/// All traces, the newest first.
fn plain_traces(store: &Store, snapshot: &Snapshot) -> Vec<Plain> {
    let ids = (1u8..=6).map(|n| TraceId::from_slice(&[n; 16]).unwrap());
    let found = ids.filter_map(|id| snapshot.trace(id, &store.control()).unwrap());
    let mut traces: Vec<Plain> = found.map(Plain::new).collect();
    traces.sort_by_key(|plain| std::cmp::Reverse((plain.trace.spans[0].start, plain.trace.id)));
    traces
}

fn as_found(plain: &Plain, i: usize) -> FoundSpan {
    let span = &plain.trace.spans[i];
    let parent = plain.parent(i).map(|parent| &plain.trace.spans[parent]);
    FoundSpan {
        trace_id: span.trace_id,
        trace_start: plain.trace.spans[0].start,
        span_id: span.span_id,
        parent_span_id: span.parent_span_id,
        service: span.service().into(),
        name: span.name.clone(),
        parent_service: parent.map(|parent| parent.service().into()),
        start: span.start,
        duration_ns: span.duration_ns(),
        kind: span.kind,
        status: span.status,
    }
}

/// Spans of one place in a fixed order.
fn sorted_within_places(mut spans: Vec<FoundSpan>) -> Vec<FoundSpan> {
    let place = |span: &FoundSpan| (span.trace_id, span.start, span.span_id);
    for same in spans.chunk_by_mut(|a, b| place(a) == place(b)) {
        same.sort_by_key(|span| format!("{span:?}"));
    }
    spans
}

fn all_pages_of_spans(
    store: &Store,
    set: &SpanSet,
    range: TimeRange,
    limit: usize,
) -> Vec<FoundSpan> {
    let mut spans = Vec::new();
    let mut token = String::new();
    loop {
        let snapshot = store.engine.snapshot().unwrap();
        let before = spans.len();
        let visit = &mut |span| {
            spans.push(span);
            Ok(ControlFlow::Continue(()))
        };
        let (control, mut memory) = (store.control(), store.memory());
        let page = find_spans(
            &snapshot,
            set,
            range,
            limit,
            &token,
            &control,
            &mut memory,
            visit,
        );
        let page = page.unwrap();
        assert_eq!(page.spans, (spans.len() - before) as u64);
        match page.next {
            Some(next) => token = next,
            None => return spans,
        }
        assert!(spans.len() >= before + limit);
    }
}

fn all_pages_of_traces(
    store: &Store,
    set: &SpanSet,
    range: TimeRange,
    limit: usize,
) -> Vec<(TraceId, u64)> {
    let mut traces = Vec::new();
    let mut token = String::new();
    loop {
        let snapshot = store.engine.snapshot().unwrap();
        let (control, mut memory) = (store.control(), store.memory());
        let page =
            find_traces(&snapshot, set, range, limit, &token, &control, &mut memory).unwrap();
        traces.extend(page.traces.iter().map(|t| (t.summary.id, t.matched_spans)));
        match page.next {
            Some(next) => token = next,
            None => return traces,
        }
        assert_eq!(page.traces.len(), limit);
    }
}

fn quantile(times: &[u64], q: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let h = (sorted.len() - 1) as f64 * q;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank"
    )]
    let low = h.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    let (low, high) = (sorted[low] as f64, sorted[high] as f64);
    low + (h - h.floor()) * (high - low)
}

/// Spans, errors and times by group and step.
type PlainGroups = BTreeMap<String, BTreeMap<i64, (u64, u64, Vec<u64>)>>;

fn check_aggregates(
    store: &Store,
    snapshot: &Snapshot,
    members: &[(&Plain, usize)],
    set: &SpanSet,
    range: TimeRange,
    measure: SpanMeasure,
) -> Result<(), TestCaseError> {
    let user = SpanGroupKey::Attribute {
        key: "user".to_owned(),
        of: TagScope::Any,
    };
    let bys: [Vec<SpanGroupKey>; 4] = [
        Vec::new(),
        vec![SpanGroupKey::Service, SpanGroupKey::Status],
        vec![user, SpanGroupKey::Operation],
        vec![SpanGroupKey::Kind],
    ];
    for (by, step_ns, quantiles) in [
        (&bys[0], None, Some(vec![0.95, 0.0, 0.5])),
        (&bys[1], None, None),
        (&bys[1], Some(13), None),
        (&bys[2], None, Some(Vec::new())),
        (&bys[2], Some(40), Some(vec![0.9])),
        (&bys[3], None, None),
    ] {
        let mut expected = PlainGroups::new();
        for &(plain, i) in members {
            let span = &plain.trace.spans[i];
            let text = |text: &str| Some(Value::Str(text.to_owned()));
            let group: Vec<Option<Value>> = by
                .iter()
                .map(|key| match key {
                    SpanGroupKey::Service => text(span.service()),
                    SpanGroupKey::Operation => text(&span.name),
                    SpanGroupKey::Kind => text(crate::span_set::kind_word(span.kind)),
                    SpanGroupKey::Status => text(crate::span_set::status_word(span.status)),
                    SpanGroupKey::Attribute { key, of } => {
                        values(span, key, *of).first().map(|&value| value.clone())
                    }
                })
                .collect();
            let since = span.start.as_nanos() - range.start().as_nanos();
            let steps = step_ns.map_or(1, |step: u64| {
                let length = range.end().as_nanos() - range.start().as_nanos();
                length.cast_unsigned().div_ceil(step).max(1).cast_signed()
            });
            let step = step_ns
                .map_or(0, |step| since / step.cast_signed())
                .min(steps - 1);
            let cells = expected.entry(format!("{group:?}")).or_default();
            let cell = cells.entry(step).or_default();
            cell.0 += 1;
            cell.1 += u64::from(span.status == StatusCode::Error);
            cell.2.push(match measure {
                SpanMeasure::Duration => span.duration_ns(),
                SpanMeasure::OwnTime => plain.own_ns(i),
            });
        }
        let asked = SpanAggregation {
            by: by.clone(),
            step_ns,
            figures: quantiles
                .clone()
                .map(|quantiles| WantedFigures { measure, quantiles }),
            ..SpanAggregation::default()
        };
        let (control, mut memory) = (store.control(), store.memory());
        let found = aggregate_spans(snapshot, set, range, &asked, &control, &mut memory).unwrap();
        prop_assert_eq!(found.len(), expected.len());
        for group in found {
            let cells = expected.remove(&format!("{:?}", group.by));
            let cells = cells.ok_or_else(|| TestCaseError::fail(format!("{:?}", group.by)))?;
            prop_assert_eq!(group.points.len(), cells.len());
            for (point, (step, (spans, errors, times))) in group.points.iter().zip(cells) {
                prop_assert_eq!((point.spans, point.errors), (spans, errors));
                if let Some(step_ns) = step_ns {
                    let start = range.start().as_nanos() + step * step_ns.cast_signed();
                    prop_assert_eq!(point.range.start().as_nanos(), start);
                }
                let Some(figures) = &point.figures else {
                    prop_assert!(quantiles.is_none());
                    continue;
                };
                let sum: u64 = times.iter().sum();
                prop_assert_eq!(figures.sum_ns, u128::from(sum));
                prop_assert_eq!(Some(&figures.min_ns), times.iter().min());
                prop_assert_eq!(Some(&figures.max_ns), times.iter().max());
                let wanted = quantiles.as_deref().unwrap_or_default();
                prop_assert_eq!(figures.quantiles_ns.len(), wanted.len());
                for (found, &q) in figures.quantiles_ns.iter().zip(wanted) {
                    prop_assert!((found - quantile(&times, q)).abs() < 1e-6);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_answer_about_a_set_is_that_of_a_plain_walk(
        spans in prop::collection::vec(any_span(), 1..60),
        (flushed, merged) in (0usize..20, any::<bool>()),
        deleted in prop::option::of((any_condition(), 0i64..60)),
        sets in prop::collection::vec(any_set(), 12),
        (start, length) in (0i64..80, 0i64..100),
        (limit, own) in (1usize..9, any::<bool>()),
    ) {
        let store = Store::new();
        for (number, batch) in spans.chunks(7).enumerate() {
            store.write(batch);
            if number == flushed || (merged && number == flushed + 2) {
                store.engine.flush().unwrap();
            }
        }
        if merged {
            store.engine.compact().unwrap();
        }
        let whole = deleted.is_none();
        if let Some((condition, until)) = deleted {
            let range = TimeRange::new(Timestamp::MIN, Timestamp::from_nanos(until)).unwrap();
            let filter = SpanFilter::in_range(range).and(condition);
            store.engine.delete_spans(&filter).unwrap();
        }
        let range = TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(start + length));
        let range = range.unwrap();
        let snapshot = store.engine.snapshot().unwrap();
        let traces = plain_traces(&store, &snapshot);
        let stored: usize = traces.iter().map(|plain| plain.trace.spans.len()).sum();
        prop_assert!(!whole || stored == distinct(&spans), "{stored} spans: missing or kept twice");
        let measure = if own { SpanMeasure::OwnTime } else { SpanMeasure::Duration };
        for set in &sets {
            let mut members: Vec<(&Plain, usize)> = Vec::new();
            for plain in &traces {
                let of_trace = plain.members(set);
                members.extend(of_trace.into_iter().map(|i| (plain, i)));
            }
            let starts = members.iter().map(|(plain, i)| plain.trace.spans[*i].start);
            let bounds = starts.clone().min().zip(starts.max());
            let found = span_starts(&snapshot, set, &store.control()).unwrap();
            prop_assert_eq!(found.map(|found| (found.start(), found.end())), bounds, "{}", set);

            members.retain(|(plain, i)| range.contains(plain.trace.spans[*i].start));
            let count =
                count_spans(&snapshot, set, range, &store.control(), &mut store.memory()).unwrap();
            prop_assert_eq!(count, members.len() as u64, "{}", set);

            let expected: Vec<FoundSpan> =
                members.iter().map(|(plain, i)| as_found(plain, *i)).collect();
            let found = all_pages_of_spans(&store, set, range, limit);
            prop_assert_eq!(
                sorted_within_places(found), sorted_within_places(expected), "{}", set
            );

            let mut expected: Vec<(TraceId, u64)> = Vec::new();
            for (plain, _) in &members {
                match expected.last_mut() {
                    Some((id, count)) if *id == plain.trace.id => *count += 1,
                    _ => expected.push((plain.trace.id, 1)),
                }
            }
            let found = all_pages_of_traces(&store, set, range, limit.div_ceil(3));
            prop_assert_eq!(found, expected, "{}", set);
            check_aggregates(&store, &snapshot, &members, set, range, measure)?;
            let memory = store.memory();
            prop_assert_eq!(memory.used_bytes(), 0);
        }
    }
}
