//! Verification of a data directory: every byte is read, every checksum compared, nothing is changed.
//!
//! No lock is taken. Beside a running node blocks and manifest can be verified as well as at rest; what
//! the log is being appended may look like a torn tail, which is not damage. What the kernel has in
//! its cache is checked there, not on the medium.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_wal::{Lsn, Storage, StoreId, Wal};

use crate::{
    block::{self, Block, BlockId, BlockMeta, OpenFiles, PageDamage, Place, SectionKind, Signal},
    error::Error,
    filenames::{BLOCKS_DIR, LOG_DIR, MANIFEST_DIR},
    files::StoreFiles,
    manifest::Manifest,
    metric::block::{ColumnCache, MetricBlock},
    record,
    time::TimeRange,
};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Log, manifest and blocks, in this order.
    pub parts: Vec<VerifiedPart>,
    /// Every damaged place, by part, file and offset.
    pub damage: Vec<Damage>,
}

/// Files of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedPart {
    /// `log`, `manifest` or `blocks`.
    pub name: &'static str,
    /// Files read.
    pub files: u64,
    /// Bytes they have.
    pub bytes: u64,
}

/// Damaged bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// In which file.
    pub path: PathBuf,
    /// Where in it.
    pub offset_bytes: u64,
    /// What is wrong.
    pub reason: String,
    /// What can no longer be read because of it.
    pub cost: String,
}

/// Reads everything in the data directory `dir`. `progress` gets the bytes read so far and in all, and
/// ends the walk by returning an error.
///
/// # Errors
/// [`Error::Storage`] and [`Error::Wal`] if something cannot be read at all; what `progress` returns.
/// Damage is no error but part of the answer.
pub fn verify(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), Error>,
) -> Result<Verified, Error> {
    let sizes = [LOG_DIR, MANIFEST_DIR, BLOCKS_DIR].map(|name| size_of(storage, &dir.join(name)));
    let [log, manifest, blocks] = sizes;
    let [log, manifest, blocks] = [log?, manifest?, blocks?];
    if log.0 + manifest.0 + blocks.0 == 0 {
        return Err(Error::NotAStore {
            dir: dir.to_owned(),
        });
    }
    let mut walk = Walk {
        storage,
        done: 0,
        total: log.1 + manifest.1 + blocks.1,
        progress,
        found: Verified::default(),
        manifest_dir: dir.join(MANIFEST_DIR),
    };
    // If no segment of the log says whose it is, the manifest does.
    let known = Manifest::read(storage, &dir.join(MANIFEST_DIR)).ok();
    let known = known.and_then(|(version, _)| StoreFiles::store_id(&version));
    let (store, last_lsn) = walk.log(&dir.join(LOG_DIR), log, known)?;
    let named = walk.manifest(&dir.join(MANIFEST_DIR), manifest)?;
    let cut = named.as_ref().map_or(Lsn::ZERO, |named| named.cut);
    if last_lsn < cut {
        walk.found.damage.push(Damage {
            path: dir.join(LOG_DIR),
            offset_bytes: 0,
            reason: format!(
                "the log ends at record {last_lsn}, and blocks hold records up to {cut}"
            ),
            cost: "the store opens read-only; what was written since the last sealing is gone"
                .to_owned(),
        });
    }
    let named = named.map(|named| named.blocks);
    walk.blocks(&dir.join(BLOCKS_DIR), blocks, store, named.as_deref())?;
    Ok(walk.found)
}

/// Files in a directory and their bytes; none if it is missing.
fn size_of(storage: &Arc<dyn Storage>, dir: &Path) -> Result<(u64, u64), Error> {
    let failed = |operation: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Storage {
            operation,
            path,
            source,
        }
    };
    if !storage.exists(dir).map_err(failed("look for", dir))? {
        return Ok((0, 0));
    }
    let mut size = (0, 0);
    for name in storage.list(dir).map_err(failed("list", dir))? {
        let path = dir.join(name);
        match storage.len(&path) {
            Ok(bytes) => size = (size.0 + 1, size.1 + bytes),
            // A running node removed it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at", &path)(error)),
        }
    }
    Ok(size)
}

/// What a sound manifest says.
struct Named {
    /// Samples or spans of records up to here are in blocks.
    cut: Lsn,
    blocks: Vec<BlockMeta>,
}

/// What a damaged manifest costs.
const READ_ONLY: &str =
    "the store opens read-only, without the deletes that blocks do not have applied";

struct Walk<'w> {
    storage: &'w Arc<dyn Storage>,
    done: u64,
    total: u64,
    progress: &'w mut dyn FnMut(u64, u64) -> Result<(), Error>,
    found: Verified,
    manifest_dir: PathBuf,
}

