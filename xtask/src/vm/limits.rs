//! Limits of an agent as a whole: what it can't do to the machine, and to the others.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use missiond::sys::clock;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::case::{Bed, DEADLINE, Outcome, Person, both, check};
use crate::crash::Failure;

/// The control group of an agent's process.
fn cgroup(bed: &Bed<'_>, agent: &str) -> Result<PathBuf, Failure> {
    let agent = bed.agent(agent)?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", agent["pid"]))?;
    let group = text.trim().strip_prefix("0::/").ok_or_else(|| Failure::from(text.as_str()))?;
    Ok(Path::new("/sys/fs/cgroup").join(group))
}

fn setting(group: &Path, name: &str) -> Result<String, Failure> {
    Ok(fs::read_to_string(group.join(name))?.trim().to_owned())
}

/// The value of a line `name number`.
fn counter(group: &Path, file: &str, name: &str) -> Result<u64, Failure> {
    let text = setting(group, file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok())
        .ok_or_else(|| Failure::from(format!("no {name} in {file}: {text}")))
}

/// Waits until a counter isn't 0; the kernel tells of changes by POLLPRI.
fn await_counter(group: &Path, file: &str, name: &str) -> Result<u64, Failure> {
    let path = group.join(file);
    let deadline = clock::since_boot() + DEADLINE;
    loop {
        // Before it is read, so that no change between the two is missed.
        let opened = fs::File::open(&path)?;
        // Only what was read once is watched.
        io::read_to_string(&opened)?;
        let value = counter(group, file, name)?;
        if value > 0 {
            return Ok(value);
        }
        let left = deadline.saturating_sub(clock::since_boot());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(opened.as_fd(), PollFlags::POLLPRI)];
        if poll(&mut fds, timeout).map_err(io::Error::from)? == 0 {
            return Err(Failure::from(format!("{name} of {} stays 0", path.display())));
        }
    }
}

/// A mission whose agents are `calm` and another one, with these lines in its table.
fn beside_a_calm_one(level: u8, agent: &str, lines: &str) -> String {
    format!(
        "until = \"stopped\"\nisolation = {level}\n\
         [agents.calm]\nrole = \"write\"\nrestart = {{ on = \"always\", max = 9, within = \"60s\" }}\n\
         command = [\"sh\", \"-c\", \"echo calm > $MISSION_WORKSPACE/tell; exec sleep 1000\"]\n\
         [agents.{agent}]\nrole = \"write\"\nrestart = {{ on = \"never\" }}\n{lines}"
    )
}

/// The process of the calm one, which must stay the same.
fn calm(bed: &mut Bed<'_>) -> Result<Value, Failure> {
    bed.hears("calm")?;
    Ok(bed.agent("calm")?["pid"].clone())
}

/// It has noticed nothing, and nothing else of the mission is left.
fn only_the_calm_one_is_left(bed: &Bed<'_>, was: &Value) -> Outcome {
    let now = bed.agent("calm")?;
    check(now["pid"] == *was && was.is_u64(), || format!("{was} has become {now}"))?;
    let left = bed.processes()?;
    check(left.len() == 1, || format!("processes {left:?} are left, not only the calm one"))
}

/// From a terminal: the session's group is root's, so the daemon asks for a scope of its own.
pub(super) fn terminal(person: &Person) -> Outcome {
    let body = beside_a_calm_one(
        1,
        "bounded",
        "limits = { memory = \"64MiB\", pids = 20 }\n\
         command = [\"sh\", \"-c\", \"echo bounded > $MISSION_WORKSPACE/tell; exec sleep 1000\"]\n",
    );
    let mut bed = Bed::new(person, "terminal", &body)?;
    let daemon = bed.start(bed.in_a_session())?;
    bed.hears("bounded")?;
    bed.hears("calm")?;
    let group = cgroup(&bed, "bounded")?;
    let shown = group.display().to_string();
    check(shown.contains("missiond-terminal-") && shown.contains(".scope/agent.bounded."), || {
        format!("it is in {shown}")
    })?;
    for (name, wanted) in
        [("memory.max", "67108864"), ("memory.oom.group", "1"), ("pids.max", "20")]
    {
        let is = setting(&group, name)?;
        check(is == wanted, || format!("{name} is {is}"))?;
    }
    let gaps = bed.agent("bounded")?["gaps"].to_string();
    check(!gaps.contains("limit"), || format!("it has control groups, and gaps {gaps}"))?;
    let scope = group.parent().map(Path::to_owned).unwrap_or_default();
    check(scope.join("daemon").is_dir(), || "the daemon has no group".into())?;
    daemon.stop(&bed)?;
    check(!group.exists(), || format!("{shown} is left"))
}

