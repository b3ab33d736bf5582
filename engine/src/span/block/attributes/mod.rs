//! Attribute tables of a span block: the attributes of its items, which are rows, events or links.
//! Bytes: `docs/formats/attribute-table.md`.
//!
//! Each item has a *shape*: the ordered list of its fields. A field is an occurrence of a *column* (all
//! values of one key and type, item by item), a *fixed* pair of key and value, which then costs nothing
//! but the shape, or the next entry of the *rest*, where few items' keys are. What is nearly always the
//! same among the items of one class is fixed. An item's shape is written as its rank among the shapes
//! of the item's class, the most frequent first: nearly always 0.
//!
//! | file | holds |
//! | --- | --- |
//! | `loose.rs` | attributes in memory, to write a table from |
//! | `shapes.rs` | the table of shapes |
//! | `codes.rs` | which item has which shape |
//! | `placed.rs` | stretches of a section |
//! | `places.rs` | where in a column the occurrences of a group of items begin |
//! | `rest.rs` | entries that are in no column |
//! | `roles.rs` | what becomes a column, what is fixed, what goes to the rest |
//! | `writer.rs`, `gather.rs` | writing a table from loose attributes and other tables |
//! | `layout.rs` | what a reader holds of a table |
//! | `reader.rs` | an open table, the attributes of an item |
//! | `search.rs` | which items have a key, or a value |
//! | `listing.rs` | keys and values with counts, values of items |
//! | `item_set.rs` | sets of items, built in rising order |
//! | `check.rs` | reading whatever bytes, for fuzzing |
//!
//! Invariants
//! - Order and repeats of an item's attributes come back exactly.
//! - Items are in groups of 1,024; one group's shapes are decoded alone, and say which occurrences of
//!   each column are its items'.
//! - A table holds no key and no value that no item of it has.
//! - Columns, shapes and fixed values are bounded by [`Limits`]; whatever is beyond goes to the rest, so that
//!   memory is bounded and time linear whatever is sent.
//!
//! No locks: what is read on first use is kept in cells that are set once.

mod check;
mod codes;
mod gather;
mod item_set;
mod layout;
mod listing;
mod loose;
#[cfg(test)]
mod measure_test;
mod placed;
mod places;
mod reader;
mod rest;
mod roles;
mod search;
mod shapes;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;

pub use check::check_attribute_table;
pub(crate) use loose::LooseAttributes;
pub(crate) use reader::{AttributeCursor, AttributeTable};
pub(crate) use writer::write_attributes;

use crate::{column::integers::GROUP, error::Error};

/// Items of a group.
pub(crate) const GROUP_ITEMS: u32 = 1024;

const _: () = assert!(GROUP_ITEMS as usize == GROUP);

/// Where the attributes of a run of items come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AttributeSource<'a> {
    /// Another table.
    Table(&'a AttributeTable),
    /// Memory.
    Loose(&'a LooseAttributes),
}

/// Items of one source that follow each other there and in the table to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemRun {
    /// Which source, by its place among them.
    pub(crate) source: u32,
    /// The first item, as the source counts.
    pub(crate) first: u32,
    /// How many.
    pub(crate) items: u32,
}

/// What is known of the items of a table to write, in final order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ItemContext<'a> {
    /// A code of each item that says much about its attributes. Reading the table, [`ItemClasses`] gives
    /// the same codes.
    pub(crate) class_of: &'a [u32],
    /// The trace of each item, by number; rising.
    pub(crate) owner_of: &'a [u32],
}

/// Gives a reader the class codes that the table was written with.
pub(crate) trait ItemClasses: fmt::Debug + Send + Sync {
    /// Replaces `out` by the classes of the items of a group: items `1024 * group` up to, but without,
    /// `1024 * (group + 1)`, or up to the last.
    ///
    /// # Errors
    /// Of the block that holds them.
    fn class_group(&self, group: u32, out: &mut Vec<u32>) -> Result<(), Error>;
}

/// The classes of items that are all of class 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneClass {
    /// How many items there are.
    pub(crate) items: u32,
}

impl ItemClasses for OneClass {
    fn class_group(&self, group: u32, out: &mut Vec<u32>) -> Result<(), Error> {
        out.clear();
        out.resize(items_of_group(self.items, group), 0);
        Ok(())
    }
}

/// How many of `items` are in a group.
fn items_of_group(items: u32, group: u32) -> usize {
    let first = group.saturating_mul(GROUP_ITEMS);
    items.saturating_sub(first).min(GROUP_ITEMS) as usize
}

/// The type of a value, as far as columns tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum ValueType {
    /// Text.
    Str = 0,
    /// Signed integers.
    Int = 1,
    /// Doubles.
    Double = 2,
    /// Truth values.
    Bool = 3,
    /// Bytes, lists, maps and empty values.
    Other = 4,
}

impl ValueType {
    const ALL: [Self; 5] = [Self::Str, Self::Int, Self::Double, Self::Bool, Self::Other];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// Of an encoded value (`crate::value`), by its first byte.
    #[inline]
    fn of(encoded: &[u8]) -> Self {
        match encoded.first() {
            Some(1 | 2) => Self::Bool,
            Some(3) => Self::Int,
            Some(4) => Self::Double,
            Some(5) => Self::Str,
            _ => Self::Other,
        }
    }
}

/// What bounds a table. Tests set lower ones.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Columns of a table.
    columns_max: usize,
    /// Occurrences from which on a key and type is worth a column, where there are more than fit.
    column_occurrences_min: u64,
    /// Shapes of a table.
    shapes_max: usize,
    /// Fields of one shape.
    shape_fields_max: usize,
    /// Fields of all shapes.
    fields_max: usize,
    /// Distinct values of one key and type that may be fixed.
    fixed_values_max: usize,
    /// Shapes seen in a sample above which less is fixed.
    sampled_shapes_max: usize,
}

impl Limits {
    const STANDARD: Self = Self {
        columns_max: 512,
        column_occurrences_min: 8,
        shapes_max: 16_384,
        shape_fields_max: 1024,
        fields_max: 256 << 10,
        fixed_values_max: 256,
        sampled_shapes_max: 4096,
    };
}
