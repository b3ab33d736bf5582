//! What was found out about edges so far: one number an edge, however many parts had it.
//!
//! Invariants
//! - Adding and taking off commute: what a part's summaries count too much may be taken off before or
//!   after they are added.
//! - Durations are kept one by one while they are not more than asked for. Past that none is kept.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{kind::EdgeKind, sketch::DurationSketch};

/// The place of an edge in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct EdgeSlot(u32);

/// Sums over the spans that make an edge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EdgeSums {
    calls: i64,
    errors: i64,
    duration_ns: i128,
    durations: DurationSketch,
}

impl EdgeSums {
    /// Spans.
    pub fn calls(&self) -> u64 {
        u64::try_from(self.calls).unwrap_or(0)
    }

    /// Those whose status is an error.
    pub fn errors(&self) -> u64 {
        u64::try_from(self.errors).unwrap_or(0)
    }

    /// Their durations, added up.
    pub fn duration_sum_ns(&self) -> u128 {
        u128::try_from(self.duration_ns).unwrap_or(0)
    }

    /// Their durations as a histogram.
    pub fn durations(&self) -> &DurationSketch {
        &self.durations
    }

    /// Counts a span.
    #[inline]
    pub(super) fn add(&mut self, duration_ns: u64, error: bool) {
        self.calls += 1;
        self.errors += i64::from(error);
        self.duration_ns += i128::from(duration_ns);
        self.durations.add(duration_ns);
    }

    /// Takes a span off.
    #[inline]
    pub(super) fn remove(&mut self, duration_ns: u64, error: bool) {
        self.calls -= 1;
        self.errors -= i64::from(error);
        self.duration_ns -= i128::from(duration_ns);
        self.durations.remove(duration_ns);
    }

    /// Counts spans whose durations follow, bucket by bucket.
    pub(super) fn add_counts(&mut self, calls: u64, errors: u64, duration_ns: u128) {
        self.calls = self.calls.saturating_add_unsigned(calls);
        self.errors = self.errors.saturating_add_unsigned(errors);
        self.duration_ns = self.duration_ns.saturating_add_unsigned(duration_ns);
    }

    /// Counts the durations of a bucket.
    #[inline]
    pub(super) fn add_bucket(&mut self, bucket: u16, count: i64) {
        self.durations.change(bucket, count);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.errors = self.errors.saturating_add(other.errors);
        self.duration_ns = self.duration_ns.saturating_add(other.duration_ns);
        self.durations.merge(&other.durations);
    }

    /// Counts nothing any more; keeps its room.
    pub(super) fn clear(&mut self) {
        (self.calls, self.errors, self.duration_ns) = (0, 0, 0);
        self.durations.clear();
    }
}

/// An edge and what was found out about it.
#[derive(Clone, Debug)]
pub struct Edge {
    /// What makes it.
    pub kind: EdgeKind,
    /// Who calls: a service.
    pub caller: Arc<str>,
    /// Who is called: a service, or what a client says of its peer.
    pub callee: Arc<str>,
    /// What kind of system a database or messaging peer is; empty for the other kinds.
    pub system: Arc<str>,
    /// Over the spans that make it.
    pub sums: EdgeSums,
    /// Their durations in ns, in no order: all of them, if the graph still keeps durations.
    pub durations_ns: Vec<u64>,
}

/// Edges, each once, with sums over all parts that were added.
#[derive(Clone, Debug, Default)]
pub struct EdgeGraph {
    names: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
    /// By kind, caller, callee and system.
    slots: HashMap<(EdgeKind, u32, u32, u32), EdgeSlot>,
    edges: Vec<Edge>,
    /// How many durations may be kept.
    durations_max: u64,
    durations: u64,
    /// Calls of which no duration is kept.
    coarse_calls: u64,
    unresolved_links: u64,
}

impl EdgeGraph {
    /// No edge yet; keeps durations one by one as long as they are not more than `durations_max`.
    pub fn new(durations_max: u64) -> Self {
        Self {
            durations_max,
            ..Self::default()
        }
    }

    /// An empty graph that keeps as many durations.
    pub(super) fn like(&self) -> Self {
        Self::new(self.durations_max)
    }

    /// Whether [`Edge::durations_ns`] of every edge has all durations.
    pub fn has_all_durations(&self) -> bool {
        self.coarse_calls == 0 && self.keeps_durations()
    }

