//! Everything a start needs, made ready on a thread that may block: directories, the task file, the
//! restored checkpoint, secrets, the plan.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::former;
use super::ground::{Ground, Restore};
use super::guards::Protection;
use super::setup::{failed, refused, write_new};
use super::workspace;
use crate::config::commands::why::keep_plan;
use crate::config::dirs::{AgentDirs, ensure_private};
use crate::config::launching::{self, TaskDirs};
use crate::config::{AgentLaunch, secrets};
use crate::core::json::Json;
use crate::core::view::FileRef;
use crate::ids::{AgentName, Epoch, Incarnation, RoleName, Seq, TaskId};
use crate::launch::{LaunchSpec, LogSpec, host_facts};
use crate::policy::{self, EnvironmentRequest, Roots};
use crate::store::Hash;
use crate::supervise::{Prepared, SetupFailure, Stage};

/// How long a start waits for the end of a former one, here and again in its shim. Former ones are
/// ended before a new one is wanted, or their daemon is dead, which ends them within a second.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be started.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    /// Which agent.
    pub agent: AgentName,
    /// Its role now.
    pub role: RoleName,
    /// How it is isolated, as a number.
    pub level: u8,
    /// Whether that role may write the workspace.
    pub can_write: bool,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// What is made ready.
    pub stage: Stage,
    /// For which task; none for a service.
    pub task: Option<Task>,
    /// Checkpoints of a service's own tasks.
    pub restore: Vec<Restore>,
    /// Bytes of standard output to keep.
    pub max_content: u64,
}

/// The task of a task-mode process.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// Its id.
    pub id: TaskId,
    /// One line for people.
    pub title: String,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// 1 for the first.
    pub attempt: u32,
    /// Where its data stands in the log.
    pub data_at: Option<Seq>,
    /// Its checkpoint.
    pub checkpoint: Option<Restore>,
}

/// The task as the program reads it: `$MISSION_TASK_FILE` and standard input.
#[derive(Serialize)]
struct TaskFile<'a> {
    task: &'a TaskId,
    title: &'a str,
    epoch: Epoch,
    attempt: u32,
    data: Option<Json>,
    checkpoint: Option<CheckpointPart<'a>>,
}

#[derive(Serialize)]
struct CheckpointPart<'a> {
    json: Option<Json>,
    files: &'a [FileRef],
    dir: &'a Path,
}

/// A launch that is ready, or a release.
#[derive(Debug)]
pub(super) struct Ready {
    /// For the supervisor.
    pub prepared: Prepared,
    /// What this machine can't enforce of its isolation.
    pub gaps: Vec<String>,
    /// To be kept until its end.
    pub protection: Option<Box<Protection>>,
}

