//! After a stop nothing of an agent is alive.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code outside of a test function"
)]

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use missiond::launch::{Exit, LaunchSpec, ShimHandle, Step};
use missiond::policy::{Level, Limits, PlanRequest};
use missiond::sys::process::End;

use crate::rig::{Rig, ended, exit, now, readable, started, stop, survivors};
use crate::support::{alone, skip};

/// Starts an agent and waits until its script writes to `ready`.
fn start_until_ready(rig: &mut Rig, spec: &LaunchSpec) -> ShimHandle {
    let path = rig.path("workspace").join("ready");
    let _ = std::fs::remove_file(&path);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opened for both: so the open doesn't wait, and there is no end of file before the first word.
    let fifo =
        File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    let mut handle = rig.start(spec);
    started(&mut handle);
    readable(&fifo, "the agent's word that it is ready");
    handle
}

/// Root has no limit of processes, so what forks without end is not for this machine then.
fn skip_as_root(test: &str) -> bool {
    skip(test, "user", !nix::unistd::geteuid().is_root(), "root has no limit of processes")
}

fn stop_leaves_nothing(script: &str, grace: Duration) -> missiond::launch::Ended {
    let mut rig = Rig::new();
    let spec = rig.shell(script);
    let mut handle = start_until_ready(&mut rig, &spec);
    let begin = now();
    let end = stop(&mut handle, grace);
    println!("{} killed, verified empty after {:?}", end.killed, now() - begin);
    // Nothing but, perhaps, the shim on its last instructions.
    let shim = handle.shim().unwrap().pid;
    let left: Vec<_> = survivors(&rig).into_iter().filter(|stat| stat.pid != shim).collect();
    assert!(left.is_empty(), "{left:?}");
    end
}

#[test]
fn an_agent_that_obeys_sigterm_ends_by_it_within_its_grace() {
    alone("stopping::an_agent_that_obeys_sigterm_ends_by_it_within_its_grace", || {
        let script = "trap 'exit 7' TERM; echo > ready; while :; do sleep 0.05; done";
        let end = stop_leaves_nothing(script, Duration::from_secs(60));
        assert_eq!(end.how, End::Exited(7));
    });
}

#[test]
fn a_stopped_agent_still_gets_its_sigterm() {
    alone("stopping::a_stopped_agent_still_gets_its_sigterm", || {
        let script = "trap 'exit 7' TERM; echo > ready; kill -STOP $$; exit 1";
        let end = stop_leaves_nothing(script, Duration::from_secs(60));
        assert_eq!(end.how, End::Exited(7));
    });
}

#[test]
fn an_agent_that_ignores_sigterm_is_killed_after_its_grace() {
    alone("stopping::an_agent_that_ignores_sigterm_is_killed_after_its_grace", || {
        let script = "trap '' TERM; echo > ready; sleep 1000; sleep 1000";
        let begin = now();
        let end = stop_leaves_nothing(script, Duration::from_millis(300));
        assert_eq!(end.how, End::Signaled(libc::SIGKILL));
        assert!(now() - begin >= Duration::from_millis(300));
    });
}

#[test]
fn double_forks_and_sessions_of_their_own_do_not_escape_a_stop() {
    alone("stopping::double_forks_and_sessions_of_their_own_do_not_escape_a_stop", || {
        let script = "trap '' TERM
            (sleep 1001 &)
            setsid sleep 1002 &
            (setsid sh -c 'trap \"\" TERM; (setsid sleep 1003 &); sleep 1004 & wait' &)
            while ! pgrep -s 0 -x sleep > /dev/null; do :; done
            echo > ready
            sleep 1005";
        let end = stop_leaves_nothing(script, Duration::from_millis(1));
        assert!(end.killed >= 3, "{end:?}");
    });
}

#[test]
fn what_a_payload_leaves_behind_is_killed_when_it_exits() {
    alone("stopping::what_a_payload_leaves_behind_is_killed_when_it_exits", || {
        let mut rig = Rig::new();
        let spec = rig.shell("(setsid sleep 1000 &); sleep 1000 & exit 3");
        let mut handle = rig.start(&spec);
        let end = ended(&mut handle);
        assert_eq!((end.how, end.killed), (End::Exited(3), 2));
        let shim = handle.shim().unwrap().pid;
        assert!(survivors(&rig).iter().all(|stat| stat.pid == shim));
    });
}

