//! Limits that a person writes, and the `setrlimit(2)` values they become.

use serde::{Deserialize, Serialize};

use super::Level;
use super::host::HostFacts;
use super::verdict::{Gap, PlanError};

/// The limits of one agent; `None` means "not asked for".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of private writable memory of each process (`RLIMIT_DATA`).
    ///
    /// Not `RLIMIT_AS`: that counts address space, of which node, Java and Go reserve many gigabytes
    /// without using them.
    pub memory: Option<u64>,
    /// Processes and threads of the agent, on top of what the user runs at its start
    /// (`RLIMIT_NPROC`).
    pub pids: Option<u64>,
    /// Open files of each process (`RLIMIT_NOFILE`).
    pub nofile: Option<u64>,
    /// Bytes of the largest file it may write (`RLIMIT_FSIZE`).
    pub file_size: Option<u64>,
    /// Seconds of processor time of each process (`RLIMIT_CPU`).
    pub cpu_seconds: Option<u64>,
    /// Thousandths of a processor that the agent may use on average. Needs a cgroup.
    pub cpu_milli: Option<u32>,
}

/// What a cgroup of the agent's own bounds (cgroup v2); `None` means "no bound there".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupLimits {
    /// `memory.max`, bytes, with no swap beside it.
    pub memory: Option<u64>,
    /// `pids.max`, processes and threads.
    pub pids: Option<u64>,
    /// `cpu.max`, thousandths of a processor.
    pub cpu_milli: Option<u32>,
}

/// Which resource a [`Rlimit`] bounds; getrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RlimitKind {
    /// `RLIMIT_CORE`
    Core,
    /// `RLIMIT_CPU`, seconds
    Cpu,
    /// `RLIMIT_DATA`, bytes
    Data,
    /// `RLIMIT_FSIZE`, bytes
    FileSize,
    /// `RLIMIT_NOFILE`
    Nofile,
    /// `RLIMIT_NPROC`
    Nproc,
}

/// One limit to set, soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The resource.
    pub kind: RlimitKind,
    /// What is enforced.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

impl Rlimit {
    const fn both(kind: RlimitKind, value: u64) -> Self {
        Self { kind, soft: value, hard: value }
    }
}

/// Open files of an agent that asks for none.
pub const DEFAULT_NOFILE: u64 = 4096;

/// Processes and threads of an agent that asks for none. Always bounded: a stop can only end a
/// process that forks without pause because its forks fail at some point.
pub const DEFAULT_PIDS: u64 = 4096;

/// Bytes of the private `/tmp` of an agent that asks for no other size.
pub const DEFAULT_TMP: u64 = 1 << 30;

/// The cgroup of an agent, where one can be had.
pub(super) fn cgroup(limits: &Limits, host: &HostFacts) -> Option<CgroupLimits> {
    host.cgroup.then(|| CgroupLimits {
        memory: limits.memory,
        pids: Some(limits.pids.unwrap_or(DEFAULT_PIDS)),
        cpu_milli: limits.cpu_milli,
    })
}

/// Turns limits into `setrlimit` values. Where there is a cgroup these are the second line, and what
/// the cgroup bounds is no gap.
pub(super) fn rlimits(
    level: Level,
    limits: &Limits,
    host: &HostFacts,
    gaps: &mut Vec<Gap>,
) -> Result<Vec<Rlimit>, PlanError> {
    // 1 and not 0: a size of one byte also stops a piped core handler, which would take the
    // memory of an agent, secrets and all, out of its confinement (core(5)).
    let mut list = vec![Rlimit::both(RlimitKind::Core, 1)];

    // Descriptors in flight count per user, and a sender is refused past its own limit. As long as
    // every agent's hard limit lies well below the daemon's soft one, no agent can fill the count
    // so far that the daemon's own passing of descriptors fails.
    let ceiling = host.nofile_soft / 2;
    let nofile = match limits.nofile {
        Some(asked) if asked > ceiling => {
            return Err(PlanError::LimitTooHigh { limit: "nofile", asked, most: ceiling });
        }
        Some(asked) => asked,
        None => DEFAULT_NOFILE.min(ceiling),
    };
    list.push(Rlimit::both(RlimitKind::Nofile, nofile));

    let pids = limits.pids.unwrap_or(DEFAULT_PIDS);
    let pids = if level >= Level::Namespaces {
        // Counted in the agent's own user namespace since Linux 5.14: its processes, and the first
        // one there, which is ours.
        pids.saturating_add(1)
    } else {
        host.uid_tasks.saturating_add(pids)
    };
    // Where a cgroup counts the agent's own, a count of all that the user runs would only get in its
    // way: others come and go.
    if level >= Level::Namespaces || !host.cgroup {
        list.push(Rlimit::both(RlimitKind::Nproc, pids));
    }
    if !host.cgroup {
        if host.root {
            gaps.push(Gap::PidsAsRoot);
        } else if level < Level::Namespaces {
            gaps.push(Gap::PidsPerUser);
        }
        if limits.cpu_milli.is_some() {
            gaps.push(Gap::CpuShareOpen);
        }
        if let Some(bytes) = limits.memory {
            list.push(Rlimit::both(RlimitKind::Data, bytes));
            gaps.push(Gap::MemoryPerProcess);
        }
    }
    if let Some(bytes) = limits.file_size {
        list.push(Rlimit::both(RlimitKind::FileSize, bytes));
    }
    if let Some(seconds) = limits.cpu_seconds {
        // SIGXCPU at the soft limit can be caught; the kill comes at the hard one.
        let hard = seconds.saturating_add(5);
        list.push(Rlimit { kind: RlimitKind::Cpu, soft: seconds, hard });
        gaps.push(Gap::CpuPerProcess);
    }
    Ok(list)
}