    /// Calls over all edges.
    pub fn calls(&self) -> u64 {
        self.edges.iter().map(|edge| edge.sums.calls()).sum()
    }

    /// Whether durations one by one are of use at all.
    pub(super) fn keeps_durations(&self) -> bool {
        self.durations <= self.durations_max
    }

    /// Links whose target is not stored.
    pub fn unresolved_links(&self) -> u64 {
        self.unresolved_links
    }

    pub(super) fn count_unresolved(&mut self, links: u64) {
        self.unresolved_links += links;
    }

    /// Edges with at least one call, in no order.
    pub fn into_edges(self) -> impl Iterator<Item = Edge> {
        self.edges.into_iter().filter(|edge| edge.sums.calls > 0)
    }

    /// How many edges there are.
    pub fn len(&self) -> usize {
        self.edges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    /// About how much memory it takes.
    pub fn heap_bytes(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| text.len() + 48).sum();
        let edges: usize = self
            .edges
            .iter()
            .map(|edge| edge.sums.durations.heap_bytes() + edge.durations_ns.capacity() * 8)
            .sum();
        texts + edges + self.edges.len() * (size_of::<Edge>() + 48)
    }

    /// The edge of this name; new if it was not there.
    pub(super) fn slot(
        &mut self,
        kind: EdgeKind,
        caller: &str,
        callee: &str,
        system: &str,
    ) -> EdgeSlot {
        let key = (
            kind,
            self.name(caller),
            self.name(callee),
            self.name(system),
        );
        let Self {
            slots,
            edges,
            texts,
            ..
        } = self;
        *slots.entry(key).or_insert_with(|| {
            let text = |number: u32| texts.get(number as usize).cloned().unwrap_or_default();
            edges.push(Edge {
                kind,
                caller: text(key.1),
                callee: text(key.2),
                system: text(key.3),
                sums: EdgeSums::default(),
                durations_ns: Vec::new(),
            });
            EdgeSlot(u32::try_from(edges.len() - 1).unwrap_or(u32::MAX))
        })
    }

    fn name(&mut self, text: &str) -> u32 {
        if let Some(&known) = self.names.get(text) {
            return known;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.names.insert(text, number);
        number
    }

    /// Counts a span, and keeps its duration if there is room.
    #[inline]
    pub(super) fn add(&mut self, slot: EdgeSlot, duration_ns: u64, error: bool) {
        self.durations += 1;
        let keeps = self.keeps_durations();
        if let Some(edge) = self.edges.get_mut(slot.0 as usize) {
            edge.sums.add(duration_ns, error);
            if keeps {
                edge.durations_ns.push(duration_ns);
            }
        }
        if self.durations == self.durations_max.saturating_add(1) {
            self.drop_durations();
        }
    }

    /// What adds spans to an edge without their durations one by one.
    pub(super) fn sums_mut(&mut self, slot: EdgeSlot) -> Option<&mut EdgeSums> {
        self.edges
            .get_mut(slot.0 as usize)
            .map(|edge| &mut edge.sums)
    }

    /// Says that so many spans were added by their sums alone.
    pub(super) fn count_coarse(&mut self, calls: u64) {
        self.coarse_calls = self.coarse_calls.saturating_add(calls);
        if self.coarse_calls > 0 {
            self.durations = self.durations_max.saturating_add(1);
            self.drop_durations();
        }
    }

    fn drop_durations(&mut self) {
        for edge in &mut self.edges {
            edge.durations_ns = Vec::new();
        }
    }

    /// Adds all of another graph.
    pub fn merge(&mut self, other: Self) {
        self.unresolved_links += other.unresolved_links;
        let all = self.coarse_calls == 0
            && other.has_all_durations()
            && self.durations.saturating_add(other.durations) <= self.durations_max;
        for from in other.edges {
            let slot = self.slot(from.kind, &from.caller, &from.callee, &from.system);
            if let Some(into) = self.edges.get_mut(slot.0 as usize) {
                if into.sums.calls == 0 && into.sums.durations.heap_bytes() == 0 {
                    into.sums = from.sums;
                } else {
                    into.sums.merge(&from.sums);
                }
                if all {
                    into.durations_ns.extend(from.durations_ns);
                }
            }
        }
        self.coarse_calls = self.coarse_calls.saturating_add(other.coarse_calls);
        self.durations = if all {
            self.durations + other.durations
        } else {
            self.durations_max.saturating_add(1)
        };
        if !all {
            self.drop_durations();
        }
    }
}
