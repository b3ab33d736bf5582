//! A plain in-memory model of the store, and random operations to play against both.
//!
//! The model keeps every version of everything with its LSN and answers by folding; it knows nothing
//! of shards, chunks, marks or rows. Deliberately slow and obvious.

#![allow(dead_code, reason = "each test uses its part of the model")]
#![allow(
    unreachable_pub,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a model for tests, shared by them as a module: a failure here is a test's failure"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use rootline_engine::{
    Engine, Labels, MatchOp, Matcher, QueryLimits, ResourceFields, ScopeFields, Snapshot,
    SpanFields, SpanId, SpanKind, StatusCode, TimeRange, Timestamp, TraceId, ValueRef, WriteBatch,
};

/// splitmix64.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelSpan {
    pub trace: u8,
    pub id: u8,
    pub parent: Option<u8>,
    pub service: u8,
    pub name: u8,
    pub start: i64,
    pub duration: i64,
    pub error: bool,
    pub tag: u8,
}

#[derive(Clone, Debug)]
pub enum Op {
    /// Both signals in one batch; samples are (series, time, value bits).
    Write {
        samples: Vec<(u8, i64, u64)>,
        spans: Vec<ModelSpan>,
    },
    /// Samples of series with this `group` label, in a range.
    DeleteGroup {
        group: u8,
        start: i64,
        end: i64,
    },
    DeleteTrace(u8),
}

pub const SERIES: u64 = 12;
pub const GROUPS: u64 = 3;
pub const TRACES: u64 = 6;

pub fn random_op(rng: &mut Rng) -> Op {
    match rng.below(20) {
        0 => {
            let start = time(rng);
            let end = start.saturating_add(i64::try_from(rng.below(40)).unwrap() * 1_000_000);
            Op::DeleteGroup {
                group: u8::try_from(rng.below(GROUPS)).unwrap(),
                start,
                end,
            }
        }
        1 => Op::DeleteTrace(u8::try_from(rng.below(TRACES)).unwrap()),
        _ => {
            let samples = (0..rng.below(12)).map(|_| random_sample(rng)).collect();
            let spans = (0..rng.below(8)).map(|_| random_span(rng)).collect();
            Op::Write { samples, spans }
        }
    }
}

fn time(rng: &mut Rng) -> i64 {
    let ms = i64::try_from(rng.below(60)).unwrap() * 1_000_000;
    match rng.below(12) {
        // Off the millisecond grid: another time unit in the chunk.
        0 => ms + i64::try_from(rng.below(1_000_000)).unwrap(),
        1 => i64::MIN + ms,
        2 => i64::MAX - ms,
        _ => ms,
    }
}

fn random_sample(rng: &mut Rng) -> (u8, i64, u64) {
    let series = u8::try_from(rng.below(SERIES)).unwrap();
    let bits = match rng.below(8) {
        0 => 0x7ff0_0000_0000_0002, // staleness marker
        1 => (-0.0f64).to_bits(),
        2 => rng.next(),
        _ => f64::from(u8::try_from(rng.below(50)).unwrap()).to_bits(),
    };
    (series, time(rng), bits)
}

fn random_span(rng: &mut Rng) -> ModelSpan {
    let mut small = |n: u64| u8::try_from(rng.below(n)).unwrap();
    ModelSpan {
        trace: small(TRACES),
        id: 1 + small(10),
        parent: if small(4) > 0 {
            Some(1 + small(10))
        } else {
            None
        },
        service: small(3),
        name: small(3),
        start: i64::from(small(20)) * 1_000,
        duration: i64::from(small(5)) * 100,
        error: small(4) == 0,
        tag: small(5),
    }
}

pub fn labels(series: u8) -> Labels {
    let (series, group) = (series.to_string(), (u64::from(series) % GROUPS).to_string());
    Labels::from_pairs([("__name__", "m"), ("series", &series), ("group", &group)]).unwrap()
}

pub fn trace_id(trace: u8) -> TraceId {
    let mut bytes = [0xabu8; 16];
    bytes[0] = trace.wrapping_mul(37);
    bytes[15] = trace;
    TraceId::new(bytes).unwrap()
}

pub fn span_id(id: u8) -> SpanId {
    SpanId::new([0, 0, 0, 0, 0, 0, 7, id]).unwrap()
}

fn push_span(batch: &mut WriteBatch<'_>, s: &ModelSpan) {
    let service = format!("service-{}", s.service);
    let attributes = [("service.name", ValueRef::Str(&service))];
    let spans = batch.spans();
    let resource = spans.resource(&ResourceFields {
        attributes: &attributes,
        ..ResourceFields::default()
    });
    let resource = resource.unwrap();
    let scope = spans.scope(&ScopeFields::default()).unwrap();
    let mut writer = spans.span(resource, scope);
    writer.attribute("tag", ValueRef::Int(i64::from(s.tag)));
    let name = format!("op-{}", s.name);
    let start = Timestamp::from_nanos(s.start);
    let mut fields = SpanFields::new(
        trace_id(s.trace),
        span_id(s.id),
        &name,
        start,
        start.saturating_add_ns(s.duration),
    );
    fields.parent_span_id = s.parent.map(span_id);
    fields.kind = SpanKind::Server;
    fields.status = if s.error {
        StatusCode::Error
    } else {
        StatusCode::Unset
    };
    writer.finish(&fields).unwrap();
}

pub fn fill(batch: &mut WriteBatch<'_>, samples: &[(u8, i64, u64)], spans: &[ModelSpan]) {
    for &(series, t, bits) in samples {
        let row = batch.metrics().series(&labels(series));
        batch
            .metrics()
            .sample(row, Timestamp::from_nanos(t), f64::from_bits(bits));
    }
    for span in spans {
        push_span(batch, span);
    }
}

