//! Selecting rows by matchers.
//!
//! 1. Every matcher becomes a set of codes of its label, where 0 stands for a row without the label.
//!    A listed value is looked up; a pattern runs over the values that start with its literal
//!    prefix. A set that leaves nothing out is dropped.
//! 2. Bodies are found: by the postings of the matcher that leaves fewest, looking the others up for
//!    each; or, if none leaves few, by a scan of all columns side by side, which passes over groups
//!    that cannot hold a wanted code without unpacking them.
//! 3. Runs of the wanted leads turn bodies into rows.

use roaring::RoaringBitmap;

use super::Source;
use super::codes::CodeSet;
use super::column::Column;
use super::dictionary::{Dictionary, DictionaryCursor};
use super::directory::NameRecord;
use super::error::Error;
use super::postings::DiskPostings;
use super::reader::{DiskIndex, Steps};
use super::row_map::Run;
use crate::matcher::Matcher;

/// A matcher's codes are looked up in postings if they list at most one in so many bodies; beyond
/// that a scan is faster.
const LISTED_ONE_IN: u64 = 8;
/// Runs asked for each wanted body rather than walked, if bodies are fewer by this.
const ASKED_ONE_IN: usize = 16;

/// A matcher that may leave bodies out.
struct Term<'a, S> {
    codes: CodeSet,
    column: Column<'a, S>,
    postings: Option<DiskPostings<'a, S>>,
}

impl<S: Source> DiskIndex<S> {
    /// The rows that satisfy every matcher; all rows if there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`], or [`Error::Cancelled`] once `keep_going` says no.
    pub fn select(
        &self,
        matchers: &[Matcher],
        mut keep_going: impl FnMut() -> bool,
    ) -> Result<RoaringBitmap, Error<S::Error>> {
        let mut steps = Steps::new(&mut keep_going);
        let mut terms = Vec::new();
        let mut leads = Vec::new();
        for matcher in matchers {
            let Some((name, record)) = self.find_name(matcher.name())? else {
                if matcher.matches_empty() {
                    continue;
                }
                return Ok(RoaringBitmap::new());
            };
            let values = self.values(&record);
            let codes = codes_of(matcher, values, &mut steps)?;
            if codes.is_empty() {
                return Ok(RoaringBitmap::new());
            }
            let is_everywhere = record.rows == self.rows();
            if codes.holds_range(u32::from(is_everywhere), values.count()) {
                continue;
            }
            if name == self.trailer().lead {
                leads.push(codes);
            } else {
                terms.push(self.term(codes, &record));
            }
        }
        let bodies = self.bodies_where(terms, &mut steps)?;
        self.rows_where(&leads, bodies, &mut steps)
    }