/// A hog takes all it can get: it alone dies, and it is said why.
pub(super) fn memory(person: &Person) -> Outcome {
    memory_at(1, "memory", person)
}

pub(super) fn memory_2(person: &Person) -> Outcome {
    memory_at(2, "memory-2", person)
}

fn memory_at(level: u8, name: &'static str, person: &Person) -> Outcome {
    let body = beside_a_calm_one(
        level,
        "hog",
        "limits = { memory = \"48MiB\" }\n\
         command = [\"sh\", \"-c\", \"sleep 1000 & read go < $MISSION_WORKSPACE/go; \
         tail /dev/zero; echo survived\"]\n",
    );
    let mut bed = Bed::new(person, name, &body)?;
    let mut daemon = bed.start(bed.in_a_session())?;
    let before = calm(&mut bed)?;
    bed.go()?;
    daemon.line(&["hog", "out of memory"])?;
    bed.event("agent_ended", &["out_of_memory"])?;
    let hog = bed.agent("hog")?;
    check(hog["last_exit"] == "out_of_memory", || format!("last exit: {}", hog["last_exit"]))?;
    // Half an agent is none: what it had started beside the hog has gone as well.
    only_the_calm_one_is_left(&bed, &before)?;
    let output = bed.ctl(&["ps"])?;
    check(both(&output).contains("out of memory"), || format!("ps says {}", both(&output)))?;
    daemon.stop(&bed)
}

/// Fork until nothing goes any more: the others and the machine don't notice, and a stop ends it.
pub(super) fn pids(person: &Person) -> Outcome {
    pids_at(1, "bomb", person)
}

pub(super) fn pids_2(person: &Person) -> Outcome {
    pids_at(2, "bomb-2", person)
}

fn pids_at(level: u8, name: &'static str, person: &Person) -> Outcome {
    let body = beside_a_calm_one(
        level,
        "bomb",
        "limits = { pids = 40 }\ngrace = \"1s\"\n\
         command = [\"sh\", \"-c\", \"echo bomb > $MISSION_WORKSPACE/tell; \
         trap '' TERM; (while :; do (while :; do sleep 1000 & done) & done) 2>/dev/null & \
         exec sleep 1000\"]\n",
    );
    let mut bed = Bed::new(person, name, &body)?;
    let daemon = bed.start(bed.in_a_session())?;
    let before = calm(&mut bed)?;
    bed.hears("bomb")?;
    let group = cgroup(&bed, "bomb")?;
    let max = setting(&group, "pids.max")?;
    check(max == "40", || format!("pids.max is {max}"))?;
    let hit = await_counter(&group, "pids.events", "max")?;
    let current: u64 = setting(&group, "pids.current")?.parse().unwrap_or(u64::MAX);
    check(current <= 40, || format!("{current} processes, {hit} refused"))?;
    let now = bed.agent("calm")?;
    check(now["pid"] == before, || format!("{before} has become {now}"))?;
    // Another process of the same user starts: the limit is the agent's, not the user's.
    person.runs(&["true"])?;
    daemon.stop(&bed)?;
    check(!group.exists(), || format!("{} is left", group.display()))
}

/// A quarter of a processor is a quarter.
pub(super) fn cpu(person: &Person) -> Outcome {
    let body = beside_a_calm_one(
        1,
        "spinner",
        "limits = { cpu = 0.25 }\n\
         command = [\"sh\", \"-c\", \"timeout 8 sh -c 'while :; do :; done'; \
         echo spun > $MISSION_WORKSPACE/tell; exec sleep 1000\"]\n",
    );
    let mut bed = Bed::new(person, "cpu", &body)?;
    let daemon = bed.start(bed.in_a_session())?;
    bed.hears("spun")?;
    let group = cgroup(&bed, "spinner")?;
    let max = setting(&group, "cpu.max")?;
    check(max == "25000 100000", || format!("cpu.max is {max}"))?;
    let used = counter(&group, "cpu.stat", "usage_usec")?;
    let throttled = counter(&group, "cpu.stat", "nr_throttled")?;
    // 8 s at a quarter are 2 s; the machine's own clock is the same, however slow it is.
    check((1_000_000..3_000_000).contains(&used), || format!("{used} us of 8 s were used"))?;
    check(throttled > 10, || format!("throttled {throttled} times"))?;
    daemon.stop(&bed)
}

