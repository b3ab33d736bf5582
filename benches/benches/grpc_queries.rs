//! What does a question cost over gRPC, asked of a running node that holds the metrics workload: one series
//! for an hour and a day, its last value, statistics of a whole metric, labels and series?
//!
//! The data are the two sets that monitoring systems are compared on: hosts with 20 metrics each for a day
//! (label `hostname`), or many short series (label `pod`). The node is asked which of them it holds, and
//! where they end. Answers come whole to the client and are counted; the first run of each question is told
//! apart, p95 is by nearest rank.
//!
//! ```console
//! cargo bench -p rootline-benches --bench grpc_queries -- --endpoint http://127.0.0.1:4317 [--runs 50]
//! ```

use std::time::Duration;

use rootline::client::{Client, ClientError, v1};
use rootline_engine::{Clock, SystemClock};

/// Warm runs of a question.
const RUNS_DEFAULT: usize = 50;
/// After so long a question is not repeated further, but for three runs.
const REPEAT_FOR: Duration = Duration::from_secs(10);
const RUNS_MIN: usize = 3;

const S: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * S;
const HOUR: i64 = 60 * MINUTE;

/// What is asked.
enum Ask {
    Select(String, v1::TimeRange),
    Series(String, v1::TimeRange),
    Stats(String, v1::TimeRange, Vec<String>),
    LabelNames,
    LabelValues(&'static str),
}

/// How much came back.
#[derive(Clone, Copy, Default, PartialEq)]
struct Size {
    /// Series, groups, names or values.
    items: usize,
    /// Samples sent, or taken into figures.
    samples: u64,
}

/// The data set of a node.
struct Workload {
    /// The label that tells hosts or pods apart, and one of its values.
    label: &'static str,
    value: String,
    namespace: String,
    start_ns: i64,
    end_ns: i64,
}

#[expect(clippy::unnecessary_wraps, reason = "as the messages take it")]
fn selector(text: &str) -> Option<v1::SeriesSelector> {
    Some(v1::SeriesSelector {
        selector: text.to_owned(),
        matchers: vec![],
    })
}

async fn ask(client: &Client, what: &Ask) -> Result<Size, ClientError> {
    match what {
        Ask::Select(series, range) => {
            let request = v1::SelectRequest {
                series: selector(series),
                range: Some(*range),
                series_limit: 0,
            };
            let answer = client.select(request).await?;
            Ok(Size {
                items: answer.series.len(),
                samples: answer.series.iter().map(|s| s.values.len() as u64).sum(),
            })
        }
        Ask::Series(series, range) => {
            let request = v1::SeriesRequest {
                series: selector(series),
                range: Some(*range),
                limit: 0,
            };
            let (series, _) = client.series(request).await?;
            Ok(Size {
                items: series.len(),
                samples: 0,
            })
        }
        Ask::Stats(series, range, by) => {
            let request = v1::MetricStatsRequest {
                series: selector(series),
                range: Some(*range),
                by: by.clone(),
                each_series: false,
            };
            let (groups, _) = client.metric_stats(request).await?;
            let counts = groups.iter().filter_map(|g| g.statistics);
            Ok(Size {
                items: groups.len(),
                samples: counts.map(|s| s.count).sum(),
            })
        }
        Ask::LabelNames => {
            let answer = client.label_names(v1::LabelNamesRequest::default()).await?;
            Ok(Size {
                items: answer.names.len(),
                samples: 0,
            })
        }
        Ask::LabelValues(name) => {
            let request = v1::LabelValuesRequest {
                name: (*name).to_owned(),
                ..Default::default()
            };
            let (values, _) = client.label_values(request).await?;
            Ok(Size {
                items: values.len(),
                samples: 0,
            })
        }
    }
}

/// The middle one of the values that `label` has; empty if it has none.
async fn some_value(client: &Client, label: &str) -> Result<String, ClientError> {
    let request = v1::LabelValuesRequest {
        name: label.to_owned(),
        ..Default::default()
    };
    let (values, _) = client.label_values(request).await?;
    Ok(values.get(values.len() / 2).cloned().unwrap_or_default())
}

/// Asks the node what it holds.
async fn workload(client: &Client) -> Result<Option<Workload>, ClientError> {
    for (label, metric) in [("hostname", "cpu_usage_user"), ("pod", "hc_requests_total")] {
        let value = some_value(client, label).await?;
        // An empty answer says where the data lie: at 1970 there are none.
        let request = v1::SelectRequest {
            series: selector(&format!("{metric}{{{label}={value:?}}}")),
            range: Some(range(0, 1)),
            series_limit: 1,
        };
        let info = client.select(request).await?.info;
        if let (Some(start_ns), Some(end_ns)) = (info.data_start_ns, info.data_end_ns) {
            return Ok(Some(Workload {
                label,
                value,
                namespace: some_value(client, "namespace").await?,
                start_ns,
                end_ns,
            }));
        }
    }
    Ok(None)
}

fn range(start_ns: i64, end_ns: i64) -> v1::TimeRange {
    v1::TimeRange {
        start_ns: Some(start_ns),
        end_ns: Some(end_ns),
    }
}

fn of_hosts(data: &Workload) -> Vec<(&'static str, Ask)> {
    let host = &data.value;
    let last = |ns: i64| {
        range(
            data.end_ns.saturating_sub(ns).max(data.start_ns),
            data.end_ns,
        )
    };
    let day = last(24 * HOUR);
    let user = format!("cpu_usage_user{{hostname={host:?}}}");
    let latency = format!("request_latency_seconds{{hostname={host:?}}}");
    let region = || vec!["region".to_owned()];
    let even = "mem_used_bytes{hostname=~\"host_.*[02468]\",service!~\"5|6\"}";
    vec![
        ("one_series_1h", Ask::Select(user.clone(), last(HOUR))),
        ("one_series_24h", Ask::Select(user.clone(), day)),
        ("last_value", Ask::Select(user, last(5 * MINUTE))),
        (
            "host_5_metrics_12h",
            Ask::Select(
                format!("{{__name__=~\"cpu_usage_.*\",hostname={host:?}}}"),
                last(12 * HOUR),
            ),
        ),
        ("stats_one_series_24h", Ask::Stats(latency, day, vec![])),
        (
            "stats_by_region_6h",
            Ask::Stats("request_latency_seconds".into(), last(6 * HOUR), region()),
        ),
        (
            "stats_regex_hosts_1h",
            Ask::Stats(even.into(), last(HOUR), vec!["service".into()]),
        ),
        (
            "stats_metric_24h",
            Ask::Stats("cpu_usage_user".into(), day, vec![]),
        ),
        (
            "stats_latency_by_region_24h",
            Ask::Stats("request_latency_seconds".into(), day, region()),
        ),
        (
            "all_series",
            Ask::Series("{hostname!=\"\"}".into(), last(5 * MINUTE)),
        ),
        ("label_values_hostname", Ask::LabelValues("hostname")),
        ("label_names", Ask::LabelNames),
        (
            "series_of_host",
            Ask::Series(format!("{{hostname={host:?}}}"), day),
        ),
    ]
}

fn of_pods(data: &Workload) -> Vec<(&'static str, Ask)> {
    let (pod, namespace) = (&data.value, &data.namespace);
    let all = range(data.start_ns, data.end_ns);
    let now = range(data.end_ns.saturating_sub(5 * MINUTE), data.end_ns);
    let one = format!("hc_requests_total{{pod={pod:?}}}");
    let metric = || "hc_requests_total".to_owned();
    let of_pod = format!("{{pod={pod:?}}}");
    vec![
        ("one_series", Ask::Select(one, all)),
        ("one_pod_10_metrics", Ask::Select(of_pod.clone(), now)),
        ("series_of_metric", Ask::Series(metric(), now)),
        (
            "stats_by_namespace",
            Ask::Stats(metric(), now, vec!["namespace".into()]),
        ),
        (
            "stats_by_app_one_namespace",
            Ask::Stats(
                format!("hc_requests_total{{namespace={namespace:?}}}"),
                all,
                vec!["app".into()],
            ),
        ),
        (
            "regex_prefix",
            Ask::Series("hc_requests_total{pod=~\"app-12.*\"}".into(), now),
        ),
        (
            "regex_suffix",
            Ask::Series("hc_requests_total{pod=~\".*7f\"}".into(), now),
        ),
        (
            "all_series",
            Ask::Series("{job=\"kubernetes-pods\"}".into(), now),
        ),
        ("label_values_namespace", Ask::LabelValues("namespace")),
        ("label_values_pod", Ask::LabelValues("pod")),
        ("label_names", Ask::LabelNames),
        ("series_of_pod", Ask::Series(of_pod, all)),
    ]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The value at this share of sorted ones, by nearest rank.
fn rank(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().map_or(f64::NAN, ms)
}

async fn measure(endpoint: &str, runs: usize) -> Result<(), ClientError> {
    let client = Client::connect(endpoint).await?;
    let Some(data) = workload(&client).await? else {
        println!("{endpoint} holds neither of the data sets");
        return Ok(());
    };
    let questions = if data.label == "hostname" {
        of_hosts(&data)
    } else {
        of_pods(&data)
    };
    let clock = SystemClock::new();
    println!(
        "{:<28} {:>8} {:>10} {:>9} {:>9} {:>9}",
        "question", "items", "samples", "first ms", "p50 ms", "p95 ms"
    );
    for (name, what) in questions {
        let began = clock.monotonic();
        let size = ask(&client, &what).await?;
        let first = clock.monotonic().saturating_sub(began);
        let (mut times, begun) = (Vec::new(), clock.monotonic());
        while times.len() < runs
            && (times.len() < RUNS_MIN || clock.monotonic().saturating_sub(begun) < REPEAT_FOR)
        {
            let began = clock.monotonic();
            let again = ask(&client, &what).await?;
            times.push(clock.monotonic().saturating_sub(began));
            assert!(again == size, "{name}: answers differ in size");
        }
        times.sort();
        println!(
            "{name:<28} {:>8} {:>10} {:>9.2} {:>9.2} {:>9.2}",
            size.items,
            size.samples,
            ms(first),
            rank(&times, 50),
            rank(&times, 95)
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut endpoint, mut runs) = (None, RUNS_DEFAULT);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--endpoint" => endpoint = args.next(),
            "--runs" => runs = args.next().unwrap_or_default().parse()?,
            // What cargo itself passes on.
            "--bench" | "--test" => {}
            other => return Err(format!("{other:?} is neither --endpoint URL nor --runs N").into()),
        }
    }
    let Some(endpoint) = endpoint else {
        println!("asks a running node: pass -- --endpoint http://127.0.0.1:4317");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(&endpoint, runs))?;
    Ok(())
}
