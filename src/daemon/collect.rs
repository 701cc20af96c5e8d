//! What an agent leaves: files of a checkpoint, a task-mode program's result. On a thread that may block.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::ground::Ground;
use super::prepare::open_dir;
use crate::config::WorkspaceMode;
use crate::core::denied::{Code, Denied};
use crate::core::json::Json;
use crate::core::spec::Limits;
use crate::core::view::FileRef;
use crate::ids::{AgentName, BlobHash, TaskId};
use crate::proto::content;
use crate::proto::wire::SaveCheckpoint;
use crate::store::blobs::{Blob, BlobError};

/// Files that are stored; their blobs stay for as long as the pins are held, and then for as long as
/// a checkpoint names them.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// The files.
    pub files: Vec<FileRef>,
    /// Keeps the blobs.
    pub pins: Vec<Blob>,
    /// What lay in the task's checkpoint directory just before.
    pub beside: Option<Fingerprint>,
}

/// What lies in a directory: with an equal one, nothing was written, added or removed there meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a directory; none where it can't be looked through.
    fn of(root: &Path, max: u32) -> Option<Fingerprint> {
        let (mut seen, mut paths) = (0, Vec::new());
        list(root, Path::new(""), max, &mut seen, &mut paths).ok()?;
        paths.sort();
        let mut hash = Sha256::new();
        for path in paths {
            let found = fs::symlink_metadata(root.join(&path)).ok()?;
            // The kernel's own stamp: no program can set it.
            let numbers = [found.ino(), found.size(), u64::from(found.mode())];
            let times = [found.ctime(), found.ctime_nsec()];
            hash.update((path.as_os_str().len() as u64).to_le_bytes());
            hash.update(path.as_os_str().as_bytes());
            numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
            times.iter().for_each(|time| hash.update(time.to_le_bytes()));
        }
        Some(Fingerprint(hash.finalize().into()))
    }
}

/// What was left in `$MISSION_CHECKPOINT_DIR`.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The top-level `checkpoint.json`.
    pub json: Option<Json>,
    /// All other files.
    pub stored: Stored,
    /// What could not be kept, for people.
    pub complaints: Vec<String>,
    /// What lay there.
    pub fingerprint: Option<Fingerprint>,
}

impl Left {
    /// Whether there is nothing to save.
    pub(super) fn is_empty(&self) -> bool {
        self.json.is_none() && self.stored.files.is_empty()
    }

    /// Lets go of everything that was there already when the agent saved a checkpoint by itself: that
    /// one is newer.
    pub(super) fn forget_older_than(&mut self, saved: Option<Fingerprint>) {
        if saved.is_some() && self.fingerprint == saved {
            self.json = None;
            self.stored = Stored::default();
        }
    }
}

/// The result of a task-mode program: its standard output as JSON, or as a JSON string.
pub(super) fn output(stdout: &[u8], truncated: bool, limits: &Limits) -> Option<Json> {
    let text = String::from_utf8_lossy(stdout);
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let max = usize::try_from(limits.max_content).unwrap_or(usize::MAX);
    if !truncated
        && text.len() <= max
        && content::scan(text, content::MAX_DEPTH).is_ok()
        && let Ok(json) = Json::parse(text)
    {
        return Some(json);
    }
    let mut kept = text;
    loop {
        let json = Json::of(kept).ok()?;
        if json.len() <= max {
            return Some(json);
        }
        // Escapes make it longer than it was.
        kept = kept.get(..kept.floor_char_boundary(kept.len() / 2))?;
    }
}

/// Stores what lies in a task's checkpoint directory.
pub(super) fn checkpoint_dir(
    ground: &Ground,
    agent: &AgentName,
    task: &TaskId,
    limits: &Limits,
) -> Left {
    let root = ground.dirs.agent(agent).task(task).join("checkpoint");
    let fingerprint = Fingerprint::of(&root, limits.checkpoint_files);
    let mut left = Left { fingerprint, ..Left::default() };
    let mut paths = Vec::new();
    let mut seen = 0;
    if let Err(error) = list(&root, Path::new(""), limits.checkpoint_files, &mut seen, &mut paths) {
        left.complaints.push(format!("{agent}: cannot list the checkpoint of {task}: {error}"));
    }
    paths.sort();
    let dir = match open_dir(&root) {
        Ok(dir) => dir,
        Err(error) => {
            left.complaints.push(format!("{agent}: cannot open the checkpoint of {task}: {error}"));
            return left;
        }
    };
    let mut room = limits.checkpoint_bytes;
    for path in paths {
        let Some(name) = path.to_str() else {
            left.complaints.push(format!("{agent}: a checkpoint file's name is not UTF-8"));
            continue;
        };
        if name == "checkpoint.json"
            && let Some(json) = small_json(&root.join(name), limits.max_content)
        {
            left.json = Some(json);
            continue;
        }
        match ground.blobs.ingest(dir.as_fd(), &path, room) {
            Ok((blob, mode)) => {
                room -= blob.size();
                left.stored.add(name.to_owned(), blob, mode);
            }
            Err(error) => left.complaints.push(format!("{agent}: checkpoint file {name}: {error}")),
        }
    }
    left
}