    fn term(&self, codes: CodeSet, record: &NameRecord) -> Term<'_, S> {
        Term {
            codes,
            column: self.column(record),
            postings: self.postings(record),
        }
    }

    /// The bodies that satisfy every term, rising; `None` for all.
    fn bodies_where(
        &self,
        mut terms: Vec<Term<'_, S>>,
        steps: &mut Steps<'_>,
    ) -> Result<Option<Vec<u32>>, Error<S::Error>> {
        if terms.is_empty() {
            return Ok(None);
        }
        let most = u64::from(self.bodies()) / LISTED_ONE_IN;
        let mut least: Option<(usize, u64)> = None;
        for (place, term) in terms.iter_mut().enumerate() {
            let bound = least.map_or(most, |(_, count)| count);
            if let Some(count) = term.listed(bound, steps)? {
                least = Some((place, count));
            }
        }
        let Some((place, _)) = least else {
            return self.scan(terms, steps).map(Some);
        };
        let first = terms.swap_remove(place);
        let mut bodies = first.list(steps)?;
        // A damaged list need not be of bodies.
        bodies.retain(|body| *body < self.bodies());
        for mut term in terms {
            term.keep(&mut bodies, steps)?;
        }
        Ok(Some(bodies))
    }

    /// Walks all columns side by side.
    fn scan(
        &self,
        mut terms: Vec<Term<'_, S>>,
        steps: &mut Steps<'_>,
    ) -> Result<Vec<u32>, Error<S::Error>> {
        let mut found = Vec::new();
        let mut body = 0;
        'bodies: while body < self.bodies() {
            let mut end = self.bodies();
            for term in &mut terms {
                steps.step(32)?;
                let group = term.column.group_of(body)?;
                if !term.codes.touches(group.base, group.max()) {
                    body = group.rows.end;
                    continue 'bodies;
                }
                end = end.min(group.rows.end);
            }
            let from = found.len();
            let mut all = true;
            for term in &mut terms {
                if term.column.group_of(body)?.constant().is_some() {
                    continue;
                }
                steps.step(1024)?;
                let group = term.column.numbers_of(body)?;
                if all {
                    all = false;
                    // One range is by far the most common set.
                    if let [(low, high)] = *term.codes.ranges() {
                        group.each_of(body..end, |body, code| {
                            if code.wrapping_sub(low) <= high - low {
                                found.push(body);
                            }
                        });
                    } else {
                        group.each_of(body..end, |body, code| {
                            if term.codes.contains(code) {
                                found.push(body);
                            }
                        });
                    }
                } else {
                    let mut kept = from;
                    for place in from..found.len() {
                        let candidate = found.get(place).copied().unwrap_or_default();
                        if term.codes.contains(group.get(candidate)) {
                            found.swap(kept, place);
                            kept += 1;
                        }
                    }
                    found.truncate(kept);
                }
            }
            if all {
                found.extend(body..end);
            }
            body = end;
        }
        Ok(found)
    }

    /// The rows of some leads and bodies.
    fn rows_where(
        &self,
        leads: &[CodeSet],
        bodies: Option<Vec<u32>>,
        steps: &mut Steps<'_>,
    ) -> Result<RoaringBitmap, Error<S::Error>> {
        let map = self.row_map();
        let mut rows = RoaringBitmap::new();
        if bodies.as_ref().is_some_and(Vec::is_empty) {
            return Ok(rows);
        }
        if map.is_identity() {
            match bodies {
                Some(bodies) => append(&mut rows, bodies),
                None => {
                    rows.insert_range(0..self.rows());
                }
            }
            return Ok(rows);
        }
        let is_wanted = |run: &Run| leads.iter().all(|codes| codes.contains(run.lead));
        let mut add = |run: &Run, steps: &mut Steps<'_>| {
            steps.step(16)?;
            if is_wanted(run) {
                self.add_run(run, bodies.as_deref(), &mut rows, steps)?;
            }
            Ok(())
        };
        let few = leads
            .first()
            .filter(|codes| map.leads_rise() && codes.ranges().len() <= 64);
        let Some(codes) = few else {
            for run in 0..map.runs() {
                add(&map.run(run)?, steps)?;
            }
            return Ok(rows);
        };
        for (first, last) in codes.ranges() {
            for run in map.first_run(*first)?..map.runs() {
                let run = map.run(run)?;
                if run.lead > *last {
                    break;
                }
                add(&run, steps)?;
            }
        }
        Ok(rows)
    }

    /// Adds the rows of a run that have one of the bodies.
    fn add_run(
        &self,
        run: &Run,
        bodies: Option<&[u32]>,
        rows: &mut RoaringBitmap,
        steps: &mut Steps<'_>,
    ) -> Result<(), Error<S::Error>> {
        let Some(bodies) = bodies else {
            rows.insert_range(run.rows.clone());
            return Ok(());
        };
        let start = bodies.partition_point(|body| *body < run.first_body);
        let bodies = bodies.get(start..).unwrap_or_default();
        let end = bodies.partition_point(|body| *body <= run.last_body);
        let bodies = bodies.get(..end).unwrap_or_default();
        steps.step(u32::try_from(bodies.len()).unwrap_or(u32::MAX))?;
        let map = self.row_map();
        if run.is_whole() {
            append(
                rows,
                bodies
                    .iter()
                    .map(|body| run.rows.start + (body - run.first_body)),
            );
        } else if bodies.len() <= run.rows.len() / ASKED_ONE_IN {
            for body in bodies {
                if let Some(row) = map.row_of(run, *body)? {
                    rows.insert(row);
                }
            }
        } else {
            let mut wanted = bodies.iter().copied().peekable();
            let mut found = Vec::new();
            steps.step(u32::try_from(run.rows.len()).unwrap_or(u32::MAX))?;
            map.each(run, run.rows.clone(), |row, body| {
                while wanted.next_if(|wanted| *wanted < body).is_some() {}
                if wanted.next_if_eq(&body).is_some() {
                    found.push(row);
                }
            })?;
            append(rows, found);
        }
        Ok(())
    }
}

