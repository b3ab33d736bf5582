//! One shard of the span head: the rows of the traces whose ids fall into it, as append-only columns.
//!
//! Invariants
//! - Rows are numbered in order of arrival and never change, but for two links that later rows fill
//!   in: `next` (the trace's next row) and `parent` (below). What a snapshot sees of the shard is
//!   therefore a prefix of its rows, less what deletes hide from it.
//! - `marks` say how many rows there were after each record. Rows of a trace below the bound of a
//!   delete are hidden from every snapshot at or above its LSN; so are the rows that a delete by filter
//!   found (`row_deletes`). A trace that a later generation recalled is hidden here in the same way.
//! - Rows that were recalled from older parts (`super::recall`) are rows like others, stored at the
//!   LSN of the batch that recalled them; `recalled` says of which traces there are some.
//! - No two visible rows have the same canonical content: a repeat is not stored. A row hidden by a
//!   delete is no obstacle to its repeat.
//! - `parent` is the first row that arrived under the parent's id, or, while there is none, the next
//!   row that waits for the same id (marked by [`WAITING`]). It is the parent by the rule of
//!   `parents.rs` unless the trace is `odd`: some id has several rows, or some parent does not start
//!   before its child, so that there may be a cycle. Then readers apply the rule itself.
//!
//! The shard's lock is taken by the one writer for a record, and by readers for at most
//! `CHECK_ROWS` rows at a time. Lock order: shard, then catalogue.

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use rootline_wal::Lsn;
use smallvec::SmallVec;

use super::{
    arena::{Arena, Place},
    batch::{Class, SpanData, class_hash},
    catalog::{Tables, Translation},
    column::{Column, PAGE_ROWS},
    hash,
    model::{Attributes, Event, Link, Span},
    rest::Rest,
    row_list::RowList,
    stripes::Stripes,
    tags::TagTable,
};
use crate::{
    id::{SpanId, TraceId},
    time::Timestamp,
    value::Value,
    varint,
};

/// No row.
pub(crate) const NONE: u32 = u32::MAX;
/// No row either: a tag of the batch that is being looked for.
const AHEAD: u32 = u32::MAX - 1;
/// Bit of `Ident::parent`: the rest is the next row that waits for the same parent.
const WAITING: u32 = 1 << 31;
/// Rows a shard may hold: the bits below [`WAITING`], less room for batches under way. At 150 bytes
/// a row this is 300 GB.
pub(crate) const SHARD_ROWS_MAX: u32 = (1 << 31) - (1 << 26);

/// What a group of twins takes, tables included, and what each row of it adds.
const TWINS_BYTES: usize = 220;
const TWIN_ROW_BYTES: usize = 56;

/// Rows after a record.
#[derive(Clone, Copy, Debug)]
struct Mark {
    lsn: Lsn,
    rows: u32,
}

/// Who a row is and what it hangs together with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ident {
    pub(crate) trace: u32,
    /// Next row of the trace.
    next: u32,
    parent: u32,
    tail: Place,
    pub(crate) span_id: [u8; 8],
    /// Zeros if there is none.
    pub(crate) parent_id: [u8; 8],
}

impl Ident {
    /// The first row that arrived under the parent's id.
    #[inline]
    pub(crate) fn first_parent(&self) -> Option<u32> {
        (self.parent & WAITING == 0).then_some(self.parent)
    }
}

/// A class and the rows of it.
#[derive(Debug)]
pub(crate) struct ClassEntry {
    /// Resource and scope of the catalogue, name a symbol.
    pub(crate) class: Class,
    /// The class that is equal but for the order of the resource's and scope's attributes.
    canonical: u32,
    pub(crate) rows: RowList,
}

/// A trace.
#[derive(Debug)]
pub(crate) struct TraceEntry {
    pub(crate) id: TraceId,
    pub(crate) first: u32,
    last: u32,
    /// Rows of it, hidden ones included.
    pub(crate) rows: u32,
    pub(crate) odd: bool,
}

/// Bounds over the rows of one page, so that ranges pass over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageBounds {
    pub(crate) start_min: i64,
    pub(crate) start_max: i64,
    pub(crate) end_max: i64,
    pub(crate) duration_max: u64,
}