impl Stored {
    fn add(&mut self, path: String, blob: Blob, mode: u32) {
        let (hash, size) = (BlobHash(blob.hash().0), blob.size());
        self.files.push(FileRef { path, hash, size, mode: mode & 0o777 });
        self.pins.push(blob);
    }
}

/// Regular files below `root`, nothing else; the process that wrote them is gone.
fn list(
    root: &Path,
    below: &Path,
    max: u32,
    seen: &mut u64,
    paths: &mut Vec<PathBuf>,
) -> io::Result<()> {
    const DEPTH: usize = 32;
    // Directories and whatever else is no file count as well: they cost time, and hold a thread.
    let most = 1_000 + 8 * u64::from(max);
    if below.components().count() > DEPTH {
        return Err(io::Error::other("directories are nested too deep"));
    }
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        *seen += 1;
        if *seen > most {
            return Err(io::Error::other(format!("more than {most} entries")));
        }
        let kind = entry.file_type()?;
        let path = below.join(entry.file_name());
        if kind.is_dir() {
            list(root, &path, max, seen, paths)?;
        } else if kind.is_file() {
            if paths.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
                return Err(io::Error::other(format!("more than {max} files")));
            }
            paths.push(path);
        }
    }
    Ok(())
}

fn small_json(path: &Path, max: u64) -> Option<Json> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text).ok()?;
    let text = text.trim();
    let fits = text.len() as u64 <= max && content::scan(text, content::MAX_DEPTH).is_ok();
    fits.then(|| Json::parse(text).ok()).flatten()
}

/// Stores the files that a `checkpoint.save` names; notes what its checkpoint directory holds.
///
/// # Errors
/// `invalid` for a path outside or no regular file, `limit` for too many or too much, `unavailable`
/// when the disk is full.
pub(super) fn named_files(
    ground: &Ground,
    agent: &AgentName,
    save: &SaveCheckpoint,
    limits: &Limits,
) -> Result<Stored, Denied> {
    let (task, paths) = (&save.task, &save.files);
    if paths.len() as u64 > u64::from(limits.checkpoint_files) {
        let message = format!(
            "a checkpoint has at most {} files (checkpoint_files)",
            limits.checkpoint_files
        );
        return Err(Denied::new(Code::Limit, message));
    }
    let dirs = ground.dirs.agent(agent);
    let mode = ground.mission.agents.get(agent).map(|launch| launch.workspace_mode);
    if mode == Some(WorkspaceMode::Private)
        && let Some(path) = paths.iter().find(|path| in_workspace(ground, path))
    {
        // What is there is not what the agent sees there.
        let message = format!(
            "`{path}` lies in a private workspace: copy it to $MISSION_CHECKPOINT_DIR, and name that"
        );
        return Err(Denied::new(Code::Invalid, message));
    }
    let roots = [
        ground.mission.workspace.clone(),
        dirs.home(),
        dirs.checkpoint(),
        dirs.task(task).join("checkpoint"),
    ];
    let beside = Fingerprint::of(&dirs.task(task).join("checkpoint"), limits.checkpoint_files);
    let mut stored = Stored { beside, ..Stored::default() };
    let mut room = limits.checkpoint_bytes;
    for path in paths {
        let (root, relative) = place(&roots, Path::new(path)).ok_or_else(|| {
            let message = format!(
                "`{path}` is not a file of the workspace, the home or the checkpoint directory"
            );
            Denied::new(Code::Invalid, message)
        })?;
        let name = relative.to_string_lossy().into_owned();
        if stored.files.iter().any(|file| file.path == name) {
            let message = format!("`{name}` is named twice");
            return Err(Denied::new(Code::Invalid, message));
        }
        let dir = open_dir(root).map_err(|error| {
            Denied::new(Code::Unavailable, format!("cannot open {}: {error}", root.display()))
        })?;
        let (blob, mode) = ground
            .blobs
            .ingest(dir.as_fd(), &relative, room)
            .map_err(|error| denied(path, &error))?;
        room -= blob.size();
        stored.add(name, blob, mode);
    }
    Ok(stored)
}

fn in_workspace(ground: &Ground, path: &str) -> bool {
    let (path, workspace) = (Path::new(path), &ground.mission.workspace);
    let own = [ground.dirs.state(), ground.dirs.runtime()];
    // A relative path may be one of the workspace; `missionctl` only sends absolute ones.
    path.is_relative()
        || path.starts_with(workspace) && !own.iter().any(|dir| path.starts_with(dir))
}

