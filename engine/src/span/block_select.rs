//! Which rows of a block satisfy a filter.
//!
//! 1. What all spans of a class share (service, name, kind, status, attributes of resource and scope) is
//!    decided once per class. An attribute that may stand on the span or else on its resource is one of
//!    these where no span has the key, and one of the span alone where no resource has it.
//! 2. Conditions that one value satisfies are looked up first: rare values have postings.
//! 3. Classes, times and durations are compared group by group, groups that cannot matter passed over by
//!    their bounds; only groups with candidates are looked at where step 2 left few.
//! 4. The other conditions are decided for what is left, and last what the snapshot does not see goes.

use std::{borrow::Cow, ops::Range};

use roaring::RoaringBitmap;

use super::{
    block::{EVENT_NAME, GROUP_ROWS, STATUS_MESSAGE},
    block_part::BlockPart,
    block_tags::ItemKind,
    class_set::{ClassConditions, ClassSet, only_text},
    filter::{SpanCondition, SpanFilter, TagScope},
    row_set::{GROUP_WORDS, GroupMask, RowSetBuilder, mask_of_range, mask_where},
    rows::SpanRows,
    select::{OwnerTag, ValueTest},
};
use crate::{control::QueryControl, error::Error};

/// Groups that are looked at between two looks at the control.
const CHECK_GROUPS: u32 = 4;

/// A filter taken apart.
pub(super) struct Plan<'f> {
    /// Nothing can satisfy it.
    impossible: bool,
    /// When rows start, ns; `None` if all of them do.
    starts_ns: Option<(i64, i64)>,
    /// How long they last, ns; `None` if it does not matter.
    durations_ns: Option<(u64, u64)>,
    /// `None` if classes do not matter.
    classes: Option<ClassSet>,
    /// On what single spans have, those that one value satisfies first.
    conditions: Vec<RowCondition<'f>>,
}

/// A condition that classes do not decide.
enum RowCondition<'f> {
    /// An attribute of the span.
    Tag {
        key: &'f str,
        test: ValueTest<'f>,
        /// For spans that do not have the key: the classes whose resource makes it hold.
        otherwise: Option<ClassSet>,
    },
    /// Something that an event, a link or the extras of the span say.
    Item {
        kind: ItemKind,
        key: &'f str,
        test: ValueTest<'f>,
    },
}

impl RowCondition<'_> {
    /// Whether one value decides it and others cannot.
    fn is_lookup(&self) -> bool {
        match self {
            Self::Tag {
                test, otherwise, ..
            } => {
                let classes = otherwise.as_ref().map_or(0, ClassSet::rows);
                only_text(*test).is_some() && !test.holds_for_none() && classes == 0
            }
            Self::Item { .. } => false,
        }
    }

    /// Cheap ones first.
    fn rank(&self) -> u32 {
        match self {
            Self::Tag { .. } if self.is_lookup() => 0,
            Self::Tag { test, .. } | Self::Item { test, .. } if !test.holds_for_none() => 1,
            Self::Tag { .. } | Self::Item { .. } => 2,
        }
    }
}

/// Rows still in question.
pub(super) enum Candidates {
    /// All of these.
    All(Range<u32>),
    These(RoaringBitmap),
}

impl Candidates {
    /// As a bitmap; `None` if they are all rows there are.
    pub(super) fn given(&self, count: u32) -> Option<Cow<'_, RoaringBitmap>> {
        match self {
            Self::All(rows) if rows.start == 0 && rows.end == count => None,
            Self::All(rows) => {
                let mut these = RoaringBitmap::new();
                these.insert_range(rows.clone());
                Some(Cow::Owned(these))
            }
            Self::These(these) => Some(Cow::Borrowed(these)),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::All(rows) => rows.is_empty(),
            Self::These(these) => these.is_empty(),
        }
    }

    pub(super) fn to_bitmap(&self) -> RoaringBitmap {
        match self {
            Self::All(rows) => {
                let mut these = RoaringBitmap::new();
                these.insert_range(rows.clone());
                these
            }
            Self::These(these) => these.clone(),
        }
    }
}

impl BlockPart {
    pub(crate) fn select(
        &self,
        filter: &SpanFilter,
        ctl: &QueryControl,
    ) -> Result<SpanRows, Error> {
        let plan = self.plan(filter, ctl)?;
        let rows = self.select_in(&plan, 0..self.block.rows(), ctl)?;
        Ok(SpanRows::from_bitmap(rows))
    }

