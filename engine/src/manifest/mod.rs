//! The manifest: which blocks make up the store, up to which record the log is sealed into them, and
//! what else must survive a cut of the log. Bytes: `docs/formats/manifest.md`.
//!
//! It is a log of edits, a `rootline_wal::Wal` in a directory of its own. An edit is one record and
//! holds whole or not at all; a *full* record states the version from nothing, so that what is
//! older can be cut off.
//!
//! A commit, in order:
//! 1. The edit is applied to a copy of the version; one that does not fit is refused.
//! 2. Its record is appended and synced. From here on it holds, whatever happens.
//! 3. The version in memory is swapped.
//! 4. A *seal* is appended and synced: an empty record, whose place says that the edit before it was
//!    durable. Without it, later damage to the last edit would look like a write that was torn, and the
//!    store would go back by one version in silence.
//! 5. Now and then the version is written as a full record, and the log before it cut.
//!
//! On a full disk an edit that drops blocks or cuts the log has room of its own: see `reserve.rs`.
//!
//! Invariants
//! - The version in memory is never ahead of the one on disk, and behind it only after a failed commit.
//! - Commits are made one at a time. A failed one leaves the version in memory as it was. On disk, an
//!   edit that failed for want of room ([`crate::ErrorKind::Retry`]) is not there. One that failed
//!   otherwise may be there after the next open, and until then nothing else is taken
//!   ([`crate::ErrorKind::Closed`]): so its new block files must stay, and the old ones too.
//! - A manifest that is damaged is read as far as it goes, and takes no commit.
//! - A number of a block is given out once, whether a block came of it or not.
//!
//! Locks: `log`, then `version`. File operations happen under `log` only.

mod edit;
mod reserve;
#[cfg(test)]
mod tests;
mod version;

use std::{
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use rootline_wal::{Clock, Durability, Lsn, Record, Recovery, Settings, Storage, Wal};

pub(crate) use self::version::{BySignal, Change, Version};
use self::{edit::EditError, reserve::Reserve};
use crate::{
    block::{self, BlockId, Cleaned},
    error::{Error, ErrorKind},
};

/// Kind of a record that changes the version before it.
const KIND_EDIT: u8 = 1;
/// Kind of a record that states a version from nothing.
const KIND_FULL: u8 = 2;
/// Kind of the empty record after each of the others.
const KIND_SEAL: u8 = 3;

/// Edits take 8 KiB at least, with their seal. A segment of this size takes three; a full version that
/// is larger gets a segment of its own size.
const SEGMENT_BYTES: u64 = 32 << 10;
/// What a commit takes on disk beside its payload.
const COMMIT_BYTES: u64 = 8 << 10;
/// The log is compacted when its edits take this much and [`EDITS_PER_FULL`] times the full version.
const EDITS_BYTES_MIN: u64 = 64 << 10;
/// See [`EDITS_BYTES_MIN`].
const EDITS_PER_FULL: u64 = 4;

/// Damage found when the manifest was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestDamage {
    /// The file, or the directory if it is not known which.
    pub(crate) path: PathBuf,
    /// Where in the file.
    pub(crate) offset_bytes: u64,
    /// What is wrong.
    pub(crate) reason: String,
}

