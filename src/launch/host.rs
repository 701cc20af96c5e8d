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

#[cfg(test)]
mod tests {
    use crate::policy::seccomp::{TIOCSTI, native};

    #[test]
    fn the_numbers_are_those_of_this_machine() {
        let arch = native().unwrap();
        let number = |n: libc::c_long| u32::try_from(n).unwrap();
        assert_eq!(
            arch.own_process_only,
            [
                libc::SYS_prlimit64,
                libc::SYS_sched_setparam,
                libc::SYS_sched_setscheduler,
                libc::SYS_sched_setaffinity,
                libc::SYS_sched_setattr,
            ]
            .map(number)
        );
        assert_eq!(arch.setpriority, number(libc::SYS_setpriority));
        assert_eq!(arch.ioprio_set, number(libc::SYS_ioprio_set));
        assert_eq!(arch.ioctl, number(libc::SYS_ioctl));
        assert_eq!(u64::from(TIOCSTI), libc::TIOCSTI);
    }
}
