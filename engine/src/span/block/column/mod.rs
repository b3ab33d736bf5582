//! Columns of attribute values: one key and type, occurrence by occurrence, densely.
//! Bytes: `docs/formats/attribute-column.md`.
//!
//! | file | holds |
//! | --- | --- |
//! | `write.rs` | choosing the encoding of a column |
//! | `dictionary.rs`, `texts.rs` | distinct values, sorted; byte strings in compressed pages |
//! | `sequence.rs`, `ranked.rs`, `numbers.rs` | a number for each occurrence; by class; in groups |
//! | `template.rs`, `hex.rs` | texts with numbers in them; texts of one pattern, as UUIDs |
//! | `doubles.rs` | doubles in groups |
//! | `table.rs` | values in memory, by number |
//! | `wanted.rs` | numbers looked for, places found |
//! | `source.rs`, `sink.rs`, `head.rs` | reading from a section, writing to one |
//!
//! Invariants
//! - What is written comes back bit for bit: values are compared by their encoded form
//!   (`crate::value`), and equal values have equal encodings.
//! - A column is read with the classes that it was written with, if it needs any.
//! - Bytes from a section are outside bytes: any head over any section gives values or an error, and
//!   nothing is allocated that its bytes do not vouch for.
//!
//! No locks, no caches: whoever reads brings a cursor, which holds what was decoded last.

mod dictionary;
mod doubles;
mod head;
mod hex;
#[cfg(test)]
mod measure;
mod numbers;
mod ranked;
mod sequence;
mod sink;
mod source;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod texts;
mod wanted;
mod write;

use std::ops::Range;

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use self::{
    dictionary::{Dictionary, DictionaryCursor},
    doubles::{Doubles, DoublesCursor},
    head::HeadReader,
    hex::{Hex, HexCursor},
    numbers::Numbers,
    sequence::{FEW_CANDIDATES, Sequence, SequenceCursor},
    template::{Templates, TemplatesCursor},
    texts::{Texts, TextsCursor},
    wanted::{Found, Wanted, within},
};
pub(crate) use self::{sink::Sink, source::ColumnSource, table::ValueTable, write::write_column};
use crate::{
    error::Error,
    value::{self, Value, ValueRef},
};

/// What a column is written from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ColumnInput<'a> {
    /// Encoded values (`crate::value`) by number, and the number of each occurrence. The table may hold
    /// values that do not occur, and the same value several times.
    Codes {
        /// The values.
        values: &'a ValueTable,
        /// By occurrence.
        codes: &'a [u32],
    },
    /// Integers, by occurrence.
    Ints(&'a [i64]),
    /// Doubles, by occurrence.
    Doubles(&'a [f64]),
}

impl ColumnInput<'_> {
    /// Occurrences.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Codes { codes, .. } => codes.len(),
            Self::Ints(values) => values.len(),
            Self::Doubles(values) => values.len(),
        }
    }
}

/// What is known of the items that the values belong to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ColumnContext<'a> {
    /// A small code of each occurrence's item that readers will know as well ([`Classes`]); empty if they
    /// will not.
    pub(crate) class_of: &'a [u32],
    /// The trace of each occurrence, rising; may be empty.
    pub(crate) owner_of: &'a [u32],
}

/// The classes of occurrences, as they were given when the column was written.
pub(crate) trait Classes {
    /// Appends the classes of a range of occurrences.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn classes(&self, occurrences: Range<u32>, out: &mut Vec<u32>) -> Result<(), Error>;
}

/// For columns that were written without classes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoClasses;

impl Classes for NoClasses {
    fn classes(&self, occurrences: Range<u32>, out: &mut Vec<u32>) -> Result<(), Error> {
        out.resize(out.len() + occurrences.len(), 0);
        Ok(())
    }
}

/// All of a column in memory.
#[derive(Clone, Debug)]
pub(crate) enum LoadedColumn {
    /// Encoded values by number, each in use but not always once, and the number of each occurrence.
    Codes {
        /// The values.
        values: ValueTable,
        /// By occurrence.
        codes: Vec<u32>,
    },
    /// Integers, by occurrence.
    Ints(Vec<i64>),
    /// Doubles, by occurrence.
    Doubles(Vec<f64>),
}

