//! A frozen generation of spans as one block.
//!
//! It is sealed as of its cut: what was deleted or recalled later is hidden in the block as it was in
//! the generation, and what was recalled is needed should the log be replayed. The block lists the
//! traces that the generation recalled, as far as an older block may have them.

use std::sync::Arc;

use rootline_wal::{Lsn, StoreId};

use crate::{
    block::BlockMeta,
    budget::{Budget, Charge, Holder},
    error::Error,
    files::StoreFiles,
    id::TraceId,
    span::{
        FrozenSpans, SpanBlockPart,
        block::{LooseRows, RowRun, RowSource, SpanBlockOrigin, write_block},
    },
};

/// Where a generation comes from and goes to.
pub(crate) struct SpanSealing<'a> {
    pub(crate) files: &'a StoreFiles,
    pub(crate) store: StoreId,
    pub(crate) frozen: &'a FrozenSpans,
    /// The first record after the cut before.
    pub(crate) first_lsn: Lsn,
    /// The blocks there are, and whether there are others that could not be opened.
    pub(crate) older: &'a [Arc<SpanBlockPart>],
    pub(crate) has_unread: bool,
    /// Charged with what is held beside the generation.
    pub(crate) budget: &'a Budget,
    /// Asked now and then; an error ends the sealing.
    pub(crate) check: &'a dyn Fn() -> Result<(), Error>,
}

impl SpanSealing<'_> {
    /// Writes the block; `None` if it would be empty. On an error nothing is left.
    ///
    /// # Errors
    /// [`Error::Storage`], and what `check` says.
    pub(crate) fn write(&self) -> Result<Option<BlockMeta>, Error> {
        let FrozenSpans { head, cut } = self.frozen;
        let check = &mut || (self.check)();
        let loose = LooseRows::from_head(head, *cut, check)?;
        let mut held = Charge::new(self.budget, Holder::Sealing);
        held.set(loose.heap_bytes() as u64);
        let superseded = self.superseded();
        let runs = [RowRun {
            source: 0,
            first_row: 0,
            rows: loose.rows(),
        }];
        let runs = if loose.rows() == 0 { &[] } else { &runs[..] };
        let origin = SpanBlockOrigin {
            first_lsn: self.first_lsn,
            last_lsn: *cut,
            clean_lsn: *cut,
            level: 0,
            sources: Vec::new(),
            created_ns: self.files.clock.wall_ns(),
        };
        write_block(
            &self.files.storage,
            &self.files.blocks_dir,
            self.store,
            self.files.manifest.next_block_id(),
            &[RowSource::Loose(&loose)],
            runs,
            &superseded,
            origin,
            check,
        )
    }

    /// The traces that older blocks have to hide, sorted.
    fn superseded(&self) -> Vec<TraceId> {
        let mut traces = Vec::new();
        let all = Lsn(u64::MAX);
        self.frozen
            .head
            .recalled_between(Lsn::ZERO, all, &mut |id| traces.push(id));
        let may_have = |id| {
            let mut older = self.older.iter();
            self.has_unread || older.any(|part| part.block.may_have_trace(id))
        };
        traces.retain(|id| may_have(*id));
        traces.sort_unstable();
        traces.dedup();
        traces
    }
}
