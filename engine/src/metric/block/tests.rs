//! The promises of a metric block: what was written is read bit for bit, a merge is what the parts say
//! together, and a damaged byte is named and costs its page.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests"
)]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use proptest::prelude::*;
use rootline_index::{Labels, MatchOp, Matcher, Symbols};
use rootline_wal::{FsStorage, Lsn, PowerCutStorage, Storage, StoreId};

use super::{stats::STATS_SAMPLES_MIN, *};
use crate::{
    block::{Block, BlockId, BlockMeta},
    error::Error,
    id::{SpanId, TraceId},
    metric::{EXEMPLARS_PER_SERIES_MAX, Exemplar, Metadata, MetricKind},
    time::{TimeRange, Timestamp},
    tombstone::Tombstone,
};

const STORE: StoreId = StoreId::from_bytes([7; 16]);
const DIR: &str = "/blocks";

/// What a series holds: values by time, as bits, and exemplars in order of arrival.
#[derive(Clone, Debug, Default)]
struct Series {
    samples: BTreeMap<i64, u64>,
    exemplars: Vec<Exemplar>,
}

type Model = BTreeMap<Labels, Series>;

fn memory() -> Arc<dyn Storage> {
    let storage: Arc<dyn Storage> = Arc::new(PowerCutStorage::new());
    storage.create_dir_all(Path::new(DIR)).unwrap();
    storage
}

fn writer(storage: &Arc<dyn Storage>, id: u64) -> MetricBlockWriter {
    MetricBlockWriter::create(storage, Path::new(DIR), STORE, BlockId(id)).unwrap()
}

fn origin(lsn: u64) -> BlockOrigin {
    BlockOrigin {
        first_lsn: Lsn(lsn),
        last_lsn: Lsn(lsn + 9),
        clean_lsn: Lsn(lsn + 9),
        level: 0,
        sources: Vec::new(),
        created_ns: 1_700_000_000_000_000_000,
        spanning: false,
    }
}

/// Writes a block; block `id` has LSNs from `10 * id` on.
fn write(storage: &Arc<dyn Storage>, id: u64, model: &Model) -> Option<BlockMeta> {
    write_through(writer(storage, id), id, model)
}

fn write_through(mut writer: MetricBlockWriter, id: u64, model: &Model) -> Option<BlockMeta> {
    let mut symbols = Symbols::new();
    for (labels, series) in model {
        let pairs = labels.iter();
        let pairs: Vec<_> = pairs
            .map(|(n, v)| (symbols.intern(n), symbols.intern(v)))
            .collect();
        writer.start_series(&pairs);
        let times: Vec<i64> = series.samples.keys().copied().collect();
        let values: Vec<f64> = series
            .samples
            .values()
            .map(|v| f64::from_bits(*v))
            .collect();
        writer.samples(&times, &values).unwrap();
        for exemplar in &series.exemplars {
            writer.exemplar(exemplar).unwrap();
        }
    }
    for n in 0..3 {
        writer.metadata(Lsn(10 * id), &described(n, id));
    }
    writer.finish(&symbols, origin(10 * id)).unwrap()
}

fn described(n: u64, id: u64) -> Metadata {
    Metadata {
        metric: format!("metric_{n}"),
        kind: MetricKind::Gauge,
        unit: "s".to_owned(),
        help: format!("as of {id}"),
    }
}

fn open(storage: &Arc<dyn Storage>, id: u64) -> Result<Arc<MetricBlock>, Error> {
    open_in(storage, Path::new(DIR), id)
}

fn open_in(storage: &Arc<dyn Storage>, dir: &Path, id: u64) -> Result<Arc<MetricBlock>, Error> {
    let block = Block::open(storage, dir, Some(STORE), BlockId(id), &Arc::default())?;
    Ok(Arc::new(MetricBlock::open(Arc::new(block))?))
}

