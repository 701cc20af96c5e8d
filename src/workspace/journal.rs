//! What placeholders there are, on disk before they are: a file that is replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::beneath::read_bounded;

/// Largest file of records.
const MOST: u64 = 64 << 20;

/// A file or directory, named for good: numbers of inodes are used again, with another time of birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inode {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) number: u64,
    /// Seconds and nanoseconds; none where the file system doesn't keep it.
    pub(super) born: Option<(i64, u32)>,
}

/// How far a placeholder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// It may be there under its temporary name.
    Intended,
    /// It is this one, under its temporary or its own name.
    Made(Inode),
}

/// One placeholder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// A name that nobody else can guess, beside the path.
    pub(super) temporary: String,
    /// Content of a file; none for a directory.
    pub(super) content: Option<String>,
    pub(super) stage: Stage,
}

/// All placeholders of a user's missions.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    pub(super) places: Vec<Place>,
}

impl Journal {
    pub(super) fn find(&self, path: &Path) -> Option<usize> {
        self.places.iter().position(|place| place.path == path)
    }

    pub(super) fn read(path: &Path) -> io::Result<Journal> {
        Ok(read_json(path)?.unwrap_or_default())
    }

    /// Replaces the file; on disk when it returns.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        write_json(path, self, true)
    }
}

/// Reads a file of JSON; none if there is no such file.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    Ok(Some(serde_json::from_slice(&read_bounded(file, MOST)?)?))
}

/// Replaces a file by JSON as a whole; `durable`: it is on disk when this returns.
pub(super) fn write_json(path: &Path, value: &impl Serialize, durable: bool) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = OpenOptions::new();
    file.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = file.open(&new)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) if durable => File::open(parent)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}
