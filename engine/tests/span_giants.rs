//! Shapes that break span stores: huge traces, deep chains, wide stars, cycles, many spans under one
//! id, huge values and names, many services and keys. Each is asked in the head, replayed, sealed,
//! merged and reopened, on a small stack; work grows about as fast as the shape.
//!
//! Small forms run as they stand, `ROOTLINE_GIANTS_FULL=1` plays full sizes.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

#[path = "growth/files.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod files;
#[path = "span_giants/flood.rs"]
mod flood;
#[path = "span_giants/sent.rs"]
mod sent;

use rootline_engine::{
    Axis, EdgeFilter, EdgeGraph, Engine, SpanCondition, SpanFilter, SpanKind, StringMatch,
    TagScope, TimeRange, Timestamp, Value, ValueRef,
};
use sent::{
    Sent, control, count, everything, open, part_of, parts, trace_id, tree, write, write_with,
};

/// Whatever the shape, the work is done on so small a stack.
const STACK_BYTES: usize = 512 << 10;

/// A full size, or a small one.
fn size(full: u64, small: u64) -> u64 {
    if std::env::var_os("ROOTLINE_GIANTS_FULL").is_some() {
        full
    } else {
        small
    }
}

fn on_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(run).unwrap().join().unwrap();
}

/// Processor time of this thread; 0 where the system does not say.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or(0)
}

/// Calls `check` in every state that a store passes through after `write`. Returns the processor time
/// of it all.
fn in_every_state(
    write_all: impl Fn(&Engine) + Send + 'static,
    check: impl Fn(&Engine, &str) + Send + 'static,
) -> u64 {
    let (send, receive) = std::sync::mpsc::channel();
    on_small_stack(move || {
        let dir = tempfile::tempdir().unwrap();
        let begin = cpu_ns();
        let mut before = begin;
        let mut told = |what: &str| {
            let now = cpu_ns();
            println!("{what}: {} ms", (now - before) / 1_000_000);
            before = now;
        };
        let engine = open(dir.path());
        write_all(&engine);
        told("written");
        check(&engine, "head");
        told("asked");
        drop(engine);
        let engine = open(dir.path());
        told("replayed");
        check(&engine, "replayed");
        told("asked");
        engine.flush().unwrap();
        told("sealed");
        check(&engine, "sealed");
        told("asked");
        // Something for the block to be merged with.
        write(&engine, [Sent::new(u64::MAX, 1, 0)]);
        engine.flush().unwrap();
        engine.delete_trace(trace_id(u64::MAX)).unwrap();
        engine.compact().unwrap();
        engine.flush().unwrap();
        told("merged");
        check(&engine, "merged");
        engine.close().unwrap();
        drop(engine);
        let engine = open(dir.path());
        check(&engine, "reopened");
        assert_eq!(engine.stats().damage, []);
        told("asked twice");
        send.send(cpu_ns() - begin).unwrap();
    });
    receive.recv().unwrap()
}

/// Twice as much may take about twice as long.
fn is_about_linear(of: impl Fn(u64) -> u64, n: u64) {
    let (once, twice) = (of(n), of(2 * n));
    assert!(twice <= once.saturating_mul(4), "{once} ns, {twice} ns");
}

fn edges(engine: &Engine) -> EdgeGraph {
    let ctl = control(engine);
    let mut graph = EdgeGraph::new(0);
    for part in parts(engine) {
        part.add_edges(&EdgeFilter::calls_in(TimeRange::ALL), &ctl, &mut graph)
            .unwrap();
    }
    graph
}

