//! System calls that an agent at level 2 doesn't get.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use crate::deed::{Deed, Kept, answer};
use crate::puppet::Puppet;
use crate::raw::Arg;
use crate::stage::{Daemon, Stage};
use crate::support::skip_without_seccomp;

const ENOSYS: i32 = libc::ENOSYS;
const EPERM: i32 = libc::EPERM;

fn one_agent() -> (Stage, Puppet, Daemon) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let daemon = stage.start();
    agent.ready();
    (stage, agent, daemon)
}

fn ints(numbers: &[u64]) -> Vec<Arg> {
    numbers.iter().map(|number| Arg::Int(*number)).collect()
}

fn text(text: &str) -> Arg {
    Arg::Text(text.into())
}

/// Each call gets one of these errors, directly and in a process of its own.
fn refused(agent: &mut Puppet, calls: Vec<(&str, i64, Vec<Arg>)>, errors: &[i32]) {
    for (name, number, args) in calls {
        let call = Deed::Call(number, args);
        for deed in [Deed::InChild(Box::new(call.clone())), Deed::Orphan(Box::new(call.clone()))] {
            let answer = agent.act(&deed);
            assert!(errors.contains(&answer.errno), "{name}: {answer:?}");
        }
    }
}

pub(crate) fn input_cannot_be_put_into_a_terminal(name: &str) {
    if skip_without_seccomp(name) {
        return;
    }
    // Outside it is the kernel's own answer: done, or EIO where the whole thing is switched off.
    let outside = answer(&Deed::Terminal(libc::TIOCSTI), &mut Kept::default());
    assert_ne!(outside.errno, EPERM, "outside it is refused as well: {outside:?}");
    let (_stage, mut agent, mut daemon) = one_agent();
    const TIOCLINUX: u64 = 0x541C;
    for request in [libc::TIOCSTI, libc::TIOCSTI | 1 << 32, TIOCLINUX, TIOCLINUX | 1 << 63] {
        let answer = agent.act(&Deed::Terminal(request));
        assert_eq!(answer.errno, EPERM, "request {request:#x}: {answer:?}");
    }
    daemon.stop();
}

pub(crate) fn no_namespace_is_made_and_threads_still_work(name: &str) {
    if skip_without_seccomp(name) {
        return;
    }
    let (_stage, mut agent, mut daemon) = one_agent();
    let new_user = libc::CLONE_NEWUSER.cast_unsigned();
    let flags = |flags: u32| ints(&[u64::from(flags)]);
    refused(
        &mut agent,
        vec![
            ("unshare", libc::SYS_unshare, flags(new_user)),
            ("unshare of mounts", libc::SYS_unshare, flags(libc::CLONE_NEWNS.cast_unsigned())),
            ("clone", libc::SYS_clone, flags(new_user | libc::SIGCHLD.cast_unsigned())),
        ],
        &[EPERM, libc::ENOSPC],
    );
    let mut args = vec![0; 88];
    args[..8].copy_from_slice(&u64::from(new_user).to_le_bytes());
    let clone3 = vec![Arg::Bytes(args), Arg::Int(88)];
    refused(&mut agent, vec![("clone3", libc::SYS_clone3, clone3)], &[ENOSYS]);
    assert_eq!(agent.text(&Deed::Thread), "ran");
    daemon.stop();
}

pub(crate) fn nothing_is_mounted(name: &str) {
    if skip_without_seccomp(name) {
        return;
    }
    let (stage, mut agent, mut daemon) = one_agent();
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let inside = agent.text(&Deed::Read("/proc/self/mountinfo".into()));
    let none = || Arg::Int(0);
    let here = stage.path("ws").display().to_string();
    refused(
        &mut agent,
        vec![
            (
                "mount",
                libc::SYS_mount,
                vec![text("none"), text(&here), text("tmpfs"), none(), none()],
            ),
            ("umount2", libc::SYS_umount2, vec![text("/tmp"), none()]),
            ("pivot_root", libc::SYS_pivot_root, vec![text("/tmp"), text("/tmp")]),
            ("chroot", libc::SYS_chroot, vec![text("/tmp")]),
            ("fsopen", libc::SYS_fsopen, vec![text("tmpfs"), none()]),
            ("fsmount", libc::SYS_fsmount, ints(&[0, 0, 0])),
            (
                "open_tree",
                libc::SYS_open_tree,
                vec![Arg::Int(-100_i64 as u64), text("/"), Arg::Int(1)],
            ),
            (
                "move_mount",
                libc::SYS_move_mount,
                vec![
                    Arg::Int(-100_i64 as u64),
                    text("/tmp"),
                    Arg::Int(-100_i64 as u64),
                    text("/dev"),
                    none(),
                ],
            ),
            (
                "mount_setattr",
                libc::SYS_mount_setattr,
                vec![
                    Arg::Int(-100_i64 as u64),
                    text("/"),
                    none(),
                    Arg::Bytes(vec![0; 32]),
                    Arg::Int(32),
                ],
            ),
        ],
        &[EPERM],
    );
    assert_eq!(agent.text(&Deed::Read("/proc/self/mountinfo".into())), inside);
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    daemon.stop();
}

