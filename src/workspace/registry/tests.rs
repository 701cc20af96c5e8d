//! Placeholders and their users, in one process; deaths in between are for `tests/workspace`.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::workspace::{Scanner, Wanted};

struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("w/.git/objects")).unwrap();
        fs::write(dir.path().join("w/.git/config"), "").unwrap();
        Scene { dir }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(path)
    }

    fn registry(&self) -> Registry {
        Registry::open(&self.at("state")).unwrap()
    }

    fn found(&self) -> Found {
        let names = vec![".mcp.json".to_owned(), ".vscode/".to_owned()];
        let wanted = Wanted { trees: vec![self.at("w")], names, ..Wanted::default() };
        Scanner::default().search(&wanted, true).unwrap()
    }

    fn acquire(&self, registry: &Registry) -> User {
        let mut found = self.found();
        let user = registry.acquire(&mut found, &self.at("agent-lock")).unwrap().unwrap();
        assert_eq!(found.missing().count(), 0);
        assert_eq!(found.gaps, [""; 0]);
        user
    }

    /// Everything in the tree.
    fn tree(&self) -> Vec<String> {
        fn list(dir: &Path, base: &Path, all: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                all.push(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    list(&path, base, all);
                }
            }
        }
        let mut all = Vec::new();
        list(&self.at("w"), &self.at("w"), &mut all);
        all.sort();
        all
    }

    fn records(&self) -> (usize, usize) {
        let journal = Journal::read(&self.at("state/.placeholders/journal")).unwrap();
        (journal.places.len(), names(&self.at("state/.placeholders/users")).unwrap().len())
    }
}

const BARE: [&str; 3] = [".git", ".git/config", ".git/objects"];
const FULL: [&str; 8] = [
    ".git",
    ".git/commondir",
    ".git/config",
    ".git/config.worktree",
    ".git/hooks",
    ".git/objects",
    ".mcp.json",
    ".vscode",
];

#[test]
fn placeholders_go_with_the_last_of_their_users() {
    let scene = Scene::new();
    let (one, two) = (scene.registry(), scene.registry());
    let first = scene.acquire(&one);
    assert_eq!(scene.tree(), FULL);
    assert_eq!(fs::read_to_string(scene.at("w/.git/commondir")).unwrap(), ".\n");
    let second = scene.acquire(&one);
    let other_mission = scene.acquire(&two);
    assert_eq!(one.release(first).unwrap(), Cleaned::default());
    assert_eq!(two.release(other_mission).unwrap(), Cleaned::default());
    assert_eq!(scene.tree(), FULL);
    let cleaned = one.release(second).unwrap();
    assert_eq!(cleaned.removed.len(), 5);
    assert_eq!(scene.tree(), BARE);
    assert_eq!(scene.records(), (0, 0));
}

#[test]
fn what_a_dead_daemon_left_goes_when_its_agents_are_gone_too() {
    let scene = Scene::new();
    let agent = options().create(true).truncate(false).open(scene.at("agent-lock")).unwrap();
    agent.lock().unwrap();
    let dead = scene.registry();
    let _never_released = scene.acquire(&dead);
    drop(dead);
    let next = scene.registry();
    assert_eq!(next.clean(None).unwrap(), Cleaned::default());
    assert_eq!(scene.tree(), FULL, "its agent lives");
    drop(agent);
    assert_eq!(next.clean(None).unwrap().removed.len(), 5);
    assert_eq!(scene.tree(), BARE);
    assert_eq!(scene.records(), (0, 0));
}

#[test]
fn nothing_that_a_person_made_or_changed_is_removed() {
    let scene = Scene::new();
    let registry = scene.registry();
    let user = scene.acquire(&registry);
    // The same content, as another file.
    fs::remove_file(scene.at("w/.mcp.json")).unwrap();
    fs::write(scene.at("w/.mcp.json"), "{}\n").unwrap();
    // The same file, with other content.
    fs::write(scene.at("w/.git/config.worktree"), "[core]\n").unwrap();
    // Something in a directory.
    fs::write(scene.at("w/.git/hooks/pre-commit"), "").unwrap();
    // A link to the same file.
    fs::rename(scene.at("w/.git/commondir"), scene.at("w/.git/kept")).unwrap();
    symlink("kept", scene.at("w/.git/commondir")).unwrap();
    // And removed.
    fs::remove_dir(scene.at("w/.vscode")).unwrap();
    let cleaned = registry.release(user).unwrap();
    assert_eq!(cleaned.removed, [scene.at("w/.vscode")]);
    assert_eq!(cleaned.left.len(), 4, "{cleaned:?}");
    let tree = scene.tree();
    for kept in [".mcp.json", ".git/config.worktree", ".git/hooks/pre-commit", ".git/commondir"] {
        assert!(tree.iter().any(|path| path == kept), "{kept}: {tree:?}");
    }
    assert_eq!(scene.records(), (0, 0));
}

