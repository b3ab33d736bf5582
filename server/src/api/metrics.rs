//! `rootline.v1.Metrics`.

use std::ops::ControlFlow;

use rootline_engine::{
    CardinalityBy, CardinalityItem, Exemplar, Labels, Metadata, MetricKind, SeriesSamples, SpanId,
    TimeRange, TraceId,
};
use rootline_query::{GroupSamplesBy, MetricStatsGroup, Selector, metric_stats};
use tonic::{Request, Response, Status};

use super::{
    query::{Answers, MESSAGE_BYTES, Queries, Query, Sender},
    request, v1,
};
use crate::refusal::Refusal;

/// Samples of a chunk. With 16 bytes a sample a chunk is about a message.
const CHUNK_SAMPLES_MAX: usize = 65_536;
/// Items of a message where the items are small.
const MESSAGE_ITEMS_MAX: usize = 4_096;
/// Entries of a cardinality answer where nothing is said.
const CARDINALITY_ENTRIES_DEFAULT: u32 = 20;
/// Entries of a cardinality answer at most.
const CARDINALITY_ENTRIES_MAX: u32 = 10_000;
/// What a label costs on the wire beside its text.
const LABEL_BYTES: usize = 8;
/// What a materialised string or label set costs beside its text.
const ITEM_BYTES: u64 = 48;

const STATS_METHOD: &str = "counts, sums and extremes of all samples; quantiles by selection with linear \
                            interpolation; standard deviation of the population; NaN values and \
                            staleness markers left out";

#[derive(Debug)]
pub(super) struct MetricsService {
    queries: Queries,
}

impl MetricsService {
    pub(super) fn new(queries: Queries) -> Self {
        Self { queries }
    }
}

#[tonic::async_trait]
impl v1::metrics_server::Metrics for MetricsService {
    type SelectStream = Answers<v1::SelectResponse>;
    type SeriesStream = Answers<v1::SeriesResponse>;
    type LabelValuesStream = Answers<v1::LabelValuesResponse>;
    type ExemplarsStream = Answers<v1::ExemplarsResponse>;
    type MetadataStream = Answers<v1::MetadataResponse>;
    type MetricStatsStream = Answers<v1::MetricStatsResponse>;

