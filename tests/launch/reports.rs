//! What a start reports, in which order.
#![expect(clippy::panic, reason = "test code outside of a test function")]

use std::time::Duration;

use missiond::launch::{Command, Exit, Report, Step};
use missiond::policy::Level;

use crate::rig::{Rig, ended, exit, next, started, stop, text};
use crate::support::alone;

#[test]
fn an_exit_code_arrives_as_it_was() {
    alone("reports::an_exit_code_arrives_as_it_was", || {
        let mut rig = Rig::new();
        for (level, code) in [(Level::None, 0), (Level::Process, 0), (Level::Process, 255)] {
            let spec = rig.spec(level, &["sh", "-c", &format!("exit {code}")]);
            let mut handle = rig.start(&spec);
            assert_eq!(exit(&mut handle), Exit::Exited(code));
        }
    });
}

#[test]
fn a_deadly_signal_arrives_as_it_was() {
    alone("reports::a_deadly_signal_arrives_as_it_was", || {
        let mut rig = Rig::new();
        for number in [libc::SIGKILL, libc::SIGSEGV, libc::SIGPIPE, libc::SIGRTMIN() + 3] {
            let spec = rig.shell(&format!("kill -{number} $$"));
            let mut handle = rig.start(&spec);
            assert_eq!(exit(&mut handle), Exit::Signaled(number));
        }
    });
}

#[test]
fn forked_comes_first_and_names_a_living_shim() {
    alone("reports::forked_comes_first_and_names_a_living_shim", || {
        let mut rig = Rig::new();
        let spec = rig.shell("sleep 100");
        let mut handle = rig.start(&spec);
        let Some(Report::Forked { shim }) = next(&mut handle) else { panic!("not Forked") };
        let stat = missiond::sys::procfs::stat(shim.pid).unwrap();
        assert_eq!(stat.start, shim.start);
        assert_eq!(stat.parent, std::process::id(), "a shim is the daemon's own child");
        let payload = started(&mut handle);
        assert_eq!(missiond::sys::procfs::stat(payload).unwrap().parent, shim.pid);
        stop(&mut handle, Duration::ZERO);
    });
}

fn setup_failure(rig: &mut Rig, spec: &missiond::launch::LaunchSpec) -> (Step, i32, String) {
    let mut handle = rig.start(spec);
    let result = loop {
        match next(&mut handle) {
            Some(Report::Forked { .. }) => {}
            Some(Report::SetupFailed { step, errno, detail }) => break (step, errno, detail),
            other => panic!("expected SetupFailed, got {other:?}"),
        }
    };
    assert_eq!(next(&mut handle), None, "nothing follows");
    let (step, errno, detail) = result.clone();
    assert_eq!(handle.exit(), Some(Exit::SetupFailed { step, errno, detail }));
    result
}

#[test]
fn a_program_that_is_not_there_or_not_executable_fails_at_exec() {
    alone("reports::a_program_that_is_not_there_or_not_executable_fails_at_exec", || {
        let mut rig = Rig::new();
        let spec = rig.spec(Level::Process, &["no-such-program-anywhere"]);
        let failure = setup_failure(&mut rig, &spec);
        assert_eq!(failure, (Step::Exec, libc::ENOENT, "no-such-program-anywhere".into()));

        std::fs::write(rig.path("workspace").join("plain"), "text").unwrap();
        let spec = rig.spec(Level::Process, &["./plain"]);
        assert_eq!(setup_failure(&mut rig, &spec), (Step::Exec, libc::EACCES, "./plain".into()));
    });
}

#[test]
fn a_missing_working_directory_fails_at_cwd() {
    alone("reports::a_missing_working_directory_fails_at_cwd", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("true");
        spec.cwd = rig.path("nowhere");
        let detail = spec.cwd.display().to_string();
        assert_eq!(setup_failure(&mut rig, &spec), (Step::Cwd, libc::ENOENT, detail));
    });
}

/// Nothing runs outside of the control group that it was to be in: neither at level 1 nor at level 2.
#[test]
fn a_control_group_that_cannot_be_entered_fails_the_start() {
    alone("reports::a_control_group_that_cannot_be_entered_fails_the_start", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("echo ran > ran");
        let nowhere = rig.path("nowhere");
        spec.cgroup = Some(nowhere.clone());
        let detail = nowhere.display().to_string();
        assert_eq!(setup_failure(&mut rig, &spec), (Step::Cgroup, libc::ENOENT, detail));
        // A directory, and no control group.
        spec.cgroup = Some(rig.path("home"));
        assert_eq!(setup_failure(&mut rig, &spec), (Step::Fork, libc::EBADF, String::new()));
        let mut spec = rig.spec(Level::Namespaces, &["sh", "-c", "echo ran > ran"]);
        spec.cgroup = Some(rig.path("home"));
        assert_eq!(setup_failure(&mut rig, &spec), (Step::Namespaces, libc::EBADF, String::new()));
        assert!(!rig.path("workspace").join("ran").exists());
    });
}

