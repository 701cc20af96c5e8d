//! The `missiond` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: a launcher must be single-threaded.
    if let Some(code) = missiond::launch::run_if_launcher() {
        return code;
    }
    ExitCode::SUCCESS
}
