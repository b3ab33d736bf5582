//! Opening a log: what is on disk is judged, replayed, and made durable before anything is served.
//!
//! 1. *Look*: every segment's header (if it is damaged, its copy) and first group are read, and all group
//!    headers of the last one. The highest `synced_lsn` found is the durable end: what is missing below
//!    it is corruption, what is unreadable above it is a tear.
//! 2. *Replay*: records are handed over in LSN order. Of a segment that a later one replaces from some
//!    LSN on, only those below count.
//! 3. *Rewrite*: records above the durable end may have come from the page cache, so they are written into a
//!    fresh segment, together with a marker. It gets its name once it is synced whole. It says from
//!    which LSN it replaces what came before, and so also voids the remains of the tear.
//! 4. *Clean*: what is replaced or empty is removed, what was allocated in vain is given back. Damaged
//!    segments are left as they are.
//!
//! A crash at any step leaves either the old state or the new one to the next open.

use std::{
    collections::VecDeque,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    checksum::Seed,
    clock::Clock,
    error::{BoxError, Error},
    filenames::{self, Name},
    format::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, SegmentHeader, SegmentHeaderRead},
    group::{Draft, GroupBytes},
    log::Wal,
    lsn::Lsn,
    scan::{Damage, FoundRecord, SegmentReader, Visitor},
    segment::{Live, MakeError, Maker, SEGMENT_BYTES_BASE, Segment},
    settings::Settings,
    storage::Storage,
    store_id::StoreId,
};

/// An undamaged last segment up to this size is rewritten whole, so that many short runs do not leave
/// many small segments.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// A record as it is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its sequence number.
    pub lsn: Lsn,
    /// The kind it was appended with.
    pub kind: u8,
    /// The parts it was appended with, laid end to end.
    pub payload: &'a [u8],
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Records replayed.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Bytes cut off as a torn tail: never acknowledged, and normal after a crash.
    pub torn_bytes: u64,
    /// Damage that cost acknowledged records, or could have. Empty in a healthy log.
    pub corrupt: Vec<Corruption>,
    /// Segments found.
    pub segments: u64,
    /// Records written again because it was not certain that they were durable.
    pub rewritten_records: u64,
    /// The last record, lost ones included: the next one gets the LSN after it.
    pub last_lsn: Lsn,
    /// There was no log before.
    pub created: bool,
}

/// Damage found in a segment. The file is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Corruption {
    /// Number of the segment.
    pub segment: u64,
    /// Its file.
    pub path: PathBuf,
    /// Where in it the damage begins.
    pub offset_bytes: u64,
    /// First and last record that it cost, or `None` if it cost none.
    pub lost: Option<(Lsn, Lsn)>,
    /// What is wrong.
    pub reason: &'static str,
}

/// What the running log starts from.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) maker: Maker,
    pub(crate) next_lsn: u64,
    pub(crate) next_number: u64,
    pub(crate) active: Option<Segment>,
    pub(crate) end: u64,
    pub(crate) live: VecDeque<Live>,
}

