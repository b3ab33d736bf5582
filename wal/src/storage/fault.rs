//! A storage that fails on demand: any operation, by its number, in one of several ways.
//!
//! A test first runs with nothing armed and reads [`FaultStorage::count`], then runs once for every number
//! below it. Operations are counted from 0 since the last [`FaultStorage::arm`]. Independently, the disk can
//! be made full and have room again.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::{LockGuard, Storage, StorageFile};

/// Kinds of file operations, to count and fail them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Storage::create_dir_all`].
    CreateDir,
    /// [`Storage::create`].
    Create,
    /// [`Storage::open`].
    Open,
    /// [`Storage::sync_dir`].
    SyncDir,
    /// [`Storage::rename`].
    Rename,
    /// [`Storage::link`].
    Link,
    /// [`Storage::remove`].
    Remove,
    /// [`Storage::list`].
    List,
    /// [`Storage::len`], [`Storage::exists`], [`Storage::free_bytes`] and [`StorageFile::len`].
    Measure,
    /// [`Storage::lock`].
    Lock,
    /// [`StorageFile::read_at`].
    Read,
    /// [`StorageFile::write_at`].
    Write,
    /// [`StorageFile::preallocate`].
    Preallocate,
    /// [`StorageFile::set_len`].
    SetLen,
    /// [`StorageFile::sync`].
    Sync,
}

impl Operation {
    /// Those that change something.
    pub const CHANGING: [Self; 10] = [
        Self::CreateDir,
        Self::Create,
        Self::SyncDir,
        Self::Rename,
        Self::Link,
        Self::Remove,
        Self::Write,
        Self::Preallocate,
        Self::SetLen,
        Self::Sync,
    ];

    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::CreateDir,
        Self::Create,
        Self::Open,
        Self::SyncDir,
        Self::Rename,
        Self::Link,
        Self::Remove,
        Self::List,
        Self::Measure,
        Self::Lock,
        Self::Read,
        Self::Write,
        Self::Preallocate,
        Self::SetLen,
        Self::Sync,
    ];
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is not done, and says so.
    Fail,
    /// A write or read is half done, anything else done, and it says that it failed.
    Tear,
    /// As [`Fail`](Self::Fail), for want of room.
    Full,
    /// It is half done like [`Tear`](Self::Tear), and it and every later operation fails.
    Crash,
}

/// Wraps a storage. Clones share what is armed.
#[derive(Clone, Debug)]
pub struct FaultStorage {
    inner: Arc<dyn Storage>,
    control: Arc<Control>,
}

#[derive(Debug, Default)]
struct Control {
    plan: Mutex<Plan>,
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct Plan {
    counted: Vec<Operation>,
    count: u64,
    armed: Option<(u64, Fault)>,
    fired: bool,
    crashed: bool,
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn StorageFile>,
    control: Arc<Control>,
}

impl FaultStorage {
    /// A storage that does what `inner` does and counts every operation.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        let storage = Self {
            inner,
            control: Arc::default(),
        };
        storage.disarm();
        storage
    }

    /// From here on, counts the operations of the kinds given, and lets number `nth` of them fail, once.
    pub fn arm(&self, kinds: &[Operation], nth: u64, fault: Fault) {
        let armed = Some((nth, fault));
        *self.control.plan.lock() = Plan {
            counted: kinds.to_vec(),
            armed,
            ..Plan::default()
        };
    }

    /// From here on, counts the operations of the kinds given and lets none fail.
    pub fn watch(&self, kinds: &[Operation]) {
        *self.control.plan.lock() = Plan {
            counted: kinds.to_vec(),
            ..Plan::default()
        };
    }

    /// Counts every operation and lets none fail; ends a crash.
    pub fn disarm(&self) {
        self.watch(&Operation::ALL);
    }

    /// Operations counted since it was armed.
    pub fn count(&self) -> u64 {
        self.control.plan.lock().count
    }

    /// Whether the armed fault has happened.
    pub fn fired(&self) -> bool {
        self.control.plan.lock().fired
    }

    /// While full, nothing can be created or grow; what is allocated can be written.
    pub fn set_full(&self, full: bool) {
        self.control.full.store(full, Ordering::SeqCst);
    }
}

