//! The hub with a real core, real sockets and a log in memory; time is tokio's paused clock.

mod delivery;
mod doors;
mod edges;
mod model;

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::*;
use crate::core::event::{Event, Logged};
use crate::core::fact::Fact;
use crate::core::head::{Caller, Head};
use crate::core::request::{BusRight, Request};
use crate::core::spec::{
    AgentSpec, Limits, MissionSpec, Mode, Permissions, ReadyWhen, RestartSpec, Until,
};
use crate::core::view::{Party, Reply};
use crate::ids::{AgentUid, Seq, Timestamp};
use crate::proto::Call;
use crate::proto::wire::Empty;
use crate::sys::peer::{Peer, PeerError};

/// Agents' peers descend from this process.
const SHIM: ProcessId = ProcessId { pid: 777, start: 7 };
const STRANGER: ProcessId = ProcessId { pid: 999, start: 9 };
const DAEMON: ProcessId = ProcessId { pid: 500, start: 5 };

/// The peers of the tests are all this process; who they are said to be depends on the socket.
fn by_path(stream: &UnixStream) -> Result<Peer, PeerError> {
    let address = stream.local_addr().map_err(PeerError::Socket)?;
    let path = address.as_pathname().unwrap().to_str().unwrap();
    let chain = if path.contains("agents") { vec![SHIM, DAEMON] } else { vec![STRANGER] };
    let uid = nix::unistd::Uid::effective().as_raw();
    Ok(Peer { uid, no_new_privs: path.contains("nnp"), chain })
}

/// A daemon that makes everything durable at once.
pub(super) struct Rig {
    head: Head,
    hub: Hub,
    inputs: Inputs,
    log: Vec<Logged>,
    /// Events up to here were pruned.
    floor: Seq,
    start: Instant,
    directory: tempfile::TempDir,
    arrivals: Vec<String>,
    /// Requests that are never answered.
    hold: bool,
    held: Vec<Inbound>,
}

fn agent(name: &str, role: &str) -> AgentSpec {
    AgentSpec {
        name: name.parse().unwrap(),
        role: role.parse().unwrap(),
        capabilities: Vec::new(),
        mode: Mode::Service,
        level: 1,
        restart: RestartSpec::default(),
        ready: ReadyWhen::Exec,
        start_timeout_ms: 3_600_000,
        wall_ms: None,
        silence_ms: None,
        grace_ms: 1_000,
        autostart: false,
        launch_digest: String::new(),
    }
}

fn private_directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

impl Rig {
    fn new() -> Rig {
        Rig::with(Limits::default(), by_path, None)
    }

    fn with(limits: Limits, identify: listen::Identify, operator_key: Option<PathBuf>) -> Rig {
        let start = Instant::now();
        let clock = Arc::new(move || at(start));
        let forbidden = vec![DAEMON];
        let options = Options { clock, limits, connections: 200, forbidden, operator_key };
        let (hub, inputs) = Hub::with_identity(options, identify);
        let mut rig = Rig {
            head: Head::new(),
            hub,
            inputs,
            log: Vec::new(),
            floor: Seq(0),
            start,
            directory: private_directory(),
            arrivals: Vec::new(),
            hold: false,
            held: Vec::new(),
        };
        rig.hub.set_head(Seq(0));
        let roles = crate::core::spec::builtin_roles();
        let spec = MissionSpec {
            name: "m".parse().unwrap(),
            until: Until::Stopped,
            roles: roles.into_iter().map(|(n, p)| (n.parse().unwrap(), p)).collect(),
            limits,
            agents: vec![agent("a", "lead"), agent("b", "write"), agent("c", "read")],
            tasks: Vec::new(),
        };
        let step = rig.head.fact(rig.now(), Fact::DaemonStarted { last_alive: None });
        rig.log(step.events);
        let step = rig.head.fact(rig.now(), Fact::Configured(Box::new(spec)));
        rig.log(step.events);
        rig.hub.listen_control(&rig.control()).unwrap();
        for name in ["a", "b", "c"] {
            let uid = rig.uid(name);
            rig.hub.listen_agent(uid, &name.parse().unwrap(), &rig.socket(name)).unwrap();
            rig.hub.set_anchor(uid, Anchor::Process(SHIM));
        }
        rig
    }

