//! The definitions part of a batch record: which label set a series reference stands for.
//! Bytes: `docs/formats/batch-record.md`, "Definitions".
//!
//! A million new series come in requests of some thousands that share nearly all their strings and
//! their label names. So a part has a dictionary of strings, a dictionary of *shapes* (the sorted
//! names of a label set), and a series is its shape and one number per value.
//!
//! Invariants
//! - Names of a shape rise strictly and are not empty; values are not empty: a decoded set is
//!   a label set as `rootline_index::Labels` defines it.

use std::collections::HashMap;

use rootline_index::{Symbol, Symbols};

use super::Part;
use crate::{
    error::Error,
    id::SeriesRef,
    varint::{put_bytes, put_i64, put_u64, take_bytes, take_i64, take_u64},
};

/// Collects definitions, then writes the part.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    numbers: HashMap<Symbol, u32>,
    strings: Vec<u8>,
    shapes: HashMap<Box<[u32]>, u32>,
    shape_bytes: Vec<u8>,
    series: Vec<u8>,
    count: u64,
    previous_ref: u64,
    names: Vec<u32>,
}

impl Encoder {
    /// Adds one series; `pairs` are sorted by the names' text.
    pub(crate) fn push(
        &mut self,
        series: SeriesRef,
        pairs: &[(Symbol, Symbol)],
        symbols: &Symbols,
    ) {
        let mut names = std::mem::take(&mut self.names);
        names.clear();
        names.extend(pairs.iter().map(|&(name, _)| self.number(name, symbols)));
        let shape = if let Some(&shape) = self.shapes.get(names.as_slice()) {
            shape
        } else {
            let shape = count_u32(self.shapes.len());
            put_u64(&mut self.shape_bytes, names.len() as u64);
            for &name in &names {
                put_u64(&mut self.shape_bytes, name.into());
            }
            self.shapes.insert(names.as_slice().into(), shape);
            shape
        };
        self.names = names;
        put_i64(
            &mut self.series,
            series.0.wrapping_sub(self.previous_ref).cast_signed(),
        );
        self.previous_ref = series.0;
        put_u64(&mut self.series, shape.into());
        for &(_, value) in pairs {
            let number = self.number(value, symbols);
            put_u64(&mut self.series, number.into());
        }
        self.count += 1;
    }

    /// Appends the part; nothing if there is no series.
    pub(crate) fn finish(&self, out: &mut Vec<u8>) {
        if self.count == 0 {
            return;
        }
        put_u64(out, self.numbers.len() as u64);
        out.extend_from_slice(&self.strings);
        put_u64(out, self.shapes.len() as u64);
        out.extend_from_slice(&self.shape_bytes);
        put_u64(out, self.count);
        out.extend_from_slice(&self.series);
    }

    fn number(&mut self, symbol: Symbol, symbols: &Symbols) -> u32 {
        let next = count_u32(self.numbers.len());
        *self.numbers.entry(symbol).or_insert_with(|| {
            put_bytes(&mut self.strings, symbols.resolve(symbol).as_bytes());
            next
        })
    }
}

fn count_u32(count: usize) -> u32 {
    u32::try_from(count).expect("a part of at most 4 GiB has fewer strings")
}

/// A definitions part whose dictionaries are read and checked.
#[derive(Debug)]
pub(crate) struct Definitions<'a> {
    part: Part<'a>,
    strings: Vec<&'a str>,
    /// Where each shape's names end in `names`.
    shapes: Vec<(usize, usize)>,
    names: Vec<u32>,
    series: &'a [u8],
    count: u64,
}

/// Reads the dictionaries of a part.
pub(crate) fn decode(part: Part<'_>) -> Result<Definitions<'_>, Error> {
    let mut rest = part.bytes;
    let cut = || part.corrupt("definitions are cut short");

    let count = take_count(&mut rest).ok_or_else(cut)?;
    let mut strings = Vec::with_capacity(count);
    for i in 0..count {
        let bytes = take_bytes(&mut rest).ok_or_else(cut)?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| part.corrupt(format!("string {i} of the definitions is not UTF-8")))?;
        strings.push(text);
    }

    let count = take_count(&mut rest).ok_or_else(cut)?;
    let mut shapes = Vec::with_capacity(count);
    let mut names = Vec::new();
    for i in 0..count {
        let length = take_count(&mut rest).ok_or_else(cut)?;
        let start = names.len();
        let mut previous = "";
        for _ in 0..length {
            let number = take_u64(&mut rest).ok_or_else(cut)?;
            let (number, name) = string(&strings, number)
                .ok_or_else(|| part.corrupt(format!("shape {i} names string {number}")))?;
            if name <= previous {
                let reason = format!("names of shape {i} do not rise at {name:?}");
                return Err(part.corrupt(reason));
            }
            previous = name;
            names.push(number);
        }
        shapes.push((start, names.len()));
    }

    let count = take_u64(&mut rest).ok_or_else(cut)?;
    Ok(Definitions {
        part,
        strings,
        shapes,
        names,
        series: rest,
        count,
    })
}

