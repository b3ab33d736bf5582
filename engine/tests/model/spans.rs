//! Spans of the model: what one says, how it is written, read back and deleted.
//!
//! A span is a handful of small numbers; all that it carries follows from them.

use std::collections::{BTreeMap, BTreeSet};

use rootline_engine::{
    LinkFields, MatchOp, ResourceFields, ScopeFields, Span, SpanCondition, SpanFields, SpanFilter,
    SpanId, SpanKind, StatusCode, StringMatch, TagScope, TimeRange, Timestamp, TraceId, Value,
    WriteBatch,
};

use super::{DAY_NS, Rng, TRACES};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelSpan {
    pub trace: u8,
    pub id: u8,
    pub parent: Option<u8>,
    pub service: u8,
    pub name: u8,
    pub start: i64,
    pub duration: i64,
    pub error: bool,
    pub tag: u8,
}

/// Attributes of one place.
pub type Tags = Vec<(&'static str, Value)>;

impl ModelSpan {
    pub fn end(&self) -> i64 {
        self.start.saturating_add(self.duration)
    }

    pub fn kind(&self) -> SpanKind {
        [SpanKind::Server, SpanKind::Client, SpanKind::Internal]
            [usize::from(self.service + self.name + self.tag) % 3]
    }

    pub fn status(&self) -> StatusCode {
        if self.error {
            StatusCode::Error
        } else {
            StatusCode::Unset
        }
    }

    pub fn status_message(&self) -> String {
        if self.error && self.tag > 0 {
            format!("failed in {}", self.name)
        } else {
            String::new()
        }
    }

    pub fn scope_name(&self) -> String {
        ["", "lib-a", "lib-b"][usize::from(self.service) % 3].to_owned()
    }

    /// One event of most spans, two of some.
    pub fn events(&self) -> Vec<(&'static str, Tags)> {
        match self.tag {
            0 => vec![],
            1 => vec![("begun", vec![])],
            2 => vec![
                ("begun", vec![("n", int(1))]),
                ("ended", vec![("n", int(2))]),
            ],
            _ => vec![("ended", vec![("n", text("1")), ("zone", text("z9"))])],
        }
    }

    pub fn links(&self) -> Vec<(u8, Tags)> {
        match self.tag {
            3 => vec![(self.trace + 1, vec![("why", text("retry"))])],
            _ => vec![],
        }
    }

    /// Attributes that stand in one scope; all events' or links' together.
    pub fn tags(&self, of: TagScope) -> Tags {
        match of {
            TagScope::Any => {
                let mut tags = self.tags(TagScope::Span);
                let own: BTreeSet<&str> = tags.iter().map(|(key, _)| *key).collect();
                let resource = self.tags(TagScope::Resource).into_iter();
                tags.extend(resource.filter(|(key, _)| !own.contains(key)));
                tags
            }
            TagScope::Span => {
                let mut tags = vec![("tag", int(self.tag))];
                match self.tag {
                    0 => tags.push(("zone", text("z0"))),
                    1 => tags.push(("mix", text("1"))),
                    2 => tags.extend([("mix", int(1)), ("mix", int(2))]),
                    3 => tags.push(("mix", Value::Double(1.5))),
                    _ => tags.push(("user", text(&format!("user-{}-{}", self.trace, self.id)))),
                }
                tags
            }
            TagScope::Resource => {
                let mut tags = vec![("service.name", text(&self.service_name()))];
                match self.service {
                    0 => tags.push(("zone", text("z0"))),
                    1 => tags.push(("zone", int(1))),
                    _ => {}
                }
                tags
            }
            TagScope::Event => self
                .events()
                .into_iter()
                .flat_map(|(_, tags)| tags)
                .collect(),
            TagScope::Link => self
                .links()
                .into_iter()
                .flat_map(|(_, tags)| tags)
                .collect(),
            TagScope::Scope => match self.service {
                1 => vec![("zone", text("z1"))],
                _ => vec![],
            },
        }
    }

    pub fn service_name(&self) -> String {
        format!("service-{}", self.service)
    }

    pub fn op_name(&self) -> String {
        format!("op-{}", self.name)
    }
}

fn int(n: u8) -> Value {
    Value::Int(n.into())
}

fn text(text: &str) -> Value {
    Value::Str(text.into())
}

pub fn trace_id(trace: u8) -> TraceId {
    let mut bytes = [0xabu8; 16];
    bytes[0] = trace.wrapping_mul(37);
    bytes[15] = trace;
    TraceId::new(bytes).unwrap()
}

pub fn span_id(id: u8) -> SpanId {
    SpanId::new([0, 0, 0, 0, 0, 0, 7, id]).unwrap()
}

/// A span of day `today`, or of some before. Few ids, so that parents, repeats, twins and cycles are
/// frequent.
pub fn random_span(rng: &mut Rng, today: i64) -> ModelSpan {
    let days_ago = match rng.below(12) {
        0 => i64::try_from(rng.below(20)).unwrap(),
        1 => 1,
        _ => 0,
    };
    let extreme = rng.below(80);
    let mut small = |n: u64| u8::try_from(rng.below(n)).unwrap();
    let span = ModelSpan {
        trace: small(TRACES),
        id: 1 + small(10),
        parent: if small(4) > 0 {
            Some(1 + small(10))
        } else {
            None
        },
        service: small(3),
        name: small(3),
        start: (today - days_ago) * DAY_NS + i64::from(small(20)) * 1_000,
        duration: i64::from(small(5)) * 100,
        error: small(4) == 0,
        tag: small(5),
    };
    match extreme {
        0 => ModelSpan {
            start: i64::MAX - 1000,
            ..span
        },
        1 => ModelSpan {
            start: i64::MIN + 1000,
            ..span
        },
        2 => ModelSpan {
            duration: 3 * DAY_NS,
            ..span
        },
        _ => span,
    }
}

pub fn push_span(batch: &mut WriteBatch<'_>, s: &ModelSpan) {
    let spans = batch.spans();
    let tags = s.tags(TagScope::Resource);
    let tags: Vec<_> = tags
        .iter()
        .map(|(key, value)| (*key, value.as_ref()))
        .collect();
    let resource = spans.resource(&ResourceFields {
        attributes: &tags,
        ..ResourceFields::default()
    });
    let resource = resource.unwrap();
    let tags = s.tags(TagScope::Scope);
    let tags: Vec<_> = tags
        .iter()
        .map(|(key, value)| (*key, value.as_ref()))
        .collect();
    let scope = spans.scope(&ScopeFields {
        name: &s.scope_name(),
        attributes: &tags,
        ..ScopeFields::default()
    });
    let mut writer = spans.span(resource, scope.unwrap());
    for (key, value) in s.tags(TagScope::Span) {
        writer.attribute(key, value.as_ref());
    }
    for (name, tags) in s.events() {
        writer.event(Timestamp::from_nanos(s.start), name, 0);
        for (key, value) in tags {
            writer.event_attribute(key, value.as_ref());
        }
    }
    for (trace, tags) in s.links() {
        writer.link(&LinkFields {
            trace_id: Some(trace_id(trace)),
            span_id: Some(span_id(1)),
            ..LinkFields::default()
        });
        for (key, value) in tags {
            writer.link_attribute(key, value.as_ref());
        }
    }
    let name = s.op_name();
    let message = s.status_message();
    let at = Timestamp::from_nanos;
    let mut fields = SpanFields::new(
        trace_id(s.trace),
        span_id(s.id),
        &name,
        at(s.start),
        at(s.end()),
    );
    fields.parent_span_id = s.parent.map(span_id);
    fields.kind = s.kind();
    fields.status = s.status();
    fields.status_message = &message;
    writer.finish(&fields).unwrap();
}

fn number(text: &str) -> u8 {
    text.rsplit('-').next().unwrap().parse().unwrap()
}

/// The span of the model that was written as this one; all it carries is checked.
pub fn read_back(span: &Span) -> ModelSpan {
    let attribute = |key: &str| {
        let mut found = span.attributes.iter().filter(|(k, _)| &**k == key);
        found.next().map(|(_, value)| value.to_string())
    };
    let read = ModelSpan {
        trace: span.trace_id.as_bytes()[15],
        id: span.span_id.as_bytes()[7],
        parent: span.parent_span_id.map(|p| p.as_bytes()[7]),
        service: number(span.service()),
        name: number(&span.name),
        start: span.start.as_nanos(),
        duration: span.end.as_nanos() - span.start.as_nanos(),
        error: span.status == StatusCode::Error,
        tag: attribute("tag").unwrap().parse().unwrap(),
    };
    let same = |found: &rootline_engine::Attributes, sent: Tags| {
        let found = found
            .iter()
            .map(|(key, value)| (key.to_string(), value.clone()));
        let sent = sent.into_iter().map(|(key, value)| (key.to_owned(), value));
        assert!(found.eq(sent), "{span:?}");
    };
    same(&span.attributes, read.tags(TagScope::Span));
    same(&span.resource.attributes, read.tags(TagScope::Resource));
    same(&span.scope.attributes, read.tags(TagScope::Scope));
    assert_eq!(span.scope.name, read.scope_name());
    assert_eq!((span.kind, span.status), (read.kind(), read.status()));
    assert_eq!(span.status_message, read.status_message());
    let (events, links) = (read.events(), read.links());
    assert_eq!(
        (span.events.len(), span.links.len()),
        (events.len(), links.len())
    );
    for (event, (name, tags)) in span.events.iter().zip(events) {
        assert_eq!((event.time, event.name.as_str()), (span.start, name));
        same(&event.attributes, tags);
    }
    for (link, (trace, tags)) in span.links.iter().zip(links) {
        assert_eq!(link.trace_id, Some(trace_id(trace)));
        assert_eq!(link.span_id, Some(span_id(1)));
        same(&link.attributes, tags);
    }
    read
}

/// A condition that the model understands.
#[derive(Clone, Debug)]
pub enum Condition {
    Service(StringMatch),
    Name(StringMatch),
    Kind(SpanKind),
    Status(StatusCode),
    Duration(u64, u64),
    Tag(&'static str, TagScope, StringMatch),
    Exists(&'static str, TagScope),
    EventName(StringMatch),
    ScopeName(StringMatch),
    StatusMessage(StringMatch),
}

/// Which spans.
#[derive(Clone, Debug)]
pub struct SpanPick {
    pub start: i64,
    pub end: i64,
    pub conditions: Vec<Condition>,
}

pub const SCOPES: [TagScope; 6] = [
    TagScope::Any,
    TagScope::Span,
    TagScope::Resource,
    TagScope::Event,
    TagScope::Link,
    TagScope::Scope,
];
pub const KEYS: [&str; 8] = [
    "tag",
    "mix",
    "user",
    "zone",
    "n",
    "why",
    "service.name",
    "none",
];

fn one_of<'a>(rng: &mut Rng, texts: &[&'a str]) -> &'a str {
    texts[usize::try_from(rng.below(texts.len() as u64)).unwrap()]
}