/// What must hold of one trace of `spans` spans with one root, the first by start.
fn check_trace(engine: &Engine, trace: u64, spans: u64, depth_max: u64, state: &str) {
    let ctl = control(engine);
    let whole = engine.snapshot().unwrap().trace(trace_id(trace), &ctl);
    let whole = whole.unwrap().unwrap();
    assert_eq!(whole.spans.len() as u64, spans, "{state}");
    let roots = whole.parents.iter().filter(|parent| parent.is_none());
    assert_eq!(roots.count(), 1, "{state}");
    drop(whole);
    assert_eq!(count(engine, &everything()), spans, "{state}");
    let (part, number) = part_of(engine, trace);
    let summary = part.summary(number, &ctl).unwrap();
    assert_eq!(summary.spans, spans, "{state}");
    let rows = part.select(&everything(), &ctl).unwrap();
    let (mut depths, mut children, mut own) = (Vec::new(), Vec::new(), Vec::new());
    part.depths(&rows, &ctl, &mut depths).unwrap();
    part.child_counts(&rows, &ctl, &mut children).unwrap();
    part.own_times(&rows, &ctl, &mut own).unwrap();
    assert_eq!(
        u64::from(*depths.iter().max().unwrap()),
        depth_max,
        "{state}"
    );
    let children: u64 = children.iter().map(|count| u64::from(*count)).sum();
    assert_eq!(children, spans - 1, "{state}");
    assert_eq!(own.len() as u64, spans, "{state}");
    let of = |axis| {
        let root = rows.iter().zip(&depths).find(|(_, depth)| **depth == 0);
        let from = std::iter::once(root.unwrap().0).collect();
        part.relatives(&from, axis, &ctl).unwrap().len()
    };
    assert_eq!(
        (of(Axis::Descendant), of(Axis::Ancestor)),
        (spans - 1, 0),
        "{state}"
    );
    let deepest = rows.iter().zip(&depths);
    let deepest = deepest.max_by_key(|(_, depth)| **depth).unwrap().0;
    let from = std::iter::once(deepest).collect();
    let above = part.relatives(&from, Axis::Ancestor, &ctl).unwrap();
    assert_eq!(above.len(), depth_max, "{state}");
    for axis in [Axis::Child, Axis::Parent, Axis::Descendant, Axis::Ancestor] {
        let related = part.relatives(&rows, axis, &ctl).unwrap().len();
        assert!(
            related > 0 && related < spans,
            "{state}: {axis:?} {related}"
        );
    }
    part.relatives(&rows, Axis::Sibling, &ctl).unwrap();
    let newest = part.newest_traces(&everything(), None, 20, &ctl).unwrap();
    assert_eq!((newest.len(), newest[0].matched), (1, spans), "{state}");
    assert_eq!(edges(engine).calls(), 0, "{state}");
}

fn tree_depth(spans: u64) -> u64 {
    let mut depth = 0;
    let mut last = spans - 1;
    while last > 0 {
        last = (last - 1) / 10;
        depth += 1;
    }
    depth
}

fn a_tree(spans: u64) -> u64 {
    in_every_state(
        move |engine| write(engine, tree(1, 0..spans)),
        move |engine, state| check_trace(engine, 1, spans, tree_depth(spans), state),
    )
}

#[test]
fn a_huge_trace_is_one_trace() {
    is_about_linear(a_tree, size(500_000, 3_000));
}

/// Children come first, so that every parent is found late.
#[test]
fn a_huge_trace_that_comes_backwards_is_one_trace() {
    let spans = size(1_000_000, 4_000);
    in_every_state(
        move |engine| {
            let mut all: Vec<Sent> = tree(1, 0..spans).collect();
            all.reverse();
            write(engine, all);
        },
        move |engine, state| check_trace(engine, 1, spans, tree_depth(spans), state),
    );
}

#[test]
fn a_huge_trace_over_several_generations_with_a_late_span_is_one_trace() {
    let spans = size(1_000_000, 8_000);
    in_every_state(
        move |engine| {
            for fifth in 0..5 {
                write(engine, tree(1, fifth * spans / 5..(fifth + 1) * spans / 5));
                engine.flush().unwrap();
            }
            write(engine, [Sent::new(1, spans + 1, 1)]);
        },
        move |engine, state| check_trace(engine, 1, spans + 1, tree_depth(spans), state),
    );
}

fn a_chain(spans: u64) -> u64 {
    in_every_state(
        move |engine| write(engine, (0..spans).map(|i| Sent::new(1, i + 1, i))),
        move |engine, state| check_trace(engine, 1, spans, spans - 1, state),
    )
}

#[test]
fn a_deep_chain_is_followed_to_its_end() {
    is_about_linear(a_chain, size(50_000, 3_000));
}

fn a_star(spans: u64) -> u64 {
    in_every_state(
        move |engine| write(engine, (0..spans).map(|i| Sent::new(1, i + 1, i.min(1)))),
        move |engine, state| check_trace(engine, 1, spans, 1, state),
    )
}

#[test]
fn a_wide_star_has_all_its_children() {
    is_about_linear(a_star, size(50_000, 3_000));
}

/// Cut at the first: a chain.
fn a_ring(spans: u64) -> u64 {
    in_every_state(
        move |engine| {
            let sent = (0..spans).map(|i| Sent::new(1, i + 1, if i == 0 { spans } else { i }));
            write(engine, sent);
        },
        move |engine, state| check_trace(engine, 1, spans, spans - 1, state),
    )
}

#[test]
fn a_wide_cycle_is_cut_once() {
    is_about_linear(a_ring, size(50_000, 3_000));
}