/// Rows under one (trace, span id) beyond the first.
#[derive(Debug, Default)]
struct Twins {
    /// Newest row by content, the first row included.
    contents: HashMap<u128, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Delete {
    lsn: Lsn,
    /// Rows below are hidden.
    rows: u32,
}

/// What a snapshot sees of a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) at: Lsn,
    /// Rows from here on are newer.
    pub(crate) rows: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    marks: Column<Mark>,
    pub(crate) class_of: Column<u32>,
    pub(crate) starts: Column<i64>,
    pub(crate) durations: Column<u64>,
    pub(crate) idents: Column<Ident>,
    pub(crate) bounds: Column<PageBounds>,
    tails: Arena,
    pub(crate) tags: TagTable,
    pub(crate) classes: Column<ClassEntry>,
    class_ids: Stripes,
    class_rows_bytes: usize,
    pub(crate) traces: Column<TraceEntry>,
    trace_ids: Stripes,
    by_id: Stripes,
    waiting: Stripes,
    twins: HashMap<u32, Twins>,
    twin_rows: usize,
    deletes: HashMap<u32, SmallVec<[Delete; 1]>>,
    /// Rows that deletes by filter found, each once, by rising LSN.
    row_deletes: Vec<(Lsn, RoaringBitmap)>,
    row_deletes_bytes: usize,
    /// Traces of which rows were recalled, by rising LSN.
    recalled: Vec<(Lsn, TraceId)>,
    scratch: Scratch,
    charged_bytes: u64,
}

/// Buffers of the writer, and the batch's numbers in terms of the shard.
#[derive(Debug, Default)]
struct Scratch {
    tag_of: Vec<u32>,
    /// Tags to be looked for.
    ahead: Vec<u32>,
    text_of: Vec<u32>,
    class_of: Vec<u32>,
    trace_of: Vec<u32>,
    tags: Vec<u32>,
    tail: Vec<u8>,
    rest: Rest,
}

/// A row about to be stored.
struct Candidate {
    trace: u32,
    class: u32,
    start_ns: i64,
    duration_ns: u64,
    span_id: [u8; 8],
    parent_id: [u8; 8],
}

impl Shard {
    /// Applies the rows of a record that fall into this shard. Records come in order of LSN.
    pub(crate) fn apply(
        &mut self,
        lsn: Lsn,
        data: &SpanData,
        rows: &[u32],
        translation: &Translation,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for (map, len) in [
            (&mut scratch.tag_of, data.tags.len()),
            (&mut scratch.text_of, data.texts.len()),
            (&mut scratch.class_of, data.classes.len()),
            (&mut scratch.trace_of, data.traces.len()),
        ] {
            map.clear();
            map.resize(len, NONE);
        }
        let before = self.idents.rows();
        self.look_ahead(data, rows, translation, &mut scratch);
        for &i in rows {
            self.apply_row(lsn, data, i as usize, translation, &mut scratch);
        }
        self.scratch = scratch;
        let rows = self.idents.rows();
        if rows != before {
            self.marks.push(Mark { lsn, rows });
        }
    }

    /// Finds the traces of rows about to be applied, and looks at the places of memory where their ids
    /// and attributes will be searched. A search waits for memory, and the next one for its outcome; here
    /// none waits for another, and the searches that follow find all of it near.
    fn look_ahead(
        &mut self,
        data: &SpanData,
        rows: &[u32],
        translation: &Translation,
        scratch: &mut Scratch,
    ) {
        let mut seen = 0u32;
        for &i in rows {
            let Some(row) = data.rows.get(i as usize) else {
                continue;
            };
            let trace = numbered(&mut scratch.trace_of, row.trace, || {
                data.traces
                    .get(row.trace as usize)
                    .map_or(NONE, |&id| self.intern_trace(id))
            });
            for id in [row.span_id, row.parent_id] {
                seen ^= self.by_id.candidate(id_hash(trace, id)).unwrap_or(0);
            }
        }
        scratch.ahead.clear();
        for &i in rows {
            for &tag in data.tags_of(i as usize) {
                // Not found yet, nor noted to be looked for.
                if let Some(slot @ &mut NONE) = scratch.tag_of.get_mut(tag as usize) {
                    *slot = AHEAD;
                    scratch.ahead.push(tag);
                }
            }
        }
        for tag in &mut scratch.ahead {
            let place = *tag as usize;
            *tag = NONE;
            if let Some(slot) = scratch.tag_of.get_mut(place) {
                *slot = NONE;
            }
            if let Some(own) = u32::try_from(place).ok().and_then(|id| data.tags.get(id))
                && let Some(&key) = translation.symbols.get(own.key as usize)
            {
                *tag = self.tags.candidate(own.hash, key).unwrap_or(NONE);
            }
        }
        for &tag in scratch.ahead.iter().filter(|&&tag| tag != NONE) {
            seen ^= u32::from(self.tags.get(tag).1.first().copied().unwrap_or(0));
        }
        std::hint::black_box(seen);
    }