    async fn select(
        &self,
        request: Request<v1::SelectRequest>,
    ) -> Result<Response<Self::SelectStream>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let limit = asked.series_limit;
        let answer = move |query: &mut Query, sender: &Sender<_>| {
            let (selector, range) = narrow(query, asked.series.as_ref(), asked.range.as_ref())?;
            select(query, &selector, range, limit, sender)
        };
        self.queries.stream("select", &metadata, answer).await
    }

    async fn series(
        &self,
        request: Request<v1::SeriesRequest>,
    ) -> Result<Response<Self::SeriesStream>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let limit = asked.limit;
        let answer = move |query: &mut Query, sender: &Sender<_>| {
            let (selector, range) = narrow(query, asked.series.as_ref(), asked.range.as_ref())?;
            series(query, &selector, range, limit, sender)
        };
        self.queries.stream("series", &metadata, answer).await
    }

    async fn label_names(
        &self,
        request: Request<v1::LabelNamesRequest>,
    ) -> Result<Response<v1::LabelNamesResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let answer = move |query: &mut Query| {
            let (selector, range) = any(query, asked.series.as_ref(), asked.range.as_ref())?;
            // One more than asked for tells whether there is more.
            let limit = limit_of(asked.limit);
            let mut names = query.snapshot.label_names(
                selector.matchers(),
                range,
                limit.saturating_add(1),
                &query.control,
            )?;
            query
                .memory
                .take(names.iter().map(|n| n.len() as u64 + ITEM_BYTES).sum())?;
            let mut info = labels_info(query, range, &selector, names.is_empty())?;
            info.truncated = names.len() > limit;
            names.truncate(limit);
            Ok(v1::LabelNamesResponse {
                names,
                info: Some(info),
            })
        };
        self.queries.unary("label_names", &metadata, answer).await
    }

    async fn label_values(
        &self,
        request: Request<v1::LabelValuesRequest>,
    ) -> Result<Response<Self::LabelValuesStream>, Status> {
        let (metadata, _, asked) = request.into_parts();
        if asked.name.is_empty() {
            return Err(Status::invalid_argument("the label name is empty"));
        }
        let answer = move |query: &mut Query, sender: &Sender<_>| {
            let (selector, range) = any(query, asked.series.as_ref(), asked.range.as_ref())?;
            // One more than asked for tells whether there is more.
            let limit = limit_of(asked.limit);
            let mut values = query.snapshot.label_values(
                &asked.name,
                selector.matchers(),
                &asked.prefix,
                range,
                limit.saturating_add(1),
                &query.control,
            )?;
            query
                .memory
                .take(values.iter().map(|v| v.len() as u64 + ITEM_BYTES).sum())?;
            let mut info = labels_info(query, range, &selector, values.is_empty())?;
            info.truncated = values.len() > limit;
            values.truncate(limit);
            let mut message = v1::LabelValuesResponse::default();
            let mut bytes = 0;
            for value in values {
                bytes += value.len() + LABEL_BYTES;
                message.values.push(value);
                if bytes >= MESSAGE_BYTES {
                    sender.send(std::mem::take(&mut message))?;
                    bytes = 0;
                }
            }
            message.info = Some(info);
            sender.send(message)
        };
        self.queries.stream("label_values", &metadata, answer).await
    }

    async fn exemplars(
        &self,
        request: Request<v1::ExemplarsRequest>,
    ) -> Result<Response<Self::ExemplarsStream>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let answer = move |query: &mut Query, sender: &Sender<_>| {
            let (selector, range) = narrow(query, asked.series.as_ref(), asked.range.as_ref())?;
            let found = query
                .snapshot
                .exemplars(selector.matchers(), range, &query.control)?;
            let mut info = request::metric_info(query, range, "the exemplars stored");
            if found.is_empty() {
                request::where_samples_lie(query, selector.matchers(), &mut info)?;
            }
            let mut message = v1::ExemplarsResponse::default();
            let mut bytes = 0;
            for series in found {
                query.control.check()?;
                let exemplars: Vec<_> = series.exemplars.iter().map(exemplar).collect();
                bytes += series.labels.heap_bytes() + exemplars.len() * 128;
                message.series.push(v1::SeriesExemplars {
                    labels: request::labels(&series.labels),
                    exemplars,
                });
                if bytes >= MESSAGE_BYTES {
                    sender.send(std::mem::take(&mut message))?;
                    bytes = 0;
                }
            }
            message.info = Some(info);
            sender.send(message)
        };
        self.queries.stream("exemplars", &metadata, answer).await
    }

    async fn metadata(
        &self,
        request: Request<v1::MetadataRequest>,
    ) -> Result<Response<Self::MetadataStream>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let answer = move |query: &mut Query, sender: &Sender<_>| {
            let metric = (!asked.metric.is_empty()).then_some(asked.metric.as_str());
            let found = query.snapshot.metadata(metric)?;
            let mut info =
                request::metric_info(query, TimeRange::ALL, "the latest entry of each metric");
            info.empty = found.is_empty();
            let mut message = v1::MetadataResponse::default();
            let mut bytes = 0;
            for entry in found {
                query.control.check()?;
                bytes += entry.metric.len() + entry.unit.len() + entry.help.len() + LABEL_BYTES;
                message.metadata.push(metric_metadata(entry));
                if bytes >= MESSAGE_BYTES {
                    sender.send(std::mem::take(&mut message))?;
                    bytes = 0;
                }
            }
            message.info = Some(info);
            sender.send(message)
        };
        self.queries.stream("metadata", &metadata, answer).await
    }

    async fn cardinality(
        &self,
        request: Request<v1::CardinalityRequest>,
    ) -> Result<Response<v1::CardinalityResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        if asked.limit > CARDINALITY_ENTRIES_MAX {
            return Err(Status::invalid_argument(format!(
                "limit {} is above {CARDINALITY_ENTRIES_MAX}",
                asked.limit
            )));
        }
        let answer = move |query: &mut Query| cardinality(query, &asked);
        self.queries.unary("cardinality", &metadata, answer).await
    }

    async fn metric_stats(
        &self,
        request: Request<v1::MetricStatsRequest>,
    ) -> Result<Response<Self::MetricStatsStream>, Status> {
        let (metadata, _, asked) = request.into_parts();
        if asked.each_series && !asked.by.is_empty() {
            return Err(Status::invalid_argument(
                "each_series and by exclude each other",
            ));
        }
        let by = if asked.each_series {
            GroupSamplesBy::Series
        } else {
            GroupSamplesBy::Labels(request::group_labels(asked.by)?)
        };
        let answer = move |query: &mut Query, sender: &Sender<_>| {
            let (selector, range) = narrow(query, asked.series.as_ref(), asked.range.as_ref())?;
            stats(query, &selector, range, &by, sender)
        };
        self.queries.stream("metric_stats", &metadata, answer).await
    }
}

/// Where 0 means no limit.
fn limit_of(limit: u64) -> usize {
    match usize::try_from(limit) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit,
    }
}

/// A selector that has to name something, and the range.
fn narrow(
    query: &mut Query,
    series: Option<&v1::SeriesSelector>,
    range: Option<&v1::TimeRange>,
) -> Result<(Selector, TimeRange), Refusal> {
    let (selector, range) = any(query, series, range)?;
    selector.narrow()?;
    Ok((selector, range))
}

