//! What commands on a directory have to tell, as they show it.

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verified {
    /// By part: log, manifest, blocks.
    pub(super) parts: Vec<VerifiedPart>,
    /// Every damaged place, by file and offset.
    pub(super) damage: Vec<Damage>,
}

/// Files of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct VerifiedPart {
    pub(super) name: &'static str,
    pub(super) files: u64,
    /// Bytes read and checked.
    pub(super) bytes: u64,
}

/// Damaged bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Damage {
    pub(super) file: String,
    pub(super) offset_bytes: u64,
    /// What is wrong.
    pub(super) reason: String,
    /// What can no longer be read because of it.
    pub(super) cost: String,
}

/// What `inspect` found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Inspected {
    /// By id.
    pub(super) blocks: Vec<BlockReport>,
    pub(super) log: LogReport,
    pub(super) manifest: ManifestReport,
}

/// One block.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BlockReport {
    pub(super) id: String,
    /// `metrics` or `spans`.
    pub(super) signal: &'static str,
    pub(super) level: u8,
    /// Holds days too sparse for a block of their own.
    pub(super) spanning: bool,
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
    pub(super) first_lsn: u64,
    pub(super) last_lsn: u64,
    pub(super) series: u64,
    pub(super) samples: u64,
    /// Of the file.
    pub(super) bytes: u64,
    /// In the order of the file.
    pub(super) sections: Vec<SectionReport>,
    /// By bytes, the largest first.
    pub(super) encodings: Vec<EncodingReport>,
    /// Not empty if the block does not open; says why.
    pub(super) error: String,
}

/// One section of a block.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SectionReport {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// Columns of one encoding.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EncodingReport {
    pub(super) name: String,
    pub(super) columns: u64,
    pub(super) values: u64,
    pub(super) bytes: u64,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LogReport {
    pub(super) segments: u64,
    pub(super) bytes: u64,
    /// Records above the cut of at least one signal.
    pub(super) records: u64,
    pub(super) first_lsn: Option<u64>,
    pub(super) last_lsn: Option<u64>,
}

/// The manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ManifestReport {
    pub(super) bytes: u64,
    pub(super) blocks: u64,
    pub(super) tombstones: u64,
    /// Samples up to this sequence number are in blocks.
    pub(super) metrics_cut_lsn: u64,
    pub(super) retention_floor_ns: Option<i64>,
}
