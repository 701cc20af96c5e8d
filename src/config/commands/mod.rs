//! The commands of `missiond` that are about a mission's file and not about a running mission:
//! `validate`, `explain`, `schema`, `init` and `unit`.
//!
//! Each returns what belongs on standard output. They deliberately know no terminal and no argument
//! parser; `bin/missiond` has both.

mod explain;
mod init;
mod schema;
mod unit;
mod validate;
pub mod why;

use std::io;
use std::path::PathBuf;

pub use self::explain::{Shape, explain};
pub use self::init::init;
pub use self::schema::schema;
pub use self::unit::{UnitHome, unit_install, unit_print, unit_remove};
pub use self::validate::validate;
use super::{ConfigError, source};

/// Why a command failed; its text is complete, for standard error.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The mission file is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// An argument is wrong.
    #[error("error: {message}\n  help: {help}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// Something is there that isn't to be overwritten.
    #[error("error: {} is there already\n  help: {help}", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// What to do.
        help: &'static str,
    },
    /// What was to be removed isn't there.
    #[error("error: {0}")]
    NotFound(String),
    /// A file can't be written, read or removed.
    #[error("error: cannot {what} {}\n  cause: {}", path.display(), source::cause(source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This machine can't give what an agent asks for.
    #[error("error: {0}")]
    Refused(String),
    /// Something can't be written as JSON.
    #[error("error: cannot write JSON\n  cause: {0}")]
    Json(#[from] serde_json::Error),
}

impl CommandError {
    /// The exit code: 1 failure, 2 usage or invalid configuration, 3 not found, 5 conflict.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Config(_) | CommandError::Usage { .. } => 2,
            CommandError::NotFound(_) => 3,
            CommandError::Exists { .. } => 5,
            CommandError::Io { .. } | CommandError::Json(_) | CommandError::Refused(_) => 1,
        }
    }

    fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| CommandError::Io { what, path, source }
    }
}
