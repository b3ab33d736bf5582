//! A disk in memory that forgets what was not synced.
//!
//! It holds a *live* image, which every call sees, and a *durable* one, which [`PowerCutStorage::cut`] goes
//! back to. Files become durable by [`StorageFile::sync`], names by [`Storage::sync_dir`], as the contract of
//! [`super`] says. What was not synced is lost on a cut; with a seed, each unsynced sector of 4 KiB,
//! each unsynced length and each unsynced change of a name survives or not by a coin of its own.
//!
//! After a cut, handles, locks and calls from before it fail, as those of a dead process would: take
//! [`PowerCutStorage::restarted`] for the machine after the cut. Clones share one disk and one power supply.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{LockGuard, Storage, StorageFile};

const SECTOR_BYTES: usize = 4096;

/// See the module.
#[derive(Clone, Debug)]
pub struct PowerCutStorage {
    disk: Arc<Mutex<Disk>>,
    /// The power cycle it belongs to.
    epoch: u64,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    epoch: u64,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    live: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    /// Changes of names since their directory was synced, oldest first.
    changes: Vec<Change>,
    directories: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    capacity_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Change {
    Name {
        path: PathBuf,
        inode: u64,
    },
    Unname {
        path: PathBuf,
    },
    Move {
        from: PathBuf,
        to: PathBuf,
        inode: u64,
    },
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Name { path, .. } | Self::Unname { path } => path.parent() == Some(dir),
            Self::Move { from, to, .. } => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Name { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            Self::Unname { path } => {
                names.remove(path);
            }
            Self::Move { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Debug)]
struct CutFile {
    storage: PowerCutStorage,
    inode: u64,
}

#[derive(Debug)]
struct CutLock {
    storage: PowerCutStorage,
    path: PathBuf,
}

impl PowerCutStorage {
    /// An empty disk.
    pub fn new() -> Self {
        Self {
            disk: Arc::default(),
            epoch: 0,
        }
    }

    /// Limits the bytes that files may hold; `None` lifts the limit.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.disk.lock().capacity_bytes = capacity_bytes;
    }

    /// Cuts the power. Everything unsynced is lost or, with a seed, each piece of it by chance.
    pub fn cut(&self, seed: Option<u64>) {
        let mut coin = Coin(seed);
        let mut disk = self.disk.lock();
        let disk = &mut *disk;
        disk.epoch += 1;
        disk.locked.clear();
        for change in std::mem::take(&mut disk.changes) {
            if coin.survives() {
                change.apply(&mut disk.durable);
            }
        }
        disk.live = disk.durable.clone();
        let named: BTreeSet<u64> = disk.live.values().copied().collect();
        disk.inodes.retain(|inode, _| named.contains(inode));
        for inode in disk.inodes.values_mut() {
            inode.cut(&mut coin);
        }
    }

    /// The same disk for a process that starts after the last cut.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self {
            disk: Arc::clone(&self.disk),
            epoch: self.disk.lock().epoch,
        }
    }

    /// A disk of its own with the same content, unlocked: what happens to it does not happen here.
    #[must_use]
    pub fn copied(&self) -> Self {
        let mut disk = self.disk.lock().clone();
        disk.locked.clear();
        Self {
            epoch: disk.epoch,
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// The bytes of a file as every call sees them now.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.with(|disk| Ok(disk.inode(path)?.1.live.clone()))
    }

    /// Flips bits of a stored byte, durably: damage to the medium.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` past the end of the file.
    pub fn damage(&self, path: &Path, offset: usize, bits: u8) -> io::Result<()> {
        self.with(|disk| {
            let inode = disk.inode_mut(path)?;
            *inode
                .live
                .get_mut(offset)
                .ok_or(io::ErrorKind::InvalidInput)? ^= bits;
            if let Some(byte) = inode.durable.get_mut(offset) {
                *byte ^= bits;
            }
            Ok(())
        })
    }

    fn with<T>(&self, call: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        if disk.epoch != self.epoch {
            return Err(io::Error::other("the power was cut"));
        }
        call(&mut disk)
    }
}

impl Default for PowerCutStorage {
    fn default() -> Self {
        Self::new()
    }
}

/// xorshift64*; without a seed, nothing survives.
struct Coin(Option<u64>);

impl Coin {
    fn survives(&mut self) -> bool {
        let Some(state) = &mut self.0 else {
            return false;
        };
        let mut x = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        *state = x;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) & 1 == 1
    }
}

impl Inode {
    fn cut(&mut self, coin: &mut Coin) {
        self.write_back(|| coin.survives());
        self.live = self.durable.clone();
    }

    /// Makes the length and the unsynced sectors durable, each if `survives` says so.
    fn write_back(&mut self, mut survives: impl FnMut() -> bool) {
        if self.live.len() != self.durable.len() && survives() {
            self.durable.resize(self.live.len(), 0);
        }
        for sector in std::mem::take(&mut self.unsynced) {
            if !survives() {
                continue;
            }
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES)
                .min(self.live.len())
                .min(self.durable.len());
            if let (Some(to), Some(from)) =
                (self.durable.get_mut(start..end), self.live.get(start..end))
            {
                to.copy_from_slice(from);
            }
        }
    }

    fn set_len(&mut self, len: usize) {
        let was = self.live.len();
        self.live.resize(len, 0);
        // Bytes between the shorter and the longer end changed, if only to zero.
        self.touch(was.min(len), was.max(len));
    }

    fn touch(&mut self, from: usize, to: usize) {
        if from < to {
            self.unsynced
                .extend(from / SECTOR_BYTES..=(to - 1) / SECTOR_BYTES);
        }
    }
}

