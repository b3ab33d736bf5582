//! Room on disk: when new data are refused, and what is set aside so that a full disk can be emptied.
//!
//! Everything that frees space needs some first: sealing writes blocks before the log is cut, a delete
//! is a record of the log. So while there is unsealed data a file of the size that sealing it will
//! about take, the *reserve*, is kept allocated; when the disk turns out to be full it is given back
//! to the file system, where sealing and deletes of this store find it and its writes do not: they are
//! refused ([`Error::DiskLow`], transient) from then until there is room again. Other programs may be
//! faster; then what frees space waits until they are not. The same happens when less than the configured
//! reserve is free, before the disk is full.
//!
//! Lock order: `file` is a leaf, but held across the calls that make and remove the file.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rootline_wal::{Storage, StorageFile, is_disk_full};

use crate::{error::Error, filenames::RESERVE_FILE};

/// The reserve grows and shrinks by this.
const STEP_BYTES: u64 = 4 << 20;
/// With less than this free, the log soon finds no room.
const LOG_BYTES_MIN: u64 = 4 << 20;
/// Writes are taken again once this part more than the reserve is free, one to this.
const RECOVERED_SHARE: u64 = 4;

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct DiskReserve {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// Less than this free: no new data.
    reserve_bytes: u64,
    file: Mutex<Option<Held>>,
    is_low: AtomicBool,
    free_bytes: AtomicU64,
}

#[derive(Debug)]
struct Held {
    file: Arc<dyn StorageFile>,
    bytes: u64,
}

impl DiskReserve {
    /// Takes over the directory `dir`, in which an earlier run may have left a reserve.
    pub(crate) fn new(storage: Arc<dyn Storage>, dir: &Path, reserve_bytes: u64) -> Self {
        let reserve = Self {
            storage,
            dir: dir.to_owned(),
            reserve_bytes,
            file: Mutex::new(None),
            is_low: AtomicBool::new(false),
            free_bytes: AtomicU64::new(u64::MAX),
        };
        // Nothing in it counts; if it cannot be removed now, it is taken over when it is needed.
        let _ = reserve.storage.remove(&reserve.path());
        reserve
    }

