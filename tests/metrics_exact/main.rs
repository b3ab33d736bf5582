//! What was written comes back bit for bit, wherever it lies: before a flush, sealed, compacted, after
//! SIGKILL, after a clean stop.
//!
//! Shapes of its own always; real series (`../shared/data`) where they are there; and any data set of
//! the load generator that `ROOTLINE_TESTS_DATASET` names, in a release build for large ones:
//!
//! ```text
//! ROOTLINE_TESTS_DATASET=m.rw cargo test --release -p rootline-tests --test metrics_exact data_set
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    path::Path,
};

use prost::Message as _;
use rootline::{
    client::{Client, v1},
    proto::prometheus::WriteRequest,
};
use rootline_tests::{Node, http, remote_write, requirement, seeded};
use tempfile::tempdir;

type LabelPairs = Vec<(String, String)>;

/// Everything written, in the order of writing.
#[derive(Default)]
struct Truth {
    series: BTreeMap<LabelPairs, Vec<(i64, u64)>>,
    /// From the raw label bytes of one sender.
    known: HashMap<Vec<u8>, LabelPairs>,
}

impl Truth {
    fn take(&mut self, body: &[u8]) {
        let request = WriteRequest::decode(body).unwrap();
        for series in request.timeseries {
            let mut key = Vec::new();
            for label in &series.labels {
                label.encode_length_delimited(&mut key).unwrap();
            }
            let labels = self.known.entry(key).or_insert_with(|| {
                let pairs = series.labels.iter();
                let mut pairs: LabelPairs = pairs
                    .map(|l| (l.name.clone(), l.value.clone()))
                    .filter(|(_, value)| !value.is_empty())
                    .collect();
                pairs.sort();
                pairs
            });
            if !self.series.contains_key(labels) {
                self.series.insert(labels.clone(), Vec::new());
            }
            let samples = self.series.get_mut(labels).unwrap();
            samples.extend(
                series
                    .samples
                    .iter()
                    .map(|s| (s.timestamp * 1_000_000, s.value.to_bits())),
            );
        }
    }

    /// By rising time, the last write of each.
    fn settle(&mut self) {
        for samples in self.series.values_mut() {
            if samples.windows(2).all(|w| w[0].0 < w[1].0) {
                continue;
            }
            let by_time: BTreeMap<i64, u64> = samples.iter().copied().collect();
            *samples = by_time.into_iter().collect();
        }
    }

    fn samples(&self) -> usize {
        self.series.values().map(Vec::len).sum()
    }
}

fn write(node: &Node, truth: &mut Truth, body: &[u8]) {
    let answer = remote_write::post(node.http, body).unwrap();
    assert!(answer.status < 300, "{}: {}", answer.status, answer.text());
    truth.take(body);
}

/// Compares everything the node answers, metric by metric.
fn check(node: &Node, truth: &Truth, when: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(Client::connect(&node.endpoint())).unwrap();
    let mut metrics: Vec<&str> = truth
        .series
        .keys()
        .map(|labels| {
            labels
                .iter()
                .find(|l| l.0 == "__name__")
                .unwrap()
                .1
                .as_str()
        })
        .collect();
    metrics.sort_unstable();
    metrics.dedup();
    let (mut series, mut samples) = (0, 0);
    for metric in metrics {
        let request = v1::SelectRequest {
            series: Some(v1::SeriesSelector {
                selector: format!("{{__name__={metric:?}}}"),
                matchers: Vec::new(),
            }),
            ..Default::default()
        };
        let answer = runtime.block_on(client.select(request)).unwrap();
        for found in answer.series {
            let labels: LabelPairs = found
                .labels
                .into_iter()
                .map(|l| (l.name, l.value))
                .collect();
            let expected = truth
                .series
                .get(&labels)
                .unwrap_or_else(|| panic!("{when}: {labels:?} was never written"));
            let got: Vec<(i64, u64)> = found
                .times_ns
                .iter()
                .copied()
                .zip(found.values.iter().map(|v| v.to_bits()))
                .collect();
            if got != *expected {
                let at = got.iter().zip(expected).position(|(a, b)| a != b);
                panic!(
                    "{when}: {labels:?}: {} samples instead of {}, first difference at {at:?}",
                    got.len(),
                    expected.len()
                );
            }
            series += 1;
            samples += got.len();
        }
    }
    assert_eq!(
        (series, samples),
        (truth.series.len(), truth.samples()),
        "{when}: series and samples"
    );
}

