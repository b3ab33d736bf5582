//! What does the series index of a block cost: its bytes, building it, and asking it?
//!
//! A million series of a hundred thousand pods: ten metrics, eight labels, names that Kubernetes
//! would give; and a million that share no label set but for their metric.

use std::convert::Infallible;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rootline_index::disk::{DiskIndex, DiskIndexWriter};
use rootline_index::{MatchOp, Matcher, Symbol, Symbols};

const PODS: u64 = 100_000;
const METRICS: [&str; 10] = [
    "hc_cpu_usage_seconds_total",
    "hc_errors_total",
    "hc_latency_seconds",
    "hc_memory_bytes",
    "hc_net_rx_bytes_total",
    "hc_net_tx_bytes_total",
    "hc_queue_depth",
    "hc_requests_total",
    "hc_restarts_total",
    "hc_threads",
];

type Pair = (Symbol, Symbol);
type Rows = (Symbols, Vec<[Pair; 8]>);

/// Numbers that look random, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Rows in the order of their labels: pods times metrics, or one metric for each pod.
fn rows(pods: u64, metrics_of_pod: usize) -> Rows {
    let mut random = Random(7);
    let mut texts = Vec::new();
    for pod in 0..pods {
        let deployment = random.below(2000);
        let texts_of_pod = [
            format!("app-{deployment}"),
            format!("prod-{}", deployment % 3),
            "main".to_owned(),
            "kubernetes-pods".to_owned(),
            format!("ns-{}", deployment % 97),
            format!("node-{}", random.below(1000)),
            format!(
                "app-{deployment}-{:010x}-{:05x}",
                random.below(1 << 40),
                random.below(1 << 20)
            ),
        ];
        let metrics = METRICS.iter().cycle().skip((pod % 10) as usize);
        for metric in metrics.take(metrics_of_pod) {
            texts.push((*metric, texts_of_pod.clone()));
        }
    }
    texts.sort();
    let mut symbols = Symbols::new();
    let names = [
        "__name__",
        "app",
        "cluster",
        "container",
        "job",
        "namespace",
        "node",
        "pod",
    ]
    .map(|name| symbols.intern(name));
    let rows = texts
        .iter()
        .map(|(metric, values)| {
            let mut row = names.map(|name| (name, name));
            let values = values.iter().map(String::as_str);
            for (pair, value) in row.iter_mut().zip(std::iter::once(*metric).chain(values)) {
                pair.1 = symbols.intern(value);
            }
            row
        })
        .collect();
    (symbols, rows)
}

fn write((symbols, rows): &Rows) -> (usize, Vec<u8>, Vec<u8>) {
    let mut writer = DiskIndexWriter::new();
    for row in rows {
        writer.push(row);
    }
    let heap_bytes = writer.heap_bytes();
    let (mut strings, mut index) = (Vec::new(), Vec::new());
    let finished = writer.finish::<Infallible>(
        symbols,
        &mut |item| {
            let at = strings.len() as u64;
            strings.extend_from_slice(item);
            Ok(at)
        },
        &mut |item| {
            let at = index.len() as u64;
            index.extend_from_slice(item);
            Ok(at)
        },
    );
    let Ok(()) = finished;
    (heap_bytes, strings, index)
}

fn bench_series_index(c: &mut Criterion) {
    for (world, rows) in [
        ("10_metrics_a_pod", rows(PODS, 10)),
        ("1_metric_a_pod", rows(10 * PODS, 1)),
    ] {
        let count = rows.1.len() as u64;
        let (heap_bytes, strings, index) = write(&rows);
        eprintln!(
            "{world}: {count} series, bytes/series: strings {:.2}, index {:.2}; writer {:.1} MB",
            strings.len() as f64 / count as f64,
            index.len() as f64 / count as f64,
            heap_bytes as f64 / 1e6,
        );
        let mut group = c.benchmark_group(format!("series_index/{world}"));
        group.sample_size(10);
        group.throughput(Throughput::Elements(count));
        group.bench_function("build", |b| b.iter(|| write(black_box(&rows))));
        group.finish();
        let opened = || {
            let index = DiskIndex::open(strings.as_slice(), index.as_slice());
            index.expect("what was just written")
        };
        let mut group = c.benchmark_group(format!("series_index/{world}"));
        group.sample_size(20);
        group.bench_function("open", |b| b.iter(opened));
        ask(&mut group, &opened());
        group.finish();
    }
}

