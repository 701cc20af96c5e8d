//! What of a mission is to be protected in the trees that an agent writes, and how it gets into the
//! agent's plan.
//!
//! What there is to protect is found by [`workspace`](crate::workspace), on a thread that may block; that
//! it is so is the sandbox's business. Only level 2 can: Landlock, all that level 1 has, knows no "all
//! but".

use std::path::{Path, PathBuf};

use super::ground::Ground;
use super::guards::Protection;
use super::setup::{refused, write_new};
use crate::config::dirs::AgentDirs;
use crate::config::{AgentLaunch, SecretSource, WorkspaceMode};
use crate::policy::{Level, PrivateTree, Roots};
use crate::supervise::SetupFailure;
use crate::workspace::private::{Private, Upper};
use crate::workspace::{Found, Substitute, Wanted, excludes, git_dir_outside};

/// Programs that run the file they are given.
const INTERPRETERS: [&str; 12] = [
    "sh", "bash", "dash", "zsh", "python", "python3", "node", "perl", "ruby", "deno", "bun", "env",
];

/// Sees to it that everything in an agent's writable trees that is to be protected is known and exists,
/// and adds it to what the agent gets. Gives also what can't be protected, as sentences.
///
/// # Errors
/// A tree can't be searched, there is too much in it, or a placeholder can't be made.
pub(super) fn protect(
    ground: &Ground,
    config: &AgentLaunch,
    can_write: bool,
    dirs: &AgentDirs,
    roots: &mut Roots,
) -> Result<(Option<Box<Protection>>, Vec<String>), SetupFailure> {
    ground.guards.catch_up(&dirs.lock()).map_err(|error| refused("placeholders", &error))?;
    if config.level != Level::Namespaces {
        return Ok((None, Vec::new()));
    }
    let wanted = wanted(ground, config, can_write);
    let workspace = &ground.mission.workspace;
    if !can_write {
        roots.extra_read.extend(git_dir_outside(workspace, &wanted.keep_out));
    }
    let guards = &ground.guards;
    let mut gaps = Vec::new();
    if can_write && config.workspace_mode == WorkspaceMode::Private {
        gaps = private(ground, &wanted, dirs, roots)?;
    }
    if wanted.trees.is_empty() {
        return Ok((None, gaps));
    }
    // Our caller holds the agent's lock. From here on whatever fails lets the placeholders go.
    let protected = guards.protect(wanted, &dirs.lock());
    let (protection, mut found) = protected.map_err(|error| refused("protect", &error))?;
    roots.protected.extend(found.protected().map_err(|error| refused("protect", &error))?);
    roots.extra_write.extend(found.outside.iter().cloned());
    roots.substitutes = substitutes(&found, protection.placeholders(), dirs)?;
    gaps.append(&mut found.gaps);
    Ok((Some(Box::new(protection)), gaps))
}

/// Makes the agent's own side of the workspace ready. Nothing there needs protection; what would be
/// protected is what never comes back.
fn private(
    ground: &Ground,
    wanted: &Wanted,
    dirs: &AgentDirs,
    roots: &mut Roots,
) -> Result<Vec<String>, SetupFailure> {
    let workspace = &ground.mission.workspace;
    let real = Wanted { trees: vec![workspace.clone()], ..wanted.clone() };
    let found = ground.guards.search(&real);
    let found = found.map_err(|error| refused("private workspace", &error))?;
    let protected: Vec<PathBuf> = found.places().map(Path::to_owned).collect();
    let begun = Private::at(dirs.private()).begin(workspace, &protected);
    let Upper { upper, work } = begun.map_err(|error| refused("private workspace", &error))?;
    roots.private = Some(PrivateTree { upper, work });
    // A work tree's repository outside can't be private as well: it is only read.
    roots.extra_read.extend(found.outside);
    Ok(found.gaps)
}

/// Files that hide placeholders from git, made for this start.
fn substitutes(
    found: &Found,
    placeholders: &[PathBuf],
    dirs: &AgentDirs,
) -> Result<Vec<(PathBuf, PathBuf)>, SetupFailure> {
    let mut made = Vec::new();
    for (number, Substitute { target, text }) in
        excludes(found, placeholders).into_iter().enumerate()
    {
        let source = dirs.exclude(number);
        write_new(&source, text.as_bytes())
            .map_err(|error| refused("write what git is to overlook", &error))?;
        made.push((source, target));
    }
    Ok(made)
}

/// What is searched for an agent.
fn wanted(ground: &Ground, config: &AgentLaunch, can_write: bool) -> Wanted {
    let shared = can_write && config.workspace_mode == WorkspaceMode::Shared;
    let workspace = shared.then_some(&ground.mission.workspace);
    let mut trees: Vec<PathBuf> = Vec::new();
    for tree in workspace.into_iter().chain(&config.write) {
        if !trees.iter().any(|other| tree.starts_with(other)) {
            trees.push(tree.clone());
        }
    }
    let variable = |name: &str| {
        let found = ground.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| PathBuf::from(value)).filter(|path| path.is_absolute())
    };
    let home = variable("HOME");
    let of_user = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let git_config = [
        Some(PathBuf::from("/etc/gitconfig")),
        of_user.map(|dir| dir.join("git/config")),
        home.as_ref().map(|home| home.join(".gitconfig")),
    ];
    let own = [ground.dirs.runtime(), ground.dirs.state()];
    Wanted {
        trees,
        names: config.protected.clone(),
        files: files(ground),
        keep_out: own.iter().filter_map(|dir| dir.parent()).map(Path::to_owned).collect(),
        home,
        git_config: git_config.into_iter().flatten().collect(),
    }
}

/// The files that the mission is made of: whoever could change one would be another agent at its next
/// start.
fn files(ground: &Ground) -> Vec<PathBuf> {
    let mut files = vec![ground.mission.file.clone()];
    for agent in ground.mission.agents.values() {
        files.extend(agent.policy_files.iter().cloned());
        let [program, words @ ..] = agent.command.as_slice() else { continue };
        let program = Path::new(program);
        files.push(program.to_owned());
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if INTERPRETERS.contains(&name)
            && let Some(script) = words.iter().find(|word| !word.starts_with('-'))
            && agent.cwd.join(script).is_file()
        {
            files.push(agent.cwd.join(script));
        }
        files.extend(agent.secrets.values().filter_map(|source| match source {
            SecretSource::File(file) => Some(file.clone()),
            SecretSource::Env(_) => None,
        }));
    }
    // A link may lead to a file in the same tree.
    let real: Vec<PathBuf> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
    files.retain(|file| file.is_absolute());
    files.extend(real);
    files.sort();
    files.dedup();
    files
}
