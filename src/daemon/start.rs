//! From a checked mission file to a running loop, in the one order that is right.
//!
//! ```text
//! directories -> lock -> launcher (no thread exists yet) -> log (checkpoint, verify) -> fold
//!    -> runtime -> sockets -> DaemonStarted, Configured -> loop -> agents
//! ```
//!
//! A mission goes on where its log ends. One that is over, every task of its file settled, is not
//! begun again: its verdict is told again. `--fresh` puts the old log aside and begins a new one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::alive::{self, Alive};
use super::clock::Clock;
use super::commit::Pipeline;
use super::detach::Detached;
use super::ground::{Ground, missionctl_dir};
use super::guards::Guards;
use super::jobs::Jobs;
use super::lock::{LockError, MissionLock};
use super::notify::ServiceManager;
use super::screen::Screen;
use super::stop::SNAPSHOT_VERSION;
use super::summary::{self, Started};
use super::{Daemon, Readiness, RunError, Sources};
use crate::bus::{Hub, ListenError, Options as HubOptions};
use crate::config::dirs::{Dirs, DirsError, Places};
use crate::config::{Durability, Mission};
use crate::core::fact::Fact;
use crate::core::state::{SnapshotError, State};
use crate::ids::{AgentUid, MissionName, Seq, Timestamp};
use crate::launch::cgroup::Cgroups;
use crate::launch::{LaunchError, Launcher, become_supervisor};
use crate::store::blobs::{BlobError, Blobs};
use crate::store::{self, Notice, OpenError, Opened, ReadError, Store};
use crate::supervise::Supervisor;
use crate::workspace::RegistryError;

/// How to start.
#[derive(Debug)]
pub(super) struct Options {
    /// Put an old log aside and begin a new one.
    pub fresh: bool,
    /// Only warnings.
    pub quiet: bool,
    /// How much is said of what it does.
    pub log: tracing::level_filters::LevelFilter,
    /// Who waits for the word that everything is up.
    pub detached: Detached,
}

