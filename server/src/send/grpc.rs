//! OTLP/gRPC: serialized requests go out as they are, without being decoded and encoded again.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{
    answer::Answer,
    error::{Error, chain},
    kind::Kind,
    target,
};

/// A connection, made when it is first used and again when it was lost. Clones share it.
#[derive(Clone)]
pub(crate) struct OtlpGrpc {
    channel: Channel,
    pub(crate) url: String,
}

impl OtlpGrpc {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, Error> {
        let uri = target::parse_base("--endpoint", url)?;
        let url = uri.to_string().trim_end_matches('/').to_owned();
        let endpoint = Endpoint::from(uri)
            .connect_timeout(timeout)
            .timeout(timeout)
            .user_agent(super::USER_AGENT)
            .map_err(|e| Error::BadUrl {
                option: "--endpoint",
                url: url.clone(),
                reason: chain(&e),
            })?;
        Ok(Self {
            channel: endpoint.connect_lazy(),
            url,
        })
    }

    /// Sends one request; `kind` is one of the OTLP protobuf kinds.
    pub(crate) async fn export(&self, kind: Kind, body: Bytes) -> Answer {
        let path = match kind {
            Kind::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            _ => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        };
        let mut grpc = Grpc::new(self.channel.clone());
        if let Err(e) = grpc.ready().await {
            return Answer::Later {
                reason: chain(&e),
                wait: None,
            };
        }
        let path = PathAndQuery::from_static(path);
        match grpc.unary(Request::new(body), path, RawCodec).await {
            Ok(response) => answer(kind, response.get_ref()),
            Err(status) => refusal(&status),
        }
    }
}

fn answer(kind: Kind, response: &[u8]) -> Answer {
    let partial = match kind {
        Kind::Metrics => ExportMetricsServiceResponse::decode(response).map(|r| {
            r.partial_success
                .map(|p| (p.rejected_data_points, p.error_message))
        }),
        _ => ExportTraceServiceResponse::decode(response).map(|r| {
            r.partial_success
                .map(|p| (p.rejected_spans, p.error_message))
        }),
    };
    match partial {
        Ok(Some((rejected, reason))) if rejected != 0 || !reason.is_empty() => Answer::Partial {
            rejected: u64::try_from(rejected).unwrap_or(0),
            reason,
        },
        Ok(_) => Answer::Stored,
        Err(e) => Answer::Refused {
            reason: format!("the answer does not decode: {e}"),
        },
    }
}

/// The codes that OTLP calls retryable; `RESOURCE_EXHAUSTED` only with a time to come back.
fn refusal(status: &Status) -> Answer {
    let wait = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
        .or_else(|| {
            status
                .get_error_details()
                .retry_info()
                .and_then(|info| info.retry_delay)
        });
    let reason = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    match status.code() {
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss => Answer::Later { reason, wait },
        Code::ResourceExhausted if wait.is_some() => Answer::Later { reason, wait },
        // tonic's word for a connection that broke under the request.
        Code::Unknown if std::error::Error::source(status).is_some() => Answer::Later {
            reason: chain(status),
            wait,
        },
        Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied => {
            Answer::NotTaken { reason }
        }
        _ => Answer::Refused { reason },
    }
}

/// Bytes in, bytes out.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn only_retryable_codes_are_tried_again() {
        let later = |s: &Status| matches!(refusal(s), Answer::Later { .. });
        assert!(later(&Status::unavailable("starting")));
        assert!(!later(&Status::resource_exhausted("too large")));
        assert!(!later(&Status::invalid_argument("bad")));
        assert!(matches!(
            refusal(&Status::unimplemented("x")),
            Answer::NotTaken { .. }
        ));
    }

    #[test]
    fn the_time_to_come_back_is_read() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        assert!(
            matches!(refusal(&status), Answer::Later { wait: Some(w), .. } if w == Duration::from_secs(3))
        );
    }
}
