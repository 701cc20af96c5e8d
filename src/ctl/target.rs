//! Which daemon to talk to, and as whom.
//!
//! ```text
//! -m NAME ------------------------------------> NAME's control socket, as the operator
//!   (NAME is this agent's own mission) -------> $MISSION_SOCKET, as the agent
//! $MISSION_SOCKET set ------------------------> that socket, as the agent
//! a mission.toml here or above, running ------> its mission, as the operator
//!   not running, others are ------------------> an error that names them: never a guess
//! exactly one mission runs -------------------> that one
//! ```
//!
//! It deliberately starts nothing, and trusts nothing that it finds: the client checks the server's uid.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::env::Env;
use super::error::CtlError;
use crate::config::dirs::{DirsError, Places};
use crate::ids::MissionName;

/// The largest mission file that is read for its name, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A daemon's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its path.
    pub(crate) socket: PathBuf,
    /// Whether it is an agent's own socket, and not the operator's.
    pub(crate) is_agent: bool,
}

/// Finds the daemon that is meant.
///
/// # Errors
/// None runs, several do, or the one that the mission file here names does not.
pub(crate) async fn find(env: &Env, named: Option<&MissionName>) -> Result<Target, CtlError> {
    if let Some(socket) = &env.socket
        && named.is_none_or(|named| env.mission().as_ref() == Some(named))
    {
        return Ok(Target { socket: socket.clone(), is_agent: true });
    }
    let places = places(env)?;
    // A mission file here decides, even where its mission does not run and another one does: acting
    // on that one would be a guess.
    let decided = match named {
        Some(name) => Some((None, name.clone())),
        None => file_above(env).map(|(file, name)| (Some(file), name)),
    };
    if let Some((file, mission)) = decided {
        let socket = places.of(&mission).control_socket();
        if answers(&socket).await {
            return Ok(Target { socket, is_agent: false });
        }
        // The others are a hint only: inside a sandbox they can't even be listed.
        let others = running(&places).await.unwrap_or_default();
        return Err(CtlError::NotRunning { mission, file, others });
    }
    match running(&places).await?.as_slice() {
        [] => Err(CtlError::NoMission { root: places.bases()[0].to_owned() }),
        [one] => Ok(Target { socket: places.of(one).control_socket(), is_agent: false }),
        several => Err(CtlError::Several { names: several.to_vec() }),
    }
}

/// Which mission is meant, whether it runs or not.
///
/// # Errors
/// Nothing names one, and none or several run.
pub(crate) async fn mission(
    env: &Env,
    named: Option<&MissionName>,
) -> Result<MissionName, CtlError> {
    if let Some(name) = named.cloned().or_else(|| file_above(env).map(|(_, name)| name)) {
        return Ok(name);
    }
    let places = places(env)?;
    match running(&places).await?.as_slice() {
        [] => Err(CtlError::NoMission { root: places.bases()[0].to_owned() }),
        [one] => Ok(one.clone()),
        several => Err(CtlError::Several { names: several.to_vec() }),
    }
}

/// Where missions of this user have their sockets.
fn places(env: &Env) -> Result<Places, CtlError> {
    // Only the runtime directory matters here, so a missing home directory is no obstacle.
    let variable = |name: &str| match name {
        "XDG_RUNTIME_DIR" => env.runtime_dir.clone().map(Into::into),
        "HOME" => Some("/".into()),
        _ => None,
    };
    Places::from_environment(variable).map_err(unusable)
}

fn unusable(error: DirsError) -> CtlError {
    CtlError::Usage {
        what: "the directory of running missions can't be used".to_owned(),
        cause: error.to_string(),
        help: "check XDG_RUNTIME_DIR".to_owned(),
    }
}

