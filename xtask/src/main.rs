//! Development tasks: `cargo xtask tidy`, `cargo xtask bench`, `cargo xtask crash`, `cargo xtask vm-test`.

mod bench;
mod crash;
mod tidy;
mod vm;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of missiond")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks the rules of the house: directions of dependency, file sizes, words without a place.
    Tidy,
    /// Measures against a peer in one run, and prints the ratios.
    Bench {
        #[command(subcommand)]
        what: What,
    },
    /// Kills the daemon at random under load; nothing acknowledged may be lost or there twice.
    Crash(crash::Options),
    /// The program of the agents of `crash`.
    #[command(hide = true)]
    CrashAgent,
    /// Boots a Debian with systemd under QEMU, and tests there what can't be seen elsewhere.
    VmTest(vm::Options),
    /// What `vm-test` runs in the machine.
    #[command(hide = true)]
    VmGuest {
        /// Only cases whose name contains this.
        #[arg(default_value = "")]
        only: String,
    },
}

#[derive(Subcommand)]
enum What {
    /// The bus, beside Redis where it is installed.
    Bus(bench::Options),
    /// Starting agents, and what idle ones cost.
    Spawn(bench::Options),
}

fn main() -> std::io::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let good = match Args::parse().task {
        Task::Tidy => tidy::run(root)?,
        Task::Bench { what: What::Bus(options) } => bench::bus(root, &options).map(|()| true)?,
        Task::Bench { what: What::Spawn(options) } => {
            bench::spawn(root, &options).map(|()| true)?
        }
        Task::Crash(options) => crash::run(root, &options)?,
        Task::CrashAgent => crash::agent()?,
        Task::VmTest(options) => vm::run(root, &options)?,
        Task::VmGuest { only } => vm::guest(&only)?,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
