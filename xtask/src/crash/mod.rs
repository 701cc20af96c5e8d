//! `cargo xtask crash --rounds N`: kills the daemon with SIGKILL at random moments under load and holds
//! it to what it had acknowledged.
//!
//! Three services and one task-mode agent; the services are this program again (`agent`). Everyone
//! keeps a journal of what was confirmed to them. After each restart the log must hold all of it, once
//! ([`verify`]), and no process may be left of the killed daemon ([`rig`]).

mod agent;
mod journal;
mod rig;
mod verify;

use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use missiond::client::{Client, ClientError};
use missiond::ids::{Key, Seq};
use missiond::proto::view::{HandoffView, MissionView, Published, TaskView};
use missiond::proto::wire::{AuditPage, AuditRead, Empty};
use missiond::proto::{Method, Notification};
use serde_json::{Value, json};

use journal::{Entry, Journal};
use rig::{Daemon, Rig};
use verify::{Journals, Log};

/// The agents that speak.
const SERVICES: [&str; 3] = ["ann", "bob", "cyd"];
/// Messages of the operator: publish no more; answer when all before is dealt with.
const QUIET: &str = "custom.quiet";
const LAST: &str = "custom.last";

/// Why the test has failed.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    fn new(what: impl Into<String>) -> Failure {
        Failure(what.into())
    }
}
impl From<&str> for Failure {
    fn from(what: &str) -> Failure {
        Failure::new(what)
    }
}
impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure::new(what)
    }
}
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::new(error.to_string())
    }
}
impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        Failure::new(error.to_string())
    }
}
impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::new(error.to_string())
    }
}

/// What is asked for on the command line.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often the daemon is killed.
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Of the moments of the kills; random without.
    #[arg(long)]
    seed: Option<u64>,
    /// Test the optimised build.
    #[arg(long)]
    release: bool,
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The agents' program.
pub(crate) fn agent() -> io::Result<bool> {
    match runtime()?.block_on(agent::run()) {
        Ok(()) => Ok(true),
        Err(failure) => {
            writeln!(io::stderr(), "{failure}")?;
            Ok(false)
        }
    }
}

/// Runs the test; true if all went well.
pub(crate) fn run(root: &Path, options: &Options) -> io::Result<bool> {
    let random = || std::hash::RandomState::new().build_hasher().finish();
    let seed = options.seed.unwrap_or_else(random);
    let mut out = io::stdout();
    writeln!(out, "crash: {} rounds, seed {seed}", options.rounds)?;
    let outcome = test(root, options, seed);
    match &outcome {
        Ok(summary) => writeln!(out, "{summary}")?,
        Err(failure) => writeln!(out, "crash: FAILED (--seed {seed}): {failure}")?,
    }
    Ok(outcome.is_ok())
}

fn test(root: &Path, options: &Options, seed: u64) -> Result<String, Failure> {
    let profile: &[&str] = if options.release { &["--release"] } else { &[] };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--package", "missiond", "--bins"])
        .args(profile)
        .status()?;
    if !built.success() {
        return Err("the build failed".into());
    }
    let exe = std::env::current_exe()?;
    let target = exe.parent().and_then(Path::parent).ok_or("no target directory")?;
    let programs = target.join(if options.release { "release" } else { "debug" });
    missiond::sys::process::become_subreaper()?;
    let rig = Rig::new(&programs)?;
    let outcome = runtime()?.block_on(rounds(&rig, options.rounds, &mut Random(seed)));
    match &outcome {
        Ok(_) => std::fs::remove_dir_all(&rig.root)?,
        Err(_) => writeln!(io::stdout(), "everything is left in {}", rig.root.display())?,
    }
    outcome
}