/// Why a mission could not be started, or ended before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// No place to be.
    #[error("cannot prepare the mission's directories")]
    Dirs(#[from] DirsError),
    /// Another daemon runs it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The old log can't be put aside.
    #[error("cannot put the old state aside")]
    Fresh(#[source] io::Error),
    /// This process can't be made fit to supervise.
    #[error("cannot {what}")]
    Process {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no launcher.
    #[error("cannot start agents")]
    Launcher(#[from] LaunchError),
    /// The log can't be used.
    #[error("cannot open the mission's log")]
    Open(#[from] OpenError),
    /// The log can't be read.
    #[error("cannot read the mission's log")]
    Read(#[from] ReadError),
    /// A snapshot is not what it should be.
    #[error("cannot read the snapshot in the mission's log")]
    Snapshot(#[from] SnapshotError),
    /// The blobs can't be used.
    #[error("cannot open the mission's blobs")]
    Blobs(#[from] BlobError),
    /// What former daemons left in workspaces can't be looked after.
    #[error("cannot keep records of protected places")]
    Placeholders(#[from] RegistryError),
    /// Nobody can connect.
    #[error("cannot listen for operators")]
    Listen(#[from] ListenError),
    /// It ended before its time.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl StartError {
    /// What can be done about it, where there is something to say.
    pub(super) fn help(&self, mission: &MissionName) -> Option<String> {
        if let StartError::Lock(LockError::Held { .. })
        | StartError::Open(OpenError::Locked { .. }) = self
        {
            return Some(format!(
                "`missionctl -m {mission} status` shows it, `missionctl -m {mission} stop` ends it"
            ));
        }
        matches!(self, StartError::Dirs(_)).then(|| {
            "XDG_STATE_HOME and XDG_RUNTIME_DIR say where they are; you must be able to write there"
                .to_owned()
        })
    }

    /// The exit code: 5 for a conflict, 75 for something that may pass, 2 for a wrong set-up, else 1.
    #[must_use]
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            StartError::Lock(LockError::Held { .. })
            | StartError::Open(OpenError::Locked { .. }) => 5,
            StartError::Open(OpenError::Full { .. })
            | StartError::Blobs(BlobError::Full)
            // The log has the last word, and the next start hears it.
            | StartError::Run(RunError::Log(_) | RunError::Closed) => 75,
            StartError::Dirs(_) => 2,
            StartError::Lock(_)
            | StartError::Fresh(_)
            | StartError::Process { .. }
            | StartError::Launcher(_)
            | StartError::Open(_)
            | StartError::Read(_)
            | StartError::Snapshot(_)
            | StartError::Blobs(_)
            | StartError::Placeholders(_)
            | StartError::Listen(_)
            | StartError::Run(_) => 1,
        }
    }
}

/// Runs a mission until it ends.
///
/// # Errors
/// See [`StartError`]; whatever was started has been ended.
pub(super) fn start(
    mission: Mission,
    places: &Places,
    options: Options,
) -> Result<Started, StartError> {
    let process = |what| move |source| StartError::Process { what, source };
    let dirs = places.of(&mission.spec.name).prepare()?;
    let lock = MissionLock::take(&dirs.lock())?;
    if options.fresh {
        // A daemon that sees another runtime directory may be at work there.
        let held = store::hold(dirs.state())?;
        put_aside(dirs.state()).map_err(StartError::Fresh)?;
        drop(held);
    }
    // Before the launcher: whoever comes later is born where we are.
    let cgroups = Cgroups::claim(mission.spec.name.as_str()).map_err(|error| error.in_full());
    // Before any thread: what it forks must not hold anybody's locks.
    become_supervisor().map_err(process("become a supervisor of processes"))?;
    let nofile =
        crate::sys::rlimit::raise_nofile().map_err(process("raise the limit of open files"))?;
    let launcher = Launcher::spawn(Path::new("/proc/self/exe"))?;

    let mut screen = match options.detached.is_detached() {
        true => Screen::file(&dirs.daemon_log()).map_err(process("open daemon.log"))?,
        false => Screen::stderr(options.quiet),
    };
    super::trace::install(options.log, screen.pen());
    let _of_this_mission = super::trace::mission(&mission.spec.name).entered();
    if let Some(pid) = lock.stale {
        screen.warn(&format!("process {pid} ran this mission before and did not end in order"));
    }
    let (opened, notices, state) = open(&mission, &dirs)?;
    for seq in &opened.recovery.damaged_snapshots {
        screen.warn(&format!("the snapshot after event {seq} is damaged and was passed over"));
    }
    if summary::is_finished(&state, &mission.spec) {
        return Ok(Started {
            verdict: summary::verdict(&state),
            summary: summary::render(&state, &opened.reader, state.at(), summary::columns()),
            was_over: true,
        });
    }
    let state_base = dirs.state().parent().unwrap_or(dirs.state());
    let (guards, cleaned) = Guards::open(state_base)?;
    for path in &cleaned.removed {
        screen.note(&format!("{} was left by a daemon that died: removed", path.display()));
    }
    let ground = Arc::new(ground(mission, dirs, &opened, cgroups, guards)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(super::lanes::THREADS + crate::bus::IDENTIFYING)
        .build()
        .map_err(process("start the runtime"))?;
    let detached = options.detached;
    let parts = Parts { ground, opened, notices, state, launcher, screen, nofile, detached };
    let outcome = runtime.block_on(async {
        let (daemon, sources) = parts.begin()?;
        Ok(daemon.run(sources).await?.end().await)
    });
    drop(lock);
    outcome
}

/// What slow work stands on.
///
/// # Errors
/// See [`StartError`].
pub(super) fn ground(
    mission: Mission,
    dirs: Dirs,
    opened: &Opened,
    cgroups: Result<Cgroups, String>,
    guards: Guards,
) -> Result<Ground, StartError> {
    let process = |what| move |source| StartError::Process { what, source };
    let exe = std::env::current_exe().map_err(process("find this program"))?;
    Ok(Ground {
        blobs: Blobs::open(&dirs.state().join("blobs"), mission.blob_bytes)?,
        reader: opened.reader.clone(),
        missionctl_dir: missionctl_dir(&exe, &mission.workspace, dirs.state())
            .map_err(process("give agents missionctl"))?,
        cgroups,
        guards: Arc::new(guards),
        environment: Ground::environment(std::env::vars_os()),
        mission,
        dirs,
    })
}

/// Opens the log, and folds it.
///
/// # Errors
/// See [`StartError`].
pub(super) fn open(
    mission: &Mission,
    dirs: &Dirs,
) -> Result<(Opened, mpsc::UnboundedReceiver<Notice>, State), StartError> {
    // One notice for each sync: the writer can't get ahead of the loop by more than what is queued.
    let (sink, notices) = mpsc::unbounded_channel();
    let options = store::Options {
        durability: match mission.durability {
            Durability::Disk => store::Durability::Disk,
            Durability::Process => store::Durability::Process,
        },
        size_limit: mission.store_bytes,
        snapshot_version: SNAPSHOT_VERSION,
        ..store::Options::default()
    };
    let sink = Box::new(move |notice| {
        // The loop is gone only when nobody waits for notices any more.
        let _nobody_listens = sink.send(notice);
    });
    let opened = Store::open(dirs.state(), &options, &State::is_known, sink)?;
    let (mut state, from) = match &opened.snapshot {
        Some(snapshot) => (State::from_snapshot(&snapshot.state)?, snapshot.head.seq),
        None => (State::new(), opened.reader.floor()?.seq),
    };
    opened.reader.fold(from + 1, |record| {
        let (seq, at) = (Seq(record.seq), Timestamp(record.at_ms));
        state.replay(seq, at, record.kind, record.v, record.actor, record.envelope.as_bytes())
    })?;
    Ok((opened, notices, state))
}

/// Renames a state directory to `NAME.old-N` and makes an empty one.
fn put_aside(state: &Path) -> io::Result<()> {
    let mut entries = std::fs::read_dir(state)?;
    // The lock is there in any case: we hold it.
    if entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "mission.lock")) {
        return Ok(());
    }
    for number in 1..1_000 {
        let mut name = state.as_os_str().to_owned();
        name.push(format!(".old-{number}"));
        let aside = PathBuf::from(name);
        if std::fs::symlink_metadata(&aside).is_err() {
            std::fs::rename(state, &aside)?;
            return crate::config::dirs::ensure_private(state).map_err(io::Error::other);
        }
    }
    Err(io::Error::other("there are 999 old states already"))
}

/// What a daemon is made of, before there is a runtime.
pub(super) struct Parts {
    pub(super) ground: Arc<Ground>,
    pub(super) opened: Opened,
    pub(super) notices: mpsc::UnboundedReceiver<Notice>,
    pub(super) state: State,
    pub(super) launcher: Launcher,
    pub(super) screen: Screen,
    pub(super) nofile: u64,
    pub(super) detached: Detached,
}

impl Parts {
    /// Listens, and tells the core that a run begins. Needs a runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub(super) fn begin(self) -> Result<(Daemon, Sources), StartError> {
        let Parts { ground, opened, notices, state, launcher, screen, nofile, detached } = self;
        let process = |what| move |source| StartError::Process { what, source };
        let clock = Arc::new(Clock::start(state.at()));
        let forbidden = || -> io::Result<Vec<_>> {
            Ok(vec![crate::sys::peer::own()?, crate::sys::peer::process_id(launcher.pid())?])
        };
        let (mut hub, inputs) = Hub::new(HubOptions {
            clock: {
                let clock = Arc::clone(&clock);
                Arc::new(move || clock.now())
            },
            limits: ground.mission.spec.limits,
            connections: usize::try_from(nofile / 2).unwrap_or(usize::MAX).min(16_384),
            forbidden: forbidden().map_err(process("name our own processes"))?,
            operator_key: Some(ground.dirs.operator_key()),
        });
        hub.set_head(Seq(opened.head.seq));
        hub.listen_control(&ground.dirs.control_socket())?;
        let (jobs, outcomes) = Jobs::new(Arc::clone(&ground));
        let sources = Sources::new(inputs, outcomes).map_err(process("listen for signals"))?;
        let agents: Vec<AgentUid> = state.all_agents().map(|(uid, _)| uid).collect();
        let head = opened.head;
        let snapshot = Seq(opened.snapshot.map_or(0, |snapshot| snapshot.head.seq));
        let mut daemon = Daemon {
            pipeline: Pipeline::new(state, opened.store),
            notices,
            hub,
            launcher: launcher.pid(),
            supervisor: Supervisor::new(launcher).map_err(process("watch processes"))?,
            jobs,
            manager: ServiceManager::from_environment(),
            screen,
            detached,
            agents: BTreeMap::new(),
            restored: BTreeMap::new(),
            stopping: None,
            readiness: Readiness::Unconfigured,
            shims_drained: false,
            silence: None,
            alive: Alive::default(),
            saved: BTreeMap::new(),
            head,
            snapshot,
            disk_low: false,
            wal_large: None,
            dead: None,
            clock,
            ground,
        };
        let now = daemon.clock.now();
        for uid in agents {
            daemon.listen(now, uid);
        }
        let last_alive = alive::last(&alive::path(daemon.ground.dirs.state()));
        daemon.tell(now, Fact::DaemonStarted { last_alive });
        let spec = daemon.ground.mission.spec.clone();
        daemon.tell(now, Fact::Configured(Box::new(spec)));
        daemon.blobs_may_go();
        Ok((daemon, sources))
    }
}
