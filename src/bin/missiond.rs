//! The `missiond` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    missiond::daemon::cli::main()
}
