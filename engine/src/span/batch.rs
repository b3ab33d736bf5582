//! Spans on their way in: columnar, with dictionaries of the batch's own.
//!
//! Every distinct text, attribute, resource, scope and class (what spans of one operation share) is
//! kept once and numbered; a span is a row of numbers. The log record holds the same columns
//! (`crate::record::spans`), so what is replayed is what was sent.
//!
//! Invariants
//! - Rows refer to dictionary entries that exist; places in the columns rise from row to row.
//! - A span that is not finished, or whose `finish` fails, leaves nothing behind.
//! - After warm-up, pushing a span allocates nothing.

use hashbrown::HashTable;

use super::{
    dictionary::{Tags, Texts, number},
    hash,
    model::{SpanKind, StatusCode},
    rest::{EventHead, LinkHead, Rest},
};
use crate::{
    error::Error,
    id::{SpanId, TraceId},
    time::Timestamp,
    value::ValueRef,
};

/// Bytes of dictionaries and rest that one batch may hold: far above a request's bound of 64 MiB,
/// far below what 32-bit places can name.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// A resource of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceRow(u32);

/// A scope of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeRow(u32);

/// What a sender says of a resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceFields<'a> {
    /// Attributes in the order sent.
    pub attributes: &'a [(&'a str, ValueRef<'a>)],
    /// Attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// Schema of the resource.
    pub schema_url: &'a str,
    /// OTLP's `entity_refs` fields as sent, byte for byte (tags and lengths included).
    pub entity_refs: &'a [u8],
}

/// What a sender says of a scope.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScopeFields<'a> {
    /// Name of the library.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Attributes in the order sent.
    pub attributes: &'a [(&'a str, ValueRef<'a>)],
    /// Attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// Schema of the scope's spans.
    pub schema_url: &'a str,
}

/// The plain fields of a span.
#[derive(Clone, Copy, Debug)]
pub struct SpanFields<'a> {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The id of the span that caused it.
    pub parent_span_id: Option<SpanId>,
    /// Name of the operation.
    pub name: &'a str,
    /// Role in a call.
    pub kind: SpanKind,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// How it ended.
    pub status: StatusCode,
    /// What is said about how it ended.
    pub status_message: &'a str,
    /// W3C trace state.
    pub trace_state: &'a str,
    /// OTLP's flags.
    pub flags: u32,
    /// Attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// Events the sender left out.
    pub dropped_events_count: u32,
    /// Links the sender left out.
    pub dropped_links_count: u32,
}

impl<'a> SpanFields<'a> {
    /// A span of these times and name, everything else unsaid.
    pub fn new(
        trace_id: TraceId,
        span_id: SpanId,
        name: &'a str,
        start: Timestamp,
        end: Timestamp,
    ) -> Self {
        Self {
            trace_id,
            span_id,
            parent_span_id: None,
            name,
            kind: SpanKind::Unspecified,
            start,
            end,
            status: StatusCode::Unset,
            status_message: "",
            trace_state: "",
            flags: 0,
            dropped_attributes_count: 0,
            dropped_events_count: 0,
            dropped_links_count: 0,
        }
    }
}

/// What a sender says of a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkFields<'a> {
    /// The trace pointed to.
    pub trace_id: Option<TraceId>,
    /// The span pointed to.
    pub span_id: Option<SpanId>,
    /// W3C trace state.
    pub trace_state: &'a str,
    /// OTLP's flags.
    pub flags: u32,
    /// Attributes the sender left out.
    pub dropped_attributes_count: u32,
}

/// What spans of one operation share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) resource: u32,
    pub(crate) scope: u32,
    /// Text number.
    pub(crate) name: u32,
    pub(crate) flags: u32,
    pub(crate) kind: SpanKind,
    pub(crate) status: StatusCode,
}

/// A resource or scope: tags stand in `SpanData::lists` up to `tags_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) tags_end: u32,
    pub(crate) dropped: u32,
    pub(crate) schema_url: u32,
    /// Resource: entity references. Scope: name.
    pub(crate) first: u32,
    /// Resource: unused. Scope: version.
    pub(crate) second: u32,
}

