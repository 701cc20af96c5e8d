//! A line becomes a request: the envelope is parsed once and borrowed from the line, the parameters go
//! through the table of methods, and whatever is wrong becomes an error that still knows the id.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::content::{self, ContentError, ENVELOPE_DEPTH, MAX_DEPTH};
use super::fault;
use super::method::{Call, Method};
use super::{MAX_LINE, MAX_OUTSTANDING};
use crate::core::denied::{Code, Denied};
use crate::ids::Key;

/// The longest text that serves as an id, in bytes.
const MAX_ID: usize = 128;

/// The id of a request: an integer, or a text of up to 128 bytes. It comes back with the reply.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Id {
    /// An integer.
    Number(i64),
    /// A text.
    Text(Box<str>),
}

impl Id {
    fn parse(raw: &RawValue) -> Option<Id> {
        let text = raw.get();
        if text.starts_with('"') {
            let text: Cow<'_, str> = serde_json::from_str(text).ok()?;
            return (text.len() <= MAX_ID).then(|| Id::Text(text.into()));
        }
        text.parse().ok().map(Id::Number)
    }
}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Id::Number(number) => serializer.serialize_i64(*number),
            Id::Text(text) => serializer.serialize_str(text),
        }
    }
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its id.
    pub id: Id,
    /// The caller's idempotency key.
    pub key: Option<Key>,
    /// Which method.
    pub method: Method,
    /// The method with its parameters.
    pub call: Call,
}

