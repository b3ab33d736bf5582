//! How many nanoseconds and bytes does a sample cost in the chunk of the metric head?
//!
//! Budget: 15 ns to append. Shapes are seeded; the real series of the Numenta Anomaly Benchmark
//! are added where `../shared/data/nab` stands beside the repository. On integers, `tsz-compress`
//! and plain bit packing of differences run over the same columns, which is what
//! `docs/decisions/0002-tsz-compress.md` rests on.
//!
//! Sizes go to standard error before the timings: bytes per sample, timestamp included.

#![expect(
    clippy::indexing_slicing,
    reason = "a benchmark may stop on a mistake of its own"
)]

// The macro of `tsz-compress` names `::alloc`.
extern crate alloc;

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rootline_engine::chunk::Chunk;
use tsz_compress::prelude::*;

const SAMPLES: usize = 1024;
const START_NS: i64 = 1_700_000_000_000_000_000;
const MS_NS: i64 = 1_000_000;

/// One series of samples.
struct Shape {
    name: String,
    samples: Vec<(i64, f64)>,
}

/// A small generator whose numbers never change (xorshift, Marsaglia 2003).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A whole number from 0 to `bound` - 1.
    fn below(&mut self, bound: i64) -> i64 {
        (self.next() % bound.cast_unsigned()).cast_signed()
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn shape(
    name: &str,
    mut time_ns: impl FnMut(i64, &mut Seeded) -> i64,
    mut value: impl FnMut(&mut Seeded) -> f64,
) -> Shape {
    let mut seeded = Seeded(0x5eed_5eed_5eed_5eed);
    let samples = (0_i64..)
        .take(SAMPLES)
        .map(|i| (time_ns(i, &mut seeded), value(&mut seeded)))
        .collect();
    Shape {
        name: name.to_owned(),
        samples,
    }
}

fn scrape(i: i64, _: &mut Seeded) -> i64 {
    START_NS + i * 15_000 * MS_NS
}

fn jittered_scrape(i: i64, seeded: &mut Seeded) -> i64 {
    scrape(i, seeded) + (seeded.below(101) - 50) * MS_NS
}

/// A push at its own nanosecond, as SDKs do.
fn push(i: i64, seeded: &mut Seeded) -> i64 {
    scrape(i, seeded) + 123_456_789 + seeded.below(2_000_001)
}

fn shapes() -> Vec<Shape> {
    let counter = |step: i64| {
        let mut total = 1_000_000_i64;
        move |seeded: &mut Seeded| {
            total += seeded.below(step);
            total as f64
        }
    };
    let two_decimals = || {
        let mut cents = 5_000_i64;
        move |seeded: &mut Seeded| {
            cents += seeded.below(201) - 100;
            cents as f64 / 100.0
        }
    };
    vec![
        shape("constant", scrape, |_| 1.0),
        shape("counter", scrape, counter(100)),
        shape("gauge_2_decimals", scrape, two_decimals()),
        shape(
            "gauge_2_decimals_jitter_50ms",
            jittered_scrape,
            two_decimals(),
        ),
        shape("gauge_2_decimals_push_ns", push, two_decimals()),
        shape("constant_jitter_50ms", jittered_scrape, |_| 1.0),
        shape("constant_push_ns", push, |_| 1.0),
        shape("full_mantissa", scrape, Seeded::unit),
    ]
}

/// The series of the Numenta Anomaly Benchmark, one shape for each file, in the order of names.
fn nab_shapes() -> Vec<Shape> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/nab");
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    paths.sort();
    let series = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        let sample = |line: &str| {
            let (time, value) = line.split_once(',')?;
            Some((time_ns_of(time)?, value.trim().parse().ok()?))
        };
        let mut samples: Vec<(i64, f64)> = text.lines().skip(1).filter_map(sample).collect();
        samples.sort_by_key(|sample| sample.0);
        samples.dedup_by_key(|sample| sample.0);
        let name = path.file_stem()?.to_string_lossy().into_owned();
        Some(Shape {
            name: format!("nab/{name}"),
            samples,
        })
    };
    paths.iter().filter_map(series).collect()
}

/// `2014-04-01 00:05:00` as nanoseconds since 1970.
fn time_ns_of(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Years that begin in March put the leap day last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 * MS_NS)
}

