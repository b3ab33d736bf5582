//! Classes of a block that satisfy what a filter asks of things that all spans of a class share.
//!
//! Decided once per class, and once per symbol, resource and scope within that. Classes are numbered in
//! the order of (status, service, kind, name, ..), so that most sets are a few ranges of numbers, which
//! a whole group of rows is compared with at once.

use std::sync::Arc;

use super::{
    block::SpanBlock,
    filter::StringMatch,
    model::{Attributes, SpanKind, StatusCode},
    row_set::{GROUP_WORDS, GroupMask, mask_where},
    select::{OwnerTag, ValueTest, test_attributes},
};
use crate::{
    control::{CHECK_ROWS, QueryControl},
    error::Error,
};

/// Ranges that a row is compared with one by one; of more, a table is looked up.
const RANGES_MAX: usize = 6;

/// What a filter asks of classes.
#[derive(Debug, Default)]
pub(super) struct ClassConditions<'f> {
    pub(super) services: Vec<&'f StringMatch>,
    pub(super) names: Vec<&'f StringMatch>,
    pub(super) kinds: Vec<SpanKind>,
    pub(super) statuses: Vec<StatusCode>,
    pub(super) scope_names: Vec<&'f StringMatch>,
    pub(super) resource_tags: Vec<OwnerTag<'f>>,
    pub(super) scope_tags: Vec<OwnerTag<'f>>,
}

impl ClassConditions<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.names.is_empty()
            && self.kinds.is_empty()
            && self.statuses.is_empty()
            && self.scope_names.is_empty()
            && self.resource_tags.is_empty()
            && self.scope_tags.is_empty()
    }
}

/// A set of classes.
#[derive(Clone, Debug)]
pub(super) struct ClassSet {
    right: Vec<bool>,
    /// First class and number of classes of each run of right ones.
    ranges: Vec<(u32, u32)>,
    /// Rows of them, hidden or not.
    rows: u64,
}

/// Answers about numbered things, each worked out once.
struct Known<A> {
    answers: Vec<Option<A>>,
}

impl<A: Copy> Known<A> {
    fn new(count: usize) -> Self {
        Self {
            answers: vec![None; count],
        }
    }

    fn get(&mut self, number: u32, find: impl FnOnce() -> Result<A, Error>) -> Result<A, Error> {
        match self.answers.get_mut(number as usize) {
            Some(Some(known)) => Ok(*known),
            Some(unknown) => Ok(*unknown.insert(find()?)),
            None => find(),
        }
    }
}

impl ClassSet {
    /// The classes that satisfy all conditions.
    pub(super) fn of(
        block: &SpanBlock,
        conditions: &ClassConditions<'_>,
        ctl: &QueryControl,
    ) -> Result<Self, Error> {
        let mut services = Known::new(block.symbols().len());
        let mut names = Known::new(block.symbols().len());
        let mut resources = Known::new(block.resource_count() as usize);
        let mut scopes = Known::new(block.scope_count() as usize);
        let mut scratch = String::new();
        let text = |symbol: u32| block.symbols().get(symbol as usize).map_or("", |text| text);
        let mut right = Vec::with_capacity(block.classes().len());
        for class in block.classes() {
            if right.len().is_multiple_of(CHECK_ROWS) {
                ctl.check()?;
            }
            let holds = conditions.kinds.iter().all(|kind| *kind == class.kind)
                && conditions
                    .statuses
                    .iter()
                    .all(|status| *status == class.status)
                && services.get(class.service, || {
                    let service = text(class.service);
                    Ok(conditions.services.iter().all(|m| m.matches(service)))
                })?
                && names.get(class.name, || {
                    let name = text(class.name);
                    Ok(conditions.names.iter().all(|m| m.matches(name)))
                })?
                && (conditions.resource_tags.is_empty()
                    || resources.get(class.resource, || {
                        let resource = block.resource(class.resource)?;
                        let tags = &conditions.resource_tags;
                        Ok(owner_holds(&resource.attributes, tags, &mut scratch))
                    })?)
                && (conditions.scope_names.is_empty() && conditions.scope_tags.is_empty()
                    || scopes.get(class.scope, || {
                        let scope = block.scope(class.scope)?;
                        let tags = &conditions.scope_tags;
                        let named = conditions
                            .scope_names
                            .iter()
                            .all(|m| m.matches(&scope.name));
                        Ok(named && owner_holds(&scope.attributes, tags, &mut scratch))
                    })?);
            right.push(holds);
        }
        Ok(Self::from_table(block, right))
    }

