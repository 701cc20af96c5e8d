//! The world of a level-2 agent: its namespaces, and the tree that is the whole of what it sees.
//!
//! A [`SandboxPlan`] is built from nothing, in the order of its nodes: what isn't in the list isn't
//! there. Paths are the agent's, and the same as outside wherever the agent gets something of the
//! host (the workspace, its own directories), so that messages, `#!` lines and a checkpoint's paths
//! mean the same on both sides.
//!
//! Deliberately not here: resource limits and the seccomp filter, which are the same kind of thing at
//! every level ([`ProcessPlan`](super::ProcessPlan)), and Landlock, whose rules name paths of this
//! tree.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What an agent reaches of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A network namespace of its own, in which only the loopback device is up.
    #[default]
    None,
    /// The host's.
    Host,
}

/// What may be done through a bind mount. All are nosuid; none but [`Access::Device`] opens devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read and execute.
    Read,
    /// Also write.
    Write,
    /// Read and write one device node.
    Device,
}

/// Whether a symbolic link on the way to a bind's source is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Only root can change the way there (`/usr`): links are followed.
    System,
    /// Somebody else may be able to (`the workspace`): a link anywhere on the way fails the start.
    None,
}

/// One thing in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Node {
    /// A directory or file of the host, with everything mounted below it.
    Bind {
        /// Where it is outside.
        source: PathBuf,
        /// Where it appears. Missing directories above are made where the tree is the sandbox's own.
        target: PathBuf,
        /// What may be done with it.
        access: Access,
        /// How the source is opened.
        trust: Trust,
    },
    /// A directory of the host that can be written without being changed: what is written goes into
    /// `upper` (overlayfs with `userxattr`, Linux 5.11).
    Overlay {
        /// What is below; never changed.
        lower: PathBuf,
        /// Where changes go.
        upper: PathBuf,
        /// An empty directory on the file system of `upper`.
        work: PathBuf,
        /// Where it appears.
        target: PathBuf,
    },
    /// A place inside an earlier writable bind that is mounted onto itself: it can't be renamed or
    /// removed (`EBUSY`), so neither can what is mounted below it be moved out of the way.
    Pin {
        /// A directory inside a writable bind.
        target: PathBuf,
    },
    /// A place inside an earlier writable bind that becomes read-only, and can't be renamed.
    Protect {
        /// A file or directory inside a writable bind.
        target: PathBuf,
    },
    /// A place that is hidden: an empty read-only directory lies over it, or a file that nobody may
    /// open (mode 000; without capabilities that holds for root too).
    Hide {
        /// A file or directory inside an earlier bind.
        target: PathBuf,
    },
    /// A symbolic link in the sandbox's own tree (`/bin -> usr/bin`).
    Symlink {
        /// Where it stands.
        target: PathBuf,
        /// What it says.
        to: PathBuf,
    },
    /// An empty directory in the sandbox's own tree.
    Directory {
        /// Where.
        target: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file with this content in the sandbox's own tree.
    File {
        /// Where.
        target: PathBuf,
        /// What is in it.
        text: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A file system in memory, the agent's own, gone with it.
    Tmpfs {
        /// Where.
        target: PathBuf,
        /// Most bytes in it.
        bytes: u64,
        /// Most files in it.
        inodes: u64,
        /// Permission bits of its root.
        mode: u32,
        /// The agent writes in it. Where it doesn't, the file system only covers what lies below,
        /// holds places for mounts, and is read-only once they are in it.
        writable: bool,
    },
    /// The process information of the agent's own pid namespace.
    Proc {
        /// Where: `/proc`.
        target: PathBuf,
    },
    /// Pseudo terminals of its own.
    Devpts {
        /// Where: `/dev/pts`.
        target: PathBuf,
    },
}

impl Node {
    /// Where it appears.
    #[must_use]
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. }
            | Self::Overlay { target, .. }
            | Self::Pin { target }
            | Self::Protect { target }
            | Self::Hide { target }
            | Self::Symlink { target, .. }
            | Self::Directory { target, .. }
            | Self::File { target, .. }
            | Self::Tmpfs { target, .. }
            | Self::Proc { target }
            | Self::Devpts { target } => target,
        }
    }
}

/// Everything that level 2 adds to a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxPlan {
    /// The network.
    pub network: Network,
    /// Name of the machine, inside.
    pub hostname: String,
    /// User namespaces that may be made inside (`max_user_namespaces`); 0 unless granted.
    pub user_namespaces: u32,
    /// Watches for changes that may be open at once inside (`max_inotify_instances`).
    pub inotify_instances: u32,
    /// The tree, in the order in which it is built. The root itself is an empty, read-only directory
    /// once everything is in it.
    pub tree: Vec<Node>,
}
