//! Protected places inside of what an agent writes.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::deed::Deed;
use crate::puppet::Puppet;
use crate::stage::{DEADLINE, Stage, ends_within, listing};
use crate::support::skip;

const READ_ONLY: [i32; 3] = [libc::EROFS, libc::EACCES, libc::EBUSY];

/// True if there is no git, and the row is skipped.
fn skip_without_git(name: &str) -> bool {
    let there = Command::new("git").arg("--version").stdout(Stdio::null()).status();
    skip(name, "git", there.is_ok_and(|status| status.success()), "there is no git")
}

/// The host's git.
fn git(dir: &Path, args: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.email=a@b", "-c", "user.name=n", "-c", "init.defaultBranch=main"])
        .args(["-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success(), "git {args:?} in {}", dir.display());
}

/// A repository with a commit.
fn repository(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    git(dir, &["init", "-q"]);
    git(dir, &["commit", "-q", "--allow-empty", "-m", "first"]);
}

fn written(agent: &mut Puppet, path: &Path) {
    for deed in [
        Deed::Write(path.to_owned(), "OWNED".into()),
        Deed::Orphan(Box::new(Deed::Write(path.to_owned(), "OWNED".into()))),
    ] {
        let errno = agent.errno(&deed);
        assert!(READ_ONLY.contains(&errno), "{deed:?}: {errno}");
    }
}

/// All names below a directory with their texts, without what git changes by itself.
fn texts(root: &Path) -> Vec<(String, Vec<u8>)> {
    listing(root)
        .into_iter()
        .map(|name| {
            let text = std::fs::read(root.join(&name)).unwrap_or_default();
            (name, text)
        })
        .collect()
}

pub(crate) fn hooks_and_configuration_of_git_are_read_only(name: &str) {
    if skip_without_git(name) {
        return;
    }
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let workspace = stage.path("ws");
    repository(&workspace);
    let nested = workspace.join("deep/nested");
    repository(&nested);
    let tree = workspace.join("tree");
    git(&workspace, &["worktree", "add", "-q", "tree", "-b", "other"]);
    git(&workspace, &["submodule", "add", "-q", nested.to_str().unwrap(), "sub"]);
    let before = texts(&workspace);
    let mut daemon = stage.start();
    agent.ready();
    let dot_git = workspace.join(".git");
    for path in [
        dot_git.join("config"),
        dot_git.join("hooks/pre-commit"),
        dot_git.join("commondir"),
        dot_git.join("config.worktree"),
        dot_git.join("modules/sub/config"),
        dot_git.join("modules/sub/hooks/post-checkout"),
        dot_git.join("worktrees/tree/commondir"),
        dot_git.join("worktrees/tree/gitdir"),
        nested.join(".git/config"),
        nested.join(".git/hooks/pre-commit"),
        tree.join(".git"),
        workspace.join("sub/.git"),
    ] {
        written(&mut agent, &path);
    }
    for (dir, key) in [(&workspace, "core.fsmonitor"), (&nested, "core.hooksPath")] {
        let script =
            format!("cd '{}' && git config {key} /tmp/x 2>&1; echo code $?", dir.display());
        let said = agent.text(&Deed::Sh(script));
        assert!(!said.ends_with("code 0"), "{said}");
    }
    // The other half: git works, in all of them.
    for dir in [&workspace, &nested, &tree] {
        let script = format!(
            "cd '{}' && echo x >made && git add made && git -c user.email=a@b -c user.name=n commit -qm x 2>&1; \
             echo code $?; git rm -q --cached made; rm -f made; git reset -q --hard HEAD~1",
            dir.display()
        );
        let said = agent.text(&Deed::Sh(script));
        assert!(said.contains("code 0"), "{}: {said}", dir.display());
    }
    daemon.stop();
    let control = |texts: Vec<(String, Vec<u8>)>| -> Vec<(String, Vec<u8>)> {
        let about = ["config", "hooks/", "commondir", "gitdir"];
        let kept = texts.into_iter();
        kept.filter(|(name, _)| about.iter().any(|part| name.contains(part))).collect()
    };
    assert_eq!(control(texts(&workspace)), control(before));
}

pub(crate) fn a_missing_protected_file_is_not_made_and_nothing_stays(name: &str) {
    if skip_without_git(name) {
        return;
    }
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let workspace = stage.path("ws");
    repository(&workspace);
    std::fs::remove_dir_all(workspace.join(".git/hooks")).unwrap();
    let before = texts(&workspace);
    let mut daemon = stage.start();
    agent.ready();
    for path in
        [".git/hooks/pre-commit", ".mcp.json", ".claude/settings.json", ".vscode/tasks.json"]
    {
        written(&mut agent, &workspace.join(path));
    }
    let errno = agent.errno(&Deed::MakeDir(workspace.join(".git/hooks/x")));
    assert!(READ_ONLY.contains(&errno), "{errno}");
    // The mission file lies beside the workspace, where there is nothing for it to see.
    let errno = agent.errno(&Deed::Write(stage.path("mission.toml"), "OWNED".into()));
    assert!([libc::ENOENT, libc::EROFS, libc::EACCES].contains(&errno), "{errno}");
    daemon.stop();
    assert_eq!(texts(&workspace), before, "something stays");
}

pub(crate) fn what_holds_something_protected_stays_in_its_place(name: &str) {
    if skip_without_git(name) {
        return;
    }
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let workspace = stage.path("ws");
    repository(&workspace);
    repository(&workspace.join("deep/nested"));
    let secret = stage.path("secret");
    std::fs::write(&secret, "PRIVATE KEY").unwrap();
    let mut daemon = stage.start();
    agent.ready();
    let moved = workspace.join("moved");
    for from in [".git", ".git/hooks", ".git/config", "deep", "deep/nested", "deep/nested/.git"] {
        let errno = agent.errno(&Deed::Rename(workspace.join(from), moved.clone()));
        assert!([libc::EBUSY, libc::EXDEV, libc::EROFS].contains(&errno), "{from}: {errno}");
    }
    let links = [
        (secret.clone(), workspace.join("linked")),
        ("/etc/passwd".into(), workspace.join("linked")),
        (workspace.join(".git/config"), workspace.join("linked")),
    ];
    for (from, to) in links {
        let errno = agent.errno(&Deed::Link(from.clone(), to));
        let refusals = [libc::EXDEV, libc::EACCES, libc::EPERM, libc::ENOENT, libc::EROFS];
        assert!(refusals.contains(&errno), "{}: {errno}", from.display());
    }
    let script =
        format!("cd '{}' && rm -rf .git deep 2>/dev/null; ls -d .git/config", workspace.display());
    let left = agent.text(&Deed::Sh(script));
    assert_eq!(left, ".git/config");
    daemon.stop();
    assert!(workspace.join(".git/config").is_file());
    assert!(workspace.join("deep/nested/.git/config").is_file());
    assert!(!moved.exists() && !workspace.join("linked").exists());
}

pub(crate) fn a_link_in_the_place_of_a_parent_makes_nothing_outside(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let workspace = stage.path("ws");
    let outside = stage.path("outside");
    std::fs::create_dir_all(outside.join("inner")).unwrap();
    // Where protected things would be made or mounted.
    for name in [".git", ".claude", ".github", ".vscode", "sub"] {
        symlink("../outside", workspace.join(name)).unwrap();
    }
    let before = listing(&outside);
    let mut daemon = stage.start();
    agent.ready();
    for path in [".git/hooks/x", ".claude/settings.json", ".github/workflows/x", "sub/new"] {
        let errno = agent.errno(&Deed::Write(workspace.join(path), "OWNED".into()));
        assert_ne!(errno, 0, "{path}");
        assert_eq!(listing(&outside), before, "while it runs");
    }
    daemon.stop();
    assert_eq!(listing(&outside), before);
    // The same by options: what a link leads to is meant, and only that.
    let inner = workspace.join("sub/inner");
    let output = stage.run(&["--ro", inner.to_str().unwrap()], &["touch", "sub/inner/new"]);
    assert!(!output.status.success());
    assert_eq!(listing(&outside), before);
}

pub(crate) fn protection_that_the_host_takes_off_ends_the_agent(name: &str) {
    if skip_without_git(name) {
        return;
    }
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let mut witness = stage.agent("b", "read", "");
    let workspace = stage.path("ws");
    repository(&workspace);
    let mut daemon = stage.start();
    let host = stage.ready(&mut agent);
    witness.ready();
    // Writes a new file and renames it over the old one: the mount goes with the old one.
    git(&workspace, &["config", "user.name", "somebody"]);
    assert!(ends_within(host.pid, DEADLINE), "the agent lives on without protection");
    let ended = stage.event("agent_ended", |_| true);
    assert_eq!(ended["data"]["exit"]["signaled"], libc::SIGKILL, "{ended}");
    let says_it =
        |event: &serde_json::Value| event["data"]["text"].to_string().contains("protection");
    stage.event("alert_raised", says_it);
    let config = std::fs::read_to_string(workspace.join(".git/config")).unwrap();
    assert!(config.contains("somebody"), "{config}");
    witness.is_served_within(DEADLINE);
    daemon.stop();
}

pub(crate) fn programs_of_other_agents_are_read_only(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let workspace = stage.path("ws");
    let program = workspace.join("b.sh");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    stage.more(&format!("[agents.b]\nrole = \"lead\"\ncommand = [{program:?}]\n"));
    let mut daemon = stage.start();
    agent.ready();
    written(&mut agent, &program);
    for deed in [
        Deed::Remove(program.clone()),
        Deed::Rename(program.clone(), workspace.join("moved")),
        Deed::Rename(workspace.join("moved"), program.clone()),
    ] {
        let errno = agent.errno(&deed);
        assert_ne!(errno, 0, "{deed:?}");
    }
    daemon.stop();
    assert!(std::fs::read_to_string(&program).unwrap().ends_with("sleep 1000\n"));
}
