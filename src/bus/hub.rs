//! The hub as the daemon's loop sees it: sockets, connections, answers. Messages are in `delivery`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::conn::{Conn, ConnId, written};
use super::follow::Follower;
use super::inbound::{Arrival, Input, Inputs, Kind, Ticket};
use super::listen::{Anchor, Door, Identify, ListenError, Listening, Shared, by_kernel, listen};
use super::log::LogRead;
use super::mailbox::Mailbox;
use super::quota::Owner;
use super::reader::Clock;
use super::reads::{Dirty, MailboxId, Reads};
use super::recent::Recent;
use crate::core::denied::{Code, Denied};
use crate::core::head::Caller;
use crate::core::spec::Limits;
use crate::core::state::State;
use crate::ids::{AgentName, AgentUid, Seq, SubscriptionName, Timestamp};
use crate::sys::peer::ProcessId;

/// Inputs that wait for the loop; then the connections wait.
const INPUTS: usize = 1_024;

/// Connections of operators at one time.
const OPERATOR_CONNECTIONS: u32 = 128;

/// How long closing waits for peers to read their last answers.
const CLOSING: Duration = Duration::from_secs(2);

/// What the hub needs to know.
#[derive(Clone)]
pub struct Options {
    /// The daemon's clock, for the time of arrival.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// The mission's bounds.
    pub limits: Limits,
    /// Connections in all, the operator's included; 32 are kept free of agents.
    pub connections: usize,
    /// Never in an operator's chain of ancestors: the daemon, the launcher.
    pub forbidden: Vec<ProcessId>,
    /// The file that lets an operator in who runs under `no_new_privs` and can show its content.
    pub operator_key: Option<PathBuf>,
}

/// An agent, as far as the bus knows it.
pub(super) struct AgentDoor {
    pub(super) owner: Arc<Owner>,
    anchor: watch::Sender<Anchor>,
    _listening: Listening,
    pub(super) mailboxes: BTreeMap<SubscriptionName, MailboxId>,
}

/// A connection, as far as the hub knows it.
pub(super) struct Link {
    pub(super) conn: Arc<Conn>,
    /// What it consumes or waits on.
    pub(super) mailboxes: BTreeSet<MailboxId>,
}

/// See the module.
pub struct Hub {
    shared: Arc<Shared>,
    operators: Arc<Owner>,
    control: Option<Listening>,
    forbidden: Vec<ProcessId>,
    pub(super) limits: Limits,
    pub(super) agents: BTreeMap<AgentUid, AgentDoor>,
    pub(super) links: HashMap<ConnId, Link>,
    pub(super) followers: BTreeMap<ConnId, Follower>,
    pub(super) mailboxes: BTreeMap<MailboxId, Mailbox>,
    pub(super) next_mailbox: u64,
    /// Mailboxes without a cursor, by connection.
    pub(super) tails: BTreeMap<ConnId, MailboxId>,
    /// Mailboxes by their next deadline.
    pub(super) due: BTreeSet<(Timestamp, MailboxId)>,
    /// Ticks since the daemon last took [`Hub::advances`].
    pub(super) ticks: u32,
    pub(super) dirty: Dirty,
    pub(super) reads: Reads,
    pub(super) recent: Recent,
    /// The last durable event.
    pub(super) head: Seq,
}

impl Hub {
    /// A hub without sockets. To be called in a tokio runtime.
    #[must_use]
    pub fn new(options: Options) -> (Hub, Inputs) {
        Self::with_identity(options, by_kernel)
    }

    /// A hub that asks somebody else who its peers are.
    pub(super) fn with_identity(options: Options, identify: Identify) -> (Hub, Inputs) {
        let (inputs, queue) = mpsc::channel(INPUTS);
        let Options { clock, limits, connections, forbidden, operator_key } = options;
        let shared = Shared::new(inputs, clock, identify, operator_key, connections);
        let hub = Hub {
            shared,
            operators: Owner::new(Caller::Operator, None, OPERATOR_CONNECTIONS),
            control: None,
            forbidden,
            limits,
            agents: BTreeMap::new(),
            links: HashMap::new(),
            followers: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            next_mailbox: 0,
            tails: BTreeMap::new(),
            due: BTreeSet::new(),
            ticks: 0,
            dirty: Dirty::default(),
            reads: Reads::default(),
            recent: Recent::default(),
            head: Seq(0),
        };
        hub.tell_of_mission();
        (hub, Inputs(queue))
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Listens for operators. The caller holds the mission's lock: a socket file that is there is a
    /// dead daemon's.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen_control(&mut self, path: &Path) -> Result<(), ListenError> {
        let owner = Arc::clone(&self.operators);
        self.control = Some(listen(path, Door::Control, owner, Arc::clone(&self.shared))?);
        Ok(())
    }

