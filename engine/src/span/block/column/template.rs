//! Texts with numbers in them: what is left without the numbers, and the numbers.
//!
//! `SELECT * FROM cart WHERE id = 4711` is a *template*, with a slot where the number stood, and the number
//! 4711. Columns of such texts have few templates and as many numbers as texts.
//!
//! 1. A run of up to 18 digits is a number; zeros in front of it stay text. So every text is split in one
//!    way and put together again exactly.
//! 2. A slot that holds the same number in all texts of its template becomes text again.
//! 3. The first number of every text is one sequence, the second one another, and so on.
//!
//! Whether a text fits a template is found by laying them side by side: what fits is put together to the
//! same text, so nothing is found wrongly. Bytes: `docs/formats/attribute-column.md`.

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::{
    Classes,
    head::HeadReader,
    numbers::{GROUP_LEN, Numbers, NumbersCursor, place_of},
    sequence::{Sequence, SequenceCursor},
    sink::Sink,
    source::ColumnSource,
    table::ValueTable,
    texts::{Texts, TextsCursor},
    wanted::Wanted,
};
use crate::{column::integers::GROUP, error::Error};

/// Stands in a template where a number stands in the texts.
const SLOT: u8 = 0;
/// Numbers of a text at most; what follows them stays text.
const SLOTS_MAX: usize = 16;
/// Digits of a number: any so many fit an `i64`.
const DIGITS_MAX: usize = 18;
/// Texts on which is tried whether templates pay.
const SAMPLE: usize = 1024;
/// Of so many texts one may have a template that no other has.
const TEXTS_A_TEMPLATE_MIN: usize = 4;
/// Bytes that a digit takes in compressed text, about.
const DIGIT_BYTES: f64 = 0.45;

/// Texts taken apart, not written yet.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// [`SLOT`] for each number that varies.
    templates: ValueTable,
    /// By template, how many slots are left.
    slots: Vec<i64>,
    /// By occurrence, the template.
    codes: Vec<i64>,
    /// The first numbers, the second ones, and so on.
    streams: Vec<Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    numbers: Vec<i64>,
    /// How many of them lie before each group of occurrences.
    ranks: Vec<i64>,
}

/// Takes numbers out of a text; false if that cannot be done.
fn take_apart(text: &[u8], template: &mut Vec<u8>, numbers: &mut Vec<i64>) -> bool {
    let start = numbers.len();
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        if !byte.is_ascii_digit() {
            if byte == SLOT {
                return false;
            }
            template.push(byte);
            rest = behind;
            continue;
        }
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (run, behind) = rest.split_at_checked(digits).unwrap_or((rest, &[]));
        rest = behind;
        if digits > DIGITS_MAX || numbers.len() - start >= SLOTS_MAX {
            template.extend_from_slice(run);
            continue;
        }
        let zeros = run.iter().take_while(|&&byte| byte == b'0').count();
        let zeros = zeros.min(digits - 1);
        template.extend_from_slice(run.get(..zeros).unwrap_or_default());
        template.push(SLOT);
        let digits = run.get(zeros..).unwrap_or_default();
        numbers.push(number_of(digits));
    }
    true
}

/// The number that at most 18 digits are.
fn number_of(digits: &[u8]) -> i64 {
    digits
        .iter()
        .fold(0, |number, byte| number * 10 + i64::from(byte & 15))
}

