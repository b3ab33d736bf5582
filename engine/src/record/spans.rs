//! The spans part of a batch record: the columns of a [`SpanData`], one after the other. Bytes:
//! `docs/formats/span-part.md`.
//!
//! Invariants
//! - The part needs nothing outside itself, and what it decodes to is what was encoded.
//! - Decoding any bytes ends in columns whose numbers all refer to something, or in an error; it
//!   never panics and allocates in proportion to the bytes.

use hashbrown::HashTable;

use crate::{
    id::{SpanId, TraceId},
    span::{
        batch::{Class, Owner, Row, SpanData},
        hash,
        model::{SpanKind, StatusCode},
        rest::Rest,
    },
    value,
    varint::{put_bytes, put_i64, put_u64, take_bytes, take_i64, take_slice, take_u32, take_u64},
};

/// Version of the part's layout.
const VERSION: u8 = 1;

/// Parent column: no parent.
const PARENT_NONE: u64 = 0;
/// Parent column: the id follows in the column of foreign parents.
const PARENT_FOREIGN: u64 = 1;
/// Parent column: from here on, the zigzag distance to the parent's row.
const PARENT_ROWS: u64 = 2;

/// Appends the part; nothing for a batch without spans.
pub(crate) fn encode(data: &SpanData, out: &mut Vec<u8>) {
    if data.rows.is_empty() {
        return;
    }
    out.push(VERSION);
    put_u64(out, data.texts.len() as u64);
    for id in 0..number(data.texts.len()) {
        put_bytes(out, data.texts.get(id));
    }
    put_u64(out, data.tags.len() as u64);
    for tag in (0..number(data.tags.len())).filter_map(|id| data.tags.get(id)) {
        put_u64(out, u64::from(tag.key));
        out.extend_from_slice(tag.value);
    }
    put_u64(out, data.resources.len() as u64);
    for (i, resource) in data.resources.iter().enumerate() {
        put_owner(out, resource, data.resource_tags_of(i));
    }
    put_u64(out, data.scopes.len() as u64);
    for (i, scope) in data.scopes.iter().enumerate() {
        put_owner(out, scope, data.scope_tags_of(i));
    }
    put_u64(out, data.classes.len() as u64);
    for class in &data.classes {
        put_u64(out, u64::from(class.resource));
        put_u64(out, u64::from(class.scope));
        put_u64(out, u64::from(class.name));
        put_u64(out, u64::from(class.flags));
        out.push((class.kind as u8) << 2 | class.status as u8);
    }
    put_u64(out, data.traces.len() as u64);
    for trace in &data.traces {
        out.extend_from_slice(trace.as_bytes());
    }
    put_rows(out, data);
}

fn put_owner(out: &mut Vec<u8>, owner: &Owner, tags: &[u32]) {
    for n in [owner.dropped, owner.schema_url, owner.first, owner.second] {
        put_u64(out, u64::from(n));
    }
    put_u64(out, tags.len() as u64);
    for &tag in tags {
        put_u64(out, u64::from(tag));
    }
}

fn put_rows(out: &mut Vec<u8>, data: &SpanData) {
    let rows = &data.rows;
    put_u64(out, rows.len() as u64);
    for row in rows {
        out.extend_from_slice(&row.span_id);
    }
    let mut traces = Newest::default();
    for row in rows {
        // Traces under way are among the newest: count from there.
        put_u64(
            out,
            u64::from(traces.code(row.trace, |next| next - row.trace)),
        );
    }
    for row in rows {
        put_u64(out, u64::from(row.class));
    }
    put_parents(out, rows);
    let mut end_before = 0i64;
    for row in rows {
        // Spans come when they end, so ends rise and lie close together; starts do not.
        let end = row.start_ns.wrapping_add_unsigned(row.duration_ns);
        put_i64(out, end.wrapping_sub(end_before));
        end_before = end;
    }
    for row in rows {
        put_u64(out, row.duration_ns);
    }
    for i in 0..rows.len() {
        put_u64(out, data.tags_of(i).len() as u64);
    }
    let mut tags = Newest::default();
    for &tag in &data.span_tags {
        put_u64(out, u64::from(tags.code(tag, |_| tag + 1)));
    }
    for i in 0..rows.len() {
        put_u64(out, data.rest_of(i).len() as u64);
    }
    out.extend_from_slice(&data.rests);
}

