//! A client of `rootline.v1` in Rust.
//!
//! Requests and single messages are those generated from the protos ([`v1`]); answers that come as
//! streams are also offered whole. The protos say what every field means and in which unit.
//!
//! ```no_run
//! use rootline::client::{Client, v1};
//!
//! # async fn run() -> Result<(), rootline::client::ClientError> {
//! let client = Client::connect("http://127.0.0.1:4317").await?;
//!
//! // Store a sample.
//! let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
//! let series = v1::SeriesWrite {
//!     labels: vec![label("__name__", "queue_length"), label("queue", "mail")],
//!     times_ns: vec![1_700_000_000_000_000_000],
//!     values: vec![12.0],
//!     exemplars: vec![],
//! };
//! let stored = client.write(v1::WriteRequest { series: vec![series], ..Default::default() }).await?;
//! assert_eq!((stored.stored_samples, stored.first_rejection.as_str()), (1, ""));
//!
//! // Read it back.
//! let selected = client
//!     .select(v1::SelectRequest {
//!         series: Some(v1::SeriesSelector { selector: "queue_length".into(), matchers: vec![] }),
//!         ..Default::default()
//!     })
//!     .await?;
//! for series in &selected.series {
//!     println!("{:?}: {:?} at {:?}", series.labels, series.values, series.times_ns);
//! }
//!
//! // Which traces failed lately, and where did the newest spend its time?
//! let conditions = v1::SpanConditions {
//!     status: Some(v1::StatusCode::Error.into()),
//!     ..Default::default()
//! };
//! let found = client
//!     .find_traces(v1::FindTracesRequest { conditions: Some(conditions), ..Default::default() })
//!     .await?;
//! if let Some(newest) = found.traces.first() {
//!     for service in client.trace(&newest.trace_id).await?.services {
//!         println!("{}: {} ns of its own", service.service, service.own_ns);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use tonic::{
    Code, IntoRequest, Request, Status, Streaming,
    transport::{Channel, Endpoint},
};

pub use crate::api::v1;
use crate::api::{
    ANSWER_BYTES_MAX,
    v1::{
        admin_client::AdminClient, metrics_client::MetricsClient, traces_client::TracesClient,
        write_client::WriteClient,
    },
};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What can go wrong between a client and its node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The endpoint is no URL.
    #[error("{endpoint:?} is not an endpoint such as http://127.0.0.1:4317: {reason}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there.
    #[error("no node answers at {endpoint}: {reason}")]
    Connect {
        /// Where.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The node refused, or the connection broke.
    #[error("{}: {}", code_name(.0.code()), .0.message())]
    Status(Box<Status>),
    /// A stream ended before its last message.
    #[error("the node's answer is not whole: its stream ended early")]
    Incomplete,
}

impl ClientError {
    /// The gRPC code, if the node (or the connection) gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Status(status) => Some(status.code()),
            _ => None,
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// A connection to one node. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    timeout: Option<Duration>,
}

/// The answer to [`Client::select`], whole.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    /// In order of labels.
    pub series: Vec<SelectedSeries>,
    /// What it is based on.
    pub info: v1::AnswerInfo,
}

/// Samples of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SelectedSeries {
    /// The store's number of the series.
    pub series_ref: u64,
    /// Sorted by name.
    pub labels: Vec<v1::Label>,
    /// Nanoseconds since the epoch, rising.
    pub times_ns: Vec<i64>,
    /// One for each time.
    pub values: Vec<f64>,
}

/// The answer to [`Client::trace`], whole.
#[derive(Clone, Debug, Default)]
pub struct TraceAnswer {
    /// The trace in one line.
    pub summary: v1::TraceSummary,
    /// What [`v1::SpanRow::resource`] counts over.
    pub resources: Vec<v1::Resource>,
    /// What [`v1::SpanRow::scope`] counts over.
    pub scopes: Vec<v1::Scope>,
    /// In depth-first preorder.
    pub rows: Vec<v1::SpanRow>,
    /// By own time, the largest first.
    pub services: Vec<v1::ServiceTime>,
    /// What it is based on.
    pub info: v1::AnswerInfo,
}

