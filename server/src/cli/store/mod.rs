//! Commands on a data directory that no node uses: `rootline verify`, `inspect`, `restore`.
//!
//! Exit codes: 0 done and all well, 1 damage was found, 2 it could not be done.

mod inspect;
mod restore;
mod verify;

use std::process::ExitCode;

pub(super) use inspect::InspectArgs;
pub(super) use restore::RestoreArgs;
pub(super) use verify::VerifyArgs;

use super::{ask::print, show::plain};

/// All is well.
const EXIT_WELL: u8 = 0;
/// Damage was found.
const EXIT_DAMAGE: u8 = 1;
/// It could not be done.
const EXIT_CANNOT: u8 = 2;

/// Runs `rootline verify`.
pub(super) fn verify(args: &VerifyArgs) -> ExitCode {
    end(verify::run(args))
}

/// Runs `rootline inspect`.
pub(super) fn inspect(args: &InspectArgs) -> ExitCode {
    end(inspect::run(args))
}

/// Runs `rootline restore`.
pub(super) fn restore(args: &RestoreArgs) -> ExitCode {
    end(restore::run(args))
}

/// An answer for standard output with its exit code, or why there is none.
type Answer = Result<(String, u8), String>;

fn end(answer: Answer) -> ExitCode {
    match answer {
        Ok((text, code)) => match print(&text) {
            Ok(()) => ExitCode::from(code),
            Err(error) => {
                eprintln!("error: cannot write the answer: {error}");
                ExitCode::from(EXIT_CANNOT)
            }
        },
        Err(reason) => {
            eprintln!("error: {}", plain(&reason));
            ExitCode::from(EXIT_CANNOT)
        }
    }
}
