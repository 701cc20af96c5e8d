//! What an agent may do to the machine, decided before anything runs.
//!
//! [`plan()`] turns a request (level, role, directories, limits) and what this kernel can do
//! ([`HostFacts`]) into a [`ProcessPlan`]: plain data that names every Landlock rule, every
//! instruction of the seccomp filter and every resource limit. The launcher applies a plan to the
//! letter; `explain` prints it; nothing is decided in the child.
//!
//! ```text
//! PlanRequest + HostFacts --plan()--> ProcessPlan --launch::payload--> the agent
//!                             `----> PlanError: refused, never lowered (invariant 4)
//! ```
//!
//! Pure: no file, clock, environment or randomness. It deliberately does not look at the machine
//! (`launch::host_facts` does), does not resolve paths (callers hand over canonical ones), and does
//! not know missions or tasks.

pub mod bpf;
pub mod environment;
pub mod explain;
mod grants;
mod host;
pub mod landlock;
pub mod limits;
pub mod model;
mod plan;
mod request;
pub mod restrict;
pub mod sandbox;
pub mod seccomp;
mod tree;
mod verdict;
pub mod why;

use serde::{Deserialize, Serialize};

pub use environment::{EnvironmentError, EnvironmentRequest, environment};
pub use grants::Grants;
pub use host::{DEVICES, HostFacts, PROC_PLACES, PlaceKind, SYSTEM_PLACES, SystemPlace};
pub use limits::{CgroupLimits, Limits, Rlimit, RlimitKind};
pub use model::{Grant, Origin, Policy};
pub use plan::{ProcessPlan, plan};
pub use request::{Enforcement, LandlockMode, PlanRequest, PrivateTree, Roots};
pub use verdict::{Gap, PlanError};

/// How far an agent is separated from the rest of the machine; a higher level is stronger.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// `none`: development; inherits the environment, still supervised and on the bus.
    None,
    /// 1: a plain process with Landlock, seccomp, a scrubbed environment and resource limits.
    #[default]
    Process,
    /// 2: its own namespaces.
    Namespaces,
    /// 3: a rootless container.
    Container,
}

impl Level {
    /// The number people write in `mission.toml`; `none` is 0.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Process => 1,
            Self::Namespaces => 2,
            Self::Container => 3,
        }
    }

    /// The level of a number, 0 to 3.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Process),
            2 => Some(Self::Namespaces),
            3 => Some(Self::Container),
            _ => None,
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Process | Self::Namespaces | Self::Container => self.number().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
