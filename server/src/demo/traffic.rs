//! People using the shop: each request becomes a trace, and is counted for the metrics.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, SpanKind},
        status::StatusCode,
    },
};

use super::{
    random::Random,
    shop::{Call, PAGES, Page, SLOW_DATABASE, SLOWDOWN, Statement, Work},
};

/// Time on the wire, each way.
const NETWORK_MS: f64 = 0.25;
/// People who shop here.
const USERS: u64 = 2_000;
/// Things they can buy.
const PRODUCTS: u64 = 300;
/// Requests that fail for a reason of their own, at any time.
const STRAY_ERRORS: f64 = 0.0004;

/// A finished server or client operation, for the metrics.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) service: &'static str,
    pub(super) name: &'static str,
    /// The database, for a statement.
    pub(super) database: Option<&'static str>,
    pub(super) failed: bool,
    pub(super) seconds: f64,
    pub(super) end_ns: u64,
    pub(super) trace_id: Vec<u8>,
    pub(super) span_id: Vec<u8>,
}

/// What happened in a stretch of time.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    spans: BTreeMap<&'static str, Vec<Span>>,
    pub(super) operations: Vec<Operation>,
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// The resource of a service: one instance of each is enough for a small shop.
pub(super) fn resource(service: &str) -> Resource {
    Resource {
        attributes: vec![
            text("service.name", service),
            text("service.namespace", "shop"),
            text("service.instance.id", format!("{service}-0")),
            text("service.version", "1.4.2"),
            text("host.name", format!("node-{}", service.len() % 3)),
            text("deployment.environment.name", "demo"),
        ],
        ..Resource::default()
    }
}

/// The scope of everything that the demo makes.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "rootline.demo".to_owned(),
        ..InstrumentationScope::default()
    }
}

fn ns(ms: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "latencies are positive and far below 2^64 ns"
    )]
    {
        (ms.max(0.0) * 1e6) as u64
    }
}

/// A request on its way through the shop.
struct Journey<'a> {
    random: &'a mut Random,
    out: &'a mut Traffic,
    trace_id: Vec<u8>,
    user: String,
    product: String,
    slow: bool,
}

/// Makes `requests` requests that begin within `length_ns` from `start_ns`; `slow` is the fault.
pub(super) fn traffic(
    random: &mut Random,
    start_ns: u64,
    length_ns: u64,
    requests: u64,
    slow: bool,
) -> Traffic {
    let mut out = Traffic::default();
    for _ in 0..requests {
        let start_ns = start_ns + random.below(length_ns);
        let page = pick_page(random);
        let trace_id = random.id::<16>();
        let user = format!("user-{:04}", random.below(USERS));
        let product = format!("p{:03}", random.below(PRODUCTS));
        Journey {
            random,
            out: &mut out,
            trace_id,
            user,
            product,
            slow,
        }
        .page(page, start_ns);
    }
    out
}

