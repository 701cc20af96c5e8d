//! Starts at level 2 that can't be: each fails at a named step with the kernel's errno, and leaves
//! nothing.

use std::path::Path;

use missiond::launch::{Exit, Level2, Step, probe_level_2};
use missiond::policy::Level;
use missiond::policy::sandbox::Node;

use crate::rig::{Rig, exit, survivors};
use crate::stage::{PART, as_root_of_a_host, shell_with, skip_without_userns};
use crate::support::{alone, skip};

/// System calls that fail, where in a start, and on what.
const FAULTS: [(&str, i32, Step, &str); 20] = [
    ("clone3:error=EPERM:when=1", libc::EPERM, Step::Namespaces, ""),
    ("clone3:error=ENOSPC:when=1", libc::ENOSPC, Step::Namespaces, ""),
    ("socketpair:error=EMFILE:when=1", libc::EMFILE, Step::Fork, ""),
    ("write:error=EPERM:when=1", libc::EPERM, Step::IdMap, "/proc/self/setgroups"),
    ("write:error=EPERM:when=2", libc::EPERM, Step::IdMap, "/proc/self/uid_map"),
    ("write:error=EPERM:when=3", libc::EPERM, Step::IdMap, "/proc/self/gid_map"),
    (
        "write:error=EROFS:when=4",
        libc::EROFS,
        Step::NamespaceLimits,
        "/proc/sys/user/max_user_namespaces",
    ),
    (
        "write:error=EPERM:when=5",
        libc::EPERM,
        Step::NamespaceLimits,
        "/proc/sys/user/max_inotify_instances",
    ),
    ("ioctl:error=EPERM:when=1", libc::EPERM, Step::Loopback, ""),
    ("sethostname:error=EPERM:when=1", libc::EPERM, Step::Hostname, "agent"),
    ("fsopen:error=EPERM:when=1", libc::EPERM, Step::Root, ""),
    ("open_tree:error=EMFILE:when=1", libc::EMFILE, Step::Mount, "/usr"),
    ("mount_setattr:error=EPERM:when=1", libc::EPERM, Step::Mount, "/usr"),
    ("move_mount:error=EPERM:when=2", libc::EPERM, Step::Mount, "/usr"),
    ("openat2:error=ENFILE:when=1", libc::ENFILE, Step::Mount, "/usr"),
    ("pivot_root:error=EINVAL:when=1", libc::EINVAL, Step::Pivot, ""),
    ("umount2:error=EBUSY:when=1", libc::EBUSY, Step::Pivot, ""),
    ("capset:error=EPERM:when=1", libc::EPERM, Step::Capabilities, ""),
    ("landlock_restrict_self:error=E2BIG:when=1", libc::E2BIG, Step::Landlock, ""),
    ("seccomp:error=EINVAL:when=1", libc::EINVAL, Step::Seccomp, ""),
];

#[test]
fn each_step_that_fails_is_named_and_leaves_nothing() {
    const NAME: &str = "faults::each_step_that_fails_is_named_and_leaves_nothing";
    alone(NAME, || {
        let strace = Path::new("/usr/bin/strace").exists();
        if skip_without_userns(NAME) || skip(NAME, "strace", strace, "no strace") {
            return;
        }
        let mounts = || std::fs::read_to_string("/proc/self/mountinfo");
        for (fault, errno, step, detail) in FAULTS {
            let mut rig = Rig::injecting(fault);
            let before = mounts().ok();
            let spec = rig.spec(Level::Namespaces, &["sh", "-c", "echo ran > ran"]);
            let mut handle = rig.start(&spec);
            let detail = detail.to_owned();
            assert_eq!(exit(&mut handle), Exit::SetupFailed { step, errno, detail }, "{fault}");
            let shim = handle.shim().map(|shim| shim.pid);
            let left: Vec<_> =
                survivors(&rig).into_iter().filter(|stat| Some(stat.pid) != shim).collect();
            assert!(left.is_empty(), "{fault}: {left:?}");
            assert_eq!(mounts().ok(), before, "{fault}");
            let in_workspace = std::fs::read_dir(rig.path("workspace")).map(Iterator::count);
            assert_eq!(in_workspace.ok(), Some(0), "{fault}");
        }
    });
}

