//! Writes samples of two series, reads them back by a matcher, and finds them again after reopening.
//!
//!     cargo run -p rootline-engine --example ingest_and_query

use std::ops::ControlFlow;

use rootline_engine::{Engine, Labels, Matcher, QueryControl, QueryLimits, TimeRange, Timestamp};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;

    // 1. Open a store. A directory serves one process; calls may come from any thread.
    let engine = Engine::builder(dir.path()).open()?;

    // 2. Fill a batch: rows name series, samples refer to rows.
    let mut batch = engine.batch();
    let start = Timestamp::from_millis(1_700_000_000_000)?;
    for zone in ["north", "south"] {
        let labels =
            Labels::from_pairs([("__name__", "room_temperature_celsius"), ("zone", zone)])?;
        let row = batch.metrics().series(&labels);
        for minute in 0..10 {
            let time = start.saturating_add_ns(minute * 60_000_000_000);
            let value = if zone == "north" { 18.0 } else { 21.0 } + 0.1 * minute as f64;
            batch.metrics().sample(row, time, value);
        }
    }

    // 3. Write it: when this returns, the batch is synced to the log and visible, all of it.
    let outcome = engine.write(&mut batch)?;
    println!(
        "stored {} samples as record {:?}",
        outcome.samples, outcome.lsn
    );

    // 4. Read a snapshot: what is written from here on does not change it.
    print_means(&engine)?;

    // 5. Close and open again: the log is replayed.
    engine.close()?;
    drop(batch);
    drop(engine);
    let engine = Engine::builder(dir.path()).open()?;
    println!("after reopening:");
    print_means(&engine)?;
    engine.close()?;
    Ok(())
}

fn print_means(engine: &Engine) -> Result<(), rootline_engine::Error> {
    let snapshot = engine.snapshot()?;
    let matchers = [Matcher::equal("__name__", "room_temperature_celsius")];
    let query = QueryControl::new(engine.clock().clone(), None, QueryLimits::default());
    snapshot.select(&matchers, TimeRange::ALL, &query, &mut |series| {
        let mean = series.values.iter().sum::<f64>() / series.values.len() as f64;
        let zone = series.labels.get("zone").unwrap_or_default();
        println!("{zone}: {} samples, mean {mean:.2} °C", series.values.len());
        Ok(ControlFlow::Continue(()))
    })
}