impl Disk {
    fn inode(&self, path: &Path) -> io::Result<(u64, &Inode)> {
        let number = *self.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok((
            number,
            self.inodes.get(&number).ok_or(io::ErrorKind::NotFound)?,
        ))
    }

    fn inode_mut(&mut self, path: &Path) -> io::Result<&mut Inode> {
        let number = *self.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        self.open_inode(number)
    }

    fn open_inode(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes
            .get_mut(&inode)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.changes.push(change);
    }

    fn check_dir(&self, path: &Path) -> io::Result<()> {
        let known = path
            .parent()
            .is_some_and(|dir| self.directories.contains(dir));
        if known {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.live.values().copied().collect();
        let bytes = named.iter().filter_map(|inode| self.inodes.get(inode));
        bytes.map(|inode| inode.live.len() as u64).sum()
    }

    fn grow(&mut self, inode: u64, len: usize) -> io::Result<()> {
        let has = self.open_inode(inode)?.live.len();
        if len <= has {
            return Ok(());
        }
        let more = (len - has) as u64;
        if self
            .capacity_bytes
            .is_some_and(|capacity| self.used_bytes() + more > capacity)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.open_inode(inode)?.set_len(len);
        Ok(())
    }
}

fn to_usize(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl Storage for PowerCutStorage {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.with(|disk| {
            disk.directories.extend(dir.ancestors().map(Path::to_owned));
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.with(|disk| {
            disk.check_dir(path)?;
            if disk.live.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = disk.next_inode;
            disk.next_inode += 1;
            disk.inodes.insert(inode, Inode::default());
            disk.change(Change::Name {
                path: path.to_owned(),
                inode,
            });
            Ok(Arc::new(CutFile {
                storage: self.clone(),
                inode,
            }) as _)
        })
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.with(|disk| {
            let (inode, _) = disk.inode(path)?;
            Ok(Arc::new(CutFile {
                storage: self.clone(),
                inode,
            }) as _)
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|disk| {
            let (synced, waiting): (Vec<_>, _) = std::mem::take(&mut disk.changes)
                .into_iter()
                .partition(|c| c.touches(dir));
            disk.changes = waiting;
            for change in synced {
                change.apply(&mut disk.durable);
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|disk| {
            disk.check_dir(to)?;
            let (inode, _) = disk.inode(from)?;
            disk.change(Change::Move {
                from: from.to_owned(),
                to: to.to_owned(),
                inode,
            });
            Ok(())
        })
    }

    fn link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.with(|disk| {
            disk.check_dir(link)?;
            let (inode, _) = disk.inode(existing)?;
            if disk.live.contains_key(link) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.change(Change::Name {
                path: link.to_owned(),
                inode,
            });
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(|disk| {
            disk.inode(path)?;
            disk.change(Change::Unname {
                path: path.to_owned(),
            });
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with(|disk| {
            if !disk.directories.contains(dir) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let inside = disk.live.keys().filter(|path| path.parent() == Some(dir));
            Ok(inside
                .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
                .collect())
        })
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.with(|disk| Ok(disk.inode(path)?.1.live.len() as u64))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.with(|disk| Ok(disk.live.contains_key(path) || disk.directories.contains(path)))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.with(|disk| {
            disk.check_dir(path)?;
            if !disk.locked.insert(path.to_owned()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(Box::new(CutLock {
                storage: self.clone(),
                path: path.to_owned(),
            }) as _)
        })
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        self.with(|disk| {
            let capacity = disk.capacity_bytes.unwrap_or(u64::MAX);
            Ok(capacity.saturating_sub(disk.used_bytes()))
        })
    }
}

impl StorageFile for CutFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.storage.with(|disk| {
            let inode = disk.open_inode(self.inode)?;
            let from = inode.live.get(to_usize(offset)?..).unwrap_or_default();
            let read = from.len().min(buf.len());
            if let (Some(to), Some(from)) = (buf.get_mut(..read), from.get(..read)) {
                to.copy_from_slice(from);
            }
            Ok(read)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.storage.with(|disk| {
            let start = to_usize(offset)?;
            let end = start
                .checked_add(bytes.len())
                .ok_or(io::ErrorKind::FileTooLarge)?;
            disk.grow(self.inode, end)?;
            let inode = disk.open_inode(self.inode)?;
            inode.touch(start, end);
            if let Some(place) = inode.live.get_mut(start..end) {
                place.copy_from_slice(bytes);
            }
            Ok(())
        })
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.storage
            .with(|disk| disk.grow(self.inode, to_usize(len)?))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.with(|disk| {
            let len = to_usize(len)?;
            disk.grow(self.inode, len)?;
            disk.open_inode(self.inode)?.set_len(len);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.storage
            .with(|disk| Ok(disk.open_inode(self.inode)?.live.len() as u64))
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.with(|disk| {
            disk.open_inode(self.inode)?.write_back(|| true);
            Ok(())
        })
    }
}

impl LockGuard for CutLock {}

impl Drop for CutLock {
    fn drop(&mut self) {
        // A lock of before the cut is already gone, and its name may be locked again.
        let _ = self.storage.with(|disk| {
            disk.locked.remove(&self.path);
            Ok(())
        });
    }
}
