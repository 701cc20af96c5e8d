//! What a level-2 agent is, and that it ends as any other.
use std::collections::BTreeSet;
use std::time::Duration;

use missiond::launch::{Command, Exit, LaunchSpec, Report, sweep};
use missiond::sys::{process, procfs};

use crate::rig::{Rig, ended, exit, gone_within, next, now, started, stop, survivors, text};
use crate::stage::{Bell, output, skip_without_userns, spec};
use crate::support::alone;

fn shell(rig: &mut Rig, script: &str) -> LaunchSpec {
    spec(rig, &["sh", "-c", script])
}

#[test]
fn every_namespace_but_time_is_its_own() {
    const NAME: &str = "world::every_namespace_but_time_is_its_own";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let script = "for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
        let out = output(&mut rig, script);
        let inside: BTreeSet<&str> = out.lines().collect();
        assert_eq!(inside.len(), 7);
        for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert!(!inside.contains(outside.to_str().unwrap()), "{name} is shared");
        }
    });
}

#[test]
fn its_user_and_group_are_the_only_ones_mapped() {
    const NAME: &str = "world::its_user_and_group_are_the_only_ones_mapped";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let script = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u; id -g";
        let out = output(&mut rig, script);
        let words: Vec<&str> = out.split_whitespace().collect();
        let uid = nix::unistd::getuid().to_string();
        let gid = nix::unistd::getgid().to_string();
        assert_eq!(words, [&uid, &uid, "1", &gid, &gid, "1", "deny", &uid, &gid]);
    });
}

#[test]
fn neither_it_nor_its_init_has_a_capability_or_a_way_to_any() {
    const NAME: &str = "world::neither_it_nor_its_init_has_a_capability_or_a_way_to_any";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let script = "grep -hE '^(Cap|NoNewPrivs)' /proc/self/status /proc/1/status";
        let out = output(&mut rig, script);
        let sets: Vec<Vec<&str>> = out.lines().map(|line| line.split(":\t").collect()).collect();
        assert_eq!(sets.len(), 12, "five sets and no_new_privs, twice: {out}");
        for set in sets {
            let expected = if set[0] == "NoNewPrivs" { "1" } else { "0000000000000000" };
            assert_eq!(set[1], expected, "{}", set[0]);
        }
    });
}

#[test]
fn its_init_shows_nothing_and_cannot_be_signalled_from_inside() {
    const NAME: &str = "world::its_init_shows_nothing_and_cannot_be_signalled_from_inside";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let out = output(
            &mut rig,
            "for f in environ maps; do cat /proc/1/$f >/dev/null 2>&1 && echo open $f; done
            for f in fd cwd root exe; do ls /proc/1/$f/ >/dev/null 2>&1 && echo open $f; done
            for s in KILL STOP TERM SEGV; do kill -$s 1 2>/dev/null; done
            cat /proc/1/comm",
        );
        assert_eq!(out, "missiond-init");
    });
}

#[test]
fn it_sees_only_its_own_processes() {
    const NAME: &str = "world::it_sees_only_its_own_processes";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let out = output(&mut rig, "echo /proc/[0-9]*; echo $$ $PPID");
        assert_eq!(out, "/proc/1 /proc/2\n2 1");
    });
}

#[test]
fn its_network_is_a_loopback_device_that_works() {
    const NAME: &str = "world::its_network_is_a_loopback_device_that_works";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        // Something listens outside: it must not be reached.
        let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = outside.local_addr().unwrap().port();
        let out = output(
            &mut rig,
            &format!(
                "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '
                perl -MIO::Socket::INET -e '
                    my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1\") or die;
                    print IO::Socket::INET->new(PeerAddr => \"127.0.0.1\", PeerPort => $l->sockport) ? \"own\\n\" : \"$!\\n\";
                    print IO::Socket::INET->new(PeerAddr => \"127.0.0.1\", PeerPort => {port}) ? \"open\\n\" : \"shut\\n\";
                    print IO::Socket::INET->new(PeerAddr => \"192.0.2.1\", PeerPort => 80) ? \"open\\n\" : 0+$!'"
            ),
        );
        assert_eq!(out, format!("lo\nown\nshut\n{}", libc::ENETUNREACH));
    });
}

#[test]
fn the_machine_has_the_planned_name_inside_only() {
    const NAME: &str = "world::the_machine_has_the_planned_name_inside_only";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let before = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let mut spec = shell(&mut rig, "cat /proc/sys/kernel/hostname");
        spec.plan.sandbox.as_mut().unwrap().hostname = "inside-7".into();
        assert_eq!(text(&rig.run(&spec)), "inside-7");
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
    });
}

