//! What time it is, passed in so that tests can say.
//!
//! Wall time (may jump) and monotonic time (may not) are kept apart; nothing else in the workspace
//! reads a clock of its own.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often a thread that waits by a [`ManualClock`] looks at it.
const MANUAL_LOOK: Duration = Duration::from_millis(1);

/// A source of time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Nanoseconds since the Unix epoch. Jumps when somebody sets the clock.
    fn wall_ns(&self) -> i64;

    /// Time since some fixed point in the past. Never goes back.
    fn monotonic(&self) -> Duration;

    /// How long a thread may block for a wait of `timeout` before it has to look at this clock again.
    fn wait_bound(&self, timeout: Duration) -> Duration {
        timeout
    }

    /// Blocks until `duration` has passed by this clock.
    fn sleep(&self, duration: Duration) {
        let until = self.monotonic().saturating_add(duration);
        loop {
            let left = until.saturating_sub(self.monotonic());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(self.wait_bound(left));
        }
    }
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock everything else takes"
    )]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock everything else takes"
    )]
    fn wall_ns(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
        }
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves only when told to.
#[derive(Debug, Default)]
pub struct ManualClock {
    monotonic_ns: AtomicU64,
    wall_ns: AtomicI64,
}

impl ManualClock {
    /// A clock at monotonic zero and the Unix epoch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.monotonic_ns.fetch_add(by_ns, Ordering::SeqCst);
        self.wall_ns
            .fetch_add(i64::try_from(by_ns).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Sets wall time alone, as an administrator might.
    pub fn set_wall_ns(&self, wall_ns: i64) {
        self.wall_ns.store(wall_ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ns(&self) -> i64 {
        self.wall_ns.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst))
    }

    fn wait_bound(&self, timeout: Duration) -> Duration {
        timeout.min(MANUAL_LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_time_moves_only_when_told() {
        let clock = ManualClock::new();
        assert_eq!((clock.monotonic(), clock.wall_ns()), (Duration::ZERO, 0));
        clock.advance(Duration::from_secs(2));
        clock.set_wall_ns(7);
        assert_eq!(
            (clock.monotonic(), clock.wall_ns()),
            (Duration::from_secs(2), 7)
        );
    }

    #[test]
    fn a_sleeper_wakes_when_manual_time_has_passed() {
        let clock = ManualClock::new();
        std::thread::scope(|s| {
            let sleeper = s.spawn(|| clock.sleep(Duration::from_hours(1)));
            // However late the sleeper starts, an hour more will pass for it.
            while !sleeper.is_finished() {
                clock.advance(Duration::from_hours(1));
                std::thread::yield_now();
            }
        });
    }
}