/// A span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) start_ns: i64,
    pub(crate) duration_ns: u64,
    pub(crate) span_id: [u8; 8],
    /// Zeros if there is none.
    pub(crate) parent_id: [u8; 8],
    /// Place in `SpanData::traces`.
    pub(crate) trace: u32,
    /// Place in `SpanData::classes`.
    pub(crate) class: u32,
    /// Its tags end here in `SpanData::span_tags` and begin where the row before ends.
    pub(crate) tags_end: u32,
    /// Likewise in `SpanData::rests`.
    pub(crate) rest_end: u32,
}

/// The columns of a batch.
#[derive(Debug, Default)]
pub(crate) struct SpanData {
    pub(crate) texts: Texts,
    pub(crate) tags: Tags,
    pub(crate) resources: Vec<Owner>,
    pub(crate) resource_tags: Vec<u32>,
    pub(crate) scopes: Vec<Owner>,
    pub(crate) scope_tags: Vec<u32>,
    pub(crate) classes: Vec<Class>,
    pub(crate) traces: Vec<TraceId>,
    pub(crate) rows: Vec<Row>,
    pub(crate) span_tags: Vec<u32>,
    pub(crate) rests: Vec<u8>,
}

impl SpanData {
    /// The tags of a row, as sent.
    #[inline]
    pub(crate) fn tags_of(&self, row: usize) -> &[u32] {
        let from = row
            .checked_sub(1)
            .and_then(|r| self.rows.get(r))
            .map_or(0, |r| r.tags_end);
        let to = self.rows.get(row).map_or(0, |r| r.tags_end);
        self.span_tags
            .get(from as usize..to as usize)
            .unwrap_or_default()
    }

    /// The rest of a row; empty for most.
    #[inline]
    pub(crate) fn rest_of(&self, row: usize) -> &[u8] {
        let from = row
            .checked_sub(1)
            .and_then(|r| self.rows.get(r))
            .map_or(0, |r| r.rest_end);
        let to = self.rows.get(row).map_or(0, |r| r.rest_end);
        self.rests
            .get(from as usize..to as usize)
            .unwrap_or_default()
    }

    /// The tags of a resource, as sent.
    pub(crate) fn resource_tags_of(&self, resource: usize) -> &[u32] {
        owner_tags(&self.resources, &self.resource_tags, resource)
    }

    /// The tags of a scope, as sent.
    pub(crate) fn scope_tags_of(&self, scope: usize) -> &[u32] {
        owner_tags(&self.scopes, &self.scope_tags, scope)
    }

    /// Keeps the rows for which `keep` holds, and their traces; other dictionaries stay as they are.
    pub(crate) fn retain_rows(&mut self, mut keep: impl FnMut(&Row) -> bool) {
        let rows = std::mem::take(&mut self.rows);
        let span_tags = std::mem::take(&mut self.span_tags);
        let rests = std::mem::take(&mut self.rests);
        let traces = std::mem::take(&mut self.traces);
        // Traces are numbered in the order of their first rows.
        let mut places = vec![u32::MAX; traces.len()];
        let (mut tags_from, mut rest_from) = (0, 0);
        for row in rows {
            let tags = span_tags.get(tags_from as usize..row.tags_end as usize);
            let rest = rests.get(rest_from as usize..row.rest_end as usize);
            (tags_from, rest_from) = (row.tags_end, row.rest_end);
            let place = places.get_mut(row.trace as usize);
            let id = traces.get(row.trace as usize);
            if keep(&row)
                && let (Some(place), Some(&id)) = (place, id)
            {
                if *place == u32::MAX {
                    *place = number(self.traces.len());
                    self.traces.push(id);
                }
                self.span_tags.extend_from_slice(tags.unwrap_or_default());
                self.rests.extend_from_slice(rest.unwrap_or_default());
                self.rows.push(Row {
                    trace: *place,
                    tags_end: number(self.span_tags.len()),
                    rest_end: number(self.rests.len()),
                    ..row
                });
            }
        }
    }

