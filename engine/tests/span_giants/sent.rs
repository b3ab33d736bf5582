//! Spans as a test sends them, by numbers, and the store they are sent to.

use std::{ops::Range, path::Path, sync::Arc};

use rootline_engine::{
    Engine, QueryControl, QueryLimits, ResourceFields, ScopeFields, Settings, SpanFields,
    SpanFilter, SpanId, SpanKind, SpanPart, SpanWriter, TimeRange, Timestamp, TraceId, ValueRef,
};

use super::files::Unsynced;

/// Spans of one batch.
const BATCH_SPANS: usize = 5_000;

/// A span: its trace, its id, its parent's (0: none) and its start, all by number.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) trace: u64,
    pub(crate) span: u64,
    pub(crate) parent: u64,
    pub(crate) start_ns: i64,
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
}

impl Sent {
    pub(crate) fn new(trace: u64, span: u64, parent: u64) -> Self {
        Self {
            trace,
            span,
            parent,
            start_ns: 1_000_000 + span.cast_signed(),
            service: "giant".to_owned(),
            name: "step".to_owned(),
            kind: SpanKind::Internal,
        }
    }
}

pub(crate) fn trace_id(trace: u64) -> TraceId {
    let mut bytes = [3; 16];
    bytes[8..].copy_from_slice(&trace.to_be_bytes());
    TraceId::new(bytes).unwrap()
}

pub(crate) fn open(dir: &Path) -> Engine {
    open_with(dir, |_| ())
}

pub(crate) fn open_with(dir: &Path, change: impl FnOnce(&mut Settings)) -> Engine {
    let mut settings = Settings::default();
    // The answer of a whole trace books 1 KiB a span before it is known.
    settings.memory_limit_bytes = 3 << 30;
    settings.segment_bytes = (1 << 20, 16 << 20);
    settings.metric_shards = 1;
    settings.span_shards = 2;
    settings.maintenance_thread = false;
    change(&mut settings);
    let builder = Engine::builder(dir).settings(settings);
    builder
        .storage(Arc::new(Unsynced::mapped()))
        .open()
        .unwrap()
}

/// Writes spans in batches; `more` adds to each what its numbers do not say.
pub(crate) fn write_with(
    engine: &Engine,
    spans: impl IntoIterator<Item = Sent>,
    mut more: impl FnMut(&Sent, &mut SpanWriter<'_>),
) {
    let mut batch = engine.batch();
    let send = |batch: &mut rootline_engine::WriteBatch<'_>| {
        let sent = batch.spans().len() as u64;
        let outcome = engine.write(batch).unwrap();
        assert_eq!(outcome.spans, sent, "{:?}", outcome.rejections);
    };
    for sent in spans {
        let owner = [("service.name", ValueRef::Str(&sent.service))];
        let owner = ResourceFields {
            attributes: &owner,
            ..ResourceFields::default()
        };
        let resource = batch.spans().resource(&owner).unwrap();
        let scope = batch.spans().scope(&ScopeFields::default()).unwrap();
        let mut writer = batch.spans().span(resource, scope);
        more(&sent, &mut writer);
        let at = Timestamp::from_nanos;
        let id = SpanId::new(sent.span.to_be_bytes()).unwrap();
        let fields = SpanFields {
            parent_span_id: SpanId::new(sent.parent.to_be_bytes()),
            kind: sent.kind,
            ..SpanFields::new(
                trace_id(sent.trace),
                id,
                &sent.name,
                at(sent.start_ns),
                at(sent.start_ns + 1000),
            )
        };
        writer.finish(&fields).unwrap();
        if batch.spans().len() >= BATCH_SPANS {
            send(&mut batch);
        }
    }
    send(&mut batch);
}

pub(crate) fn write(engine: &Engine, spans: impl IntoIterator<Item = Sent>) {
    write_with(engine, spans, |_, _| ());
}

/// A trace of which every span but the first has a parent among those before it, ten to each.
pub(crate) fn tree(trace: u64, spans: Range<u64>) -> impl Iterator<Item = Sent> {
    spans.map(move |i| Sent::new(trace, i + 1, if i == 0 { 0 } else { (i - 1) / 10 + 1 }))
}

pub(crate) fn control(engine: &Engine) -> QueryControl {
    engine.query_control(None, QueryLimits::default())
}

pub(crate) fn everything() -> SpanFilter {
    SpanFilter::in_range(TimeRange::ALL)
}

pub(crate) fn parts(engine: &Engine) -> Vec<SpanPart> {
    engine.snapshot().unwrap().span_parts().unwrap()
}

pub(crate) fn count(engine: &Engine, filter: &SpanFilter) -> u64 {
    let ctl = control(engine);
    let parts = parts(engine);
    let counts = parts.iter().map(|part| part.count(filter, &ctl).unwrap());
    counts.sum()
}

/// The part that has the trace, and the trace's number there.
pub(crate) fn part_of(engine: &Engine, trace: u64) -> (SpanPart, u32) {
    let ctl = control(engine);
    let mut found = parts(engine)
        .into_iter()
        .filter_map(|part| {
            let number = part.find_trace(trace_id(trace), &ctl).unwrap()?;
            Some((part, number))
        })
        .collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "a trace lies in one part");
    found.remove(0)
}
