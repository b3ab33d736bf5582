//! Peers known from the client's side alone: databases, messaging, everything else outside.
//!
//! A client span with a child in another service is none of these: that child is the call. The others
//! are told apart, and their peers named, by what the span's own attributes say, the first that is
//! there:
//!
//! | kind | spans | system | peer |
//! | --- | --- | --- | --- |
//! | database | client, with a system | `db.system.name`, `db.system` | `peer.service`, `db.namespace`, `db.name`, `server.address`, `net.peer.name`, the system |
//! | messaging | producer or client, with a system | `messaging.system` | `messaging.destination.name`, `messaging.destination`, the system |
//! | external | client, neither of them | none | `peer.service`, `server.address`, `net.peer.name`, `http.host`, the host of `url.full` or `http.url`, `network.peer.address`, `net.peer.ip` |
//!
//! A messaging span is one whoever receives: the consumer may be its child, or be linked to it.

use hashbrown::HashMap;

use super::{
    graph::{EdgeGraph, EdgeSlot},
    kind::EdgeKind,
    part::{EdgeFilter, Owners, calls_among, each_step},
};
use crate::{
    control::QueryControl,
    error::Error,
    span::{Axis, SpanCondition, SpanKind, SpanPart, SpanRows, SymbolId, TagScope},
};

const DATABASE_SYSTEM: [&str; 2] = ["db.system.name", "db.system"];
const DATABASE_PEER: [&str; 5] = [
    "peer.service",
    "db.namespace",
    "db.name",
    "server.address",
    "net.peer.name",
];
const MESSAGING_SYSTEM: [&str; 1] = ["messaging.system"];
const MESSAGING_PEER: [&str; 2] = ["messaging.destination.name", "messaging.destination"];
const EXTERNAL_PEER: [&str; 8] = [
    "peer.service",
    "server.address",
    "net.peer.name",
    "http.host",
    "url.full",
    "http.url",
    "network.peer.address",
    "net.peer.ip",
];
/// Of these only the host counts.
const URLS: [&str; 2] = ["url.full", "http.url"];

/// Adds the peers that a part's clients and producers name.
pub(super) fn add(
    part: &SpanPart,
    filter: &EdgeFilter,
    ctl: &QueryControl,
    into: &mut EdgeGraph,
) -> Result<(), Error> {
    let spans = |kind| {
        let spans = filter.spans(filter.caller.as_deref());
        spans.and(SpanCondition::Kind(kind))
    };
    let clients = part.select(&spans(SpanKind::Client), ctl)?;
    let producers = part.select(&spans(SpanKind::Producer), ctl)?;
    let senders = clients.clone().or(&producers);
    let of_database = having(part, &clients, &DATABASE_SYSTEM, ctl)?;
    let sends = having(part, &senders, &MESSAGING_SYSTEM, ctl)?;
    if filter.kinds.contains(EdgeKind::Messaging) {
        let naming = Naming {
            kind: EdgeKind::Messaging,
            system: &MESSAGING_SYSTEM,
            peer: &MESSAGING_PEER,
        };
        each_step(&sends.clone().minus(&of_database), |rows| {
            naming.add(part, filter, rows, ctl, into)
        })?;
    }
    if !filter.kinds.contains(EdgeKind::Database) && !filter.kinds.contains(EdgeKind::External) {
        return Ok(());
    }
    let answered = with_foreign_child(part, &clients, ctl)?;
    if filter.kinds.contains(EdgeKind::Database) {
        let naming = Naming {
            kind: EdgeKind::Database,
            system: &DATABASE_SYSTEM,
            peer: &DATABASE_PEER,
        };
        each_step(&of_database.clone().minus(&answered), |rows| {
            naming.add(part, filter, rows, ctl, into)
        })?;
    }
    if filter.kinds.contains(EdgeKind::External) {
        let naming = Naming {
            kind: EdgeKind::External,
            system: &[],
            peer: &EXTERNAL_PEER,
        };
        let others = clients.minus(&of_database).minus(&sends).minus(&answered);
        each_step(&others, |rows| naming.add(part, filter, rows, ctl, into))?;
    }
    Ok(())
}

