//! `missiond doctor`: what this machine gives to agents, found out by trying, and what to do about what
//! it doesn't.
//!
//! ```text
//! examine: kernel (namespaces, Landlock, seccomp), places (directories, systemd, control groups),
//!          containers (subordinate ids, podman)  -->  Report: checks, levels  -->  table | JSON
//! ```
//!
//! Nothing is concluded from a version where it can be tried: a sandbox is made in a throwaway process,
//! a scope is asked for, a file is written where files belong. It deliberately changes nothing and gives
//! no remedy that it couldn't name exactly; a command that needs root is shown, never run. `--clean`
//! alone removes something: what dead missions have left behind.

mod containers;
mod kernel;
mod places;
mod report;

use std::io;
use std::path::Path;

use crate::config::dirs::{DirsError, Places};
use crate::launch::{host_facts, probe_level_2};
use crate::workspace::{Registry, RegistryError};

pub use report::{Check, LevelVerdict, Report, State};

/// Why nothing could be found out, or cleaned.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The machine can't be looked at.
    #[error("cannot look at this machine")]
    Facts(#[source] io::Error),
    /// Nothing says where files belong.
    #[error("cannot tell where missions keep their files")]
    Places(#[from] DirsError),
    /// What was left behind can't be looked through.
    #[error("cannot clean up")]
    Clean(#[from] RegistryError),
}

/// Looks at everything. Moves this process into a scope of the user's systemd, if that is how control
/// groups can be had here. To be called from a program with one thread.
///
/// # Errors
/// `/proc` can't be read.
pub fn examine() -> Result<Report, DoctorError> {
    let facts = host_facts().map_err(DoctorError::Facts)?;
    let sandbox = probe_level_2(Path::new("/proc/self/exe"));
    let mut checks = vec![kernel::version(), kernel::namespaces(sandbox.as_ref())];
    checks.extend(kernel::own_proc(sandbox.as_ref().ok()));
    checks.push(kernel::landlock(facts.landlock_abi));
    checks.push(kernel::seccomp(facts.seccomp));
    checks.extend(places::directories());
    checks.push(places::lingering());
    checks.push(places::cgroups());
    checks.push(containers::subordinate_ids());
    checks.push(containers::podman());
    Ok(Report::new(checks))
}

/// Removes what dead missions have left in the trees of others; one line for each thing.
///
/// # Errors
/// It can't be looked through.
pub fn clean() -> Result<String, DoctorError> {
    let places = Places::from_environment(|name| std::env::var_os(name))?;
    let [_, state] = places.bases();
    if !state.is_dir() {
        return Ok("nothing to clean: there were no missions\n".to_owned());
    }
    let cleaned = Registry::open(state)?.clean(None)?;
    let mut text = String::new();
    let mut tell = |what: &str, path: String| {
        text.push_str(&format!("{what} {path}\n"));
    };
    for path in &cleaned.removed {
        tell("removed", path.display().to_string());
    }
    for path in &cleaned.left {
        tell("left, because somebody has changed it:", path.display().to_string());
    }
    for failure in cleaned.failed {
        tell("not removed:", failure);
    }
    if text.is_empty() {
        text.push_str("nothing to clean\n");
    }
    Ok(text)
}
