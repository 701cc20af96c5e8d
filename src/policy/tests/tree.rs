//! The tree of level 2: order, roles, and who wins where claims overlap.

use std::path::{Path, PathBuf};

use super::plan::HOST;
use crate::policy::landlock::{IOCTL_DEV, READ_FILE, RESOLVE_UNIX, WRITE_FILE};
use crate::policy::sandbox::{Access, Network, Node, SandboxPlan};
use crate::policy::{
    CgroupLimits, Gap, Grants, HostFacts, Level, Limits, PlaceKind, PlanError, PlanRequest,
    ProcessPlan, RlimitKind, Roots, SystemPlace, plan,
};

fn host() -> HostFacts {
    let place = |path: &str, kind, network| SystemPlace { path: path.into(), kind, network };
    HostFacts {
        system: vec![
            place("/usr", PlaceKind::Directory, false),
            place("/bin", PlaceKind::Link("usr/bin".into()), false),
            place("/etc", PlaceKind::Directory, false),
            place("/sys/devices/system/cpu", PlaceKind::Directory, false),
            place("/run/systemd/resolve", PlaceKind::Directory, true),
            place("/dev/null", PlaceKind::Device, false),
            place("/proc/cmdline", PlaceKind::File, false),
            place("/proc/kcore", PlaceKind::File, false),
            place("/proc/sys", PlaceKind::Directory, false),
        ],
        ..HOST
    }
}

fn request() -> PlanRequest {
    PlanRequest {
        level: Level::Namespaces,
        workspace_write: true,
        roots: Roots {
            home: Some("/h/.state/a/home".into()),
            workspace: Some("/h/project".into()),
            checkpoint: Some("/h/.state/a/checkpoint".into()),
            bus: Some("/run/user/7/m/a".into()),
            missionctl: Some("/usr/local/bin".into()),
            ..Roots::default()
        },
        hostname: "writer".into(),
        ..PlanRequest::default()
    }
}

fn planned(request: &PlanRequest) -> ProcessPlan {
    plan(request, &host()).unwrap()
}

fn sandbox(request: &PlanRequest) -> SandboxPlan {
    planned(request).sandbox.unwrap()
}

/// The node that decides about a path: the last that is at it or above it.
fn decides<'a>(sandbox: &'a SandboxPlan, path: &str) -> Option<&'a Node> {
    sandbox.tree.iter().rfind(|node| Path::new(path).starts_with(node.target()))
}

fn access(sandbox: &SandboxPlan, path: &str) -> Option<Access> {
    let node = decides(sandbox, path)?;
    if let Node::Bind { access, .. } = node {
        return Some(*access);
    }
    let writes = matches!(node, Node::Tmpfs { writable: true, .. });
    let reads = matches!(node, Node::Protect { .. });
    if writes { Some(Access::Write) } else { reads.then_some(Access::Read) }
}

/// What every tree must keep: parents first, each place once, sources where they are seen.
fn check_order(sandbox: &SandboxPlan) {
    for (at, node) in sandbox.tree.iter().enumerate() {
        let later = &sandbox.tree[at + 1..];
        assert!(
            later.iter().all(|other| !node.target().starts_with(other.target())),
            "{node:?} is covered by a later node"
        );
        if let Node::Bind { source, target, .. } = node {
            assert_eq!(source, target);
        }
        if let Node::Pin { target } | Node::Protect { target } | Node::Hide { target } = node {
            let inside = |other: &Node| {
                target.starts_with(other.target())
                    && matches!(other, Node::Bind { .. } | Node::Proc { .. })
            };
            assert!(sandbox.tree[..at].iter().any(inside), "{node:?} is in nothing");
        }
    }
}

#[test]
fn a_writer_sees_the_system_its_own_directories_and_the_workspace() {
    let sandbox = sandbox(&request());
    check_order(&sandbox);
    for path in
        ["/h/project/src", "/h/.state/a/home/x", "/h/.state/a/checkpoint", "/tmp/x", "/dev/shm/x"]
    {
        assert_eq!(access(&sandbox, path), Some(Access::Write), "{path}");
    }
    for path in [
        "/usr/bin/git",
        "/etc/passwd",
        "/run/user/7/m/a/bus.sock",
        "/sys/devices/system/cpu/online",
    ] {
        assert_eq!(access(&sandbox, path), Some(Access::Read), "{path}");
    }
    assert_eq!(access(&sandbox, "/dev/null"), Some(Access::Device));
    for path in [
        "/h/.ssh",
        "/h/.state/b/home",
        "/h/.state/mission.db",
        "/root",
        "/var/lib",
        "/sys/kernel",
        "/home/x",
    ] {
        assert_eq!(decides(&sandbox, path), None, "{path}");
    }
    assert_eq!(sandbox.hostname, "writer");
    assert_eq!(sandbox.user_namespaces, 0);
    assert_eq!(sandbox.network, Network::None);
}

