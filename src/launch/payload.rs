//! The payload between fork and exec: the named steps, in order.
//!
//! | step | why here |
//! |---|---|
//! | session | first, so that a signal to the shim's group never hits a half-made payload |
//! | fds | before anything that could leak one; all others only become close-on-exec, since the status pipe is needed up to the exec |
//! | limits | while nothing forbids it |
//! | cwd | before Landlock, which may not let the agent list what is above |
//! | capabilities | after what root may need them for; an ordinary user has none |
//! | no_new_privs | Landlock and seccomp need it |
//! | landlock | opens the paths of its rules, so before seccomp |
//! | seccomp | last: every step above may use any system call |
//! | (park) | everything is granted; only the exec is missing |
//! | exec | signals are unblocked just before |
//!
//! A step that fails is reported with its errno through the status pipe, and the payload exits; none
//! is skipped. At level 2 all of this happens inside of a [world](super::world).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::message::{Process, Step};
use super::spec::{LaunchSpec, MAX_SPEC};
use super::status::{Failure, Mouth, Word, at};
use crate::policy::RlimitKind;
use crate::policy::landlock::PathRule;
use crate::sys::channel::{self, Wait};
use crate::sys::process::{self, ExecVector, Pid};
use crate::sys::procfs::{self, Stat};
use crate::sys::rlimit::{self, Resource};
use crate::sys::{capabilities, landlock, memfd, seccomp, signals};

/// What a step says when it fails: the error and on what.
struct StepError(io::Error, String);

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> Self {
        Self(error, String::new())
    }
}

/// All that the payload has from its shim.
pub(super) struct Payload<'a> {
    pub(super) spec: &'a LaunchSpec,
    /// Its parent as it sees it: the shim, or 1 for the init of its namespace.
    pub(super) parent: Pid,
    pub(super) stdin: BorrowedFd<'a>,
    pub(super) stdout: BorrowedFd<'a>,
    pub(super) stderr: BorrowedFd<'a>,
    pub(super) status: Mouth,
    /// What [`LaunchSpec::park`] waits on.
    pub(super) go: Option<OwnedFd>,
    /// A process of the same user may trace it.
    pub(super) traced: bool,
    /// Whether it leaves the session, and so the terminal, of its parent.
    pub(super) own_session: bool,
    /// The host's `/proc`, in which a payload in a pid namespace finds what the shim calls it.
    pub(super) host_proc: Option<OwnedFd>,
}

type StepFn = fn(&Payload<'_>) -> Result<(), StepError>;

const STEPS: [(Step, StepFn); 8] = [
    (Step::Session, session),
    (Step::Fds, fds),
    (Step::Limits, limits),
    (Step::Cwd, cwd),
    (Step::Capabilities, drop_capabilities),
    (Step::NoNewPrivs, no_new_privs),
    (Step::Landlock, enter_landlock),
    (Step::Seccomp, load_seccomp),
];

impl Payload<'_> {
    /// Runs the steps and the program; never returns.
    pub(super) fn run(&mut self) -> ! {
        let failure = self.attempt();
        self.give_up(failure)
    }

    /// Reports a failure and ends the process.
    pub(super) fn give_up(&mut self, failure: Failure) -> ! {
        // A failure to write means that the shim is gone; then this process is about to be killed.
        let _ = self.status.say(&Word::Failed(failure));
        process::exit_now(127)
    }

    fn attempt(&mut self) -> Failure {
        if let Some(host_proc) = self.host_proc.take()
            && let Err(error) = self.tell_name(&host_proc)
        {
            return at(Step::Fork)(error);
        }
        if self.traced
            && let Err(error) = process::become_dumpable()
        {
            return at(Step::Fork)(error);
        }
        for (step, run) in STEPS {
            if let Err(StepError(error, detail)) = run(self) {
                return Failure { step, errno: error.raw_os_error().unwrap_or(0), detail };
            }
        }
        let Err(StepError(error, detail)) = self.exec();
        Failure { step: Step::Exec, errno: error.raw_os_error().unwrap_or(0), detail }
    }

    /// Tells the shim who this process is outside of its pid namespace: its own id in there is of no
    /// use, and by the time the shim looks, the process may have ended.
    fn tell_name(&mut self, host_proc: &OwnedFd) -> io::Result<()> {
        let Stat { pid, start, .. } = procfs::own_stat(host_proc.as_fd())?;
        self.status.say(&Word::Named(Process { pid, start }))
    }

    /// Waits for the word to go on; gives the variables that come with it.
    fn park(&mut self) -> Result<Vec<(String, String)>, StepError> {
        let Some(go) = &self.go else { return Ok(Vec::new()) };
        self.status.say(&Word::Parked)?;
        let received = channel::receive(go.as_fd(), &mut [0], Wait::Block)?;
        if received.length == 0 {
            // The shim is gone without a word.
            return Err(io::Error::from_raw_os_error(libc::ECANCELED).into());
        }
        let mut fds = received.fds.into_iter();
        let Some(environment) = fds.next() else { return Ok(Vec::new()) };
        if let Some(stdin) = fds.next() {
            process::set_stdio(stdin.as_fd(), self.stdout, self.stderr)?;
        }
        let text = memfd::read(&environment, MAX_SPEC)?;
        Ok(serde_json::from_slice(&text).map_err(io::Error::from)?)
    }

    fn exec(&mut self) -> Result<std::convert::Infallible, StepError> {
        let spec = self.spec;
        let argv = ExecVector::new(spec.argv.iter().map(|word| word.clone().into_bytes()))?;
        let late = if spec.park { self.park()? } else { Vec::new() };
        let replaced = |name: &str| late.iter().any(|(other, _)| other == name);
        let variables = spec.environment.iter().filter(|(name, _)| !replaced(name)).chain(&late);
        let envp =
            ExecVector::new(variables.map(|(name, value)| format!("{name}={value}").into_bytes()))?;
        let candidates = candidates(spec)?;
        self.status.say(&Word::Executing)?;
        signals::unblock_all()?;
        let mut worst = io::Error::from_raw_os_error(libc::ENOENT);
        for path in &candidates {
            let error = process::exec(path, &argv, &envp);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                // As execvp(3): keep looking, but say that there was one.
                Some(libc::EACCES) => worst = error,
                _ => return Err(StepError(error, path.to_string_lossy().into_owned())),
            }
        }
        Err(StepError(worst, spec.argv.first().cloned().unwrap_or_default()))
    }
}