impl Wal {
    /// Opens the log in `dir`, which is made if missing.
    ///
    /// Locks it, recovers, hands every record to `replay` in LSN order, and makes certain that what was
    /// replayed is durable. Damage costs the records it hit and is reported in [`Recovery::corrupt`].
    ///
    /// # Errors
    /// [`Error::Locked`] if it is open elsewhere. [`Error::Replay`] with what `replay` returned.
    /// [`Error::UnsupportedVersion`], [`Error::NotASegment`], [`Error::ForeignStore`],
    /// [`Error::MisnamedSegment`] and [`Error::UnreadableHeader`] leave all files as they are.
    /// [`Error::Io`], [`Error::DiskFull`] and [`Error::InvalidSettings`].
    pub fn open(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        settings: Settings,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), BoxError>,
    ) -> Result<(Arc<Self>, Recovery), Error> {
        settings.check()?;
        storage
            .create_dir_all(dir)
            .map_err(io_error("create directory", dir))?;
        let lock = storage.lock(&dir.join(filenames::LOCK)).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                Error::Locked {
                    dir: dir.to_owned(),
                }
            } else {
                io_error("lock", dir)(source)
            }
        })?;
        let found = Found::look(&storage, dir, settings.store)?;
        let (recovered, recovery) =
            found.recover(storage, clock.as_ref(), dir, &settings, replay)?;
        Ok((Self::start(recovered, clock, settings, lock)?, recovery))
    }

    /// Reads the log in `dir` as [`open`](Self::open) would, and leaves everything as it is: nothing is
    /// locked, written or removed. For tools that look at a store; while somebody else writes to the
    /// log, its end may look torn.
    ///
    /// # Errors
    /// As [`open`](Self::open), less what has to do with writing.
    pub fn read(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), BoxError>,
    ) -> Result<(Option<StoreId>, Recovery), Error> {
        Self::read_known(storage, dir, None, replay)
    }

    /// As [`read`](Self::read), for a caller who knows whose log it is ([`Settings::store`]).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_known(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        store: Option<StoreId>,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), BoxError>,
    ) -> Result<(Option<StoreId>, Recovery), Error> {
        let mut found = Found::look(storage, dir, store)?;
        let (mut recovery, _tail) = found.replay(replay)?;
        recovery.created = found.store.is_none();
        Ok((found.store, recovery))
    }
}

/// The directory as it was found.
#[derive(Debug)]
struct Found {
    store: Option<StoreId>,
    /// By number.
    segments: Vec<FoundSegment>,
    temporary: Vec<PathBuf>,
    number_max: u64,
    synced_lsn: u64,
}

#[derive(Debug)]
struct FoundSegment {
    number: u64,
    reader: SegmentReader,
    /// `None` if neither it nor its copy is readable.
    header: Option<SegmentHeader>,
    /// What is wrong with the header, copy or not.
    header_damage: Option<&'static str>,
    seed: Seed,
    first_group: Option<GroupHeader>,
    /// Where its last group ends, where that was looked for.
    groups_end: Option<u64>,
    // Filled in by replay:
    /// Something in it is damaged: it is not touched.
    damaged: bool,
    records: u64,
    first_record: Option<u64>,
    last_lsn: u64,
    /// End of its last group whose records are all known to have been durable.
    synced_end: u64,
}

impl FoundSegment {
    /// The first LSN that it, not an older segment, has the say about.
    fn start(&self) -> Option<u64> {
        let replaces = self
            .header
            .map(|header| header.replaces_from)
            .filter(|from| *from > 0);
        replaces.or(self.first_group.map(|group| group.first_lsn))
    }

    fn note_damage(&mut self) {
        self.damaged = true;
    }
}

impl Found {
    /// `known` stands in for headers of which none is readable.
    fn look(storage: &Arc<dyn Storage>, dir: &Path, known: Option<StoreId>) -> Result<Self, Error> {
        let mut found = Self {
            store: None,
            segments: Vec::new(),
            temporary: Vec::new(),
            number_max: 0,
            synced_lsn: 0,
        };
        let mut numbers = Vec::new();
        for name in storage.list(dir).map_err(io_error("list", dir))? {
            match filenames::parse(&name) {
                Name::Segment(number) => {
                    numbers.push(number);
                    found.number_max = found.number_max.max(number);
                }
                Name::Temporary(number) => {
                    found.temporary.push(dir.join(name));
                    found.number_max = found.number_max.max(number);
                }
                Name::Other => {}
            }
        }
        numbers.sort_unstable();
        for number in numbers {
            found.look_at_header(storage, dir.join(filenames::segment(number)), number)?;
        }
        if found.store.is_none() && !found.segments.is_empty() {
            found.store = known;
        }
        found.look_at_groups()?;
        Ok(found)
    }

