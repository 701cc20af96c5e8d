//! Protected places of a writable workspace at level 2: rows 22-27, 49 to 51 of what an agent may not
//! be able to do, with the search, the planner and the kernel together.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::path::{Path, PathBuf};
use std::process::Command as Program;

use missiond::launch::{Exit, LaunchSpec, Report};
use missiond::policy::{Level, PrivateTree};
use missiond::workspace::private::{Private, Upper, Verdict};
use missiond::workspace::{Registry, Scanner, User, Wanted, excludes};

use crate::rig::{Rig, ended, next, text};
use crate::stage::skip_without_userns;
use crate::support::{alone, skip};

/// Runs git in a directory of the rig, without anybody's configuration.
fn git(rig: &Rig, at: &str, words: &[&str]) {
    let output = Program::new("git")
        .args(words)
        .current_dir(rig.path(at))
        .env("HOME", rig.path("home"))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {words:?}: {output:?}");
}

fn skip_here(test: &str) -> bool {
    let git = Program::new("git").arg("--version").output().is_ok();
    skip_without_userns(test) || skip(test, "git", git, "no git")
}

/// A rig whose agent has a name for git.
fn rig() -> Rig {
    let rig = Rig::new();
    std::fs::write(rig.path("home/.gitconfig"), "[user]\n\tname = n\n\temail = e@x\n").unwrap();
    rig
}

fn repository(rig: &Rig, at: &str) {
    std::fs::create_dir_all(rig.path(at)).unwrap();
    git(rig, at, &["init", "-q"]);
    git(rig, at, &["commit", "-qm", "first", "--allow-empty"]);
}

/// A start of a shell in the workspace, protected as the daemon does it.
fn protected(rig: &mut Rig, files: &[&str], script: &str) -> (LaunchSpec, Registry, User) {
    let wanted = Wanted {
        trees: vec![rig.path("workspace")],
        names: vec![".mcp.json".to_owned()],
        files: files.iter().map(|file| rig.path(file)).collect(),
        ..Wanted::default()
    };
    let mut found = Scanner::default().search(&wanted, true).unwrap();
    let registry = Registry::open(&rig.path("state")).unwrap();
    let user = registry.acquire(&mut found, &rig.path("lock")).unwrap().unwrap();
    let mut request = rig.request(Level::Namespaces);
    request.roots.protected = found.protected().unwrap();
    request.roots.extra_write = found.outside.clone();
    for (number, one) in excludes(&found, user.places()).into_iter().enumerate() {
        let source = rig.path(&format!("exclude-{number}"));
        std::fs::write(&source, one.text).unwrap();
        request.roots.substitutes.push((source, one.target));
    }
    let spec = rig.spec_for(&request, &["sh", "-c", script]);
    (spec, registry, user)
}

/// Everything below a directory, with the content of files.
fn tree(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if std::fs::symlink_metadata(&path).unwrap().is_dir() {
            all.extend(tree(&path));
            all.push((path, None));
        } else {
            let content = std::fs::read(&path).ok();
            all.push((path, content));
        }
    }
    all.sort();
    all
}

/// Runs deeds that must fail and looks at what each got.
fn refused(rig: &mut Rig, files: &[&str], deeds: &[(&str, &str)]) {
    let before = tree(&rig.path("workspace"));
    let script: String = deeds
        .iter()
        .map(|(deed, _)| format!("( {deed} ) >/dev/null 2>err && echo done || tail -n1 err\n"))
        .collect();
    // `mv` would copy where it can't rename, which makes another file.
    std::fs::write(rig.path("home/rename.pl"), "rename($ARGV[0], $ARGV[1]) or die \"$!\\n\"\n")
        .unwrap();
    let (w, home) = (rig.path("workspace"), rig.path("home"));
    let script =
        format!("cd /tmp; W={}; R='perl {}/rename.pl'; {script}", w.display(), home.display());
    let (spec, registry, user) = protected(rig, files, &script);
    let out = text(&rig.run(&spec));
    let _cleaned = registry.release(user).unwrap();
    let said: Vec<&str> = out.lines().collect();
    assert_eq!(said.len(), deeds.len(), "{out}");
    for ((deed, expected), said) in deeds.iter().zip(said) {
        let any = expected.split('|').any(|one| said.contains(one));
        assert!(any, "{deed}: expected {expected}, got {said}");
    }
    assert_eq!(tree(&rig.path("workspace")), before, "the host is unchanged");
}

