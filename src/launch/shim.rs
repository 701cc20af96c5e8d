//! The shim: one per agent, parent of the payload, heir of all its descendants.
//!
//! One thread, one poll over the channel, the two pipes, the payload's status pipe and SIGCHLD. No
//! timer runs but the grace of a stop and, while killing, a growing pause between passes.
//!
//! ```text
//! SettingUp --parked--> Parked --go--> SettingUp --exec--> Running --stop--> Stopping
//!     |                   |                |                  |                 |
//!     |    failure, stop, closed channel   |    payload exits, closed channel   |  grace over,
//!     `-------------------`----------------`------------------`-----------------`-> Killing
//!                                                                  ECHILD: last report, exit
//! ```
//!
//! It ignores every signal that can be blocked: its only masters are the channel and SIGKILL.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::capture::Stream;
use super::cgroup;
use super::detached::{self, MountWatch};
use super::hunt::Hunt;
use super::lock::take_lock;
use super::log::Log;
use super::message::{Command, Ended, MAX_COMMAND, Process, Report, Step, send_report, until};
use super::payload::Payload;
use super::spec::{LaunchSpec, MAX_SPEC};
use super::status::{self, Ear, Failure, Word, at, on};
use super::world::{Farewell, Ids, Init, InitLink};
use crate::policy::sandbox::Network;
use crate::sys::channel::{self, Wait};
use crate::sys::process::{self, End, Fork, ParentOf, Which};
use crate::sys::signals::ChildEvents;
use crate::sys::{clock, memfd, namespace, procfs};

/// The whole life of a shim; the process ends with it.
pub(super) fn main(spec: OwnedFd, channel: OwnedFd, stdin: Option<OwnedFd>) -> ! {
    let outcome = match Shim::start(spec, &channel, stdin) {
        Ok(shim) => shim.run(),
        Err(failure) => {
            Report::SetupFailed { step: failure.step, errno: failure.errno, detail: failure.detail }
        }
    };
    // If the daemon is gone there is nobody to tell; the work, ending the agent, is done.
    let _ = send_report(channel.as_fd(), &outcome);
    process::exit_now(0)
}

/// How long the end of a namespace may take before its processes are looked at one by one.
const HUNT_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Phase {
    SettingUp,
    Parked,
    Running,
    Stopping { deadline: Duration },
    Killing(Hunt),
}

struct Shim<'a> {
    channel: &'a OwnedFd,
    channel_open: bool,
    children: ChildEvents,
    stdout: Stream,
    stderr: Stream,
    status: Option<Ear>,
    parks: bool,
    go: Option<OwnedFd>,
    payload: Process,
    executing: bool,
    phase: Phase,
    /// The first process of the payload's pid namespace, at level 2.
    init: Option<InitLink>,
    /// Places in the sandbox that must stay mounts; until they are watched.
    places: Vec<PathBuf>,
    mounts: Option<MountWatch>,
    how: Option<End>,
    failure: Option<Failure>,
    told_unkillable: bool,
    cgroup: Option<PathBuf>,
    /// Held, not used: the lock goes when the shim does.
    _lock: Option<OwnedFd>,
}

