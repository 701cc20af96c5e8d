//! What the service manager hears (sd_notify(3)): READY, STATUS, STOPPING, and the watchdog's pings.
//!
//! Without `NOTIFY_SOCKET` nothing is sent and nothing is woken for it. The pings come from the main
//! loop itself: a loop that hangs is a daemon that is restarted.

use sd_notify::NotifyState;

use crate::ids::Timestamp;

/// The service manager, if there is one.
#[derive(Debug)]
pub(super) struct ServiceManager {
    listening: bool,
    ping_every: Option<u64>,
    next_ping: Option<Timestamp>,
    status: String,
    ready: bool,
}

impl ServiceManager {
    /// Finds it by `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[must_use]
    pub(super) fn from_environment() -> Self {
        let listening = std::env::var_os("NOTIFY_SOCKET").is_some();
        let limit = if listening { sd_notify::watchdog_enabled() } else { None };
        // Half of what it allows, as sd_watchdog_enabled(3) advises.
        ServiceManager {
            listening,
            ping_every: limit.map(|limit| u64::try_from(limit.as_millis() / 2).unwrap_or(u64::MAX)),
            next_ping: limit.map(|_| Timestamp(0)),
            status: String::new(),
            ready: false,
        }
    }

    /// Whether there is one.
    #[must_use]
    pub(super) fn is_listening(&self) -> bool {
        self.listening
    }

    /// When the next ping is due; none without a watchdog.
    pub(super) fn next_ping(&self) -> Option<Timestamp> {
        self.next_ping
    }

    /// Everything is up. Said once.
    pub(super) fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.send(&[NotifyState::Ready]);
        }
    }

    /// One line on what it is doing; said only when it changes.
    pub(super) fn status(&mut self, text: String) {
        if text != self.status {
            self.status = text;
            self.send(&[NotifyState::Status(&self.status)]);
        }
    }

    /// It is about to end.
    pub(super) fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// Says that the main loop lives, as often as it has to.
    pub(super) fn ping_if_due(&mut self, now: Timestamp) {
        if let Some(every) = self.ping_every
            && self.next_ping.is_none_or(|at| at <= now)
        {
            self.send(&[NotifyState::Watchdog]);
            self.next_ping = Some(now.plus_ms(every));
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if self.listening {
            // A service manager that does not listen is its own trouble: the mission goes on.
            let _unheard = sd_notify::notify(states);
        }
    }
}
