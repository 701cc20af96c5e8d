//! A plan in words: what is granted, what is not, and which line asked for it.
//!
//! One row for each mount, limit and rule of a plan, and one for each gap. It deliberately decides
//! nothing: what isn't in the plan isn't in the table.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bpf::{Fate, Instruction, fate};
use super::landlock::{self, LandlockPlan};
use super::plan::ProcessPlan;
use super::sandbox::{Access, Network, Node, SandboxPlan};
use super::seccomp::{ALLOW, Architecture, ERRNO, numbers};
use super::{Level, RlimitKind};

/// One item of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Which part of the plan: `mount`, `environment`, `limit`, ...
    pub part: &'static str,
    /// What is given or taken.
    pub what: String,
    /// In detail.
    pub value: String,
    /// The line that asked for it, or the rule that it follows from.
    pub because: String,
    /// Whether this machine enforces it.
    pub enforced: bool,
}

/// What an explanation needs beside the plan.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// Names of the variables that the agent will have.
    pub environment: &'a [String],
    /// The line that asked for something: `read /data`, `limits.memory`, `network`, ...
    pub asked: &'a dyn Fn(&str) -> Option<String>,
    /// What a path is that nobody asked for: `workspace, by role write`.
    pub known: &'a dyn Fn(&std::path::Path) -> Option<String>,
    /// The machine of the filter.
    pub arch: Option<&'a Architecture>,
}

/// Explains a plan, in the order of its steps.
#[must_use]
pub fn explain(plan: &ProcessPlan, told: &Told<'_>) -> Vec<Row> {
    let mut rows = Rows { told, rows: Vec::new() };
    let level = match plan.level {
        Level::None => "a process as any other",
        Level::Process => "a plain process with less rights",
        Level::Namespaces => "its own namespaces: user, mount, pid, ipc, uts, cgroup",
        Level::Container => "a rootless container",
    };
    rows.add("level", plan.level.to_string(), level, rows.because("level", "the mission file"));
    if plan.no_new_privs {
        rows.add("privilege", "no_new_privs", "no program gives it more rights", "every level");
    }
    if plan.drop_capabilities {
        rows.add("privilege", "capabilities", "none, in any set", "every level");
    }
    if let Some(sandbox) = &plan.sandbox {
        rows.sandbox(sandbox);
    }
    if let Some(domain) = &plan.landlock {
        rows.landlock(domain);
    }
    rows.seccomp(plan);
    rows.limits(plan);
    for name in told.environment {
        let because = rows.because(&format!("environment {name}"), "set by missiond");
        rows.add("environment", name.clone(), "", because);
    }
    for gap in &plan.gaps {
        rows.rows.push(Row {
            part: "gap",
            what: gap.to_string(),
            value: String::new(),
            because: "this machine".into(),
            enforced: false,
        });
    }
    rows.rows
}

struct Rows<'a> {
    told: &'a Told<'a>,
    rows: Vec<Row>,
}

