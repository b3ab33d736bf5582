//! The edges of one part, from its rows.
//!
//! Rows are gathered some hundred thousand at a time, so that memory stays bounded and a trace that
//! has to be resolved anew is resolved a few times at most.

use hashbrown::HashMap;

use super::{
    graph::{EdgeGraph, EdgeSlot},
    kind::{EdgeKind, EdgeKinds},
};
use crate::{
    control::QueryControl,
    error::Error,
    span::{SpanCondition, SpanFilter, SpanPart, SpanRows, StatusCode, StringMatch, SymbolId},
    time::TimeRange,
};

/// Rows gathered at a time.
const STEP_ROWS: usize = 1 << 19;

/// Which edges are wanted.
#[derive(Clone, Debug)]
pub struct EdgeFilter {
    /// When the spans that make them start.
    pub range: TimeRange,
    /// Of which kinds they are.
    pub kinds: EdgeKinds,
    /// Who calls; anyone if `None`.
    pub caller: Option<String>,
    /// Who is called; anyone if `None`.
    pub callee: Option<String>,
}

impl EdgeFilter {
    /// All calls that start in `range`.
    pub fn calls_in(range: TimeRange) -> Self {
        Self {
            range,
            kinds: EdgeKinds::CALLS,
            caller: None,
            callee: None,
        }
    }

    /// Whether an edge between these two is wanted, whatever its kind.
    pub(super) fn is_between(&self, caller: &str, callee: &str) -> bool {
        let right = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == name)
        };
        right(&self.caller, caller) && right(&self.callee, callee)
    }

    /// The spans that start in the range, of `service` if there is one.
    pub(super) fn spans(&self, service: Option<&str>) -> SpanFilter {
        let filter = SpanFilter::in_range(self.range);
        match service {
            Some(name) => filter.and(SpanCondition::Service(StringMatch::equal(name))),
            None => filter,
        }
    }

    /// The same edges in another range.
    pub(super) fn within(&self, range: TimeRange) -> Self {
        Self {
            range,
            ..self.clone()
        }
    }
}

impl SpanPart {
    /// Adds the edges of this part by its summaries where it has them, else row by row. Links are left
    /// out: their other end may lie in another part ([`EdgeGraph::add_links`]).
    ///
    /// # Errors
    /// The query's bounds; damage.
    pub fn add_edges(
        &self,
        filter: &EdgeFilter,
        ctl: &QueryControl,
        into: &mut EdgeGraph,
    ) -> Result<(), Error> {
        let bounds = self.start_bounds();
        if !bounds.is_some_and(|bounds| bounds.overlaps(filter.range)) {
            return Ok(());
        }
        let mut from_rows = filter.clone();
        if let Some((block, hidden)) = self.block()
            && filter.kinds.contains(EdgeKind::Call)
            && super::block::add(self, block, hidden, filter, ctl, into)?
        {
            from_rows.kinds = filter.kinds.without(EdgeKind::Call);
        }
        self.add_edges_of_rows(&from_rows, ctl, into)
    }

    /// Adds the edges of this part, row by row. Links are left out: their other end may lie in another
    /// part ([`EdgeGraph::add_links`]).
    ///
    /// # Errors
    /// The query's bounds; damage.
    pub fn add_edges_of_rows(
        &self,
        filter: &EdgeFilter,
        ctl: &QueryControl,
        into: &mut EdgeGraph,
    ) -> Result<(), Error> {
        let bounds = self.start_bounds();
        if !bounds.is_some_and(|bounds| bounds.overlaps(filter.range)) {
            return Ok(());
        }
        if filter.kinds.contains(EdgeKind::Call) {
            add_all_calls(self, filter, ctl, into)?;
        }
        if !filter.kinds.and(EdgeKinds::PEERS).is_empty() {
            super::peers::add(self, filter, ctl, into)?;
        }
        Ok(())
    }
}

/// Calls `each` with the rows, some at a time.
pub(super) fn each_step(
    rows: &SpanRows,
    mut each: impl FnMut(&SpanRows) -> Result<(), Error>,
) -> Result<(), Error> {
    if rows.len() <= STEP_ROWS as u64 {
        return if rows.is_empty() { Ok(()) } else { each(rows) };
    }
    let mut left = rows.iter().peekable();
    while left.peek().is_some() {
        let step: SpanRows = left.by_ref().take(STEP_ROWS).collect();
        each(&step)?;
    }
    Ok(())
}

/// What classes of a part say, asked once each.
pub(super) struct Owners<'a> {
    part: &'a SpanPart,
    known: Vec<Option<(SymbolId, bool)>>,
}

impl<'a> Owners<'a> {
    pub(super) fn of(part: &'a SpanPart) -> Self {
        Self {
            part,
            known: Vec::new(),
        }
    }