/// Values of some occurrences: the distinct ones, and which each occurrence has.
#[derive(Clone, Debug, Default)]
pub(crate) struct CodedValues {
    /// Encoded values, each once.
    pub(crate) values: ValueTable,
    /// By occurrence asked for, in order, a number of `values`.
    pub(crate) codes: Vec<u32>,
}

// The first byte of a head.
const DICTIONARY: u8 = 1;
const TEXTS: u8 = 2;
const INTS: u8 = 3;
const DOUBLES: u8 = 4;
const DOUBLES_AS_BITS: u8 = 5;
const HEX: u8 = 6;
const TEMPLATES: u8 = 7;

/// What the byte strings of a column stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Encoded values of any type.
    Encoded = 0,
    /// Text: of the encoded value, only the text is kept.
    Text = 1,
}

impl Content {
    fn take(head: &mut HeadReader<'_>) -> Result<Self, Error> {
        match head.byte()? {
            0 => Ok(Self::Encoded),
            1 => Ok(Self::Text),
            _ => Err(head.damaged("unknown content of strings")),
        }
    }

    /// What is stored of an encoded value; `None` if the column cannot hold such a value.
    fn stored(self, encoded: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Encoded => Some(encoded),
            Self::Text => value::encoded_text(encoded),
        }
    }

    /// Appends the encoded value.
    #[inline]
    fn encode(self, stored: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Encoded => out.extend_from_slice(stored),
            Self::Text => value::encode_text(stored, out),
        }
    }
}

/// A column that can be read.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    source: ColumnSource,
    count: u32,
    encoding: Encoding,
}

#[derive(Clone, Debug)]
enum Encoding {
    /// Distinct values, and a number for each occurrence.
    Dictionary {
        content: Content,
        values: Dictionary,
        /// How often each value occurs, if that is stored.
        counts: Option<Numbers>,
        codes: Sequence,
    },
    /// Byte strings by occurrence.
    Texts { content: Content, texts: Texts },
    /// Texts of one pattern, by occurrence.
    Hex(Hex),
    /// Texts with numbers in them, by occurrence.
    Templates(Templates),
    /// Integers.
    Ints(Sequence),
    /// Doubles.
    Doubles(Doubles),
    /// Doubles of which few are distinct: their bits.
    DoublesAsBits(Sequence),
}

/// What was decoded last of a column. One cursor serves one column.
#[derive(Debug, Default)]
pub(crate) struct ColumnCursor {
    sequence: SequenceCursor,
    dictionary: DictionaryCursor,
    texts: TextsCursor,
    hex: HexCursor,
    templates: TemplatesCursor,
    doubles: DoublesCursor,
    bytes: Vec<u8>,
}

impl Column {
    /// Opens the column with this head in a section. Reads nothing of the section.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`].
    pub(crate) fn open(head: &[u8], source: ColumnSource) -> Result<Self, Error> {
        let mut reader = HeadReader::new(head, &source);
        let head = &mut reader;
        let encoding = head.byte()?;
        let count = head.count()?;
        let encoding = match encoding {
            DICTIONARY => {
                let content = Content::take(head)?;
                let values = Dictionary::take(head)?;
                let counts = match head.byte()? {
                    0 => None,
                    1 => Some(Numbers::take(head)?),
                    _ => return Err(head.damaged("unknown kind of counts")),
                };
                if counts
                    .as_ref()
                    .is_some_and(|counts| counts.len() != values.len())
                {
                    return Err(head.damaged("another number of counts than of values"));
                }
                let codes = Sequence::take(head, count)?;
                Encoding::Dictionary {
                    content,
                    values,
                    counts,
                    codes,
                }
            }
            TEXTS => {
                let content = Content::take(head)?;
                let texts = Texts::take(head)?;
                if texts.len() != count {
                    return Err(head.damaged("another number of strings than of values"));
                }
                Encoding::Texts { content, texts }
            }
            HEX => {
                let hex = Hex::take(head)?;
                if hex.len() != count {
                    return Err(head.damaged("another number of texts than of values"));
                }
                Encoding::Hex(hex)
            }
            TEMPLATES => Encoding::Templates(Templates::take(head, count)?),
            INTS => Encoding::Ints(Sequence::take(head, count)?),
            DOUBLES => {
                let doubles = Doubles::take(head)?;
                if doubles.len() != count {
                    return Err(head.damaged("another number of doubles than of values"));
                }
                Encoding::Doubles(doubles)
            }
            DOUBLES_AS_BITS => Encoding::DoublesAsBits(Sequence::take(head, count)?),
            _ => return Err(head.damaged("unknown encoding")),
        };
        head.end()?;
        Ok(Self {
            source,
            count,
            encoding,
        })
    }

