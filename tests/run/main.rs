//! `missiond run`: one confined command, on the real kernel, as whoever runs the tests.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

mod compat;
#[expect(dead_code, reason = "made for other test programs")]
#[path = "../support/mission.rs"]
mod mission;
mod passing;
#[expect(dead_code, reason = "made for other test programs")]
#[path = "../support/mod.rs"]
mod support;
mod telling;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A workspace and a home of one's own.
pub(crate) struct Place {
    root: tempfile::TempDir,
}

impl Place {
    /// None if level 2 doesn't work here, and the test is skipped.
    pub(crate) fn new(test: &str) -> Option<Place> {
        use missiond::launch::{Level2, probe_level_2};
        let found = probe_level_2(env!("CARGO_BIN_EXE_missiond").as_ref());
        let works = matches!(found, Ok(Level2::Works { .. }));
        let why = format!("level 2 doesn't work here: {found:?}");
        if support::skip(test, "userns", works, &why) {
            return None;
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix("run");
        // Not below /tmp, which is the command's own.
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let root = match home {
            Some(home) => builder.tempdir_in(home).unwrap(),
            None => builder.tempdir().unwrap(),
        };
        let place = Place { root };
        for dir in ["ws", "home", "state", "outside"] {
            std::fs::create_dir(place.path(dir)).unwrap();
        }
        Some(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    /// `missiond run` in the workspace, with nothing of this test's environment.
    pub(crate) fn command(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = Command::new(env!("CARGO_BIN_EXE_missiond"));
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        run.env_clear()
            .envs([("HOME", self.path("home")), ("XDG_STATE_HOME", self.path("state"))])
            .envs([("PATH", path), ("LANG", "C.UTF-8".into())])
            .current_dir(self.path("ws"))
            .stdin(Stdio::null())
            .arg("run")
            .args(options)
            .arg("--")
            .args(command);
        run
    }

    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.command(options, command).output().unwrap()
    }

    /// Runs a shell script that must succeed; its standard output.
    pub(crate) fn sh(&self, options: &[&str], script: &str) -> String {
        let output = self.run(options, &["bash", "-ec", script]);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{script}\n{:?}\n{out}\n{err}", output.status);
        out
    }
}

/// Standard output and error.
pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Whether the host has a program in one of the system's directories.
pub(crate) fn has(program: &str) -> bool {
    ["/usr/local/bin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(program).is_file())
}
