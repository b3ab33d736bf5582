//! Cutting the log: segments whose records nobody needs any more are removed or kept for reuse.
//!
//! Oldest first, and each removal durable before the next, so that a power cut never leaves a hole.
//! A segment goes only while a later one holds a durable group: the numbers go on from there.

use parking_lot::MutexGuard;

use crate::{
    error::Error,
    filenames,
    log::{Shared, State},
    segment::{Live, SEGMENT_BYTES_BASE, Spare},
};

impl Shared {
    pub(crate) fn cut(&self, below: u64) -> Result<(), Error> {
        let _one_at_a_time = self.cutting.lock();
        let mut state = self.state.lock();
        state.check_open()?;
        self.cut_sealed(&mut state, below)?;
        if state.next_lsn > below {
            return Ok(());
        }
        self.empty(&mut state, below)?;
        self.cut_sealed(&mut state, below)
    }

    fn cut_sealed(&self, state: &mut MutexGuard<'_, State>, below: u64) -> Result<(), Error> {
        while let Some(oldest) = self.removable(state, below) {
            let emptied = state.next_lsn <= below;
            let keep = !emptied
                && state.spares.len() < self.settings.spare_segments_max
                && oldest.bytes >= self.settings.segment_bytes_min;
            match MutexGuard::unlocked(state, || self.dispose(&oldest, keep)) {
                Ok(spare) => {
                    state.live.pop_front();
                    state.spares.extend(spare);
                }
                Err(error) => {
                    if matches!(
                        error,
                        Error::Io {
                            operation: "sync directory",
                            ..
                        }
                    ) {
                        self.poison(state, &error);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn removable(&self, state: &State, below: u64) -> Option<Live> {
        let oldest = state.live.front()?;
        let durable = self.durable.load(std::sync::atomic::Ordering::Acquire);
        let unneeded = oldest.last_lsn < below && oldest.last_lsn <= durable;
        let anchored = state.live.iter().skip(1).any(|live| live.anchored);
        (unneeded && anchored).then(|| oldest.clone())
    }

    fn dispose(&self, segment: &Live, keep: bool) -> Result<Option<Spare>, Error> {
        let storage = &self.maker.storage;
        let error = |operation, source| Error::Io {
            operation,
            path: segment.path.clone(),
            source,
        };
        let spare = if keep {
            let path = self.maker.dir.join(filenames::spare(segment.number));
            storage
                .rename(&segment.path, &path)
                .map_err(|e| error("rename", e))?;
            Some(Spare {
                path,
                bytes: segment.bytes,
            })
        } else {
            storage
                .remove(&segment.path)
                .map_err(|e| error("remove", e))?;
            None
        };
        // Also before a spare is written to: under its old name it must never show new content.
        storage
            .sync_dir(&self.maker.dir)
            .map_err(|source| Error::Io {
                operation: "sync directory",
                path: self.maker.dir.clone(),
                source,
            })?;
        Ok(spare)
    }

    /// Nothing in the log is needed: leaves the large active segment for a small one.
    fn empty(&self, state: &mut MutexGuard<'_, State>, below: u64) -> Result<(), Error> {
        loop {
            self.drain(state)?;
            if state.next_lsn > below {
                return Ok(());
            }
            let small = |bytes: u64| bytes <= SEGMENT_BYTES_BASE;
            if state
                .active
                .as_ref()
                .is_none_or(|active| small(active.capacity))
            {
                break;
            }
            if state.next.as_ref().is_some_and(|next| small(next.capacity)) {
                let now = self.clock.monotonic();
                state.rotate(&self.settings, now);
                self.lead(state, true);
                self.drain(state)?;
                break;
            }
            let spares = std::mem::take(&mut state.spares);
            MutexGuard::unlocked(state, || self.discard(spares.into_iter().map(|s| s.path)));
            if !self.wait_for_room(state) {
                self.prepare(state, SEGMENT_BYTES_BASE)?;
            }
        }
        let spares = std::mem::take(&mut state.spares);
        let next = state.next.take().map(|segment| segment.path);
        let paths = spares.into_iter().map(|spare| spare.path).chain(next);
        MutexGuard::unlocked(state, || self.discard(paths));
        Ok(())
    }

    fn discard(&self, paths: impl Iterator<Item = std::path::PathBuf>) {
        for path in paths {
            // Nothing in them counts; open removes what is left.
            let _ = self.maker.storage.remove(&path);
        }
    }
}
