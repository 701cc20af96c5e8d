//! A child is never stronger than its parent (invariant 5): what an agent may pass on, as a lattice.
//!
//! [`Rights`] is a ceiling with one row for each dimension. A request says for each row nothing, a
//! default (of a template, of the mission), or an explicit wish:
//!
//! | | within the parent's | beyond it |
//! |---|---|---|
//! | nothing | the parent's | |
//! | default | as asked | lowered: the meet of both |
//! | explicit | as asked | [`Excess`], naming the row |
//!
//! Each row is a [`Lattice`]: `within` is its order and `meet` the largest that is within both, so that
//! the rights of a row of ancestors are their meet, in whatever order they are put together.
//!
//! It deliberately knows no agents: who is whose parent, what living siblings have reserved, and what
//! happens to a sandbox that can't shrink is the caller's.

mod paths;
mod reach;
mod rights;

pub use paths::{PathBits, Paths};
pub use reach::{Hosts, Ports, Reach};
pub use rights::{Budget, Ceilings, Methods, Names, PermissionSet, Rights};

use super::Level;

/// A dimension of rights.
pub trait Lattice {
    /// Whether this gives nothing that the other doesn't.
    fn within(&self, other: &Self) -> bool;
    /// The most that is within both.
    #[must_use]
    fn meet(&self, other: &Self) -> Self;
}

/// What a request says about one row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ask<T> {
    /// Nothing: the parent's.
    #[default]
    Inherit,
    /// A template's or the mission's default: as much of it as the parent has.
    Default(T),
    /// Somebody's wish: all of it, or a refusal.
    Explicit(T),
}

impl<T: Lattice + Clone> Ask<T> {
    fn decide(&self, parent: &T, row: Row) -> Result<T, Excess> {
        match self {
            Self::Inherit => Ok(parent.clone()),
            Self::Default(asked) => Ok(asked.meet(parent)),
            Self::Explicit(asked) if asked.within(parent) => Ok(asked.clone()),
            Self::Explicit(_) => Err(Excess { row }),
        }
    }
}

/// The rows of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// Permissions of the role.
    Role,
    /// Permissions that it may give on.
    Grantable,
    /// The isolation level.
    Level,
    /// Images of containers.
    Image,
    /// Paths.
    Paths,
    /// The network.
    Network,
    /// Limits of each process or agent.
    Limits,
    /// What all of its descendants share.
    Budget,
    /// Methods of the bus.
    Methods,
    /// Secrets, by name.
    Secrets,
    /// Environment variables, by name.
    Environment,
    /// Pools, by name.
    Pools,
    /// A command of the requester's own instead of a template's.
    InlineCommand,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Role => "role",
            Self::Grantable => "grantable permissions",
            Self::Level => "level",
            Self::Image => "image",
            Self::Paths => "paths",
            Self::Network => "network",
            Self::Limits => "limits",
            Self::Budget => "budget",
            Self::Methods => "methods",
            Self::Secrets => "secrets",
            Self::Environment => "environment",
            Self::Pools => "pools",
            Self::InlineCommand => "inline command",
        })
    }
}

/// More was asked for than the parent has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("more {row} than the parent has")]
pub struct Excess {
    /// In which dimension.
    pub row: Row,
}

/// What is asked for a child.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChildRequest {
    /// The role's permissions: a set, never a name.
    pub permissions: Ask<PermissionSet>,
    /// Those that it may give to its own children.
    pub grantable: Ask<PermissionSet>,
    /// The level; a higher number is less.
    pub level: Ask<Level>,
    /// The images that it may use and pass on.
    pub images: Ask<Names>,
    /// Paths.
    pub paths: Ask<Paths>,
    /// Network.
    pub network: Ask<Reach>,
    /// Limits.
    pub limits: Ask<Ceilings>,
    /// What it may use up together with its descendants. Out of what the parent has left.
    pub budget: Ask<Budget>,
    /// Methods.
    pub methods: Ask<Methods>,
    /// Secrets.
    pub secrets: Ask<Names>,
    /// Variables; `MISSION_*` are nobody's to give.
    pub environment: Ask<Names>,
    /// Pools.
    pub pools: Ask<Names>,
    /// Whether it may itself start commands of its own.
    pub inline_command: Ask<bool>,
    /// Whether this request brings a command of its own instead of a template's.
    pub brings_command: bool,
}

/// Decides what a child gets. `reserved` is what the parent's living children hold of its budget.
///
/// # Errors
/// An explicit wish goes beyond the parent's rights, or beyond what is left of its budget.
pub fn restrict(
    parent: &Rights,
    reserved: &Budget,
    request: &ChildRequest,
) -> Result<Rights, Excess> {
    if request.brings_command && !parent.inline_command {
        return Err(Excess { row: Row::InlineCommand });
    }
    let left = parent.budget.less(reserved).ok_or(Excess { row: Row::Budget })?;
    let permissions = request.permissions.decide(&parent.grantable, Row::Role)?;
    // What it may give on is within what it has itself.
    let may_grant = parent.grantable.meet(&permissions);
    let reserved_names = match &request.environment {
        Ask::Inherit => false,
        Ask::Default(Names(names)) | Ask::Explicit(Names(names)) => {
            names.iter().any(|name| name.starts_with("MISSION_"))
        }
    };
    if reserved_names {
        return Err(Excess { row: Row::Environment });
    }
    Ok(Rights {
        permissions,
        grantable: request.grantable.decide(&may_grant, Row::Grantable)?,
        level: request.level.decide(&parent.level, Row::Level)?,
        images: request.images.decide(&parent.images, Row::Image)?,
        paths: request.paths.decide(&parent.paths, Row::Paths)?,
        network: request.network.decide(&parent.network, Row::Network)?,
        limits: request.limits.decide(&parent.limits, Row::Limits)?,
        budget: request.budget.decide(&left, Row::Budget)?,
        methods: request.methods.decide(&parent.methods, Row::Methods)?,
        secrets: request.secrets.decide(&parent.secrets, Row::Secrets)?,
        environment: request.environment.decide(&parent.environment, Row::Environment)?,
        pools: request.pools.decide(&parent.pools, Row::Pools)?,
        inline_command: request
            .inline_command
            .decide(&parent.inline_command, Row::InlineCommand)?,
    })
}

impl Lattice for bool {
    fn within(&self, other: &Self) -> bool {
        !self || *other
    }
    fn meet(&self, other: &Self) -> Self {
        *self && *other
    }
}

/// A higher level is stronger isolation, so it is less of a right.
impl Lattice for Level {
    fn within(&self, other: &Self) -> bool {
        self >= other
    }
    fn meet(&self, other: &Self) -> Self {
        *self.max(other)
    }
}