/// Spans that name each other or themselves, in one trace and in many.
#[test]
fn many_small_cycles_are_cut_each() {
    let pairs = size(100_000, 1_000);
    in_every_state(
        move |engine| {
            let pair = |i: u64| {
                let (a, b) = (2 * i + 1, 2 * i + 2);
                let own = Sent::new(2, i + 1, i + 1);
                [Sent::new(1, a, b), Sent::new(1, b, a), own]
            };
            write(engine, (0..pairs).flat_map(pair));
        },
        move |engine, state| {
            let ctl = control(engine);
            for (trace, roots) in [(1, pairs), (2, pairs)] {
                let snapshot = engine.snapshot().unwrap();
                let whole = snapshot.trace(trace_id(trace), &ctl).unwrap().unwrap();
                let found = whole.parents.iter().filter(|parent| parent.is_none());
                assert_eq!(found.count() as u64, roots, "{state}: {trace}");
            }
        },
    );
}

/// Spans of one id, all different, and as many children of that id.
fn twins(spans: u64) -> u64 {
    in_every_state(
        move |engine| {
            let twin = |i: u64| Sent {
                start_ns: 5_000 + i.cast_signed(),
                ..Sent::new(1, 7, 0)
            };
            let child = |i: u64| Sent::new(1, 100 + i, 7);
            write(engine, (0..spans).flat_map(|i| [child(i), twin(i)]));
        },
        move |engine, state| {
            let ctl = control(engine);
            let whole = engine.snapshot().unwrap().trace(trace_id(1), &ctl);
            let whole = whole.unwrap().unwrap();
            assert_eq!(whole.spans.len() as u64, 2 * spans, "{state}");
            for (span, parent) in whole.spans.iter().zip(&whole.parents) {
                let first = span.parent_span_id.map(|_| 0);
                assert_eq!(*parent, first, "{state}");
            }
            let (part, _) = part_of(engine, 1);
            let rows = part.select(&everything(), &ctl).unwrap();
            let below = part.relatives(&rows, Axis::Child, &ctl).unwrap();
            assert_eq!(below.len(), spans, "{state}");
            let mut children = Vec::new();
            part.child_counts(&rows, &ctl, &mut children).unwrap();
            assert_eq!(
                children.iter().copied().max(),
                u32::try_from(spans).ok(),
                "{state}"
            );
        },
    )
}

#[test]
fn many_spans_under_one_id_share_their_children_by_the_rule() {
    is_about_linear(twins, size(20_000, 1_000));
}

fn tag(key: &str, value: &str) -> SpanFilter {
    everything().and(SpanCondition::Tag {
        key: key.to_owned(),
        of: TagScope::Span,
        matches: StringMatch::equal(value),
    })
}

#[test]
fn a_span_with_many_attributes_keeps_them_in_order() {
    let keys = size(10_000, 2_000);
    in_every_state(
        move |engine| {
            write_with(
                engine,
                [Sent::new(1, 1, 0), Sent::new(1, 2, 1)],
                |_, writer| {
                    for key in 0..keys {
                        writer.attribute(&format!("k{key}"), ValueRef::Int(key.cast_signed()));
                        writer.attribute("again", ValueRef::Int(key.cast_signed()));
                    }
                },
            );
        },
        move |engine, state| {
            let ctl = control(engine);
            let snapshot = engine.snapshot().unwrap();
            let whole = snapshot.trace(trace_id(1), &ctl).unwrap().unwrap();
            for span in &whole.spans {
                assert_eq!(span.attributes.len() as u64, 2 * keys, "{state}");
                let last = &span.attributes[2 * keys as usize - 2].0;
                assert_eq!(**last, format!("k{}", keys - 1), "{state}");
            }
            let last = (keys - 1).to_string();
            assert_eq!(
                count(engine, &tag(&format!("k{last}"), &last)),
                2,
                "{state}"
            );
            assert_eq!(count(engine, &tag("again", &last)), 2, "{state}");
        },
    );
}

fn services(services: u64) -> u64 {
    in_every_state(
        move |engine| {
            let call = |i: u64| {
                let mut caller = Sent::new(i, 1, 0);
                let mut called = Sent::new(i, 2, 1);
                caller.kind = SpanKind::Client;
                called.kind = SpanKind::Server;
                caller.service = format!("service-{i}");
                called.service = format!("service-{}", (i + 1) % services);
                [caller, called]
            };
            write(engine, (0..services).flat_map(call));
        },
        move |engine, state| {
            let ctl = control(engine);
            let snapshot = engine.snapshot().unwrap();
            let found = snapshot.services(TimeRange::ALL, &ctl).unwrap();
            assert_eq!(found.len() as u64, services, "{state}");
            let graph = edges(engine);
            assert_eq!(graph.len() as u64, services, "{state}");
            let one = everything().and(SpanCondition::Service(StringMatch::equal("service-77")));
            assert_eq!(count(engine, &one), 2, "{state}");
        },
    )
}

