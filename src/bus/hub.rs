//! The hub.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::mpsc;

use super::inbound::{Arrival, Input, Inputs, Ticket};
use super::log::{LogPage, LogRead, ReadId};
use crate::core::denied::Denied;
use crate::core::event::Logged;
use crate::core::head::Ephemeral;
use crate::core::request::Ack;
use crate::core::spec::Limits;
use crate::core::state::State;
use crate::ids::{AgentName, AgentUid, Seq, Timestamp};
use crate::proto::wire::{AuditRead, Fetch, Subscribe};
use crate::sys::peer::ProcessId;

/// What the hub needs to know.
#[derive(Clone)]
pub struct Options {
    /// The daemon's clock, for the time of arrival.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// The mission's bounds.
    pub limits: Limits,
    /// Connections in all, the operator's included.
    pub connections: usize,
    /// Never in an operator's chain of ancestors: the daemon, the launcher.
    pub forbidden: Vec<ProcessId>,
    /// The file that lets an operator in who runs under `no_new_privs` and can show its content.
    pub operator_key: Option<PathBuf>,
}

/// What tells an agent's processes from others: they have this ancestor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// No process: everyone is refused.
    None,
    /// A launch is under way: peers wait a little for its outcome.
    Pending,
    /// The agent's shim (or, in a container, its first process).
    Process(ProcessId),
}

/// A socket that can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// `sun_path` has 108 bytes, one of them for the end (unix(7)).
    #[error("socket path {} has {length} bytes, at most 107 are possible: use a shorter XDG_RUNTIME_DIR or mission name", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// The system's word.
    #[error("listen on {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// See the module.
pub struct Hub {
    options: Options,
    inputs: mpsc::Sender<Input>,
    head: Seq,
}

impl Hub {
    /// A hub without sockets.
    #[must_use]
    pub fn new(options: Options) -> (Hub, Inputs) {
        let (inputs, queue) = mpsc::channel(1024);
        (Hub { options, inputs, head: Seq(0) }, Inputs(queue))
    }

    /// Listens for operators.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen_control(&mut self, _path: &Path) -> Result<(), ListenError> {
        Ok(())
    }

    /// Listens for an agent's processes.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen_agent(
        &mut self,
        _uid: AgentUid,
        _name: &AgentName,
        _path: &Path,
    ) -> Result<(), ListenError> {
        Ok(())
    }

    /// Closes an agent's socket and connections, and forgets its mailboxes.
    pub fn remove_agent(&mut self, _uid: AgentUid) {}

    /// Says what tells the agent's processes from others.
    pub fn set_anchor(&mut self, _uid: AgentUid, _anchor: Anchor) {}

    /// Adds a process that is never in an operator's chain.
    pub fn forbid(&mut self, process: ProcessId) {
        self.options.forbidden.push(process);
    }

    /// Changes the bounds.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.options.limits = *limits;
    }

    /// Takes an input; what the daemon has to deal with comes back.
    pub fn take(&mut self, _now: Timestamp, input: Input, _state: &State) -> Option<Arrival> {
        Some(input.0)
    }

    /// Answers a request.
    pub fn reply<R: Serialize>(&mut self, ticket: Ticket, _result: Result<&R, &Denied>) {
        let _ = ticket.id;
    }

    /// Carries out `subscribe`.
    pub fn subscribe(&mut self, _now: Timestamp, _ticket: Ticket, _ask: Subscribe, _state: &State) {
    }

    /// Carries out `fetch`.
    pub fn fetch(
        &mut self,
        _now: Timestamp,
        _ticket: Ticket,
        _ask: Fetch,
        _state: &State,
        _may_audit: bool,
    ) {
    }

    /// Carries out `audit.read`.
    pub fn audit_read(&mut self, _now: Timestamp, _ticket: Ticket, _ask: AuditRead) {}

    /// Learns of an `ack` that the core has carried out.
    pub fn acked(&mut self, _now: Timestamp, _uid: AgentUid, _ack: &Ack, _state: &State) {}

    /// Learns of events that have just become durable.
    pub fn deliver(&mut self, _now: Timestamp, _events: &[Logged], _state: &State) {}

    /// Hands out a message that is not logged.
    pub fn ephemeral(&mut self, _message: &Ephemeral, _state: &State) {}

    /// Cursors that have moved by themselves, to be told to the core.
    pub fn advances(&mut self, _now: Timestamp) -> Vec<(AgentUid, Ack)> {
        Vec::new()
    }

    /// Parts of the log that somebody waits for; each is asked for once.
    pub fn reads(&mut self) -> Vec<LogRead> {
        Vec::new()
    }

    /// Takes in a part of the log.
    pub fn feed(
        &mut self,
        _now: Timestamp,
        _id: ReadId,
        _page: Result<LogPage, Denied>,
        _state: &State,
    ) {
    }

    /// Does what is due: messages that come again, waits that end.
    pub fn tick(&mut self, _now: Timestamp, _state: &State) {}

    /// When [`Hub::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// Writes what is queued; to be called at the end of each turn of the loop.
    pub fn flush(&mut self) {}

    /// Says where the durable log ends, at the start.
    pub fn set_head(&mut self, head: Seq) {
        self.head = head;
    }

    /// Forgets what was acknowledged but is not: the head was folded again from what is durable.
    pub fn resync(&mut self, _state: &State) {}

    /// When an agent was last heard of.
    #[must_use]
    pub fn heard(&self, _uid: AgentUid) -> Option<Timestamp> {
        None
    }

    /// Whether a message was delivered to an agent's inbox in this run of the daemon.
    #[must_use]
    pub fn is_delivered(&self, _uid: AgentUid, _seq: Seq) -> bool {
        false
    }

    /// Writes what is queued, ends every connection and removes the sockets.
    pub async fn close(self) {
        drop(self.inputs);
    }
}
