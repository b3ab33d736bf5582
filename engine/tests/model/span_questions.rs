//! Random questions about spans, answered by a snapshot part by part and by the plain state.

use std::collections::{BTreeMap, BTreeSet};

use rootline_engine::{
    AttributeType, Axis, Error, QueryControl, QueryLimits, Snapshot, Span, SpanPart, SpanRows,
    TagScope, TimeRange, Timestamp, Trace,
};

use super::{
    Rng, State, TRACES,
    spans::{KEYS, ModelSpan, SpanPick, random_scope, random_span_pick, read_back, trace_id},
};

/// All spans that a snapshot shows, by trace, with the parents that the whole trace says.
struct Told {
    traces: Vec<Trace>,
    /// The same as the model knows them.
    spans: Vec<Vec<ModelSpan>>,
}

/// A span by its trace and its place there.
type Place = (usize, usize);

impl Told {
    fn of(snapshot: &Snapshot, ctl: &QueryControl) -> Result<Self, Error> {
        let mut traces = Vec::new();
        for trace in 0..u8::try_from(TRACES).unwrap() {
            traces.extend(snapshot.trace(trace_id(trace), ctl)?);
        }
        let read = |trace: &Trace| trace.spans.iter().map(read_back).collect();
        let spans = traces.iter().map(read).collect();
        Ok(Self { traces, spans })
    }

    fn span(&self, place: Place) -> &Span {
        &self.traces[place.0].spans[place.1]
    }

    fn model(&self, place: Place) -> &ModelSpan {
        &self.spans[place.0][place.1]
    }

    fn parent(&self, place: Place) -> Option<Place> {
        self.traces[place.0].parents[place.1].map(|row| (place.0, row as usize))
    }

    fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let traces = self.traces.iter().enumerate();
        traces.flat_map(|(t, trace)| (0..trace.spans.len()).map(move |row| (t, row)))
    }

    fn matching(&self, pick: &SpanPick) -> BTreeSet<Place> {
        let places = self.places();
        places
            .filter(|place| pick.takes(self.model(*place)))
            .collect()
    }

    fn above(&self, place: Place) -> Vec<Place> {
        let mut above = Vec::new();
        let mut at = self.parent(place);
        while let Some(parent) = at {
            above.push(parent);
            at = self.parent(parent);
        }
        above
    }

    fn is(&self, place: Place, axis: Axis, of: Place) -> bool {
        match axis {
            Axis::Child => self.parent(place) == Some(of),
            Axis::Parent => self.parent(of) == Some(place),
            Axis::Descendant => self.above(place).contains(&of),
            Axis::Ancestor => self.above(of).contains(&place),
            Axis::Sibling => {
                place != of && self.parent(place).is_some() && self.parent(place) == self.parent(of)
            }
        }
    }

    fn relatives(&self, places: &BTreeSet<Place>, axis: Axis) -> BTreeSet<Place> {
        let is_one = |place: &Place| places.iter().any(|of| self.is(*place, axis, *of));
        self.places().filter(is_one).collect()
    }

    fn own_time(&self, place: Place) -> u64 {
        let span = self.span(place);
        let (start, end) = (span.start.as_nanos(), span.end.as_nanos());
        let children = self
            .places()
            .filter(|other| self.parent(*other) == Some(place));
        let mut busy: Vec<(i64, i64)> = children
            .map(|child| {
                let child = self.span(child);
                let clip = |at: Timestamp| at.as_nanos().clamp(start, end);
                (clip(child.start), clip(child.end))
            })
            .collect();
        busy.sort_unstable();
        let (mut own, mut at) = (span.duration_ns(), start);
        for (from, to) in busy {
            let from = from.max(at);
            if to > from {
                own -= u64::try_from(i128::from(to) - i128::from(from)).unwrap();
                at = to;
            }
        }
        own
    }

    /// All that the columns of a part say of a span.
    fn line(&self, place: Place) -> String {
        let span = self.span(place);
        let parent = self.parent(place).map(|parent| self.span(parent));
        let children = self
            .places()
            .filter(|other| self.parent(*other) == Some(place));
        line(&Said {
            trace: span.trace_id.to_string(),
            id: span.span_id.to_string(),
            parent_id: span.parent_span_id.map(|id| id.to_string()),
            name: span.name.to_string(),
            service: span.service().to_owned(),
            kind_status: (span.kind.number(), span.status as u8),
            parent: parent.map(|p| (p.service().to_owned(), p.name.to_string())),
            start: span.start.as_nanos(),
            duration: span.duration_ns(),
            depth: u32::try_from(self.above(place).len()).unwrap(),
            children: u32::try_from(children.count()).unwrap(),
            own_time: self.own_time(place),
        })
    }

    fn lines(&self, places: &BTreeSet<Place>) -> Vec<String> {
        let mut lines: Vec<String> = places.iter().map(|place| self.line(*place)).collect();
        lines.sort_unstable();
        lines
    }
}

