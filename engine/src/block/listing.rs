//! The directory of blocks as a whole: what lies there, and what of it belongs.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use rootline_wal::{Storage, StoreId};

use super::{
    Block, BlockId, BlockMeta, OpenFiles,
    filenames::{self, Name},
    source::storage_error,
};
use crate::error::Error;

/// The numbers of all blocks in `dir`, those half written included, by rising number. A directory that
/// is missing has none.
///
/// # Errors
/// [`Error::Storage`].
pub(crate) fn existing(storage: &dyn Storage, dir: &Path) -> Result<Vec<BlockId>, Error> {
    let mut ids: Vec<BlockId> = names(storage, dir)?
        .into_iter()
        .filter_map(|(_, name)| match name {
            Name::Block(id) | Name::Temporary(Some(id)) => Some(id),
            Name::Temporary(None) | Name::Other => None,
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Whether there is a finished block in `dir`.
///
/// # Errors
/// [`Error::Storage`].
pub(crate) fn has_blocks(storage: &dyn Storage, dir: &Path) -> Result<bool, Error> {
    let names = names(storage, dir)?;
    Ok(names.iter().any(|(_, name)| matches!(name, Name::Block(_))))
}

/// A block file and what its footer says.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// By its name.
    pub(crate) id: BlockId,
    /// The file.
    pub(crate) path: PathBuf,
    /// What it holds, or why that is not known.
    pub(crate) meta: Result<BlockMeta, Error>,
}

/// Reads the footers of all blocks in `dir`, by rising number. For when no manifest names them.
///
/// # Errors
/// [`Error::Storage`] if the directory cannot be listed.
pub(crate) fn scan_headers(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    store: Option<StoreId>,
) -> Result<Vec<Scanned>, Error> {
    let files = Arc::new(OpenFiles::default());
    let mut found: Vec<Scanned> = names(&**storage, dir)?
        .into_iter()
        .filter_map(|(path, name)| {
            let Name::Block(id) = name else { return None };
            let block = Block::open(storage, dir, store, id, &files);
            let meta = block.map(|block| block.meta().clone());
            Some(Scanned { id, path, meta })
        })
        .collect();
    found.sort_unstable_by_key(|scanned| scanned.id);
    Ok(found)
}

/// Of the blocks that lie in a directory, those that make up the store: all but those whose content is in
/// another one too, because that was merged from them. By rising number.
///
/// A merged block names its direct sources only. Sources are removed in rising order of their numbers
/// (see [`remove_unnamed`]), so while an older one is there, so is what stands between.
pub(crate) fn survivors(metas: Vec<BlockMeta>) -> Vec<BlockMeta> {
    let merged: BTreeSet<BlockId> = metas
        .iter()
        .flat_map(|meta| meta.sources.iter().copied().filter(|&id| id != meta.id))
        .collect();
    let mut left: Vec<BlockMeta> = metas
        .into_iter()
        .filter(|meta| !merged.contains(&meta.id))
        .collect();
    left.sort_unstable_by_key(|meta| meta.id);
    left
}

/// What [`remove_unnamed`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// Files that are gone.
    pub(crate) removed: Vec<PathBuf>,
    /// Blocks that should be there and are not. Then no block was removed.
    pub(crate) missing: Vec<BlockId>,
}

/// Removes what was half written, and the blocks that are not `named`. Only for when the manifest read
/// back intact.
///
/// If a named block is missing, something is wrong with the manifest or the directory, and all blocks stay.
///
/// # Errors
/// [`Error::Storage`]; what was removed before stays removed, and the rest can be removed later.
pub(crate) fn remove_unnamed(
    storage: &dyn Storage,
    dir: &Path,
    named: &BTreeSet<BlockId>,
) -> Result<Cleaned, Error> {
    let mut temporary = Vec::new();
    let mut unnamed = Vec::new();
    let mut missing = named.clone();
    for (path, name) in names(storage, dir)? {
        match name {
            Name::Temporary(_) => temporary.push(path),
            Name::Block(id) if !missing.remove(&id) => unnamed.push((id, path)),
            Name::Block(_) | Name::Other => {}
        }
    }
    let mut cleaned = Cleaned {
        removed: Vec::new(),
        missing: missing.into_iter().collect(),
    };
    // The order matters to `survivors`, and a removal that failed must not be overtaken by a later one.
    unnamed.sort_unstable();
    let unnamed = unnamed.into_iter().map(|(_, path)| path);
    let unnamed = unnamed.filter(|_| cleaned.missing.is_empty());
    for path in temporary.into_iter().chain(unnamed) {
        storage
            .remove(&path)
            .map_err(storage_error("remove", &path))?;
        cleaned.removed.push(path);
    }
    if !cleaned.removed.is_empty() {
        storage
            .sync_dir(dir)
            .map_err(storage_error("sync directory", dir))?;
    }
    Ok(cleaned)
}

fn names(storage: &dyn Storage, dir: &Path) -> Result<Vec<(PathBuf, Name)>, Error> {
    let listed = match storage.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(storage_error("list", dir))?,
    };
    let named = |name: String| {
        let parsed = filenames::parse(&name);
        (dir.join(name), parsed)
    };
    Ok(listed.into_iter().map(named).collect())
}
