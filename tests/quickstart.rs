//! The quickstart: what it says of the tree, and that it does what README promises.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

#[expect(dead_code, reason = "these tests need no process of their own")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use missiond::config::{self, Host};
use tempfile::TempDir;

/// More than ten times what it takes.
const SECONDS: &str = "60";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A copy of what the quickstart needs, and the user's directories. Of the programs it has `missiond`
/// alone, for that is all that `cargo run` builds.
struct Clone {
    dir: TempDir,
}

impl Clone {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir_all(dir.path().join("clone/examples")).unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_missiond"), dir.path().join("bin/missiond")).unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .args([repository().join("src"), repository().join("examples")])
            .arg(dir.path().join("clone"))
            .status();
        assert!(copied.unwrap().success());
        let output = dir.path().join("clone/examples/quickstart/out");
        for entry in fs::read_dir(&output).unwrap().map(Result::unwrap) {
            if entry.file_name() != ".gitignore" {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        Clone { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, arguments: &[&str]) -> Output {
        self.missiond(&["start"], &[arguments, &["examples/quickstart/mission.toml"]].concat())
    }

    fn missiond(&self, command: &[&str], arguments: &[&str]) -> Output {
        let output = Command::new("timeout")
            .args(["--kill-after=10", SECONDS])
            .arg(self.path("bin/missiond"))
            .args(command)
            .args(arguments)
            .current_dir(self.path("clone"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("HOME", self.path("home"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
        output
    }

    /// Which file was counted by whom, over all directories.
    fn counted(&self) -> Vec<(String, String)> {
        let output = self.path("clone/examples/quickstart/out");
        let files = fs::read_dir(output).unwrap().map(|entry| entry.unwrap().path());
        let tables =
            files.filter(|file| file.extension().is_some_and(|extension| extension == "tsv"));
        let mut rows = Vec::new();
        for line in tables.flat_map(|file| {
            fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        }) {
            let cells: Vec<&str> = line.split('\t').collect();
            rows.push((cells[0].to_owned(), cells[3].to_owned()));
        }
        rows
    }

    fn report(&self) -> String {
        fs::read_to_string(self.path("clone/examples/quickstart/out/report.md")).unwrap()
    }
}

fn rust_files(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            rust_files(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let relative = entry.strip_prefix(repository()).unwrap();
            found.insert(relative.to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn there_is_a_task_for_every_directory_of_the_source() {
    let mut host = Host::current().unwrap();
    host.missionctl_dir =
        Path::new(env!("CARGO_BIN_EXE_missionctl")).parent().map(Path::to_path_buf);
    let file = repository().join("examples/quickstart/mission.toml");
    let mission = config::load_for(&file, &host).unwrap();
    assert_eq!(mission.warnings, [], "nothing in it is unwise");
    assert!(mission.agents.values().all(|launch| launch.level.number() == 1));

    let tasks: BTreeSet<&str> = mission.spec.tasks.iter().map(|task| task.id.as_str()).collect();
    let mut wanted = BTreeSet::from(["top".to_owned(), "report".to_owned()]);
    for entry in fs::read_dir(repository().join("src")).unwrap().map(|entry| entry.unwrap()) {
        if entry.path().is_dir() {
            wanted.insert(entry.file_name().into_string().unwrap());
        }
    }
    assert_eq!(tasks, wanted.iter().map(String::as_str).collect());
    let report = mission.spec.tasks.iter().find(|task| task.id.as_str() == "report").unwrap();
    assert_eq!(report.after.len(), tasks.len() - 1, "the report comes after all others");
    let lead = fs::read_to_string(repository().join("examples/quickstart/lead.sh")).unwrap();
    let areas = lead.lines().find_map(|line| line.strip_prefix("areas='")).unwrap();
    let areas: BTreeSet<&str> = areas.trim_end_matches('\'').split(' ').collect();
    assert_eq!(areas, report.after.iter().map(AsRef::as_ref).collect());
}

#[test]
fn half_of_a_task_is_handed_over_and_nothing_is_counted_twice() {
    let test = "half_of_a_task_is_handed_over_and_nothing_is_counted_twice";
    if support::skip_without_landlock(test, 1) || support::skip_without_seccomp(test) {
        return;
    }
    let clone = Clone::new();
    let said = String::from_utf8(clone.start(&[]).stdout).unwrap();

    let mut wanted = BTreeSet::new();
    rust_files(&repository().join("src"), &mut wanted);
    let rows = clone.counted();
    let counted: BTreeSet<String> = rows.iter().map(|(file, _)| file.clone()).collect();
    assert_eq!(counted, wanted, "every file is counted");
    assert_eq!(rows.len(), wanted.len(), "and none twice");

    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, who) in rows.iter().filter(|(file, _)| file.starts_with("src/core/")) {
        *by.entry(who).or_default() += 1;
    }
    let total: usize = by.values().sum();
    assert_eq!(by["alice"], total.div_ceil(2), "the first half stayed hers");
    assert_eq!(by["bob"], total / 2, "he did the other one");

    let report = clone.report();
    assert!(report.contains(&format!("| **all** | {} |", wanted.len())), "{report}");
    for name in ["alice", "bob", "lead", "report"] {
        assert!(said.contains(name), "what was done by whom is printed: {said}");
    }
    let log = clone.path("state/missiond/quickstart/agents/auditor/log/stdout.log");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("handoff_completed"), "the auditor has seen it: {log}");

    // Started again it has nothing to do, and says so; from nothing it comes to the same.
    fs::remove_file(clone.path("clone/examples/quickstart/out/report.md")).unwrap();
    clone.start(&[]);
    assert!(!clone.path("clone/examples/quickstart/out/report.md").exists());
    clone.start(&["--fresh"]);
    assert_eq!(clone.report(), report);
}

#[test]
fn the_starter_mission_runs_as_it_is() {
    let test = "the_starter_mission_runs_as_it_is";
    if support::skip_without_landlock(test, 1) || support::skip_without_seccomp(test) {
        return;
    }
    let clone = Clone::new();
    clone.missiond(&["init"], &["first"]);
    let said = clone.missiond(&["start"], &["first/mission.toml"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("mission first: tasks 2 completed"), "{said}");
}