#[test]
fn a_link_of_the_system_stays_a_link_and_var_tmp_is_tmp() {
    let sandbox = sandbox(&request());
    let link = |target: &str, to: &str| {
        let node = Node::Symlink { target: target.into(), to: to.into() };
        assert!(sandbox.tree.contains(&node), "{node:?}");
    };
    link("/bin", "usr/bin");
    link("/var/tmp", "/tmp");
    link("/dev/ptmx", "pts/ptmx");
}

#[test]
fn what_is_given_already_is_not_mounted_again() {
    let mut request = request();
    request.roots.extra_read = vec!["/usr/share".into(), "/h/project/docs".into()];
    request.roots.extra_write = vec!["/h/project/out".into()];
    let sandbox = sandbox(&request);
    let mounted = |path: &str| sandbox.tree.iter().any(|node| node.target() == Path::new(path));
    assert!(!mounted("/usr/local/bin") && !mounted("/usr/share") && !mounted("/h/project/out"));
    assert!(mounted("/h/project/docs"), "read-only inside what is writable");
    assert_eq!(access(&sandbox, "/h/project/docs/x"), Some(Access::Read));
}

#[test]
fn a_reader_reads_the_workspace_only() {
    let request = PlanRequest { workspace_write: false, ..request() };
    assert_eq!(access(&sandbox(&request), "/h/project/x"), Some(Access::Read));
    let mut around = request.clone();
    around.roots.extra_write = vec!["/h".into()];
    let refused = |request: &PlanRequest| plan(request, &host()).unwrap_err();
    assert!(matches!(refused(&around), PlanError::WorkspaceBelowWritable { .. }));
    let mut same = request;
    same.roots.extra_write = vec!["/h/project".into()];
    assert!(matches!(refused(&same), PlanError::WorkspaceBelowWritable { .. }));
}

#[test]
fn a_workspace_under_tmp_lies_in_the_private_tmp() {
    for (workspace, tmpfs) in [("/tmp/x/ws", "/tmp"), ("/var/tmp/ws", "/var/tmp")] {
        let mut request = request();
        request.roots.workspace = Some(workspace.into());
        let sandbox = sandbox(&request);
        check_order(&sandbox);
        assert!(matches!(decides(&sandbox, workspace), Some(Node::Bind { .. })));
        let beside = PathBuf::from(tmpfs).join("other");
        assert!(matches!(decides(&sandbox, beside.to_str().unwrap()), Some(Node::Tmpfs { .. })));
    }
}

#[test]
fn a_home_below_the_workspace_and_a_workspace_below_a_read_directory_both_fit() {
    let mut request = request();
    request.roots.home = Some("/h/project/.home".into());
    request.roots.extra_read = vec!["/h".into()];
    let sandbox = sandbox(&request);
    check_order(&sandbox);
    assert_eq!(access(&sandbox, "/h/project/x"), Some(Access::Write));
    assert_eq!(access(&sandbox, "/h/project/.home/x"), Some(Access::Write));
    assert_eq!(access(&sandbox, "/h/notes"), Some(Access::Read));
}

#[test]
fn what_the_sandbox_makes_itself_cannot_be_asked_for() {
    for path in ["/proc", "/proc/1", "/dev", "/dev/dri", "/tmp", "/var", "/run", "/sys", "/bin/x"] {
        let mut request = request();
        request.roots.extra_write = vec![path.into()];
        let result = plan(&request, &host());
        if path == "/sys" {
            assert!(result.is_ok(), "nothing of /sys is made");
        } else {
            assert!(matches!(result, Err(PlanError::OwnPlace { .. })), "{path}: {result:?}");
        }
    }
    for path in ["/", "x", "/a/../b"] {
        let mut request = request();
        request.roots.extra_read = vec![path.into()];
        assert!(matches!(plan(&request, &host()), Err(PlanError::UncleanPath { .. })));
    }
}

