//! Search and placeholders in one: what is found is there when the sandbox is built.

use std::path::Path;

use super::discover::Wanted;
use super::found::Found;
use super::registry::{Registry, RegistryError, User};
use super::scanner::{Scanner, SearchError};

/// Searches before it is given up, each because something went away since the one before.
const SEARCHES: usize = 16;

/// Why what is to be protected can't be.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// It can't be searched for.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// It can't be stood in for.
    #[error("cannot stand in for what is missing")]
    Registry(#[from] RegistryError),
    /// Somebody removes files all the time.
    #[error("what is to be protected goes away again and again")]
    Unsteady,
}

/// Finds what is to be protected, and makes what is missing of it, for an agent whose lock the caller
/// holds. Blocks.
///
/// # Errors
/// See [`SecureError`]; nothing is left behind then.
pub fn secure(
    scanner: &Scanner,
    registry: &Registry,
    wanted: &Wanted,
    agent_lock: &Path,
) -> Result<(Found, User), SecureError> {
    for _ in 0..SEARCHES {
        let mut found = scanner.search(wanted, false)?;
        if let Some(user) = registry.acquire(&mut found, agent_lock)? {
            return Ok((found, user));
        }
    }
    Err(SecureError::Unsteady)
}
