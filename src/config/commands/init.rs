//! `missiond init`: a first mission file, commented, that runs as it is.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::CommandError;
use crate::escape;
use crate::ids::MissionName;

const TEMPLATE: &str = include_str!("init.toml");

/// Writes `mission.toml` into a directory, which is made if it is missing, and says what to do next.
/// The mission is named after the directory, as far as that is a name.
///
/// # Errors
/// The file is there already, or can't be written.
pub fn init(directory: &Path) -> Result<String, CommandError> {
    std::fs::create_dir_all(directory).map_err(CommandError::io("make directory", directory))?;
    let resolved = directory.canonicalize().map_err(CommandError::io("resolve", directory))?;
    let name = name_after(&resolved);
    let path = directory.join("mission.toml");
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                CommandError::Exists {
                    path: path.clone(),
                    help: "`missiond init DIR` writes into another directory",
                }
            } else {
                CommandError::io("make", &path)(error)
            }
        })?;
    let text = TEMPLATE.replace("@NAME@", name.as_str());
    file.write_all(text.as_bytes()).map_err(CommandError::io("write", &path))?;
    let word = escape::word(&path);
    Ok(format!("wrote {}\nnext:  missiond start {word}\n", path.display()))
}

fn name_after(directory: &Path) -> MissionName {
    let name = directory.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let name: String = name.trim_start_matches('-').chars().take(40).collect();
    MissionName::new(name.trim_end_matches('-'))
        .or_else(|_| MissionName::new("mission"))
        .unwrap_or_else(|_| unreachable!("`mission` obeys the rule"))
}