impl Client {
    /// Connects to a node's gRPC port, such as `http://127.0.0.1:4317`; `127.0.0.1:4317` is the same.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`], [`ClientError::Connect`].
    pub async fn connect(endpoint: &str) -> Result<Self, ClientError> {
        let bad = |reason: String| ClientError::Endpoint {
            endpoint: endpoint.to_owned(),
            reason,
        };
        let url = if endpoint.contains("://") {
            endpoint.to_owned()
        } else {
            format!("http://{endpoint}")
        };
        let target = Endpoint::from_shared(url).map_err(|e| bad(innermost(&e)))?;
        if target.uri().scheme_str() != Some("http") || target.uri().host().is_none() {
            return Err(bad(
                "expected http:// and a host (TLS is not supported yet)".to_owned(),
            ));
        }
        let channel = target
            .connect_timeout(CONNECT_TIMEOUT)
            .connect()
            .await
            .map_err(|error| ClientError::Connect {
                endpoint: endpoint.to_owned(),
                reason: innermost(&error),
            })?;
        Ok(Self {
            channel,
            timeout: None,
        })
    }

    /// The same connection, with a deadline on every call, which the node honours.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }

    /// Stores a batch: durable and visible as a whole when this returns.
    ///
    /// # Errors
    /// With the code `UNAVAILABLE` nothing was stored and the same batch may be sent again.
    pub async fn write(&self, request: v1::WriteRequest) -> Result<v1::WriteResponse, ClientError> {
        let mut client = WriteClient::new(self.channel.clone());
        Ok(client.write(self.request(request)).await?.into_inner())
    }

    /// Samples of the selected series, whole. For more than memory should hold take
    /// [`select_stream`](Self::select_stream).
    ///
    /// # Errors
    /// [`ClientError::Status`], [`ClientError::Incomplete`].
    pub async fn select(&self, request: v1::SelectRequest) -> Result<Selected, ClientError> {
        let mut selected = Selected::default();
        let mut stream = self.select_stream(request).await?;
        while let Some(message) = stream.message().await? {
            for chunk in message.chunks {
                match selected.series.last_mut() {
                    Some(last)
                        if chunk.labels.is_empty() && last.series_ref == chunk.series_ref =>
                    {
                        last.times_ns.extend(chunk.times_ns);
                        last.values.extend(chunk.values);
                    }
                    _ => selected.series.push(SelectedSeries {
                        series_ref: chunk.series_ref,
                        labels: chunk.labels,
                        times_ns: chunk.times_ns,
                        values: chunk.values,
                    }),
                }
            }
            if let Some(info) = message.info {
                selected.info = info;
                return Ok(selected);
            }
        }
        Err(ClientError::Incomplete)
    }