impl Walk<'_> {
    fn advance(&mut self, bytes: u64) -> Result<(), Error> {
        self.done = (self.done + bytes).min(self.total);
        (self.progress)(self.done, self.total)
    }

    fn part(&mut self, name: &'static str, (files, bytes): (u64, u64)) {
        self.found.parts.push(VerifiedPart { name, files, bytes });
    }

    fn log(
        &mut self,
        dir: &Path,
        size: (u64, u64),
        known: Option<StoreId>,
    ) -> Result<(Option<StoreId>, Lsn), Error> {
        self.part("log", size);
        if size.0 == 0 {
            return Ok((None, Lsn::ZERO));
        }
        let mut undecodable = Vec::new();
        let read = Wal::read_known(self.storage, dir, known, &mut |found| {
            for part in record::parts(found.lsn, found.payload) {
                if let Err(error) = part {
                    undecodable.push((found.lsn, error.to_string()));
                    break;
                }
            }
            Ok(())
        });
        self.advance(size.1)?;
        let (store, recovery) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == rootline_wal::ErrorKind::Corrupted => {
                // Manifest and blocks are looked at all the same.
                self.found.damage.push(unopenable(dir, &error));
                // Where it ends is not known; that it does not open was said.
                return Ok((None, Lsn(u64::MAX)));
            }
            Err(error) => return Err(error.into()),
        };
        for (lsn, reason) in undecodable {
            self.found.damage.push(Damage {
                path: dir.to_owned(),
                offset_bytes: 0,
                reason,
                cost: format!("the store does not open at record {lsn}"),
            });
        }
        for corruption in recovery.corrupt {
            let cost = match corruption.lost {
                Some((first, last)) if first == last => format!("the batch of record {first}"),
                Some((first, last)) => format!("the batches of records {first} to {last}"),
                None => "nothing: it was sealed or written again".to_owned(),
            };
            self.found.damage.push(Damage {
                path: corruption.path,
                offset_bytes: corruption.offset_bytes,
                reason: corruption.reason.to_owned(),
                cost,
            });
        }
        Ok((store, recovery.last_lsn))
    }

    /// What the manifest names; `None` if it cannot tell.
    fn manifest(&mut self, dir: &Path, size: (u64, u64)) -> Result<Option<Named>, Error> {
        self.part("manifest", size);
        if size.0 == 0 {
            return Ok(None);
        }
        let (version, recovery) = Manifest::read(self.storage, dir)?;
        self.advance(size.1)?;
        let is_intact = recovery.damage.is_empty();
        for damage in recovery.damage {
            self.found.damage.push(Damage {
                path: damage.path,
                offset_bytes: damage.offset_bytes,
                reason: damage.reason,
                cost: READ_ONLY.to_owned(),
            });
        }
        Ok((is_intact && !recovery.created).then(|| Named {
            cut: version.cuts.metrics.max(version.cuts.spans),
            blocks: version.blocks.into_values().collect(),
        }))
    }

    fn blocks(
        &mut self,
        dir: &Path,
        size: (u64, u64),
        store: Option<StoreId>,
        named: Option<&[BlockMeta]>,
    ) -> Result<(), Error> {
        self.part("blocks", size);
        let existing = if size.0 == 0 {
            Vec::new()
        } else {
            block::existing(&**self.storage, dir)?
        };
        if named.is_none()
            && let Some(first) = existing.first()
            && self
                .found
                .damage
                .iter()
                .all(|damage| !damage.path.starts_with(&self.manifest_dir))
        {
            self.found.damage.push(Damage {
                path: self.manifest_dir.clone(),
                offset_bytes: 0,
                reason: format!("there are blocks, such as {first}, but no manifest names them"),
                cost: READ_ONLY.to_owned(),
            });
        }
        for meta in named.into_iter().flatten() {
            if !existing.contains(&meta.id) {
                self.found.damage.push(Damage {
                    path: block::path(dir, meta.id),
                    offset_bytes: 0,
                    reason: "the manifest names this block, and it is missing".to_owned(),
                    cost: whole(meta),
                });
            }
        }
        let files = Arc::new(OpenFiles::default());
        for id in existing {
            let meta = named.into_iter().flatten().find(|meta| meta.id == id);
            // Without a manifest that names it, nothing reads it: it is removed at the next open.
            if meta.is_some() || named.is_none() {
                self.block(dir, store, id, meta, &files)?;
            }
        }
        Ok(())
    }

    fn block(
        &mut self,
        dir: &Path,
        store: Option<StoreId>,
        id: BlockId,
        meta: Option<&BlockMeta>,
        files: &Arc<OpenFiles>,
    ) -> Result<(), Error> {
        let path = block::path(dir, id);
        let opened = Block::open(self.storage, dir, store, id, files);
        let block = match opened {
            Ok(block) => Arc::new(block),
            Err(Error::Storage { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                // Half written, or merged away beside us.
                return Ok(());
            }
            Err(error) => {
                let offset_bytes = match &error {
                    Error::CorruptBlock { offset_bytes, .. } => *offset_bytes,
                    _ => 0,
                };
                self.found.damage.push(Damage {
                    path,
                    offset_bytes,
                    reason: error.to_string(),
                    cost: meta.map_or_else(|| "the whole block".to_owned(), whole),
                });
                return Ok(());
            }
        };
        let mut damaged = Vec::new();
        block.verify(&mut |bytes| self.advance(bytes), &mut |found| {
            damaged.push(found);
        })?;
        for found in damaged {
            let cost = cost(&block, &found);
            self.found.damage.push(Damage {
                path: path.clone(),
                offset_bytes: found.offset_bytes,
                reason: format!(
                    "{}, {} bytes: {}",
                    found.place, found.len_bytes, found.reason
                ),
                cost,
            });
        }
        Ok(())
    }
}

