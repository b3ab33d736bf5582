//! The files of a store beside its log: the manifest, the blocks it names, and how both change.
//!
//! Opening, in order:
//! 1. The manifest says which blocks there are and up to where the log is sealed into them. What it
//!    does not name is removed.
//! 2. Blocks are opened. One that does not open is reported, and the rest is served; its file stays.
//! 3. If the manifest is damaged, blocks are found by their footers and the store is read-only: what a
//!    block's successor is, and what was deleted, nobody knows for certain.
//!
//! Changing goes through [`StoreFiles::publish`] alone: the manifest first, then the view.
//!
//! Locks: `publishing` → the manifest's → the view's.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rootline_wal::{Clock, Lsn, Storage, StoreId};

use crate::{
    block::{self, Block, BlockId, BlockMeta, OpenFiles, Signal},
    budget::Budget,
    error::{Error, ErrorKind},
    filenames::{BLOCKS_DIR, LOG_DIR, MANIFEST_DIR},
    id::SeriesRef,
    manifest::{BySignal, Change, Manifest, Version},
    metric::{Metadata, MetricBlock, MetricView},
    record::{Part, Tag, metadata},
    span::{SpanBlock, SpanBlockPart, SpanView},
    store::{Store, View},
    time::TimeRange,
    tombstone::{SpanTombstone, Tombstone},
    varint::{put_bytes, put_u64, take_bytes, take_u64},
};

/// Damaged places that are remembered.
const DAMAGE_MAX: usize = 1_000;
/// The store that blocks belong to: 16 bytes.
const STATE_STORE_ID: &str = "store-id";
/// The lowest series reference that no record up to the metric cut used: 8 bytes, little endian.
const STATE_SERIES_REF_NEXT: &str = "series-ref-next";
/// Metadata up to the metric cut that no block holds, because there was none to write or theirs is
/// gone: for each its LSN, a varint, and its length and bytes as in records.
const STATE_METADATA: &str = "metric-metadata";

/// Something on disk that cannot be read. It is kept as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileDamage {
    /// The file.
    pub path: PathBuf,
    /// Where in it; 0 if all of it is meant.
    pub offset_bytes: u64,
    /// What is wrong.
    pub reason: String,
}

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct StoreFiles {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) blocks_dir: PathBuf,
    pub(crate) manifest: Manifest,
    /// Where open blocks, sealing and merging are counted.
    pub(crate) budget: Arc<Budget>,
    handles: Arc<OpenFiles>,
    publishing: Mutex<()>,
    damage: Mutex<Vec<FileDamage>>,
    /// The times of blocks that should be there and were not opened.
    unread: Vec<(Signal, TimeRange)>,
}

/// What opening found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) files: StoreFiles,
    /// By rising last LSN.
    pub(crate) blocks: Vec<Arc<MetricBlock>>,
    /// By rising last LSN, with what the manifest says of them.
    pub(crate) span_blocks: Vec<(Arc<SpanBlock>, BlockMeta)>,
    /// Parts of records up to here are in blocks.
    pub(crate) cuts: BySignal<Lsn>,
    /// Deletes that blocks do not have applied, by rising LSN.
    pub(crate) tombstones: Vec<Tombstone>,
    /// The same for spans.
    pub(crate) span_tombstones: Vec<SpanTombstone>,
    /// Where retention stands.
    pub(crate) floors_ns: BySignal<Option<i64>>,
    pub(crate) series_ref_next: SeriesRef,
    /// By rising LSN.
    pub(crate) metadata: Vec<(Lsn, Metadata)>,
    /// Metadata up to here are in blocks or in the manifest.
    pub(crate) metadata_sealed: Lsn,
    /// Why nothing can be written, if so.
    pub(crate) read_only: Option<String>,
}

