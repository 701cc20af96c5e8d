//! From a request and the host's facts to a plan, or a refusal.

use serde::{Deserialize, Serialize};

use super::Level;
use super::bpf::Instruction;
use super::host::HostFacts;
use super::landlock::{self, LandlockPlan};
use super::limits::{Rlimit, rlimits};
use super::request::{Enforcement, PlanRequest};
use super::sandbox::SandboxPlan;
use super::seccomp;
use super::verdict::{Gap, PlanError};

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
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
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
            gaps: Vec::new(),
        }),
        Level::Process => level_1(request, host),
        Level::Namespaces | Level::Container => Err(PlanError::Level(request.level)),
    }
}

fn level_1(request: &PlanRequest, host: &HostFacts) -> Result<ProcessPlan, PlanError> {
    let mut gaps = Vec::new();
    if host.landlock_abi < request.landlock_min_abi {
        return Err(PlanError::LandlockAbi {
            wanted: request.landlock_min_abi,
            present: host.landlock_abi,
        });
    }
    let missing = |what, gap, gaps: &mut Vec<Gap>| match request.enforcement {
        Enforcement::Required => Err(PlanError::Missing { what }),
        Enforcement::BestEffort => {
            gaps.push(gap);
            Ok(())
        }
    };
    let landlock = if host.landlock_abi == 0 {
        missing("Landlock", Gap::NoLandlock, &mut gaps)?;
        None
    } else {
        Some(landlock::domain(request, host, &mut gaps)?)
    };
    let seccomp = match seccomp::native() {
        Some(arch) if host.seccomp => seccomp::level_1(&arch)?,
        Some(_) | None => {
            missing("seccomp filters", Gap::NoSeccomp, &mut gaps)?;
            Vec::new()
        }
    };
    let rlimits = rlimits(&request.limits, host, &mut gaps)?;
    Ok(ProcessPlan {
        level: Level::Process,
        sandbox: None,
        drop_capabilities: true,
        no_new_privs: true,
        landlock,
        seccomp,
        rlimits,
        gaps,
    })
}
