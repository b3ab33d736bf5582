//! What a generation was written to, by windows of event time, and when that makes it due.
//!
//! Event time closes nothing: a window is *idle* when nothing was written to it for a while by the
//! monotonic clock, whatever its times are. A generation is sealed whole, so it is due when what it
//! would seal too early is small beside what is idle.
//!
//! At most [`WINDOWS_MAX`] windows are told apart. Of more, those that were written to longest ago are
//! counted together, with the last write of any: samples that each have a window of their own then
//! wait as one, and go into one block.

use std::{collections::BTreeMap, time::Duration};

use crate::time::NS_PER_S;

/// Length of a window.
pub(crate) const WINDOW_NS: i64 = 2 * 3600 * NS_PER_S;
/// Windows told apart.
const WINDOWS_MAX: usize = 64;
/// Idle windows are due when they hold at least one part in so many of the samples ...
const IDLE_SHARE: u64 = 4;
/// ... or when they have been idle for so many times the setting.
const IDLE_LONG: u32 = 12;

#[derive(Clone, Copy, Debug)]
struct Window {
    last_write: Duration,
    samples: u64,
}

/// See the module's doc. Times are the monotonic clock's.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    by_number: BTreeMap<i64, Window>,
    /// Those that were too many.
    rest: Option<Window>,
    samples: u64,
}

impl Windows {
    /// A batch of so many samples was written, with times from `first_ns` to `last_ns`. Its ends
    /// stand for what lies between.
    pub(crate) fn note(&mut self, first_ns: i64, last_ns: i64, samples: u64, now: Duration) {
        self.samples += samples;
        let (first, last) = (
            first_ns.div_euclid(WINDOW_NS),
            last_ns.div_euclid(WINDOW_NS),
        );
        if first != last {
            self.touch(first, 0, now);
        }
        self.touch(last, samples, now);
    }

    fn touch(&mut self, number: i64, samples: u64, now: Duration) {
        let window = self.by_number.entry(number).or_insert(Window {
            last_write: now,
            samples: 0,
        });
        window.last_write = now;
        window.samples += samples;
        if self.by_number.len() <= WINDOWS_MAX {
            return;
        }
        let coldest = self.by_number.iter().min_by_key(|(_, w)| w.last_write);
        if let Some(number) = coldest.map(|(number, _)| *number)
            && let Some(window) = self.by_number.remove(&number)
        {
            let rest = self.rest.get_or_insert(window);
            rest.last_write = rest.last_write.max(window.last_write);
            rest.samples += window.samples;
        }
    }

    /// Samples noted.
    #[cfg(test)]
    fn samples(&self) -> u64 {
        self.samples
    }

    /// Whether it is time to seal, if a window is idle after `idle`.
    pub(crate) fn is_due(&self, now: Duration, idle: Duration) -> bool {
        let mut any = false;
        let mut all_idle = true;
        let mut idle_samples = 0u64;
        for window in self.by_number.values().chain(&self.rest) {
            let quiet = now.saturating_sub(window.last_write);
            any = true;
            if quiet >= idle.saturating_mul(IDLE_LONG) {
                return true;
            }
            if quiet >= idle {
                idle_samples += window.samples;
            } else {
                all_idle = false;
            }
        }
        let share_is_idle = idle_samples > 0 && idle_samples >= self.samples / IDLE_SHARE;
        any && (all_idle || share_is_idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_mins(5);

    fn at(minutes: u64) -> Duration {
        Duration::from_mins(minutes)
    }

    fn hour(hours: i64) -> i64 {
        hours * 3600 * NS_PER_S
    }

    #[test]
    fn nothing_written_is_never_due() {
        assert!(!Windows::default().is_due(at(1000), IDLE));
    }

    #[test]
    fn a_generation_at_rest_is_due_and_one_that_is_written_to_is_not() {
        let mut windows = Windows::default();
        windows.note(0, 1, 10, at(0));
        assert!(!windows.is_due(at(4), IDLE));
        windows.note(0, 1, 10, at(4));
        assert!(!windows.is_due(at(8), IDLE));
        assert!(windows.is_due(at(9), IDLE));
    }

    #[test]
    fn a_full_window_is_due_soon_after_the_next_has_begun() {
        let mut windows = Windows::default();
        for minute in 0..120 {
            windows.note(hour(0), hour(0), 100, at(minute));
            assert!(!windows.is_due(at(minute), IDLE));
        }
        windows.note(hour(2), hour(2), 100, at(120));
        assert!(
            !windows.is_due(at(123), IDLE),
            "the old one may still get late data"
        );
        windows.note(hour(2), hour(2), 100, at(124));
        assert!(windows.is_due(at(124), IDLE));
    }

    #[test]
    fn a_few_late_samples_wait_longer_than_a_window() {
        let mut windows = Windows::default();
        windows.note(hour(-100), hour(-100), 1, at(0));
        for minute in 0..60 {
            windows.note(hour(0), hour(0), 100, at(minute));
            assert!(!windows.is_due(at(minute), IDLE), "at {minute}");
        }
        windows.note(hour(0), hour(0), 100, at(60));
        assert!(windows.is_due(at(60), IDLE));
    }

    #[test]
    fn scattered_samples_are_due_together() {
        let mut windows = Windows::default();
        for i in 0..20_000 {
            let minute = u64::try_from(i).unwrap() / 10_000;
            windows.note(hour(2 * i), hour(2 * i), 1, at(minute));
            assert!(!windows.is_due(at(minute), IDLE));
        }
        assert!(windows.by_number.len() <= WINDOWS_MAX);
        assert!(windows.is_due(at(7), IDLE));
        assert_eq!(windows.samples(), 20_000);
    }
}