/// Everything a block holds.
fn read_all(block: &MetricBlock) -> Result<Model, Error> {
    let mut model = Model::new();
    let mut cache = ColumnCache::default();
    let mut labels = block.labels_cursor();
    for row in 0..block.series_count() {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        block.read(row, TimeRange::ALL, &mut times, &mut values, &mut cache)?;
        assert_eq!(times.len(), values.len());
        assert!(times.is_sorted_by(|a, b| a < b));
        let values = values.into_iter().map(f64::to_bits);
        let series = Series {
            samples: times.into_iter().zip(values).collect(),
            exemplars: block.exemplars(row, TimeRange::ALL)?,
        };
        assert!(model.insert(labels.labels(row)?, series).is_none());
    }
    Ok(model)
}

fn assert_same(found: &Model, expected: &Model) {
    let named: Vec<_> = found.keys().collect();
    assert_eq!(named, expected.keys().collect::<Vec<_>>());
    for (labels, series) in expected {
        let found = &found[labels];
        assert_eq!(found.samples, series.samples, "samples of {labels}");
        assert_eq!(found.exemplars.len(), series.exemplars.len());
        for (a, b) in found.exemplars.iter().zip(&series.exemplars) {
            assert!(a.is_same(b), "exemplars of {labels}");
        }
    }
}

fn range(start: i64, end: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end)).unwrap()
}

fn labels() -> impl Strategy<Value = Labels> {
    ("[ab]", "[a-c]{0,1}", "[a-h]{1,2}").prop_map(|(name, job, pod)| {
        Labels::from_pairs([("__name__", name), ("job", job), ("pod", pod)]).unwrap()
    })
}

/// Timestamps of a series: a grid that others have too, or its own.
fn times() -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![
        4 => (0i64..3, 0usize..400).prop_map(|(phase, count)| {
            (0..count as i64).map(|n| 1_000_000 * (15_000 * n + phase)).collect()
        }),
        2 => prop::collection::btree_set(-500i64..500, 0..200).prop_map(Vec::from_iter),
        1 => prop::collection::btree_set(any::<i64>(), 0..20).prop_map(Vec::from_iter),
    ]
}

fn value_bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0u32..10_000).prop_map(|n| (f64::from(n) / 100.0).to_bits()),
        1 => any::<u64>(),
        1 => prop::sample::select(vec![
            0x7ff0_0000_0000_0002,
            f64::NAN.to_bits(),
            (-0.0f64).to_bits(),
            f64::INFINITY.to_bits(),
            1,
        ]),
    ]
}

fn exemplar() -> impl Strategy<Value = Exemplar> {
    (
        -500i64..500,
        value_bits(),
        any::<[u8; 16]>(),
        any::<[u8; 8]>(),
        any::<(bool, bool)>(),
        "[a-z]{0,3}",
    )
        .prop_map(
            |(time, bits, trace, span, (has_trace, has_span), value)| Exemplar {
                time: Timestamp::from_nanos(time),
                value: f64::from_bits(bits),
                trace_id: TraceId::new(trace).filter(|_| has_trace),
                span_id: SpanId::new(span).filter(|_| has_span),
                labels: Labels::from_pairs([("x", value)]).unwrap(),
            },
        )
}

fn series() -> impl Strategy<Value = Series> {
    let exemplars = prop::collection::vec(exemplar(), 0..6);
    let exemplars = prop_oneof![3 => Just(Vec::new()), 1 => exemplars];
    (
        times(),
        prop::collection::vec(value_bits(), 1..50),
        exemplars,
    )
        .prop_map(|(times, values, exemplars)| Series {
            samples: times.into_iter().zip(values.into_iter().cycle()).collect(),
            exemplars,
        })
}

fn model() -> impl Strategy<Value = Model> {
    prop::collection::btree_map(labels(), series(), 0..12)
}

