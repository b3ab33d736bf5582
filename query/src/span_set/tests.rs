//! The promise guarded here: what is written reads back as the same set, whatever is typed is read or
//! refused with its place, and no expression is deeper or larger than the bounds.

use proptest::prelude::*;
use rootline_engine::{
    Axis, ErrorKind, MatchOp, SpanCondition, SpanKind, StatusCode, StringMatch, TagScope,
};

use super::*;

fn parsed(text: &str) -> String {
    SpanSet::parse(text).unwrap().to_string()
}

fn fault(text: &str) -> SpanSetError {
    match SpanSet::parse(text) {
        Err(Error::SpanSet(error)) => error,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn conditions_are_written_in_one_way() {
    for (text, written) in [
        ("{}", "{}"),
        (
            r#"{ service = "cart" , status=error kind='server' }"#,
            r#"{service="cart", status=error, kind=server}"#,
        ),
        ("{service=cart}", r#"{service="cart"}"#),
        (
            "{name=~`GET /.*`, message!=\"\"}",
            r#"{name=~"GET /.*", message!=""}"#,
        ),
        (
            "{http.status_code=500 user.id}",
            r#"{http.status_code="500", user.id}"#,
        ),
        (
            r#"{span.service=a,resource."odd key"!~"b", event.x, link.y=1 scope.z}"#,
            r#"{span.service="a", resource."odd key"!~"b", event.x, link.y="1", scope.z}"#,
        ),
        (
            r#"{event="exception" scope=lib "service"="x" "span.x"=1}"#,
            r#"{event="exception", scope="lib", "service"="x", "span.x"="1"}"#,
        ),
        ("{duration>100ms}{", ""),
        ("{duration>=1.5s}", "{duration>=1500ms}"),
        ("{duration<1us}", "{duration<=999ns}"),
        ("{duration=2m..1h}", "{duration=120s..3600s}"),
        ("{duration = 0}", "{duration=0s}"),
    ] {
        if written.is_empty() {
            assert!(SpanSet::parse(text).is_err());
        } else {
            assert_eq!(parsed(text), written);
        }
    }
}

#[test]
fn the_examples_of_the_page_are_read() {
    let page = include_str!("../../../docs/api/span-sets.md");
    let examples = page.split("```").nth(1).unwrap();
    let lines: Vec<&str> = examples.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 4);
    for line in lines {
        let set = SpanSet::parse(line).unwrap();
        assert_eq!(parsed(&set.to_string()), set.to_string(), "{line}");
    }
}

#[test]
fn operators_bind_as_documented() {
    for (text, written) in [
        ("{a} or {b} and {c}", "{a} or ({b} and {c})"),
        (
            "{a} and {b} minus {c} and {d}",
            "(({a} and {b}) minus {c}) and {d}",
        ),
        ("({a} and {b}) and {c}", "({a} and {b}) and {c}"),
        ("{a} and {b} and {c}", "{a} and {b} and {c}"),
        (
            "{a} with child {b} without any {c} having depth=0",
            "{a} with child {b} without any {c} having depth = 0",
        ),
        (
            "{a} with descendant ({b} with parent {c})",
            "{a} with descendant ({b} with parent {c})",
        ),
        (
            "{a} minus {b} with child {c}",
            "{a} minus {b} with child {c}",
        ),
        (
            "({a} minus {b}) having own > 50ms having children>=3",
            "({a} minus {b}) having own >= 50000001ns having children >= 3",
        ),
    ] {
        assert_eq!(parsed(text), written);
        assert_eq!(parsed(written), written);
    }
}

#[test]
fn faults_are_named_and_pointed_at() {
    for (text, reason, character) in [
        ("", "conditions in `{`", 1),
        ("{", "not closed", 2),
        ("{a", "not closed", 3),
        ("{a=}", "a value after `a=`", 4),
        ("{service}", "after `service`", 9),
        ("{a and b}", "between conditions", 4),
        ("{kind=postman}", "`kind` is one of", 7),
        ("{kind!=server}", "takes `=`", 6),
        ("{duration>5}", "a time with its unit", 11),
        ("{duration>0.5ns}", "a time with its unit", 11),
        ("{duration=5s..1s}", "no number", 10),
        ("{duration<0s}", "no number", 10),
        ("{a>5}", "after `a`", 3),
        ("{span.}", "key after `span.`", 7),
        ("{a} {b}", "expected `with`", 5),
        ("{a} with {b}", "expected `child`", 10),
        ("{a} having width=1", "expected `duration`", 12),
        ("{a} having depth=1s", "a whole number", 18),
        ("({a}", "expected `)`", 5),
        ("{a})", "without a `(`", 4),
        ("{a} and", "conditions in `{`", 8),
        ("{a=\"b}", "quote is not closed", 4),
    ] {
        let error = fault(text);
        assert!(error.reason.contains(reason), "{text}: {error}");
        assert_eq!(error.character, character, "{text}: {error}");
    }
    let error = fault("{service cart}");
    assert_eq!(error.pointer(), "{service cart}\n         ^");
    assert!(SpanSet::parse("{a=~\"(\"}").is_err());
}

#[test]
fn depth_size_and_patterns_are_bounded() {
    let open = "(".repeat(5_000);
    assert!(fault(&open).reason.contains("64 parentheses"));
    let chain = format!("{{}}{}", " with child {}".repeat(SPAN_SET_DEPTH_MAX));
    assert!(fault(&chain).reason.contains("deeper than 64"));
    let chain = format!("{{}}{}", " with child {}".repeat(SPAN_SET_DEPTH_MAX - 1));
    SpanSet::parse(&chain).unwrap().check().unwrap();
    let wide = format!("{{}}{}", " or {}".repeat(SPAN_SET_NODES_MAX));
    assert!(fault(&wide).reason.contains("1000 sets"));
    let patterns = "a=~\"x.\" ".repeat(PATTERNS_MAX + 1);
    assert!(
        fault(&format!("{{{patterns}}}"))
            .reason
            .contains("16 patterns")
    );

    let deep =
        (0..SPAN_SET_DEPTH_MAX).fold(SpanSet::all(), |set, _| set.having(SpanFigure::Depth, 0, 1));
    let error = deep.check().unwrap_err();
    assert!(matches!(error, Error::SpanSetTooDeep { .. }));
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let wide = SpanSet::Or(vec![SpanSet::all(); SPAN_SET_NODES_MAX]);
    assert!(matches!(wide.check(), Err(Error::SpanSetTooLarge { .. })));
    let nothing = SpanSet::all().having(SpanFigure::Own, 2, 1);
    assert!(matches!(
        nothing.check(),
        Err(Error::EmptyFigureRange { .. })
    ));
}

#[test]
fn empty_and_single_joins_are_written_as_what_they_mean() {
    assert_eq!(SpanSet::And(Vec::new()).to_string(), "{}");
    assert_eq!(SpanSet::Or(Vec::new()).to_string(), "{} minus {}");
    let one = SpanSet::And(vec![SpanSet::parse("{a}").unwrap()]);
    assert_eq!(one.to_string(), "{a}");
}

fn any_text() -> impl Strategy<Value = StringMatch> {
    let op = prop_oneof![Just(MatchOp::Equal), Just(MatchOp::NotEqual)];
    (op, ".{0,6}").prop_map(|(op, value)| StringMatch::new(op, &value).unwrap())
}

fn any_bounds() -> impl Strategy<Value = (u64, u64)> {
    let end = prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0u64..5_000_000_000];
    (end.clone(), end).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

fn any_scope() -> impl Strategy<Value = TagScope> {
    prop_oneof![
        Just(TagScope::Any),
        Just(TagScope::Span),
        Just(TagScope::Resource),
        Just(TagScope::Event),
        Just(TagScope::Link),
        Just(TagScope::Scope),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_.]{0,8}",
        ".{0,5}",
        Just("service".to_owned()),
        Just("span.x".to_owned()),
        Just("and".to_owned()),
    ]
}

fn any_condition() -> impl Strategy<Value = SpanCondition> {
    let kind = (0..6).prop_map(|n| SpanCondition::Kind(SpanKind::from_number(n).unwrap()));
    let status = (0..3).prop_map(|n| SpanCondition::Status(StatusCode::from_number(n).unwrap()));
    prop_oneof![
        any_text().prop_map(SpanCondition::Service),
        any_text().prop_map(SpanCondition::Name),
        any_text().prop_map(SpanCondition::EventName),
        any_text().prop_map(SpanCondition::ScopeName),
        any_text().prop_map(SpanCondition::StatusMessage),
        kind,
        status,
        any_bounds().prop_map(|(min, max)| SpanCondition::DurationNs { min, max }),
        (any_key(), any_scope(), any_text()).prop_map(|(key, of, matches)| SpanCondition::Tag {
            key,
            of,
            matches
        }),
        (any_key(), any_scope()).prop_map(|(key, of)| SpanCondition::Exists { key, of }),
    ]
}

fn any_set() -> impl Strategy<Value = SpanSet> {
    let leaf = prop::collection::vec(any_condition(), 0..4).prop_map(SpanSet::Where);
    leaf.prop_recursive(5, 24, 3, |inner| {
        let axis = prop_oneof![
            Just(Axis::Child),
            Just(Axis::Parent),
            Just(Axis::Descendant),
            Just(Axis::Ancestor),
            Just(Axis::Sibling),
        ];
        let figure = prop_oneof![
            Just(SpanFigure::Duration),
            Just(SpanFigure::Own),
            Just(SpanFigure::Depth),
            Just(SpanFigure::Children),
        ];
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            (boxed(), axis, boxed(), any::<bool>()).prop_map(|(among, axis, of, negated)| {
                SpanSet::Relative {
                    among,
                    axis,
                    of,
                    negated,
                }
            }),
            (boxed(), boxed(), any::<bool>())
                .prop_map(|(among, of, negated)| SpanSet::InSameTrace { among, of, negated }),
            prop::collection::vec(inner.clone(), 2..4).prop_map(SpanSet::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(SpanSet::Or),
            (boxed(), boxed()).prop_map(|(a, b)| SpanSet::Minus(a, b)),
            (inner.clone(), figure, any_bounds())
                .prop_map(|(set, figure, (min, max))| set.having(figure, min, max)),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(set in any_set()) {
        let text = set.to_string();
        let read = SpanSet::parse(&text);
        let read = read.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(format!("{:?}", read), format!("{:?}", set), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}") {
        if let Err(Error::SpanSet(error)) = SpanSet::parse(&text) {
            prop_assert!(error.character <= text.chars().count() + 1);
        }
    }

    #[test]
    fn words_of_the_language_in_any_order_are_read_or_refused(
        words in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "(", ")", "with", "without", "child", "any", "having", "own", "depth", "and", "or",
            "minus", "service", "=", ">", "..", "5ms", "1", "a", "\"x\"", ",", "span.", "kind", "server",
        ]), 0..14),
    ) {
        if let Ok(set) = SpanSet::parse(&words.join(" ")) {
            prop_assert_eq!(parsed(&set.to_string()), set.to_string());
        }
    }
}
