//! An agent's side as overlayfs would write it, without overlayfs: that is for the tests of the kernel.

use std::os::unix::fs::symlink;

use super::*;

/// A workspace and an agent's side, written as overlayfs would.
struct Scene {
    dir: tempfile::TempDir,
    private: Private,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for name in ["w/src", "w/.git/refs", "w/.git/objects", "w/.git/hooks", "w/old/deep"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        for name in [
            "w/a",
            "w/b",
            "w/src/main",
            "w/.git/config",
            "w/.git/HEAD",
            "w/old/deep/x",
            "w/mission.toml",
        ] {
            fs::write(base.join(name), name).unwrap();
        }
        // The session is younger than all that.
        let private = Private::at(base.join("private"));
        let scene = Scene { dir, private };
        scene.tick();
        scene.begin();
        scene
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path)
    }

    fn begin(&self) -> Upper {
        self.private.begin(&self.at("w"), &[self.at("w/mission.toml")]).unwrap()
    }

    /// Waits until the clock that the kernel stamps files with has moved on.
    fn tick(&self) {
        let stamp = || {
            fs::write(self.at("stamp"), "").unwrap();
            let meta = fs::metadata(self.at("stamp")).unwrap();
            (meta.ctime(), meta.ctime_nsec())
        };
        let first = stamp();
        while stamp() == first {}
    }

    /// The agent writes a file.
    fn agent(&self, path: &str, text: &str) {
        let path = self.at("private/upper").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The agent deletes: as overlayfs marks it. Making such a device is everybody's right.
    fn agent_deletes(&self, path: &str) {
        let path = self.at("private/upper").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    }

    fn mark(&self, path: &str, name: &str, value: &str) {
        let file = File::open(self.at("private/upper").join(path)).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(file, name, value.as_bytes(), flags).unwrap();
    }

    fn changes(&self) -> Vec<String> {
        shown(&self.private.changes().unwrap())
    }

    fn accept(&self, only: &[&str], partly: bool) -> Result<Vec<String>, PrivateError> {
        let only: Vec<PathBuf> = only.iter().map(PathBuf::from).collect();
        self.private.accept(&self.at("lock"), &only, partly).map(|changes| shown(&changes))
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }
}

fn shown(changes: &[Change]) -> Vec<String> {
    let one = |change: &Change| {
        let sign = match change.what {
            What::Added => "A",
            What::Modified => "M",
            What::Deleted => "D",
            What::Replaced => "R",
        };
        let verdict = match &change.verdict {
            Verdict::Fine => String::new(),
            Verdict::Refused(why) => format!(" refused: {why}"),
            Verdict::Conflict(why) => format!(" conflict: {why}"),
        };
        let slash = if change.kind == Kind::Directory { "/" } else { "" };
        format!("{sign} {}{slash}{verdict}", change.path.display())
    };
    changes.iter().map(one).collect()
}

#[test]
fn every_kind_of_change_is_taken_back_and_leaves_the_agents_side() {
    let scene = Scene::new();
    scene.agent("a", "new a");
    scene.agent("src/lib", "lib");
    scene.agent("src/deep/er/file", "x");
    scene.agent_deletes("b");
    scene.agent_deletes("old");
    symlink("a", scene.at("private/upper/link")).unwrap();
    fs::set_permissions(scene.at("private/upper/src/lib"), Permissions::from_mode(0o4755)).unwrap();
    let expected = [
        "M a",
        "D b",
        "A link",
        "D old/",
        "A src/deep/",
        "A src/deep/er/",
        "A src/deep/er/file",
        "A src/lib",
    ];
    assert_eq!(scene.changes(), expected);
    assert_eq!(scene.accept(&[], false).unwrap(), expected);
    assert_eq!(scene.read("w/a"), "new a");
    assert_eq!(scene.read("w/src/deep/er/file"), "x");
    assert_eq!(scene.read("w/src/main"), "w/src/main");
    assert!(!scene.at("w/b").exists() && !scene.at("w/old").exists());
    assert_eq!(fs::read_link(scene.at("w/link")).unwrap(), Path::new("a"));
    let mode = fs::metadata(scene.at("w/src/lib")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755, "never setuid");
    assert!(matches!(scene.private.changes(), Err(PrivateError::None)), "the session is over");
    scene.begin();
    assert_eq!(scene.changes(), [""; 0]);
}

#[test]
fn what_the_workspace_changed_meanwhile_is_never_overwritten() {
    let scene = Scene::new();
    scene.agent("a", "the agent's");
    scene.agent("b", "the agent's");
    scene.agent_deletes("old");
    scene.agent("gone", "the agent's");
    scene.mark("gone", "user.overlay.origin", "x");
    scene.agent("src/new", "the agent's");
    fs::write(scene.at("w/a"), "a person's").unwrap();
    fs::write(scene.at("w/old/deep/y"), "a person's").unwrap();
    fs::write(scene.at("w/src/new"), "a person's").unwrap();
    assert_eq!(
        scene.changes(),
        [
            "M a conflict: a has changed since",
            "M b",
            "A gone conflict: gone was removed since",
            "D old/ conflict: old/deep/y has changed since",
            "M src/new conflict: src/new has changed since",
        ]
    );
    assert!(matches!(scene.accept(&[], false), Err(PrivateError::Conflicts { count: 4 })));
    assert_eq!(scene.read("w/b"), "w/b", "nothing was taken");
    assert_eq!(scene.accept(&["b"], false).unwrap(), ["M b"]);
    scene.accept(&[], true).unwrap();
    assert_eq!(scene.read("w/b"), "the agent's");
    assert_eq!(scene.read("w/a"), "a person's");
    assert_eq!(scene.read("w/old/deep/y"), "a person's");
    assert_eq!(scene.read("w/src/new"), "a person's");
    assert_eq!(scene.changes().len(), 4, "they wait");
    // What was taken back is no conflict with itself.
    scene.agent("b", "the agent's second");
    assert!(scene.changes().contains(&"M b".to_owned()));
    scene.accept(&["b"], false).unwrap();
    assert_eq!(scene.read("w/b"), "the agent's second");
}

