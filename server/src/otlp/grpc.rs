//! OTLP over gRPC: `TraceService/Export` and `MetricsService/Export`.
//!
//! The services take the unary call apart themselves instead of through generated code: the memory
//! budget is asked by the message's length prefix before its bytes are read, and what is decoded is
//! the message where it lies. Logs and profiles have no service here, so the router answers
//! UNIMPLEMENTED.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

use super::{
    Translation, answer,
    ingest::{self, Form, Signal},
};
use crate::{body, node::NodeState, refusal::Refusal, self_metrics::Protocol};

/// Takes spans.
#[derive(Clone, Debug)]
pub struct TraceService(Exporter);

/// Takes metrics.
#[derive(Clone, Debug)]
pub struct MetricsService(Exporter);

impl TraceService {
    /// The service of a node.
    pub fn new(state: &Arc<NodeState>) -> Self {
        Self(Exporter::new(state, Signal::Traces))
    }
}

impl MetricsService {
    /// The service of a node.
    pub fn new(state: &Arc<NodeState>) -> Self {
        Self(Exporter::new(state, Signal::Metrics))
    }
}

impl NamedService for TraceService {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl NamedService for MetricsService {
    const NAME: &'static str = "opentelemetry.proto.collector.metrics.v1.MetricsService";
}

macro_rules! export_service {
    ($service:ident) => {
        impl Service<Request<Body>> for $service {
            type Response = Response<Body>;
            type Error = Infallible;
            type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: Request<Body>) -> Self::Future {
                let exporter = self.0.clone();
                Box::pin(async move { Ok(exporter.call(request).await) })
            }
        }
    };
}

export_service!(TraceService);
export_service!(MetricsService);

/// What both services do.
#[derive(Clone, Debug)]
struct Exporter {
    state: Arc<NodeState>,
    translation: Arc<Translation>,
    signal: Signal,
}

impl Exporter {
    fn new(state: &Arc<NodeState>, signal: Signal) -> Self {
        let translation = Arc::new(Translation::of(state.config()));
        Self {
            state: Arc::clone(state),
            translation,
            signal,
        }
    }

    async fn call(self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if !is_grpc(&parts.headers) || parts.method != Method::POST {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        if !parts.uri.path().ends_with("/Export") {
            return Status::unimplemented("the service has one method, Export").into_http();
        }
        match self.export(&parts.headers, body).await {
            Ok(message) => answered(&message),
            Err(refusal) => {
                self.state.metrics().refused(Protocol::OtlpGrpc, &refusal);
                let mut response: Response<Body> = refusal.to_grpc().into_http();
                accept_encodings(response.headers_mut());
                response
            }
        }
    }

    async fn export(&self, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
        let state = &self.state;
        let budget = state.budget()?;
        let wire = body::read_unary_wire(headers, body, budget, &state.body_limits()).await?;
        let (protocol, form) = (Protocol::OtlpGrpc, Form::Protobuf);
        let accepted =
            ingest::store(state, self.signal, protocol, form, wire, &self.translation).await?;
        Ok(answer::write(&accepted, self.signal, form))
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map_or(&[][..], HeaderValue::as_bytes);
    matches!(
        content_type.strip_prefix(b"application/grpc"),
        Some([] | [b';', ..] | b"+proto" | [b'+', b'p', b'r', b'o', b't', b'o', b';', ..])
    )
}

/// A response of one message and the status OK.
fn answered(message: &[u8]) -> Response<Body> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(5 + message.len());
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(frame)).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    accept_encodings(response.headers_mut());
    response
}

/// Says how requests may be compressed.
fn accept_encodings(headers: &mut HeaderMap) {
    headers.insert(
        "grpc-accept-encoding",
        HeaderValue::from_static("gzip,zstd,identity"),
    );
}
