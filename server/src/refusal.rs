//! One type for every "no" that the node says, and its form in each protocol.
//!
//! A refusal is *permanent* (the same request fails again: the sender drops it) or *transient*
//! (nothing of the request was stored; the sender comes back after the pause that it is told).
//! Only [`RefusalKind::is_transient`] decides which; a permanent refusal is never a status that
//! senders retry: no 5xx, no `UNAVAILABLE`, no `RESOURCE_EXHAUSTED` with `RetryInfo`.

use std::{borrow::Cow, time::Duration};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use prost::Message as _;
use rootline_engine::{Error, ErrorKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How long a sender is asked to wait when nothing better is known.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// How long a sender is asked to wait for a store that only a restart can open again.
const RETRY_AFTER_CLOSED: Duration = Duration::from_secs(10);

/// What is wrong, as far as a sender acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The request is malformed or invalid. Permanent.
    Invalid,
    /// The request is larger than allowed. Permanent.
    TooLarge,
    /// The content type or encoding is not spoken here. Permanent.
    UnsupportedMedia,
    /// The body did not arrive in time.
    SlowBody,
    /// The request was addressed to a host that this node is not. Permanent.
    Misdirected,
    /// Not in this release. Permanent.
    Unimplemented,
    /// The thing asked for does not exist. Permanent.
    NotFound,
    /// Memory, disk or queue are full. Transient.
    Overloaded,
    /// The log is still being replayed. Transient.
    Starting,
    /// The node is shutting down. Transient.
    Stopping,
    /// The store takes no more writes until it is reopened. Transient: a restart recovers.
    Closed,
    /// The caller gave up.
    Cancelled,
    /// The query ran out of time.
    DeadlineExceeded,
    /// The query went past a configured bound. Permanent.
    LimitExceeded,
    /// Bytes on disk are damaged.
    Corrupted,
    /// A broken invariant.
    Internal,
}

impl RefusalKind {
    /// Every kind, in the order of the self metrics.
    pub const ALL: [Self; 16] = [
        Self::Invalid,
        Self::TooLarge,
        Self::UnsupportedMedia,
        Self::SlowBody,
        Self::Misdirected,
        Self::Unimplemented,
        Self::NotFound,
        Self::Overloaded,
        Self::Starting,
        Self::Stopping,
        Self::Closed,
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::LimitExceeded,
        Self::Corrupted,
        Self::Internal,
    ];

    /// Whether the same request may succeed later.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Overloaded | Self::Starting | Self::Stopping | Self::Closed
        )
    }

    /// The name used in logs and as the `reason` label of the self metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::SlowBody => "slow_body",
            Self::Misdirected => "misdirected",
            Self::Unimplemented => "unimplemented",
            Self::NotFound => "not_found",
            Self::Overloaded => "overloaded",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Closed => "closed",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::LimitExceeded => "limit_exceeded",
            Self::Corrupted => "corrupted",
            Self::Internal => "internal",
        }
    }

    fn http(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            // Of a cancelled request nobody reads the answer.
            Self::SlowBody | Self::Cancelled => StatusCode::REQUEST_TIMEOUT,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Overloaded | Self::Starting | Self::Stopping | Self::Closed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::LimitExceeded => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Corrupted | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn grpc(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::TooLarge | Self::LimitExceeded => Code::ResourceExhausted,
            Self::UnsupportedMedia | Self::Unimplemented => Code::Unimplemented,
            Self::Misdirected => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Overloaded | Self::Starting | Self::Stopping | Self::Closed => Code::Unavailable,
            Self::Cancelled => Code::Cancelled,
            Self::SlowBody | Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Corrupted => Code::DataLoss,
            Self::Internal => Code::Internal,
        }
    }
}

/// How an HTTP refusal is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorBody {
    /// One line of text.
    Text,
    /// `google.rpc.Status` as protobuf, as OTLP/HTTP wants it for a protobuf request.
    StatusProtobuf,
    /// `google.rpc.Status` as JSON, as OTLP/HTTP wants it for a JSON request.
    StatusJson,
}

