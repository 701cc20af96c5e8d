//! What this machine offers, for the planner.

use std::io;

use crate::policy::HostFacts;
use crate::sys::{landlock, procfs, rlimit, seccomp};

/// Looks at the machine. Takes a few milliseconds (it counts the user's processes); the count is of
/// now, so ask again for each plan that has a pids limit.
///
/// # Errors
/// If `/proc` can't be read.
pub fn host_facts() -> io::Result<HostFacts> {
    let uid = nix::unistd::geteuid();
    let (nofile_soft, _) = rlimit::get(rlimit::Resource::RLIMIT_NOFILE)?;
    Ok(HostFacts {
        landlock_abi: landlock::abi(),
        seccomp: seccomp::available(),
        uid_tasks: procfs::tasks_of_user(uid.as_raw())?,
        nofile_soft,
        root: uid.is_root(),
    })
}