const ROFS: &str = "Read-only file system";
const BUSY: &str = "Device or resource busy";

#[test]
fn what_git_would_run_can_not_be_written_made_or_moved_away() {
    const NAME: &str = "protection::what_git_would_run_can_not_be_written_made_or_moved_away";
    alone(NAME, || {
        if skip_here(NAME) {
            return;
        }
        let mut rig = rig();
        repository(&rig, "workspace");
        repository(&rig, "workspace/deep/nested");
        std::fs::remove_dir_all(rig.path("workspace/deep/nested/.git/hooks")).unwrap();
        git(&rig, "workspace", &["worktree", "add", "-q", "tree"]);
        std::fs::write(rig.path("workspace/mission.toml"), "[mission]\n").unwrap();
        std::fs::write(rig.path("workspace/planner.sh"), "#!/bin/sh\n").unwrap();
        refused(
            &mut rig,
            &["workspace/mission.toml", "workspace/planner.sh"],
            &[
                // 25: missing, its parent is there
                ("echo x > $W/.git/hooks/pre-commit", ROFS),
                ("echo x > $W/.mcp.json", ROFS),
                ("echo x > $W/deep/nested/.git/hooks/pre-commit", ROFS),
                ("echo x > $W/mission.toml", ROFS),
                ("rm $W/mission.toml", "Device or resource busy|Read-only"),
                // 26
                ("echo x >> $W/.git/config", ROFS),
                ("git -C $W config core.fsmonitor ./x", "error: could not lock|Read-only|busy"),
                ("echo x >> $W/deep/nested/.git/config", ROFS),
                ("chmod 777 $W/.git/config", ROFS),
                // 27
                ("mv $W/.git $W/.git2", BUSY),
                ("mv $W/deep $W/deeper", BUSY),
                ("$R $W/deep/nested $W/n", "cross-device|busy"),
                ("rm -r $W/.git/hooks", "Device or resource busy|Read-only"),
                ("ln -f $W/planner.sh $W/other", "Invalid cross-device link|not permitted"),
                ("ln /etc/passwd $W/passwd", "cross-device|not permitted"),
                // 49
                ("echo ../x > $W/.git/commondir", ROFS),
                ("echo x > $W/.git/config.worktree", ROFS),
                ("echo x > $W/.git/worktrees/tree/commondir", ROFS),
                ("echo x > $W/.git/worktrees/tree/config.worktree", ROFS),
                ("echo x > $W/tree/.git", ROFS),
                ("$R $W/tree/.git $W/x", "cross-device|busy"),
                ("mv $W/.git/worktrees/tree $W/.git/worktrees/t", BUSY),
                // 51
                ("echo x >> $W/planner.sh", ROFS),
                ("mv $W/x $W/planner.sh", "No such file|busy"),
                ("echo x > $W/y && mv $W/y $W/planner.sh; rm -f $W/y; exit 1", "busy|Read-only"),
                ("umount $W/.git/config", "not permitted|must be superuser|not found"),
                ("mount -o remount,rw $W/.git/config", "denied|must be|not|failed mount"),
            ],
        );
    });
}

#[test]
fn git_works_in_a_protected_workspace() {
    const NAME: &str = "protection::git_works_in_a_protected_workspace";
    alone(NAME, || {
        if skip_here(NAME) {
            return;
        }
        let mut rig = rig();
        repository(&rig, "workspace");
        let script = "set -e; echo a > a; git add a; git commit -qm second; git branch side; \
                      git worktree add -q ../workspace/wt side; cd wt; echo b > b; git add b; \
                      git commit -qm third; cd ..; git merge -q side; git gc -q; git log --format=%s; \
                      git status --short; git stash list";
        let (spec, registry, user) = protected(&mut rig, &[], script);
        let ended = rig.run(&spec);
        let log = std::fs::read_to_string(rig.path("log/stderr.log")).unwrap_or_default();
        assert_eq!(Exit::from(&ended), Exit::Exited(0), "{log}");
        // Placeholders are no business of git's.
        assert_eq!(text(&ended), "third\nsecond\nfirst\n?? wt/", "{log}");
        let _cleaned = registry.release(user).unwrap();
        git(&rig, "workspace", &["fsck", "--strict"]);
        assert!(!rig.path("workspace/.mcp.json").exists());
        assert!(!rig.path("workspace/.git/commondir").exists());
    });
}