/// A "no" with its reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    kind: RefusalKind,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal of any kind; transient ones ask for the default pause.
    pub fn new(kind: RefusalKind, message: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = match kind {
            RefusalKind::Closed => Some(RETRY_AFTER_CLOSED),
            kind if kind.is_transient() => Some(RETRY_AFTER_DEFAULT),
            _ => None,
        };
        Self {
            kind,
            message: message.into(),
            retry_after,
        }
    }

    /// The request is malformed or invalid.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::Invalid, message)
    }

    /// `what` has `bytes` bytes and the option `max-request-bytes` allows `max_bytes`.
    pub fn too_large(what: &str, bytes: Option<u64>, max_bytes: u64) -> Self {
        let size = bytes.map_or_else(String::new, |bytes| format!(" of {bytes} bytes"));
        Self::new(
            RefusalKind::TooLarge,
            format!("{what}{size} is larger than {max_bytes} bytes (option max-request-bytes)"),
        )
    }

    /// The content type or encoding is not spoken here.
    pub fn unsupported_media(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::UnsupportedMedia, message)
    }

    /// Too much is going on: try again.
    pub fn overloaded(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::Overloaded, message)
    }

    /// What kind of refusal this is.
    pub fn kind(&self) -> RefusalKind {
        self.kind
    }

    /// Why, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The pause that the sender is asked for; `None` unless transient.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The HTTP status of this refusal.
    pub fn http_status(&self) -> StatusCode {
        self.kind.http()
    }

    /// The HTTP response: status, `Retry-After` for transient refusals, and the reason as `body`
    /// says.
    pub fn to_http(&self, body: ErrorBody) -> Response<Body> {
        let (content_type, bytes): (&'static str, Vec<u8>) = match body {
            ErrorBody::Text => (
                "text/plain; charset=utf-8",
                format!("{}\n", self.message).into(),
            ),
            ErrorBody::StatusProtobuf => {
                // The details of a tonic status are this very message, encoded.
                let status = tonic_types::pb::Status {
                    code: self.kind.grpc() as i32,
                    message: self.message.to_string(),
                    details: tonic_types::pb::Status::decode(self.to_grpc().details())
                        .map_or_else(|_| Vec::new(), |status| status.details),
                };
                ("application/x-protobuf", status.encode_to_vec())
            }
            ErrorBody::StatusJson => {
                let status = serde_json::json!({
                    "code": self.kind.grpc() as i32,
                    "message": self.message,
                });
                ("application/json", status.to_string().into_bytes())
            }
        };
        let mut response = Response::new(Body::from(bytes));
        *response.status_mut() = self.http_status();
        self.write_headers(response.headers_mut());
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    /// The gRPC status: with `RetryInfo` exactly for transient refusals.
    pub fn to_grpc(&self) -> Status {
        let code = self.kind.grpc();
        match self.retry_after {
            Some(pause) => Status::with_error_details(
                code,
                self.message.to_string(),
                ErrorDetails::with_retry_info(Some(pause)),
            ),
            None => Status::new(code, self.message.to_string()),
        }
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        if let Some(pause) = self.retry_after {
            // Whole seconds, never 0: some senders take 0 as "at once, for ever".
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(pause.as_secs().max(1)),
            );
        }
        if self.kind == RefusalKind::SlowBody {
            // Whatever still comes of the body must not be taken for the next request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Retry => RefusalKind::Overloaded,
            ErrorKind::InvalidRequest if matches!(error, Error::BatchTooLarge { .. }) => {
                RefusalKind::TooLarge
            }
            ErrorKind::InvalidRequest => RefusalKind::Invalid,
            ErrorKind::NotFound => RefusalKind::NotFound,
            ErrorKind::Cancelled => RefusalKind::Cancelled,
            ErrorKind::DeadlineExceeded => RefusalKind::DeadlineExceeded,
            ErrorKind::LimitExceeded => RefusalKind::LimitExceeded,
            ErrorKind::Corrupted => RefusalKind::Corrupted,
            ErrorKind::Closed => RefusalKind::Closed,
            ErrorKind::Unsupported => RefusalKind::Unimplemented,
            _ => RefusalKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.to_grpc()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transient_refusals_carry_a_pause() {
        for kind in RefusalKind::ALL {
            let refusal = Refusal::new(kind, "why");
            let http = refusal.to_http(ErrorBody::Text);
            let grpc = refusal.to_grpc();
            let transient = kind.is_transient();
            assert_eq!(
                http.headers().contains_key(header::RETRY_AFTER),
                transient,
                "{kind:?}"
            );
            assert_eq!(
                grpc.get_details_retry_info().is_some(),
                transient,
                "{kind:?}"
            );
            assert_eq!(
                http.status() == StatusCode::SERVICE_UNAVAILABLE,
                transient,
                "{kind:?}"
            );
            assert_eq!(grpc.code() == Code::Unavailable, transient, "{kind:?}");
        }
    }

    #[test]
    fn permanent_refusals_of_input_are_client_errors() {
        for kind in [
            RefusalKind::Invalid,
            RefusalKind::TooLarge,
            RefusalKind::UnsupportedMedia,
        ] {
            assert!(Refusal::new(kind, "why").http_status().is_client_error());
        }
    }

    #[test]
    fn memory_refusals_of_the_engine_are_transient_and_bad_times_are_not() {
        let full = Error::MemoryFull {
            used_bytes: 1,
            limit_bytes: 1,
            wanted_bytes: 1,
        };
        assert!(Refusal::from(full).kind().is_transient());
        let bad = Error::TimestampOutOfRange {
            value: i128::MAX,
            unit: "ms",
        };
        assert_eq!(Refusal::from(bad).kind(), RefusalKind::Invalid);
    }

    #[tokio::test]
    async fn the_protobuf_body_is_a_status_with_retry_info() {
        let response = Refusal::overloaded("full").to_http(ErrorBody::StatusProtobuf);
        let bytes = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        let status = tonic_types::pb::Status::decode(bytes).unwrap();
        assert_eq!(
            (status.code, status.message.as_str()),
            (Code::Unavailable as i32, "full")
        );
        assert_eq!(status.details.len(), 1);
    }
}
