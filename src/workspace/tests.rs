//! The search on real trees, most of them made by git itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// A directory, with git's own configuration kept out of it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("w")).unwrap();
        Place { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path)
    }

    /// Runs git in a directory; false (and a word) where there is no git.
    fn git(&self, at: &str, words: &[&str]) -> bool {
        let mut git = Command::new("git");
        git.current_dir(self.at(at)).args(words).env_clear();
        git.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.at(""));
        git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_ALLOW_PROTOCOL", "file");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "n").env(format!("GIT_{who}_EMAIL"), "e");
        }
        match git.output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "git {words:?}: {said}");
                true
            }
            Err(error) => {
                println!("SKIP workspace search: git: {error}");
                false
            }
        }
    }

    fn repository(&self, at: &str) -> bool {
        fs::create_dir_all(self.at(at)).unwrap();
        self.git(at, &["init", "-q"]) && self.git(at, &["commit", "-qm", "c", "--allow-empty"])
    }

    fn search(&self, wanted: Wanted) -> Found {
        Scanner::default().search(&wanted, false).unwrap()
    }

    fn wanted(&self) -> Wanted {
        Wanted { trees: vec![self.at("w")], ..Wanted::default() }
    }

    /// The protected places, relative; `+` before those that don't exist.
    fn places(&self, found: &Found) -> BTreeSet<String> {
        let base = self.at("");
        let relative = |path: &Path| path.strip_prefix(&base).unwrap().display().to_string();
        let missing: BTreeSet<_> = found.missing().map(|(path, _)| path.to_owned()).collect();
        let sign = |path: &Path| if missing.contains(path) { "+" } else { "" };
        found.places().map(|path| format!("{}{}", sign(path), relative(path))).collect()
    }
}

fn strings(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    paths.into_iter().map(|path| path.display().to_string()).collect()
}

fn set(places: &[&str]) -> BTreeSet<String> {
    places.iter().map(|place| (*place).to_owned()).collect()
}

#[test]
fn a_repository_keeps_its_hooks_configuration_and_commondir() {
    let place = Place::new();
    if !place.repository("w") {
        return;
    }
    let found = place.search(place.wanted());
    assert_eq!(
        place.places(&found),
        set(&["w/.git/config", "w/.git/hooks", "+w/.git/commondir", "+w/.git/config.worktree"])
    );
    assert_eq!(found.gaps, [""; 0]);
    let fillers: Vec<_> = found.missing().map(|(_, filler)| filler.clone()).collect();
    assert_eq!(fillers, [Filler::File(".\n"), Filler::File("")]);
}

#[test]
fn a_nested_repository_and_a_submodule_are_kept_like_the_outer_one() {
    let place = Place::new();
    if !(place.repository("lib") && place.repository("w") && place.repository("w/deep/er")) {
        return;
    }
    let add = ["-c", "protocol.file.allow=always", "submodule", "add", "-q", "../lib", "a/lib"];
    assert!(place.git("w", &["remote", "add", "origin", place.at("lib").to_str().unwrap()]));
    let from = place.at("lib");
    let mut add = add.to_vec();
    add[5] = from.to_str().unwrap();
    assert!(place.git("w", &add));
    let found = place.search(place.wanted());
    let places = place.places(&found);
    for kept in [
        "w/deep/er/.git/config",
        "w/deep/er/.git/hooks",
        "+w/deep/er/.git/commondir",
        "w/a/lib/.git",
        "w/.git/modules/a/lib/config",
        "w/.git/modules/a/lib/hooks",
        "+w/.git/modules/a/lib/commondir",
        "+w/.git/modules/a/lib/config.worktree",
    ] {
        assert!(places.contains(kept), "{kept}: {places:?}");
    }
    assert_eq!(found.gaps, [""; 0]);
}

