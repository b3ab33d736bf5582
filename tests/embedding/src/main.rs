//! A program of somebody else that keeps its own metrics and traces in an embedded store.

use std::{error::Error, ops::ControlFlow};

use rootline_engine::{
    Engine, Labels, Matcher, QueryControl, QueryLimits, ResourceFields, ScopeFields, SpanFields,
    SpanId, SpanKind, TimeRange, Timestamp, TraceId, ValueRef,
};

const TRACE_ID: [u8; 16] = [7; 16];

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let engine = Engine::builder(dir.path()).open()?;
    write(&engine)?;
    show(&engine)?;
    engine.close()?;
    drop(engine);

    let engine = Engine::builder(dir.path()).open()?;
    println!("after reopening:");
    show(&engine)?;
    engine.close()?;
    Ok(())
}

/// Both signals in one batch: either all of it is stored or nothing.
fn write(engine: &Engine) -> Result<(), Box<dyn Error>> {
    let trace_id = TraceId::new(TRACE_ID).ok_or("zero trace id")?;
    let (caller, callee) = (SpanId::new([1; 8]), SpanId::new([2; 8]));
    let at = |ms: i64| Timestamp::from_millis(1_700_000_000_000 + ms);
    let mut batch = engine.batch();

    let labels = Labels::from_pairs([("__name__", "queue_length"), ("queue", "orders")])?;
    let row = batch.metrics().series(&labels);
    batch.metrics().sample(row, at(0)?, 3.0);
    batch.metrics().sample(row, at(1_000)?, 5.0);

    let spans = batch.spans();
    let scope = spans.scope(&ScopeFields {
        name: "embedding",
        ..ScopeFields::default()
    })?;
    for (service, id, parent, kind) in [
        ("checkout", caller, None, SpanKind::Client),
        ("payment", callee, caller, SpanKind::Server),
    ] {
        let attributes = [("service.name", ValueRef::Str(service))];
        let fields = ResourceFields {
            attributes: &attributes,
            ..ResourceFields::default()
        };
        let resource = spans.resource(&fields)?;
        let id = id.ok_or("zero span id")?;
        let fields = SpanFields::new(trace_id, id, "charge", at(0)?, at(20)?);
        let span = spans.span(resource, scope);
        span.finish(&SpanFields {
            parent_span_id: parent,
            kind,
            ..fields
        })?;
    }
    engine.write(&mut batch)?;
    Ok(())
}

fn show(engine: &Engine) -> Result<(), Box<dyn Error>> {
    let snapshot = engine.snapshot()?;
    let query = QueryControl::new(engine.clock().clone(), None, QueryLimits::default());
    let matchers = [Matcher::equal("queue", "orders")];
    snapshot.select(&matchers, TimeRange::ALL, &query, &mut |series| {
        println!("{} samples, {:?}", series.values.len(), series.values);
        Ok(ControlFlow::Continue(()))
    })?;
    let trace_id = TraceId::new(TRACE_ID).ok_or("zero trace id")?;
    let trace = snapshot
        .trace(trace_id, &query)?
        .ok_or("the trace is there")?;
    for (span, parent) in trace.spans.iter().zip(&trace.parents) {
        let parent = parent.and_then(|row| trace.spans.get(row as usize));
        if let Some(parent) = parent {
            println!("{} > {}", parent.service(), span.service());
        }
    }
    Ok(())
}
