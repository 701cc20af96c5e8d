//! One log file of an agent, with rotation.
//!
//! Nothing here fails: an agent must neither block nor die because a disk is full. What can't be
//! written is counted, and the log says so as soon as it can be written again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::spec::LogSpec;

/// Below this a rotation would cost more than it holds.
const MIN_BYTES: u64 = 4096;

/// An append-only file that is replaced by a fresh one when it is full.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max: u64,
    keep: u32,
    /// Bytes dropped since the last note in the log.
    unnoted: u64,
    dropped: u64,
}

impl Log {
    /// Opens `dir/name`, appending to what is there.
    pub(super) fn open(spec: &LogSpec, name: &str) -> io::Result<Self> {
        let mut log = Self {
            path: spec.dir.join(name),
            file: None,
            size: 0,
            max: spec.max_bytes.max(MIN_BYTES),
            keep: spec.keep,
            unnoted: 0,
            dropped: 0,
        };
        log.reopen()?;
        Ok(log)
    }

    /// Bytes that were dropped in all.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Appends, as far as possible.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.unnoted > 0 {
            let note = format!("[missiond: {} bytes of output were dropped here]\n", self.unnoted);
            if self.append(note.as_bytes()).is_err() {
                self.drop(bytes.len());
                return;
            }
            self.unnoted = 0;
        }
        if let Err(rest) = self.append(bytes) {
            self.drop(rest);
        }
    }

    fn drop(&mut self, bytes: usize) {
        self.unnoted += bytes as u64;
        self.dropped += bytes as u64;
    }

    /// Appends in pieces that end with a line where they can; the error is what is left over.
    fn append(&mut self, mut bytes: &[u8]) -> Result<(), usize> {
        while !bytes.is_empty() {
            let room = usize::try_from(self.max.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let fits = bytes.get(..room).map_or(bytes.len(), |start| {
                let line = start.iter().rposition(|&b| b == b'\n').map(|at| at + 1);
                line.unwrap_or(if self.size == 0 { room } else { 0 })
            });
            if fits == 0 {
                self.rotate().map_err(|_| bytes.len())?;
                continue;
            }
            let written = self.append_some(bytes.get(..fits).unwrap_or_default());
            match written {
                Ok(count) if count > 0 => bytes = bytes.get(count..).unwrap_or_default(),
                Ok(_) | Err(_) => return Err(bytes.len()),
            }
        }
        Ok(())
    }

    fn append_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else { return Ok(0) };
        let count = file.write(bytes)?;
        self.size += count as u64;
        Ok(count)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// `x` becomes `x.1`, `x.1` becomes `x.2`, and the last is removed.
    fn rotate(&mut self) -> io::Result<()> {
        // Dropping the file first: whatever fails below, nothing is appended to a full one.
        self.file = None;
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for number in (1..self.keep).rev() {
                match fs::rename(numbered(number), numbered(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            match fs::rename(&self.path, numbered(1)) {
                // Removed by somebody: as good as rotated.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.size = 0;
        self.reopen()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &std::path::Path, keep: u32) -> LogSpec {
        LogSpec { dir: dir.to_owned(), max_bytes: MIN_BYTES, keep }
    }

    fn read(dir: &std::path::Path, name: &str) -> Vec<u8> {
        fs::read(dir.join(name)).unwrap_or_default()
    }

    #[test]
    fn rotation_splits_at_lines_and_keeps_the_asked_number_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(&spec(dir.path(), 2), "stdout.log").unwrap();
        for number in 0..2000 {
            log.write(format!("line {number:05}\n").as_bytes());
        }
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["stdout.log", "stdout.log.1", "stdout.log.2"]);
        let kept: String = ["stdout.log.2", "stdout.log.1", "stdout.log"]
            .map(|name| String::from_utf8(read(dir.path(), name)).unwrap())
            .concat();
        let lines: Vec<_> = kept.lines().collect();
        assert_eq!(*lines.last().unwrap(), "line 01999");
        for pair in lines.windows(2) {
            let number = |line: &str| line[5..].parse::<u32>().unwrap();
            assert_eq!(number(pair[0]) + 1, number(pair[1]), "a line was lost or cut");
        }
        assert!(names.iter().all(|name| read(dir.path(), name).len() as u64 <= MIN_BYTES));
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn one_line_longer_than_a_file_is_spread_over_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(&spec(dir.path(), 9), "stdout.log").unwrap();
        let long = vec![b'x'; 3 * 4096 + 10];
        log.write(&long);
        let total: usize = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| fs::read(e.unwrap().path()).unwrap().len())
            .sum();
        assert_eq!(total, long.len());
    }

    #[test]
    fn output_that_cannot_be_written_is_counted_and_noted_later() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("log");
        fs::create_dir(&logs).unwrap();
        let mut log = Log::open(&spec(&logs, 1), "stdout.log").unwrap();
        log.write(&[b'a'; 4000]);
        fs::remove_dir_all(&logs).unwrap();
        log.write(&[b'b'; 500]);
        log.write(&[b'c'; 41]);
        assert_eq!(log.dropped(), 541);
        fs::create_dir(&logs).unwrap();
        log.write(b"back\n");
        assert_eq!(
            String::from_utf8(read(&logs, "stdout.log")).unwrap(),
            "[missiond: 541 bytes of output were dropped here]\nback\n"
        );
        assert_eq!(log.dropped(), 541);
    }

    #[test]
    fn a_log_that_is_a_symbolic_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("stdout.log")).unwrap();
        let error = Log::open(&spec(dir.path(), 1), "stdout.log").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }
}
