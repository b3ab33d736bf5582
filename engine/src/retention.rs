//! Retention: which times the store still answers for, and which blocks may go.
//!
//! The *floor* is the oldest time that is kept. It only rises, and is written to the manifest before
//! anything is deleted, so that what was hidden once stays hidden. A block goes when all of it lies
//! below the floor. Both signals have one floor. Of spans, a trace goes as a whole, when its last span
//! ended before it; what has expired in memory is deleted by a record of the log.
//!
//! By age, the floor follows the clock. A wall clock that jumps ahead must not delete a store, so the
//! clock that counts is the smaller of the wall clock and what it was when it was last written down,
//! plus [`CATCH_UP`] times the time that has passed since, plus [`JUMP_ALLOWED_NS`]: after a jump it
//! lags behind the wall clock, and the caller warns. What is written down leaves that allowance out, or
//! it would be granted again and again. The time in which no node ran looks like a jump, too; it is
//! caught up with, since the clock may run faster than time. By size, the oldest blocks go until the
//! rest fits.

use std::time::Duration;

use crate::{
    block::{BlockId, BlockMeta},
    time::Timestamp,
};

/// How far the wall clock may run ahead of the time that passed.
pub(crate) const JUMP_ALLOWED_NS: i64 = 3600 * 1_000_000_000;
/// How much faster than time passes the clock may run.
const CATCH_UP: i64 = 2;
/// The floor is raised by less than this only to free a block.
const STEP_NS: i64 = 3600 * 1_000_000_000;

/// What is kept. Off unless set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Nothing older than this.
    pub(crate) age: Option<Duration>,
    /// No more bytes of blocks than this.
    pub(crate) bytes: Option<u64>,
}

/// What time it is for retention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetentionClock {
    /// The wall clock when it was last written down.
    pub(crate) noted_wall_ns: i64,
    /// The monotonic clock then; of this process.
    pub(crate) noted_monotonic: Duration,
}

impl RetentionClock {
    /// The time, and whether the wall clock has jumped ahead of it.
    pub(crate) fn now_ns(&self, wall_ns: i64, monotonic: Duration) -> (i64, bool) {
        let latest_ns = self.followed_ns(monotonic).saturating_add(JUMP_ALLOWED_NS);
        (wall_ns.min(latest_ns), wall_ns > latest_ns)
    }

    /// What to write down now.
    pub(crate) fn note_ns(&self, wall_ns: i64, monotonic: Duration) -> i64 {
        let (now_ns, has_jumped) = self.now_ns(wall_ns, monotonic);
        if has_jumped {
            return self.followed_ns(monotonic);
        }
        now_ns
    }

    /// As far as the clock can have come since it was written down, by the time that has passed.
    fn followed_ns(&self, monotonic: Duration) -> i64 {
        let passed = monotonic.saturating_sub(self.noted_monotonic);
        let passed_ns = i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX);
        self.noted_wall_ns
            .saturating_add(passed_ns.saturating_mul(CATCH_UP))
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The floor to write down first, if it rises.
    pub(crate) floor: Option<Timestamp>,
    /// The blocks that go then.
    pub(crate) drop: Vec<BlockId>,
}

/// What retention has to do at `now_ns`, given the floor so far.
pub(crate) fn plan(
    blocks: &[&BlockMeta],
    limits: Limits,
    floor: Option<Timestamp>,
    now_ns: i64,
) -> Plan {
    let floor_ns = floor.map_or(i64::MIN, Timestamp::as_nanos);
    let by_age = limits.age.map_or(i64::MIN, |age| {
        let age_ns = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        now_ns.saturating_sub(age_ns)
    });
    let (by_size, too_much) = beyond_size(blocks, limits.bytes, now_ns);
    let wanted = floor_ns.max(by_age).max(by_size);
    let goes =
        |block: &&&BlockMeta| block.time.end().as_nanos() < wanted || too_much.contains(&block.id);
    let drop: Vec<BlockId> = blocks.iter().filter(goes).map(|block| block.id).collect();
    let rises =
        wanted > floor_ns && (!drop.is_empty() || wanted >= floor_ns.saturating_add(STEP_NS));
    Plan {
        floor: rises.then(|| Timestamp::from_nanos(wanted)),
        drop,
    }
}

/// The oldest blocks without which the rest fits, and the floor that goes with them. The youngest stays
/// whatever its size. The floor stays an hour behind the clock: samples of now are taken even if blocks
/// of now had to go, and those of the far future do not move it.
fn beyond_size(blocks: &[&BlockMeta], bytes_max: Option<u64>, now_ns: i64) -> (i64, Vec<BlockId>) {
    let mut bytes: u64 = blocks.iter().map(|block| block.file_bytes).sum();
    let Some(bytes_max) = bytes_max.filter(|max| bytes > *max) else {
        return (i64::MIN, Vec::new());
    };
    // What lies ahead of the clock is as old as its block.
    let age_ns = |block: &BlockMeta| {
        let end_ns = block.time.end().as_nanos();
        if end_ns > now_ns {
            block.created_ns
        } else {
            end_ns
        }
    };
    let mut oldest_first = blocks.to_vec();
    oldest_first.sort_by_key(|block| (age_ns(block), block.id));
    oldest_first.pop();
    let mut floor_ns = i64::MIN;
    let mut dropped = Vec::new();
    for block in oldest_first {
        if bytes <= bytes_max {
            break;
        }
        bytes -= block.file_bytes;
        let end_ns = block.time.end().as_nanos().saturating_add(1);
        floor_ns = floor_ns.max(end_ns.min(now_ns.saturating_sub(STEP_NS)));
        dropped.push(block.id);
    }
    (floor_ns, dropped)
}