impl StoreFiles {
    /// Opens manifest and blocks of the store in `dir`.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Wal`], [`Error::UnknownRecord`] of a newer release's manifest.
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        clock: &Arc<dyn Clock>,
        dir: &Path,
        budget: &Arc<Budget>,
    ) -> Result<Found, Error> {
        let blocks_dir = dir.join(BLOCKS_DIR);
        storage
            .create_dir_all(&blocks_dir)
            .map_err(|source| Error::Storage {
                operation: "create directory",
                path: blocks_dir.clone(),
                source,
            })?;
        let (manifest, mut recovery) = Manifest::open(
            Arc::clone(storage),
            Arc::clone(clock),
            &dir.join(MANIFEST_DIR),
        )?;
        manifest.reconcile(&**storage, &blocks_dir, &mut recovery)?;
        let read_only = manifest.read_only();
        let damage = recovery.damage.into_iter().map(|damage| FileDamage {
            path: damage.path,
            offset_bytes: damage.offset_bytes,
            reason: damage.reason,
        });
        let mut files = Self {
            storage: Arc::clone(storage),
            clock: Arc::clone(clock),
            blocks_dir,
            manifest,
            budget: Arc::clone(budget),
            handles: Arc::default(),
            publishing: Mutex::new(()),
            damage: Mutex::new(damage.collect()),
            unread: Vec::new(),
        };
        let version = files.manifest.version();
        let ids = if read_only.is_some() {
            files.scan(&version)?
        } else {
            let named = version.blocks.values();
            named.map(|meta| (meta.id, meta.signal)).collect()
        };
        let of = |signal: Signal| {
            let ids: &Vec<(BlockId, Signal)> = &ids;
            let ids = ids.iter().filter(move |(_, of)| *of == signal);
            ids.map(|(id, _)| *id).collect::<Vec<BlockId>>()
        };
        let (metrics, spans) = (of(Signal::Metrics), of(Signal::Spans));
        let blocks = files.open_blocks(&metrics, &version)?;
        let span_blocks = files.open_span_blocks(&spans, &version)?;
        let opened: Vec<BlockId> = blocks.iter().map(|block| block.meta().id).collect();
        let mut unread = files.not_opened(Signal::Metrics, &metrics, &opened, &version);
        let opened: Vec<BlockId> = span_blocks.iter().map(|(_, meta)| meta.id).collect();
        unread.extend(files.not_opened(Signal::Spans, &spans, &opened, &version));
        files.unread = unread;
        let mut metadata = files.metadata_of(&blocks);
        // A log that no manifest vouches for is replayed whole: what is in blocks too is the same.
        let cuts = match &read_only {
            Some(_) => BySignal::default(),
            None => version.cuts,
        };
        let floor_of = |signal| Some(*version.floors.get(signal)).filter(|ns| *ns > i64::MIN);
        if let Some(bytes) = version.state.get(STATE_METADATA) {
            match decode_metadata(bytes, version.cuts.metrics) {
                Ok(entries) => metadata.extend(entries),
                Err(error) => files.note_damage(&error, dir.join(MANIFEST_DIR)),
            }
        }
        metadata.sort_by_key(|(lsn, _)| *lsn);
        let next = version.state.get(STATE_SERIES_REF_NEXT);
        let next = next.and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok());
        Ok(Found {
            blocks,
            span_blocks,
            cuts,
            tombstones: version.tombstones.clone(),
            span_tombstones: version.span_tombstones.clone(),
            floors_ns: BySignal {
                metrics: floor_of(Signal::Metrics),
                spans: floor_of(Signal::Spans),
            },
            series_ref_next: SeriesRef(next.map_or(1, u64::from_le_bytes)),
            metadata,
            metadata_sealed: version.cuts.metrics,
            read_only,
            files,
        })
    }

    /// Whether no block that should be there and could not be opened holds data of this signal and time.
    pub(crate) fn is_whole(&self, signal: Signal, range: TimeRange) -> bool {
        let mut unread = self.unread.iter();
        !unread.any(|(of, time)| *of == signal && time.overlaps(range))
    }

    /// The times of the blocks of a signal that are named, or lie there, and are not among `opened`. Of
    /// one that no sound manifest names its time is not known.
    fn not_opened(
        &self,
        signal: Signal,
        ids: &[BlockId],
        opened: &[BlockId],
        version: &Version,
    ) -> Vec<(Signal, TimeRange)> {
        let is_opened = |id: BlockId| opened.contains(&id);
        let named = version.blocks.values();
        let named = named.filter(|meta| meta.signal == signal);
        let mut unread: Vec<(Signal, TimeRange)> = named
            .filter(|meta| !is_opened(meta.id))
            .map(|meta| (signal, meta.time))
            .collect();
        let is_named = |id: &BlockId| version.blocks.contains_key(id);
        let lost_unnamed = ids.iter().any(|id| !is_opened(*id) && !is_named(id));
        // Without a sound manifest a file that could not even be told is one that may have counted.
        let untold = self.manifest.read_only().is_some()
            && self.damage.lock().iter().any(|damage| {
                let is_at = |id: &BlockId| block::path(&self.blocks_dir, *id) == damage.path;
                damage.path.parent() == Some(&*self.blocks_dir) && !opened.iter().any(is_at)
            });
        if lost_unnamed || (untold && unread.is_empty()) {
            unread.push((signal, TimeRange::ALL));
        }
        unread
    }

    /// Whether some block could not be opened.
    pub(crate) fn has_damaged_blocks(&self) -> bool {
        !self.damage.lock().is_empty()
    }

    /// The log ends before the metric cut: records after it would be taken for sealed. So nothing is
    /// written. Returns why.
    pub(crate) fn note_short_log(&self, dir: &Path, last: Lsn, cut: Lsn) -> String {
        let path = dir.join(LOG_DIR);
        let reason = format!(
            "the log ends at record {last}, and blocks hold records up to {cut}: was it removed?"
        );
        let text = format!("{}: {reason}", path.display());
        self.manifest.make_read_only(text.clone());
        self.damage.lock().push(FileDamage {
            path,
            offset_bytes: 0,
            reason,
        });
        text
    }

    /// Damage found so far.
    pub(crate) fn damage(&self) -> Vec<FileDamage> {
        self.damage.lock().clone()
    }

    /// Which store blocks belong to, if one was ever published.
    pub(crate) fn store_id(version: &Version) -> Option<StoreId> {
        let bytes = version.state.get(STATE_STORE_ID)?;
        Some(StoreId::from_bytes(
            <[u8; 16]>::try_from(bytes.as_slice()).ok()?,
        ))
    }

    /// Opens a block that was just written.
    ///
    /// # Errors
    /// As `Block::open`.
    pub(crate) fn open_block(
        &self,
        id: BlockId,
        store: Option<StoreId>,
    ) -> Result<Arc<MetricBlock>, Error> {
        let block = Block::open(&self.storage, &self.blocks_dir, store, id, &self.handles)?;
        let block = MetricBlock::open(Arc::new(block))?;
        Ok(Arc::new(block.charged_to(&self.budget)))
    }

    /// Opens a block of spans that was just written.
    ///
    /// # Errors
    /// As `Block::open`.
    pub(crate) fn open_span_block(
        &self,
        id: BlockId,
        store: Option<StoreId>,
    ) -> Result<Arc<SpanBlock>, Error> {
        let block = Block::open(&self.storage, &self.blocks_dir, store, id, &self.handles)?;
        let block = SpanBlock::open(Arc::new(block), Some(&self.budget))?;
        Ok(Arc::new(block))
    }

    /// Remembers damage that was met: each place once, whoever finds it and however they word it; the
    /// first [`DAMAGE_MAX`] places, as a lost disk has millions.
    pub(crate) fn note_damage(&self, error: &Error, path: PathBuf) {
        let (path, offset_bytes) = match error {
            Error::CorruptBlock {
                path, offset_bytes, ..
            } => (path.clone(), *offset_bytes),
            _ => (path, 0),
        };
        let found = FileDamage {
            path,
            offset_bytes,
            reason: error.to_string(),
        };
        let mut damage = self.damage.lock();
        let is_known = |known: &FileDamage| {
            known.offset_bytes == found.offset_bytes && known.path == found.path
        };
        if damage.len() < DAMAGE_MAX && !damage.iter().any(is_known) {
            damage.push(found);
        }
    }

    /// Changes the set of blocks: `edit` says how, given what there is; when the manifest has taken
    /// that, `show` changes the view. Tombstones that no part needs any more leave the view by the way.
    ///
    /// # Errors
    /// What `edit` says. [`Error::Wal`] and others of the manifest: of kind `Retry`, nothing has changed.
    /// Otherwise the edit may hold after the next open, so files that it names must stay.
    pub(crate) fn publish(
        &self,
        store: &Store,
        edit: impl FnOnce(&Version, &View) -> Result<Vec<Change>, Error>,
        show: impl FnOnce(&mut View),
    ) -> Result<Arc<Version>, Error> {
        let edit = |version: &Version, view: &View| Ok((edit(version, view)?, ()));
        self.publish_made(store, edit, |view, ()| show(view))
    }

    /// The same, if what the view will show is made with the edit: reading for it takes time, which the
    /// view's lock does not allow.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub(crate) fn publish_made<T>(
        &self,
        store: &Store,
        edit: impl FnOnce(&Version, &View) -> Result<(Vec<Change>, T), Error>,
        show: impl FnOnce(&mut View, T),
    ) -> Result<Arc<Version>, Error> {
        let _one_at_a_time = self.publishing.lock();
        let version = self.manifest.version();
        let (changes, made) = edit(&version, &store.view())?;
        let version = self.manifest.commit(changes)?;
        store.swap(|view| {
            show(view, made);
            let spans = &mut view.spans;
            spans
                .blocks
                .sort_by_key(|part| (part.meta.last_lsn, part.meta.id));
            let is_needed_by_spans = |t: &SpanTombstone| {
                is_needed_for_spans(&version, t)
                    || spans.frozen.iter().any(|frozen| frozen.cut < t.lsn)
            };
            if !spans.tombstones.iter().all(is_needed_by_spans) {
                let kept = spans.tombstones.iter().filter(|t| is_needed_by_spans(t));
                spans.tombstones = kept.cloned().collect();
            }
            let view = &mut view.metrics;
            view.blocks.sort_by_key(|block| block.meta().last_lsn);
            let is_needed = |t: &Tombstone| {
                is_needed(&version, t) || view.frozen.iter().any(|frozen| frozen.cut < t.lsn)
            };
            if !view.tombstones.iter().all(is_needed) {
                let kept = view.tombstones.iter().filter(|t| is_needed(t));
                view.tombstones = kept.cloned().collect();
            }
        });
        Ok(version)
    }

    /// Runs `look` while no edit is made; then no block of the version is removed either.
    pub(crate) fn hold_still<T>(&self, look: impl FnOnce(&Version) -> T) -> T {
        let _no_edit = self.publishing.lock();
        look(&self.manifest.version())
    }

    /// Removes block files that no manifest names, as far as that works: the next open removes the
    /// rest.
    ///
    /// By rising number, and no further once one stays: as long as an older block is there, so is what
    /// was made of it (see `block::survivors`).
    pub(crate) fn remove_blocks(&self, ids: impl Iterator<Item = BlockId>) {
        let mut ids: Vec<BlockId> = ids.collect();
        ids.sort_unstable();
        for id in ids {
            let removed = self.storage.remove(&block::path(&self.blocks_dir, id));
            if removed.is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound) {
                return;
            }
        }
    }

    fn scan(&self, version: &Version) -> Result<Vec<(BlockId, Signal)>, Error> {
        let store = Self::store_id(version);
        let mut metas: Vec<BlockMeta> = Vec::new();
        for scanned in block::scan_headers(&self.storage, &self.blocks_dir, store)? {
            match scanned.meta {
                Ok(meta) => metas.push(meta),
                Err(error) if error.kind() == ErrorKind::Corrupted => {
                    self.note_damage(&error, scanned.path);
                }
                Err(error) => return Err(error),
            }
        }
        let survivors = block::survivors(metas).into_iter();
        Ok(survivors.map(|meta| (meta.id, meta.signal)).collect())
    }

    fn open_blocks(
        &self,
        ids: &[BlockId],
        version: &Version,
    ) -> Result<Vec<Arc<MetricBlock>>, Error> {
        let store = Self::store_id(version);
        let mut blocks = Vec::with_capacity(ids.len());
        for &id in ids {
            match self.open_block(id, store) {
                Ok(block) => {
                    let noted = version.blocks.get(&id).map(|meta| meta.clean_lsn);
                    let block = match noted.filter(|lsn| *lsn > block.meta().clean_lsn) {
                        Some(clean_lsn) => Arc::new(block.with_clean_lsn(clean_lsn)?),
                        None => block,
                    };
                    for found in block.block().damage_at_open() {
                        let error = Error::CorruptBlock {
                            path: block.block().path().to_owned(),
                            offset_bytes: found.offset_bytes,
                            reason: found.reason.clone(),
                        };
                        self.note_damage(&error, PathBuf::new());
                    }
                    blocks.push(block);
                }
                Err(error) if error.kind() == ErrorKind::Corrupted => {
                    self.note_damage(&error, block::path(&self.blocks_dir, id));
                }
                Err(error) => return Err(error),
            }
        }
        blocks.sort_by_key(|block| block.meta().last_lsn);
        Ok(blocks)
    }

    fn open_span_blocks(
        &self,
        ids: &[BlockId],
        version: &Version,
    ) -> Result<Vec<(Arc<SpanBlock>, BlockMeta)>, Error> {
        let store = Self::store_id(version);
        let mut blocks = Vec::with_capacity(ids.len());
        for &id in ids {
            match self.open_span_block(id, store) {
                Ok(block) => {
                    for found in block.block().damage_at_open() {
                        let error = Error::CorruptBlock {
                            path: block.block().path().to_owned(),
                            offset_bytes: found.offset_bytes,
                            reason: found.reason.clone(),
                        };
                        self.note_damage(&error, PathBuf::new());
                    }
                    let mut meta = block.meta().clone();
                    if let Some(named) = version.blocks.get(&id) {
                        meta.clean_lsn = meta.clean_lsn.max(named.clean_lsn);
                    }
                    blocks.push((block, meta));
                }
                Err(error) if error.kind() == ErrorKind::Corrupted => {
                    self.note_damage(&error, block::path(&self.blocks_dir, id));
                }
                Err(error) => return Err(error),
            }
        }
        blocks.sort_by_key(|(_, meta)| (meta.last_lsn, meta.id));
        Ok(blocks)
    }

    /// The parts that blocks of spans, by rising last LSN, make together.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub(crate) fn span_parts(
        &self,
        blocks: &[(Arc<SpanBlock>, BlockMeta)],
        floor_ns: Option<i64>,
    ) -> Result<Vec<Arc<SpanBlockPart>>, Error> {
        let mut damaged = |error: Error| self.note_damage(&error, PathBuf::new());
        let mut parts = Vec::with_capacity(blocks.len());
        for (place, (block, meta)) in blocks.iter().enumerate() {
            let newer = blocks.iter().skip(place + 1).map(|(block, _)| &**block);
            let (block, meta) = (Arc::clone(block), meta.clone());
            let part = SpanBlockPart::new(block, meta, newer, floor_ns, &mut damaged)?;
            parts.push(Arc::new(part));
        }
        Ok(parts)
    }

    fn metadata_of(&self, blocks: &[Arc<MetricBlock>]) -> Vec<(Lsn, Metadata)> {
        let mut all = Vec::new();
        for block in blocks {
            match block.metadata() {
                Ok(entries) => all.extend(entries),
                // Costs the descriptions of some metrics; samples are read all the same.
                Err(error) => self.note_damage(&error, block.block().path().to_owned()),
            }
        }
        all
    }
}