#[test]
fn no_namespace_can_be_made_inside_unless_planned() {
    const NAME: &str = "world::no_namespace_can_be_made_inside_unless_planned";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        for (most, expected) in [(0, "no"), (4, "yes")] {
            let mut spec = shell(
                &mut rig,
                "unshare -U true 2>/dev/null && echo yes || echo no
                cat /proc/sys/user/max_user_namespaces /proc/sys/user/max_inotify_instances
                (echo 99 > /proc/sys/user/max_user_namespaces) 2>/dev/null && echo raised",
            );
            spec.plan.seccomp.clear();
            spec.plan.landlock = None;
            let sandbox = spec.plan.sandbox.as_mut().unwrap();
            (sandbox.user_namespaces, sandbox.inotify_instances) = (most, 7);
            assert_eq!(text(&rig.run(&spec)), format!("{expected}\n{most}\n7"));
        }
    });
}

#[test]
fn it_has_no_terminal_no_signal_blocked_and_no_descriptor_from_3_up() {
    const NAME: &str = "world::it_has_no_terminal_no_signal_blocked_and_no_descriptor_from_3_up";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let out = output(
            &mut rig,
            "grep -hE '^Sig(Blk|Ign)' /proc/self/status | cut -f2 | sort -u
            cut -d' ' -f1,5,6 /proc/$$/stat
            perl -e 'for (3..200) { open(F, \"<&=$_\") and print \"$_ \" }
                open(T, \"+</dev/tty\") or print 0+$!'; umask",
        );
        let umask = std::process::Command::new("sh").args(["-c", "umask"]).output().unwrap().stdout;
        let umask = String::from_utf8(umask).unwrap();
        assert_eq!(out, format!("0000000000000000\n2 2 2\n{}{}", libc::ENXIO, umask.trim()));
    });
}

#[test]
fn exit_codes_and_signals_pass_through() {
    const NAME: &str = "world::exit_codes_and_signals_pass_through";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        for (script, expected) in [
            ("exit 0", Exit::Exited(0)),
            ("exit 255", Exit::Exited(255)),
            ("kill -9 $$", Exit::Signaled(9)),
            ("kill -SEGV $$", Exit::Signaled(11)),
        ] {
            let spec = shell(&mut rig, script);
            let mut handle = rig.start(&spec);
            assert_eq!(exit(&mut handle), expected, "{script}");
        }
    });
}

#[test]
fn it_is_reported_by_its_number_outside_and_stands_below_its_shim() {
    const NAME: &str = "world::it_is_reported_by_its_number_outside_and_stands_below_its_shim";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let mut spec = spec(&mut rig, &["sleep", "1000"]);
        spec.park = true;
        let mut handle = rig.start(&spec);
        assert!(matches!(next(&mut handle), Some(Report::Forked { .. })));
        let Some(Report::Parked { payload }) = next(&mut handle) else { panic!("not parked") };
        let stat = procfs::stat(payload.pid).unwrap();
        assert_eq!(stat.start, payload.start);
        let init = procfs::stat(stat.parent).unwrap();
        assert_eq!(init.parent, handle.shim().unwrap().pid);
        handle.send(Command::Go).unwrap();
        assert_eq!(next(&mut handle), Some(Report::Started { payload }));
        let end = stop(&mut handle, Duration::from_secs(10));
        assert_eq!(end.how, process::End::Signaled(libc::SIGTERM));
    });
}

