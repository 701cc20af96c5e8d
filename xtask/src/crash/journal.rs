//! What a party of the test did, as lines of JSON: what it was about to ask for, and what was
//! acknowledged. A line is one write(2), so that a killed process leaves whole lines and at most one
//! torn one at the end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A message is about to be published under this key.
    Try { key: String, to: String },
    /// It was acknowledged, and stands there.
    Published { key: String, seq: u64 },
    /// A message came.
    Got { seq: u64, redelivered: bool },
    /// The acknowledgement of everything up to there was confirmed.
    Acked { upto: u64 },
    /// A task was created.
    Created { task: String },
    /// A checkpoint was saved.
    Saved { task: String, id: String },
    /// A task was completed.
    Completed { task: String, epoch: u64 },
    /// A handoff was asked for.
    Requested { handoff: String },
    /// A handoff was completed by its target.
    HandedOver { handoff: String, task: String },
}

/// A journal that is being written.
pub(crate) struct Journal(File);

impl Journal {
    pub(crate) fn open(path: &Path) -> io::Result<Journal> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // Ends the line that a killed predecessor may have torn.
        file.write_all(b"\n")?;
        Ok(Journal(file))
    }

    pub(crate) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

/// All whole lines of a journal; none where there is no file yet.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
