//! The rows of starting agents: what a launch costs, and what an idle agent does.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use missiond::launch::{self, LaunchSpec, Launcher, LogSpec, Received, Report as Said, ShimHandle};
use missiond::policy::{Enforcement, Level, PlanRequest, Roots, plan};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bus::float;
use super::rig::{Daemon, Ground};
use super::table::{Goal, Report, median};
use super::{Options, clock, programs};

const PATIENCE: Duration = Duration::from_secs(30);
const STARTS: usize = 100;

/// Measures all rows of starting.
pub(crate) fn run(root: &Path, options: &Options) -> io::Result<()> {
    let programs = programs(root)?;
    let ground = Ground::new(&programs)?;
    let mut report = Report::default();
    if options.wants("start") {
        starts(&programs, ground.path(), options, &mut report)?;
    }
    if options.wants("idle") {
        idle(&programs, ground.path(), &mut report)?;
    }
    options.finish(&report)
}

/// Level 1 in a warm launcher, from the request to the report of the exec, against `posix_spawn`.
fn starts(programs: &Path, root: &Path, options: &Options, report: &mut Report) -> io::Result<()> {
    launch::become_supervisor()?;
    let mut launcher = Launcher::spawn(&programs.join("missiond")).map_err(io::Error::other)?;
    let facts = launch::host_facts().map_err(io::Error::other)?;
    for name in ["home", "tmp", "ws", "log"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    let request = PlanRequest {
        level: Level::Process,
        workspace_write: true,
        roots: Roots {
            home: Some(root.join("home")),
            tmpdir: Some(root.join("tmp")),
            workspace: Some(root.join("ws")),
            ..Roots::default()
        },
        enforcement: Enforcement::BestEffort,
        ..PlanRequest::default()
    };
    let spec = LaunchSpec {
        agent: "bench".into(),
        incarnation: 1,
        argv: vec!["/bin/true".into()],
        cwd: root.join("ws"),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        plan: plan(&request, &facts).map_err(io::Error::other)?,
        stdin: None,
        capture_stdout: None,
        log: LogSpec { dir: root.join("log"), max_bytes: 1 << 20, keep: 1 },
        lock: None,
        lock_timeout: PATIENCE,
        cgroup: None,
        park: false,
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.repetitions {
        let mut samples: Vec<f64> = Vec::new();
        for _ in 0..STARTS {
            let begin = clock::now();
            let mut shim = launcher.launch(&spec).map_err(io::Error::other)?;
            wait_for(&mut shim, |said| matches!(said, Said::Started { .. }))?;
            samples.push(float(clock::nanos(begin)) / 1e3);
            wait_for(&mut shim, |said| matches!(said, Said::Ended(_)))?;
            while !matches!(next(&mut shim)?, Received::Closed) {}
        }
        ours.push(median(&samples));
        let mut samples: Vec<f64> = Vec::new();
        for _ in 0..STARTS {
            let mut command = Command::new("/bin/true");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let begin = clock::now();
            // Without hooks this is posix_spawn, which returns when the program is executed.
            let mut child = command.spawn()?;
            samples.push(float(clock::nanos(begin)) / 1e3);
            child.wait()?;
        }
        theirs.push(median(&samples));
    }
    let name = "level-1 start in the daemon, request to exec";
    let goal = Some(Goal::RatioAtMost(1.5));
    report.against(name, "", "us", &ours, ("posix_spawn", &theirs), goal);
    Ok(())
}

fn wait_for(shim: &mut ShimHandle, wanted: impl Fn(&Said) -> bool) -> io::Result<()> {
    loop {
        match next(shim)? {
            Received::Report(said) if wanted(&said) => return Ok(()),
            Received::Report(Said::SetupFailed { step, errno, .. }) => {
                return Err(io::Error::other(format!("setup failed at {step:?}: errno {errno}")));
            }
            Received::Report(_) | Received::Nothing => {}
            Received::Closed => return Err(io::Error::other("the shim is gone")),
        }
    }
}

fn next(shim: &mut ShimHandle) -> io::Result<Received> {
    let received = shim.recv()?;
    if !matches!(received, Received::Nothing) {
        return Ok(received);
    }
    let timeout = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(shim.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
        return Err(io::Error::other("the shim is silent"));
    }
    shim.recv()
}

/// A daemon with many agents that do nothing: its memory, and how often it wakes up.
fn idle(programs: &Path, root: &Path, report: &mut Report) -> io::Result<()> {
    let (few, many) = (100, 1_000);
    let measure = |agents: usize| -> io::Result<(f64, f64, f64)> {
        let dir = root.join(format!("idle{agents}"));
        std::fs::create_dir_all(&dir)?;
        let mut body = format!("isolation = 1\n[limits]\nmax_agents = {agents}\n");
        for n in 0..agents {
            body += &format!(
                "[agents.a{n}]\nrole = \"read\"\ncommand = [\"/bin/sleep\", \"infinity\"]\n"
            );
        }
        let mut up = 0;
        let daemon = Daemon::start(programs, &dir, &body, |line| {
            up += usize::from(line.contains("runs (pid"));
            up == agents
        })?;
        let pid = daemon.pid();
        let mut pss = clock::proc_kb(pid, "smaps_rollup", "Pss:")?;
        for child in children(pid)? {
            pss += clock::proc_kb(child, "smaps_rollup", "Pss:").unwrap_or(0);
        }
        let rss = clock::proc_kb(pid, "status", "VmRSS:")?;
        let switches = || -> io::Result<BTreeMap<String, u64>> {
            let mut found = BTreeMap::new();
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let path = task?.path();
                let text = std::fs::read_to_string(path.join("status"))?;
                let line = text.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
                let count = line.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
                found.insert(path.display().to_string(), count);
            }
            Ok(found)
        };
        let (_keep, pause) = std::sync::mpsc::channel::<()>();
        // What the start left to do is done by then, and its threads have ended.
        let _ = pause.recv_timeout(Duration::from_secs(15));
        let before = switches()?;
        let _ = pause.recv_timeout(Duration::from_secs(10));
        let wakes: u64 =
            switches()?.iter().map(|(task, n)| n - before.get(task).copied().unwrap_or(0)).sum();
        daemon.stop()?;
        Ok((float(pss), float(rss) / 1024.0, float(wakes)))
    };
    let (pss, _, _) = measure(few)?;
    let goal = Some(Goal::AtMost(250.0));
    report.figure(
        "supervisor memory per idle agent, of 100 (PSS)",
        "",
        "kB",
        &[pss / float(few as u64)],
        goal,
    );
    let (_, rss, wakes) = measure(many)?;
    report.figure(
        "idle daemon with 1,000 agents, RSS",
        "",
        "MiB",
        &[rss],
        Some(Goal::AtMost(64.0)),
    );
    report.figure(
        "idle daemon with 1,000 agents, wake-ups in 10 s",
        "",
        "",
        &[wakes],
        Some(Goal::AtMost(0.0)),
    );
    Ok(())
}

/// The launcher and the shims.
fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("children"))?;
        found.extend(text.split_whitespace().filter_map(|n| n.parse::<u32>().ok()));
    }
    Ok(found)
}