#[test]
fn every_one_of_many_services_is_found() {
    is_about_linear(services, size(50_000, 1_000));
}

#[test]
fn every_one_of_many_keys_is_found() {
    let keys = size(100_000, 3_000);
    in_every_state(
        move |engine| {
            let spans = (0..keys).map(|i| Sent::new(i / 10, i + 1, 0));
            write_with(engine, spans, |sent, writer| {
                writer.attribute(&format!("key-{}", sent.span - 1), ValueRef::Bool(true));
            });
        },
        move |engine, state| {
            for key in [0, keys / 2, keys - 1] {
                let found = count(engine, &tag(&format!("key-{key}"), "true"));
                assert_eq!(found, 1, "{state}: {key}");
                let exists = everything().and(SpanCondition::Exists {
                    key: format!("key-{key}"),
                    of: TagScope::Span,
                });
                assert_eq!(count(engine, &exists), 1, "{state}: {key}");
            }
        },
    );
}

#[test]
fn a_span_with_many_events_keeps_them() {
    let events = size(100_000, 5_000);
    in_every_state(
        move |engine| {
            write_with(engine, [Sent::new(1, 1, 0)], |_, writer| {
                for i in 0..events {
                    let at = Timestamp::from_nanos(1_000_000 + i.cast_signed());
                    writer.event(at, &format!("event-{}", i % 7), 0);
                    writer.event_attribute("number", ValueRef::Int(i.cast_signed()));
                }
            });
        },
        move |engine, state| {
            let ctl = control(engine);
            let snapshot = engine.snapshot().unwrap();
            let whole = snapshot.trace(trace_id(1), &ctl).unwrap().unwrap();
            let found = &whole.spans[0].events;
            assert_eq!(found.len() as u64, events, "{state}");
            for (i, event) in found.iter().enumerate() {
                let number = &event.attributes[0].1;
                assert_eq!(*number, Value::Int(i as i64), "{state}: {i}");
            }
            let named = everything().and(SpanCondition::EventName(StringMatch::equal("event-6")));
            assert_eq!(count(engine, &named), 1, "{state}");
            let valued = everything().and(SpanCondition::Tag {
                key: "number".to_owned(),
                of: TagScope::Event,
                matches: StringMatch::equal(&(events - 1).to_string()),
            });
            assert_eq!(count(engine, &valued), 1, "{state}");
        },
    );
}

/// Values of a MiB, each different, names and keys of 64 KiB.
#[test]
fn huge_values_and_names_come_back() {
    let value = |i: u64| format!("{i}-").repeat((1 << 20) / format!("{i}-").len());
    let long = |what: &str, i: u64| format!("{what}{i}").repeat((64 << 10) / what.len());
    let values = size(50, 4);
    in_every_state(
        move |engine| {
            let spans = (1..=values).map(|i| Sent {
                name: long("name", i),
                service: long("service", i),
                ..Sent::new(i, 1, 0)
            });
            write_with(engine, spans, |sent, writer| {
                let text = value(sent.trace);
                writer.attribute("text", ValueRef::Str(&text));
                writer.attribute("bytes", ValueRef::Bytes(text.as_bytes()));
                writer.attribute(&long("key", sent.trace), ValueRef::Bool(true));
                writer.event(Timestamp::from_nanos(1), &text, 0);
                writer.event_attribute("text", ValueRef::Str(&text));
            });
        },
        move |engine, state| {
            let ctl = control(engine);
            for i in 1..=values {
                let snapshot = engine.snapshot().unwrap();
                let whole = snapshot.trace(trace_id(i), &ctl).unwrap().unwrap();
                let span = &whole.spans[0];
                assert!(*span.name == long("name", i), "{state}");
                assert!(span.service() == long("service", i), "{state}");
                assert!(span.attributes[0].1.as_str() == Some(&value(i)), "{state}");
                let bytes = Value::Bytes(value(i).into_bytes());
                assert!(span.attributes[1].1 == bytes, "{state}");
                assert!(*span.attributes[2].0 == long("key", i), "{state}");
                assert!(span.events[0].name == value(i), "{state}");
                assert!(
                    span.events[0].attributes[0].1.as_str() == Some(&value(i)),
                    "{state}"
                );
                assert_eq!(count(engine, &tag("text", &value(i))), 1, "{state}");
                assert_eq!(count(engine, &tag(&long("key", i), "true")), 1, "{state}");
                let named =
                    everything().and(SpanCondition::Name(StringMatch::equal(&long("name", i))));
                assert_eq!(count(engine, &named), 1, "{state}");
            }
        },
    );
}
