//! What does a question about spans cost over gRPC, asked of a running node: a trace by id, the newest of a
//! user, errors of a service, who fails below whom, percentiles, the dependency graph, counts?
//!
//! The node holds a data set of the load generator; its `truth.json` names services, users and traces.
//! Each question is asked with many different ones, once each, as users do; the first of each kind is told
//! apart, percentiles are by nearest rank. `no-op` asks for figures that no store is needed for: what a call
//! costs by itself.
//!
//! ```console
//! cargo bench -p rootline-benches --bench grpc_span_queries -- --endpoint http://127.0.0.1:4317 --data DIR [--runs 200]
//! ```

use std::{path::Path, time::Duration};

use rootline::client::{Client, ClientError, v1};
use rootline_engine::{Clock, SystemClock};
use serde_json::Value;

/// Questions of each kind.
const RUNS_DEFAULT: usize = 200;
/// After so long a kind is not asked further, but for three runs.
const REPEAT_FOR: Duration = Duration::from_secs(10);
const RUNS_MIN: usize = 3;

enum Ask {
    Nothing,
    Trace(String),
    Missing(String),
    Find(String, u32),
    Aggregate(String, v1::aggregate_spans_request::Of, Vec<String>),
    Dependencies,
    Services,
    Operations(String),
    Tags,
    Values(String),
}

/// How many items came back: spans, traces, groups, edges, names.
async fn ask(client: &Client, what: &Ask) -> Result<usize, ClientError> {
    Ok(match what {
        Ask::Nothing => {
            // Nothing starts at the beginning of time.
            let request = v1::ListOperationsRequest {
                service: "no such service".to_owned(),
                range: Some(v1::TimeRange {
                    start_ns: Some(0),
                    end_ns: Some(1),
                }),
            };
            client.list_operations(request).await?.operations.len()
        }
        Ask::Trace(id) => client.trace(id).await?.rows.len(),
        Ask::Missing(id) => match client.trace(id).await {
            Err(ClientError::Status(_)) => 0,
            other => other?.rows.len(),
        },
        Ask::Find(set, limit) => {
            let request = v1::FindTracesRequest {
                span_set: set.clone(),
                limit: *limit,
                ..Default::default()
            };
            client.find_traces(request).await?.traces.len()
        }
        Ask::Aggregate(set, of, by) => {
            let request = v1::AggregateSpansRequest {
                span_set: set.clone(),
                of: (*of).into(),
                by: by.clone(),
                ..Default::default()
            };
            client.aggregate_spans(request).await?.groups.len()
        }
        Ask::Dependencies => {
            let request = v1::GetDependenciesRequest::default();
            client.dependencies(request).await?.dependencies.len()
        }
        Ask::Services => {
            let request = v1::ListServicesRequest::default();
            client.list_services(request).await?.services.len()
        }
        Ask::Operations(service) => {
            let request = v1::ListOperationsRequest {
                service: service.clone(),
                ..Default::default()
            };
            client.list_operations(request).await?.operations.len()
        }
        Ask::Tags => {
            let request = v1::ListTagsRequest::default();
            client.list_tags(request).await?.tags.len()
        }
        Ask::Values(key) => {
            let request = v1::ListTagValuesRequest {
                key: key.clone(),
                limit: 100,
                ..Default::default()
            };
            client.list_tag_values(request).await?.0.len()
        }
    })
}

