//! Output of agents on its way to the logs.

use crate::rig::Rig;
use crate::support::alone;

#[test]
fn output_is_rotated_and_no_line_is_lost() {
    alone("logs::output_is_rotated_and_no_line_is_lost", || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("seq -f 'line %06g' 1 5000; echo oops >&2");
        spec.log.max_bytes = 16 * 1024;
        spec.log.keep = 9;
        let end = rig.run(&spec);
        assert_eq!(end.log_dropped, 0);
        let dir = rig.path("log");
        let mut whole = String::new();
        for number in (0..=9).rev() {
            let suffix = if number == 0 { String::new() } else { format!(".{number}") };
            let path = dir.join(format!("stdout.log{suffix}"));
            let part = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(part.len() <= 16 * 1024);
            whole.push_str(&part);
        }
        let expected: String = (1..=5000).map(|number| format!("line {number:06}\n")).collect();
        assert_eq!(whole, expected);
        assert_eq!(std::fs::read_to_string(dir.join("stderr.log")).unwrap(), "oops\n");
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.join("stdout.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn an_agent_with_unwritable_logs_runs_to_its_end() {
    alone("logs::an_agent_with_unwritable_logs_runs_to_its_end", || {
        let mut rig = Rig::new();
        // Each rotation needs the directory, which goes away while the agent runs.
        let mut spec = rig.shell("echo > gone; cat go; head -c 300000 /dev/zero; exit 6");
        spec.log.max_bytes = 8 * 1024;
        for name in ["gone", "go"] {
            let path = rig.path("workspace").join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let mut handle = rig.start(&spec);
        std::fs::read(rig.path("workspace").join("gone")).unwrap();
        std::fs::remove_dir_all(rig.path("log")).unwrap();
        std::fs::write(rig.path("workspace").join("go"), "").unwrap();
        let end = crate::rig::ended(&mut handle);
        assert_eq!(end.how, missiond::sys::process::End::Exited(6));
        assert!(end.log_dropped > 250_000, "{}", end.log_dropped);
        assert_eq!(end.stdout.unwrap().len(), 300_000, "what was captured is whole");
    });
}

#[test]
fn a_log_that_cannot_grow_neither_blocks_nor_kills_its_agent() {
    alone("logs::a_log_that_cannot_grow_neither_blocks_nor_kills_its_agent", || {
        // The shim inherits this; its writes then fail as they would on a full disk.
        let most = 64 * 1024;
        missiond::sys::rlimit::lower(missiond::sys::rlimit::Resource::RLIMIT_FSIZE, most, most)
            .unwrap();
        let mut rig = Rig::new();
        let spec = rig.shell("head -c 300000 /dev/zero; exit 6");
        let end = rig.run(&spec);
        assert_eq!(end.how, missiond::sys::process::End::Exited(6));
        assert_eq!(end.log_dropped, 300_000 - most);
        assert_eq!(end.stdout.unwrap().len(), 300_000);
        let log = std::fs::read(rig.path("log").join("stdout.log")).unwrap();
        assert_eq!(log.len() as u64, most);
    });
}
