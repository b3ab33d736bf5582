//! `ExportTraceServiceRequest` into a [`SpanBatch`]. Everything OTLP carries is kept.
//!
//! Invariants
//! - A malformed message refuses the whole request, and the batch is left empty.
//! - A span that cannot be kept costs only itself and is counted with the first reason; a resource
//!   or scope that cannot be kept costs its spans.
//! - The bytes are walked where they lie. Each message may give its fields in any order and in
//!   pieces: what a span needs of its resource and scope is read in a walk of its own before.
//!
//! Refused for good: a trace or span id of a wrong length or all zero, a parent or link id of a
//! wrong length (empty and all zero mean none), times past the year 2262, an end before the start,
//! text that is not UTF-8, values nested too deep. Kinds and status codes that OTLP does not know
//! count as unspecified, as its enums ask for.

use std::fmt;

use rootline_engine::{
    LinkFields, Rejections, ResourceFields, ResourceRow, ScopeFields, ScopeRow, SpanBatch,
    SpanFields, SpanId, SpanKind, SpanWriter, StatusCode, Timestamp, TraceId, ValueRef,
};

use super::{
    any_value::{EngineValue, Fault, key_value, string},
    error::DecodeError,
    series::put_length,
    wire::{Message, bytes_key, fixed64_key, int32, varint_key},
};

/// Appends the spans of an encoded `ExportTraceServiceRequest` to `batch`.
///
/// # Errors
/// The message is malformed; `batch` is then empty.
pub fn decode_traces(
    bytes: &[u8],
    batch: &mut SpanBatch,
    rejections: &mut Rejections,
) -> Result<(), DecodeError> {
    let decoded = request(Message::root(bytes), batch, rejections);
    if decoded.is_err() {
        batch.clear();
    }
    decoded
}

fn request(
    message: Message<'_>,
    batch: &mut SpanBatch,
    rejections: &mut Rejections,
) -> Result<(), DecodeError> {
    let mut owner = Owner::default();
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            resource_spans(field.message()?, batch, rejections, &mut owner)?;
        }
    }
    Ok(())
}

/// What a resource or a scope says; the room is used for all of a request.
#[derive(Default)]
struct Owner<'a> {
    name: &'a str,
    version: &'a str,
    schema_url: &'a str,
    dropped_attributes_count: u32,
    attributes: Vec<(&'a str, EngineValue<'a>)>,
    entity_refs: Vec<u8>,
}

impl<'a> Owner<'a> {
    fn clear(&mut self) {
        self.attributes.clear();
        self.entity_refs.clear();
        (self.name, self.version, self.schema_url) = ("", "", "");
        self.dropped_attributes_count = 0;
    }

    fn attribute(&mut self, message: Message<'a>) -> Result<(), Fault> {
        let (key, value) = key_value(message)?;
        self.attributes.push((key, value.for_engine()?));
        Ok(())
    }