/// The model less series that a block leaves out.
fn written(model: &Model) -> Model {
    let mut model = model.clone();
    model.retain(|_, series| !series.samples.is_empty() || !series.exemplars.is_empty());
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_written_is_read(
        model in model(),
        start in -600i64..600,
        span in 0i64..4_000_000_000_000,
        held_bytes in prop::option::of(0usize..200),
    ) {
        let storage = memory();
        let expected = written(&model);
        let mut writer = writer(&storage, 1);
        if let Some(bytes) = held_bytes {
            writer.hold_times_at_most(bytes);
        }
        let Some(meta) = write_through(writer, 1, &model) else {
            prop_assert!(expected.is_empty());
            prop_assert!(storage.list(Path::new(DIR)).unwrap().is_empty());
            return Ok(());
        };
        let block = open(&storage, 1).unwrap();
        prop_assert_eq!(&meta, block.meta());
        prop_assert_eq!(meta.series, expected.len() as u64);
        let samples: usize = expected.values().map(|s| s.samples.len()).sum();
        prop_assert_eq!(meta.samples, samples as u64);
        assert_same(&read_all(&block).unwrap(), &expected);
        prop_assert_eq!(block.metadata().unwrap(), (0..3).map(|n| (Lsn(10), described(n, 1))).collect::<Vec<_>>());

        // A part of the time, and what the directory says of chunks.
        let wanted = range(start, start.saturating_add(span));
        let mut cache = ColumnCache::default();
        for (row, series) in (0..).zip(expected.values()) {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            block.read(row, wanted, &mut times, &mut values, &mut cache).unwrap();
            let inside = wanted.start().as_nanos()..=wanted.end().as_nanos();
            let found = times.into_iter().zip(values.into_iter().map(f64::to_bits));
            let inside = series.samples.range(inside).map(|(t, v)| (*t, *v));
            prop_assert!(found.eq(inside));
            let mut chunks = Vec::new();
            block.chunks(row, true, &mut cache, &mut chunks).unwrap();
            let count: u64 = chunks.iter().map(|c| u64::from(c.count)).sum();
            prop_assert_eq!(count, series.samples.len() as u64);
            for chunk in chunks {
                let of_chunk = series.samples.range(chunk.first_ns..=chunk.last_ns);
                let values: Vec<_> = of_chunk.map(|(_, v)| f64::from_bits(*v)).collect();
                prop_assert_eq!(values.len(), chunk.count as usize);
                match chunk.stats {
                    Some(stats) => prop_assert!(stats.is_same(&ChunkStats::of(&values))),
                    None => prop_assert!(values.len() < STATS_SAMPLES_MIN),
                }
            }
        }
        let contents = block.describe(&mut || Ok(())).unwrap();
        prop_assert!(contents.chunks >= expected.values().filter(|s| !s.samples.is_empty()).count() as u64);
    }

    #[test]
    fn a_merge_is_what_the_parts_say_together(
        parts in prop::collection::vec(model(), 1..5),
        deletes in prop::collection::vec((0u64..60, "[a-h]", -500i64..500, 0i64..400), 0..3),
        floor in prop::option::of(-600i64..600),
        cut in -500i64..500,
        held_bytes in prop::option::of(0usize..200),
    ) {
        let storage = memory();
        let mut sources = Vec::new();
        let mut expected = Model::new();
        let tombstones: Vec<_> = deletes
            .iter()
            .map(|(lsn, pod, start, length)| Tombstone {
                lsn: Lsn(*lsn),
                matchers: vec![Matcher::new(MatchOp::Regex, "pod", &format!("{pod}.*")).unwrap()],
                range: range(*start, start + length),
            })
            .collect();
        for (id, part) in (1u64..).zip(&parts) {
            let mut writer = writer(&storage, id);
            if let Some(bytes) = held_bytes {
                writer.hold_times_at_most(bytes);
            }
            if write_through(writer, id, part).is_some() {
                sources.push(open(&storage, id).unwrap());
            }
            let clean = Lsn(10 * id + 9);
            for (labels, series) in part {
                let hidden = |time: i64| {
                    floor.is_some_and(|floor| time < floor)
                        || tombstones.iter().any(|t| {
                            t.lsn > clean
                                && t.matchers.iter().all(|m| m.matches_labels(labels))
                                && t.range.contains(Timestamp::from_nanos(time))
                        })
                };
                let merged = expected.entry(labels.clone()).or_default();
                let seen = series.samples.iter().filter(|(time, _)| !hidden(**time));
                merged.samples.extend(seen.map(|(t, v)| (*t, *v)));
                for exemplar in &series.exemplars {
                    if !hidden(exemplar.time.as_nanos())
                        && !merged.exemplars.iter().any(|e| e.is_same(exemplar))
                    {
                        merged.exemplars.push(exemplar.clone());
                    }
                }
            }
        }
        let mut outputs = vec![
            MergeOutput { range: range(i64::MIN, cut), writer: writer(&storage, 20) },
            MergeOutput { range: range(cut + 1, i64::MAX), writer: writer(&storage, 21) },
        ];
        let mut symbols = Symbols::new();
        merge(&sources, &tombstones, floor, &mut outputs, &mut symbols, &mut || Ok(())).unwrap();
        let mut found = Model::new();
        for (id, output) in (20..).zip(outputs) {
            let mut inside = expected.clone();
            for series in inside.values_mut() {
                series.samples.retain(|t, _| output.range.contains(Timestamp::from_nanos(*t)));
                series.exemplars.retain(|e| output.range.contains(e.time));
            }
            let inside = written(&inside);
            match output.writer.finish(&symbols, origin(100)).unwrap() {
                Some(_) => assert_same(&read_all(&open(&storage, id).unwrap()).unwrap(), &inside),
                None => prop_assert!(inside.is_empty()),
            }
            found.extend(inside);
        }
    }
}