async fn rounds(rig: &Rig, rounds: u32, random: &mut Random) -> Result<String, Failure> {
    let mut parties = SERVICES.to_vec();
    parties.push("operator");
    let mut log = Log::default();
    let mut journals = Journals::new(&rig.path("ws"), &parties);
    let mut journal = Journal::open(&rig.path("ws/operator.jsonl"))?;
    let mut load = Load { number: 0, unanswered: Vec::new() };
    let (mut slowest, mut early) = (Duration::ZERO, 0);
    for round in 1..=rounds {
        let mut daemon = rig.start()?;
        // Now and then it doesn't even come up.
        if random.below(8) == 0 {
            let span = Duration::from_millis(random.below(150));
            early += u32::from(tokio::time::timeout(span, daemon.up()).await.is_err());
            slowest = slowest.max(daemon.kill()?);
            journals.collect()?;
            continue;
        }
        daemon.up().await?;
        let (client, notifications) = Client::connect(&rig.socket()).await?;
        read_on(&client, &mut log, &mut journals).await?;
        let span = Duration::from_millis(20 + random.below(400));
        // Ends by the clock, or when the daemon has something to say against it.
        if let Ok(ended) = tokio::time::timeout(span, load.run(&client, &mut journal)).await {
            ended?;
        }
        slowest = slowest.max(daemon.kill()?);
        journals.collect()?;
        drop((client, notifications));
        if round % 20 == 0 {
            writeln!(
                io::stdout(),
                "round {round}: {} events, {} confirmations",
                log.head(),
                journals.confirmed
            )?;
        }
    }
    let daemon = finish(rig, &mut log, &mut journals, &mut load, &mut journal).await?;
    daemon.ended()?;
    journals.collect()?;
    journals.check(&log)?;
    journals.check_arrivals(&log)?;
    let (completed, asked) = log.handoffs();
    Ok(format!(
        "crash: {rounds} kills ({early} while starting): {} confirmations, {} messages, {} tasks completed, \
         {completed} of {asked} handoffs completed, {} events: nothing is missing, nothing is there \
         twice; processes gone within {slowest:?}",
        journals.confirmed,
        log.messages(),
        log.completed(),
        log.head(),
    ))
}

async fn page(client: &Client, since: Option<Seq>) -> Result<AuditPage, Failure> {
    let ask = AuditRead { since, limit: Some(1_000), kinds: Vec::new(), follow: false };
    Ok(client.call(Method::AuditRead, &ask).await?)
}

/// Reads the log to where it is now, and checks all former lives against it.
async fn read_on(client: &Client, log: &mut Log, journals: &mut Journals) -> Result<(), Failure> {
    let status: MissionView = client.call(Method::MissionStatus, &Empty {}).await?;
    while log.head() < status.head.0 {
        let read = page(client, verify::after(log)).await?;
        if read.events.is_empty() {
            return Err(format!("the log ends at {}, not {}", log.head(), status.head).into());
        }
        for view in read.events.iter().filter(|view| view.seq <= status.head) {
            log.take(view)?;
        }
    }
    log.compare(&status)?;
    journals.check(log)
}

/// The operator's part of the load.
struct Load {
    number: u64,
    unanswered: Vec<(Method, Value, Key)>,
}

impl Load {
    /// Creates tasks and asks for handoffs, one after the other, first again what was not answered.
    async fn run(&mut self, client: &Client, journal: &mut Journal) -> Result<(), Failure> {
        while let Some((method, params, key)) = self.unanswered.first().cloned() {
            if !ask(client, journal, method, &params, &key).await? {
                return Ok(());
            }
            self.unanswered.remove(0);
        }
        loop {
            self.number += 1;
            let number = self.number;
            let parties = [SERVICES[0], SERVICES[1], SERVICES[2], "batch"];
            let at = usize::try_from(number).unwrap_or(0);
            let (from, to) = (parties[at % 4], parties[(at / 2 + at + 1) % 4]);
            let id = format!("t{number}");
            let create =
                json!({ "id": id, "title": "load", "assign": from, "data": { "n": number } });
            self.send(client, journal, Method::TaskCreate, create, format!("create-{number}"))
                .await?;
            if from != to && from != "batch" {
                let request = json!({ "from": from, "to": to, "task": id });
                let key = format!("handoff-{number}");
                self.send(client, journal, Method::HandoffRequest, request, key).await?;
            }
        }
    }