/// Whether a block does not have this delete applied.
pub(crate) fn is_needed(version: &Version, tombstone: &Tombstone) -> bool {
    version.blocks.values().any(|meta| {
        meta.signal == Signal::Metrics
            && meta.clean_lsn < tombstone.lsn
            && meta.time.overlaps(tombstone.range)
    })
}

/// Whether a block does not have this delete of spans applied.
pub(crate) fn is_needed_for_spans(version: &Version, tombstone: &SpanTombstone) -> bool {
    let mut blocks = version.blocks.values();
    blocks.any(|meta| meta.signal == Signal::Spans && meta.clean_lsn < tombstone.lsn)
}

/// The changes that move everything of spans up to a cut from the log into the manifest, blocks aside.
pub(crate) fn span_cut_changes(
    version: &Version,
    view: &SpanView,
    cut: Lsn,
    store: StoreId,
) -> Vec<Change> {
    let mut changes = vec![Change::Cut {
        signal: Signal::Spans,
        lsn: cut,
    }];
    let named = |t: &SpanTombstone| {
        version
            .span_tombstones
            .iter()
            .any(|known| known.lsn == t.lsn)
    };
    let moved = view
        .tombstones
        .iter()
        .filter(|t| t.lsn <= cut && !named(t) && is_needed_for_spans(version, t));
    changes.extend(moved.cloned().map(Change::AddSpanTombstone));
    if StoreFiles::store_id(version).is_none() {
        changes.push(Change::SetState {
            name: STATE_STORE_ID.to_owned(),
            value: store.as_bytes().to_vec(),
        });
    }
    changes
}