/// An operator, and a text or a pattern of which some match.
fn random_match(rng: &mut Rng, texts: &[&str], patterns: &[&str]) -> StringMatch {
    let value = one_of(rng, texts).to_owned();
    let pattern = one_of(rng, patterns).to_owned();
    let (op, operand) = match rng.below(6) {
        0 => (MatchOp::NotEqual, value),
        1 => (MatchOp::Regex, pattern),
        2 => (MatchOp::NotRegex, pattern),
        _ => (MatchOp::Equal, value),
    };
    StringMatch::new(op, &operand).unwrap()
}

fn random_condition(rng: &mut Rng) -> Condition {
    let services = ["service-0", "service-1", "service-2", "", "service-9"];
    let names = ["op-0", "op-1", "op-2", "op"];
    match rng.below(14) {
        0 | 1 => {
            let matches = random_match(rng, &services, &["service-[01]", ".*-2|", ".*"]);
            Condition::Service(matches)
        }
        2 => {
            let matches = random_match(rng, &names, &["op-.*", "op-[12]", "x.*"]);
            Condition::Name(matches)
        }
        3 => Condition::Kind(
            [SpanKind::Server, SpanKind::Client, SpanKind::Producer]
                [usize::try_from(rng.below(3)).unwrap()],
        ),
        4 => Condition::Status(
            [StatusCode::Unset, StatusCode::Ok, StatusCode::Error]
                [usize::try_from(rng.below(3)).unwrap()],
        ),
        5 => {
            let min = rng.below(5) * 100;
            Condition::Duration(min, min + rng.below(3) * 100)
        }
        6 => {
            let matches = random_match(rng, &["begun", "ended", "", "x"], &["b.*", ".*|", "ended"]);
            Condition::EventName(matches)
        }
        7 => {
            let matches = random_match(rng, &["lib-a", "lib-b", ""], &["lib.*", "(lib-a)?"]);
            Condition::ScopeName(matches)
        }
        8 => {
            let matches = random_match(rng, &["failed in 1", ""], &["failed.*", ".*2"]);
            Condition::StatusMessage(matches)
        }
        9 => Condition::Exists(one_of(rng, &KEYS), random_scope(rng)),
        _ => {
            let values = [
                "0",
                "1",
                "2",
                "1.5",
                "z0",
                "z1",
                "z9",
                "retry",
                "",
                "service-1",
                "user-1-1",
                "user-3-2",
            ];
            let patterns = ["z.*", "[12]", "1.*|", "user-[0-3]-.*", ".+", "service.*"];
            let matches = random_match(rng, &values, &patterns);
            Condition::Tag(one_of(rng, &KEYS), random_scope(rng), matches)
        }
    }
}

