//! `rootline.v1.Traces`.

use std::{collections::HashMap, sync::Arc};

use prost::Message as _;
use rootline_engine::{
    Error as EngineError, Resource, Scope, TimeRange, Trace, TraceId, TraceSummary,
};
use rootline_query::{
    FOUND_TRACES_MAX, FoundTrace, GroupSpansBy, SpanSet, ToSpanSet as _, TraceTree, duration_stats,
    find_traces,
};
use tonic::{Request, Response, Status};

use super::{
    dependencies,
    metrics::statistics,
    query::{Answers, MESSAGE_BYTES, Queries, Query, Sender},
    request, span_message, spans, v1,
};
use crate::refusal::{Refusal, RefusalKind};

/// Traces of a page where the request does not say.
const FOUND_TRACES_DEFAULT: usize = 20;
/// What a decoded span costs, attributes of common size included.
const SPAN_BYTES: u64 = 1024;

const TREE_METHOD: &str = "all spans stored; own time: duration less the union of the children, clipped to \
                           the span; inclusive time of a service: union of its spans";
const FIND_METHOD: &str = "all spans in the range; newest first by (trace start, trace id)";
const DURATIONS_METHOD: &str = "durations of all spans that meet the conditions; quantiles by selection with \
                                linear interpolation; standard deviation of the population";

#[derive(Debug)]
pub(super) struct TracesService {
    queries: Queries,
}

impl TracesService {
    pub(super) fn new(queries: Queries) -> Self {
        Self { queries }
    }
}

#[tonic::async_trait]
impl v1::traces_server::Traces for TracesService {
    type GetTraceStream = Answers<v1::GetTraceResponse>;