    fn read_resource(&mut self, resource_spans: Message<'a>) -> Result<(), Fault> {
        self.clear();
        let mut fields = resource_spans.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.add_resource(field.message()?)?,
                3 => self.schema_url = string(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn add_resource(&mut self, resource: Message<'a>) -> Result<(), Fault> {
        let mut fields = resource.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.attribute(field.message()?)?,
                2 => self.dropped_attributes_count = field.uint32()?,
                3 => {
                    let entity = field.message()?;
                    let mut inner = entity.fields();
                    while inner.next()?.is_some() {}
                    // Tag of field 3, length-delimited.
                    self.entity_refs.push(0x1a);
                    put_length(&mut self.entity_refs, entity.bytes().len());
                    self.entity_refs.extend_from_slice(entity.bytes());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_scope(&mut self, scope_spans: Message<'a>) -> Result<(), Fault> {
        self.clear();
        let mut fields = scope_spans.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.add_scope(field.message()?)?,
                3 => self.schema_url = string(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn add_scope(&mut self, scope: Message<'a>) -> Result<(), Fault> {
        let mut fields = scope.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.name = string(field.bytes()?)?,
                2 => self.version = string(field.bytes()?)?,
                3 => self.attribute(field.message()?)?,
                4 => self.dropped_attributes_count = field.uint32()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn attributes(&self) -> Vec<(&str, ValueRef<'_>)> {
        self.attributes
            .iter()
            .map(|(key, value)| (*key, value.as_ref()))
            .collect()
    }
}

fn resource_spans<'a>(
    message: Message<'a>,
    batch: &mut SpanBatch,
    rejections: &mut Rejections,
    owner: &mut Owner<'a>,
) -> Result<(), DecodeError> {
    let row = match owner.read_resource(message) {
        Ok(()) => batch
            .resource(&ResourceFields {
                attributes: &owner.attributes(),
                dropped_attributes_count: owner.dropped_attributes_count,
                schema_url: owner.schema_url,
                entity_refs: &owner.entity_refs,
            })
            .map_err(|e| e.to_string()),
        Err(Fault::Request(error)) => return Err(error),
        Err(Fault::Item(reason)) => Err(reason.to_owned()),
    };
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        if field.number != 2 {
            continue;
        }
        let scope = field.message()?;
        match &row {
            Ok(resource) => scope_spans(scope, batch, rejections, owner, *resource)?,
            Err(reason) => {
                rejections
                    .reject_spans(spans_in(scope)?, format_args!("resource refused: {reason}"));
            }
        }
    }
    Ok(())
}

fn scope_spans<'a>(
    message: Message<'a>,
    batch: &mut SpanBatch,
    rejections: &mut Rejections,
    owner: &mut Owner<'a>,
    resource: ResourceRow,
) -> Result<(), DecodeError> {
    let row = match owner.read_scope(message) {
        Ok(()) => batch
            .scope(&ScopeFields {
                name: owner.name,
                version: owner.version,
                attributes: &owner.attributes(),
                dropped_attributes_count: owner.dropped_attributes_count,
                schema_url: owner.schema_url,
            })
            .map_err(|e| e.to_string()),
        Err(Fault::Request(error)) => return Err(error),
        Err(Fault::Item(reason)) => Err(reason.to_owned()),
    };
    let scope = match row {
        Ok(scope) => scope,
        Err(reason) => {
            let spans = spans_in(message)?;
            rejections.reject_spans(
                spans,
                format_args!("instrumentation scope refused: {reason}"),
            );
            return Ok(());
        }
    };
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        if field.number == 2 {
            match span(field.message()?, batch, resource, scope) {
                Ok(()) => {}
                Err(SpanFault::Request(error)) => return Err(error),
                Err(SpanFault::Span(reason)) => rejections.reject_spans(1, reason),
            }
        }
    }
    Ok(())
}

fn spans_in(scope_spans: Message<'_>) -> Result<u64, DecodeError> {
    let mut spans = 0;
    let mut fields = scope_spans.fields();
    while let Some(field) = fields.next()? {
        if field.number == 2 {
            field.message()?;
            spans += 1;
        }
    }
    Ok(spans)
}

/// Why a span, or the whole request, cannot be taken.
enum SpanFault {
    Request(DecodeError),
    Span(SpanRefusal),
}

enum SpanRefusal {
    /// A field that must hold an id of so many bytes.
    Id {
        field: &'static str,
        bytes: usize,
        want: usize,
    },
    ZeroId(&'static str),
    Time {
        field: &'static str,
        value: u64,
    },
    Value(&'static str),
    Engine(rootline_engine::Error),
}

impl fmt::Display for SpanRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id { field, bytes, want } => {
                write!(
                    f,
                    "span refused: {field} has {bytes} bytes instead of {want}"
                )
            }
            Self::ZeroId(field) => write!(f, "span refused: {field} is all zero"),
            Self::Time { field, value } => {
                write!(f, "span refused: {field} {value} is past the year 2262")
            }
            Self::Value(reason) => write!(f, "span refused: {reason}"),
            Self::Engine(error) => write!(f, "span refused: {error}"),
        }
    }
}

impl From<DecodeError> for SpanFault {
    fn from(error: DecodeError) -> Self {
        Self::Request(error)
    }
}

impl From<Fault> for SpanFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Request(error) => Self::Request(error),
            Fault::Item(reason) => Self::Span(SpanRefusal::Value(reason)),
        }
    }
}