    /// Forgets all, keeps the room.
    pub(crate) fn clear(&mut self) {
        self.texts.clear();
        self.tags.clear();
        self.resources.clear();
        self.resource_tags.clear();
        self.scopes.clear();
        self.scope_tags.clear();
        self.classes.clear();
        self.traces.clear();
        self.rows.clear();
        self.span_tags.clear();
        self.rests.clear();
    }

    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.texts.heap_bytes()
            + self.tags.heap_bytes()
            + (self.resources.capacity() + self.scopes.capacity()) * size_of::<Owner>()
            + self.classes.capacity() * size_of::<Class>()
            + self.traces.capacity() * size_of::<TraceId>()
            + self.rows.capacity() * size_of::<Row>()
            + (self.span_tags.capacity()
                + self.resource_tags.capacity()
                + self.scope_tags.capacity())
                * size_of::<u32>()
            + self.rests.capacity()
    }
}

fn owner_tags<'a>(owners: &[Owner], tags: &'a [u32], i: usize) -> &'a [u32] {
    let from = i
        .checked_sub(1)
        .and_then(|o| owners.get(o))
        .map_or(0, |o| o.tags_end);
    let to = owners.get(i).map_or(0, |o| o.tags_end);
    tags.get(from as usize..to as usize).unwrap_or_default()
}

/// Finds what a batch already has. A decoder does not need these.
#[derive(Debug, Default)]
struct Lookups {
    owners: HashTable<(u32, bool)>,
    classes: HashTable<u32>,
    traces: HashTable<u32>,
    /// Attributes of spans as the bytes they were sent as, and their tags.
    sent: Texts,
    sent_tags: Vec<u32>,
}

/// Bytes that an attribute was sent as, which the batch has not seen before.
#[derive(Clone, Copy, Debug)]
pub struct UnseenAttribute<'s> {
    sent: &'s [u8],
    hash: u64,
}

/// A batch of spans. Reuse it: after a few requests it allocates nothing.
#[derive(Debug, Default)]
pub struct SpanBatch {
    pub(crate) data: SpanData,
    lookups: Lookups,
    scratch: Rest,
}

