//! Listening: bind, accept, serve, drain; and who may ask.
//!
//! All three ports are served by one loop over hyper, so that time limits, connection limits and
//! draining are the same everywhere. A loopback port answers only requests whose `Host` (or
//! `:authority`) is loopback's own name or one of `allow-host`: a web page that made its own name
//! point at 127.0.0.1 is told 421 before anything is read.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    middleware::{self, Next},
    response::Response,
};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

use crate::{
    node::NodeState,
    refusal::{ErrorBody, Refusal, RefusalKind},
    self_metrics::Protocol,
};

/// How long a peer may take to answer a keepalive ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that a peer may send ahead on one HTTP/2 stream: enough that a body of usual size never
/// waits for a window update.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that a peer may send ahead on all streams of a connection. They are held outside the
/// memory budget, so this times `max-connections` is the bound.
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// Pause after a failed accept (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a refused request that are still taken in, so that its sender reads the refusal.
const DRAIN_BYTES_MAX: usize = 256 << 20;
/// Time for that.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks at the beginning of a connection.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/1.1, and HTTP/2 with prior knowledge.
    Http,
    /// HTTP/2 alone.
    Grpc,
}

/// A bound port.
#[derive(Debug)]
pub(crate) struct Port {
    listener: TcpListener,
    /// The address with its real port number.
    pub(crate) address: SocketAddr,
}

impl Port {
    /// Binds `address` and listens; nothing is accepted yet, but connections queue.
    ///
    /// # Errors
    /// As the operating system says: in use, not permitted, not ours.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves `router` until `stop` turns true, then waits for the connections to finish.
    pub(crate) async fn serve(
        self,
        wire: Wire,
        router: Router,
        state: Arc<NodeState>,
        mut stop: watch::Receiver<bool>,
    ) {
        let rule = HostRule::new(self.address, &state.config().allow_hosts);
        let rule = Arc::new((rule, wire, Arc::clone(&state)));
        let router = router.layer(middleware::from_fn_with_state(rule, check_host));
        let builder = connection_builder(&state);
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(state.config().max_connections));
        loop {
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // The peer may be gone already (ECONNABORTED) or we are out of descriptors.
                    tracing::warn!(address = %self.address, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Answers are small and wanted at once. If the socket is gone, serving will notice.
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            let state = Arc::clone(&state);
            let builder = builder.clone();
            let watcher = graceful.watcher();
            let mut stop = stop.clone();
            tokio::spawn(async move {
                let _place = place;
                state.metrics().connection_opened();
                let version = tokio::select! {
                    version = spoken_version(&stream, state.config().idle_timeout) => version,
                    _ = stop.wait_for(|stop| *stop) => None,
                };
                let builder = match (version, wire) {
                    (Some(Version::Http1), Wire::Http) => Some(builder.http1_only()),
                    (Some(Version::Http2), _) => Some(builder.http2_only()),
                    _ => None,
                };
                if let Some(builder) = builder {
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    if let Err(error) = watcher.watch(connection.into_owned()).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                }
                state.metrics().connection_closed();
            });
        }
        drop(self.listener);
        graceful.shutdown().await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// What the first bytes of a connection speak; `None` if they do not come within `timeout`.
///
/// They are only looked at. hyper could tell the versions apart as well, but would wait for ever
/// for a client that sends the beginning of HTTP/2's preface and stops.
async fn spoken_version(stream: &TcpStream, timeout: Duration) -> Option<Version> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let look = async {
        let mut first = [0; PREFACE.len()];
        loop {
            let count = stream.peek(&mut first).await.ok()?;
            let seen = first.get(..count)?;
            if count == 0 {
                return None;
            }
            if !PREFACE.starts_with(seen) {
                return Some(Version::Http1);
            }
            if count == PREFACE.len() {
                return Some(Version::Http2);
            }
            // More of it is on its way; what is there already would wake us at once.
            tokio::time::sleep(PEEK_PAUSE).await;
        }
    };
    tokio::time::timeout(timeout, look).await.ok().flatten()
}

fn connection_builder(state: &NodeState) -> auto::Builder<TokioExecutor> {
    let config = state.config();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.idle_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(u32::try_from(config.max_concurrent_requests).unwrap_or(u32::MAX));
    builder
}

/// Which `Host` a port answers to.
#[derive(Clone, Debug)]
struct HostRule {
    /// `None` on addresses beyond loopback: their names are not known.
    allowed: Option<Vec<String>>,
}

impl HostRule {
    fn new(address: SocketAddr, allow_hosts: &[String]) -> Self {
        let allowed = address.ip().is_loopback().then(|| allow_hosts.to_vec());
        Self { allowed }
    }

