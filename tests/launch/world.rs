//! What a level-2 agent finds around itself.
use std::collections::BTreeSet;

use missiond::launch::Exit;

use crate::rig::{Rig, exit};
use crate::stage::{output, skip_without_userns, spec};
use crate::support::alone;

#[test]
fn every_namespace_but_time_is_its_own() {
    const NAME: &str = "world::every_namespace_but_time_is_its_own";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let out = output(
            &mut rig,
            "for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done",
        );
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
        let out = output(
            &mut rig,
            "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u",
        );
        let words: Vec<&str> = out.split_whitespace().collect();
        let uid = nix::unistd::getuid().to_string();
        let gid = nix::unistd::getgid().to_string();
        assert_eq!(words, [&uid, &uid, "1", &gid, &gid, "1", "deny", &uid]);
    });
}

#[test]
fn it_has_no_capability_and_no_way_to_any() {
    const NAME: &str = "world::it_has_no_capability_and_no_way_to_any";
    alone(NAME, || {
        if skip_without_userns(NAME) {
            return;
        }
        let mut rig = Rig::new();
        let out = output(&mut rig, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status /proc/1/status");
        let sets: Vec<(&str, &str)> = out
            .lines()
            .map(|line| line.split(':').skip(1).collect::<Vec<_>>())
            .map(|w| (w[0], w[1].trim()))
            .collect();
        assert_eq!(
            sets.len(),
            12,
            "five sets and no_new_privs, of the agent and of its init: {out}"
        );
        for (name, value) in sets {
            assert_eq!(
                value,
                if name == "NoNewPrivs" { "1" } else { "0000000000000000" },
                "{name}"
            );
        }
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
            let spec = spec(&mut rig, &["sh", "-c", script]);
            let mut handle = rig.start(&spec);
            assert_eq!(exit(&mut handle), expected, "{script}");
        }
    });
}
