//! The running log: append, group commit, rotation, close.
//!
//! Writers copy their record into the open group under the state's lock, which places it: its LSN and
//! its segment are settled there, and the space in that segment is already taken from the disk. The
//! first writer to wait becomes the *leader*: it takes all pending groups, writes and syncs them with no
//! lock held, and wakes everybody they made durable; meanwhile others append to the next group.
//!
//! Invariants
//! - There is one leader at a time, and a group is written only after the one before it was synced.
//!   So only the last group on disk can be one that was not synced.
//! - A record has an LSN only if its place on disk is allocated. A full disk refuses, it never loses.
//! - After a write or sync failed, nothing is written any more: the log is poisoned.
//! - The last block of a segment is left for a marker.
//!
//! Locks: `cutting`, then `state`. No file operation happens under `state`.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{
    background,
    clock::Clock,
    error::Error,
    format::{BLOCK_BYTES, GROUP_HEADER_BYTES, SegmentHeader, align_up},
    group::{Draft, Group, GroupBytes},
    lsn::Lsn,
    recovery::Recovered,
    segment::{Live, MakeError, Maker, Segment, Spare},
    settings::{Durability, Settings},
    stats::{Counters, Stats},
    storage::LockGuard,
    store_id::StoreId,
};

/// A segment that was full sooner than this is followed by one of twice its size.
const FILLED_FAST: Duration = Duration::from_secs(5);

/// A segment that took longer than this is followed by one of half its size.
const FILLED_SLOWLY: Duration = Duration::from_mins(1);

/// A log of records in one directory. Shared between threads in an [`Arc`].
///
/// Dropping it without [`close`](Self::close) is like a crash: what was durable is there on the next open.
#[derive(Debug)]
pub struct Wal {
    shared: Arc<Shared>,
    background: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) maker: Maker,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) state: Mutex<State>,
    /// Held by the one who cuts.
    pub(crate) cutting: Mutex<()>,
    pub(crate) durable: AtomicU64,
    last: AtomicU64,
    /// A leader is done.
    synced: Condvar,
    /// A segment was prepared, or could not be.
    room: Condvar,
    pub(crate) wake_background: Condvar,
    pub(crate) counters: Counters,
}

#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and all combinations occur"
)]
pub(crate) struct State {
    pub(crate) next_lsn: u64,
    /// Groups not yet taken by a leader, at most one for each segment; the last is open if it is the
    /// active segment's.
    pub(crate) pending: VecDeque<Group>,
    pub(crate) pending_since: Duration,
    unsynced_bytes: u64,
    /// Takes the next group. None if the log was opened on a full disk.
    pub(crate) active: Option<Arc<Segment>>,
    /// Where the group after all those placed in the active segment starts.
    pub(crate) end: u64,
    active_since: Duration,
    /// Prepared to follow the active one.
    pub(crate) next: Option<Segment>,
    pub(crate) next_number: u64,
    preparing: bool,
    /// Size of the next segment.
    target_bytes: u64,
    pub(crate) leading: bool,
    /// The last group on disk is a marker, and nothing was appended since.
    pub(crate) marked: bool,
    pub(crate) last_sync: Duration,
    closing: bool,
    /// Why nothing is taken any more.
    pub(crate) stopped: Option<String>,
    poisoned: bool,
    pub(crate) stop_background: bool,
    pub(crate) background_asleep: bool,
    /// Segments with a name, oldest first; the last is the active one.
    pub(crate) live: VecDeque<Live>,
    pub(crate) spares: Vec<Spare>,
    buffers: Vec<Vec<u8>>,
    records: u64,
    record_bytes: u64,
}

impl Wal {
    pub(crate) fn start(
        recovered: Recovered,
        clock: Arc<dyn Clock>,
        settings: Settings,
        lock: Box<dyn LockGuard>,
    ) -> Result<Arc<Self>, Error> {
        let now = clock.monotonic();
        let last = recovered.next_lsn.saturating_sub(1);
        let state = State {
            next_lsn: recovered.next_lsn,
            active: recovered.active.map(Arc::new),
            end: recovered.end,
            active_since: now,
            next_number: recovered.next_number,
            target_bytes: align_up(settings.segment_bytes_min),
            marked: true,
            last_sync: now,
            live: recovered.live,
            ..State::default()
        };
        let dir = recovered.maker.dir.clone();
        let shared = Arc::new(Shared {
            maker: recovered.maker,
            clock,
            settings,
            state: Mutex::new(state),
            cutting: Mutex::new(()),
            durable: AtomicU64::new(last),
            last: AtomicU64::new(last),
            synced: Condvar::new(),
            room: Condvar::new(),
            wake_background: Condvar::new(),
            counters: Counters::default(),
        });
        let of_thread = Arc::clone(&shared);
        let background = std::thread::Builder::new()
            .name("rootline-wal".to_owned())
            .spawn(move || background::run(&of_thread))
            .map_err(|source| Error::Io {
                operation: "start a thread for",
                path: dir,
                source,
            })?;
        let background = Mutex::new(Some(background));
        Ok(Arc::new(Self {
            shared,
            background,
            lock: Mutex::new(Some(lock)),
        }))
    }

