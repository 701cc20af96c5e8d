//! Seccomp profiles in the format of the OCI runtime specification, as Podman and Docker take them.
//!
//! A profile lists calls by name with an action, perhaps only for some arguments; what it doesn't
//! list gets its default action. Here the *first* rule of a file that fits decides. libseccomp, which
//! Podman uses, lets an unconditional rule win over conditional ones of the same call; the profiles
//! of this repository say the same under both readings, since their rules for one call exclude each
//! other (a test holds them to it).
//!
//! Names that this machine doesn't have are skipped, as everybody does: one file serves several.
//! Rules for capabilities are for nobody here, since agents have none; kernels older than what a rule
//! wants (`minKernel`, in use for 4.8) don't run this program.
//!
//! Deliberately not supported: notifying a supervisor and tracing, which need a partner process.

use serde::{Deserialize, Serialize};

use super::compile::{self, Comparison, Condition, Rule};
use super::{ALLOW, Architecture, ERRNO, numbers};
use crate::policy::bpf::{BpfError, Instruction};

/// `SECCOMP_RET_KILL_PROCESS`.
const KILL_PROCESS: u32 = 0x8000_0000;
/// `SECCOMP_RET_KILL_THREAD`.
const KILL_THREAD: u32 = 0;
/// `SECCOMP_RET_TRAP`.
const TRAP: u32 = 0x0003_0000;
/// `SECCOMP_RET_LOG`.
const LOG: u32 = 0x7ffc_0000;
/// What a rule without a number answers, in libseccomp and here.
const EPERM: u16 = 1;

/// A profile: which calls a program may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// For calls that no rule is about.
    default_action: Action,
    /// The errno of the default action; `EPERM` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u16>,
    /// Its name, for readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno: Option<String>,
    /// For container engines. This program filters for the machine it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arch_map: Option<Vec<ArchMap>>,
    /// The same, in the runtime's own form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architectures: Option<Vec<String>>,
    /// Flags for loading, which are the launcher's business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flags: Option<Vec<String>>,
    syscalls: Vec<Entry>,
}

/// A part of a profile that takes the place of the rules for the calls that it names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Amendment {
    syscalls: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    names: Vec<String>,
    action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    args: Option<Vec<Arg>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    includes: Option<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    excludes: Option<Scope>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Arg {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Op,
}

/// For whom a rule is (or isn't): machines, capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Scope {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caps: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arches: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_kernel: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Op {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    AtMost,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_GE")]
    AtLeast,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProfileError {
    /// It isn't JSON, or not of this format.
    #[error("line {line}, column {column}: {what}")]
    Format {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// A call has six arguments.
    #[error("a rule for `{call}` looks at argument {index}; there are 0 to 5")]
    Argument {
        /// The call.
        call: String,
        /// The index.
        index: u32,
    },
    /// `errno` is a name without its number.
    #[error("a rule for `{call}` has an `errno` without an `errnoRet`, which is its number")]
    Errno {
        /// The call, or the default.
        call: String,
    },
    /// The filter would be too large for the kernel.
    #[error("cannot assemble the filter")]
    Filter(#[from] BpfError),
}

impl From<serde_json::Error> for ProfileError {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        // The library says the place once more.
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        Self::Format { line, column, what: what.to_owned() }
    }
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// It isn't one, or has something that this program can't enforce.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let profile: Self = serde_json::from_str(text)?;
        if profile.default_errno.is_some() && profile.default_errno_ret.is_none() {
            return Err(ProfileError::Errno { call: "the default".into() });
        }
        check(&profile.syscalls)?;
        Ok(profile)
    }

    /// Reads an amendment and puts it in.
    pub(super) fn amend(&mut self, text: &str) -> Result<(), ProfileError> {
        let amendment: Amendment = serde_json::from_str(text)?;
        check(&amendment.syscalls)?;
        let named =
            |name: &String| amendment.syscalls.iter().any(|entry| entry.names.contains(name));
        for entry in &mut self.syscalls {
            entry.names.retain(|name| !named(name));
        }
        self.syscalls.retain(|entry| !entry.names.is_empty());
        self.syscalls.extend(amendment.syscalls);
        Ok(())
    }

    /// The program that the kernel runs.
    ///
    /// # Errors
    /// It would be too large.
    pub fn compile(&self, arch: &Architecture) -> Result<Vec<Instruction>, ProfileError> {
        Ok(compile::compile(&self.rules(arch), self.default_answer(), arch)?)
    }

    /// What a call gets that no rule is about.
    fn default_answer(&self) -> u32 {
        answer(self.default_action, self.default_errno_ret)
    }

    /// The rules for this machine, in the order of the file.
    fn rules(&self, arch: &Architecture) -> Vec<Rule> {
        let mut rules = Vec::new();
        for entry in self.syscalls.iter().filter(|entry| entry.is_for(arch)) {
            let answer = answer(entry.action, entry.errno_ret);
            let conditions: Vec<Condition> =
                entry.args.iter().flatten().map(Arg::condition).collect();
            let calls = entry.names.iter().filter_map(|name| numbers::number(name, arch));
            rules.extend(calls.map(|call| Rule { call, answer, conditions: conditions.clone() }));
        }
        rules
    }
}