/// Makes a launch ready.
///
/// # Errors
/// What can't be had; never with a secret in it.
pub(super) fn prepare(ground: &Ground, launch: &Launch) -> Result<Ready, SetupFailure> {
    let dirs = ground.dirs.agent(&launch.agent);
    dirs.prepare().map_err(|error| refused("directories", &error))?;
    // Nothing of a former start may still run where files come and go now: its shim holds this lock
    // for as long as it lives. The new shim takes it when we have let it go.
    let _lock = match launch.stage {
        Stage::Launch { .. } => Some(
            former::await_end(&launch.agent, &dirs.lock(), LOCK_TIMEOUT)
                .map_err(failed("wait for the end of its former process"))?,
        ),
        Stage::Release => None,
    };
    let config = ground
        .mission
        .agents
        .get(&launch.agent)
        .ok_or_else(|| SetupFailure { step: "not in the mission file".into(), errno: 0 })?;
    let task = match &launch.task {
        Some(task) => Some(TaskPlace::prepare(ground, &dirs, task, launch.stage)?),
        None => {
            for checkpoint in &launch.restore {
                restore_for_service(ground, &dirs, checkpoint)
                    .map_err(|error| refused("restore a checkpoint", &error))?;
            }
            None
        }
    };
    let mission = mission_variables(ground, launch, &dirs, task.as_ref())?;
    let stdin = task.as_ref().map(|place| place.text.clone());
    if launch.stage == Stage::Release {
        let prepared = Prepared::Release { environment: mission, stdin };
        return Ok(Ready { prepared, gaps: Vec::new(), protection: None });
    }
    let task_dirs = launch.task.as_ref().map(|task| TaskDirs::of(&dirs, &task.id));
    let mut roots = launching::roots(
        config,
        &ground.mission.workspace,
        &ground.dirs,
        &dirs,
        task_dirs.as_ref(),
        ground.missionctl_dir.as_deref(),
    );
    let (protection, unprotected) =
        workspace::protect(ground, config, launch.can_write, &dirs, &mut roots)?;
    let plan = plan(ground, &launch.agent, config, launch.can_write, roots)?;
    // For `missionctl why`.
    keep_plan(&dirs.log(), &plan, &config.cwd, &dirs.home())
        .map_err(failed("keep the plan beside the logs"))?;
    let mut gaps: Vec<_> = plan.gaps.iter().map(ToString::to_string).chain(unprotected).collect();
    let cgroup = match (&plan.cgroup, &ground.cgroups) {
        (Some(limits), Ok(cgroups)) => {
            let made = cgroups.prepare(launch.agent.as_str(), launch.incarnation.0, limits);
            Some(made.map_err(|error| refused("control group", &error))?)
        }
        (_, Ok(_)) => None,
        (_, Err(why)) => {
            let asked = config.limits;
            if asked.memory.is_some() || asked.cpu_milli.is_some() {
                gaps.push(format!("no limits of the agent as a whole: {why}"));
            }
            None
        }
    };
    let spec = LaunchSpec {
        agent: launch.agent.to_string(),
        incarnation: launch.incarnation.0,
        argv: config.command.clone(),
        cwd: config.cwd.clone(),
        environment: environment(ground, config, &dirs, &mission)?,
        plan,
        stdin,
        capture_stdout: task
            .is_some()
            .then(|| usize::try_from(launch.max_content))
            .transpose()
            .map_err(|_| SetupFailure { step: "limit max_content".into(), errno: 0 })?,
        log: LogSpec { dir: dirs.log(), max_bytes: config.log.max_bytes, keep: config.log.keep },
        lock: Some(dirs.lock()),
        lock_timeout: LOCK_TIMEOUT,
        cgroup,
        park: launch.stage == Stage::Launch { parked: true },
    };
    Ok(Ready { prepared: Prepared::Launch(Box::new(spec)), gaps, protection })
}

struct TaskPlace {
    file: PathBuf,
    checkpoint: PathBuf,
    handoff: PathBuf,
    id: TaskId,
    epoch: Epoch,
    attempt: u32,
    text: Vec<u8>,
}

impl TaskPlace {
    fn prepare(
        ground: &Ground,
        dirs: &AgentDirs,
        task: &Task,
        stage: Stage,
    ) -> Result<Self, SetupFailure> {
        let TaskDirs { root, checkpoint, handoff } = TaskDirs::of(dirs, &task.id);
        let file = root.join("task.json");
        if stage != Stage::Release {
            // What an earlier process left here was collected when it ended.
            match fs::remove_dir_all(&root) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("clear the task directory")(error));
                }
                _ => {}
            }
            for dir in [&root, &checkpoint, &handoff] {
                ensure_private(dir).map_err(|error| refused("task directory", &error))?;
            }
        }
        let content = |at: Option<Seq>| {
            at.map(|at| ground.content(at))
                .transpose()
                .map(Option::flatten)
                .map_err(|error| refused("read the log", &error))
        };
        let part = match &task.checkpoint {
            // A parked process gets its checkpoint with its release: only then is it final.
            Some(restored) if stage != (Stage::Launch { parked: true }) => {
                let json = content(restored.json_at)?;
                restore(ground, &handoff, Path::new(""), restored, json.as_ref())
                    .map_err(|error| refused("restore a checkpoint", &error))?;
                Some(CheckpointPart { json, files: &restored.files, dir: &handoff })
            }
            _ => None,
        };
        let text = serde_json::to_vec(&TaskFile {
            task: &task.id,
            title: &task.title,
            epoch: task.epoch,
            attempt: task.attempt,
            data: content(task.data_at)?,
            checkpoint: part,
        })
        .map_err(|error| refused("task file", &error))?;
        write_new(&file, &text).map_err(failed("write the task file"))?;
        let (id, epoch, attempt) = (task.id.clone(), task.epoch, task.attempt);
        Ok(TaskPlace { file, checkpoint, handoff, id, epoch, attempt, text })
    }
}

/// Why a checkpoint can't be restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    /// A file isn't there, or can't be written.
    #[error("cannot restore `{path}`")]
    Blob {
        /// The file, as it is named in the checkpoint.
        path: String,
        /// Why.
        #[source]
        source: crate::store::blobs::BlobError,
    },
    /// The directory can't be opened.
    #[error("cannot open {path}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its JSON can't be read.
    #[error("cannot read checkpoint JSON")]
    Log(#[from] crate::store::ReadError),
}

