//! A hand-written world for the tests of level 2: the system, a workspace, a home.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::path::{Path, PathBuf};

use missiond::launch::LaunchSpec;
use missiond::policy::Level;
use missiond::policy::sandbox::{Access, Network, Node, SandboxPlan, Trust};

use crate::rig::Rig;
use crate::support::skip;

/// True if user namespaces are missing and the test is skipped.
pub(crate) fn skip_without_userns(test: &str) -> bool {
    use missiond::launch::{Level2, probe_level_2};
    let found = probe_level_2(Path::new(env!("CARGO_BIN_EXE_missiond"))).unwrap();
    let present = found == Level2::Works { own_proc: true };
    skip(test, "userns", present, &format!("level 2 doesn't work here: {found:?}"))
}

pub(crate) fn bind(path: impl Into<PathBuf>, access: Access, trust: Trust) -> Node {
    let path = path.into();
    Node::Bind { source: path.clone(), target: path, access, trust }
}

pub(crate) fn tmpfs(target: &str, mode: u32) -> Node {
    Node::Tmpfs { target: target.into(), bytes: 4 << 20, inodes: 1000, mode, writable: true }
}

/// The system read-only, a few devices, `/proc`, `/tmp`, and the rig's directories.
pub(crate) fn tree(rig: &Rig) -> Vec<Node> {
    let mut tree = vec![bind("/usr", Access::Read, Trust::System)];
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let path = Path::new("/").join(name);
        match std::fs::read_link(&path) {
            Ok(to) => tree.push(Node::Symlink { target: path, to }),
            Err(_) if path.is_dir() => tree.push(bind(path, Access::Read, Trust::System)),
            Err(_) => {}
        }
    }
    tree.push(bind("/etc", Access::Read, Trust::System));
    tree.push(Node::Proc { target: "/proc".into() });
    for name in ["null", "zero", "full", "random", "urandom"] {
        tree.push(bind(format!("/dev/{name}"), Access::Device, Trust::System));
    }
    tree.push(Node::Devpts { target: "/dev/pts".into() });
    let link = |target: &str, to: &str| Node::Symlink { target: target.into(), to: to.into() };
    tree.push(link("/dev/ptmx", "pts/ptmx"));
    tree.push(link("/dev/fd", "/proc/self/fd"));
    tree.push(tmpfs("/dev/shm", 0o1777));
    tree.push(tmpfs("/tmp", 0o1777));
    for name in ["home", "tmp", "workspace"] {
        tree.push(bind(rig.path(name), Access::Write, Trust::None));
    }
    tree
}

pub(crate) fn sandbox(tree: Vec<Node>) -> SandboxPlan {
    SandboxPlan {
        network: Network::None,
        hostname: "agent".into(),
        user_namespaces: 0,
        inotify_instances: 16,
        tree,
    }
}

/// A start at level 2 in the hand-written world.
pub(crate) fn spec(rig: &mut Rig, argv: &[&str]) -> LaunchSpec {
    let tree = tree(rig);
    spec_in(rig, tree, argv)
}

/// A start at level 2 in a given tree.
pub(crate) fn spec_in(rig: &mut Rig, tree: Vec<Node>, argv: &[&str]) -> LaunchSpec {
    let mut spec = rig.spec(Level::Process, argv);
    spec.plan.level = Level::Namespaces;
    spec.plan.sandbox = Some(sandbox(tree));
    spec
}

/// Runs a shell command at level 2 and gives its standard output.
pub(crate) fn output(rig: &mut Rig, script: &str) -> String {
    let spec = spec(rig, &["sh", "-c", script]);
    crate::rig::text(&rig.run(&spec))
}
