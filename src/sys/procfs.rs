//! What `/proc` says about processes (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::process::Pid;

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub pid: Pid,
    /// Its parent.
    pub parent: Pid,
    /// `R S D Z T t X I`.
    pub state: u8,
    /// Start, in clock ticks since boot. With the id it names a process for good.
    pub start: u64,
}

/// Reads one process.
///
/// # Errors
/// `NotFound` (or ESRCH) if there is none.
pub fn stat(pid: Pid) -> io::Result<Stat> {
    parse(&fs::read(format!("/proc/{pid}/stat"))?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads the calling process as another pid namespace sees it, whose `/proc` is open.
///
/// # Errors
/// `NotFound` if it can't be seen there.
pub fn own_stat(proc: BorrowedFd<'_>) -> io::Result<Stat> {
    let file = openat(proc, "self/stat", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    fs::File::from(file).read_to_end(&mut text)?;
    parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub(super) fn parse(text: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may hold anything, parentheses too: look for the last.
    let open = text.iter().position(|&b| b == b'(')?;
    let close = text.iter().rposition(|&b| b == b')')?;
    let pid = std::str::from_utf8(&text[..open]).ok()?.trim().parse().ok()?;
    let mut fields = std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    // state is field 3, ppid 4, starttime 22.
    let start = fields.nth(22 - 5)?.parse().ok()?;
    Some(Stat { pid, parent, state, start })
}

/// All processes that can be seen now. Not a snapshot: each was there when it was read.
///
/// # Errors
/// If `/proc` can't be listed.
pub fn all() -> io::Result<Vec<Stat>> {
    let mut list = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok())
            && let Ok(stat) = stat(pid)
        {
            list.push(stat);
        }
    }
    Ok(list)
}

/// Every living or dead descendant of `root`, not itself, and nothing below a process in `skip`
/// (nor that process).
///
/// Uses `/proc/PID/task/*/children` of every thread where the kernel has it
/// (`CONFIG_PROC_CHILDREN`), else a pass over `/proc`. A tree that changes while it is read may be
/// seen incompletely: repeat until nothing new appears, and believe only ECHILD of wait.
///
/// # Errors
/// If `/proc` can't be listed.
pub fn descendants(root: Pid, skip: &dyn Fn(Pid) -> bool) -> io::Result<Vec<Stat>> {
    if let Some(found) = by_children(root, skip) { Ok(found) } else { by_scan(root, skip) }
}

fn by_children(root: Pid, skip: &dyn Fn(Pid) -> bool) -> Option<Vec<Stat>> {
    let mut found = Vec::new();
    let mut queue = children(root)?;
    let mut seen = std::collections::BTreeSet::new();
    while let Some(pid) = queue.pop() {
        if skip(pid) || !seen.insert(pid) {
            continue;
        }
        if let Ok(stat) = stat(pid) {
            found.push(stat);
            queue.extend(children(pid).unwrap_or_default());
        }
    }
    Some(found)
}

/// Children of all threads of a process; `None` if the kernel has no such file or the process is
/// gone.
fn children(pid: Pid) -> Option<Vec<Pid>> {
    let mut list = Vec::new();
    let mut readable = false;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        if let Ok(text) = fs::read_to_string(task.path().join("children")) {
            readable = true;
            list.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<Pid>().ok()));
        }
    }
    readable.then_some(list)
}

fn by_scan(root: Pid, skip: &dyn Fn(Pid) -> bool) -> io::Result<Vec<Stat>> {
    let mut by_parent = BTreeMap::<Pid, Vec<Stat>>::new();
    for stat in all()? {
        by_parent.entry(stat.parent).or_default().push(stat);
    }
    let mut found = Vec::new();
    let mut queue = vec![root];
    while let Some(parent) = queue.pop() {
        for stat in by_parent.remove(&parent).unwrap_or_default() {
            if !skip(stat.pid) {
                queue.push(stat.pid);
                found.push(stat);
            }
        }
    }
    Ok(found)
}

/// Processes and threads that this user runs now: what `RLIMIT_NPROC` counts.
///
/// # Errors
/// If `/proc` can't be listed.
pub fn tasks_of_user(uid: u32) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().to_str().is_none_or(|name| name.parse::<Pid>().is_err()) {
            continue;
        }
        // The owner of the directory would do, but it is root for undumpable processes.
        let Ok(text) = fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_ascii_whitespace().next())
                .and_then(|word| word.parse::<u64>().ok())
        };
        if field("Uid:") == Some(u64::from(uid)) {
            count += field("Threads:").unwrap_or(1);
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) R 1 (b)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2\n";
        assert_eq!(parse(line), Some(Stat { pid: 42, parent: 7, state: b'S', start: 9876 }));
    }

    #[test]
    fn this_process_has_a_parent_and_a_start() {
        let own = stat(std::process::id()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        assert!(own.start > 0);
    }

    #[test]
    fn a_truncated_line_is_refused() {
        assert_eq!(parse(b"42 (a) S 7 1"), None);
        assert_eq!(parse(b""), None);
    }
}