    /// The service of a class and whether its status is an error; `None` for no class.
    #[inline]
    pub(super) fn get(&mut self, class: u32) -> Option<(SymbolId, bool)> {
        match self.known.get(class as usize) {
            Some(Some(known)) => Some(*known),
            _ => self.ask(class),
        }
    }

    #[cold]
    fn ask(&mut self, class: u32) -> Option<(SymbolId, bool)> {
        let count = self.part.class_count();
        if class >= count {
            return None;
        }
        self.known.resize(count as usize, None);
        let found = self.part.class(class);
        let owner = (found.service, found.status == StatusCode::Error);
        if let Some(known) = self.known.get_mut(class as usize) {
            *known = Some(owner);
        }
        Some(owner)
    }
}

/// Those of `rows` whose parent belongs to another service: the row, the parent's service, its own,
/// whether it is an error.
pub(super) fn calls_among(
    part: &SpanPart,
    rows: &SpanRows,
    owners: &mut Owners<'_>,
    ctl: &QueryControl,
) -> Result<Vec<(u32, SymbolId, SymbolId, bool)>, Error> {
    let (mut classes, mut parents) = (Vec::new(), Vec::new());
    part.classes(rows, ctl, &mut classes)?;
    part.parent_classes(rows, ctl, &mut parents)?;
    let mut calls = Vec::new();
    for ((row, class), parent) in rows.iter().zip(classes).zip(parents) {
        if parent == u32::MAX {
            continue;
        }
        if let (Some((own, error)), Some((parent, _))) = (owners.get(class), owners.get(parent))
            && own != parent
        {
            calls.push((row, parent, own, error));
        }
    }
    Ok(calls)
}

/// Adds the calls of a part, row by row.
pub(super) fn add_all_calls(
    part: &SpanPart,
    filter: &EdgeFilter,
    ctl: &QueryControl,
    into: &mut EdgeGraph,
) -> Result<(), Error> {
    let mut found = Vec::new();
    let spans = filter.spans(filter.callee.as_deref());
    let open = part.calls_between_resources(&spans, ctl, &mut found)?;
    let mut slots = Slots::new(part, filter);
    let mut owners = Owners::of(part);
    for (parent, class, duration_ns) in found {
        if let (Some((caller, _)), Some((callee, error))) = (owners.get(parent), owners.get(class))
            && caller != callee
            && let Some(slot) = slots.get(caller, callee, into)
        {
            into.add(slot, duration_ns, error);
        }
    }
    each_step(&open, |rows| add_calls(part, filter, rows, ctl, into))
}

/// Adds the calls among `rows`, which satisfy the filter but for the caller.
pub(super) fn add_calls(
    part: &SpanPart,
    filter: &EdgeFilter,
    rows: &SpanRows,
    ctl: &QueryControl,
    into: &mut EdgeGraph,
) -> Result<(), Error> {
    let mut owners = Owners::of(part);
    let calls = calls_among(part, rows, &mut owners, ctl)?;
    let mut slots = Slots::new(part, filter);
    let (mut chosen, mut of_rows) = (Vec::new(), Vec::new());
    for (row, caller, callee, error) in calls {
        if let Some(slot) = slots.get(caller, callee, into) {
            chosen.push((slot, error));
            of_rows.push(row);
        }
    }
    let mut durations = Vec::new();
    part.durations(&of_rows.into_iter().collect(), ctl, &mut durations)?;
    for ((slot, error), duration_ns) in chosen.into_iter().zip(durations) {
        into.add(slot, duration_ns, error);
    }
    Ok(())
}

/// The edges of calls by the services of a part.
struct Slots<'a> {
    part: &'a SpanPart,
    filter: &'a EdgeFilter,
    known: HashMap<(SymbolId, SymbolId), Option<EdgeSlot>>,
    /// Edges come in runs of the same few.
    last: Option<((SymbolId, SymbolId), Option<EdgeSlot>)>,
}

impl<'a> Slots<'a> {
    fn new(part: &'a SpanPart, filter: &'a EdgeFilter) -> Self {
        Self {
            part,
            filter,
            known: HashMap::new(),
            last: None,
        }
    }

    /// The edge between two services, if it is wanted.
    fn get(
        &mut self,
        caller: SymbolId,
        callee: SymbolId,
        graph: &mut EdgeGraph,
    ) -> Option<EdgeSlot> {
        let key = (caller, callee);
        if let Some((known, slot)) = self.last
            && known == key
        {
            return slot;
        }
        let Self {
            part,
            filter,
            known,
            last,
        } = self;
        let slot = *known.entry(key).or_insert_with(|| {
            let (caller, callee) = (part.symbol(caller), part.symbol(callee));
            filter
                .is_between(&caller, &callee)
                .then(|| graph.slot(EdgeKind::Call, &caller, &callee, ""))
        });
        *last = Some((key, slot));
        slot
    }
}