#[test]
fn killed_at_any_step_it_leaves_nothing_and_is_no_success() {
    const NAME: &str = "faults::killed_at_any_step_it_leaves_nothing_and_is_no_success";
    alone(NAME, || {
        let strace = Path::new("/usr/bin/strace").exists();
        if skip_without_userns(NAME) || skip(NAME, "strace", strace, "no strace") {
            return;
        }
        for call in [
            "sethostname",
            "fsopen",
            "move_mount",
            "pivot_root",
            "capset",
            // The payload, in memory that it shares with its init.
            "landlock_create_ruleset",
            "landlock_restrict_self",
            "seccomp",
        ] {
            let mut rig = Rig::injecting(&format!("{call}:signal=KILL:when=1"));
            let spec = rig.spec(Level::Namespaces, &["sh", "-c", "echo ran > ran"]);
            let mut handle = rig.start(&spec);
            assert_eq!(exit(&mut handle), Exit::Signaled(libc::SIGKILL), "{call}");
            let shim = handle.shim().map(|shim| shim.pid);
            let left: Vec<_> =
                survivors(&rig).into_iter().filter(|stat| Some(stat.pid) != shim).collect();
            assert!(left.is_empty(), "{call}: {left:?}");
            let in_workspace = std::fs::read_dir(rig.path("workspace")).map(Iterator::count);
            assert_eq!(in_workspace.ok(), Some(0), "{call}");
        }
    });
}

#[test]
fn where_user_namespaces_are_used_up_the_start_and_the_probe_say_so() {
    const NAME: &str = "faults::where_user_namespaces_are_used_up_the_start_and_the_probe_say_so";
    alone(NAME, || {
        let used_up = "echo 0 > /proc/sys/user/max_user_namespaces";
        if std::env::var_os(PART).is_none() && skip_without_userns(NAME) {
            return;
        }
        as_root_of_a_host(NAME, used_up, || {
            let (step, errno, detail) = (Step::Namespaces, libc::ENOSPC, String::new());
            let found = probe_level_2(Path::new(env!("CARGO_BIN_EXE_missiond"))).ok();
            assert_eq!(found, Some(Level2::Fails { step, errno, detail: detail.clone() }));
            let mut rig = Rig::new();
            let spec = rig.spec(Level::Namespaces, &["true"]);
            let mut handle = rig.start(&spec);
            assert_eq!(exit(&mut handle), Exit::SetupFailed { step, errno, detail });
        });
    });
}

#[test]
fn where_proc_is_masked_its_own_is_refused_and_the_probe_knows() {
    const NAME: &str = "faults::where_proc_is_masked_its_own_is_refused_and_the_probe_knows";
    alone(NAME, || {
        if std::env::var_os(PART).is_none() && skip_without_userns(NAME) {
            return;
        }
        as_root_of_a_host(NAME, "mount -t tmpfs none /proc/irq", || {
            let found = probe_level_2(Path::new(env!("CARGO_BIN_EXE_missiond"))).ok();
            assert_eq!(found, Some(Level2::Works { own_proc: false }));
            let mut rig = Rig::new();
            assert!(!rig.facts.fresh_proc);
            let proc = Node::Proc { target: "/own/proc".into() };
            let spec = shell_with(&mut rig, [proc], "true");
            let mut handle = rig.start(&spec);
            let detail = "proc at /own/proc".to_owned();
            let expected = Exit::SetupFailed { step: Step::Mount, errno: libc::EPERM, detail };
            assert_eq!(exit(&mut handle), expected);
            // Planned without one it starts, and shows no process at all.
            let script = "ls -d /proc/[0-9]* /proc/self 2>/dev/null; echo done";
            let spec = shell_with(&mut rig, [], script);
            assert_eq!(crate::rig::text(&rig.run(&spec)), "done");
        });
    });
}
