//! What a traced command was refused: each thing once, with the rule and what would allow it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use nix::errno::Errno;

use super::hints::shown;
use crate::launch::{Failed, Target};
use crate::policy::why::{self, Blame, Remedy, Rule};
use crate::policy::{ProcessPlan, RlimitKind};

/// Most different refusals that are kept.
const MOST: usize = 10_000;
/// Most lines on errors that the policy has nothing to do with.
const MOST_OTHERS: usize = 20;

/// Refusals, in the order in which they first came.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    seen: BTreeMap<(String, &'static str, i32), usize>,
    lines: Vec<Line>,
    surplus: u64,
}

#[derive(Debug)]
struct Line {
    call: &'static str,
    on: String,
    errno: i32,
    blame: Option<Blame>,
    count: u64,
}

impl Refusals {
    /// Takes a system call that failed.
    pub(super) fn add(&mut self, plan: &ProcessPlan, failed: &Failed) {
        let (call, errno) = (failed.subject.name, failed.errno);
        let filtered = why::filtered(&plan.seccomp, &failed.call, errno);
        if filtered.is_some() || failed.subject.targets.is_empty() {
            let on = failed.subject.targets.first().map(named).unwrap_or_default();
            if let Some(blame) = filtered.or_else(|| limit(plan, call, errno)) {
                self.note(call, on, errno, Some(blame));
            } else if errno == libc::EPERM {
                self.note(call, on, errno, None);
            }
            return;
        }
        for target in &failed.subject.targets {
            let blame = match target {
                Target::Path(path, attempt) => {
                    let outside = std::fs::symlink_metadata(path).is_ok();
                    why::path(plan, path, *attempt, errno, outside)
                }
                Target::Address(_) => why::network(plan),
                Target::Process => None,
            };
            // That something isn't there is no refusal, unless the policy is why.
            let telling = matches!(errno, libc::EPERM | libc::EACCES | libc::EROFS);
            if blame.is_some() || telling {
                self.note(call, named(target), errno, blame);
            }
        }
    }

    fn note(&mut self, call: &'static str, on: String, errno: i32, blame: Option<Blame>) {
        if let Some(at) = self.seen.get(&(on.clone(), call, errno)) {
            if let Some(line) = self.lines.get_mut(*at) {
                line.count += 1;
            }
        } else if self.lines.len() < MOST {
            self.seen.insert((on.clone(), call, errno), self.lines.len());
            self.lines.push(Line { call, on, errno, blame, count: 1 });
        } else {
            self.surplus += 1;
        }
    }

    /// All of them, for a person.
    pub(super) fn table(&self) -> String {
        let (ours, others): (Vec<&Line>, Vec<&Line>) =
            self.lines.iter().partition(|line| line.blame.is_some());
        let mut text = match ours.len() {
            0 => "missiond: the policy refused nothing\n".to_owned(),
            1 => "missiond: the policy refused this:\n".to_owned(),
            count => format!("missiond: the policy refused these {count}:\n"),
        };
        for line in &ours {
            let _ = writeln!(text, "  {}", line.shown());
        }
        if !others.is_empty() {
            text.push_str("not by the policy (a file's own permissions, or the kernel's rules):\n");
        }
        for line in others.iter().take(MOST_OTHERS) {
            let _ = writeln!(text, "  {}", line.shown());
        }
        let rest = u64::try_from(others.len().saturating_sub(MOST_OTHERS)).unwrap_or(0);
        if rest + self.surplus > 0 {
            let _ = writeln!(text, "  and {} more", rest + self.surplus);
        }
        let mut options: Vec<String> =
            ours.iter().filter_map(|line| line.blame.as_ref()?.remedy.option()).collect();
        options.sort();
        options.dedup();
        if !options.is_empty() {
            let _ = writeln!(text, "to allow all of it: {}", shown(Path::new(&options.join(" "))));
        }
        text.push_str(
            "not seen: work by io_uring, what other processes did on request, and a program that \
             wanted to trace its own children\n",
        );
        text
    }
}

impl Line {
    fn shown(&self) -> String {
        let errno = Errno::from_raw(self.errno);
        let times = if self.count > 1 { format!(" ({} times)", self.count) } else { String::new() };
        let on = if self.on.is_empty() { String::new() } else { format!(" {}", self.on) };
        let mut line = format!("{}{on}: {errno:?}{times}", self.call);
        if let Some(Blame { rule, remedy }) = &self.blame {
            let _ = write!(line, ": {rule}");
            match (remedy.option(), remedy) {
                (Some(option), _) => {
                    let _ = write!(line, "; {option}");
                }
                (None, Remedy::Grant(name)) => {
                    let _ = write!(line, "; a policy with grants = [\"{name}\"]");
                }
                (None, Remedy::Limit(name)) => {
                    let _ = write!(line, "; a policy with a larger limit `{name}`");
                }
                (None, _) => {}
            }
        }
        shown(Path::new(&line))
    }
}

fn named(target: &Target) -> String {
    match target {
        Target::Path(path, _) => path.display().to_string(),
        Target::Address(address) => address.clone(),
        Target::Process => "another process".into(),
    }
}

/// Errors that come from a resource limit.
fn limit(plan: &ProcessPlan, call: &str, errno: i32) -> Option<Blame> {
    let limited = |kind| plan.rlimits.iter().any(|limit| limit.kind == kind);
    let name = match (errno, call) {
        (libc::EAGAIN, "clone" | "clone3" | "fork" | "vfork") if limited(RlimitKind::Nproc) => {
            "pids"
        }
        (libc::EMFILE, _) if limited(RlimitKind::Nofile) => "nofile",
        (libc::EFBIG, _) if limited(RlimitKind::FileSize) => "fsize",
        (libc::ENOMEM, "mmap" | "brk" | "mremap") if limited(RlimitKind::Data) => "memory",
        _ => return None,
    };
    Some(Blame { rule: Rule::Limit(name), remedy: Remedy::Limit(name) })
}