/// Appends a number that is not negative.
fn put_number(number: i64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.cast_unsigned();
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        let last = (rest % 10) as u8;
        *digit = b'0' + last;
        rest /= 10;
        at = place;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// Takes the numbers of a text that fits the template.
fn fit(template: &[u8], text: &[u8], numbers: &mut Vec<i64>) -> bool {
    numbers.clear();
    let mut rest = text;
    for &byte in template {
        if byte != SLOT {
            match rest.split_first() {
                Some((&found, behind)) if found == byte => rest = behind,
                _ => return false,
            }
            continue;
        }
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (run, behind) = rest.split_at_checked(digits).unwrap_or((rest, &[]));
        let is_number =
            (1..=DIGITS_MAX).contains(&digits) && (digits == 1 || run.first() != Some(&b'0'));
        if !is_number {
            return false;
        }
        numbers.push(number_of(run));
        rest = behind;
    }
    rest.is_empty()
}

/// Appends the text that a template and its numbers are.
fn put_together(
    template: &[u8],
    mut number: impl FnMut(usize) -> Result<i64, Error>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut slot = 0;
    for piece in template.split_inclusive(|&byte| byte == SLOT) {
        match piece.split_last() {
            Some((&SLOT, text)) => {
                out.extend_from_slice(text);
                put_number(number(slot)?, out);
                slot += 1;
            }
            _ => out.extend_from_slice(piece),
        }
    }
    Ok(())
}

impl Split {
    /// Takes the texts of a column apart, if that is likely to pay: `text` gives those of the numbers in
    /// `used`, each of which is one of `codes` at least.
    pub(super) fn new<'a>(
        text: impl Fn(u32) -> &'a [u8],
        used: &[u32],
        values: usize,
        codes: &[u32],
    ) -> Option<Self> {
        if !is_promising(&text, used) {
            return None;
        }
        // 1. By text: its template, and where its numbers end.
        let mut known: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut of_value: Vec<(u32, u32)> = vec![(u32::MAX, 0); values];
        let (mut numbers, mut slot_starts) = (Vec::new(), Vec::new());
        let mut slots: Vec<Slot> = Vec::new();
        let mut template = Vec::new();
        let templates_max = (used.len() / TEXTS_A_TEMPLATE_MIN).max(1);
        for &value in used {
            let start = numbers.len();
            template.clear();
            if !take_apart(text(value), &mut template, &mut numbers) {
                return None;
            }
            let found = numbers.get(start..).unwrap_or_default();
            let number = if let Some(&number) = known.get(&template) {
                let first = slot_starts.get(number as usize).copied().unwrap_or(0);
                let slots = slots.get_mut(first..first + found.len())?;
                for (slot, &number) in slots.iter_mut().zip(found) {
                    slot.varies |= slot.first != number;
                }
                number
            } else {
                if known.len() >= templates_max {
                    return None;
                }
                let number = u32::try_from(known.len()).ok()?;
                known.insert(template.clone(), number);
                slot_starts.push(slots.len());
                slots.extend(found.iter().map(|&first| Slot {
                    first,
                    varies: false,
                }));
                number
            };
            *of_value.get_mut(value as usize)? = (number, u32::try_from(start).ok()?);
        }
        // 2. Slots that do not vary become text.
        let mut split = Self::default();
        let mut raw: Vec<(Vec<u8>, u32)> = known.into_iter().collect();
        raw.sort_unstable_by_key(|&(_, number)| number);
        for ((raw, _), &first) in raw.iter().zip(&slot_starts) {
            let mut refined = Vec::with_capacity(raw.len());
            let mut of_template = slots.get(first..)?.iter();
            let mut varying = 0;
            for &byte in raw {
                match of_template.as_slice().first() {
                    Some(slot) if byte == SLOT => {
                        if slot.varies {
                            refined.push(SLOT);
                            varying += 1;
                        } else {
                            put_number(slot.first, &mut refined);
                        }
                        of_template.next();
                    }
                    _ => refined.push(byte),
                }
            }
            split.templates.push(&refined)?;
            split.slots.push(varying);
        }
        // 3. By occurrence.
        let streams = split.slots.iter().copied().max().unwrap_or(0);
        split
            .streams
            .resize_with(usize::try_from(streams).ok()?, Stream::default);
        split.codes.reserve(codes.len());
        let raw_slots: Vec<usize> = slot_starts
            .iter()
            .zip(slot_starts.iter().skip(1).chain([&slots.len()]))
            .map(|(start, end)| end - start)
            .collect();
        for (at, &code) in codes.iter().enumerate() {
            if at % GROUP == 0 {
                for stream in &mut split.streams {
                    stream.ranks.push(i64::try_from(stream.numbers.len()).ok()?);
                }
            }
            let (number, start) = of_value.get(code as usize).copied()?;
            split.codes.push(i64::from(number));
            let first = slot_starts.get(number as usize).copied()?;
            let count = raw_slots.get(number as usize).copied()?;
            let found = numbers.get(start as usize..)?;
            let slots = slots.get(first..first + count)?;
            let mut streams = split.streams.iter_mut();
            for (slot, &number) in slots.iter().zip(found) {
                if slot.varies {
                    streams.next()?.numbers.push(number);
                }
            }
        }
        Some(split)
    }

    /// Whether this takes less than sorted texts and their codes would, about. `runs` is how often the
    /// text is another than that of the occurrence before.
    pub(super) fn pays(&self, distinct: usize, runs: usize) -> bool {
        let mut bytes = 0.0;
        let mut digits = 0.0;
        for stream in &self.streams {
            bytes += Sequence::rate(&stream.numbers);
            let step = stream.numbers.len().div_ceil(SAMPLE).max(1);
            let sample = stream.numbers.iter().step_by(step);
            let sampled = sample.len().max(1) as f64;
            let sum: f64 = sample
                .map(|&number| (number as f64 + 1.0).log10().ceil())
                .sum();
            digits += sum / sampled * stream.numbers.len() as f64 / self.codes.len().max(1) as f64;
        }
        let code_bytes = (distinct as f64).log2() / 8.0;
        let dictionary = distinct as f64 * (digits * DIGIT_BYTES + 1.0);
        bytes < runs as f64 * code_bytes + dictionary
    }

    pub(super) fn write(&self, classes: &[u32], sink: &mut Sink<'_>) -> Result<Templates, Error> {
        let mut streams = Vec::with_capacity(self.streams.len());
        for stream in &self.streams {
            let numbers = Sequence::write(&stream.numbers, &[], sink)?;
            let ranks = if stream.numbers.len() == self.codes.len() {
                None
            } else {
                Some(Numbers::write(stream.ranks.iter().copied(), sink)?)
            };
            streams.push(StreamPlace { numbers, ranks });
        }
        Ok(Templates {
            texts: Texts::write(self.templates.iter(), false, sink)?,
            slots: Numbers::write(self.slots.iter().copied(), sink)?,
            codes: Sequence::write(&self.codes, classes, sink)?,
            streams,
        })
    }
}

