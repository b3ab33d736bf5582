//! The promise: version 1 of a metric block reads the same for ever.
//!
//! A block with everything in it is kept in `engine/tests/golden/v1/metric-block.rlb`. It must read as
//! what it was made of, and today's writer must still write the same bytes in the sections that this
//! folder defines; the index and the columns of values have golden files of their own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "tests"
)]

use std::{path::Path, sync::Arc};

use rootline_index::{Labels, Symbols};
use rootline_wal::{FsStorage, Lsn, PowerCutStorage, Storage, StoreId};

use super::{stats::STATS_SAMPLES_MIN, *};
use crate::{
    block::{Block, BlockId, SectionKind},
    error::Error,
    id::{SpanId, TraceId},
    metric::{Exemplar, Metadata, MetricKind},
    time::{TimeRange, Timestamp},
};

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/v1/metric-block.rlb");
const STORE: StoreId = StoreId::from_bytes(*b"a golden store!!");
const ID: BlockId = BlockId(7);
const START_NS: i64 = 1_700_000_000_000_000_000;

struct Given {
    labels: Labels,
    times: Vec<i64>,
    values: Vec<f64>,
    exemplars: Vec<Exemplar>,
}

fn given() -> Vec<Given> {
    let labels = |name: &str, pod: &str| {
        Labels::from_pairs([("__name__", name), ("job", "shop"), ("pod", pod)]).unwrap()
    };
    let regular = |count: i64| (0..count).map(|n| START_NS + n * 15_000_000_000);
    let exemplar = Exemplar {
        time: Timestamp::from_nanos(START_NS + 1),
        value: 0.25,
        trace_id: TraceId::new(*b"\x01trace-id-bytes\xff"),
        span_id: SpanId::new(*b"span-id\0"),
        labels: Labels::from_pairs([("user", "ü")]).unwrap(),
    };
    let plain = Exemplar {
        trace_id: None,
        span_id: None,
        labels: Labels::empty(),
        ..exemplar.clone()
    };
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    vec![
        Given {
            labels: labels("requests_total", "a"),
            times: regular(200).collect(),
            values: (0..200).map(|n| f64::from(n * n % 1_000)).collect(),
            exemplars: vec![exemplar.clone(), plain],
        },
        Given {
            labels: labels("requests_total", "b"),
            times: vec![-5, 0, 3],
            values: vec![-0.0, f64::INFINITY, stale],
            exemplars: Vec::new(),
        },
        Given {
            labels: labels("seconds", "a"),
            times: regular(200).collect(),
            values: (0..200).map(|n| f64::from(n % 17) / 100.0).collect(),
            exemplars: Vec::new(),
        },
        Given {
            labels: labels("seconds", "b"),
            times: Vec::new(),
            values: Vec::new(),
            exemplars: vec![exemplar],
        },
    ]
}

fn metadata() -> Vec<(Lsn, Metadata)> {
    let requests = Metadata {
        metric: "requests_total".into(),
        kind: MetricKind::Counter,
        unit: "requests".into(),
        help: "Requests answered.".into(),
    };
    let seconds = Metadata {
        metric: "seconds".into(),
        kind: MetricKind::Gauge,
        unit: String::new(),
        help: String::new(),
    };
    vec![(Lsn(3), requests), (Lsn(9), seconds)]
}

fn write(storage: &Arc<dyn Storage>, dir: &Path) {
    let mut symbols = Symbols::new();
    let mut writer = MetricBlockWriter::create(storage, dir, STORE, ID).unwrap();
    for series in given() {
        let pairs = series.labels.iter();
        let pairs: Vec<_> = pairs
            .map(|(n, v)| (symbols.intern(n), symbols.intern(v)))
            .collect();
        writer.start_series(&pairs);
        writer.samples(&series.times, &series.values).unwrap();
        for exemplar in &series.exemplars {
            writer.exemplar(exemplar).unwrap();
        }
    }
    for (lsn, metadata) in metadata() {
        writer.metadata(lsn, &metadata);
    }
    let origin = BlockOrigin {
        first_lsn: Lsn(1),
        last_lsn: Lsn(9),
        clean_lsn: Lsn(9),
        level: 0,
        sources: Vec::new(),
        created_ns: START_NS,
        spanning: false,
    };
    writer.finish(&symbols, origin).unwrap().unwrap();
}

fn golden(dir: &Path) -> Result<Arc<Block>, Error> {
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    std::fs::write(dir.join("block-0000000000000007.rlb"), GOLDEN).unwrap();
    Block::open(&storage, dir, Some(STORE), ID, &Arc::default()).map(Arc::new)
}

#[test]
fn the_golden_block_reads_as_what_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let block = MetricBlock::open(golden(dir.path()).unwrap()).unwrap();
    assert_eq!(block.meta().samples, 403);
    assert_eq!(block.series_count(), 4);
    assert_eq!(block.metadata().unwrap(), metadata());
    let mut cache = ColumnCache::default();
    for (row, given) in (0..).zip(given()) {
        let (mut times, mut values, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
        block
            .read(row, TimeRange::ALL, &mut times, &mut values, &mut cache)
            .unwrap();
        assert_eq!(block.labels(row).unwrap(), given.labels);
        assert_eq!(times, given.times);
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&values), bits(&given.values));
        block.chunks(row, true, &mut cache, &mut chunks).unwrap();
        let stats = chunks.first().and_then(|chunk| chunk.stats);
        let expected = (given.values.len() >= STATS_SAMPLES_MIN).then(|| ChunkStats::of(&values));
        assert_eq!(stats, expected);
        let exemplars = block.exemplars(row, TimeRange::ALL).unwrap();
        assert_eq!(exemplars.len(), given.exemplars.len());
        let mut pairs = exemplars.iter().zip(&given.exemplars);
        assert!(pairs.all(|(a, b)| a.is_same(b)));
    }
}

#[test]
fn the_writer_still_writes_the_sections_of_the_golden_block() {
    let dir = tempfile::tempdir().unwrap();
    let golden = golden(dir.path());
    let written_in = Path::new("/blocks");
    let disk = PowerCutStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    storage.create_dir_all(written_in).unwrap();
    write(&storage, written_in);
    let written = Block::open(&storage, written_in, None, ID, &Arc::default()).unwrap();
    for kind in [
        SectionKind::Times,
        SectionKind::Chunks,
        SectionKind::Exemplars,
        SectionKind::Metadata,
    ] {
        let bytes = |block: &Block| {
            let section = block.section(kind).unwrap();
            section.bytes(0..section.len_bytes()).unwrap().to_vec()
        };
        let is_same = golden
            .as_ref()
            .is_ok_and(|golden| bytes(golden) == bytes(&written));
        if !is_same {
            let kept = std::env::temp_dir().join("metric-block.rlb");
            std::fs::write(&kept, disk.content(written.path()).unwrap()).unwrap();
            panic!("{kind:?} differs; today's block is {}", kept.display());
        }
    }
}
