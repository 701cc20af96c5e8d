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
//! Deliberately not here: logs, a lock, parking, a grace. Whoever needs them has a mission.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use super::message::{Exit, Process, Step};
use super::payload::Payload;
use super::reap::sweep;
use super::spec::{LaunchSpec, LogSpec};
use super::status::{self, Ear, Failure, Word, at};
use super::world::{Farewell, Ids, Init, InitLink};
use crate::policy::ProcessPlan;
use crate::policy::sandbox::Network;
use crate::sys::process::{self, End, Fork, ParentOf, Which};
use crate::sys::signals::{self, Arrivals};
use crate::sys::{channel, namespace, procfs};

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

/// Runs a command with this process's standard input, output and error, and waits for its end.
///
/// For a process with one thread, once in its life, as the last thing it does: its signals stay
/// blocked. A plan that can't be granted in full is [`Exit::SetupFailed`], and nothing was run.
///
/// # Errors
/// What this process itself couldn't do: block signals, wait, or (level 1) end what the command left.
pub fn run_once(run: RunSpec) -> io::Result<Exit> {
    if run.argv.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let arrivals = Arrivals::new()?;
    signals::restore_sigpipe()?;
    process::become_undumpable()?;
    let shared = run.plan.sandbox.is_none();
    if shared {
        // What the command leaves comes to us, to be ended with it.
        process::become_subreaper()?;
    }
    let exit = match start(run) {
        Ok(started) => started.attend(&arrivals)?,
        Err(Failure { step, errno, detail }) => Exit::SetupFailed { step, errno, detail },
    };
    if shared {
        sweep(&BTreeSet::new()).map_err(io::Error::other)?;
    }
    Ok(exit)
}

struct Started {
    /// The payload, or the init around it.
    child: process::Pid,
    link: Option<InitLink>,
    status: Ear,
    payload: Option<Process>,
    failure: Option<Failure>,
    /// The terminal's signals reach the payload by themselves.
    shares_terminal: bool,
}

fn start(run: RunSpec) -> Result<Started, Failure> {
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
        park: false,
    };
    let fork = at(Step::Fork);
    let (status, mouth) = status::pipe().map_err(&fork)?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let payload = Payload {
        spec: &spec,
        parent: process::own_pid(),
        own_session: !shares_terminal,
        stdin: stdin.as_fd(),
        stdout: stdout.as_fd(),
        stderr: stderr.as_fd(),
        status: mouth,
        go: None,
        host_proc: None,
    };
    let Some(sandbox) = &spec.plan.sandbox else {
        let child = match process::fork(ParentOf::Caller).map_err(&fork)? {
            Fork::Parent(pid) => pid,
            Fork::Child => payload.run(),
        };
        let start = procfs::stat(child).map(|stat| stat.start).ok();
        let payload = start.map(|start| Process { pid: child, start });
        return Ok(Started { child, link: None, status, payload, failure: None, shares_terminal });
    };
    let ids = Ids::own();
    let (ours, link) = channel::pair().map_err(&fork)?;
    let forked = namespace::fork_into_new(sandbox.network == Network::None, None);
    let child = match forked.map_err(at(Step::Namespaces))? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            drop(ours);
            Init { plan: sandbox, ids, link, farewell: Farewell::Brief, payload }.run()
        }
    };
    let link = Some(InitLink::new(child, ours));
    Ok(Started { child, link, status, payload: None, failure: None, shares_terminal })
}

impl Started {
    /// Passes signals on until the end.
    fn attend(mut self, arrivals: &Arrivals) -> io::Result<Exit> {
        let end = loop {
            match arrivals.next()? {
                arrival if arrival.signal == libc::SIGCHLD => {
                    if let Some((_, end)) = process::reap(Which::One(self.child))? {
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
            return Ok(Exit::SetupFailed { step, errno, detail });
        }
        let end = match &mut self.link {
            None => end,
            // An init without a last word was killed, and the command with it.
            Some(link) => link.read().unwrap_or(End::Signaled(libc::SIGKILL)),
        };
        Ok(match end {
            End::Exited(code) => Exit::Exited(code),
            End::Signaled(signal) => Exit::Signaled(signal),
        })
    }

    fn listen(&mut self) {
        for word in self.status.listen().0 {
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