/// A slot of a template while texts are taken apart.
#[derive(Debug)]
struct Slot {
    first: i64,
    varies: bool,
}

/// Whether few templates stand for most of a sample.
fn is_promising<'a>(text: &impl Fn(u32) -> &'a [u8], used: &[u32]) -> bool {
    let step = used.len().div_ceil(SAMPLE).max(1);
    let mut templates: HashMap<Vec<u8>, ()> = HashMap::new();
    let (mut sampled, mut with_numbers) = (0, 0);
    let mut numbers = Vec::new();
    for &value in used.iter().step_by(step) {
        let mut template = Vec::new();
        numbers.clear();
        if !take_apart(text(value), &mut template, &mut numbers) {
            return false;
        }
        sampled += 1;
        with_numbers += usize::from(!numbers.is_empty());
        templates.insert(template, ());
    }
    templates.len() * TEXTS_A_TEMPLATE_MIN <= sampled && with_numbers * 2 >= sampled
}

/// Where templates and numbers lie.
#[derive(Clone, Debug)]
pub(super) struct Templates {
    texts: Texts,
    /// By template, how many slots it has.
    slots: Numbers,
    codes: Sequence,
    streams: Vec<StreamPlace>,
}

#[derive(Clone, Debug)]
struct StreamPlace {
    numbers: Sequence,
    /// How many numbers lie before each group of occurrences; `None` if each occurrence has one.
    ranks: Option<Numbers>,
}

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct TemplatesCursor {
    texts: TextsCursor,
    codes: SequenceCursor,
    streams: Vec<StreamCursor>,
    slots: Option<Vec<i64>>,
    /// The group whose numbers of slots are at hand.
    group: Option<u32>,
    group_codes: Vec<i64>,
    group_slots: Vec<u8>,
    numbers: Vec<i64>,
}

