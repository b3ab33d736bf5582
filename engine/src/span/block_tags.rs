//! Attributes of the rows of a block: which rows have them, and what they are.
//!
//! Spans have a table of their own. Events, links and extras (the status message) are items with tables
//! of theirs; what is found among them counts for the rows that have them.

use std::{collections::HashMap, sync::Arc};

use roaring::RoaringBitmap;

use super::{
    block::{SatelliteCursor, Satellites, attributes::AttributeTable},
    block_part::{BlockPart, NONE, Pace},
    block_select::Candidates,
    class_set::{ClassSet, only_text, resource_keys},
    dictionary::number,
    filter::TagScope,
    model::Attributes,
    part::RowValues,
    rows::SpanRows,
    select::ValueTest,
};
use crate::{control::QueryControl, error::Error, value::Value};

/// With so many times more items than rows in question, only the items of those rows are looked at.
const FEW_ROWS: u64 = 16;

/// What hangs on rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    /// Attributes of events.
    Events,
    /// What every event says.
    EventFields,
    /// Attributes of links.
    Links,
    /// What few spans say.
    Extras,
}

impl BlockPart {
    /// The items of a kind and the table that is asked, if the block has any.
    pub(super) fn items(&self, kind: ItemKind) -> Option<(&Satellites, &AttributeTable)> {
        match kind {
            ItemKind::Events => self.block.events().map(|items| (items, items.attributes())),
            ItemKind::EventFields => self.block.events().map(|items| (items, items.fields())),
            ItemKind::Links => self.block.links().map(|items| (items, items.attributes())),
            ItemKind::Extras => self.block.extras().map(|items| (items, items.fields())),
        }
    }

    /// Whether some resource has a key.
    pub(super) fn some_resource_has(&self, key: &str, ctl: &QueryControl) -> Result<bool, Error> {
        let known = self.block.resource_keys();
        let keys = if let Some(keys) = known.get() {
            keys
        } else {
            let keys = resource_keys(&self.block, ctl)?;
            known.get_or_init(|| keys)
        };
        Ok(keys.binary_search_by(|own| (**own).cmp(key)).is_ok())
    }

    /// Whether a span may have a key.
    pub(super) fn some_span_has(&self, key: &str) -> Result<bool, Error> {
        self.block.attributes().may_have_key(key)
    }

    /// The candidates whose attributes satisfy a test; `otherwise` says which classes do for those that do
    /// not have the key.
    pub(super) fn with_tag(
        &self,
        key: &str,
        test: ValueTest<'_>,
        otherwise: Option<&ClassSet>,
        among: &Candidates,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let table = self.block.attributes();
        let given = among.given(self.block.rows());
        let found = look_up(table, key, test, given.as_deref(), ctl)?;
        if otherwise.is_none() && !test.holds_for_none() {
            return Ok(found);
        }
        let having = table.having(key, given.as_deref(), ctl)?;
        match otherwise {
            None => Ok(among.to_bitmap() - (having - found)),
            Some(classes) => {
                let without = among.to_bitmap() - having;
                Ok(found | self.of_classes(classes, without, ctl)?)
            }
        }
    }

    /// The candidates of whose items of a kind one satisfies a test, or none of which has the key if that
    /// satisfies it.
    pub(super) fn with_item(
        &self,
        kind: ItemKind,
        key: &str,
        test: ValueTest<'_>,
        among: &Candidates,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let Some((items, table)) = self.items(kind) else {
            return Ok(if test.holds_for_none() {
                among.to_bitmap()
            } else {
                RoaringBitmap::new()
            });
        };
        let given = match among.given(self.block.rows()) {
            Some(rows) if rows.len().saturating_mul(FEW_ROWS) < u64::from(items.len()) => {
                Some(self.items_of(items, &rows, ctl)?)
            }
            _ => None,
        };
        let found = look_up(table, key, test, given.as_ref(), ctl)?;
        let found = items.rows_of(self.block.block(), &found)?;
        let among = among.to_bitmap();
        if !test.holds_for_none() {
            return Ok(among & found);
        }
        let having = table.having(key, given.as_ref(), ctl)?;
        let having = items.rows_of(self.block.block(), &having)?;
        Ok(among - (having - found))
    }

    /// The items of some rows.
    pub(super) fn items_of(
        &self,
        items: &Satellites,
        rows: &RoaringBitmap,
        ctl: &QueryControl,
    ) -> Result<RoaringBitmap, Error> {
        let mut cursor = SatelliteCursor::default();
        let mut pace = Pace::new(ctl)?;
        let mut found = RoaringBitmap::new();
        for row in rows {
            pace.step()?;
            let range = row..row.saturating_add(1);
            found.insert_range(items.items_of(self.block.block(), range, &mut cursor)?);
        }
        Ok(found)
    }

