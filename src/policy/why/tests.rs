//! Refusals and what they are blamed on.

use std::path::{Path, PathBuf};

use super::*;
use crate::policy::sandbox::{Network, Trust};
use crate::policy::{Grants, seccomp};

fn bind(path: &str, access: Access) -> Node {
    Node::Bind { source: path.into(), target: path.into(), access, trust: Trust::None }
}

fn plan() -> ProcessPlan {
    let tmpfs = |target: &str, writable| Node::Tmpfs {
        target: target.into(),
        bytes: 64 << 20,
        inodes: 100,
        mode: 0o700,
        writable,
    };
    let sandbox = SandboxPlan {
        network: Network::None,
        hostname: "x".into(),
        user_namespaces: 0,
        inotify_instances: 1,
        tree: vec![
            bind("/usr", Access::Read),
            Node::Symlink { target: "/bin".into(), to: "usr/bin".into() },
            tmpfs("/tmp", true),
            tmpfs("/home/u", true),
            bind("/home/u/ws", Access::Write),
            bind("/home/u/docs", Access::Read),
            Node::Pin { target: "/home/u/ws/.git".into() },
            Node::Protect { target: "/home/u/ws/.git/hooks".into() },
            Node::Hide { target: "/home/u/ws/private".into() },
        ],
    };
    ProcessPlan {
        level: Level::Namespaces,
        sandbox: Some(sandbox),
        drop_capabilities: true,
        no_new_privs: true,
        landlock: None,
        seccomp: Vec::new(),
        rlimits: Vec::new(),
        cgroup: None,
        gaps: Vec::new(),
    }
}

fn blamed(at: &str, attempt: Attempt, errno: i32, outside: bool) -> Option<Blame> {
    path(&plan(), Path::new(at), attempt, errno, outside)
}

fn remedy(at: &str, attempt: Attempt, errno: i32) -> Option<Remedy> {
    blamed(at, attempt, errno, true).map(|blame| blame.remedy)
}

#[test]
fn what_is_outside_of_the_tree_is_blamed_only_if_it_exists() {
    let ssh = "/home/u/.ssh/id";
    assert_eq!(remedy(ssh, Attempt::Read, ENOENT), Some(Remedy::Read(ssh.into())));
    assert_eq!(remedy("/srv/x", Attempt::Write, ENOENT), Some(Remedy::Write("/srv/x".into())));
    assert_eq!(blamed(ssh, Attempt::Read, ENOENT, false), None);
    assert_eq!(blamed("/srv/x", Attempt::Read, ENOENT, false), None);
}

#[test]
fn what_is_granted_is_not_blamed() {
    for errno in [ENOENT, EACCES, EROFS] {
        assert_eq!(blamed("/home/u/ws/src", Attempt::Write, errno, true), None);
    }
    assert_eq!(blamed("/usr/bin/nosuch", Attempt::Read, ENOENT, true), None);
    assert_eq!(blamed("/usr/bin/su", Attempt::Read, EACCES, true), None);
}

#[test]
fn read_only_places_name_what_would_make_them_writable_but_the_system_stays() {
    let docs = blamed("/home/u/docs/a/b", Attempt::Write, EROFS, true).unwrap();
    assert_eq!(docs.rule, Rule::ReadOnly("/home/u/docs".into()));
    assert_eq!(docs.remedy.option().unwrap(), "--rw /home/u/docs");
    assert_eq!(docs.remedy.line().unwrap(), "write = [\"/home/u/docs\"]");
    // Through a link of the tree.
    let system = blamed("/bin/ls", Attempt::Write, EROFS, true).unwrap();
    assert_eq!(system, Blame { rule: Rule::ReadOnly("/usr".into()), remedy: Remedy::None });
}

#[test]
fn protected_and_hidden_places_have_no_remedy() {
    let hook = blamed("/home/u/ws/.git/hooks/pre-commit", Attempt::Write, EROFS, true).unwrap();
    assert_eq!(hook.rule, Rule::Protected("/home/u/ws/.git/hooks".into()));
    let moved = blamed("/home/u/ws/.git", Attempt::Write, EBUSY, true).unwrap();
    assert_eq!(moved.rule, Rule::Pinned("/home/u/ws/.git".into()));
    let hidden = blamed("/home/u/ws/private/x", Attempt::Read, ENOENT, true).unwrap();
    assert_eq!(hidden.rule, Rule::Hidden("/home/u/ws/private".into()));
    assert!([hook, moved, hidden].iter().all(|blame| blame.remedy == Remedy::None));
}