    async fn get_trace(
        &self,
        request: Request<v1::GetTraceRequest>,
    ) -> Result<Response<Self::GetTraceStream>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let id = request::trace_id(&asked.trace_id)?;
        let answer = move |query: &mut Query, sender: &Sender<_>| {
            let trace = query.snapshot.trace(id, &query.control)?;
            let trace = trace.ok_or_else(|| missing(query, id))?;
            query.memory.take(trace.spans.len() as u64 * SPAN_BYTES)?;
            let summary = query.snapshot.trace_summary(id, &query.control)?;
            let summary = summary.ok_or_else(|| missing(query, id))?;
            send_trace(query, &trace, &summary, sender)
        };
        self.queries.stream("get_trace", &metadata, answer).await
    }

    async fn find_traces(
        &self,
        request: Request<v1::FindTracesRequest>,
    ) -> Result<Response<v1::FindTracesResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let range = request::time_range(asked.range.as_ref())?;
        let limit = match asked.limit as usize {
            0 => FOUND_TRACES_DEFAULT,
            limit if limit <= FOUND_TRACES_MAX => limit,
            limit => {
                return Err(Status::invalid_argument(format!(
                    "limit {limit} is above {FOUND_TRACES_MAX}: ask for pages"
                )));
            }
        };
        let answer = move |query: &mut Query| {
            let set = asked_set(query, asked.conditions.as_ref(), &asked.span_set)?;
            let token = &asked.page_token;
            let (snapshot, control) = (&query.snapshot, &query.control);
            let memory = &mut query.memory;
            let found = find_traces(snapshot, &set, range, limit, token, control, memory)?;
            let mut info = request::span_info(query, range, FIND_METHOD);
            info.snapshot_lsn = found.lsn.0;
            info.truncated = found.next.is_some();
            if found.traces.is_empty() && token.is_empty() {
                request::where_spans_lie(query, &set, &mut info)?;
            }
            info.empty = found.traces.is_empty();
            Ok(v1::FindTracesResponse {
                traces: found.traces.iter().map(found_trace).collect(),
                next_page_token: found.next.unwrap_or_default(),
                info: Some(info),
            })
        };
        self.queries.unary("find_traces", &metadata, answer).await
    }

    async fn get_dependencies(
        &self,
        request: Request<v1::GetDependenciesRequest>,
    ) -> Result<Response<v1::GetDependenciesResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let answer = move |query: &mut Query| dependencies::graph(query, &asked);
        self.queries
            .unary("get_dependencies", &metadata, answer)
            .await
    }

    async fn compare_dependencies(
        &self,
        request: Request<v1::CompareDependenciesRequest>,
    ) -> Result<Response<v1::CompareDependenciesResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let answer = move |query: &mut Query| dependencies::compare(query, &asked);
        self.queries
            .unary("compare_dependencies", &metadata, answer)
            .await
    }

    type FindSpansStream = Answers<v1::FindSpansResponse>;

    async fn find_spans(
        &self,
        request: Request<v1::FindSpansRequest>,
    ) -> Result<Response<Self::FindSpansStream>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let range = request::time_range(asked.range.as_ref())?;
        let answer =
            move |query: &mut Query, sender: &Sender<_>| spans::find(query, &asked, range, sender);
        self.queries.stream("find_spans", &metadata, answer).await
    }

    async fn aggregate_spans(
        &self,
        request: Request<v1::AggregateSpansRequest>,
    ) -> Result<Response<v1::AggregateSpansResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let range = request::time_range(asked.range.as_ref())?;
        let answer = move |query: &mut Query| spans::aggregate(query, &asked, range);
        self.queries
            .unary("aggregate_spans", &metadata, answer)
            .await
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let range = request::time_range(asked.range.as_ref())?;
        let answer = move |query: &mut Query| spans::services(query, range);
        self.queries.unary("list_services", &metadata, answer).await
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let range = request::time_range(asked.range.as_ref())?;
        let answer = move |query: &mut Query| spans::operations(query, &asked.service, range);
        self.queries
            .unary("list_operations", &metadata, answer)
            .await
    }

    async fn list_tags(
        &self,
        request: Request<v1::ListTagsRequest>,
    ) -> Result<Response<v1::ListTagsResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let answer = move |query: &mut Query| spans::tags(query, &asked);
        self.queries.unary("list_tags", &metadata, answer).await
    }

    type ListTagValuesStream = Answers<v1::ListTagValuesResponse>;

    async fn list_tag_values(
        &self,
        request: Request<v1::ListTagValuesRequest>,
    ) -> Result<Response<Self::ListTagValuesStream>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let answer =
            move |query: &mut Query, sender: &Sender<_>| spans::tag_values(query, &asked, sender);
        self.queries
            .stream("list_tag_values", &metadata, answer)
            .await
    }

    async fn span_stats(
        &self,
        request: Request<v1::SpanStatsRequest>,
    ) -> Result<Response<v1::SpanStatsResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let range = request::time_range(asked.range.as_ref())?;
        let by = match v1::span_stats_request::By::try_from(asked.by) {
            Ok(v1::span_stats_request::By::Nothing) => GroupSpansBy::Nothing,
            Ok(v1::span_stats_request::By::Service) => GroupSpansBy::Service,
            Ok(v1::span_stats_request::By::Operation) => GroupSpansBy::Operation,
            Err(_) => {
                let by = asked.by;
                return Err(Status::invalid_argument(format!(
                    "grouping {by} is unknown here"
                )));
            }
        };
        let answer = move |query: &mut Query| {
            let conditions = asked_set(query, asked.conditions.as_ref(), "")?;
            let (snapshot, control) = (&query.snapshot, &query.control);
            let memory = &mut query.memory;
            let stats = duration_stats(snapshot, &conditions, range, by, control, memory)?;
            let mut info = request::span_info(query, range, DURATIONS_METHOD);
            if stats.groups.is_empty() {
                request::where_spans_lie(query, &conditions, &mut info)?;
            }
            let group = |group: rootline_query::DurationGroup| v1::SpanStatsGroup {
                service: group.service.unwrap_or_default(),
                operation: group.operation.unwrap_or_default(),
                errors: group.errors,
                duration_ns: Some(statistics(Some(&group.duration_ns))),
            };
            Ok(v1::SpanStatsResponse {
                groups: stats.groups.into_iter().map(group).collect(),
                info: Some(info),
            })
        };
        self.queries.unary("span_stats", &metadata, answer).await
    }
}

/// Why there is no trace: it is not stored, or what may hold it cannot be read.
fn missing(query: &Query, id: TraceId) -> Refusal {
    if query.snapshot.spans_are_whole(TimeRange::ALL) {
        return EngineError::TraceNotFound(id).into();
    }
    Refusal::new(
        RefusalKind::Corrupted,
        format!(
            "no span of trace {id} was found, and a block that may hold some could not be opened: \
             `rootline admin stats` names it"
        ),
    )
}

