//! What may have been refused, told after a command that did not succeed.
//!
//! Some of it is certain: the kernel has counted what found no network, and a program that isn't in
//! the sandbox is known to be outside. That an argument names a path which isn't inside either is only
//! a guess at why the command failed, and is called one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::request::Prepared;
use crate::escape;
use crate::launch::{Exit, Ran, Step};
use crate::policy::ProcessPlan;
use crate::policy::why::{self, Attempt, Blame};

/// Most guesses.
const MOST: usize = 5;

/// Lines for the person at the terminal; empty when there is nothing to say.
pub(super) fn of(prepared: &Prepared, plan: &ProcessPlan, ran: &Ran) -> String {
    let mut lines = Vec::new();
    if let (true, Some(blame)) = (ran.unreached > 0, why::network(plan)) {
        let times =
            if ran.unreached == 1 { "once".into() } else { format!("{} times", ran.unreached) };
        lines.push(line(&format!("it tried to reach the network {times}"), &blame));
    }
    if let Exit::SetupFailed { step: Step::Exec, .. } = ran.exit {
        let program = prepared.argv.first().map_or("", String::as_str);
        if let Some((path, blame)) = program_outside(program, plan) {
            lines.push(line(&format!("the program is {}", shown(&path)), &blame));
        }
    } else {
        lines.extend(guesses(prepared, plan));
    }
    if lines.is_empty() {
        return String::new();
    }
    let mut text = String::from("missiond: why it may have failed:\n");
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
    if !matches!(ran.exit, Exit::SetupFailed { .. }) {
        text.push_str("  (--trace shows each refusal exactly)\n");
    }
    text
}

fn line(what: &str, blame: &Blame) -> String {
    let rule = shown(Path::new(&blame.rule.to_string()));
    match blame.remedy.option() {
        Some(option) => format!("{what}, and {rule}: {} would allow it", shown(Path::new(&option))),
        None => format!("{what}, and {rule}"),
    }
}

/// Where the host has a program that the sandbox lacks.
fn program_outside(program: &str, plan: &ProcessPlan) -> Option<(PathBuf, Blame)> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![std::path::absolute(program).ok()?]
    } else {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join(program)).collect()
    };
    let found = candidates.into_iter().find(|path| path.is_file())?;
    // The whole directory: programs have others beside them.
    let blame = why::path(plan, &found, Attempt::Execute, libc::ENOENT, true)?;
    let directory = found.parent().unwrap_or(&found).to_path_buf();
    let remedy = if matches!(blame.remedy, why::Remedy::Read(_)) {
        why::Remedy::Read(directory)
    } else {
        blame.remedy
    };
    Some((found, Blame { rule: blame.rule, remedy }))
}

/// Arguments that name something outside.
fn guesses(prepared: &Prepared, plan: &ProcessPlan) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in prepared.argv.iter().skip(1) {
        // `--file=/path` as well.
        let word = word.split_once('=').map_or(word.as_str(), |(_, value)| value);
        let named = Path::new(word);
        if !named.is_absolute() && !word.contains('/') {
            continue;
        }
        let path = prepared.cwd.join(named);
        if std::fs::symlink_metadata(&path).is_err() {
            continue;
        }
        let inside = why::path(plan, &path, Attempt::Read, libc::ENOENT, true)
            .or_else(|| why::path(plan, &path, Attempt::Read, libc::EACCES, true));
        if let Some(blame) = inside {
            let line = line(&format!("a guess: it was given {}", shown(&path)), &blame);
            if !lines.contains(&line) && lines.len() < MOST {
                lines.push(line);
            }
        }
    }
    lines
}

/// A text as a terminal may be shown it.
pub(super) fn shown(text: &Path) -> String {
    escape::line(&text.to_string_lossy()).into_owned()
}