fn chunks_of(samples: &[(i64, f64)]) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for &(time_ns, value) in samples {
        let appended = chunks
            .last_mut()
            .is_some_and(|c| c.append(time_ns, value).is_ok());
        if !appended {
            chunks.push(Chunk::new(time_ns, value));
        }
    }
    chunks
}

fn stored_bytes(chunks: &[Chunk]) -> usize {
    chunks.iter().map(|chunk| chunk.as_bytes().len()).sum()
}

fn bench_shapes(c: &mut Criterion) {
    let mut nab_bytes = 0;
    let mut nab_samples = 0;
    for shape in nab_shapes() {
        let (bytes, count) = (
            stored_bytes(&chunks_of(&shape.samples)),
            shape.samples.len(),
        );
        eprintln!(
            "bytes/sample {:<48} {:>6.3}",
            shape.name,
            bytes as f64 / count as f64
        );
        nab_bytes += bytes;
        nab_samples += count;
    }
    if nab_samples > 0 {
        eprintln!(
            "bytes/sample {:<48} {:>6.3}",
            "nab/all",
            nab_bytes as f64 / nab_samples as f64
        );
    }
    let mut measured = shapes();
    measured.extend(nab_shapes().into_iter().filter(|shape| {
        matches!(
            shape.name.as_str(),
            "nab/ec2_cpu_utilization_5f5533" | "nab/nyc_taxi"
        )
    }));
    for shape in &measured {
        let chunks = chunks_of(&shape.samples);
        let bytes = stored_bytes(&chunks) as f64 / shape.samples.len() as f64;
        eprintln!("bytes/sample {:<48} {bytes:>6.3}", shape.name);
        let mut group = c.benchmark_group("gorilla_chunk");
        group.throughput(Throughput::Elements(shape.samples.len() as u64));
        group.bench_function(format!("append/{}", shape.name), |b| {
            b.iter(|| chunks_of(black_box(&shape.samples)));
        });
        group.bench_function(format!("iterate/{}", shape.name), |b| {
            b.iter(|| {
                let samples = black_box(&chunks).iter().flatten();
                samples.fold((0, 0), |sum: (i64, u64), (time_ns, value)| {
                    (sum.0 ^ time_ns, sum.1 ^ value.to_bits())
                })
            });
        });
        group.finish();
    }
}

mod row {
    //! What `tsz-compress` compresses: its macro makes the two types at the end.
    #![allow(
        unreachable_pub,
        clippy::pedantic,
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "made by the macro"
    )]
    use tsz_compress::prelude::*;

    #[derive(Debug, Copy, Clone, CompressV2, DecompressV2)]
    pub struct Row {
        pub time: i64,
        pub value: i64,
    }

    pub use compress::RowCompressorImpl;
    pub use decompress::RowDecompressorImpl;
}

/// Columns of whole numbers, as `tsz-compress` wants them: time in milliseconds and value.
fn integer_shapes() -> Vec<(String, Vec<(i64, i64)>)> {
    let columns = |shape: &Shape, scale: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
        let row =
            |&(time_ns, value): &(i64, f64)| (time_ns / MS_NS, (value * scale).round() as i64);
        (shape.name.clone(), shape.samples.iter().map(row).collect())
    };
    let scales = [
        ("constant", 1.0),
        ("counter", 1.0),
        ("gauge_2_decimals", 100.0),
        ("gauge_2_decimals_jitter_50ms", 100.0),
    ];
    let shapes = shapes();
    let scaled = scales.iter().filter_map(|(name, scale)| {
        shapes
            .iter()
            .find(|shape| shape.name == *name)
            .map(|shape| columns(shape, *scale))
    });
    scaled.collect()
}

/// `finish` into a fresh vector only: `finish_into` writes past the end of a reused one.
fn tsz_encode(rows: &[(i64, i64)]) -> Vec<u8> {
    let mut compressor = row::RowCompressorImpl::new(rows.len());
    for &(time, value) in rows {
        compressor.compress(row::Row { time, value });
    }
    compressor.finish()
}

fn tsz_decode(bytes: &[u8]) -> (Vec<i64>, Vec<i64>) {
    let mut decompressor = row::RowDecompressorImpl::new();
    decompressor.decompress(bytes).expect("own bytes decode");
    (
        decompressor.col_time().to_vec(),
        decompressor.col_value().to_vec(),
    )
}

