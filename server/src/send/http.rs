//! OTLP/HTTP and Prometheus remote write: one HTTP/1.1 connection, kept open between requests.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::{answer::Answer, error::chain, kind::Kind, target::HttpTarget};

/// Bytes of an answer that are read; answers are a sentence long.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Characters of a foreign answer that are shown.
const REASON_CHARS_MAX: usize = 300;

/// A place to post requests of one kind to.
pub(crate) struct HttpPost {
    pub(crate) target: HttpTarget,
    connection: Option<SendRequest<Full<Bytes>>>,
    timeout: Duration,
}

impl HttpPost {
    pub(crate) fn new(target: HttpTarget, timeout: Duration) -> Self {
        Self {
            target,
            connection: None,
            timeout,
        }
    }

    /// Sends one request.
    pub(crate) async fn post(&mut self, kind: Kind, body: Bytes) -> Answer {
        match tokio::time::timeout(self.timeout, self.exchange(kind, body)).await {
            Ok(Ok((status, headers, body))) => answer(kind, status, &headers, &body),
            Ok(Err(reason)) => {
                self.connection = None;
                Answer::Later { reason, wait: None }
            }
            Err(_) => {
                self.connection = None;
                let reason = format!("no answer in {} s", self.timeout.as_secs());
                Answer::Later { reason, wait: None }
            }
        }
    }

    async fn exchange(
        &mut self,
        kind: Kind,
        body: Bytes,
    ) -> Result<(StatusCode, HeaderMap, Bytes), String> {
        let open = match self.connection.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match open {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut request = Request::post(&self.target.path)
            .header(HOST, &self.target.authority)
            .header(USER_AGENT, super::USER_AGENT)
            .header(
                CONTENT_TYPE,
                match kind {
                    Kind::TracesJson | Kind::MetricsJson => "application/json",
                    _ => "application/x-protobuf",
                },
            );
        if kind == Kind::RemoteWrite {
            request = request
                .header(CONTENT_ENCODING, "snappy")
                .header("x-prometheus-remote-write-version", "0.1.0");
        }
        let request = request.body(Full::new(body)).map_err(|e| chain(&e))?;
        let response = sender.send_request(request).await.map_err(|e| chain(&e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|e| chain(&*e))?;
        self.connection = Some(sender);
        Ok((head.status, head.headers, body.to_bytes()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(&self.target.authority)
            .await
            .map_err(|e| chain(&e))?;
        stream.set_nodelay(true).map_err(|e| chain(&e))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|e| chain(&e))?;
        // Ends when the sender is dropped; what goes wrong shows in the answer.
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn answer(kind: Kind, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    if status.is_success() {
        return match partial_success(kind, body) {
            Some((rejected, reason)) if rejected != 0 || !reason.is_empty() => {
                Answer::Partial { rejected, reason }
            }
            _ => Answer::Stored,
        };
    }
    let reason = format!("{status}: {}", refusal_text(kind, headers, body));
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let seconds = headers
                .get(RETRY_AFTER)
                .and_then(|v| v.to_str().ok()?.parse().ok());
            Answer::Later {
                reason,
                wait: seconds.map(Duration::from_secs),
            }
        }
        // Prometheus' own rule for remote write: any 5xx is worth another try.
        _ if kind == Kind::RemoteWrite && status.is_server_error() => {
            Answer::Later { reason, wait: None }
        }
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED => Answer::NotTaken { reason },
        _ => Answer::Refused { reason },
    }
}

fn partial_success(kind: Kind, body: &[u8]) -> Option<(u64, String)> {
    let (rejected, reason) = match kind {
        Kind::Traces => {
            let partial = ExportTraceServiceResponse::decode(body)
                .ok()?
                .partial_success?;
            (partial.rejected_spans, partial.error_message)
        }
        Kind::Metrics => {
            let partial = ExportMetricsServiceResponse::decode(body)
                .ok()?
                .partial_success?;
            (partial.rejected_data_points, partial.error_message)
        }
        Kind::TracesJson | Kind::MetricsJson => {
            let partial: JsonAnswer = serde_json::from_slice(body).ok()?;
            let partial = partial.partial_success?;
            let rejected = partial.rejected_spans.or(partial.rejected_data_points);
            (rejected.map_or(0, Number::get), partial.error_message)
        }
        Kind::RemoteWrite => return None,
    };
    Some((u64::try_from(rejected).unwrap_or(0), reason))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonAnswer {
    partial_success: Option<JsonPartial>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonPartial {
    rejected_spans: Option<Number>,
    rejected_data_points: Option<Number>,
    #[serde(default)]
    error_message: String,
}

/// JSON has 64-bit numbers as strings, and some senders as numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(i64),
    Text(String),
}

impl Number {
    fn get(self) -> i64 {
        match self {
            Self::Number(n) => n,
            Self::Text(text) => text.parse().unwrap_or(0),
        }
    }
}

#[derive(Deserialize)]
struct JsonStatus {
    message: String,
}

/// The sentence in a refusal: OTLP's status message, or the text itself.
fn refusal_text(kind: Kind, headers: &HeaderMap, body: &[u8]) -> String {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    let message = match kind {
        Kind::RemoteWrite => None,
        _ if content_type.starts_with("application/json") => serde_json::from_slice(body)
            .ok()
            .map(|s: JsonStatus| s.message),
        _ if content_type.starts_with("application/x-protobuf") => {
            tonic_types::pb::Status::decode(body)
                .ok()
                .map(|s| s.message)
        }
        _ => None,
    };
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let text: String = text.trim().chars().take(REASON_CHARS_MAX).collect();
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(kind: Kind, status: u16, header: Option<(&str, &str)>, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        answer(
            kind,
            StatusCode::from_u16(status).unwrap(),
            &headers,
            body.as_bytes(),
        )
    }

    #[test]
    fn a_time_to_come_back_is_honoured() {
        let answer = with(
            Kind::RemoteWrite,
            503,
            Some(("retry-after", "7")),
            "memory full",
        );
        let Answer::Later { reason, wait } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(wait, Some(Duration::from_secs(7)));
        assert!(reason.contains("memory full"));
    }

    #[test]
    fn permanent_refusals_are_not_retried() {
        assert!(matches!(
            with(Kind::RemoteWrite, 400, None, "bad label"),
            Answer::Refused { .. }
        ));
        assert!(matches!(
            with(Kind::Traces, 413, None, ""),
            Answer::Refused { .. }
        ));
        assert!(matches!(
            with(Kind::Traces, 404, None, ""),
            Answer::NotTaken { .. }
        ));
        assert!(matches!(
            with(Kind::Traces, 500, None, ""),
            Answer::Refused { .. }
        ));
        assert!(matches!(
            with(Kind::RemoteWrite, 500, None, ""),
            Answer::Later { .. }
        ));
    }

    #[test]
    fn partial_success_is_read_from_json() {
        let body = r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"zero id"}}"#;
        let expected = Answer::Partial {
            rejected: 3,
            reason: "zero id".into(),
        };
        assert_eq!(with(Kind::TracesJson, 200, None, body), expected);
        assert_eq!(with(Kind::TracesJson, 200, None, "{}"), Answer::Stored);
        assert_eq!(with(Kind::RemoteWrite, 204, None, ""), Answer::Stored);
    }
}