#[test]
fn a_worktree_is_committed_to_and_its_repository_stays_as_it_is() {
    const NAME: &str = "protection::a_worktree_is_committed_to_and_its_repository_stays_as_it_is";
    alone(NAME, || {
        if skip_here(NAME) {
            return;
        }
        let mut rig = rig();
        repository(&rig, "main");
        std::fs::remove_dir(rig.path("workspace")).unwrap();
        git(&rig, "main", &["worktree", "add", "-q", "../workspace"]);
        git(&rig, "main", &["worktree", "add", "-q", "../other"]);
        let main = rig.path("main/.git");
        let script = format!(
            "echo a > a; git add a; git commit -qm inside || exit 1; M={}; \
             for deed in 'echo x >> $M/config' 'echo x > $M/hooks/pre-commit' \
             'echo x > $M/worktrees/other/HEAD' 'echo x > $M/worktrees/workspace/commondir' \
             'mv $M/worktrees $M/w'; do \
             ( eval \"$deed\" ) 2>/dev/null && echo \"$deed\"; done; git log --format=%s",
            main.display()
        );
        let (spec, registry, user) = protected(&mut rig, &[], &script);
        let ended = rig.run(&spec);
        let log = std::fs::read_to_string(rig.path("log/stderr.log")).unwrap_or_default();
        assert_eq!(text(&ended), "inside\nfirst", "{log}");
        let _cleaned = registry.release(user).unwrap();
        git(&rig, "main", &["fsck", "--strict"]);
        git(&rig, "workspace", &["show", "HEAD:a"]);
        git(&rig, "other", &["status"]);
        assert!(!rig.path("main/.git/commondir").exists());
    });
}

#[test]
fn an_agent_whose_protection_is_taken_off_by_the_host_is_ended() {
    const NAME: &str = "protection::an_agent_whose_protection_is_taken_off_by_the_host_is_ended";
    alone(NAME, || {
        if skip_here(NAME) {
            return;
        }
        let mut rig = rig();
        repository(&rig, "workspace");
        // Waits for a word that never comes.
        let script = "mkfifo /tmp/never; read word < /tmp/never";
        let (spec, registry, user) = protected(&mut rig, &[], script);
        let mut handle = rig.start(&spec);
        let payload = crate::rig::started(&mut handle);
        // What isn't protected is nobody's business.
        git(&rig, "workspace", &["commit", "-qm", "by the host", "--allow-empty"]);
        git(&rig, "workspace", &["config", "user.name", "somebody"]);
        let report = next(&mut handle);
        let Some(Report::Detached { places }) = report else {
            panic!("expected Detached, got {report:?}");
        };
        assert!(places.ends_with("workspace/.git/config"), "{places}");
        let ended = ended(&mut handle);
        assert_eq!(Exit::from(&ended), Exit::Signaled(9));
        crate::rig::gone_within(payload, crate::rig::DEADLINE);
        let _cleaned = registry.release(user).unwrap();
    });
}

#[test]
fn a_link_in_the_place_of_a_protected_file_fails_the_start() {
    const NAME: &str = "protection::a_link_in_the_place_of_a_protected_file_fails_the_start";
    alone(NAME, || {
        if skip_here(NAME) {
            return;
        }
        let mut rig = rig();
        repository(&rig, "workspace");
        std::fs::write(rig.path("outside"), "secret").unwrap();
        let (spec, registry, user) = protected(&mut rig, &[], "true");
        // Between the search and the start: as an agent would that still works here.
        let config = rig.path("workspace/.git/config");
        std::fs::remove_file(&config).unwrap();
        std::os::unix::fs::symlink(rig.path("outside"), &config).unwrap();
        let mut handle = rig.start(&spec);
        let exit = crate::rig::exit(&mut handle);
        let Exit::SetupFailed { detail, errno, .. } = exit else { panic!("{exit:?}") };
        assert_eq!((detail.as_str(), errno), (config.to_str().unwrap(), libc::ELOOP));
        let _cleaned = registry.release(user).unwrap();
    });
}

