//! OTLP/HTTP: `POST /v1/traces` and `POST /v1/metrics`, in protobuf and JSON, gzip, zstd or plain.
//!
//! Answers and errors (`google.rpc.Status`) come in the content type of the request; where that is
//! neither of the two, in plain text. Signals that are not kept here get a 404 that says so.

use std::sync::Arc;

use axum::{Router, body::Body, response::Response, routing::any};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};

use super::{
    Translation, answer,
    ingest::{self, Form, Signal},
};
use crate::{
    body::{self, Encoding},
    node::NodeState,
    refusal::{ErrorBody, Refusal, RefusalKind},
    self_metrics::Protocol,
};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Paths of signals that are refused by name.
const REFUSED_PATHS: [(&str, &str); 3] = [
    ("/v1/logs", "logs"),
    ("/v1/profiles", "profiles"),
    ("/v1development/profiles", "profiles"),
];

/// The paths of OTLP/HTTP. They carry their own state, so the router merges into any other.
pub fn routes<S: Clone + Send + Sync + 'static>(state: &Arc<NodeState>) -> Router<S> {
    let translation = Arc::new(Translation::of(state.config()));
    let mut router = Router::new();
    for (path, signal) in [
        ("/v1/traces", Signal::Traces),
        ("/v1/metrics", Signal::Metrics),
    ] {
        let (state, translation) = (Arc::clone(state), Arc::clone(&translation));
        let handle = move |request: Request<Body>| async move {
            export(&state, &translation, signal, request).await
        };
        router = router.route(path, any(handle));
    }
    for (path, signal) in REFUSED_PATHS {
        let state = Arc::clone(state);
        let handle = move |headers: HeaderMap| async move {
            let text = format!("this node keeps traces and metrics, not {signal}");
            let refusal = Refusal::new(RefusalKind::NotFound, text);
            state.metrics().refused(Protocol::OtlpHttp, &refusal);
            refusal.to_http(error_body(form_of(&headers)))
        };
        router = router.route(path, any(handle));
    }
    router
}

async fn export(
    state: &Arc<NodeState>,
    translation: &Arc<Translation>,
    signal: Signal,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let form = form_of(&parts.headers);
    if parts.method != Method::POST {
        return wrong_method(form, &parts.method);
    }
    match receive(state, translation, signal, form, &parts.headers, body).await {
        Ok(response) => response,
        Err(refusal) => {
            state.metrics().refused(Protocol::OtlpHttp, &refusal);
            refusal.to_http(error_body(form))
        }
    }
}

async fn receive(
    state: &Arc<NodeState>,
    translation: &Arc<Translation>,
    signal: Signal,
    form: Option<Form>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let form = form.ok_or_else(|| unknown_content_type(headers))?;
    let encoding = Encoding::from_content_encoding(headers)?;
    let budget = state.budget()?;
    let wire = body::read(headers, body, encoding, budget, &state.body_limits()).await?;
    let protocol = Protocol::OtlpHttp;
    let accepted = ingest::store(state, signal, protocol, form, wire, translation).await?;
    let mut response = Response::new(Body::from(answer::write(&accepted, signal, form)));
    let content_type = HeaderValue::from_static(match form {
        Form::Protobuf => PROTOBUF,
        Form::Json => JSON,
    });
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// How the request is written, by its content type; parameters do not matter.
fn form_of(headers: &HeaderMap) -> Option<Form> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media = value.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case(PROTOBUF) {
        Some(Form::Protobuf)
    } else if media.eq_ignore_ascii_case(JSON) {
        Some(Form::Json)
    } else {
        None
    }
}

fn unknown_content_type(headers: &HeaderMap) -> Refusal {
    let sent = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let sent = sent.map_or_else(
        || "none".into(),
        |value| format!("{:?}", value.escape_ascii().to_string()),
    );
    Refusal::unsupported_media(format!(
        "content type {sent} is not supported: OTLP/HTTP is {PROTOBUF} or {JSON}"
    ))
}

fn error_body(form: Option<Form>) -> ErrorBody {
    match form {
        Some(Form::Protobuf) => ErrorBody::StatusProtobuf,
        Some(Form::Json) => ErrorBody::StatusJson,
        None => ErrorBody::Text,
    }
}

fn wrong_method(form: Option<Form>, method: &Method) -> Response {
    let text = format!("OTLP/HTTP takes POST, not {method}");
    let mut response = Refusal::new(RefusalKind::Invalid, text).to_http(error_body(form));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}
