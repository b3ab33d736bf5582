//! The promise: version 1 of the batch record reads the same for ever.
//!
//! A record with every metric part is kept in `engine/tests/golden/v1/batch-record-metrics.bin`.
//! It must decode to what it was made of, and today's writer must still write the same bytes; a
//! change of either is a change of the format.

use std::{ops::ControlFlow, sync::Arc};

use rootline_index::Labels;
use rootline_wal::Lsn;

use super::*;
use crate::{
    budget::Budget,
    control::{QueryControl, QueryLimits},
    id::{SpanId, TraceId},
    outcome::Rejections,
    record::{self, RecordWriter},
    settings::Settings,
    time::{NS_PER_MS, TimeRange, Timestamp},
};

const GOLDEN: &[u8] = include_bytes!("../../tests/golden/v1/batch-record-metrics.bin");

fn head() -> MetricHead {
    MetricHead::new(&Settings::default(), Budget::new(u64::MAX))
}

fn labels(path: &str) -> Labels {
    Labels::from_pairs([
        ("__name__", "requests_total"),
        ("job", "shop"),
        ("path", path),
    ])
    .unwrap()
}

fn exemplar() -> Exemplar {
    Exemplar {
        time: Timestamp::from_nanos(1_700_000_000_123_456_789),
        value: 0.25,
        trace_id: TraceId::new(*b"\x01trace-id-bytes\xff"),
        span_id: SpanId::new(*b"span-id\0"),
        labels: Labels::from_pairs([("user", "ü")]).unwrap(),
    }
}

fn metadata() -> Metadata {
    Metadata {
        metric: "requests_total".into(),
        kind: MetricKind::Counter,
        unit: "requests".into(),
        help: "Requests answered.".into(),
    }
}

/// (path, milliseconds, value)
const SAMPLES: [(&str, i64, f64); 6] = [
    ("/", 1_700_000_000_000, 1.0),
    ("/cart", 1_700_000_000_000, -0.1),
    ("/", 1_700_000_015_000, 3.0),
    ("/", -1, f64::INFINITY),
    ("/cart", 9_223_372_036_854, f64::NAN),
    ("/cart", 1_700_000_000_000, 0.0),
];

fn encode() -> Vec<u8> {
    let head = head();
    let mut batch = MetricBatch::new(head.hash_key());
    let rows = ["/", "/cart"].map(|path| (path, batch.series(&labels(path))));
    for (path, time_ms, value) in SAMPLES {
        let (_, row) = rows.iter().find(|(p, _)| *p == path).unwrap();
        batch.sample(*row, Timestamp::from_millis(time_ms).unwrap(), value);
    }
    batch.exemplar(rows[1].1, exemplar());
    batch.metadata(metadata());
    let mut writer = RecordWriter::default();
    head.prepare(&mut batch, Lsn(0), &mut writer, &mut Rejections::default())
        .unwrap();
    writer.payload().to_vec()
}

#[test]
fn the_writer_still_writes_the_golden_record() {
    assert_eq!(encode(), GOLDEN);
}

#[test]
fn the_golden_record_reads_as_what_it_was_made_of() {
    let head = head();
    let mut prepared = PreparedMetrics::default();
    for part in record::parts(Lsn(1), GOLDEN) {
        head.decode(part.unwrap(), &mut prepared).unwrap();
    }
    for shard in 0..head.shards() {
        head.apply(shard, Lsn(1), &prepared, Lsn(1));
    }
    let view = MetricView::of(Arc::new(head));
    let ctl = QueryControl::new(
        Arc::new(rootline_wal::SystemClock::new()),
        None,
        QueryLimits::default(),
    );
    let mut read = Vec::new();
    view.select(Lsn(1), &[], TimeRange::ALL, &ctl, &mut |series| {
        let path = series.labels.get("path").unwrap();
        assert_eq!(*series.labels, labels(path));
        for (time_ns, value) in series.timestamps.iter().zip(series.values) {
            read.push((path.to_owned(), time_ns / NS_PER_MS, value.to_bits()));
        }
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    // By series and time; the last of the samples wins over the second.
    let want = [3, 0, 2, 5, 4].map(|i: usize| {
        let (path, time_ms, value) = SAMPLES[i];
        (path.to_owned(), time_ms, value.to_bits())
    });
    assert_eq!(read, want);
    let exemplars = view.exemplars(Lsn(1), &[], TimeRange::ALL, &ctl).unwrap();
    assert_eq!(exemplars.len(), 1);
    assert_eq!(exemplars[0].labels, labels("/cart"));
    assert!(exemplars[0].exemplars[0].is_same(&exemplar()));
    assert_eq!(view.metadata(Lsn(1), None), [metadata()]);
}

#[test]
fn a_golden_record_cut_or_flipped_anywhere_is_read_or_refused() {
    let read = |bytes: &[u8]| {
        let head = head();
        let mut prepared = PreparedMetrics::default();
        for part in record::parts(Lsn(1), bytes) {
            let Ok(part) = part else { break };
            if head.decode(part, &mut prepared).is_err() {
                break;
            }
        }
        for shard in 0..head.shards() {
            head.apply(shard, Lsn(1), &prepared, Lsn(1));
        }
    };
    for at in 0..GOLDEN.len() {
        read(&GOLDEN[..at]);
        let mut flipped = GOLDEN.to_vec();
        flipped[at] ^= 1 << (at % 8);
        read(&flipped);
    }
}
