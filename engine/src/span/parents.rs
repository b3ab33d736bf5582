//! Which span caused which: the parent rule.
//!
//! 1. The candidates are the visible spans of the trace under the child's parent id, the child itself
//!    left out.
//! 2. Of several, a server or consumer span of the child's own service comes first (a client and a
//!    server that share one id), else the earliest start, then the lowest content hash.
//! 3. A cycle of parents is cut at its member with the least (start, id): that one has no parent.
//!
//! Everything is iterative and linear in the spans, whatever their shape: each id's candidates are
//! ranked once, not once per child. The order in which spans are given has no influence.

use std::cmp::Ordering;

use hashbrown::HashMap;

/// No parent.
pub(crate) const NO_PARENT: u32 = u32::MAX;

/// What the rule looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) span_id: [u8; 8],
    /// Zeros if there is none.
    pub(crate) parent_id: [u8; 8],
    pub(crate) start_ns: i64,
    pub(crate) service: u32,
    /// Server or consumer.
    pub(crate) called_side: bool,
}

/// The two best candidates, so that one remains when a child is one of them.
#[derive(Clone, Copy, Debug)]
struct Best {
    first: u32,
    second: u32,
}

impl Best {
    const EMPTY: Self = Self {
        first: NO_PARENT,
        second: NO_PARENT,
    };

    fn offer(&mut self, candidate: u32, before: &mut impl FnMut(u32, u32) -> bool) {
        if self.first == NO_PARENT || before(candidate, self.first) {
            self.second = self.first;
            self.first = candidate;
        } else if self.second == NO_PARENT || before(candidate, self.second) {
            self.second = candidate;
        }
    }

    fn other_than(self, child: u32) -> Option<u32> {
        let best = if self.first == child {
            self.second
        } else {
            self.first
        };
        (best != NO_PARENT).then_some(best)
    }
}

/// The candidates under one id, ranked.
struct Ranking {
    all: Best,
    /// Server and consumer spans by service.
    called: HashMap<u32, Best>,
}

/// For each node the place of its parent, or [`NO_PARENT`]. `content` gives a node's content hash; it
/// is asked only where starts are equal.
pub(crate) fn resolve(nodes: &[Node], mut content: impl FnMut(u32) -> u128) -> Vec<u32> {
    let mut hashes: HashMap<u32, u128> = HashMap::new();
    let mut content = move |i: u32| *hashes.entry(i).or_insert_with(|| content(i));
    // Spans of one id as a chain: the map holds the last, `before` the one before each.
    let mut by_id: HashMap<[u8; 8], u32> = HashMap::with_capacity(nodes.len());
    let mut before = vec![NO_PARENT; nodes.len()];
    for ((node, before), i) in nodes.iter().zip(&mut before).zip(0u32..) {
        if let Some(last) = by_id.insert(node.span_id, i) {
            *before = last;
        }
    }
    let mut rankings: HashMap<[u8; 8], Ranking> = HashMap::new();
    let mut parents = vec![NO_PARENT; nodes.len()];
    for ((node, parent), child) in nodes.iter().zip(&mut parents).zip(0u32..) {
        if node.parent_id == [0; 8] {
            continue;
        }
        let Some(&last) = by_id.get(&node.parent_id) else {
            continue;
        };
        if before.get(last as usize) == Some(&NO_PARENT) {
            if last != child {
                *parent = last;
            }
            continue;
        }
        let ranking = rankings
            .entry(node.parent_id)
            .or_insert_with(|| rank(nodes, &before, last, &mut content));
        let called = ranking
            .called
            .get(&node.service)
            .and_then(|best| best.other_than(child));
        *parent = called
            .or_else(|| ranking.all.other_than(child))
            .unwrap_or(NO_PARENT);
    }
    cut_cycles(nodes, &mut parents, &mut content);
    parents
}

fn rank(
    nodes: &[Node],
    before: &[u32],
    last: u32,
    content: &mut impl FnMut(u32) -> u128,
) -> Ranking {
    let start = |i: u32| nodes.get(i as usize).map_or(i64::MAX, |node| node.start_ns);
    let mut comes_before = |a: u32, b: u32| match start(a).cmp(&start(b)) {
        Ordering::Less => true,
        Ordering::Equal => content(a) < content(b),
        Ordering::Greater => false,
    };
    let mut ranking = Ranking {
        all: Best::EMPTY,
        called: HashMap::new(),
    };
    let mut next = last;
    while let Some(node) = nodes.get(next as usize) {
        ranking.all.offer(next, &mut comes_before);
        if node.called_side {
            let called = ranking.called.entry(node.service).or_insert(Best::EMPTY);
            called.offer(next, &mut comes_before);
        }
        next = before.get(next as usize).copied().unwrap_or(NO_PARENT);
    }
    ranking
}

