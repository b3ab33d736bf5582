//! Reads whatever bytes as a table. For fuzzing.

use std::sync::Arc;

use roaring::RoaringBitmap;
use rootline_wal::SystemClock;

use super::{AttributeCursor, AttributeTable, OneClass, layout::Head};
use crate::{
    control::{QueryControl, QueryLimits},
    error::Error,
    span::{block::column::ColumnSource, model::Attributes},
};

/// Items that are read one by one.
const ITEMS_MAX: u32 = 4096;

/// Reads bytes as an attribute table of items of one class, in every way that there is: the length of the
/// head (one byte), the head, the section.
///
/// # Errors
/// The last thing that was found wrong.
#[doc(hidden)]
pub fn check_attribute_table(bytes: &[u8]) -> Result<(), Error> {
    let Some((&length, rest)) = bytes.split_first() else {
        return Ok(());
    };
    let (head, section) = rest.split_at(usize::from(length).min(rest.len()));
    let source = ColumnSource::Bytes(Arc::from(section));
    let items = Head::decode(head, &source)?.items;
    let table = AttributeTable::from_source(source, head, Arc::new(OneClass { items }))?;
    let ctl = QueryControl::new(Arc::new(SystemClock::new()), None, QueryLimits::default());
    let read = items.min(ITEMS_MAX);
    let mut last = Ok(());
    let mut cursor = AttributeCursor::default();
    let mut out = Attributes::new();
    for item in 0..read {
        out.clear();
        if let Err(error) = table.attributes(item, &mut cursor, &mut out) {
            last = Err(error);
        }
    }
    let some: RoaringBitmap = (0..read).step_by(3).collect();
    let keys = table.keys(&ctl)?;
    for key in keys.iter().take(64) {
        let key = &*key.key;
        let odd = |shown: &str| shown.len() % 2 == 1;
        for error in [
            table.having(key, None, &ctl).err(),
            table.select(key, &odd, None, Some(&some), &ctl).err(),
            table.select(key, &odd, Some("500"), None, &ctl).err(),
            table.values_of(&some, key, &ctl).err(),
            table
                .value_counts(key, &some, &ctl, &mut |_, _| Ok(()))
                .err(),
        ]
        .into_iter()
        .flatten()
        {
            last = Err(error);
        }
    }
    last
}
