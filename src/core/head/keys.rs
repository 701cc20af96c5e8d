//! Idempotency keys: the same key with the same request is carried out once and answered the same.

use sha2::Digest;

use super::Caller;
use crate::core::denied::{Code, Denied};
use crate::core::event::{KeptReply, KeyUsed};
use crate::core::json::Json;
use crate::core::request::Request;
use crate::core::state::State;
use crate::core::view::Reply;
use crate::ids::{AgentUid, BlobHash, Key, Timestamp};

/// What is known of a key.
pub(super) enum Found {
    /// It was used for this very request, with this answer.
    Again(Reply),
    /// It is new; to be kept with the answer.
    New(Used),
}

/// A key on its way into the log.
pub(super) struct Used {
    agent: Option<AgentUid>,
    method: &'static str,
    key: Key,
    digest: BlobHash,
}

/// Looks a key up in the scope (caller, method).
pub(super) fn look_up(
    state: &State,
    now: Timestamp,
    who: Caller,
    key: &Key,
    request: &Request,
) -> Result<Found, Denied> {
    crate::core::permission::check_caller(state, who)?;
    let agent = match who {
        Caller::Operator => None,
        Caller::Agent(uid) => Some(uid),
    };
    let method = request.method();
    let unusable = |_| Denied::new(Code::Invalid, "the parameters have no JSON form");
    let params = request.params_json().map_err(unusable)?;
    let digest = BlobHash(sha2::Sha256::digest(params).into());
    let scope = state.keys.get(&agent.unwrap_or_default());
    let record = scope.and_then(|keys| keys.by_key.get(method)).and_then(|keys| keys.get(key));
    match record.filter(|record| record.at.plus_ms(state.limits.key_ttl_ms) > now) {
        None => Ok(Found::New(Used { agent, method, key: key.clone(), digest })),
        Some(record) if record.digest == digest => Ok(Found::Again(thaw(&record.reply)?)),
        Some(_) => {
            let text = format!("{method}: key `{key}` was used with other parameters");
            Err(Denied::new(Code::Conflict, text))
        }
    }
}

/// The event that keeps a key; none for a reply that is not kept.
pub(super) fn used(used: Used, reply: &Reply) -> Option<KeyUsed> {
    let Used { agent, method, key, digest } = used;
    let reply = freeze(reply)?;
    Some(KeyUsed { agent, method: method.to_owned(), key, digest, reply })
}

fn freeze(reply: &Reply) -> Option<KeptReply> {
    let (kind, view) = match reply {
        Reply::Done => ("done", Json::of(&())),
        Reply::Published(view) => ("published", Json::of(view)),
        Reply::Acked(view) => ("acked", Json::of(view)),
        Reply::Task(view) => ("task", Json::of(view)),
        Reply::Checkpoint(view) => ("checkpoint", Json::of(view)),
        Reply::Handoff(view) => ("handoff", Json::of(view)),
        Reply::Agent(view) => ("agent", Json::of(view)),
        Reply::Mission(view) => ("mission", Json::of(view)),
        // Only reads answer with lists, and reads have no keys.
        Reply::Tasks(_) | Reply::Handoffs(_) | Reply::Agents(_) => return None,
    };
    Some(KeptReply { kind: kind.to_owned(), view: view.ok()? })
}

fn thaw(kept: &KeptReply) -> Result<Reply, Denied> {
    let view = kept.view.get();
    let reply = match kept.kind.as_str() {
        "done" => Ok(Reply::Done),
        "published" => serde_json::from_str(view).map(Reply::Published),
        "acked" => serde_json::from_str(view).map(Reply::Acked),
        "task" => serde_json::from_str(view).map(Reply::Task),
        "checkpoint" => serde_json::from_str(view).map(Reply::Checkpoint),
        "handoff" => serde_json::from_str(view).map(Reply::Handoff),
        "agent" => serde_json::from_str(view).map(Reply::Agent),
        _ => serde_json::from_str(view).map(Reply::Mission),
    };
    reply.map_err(|_| Denied::new(Code::Unavailable, "the kept answer can't be read any more"))
}
