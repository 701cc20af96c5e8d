//! What this machine offers, for the planner.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::policy::{
    DEVICES, HostFacts, Level, PROC_PLACES, PlaceKind, SYSTEM_PLACES, SystemPlace,
};
use crate::sys::{landlock, procfs, rlimit, seccomp};

/// Mount points below `/proc` that cover nothing: the kernel keeps these directories empty, so they
/// don't make a new `/proc` show more than the old one.
const EMPTY_IN_PROC: [&str; 3] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/xen"];

/// What doesn't change while this program runs.
struct Lasting {
    landlock_abi: u32,
    seccomp: bool,
    system: Vec<SystemPlace>,
    fresh_proc: bool,
}

/// Looks at the machine. Takes a few milliseconds (it counts the user's processes); the count is of
/// now, so ask again for each plan that has a pids limit. What the kernel and the system are is
/// looked up once.
///
/// # Errors
/// If `/proc` can't be read.
pub fn host_facts() -> io::Result<HostFacts> {
    host_facts_for(Level::Process)
}

/// As [`host_facts`], for plans of one level: at level 2 limits are counted in a namespace, so the
/// user's processes aren't.
///
/// # Errors
/// As [`host_facts`].
pub fn host_facts_for(level: Level) -> io::Result<HostFacts> {
    static LASTING: OnceLock<Lasting> = OnceLock::new();
    let lasting = match LASTING.get() {
        Some(found) => found,
        None => {
            let found = lasting()?;
            LASTING.get_or_init(|| found)
        }
    };
    let uid = nix::unistd::geteuid();
    let (nofile_soft, _) = rlimit::get(rlimit::Resource::RLIMIT_NOFILE)?;
    Ok(HostFacts {
        landlock_abi: lasting.landlock_abi,
        seccomp: lasting.seccomp,
        uid_tasks: if level < Level::Namespaces { procfs::tasks_of_user(uid.as_raw())? } else { 0 },
        nofile_soft,
        root: uid.is_root(),
        system: lasting.system.clone(),
        fresh_proc: lasting.fresh_proc,
        cgroup: false,
    })
}

fn lasting() -> io::Result<Lasting> {
    Ok(Lasting {
        landlock_abi: landlock::abi(),
        seccomp: seccomp::available(),
        system: system(),
        fresh_proc: !proc_is_covered(&fs::read_to_string("/proc/self/mountinfo")?),
    })
}

/// What there is of the places that the planner knows.
fn system() -> Vec<SystemPlace> {
    let mut found = Vec::new();
    for (path, network) in SYSTEM_PLACES {
        let path = Path::new(path);
        if path == Path::new("/etc/resolv.conf") {
            let target = fs::canonicalize(path).ok().and_then(|file| place(&file, network));
            found.extend(target.filter(|target| {
                // Beside others it comes along with its directory.
                !found.iter().any(|other: &SystemPlace| target.path.starts_with(&other.path))
            }));
        } else {
            found.extend(place(path, network));
        }
    }
    found.extend(DEVICES.iter().filter_map(|path| place(Path::new(path), false)));
    let in_proc = PROC_PLACES.iter().map(|(name, ..)| Path::new("/proc").join(name));
    found.extend(in_proc.filter_map(|path| place(&path, false)));
    found
}

fn place(path: &Path, network: bool) -> Option<SystemPlace> {
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    let kind = if kind.is_symlink() {
        PlaceKind::Link(fs::read_link(path).ok()?)
    } else if kind.is_dir() {
        PlaceKind::Directory
    } else if kind.is_char_device() {
        PlaceKind::Device
    } else if kind.is_file() {
        PlaceKind::File
    } else {
        return None;
    };
    Some(SystemPlace { path: path.to_path_buf(), kind, network })
}

/// Whether something lies over a part of `/proc`, or it is read-only: then the kernel allows no other
/// one to be mounted without privilege (fs/namespace.c, `mount_too_revealing`).
fn proc_is_covered(mountinfo: &str) -> bool {
    let mut top = None;
    let mut covered = false;
    for line in mountinfo.lines() {
        // proc(5): id parent major:minor root mount-point options ... - type source super-options
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        if point == "/proc" {
            let is_proc = line.split(" - ").nth(1).is_some_and(|rest| rest.starts_with("proc "));
            top = Some(is_proc && !options.split(',').any(|option| option == "ro"));
        }
        let below = PathBuf::from(point).starts_with("/proc") && point != "/proc";
        covered |= below && !EMPTY_IN_PROC.contains(&point);
    }
    covered || top != Some(true)
}

#[cfg(test)]
mod tests {
    use super::{PlaceKind, proc_is_covered, system};
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

    #[test]
    fn the_system_is_found_as_it_is() {
        let found = system();
        let kind = |path: &str| {
            found.iter().find(|place| place.path.as_os_str() == path).map(|place| &place.kind)
        };
        assert_eq!(kind("/usr"), Some(&PlaceKind::Directory));
        assert_eq!(kind("/dev/null"), Some(&PlaceKind::Device));
        assert_eq!(kind("/proc/cmdline"), Some(&PlaceKind::File));
        for place in &found {
            let link = std::fs::read_link(&place.path).ok();
            assert_eq!(link.is_some(), matches!(place.kind, PlaceKind::Link(_)));
        }
    }

    #[test]
    fn a_proc_with_something_over_it_or_read_only_is_covered() {
        let own = "22 27 0:21 / /proc rw,relatime - proc proc rw\n";
        assert!(!proc_is_covered(own));
        let binfmt = "36 22 0:31 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n";
        assert!(!proc_is_covered(&format!("{own}{binfmt}")));
        let masked = "99 22 0:9 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw\n";
        assert!(proc_is_covered(&format!("{own}{masked}")));
        assert!(proc_is_covered("22 27 0:21 / /proc ro,relatime - proc proc rw\n"));
        assert!(proc_is_covered("22 27 0:21 / /sys rw - sysfs sysfs rw\n"), "none at all");
    }
}
