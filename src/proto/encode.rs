//! What goes out, and how a client reads it. A frame is encoded once into bytes with its newline; the
//! same bytes go to every reader.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::frame::{Id, Rejected, number_of};
use super::method::Method;
use super::wire::{Delivery, EventView, Lagged};
use crate::core::denied::{Code, Denied};
use crate::core::view::MessageView;
use crate::ids::{Key, SubscriptionName};

/// A frame that can't be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A value of ours has no JSON form.
    #[error("encode a frame")]
    Encode(#[source] serde_json::Error),
    /// The other side sent something that is no frame.
    #[error("decode a frame of the server")]
    Decode(#[source] serde_json::Error),
}

#[derive(Serialize)]
struct RequestFrame<'a, P> {
    jsonrpc: &'static str,
    id: u64,
    method: &'static str,
    params: &'a P,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a Key>,
}

#[derive(Serialize)]
struct ErrorFrame<'a> {
    jsonrpc: &'static str,
    id: Option<&'a Id>,
    error: ErrorBody<'a>,
}

#[derive(Serialize, Deserialize)]
struct ErrorBody<'a> {
    code: i64,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<ErrorData<'a>>,
}

#[derive(Serialize, Deserialize)]
struct ErrorData<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
}

/// A notification `message` up to its subscription.
const DELIVERY: &str = r#"{"jsonrpc":"2.0","method":"message","params":{"subscription":"#;

#[derive(Serialize)]
struct NotificationFrame<'a, P> {
    jsonrpc: &'static str,
    method: &'static str,
    params: &'a P,
}

fn line<T: Serialize>(frame: &T, capacity: usize) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(capacity);
    append(&mut bytes, frame)?;
    Ok(bytes)
}

fn append<T: Serialize>(bytes: &mut Vec<u8>, frame: &T) -> Result<(), CodecError> {
    put(bytes, "", frame)?;
    bytes.push(b'\n');
    Ok(())
}

/// Appends a text that is JSON up to a value, and the value. What goes out most is put together this
/// way: the frame around it is the same each time.
fn put<T: Serialize + ?Sized>(
    bytes: &mut Vec<u8>,
    before: &str,
    value: &T,
) -> Result<(), CodecError> {
    bytes.extend_from_slice(before.as_bytes());
    serde_json::to_writer(bytes, value).map_err(CodecError::Encode)
}

/// Appends a line as a whole or not at all.
fn whole(
    bytes: &mut Vec<u8>,
    append: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let before = bytes.len();
    append(bytes).inspect_err(|_| bytes.truncate(before))
}

/// A client's request.
///
/// # Errors
/// The parameters have no JSON form.
pub fn request<P: Serialize>(
    id: u64,
    method: Method,
    params: &P,
    key: Option<&Key>,
) -> Result<Vec<u8>, CodecError> {
    line(&RequestFrame { jsonrpc: "2.0", id, method: method.name(), params, key }, 256)
}

/// The reply to a request that was carried out.
///
/// # Errors
/// The result has no JSON form.
pub fn reply<R: Serialize>(id: &Id, result: &R) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(128);
    put(&mut bytes, "{\"jsonrpc\":\"2.0\",\"id\":", id)?;
    put(&mut bytes, ",\"result\":", result)?;
    bytes.extend_from_slice(b"}\n");
    Ok(bytes)
}

/// The reply to a request that was refused.
///
/// # Errors
/// None in practice: the parts are texts and numbers.
pub fn refusal(id: Option<&Id>, denied: &Denied) -> Result<Vec<u8>, CodecError> {
    error(id, number_of(denied.code), denied)
}

/// The reply to a line that is no request.
///
/// # Errors
/// None in practice: the parts are texts and numbers.
pub fn rejection(rejected: &Rejected) -> Result<Vec<u8>, CodecError> {
    error(rejected.id.as_ref(), rejected.error.number(), &rejected.error.denied())
}

fn error(id: Option<&Id>, code: i64, denied: &Denied) -> Result<Vec<u8>, CodecError> {
    let data = Some(ErrorData { code: denied.code.as_str().into() });
    let body = ErrorBody { code, message: (&*denied.message).into(), data };
    line(&ErrorFrame { jsonrpc: "2.0", id, error: body }, 256)
}

