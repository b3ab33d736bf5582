//! What few spans have: trace state, status message, counts of what was dropped, events, links.
//!
//! One byte string per span that has any of it (bytes: `docs/formats/span-part.md`). Texts and
//! attributes stand in it as numbers: of the batch's dictionaries in a batch, of the shard's in a
//! head, so that [`Rest::translate`] turns one into the other.

use crate::varint::{put_i64, put_u64, take_i64, take_slice, take_u32, take_u64};

const TRACE_STATE: u64 = 1;
const STATUS_MESSAGE: u64 = 2;
const DROPPED_ATTRIBUTES: u64 = 4;
const DROPPED_EVENTS: u64 = 8;
const DROPPED_LINKS: u64 = 16;
const EVENTS: u64 = 32;
const LINKS: u64 = 64;
const KNOWN: u64 = 127;

const LINK_HAS_TRACE: u64 = 1;
const LINK_HAS_SPAN: u64 = 2;

/// An event being collected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventHead {
    /// Nanoseconds since the epoch.
    pub(crate) time_ns: i64,
    /// Text number.
    pub(crate) name: u32,
    /// Attributes the sender left out.
    pub(crate) dropped: u32,
    /// Where its attributes end.
    pub(crate) tags_end: u32,
}

/// A link being collected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkHead {
    /// Zeros if there is none.
    pub(crate) trace_id: [u8; 16],
    /// Zeros if there is none.
    pub(crate) span_id: [u8; 8],
    /// Text number; `None` if empty.
    pub(crate) trace_state: Option<u32>,
    /// OTLP's flags.
    pub(crate) flags: u32,
    /// Attributes the sender left out.
    pub(crate) dropped: u32,
    /// Where its attributes end.
    pub(crate) tags_end: u32,
}

/// The rest of a span, unpacked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rest {
    /// Text number; `None` if empty.
    pub(crate) trace_state: Option<u32>,
    /// Text number; `None` if empty.
    pub(crate) status_message: Option<u32>,
    /// Counts of what the sender left out.
    pub(crate) dropped_attributes: u32,
    pub(crate) dropped_events: u32,
    pub(crate) dropped_links: u32,
    pub(crate) events: Vec<EventHead>,
    pub(crate) event_tags: Vec<u32>,
    pub(crate) links: Vec<LinkHead>,
    pub(crate) link_tags: Vec<u32>,
}

impl Rest {
    /// Forgets all, keeps the room.
    pub(crate) fn clear(&mut self) {
        self.trace_state = None;
        self.status_message = None;
        self.dropped_attributes = 0;
        self.dropped_events = 0;
        self.dropped_links = 0;
        self.events.clear();
        self.event_tags.clear();
        self.links.clear();
        self.link_tags.clear();
    }

    /// Appends the encoded form; nothing if there is nothing to say.
    pub(crate) fn encode(&self, start_ns: i64, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        let mask = flag(self.trace_state.is_some(), TRACE_STATE)
            | flag(self.status_message.is_some(), STATUS_MESSAGE)
            | flag(self.dropped_attributes != 0, DROPPED_ATTRIBUTES)
            | flag(self.dropped_events != 0, DROPPED_EVENTS)
            | flag(self.dropped_links != 0, DROPPED_LINKS)
            | flag(!self.events.is_empty(), EVENTS)
            | flag(!self.links.is_empty(), LINKS);
        if mask == 0 {
            return;
        }
        put_u64(out, mask);
        for text in [self.trace_state, self.status_message]
            .into_iter()
            .flatten()
        {
            put_u64(out, u64::from(text));
        }
        for count in [
            self.dropped_attributes,
            self.dropped_events,
            self.dropped_links,
        ] {
            if count != 0 {
                put_u64(out, u64::from(count));
            }
        }
        let put_tags = |out: &mut Vec<u8>, tags: &[u32], from: u32, to: u32| {
            let tags = tags.get(from as usize..to as usize).unwrap_or_default();
            put_u64(out, tags.len() as u64);
            for &tag in tags {
                put_u64(out, u64::from(tag));
            }
        };
        if !self.events.is_empty() {
            put_u64(out, self.events.len() as u64);
            let mut from = 0;
            for event in &self.events {
                put_i64(out, event.time_ns.wrapping_sub(start_ns));
                put_u64(out, u64::from(event.name));
                put_u64(out, u64::from(event.dropped));
                put_tags(out, &self.event_tags, from, event.tags_end);
                from = event.tags_end;
            }
        }
        if !self.links.is_empty() {
            put_u64(out, self.links.len() as u64);
            let mut from = 0;
            for link in &self.links {
                let has_trace = link.trace_id != [0; 16];
                let has_span = link.span_id != [0; 8];
                put_u64(
                    out,
                    flag(has_trace, LINK_HAS_TRACE) | flag(has_span, LINK_HAS_SPAN),
                );
                if has_trace {
                    out.extend_from_slice(&link.trace_id);
                }
                if has_span {
                    out.extend_from_slice(&link.span_id);
                }
                // Number + 1, so that "none" costs one byte and no flag.
                put_u64(out, link.trace_state.map_or(0, |text| u64::from(text) + 1));
                put_u64(out, u64::from(link.flags));
                put_u64(out, u64::from(link.dropped));
                put_tags(out, &self.link_tags, from, link.tags_end);
                from = link.tags_end;
            }
        }
    }