#[test]
fn a_worktree_gets_its_real_git_directory_and_nothing_of_the_other_ones() {
    let place = Place::new();
    if !place.repository("main") {
        return;
    }
    fs::remove_dir(place.at("w")).unwrap();
    assert!(place.git("main", &["worktree", "add", "-q", "../w"]));
    assert!(place.git("main", &["worktree", "add", "-q", "../other"]));
    let found = place.search(place.wanted());
    assert_eq!(found.outside, [place.at("main/.git")]);
    assert_eq!(found.gaps, [""; 0]);
    assert_eq!(
        place.places(&found),
        set(&[
            "w/.git",
            "main/.git/config",
            "main/.git/hooks",
            "+main/.git/commondir",
            "+main/.git/config.worktree",
            "main/.git/worktrees/w/commondir",
            "main/.git/worktrees/w/gitdir",
            "+main/.git/worktrees/w/config.worktree",
            "main/.git/worktrees/other",
        ])
    );
}

#[test]
fn a_forged_git_file_gets_an_agent_nothing() {
    let place = Place::new();
    if !place.repository("victim") {
        return;
    }
    for (forged, target) in [
        (place.at("w/.git"), place.at("victim/.git")),
        (place.at("w/.git"), place.at("")),
        (place.at("w/.git"), PathBuf::from("/etc")),
    ] {
        fs::write(&forged, format!("gitdir: {}\n", target.display())).unwrap();
        let found = place.search(place.wanted());
        assert_eq!(found.outside, Vec::<PathBuf>::new(), "{}", target.display());
        assert!(found.gaps.iter().any(|gap| gap.contains("leads out")), "{:?}", found.gaps);
    }
    // Also with a forged worktree inside: what must say it is outside.
    fs::create_dir_all(place.at("w/sub/fake")).unwrap();
    fs::write(place.at("w/.git"), "gitdir: sub/fake\n").unwrap();
    fs::write(place.at("w/sub/fake/gitdir"), place.at("w/.git").to_str().unwrap()).unwrap();
    fs::write(place.at("w/sub/fake/commondir"), place.at("victim/.git").to_str().unwrap()).unwrap();
    fs::write(place.at("w/sub/fake/HEAD"), "ref: refs/heads/x\n").unwrap();
    let found = place.search(place.wanted());
    assert_eq!(found.outside, Vec::<PathBuf>::new());
    assert!(found.gaps.iter().any(|gap| gap.contains("leads out")), "{:?}", found.gaps);
}

#[test]
fn a_worktree_of_missionds_own_directories_is_not_given() {
    let place = Place::new();
    if !place.repository("main") {
        return;
    }
    fs::remove_dir(place.at("w")).unwrap();
    assert!(place.git("main", &["worktree", "add", "-q", "../w"]));
    let keep_out = vec![place.at("main/.git/missiond")];
    let found = place.search(Wanted { keep_out, ..place.wanted() });
    assert_eq!(found.outside, Vec::<PathBuf>::new());
}

#[test]
fn what_the_configuration_would_run_is_kept_wherever_it_is_named() {
    let place = Place::new();
    if !place.repository("w") {
        return;
    }
    for dir in ["tools", "home", "w/tools", "w/cfg", "w/.husky"] {
        fs::create_dir_all(place.at(dir)).unwrap();
    }
    fs::write(place.at("w/tools/monitor"), "").unwrap();
    fs::write(place.at("w/tools/clean"), "").unwrap();
    fs::write(place.at("w/cfg/more"), "[core]\nfsmonitor = tools/monitor --fast\n").unwrap();
    let config = "[core]\n\thooksPath = .husky\n[include]\n\tpath = ../cfg/more\n\
                  [includeIf \"gitdir:/never\"]\n\tpath = ../cfg/absent\n\
                  [filter \"x\"]\n\tclean = sh -c './tools/clean %f'\n\tsmudge = /usr/bin/env true\n\
                  [alias]\n\tgo = !./tools/absent\n\tno = !./none/x\n";
    fs::write(place.at("w/.git/config"), config).unwrap();
    fs::write(place.at("home/gitconfig"), "[core]\nhooksPath = .githooks\n").unwrap();
    let git_config = vec![place.at("home/gitconfig"), place.at("home/absent")];
    let found = place.search(Wanted { git_config, ..place.wanted() });
    let places = place.places(&found);
    for kept in [
        "w/.husky",
        "w/cfg/more",
        "+w/cfg/absent",
        "w/tools/monitor",
        "w/tools/clean",
        "+w/tools/absent",
        "+w/.githooks",
    ] {
        assert!(places.contains(kept), "{kept}: {places:?}");
    }
    assert!(!places.contains("+w/none"), "an agent may make its own directories: {places:?}");
    assert!(found.gaps.iter().any(|gap| gap.contains("none/x")), "{:?}", found.gaps);
}

