//! Sizes and times on recorded OTLP bodies, for people: `ROOTLINE_OTLP_BODIES` names a file of magic (8 bytes)
//! and, for each body, its length (4), its spans (4) and an `ExportTraceServiceRequest`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests"
)]

use std::{collections::HashMap, sync::Arc, time::Duration};

use rootline_wal::{Clock, SystemClock};

use super::{writer::write_table, *};
use crate::{
    control::{QueryControl, QueryLimits},
    span::block::column::ColumnSource,
    value::ValueRef,
    varint::{take_slice, take_u64},
};

#[derive(Debug)]
struct Given(Vec<u32>);

impl ItemClasses for Given {
    fn class_group(&self, group: u32, out: &mut Vec<u32>) -> Result<(), Error> {
        out.clear();
        let of_group = self.0.chunks(GROUP_ITEMS as usize).nth(group as usize);
        out.extend_from_slice(of_group.unwrap_or_default());
        Ok(())
    }
}

struct Row {
    trace: [u8; 16],
    start: u64,
    class: u32,
    tags: Vec<u32>,
}

#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    attributes: LooseAttributes,
    keys: HashMap<Vec<u8>, u32>,
    pairs: HashMap<(u8, Vec<u8>), u32>,
    classes: HashMap<Vec<u8>, u32>,
}

/// Fields of a message: number, and bytes or a number in place of them.
fn fields(mut message: &[u8], mut each: impl FnMut(u64, &[u8], u64)) {
    while !message.is_empty() {
        let tag = take_u64(&mut message).unwrap();
        match tag & 7 {
            0 => each(tag >> 3, &[], take_u64(&mut message).unwrap()),
            1 => {
                let number = take_slice(&mut message, 8).unwrap();
                each(
                    tag >> 3,
                    &[],
                    u64::from_le_bytes(number.try_into().unwrap()),
                );
            }
            2 => {
                let length = take_u64(&mut message).unwrap();
                each(
                    tag >> 3,
                    take_slice(&mut message, length as usize).unwrap(),
                    0,
                );
            }
            5 => {
                take_slice(&mut message, 4).unwrap();
            }
            other => panic!("wire type {other}"),
        }
    }
}

impl Rows {
    fn body(&mut self, body: &[u8]) {
        fields(body, |_, resource_spans, _| {
            let mut resource = Vec::new();
            fields(resource_spans, |field, bytes, _| match field {
                1 => resource = bytes.to_vec(),
                2 => fields(bytes, |field, span, _| {
                    if field == 2 {
                        self.span(&resource, span);
                    }
                }),
                _ => {}
            });
        });
    }

    fn span(&mut self, resource: &[u8], span: &[u8]) {
        let mut row = Row {
            trace: [0; 16],
            start: 0,
            class: 0,
            tags: Vec::new(),
        };
        let mut class = resource.to_vec();
        let mut pairs = Vec::new();
        fields(span, |field, bytes, number| match field {
            1 => row.trace.copy_from_slice(bytes),
            5 => class.extend_from_slice(bytes),
            6 => class.push(number as u8),
            7 => row.start = number,
            9 => pairs.push(bytes.to_vec()),
            15 => fields(bytes, |field, _, code| {
                if field == 3 {
                    class.push(code as u8);
                }
            }),
            _ => {}
        });
        // Shards number their pairs each for itself.
        let shard = row.trace[15] % 8;
        for pair in pairs {
            let next = self.pairs.len() as u32;
            let number = *self.pairs.entry((shard, pair.clone())).or_insert(next);
            if number == next {
                let (mut key, mut encoded) = (Vec::new(), Vec::new());
                fields(&pair, |field, bytes, _| match field {
                    1 => key = bytes.to_vec(),
                    _ => fields(bytes, |field, bytes, number| {
                        let value = match field {
                            1 => ValueRef::Str(std::str::from_utf8(bytes).unwrap()),
                            2 => ValueRef::Bool(number != 0),
                            3 => ValueRef::Int(number.cast_signed()),
                            4 => ValueRef::Double(f64::from_bits(number)),
                            _ => ValueRef::Empty,
                        };
                        value.encode(&mut encoded).unwrap();
                    }),
                });
                let next_key = self.keys.len() as u32;
                let of_key = *self.keys.entry(key.clone()).or_insert(next_key);
                if of_key == next_key {
                    let text = String::from_utf8(key).unwrap();
                    self.attributes.keys.push(Arc::from(text));
                }
                self.attributes.values.push(of_key, &encoded).unwrap();
            }
            row.tags.push(number);
        }
        let next = self.classes.len() as u32;
        row.class = *self.classes.entry(class).or_insert(next);
        self.rows.push(row);
    }
}

/// Rows in the order of traces, with their classes and traces.
fn read(path: &str) -> (LooseAttributes, Vec<u32>, Vec<u32>) {
    let file = std::fs::read(path).unwrap();
    let mut rest = &file[8..];
    let mut rows = Rows::default();
    let max = std::env::var("ROOTLINE_SPANS").map_or(usize::MAX, |max| max.parse().unwrap());
    while !rest.is_empty() && rows.rows.len() < max {
        let header = take_slice(&mut rest, 8).unwrap();
        let length = u32::from_le_bytes(header[..4].try_into().unwrap());
        rows.body(take_slice(&mut rest, length as usize).unwrap());
    }
    let mut traces: HashMap<[u8; 16], u64> = HashMap::new();
    for row in &rows.rows {
        let start = traces.entry(row.trace).or_insert(row.start);
        *start = row.start.min(*start);
    }
    rows.rows
        .sort_by_key(|row| (traces[&row.trace], row.trace, row.start));
    let mut attributes = rows.attributes;
    let (mut class_of, mut owner_of) = (Vec::new(), Vec::new());
    let mut before = [0; 16];
    let mut owner = 0;
    for row in rows.rows {
        owner += u32::from(row.trace != before);
        before = row.trace;
        class_of.push(row.class);
        owner_of.push(owner);
        attributes.push_tags(row.tags);
    }
    (attributes, class_of, owner_of)
}