/// What columns say of a row.
#[derive(Debug)]
#[expect(unused, reason = "compared as text")]
struct Said {
    trace: String,
    id: String,
    parent_id: Option<String>,
    name: String,
    service: String,
    kind_status: (i32, u8),
    /// Service and name.
    parent: Option<(String, String)>,
    start: i64,
    duration: u64,
    depth: u32,
    children: u32,
    own_time: u64,
}

fn line(said: &Said) -> String {
    format!("{said:?}")
}

/// The same as a part says it, column by column.
fn part_lines(part: &SpanPart, rows: &SpanRows, ctl: &QueryControl) -> Result<Vec<String>, Error> {
    let hits = part.hits(rows, ctl)?;
    let (mut starts, mut durations, mut own_times) = (vec![], vec![], vec![]);
    let (mut classes, mut parents, mut traces) = (vec![], vec![], vec![]);
    let (mut depths, mut children) = (vec![], vec![]);
    part.starts(rows, ctl, &mut starts)?;
    part.durations(rows, ctl, &mut durations)?;
    part.own_times(rows, ctl, &mut own_times)?;
    part.classes(rows, ctl, &mut classes)?;
    part.parent_classes(rows, ctl, &mut parents)?;
    part.traces(rows, ctl, &mut traces)?;
    part.depths(rows, ctl, &mut depths)?;
    part.child_counts(rows, ctl, &mut children)?;
    assert_eq!(hits.len() as u64, rows.len());
    let mut lines = Vec::new();
    for (i, hit) in hits.iter().enumerate() {
        let class = part.class(classes[i]);
        let parent = (parents[i] != u32::MAX).then(|| part.class(parents[i]));
        assert_eq!((hit.name, hit.service), (class.name, class.service));
        assert_eq!((hit.kind, hit.status), (class.kind, class.status));
        assert_eq!(
            (hit.start.as_nanos(), hit.duration_ns),
            (starts[i], durations[i])
        );
        assert_eq!(hit.parent_service, parent.map(|parent| parent.service));
        assert_eq!(part.trace_id(traces[i])?, hit.trace_id);
        let text = |id| part.symbol(id).to_string();
        lines.push(line(&Said {
            trace: hit.trace_id.to_string(),
            id: hit.span_id.to_string(),
            parent_id: hit.parent_span_id.map(|id| id.to_string()),
            name: text(hit.name),
            service: text(hit.service),
            kind_status: (hit.kind.number(), hit.status as u8),
            parent: parent.map(|parent| (text(parent.service), text(parent.name))),
            start: starts[i],
            duration: durations[i],
            depth: depths[i],
            children: children[i],
            own_time: own_times[i],
        }));
    }
    Ok(lines)
}

const AXES: [Axis; 5] = [
    Axis::Child,
    Axis::Parent,
    Axis::Descendant,
    Axis::Ancestor,
    Axis::Sibling,
];

