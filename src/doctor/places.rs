//! Where files and processes of missions are: directories, systemd, control groups.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{User, access, geteuid};

use super::report::Check;
use crate::config::dirs::Places;
use crate::launch::cgroup::{CgroupError, Cgroups, ScopeError};

/// Where sockets and where state belong, by making a file there.
pub(super) fn directories() -> Vec<Check> {
    let runtime = "runtime directory";
    let state = "state directory";
    let places = match Places::from_environment(|name| std::env::var_os(name)) {
        Ok(places) => places,
        Err(error) => {
            return vec![Check::missing(
                state,
                1,
                error.to_string(),
                &["export HOME=/path/to/your/home"],
            )];
        }
    };
    let [runtime_base, state_base] = places.bases();
    let mut runtime = directory(runtime, runtime_base, "XDG_RUNTIME_DIR");
    let named = std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| !dir.is_empty());
    if runtime.remedy.is_empty() && !named && runtime_base.starts_with("/tmp") {
        runtime = Check::gap(
            "runtime directory",
            runtime.found,
            &["no XDG_RUNTIME_DIR: sockets are in /tmp, where others can be in the way"],
            &["loginctl enable-linger", "export XDG_RUNTIME_DIR=/run/user/$(id -u)"],
        );
    }
    vec![runtime, directory(state, state_base, "XDG_STATE_HOME")]
}

/// Tries to make a file in the directory, or in the nearest one above that is there.
fn directory(name: &'static str, dir: &Path, variable: &str) -> Check {
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let probe = there.join(format!(".missiond-doctor-{}", std::process::id()));
    let made = fs::OpenOptions::new().write(true).create_new(true).open(&probe);
    let shown = dir.display().to_string();
    match made.and_then(|_file| fs::remove_file(&probe)) {
        Ok(()) => Check::ok(name, shown),
        Err(error) => Check::missing(
            name,
            1,
            format!("cannot write in {}: {error}", there.display()),
            &[&format!("export {variable}=/a/directory/of/yours")],
        ),
    }
}

/// Whether missions go on when the user logs out.
pub(super) fn lingering() -> Check {
    const NAME: &str = "lingering";
    if !Path::new("/run/systemd/system").is_dir() {
        return Check::gap(
            NAME,
            "this machine isn't run by systemd",
            &["`missiond unit` has nobody to talk to; `missiond start --detach` works"],
            &[],
        );
    }
    let user = User::from_uid(geteuid()).ok().flatten().map(|user| user.name);
    let lingers = |name: &String| Path::new("/var/lib/systemd/linger").join(name).exists();
    if user.as_ref().is_some_and(lingers) {
        return Check::ok(NAME, "systemd keeps the user's services running");
    }
    Check::gap(
        NAME,
        "the user's services end with the last login",
        &["missions end then, too: as units of systemd --user, and in the background"],
        &["loginctl enable-linger"],
    )
}

/// Control groups, by taking one.
pub(super) fn cgroups() -> Check {
    cgroups_of(Cgroups::claim("doctor").map(|cgroups| cgroups.root().to_owned()))
}

fn cgroups_of(claimed: Result<PathBuf, CgroupError>) -> Check {
    const NAME: &str = "control groups";
    let error = match claimed {
        Ok(root) => return Check::ok(NAME, format!("delegated: {}", root.display())),
        Err(error) => error,
    };
    let limits = "memory limits hold for each process, pids limits at level 1 for the user, shares of \
                  processors not at all";
    let remedy = remedy(&error);
    match &error {
        CgroupError::Nowhere { own, scope } => {
            let asked = format!("no scope of systemd --user: {}", scope.in_full());
            Check::gap(NAME, own.in_full(), &[&asked, limits], &remedy)
        }
        CgroupError::NoHierarchy
        | CgroupError::Io { .. }
        | CgroupError::NotOurs { .. }
        | CgroupError::Shared { .. }
        | CgroupError::NoControllers { .. }
        | CgroupError::NotTaken { .. }
        | CgroupError::Populated { .. } => Check::gap(NAME, error.in_full(), &[limits], &remedy),
    }
}