/// Ids as sent, before it is known whether they are ids.
fn trace_id(field: &'static str, bytes: &[u8]) -> Result<Option<TraceId>, SpanFault> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(id) => Ok(TraceId::new(id)),
        Err(_) if bytes.is_empty() => Ok(None),
        Err(_) => Err(SpanFault::Span(SpanRefusal::Id {
            field,
            bytes: bytes.len(),
            want: 16,
        })),
    }
}

fn span_id(field: &'static str, bytes: &[u8]) -> Result<Option<SpanId>, SpanFault> {
    match <[u8; 8]>::try_from(bytes) {
        Ok(id) => Ok(SpanId::new(id)),
        Err(_) if bytes.is_empty() => Ok(None),
        Err(_) => Err(SpanFault::Span(SpanRefusal::Id {
            field,
            bytes: bytes.len(),
            want: 8,
        })),
    }
}

fn required<T>(
    field: &'static str,
    sent: &[u8],
    id: Option<T>,
    want: usize,
) -> Result<T, SpanFault> {
    id.ok_or_else(|| {
        SpanFault::Span(if sent.is_empty() {
            SpanRefusal::Id {
                field,
                bytes: 0,
                want,
            }
        } else {
            SpanRefusal::ZeroId(field)
        })
    })
}

fn time(field: &'static str, unix_nanos: u64) -> Result<Timestamp, SpanFault> {
    Timestamp::from_unix_nanos(unix_nanos).map_err(|_| {
        SpanFault::Span(SpanRefusal::Time {
            field,
            value: unix_nanos,
        })
    })
}

const TRACE: u8 = bytes_key(1);
const ID: u8 = bytes_key(2);
const PARENT: u8 = bytes_key(4);
const NAME: u8 = bytes_key(5);
const KIND: u8 = varint_key(6);
const START: u8 = fixed64_key(7);
const END: u8 = fixed64_key(8);
const ATTRIBUTE: u8 = bytes_key(9);