    fn apply_row(
        &mut self,
        lsn: Lsn,
        data: &SpanData,
        i: usize,
        translation: &Translation,
        scratch: &mut Scratch,
    ) {
        let Some(row) = data.rows.get(i) else { return };
        let Scratch {
            tag_of,
            text_of,
            class_of,
            trace_of,
            tags,
            tail,
            rest,
            ..
        } = scratch;
        let trace = numbered(trace_of, row.trace, || {
            data.traces
                .get(row.trace as usize)
                .map_or(NONE, |&id| self.intern_trace(id))
        });
        let class = numbered(class_of, row.class, || {
            self.intern_batch_class(data, row.class, translation)
        });
        tags.clear();
        tail.clear();
        let sent = data.tags_of(i);
        varint::put_u64(tail, sent.len() as u64);
        for &tag in sent {
            let tag = numbered(tag_of, tag, || {
                intern_tag(&mut self.tags, data, translation, tag)
            });
            varint::put_u64(tail, u64::from(tag));
            tags.push(tag);
        }
        let mut sent_rest = data.rest_of(i);
        if sent_rest.is_empty() || rest.decode(row.start_ns, &mut sent_rest).is_none() {
            varint::put_u64(tail, 0);
        } else {
            let table = &mut self.tags;
            rest.translate(
                |text| numbered(text_of, text, || table.intern_text(data.texts.get(text))),
                |tag| tag,
            );
            rest.translate(
                |text| text,
                |tag| numbered(tag_of, tag, || intern_tag(table, data, translation, tag)),
            );
            put_rest(rest, row.start_ns, tail);
        }
        let candidate = Candidate {
            trace,
            class,
            start_ns: row.start_ns,
            duration_ns: row.duration_ns,
            span_id: row.span_id,
            parent_id: row.parent_id,
        };
        self.store(lsn, &candidate, tags, tail);
    }

    /// Stores a row unless it is a repeat.
    fn store(&mut self, lsn: Lsn, new: &Candidate, tags: &[u32], tail: &[u8]) {
        let id_hash = id_hash(new.trace, new.span_id);
        let first = self.find_id(id_hash, new.trace, new.span_id);
        let row = self.idents.rows();
        if let Some(first) = first {
            let hidden = self.hidden_below(new.trace, lsn);
            let first_is_kept = first >= hidden && !self.is_row_deleted(first, lsn);
            if !self.twins.contains_key(&first) {
                if first_is_kept && self.is_plain_repeat(first, new, tail) {
                    return;
                }
                let content = self.content_of_row(first);
                let twins = Twins {
                    contents: HashMap::from([(content, first)]),
                };
                let content = self.content_of(new, tail);
                if first_is_kept && twins.contents.contains_key(&content) {
                    return;
                }
                self.twins.insert(first, twins);
                self.twin_rows += 1;
            }
            let content = self.content_of(new, tail);
            let known = self.twins.get(&first);
            let known = known.and_then(|twins| twins.contents.get(&content).copied());
            if known.is_some_and(|known| known >= hidden && !self.is_row_deleted(known, lsn)) {
                return;
            }
            if let Some(twins) = self.twins.get_mut(&first) {
                twins.contents.insert(content, row);
                self.twin_rows += 1;
            }
        }
        self.push(new, tags, tail);
        if first.is_some() {
            self.mark_odd(new.trace);
        } else {
            self.by_id.insert(id_hash, row);
            self.adopt(row, new);
        }
        if new.parent_id != [0; 8] {
            self.find_parent(row, new);
        }
    }