/// A private workspace as the daemon begins it, and a shell in it.
fn in_private(rig: &mut Rig, script: &str) -> (String, Private) {
    let private = Private::at(rig.path("private"));
    let begun = private.begin(&rig.path("workspace"), &[rig.path("workspace/mission.toml")]);
    let Upper { upper, work } = begun.unwrap();
    let mut request = rig.request(Level::Namespaces);
    request.roots.private = Some(PrivateTree { upper, work });
    let spec = rig.spec_for(&request, &["sh", "-c", script]);
    let ended = rig.run(&spec);
    let log = std::fs::read_to_string(rig.path("log/stderr.log")).unwrap_or_default();
    assert_eq!(Exit::from(&ended), Exit::Exited(0), "{log}");
    (text(&ended), private)
}

#[test]
fn what_an_agent_writes_in_a_private_workspace_comes_back_only_when_it_is_accepted() {
    const NAME: &str = "protection::what_an_agent_writes_in_a_private_workspace_comes_back_only_when_it_is_accepted";
    alone(NAME, || {
        if skip_here(NAME) {
            return;
        }
        let mut rig = rig();
        repository(&rig, "workspace");
        let w = rig.path("workspace");
        for (path, text) in [("a", "a\n"), ("b", "b\n"), ("old/x", "x\n"), ("mission.toml", "\n")] {
            std::fs::create_dir_all(w.join(path).parent().unwrap()).unwrap();
            std::fs::write(w.join(path), text).unwrap();
        }
        let before = tree(&w);
        let script = "set -e; echo new > a; rm b; rm -r old; mkdir old; echo y > old/y; mkdir -p n/e; \
                      echo s > n/e/w; ln -s w n/e/link; chmod 755 n/e/w; mv n moved; \
                      git add a; git commit -qm inside; echo evil > .git/hooks/pre-commit; \
                      git config core.fsmonitor ./x; echo evil > mission.toml; ln -s /etc out; cat a";
        let (out, private) = in_private(&mut rig, script);
        assert_eq!(out, "new");
        assert_eq!(tree(&w), before, "the real tree is as it was");

        // The next start goes on where the last one ended.
        let (out, private_again) =
            in_private(&mut rig, "cat a old/y moved/e/w; ls b old/x 2>&1 | wc -l");
        assert_eq!(out, "new\ny\ns\n2");
        drop(private_again);

        let changes = private.accept(&rig.path("lock"), &[], false).unwrap();
        let refused = |path: &str| {
            let change = changes.iter().find(|change| change.path == Path::new(path));
            matches!(change.map(|change| &change.verdict), Some(Verdict::Refused(_)))
        };
        for path in [".git/hooks/pre-commit", ".git/config", "mission.toml", "out"] {
            assert!(refused(path), "{path}: {changes:#?}");
        }
        assert_eq!(std::fs::read_to_string(w.join("a")).unwrap(), "new\n");
        assert!(!w.join("b").exists() && !w.join("old/x").exists());
        assert_eq!(std::fs::read_to_string(w.join("old/y")).unwrap(), "y\n");
        assert_eq!(std::fs::read_link(w.join("moved/e/link")).unwrap(), Path::new("w"));
        git(&rig, "workspace", &["fsck", "--strict"]);
        git(&rig, "workspace", &["diff", "--quiet", "HEAD", "--", "a"]);
        assert!(!w.join(".git/hooks/pre-commit").exists());

        private.discard(&rig.path("lock"), &[]).unwrap();
        let (out, _private) = in_private(&mut rig, "cat a; git log --format=%s; test ! -e out");
        assert_eq!(out, "new\ninside\nfirst");
    });
}
