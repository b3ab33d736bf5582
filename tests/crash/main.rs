//! The promise of an acknowledgement: a node is killed at random moments under concurrent load of both
//! signals, over every way in, and started again. Every batch that was acknowledged is there, whole; no
//! batch is there in part.
//!
//! `ROOTLINE_CRASH_ROUNDS` says how often (default 5), `ROOTLINE_TEST_SEED` makes the moments the same.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::Message;
use rootline::client::{Client, v1};
use rootline_tests::{
    Node, otlp, remote_write,
    seeded::{self, Random},
};
use tempfile::tempdir;
use tonic::transport::Channel;

const ROUNDS_DEFAULT: u64 = 5;
/// Items in a batch, each in a series or span of its own.
const ITEMS: u64 = 7;
const NOW_NS: u64 = 1_700_000_000_000_000_000;
/// The longest a node lives in a round.
const LIFE_MS_MAX: u64 = 1_200;

/// The ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    OtlpTraces,
    OtlpMetrics,
    RemoteWrite,
    /// `rootline.v1.Write` with both signals in one batch.
    Both,
}

const WAYS: [Way; 4] = [
    Way::OtlpTraces,
    Way::OtlpMetrics,
    Way::RemoteWrite,
    Way::Both,
];

impl Way {
    fn has_spans(self) -> bool {
        matches!(self, Self::OtlpTraces | Self::Both)
    }

    fn has_samples(self) -> bool {
        self != Self::OtlpTraces
    }
}

/// What was tried and what was answered.
#[derive(Debug, Default)]
struct Ledger {
    tried: BTreeMap<u64, Way>,
    acknowledged: BTreeSet<u64>,
}

fn trace_id(batch: u64) -> u128 {
    u128::from(batch) << 32 | 0xc4a5
}

fn spans(batch: u64) -> Vec<u8> {
    // Children before their parent, as exporters send them.
    let spans = (1..=ITEMS).rev().map(|n| {
        otlp::span(
            trace_id(batch),
            n,
            (n > 1).then_some(1),
            NOW_NS + batch,
            NOW_NS + batch + n,
        )
    });
    otlp::traces("crash", spans.collect()).encode_to_vec()
}

fn time_ns(batch: u64) -> i64 {
    i64::try_from(NOW_NS + batch * 1_000_000).unwrap()
}