fn put_parents(out: &mut Vec<u8>, rows: &[Row]) {
    let hash_of = |row: &Row| id_hash(row.trace, row.span_id);
    let mut by_id: HashTable<u32> = HashTable::with_capacity(rows.len());
    for (row, i) in rows.iter().zip(0u32..) {
        by_id.insert_unique(hash_of(row), i, |&j| {
            rows.get(j as usize).map_or(0, hash_of)
        });
    }
    let mut foreign = Vec::new();
    for (row, i) in rows.iter().zip(0i64..) {
        if row.parent_id == [0; 8] {
            put_u64(out, PARENT_NONE);
            continue;
        }
        let parent = by_id.find(id_hash(row.trace, row.parent_id), |&j| {
            rows.get(j as usize)
                .is_some_and(|p| p.trace == row.trace && p.span_id == row.parent_id)
        });
        if let Some(&j) = parent {
            let distance = i64::from(j) - i;
            put_u64(
                out,
                ((distance << 1) ^ (distance >> 63)).cast_unsigned() + PARENT_ROWS,
            );
        } else {
            put_u64(out, PARENT_FOREIGN);
            foreign.extend_from_slice(&row.parent_id);
        }
    }
    out.extend_from_slice(&foreign);
}

fn id_hash(trace: u32, span_id: [u8; 8]) -> u64 {
    hash::of_pair(hash::seed(), u64::from(trace), u64::from_le_bytes(span_id))
}

/// Numbers given out in order of first use: a first use is coded as 0.
#[derive(Default)]
struct Newest {
    next: u32,
}

impl Newest {
    fn code(&mut self, number: u32, known: impl Fn(u32) -> u32) -> u32 {
        if number == self.next {
            self.next += 1;
            return 0;
        }
        // A number above `next` (used elsewhere first) can only come with a code of its own.
        let code = known(self.next);
        self.next = self.next.max(number + 1);
        code
    }

    fn number(&mut self, code: u32, known: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        let number = if code == 0 {
            self.next
        } else {
            known(self.next)?
        };
        self.next = self.next.max(number.checked_add(1)?);
        Some(number)
    }
}

/// Reads a part into empty columns.
///
/// # Errors
/// What is wrong, for the record's error to name. The columns then hold part of it: clear them.
pub(crate) fn decode(bytes: &[u8], data: &mut SpanData) -> Result<(), &'static str> {
    let mut input = bytes;
    let cut = "spans part is cut short or malformed";
    match input.split_first() {
        Some((&VERSION, rest)) => input = rest,
        Some(_) => return Err("spans part has an unknown version"),
        None => return Err(cut),
    }
    let decoded =
        decode_dictionaries(&mut input, data).and_then(|()| decode_rows(&mut input, data));
    if decoded.is_none() {
        return Err(cut);
    }
    if !input.is_empty() {
        return Err("spans part is longer than what it holds");
    }
    Ok(())
}

fn decode_dictionaries(input: &mut &[u8], data: &mut SpanData) -> Option<()> {
    for _ in 0..take_u64(input)? {
        data.texts.push(take_bytes(input)?);
    }
    for _ in 0..take_u64(input)? {
        let key = take_text(input, data)?;
        let start = *input;
        value::skip(input)?;
        let value = start.get(..start.len() - input.len())?;
        let SpanData { texts, tags, .. } = &mut *data;
        tags.push(key, texts.get(key), value);
    }
    for _ in 0..take_u64(input)? {
        let resource = Owner {
            dropped: take_u32(input)?,
            schema_url: take_text(input, data)?,
            first: take_below(input, data.texts.len())?,
            second: take_u32(input)?,
            tags_end: 0,
        };
        let tags_end = take_tags(input, data.tags.len(), &mut data.resource_tags)?;
        data.resources.push(Owner {
            tags_end,
            ..resource
        });
    }
    for _ in 0..take_u64(input)? {
        let scope = Owner {
            dropped: take_u32(input)?,
            schema_url: take_text(input, data)?,
            first: take_text(input, data)?,
            second: take_text(input, data)?,
            tags_end: 0,
        };
        let tags_end = take_tags(input, data.tags.len(), &mut data.scope_tags)?;
        data.scopes.push(Owner { tags_end, ..scope });
    }
    for _ in 0..take_u64(input)? {
        let resource = take_below(input, data.resources.len())?;
        let scope = take_below(input, data.scopes.len())?;
        let name = take_text(input, data)?;
        let flags = take_u32(input)?;
        let [codes] = take_array(input)?;
        let kind = SpanKind::from_number(i32::from(codes >> 2))?;
        let status = StatusCode::from_number(i32::from(codes & 3))?;
        data.classes.push(Class {
            resource,
            scope,
            name,
            flags,
            kind,
            status,
        });
    }
    for _ in 0..take_u64(input)? {
        data.traces.push(TraceId::new(take_array(input)?)?);
    }
    Some(())
}