fn grid(start: i64, count: i64) -> Vec<i64> {
    (0..count).map(|n| start + n * 10_000_000_000).collect()
}

fn numbered(labels: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "m".to_owned()),
        ("pod", format!("pod-{labels:05}")),
    ])
    .unwrap()
}

/// A series of decimals on the given timestamps.
fn regular(times: &[i64], salt: usize) -> Series {
    let value = |n: usize| ((n * 7 + salt * 13) % 1000) as f64 / 10.0;
    let values = (0..).map(|n| value(n).to_bits());
    Series {
        samples: times.iter().copied().zip(values).collect(),
        exemplars: Vec::new(),
    }
}

#[test]
fn long_series_are_split_evenly_and_share_their_times() {
    let storage = memory();
    let times = grid(5_000_000_000, 20_001);
    let model: Model = (0..5).map(|n| (numbered(n), regular(&times, n))).collect();
    write(&storage, 1, &model).unwrap();
    let block = open(&storage, 1).unwrap();
    assert_same(&read_all(&block).unwrap(), &model);
    let mut chunks = Vec::new();
    block
        .chunks(3, false, &mut ColumnCache::default(), &mut chunks)
        .unwrap();
    let counts: Vec<_> = chunks.iter().map(|c| c.count).collect();
    assert_eq!(counts, [6667, 6667, 6667]);
    assert_eq!(block.describe(&mut || Ok(())).unwrap().time_columns, 3);
}

#[test]
fn many_series_are_found_through_several_groups() {
    let storage = memory();
    let model: Model = (0..2000)
        .map(|n| (numbered(n), regular(&grid((n % 7) as i64, 10), n)))
        .collect();
    let meta = write(&storage, 1, &model).unwrap();
    let block = open(&storage, 1).unwrap();
    assert_same(&read_all(&block).unwrap(), &model);
    assert!(meta.file_bytes < 2000 * 40, "{} bytes", meta.file_bytes);
    // One series alone, out of the blue.
    let one = Matcher::equal("pod", "pod-01234");
    let rows = block.select(&[one], &mut || true).unwrap();
    assert_eq!(rows.iter().collect::<Vec<_>>(), [1234]);
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut cache = ColumnCache::default();
    block
        .read(1234, TimeRange::ALL, &mut times, &mut values, &mut cache)
        .unwrap();
    assert!(times.iter().eq(model[&numbered(1234)].samples.keys()));
    assert!(matches!(
        block.read(2000, TimeRange::ALL, &mut times, &mut values, &mut cache),
        Err(Error::CorruptBlock { .. })
    ));
}

