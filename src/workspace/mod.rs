//! The trees that agents write: what in them must stay as it is, and what comes back from a private
//! one.
//!
//! ```text
//! walk, discover --> Found --> placeholders (for what is missing) --> nodes of the sandbox
//! ```
//!
//! An agent that may write the workspace could else write what runs on the host later: a hook, git's
//! configuration, the mission file, another agent's program. Level 2 mounts these places read-only;
//! this room finds them. It deliberately mounts nothing (the launcher does), runs no git, and knows
//! no mission.

mod beneath;
mod discover;
mod exclude;
mod found;
mod gitconfig;
mod journal;
mod later;
mod placeholder;
mod pointer;
pub mod private;
mod registry;
mod repository;
mod scanner;
mod secure;
mod walk;

pub use discover::Wanted;
pub use exclude::{Substitute, excludes};
pub use found::{Filler, Found, State, TooMany};
pub use later::{Later, inspect};
pub use pointer::git_dir_outside;
pub use registry::{Cleaned, Registry, RegistryError, User};
pub use scanner::{Scanner, SearchError};
pub use secure::{SecureError, secure};

#[cfg(test)]
mod tests;