    pub(crate) fn count(&self, filter: &SpanFilter, ctl: &QueryControl) -> Result<u64, Error> {
        let plan = self.plan(filter, ctl)?;
        if let Some(counts) = self.class_counts(&plan, ctl)? {
            return Ok(counts.into_iter().map(|(_, count)| count).sum());
        }
        Ok(self.select_in(&plan, 0..self.block.rows(), ctl)?.len())
    }

    pub(crate) fn count_by_class(
        &self,
        filter: &SpanFilter,
        ctl: &QueryControl,
    ) -> Result<Vec<(u32, u64)>, Error> {
        let plan = self.plan(filter, ctl)?;
        if let Some(counts) = self.class_counts(&plan, ctl)? {
            return Ok(counts);
        }
        let rows = self.select_in(&plan, 0..self.block.rows(), ctl)?;
        self.classes_of(rows, ctl)
    }

    /// The classes of some rows, with how many are of each.
    pub(super) fn classes_of(
        &self,
        rows: RoaringBitmap,
        ctl: &QueryControl,
    ) -> Result<Vec<(u32, u64)>, Error> {
        let counts = self.count_classes(&SpanRows::from_bitmap(rows), ctl)?;
        let counted = (0u32..).zip(counts).filter(|&(_, count)| count > 0);
        Ok(counted.collect())
    }

    /// How many of some rows are of each class.
    fn count_classes(&self, rows: &SpanRows, ctl: &QueryControl) -> Result<Vec<u64>, Error> {
        let mut classes = Vec::new();
        self.classes(rows, ctl, &mut classes)?;
        let mut counts = vec![0; self.block.classes().len()];
        for class in classes {
            if let Some(count) = counts.get_mut(class as usize) {
                *count += 1;
            }
        }
        Ok(counts)
    }

    /// Rows by class from the table of classes, if nothing but classes decides; only hidden rows are
    /// looked at.
    fn class_counts(
        &self,
        plan: &Plan<'_>,
        ctl: &QueryControl,
    ) -> Result<Option<Vec<(u32, u64)>>, Error> {
        if plan.impossible {
            return Ok(Some(Vec::new()));
        }
        if plan.starts_ns.is_some() || plan.durations_ns.is_some() || !plan.conditions.is_empty() {
            return Ok(None);
        }
        let hidden = if self.hidden.rows.is_empty() {
            Vec::new()
        } else {
            self.count_classes(&SpanRows::from_bitmap(self.hidden.rows.clone()), ctl)?
        };
        let count = |class: u32| {
            let hidden = hidden.get(class as usize).copied().unwrap_or(0);
            (class, self.block.class_rows(class).saturating_sub(hidden))
        };
        let counts: Vec<(u32, u64)> = match &plan.classes {
            Some(classes) => classes.iter().map(count).collect(),
            None => (0..self.class_count()).map(count).collect(),
        };
        let counted = counts.into_iter().filter(|&(_, count)| count > 0);
        Ok(Some(counted.collect()))
    }

