//! The command line of `missiond`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::detach::{self, Detached, Outcome};
use super::start::{Options, start};
use super::summary::Verdict;
use crate::config::{self, Host};
use crate::console::{self, complain};
use crate::doctor;
use crate::escape;

const AFTER: &str = "\
Exit codes of `start`:
  0    all tasks completed, or it was stopped and none has failed
  1    a task has failed or was cancelled, or the daemon failed
  2    usage, or the mission file is wrong
  5    the mission runs already
  75   try again: no room on the disk, or a last write whose outcome the next start finds out

Examples:
  missiond init demo && missiond start demo/mission.toml
  missiond validate mission.toml             what it would start, or what is wrong
  missiond start --detach                    in the background; `missionctl` steers it
  missiond unit install review mission.toml  as a service of systemd --user

Ctrl-C, SIGTERM, SIGHUP or `missionctl stop` end a mission until nothing of it is left. \
Started again, it goes on where its log ends.";

/// A privilege-free supervisor for teams of AI agents.
#[derive(Debug, Parser)]
#[command(name = "missiond", version, max_term_width = 100, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a mission until its tasks are settled, or until it is stopped
    Start(Start),
    /// Run one command in a sandbox, without a mission
    Run(crate::run::Args),
    /// Check a mission file, and say what is wrong with it
    Validate {
        /// The mission file
        #[arg(default_value = "mission.toml")]
        file: PathBuf,
    },
    /// Show what an agent would be started with: mounts, rules, limits, and which line asked for each
    Explain {
        /// The mission file
        file: PathBuf,
        /// The agent
        agent: String,
        /// table or json
        #[arg(short, long, value_name = "FORM", default_value = "table", value_parser = ["table", "json"])]
        output: String,
    },
    /// Print the JSON Schema of mission files, for editors
    Schema,
    /// Write a commented starter mission that runs as it is
    Init {
        /// Where
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
    /// A systemd user unit for a mission
    #[command(subcommand)]
    Unit(Unit),
    /// Try what agents need of this machine, and say what to do about what is missing
    #[command(after_help = DOCTOR)]
    Doctor(Doctor),
}

const DOCTOR: &str = "\
Exit codes:
  0    agents can run at level 2
  1    they can't, and `do:` says what to do about it";

#[derive(Debug, Args)]
struct Doctor {
    /// For people, or for programs
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = true)]
    #[arg(value_name = "table|json")]
    output: Shape,
    /// Remove what dead missions have left in the trees of others
    #[arg(long, conflicts_with = "output")]
    clean: bool,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Shape {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Args)]
struct Start {
    /// The mission file; it is never looked for in parent directories
    #[arg(default_value = "mission.toml")]
    file: PathBuf,
    /// Go on in the background; returns when the mission answers and every service agent has been up
    #[arg(short, long)]
    detach: bool,
    /// Put the state of an earlier run aside and begin from nothing
    #[arg(long)]
    fresh: bool,
    /// Only warnings and the summary
    #[arg(short, long)]
    quiet: bool,
    /// What `--detach` starts
    #[arg(long, hide = true, conflicts_with = "detach")]
    background: bool,
}

#[derive(Debug, Subcommand)]
enum Unit {
    /// Print the unit
    Print,
    /// Write the unit of a mission and tell systemd of it; the reply says how to enable and start it
    Install {
        /// Its name
        name: String,
        /// Its mission file
        file: PathBuf,
    },
    /// Stop, disable and remove the unit of a mission
    Remove {
        /// Its name
        name: String,
    },
}

/// Runs the program. Exit codes: 0 all tasks completed (or there were none), 1 a task or the daemon
/// failed, or the mission was stopped with tasks open (the next start goes on with them), 2 usage or configuration, 5 the mission is running already, 75 try again (no room on
/// the disk, or a last write whose outcome only the next start can tell).
#[must_use]
pub fn main() -> ExitCode {
    // The launcher is this program as well, and must have nothing of what follows.
    if let Some(code) = crate::launch::run_if_launcher() {
        return code;
    }
    let cli: Cli = match console::arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Start(args) => run(&args),
        Command::Run(args) => crate::run::main(&args),
        Command::Validate { file } => {
            let host = match Host::current() {
                Ok(host) => host,
                Err(error) => return fail(&error, 2),
            };
            said(config::commands::validate(&file, &host))
        }
        Command::Explain { file, agent, output } => explain(&file, &agent, &output),
        Command::Schema => said(config::commands::schema()),
        Command::Init { directory } => said(config::commands::init(&directory)),
        Command::Unit(unit) => said(run_unit(&unit)),
        Command::Doctor(args) => examine(&args),
    }
}

