//! What the shop's services and databases measure: cumulative histograms of their operations with
//! exemplars, and a few gauges. The fault fills a connection pool and slows a database; processors
//! stay calm.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric::Data,
        number_data_point::Value,
    },
};

use super::{
    random::Random,
    shop::{DATABASES, SERVICES, SLOW_DATABASE, SLOW_SERVICE},
    traffic::{Operation, resource, scope, text},
};

/// Bounds of the duration histograms in seconds: OpenTelemetry's advice for HTTP servers.
const BOUNDS_S: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Connections in a service's pool.
const POOL_CONNECTIONS: i64 = 20;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    service: &'static str,
    database: Option<&'static str>,
    name: &'static str,
    failed: bool,
}

#[derive(Clone, Debug, Default)]
struct Durations {
    buckets: [u64; BOUNDS_S.len() + 1],
    sum_s: f64,
    count: u64,
    /// The slowest since the last report.
    slowest: Option<Exemplar>,
    slowest_s: f64,
}

/// Running totals since the shop opened.
#[derive(Debug)]
pub(super) struct Meters {
    opened_ns: u64,
    durations: BTreeMap<Key, Durations>,
    memory: BTreeMap<&'static str, f64>,
    /// Statements and their time since the last report, by database.
    statements: BTreeMap<&'static str, (f64, f64)>,
}

impl Meters {
    pub(super) fn new(opened_ns: u64) -> Self {
        Self {
            opened_ns,
            durations: BTreeMap::new(),
            memory: BTreeMap::new(),
            statements: BTreeMap::new(),
        }
    }

    /// Counts what happened.
    pub(super) fn record(&mut self, operations: &[Operation]) {
        for op in operations {
            let key = Key {
                service: op.service,
                database: op.database,
                name: op.name,
                failed: op.failed,
            };
            let durations = self.durations.entry(key).or_default();
            let bucket = BOUNDS_S.partition_point(|bound| *bound < op.seconds);
            if let Some(count) = durations.buckets.get_mut(bucket) {
                *count += 1;
            }
            durations.sum_s += op.seconds;
            durations.count += 1;
            if op.seconds > durations.slowest_s {
                durations.slowest_s = op.seconds;
                durations.slowest = Some(Exemplar {
                    time_unix_nano: op.end_ns,
                    trace_id: op.trace_id.clone(),
                    span_id: op.span_id.clone(),
                    value: Some(exemplar::Value::AsDouble(op.seconds)),
                    ..Exemplar::default()
                });
            }
            if let Some(database) = op.database {
                let (count, seconds) = self.statements.entry(database).or_default();
                *count += 1.0;
                *seconds += op.seconds;
            }
        }
    }

    /// All metrics at `now_ns` as one request, and how many data points are in it.
    pub(super) fn report(
        &mut self,
        random: &mut Random,
        now_ns: u64,
        slow: bool,
    ) -> (ExportMetricsServiceRequest, u64) {
        let services = SERVICES.iter().map(|service| {
            let metrics = vec![
                self.duration_histogram(service, now_ns, false),
                self.duration_histogram(service, now_ns, true),
                Self::cpu(service, random, now_ns),
                self.memory(service, random, now_ns),
                Self::connections(service, random, now_ns, slow),
            ];
            (*service, metrics.into_iter().flatten().collect())
        });
        let services: Vec<(&str, Vec<Metric>)> = services.collect();
        let databases: Vec<(&str, Vec<Metric>)> = DATABASES
            .iter()
            .map(|database| {
                let metrics = [
                    Self::cpu(database, random, now_ns),
                    self.statements(database, now_ns),
                ];
                (*database, metrics.into_iter().flatten().collect())
            })
            .collect();
        let mut points = 0;
        let resource_metrics = services
            .into_iter()
            .chain(databases)
            .map(|(service, metrics)| {
                points += metrics.iter().map(data_points).sum::<u64>();
                ResourceMetrics {
                    resource: Some(resource(service)),
                    scope_metrics: vec![ScopeMetrics {
                        scope: Some(scope()),
                        metrics,
                        ..ScopeMetrics::default()
                    }],
                    ..ResourceMetrics::default()
                }
            })
            .collect();
        (ExportMetricsServiceRequest { resource_metrics }, points)
    }