#[test]
fn a_missing_log_directory_fails_at_log() {
    alone("reports::a_missing_log_directory_fails_at_log", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("true");
        spec.log.dir = rig.path("nowhere");
        let detail = spec.log.dir.display().to_string();
        assert_eq!(setup_failure(&mut rig, &spec), (Step::Log, libc::ENOENT, detail));
    });
}

#[test]
fn a_parked_payload_runs_only_after_go() {
    alone("reports::a_parked_payload_runs_only_after_go", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("echo ran > ran; echo out");
        spec.park = true;
        let mut handle = rig.start(&spec);
        assert!(matches!(next(&mut handle), Some(Report::Forked { .. })));
        let Some(Report::Parked { payload }) = next(&mut handle) else { panic!("not Parked") };
        let ran = rig.path("workspace").join("ran");
        assert!(!ran.exists());
        handle.send(Command::Go).unwrap();
        assert_eq!(next(&mut handle), Some(Report::Started { payload }));
        assert_eq!(text(&ended(&mut handle)), "out");
        assert!(ran.exists());
    });
}

#[test]
fn a_parked_payload_starts_with_what_became_known_meanwhile() {
    alone("reports::a_parked_payload_starts_with_what_became_known_meanwhile", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("echo $EPOCH $OTHER; cat");
        spec.park = true;
        spec.environment.push(("EPOCH".into(), "1".into()));
        spec.stdin = Some(b"old".to_vec());
        let mut handle = rig.start(&spec);
        while !matches!(next(&mut handle), Some(Report::Parked { .. })) {}
        let late = [("EPOCH".into(), "2".into()), ("OTHER".into(), "x".into())];
        handle.release(&late, Some(b"new")).unwrap();
        assert_eq!(text(&ended(&mut handle)), "2 x\nnew");

        let mut handle = rig.start(&spec);
        while !matches!(next(&mut handle), Some(Report::Parked { .. })) {}
        handle.send(Command::Go).unwrap();
        assert_eq!(text(&ended(&mut handle)), "1\nold");
    });
}

#[test]
fn a_parked_payload_that_is_stopped_never_runs() {
    alone("reports::a_parked_payload_that_is_stopped_never_runs", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("echo ran > ran");
        spec.park = true;
        let mut handle = rig.start(&spec);
        assert!(matches!(next(&mut handle), Some(Report::Forked { .. })));
        assert!(matches!(next(&mut handle), Some(Report::Parked { .. })));
        stop(&mut handle, Duration::from_secs(60));
        assert_eq!(handle.exit(), Some(Exit::Signaled(libc::SIGKILL)));
        assert!(!rig.path("workspace").join("ran").exists());
    });
}

#[test]
fn standard_input_is_the_given_bytes_and_then_the_end() {
    alone("reports::standard_input_is_the_given_bytes_and_then_the_end", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("wc -c; cat /dev/null");
        spec.stdin = Some(vec![b'x'; 300_000]);
        assert_eq!(text(&rig.run(&spec)), "300000");
        let spec = rig.shell("wc -c");
        assert_eq!(text(&rig.run(&spec)), "0", "without any, it is /dev/null");
    });
}

#[test]
fn captured_output_is_complete_or_marked_as_cut() {
    alone("reports::captured_output_is_complete_or_marked_as_cut", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("head -c 700000 /dev/zero; echo error >&2");
        spec.capture_stdout = Some(700_000);
        let end = rig.run(&spec);
        assert_eq!(end.stdout.unwrap(), vec![0; 700_000]);
        assert!(!end.stdout_truncated);

        spec.capture_stdout = Some(1000);
        let end = rig.run(&spec);
        assert_eq!(end.stdout.unwrap().len(), 1000);
        assert!(end.stdout_truncated);

        spec.capture_stdout = None;
        assert_eq!(rig.run(&spec).stdout, None);
        let log = std::fs::read_to_string(rig.path("log").join("stderr.log")).unwrap();
        assert_eq!(log, "error\n".repeat(3));
    });
}