    /// Takes the encoded form off the front of `input`, which is not empty. `None` if it does not
    /// decode; what is allocated is bounded by the input.
    pub(crate) fn decode(&mut self, start_ns: i64, input: &mut &[u8]) -> Option<()> {
        self.clear();
        let mask = take_u64(input)?;
        if mask & !KNOWN != 0 || mask == 0 {
            return None;
        }
        if mask & TRACE_STATE != 0 {
            self.trace_state = Some(take_u32(input)?);
        }
        if mask & STATUS_MESSAGE != 0 {
            self.status_message = Some(take_u32(input)?);
        }
        for (flag, count) in [
            (DROPPED_ATTRIBUTES, &mut self.dropped_attributes),
            (DROPPED_EVENTS, &mut self.dropped_events),
            (DROPPED_LINKS, &mut self.dropped_links),
        ] {
            if mask & flag != 0 {
                *count = take_u32(input)?;
            }
        }
        if mask & EVENTS != 0 {
            for _ in 0..take_u64(input)? {
                let time_ns = start_ns.wrapping_add(take_i64(input)?);
                let (name, dropped) = (take_u32(input)?, take_u32(input)?);
                take_tags(input, &mut self.event_tags)?;
                let tags_end = u32::try_from(self.event_tags.len()).ok()?;
                self.events.push(EventHead {
                    time_ns,
                    name,
                    dropped,
                    tags_end,
                });
            }
        }
        if mask & LINKS != 0 {
            for _ in 0..take_u64(input)? {
                let has = take_u64(input)?;
                let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
                if has & LINK_HAS_TRACE != 0 {
                    trace_id = take_slice(input, 16)?.try_into().ok()?;
                }
                if has & LINK_HAS_SPAN != 0 {
                    span_id = take_slice(input, 8)?.try_into().ok()?;
                }
                let trace_state = take_u32(input)?.checked_sub(1);
                let (flags, dropped) = (take_u32(input)?, take_u32(input)?);
                take_tags(input, &mut self.link_tags)?;
                let tags_end = u32::try_from(self.link_tags.len()).ok()?;
                let link = LinkHead {
                    trace_id,
                    span_id,
                    trace_state,
                    flags,
                    dropped,
                    tags_end,
                };
                self.links.push(link);
            }
        }
        Some(())
    }

    /// Changes every text and attribute number.
    pub(crate) fn translate(
        &mut self,
        mut text: impl FnMut(u32) -> u32,
        mut tag: impl FnMut(u32) -> u32,
    ) {
        let optional = [&mut self.trace_state, &mut self.status_message];
        for number in optional.into_iter().flatten() {
            *number = text(*number);
        }
        for event in &mut self.events {
            event.name = text(event.name);
        }
        for number in self
            .links
            .iter_mut()
            .filter_map(|link| link.trace_state.as_mut())
        {
            *number = text(*number);
        }
        for number in self.event_tags.iter_mut().chain(&mut self.link_tags) {
            *number = tag(*number);
        }
    }

    /// Sorts each event's and link's attributes by number: the form that is compared.
    pub(crate) fn sort_attributes(&mut self) {
        let mut from = 0;
        for event in &self.events {
            if let Some(tags) = self.event_tags.get_mut(from..event.tags_end as usize) {
                tags.sort_unstable();
            }
            from = event.tags_end as usize;
        }
        from = 0;
        for link in &self.links {
            if let Some(tags) = self.link_tags.get_mut(from..link.tags_end as usize) {
                tags.sort_unstable();
            }
            from = link.tags_end as usize;
        }
    }
}

fn take_tags(input: &mut &[u8], tags: &mut Vec<u32>) -> Option<()> {
    for _ in 0..take_u64(input)? {
        tags.push(take_u32(input)?);
    }
    Some(())
}