/// A number of things of at least one byte each: never more than bytes are left, so that no
/// allocation follows a damaged length.
fn take_count(rest: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(take_u64(rest)?).ok()?;
    (count <= rest.len()).then_some(count)
}

fn string<'a>(strings: &[&'a str], number: u64) -> Option<(u32, &'a str)> {
    let text = strings.get(usize::try_from(number).ok()?)?;
    Some((u32::try_from(number).ok()?, text))
}

impl<'a> Definitions<'a> {
    /// The dictionary of strings.
    pub(crate) fn strings(&self) -> &[&'a str] {
        &self.strings
    }

    /// Calls `each` with every series and the dictionary numbers of its pairs, sorted by name; all
    /// numbers are inside [`strings`](Self::strings).
    pub(crate) fn for_each(
        &self,
        mut each: impl FnMut(SeriesRef, &[(u32, u32)]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rest = self.series;
        let mut previous_ref = 0u64;
        let mut pairs = Vec::new();
        for i in 0..self.count {
            let series = self
                .take_series(&mut rest, &mut previous_ref, &mut pairs)
                .ok_or_else(|| self.part.corrupt(format!("definition {i} does not decode")))?;
            each(series, &pairs)?;
        }
        if !rest.is_empty() {
            return Err(self
                .part
                .corrupt("bytes are left behind the last definition"));
        }
        Ok(())
    }

    fn take_series(
        &self,
        rest: &mut &[u8],
        previous_ref: &mut u64,
        pairs: &mut Vec<(u32, u32)>,
    ) -> Option<SeriesRef> {
        *previous_ref = previous_ref.wrapping_add(take_i64(rest)?.cast_unsigned());
        let shape = usize::try_from(take_u64(rest)?).ok()?;
        let &(start, end) = self.shapes.get(shape)?;
        pairs.clear();
        for &name in self.names.get(start..end)? {
            let (value, text) = string(&self.strings, take_u64(rest)?)?;
            if text.is_empty() {
                return None;
            }
            pairs.push((name, value));
        }
        Some(SeriesRef(*previous_ref))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rootline_wal::Lsn;

    use super::*;
    use crate::record::Tag;

    fn part(bytes: &[u8]) -> Part<'_> {
        Part {
            tag: Tag::Definitions,
            bytes,
            lsn: Lsn(1),
        }
    }

    type Set = (u64, Vec<(String, String)>);

    fn encode(sets: &[Set]) -> Vec<u8> {
        let mut symbols = Symbols::new();
        let mut encoder = Encoder::default();
        for (series, pairs) in sets {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(n, v)| (symbols.intern(n), symbols.intern(v)))
                .collect();
            encoder.push(SeriesRef(*series), &pairs, &symbols);
        }
        let mut out = Vec::new();
        encoder.finish(&mut out);
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<Set>, Error> {
        let definitions = decode(part(bytes))?;
        let strings = definitions.strings();
        let text = |i: u32| strings[i as usize].to_owned();
        let mut sets = Vec::new();
        definitions.for_each(|series, pairs| {
            sets.push((
                series.0,
                pairs.iter().map(|&(n, v)| (text(n), text(v))).collect(),
            ));
            Ok(())
        })?;
        Ok(sets)
    }

    #[test]
    fn series_that_share_strings_cost_little() {
        let sets: Vec<Set> = (0..1000)
            .map(|i| {
                let pairs =
                    (0..8).map(|l| (format!("label_{l}"), format!("value_{}", i % (l + 1))));
                (i + 5, pairs.collect())
            })
            .collect();
        let bytes = encode(&sets);
        assert!(bytes.len() < 11 * sets.len(), "{} bytes", bytes.len());
        assert_eq!(read(&bytes).unwrap(), sets);
    }

    #[test]
    fn unsorted_names_and_empty_values_are_refused() {
        let set = |pairs: &[(&str, &str)]| -> Vec<Set> {
            vec![(
                1,
                pairs
                    .iter()
                    .map(|&(n, v)| (n.to_owned(), v.to_owned()))
                    .collect(),
            )]
        };
        let unsorted = read(&encode(&set(&[("b", "1"), ("a", "1")])));
        assert!(unsorted.unwrap_err().to_string().contains("do not rise"));
        assert!(read(&encode(&set(&[("a", "")]))).is_err());
        assert!(read(&encode(&set(&[("", "x")]))).is_err());
        let mut bytes = encode(&set(&[("a", "x")]));
        bytes.push(0);
        assert!(
            read(&bytes)
                .unwrap_err()
                .to_string()
                .contains("left behind")
        );
    }

    proptest! {
        #[test]
        fn definitions_come_back(
            sets in prop::collection::vec(
                (any::<u64>(), prop::collection::btree_map("[a-c]{1,2}|\\PC{1,3}", "\\PC{1,4}", 0..5)),
                1..20,
            ),
        ) {
            let sets: Vec<Set> = sets
                .into_iter()
                .map(|(series, map): (u64, BTreeMap<String, String>)| {
                    (series, map.into_iter().collect())
                })
                .collect();
            prop_assert_eq!(read(&encode(&sets)).unwrap(), sets);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
