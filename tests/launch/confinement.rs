//! What an agent at level 1 may not do, and that it can do its work.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use missiond::launch::{Exit, Step};
use missiond::policy::{LandlockMode, Level, PlanRequest};

use crate::rig::{Rig, exit, started, stop, text};
use crate::support::{alone, skip_without_landlock, skip_without_seccomp};

/// A shell command that makes system call `number` and prints its errno, 0 for none.
fn errno_of(number: libc::c_long, args: &str) -> String {
    format!("perl -e '$! = 0; syscall({number}, {args}); print $!+0, \"\\n\"'")
}

#[test]
fn descriptors_from_3_up_are_closed() {
    alone("confinement::descriptors_from_3_up_are_closed", || {
        let mut rig = Rig::new();
        let script = "perl -e 'for (3..200) { open(F, \"<&=$_\") and print \"$_ \"; print 0+$! if $! != 9 }'";
        for level in [Level::None, Level::Process] {
            let spec = rig.spec(level, &["sh", "-c", script]);
            assert_eq!(text(&rig.run(&spec)), "", "something else than EBADF at {level}");
        }
    });
}

#[test]
fn the_environment_is_exactly_what_the_spec_says() {
    alone("confinement::the_environment_is_exactly_what_the_spec_says", || {
        let mut rig = Rig::new();
        let mut spec = rig.spec(Level::Process, &["/usr/bin/env", "-0"]);
        spec.environment.push(("GIVEN".into(), "a\nb".into()));
        let expected: String =
            spec.environment.iter().map(|(name, value)| format!("{name}={value}\0")).collect();
        assert_eq!(text(&rig.run(&spec)), expected);
        let names: Vec<&str> = spec.environment.iter().map(|(name, _)| name.as_str()).collect();
        assert!(!names.contains(&"MISSIOND_REQUIRE") && !names.contains(&"LD_PRELOAD"));
    });
}

#[test]
fn a_spec_does_not_show_values_in_its_debug_form() {
    let mut shown = String::new();
    alone("confinement::a_spec_does_not_show_values_in_its_debug_form", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("true");
        spec.environment.push(("API_KEY".into(), "hush".into()));
        shown = format!("{spec:?}");
        assert!(shown.contains("API_KEY") && !shown.contains("hush"), "{shown}");
    });
}

