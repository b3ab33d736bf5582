//! Every name the log gives to a file in its directory.

/// Held locked while the log is open. Its content is nobody's business.
pub(crate) const LOCK: &str = "LOCK";

const SEGMENT_PREFIX: &str = "segment-";
const SEGMENT_SUFFIX: &str = ".wal";
const PREPARED_PREFIX: &str = "prepared-";
const SPARE_PREFIX: &str = "spare-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A segment: `segment-000000000000002a.wal`.
pub(crate) fn segment(number: u64) -> String {
    format!("{SEGMENT_PREFIX}{number:016x}{SEGMENT_SUFFIX}")
}

/// A segment before it has its name: nothing in it counts.
pub(crate) fn prepared(number: u64) -> String {
    format!("{PREPARED_PREFIX}{number:016x}{TEMPORARY_SUFFIX}")
}

/// A segment that was cut and waits to be used again: nothing in it counts.
pub(crate) fn spare(number: u64) -> String {
    format!("{SPARE_PREFIX}{number:016x}{TEMPORARY_SUFFIX}")
}

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    /// Prepared or spare: may be removed whenever the log is opened.
    Temporary(u64),
    /// Not ours; left alone.
    Other,
}

pub(crate) fn parse(name: &str) -> Name {
    let number = |prefix, suffix| {
        let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        let plain = digits.len() == 16
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if plain {
            u64::from_str_radix(digits, 16).ok()
        } else {
            None
        }
    };
    if let Some(number) = number(SEGMENT_PREFIX, SEGMENT_SUFFIX) {
        return Name::Segment(number);
    }
    [PREPARED_PREFIX, SPARE_PREFIX]
        .into_iter()
        .find_map(|prefix| number(prefix, TEMPORARY_SUFFIX))
        .map_or(Name::Other, Name::Temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_nothing_else_does() {
        assert_eq!(parse(&segment(0x2a)), Name::Segment(0x2a));
        assert_eq!(parse(&prepared(7)), Name::Temporary(7));
        assert_eq!(parse(&spare(u64::MAX)), Name::Temporary(u64::MAX));
        for other in [
            LOCK,
            "segment-2a.wal",
            "segment-000000000000002A.wal",
            "segment-+00000000000002a.wal",
            "segment-000000000000002a.wal.bak",
            "",
        ] {
            assert_eq!(parse(other), Name::Other, "{other}");
        }
    }
}
