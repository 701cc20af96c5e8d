//! One confined command without a mission: `missiond run`.
//!
//! The calling process stands in for launcher and shim, so that nothing is exec'd or forked on the
//! way but what the level itself needs:
//!
//! ```text
//! level 2:  missiond run -- init (pid 1 inside) -- payload
//! level 1:  missiond run -- payload
//! ```
//!
//! Standard input, output and error are the caller's. So is the terminal, if one of the three is one
//! and the plan filters system calls: the payload then stays in the caller's session and process
//! group, ctrl-C and ctrl-Z reach it from the terminal itself, and an interactive shell works. What a
//! program could do to a shared terminal, put words into its input (`TIOCSTI`, `TIOCLINUX`), is what
//! every filter of ours denies. Without a terminal or without a filter it gets a session of its own,
//! and has no terminal to open.
//!
//! Signals that come to the caller are passed on to the payload, except those that a shared terminal
//! sent: the payload got them already. When the caller is killed, the kernel
//! kills the payload: at level 2 with everything it left, at level 1 alone.
//!
//! A traced command is parked before its exec, so that the [tracer](super::trace) sees it whole.
//!
//! Deliberately not here: logs, a lock, a grace. Whoever needs them has a mission.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::message::{Exit, Process, Step};
use super::payload::Payload;
use super::reap::sweep;
use super::spec::{LaunchSpec, LogSpec};
use super::status::{self, Ear, Failure, Word, at};
use super::trace::{Failed, Tracer};
use super::world::{Farewell, Ids, Init, InitLink};
use crate::policy::ProcessPlan;
use crate::policy::sandbox::Network;
use crate::sys::channel::{self, Wait};
use crate::sys::process::{self, End, Fork, ParentOf, Which};
use crate::sys::signals::{self, Arrivals};
use crate::sys::{namespace, procfs};

/// A command to be run once.
#[derive(Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// The program and its arguments; not empty. Looked for as in [`LaunchSpec::argv`].
    pub argv: Vec<String>,
    /// Working directory, inside.
    pub cwd: PathBuf,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// What is taken away from it.
    pub plan: ProcessPlan,
}

/// How it came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How the command ended.
    pub exit: Exit,
    /// How often something was tried on a network that isn't there, where the command has none and did
    /// not succeed. The kernel counts it (a name server that doesn't listen included); what was tried
    /// isn't known.
    pub unreached: u32,
}

/// Runs a command with this process's standard input, output and error, and waits for its end.
///
/// For a process with one thread, once in its life, as the last thing it does: its signals stay
/// blocked. A plan that can't be granted in full is [`Exit::SetupFailed`], and nothing was run.
///
/// # Errors
/// What this process itself couldn't do: block signals, wait, or (level 1) end what the command left.
pub fn run_once(run: RunSpec) -> io::Result<Ran> {
    run_as(run, None)
}

/// As [`run_once`], and tells of each system call of the command and its descendants that fails. Takes
/// many times as long.
///
/// # Errors
/// As [`run_once`], and if the command can't be traced.
pub fn run_traced(run: RunSpec, tell: &mut dyn FnMut(Failed)) -> io::Result<Ran> {
    run_as(run, Some(tell))
}

fn run_as(run: RunSpec, tell: Option<&mut dyn FnMut(Failed)>) -> io::Result<Ran> {
    if run.argv.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let arrivals = Arrivals::new()?;
    signals::restore_sigpipe()?;
    if tell.is_none() {
        process::become_undumpable()?;
    }
    let shared = run.plan.sandbox.is_none();
    if shared {
        // What the command leaves comes to us, to be ended with it.
        process::become_subreaper()?;
    }
    let ran = match start(run, tell.is_some()) {
        Ok(started) => {
            // The payload alone has them now: its readers see their end when it closes them.
            process::leave_stdio()?;
            started.attend(&arrivals, tell)?
        }
        Err(Failure { step, errno, detail }) => {
            Ran { exit: Exit::SetupFailed { step, errno, detail }, unreached: 0 }
        }
    };
    let nobody = |error: &io::Error| error.raw_os_error() == Some(libc::ECHILD);
    if shared && !process::reap(Which::Any).is_err_and(|error| nobody(&error)) {
        sweep(&BTreeSet::new()).map_err(io::Error::other)?;
    }
    Ok(ran)
}

struct Started {
    /// The payload, or the init around it.
    child: process::Pid,
    link: Option<InitLink>,
    status: Ear,
    payload: Option<Process>,
    failure: Option<Failure>,
    /// For the word to go on, if it is parked.
    go: Option<OwnedFd>,
    /// The terminal's signals reach the payload by themselves.
    shares_terminal: bool,
}

