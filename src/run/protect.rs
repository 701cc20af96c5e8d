//! What a command may not change in the directories that it writes: git's hooks and configuration, as
//! for an agent of a mission.
//!
//! What is missing of it is made for as long as the command runs ([`Registry`]); a run that is killed
//! leaves it to the next one. Repositories that the command makes itself are its own affair here:
//! nobody is there to tell of them.

use std::path::PathBuf;

use crate::config::dirs::Places;
use crate::policy::Roots;
use crate::workspace::{
    Registry, RegistryError, Scanner, SecureError, TooMany, User, Wanted, secure,
};

/// Why the writable directories can't be protected.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProtectError {
    #[error(transparent)]
    Secure(#[from] SecureError),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("cannot stand in for what is missing")]
    Registry(#[from] RegistryError),
    #[error("cannot keep a record of what stands in for missing files")]
    State(#[from] crate::config::dirs::DirsError),
}

/// As long as this lives what is missing is stood in for.
#[derive(Debug, Default)]
pub(super) struct Protection(Option<(Registry, User)>);

/// Finds what is to be protected in the writable directories of `roots` and adds it. Gives also what
/// can't be, as sentences.
///
/// # Errors
/// It isn't known, too much, or can't be stood in for.
pub(super) fn protect(
    roots: &mut Roots,
    names: Vec<String>,
) -> Result<(Protection, Vec<String>), ProtectError> {
    let mut trees: Vec<PathBuf> = Vec::new();
    for tree in roots.workspace.iter().chain(&roots.extra_write).filter(|path| path.is_dir()) {
        if !trees.iter().any(|other| tree.starts_with(other)) {
            trees.push(tree.clone());
        }
    }
    if trees.is_empty() {
        return Ok((Protection::default(), Vec::new()));
    }
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = variable("HOME");
    let of_user = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let places = Places::from_environment(|name| std::env::var_os(name));
    let keep_out = places.iter().flat_map(Places::bases).map(PathBuf::from).collect();
    let git_config = [
        Some(PathBuf::from("/etc/gitconfig")),
        of_user.map(|dir| dir.join("git/config")),
        home.as_ref().map(|home| home.join(".gitconfig")),
    ];
    let wanted = Wanted {
        trees,
        names,
        keep_out,
        home,
        git_config: git_config.into_iter().flatten().collect(),
        ..Wanted::default()
    };
    let places = places?;
    let [_, state_base] = places.bases();
    let registry = Registry::open(state_base)?;
    // No shim: the record holds for as long as this process has the registry.
    let no_shim = state_base.join(".placeholders/no-shim");
    let (found, user) = secure(&Scanner::default(), &registry, &wanted, &no_shim)?;
    let protection = Protection(Some((registry, user)));
    roots.protected.extend(found.protected()?);
    roots.extra_write.extend(found.outside.iter().cloned());
    Ok((protection, found.gaps))
}

impl Drop for Protection {
    fn drop(&mut self) {
        if let Some((registry, user)) = self.0.take() {
            // What can't be removed now is on record for the next run.
            let _ = registry.release(user);
        }
    }
}