fn pick_page(random: &mut Random) -> &'static Page {
    let mut left = random.below(PAGES.iter().map(|p| p.weight).sum());
    let [first, ..] = &PAGES;
    PAGES
        .iter()
        .find(|page| match left.checked_sub(page.weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
        .unwrap_or(first)
}

impl Journey<'_> {
    fn page(&mut self, page: &Page, start_ns: u64) {
        let path = page.route.replace("{id}", &self.product);
        let attributes = vec![
            text("http.request.method", page.method),
            text("http.route", page.route),
            text("url.path", path),
            text("user.id", self.user.clone()),
        ];
        let (_, failed) = self.work(page.work, &[], start_ns, attributes);
        if let Some(span) = self
            .out
            .spans
            .get_mut("frontend")
            .and_then(|spans| spans.last_mut())
        {
            let status = if failed { 500 } else { 200 };
            span.attributes.push(attribute(
                "http.response.status_code",
                Value::IntValue(status),
            ));
        }
    }

    /// The server side of `work`; answers when it ended and whether it failed.
    fn work(
        &mut self,
        work: &'static Work,
        parent: &[u8],
        start_ns: u64,
        attributes: Vec<KeyValue>,
    ) -> (u64, bool) {
        let span_id = self.random.id::<8>();
        let own_ms = self.random.latency(work.own_ms);
        let mut at_ns = start_ns + ns(own_ms * 0.6);
        let mut failure = self
            .random
            .chance(STRAY_ERRORS)
            .then_some("unexpected empty answer");
        for call in work.calls {
            if failure.is_some() {
                break;
            }
            let failed;
            (at_ns, failed) = match call {
                Call::Service {
                    work: callee,
                    timeout_ms,
                } => self.call(work.service, callee, *timeout_ms, &span_id, at_ns),
                Call::Database(statement) => (
                    self.statement(work.service, statement, &span_id, at_ns),
                    false,
                ),
            };
            failure = failed.then_some("a call that is needed failed");
        }
        let end_ns = at_ns + ns(own_ms * 0.4);
        self.span(
            work.service,
            None,
            Span {
                span_id,
                parent_span_id: parent.to_vec(),
                name: work.name.to_owned(),
                kind: SpanKind::Server.into(),
                start_time_unix_nano: start_ns,
                end_time_unix_nano: end_ns,
                attributes,
                status: failure.map(error),
                ..Span::default()
            },
            work.name,
        );
        (end_ns, failure.is_some())
    }

    /// The client side of a call between services, and with it the server side.
    fn call(
        &mut self,
        service: &'static str,
        callee: &'static Work,
        timeout_ms: f64,
        parent: &[u8],
        start_ns: u64,
    ) -> (u64, bool) {
        let span_id = self.random.id::<8>();
        let (rpc_service, rpc_method) = callee.name.split_once('/').unwrap_or((callee.name, ""));
        let rpc = || {
            vec![
                text("rpc.system", "grpc"),
                text("rpc.service", rpc_service),
                text("rpc.method", rpc_method),
            ]
        };
        let mut server = rpc();
        if callee.service == "catalog" || callee.service == "inventory" {
            server.push(text("shop.product.id", self.product.clone()));
        }
        let (served_ns, mut failed) =
            self.work(callee, &span_id, start_ns + ns(NETWORK_MS), server);
        let mut end_ns = served_ns + ns(NETWORK_MS);
        let mut events = Vec::new();
        let mut message = "the other side failed";
        // The caller stops waiting; the other side works on, as real ones do.
        let deadline_ns = start_ns + ns(timeout_ms);
        if end_ns > deadline_ns {
            end_ns = deadline_ns;
            failed = true;
            message = "deadline exceeded";
            events.push(Event {
                time_unix_nano: end_ns,
                name: "exception".to_owned(),
                attributes: vec![
                    text("exception.type", "DeadlineExceeded"),
                    text(
                        "exception.message",
                        format!("no answer within {timeout_ms} ms"),
                    ),
                ],
                ..Event::default()
            });
        }
        let mut attributes = rpc();
        attributes.push(text("server.address", callee.service));
        self.span(
            service,
            None,
            Span {
                span_id,
                parent_span_id: parent.to_vec(),
                name: callee.name.to_owned(),
                kind: SpanKind::Client.into(),
                start_time_unix_nano: start_ns,
                end_time_unix_nano: end_ns,
                attributes,
                events,
                status: failed.then(|| error(message)),
                ..Span::default()
            },
            callee.name,
        );
        (end_ns, failed)
    }

    /// A statement, seen from the client only; answers when it ended.
    fn statement(
        &mut self,
        service: &'static str,
        statement: &'static Statement,
        parent: &[u8],
        start_ns: u64,
    ) -> u64 {
        let slow = self.slow && statement.database == SLOW_DATABASE;
        let median_ms = statement.own_ms * if slow { SLOWDOWN } else { 1.0 };
        let end_ns = start_ns + ns(self.random.latency(median_ms));
        let verb = statement.text.split(' ').next().unwrap_or("");
        let span_id = self.random.id::<8>();
        self.span(
            service,
            Some(statement.database),
            Span {
                span_id,
                parent_span_id: parent.to_vec(),
                name: format!("{verb} {}", statement.collection),
                kind: SpanKind::Client.into(),
                start_time_unix_nano: start_ns,
                end_time_unix_nano: end_ns,
                attributes: vec![
                    text("db.system.name", statement.system),
                    text("db.collection.name", statement.collection),
                    text("db.query.text", statement.text),
                    text("server.address", statement.database),
                ],
                ..Span::default()
            },
            statement.collection,
        );
        end_ns
    }

    fn span(
        &mut self,
        service: &'static str,
        database: Option<&'static str>,
        span: Span,
        name: &'static str,
    ) {
        let length_ns = span
            .end_time_unix_nano
            .saturating_sub(span.start_time_unix_nano);
        if span.kind == i32::from(SpanKind::Server) || database.is_some() {
            self.out.operations.push(Operation {
                service,
                name,
                database,
                failed: span.status.is_some(),
                seconds: length_ns as f64 / 1e9,
                end_ns: span.end_time_unix_nano,
                trace_id: self.trace_id.clone(),
                span_id: span.span_id.clone(),
            });
        }
        let span = Span {
            trace_id: self.trace_id.clone(),
            ..span
        };
        self.out.spans.entry(service).or_default().push(span);
    }
}

fn error(message: &str) -> Status {
    Status {
        message: message.to_owned(),
        code: StatusCode::Error.into(),
    }
}

impl Traffic {
    /// The traces as one request, and how many spans are in it.
    pub(super) fn request(self) -> (ExportTraceServiceRequest, u64) {
        let count = self.spans.values().map(|spans| spans.len() as u64).sum();
        let resource_spans = self
            .spans
            .into_iter()
            .map(|(service, spans)| ResourceSpans {
                resource: Some(resource(service)),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope()),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            })
            .collect();
        (ExportTraceServiceRequest { resource_spans }, count)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn spans(traffic: Traffic) -> Vec<(String, Span)> {
        traffic
            .spans
            .into_iter()
            .flat_map(|(s, v)| v.into_iter().map(move |x| (s.to_owned(), x)))
            .collect()
    }

    #[test]
    fn every_parent_is_there_and_ids_differ() {
        let all = spans(traffic(
            &mut Random::new(1),
            1_000,
            1_000_000_000,
            200,
            false,
        ));
        let by_id: HashMap<_, _> = all.iter().map(|(_, s)| (s.span_id.clone(), s)).collect();
        assert_eq!(by_id.len(), all.len());
        for (_, span) in all.iter().filter(|(_, s)| !s.parent_span_id.is_empty()) {
            let parent = by_id[&span.parent_span_id];
            assert_eq!(parent.trace_id, span.trace_id);
            assert!(parent.start_time_unix_nano <= span.start_time_unix_nano);
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        }
    }

    #[test]
    fn the_fault_shows_as_errors_in_the_callers_and_not_in_inventory() {
        let failed = |slow: bool, service: &str| {
            let all = spans(traffic(
                &mut Random::new(2),
                1_000,
                1_000_000_000,
                2_000,
                slow,
            ));
            let of: Vec<_> = all.iter().filter(|(s, _)| s == service).collect();
            let bad = of.iter().filter(|(_, s)| s.status.is_some()).count();
            bad as f64 / of.len() as f64
        };
        assert!(failed(false, "checkout") < 0.02);
        assert!(
            failed(true, "checkout") > 0.05,
            "{}",
            failed(true, "checkout")
        );
        assert!(failed(true, "inventory") < 0.02);
    }
}