#[test]
fn a_fork_bomb_within_its_limit_is_ended() {
    const NAME: &str = "stopping::a_fork_bomb_within_its_limit_is_ended";
    alone(NAME, || {
        if skip_as_root(NAME) {
            return;
        }
        let script = "perl -e 'open F, \">ready\"; 1 while defined fork; syswrite F, \"x\"; fork while 1' & wait";
        let end = stop_leaves_nothing(script, Duration::ZERO);
        assert!(end.killed > 0, "{end:?}");
    });
}

#[test]
fn a_chain_in_which_each_forks_the_next_and_exits_is_ended() {
    const NAME: &str = "stopping::a_chain_in_which_each_forks_the_next_and_exits_is_ended";
    alone(NAME, || {
        if skip_as_root(NAME) {
            return;
        }
        for leave in ["", "POSIX::setsid();"] {
            let script = format!(
                "perl -MPOSIX -e 'open F, \">ready\"; syswrite F, \"x\";
                    for (;;) {{ my $p = fork; exit if $p; {leave} }}'; sleep 1000"
            );
            stop_leaves_nothing(&script, Duration::ZERO);
        }
    });
}

#[test]
fn a_stop_at_level_none_leaves_nothing_either() {
    alone("stopping::a_stop_at_level_none_leaves_nothing_either", || {
        let mut rig = Rig::new();
        let script = "trap '' TERM; (setsid sleep 1000 &); echo > ready; sleep 1000; :";
        let spec = rig.spec(Level::None, &["sh", "-c", script]);
        let mut handle = start_until_ready(&mut rig, &spec);
        let end = stop(&mut handle, Duration::from_millis(10));
        assert!(end.killed >= 1);
        let shim = handle.shim().unwrap().pid;
        assert!(survivors(&rig).iter().all(|stat| stat.pid == shim));
    });
}

#[test]
fn five_hundred_processes_are_ended_and_verified() {
    alone("stopping::five_hundred_processes_are_ended_and_verified", || {
        let mut rig = Rig::new();
        let request = PlanRequest {
            limits: Limits { pids: Some(600), ..Limits::default() },
            ..rig.request(Level::Process)
        };
        let script =
            "i=0; while [ $i -lt 500 ]; do sleep 1000 & i=$((i+1)); done; echo > ready; wait";
        let spec = rig.spec_for(&request, &["sh", "-c", script]);
        let mut handle = start_until_ready(&mut rig, &spec);
        let begin = now();
        let end = stop(&mut handle, Duration::ZERO);
        println!("500 processes: verified empty after {:?}", now() - begin);
        assert_eq!(end.killed, 500);
    });
}

#[test]
fn a_new_incarnation_waits_for_the_lock_of_the_old_one() {
    alone("stopping::a_new_incarnation_waits_for_the_lock_of_the_old_one", || {
        let mut rig = Rig::new();
        let spec = rig.shell("echo > ready; sleep 1000");
        let mut old = start_until_ready(&mut rig, &spec);

        let mut impatient = rig.shell("true");
        impatient.lock_timeout = Duration::from_millis(100);
        let mut handle = rig.start(&impatient);
        let Exit::SetupFailed { step, errno, .. } = exit(&mut handle) else { panic!("no failure") };
        assert_eq!((step, errno), (Step::Lock, libc::ETIMEDOUT));

        let cancelled = rig.shell("true");
        let mut handle = rig.start(&cancelled);
        handle.send(missiond::launch::Command::Stop { grace_ms: 0 }).unwrap();
        let Exit::SetupFailed { step, errno, .. } = exit(&mut handle) else { panic!("no failure") };
        assert_eq!((step, errno), (Step::Lock, libc::ECANCELED));

        let patient = rig.shell("exit 5");
        let mut new = rig.start(&patient);
        stop(&mut old, Duration::ZERO);
        assert_eq!(exit(&mut new), Exit::Exited(5));
    });
}
