//! How a preparation that fails is told, and files that only we write. Nothing here knows what is being
//! prepared.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::supervise::SetupFailure;

/// What is told of a system call that failed.
pub(super) fn failed(step: impl Into<String>) -> impl FnOnce(io::Error) -> SetupFailure {
    let step = step.into();
    move |error| match error.raw_os_error() {
        Some(errno) => SetupFailure { step, errno },
        None => SetupFailure { step: format!("{step}: {error}"), errno: 0 },
    }
}

/// What is told of anything else, with its cause.
pub(super) fn refused(step: &str, error: &dyn std::error::Error) -> SetupFailure {
    let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
    SetupFailure { step: format!("{step}: {error}{cause}"), errno: 0 }
}

/// Replaces a file in a directory that only we can write.
pub(super) fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)
}
