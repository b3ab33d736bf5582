//! `rootline verify`: reads every byte of a data directory and checks it.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use rootline_engine::{
    Clock, FsStorage, Storage, SystemClock,
    verify::{Damage, Verified, verify},
};
use serde_json::json;

use super::{Answer, EXIT_DAMAGE, EXIT_WELL};
use crate::{
    cli::{
        ask::json_text,
        show::{Align, Table, Terminal, bytes, count, plain},
    },
    send::error_chain,
};

/// Between two words of progress to a file or a pipe.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Between two drawings on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Read every byte of a data directory and check it
///
/// Reads the log, the manifest and all blocks, verifies every checksum, and says what is damaged and
/// what that costs. Changes nothing. No node may use the directory meanwhile.
///
/// Exit codes: 0 intact, 1 damaged, 2 it could not be read.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Answer in JSON, with the fields of docs/cli.md
    #[arg(long)]
    json: bool,
    /// Say nothing of the progress
    #[arg(long)]
    no_progress: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Answer {
    let mut progress = Progress::new(!args.no_progress);
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new());
    let verified = verify(&storage, &args.dir, &mut |done, total| {
        progress.show(done, total);
        Ok(())
    });
    progress.finish();
    let verified = verified.map_err(|e| error_chain(&e))?;
    let code = if verified.damage.is_empty() {
        EXIT_WELL
    } else {
        EXIT_DAMAGE
    };
    let text = if args.json {
        verified_json(&verified)
    } else {
        verified_text(&verified, Terminal::of_stdout())
    };
    Ok((text, code))
}

fn damage_json(damage: &Damage) -> serde_json::Value {
    json!({
        "file": damage.path.display().to_string(),
        "offset_bytes": damage.offset_bytes,
        "reason": damage.reason,
        "cost": damage.cost,
    })
}

fn verified_json(verified: &Verified) -> String {
    let parts: Vec<serde_json::Value> = verified
        .parts
        .iter()
        .map(|part| json!({ "part": part.name, "files": part.files, "bytes": part.bytes }))
        .collect();
    let damage: Vec<serde_json::Value> = verified.damage.iter().map(damage_json).collect();
    json_text(&json!({
        "intact": verified.damage.is_empty(),
        "parts": parts,
        "damage": damage,
    }))
}

fn verified_text(verified: &Verified, terminal: Terminal) -> String {
    let mut table = Table::new(&[
        ("part", Align::Left),
        ("files", Align::Right),
        ("read", Align::Right),
    ]);
    for part in &verified.parts {
        table.row([part.name.to_owned(), count(part.files), bytes(part.bytes)]);
    }
    let mut text = table.render(terminal);
    if verified.damage.is_empty() {
        text.push_str("intact: every checksum holds\n");
        return text;
    }
    for damage in &verified.damage {
        let Damage {
            path,
            offset_bytes,
            reason,
            cost,
            ..
        } = damage;
        text.push_str(&place(path, *offset_bytes, reason, cost, terminal));
    }
    let places = verified.damage.len() as u64;
    let noun = if places == 1 { "place" } else { "places" };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "damaged in {} {noun}; everything else is intact, and nothing was changed",
        count(places)
    );
    text
}

/// A damaged place in one line, and what it costs in another.
fn place(path: &Path, offset_bytes: u64, reason: &str, cost: &str, terminal: Terminal) -> String {
    let file = path.display();
    let line = plain(&format!("{file} at byte {offset_bytes}: {reason}"));
    let mut text = terminal.red(&line) + "\n";
    if !cost.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  costs {}", plain(cost));
    }
    text
}

/// Says on standard error how far it is: a line that redraws itself on a terminal, else one now and then.
struct Progress {
    wanted: bool,
    terminal: bool,
    clock: SystemClock,
    said: Duration,
}

impl Progress {
    fn new(wanted: bool) -> Self {
        let clock = SystemClock::new();
        Self {
            wanted,
            terminal: std::io::stderr().is_terminal(),
            said: clock.monotonic(),
            clock,
        }
    }

    fn show(&mut self, done_bytes: u64, total_bytes: u64) {
        let now = self.clock.monotonic();
        let every = if self.terminal { DRAW_EVERY } else { SAY_EVERY };
        if !self.wanted || now.saturating_sub(self.said) < every {
            return;
        }
        self.said = now;
        let line = format!("read {} of {}", bytes(done_bytes), bytes(total_bytes));
        // Whoever closed standard error does not want to know.
        let _ = if self.terminal {
            write!(std::io::stderr(), "\r{line}\x1b[K")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
    }

    fn finish(&self) {
        if self.wanted && self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use rootline_engine::verify::VerifiedPart;

    use super::*;

    const PIPE: Terminal = Terminal {
        columns: None,
        colours: false,
    };

    fn intact() -> Verified {
        let part = |name, files, bytes| {
            let mut part = VerifiedPart::default();
            (part.name, part.files, part.bytes) = (name, files, bytes);
            part
        };
        let mut verified = Verified::default();
        verified.parts = vec![part("log", 1, 4096), part("blocks", 12, 3 << 20)];
        verified
    }

    #[test]
    fn an_intact_directory_is_said_to_be() {
        let verified = intact();
        assert_eq!(
            verified_text(&verified, PIPE),
            "PART    FILES     READ\n\
             log         1  4.0 KiB\n\
             blocks     12  3.0 MiB\n\
             intact: every checksum holds\n"
        );
        assert!(verified_json(&verified).contains("\"intact\": true"));
    }

    #[test]
    fn damage_is_named_by_file_and_offset_with_its_cost() {
        let block = Path::new("d/blocks/block-0000000000000007.rlb");
        assert_eq!(
            place(
                block,
                65_536,
                "checksum\x1b",
                "the values of 3 series",
                PIPE
            ),
            "d/blocks/block-0000000000000007.rlb at byte 65536: checksum\\u{1b}\n  costs the values of \
             3 series\n"
        );
        assert_eq!(place(block, 0, "cut short", "", PIPE).lines().count(), 1);
    }
}