fn flush(node: &Node) {
    let answer = http::request(node.http, "POST", "/api/v1/admin/flush", &[], b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

const OPTIONS: [&str; 4] = [
    "--query-samples-max",
    "4000000000",
    "--query-timeout",
    "600s",
];

fn start(dir: &Path) -> Node {
    Node::start_with(dir, &OPTIONS)
}

/// Writes `bodies` in two halves with a flush between, and looks at every stage of their life.
fn live_through(bodies: &[Vec<u8>]) {
    let dir = tempdir().unwrap();
    let mut truth = Truth::default();
    let node = start(dir.path());
    let half = bodies.len() / 2;
    for body in &bodies[..half] {
        write(&node, &mut truth, body);
    }
    truth.settle();
    check(&node, &truth, "in the head");
    flush(&node);
    check(&node, &truth, "sealed");
    for body in &bodies[half..] {
        write(&node, &mut truth, body);
    }
    truth.settle();
    check(&node, &truth, "head over a block");
    node.kill();
    let node = start(dir.path());
    check(&node, &truth, "after SIGKILL");
    flush(&node);
    check(&node, &truth, "two blocks");
    let compacted = node.cli(&["admin", "compact"]);
    assert!(compacted.status.success(), "{compacted:?}");
    check(&node, &truth, "compacted");
    node.kill();
    let node = start(dir.path());
    check(&node, &truth, "reopened after SIGKILL");
    assert!(node.terminate().0.success());
    let node = start(dir.path());
    check(&node, &truth, "reopened after a clean stop");
}

fn body_of(series: &[(LabelPairs, Vec<(i64, f64)>)]) -> Vec<u8> {
    let encoded: Vec<Vec<u8>> = series
        .iter()
        .map(|(labels, samples)| {
            let labels: Vec<(&[u8], &[u8])> = labels
                .iter()
                .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
                .collect();
            remote_write::series(&labels, samples)
        })
        .collect();
    remote_write::request(&encoded)
}

fn labels(metric: &str, pairs: &[(&str, &str)]) -> LabelPairs {
    let mut all = vec![("__name__".to_owned(), metric.to_owned())];
    all.extend(
        pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
    );
    all
}

#[test]
fn every_kind_of_value_comes_back_with_late_and_repeated_samples() {
    let mut random = seeded::Random::new(seeded::seed("metrics_exact"));
    let start_ms: i64 = 1_700_000_000_000;
    let mut bodies = Vec::new();
    for round in 0..40i64 {
        let mut series = Vec::new();
        for host in 0..6u64 {
            let host_text = host.to_string();
            let mut samples: [Vec<(i64, f64)>; 6] = Default::default();
            for step in 0..30i64 {
                let n = round * 30 + step;
                let jitter = i64::try_from(random.below(50)).unwrap();
                let time = start_ms + n * 60_000 + i64::try_from(host).unwrap() * 137;
                let walk = f64::from(u32::try_from(random.below(1000)).unwrap());
                samples[0].push((time, (walk / 10.0).round()));
                samples[1].push((time, walk / 100.0 + 51.846_000_000_000_004));
                samples[2].push((time + jitter, f64::from_bits(random.next_u64())));
                samples[3].push((time, walk / 7.0));
                let odd = [
                    f64::NAN,
                    -0.0,
                    f64::INFINITY,
                    f64::from_bits(0x7ff0_0000_0000_0002),
                    5e-324,
                    f64::NEG_INFINITY,
                ];
                let pick = usize::try_from(random.below(6)).unwrap();
                samples[4].push((time, odd[pick]));
                // Late by up to a day, and often at a time that was there before.
                let late = i64::try_from(random.below(1440)).unwrap() * 60_000;
                samples[5].push((time - late, walk));
            }
            for (kind, samples) in samples.into_iter().enumerate() {
                let metric = format!("kind_{kind}");
                series.push((labels(&metric, &[("host", &host_text)]), samples));
            }
        }
        bodies.push(body_of(&series));
    }
    live_through(&bodies);
}

/// Seconds since the epoch of `YYYY-MM-DD hh:mm:ss`.
fn epoch_s(text: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since the epoch in the proleptic Gregorian calendar, the year taken to begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468;
    ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19)
}

#[test]
fn real_series_of_nab_come_back() {
    let Some(dir) = requirement::data("nab") else {
        requirement::skip("data", "../shared/data/nab");
        return;
    };
    let mut series = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "csv") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let samples: Vec<(i64, f64)> = text
            .lines()
            .skip(1)
            .filter_map(|line| {
                let (time, value) = line.split_once(',')?;
                Some((epoch_s(time) * 1000, value.split(',').next()?.parse().ok()?))
            })
            .collect();
        assert!(!samples.is_empty(), "{name}");
        series.push((labels("nab", &[("file", &name)]), samples));
    }
    let mut bodies = Vec::new();
    for part in 0..4 {
        let of_part = series.iter().map(|(labels, samples)| {
            let quarter = samples.len() / 4 + 1;
            let of_part = samples.chunks(quarter).nth(part).unwrap_or_default();
            (labels.clone(), of_part.to_vec())
        });
        bodies.push(body_of(&of_part.collect::<Vec<_>>()));
    }
    live_through(&bodies);
}

#[test]
fn the_metrics_of_a_real_day_come_back() {
    let Some(file) = requirement::data("nezha/2022-08-23/metrics.remote_write.zst") else {
        requirement::skip("data", "../shared/data/nezha");
        return;
    };
    let bytes = zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap();
    let mut rest = bytes.as_slice();
    let mut bodies = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (body, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        bodies.push(body.to_vec());
        rest = behind;
    }
    live_through(&bodies);
}

/// Frames of a data set of the load generator: magic, then length, samples, shard and eight bytes
/// more before each snappy body.
#[test]
fn a_data_set_comes_back() {
    let Some(file) = std::env::var_os("ROOTLINE_TESTS_DATASET") else {
        return;
    };
    let mut file = std::io::BufReader::new(std::fs::File::open(file).unwrap());
    let mut magic = [0; 8];
    file.read_exact(&mut magic).unwrap();
    let dir = tempdir().unwrap();
    let mut truth = Truth::default();
    let node = start(dir.path());
    let mut frame = [0; 20];
    while file.read_exact(&mut frame).is_ok() {
        let length = u32::from_le_bytes(*frame.first_chunk().unwrap());
        let mut body = vec![0; length as usize];
        file.read_exact(&mut body).unwrap();
        let answer = remote_write::post_raw(node.http, &body).unwrap();
        assert!(answer.status < 300, "{}: {}", answer.status, answer.text());
        truth.take(&snap::raw::Decoder::new().decompress_vec(&body).unwrap());
    }
    truth.settle();
    check(&node, &truth, "in the head");
    flush(&node);
    check(&node, &truth, "sealed");
    node.kill();
    let node = start(dir.path());
    check(&node, &truth, "after SIGKILL");
    assert!(node.cli(&["admin", "compact"]).status.success());
    check(&node, &truth, "compacted");
}