#[test]
fn hidden_wins_over_what_is_granted_but_not_over_the_agents_own() {
    let mut request = request();
    request.roots.extra_read = vec!["/h".into(), "/h/.ssh/keys".into()];
    request.roots.hidden = vec!["/h/.ssh".into(), "/h/.state".into(), "/elsewhere".into()];
    let sandbox = sandbox(&request);
    check_order(&sandbox);
    assert!(matches!(decides(&sandbox, "/h/.ssh/keys/id"), Some(Node::Hide { .. })));
    assert!(matches!(
        decides(&sandbox, "/h/.state/mission.db"),
        Some(Node::Tmpfs { writable: false, .. })
    ));
    assert_eq!(access(&sandbox, "/h/.state/a/home/x"), Some(Access::Write));
    assert!(sandbox.tree.iter().all(|node| node.target() != Path::new("/elsewhere")));
}

#[test]
fn a_task_is_visible_below_what_is_hidden() {
    let mut request = request();
    request.roots.hidden = vec!["/h/.state".into()];
    request.roots.extra_read = vec!["/h".into()];
    request.roots.task = Some("/h/.state/a/task/t".into());
    request.roots.handoff = Some("/h/.state/a/task/t/handoff".into());
    let sandbox = sandbox(&request);
    check_order(&sandbox);
    assert_eq!(access(&sandbox, "/h/.state/a/task/t/task.json"), Some(Access::Read));
    assert_eq!(access(&sandbox, "/h/.state/a/task/t/handoff/x"), Some(Access::Write));
    assert_eq!(access(&sandbox, "/h/.state/b"), None);
}

#[test]
fn a_protected_file_is_read_only_and_nothing_above_it_can_be_renamed() {
    let mut request = request();
    request.roots.protected = vec![
        "/h/project/.git/hooks".into(),
        "/h/project/.git/config".into(),
        "/h/project/sub/repo/.git/config".into(),
        "/usr/lib/x".into(),
    ];
    let sandbox = sandbox(&request);
    check_order(&sandbox);
    let pins: Vec<&Path> = sandbox
        .tree
        .iter()
        .filter_map(|node| if let Node::Pin { target } = node { Some(&**target) } else { None })
        .collect();
    let wanted =
        ["/h/project/.git", "/h/project/sub", "/h/project/sub/repo", "/h/project/sub/repo/.git"];
    assert_eq!(pins.len(), wanted.len());
    assert!(wanted.iter().all(|path| pins.contains(&Path::new(path))), "{pins:?}");
    assert_eq!(access(&sandbox, "/h/project/.git/hooks/pre-commit"), Some(Access::Read));
    assert!(sandbox.tree.iter().all(|node| node.target() != Path::new("/usr/lib/x")));

    let reader = PlanRequest { workspace_write: false, ..request };
    let count = |node: &&Node| matches!(node, Node::Pin { .. } | Node::Protect { .. });
    assert_eq!(self::sandbox(&reader).tree.iter().filter(count).count(), 0, "all read-only anyway");
}

#[test]
fn a_write_directory_below_a_protected_one_is_read_only() {
    let mut request = request();
    request.roots.protected = vec!["/h/project/.git/hooks".into()];
    request.roots.extra_write = vec!["/h/project/.git/hooks/mine".into()];
    assert_eq!(access(&sandbox(&request), "/h/project/.git/hooks/mine/x"), Some(Access::Read));
}

#[test]
fn the_hosts_network_brings_its_resolver() {
    let with = PlanRequest { network: Network::Host, ..request() };
    let resolver = "/run/systemd/resolve/stub-resolv.conf";
    assert_eq!(access(&sandbox(&with), resolver), Some(Access::Read));
    assert_eq!(access(&sandbox(&request()), resolver), None);
}

#[test]
fn proc_shows_nothing_of_the_machine_and_root_cannot_change_it() {
    let hidden = |sandbox: &SandboxPlan, path: &str| {
        matches!(decides(sandbox, path), Some(Node::Hide { .. }))
    };
    let user = sandbox(&request());
    assert!(hidden(&user, "/proc/cmdline"));
    assert!(!hidden(&user, "/proc/kcore"), "its mode does it");
    let root = plan(&request(), &HostFacts { root: true, ..host() }).unwrap().sandbox.unwrap();
    assert!(
        hidden(&root, "/proc/kcore") && access(&root, "/proc/sys/kernel") == Some(Access::Read)
    );
    let grants = Grants { userns: true, ..Grants::default() };
    let nested = sandbox(&PlanRequest { grants, ..request() });
    assert!(!hidden(&nested, "/proc/cmdline"), "a covered /proc allows no other one");
    assert!(nested.user_namespaces > 0);

    let covered = HostFacts { fresh_proc: false, ..host() };
    let plan = plan(&request(), &covered).unwrap();
    assert!(plan.gaps.contains(&Gap::NoProc));
    let tree = plan.sandbox.unwrap().tree;
    assert!(!tree.iter().any(|node| matches!(node, Node::Proc { .. })));
    let all_files =
        |node: &Node| !node.target().starts_with("/proc") || matches!(node, Node::Bind { .. });
    assert!(tree.iter().all(all_files), "never the host's processes");
}