    /// Appends one record made of `parts` laid end to end and returns its LSN, one above the last.
    /// Not durable yet: see [`wait_durable`](Self::wait_durable).
    ///
    /// Cheap: a checksum and a copy. Blocks while too much waits to be synced, and while a segment is
    /// being made that should have been ready.
    ///
    /// # Errors
    /// [`Error::DiskFull`]: no LSN was given out, the same call may succeed later.
    /// [`Error::RecordTooLarge`]. [`Error::Closed`] after [`close`](Self::close) or a failed write.
    pub fn append(&self, kind: u8, parts: &[&[u8]]) -> Result<Lsn, Error> {
        self.shared.append(&Draft::new(kind, parts)?).map(Lsn)
    }

    /// Blocks until `lsn` is durable. One of those who wait writes and syncs for all.
    ///
    /// With [`Durability::Interval`] it returns at once: a background thread syncs.
    ///
    /// # Errors
    /// [`Error::Closed`] if the write or sync failed. Whether the record is there after the next open
    /// is not known then. [`Error::Closed`] too for an LSN that was never given out.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), Error> {
        let waits = !matches!(self.shared.settings.durability, Durability::Interval(_));
        self.shared.wait_durable(lsn.0, waits)
    }

    /// Blocks until `lsn` is durable, whatever [`Settings::durability`] says.
    ///
    /// # Errors
    /// As [`wait_durable`](Self::wait_durable).
    pub fn sync_to(&self, lsn: Lsn) -> Result<(), Error> {
        self.shared.wait_durable(lsn.0, true)
    }

    /// The last record that survives a power cut. Takes no lock.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.shared.durable.load(Ordering::Acquire))
    }

    /// The last record appended. Takes no lock.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.shared.last.load(Ordering::Acquire))
    }

    /// Which store this is: drawn when the log was created.
    pub fn store_id(&self) -> StoreId {
        self.shared.maker.store
    }

    /// Removes segments all of whose records are below `below`, or keeps them for reuse. When that is
    /// all there is, one segment of at most 64 KiB is left.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be renamed or removed: nothing is lost, call again.
    /// [`Error::DiskFull`] if there is no room for the small segment. [`Error::Closed`].
    pub fn cut(&self, below: Lsn) -> Result<(), Error> {
        self.shared.cut(below.0)
    }

    /// Figures as of now.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Syncs everything, notes durably that it did, gives back what is allocated and not used, and
    /// releases the directory. Later appends get [`Error::Closed`]. Closing twice is fine.
    ///
    /// # Errors
    /// [`Error::Closed`] if the log was poisoned before or by this.
    pub fn close(&self) -> Result<(), Error> {
        let closed = self.shared.close();
        self.stop_background();
        self.lock.lock().take();
        closed
    }

    fn stop_background(&self) {
        self.shared.state.lock().stop_background = true;
        self.shared.wake_background.notify_all();
        if let Some(thread) = self.background.lock().take() {
            // A panic there was printed; here is nobody to hand it to.
            let _ = thread.join();
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.stop_background();
    }
}

impl Shared {
    fn append(&self, record: &Draft<'_>) -> Result<u64, Error> {
        let mut state = self.state.lock();
        loop {
            state.check_open()?;
            if state.unsynced_bytes > self.settings.unsynced_bytes_max {
                self.lead_or_wait(&mut state);
            } else if state.has_room(record.frame_bytes()) {
                break;
            } else if state.next_fits(record.frame_bytes()) {
                state.rotate(&self.settings, self.clock.monotonic());
            } else if state.preparing {
                self.room.wait(&mut state);
            } else {
                let bytes = state
                    .target_bytes
                    .max(segment_bytes_for(record.frame_bytes()));
                self.prepare(&mut state, bytes)?;
            }
        }
        let lsn = state.place(record, self.clock.as_ref());
        self.last.store(lsn, Ordering::Release);
        let wake = state.background_asleep && (state.marked || state.wants_next());
        state.marked = false;
        drop(state);
        if wake {
            self.wake_background.notify_one();
        }
        Ok(lsn)
    }

