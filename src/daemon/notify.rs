//! What the service manager hears (sd_notify(3)): READY, STATUS, STOPPING, and the watchdog's pings.
//!
//! Without `NOTIFY_SOCKET` nothing is sent and nothing is woken for it. The pings come from the main
//! loop itself: a loop that hangs is a daemon that is restarted. The loop never waits for the manager: a
//! word that its socket has no room for is owed, and said with the next one or a second later.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::screen::clean;
use crate::ids::Timestamp;

/// Until what is owed is tried again.
const AGAIN_MS: u64 = 1_000;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    ping_every: Option<u64>,
    next_ping: Option<Timestamp>,
    status: String,
    ready: bool,
    owed: Owed,
    /// When what is owed is tried again.
    again: Option<Timestamp>,
}

/// What is to be said. A later status takes the place of an earlier one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Owed {
    ready: bool,
    status: bool,
    stopping: bool,
}

impl ServiceManager {
    /// Finds it by `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[must_use]
    pub(super) fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name).ok());
        let limit = if socket.is_some() { sd_notify::watchdog_enabled() } else { None };
        // Half of what it allows, as sd_watchdog_enabled(3) advises.
        let every = limit.map(|limit| u64::try_from(limit.as_millis() / 2).unwrap_or(u64::MAX));
        Self::new(socket, every)
    }

    fn new(socket: Option<(UnixDatagram, SocketAddr)>, ping_every: Option<u64>) -> Self {
        ServiceManager {
            socket,
            ping_every,
            next_ping: ping_every.map(|_| Timestamp(0)),
            status: String::new(),
            ready: false,
            owed: Owed::default(),
            again: None,
        }
    }

    /// Whether there is one.
    #[must_use]
    pub(super) fn is_listening(&self) -> bool {
        self.socket.is_some()
    }

    /// When [`ServiceManager::tick`] has something to do: a ping without fail, and what is owed.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        [self.next_ping, self.again].into_iter().flatten().min()
    }

    /// Everything is up. Said once.
    pub(super) fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.owed.ready = true;
            self.say(false);
        }
    }

    /// One line on what it is doing; said only when it changes.
    pub(super) fn status(&mut self, text: String) {
        if text != self.status {
            self.status = text;
            self.owed.status = true;
            self.say(false);
        }
    }

    /// It is about to end.
    pub(super) fn stopping(&mut self) {
        self.owed.stopping = true;
        self.say(false);
    }

    /// Says that the main loop lives, as often as it has to, and what is owed.
    pub(super) fn tick(&mut self, now: Timestamp) {
        let pings = self.next_ping.is_some_and(|at| at <= now);
        if !pings && self.again.is_none_or(|at| at > now) {
            return;
        }
        let said = self.say(pings);
        self.again = if said { None } else { Some(now.plus_ms(AGAIN_MS)) };
        if pings && let Some(every) = self.ping_every {
            self.next_ping = Some(now.plus_ms(if said { every } else { every.min(AGAIN_MS) }));
        }
    }

    /// Says all that there is to say, in one message; false where there was no room for it.
    fn say(&mut self, ping: bool) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        let mut text = String::new();
        for (wanted, line) in [
            (ping, "WATCHDOG=1\n"),
            (self.owed.ready, "READY=1\n"),
            (self.owed.stopping, "STOPPING=1\n"),
        ] {
            if wanted {
                text.push_str(line);
            }
        }
        if self.owed.status {
            // A line of its own, whatever is in it.
            text.push_str(&format!("STATUS={}\n", clean(&self.status)));
        }
        match socket.send_to_addr(text.as_bytes(), address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // With the next turn of the loop, and from then on once in a while.
                self.again.get_or_insert(Timestamp(0));
                false
            }
            // A service manager that is not there is its own trouble: the mission goes on.
            Ok(_) | Err(_) => {
                self.owed = Owed::default();
                true
            }
        }
    }
}

/// A socket that never waits, and where to send; `@NAME` is an abstract address.
fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Manager {
        socket: UnixDatagram,
        _dir: tempfile::TempDir,
    }

    fn manager(ping_every: Option<u64>) -> (Manager, ServiceManager) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let to = connect(path.as_os_str()).unwrap();
        (Manager { socket, _dir: dir }, ServiceManager::new(Some(to), ping_every))
    }

    impl Manager {
        /// What was said, in order.
        fn heard(&self) -> Vec<String> {
            let mut all = Vec::new();
            let mut buffer = [0; 4_096];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
            all
        }
    }

    /// Fills the manager's socket with words that are not looked at.
    fn fill(manager: &mut ServiceManager) {
        let (socket, address) = manager.socket.as_ref().unwrap();
        while socket.send_to_addr(b"X=1\n", address).is_ok() {}
    }

    #[test]
    fn what_there_is_to_say_is_said_once() {
        let (heard, mut manager) = manager(None);
        manager.status("one\nREADY=0".into());
        manager.status("one\nREADY=0".into());
        manager.ready();
        manager.ready();
        manager.stopping();
        assert_eq!(heard.heard(), ["STATUS=one\\nREADY=0\n", "READY=1\n", "STOPPING=1\n"]);
        assert_eq!(manager.next_deadline(), None, "an idle daemon doesn't wake up");
    }

    /// A manager whose socket was full held up the loop, and then its watchdog ended the daemon.
    #[test]
    fn a_manager_that_does_not_listen_holds_up_nothing_and_hears_everything_later() {
        let (heard, mut manager) = manager(Some(10_000));
        fill(&mut manager);
        manager.status("early".into());
        manager.ready();
        manager.status("late".into());
        assert_eq!(manager.next_deadline(), Some(Timestamp(0)));
        manager.tick(Timestamp(50_000));
        assert_eq!(manager.next_deadline(), Some(Timestamp(51_000)));
        assert!(heard.heard().iter().all(|word| word == "X=1\n"));
        manager.tick(Timestamp(50_999));
        assert_eq!(heard.heard(), [""; 0]);
        manager.tick(Timestamp(51_000));
        assert_eq!(heard.heard(), ["WATCHDOG=1\nREADY=1\nSTATUS=late\n"]);
        assert_eq!(manager.next_deadline(), Some(Timestamp(61_000)));
    }

    #[test]
    fn a_manager_that_is_gone_is_not_waited_for() {
        let (heard, mut manager) = manager(Some(10_000));
        drop(heard);
        manager.ready();
        manager.tick(Timestamp(1));
        assert_eq!(manager.next_deadline(), Some(Timestamp(10_001)));
    }
}
