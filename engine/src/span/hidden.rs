//! What a snapshot does not see of a block.

use roaring::RoaringBitmap;

/// Rows of a block that were superseded, deleted or have expired.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hidden {
    /// The rows.
    pub(crate) rows: RoaringBitmap,
    /// Numbers of the traces of which some rows are hidden, but not all. What the block says of who is
    /// whose parent does not hold in them: it is found anew among the rows that are left.
    pub(crate) partial: RoaringBitmap,
}
