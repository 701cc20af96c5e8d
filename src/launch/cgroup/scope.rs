//! Asks the user's systemd for a scope: a control group of our own, delegated to us.
//!
//! A process that was started from a terminal stands in the group of its session, which belongs to
//! root. The user's service manager may make groups, and moves us into one when we ask for a transient
//! scope (org.freedesktop.systemd1(5), `StartTransientUnit`). This is all of D-Bus that it takes: a
//! handful of calls, one signal, no introspection, no names of our own. Each wait has the same deadline.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use crate::sys::clock;

/// How long systemd may take for all of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest message that is read, bytes; what is answered here has a few hundred.
const MAX_MESSAGE: usize = 1 << 20;

/// Why there is no scope.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// Nobody is there to be asked.
    #[error(
        "no message bus of the user: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR name one"
    )]
    NoBus,
    /// The bus doesn't talk to us.
    #[error("cannot talk to the user's message bus")]
    Bus(#[source] io::Error),
    /// systemd has refused.
    #[error("systemd gives no scope: {0}")]
    Refused(String),
    /// The job that makes it came to another end than `done`.
    #[error("systemd could not make the scope: {0}")]
    Job(String),
}

/// Moves this process into a new scope of the user's systemd, with its control group delegated. When
/// this returns we are there. The scope goes with its last process.
///
/// # Errors
/// See [`ScopeError`]; then we are where we were.
pub(super) fn request(unit: &str, description: &str) -> Result<(), ScopeError> {
    let mut bus = Bus::connect()?;
    bus.call(BUS, "Hello", "", &Body::default())?;
    let rule = "type='signal',sender='org.freedesktop.systemd1',member='JobRemoved',\
                interface='org.freedesktop.systemd1.Manager'";
    // Before the job can be over.
    bus.call(BUS, "AddMatch", "s", Body::default().string(rule))?;
    bus.call(MANAGER, "Subscribe", "", &Body::default())?;
    let mut body = Body::default();
    body.string(unit).string("fail").array(8, |properties| {
        properties.property("Description", "s", |body| body.string(description));
        properties.property("Delegate", "b", |body| body.number(1));
        // Nothing is left of it, also if it failed.
        properties.property("CollectMode", "s", |body| body.string("inactive-or-failed"));
        properties.property("PIDs", "au", |body| {
            body.array(4, |pids| {
                pids.number(std::process::id());
            })
        });
    });
    body.array(8, |_auxiliary| {});
    let job = bus.call(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", &body)?;
    let job = job.reader().string().map_err(ScopeError::Bus)?;
    loop {
        let message = bus.read().map_err(ScopeError::Bus)?;
        if message.kind != SIGNAL || message.member.as_deref() != Some("JobRemoved") {
            continue;
        }
        // u id, o job, s unit, s result
        let mut body = message.reader();
        let mut ended =
            || Ok::<_, io::Error>((body.number()?, body.string()?, body.string()?, body.string()?));
        let (_, ended, _, result) = ended().map_err(ScopeError::Bus)?;
        if ended == job {
            return if result == "done" { Ok(()) } else { Err(ScopeError::Job(result)) };
        }
    }
}

/// Whom a call is for: name, path, interface.
type Target = (&'static str, &'static str, &'static str);

const BUS: Target = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");
const MANAGER: Target =
    ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");

/// The kinds of messages (D-Bus Specification, "Message Format").
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
/// Nobody is started for us.
const NO_AUTO_START: u8 = 2;
/// Of this machine; peers on the same one send the same.
const ENDIAN: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

/// A connection to the user's message bus.
struct Bus {
    stream: BufReader<UnixStream>,
    deadline: Duration,
    serial: u32,
}

impl Bus {
    fn connect() -> Result<Bus, ScopeError> {
        let address = address(
            std::env::var("DBUS_SESSION_BUS_ADDRESS").ok().as_deref(),
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        )
        .ok_or(ScopeError::NoBus)?;
        let stream = UnixStream::connect_addr(&address).map_err(ScopeError::Bus)?;
        let deadline = clock::since_boot() + PATIENCE;
        let mut bus = Bus { stream: BufReader::new(stream), deadline, serial: 0 };
        bus.authenticate().map_err(ScopeError::Bus)?;
        Ok(bus)
    }

    /// The kernel tells the bus who we are; we only have to say that it should look.
    fn authenticate(&mut self) -> io::Result<()> {
        self.wait_at_most()?;
        let uid = nix::unistd::geteuid().to_string();
        let uid: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        write!(self.stream.get_mut(), "\0AUTH EXTERNAL {uid}\r\n")?;
        let mut line = String::new();
        self.stream.by_ref().take(4096).read_line(&mut line)?;
        if !line.starts_with("OK ") {
            return Err(io::Error::other(format!("it says `{}`", line.trim_end())));
        }
        self.stream.get_mut().write_all(b"BEGIN\r\n")
    }

    fn wait_at_most(&self) -> io::Result<()> {
        let left = self.deadline.saturating_sub(clock::since_boot());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.get_ref().set_read_timeout(Some(left))?;
        self.stream.get_ref().set_write_timeout(Some(left))
    }

    /// Calls, and waits for the answer.
    fn call(
        &mut self,
        target: Target,
        member: &str,
        signature: &str,
        body: &Body,
    ) -> Result<Message, ScopeError> {
        self.serial += 1;
        let serial = self.serial;
        let message = encode(serial, target, member, signature, body);
        self.wait_at_most().map_err(ScopeError::Bus)?;
        self.stream.get_mut().write_all(&message).map_err(ScopeError::Bus)?;
        loop {
            let message = self.read().map_err(ScopeError::Bus)?;
            if message.answers != Some(serial) {
                continue;
            }
            if message.kind == ERROR {
                let text = message.reader().string().unwrap_or_default();
                return Err(ScopeError::Refused(if text.is_empty() {
                    message.error
                } else {
                    text
                }));
            }
            return Ok(message);
        }
    }

    fn read(&mut self) -> io::Result<Message> {
        self.wait_at_most()?;
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let number = |at: usize| {
            let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes) as usize
        };
        let (body, fields) = (number(4), number(12));
        let padded = fields.next_multiple_of(8);
        let length = padded.saturating_add(body);
        if head.first() != Some(&ENDIAN) || length > MAX_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut rest = vec![0; length];
        self.stream.read_exact(&mut rest)?;
        let kind = head.get(1).copied().unwrap_or(0);
        Message::decode(kind, rest.get(..fields).unwrap_or(&[]), rest.get(padded..).unwrap_or(&[]))
    }
}

/// Where the bus is: the first Unix socket that the address names, or the one at its usual place.
fn address(named: Option<&str>, runtime: Option<PathBuf>) -> Option<SocketAddr> {
    for transport in named.unwrap_or("").split(';') {
        let Some(keys) = transport.strip_prefix("unix:") else { continue };
        for key in keys.split(',') {
            if let Some(path) = key.strip_prefix("path=") {
                return SocketAddr::from_pathname(path).ok();
            }
            if let Some(name) = key.strip_prefix("abstract=") {
                return SocketAddr::from_abstract_name(name).ok();
            }
        }
    }
    let path = runtime?.join("bus");
    path.exists().then(|| SocketAddr::from_pathname(path).ok()).flatten()
}

/// A call as it is sent.
fn encode(serial: u32, target: Target, member: &str, signature: &str, body: &Body) -> Vec<u8> {
    let (destination, path, interface) = target;
    let mut fields = Body::default();
    let mut field = |code: u8, kind: &str, value: &str| {
        fields.align(8);
        fields.0.push(code);
        fields.signature(kind);
        if kind == "g" {
            fields.signature(value)
        } else {
            fields.string(value)
        };
    };
    field(1, "o", path);
    field(2, "s", interface);
    field(3, "s", member);
    field(6, "s", destination);
    if !signature.is_empty() {
        field(8, "g", signature);
    }
    let mut message = Body(vec![ENDIAN, CALL, NO_AUTO_START, 1]);
    message.length(body.0.len()).number(serial).length(fields.0.len());
    message.0.extend_from_slice(&fields.0);
    message.align(8);
    message.0.extend_from_slice(&body.0);
    message.0
}

/// Values in the wire format; each is aligned to its size, counted from the beginning.
#[derive(Debug, Default)]
struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, value: u32) -> &mut Body {
        self.align(4);
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Of something that we wrote: small.
    fn length(&mut self, value: usize) -> &mut Body {
        self.number(u32::try_from(value).unwrap_or(u32::MAX))
    }

    fn string(&mut self, text: &str) -> &mut Body {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self
    }

    fn signature(&mut self, text: &str) -> &mut Body {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self
    }

    /// An array of elements with this alignment, written by `elements`.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Body)) -> &mut Body {
        self.number(0);
        let at = self.0.len();
        self.align(alignment);
        let begin = self.0.len();
        elements(self);
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(at - 4..at) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        self
    }

    /// A `(sv)`.
    fn property(&mut self, name: &str, kind: &str, value: impl FnOnce(&mut Body) -> &mut Body) {
        self.align(8);
        self.string(name).signature(kind);
        value(self);
    }
}