pub fn random_scope(rng: &mut Rng) -> TagScope {
    SCOPES[usize::try_from(rng.below(8)).unwrap() % 6]
}

pub fn random_span_pick(rng: &mut Rng, today: i64) -> SpanPick {
    let (start, end) = match rng.below(4) {
        0 => {
            let start = today * DAY_NS + i64::try_from(rng.below(20)).unwrap() * 1000;
            (start, start + i64::try_from(rng.below(20)).unwrap() * 1000)
        }
        1 => {
            let start = (today - i64::try_from(rng.below(20)).unwrap()) * DAY_NS;
            (
                start,
                start + i64::try_from(rng.below(10)).unwrap() * DAY_NS,
            )
        }
        _ => (i64::MIN, i64::MAX),
    };
    SpanPick {
        start,
        end,
        conditions: (0..rng.below(3)).map(|_| random_condition(rng)).collect(),
    }
}

fn any(texts: &[String], matcher: &StringMatch) -> bool {
    if texts.is_empty() {
        return matcher.matches("");
    }
    texts.iter().any(|text| matcher.matches(text))
}

impl SpanPick {
    pub fn filter(&self) -> SpanFilter {
        let at = Timestamp::from_nanos;
        let range = TimeRange::new(at(self.start), at(self.end)).unwrap();
        let conditions = self.conditions.iter().map(|condition| match condition {
            Condition::Service(matches) => SpanCondition::Service(matches.clone()),
            Condition::Name(matches) => SpanCondition::Name(matches.clone()),
            Condition::Kind(kind) => SpanCondition::Kind(*kind),
            Condition::Status(status) => SpanCondition::Status(*status),
            Condition::Duration(min, max) => SpanCondition::DurationNs {
                min: *min,
                max: *max,
            },
            Condition::Tag(key, of, matches) => SpanCondition::Tag {
                key: (*key).to_owned(),
                of: *of,
                matches: matches.clone(),
            },
            Condition::Exists(key, of) => SpanCondition::Exists {
                key: (*key).to_owned(),
                of: *of,
            },
            Condition::EventName(matches) => SpanCondition::EventName(matches.clone()),
            Condition::ScopeName(matches) => SpanCondition::ScopeName(matches.clone()),
            Condition::StatusMessage(matches) => SpanCondition::StatusMessage(matches.clone()),
        });
        conditions.fold(SpanFilter::in_range(range), SpanFilter::and)
    }