#[test]
fn a_mapped_block_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    let mut symbols = Symbols::new();
    let mut writer = MetricBlockWriter::create(&storage, dir.path(), STORE, BlockId(1)).unwrap();
    let model: Model = (0..20)
        .map(|n| (numbered(n), regular(&grid(0, 300), n)))
        .collect();
    for (labels, series) in &model {
        let pairs: Vec<_> = labels
            .iter()
            .map(|(n, v)| (symbols.intern(n), symbols.intern(v)))
            .collect();
        writer.start_series(&pairs);
        let times: Vec<_> = series.samples.keys().copied().collect();
        let values: Vec<_> = series
            .samples
            .values()
            .map(|v| f64::from_bits(*v))
            .collect();
        writer.samples(&times, &values).unwrap();
    }
    writer.finish(&symbols, origin(10)).unwrap().unwrap();
    let block = open_in(&storage, dir.path(), 1).unwrap();
    assert!(block.block().is_mapped());
    assert_same(&read_all(&block).unwrap(), &model);
}

#[test]
fn large_chunks_are_copied_and_times_stay_shared() {
    let storage = memory();
    let day = 8_640;
    let mut expected = Model::new();
    let mut sources = Vec::new();
    for id in 1..=3u64 {
        let times = grid((id as i64) * 86_400_000_000_000, day);
        let model: Model = (0..4).map(|n| (numbered(n), regular(&times, n))).collect();
        write(&storage, id, &model).unwrap();
        sources.push(open(&storage, id).unwrap());
        for (labels, series) in model {
            expected
                .entry(labels)
                .or_default()
                .samples
                .extend(series.samples);
        }
    }
    let mut outputs = vec![MergeOutput {
        range: TimeRange::ALL,
        writer: writer(&storage, 9),
    }];
    let mut symbols = Symbols::new();
    let merged = merge(&sources, &[], None, &mut outputs, &mut symbols, &mut || {
        Ok(())
    })
    .unwrap();
    assert_eq!(merged.samples_encoded, 0);
    assert_eq!(merged.samples_copied, 3 * 4 * day as u64);
    let output = outputs.pop().unwrap();
    output
        .writer
        .finish(&symbols, origin(100))
        .unwrap()
        .unwrap();
    let block = open(&storage, 9).unwrap();
    assert_same(&read_all(&block).unwrap(), &expected);
    assert_eq!(block.describe(&mut || Ok(())).unwrap().time_columns, 6);
    assert_eq!(block.metadata().unwrap()[0], (Lsn(30), described(0, 3)));
}

#[test]
fn small_chunks_become_large_ones() {
    let storage = memory();
    let mut expected = Model::new();
    let mut sources = Vec::new();
    for id in 1..=40u64 {
        let times = grid((id as i64) * 2_000_000_000_000, 200);
        let model: Model = (0..3).map(|n| (numbered(n), regular(&times, n))).collect();
        write(&storage, id, &model).unwrap();
        sources.push(open(&storage, id).unwrap());
        for (labels, series) in model {
            expected
                .entry(labels)
                .or_default()
                .samples
                .extend(series.samples);
        }
    }
    let mut outputs = vec![MergeOutput {
        range: TimeRange::ALL,
        writer: writer(&storage, 100),
    }];
    let mut symbols = Symbols::new();
    let merged = merge(&sources, &[], None, &mut outputs, &mut symbols, &mut || {
        Ok(())
    })
    .unwrap();
    assert_eq!(merged.samples_copied, 0);
    let output = outputs.pop().unwrap();
    output
        .writer
        .finish(&symbols, origin(100))
        .unwrap()
        .unwrap();
    let block = open(&storage, 100).unwrap();
    assert_same(&read_all(&block).unwrap(), &expected);
    assert_eq!(block.describe(&mut || Ok(())).unwrap().chunks, 3);
}

