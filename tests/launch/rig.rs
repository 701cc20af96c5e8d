//! A stand-in for the daemon: one launcher, a directory tree, waits with deadlines.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code outside of a test function")]

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use missiond::launch::{
    Command, Ended, Exit, LaunchSpec, Launcher, LogSpec, Pid, Received, Report, ShimHandle,
    host_facts,
};
use missiond::policy::{
    EnvironmentRequest, HostFacts, Level, Limits, PlanRequest, Roots, environment, plan,
};
use missiond::sys::{clock, process, procfs};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) launcher: Launcher,
    pub(crate) facts: HostFacts,
    root: tempfile::TempDir,
    incarnation: u64,
}

impl Rig {
    /// For a process of its own (`support::alone`): it becomes the supervisor of all it starts.
    pub(crate) fn new() -> Self {
        Self::with_launcher(|_| env!("CARGO_BIN_EXE_missiond").into())
    }

    /// One whose launcher and shims run under strace(1), which makes a system call fail:
    /// `clone3:error=EPERM:when=1`.
    pub(crate) fn injecting(fault: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let call = fault.split(':').next().unwrap();
        Self::with_launcher(|dir| {
            let script = dir.join("launcher");
            // As a grandchild of its own (-D): the launcher stays our child, and its shims too.
            let strace = format!("/usr/bin/strace -D -f -qq -o /dev/null -e trace={call}");
            let exe = env!("CARGO_BIN_EXE_missiond");
            let text = format!("#!/bin/sh\nexec {strace} -e inject={fault} {exe} \"$@\"\n");
            std::fs::write(&script, text).unwrap();
            std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
            script
        })
    }