/// The missions whose control sockets answer, by name.
async fn running(places: &Places) -> Result<Vec<MissionName>, CtlError> {
    let mut names = Vec::new();
    for name in places.running().map_err(unusable)? {
        if answers(&places.of(&name).control_socket()).await {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether somebody listens on a socket. A daemon whose queue of connections is full does.
async fn answers(socket: &Path) -> bool {
    match tokio::net::UnixStream::connect(socket).await {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// The nearest mission.toml here or above that names a mission.
fn file_above(env: &Env) -> Option<(PathBuf, MissionName)> {
    let found = env.cwd.as_ref()?.ancestors().map(|dir| dir.join("mission.toml"));
    let file = found.into_iter().find(|file| file.is_file())?;
    let name = name_in(&file)?;
    Some((file, name))
}

/// The name of the mission in a file; whatever else is wrong with it is `missiond`'s to say.
fn name_in(file: &Path) -> Option<MissionName> {
    let mut text = String::new();
    File::open(file).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    let table: toml::Table = text.parse().ok()?;
    MissionName::new(table.get("mission")?.get("name")?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    struct World {
        dir: tempfile::TempDir,
        alive: Vec<UnixListener>,
    }

    impl World {
        fn new() -> Self {
            World { dir: tempfile::tempdir().unwrap(), alive: Vec::new() }
        }

        fn run(&mut self, name: &str) {
            let dir = self.dir.path().join("missiond").join(name);
            std::fs::create_dir_all(&dir).unwrap();
            self.alive.push(UnixListener::bind(dir.join("control.sock")).unwrap());
        }

        fn leave_stale(&mut self, name: &str) {
            self.run(name);
            self.alive.pop();
        }

        fn file(&self, text: &str) -> PathBuf {
            let inner = self.dir.path().join("project/src/deep");
            std::fs::create_dir_all(&inner).unwrap();
            std::fs::write(self.dir.path().join("project/mission.toml"), text).unwrap();
            inner
        }

        fn env(&self, cwd: Option<PathBuf>) -> Env {
            let runtime_dir = Some(self.dir.path().to_owned());
            Env { runtime_dir, cwd, ..Env::default() }
        }

        fn find(&self, env: &Env, named: Option<&str>) -> Result<String, CtlError> {
            let named = named.map(|name| MissionName::new(name).unwrap());
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let target = runtime.block_on(find(env, named.as_ref()))?;
            let socket = target.socket.strip_prefix(self.dir.path().join("missiond"));
            Ok(socket.map_or_else(|_| target.socket.clone(), Path::to_owned).display().to_string())
        }
    }

    #[test]
    fn the_only_running_mission_is_found_and_a_stale_socket_is_none() {
        let mut world = World::new();
        let env = world.env(None);
        assert!(matches!(world.find(&env, None), Err(CtlError::NoMission { .. })));
        world.leave_stale("old");
        assert!(matches!(world.find(&env, None), Err(CtlError::NoMission { .. })));
        world.run("one");
        assert_eq!(world.find(&env, None).unwrap(), "one/control.sock");
    }

    #[test]
    fn of_several_missions_one_must_be_named() {
        let mut world = World::new();
        world.run("two");
        world.run("one");
        let env = world.env(None);
        let Err(CtlError::Several { names }) = world.find(&env, None) else { panic!("several") };
        assert_eq!(names.iter().map(MissionName::as_str).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(world.find(&env, Some("two")).unwrap(), "two/control.sock");
        assert!(matches!(world.find(&env, Some("three")), Err(CtlError::NotRunning { .. })));
    }

    #[test]
    fn a_mission_file_above_decides_among_several_and_is_never_guessed_away() {
        let mut world = World::new();
        world.run("one");
        world.run("two");
        let env = world.env(Some(world.file("[mission]\nname = \"two\"\n")));
        assert_eq!(world.find(&env, None).unwrap(), "two/control.sock");
        let env = world.env(Some(world.file("[mission]\nname = \"three\"\n")));
        let Err(CtlError::NotRunning { mission, others, .. }) = world.find(&env, None) else {
            panic!("not running")
        };
        assert_eq!((mission.as_str(), others.len()), ("three", 2));
    }

    #[test]
    fn a_mission_file_without_a_readable_name_is_passed_over() {
        let mut world = World::new();
        world.run("one");
        for text in ["", "[mission", "[mission]\nname = 3", "[mission]\nname = \"../x\""] {
            let env = world.env(Some(world.file(text)));
            assert_eq!(world.find(&env, None).unwrap(), "one/control.sock", "{text}");
        }
    }

    #[test]
    fn inside_an_agent_its_own_socket_is_used_unless_another_mission_is_named() {
        let mut world = World::new();
        world.run("other");
        let env = Env {
            socket: Some("/run/a.sock".into()),
            mission: Some("own".into()),
            ..world.env(None)
        };
        assert_eq!(world.find(&env, None).unwrap(), "/run/a.sock");
        assert_eq!(world.find(&env, Some("own")).unwrap(), "/run/a.sock");
        assert_eq!(world.find(&env, Some("other")).unwrap(), "other/control.sock");
    }
}