/// The notification `message`.
///
/// # Errors
/// None in practice: the content is JSON already.
pub fn message(
    subscription: &SubscriptionName,
    message: &MessageView,
    redelivered: bool,
    ephemeral: bool,
) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(256 + message.content.len());
    append_message(&mut bytes, subscription, message, redelivered, ephemeral)?;
    Ok(bytes)
}

/// The notification `message`, after what is in a buffer already.
///
/// # Errors
/// None in practice: the content is JSON already.
pub fn append_message(
    bytes: &mut Vec<u8>,
    subscription: &SubscriptionName,
    message: &MessageView,
    redelivered: bool,
    ephemeral: bool,
) -> Result<(), CodecError> {
    whole(bytes, |bytes| {
        put(bytes, DELIVERY, subscription)?;
        put(bytes, ",\"message\":", message)?;
        put(bytes, ",\"redelivered\":", &redelivered)?;
        put(bytes, ",\"ephemeral\":", &ephemeral)?;
        bytes.extend_from_slice(b"}}\n");
        Ok(())
    })
}

/// The notification `event`.
///
/// # Errors
/// None in practice: the content is JSON already.
pub fn event(event: &EventView) -> Result<Vec<u8>, CodecError> {
    line(&NotificationFrame { jsonrpc: "2.0", method: "event", params: event }, 512)
}

/// The notification `lagged`.
///
/// # Errors
/// None in practice: the parts are numbers.
pub fn lagged(lagged: &Lagged) -> Result<Vec<u8>, CodecError> {
    line(&NotificationFrame { jsonrpc: "2.0", method: "lagged", params: lagged }, 128)
}

/// What the server sends without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A message of a subscription.
    Message(Box<Delivery>),
    /// An event of the log that is followed.
    Event(Box<EventView>),
    /// The log no longer has what the subscription would need next.
    Lagged(Lagged),
}

/// A line from the server.
#[derive(Debug)]
pub enum Incoming {
    /// The answer to the request with this id; without an id, the server's word before it hangs up.
    Reply {
        /// The request's id.
        id: Option<u64>,
        /// The result as JSON, or the refusal.
        result: Result<Box<RawValue>, Denied>,
    },
    /// A notification.
    Notification(Notification),
    /// A notification of a newer server.
    Unknown,
}

#[derive(Deserialize)]
struct IncomingFrame<'a> {
    #[serde(default)]
    id: Option<u64>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<ErrorBody<'a>>,
}

impl Incoming {
    /// Decodes a line of the server; unknown members are ignored.
    ///
    /// # Errors
    /// The line is no frame of this protocol.
    pub fn decode(line: &[u8]) -> Result<Self, CodecError> {
        let frame: IncomingFrame<'_> = serde_json::from_slice(line).map_err(CodecError::Decode)?;
        if let Some(method) = frame.method {
            let params = frame.params.map_or("{}", RawValue::get);
            let notification = match &*method {
                "message" => {
                    serde_json::from_str(params).map(|d| Notification::Message(Box::new(d)))
                }
                "event" => serde_json::from_str(params).map(|e| Notification::Event(Box::new(e))),
                "lagged" => serde_json::from_str(params).map(Notification::Lagged),
                _ => return Ok(Incoming::Unknown),
            };
            return notification.map(Incoming::Notification).map_err(CodecError::Decode);
        }
        let result = match frame.error {
            Some(body) => Err(body.into_denied()),
            None => Ok(frame.result.map_or_else(Box::<RawValue>::default, ToOwned::to_owned)),
        };
        Ok(Incoming::Reply { id: frame.id, result })
    }
}