fn examine(args: &Doctor) -> ExitCode {
    if args.clean {
        return match doctor::clean() {
            Ok(text) => print(&text, 0),
            Err(error) => fail(&error, 1),
        };
    }
    let report = match doctor::examine() {
        Ok(report) => report,
        Err(error) => return fail(&error, 1),
    };
    let code = if report.works(2) { 0 } else { 1 };
    match args.output {
        Shape::Table => {
            // Escaped already, except for its own colours.
            let table = report.table(super::screen::wants_colour(&std::io::stdout()));
            console::print(&table).map_or_else(|failure| failure, |()| ExitCode::from(code))
        }
        Shape::Json => match report.json() {
            Ok(text) => print(&text, code),
            Err(error) => fail(&error, 1),
        },
    }
}

fn explain(file: &Path, agent: &str, output: &str) -> ExitCode {
    use config::commands::{Shape, explain};
    let host = match Host::current() {
        Ok(host) => host,
        Err(error) => return fail(&error, 2),
    };
    let variables = super::ground::Ground::environment(std::env::vars_os());
    let shape = match output {
        "json" => Shape::Json,
        _ => {
            let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
            let width = size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
            Shape::Table {
                width,
                colours: width.is_some() && std::env::var_os("NO_COLOR").is_none(),
            }
        }
    };
    said(explain(file, agent, &host, &variables, shape))
}

fn run_unit(unit: &Unit) -> Result<String, config::commands::CommandError> {
    use config::commands::{UnitHome, unit_install, unit_print, unit_remove};
    let home = UnitHome::current()?;
    match unit {
        Unit::Print => unit_print(&home),
        Unit::Install { name, file } => {
            let host = Host::current().map_err(config::ConfigError::from)?;
            unit_install(&home, name, file, &host)
        }
        Unit::Remove { name } => unit_remove(&home, name),
    }
}

fn said(result: Result<String, config::commands::CommandError>) -> ExitCode {
    match result {
        Ok(text) => print(&text, 0),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: &Start) -> ExitCode {
    if args.detach {
        return detach(args);
    }
    let host = match Host::current() {
        Ok(host) => host,
        Err(error) => return fail(&error, 2),
    };
    let mission = match config::load_for(&args.file, &host) {
        Ok(mission) => mission,
        // Its text is complete, with positions and help.
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(2);
        }
    };
    for warning in &mission.warnings {
        complain(&warning.to_string());
    }
    if nix::unistd::geteuid().is_root() {
        complain(
            "warning: missiond runs as root and needs no privilege: agents are safer below an ordinary user",
        );
    }
    if args.background
        && let Err(error) = detach::leave_terminal()
    {
        return fail(&error, 1);
    }
    let log = match super::trace::level(std::env::var_os(super::trace::VARIABLE)) {
        Ok(log) => log,
        Err(why) => {
            complain(&format!("error: {why}"));
            return ExitCode::from(2);
        }
    };
    let detached = if args.background { Detached::Waited } else { Detached::No };
    let options = Options { fresh: args.fresh, quiet: args.quiet, log, detached };
    let name = mission.spec.name.clone();
    match start(mission, &host.places, options) {
        Ok(started) => {
            if started.was_over {
                complain(&format!(
                    "mission `{name}` is over: every task of its file is settled\n  help: add tasks to \
                     the file, or run it again with --fresh (its old state is kept beside the new one)"
                ));
            }
            let code = match started.verdict {
                Verdict::Good => 0,
                // A service manager that stops a unit must not hear that the unit has failed.
                Verdict::Open if std::env::var_os("NOTIFY_SOCKET").is_some() => 0,
                Verdict::Open | Verdict::Bad => 1,
            };
            print(&started.summary, code)
        }
        Err(error) => {
            let failed = fail(&error, error.exit_code());
            if let Some(help) = error.help(&name) {
                complain(&format!("  help:  {help}"));
            }
            failed
        }
    }
}

fn detach(args: &Start) -> ExitCode {
    let mut more = Vec::new();
    if args.fresh {
        more.push("--fresh");
    }
    let file = match std::path::absolute(&args.file) {
        Ok(file) => file,
        Err(error) => return fail(&error, 2),
    };
    match detach::spawn(&file, &more) {
        Ok(Outcome::Ready { mission, pid }) => {
            print(&format!("mission {mission} runs in the background (pid {pid})\n"), 0)
        }
        Ok(Outcome::Partly { pid, why }) => {
            complain(&format!(
                "error: {why}\n  note: the mission goes on in the background (pid {pid})"
            ));
            ExitCode::FAILURE
        }
        Ok(Outcome::Ended { code, output }) => print(&output, code),
        Err(error) => fail(&error, 1),
    }
}

/// Three lines: what failed, why, what to do about it.
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\n  cause: {error}"));
        cause = error.source();
    }
    complain(&text);
    ExitCode::from(code)
}

/// Writes a result; the exit code is `code` if it could be written.
fn print(text: &str, code: u8) -> ExitCode {
    match console::print(&escape::lines(text)) {
        Ok(()) => ExitCode::from(code),
        Err(failure) => failure,
    }
}