/// Restores a checkpoint for a running service, below `$MISSION_HANDOFF_DIR/TASK`.
///
/// # Errors
/// See [`RestoreError`].
pub(super) fn restore_for_service(
    ground: &Ground,
    dirs: &AgentDirs,
    checkpoint: &Restore,
) -> Result<(), RestoreError> {
    let json = checkpoint.json_at.map(|at| ground.content(at)).transpose()?.flatten();
    let below = Path::new(checkpoint.task.as_str());
    restore(ground, &dirs.handoff(), below, checkpoint, json.as_ref())
}

fn restore(
    ground: &Ground,
    root: &Path,
    below: &Path,
    checkpoint: &Restore,
    json: Option<&Json>,
) -> Result<(), RestoreError> {
    // Paths below are resolved beneath this descriptor, whatever an agent has put there.
    let dir =
        open_dir(root).map_err(|source| RestoreError::Open { path: root.to_owned(), source })?;
    let place = |hash, path: &str, mode| {
        let restored = ground.blobs.restore(hash, dir.as_fd(), &below.join(path), mode);
        restored.map_err(|source| RestoreError::Blob { path: path.to_owned(), source })
    };
    for file in &checkpoint.files {
        place(Hash(file.hash.0), &file.path, file.mode)?;
    }
    if let Some(json) = json {
        const NAME: &str = "checkpoint.json";
        let text = json.get();
        let stored = ground.blobs.put(&mut text.as_bytes(), text.len() as u64);
        let blob = stored.map_err(|source| RestoreError::Blob { path: NAME.into(), source })?;
        place(blob.hash(), NAME, 0o600)?;
    }
    Ok(())
}

fn mission_variables(
    ground: &Ground,
    launch: &Launch,
    dirs: &AgentDirs,
    task: Option<&TaskPlace>,
) -> Result<Vec<(String, String)>, SetupFailure> {
    let path = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| SetupFailure {
            step: format!("{} is not UTF-8", path.display()),
            errno: 0,
        })
    };
    let mut all = vec![
        ("MISSION_NAME", ground.mission.spec.name.to_string()),
        ("MISSION_AGENT", launch.agent.to_string()),
        ("MISSION_ROLE", launch.role.to_string()),
        ("MISSION_SOCKET", path(&dirs.socket())?),
        ("MISSION_WORKSPACE", path(&ground.mission.workspace)?),
        ("MISSION_HOME", path(&dirs.home())?),
    ];
    match task {
        Some(task) => all.extend([
            ("MISSION_TASK_ID", task.id.to_string()),
            ("MISSION_TASK_EPOCH", task.epoch.to_string()),
            ("MISSION_TASK_FILE", path(&task.file)?),
            ("MISSION_ATTEMPT", task.attempt.to_string()),
            ("MISSION_CHECKPOINT_DIR", path(&task.checkpoint)?),
            ("MISSION_HANDOFF_DIR", path(&task.handoff)?),
        ]),
        None => all.extend([
            ("MISSION_CHECKPOINT_DIR", path(&dirs.checkpoint())?),
            ("MISSION_HANDOFF_DIR", path(&dirs.handoff())?),
        ]),
    }
    Ok(all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn environment(
    ground: &Ground,
    config: &AgentLaunch,
    dirs: &AgentDirs,
    mission: &[(String, String)],
) -> Result<Vec<(String, String)>, SetupFailure> {
    let mut declared: Vec<_> =
        config.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let variable = |name: &str| std::env::var_os(name);
    declared
        .extend(secrets::resolve(config, variable).map_err(|error| refused("secrets", &error))?);
    let (home, tmp) = (dirs.home(), dirs.tmp());
    policy::environment(&EnvironmentRequest {
        level: config.level,
        allowed: config.environment.as_deref(),
        host: &ground.environment,
        home: Some(&home),
        tmpdir: Some(&tmp),
        declared: &declared,
        mission,
        missionctl_dir: ground.missionctl_dir.as_deref(),
        workspace: Some(&ground.mission.workspace),
    })
    .map_err(|error| refused("environment", &error))
}

fn plan(
    ground: &Ground,
    agent: &AgentName,
    config: &AgentLaunch,
    can_write: bool,
    roots: Roots,
) -> Result<policy::ProcessPlan, SetupFailure> {
    let request = launching::request(config, agent, can_write, roots);
    let mut host = host_facts().map_err(failed("look at this machine"))?;
    host.cgroup = ground.cgroups.is_ok();
    policy::plan(&request, &host).map_err(|error| refused("isolation", &error))
}

/// Opens a directory for work on what lies beneath it.
///
/// # Errors
/// It isn't a directory, or is a symbolic link.
pub(super) fn open_dir(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}