    fn look_at_header(
        &mut self,
        storage: &Arc<dyn Storage>,
        path: PathBuf,
        number: u64,
    ) -> Result<(), Error> {
        let file = storage.open(&path).map_err(io_error("open", &path))?;
        let mut reader = SegmentReader::new(path.clone(), file)?;
        let (header, header_damage) = match reader.header(number)? {
            SegmentHeaderRead::Header(header) => (Some(header), None),
            SegmentHeaderRead::Copy(header) => (
                Some(header),
                Some("segment header is damaged, its copy was read"),
            ),
            SegmentHeaderRead::Damaged => {
                (None, Some("segment header does not match its checksum"))
            }
            SegmentHeaderRead::Magic(found) => return Err(Error::NotASegment { path, found }),
            SegmentHeaderRead::Version(found) => {
                return Err(Error::UnsupportedVersion {
                    path,
                    found,
                    newest: crate::format::VERSION,
                });
            }
        };
        if let Some(header) = &header {
            let expected = *self.store.get_or_insert(header.store);
            if header.store != expected {
                return Err(Error::ForeignStore {
                    path,
                    expected,
                    found: header.store,
                });
            }
            if header.segment != number {
                let (expected, found) = (number, header.segment);
                return Err(Error::MisnamedSegment {
                    path,
                    expected,
                    found,
                });
            }
        }
        reader.release();
        self.segments.push(FoundSegment {
            number,
            reader,
            header,
            header_damage,
            // Set for good once the store is known for certain.
            seed: Seed::new(&StoreId::from_bytes([0; 16]), number),
            first_group: None,
            groups_end: None,
            damaged: header_damage.is_some(),
            records: 0,
            first_record: None,
            last_lsn: 0,
            synced_end: BLOCK_BYTES,
        });
        Ok(())
    }

    fn look_at_groups(&mut self) -> Result<(), Error> {
        let Some(store) = self.store else {
            return match self.segments.first() {
                None => Ok(()),
                Some(segment) => {
                    let path = segment.reader.path().to_owned();
                    Err(Error::UnreadableHeader {
                        path,
                        offset_bytes: 0,
                    })
                }
            };
        };
        let mut synced_lsn = 0;
        let mut is_last = true;
        for segment in self.segments.iter_mut().rev() {
            segment.seed = Seed::new(&store, segment.number);
            synced_lsn = synced_lsn.max(segment.header.map_or(0, |header| header.synced_lsn));
            segment.first_group = segment.reader.next_group(segment.seed, BLOCK_BYTES)?;
            let mut group = segment.first_group;
            while let Some(header) = group {
                synced_lsn = synced_lsn.max(header.synced_lsn);
                if !is_last {
                    break;
                }
                segment.groups_end = Some(header.end());
                group = segment.reader.next_group(segment.seed, header.end())?;
            }
            is_last &= segment.first_group.is_none();
            segment.reader.release();
        }
        self.synced_lsn = synced_lsn;
        Ok(())
    }