    /// Without `waits`, looks at the state of the log alone.
    fn wait_durable(&self, lsn: u64, waits: bool) -> Result<(), Error> {
        if self.durable.load(Ordering::Acquire) >= lsn {
            return Ok(());
        }
        let mut state = self.state.lock();
        loop {
            if self.durable.load(Ordering::Acquire) >= lsn {
                return Ok(());
            }
            if let Some(reason) = &state.stopped {
                return Err(Error::Closed {
                    reason: reason.clone(),
                });
            }
            if lsn >= state.next_lsn {
                let reason = format!("record {lsn} was never appended");
                return Err(Error::Closed { reason });
            }
            if !waits {
                return Ok(());
            }
            self.lead_or_wait(&mut state);
        }
    }

    pub(crate) fn lead_or_wait(&self, state: &mut MutexGuard<'_, State>) {
        if state.leading {
            self.synced.wait(state);
        } else {
            self.lead(state, false);
        }
    }

    /// Writes and syncs all pending groups; if there is none and `mark` is set, a marker.
    pub(crate) fn lead(&self, state: &mut MutexGuard<'_, State>, mark: bool) {
        debug_assert!(!state.leading, "one leader at a time");
        let mut groups = mem::take(&mut state.pending);
        let unsynced_bytes = state.unsynced_bytes;
        let marker = groups.is_empty() && mark;
        if marker && let Some(group) = state.marker() {
            groups.push_back(group);
        }
        if groups.is_empty() || state.stopped.is_some() {
            return;
        }
        state.leading = true;
        let (written, outcome) = MutexGuard::unlocked(state, || self.write(&mut groups));
        state.leading = false;
        state.last_sync = self.clock.monotonic();
        state.unsynced_bytes -= unsynced_bytes;
        for group in groups.drain(..).take(written) {
            let number = group.segment.number;
            if let Some(live) = state
                .live
                .iter_mut()
                .rev()
                .find(|live| live.number == number)
            {
                live.anchored = true;
            }
            state.keep_buffer(group.bytes);
        }
        match outcome {
            Ok(()) if marker => {
                state.marked = state.pending.is_empty();
                self.counters.markers.fetch_add(1, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(error) => self.poison(state, &error),
        }
        self.synced.notify_all();
        if state.background_asleep && !state.marked {
            self.wake_background.notify_one();
        }
    }

    /// One group after the other, each synced before the next is written. Returns how many were.
    fn write(&self, groups: &mut VecDeque<Group>) -> (usize, Result<(), Error>) {
        for (written, group) in groups.iter_mut().enumerate() {
            let start = self.clock.monotonic();
            let segment = &group.segment;
            let offset = group.bytes.offset();
            let bytes = group.bytes.finish(self.durable.load(Ordering::Acquire));
            let outcome = match segment.file.write_at(offset, bytes) {
                Ok(()) => segment.file.sync().map_err(|source| ("sync", source)),
                Err(source) => Err(("write", source)),
            };
            if let Err((operation, source)) = outcome {
                let path = segment.path.clone();
                return (
                    written,
                    Err(Error::Io {
                        operation,
                        path,
                        source,
                    }),
                );
            }
            let counters = &self.counters;
            counters
                .written_bytes
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if group.bytes.records() > 0 {
                self.durable
                    .store(group.bytes.last_lsn(), Ordering::Release);
            }
            let took = self.clock.monotonic().saturating_sub(start);
            let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            counters.groups.fetch_add(1, Ordering::Relaxed);
            counters.sync_last_ns.store(took_ns, Ordering::Relaxed);
            counters.sync_total_ns.fetch_add(took_ns, Ordering::Relaxed);
        }
        (groups.len(), Ok(()))
    }

    /// Makes the segment that will follow the active one, of at least `bytes` or of the usual size.
    pub(crate) fn prepare(
        &self,
        state: &mut MutexGuard<'_, State>,
        bytes: u64,
    ) -> Result<(), Error> {
        debug_assert!(!state.preparing, "one preparation at a time");
        let bytes = if bytes == 0 {
            state.target_bytes
        } else {
            bytes
        };
        let spare = state.take_spare(bytes);
        let recycled = spare.is_some();
        state.preparing = true;
        let header = SegmentHeader {
            store: self.maker.store,
            segment: state.next_number,
            synced_lsn: self.durable.load(Ordering::Acquire),
            replaces_segment: 0,
            replaces_from: 0,
            created_wall_ns: self.clock.wall_ns(),
        };
        state.next_number += 1;
        let replaced = state.next.as_ref().map(|segment| segment.path.clone());
        let made = MutexGuard::unlocked(state, || {
            let made = self.maker.make(&header, bytes, spare, &mut |_| Ok(()))?;
            if let Some(path) = replaced {
                // Too small for what comes now, and empty; left behind it would be removed at open.
                let _ = self.maker.storage.remove(&path);
            }
            Ok(made)
        });
        state.preparing = false;
        self.room.notify_all();
        match made {
            Ok(segment) => {
                self.counters.segments_made.fetch_add(1, Ordering::Relaxed);
                self.counters
                    .segments_recycled
                    .fetch_add(recycled.into(), Ordering::Relaxed);
                state.next = Some(segment);
                Ok(())
            }
            Err(MakeError::Full(error)) => {
                self.counters.disk_full.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
            Err(MakeError::Fatal(error)) => {
                self.poison(state, &error);
                Err(error)
            }
        }
    }

    pub(crate) fn wait_for_room(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let waited = state.preparing;
        if waited {
            self.room.wait(state);
        }
        waited
    }

    /// Nothing is written from here on: what a failed write or sync left behind is not known.
    pub(crate) fn poison(&self, state: &mut MutexGuard<'_, State>, error: &Error) {
        state.poisoned = true;
        state
            .stopped
            .get_or_insert_with(|| format!("{error}; reopen it"));
        state.pending.clear();
        self.synced.notify_all();
        self.room.notify_all();
    }

    /// Waits until nobody writes, prepares, or waits to be written.
    pub(crate) fn drain(&self, state: &mut MutexGuard<'_, State>) -> Result<(), Error> {
        loop {
            if let Some(reason) = &state.stopped {
                return Err(Error::Closed {
                    reason: reason.clone(),
                });
            }
            if state.leading || !state.pending.is_empty() {
                self.lead_or_wait(state);
            } else if !self.wait_for_room(state) {
                return Ok(());
            }
        }
    }

    fn close(&self) -> Result<(), Error> {
        let _no_cut = self.cutting.lock();
        let mut state = self.state.lock();
        if state.closing && state.stopped.is_some() && !state.poisoned {
            return Ok(());
        }
        state.closing = true;
        self.drain(&mut state)?;
        if !state.marked {
            self.lead(&mut state, true);
        }
        // The marker may have failed.
        self.drain(&mut state)?;
        state.stopped = Some("it was closed".to_owned());
        let next = state.next.take().map(|segment| segment.path);
        let spares = mem::take(&mut state.spares);
        let (active, end) = (state.active.clone(), state.end);
        drop(state);
        for path in next
            .into_iter()
            .chain(spares.into_iter().map(|spare| spare.path))
        {
            // Empty or cut; open removes what is left.
            let _ = self.maker.storage.remove(&path);
        }
        if let Some(active) = active {
            let trimmed = active.file.set_len(end).and_then(|()| active.file.sync());
            trimmed.map_err(|source| Error::Io {
                operation: "trim",
                path: active.path.clone(),
                source,
            })?;
            if let Some(live) = self.state.lock().live.back_mut() {
                live.bytes = end;
            }
        }
        Ok(())
    }

    fn stats(&self) -> Stats {
        let state = self.state.lock();
        let counters = &self.counters;
        let live = state.live.iter().map(|live| live.bytes);
        let next = state.next.iter().map(|segment| segment.capacity);
        let spares = state.spares.iter().map(|spare| spare.bytes);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            segments: (state.live.len() + usize::from(state.next.is_some()) + state.spares.len())
                as u64,
            disk_bytes: live.chain(next).chain(spares).sum(),
            records: state.records,
            record_bytes: state.record_bytes,
            written_bytes: count(&counters.written_bytes),
            groups: count(&counters.groups),
            markers: count(&counters.markers),
            sync_last: Duration::from_nanos(count(&counters.sync_last_ns)),
            sync_total: Duration::from_nanos(count(&counters.sync_total_ns)),
            segments_made: count(&counters.segments_made),
            segments_recycled: count(&counters.segments_recycled),
            disk_full: count(&counters.disk_full),
            unsynced_bytes: state.unsynced_bytes,
            last_lsn: Lsn(self.last.load(Ordering::Acquire)),
            durable_lsn: Lsn(self.durable.load(Ordering::Acquire)),
            poisoned: state.poisoned,
        }
    }
}

impl State {
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match &self.stopped {
            Some(reason) => Err(Error::Closed {
                reason: reason.clone(),
            }),
            None if self.closing => Err(Error::Closed {
                reason: "it is being closed".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Whether a frame fits into the active segment, with a marker behind it.
    fn has_room(&self, frame_bytes: u64) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let end = match self.open_group() {
                Some(group) => group.bytes.end_with(frame_bytes),
                None => self.end + align_up(GROUP_HEADER_BYTES as u64 + frame_bytes),
            };
            end + BLOCK_BYTES <= active.capacity
        })
    }

    fn next_fits(&self, frame_bytes: u64) -> bool {
        self.next
            .as_ref()
            .is_some_and(|next| segment_bytes_for(frame_bytes) <= next.capacity)
    }

    fn open_group(&self) -> Option<&Group> {
        let active = self.active.as_ref()?;
        self.pending
            .back()
            .filter(|group| group.segment.number == active.number)
    }

    /// Gives a record that fits its LSN and its place.
    fn place(&mut self, record: &Draft<'_>, clock: &dyn Clock) -> u64 {
        let lsn = self.next_lsn;
        if self.pending.is_empty() {
            self.pending_since = clock.monotonic();
        }
        if self.open_group().is_none() {
            let group = self.open_new_group();
            self.pending.extend(group);
        }
        if let Some(group) = self.pending.back_mut() {
            group.bytes.push(record, lsn);
            self.end = group.bytes.end_with(0);
        }
        self.next_lsn += 1;
        self.unsynced_bytes += record.frame_bytes();
        self.records += 1;
        self.record_bytes += record.payload_bytes();
        lsn
    }

    fn open_new_group(&mut self) -> Option<Group> {
        let segment = Arc::clone(self.active.as_ref()?);
        let buffer = self.buffers.pop().unwrap_or_default();
        let bytes = GroupBytes::new(segment.seed, self.end, self.next_lsn, buffer);
        Some(Group { segment, bytes })
    }

    /// The group that says that all before it was synced. It uses the block kept for it, or one more.
    fn marker(&mut self) -> Option<Group> {
        let group = self.open_new_group()?;
        self.end = group.bytes.end_with(0);
        Some(group)
    }

    fn keep_buffer(&mut self, bytes: GroupBytes) {
        // One is being filled while another is written.
        if self.buffers.len() < 2 {
            self.buffers.extend(bytes.into_buffer());
        }
    }

    /// Makes the prepared segment the active one.
    pub(crate) fn rotate(&mut self, settings: &Settings, now: Duration) {
        let Some(next) = self.next.take() else { return };
        if let Some(live) = self
            .live
            .back_mut()
            .filter(|live| live.last_lsn == u64::MAX)
        {
            live.last_lsn = self.next_lsn - 1;
        }
        if let Some(full) = &self.active
            && full.capacity >= self.target_bytes
        {
            let took = now.saturating_sub(self.active_since);
            if took < FILLED_FAST {
                self.target_bytes = (self.target_bytes * 2).min(settings.segment_bytes_max);
            } else if took > FILLED_SLOWLY {
                self.target_bytes = (self.target_bytes / 2).max(settings.segment_bytes_min);
            }
            self.target_bytes = align_up(self.target_bytes);
        }
        self.live.push_back(Live {
            number: next.number,
            path: next.path.clone(),
            last_lsn: u64::MAX,
            bytes: next.capacity,
            anchored: false,
        });
        self.active = Some(Arc::new(next));
        self.end = BLOCK_BYTES;
        self.active_since = now;
    }

    /// Whether the background thread should prepare the next segment.
    pub(crate) fn wants_next(&self) -> bool {
        self.next.is_none()
            && !self.preparing
            && !self.closing
            && self
                .active
                .as_ref()
                .is_some_and(|active| self.end > active.capacity / 2)
    }

    fn take_spare(&mut self, bytes: u64) -> Option<Spare> {
        let fits = self.spares.iter().position(|spare| spare.bytes >= bytes)?;
        Some(self.spares.swap_remove(fits))
    }
}

/// Bytes of a segment that can hold one frame: header, the group, a marker.
fn segment_bytes_for(frame_bytes: u64) -> u64 {
    BLOCK_BYTES + align_up(GROUP_HEADER_BYTES as u64 + frame_bytes) + BLOCK_BYTES
}