    fn now(&self) -> Timestamp {
        at(self.start)
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn socket(&self, name: &str) -> PathBuf {
        let agents = self.directory.path().join("agents");
        if !agents.exists() {
            std::fs::create_dir(&agents).unwrap();
        }
        agents.join(name).join("bus.sock")
    }

    fn uid(&self, name: &str) -> AgentUid {
        self.head.state().uid(name).unwrap()
    }

    /// Makes events durable.
    fn log(&mut self, events: Vec<Logged>) {
        self.log.extend(events.iter().cloned());
        let now = self.now();
        self.hub.deliver(now, &events, self.head.state());
    }

    fn request(
        &mut self,
        who: Caller,
        request: Request,
    ) -> Result<Reply, crate::core::denied::Denied> {
        let step = self.head.request(self.now(), &who, None, request);
        self.log(step.events);
        if let Some(ephemeral) = step.ephemeral {
            self.hub.ephemeral(&[ephemeral], self.head.state());
        }
        step.reply.unwrap()
    }

    fn publish(&mut self, from: &str, to: &[&str], content: Value) -> Seq {
        self.publish_as(from, to, "broadcast", content)
    }

    fn publish_as(&mut self, from: &str, to: &[&str], r#type: &str, content: Value) -> Seq {
        let params = json!({"type": r#type, "to": to, "content": content});
        let publish = serde_json::from_value(params).unwrap();
        let uid = self.uid(from);
        let Ok(Reply::Published(published)) =
            self.request(Caller::Agent(uid), Request::Publish(publish))
        else {
            panic!("not published")
        };
        published.seq
    }

    fn take(&mut self, input: Input) {
        let now = self.now();
        match self.hub.take(now, input, self.head.state()) {
            Some(Arrival::Requests(inbound)) if self.hold => self.held.extend(inbound),
            Some(Arrival::Requests(inbound)) => {
                inbound.into_iter().for_each(|inbound| self.carry_out(inbound));
            }
            Some(Arrival::Refused { socket, reason, more, .. }) => {
                self.arrivals.push(format!("refused at {socket}: {reason} (+{more})"));
            }
            Some(Arrival::Disconnected { .. }) => self.arrivals.push("disconnected".to_owned()),
            None => {}
        }
    }

    fn carry_out(&mut self, inbound: Inbound) {
        let Inbound { ticket, who, call, at: now, .. } = inbound;
        let right = match &call {
            Call::Subscribe(_) | Call::Fetch(_) if who != Caller::Operator => BusRight::Receive,
            Call::AuditRead(_) => BusRight::Audit,
            Call::Hello(_)
            | Call::Subscribe(_)
            | Call::Fetch(_)
            | Call::Heartbeat
            | Call::CheckpointSave(_)
            | Call::MissionStop(_)
            | Call::Core(_) => BusRight::Greet,
        };
        if let Err(denied) = self.request(who, Request::Bus(right)) {
            return self.hub.reply::<Empty>(ticket, Err(&denied));
        }
        match call {
            Call::Subscribe(ask) => self.hub.subscribe(now, ticket, ask, self.head.state()),
            Call::Fetch(ask) => self.hub.fetch(now, ticket, ask, self.head.state(), false),
            Call::AuditRead(ask) => self.hub.audit_read(now, ticket, ask),
            Call::Core(Request::Ack(ack)) => {
                let Caller::Agent(uid) = who else { panic!("an agent") };
                match self.request(who, Request::Ack(ack.clone())) {
                    Ok(Reply::Acked(acked)) => {
                        self.hub.acked(now, uid, &ack, self.head.state());
                        self.hub.reply(ticket, Ok(&acked));
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(denied) => self.hub.reply::<Empty>(ticket, Err(&denied)),
                }
            }
            Call::Core(request) => match self.request(who, request) {
                Ok(Reply::Published(reply)) => self.hub.reply(ticket, Ok(&reply)),
                Ok(_) => self.hub.reply(ticket, Ok(&Empty {})),
                Err(denied) => self.hub.reply::<Empty>(ticket, Err(&denied)),
            },
            Call::Hello(hello) => {
                let you = match who {
                    Caller::Operator => Party::Operator,
                    Caller::Agent(uid) => {
                        Party::Agent(self.head.state().name_of(uid).unwrap().clone())
                    }
                };
                let mission = "m".parse().unwrap();
                let reply = hello_reply(&hello, mission, you, Permissions::all(), None);
                self.hub.reply(ticket, reply.as_ref());
            }
            Call::Heartbeat | Call::CheckpointSave(_) | Call::MissionStop(_) => {
                self.hub.reply(ticket, Ok(&Empty {}));
            }
        }
    }

    /// The end of a turn of the loop.
    fn finish_turn(&mut self) {
        let now = self.now();
        self.hub.tick(now, self.head.state());
        for (uid, ack) in self.hub.advances(now) {
            let step = self.head.request(now, &Caller::Agent(uid), None, Request::Ack(ack));
            self.log(step.events);
        }
        let step = self.head.seal(now);
        self.log(step.events);
        loop {
            let reads = self.hub.reads();
            if reads.is_empty() {
                break;
            }
            for read in reads {
                let page = self.read(&read.what);
                self.hub.feed(now, read.id, Ok(page), self.head.state());
            }
        }
        self.hub.flush();
    }

    fn read(&self, what: &ReadWhat) -> LogPage {
        let floor = self.floor;
        let head = self.log.last().map_or(Seq(0), |event| event.seq);
        match what {
            ReadWhat::Seqs(seqs) => {
                let events = self.log.iter().filter(|event| seqs.contains(&event.seq)).cloned();
                LogPage { events: events.collect(), upto: head, floor }
            }
            ReadWhat::From { after, limit, kinds, .. } => {
                let wanted = |event: &&Logged| {
                    event.seq > *after
                        && event.seq > floor
                        && (kinds.is_empty() || kinds.iter().any(|kind| kind == event.kind()))
                };
                let events: Vec<_> = self.log.iter().filter(wanted).take(*limit).cloned().collect();
                let is_cut = events.len() == *limit;
                let last = events.last().map(|event| event.seq).filter(|_| is_cut);
                LogPage { events, upto: last.unwrap_or(head), floor }
            }
        }
    }

    /// Serves the bus until `client` is done.
    async fn serve<F: Future>(&mut self, client: F) -> F::Output {
        let mut client = pin!(client);
        loop {
            self.finish_turn();
            let wait = self.hub.next_deadline().map(|at| at.since_ms(self.now()));
            let deadline = Duration::from_millis(wait.unwrap_or(3_600_000).max(1));
            tokio::select! {
                biased;
                input = self.inputs.next() => self.take(input.unwrap()),
                done = &mut client => return done,
                () = tokio::time::sleep(deadline) => {}
            }
        }
    }

    async fn connect(&mut self, name: &str) -> Raw {
        let path = if name == "control" { self.control() } else { self.socket(name) };
        let mut raw = Raw::connect(&path).await;
        let hello = self.serve(raw.call("hello", json!({"version": 1}))).await;
        assert!(hello["error"].is_null(), "{hello}");
        raw
    }
}

fn at(start: Instant) -> Timestamp {
    let elapsed = i64::try_from(start.elapsed().as_millis()).unwrap();
    Timestamp(1_700_000_000_000 + elapsed)
}

/// A client that shows every line as it is.
pub(super) struct Raw {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    next_id: u64,
    /// Notifications that came while a reply was waited for.
    notifications: std::collections::VecDeque<Value>,
}

impl Raw {
    async fn connect(path: &std::path::Path) -> Raw {
        let (read, write) = UnixStream::connect(path).await.unwrap().into_split();
        Raw { read: BufReader::new(read), write, next_id: 0, notifications: Default::default() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.unwrap();
    }

    async fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.read.read_line(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    async fn ask(&mut self, method: &str, params: Value) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(format!("{request}\n").as_bytes()).await;
        id
    }

    async fn reply(&mut self) -> Value {
        loop {
            let line = self.line().await.expect("the connection is open");
            if line["method"].is_null() {
                return line;
            }
            self.notifications.push_back(line);
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.ask(method, params).await;
        self.reply().await
    }

    async fn result(&mut self, method: &str, params: Value) -> Value {
        let reply = self.call(method, params).await;
        assert!(reply["error"].is_null(), "{reply}");
        reply["result"].clone()
    }

    /// The code of the refusal.
    async fn refusal(&mut self, method: &str, params: Value) -> String {
        let reply = self.call(method, params).await;
        reply["error"]["data"]["code"].as_str().expect("a refusal").to_owned()
    }

    async fn notification(&mut self) -> Value {
        match self.notifications.pop_front() {
            Some(notification) => notification,
            None => self.line().await.expect("the connection is open"),
        }
    }

    /// The next message: its seq, and whether it was delivered before.
    async fn message(&mut self) -> (u64, bool) {
        let notification = self.notification().await;
        assert_eq!(notification["method"], "message", "{notification}");
        let params = &notification["params"];
        let seq = params["message"]["seq"].as_u64().unwrap();
        (seq, params["redelivered"].as_bool().unwrap())
    }
}

/// The seqs of the messages of a reply to `fetch`.
fn seqs(fetched: &Value) -> Vec<u64> {
    let messages = fetched["messages"].as_array().unwrap();
    messages.iter().map(|m| m["message"]["seq"].as_u64().unwrap()).collect()
}

fn is_published(event: &Logged) -> bool {
    matches!(event.event, Event::MessagePublished(_))
}