/// Walks up from every node once. A walk that meets itself has found a cycle.
fn cut_cycles(nodes: &[Node], parents: &mut [u32], content: &mut impl FnMut(u32) -> u128) {
    // 0: not seen. Else the walk that saw it, from 1.
    let mut seen = vec![0u32; nodes.len()];
    for (start, walk) in (0u32..).zip(1..=nodes.len()) {
        let walk = u32::try_from(walk).unwrap_or(u32::MAX);
        let mut at = start;
        while let Some(mark) = seen.get_mut(at as usize) {
            if *mark == walk {
                let root = least_of_cycle(nodes, parents, at, content);
                if let Some(parent) = parents.get_mut(root as usize) {
                    *parent = NO_PARENT;
                }
                break;
            }
            if *mark != 0 {
                break;
            }
            *mark = walk;
            at = parents.get(at as usize).copied().unwrap_or(NO_PARENT);
        }
    }
}

fn least_of_cycle(
    nodes: &[Node],
    parents: &[u32],
    member: u32,
    content: &mut impl FnMut(u32) -> u128,
) -> u32 {
    let key = |i: u32| {
        nodes
            .get(i as usize)
            .map(|node| (node.start_ns, node.span_id))
    };
    let mut least = member;
    let mut at = parents.get(member as usize).copied().unwrap_or(member);
    while at != member {
        let order = key(at).cmp(&key(least));
        if order == Ordering::Less || (order == Ordering::Equal && content(at) < content(least)) {
            least = at;
        }
        at = parents.get(at as usize).copied().unwrap_or(member);
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u8, parent: u8, start_ns: i64, service: u32, called_side: bool) -> Node {
        Node {
            span_id: [id; 8],
            parent_id: [parent; 8],
            start_ns,
            service,
            called_side,
        }
    }

    fn parents(nodes: &[Node]) -> Vec<u32> {
        resolve(nodes, u128::from)
    }

    #[test]
    fn a_child_finds_its_parent_wherever_it_stands() {
        let nodes = [
            node(2, 1, 5, 0, false),
            node(3, 9, 5, 0, false),
            node(1, 0, 1, 0, false),
        ];
        assert_eq!(parents(&nodes), [2, NO_PARENT, NO_PARENT]);
    }

    #[test]
    fn a_shared_id_leads_to_the_called_side_of_the_childs_own_service() {
        let client = node(1, 0, 1, 0, false);
        let server = node(1, 0, 3, 7, true);
        let nodes = [
            client,
            server,
            node(2, 1, 5, 7, false),
            node(3, 1, 5, 0, false),
            node(4, 1, 5, 9, true),
        ];
        assert_eq!(parents(&nodes), [NO_PARENT, NO_PARENT, 1, 0, 0]);
    }

    #[test]
    fn equal_starts_are_told_apart_by_content() {
        let nodes = [
            node(1, 0, 1, 0, false),
            node(1, 0, 1, 0, false),
            node(2, 1, 5, 0, false),
        ];
        assert_eq!(resolve(&nodes, |i| u128::from(9 - i))[2], 1);
    }

    #[test]
    fn a_span_is_never_its_own_parent_but_its_twin_may_be() {
        assert_eq!(parents(&[node(1, 1, 1, 0, false)]), [NO_PARENT]);
        let nodes = [node(1, 9, 1, 0, false), node(1, 1, 3, 7, true)];
        assert_eq!(parents(&nodes), [NO_PARENT, 0]);
    }

    #[test]
    fn a_cycle_is_cut_at_its_least_member_and_keeps_its_tails() {
        // 1 -> 2 -> 3 -> 1, and 4 hangs on 2.
        let nodes = [
            node(1, 3, 30, 0, false),
            node(2, 1, 10, 0, false),
            node(3, 2, 20, 0, false),
            node(4, 2, 1, 0, false),
        ];
        assert_eq!(parents(&nodes), [2, NO_PARENT, 1, 1]);
    }

    #[test]
    fn deep_chains_and_many_twins_take_linear_time() {
        let chain: Vec<Node> = (0..200_000u32)
            .map(|i| Node {
                span_id: u64::from(i + 1).to_be_bytes(),
                parent_id: u64::from(i).to_be_bytes(),
                start_ns: i.into(),
                service: 0,
                called_side: false,
            })
            .collect();
        assert_eq!(parents(&chain)[199_999], 199_998);
        let twins = vec![node(1, 1, 5, 0, true); 200_000];
        let cut = parents(&twins);
        // All hang on the lowest, the lowest on the second lowest: one cycle, cut at the lowest.
        assert_eq!((cut[0], cut[1], cut[199_999]), (NO_PARENT, 0, 0));
    }
}