    fn push(&mut self, new: &Candidate, tags: &[u32], tail: &[u8]) {
        let row = self.idents.rows();
        let end_ns = new.start_ns.wrapping_add_unsigned(new.duration_ns);
        if (row as usize).is_multiple_of(PAGE_ROWS) {
            self.bounds.push(PageBounds {
                start_min: new.start_ns,
                start_max: new.start_ns,
                end_max: end_ns,
                duration_max: new.duration_ns,
            });
        } else if let Some(last) = self.bounds.rows().checked_sub(1)
            && let Some(bounds) = self.bounds.get_mut(last)
        {
            bounds.start_min = bounds.start_min.min(new.start_ns);
            bounds.start_max = bounds.start_max.max(new.start_ns);
            bounds.end_max = bounds.end_max.max(end_ns);
            bounds.duration_max = bounds.duration_max.max(new.duration_ns);
        }
        self.class_of.push(new.class);
        self.starts.push(new.start_ns);
        self.durations.push(new.duration_ns);
        self.idents.push(Ident {
            trace: new.trace,
            next: NONE,
            parent: NONE,
            tail: self.tails.store(tail),
            span_id: new.span_id,
            parent_id: new.parent_id,
        });
        if let Some(entry) = self.classes.get_mut(new.class) {
            self.class_rows_bytes += entry.rows.push(row);
        }
        for &tag in tags {
            self.tags.add_row(tag, row);
        }
        if let Some(trace) = self.traces.get_mut(new.trace) {
            let last = std::mem::replace(&mut trace.last, row);
            trace.rows += 1;
            if trace.first == NONE {
                trace.first = row;
            }
            if let Some(last) = self.idents.get_mut(last) {
                last.next = row;
            }
        }
    }

    /// Gives the rows that wait for this new row's id their parent.
    fn adopt(&mut self, parent: u32, new: &Candidate) {
        let Self {
            waiting, idents, ..
        } = self;
        let first = waiting.remove(id_hash(new.trace, new.span_id), |row| {
            idents
                .get(row)
                .is_some_and(|i| i.trace == new.trace && i.parent_id == new.span_id)
        });
        let mut next = first.unwrap_or(NONE);
        while next != NONE {
            let child = next;
            let link = self.idents.get(child).map_or(NONE, |ident| ident.parent);
            next = if link == NONE { NONE } else { link & !WAITING };
            self.link(child, parent);
        }
    }

    /// Gives this new row its parent, or lets it wait for one.
    fn find_parent(&mut self, row: u32, new: &Candidate) {
        let hash = id_hash(new.trace, new.parent_id);
        if let Some(parent) = self.find_id(hash, new.trace, new.parent_id) {
            self.link(row, parent);
            return;
        }
        let Self {
            waiting, idents, ..
        } = self;
        // The newest that waits comes first; in the table it stands for all.
        let next = waiting.replace(hash, row, |row| {
            idents
                .get(row)
                .is_some_and(|i| i.trace == new.trace && i.parent_id == new.parent_id)
        });
        match next {
            Some(next) => {
                if let Some(ident) = idents.get_mut(row) {
                    ident.parent = WAITING | next;
                }
            }
            None => waiting.insert(hash, row),
        }
    }

    fn link(&mut self, child: u32, parent: u32) {
        let start = |row| self.starts.get(row).copied().unwrap_or_default();
        let (child_start, parent_start) = (start(child), start(parent));
        let parent_id = self
            .idents
            .get(parent)
            .map_or([0; 8], |ident| ident.span_id);
        let Some(ident) = self.idents.get_mut(child) else {
            return;
        };
        ident.parent = parent;
        let (trace, child_id) = (ident.trace, ident.span_id);
        // Along a cycle some parent does not come before its child.
        if (parent_start, parent_id) >= (child_start, child_id) {
            self.mark_odd(trace);
        }
    }

    fn mark_odd(&mut self, trace: u32) {
        if let Some(trace) = self.traces.get_mut(trace) {
            trace.odd = true;
        }
    }

    fn find_id(&self, hash: u64, trace: u32, span_id: [u8; 8]) -> Option<u32> {
        self.by_id.find(hash, |row| {
            self.idents
                .get(row)
                .is_some_and(|i| i.trace == trace && i.span_id == span_id)
        })
    }