fn write(
    sources: &[AttributeSource<'_>],
    runs: &[ItemRun],
    class_of: &[u32],
    owner_of: &[u32],
) -> (AttributeTable, usize) {
    let context = ItemContext { class_of, owner_of };
    let mut section = Vec::new();
    let sink = &mut |item: &[u8]| {
        let at = section.len() as u64;
        section.extend_from_slice(item);
        Ok(at)
    };
    let limits = &Limits::STANDARD;
    let head = write_table(sink, sources, runs, &context, limits, &mut || Ok(())).unwrap();
    let bytes = section.len();
    let source = ColumnSource::Bytes(Arc::from(section));
    let classes = Arc::new(Given(class_of.to_vec()));
    let table = AttributeTable::from_source(source, &head, classes).unwrap();
    (table, bytes)
}

fn per(time: Duration, items: usize) -> f64 {
    time.as_secs_f64() * 1e9 / items as f64
}

#[test]
#[ignore = "for people: needs a file of recorded bodies"]
fn sizes_and_times_of_recorded_spans() {
    let path = std::env::var("ROOTLINE_OTLP_BODIES").unwrap();
    let clock = SystemClock::new();
    let (loose, class_of, owner_of) = read(&path);
    let items = class_of.len();
    println!(
        "{items} spans, {} attributes, {} pairs, {} classes",
        loose.tags.len(),
        loose.values.len(),
        class_of.iter().max().unwrap() + 1
    );
    let all = ItemRun {
        source: 0,
        first: 0,
        items: items as u32,
    };
    let from = clock.monotonic();
    let (table, bytes) = write(
        &[AttributeSource::Loose(&loose)],
        &[all],
        &class_of,
        &owner_of,
    );
    let took = clock.monotonic() - from;
    println!(
        "sealed: {:.2} B and {:.0} ns a span",
        bytes as f64 / items as f64,
        per(took, items)
    );
    table.describe(&mut |line| println!("  {line}")).unwrap();

    // Halves that are merged in runs of 40.
    let half: Vec<u32> = (0..items).map(|item| (item / 40 % 2) as u32).collect();
    let mut halves = Vec::new();
    for number in 0..2 {
        let of_half = |all: &[u32]| -> Vec<u32> {
            let of_half = all.iter().zip(&half).filter(|(_, of)| **of == number);
            of_half.map(|(value, _)| *value).collect()
        };
        let runs: Vec<ItemRun> = (0..items.div_ceil(40))
            .filter(|run| (run % 2) as u32 == number)
            .map(|run| ItemRun {
                source: 0,
                first: run as u32 * 40,
                items: 40.min(items - run * 40) as u32,
            })
            .collect();
        let source = AttributeSource::Loose(&loose);
        halves.push(write(
            &[source],
            &runs,
            &of_half(&class_of),
            &of_half(&owner_of),
        ));
    }
    let runs: Vec<ItemRun> = (0..items.div_ceil(40))
        .map(|run| ItemRun {
            source: (run % 2) as u32,
            first: (run / 2) as u32 * 40,
            items: 40.min(items - run * 40) as u32,
        })
        .collect();
    let sources: Vec<AttributeSource<'_>> = (halves.iter())
        .map(|(table, _)| AttributeSource::Table(table))
        .collect();
    let from = clock.monotonic();
    let (merged, bytes) = write(&sources, &runs, &class_of, &owner_of);
    let took = clock.monotonic() - from;
    println!(
        "merged: {:.2} B and {:.0} ns a span",
        bytes as f64 / items as f64,
        per(took, items)
    );

    let ctl = QueryControl::new(Arc::new(SystemClock::new()), None, QueryLimits::default());
    for (key, text) in [
        ("user.id", "u0"),
        ("http.status_code", "500"),
        ("http.method", "GET"),
        ("thread.id", "7"),
        ("http.status_code", "200"),
    ] {
        let mut first = None;
        let hidden = roaring::RoaringBitmap::new();
        merged
            .value_counts(key, &hidden, &ctl, &mut |value, _| {
                let mut scratch = String::new();
                first.get_or_insert(crate::value::display(value, &mut scratch).to_owned());
                Ok(())
            })
            .unwrap();
        let text = if key == "user.id" {
            first.unwrap_or_default()
        } else {
            text.to_owned()
        };
        for _ in 0..2 {
            let from = clock.monotonic();
            let test = |shown: &str| shown == text;
            let found = merged.select(key, &test, Some(&text), None, &ctl).unwrap();
            let took = clock.monotonic() - from;
            println!("{key} = {text}: {} in {took:?}", found.len());
        }
    }
    let from = clock.monotonic();
    let mut cursor = AttributeCursor::default();
    let mut out = Vec::new();
    for item in items as u32 / 2..items as u32 / 2 + 28 {
        merged.attributes(item, &mut cursor, &mut out).unwrap();
    }
    println!(
        "28 spans, {} attributes: {:?}",
        out.len(),
        clock.monotonic() - from
    );
    let from = clock.monotonic();
    let rows: roaring::RoaringBitmap = (0..items as u32).step_by(7).collect();
    let values = merged.values_of(&rows, "http.status_code", &ctl).unwrap();
    println!(
        "values of {}: {} distinct, {:?}",
        rows.len(),
        values.values.len(),
        clock.monotonic() - from
    );
}
