//! What real columns take, and how fast they are: run by hand, on a file of export requests.
//!
//! `ROOTLINE_SPANS=FILE cargo test -p rootline-engine --lib column_measure -- --ignored --nocapture`
//!
//! The file: eight bytes, then for each body its length and its number of spans (`u32`, little-endian) and an
//! `ExportTraceServiceRequest`. The table is that of `docs/decisions/0014-columns-of-attributes.md`.
#![allow(
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    clippy::single_match_else,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measurement"
)]

use std::{collections::HashMap, time::Instant};

use super::{tests::Given, *};
use crate::varint;

/// The fields of a message: number, varint or fixed value, bytes.
fn fields(mut bytes: &[u8], mut each: impl FnMut(u64, u64, &[u8])) {
    while !bytes.is_empty() {
        let tag = varint::take_u64(&mut bytes).unwrap();
        match tag & 7 {
            0 => each(tag >> 3, varint::take_u64(&mut bytes).unwrap(), &[]),
            1 => {
                let (value, rest) = bytes.split_first_chunk::<8>().unwrap();
                bytes = rest;
                each(tag >> 3, u64::from_le_bytes(*value), &[]);
            }
            2 => each(tag >> 3, 0, varint::take_bytes(&mut bytes).unwrap()),
            5 => {
                let (value, rest) = bytes.split_first_chunk::<4>().unwrap();
                bytes = rest;
                each(tag >> 3, u64::from(u32::from_le_bytes(*value)), &[]);
            }
            other => panic!("wire type {other}"),
        }
    }
}

#[derive(Default)]
struct Key {
    ints: Vec<i64>,
    known: HashMap<Vec<u8>, u32>,
    values: ValueTable,
}

#[derive(Default)]
struct Row {
    trace: u32,
    id: u64,
    parent: u64,
    start: u64,
    class: u32,
    /// Key, and the number of its value or of its integer.
    tags: Vec<(u32, bool, u32)>,
}

#[derive(Default)]
struct Spans {
    keys: Vec<(String, Key)>,
    key_numbers: HashMap<String, u32>,
    traces: HashMap<[u8; 16], u32>,
    classes: HashMap<(u32, Vec<u8>, u64, u64), u32>,
    services: HashMap<Vec<u8>, u32>,
    rows: Vec<Row>,
}

impl Spans {
    fn key(&mut self, name: String) -> u32 {
        let next = self.keys.len() as u32;
        let number = *self.key_numbers.entry(name.clone()).or_insert(next);
        if number == next {
            self.keys.push((name, Key::default()));
        }
        number
    }

    fn attribute(&mut self, prefix: &str, bytes: &[u8]) -> (u32, bool, u32) {
        let (mut name, mut value) = (String::new(), None);
        fields(bytes, |field, _, bytes| match field {
            1 => name = format!("{prefix}{}", std::str::from_utf8(bytes).unwrap()),
            _ => fields(bytes, |field, number, bytes| {
                value = Some(match field {
                    1 => Value::Str(String::from_utf8(bytes.to_vec()).unwrap()),
                    2 => Value::Bool(number != 0),
                    3 => Value::Int(number.cast_signed()),
                    4 => Value::Double(f64::from_bits(number)),
                    _ => Value::Bytes(bytes.to_vec()),
                });
            }),
        });
        let value = value.unwrap_or_default();
        let key = self.key(name);
        let column = &mut self.keys[key as usize].1;
        if let Value::Int(value) = value {
            column.ints.push(value);
            return (key, true, column.ints.len() as u32 - 1);
        }
        let mut encoded = Vec::new();
        value.as_ref().encode(&mut encoded).unwrap();
        let number = match column.known.get(&encoded) {
            Some(&number) => number,
            None => {
                let number = column.values.push(&encoded).unwrap();
                column.known.insert(encoded, number);
                number
            }
        };
        (key, false, number)
    }

