//! The order of rows inside a trace: depth-first preorder of the call tree.
//!
//! Spans come sorted by (start, id, content hash), each with the place of its parent. Roots keep that
//! order among each other, and so do the children of one span. In preorder the descendants of a row
//! are the rows right behind it, so two numbers a row say all of the tree: the distance back to its
//! parent, and how many descendants it has.
//!
//! Everything is iterative and linear in the spans, whatever their shape.

#![expect(
    clippy::indexing_slicing,
    reason = "places are below the number of spans: checked when they come in"
)]

use super::super::{dictionary::number, parents::NO_PARENT};

/// The order of one trace, and the buffers it is found with. Reused from trace to trace.
#[derive(Debug, Default)]
pub(super) struct Preorder {
    /// For each row of the trace the place of its span as it came in.
    pub(super) order: Vec<u32>,
    /// For each row the distance back to its parent's; 0: it has none.
    pub(super) parents: Vec<u32>,
    /// For each row the number of its descendants.
    pub(super) subtrees: Vec<u32>,
    first_child: Vec<u32>,
    next_sibling: Vec<u32>,
    row_of: Vec<u32>,
}

impl Preorder {
    /// Finds the order of spans whose parents stand at `parent_of`, [`NO_PARENT`] for none. Parents
    /// form no cycle; a span that hung on one nevertheless would become a root.
    pub(super) fn arrange(&mut self, parent_of: &[u32]) {
        let spans = parent_of.len();
        let Self {
            order,
            parents,
            subtrees,
            first_child,
            next_sibling,
            row_of,
        } = self;
        for column in [&mut *order, &mut *parents, &mut *subtrees] {
            column.clear();
        }
        for column in [&mut *first_child, &mut *next_sibling, &mut *row_of] {
            column.clear();
            column.resize(spans, NO_PARENT);
        }
        let mut first_root = NO_PARENT;
        // From the last on, so that each list rises.
        for (place, &parent) in parent_of.iter().enumerate().rev() {
            let head = first_child.get_mut(parent as usize);
            let head = head.unwrap_or(&mut first_root);
            next_sibling[place] = *head;
            *head = number(place);
        }
        visit(first_root, parent_of, first_child, next_sibling, order);
        if order.len() < spans {
            debug_assert!(false, "parents form no cycle");
            let mut seen = vec![false; spans];
            order.iter().for_each(|&place| seen[place as usize] = true);
            let left = (0..number(spans)).filter(|&place| !seen[place as usize]);
            order.extend(left);
        }
        for (row, &place) in order.iter().enumerate() {
            row_of[place as usize] = number(row);
        }
        for (row, &place) in order.iter().enumerate() {
            let parent = row_of.get(parent_of[place as usize] as usize);
            parents.push(parent.map_or(0, |&parent| number(row).saturating_sub(parent)));
        }
        subtrees.resize(spans, 0);
        for row in (0..spans).rev() {
            let distance = parents[row] as usize;
            if distance > 0 {
                subtrees[row - distance] += subtrees[row] + 1;
            }
        }
    }
}

/// Appends all that hangs on `root` and on the roots behind it.
fn visit(
    root: u32,
    parent_of: &[u32],
    first_child: &[u32],
    next_sibling: &[u32],
    order: &mut Vec<u32>,
) {
    let mut at = root;
    while at != NO_PARENT {
        order.push(at);
        let mut next = first_child[at as usize];
        // Nothing below: on to the next of the nearest one above that has a next.
        while next == NO_PARENT && at != NO_PARENT {
            next = next_sibling[at as usize];
            at = parent_of[at as usize];
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO: u32 = NO_PARENT;

    fn arranged(parent_of: &[u32]) -> Preorder {
        let mut preorder = Preorder::default();
        preorder.arrange(parent_of);
        preorder
    }

    #[test]
    fn children_follow_their_parent_before_its_siblings() {
        // 0 is a root with 2 and 3, 1 a root, 2 has 4.
        let got = arranged(&[NO, NO, 0, 0, 2]);
        assert_eq!(got.order, [0, 2, 4, 3, 1]);
        assert_eq!(got.parents, [0, 1, 1, 3, 0]);
        assert_eq!(got.subtrees, [3, 1, 0, 0, 0]);
    }

    #[test]
    fn a_parent_that_starts_after_its_child_comes_first_all_the_same() {
        let got = arranged(&[2, 0, NO]);
        assert_eq!(got.order, [2, 0, 1]);
        assert_eq!(got.parents, [0, 1, 1]);
        assert_eq!(got.subtrees, [2, 1, 0]);
    }

    #[test]
    fn chains_and_stars_of_a_million_take_linear_time() {
        let chain: Vec<u32> = (0..1_000_000).map(|i: u32| i.wrapping_sub(1)).collect();
        let got = arranged(&chain);
        assert_eq!((got.subtrees[0], got.parents[999_999]), (999_999, 1));
        let star: Vec<u32> = (0..1_000_000)
            .map(|i| if i == 0 { NO } else { 0 })
            .collect();
        let got = arranged(&star);
        assert_eq!((got.subtrees[0], got.parents[999_999]), (999_999, 999_999));
    }

    proptest! {
        #[test]
        fn descendants_are_an_interval(
            picks in prop::collection::vec((any::<u32>(), any::<bool>()), 1..200),
        ) {
            // Any earlier place is a parent without a cycle.
            let parent_of: Vec<u32> = picks.iter().zip(0u32..).map(|(&(pick, root), place)| {
                if place == 0 || root { NO } else { pick % place }
            }).collect();
            let got = arranged(&parent_of);
            for (row, &place) in got.order.iter().enumerate() {
                let expected = parent_of[place as usize];
                let distance = got.parents[row] as usize;
                let parent = (distance > 0).then(|| got.order[row - distance]);
                prop_assert_eq!(parent.unwrap_or(NO), expected);
                for (below, &inner) in got.order.iter().enumerate() {
                    let mut at = inner;
                    while at != place && at != NO { at = parent_of[at as usize]; }
                    let inside = below > row && below <= row + got.subtrees[row] as usize;
                    prop_assert_eq!(inside, at == place && below != row);
                }
            }
        }
    }
}
