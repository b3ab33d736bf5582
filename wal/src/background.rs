//! The log's one thread: syncs what nobody waits for, notes idleness, prepares the next segment.
//!
//! It sleeps without a deadline when the log is idle and marked.

use std::{sync::Arc, time::Duration};

use parking_lot::MutexGuard;

use crate::{
    log::{Shared, State},
    settings::Durability,
};

/// After the disk was full, how long before a segment is prepared ahead again. Writers try at once.
const PREPARE_PAUSE: Duration = Duration::from_secs(1);

/// What is to be done next.
enum Task {
    Stop,
    Sync,
    Mark,
    Prepare,
    WaitUntil(Duration),
    Wait,
}

pub(crate) fn run(shared: &Arc<Shared>) {
    let mut prepare_after = Duration::ZERO;
    let mut state = shared.state.lock();
    loop {
        let now = shared.clock.monotonic();
        match next_task(shared, &state, now, prepare_after) {
            Task::Stop => return,
            Task::Sync => shared.lead(&mut state, false),
            Task::Mark => shared.lead(&mut state, true),
            Task::Prepare => {
                if shared.prepare(&mut state, 0).is_err() {
                    prepare_after = now + PREPARE_PAUSE;
                }
            }
            Task::WaitUntil(deadline) => {
                let timeout = shared.clock.wait_bound(deadline.saturating_sub(now));
                shared.wake_background.wait_for(&mut state, timeout);
            }
            Task::Wait => {
                state.background_asleep = true;
                shared.wake_background.wait(&mut state);
                state.background_asleep = false;
            }
        }
    }
}

fn next_task(
    shared: &Shared,
    state: &MutexGuard<'_, State>,
    now: Duration,
    prepare_after: Duration,
) -> Task {
    if state.stop_background {
        return Task::Stop;
    }
    if state.stopped.is_some() {
        return Task::Wait;
    }
    let mut deadline = None;
    let mut at = |task, when: Duration| {
        if when <= now {
            return Some(task);
        }
        deadline = Some(deadline.map_or(when, |d: Duration| d.min(when)));
        None
    };
    if state.wants_next()
        && let Some(task) = at(Task::Prepare, prepare_after)
    {
        return task;
    }
    let idle = shared.settings.idle_marker;
    let due = if !state.pending.is_empty() {
        let delay = match shared.settings.durability {
            Durability::Sync => idle,
            Durability::Interval(interval) => interval,
        };
        at(Task::Sync, state.pending_since.saturating_add(delay))
    } else if !state.marked {
        at(Task::Mark, state.last_sync.saturating_add(idle))
    } else {
        None
    };
    match (due, deadline) {
        // Somebody else is at it; look again when that should be over.
        (Some(_), _) if state.leading => Task::WaitUntil(now + Duration::from_millis(10)),
        (Some(task), _) => task,
        (None, Some(deadline)) => Task::WaitUntil(deadline),
        (None, None) => Task::Wait,
    }
}
