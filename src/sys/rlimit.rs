//! Resource limits (setrlimit(2)).

use std::io;

pub use nix::sys::resource::Resource;
use nix::sys::resource::{getrlimit, setrlimit};

/// Soft and hard limit.
///
/// # Errors
/// getrlimit(2).
pub fn get(resource: Resource) -> io::Result<(u64, u64)> {
    Ok(getrlimit(resource)?)
}

/// Sets both. A value above the present hard limit is lowered to it: a limit is never raised, and
/// what is already stricter stays.
///
/// # Errors
/// setrlimit(2).
pub fn lower(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let (_, most) = getrlimit(resource)?;
    let hard = hard.min(most);
    Ok(setrlimit(resource, soft.min(hard), hard)?)
}

/// Raises the soft limit of open files to the hard one and returns it. For the daemon: descriptors
/// of 1,000 agents don't fit into the usual 1,024.
///
/// # Errors
/// setrlimit(2).
pub fn raise_nofile() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