/// A selector that may select everything, and the range.
fn any(
    query: &mut Query,
    series: Option<&v1::SeriesSelector>,
    range: Option<&v1::TimeRange>,
) -> Result<(Selector, TimeRange), Refusal> {
    let range = request::time_range(range)?;
    Ok((
        request::selector(&query.control, &mut query.memory, series)?,
        range,
    ))
}

fn labels_info(
    query: &Query,
    range: TimeRange,
    selector: &Selector,
    empty: bool,
) -> Result<v1::AnswerInfo, Refusal> {
    let mut info = request::metric_info(
        query,
        range,
        "labels of the series with a sample in the range",
    );
    if empty {
        request::where_samples_lie(query, selector.matchers(), &mut info)?;
    }
    Ok(info)
}

fn cardinality(
    query: &mut Query,
    asked: &v1::CardinalityRequest,
) -> Result<v1::CardinalityResponse, Refusal> {
    use v1::cardinality_request::By;
    let by = match By::try_from(asked.by) {
        Ok(By::Name) if asked.label.is_empty() => CardinalityBy::Label("__name__"),
        Ok(By::Name) => CardinalityBy::Label(&asked.label),
        _ if !asked.label.is_empty() => {
            return Err(Refusal::invalid("a label goes with BY_NAME alone"));
        }
        Ok(By::Label) => CardinalityBy::Name,
        Ok(By::Pair) => CardinalityBy::Pair,
        Err(_) => {
            let number = asked.by;
            return Err(Refusal::invalid(format!("by {number} is unknown here")));
        }
    };
    let limit = match asked.limit {
        0 => CARDINALITY_ENTRIES_DEFAULT,
        limit => limit,
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // One more than asked for tells whether there is more.
    let found = query
        .snapshot
        .cardinality(by, limit.saturating_add(1), &query.control)?;
    let bytes = found
        .items
        .iter()
        .map(|item| (item.name.len() + item.value.len()) as u64 + ITEM_BYTES);
    query.memory.take(bytes.sum())?;
    let mut info = request::metric_info(query, TimeRange::ALL, "counts of the indexes");
    info.exact &= found.exact;
    info.truncated = found.items.len() > limit;
    info.empty = found.items.is_empty();
    let entry = |item: CardinalityItem| v1::CardinalityEntry {
        name: item.name,
        value: item.value,
        series: item.series,
        bytes: item.bytes,
        values: item.values,
    };
    Ok(v1::CardinalityResponse {
        entries: found.items.into_iter().take(limit).map(entry).collect(),
        series: found.series,
        info: Some(info),
    })
}

fn select(
    query: &mut Query,
    selector: &Selector,
    range: TimeRange,
    limit: u64,
    sender: &Sender<v1::SelectResponse>,
) -> Result<(), Refusal> {
    let mut message = v1::SelectResponse::default();
    let mut bytes = 0;
    let mut found = 0u64;
    let mut info = request::metric_info(query, range, "the samples stored");
    let mut truncated = false;
    let mut failed: Option<Refusal> = None;
    let mut canonical = Vec::new();
    let mut add = |series: &SeriesSamples<'_>| {
        let series_ref = series_ref(series.labels, &mut canonical);
        let chunks = series
            .timestamps
            .chunks(CHUNK_SAMPLES_MAX)
            .zip(series.values.chunks(CHUNK_SAMPLES_MAX));
        for (i, (times, values)) in chunks.enumerate() {
            let labels = if i == 0 {
                request::labels(series.labels)
            } else {
                Vec::new()
            };
            bytes += times.len() * 16 + labels.len() * LABEL_BYTES;
            bytes += labels
                .iter()
                .map(|l| l.name.len() + l.value.len())
                .sum::<usize>();
            message.chunks.push(v1::SeriesChunk {
                series_ref,
                labels,
                times_ns: times.to_vec(),
                values: values.to_vec(),
            });
            if bytes >= MESSAGE_BYTES {
                sender.send(std::mem::take(&mut message))?;
                bytes = 0;
            }
        }
        Ok(())
    };
    query
        .snapshot
        .select(selector.matchers(), range, &query.control, &mut |series| {
            if limit > 0 && found == limit {
                truncated = true;
                return Ok(ControlFlow::Break(()));
            }
            found += 1;
            Ok(match add(&series) {
                Ok(()) => ControlFlow::Continue(()),
                Err(refusal) => {
                    failed = Some(refusal);
                    ControlFlow::Break(())
                }
            })
        })?;
    if let Some(refusal) = failed {
        return Err(refusal);
    }
    info.truncated = truncated;
    if found == 0 {
        request::where_samples_lie(query, selector.matchers(), &mut info)?;
    }
    message.info = Some(info);
    sender.send(message)
}

