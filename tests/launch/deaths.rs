//! Daemon, launcher and shims die in any order.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code outside of a test function"
)]

use std::io::{BufRead, BufReader};
use std::process::{Command as Program, Stdio};
use std::time::Duration;

use missiond::launch::{Command, Exit, Report, reap, sweep};
use missiond::policy::Level;
use missiond::sys::{process, procfs};

use crate::rig::{
    DEADLINE, Rig, ended, exit, gone_within, next, now, readable, started, stop, survivors,
};
use crate::support::alone;

#[test]
fn when_the_daemon_is_killed_its_agents_end_within_a_second() {
    const NAME: &str = "deaths::when_the_daemon_is_killed_its_agents_end_within_a_second";
    if std::env::var_os("MISSIOND_TEST_DAEMON").is_some() {
        return daemon_until_killed();
    }
    alone(NAME, || {
        process::become_subreaper().unwrap();
        let mut daemon = Program::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
            .env("MISSIOND_TEST_DAEMON", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let mut pids = Vec::new();
        for line in &mut lines {
            let line = line.unwrap();
            if let Some(list) = line.split("PIDS ").nth(1) {
                pids.extend(list.split(' ').map(|pid| pid.parse::<u32>().unwrap()));
                break;
            }
        }
        assert!(pids.len() >= 6, "launcher, 3 shims, payloads and children: {pids:?}");
        // Pinned before the kill: the ids may be used again afterwards.
        let pinned: Vec<_> = pids.iter().map(|&pid| (pid, process::pidfd(pid).unwrap())).collect();
        let begin = now();
        daemon.kill().unwrap();
        for (pid, pidfd) in pinned {
            readable(pidfd, &format!("the end of {pid}"));
        }
        let took = now() - begin;
        assert!(took < Duration::from_secs(1), "{took:?}");
        daemon.wait().unwrap();
        let left: Vec<_> = procfs::descendants(process::own_pid(), &|_| false)
            .unwrap()
            .into_iter()
            .filter(|stat| stat.state != b'Z')
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

fn daemon_until_killed() {
    let mut rig = Rig::new();
    let scripts = [
        "sleep 1000",
        "trap '' TERM; (setsid sleep 1000 &); sleep 1000; :",
        "perl -e 'fork; fork; setpgrp; sleep 1000'",
    ];
    let mut handles = Vec::new();
    for script in scripts {
        let spec = missiond::launch::LaunchSpec { lock: None, ..rig.shell(script) };
        let mut handle = rig.start(&spec);
        started(&mut handle);
        handles.push(handle);
    }
    let mut pids: Vec<_> = survivors(&rig).iter().map(|stat| stat.pid.to_string()).collect();
    pids.push(rig.launcher.pid().to_string());
    println!("PIDS {}", pids.join(" "));
    // Until the kill.
    readable(&handles[0], "nothing");
}

#[test]
fn an_agent_that_kills_its_shim_is_lost_and_swept() {
    alone("deaths::an_agent_that_kills_its_shim_is_lost_and_swept", || {
        let mut rig = Rig::new();
        let bystander_spec = missiond::launch::LaunchSpec { lock: None, ..rig.shell("sleep 1000") };
        let mut bystander = rig.start(&bystander_spec);
        let payload = started(&mut bystander);
        // Level none: at 1 the kernel doesn't let it.
        let script =
            "(setsid sleep 1000 &); (trap '' TERM; sleep 1000 &) ; kill -9 $PPID; sleep 1000";
        let spec = rig.spec(Level::None, &["sh", "-c", script]);
        let mut handle = rig.start(&spec);
        assert_eq!(exit(&mut handle), Exit::Lost);
        let shim = handle.shim().unwrap().pid;
        let killed = sweep(&rig.known(&[&bystander])).unwrap();
        assert!(killed >= 2, "{killed}");
        let mut kept: Vec<_> = survivors(&rig).iter().map(|stat| stat.pid).collect();
        kept.sort_unstable();
        let mut expected = vec![bystander.shim().unwrap().pid, payload];
        for stat in procfs::descendants(payload, &|_| false).unwrap() {
            expected.push(stat.pid);
        }
        expected.sort_unstable();
        assert_eq!(kept, expected, "the bystander stays, nothing else does");
        assert!(procfs::stat(shim).is_err(), "the dead shim was reaped by the sweep");
        assert_eq!(sweep(&rig.known(&[&bystander])).unwrap(), 0);
        stop(&mut bystander, Duration::ZERO);
    });
}

#[test]
fn a_shim_that_is_killed_takes_its_payload_along() {
    alone("deaths::a_shim_that_is_killed_takes_its_payload_along", || {
        let mut rig = Rig::new();
        let spec = rig.shell("exec sleep 1000");
        let mut handle = rig.start(&spec);
        let payload = started(&mut handle);
        handle.kill().unwrap();
        assert_eq!(exit(&mut handle), Exit::Lost);
        gone_within(payload, Duration::from_secs(1));
    });
}

#[test]
fn a_dead_launcher_takes_nobody_along_and_is_replaced() {
    alone("deaths::a_dead_launcher_takes_nobody_along_and_is_replaced", || {
        let mut rig = Rig::new();
        let spec = missiond::launch::LaunchSpec { lock: None, ..rig.shell("sleep 1000; exit 3") };
        let mut first = rig.start(&spec);
        started(&mut first);
        assert!(rig.launcher.alive());

        let old = rig.launcher.pid();
        let pidfd = process::pidfd(old).unwrap();
        process::signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGKILL).unwrap();
        readable(&rig.launcher, "the launcher's end");
        assert!(!rig.launcher.alive());

        let spec = missiond::launch::LaunchSpec { lock: None, ..rig.shell("exit 4") };
        let mut second = rig.start(&spec);
        assert_ne!(rig.launcher.pid(), old);
        assert_eq!(exit(&mut second), Exit::Exited(4));

        // The first still obeys, and its true end arrives.
        let end = stop(&mut first, Duration::from_secs(5));
        assert_eq!(end.how, process::End::Signaled(libc::SIGTERM));
    });
}

#[test]
fn closing_the_channel_while_parked_or_locking_ends_the_agent() {
    alone("deaths::closing_the_channel_while_parked_or_locking_ends_the_agent", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("echo ran > ran");
        spec.park = true;
        let mut parked = rig.start(&spec);
        while !matches!(next(&mut parked), Some(Report::Parked { .. })) {}
        let waiting_spec = rig.shell("true");
        let mut waiting = rig.start(&waiting_spec);
        assert!(matches!(next(&mut waiting), Some(Report::Forked { .. })));
        let pids = [
            waiting.shim().unwrap().pid,
            parked.shim().unwrap().pid,
            parked.payload().unwrap().pid,
        ];
        drop(waiting);
        drop(parked);
        for pid in pids {
            gone_within(pid, Duration::from_secs(1));
        }
        assert!(!rig.path("workspace").join("ran").exists());
    });
}

/// Descriptors of this process, and those of the launcher where they may be seen (as root).
fn open_fds(launcher: u32) -> (usize, Option<usize>) {
    let count = |dir: String| std::fs::read_dir(dir).ok().map(Iterator::count);
    (count("/proc/self/fd".into()).unwrap(), count(format!("/proc/{launcher}/fd")))
}

#[test]
fn a_hundred_starts_leave_no_descriptor_and_no_process() {
    alone("deaths::a_hundred_starts_leave_no_descriptor_and_no_process", || {
        let mut rig = Rig::new();
        // Its own /proc is readable only while it is dumpable.
        nix::sys::prctl::set_dumpable(true).unwrap();
        let launcher = rig.launcher.pid();
        // One start first: the launcher is ready when it has done it.
        let spec = rig.shell("exit 0");
        exit(&mut rig.start(&spec));
        let before = open_fds(launcher);
        let mut handles = Vec::new();
        // The limit counts the user's processes, so those of all hundred.
        let mut request = rig.request(Level::Process);
        request.limits.pids = Some(2000);
        for number in 0..100 {
            let script = format!("(setsid sleep 1000 &); cat > /dev/null; exit {number}");
            let spec = missiond::launch::LaunchSpec {
                lock: None,
                stdin: Some(b"input".to_vec()),
                ..rig.spec_for(&request, &["sh", "-c", &script])
            };
            handles.push((number, rig.start(&spec)));
        }
        let mut shims = 1;
        for (number, mut handle) in handles {
            assert_eq!(exit(&mut handle), Exit::Exited(number));
            shims += 1;
        }
        assert_eq!(open_fds(launcher), before);
        let deadline = now() + DEADLINE;
        let mut reaped = 0;
        while reaped < shims {
            assert!(now() < deadline, "{reaped} of {shims} shims reaped");
            // The channel closes a moment before the shim is dead: wait for that.
            let (pid, end) = process::reap_blocking(process::Which::Any).unwrap();
            assert_eq!(end, process::End::Exited(0), "shim {pid}");
            reaped += 1;
        }
        assert_eq!(reap().unwrap(), []);
        assert!(survivors(&rig).is_empty());
    });
}

#[test]
fn a_signal_reaches_the_payloads_group() {
    alone("deaths::a_signal_reaches_the_payloads_group", || {
        let mut rig = Rig::new();
        let spec = rig.shell("exec sleep 1000");
        let mut handle = rig.start(&spec);
        started(&mut handle);
        handle.send(Command::Signal(libc::SIGUSR1)).unwrap();
        assert_eq!(ended(&mut handle).how, process::End::Signaled(libc::SIGUSR1));
    });
}
