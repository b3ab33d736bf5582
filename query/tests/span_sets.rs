//! The promise guarded here: what is documented of sets of spans holds through the public interface,
//! and questions about giants, past the bounds or stopped, end as they should.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::ops::ControlFlow;

use rootline_engine::{
    Engine, ErrorKind, QueryControl, QueryLimits, ResourceFields, ScopeFields, Settings,
    SpanFields, SpanId, StatusCode, TimeRange, Timestamp, TraceId, Value, ValueRef,
};
use rootline_query::{
    Error, FoundSpan, Memory, SpanAggregation, SpanGroupKey, SpanSet, WantedFigures,
    aggregate_spans, count_spans, find_spans, find_traces,
};
use tempfile::TempDir;

struct Store {
    engine: Engine,
    _dir: TempDir,
}

/// Trace, id, parent (0: none), service, start, end, whether it failed.
type Fields = (u8, u64, u64, &'static str, i64, i64, bool);

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::builder(dir.path())
            .settings(Settings::default())
            .open()
            .unwrap();
        Self { engine, _dir: dir }
    }

    fn of(spans: &[Fields]) -> Self {
        let store = Self::new();
        store.write(spans, &[]);
        store
    }

    /// Each span with one of the values, in turn.
    fn write(&self, spans: &[Fields], values: &[ValueRef<'_>]) {
        let mut batch = self.engine.batch();
        let mut values = values.iter().cycle();
        for &(trace, id, parent, service, start, end, failed) in spans {
            let attributes = [("service.name", ValueRef::Str(service))];
            let fields = ResourceFields {
                attributes: &attributes,
                ..ResourceFields::default()
            };
            let resource = batch.spans().resource(&fields).unwrap();
            let scope = batch.spans().scope(&ScopeFields::default()).unwrap();
            let mut writer = batch.spans().span(resource, scope);
            if let Some(value) = values.next() {
                writer.attribute("value", *value);
            }
            let span = |id: u64| SpanId::from_slice(&id.to_be_bytes());
            let (start, end) = (Timestamp::from_nanos(start), Timestamp::from_nanos(end));
            let fields = SpanFields {
                parent_span_id: span(parent),
                status: [StatusCode::Unset, StatusCode::Error][usize::from(failed)],
                ..SpanFields::new(trace_id(trace), span(id).unwrap(), "op", start, end)
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

    fn count(&self, set: &str, range: TimeRange) -> u64 {
        let set = SpanSet::parse(set).unwrap();
        let snapshot = self.engine.snapshot().unwrap();
        count_spans(&snapshot, &set, range, &self.control(), &mut self.memory()).unwrap()
    }

    /// A page of spans and the token of the next.
    fn page(&self, set: &str, limit: usize, token: &str) -> (Vec<FoundSpan>, Option<String>) {
        let set = SpanSet::parse(set).unwrap();
        let snapshot = self.engine.snapshot().unwrap();
        let mut spans = Vec::new();
        let visit = &mut |span| {
            spans.push(span);
            Ok(ControlFlow::Continue(()))
        };
        let (control, mut memory) = (self.control(), self.memory());
        let all = TimeRange::ALL;
        let page = find_spans(
            &snapshot,
            &set,
            all,
            limit,
            token,
            &control,
            &mut memory,
            visit,
        );
        (spans, page.unwrap().next)
    }

    /// Ids of the spans of a set, as found.
    fn ids(&self, set: &str) -> Vec<u64> {
        let (spans, _) = self.page(set, 1_000, "");
        spans.iter().map(|span| number(span.span_id)).collect()
    }

    fn aggregate(
        &self,
        set: &str,
        asked: &SpanAggregation,
    ) -> Result<Vec<rootline_query::SpanGroup>, Error> {
        let set = SpanSet::parse(set).unwrap();
        let snapshot = self.engine.snapshot().unwrap();
        let (control, mut memory) = (self.control(), self.memory());
        aggregate_spans(
            &snapshot,
            &set,
            TimeRange::ALL,
            asked,
            &control,
            &mut memory,
        )
    }
}

fn trace_id(n: u8) -> TraceId {
    TraceId::from_slice(&[n; 16]).unwrap()
}

fn number(id: SpanId) -> u64 {
    u64::from_be_bytes(*id.as_bytes())
}

fn range(start: i64, end: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end)).unwrap()
}

/// A frontend that calls a cart, which calls a database that fails, twice; and one without a database.
fn shop() -> Store {
    Store::of(&[
        (1, 1, 0, "frontend", 0, 100, false),
        (1, 2, 1, "cart", 10, 60, false),
        (1, 3, 2, "db", 20, 30, true),
        (1, 4, 2, "db", 25, 50, true),
        (1, 5, 1, "ads", 40, 90, false),
        (2, 6, 0, "frontend", 200, 300, false),
        (2, 7, 6, "cart", 210, 290, true),
    ])
}

#[test]
fn relations_are_read_from_the_left() {
    let shop = shop();
    for (set, ids) in [
        ("{service=frontend} with child {service=cart}", vec![6, 1]),
        ("{service=cart} with parent {service=frontend}", vec![7, 2]),
        ("{service=frontend} with descendant {service=db}", vec![1]),
        (
            "{service=frontend} without descendant {service=db}",
            vec![6],
        ),
        ("{status=error} with ancestor {service=cart}", vec![3, 4]),
        (
            "{status=error} minus {} with descendant {status=error}",
            vec![7, 3, 4],
        ),
        ("{} with sibling {service=db}", vec![3, 4]),
        ("{service=ads} with sibling {service=cart}", vec![5]),
        ("{service=cart} with any {service=ads}", vec![2]),
        ("{service=cart} without any {service=ads}", vec![7]),
        (
            "{service=frontend} with child ({service=cart} with child {service=db})",
            vec![1],
        ),
        ("{} having children = 0", vec![7, 3, 4, 5]),
        ("{} having depth = 0", vec![6, 1]),
        ("{service=cart} having own = 20ns", vec![2]),
        ("{service=frontend} having own <= 20ns", vec![6, 1]),
        ("{service=db} or {service=ads}", vec![3, 4, 5]),
        (
            "{service=frontend} and {duration=100ns} with child {status=error}",
            vec![6],
        ),
    ] {
        assert_eq!(shop.ids(set), ids, "{set}");
    }
}

#[test]
fn a_window_that_cuts_through_a_trace_does_not_change_who_caused_what() {
    let shop = shop();
    let failing = "{service=frontend} with descendant {service=db status=error}";
    assert_eq!(shop.count(failing, range(0, 5)), 1);
    assert_eq!(
        shop.count(
            "{service=db} with ancestor {service=frontend}",
            range(20, 30)
        ),
        2
    );
    assert_eq!(
        shop.count(
            "{service=db} without ancestor {service=frontend}",
            range(20, 30)
        ),
        0
    );
    assert_eq!(
        shop.count("{service=cart} with any {service=db}", range(5, 15)),
        1
    );
    assert_eq!(
        shop.count("{service=frontend} having own = 10ns", range(0, 0)),
        0
    );
    assert_eq!(
        shop.count("{service=frontend} having own = 20ns", range(0, 0)),
        1
    );
}

#[test]
fn a_chain_as_deep_as_the_trace_has_spans_is_walked() {
    let depth = 50_000u64;
    let spans: Vec<Fields> = (1..=depth)
        .map(|i| {
            let start = i.cast_signed();
            (1, i, i - 1, "s", start, start + 1, i == depth)
        })
        .collect();
    let store = Store::of(&spans);
    let count = |set: &str| store.count(set, TimeRange::ALL);
    assert_eq!(count("{} with descendant {status=error}"), depth - 1);
    assert_eq!(count("{status=error} with ancestor {}"), 1);
    assert_eq!(count("{} having depth >= 49990"), 10);
    assert_eq!(count("{} without child {}"), 1);
}

#[test]
fn pages_of_spans_of_one_large_trace_are_exact() {
    let spans: Vec<Fields> = (1u64..=1_000)
        .map(|i| (1, i, 0, "s", i.cast_signed() / 10, 200, false))
        .collect();
    let store = Store::of(&spans);
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = store.page("{}", 33, &token);
        found.extend(page.iter().map(|span| number(span.span_id)));
        match next {
            Some(next) => token = next,
            None => break,
        }
        assert_eq!(page.len(), 33);
    }
    assert_eq!(found, (1..=1_000).collect::<Vec<u64>>());
}