fn remedy(error: &CgroupError) -> Vec<&'static str> {
    match error {
        CgroupError::Nowhere { own, scope } => match (own.as_ref(), scope) {
            // Without controllers a scope is of no use either.
            (CgroupError::NoControllers { group, .. }, _) if is_hybrid(group) => remedy(own),
            (CgroupError::NoHierarchy, _) => remedy(own),
            (_, ScopeError::NoBus) if !Path::new("/run/systemd/system").is_dir() => {
                vec!["Start missiond with a control group of its own that is delegated to the user"]
            }
            (_, ScopeError::NoBus | ScopeError::Bus(_)) => {
                vec!["sudo apt-get install dbus-user-session", "loginctl enable-linger"]
            }
            (_, ScopeError::Refused(_) | ScopeError::Job(_)) => {
                vec!["journalctl --user -n 20"]
            }
        },
        CgroupError::NoHierarchy => vec![VERSION_2],
        CgroupError::NoControllers { group, .. } if is_hybrid(group) => vec![VERSION_2],
        CgroupError::NoControllers { .. } => vec![
            "sudo mkdir -p /etc/systemd/system/user@.service.d",
            "printf '[Service]\\nDelegate=cpu memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf",
            "sudo systemctl daemon-reload && sudo systemctl restart user@$(id -u)",
        ],
        CgroupError::NotOurs { .. } | CgroupError::Shared { .. } => {
            vec![
                "Start missiond from `missiond unit`, or where the user's systemd can be asked for a scope",
            ]
        }
        CgroupError::Io { .. } | CgroupError::NotTaken { .. } | CgroupError::Populated { .. } => {
            vec!["Put Delegate=yes into the unit that starts missiond, or mount cgroup2 writable"]
        }
    }
}

const VERSION_2: &str =
    "Boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line (version 2 alone)";

/// The controllers are in use by version 1 then.
fn is_hybrid(group: &Path) -> bool {
    group.starts_with("/sys/fs/cgroup/unified")
}

/// A program in `PATH` or where administrators' programs are.
pub(super) fn program(name: &str, path: Option<OsString>) -> Option<PathBuf> {
    let path = path.unwrap_or_default();
    let dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    let all = dirs.chain(["/usr/bin".into(), "/usr/sbin".into()]);
    all.map(|dir| dir.join(name))
        .find(|file| file.is_file() && access(file, nix::unistd::AccessFlags::X_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn a_directory_is_tried_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let check = directory("state directory", &dir.path().join("not/yet"), "XDG_STATE_HOME");
        assert_eq!(check.state, State::Ok);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let check = directory("state directory", Path::new("/proc/no"), "XDG_STATE_HOME");
        assert_eq!((check.state, check.level), (State::Missing, 1));
        assert!(check.remedy[0].contains("XDG_STATE_HOME"), "{check:?}");
    }

    #[test]
    fn each_reason_for_having_no_control_group_has_its_remedy() {
        let none =
            |group: &str| CgroupError::NoControllers { group: group.into(), missing: "cpu".into() };
        let check = cgroups_of(Err(none("/sys/fs/cgroup/unified/x")));
        assert!(check.remedy[0].contains("unified_cgroup_hierarchy=1"), "{check:?}");
        let check = cgroups_of(Err(none("/sys/fs/cgroup/user.slice")));
        assert!(check.remedy[1].contains("Delegate=cpu memory pids"), "{check:?}");
        let own = Box::new(CgroupError::NotOurs { group: "/sys/fs/cgroup/a".into() });
        let nowhere = CgroupError::Nowhere { own, scope: ScopeError::Refused("no".into()) };
        let check = cgroups_of(Err(nowhere));
        assert!(check.found.contains("belongs to another user"), "{check:?}");
        assert!(check.means[0].contains("systemd gives no scope: no"), "{check:?}");
        assert!(check.state == State::Gap && check.remedy[0].contains("journalctl"), "{check:?}");
        assert_eq!(cgroups_of(Ok("/sys/fs/cgroup/a".into())).state, State::Ok);
    }

    #[test]
    fn a_program_is_found_where_it_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("some-program");
        fs::write(&file, "").unwrap();
        let path = Some(dir.path().as_os_str().to_owned());
        assert_eq!(program("some-program", path.clone()), None, "it can't be run");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, mode).unwrap();
        assert_eq!(program("some-program", path), Some(file));
    }
}