#[test]
fn landlock_says_once_more_what_the_mounts_say() {
    let plan = planned(&request());
    let rules = plan.landlock.unwrap().rules;
    let access = |path: &str| {
        let above = rules.iter().filter(|rule| Path::new(path).starts_with(&rule.path));
        above.fold(0, |all, rule| all | rule.access)
    };
    for path in
        ["/h/project/x", "/h/.state/a/home/x", "/tmp/x", "/dev/shm/x", "/dev/null", "/dev/pts/0"]
    {
        assert_ne!(access(path) & WRITE_FILE, 0, "{path}");
    }
    for path in ["/usr/bin/git", "/proc/self/maps", "/run/user/7/m/a/bus.sock", "/dev/tty"] {
        assert_eq!(access(path) & (WRITE_FILE | READ_FILE), READ_FILE, "{path}");
    }
    assert_ne!(access("/run/user/7/m/a/bus.sock") & RESOLVE_UNIX, 0);
    assert_ne!(access("/dev/null") & IOCTL_DEV, 0);
    assert!(rules.len() < 12, "each rule costs a start");
}

#[test]
fn an_agent_that_makes_namespaces_keeps_the_scopes_only() {
    let grants = Grants { userns: true, ..Grants::default() };
    let request = PlanRequest { grants, ..request() };
    let landlock = planned(&request).landlock.unwrap();
    assert_eq!((landlock.handled, landlock.rules.len()), (0, 0));
    let old = HostFacts { landlock_abi: 5, ..host() };
    assert_eq!(plan(&request, &old).unwrap().landlock, None);
}

#[test]
fn only_the_hosts_network_needs_landlock_for_abstract_sockets() {
    let old = HostFacts { landlock_abi: 5, ..host() };
    assert_eq!(plan(&request(), &old).unwrap().gaps, []);
    let on_host = PlanRequest { network: Network::Host, ..request() };
    assert_eq!(plan(&on_host, &old).unwrap().gaps, [Gap::AbstractSocketsOpen { abi: 5 }]);
}

#[test]
fn limits_count_in_the_agents_own_namespace_or_in_its_cgroup() {
    let limits = Limits {
        pids: Some(50),
        memory: Some(1 << 30),
        cpu_milli: Some(1500),
        ..Limits::default()
    };
    let request = PlanRequest { limits, ..request() };
    let nproc = |plan: &ProcessPlan| {
        plan.rlimits.iter().find(|limit| limit.kind == RlimitKind::Nproc).unwrap().hard
    };
    let without = planned(&request);
    assert_eq!((nproc(&without), without.cgroup), (51, None));
    assert_eq!(without.gaps, [Gap::CpuShareOpen, Gap::MemoryPerProcess]);

    let with = plan(&request, &HostFacts { cgroup: true, ..host() }).unwrap();
    assert_eq!(with.gaps, []);
    let group = CgroupLimits { memory: Some(1 << 30), pids: Some(50), cpu_milli: Some(1500) };
    assert_eq!(with.cgroup, Some(group));

    let plain = PlanRequest { level: Level::Process, ..request.clone() };
    let plain = plan(&plain, &HostFacts { cgroup: true, ..host() }).unwrap();
    assert!(plain.rlimits.iter().all(|limit| limit.kind != RlimitKind::Nproc), "the user's count");
    assert_eq!(plain.cgroup.unwrap().pids, Some(50));

    let root = plan(&request, &HostFacts { root: true, ..host() }).unwrap();
    assert!(root.gaps.contains(&Gap::PidsAsRoot));
}

#[test]
fn a_tmp_of_its_own_has_the_size_that_was_asked_for() {
    let request = PlanRequest { tmp_bytes: Some(1 << 20), ..request() };
    let sandbox = sandbox(&request);
    let Some(Node::Tmpfs { bytes, inodes, mode, .. }) = decides(&sandbox, "/tmp/x") else {
        panic!("no tmpfs");
    };
    assert_eq!((*bytes, *inodes, *mode), (1 << 20, 256, 0o1777));
}