impl SpanBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spans in it.
    pub fn len(&self) -> usize {
        self.data.rows.len()
    }

    /// Whether it holds no span.
    pub fn is_empty(&self) -> bool {
        self.data.rows.is_empty()
    }

    /// Forgets all, keeps the room.
    pub fn clear(&mut self) {
        self.data.clear();
        self.lookups.owners.clear();
        self.lookups.classes.clear();
        self.lookups.traces.clear();
        self.lookups.sent.clear();
        self.lookups.sent_tags.clear();
    }

    /// Bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.data.heap_bytes()
            + self.lookups.owners.capacity() * 9
            + (self.lookups.classes.capacity() + self.lookups.traces.capacity()) * 5
            + self.lookups.sent.heap_bytes()
            + self.lookups.sent_tags.capacity() * size_of::<u32>()
    }

    /// Keeps the spans of traces for which `keep` holds.
    pub(crate) fn keep_traces(&mut self, keep: impl Fn(TraceId) -> bool) {
        let kept: Vec<bool> = self.data.traces.iter().map(|id| keep(*id)).collect();
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let is_kept = |trace: u32| kept.get(trace as usize).copied().unwrap_or(false);
        self.data.retain_rows(|row| is_kept(row.trace));
        // Traces have other numbers now.
        self.lookups.traces.clear();
    }

    /// Takes the columns out, leaving `instead` (empty) in their place.
    pub(crate) fn take(&mut self, instead: SpanData) -> SpanData {
        let data = std::mem::replace(&mut self.data, instead);
        self.clear();
        data
    }

    /// Adds a resource, or finds it if the batch has it already.
    ///
    /// # Errors
    /// [`Error::InvalidSpan`] for a value nested too deep: the resource's spans cannot be stored.
    pub fn resource(&mut self, fields: &ResourceFields<'_>) -> Result<ResourceRow, Error> {
        let schema_url = self.data.texts.intern(fields.schema_url.as_bytes());
        let first = self.data.texts.intern(fields.entity_refs);
        let owner = Owner {
            tags_end: 0,
            dropped: fields.dropped_attributes_count,
            schema_url,
            first,
            second: 0,
        };
        self.owner(owner, fields.attributes, true).map(ResourceRow)
    }

    /// Adds a scope, or finds it if the batch has it already.
    ///
    /// # Errors
    /// [`Error::InvalidSpan`] for a value nested too deep: the scope's spans cannot be stored.
    pub fn scope(&mut self, fields: &ScopeFields<'_>) -> Result<ScopeRow, Error> {
        let texts = &mut self.data.texts;
        let owner = Owner {
            tags_end: 0,
            dropped: fields.dropped_attributes_count,
            schema_url: texts.intern(fields.schema_url.as_bytes()),
            first: texts.intern(fields.name.as_bytes()),
            second: texts.intern(fields.version.as_bytes()),
        };
        self.owner(owner, fields.attributes, false).map(ScopeRow)
    }

    fn owner(
        &mut self,
        mut owner: Owner,
        attributes: &[(&str, ValueRef<'_>)],
        is_resource: bool,
    ) -> Result<u32, Error> {
        let SpanData {
            texts,
            tags,
            resources,
            resource_tags,
            scopes,
            scope_tags,
            ..
        } = &mut self.data;
        let (owners, lists) = if is_resource {
            (resources, resource_tags)
        } else {
            (scopes, scope_tags)
        };
        let start = lists.len();
        for &(key, value) in attributes {
            match tags.intern(texts, key, value) {
                Ok(tag) => lists.push(tag),
                Err(error) => {
                    lists.truncate(start);
                    let reason = format!("attribute {key:?}: {error}");
                    return Err(Error::InvalidSpan { reason });
                }
            }
        }
        owner.tags_end = number(lists.len());
        let hash_of = |owner: &Owner, list: &[u32]| {
            let seed = hash::of_pair(hash::seed(), owner.dropped.into(), owner.schema_url.into());
            let own = hash::of_pair(seed, owner.first.into(), owner.second.into());
            list.iter()
                .fold(own, |sum, &tag| hash::of_pair(sum, tag.into(), 0))
        };
        let list = lists.get(start..).unwrap_or_default();
        let hash = hash_of(&owner, list);
        let found = self.lookups.owners.find(hash, |&(id, resource)| {
            resource == is_resource
                && owner_tags(owners, lists, id as usize) == list
                && owners.get(id as usize).is_some_and(|o| {
                    Owner {
                        tags_end: owner.tags_end,
                        ..*o
                    } == owner
                })
        });
        if let Some(&(id, _)) = found {
            lists.truncate(start);
            return Ok(id);
        }
        let id = number(owners.len());
        owners.push(owner);
        let SpanData {
            resources,
            resource_tags,
            scopes,
            scope_tags,
            ..
        } = &self.data;
        self.lookups
            .owners
            .insert_unique(hash, (id, is_resource), |&(id, resource)| {
                let (owners, lists) = if resource {
                    (resources, resource_tags)
                } else {
                    (scopes, scope_tags)
                };
                let list = owner_tags(owners, lists, id as usize);
                owners
                    .get(id as usize)
                    .map_or(0, |owner| hash_of(owner, list))
            });
        Ok(id)
    }

    /// Begins a span: push its attributes, events and links, then [`SpanWriter::finish`] it.
    pub fn span(&mut self, resource: ResourceRow, scope: ScopeRow) -> SpanWriter<'_> {
        self.scratch.clear();
        SpanWriter {
            texts: self.data.texts.len(),
            tags: self.data.tags.len(),
            span_tags: self.data.span_tags.len(),
            sent: self.lookups.sent.len(),
            resource: resource.0,
            scope: scope.0,
            refused: None,
            finished: false,
            batch: self,
        }
    }

    fn class(&mut self, class: Class) -> u32 {
        // Spans of one operation often come in a row.
        if let Some(last) = self.data.rows.last()
            && self.data.classes.get(last.class as usize) == Some(&class)
        {
            return last.class;
        }
        let hash = class_hash(&class);
        let classes = &mut self.data.classes;
        let found = self
            .lookups
            .classes
            .find(hash, |&id| classes.get(id as usize) == Some(&class));
        if let Some(&id) = found {
            return id;
        }
        let id = number(classes.len());
        classes.push(class);
        self.lookups.classes.insert_unique(hash, id, |&id| {
            classes.get(id as usize).map_or(0, class_hash)
        });
        id
    }

    fn trace(&mut self, trace: TraceId) -> u32 {
        let hash_of = |id: &TraceId| hash::of_bytes(hash::seed(), id.as_bytes());
        let hash = hash_of(&trace);
        let traces = &mut self.data.traces;
        let found = self
            .lookups
            .traces
            .find(hash, |&id| traces.get(id as usize) == Some(&trace));
        if let Some(&id) = found {
            return id;
        }
        let id = number(traces.len());
        traces.push(trace);
        self.lookups
            .traces
            .insert_unique(hash, id, |&id| traces.get(id as usize).map_or(0, hash_of));
        id
    }
}