/// A chain of processes, each of which starts the next and ends: no signal to a process ever hits it.
pub(super) fn kill(person: &Person) -> Outcome {
    kill_at(1, "chain", person)
}

pub(super) fn kill_2(person: &Person) -> Outcome {
    kill_at(2, "chain-2", person)
}

fn kill_at(level: u8, name: &'static str, person: &Person) -> Outcome {
    let body = beside_a_calm_one(
        level,
        "chain",
        "grace = \"1s\"\n\
         command = [\"bash\", \"-c\", \"trap '' TERM; echo chain > $MISSION_WORKSPACE/tell; \
         f() { ( f & ) ; }; f; exec sleep 1000\"]\n",
    );
    let mut bed = Bed::new(person, name, &body)?;
    let daemon = bed.start(bed.in_a_session())?;
    let before = calm(&mut bed)?;
    bed.hears("chain")?;
    let group = cgroup(&bed, "chain")?;
    let output = bed.ctl(&["agent", "stop", "chain"])?;
    check(output.status.success(), || both(&output))?;
    bed.event("agent_ended", &["signaled"])?;
    check(!group.exists(), || format!("{} is left", group.display()))?;
    only_the_calm_one_is_left(&bed, &before)?;
    daemon.stop(&bed)
}

/// A private `/tmp` has the size that was asked for, and nobody else sees it.
pub(super) fn tmp(person: &Person) -> Outcome {
    let body = beside_a_calm_one(
        2,
        "filler",
        "limits = { tmp = \"8MiB\" }\n\
         command = [\"sh\", \"-c\", \"head -c 16777216 /dev/zero > /tmp/filled 2> $HOME/why; \
         echo filled $(stat -c %s /tmp/filled) > $MISSION_WORKSPACE/tell; exec sleep 1000\"]\n",
    );
    let mut bed = Bed::new(person, "tmp", &body)?;
    let daemon = bed.start(bed.in_a_session())?;
    let told = bed.hears("filled")?;
    check(told == "filled 8388608", || told.clone())?;
    let why = fs::read_to_string(bed.state()?.join("agents/filler/home/why"))?;
    check(why.contains("No space left on device"), || format!("it was told {why}"))?;
    check(!Path::new("/tmp/filled").exists(), || "it is the machine's /tmp".into())?;
    daemon.stop(&bed)
}

/// Without a service manager of the user there is no group: said, and the rest of the limits hold.
pub(super) fn nowhere(_: &Person) -> Outcome {
    let other = Person::named("other")?;
    let body = beside_a_calm_one(
        1,
        "bounded",
        "limits = { memory = \"64MiB\", pids = 20 }\n\
         command = [\"sh\", \"-c\", \"ulimit -d > $HOME/limit; echo bounded > $MISSION_WORKSPACE/tell; exec sleep 1000\"]\n",
    );
    let mut bed = Bed::new(&other, "nowhere", &body)?;
    fs::create_dir_all("/run/other")?;
    let made = Command::new("chown").args(["other:other", "/run/other"]).status()?;
    check(made.success(), || "chown".into())?;
    let daemon = bed.start(bed.typed())?;
    bed.hears("bounded")?;
    let gaps = bed.agent("bounded")?["gaps"].to_string();
    for part in ["memory limit", "no limits of the agent as a whole", "no delegated control group"]
    {
        check(gaps.contains(part), || format!("no `{part}` in {gaps}"))?;
    }
    let output = bed.ctl(&["status"])?;
    check(both(&output).contains("no delegated control group"), || both(&output))?;
    let limit = fs::read_to_string(bed.state()?.join("agents/bounded/home/limit"))?;
    check(limit.trim() == "65536", || format!("RLIMIT_DATA is {limit} kB"))?;
    daemon.stop(&bed)
}