#[derive(Debug, Default)]
struct StreamCursor {
    numbers: SequenceCursor,
    ranks: NumbersCursor,
}

impl Templates {
    pub(super) fn put(&self, head: &mut Vec<u8>) {
        self.texts.put(head);
        self.slots.put(head);
        self.codes.put(head);
        #[expect(clippy::cast_possible_truncation, reason = "at most sixteen")]
        head.push(self.streams.len() as u8);
        for stream in &self.streams {
            head.push(u8::from(stream.ranks.is_some()));
            stream.numbers.put_counted(head);
            if let Some(ranks) = &stream.ranks {
                ranks.put(head);
            }
        }
    }

    pub(super) fn take(head: &mut HeadReader<'_>, count: u32) -> Result<Self, Error> {
        let texts = Texts::take(head)?;
        let slots = Numbers::take(head)?;
        let codes = Sequence::take(head, count)?;
        if slots.len() != texts.len() {
            return Err(head.damaged("another number of templates than of their slots"));
        }
        let stream_count = usize::from(head.byte()?);
        if stream_count > SLOTS_MAX {
            return Err(head.damaged("more numbers in a text than there may be"));
        }
        let mut streams = Vec::with_capacity(stream_count);
        for _ in 0..stream_count {
            let has_ranks = head.byte()? != 0;
            let numbers = Sequence::take_counted(head)?;
            let ranks = if has_ranks {
                Some(Numbers::take(head)?)
            } else {
                None
            };
            let fits = match &ranks {
                None => numbers.len() == count,
                Some(ranks) => numbers.len() <= count && ranks.len() == count.div_ceil(GROUP_LEN),
            };
            if !fits {
                return Err(head.damaged("another number of numbers than of texts"));
            }
            streams.push(StreamPlace { numbers, ranks });
        }
        Ok(Self {
            texts,
            slots,
            codes,
            streams,
        })
    }

