//! On the real kernel: the test program starts itself again as the peer.

use super::*;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOCKET: &str = "MISSIOND_TEST_PEER_SOCKET";
const SHIM: &str = "MISSIOND_TEST_PEER_SHIM";
const BEFORE: &str = "MISSIOND_TEST_PEER_BEFORE";

/// Not a test of its own: what a peer does. It connects, says its pid, and waits for the end.
#[test]
fn peer_process() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let mut stream = UnixStream::connect(path).unwrap();
    io::Write::write_all(&mut stream, &std::process::id().to_le_bytes()).unwrap();
    if std::env::var_os(BEFORE).is_none() {
        let _ = stream.read(&mut [0]);
    }
}

/// A shell line in which `$PEER` is the command of a peer.
fn shell(line: &str, socket: &Path) -> Child {
    let program = std::env::current_exe().unwrap();
    let peer = format!("{} --exact sys::peer::tests::peer_process", program.display());
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "sh", "-c", line])
        .env("PEER", peer)
        .env(SOCKET, socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

struct Rig {
    _directory: tempfile::TempDir,
    listener: UnixListener,
    path: std::path::PathBuf,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    Rig { listener: UnixListener::bind(&path).unwrap(), path, _directory: directory }
}

impl Rig {
    /// The next connection, once its peer has said its pid.
    fn accept(&self) -> (UnixStream, u32) {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut pid = [0; 4];
        stream.read_exact(&mut pid).unwrap();
        (stream, u32::from_le_bytes(pid))
    }
}

fn pids(peer: &Peer) -> Vec<u32> {
    peer.chain.iter().map(|process| process.pid).collect()
}

#[test]
fn a_child_is_told_with_all_its_ancestors() {
    let rig = rig();
    let mut child = shell("$PEER; true", &rig.path);
    let (stream, pid) = rig.accept();
    let peer = Peer::of(stream.as_fd()).unwrap();
    assert_eq!(pids(&peer)[..3], [pid, child.id(), std::process::id()]);
    assert_eq!(peer.chain.last().unwrap().pid, 1);
    assert_eq!(peer.chain[1], process_id(child.id()).unwrap());
    assert_eq!(peer.chain[2], own().unwrap());
    assert_eq!(peer.uid, nix::unistd::Uid::effective().as_raw());
    drop(stream);
    child.wait().unwrap();
}

#[test]
fn no_new_privs_is_seen_whatever_the_peer_does_to_its_ancestry() {
    let rig = rig();
    let mut child = shell("setpriv --no-new-privs sh -c 'setsid $PEER & sleep 0'", &rig.path);
    let (stream, _) = rig.accept();
    child.wait().unwrap();
    let peer = Peer::of(stream.as_fd()).unwrap();
    assert!(peer.no_new_privs);
    assert!(!pids(&peer).contains(&child.id()), "its first parent is gone");
}

/// Not a test of its own: what a shim does. It adopts orphans and stays until its input ends.
#[test]
fn shim_process() {
    let Some(line) = std::env::var_os(SHIM) else { return };
    super::super::process::become_subreaper().unwrap();
    let mut payload = Command::new("sh").arg("-c").arg(line).env_remove(SHIM).spawn().unwrap();
    payload.wait().unwrap();
    let _ = io::stdin().read(&mut [0]);
}

#[test]
fn a_double_fork_with_setsid_stays_below_its_shim() {
    let rig = rig();
    let program = std::env::current_exe().unwrap();
    let mut shim = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(&program)
        .args(["--exact", "sys::peer::tests::shim_process"])
        .env(SHIM, "setsid sh -c '(setsid $PEER &) ; true' & wait")
        .env("PEER", format!("{} --exact sys::peer::tests::peer_process", program.display()))
        .env(SOCKET, &rig.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, pid) = rig.accept();
    let anchor = process_id(shim.id()).unwrap();
    // The processes between may just be ending: then the chain is that of the orphan already.
    let peer = Peer::of(stream.as_fd()).unwrap();
    assert_eq!(peer.chain[0].pid, pid);
    assert!(peer.chain.contains(&anchor), "{peer:?}");
    // And once more when the shim is gone: killing it does not make an operator, nor the agent.
    shim.kill().unwrap();
    shim.wait().unwrap();
    let peer = Peer::of(stream.as_fd()).unwrap();
    assert!(!peer.chain.contains(&anchor));
}

#[test]
fn the_child_of_a_killed_shim_has_another_parent() {
    let rig = rig();
    let mut shim = shell("$PEER; true", &rig.path);
    let (stream, _) = rig.accept();
    let before = Peer::of(stream.as_fd()).unwrap();
    let anchor = process_id(shim.id()).unwrap();
    assert!(before.chain.contains(&anchor));
    shim.kill().unwrap();
    shim.wait().unwrap();
    let after = Peer::of(stream.as_fd()).unwrap();
    assert_eq!(before.chain[0], after.chain[0]);
    assert!(!after.chain.contains(&anchor));
}

#[test]
fn a_peer_that_has_ended_is_refused() {
    let rig = rig();
    let mut child = shell(&format!("{BEFORE}=1 $PEER; true"), &rig.path);
    let (stream, _) = rig.accept();
    child.wait().unwrap();
    let error = Peer::of(stream.as_fd()).unwrap_err();
    assert!(matches!(error, PeerError::Gone { .. }), "{error}");
}

#[test]
fn a_zombie_is_refused() {
    let rig = rig();
    // `exec` makes the peer our own child, which we don't reap before we look.
    let mut child = shell(&format!("export {BEFORE}=1; exec $PEER"), &rig.path);
    let (mut stream, pid) = rig.accept();
    assert_eq!(pid, child.id());
    // The end of the stream comes from its exit.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    let is_zombie = || procfs::stat(pid).unwrap().state == b'Z';
    let pidfd = super::super::process::pidfd(pid).unwrap();
    let mut poll = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut poll, 10_000u16), Ok(1));
    assert!(is_zombie());
    assert!(matches!(Peer::of(stream.as_fd()), Err(PeerError::Gone { .. })));
    child.wait().unwrap();
}