/// Differences of differences of time and differences of values, zigzag, packed 128 at a time with
/// the width of the widest: the plainest thing to compare with.
fn packed_encode(rows: &[(i64, i64)]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut time, mut step, mut value) = (0_i64, 0_i64, 0_i64);
    let zigzag = |n: i64| (n << 1 ^ n >> 63).cast_unsigned();
    let mut columns: [Vec<u64>; 2] = Default::default();
    for &(t, v) in rows {
        columns[0].push(zigzag((t - time) - step));
        columns[1].push(zigzag(v - value));
        (step, time, value) = (t - time, t, v);
    }
    for group in columns.iter().flat_map(|column| column.chunks(128)) {
        let width = 64 - group.iter().fold(0, |all, n| all | n).leading_zeros();
        out.push(u8::try_from(width).expect("at most 64"));
        let (mut word, mut used) = (0_u64, 0_u32);
        for &n in group {
            if width == 0 {
                continue;
            }
            word |= n << used;
            used += width;
            if used >= 64 {
                out.extend_from_slice(&word.to_le_bytes());
                used -= 64;
                word = if used == 0 { 0 } else { n >> (width - used) };
            }
        }
        out.extend_from_slice(&word.to_le_bytes()[..used.div_ceil(8) as usize]);
    }
    out
}

fn packed_decode(mut bytes: &[u8], count: usize) -> (Vec<i64>, Vec<i64>) {
    let mut columns: [Vec<i64>; 2] = Default::default();
    for column in &mut columns {
        while column.len() < count {
            let group = (count - column.len()).min(128);
            let width = u32::from(bytes[0]);
            bytes = &bytes[1..];
            let mask = u64::MAX.checked_shr(64 - width).unwrap_or(0);
            for i in 0..group {
                let at = i * width as usize;
                let mut window = [0; 16];
                let rest = &bytes[(at / 8).min(bytes.len())..];
                let taken = rest.len().min(16);
                window[..taken].copy_from_slice(&rest[..taken]);
                let shifted = u128::from_le_bytes(window) >> (at % 8);
                #[expect(clippy::cast_possible_truncation, reason = "masked to the width")]
                let n = shifted as u64 & mask;
                column.push((n >> 1).cast_signed() ^ -((n & 1).cast_signed()));
            }
            bytes = &bytes[(group * width as usize).div_ceil(8)..];
        }
    }
    let [mut times, mut values] = columns;
    let (mut time, mut step, mut value) = (0, 0, 0);
    for (t, v) in times.iter_mut().zip(&mut values) {
        step += *t;
        time += step;
        value += *v;
        (*t, *v) = (time, value);
    }
    (times, values)
}

fn bench_integers(c: &mut Criterion) {
    for (name, rows) in integer_shapes() {
        let expected: (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
        let samples: Vec<(i64, f64)> = rows
            .iter()
            .map(|&(time, value)| (time * MS_NS, value as f64))
            .collect();
        let (tsz, packed, chunks) = (tsz_encode(&rows), packed_encode(&rows), chunks_of(&samples));
        assert_eq!(tsz_decode(&tsz), expected);
        assert_eq!(packed_decode(&packed, rows.len()), expected);
        let per_sample = |bytes: usize| bytes as f64 / rows.len() as f64;
        eprintln!(
            "bytes/sample integers/{name}: gorilla {:.3}, tsz-compress {:.3}, packed {:.3}",
            per_sample(stored_bytes(&chunks)),
            per_sample(tsz.len()),
            per_sample(packed.len()),
        );
        let mut group = c.benchmark_group(format!("integers/{name}"));
        group.throughput(Throughput::Elements(rows.len() as u64));
        group.bench_function("encode/gorilla", |b| {
            b.iter(|| chunks_of(black_box(&samples)));
        });
        group.bench_function("encode/tsz-compress", |b| {
            b.iter(|| tsz_encode(black_box(&rows)));
        });
        group.bench_function("encode/packed", |b| {
            b.iter(|| packed_encode(black_box(&rows)));
        });
        group.bench_function("decode/gorilla", |b| {
            b.iter(|| -> Vec<(i64, f64)> { black_box(&chunks).iter().flatten().collect() });
        });
        group.bench_function("decode/tsz-compress", |b| {
            b.iter(|| tsz_decode(black_box(&tsz)));
        });
        group.bench_function("decode/packed", |b| {
            b.iter(|| packed_decode(black_box(&packed), rows.len()));
        });
        group.finish();
    }
}

criterion_group!(benches, bench_shapes, bench_integers);
criterion_main!(benches);
