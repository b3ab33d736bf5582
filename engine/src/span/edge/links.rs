//! Links as edges: from the service of the span that is linked to, to the service whose span links.
//!
//! 1. Links of the spans in the range are gathered, part by part, some hundred thousand at a time.
//! 2. They are sorted by the span they point to, and each trace is looked up once, in every part: it may
//!    lie in any of them.
//! 3. Of several spans under the id that is pointed to, the earliest counts, then the one whose service
//!    comes first by name. A link whose target is not stored is counted as unresolved.
//!
//! A link within one service is no edge. Calls are links; errors and latency are those of the spans that
//! have them.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{
    graph::{EdgeGraph, EdgeSlot},
    kind::EdgeKind,
    part::{EdgeFilter, Owners, each_step},
};
use crate::{
    control::QueryControl,
    error::Error,
    id::{SpanId, TraceId},
    span::{SpanPart, SpanRows, SymbolId},
};

/// Links gathered before they are looked up.
const LINKS_AT_ONCE: usize = 1 << 19;

/// A link that waits for its other end.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    trace: TraceId,
    span: SpanId,
    /// Number of the linking span's service.
    callee: u32,
    error: bool,
    duration_ns: u64,
}

impl EdgeGraph {
    /// Adds the links of all parts of a snapshot.
    ///
    /// # Errors
    /// The query's bounds; damage.
    pub fn add_links(
        &mut self,
        parts: &[SpanPart],
        filter: &EdgeFilter,
        ctl: &QueryControl,
    ) -> Result<(), Error> {
        let mut links = Links {
            parts,
            filter,
            names: Names::default(),
            waiting: Vec::new(),
        };
        for part in parts {
            let bounds = part.start_bounds();
            if !bounds.is_some_and(|bounds| bounds.overlaps(filter.range)) {
                continue;
            }
            let rows = part.select(&filter.spans(filter.callee.as_deref()), ctl)?;
            each_step(&rows, |rows| {
                links.gather(part, rows, ctl, self)?;
                if links.waiting.len() >= LINKS_AT_ONCE {
                    links.resolve(ctl, self)?;
                }
                Ok(())
            })?;
        }
        links.resolve(ctl, self)
    }
}

struct Links<'a> {
    parts: &'a [SpanPart],
    filter: &'a EdgeFilter,
    names: Names,
    waiting: Vec<Waiting>,
}

/// Names of services of all parts, each once.
#[derive(Default)]
struct Names {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl Names {
    fn number(&mut self, text: &Arc<str>) -> u32 {
        if let Some(&known) = self.numbers.get(text) {
            return known;
        }
        let number = super::number(self.texts.len());
        self.texts.push(Arc::clone(text));
        self.numbers.insert(Arc::clone(text), number);
        number
    }

    fn get(&self, number: u32) -> Arc<str> {
        let text = self.texts.get(number as usize);
        text.cloned().unwrap_or_default()
    }
}

impl Links<'_> {
    fn gather(
        &mut self,
        part: &SpanPart,
        rows: &SpanRows,
        ctl: &QueryControl,
        into: &mut EdgeGraph,
    ) -> Result<(), Error> {
        let mut found: Vec<(u32, [u8; 16], [u8; 8])> = Vec::new();
        part.each_link(rows, ctl, &mut |row, trace, span| {
            found.push((row, trace, span));
        })?;
        let linking: SpanRows = found.iter().map(|link| link.0).collect();
        let (mut classes, mut durations) = (Vec::new(), Vec::new());
        part.classes(&linking, ctl, &mut classes)?;
        part.durations(&linking, ctl, &mut durations)?;
        let mut owners = Owners::of(part);
        let mut numbers: HashMap<SymbolId, u32> = HashMap::new();
        // Links come in the order of rows.
        let mut spans = linking.iter().zip(classes.into_iter().zip(durations));
        let mut at = spans.next();
        for (row, trace, span) in found {
            while at.is_some_and(|(known, _)| known < row) {
                at = spans.next();
            }
            let Some((_, (class, duration_ns))) = at else {
                break;
            };
            let (Some(trace), Some(span)) = (TraceId::new(trace), SpanId::new(span)) else {
                into.count_unresolved(1);
                continue;
            };
            let Some((service, error)) = owners.get(class) else {
                continue;
            };
            let names = &mut self.names;
            let callee = *numbers
                .entry(service)
                .or_insert_with(|| names.number(&part.symbol(service)));
            self.waiting.push(Waiting {
                trace,
                span,
                callee,
                error,
                duration_ns,
            });
        }
        Ok(())
    }

    /// Finds the other ends of what was gathered.
    fn resolve(&mut self, ctl: &QueryControl, into: &mut EdgeGraph) -> Result<(), Error> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_unstable_by_key(|link| (link.trace, link.span));
        let mut slots: HashMap<(u32, u32), Option<EdgeSlot>> = HashMap::new();
        // By place in `links`, only the first of each target: earliest start and the service.
        let mut ends: Vec<Option<(i64, Arc<str>)>> = Vec::new();
        for links in waiting.chunk_by(|a, b| a.trace == b.trace) {
            ctl.check()?;
            ends.clear();
            ends.resize(links.len(), None);
            let Some(trace) = links.first().map(|link| link.trace) else {
                continue;
            };
            for part in self.parts {
                let mut owners = Owners::of(part);
                part.each_span_of(trace, ctl, &mut |id, start, class| {
                    let place = links.partition_point(|link| link.span.as_bytes() < &id);
                    let wanted = links
                        .get(place)
                        .is_some_and(|link| link.span.as_bytes() == &id);
                    if let (true, Some(end)) = (wanted, ends.get_mut(place)) {
                        let earlier = end.as_ref().is_none_or(|(known, _)| start <= *known);
                        if earlier && let Some((service, _)) = owners.get(class) {
                            let found = (start, part.symbol(service));
                            if end.as_ref().is_none_or(|known| found < *known) {
                                *end = Some(found);
                            }
                        }
                    }
                })?;
            }
            let mut end = None;
            let mut last = None;
            for (link, found) in links.iter().zip(&mut ends) {
                if last != Some(link.span) {
                    last = Some(link.span);
                    end = found.take();
                }
                let Some((_, caller)) = &end else {
                    into.count_unresolved(1);
                    continue;
                };
                let caller = self.names.number(caller);
                if caller == link.callee {
                    continue;
                }
                let slot = *slots.entry((caller, link.callee)).or_insert_with(|| {
                    let (caller, callee) = (self.names.get(caller), self.names.get(link.callee));
                    let wanted = self.filter.is_between(&caller, &callee);
                    wanted.then(|| into.slot(EdgeKind::Link, &caller, &callee, ""))
                });
                if let Some(slot) = slot {
                    into.add(slot, link.duration_ns, link.error);
                }
            }
        }
        waiting.clear();
        self.waiting = waiting;
        Ok(())
    }
}
