//! A span as it is answered: all that OTLP carries, owned.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::{
    id::{SpanId, TraceId},
    time::{TimeRange, Timestamp},
    value::Value,
    varint,
};

/// The resource attribute that names a service.
pub const SERVICE_NAME: &str = "service.name";

/// Attributes in the order they were sent, repeated keys kept.
pub type Attributes = Vec<(Arc<str>, Value)>;

/// What a span stands for in a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SpanKind {
    /// Not said.
    #[default]
    Unspecified = 0,
    /// Work inside a service.
    Internal = 1,
    /// The called side of a call.
    Server = 2,
    /// The calling side of a call.
    Client = 3,
    /// Sends a message.
    Producer = 4,
    /// Receives a message.
    Consumer = 5,
}

impl SpanKind {
    /// From OTLP's number; `None` for a number that OTLP does not know.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Unspecified,
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => return None,
        })
    }

    /// OTLP's number.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// Whether the span is the called side: a server or a consumer.
    #[inline]
    pub fn is_called_side(self) -> bool {
        matches!(self, Self::Server | Self::Consumer)
    }
}

/// How a span ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StatusCode {
    /// Not said.
    #[default]
    Unset = 0,
    /// Declared a success.
    Ok = 1,
    /// An error.
    Error = 2,
}

impl StatusCode {
    /// From OTLP's number; `None` for a number that OTLP does not know.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Unset,
            1 => Self::Ok,
            2 => Self::Error,
            _ => return None,
        })
    }

    /// OTLP's number.
    pub fn number(self) -> i32 {
        self as i32
    }
}

/// Who sent a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Attributes as sent.
    pub attributes: Attributes,
    /// Attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// Schema of the resource.
    pub schema_url: String,
    /// OTLP's `entity_refs` fields, byte for byte as they were sent; empty if there were none.
    pub entity_refs: Vec<u8>,
}

impl Resource {
    /// The service's name; empty if the resource does not say it as text.
    pub fn service(&self) -> &str {
        let mut named = self
            .attributes
            .iter()
            .filter(|(key, _)| &**key == SERVICE_NAME);
        named
            .next()
            .and_then(|(_, value)| value.as_str())
            .unwrap_or_default()
    }
}

/// Which instrumentation made a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Name of the library.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Attributes as sent.
    pub attributes: Attributes,
    /// Attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// Schema of the scope's spans.
    pub schema_url: String,
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// What.
    pub name: String,
    /// Attributes as sent.
    pub attributes: Attributes,
    /// Attributes the sender left out.
    pub dropped_attributes_count: u32,
}

/// A pointer to a span of this or another trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The trace pointed to; `None` if it was sent empty or as zeros.
    pub trace_id: Option<TraceId>,
    /// The span pointed to; `None` if it was sent empty or as zeros.
    pub span_id: Option<SpanId>,
    /// W3C trace state.
    pub trace_state: String,
    /// OTLP's flags.
    pub flags: u32,
    /// Attributes as sent.
    pub attributes: Attributes,
    /// Attributes the sender left out.
    pub dropped_attributes_count: u32,
}

/// One timed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id, unique in the trace by agreement only.
    pub span_id: SpanId,
    /// The id of the span that caused it, as sent.
    pub parent_span_id: Option<SpanId>,
    /// W3C trace state.
    pub trace_state: String,
    /// OTLP's flags.
    pub flags: u32,
    /// Name of the operation.
    pub name: Arc<str>,
    /// Role in a call.
    pub kind: SpanKind,
    /// When it began.
    pub start: Timestamp,
    /// When it ended; not before `start`.
    pub end: Timestamp,
    /// Attributes as sent.
    pub attributes: Attributes,
    /// Attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// Events in the order sent.
    pub events: Vec<Event>,
    /// Events the sender left out.
    pub dropped_events_count: u32,
    /// Links in the order sent.
    pub links: Vec<Link>,
    /// Links the sender left out.
    pub dropped_links_count: u32,
    /// How it ended.
    pub status: StatusCode,
    /// What is said about how it ended.
    pub status_message: String,
    /// Who sent it.
    pub resource: Arc<Resource>,
    /// What made it.
    pub scope: Arc<Scope>,
}

impl Span {
    /// The name of its service; empty if its resource does not say it.
    pub fn service(&self) -> &str {
        self.resource.service()
    }

    /// How long it took.
    pub fn duration_ns(&self) -> u64 {
        self.end
            .as_nanos()
            .wrapping_sub(self.start.as_nanos())
            .cast_unsigned()
    }