    fn duration_histogram(
        &mut self,
        service: &str,
        now_ns: u64,
        statements: bool,
    ) -> Option<Metric> {
        let opened_ns = self.opened_ns;
        let data_points: Vec<_> = self
            .durations
            .iter_mut()
            .filter(|(key, _)| key.service == service && key.database.is_some() == statements)
            .map(|(key, durations)| {
                durations.slowest_s = 0.0;
                let outcome = if key.failed { "error" } else { "ok" };
                let mut attributes = vec![text("operation", key.name), text("outcome", outcome)];
                if let Some(database) = key.database {
                    attributes.push(text("server.address", database));
                }
                HistogramDataPoint {
                    attributes,
                    start_time_unix_nano: opened_ns,
                    time_unix_nano: now_ns,
                    count: durations.count,
                    sum: Some(durations.sum_s),
                    bucket_counts: durations.buckets.to_vec(),
                    explicit_bounds: BOUNDS_S.to_vec(),
                    exemplars: durations.slowest.take().into_iter().collect(),
                    ..HistogramDataPoint::default()
                }
            })
            .collect();
        let (name, description) = if statements {
            ("db.client.operation.duration", "Duration of database calls")
        } else {
            ("rpc.server.duration", "Duration of requests served")
        };
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let data = Data::Histogram(Histogram {
            data_points,
            aggregation_temporality,
        });
        metric(name, "s", description, data)
    }

    fn cpu(service: &str, random: &mut Random, now_ns: u64) -> Option<Metric> {
        let usual = 0.12 + 0.03 * (service.len() % 5) as f64;
        let value = usual + 0.04 * (random.unit() - 0.5);
        gauge(
            "process.cpu.utilization",
            "1",
            "Share of one processor",
            now_ns,
            value,
        )
    }

    fn memory(
        &mut self,
        service: &'static str,
        random: &mut Random,
        now_ns: u64,
    ) -> Option<Metric> {
        let usual = 9e7 + 1.5e7 * (service.len() % 4) as f64;
        let value = self.memory.entry(service).or_insert(usual);
        *value = *value * 0.98 + usual * 0.02 + 4e5 * (random.unit() - 0.5);
        let value = value.round();
        gauge(
            "process.memory.usage",
            "By",
            "Resident memory",
            now_ns,
            value,
        )
    }

    fn connections(service: &str, random: &mut Random, now_ns: u64, slow: bool) -> Option<Metric> {
        let used = match service {
            SLOW_SERVICE if slow => POOL_CONNECTIONS - random.below(2).cast_signed(),
            "catalog" | "cart" | SLOW_SERVICE => 1 + random.below(4).cast_signed(),
            _ => return None,
        };
        let point = |state: &str, value| NumberDataPoint {
            attributes: vec![text("state", state)],
            time_unix_nano: now_ns,
            value: Some(Value::AsInt(value)),
            ..NumberDataPoint::default()
        };
        let data = Data::Sum(Sum {
            data_points: vec![point("used", used), point("idle", POOL_CONNECTIONS - used)],
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: false,
        });
        metric(
            "db.client.connection.count",
            "{connection}",
            "Connections of the pool",
            data,
        )
    }

    fn statements(&mut self, database: &'static str, now_ns: u64) -> Option<Metric> {
        let (count, seconds) = self.statements.remove(database)?;
        let name = "db.server.statement.duration.mean";
        gauge(
            name,
            "s",
            "Mean time of a statement since the last report",
            now_ns,
            seconds / count,
        )
    }
}

fn metric(name: &str, unit: &str, description: &str, data: Data) -> Option<Metric> {
    let metric = Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: description.to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    (data_points(&metric) > 0).then_some(metric)
}

fn gauge(name: &str, unit: &str, description: &str, now_ns: u64, value: f64) -> Option<Metric> {
    let point = NumberDataPoint {
        time_unix_nano: now_ns,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    metric(
        name,
        unit,
        description,
        Data::Gauge(Gauge {
            data_points: vec![point],
        }),
    )
}

fn data_points(metric: &Metric) -> u64 {
    let count = match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    };
    count as u64
}

/// The name under which the database's gauge is stored, for the commands the demo suggests.
pub(super) const STATEMENT_GAUGE: &str = "db_server_statement_duration_mean_seconds";
/// The label under which the slow database stands.
pub(super) const STATEMENT_GAUGE_SERVICE: &str = SLOW_DATABASE;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::traffic::traffic;

    #[test]
    fn totals_only_grow_and_every_point_has_a_time() {
        let mut random = Random::new(3);
        let mut meters = Meters::new(1);
        let mut last = 0;
        for step in 1..5 {
            let traffic = traffic(&mut random, step * 1_000, 1_000, 50, false);
            meters.record(&traffic.operations);
            let (request, points) = meters.report(&mut random, step * 10_000, false);
            assert!(points > 30);
            let total: u64 = request
                .resource_metrics
                .iter()
                .flat_map(|r| &r.scope_metrics)
                .flat_map(|s| &s.metrics)
                .filter_map(|m| match &m.data {
                    Some(Data::Histogram(h)) => Some(h),
                    _ => None,
                })
                .flat_map(|h| &h.data_points)
                .map(|p| {
                    assert_eq!(p.count, p.bucket_counts.iter().sum::<u64>());
                    assert_eq!(p.time_unix_nano, step * 10_000);
                    p.count
                })
                .sum();
            assert!(total > last);
            last = total;
        }
    }
}