#[test]
fn sealing_and_merging_between_pages_changes_nothing() {
    let store = Store::new();
    let write = |traces: std::ops::Range<u8>| {
        for trace in traces {
            let (id, start) = (u64::from(trace) * 10 + 1, i64::from(trace % 7) * 100);
            store.write(
                &[
                    (trace + 1, id, 0, "frontend", start, start + 50, false),
                    (
                        trace + 1,
                        id + 1,
                        id,
                        "cart",
                        start + 10,
                        start + 20,
                        trace % 2 == 0,
                    ),
                ],
                &[],
            );
        }
    };
    write(0..20);
    store.engine.flush().unwrap();
    write(20..40);
    let set = "{} with child {status=error} or {status=error}";
    let (whole, _) = store.page(set, 1_000, "");
    assert_eq!(whole.len(), 40);
    let (mut found, mut token) = (Vec::new(), String::new());
    for page in 1.. {
        let (spans, next) = store.page(set, 7, &token);
        found.extend(spans);
        match next {
            Some(next) => token = next,
            None => break,
        }
        match page {
            1 => {
                store.engine.flush().unwrap();
            }
            3 => {
                store.engine.compact().unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(found, whole);
}

#[test]
fn spans_that_look_the_same_are_on_one_page() {
    let store = Store::new();
    // They differ in an attribute, which a list does not show.
    let same: Vec<Fields> = vec![(1, 1, 0, "s", 5, 6, false); 7];
    let values: Vec<ValueRef<'_>> = (0..7).map(ValueRef::Int).collect();
    store.write(&same, &values);
    store.write(&[(1, 2, 0, "s", 9, 10, false)], &[]);
    let (first, next) = store.page("{}", 2, "");
    assert_eq!(first.len(), 7);
    let (second, next) = store.page("{}", 2, &next.unwrap());
    assert_eq!(
        (second.len(), number(second[0].span_id), next),
        (1, 2, None)
    );
}

#[test]
fn a_list_of_spans_ends_when_it_is_told_to() {
    let shop = shop();
    let snapshot = shop.engine.snapshot().unwrap();
    let mut seen = 0;
    let (control, mut memory) = (shop.control(), shop.memory());
    let set = SpanSet::all();
    let all = TimeRange::ALL;
    let found = find_spans(
        &snapshot,
        &set,
        all,
        10,
        "",
        &control,
        &mut memory,
        &mut |_| {
            seen += 1;
            Ok(if seen == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        },
    )
    .unwrap();
    assert_eq!((seen, found.spans, found.next), (3, 3, None));
}

#[test]
fn values_of_different_types_are_different_groups_and_none_is_one() {
    let store = Store::new();
    let spans: Vec<Fields> = (1..=6).map(|i| (1, i, 0, "s", 0, 10, false)).collect();
    let values = [ValueRef::Int(5), ValueRef::Str("5"), ValueRef::Double(5.0)];
    store.write(&spans, &values);
    store.write(&[(2, 9, 0, "s", 0, 1, true)], &[]);
    let asked = SpanAggregation {
        by: vec![SpanGroupKey::Attribute {
            key: "value".to_owned(),
            of: rootline_engine::TagScope::Span,
        }],
        ..SpanAggregation::default()
    };
    let groups = store.aggregate("{}", &asked).unwrap();
    let found: Vec<(Option<Value>, u64, u64)> = groups
        .into_iter()
        .map(|group| {
            (
                group.by[0].clone(),
                group.points[0].spans,
                group.points[0].errors,
            )
        })
        .collect();
    let expected = [
        (None, 1, 1),
        (Some(Value::Int(5)), 2, 0),
        (Some(Value::Double(5.0)), 2, 0),
        (Some(Value::Str("5".to_owned())), 2, 0),
    ];
    assert_eq!(found, expected);
}

#[test]
fn questions_past_their_bounds_are_refused_by_type() {
    let shop = shop();
    let by_service = SpanAggregation {
        by: vec![SpanGroupKey::Service],
        ..SpanAggregation::default()
    };
    let asked = SpanAggregation {
        groups_max: 3,
        ..by_service.clone()
    };
    let refused = shop.aggregate("{}", &asked).unwrap_err();
    assert!(
        matches!(refused, Error::TooManySpanGroups { max: 3 }),
        "{refused}"
    );
    let asked = SpanAggregation {
        groups_max: 4,
        ..by_service.clone()
    };
    assert_eq!(shop.aggregate("{}", &asked).unwrap().len(), 4);
    let asked = SpanAggregation {
        step_ns: Some(10),
        ..by_service.clone()
    };
    let refused = shop.aggregate("{}", &asked).unwrap_err();
    assert!(
        matches!(refused, Error::SpanSteps { .. }),
        "an open range has no steps"
    );
    let asked = SpanAggregation {
        figures: Some(WantedFigures {
            quantiles: vec![1.5],
            ..WantedFigures::default()
        }),
        ..by_service
    };
    let refused = shop.aggregate("{}", &asked).unwrap_err();
    assert!(matches!(refused, Error::Quantiles { .. }));
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_stopped_question_ends_and_leaves_nothing_booked() {
    let shop = shop();
    let before = shop.engine.budget().used_bytes();
    let snapshot = shop.engine.snapshot().unwrap();
    let set = SpanSet::parse("{service=frontend} with descendant {status=error}").unwrap();
    let control = shop.control();
    control.cancel();
    let mut memory = shop.memory();
    let all = TimeRange::ALL;
    let stopped = find_traces(&snapshot, &set, all, 10, "", &control, &mut memory).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    let stopped = count_spans(&snapshot, &set, all, &control, &mut memory).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    drop(memory);
    assert_eq!(shop.engine.budget().used_bytes(), before);
}

#[test]
fn a_token_of_spans_does_not_go_with_traces_or_another_set() {
    let shop = shop();
    let (_, next) = shop.page("{}", 2, "");
    let token = next.unwrap();
    let snapshot = shop.engine.snapshot().unwrap();
    let (control, mut memory) = (shop.control(), shop.memory());
    let all = TimeRange::ALL;
    let set = SpanSet::all();
    let refused = find_traces(&snapshot, &set, all, 2, &token, &control, &mut memory).unwrap_err();
    assert!(matches!(refused, Error::PageToken { .. }));
    let other = SpanSet::parse("{service=db}").unwrap();
    let visit = &mut |_| Ok(ControlFlow::Continue(()));
    let refused = find_spans(
        &snapshot,
        &other,
        all,
        2,
        &token,
        &control,
        &mut memory,
        visit,
    );
    assert!(matches!(refused, Err(Error::PageToken { .. })));
}