    fn recover(
        mut self,
        storage: Arc<dyn Storage>,
        clock: &dyn Clock,
        dir: &Path,
        settings: &Settings,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), BoxError>,
    ) -> Result<(Recovered, Recovery), Error> {
        let created = self.store.is_none();
        let store = match self.store {
            Some(store) => store,
            None => StoreId::random().map_err(io_error("draw a store id for", dir))?,
        };
        let (mut recovery, mut tail) = self.replay(replay)?;
        recovery.created = created;
        let maker = Maker {
            storage,
            dir: dir.to_owned(),
            store,
        };
        for path in &self.temporary {
            maker
                .storage
                .remove(path)
                .map_err(io_error("remove", path))?;
        }
        let next_lsn = recovery.last_lsn.0 + 1;
        let mut recovered = Recovered {
            maker,
            next_lsn,
            next_number: self.number_max + 1,
            active: None,
            end: BLOCK_BYTES,
            live: VecDeque::new(),
        };
        match self.rewrite(&mut recovered, &mut tail, clock.wall_ns(), settings)? {
            Some((segment, end)) => {
                recovery.rewritten_records = tail.records.len() as u64;
                self.clean(&recovered.maker, tail.from)?;
                recovered.live.extend(self.live(tail.from));
                recovered.live.push_back(Live {
                    number: segment.number,
                    path: segment.path.clone(),
                    last_lsn: u64::MAX,
                    bytes: segment.capacity,
                    anchored: true,
                });
                recovered.active = Some(segment);
                recovered.end = end;
            }
            None => recovered.live.extend(self.live(u64::MAX)),
        }
        Ok((recovered, recovery))
    }

    fn replay(
        &mut self,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), BoxError>,
    ) -> Result<(Recovery, Tail), Error> {
        let last_with_groups = self.segments.iter().rposition(|s| s.first_group.is_some());
        let mut uppers = vec![u64::MAX; self.segments.len()];
        let mut upper = u64::MAX;
        for (segment, place) in self.segments.iter().zip(&mut uppers).rev() {
            *place = upper;
            upper = segment.start().map_or(upper, |start| upper.min(start - 1));
        }
        let mut judge = Judge {
            replay,
            synced_lsn: self.synced_lsn,
            last_lsn: self.base(),
            recovery: Recovery {
                segments: self.segments.len() as u64,
                ..Recovery::default()
            },
            tail: Tail::default(),
            noted: None,
            group_end: 0,
            damaged: Vec::new(),
            segment: SegmentSoFar::default(),
        };
        for (index, (segment, upper)) in self.segments.iter_mut().zip(uppers).enumerate() {
            judge.segment = SegmentSoFar {
                index,
                number: segment.number,
                path: segment.reader.path().to_owned(),
                keep_tail: Some(index) == last_with_groups,
                synced_end: BLOCK_BYTES,
                ..SegmentSoFar::default()
            };
            if let Some(reason) = segment.header_damage {
                judge.recovery.corrupt.push(Corruption {
                    segment: segment.number,
                    path: segment.reader.path().to_owned(),
                    offset_bytes: 0,
                    lost: None,
                    reason,
                });
            }
            let flow = segment
                .reader
                .scan(segment.seed, upper, segment.groups_end, &mut judge)?;
            segment.reader.release();
            segment.records = judge.segment.records;
            segment.first_record = judge.segment.first_record;
            segment.last_lsn = judge.last_lsn;
            segment.synced_end = judge.segment.synced_end;
            if flow.is_break() {
                break;
            }
        }
        // Nothing comes after it, so it does not matter whether the log ends there.
        let _ = judge.close_gap(self.synced_lsn);
        let Judge {
            mut recovery,
            mut tail,
            damaged,
            last_lsn,
            ..
        } = judge;
        for index in damaged {
            self.segments
                .get_mut(index)
                .into_iter()
                .for_each(FoundSegment::note_damage);
        }
        recovery.last_lsn = Lsn(last_lsn);
        let last = last_with_groups.and_then(|index| self.segments.get(index));
        tail.settle(last, self.synced_lsn);
        Ok((recovery, tail))
    }

    /// The LSN before the first one that can be missed. What came before was cut.
    fn base(&self) -> u64 {
        let Some(first) = self.segments.first() else {
            return 0;
        };
        let oldest = match (&first.first_group, &first.header) {
            (Some(group), _) if group.offset == BLOCK_BYTES => group.first_lsn - 1,
            (_, Some(header)) if header.replaces_from > 0 => header.replaces_from - 1,
            (_, Some(header)) => header.synced_lsn,
            (_, None) => 0,
        };
        // An older segment that is replaced may be gone while an empty one after it is still there, if
        // the power went while both were being removed: what replaces them says where the log begins.
        let starts = self.segments.iter().filter_map(FoundSegment::start);
        starts.fold(oldest, |base, start| base.min(start.saturating_sub(1)))
    }

    /// Writes the tail into a segment of its own. On a full disk it makes do with less room, and with
    /// none (`None`) if all that was replayed is known to be durable where it is.
    fn rewrite(
        &mut self,
        recovered: &mut Recovered,
        tail: &mut Tail,
        wall_ns: i64,
        settings: &Settings,
    ) -> Result<Option<(Segment, u64)>, Error> {
        let empty = !self
            .segments
            .iter()
            .any(|segment| segment.first_record.is_some());
        let roomy = if empty {
            SEGMENT_BYTES_BASE
        } else {
            settings.segment_bytes_min
        };
        match self.write_tail(recovered, tail, wall_ns, roomy) {
            Ok(made) => return Ok(Some(made)),
            Err(MakeError::Fatal(error)) => return Err(error),
            Err(MakeError::Full(_)) => {}
        }
        self.free_unused(&recovered.maker)?;
        tail.drop_synced(self.synced_lsn);
        match self.write_tail(recovered, tail, wall_ns, 0) {
            Ok(made) => Ok(Some(made)),
            Err(MakeError::Full(_)) if tail.records.is_empty() && !self.segments.is_empty() => {
                Ok(None)
            }
            Err(MakeError::Full(error) | MakeError::Fatal(error)) => Err(error),
        }
    }

    fn write_tail(
        &self,
        recovered: &mut Recovered,
        tail: &Tail,
        wall_ns: i64,
        bytes: u64,
    ) -> Result<(Segment, u64), MakeError> {
        let header = SegmentHeader {
            store: recovered.maker.store,
            segment: recovered.next_number,
            synced_lsn: self.synced_lsn,
            replaces_segment: tail.segment,
            replaces_from: if self.segments.is_empty() {
                0
            } else {
                tail.from
            },
            created_wall_ns: wall_ns,
        };
        recovered.next_number += 1;
        let seed = Seed::new(&header.store, header.segment);
        let mut groups = Vec::new();
        let mut end = BLOCK_BYTES;
        if !tail.records.is_empty() {
            let mut group = GroupBytes::new(seed, end, tail.from, Vec::new());
            for record in &tail.records {
                let payload = tail.payloads.get(record.range.clone()).unwrap_or_default();
                let parts = [payload];
                let draft = Draft::new(record.kind, &parts).map_err(MakeError::Fatal)?;
                group.push(&draft, record.lsn);
            }
            end = group.end_with(0);
            group.finish(self.synced_lsn);
            groups.push(group);
        }
        let next_lsn = recovered.next_lsn;
        let mut marker = GroupBytes::new(seed, end, next_lsn, Vec::new());
        end = marker.end_with(0);
        marker.finish(next_lsn - 1);
        groups.push(marker);
        // A segment always has room for one marker more.
        let bytes = if end + BLOCK_BYTES <= bytes {
            bytes
        } else {
            end + BLOCK_BYTES + bytes
        };
        let segment = recovered.maker.make(&header, bytes, None, &mut |segment| {
            groups
                .iter()
                .try_for_each(|g| segment.file.write_at(g.offset(), g.finished()))
        })?;
        Ok((segment, end))
    }

    /// Gives back what no record is in, before the tail is rewritten.
    fn free_unused(&mut self, maker: &Maker) -> Result<(), Error> {
        let last = self.segments.iter().rposition(|s| s.first_group.is_some());
        for (index, segment) in self.segments.iter_mut().enumerate() {
            let path = segment.reader.path().to_owned();
            if segment.damaged {
            } else if segment.first_group.is_none() {
                maker
                    .storage
                    .remove(&path)
                    .map_err(io_error("remove", &path))?;
            } else if Some(index) == last
                && let Some(end) = segment.groups_end.filter(|end| *end < segment.reader.len())
            {
                segment
                    .reader
                    .file()
                    .set_len(end)
                    .map_err(io_error("trim", &path))?;
            }
        }
        self.segments
            .retain(|s| s.damaged || s.first_group.is_some());
        Ok(())
    }

    /// Removes what holds nothing below `from`, and trims the rest to what it holds.
    fn clean(&mut self, maker: &Maker, from: u64) -> Result<(), Error> {
        let mut removed = false;
        for segment in self.segments.iter().filter(|segment| !segment.damaged) {
            let path = segment.reader.path();
            if !segment.kept(from) {
                maker
                    .storage
                    .remove(path)
                    .map_err(io_error("remove", path))?;
                removed = true;
            } else if segment.synced_end < segment.reader.len() {
                let file = segment.reader.file();
                file.set_len(segment.synced_end)
                    .map_err(io_error("trim", path))?;
                file.sync().map_err(io_error("sync", path))?;
            }
        }
        if removed {
            maker
                .storage
                .sync_dir(&maker.dir)
                .map_err(io_error("sync directory", &maker.dir))?;
        }
        Ok(())
    }

    fn live(&self, from: u64) -> impl Iterator<Item = Live> {
        self.segments
            .iter()
            .filter(move |segment| segment.damaged || segment.kept(from))
            .map(move |segment| Live {
                number: segment.number,
                path: segment.reader.path().to_owned(),
                last_lsn: segment.last_lsn.min(from - 1),
                bytes: if segment.damaged {
                    segment.reader.len()
                } else {
                    segment.synced_end
                },
                anchored: segment.first_group.is_some(),
            })
    }
}

