//! `missiond run`: one confined command, without a mission.
//!
//! ```text
//! arguments --request--> PlanRequest --policy::plan--> ProcessPlan --launch::run_once--> Ran
//!                                                                          |
//!                                    exit code, and hints on why it failed <'
//! ```
//!
//! It is used where people use bubblewrap: in scripts, on a terminal, thousands of times. So there is
//! no runtime, no daemon and no state directory; standard input, output and error are the caller's
//! own, and so is the exit code. The current directory is the workspace; the home is an empty one that
//! is gone at the end.
//!
//! It deliberately reads nothing of what the command prints: why something was refused is told from
//! what the kernel counted and what the command line names, and exactly only with `--trace`.

mod cli;
mod hints;
mod home;
mod protect;
mod refusals;
mod request;

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use nix::errno::Errno;

pub use cli::Args;

use crate::console;
use crate::launch::{self, Exit, Step};
use crate::policy;
use refusals::Refusals;

/// Exit code when it is missiond that fails, as of env(1).
const OWN_FAILURE: u8 = 125;
/// Exit code when the program can't be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code of what SIGKILL ended.
const KILLED: u8 = 137;
/// Exit code when the program isn't there.
const NOT_FOUND: u8 = 127;

#[derive(Debug, Parser)]
#[command(name = "missiond run", bin_name = "missiond run", no_binary_name = true)]
#[command(disable_version_flag = true, max_term_width = 100)]
struct Alone {
    #[command(flatten)]
    args: Args,
}

/// Runs the program if the command line asks for `run`, given all of it; the caller has one thread.
#[must_use]
pub fn main_if_asked(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if words.nth(1)? != "run" {
        return None;
    }
    let parsed: Result<Alone, ExitCode> = console::arguments_of(words, OWN_FAILURE);
    Some(parsed.map_or_else(|code| code, |alone| main(&alone.args)))
}

/// Runs the command. Exit codes: the command's own, 128+n for signal n, 127 if there is no such
/// program, 126 if it can't be executed, 125 if it could not be confined.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    match attempt(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(OWN_FAILURE)
        }
    }
}

/// Why a command can't be run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Request(#[from] request::RequestError),
    #[error("cannot look at this machine")]
    Host(#[source] io::Error),
    #[error("cannot confine the command at level {level}")]
    Plan {
        level: policy::Level,
        #[source]
        source: policy::PlanError,
    },
    #[error("cannot run the command")]
    Run(#[source] io::Error),
}

fn attempt(args: &Args) -> Result<u8, RunError> {
    let prepared = request::prepare(args)?;
    let level = prepared.request.level;
    if !args.quiet {
        for gap in &prepared.gaps {
            tell(&format!("warning: {}\n", hints::shown(gap.as_ref())));
        }
    }
    let host = launch::host_facts_for(level).map_err(RunError::Host)?;
    let plan = policy::plan(&prepared.request, &host)
        .map_err(|source| RunError::Plan { level, source })?;
    let spec = launch::RunSpec {
        argv: prepared.argv.clone(),
        cwd: prepared.cwd.clone(),
        environment: prepared.environment.clone(),
        plan: plan.clone(),
    };
    let mut refusals = Refusals::default();
    let ran = if args.trace {
        launch::run_traced(spec, &mut |failed| refusals.add(&plan, &failed))
    } else {
        launch::run_once(spec)
    };
    let ran = ran.map_err(RunError::Run)?;
    let code = exit_code(&ran.exit);
    if let Exit::SetupFailed { .. } | Exit::Lost = ran.exit {
        tell(&setup_failure(&ran.exit, level));
    }
    if args.trace {
        tell(&refusals.table());
    } else if code != 0 && !args.quiet {
        tell(&hints::of(&prepared, &plan, &ran));
    }
    Ok(code)
}

fn exit_code(exit: &Exit) -> u8 {
    match exit {
        Exit::Exited(code) => u8::try_from(*code).unwrap_or(u8::MAX),
        Exit::Signaled(signal) => u8::try_from(128 + *signal).unwrap_or(u8::MAX),
        Exit::OutOfMemory => KILLED,
        Exit::SetupFailed { step: Step::Exec, errno: libc::ENOENT | libc::ENOTDIR, .. } => {
            NOT_FOUND
        }
        Exit::SetupFailed { step: Step::Exec, .. } => NOT_EXECUTABLE,
        Exit::SetupFailed { .. } | Exit::Lost => OWN_FAILURE,
    }
}

fn setup_failure(exit: &Exit, level: policy::Level) -> String {
    match exit {
        Exit::SetupFailed { step: Step::Exec, errno, detail } => {
            let name = hints::shown(detail.as_ref());
            let errno = Errno::from_raw(*errno);
            format!("error: cannot execute `{name}`: {} ({errno:?})\n", errno.desc().to_lowercase())
        }
        Exit::SetupFailed { step: Step::Namespaces | Step::IdMap, .. } => format!(
            "error: cannot confine the command at level {level}\n  cause: {exit}\n  help:  this system \
             restricts unprivileged user namespaces; `missiond doctor` shows how to allow them\n"
        ),
        Exit::SetupFailed { .. }
        | Exit::Lost
        | Exit::OutOfMemory
        | Exit::Exited(_)
        | Exit::Signaled(_) => {
            format!("error: cannot confine the command at level {level}\n  cause: {exit}\n")
        }
    }
}

/// Three lines: what failed, why, what to do about it.
fn complain(error: &RunError) {
    if let RunError::Request(request::RequestError::Policy(error)) = error {
        // Complete, with its place and help.
        return tell(&format!("{error}\n"));
    }
    let mut text = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string doesn't fail.
        let _ = writeln!(text, "  cause: {error}");
        cause = error.source();
    }
    if let RunError::Request(error) = error
        && let Some(help) = error.help()
    {
        let _ = writeln!(text, "  help:  {help}");
    }
    tell(&text);
}

fn tell(text: &str) {
    let _unheard = io::stderr().write_all(text.as_bytes());
}