impl Rows<'_> {
    fn add(
        &mut self,
        part: &'static str,
        what: impl Into<String>,
        value: impl Into<String>,
        because: impl Into<String>,
    ) {
        let (what, value, because) = (what.into(), value.into(), because.into());
        self.rows.push(Row { part, what, value, because, enforced: true });
    }

    fn because(&self, what: &str, otherwise: &str) -> String {
        (self.told.asked)(what).unwrap_or_else(|| otherwise.to_owned())
    }

    fn sandbox(&mut self, sandbox: &SandboxPlan) {
        let network = match sandbox.network {
            Network::None => "none: a loopback device of its own",
            Network::Host => "the host's",
        };
        self.add("network", "network", network, self.because("network", "level 2"));
        self.add("name", "hostname", sandbox.hostname.clone(), "the agent's name");
        let count = sandbox.user_namespaces.to_string();
        let because = self.because("grant Userns", "no grant `userns`");
        self.add("limit", "user namespaces inside", count, because);
        self.add("limit", "inotify instances", sandbox.inotify_instances.to_string(), "level 2");
        for node in &sandbox.tree {
            self.node(node);
        }
    }

    fn node(&mut self, node: &Node) {
        let path = node.target().display().to_string();
        let own = "level 2";
        let (value, because) = match node {
            Node::Bind { access, target, .. } => {
                let (value, key) = match access {
                    Access::Read => ("read", "read"),
                    Access::Write => ("read, write", "write"),
                    Access::Device => ("device", "device"),
                };
                let asked = (self.told.asked)(&format!("{key} {path}"));
                let known = (self.told.known)(target);
                (value.to_owned(), asked.or(known).unwrap_or_else(|| "the system".to_owned()))
            }
            Node::Overlay { upper, .. } => {
                let known = (self.told.known)(node.target()).unwrap_or_else(|| own.into());
                (format!("read, write; changes go to {}", upper.display()), known)
            }
            Node::Pin { .. } => ("can't be renamed".into(), "what is protected in it".into()),
            Node::Protect { .. } => ("read-only".into(), "protected".into()),
            Node::Hide { .. } => ("hidden".into(), self.because(&format!("hidden {path}"), own)),
            Node::Symlink { to, .. } => (format!("-> {}", to.display()), own.into()),
            Node::Directory { .. } => ("an empty directory".into(), own.into()),
            Node::File { text, .. } => (format!("a file of {} bytes", text.len()), own.into()),
            Node::Tmpfs { bytes, writable, .. } => {
                let kind = if *writable { "private, in memory" } else { "emptied" };
                (format!("{kind}, {}", size(*bytes)), self.because("limits.tmp", own))
            }
            Node::Proc { .. } => ("its own processes".into(), own.into()),
            Node::Devpts { .. } => ("its own terminals".into(), own.into()),
        };
        self.add("mount", path, value, because);
    }

    fn landlock(&mut self, domain: &LandlockPlan) {
        let because = self.because("landlock", "every level");
        if domain.scoped != 0 {
            let value = "signals and abstract sockets stay inside";
            self.add("landlock", "scope", value, because.clone());
        }
        for rule in &domain.rules {
            let value = landlock::words(rule.access);
            self.add("landlock", rule.path.display().to_string(), value, because.clone());
        }
    }

    fn seccomp(&mut self, plan: &ProcessPlan) {
        let program: &[Instruction] = &plan.seccomp;
        let Some(arch) = self.told.arch.filter(|_| !program.is_empty()) else { return };
        let mut by_answer: BTreeMap<(u8, String), Vec<&str>> = BTreeMap::new();
        for name in numbers::names() {
            let Some(number) = numbers::number(name, arch) else { continue };
            let answer = match fate(program, arch.audit, number) {
                Fate::ByArguments => (1, "by arguments".to_owned()),
                Fate::Always(ALLOW) => (0, "allowed".to_owned()),
                Fate::Always(answer) if answer & 0xFFFF_0000 == ERRNO => {
                    (2, format!("refused with errno {}", answer & 0xFFFF))
                }
                Fate::Always(answer) => (3, format!("answered with {answer:#x}")),
            };
            by_answer.entry(answer).or_default().push(name);
        }
        let because = self.because("syscalls", "the built-in profile");
        for ((_, answer), names) in by_answer {
            let what = format!("{} calls {answer}", names.len());
            self.add("syscalls", what, names.join(" "), because.clone());
        }
    }

    fn limits(&mut self, plan: &ProcessPlan) {
        for limit in &plan.rlimits {
            let (key, what) = match limit.kind {
                RlimitKind::Core => ("core", "core files"),
                RlimitKind::Cpu => ("limits.cpu_time", "processor seconds of each process"),
                RlimitKind::Data => ("limits.memory", "memory of each process"),
                RlimitKind::FileSize => ("limits.fsize", "largest file"),
                RlimitKind::Nofile => ("limits.nofile", "open files of each process"),
                RlimitKind::Nproc => ("limits.pids", "processes and threads"),
            };
            let value = match limit.kind {
                RlimitKind::Core => "none".to_owned(),
                RlimitKind::Data | RlimitKind::FileSize => size(limit.hard),
                RlimitKind::Cpu | RlimitKind::Nofile | RlimitKind::Nproc => limit.soft.to_string(),
            };
            self.add("limit", what, value, self.because(key, "every level"));
        }
        let Some(group) = &plan.cgroup else { return };
        let milli = group.cpu_milli.map(|milli| format!("{}.{:03}", milli / 1000, milli % 1000));
        for (key, what, value) in [
            ("limits.memory", "memory of the agent", group.memory.map(size)),
            ("limits.pids", "processes of the agent", group.pids.map(|pids| pids.to_string())),
            ("limits.cpu", "processors of the agent", milli),
        ] {
            if let Some(value) = value {
                self.add("limit", what, value, self.because(key, "every level"));
            }
        }
    }
}

/// Bytes as people write them.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}
