//! The home directory of a command: an empty one that is gone at the end.
//!
//! At level 2 it is a file system in memory at the place of the real one. At level 1 there is no such
//! thing, so it is a directory of its own, removed afterwards.

use std::io;
use std::path::{Path, PathBuf};

/// A directory that is removed with what is in it.
#[derive(Debug)]
pub(super) struct Throwaway(PathBuf);

impl Throwaway {
    /// Makes one where only this user can look.
    ///
    /// # Errors
    /// mkdtemp(3).
    pub(super) fn new() -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let base = runtime.filter(|path| path.is_dir()).unwrap_or_else(std::env::temp_dir);
        let made = nix::unistd::mkdtemp(&base.canonicalize()?.join("missiond-run-XXXXXX"))?;
        Ok(Self(made))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        // What can't be removed (a directory without permissions that the command made) stays: there
        // is nobody to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