impl From<ManifestDamage> for Error {
    fn from(damage: ManifestDamage) -> Self {
        Self::CorruptManifest {
            path: damage.path,
            offset_bytes: damage.offset_bytes,
            reason: damage.reason,
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ManifestRecovery {
    /// Empty in a healthy manifest. Otherwise it is read-only, and its version is what could be read.
    pub(crate) damage: Vec<ManifestDamage>,
    /// There was no manifest before, or none that got as far as [`Manifest::reconcile`].
    pub(crate) created: bool,
}

/// An open manifest. Shared in an `Arc`. Dropping it without [`close`](Self::close) is like a crash.
#[derive(Debug)]
pub(crate) struct Manifest {
    log: Mutex<Log>,
    version: RwLock<Arc<Version>>,
    next_block: AtomicU64,
}

#[derive(Debug)]
struct Log {
    /// None if it could not be opened at all; then it is read-only too.
    wal: Option<Arc<Wal>>,
    read_only: Option<String>,
    /// Bytes of the last full record, and of the edits after it with what they take on disk.
    full_bytes: u64,
    edits_bytes: u64,
    reserve: Reserve,
}

impl Manifest {
    /// Opens the manifest in `dir`, which is made if missing.
    ///
    /// A damaged one opens too: see [`ManifestRecovery::damage`]. Whoever opens it says which numbers
    /// lie in the directory of blocks, with [`note_existing`](Self::note_existing).
    ///
    /// # Errors
    /// [`Error::UnknownRecord`] if a newer release wrote to it. [`Error::Wal`] if it is open elsewhere or
    /// a file operation failed.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        dir: &Path,
    ) -> Result<(Self, ManifestRecovery), Error> {
        let settings = Settings {
            durability: Durability::Sync,
            segment_bytes_min: SEGMENT_BYTES,
            segment_bytes_max: SEGMENT_BYTES,
            spare_segments_max: 0,
            ..Settings::default()
        };
        let mut replay = Replay::default();
        let mut reserve = Reserve::new(Arc::clone(&storage), dir, SEGMENT_BYTES);
        let opened = Wal::open(storage, clock, dir, settings, &mut |record| {
            replay.take(dir, record).map_err(Into::into)
        });
        let (wal, recovery) = match opened {
            Ok((wal, found)) => (Some(wal), replay.judge(dir, found)),
            Err(error) => (None, replay.judge_failed(dir, error)?),
        };
        let read_only = recovery.damage.first().map(|damage| {
            let (path, at) = (damage.path.display(), damage.offset_bytes);
            format!("manifest {path} is damaged at byte {at}: {}", damage.reason)
        });
        if read_only.is_none() {
            reserve.hold();
        }
        let manifest = Self {
            log: Mutex::new(Log {
                wal,
                read_only,
                full_bytes: replay.full_bytes,
                edits_bytes: replay.edits_bytes,
                reserve,
            }),
            version: RwLock::new(Arc::new(replay.version)),
            next_block: AtomicU64::new(replay.next_block.max(1)),
        };
        Ok((manifest, recovery))
    }

    /// Reads the manifest in `dir` and leaves everything as it is, for tools that look at a store.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn read(
        storage: &Arc<dyn Storage>,
        dir: &Path,
    ) -> Result<(Version, ManifestRecovery), Error> {
        let mut replay = Replay::default();
        let read = Wal::read(storage, dir, &mut |record| {
            replay.take(dir, record).map_err(Into::into)
        });
        let recovery = match read {
            Ok((_, found)) => replay.judge(dir, found),
            Err(error) => replay.judge_failed(dir, error)?,
        };
        Ok((replay.version, recovery))
    }

    /// The store as of the last commit.
    pub(crate) fn version(&self) -> Arc<Version> {
        Arc::clone(&self.version.read())
    }

    /// A number that no block ever had, and none will have but the caller's.
    pub(crate) fn next_block_id(&self) -> BlockId {
        BlockId(self.next_block.fetch_add(1, Ordering::Relaxed))
    }

    /// Says that there is, or was, a block of this number.
    pub(crate) fn note_existing(&self, id: BlockId) {
        let next = id.0.saturating_add(1);
        self.next_block.fetch_max(next, Ordering::Relaxed);
    }

    /// Brings the directory of blocks and the manifest together, once, after opening: notes the numbers
    /// that are taken, and removes what is half written or not named. Removes nothing if the manifest is
    /// damaged, or is new while there are blocks, or names a block that is missing; each is damage, which
    /// is added to `recovery` and makes it read-only.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Wal`].
    pub(crate) fn reconcile(
        &self,
        storage: &dyn Storage,
        blocks_dir: &Path,
        recovery: &mut ManifestRecovery,
    ) -> Result<Cleaned, Error> {
        for id in block::existing(storage, blocks_dir)? {
            self.note_existing(id);
        }
        if recovery.created && block::has_blocks(storage, blocks_dir)? {
            let reason = "there are blocks, but the manifest that named them is gone";
            self.note_damage(recovery, blocks_dir.to_owned(), reason);
        }
        if self.read_only().is_some() {
            return Ok(Cleaned::default());
        }
        if recovery.created {
            // From here on a manifest without a record is one that lost them.
            self.compact(&mut self.log.lock(), &self.version())?;
        }
        let named = self.version().blocks.keys().copied().collect();
        let cleaned = block::remove_unnamed(storage, blocks_dir, &named)?;
        for id in &cleaned.missing {
            let path = block::path(blocks_dir, *id);
            self.note_damage(recovery, path, "the manifest names it, but it is not there");
        }
        Ok(cleaned)
    }

    fn note_damage(&self, recovery: &mut ManifestRecovery, path: PathBuf, reason: &str) {
        self.make_read_only(format!("{}: {reason}", path.display()));
        recovery.damage.push(ManifestDamage {
            path,
            offset_bytes: 0,
            reason: reason.to_owned(),
        });
    }

    /// Why it takes no commit, if it does not.
    pub(crate) fn read_only(&self) -> Option<String> {
        self.log.lock().read_only.clone()
    }

    /// Takes no commit from here on.
    pub(crate) fn make_read_only(&self, reason: String) {
        self.log.lock().read_only.get_or_insert(reason);
    }

    /// Makes an edit: all of it or nothing, durable when this returns `Ok`. One without changes writes
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Wal`], of kind `Retry` if the disk is full: nothing has changed, here or on disk. Of kind
    /// `Closed` if a write or sync failed, now or before: the edit may hold after the next open.
    /// [`Error::ReadOnly`]. [`Error::InvalidEdit`] if it does not fit the version.
    pub(crate) fn commit(&self, edit: Vec<Change>) -> Result<Arc<Version>, Error> {
        let mut log = self.log.lock();
        if let Some(reason) = &log.read_only {
            let reason = reason.clone();
            return Err(Error::ReadOnly { reason });
        }
        let version = self.version();
        if edit.is_empty() {
            return Ok(version);
        }
        for change in &edit {
            if let Change::AddBlock(meta) = change {
                self.note_existing(meta.id);
            }
        }
        let bytes = edit::encode(self.next_block.load(Ordering::Relaxed), &edit);
        // What could not be read back must not get in: it would make the manifest read-only for good.
        let refuse = |reason| Error::InvalidEdit { reason };
        edit::decode(&bytes).map_err(|error| refuse(error.to_string()))?;
        let frees = |change: &Change| matches!(change, Change::DropBlock(_) | Change::Cut { .. });
        let makes_room = edit.iter().any(frees);
        let mut next = Version::clone(&version);
        for change in edit {
            next.apply(change).map_err(refuse)?;
        }
        match log.append(KIND_EDIT, &bytes) {
            Err(full) if full.kind() == ErrorKind::Retry && makes_room && log.reserve.release() => {
                log.append(KIND_EDIT, &bytes)?;
            }
            other => drop(other?),
        }
        let next = Arc::new(next);
        *self.version.write() = Arc::clone(&next);
        log.edits_bytes += bytes.len() as u64 + COMMIT_BYTES;
        // The edit holds, so nothing from here on is an error of this commit. If the log is
        // poisoned, the next one says so; if the disk is full, the next one tries again.
        let _ = log.append(KIND_SEAL, &[]);
        let due = EDITS_BYTES_MIN.max(EDITS_PER_FULL * log.full_bytes);
        if log.edits_bytes >= due {
            let _ = self.compact(&mut log, &next);
        }
        log.reserve.hold();
        Ok(next)
    }

    fn compact(&self, log: &mut Log, version: &Version) -> Result<(), Error> {
        let next_block = self.next_block.load(Ordering::Relaxed);
        let bytes = edit::encode(next_block, &version.to_changes());
        let full = log.append(KIND_FULL, &bytes)?;
        log.full_bytes = bytes.len() as u64;
        log.edits_bytes = 0;
        log.append(KIND_SEAL, &[])?;
        if let Some(wal) = &log.wal {
            wal.cut(full)?;
        }
        Ok(())
    }

    /// Bytes that its log takes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let log = self.log.lock();
        log.wal.as_ref().map_or(0, |wal| wal.stats().disk_bytes)
    }

    /// Leaves as little as possible on disk and lets go of the directory. Later commits are refused.
    ///
    /// # Errors
    /// [`Error::Wal`] if the log was poisoned before or by this. What was committed holds.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let mut log = self.log.lock();
        if log.read_only.is_none() && log.edits_bytes > 2 * COMMIT_BYTES {
            let version = self.version();
            // Only the size depends on it.
            let _ = self.compact(&mut log, &version);
        }
        log.reserve.release();
        match &log.wal {
            Some(wal) => Ok(wal.close()?),
            None => Ok(()),
        }
    }
}

impl Log {
    /// Appends a record and waits until it is durable.
    fn append(&self, kind: u8, payload: &[u8]) -> Result<Lsn, Error> {
        let Some(wal) = &self.wal else {
            let reason = "the manifest could not be opened".to_owned();
            return Err(Error::ReadOnly { reason });
        };
        let lsn = wal.append(kind, &[payload])?;
        wal.wait_durable(lsn)?;
        Ok(lsn)
    }
}

fn unreadable(dir: &Path, error: &rootline_wal::Error) -> ManifestDamage {
    use rootline_wal::Error as WalError;
    let (path, offset_bytes) = match error {
        WalError::UnreadableHeader { path, offset_bytes } => (path.clone(), *offset_bytes),
        WalError::NotASegment { path, .. }
        | WalError::ForeignStore { path, .. }
        | WalError::MisnamedSegment { path, .. } => (path.clone(), 0),
        _ => (dir.to_owned(), 0),
    };
    ManifestDamage {
        path,
        offset_bytes,
        reason: error.to_string(),
    }
}

/// The version as it is put together from records.
#[derive(Debug, Default)]
struct Replay {
    version: Version,
    next_block: u64,
    full_bytes: u64,
    edits_bytes: u64,
    damage: Vec<ManifestDamage>,
    /// There is a base for what the rest changes: a full record, or the first there ever was.
    has_base: bool,
    /// Why it was stopped.
    unknown: Option<Error>,
}

#[derive(Debug, thiserror::Error)]
#[error("a record of a newer release")]
struct Stopped;

impl Replay {
    fn take(&mut self, dir: &Path, record: Record<'_>) -> Result<(), Stopped> {
        let bytes = record.payload.len() as u64;
        self.has_base |= record.kind == KIND_FULL || record.lsn == Lsn(1);
        match record.kind {
            KIND_EDIT => self.edits_bytes += bytes + COMMIT_BYTES,
            KIND_FULL => {
                // What came before does not count. After a cut, it may be edits whose base is gone.
                self.version = Version::default();
                self.damage.clear();
                self.full_bytes = bytes;
                self.edits_bytes = 0;
            }
            KIND_SEAL => return Ok(()),
            found => return Err(self.stop(record.lsn, "kind", u32::from(found))),
        }
        let mut note = |reason: String| {
            self.damage.push(ManifestDamage {
                path: dir.to_owned(),
                offset_bytes: 0,
                reason: format!("record {}: {reason}", record.lsn),
            });
        };
        match edit::decode(record.payload) {
            Ok(edit) => {
                self.next_block = self.next_block.max(edit.next_block);
                for change in edit.changes {
                    if let Err(reason) = self.version.apply(change) {
                        note(reason);
                    }
                }
            }
            Err(EditError::Damaged(reason)) => note(reason),
            Err(EditError::Unknown { what, found }) => {
                return Err(self.stop(record.lsn, what, u32::from(found)));
            }
        }
        Ok(())
    }

    /// What is to be said of a log that could be read.
    fn judge(&mut self, dir: &Path, found: Recovery) -> ManifestRecovery {
        let mut damage = mem::take(&mut self.damage);
        // Records are cut off behind a full one only. So segments are missing, and what blocks there
        // are is not known.
        if !self.has_base && found.last_lsn > Lsn::ZERO {
            damage.push(ManifestDamage {
                path: dir.to_owned(),
                offset_bytes: 0,
                reason: "its first records are gone".to_owned(),
            });
        }
        damage.extend(found.corrupt.into_iter().map(|corrupt| ManifestDamage {
            path: corrupt.path,
            offset_bytes: corrupt.offset_bytes,
            reason: corrupt.reason.to_owned(),
        }));
        ManifestRecovery {
            damage,
            created: found.last_lsn == Lsn::ZERO,
        }
    }

    /// What is to be said of one that could not; damage is no error.
    fn judge_failed(
        &mut self,
        dir: &Path,
        error: rootline_wal::Error,
    ) -> Result<ManifestRecovery, Error> {
        if let Some(unknown) = self.unknown.take() {
            return Err(unknown);
        }
        if error.kind() != rootline_wal::ErrorKind::Corrupted {
            return Err(error.into());
        }
        let mut damage = mem::take(&mut self.damage);
        damage.push(unreadable(dir, &error));
        Ok(ManifestRecovery {
            damage,
            created: false,
        })
    }

    fn stop(&mut self, lsn: Lsn, what: &'static str, found: u32) -> Stopped {
        let lsn = lsn.0;
        self.unknown = Some(Error::UnknownRecord { lsn, what, found });
        Stopped
    }
}

/// Decodes bytes as a record of the manifest, as opening one does. For fuzzing.
///
/// # Errors
/// What is wrong with them.
#[doc(hidden)]
pub fn check_manifest_edit(bytes: &[u8]) -> Result<(), String> {
    let edit = edit::decode(bytes).map_err(|error| error.to_string())?;
    let written = edit::encode(edit.next_block, &edit.changes);
    let again = edit::decode(&written).map_err(|error| error.to_string());
    let changes = again.map(|again| again.changes.len());
    assert_eq!(
        changes,
        Ok(edit.changes.len()),
        "what is read is written and read"
    );
    let mut version = Version::default();
    for change in edit.changes {
        version.apply(change)?;
    }
    Ok(())
}