    /// Whether a row equals a candidate even in the order of its attributes: the common repeat.
    fn is_plain_repeat(&self, row: u32, new: &Candidate, tail: &[u8]) -> bool {
        self.class_of.get(row) == Some(&new.class)
            && self.starts.get(row) == Some(&new.start_ns)
            && self.durations.get(row) == Some(&new.duration_ns)
            && self.idents.get(row).is_some_and(|ident| {
                ident.parent_id == new.parent_id && self.tails.from(ident.tail).starts_with(tail)
            })
    }

    fn content_of_row(&self, row: u32) -> u128 {
        let (Some(ident), Some(&class), Some(&start_ns), Some(&duration_ns)) = (
            self.idents.get(row),
            self.class_of.get(row),
            self.starts.get(row),
            self.durations.get(row),
        ) else {
            return 0;
        };
        let candidate = Candidate {
            trace: ident.trace,
            class,
            start_ns,
            duration_ns,
            span_id: ident.span_id,
            parent_id: ident.parent_id,
        };
        self.content_of(&candidate, self.tails.from(ident.tail))
    }

    /// Hash of what makes a row the same span as another one with its trace and id: everything, but
    /// for the order of attributes. In terms of this shard's numbers.
    fn content_of(&self, row: &Candidate, tail: &[u8]) -> u128 {
        let mut tags = Vec::new();
        let rest_bytes = read_tail(tail, &mut tags);
        tags.sort_unstable();
        let class = self
            .classes
            .get(row.class)
            .map_or(row.class, |entry| entry.canonical);
        let mut bytes = Vec::with_capacity(64);
        varint::put_u64(&mut bytes, u64::from(class));
        varint::put_i64(&mut bytes, row.start_ns);
        varint::put_u64(&mut bytes, row.duration_ns);
        bytes.extend_from_slice(&row.parent_id);
        varint::put_u64(&mut bytes, tags.len() as u64);
        for tag in tags {
            varint::put_u64(&mut bytes, u64::from(tag));
        }
        let mut rest = Rest::default();
        if !rest_bytes.is_empty() && rest.decode(row.start_ns, &mut { rest_bytes }).is_some() {
            rest.sort_attributes();
            rest.encode(row.start_ns, &mut bytes);
        }
        hash::wide(hash::seed(), &bytes)
    }

    fn intern_trace(&mut self, id: TraceId) -> u32 {
        let hash = trace_hash(id);
        let Self {
            trace_ids, traces, ..
        } = self;
        let found = trace_ids.find(hash, |t| traces.get(t).is_some_and(|entry| entry.id == id));
        found.unwrap_or_else(|| {
            let trace = traces.rows();
            traces.push(TraceEntry {
                id,
                first: NONE,
                last: NONE,
                rows: 0,
                odd: false,
            });
            trace_ids.insert(hash, trace);
            trace
        })
    }

    /// The number of a trace that the shard has rows of.
    pub(crate) fn find_trace(&self, id: TraceId) -> Option<u32> {
        self.trace_ids.find(trace_hash(id), |t| {
            self.traces.get(t).is_some_and(|entry| entry.id == id)
        })
    }

    fn intern_batch_class(&mut self, data: &SpanData, class: u32, to: &Translation) -> u32 {
        let Some(class) = data.classes.get(class as usize) else {
            return NONE;
        };
        let resource = to
            .resources
            .get(class.resource as usize)
            .copied()
            .unwrap_or_default();
        let scope = to
            .scopes
            .get(class.scope as usize)
            .copied()
            .unwrap_or_default();
        let name = to
            .symbols
            .get(class.name as usize)
            .copied()
            .unwrap_or_default();
        let as_sent = Class {
            resource: resource.id,
            scope: scope.id,
            name,
            ..*class
        };
        let canonical = Class {
            resource: resource.canonical,
            scope: scope.canonical,
            ..as_sent
        };
        let known = self.intern_class(canonical, None);
        if as_sent == canonical {
            return known;
        }
        self.intern_class(as_sent, Some(known))
    }