/// The questions, kind by kind.
fn questions(truth: &Value) -> Vec<(&'static str, Vec<Ask>)> {
    use v1::aggregate_spans_request::Of;
    let items = |key: &str| truth[key].as_array().cloned().unwrap_or_default();
    let of_class = |class: &str| -> Vec<Value> {
        let all = items("predicates").into_iter();
        all.filter(|p| p["class"] == class).collect()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let find = |class: &str, set: &dyn Fn(&Value) -> String| -> Vec<Ask> {
        let asked = of_class(class).into_iter();
        asked.map(|p| Ask::Find(set(&p), 20)).collect()
    };
    let count = |class: &str, set: &dyn Fn(&Value) -> String| -> Vec<Ask> {
        let asked = of_class(class).into_iter();
        asked
            .map(|p| Ask::Aggregate(set(&p), Of::Nothing, Vec::new()))
            .collect()
    };
    let user = |p: &Value| format!("{{user.id={}}}", p["user_id"]);
    let failing = |p: &Value| format!("{{service={} status=error}}", p["service"]);
    // Ids that no generator gives out: random ones with another first byte.
    let missing =
        (1..=200u64).map(|i| Ask::Missing(format!("{:032x}", u128::from(i) << 64 | 0xabc)));
    let traces = items("sampled");
    let traces = traces.iter().map(|t| Ask::Trace(text(&t["trace_id"])));
    let services = items("services");
    vec![
        ("no-op", (0..200).map(|_| Ask::Nothing).collect()),
        ("trace_by_id", traces.collect()),
        ("trace_missing", missing.collect()),
        ("user_newest_20", find("user", &user)),
        ("service_error_newest_20", find("error", &failing)),
        (
            "service_operation_newest_20",
            find("service_op", &|p| {
                format!("{{service={} name={}}}", p["service"], p["operation"])
            }),
        ),
        (
            "service_500_newest_20",
            find("http500", &|p| {
                format!("{{service={} http.status_code=500}}", p["service"])
            }),
        ),
        (
            "service_duration_newest_20",
            find("duration", &|p| {
                format!(
                    "{{service={} duration > {}us}}",
                    p["service"], p["min_duration_us"]
                )
            }),
        ),
        (
            "failing_descendant_newest_20",
            find("descendant", &|p| {
                format!(
                    "{{service={}}} with descendant {}",
                    p["ancestor"],
                    failing(p)
                )
            }),
        ),
        (
            "failing_child_newest_20",
            find("child", &|p| {
                format!("{{service={}}} with child {}", p["ancestor"], failing(p))
            }),
        ),
        (
            "failing_descendant_count",
            count("descendant", &|p| {
                format!("{} with ancestor {{service={}}}", failing(p), p["ancestor"])
            }),
        ),
        (
            "all_errors_newest_1000",
            vec![Ask::Find("{status=error}".to_owned(), 1000)],
        ),
        (
            "count_errors",
            vec![Ask::Aggregate(
                "{status=error}".to_owned(),
                Of::Nothing,
                Vec::new(),
            )],
        ),
        ("count_service_errors", count("error", &failing)),
        ("count_of_user", count("user", &user)),
        (
            "p95_of_service",
            services
                .iter()
                .map(|s| {
                    let set = format!("{{service={} kind=server}}", s["name"]);
                    Ask::Aggregate(set, Of::Duration, Vec::new())
                })
                .collect(),
        ),
        (
            "p95_by_service",
            vec![Ask::Aggregate(
                String::new(),
                Of::Duration,
                vec!["service".to_owned()],
            )],
        ),
        ("dependencies", vec![Ask::Dependencies]),
        ("services", vec![Ask::Services]),
        (
            "operations",
            services
                .iter()
                .map(|s| Ask::Operations(text(&s["name"])))
                .collect(),
        ),
        ("tags", vec![Ask::Tags]),
        (
            "tag_values",
            ["http.route", "user.id", "http.status_code", "db.statement"]
                .map(|key| Ask::Values(key.to_owned()))
                .into_iter()
                .collect(),
        ),
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

async fn measure(
    endpoint: &str,
    data: &Path,
    runs: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let truth = serde_json::from_slice(&std::fs::read(data.join("truth.json"))?)?;
    let client = Client::connect(endpoint).await?;
    let clock = SystemClock::new();
    println!(
        "{:<30} {:>6} {:>10} {:>9} {:>9} {:>9}",
        "question", "asked", "items", "first ms", "p50 ms", "p95 ms"
    );
    for (name, questions) in questions(&truth) {
        let Some(first_question) = questions.first() else {
            continue;
        };
        let began = clock.monotonic();
        ask(&client, first_question).await?;
        let first = clock.monotonic().saturating_sub(began);
        let (mut times, mut items, begun) = (Vec::new(), 0, clock.monotonic());
        for what in questions.iter().cycle().take(runs) {
            if times.len() >= RUNS_MIN && clock.monotonic().saturating_sub(begun) >= REPEAT_FOR {
                break;
            }
            let began = clock.monotonic();
            items += ask(&client, what).await?;
            times.push(clock.monotonic().saturating_sub(began));
        }
        times.sort();
        println!(
            "{name:<30} {:>6} {:>10} {:>9.2} {:>9.2} {:>9.2}",
            times.len(),
            items,
            ms(first),
            rank(&times, 50),
            rank(&times, 95)
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut endpoint, mut data, mut runs) = (None, None, RUNS_DEFAULT);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--endpoint" => endpoint = args.next(),
            "--data" => data = args.next(),
            "--runs" => runs = args.next().unwrap_or_default().parse()?,
            // What cargo itself passes on.
            "--bench" | "--test" => {}
            other => {
                let known = "--endpoint URL, --data DIR, --runs N";
                return Err(format!("{other:?} is none of {known}").into());
            }
        }
    }
    let (Some(endpoint), Some(data)) = (endpoint, data) else {
        println!("asks a running node: pass -- --endpoint http://127.0.0.1:4317 --data DIR");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(&endpoint, Path::new(&data), runs))
}
