//! Spans as messages: everything that OTLP carries.

use rootline_engine::{Attributes, Event, Link, Resource, Scope, Span, SpanId, TraceId, Value};

use super::v1;

pub(super) fn span(span: &Span) -> v1::Span {
    v1::Span {
        trace_id: span.trace_id.to_string(),
        span_id: span.span_id.to_string(),
        parent_span_id: span
            .parent_span_id
            .as_ref()
            .map(SpanId::to_string)
            .unwrap_or_default(),
        trace_state: span.trace_state.clone(),
        flags: span.flags,
        name: span.name.to_string(),
        kind: span.kind.number(),
        start_ns: span.start.as_nanos(),
        end_ns: span.end.as_nanos(),
        status: span.status.number(),
        status_message: span.status_message.clone(),
        attributes: attributes(&span.attributes),
        dropped_attributes_count: span.dropped_attributes_count,
        events: span.events.iter().map(event).collect(),
        dropped_events_count: span.dropped_events_count,
        links: span.links.iter().map(link).collect(),
        dropped_links_count: span.dropped_links_count,
    }
}

pub(super) fn resource(resource: &Resource) -> v1::Resource {
    v1::Resource {
        attributes: attributes(&resource.attributes),
        dropped_attributes_count: resource.dropped_attributes_count,
        schema_url: resource.schema_url.clone(),
        entity_refs: resource.entity_refs.clone(),
    }
}

pub(super) fn scope(scope: &Scope) -> v1::Scope {
    v1::Scope {
        name: scope.name.clone(),
        version: scope.version.clone(),
        attributes: attributes(&scope.attributes),
        dropped_attributes_count: scope.dropped_attributes_count,
        schema_url: scope.schema_url.clone(),
    }
}

fn event(event: &Event) -> v1::SpanEvent {
    v1::SpanEvent {
        time_ns: event.time.as_nanos(),
        name: event.name.clone(),
        attributes: attributes(&event.attributes),
        dropped_attributes_count: event.dropped_attributes_count,
    }
}

fn link(link: &Link) -> v1::SpanLink {
    v1::SpanLink {
        trace_id: link
            .trace_id
            .as_ref()
            .map(TraceId::to_string)
            .unwrap_or_default(),
        span_id: link
            .span_id
            .as_ref()
            .map(SpanId::to_string)
            .unwrap_or_default(),
        trace_state: link.trace_state.clone(),
        flags: link.flags,
        attributes: attributes(&link.attributes),
        dropped_attributes_count: link.dropped_attributes_count,
    }
}

fn attributes(attributes: &Attributes) -> Vec<v1::KeyValue> {
    attributes
        .iter()
        .map(|(key, v)| v1::KeyValue {
            key: key.to_string(),
            value: Some(value(v)),
        })
        .collect()
}

/// Stored values are nested at most [`rootline_engine::VALUE_DEPTH_MAX`] deep.
fn value(value: &Value) -> v1::Value {
    use v1::value::Value as V;
    let value = match value {
        Value::Empty => None,
        Value::Bool(v) => Some(V::BoolValue(*v)),
        Value::Int(v) => Some(V::IntValue(*v)),
        Value::Double(v) => Some(V::DoubleValue(*v)),
        Value::Str(v) => Some(V::StringValue(v.clone())),
        Value::Bytes(v) => Some(V::BytesValue(v.clone())),
        Value::Array(values) => Some(V::ListValue(v1::ValueList {
            values: values.iter().map(self::value).collect(),
        })),
        Value::KeyValues(entries) => Some(V::MapValue(v1::KeyValueList {
            entries: entries
                .iter()
                .map(|(key, v)| v1::KeyValue {
                    key: key.clone(),
                    value: Some(self::value(v)),
                })
                .collect(),
        })),
    };
    v1::Value { value }
}
