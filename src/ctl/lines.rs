//! How messages and events look as lines of a stream. Pure: views in, text out.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::out::Look;
use super::pretty;
use crate::ids::{AgentName, AgentUid, Timestamp};
use crate::proto::json::Json;
use crate::proto::view::{AgentView, MessageView};
use crate::proto::wire::EventView;
use crate::table::{Paint, width};

/// What a message says, for people: a JSON string as its text, anything else as JSON on one line.
fn content(look: &Look, json: &Json) -> String {
    match serde_json::from_str::<String>(json.get()) {
        Ok(text) => look.text(&text),
        Err(_) => look.json(json),
    }
}

/// A message on one line; `mark` says what is special about it (`again`, `ephemeral`).
pub(crate) fn message(look: &Look, message: &MessageView, mark: &str) -> String {
    let time = look.clock().time_of_day(message.at);
    let id = message.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let to = match message.to.as_slice() {
        [] => "all".to_owned(),
        names => names.iter().map(AgentName::as_str).collect::<Vec<_>>().join(","),
    };
    let mut about = format!("{} -> {to}  {}", message.from, look.text(&message.r#type.to_string()));
    if let Some(task) = &message.task {
        about.push_str(&format!("  task={task}"));
    }
    if let Some(reply_to) = message.reply_to {
        about.push_str(&format!("  re={reply_to}"));
    }
    if !mark.is_empty() {
        about.push_str(&format!("  ({mark})"));
    }
    let used = width(&time) + width(&id) + width(&about) + 6;
    format!(
        "{}  {}  {about}  {}\n",
        look.paint(&time, Paint::Dim),
        look.paint(&id, Paint::Bold),
        look.fit(&content(look, &message.content), used),
    )
}

/// The mark of a message that is not in the log.
pub(crate) const EPHEMERAL: &str = "ephemeral";

/// The names of agents by uid: events name agents by uid, for a name may be given again.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<u64, AgentName>);

#[derive(Deserialize)]
struct Added {
    spec: AddedSpec,
}

#[derive(Deserialize)]
struct AddedSpec {
    name: AgentName,
}

impl Names {
    /// Those of a list of agents.
    pub(crate) fn of(agents: &[AgentView]) -> Self {
        Names(agents.iter().map(|agent| (agent.uid.0, agent.name.clone())).collect())
    }

    /// Takes note of an agent that an event adds.
    pub(crate) fn learn(&mut self, event: &EventView) {
        if event.kind == "agent_added"
            && let Ok(added) = serde_json::from_str::<Added>(event.data.get())
        {
            self.0.insert(event.seq.0, added.spec.name);
        }
    }

    /// The name of an agent, or its number.
    pub(crate) fn get(&self, uid: AgentUid) -> String {
        self.0.get(&uid.0).map_or_else(|| format!("uid:{uid}"), ToString::to_string)
    }
}

/// The fields of events that hold an agent's uid.
const UIDS: [&str; 5] = ["agent", "to", "from", "by", "reserved"];

/// The fields of events that hold a time; an agent that waits does so until then.
const TIMES: [&str; 4] = ["until", "deadline", "wall", "waiting"];

/// What an event holds, field by field on one line: `task=t-1 to=writer claimed=true`.
fn fields(look: &Look, kind: &str, data: &Json, names: &Names) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(data.get()) else {
        return look.json(data);
    };
    let mut parts = Vec::new();
    for (key, value) in &fields {
        // A digest is for programs; the answer that a key stands for is the event before it again.
        let is_noise = key == "digest" || (kind == "key_used" && key == "reply");
        if is_noise || matches!(value, Value::Null | Value::Bool(false)) {
            continue;
        }
        let shown = match value.as_array() {
            Some(list) if key == "to" => addressees(list),
            Some(_) | None => plain(look, key, value, names, false),
        };
        let quote = shown.is_empty() || shown.contains(char::is_whitespace);
        let shown = if quote { format!("\"{}\"", shown.replace('"', "\\\"")) } else { shown };
        parts.push(format!("{}={}", look.text(key), look.text(&shown)));
    }
    parts.join(" ")
}

/// A value in words and not in JSON: `exited:3`, `task:t-1,handoff:h-9`, `a,b`.
fn plain(look: &Look, key: &str, value: &Value, names: &Names, is_nested: bool) -> String {
    match value {
        Value::Number(at) if TIMES.contains(&key) => {
            at.as_i64().map_or_else(|| at.to_string(), |at| look.clock().time_of_day(Timestamp(at)))
        }
        Value::Number(uid) if UIDS.contains(&key) => {
            uid.as_u64().map_or_else(|| uid.to_string(), |uid| names.get(AgentUid(uid)))
        }
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) => {
            let items = list.iter().map(|item| plain(look, key, item, names, true));
            let items = items.collect::<Vec<_>>().join(",");
            if is_nested { format!("[{items}]") } else { items }
        }
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| format!("{key}:{}", plain(look, key, value, names, true)));
            let fields = fields.collect::<Vec<_>>().join(",");
            if is_nested { format!("{{{fields}}}") } else { fields }
        }
    }
}

