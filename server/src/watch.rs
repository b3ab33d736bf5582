//! What a running node says in its log of its own accord.
//!
//! Damage that reads and the scrub meet, retention that waits, a disk without room, and sealing or
//! merging that fails happen on threads of the engine, which write no log lines: they keep figures.
//! [`Watcher`] looks at these once a second and says what has changed, each change once: as a warning
//! when something is wrong, as information when it is over. What began and ended between two looks is
//! not said, apart from damage, which stays.
//!
//! The figures take locks that are held across syncs, so they are read on a blocking thread.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rootline_engine::EngineStats;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::node::NodeState;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Damage {
    path: PathBuf,
    offset_bytes: u64,
    reason: String,
}

impl Damage {
    /// What makes it this place and no other.
    fn place(&self) -> (&Path, u64) {
        (&self.path, self.offset_bytes)
    }
}

/// The figures that are watched. The default is a store of which nothing bad is to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    damage: Vec<Damage>,
    retention_paused: bool,
    disk_is_low: bool,
    disk_free_bytes: u64,
    sealing_error: Option<String>,
    merging_error: Option<String>,
}

impl Figures {
    fn of(stats: EngineStats) -> Self {
        let damage = stats.damage.into_iter().map(|found| Damage {
            path: found.path,
            offset_bytes: found.offset_bytes,
            reason: found.reason,
        });
        Self {
            damage: damage.collect(),
            retention_paused: stats.compactions.retention_paused,
            disk_is_low: stats.disk_is_low,
            disk_free_bytes: stats.disk_free_bytes,
            sealing_error: stats.seals.last_error,
            merging_error: stats.compactions.last_error,
        }
    }

    /// What is known when the damage in `stats` has been reported and nothing else has.
    pub(crate) fn damage_known(stats: &EngineStats) -> Self {
        let damage = Self::of(stats.clone()).damage;
        Self {
            damage,
            ..Self::default()
        }
    }
}

/// Something to say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Notice {
    Damaged(Damage),
    RetentionPaused,
    RetentionGoesOn,
    DiskLow { free_bytes: u64 },
    DiskHasRoom { free_bytes: u64 },
    SealingFails(String),
    SealingWorks,
    MergingFails(String),
    MergingWorks,
}

/// What is to be said of `new`, if `old` was known.
fn notices(old: &Figures, new: &Figures) -> Vec<Notice> {
    let mut found = Vec::new();
    if old.damage != new.damage {
        let known: HashSet<(&Path, u64)> = old.damage.iter().map(Damage::place).collect();
        let unknown = new.damage.iter().filter(|d| !known.contains(&d.place()));
        found.extend(unknown.cloned().map(Notice::Damaged));
    }
    match (old.retention_paused, new.retention_paused) {
        (false, true) => found.push(Notice::RetentionPaused),
        (true, false) => found.push(Notice::RetentionGoesOn),
        _ => {}
    }
    let free_bytes = new.disk_free_bytes;
    match (old.disk_is_low, new.disk_is_low) {
        (false, true) => found.push(Notice::DiskLow { free_bytes }),
        (true, false) => found.push(Notice::DiskHasRoom { free_bytes }),
        _ => {}
    }
    if old.sealing_error != new.sealing_error {
        let error = new.sealing_error.clone();
        found.push(error.map_or(Notice::SealingWorks, Notice::SealingFails));
    }
    if old.merging_error != new.merging_error {
        let error = new.merging_error.clone();
        found.push(error.map_or(Notice::MergingWorks, Notice::MergingFails));
    }
    found
}

impl Notice {
    fn say(&self) {
        match self {
            Self::Damaged(damage) => tracing::warn!(
                file = %damage.path.display(),
                offset_bytes = damage.offset_bytes,
                reason = damage.reason,
                "this file is damaged here; everything else is served, nothing was deleted"
            ),
            Self::RetentionPaused => tracing::warn!(
                "the wall clock is more than an hour ahead of the time that passed: retention lags \
                 behind it, and catches up at double speed"
            ),
            Self::RetentionGoesOn => {
                tracing::info!("retention follows the wall clock again");
            }
            Self::DiskLow { free_bytes } => tracing::warn!(
                free_bytes,
                "room on disk is short: writes are refused until there is more (option disk-reserve)"
            ),
            Self::DiskHasRoom { free_bytes } => {
                tracing::info!(free_bytes, "there is room on disk again: writes are taken");
            }
            Self::SealingFails(reason) => tracing::warn!(
                reason,
                "sealing failed and is tried again; the samples stay in memory and in the log"
            ),
            Self::SealingWorks => tracing::info!("sealing works again"),
            Self::MergingFails(reason) => tracing::warn!(
                reason,
                "merging blocks or retention failed and is tried again; the blocks stay as they are"
            ),
            Self::MergingWorks => tracing::info!("merging and retention work again"),
        }
    }
}