#[test]
fn what_it_leaves_is_killed_and_counted_when_it_exits() {
    const NAME: &str = "world::what_it_leaves_is_killed_and_counted_when_it_exits";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let spec = shell(&mut rig, "(setsid sleep 1000 &); sleep 1000 & exit 3");
        let mut handle = rig.start(&spec);
        let end = ended(&mut handle);
        assert_eq!((end.how, end.killed), (process::End::Exited(3), 2));
        let shim = handle.shim().unwrap().pid;
        assert!(survivors(&rig).iter().all(|stat| stat.pid == shim));
    });
}

#[test]
fn a_stop_reaches_its_group_and_then_all_of_it() {
    const NAME: &str = "world::a_stop_reaches_its_group_and_then_all_of_it";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let mut bell = Bell::new(&rig);
        let asked = "trap 'echo asked; exit 4' TERM; echo > bell; sleep 1000 & wait";
        let ignores = "trap '' TERM; (setsid sleep 1000 &); echo > bell; perl -e 'fork; fork; setpgrp; sleep 1000'";
        for (script, grace, how) in [
            (asked, Duration::from_secs(20), process::End::Exited(4)),
            (ignores, Duration::from_millis(50), process::End::Signaled(libc::SIGKILL)),
            ("sleep 1000", Duration::ZERO, process::End::Signaled(libc::SIGKILL)),
        ] {
            let spec = shell(&mut rig, script);
            let mut handle = rig.start(&spec);
            started(&mut handle);
            if script != "sleep 1000" {
                bell.rung();
            }
            let begin = now();
            let end = stop(&mut handle, grace);
            assert_eq!(end.how, how, "{script}");
            assert!(now() - begin < Duration::from_secs(5) + grace.min(Duration::from_secs(1)));
            let shim = handle.shim().unwrap().pid;
            assert!(survivors(&rig).iter().all(|stat| stat.pid == shim));
        }
    });
}

#[test]
fn a_parked_one_that_is_stopped_never_runs() {
    const NAME: &str = "world::a_parked_one_that_is_stopped_never_runs";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let mut spec = shell(&mut rig, "echo ran > ran");
        spec.park = true;
        let mut handle = rig.start(&spec);
        while !matches!(next(&mut handle), Some(Report::Parked { .. })) {}
        stop(&mut handle, Duration::from_secs(60));
        assert_eq!(handle.exit(), Some(Exit::Signaled(libc::SIGKILL)));
        assert!(!rig.path("workspace").join("ran").exists());
    });
}

#[test]
fn a_fork_bomb_ends_with_its_init() {
    const NAME: &str = "world::a_fork_bomb_ends_with_its_init";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        if rig.facts.root {
            // Limits of processes don't hold for root.
            return;
        }
        let mut bell = Bell::new(&rig);
        // Each goes on forking for as long as it may, and says when it may no more.
        let bomb = "perl -e 'while (1) { my $p = fork; if (!defined $p) { open(B, \">bell\"); print B 1; close B; sleep 1000 } }'";
        let spec = shell(&mut rig, bomb);
        let mut handle = rig.start(&spec);
        started(&mut handle);
        bell.rung();
        let begin = now();
        stop(&mut handle, Duration::ZERO);
        assert!(now() - begin < Duration::from_secs(10));
        let shim = handle.shim().unwrap().pid;
        assert!(survivors(&rig).iter().all(|stat| stat.pid == shim));
    });
}

#[test]
fn when_its_shim_is_killed_all_of_it_is() {
    const NAME: &str = "world::when_its_shim_is_killed_all_of_it_is";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let spec = shell(&mut rig, "trap '' TERM; (setsid sleep 1000 &); sleep 1000; :");
        let mut handle = rig.start(&spec);
        let payload = started(&mut handle);
        let all: Vec<_> = survivors(&rig);
        assert!(all.len() >= 3, "shim, init, payload: {all:?}");
        handle.kill().unwrap();
        assert_eq!(exit(&mut handle), Exit::Lost);
        gone_within(payload, Duration::from_secs(1));
        sweep(&rig.known(&[])).unwrap();
        assert!(survivors(&rig).is_empty());
    });
}
