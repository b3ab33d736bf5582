//! What a data directory is made of: blocks with their sections and encodings, log, manifest.
//!
//! Reads the ends of files, the log's frames and the directories of blocks; changes nothing and takes
//! no lock.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use roaring::RoaringBitmap;
use rootline_wal::{Storage, Wal};

use crate::{
    block::{self, Block, BlockId, BlockMeta, OpenFiles, SectionKind, Signal},
    control::QueryControl,
    error::Error,
    filenames::{BLOCKS_DIR, LOG_DIR, MANIFEST_DIR},
    manifest::{Manifest, Version},
    metric::block::{MetricBlock, MetricBlockContents},
    span::{Attributes, SpanBlock, block::Satellites},
    value::Value,
};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspected {
    /// By number.
    pub blocks: Vec<BlockReport>,
    /// The log.
    pub log: LogReport,
    /// The manifest.
    pub manifest: ManifestReport,
}

/// One block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockReport {
    /// Its number, 16 hex digits, as in the file's name.
    pub id: String,
    /// `metrics` or `spans`.
    pub signal: &'static str,
    /// How often its content was merged.
    pub level: u8,
    /// Holds days too sparse for a block of their own.
    pub spanning: bool,
    /// First timestamp, ns since the epoch.
    pub first_ns: i64,
    /// Last timestamp.
    pub last_ns: i64,
    /// Made of records from here ...
    pub first_lsn: u64,
    /// ... to here.
    pub last_lsn: u64,
    /// Deletes up to here are carried out in it.
    pub clean_lsn: u64,
    /// Series, or traces.
    pub series: u64,
    /// Samples, or spans.
    pub samples: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// In the order of the file.
    pub sections: Vec<SectionReport>,
    /// By bytes, the largest first.
    pub encodings: Vec<EncodingReport>,
    /// Distinct time columns.
    pub time_columns: u64,
    /// Traces that older blocks hide because they are whole in this one.
    pub superseded: u64,
    /// The manifest names it; else it is removed when the store is opened.
    pub is_named: bool,
    /// Why it cannot be read; empty if it can.
    pub error: String,
}

/// One section of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SectionReport {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

/// Columns of one encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodingReport {
    /// Its name, as `docs/formats/value-column.md` has it.
    pub name: String,
    /// Columns.
    pub columns: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogReport {
    /// Files.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// The first of them.
    pub first_lsn: Option<u64>,
    /// The last.
    pub last_lsn: Option<u64>,
}

/// The manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestReport {
    /// Bytes of its files.
    pub bytes: u64,
    /// Blocks it names.
    pub blocks: u64,
    /// Deletes that some block does not have carried out.
    pub tombstones: u64,
    /// Samples up to this record are in blocks.
    pub metrics_cut_lsn: u64,
    /// Spans up to this record are in blocks.
    pub spans_cut_lsn: u64,
    /// Retention: nothing before this time is shown.
    pub retention_floor_ns: Option<i64>,
    /// Damage, if it has any.
    pub damage: Vec<String>,
}