    fn span(&mut self, service: u32, bytes: &[u8]) {
        let mut row = Row::default();
        let mut trace = [0; 16];
        let (mut name, mut kind, mut status) = (Vec::new(), 0, 0);
        fields(bytes, |field, number, bytes| match field {
            1 => trace = bytes.try_into().unwrap(),
            2 => row.id = u64::from_be_bytes(bytes.try_into().unwrap()),
            4 => row.parent = bytes.try_into().map_or(0, u64::from_be_bytes),
            5 => name = bytes.to_vec(),
            6 => kind = number,
            7 => row.start = number,
            9 => {
                let tag = self.attribute("", bytes);
                row.tags.push(tag);
            }
            11 => fields(bytes, |field, _, bytes| {
                if field == 3 {
                    let tag = self.attribute("event: ", bytes);
                    row.tags.push(tag);
                }
            }),
            15 => fields(bytes, |field, number, _| {
                if field == 3 {
                    status = number;
                }
            }),
            _ => {}
        });
        let next = self.traces.len() as u32;
        row.trace = *self.traces.entry(trace).or_insert(next);
        let next = self.classes.len() as u32;
        let class = (service, name, kind, status);
        row.class = *self.classes.entry(class).or_insert(next);
        self.rows.push(row);
    }

    fn request(&mut self, bytes: &[u8]) {
        fields(bytes, |_, _, of_resource| {
            let mut service = 0;
            fields(of_resource, |field, _, bytes| match field {
                1 => {
                    let next = self.services.len() as u32;
                    service = *self.services.entry(bytes.to_vec()).or_insert(next);
                }
                2 => fields(bytes, |field, _, bytes| {
                    if field == 2 {
                        self.span(service, bytes);
                    }
                }),
                _ => {}
            });
        });
    }

    /// Traces by start, each in preorder.
    fn sort(&mut self) {
        let mut starts = vec![u64::MAX; self.traces.len()];
        for row in &self.rows {
            let start = &mut starts[row.trace as usize];
            *start = row.start.min(*start);
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|row| (starts[row.trace as usize], row.trace, row.start, row.id));
        for of_trace in rows.chunk_by_mut(|a, b| a.trace == b.trace) {
            let places: HashMap<u64, usize> = of_trace
                .iter()
                .enumerate()
                .map(|(at, row)| (row.id, at))
                .collect();
            let mut children = vec![Vec::new(); of_trace.len()];
            let mut open = Vec::new();
            for at in (0..of_trace.len()).rev() {
                match places.get(&of_trace[at].parent) {
                    Some(&parent) => children[parent].push(at),
                    None => open.push(at),
                }
            }
            while let Some(at) = open.pop() {
                open.extend(&children[at]);
                self.rows.push(std::mem::take(&mut of_trace[at]));
            }
        }
    }
}

/// What it takes in nanoseconds when nothing comes between: the least of some attempts.
fn least_ns<T>(mut attempt: impl FnMut() -> T) -> (T, f64) {
    let mut timed = || {
        let start = Instant::now();
        let answer = attempt();
        (answer, start.elapsed().as_nanos() as f64)
    };
    let (_, first) = timed();
    let (_, second) = timed();
    let (_, third) = timed();
    let (answer, last) = timed();
    (answer, first.min(second).min(third).min(last))
}

fn written(input: ColumnInput<'_>, context: &ColumnContext<'_>) -> (Vec<u8>, Vec<u8>) {
    let mut section = Vec::new();
    let head = write_column(input, context, &mut |item| {
        let at = section.len() as u64;
        section.extend_from_slice(item);
        Ok(at)
    });
    (head.unwrap(), section)
}