#[cfg(test)]
mod tests {
    use rootline_wal::Lsn;

    use super::*;
    use crate::{block::Signal, time::TimeRange};

    const HOUR: i64 = STEP_NS;

    fn block(id: u64, hours: (i64, i64), bytes: u64) -> BlockMeta {
        let time = |h: i64| Timestamp::from_nanos(h * HOUR);
        BlockMeta {
            id: BlockId(id),
            signal: Signal::Metrics,
            first_lsn: Lsn(id),
            last_lsn: Lsn(id),
            clean_lsn: Lsn(id),
            time: TimeRange::new(time(hours.0), time(hours.1)).unwrap(),
            level: 0,
            series: 1,
            samples: 1,
            sources: Vec::new(),
            created_ns: 0,
            spanning: false,
            file_bytes: bytes,
        }
    }

    #[test]
    fn nothing_goes_until_a_limit_is_set() {
        let old = block(1, (0, 1), 10);
        assert_eq!(
            plan(&[&old], Limits::default(), None, i64::MAX),
            Plan::default()
        );
    }

    #[test]
    fn a_block_goes_when_all_of_it_is_too_old() {
        let blocks = [block(1, (0, 10), 10), block(2, (5, 20), 10)];
        let blocks: Vec<&BlockMeta> = blocks.iter().collect();
        let limits = Limits {
            age: Some(Duration::from_hours(10)),
            bytes: None,
        };
        let found = plan(&blocks, limits, None, 20 * HOUR);
        assert_eq!(found.drop, []);
        assert_eq!(found.floor, Some(Timestamp::from_nanos(10 * HOUR)));
        let found = plan(&blocks, limits, found.floor, 20 * HOUR + 1);
        assert_eq!(found.drop, [BlockId(1)]);
        assert_eq!(found.floor, Some(Timestamp::from_nanos(10 * HOUR + 1)));
        let again = plan(&blocks[1..], limits, found.floor, 20 * HOUR + 2);
        assert_eq!(again, Plan::default(), "small steps are not written down");
    }

    #[test]
    fn the_floor_never_falls() {
        let limits = Limits {
            age: Some(Duration::from_hours(1)),
            bytes: None,
        };
        let floor = Some(Timestamp::from_nanos(50 * HOUR));
        assert_eq!(plan(&[], limits, floor, 20 * HOUR), Plan::default());
    }

    #[test]
    fn the_oldest_blocks_go_until_the_rest_fits() {
        let blocks = [
            block(1, (8, 9), 10),
            block(2, (0, 1), 10),
            block(3, (2, 5), 10),
        ];
        let limits = Limits {
            age: None,
            bytes: Some(15),
        };
        let found = plan(&blocks.iter().collect::<Vec<_>>(), limits, None, 20 * HOUR);
        assert_eq!(found.drop, [BlockId(2), BlockId(3)]);
        assert_eq!(found.floor, Some(Timestamp::from_nanos(5 * HOUR + 1)));
    }

    #[test]
    fn samples_of_the_far_future_do_not_shut_out_those_of_now() {
        let mut future = block(1, (9_000, 9_001), 100);
        future.created_ns = 19 * HOUR;
        let blocks = [future, block(2, (0, 1), 10), block(3, (18, 20), 10)];
        let limits = Limits {
            age: None,
            bytes: Some(5),
        };
        let found = plan(&blocks.iter().collect::<Vec<_>>(), limits, None, 20 * HOUR);
        assert_eq!(found.drop, [BlockId(1), BlockId(2)], "the youngest stays");
        assert_eq!(found.floor, Some(Timestamp::from_nanos(19 * HOUR)));
    }

    #[test]
    fn a_clock_that_jumps_ahead_pauses_retention() {
        let clock = RetentionClock {
            noted_wall_ns: 100 * HOUR,
            noted_monotonic: Duration::from_hours(1),
        };
        let at = |wall: i64, monotonic: u64| clock.now_ns(wall, Duration::from_hours(monotonic));
        assert_eq!(at(101 * HOUR, 2), (101 * HOUR, false));
        assert_eq!(at(5000 * HOUR, 2), (103 * HOUR, true));
        assert_eq!(at(90 * HOUR, 2), (90 * HOUR, false));
    }

    #[test]
    fn looking_often_does_not_make_time_pass() {
        let mut clock = RetentionClock {
            noted_wall_ns: 100 * HOUR,
            noted_monotonic: Duration::ZERO,
        };
        let mut now_ns = 0;
        for second in 0..7200 {
            let monotonic = Duration::from_secs(second);
            now_ns = clock.now_ns(5000 * HOUR, monotonic).0;
            clock = RetentionClock {
                noted_wall_ns: clock.note_ns(5000 * HOUR, monotonic),
                noted_monotonic: monotonic,
            };
        }
        assert!(now_ns < 105 * HOUR, "twice the time, and an hour: {now_ns}");
        // A node that was down for 3 hours has caught up with them after 3 more.
        let wall_ns = clock.noted_wall_ns + 3 * HOUR;
        let at = |hours: u64| {
            let monotonic = clock.noted_monotonic + Duration::from_hours(hours);
            clock.now_ns(wall_ns + i64::try_from(hours).unwrap() * HOUR, monotonic)
        };
        assert!(at(0).1 && at(1).1 && !at(3).1);
    }
}
