//! The whole of it: a daemon, agents at level 2, git.

use std::path::Path;
use std::process::Command;

use missiond::launch::{Level2, probe_level_2};
use nix::sys::signal::Signal;

use crate::mission::{Bench, MISSIOND};
use crate::support::skip;

fn skip_here(test: &str) -> bool {
    let found = probe_level_2(Path::new(MISSIOND)).unwrap();
    let works = found == Level2::Works { own_proc: true };
    let git = Command::new("git").arg("--version").output().is_ok();
    skip(test, "userns", works, &format!("level 2 doesn't work here: {found:?}"))
        || skip(test, "git", git, "no git")
}

const HEAD: &str = "isolation = 2\npolicy = \"coding\"\n";

/// A mission in whose workspace is a repository.
fn bench(agents: &str) -> Bench {
    let bench = Bench::new(&format!("{HEAD}{agents}"));
    let mut git = Command::new("git");
    git.args(["init", "-q"]).arg(bench.path("ws")).env("GIT_CONFIG_NOSYSTEM", "1");
    assert!(git.status().unwrap().success());
    bench
}

/// All names in the workspace, but those of git's samples.
fn names(bench: &Bench) -> Vec<String> {
    let mut find = Command::new("find");
    find.args([".", "-not", "-name", "*.sample"]).current_dir(bench.path("ws"));
    let output = find.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn what_stands_in_for_missing_files_is_seen_by_nobody_afterwards() {
    let test = "what_stands_in_for_missing_files_is_seen_by_nobody_afterwards";
    if skip_here(test) {
        return;
    }
    let script = "for f in .mcp.json .git/commondir .git/hooks/pre-commit .git/config; \
                  do ( echo x >> $f ) 2>/dev/null && echo wrote $f; done; \
                  test -f .mcp.json && echo there; git status --short; exit 0";
    let bench = bench(&format!(
        "[agents.a]\nrole = \"write\"\nmode = \"task\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n\
         [[tasks]]\nid = \"t\"\nassign = \"a\"\n"
    ));
    let before = names(&bench);
    let (status, _, said) = bench.start(&[]).end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(bench.log("a", "stdout"), "there\n", "{said}{}", bench.log("a", "stderr"));
    assert_eq!(names(&bench), before, "{said}");
}

#[test]
fn a_repository_that_could_run_something_is_moved_aside_at_the_end() {
    let test = "a_repository_that_could_run_something_is_moved_aside_at_the_end";
    if skip_here(test) {
        return;
    }
    let script = "git init -q evil && git -C evil config core.fsmonitor ./run; git init -q plain";
    let bench = bench(&format!(
        "[agents.a]\nrole = \"write\"\nmode = \"task\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n\
         [[tasks]]\nid = \"t\"\nassign = \"a\"\n"
    ));
    let mut daemon = bench.start(&[]);
    daemon.line(&["alert", "evil/.git", "core.fsmonitor", "moved to"]);
    daemon.line(&["alert", "plain/.git", "would run nothing"]);
    daemon.ends_with(0);
    assert!(bench.path("ws/evil/.git.quarantined/config").exists());
    assert!(!bench.path("ws/evil/.git").exists());
    assert!(bench.path("ws/plain/.git/HEAD").exists());
}

#[test]
fn an_agent_whose_protection_the_host_takes_off_is_started_again_with_it() {
    let test = "an_agent_whose_protection_the_host_takes_off_is_started_again_with_it";
    if skip_here(test) {
        return;
    }
    let bench = bench(
        "until = \"stopped\"\n[agents.a]\nrole = \"write\"\ncommand = [\"sleep\", \"600\"]\n\
         restart = { on = \"failure\", backoff = \"1ms\" }\n",
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["a ", "runs"]);
    let mut git = Command::new("git");
    git.arg("-C").arg(bench.path("ws")).args(["config", "x.y", "z"]);
    assert!(git.status().unwrap().success());
    daemon.line(&["alert", ".git/config", "took the protection off"]);
    daemon.line(&["a ", "signal 9"]);
    daemon.seen.clear();
    daemon.line(&["a ", "runs"]);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
}

#[test]
fn a_killed_daemon_leaves_no_placeholder_after_the_next_start() {
    let test = "a_killed_daemon_leaves_no_placeholder_after_the_next_start";
    if skip_here(test) {
        return;
    }
    let agents =
        "until = \"stopped\"\n[agents.a]\nrole = \"write\"\ncommand = [\"sleep\", \"600\"]\n";
    let bench = bench(agents);
    let before = names(&bench);
    let mut daemon = bench.start(&[]);
    daemon.line(&["a ", "runs"]);
    assert_ne!(names(&bench), before, "there is something to clean");
    drop(daemon);
    // Nobody needs them any more.
    bench.write(&format!("{HEAD}{}", agents.replace("\"write\"", "\"read\"")));
    let mut daemon = bench.start(&[]);
    daemon.line(&["a ", "runs"]);
    let after = names(&bench);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    assert_eq!(after, before);
}

#[test]
fn changes_of_a_private_workspace_are_looked_at_taken_back_and_thrown_away() {
    let test = "changes_of_a_private_workspace_are_looked_at_taken_back_and_thrown_away";
    if skip_here(test) {
        return;
    }
    let script = "echo new > new; echo evil > .git/hooks/post-commit; rm old; echo a > mine; ls";
    let bench = bench(&format!(
        "workspace_mode = \"private\"\n[agents.a]\nrole = \"write\"\nmode = \"task\"\n\
         command = [\"sh\", \"-c\", '''{script}''']\n[[tasks]]\nid = \"t\"\nassign = \"a\"\n"
    ));
    std::fs::write(bench.path("ws/old"), "old\n").unwrap();
    let before = names(&bench);
    let (status, _, said) = bench.start(&[]).end();
    assert_eq!(status.code(), Some(0), "{said}{}", bench.log("a", "stderr"));
    assert_eq!(bench.log("a", "stdout"), "mine\nnew\n");
    assert_eq!(names(&bench), before, "the workspace is as it was");

    let (code, out, _) = bench.ctl(&["workspace", "diff", "a", "--patch"]);
    assert_eq!(code, 0);
    assert!(
        out.contains("A new\n") && out.contains("D old\n") && out.contains("\n+new\n"),
        "{out}"
    );
    assert!(out.contains("A .git/hooks/post-commit  refused: "), "{out}");
    let (code, out, _) = bench.ctl(&["workspace", "accept", "a", "new", "old"]);
    assert_eq!((code, out.as_str()), (0, "A new\nD old\n"));
    assert!(bench.path("ws/new").exists() && !bench.path("ws/old").exists());
    let (code, out, _) = bench.ctl(&["workspace", "accept", "a"]);
    assert_eq!(code, 5, "what is refused is no success: {out}");
    assert!(bench.path("ws/mine").exists());
    assert!(!bench.path("ws/.git/hooks/post-commit").exists());
    let (code, out, _) = bench.ctl(&["workspace", "discard", "a"]);
    assert_eq!(code, 0, "{out}");
    let (code, _, why) = bench.ctl(&["workspace", "diff", "a"]);
    assert_eq!(code, 3, "{why}");
    let (code, _, why) = bench.ctl(&["workspace", "diff", "nobody"]);
    assert_eq!(code, 3, "{why}");
}

#[test]
fn what_the_mission_file_names_in_the_workspace_can_not_be_changed() {
    let test = "what_the_mission_file_names_in_the_workspace_can_not_be_changed";
    if skip_here(test) {
        return;
    }
    let script = "for f in own.toml rules.json lead.sh key.txt run.sh; do \
                  ( echo x >> $f ) 2>/dev/null && echo wrote $f; rm -f $f 2>/dev/null; \
                  test -f $f || echo removed $f; done; echo x > other && echo wrote other";
    let bench = bench(&format!(
        "[agents.a]\nrole = \"write\"\nmode = \"task\"\ncommand = [\"sh\", \"-c\", \'\'\'{script}\'\'\']\n\
         policy = \"./ws/own.toml\"\nsecrets = {{ KEY = {{ file = \"ws/key.txt\" }} }}\n\
         [agents.b]\nrole = \"lead\"\nmode = \"task\"\ncommand = [\"./ws/lead.sh\"]\n\
         [agents.c]\nrole = \"lead\"\nmode = \"task\"\ncommand = [\"sh\", \"run.sh\"]\n\
         [[tasks]]\nid = \"t\"\nassign = \"a\"\n"
    ));
    let write = |name: &str, text: &str| std::fs::write(bench.path("ws").join(name), text).unwrap();
    write("own.toml", "inherits = \"coding\"\nsyscalls = \"rules.json\"\n");
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/seccomp/default.json");
    write("rules.json", &std::fs::read_to_string(profile).unwrap());
    for name in ["lead.sh", "key.txt", "run.sh"] {
        write(name, "#!/bin/sh\n");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(bench.path("ws/lead.sh"), mode).unwrap();
    let (status, _, said) = bench.start(&[]).end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(bench.log("a", "stdout"), "wrote other\n", "{}", bench.log("a", "stderr"));
}