fn span(
    message: Message<'_>,
    batch: &mut SpanBatch,
    resource: ResourceRow,
    scope: ScopeRow,
) -> Result<(), SpanFault> {
    let (mut trace, mut id, mut parent): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let (mut name, mut trace_state, mut status_message) = ("", "", "");
    let (mut start, mut end) = (0, 0);
    let (mut kind, mut status, mut flags) = (0, 0, 0);
    let (mut dropped_attributes_count, mut dropped_events_count, mut dropped_links_count) =
        (0, 0, 0);
    let mut writer = batch.span(resource, scope);
    let mut fields = message.fields();
    // The fields that nearly every span has are read straight off the bytes; whatever else comes,
    // and whatever is of another type than it should be, is read in general.
    loop {
        match fields.peek() {
            Some(TRACE) => trace = fields.known_bytes()?,
            Some(ID) => id = fields.known_bytes()?,
            Some(PARENT) => parent = fields.known_bytes()?,
            Some(NAME) => name = string(fields.known_bytes()?)?,
            Some(KIND) => kind = int32(fields.known_varint()?),
            Some(START) => start = fields.known_fixed64()?,
            Some(END) => end = fields.known_fixed64()?,
            Some(ATTRIBUTE) => attribute(fields.known_message()?, &mut writer)?,
            _ => {
                let Some(field) = fields.next()? else { break };
                match field.number {
                    1 => trace = field.bytes()?,
                    2 => id = field.bytes()?,
                    3 => trace_state = string(field.bytes()?)?,
                    4 => parent = field.bytes()?,
                    5 => name = string(field.bytes()?)?,
                    6 => kind = field.int32()?,
                    7 => start = field.fixed64()?,
                    8 => end = field.fixed64()?,
                    9 => attribute(field.message()?, &mut writer)?,
                    10 => dropped_attributes_count = field.uint32()?,
                    11 => event(field.message()?, &mut writer)?,
                    12 => dropped_events_count = field.uint32()?,
                    13 => link(field.message()?, &mut writer)?,
                    14 => dropped_links_count = field.uint32()?,
                    15 => {
                        let mut inner = field.message()?.fields();
                        while let Some(field) = inner.next()? {
                            match field.number {
                                2 => status_message = string(field.bytes()?)?,
                                3 => status = field.int32()?,
                                _ => {}
                            }
                        }
                    }
                    16 => flags = field.fixed32()?,
                    _ => {}
                }
            }
        }
    }
    let fields = SpanFields {
        trace_id: required("trace_id", trace, trace_id("trace_id", trace)?, 16)?,
        span_id: required("span_id", id, span_id("span_id", id)?, 8)?,
        parent_span_id: span_id("parent_span_id", parent)?,
        name,
        kind: SpanKind::from_number(kind).unwrap_or_default(),
        start: time("start_time_unix_nano", start)?,
        end: time("end_time_unix_nano", end)?,
        status: StatusCode::from_number(status).unwrap_or_default(),
        status_message,
        trace_state,
        flags,
        dropped_attributes_count,
        dropped_events_count,
        dropped_links_count,
    };
    writer
        .finish(&fields)
        .map_err(|error| SpanFault::Span(SpanRefusal::Engine(error)))
}

/// An attribute is read only where its bytes come for the first time in the request.
#[inline]
fn attribute(message: Message<'_>, writer: &mut SpanWriter<'_>) -> Result<(), SpanFault> {
    if let Err(unseen) = writer.attribute_again(message.bytes()) {
        let (key, value) = key_value(message)?;
        writer.attribute_first(unseen, key, value.for_engine()?.as_ref());
    }
    Ok(())
}

fn event(message: Message<'_>, writer: &mut SpanWriter<'_>) -> Result<(), SpanFault> {
    let (mut at, mut name, mut dropped, mut attributes) = (0, "", 0, false);
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => at = field.fixed64()?,
            2 => name = string(field.bytes()?)?,
            3 => attributes = true,
            4 => dropped = field.uint32()?,
            _ => {}
        }
    }
    writer.event(time("an event's time_unix_nano", at)?, name, dropped);
    if attributes {
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            if field.number == 3 {
                let (key, value) = key_value(field.message()?)?;
                writer.event_attribute(key, value.for_engine()?.as_ref());
            }
        }
    }
    Ok(())
}

fn link(message: Message<'_>, writer: &mut SpanWriter<'_>) -> Result<(), SpanFault> {
    let (mut trace, mut id): (&[u8], &[u8]) = (&[], &[]);
    let (mut trace_state, mut flags, mut dropped, mut attributes) = ("", 0, 0, false);
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => trace = field.bytes()?,
            2 => id = field.bytes()?,
            3 => trace_state = string(field.bytes()?)?,
            4 => attributes = true,
            5 => dropped = field.uint32()?,
            6 => flags = field.fixed32()?,
            _ => {}
        }
    }
    writer.link(&LinkFields {
        trace_id: trace_id("a link's trace_id", trace)?,
        span_id: span_id("a link's span_id", id)?,
        trace_state,
        flags,
        dropped_attributes_count: dropped,
    });
    if attributes {
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            if field.number == 4 {
                let (key, value) = key_value(field.message()?)?;
                writer.link_attribute(key, value.for_engine()?.as_ref());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