    pub fn takes(&self, span: &ModelSpan) -> bool {
        let values = |key: &str, of: TagScope| {
            let tags = span.tags(of).into_iter().filter(|(k, _)| *k == key);
            tags.map(|(_, value)| value.to_string()).collect::<Vec<_>>()
        };
        let holds = |condition: &Condition| match condition {
            Condition::Service(matches) => matches.matches(&span.service_name()),
            Condition::Name(matches) => matches.matches(&span.op_name()),
            Condition::Kind(kind) => span.kind() == *kind,
            Condition::Status(status) => span.status() == *status,
            Condition::Duration(min, max) => {
                (*min..=*max).contains(&u64::try_from(span.end() - span.start).unwrap())
            }
            Condition::Tag(key, of, matches) => any(&values(key, *of), matches),
            Condition::Exists(key, of) => !values(key, *of).is_empty(),
            Condition::EventName(matches) => {
                let names: Vec<_> = span.events().iter().map(|(n, _)| (*n).to_owned()).collect();
                any(&names, matches)
            }
            Condition::ScopeName(matches) => matches.matches(&span.scope_name()),
            Condition::StatusMessage(matches) => matches.matches(&span.status_message()),
        };
        (self.start..=self.end).contains(&span.start) && self.conditions.iter().all(holds)
    }
}

/// Traces all of whose spans ended before the floor.
pub fn expired(spans: &BTreeSet<ModelSpan>, floor_ns: i64) -> BTreeSet<u8> {
    let mut ends: BTreeMap<u8, i64> = BTreeMap::new();
    for span in spans {
        let end = ends.entry(span.trace).or_insert(i64::MIN);
        *end = (*end).max(span.end());
    }
    let old = ends.into_iter().filter(|(_, end)| *end < floor_ns);
    old.map(|(trace, _)| trace).collect()
}