#[test]
fn what_git_or_the_mission_would_run_never_comes_back() {
    let scene = Scene::new();
    for path in [
        ".git/hooks/pre-commit",
        ".git/config",
        ".git/commondir",
        ".git/config.worktree",
        ".git/modules/x/config",
        ".git/objects/info/alternates",
        ".GIT/config",
        "sub/.git/config",
        "sub/.git/HEAD",
        "bare/HEAD",
        "mission.toml",
    ] {
        scene.agent(path, "evil");
    }
    symlink("/etc", scene.at("private/upper/etc")).unwrap();
    symlink("../..", scene.at("private/upper/src-up")).unwrap();
    fs::create_dir_all(scene.at("private/upper/src")).unwrap();
    symlink("../a", scene.at("private/upper/src/fine")).unwrap();
    nix::unistd::mkfifo(&scene.at("private/upper/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    scene.agent(".git/objects/ab/cd", "object");
    scene.agent(".git/refs/heads/side", "ref");
    let before = scene.read("w/.git/config");
    let taken = scene.accept(&[], false).unwrap();
    let fine: Vec<&String> = taken.iter().filter(|line| !line.contains(" refused: ")).collect();
    assert_eq!(
        fine,
        [
            "A .git/objects/ab/",
            "A .git/objects/ab/cd",
            "A .git/refs/heads/",
            "A .git/refs/heads/side",
            "A bare/",
            "A src/fine",
            "A sub/",
        ]
    );
    assert_eq!(scene.read("w/.git/config"), before);
    for path in [
        "w/.git/hooks/pre-commit",
        "w/.git/commondir",
        "w/sub/.git",
        "w/etc",
        "w/bare/HEAD",
        "w/pipe",
        "w/.GIT",
    ] {
        assert!(fs::symlink_metadata(scene.at(path)).is_err(), "{path}");
    }
    assert_eq!(scene.read("w/mission.toml"), "w/mission.toml");
}

#[test]
fn a_repository_or_what_holds_something_protected_can_not_be_deleted_or_replaced() {
    let scene = Scene::new();
    scene.agent_deletes(".git");
    scene.agent_deletes("mission.toml");
    let refused = |line: &String| line.contains(" refused: ");
    assert!(scene.changes().iter().all(refused), "{:?}", scene.changes());
    scene.accept(&[], false).unwrap();
    assert!(scene.at("w/.git/config").exists() && scene.at("w/mission.toml").exists());
}

#[test]
fn an_opaque_directory_deletes_what_it_hides_and_a_kind_can_change() {
    let scene = Scene::new();
    scene.agent("old/only", "new");
    scene.mark("old", "user.overlay.opaque", "y");
    scene.agent("a/is/a/directory", "now");
    assert_eq!(
        scene.changes(),
        ["R a/", "A a/is/", "A a/is/a/", "A a/is/a/directory", "D old/deep/", "A old/only"]
    );
    scene.accept(&[], false).unwrap();
    assert_eq!(scene.read("w/a/is/a/directory"), "now");
    assert_eq!(scene.read("w/old/only"), "new");
    assert!(!scene.at("w/old/deep").exists());
}

#[test]
fn nothing_is_done_while_the_agent_runs() {
    let scene = Scene::new();
    scene.agent("a", "new");
    let shim = hold(&scene.at("lock")).unwrap();
    assert!(matches!(scene.accept(&[], false), Err(PrivateError::Running)));
    let discarded = scene.private.discard(&scene.at("lock"), &[]);
    assert!(matches!(discarded, Err(PrivateError::Running)));
    assert_eq!(scene.changes(), ["M a"], "looking is allowed");
    drop(shim);
    scene.accept(&[], false).unwrap();
    assert_eq!(scene.read("w/a"), "new");
}

#[test]
fn discarded_changes_are_gone_and_the_workspace_is_as_it_was() {
    let scene = Scene::new();
    scene.agent("a", "new");
    scene.agent("src/x/y", "new");
    scene.agent_deletes("b");
    let lock = scene.at("lock");
    let some = scene.private.discard(&lock, &[PathBuf::from("src")]).unwrap();
    assert_eq!(shown(&some), ["A src/x/", "A src/x/y"]);
    assert_eq!(scene.changes(), ["M a", "D b"]);
    // Directories that their owner may not search are no obstacle.
    fs::set_permissions(scene.at("private/work"), Permissions::from_mode(0o0)).unwrap();
    assert_eq!(scene.private.discard(&lock, &[]).unwrap().len(), 2);
    assert!(matches!(scene.private.changes(), Err(PrivateError::None)));
    assert!(!scene.at("private/upper").exists());
    assert_eq!(scene.read("w/a"), "w/a");
}

#[test]
fn a_session_goes_on_with_the_next_start_and_belongs_to_one_tree() {
    let scene = Scene::new();
    scene.agent("a", "new");
    scene.begin();
    assert_eq!(scene.changes(), ["M a"]);
    fs::create_dir(scene.at("other")).unwrap();
    let other = scene.private.begin(&scene.at("other"), &[]);
    assert!(matches!(other, Err(PrivateError::OtherTree { .. })));
}