type Group<'c> = criterion::BenchmarkGroup<'c, criterion::measurement::WallTime>;

fn ask(group: &mut Group<'_>, index: &DiskIndex<&[u8]>) {
    let one = index.labels(index.rows() / 3).expect("a row");
    let matcher = |op, name, value| Matcher::new(op, name, value).expect("a valid pattern");
    let equal = |name: &str| Matcher::equal(name, one.get(name).expect("every row has it"));
    let questions = [
        ("one_series", vec![equal("__name__"), equal("pod")]),
        ("one_pod", vec![equal("pod")]),
        (
            "one_series_by_all_labels",
            one.iter().map(|(name, _)| equal(name)).collect(),
        ),
        ("one_node", vec![equal("__name__"), equal("node")]),
        ("one_app_on_one_node", vec![equal("app"), equal("node")]),
        ("one_metric", vec![equal("__name__")]),
        (
            "intersection_of_common",
            vec![equal("cluster"), equal("namespace")],
        ),
        (
            "prefix",
            vec![
                equal("__name__"),
                matcher(MatchOp::Regex, "pod", "app-12.*"),
            ],
        ),
        (
            "suffix",
            vec![equal("__name__"), matcher(MatchOp::Regex, "pod", ".*7f")],
        ),
        (
            "pattern",
            vec![matcher(MatchOp::Regex, "pod", "app-.*-[0-9]+-.*[a-f]{3}")],
        ),
        (
            "negative",
            vec![
                equal("__name__"),
                matcher(MatchOp::NotRegex, "namespace", "ns-1.*"),
            ],
        ),
    ];
    for (name, matchers) in &questions {
        let found = index.select(matchers, || true).expect("sound bytes");
        eprintln!("  {name}: {} rows", found.len());
        group.bench_function(format!("select/{name}"), |b| {
            b.iter(|| index.select(black_box(matchers), || true));
        });
    }
    let mut row = 0;
    group.bench_function("labels/one_row", |b| {
        b.iter(|| {
            row = (row + 7919) % index.rows();
            index.labels(black_box(row))
        });
    });
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("labels/10000_rows_in_order", |b| {
        b.iter_batched(
            || index.labels_cursor(),
            |mut cursor| {
                for row in 0..10_000 {
                    black_box(cursor.labels(row)).expect("sound bytes");
                }
            },
            BatchSize::SmallInput,
        );
    });
    let values = index.label_values("pod", None, "", usize::MAX, || true);
    group.throughput(Throughput::Elements(
        values.expect("sound bytes").len() as u64
    ));
    group.bench_function("label_values/all_pods", |b| {
        b.iter(|| index.label_values("pod", None, "", usize::MAX, || true));
    });
    let of_metric = index.select(&[equal("__name__")], || true);
    let of_metric = of_metric.expect("sound bytes");
    group.bench_function("label_values/pods_of_a_metric", |b| {
        b.iter(|| index.label_values("pod", Some(&of_metric), "", usize::MAX, || true));
    });
    group.bench_function("label_names/of_a_metric", |b| {
        b.iter(|| index.label_names(Some(&of_metric), usize::MAX, || true));
    });
    group.bench_function("cardinality/pairs", |b| {
        b.iter(|| index.pair_cardinality(10, || true));
    });
}

criterion_group!(benches, bench_series_index);
criterion_main!(benches);