#[test]
fn exemplars_are_bounded_by_window_when_merged() {
    let storage = memory();
    let mut sources = Vec::new();
    for id in 1..=2u64 {
        let exemplars = (0..100).map(|n| Exemplar {
            time: Timestamp::from_nanos(n),
            value: (id * 1000 + n as u64) as f64,
            trace_id: None,
            span_id: None,
            labels: Labels::empty(),
        });
        let series = Series {
            samples: BTreeMap::new(),
            exemplars: exemplars.collect(),
        };
        write(&storage, id, &Model::from([(numbered(0), series)])).unwrap();
        sources.push(open(&storage, id).unwrap());
    }
    let mut outputs = vec![MergeOutput {
        range: TimeRange::ALL,
        writer: writer(&storage, 9),
    }];
    let mut symbols = Symbols::new();
    merge(&sources, &[], None, &mut outputs, &mut symbols, &mut || {
        Ok(())
    })
    .unwrap();
    let output = outputs.pop().unwrap();
    output
        .writer
        .finish(&symbols, origin(100))
        .unwrap()
        .unwrap();
    let exemplars = open(&storage, 9)
        .unwrap()
        .exemplars(0, TimeRange::ALL)
        .unwrap();
    assert_eq!(exemplars.len(), EXEMPLARS_PER_SERIES_MAX);
    assert!((exemplars[0].value - 1072.0).abs() < f64::EPSILON);
    assert!((exemplars[127].value - 2099.0).abs() < f64::EPSILON);
}