/// The files to try: the program itself if it names a path, else one for each entry of `PATH`.
fn candidates(spec: &LaunchSpec) -> Result<Vec<CString>, StepError> {
    let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let program = spec.argv.first().map_or("", String::as_str);
    if program.contains('/') {
        return Ok(vec![CString::new(program).map_err(invalid)?]);
    }
    let path = spec.environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path);
    path.map_or("", String::as_str)
        .split(':')
        .filter(|entry| !entry.is_empty() && !program.is_empty())
        .map(|entry| {
            CString::new(format!("{entry}/{program}")).map_err(invalid).map_err(Into::into)
        })
        .collect()
}

fn session(payload: &Payload<'_>) -> Result<(), StepError> {
    if payload.own_session {
        process::new_session()?;
    }
    process::die_with_parent()?;
    // If the parent died before that line no signal will come.
    if process::parent_pid() != payload.parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH).into());
    }
    Ok(())
}

fn fds(payload: &Payload<'_>) -> Result<(), StepError> {
    process::set_stdio(payload.stdin, payload.stdout, payload.stderr)?;
    process::close_on_exec_from(3)?;
    Ok(())
}

fn limits(payload: &Payload<'_>) -> Result<(), StepError> {
    for limit in &payload.spec.plan.rlimits {
        let resource = match limit.kind {
            RlimitKind::Core => Resource::RLIMIT_CORE,
            RlimitKind::Cpu => Resource::RLIMIT_CPU,
            RlimitKind::Data => Resource::RLIMIT_DATA,
            RlimitKind::FileSize => Resource::RLIMIT_FSIZE,
            RlimitKind::Nofile => Resource::RLIMIT_NOFILE,
            RlimitKind::Nproc => Resource::RLIMIT_NPROC,
        };
        rlimit::lower(resource, limit.soft, limit.hard)
            .map_err(|error| StepError(error, format!("{resource:?}")))?;
    }
    Ok(())
}

fn cwd(payload: &Payload<'_>) -> Result<(), StepError> {
    let cwd = &payload.spec.cwd;
    std::env::set_current_dir(cwd).map_err(|error| StepError(error, cwd.display().to_string()))
}

fn drop_capabilities(payload: &Payload<'_>) -> Result<(), StepError> {
    if payload.spec.plan.drop_capabilities {
        capabilities::drop_all()?;
    }
    Ok(())
}

fn no_new_privs(payload: &Payload<'_>) -> Result<(), StepError> {
    if payload.spec.plan.no_new_privs {
        process::no_new_privs()?;
    }
    Ok(())
}

fn enter_landlock(payload: &Payload<'_>) -> Result<(), StepError> {
    let Some(plan) = &payload.spec.plan.landlock else { return Ok(()) };
    let mut domain = landlock::Domain::new(plan.handled, plan.scoped)?;
    for rule in &plan.rules {
        let failed = |error| StepError(error, rule.path.display().to_string());
        if let Some(beneath) = open_for_rule(rule).map_err(failed)? {
            domain = domain.allow(beneath.as_fd(), rule.access).map_err(failed)?;
        }
    }
    domain.enter()?;
    Ok(())
}

/// Opens what a rule is about. The agent's own directories may lie where another agent can write: a
/// symbolic link anywhere on the way would let that one choose what is granted.
fn open_for_rule(rule: &PathRule) -> io::Result<Option<OwnedFd>> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let path: &Path = &rule.path;
    if rule.system {
        return match open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            // What isn't there, or can't be reached anyway, needs no grant.
            Err(
                nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR | nix::errno::Errno::EACCES,
            ) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
    let how = OpenHow::new()
        .flags(flags | OFlag::O_DIRECTORY)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(Some(openat2(nix::fcntl::AT_FDCWD, path, how)?))
}

fn load_seccomp(payload: &Payload<'_>) -> Result<(), StepError> {
    let program = &payload.spec.plan.seccomp;
    if !program.is_empty() {
        seccomp::load(program.iter().map(|&instruction| instruction.into()))?;
    }
    Ok(())
}