/// Everything that was ever acknowledged, by LSN.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub ops: Vec<(u64, Op)>,
}

/// What a snapshot shows: samples by (series, time), spans by trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub samples: BTreeMap<(u8, i64), u64>,
    pub spans: BTreeSet<ModelSpan>,
}

impl Model {
    pub fn at(&self, lsn: u64) -> State {
        let mut state = State::default();
        for (_, op) in self.ops.iter().filter(|(l, _)| *l <= lsn) {
            match op {
                Op::Write { samples, spans } => {
                    state
                        .samples
                        .extend(samples.iter().map(|&(s, t, v)| ((s, t), v)));
                    state.spans.extend(spans.iter().cloned());
                }
                Op::DeleteGroup { group, start, end } => state.samples.retain(|(s, t), _| {
                    u64::from(*s) % GROUPS != u64::from(*group) || t < start || t > end
                }),
                Op::DeleteTrace(trace) => state.spans.retain(|s| s.trace != *trace),
            }
        }
        state
    }
}

/// Applies `op` to the store; `None` if it stored nothing.
pub fn apply(engine: &Engine, op: &Op) -> Result<Option<u64>, rootline_engine::Error> {
    Ok(match op {
        Op::Write { samples, spans } => {
            let mut batch = engine.batch();
            fill(&mut batch, samples, spans);
            let outcome = engine.write(&mut batch)?;
            assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
            outcome.lsn.map(|lsn| lsn.0)
        }
        Op::DeleteGroup { group, start, end } => {
            let matcher = Matcher::new(MatchOp::Equal, "group", &group.to_string()).unwrap();
            let range =
                TimeRange::new(Timestamp::from_nanos(*start), Timestamp::from_nanos(*end)).unwrap();
            Some(engine.delete_series(&[matcher], range)?.0)
        }
        Op::DeleteTrace(trace) => Some(engine.delete_trace(trace_id(*trace))?.0),
    })
}

fn number(text: &str) -> u8 {
    text.rsplit('-').next().unwrap().parse().unwrap()
}

/// All a snapshot shows, through the public API.
pub fn observe(snapshot: &Snapshot) -> Result<State, rootline_engine::Error> {
    let query = snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let mut state = State::default();
    let all = [Matcher::new(MatchOp::Equal, "__name__", "m").unwrap()];
    snapshot.select(&all, TimeRange::ALL, &query, &mut |series| {
        let id = series.labels.get("series").unwrap().parse().unwrap();
        assert!(
            series.timestamps.is_sorted_by(|a, b| a < b),
            "{:?}",
            series.timestamps
        );
        for (t, v) in series.timestamps.iter().zip(series.values) {
            assert!(state.samples.insert((id, *t), v.to_bits()).is_none());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for trace in 0..u8::try_from(TRACES).unwrap() {
        let Some(found) = snapshot.trace(trace_id(trace), &query)? else {
            continue;
        };
        for (row, span) in found.spans.iter().enumerate() {
            check_parent(&found, row);
            let attribute = |key: &str| {
                span.attributes
                    .iter()
                    .find(|(k, _)| &**k == key)
                    .map(|(_, v)| v.to_string())
                    .unwrap()
            };
            let added = state.spans.insert(ModelSpan {
                trace,
                id: span.span_id.as_bytes()[7],
                parent: span.parent_span_id.map(|p| p.as_bytes()[7]),
                service: number(span.service()),
                name: number(&span.name),
                start: span.start.as_nanos(),
                duration: span.end.as_nanos() - span.start.as_nanos(),
                error: span.status == StatusCode::Error,
                tag: attribute("tag").parse().unwrap(),
            });
            assert!(added, "a span is shown once");
        }
    }
    Ok(state)
}

/// The parent by the rule of the store's documentation, found the slow way.
fn check_parent(trace: &rootline_engine::Trace, row: usize) {
    let span = &trace.spans[row];
    let candidates: Vec<_> = trace
        .spans
        .iter()
        .enumerate()
        .filter(|(other, s)| *other != row && Some(s.span_id) == span.parent_span_id)
        .map(|(_, s)| s)
        .collect();
    let Some(parent) = trace.parents[row] else {
        // A root, an orphan, or the member of a cycle at which it was cut.
        assert!(candidates.is_empty() || in_cycle(trace, row));
        return;
    };
    let chosen = &trace.spans[parent as usize];
    assert_eq!(Some(chosen.span_id), span.parent_span_id);
    let same_service_server = |s: &&&rootline_engine::Span| {
        s.service() == span.service() && matches!(s.kind, SpanKind::Server | SpanKind::Consumer)
    };
    let preferred = candidates
        .iter()
        .filter(same_service_server)
        .map(|s| s.start)
        .min();
    let earliest = preferred
        .or_else(|| candidates.iter().map(|s| s.start).min())
        .unwrap();
    assert_eq!(chosen.start, earliest);
}

/// Whether following parent ids from `row` can lead back to it.
fn in_cycle(trace: &rootline_engine::Trace, row: usize) -> bool {
    let mut reached = BTreeSet::from([row]);
    let mut todo = vec![row];
    while let Some(at) = todo.pop() {
        let parent = trace.spans[at].parent_span_id;
        for (other, span) in trace.spans.iter().enumerate() {
            if Some(span.span_id) == parent {
                if other == row {
                    return true;
                }
                if reached.insert(other) {
                    todo.push(other);
                }
            }
        }
    }
    false
}
