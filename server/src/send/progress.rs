//! A progress bar on standard error, drawn only where a person sees it.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};

use super::tally::Tally;

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Characters of the bar itself.
const BAR_CHARS: u8 = 24;

/// Draws until it is finished or dropped.
pub(crate) struct Progress {
    task: Option<JoinHandle<()>>,
}

impl Progress {
    /// A bar for `total_bytes` to read (unknown if `None`); none at all where no one looks.
    pub(crate) fn start(tally: &Arc<Tally>, total_bytes: Option<u64>, wanted: bool) -> Self {
        if !wanted || !std::io::stderr().is_terminal() {
            return Self { task: None };
        }
        let tally = Arc::clone(tally);
        let began = Instant::now();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(DRAW_EVERY);
            loop {
                ticks.tick().await;
                let read = tally.read_bytes.load(Ordering::Relaxed);
                let (spans, samples) = tally.answered();
                let text = line(read, total_bytes, began.elapsed(), spans, samples);
                // Carriage return, text, clear to the end of the line.
                let _ = write!(std::io::stderr(), "\r{text}\x1b[K");
            }
        });
        Self { task: Some(task) }
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn line(read: u64, total: Option<u64>, elapsed: Duration, spans: u64, samples: u64) -> String {
    let rate = read as f64 / elapsed.as_secs_f64().max(0.001) / 1e6;
    let done = match total.filter(|t| *t > 0) {
        Some(total) => {
            let read = read.min(total);
            let filled = read.saturating_mul(u64::from(BAR_CHARS)) / total;
            let filled = usize::try_from(filled).unwrap_or(0);
            let empty = usize::from(BAR_CHARS).saturating_sub(filled);
            let percent = read.saturating_mul(100) / total;
            format!(
                "[{}{}] {percent:>3} %",
                "=".repeat(filled),
                " ".repeat(empty)
            )
        }
        None => format!("{:.1} MB", read as f64 / 1e6),
    };
    format!("{done}  {rate:.1} MB/s  {spans} spans  {samples} samples")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_with_what_is_read() {
        let second = Duration::from_secs(1);
        let half = line(500, Some(1_000), second, 7, 9);
        assert!(
            half.starts_with("[============            ]  50 %"),
            "{half}"
        );
        assert!(half.ends_with("7 spans  9 samples"), "{half}");
        assert!(line(2_000, Some(1_000), second, 0, 0).contains("100 %"));
        assert!(line(5, None, second, 0, 0).starts_with("0.0 MB"));
        assert!(line(0, Some(0), Duration::ZERO, 0, 0).starts_with("0.0 MB"));
    }
}
