//! How the process's allocator is asked to hold no more than the store does.
//!
//! A sealed generation frees a large part of what the process holds, in small pieces between others
//! that stay. glibc keeps such pages for itself: without a hint a node's memory stays near the highest
//! it ever was, and the next generation, of other sizes, adds to it. So what frees much says so here.
//! It also keeps eight heaps for each processor, and what is free in one is of no use to the others; a
//! node asks for one each. Together this is half of the memory of a node with a small limit. Other
//! allocators give back on their own: there both functions do nothing.
//!
//! The one module of the engine that calls the C library. Invariant: `malloc_trim` and `mallopt` of
//! glibc may be called at any time from any thread; they touch free memory and settings only, under the
//! allocator's own locks.
#![expect(
    unsafe_code,
    reason = "a call of the C library; the invariant is above"
)]

/// Less than this freed is kept for what comes next.
const WORTH_GIVING_BACK_BYTES: u64 = 4 << 20;

/// Has the allocator share one heap a processor among all threads. For the start of a process that is
/// a store and little else, before it has threads; costs nothing measurable there.
pub fn share_heaps() {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    limit_heaps(processors);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn limit_heaps(heaps: usize) {
    let heaps = std::ffi::c_int::try_from(heaps).unwrap_or(std::ffi::c_int::MAX);
    // SAFETY: takes numbers and no pointer; see the invariant above. A parameter that is not known is
    // ignored, and the answer says so.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, heaps);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn limit_heaps(_: usize) {}

/// About so many bytes were freed.
pub(crate) fn freed(bytes: u64) {
    if bytes >= WORTH_GIVING_BACK_BYTES {
        give_back();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: takes a number and no pointer; see the invariant above. The answer says whether anything
    // was given back, which nobody asks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous_bytes() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn pages_between_what_stays_go_back() {
        let mut pieces: Vec<Vec<u8>> = (0..400_000).map(|_| vec![1; 200]).collect();
        // One in a thousand stays: the top of the heap never gets free by itself.
        let full = anonymous_bytes();
        let stay: Vec<Vec<u8>> = pieces.drain(..).step_by(1_000).collect();
        drop(pieces);
        freed(80 << 20);
        let (Some(full), Some(after)) = (full, anonymous_bytes()) else {
            return;
        };
        assert!(
            after + (40 << 20) < full,
            "{full} then {after}, {} stay",
            stay.len()
        );
    }
}