/// Asks `snapshot` one of each kind of question; the answers must be those of `state`.
pub fn check_span_questions(
    snapshot: &Snapshot,
    state: &State,
    rng: &mut Rng,
    today: i64,
) -> Result<(), Error> {
    let ctl = &snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let told = Told::of(snapshot, ctl)?;
    let shown: BTreeSet<ModelSpan> = told.places().map(|p| told.model(p).clone()).collect();
    assert_eq!(shown, state.spans, "whole traces");
    let parts = snapshot.span_parts()?;

    let (pick, other) = (random_span_pick(rng, today), random_span_pick(rng, today));
    let axis = AXES[usize::try_from(rng.below(5)).unwrap()];
    let expected = told.matching(&pick);
    let others = told.matching(&other);
    let (filter, other_filter) = (pick.filter(), other.filter());
    let (mut lines, mut related, mut of_related) = (vec![], vec![], vec![]);
    let mut counted = 0;
    let mut by_class: BTreeMap<String, u64> = BTreeMap::new();
    for part in &parts {
        let rows = part.select(&filter, ctl)?;
        lines.extend(part_lines(part, &rows, ctl)?);
        let count = part.count(&filter, ctl)?;
        assert_eq!(count, rows.len(), "count and rows of {pick:?}");
        counted += count;
        for (class, spans) in part.count_by_class(&filter, ctl)? {
            assert!(spans > 0);
            let class = part.class(class);
            let text = |id| part.symbol(id);
            let (service, name) = (text(class.service), text(class.name));
            let key = format!("{service} {name} {:?} {:?}", class.kind, class.status);
            *by_class.entry(key).or_default() += spans;
        }
        let found = part.relatives(&rows, axis, ctl)?;
        related.extend(part_lines(part, &found, ctl)?);
        let found = found.and(&part.select(&other_filter, ctl)?);
        let found = part.relatives(&found, axis.inverse(), ctl)?;
        of_related.extend(part_lines(part, &found, ctl)?);
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(lines), told.lines(&expected), "select {pick:?}");
    assert_eq!(counted, expected.len() as u64, "count {pick:?}");
    let mut classes: BTreeMap<String, u64> = BTreeMap::new();
    for place in &expected {
        let s = told.span(*place);
        let key = format!("{} {} {:?} {:?}", s.service(), s.name, s.kind, s.status);
        *classes.entry(key).or_default() += 1;
    }
    assert_eq!(by_class, classes, "count by class {pick:?}");
    let relatives = told.relatives(&expected, axis);
    assert_eq!(
        sorted(related),
        told.lines(&relatives),
        "{axis:?} of {pick:?}"
    );
    let relatives = relatives.intersection(&others).copied().collect();
    let relatives = told.relatives(&relatives, axis.inverse());
    assert_eq!(
        sorted(of_related),
        told.lines(&relatives),
        "whose {axis:?} is {other:?}: {pick:?}"
    );
    check_values(&told, &parts, &pick, rng, ctl)?;
    check_newest(&told, &parts, &pick, rng, ctl)?;
    check_summaries(snapshot, &told, &parts, ctl)?;
    check_listings(snapshot, state, &pick, rng, ctl)
}

/// The first value of a key.
fn check_values(
    told: &Told,
    parts: &[SpanPart],
    pick: &SpanPick,
    rng: &mut Rng,
    ctl: &QueryControl,
) -> Result<(), Error> {
    let key = KEYS[usize::try_from(rng.below(KEYS.len() as u64)).unwrap()];
    let of = random_scope(rng);
    let mut found = Vec::new();
    for part in parts {
        let rows = part.select(&pick.filter(), ctl)?;
        let values = part.values(&rows, key, of, ctl)?;
        assert_eq!(values.codes.len() as u64, rows.len());
        for (hit, code) in part.hits(&rows, ctl)?.into_iter().zip(values.codes) {
            let value = (code != u32::MAX).then(|| values.values[code as usize].clone());
            found.push(format!("{:?} {:?} {value:?}", hit.trace_id, hit.span_id));
        }
    }
    let expected = told.matching(pick).into_iter().map(|place| {
        let span = told.span(place);
        let mut tags = told.model(place).tags(of).into_iter();
        let value = tags.find(|(k, _)| *k == key).map(|(_, value)| value);
        format!("{:?} {:?} {value:?}", span.trace_id, span.span_id)
    });
    let mut expected: Vec<String> = expected.collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected, "values of {key} of {of:?}: {pick:?}");
    Ok(())
}