impl FoundSegment {
    fn kept(&self, from: u64) -> bool {
        self.first_record.is_some_and(|first| first < from) || from == u64::MAX
    }
}

/// Records that are written again.
#[derive(Debug, Default)]
struct Tail {
    /// The segment they come from.
    segment: u64,
    /// The first LSN of the new segment, whether it has records or not.
    from: u64,
    records: Vec<TailRecord>,
    payloads: Vec<u8>,
}

#[derive(Debug)]
struct TailRecord {
    lsn: u64,
    kind: u8,
    range: std::ops::Range<usize>,
}

impl Tail {
    fn push(&mut self, found: &FoundRecord<'_>, synced_lsn: u64) {
        let start = self.payloads.len();
        if found.lsn <= synced_lsn && start + found.payload.len() > TAIL_BYTES_MAX {
            // Too large to be rewritten whole, and this one need not be. Nor need those before it.
            self.records.clear();
            self.payloads.clear();
            return;
        }
        self.payloads.extend_from_slice(found.payload);
        let range = start..self.payloads.len();
        self.records.push(TailRecord {
            lsn: found.lsn,
            kind: found.kind,
            range,
        });
    }

    /// Decides from which LSN on to rewrite, once all is known of the last segment with groups.
    fn settle(&mut self, last: Option<&FoundSegment>, synced_lsn: u64) {
        let first_kept = self.records.first().map(|record| record.lsn);
        let whole = last.filter(|segment| {
            !segment.damaged && first_kept.is_some() && segment.first_record == first_kept
        });
        self.segment = last.map_or(0, |segment| segment.number);
        self.from = match (whole, first_kept) {
            (Some(_), Some(first)) if first <= synced_lsn + 1 => first,
            _ => synced_lsn + 1,
        };
        self.records.retain(|record| record.lsn >= self.from);
    }

