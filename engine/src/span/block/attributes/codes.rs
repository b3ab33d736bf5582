//! Which item has which shape: groups of 1,024 codes.
//!
//! A code is the rank of the shape among those of the item's class, the most frequent first, or, where
//! classes say too little, the shape's number. A group whose items all have the first shape of their class
//! takes a byte.

#![expect(
    clippy::indexing_slicing,
    reason = "slots and ranks are numbered here; what is read is checked against the table of shapes"
)]

use hashbrown::HashMap;

use super::{
    GROUP_ITEMS, ItemClasses, items_of_group,
    placed::{Fields, Place, StretchWriter, index, placed, read_integers, write_bytes},
};
use crate::{
    column::integers::{self, GROUP},
    error::Error,
    span::block::column::{ColumnSource, Sink},
    varint::put_u64,
};

/// Where the codes of a table lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CodePlaces {
    /// The shapes of each class; `None` if codes are numbers of shapes.
    classes: Option<Place>,
    /// The groups, end to end.
    groups: Place,
    /// How long each group is.
    lengths: Place,
}

impl CodePlaces {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.push(u8::from(self.classes.is_some()));
        for place in [self.classes.unwrap_or_default(), self.groups, self.lengths] {
            place.write(out);
        }
    }

    /// Bytes in the section.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.classes.map_or(0, |classes| classes.bytes) + self.groups.bytes + self.lengths.bytes
    }

    pub(super) fn read(input: &mut Fields<'_>) -> Result<Self, Error> {
        let by_class = match input.slice(1)? {
            [0] => false,
            [1] => true,
            _ => return Err(input.damaged("unknown form of the codes of shapes")),
        };
        let classes = input.place()?;
        Ok(Self {
            classes: by_class.then_some(classes),
            groups: input.place()?,
            lengths: input.place()?,
        })
    }
}

/// The ranks of items' shapes among those of their classes.
struct Ranks {
    /// Shapes of each class, by rank: class by class.
    shapes: Vec<Vec<u32>>,
    slot_of: Vec<u32>,
    rank_of_slot: Vec<u32>,
}

impl Ranks {
    /// `None` if there are too many classes for it to pay.
    fn new(shape_of: &[u32], class_of: &[u32], shapes: u32) -> Option<Self> {
        let classes = class_of.iter().max().map_or(0, |&max| max as usize + 1);
        if classes > shape_of.len().saturating_mul(2) + 1024 {
            return None;
        }
        let shape_bits = u32::BITS - shapes.saturating_sub(1).leading_zeros();
        let slots_max = shape_of.len() * shape_bits as usize / 16 + 1024;
        let mut last: Vec<u32> = vec![u32::MAX; classes];
        let mut slots: Vec<(u32, u32, u32)> = Vec::new();
        let mut known: HashMap<u64, u32> = HashMap::new();
        let mut slot_of = Vec::with_capacity(shape_of.len());
        for (&shape, &class) in shape_of.iter().zip(class_of) {
            let slot = last[class as usize];
            let slot = match slots.get(slot as usize) {
                Some(&(_, of, _)) if of == shape => slot,
                _ => {
                    let next = u32::try_from(slots.len()).ok()?;
                    let pair = u64::from(class) << 32 | u64::from(shape);
                    let slot = *known.entry(pair).or_insert(next);
                    if slot == next {
                        slots.push((class, shape, 0));
                        if slots.len() > slots_max {
                            return None;
                        }
                    }
                    last[class as usize] = slot;
                    slot
                }
            };
            slots[slot as usize].2 += 1;
            slot_of.push(slot);
        }
        let mut order: Vec<u32> = (0..u32::try_from(slots.len()).ok()?).collect();
        order.sort_unstable_by_key(|&slot| {
            let (class, shape, count) = slots[slot as usize];
            (class, std::cmp::Reverse(count), shape)
        });
        let mut shapes = vec![Vec::new(); classes];
        let mut rank_of_slot = vec![0; slots.len()];
        for slot in order {
            let (class, shape, _) = slots[slot as usize];
            let of_class = &mut shapes[class as usize];
            rank_of_slot[slot as usize] = u32::try_from(of_class.len()).ok()?;
            of_class.push(shape);
        }
        Some(Self {
            shapes,
            slot_of,
            rank_of_slot,
        })
    }