/// The changes that move everything up to a cut from the log into the manifest, blocks aside.
pub(crate) fn cut_changes(
    version: &Version,
    view: &MetricView,
    cut: Lsn,
    series_ref_next: SeriesRef,
    store: StoreId,
    loose_metadata: &[(Lsn, Metadata)],
) -> Vec<Change> {
    let mut changes = vec![Change::Cut {
        signal: Signal::Metrics,
        lsn: cut,
    }];
    let named = |t: &Tombstone| version.tombstones.iter().any(|known| known.lsn == t.lsn);
    let moved = view
        .tombstones
        .iter()
        .filter(|t| t.lsn <= cut && !named(t) && is_needed(version, t));
    changes.extend(moved.cloned().map(Change::AddTombstone));
    let mut set = |name: &str, value: Vec<u8>| {
        if version.state.get(name).map_or(&[][..], Vec::as_slice) != value {
            let name = name.to_owned();
            changes.push(Change::SetState { name, value });
        }
    };
    set(
        STATE_SERIES_REF_NEXT,
        series_ref_next.0.to_le_bytes().to_vec(),
    );
    if StoreFiles::store_id(version).is_none() {
        set(STATE_STORE_ID, store.as_bytes().to_vec());
    }
    set(STATE_METADATA, encode_metadata(loose_metadata));
    changes
}

