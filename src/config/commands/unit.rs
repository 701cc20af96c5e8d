//! `missiond unit`: a mission as a service of the user's systemd.
//!
//! ```text
//! ~/.config/systemd/user/missiond@.service                       the template, for all missions
//! ~/.config/systemd/user/missiond@NAME.service.d/mission.conf    which file, and the PATH to find programs
//! ```
//!
//! It deliberately starts and enables nothing: the reply says how.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::CommandError;
use crate::config::{Host, load_for};
use crate::escape;
use crate::ids::MissionName;

const TEMPLATE: &str = include_str!("../../../examples/systemd/missiond@.service");
/// How the example finds `missiond`; an installed unit names the executable itself.
const EXAMPLE_COMMAND: &str = "/usr/bin/env missiond start";
const TEMPLATE_NAME: &str = "missiond@.service";
const DROP_IN: &str = "mission.conf";

/// Where units are, and whom to tell.
#[derive(Debug, Clone)]
pub struct UnitHome {
    /// `~/.config/systemd/user`.
    pub units: PathBuf,
    /// The `missiond` that a unit starts, absolute.
    pub program: PathBuf,
    /// Whether to talk to the user's service manager.
    pub systemctl: bool,
}

impl UnitHome {
    /// That of this user and this executable.
    ///
    /// # Errors
    /// Neither `XDG_CONFIG_HOME` nor `HOME` is set, or the executable isn't known.
    pub fn current() -> Result<Self, CommandError> {
        let absolute =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = absolute("XDG_CONFIG_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".config")))
            .ok_or_else(|| CommandError::Usage {
                message: "cannot tell where units belong".into(),
                help: "set HOME or XDG_CONFIG_HOME".into(),
            })?;
        let program = std::env::current_exe()
            .map_err(CommandError::io("find the executable of", Path::new("missiond")))?;
        Ok(UnitHome { units: config.join("systemd/user"), program, systemctl: true })
    }

    fn template(&self) -> PathBuf {
        self.units.join(TEMPLATE_NAME)
    }

    fn drop_in_directory(&self, name: &MissionName) -> PathBuf {
        self.units.join(format!("missiond@{name}.service.d"))
    }

    /// Runs `systemctl --user`; false where there is none or it refuses.
    fn systemctl(&self, arguments: &[&str]) -> bool {
        self.systemctl
            && Command::new("systemctl")
                .arg("--user")
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    }
}

/// The unit, a template for all missions, for this executable.
///
/// # Errors
/// The executable's path can't stand in a unit.
pub fn unit_print(home: &UnitHome) -> Result<String, CommandError> {
    let program = quoted(home.program.to_str().unwrap_or_default(), &home.program)?;
    Ok(TEMPLATE.replace(EXAMPLE_COMMAND, &format!("{program} start")))
}

/// Installs the unit for a mission: checks the file, writes the template and the mission's own part.
///
/// # Errors
/// The name or the file is wrong, the mission has another name, or a file can't be written.
pub fn unit_install(
    home: &UnitHome,
    name: &str,
    file: &Path,
    host: &Host,
) -> Result<String, CommandError> {
    let name = parse(name)?;
    let mission = load_for(file, host)?;
    if mission.spec.name != name {
        return Err(CommandError::Usage {
            message: format!("{} is mission `{}`, not `{name}`", file.display(), mission.spec.name),
            help: format!("missiond unit install {} {}", mission.spec.name, escape::word(file)),
        });
    }
    let setting = |variable: &str, value: &str| {
        quoted(&format!("{variable}={value}"), &mission.file)
            .map(|text| format!("Environment={text}\n"))
    };
    let mut drop_in = String::from("# written by `missiond unit install`\n[Service]\n");
    drop_in += &setting("MISSIOND_FILE", mission.file.to_str().unwrap_or_default())?;
    if let Some(path) = &host.path {
        // The service manager's own PATH is short, and agents' programs are looked for in this one.
        drop_in += &setting("PATH", path)?;
    }
    let directory = home.drop_in_directory(&name);
    fs::create_dir_all(&directory).map_err(CommandError::io("make directory", &directory))?;
    write(&home.template(), &unit_print(home)?)?;
    write(&directory.join(DROP_IN), &drop_in)?;
    let told = if home.systemctl(&["daemon-reload"]) {
        String::new()
    } else {
        "systemd's user manager can't be reached now; when it can:\n  \
         systemctl --user daemon-reload\n"
            .into()
    };
    Ok(format!(
        "installed missiond@{name}.service in {}\n{told}next:\n  \
         systemctl --user enable --now missiond@{name}\n  \
         loginctl enable-linger          (to let it run while you are logged out)\n",
        home.units.display()
    ))
}

/// Stops and removes a mission's unit, and the template with the last one.
///
/// # Errors
/// There is none of this name, or a file can't be removed.
pub fn unit_remove(home: &UnitHome, name: &str) -> Result<String, CommandError> {
    let name = parse(name)?;
    let directory = home.drop_in_directory(&name);
    let drop_in = directory.join(DROP_IN);
    if !drop_in.exists() {
        return Err(CommandError::NotFound(format!(
            "no unit of mission `{name}` in {}",
            home.units.display()
        )));
    }
    let unit = format!("missiond@{name}.service");
    let stopped = home.systemctl(&["disable", "--now", &unit]);
    fs::remove_file(&drop_in).map_err(CommandError::io("remove", &drop_in))?;
    // Somebody's own drop-ins stay, and with them the directory.
    match fs::remove_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
            return Err(CommandError::io("remove", &directory)(error));
        }
        Ok(()) | Err(_) => {}
    }
    if !others(home)? {
        let template = home.template();
        match fs::remove_file(&template) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CommandError::io("remove", &template)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    home.systemctl(&["daemon-reload"]);
    let told = if stopped {
        String::new()
    } else {
        format!(
            "systemd's user manager can't be reached; if it still runs the mission:\n  \
             missionctl -m {name} stop\n"
        )
    };
    Ok(format!("removed {unit}\n{told}"))
}

/// Whether units of other missions are installed.
fn others(home: &UnitHome) -> Result<bool, CommandError> {
    let entries = fs::read_dir(&home.units).map_err(CommandError::io("list", &home.units))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names =
        names.filter(|name| name.starts_with("missiond@") && name.ends_with(".service.d"));
    Ok(names.next().is_some())
}

fn parse(name: &str) -> Result<MissionName, CommandError> {
    MissionName::new(name).map_err(|error| CommandError::Usage {
        message: error.to_string(),
        help: "the unit is named like its mission".into(),
    })
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    let new = path.with_extension("new");
    fs::write(&new, text).map_err(CommandError::io("write", &new))?;
    fs::rename(&new, path).map_err(CommandError::io("write", path))
}

/// A word of a unit file in double quotes: systemd.syntax(7) for `\` and `"`, systemd.unit(5) for `%`;
/// a `$` is expanded in commands only, and `$$` is one there.
fn quoted(text: &str, of: &Path) -> Result<String, CommandError> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(CommandError::Usage {
            message: format!("{} can't stand in a unit file", of.display()),
            help: "its path must be UTF-8 without control characters".into(),
        });
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    Ok(format!("\"{escaped}\""))
}