    /// Samples of the selected series, as they come. The last message carries `info`.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn select_stream(
        &self,
        request: v1::SelectRequest,
    ) -> Result<Streaming<v1::SelectResponse>, ClientError> {
        Ok(self
            .metrics()
            .select(self.request(request))
            .await?
            .into_inner())
    }

    /// Label sets of the series with a sample in the range.
    ///
    /// # Errors
    /// [`ClientError::Status`], [`ClientError::Incomplete`].
    pub async fn series(
        &self,
        request: v1::SeriesRequest,
    ) -> Result<(Vec<v1::SeriesLabels>, v1::AnswerInfo), ClientError> {
        let stream = self
            .metrics()
            .series(self.request(request))
            .await?
            .into_inner();
        collect(stream, |message| (message.series, message.info)).await
    }

    /// Names of the labels of such series.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn label_names(
        &self,
        request: v1::LabelNamesRequest,
    ) -> Result<v1::LabelNamesResponse, ClientError> {
        Ok(self
            .metrics()
            .label_names(self.request(request))
            .await?
            .into_inner())
    }

    /// Values of one label of such series.
    ///
    /// # Errors
    /// [`ClientError::Status`], [`ClientError::Incomplete`].
    pub async fn label_values(
        &self,
        request: v1::LabelValuesRequest,
    ) -> Result<(Vec<String>, v1::AnswerInfo), ClientError> {
        let stream = self
            .metrics()
            .label_values(self.request(request))
            .await?
            .into_inner();
        collect(stream, |message| (message.values, message.info)).await
    }

    /// Exemplars of the selected series.
    ///
    /// # Errors
    /// [`ClientError::Status`], [`ClientError::Incomplete`].
    pub async fn exemplars(
        &self,
        request: v1::ExemplarsRequest,
    ) -> Result<(Vec<v1::SeriesExemplars>, v1::AnswerInfo), ClientError> {
        let stream = self
            .metrics()
            .exemplars(self.request(request))
            .await?
            .into_inner();
        collect(stream, |message| (message.series, message.info)).await
    }

    /// What metrics mean; all of them for an empty name.
    ///
    /// # Errors
    /// [`ClientError::Status`], [`ClientError::Incomplete`].
    pub async fn metadata(
        &self,
        metric: &str,
    ) -> Result<(Vec<v1::MetricMetadata>, v1::AnswerInfo), ClientError> {
        let request = v1::MetadataRequest {
            metric: metric.to_owned(),
        };
        let stream = self
            .metrics()
            .metadata(self.request(request))
            .await?
            .into_inner();
        collect(stream, |message| (message.metadata, message.info)).await
    }

    /// Statistics of samples.
    ///
    /// # Errors
    /// [`ClientError::Status`], [`ClientError::Incomplete`].
    pub async fn metric_stats(
        &self,
        request: v1::MetricStatsRequest,
    ) -> Result<(Vec<v1::MetricStatsGroup>, v1::AnswerInfo), ClientError> {
        let stream = self
            .metrics()
            .metric_stats(self.request(request))
            .await?
            .into_inner();
        collect(stream, |message| (message.groups, message.info)).await
    }

    /// A trace by the 32 hexadecimal digits of its id, whole.
    ///
    /// # Errors
    /// With the code `NOT_FOUND` no span of it is stored.
    pub async fn trace(&self, trace_id: &str) -> Result<TraceAnswer, ClientError> {
        let request = v1::GetTraceRequest {
            trace_id: trace_id.to_owned(),
        };
        let mut stream = self
            .traces()
            .get_trace(self.request(request))
            .await?
            .into_inner();
        let mut trace = TraceAnswer::default();
        while let Some(message) = stream.message().await? {
            trace.resources.extend(message.resources);
            trace.scopes.extend(message.scopes);
            trace.rows.extend(message.rows);
            trace.services.extend(message.services);
            if let Some(summary) = message.trace {
                trace.summary = summary;
            }
            if let Some(info) = message.info {
                trace.info = info;
                return Ok(trace);
            }
        }
        Err(ClientError::Incomplete)
    }

    /// A page of traces with a span that meets all conditions, newest first.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn find_traces(
        &self,
        request: v1::FindTracesRequest,
    ) -> Result<v1::FindTracesResponse, ClientError> {
        Ok(self
            .traces()
            .find_traces(self.request(request))
            .await?
            .into_inner())
    }

    /// Which service calls which.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn dependencies(
        &self,
        request: v1::GetDependenciesRequest,
    ) -> Result<v1::GetDependenciesResponse, ClientError> {
        Ok(self
            .traces()
            .get_dependencies(self.request(request))
            .await?
            .into_inner())
    }

    /// Statistics of span durations.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn span_stats(
        &self,
        request: v1::SpanStatsRequest,
    ) -> Result<v1::SpanStatsResponse, ClientError> {
        Ok(self
            .traces()
            .span_stats(self.request(request))
            .await?
            .into_inner())
    }

    /// Where series come from: by metric name, label or label value, the largest first.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn cardinality(
        &self,
        request: v1::CardinalityRequest,
    ) -> Result<v1::CardinalityResponse, ClientError> {
        Ok(self
            .metrics()
            .cardinality(self.request(request))
            .await?
            .into_inner())
    }

    /// Seals what is in memory into blocks; what was sealed.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn flush(&self) -> Result<v1::FlushResponse, ClientError> {
        Ok(self
            .admin()
            .flush(self.request(v1::FlushRequest {}))
            .await?
            .into_inner())
    }

    /// Merges blocks until nothing is left to merge; what was merged.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn compact(&self) -> Result<v1::CompactResponse, ClientError> {
        Ok(self
            .admin()
            .compact(self.request(v1::CompactRequest {}))
            .await?
            .into_inner())
    }

    /// Makes a copy of the store that shares its blocks, in a directory of this name on the node's
    /// machine.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn create_snapshot(
        &self,
        name: &str,
    ) -> Result<v1::CreateSnapshotResponse, ClientError> {
        let request = v1::CreateSnapshotRequest {
            name: name.to_owned(),
        };
        Ok(self
            .admin()
            .create_snapshot(self.request(request))
            .await?
            .into_inner())
    }

    /// What the node holds.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn stats(&self) -> Result<v1::StatsResponse, ClientError> {
        Ok(self
            .admin()
            .stats(self.request(v1::StatsRequest {}))
            .await?
            .into_inner())
    }

    /// Hides samples that are older than the delete; its sequence number.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn delete_series(
        &self,
        request: v1::DeleteSeriesRequest,
    ) -> Result<u64, ClientError> {
        Ok(self
            .admin()
            .delete_series(self.request(request))
            .await?
            .into_inner()
            .lsn)
    }

    /// Hides the spans of a trace that are older than the delete; its sequence number.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn delete_trace(&self, trace_id: &str) -> Result<u64, ClientError> {
        let request = v1::DeleteTraceRequest {
            trace_id: trace_id.to_owned(),
        };
        Ok(self
            .admin()
            .delete_trace(self.request(request))
            .await?
            .into_inner()
            .lsn)
    }

    /// What changed in the dependency graph between two ranges.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn compare_dependencies(
        &self,
        request: v1::CompareDependenciesRequest,
    ) -> Result<v1::CompareDependenciesResponse, ClientError> {
        Ok(self
            .traces()
            .compare_dependencies(self.request(request))
            .await?
            .into_inner())
    }

    /// Figures over the spans of a set, grouped.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn aggregate_spans(
        &self,
        request: v1::AggregateSpansRequest,
    ) -> Result<v1::AggregateSpansResponse, ClientError> {
        Ok(self
            .traces()
            .aggregate_spans(self.request(request))
            .await?
            .into_inner())
    }

    /// Services that have spans.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn list_services(
        &self,
        request: v1::ListServicesRequest,
    ) -> Result<v1::ListServicesResponse, ClientError> {
        Ok(self
            .traces()
            .list_services(self.request(request))
            .await?
            .into_inner())
    }

    /// Span names of a service.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn list_operations(
        &self,
        request: v1::ListOperationsRequest,
    ) -> Result<v1::ListOperationsResponse, ClientError> {
        Ok(self
            .traces()
            .list_operations(self.request(request))
            .await?
            .into_inner())
    }

    /// Attribute keys of spans.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn list_tags(
        &self,
        request: v1::ListTagsRequest,
    ) -> Result<v1::ListTagsResponse, ClientError> {
        Ok(self
            .traces()
            .list_tags(self.request(request))
            .await?
            .into_inner())
    }

    /// Values of an attribute key, whole.
    ///
    /// # Errors
    /// [`ClientError::Status`], [`ClientError::Incomplete`].
    pub async fn list_tag_values(
        &self,
        request: v1::ListTagValuesRequest,
    ) -> Result<(Vec<v1::TagValue>, v1::AnswerInfo), ClientError> {
        let mut stream = self
            .traces()
            .list_tag_values(self.request(request))
            .await?
            .into_inner();
        let mut values = Vec::new();
        while let Some(message) = stream.message().await? {
            values.extend(message.values);
            if let Some(info) = message.info {
                return Ok((values, info));
            }
        }
        Err(ClientError::Incomplete)
    }

    /// A page of the spans of a set, whole; `spans` of the answer holds all of them.
    ///
    /// # Errors
    /// [`ClientError::Status`], [`ClientError::Incomplete`].
    pub async fn find_spans(
        &self,
        request: v1::FindSpansRequest,
    ) -> Result<v1::FindSpansResponse, ClientError> {
        let mut stream = self.find_spans_stream(request).await?;
        let mut found = v1::FindSpansResponse::default();
        while let Some(message) = stream.message().await? {
            found.spans.extend(message.spans);
            if message.info.is_some() {
                found.info = message.info;
                found.next_page_token = message.next_page_token;
                return Ok(found);
            }
        }
        Err(ClientError::Incomplete)
    }

    /// The spans of a set, as they come. The last message carries `info`.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn find_spans_stream(
        &self,
        request: v1::FindSpansRequest,
    ) -> Result<tonic::Streaming<v1::FindSpansResponse>, ClientError> {
        let mut client = self.traces();
        Ok(client.find_spans(self.request(request)).await?.into_inner())
    }

    /// Hides the spans that meet all conditions; answers the sequence number of the delete.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn delete_spans(&self, request: v1::DeleteSpansRequest) -> Result<u64, ClientError> {
        let mut client = self.admin();
        let answer = client.delete_spans(self.request(request)).await?;
        Ok(answer.into_inner().lsn)
    }

    fn metrics(&self) -> MetricsClient<Channel> {
        MetricsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn traces(&self) -> TracesClient<Channel> {
        TracesClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = message.into_request();
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }
}

/// All items of a stream whose last message carries `info`.
async fn collect<M, T>(
    mut stream: Streaming<M>,
    parts: impl Fn(M) -> (Vec<T>, Option<v1::AnswerInfo>),
) -> Result<(Vec<T>, v1::AnswerInfo), ClientError> {
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        let (items, info) = parts(message);
        all.extend(items);
        if let Some(info) = info {
            return Ok((all, info));
        }
    }
    Err(ClientError::Incomplete)
}

/// What a chain of errors comes down to: "connection refused" rather than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