async fn send(way: Way, batch: u64, client: &Client, channel: &Channel, node: &Addresses) -> bool {
    let value = batch as f64;
    match way {
        Way::OtlpTraces => otlp::call(channel, otlp::EXPORT_TRACES, spans(batch))
            .await
            .is_ok(),
        Way::OtlpMetrics => {
            let names: Vec<String> = (0..ITEMS).map(|n| n.to_string()).collect();
            let attributes: Vec<[(&str, &str); 1]> =
                names.iter().map(|n| [("item", n.as_str())]).collect();
            let at = u64::try_from(time_ns(batch)).unwrap();
            let points: Vec<otlp::Point<'_>> =
                attributes.iter().map(|a| (&a[..], at, value)).collect();
            let body = otlp::gauge("crash", "crash_samples", &points).encode_to_vec();
            otlp::call(channel, otlp::EXPORT_METRICS, body)
                .await
                .is_ok()
        }
        Way::RemoteWrite => {
            let series: Vec<_> = (0..ITEMS)
                .map(|n| {
                    let item = n.to_string();
                    let labels: [(&[u8], &[u8]); 3] = [
                        (b"__name__", b"crash_samples"),
                        (b"item", item.as_bytes()),
                        (b"way", b"rw"),
                    ];
                    remote_write::series(&labels, &[(time_ns(batch) / 1_000_000, value)])
                })
                .collect();
            let (http, body) = (node.http, remote_write::request(&series));
            tokio::task::spawn_blocking(move || remote_write::post(http, &body))
                .await
                .unwrap()
                .is_ok_and(|r| (200..300).contains(&r.status))
        }
        Way::Both => {
            let series = (0..ITEMS)
                .map(|n| v1::SeriesWrite {
                    labels: [
                        ("__name__", "crash_samples"),
                        ("item", &n.to_string()),
                        ("way", "v1"),
                    ]
                    .map(|(name, value)| v1::Label {
                        name: name.into(),
                        value: value.into(),
                    })
                    .to_vec(),
                    times_ns: vec![time_ns(batch)],
                    values: vec![value],
                    exemplars: Vec::new(),
                })
                .collect();
            let otlp_traces = spans(batch);
            let request = v1::WriteRequest {
                series,
                metadata: Vec::new(),
                otlp_traces,
            };
            client.write(request).await.is_ok()
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Addresses {
    http: std::net::SocketAddr,
}

/// Writes from all sides until the node is gone.
async fn load(node: &Node, ledger: &Arc<Mutex<Ledger>>, batches: &Arc<AtomicU64>, life: Duration) {
    let dead = Arc::new(AtomicBool::new(false));
    let client = Client::connect(&node.endpoint()).await.unwrap();
    let channel = Channel::from_shared(node.endpoint())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let addresses = Addresses { http: node.http };
    let mut writers = tokio::task::JoinSet::new();
    for way in WAYS.into_iter().chain(WAYS) {
        let (client, channel) = (client.clone(), channel.clone());
        let (dead, ledger, batches) = (Arc::clone(&dead), Arc::clone(ledger), Arc::clone(batches));
        writers.spawn(async move {
            while !dead.load(Ordering::Relaxed) {
                let batch = batches.fetch_add(1, Ordering::Relaxed);
                ledger.lock().unwrap().tried.insert(batch, way);
                if send(way, batch, &client, &channel, &addresses).await {
                    ledger.lock().unwrap().acknowledged.insert(batch);
                }
            }
        });
    }
    tokio::time::sleep(life).await;
    node.signal("KILL");
    dead.store(true, Ordering::Relaxed);
    while let Some(joined) = writers.join_next().await {
        joined.unwrap();
    }
}

/// How many samples each batch left, by its value.
async fn samples_by_batch(client: &Client) -> BTreeMap<u64, u64> {
    let series = v1::SeriesSelector {
        selector: "crash_samples".into(),
        matchers: Vec::new(),
    };
    let request = v1::SelectRequest {
        series: Some(series),
        range: None,
        series_limit: 0,
    };
    let selected = client.select(request).await.unwrap();
    let mut found = BTreeMap::new();
    for series in selected.series {
        for value in series.values {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a batch number"
            )]
            let batch = value as u64;
            *found.entry(batch).or_default() += 1;
        }
    }
    found
}

/// How many spans each batch left.
async fn spans_by_batch(client: &Client) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let conditions = v1::SpanConditions {
            service: "crash".into(),
            ..Default::default()
        };
        let request = v1::FindTracesRequest {
            conditions: Some(conditions),
            range: None,
            limit: 1_000,
            page_token,
            ..Default::default()
        };
        let answer = client.find_traces(request).await.unwrap();
        for trace in answer.traces {
            let id = u128::from_str_radix(&trace.trace_id, 16).unwrap();
            let batch = u64::try_from(id >> 32).unwrap();
            assert_eq!(trace_id(batch), id);
            assert_eq!(
                found.insert(batch, trace.spans),
                None,
                "trace {id:x} is listed twice"
            );
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

async fn check(node: &Node, ledger: &Mutex<Ledger>) {
    let client = Client::connect(&node.endpoint()).await.unwrap();
    let samples = samples_by_batch(&client).await;
    let spans = spans_by_batch(&client).await;
    let ledger = ledger.lock().unwrap();
    for (batch, way) in &ledger.tried {
        let of = |has: bool, found: &BTreeMap<u64, u64>| {
            has.then(|| found.get(batch).copied().unwrap_or(0))
        };
        let parts = [of(way.has_samples(), &samples), of(way.has_spans(), &spans)];
        let parts: Vec<u64> = parts.into_iter().flatten().collect();
        let whole = parts.iter().all(|n| *n == ITEMS);
        let nothing = parts.iter().all(|n| *n == 0);
        assert!(
            whole || nothing,
            "batch {batch} ({way:?}) is there by half: {parts:?}"
        );
        if ledger.acknowledged.contains(batch) {
            assert!(
                whole,
                "batch {batch} ({way:?}) was acknowledged and is gone"
            );
        }
    }
    let strangers: Vec<_> = samples
        .keys()
        .chain(spans.keys())
        .filter(|b| !ledger.tried.contains_key(b))
        .collect();
    assert!(strangers.is_empty(), "never sent: {strangers:?}");
}

#[test]
fn killed_at_random_moments_a_node_keeps_every_acknowledged_batch_whole() {
    let rounds = std::env::var("ROOTLINE_CRASH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(ROUNDS_DEFAULT);
    let mut random = Random::new(seeded::seed("crash"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let dir = tempdir().unwrap();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let batches = Arc::new(AtomicU64::new(1));
    for round in 0..rounds {
        let life = Duration::from_millis(random.below(LIFE_MS_MAX));
        let node = Node::start(dir.path());
        runtime.block_on(async {
            check(&node, &ledger).await;
            load(&node, &ledger, &batches, life).await;
        });
        let ledger = ledger.lock().unwrap();
        eprintln!(
            "round {round}: killed after {life:?}; so far {} batches, {} acknowledged",
            ledger.tried.len(),
            ledger.acknowledged.len()
        );
    }
    // The last crash, and one start more than crashes: recovery is repeatable.
    for _ in 0..2 {
        let node = Node::start(dir.path());
        runtime.block_on(check(&node, &ledger));
        node.kill();
    }
    let ledger = ledger.lock().unwrap();
    assert!(
        !ledger.acknowledged.is_empty(),
        "no batch was acknowledged in {rounds} rounds"
    );
}