#[test]
fn a_merge_ends_when_its_caller_says_so() {
    let storage = memory();
    let model: Model = (0..4)
        .map(|n| (numbered(n), regular(&grid(0, 5), n)))
        .collect();
    write(&storage, 1, &model).unwrap();
    let sources = [open(&storage, 1).unwrap()];
    let mut outputs = [MergeOutput {
        range: TimeRange::ALL,
        writer: writer(&storage, 2),
    }];
    let mut calls = 0;
    let mut each = || {
        calls += 1;
        if calls == 3 {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    };
    let merged = merge(
        &sources,
        &[],
        None,
        &mut outputs,
        &mut Symbols::new(),
        &mut each,
    );
    assert!(matches!(merged, Err(Error::Cancelled)));
    drop(outputs);
    assert_eq!(storage.list(Path::new(DIR)).unwrap().len(), 1);
}

/// A few series of a few samples, with exemplars and metadata.
fn small() -> Model {
    let exemplar = Exemplar {
        time: Timestamp::from_nanos(5),
        value: 0.25,
        trace_id: TraceId::new([3; 16]),
        span_id: SpanId::new([4; 8]),
        labels: Labels::from_pairs([("k", "v")]).unwrap(),
    };
    let mut model: Model = (0..5)
        .map(|n| (numbered(n), regular(&grid((n % 2) as i64, 3 + n as i64), n)))
        .collect();
    model.get_mut(&numbered(2)).unwrap().exemplars = vec![exemplar; 2];
    model
}

#[test]
fn a_flipped_byte_is_named_and_costs_its_page() {
    let storage = Arc::new(PowerCutStorage::new());
    storage.create_dir_all(Path::new(DIR)).unwrap();
    let shared: Arc<dyn Storage> = Arc::<PowerCutStorage>::clone(&storage);
    let model = small();
    let meta = write(&shared, 1, &model).unwrap();
    let path = open(&shared, 1).unwrap().block().path().to_owned();
    let named = |error: &Error| match error {
        Error::CorruptBlock {
            path: named,
            offset_bytes,
            ..
        } => *named == path && *offset_bytes <= meta.file_bytes,
        Error::NotABlock { path: named, .. } | Error::UnsupportedBlock { path: named, .. } => {
            *named == path
        }
        _ => false,
    };
    for offset in 0..usize::try_from(meta.file_bytes).unwrap() {
        storage.damage(&path, offset, 0x10).unwrap();
        let mut damaged = 0;
        match Block::open(&shared, Path::new(DIR), None, BlockId(1), &Arc::default()) {
            Ok(block) => block
                .verify(&mut |_| Ok(()), &mut |found| {
                    let end = found.offset_bytes + found.len_bytes;
                    assert!((found.offset_bytes..end).contains(&(offset as u64)));
                    damaged += 1;
                })
                .unwrap(),
            Err(error) => {
                assert!(named(&error), "byte {offset}: {error}");
                damaged += 1;
            }
        }
        assert!(damaged > 0, "byte {offset} is not missed");
        match open(&shared, 1) {
            Ok(block) => {
                let mut cache = ColumnCache::default();
                for (row, series) in (0..).zip(model.values()) {
                    let (mut times, mut values) = (Vec::new(), Vec::new());
                    let read = block.read(row, TimeRange::ALL, &mut times, &mut values, &mut cache);
                    match read {
                        Ok(()) => assert!(times.iter().eq(series.samples.keys())),
                        Err(error) => assert!(named(&error), "byte {offset}: {error}"),
                    }
                    for error in [
                        block.labels(row).err(),
                        block.exemplars(row, TimeRange::ALL).err(),
                        block.metadata().err(),
                    ] {
                        assert!(error.as_ref().is_none_or(named), "byte {offset}: {error:?}");
                    }
                }
            }
            Err(error) => assert!(named(&error), "byte {offset}: {error}"),
        }
        storage.damage(&path, offset, 0x10).unwrap();
    }
    assert_same(&read_all(&open(&shared, 1).unwrap()).unwrap(), &model);
}

#[test]
fn a_damaged_page_of_values_costs_the_series_on_it() {
    let storage = Arc::new(PowerCutStorage::new());
    storage.create_dir_all(Path::new(DIR)).unwrap();
    let shared: Arc<dyn Storage> = Arc::<PowerCutStorage>::clone(&storage);
    let mut state = 1u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        state
    };
    let model: Model = (0..4)
        .map(|n| {
            let samples = grid(0, 8_000).into_iter().map(|t| (t, noise())).collect();
            let exemplars = Vec::new();
            (numbered(n), Series { samples, exemplars })
        })
        .collect();
    write(&shared, 1, &model).unwrap();
    let block = open(&shared, 1).unwrap();
    let (code, bytes, pages) = block.block().sections().next().unwrap();
    assert_eq!(code, crate::block::SectionKind::Values as u8);
    assert_eq!(pages, 4, "a page for each column");
    let path = block.block().path().to_owned();
    drop(block);
    // Somewhere in the second of four columns.
    storage
        .damage(&path, usize::try_from(bytes * 3 / 8).unwrap(), 1)
        .unwrap();
    let block = open(&shared, 1).unwrap();
    let mut cache = ColumnCache::default();
    let mut read = Vec::new();
    for (row, series) in (0..).zip(model.values()) {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        match block.read(row, TimeRange::ALL, &mut times, &mut values, &mut cache) {
            Ok(()) => {
                let values = values.into_iter().map(f64::to_bits);
                assert!(values.eq(series.samples.values().copied()));
                read.push(row);
            }
            Err(error) => assert!(matches!(error, Error::CorruptBlock { .. }), "{error}"),
        }
    }
    assert_eq!(read, [0, 2, 3]);
}

/// The sections of a small block, as `check_metric_block` takes them.
fn small_sections() -> [Vec<u8>; 7] {
    use crate::block::SectionKind as Kind;
    let storage = memory();
    write(&storage, 1, &small()).unwrap();
    let block = open(&storage, 1).unwrap();
    let kinds = [
        Kind::Strings,
        Kind::SeriesIndex,
        Kind::Times,
        Kind::Values,
        Kind::Chunks,
        Kind::Exemplars,
        Kind::Metadata,
    ];
    kinds.map(|kind| {
        let section = block.block().section(kind).unwrap();
        section.bytes(0..section.len_bytes()).unwrap().to_vec()
    })
}

