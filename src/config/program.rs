//! The program of a command: where it is, whether the agent may run it, and whether another agent could
//! rewrite it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::read::{At, Findings};
use super::scene::Scene;
use super::source;
use crate::policy::environment::DEFAULT_PATH;
use crate::policy::{Level, SYSTEM_PLACES, landlock};

/// Finds the program of a command as execve(2) will, or reports why it can't be run.
pub(super) fn program(
    command: &At<Vec<At<String>>>,
    path: Option<&str>,
    level: Option<Level>,
    scene: &Scene<'_>,
    findings: &mut Findings,
) -> Option<PathBuf> {
    let Some(first) = command.value.first().filter(|first| !first.value.is_empty()) else {
        findings.error_with_help(
            &command.span,
            "`command` names no program",
            "the first item is the program, the others are its arguments",
        );
        return None;
    };
    let name = first.value.as_str();
    if !name.contains('/') {
        let found = search(name, path, level, scene);
        if found.is_none() {
            let help = if scene.base.join(name).is_file() {
                format!("the one beside the mission file is \"./{name}\"")
            } else {
                "install it, or write its path".to_owned()
            };
            findings.error_with_help(
                &first.span,
                format!("program \"{name}\" is not in PATH"),
                help,
            );
        }
        return found;
    }
    let program: PathBuf = scene.base.join(name).components().collect();
    let shown = program.display();
    let problem = match program.metadata() {
        Err(error) => Some((
            format!("program {shown}: {}", source::cause(&error)),
            "relative paths start at the directory of the mission file".to_owned(),
        )),
        Ok(found) if !found.is_file() => {
            Some((format!("program {shown} is not a file"), "name an executable file".into()))
        }
        Ok(_) if access(&program, AccessFlags::X_OK).is_err() => {
            Some((format!("program {shown} is not executable"), format!("chmod +x {shown}")))
        }
        Ok(_) if program.to_str().is_none() => {
            Some((format!("program {shown} is not valid UTF-8"), "rename it".into()))
        }
        Ok(_) => None,
    };
    match problem {
        Some((message, help)) => {
            findings.error_with_help(&first.span, message, help);
            None
        }
        None => Some(program),
    }
}

/// The program of this name in the `PATH` that the agent will have: no relative entry and none in
/// the workspace at level 1.
fn search(
    name: &str,
    path: Option<&str>,
    level: Option<Level>,
    scene: &Scene<'_>,
) -> Option<PathBuf> {
    // missiond sees to it that agents have `missionctl`, also where it isn't beside it.
    if let (Some(directory), "missionctl") = (&scene.host.missionctl_dir, name) {
        return Some(directory.join(name));
    }
    let confined = level != Some(Level::None);
    let in_workspace = |entry: &Path| {
        scene.workspace.as_ref().is_some_and(|workspace| entry.starts_with(workspace))
    };
    let entries = path.or(scene.host.path.as_deref()).unwrap_or(DEFAULT_PATH).split(':');
    let entries = entries
        .map(Path::new)
        .filter(|entry| !confined || entry.is_absolute() && !in_workspace(entry));
    scene
        .host
        .missionctl_dir
        .as_deref()
        .into_iter()
        .chain(entries)
        .map(|entry| entry.join(name))
        .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok())
}

/// Reports a program that its level doesn't let the agent read, which exec(2) would only call "permission
/// denied".
pub(super) fn check_readable<'a>(
    program: &Path,
    command: &At<Vec<At<String>>>,
    level: Level,
    extra: impl Iterator<Item = &'a Path>,
    scene: &'a Scene<'_>,
    findings: &mut Findings,
) {
    let Ok(real) = program.canonicalize() else { return };
    if visible(level, extra, scene).any(|directory| real.starts_with(directory)) {
        return;
    }
    let (Some(first), Some(directory)) = (command.value.first(), real.parent()) else { return };
    findings.error_with_help(
        &first.span,
        format!("at level {level} the agent may not read program {}", real.display()),
        format!("allow its directory: read = [\"{}\"]", directory.display()),
    );
}

/// Directories that an agent sees, beside its own.
fn visible<'a>(
    level: Level,
    extra: impl Iterator<Item = &'a Path>,
    scene: &'a Scene<'_>,
) -> impl Iterator<Item = &'a Path> {
    let level_1 = landlock::SYSTEM.iter().copied();
    let level_2 = SYSTEM_PLACES.iter().map(|(path, _)| *path);
    let is_2 = level >= Level::Namespaces;
    let system = level_1.filter(move |_| !is_2).chain(level_2.filter(move |_| is_2));
    let own = scene.workspace.as_deref().into_iter().chain(scene.host.missionctl_dir.as_deref());
    extra.chain(system.map(Path::new)).chain(own)
}

/// Reports a working directory that isn't there at level 2.
pub(super) fn check_cwd<'a>(
    cwd: &Path,
    named: Option<&At<String>>,
    extra: impl Iterator<Item = &'a Path>,
    scene: &'a Scene<'_>,
    findings: &mut Findings,
) {
    let Some(named) = named else { return };
    if visible(Level::Namespaces, extra, scene).any(|directory| cwd.starts_with(directory)) {
        return;
    }
    findings.error_with_help(
        &named.span,
        format!("at level 2 the agent doesn't see its `cwd` {}", cwd.display()),
        format!("allow it: read = [\"{0}\"] or write = [\"{0}\"]", cwd.display()),
    );
}

/// Warns where an agent could rewrite a program that is started with the rights of another.
pub(super) fn warn_of_writable(
    program: &Path,
    command: &At<Vec<At<String>>>,
    write: Option<&[(PathBuf, Range<usize>)]>,
    scene: &Scene<'_>,
    findings: &mut Findings,
) {
    let Ok(program) = program.canonicalize() else { return };
    let workspace = scene.workspace.as_deref();
    let extra = write.unwrap_or_default().iter().map(|(path, _)| path.as_path());
    let writable = workspace.into_iter().chain(extra).find(|dir| program.starts_with(dir));
    if let (Some(directory), Some(first)) = (writable, command.value.first()) {
        findings.warning(
            &first.span,
            format!(
                "program {} lies in {}, where agents may write: one could change what is started next",
                program.display(),
                directory.display()
            ),
            "keep programs outside of the workspace",
        );
    }
}