#[test]
fn a_full_private_directory_names_its_size() {
    let full = blamed("/tmp/x", Attempt::Write, ENOSPC, false).unwrap();
    assert_eq!(full.rule.to_string(), "/tmp is limited to 64 MiB");
}

#[test]
fn at_level_1_the_rules_of_landlock_are_asked() {
    use crate::policy::landlock::{EXECUTE, PathRule, READ_DIR, READ_FILE};
    let rule = |path: &str, access| PathRule { path: path.into(), access, system: false };
    let domain = LandlockPlan {
        handled: landlock::handled(6),
        scoped: 0,
        rules: vec![rule("/usr", READ_FILE | READ_DIR | EXECUTE), rule("/w", !0)],
    };
    let plan =
        ProcessPlan { level: Level::Process, sandbox: None, landlock: Some(domain), ..plan() };
    let asked = |at: &str, attempt| path(&plan, Path::new(at), attempt, EACCES, true);
    assert_eq!(asked("/w/x", Attempt::Write), None);
    assert_eq!(asked("/usr/bin/sudo", Attempt::Execute), None);
    let read = asked("/home/u/.ssh/id", Attempt::Read).unwrap();
    assert_eq!(read.remedy, Remedy::Read("/home/u/.ssh".into()));
    assert_eq!(asked("/usr/x", Attempt::Write).unwrap().remedy, Remedy::None);
}

#[test]
fn options_are_quoted_for_a_shell() {
    let option = Remedy::Read("/a b/it's".into()).option().unwrap();
    assert_eq!(option, r"--ro '/a b/it'\''s'");
}

#[test]
fn messages_of_common_programs_are_understood() {
    let found = |text: &str| {
        let mut all = mentions(text);
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        let Mention { symptom, paths, attempt, .. } = all.remove(0);
        (symptom, paths, attempt)
    };
    let path = |text: &str| vec![PathBuf::from(text)];
    for (text, errno, named, attempt) in [
        ("cat: /etc/shadow: Permission denied", 13, "/etc/shadow", Attempt::Read),
        ("touch: cannot touch '/usr/x': Read-only file system", 30, "/usr/x", Attempt::Write),
        ("bash: line 1: /a/b: No such file or directory", 2, "/a/b", Attempt::Read),
        (
            "PermissionError: [Errno 13] Permission denied: '/srv/a b'",
            13,
            "/srv/a b",
            Attempt::Read,
        ),
        (
            "Error: EACCES: permission denied, mkdir '/home/u/.npm'",
            13,
            "/home/u/.npm",
            Attempt::Write,
        ),
        ("fatal: cannot mkdir ../x: Read-only file system", 30, "../x", Attempt::Write),
    ] {
        let (symptom, paths, tried) = found(text);
        assert_eq!(symptom, Symptom::Path(errno), "{text}");
        assert!(paths.contains(&path(named)[0]), "{text}: {paths:?}");
        assert_eq!(tried, attempt, "{text}");
    }
    for text in [
        "curl: (6) Could not resolve host: example.com",
        "ping: connect: Network is unreachable",
        "npm error request failed, reason: getaddrinfo EAI_AGAIN registry.npmjs.org",
    ] {
        assert_eq!(found(text).0, Symptom::Network, "{text}");
    }
    assert_eq!(mentions("all is well\nnothing to see"), vec![]);
    assert_eq!(mentions(&"x: Permission denied\n".repeat(50)).len(), 1);
}

#[test]
fn the_filter_itself_says_what_it_refuses() {
    let Some(arch) = seccomp::native() else { return };
    let filter = seccomp::builtin(&arch, Grants::default()).unwrap();
    let call = |name: &str| Call {
        number: (0..600).find(|n| seccomp::numbers::name(*n, &arch) == Some(name)).unwrap(),
        arch: arch.audit,
        args: [0; 6],
    };
    let ring = filtered(&filter, &call("io_uring_setup"), EPERM)
        .or_else(|| filtered(&filter, &call("io_uring_setup"), 38))
        .unwrap();
    assert_eq!(ring.rule, Rule::SystemCall("io_uring_setup"));
    assert_eq!(ring.remedy, Remedy::Grant("io_uring"));
    assert_eq!(filtered(&filter, &call("getpid"), EPERM), None);
    // Another errno than the filter's is the kernel's own.
    assert_eq!(filtered(&filter, &call("io_uring_setup"), EROFS), None);
    assert_eq!(filtered(&[], &call("getpid"), EPERM), None);
}