    async fn send(
        &mut self,
        client: &Client,
        journal: &mut Journal,
        method: Method,
        params: Value,
        key: String,
    ) -> Result<(), Failure> {
        let key = Key::new(&key).map_err(|error| Failure::new(error.to_string()))?;
        // Until it is answered it is to be asked for again, also when this wait is cut short.
        self.unanswered.push((method, params.clone(), key.clone()));
        if ask(client, journal, method, &params, &key).await? {
            self.unanswered.pop();
        }
        Ok(())
    }
}

/// False if nobody knows whether it was carried out.
async fn ask(
    client: &Client,
    journal: &mut Journal,
    method: Method,
    params: &Value,
    key: &Key,
) -> Result<bool, Failure> {
    let entry = if method == Method::TaskCreate {
        let view: Result<TaskView, _> = client.call_with_key(method, params, Some(key)).await;
        view.map(|view| Entry::Created { task: view.id.to_string() })
    } else {
        let view: Result<HandoffView, _> = client.call_with_key(method, params, Some(key)).await;
        view.map(|view| Entry::Requested { handoff: view.id.to_string() })
    };
    match entry {
        Ok(entry) => journal.write(&entry)?,
        // Too late for a handoff: an answer, too.
        Err(ClientError::Refused(_)) => {}
        Err(_) => return Ok(false),
    }
    Ok(true)
}

/// To all: a broadcast finds room however full an inbox is.
async fn publish(client: &Client, kind: &str) -> Result<(), Failure> {
    let params = json!({ "type": kind, "content": {} });
    let _: Published = client.call(Method::Publish, &params).await?;
    Ok(())
}

/// The end: no more load; everything that waits comes to its end; everything has arrived; all is again
/// as it was first read; the mission stops.
async fn finish(
    rig: &Rig,
    log: &mut Log,
    journals: &mut Journals,
    load: &mut Load,
    journal: &mut Journal,
) -> Result<Daemon, Failure> {
    let mut daemon = rig.start()?;
    daemon.up().await?;
    let (client, mut notifications) = Client::connect(&rig.socket()).await?;
    while let Some((method, params, key)) = load.unanswered.pop() {
        if !ask(&client, journal, method, &params, &key).await? {
            return Err("the daemon does not answer".into());
        }
    }
    publish(&client, QUIET).await?;
    let rest = async {
        let ask = AuditRead {
            since: verify::after(log),
            limit: Some(1),
            kinds: Vec::new(),
            follow: true,
        };
        let read: AuditPage = client.call(Method::AuditRead, &ask).await?;
        for view in &read.events {
            log.take(view)?;
        }
        let caught_up = read.head.0;
        let mut byes = 0;
        let mut asked = false;
        loop {
            if !asked && log.head() >= caught_up && log.open_tasks().is_empty() {
                asked = true;
                publish(&client, LAST).await?;
            }
            if byes == SERVICES.len() {
                return Ok(());
            }
            let Some(Notification::Event(view)) = notifications.next().await else {
                return Err(Failure::new("the log is not followed any more"));
            };
            log.take(&view)?;
            let bye = view.kind == "message_published" && view.data.get().contains("custom.bye");
            byes += usize::from(bye);
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(120), rest).await;
    match done {
        Ok(done) => done?,
        Err(_) => return Err(format!("tasks {:?} never end", log.open_tasks()).into()),
    }
    read_on(&client, log, journals).await?;
    let mut since = None;
    while let Some(last) = check_page(&client, since, log).await? {
        since = Some(last);
    }
    stop(&client).await?;
    Ok(daemon)
}

async fn check_page(
    client: &Client,
    since: Option<Seq>,
    log: &Log,
) -> Result<Option<Seq>, Failure> {
    let read = page(client, since).await?;
    for view in &read.events {
        log.again(view)?;
    }
    Ok(read.events.last().map(|view| view.seq))
}

async fn stop(client: &Client) -> Result<(), Failure> {
    let within = Duration::from_secs(60);
    let _: Value = client.call_within(Method::MissionStop, &json!({}), None, within).await?;
    Ok(())
}
