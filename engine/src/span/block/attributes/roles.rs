//! What becomes of a key and type: a column, fixed pairs, or entries of the rest.
//!
//! Fixed is what the class of an item nearly always says: looked at through a sample, how often a value
//! differs from the one that the class had before. What was a column in a table that is merged stays one,
//! what was fixed in all of them stays fixed.

use std::{cmp::Reverse, sync::Arc};

use hashbrown::HashMap;

use super::{Limits, ValueType};

/// One in so many values of a fixed key may differ from what the class had before. Each next number is
/// tried if there are too many shapes with the one before.
pub(super) const FIXED_ONE_IN: [u64; 3] = [16, 128, 1024];
/// Values that were compared in the sample for it to say anything.
const COMPARED_MIN: u64 = 32;

/// A key and type, with what is known of them in the table to write.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) key: Arc<str>,
    pub(super) kind: ValueType,
    /// How often it occurs, but for entries of the rest of other tables.
    pub(super) occurrences: u64,
    /// It is a column of a table that is merged.
    pub(super) was_column: bool,
    /// It is fixed in a table that is merged.
    pub(super) was_fixed: bool,
    /// About how many distinct values it has, if they are few.
    pub(super) distinct: usize,
}

/// Keys and types by number.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    pub(super) all: Vec<Kind>,
    numbers: HashMap<Arc<str>, [u32; ValueType::ALL.len()]>,
}

impl Kinds {
    /// The number of a key and type, new or known.
    pub(super) fn intern(&mut self, key: &Arc<str>, kind: ValueType) -> u32 {
        let next = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let none = [u32::MAX; ValueType::ALL.len()];
        let of_key = self.numbers.entry(Arc::clone(key)).or_insert(none);
        let number = of_key.get_mut(kind as usize);
        let number = number.expect("there is a place for each type");
        if *number == u32::MAX {
            *number = next;
            self.all.push(Kind {
                key: Arc::clone(key),
                kind,
                occurrences: 0,
                was_column: false,
                was_fixed: false,
                distinct: usize::MAX,
            });
        }
        *number
    }

    pub(super) fn get(&self, number: u32) -> Option<&Kind> {
        self.all.get(number as usize)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Kind> {
        self.all.get_mut(number as usize)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

/// How well the class of an item says the value of each key and type.
#[derive(Debug, Default)]
pub(super) struct ClassSample {
    last: HashMap<u64, u32>,
    /// By kind: values that were compared with one before, and those that differed.
    compared: Vec<(u64, u64)>,
}

impl ClassSample {
    pub(super) fn new(kinds: usize) -> Self {
        Self {
            last: HashMap::new(),
            compared: vec![(0, 0); kinds],
        }
    }

    /// Notes the value, by its number, that an item of a class has.
    pub(super) fn note(&mut self, class: u32, kind: u32, value: u32) {
        let pair = u64::from(class) << 32 | u64::from(kind);
        if let Some(before) = self.last.insert(pair, value)
            && let Some((compared, differed)) = self.compared.get_mut(kind as usize)
        {
            *compared += 1;
            *differed += u64::from(before != value);
        }
    }

    /// Whether one of so many values at most differs from the one before.
    fn one_in(&self, kind: usize, values: u64) -> bool {
        let compared = self.compared.get(kind).copied();
        compared.is_some_and(|(compared, differed)| {
            compared >= COMPARED_MIN && differed.saturating_mul(values) <= compared
        })
    }
}

/// Which kinds are fixed in a table of loose attributes alone.
pub(super) fn fixed_by_sample(
    kinds: &Kinds,
    sample: &ClassSample,
    one_in: u64,
    limits: &Limits,
) -> Vec<bool> {
    let fixed = |(number, kind): (usize, &Kind)| {
        kind.distinct <= limits.fixed_values_max && sample.one_in(number, one_in)
    };
    kinds.all.iter().enumerate().map(fixed).collect()
}

/// Which kinds are fixed in a table that other tables go into.
pub(super) fn fixed_by_tables(kinds: &Kinds) -> Vec<bool> {
    let fixed = |kind: &Kind| kind.was_fixed && !kind.was_column;
    kinds.all.iter().map(fixed).collect()
}

/// Fixes half as many kinds: those with the fewest values.
pub(super) fn fix_fewer(kinds: &Kinds, fixed: &mut [bool]) {
    let is_fixed = |(number, fixed): (usize, &bool)| fixed.then_some(number);
    let mut numbers: Vec<usize> = fixed.iter().enumerate().filter_map(is_fixed).collect();
    numbers.sort_by_key(|&number| kinds.all.get(number).map(|kind| kind.distinct));
    for number in numbers.split_off(numbers.len() / 2) {
        if let Some(fixed) = fixed.get_mut(number) {
            *fixed = false;
        }
    }
}

/// What becomes of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The column with this number.
    Column(u32),
    Fixed,
    Rest,
}

/// The roles of all kinds, and the kinds that are columns by the columns' numbers.
pub(super) fn choose(kinds: &Kinds, fixed: &[bool], limits: &Limits) -> (Vec<Role>, Vec<u32>) {
    let is_fixed = |number: &u32| fixed.get(*number as usize).copied().unwrap_or_default();
    let occurrences = |number: u32| kinds.get(number).map_or(0, |kind| kind.occurrences);
    let all = 0..u32::try_from(kinds.len()).unwrap_or(u32::MAX);
    let mut columns: Vec<u32> = all
        .filter(|number| !is_fixed(number))
        // An occurrence has a number of 32 bits.
        .filter(|&number| (1..u64::from(u32::MAX)).contains(&occurrences(number)))
        .collect();
    if columns.len() > limits.columns_max {
        columns.retain(|&number| occurrences(number) >= limits.column_occurrences_min);
    }
    columns.sort_by_key(|&number| Reverse(occurrences(number)));
    columns.truncate(limits.columns_max);
    let mut roles: Vec<Role> = (0..kinds.len())
        .map(|number| match fixed.get(number) {
            Some(true) => Role::Fixed,
            _ => Role::Rest,
        })
        .collect();
    for (column, &number) in (0..).zip(&columns) {
        if let Some(role) = roles.get_mut(number as usize) {
            *role = Role::Column(column);
        }
    }
    (roles, columns)
}
