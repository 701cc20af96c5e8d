//! `cargo xtask bench bus|spawn`: figures as ratios against a peer in one run.
//!
//! Every comparison interleaves its contestants and repeats; what is printed is the median of the
//! paired ratios, with the class of durability beside it (volatile, after write, after fdatasync).
//! Contestants of different classes are never compared without saying so.

mod bus;
mod clock;
mod lead;
mod peer;
mod rig;
mod spawn;
mod table;
mod wire;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use bus::run as bus;
pub(crate) use spawn::run as spawn;
pub(crate) use table::Report;

/// What a bench is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Repetitions of each comparison.
    #[arg(long, default_value_t = 5)]
    pub(crate) repetitions: usize,
    /// Only rows whose name contains this.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Write the rows as JSON to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// Prints the rows, and writes them where asked.
    pub(crate) fn finish(&self, report: &Report) -> io::Result<()> {
        report.print(&mut io::stdout().lock())?;
        match &self.json {
            Some(path) => std::fs::write(path, report.json()?),
            None => Ok(()),
        }
    }
}

/// The release build of the daemon; a debug build would say nothing.
pub(crate) fn programs(root: &Path) -> io::Result<PathBuf> {
    let status = std::process::Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--bins"])
        .current_dir(root)
        .status()?;
    if !status.success() {
        return Err(io::Error::other("the release build failed"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    Ok(target.join("release"))
}