#[test]
#[ignore = "a measurement, on a file named by ROOTLINE_SPANS"]
fn column_measure() {
    let file = std::fs::read(std::env::var("ROOTLINE_SPANS").unwrap()).unwrap();
    let mut spans = Spans::default();
    let mut rest = &file[8..];
    while !rest.is_empty() {
        let (bytes, behind) =
            rest[8..].split_at(u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize);
        spans.request(bytes);
        rest = behind;
    }
    let spans_count = spans.rows.len();
    spans.sort();
    assert_eq!(spans.rows.len(), spans_count, "no span is lost");
    println!(
        "{spans_count} spans, {} traces, {} classes",
        spans.traces.len(),
        spans.classes.len()
    );
    println!(
        "| key | values | distinct | encoding | bytes each | bytes/span | without classes | bytes/span | write ns | load ns | value ns | find one us | find some us |"
    );
    println!("|---|--:|--:|---|--:|--:|---|--:|--:|--:|--:|--:|--:|");
    let (mut total, mut plain_total, mut occurrences, mut total_ns) = (0, 0, 0, 0.0);
    for number in 0..spans.keys.len() as u32 {
        for of_ints in [false, true] {
            let (name, key) = &spans.keys[number as usize];
            let (mut codes, mut classes, mut owners) = (Vec::new(), Vec::new(), Vec::new());
            for row in &spans.rows {
                for tag in row
                    .tags
                    .iter()
                    .filter(|tag| tag.0 == number && tag.1 == of_ints)
                {
                    codes.push(tag.2);
                    classes.push(row.class);
                    owners.push(row.trace);
                }
            }
            if codes.is_empty() {
                continue;
            }
            let ints: Vec<i64> = if of_ints {
                codes.iter().map(|&code| key.ints[code as usize]).collect()
            } else {
                Vec::new()
            };
            let input = if of_ints {
                ColumnInput::Ints(&ints)
            } else {
                ColumnInput::Codes {
                    values: &key.values,
                    codes: &codes,
                }
            };
            let context = ColumnContext {
                class_of: &classes,
                owner_of: &owners,
            };
            let ((head, section), write) = least_ns(|| written(input, &context));
            let bytes = section.len() + head.len();
            let (plain_head, plain_section) = written(input, &ColumnContext::default());
            let plain_bytes = plain_section.len() + plain_head.len();
            let plain = Column::open(&plain_head, ColumnSource::Bytes(plain_section.into()));
            let column = Column::open(&head, ColumnSource::Bytes(section.into())).unwrap();
            let classes = Given(&classes);
            let (_, load) = least_ns(|| column.load(&classes).unwrap());
            let step = (codes.len() / 1000).max(1);
            let (only, value) = least_ns(|| {
                let mut cursor = ColumnCursor::default();
                let mut out = Vec::new();
                for at in (0..codes.len()).step_by(step) {
                    out.clear();
                    column
                        .value(at as u32, &classes, &mut cursor, &mut out)
                        .unwrap();
                }
                out
            });
            let (found, find_one) = least_ns(|| {
                column.find(&mut |_| true, Some(&only), None, &classes, &mut || Ok(()))
            });
            assert!(!found.unwrap().is_empty());
            let (some, find_some) = least_ns(|| {
                column.find(
                    &mut |value| value.windows(2).any(|pair| pair == b"77"),
                    None,
                    None,
                    &classes,
                    &mut || Ok(()),
                )
            });
            some.unwrap();
            let distinct = if of_ints {
                ints.iter().collect::<std::collections::HashSet<_>>().len()
            } else {
                key.values.len()
            };
            println!(
                "| {name} | {} | {distinct} | {} | {:.3} | {:.3} | {} | {:.3} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} |",
                codes.len(),
                column.describe(),
                bytes as f64 / codes.len() as f64,
                bytes as f64 / spans_count as f64,
                plain.unwrap().describe(),
                plain_bytes as f64 / spans_count as f64,
                write / codes.len() as f64,
                load / codes.len() as f64,
                value / codes.len().div_ceil(step) as f64,
                find_one / 1e3,
                find_some / 1e3,
            );
            plain_total += plain_bytes;
            total += bytes;
            occurrences += codes.len();
            total_ns += write;
        }
    }
    println!(
        "| all | {occurrences} | | | {:.3} | {:.3} | | {:.3} | {:.1} | | | | |",
        total as f64 / occurrences as f64,
        total as f64 / spans_count as f64,
        plain_total as f64 / spans_count as f64,
        total_ns / occurrences as f64
    );
}