    fn write_classes(&self, sink: &mut Sink<'_>) -> Result<Place, Error> {
        let mut bytes = Vec::new();
        put_u64(&mut bytes, self.shapes.len() as u64);
        for shapes in &self.shapes {
            put_u64(&mut bytes, shapes.len() as u64);
            for &shape in shapes {
                put_u64(&mut bytes, u64::from(shape));
            }
        }
        write_bytes(sink, &bytes)
    }
}

/// Writes the shape of each item, numbers below `shapes`.
pub(super) fn write_codes(
    shape_of: &[u32],
    class_of: &[u32],
    shapes: u32,
    sink: &mut Sink<'_>,
) -> Result<CodePlaces, Error> {
    let ranks = if shapes > 1 {
        Ranks::new(shape_of, class_of, shapes)
    } else {
        None
    };
    let classes = match &ranks {
        Some(ranks) => Some(ranks.write_classes(sink)?),
        None => None,
    };
    let mut codes = Vec::with_capacity(GROUP);
    let mut lengths = Vec::new();
    let mut groups = StretchWriter::default();
    for first in (0..shape_of.len()).step_by(GROUP) {
        let items = first..shape_of.len().min(first + GROUP);
        codes.clear();
        match &ranks {
            Some(ranks) => {
                let slots = ranks.slot_of[items].iter();
                codes.extend(slots.map(|&slot| i64::from(ranks.rank_of_slot[slot as usize])));
            }
            None => codes.extend(shape_of[items].iter().map(|&shape| i64::from(shape))),
        }
        let mut bytes = 0;
        groups.push(sink, |out| {
            let before = out.len();
            integers::encode_group(&codes, out);
            bytes = out.len() - before;
        })?;
        lengths.push(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    let groups = groups.finish(sink)?;
    let mut bytes = Vec::new();
    integers::encode(&lengths, &mut bytes);
    Ok(CodePlaces {
        classes,
        groups,
        lengths: write_bytes(sink, &bytes)?,
    })
}

/// The shapes that items of each class have.
#[derive(Debug, Default)]
pub(super) struct ClassShapes {
    ends: Vec<u32>,
    shapes: Vec<u32>,
}

impl ClassShapes {
    fn read(source: &ColumnSource, place: Place, shapes: u32) -> Result<Self, Error> {
        let bytes = place.read(source)?;
        let mut input = Fields::new(source, place.start, &bytes);
        let classes = input.count()?;
        let mut table = Self::default();
        for _ in 0..classes {
            for _ in 0..input.count()? {
                let shape = input.number_to(
                    shapes.saturating_sub(1),
                    "a class has a shape that there is not",
                )?;
                table.shapes.push(shape);
            }
            let end = u32::try_from(table.shapes.len());
            table
                .ends
                .push(end.map_err(|_| input.damaged("too many shapes of classes"))?);
        }
        Ok(table)
    }

    fn classes(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// The shapes of a class, by rank.
    #[inline]
    fn of(&self, class: u32) -> &[u32] {
        let class = class as usize;
        let Some(&end) = self.ends.get(class) else {
            return &[];
        };
        let before = class
            .checked_sub(1)
            .and_then(|before| self.ends.get(before));
        let start = before.map_or(0, |&start| start as usize);
        self.shapes.get(start..end as usize).unwrap_or_default()
    }
}

/// The codes of a table, as they are read.
#[derive(Debug, Default)]
pub(super) struct ShapeCodes {
    items: u32,
    shapes: u32,
    classes: Option<ClassShapes>,
    /// Where each group starts in the section, and where the last one ends.
    starts: Vec<u64>,
}

/// Room for decoding a group.
#[derive(Debug)]
pub(super) struct GroupScratch {
    codes: Box<[i64; GROUP]>,
    classes: Vec<u32>,
}

impl Default for GroupScratch {
    fn default() -> Self {
        Self {
            codes: Box::new([0; GROUP]),
            classes: Vec::new(),
        }
    }
}

impl ShapeCodes {
    pub(super) fn open(
        source: &ColumnSource,
        places: &CodePlaces,
        items: u32,
        shapes: u32,
    ) -> Result<Self, Error> {
        let groups = items.div_ceil(GROUP_ITEMS) as usize;
        let mut starts = Vec::new();
        if groups > 0 {
            let lengths = read_integers(source, places.lengths, groups)?;
            starts.reserve(groups + 1);
            let mut start = places.groups.start;
            starts.push(start);
            for length in lengths {
                let end = u64::try_from(length)
                    .ok()
                    .and_then(|n| start.checked_add(n));
                start = end.ok_or_else(|| {
                    source.damaged(places.lengths.start, "a group of codes has no such length")
                })?;
                starts.push(start);
            }
            if start.checked_sub(places.groups.start) != Some(places.groups.bytes) {
                return Err(source.damaged(
                    places.lengths.start,
                    "groups of codes have other lengths together",
                ));
            }
        }
        let classes = match places.classes {
            Some(place) => Some(ClassShapes::read(source, place, shapes)?),
            None => None,
        };
        Ok(Self {
            items,
            shapes,
            classes,
            starts,
        })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let classes = self.classes.as_ref();
        let classes = classes.map_or(0, |c| c.ends.capacity() + c.shapes.capacity());
        self.starts.capacity() * size_of::<u64>() + classes * size_of::<u32>()
    }

    /// For each class, whether its items' shapes are wanted: `wanted` is by shape.
    pub(super) fn wanted_by_class(&self, wanted: &[bool]) -> Option<Vec<Wanted>> {
        let classes = self.classes.as_ref()?;
        let of = |class| {
            let mut any = false;
            let mut all = true;
            for &shape in classes.of(class) {
                let wanted = wanted.get(shape as usize).copied().unwrap_or_default();
                any |= wanted;
                all &= wanted;
            }
            match (any, all) {
                (false, _) => Wanted::None,
                (true, true) => Wanted::All,
                (true, false) => Wanted::Some,
            }
        };
        Some((0..classes.classes()).map(of).collect())
    }

    /// Decodes the shapes of the items of a group into the emptied `out`; each is below the number of
    /// shapes.
    pub(super) fn decode_group(
        &self,
        source: &ColumnSource,
        item_classes: &dyn ItemClasses,
        group: u32,
        scratch: &mut GroupScratch,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        out.clear();
        let items = items_of_group(self.items, group);
        self.decode_codes(source, group, items, scratch)?;
        let start = self.starts.get(group as usize).copied().unwrap_or_default();
        let Some(classes) = &self.classes else {
            for &code in &scratch.codes[..items] {
                match u32::try_from(code).ok().filter(|code| *code < self.shapes) {
                    Some(shape) => out.push(shape),
                    None => return Err(source.damaged(start, "an item of an unknown shape")),
                }
            }
            return Ok(());
        };
        item_classes.class_group(group, &mut scratch.classes)?;
        if scratch.classes.len() != items {
            return Err(source.damaged(start, "items have other classes than were written"));
        }
        for (&class, &code) in scratch.classes.iter().zip(scratch.codes.iter()) {
            let code = usize::try_from(code).unwrap_or(usize::MAX);
            match classes.of(class).get(code) {
                Some(&shape) => out.push(shape),
                None => {
                    return Err(source.damaged(start, "an item of a shape unknown to its class"));
                }
            }
        }
        Ok(())
    }

    /// Whether the items of a group have wanted shapes, into the emptied `out`, as far as their classes say.
    /// `by_class` is of [`Self::wanted_by_class`]. False if classes do not decide for all: their codes are
    /// to be read then.
    pub(super) fn wanted_group(
        &self,
        item_classes: &dyn ItemClasses,
        group: u32,
        by_class: &[Wanted],
        scratch: &mut GroupScratch,
        out: &mut Vec<Wanted>,
    ) -> Result<bool, Error> {
        out.clear();
        item_classes.class_group(group, &mut scratch.classes)?;
        let mut decided = scratch.classes.len() == items_of_group(self.items, group);
        for &class in &scratch.classes {
            let wanted = by_class.get(class as usize).copied();
            let wanted = wanted.unwrap_or(Wanted::Some);
            decided &= wanted != Wanted::Some;
            out.push(wanted);
        }
        Ok(decided)
    }

    fn decode_codes(
        &self,
        source: &ColumnSource,
        group: u32,
        items: usize,
        scratch: &mut GroupScratch,
    ) -> Result<(), Error> {
        if items == 0 {
            return Ok(());
        }
        let at = group as usize;
        let (Some(&start), Some(&end)) = (self.starts.get(at), self.starts.get(at + 1)) else {
            return Err(source.damaged(0, "a group of codes that there is not"));
        };
        let bytes = source.read(start..end)?;
        let taken = integers::decode_group(&bytes, items, &mut scratch.codes)
            .map_err(|error| placed(source, start, error))?;
        if taken != index(end - start) {
            return Err(source.damaged(start, "a group of codes has another length"));
        }
        Ok(())
    }
}

/// Whether items of a class have a shape that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// None has.
    None,
    /// Some may have.
    Some,
    /// All have.
    All,
}
