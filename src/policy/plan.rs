//! From a request and the host's facts to a plan, or a refusal.

use serde::{Deserialize, Serialize};

use super::Level;
use super::bpf::Instruction;
use super::host::HostFacts;
use super::landlock::{self, LandlockPlan};
use super::limits::{CgroupLimits, Rlimit, cgroup, rlimits};
use super::request::{Enforcement, PlanRequest};
use super::sandbox::{Network, SandboxPlan};
use super::verdict::{Gap, PlanError};
use super::{seccomp, tree};

/// User namespaces inside, for an agent that has the grant.
const USER_NAMESPACES: u32 = 64;
/// `inotify` instances, as many as a user has by default.
const INOTIFY_INSTANCES: u32 = 128;
/// `HOST_NAME_MAX`.
const MAX_HOSTNAME: usize = 64;

/// What a policy became: applied to the letter by the launcher, printed by `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessPlan {
    /// The level it grants.
    pub level: Level,
    /// The namespaces and the tree of level 2; none below.
    pub sandbox: Option<SandboxPlan>,
    /// All capabilities are dropped. Only root has any, and with them Landlock would not hold: it
    /// doesn't stop a reboot, or a read of another's memory under CAP_PERFMON.
    pub drop_capabilities: bool,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// The Landlock domain, if any.
    pub landlock: Option<LandlockPlan>,
    /// The seccomp filter; empty for none.
    pub seccomp: Vec<Instruction>,
    /// Resource limits of each process.
    pub rlimits: Vec<Rlimit>,
    /// Limits of the agent as a whole, where this machine lets us have a cgroup.
    pub cgroup: Option<CgroupLimits>,
    /// What this kernel can't enforce.
    pub gaps: Vec<Gap>,
}

/// Decides what a policy becomes on this host.
///
/// # Errors
/// When something that the policy requires can't be granted in full. Nothing is lowered silently.
pub fn plan(request: &PlanRequest, host: &HostFacts) -> Result<ProcessPlan, PlanError> {
    match request.level {
        Level::None => Ok(ProcessPlan {
            level: Level::None,
            sandbox: None,
            drop_capabilities: false,
            no_new_privs: false,
            landlock: None,
            seccomp: Vec::new(),
            rlimits: Vec::new(),
            cgroup: None,
            gaps: Vec::new(),
        }),
        Level::Process => level_1(request, host),
        Level::Namespaces => level_2(request, host),
        Level::Container => Err(PlanError::Level(request.level)),
    }
}

fn level_1(request: &PlanRequest, host: &HostFacts) -> Result<ProcessPlan, PlanError> {
    let mut gaps = Vec::new();
    let landlock = if has_landlock(request, host, &mut gaps)? {
        Some(landlock::domain(request, host, &mut gaps)?)
    } else {
        None
    };
    let seccomp = match filtered(request, host, &mut gaps)? {
        Some(arch) => seccomp::level_1(&arch)?,
        None => Vec::new(),
    };
    if request.network == Network::None {
        gaps.push(Gap::NetworkOpen);
    }
    finish(request, host, landlock, seccomp, None, gaps)
}

fn level_2(request: &PlanRequest, host: &HostFacts) -> Result<ProcessPlan, PlanError> {
    let mut gaps = Vec::new();
    let tree = tree::tree(request, host)?;
    let landlock = if has_landlock(request, host, &mut gaps)? {
        landlock::sandbox_domain(request, &tree, host, &mut gaps)
    } else {
        None
    };
    let seccomp = match (filtered(request, host, &mut gaps)?, &request.filter) {
        (Some(_), Some(filter)) => filter.to_vec(),
        (Some(arch), None) => seccomp::builtin(&arch, request.grants)?.to_vec(),
        (None, _) => Vec::new(),
    };
    if !host.fresh_proc {
        gaps.push(Gap::NoProc);
    }
    let mut hostname = request.hostname.clone();
    while hostname.len() > MAX_HOSTNAME {
        hostname.pop();
    }
    let sandbox = SandboxPlan {
        network: request.network,
        hostname: if hostname.is_empty() { "agent".into() } else { hostname },
        user_namespaces: if request.grants.userns { USER_NAMESPACES } else { 0 },
        inotify_instances: INOTIFY_INSTANCES,
        tree,
    };
    finish(request, host, landlock, seccomp, Some(sandbox), gaps)
}

fn finish(
    request: &PlanRequest,
    host: &HostFacts,
    landlock: Option<LandlockPlan>,
    seccomp: Vec<Instruction>,
    sandbox: Option<SandboxPlan>,
    mut gaps: Vec<Gap>,
) -> Result<ProcessPlan, PlanError> {
    let rlimits = rlimits(request.level, &request.limits, host, &mut gaps)?;
    Ok(ProcessPlan {
        level: request.level,
        sandbox,
        drop_capabilities: true,
        no_new_privs: true,
        landlock,
        seccomp,
        rlimits,
        cgroup: cgroup(&request.limits, host),
        gaps,
    })
}

/// Whether Landlock is to be used; a refusal where it is required and missing.
fn has_landlock(
    request: &PlanRequest,
    host: &HostFacts,
    gaps: &mut Vec<Gap>,
) -> Result<bool, PlanError> {
    let (wanted, present) = (request.landlock_min_abi, host.landlock_abi);
    if present < wanted {
        return Err(PlanError::LandlockAbi { wanted, present });
    }
    if present == 0 {
        missing(request, "Landlock", Gap::NoLandlock, gaps)?;
    }
    Ok(present > 0)
}

/// The machine to filter for; a refusal where a filter is required and can't be had.
fn filtered(
    request: &PlanRequest,
    host: &HostFacts,
    gaps: &mut Vec<Gap>,
) -> Result<Option<seccomp::Architecture>, PlanError> {
    let arch = seccomp::native().filter(|_| host.seccomp);
    if arch.is_none() {
        missing(request, "seccomp filters", Gap::NoSeccomp, gaps)?;
    }
    Ok(arch)
}

fn missing(
    request: &PlanRequest,
    what: &'static str,
    gap: Gap,
    gaps: &mut Vec<Gap>,
) -> Result<(), PlanError> {
    match request.enforcement {
        Enforcement::Required => Err(PlanError::Missing { what }),
        Enforcement::BestEffort => {
            gaps.push(gap);
            Ok(())
        }
    }
}