/// A log of which nothing can be read.
fn unopenable(dir: &Path, error: &rootline_wal::Error) -> Damage {
    use rootline_wal::Error as Log;
    let (path, offset_bytes) = match error {
        Log::UnreadableHeader { path, offset_bytes } => (path.clone(), *offset_bytes),
        Log::NotASegment { path, .. }
        | Log::ForeignStore { path, .. }
        | Log::MisnamedSegment { path, .. } => (path.clone(), 0),
        _ => (dir.to_owned(), 0),
    };
    Damage {
        path,
        offset_bytes,
        reason: error.to_string(),
        cost: "the store does not open".to_owned(),
    }
}

fn whole(meta: &BlockMeta) -> String {
    let (what, rows) = match meta.signal {
        Signal::Metrics => ("samples", "series"),
        Signal::Spans => ("spans", "traces"),
    };
    format!(
        "{} {what} of {} {rows}, {}",
        meta.samples, meta.series, meta.time
    )
}

/// What a damaged page holds that is nowhere else.
fn cost(block: &Arc<Block>, damage: &PageDamage) -> String {
    let kind = match damage.place {
        Place::End | Place::Footer => return "nothing: its copy is read instead".to_owned(),
        Place::Section(code) => SectionKind::from_code(code),
    };
    match kind {
        Some(SectionKind::Values | SectionKind::Times) => samples_lost(block).map_or_else(
            || "samples on this page".to_owned(),
            |(series, samples)| {
                format!("{samples} samples of {series} series, with other damage of the block")
            },
        ),
        Some(SectionKind::Strings | SectionKind::SeriesIndex) => {
            "questions that need these labels fail; the samples stay".to_owned()
        }
        Some(SectionKind::Chunks) => "the series whose samples are listed on this page".to_owned(),
        Some(SectionKind::Exemplars) => "exemplars on this page".to_owned(),
        Some(SectionKind::Metadata) => "type, unit and help texts on this page".to_owned(),
        Some(SectionKind::SpanTraces) => "trace ids on this page".to_owned(),
        Some(SectionKind::SpanOwners) => "resources, scopes and names on this page".to_owned(),
        Some(SectionKind::SpanRows | SectionKind::SpanIds) => "spans on this page".to_owned(),
        Some(
            SectionKind::SpanExtras
            | SectionKind::SpanOrphans
            | SectionKind::SpanAttributes
            | SectionKind::SpanEvents
            | SectionKind::SpanLinks,
        ) => "what spans carry on this page; their times and parents stay".to_owned(),
        Some(SectionKind::SpanEdges) => "nothing: edges are computed from the spans".to_owned(),
        Some(SectionKind::SpanSuperseded) => {
            "which traces older blocks hold older copies of".to_owned()
        }
        Some(SectionKind::SpanDirectory | SectionKind::SpanDirectoryCopy) => {
            "nothing: its copy is read instead".to_owned()
        }
        None => "what this release does not know".to_owned(),
    }
}

/// Series and samples of a block that cannot be read; `None` if that cannot be told either.
fn samples_lost(block: &Arc<Block>) -> Option<(u64, u64)> {
    let block = MetricBlock::open(Arc::clone(block)).ok()?;
    let mut cache = ColumnCache::default();
    let (mut series, mut samples) = (0, 0);
    let (mut chunks, mut times, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..block.series_count() {
        chunks.clear();
        // What the directory cannot tell is counted with the directory's own damage.
        if block.chunks(row, false, &mut cache, &mut chunks).is_err() {
            continue;
        }
        let mut is_hit = false;
        for chunk in &chunks {
            times.clear();
            values.clear();
            let read = block.read_chunk(chunk, TimeRange::ALL, &mut times, &mut values, &mut cache);
            if read.is_err() {
                is_hit = true;
                samples += u64::from(chunk.count);
            }
        }
        series += u64::from(is_hit);
    }
    Some((series, samples))
}