/// The spans asked for, in one of the two forms.
fn asked_set(
    query: &mut Query,
    conditions: Option<&v1::SpanConditions>,
    text: &str,
) -> Result<SpanSet, Refusal> {
    if text.is_empty() {
        let (control, memory) = (&query.control, &mut query.memory);
        let conditions = request::span_conditions(control, memory, conditions)?;
        return Ok(conditions.to_span_set()?.into_owned());
    }
    if conditions.is_some_and(|conditions| *conditions != v1::SpanConditions::default()) {
        return Err(Refusal::invalid("give conditions or span_set, not both"));
    }
    request::span_set(query, text)
}

/// Resources and scopes get their numbers when the first row needs them.
#[derive(Default)]
struct Numbers {
    resources: HashMap<*const Resource, u32>,
    scopes: HashMap<*const Scope, u32>,
}

fn send_trace(
    query: &mut Query,
    trace: &Trace,
    summary: &TraceSummary,
    sender: &Sender<v1::GetTraceResponse>,
) -> Result<(), Refusal> {
    let tree = TraceTree::of(trace, &query.control, &mut query.memory)?;
    let mut numbers = Numbers::default();
    let mut message = v1::GetTraceResponse {
        trace: Some(trace_summary(summary, 0)),
        ..Default::default()
    };
    let mut bytes = 0;
    for row in &tree.rows {
        query.control.check()?;
        let Some(span) = trace.spans.get(row.span) else {
            continue;
        };
        let next = u32::try_from(numbers.resources.len()).unwrap_or(u32::MAX);
        let resource = *numbers
            .resources
            .entry(Arc::as_ptr(&span.resource))
            .or_insert_with(|| {
                let resource = span_message::resource(&span.resource);
                bytes += resource.encoded_len();
                message.resources.push(resource);
                next
            });
        let next = u32::try_from(numbers.scopes.len()).unwrap_or(u32::MAX);
        let scope = *numbers
            .scopes
            .entry(Arc::as_ptr(&span.scope))
            .or_insert_with(|| {
                let scope = span_message::scope(&span.scope);
                bytes += scope.encoded_len();
                message.scopes.push(scope);
                next
            });
        let row = v1::SpanRow {
            span: Some(span_message::span(span)),
            resource,
            scope,
            service: span.service().to_owned(),
            depth: row.depth,
            parent_row: row.parent_row.map(|parent| parent as u64),
            offset_ns: row.offset_ns,
            duration_ns: row.duration_ns,
            own_ns: row.own_ns,
            descendants: row.descendants,
        };
        bytes += row.encoded_len();
        message.rows.push(row);
        if bytes >= MESSAGE_BYTES {
            sender.send(std::mem::take(&mut message))?;
            bytes = 0;
        }
    }
    message.services = tree
        .services
        .into_iter()
        .map(|time| v1::ServiceTime {
            service: time.service,
            spans: time.spans,
            errors: time.errors,
            own_ns: time.own_ns,
            inclusive_ns: time.inclusive_ns,
        })
        .collect();
    message.info = Some(request::span_info(query, TimeRange::ALL, TREE_METHOD));
    sender.send(message)
}

fn found_trace(found: &FoundTrace) -> v1::TraceSummary {
    trace_summary(&found.summary, found.matched_spans)
}

fn trace_summary(summary: &TraceSummary, matched_spans: u64) -> v1::TraceSummary {
    v1::TraceSummary {
        trace_id: summary.id.to_string(),
        start_ns: summary.start.as_nanos(),
        duration_ns: summary.end.as_nanos().abs_diff(summary.start.as_nanos()),
        spans: summary.spans,
        errors: summary.errors,
        root_service: summary.root_service.to_string(),
        root_name: summary.root_name.to_string(),
        matched_spans,
        services: summary
            .services
            .iter()
            .map(|part| v1::ServiceCount {
                service: part.service.to_string(),
                spans: part.spans,
                errors: part.errors,
            })
            .collect(),
        root_is_orphan: summary.root_is_orphan,
    }
}