    /// Leaves what is known to be durable where it is.
    fn drop_synced(&mut self, synced_lsn: u64) {
        self.from = self.from.max(synced_lsn + 1);
        self.records.retain(|record| record.lsn >= self.from);
    }
}

/// Takes what a scan finds and judges: next record, tear, or corruption.
struct Judge<'a> {
    replay: &'a mut dyn FnMut(Record<'_>) -> Result<(), BoxError>,
    synced_lsn: u64,
    /// The last record replayed or given up.
    last_lsn: u64,
    recovery: Recovery,
    tail: Tail,
    /// Where damage was seen first since the last record that fitted.
    noted: Option<Noted>,
    group_end: u64,
    /// Indexes of damaged segments.
    damaged: Vec<usize>,
    segment: SegmentSoFar,
}

#[derive(Debug)]
struct Noted {
    index: usize,
    segment: u64,
    path: PathBuf,
    offset: u64,
    sort: Damage,
}

impl Noted {
    fn report(self, lost: Option<(Lsn, Lsn)>) -> Corruption {
        Corruption {
            segment: self.segment,
            path: self.path,
            offset_bytes: self.offset,
            lost,
            reason: self.sort.reason(),
        }
    }
}

#[derive(Debug, Default)]
struct SegmentSoFar {
    index: usize,
    number: u64,
    path: PathBuf,
    keep_tail: bool,
    records: u64,
    first_record: Option<u64>,
    synced_end: u64,
    offset: u64,
}