fn decode_rows(input: &mut &[u8], data: &mut SpanData) -> Option<()> {
    let count = usize::try_from(take_u64(input)?).ok()?;
    let ids = take_slice(input, count.checked_mul(8)?)?;
    data.rows.reserve(count);
    for id in ids.as_chunks().0 {
        data.rows.push(Row {
            start_ns: 0,
            duration_ns: 0,
            span_id: *SpanId::new(*id)?.as_bytes(),
            parent_id: [0; 8],
            trace: 0,
            class: 0,
            tags_end: 0,
            rest_end: 0,
        });
    }
    let mut traces = Newest::default();
    for row in &mut data.rows {
        let code = take_u32(input)?;
        row.trace = traces.number(code, |next| next.checked_sub(code))?;
        data.traces.get(row.trace as usize)?;
    }
    for row in &mut data.rows {
        row.class = take_below(input, data.classes.len())?;
    }
    decode_parents(input, data)?;
    let mut end = 0i64;
    for row in &mut data.rows {
        end = end.wrapping_add(take_i64(input)?);
        row.start_ns = end;
    }
    for row in &mut data.rows {
        row.duration_ns = take_u64(input)?;
        let end = row.start_ns;
        row.start_ns = end.checked_sub_unsigned(row.duration_ns)?;
    }
    let mut total = 0u32;
    for row in &mut data.rows {
        total = total.checked_add(take_u32(input)?)?;
        row.tags_end = total;
    }
    // A tag takes a byte at least, so what is reserved is bounded by the input.
    if total as usize > input.len() {
        return None;
    }
    data.span_tags.reserve(total as usize);
    let mut tags = Newest::default();
    for _ in 0..total {
        let code = take_u32(input)?;
        let tag = tags.number(code, |_| code.checked_sub(1))?;
        if tag as usize >= data.tags.len() {
            return None;
        }
        data.span_tags.push(tag);
    }
    let mut total = 0u32;
    for row in &mut data.rows {
        total = total.checked_add(take_u32(input)?)?;
        row.rest_end = total;
    }
    data.rests
        .extend_from_slice(take_slice(input, total as usize)?);
    check_rests(data)
}

fn decode_parents(input: &mut &[u8], data: &mut SpanData) -> Option<()> {
    // The foreign ids come after the column, so codes are taken first.
    let mut codes = Vec::with_capacity(data.rows.len().min(input.len()));
    for _ in 0..data.rows.len() {
        codes.push(take_u64(input)?);
    }
    for (i, code) in codes.into_iter().enumerate() {
        let parent_id = match code {
            PARENT_NONE => continue,
            PARENT_FOREIGN => *SpanId::new(take_array(input)?)?.as_bytes(),
            _ => {
                let code = code - PARENT_ROWS;
                let distance = (code >> 1).cast_signed() ^ -(code & 1).cast_signed();
                let row = i64::try_from(i).ok()?.checked_add(distance)?;
                let (own, parent) = (
                    data.rows.get(i)?,
                    data.rows.get(usize::try_from(row).ok()?)?,
                );
                if own.trace != parent.trace {
                    return None;
                }
                parent.span_id
            }
        };
        data.rows.get_mut(i)?.parent_id = parent_id;
    }
    Some(())
}

fn check_rests(data: &SpanData) -> Option<()> {
    let mut rest = Rest::default();
    for (i, row) in data.rows.iter().enumerate() {
        let mut bytes = data.rest_of(i);
        if bytes.is_empty() {
            continue;
        }
        rest.decode(row.start_ns, &mut bytes)?;
        let mut known = bytes.is_empty();
        rest.translate(
            |text| {
                known &= is_text(data, text);
                text
            },
            |tag| tag,
        );
        rest.translate(
            |text| text,
            |tag| {
                known &= (tag as usize) < data.tags.len();
                tag
            },
        );
        if !known {
            return None;
        }
    }
    Some(())
}

fn take_tags(input: &mut &[u8], tags: usize, list: &mut Vec<u32>) -> Option<u32> {
    for _ in 0..take_u64(input)? {
        list.push(take_below(input, tags)?);
    }
    u32::try_from(list.len()).ok()
}

fn take_below(input: &mut &[u8], bound: usize) -> Option<u32> {
    take_u32(input).filter(|&n| (n as usize) < bound)
}

fn take_text(input: &mut &[u8], data: &SpanData) -> Option<u32> {
    take_u32(input).filter(|&n| is_text(data, n))
}

fn is_text(data: &SpanData, n: u32) -> bool {
    (n as usize) < data.texts.len() && std::str::from_utf8(data.texts.get(n)).is_ok()
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(*taken)
}

fn number(n: usize) -> u32 {
    crate::span::dictionary::number(n)
}