/// A number for a series that is the same in every answer, before and after a restart: a hash of its
/// labels in their canonical form, for which `canonical` is room. The labels are what tells series
/// apart; two of them may share the number.
fn series_ref(labels: &Labels, canonical: &mut Vec<u8>) -> u64 {
    canonical.clear();
    labels.encode_canonical(canonical);
    xxhash_rust::xxh3::xxh3_64(canonical)
}

fn series(
    query: &mut Query,
    selector: &Selector,
    range: TimeRange,
    limit: u64,
    sender: &Sender<v1::SeriesResponse>,
) -> Result<(), Refusal> {
    let mut found = query
        .snapshot
        .series(selector.matchers(), range, &query.control)?;
    query.memory.take(
        found
            .iter()
            .map(|l| l.heap_bytes() as u64 + ITEM_BYTES)
            .sum(),
    )?;
    let mut info = labels_info(query, range, selector, found.is_empty())?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit > 0 && found.len() > limit {
        info.truncated = true;
        found.truncate(limit);
    }
    let mut message = v1::SeriesResponse::default();
    let mut bytes = 0;
    let mut canonical = Vec::new();
    for labels in found {
        query.control.check()?;
        bytes += labels.heap_bytes() + labels.len() * LABEL_BYTES;
        message.series.push(v1::SeriesLabels {
            series_ref: series_ref(&labels, &mut canonical),
            labels: request::labels(&labels),
        });
        if bytes >= MESSAGE_BYTES {
            sender.send(std::mem::take(&mut message))?;
            bytes = 0;
        }
    }
    message.info = Some(info);
    sender.send(message)
}

fn stats(
    query: &mut Query,
    selector: &Selector,
    range: TimeRange,
    by: &GroupSamplesBy,
    sender: &Sender<v1::MetricStatsResponse>,
) -> Result<(), Refusal> {
    let mut info = request::metric_info(query, range, STATS_METHOD);
    let mut message = v1::MetricStatsResponse::default();
    let mut failed: Option<Refusal> = None;
    let outcome = metric_stats(
        &query.snapshot,
        selector.matchers(),
        range,
        by,
        &query.control,
        &mut query.memory,
        &mut |group| {
            message.groups.push(stats_group(&group));
            if message.groups.len() >= MESSAGE_ITEMS_MAX
                && let Err(refusal) = sender.send(std::mem::take(&mut message))
            {
                failed = Some(refusal);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    if let Some(refusal) = failed {
        return Err(refusal);
    }
    if outcome.groups == 0 {
        request::where_samples_lie(query, selector.matchers(), &mut info)?;
    }
    message.info = Some(info);
    sender.send(message)
}

fn stats_group(group: &MetricStatsGroup) -> v1::MetricStatsGroup {
    v1::MetricStatsGroup {
        labels: request::labels(&group.labels),
        series: group.series,
        first_ns: group.times.map(|(first, _)| first.as_nanos()),
        last_ns: group.times.map(|(_, last)| last.as_nanos()),
        statistics: Some(statistics(group.statistics.as_ref())),
        nan_samples: group.nan_samples,
        stale_samples: group.stale_samples,
    }
}

/// Figures as a message.
pub(super) fn statistics(of: Option<&rootline_query::Statistics>) -> v1::Statistics {
    v1::Statistics {
        count: of.map_or(0, |s| s.count),
        sum: of.map(|s| s.sum),
        min: of.map(|s| s.min),
        max: of.map(|s| s.max),
        mean: of.map(|s| s.mean),
        stddev: of.map(|s| s.stddev),
        p50: of.map(|s| s.p50),
        p95: of.map(|s| s.p95),
        p99: of.map(|s| s.p99),
    }
}

fn exemplar(exemplar: &Exemplar) -> v1::Exemplar {
    v1::Exemplar {
        time_ns: exemplar.time.as_nanos(),
        value: exemplar.value,
        trace_id: exemplar
            .trace_id
            .as_ref()
            .map(TraceId::to_string)
            .unwrap_or_default(),
        span_id: exemplar
            .span_id
            .as_ref()
            .map(SpanId::to_string)
            .unwrap_or_default(),
        labels: request::labels(&exemplar.labels),
    }
}

fn metric_metadata(entry: Metadata) -> v1::MetricMetadata {
    use v1::metric_metadata::Kind;
    let kind = match entry.kind {
        MetricKind::Counter => Kind::Counter,
        MetricKind::Gauge => Kind::Gauge,
        MetricKind::Histogram => Kind::Histogram,
        MetricKind::GaugeHistogram => Kind::GaugeHistogram,
        MetricKind::Summary => Kind::Summary,
        MetricKind::Info => Kind::Info,
        MetricKind::StateSet => Kind::StateSet,
        _ => Kind::Unknown,
    };
    v1::MetricMetadata {
        metric: entry.metric,
        kind: kind.into(),
        unit: entry.unit,
        help: entry.help,
    }
}