/// Metadata that no block holds.
pub(crate) fn loose_metadata(version: &Version) -> Vec<(Lsn, Metadata)> {
    let bytes = version.state.get(STATE_METADATA);
    let entries = bytes.map(|bytes| decode_metadata(bytes, version.cuts.metrics));
    // What does not decode was reported when the store was opened.
    entries.and_then(Result::ok).unwrap_or_default()
}

/// The change that keeps what blocks that go without a successor are the last to say of metrics.
pub(crate) fn carry_metadata(
    version: &Version,
    view: &MetricView,
    gone: &[Arc<MetricBlock>],
) -> Option<Change> {
    let mut loose = loose_metadata(version);
    let before = loose.len();
    for block in gone {
        // Damaged ones were reported when the store was opened.
        for entry in block.metadata().unwrap_or_default() {
            if view.current.is_latest_metadata(&entry.1) && !loose.contains(&entry) {
                loose.push(entry);
            }
        }
    }
    (loose.len() > before).then(|| Change::SetState {
        name: STATE_METADATA.to_owned(),
        value: encode_metadata(&loose),
    })
}

fn encode_metadata(entries: &[(Lsn, Metadata)]) -> Vec<u8> {
    let (mut out, mut one) = (Vec::new(), Vec::new());
    for (lsn, entry) in entries {
        one.clear();
        metadata::encode(&mut one, entry);
        put_u64(&mut out, lsn.0);
        put_bytes(&mut out, &one);
    }
    out
}

fn decode_metadata(mut bytes: &[u8], cut: Lsn) -> Result<Vec<(Lsn, Metadata)>, Error> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let part = |bytes| Part {
            tag: Tag::Metadata,
            bytes,
            lsn: cut,
        };
        let framed = take_u64(&mut bytes).zip(take_bytes(&mut bytes));
        let Some((lsn, one)) = framed else {
            return Err(part(bytes).corrupt("loose metadata do not decode".to_owned()));
        };
        for entry in metadata::decode(part(one)) {
            entries.push((Lsn(lsn), entry?));
        }
    }
    Ok(entries)
}