#[inline]
pub(crate) fn class_hash(class: &Class) -> u64 {
    let owner = u64::from(class.resource) << 32 | u64::from(class.scope);
    let own = u64::from(class.name) << 32 | u64::from(class.flags);
    let codes = u64::from(class.kind as u8) << 8 | u64::from(class.status as u8);
    hash::of_pair(hash::seed().wrapping_add(codes), owner, own)
}

/// A span being written. Dropped without [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct SpanWriter<'b> {
    batch: &'b mut SpanBatch,
    /// Lengths to go back to.
    texts: usize,
    tags: usize,
    span_tags: usize,
    sent: usize,
    resource: u32,
    scope: u32,
    refused: Option<String>,
    finished: bool,
}

impl SpanWriter<'_> {
    /// Adds an attribute of the span. Order and repeated keys are kept.
    #[inline]
    pub fn attribute(&mut self, key: &str, value: ValueRef<'_>) {
        if let Some(tag) = self.tag(key, value) {
            self.batch.data.span_tags.push(tag);
        }
    }

    /// Adds an attribute by the bytes it was sent as, without reading them: most attributes of a
    /// request come again and again. Whatever the sender's encoding is, equal bytes must mean equal
    /// attributes.
    ///
    /// # Errors
    /// Nothing was added, because no attribute of a span was sent as these bytes yet:
    /// [`attribute_first`](Self::attribute_first) takes what they say.
    #[inline]
    pub fn attribute_again<'s>(&mut self, sent: &'s [u8]) -> Result<(), UnseenAttribute<'s>> {
        let hash = Texts::hash(sent);
        let SpanBatch { data, lookups, .. } = &mut *self.batch;
        let known = lookups.sent.find(hash, sent);
        match known.and_then(|id| lookups.sent_tags.get(id as usize)) {
            Some(&tag) => {
                data.span_tags.push(tag);
                Ok(())
            }
            None => Err(UnseenAttribute { sent, hash }),
        }
    }

    /// Adds an attribute, and remembers what it was sent as.
    #[inline]
    pub fn attribute_first(&mut self, unseen: UnseenAttribute<'_>, key: &str, value: ValueRef<'_>) {
        if let Some(tag) = self.tag(key, value) {
            self.batch.data.span_tags.push(tag);
            self.batch.lookups.sent.insert(unseen.hash, unseen.sent);
            self.batch.lookups.sent_tags.push(tag);
        }
    }

    /// Adds an event; its attributes follow.
    pub fn event(&mut self, time: Timestamp, name: &str, dropped_attributes_count: u32) {
        let name = self.batch.data.texts.intern(name.as_bytes());
        let scratch = &mut self.batch.scratch;
        scratch.events.push(EventHead {
            time_ns: time.as_nanos(),
            name,
            dropped: dropped_attributes_count,
            tags_end: number(scratch.event_tags.len()),
        });
    }

    /// Adds an attribute of the event begun last; without one it is not taken.
    pub fn event_attribute(&mut self, key: &str, value: ValueRef<'_>) {
        if self.batch.scratch.events.is_empty() {
            return;
        }
        if let Some(tag) = self.tag(key, value) {
            let scratch = &mut self.batch.scratch;
            scratch.event_tags.push(tag);
            if let Some(event) = scratch.events.last_mut() {
                event.tags_end = number(scratch.event_tags.len());
            }
        }
    }

    /// Adds a link; its attributes follow.
    pub fn link(&mut self, fields: &LinkFields<'_>) {
        let trace_state = (!fields.trace_state.is_empty())
            .then(|| self.batch.data.texts.intern(fields.trace_state.as_bytes()));
        let scratch = &mut self.batch.scratch;
        scratch.links.push(LinkHead {
            trace_id: fields.trace_id.map_or([0; 16], |id| *id.as_bytes()),
            span_id: fields.span_id.map_or([0; 8], |id| *id.as_bytes()),
            trace_state,
            flags: fields.flags,
            dropped: fields.dropped_attributes_count,
            tags_end: number(scratch.link_tags.len()),
        });
    }

    /// Adds an attribute of the link begun last; without one it is not taken.
    pub fn link_attribute(&mut self, key: &str, value: ValueRef<'_>) {
        if self.batch.scratch.links.is_empty() {
            return;
        }
        if let Some(tag) = self.tag(key, value) {
            let scratch = &mut self.batch.scratch;
            scratch.link_tags.push(tag);
            if let Some(link) = scratch.links.last_mut() {
                link.tags_end = number(scratch.link_tags.len());
            }
        }
    }

    /// Makes the span part of the batch.
    ///
    /// # Errors
    /// [`Error::InvalidSpan`] if it ends before it starts or has a value nested too deep,
    /// [`Error::BatchTooLarge`] if the batch is full. The batch is then as it was before the span.
    pub fn finish(mut self, fields: &SpanFields<'_>) -> Result<(), Error> {
        if let Some(reason) = self.refused.take() {
            return Err(Error::InvalidSpan { reason });
        }
        if fields.end < fields.start {
            let reason = format!(
                "span {} of trace {} ends at {} before it starts at {}",
                fields.span_id, fields.trace_id, fields.end, fields.start
            );
            return Err(Error::InvalidSpan { reason });
        }
        let batch = &mut *self.batch;
        let name = batch.data.texts.intern(fields.name.as_bytes());
        let optional = |texts: &mut Texts, text: &str| {
            (!text.is_empty()).then(|| texts.intern(text.as_bytes()))
        };
        let scratch = &mut batch.scratch;
        scratch.trace_state = optional(&mut batch.data.texts, fields.trace_state);
        scratch.status_message = optional(&mut batch.data.texts, fields.status_message);
        scratch.dropped_attributes = fields.dropped_attributes_count;
        scratch.dropped_events = fields.dropped_events_count;
        scratch.dropped_links = fields.dropped_links_count;
        let held = batch.data.texts.byte_len()
            + batch.data.tags.byte_len()
            + batch.lookups.sent.byte_len()
            + batch.data.rests.len()
            + batch.data.span_tags.len() * size_of::<u32>()
            + batch.data.rows.len() * size_of::<Row>();
        if held > BATCH_BYTES_MAX {
            let (bytes, max_bytes) = (held as u64, BATCH_BYTES_MAX as u64);
            return Err(Error::BatchTooLarge { bytes, max_bytes });
        }
        let start_ns = fields.start.as_nanos();
        scratch.encode(start_ns, &mut batch.data.rests);
        let class = batch.class(Class {
            resource: self.resource,
            scope: self.scope,
            name,
            flags: fields.flags,
            kind: fields.kind,
            status: fields.status,
        });
        let trace = batch.trace(fields.trace_id);
        batch.data.rows.push(Row {
            start_ns,
            duration_ns: fields.end.as_nanos().wrapping_sub(start_ns).cast_unsigned(),
            span_id: *fields.span_id.as_bytes(),
            parent_id: fields.parent_span_id.map_or([0; 8], |id| *id.as_bytes()),
            trace,
            class,
            tags_end: number(batch.data.span_tags.len()),
            rest_end: number(batch.data.rests.len()),
        });
        self.finished = true;
        Ok(())
    }

    #[inline]
    fn tag(&mut self, key: &str, value: ValueRef<'_>) -> Option<u32> {
        let data = &mut self.batch.data;
        match data.tags.intern(&mut data.texts, key, value) {
            Ok(tag) => Some(tag),
            Err(error) => {
                self.refused
                    .get_or_insert_with(|| format!("attribute {key:?}: {error}"));
                None
            }
        }
    }
}

