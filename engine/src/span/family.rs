//! The spans of one trace and who called whom, and what follows from that.
//!
//! Everything is iterative and linear in the spans, whatever the shape of the tree, but for sorting
//! the children of one span by start where their time is added up.

use roaring::RoaringBitmap;

use super::{axis::Axis, dictionary::number, parents::NO_PARENT};

/// A place whose answer is not known yet.
const UNKNOWN: u32 = u32::MAX;

/// The visible rows of a trace with their parents.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// The trace, as its part numbers it.
    pub(crate) trace: u32,
    /// Rising.
    pub(crate) rows: Vec<u32>,
    /// By place in `rows`: the place of the parent, or [`NO_PARENT`]. Following them always ends.
    pub(crate) parents: Vec<u32>,
    pub(crate) starts: Vec<i64>,
    pub(crate) durations: Vec<u64>,
}

impl Family {
    /// Forgets all, keeps the room.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.parents.clear();
        self.starts.clear();
        self.durations.clear();
    }

    /// Where a row stands.
    pub(crate) fn place_of(&self, row: u32) -> Option<u32> {
        self.rows.binary_search(&row).ok().map(number)
    }

    /// The place of the parent.
    #[inline]
    pub(crate) fn parent(&self, place: u32) -> Option<u32> {
        let parent = self.parents.get(place as usize).copied()?;
        (parent != NO_PARENT).then_some(parent)
    }

    /// Puts the rows that are `axis` of one of `of` into `into`, in no promised order.
    pub(crate) fn relatives(&self, of: &RoaringBitmap, axis: Axis, into: &mut Vec<u32>) {
        let member: Vec<bool> = self.rows.iter().map(|&row| of.contains(row)).collect();
        let is_member = |place: u32| member.get(place as usize).copied().unwrap_or(false);
        let places = || 0..number(self.rows.len());
        let mut take = |place: u32| into.extend(self.rows.get(place as usize));
        match axis {
            Axis::Child => places()
                .filter(|&place| self.parent(place).is_some_and(is_member))
                .for_each(take),
            Axis::Descendant => {
                let below = self.fold_down(0, |above, parent| {
                    u32::from(above != 0 || is_member(parent))
                });
                places()
                    .zip(below)
                    .filter(|&(_, below)| below != 0)
                    .for_each(|(place, _)| take(place));
            }
            Axis::Parent | Axis::Ancestor => {
                let mut taken = vec![false; self.rows.len()];
                for member in places().filter(|&place| is_member(place)) {
                    let mut at = member;
                    while let Some(parent) = self.parent(at)
                        && let Some(taken) = taken.get_mut(parent as usize)
                        && !*taken
                    {
                        *taken = true;
                        take(parent);
                        if axis == Axis::Parent {
                            break;
                        }
                        at = parent;
                    }
                }
            }
            Axis::Sibling => {
                let mut children = vec![0u32; self.rows.len()];
                for parent in places()
                    .filter(|&place| is_member(place))
                    .filter_map(|place| self.parent(place))
                {
                    if let Some(count) = children.get_mut(parent as usize) {
                        *count += 1;
                    }
                }
                places()
                    .filter(|&place| {
                        let members = self.parent(place).and_then(|p| children.get(p as usize));
                        members.is_some_and(|&members| members > u32::from(is_member(place)))
                    })
                    .for_each(take);
            }
        }
    }

    /// How many spans are above each; a root has 0.
    pub(crate) fn depths(&self) -> Vec<u32> {
        self.fold_down(0, |depth, _| depth + 1)
    }

    /// How many children each has.
    pub(crate) fn child_counts(&self) -> Vec<u32> {
        let mut counts = vec![0u32; self.rows.len()];
        for &parent in &self.parents {
            // A root's parent is past the end.
            if let Some(count) = counts.get_mut(parent as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// For each place of `wanted`: its duration less the time during which one of its children ran.
    pub(crate) fn own_times(&self, wanted: &[bool]) -> Vec<u64> {
        let mut children: Vec<(u32, i64, i64)> = Vec::new();
        for ((&parent, &start), &duration) in
            self.parents.iter().zip(&self.starts).zip(&self.durations)
        {
            if wanted.get(parent as usize).copied().unwrap_or(false) {
                children.push((parent, start, start.wrapping_add_unsigned(duration)));
            }
        }
        children.sort_unstable();
        let mut own = self.durations.clone();
        for group in children.chunk_by(|a, b| a.0 == b.0) {
            let place = group.first().map_or(NO_PARENT, |child| child.0) as usize;
            let (Some(&start), Some(own)) = (self.starts.get(place), own.get_mut(place)) else {
                continue;
            };
            let intervals = group.iter().map(|&(_, from, to)| (from, to));
            *own -= covered_ns(start, *own, intervals);
        }
        own
    }

    /// Works out a value for each place from its parent's value and place; roots have `root`. Values
    /// stay below `u32::MAX`.
    fn fold_down(&self, root: u32, step: impl Fn(u32, u32) -> u32) -> Vec<u32> {
        let mut values = vec![UNKNOWN; self.rows.len()];
        let mut path = Vec::new();
        for place in 0..number(self.rows.len()) {
            let mut at = place;
            let mut value = loop {
                match values.get(at as usize) {
                    Some(&UNKNOWN) => {}
                    Some(&known) => break known,
                    None => break root,
                }
                path.push(at);
                match self.parent(at) {
                    Some(parent) => at = parent,
                    None => break UNKNOWN,
                }
            };
            while let Some(at) = path.pop() {
                value = match self.parent(at) {
                    Some(parent) => step(value, parent),
                    None => root,
                };
                if let Some(slot) = values.get_mut(at as usize) {
                    *slot = value;
                }
            }
        }
        values
    }
}

/// How much of `start_ns .. start_ns + duration_ns` the intervals cover together. They come sorted by
/// where they begin.
pub(crate) fn covered_ns(
    start_ns: i64,
    duration_ns: u64,
    intervals: impl Iterator<Item = (i64, i64)>,
) -> u64 {
    let end_ns = start_ns.wrapping_add_unsigned(duration_ns);
    let (mut at, mut covered) = (start_ns, 0u64);
    for (from, to) in intervals {
        let (from, to) = (from.max(at), to.min(end_ns));
        if to > from {
            covered += to.wrapping_sub(from).cast_unsigned();
            at = to;
        }
    }
    covered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn family(parents: &[Option<u32>]) -> Family {
        Family {
            trace: 0,
            rows: (0..number(parents.len())).map(|i| i * 2).collect(),
            parents: parents.iter().map(|p| p.unwrap_or(NO_PARENT)).collect(),
            starts: vec![0; parents.len()],
            durations: vec![0; parents.len()],
        }
    }

    /// Whether `a` is `axis` of `b`, by the words of the definition.
    fn related(family: &Family, a: u32, b: u32, axis: Axis) -> bool {
        let above = |mut at: u32, wanted: u32| {
            while let Some(parent) = family.parent(at) {
                if parent == wanted {
                    return true;
                }
                at = parent;
            }
            false
        };
        match axis {
            Axis::Child => family.parent(a) == Some(b),
            Axis::Parent => family.parent(b) == Some(a),
            Axis::Descendant => above(a, b),
            Axis::Ancestor => above(b, a),
            Axis::Sibling => {
                a != b && family.parent(a).is_some() && family.parent(a) == family.parent(b)
            }
        }
    }

    proptest! {
        #[test]
        fn relatives_are_those_of_the_definition(
            picks in prop::collection::vec((any::<bool>(), any::<u16>(), any::<bool>()), 1..30),
            rotate in 0usize..30,
        ) {
            // A forest: each node's parent comes earlier; then places are turned round.
            let n = picks.len();
            let place = |i: usize| (i + rotate) % n;
            let mut parents = vec![None; n];
            for (i, &(root, pick, _)) in picks.iter().enumerate() {
                if !root && i > 0 {
                    parents[place(i)] = Some(number(place(usize::from(pick) % i)));
                }
            }
            let family = family(&parents);
            let of: RoaringBitmap = (0..n).filter(|&i| picks[i].2).map(|i| family.rows[i]).collect();
            for axis in [Axis::Child, Axis::Parent, Axis::Descendant, Axis::Ancestor, Axis::Sibling] {
                let mut found = Vec::new();
                family.relatives(&of, axis, &mut found);
                found.sort_unstable();
                let right: Vec<u32> = (0..number(n))
                    .filter(|&a| (0..number(n)).any(|b| of.contains(b * 2) && related(&family, a, b, axis)))
                    .map(|a| a * 2)
                    .collect();
                prop_assert_eq!(found, right, "{:?}", axis);
            }
        }
    }

    #[test]
    fn depths_and_children_of_a_tree() {
        let family = family(&[Some(1), None, Some(0), Some(0), None]);
        assert_eq!(family.depths(), [1, 0, 2, 2, 0]);
        assert_eq!(family.child_counts(), [2, 1, 0, 0, 0]);
    }

    #[test]
    fn own_time_leaves_out_children_once_and_only_within_the_span() {
        let family = Family {
            starts: vec![0, -50, 20, 25, 90, 300],
            durations: vec![100, 60, 20, 10, 100, 5],
            ..family(&[None, Some(0), Some(0), Some(0), Some(0), Some(0)])
        };
        // 0..10, 20..40, 90..100 are covered.
        assert_eq!(family.own_times(&[true; 6]), [60, 60, 20, 10, 100, 5]);
    }

    #[test]
    fn a_deep_chain_takes_linear_time_and_no_stack() {
        let n = 300_000;
        let chain: Vec<_> = (0..n).map(|i| (i + 1 < n).then_some(i + 1)).collect();
        let family = family(&chain);
        assert_eq!(family.depths()[0], n - 1);
        let mut found = Vec::new();
        family.relatives(
            &RoaringBitmap::from([(n - 1) * 2]),
            Axis::Descendant,
            &mut found,
        );
        assert_eq!(found.len(), n as usize - 1);
    }
}