    /// Occurrences.
    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// Whether it cannot be read without the classes that it was written with.
    pub(crate) fn needs_classes(&self) -> bool {
        match &self.encoding {
            Encoding::Dictionary { codes, .. } => codes.needs_classes(),
            Encoding::Templates(templates) => templates.needs_classes(),
            Encoding::Ints(sequence) | Encoding::DoublesAsBits(sequence) => {
                sequence.needs_classes()
            }
            Encoding::Texts { .. } | Encoding::Hex(_) | Encoding::Doubles(_) => false,
        }
    }

    /// The encoding, for people.
    pub(crate) fn describe(&self) -> String {
        match &self.encoding {
            Encoding::Dictionary { values, codes, .. } => {
                format!("{} {}, {}", values.len(), values.name(), codes.name())
            }
            Encoding::Texts { .. } => "texts".to_owned(),
            Encoding::Hex(_) => "hex texts".to_owned(),
            Encoding::Templates(templates) => templates.describe(),
            Encoding::Ints(sequence) => format!("integers, {}", sequence.name()),
            Encoding::Doubles(_) => "doubles".to_owned(),
            Encoding::DoublesAsBits(sequence) => format!("doubles as bits, {}", sequence.name()),
        }
    }

    /// Bytes that it takes in its section.
    pub(crate) fn section_bytes(&self) -> u64 {
        match &self.encoding {
            Encoding::Dictionary {
                values,
                counts,
                codes,
                ..
            } => {
                let counts = counts.as_ref().map_or(0, Numbers::section_bytes);
                values.section_bytes() + counts + codes.section_bytes()
            }
            Encoding::Texts { texts, .. } => texts.section_bytes(),
            Encoding::Hex(hex) => hex.section_bytes(),
            Encoding::Templates(templates) => templates.section_bytes(),
            Encoding::Ints(sequence) | Encoding::DoublesAsBits(sequence) => {
                sequence.section_bytes()
            }
            Encoding::Doubles(doubles) => doubles.section_bytes(),
        }
    }

    /// Appends the encoded value of an occurrence.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`].
    pub(crate) fn value(
        &self,
        occurrence: u32,
        classes: &dyn Classes,
        cursor: &mut ColumnCursor,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let source = &self.source;
        match &self.encoding {
            Encoding::Dictionary {
                content,
                values,
                codes,
                ..
            } => {
                let code = codes.get(source, classes, &mut cursor.sequence, occurrence)?;
                let code = self.code(code, values)?;
                cursor.bytes.clear();
                values.get(source, &mut cursor.dictionary, code, &mut cursor.bytes)?;
                content.encode(&cursor.bytes, out);
            }
            Encoding::Texts { .. } | Encoding::Hex(_) | Encoding::Templates(_) => {
                let mut bytes = std::mem::take(&mut cursor.bytes);
                bytes.clear();
                let read = self.text(occurrence, classes, cursor, &mut bytes);
                if read.is_ok() {
                    self.content().encode(&bytes, out);
                }
                cursor.bytes = bytes;
                return read;
            }
            Encoding::Ints(sequence) => {
                let value = sequence.get(source, classes, &mut cursor.sequence, occurrence)?;
                encode(ValueRef::Int(value), out);
            }
            Encoding::Doubles(doubles) => {
                let value = doubles.get(source, &mut cursor.doubles, occurrence)?;
                encode(ValueRef::Double(value), out);
            }
            Encoding::DoublesAsBits(sequence) => {
                let bits = sequence.get(source, classes, &mut cursor.sequence, occurrence)?;
                encode(double(bits), out);
            }
        }
        Ok(())
    }

    /// What its byte strings stand for.
    fn content(&self) -> Content {
        match &self.encoding {
            Encoding::Dictionary { content, .. } | Encoding::Texts { content, .. } => *content,
            _ => Content::Text,
        }
    }

