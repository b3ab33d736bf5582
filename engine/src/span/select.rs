//! Which rows of a shard satisfy a filter, and in which order they are looked at.
//!
//! 1. What spans share (service, name, kind, status, resource attributes) is decided once per class,
//!    not per row.
//! 2. An attribute condition is decided once per distinct value of its key, unless other conditions
//!    leave fewer rows than there are values: then per row.
//! 3. The cheapest positive condition gives the candidate rows, others cut them down where that is
//!    cheap; if none is selective, all rows are candidates, page by page.
//! 4. Every candidate is verified on the columns, so that step 3 may give too many but never too few.
//!
//! No step holds the shard's lock for more than `CHECK_ROWS` rows, classes or values: rows below the
//! view's bound, their classes and values do not change in between.

use hashbrown::HashMap;
use parking_lot::RwLock;
use roaring::RoaringBitmap;

use super::{
    catalog::{Catalog, Tables},
    column::PAGE_ROWS,
    dictionary,
    filter::{SpanCondition, SpanFilter, StringMatch, TagScope},
    model::{Attributes, SpanKind, StatusCode},
    rest::Rest,
    row_list::RowList,
    shard::{Shard, View},
    tags::TEXT_KEY,
};
use crate::{
    control::{CHECK_ROWS, QueryControl},
    error::Error,
    time::TimeRange,
    value,
};

/// A filter taken apart.
struct Conditions<'f> {
    range: TimeRange,
    services: Vec<&'f StringMatch>,
    names: Vec<&'f StringMatch>,
    kinds: Vec<SpanKind>,
    statuses: Vec<StatusCode>,
    scope_names: Vec<&'f StringMatch>,
    resource_tags: Vec<OwnerTag<'f>>,
    scope_tags: Vec<OwnerTag<'f>>,
    tags: Vec<TagCondition<'f>>,
    /// Of what few rows have, decided row by row.
    rest: Vec<RestCondition<'f>>,
    duration_min: u64,
    duration_max: u64,
}

/// What is asked of an attribute's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ValueTest<'f> {
    /// That there is one.
    Present,
    /// That its display form satisfies this.
    Matches(&'f StringMatch),
}

impl ValueTest<'_> {
    /// Whether a value satisfies it.
    pub(crate) fn holds(self, text: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Matches(matches) => matches.matches(text),
        }
    }

    /// Whether the absence of a value does.
    pub(crate) fn holds_for_none(self) -> bool {
        match self {
            Self::Present => false,
            Self::Matches(matches) => matches.matches_absent(),
        }
    }
}

/// An attribute condition on a resource or a scope.
pub(crate) type OwnerTag<'f> = (&'f str, ValueTest<'f>);

/// An attribute condition that may hold on the span itself.
#[derive(Clone, Copy)]
struct TagCondition<'f> {
    key: &'f str,
    /// Its symbol; `None` if nothing has the key.
    symbol: Option<u32>,
    /// Whether the resource counts where the span does not have the key.
    or_resource: bool,
    test: ValueTest<'f>,
}

impl<'f> TagCondition<'f> {
    /// The one text that satisfies it, if it is the only one.
    fn only_text(&self) -> Option<&'f str> {
        match self.test {
            ValueTest::Present => None,
            ValueTest::Matches(matches) => matches.only_text(),
        }
    }
}

