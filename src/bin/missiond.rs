//! The `missiond` program; called `missionctl`, it is that one.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    if name.is_some_and(|name| Path::new(&name).file_name() == Some("missionctl".as_ref())) {
        return missiond::ctl::main();
    }
    missiond::run::main_if_asked(std::env::args_os()).unwrap_or_else(missiond::daemon::cli::main)
}
