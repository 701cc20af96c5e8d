//! The `missionctl` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    missiond::ctl::main()
}