/// A condition on events, links or the status message.
#[derive(Clone, Copy)]
enum RestCondition<'f> {
    StatusMessage(&'f StringMatch),
    EventName(&'f StringMatch),
    EventTag(Option<u32>, ValueTest<'f>),
    LinkTag(Option<u32>, ValueTest<'f>),
}

impl RestCondition<'_> {
    /// Whether it asks for a key that nothing has.
    fn is_impossible(self) -> bool {
        match self {
            Self::EventTag(None, test) | Self::LinkTag(None, test) => !test.holds_for_none(),
            _ => false,
        }
    }
}

impl<'f> Conditions<'f> {
    fn new(filter: &'f SpanFilter, catalog: &Catalog) -> Self {
        let mut own = Self {
            range: filter.range,
            services: Vec::new(),
            names: Vec::new(),
            kinds: Vec::new(),
            statuses: Vec::new(),
            scope_names: Vec::new(),
            resource_tags: Vec::new(),
            scope_tags: Vec::new(),
            tags: Vec::new(),
            rest: Vec::new(),
            duration_min: 0,
            duration_max: u64::MAX,
        };
        for condition in &filter.conditions {
            match condition {
                SpanCondition::Service(matches) => own.services.push(matches),
                SpanCondition::Name(matches) => own.names.push(matches),
                SpanCondition::Kind(kind) => own.kinds.push(*kind),
                SpanCondition::Status(status) => own.statuses.push(*status),
                SpanCondition::DurationNs { min, max } => {
                    own.duration_min = own.duration_min.max(*min);
                    own.duration_max = own.duration_max.min(*max);
                }
                SpanCondition::Tag { key, of, matches } => {
                    own.tag(catalog, key, *of, ValueTest::Matches(matches));
                }
                SpanCondition::Exists { key, of } => {
                    own.tag(catalog, key, *of, ValueTest::Present);
                }
                SpanCondition::EventName(matches) => {
                    own.rest.push(RestCondition::EventName(matches));
                }
                SpanCondition::ScopeName(matches) => own.scope_names.push(matches),
                SpanCondition::StatusMessage(matches) => {
                    own.rest.push(RestCondition::StatusMessage(matches));
                }
            }
        }
        own
    }

    fn tag(&mut self, catalog: &Catalog, key: &'f str, of: TagScope, test: ValueTest<'f>) {
        let symbol = || catalog.read().find(key);
        match of {
            TagScope::Resource => self.resource_tags.push((key, test)),
            TagScope::Scope => self.scope_tags.push((key, test)),
            TagScope::Event => self.rest.push(RestCondition::EventTag(symbol(), test)),
            TagScope::Link => self.rest.push(RestCondition::LinkTag(symbol(), test)),
            TagScope::Any | TagScope::Span => self.tags.push(TagCondition {
                key,
                symbol: symbol(),
                or_resource: of == TagScope::Any,
                test,
            }),
        }
    }

    /// Whether classes and a time range alone decide.
    fn concern_classes_only(&self) -> bool {
        self.tags.is_empty()
            && self.rest.is_empty()
            && self.duration_min == 0
            && self.duration_max == u64::MAX
    }

    /// Whether classes have to be looked at at all.
    fn concern_classes(&self) -> bool {
        !(self.services.is_empty()
            && self.names.is_empty()
            && self.kinds.is_empty()
            && self.statuses.is_empty()
            && self.scope_names.is_empty()
            && self.resource_tags.is_empty()
            && self.scope_tags.is_empty())
    }
}

/// How an attribute condition is decided for one row.
enum TagTest {
    /// The row has one of these tags.
    OneOf(RoaringBitmap),
    /// Compare the row's own values.
    ByValue,
}

/// Rows still to be looked at.
enum Candidates {
    /// Every row from here on.
    From(u32),
    /// These rows.
    These(RoaringBitmap),
}

/// Finds the matching rows of one shard, slice by slice.
pub(crate) struct RowCursor<'f> {
    conditions: Conditions<'f>,
    view: View,
    /// By class; `None` if every class is right.
    classes: Option<Vec<bool>>,
    tests: Vec<TagTest>,
    /// By (condition, resource), as far as asked.
    resource_tests: HashMap<(usize, u32), Option<bool>>,
    candidates: Candidates,
    /// Candidates are listed where they are at most one row in so many.
    listed_share: u64,
    scratch: String,
    tags: Vec<u32>,
    /// Of the row at hand.
    rest: Rest,
    /// By (condition on the rest, tag or text), as far as asked.
    rest_tests: HashMap<(usize, u32), bool>,
}

impl<'f> RowCursor<'f> {
    /// Plans a search of all rows, slice by slice.
    ///
    /// # Errors
    /// Those of [`QueryControl::check`].
    pub(crate) fn new(
        shard: &RwLock<Shard>,
        catalog: &Catalog,
        filter: &'f SpanFilter,
        view: View,
        ctl: &QueryControl,
    ) -> Result<Self, Error> {
        let cursor = Self::unplanned(catalog, filter, view);
        cursor.planned(shard, catalog, ctl)
    }

    /// Plans a search that ends early, page by page: candidates are listed only where they are few.
    ///
    /// # Errors
    /// Those of [`QueryControl::check`].
    pub(crate) fn of_pages(
        shard: &RwLock<Shard>,
        catalog: &Catalog,
        filter: &'f SpanFilter,
        view: View,
        ctl: &QueryControl,
    ) -> Result<Self, Error> {
        let mut cursor = Self::unplanned(catalog, filter, view);
        cursor.listed_share = 256;
        cursor.planned(shard, catalog, ctl)
    }

    fn planned(
        mut self,
        shard: &RwLock<Shard>,
        catalog: &Catalog,
        ctl: &QueryControl,
    ) -> Result<Self, Error> {
        let impossible = self
            .conditions
            .tags
            .iter()
            .any(|tag| tag.symbol.is_none() && !tag.test.holds_for_none())
            || self
                .conditions
                .rest
                .iter()
                .any(|condition| condition.is_impossible());
        if self.view.rows == 0 || impossible {
            self.candidates = Candidates::These(RoaringBitmap::new());
            return Ok(self);
        }
        self.plan(shard, catalog, ctl)?;
        Ok(self)
    }

    fn unplanned(catalog: &Catalog, filter: &'f SpanFilter, view: View) -> Self {
        Self {
            conditions: Conditions::new(filter, catalog),
            view,
            classes: None,
            tests: Vec::new(),
            resource_tests: HashMap::new(),
            candidates: Candidates::From(0),
            listed_share: 2,
            scratch: String::new(),
            tags: Vec::new(),
            rest: Rest::default(),
            rest_tests: HashMap::new(),
        }
    }

    fn plan(
        &mut self,
        shard: &RwLock<Shard>,
        catalog: &Catalog,
        ctl: &QueryControl,
    ) -> Result<(), Error> {
        let mut best = u64::from(self.view.rows);
        let mut class_rows = None;
        if self.conditions.concern_classes() {
            let rows = self.judge_classes(shard, catalog, ctl)?;
            class_rows = Some(rows);
            best = best.min(rows);
        }
        // Equalities first: they are cheap, and may make the others cheap.
        let tags = self.conditions.tags.clone();
        let mut order: Vec<usize> = (0..tags.len()).collect();
        order.sort_by_key(|&i| tags.get(i).is_some_and(|tag| tag.only_text().is_none()));
        let mut tests: Vec<(usize, TagTest, u64)> = Vec::new();
        for i in order {
            let Some(&tag) = tags.get(i) else { continue };
            let (test, rows) = self.judge_values(shard, tag, best, ctl)?;
            let mut rows = rows;
            if tag.or_resource && !tag.test.holds_for_none() {
                rows = rows.saturating_add(self.resource_rows(shard, catalog, i, None, ctl)?);
            }
            if matches!(test, TagTest::OneOf(_)) && !tag.test.holds_for_none() {
                best = best.min(rows);
            }
            tests.push((i, test, rows));
        }
        // Sources of candidates, cheapest first.
        tests.sort_by_key(|&(_, _, rows)| rows);
        let all = u64::from(self.view.rows);
        let mut found: Option<RoaringBitmap> = None;
        for (i, test, rows) in &tests {
            let Some(&tag) = tags.get(*i) else { continue };
            let TagTest::OneOf(set) = test else { continue };
            let worth = found.as_ref().map_or(all / self.listed_share, |found| {
                found.len().saturating_mul(16)
            });
            if tag.test.holds_for_none() || *rows > worth {
                continue;
            }
            let mut bitmap = rows_of_tags(shard, set, ctl)?;
            if tag.or_resource {
                self.resource_rows(shard, catalog, *i, Some(&mut bitmap), ctl)?;
            }
            found = Some(found.map_or_else(|| bitmap.clone(), |found| found & &bitmap));
        }
        let worth = found.as_ref().map_or(all / self.listed_share, |found| {
            found.len().saturating_mul(16)
        });
        if class_rows.is_some_and(|rows| rows <= worth) {
            let bitmap = self.rows_of_classes(shard, ctl)?;
            found = Some(found.map_or_else(|| bitmap.clone(), |found| found & &bitmap));
        }
        if let Some(mut found) = found {
            found.remove_range(self.view.rows..);
            self.candidates = Candidates::These(found);
        }
        tests.sort_by_key(|&(i, _, _)| i);
        self.tests = tests.into_iter().map(|(_, test, _)| test).collect();
        Ok(())
    }

    /// Decides every class; returns the rows of the right ones.
    fn judge_classes(
        &mut self,
        shard: &RwLock<Shard>,
        catalog: &Catalog,
        ctl: &QueryControl,
    ) -> Result<u64, Error> {
        let mut names: HashMap<u32, bool> = HashMap::new();
        let mut resources: HashMap<u32, bool> = HashMap::new();
        let mut scopes: HashMap<u32, bool> = HashMap::new();
        let mut classes = Vec::new();
        let mut rows = 0;
        loop {
            ctl.check()?;
            let shard = shard.read();
            let tables = catalog.read();
            let from = classes.len();
            let entries = shard.classes.iter_from(dictionary::number(from));
            for entry in entries.take(CHECK_ROWS) {
                let class = &entry.class;
                let conditions = &self.conditions;
                let right = conditions.kinds.iter().all(|kind| *kind == class.kind)
                    && conditions
                        .statuses
                        .iter()
                        .all(|status| *status == class.status)
                    && *names.entry(class.name).or_insert_with(|| {
                        let name = tables.text(class.name);
                        conditions.names.iter().all(|matches| matches.matches(name))
                    })
                    && *resources.entry(class.resource).or_insert_with(|| {
                        right_resource(conditions, &tables, class.resource, &mut self.scratch)
                    })
                    && *scopes.entry(class.scope).or_insert_with(|| {
                        right_scope(conditions, &tables, class.scope, &mut self.scratch)
                    });
                if right {
                    rows += entry.rows.len();
                }
                classes.push(right);
            }
            if classes.len() - from < CHECK_ROWS {
                break;
            }
        }
        self.classes = Some(classes);
        Ok(rows)
    }

    /// Decides the values of a key, if there are not more than `rows_best` of them; returns how many
    /// rows have a right one.
    fn judge_values(
        &mut self,
        shard: &RwLock<Shard>,
        tag: TagCondition<'_>,
        rows_best: u64,
        ctl: &QueryControl,
    ) -> Result<(TagTest, u64), Error> {
        let Some(symbol) = tag.symbol else {
            return Ok((TagTest::OneOf(RoaringBitmap::new()), 0));
        };
        let mut set = RoaringBitmap::new();
        let mut rows = 0;
        if let Some(text) = tag.only_text() {
            let shard = shard.read();
            let mut scratch = Vec::new();
            let complete = value::encodings_displayed_as(text, |encoded| {
                let hash = dictionary::hash_of_tag(tag.key, encoded, &mut scratch);
                if let Some(id) = shard.tags.find(hash, symbol, encoded) {
                    set.insert(id);
                    rows += shard.tags.rows(id).map_or(0, RowList::len);
                }
            });
            if complete {
                return Ok((TagTest::OneOf(set), rows));
            }
        }
        let count = shard
            .read()
            .tags
            .of_key(symbol)
            .map_or(0, |tags| tags.len() as u64);
        if count > rows_best {
            return Ok((TagTest::ByValue, u64::from(self.view.rows)));
        }
        set.clear();
        rows = 0;
        let mut from = 0;
        loop {
            ctl.check()?;
            let shard = shard.read();
            let Some(tags) = shard.tags.of_key(symbol) else {
                break;
            };
            let mut seen = 0;
            for &id in tags.iter_from(from).take(CHECK_ROWS) {
                seen += 1;
                let text = value::display(shard.tags.get(id).1, &mut self.scratch);
                if tag.test.holds(text) {
                    // Numbers rise along the list.
                    let _ = set.try_push(id);
                    rows += shard.tags.rows(id).map_or(0, RowList::len);
                }
            }
            from += seen;
            if (seen as usize) < CHECK_ROWS {
                break;
            }
        }
        Ok((TagTest::OneOf(set), rows))
    }

    /// How many rows have a resource that satisfies attribute condition `i`; adds them to `into`.
    fn resource_rows(
        &mut self,
        shard: &RwLock<Shard>,
        catalog: &Catalog,
        i: usize,
        mut into: Option<&mut RoaringBitmap>,
        ctl: &QueryControl,
    ) -> Result<u64, Error> {
        let (mut from, mut rows) = (0, 0);
        loop {
            ctl.check()?;
            let shard = shard.read();
            let tables = catalog.read();
            let mut seen = 0;
            for entry in shard.classes.iter_from(from).take(CHECK_ROWS) {
                seen += 1;
                if self.resource_test(&tables, i, entry.class.resource) == Some(true) {
                    rows += entry.rows.len();
                    if let Some(into) = into.as_deref_mut() {
                        entry.rows.union_into(into);
                    }
                }
            }
            from += seen;
            if (seen as usize) < CHECK_ROWS {
                return Ok(rows);
            }
        }
    }

    /// What attribute condition `i` says of a resource; `None` if it does not have the key.
    fn resource_test(&mut self, tables: &Tables, i: usize, resource: u32) -> Option<bool> {
        if let Some(&known) = self.resource_tests.get(&(i, resource)) {
            return known;
        }
        let tag = self.conditions.tags.get(i)?;
        let entry = tables.resources.get(resource as usize)?;
        let found = test_attributes(
            &entry.resource.attributes,
            tag.key,
            tag.test,
            &mut self.scratch,
        );
        self.resource_tests.insert((i, resource), found);
        found
    }

    fn rows_of_classes(
        &self,
        shard: &RwLock<Shard>,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let mut rows = RoaringBitmap::new();
        let right = self.classes.as_deref().unwrap_or_default();
        let mut right = (0u32..)
            .zip(right)
            .filter_map(|(id, right)| right.then_some(id))
            .peekable();
        while right.peek().is_some() {
            ctl.check()?;
            let shard = shard.read();
            for entry in right
                .by_ref()
                .take(CHECK_ROWS)
                .filter_map(|id| shard.classes.get(id))
            {
                entry.rows.union_into(&mut rows);
            }
        }
        Ok(rows)
    }

    /// Looks at the next candidates, at most `CHECK_ROWS`, and puts those that match into `rows`.
    /// Returns how many were looked at; 0 means that none is left.
    pub(crate) fn next_slice(
        &mut self,
        shard: &Shard,
        catalog: &Catalog,
        rows: &mut Vec<u32>,
    ) -> usize {
        rows.clear();
        let mut seen = 0;
        let tables = catalog.read();
        match &mut self.candidates {
            Candidates::From(next) => {
                let mut row = *next;
                while row < self.view.rows && seen < CHECK_ROWS {
                    if (row as usize).is_multiple_of(PAGE_ROWS) && self.passes_over(shard, row) {
                        // A page passed over costs about as much as a few rows.
                        seen += 16;
                        row = row.saturating_add(dictionary::number(PAGE_ROWS));
                        continue;
                    }
                    seen += 1;
                    if self.matches(shard, &tables, row) {
                        rows.push(row);
                    }
                    row += 1;
                }
                self.candidates = Candidates::From(row);
            }
            Candidates::These(these) => {
                let slice: Vec<u32> = these.iter().take(CHECK_ROWS).collect();
                if let Some(&last) = slice.last() {
                    these.remove_range(..=last);
                }
                seen = slice.len();
                rows.extend(
                    slice
                        .into_iter()
                        .filter(|&row| self.matches(shard, &tables, row)),
                );
            }
        }
        seen
    }

    /// Puts the rows of a page that match into `rows`. Returns how many were looked at.
    pub(crate) fn page(
        &mut self,
        shard: &Shard,
        catalog: &Catalog,
        page: u32,
        rows: &mut Vec<u32>,
    ) -> usize {
        rows.clear();
        let first = page.saturating_mul(dictionary::number(PAGE_ROWS));
        if first >= self.view.rows || self.passes_over(shard, first) {
            return 1;
        }
        let end = self.view.rows.min(first + dictionary::number(PAGE_ROWS));
        match &self.candidates {
            Candidates::From(_) => rows.extend(first..end),
            Candidates::These(these) => rows.extend(these.range(first..end)),
        }
        let looked = rows.len();
        let tables = catalog.read();
        rows.retain(|&row| self.matches(shard, &tables, row));
        looked + 1
    }

    /// Whether a row below the view's bound matches.
    pub(crate) fn row_matches(&mut self, shard: &Shard, tables: &Tables, row: u32) -> bool {
        self.matches(shard, tables, row)
    }

    /// Whether no row of a page can match.
    fn passes_over(&self, shard: &Shard, row: u32) -> bool {
        let page = row / dictionary::number(PAGE_ROWS);
        shard.bounds.get(page).is_some_and(|bounds| {
            bounds.start_max < self.conditions.range.start().as_nanos()
                || bounds.start_min > self.conditions.range.end().as_nanos()
                || bounds.duration_max < self.conditions.duration_min
        })
    }

    fn matches(&mut self, shard: &Shard, tables: &Tables, row: u32) -> bool {
        let (Some(&class), Some(&start)) = (shard.class_of.get(row), shard.starts.get(row)) else {
            return false;
        };
        let right_class = self
            .classes
            .as_ref()
            .is_none_or(|classes| classes.get(class as usize).copied().unwrap_or(false));
        let range = self.conditions.range;
        if !right_class || start < range.start().as_nanos() || start > range.end().as_nanos() {
            return false;
        }
        let duration = shard.durations.get(row).copied().unwrap_or_default();
        if duration < self.conditions.duration_min || duration > self.conditions.duration_max {
            return false;
        }
        if !shard.is_visible(row, self.view) {
            return false;
        }
        if !self.conditions.rest.is_empty() && !self.rest_holds(shard, row) {
            return false;
        }
        if self.tests.is_empty() {
            return true;
        }
        let mut tags = std::mem::take(&mut self.tags);
        shard.tags_of(row, &mut tags);
        let right = (0..self.tests.len()).all(|i| self.tag_holds(shard, tables, class, i, &tags));
        self.tags = tags;
        right
    }

    fn rest_holds(&mut self, shard: &Shard, row: u32) -> bool {
        let mut own = std::mem::take(&mut self.rest);
        shard.rest_alone(row, &mut own);
        let rest = &own;
        let right = (0..self.conditions.rest.len()).all(|i| match self.conditions.rest.get(i) {
            Some(&RestCondition::StatusMessage(matches)) => match rest.status_message {
                Some(text) => self.text_holds(shard, i, text, matches),
                None => matches.matches_absent(),
            },
            Some(&RestCondition::EventName(matches)) => {
                let mut names = rest.events.iter().map(|event| event.name);
                if rest.events.is_empty() {
                    matches.matches_absent()
                } else {
                    names.any(|name| self.text_holds(shard, i, name, matches))
                }
            }
            Some(&RestCondition::EventTag(key, test)) => {
                self.any_tag_holds(shard, i, &rest.event_tags, key, test)
            }
            Some(&RestCondition::LinkTag(key, test)) => {
                self.any_tag_holds(shard, i, &rest.link_tags, key, test)
            }
            None => true,
        });
        self.rest = own;
        right
    }

    fn text_holds(&mut self, shard: &Shard, i: usize, text: u32, matches: &StringMatch) -> bool {
        *self
            .rest_tests
            .entry((i, text))
            .or_insert_with(|| matches.matches(shard.tags.text(text)))
    }

    /// Whether one of the values under a key satisfies a condition, or their absence if there is none.
    fn any_tag_holds(
        &mut self,
        shard: &Shard,
        i: usize,
        tags: &[u32],
        key: Option<u32>,
        test: ValueTest<'_>,
    ) -> bool {
        let key = key.unwrap_or(TEXT_KEY);
        let mut present = false;
        for &tag in tags.iter().filter(|&&tag| shard.tags.key(tag) == key) {
            present = true;
            let scratch = &mut self.scratch;
            let right = self
                .rest_tests
                .entry((i, tag))
                .or_insert_with(|| test.holds(value::display(shard.tags.get(tag).1, scratch)));
            if *right {
                return true;
            }
        }
        !present && test.holds_for_none()
    }

    fn tag_holds(
        &mut self,
        shard: &Shard,
        tables: &Tables,
        class: u32,
        i: usize,
        tags: &[u32],
    ) -> bool {
        let (Some(&condition), Some(test)) = (self.conditions.tags.get(i), self.tests.get(i))
        else {
            return false;
        };
        let mut present = false;
        for &id in tags {
            if Some(shard.tags.key(id)) != condition.symbol {
                continue;
            }
            present = true;
            let right = match test {
                TagTest::OneOf(set) => set.contains(id),
                TagTest::ByValue => {
                    let text = value::display(shard.tags.get(id).1, &mut self.scratch);
                    condition.test.holds(text)
                }
            };
            if right {
                return true;
            }
        }
        if present {
            return false;
        }
        let resource = shard.classes.get(class).map(|entry| entry.class.resource);
        let on_resource = match resource {
            Some(resource) if condition.or_resource => self.resource_test(tables, i, resource),
            _ => None,
        };
        on_resource.unwrap_or_else(|| condition.test.holds_for_none())
    }
}

/// The rows of each class that satisfy a filter, if the classes say it: no other condition restricts
/// and no more than a few rows are newer than the view. All rows of the view must be visible.
pub(crate) fn count_classes(
    shard: &RwLock<Shard>,
    catalog: &Catalog,
    filter: &SpanFilter,
    view: View,
    ctl: &QueryControl,
) -> Result<Option<Vec<(u32, u64)>>, Error> {
    let mut cursor = RowCursor::unplanned(catalog, filter, view);
    if !cursor.conditions.concern_classes_only() {
        return Ok(None);
    }
    if cursor.conditions.concern_classes() {
        cursor.judge_classes(shard, catalog, ctl)?;
    }
    let shard = shard.read();
    let (start, end) = (
        filter.range.start().as_nanos(),
        filter.range.end().as_nanos(),
    );
    let pages = view.rows.div_ceil(dictionary::number(PAGE_ROWS)) as usize;
    let mut pages = shard.bounds.iter_from(0).take(pages);
    if shard.idents.rows() - view.rows > dictionary::number(CHECK_ROWS)
        || shard.classes.len() > 4 * CHECK_ROWS
        || pages.any(|page| page.start_min < start || page.start_max > end)
    {
        return Ok(None);
    }
    let right = |class: usize| {
        let classes = cursor.classes.as_ref();
        classes.is_none_or(|classes| classes.get(class).copied().unwrap_or(false))
    };
    let mut counts: Vec<u64> = shard
        .classes
        .iter_from(0)
        .map(|entry| entry.rows.len())
        .collect();
    for class in shard.class_of.iter_from(view.rows) {
        if let Some(count) = counts.get_mut(*class as usize) {
            *count = count.saturating_sub(1);
        }
    }
    let counts = (0u32..).zip(counts);
    Ok(Some(
        counts
            .filter(|&(class, count)| count > 0 && right(class as usize))
            .collect(),
    ))
}

/// The rows that carry one of a set of tags.
fn rows_of_tags(
    shard: &RwLock<Shard>,
    set: &RoaringBitmap,
    ctl: &QueryControl,
) -> Result<RoaringBitmap, Error> {
    let mut rows = RoaringBitmap::new();
    let mut tags = set.iter().peekable();
    while tags.peek().is_some() {
        ctl.check()?;
        let shard = shard.read();
        for postings in tags
            .by_ref()
            .take(CHECK_ROWS)
            .filter_map(|id| shard.tags.rows(id))
        {
            postings.union_into(&mut rows);
        }
    }
    Ok(rows)
}

fn right_resource(
    conditions: &Conditions<'_>,
    tables: &Tables,
    resource: u32,
    scratch: &mut String,
) -> bool {
    let Some(entry) = tables.resources.get(resource as usize) else {
        return false;
    };
    let service = tables.text(entry.service);
    conditions
        .services
        .iter()
        .all(|matches| matches.matches(service))
        && conditions
            .resource_tags
            .iter()
            .all(|&tag| holds_of_owner(&entry.resource.attributes, tag, scratch))
}

fn right_scope(
    conditions: &Conditions<'_>,
    tables: &Tables,
    scope: u32,
    scratch: &mut String,
) -> bool {
    let Some(scope) = tables.scopes.get(scope as usize) else {
        return false;
    };
    conditions
        .scope_names
        .iter()
        .all(|matches| matches.matches(&scope.name))
        && conditions
            .scope_tags
            .iter()
            .all(|&tag| holds_of_owner(&scope.attributes, tag, scratch))
}

fn holds_of_owner(
    attributes: &Attributes,
    (key, test): OwnerTag<'_>,
    scratch: &mut String,
) -> bool {
    test_attributes(attributes, key, test, scratch).unwrap_or_else(|| test.holds_for_none())
}

/// What a condition says of the attributes of a resource or scope; `None` if the key is not among them.
pub(crate) fn test_attributes(
    attributes: &Attributes,
    key: &str,
    test: ValueTest<'_>,
    scratch: &mut String,
) -> Option<bool> {
    use std::fmt::Write as _;

    let mut found = None;
    for (_, value) in attributes.iter().filter(|(k, _)| &**k == key) {
        let text = if let Some(text) = value.as_str() {
            text
        } else {
            scratch.clear();
            // Writing to a string cannot fail.
            let _ = write!(scratch, "{value}");
            scratch.as_str()
        };
        found = Some(found.unwrap_or(false) || test.holds(text));
    }
    found
}