/// Adds rows above those there are.
fn append(rows: &mut RoaringBitmap, more: impl IntoIterator<Item = u32> + Clone) {
    if rows.append(more.clone()).is_err() {
        // Only damaged bytes give rows that do not rise.
        rows.extend(more);
    }
}

impl<S: Source> Term<'_, S> {
    /// How many bodies postings list for its codes, if they list them all and not more than a bound.
    fn listed(
        &mut self,
        bound: u64,
        steps: &mut Steps<'_>,
    ) -> Result<Option<u64>, Error<S::Error>> {
        let Some(postings) = &mut self.postings else {
            return Ok(None);
        };
        // Every value stands on a body at least.
        if self.codes.contains(0) || self.codes.len() > bound {
            return Ok(None);
        }
        let mut count = 0;
        for code in self.codes.codes() {
            steps.step(1)?;
            let places = postings.range(code)?;
            count += places.len() as u64;
            if places.is_empty() || count > bound {
                return Ok(None);
            }
        }
        Ok(Some(count))
    }

    /// The bodies that postings list for its codes.
    fn list(mut self, steps: &mut Steps<'_>) -> Result<Vec<u32>, Error<S::Error>> {
        let mut bodies = Vec::new();
        if let Some(postings) = &mut self.postings {
            for code in self.codes.codes() {
                let places = postings.range(code)?;
                steps.step(u32::try_from(places.len()).unwrap_or(u32::MAX))?;
                postings.read(places, &mut bodies)?;
            }
        }
        bodies.sort_unstable();
        bodies.dedup();
        Ok(bodies)
    }

    /// Leaves out bodies that it does not select.
    fn keep(
        &mut self,
        bodies: &mut Vec<u32>,
        steps: &mut Steps<'_>,
    ) -> Result<(), Error<S::Error>> {
        let mut failed = None;
        bodies.retain(|body| {
            let code = steps.step(1).and_then(|()| self.column.get(*body));
            match code {
                Ok(code) => self.codes.contains(code),
                Err(error) => {
                    failed.get_or_insert(error);
                    false
                }
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

/// The codes that satisfy a matcher.
fn codes_of<S: Source>(
    matcher: &Matcher,
    values: Dictionary<'_, S>,
    steps: &mut Steps<'_>,
) -> Result<CodeSet, Error<S::Error>> {
    let max = values.count();
    let mut codes = CodeSet::default();
    if matcher.holds("") {
        codes.push(0, 0);
    }
    if let Some(listed) = matcher.listed_values() {
        for value in listed.iter().filter(|value| !value.is_empty()) {
            steps.step(16)?;
            if let Some(code) = values.find(value)? {
                codes.push(code, code);
            }
        }
    } else if matcher.holds_for_all_present() {
        codes.push(1, max);
    } else {
        let mut cursor = DictionaryCursor::new(values);
        for code in values.with_prefix(matcher.literal_prefix())? {
            steps.step(1)?;
            cursor.seek(code)?;
            if matcher.holds(cursor.text()?) {
                codes.push(code, code);
            }
        }
    }
    if matcher.op().is_negative() {
        codes = codes.complement(max);
    }
    Ok(codes.settle(max))
}