#[test]
fn configuration_that_includes_itself_is_read_once() {
    let place = Place::new();
    if !place.repository("w") {
        return;
    }
    fs::write(place.at("w/.git/config"), "[include]\npath = config\n[include]\npath = ../b\n")
        .unwrap();
    fs::write(place.at("w/b"), "[include]\npath = .git/config\n").unwrap();
    let found = place.search(place.wanted());
    assert!(place.places(&found).contains("w/b"));
    assert_eq!(found.gaps, [""; 0]);
}

#[test]
fn names_of_the_policy_and_files_of_the_mission_are_kept_there_or_not() {
    let place = Place::new();
    fs::create_dir_all(place.at("w/.claude")).unwrap();
    fs::write(place.at("w/mission.toml"), "").unwrap();
    let wanted = Wanted {
        names: vec![".mcp.json".into(), ".vscode/".into(), ".claude/settings.json".into()],
        files: vec![place.at("w/mission.toml"), place.at("elsewhere.sh")],
        ..place.wanted()
    };
    let found = place.search(wanted);
    assert_eq!(
        place.places(&found),
        set(&["+w/.mcp.json", "+w/.vscode", "+w/.claude/settings.json", "w/mission.toml"])
    );
    let fillers: Vec<_> = found.missing().map(|(_, filler)| filler.clone()).collect();
    assert_eq!(fillers, [Filler::File("{}\n"), Filler::File("{}\n"), Filler::Directory]);
}

#[test]
fn a_link_in_the_place_of_something_protected_is_told_and_not_followed() {
    let place = Place::new();
    if !place.repository("w") {
        return;
    }
    fs::create_dir(place.at("target")).unwrap();
    fs::remove_dir_all(place.at("w/.git/hooks")).unwrap();
    symlink(place.at("target"), place.at("w/.git/hooks")).unwrap();
    fs::create_dir_all(place.at("w/x/repo")).unwrap();
    symlink(place.at("target"), place.at("w/x/repo/.git")).unwrap();
    fs::hard_link(place.at("w/.git/config"), place.at("w/alias")).unwrap();
    let found = place.search(place.wanted());
    let told = |what: &str| found.gaps.iter().any(|gap| gap.contains(what));
    assert!(told("w/.git/hooks is a symbolic link"), "{:?}", found.gaps);
    assert!(told("w/x/repo/.git is neither"), "{:?}", found.gaps);
    assert!(told("w/.git/config has 2 names"), "{:?}", found.gaps);
    assert!(!place.places(&found).iter().any(|path| path.contains("hooks")));
}