impl<'a> Shim<'a> {
    /// Everything up to the fork of the payload.
    fn start(spec: OwnedFd, channel: &'a OwnedFd, stdin: Option<OwnedFd>) -> Result<Self, Failure> {
        let prepared = || -> io::Result<ChildEvents> {
            process::new_session()?;
            process::become_subreaper()?;
            process::become_undumpable()?;
            process::set_name(c"missiond-shim")?;
            let shim =
                Process { pid: process::own_pid(), start: procfs::stat(process::own_pid())?.start };
            send_report(channel.as_fd(), &Report::Forked { shim })?;
            ChildEvents::new()
        };
        let children = prepared().map_err(at(Step::Prepare))?;
        let text = memfd::read(&spec, MAX_SPEC).map_err(at(Step::Spec))?;
        drop(spec);
        let spec: LaunchSpec =
            serde_json::from_slice(&text).map_err(|e| at(Step::Spec)(e.into()))?;
        drop(text);

        let lock = spec
            .lock
            .as_deref()
            .map(|path| take_lock(path, spec.lock_timeout, channel, &children))
            .transpose()?;
        let logs =
            || Ok((Log::open(&spec.log, "stdout.log")?, Log::open(&spec.log, "stderr.log")?));
        let (out_log, err_log) = logs().map_err(on(Step::Log, spec.log.dir.display()))?;
        let fork = at(Step::Fork);
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| fork(error.into()));
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = pipe()?;
        let (ear, mouth) = status::pipe().map_err(&fork)?;
        let (go_read, go_write) = channel::pair().map_err(&fork)?;
        let stdout = Stream::new(out_read, out_log, spec.capture_stdout).map_err(&fork)?;
        let stderr = Stream::new(err_read, err_log, None).map_err(&fork)?;
        let null = std::io::stdin();
        let mut payload = Payload {
            spec: &spec,
            parent: process::own_pid(),
            stdin: stdin.as_ref().map_or(null.as_fd(), AsFd::as_fd),
            stdout: out_write.as_fd(),
            stderr: err_write.as_fd(),
            status: mouth,
            go: Some(go_read),
            own_session: true,
            host_proc: None,
            traced: false,
        };
        let sandbox = spec.plan.sandbox.as_ref();
        let links = sandbox.map(|_| channel::pair()).transpose().map_err(&fork)?;
        let (link, init_link) = links.unzip();
        // Inside of a user namespace they can't be asked for.
        let ids = Ids::own();
        let cgroup = spec.cgroup.as_deref().map(open_cgroup).transpose()?;
        let group = cgroup.as_ref().map(AsFd::as_fd);
        let forked = match (sandbox, group) {
            (None, None) => process::fork(ParentOf::Caller).map_err(&fork),
            (None, Some(group)) => namespace::fork_into_cgroup(group).map_err(&fork),
            (Some(plan), group) => namespace::fork_into_new(plan.network == Network::None, group)
                .map_err(at(Step::Namespaces)),
        };
        let pid = match forked? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                drop((go_write, link));
                match sandbox.zip(init_link) {
                    None => payload.run(),
                    Some((plan, link)) => {
                        Init { plan, ids, link, farewell: Farewell::Long, payload }.run()
                    }
                }
            }
        };
        // From here on there is a process: what fails ends it in the ordinary way. The payload of an
        // init says itself who it is.
        let init = link.map(|socket| InitLink::new(pid, socket));
        let start = match init {
            None => procfs::stat(pid).map(|stat| Process { pid, start: stat.start }),
            Some(_) => Ok(Process { pid: 0, start: 0 }),
        };
        Ok(Self {
            channel,
            channel_open: true,
            children,
            stdout,
            stderr,
            status: Some(ear),
            parks: spec.park,
            go: Some(go_write),
            payload: *start.as_ref().unwrap_or(&Process { pid, start: 0 }),
            init,
            places: sandbox.map(detached::places).unwrap_or_default(),
            mounts: None,
            executing: false,
            phase: match start {
                Ok(_) => Phase::SettingUp,
                Err(_) => Phase::Killing(Hunt::new()),
            },
            how: None,
            failure: start.err().map(fork),
            told_unkillable: false,
            cgroup: spec.cgroup,
            _lock: lock,
        })
    }

    fn run(mut self) -> Report {
        loop {
            let ready = self.wait();
            if ready.children {
                let _ = self.children.drain();
            }
            if ready.stdout {
                self.stdout.read();
            }
            if ready.stderr {
                self.stderr.read();
            }
            // The payload's word before its death: it writes and then exits.
            if ready.status {
                self.read_status();
            }
            if ready.init {
                self.read_init();
            }
            if ready.mounts {
                self.look_at_mounts();
            }
            if ready.channel {
                self.read_commands();
            }
            if self.reap() {
                return self.finish();
            }
            self.advance();
        }
    }

    /// Sleeps until something is to be done.
    fn wait(&self) -> Ready {
        let now = clock::since_boot();
        let timeout = match self.phase {
            Phase::SettingUp | Phase::Parked | Phase::Running => PollTimeout::NONE,
            Phase::Stopping { deadline } => until(deadline, now),
            Phase::Killing(ref hunt) => until(hunt.next_pass(), now),
        };
        let sources = [
            Some(self.children.as_fd()),
            self.channel_open.then(|| self.channel.as_fd()),
            self.stdout.as_fd(),
            self.stderr.as_fd(),
            self.init.as_ref().and_then(InitLink::as_fd),
            self.mounts.as_ref().map(MountWatch::as_fd),
            self.status.as_ref().map(AsFd::as_fd),
        ];
        // The payload's status is of interest when it is complete: the exec or the exit closes it.
        // Waking for the mark just before would only take the processor from the exec.
        let status = if self.parks { PollFlags::POLLIN } else { PollFlags::empty() };
        let read = PollFlags::POLLIN;
        let events = [read, read, read, read, read, PollFlags::POLLPRI, status];
        let mut fds: Vec<PollFd<'_>> = sources
            .iter()
            .zip(events)
            .filter_map(|(source, events)| source.map(|fd| PollFd::new(fd, events)))
            .collect();
        // An error (no memory, say) is a reason to look at everything, not to stop looking.
        let failed = poll(&mut fds, timeout).is_err();
        let mut polled = fds.iter();
        let mut ready = sources.iter().map(|source| {
            source.is_some() && (polled.next().and_then(PollFd::any) != Some(false) || failed)
        });
        let mut next = || ready.next().unwrap_or(false);
        Ready {
            children: next(),
            channel: next(),
            stdout: next(),
            stderr: next(),
            init: next(),
            mounts: next(),
            status: next(),
        }
    }

    /// Hears what the payload says while it is set up.
    fn read_status(&mut self) {
        let Some(status) = &mut self.status else { return };
        let (words, closed) = status.listen();
        for word in words {
            match word {
                Word::Named(payload) => self.payload = payload,
                Word::Parked => {
                    if matches!(self.phase, Phase::SettingUp) {
                        self.phase = Phase::Parked;
                    }
                    self.report(&Report::Parked { payload: self.payload });
                }
                Word::Executing => self.executing = true,
                Word::Failed(failure) => {
                    self.failure = Some(failure);
                    self.executing = false;
                }
            }
        }
        if closed {
            self.status = None;
            self.go = None;
            if self.executing && self.failure.is_none() {
                self.watch_mounts();
                if matches!(self.phase, Phase::SettingUp | Phase::Parked) {
                    self.phase = Phase::Running;
                }
                self.report(&Report::Started { payload: self.payload });
            }
        }
    }

    /// Reads what the init says. The payload's own word goes first: it said it first.
    fn read_init(&mut self) {
        let Some(how) = self.init.as_mut().and_then(InitLink::read) else { return };
        self.read_status();
        self.how = Some(how);
    }

    /// Begins to watch what must stay mounted. The world is complete by now; what was detached since
    /// it was made is seen as well.
    fn watch_mounts(&mut self) {
        let places = std::mem::take(&mut self.places);
        let Some(init) = self.init.as_ref().and_then(InitLink::pid).filter(|_| !places.is_empty())
        else {
            return;
        };
        match MountWatch::open(init, places) {
            Ok(watch) => {
                self.mounts = Some(watch);
                self.look_at_mounts();
            }
            // It has ended already, and is only not reaped yet.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINVAL | libc::ENOENT | libc::ESRCH)
                ) => {}
            Err(error) => self.unwatched(error),
        }
    }

    /// Ends the agent if something that protected is gone.
    fn look_at_mounts(&mut self) {
        match self.mounts.as_mut().map(MountWatch::missing) {
            Some(Ok(places)) if !places.is_empty() => {
                self.mounts = None;
                self.report(&Report::Detached { places: detached::describe(&places) });
                self.kill_now();
            }
            Some(Err(error)) => self.unwatched(error),
            Some(Ok(_)) | None => {}
        }
    }

    /// Without a watch there is no protection that one could speak of.
    fn unwatched(&mut self, error: io::Error) {
        self.mounts = None;
        self.failure.get_or_insert(at(Step::Watch)(error));
        self.kill_now();
    }

    fn report(&mut self, report: &Report) {
        if self.channel_open && send_report(self.channel.as_fd(), report).is_err() {
            self.daemon_died();
        }
    }

    fn daemon_died(&mut self) {
        self.channel_open = false;
        self.kill_now();
    }

    fn read_commands(&mut self) {
        let mut buffer = [0; MAX_COMMAND];
        while self.channel_open {
            match channel::receive(self.channel.as_fd(), &mut buffer, Wait::Never) {
                Ok(received) if received.length > 0 => {
                    let text = buffer.get(..received.length).unwrap_or_default();
                    if let Ok(command) = serde_json::from_slice(text) {
                        self.obey(command, &received.fds);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.daemon_died(),
            }
        }
    }

    fn obey(&mut self, command: Command, fds: &[OwnedFd]) {
        match command {
            Command::Go => {
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                let sent = self
                    .go
                    .take()
                    .is_some_and(|go| channel::send(go.as_fd(), b"g", &fds, Wait::Never).is_ok());
                match self.phase {
                    // Better no start than one without what it was to start with.
                    Phase::Parked | Phase::SettingUp if !sent => self.kill_now(),
                    Phase::Parked => self.phase = Phase::SettingUp,
                    Phase::SettingUp
                    | Phase::Running
                    | Phase::Stopping { .. }
                    | Phase::Killing(_) => {}
                }
            }
            Command::Signal(number) => self.signal_group(number),
            Command::Stop { grace_ms } => {
                let deadline = clock::since_boot() + Duration::from_millis(grace_ms);
                match self.phase {
                    Phase::Running if grace_ms > 0 => {
                        self.signal_group(libc::SIGTERM);
                        // A stopped process would only see the SIGTERM when it goes on.
                        self.signal_group(libc::SIGCONT);
                        self.phase = Phase::Stopping { deadline };
                    }
                    Phase::Stopping { deadline: old } if grace_ms > 0 => {
                        self.phase = Phase::Stopping { deadline: old.min(deadline) };
                    }
                    Phase::SettingUp | Phase::Parked | Phase::Running | Phase::Stopping { .. } => {
                        self.kill_now();
                    }
                    Phase::Killing(_) => {}
                }
            }
        }
    }

    fn signal_group(&self, number: i32) {
        // Only while the leader isn't reaped: its id can't be used again until then. An init keeps
        // it unreaped until it is dismissed.
        if self.how.is_none() && self.payload.pid != 0 {
            let _ = process::signal_group(self.payload.pid, number);
        }
    }

    /// Reaps all that has ended. True when no child is left: for a subreaper that means that no
    /// descendant is left.
    fn reap(&mut self) -> bool {
        loop {
            if let Phase::Killing(hunt) = &self.phase
                && !hunt.may_reap()
            {
                return false;
            }
            match process::reap(Which::Any) {
                Ok(Some((pid, end))) => {
                    let is_init = self.init.as_mut().is_some_and(|init| init.reaped(pid));
                    let is_payload = pid == self.payload.pid && self.how.is_none();
                    if is_payload {
                        self.how = Some(end);
                    }
                    if let Phase::Killing(hunt) = &mut self.phase {
                        hunt.reaped(pid, end, is_payload || is_init);
                    }
                }
                Ok(None) => return false,
                Err(error) => return error.raw_os_error() == Some(libc::ECHILD),
            }
        }
    }

    /// Does what the time or a death asks for.
    fn advance(&mut self) {
        let now = clock::since_boot();
        match &self.phase {
            Phase::SettingUp | Phase::Parked | Phase::Running if self.how.is_some() => {
                self.kill_now();
            }
            Phase::Stopping { deadline } if self.how.is_some() || now >= *deadline => {
                self.kill_now();
            }
            Phase::Killing(hunt) if now >= hunt.next_pass() => self.kill_pass(),
            Phase::SettingUp
            | Phase::Parked
            | Phase::Running
            | Phase::Stopping { .. }
            | Phase::Killing(_) => {}
        }
    }

    fn kill_now(&mut self) {
        if matches!(self.phase, Phase::Killing(_)) {
            return;
        }
        // An open watch keeps the mounts, and what is in the sandbox's memory, in being.
        self.mounts = None;
        // All at once, whoever forks. What wasn't forked into the group, or on an older kernel, is
        // for what follows, which also waits for the end.
        if let Some(group) = &self.cgroup
            && (self.init.is_none() || self.how.is_none())
        {
            let _or_hunted = cgroup::group::kill(group);
        }
        if let Some(init) = &self.init {
            // The kernel kills all that is left with the init. Where the payload has ended by itself
            // the init does that, and counts. The hunt is for what might stay nevertheless.
            match self.how {
                Some(_) => init.dismiss(),
                None => init.kill(),
            }
            self.phase = Phase::Killing(Hunt::starting_at(clock::since_boot() + HUNT_AFTER));
        } else {
            // A group signal is atomic against forks inside of the group.
            self.signal_group(libc::SIGKILL);
            self.phase = Phase::Killing(Hunt::new());
            self.kill_pass();
        }
    }

    fn kill_pass(&mut self) {
        let Phase::Killing(hunt) = &mut self.phase else { return };
        // Without /proc the group's SIGKILL has to do, and wait tells the end.
        let refused = hunt.pass().unwrap_or_default();
        if !refused.is_empty() && !self.told_unkillable {
            self.told_unkillable = true;
            self.report(&Report::Unkillable { pids: refused });
        }
    }

    /// The last report. Nothing lives below any more.
    fn finish(mut self) -> Report {
        self.read_init();
        self.read_status();
        self.stdout.finish();
        self.stderr.finish();
        let mut out_of_memory = false;
        if let Some(group) = &self.cgroup {
            out_of_memory = cgroup::group::ran_out_of_memory(group);
            // What can't be removed now is removed before the agent's next start.
            let _left = cgroup::group::remove(group);
        }
        if let Some(Failure { step, errno, detail }) = self.failure {
            return Report::SetupFailed { step, errno, detail };
        }
        let left = self.init.as_ref().map_or(0, InitLink::killed);
        let (stdout, stdout_truncated, out_dropped) = self.stdout.into_kept();
        let (_, _, err_dropped) = self.stderr.into_kept();
        Report::Ended(Ended {
            // Reaped in any case, or there would be a child.
            how: self.how.unwrap_or(End::Signaled(libc::SIGKILL)),
            stdout,
            stdout_truncated,
            log_dropped: out_dropped + err_dropped,
            usage: process::children_usage().unwrap_or_default(),
            killed: match &self.phase {
                Phase::Killing(hunt) => hunt.killed().saturating_add(left),
                Phase::SettingUp | Phase::Parked | Phase::Running | Phase::Stopping { .. } => left,
            },
            out_of_memory,
        })
    }
}

/// Opens a control group for a fork into it.
fn open_cgroup(group: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(group, flags, nix::sys::stat::Mode::empty())
        .map_err(|error| on(Step::Cgroup, group.display())(error.into()))
}

/// Which sources have something to read.
struct Ready {
    children: bool,
    channel: bool,
    stdout: bool,
    stderr: bool,
    init: bool,
    mounts: bool,
    status: bool,
}