    /// The canonical encoding: attributes sorted by key, then value. Spans are the same span exactly
    /// if these bytes are equal.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let text = |out: &mut Vec<u8>, text: &str| varint::put_bytes(out, text.as_bytes());
        out.extend_from_slice(self.trace_id.as_bytes());
        out.extend_from_slice(self.span_id.as_bytes());
        out.extend_from_slice(&self.parent_span_id.map_or([0; 8], |id| *id.as_bytes()));
        text(&mut out, &self.trace_state);
        varint::put_u64(&mut out, u64::from(self.flags));
        text(&mut out, &self.name);
        out.push(self.kind as u8);
        varint::put_i64(&mut out, self.start.as_nanos());
        varint::put_u64(&mut out, self.duration_ns());
        put_attributes(&mut out, &self.attributes, self.dropped_attributes_count);
        varint::put_u64(&mut out, self.events.len() as u64);
        for event in &self.events {
            varint::put_i64(&mut out, event.time.as_nanos());
            text(&mut out, &event.name);
            put_attributes(&mut out, &event.attributes, event.dropped_attributes_count);
        }
        varint::put_u64(&mut out, u64::from(self.dropped_events_count));
        varint::put_u64(&mut out, self.links.len() as u64);
        for link in &self.links {
            out.extend_from_slice(&link.trace_id.map_or([0; 16], |id| *id.as_bytes()));
            out.extend_from_slice(&link.span_id.map_or([0; 8], |id| *id.as_bytes()));
            text(&mut out, &link.trace_state);
            varint::put_u64(&mut out, u64::from(link.flags));
            put_attributes(&mut out, &link.attributes, link.dropped_attributes_count);
        }
        varint::put_u64(&mut out, u64::from(self.dropped_links_count));
        out.push(self.status as u8);
        text(&mut out, &self.status_message);
        put_attributes(
            &mut out,
            &self.resource.attributes,
            self.resource.dropped_attributes_count,
        );
        text(&mut out, &self.resource.schema_url);
        varint::put_bytes(&mut out, &self.resource.entity_refs);
        text(&mut out, &self.scope.name);
        text(&mut out, &self.scope.version);
        put_attributes(
            &mut out,
            &self.scope.attributes,
            self.scope.dropped_attributes_count,
        );
        text(&mut out, &self.scope.schema_url);
        out
    }

    /// Hash of the canonical encoding, the same in every process: what orders spans that share
    /// trace, id and start.
    pub fn content_hash(&self) -> u128 {
        xxh3_128(&self.canonical_bytes())
    }
}

fn put_attributes(out: &mut Vec<u8>, attributes: &Attributes, dropped: u32) {
    let mut encoded: Vec<(&str, Vec<u8>)> = attributes
        .iter()
        .map(|(key, value)| {
            let mut bytes = Vec::new();
            // What was stored is not nested too deep; what an embedder built too deep is cut there.
            let _ = value.as_ref().encode(&mut bytes);
            (&**key, bytes)
        })
        .collect();
    encoded.sort_unstable();
    varint::put_u64(out, encoded.len() as u64);
    for (key, value) in encoded {
        varint::put_bytes(out, key.as_bytes());
        varint::put_bytes(out, &value);
    }
    varint::put_u64(out, u64::from(dropped));
}

/// The spans of one trace at a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Its id.
    pub id: TraceId,
    /// Sorted by (start, span id, content hash).
    pub spans: Vec<Span>,
    /// For each span the place of its parent in `spans`. Following them always ends: a cycle of
    /// parents is cut at its member with the least (start, id).
    pub parents: Vec<Option<u32>>,
}

/// What a list of traces says of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSummary {
    /// Its id.
    pub id: TraceId,
    /// Service of the root: of the spans without a parent at hand the one with least (start, id).
    pub root_service: Arc<str>,
    /// Operation of the root.
    pub root_name: Arc<str>,
    /// Whether the root was sent with a parent that is not (yet) here.
    pub root_is_orphan: bool,
    /// Earliest start.
    pub start: Timestamp,
    /// Latest end.
    pub end: Timestamp,
    /// Spans.
    pub spans: u64,
    /// Spans whose status is an error.
    pub errors: u64,
    /// The services in it, sorted, each with its spans and errors.
    pub services: Vec<ServiceCount>,
}

impl TraceSummary {
    /// From the earliest start to the latest end.
    pub fn range(&self) -> Option<TimeRange> {
        TimeRange::new(self.start, self.end).ok()
    }
}

/// A service's part in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCount {
    /// Its name.
    pub service: Arc<str>,
    /// Its spans.
    pub spans: u64,
    /// Those whose status is an error.
    pub errors: u64,
}
