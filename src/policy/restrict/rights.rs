//! A ceiling: one row for each dimension.

use std::collections::BTreeSet;

use super::{Lattice, Paths, Reach};
use crate::policy::Level;

/// Permissions as a set of up to 16; which is which is the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PermissionSet(pub u16);

impl Lattice for PermissionSet {
    fn within(&self, other: &Self) -> bool {
        self.0 & !other.0 == 0
    }
    fn meet(&self, other: &Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Names of secrets, variables, pools, images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(pub BTreeSet<String>);

impl Lattice for Names {
    fn within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }
    fn meet(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }
}

/// Methods of the bus: allowed ones, less denied ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Methods {
    /// Only these; all if none are named.
    pub allowed: Option<BTreeSet<String>>,
    /// Never these.
    pub denied: BTreeSet<String>,
}

impl Lattice for Methods {
    fn within(&self, other: &Self) -> bool {
        let allowed = match (&self.allowed, &other.allowed) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(one), Some(two)) => one.is_subset(two),
        };
        allowed && self.denied.is_superset(&other.denied)
    }
    fn meet(&self, other: &Self) -> Self {
        let allowed = match (&self.allowed, &other.allowed) {
            (None, either) | (either, None) => either.clone(),
            (Some(one), Some(two)) => Some(one.intersection(two).cloned().collect()),
        };
        Self { allowed, denied: self.denied.union(&other.denied).cloned().collect() }
    }
}

/// A number that may be without a bound.
fn bounded(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(one), Some(other)) => one <= other,
    }
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (None, either) | (either, None) => either,
        (Some(one), Some(other)) => Some(one.min(other)),
    }
}

/// Declares numbers that are each bounded by the parent's.
macro_rules! numbers {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name {
            $($(#[$doc])* pub $field: Option<u64>,)*
        }

        impl Lattice for $name {
            fn within(&self, other: &Self) -> bool {
                true $(&& bounded(self.$field, other.$field))*
            }
            fn meet(&self, other: &Self) -> Self {
                Self { $($field: least(self.$field, other.$field),)* }
            }
        }

        impl $name {
            /// As it is, with what it leaves open taken from the other.
            #[must_use]
            pub fn or(&self, other: &Self) -> Self {
                Self { $($field: self.$field.or(other.$field),)* }
            }
        }
    };
}

numbers! {
    /// Bounds of each agent by itself; `None` is no bound.
    Ceilings {
        /// Bytes.
        memory,
        /// Processes and threads.
        pids,
        /// Thousandths of a processor.
        cpu_milli,
        /// Seconds of processor time of each process.
        cpu_seconds,
        /// Open files of each process.
        nofile,
        /// Bytes of the largest file.
        file_size,
        /// Bytes of the private `/tmp`.
        tmp,
        /// Milliseconds that a process may live.
        wall_ms,
        /// When it ends at the latest, in milliseconds of the mission's clock: absolute, so the
        /// earlier of two counts.
        deadline_ms,
    }
}

numbers! {
    /// What an agent and all of its descendants share; `None` is no bound.
    Budget {
        /// Agents at one time.
        slots,
        /// Agents ever.
        lifetime_spawns,
        /// Spawns in a minute.
        spawns_per_minute,
        /// Bytes of memory at one time.
        memory,
        /// Processes and threads at one time.
        pids,
        /// Generations below.
        depth,
    }
}

impl Budget {
    /// What is left when so much of it is reserved; none if that is more than there is. What isn't
    /// bounded stays so; the depth isn't used up by siblings.
    #[must_use]
    pub fn less(&self, reserved: &Budget) -> Option<Budget> {
        let less = |all: Option<u64>, reserved: Option<u64>| match all {
            None => Some(None),
            Some(all) => all.checked_sub(reserved.unwrap_or(0)).map(Some),
        };
        Some(Budget {
            slots: less(self.slots, reserved.slots)?,
            lifetime_spawns: less(self.lifetime_spawns, reserved.lifetime_spawns)?,
            spawns_per_minute: less(self.spawns_per_minute, reserved.spawns_per_minute)?,
            memory: less(self.memory, reserved.memory)?,
            pids: less(self.pids, reserved.pids)?,
            depth: self.depth,
        })
    }

    /// Both together: what siblings have reserved.
    #[must_use]
    pub fn plus(&self, other: &Budget) -> Budget {
        let sum = |one: Option<u64>, two: Option<u64>| match (one, two) {
            (None, None) => None,
            (one, two) => Some(one.unwrap_or(0).saturating_add(two.unwrap_or(0))),
        };
        Budget {
            slots: sum(self.slots, other.slots),
            lifetime_spawns: sum(self.lifetime_spawns, other.lifetime_spawns),
            spawns_per_minute: sum(self.spawns_per_minute, other.spawns_per_minute),
            memory: sum(self.memory, other.memory),
            pids: sum(self.pids, other.pids),
            depth: self.depth.or(other.depth),
        }
    }
}

/// Everything that an agent may pass on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Permissions of its role.
    pub permissions: PermissionSet,
    /// Permissions that it may give; within the former.
    pub grantable: PermissionSet,
    /// The lowest level that a child may have.
    pub level: Level,
    /// Images of containers that a child may have.
    pub images: Names,
    /// Paths.
    pub paths: Paths,
    /// The network.
    pub network: Reach,
    /// Limits of each agent.
    pub limits: Ceilings,
    /// Limits of all descendants together.
    pub budget: Budget,
    /// Methods of the bus.
    pub methods: Methods,
    /// Secrets.
    pub secrets: Names,
    /// Environment variables.
    pub environment: Names,
    /// Pools.
    pub pools: Names,
    /// May start commands of its own.
    pub inline_command: bool,
}

impl Lattice for Rights {
    fn within(&self, other: &Self) -> bool {
        self.permissions.within(&other.permissions)
            && self.grantable.within(&other.grantable)
            && self.level.within(&other.level)
            && self.images.within(&other.images)
            && self.paths.within(&other.paths)
            && self.network.within(&other.network)
            && self.limits.within(&other.limits)
            && self.budget.within(&other.budget)
            && self.methods.within(&other.methods)
            && self.secrets.within(&other.secrets)
            && self.environment.within(&other.environment)
            && self.pools.within(&other.pools)
            && self.inline_command.within(&other.inline_command)
    }

    fn meet(&self, other: &Self) -> Self {
        Self {
            permissions: self.permissions.meet(&other.permissions),
            grantable: self.grantable.meet(&other.grantable),
            level: self.level.meet(&other.level),
            images: self.images.meet(&other.images),
            paths: self.paths.meet(&other.paths),
            network: self.network.meet(&other.network),
            limits: self.limits.meet(&other.limits),
            budget: self.budget.meet(&other.budget),
            methods: self.methods.meet(&other.methods),
            secrets: self.secrets.meet(&other.secrets),
            environment: self.environment.meet(&other.environment),
            pools: self.pools.meet(&other.pools),
            inline_command: self.inline_command.meet(&other.inline_command),
        }
    }
}