    fn intern_class(&mut self, class: Class, canonical: Option<u32>) -> u32 {
        let hash = class_hash(&class);
        let Self {
            class_ids, classes, ..
        } = self;
        let found = class_ids.find(hash, |c| classes.get(c).is_some_and(|e| e.class == class));
        found.unwrap_or_else(|| {
            let id = classes.rows();
            let canonical = canonical.unwrap_or(id);
            classes.push(ClassEntry {
                class,
                canonical,
                rows: RowList::default(),
            });
            class_ids.insert(hash, id);
            id
        })
    }

    /// Hides the rows a trace has now from snapshots at or above `lsn`.
    pub(crate) fn delete_trace(&mut self, lsn: Lsn, id: TraceId) {
        if let Some(trace) = self.find_trace(id) {
            let rows = self.idents.rows();
            let last = self.traces.get(trace).map_or(NONE, |entry| entry.last);
            let hidden = self.hidden_below(trace, lsn);
            if last < hidden {
                // Nothing came since it was deleted before.
                return;
            }
            self.deletes
                .entry(trace)
                .or_default()
                .push(Delete { lsn, rows });
        }
    }

    /// Hides rows, all of them visible until now, from snapshots at or above `lsn`.
    pub(crate) fn delete_rows(&mut self, lsn: Lsn, rows: RoaringBitmap) {
        if !rows.is_empty() {
            self.row_deletes_bytes += rows.serialized_size();
            self.row_deletes.push((lsn, rows));
        }
    }

    /// Remembers that rows of these traces, about to be applied at `lsn`, were recalled.
    pub(crate) fn note_recalled(&mut self, lsn: Lsn, traces: impl Iterator<Item = TraceId>) {
        self.recalled.extend(traces.map(|id| (lsn, id)));
    }

    /// The traces recalled in records after `after`, up to `at`.
    pub(crate) fn recalled_between(
        &self,
        after: Lsn,
        at: Lsn,
    ) -> impl Iterator<Item = (Lsn, TraceId)> {
        let place = |lsn: Lsn| self.recalled.partition_point(|(of, _)| *of <= lsn);
        let recalled = self.recalled.get(place(after)..place(at));
        recalled.unwrap_or_default().iter().copied()
    }

    /// Whether a delete by filter hides a row from a snapshot at `at`.
    #[inline]
    pub(crate) fn is_row_deleted(&self, row: u32, at: Lsn) -> bool {
        let deletes = self.row_deletes.iter();
        let mut seen = deletes.take_while(|(lsn, _)| *lsn <= at);
        seen.any(|(_, rows)| rows.contains(row))
    }

    /// What a snapshot sees.
    pub(crate) fn view(&self, at: Lsn) -> View {
        let newer = self.marks.partition_point(|mark| mark.lsn <= at);
        let mark = newer.checked_sub(1).and_then(|last| self.marks.get(last));
        View {
            at,
            rows: mark.map_or(0, |mark| mark.rows),
        }
    }

    /// Rows of a trace below this are hidden from a snapshot at `at`.
    #[inline]
    pub(crate) fn hidden_below(&self, trace: u32, at: Lsn) -> u32 {
        if self.deletes.is_empty() {
            return 0;
        }
        let deletes = self
            .deletes
            .get(&trace)
            .map(SmallVec::as_slice)
            .unwrap_or_default();
        // In order of LSN, so bounds rise.
        deletes
            .iter()
            .rev()
            .find(|delete| delete.lsn <= at)
            .map_or(0, |delete| delete.rows)
    }

    /// Whether deletes may hide anything.
    #[inline]
    pub(crate) fn has_deletes(&self) -> bool {
        !self.deletes.is_empty() || !self.row_deletes.is_empty()
    }

    /// Whether a snapshot sees a row.
    #[inline]
    pub(crate) fn is_visible(&self, row: u32, view: View) -> bool {
        row < view.rows
            && (self.deletes.is_empty()
                || self
                    .idents
                    .get(row)
                    .is_some_and(|ident| row >= self.hidden_below(ident.trace, view.at)))
            && (self.row_deletes.is_empty() || !self.is_row_deleted(row, view.at))
    }

    /// The next row of the same trace.
    #[inline]
    pub(crate) fn next_of_trace(&self, row: u32) -> u32 {
        self.idents.get(row).map_or(NONE, |ident| ident.next)
    }

    /// The class of a row.
    #[inline]
    pub(crate) fn class_entry(&self, row: u32) -> Option<&ClassEntry> {
        self.classes.get(*self.class_of.get(row)?)
    }

