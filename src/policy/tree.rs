//! What a level-2 agent sees: the tree, in the order in which it is built.
//!
//! A path of the host appears at the same path inside, so one order fits all: by depth. What is
//! mounted at `/a/b` stands before what is mounted at `/a/b/c`, whichever of them is the workspace,
//! the home, or a private `/tmp`; a mount made later would cover the one below it.
//!
//! Which of two claims to one place wins:
//!
//! 1. the deeper path, as in any mount table;
//! 2. at the same path, write over read;
//! 3. `hidden` over `read` and `write`, but the agent's own directories over `hidden`: they are
//!    mounted into the emptied place;
//! 4. `protected` over every write;
//! 5. a private workspace is written like another one, but elsewhere;
//! 6. nothing over what the sandbox makes itself (`/proc`, `/dev`, the private `/tmp` as a whole): a
//!    request for that is refused, because half of it would be silently lost.
//!
//! It deliberately doesn't find protected files, and doesn't look whether paths exist: callers did.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use super::host::{Cover, HostFacts, PROC_PLACES, PlaceKind, Whom};
use super::landlock::clean;
use super::limits::DEFAULT_TMP;
use super::request::{PlanRequest, Roots};
use super::sandbox::{Access, Network, Node, Trust};
use super::verdict::PlanError;

/// Most files of the private `/tmp`: one for each 4 KiB of it, the smallest that holds something.
const BYTES_PER_FILE: u64 = 4096;
/// Size of a tmpfs that only covers what lies below.
const COVER_BYTES: u64 = 1 << 20;

/// What programs read in `/proc` about the machine, where it can't be mounted.
const BORROWED_PROC: [&str; 6] = ["cpuinfo", "meminfo", "stat", "uptime", "loadavg", "version"];

/// A path of the host that the agent gets.
struct Claim {
    path: PathBuf,
    write: bool,
    /// The agent's own: `hidden` gives way.
    own: bool,
}

/// Builds the tree.
///
/// # Errors
/// A path that can't be had at level 2.
pub(super) fn tree(request: &PlanRequest, host: &HostFacts) -> Result<Vec<Node>, PlanError> {
    let claims = claims(request)?;
    let mut nodes = system(request, host);
    nodes.extend(devices(host));
    nodes.extend(proc(request, host));
    nodes.extend(memory(request, &claims));
    for claim in &claims {
        refuse_own_places(&claim.path, &nodes)?;
    }
    for claim in claims {
        place(&mut nodes, claim);
    }
    overlay(&mut nodes, request);
    by_depth(&mut nodes);
    hide(&mut nodes, &request.roots);
    nodes = without_repetition(nodes);
    protect(&mut nodes, &request.roots);
    Ok(nodes)
}

fn claims(request: &PlanRequest) -> Result<Vec<Claim>, PlanError> {
    let roots = &request.roots;
    let mut claims: Vec<Claim> = Vec::new();
    let mut claim = |path: &PathBuf, write, own| {
        if !clean(path) {
            return Err(PlanError::UncleanPath { path: path.clone() });
        }
        match claims.iter_mut().find(|other| other.path == *path) {
            Some(other) => {
                other.write |= write;
                other.own |= own;
            }
            None => claims.push(Claim { path: path.clone(), write, own }),
        }
        Ok(())
    };
    for path in [&roots.home, &roots.checkpoint, &roots.handoff].into_iter().flatten() {
        claim(path, true, true)?;
    }
    for path in [&roots.bus, &roots.missionctl, &roots.task].into_iter().flatten() {
        claim(path, false, true)?;
    }
    if let Some(workspace) = &roots.workspace {
        claim(workspace, request.workspace_write, true)?;
    }
    for path in &roots.extra_read {
        claim(path, false, false)?;
    }
    for path in &roots.extra_write {
        let protected = roots.protected.iter().any(|protected| path.starts_with(protected));
        claim(path, !protected, false)?;
    }
    // Hidden or not, a read-only workspace inside a writable directory could be moved away.
    if let Some(workspace) = roots.workspace.as_ref().filter(|_| !request.workspace_write)
        && let Some(above) = claims.iter().find(|c| c.write && workspace.starts_with(&c.path))
    {
        return Err(PlanError::WorkspaceBelowWritable {
            workspace: workspace.clone(),
            writable: above.path.clone(),
        });
    }
    claims.retain(|claim| {
        claim.own || !roots.hidden.iter().any(|hidden| claim.path.starts_with(hidden))
    });
    Ok(claims)
}

fn bind(path: &Path, access: Access, trust: Trust) -> Node {
    Node::Bind { source: path.to_path_buf(), target: path.to_path_buf(), access, trust }
}