    #[cfg(test)]
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{} templates, {}", self.texts.len(), self.codes.name());
        for stream in &self.streams {
            text.push_str("; numbers, ");
            text.push_str(stream.numbers.name());
        }
        text
    }

    pub(super) fn needs_classes(&self) -> bool {
        self.codes.needs_classes()
    }

    #[cfg(test)]
    pub(super) fn section_bytes(&self) -> u64 {
        let streams = self.streams.iter().map(|stream| {
            let ranks = stream.ranks.as_ref().map_or(0, Numbers::section_bytes);
            stream.numbers.section_bytes() + ranks
        });
        self.texts.section_bytes()
            + self.slots.section_bytes()
            + self.codes.section_bytes()
            + streams.sum::<u64>()
    }

    /// Appends the text of an occurrence.
    pub(super) fn get(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        cursor: &mut TemplatesCursor,
        occurrence: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let template = self.template_of(source, classes, cursor, occurrence)?;
        let slots = self.slot_count(source, cursor, template)?;
        let mut numbers = std::mem::take(&mut cursor.numbers);
        numbers.clear();
        for stream in 0..slots {
            numbers.push(self.number(source, classes, cursor, occurrence, stream)?);
        }
        let template = self.texts.get(source, &mut cursor.texts, template)?;
        let wrong = || source.damaged(0, "a template with more slots than it should have");
        let put = put_together(
            template,
            |slot| numbers.get(slot).copied().ok_or_else(wrong),
            out,
        );
        cursor.numbers = numbers;
        put
    }

    fn template_of(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        cursor: &mut TemplatesCursor,
        occurrence: u32,
    ) -> Result<u32, Error> {
        let code = self
            .codes
            .get(source, classes, &mut cursor.codes, occurrence)?;
        u32::try_from(code)
            .ok()
            .filter(|&code| code < self.texts.len())
            .ok_or_else(|| source.damaged(0, "a template beyond the last"))
    }

    /// How many slots a template has.
    fn slot_count(
        &self,
        source: &ColumnSource,
        cursor: &mut TemplatesCursor,
        template: u32,
    ) -> Result<usize, Error> {
        if cursor.slots.is_none() {
            let mut slots = Vec::new();
            self.slots.load(source, &mut slots)?;
            cursor.slots = Some(slots);
        }
        let slots = cursor.slots.as_ref();
        slots
            .and_then(|slots| slots.get(template as usize))
            .and_then(|&slots| usize::try_from(slots).ok())
            .filter(|&slots| slots <= self.streams.len())
            .ok_or_else(|| source.damaged(0, "a template has more slots than there are numbers"))
    }

    /// The number in a slot of an occurrence.
    fn number(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        cursor: &mut TemplatesCursor,
        occurrence: u32,
        slot: usize,
    ) -> Result<i64, Error> {
        let Some(stream) = self.streams.get(slot) else {
            return Err(source.damaged(0, "a slot beyond the last"));
        };
        let mut place = occurrence;
        if let Some(ranks) = &stream.ranks {
            let (group, at) = place_of(occurrence);
            self.load_group(source, classes, cursor, group)?;
            let before = cursor.group_slots.get(..at).unwrap_or_default();
            let has_it = before
                .iter()
                .map(|&slots| u32::from(usize::from(slots) > slot));
            let stream_cursor = stream_cursor(&mut cursor.streams, slot);
            let rank = ranks.get(source, &mut stream_cursor.ranks, group)?;
            place = u32::try_from(rank)
                .ok()
                .and_then(|rank| rank.checked_add(has_it.sum()))
                .ok_or_else(|| source.damaged(0, "numbers before the first"))?;
        }
        let stream_cursor = stream_cursor(&mut cursor.streams, slot);
        stream
            .numbers
            .get(source, classes, &mut stream_cursor.numbers, place)
    }

    /// Reads how many slots the occurrences of a group have.
    fn load_group(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        cursor: &mut TemplatesCursor,
        group: u32,
    ) -> Result<(), Error> {
        if cursor.group == Some(group) {
            return Ok(());
        }
        cursor.group = None;
        let mut codes = std::mem::take(&mut cursor.group_codes);
        codes.clear();
        self.codes
            .group(source, classes, &mut cursor.codes, group, &mut codes)?;
        cursor.group_slots.clear();
        for &code in &codes {
            let template = u32::try_from(code).unwrap_or(u32::MAX);
            let slots = self.slot_count(source, cursor, template)?;
            cursor
                .group_slots
                .push(u8::try_from(slots).unwrap_or(u8::MAX));
        }
        cursor.group_codes = codes;
        cursor.group = Some(group);
        Ok(())
    }

    /// Calls `visit` with every text and its occurrence.
    pub(super) fn each(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        mut visit: impl FnMut(u32, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut templates = ValueTable::default();
        self.texts.each(source, |_, text| {
            let pushed = templates.push(text).map(|_| ());
            pushed.ok_or_else(|| source.damaged(0, "templates of more than 4 GiB"))
        })?;
        let mut cursors: Vec<SequenceCursor> = Vec::new();
        cursors.resize_with(self.streams.len(), SequenceCursor::default);
        let mut places = vec![0_u32; self.streams.len()];
        let mut out = Vec::new();
        self.codes.each_piece(source, classes, |start, codes| {
            for (occurrence, &code) in (start..).zip(codes) {
                let template = u32::try_from(code)
                    .ok()
                    .filter(|&template| template < self.texts.len())
                    .ok_or_else(|| source.damaged(0, "a template beyond the last"))?;
                out.clear();
                let number = |slot: usize| {
                    let stream = self.streams.get(slot).zip(cursors.get_mut(slot));
                    let (Some((stream, cursor)), Some(place)) = (stream, places.get_mut(slot))
                    else {
                        return Err(source.damaged(0, "a slot beyond the last"));
                    };
                    let number = stream.numbers.get(source, classes, cursor, *place)?;
                    *place += 1;
                    Ok(number)
                };
                put_together(templates.get(template), number, &mut out)?;
                visit(occurrence, &out)?;
            }
            Ok(())
        })
    }

    /// The occurrences of a text.
    pub(super) fn find(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        text: &[u8],
        candidates: Option<&RoaringBitmap>,
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<RoaringBitmap, Error> {
        let mut fitting: Vec<(u32, Vec<i64>)> = Vec::new();
        let mut numbers = Vec::new();
        self.texts.each(source, |template, of_template| {
            if fit(of_template, text, &mut numbers) {
                fitting.push((template, numbers.clone()));
            }
            Ok(())
        })?;
        let mut found = RoaringBitmap::new();
        let mut cursor = TemplatesCursor::default();
        for (template, numbers) in fitting {
            let code = Wanted::one(i64::from(template));
            // The slot whose numbers lie furthest apart tells most.
            let slots = (0..).zip(&self.streams).take(numbers.len());
            let spans = slots.map(|(slot, stream)| Ok((stream.numbers.span(source)?, slot)));
            let widest = spans
                .collect::<Result<Vec<(u64, usize)>, Error>>()?
                .into_iter()
                .max();
            let Some((_, slot)) = widest else {
                found |= self.codes.find(source, classes, &code, candidates, check)?;
                continue;
            };
            let (Some(stream), Some(&number)) = (self.streams.get(slot), numbers.get(slot)) else {
                continue;
            };
            let wanted = Wanted::one(number);
            let places = stream.numbers.find(source, classes, &wanted, None, check)?;
            for place in places {
                let occurrence =
                    self.occurrence(source, classes, &mut cursor, stream, slot, place)?;
                if candidates.is_some_and(|candidates| !candidates.contains(occurrence))
                    || self.template_of(source, classes, &mut cursor, occurrence)? != template
                {
                    continue;
                }
                let mut fits = true;
                for (other, &number) in numbers.iter().enumerate() {
                    fits = fits
                        && (other == slot
                            || self.number(source, classes, &mut cursor, occurrence, other)?
                                == number);
                }
                if fits {
                    found.insert(occurrence);
                }
            }
        }
        Ok(found)
    }

    /// Whose number it is.
    fn occurrence(
        &self,
        source: &ColumnSource,
        classes: &dyn Classes,
        cursor: &mut TemplatesCursor,
        stream: &StreamPlace,
        slot: usize,
        place: u32,
    ) -> Result<u32, Error> {
        let Some(ranks) = &stream.ranks else {
            return Ok(place);
        };
        let wrong = || source.damaged(0, "a number that belongs to no text");
        let rank_cursor = &mut stream_cursor(&mut cursor.streams, slot).ranks;
        let groups = ranks.rank(source, rank_cursor, i64::from(place), true)?;
        let group = groups.checked_sub(1).ok_or_else(wrong)?;
        let rank_cursor = &mut stream_cursor(&mut cursor.streams, slot).ranks;
        let first = ranks.get(source, rank_cursor, group)?;
        let behind = usize::try_from(i64::from(place) - first).map_err(|_| wrong())?;
        self.load_group(source, classes, cursor, group)?;
        let at = (0..)
            .zip(&cursor.group_slots)
            .filter(|&(_, &slots)| usize::from(slots) > slot)
            .nth(behind);
        let (at, _): (u32, _) = at.ok_or_else(wrong)?;
        Ok(group * GROUP_LEN + at)
    }
}

fn stream_cursor(cursors: &mut Vec<StreamCursor>, slot: usize) -> &mut StreamCursor {
    if cursors.len() <= slot {
        cursors.resize_with(slot + 1, StreamCursor::default);
    }
    cursors.get_mut(slot).expect("there are enough now")
}