impl Judge<'_> {
    /// Gives up the records up to `last`. `Break` if some of them were never durable: the log ends there.
    fn close_gap(&mut self, last: u64) -> ControlFlow<()> {
        if last <= self.last_lsn {
            return ControlFlow::Continue(());
        }
        let lost_to = last.min(self.synced_lsn);
        if self.last_lsn < lost_to {
            let lost = Some((Lsn(self.last_lsn + 1), Lsn(lost_to)));
            if let Some(noted) = self.noted.take() {
                self.damaged.push(noted.index);
                self.recovery.corrupt.push(noted.report(lost));
            } else {
                // Nothing unreadable was met: the records are simply not there. Either neighbour of
                // the gap may have lost them.
                let here = &self.segment;
                self.damaged
                    .extend([here.index, here.index.saturating_sub(1)]);
                self.recovery.corrupt.push(Corruption {
                    segment: here.number,
                    path: here.path.clone(),
                    offset_bytes: here.offset,
                    lost,
                    reason: "records before this place are missing",
                });
            }
            self.last_lsn = lost_to;
        }
        if last > self.synced_lsn {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Judge<'_> {
    /// The next record is there after all: what was met before it cost nothing, but may be damage.
    fn forget_or_report(&mut self) {
        let Some(noted) = self.noted.take() else {
            return;
        };
        // An end of groups in an earlier segment was just that. In this one, records came behind it.
        if noted.sort != Damage::GroupsEnd || noted.index == self.segment.index {
            self.damaged.push(noted.index);
            self.recovery.corrupt.push(noted.report(None));
        }
    }
}

impl Visitor for Judge<'_> {
    fn last_lsn(&self) -> u64 {
        self.last_lsn
    }

    fn synced_lsn(&self) -> u64 {
        self.synced_lsn
    }

    fn group(&mut self, header: &GroupHeader) -> Result<ControlFlow<()>, Error> {
        self.segment.offset = header.offset;
        if self.close_gap(header.first_lsn - 1).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.forget_or_report();
        self.group_end = header.offset + GROUP_HEADER_BYTES as u64 + u64::from(header.body_bytes);
        if header.last_lsn() <= self.synced_lsn {
            self.segment.synced_end = header.end();
        }
        Ok(ControlFlow::Continue(()))
    }

    fn record(&mut self, found: &FoundRecord<'_>) -> Result<ControlFlow<()>, Error> {
        if found.lsn <= self.last_lsn {
            return Ok(ControlFlow::Continue(()));
        }
        if self.close_gap(found.lsn - 1).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.forget_or_report();
        let lsn = Lsn(found.lsn);
        let record = Record {
            lsn,
            kind: found.kind,
            payload: found.payload,
        };
        (self.replay)(record).map_err(|source| Error::Replay { lsn, source })?;
        self.last_lsn = found.lsn;
        self.recovery.records += 1;
        self.recovery.bytes += found.payload.len() as u64;
        self.segment.records += 1;
        self.segment.first_record.get_or_insert(found.lsn);
        if self.segment.keep_tail || found.lsn > self.synced_lsn {
            self.tail.push(found, self.synced_lsn);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn damage(&mut self, lsn: u64, offset: u64, sort: Damage) -> ControlFlow<()> {
        if lsn > self.synced_lsn {
            self.recovery.torn_bytes += self.group_end.saturating_sub(offset);
            return ControlFlow::Break(());
        }
        if sort != Damage::GroupsEnd {
            self.damaged.push(self.segment.index);
        }
        if self
            .noted
            .as_ref()
            .is_none_or(|noted| noted.sort == Damage::GroupsEnd)
        {
            self.noted = Some(Noted {
                index: self.segment.index,
                segment: self.segment.number,
                path: self.segment.path.clone(),
                offset,
                sort,
            });
        }
        ControlFlow::Continue(())
    }
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        operation,
        path,
        source,
    }
}