/// The root that holds a path, and the path below it.
fn place<'a>(roots: &'a [PathBuf], path: &Path) -> Option<(&'a PathBuf, PathBuf)> {
    let plain = |path: &Path| {
        path.components().all(|part| matches!(part, Component::Normal(_)))
            && path.file_name().is_some()
    };
    if path.is_absolute() {
        // The deepest root: a home may lie in the workspace.
        let holds = roots.iter().filter_map(|root| Some((root, path.strip_prefix(root).ok()?)));
        let (root, below) = holds.max_by_key(|(root, _)| root.components().count())?;
        return plain(below).then(|| (root, below.to_owned()));
    }
    let relative: PathBuf =
        path.components().filter(|part| !matches!(part, Component::CurDir)).collect();
    if !plain(&relative) {
        return None;
    }
    let there = |root: &&PathBuf| fs::symlink_metadata(root.join(&relative)).is_ok();
    roots.iter().find(there).map(|root| (root, relative.clone()))
}

fn denied(path: &str, error: &BlobError) -> Denied {
    let code = match error {
        BlobError::TooLarge { .. } | BlobError::Quota { .. } => Code::Limit,
        BlobError::Full => Code::Unavailable,
        BlobError::Beneath(_) => Code::Invalid,
        BlobError::Missing { .. }
        | BlobError::Damaged { .. }
        | BlobError::Copy(_)
        | BlobError::Io { .. } => Code::Unavailable,
    };
    Denied::new(code, format!("checkpoint file `{path}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdout_is_the_result_as_json_or_as_text() {
        let limits = Limits { max_content: 40, ..Limits::default() };
        let of =
            |text: &str, cut| output(text.as_bytes(), cut, &limits).map(|j| j.get().to_owned());
        assert_eq!(of(" {\"a\": 1}\n", false).as_deref(), Some("{\"a\": 1}"));
        assert_eq!(of("all good\n", false).as_deref(), Some("\"all good\""));
        assert_eq!(of("{} {}", false).as_deref(), Some("\"{} {}\""));
        assert_eq!(of("{\"a\": 1}", true).as_deref(), Some("\"{\\\"a\\\": 1}\""));
        assert_eq!(of(" \n", false), None);
        assert!(of(&"\u{1}".repeat(100), false).unwrap().len() <= 40);
    }

    #[test]
    fn a_tree_of_directories_without_files_is_not_walked_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..1_100 {
            fs::create_dir(dir.path().join(number.to_string())).unwrap();
        }
        let (mut seen, mut paths) = (0, Vec::new());
        let listed = list(dir.path(), Path::new(""), 1, &mut seen, &mut paths);
        assert!(listed.unwrap_err().to_string().contains("entries"));
        assert!(seen <= 1_009, "{seen}");
        let mut seen = 0;
        list(dir.path(), Path::new(""), 100, &mut seen, &mut paths).unwrap();
        assert_eq!(seen, 1_100);
    }

    #[test]
    fn a_fingerprint_changes_with_whatever_is_written_added_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/x");
        fs::create_dir(dir.path().join("sub")).unwrap();
        let mut seen = Vec::new();
        let mut look = |what: &str| {
            let found = Fingerprint::of(dir.path(), 10).unwrap();
            assert_eq!(Fingerprint::of(dir.path(), 10), Some(found), "after {what}");
            assert!(!seen.contains(&found), "after {what}");
            seen.push(found);
        };
        look("nothing");
        fs::write(&file, "one").unwrap();
        look("a new file");
        fs::write(&file, "longer").unwrap();
        look("a change");
        fs::rename(&file, dir.path().join("y")).unwrap();
        look("another name");
        fs::write(dir.path().join("z"), "").unwrap();
        look("one more");
        fs::remove_file(dir.path().join("y")).unwrap();
        look("one less");
        assert_eq!(Fingerprint::of(&dir.path().join("absent"), 10), None);
    }

    #[test]
    fn a_path_is_found_below_one_of_the_roots_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let roots = ["work", "home"].map(|name| dir.path().join(name)).to_vec();
        for root in &roots {
            fs::create_dir_all(root.join("sub")).unwrap();
        }
        fs::write(roots[1].join("sub/x"), "").unwrap();
        let find = |path: &Path| place(&roots, path).map(|(root, p)| (root.clone(), p));
        assert_eq!(find(Path::new("./sub/x")), Some((roots[1].clone(), "sub/x".into())));
        assert_eq!(find(&roots[0].join("a")), Some((roots[0].clone(), "a".into())));
        for bad in ["/etc/passwd", "../x", "sub/../../x", "absent", ".", ""] {
            assert_eq!(find(Path::new(bad)), None, "{bad}");
        }
        assert_eq!(find(&roots[0].join("../home/sub/x")), None);
    }
}
