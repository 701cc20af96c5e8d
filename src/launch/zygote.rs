//! The launcher process: forks shims, holds nothing.
//!
//! Started before it can have a thread, it stays small and single-threaded, so that a fork of it is
//! quick and safe. Each message on descriptor 3 brings a request (a sealed memfd), the shim's end of
//! its channel and perhaps standard input; the launcher forks and closes them. It reads no request
//! itself: a bad one can only fail its own shim.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use super::message::{Report, Step, send_report};
use super::shim;
use super::world::{PROBE, answer_probe};
use crate::sys::channel::{self, Wait};
use crate::sys::process::{self, Fork, ParentOf};
use crate::sys::signals;

/// The argument that makes `missiond` a launcher.
pub(super) const ARGUMENT: &CStr = c"__launcher";

const CHANNEL: i32 = 3;

/// Turns this process into a launcher, or a [probe](super::probe_level_2), if it was started as one; to be called first of all in `main`,
/// before anything starts a thread. Returns when the daemon closes its end.
#[must_use]
pub fn run_if_launcher() -> Option<ExitCode> {
    let argument = std::env::args_os().nth(1)?;
    let role = match argument.as_encoded_bytes() {
        bytes if bytes == ARGUMENT.to_bytes() => run,
        bytes if bytes == PROBE.to_bytes() => probe,
        _ => return None,
    };
    Some(match role() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn probe() -> io::Result<()> {
    let channel = process::take_inherited(CHANNEL)?;
    answer_probe(channel.as_fd())
}

fn run() -> io::Result<()> {
    // Before anything else: what is ignored or blocked here would be so in every agent. Rust's
    // start-up has set SIGPIPE to ignored; the mask stays full, payloads clear it before their exec.
    signals::reset_dispositions();
    signals::block_all()?;
    process::become_undumpable()?;
    let channel = process::take_inherited(CHANNEL)?;
    process::close_from(3 + 1)?;
    // Out of the terminal's reach: ctrl-C there is for the daemon alone.
    process::new_session()?;
    process::become_subreaper()?;
    process::set_name(c"missiond-launch")?;
    std::env::set_current_dir("/")?;
    loop {
        let mut byte = [0];
        let received = match channel::receive(channel.as_fd(), &mut byte, Wait::Block) {
            // Descriptors were lost on the way (a limit): that channel is closed by now, and its
            // daemon's end says so.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => continue,
            result => result?,
        };
        if received.length == 0 {
            return Ok(());
        }
        let mut fds = received.fds.into_iter();
        let (Some(spec), Some(to_daemon)) = (fds.next(), fds.next()) else { continue };
        let stdin = fds.next();
        match process::fork(ParentOf::CallersParent) {
            Ok(Fork::Child) => {
                // A shim that held the launcher's channel would hide the launcher's death.
                drop(channel);
                shim::main(spec, to_daemon, stdin);
            }
            Ok(Fork::Parent(_)) => {}
            Err(error) => {
                let report = Report::SetupFailed {
                    step: Step::Shim,
                    errno: error.raw_os_error().unwrap_or(0),
                    detail: String::new(),
                };
                // If the daemon is gone as well there is nobody to tell.
                let _ = send_report(to_daemon.as_fd(), &report);
            }
        }
    }
}