/// A message, as far as it is looked at.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    answers: Option<u32>,
    member: Option<String>,
    error: String,
    body: Vec<u8>,
}

impl Message {
    fn decode(kind: u8, fields: &[u8], body: &[u8]) -> io::Result<Message> {
        let mut message = Message { kind, body: body.to_vec(), ..Message::default() };
        // The array begins at byte 16 of the message: what is aligned there is aligned here.
        let mut reader = Reader { bytes: fields, at: 0 };
        while reader.at < fields.len() {
            reader.align(8);
            let code = reader.byte()?;
            let signature = reader.signature()?;
            match (code, signature.as_str()) {
                (3, "s") => message.member = Some(reader.string()?),
                (4, "s") => message.error = reader.string()?,
                (5, "u") => message.answers = Some(reader.number()?),
                (_, "s" | "o") => drop(reader.string()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.number()?),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        if matches!(kind, CALL | RETURN | ERROR | SIGNAL) {
            Ok(message)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }
}

/// Reads what [`Body`] writes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> io::Result<&[u8]> {
        let end = self.at.saturating_add(length);
        let taken = self.bytes.get(self.at..end).ok_or(io::ErrorKind::InvalidData)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.take(1)?.first().copied().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn number(&mut self) -> io::Result<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.byte()?;
        Ok(text)
    }

    fn string(&mut self) -> io::Result<String> {
        let length = self.number()?;
        self.text(length as usize)
    }

    fn signature(&mut self) -> io::Result<String> {
        let length = self.byte()?;
        self.text(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_is_where_the_address_says_or_at_its_usual_place() {
        let shown = |named: Option<&str>, runtime: Option<PathBuf>| {
            address(named, runtime).and_then(|at| at.as_pathname().map(ToOwned::to_owned))
        };
        let named = "tcp:host=x;unix:guid=1,path=/run/user/1/bus;unix:path=/other";
        assert_eq!(shown(Some(named), None), Some("/run/user/1/bus".into()));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(shown(None, Some(dir.path().to_owned())), None);
        std::fs::write(dir.path().join("bus"), "").unwrap();
        assert_eq!(shown(Some(""), Some(dir.path().to_owned())), Some(dir.path().join("bus")));
        let name = address(Some("unix:abstract=/tmp/dbus-x"), None).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"/tmp/dbus-x"[..]));
    }

    /// Compared with what `busctl --user call` sends.
    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        if ENDIAN != b'l' {
            return;
        }
        let mut body = Body::default();
        body.string("ab").array(8, |list| {
            list.property("P", "b", |body| body.number(1));
        });
        let target = ("d", "/o", "i");
        let message = encode(7, target, "M", "sa(sv)", &body);
        let fields: &[&[u8]] = &[
            b"\x01\x01o\0\x02\0\0\0/o\0\0\0\0\0\0",
            b"\x02\x01s\0\x01\0\0\0i\0\0\0\0\0\0\0",
            b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0",
            b"\x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0",
            b"\x08\x01g\0\x06sa(sv)\0",
        ];
        let fields = fields.concat();
        let mut wanted = b"l\x01\x02\x01\x20\0\0\0\x07\0\0\0".to_vec();
        wanted.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
        wanted.extend(&fields);
        wanted.resize(wanted.len().next_multiple_of(8), 0);
        wanted.extend(b"\x02\0\0\0ab\0\0\x10\0\0\0\0\0\0\0");
        wanted.extend(b"\x01\0\0\0P\0\x01b\0\0\0\0\x01\0\0\0");
        assert_eq!(message, wanted);
    }

    #[test]
    fn nonsense_from_the_bus_is_an_error() {
        assert!(Message::decode(RETURN, b"\x05\x01u\0\x07\0\0\0", b"").is_ok());
        for fields in
            [&b"\x05\x01u\0\x07"[..], b"\x05\x01v\0\x07\0\0\0", b"\x03\x01s\0\xff\xff\xff\xffM\0"]
        {
            assert!(Message::decode(RETURN, fields, b"").is_err(), "{fields:?}");
        }
        assert!(Message::decode(9, b"", b"").is_err());
    }
}