/// The task that looks. Dropping it ends it without a last look.
#[derive(Debug)]
pub(crate) struct Watcher {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Begins to look at the engine of `state`, which is open, and says at once what is not `known`.
    pub(crate) fn start(state: Arc<NodeState>, known: Figures) -> Self {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(watch(state, known, ended));
        Self { end, task }
    }

    /// Looks a last time and ends.
    pub(crate) async fn end(self) {
        // A task that has ended already was cut off with its runtime.
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

async fn watch(state: Arc<NodeState>, mut known: Figures, mut ended: oneshot::Receiver<()>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_last = tokio::select! {
            biased;
            ended = &mut ended => match ended {
                Ok(()) => true,
                Err(_) => return,
            },
            _ = ticks.tick() => false,
        };
        let looked_at = Arc::clone(&state);
        let look = move || {
            let stats = looked_at.engine_opened()?.stats();
            let new = Figures::of(stats);
            for notice in notices(&known, &new) {
                notice.say();
            }
            Some(new)
        };
        let Ok(Some(new)) = tokio::task::spawn_blocking(look).await else {
            return;
        };
        known = new;
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(path: &str, offset_bytes: u64, reason: &str) -> Damage {
        Damage {
            path: path.into(),
            offset_bytes,
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn nothing_is_said_while_nothing_changes() {
        let quiet = Figures::default();
        assert_eq!(notices(&quiet, &quiet), []);
        let bad = Figures {
            damage: vec![damage("b", 4096, "checksum")],
            retention_paused: true,
            disk_is_low: true,
            disk_free_bytes: 7,
            sealing_error: Some("no room".to_owned()),
            merging_error: Some("no room".to_owned()),
        };
        let with_less_room = Figures {
            disk_free_bytes: 6,
            ..bad.clone()
        };
        assert_eq!(notices(&bad, &with_less_room), []);
    }

    #[test]
    fn each_new_place_of_damage_is_said_once_whatever_its_wording() {
        let known = Figures {
            damage: vec![damage("b", 0, "footer")],
            ..Figures::default()
        };
        let more = Figures {
            damage: vec![
                damage("b", 0, "the footer"),
                damage("b", 4096, "page"),
                damage("c", 0, "footer"),
            ],
            ..Figures::default()
        };
        assert_eq!(
            notices(&known, &more),
            [
                Notice::Damaged(damage("b", 4096, "page")),
                Notice::Damaged(damage("c", 0, "footer")),
            ]
        );
        assert_eq!(notices(&more, &more), []);
    }

    #[test]
    fn what_goes_wrong_is_said_and_so_is_that_it_is_over() {
        let well = Figures {
            disk_free_bytes: 90,
            ..Figures::default()
        };
        let bad = Figures {
            retention_paused: true,
            disk_is_low: true,
            disk_free_bytes: 10,
            sealing_error: Some("a".to_owned()),
            merging_error: Some("b".to_owned()),
            ..Figures::default()
        };
        assert_eq!(
            notices(&well, &bad),
            [
                Notice::RetentionPaused,
                Notice::DiskLow { free_bytes: 10 },
                Notice::SealingFails("a".to_owned()),
                Notice::MergingFails("b".to_owned()),
            ]
        );
        assert_eq!(
            notices(&bad, &well),
            [
                Notice::RetentionGoesOn,
                Notice::DiskHasRoom { free_bytes: 90 },
                Notice::SealingWorks,
                Notice::MergingWorks,
            ]
        );
    }

    #[test]
    fn another_reason_to_fail_is_said_too() {
        let failing = |reason: &str| Figures {
            sealing_error: Some(reason.to_owned()),
            ..Figures::default()
        };
        assert_eq!(
            notices(&failing("a"), &failing("b")),
            [Notice::SealingFails("b".to_owned())]
        );
    }
}