    /// Appends the byte string of an occurrence, if they are stored by occurrence.
    fn text(
        &self,
        occurrence: u32,
        classes: &dyn Classes,
        cursor: &mut ColumnCursor,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let source = &self.source;
        match &self.encoding {
            Encoding::Texts { texts, .. } => {
                out.extend_from_slice(texts.get(source, &mut cursor.texts, occurrence)?);
                Ok(())
            }
            Encoding::Hex(hex) => hex.get(source, &mut cursor.hex, occurrence, out),
            Encoding::Templates(templates) => {
                templates.get(source, classes, &mut cursor.templates, occurrence, out)
            }
            _ => Ok(()),
        }
    }

    /// Calls `visit` with every byte string and its occurrence, if they are stored by occurrence.
    fn each_text(
        &self,
        classes: &dyn Classes,
        visit: impl FnMut(u32, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let source = &self.source;
        match &self.encoding {
            Encoding::Texts { texts, .. } => texts.each(source, visit),
            Encoding::Hex(hex) => hex.each(source, visit),
            Encoding::Templates(templates) => templates.each(source, classes, visit),
            _ => Ok(()),
        }
    }

    /// A number of the dictionary.
    #[inline]
    fn code(&self, code: i64, values: &Dictionary) -> Result<u32, Error> {
        u32::try_from(code)
            .ok()
            .filter(|&code| code < values.len())
            .ok_or_else(|| self.source.damaged(0, "a code beyond its dictionary"))
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`].
    pub(crate) fn load(&self, classes: &dyn Classes) -> Result<LoadedColumn, Error> {
        let source = &self.source;
        let large = || source.damaged(0, "the values of a column have more than 4 GiB");
        Ok(match &self.encoding {
            Encoding::Dictionary {
                content,
                values: dictionary,
                codes: sequence,
                ..
            } => {
                let mut values = ValueTable::default();
                dictionary.each(source, |_, stored| {
                    let pushed = values.push_with(|out| content.encode(stored, out));
                    pushed.map(|_| ()).ok_or_else(large)
                })?;
                let mut codes = Vec::new();
                let mut is_sound = true;
                sequence.load(source, classes, |code| {
                    let code = u32::try_from(code).unwrap_or(u32::MAX);
                    is_sound &= code < dictionary.len();
                    codes.push(code);
                })?;
                if !is_sound {
                    return Err(source.damaged(0, "a code beyond its dictionary"));
                }
                LoadedColumn::Codes { values, codes }
            }
            Encoding::Texts { .. } | Encoding::Hex(_) | Encoding::Templates(_) => {
                let mut values = ValueTable::default();
                self.each_text(classes, |_, stored| {
                    let pushed = values.push_with(|out| self.content().encode(stored, out));
                    pushed.map(|_| ()).ok_or_else(large)
                })?;
                let codes = (0..self.count).collect();
                LoadedColumn::Codes { values, codes }
            }
            Encoding::Ints(sequence) => {
                let mut ints = Vec::new();
                sequence.load(source, classes, |value| ints.push(value))?;
                LoadedColumn::Ints(ints)
            }
            Encoding::Doubles(doubles) => {
                let mut all = Vec::new();
                doubles.each_group(source, |_, values| {
                    all.extend_from_slice(values);
                    Ok(())
                })?;
                LoadedColumn::Doubles(all)
            }
            Encoding::DoublesAsBits(sequence) => {
                let mut all = Vec::new();
                sequence.load(source, classes, |bits| {
                    all.push(f64::from_bits(bits.cast_unsigned()));
                })?;
                LoadedColumn::Doubles(all)
            }
        })
    }

    /// The occurrences, of the candidates if there are any, whose encoded value passes `test`. `only` is
    /// the one encoded value that passes, if there is but one: `test` is not asked then. `test` is asked
    /// once for each distinct value where that can be. `check` is called now and then, to stop.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`], and what `check` returns.
    pub(crate) fn find(
        &self,
        test: &mut dyn FnMut(&[u8]) -> bool,
        only: Option<&[u8]>,
        candidates: Option<&RoaringBitmap>,
        classes: &dyn Classes,
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<RoaringBitmap, Error> {
        let source = &self.source;
        if candidates.is_some_and(RoaringBitmap::is_empty) {
            return Ok(RoaringBitmap::new());
        }
        match &self.encoding {
            Encoding::Dictionary {
                content,
                values,
                codes,
                ..
            } => {
                let mut wanted = Wanted::default();
                match only {
                    Some(only) => {
                        if let Some(stored) = content.stored(only)
                            && let Some(code) = values.find(source, stored)?
                        {
                            wanted.push(i64::from(code));
                        }
                    }
                    None => {
                        let mut encoded = Vec::new();
                        values.each(source, |code, stored| {
                            if code % 1024 == 0 {
                                check()?;
                            }
                            encoded.clear();
                            content.encode(stored, &mut encoded);
                            if test(&encoded) {
                                wanted.push(i64::from(code));
                            }
                            Ok(())
                        })?;
                    }
                }
                wanted.settle();
                codes.find(source, classes, &wanted, candidates, check)
            }
            Encoding::Texts { .. } | Encoding::Hex(_) | Encoding::Templates(_) => {
                let content = self.content();
                let only = match only {
                    Some(only) => match content.stored(only) {
                        Some(stored) => Some(stored),
                        None => return Ok(RoaringBitmap::new()),
                    },
                    None => None,
                };
                let few = self.few(candidates);
                match (&self.encoding, only) {
                    (Encoding::Hex(hex), Some(only)) if few.is_none() => {
                        return Ok(within(hex.find(source, only, check)?, candidates));
                    }
                    (Encoding::Templates(templates), Some(only)) if few.is_none() => {
                        return templates.find(source, classes, only, candidates, check);
                    }
                    _ => {}
                }
                let mut encoded = Vec::new();
                let mut passes = |stored: &[u8]| match only {
                    Some(only) => only == stored,
                    None => {
                        encoded.clear();
                        content.encode(stored, &mut encoded);
                        test(&encoded)
                    }
                };
                let mut found = Found::default();
                if let Some(few) = few {
                    let mut cursor = ColumnCursor::default();
                    let mut stored = Vec::new();
                    for occurrence in few.iter().take_while(|&o| o < self.count) {
                        check()?;
                        stored.clear();
                        self.text(occurrence, classes, &mut cursor, &mut stored)?;
                        if passes(&stored) {
                            found.push(occurrence);
                        }
                    }
                } else {
                    self.each_text(classes, |occurrence, stored| {
                        if occurrence % 256 == 0 {
                            check()?;
                        }
                        if passes(stored) {
                            found.push(occurrence);
                        }
                        Ok(())
                    })?;
                }
                Ok(within(found.finish(), candidates))
            }
            Encoding::Ints(sequence) => self.find_numbers(
                sequence,
                &mut |value, out| encode(ValueRef::Int(value), out),
                |only| match decode(only) {
                    Some(Value::Int(value)) => Some(value),
                    _ => None,
                },
                test,
                only,
                candidates,
                classes,
                check,
            ),
            Encoding::DoublesAsBits(sequence) => self.find_numbers(
                sequence,
                &mut |bits, out| encode(double(bits), out),
                |only| match decode(only) {
                    Some(Value::Double(value)) => Some(value.to_bits().cast_signed()),
                    _ => None,
                },
                test,
                only,
                candidates,
                classes,
                check,
            ),
            Encoding::Doubles(doubles) => {
                let only = match only.map(decode) {
                    None => None,
                    Some(Some(Value::Double(only))) => Some(only.to_bits()),
                    Some(_) => return Ok(RoaringBitmap::new()),
                };
                let mut encoded = Vec::new();
                let mut passes = |value: f64| match only {
                    Some(only) => only == value.to_bits(),
                    None => {
                        encoded.clear();
                        encode(ValueRef::Double(value), &mut encoded);
                        test(&encoded)
                    }
                };
                let mut found = Found::default();
                if let Some(few) = self.few(candidates) {
                    let mut cursor = DoublesCursor::default();
                    for occurrence in few.iter().take_while(|&o| o < self.count) {
                        if passes(doubles.get(source, &mut cursor, occurrence)?) {
                            found.push(occurrence);
                        }
                    }
                } else {
                    doubles.each_group(source, |start, values| {
                        check()?;
                        for (occurrence, &value) in (start..).zip(values) {
                            if passes(value) {
                                found.push(occurrence);
                            }
                        }
                        Ok(())
                    })?;
                }
                Ok(within(found.finish(), candidates))
            }
        }
    }

    /// Candidates, if they are so few that each is looked at by itself.
    fn few<'c>(&self, candidates: Option<&'c RoaringBitmap>) -> Option<&'c RoaringBitmap> {
        candidates.filter(|few| few.len() < u64::from(self.count) / FEW_CANDIDATES)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "those of `find`, and what numbers mean"
    )]
    fn find_numbers(
        &self,
        sequence: &Sequence,
        encode: &mut dyn FnMut(i64, &mut Vec<u8>),
        decode: impl Fn(&[u8]) -> Option<i64>,
        test: &mut dyn FnMut(&[u8]) -> bool,
        only: Option<&[u8]>,
        candidates: Option<&RoaringBitmap>,
        classes: &dyn Classes,
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<RoaringBitmap, Error> {
        let source = &self.source;
        if let Some(only) = only {
            let Some(value) = decode(only) else {
                return Ok(RoaringBitmap::new());
            };
            let wanted = Wanted::one(value);
            return sequence.find(source, classes, &wanted, candidates, check);
        }
        let mut answers = Answers::default();
        let mut found = Found::default();
        if let Some(few) = self.few(candidates) {
            let mut cursor = SequenceCursor::default();
            for occurrence in few.iter().take_while(|&o| o < self.count) {
                let value = sequence.get(source, classes, &mut cursor, occurrence)?;
                if answers.of(value, encode, test) {
                    found.push(occurrence);
                }
            }
        } else {
            sequence.each_piece(source, classes, |start, values| {
                check()?;
                for (occurrence, &value) in (start..).zip(values) {
                    if answers.of(value, encode, test) {
                        found.push(occurrence);
                    }
                }
                Ok(())
            })?;
        }
        Ok(within(found.finish(), candidates))
    }

    /// Calls `visit` with every distinct encoded value and how often it occurs, in no order that means
    /// anything.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`], and what `visit` returns.
    pub(crate) fn counts(
        &self,
        classes: &dyn Classes,
        visit: &mut dyn FnMut(&[u8], u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let source = &self.source;
        match &self.encoding {
            Encoding::Dictionary {
                content,
                values,
                counts,
                codes,
            } => {
                let mut by_code = Vec::new();
                match counts {
                    Some(counts) => counts.load(source, &mut by_code)?,
                    None => {
                        codes.load(source, classes, |code| {
                            let Ok(code) = usize::try_from(code) else {
                                return;
                            };
                            if code < values.len() as usize {
                                if by_code.len() <= code {
                                    by_code.resize(code + 1, 0);
                                }
                                if let Some(count) = by_code.get_mut(code) {
                                    *count += 1;
                                }
                            }
                        })?;
                    }
                }
                let mut encoded = Vec::new();
                values.each(source, |code, stored| {
                    let count = by_code.get(code as usize).copied().unwrap_or(0);
                    encoded.clear();
                    content.encode(stored, &mut encoded);
                    visit(&encoded, u64::try_from(count).unwrap_or(0))
                })
            }
            Encoding::Texts { .. } | Encoding::Hex(_) | Encoding::Templates(_) => {
                let content = self.content();
                let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
                self.each_text(classes, |_, stored| {
                    match counts.get_mut(stored) {
                        Some(count) => *count += 1,
                        None => drop(counts.insert(stored.to_vec(), 1)),
                    }
                    Ok(())
                })?;
                let mut encoded = Vec::new();
                for (stored, count) in counts {
                    encoded.clear();
                    content.encode(&stored, &mut encoded);
                    visit(&encoded, count)?;
                }
                Ok(())
            }
            Encoding::Ints(sequence) => {
                let mut counts: HashMap<i64, u64> = HashMap::new();
                sequence.load(source, classes, |value| {
                    *counts.entry(value).or_default() += 1
                })?;
                let mut encoded = Vec::new();
                for (value, count) in counts {
                    encoded.clear();
                    encode(ValueRef::Int(value), &mut encoded);
                    visit(&encoded, count)?;
                }
                Ok(())
            }
            Encoding::Doubles(_) | Encoding::DoublesAsBits(_) => {
                let mut counts: HashMap<u64, u64> = HashMap::new();
                match self.load(classes)? {
                    LoadedColumn::Doubles(values) => {
                        for value in values {
                            *counts.entry(value.to_bits()).or_default() += 1;
                        }
                    }
                    LoadedColumn::Codes { .. } | LoadedColumn::Ints(_) => {}
                }
                let mut encoded = Vec::new();
                for (bits, count) in counts {
                    encoded.clear();
                    encode(ValueRef::Double(f64::from_bits(bits)), &mut encoded);
                    visit(&encoded, count)?;
                }
                Ok(())
            }
        }
    }

    /// The values of some occurrences, in their order; none of them lies beyond the last.
    ///
    /// # Errors
    /// [`Error::CorruptBlock`], [`Error::Storage`].
    pub(crate) fn codes_of(
        &self,
        occurrences: &RoaringBitmap,
        classes: &dyn Classes,
    ) -> Result<CodedValues, Error> {
        let source = &self.source;
        let mut cursor = ColumnCursor::default();
        let mut coded = CodedValues::default();
        let large = || source.damaged(0, "the values of a column have more than 4 GiB");
        match &self.encoding {
            Encoding::Dictionary { values, codes, .. } => {
                let mut local: HashMap<u32, u32> = HashMap::new();
                let mut seen = Vec::new();
                for occurrence in occurrences {
                    let code = codes.get(source, classes, &mut cursor.sequence, occurrence)?;
                    let code = self.code(code, values)?;
                    let next = u32::try_from(local.len()).unwrap_or(u32::MAX);
                    let number = *local.entry(code).or_insert_with(|| {
                        seen.push(code);
                        next
                    });
                    coded.codes.push(number);
                }
                let Encoding::Dictionary { content, .. } = &self.encoding else {
                    return Ok(coded);
                };
                for code in seen {
                    cursor.bytes.clear();
                    values.get(source, &mut cursor.dictionary, code, &mut cursor.bytes)?;
                    let pushed = coded
                        .values
                        .push_with(|out| content.encode(&cursor.bytes, out));
                    pushed.ok_or_else(large)?;
                }
            }
            _ => {
                let mut local: HashMap<Vec<u8>, u32> = HashMap::new();
                let mut encoded = Vec::new();
                for occurrence in occurrences {
                    encoded.clear();
                    self.value(occurrence, classes, &mut cursor, &mut encoded)?;
                    let number = match local.get(&encoded) {
                        Some(&number) => number,
                        None => {
                            let number = coded.values.push(&encoded).ok_or_else(large)?;
                            local.insert(encoded.clone(), number);
                            number
                        }
                    };
                    coded.codes.push(number);
                }
            }
        }
        Ok(coded)
    }
}

/// Remembers what a test said of numbers.
#[derive(Debug, Default)]
struct Answers {
    last: Option<(i64, bool)>,
    known: HashMap<i64, bool>,
    encoded: Vec<u8>,
}

impl Answers {
    /// Numbers that are remembered.
    const KNOWN_MAX: usize = 1 << 16;

    #[inline]
    fn of(
        &mut self,
        value: i64,
        encode: &mut dyn FnMut(i64, &mut Vec<u8>),
        test: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        if let Some((last, answer)) = self.last
            && last == value
        {
            return answer;
        }
        let answer = match self.known.get(&value) {
            Some(&answer) => answer,
            None => {
                self.encoded.clear();
                encode(value, &mut self.encoded);
                let answer = test(&self.encoded);
                if self.known.len() < Self::KNOWN_MAX {
                    self.known.insert(value, answer);
                }
                answer
            }
        };
        self.last = Some((value, answer));
        answer
    }
}

/// Appends a value that is not nested.
fn encode(value: ValueRef<'_>, out: &mut Vec<u8>) {
    value.encode(out).expect("a plain value is not nested");
}

fn decode(mut encoded: &[u8]) -> Option<Value> {
    Value::decode(&mut encoded)
}

fn double(bits: i64) -> ValueRef<'static> {
    ValueRef::Double(f64::from_bits(bits.cast_unsigned()))
}