    fn allows(&self, authority: &str) -> bool {
        let Some(allowed) = &self.allowed else {
            return true;
        };
        let host = host_of(authority);
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || address
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
            || allowed.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// The host of `host`, `host:port` or `[v6]:port`; empty if it is none of these.
fn host_of(authority: &str) -> &str {
    let end = if authority.starts_with('[') {
        authority.find(']').map_or(0, |bracket| bracket + 1)
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(end);
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = port.is_empty() || port.starts_with(':');
    if is_port && digits.bytes().all(|b| b.is_ascii_digit()) {
        host
    } else {
        ""
    }
}

/// The check before everything else, and the count of every answer behind it.
async fn check_host(
    State(rule): State<Arc<(HostRule, Wire, Arc<NodeState>)>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let (rule, wire, state) = &*rule;
    let protocol = protocol_of(*wire, request.uri().path());
    let headers = request.headers().get_all(header::HOST).into_iter();
    let mut hosts = headers
        .map(|value| value.to_str().unwrap_or("?"))
        .chain(request.uri().authority().map(http::uri::Authority::as_str));
    let stranger = hosts.find(|host| !rule.allows(host)).map(str::to_owned);
    let response = match stranger {
        None => run_and_drain(request, next).await,
        Some(host) => {
            let refusal = Refusal::new(
                RefusalKind::Misdirected,
                format!("host {host:?} is not served here (option allow-host)"),
            );
            state.metrics().refused(protocol, &refusal);
            match wire {
                Wire::Grpc => refusal.to_grpc().into_http(),
                Wire::Http => refusal.to_http(ErrorBody::Text),
            }
        }
    };
    let code = match wire {
        Wire::Http => i32::from(response.status().as_u16()),
        // An error without an answer carries its code in the headers; what a stream ends with
        // later is not counted here.
        Wire::Grpc => response
            .headers()
            .get("grpc-status")
            .and_then(|code| code.to_str().ok()?.parse().ok())
            .unwrap_or(0),
    };
    state.metrics().answered(protocol, code);
    response
}

/// Answers, and takes in what the sender has not finished sending by then. Closing a connection
/// over unread bytes resets it, and a reset can overtake the answer: a sender that never reads its
/// 413 sends the same again for ever.
async fn run_and_drain(request: Request<Body>, next: Next) -> Response {
    let waits_for_leave = request.headers().contains_key(header::EXPECT);
    if request.version() == http::Version::HTTP_2 || waits_for_leave {
        return next.run(request).await;
    }
    let left = Arc::new(Mutex::new(None));
    let request = request.map(|body| {
        Body::new(LentBody {
            body: Some(body),
            left: Arc::clone(&left),
        })
    });
    let response = next.run(request).await;
    let rest = left.lock().take();
    if let Some(mut rest) = rest
        && !rest.is_end_stream()
        && response.status() != StatusCode::REQUEST_TIMEOUT
    {
        let drain = async {
            let mut drained_bytes = 0;
            while let Some(Ok(frame)) = rest.frame().await {
                drained_bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
                if drained_bytes > DRAIN_BYTES_MAX {
                    break;
                }
            }
        };
        // Whoever is not done by then loses the answer.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
    }
    response
}

/// A request's body that comes back when its reader drops it.
struct LentBody {
    body: Option<Body>,
    left: Arc<Mutex<Option<Body>>>,
}

impl http_body::Body for LentBody {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.body
            .as_mut()
            .map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

impl Drop for LentBody {
    fn drop(&mut self) {
        *self.left.lock() = self.body.take();
    }
}

fn protocol_of(wire: Wire, path: &str) -> Protocol {
    match wire {
        Wire::Grpc if path.starts_with("/opentelemetry.") => Protocol::OtlpGrpc,
        Wire::Grpc => Protocol::Api,
        Wire::Http if path == crate::http::WRITE_PATH => Protocol::RemoteWrite,
        Wire::Http if path.starts_with("/v1/") => Protocol::OtlpHttp,
        Wire::Http => Protocol::Http,
    }
}

/// Lets the pages of `origins` read the answers of `router`'s paths. For paths that only read.
pub(crate) fn allow_origins(router: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return router;
    }
    let origins: Arc<[String]> = origins.into();
    router.layer(middleware::from_fn_with_state(origins, cors))
}

async fn cors(
    State(origins): State<Arc<[String]>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| {
        origins
            .iter()
            .any(|known| known == "*" || known.as_bytes() == origin.as_bytes())
    });
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        next.run(request).await
    };
    let mut set = |name: HeaderName, value: HeaderValue| {
        response.headers_mut().insert(name, value);
    };
    set(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if preflight {
            set(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("GET, POST"),
            );
            set(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("content-type"),
            );
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(address: &str) -> HostRule {
        HostRule::new(address.parse().unwrap(), &["node.internal".to_owned()])
    }

    #[test]
    fn a_loopback_port_answers_to_its_own_names_only() {
        let rule = rule("127.0.0.1:7668");
        for host in [
            "localhost",
            "LOCALHOST:7668",
            "127.0.0.1:1",
            "127.8.8.8",
            "[::1]:7668",
            "[::1]",
            "node.internal:80",
        ] {
            assert!(rule.allows(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7668",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            "127.0.0.1.evil.example",
            "[::2]",
            "localhost@evil.example",
            "?",
            "[",
            "[::1].evil",
        ] {
            assert!(!rule.allows(host), "{host}");
        }
    }

    #[test]
    fn a_network_port_does_not_know_its_names() {
        assert!(rule("192.0.2.1:7668").allows("anything.example"));
    }
}
