//! Names of block files: `block-<16 hex digits>.rlb`, and `.tmp` for one being written.

use std::path::{Path, PathBuf};

use super::BlockId;

const PREFIX: &str = "block-";
const SUFFIX: &str = ".rlb";
const TEMPORARY: &str = ".tmp";

/// What a name in the directory of blocks stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// A finished block.
    Block(BlockId),
    /// A file that was being written.
    Temporary(Option<BlockId>),
    /// None of ours.
    Other,
}

/// Where a block lies.
pub(crate) fn block(dir: &Path, id: BlockId) -> PathBuf {
    dir.join(format!("{PREFIX}{:016x}{SUFFIX}", id.0))
}

/// Where a block is written.
pub(crate) fn temporary(dir: &Path, id: BlockId) -> PathBuf {
    dir.join(format!("{PREFIX}{:016x}{TEMPORARY}", id.0))
}

/// Reads a name.
pub(crate) fn parse(name: &str) -> Name {
    if let Some(stem) = name.strip_suffix(TEMPORARY) {
        return Name::Temporary(number(stem));
    }
    name.strip_suffix(SUFFIX)
        .and_then(number)
        .map_or(Name::Other, Name::Block)
}

fn number(stem: &str) -> Option<BlockId> {
    let digits = stem.strip_prefix(PREFIX)?;
    let canonical = digits.len() == 16
        && digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !canonical {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(BlockId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_left_alone() {
        let dir = Path::new("d");
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let id = BlockId(0xabc);
        assert_eq!(name(block(dir, id)), "block-0000000000000abc.rlb");
        assert_eq!(parse(&name(block(dir, id))), Name::Block(id));
        assert_eq!(parse(&name(temporary(dir, id))), Name::Temporary(Some(id)));
        assert_eq!(parse("x.tmp"), Name::Temporary(None));
        for other in ["block-0abc.rlb", "block-0000000000000ABC.rlb", "notes", ""] {
            assert_eq!(parse(other), Name::Other, "{other}");
        }
    }
}