/// Addressees stand as `[uid, name]` in the log.
fn addressees(list: &[Value]) -> String {
    let names = list.iter().filter_map(|pair| pair.get(1)?.as_str());
    names.collect::<Vec<_>>().join(",")
}

fn kind_paint(kind: &str) -> Paint {
    match kind {
        "task_completed" | "handoff_completed" | "agent_ready" => Paint::Green,
        "task_failed" | "request_denied" | "peer_refused" | "alert_raised" | "messages_dead" => {
            Paint::Red
        }
        "handoff_ended" | "task_cancelled" | "task_requeued" | "agent_ended" => Paint::Yellow,
        _ => Paint::Plain,
    }
}

/// An event on one line.
pub(crate) fn event(look: &Look, event: &EventView, names: &Names) -> String {
    let time = look.clock().time_of_day(event.at);
    let seq = format!("{:>6}", event.seq.0);
    let actor = event.actor.to_string();
    let kind = look.text(&event.kind);
    let mut text = fields(look, &event.kind, &event.data, names);
    if let Some(content) = &event.content {
        text.push_str(&format!(" {}", look.text(&pretty::compact(content.get()))));
    }
    let used = width(&time) + width(&seq) + width(&actor) + width(&kind) + 8;
    format!(
        "{}  {}  {}  {actor}  {}\n",
        look.paint(&time, Paint::Dim),
        look.paint(&seq, Paint::Bold),
        look.paint(&kind, kind_paint(&event.kind)),
        look.fit(text.trim_start(), used),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::time::Clock;

    fn shown(kind: &str, data: &str) -> String {
        let clock = Clock { now: Timestamp(0), zone: jiff::tz::TimeZone::UTC };
        let names = Names([(3, AgentName::new("writer").unwrap())].into());
        fields(&Look::at(clock), kind, &Json::parse(data).unwrap(), &names)
    }

    #[test]
    fn what_an_event_holds_is_said_in_words_and_not_in_quoted_json() {
        let ended = r#"{"agent":3,"incarnation":2,"exit":{"exited":3},"run":{"task":"t-1","handoff":null},
            "next":{"waiting":3723000}}"#;
        assert_eq!(
            shown("agent_ended", ended),
            "agent=writer exit=exited:3 incarnation=2 next=waiting:01:02:03.000 run=task:t-1"
        );
        let given_up = r#"{"agent":3,"next":{"failed":"it ended \"too\" often"}}"#;
        assert_eq!(
            shown("agent_ended", given_up),
            r#"agent=writer next="failed:it ended \"too\" often""#
        );
        let nested = r#"{"spec":{"needs":["a","b"],"in":{"to":3}},"caps":["x","y"]}"#;
        assert_eq!(shown("x", nested), "caps=x,y spec=in:{to:writer},needs:[a,b]");
    }
}