    /// The attributes of a row, as tag numbers in the order sent; what was there before goes.
    #[inline]
    pub(crate) fn tags_of(&self, row: u32, tags: &mut Vec<u32>) {
        tags.clear();
        if let Some(ident) = self.idents.get(row) {
            read_tail(self.tails.from(ident.tail), tags);
        }
    }

    /// Unpacks what few spans have: trace state, status message, events, links. Empty where a row has
    /// none of it.
    pub(crate) fn rest_of(&self, row: u32, buffers: &mut Buffers) {
        let Buffers { tags, rest } = buffers;
        tags.clear();
        rest.clear();
        let (Some(ident), Some(&start_ns)) = (self.idents.get(row), self.starts.get(row)) else {
            return;
        };
        let mut bytes = read_tail(self.tails.from(ident.tail), tags);
        if !bytes.is_empty() && rest.decode(start_ns, &mut bytes).is_none() {
            rest.clear();
        }
    }

    /// The same without its attributes; says whether there is any of it.
    pub(crate) fn rest_alone(&self, row: u32, rest: &mut Rest) -> bool {
        rest.clear();
        let (Some(ident), Some(&start_ns)) = (self.idents.get(row), self.starts.get(row)) else {
            return false;
        };
        let mut bytes = pass_tags(self.tails.from(ident.tail));
        if bytes.is_empty() {
            return false;
        }
        let is_whole = rest.decode(start_ns, &mut bytes).is_some();
        if !is_whole {
            rest.clear();
        }
        is_whole
    }

    /// A row as the span it was sent as. `None` only for a row that does not exist.
    pub(crate) fn span(&self, row: u32, tables: &Tables, buffers: &mut Buffers) -> Option<Span> {
        let ident = self.idents.get(row)?;
        let start_ns = *self.starts.get(row)?;
        let duration_ns = *self.durations.get(row)?;
        let class = &self.class_entry(row)?.class;
        let Buffers { tags, rest } = buffers;
        tags.clear();
        let mut rest_bytes = read_tail(self.tails.from(ident.tail), tags);
        rest.clear();
        if !rest_bytes.is_empty() {
            rest.decode(start_ns, &mut rest_bytes)?;
        }
        let text = |id: Option<u32>| id.map_or(String::new(), |id| self.tags.text(id).to_owned());
        let mut from = 0;
        let mut events = Vec::with_capacity(rest.events.len());
        for event in &rest.events {
            let to = event.tags_end as usize;
            let tags = rest.event_tags.get(from..to).unwrap_or_default();
            from = to;
            events.push(Event {
                time: Timestamp::from_nanos(event.time_ns),
                name: self.tags.text(event.name).to_owned(),
                attributes: self.attributes(tags, tables),
                dropped_attributes_count: event.dropped,
            });
        }
        from = 0;
        let mut links = Vec::with_capacity(rest.links.len());
        for link in &rest.links {
            let to = link.tags_end as usize;
            let tags = rest.link_tags.get(from..to).unwrap_or_default();
            from = to;
            links.push(Link {
                trace_id: TraceId::new(link.trace_id),
                span_id: SpanId::new(link.span_id),
                trace_state: text(link.trace_state),
                flags: link.flags,
                attributes: self.attributes(tags, tables),
                dropped_attributes_count: link.dropped,
            });
        }
        Some(Span {
            trace_id: self.traces.get(ident.trace)?.id,
            span_id: SpanId::new(ident.span_id)?,
            parent_span_id: SpanId::new(ident.parent_id),
            trace_state: text(rest.trace_state),
            flags: class.flags,
            name: tables.symbol(class.name),
            kind: class.kind,
            start: Timestamp::from_nanos(start_ns),
            end: Timestamp::from_nanos(start_ns.wrapping_add_unsigned(duration_ns)),
            attributes: self.attributes(tags, tables),
            dropped_attributes_count: rest.dropped_attributes,
            events,
            dropped_events_count: rest.dropped_events,
            links,
            dropped_links_count: rest.dropped_links,
            status: class.status,
            status_message: text(rest.status_message),
            resource: tables
                .resources
                .get(class.resource as usize)?
                .resource
                .clone(),
            scope: tables.scopes.get(class.scope as usize)?.clone(),
        })
    }

