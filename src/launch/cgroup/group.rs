//! The control group of one agent: made with its limits, emptied, removed.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::CgroupError;
use crate::policy::CgroupLimits;
use crate::sys::clock;

/// The period of `cpu.max`, microseconds: the kernel's own default.
const CPU_PERIOD: u64 = 100_000;
/// How long the processes of a group may take to be gone after its `cgroup.kill`.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);

/// Makes a group with these limits, each of them read back. What was there under the name before is
/// ended and removed.
///
/// # Errors
/// It can't be made, or a limit isn't taken as it was meant; then there is no group.
pub(super) fn make(dir: &Path, limits: &CgroupLimits) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove(dir)?;
            fs::create_dir(dir).map_err(failed("make", dir))?;
        }
        other => other.map_err(failed("make", dir))?,
    }
    let limited = limit(dir, limits);
    if limited.is_err() {
        // Nobody has been in it yet.
        let _left = fs::remove_dir(dir);
    }
    limited
}

fn limit(dir: &Path, limits: &CgroupLimits) -> Result<(), CgroupError> {
    if let Some(bytes) = limits.memory {
        // The kernel counts pages.
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        let page = page.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096);
        let taken = bytes - bytes % page.max(1);
        set(&dir.join("memory.max"), &bytes.to_string(), &taken.to_string())?;
        // An agent that gets no more memory must not get disk for it; absent without swap.
        let swap = dir.join("memory.swap.max");
        if swap.exists() {
            set(&swap, "0", "0")?;
        }
        // Half an agent is none: all of its processes go, and nobody else's.
        set(&dir.join("memory.oom.group"), "1", "1")?;
    }
    if let Some(count) = limits.pids {
        set(&dir.join("pids.max"), &count.to_string(), &count.to_string())?;
    }
    if let Some(milli) = limits.cpu_milli {
        let quota = u64::from(milli).saturating_mul(CPU_PERIOD / 1_000);
        let text = format!("{quota} {CPU_PERIOD}");
        set(&dir.join("cpu.max"), &text, &text)?;
    }
    Ok(())
}

/// Writes a setting, and believes only what it reads back.
fn set(file: &Path, value: &str, wanted: &str) -> Result<(), CgroupError> {
    fs::write(file, value).map_err(failed("write", file))?;
    let text = fs::read_to_string(file).map_err(failed("read", file))?;
    if text.trim_end() == wanted {
        return Ok(());
    }
    let (wrote, reads) = (value.to_owned(), text.trim_end().to_owned());
    Err(CgroupError::NotTaken { file: file.to_owned(), wrote, reads })
}

/// SIGKILL for every process in the group, atomic against forks (`cgroup.kill`, Linux 5.14).
///
/// # Errors
/// `NotFound` on an older kernel, or when the group is gone.
pub(in crate::launch) fn kill(dir: &Path) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(dir.join("cgroup.kill"))
        .and_then(|mut file| io::Write::write_all(&mut file, b"1"))
}

/// Whether the kernel has killed in this group for its memory limit (`memory.events`).
pub(in crate::launch) fn ran_out_of_memory(dir: &Path) -> bool {
    let events = fs::read_to_string(dir.join("memory.events")).unwrap_or_default();
    counter(&events, "oom_kill") > 0 || counter(&events, "oom_group_kill") > 0
}

/// A line `name number`.
fn counter(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Ends what is left in a group and below, and removes it. Not there is as good.
///
/// # Errors
/// Something is in it after SIGKILL and a wait, or it isn't ours.
pub(in crate::launch) fn remove(dir: &Path) -> Result<(), CgroupError> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    kill(dir).map_err(failed("end what is in", dir))?;
    await_empty(dir)?;
    // What it may have made for itself.
    for below in below(dir) {
        remove(&below)?;
    }
    fs::remove_dir(dir).map_err(failed("remove", dir))
}

/// The groups directly below.
pub(super) fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

/// Waits until no process is in the group or below: its `cgroup.events` says so by POLLPRI.
fn await_empty(dir: &Path) -> Result<(), CgroupError> {
    let path = dir.join("cgroup.events");
    let deadline = clock::since_boot() + EMPTY_WITHIN;
    loop {
        // Opened before it is read, so that no change between the two is missed.
        let file = fs::File::open(&path).map_err(failed("open", &path))?;
        let text = io::read_to_string(&file).map_err(failed("read", &path))?;
        if counter(&text, "populated") == 0 {
            return Ok(());
        }
        let left = deadline.saturating_sub(clock::since_boot());
        if left.is_zero() {
            return Err(CgroupError::Populated { group: dir.to_owned() });
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _woken = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout);
    }
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> CgroupError {
    move |source| CgroupError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: CgroupLimits =
        CgroupLimits { memory: Some((64 << 20) + 1), pids: Some(32), cpu_milli: Some(1_500) };

    /// A directory takes anything, and gives back what was written.
    #[test]
    fn a_limit_that_reads_back_differently_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("agent.a.1");
        let error = make(&group, &ALL).unwrap_err();
        let CgroupError::NotTaken { file, wrote, reads } = &error else { panic!("{error}") };
        assert_eq!(file, &group.join("memory.max"));
        assert_eq!((wrote.as_str(), reads.as_str()), ("67108865", "67108865"));
    }

    #[test]
    fn every_limit_is_written_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("agent.a.1");
        make(&group, &CgroupLimits { memory: Some(64 << 20), ..ALL }).unwrap();
        let text = |name: &str| fs::read_to_string(group.join(name)).unwrap();
        assert_eq!(text("memory.max"), "67108864");
        assert_eq!(text("memory.oom.group"), "1");
        assert_eq!(text("pids.max"), "32");
        assert_eq!(text("cpu.max"), "150000 100000");
    }

    #[test]
    fn a_limit_that_cannot_be_written_leaves_no_group() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("agent.a.1");
        fs::create_dir(&group).unwrap();
        // What was there before can't be emptied: it has no `cgroup.kill`.
        fs::create_dir(group.join("below")).unwrap();
        let error = make(&group, &CgroupLimits::default()).unwrap_err();
        assert!(matches!(error, CgroupError::Io { what: "end what is in", .. }), "{error}");
        let missing = dir.path().join("no/agent.b.1");
        let error = make(&missing, &ALL).unwrap_err();
        assert!(matches!(error, CgroupError::Io { what: "make", .. }), "{error}");
        assert!(!missing.exists());
    }

    #[test]
    fn an_oom_kill_is_read_from_the_events_of_the_group() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!ran_out_of_memory(dir.path()));
        let write = |text: &str| fs::write(dir.path().join("memory.events"), text).unwrap();
        write("low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\noom_group_kill 0\n");
        assert!(!ran_out_of_memory(dir.path()), "reaching the limit is no kill");
        write("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n");
        assert!(ran_out_of_memory(dir.path()));
    }
}