/// A line that is no request, with its id where it could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Rejected {
    /// The request's id.
    pub id: Option<Id>,
    /// What is wrong.
    #[source]
    pub error: FrameError,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_LINE`]; the connection ends.
    #[error("a line is at most {MAX_LINE} bytes: store large content as a file of a checkpoint")]
    TooLong,
    /// The rest of a line did not come in time; the connection ends.
    #[error("half a line and then nothing for {seconds} s: end each request with a newline")]
    Partial {
        /// How long the server waited.
        seconds: u64,
    },
    /// Not UTF-8.
    #[error("invalid UTF-8 at byte {at}")]
    NotUtf8 {
        /// The first byte that is wrong.
        at: usize,
    },
    /// Not JSON.
    #[error("not JSON: {message} at byte {at}")]
    NotJson {
        /// What the parser met.
        message: String,
        /// Where.
        at: usize,
    },
    /// JSON that others can't read.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A list of requests.
    #[error("batches are not supported: send one request a line")]
    Batch,
    /// Not a JSON-RPC 2.0 request.
    #[error("{0}")]
    Envelope(String),
    /// No such method.
    #[error("unknown method `{name}`{}", nearest.map_or(String::new(), |m| format!(": did you mean `{m}`?")))]
    UnknownMethod {
        /// What was asked for.
        name: String,
        /// The nearest that exists.
        nearest: Option<Method>,
    },
    /// The parameters aren't what the method takes.
    #[error("{method}: {message}")]
    Params {
        /// The method.
        method: Method,
        /// Which field, and what is wrong with it.
        message: String,
    },
    /// A key where none is allowed.
    #[error("{method} changes nothing and takes no key")]
    KeyNotTaken {
        /// The method.
        method: Method,
    },
    /// The connection has too many unanswered requests. Only for clients that are told; the server
    /// stops reading instead.
    #[error("more than {MAX_OUTSTANDING} requests are unanswered")]
    Outstanding,
}

impl FrameError {
    /// The number of the error on the wire (JSON-RPC 2.0, section 5.1).
    #[must_use]
    pub fn number(&self) -> i64 {
        match self {
            FrameError::NotUtf8 { .. } | FrameError::NotJson { .. } => -32700,
            FrameError::Content(_)
            | FrameError::Batch
            | FrameError::Envelope(_)
            | FrameError::Partial { .. }
            | FrameError::KeyNotTaken { .. } => -32600,
            FrameError::UnknownMethod { .. } => -32601,
            FrameError::Params { .. } => -32602,
            FrameError::TooLong | FrameError::Outstanding => number_of(Code::Limit),
        }
    }

    /// The error as a refusal.
    #[must_use]
    pub fn denied(&self) -> Denied {
        let code = match self {
            FrameError::TooLong | FrameError::Outstanding => Code::Limit,
            FrameError::Partial { .. } => Code::Timeout,
            FrameError::NotUtf8 { .. }
            | FrameError::NotJson { .. }
            | FrameError::Content(_)
            | FrameError::Batch
            | FrameError::Envelope(_)
            | FrameError::UnknownMethod { .. }
            | FrameError::Params { .. }
            | FrameError::KeyNotTaken { .. } => Code::Invalid,
        };
        Denied::new(code, self.to_string())
    }
}

/// The JSON-RPC number of a code.
#[must_use]
pub fn number_of(code: Code) -> i64 {
    match code {
        Code::Denied => -32001,
        Code::NotFound => -32002,
        Code::Conflict => -32003,
        Code::Stale => -32004,
        Code::Limit => -32005,
        Code::Timeout => -32006,
        Code::Unavailable => -32007,
        Code::Invalid => -32602,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
}

/// The id alone, from an envelope that is wrong otherwise.
#[derive(Deserialize)]
struct IdOnly<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// Parses a line (without its newline, which does no harm).
///
/// # Errors
/// What [`FrameError`] lists, with the id where the line shows one.
pub fn parse(line: &[u8]) -> Result<Frame, Rejected> {
    let anonymous = |error| Rejected { id: None, error };
    if line.len() > MAX_LINE {
        return Err(anonymous(FrameError::TooLong));
    }
    let text = std::str::from_utf8(line)
        .map_err(|error| anonymous(FrameError::NotUtf8 { at: error.valid_up_to() }))?;
    content::scan(text, MAX_DEPTH + ENVELOPE_DEPTH)
        .map_err(|error| Rejected { id: id_of(text), error: error.into() })?;
    let envelope: Envelope<'_> = serde_json::from_str(text)
        .map_err(|error| Rejected { id: id_of(text), error: envelope_error(text, &error) })?;
    let Some(id) = Id::parse(envelope.id) else {
        return Err(anonymous(FrameError::Envelope(format!(
            "an id is an integer or a text of up to {MAX_ID} bytes"
        ))));
    };
    match typed(&envelope) {
        Ok((key, method, call)) => Ok(Frame { id, key, method, call }),
        Err(error) => Err(Rejected { id: Some(id), error }),
    }
}

fn typed(envelope: &Envelope<'_>) -> Result<(Option<Key>, Method, Call), FrameError> {
    if envelope.jsonrpc != "2.0" {
        let message = "the member `jsonrpc` must be \"2.0\"";
        return Err(FrameError::Envelope(message.to_owned()));
    }
    let Some(method) = Method::from_name(&envelope.method) else {
        return Err(FrameError::UnknownMethod {
            name: fault::bounded(&envelope.method.chars().take(80).collect::<String>()),
            nearest: Method::nearest(&envelope.method),
        });
    };
    let key = match &envelope.key {
        Some(_) if !method.takes_key() => return Err(FrameError::KeyNotTaken { method }),
        Some(key) => {
            Some(Key::new(key).map_err(|error| FrameError::Envelope(format!("key: {error}")))?)
        }
        None => None,
    };
    let call = method
        .parse(envelope.params.map_or("{}", RawValue::get))
        .map_err(|message| FrameError::Params { method, message })?;
    Ok((key, method, call))
}

fn id_of(text: &str) -> Option<Id> {
    serde_json::from_str::<IdOnly<'_>>(text).ok()?.id.and_then(Id::parse)
}

fn envelope_error(text: &str, error: &serde_json::Error) -> FrameError {
    if error.is_syntax() || error.is_eof() {
        let message = error.to_string();
        let message = message.rfind(" at line ").map_or(&*message, |end| &message[..end]);
        return FrameError::NotJson { message: message.to_owned(), at: error.column() };
    }
    if text.trim_start().starts_with('[') {
        return FrameError::Batch;
    }
    FrameError::Envelope(fault::describe("request", text, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::request::{MessageType, Request};
    use proptest::prelude::*;

    fn error(line: &str) -> (Option<Id>, i64, String) {
        let rejected = parse(line.as_bytes()).unwrap_err();
        (rejected.id, rejected.error.number(), rejected.error.to_string())
    }

    #[test]
    fn a_request_is_parsed_with_its_content_untouched() {
        let line = br#"{"jsonrpc":"2.0","id":"a-1","method":"publish","key":"k","params":{"type":"custom.x","content":{"b": [1, 2.50], "a":1}}}"#;
        let frame = parse(line).unwrap();
        assert_eq!(frame.id, Id::Text("a-1".into()));
        assert_eq!(frame.key.unwrap().as_str(), "k");
        let Call::Core(Request::Publish(publish)) = frame.call else { panic!("a publish") };
        assert_eq!(publish.r#type, "custom.x".parse::<MessageType>().unwrap());
        assert_eq!(publish.content.get(), r#"{"b": [1, 2.50], "a":1}"#);
    }

    #[test]
    fn params_may_be_left_out_and_the_order_of_members_is_free() {
        let frame = parse(b"{\"method\":\"agent.list\",\"id\":-7,\"jsonrpc\":\"2.0\"}\r").unwrap();
        assert_eq!((frame.id, frame.method), (Id::Number(-7), Method::AgentList));
    }

    #[test]
    fn errors_are_typed_numbered_and_carry_the_id() {
        let seven = Some(Id::Number(7));
        let cases = [
            ("{", None, -32700, "not JSON: EOF while parsing an object at byte 1"),
            (r#"{"id":7}x"#, None, -32600, "request: missing field `jsonrpc`"),
            (r#"[{"id":7}]"#, None, -32600, "batches are not supported: send one request a line"),
            (
                r#"{"id":7,"jsonrpc":"2.0"}"#,
                seven.clone(),
                -32600,
                "request: missing field `method`",
            ),
            (r#"{"jsonrpc":"2.0","method":"hello"}"#, None, -32600, "request: missing field `id`"),
            (
                r#"{"jsonrpc":"1.0","id":7,"method":"hello"}"#,
                seven.clone(),
                -32600,
                "the member `jsonrpc` must be \"2.0\"",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1.5,"method":"hello"}"#,
                None,
                -32600,
                "an id is an integer or a text of up to 128 bytes",
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"hello","from":"lead"}"#,
                seven.clone(),
                -32600,
                "request.from: unknown field `from`, expected one of `jsonrpc`, `id`, `method`, `params`, `key`",
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"task.asign"}"#,
                seven.clone(),
                -32601,
                "unknown method `task.asign`: did you mean `task.assign`?",
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"agent.list","key":"k"}"#,
                seven.clone(),
                -32600,
                "agent.list changes nothing and takes no key",
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"task.get","params":[1]}"#,
                seven.clone(),
                -32602,
                "task.get: params: must be an object",
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"task.get","params":{"task":7}}"#,
                seven,
                -32602,
                "task.get: params.task: invalid type: integer `7`, expected a string",
            ),
        ];
        for (line, id, number, message) in cases {
            let (got_id, got_number, got_message) = error(line);
            if line.ends_with('x') {
                // Trailing characters or the missing member: either is a fair answer.
                assert!(got_number == -32600 || got_number == -32700, "{got_message}");
                continue;
            }
            assert_eq!((got_id, got_number, &*got_message), (id, number, message), "{line}");
        }
    }

    #[test]
    fn deep_content_bad_escapes_and_infinite_numbers_are_refused_with_the_id() {
        let publish = |content: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":7,"method":"publish","params":{{"type":"alert","content":{content}}}}}"#
            )
        };
        let deep = |n: usize| publish(&format!("{}{}", "[".repeat(n), "]".repeat(n)));
        assert!(parse(deep(64).as_bytes()).is_ok());
        for bad in [deep(65), publish(r#""\ud800""#), publish("1e999")] {
            let (id, number, _) = error(&bad);
            assert_eq!((id, number), (Some(Id::Number(7)), -32600), "{bad}");
        }
        // Too deep even for the parser: no id, but an answer and no overflow of the stack.
        assert_eq!(error(&deep(400_000)).1, -32600);
    }

    #[test]
    fn a_line_of_more_than_a_mebibyte_is_refused_before_it_is_read() {
        let line = vec![b'['; MAX_LINE + 1];
        assert_eq!(parse(&line).unwrap_err().error, FrameError::TooLong);
        assert_eq!(parse(b"\xff{}").unwrap_err().error, FrameError::NotUtf8 { at: 0 });
    }

    fn jsonish() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            Just("{".to_owned()),
            Just("}".to_owned()),
            Just("[".to_owned()),
            Just("]".to_owned()),
            Just(":".to_owned()),
            Just(",".to_owned()),
            Just("\"jsonrpc\":\"2.0\"".to_owned()),
            Just("\"id\":7".to_owned()),
            Just("\"params\":".to_owned()),
            Just("\"content\":".to_owned()),
            Just("\"key\":\"k\"".to_owned()),
            (0usize..35)
                .prop_map(|i| { format!("\"method\":\"{}\"", Method::all().nth(i).unwrap()) }),
            "\"[a-z\\\\u0-9d]{0,8}\"",
            "[0-9.eE+-]{1,6}",
            any::<String>(),
        ];
        proptest::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }

        #[test]
        fn nothing_that_looks_like_json_makes_the_parser_panic(line in jsonish()) {
            if let Err(rejected) = parse(line.as_bytes()) {
                prop_assert!(rejected.error.to_string().len() < 4096);
            }
        }

        #[test]
        fn a_damaged_request_never_panics(at in 0usize..120, byte in any::<u8>()) {
            let mut line = br#"{"jsonrpc":"2.0","id":7,"method":"task.update","key":"k","params":{"task":"t-1","epoch":3,"note":"\u00e9","progress":5}}"#.to_vec();
            let at = at % line.len();
            line[at] = byte;
            let _ = parse(&line);
            line.truncate(at);
            let _ = parse(&line);
        }
    }
}