#[test]
fn what_somebody_made_meanwhile_is_protected_as_it_is() {
    let scene = Scene::new();
    let registry = scene.registry();
    let mut found = scene.found();
    fs::write(scene.at("w/.mcp.json"), "mine").unwrap();
    let user = registry.acquire(&mut found, &scene.at("agent-lock")).unwrap().unwrap();
    assert_eq!(found.missing().count(), 0);
    assert!(found.places().any(|path| path == scene.at("w/.mcp.json")));
    assert_eq!(scene.tree(), FULL);
    registry.release(user).unwrap();
    assert_eq!(fs::read_to_string(scene.at("w/.mcp.json")).unwrap(), "mine");
    assert_eq!(scene.tree(), [BARE.as_slice(), &[".mcp.json"]].concat());
}

#[test]
fn a_placeholder_that_was_removed_is_made_again_for_the_next_user() {
    let scene = Scene::new();
    let registry = scene.registry();
    let first = scene.acquire(&registry);
    fs::remove_file(scene.at("w/.git/commondir")).unwrap();
    let second = scene.acquire(&registry);
    assert_eq!(scene.tree(), FULL);
    registry.release(first).unwrap();
    assert_eq!(scene.tree(), FULL);
    registry.release(second).unwrap();
    assert_eq!(scene.tree(), BARE);
}

#[test]
fn a_workspace_that_is_away_is_cleaned_when_it_is_back() {
    let scene = Scene::new();
    let registry = scene.registry();
    let user = scene.acquire(&registry);
    fs::rename(scene.at("w"), scene.at("away")).unwrap();
    let cleaned = registry.release(user).unwrap();
    assert_eq!((cleaned.removed.len(), cleaned.failed.len()), (0, 5), "{cleaned:?}");
    fs::rename(scene.at("away"), scene.at("w")).unwrap();
    assert_eq!(registry.clean(None).unwrap().removed.len(), 5);
    assert_eq!(scene.tree(), BARE);
}

#[test]
fn what_can_not_be_made_is_told_and_leaves_nothing() {
    if nix::unistd::geteuid().is_root() {
        println!("SKIP what_can_not_be_made_is_told: root may write everywhere");
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry();
    fs::set_permissions(scene.at("w/.git"), fs::Permissions::from_mode(0o500)).unwrap();
    let mut found = scene.found();
    let user = registry.acquire(&mut found, &scene.at("agent-lock")).unwrap().unwrap();
    assert_eq!(found.gaps.len(), 3, "{:?}", found.gaps);
    assert_eq!(found.missing().count(), 0);
    registry.release(user).unwrap();
    fs::set_permissions(scene.at("w/.git"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(scene.tree(), BARE);
}

#[test]
fn an_agent_that_needs_no_placeholder_leaves_no_record() {
    let scene = Scene::new();
    let registry = scene.registry();
    let mut none = Found::default();
    let user = registry.acquire(&mut none, &scene.at("agent-lock")).unwrap().unwrap();
    assert_eq!(scene.records(), (0, 0));
    assert_eq!(registry.release(user).unwrap(), Cleaned::default());
}

#[test]
fn what_has_gone_since_the_search_is_searched_for_again() {
    let scene = Scene::new();
    let registry = scene.registry();
    let first = scene.acquire(&registry);
    // Sees the first one's placeholders, and that one ends.
    let mut stale = scene.found();
    assert_eq!(stale.missing().count(), 0);
    registry.release(first).unwrap();
    let second = registry.acquire(&mut stale, &scene.at("agent-lock")).unwrap();
    assert_eq!(second, None);
    assert_eq!(scene.records(), (0, 0));
    let third = scene.acquire(&registry);
    assert_eq!(scene.tree(), FULL);
    registry.release(third).unwrap();
}

#[test]
fn who_holds_an_agents_lock_knows_that_its_former_start_is_dead() {
    let scene = Scene::new();
    let dead = scene.registry();
    let _never_released = scene.acquire(&dead);
    drop(dead);
    let held = options().create(true).truncate(false).open(scene.at("agent-lock")).unwrap();
    held.lock().unwrap();
    let next = scene.registry();
    assert_eq!(next.clean(None).unwrap(), Cleaned::default());
    assert_eq!(next.clean(Some(&scene.at("agent-lock"))).unwrap().removed.len(), 5);
    assert!(next.is_empty().unwrap());
}