#[test]
fn no_new_privs_a_session_of_its_own_and_no_terminal() {
    alone("confinement::no_new_privs_a_session_of_its_own_and_no_terminal", || {
        let mut rig = Rig::new();
        assert_eq!(rig.output("grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t1");
        let out = rig
            .output("set -- $(cut -d' ' -f1,5,6 /proc/$$/stat); echo $(($1 == $2)) $(($1 == $3))");
        assert_eq!(out, "1 1", "leader of its own group and session");
        let out = rig.output("perl -e 'open(T, \"+</dev/tty\") or print 0+$!'");
        assert_eq!(out, libc::ENXIO.to_string());
    });
}

#[test]
fn no_capability_is_left_even_for_root() {
    alone("confinement::no_capability_is_left_even_for_root", || {
        let mut rig = Rig::new();
        let out =
            rig.output("grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status | cut -f2 | sort -u");
        assert_eq!(out, "0000000000000000");
        if rig.facts.root {
            let out = rig.output("grep CapBnd /proc/self/status | cut -f2");
            assert_eq!(out, "0000000000000000");
        }
    });
}

#[test]
fn signals_are_neither_blocked_nor_ignored() {
    alone("confinement::signals_are_neither_blocked_nor_ignored", || {
        let mut rig = Rig::new();
        let out = rig.output("grep -E '^Sig(Blk|Ign)' /proc/self/status");
        assert_eq!(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000");
    });
}

#[test]
fn limits_hold_and_cannot_be_raised() {
    alone("confinement::limits_hold_and_cannot_be_raised", || {
        let mut rig = Rig::new();
        let pids = rig.facts.uid_tasks + 200;
        let out = rig.output("ulimit -Hc; ulimit -Hn; grep processes /proc/self/limits");
        let lines: Vec<_> = out.lines().collect();
        let nofile = 4096.min(rig.facts.nofile_soft / 2);
        // The shell counts cores in blocks of 512 bytes.
        assert_eq!(lines[..2], ["0", &nofile.to_string()]);
        let words: Vec<_> = lines[2].split_whitespace().collect();
        assert_eq!(words[2..4], [pids.to_string(), pids.to_string()]);
        if !rig.facts.root {
            assert_eq!(rig.output("ulimit -Hn 100000 2>/dev/null || echo refused"), "refused");
        }
    });
}

#[test]
fn files_outside_are_closed_and_its_own_directories_work() {
    const NAME: &str = "confinement::files_outside_are_closed_and_its_own_directories_work";
    alone(NAME, || {
        if skip_without_landlock(NAME, 3) {
            return;
        }
        let mut rig = Rig::new();
        let outside = rig.path("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        let secret = outside.join("secret").display().to_string();
        let denied = |script: String| format!("({script}) 2>/dev/null && echo open || echo shut");
        for script in [
            format!("cat {secret}"),
            format!("echo x > {secret}"),
            format!("perl -e 'truncate(\"{secret}\", 0) or exit 1'"),
            format!("echo x > {}/new", outside.display()),
            format!("ln {secret} \"$HOME/link\""),
            format!("mv {secret} \"$HOME/moved\""),
            format!("ln -s {secret} sym && cat sym"),
            format!("ls {}", rig.path("log").display()),
            format!("echo x >> {}/stdout.log", rig.path("log").display()),
            "ls /home /root".into(),
            "echo x > /tmp/missiond-outside-$$".into(),
            "echo x > /proc/self/oom_score_adj".into(),
            "echo x > /dev/pts/0".into(),
        ] {
            assert_eq!(rig.output(&denied(script.clone())), "shut", "{script}");
        }
        assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "secret");
        let out = rig.output(
            "set -e; cd \"$HOME\"; mkdir a b; echo x > a/f; mv a/f b/f; ln b/f a/g; : > b/f
            echo y > \"$TMPDIR/t\"; mv \"$TMPDIR/t\" b/t; mkfifo p; rm -r a b p
            echo w > \"$OLDPWD/w\"; cat \"$OLDPWD/w\" /etc/hostname > /dev/null; echo done",
        );
        assert_eq!(out, "done");
    });
}

#[test]
fn a_reading_role_reads_the_workspace_and_cannot_change_it() {
    const NAME: &str = "confinement::a_reading_role_reads_the_workspace_and_cannot_change_it";
    alone(NAME, || {
        if skip_without_landlock(NAME, 3) {
            return;
        }
        let mut rig = Rig::new();
        std::fs::write(rig.path("workspace").join("file"), "text\n").unwrap();
        let request = PlanRequest { workspace_write: false, ..rig.request(Level::Process) };
        let script = "cat file; for c in 'echo x > file' 'echo x > new' 'rm file' 'mv file g' 'mkdir d' \
            ': > file' 'mv file \"$HOME/f\"'; do (eval \"$c\") 2>/dev/null && echo \"open: $c\"; done; cp file ~/f";
        let spec = rig.spec_for(&request, &["sh", "-c", script]);
        let end = rig.run(&spec);
        assert_eq!((text(&end), end.how), ("text".into(), missiond::sys::process::End::Exited(0)));
        assert_eq!(std::fs::read_to_string(rig.path("workspace").join("file")).unwrap(), "text\n");
    });
}

#[test]
fn a_granted_directory_reached_through_a_symbolic_link_fails_at_landlock() {
    const NAME: &str =
        "confinement::a_granted_directory_reached_through_a_symbolic_link_fails_at_landlock";
    alone(NAME, || {
        if skip_without_landlock(NAME, 1) {
            return;
        }
        let mut rig = Rig::new();
        std::os::unix::fs::symlink("/", rig.path("link")).unwrap();
        for (name, errno) in [("link", libc::ELOOP), ("missing", libc::ENOENT)] {
            let mut request = rig.request(Level::Process);
            request.roots.extra_write = vec![rig.path(name)];
            let spec = rig.spec_for(&request, &["true"]);
            let mut handle = rig.start(&spec);
            let detail = rig.path(name).display().to_string();
            let expected = Exit::SetupFailed { step: Step::Landlock, errno, detail };
            assert_eq!(exit(&mut handle), expected);
        }
    });
}

/// A process of the same user that has nothing to do with missiond.
struct Stranger(std::process::Child);

impl Stranger {
    fn new() -> Self {
        use std::process::{Command, Stdio};
        let null = Stdio::null;
        Self(Command::new("sleep").arg("1000").stdout(null()).stderr(null()).spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one agent does to a process: a name, a call that acts on `PID`, and the errnos allowed.
fn attacks(pid: u32) -> Vec<(&'static str, String, &'static [i32])> {
    const REFUSED: &[i32] = &[libc::EPERM, libc::ESRCH];
    const READ: &[i32] = &[libc::EPERM, libc::ESRCH, libc::EACCES, libc::ENOENT];
    let open = |name: &str| {
        format!(
            "perl -e 'open(F, \"</proc/{pid}/{name}\") and sysread(F, $b, 1); print $!+0, \"\\n\"'"
        )
    };
    let pidfd_getfd = format!(
        "perl -e '$f = syscall({}, {pid}, 0); $! = 0; syscall({}, $f, 0, 0); print $!+0, \"\\n\"'",
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd
    );
    // An address that isn't mapped: EFAULT where it is allowed.
    let vm_read = format!(
        "perl -e '$b = \"x\" x 8; $l = pack(\"QQ\", unpack(\"Q\", pack(\"p\", $b)), 8);
            $r = pack(\"QQ\", 4096, 8); $! = 0;
            syscall({}, {pid}, $l, 1, $r, 1, 0); print $!+0, \"\\n\"'",
        libc::SYS_process_vm_readv
    );
    vec![
        ("kill", errno_of(libc::SYS_kill, &format!("{pid}, 0")), REFUSED),
        ("tgkill", errno_of(libc::SYS_tgkill, &format!("{pid}, {pid}, 19")), REFUSED),
        ("ptrace", errno_of(libc::SYS_ptrace, &format!("16, {pid}, 0, 0")), REFUSED),
        ("pidfd_getfd", pidfd_getfd, REFUSED),
        ("process_vm_readv", vm_read, REFUSED),
        ("environ", open("environ"), READ),
        ("mem", open("mem"), READ),
        ("maps", open("maps"), READ),
        ("prlimit", errno_of(libc::SYS_prlimit64, &format!("{pid}, 0, 0, 0")), REFUSED),
        (
            "sched_setaffinity",
            format!(
                "perl -e '$m = chr(255) x 128; $! = 0; syscall({}, {pid}, 128, $m); print $!+0, \"\\n\"'",
                libc::SYS_sched_setaffinity
            ),
            REFUSED,
        ),
        ("setpriority", errno_of(libc::SYS_setpriority, &format!("0, {pid}, 19")), REFUSED),
        ("ioprio_set", errno_of(libc::SYS_ioprio_set, &format!("1, {pid}, 0")), REFUSED),
    ]
}

#[test]
fn daemon_launcher_shim_sibling_and_strangers_are_out_of_reach() {
    const NAME: &str = "confinement::daemon_launcher_shim_sibling_and_strangers_are_out_of_reach";
    alone(NAME, || {
        if skip_without_landlock(NAME, 6) || skip_without_seccomp(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let sibling_spec =
            missiond::launch::LaunchSpec { lock: None, ..rig.shell("exec sleep 1000") };
        let mut sibling = rig.start(&sibling_spec);
        let sibling_pid = started(&mut sibling);
        let stranger = Stranger::new();
        let targets = [
            ("daemon", std::process::id()),
            ("launcher", rig.launcher.pid()),
            ("shim of a sibling", sibling.shim().unwrap().pid),
            ("sibling", sibling_pid),
            ("stranger", stranger.0.id()),
        ];
        for (whom, pid) in targets {
            let attacks = attacks(pid);
            let script: String =
                attacks.iter().map(|(_, script, _)| format!("{script};")).collect();
            let out = rig.output(&script);
            let answers: Vec<i32> = out.lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!(answers.len(), attacks.len(), "{out}");
            for ((name, _, allowed), answer) in attacks.iter().zip(answers) {
                assert!(allowed.contains(&answer), "{name} on the {whom}: errno {answer}");
            }
        }
        // Its own shim as well, whose number every agent has.
        let kill = format!("$! = 0; syscall({}, getppid, 9); print $!+0", libc::SYS_kill);
        let spec = rig.spec(Level::Process, &["perl", "-e", &kill]);
        assert_eq!(text(&rig.run(&spec)), libc::EPERM.to_string());
        stop(&mut sibling, std::time::Duration::ZERO);
    });
}

#[test]
fn the_attacks_work_where_nothing_forbids_them() {
    // The test above would prove nothing if its attacks failed anyway.
    alone("confinement::the_attacks_work_where_nothing_forbids_them", || {
        let mut rig = Rig::new();
        let stranger = Stranger::new();
        let attacks = attacks(stranger.0.id());
        for (name, script, _) in attacks {
            if ["tgkill", "ptrace", "pidfd_getfd", "mem"].contains(&name) {
                continue;
            }
            let spec = rig.spec(Level::None, &["sh", "-c", &script]);
            let allowed = if name == "process_vm_readv" { libc::EFAULT } else { 0 };
            assert_eq!(text(&rig.run(&spec)), allowed.to_string(), "{name}");
        }
    });
}

#[test]
fn terminal_injection_and_foreign_tables_are_refused() {
    const NAME: &str = "confinement::terminal_injection_and_foreign_tables_are_refused";
    alone(NAME, || {
        if skip_without_seccomp(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let tiocsti = u64::from(missiond::policy::seccomp::TIOCSTI);
        for request in [tiocsti, tiocsti | 1 << 32, 0x541C] {
            // On a file that is no terminal the kernel itself would say ENOTTY.
            let out = rig.output(&errno_of(libc::SYS_ioctl, &format!("0, {request}, 0")));
            assert_eq!(out, libc::EPERM.to_string());
        }
        let out = rig.output(&errno_of(libc::SYS_ioctl, "0, 0x5401, 0"));
        assert_eq!(out, libc::ENOTTY.to_string(), "others pass");
        if cfg!(target_arch = "x86_64") {
            let out = rig.output(&errno_of(0x4000_0000 + libc::SYS_getpid, "0"));
            assert_eq!(out, libc::ENOSYS.to_string(), "x32");
        }
    });
}

#[test]
fn scope_only_leaves_files_open_and_processes_shut() {
    const NAME: &str = "confinement::scope_only_leaves_files_open_and_processes_shut";
    alone(NAME, || {
        if skip_without_landlock(NAME, 6) {
            return;
        }
        let mut rig = Rig::new();
        let file = rig.path("outside");
        let request =
            PlanRequest { landlock: LandlockMode::ScopeOnly, ..rig.request(Level::Process) };
        let script = format!(
            "echo x > {}; kill -0 {} 2>/dev/null || echo shut",
            file.display(),
            std::process::id()
        );
        let spec = rig.spec_for(&request, &["sh", "-c", &script]);
        assert_eq!(text(&rig.run(&spec)), "shut");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "x\n");
    });
}

#[test]
fn an_abstract_socket_outside_cannot_be_connected_to() {
    const NAME: &str = "confinement::an_abstract_socket_outside_cannot_be_connected_to";
    alone(NAME, || {
        use std::os::linux::net::SocketAddrExt;
        if skip_without_landlock(NAME, 6) {
            return;
        }
        let name = format!("missiond-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        let mut rig = Rig::new();
        let script = format!(
            "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0);
                connect(S, pack(\"S a*\", 1, \"\\0{name}\")) ? print \"open\" : print 0+$!'"
        );
        assert_eq!(rig.output(&script), libc::EPERM.to_string());
        let spec = rig.spec(Level::None, &["sh", "-c", &script]);
        assert_eq!(text(&rig.run(&spec)), "open", "without level 1 it can be");
    });
}

#[test]
fn ordinary_programs_work() {
    alone("confinement::ordinary_programs_work", || {
        let mut rig = Rig::new();
        let out = rig.output(
            "set -e
            perl -e 'setpriority(0, 0, 19); print getpriority(0, 0), \"\\n\"'
            nice -n 1 true
            ls /usr > /dev/null
            printf 'b\\na\\n' | sort | tar -cf - -T /dev/null > t.tar
            id -u > /dev/null
            echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin < /etc/hostname > /dev/null
            echo hi > /dev/null; head -c 4 /dev/urandom > /dev/null
            perl -e 'use threads; threads->create(sub { print \"thread\\n\" })->join' 2>/dev/null || echo thread
            mktemp > /dev/null
            echo done",
        );
        assert_eq!(out, "19\nout\nthread\ndone");
    });
}
