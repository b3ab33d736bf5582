//! The HTTP port (7668): remote write, admin, health, self metrics.
//!
//! Query protocols take their bases here later: Prometheus at `/`, Tempo under `/tempo`, Jaeger
//! under `/jaeger`. A path that is not known gets a 404 that says where to look.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderValue, Request, StatusCode, header};
use serde_json::json;

use crate::{
    api::upkeep,
    listen,
    node::{NodeState, Phase},
    otlp,
    refusal::{ErrorBody, Refusal, RefusalKind},
    remote_write, self_metrics,
    self_metrics::Protocol,
};

/// Where remote write goes.
pub(crate) const WRITE_PATH: &str = "/api/v1/write";

/// All paths of the HTTP port.
pub(crate) fn router(state: &Arc<NodeState>) -> Router {
    let readable = Router::new()
        .route("/health", get(ready))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics));
    let readable = readable
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(state));
    let readable = listen::allow_origins(readable, &state.config().http_cors_origins);
    Router::new()
        .route(WRITE_PATH, post(remote_write::handle))
        .route("/api/v1/admin/flush", post(flush))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(state))
        .merge(readable)
}

/// All paths of the OTLP/HTTP port.
pub(crate) fn otlp_router(state: &Arc<NodeState>) -> Router {
    otlp::routes(state)
        .fallback(unknown_otlp_path)
        .with_state(Arc::clone(state))
}

/// The process runs.
async fn live() -> &'static str {
    "live\n"
}

/// Whether reads and writes are served, or reads alone; if not, why and how far.
async fn ready(State(state): State<Arc<NodeState>>) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let (status, body) = match (state.phase(), state.open_error()) {
        // Whoever only reads is served: taking the node out of rotation would help nobody.
        (Phase::Ready, _) => match state.read_only() {
            None => (
                StatusCode::OK,
                json!({ "status": "ready", "version": version }),
            ),
            Some(reason) => (
                StatusCode::OK,
                json!({ "status": "read-only", "version": version, "reason": reason }),
            ),
        },
        (Phase::Stopping, _) => (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "status": "stopping", "version": version }),
        ),
        (Phase::Starting, Some(error)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "status": "failed", "version": version, "error": error }),
        ),
        (Phase::Starting, None) => {
            let progress = state.progress();
            let replay = json!({
                "records": progress.records(),
                "bytes": progress.bytes(),
                "total_bytes": progress.total_bytes(),
            });
            (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({ "status": "starting", "version": version, "replay": replay }),
            )
        }
    };
    (status, Json(body)).into_response()
}

async fn metrics(State(state): State<Arc<NodeState>>) -> Response {
    let mut response = Response::new(Body::from(self_metrics::render(&state)));
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// Seals what is in memory into blocks, and says what was sealed.
async fn flush(State(state): State<Arc<NodeState>>) -> Response {
    let flushed = match state.engine() {
        Ok(engine) => {
            let engine = engine.clone();
            let turn = Arc::clone(state.upkeep_turns()).acquire_owned().await;
            let flush = move || {
                let _turn = turn;
                upkeep::flush(&engine)
            };
            tokio::task::spawn_blocking(flush).await
        }
        Err(refusal) => return refused(&state, &refusal),
    };
    match flushed {
        Ok(Ok(flushed)) => Json(upkeep::flushed_json(&flushed)).into_response(),
        Ok(Err(refusal)) => refused(&state, &refusal),
        Err(panic) => {
            tracing::error!(error = %panic, "a flush failed in an unexpected way");
            refused(
                &state,
                &Refusal::new(RefusalKind::Internal, "the flush failed"),
            )
        }
    }
}

fn refused(state: &NodeState, refusal: &Refusal) -> Response {
    state.metrics().refused(Protocol::Http, refusal);
    refusal.to_http(ErrorBody::Text)
}

async fn unknown_path(State(state): State<Arc<NodeState>>, request: Request<Body>) -> Response {
    Refusal::new(RefusalKind::NotFound, hint(request.uri().path(), &state)).to_http(ErrorBody::Text)
}

async fn unknown_otlp_path(
    State(state): State<Arc<NodeState>>,
    request: Request<Body>,
) -> Response {
    let path = request.uri().path();
    let http = state
        .addresses()
        .map_or_else(|| "its own port".to_owned(), |a| a.http.to_string());
    let text = format!(
        "no {path} on the OTLP/HTTP port: it takes traces and metrics; remote write, health and \
         self metrics are on {http}"
    );
    Refusal::new(RefusalKind::NotFound, text).to_http(ErrorBody::Text)
}

async fn wrong_method(request: Request<Body>) -> Response {
    let text = format!(
        "{} does not take {}\n",
        request.uri().path(),
        request.method()
    );
    (StatusCode::METHOD_NOT_ALLOWED, text).into_response()
}

/// Where someone who asked for `path` should look.
pub(crate) fn hint(path: &str, state: &NodeState) -> String {
    let addresses = state.addresses();
    let port = |get: fn(&crate::node::Addresses) -> std::net::SocketAddr| {
        addresses.map_or_else(|| "its own port".to_owned(), |all| get(all).to_string())
    };
    if path.starts_with("/v1/") {
        return format!(
            "no {path} here: OTLP/HTTP listens on {}",
            port(|a| a.otlp_http)
        );
    }
    if path.starts_with("/api/traces") {
        return format!(
            "no {path} here: the Tempo protocol belongs under /tempo{path} and Jaeger's under \
             /jaeger{path}, neither is in this release; ask over gRPC on {} (rootline query trace ID)",
            port(|a| a.grpc)
        );
    }
    if path.starts_with("/api/v1/") || path.starts_with("/tempo") || path.starts_with("/jaeger") {
        return format!(
            "no {path} in this release: ask over gRPC on {} (rootline query --help)",
            port(|a| a.grpc)
        );
    }
    format!(
        "no {path} here. There are {WRITE_PATH} (remote write), /api/v1/admin/flush, /health, \
         /health/live, /health/ready and /metrics; OTLP/HTTP listens on {}, gRPC on {}",
        port(|a| a.otlp_http),
        port(|a| a.grpc)
    )
}