impl Control {
    /// Does `half` of an operation or `whole`, as the plan has it.
    fn run<T>(
        &self,
        kind: Operation,
        half: impl FnOnce(),
        whole: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match self.judge(kind) {
            None => whole(),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Fail) => Err(injected(kind)),
            Some(Fault::Tear | Fault::Crash) => {
                half();
                Err(injected(kind))
            }
        }
    }

    fn judge(&self, kind: Operation) -> Option<Fault> {
        let mut plan = self.plan.lock();
        if plan.crashed {
            return Some(Fault::Fail);
        }
        if !plan.counted.contains(&kind) {
            return None;
        }
        let number = plan.count;
        plan.count += 1;
        let (_, fault) = plan.armed.filter(|(nth, _)| *nth == number)?;
        plan.fired = true;
        plan.crashed = fault == Fault::Crash;
        Some(fault)
    }

    fn check_room(&self, grows: bool) -> io::Result<()> {
        if grows && self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

fn injected(kind: Operation) -> io::Error {
    io::Error::other(format!("injected failure of {kind:?}"))
}

impl FaultStorage {
    fn whole_or_nothing<T>(
        &self,
        kind: Operation,
        call: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        self.control.run(kind, || drop(call()), &call)
    }

    fn file(&self, inner: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(FaultFile {
            inner,
            control: Arc::clone(&self.control),
        })
    }
}

impl Storage for FaultStorage {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.whole_or_nothing(Operation::CreateDir, || self.inner.create_dir_all(dir))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.control.check_room(true)?;
        let file = self.whole_or_nothing(Operation::Create, || self.inner.create(path))?;
        Ok(self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.whole_or_nothing(Operation::Open, || self.inner.open(path))?;
        Ok(self.file(file))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.whole_or_nothing(Operation::SyncDir, || self.inner.sync_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole_or_nothing(Operation::Rename, || self.inner.rename(from, to))
    }

    fn link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.whole_or_nothing(Operation::Link, || self.inner.link(existing, link))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.whole_or_nothing(Operation::Remove, || self.inner.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.whole_or_nothing(Operation::List, || self.inner.list(dir))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.whole_or_nothing(Operation::Measure, || self.inner.len(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.whole_or_nothing(Operation::Measure, || self.inner.exists(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.whole_or_nothing(Operation::Lock, || self.inner.lock(path))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let free = self.whole_or_nothing(Operation::Measure, || self.inner.free_bytes(dir))?;
        Ok(if self.control.full.load(Ordering::SeqCst) {
            0
        } else {
            free
        })
    }
}

impl FaultFile {
    fn check_room(&self, end: u64) -> io::Result<()> {
        self.control.check_room(end > self.inner.len()?)
    }
}

impl StorageFile for FaultFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.control
            .run(Operation::Read, || (), || self.inner.read_at(offset, buf))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_room(offset + bytes.len() as u64)?;
        let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
        self.control.run(
            Operation::Write,
            || drop(self.inner.write_at(offset, half)),
            || self.inner.write_at(offset, bytes),
        )
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.check_room(len)?;
        self.control.run(
            Operation::Preallocate,
            || drop(self.inner.preallocate(len / 2)),
            || self.inner.preallocate(len),
        )
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_room(len)?;
        self.control.run(
            Operation::SetLen,
            || drop(self.inner.set_len(len)),
            || self.inner.set_len(len),
        )
    }

    fn len(&self) -> io::Result<u64> {
        self.control
            .run(Operation::Measure, || (), || self.inner.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.control.run(
            Operation::Sync,
            || drop(self.inner.sync()),
            || self.inner.sync(),
        )
    }
}