#[test]
fn a_repository_made_later_is_told_and_moved_aside_if_it_could_run_something() {
    let place = Place::new();
    if !(place.repository("w") && place.repository("elsewhere")) {
        return;
    }
    let scanner = Scanner::default();
    let before = scanner.search(&place.wanted(), true).unwrap().repositories;
    for name in ["plain", "hooked", "configured", "included"] {
        assert!(place.repository(&format!("w/{name}")));
    }
    assert!(place.git("w", &["worktree", "add", "-q", "tree"]));
    assert!(place.git("w", &["init", "-q", "--bare", "bare"]));
    fs::write(place.at("w/hooked/.git/hooks/pre-commit"), "#!/bin/sh\n").unwrap();
    assert!(place.git("w/configured", &["config", "core.fsmonitor", "./x"]));
    assert!(place.git("w/included", &["config", "include.path", "../x"]));
    assert!(place.git("w/bare", &["config", "alias.x", "!./x"]));
    fs::create_dir(place.at("w/out")).unwrap();
    fs::write(
        place.at("w/out/.git"),
        format!("gitdir: {}\n", place.at("elsewhere/.git").display()),
    )
    .unwrap();
    fs::create_dir(place.at("w/link")).unwrap();
    symlink(place.at("elsewhere/.git"), place.at("w/link/.git")).unwrap();

    let found = scanner.search(&place.wanted(), true).unwrap();
    let mut kept = Vec::new();
    let mut moved = Vec::new();
    for later in inspect(&place.wanted(), found.repositories.difference(&before)).unwrap() {
        match &later.danger {
            Some(why) => {
                let to = later.quarantine(&place.wanted()).unwrap();
                assert!(!later.path.exists() || later.path.ends_with("bare"), "{later:?}");
                moved.push((
                    strings([to]).remove(0).replace(&strings([place.at("w")])[0], ""),
                    why.clone(),
                ));
            }
            None => kept.push(later.path),
        }
    }
    assert_eq!(strings(kept), strings(["w/plain/.git", "w/tree/.git"].map(|path| place.at(path))));
    let moved: Vec<String> = moved.into_iter().map(|(to, why)| format!("{to}: {why}")).collect();
    let told = |to: &str, why: &str| {
        let found =
            moved.iter().any(|text| text.starts_with(&format!("{to}: ")) && text.contains(why));
        assert!(found, "{to} {why}: {moved:#?}");
    };
    told("/hooked/.git.quarantined", "hooks/pre-commit");
    told("/configured/.git.quarantined", "core.fsmonitor");
    told("/included/.git.quarantined", "include.path");
    told("/out/.git.quarantined", "leads out");
    told("/link/.git.quarantined", "symbolic link");
    told("/bare", "alias.x");
    assert!(place.at("w/bare/HEAD.quarantined").exists());
    assert!(place.at("w/hooked/.git.quarantined/HEAD.quarantined").exists());
    assert_eq!(moved.len(), 6);
    let again = scanner.search(&place.wanted(), true).unwrap();
    let left = inspect(&place.wanted(), again.repositories.difference(&before)).unwrap();
    assert!(left.iter().all(|later| later.danger.is_none()), "{left:?}");
}

#[test]
fn git_overlooks_placeholders_and_what_it_overlooked_before() {
    let place = Place::new();
    if !place.repository("w") {
        return;
    }
    fs::write(place.at("w/.git/info/exclude"), "/mine\n").unwrap();
    let wanted = Wanted { names: vec![".mcp.json".into(), ".vscode/".into()], ..place.wanted() };
    let mut found = place.search(wanted);
    let registry = Registry::open(&place.at("state")).unwrap();
    let user = registry.acquire(&mut found, &place.at("lock")).unwrap().unwrap();
    let made = excludes(&found, user.places());
    let [Substitute { target, text }] = made.as_slice() else { panic!("{made:?}") };
    assert_eq!(*target, place.at("w/.git/info/exclude"));
    let names: Vec<&str> = text.lines().filter(|line| line.starts_with('/')).collect();
    assert_eq!(names, ["/mine", "/.mcp.json"]);
    // What a person has there is no placeholder.
    let _cleaned = registry.release(user).unwrap();
    fs::write(place.at("w/.mcp.json"), "{}").unwrap();
    let wanted = Wanted { names: vec![".mcp.json".into()], ..place.wanted() };
    let mut found = place.search(wanted);
    let user = registry.acquire(&mut found, &place.at("lock")).unwrap().unwrap();
    assert_eq!(excludes(&found, user.places()), []);
    let _cleaned = registry.release(user).unwrap();
}