    /// Listens for an agent's processes, in a directory of its own; the mission's lock is held.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen_agent(
        &mut self,
        uid: AgentUid,
        name: &AgentName,
        path: &Path,
    ) -> Result<(), ListenError> {
        let rate = Some(self.limits.requests_per_second);
        let owner = Owner::new(Caller::Agent(uid), rate, self.limits.connections);
        let (anchor, receiver) = watch::channel(Anchor::None);
        let door = Door::Agent { name: name.as_str().to_owned(), anchor: receiver };
        let listening = listen(path, door, Arc::clone(&owner), Arc::clone(&self.shared))?;
        let mailboxes = BTreeMap::new();
        self.agents.insert(uid, AgentDoor { owner, anchor, _listening: listening, mailboxes });
        Ok(())
    }

    /// Closes an agent's socket and connections, and forgets its mailboxes.
    pub fn remove_agent(&mut self, uid: AgentUid) {
        let Some(agent) = self.agents.remove(&uid) else { return };
        for id in agent.mailboxes.values() {
            self.forget_mailbox(*id);
        }
        let denied = Denied::new(Code::Denied, "the agent was removed from the mission");
        let theirs = self.links.values().filter(|link| link.conn.owner.who == Caller::Agent(uid));
        for link in theirs {
            link.conn.refuse(None, &denied);
            link.conn.hang_up();
        }
        self.tell_of_mission();
    }

    /// Says what tells the agent's processes from others. A new anchor concerns new connections.
    pub fn set_anchor(&mut self, uid: AgentUid, anchor: Anchor) {
        if let Some(agent) = self.agents.get(&uid) {
            agent.anchor.send_replace(anchor);
        }
        self.tell_of_mission();
    }

    /// Adds a process that is never in an operator's chain.
    pub fn forbid(&mut self, process: ProcessId) {
        self.forbidden.push(process);
        self.tell_of_mission();
    }

    fn tell_of_mission(&self) {
        let anchors = self.agents.values().filter_map(|agent| match *agent.anchor.borrow() {
            Anchor::Process(process) => Some(process),
            Anchor::None | Anchor::Pending => None,
        });
        let of_mission = self.forbidden.iter().copied().chain(anchors).collect();
        *self.shared.of_mission.lock().unwrap_or_else(PoisonError::into_inner) = of_mission;
    }

    /// Changes the bounds.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.limits = *limits;
        for agent in self.agents.values() {
            agent.owner.set_limits(limits.requests_per_second, limits.connections);
        }
    }

    /// Takes an input; what the daemon has to deal with comes back.
    pub fn take(&mut self, now: Timestamp, input: Input, state: &State) -> Option<Arrival> {
        match input.0 {
            Kind::Opened(conn) => {
                self.links.insert(conn.id, Link { conn, mailboxes: BTreeSet::new() });
                None
            }
            Kind::Requests(inbound) => Some(Arrival::Requests(inbound)),
            Kind::Room(conn) => {
                self.has_room(now, conn, state);
                None
            }
            Kind::Closed(conn) => {
                let who = self.links.get(&conn).map(|link| link.conn.owner.who)?;
                self.disconnected(now, conn, state);
                Some(Arrival::Disconnected { conn, who })
            }
            Kind::Refused { socket, pid, reason, more } => {
                Some(Arrival::Refused { socket, pid, reason, more })
            }
        }
    }

    /// Answers a request. It is written with the next [`Hub::flush`].
    pub fn reply<R: Serialize>(&mut self, ticket: Ticket, result: Result<&R, &Denied>) {
        self.dirty.answer(ticket, result);
    }

    /// Answers a request with a refusal.
    pub(super) fn refuse(&mut self, ticket: Ticket, code: Code, message: impl Into<String>) {
        self.dirty.answer::<()>(ticket, Err(&Denied::new(code, message)));
    }

    /// Parts of the log that somebody waits for; each is asked for once.
    pub fn reads(&mut self) -> Vec<LogRead> {
        std::mem::take(&mut self.reads.asked)
    }

    /// Writes what is queued; to be called at the end of each turn of the loop.
    pub fn flush(&mut self) {
        self.dirty.flush();
    }

    /// Says where the durable log ends, at the start.
    pub fn set_head(&mut self, head: Seq) {
        self.head = head;
        self.recent.begin(head);
    }

    /// When an agent was last heard of: any request counts.
    #[must_use]
    pub fn heard(&self, uid: AgentUid) -> Option<Timestamp> {
        self.agents.get(&uid)?.owner.heard()
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.links.len()
    }

    /// Closes the sockets, writes what is queued (for two seconds at most), then ends every
    /// connection. Not cancel-safe: a cancelled close leaves connections to their tasks.
    pub async fn close(mut self) {
        self.control = None;
        self.agents.clear();
        self.mailboxes.clear();
        self.flush();
        let deadline = Instant::now() + CLOSING;
        for link in self.links.values() {
            let _ = timeout_at(deadline, written(&link.conn)).await;
            link.conn.outbox.close();
        }
    }
}
