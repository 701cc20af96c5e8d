//! The protocol by hand, so that an attacker can also say what no client would.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code outside of a test function")]

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::stage::DEADLINE;

/// A connection.
pub(crate) struct Bus {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Bus {
    pub(crate) fn connect(path: &Path) -> io::Result<Bus> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Bus { stream: BufReader::new(stream), next_id: 1 })
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        self.stream.get_ref()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next line; `UnexpectedEof` when the daemon has hung up.
    pub(crate) fn line(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    /// Sends a request and reads its answer; what comes in between is passed over.
    pub(crate) fn request(&mut self, method: &str, params: &Value) -> io::Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        // Who is refused at the door is told so, and perhaps can't write any more.
        let _told = self.write(format!("{line}\n").as_bytes());
        loop {
            let answer = self.line()?;
            let is_refusal =
                answer.get("error").is_some() && answer.get("id") == Some(&Value::Null);
            if answer.get("id") == Some(&json!(id)) || is_refusal {
                return Ok(answer);
            }
        }
    }

    pub(crate) fn hello(&mut self) -> io::Result<Value> {
        self.request("hello", &json!({"version": 1}))
    }

    /// A request that is carried out.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        let answer = self.request(method, params).unwrap_or_else(|e| panic!("{method}: {e}"));
        let result = answer.get("result");
        result.unwrap_or_else(|| panic!("{method} {params}: {answer}")).clone()
    }

    /// The operator's connection.
    pub(crate) fn operator(control: &Path) -> Bus {
        let mut bus = Bus::connect(control).unwrap();
        let answer = bus.hello().unwrap();
        assert!(answer.get("result").is_some(), "the operator is refused: {answer}");
        bus
    }

    /// All events of the log.
    pub(crate) fn events(&mut self) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let since = events.last().and_then(|event| event["seq"].as_u64()).unwrap_or(0);
            let page = self.call("audit.read", &json!({"since": since, "limit": 1000}));
            let new = page["events"].as_array().unwrap();
            events.extend(new.iter().cloned());
            if events.last().is_none_or(|event| event["seq"] == page["head"]) || new.is_empty() {
                return events;
            }
        }
    }

    /// Waits for an event that is there or to come.
    pub(crate) fn event(control: &Path, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut bus = Bus::operator(control);
        let page = bus.call("audit.read", &json!({"kinds": [kind], "follow": true}));
        let mut seen = page["events"].as_array().unwrap().clone();
        loop {
            if let Some(event) = seen.iter().find(|event| fits(event)) {
                return event.clone();
            }
            match bus.line() {
                Ok(line) => seen.push(line["params"].clone()),
                Err(error) => panic!("no such {kind} came ({error}); these did: {seen:?}"),
            }
        }
    }
}

/// The stable code of a refusal.
pub(crate) fn code(answer: &Value) -> &str {
    answer["error"]["data"]["code"].as_str().unwrap_or("")
}
