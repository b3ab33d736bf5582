//! Writes a trace of two services, looks it up by its id, and finds it by an error.
//!
//!     cargo run -p rootline-engine --example trace_lookup

use rootline_engine::{
    Engine, QueryControl, QueryLimits, ResourceFields, ScopeFields, SpanCondition, SpanFields,
    SpanFilter, SpanId, SpanKind, StatusCode, TimeRange, Timestamp, TraceId, ValueRef,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let engine = Engine::builder(dir.path()).open()?;
    let trace_id = TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").ok_or("not a trace id")?;
    let id = |n: u8| SpanId::new([0, 0, 0, 0, 0, 0, 0, n]).ok_or("not a span id");
    let at = |ms: i64| Timestamp::from_millis(1_700_000_000_000 + ms);

    // 1. A batch knows resources and scopes by rows; spans may come in any order, this child first.
    let mut batch = engine.batch();
    let spans = batch.spans();
    let resource = |name| [("service.name", ValueRef::Str(name))];
    let payment = resource("payment");
    let payment = spans.resource(&ResourceFields {
        attributes: &payment,
        ..ResourceFields::default()
    })?;
    let checkout = resource("checkout");
    let checkout = spans.resource(&ResourceFields {
        attributes: &checkout,
        ..ResourceFields::default()
    })?;
    let scope = spans.scope(&ScopeFields {
        name: "example",
        ..ScopeFields::default()
    })?;

    let mut charge = spans.span(payment, scope);
    charge.attribute("card.kind", ValueRef::Str("debit"));
    charge.attribute("amount", ValueRef::Double(12.5));
    charge.finish(&SpanFields {
        parent_span_id: Some(id(1)?),
        kind: SpanKind::Server,
        status: StatusCode::Error,
        status_message: "card declined",
        ..SpanFields::new(trace_id, id(2)?, "Payment/Charge", at(10)?, at(250)?)
    })?;
    spans.span(checkout, scope).finish(&SpanFields {
        kind: SpanKind::Server,
        ..SpanFields::new(trace_id, id(1)?, "POST /checkout", at(0)?, at(260)?)
    })?;
    engine.write(&mut batch)?;

    // 2. By id: the spans in order of their start, each with the place of its parent.
    let snapshot = engine.snapshot()?;
    let query = QueryControl::new(engine.clock().clone(), None, QueryLimits::default());
    let trace = snapshot
        .trace(trace_id, &query)?
        .ok_or("the trace is there")?;
    for (span, parent) in trace.spans.iter().zip(&trace.parents) {
        let caller = parent
            .and_then(|row| trace.spans.get(row as usize))
            .map_or("-", |parent| parent.service());
        let ms = span.duration_ns() as f64 / 1e6;
        println!("{} > {}  {}  {ms} ms", caller, span.service(), span.name);
    }

    // 3. By what is known of it: every span with an error.
    let filter = SpanFilter {
        range: TimeRange::ALL,
        conditions: vec![SpanCondition::Status(StatusCode::Error)],
    };
    for part in snapshot.span_parts()? {
        let rows = part.select(&filter, &query)?;
        for hit in part.hits(&rows, &query)? {
            let name = part.symbol(hit.name);
            println!("error in {name} of trace {}", hit.trace_id);
        }
    }
    engine.close()?;
    Ok(())
}
