//! The world of a level-2 agent: made by the first process of its namespaces, from inside.
//!
//! ```text
//! shim --clone3, all namespaces--> init (pid 1)      this module, then `init`
//!                                    `-- fork --> payload      its steps as at level 1
//! ```
//!
//! | step | why here |
//! |---|---|
//! | tie to the shim | first, so that whatever is made goes when the shim does |
//! | id map | without it the process has no user, and could make no file |
//! | limits of namespaces | while there is a `/proc` with them, and the capability to write it |
//! | network, hostname | independent; both need capabilities |
//! | root | the host's tree is still there, and still what paths name |
//! | each node | its source is looked up in the old tree and its target in the new one, once each; from then on only descriptors are used |
//! | pivot | the old tree is out of reach of everything, and gone with its last descriptor |
//! | read-only root | when nothing has to be made in it any more |
//! | capabilities, no_new_privs | last, and before the fork: the payload never has any |
//!
//! All that is made belongs to the namespaces. Should a step fail, or the process be killed at any
//! point, the kernel takes everything away with it: there is nothing to undo.
//!
//! Deliberately not here: what the tree holds ([`SandboxPlan`] says it, and is followed to the
//! letter), and a fallback for anything. A `/proc` of its own that the kernel refuses fails the start;
//! whoever plans knows from [`probe_level_2`] that it would, and plans without one. The host's `/proc`
//! is never shown.

mod init;
mod link;
mod probe;
mod tree;

pub(super) use init::{Farewell, Init};
pub(super) use link::InitLink;
pub(super) use probe::{ARGUMENT as PROBE, answer as answer_probe};
pub use probe::{Level2, probe_level_2};

use std::path::Path;

use nix::unistd::{Gid, Uid, getegid, geteuid};

use super::message::Step;
use super::status::{Failure, at, on};
use crate::policy::sandbox::{Network, SandboxPlan};
use crate::sys::{capabilities, namespace, process};
use tree::Tree;

/// The ids of whoever starts an agent. To be asked for outside: inside they read as the overflow id
/// until they are mapped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    uid: Uid,
    gid: Gid,
}

impl Ids {
    /// Those of this process.
    pub(super) fn own() -> Self {
        Self { uid: geteuid(), gid: getegid() }
    }
}

/// Makes everything, in the order of the module's table, after the tie to the shim.
fn make(plan: &SandboxPlan, ids: Ids) -> Result<(), Failure> {
    map_ids(ids)?;
    limit_namespaces(plan)?;
    if plan.network == Network::None {
        namespace::loopback_up().map_err(at(Step::Loopback))?;
    }
    namespace::set_hostname(&plan.hostname).map_err(on(Step::Hostname, &plan.hostname))?;
    Tree::build(&plan.tree)?.enter()?;
    capabilities::drop_all().map_err(at(Step::Capabilities))?;
    process::no_new_privs().map_err(at(Step::NoNewPrivs))
}

/// Maps the user and the group to themselves, and to nothing else.
fn map_ids(Ids { uid, gid }: Ids) -> Result<(), Failure> {
    // The files of an undumpable process belong to root, who isn't mapped: user_namespaces(7).
    let dumpable = |yes: bool| {
        let done = if yes { process::become_dumpable() } else { process::become_undumpable() };
        done.map_err(at(Step::IdMap))
    };
    dumpable(true)?;
    for (path, value) in [
        // Before the group map, which the kernel otherwise refuses.
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {uid} 1\n")),
        ("/proc/self/gid_map", format!("{gid} {gid} 1\n")),
    ] {
        namespace::write_setting(Path::new(path), &value).map_err(on(Step::IdMap, path))?;
    }
    dumpable(false)
}

/// Limits what can be made below these namespaces. The settings are those of the user namespace of
/// whoever opens the file.
fn limit_namespaces(plan: &SandboxPlan) -> Result<(), Failure> {
    for (path, value) in [
        ("/proc/sys/user/max_user_namespaces", plan.user_namespaces),
        ("/proc/sys/user/max_inotify_instances", plan.inotify_instances),
    ] {
        namespace::write_setting(Path::new(path), &value.to_string())
            .map_err(on(Step::NamespaceLimits, path))?;
    }
    Ok(())
}
