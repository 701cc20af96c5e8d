//! The command line of `missiond run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

/// Run one command in a sandbox, without a mission
///
/// The current directory is the command's workspace: it reads and writes there. The rest of the system
/// is read-only, the home directory an empty one that is gone at the end, and there is no network.
/// Input, output, the terminal, signals and the exit code are passed through.
///
/// Exit code: the command's own, 128+n if signal n killed it, 127 if there is no such program, 126 if
/// it can't be executed, 125 if it can't be confined.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// How strong the isolation is: 1 (a confined process) or 2 (namespaces of its own)
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub level: u8,
    /// The policy: the name of a preset, or a file
    #[arg(long, value_name = "POLICY", default_value = "coding")]
    pub policy: String,
    /// A directory or file that the command also reads and writes
    #[arg(long, value_name = "PATH")]
    pub rw: Vec<PathBuf>,
    /// A directory or file that the command also reads
    #[arg(long, value_name = "PATH")]
    pub ro: Vec<PathBuf>,
    /// What it reaches of the network [default: what the policy says]
    #[arg(long, value_name = "NET")]
    pub net: Option<Net>,
    /// A variable for its environment: with this value, or with the one it has here
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Say at the end which system calls were refused, on what, and what would allow it; many times
    /// slower
    #[arg(long)]
    pub trace: bool,
    /// Don't say at the end what may have been refused
    #[arg(short, long)]
    pub quiet: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What a command reaches of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Net {
    /// Nothing but a loopback device of its own
    None,
    /// All that the host reaches
    Host,
}