fn symlink(target: &str, to: &str) -> Node {
    Node::Symlink { target: target.into(), to: to.into() }
}

fn system(request: &PlanRequest, host: &HostFacts) -> Vec<Node> {
    let seen = |network: bool| !network || request.network == Network::Host;
    host.system
        .iter()
        .filter(|place| seen(place.network) && !place.path.starts_with("/proc"))
        .filter_map(|place| match &place.kind {
            PlaceKind::Directory | PlaceKind::File => {
                Some(bind(&place.path, Access::Read, Trust::System))
            }
            PlaceKind::Link(to) => {
                Some(Node::Symlink { target: place.path.clone(), to: to.clone() })
            }
            PlaceKind::Device => None,
        })
        .collect()
}

fn devices(host: &HostFacts) -> Vec<Node> {
    let places = host.system.iter().filter(|place| place.kind == PlaceKind::Device);
    let mut nodes: Vec<Node> =
        places.map(|place| bind(&place.path, Access::Device, Trust::System)).collect();
    nodes.extend([
        symlink("/dev/fd", "/proc/self/fd"),
        symlink("/dev/stdin", "/proc/self/fd/0"),
        symlink("/dev/stdout", "/proc/self/fd/1"),
        symlink("/dev/stderr", "/proc/self/fd/2"),
        symlink("/dev/ptmx", "pts/ptmx"),
        Node::Devpts { target: "/dev/pts".into() },
    ]);
    nodes
}

fn proc(request: &PlanRequest, host: &HostFacts) -> Vec<Node> {
    let inside = |name: &str| Path::new("/proc").join(name);
    if !host.fresh_proc {
        let borrowed = BORROWED_PROC.map(|name| bind(&inside(name), Access::Read, Trust::System));
        return borrowed.into();
    }
    let mut nodes = vec![Node::Proc { target: "/proc".into() }];
    for place in &host.system {
        let Ok(name) = place.path.strip_prefix("/proc") else { continue };
        let found = PROC_PLACES.iter().find(|(known, ..)| name == Path::new(known));
        let Some((_, cover, whom)) = found else { continue };
        let covers = match whom {
            // A covered /proc would forbid a sandbox inside to mount its own.
            Whom::Anybody => host.root || !request.grants.userns,
            Whom::Root => host.root,
        };
        if covers {
            let target = place.path.clone();
            nodes.push(match cover {
                Cover::Hidden => Node::Hide { target },
                Cover::ReadOnly => Node::Protect { target },
            });
        }
    }
    nodes
}

/// The file systems in memory, and `/run`.
fn memory(request: &PlanRequest, claims: &[Claim]) -> Vec<Node> {
    let bytes = request.tmp_bytes.unwrap_or(DEFAULT_TMP);
    let tmpfs = |target: &str| Node::Tmpfs {
        target: target.into(),
        bytes,
        inodes: (bytes / BYTES_PER_FILE).max(16),
        mode: 0o1777,
        writable: true,
    };
    let below_var_tmp = claims.iter().any(|claim| claim.path.starts_with("/var/tmp"));
    let mut nodes = vec![
        tmpfs("/tmp"),
        tmpfs("/dev/shm"),
        if below_var_tmp { tmpfs("/var/tmp") } else { symlink("/var/tmp", "/tmp") },
        Node::Directory { target: "/run".into(), mode: 0o755 },
    ];
    nodes.extend(request.roots.memory.iter().map(|target| Node::Tmpfs {
        target: target.clone(),
        bytes,
        inodes: (bytes / BYTES_PER_FILE).max(16),
        mode: 0o700,
        writable: true,
    }));
    nodes
}

/// Refuses a path that would cover, or lie in, what the sandbox makes itself.
fn refuse_own_places(path: &Path, nodes: &[Node]) -> Result<(), PlanError> {
    let refused =
        |own: &Path| Err(PlanError::OwnPlace { path: path.to_path_buf(), own: own.to_path_buf() });
    for own in ["/proc", "/dev"].map(Path::new) {
        if path.starts_with(own) {
            return refused(own);
        }
    }
    for node in
        nodes.iter().filter(|node| !matches!(node, Node::Bind { .. } | Node::Overlay { .. }))
    {
        let own = node.target();
        let inside_link = matches!(node, Node::Symlink { .. }) && path.starts_with(own);
        if own.starts_with(path) || inside_link {
            return refused(own);
        }
    }
    Ok(())
}

/// Adds a claim, or lets it raise what is at that very place.
fn place(nodes: &mut Vec<Node>, claim: Claim) {
    let access = if claim.write { Access::Write } else { Access::Read };
    let present = nodes.iter_mut().find(|node| node.target() == claim.path);
    match present {
        Some(node) if claim.write => *node = bind(&claim.path, access, Trust::None),
        // The system's own place already says it.
        Some(_) => {}
        None => nodes.push(bind(&claim.path, access, Trust::None)),
    }
}

