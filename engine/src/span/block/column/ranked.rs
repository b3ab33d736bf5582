//! Numbers as ranks: for each class the numbers that its occurrences have, the most frequent first.
//!
//! What is a function of the class costs nothing: all its ranks are 0. With one class for all it is a
//! dictionary of numbers far apart.

use hashbrown::HashMap;

/// Numbers of which the last of the same class was another, in 100, up to which ranks are tried.
const CHANGES_PERCENT_MAX: usize = 90;
/// Numbers looked at before that is judged.
const JUDGED_FROM: usize = 4096;
/// Of so many numbers one may be in a list.
const LISTED_SHARE: usize = 8;
/// Of no matter how few numbers so many may be in a list.
const LISTED_ALWAYS: usize = 64;

/// Lists of the numbers of each class, and for each occurrence the place in its class's list.
#[derive(Debug)]
pub(super) struct Ranked {
    /// The lists, end to end.
    pub(super) lists: Vec<i64>,
    /// Where the list of each class ends.
    pub(super) ends: Vec<i64>,
    /// By occurrence.
    pub(super) ranks: Vec<i64>,
}

/// A number that occurs in a class.
#[derive(Debug)]
struct Listed {
    class: u32,
    value: i64,
    count: u32,
}

impl Ranked {
    /// Ranks `values`; `classes` has as many, or none for one class. `None` if that cannot pay.
    pub(super) fn new(values: &[i64], classes: &[u32]) -> Option<Self> {
        let class_count = classes.iter().max().map_or(1, |&max| max as usize + 1);
        let has_classes = !classes.is_empty();
        if has_classes && (classes.len() != values.len() || class_count > values.len()) {
            return None;
        }
        let class_of = |at: usize| classes.get(at).copied().unwrap_or(0);
        // By class, the last number and its place in `listed`.
        let mut last = vec![(0_i64, u32::MAX); class_count];
        let mut known: HashMap<(u32, i64), u32> = HashMap::new();
        let mut listed: Vec<Listed> = Vec::new();
        let mut places = Vec::with_capacity(values.len());
        let listed_max = values.len() / LISTED_SHARE + LISTED_ALWAYS;
        let mut changes = 0;
        for (at, &value) in values.iter().enumerate() {
            let class = class_of(at);
            let last = last.get_mut(class as usize)?;
            if last.1 == u32::MAX || last.0 != value {
                let place = *known.entry((class, value)).or_insert_with(|| {
                    listed.push(Listed {
                        class,
                        value,
                        count: 0,
                    });
                    u32::try_from(listed.len() - 1).unwrap_or(u32::MAX)
                });
                *last = (value, place);
                changes += 1;
                if has_classes && at >= JUDGED_FROM && changes * 100 > at * CHANGES_PERCENT_MAX
                    || listed.len() > listed_max
                {
                    return None;
                }
            }
            places.push(last.1);
            listed.get_mut(last.1 as usize)?.count += 1;
        }
        drop(known);

        let mut order: Vec<u32> = (0..).take(listed.len()).collect();
        let listed = |place: u32| listed.get(place as usize);
        order.sort_unstable_by_key(|&place| {
            let listed = listed(place);
            listed.map(|l| (l.class, u32::MAX - l.count, l.value))
        });
        let mut ranks_of = vec![0_i64; order.len()];
        let mut lists = Vec::with_capacity(order.len());
        let mut ends = vec![0_i64; class_count];
        let (mut class, mut rank) = (u32::MAX, 0);
        for place in order {
            let listed = listed(place)?;
            if listed.class != class {
                (class, rank) = (listed.class, 0);
            }
            *ranks_of.get_mut(place as usize)? = rank;
            rank += 1;
            lists.push(listed.value);
            *ends.get_mut(class as usize)? = rank;
        }
        let mut end = 0;
        for of_class in &mut ends {
            end += *of_class;
            *of_class = end;
        }
        let rank_of = |place: &u32| ranks_of.get(*place as usize).copied().unwrap_or(0);
        Some(Self {
            lists,
            ends,
            ranks: places.iter().map(rank_of).collect(),
        })
    }
}