pub(crate) fn dangerous_parts_of_the_kernel_are_shut(name: &str) {
    if skip_without_seccomp(name) {
        return;
    }
    let (_stage, mut agent, mut daemon) = one_agent();
    let zeros = |length| Arg::Bytes(vec![0; length]);
    refused(
        &mut agent,
        vec![("io_uring_setup", libc::SYS_io_uring_setup, vec![Arg::Int(1), zeros(120)])],
        &[EPERM, ENOSYS],
    );
    refused(
        &mut agent,
        vec![
            ("bpf", libc::SYS_bpf, vec![Arg::Int(0), zeros(128), Arg::Int(128)]),
            (
                "perf_event_open",
                libc::SYS_perf_event_open,
                vec![zeros(128), Arg::Int(0), Arg::Int(0), Arg::Int(u64::MAX), Arg::Int(0)],
            ),
            ("userfaultfd", libc::SYS_userfaultfd, ints(&[1])),
            ("kexec_load", libc::SYS_kexec_load, ints(&[0, 0, 0, 0])),
            ("init_module", libc::SYS_init_module, vec![zeros(8), Arg::Int(8), text("")]),
            ("finit_module", libc::SYS_finit_module, vec![Arg::Int(0), text(""), Arg::Int(0)]),
            ("keyctl", libc::SYS_keyctl, ints(&[0, 0, 0])),
            (
                "add_key",
                libc::SYS_add_key,
                vec![text("user"), text("x"), text("y"), Arg::Int(1), Arg::Int(-3_i64 as u64)],
            ),
            (
                "request_key",
                libc::SYS_request_key,
                vec![text("user"), text("x"), Arg::Int(0), Arg::Int(-3_i64 as u64)],
            ),
        ],
        &[EPERM],
    );
    daemon.stop();
}

pub(crate) fn tables_of_other_machines_are_shut(name: &str) {
    if skip_without_seccomp(name) {
        return;
    }
    let (_stage, mut agent, mut daemon) = one_agent();
    let killed = 1000 + libc::SIGSYS;
    let by_gate = agent.act(&Deed::InChild(Box::new(Deed::Int80)));
    assert!(
        [ENOSYS, killed, 1000 + libc::SIGSEGV].contains(&by_gate.errno),
        "int 0x80: {by_gate:?}"
    );
    const X32: i64 = 0x4000_0000;
    for number in [libc::SYS_getpid, libc::SYS_openat, 512, 520, 547] {
        let call = Deed::Call(X32 | number, ints(&[0; 6]));
        let answer = agent.act(&Deed::InChild(Box::new(call)));
        assert!([ENOSYS, killed].contains(&answer.errno), "x32 {number}: {answer:?}");
    }
    daemon.stop();
}

pub(crate) fn what_changes_the_machine_is_refused(name: &str) {
    if skip_without_seccomp(name) {
        return;
    }
    let (_stage, mut agent, mut daemon) = one_agent();
    let zeros = |length| Arg::Bytes(vec![0; length]);
    const READ_IMPLIES_EXEC: u64 = 0x0040_0000;
    let hostname = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let before = hostname();
    refused(
        &mut agent,
        vec![
            ("personality", libc::SYS_personality, ints(&[READ_IMPLIES_EXEC])),
            (
                "open_by_handle_at",
                libc::SYS_open_by_handle_at,
                vec![Arg::Int(0), zeros(136), Arg::Int(0)],
            ),
            (
                "name_to_handle_at",
                libc::SYS_name_to_handle_at,
                vec![Arg::Int(-100_i64 as u64), text("/usr"), zeros(136), zeros(8), Arg::Int(0)],
            ),
            ("sethostname", libc::SYS_sethostname, vec![text("owned"), Arg::Int(5)]),
            ("setdomainname", libc::SYS_setdomainname, vec![text("owned"), Arg::Int(5)]),
            ("syslog", libc::SYS_syslog, vec![Arg::Int(3), zeros(64), Arg::Int(64)]),
            ("clock_settime", libc::SYS_clock_settime, ints(&[0, 0])),
            ("settimeofday", libc::SYS_settimeofday, ints(&[0, 0])),
            ("setns", libc::SYS_setns, ints(&[0, 0])),
            ("reboot", libc::SYS_reboot, ints(&[0, 0, 0, 0])),
            ("swapon", libc::SYS_swapon, vec![text("/nowhere"), Arg::Int(0)]),
            ("swapoff", libc::SYS_swapoff, vec![text("/nowhere")]),
            (
                "quotactl",
                libc::SYS_quotactl,
                vec![Arg::Int(0), text("/nowhere"), Arg::Int(0), zeros(8)],
            ),
            ("acct", libc::SYS_acct, ints(&[0])),
        ],
        &[EPERM],
    );
    // What programs need of it stays: asking, and going back to the default.
    agent.text(&Deed::Call(libc::SYS_personality, ints(&[0xffff_ffff])));
    assert_eq!(hostname(), before);
    daemon.stop();
}