fn start(run: RunSpec, traced: bool) -> Result<Started, Failure> {
    let terminal =
        io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
    let shares_terminal = terminal && !run.plan.seccomp.is_empty();
    let spec = LaunchSpec {
        agent: String::new(),
        incarnation: 0,
        argv: run.argv,
        cwd: run.cwd,
        environment: run.environment,
        plan: run.plan,
        stdin: None,
        capture_stdout: None,
        log: LogSpec { dir: PathBuf::new(), max_bytes: 0, keep: 0 },
        lock: None,
        lock_timeout: Duration::ZERO,
        cgroup: None,
        park: traced,
    };
    let fork = at(Step::Fork);
    let (status, mouth) = status::pipe().map_err(&fork)?;
    let (our_go, go) = match traced {
        true => Some(channel::pair().map_err(&fork)?).unzip(),
        false => (None, None),
    };
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut payload = Payload {
        spec: &spec,
        parent: process::own_pid(),
        own_session: !shares_terminal,
        stdin: stdin.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
        status: mouth,
        go,
        traced,
        host_proc: None,
    };
    let Some(sandbox) = &spec.plan.sandbox else {
        let child = match process::fork(ParentOf::Caller).map_err(&fork)? {
            Fork::Parent(pid) => pid,
            Fork::Child => payload.run(),
        };
        let start = procfs::stat(child).map(|stat| stat.start).ok();
        let payload = start.map(|start| Process { pid: child, start });
        let (link, failure) = (None, None);
        return Ok(Started { child, link, status, payload, failure, go: our_go, shares_terminal });
    };
    let ids = Ids::own();
    let (ours, link) = channel::pair().map_err(&fork)?;
    let forked = namespace::fork_into_new(sandbox.network == Network::None, None);
    let child = match forked.map_err(at(Step::Namespaces))? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            drop((ours, our_go));
            Init { plan: sandbox, ids, link, farewell: Farewell::Brief, payload }.run()
        }
    };
    let link = Some(InitLink::new(child, ours));
    let (payload, failure) = (None, None);
    Ok(Started { child, link, status, payload, failure, go: our_go, shares_terminal })
}

impl Started {
    /// Passes signals on until the end.
    fn attend(
        mut self,
        arrivals: &Arrivals,
        mut tell: Option<&mut dyn FnMut(Failed)>,
    ) -> io::Result<Ran> {
        let mut tracer = match tell {
            Some(_) => self.trace()?,
            None => None,
        };
        let end = loop {
            match arrivals.next()? {
                arrival if arrival.signal == libc::SIGCHLD => {
                    let ended = match (&mut tracer, &mut tell) {
                        (Some(tracer), Some(tell)) => tracer.advance(self.child, *tell)?,
                        _ => process::reap(Which::One(self.child))?.map(|(_, end)| end),
                    };
                    if let Some(end) = ended {
                        break end;
                    }
                }
                arrival if arrival.from_process || !self.shares_terminal => {
                    self.pass_on(arrival.signal);
                }
                _ => {}
            }
        };
        self.listen();
        if let Some(Failure { step, errno, detail }) = self.failure {
            return Ok(Ran { exit: Exit::SetupFailed { step, errno, detail }, unreached: 0 });
        }
        let end = match &mut self.link {
            None => end,
            // An init without a last word was killed, and the command with it.
            Some(link) => link.read().unwrap_or(End::Signaled(libc::SIGKILL)),
        };
        let exit = match end {
            End::Exited(code) => Exit::Exited(code),
            End::Signaled(signal) => Exit::Signaled(signal),
        };
        Ok(Ran { exit, unreached: self.link.as_ref().map_or(0, InitLink::unreached) })
    }

    /// Waits until the payload is parked, and lets it go on under a tracer; none where it gives up.
    fn trace(&mut self) -> io::Result<Option<Tracer>> {
        loop {
            poll(&mut [PollFd::new(self.status.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
            let (words, closed) = self.status.listen();
            let parked = words.contains(&Word::Parked);
            self.hear(words);
            if parked && let (Some(payload), Some(go)) = (self.payload, self.go.take()) {
                let tracer = Tracer::begin(payload)?;
                channel::send(go.as_fd(), b".", &[], Wait::Block)?;
                return Ok(Some(tracer));
            }
            if closed || self.failure.is_some() {
                return Ok(None);
            }
        }
    }

    fn listen(&mut self) {
        let (words, _) = self.status.listen();
        self.hear(words);
    }

    fn hear(&mut self, words: Vec<Word>) {
        for word in words {
            match word {
                Word::Named(payload) => self.payload = Some(payload),
                Word::Failed(failure) => self.failure = Some(failure),
                Word::Parked | Word::Executing => {}
            }
        }
    }

    fn pass_on(&mut self, signal: i32) {
        self.listen();
        let Some(payload) = self.payload else { return };
        let Ok(pidfd) = process::pidfd(payload.pid) else { return };
        // Not somebody else who has got its number meanwhile.
        if procfs::stat(payload.pid).is_ok_and(|stat| stat.start == payload.start) {
            let _ = process::signal(pidfd.as_fd(), signal);
        }
    }
}