impl ErrorBody<'_> {
    /// A code of a newer server counts as `unavailable`: trying again later is the safe reading.
    fn into_denied(self) -> Denied {
        let named = self.data.and_then(|data| {
            let name =
                serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&data.code);
            Code::deserialize(name).ok()
        });
        Denied::new(named.unwrap_or(Code::Unavailable), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Call, FrameError, parse, wire};

    fn text(bytes: Result<Vec<u8>, CodecError>) -> String {
        String::from_utf8(bytes.unwrap()).unwrap()
    }

    #[test]
    fn frames_look_like_this() {
        let id = Id::Text("é\n".into());
        assert_eq!(
            text(reply(&id, &wire::Subscribed { position: crate::ids::Seq(3) })),
            "{\"jsonrpc\":\"2.0\",\"id\":\"é\\n\",\"result\":{\"position\":3}}\n"
        );
        assert_eq!(
            text(refusal(Some(&Id::Number(7)), &Denied::new(Code::Stale, "epoch 3 is over"))),
            "{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{\"code\":-32004,\"message\":\"epoch 3 is over\",\"data\":{\"code\":\"stale\"}}}\n"
        );
        assert_eq!(
            text(rejection(&Rejected { id: None, error: FrameError::NotUtf8 { at: 4 } })),
            "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"invalid UTF-8 at byte 4\",\"data\":{\"code\":\"invalid\"}}}\n"
        );
    }

    #[test]
    fn a_delivery_that_is_put_together_by_hand_is_what_a_client_reads() {
        let full = r#"{"id":"m-7","seq":7,"type":"custom.x","from":"a","to":["b"],"at":9,"task":"t-1","reply_to":"m-3","content":{"k":"\"~"}}"#;
        let bare =
            r#"{"seq":0,"type":"broadcast","from":"operator","to":[],"at":-1,"content":null}"#;
        for (view, redelivered, ephemeral) in [(full, true, false), (bare, false, true)] {
            let message: MessageView = serde_json::from_str(view).unwrap();
            let subscription: SubscriptionName = "inbox".parse().unwrap();
            let mut line = b"before\n".to_vec();
            append_message(&mut line, &subscription, &message, redelivered, ephemeral).unwrap();
            let line = line.strip_prefix(b"before\n").unwrap();
            assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            let Ok(Incoming::Notification(Notification::Message(got))) = Incoming::decode(line)
            else {
                panic!("{}", String::from_utf8_lossy(line))
            };
            let expected = wire::Delivery { subscription, message, redelivered, ephemeral };
            assert_eq!(*got, expected);
            let whole = NotificationFrame { jsonrpc: "2.0", method: "message", params: &expected };
            assert_eq!(text(super::line(&whole, 0)).as_bytes(), line);
        }
    }

    #[test]
    fn a_clients_request_is_what_the_server_parses() {
        let key = Key::new("k1").unwrap();
        let params = wire::SaveCheckpoint {
            task: "t".parse().unwrap(),
            epoch: crate::ids::Epoch(4),
            json: None,
            files: vec!["a/b".to_owned()],
        };
        let line = request(9, Method::CheckpointSave, &params, Some(&key)).unwrap();
        let frame = parse(&line).unwrap();
        assert_eq!((frame.id, frame.key), (Id::Number(9), Some(key)));
        assert_eq!(frame.call, Call::CheckpointSave(params));
    }

    #[test]
    fn a_client_ignores_what_it_does_not_know() {
        let newer = br#"{"jsonrpc":"2.0","method":"weather","params":{},"x":1}"#;
        assert!(matches!(Incoming::decode(newer), Ok(Incoming::Unknown)));
        let lagged = br#"{"jsonrpc":"2.0","method":"lagged","params":{"from":1,"to":2,"why":"?"}}"#;
        let Ok(Incoming::Notification(Notification::Lagged(lagged))) = Incoming::decode(lagged)
        else {
            panic!("lagged")
        };
        assert_eq!((lagged.from.0, lagged.to.0), (1, 2));
        let error =
            br#"{"jsonrpc":"2.0","id":3,"error":{"code":-1,"message":"m","data":{"code":"new"}}}"#;
        let Ok(Incoming::Reply { id: Some(3), result: Err(denied) }) = Incoming::decode(error)
        else {
            panic!("a refusal")
        };
        assert_eq!(denied, Denied::new(Code::Unavailable, "m"));
    }

    #[test]
    fn every_code_survives_the_wire() {
        use Code::{Conflict, Invalid, Limit, NotFound, Stale, Timeout, Unavailable};
        for code in [Code::Denied, NotFound, Conflict, Stale, Limit, Invalid, Timeout, Unavailable]
        {
            let line = refusal(Some(&Id::Number(1)), &Denied::new(code, "x")).unwrap();
            let Ok(Incoming::Reply { result: Err(denied), .. }) = Incoming::decode(&line) else {
                panic!("a refusal")
            };
            assert_eq!(denied.code, code);
        }
    }
}
