//! The log under real faults: killed at, or refused by, each system call that writes; a disk that
//! is really full; files that are deleted under it.
//!
//! Each case runs a fixed script in a child process (this binary again, see `script`). strace then
//! lets one call of one thread fail, and the parent opens what is left.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it expects and no more")]

#[cfg(test)]
#[path = "crash_matrix/child.rs"]
mod child;
#[cfg(test)]
#[path = "crash_matrix/losses.rs"]
mod losses;
#[cfg(test)]
#[path = "crash_matrix/matrix.rs"]
mod matrix;
#[cfg(test)]
#[path = "crash_matrix/script.rs"]
mod script;
#[cfg(test)]
#[path = "crash_matrix/tmpfs.rs"]
mod tmpfs;