    fn with_launcher(exe: impl FnOnce(&Path) -> PathBuf) -> Self {
        missiond::launch::become_supervisor().unwrap();
        let root = tempfile::tempdir().unwrap();
        for name in ["home", "tmp", "workspace", "log"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        Self {
            launcher: Launcher::spawn(&exe(root.path())).unwrap(),
            facts: host_facts().unwrap(),
            root,
            incarnation: 0,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn request(&self, level: Level) -> PlanRequest {
        PlanRequest {
            level,
            workspace_write: true,
            roots: Roots {
                home: Some(self.path("home")),
                tmpdir: Some(self.path("tmp")),
                workspace: Some(self.path("workspace")),
                ..Roots::default()
            },
            // What the kernel lacks, the test that is about it skips.
            enforcement: missiond::policy::Enforcement::BestEffort,
            limits: Limits { pids: Some(200), ..Limits::default() },
            ..PlanRequest::default()
        }
    }

    pub(crate) fn spec(&mut self, level: Level, argv: &[&str]) -> LaunchSpec {
        let request = self.request(level);
        self.spec_for(&request, argv)
    }

    pub(crate) fn spec_for(&mut self, request: &PlanRequest, argv: &[&str]) -> LaunchSpec {
        self.incarnation += 1;
        let host: Vec<(String, String)> = std::env::vars().collect();
        let home = self.path("home");
        // At level 2 it is the private one.
        let tmpdir =
            if request.level == Level::Namespaces { "/tmp".into() } else { self.path("tmp") };
        LaunchSpec {
            agent: "tester".into(),
            incarnation: self.incarnation,
            argv: argv.iter().map(|&word| word.into()).collect(),
            cwd: self.path("workspace"),
            environment: environment(&EnvironmentRequest {
                allowed: None,
                level: request.level,
                host: &host,
                home: Some(&home),
                tmpdir: Some(&tmpdir),
                declared: &[],
                mission: &[],
                missionctl_dir: None,
                workspace: None,
            })
            .unwrap(),
            plan: plan(request, &self.facts).unwrap(),
            stdin: None,
            capture_stdout: Some(1 << 20),
            log: LogSpec { dir: self.path("log"), max_bytes: 1 << 20, keep: 2 },
            lock: Some(self.path("lock")),
            lock_timeout: DEADLINE,
            cgroup: None,
            park: false,
        }
    }

    /// A shell command at level 1.
    pub(crate) fn shell(&mut self, script: &str) -> LaunchSpec {
        self.spec(Level::Process, &["sh", "-c", script])
    }

    pub(crate) fn start(&mut self, spec: &LaunchSpec) -> ShimHandle {
        self.launcher.launch(spec).unwrap()
    }

    pub(crate) fn run(&mut self, spec: &LaunchSpec) -> Ended {
        let mut handle = self.start(spec);
        ended(&mut handle)
    }

    /// Runs a shell command at level 1 and gives its standard output.
    pub(crate) fn output(&mut self, script: &str) -> String {
        let spec = self.shell(script);
        text(&self.run(&spec))
    }

    pub(crate) fn known(&self, handles: &[&ShimHandle]) -> BTreeSet<Pid> {
        let shims = handles.iter().filter_map(|handle| handle.shim()).map(|shim| shim.pid);
        shims.chain([self.launcher.pid()]).collect()
    }
}

pub(crate) fn text(ended: &Ended) -> String {
    String::from_utf8(ended.stdout.clone().unwrap()).unwrap().trim_end().to_owned()
}

/// Waits until `fd` is readable; panics at the deadline.
pub(crate) fn readable(fd: impl AsFd, what: &str) {
    let timeout = PollTimeout::try_from(DEADLINE).unwrap();
    let count = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
    assert!(count > 0, "waited {DEADLINE:?} for {what}");
}

/// The next report; `None` when the channel closed.
pub(crate) fn next(handle: &mut ShimHandle) -> Option<Report> {
    loop {
        match handle.recv().unwrap() {
            Received::Report(report) => return Some(report),
            Received::Closed => return None,
            Received::Nothing => readable(&*handle, "a report"),
        }
    }
}

/// Reads reports until the payload runs.
pub(crate) fn started(handle: &mut ShimHandle) -> Pid {
    loop {
        match next(handle) {
            Some(Report::Started { payload }) => return payload.pid,
            Some(Report::Forked { .. } | Report::Parked { .. }) => {}
            other => panic!("expected Started, got {other:?}"),
        }
    }
}

/// Reads reports until the end.
pub(crate) fn ended(handle: &mut ShimHandle) -> Ended {
    loop {
        match next(handle) {
            Some(Report::Ended(ended)) => return ended,
            Some(Report::Forked { .. } | Report::Parked { .. } | Report::Started { .. }) => {}
            other => panic!("expected Ended, got {other:?}"),
        }
    }
}

/// Reads to the very end and gives the exit.
pub(crate) fn exit(handle: &mut ShimHandle) -> Exit {
    while next(handle).is_some() {}
    handle.exit().unwrap()
}

pub(crate) fn stop(handle: &mut ShimHandle, grace: Duration) -> Ended {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap();
    handle.send(Command::Stop { grace_ms }).unwrap();
    ended(handle)
}

/// Living processes below this one, except the launcher and its tracer.
pub(crate) fn survivors(rig: &Rig) -> Vec<procfs::Stat> {
    let launcher = rig.launcher.pid();
    procfs::descendants(process::own_pid(), &|pid| pid == launcher)
        .unwrap()
        .into_iter()
        .filter(|stat| stat.state != b'Z')
        .filter(|stat| {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", stat.pid));
            name.is_ok_and(|name| name.trim() != "strace")
        })
        .collect()
}

/// Waits until a process has ended; panics after `limit`.
pub(crate) fn gone_within(pid: Pid, limit: Duration) {
    let Ok(pidfd) = process::pidfd(pid) else { return };
    let timeout = PollTimeout::try_from(limit).unwrap();
    let count = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
    assert!(count > 0, "process {pid} still lives after {limit:?}");
}

pub(crate) fn now() -> Duration {
    clock::since_boot()
}
