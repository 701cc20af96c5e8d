//! What the daemon asks the launcher for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::ProcessPlan;

/// Largest request, bytes.
pub(super) const MAX_SPEC: u64 = 4 * 1024 * 1024;

/// One start of one agent, complete: nothing is looked up or decided later.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSpec {
    /// Name of the agent, for messages and `ps`.
    pub agent: String,
    /// Which start of this agent it is.
    pub incarnation: u64,
    /// The program and its arguments; not empty. Without a `/` in it the program is looked for in
    /// the `PATH` of `environment`, otherwise a relative one starts at `cwd`.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// What is taken away from it.
    pub plan: ProcessPlan,
    /// Bytes on standard input, then end of file; `None` is `/dev/null`. Travels beside the rest.
    #[serde(skip)]
    pub stdin: Option<Vec<u8>>,
    /// Keep this many bytes of standard output and hand them back with the end.
    pub capture_stdout: Option<usize>,
    /// Where output goes.
    pub log: LogSpec,
    /// A file whose lock the shim holds while it lives (`agents/<id>/lock`); made if missing.
    pub lock: Option<PathBuf>,
    /// How long to wait for an older incarnation to release the lock.
    pub lock_timeout: Duration,
    /// The control group that the payload is forked into; the shim removes it at the end. The shim
    /// itself stays outside: no limit of the agent's can kill it.
    pub cgroup: Option<PathBuf>,
    /// Do everything but the exec, report `Parked`, and wait for [`Command::Go`](super::Command).
    pub park: bool,
}

/// Logs of one agent: `stdout.log` and `stderr.log`, older ones with `.1`, `.2`, ...
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSpec {
    /// An existing directory that the agent can't write.
    pub dir: PathBuf,
    /// Size in bytes at which a file is rotated.
    pub max_bytes: u64,
    /// How many older files are kept for each stream.
    pub keep: u32,
}

/// Names of variables are shown, values never: secrets are among them.
impl fmt::Debug for LaunchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.environment.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("LaunchSpec")
            .field("agent", &self.agent)
            .field("incarnation", &self.incarnation)
            .field("argv", &self.argv)
            .field("cwd", &self.cwd)
            .field("environment", &names)
            .field("level", &self.plan.level)
            .field("stdin_bytes", &self.stdin.as_ref().map(Vec::len))
            .field("capture_stdout", &self.capture_stdout)
            .field("log", &self.log)
            .field("lock", &self.lock)
            .field("cgroup", &self.cgroup)
            .field("park", &self.park)
            .finish_non_exhaustive()
    }
}