    pub(crate) fn values(
        &self,
        rows: &SpanRows,
        key: &str,
        of: TagScope,
        ctl: &QueryControl,
    ) -> Result<RowValues, Error> {
        let mut values = match of {
            TagScope::Any | TagScope::Span => {
                let found = self
                    .block
                    .attributes()
                    .values_of(rows.as_bitmap(), key, ctl)?;
                RowValues {
                    codes: found.codes,
                    values: found.values,
                }
            }
            TagScope::Event => self.values_of_items(ItemKind::Events, rows, key, ctl)?,
            TagScope::Link => self.values_of_items(ItemKind::Links, rows, key, ctl)?,
            TagScope::Resource | TagScope::Scope => RowValues {
                codes: vec![NONE; usize::try_from(rows.len()).unwrap_or(0)],
                values: Vec::new(),
            },
        };
        let is_open = values.codes.contains(&NONE);
        let of_owner = match of {
            TagScope::Any => is_open && self.some_resource_has(key, ctl)?,
            TagScope::Resource | TagScope::Scope => is_open,
            TagScope::Span | TagScope::Event | TagScope::Link => false,
        };
        if of_owner {
            self.add_values_of_owners(rows, key, of, &mut values, ctl)?;
        }
        Ok(values)
    }

    /// Gives the rows that have no value that of their resource or scope.
    fn add_values_of_owners(
        &self,
        rows: &SpanRows,
        key: &str,
        of: TagScope,
        values: &mut RowValues,
        ctl: &QueryControl,
    ) -> Result<(), Error> {
        let mut by_value: HashMap<Vec<u8>, u32> = HashMap::new();
        for (value, code) in values.values.iter().zip(0..) {
            by_value.insert(encoded(value), code);
        }
        let mut classes = Vec::new();
        self.classes(rows, ctl, &mut classes)?;
        let mut by_owner: HashMap<u32, u32> = HashMap::new();
        for (code, class) in values.codes.iter_mut().zip(classes) {
            if *code != NONE {
                continue;
            }
            let Some(class) = self.block.classes().get(class as usize) else {
                continue;
            };
            let owner = match of {
                TagScope::Scope => class.scope,
                _ => class.resource,
            };
            if let Some(&known) = by_owner.get(&owner) {
                *code = known;
                continue;
            }
            let attributes = self.owner_attributes(of, owner)?;
            if let Some((_, value)) = attributes.iter().find(|(own, _)| &**own == key) {
                *code = *by_value.entry(encoded(value)).or_insert_with(|| {
                    values.values.push(value.clone());
                    number(values.values.len() - 1)
                });
            }
            by_owner.insert(owner, *code);
        }
        Ok(())
    }

    /// Attributes of a scope, or else of a resource.
    pub(super) fn owner_attributes(&self, of: TagScope, owner: u32) -> Result<Attributes, Error> {
        if of == TagScope::Scope {
            let scope = self.block.scope(owner)?;
            return Ok(Arc::unwrap_or_clone(scope).attributes);
        }
        let resource = self.block.resource(owner)?;
        Ok(Arc::unwrap_or_clone(resource).attributes)
    }

    /// The first value that the items of each row have.
    fn values_of_items(
        &self,
        kind: ItemKind,
        rows: &SpanRows,
        key: &str,
        ctl: &QueryControl,
    ) -> Result<RowValues, Error> {
        let mut codes = vec![NONE; usize::try_from(rows.len()).unwrap_or(0)];
        let Some((items, table)) = self.items(kind) else {
            return Ok(RowValues {
                codes,
                values: Vec::new(),
            });
        };
        let given = if rows.len().saturating_mul(FEW_ROWS) < u64::from(items.len()) {
            Some(self.items_of(items, rows.as_bitmap(), ctl)?)
        } else {
            None
        };
        let having = table.having(key, given.as_ref(), ctl)?;
        let mut cursor = SatelliteCursor::default();
        let mut pace = Pace::new(ctl)?;
        let mut firsts = RoaringBitmap::new();
        let mut places = Vec::new();
        let mut last = NONE;
        for item in having {
            pace.step()?;
            let row = items.row(self.block.block(), item, &mut cursor)?;
            if row != last && rows.contains(row) {
                firsts.insert(item);
                places.push(rows.as_bitmap().rank(row).saturating_sub(1));
            }
            last = row;
        }
        let found = table.values_of(&firsts, key, ctl)?;
        for (place, code) in places.into_iter().zip(found.codes) {
            if let Some(slot) = usize::try_from(place).ok().and_then(|p| codes.get_mut(p)) {
                *slot = code;
            }
        }
        Ok(RowValues {
            codes,
            values: found.values,
        })
    }
}

/// The items with a value that satisfies a test.
fn look_up(
    table: &AttributeTable,
    key: &str,
    test: ValueTest<'_>,
    given: Option<&RoaringBitmap>,
    ctl: &QueryControl,
) -> Result<RoaringBitmap, Error> {
    match test {
        ValueTest::Present => table.having(key, given, ctl),
        ValueTest::Matches(matches) => {
            let passes = |text: &str| matches.matches(text);
            table.select(key, &passes, only_text(test), given, ctl)
        }
    }
}

/// A value as it is told apart from others.
fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was stored is not nested too deep.
    let _ = value.as_ref().encode(&mut bytes);
    bytes
}