pub(crate) fn exotic_sockets_are_refused(name: &str) {
    if skip_without_seccomp(name) {
        return;
    }
    let (_stage, mut agent, mut daemon) = one_agent();
    let socket = |family: i32, kind: i32, protocol: u64| {
        let (family, kind) = (family.cast_unsigned(), kind.cast_unsigned());
        ints(&[u64::from(family), u64::from(kind), protocol])
    };
    const NETFILTER: u64 = 12;
    const ICMP: u64 = 1;
    let call = libc::SYS_socket;
    refused(
        &mut agent,
        vec![
            ("vsock", call, socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
            ("packet", call, socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
            ("crypto", call, socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
            ("netfilter", call, socket(libc::AF_NETLINK, libc::SOCK_RAW, NETFILTER)),
            ("raw", call, socket(libc::AF_INET, libc::SOCK_RAW, ICMP)),
            ("raw 6", call, socket(libc::AF_INET6, libc::SOCK_RAW, 58)),
            ("bluetooth", call, socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 0)),
        ],
        &[EPERM, libc::EAFNOSUPPORT],
    );
    // Those that programs use are there.
    for (family, kind, protocol) in [
        (libc::AF_UNIX, libc::SOCK_STREAM, 0),
        (libc::AF_INET, libc::SOCK_STREAM, 0),
        (libc::AF_INET6, libc::SOCK_DGRAM, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, 0),
    ] {
        agent.text(&Deed::Call(call, socket(family, kind, protocol)));
    }
    daemon.stop();
}

pub(crate) fn its_own_limits_stay(name: &str) {
    if skip_without_seccomp(name) {
        return;
    }
    let (_stage, mut agent, mut daemon) = one_agent();
    let limits = agent.text(&Deed::Read("/proc/self/limits".into()));
    let status = agent.text(&Deed::Read("/proc/self/status".into()));
    let unlimited = || Arg::Bytes(vec![0xff; 16]);
    let calls = [libc::RLIMIT_NOFILE, libc::RLIMIT_NPROC, libc::RLIMIT_CORE].map(|resource| {
        let args = vec![Arg::Int(0), Arg::Int(u64::from(resource)), unlimited(), Arg::Int(0)];
        ("prlimit64", libc::SYS_prlimit64, args)
    });
    refused(&mut agent, calls.into(), &[EPERM]);
    // There is no call that takes these away; asking is an error.
    const PR_SET_SECCOMP: u64 = 22;
    const PR_SET_NO_NEW_PRIVS: u64 = 38;
    const PR_CAPBSET_READ_ALL: u64 = 47;
    refused(
        &mut agent,
        vec![
            ("seccomp off", libc::SYS_prctl, ints(&[PR_SET_SECCOMP, 0, 0, 0, 0])),
            ("no_new_privs off", libc::SYS_prctl, ints(&[PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0])),
            ("ambient capability", libc::SYS_prctl, ints(&[PR_CAPBSET_READ_ALL, 2, 21, 0, 0])),
        ],
        &[EPERM, libc::EINVAL],
    );
    let procs = agent.errno(&Deed::Write("/sys/fs/cgroup/cgroup.procs".into(), "0".into()));
    assert!([libc::ENOENT, libc::EACCES, libc::EROFS, EPERM].contains(&procs), "{procs}");
    assert_eq!(agent.text(&Deed::Read("/proc/self/limits".into())), limits);
    let now = agent.text(&Deed::Read("/proc/self/status".into()));
    for field in ["Seccomp:", "NoNewPrivs:", "CapEff:"] {
        let line = |text: &str| text.lines().find(|l| l.starts_with(field)).map(str::to_owned);
        assert_eq!(line(&now), line(&status), "{field}");
    }
    assert!(status.contains("Seccomp:\t2\n") && status.contains("NoNewPrivs:\t1\n"), "{status}");
    daemon.stop();
}