    /// Refuses new data while room is short.
    ///
    /// # Errors
    /// [`Error::DiskLow`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.is_low.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::DiskLow {
            dir: self.dir.clone(),
            free_bytes: self.free_bytes(),
            reserve_bytes: self.reserve_bytes,
        })
    }

    /// Whether new data are refused.
    pub(crate) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Acquire)
    }

    /// Bytes free when it was last looked at, the reserve not among them.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Bytes allocated for the reserve.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.file.lock().as_ref().map_or(0, |held| held.bytes)
    }

    /// Looks at the disk and fits the reserve to what sealing will take: `sealed_bytes` of blocks, 0 if
    /// nothing is unsealed. Called about every second and whenever something was freed.
    pub(crate) fn update(&self, sealed_bytes: u64) {
        let wanted = if sealed_bytes == 0 {
            0
        } else {
            sealed_bytes
                .next_multiple_of(STEP_BYTES)
                .min(self.reserve_bytes)
        };
        let held = self.hold(wanted);
        let free = self.storage.free_bytes(&self.dir);
        let Ok(free) = free else {
            // Not knowing is no reason to refuse: the next write will tell.
            return;
        };
        self.free_bytes.store(free, Ordering::Relaxed);
        let room = free.saturating_add(self.held_bytes());
        let bound = if self.is_low() {
            self.reserve_bytes + self.reserve_bytes / RECOVERED_SHARE
        } else {
            self.reserve_bytes
        };
        // The reserve is not for the log: it needs a segment beside it.
        let no_segment = free < LOG_BYTES_MIN.min(self.reserve_bytes / RECOVERED_SHARE);
        self.is_low
            .store(room < bound || !held || no_segment, Ordering::Release);
    }

    /// Bytes that may be written without new data being refused.
    pub(crate) fn spare_bytes(&self) -> u64 {
        let room = self.free_bytes().saturating_add(self.held_bytes());
        room.saturating_sub(self.reserve_bytes)
    }

    /// Whether little more than `sealed_bytes` fits beside the reserve, and that is worth sealing: the
    /// log that grows meanwhile must not take the room that sealing needs.
    pub(crate) fn is_tight_for(&self, sealed_bytes: u64) -> bool {
        let room = self.free_bytes().saturating_add(self.held_bytes());
        let needed = sealed_bytes.saturating_mul(2) + self.reserve_bytes;
        sealed_bytes >= STEP_BYTES && !self.is_low() && room < needed
    }

    /// The disk is full: gives the reserve back, for what frees space, and refuses new data. Returns
    /// whether there was something to give.
    pub(crate) fn release(&self) -> bool {
        self.is_low.store(true, Ordering::Release);
        let mut file = self.file.lock();
        let Some(held) = file.take() else {
            return false;
        };
        drop(held.file);
        match self.storage.remove(&self.path()) {
            Ok(()) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Fits the file to `wanted` bytes. Returns whether it has them.
    fn hold(&self, wanted: u64) -> bool {
        let mut file = self.file.lock();
        if wanted == 0 {
            if file.take().is_some() {
                let _ = self.storage.remove(&self.path());
            }
            return true;
        }
        let held_bytes = file.as_ref().map_or(0, |held| held.bytes);
        // A reserve that is a little too large is left as it is.
        if held_bytes >= wanted && held_bytes <= wanted.saturating_mul(2) {
            return true;
        }
        match self.fit(file.as_ref(), wanted) {
            Ok(held) => {
                *file = Some(held);
                true
            }
            Err(error) => {
                // What was held stays held.
                if file.is_none() {
                    let _ = self.storage.remove(&self.path());
                }
                !is_disk_full(&error)
            }
        }
    }

    fn fit(&self, held: Option<&Held>, wanted: u64) -> std::io::Result<Held> {
        let path = self.path();
        let file = match held {
            Some(held) => Arc::clone(&held.file),
            None if self.storage.exists(&path)? => self.storage.open(&path)?,
            None => self.storage.create(&path)?,
        };
        if file.len()? > wanted {
            file.set_len(wanted)?;
        }
        file.preallocate(wanted)?;
        Ok(Held {
            file,
            bytes: wanted,
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.join(RESERVE_FILE)
    }
}

impl Drop for DiskReserve {
    fn drop(&mut self) {
        if self.file.get_mut().take().is_some() {
            let _ = self.storage.remove(&self.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use rootline_wal::PowerCutStorage;

    use super::*;

    fn disk(capacity_bytes: u64) -> (Arc<PowerCutStorage>, DiskReserve) {
        let storage = Arc::new(PowerCutStorage::new());
        let dir = Path::new("/data");
        storage.create_dir_all(dir).unwrap();
        storage.set_capacity_bytes(Some(capacity_bytes));
        let reserve = DiskReserve::new(Arc::clone(&storage) as Arc<dyn Storage>, dir, 32 << 20);
        (storage, reserve)
    }

    #[test]
    fn a_reserve_is_held_while_something_is_unsealed() {
        let (storage, reserve) = disk(1 << 30);
        let free = || storage.free_bytes(Path::new("/data")).unwrap();
        reserve.update(5 << 20);
        assert_eq!(
            (reserve.held_bytes(), free()),
            (8 << 20, (1 << 30) - (8 << 20))
        );
        reserve.update(100 << 20);
        assert_eq!(reserve.held_bytes(), 32 << 20, "no more than is configured");
        reserve.check().unwrap();
        reserve.update(0);
        assert_eq!((reserve.held_bytes(), free()), (0, 1 << 30));
    }

    #[test]
    fn writes_are_refused_before_the_disk_is_full_and_taken_again_with_room_to_spare() {
        let (storage, reserve) = disk(1 << 30);
        reserve.update(5 << 20);
        storage.set_capacity_bytes(Some(20 << 20));
        reserve.update(5 << 20);
        assert!(matches!(
            reserve.check(),
            Err(Error::DiskLow {
                free_bytes,
                reserve_bytes,
                ..
            }) if (free_bytes, reserve_bytes) == (12 << 20, 32 << 20)
        ));
        storage.set_capacity_bytes(Some(33 << 20));
        reserve.update(5 << 20);
        assert!(reserve.is_low(), "it does not flap");
        storage.set_capacity_bytes(Some(41 << 20));
        reserve.update(5 << 20);
        reserve.check().unwrap();
    }

    #[test]
    fn sealing_starts_while_there_is_room_for_it() {
        let (storage, reserve) = disk(1 << 30);
        reserve.update(100 << 20);
        assert!(!reserve.is_tight_for(100 << 20));
        storage.set_capacity_bytes(Some(200 << 20));
        reserve.update(100 << 20);
        assert!(reserve.is_tight_for(100 << 20));
        assert!(!reserve.is_tight_for(20 << 20), "later is early enough");
        assert!(!reserve.is_tight_for(1 << 20), "it would not help");
    }

    #[test]
    fn a_full_disk_gets_the_reserve_back() {
        let (storage, reserve) = disk(1 << 30);
        reserve.update(5 << 20);
        storage.set_capacity_bytes(Some(8 << 20));
        let free = || storage.free_bytes(Path::new("/data")).unwrap();
        assert_eq!(free(), 0);
        assert!(reserve.release());
        assert_eq!(free(), 8 << 20);
        assert!(reserve.check().is_err());
        assert!(!reserve.release());
    }
}
