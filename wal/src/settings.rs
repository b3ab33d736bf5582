//! Numbers of a log; components (storage, clock) are arguments of [`crate::Wal::open`].

use std::time::Duration;

use crate::{
    error::Error,
    format::{BLOCK_BYTES, RECORD_BYTES_MAX},
    store_id::StoreId,
};

/// When [`crate::Wal::wait_durable`] returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the record has been synced.
    #[default]
    Sync,
    /// At once; a background thread syncs this long after the first record it has not synced yet. A
    /// crash of the process or the machine loses what was not.
    Interval(Duration),
}

/// Plain data with sane defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When a record counts as durable. Default [`Durability::Sync`].
    pub durability: Durability,
    /// Size of the first full segment. Segments that fill fast are followed by larger ones, those
    /// that fill slowly by smaller ones. Default 4 MiB.
    pub segment_bytes_min: u64,
    /// Largest size segments grow to; a record that is larger gets a segment of its own size.
    /// Default 64 MiB.
    pub segment_bytes_max: u64,
    /// How long the log is idle before it notes durably that all it holds has been synced.
    /// Default 100 ms.
    pub idle_marker: Duration,
    /// Bytes that may wait to be synced. Beyond, `append` blocks. Default 64 MiB.
    pub unsynced_bytes_max: u64,
    /// Segments kept for reuse when the log is cut. Default 2.
    pub spare_segments_max: usize,
    /// Whose log it is, if that is known from elsewhere: stands in if no segment has a readable header.
    /// Default: not known.
    pub store: Option<StoreId>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            segment_bytes_min: 4 << 20,
            segment_bytes_max: 64 << 20,
            idle_marker: Duration::from_millis(100),
            unsynced_bytes_max: 64 << 20,
            spare_segments_max: 2,
            store: None,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let invalid = |name, value: u64, expected: String| {
            Err(Error::InvalidSettings {
                name,
                value: value.to_string(),
                expected,
            })
        };
        let least = 4 * BLOCK_BYTES;
        if self.segment_bytes_min < least {
            return invalid(
                "segment_bytes_min",
                self.segment_bytes_min,
                format!("at least {least}"),
            );
        }
        if self.segment_bytes_max < self.segment_bytes_min
            || self.segment_bytes_max > RECORD_BYTES_MAX
        {
            let expected = format!("{} to {RECORD_BYTES_MAX}", self.segment_bytes_min);
            return invalid("segment_bytes_max", self.segment_bytes_max, expected);
        }
        if self.unsynced_bytes_max == 0 || self.unsynced_bytes_max > RECORD_BYTES_MAX {
            let expected = format!("1 to {RECORD_BYTES_MAX}");
            return invalid("unsynced_bytes_max", self.unsynced_bytes_max, expected);
        }
        Ok(())
    }
}