/// Has a private workspace written elsewhere.
fn overlay(nodes: &mut [Node], request: &PlanRequest) {
    let roots = &request.roots;
    let (Some(private), Some(workspace)) = (&roots.private, &roots.workspace) else { return };
    for node in nodes.iter_mut() {
        if matches!(node, Node::Bind { target, access: Access::Write, .. } if target == workspace) {
            *node = Node::Overlay {
                lower: workspace.clone(),
                upper: private.upper.clone(),
                work: private.work.clone(),
                target: workspace.clone(),
            };
        }
    }
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

fn by_depth(nodes: &mut [Node]) {
    nodes.sort_by_key(|node| depth(node.target()));
}

/// What a path would be in: the deepest node at or above it.
fn around<'a>(nodes: &'a [Node], path: &Path) -> Option<&'a Node> {
    let above = nodes.iter().filter(|node| path.starts_with(node.target()));
    above.max_by_key(|node| depth(node.target()))
}

/// Covers hidden places that would be visible.
fn hide(nodes: &mut Vec<Node>, roots: &Roots) {
    let mut hidden: Vec<&PathBuf> = roots.hidden.iter().filter(|path| clean(path)).collect();
    hidden.sort_by_key(|path| depth(path));
    for path in hidden {
        if nodes.iter().any(|node| node.target() == path)
            || !matches!(around(nodes, path), Some(Node::Bind { .. } | Node::Overlay { .. }))
        {
            continue;
        }
        let target = path.clone();
        // Where something of the agent's own lies deeper, there must be directories to put it in.
        nodes.push(if nodes.iter().any(|node| node.target().starts_with(path)) {
            let (bytes, inodes) = (COVER_BYTES, COVER_BYTES / BYTES_PER_FILE);
            Node::Tmpfs { target, bytes, inodes, mode: 0o755, writable: false }
        } else {
            Node::Hide { target }
        });
        by_depth(nodes);
    }
}

/// Leaves out what an outer bind already gives with the same access.
fn without_repetition(nodes: Vec<Node>) -> Vec<Node> {
    let mut kept: Vec<Node> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let repeats = if let Node::Bind { target, access, .. } = &node {
            matches!(
                around(&kept, target),
                Some(Node::Bind { access: outer, .. }) if outer == access
            )
        } else {
            false
        };
        if !repeats {
            kept.push(node);
        }
    }
    kept
}

/// What stands at a place, as far as [`protect`] asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Writable,
    Pinned,
    Else,
}

/// Makes protected places inside writable binds read-only, and pins the directories above them: a
/// parent that can be renamed could be replaced by one without protection.
fn protect(nodes: &mut Vec<Node>, roots: &Roots) {
    let mut protected: Vec<&PathBuf> = roots.protected.iter().filter(|path| clean(path)).collect();
    protected.sort_by_key(|path| depth(path));
    protected.dedup();
    // There may be thousands: each costs its depth, not the number of nodes.
    let mut stands: HashMap<PathBuf, Stands> = HashMap::new();
    for node in nodes.iter() {
        let writable =
            matches!(node, Node::Bind { access: Access::Write, .. } | Node::Overlay { .. });
        let what = if writable { Stands::Writable } else { Stands::Else };
        stands.insert(node.target().to_owned(), what);
    }
    let substitutes = roots.substitutes.iter().filter(|(_, target)| clean(target));
    let substitutes = substitutes.map(|(source, target)| (target, Some(source)));
    for (path, source) in protected.into_iter().map(|path| (path, None)).chain(substitutes) {
        // Through pins: they are part of the bind that they are in.
        let around = path.ancestors().find_map(|above| match stands.get(above) {
            None | Some(Stands::Pinned) => None,
            Some(what) => Some((above, *what)),
        });
        let Some((root, Stands::Writable)) = around else { continue };
        if path == root {
            nodes.retain(|node| node.target() != root);
            nodes.push(bind(path, Access::Read, Trust::None));
        } else {
            for above in path.ancestors().skip(1).take_while(|above| *above != root) {
                if let Entry::Vacant(free) = stands.entry(above.to_owned()) {
                    free.insert(Stands::Pinned);
                    nodes.push(Node::Pin { target: above.to_owned() });
                }
            }
            let target = path.clone();
            nodes.push(match source.cloned() {
                None => Node::Protect { target },
                Some(source) => {
                    Node::Bind { source, target, access: Access::Read, trust: Trust::None }
                }
            });
        }
        stands.insert(path.clone(), Stands::Else);
    }
    by_depth(nodes);
}
