//! Sets of spans over gRPC: finding spans, figures over them, attribute keys and values.

use std::ops::ControlFlow;

use prost::Message as _;
use rootline_engine::{AttributeType, TagScope, TimeRange};
use rootline_query::{
    FOUND_SPANS_MAX, FoundSpan, SPAN_GROUPS_DEFAULT, SpanAggregation, SpanGroup, SpanGroupKey,
    SpanMeasure, SpanPoint, WantedFigures, aggregate_spans, find_spans,
};

use super::{
    query::{MESSAGE_BYTES, Query, Sender},
    request, v1,
};
use crate::refusal::Refusal;

/// Entries of a list where the request does not say.
const LISTED_DEFAULT: usize = 1_000;
/// Most entries of a list.
const LISTED_MAX: usize = 1_000_000;
/// Quantiles in every answer, before those that were asked for.
const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];

const FIND_METHOD: &str =
    "all spans of the set; newest first by (trace start, trace id), then by (start, span id)";
const FIGURES_METHOD: &str = "all spans of the set; own time: duration less the union of the children, clipped \
                              to the span; quantiles by selection with linear interpolation";
const COUNT_METHOD: &str = "all spans of the set";
const LIST_METHOD: &str = "all spans stored";

/// Answers `FindSpans`.
pub(super) fn find(
    query: &mut Query,
    asked: &v1::FindSpansRequest,
    range: TimeRange,
    sender: &Sender<v1::FindSpansResponse>,
) -> Result<(), Refusal> {
    let set = request::span_set(query, &asked.span_set)?;
    let mut left = match asked.limit {
        0 => u64::MAX,
        limit => limit,
    };
    let mut token = asked.page_token.clone();
    let mut message = v1::FindSpansResponse::default();
    let mut bytes = 0;
    let mut found_any = false;
    let mut refused = None;
    loop {
        let limit = usize::try_from(left.min(FOUND_SPANS_MAX as u64)).unwrap_or(FOUND_SPANS_MAX);
        let mut visit = |span: FoundSpan| {
            let span = found_span(&span);
            bytes += span.encoded_len();
            message.spans.push(span);
            if bytes >= MESSAGE_BYTES {
                bytes = 0;
                found_any = true;
                if let Err(error) = sender.send(std::mem::take(&mut message)) {
                    refused = Some(error);
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        let (snapshot, control) = (&query.snapshot, &query.control);
        let memory = &mut query.memory;
        let found = find_spans(
            snapshot, &set, range, limit, &token, control, memory, &mut visit,
        )?;
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        left = left.saturating_sub(found.spans);
        token = found.next.unwrap_or_default();
        if token.is_empty() || left == 0 {
            break;
        }
    }
    let mut info = request::span_info(query, range, FIND_METHOD);
    info.truncated = !token.is_empty();
    if message.spans.is_empty() && !found_any && asked.page_token.is_empty() {
        request::where_spans_lie(query, &set, &mut info)?;
    }
    message.next_page_token = token;
    message.info = Some(info);
    sender.send(message)
}

fn found_span(span: &FoundSpan) -> v1::FoundSpan {
    let parent = span.parent_span_id.map(|id| id.to_string());
    let parent_service = span.parent_service.as_deref();
    v1::FoundSpan {
        trace_id: span.trace_id.to_string(),
        span_id: span.span_id.to_string(),
        service: span.service.to_string(),
        name: span.name.to_string(),
        kind: span.kind.number(),
        status: span.status.number(),
        start_ns: span.start.as_nanos(),
        duration_ns: span.duration_ns,
        parent_service: parent_service.unwrap_or_default().to_owned(),
        parent_span_id: parent.unwrap_or_default(),
    }
}

/// Answers `AggregateSpans`.
pub(super) fn aggregate(
    query: &mut Query,
    asked: &v1::AggregateSpansRequest,
    range: TimeRange,
) -> Result<v1::AggregateSpansResponse, Refusal> {
    use v1::aggregate_spans_request::Of;
    let set = request::span_set(query, &asked.span_set)?;
    let measure = match Of::try_from(asked.of) {
        Ok(Of::Duration) => Some(SpanMeasure::Duration),
        Ok(Of::OwnTime) => Some(SpanMeasure::OwnTime),
        Ok(Of::Nothing) => None,
        Err(_) => {
            let of = asked.of;
            return Err(Refusal::invalid(format!(
                "figures of {of} are unknown here"
            )));
        }
    };
    let by = asked.by.iter().map(|by| group_key(by));
    let aggregation = SpanAggregation {
        by: by.collect::<Result<_, _>>()?,
        step_ns: (asked.step_ns > 0).then_some(asked.step_ns),
        figures: measure.map(|measure| WantedFigures {
            measure,
            quantiles: QUANTILES.iter().chain(&asked.quantiles).copied().collect(),
        }),
        groups_max: match asked.groups_max as usize {
            0 => SPAN_GROUPS_DEFAULT,
            max if max <= LISTED_MAX => max,
            max => {
                return Err(Refusal::invalid(format!(
                    "groups_max {max} is above {LISTED_MAX}"
                )));
            }
        },
    };
    let (snapshot, control) = (&query.snapshot, &query.control);
    let memory = &mut query.memory;
    let groups = aggregate_spans(snapshot, &set, range, &aggregation, control, memory)?;
    let method = if measure.is_some() {
        FIGURES_METHOD
    } else {
        COUNT_METHOD
    };
    let mut info = request::span_info(query, range, method);
    if groups.is_empty() {
        request::where_spans_lie(query, &set, &mut info)?;
    }
    let has_steps = aggregation.step_ns.is_some();
    let groups = groups.iter().flat_map(|group| {
        let points = group.points.iter();
        points.map(move |point| span_group(group, point, has_steps))
    });
    Ok(v1::AggregateSpansResponse {
        groups: groups.collect(),
        info: Some(info),
    })
}

fn span_group(group: &SpanGroup, point: &SpanPoint, has_steps: bool) -> v1::SpanGroup {
    let text = |value: &Option<rootline_engine::Value>| {
        value.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    let figures = point.figures.as_ref();
    let quantile = |i: usize| figures.and_then(|f| f.quantiles_ns.get(i).copied());
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures are doubles on the wire, as their comment says"
    )]
    let statistics = figures.map(|figures| v1::Statistics {
        count: point.spans,
        sum: Some(figures.sum_ns as f64),
        min: Some(figures.min_ns as f64),
        max: Some(figures.max_ns as f64),
        mean: Some(figures.mean_ns),
        stddev: None,
        p50: quantile(0),
        p95: quantile(1),
        p99: quantile(2),
    });
    v1::SpanGroup {
        by: group.by.iter().map(text).collect(),
        step_start_ns: has_steps.then(|| point.range.start().as_nanos()),
        spans: point.spans,
        errors: point.errors,
        spans_per_s: point.per_s,
        figures_ns: statistics,
        quantiles_ns: figures.map_or_else(Vec::new, |figures| {
            figures
                .quantiles_ns
                .iter()
                .skip(QUANTILES.len())
                .copied()
                .collect()
        }),
    }
}

/// What spans are grouped by, from its text.
fn group_key(text: &str) -> Result<SpanGroupKey, Refusal> {
    let scopes = [
        ("span.", TagScope::Span),
        ("resource.", TagScope::Resource),
        ("event.", TagScope::Event),
        ("link.", TagScope::Link),
        ("scope.", TagScope::Scope),
        (".", TagScope::Any),
    ];
    Ok(match text {
        "" => return Err(Refusal::invalid("what to group by is empty")),
        "service" => SpanGroupKey::Service,
        "operation" | "name" => SpanGroupKey::Operation,
        "kind" => SpanGroupKey::Kind,
        "status" => SpanGroupKey::Status,
        text => {
            let scoped = scopes
                .iter()
                .find_map(|(word, of)| Some((text.strip_prefix(word)?, *of)));
            let (key, of) = scoped.unwrap_or((text, TagScope::Any));
            if key.is_empty() {
                return Err(Refusal::invalid(format!("{text:?} names no attribute")));
            }
            SpanGroupKey::Attribute {
                key: key.to_owned(),
                of,
            }
        }
    })
}

fn limit(asked: u32) -> Result<usize, Refusal> {
    match asked as usize {
        0 => Ok(LISTED_DEFAULT),
        limit if limit <= LISTED_MAX => Ok(limit),
        limit => Err(Refusal::invalid(format!(
            "limit {limit} is above {LISTED_MAX}: ask with a prefix"
        ))),
    }
}

fn scope(asked: i32) -> Result<TagScope, Refusal> {
    Ok(match v1::TagScope::try_from(asked) {
        Ok(v1::TagScope::Any) => TagScope::Any,
        Ok(v1::TagScope::Span) => TagScope::Span,
        Ok(v1::TagScope::Resource) => TagScope::Resource,
        Ok(v1::TagScope::Event) => TagScope::Event,
        Ok(v1::TagScope::Link) => TagScope::Link,
        Ok(v1::TagScope::Scope) => TagScope::Scope,
        Err(_) => {
            return Err(Refusal::invalid(format!("scope {asked} is unknown here")));
        }
    })
}

fn scope_number(scope: TagScope) -> i32 {
    i32::from(match scope {
        TagScope::Any => v1::TagScope::Any,
        TagScope::Span => v1::TagScope::Span,
        TagScope::Resource => v1::TagScope::Resource,
        TagScope::Event => v1::TagScope::Event,
        TagScope::Link => v1::TagScope::Link,
        TagScope::Scope => v1::TagScope::Scope,
    })
}

fn type_number(kind: AttributeType) -> i32 {
    i32::from(match kind {
        AttributeType::Str => v1::TagType::String,
        AttributeType::Int => v1::TagType::Int,
        AttributeType::Double => v1::TagType::Double,
        AttributeType::Bool => v1::TagType::Bool,
        AttributeType::Other => v1::TagType::Other,
    })
}

/// Answers `ListTags`.
pub(super) fn tags(
    query: &Query,
    asked: &v1::ListTagsRequest,
) -> Result<v1::ListTagsResponse, Refusal> {
    let (limit, scope) = (limit(asked.limit)?, scope(asked.scope)?);
    let snapshot = &query.snapshot;
    // One more tells whether there are more.
    let mut names = snapshot.tag_names(scope, &asked.prefix, limit + 1, &query.control)?;
    let mut info = request::span_info(query, TimeRange::ALL, LIST_METHOD);
    info.truncated = names.len() > limit;
    info.empty = names.is_empty();
    names.truncate(limit);
    let tags = names.into_iter().map(|name| v1::Tag {
        key: name.key.to_string(),
        scope: scope_number(name.scope),
        types: name.types.into_iter().map(type_number).collect(),
        spans: name.spans,
    });
    Ok(v1::ListTagsResponse {
        tags: tags.collect(),
        info: Some(info),
    })
}

/// Answers `ListTagValues`.
pub(super) fn tag_values(
    query: &Query,
    asked: &v1::ListTagValuesRequest,
    sender: &Sender<v1::ListTagValuesResponse>,
) -> Result<(), Refusal> {
    if asked.key.is_empty() {
        return Err(Refusal::invalid("the key is empty"));
    }
    let (limit, scope) = (limit(asked.limit)?, scope(asked.scope)?);
    let (snapshot, key, prefix) = (&query.snapshot, &asked.key, &asked.prefix);
    let values = snapshot.tag_values(key, scope, prefix, limit + 1, &query.control)?;
    let mut info = request::span_info(query, TimeRange::ALL, LIST_METHOD);
    info.truncated = values.len() > limit;
    info.empty = values.is_empty();
    let mut message = v1::ListTagValuesResponse::default();
    let mut bytes = 0;
    for value in values.into_iter().take(limit) {
        query.control.check()?;
        let value = v1::TagValue {
            text: value.value,
            r#type: type_number(value.kind),
            spans: value.spans,
        };
        bytes += value.encoded_len();
        message.values.push(value);
        if bytes >= MESSAGE_BYTES {
            sender.send(std::mem::take(&mut message))?;
            bytes = 0;
        }
    }
    message.info = Some(info);
    sender.send(message)
}

/// Answers `ListServices`.
pub(super) fn services(
    query: &Query,
    range: TimeRange,
) -> Result<v1::ListServicesResponse, Refusal> {
    let services = query.snapshot.services(range, &query.control)?;
    let mut info = request::span_info(query, range, LIST_METHOD);
    info.empty = services.is_empty();
    Ok(v1::ListServicesResponse {
        services,
        info: Some(info),
    })
}

/// Answers `ListOperations`.
pub(super) fn operations(
    query: &Query,
    service: &str,
    range: TimeRange,
) -> Result<v1::ListOperationsResponse, Refusal> {
    let service = (!service.is_empty()).then_some(service);
    let operations = query.snapshot.operations(service, range, &query.control)?;
    let mut info = request::span_info(query, range, LIST_METHOD);
    info.empty = operations.is_empty();
    Ok(v1::ListOperationsResponse {
        operations,
        info: Some(info),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_keys_are_words_or_attributes_with_or_without_their_place() {
        let key = |key: &str, of| SpanGroupKey::Attribute {
            key: key.to_owned(),
            of,
        };
        for (text, expected) in [
            ("service", SpanGroupKey::Service),
            ("operation", SpanGroupKey::Operation),
            (".service", key("service", TagScope::Any)),
            ("http.route", key("http.route", TagScope::Any)),
            ("span.http.route", key("http.route", TagScope::Span)),
            ("resource.host.name", key("host.name", TagScope::Resource)),
        ] {
            assert_eq!(group_key(text).unwrap(), expected, "{text}");
        }
        for wrong in ["", ".", "span."] {
            assert!(group_key(wrong).is_err(), "{wrong}");
        }
    }
}