    /// What an attribute condition says of the resource of each class; `None` where it does not have the
    /// key.
    pub(super) fn of_resources(
        block: &SpanBlock,
        (key, test): OwnerTag<'_>,
        ctl: &QueryControl,
    ) -> Result<Vec<Option<bool>>, Error> {
        let mut resources = Known::new(block.resource_count() as usize);
        let mut scratch = String::new();
        let mut answers = Vec::with_capacity(block.classes().len());
        for class in block.classes() {
            if answers.len().is_multiple_of(CHECK_ROWS) {
                ctl.check()?;
            }
            answers.push(resources.get(class.resource, || {
                let resource = block.resource(class.resource)?;
                Ok(test_attributes(
                    &resource.attributes,
                    key,
                    test,
                    &mut scratch,
                ))
            })?);
        }
        Ok(answers)
    }

    /// The classes for which a table says so.
    pub(super) fn from_table(block: &SpanBlock, right: Vec<bool>) -> Self {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let mut rows = 0;
        for (class, _) in (0u32..).zip(&right).filter(|(_, right)| **right) {
            rows += block.class_rows(class);
            match ranges.last_mut() {
                Some((first, count)) if *first + *count == class => *count += 1,
                _ => ranges.push((class, 1)),
            }
        }
        Self {
            right,
            ranges,
            rows,
        }
    }

    /// Rows of its classes, hidden or not.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Its classes, rising.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges
            .iter()
            .flat_map(|&(first, count)| first..first + count)
    }

    /// Which of the rows of a group are of one of its classes.
    pub(super) fn mask(&self, classes: &[i64]) -> GroupMask {
        // Below the first class it wraps to far above the last.
        let is_of = |class: i64, (first, count): (u32, u32)| {
            class.wrapping_sub(i64::from(first)).cast_unsigned() < u64::from(count)
        };
        match self.ranges.as_slice() {
            [] => [0; GROUP_WORDS],
            &[one] => mask_where(classes, |class| is_of(class, one)),
            &[one, two] => mask_where(classes, |class| is_of(class, one) | is_of(class, two)),
            ranges if ranges.len() <= RANGES_MAX => {
                let mut all = [0; GROUP_WORDS];
                for &range in ranges {
                    let mask = mask_where(classes, |class| is_of(class, range));
                    all.iter_mut()
                        .zip(mask)
                        .for_each(|(all, word)| *all |= word);
                }
                all
            }
            _ => mask_where(classes, |class| {
                let place = usize::try_from(class).unwrap_or(usize::MAX);
                self.right.get(place).copied().unwrap_or(false)
            }),
        }
    }
}

fn owner_holds(attributes: &Attributes, tags: &[OwnerTag<'_>], scratch: &mut String) -> bool {
    tags.iter().all(|&(key, test)| {
        let found = test_attributes(attributes, key, test, scratch);
        found.unwrap_or_else(|| test.holds_for_none())
    })
}

/// The keys that some resource of a block has, sorted.
pub(super) fn resource_keys(block: &SpanBlock, ctl: &QueryControl) -> Result<Vec<Arc<str>>, Error> {
    let mut keys: Vec<Arc<str>> = Vec::new();
    for resource in 0..block.resource_count() {
        if (resource as usize).is_multiple_of(CHECK_ROWS / 16) {
            ctl.check()?;
        }
        for (key, _) in &block.resource(resource)?.attributes {
            if let Err(place) = keys.binary_search(key) {
                keys.insert(place, Arc::clone(key));
            }
        }
    }
    Ok(keys)
}

/// Whether a value test is of one text alone: then it is found fast.
pub(super) fn only_text(test: ValueTest<'_>) -> Option<&str> {
    match test {
        ValueTest::Present => None,
        ValueTest::Matches(matches) => matches.only_text(),
    }
}
