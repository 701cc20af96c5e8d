//! One log file with its rotated predecessors: its last lines, and then what is added.
//!
//! `x` becomes `x.1`, `x.1` becomes `x.2`, and a fresh `x` is begun. Which file one has read is known by
//! its inode, whatever it is called now, so that no line is lost or shown twice over a rotation.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How much is read at once, in bytes.
const CHUNK: u64 = 64 << 10;

/// A line longer than this is shown in pieces of it, in bytes.
const MAX_LINE: usize = 1 << 20;

/// Something to show.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SeenLine {
    /// A line, without its end.
    Text(Vec<u8>),
    /// Here lines are missing: they were rotated away before they could be read.
    Gap,
}

/// A log file that is read.
pub(super) struct LogFile {
    path: PathBuf,
    open: Option<Opened>,
    partial: Vec<u8>,
}

struct Opened {
    file: File,
    inode: u64,
}

fn open(path: &Path) -> io::Result<Option<Opened>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some(Opened { file, inode }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl LogFile {
    /// The log `directory/name`, which need not exist yet.
    pub(super) fn new(directory: &Path, name: &str) -> Self {
        LogFile { path: directory.join(name), open: None, partial: Vec::new() }
    }

    fn rotated(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// The last lines, over rotated files, and leaves off at the end of the newest.
    ///
    /// # Errors
    /// A file can't be read.
    pub(super) fn last(&mut self, count: usize) -> io::Result<Vec<SeenLine>> {
        let mut lines: VecDeque<Vec<u8>> = VecDeque::new();
        self.open = open(&self.path)?;
        let mut end = 0;
        if let Some(opened) = &mut self.open {
            end = opened.file.seek(SeekFrom::End(0))?;
            lines.extend(tail(&mut opened.file, end, count)?);
        }
        for number in 1.. {
            if lines.len() >= count {
                break;
            }
            let Some(mut older) = open(&self.rotated(number))? else { break };
            let older_end = older.file.seek(SeekFrom::End(0))?;
            for line in tail(&mut older.file, older_end, count - lines.len())?.into_iter().rev() {
                lines.push_front(line);
            }
        }
        if let Some(opened) = &mut self.open {
            // What was added while this was read comes as news.
            opened.file.seek(SeekFrom::Start(end))?;
        }
        Ok(lines.into_iter().map(SeenLine::Text).collect())
    }

    /// What was added since the last look; a line without an end waits for it, unless this is the
    /// final look.
    ///
    /// # Errors
    /// A file can't be read.
    pub(super) fn news(&mut self, is_final: bool) -> io::Result<Vec<SeenLine>> {
        let mut lines = Vec::new();
        loop {
            let newest = open(&self.path)?;
            let Some(mut opened) = self.open.take() else {
                let Some(newest) = newest else { break };
                self.open = Some(newest);
                continue;
            };
            self.drain(&mut opened.file, &mut lines)?;
            let Some(newest) = newest.filter(|newest| newest.inode != opened.inode) else {
                self.open = Some(opened);
                break;
            };
            // Rotated: what was added before its renaming has been read by now. Files that came
            // and went in between follow, then the newest.
            self.end_line(&mut lines);
            self.catch_up(opened.inode, &mut lines)?;
            self.open = Some(newest);
        }
        if is_final {
            self.end_line(&mut lines);
        }
        Ok(lines)
    }

    /// Reads the rotated files that are younger than the one with this inode.
    fn catch_up(&mut self, inode: u64, lines: &mut Vec<SeenLine>) -> io::Result<()> {
        let mut younger = Vec::new();
        let mut is_known = false;
        for number in 1.. {
            let Some(opened) = open(&self.rotated(number))? else { break };
            is_known = opened.inode == inode;
            if is_known {
                break;
            }
            younger.push(opened.file);
        }
        if !is_known && !younger.is_empty() {
            lines.push(SeenLine::Gap);
        }
        for mut file in younger.into_iter().rev() {
            self.drain(&mut file, lines)?;
            self.end_line(lines);
        }
        Ok(())
    }

    fn drain(&mut self, file: &mut File, lines: &mut Vec<SeenLine>) -> io::Result<()> {
        let mut chunk = Vec::new();
        while file.by_ref().take(CHUNK).read_to_end(&mut chunk)? > 0 {
            for byte in chunk.drain(..) {
                if byte == b'\n' || self.partial.len() >= MAX_LINE {
                    lines.push(SeenLine::Text(std::mem::take(&mut self.partial)));
                }
                if byte != b'\n' {
                    self.partial.push(byte);
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, lines: &mut Vec<SeenLine>) {
        if !self.partial.is_empty() {
            lines.push(SeenLine::Text(std::mem::take(&mut self.partial)));
        }
    }
}

/// The last `count` lines before `end`, read from there backwards.
fn tail(file: &mut File, end: u64, count: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut start = end;
    // One end of line more than lines: then the first of them is whole.
    let mut found = 0;
    while start > 0 && found <= count {
        let size = start.min(CHUNK);
        start -= size;
        file.seek(SeekFrom::Start(start))?;
        let mut chunk = Vec::new();
        file.by_ref().take(size).read_to_end(&mut chunk)?;
        found += chunk.iter().filter(|byte| **byte == b'\n').count();
        chunks.push(chunk);
    }
    chunks.reverse();
    let bytes = chunks.concat();
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let surplus = lines.len().saturating_sub(count);
    Ok(lines[surplus..].iter().map(|line| line.to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    struct Log(tempfile::TempDir);

    impl Log {
        fn new() -> Self {
            Log(tempfile::tempdir().unwrap())
        }

        fn add(&self, text: &str) {
            let path = self.0.path().join("x.log");
            let mut file = File::options().append(true).create(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn rotate(&self, keep: u32) {
            let name = |n: u32| match n {
                0 => self.0.path().join("x.log"),
                n => self.0.path().join(format!("x.log.{n}")),
            };
            for n in (0..keep).rev() {
                let _ = fs::rename(name(n), name(n + 1));
            }
        }

        fn file(&self) -> LogFile {
            LogFile::new(self.0.path(), "x.log")
        }
    }

    fn text(lines: io::Result<Vec<SeenLine>>) -> Vec<String> {
        let one = |line| match line {
            SeenLine::Text(bytes) => String::from_utf8(bytes).unwrap(),
            SeenLine::Gap => "<gap>".to_owned(),
        };
        lines.unwrap().into_iter().map(one).collect()
    }

    #[test]
    fn the_last_lines_are_found_over_rotated_files() {
        let log = Log::new();
        assert!(text(log.file().last(3)).is_empty());
        log.add("1\n2\n3\n");
        log.rotate(3);
        log.add("4\n\n6");
        assert_eq!(text(log.file().last(2)), ["", "6"]);
        assert_eq!(text(log.file().last(4)), ["3", "4", "", "6"]);
        assert_eq!(text(log.file().last(usize::MAX)), ["1", "2", "3", "4", "", "6"]);
        assert!(text(log.file().last(0)).is_empty());
    }

    #[test]
    fn the_last_lines_of_a_long_file_are_read_from_its_end() {
        let log = Log::new();
        let lines: Vec<String> = (0..30_000).map(|n| format!("line {n}")).collect();
        log.add(&format!("{}\n", lines.join("\n")));
        assert_eq!(text(log.file().last(2)), ["line 29998", "line 29999"]);
        assert_eq!(text(log.file().last(20_000)), lines[10_000..]);
    }

    #[test]
    fn following_survives_a_rotation_without_loss_or_repetition() {
        let log = Log::new();
        log.add("1\n");
        let mut file = log.file();
        assert_eq!(text(file.last(9)), ["1"]);
        log.add("2\nhal");
        assert_eq!(text(file.news(false)), ["2"]);
        log.add("f\n4\n");
        log.rotate(3);
        log.add("5\n");
        assert_eq!(text(file.news(false)), ["half", "4", "5"]);
        assert!(text(file.news(false)).is_empty());
    }

    #[test]
    fn files_that_came_and_went_between_two_looks_are_read() {
        let log = Log::new();
        log.add("1\n");
        let mut file = log.file();
        assert_eq!(text(file.last(9)), ["1"]);
        for line in ["2\n", "3\n", "4\n"] {
            log.rotate(5);
            log.add(line);
        }
        assert_eq!(text(file.news(false)), ["2", "3", "4"]);
        log.rotate(5);
        log.add("5\n");
        // Too many at once: the one that was read last is gone.
        for line in ["6\n", "7\n"] {
            log.rotate(1);
            log.add(line);
        }
        for number in 2..=5 {
            let _ = fs::remove_file(log.0.path().join(format!("x.log.{number}")));
        }
        assert_eq!(text(file.news(false)), ["<gap>", "6", "7"]);
    }

    #[test]
    fn a_log_that_begins_later_is_read_from_its_beginning() {
        let log = Log::new();
        let mut file = log.file();
        assert!(text(file.last(9)).is_empty());
        assert!(text(file.news(false)).is_empty());
        log.add("1\nend");
        assert_eq!(text(file.news(false)), ["1"]);
        assert_eq!(text(file.news(true)), ["end"]);
    }
}