fn check(entries: &[Entry]) -> Result<(), ProfileError> {
    for entry in entries {
        let call = || entry.names.first().cloned().unwrap_or_default();
        if let Some(arg) = entry.args.iter().flatten().find(|arg| arg.index > 5) {
            return Err(ProfileError::Argument { call: call(), index: arg.index });
        }
        if entry.errno.is_some() && entry.errno_ret.is_none() {
            return Err(ProfileError::Errno { call: call() });
        }
    }
    Ok(())
}

impl Entry {
    fn is_for(&self, arch: &Architecture) -> bool {
        let names = |scope: &Option<Scope>| -> Option<bool> {
            let arches = scope.as_ref()?.arches.as_ref().filter(|list| !list.is_empty())?;
            Some(arches.iter().any(|name| name == arch.goarch))
        };
        let wants_capability = |scope: &Option<Scope>| {
            scope
                .as_ref()
                .and_then(|scope| scope.caps.as_ref())
                .is_some_and(|caps| !caps.is_empty())
        };
        names(&self.includes).unwrap_or(true)
            && !names(&self.excludes).unwrap_or(false)
            && !wants_capability(&self.includes)
    }
}

impl Arg {
    fn condition(&self) -> Condition {
        let comparison = match self.op {
            Op::Equal => Comparison::Masked { mask: u64::MAX, value: self.value },
            Op::NotEqual => Comparison::NotEqual(self.value),
            Op::Less => Comparison::Less(self.value),
            Op::AtMost => Comparison::AtMost(self.value),
            Op::Greater => Comparison::Greater(self.value),
            Op::AtLeast => Comparison::AtLeast(self.value),
            Op::MaskedEqual => Comparison::Masked { mask: self.value, value: self.value_two },
        };
        Condition { argument: self.index, comparison }
    }
}

fn answer(action: Action, errno: Option<u16>) -> u32 {
    match action {
        Action::Allow => ALLOW,
        Action::Errno => ERRNO | u32::from(errno.unwrap_or(EPERM)),
        Action::Kill | Action::KillThread => KILL_THREAD,
        Action::KillProcess => KILL_PROCESS,
        Action::Trap => TRAP,
        Action::Log => LOG,
    }
}

#[cfg(test)]
impl Profile {
    /// What the profile says about a call, read off its rules: what the compiled program must say.
    pub(in crate::policy) fn says(&self, rules: &[Rule], number: u32, args: [u64; 6]) -> u32 {
        let fits = |rule: &&Rule| rule.call == number && rule.fits(args);
        rules.iter().find(fits).map_or(self.default_answer(), |rule| rule.answer)
    }

    /// The rules for this machine.
    pub(in crate::policy) fn all(&self, arch: &Architecture) -> Vec<Rule> {
        self.rules(arch)
    }

    /// Every name in it.
    pub(in crate::policy) fn names(&self) -> Vec<&str> {
        self.syscalls.iter().flat_map(|entry| &entry.names).map(String::as_str).collect()
    }
}
