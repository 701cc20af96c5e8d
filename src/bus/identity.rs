//! Who a peer is: the policy over what the kernel says of it. Pure.
//!
//! An agent's peer has the agent's anchor (its shim; in a container, the first process) among its
//! ancestors. An operator's peer has our uid, none of the mission's processes among its ancestors,
//! and is not under `no_new_privs`: an agent that kills its own shim gets another parent, but never
//! loses that flag. An operator who does run under it (in a sandbox of their own) opts in by creating
//! `operator.key` in the mission's runtime directory, which no confined agent can read, and showing
//! its content in `hello`; `missionctl` does so by itself.

use crate::sys::peer::{Peer, ProcessId};

/// Why a peer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Reason {
    #[error("user {0} is not the daemon's user")]
    OtherUser(u32),
    #[error("agent `{0}` has no process now")]
    NoProcess(String),
    #[error("the process does not descend from agent `{0}`")]
    NotTheAgent(String),
    #[error(
        "the process belongs to the mission (ancestor {0}): the control socket is for operators; an agent's own socket is in MISSION_SOCKET"
    )]
    OfTheMission(u32),
    #[error(
        "the process runs under no_new_privs, like an agent: an operator who means to creates operator.key beside the control socket and shows it in hello"
    )]
    NoNewPrivs,
    #[error("{0}")]
    Unknown(String),
}

/// What an operator's peer still has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Operator,
    /// The content of the key file, in `hello`.
    NeedsKey,
}

/// Whether a peer is the agent `name`.
pub(super) fn agent(
    peer: &Peer,
    our_uid: u32,
    name: &str,
    anchor: Option<ProcessId>,
) -> Result<(), Reason> {
    if peer.uid != our_uid {
        return Err(Reason::OtherUser(peer.uid));
    }
    let Some(anchor) = anchor else { return Err(Reason::NoProcess(name.to_owned())) };
    if peer.chain.contains(&anchor) { Ok(()) } else { Err(Reason::NotTheAgent(name.to_owned())) }
}

/// Whether a peer is an operator; `of_mission` are the daemon, the launcher and the live anchors.
pub(super) fn operator(
    peer: &Peer,
    our_uid: u32,
    of_mission: &[ProcessId],
    has_key: bool,
) -> Result<Standing, Reason> {
    if peer.uid != our_uid {
        return Err(Reason::OtherUser(peer.uid));
    }
    if let Some(process) = peer.chain.iter().find(|process| of_mission.contains(process)) {
        return Err(Reason::OfTheMission(process.pid));
    }
    match (peer.no_new_privs, has_key) {
        (false, _) => Ok(Standing::Operator),
        (true, true) => Ok(Standing::NeedsKey),
        (true, false) => Err(Reason::NoNewPrivs),
    }
}

/// Compares two keys in time that does not depend on where they differ.
pub(super) fn is_same_key(shown: &str, expected: &str) -> bool {
    let (shown, expected) = (shown.as_bytes(), expected.trim().as_bytes());
    let differences = shown.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b));
    !expected.is_empty() && shown.len() == expected.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIM: ProcessId = ProcessId { pid: 10, start: 100 };
    const DAEMON: ProcessId = ProcessId { pid: 5, start: 50 };

    fn peer(chain: &[(u32, u64)], no_new_privs: bool) -> Peer {
        let chain = chain.iter().map(|&(pid, start)| ProcessId { pid, start }).collect();
        Peer { uid: 1000, no_new_privs, chain }
    }

    #[test]
    fn only_a_descendant_of_the_anchor_is_the_agent() {
        let inside = peer(&[(12, 120), (11, 110), (10, 100), (5, 50), (1, 1)], true);
        assert_eq!(agent(&inside, 1000, "a", Some(SHIM)), Ok(()));
        assert!(matches!(agent(&inside, 1001, "a", Some(SHIM)), Err(Reason::OtherUser(1000))));
        assert!(matches!(agent(&inside, 1000, "a", None), Err(Reason::NoProcess(_))));
        let recycled = peer(&[(12, 120), (10, 101), (5, 50)], true);
        assert!(matches!(agent(&recycled, 1000, "a", Some(SHIM)), Err(Reason::NotTheAgent(_))));
    }

    #[test]
    fn nothing_of_the_mission_is_an_operator() {
        let of_mission = [DAEMON, SHIM];
        let outside = peer(&[(30, 300), (1, 1)], false);
        assert_eq!(operator(&outside, 1000, &of_mission, false), Ok(Standing::Operator));
        for chain in [&[(30, 300), (10, 100)][..], &[(30, 300), (5, 50), (1, 1)], &[(5, 50)]] {
            let inside = operator(&peer(chain, false), 1000, &of_mission, true);
            assert!(matches!(inside, Err(Reason::OfTheMission(_))), "{chain:?}");
        }
    }

    #[test]
    fn an_orphan_under_no_new_privs_is_no_operator_without_the_key() {
        let orphan = peer(&[(30, 300), (1, 1)], true);
        assert_eq!(operator(&orphan, 1000, &[DAEMON], false), Err(Reason::NoNewPrivs));
        assert_eq!(operator(&orphan, 1000, &[DAEMON], true), Ok(Standing::NeedsKey));
    }

    #[test]
    fn a_key_is_all_of_the_key() {
        assert!(is_same_key("secret", "secret\n"));
        for wrong in ["", "secre", "secreT", "secrets"] {
            assert!(!is_same_key(wrong, "secret\n"), "{wrong}");
        }
        assert!(!is_same_key("", "\n"));
    }
}