impl Drop for SpanWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let data = &mut self.batch.data;
            data.span_tags.truncate(self.span_tags);
            data.tags.truncate(self.tags);
            data.texts.truncate(self.texts);
            let lookups = &mut self.batch.lookups;
            lookups.sent.truncate(self.sent);
            lookups.sent_tags.truncate(self.sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(span: u8, start: i64, end: i64) -> SpanFields<'static> {
        SpanFields::new(
            TraceId::new([1; 16]).unwrap(),
            SpanId::new([span; 8]).unwrap(),
            "op",
            Timestamp::from_nanos(start),
            Timestamp::from_nanos(end),
        )
    }

    fn owners(batch: &mut SpanBatch) -> (ResourceRow, ScopeRow) {
        let attributes = [("service.name", ValueRef::Str("shop"))];
        let resource = ResourceFields {
            attributes: &attributes,
            ..ResourceFields::default()
        };
        (
            batch.resource(&resource).unwrap(),
            batch.scope(&ScopeFields::default()).unwrap(),
        )
    }

    #[test]
    fn equal_resources_and_scopes_are_kept_once() {
        let mut batch = SpanBatch::new();
        let first = owners(&mut batch);
        assert_eq!(owners(&mut batch), first);
        let other = [("service.name", ValueRef::Str("cart"))];
        let other = ResourceFields {
            attributes: &other,
            ..ResourceFields::default()
        };
        assert_ne!(batch.resource(&other).unwrap(), first.0);
        assert_eq!(
            (batch.data.resources.len(), batch.data.scopes.len()),
            (2, 1)
        );
    }

    #[test]
    fn a_refused_or_dropped_span_leaves_nothing_behind() {
        let mut batch = SpanBatch::new();
        let (resource, scope) = owners(&mut batch);
        let sizes = |b: &SpanBatch| {
            let d = &b.data;
            (
                d.texts.len(),
                d.tags.len(),
                d.span_tags.len(),
                d.rests.len(),
                d.rows.len(),
            )
        };
        let mut span = batch.span(resource, scope);
        span.attribute("a", ValueRef::Int(1));
        span.finish(&fields(1, 5, 9)).unwrap();
        let before = sizes(&batch);

        let mut backwards = batch.span(resource, scope);
        backwards.attribute("b", ValueRef::Int(2));
        backwards.event(Timestamp::from_nanos(1), "gone", 0);
        let refused = backwards.finish(&fields(2, 9, 5));
        assert!(matches!(refused, Err(Error::InvalidSpan { .. })));
        assert_eq!(sizes(&batch), before);

        let mut dropped = batch.span(resource, scope);
        dropped.attribute("b", ValueRef::Int(2));
        drop(dropped);
        assert_eq!(sizes(&batch), before);

        let mut deep = crate::value::Value::Empty;
        for _ in 0..100 {
            deep = crate::value::Value::Array(vec![deep]);
        }
        let mut nested = batch.span(resource, scope);
        nested.attribute("deep", deep.as_ref());
        assert!(nested.finish(&fields(3, 5, 9)).is_err());
        assert_eq!(sizes(&batch), before);

        // What was sent as some bytes is forgotten with the span that brought it.
        let mut dropped = batch.span(resource, scope);
        let unseen = dropped.attribute_again(b"c=3").unwrap_err();
        dropped.attribute_first(unseen, "c", ValueRef::Int(3));
        dropped.attribute_again(b"c=3").unwrap();
        drop(dropped);
        assert_eq!(sizes(&batch), before);
        assert!(batch.span(resource, scope).attribute_again(b"c=3").is_err());

        // What was taken back can come again.
        let mut span = batch.span(resource, scope);
        span.attribute("b", ValueRef::Int(2));
        span.attribute("a", ValueRef::Int(1));
        span.finish(&fields(4, 5, 9)).unwrap();
        assert_eq!(batch.data.tags_of(1), [2, 1]);
    }
}