fn check(sections: &[Vec<u8>; 7]) -> Result<(), Error> {
    check_metric_block(sections.each_ref().map(Vec::as_slice))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn wrong_bytes_under_a_right_checksum_are_read_or_refused(
        changes in prop::collection::vec((0usize..7, any::<usize>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.2, (0usize..7, any::<usize>())),
    ) {
        let mut sections = small_sections();
        check(&sections).unwrap();
        for (section, at, byte) in changes {
            let section = &mut sections[section];
            let len = section.len();
            section[at % len] = byte;
        }
        if let Some((section, len)) = cut {
            let section = &mut sections[section];
            section.truncate(len % section.len());
        }
        let _ = check(&sections);
    }
}

#[test]
fn a_range_touches_only_its_chunks() {
    let storage = Arc::new(PowerCutStorage::new());
    storage.create_dir_all(Path::new(DIR)).unwrap();
    let shared: Arc<dyn Storage> = Arc::<PowerCutStorage>::clone(&storage);
    let mut state = 1u64;
    let mut noise = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        state
    };
    let times = grid(0, 20 * 8_000);
    let series = Series {
        samples: times.iter().map(|t| (*t, noise())).collect(),
        exemplars: Vec::new(),
    };
    let model = Model::from([(numbered(0), series)]);
    write(&shared, 1, &model).unwrap();
    let block = open(&shared, 1).unwrap();
    let (_, bytes, pages) = block.block().sections().next().unwrap();
    assert_eq!(pages, 20, "a page for each column");
    let path = block.block().path().to_owned();
    drop(block);
    // All pages of values but that of chunk 13.
    for page in (0..20).filter(|page| *page != 13) {
        let middle = bytes / 20 * page + bytes / 40;
        storage
            .damage(&path, usize::try_from(middle).unwrap(), 1)
            .unwrap();
    }
    let block = open(&shared, 1).unwrap();
    let wanted = range(times[13 * 8_000 + 10], times[14 * 8_000 - 10]);
    let (mut found, mut values) = (Vec::new(), Vec::new());
    let mut cache = ColumnCache::default();
    block
        .read(0, wanted, &mut found, &mut values, &mut cache)
        .unwrap();
    assert_eq!(found, times[13 * 8_000 + 10..=14 * 8_000 - 10]);
    let values = values.into_iter().map(f64::to_bits);
    let samples = &model[&numbered(0)].samples;
    assert!(values.eq(found.iter().map(|t| samples[t])));
    // Between two samples there is nothing, and nothing is read for it.
    found.clear();
    let between = range(times[3] + 1, times[4] - 1);
    let read = block.read(0, between, &mut found, &mut Vec::new(), &mut cache);
    assert!(found.is_empty() && matches!(read, Ok(()) | Err(Error::CorruptBlock { .. })));
    let whole = block.read(0, TimeRange::ALL, &mut found, &mut Vec::new(), &mut cache);
    assert!(matches!(whole, Err(Error::CorruptBlock { .. })));
    assert!(found.is_empty(), "an error leaves no half of a chunk");
}

#[test]
fn exemplars_stand_between_values_and_come_back() {
    let storage = memory();
    let model: Model = (0..600)
        .map(|n| {
            let mut series = regular(&grid(n % 5, (n % 3) * 4), usize::try_from(n).unwrap());
            let exemplars = (0..n % 40).map(|at| Exemplar {
                time: Timestamp::from_nanos(at * 1_000 - n),
                value: at as f64,
                trace_id: TraceId::new([7; 16]),
                span_id: None,
                labels: Labels::from_pairs([("path", format!("/{n}/{at}"))]).unwrap(),
            });
            series.exemplars = exemplars.collect();
            (numbered(usize::try_from(n).unwrap()), series)
        })
        .collect();
    let expected = written(&model);
    write(&storage, 1, &model).unwrap();
    let block = open(&storage, 1).unwrap();
    assert_same(&read_all(&block).unwrap(), &expected);
    let rows = (0..).zip(expected.values());
    let with: Vec<u32> = rows
        .filter(|(_, series)| !series.exemplars.is_empty())
        .map(|(row, _)| row)
        .collect();
    assert!(block.rows_with_exemplars().unwrap().iter().eq(with));
}