/// Those of `rows` that have one of the keys.
fn having(
    part: &SpanPart,
    rows: &SpanRows,
    keys: &[&str],
    ctl: &QueryControl,
) -> Result<SpanRows, Error> {
    let mut found = SpanRows::new();
    for key in keys {
        each_step(&rows.clone().minus(&found), |rows| {
            let values = part.values(rows, key, TagScope::Span, ctl)?;
            for (row, code) in rows.iter().zip(values.codes) {
                if code != u32::MAX {
                    found.insert(row);
                }
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Those of `rows` that have a child in another service.
fn with_foreign_child(
    part: &SpanPart,
    rows: &SpanRows,
    ctl: &QueryControl,
) -> Result<SpanRows, Error> {
    let children = part.relatives(rows, Axis::Child, ctl)?;
    let mut owners = Owners::of(part);
    let mut foreign = SpanRows::new();
    each_step(&children, |children| {
        for (row, ..) in calls_among(part, children, &mut owners, ctl)? {
            foreign.insert(row);
        }
        Ok(())
    })?;
    part.relatives(&foreign, Axis::Parent, ctl)
}

/// How peers of a kind are named.
struct Naming<'a> {
    kind: EdgeKind,
    system: &'a [&'a str],
    peer: &'a [&'a str],
}

impl Naming<'_> {
    fn add(
        &self,
        part: &SpanPart,
        filter: &EdgeFilter,
        rows: &SpanRows,
        ctl: &QueryControl,
        into: &mut EdgeGraph,
    ) -> Result<(), Error> {
        let mut texts = Texts::default();
        let systems = texts.first_of(part, rows, self.system, ctl)?;
        let peers = texts.first_of(part, rows, self.peer, ctl)?;
        let (mut classes, mut durations) = (Vec::new(), Vec::new());
        part.classes(rows, ctl, &mut classes)?;
        part.durations(rows, ctl, &mut durations)?;
        let mut owners = Owners::of(part);
        let mut slots: HashMap<(SymbolId, u32, u32), Option<EdgeSlot>> = HashMap::new();
        let spans = classes.into_iter().zip(durations);
        for ((class, duration_ns), (system, peer)) in spans.zip(systems.into_iter().zip(peers)) {
            let peer = if peer == 0 { system } else { peer };
            let (Some((caller, error)), true) = (owners.get(class), peer != 0) else {
                continue;
            };
            let slot = *slots.entry((caller, system, peer)).or_insert_with(|| {
                let (caller, callee) = (part.symbol(caller), texts.get(peer));
                filter
                    .is_between(&caller, callee)
                    .then(|| into.slot(self.kind, &caller, callee, texts.get(system)))
            });
            if let Some(slot) = slot {
                into.add(slot, duration_ns, error);
            }
        }
        Ok(())
    }
}

/// Texts of attributes, numbered from 1; 0 is the empty one, which says nothing.
#[derive(Default)]
struct Texts {
    numbers: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Texts {
    fn get(&self, number: u32) -> &str {
        let place = (number as usize).checked_sub(1);
        place
            .and_then(|place| self.texts.get(place))
            .map_or("", String::as_str)
    }

    fn number(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&known) = self.numbers.get(text) {
            return known;
        }
        self.texts.push(text.to_owned());
        let number = super::number(self.texts.len());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// For each row the text of the first of the keys that it has with a text.
    fn first_of(
        &mut self,
        part: &SpanPart,
        rows: &SpanRows,
        keys: &[&str],
        ctl: &QueryControl,
    ) -> Result<Vec<u32>, Error> {
        let all: Vec<u32> = rows.iter().collect();
        let mut found = vec![0; all.len()];
        // Places in `all` of rows without a text yet.
        let mut open: Vec<usize> = (0..all.len()).collect();
        for key in keys {
            if open.is_empty() {
                break;
            }
            let asked: SpanRows = open.iter().filter_map(|&at| all.get(at).copied()).collect();
            let values = part.values(&asked, key, TagScope::Span, ctl)?;
            let numbers: Vec<u32> = values
                .values
                .iter()
                .map(|value| {
                    let text = value.to_string();
                    let text = if URLS.contains(key) {
                        host_of(&text)
                    } else {
                        &text
                    };
                    self.number(text)
                })
                .collect();
            let mut left = Vec::new();
            for (at, code) in open.into_iter().zip(values.codes) {
                match (found.get_mut(at), numbers.get(code as usize)) {
                    (Some(found), Some(&number)) if number != 0 => *found = number,
                    _ => left.push(at),
                }
            }
            open = left;
        }
        Ok(found)
    }
}

/// The host of a URL; empty if it has none.
fn host_of(url: &str) -> &str {
    let Some((_, rest)) = url.split_once("://") else {
        return "";
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split_once(']').map_or("", |(address, _)| address);
    }
    host.split_once(':').map_or(host, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_named_by_its_host() {
        for (url, host) in [
            ("http://shop.svc:8080/a/b", "shop.svc"),
            ("https://user:secret@pay.example?x=1", "pay.example"),
            ("http://[::1]:80/", "::1"),
            ("grpc://cart", "cart"),
            ("/relative", ""),
            ("", ""),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }
}
