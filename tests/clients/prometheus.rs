//! Prometheus scrapes a target and writes on to a node that refuses some of it for good and all of it for
//! a while: in the end both hold the same samples.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rootline::client::{Client, v1};
use rootline_tests::{Node, http, requirement};
use tempfile::tempdir;

use crate::pressure::{self, Ports, until};

/// More than a label value may have, so that its series is refused for good.
const TOO_LONG: usize = 80 << 10;

/// Something to scrape: a counter that counts scrapes, a gauge, a histogram; and while `bad` is set a
/// series that no node takes.
fn target(bad: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let scrapes = AtomicU64::new(0);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let n = scrapes.fetch_add(1, Ordering::Relaxed) + 1;
            let mut body = format!(
                "# HELP demo_scrapes_total Scrapes so far.\n# TYPE demo_scrapes_total counter\n\
                 demo_scrapes_total {n}\n# TYPE demo_wave gauge\ndemo_wave{{form=\"saw\"}} {}\n",
                n % 7
            );
            if bad.load(Ordering::Relaxed) {
                let long = "x".repeat(TOO_LONG);
                body = format!("{body}demo_bad{{long=\"{long}\"}} 1\n");
            }
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    addr
}

struct Prometheus {
    child: Child,
    addr: SocketAddr,
}

impl Prometheus {
    fn start(dir: &std::path::Path, target: SocketAddr, node: &Node) -> Self {
        let config = format!(
            "global:\n  scrape_interval: 500ms\n  scrape_timeout: 400ms\n\
             scrape_configs:\n  - job_name: demo\n    static_configs:\n      - targets: ['{target}']\n\
             remote_write:\n  - url: http://{}/api/v1/write\n    queue_config:\n      \
             batch_send_deadline: 300ms\n      min_backoff: 30ms\n      max_backoff: 500ms\n      \
             max_shards: 2\n    metadata_config:\n      send_interval: 1s\n",
            node.http
        );
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let addr = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={addr}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { child, addr };
        until("Prometheus gets ready", || {
            http::get(addr, "/-/ready").is_ok_and(|r| r.status == 200)
        });
        prometheus
    }

    /// What it scraped itself: (milliseconds, value).
    fn samples(&self, metric: &str) -> Vec<(i64, f64)> {
        let path = format!("/api/v1/query?query={metric}%5B1h%5D");
        let answer: serde_json::Value =
            serde_json::from_slice(&http::get(self.addr, &path).unwrap().body).unwrap();
        let Some(values) = answer["data"]["result"][0]["values"].as_array() else {
            return Vec::new();
        };
        let sample = |pair: &serde_json::Value| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "milliseconds of this century"
            )]
            let ms = (pair[0].as_f64()? * 1e3).round() as i64;
            Some((ms, pair[1].as_str()?.parse().ok()?))
        };
        values.iter().filter_map(sample).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stored(node: &Node, metric: &str) -> BTreeMap<i64, f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::connect(&node.endpoint()).await.unwrap();
        let series = v1::SeriesSelector {
            selector: metric.to_owned(),
            matchers: Vec::new(),
        };
        let request = v1::SelectRequest {
            series: Some(series),
            range: None,
            series_limit: 0,
        };
        let selected = client.select(request).await.unwrap();
        let pairs = selected.series.into_iter().flat_map(|s| {
            s.times_ns
                .into_iter()
                .map(|ns| ns / 1_000_000)
                .zip(s.values)
        });
        pairs.collect()
    })
}

#[test]
fn remote_write_survives_both_kinds_of_refusal_and_a_restart() {
    if Command::new("prometheus")
        .arg("--version")
        .output()
        .is_err()
    {
        return requirement::skip("prometheus", "prometheus");
    }
    let dir = tempdir().unwrap();
    let data = dir.path().join("node");
    let node = pressure::narrow(&data);
    let bad = Arc::new(AtomicBool::new(false));
    let target = target(Arc::clone(&bad));
    let prometheus = Prometheus::start(dir.path(), target, &node);
    until("samples arrive", || {
        stored(&node, "demo_scrapes_total").len() >= 3
    });

    // 400: a series that is refused for good comes with good ones, which go on arriving.
    bad.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(2));
    let before = stored(&node, "demo_scrapes_total").len();
    until("good samples pass the bad ones", || {
        stored(&node, "demo_scrapes_total").len() >= before + 2
    });
    assert!(stored(&node, "demo_bad").is_empty());
    bad.store(false, Ordering::Relaxed);

    // 503: nothing is taken for a while, then the node is killed and comes back with room.
    pressure::fill(&node);
    std::thread::sleep(Duration::from_secs(3));
    let ports = Ports::of(&node);
    node.kill();
    let node = pressure::wide(&data, &ports);
    let scraped = prometheus.samples("demo_scrapes_total");
    for metric in ["demo_scrapes_total", "demo_wave", "up"] {
        let scraped = prometheus.samples(metric);
        assert!(scraped.len() > 5, "{metric}: {scraped:?}");
        until("what was scraped arrives", || {
            let stored = stored(&node, metric);
            scraped
                .iter()
                .all(|(ms, value)| stored.get(ms) == Some(value))
        });
    }
    until("new samples arrive", || {
        stored(&node, "demo_scrapes_total").len() > scraped.len() + 2
    });
}