/// Describes the data directory `dir`.
///
/// # Errors
/// [`Error::NotAStore`], [`Error::Storage`], [`Error::Wal`].
pub fn inspect(storage: &Arc<dyn Storage>, dir: &Path) -> Result<Inspected, Error> {
    let [log_dir, manifest_dir, blocks_dir] =
        [LOG_DIR, MANIFEST_DIR, BLOCKS_DIR].map(|n| dir.join(n));
    let exists = |path: &Path| {
        storage.exists(path).map_err(|source| Error::Storage {
            operation: "look for",
            path: path.to_owned(),
            source,
        })
    };
    let (has_log, has_manifest) = (exists(&log_dir)?, exists(&manifest_dir)?);
    if !has_log && !has_manifest {
        return Err(Error::NotAStore {
            dir: dir.to_owned(),
        });
    }
    let mut found = Inspected::default();
    if has_log {
        found.log = log(storage, &log_dir)?;
    }
    let mut version = Version::default();
    if has_manifest {
        (version, found.manifest) = manifest(storage, &manifest_dir)?;
    }
    if exists(&blocks_dir)? {
        let files = Arc::new(OpenFiles::default());
        for id in block::existing(&**storage, &blocks_dir)? {
            let report = block_report(storage, &blocks_dir, id, version.blocks.get(&id), &files);
            found.blocks.extend(report);
        }
    }
    for (id, meta) in &version.blocks {
        let id_text = id.to_string();
        if found.blocks.iter().all(|block| block.id != id_text) {
            let mut report = BlockReport {
                id: id_text,
                is_named: true,
                error: "the manifest names this block, and it is missing".to_owned(),
                ..BlockReport::default()
            };
            fill(&mut report, meta);
            found.blocks.push(report);
        }
    }
    found.blocks.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

fn bytes_in(storage: &Arc<dyn Storage>, dir: &Path) -> (u64, u64) {
    // Files that vanish meanwhile are not counted.
    let names = storage.list(dir).unwrap_or_default();
    let sizes = names
        .iter()
        .filter_map(|name| storage.len(&dir.join(name)).ok());
    sizes.fold((0, 0), |(files, sum), bytes| {
        (files + u64::from(bytes > 0), sum + bytes)
    })
}

fn log(storage: &Arc<dyn Storage>, dir: &Path) -> Result<LogReport, Error> {
    let (segments, bytes) = bytes_in(storage, dir);
    let mut report = LogReport {
        segments,
        bytes,
        ..LogReport::default()
    };
    Wal::read(storage, dir, &mut |record| {
        report.records += 1;
        report.first_lsn.get_or_insert(record.lsn.0);
        report.last_lsn = Some(record.lsn.0);
        Ok(())
    })?;
    Ok(report)
}

fn manifest(storage: &Arc<dyn Storage>, dir: &Path) -> Result<(Version, ManifestReport), Error> {
    let (version, recovery) = Manifest::read(storage, dir)?;
    let report = ManifestReport {
        bytes: bytes_in(storage, dir).1,
        blocks: version.blocks.len() as u64,
        tombstones: (version.tombstones.len() + version.span_tombstones.len()) as u64,
        metrics_cut_lsn: version.cuts.get(Signal::Metrics).0,
        spans_cut_lsn: version.cuts.get(Signal::Spans).0,
        retention_floor_ns: Some(*version.floors.get(Signal::Metrics))
            .filter(|floor| *floor > i64::MIN),
        damage: recovery
            .damage
            .into_iter()
            .map(|damage| Error::from(damage).to_string())
            .collect(),
    };
    Ok((version, report))
}

/// `None` for what is only half written.
fn block_report(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    id: BlockId,
    named: Option<&BlockMeta>,
    files: &Arc<OpenFiles>,
) -> Option<BlockReport> {
    let mut report = BlockReport {
        id: id.to_string(),
        is_named: named.is_some(),
        ..BlockReport::default()
    };
    if let Some(meta) = named {
        fill(&mut report, meta);
    }
    let block = match Block::open(storage, dir, None, id, files) {
        Ok(block) => Arc::new(block),
        Err(Error::Storage { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound && named.is_none() =>
        {
            return None;
        }
        Err(error) => {
            report.error = error.to_string();
            return Some(report);
        }
    };
    fill(&mut report, named.unwrap_or(block.meta()));
    report.sections = block
        .sections()
        .map(|(code, bytes, _)| SectionReport {
            name: SectionKind::from_code(code)
                .map_or_else(|| format!("section {code}"), |kind| kind.name().to_owned()),
            bytes,
        })
        .collect();
    if block.meta().signal == Signal::Metrics {
        match contents(&block) {
            Ok(contents) => {
                report.time_columns = contents.time_columns.into();
                report.encodings = contents
                    .encodings
                    .into_iter()
                    .map(|(name, share)| EncodingReport {
                        name: name.to_owned(),
                        columns: share.columns,
                        bytes: share.bytes,
                    })
                    .collect();
                report.encodings.sort_by_key(|e| std::cmp::Reverse(e.bytes));
            }
            Err(error) => report.error = error.to_string(),
        }
    }
    if block.meta().signal == Signal::Spans {
        match SpanBlock::open(block, None) {
            Ok(block) => report.superseded = block.superseded().len() as u64,
            Err(error) => report.error = error.to_string(),
        }
    }
    Some(report)
}

/// The values of an attribute that one block of spans holds, hidden spans included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockValues {
    /// The block's number, as in [`BlockReport::id`].
    pub block: String,
    /// Where the attribute stands: `span`, `event`, `link`, `resource` or `scope`.
    pub of: &'static str,
    /// Each value in its display form, and how many spans, events, links, resources or scopes have it.
    pub values: Vec<(String, u64)>,
}

/// All values of an attribute in the blocks of `dir`, block by block: what a delete has left of it.
/// Blocks without the key are left out.
///
/// # Errors
/// [`Error::NotAStore`], [`Error::Storage`], [`Error::CorruptBlock`].
pub fn values(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    key: &str,
) -> Result<Vec<BlockValues>, Error> {
    let manifest_dir = dir.join(MANIFEST_DIR);
    let exists = storage.exists(&manifest_dir);
    if !exists.map_err(|source| Error::Storage {
        operation: "look for",
        path: manifest_dir.clone(),
        source,
    })? {
        return Err(Error::NotAStore {
            dir: dir.to_owned(),
        });
    }
    let (version, _) = Manifest::read(storage, &manifest_dir)?;
    let files = Arc::new(OpenFiles::default());
    let mut found = Vec::new();
    for meta in version
        .blocks
        .values()
        .filter(|meta| meta.signal == Signal::Spans)
    {
        let block = Block::open(storage, &dir.join(BLOCKS_DIR), None, meta.id, &files)?;
        let block = SpanBlock::open(Arc::new(block), None)?;
        block_values(&block, key, &mut found)?;
    }
    Ok(found)
}

fn block_values(block: &SpanBlock, key: &str, found: &mut Vec<BlockValues>) -> Result<(), Error> {
    let ctl = QueryControl::unbounded();
    let tables = [
        ("span", Some(block.attributes())),
        ("event", block.events().map(Satellites::attributes)),
        ("link", block.links().map(Satellites::attributes)),
    ];
    let none = RoaringBitmap::new();
    let mut counts: Vec<(&'static str, BTreeMap<String, u64>)> = Vec::new();
    for (of, table) in tables {
        let mut values = BTreeMap::new();
        if let Some(table) = table {
            table.value_counts(key, &none, &ctl, &mut |bytes, items| {
                let value = Value::decode(&mut { bytes }).unwrap_or_default();
                *values.entry(value.to_string()).or_default() += items;
                Ok(())
            })?;
        }
        counts.push((of, values));
    }
    let mut owned = |of, attributes: &mut dyn Iterator<Item = Attributes>| {
        let mut values: BTreeMap<String, u64> = BTreeMap::new();
        for (_, value) in attributes.flatten().filter(|(name, _)| **name == *key) {
            *values.entry(value.to_string()).or_default() += 1;
        }
        counts.push((of, values));
    };
    let resources = (0..block.resource_count()).map(|i| block.resource(i));
    let resources = resources.collect::<Result<Vec<_>, Error>>()?;
    owned(
        "resource",
        &mut resources.iter().map(|r| r.attributes.clone()),
    );
    let scopes = (0..block.scope_count()).map(|i| block.scope(i));
    let scopes = scopes.collect::<Result<Vec<_>, Error>>()?;
    owned("scope", &mut scopes.iter().map(|s| s.attributes.clone()));
    let counts = counts.into_iter().filter(|(_, values)| !values.is_empty());
    found.extend(counts.map(|(of, values)| BlockValues {
        block: block.meta().id.to_string(),
        of,
        values: values.into_iter().collect(),
    }));
    Ok(())
}

fn contents(block: &Arc<Block>) -> Result<MetricBlockContents, Error> {
    MetricBlock::open(Arc::clone(block))?.describe(&mut || Ok(()))
}

fn fill(report: &mut BlockReport, meta: &BlockMeta) {
    report.signal = match meta.signal {
        Signal::Metrics => "metrics",
        Signal::Spans => "spans",
    };
    report.level = meta.level;
    report.spanning = meta.spanning;
    report.first_ns = meta.time.start().as_nanos();
    report.last_ns = meta.time.end().as_nanos();
    report.first_lsn = meta.first_lsn.0;
    report.last_lsn = meta.last_lsn.0;
    report.clean_lsn = meta.clean_lsn.0;
    report.series = meta.series;
    report.samples = meta.samples;
    report.bytes = meta.file_bytes;
}
