//! Worlds for the tests of level 2.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::path::{Path, PathBuf};

use missiond::launch::LaunchSpec;
use missiond::policy::Level;
use missiond::policy::sandbox::{Access, Node, Trust};

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

/// The planned tree of the rig's directories.
pub(crate) fn tree(rig: &mut Rig) -> Vec<Node> {
    rig.spec(Level::Namespaces, &["true"]).plan.sandbox.unwrap().tree
}

/// A start at level 2 as it is planned.
pub(crate) fn spec(rig: &mut Rig, argv: &[&str]) -> LaunchSpec {
    rig.spec(Level::Namespaces, argv)
}

/// A shell command at level 2, with more nodes at the end of the tree. Without Landlock: only mounts
/// are tested.
pub(crate) fn shell_with(
    rig: &mut Rig,
    nodes: impl IntoIterator<Item = Node>,
    script: &str,
) -> LaunchSpec {
    let mut spec = spec(rig, &["sh", "-c", script]);
    spec.plan.landlock = None;
    spec.plan.sandbox.as_mut().unwrap().tree.extend(nodes);
    spec
}

/// Runs a shell command at level 2 and gives its standard output.
pub(crate) fn output(rig: &mut Rig, script: &str) -> String {
    let spec = spec(rig, &["sh", "-c", script]);
    crate::rig::text(&rig.run(&spec))
}

/// A pipe in the workspace by which an agent says that it is where a test wants it: `echo > bell`.
pub(crate) struct Bell(std::fs::File);

impl Bell {
    pub(crate) fn new(rig: &Rig) -> Self {
        use std::os::unix::fs::OpenOptionsExt;
        let path = rig.path("workspace").join("bell");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut options = std::fs::File::options();
        // Open for writing as well: it never comes to an end.
        Self(options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap())
    }

    /// Waits until it rings; panics at the deadline.
    pub(crate) fn rung(&mut self) {
        use std::io::Read;
        crate::rig::readable(&self.0, "the bell");
        let mut word = [0; 64];
        assert!(self.0.read(&mut word).unwrap() > 0);
    }
}

/// Set in a part of a test that runs on a host of its own.
pub(crate) const PART: &str = "MISSIOND_TEST_PART";

/// Runs `part` of a test as root of user and mount namespaces of its own, after a shell command: this
/// test program is started again for this one test, which then comes here once more.
pub(crate) fn as_root_of_a_host(test: &str, prepare: &str, part: impl FnOnce()) {
    if std::env::var_os(PART).is_some() {
        return part();
    }
    let output = std::process::Command::new("unshare")
        .args(["-Urm", "sh", "-c", &format!("{prepare} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(PART, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}