fn check_newest(
    told: &Told,
    parts: &[SpanPart],
    pick: &SpanPick,
    rng: &mut Rng,
    ctl: &QueryControl,
) -> Result<(), Error> {
    let matching = told.matching(pick);
    let mut expected = Vec::new();
    for (t, trace) in told.traces.iter().enumerate() {
        let matched = matching.iter().filter(|place| place.0 == t).count() as u64;
        if matched > 0 {
            expected.push((trace.spans[0].start, trace.id, matched));
        }
    }
    expected.sort_unstable_by(|a, b| b.cmp(a));
    let limit = usize::try_from(rng.below(5)).unwrap();
    let before = match rng.below(3) {
        0 if !expected.is_empty() => {
            let at = usize::try_from(rng.below(expected.len() as u64)).unwrap();
            Some((expected[at].0, expected[at].1))
        }
        _ => None,
    };
    expected.retain(|(start, id, _)| before.is_none_or(|before| (*start, *id) < before));
    expected.truncate(limit);
    let mut found = Vec::new();
    for part in parts {
        let newest = part.newest_traces(&pick.filter(), before, limit, ctl)?;
        assert!(newest.len() <= limit);
        assert!(newest.is_sorted_by(|a, b| (a.start, a.id) > (b.start, b.id)));
        for trace in newest {
            assert_eq!(part.trace_id(trace.trace)?, trace.id);
            found.push((trace.start, trace.id, trace.matched));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.truncate(limit);
    assert_eq!(
        found, expected,
        "newest {limit} before {before:?}: {pick:?}"
    );
    Ok(())
}

fn check_summaries(
    snapshot: &Snapshot,
    told: &Told,
    parts: &[SpanPart],
    ctl: &QueryControl,
) -> Result<(), Error> {
    let mut traces = 0;
    for part in parts {
        traces += part.trace_count(ctl)?;
    }
    assert_eq!(traces, told.traces.len() as u64, "traces");
    let ends = |trace: &Trace| {
        let ends = trace.spans.iter().map(|span| span.end);
        (trace.spans[0].start, ends.max().unwrap())
    };
    let mut bounds: Option<(Timestamp, Timestamp)> = None;
    for trace in &told.traces {
        let summary = snapshot.trace_summary(trace.id, ctl)?.unwrap();
        let root = (0..trace.spans.len()).find(|row| trace.parents[*row].is_none());
        let root = &trace.spans[root.unwrap()];
        assert_eq!(
            (&*summary.root_service, &*summary.root_name),
            (root.service(), &*root.name)
        );
        assert_eq!(summary.root_is_orphan, root.parent_span_id.is_some());
        let (start, end) = ends(trace);
        assert_eq!((summary.start, summary.end), (start, end));
        bounds = bounds.map_or(Some((start, end)), |(a, b)| {
            Some((a.min(start), b.max(end)))
        });
        let mut services: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let mut errors = 0;
        for span in &trace.spans {
            let own = services.entry(span.service()).or_default();
            own.0 += 1;
            let failed = u64::from(span.status == rootline_engine::StatusCode::Error);
            own.1 += failed;
            errors += failed;
        }
        assert_eq!(
            (summary.spans, summary.errors),
            (trace.spans.len() as u64, errors)
        );
        let found = summary.services.iter();
        let found = found.map(|count| (&*count.service, (count.spans, count.errors)));
        assert!(found.eq(services), "{summary:?}");
    }
    let found = snapshot.span_time_bounds(ctl)?;
    assert_eq!(found.map(|range| (range.start(), range.end())), bounds);
    Ok(())
}

fn check_listings(
    snapshot: &Snapshot,
    state: &State,
    pick: &SpanPick,
    rng: &mut Rng,
    ctl: &QueryControl,
) -> Result<(), Error> {
    let at = Timestamp::from_nanos;
    let range = TimeRange::new(at(pick.start), at(pick.end)).unwrap();
    let spans = || {
        state
            .spans
            .iter()
            .filter(|span| range.contains(at(span.start)))
    };
    let services: BTreeSet<String> = spans().map(ModelSpan::service_name).collect();
    assert!(
        snapshot.services(range, ctl)?.into_iter().eq(services),
        "services in {range}"
    );
    let service = rng.below(4);
    let wanted = (service < 3).then(|| format!("service-{service}"));
    let operations =
        spans().filter(|span| wanted.as_ref().is_none_or(|w| *w == span.service_name()));
    let operations: BTreeSet<String> = operations.map(ModelSpan::op_name).collect();
    let found = snapshot.operations(wanted.as_deref(), range, ctl)?;
    assert!(
        found.into_iter().eq(operations),
        "operations of {wanted:?} in {range}"
    );

    let of = random_scope(rng);
    let limit = usize::try_from(1 + rng.below(12)).unwrap();
    let prefix = ["", "", "z", "1", "user-", "m"][usize::try_from(rng.below(6)).unwrap()];
    let scopes = match of {
        TagScope::Any => super::spans::SCOPES[1..].to_vec(),
        of => vec![of],
    };
    let mut names: BTreeMap<(String, TagScope), (BTreeSet<AttributeType>, u64)> = BTreeMap::new();
    for span in &state.spans {
        for scope in &scopes {
            let tags = span.tags(*scope);
            let keys: BTreeSet<&str> = tags.iter().map(|(key, _)| *key).collect();
            for key in keys.into_iter().filter(|key| key.starts_with(prefix)) {
                let name = names.entry((key.to_owned(), *scope)).or_default();
                let values = tags.iter().filter(|(k, _)| *k == key);
                name.0
                    .extend(values.map(|(_, value)| AttributeType::of(value)));
                name.1 += 1;
            }
        }
    }
    let names: Vec<_> = names.into_iter().take(limit).collect();
    let found = snapshot.tag_names(of, prefix, limit, ctl)?.into_iter();
    let found: Vec<_> = found
        .map(|name| {
            (
                (name.key.to_string(), name.scope),
                (name.types.into_iter().collect(), name.spans),
            )
        })
        .collect();
    assert_eq!(found, names, "tag names of {of:?}, {prefix:?}, {limit}");

    let key = KEYS[usize::try_from(rng.below(KEYS.len() as u64)).unwrap()];
    let mut values: BTreeMap<(String, AttributeType), u64> = BTreeMap::new();
    for span in &state.spans {
        let tags = span.tags(of).into_iter().filter(|(k, _)| *k == key);
        let own = tags.map(|(_, value)| (value.to_string(), AttributeType::of(&value)));
        for value in own.collect::<BTreeSet<_>>() {
            if value.0.starts_with(prefix) {
                *values.entry(value).or_default() += 1;
            }
        }
    }
    let values: Vec<_> = values.into_iter().take(limit).collect();
    let found = snapshot
        .tag_values(key, of, prefix, limit, ctl)?
        .into_iter();
    let found: Vec<_> = found.map(|v| ((v.value, v.kind), v.spans)).collect();
    assert_eq!(
        found, values,
        "values of {key} of {of:?}, {prefix:?}, {limit}"
    );
    Ok(())
}

/// Everything that a snapshot says about spans, in a form that does not tell how they lie.
pub fn span_answers(snapshot: &Snapshot, picks: &[SpanPick]) -> Result<Vec<String>, Error> {
    let ctl = &snapshot
        .engine()
        .query_control(None, QueryLimits::default());
    let mut answers = Vec::new();
    for trace in 0..u8::try_from(TRACES).unwrap() {
        let id = trace_id(trace);
        answers.push(format!("{:?}", snapshot.trace(id, ctl)?));
        answers.push(format!("{:?}", snapshot.trace_summary(id, ctl)?));
    }
    let parts = snapshot.span_parts()?;
    for pick in picks {
        for axis in AXES {
            let mut lines = Vec::new();
            for part in &parts {
                let rows = part.select(&pick.filter(), ctl)?;
                lines.extend(part_lines(part, &rows, ctl)?);
                let rows = part.relatives(&rows, axis, ctl)?;
                let related = part_lines(part, &rows, ctl)?;
                lines.extend(related.into_iter().map(|line| format!("{axis:?} {line}")));
            }
            lines.sort_unstable();
            answers.extend(lines);
        }
    }
    let all = TimeRange::ALL;
    answers.push(format!("{:?}", snapshot.services(all, ctl)?));
    answers.push(format!(
        "{:?}",
        snapshot.tag_names(TagScope::Any, "", 100, ctl)?
    ));
    for key in KEYS {
        let values = snapshot.tag_values(key, TagScope::Any, "", 100, ctl)?;
        answers.push(format!("{key} {values:?}"));
    }
    Ok(answers)
}