    /// Takes a filter apart and decides the classes.
    pub(super) fn plan<'f>(
        &self,
        filter: &'f SpanFilter,
        ctl: &QueryControl,
    ) -> Result<Plan<'f>, Error> {
        ctl.check()?;
        let mut classes = ClassConditions::default();
        let mut conditions = Vec::new();
        let (mut shortest, mut longest) = (0, u64::MAX);
        for condition in &filter.conditions {
            match condition {
                SpanCondition::Service(matches) => classes.services.push(matches),
                SpanCondition::Name(matches) => classes.names.push(matches),
                SpanCondition::Kind(kind) => classes.kinds.push(*kind),
                SpanCondition::Status(status) => classes.statuses.push(*status),
                SpanCondition::ScopeName(matches) => classes.scope_names.push(matches),
                SpanCondition::DurationNs { min, max } => {
                    shortest = shortest.max(*min);
                    longest = longest.min(*max);
                }
                SpanCondition::Tag { key, of, matches } => {
                    let test = ValueTest::Matches(matches);
                    self.plan_tag((key, test), *of, &mut classes, &mut conditions, ctl)?;
                }
                SpanCondition::Exists { key, of } => {
                    let tag = (key.as_str(), ValueTest::Present);
                    self.plan_tag(tag, *of, &mut classes, &mut conditions, ctl)?;
                }
                SpanCondition::EventName(matches) => conditions.push(RowCondition::Item {
                    kind: ItemKind::EventFields,
                    key: EVENT_NAME,
                    test: ValueTest::Matches(matches),
                }),
                SpanCondition::StatusMessage(matches) => conditions.push(RowCondition::Item {
                    kind: ItemKind::Extras,
                    key: STATUS_MESSAGE,
                    test: ValueTest::Matches(matches),
                }),
            }
        }
        conditions.sort_by_key(RowCondition::rank);
        let classes = if classes.is_empty() {
            None
        } else {
            Some(ClassSet::of(&self.block, &classes, ctl)?)
        };
        let (start, end) = (
            filter.range.start().as_nanos(),
            filter.range.end().as_nanos(),
        );
        let bounds = self.start_bounds_ns();
        let covered = bounds.is_none_or(|(low, high)| start <= low && high <= end);
        Ok(Plan {
            impossible: shortest > longest
                || classes.as_ref().is_some_and(|classes| classes.rows() == 0)
                || bounds.is_none_or(|(low, high)| high < start || low > end),
            starts_ns: (!covered).then_some((start, end)),
            durations_ns: ((shortest, longest) != (0, u64::MAX)).then_some((shortest, longest)),
            classes: classes.filter(|classes| classes.rows() < self.spans()),
            conditions,
        })
    }

    /// An attribute condition, by where the key stands.
    fn plan_tag<'f>(
        &self,
        (key, test): OwnerTag<'f>,
        of: TagScope,
        classes: &mut ClassConditions<'f>,
        conditions: &mut Vec<RowCondition<'f>>,
        ctl: &QueryControl,
    ) -> Result<(), Error> {
        match of {
            TagScope::Resource => classes.resource_tags.push((key, test)),
            TagScope::Scope => classes.scope_tags.push((key, test)),
            TagScope::Event | TagScope::Link => conditions.push(RowCondition::Item {
                kind: match of {
                    TagScope::Link => ItemKind::Links,
                    _ => ItemKind::Events,
                },
                key,
                test,
            }),
            TagScope::Span => conditions.push(RowCondition::Tag {
                key,
                test,
                otherwise: None,
            }),
            TagScope::Any if !self.some_resource_has(key, ctl)? => {
                conditions.push(RowCondition::Tag {
                    key,
                    test,
                    otherwise: None,
                });
            }
            TagScope::Any if !self.some_span_has(key)? => {
                classes.resource_tags.push((key, test));
            }
            TagScope::Any => {
                let of_resources = ClassSet::of_resources(&self.block, (key, test), ctl)?;
                let right = of_resources.into_iter();
                let right = right.map(|answer| answer.unwrap_or_else(|| test.holds_for_none()));
                conditions.push(RowCondition::Tag {
                    key,
                    test,
                    otherwise: Some(ClassSet::from_table(&self.block, right.collect())),
                });
            }
        }
        Ok(())
    }

    /// The visible rows of a range that satisfy a filter.
    pub(super) fn select_in(
        &self,
        plan: &Plan<'_>,
        rows: Range<u32>,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let mut found = Candidates::All(rows);
        if plan.impossible {
            return Ok(RoaringBitmap::new());
        }
        let lookups = plan.conditions.partition_point(RowCondition::is_lookup);
        let (lookups, others) = plan.conditions.split_at(lookups);
        for condition in lookups {
            found = Candidates::These(self.narrow(condition, &found, ctl)?);
        }
        if !found.is_empty()
            && (plan.classes.is_some() || plan.starts_ns.is_some() || plan.durations_ns.is_some())
        {
            found = Candidates::These(self.scan(plan, &found, ctl)?);
        }
        for condition in others {
            if found.is_empty() {
                break;
            }
            found = Candidates::These(self.narrow(condition, &found, ctl)?);
        }
        let mut found = found.to_bitmap();
        if !self.hidden.rows.is_empty() {
            found -= &self.hidden.rows;
        }
        ctl.count_spans(found.len())?;
        Ok(found)
    }

    /// Compares classes, times and durations, group by group.
    fn scan(
        &self,
        plan: &Plan<'_>,
        among: &Candidates,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let mut set = RowSetBuilder::new();
        let mut scratch = ScanScratch::default();
        let mut looked = 0;
        let mut look = |group: u32, mask: GroupMask| {
            looked += 1;
            if looked % CHECK_GROUPS == 0 {
                ctl.check()?;
                ctl.count_spans(u64::from(CHECK_GROUPS * GROUP_ROWS))?;
            }
            let mask = self.scan_group(plan, group, mask, &mut scratch)?;
            set.add(group, &mask);
            Ok::<(), Error>(())
        };
        match among {
            Candidates::All(rows) => {
                for group in rows.start / GROUP_ROWS..rows.end.div_ceil(GROUP_ROWS) {
                    if self.may_match(plan, group) {
                        look(group, mask_of_range(group, rows))?;
                    }
                }
            }
            Candidates::These(these) => {
                let mut these = these.iter().peekable();
                while let Some(&first) = these.peek() {
                    let group = first / GROUP_ROWS;
                    let mut mask = [0; GROUP_WORDS];
                    while let Some(row) = these.next_if(|row| row / GROUP_ROWS == group) {
                        let row = (row % GROUP_ROWS) as usize;
                        if let Some(word) = mask.get_mut(row / 64) {
                            *word |= 1 << (row % 64);
                        }
                    }
                    if self.may_match(plan, group) {
                        look(group, mask)?;
                    }
                }
            }
        }
        Ok(set.finish())
    }

    /// Whether the bounds of a group leave room for a match.
    fn may_match(&self, plan: &Plan<'_>, group: u32) -> bool {
        let Some(bounds) = self.block.group_bounds().get(group as usize) else {
            return false;
        };
        let starts = plan
            .starts_ns
            .is_none_or(|(low, high)| bounds.start_max_ns >= low && bounds.start_min_ns <= high);
        starts
            && plan
                .durations_ns
                .is_none_or(|(min, _)| bounds.duration_max_ns >= min)
    }

    /// Which of the rows in `mask` match.
    fn scan_group(
        &self,
        plan: &Plan<'_>,
        group: u32,
        mut mask: GroupMask,
        scratch: &mut ScanScratch,
    ) -> Result<GroupMask, Error> {
        let none = |mask: &GroupMask| mask.iter().all(|&word| word == 0);
        if let Some(classes) = &plan.classes {
            let of_classes = |values: &[i64]| classes.mask(values);
            and(&mut mask, &self.block.with_class_group(group, of_classes)?);
            if none(&mask) {
                return Ok(mask);
            }
        }
        if let Some((low, high)) = plan.starts_ns
            && let Some(bounds) = self.block.group_bounds().get(group as usize)
            && (bounds.start_min_ns < low || bounds.start_max_ns > high)
        {
            self.block.start_group(group, &mut scratch.starts)?;
            let right = mask_where(&scratch.starts, |start| start >= low && start <= high);
            and(&mut mask, &right);
            if none(&mask) {
                return Ok(mask);
            }
        }
        if let Some((min, max)) = plan.durations_ns {
            self.block.duration_group(group, &mut scratch.durations)?;
            let right = mask_where(&scratch.durations, |ns| ns >= min && ns <= max);
            and(&mut mask, &right);
        }
        Ok(mask)
    }

    /// The candidates for which a condition holds.
    fn narrow(
        &self,
        condition: &RowCondition<'_>,
        among: &Candidates,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        match condition {
            RowCondition::Tag {
                key,
                test,
                otherwise,
            } => self.with_tag(key, *test, otherwise.as_ref(), among, ctl),
            RowCondition::Item { kind, key, test } => self.with_item(*kind, key, *test, among, ctl),
        }
    }

    /// Those of some rows that are of one of the classes.
    pub(super) fn of_classes(
        &self,
        classes: &ClassSet,
        among: RoaringBitmap,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        if classes.rows() == 0 || among.is_empty() {
            return Ok(RoaringBitmap::new());
        }
        let plan = Plan {
            impossible: false,
            starts_ns: None,
            durations_ns: None,
            classes: Some(classes.clone()),
            conditions: Vec::new(),
        };
        self.scan(&plan, &Candidates::These(among), ctl)
    }
}

/// Decoded groups.
#[derive(Debug, Default)]
struct ScanScratch {
    starts: Vec<i64>,
    durations: Vec<u64>,
}

fn and(mask: &mut GroupMask, other: &GroupMask) {
    for (word, other) in mask.iter_mut().zip(other) {
        *word &= other;
    }
}