    fn attributes(&self, tags: &[u32], tables: &Tables) -> Attributes {
        let pairs = tags.iter().map(|&tag| {
            let (key, mut value) = self.tags.get(tag);
            (
                tables.symbol(key),
                Value::decode(&mut value).unwrap_or_default(),
            )
        });
        pairs.collect()
    }

    /// Bytes held.
    pub(crate) fn heap_bytes(&self) -> usize {
        let columns = self.marks.heap_bytes()
            + self.class_of.heap_bytes()
            + self.starts.heap_bytes()
            + self.durations.heap_bytes()
            + self.idents.heap_bytes()
            + self.bounds.heap_bytes()
            + self.classes.heap_bytes()
            + self.traces.heap_bytes();
        let tables = self.class_ids.heap_bytes()
            + self.trace_ids.heap_bytes()
            + self.by_id.heap_bytes()
            + self.waiting.heap_bytes();
        columns
            + tables
            + self.tails.heap_bytes()
            + self.tags.heap_bytes()
            + self.class_rows_bytes
            + self.twins.len() * TWINS_BYTES
            + self.twin_rows * TWIN_ROW_BYTES
            + self.deletes.len() * 64
            + self.row_deletes_bytes
            + self.recalled.capacity() * size_of::<(Lsn, TraceId)>()
    }

    /// What the shard grew by since it was asked last, for the budget.
    pub(crate) fn growth_bytes(&mut self) -> u64 {
        let held = self.heap_bytes() as u64;
        let growth = held.saturating_sub(self.charged_bytes);
        self.charged_bytes += growth;
        growth
    }
}

/// Buffers of a reader.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) tags: Vec<u32>,
    pub(crate) rest: Rest,
}

/// The shard's number for a batch's number, found once per batch.
#[inline]
fn numbered(map: &mut [u32], number: u32, find: impl FnOnce() -> u32) -> u32 {
    match map.get_mut(number as usize) {
        Some(slot) => {
            if *slot == NONE {
                *slot = find();
            }
            *slot
        }
        None => NONE,
    }
}

fn intern_tag(table: &mut TagTable, data: &SpanData, to: &Translation, tag: u32) -> u32 {
    let Some(tag) = data.tags.get(tag) else {
        return NONE;
    };
    let key = to
        .symbols
        .get(tag.key as usize)
        .copied()
        .unwrap_or_default();
    table.intern(tag.hash, key, tag.value)
}

/// Appends the rest behind its length, which for most is written in one byte.
fn put_rest(rest: &Rest, start_ns: i64, tail: &mut Vec<u8>) {
    let mut bytes = Vec::with_capacity(64);
    rest.encode(start_ns, &mut bytes);
    varint::put_bytes(tail, &bytes);
}

/// A tail: the number of tags, the tags, the length of the rest, the rest. Appends the tags; returns
/// the rest.
#[inline]
fn read_tail<'a>(tail: &'a [u8], tags: &mut Vec<u32>) -> &'a [u8] {
    let mut input = tail;
    for _ in 0..varint::take_u64(&mut input).unwrap_or(0) {
        match varint::take_u32(&mut input) {
            Some(tag) => tags.push(tag),
            None => return &[],
        }
    }
    varint::take_bytes(&mut input).unwrap_or_default()
}

/// The rest of a tail; the tags are passed over.
#[inline]
fn pass_tags(tail: &[u8]) -> &[u8] {
    let mut input = tail;
    let mut left = varint::take_u64(&mut input).unwrap_or(0);
    while left > 0 {
        let Some((&byte, rest)) = input.split_first() else {
            return &[];
        };
        input = rest;
        // A number ends with its first byte below 128.
        left -= u64::from(byte < 128);
    }
    varint::take_bytes(&mut input).unwrap_or_default()
}

#[inline]
fn id_hash(trace: u32, span_id: [u8; 8]) -> u64 {
    hash::of_pair(hash::seed(), u64::from(trace), u64::from_le_bytes(span_id))
}

/// Hash of a trace id: its low half finds the trace in its shard.
#[inline]
pub(crate) fn trace_hash(id: TraceId) -> u64 {
    hash::of_bytes(hash::seed(), id.as_bytes())
}
