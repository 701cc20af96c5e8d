//! Logs that released programs wrote, with the digest of their state: what was logged once is read for
//! ever. `MISSIOND_GOLDEN=<version> cargo test --test scenario` writes the logs of a release (those of its
//! scenarios); they are committed and never written again. A change of the *state* changes digests: then,
//! and only then, the last lines may be renewed, together with the format of the snapshots.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use missiond::core::event::Event;
use missiond::core::json::Json;
use missiond::core::state::State;
use missiond::ids::{BlobHash, Seq, Timestamp};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    row: Option<(Seq, Timestamp, String, u16, String)>,
    envelope: Option<Json>,
    digest: Option<BlobHash>,
}

/// Replays a log, checks its digest, and says which kinds it holds.
fn replay(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let (mut state, mut kinds, mut checked) = (State::new(), BTreeSet::new(), false);
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        if let (Some((seq, at, kind, v, actor)), Some(envelope)) = (line.row, line.envelope) {
            assert_eq!(seq, state.head().next());
            let envelope = envelope.get().as_bytes();
            state.replay(seq, at, &kind, v, &actor, envelope).expect("it was readable once");
            kinds.insert(kind);
        }
        if let Some(digest) = line.digest {
            let got = BlobHash(state.digest().unwrap());
            assert_eq!(got, digest, "{}: the same log gives another state", path.display());
            checked = true;
        }
    }
    assert!(checked, "{} has no digest", path.display());
    kinds
}

#[test]
fn logs_of_every_release_give_the_same_state_as_then() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let (mut logs, mut kinds) = (0, BTreeSet::new());
    for release in std::fs::read_dir(&dir).unwrap() {
        for log in std::fs::read_dir(release.unwrap().path()).unwrap() {
            kinds.extend(replay(&log.unwrap().path()));
            logs += 1;
        }
    }
    assert!(logs > 0, "there are no golden logs");
    let missing: Vec<_> = Event::KINDS.iter().filter(|(kind, _)| !kinds.contains(*kind)).collect();
    assert!(missing.is_empty(), "no golden log holds {missing:?}");
}
