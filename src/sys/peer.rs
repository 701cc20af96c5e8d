//! Who is on the other side of a Unix socket, by the kernel's word: the process, its ancestors, its
//! user and whether it runs under `no_new_privs`.
//!
//! A process is named by its id *and* its start time. The chain of ancestors is read twice through
//! directory descriptors of `/proc`, which, like pidfds, stay with one process and never with a
//! recycled id; only two identical readings count. While a process lives, a dead parent of it would
//! show as another parent; so what is accepted was true at one moment between the two readings.
//!
//! What it deliberately does not do: judge. Which chain makes an agent or an operator is decided in
//! `bus::identity`.

use std::io;

/// A process, named for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Its id.
    pub pid: u32,
    /// Its start, in clock ticks since boot (field 22 of proc_pid_stat(5)).
    pub start: u64,
}

/// The other side of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The effective user when it connected.
    pub uid: u32,
    /// Whether it is under `no_new_privs`, now and for ever.
    pub no_new_privs: bool,
    /// The process, its parent, its parent's parent and so on up to the first that we can see.
    pub chain: Vec<ProcessId>,
}

/// The process of that id, as it is now.
///
/// # Errors
/// There is none, or `/proc` can't be read.
pub fn process_id(pid: u32) -> io::Result<ProcessId> {
    super::procfs::stat(pid).map(|stat| ProcessId { pid, start: stat.start })
}

/// This process.
///
/// # Errors
/// `/proc` can't be read.
pub fn own() -> io::Result<ProcessId> {
    process_id(super::process::own_pid())
}
