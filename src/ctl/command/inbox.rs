//! `inbox` and `ack`: a shell script as an agent.
//!
//! Nothing here acknowledges a message before it has been dealt with, unless it is asked to: `inbox`
//! only looks, `--follow` waits for somebody's `ack`, `--each` acknowledges when its command succeeded.

use std::ffi::OsString;
use std::time::Duration;

use tokio::time::timeout;

use super::super::Context;
use super::super::child::{self, Ended};
use super::super::error::CtlError;
use super::super::input::Position;
use super::super::out::read;
use super::super::session::{CALL, Session};
use super::super::time::{duration, millis};
use super::messages::{items, show};
use super::tail;
use crate::ids::{Seq, SubscriptionName};
use crate::proto::request::{Ack as AckParams, MessageType};
use crate::proto::view::Acked;
use crate::proto::wire::{Delivery, Empty, Fetch, Fetched, MAX_AUDIT, MAX_WAIT_MS, Subscribe};
use crate::proto::{Method, Notification};

/// How long `--follow` waits for an acknowledgement before it says that it does.
const STALL: Duration = Duration::from_secs(2);

const AFTER: &str = "\
Looking changes nothing: a message stays until it is acknowledged by `missionctl ack`. Delivery is at \
least once: after a crash a message may come again, so deal with it in a way that bears repetition.

  inbox                shows what waits, oldest first
  inbox --follow       one message at a time, the next when it is acknowledged
  inbox --each -- CMD  runs CMD for each: the message as JSON on its standard
                       input. Exit code 0 acknowledges it; anything else has it
                       come again, later and later; after five times it is dead
  --auto-ack           acknowledges before it shows, or runs: at most once. What
                       is being dealt with when something crashes is lost

CMD also finds MISSION_MESSAGE_ID, _SEQ, _TYPE and _FROM, MISSION_MESSAGE_AGAIN (1 if it was delivered \
before), and for messages of the daemon MISSION_TASK_ID, MISSION_TASK_EPOCH and MISSION_HANDOFF_ID, so \
that in it `missionctl task update` and `missionctl handoff accept` need no arguments.

One reader at a time reads an inbox: a second --follow or --each is refused with exit code 5 and the \
pid of the first, unless it says --takeover.

Examples:
  missionctl inbox
  missionctl inbox --wait 30s -o jsonl            exit code 124 if nothing came
  missionctl inbox --each -- ./on-message
  missionctl inbox --each -n 1 --type task_assign -- sh -c 'missionctl task update --progress 1'";

/// Shows the messages that wait for you, or runs a command for each (inside an agent)
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Inbox {
    /// Go on: one message at a time, the next when the last is acknowledged
    #[arg(short, long, conflicts_with = "each")]
    follow: bool,
    /// Go on: run CMD for each message
    #[arg(long, requires = "command")]
    each: bool,
    /// Acknowledge each message before it is shown or CMD runs: at most once
    #[arg(long)]
    auto_ack: bool,
    /// Only this type; may be given again. With --follow and --each, what is skipped counts as
    /// acknowledged
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<MessageType>,
    /// At most so many messages [default: 100; with --follow and --each, no end]
    #[arg(short = 'n', long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_AUDIT)))]
    limit: Option<u32>,
    /// How long to wait for a message (30s, at most 10m) [default: 0s; with --follow and --each, for
    /// ever]
    #[arg(long, value_parser = wait, value_name = "DURATION")]
    wait: Option<Duration>,
    /// Say `agent heartbeat` so often while waiting (10s), for agents with a silence limit
    #[arg(long, value_parser = beat, value_name = "DURATION")]
    heartbeat: Option<Duration>,
    /// Another subscription than the inbox, with a cursor of its own
    #[arg(long, default_value = "inbox", value_name = "NAME")]
    subscription: SubscriptionName,
    /// Take the subscription from whoever reads it now
    #[arg(long)]
    takeover: bool,
    /// The command for each message, with its arguments
    #[arg(last = true, requires = "each", value_name = "CMD")]
    command: Vec<OsString>,
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = duration(text)?;
    let is_bounded = millis(wait) <= MAX_WAIT_MS;
    if is_bounded { Ok(wait) } else { Err("at most 10m".to_owned()) }
}

fn beat(text: &str) -> Result<Duration, String> {
    let beat = duration(text)?;
    if beat >= Duration::from_millis(100) { Ok(beat) } else { Err("at least 100ms".to_owned()) }
}

enum Next {
    Message(Box<Delivery>),
    Lost,
    Nothing,
}

/// Only agents have an inbox.
fn refuse_operator(session: &Session) -> Result<(), CtlError> {
    if session.hello().agent.is_some() {
        return Ok(());
    }
    Err(CtlError::Usage {
        what: "the operator has no inbox".to_owned(),
        cause: "MISSION_SOCKET is not set, so this is not inside an agent".to_owned(),
        help: "`missionctl messages` shows all messages, `missionctl tail` those to come"
            .to_owned(),
    })
}

impl Inbox {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let mut session = context.session().await?;
        refuse_operator(&session)?;
        if self.follow || self.each {
            return self.go_on(context, &mut session).await;
        }
        let wait = self.wait.unwrap_or_default();
        let params = Fetch {
            subscription: self.subscription.clone(),
            limit: self.limit.unwrap_or(100),
            wait_ms: millis(wait),
            peek: !self.auto_ack,
            types: self.types.clone(),
            seqs: Vec::new(),
        };
        let asked = session.ask_within(wait + CALL, "look into the inbox", Method::Fetch, &params);
        let reply = asked.await?;
        let seqs: Vec<Seq> =
            read::<Fetched>(&reply)?.messages.iter().map(|fetched| fetched.message.seq).collect();
        if self.auto_ack && !seqs.is_empty() {
            self.ack(&mut session, seqs.clone(), Vec::new()).await?;
        }
        show(context, &items(&reply)?)?;
        match self.wait {
            Some(after) if seqs.is_empty() => {
                Err(CtlError::TimedOut { doing: "show a message".to_owned(), after })
            }
            _ => Ok(()),
        }
    }

    async fn ack(
        &self,
        session: &mut Session,
        seqs: Vec<Seq>,
        nack: Vec<Seq>,
    ) -> Result<(), CtlError> {
        let subscription = self.subscription.clone();
        let params = AckParams { subscription, upto: None, seqs, nack };
        session.ask("acknowledge the message", Method::Ack, &params).await.map(drop)
    }

    async fn subscribe(&self, session: &mut Session, takeover: bool) -> Result<(), CtlError> {
        let subscription = self.subscription.clone();
        let params = Subscribe { subscription, types: self.types.clone(), credit: 1, takeover };
        session.ask("read the inbox", Method::Subscribe, &params).await.map(drop)
    }

    /// Deals with messages one by one.
    async fn go_on(self, context: &mut Context, session: &mut Session) -> Result<(), CtlError> {
        self.subscribe(session, self.takeover).await?;
        let mut connection = session.connection();
        let mut left = self.limit;
        let mut unacked = None;
        while left != Some(0) {
            if session.connection() != connection {
                // Another connection has no subscription yet. Taken over is only once: who reads
                // the inbox by now has meant it.
                self.subscribe(session, false).await?;
                connection = session.connection();
            }
            let delivery = match self.next(context, session, unacked).await? {
                Next::Message(delivery) => delivery,
                Next::Lost => {
                    if session.connection() == connection {
                        session.reconnect("go on reading the inbox").await?;
                    }
                    continue;
                }
                Next::Nothing => return Ok(()),
            };
            let seq = (!delivery.ephemeral).then_some(delivery.message.seq);
            if self.auto_ack
                && let Some(seq) = seq
            {
                self.ack(session, vec![seq], Vec::new()).await?;
            }
            if self.each {
                context.out.flush()?;
                let ended = child::run(&self.command, &delivery)?;
                self.settle(context, session, seq, ended).await?;
            } else {
                tail::show(context, &delivery)?;
                unacked = seq.filter(|_| !self.auto_ack);
            }
            left = left.map(|left| left - 1);
        }
        Ok(())
    }

    /// Acknowledges a message, or has it come again, by how its command ended.
    async fn settle(
        &self,
        context: &mut Context,
        session: &mut Session,
        seq: Option<Seq>,
        ended: Ended,
    ) -> Result<(), CtlError> {
        let Some(seq) = seq.filter(|_| !self.auto_ack) else { return Ok(()) };
        match ended {
            Ended::Well => self.ack(session, vec![seq], Vec::new()).await,
            Ended::Badly(how) => {
                context.out.note(&format!("m-{seq}: the command ended with {how}"));
                self.ack(session, Vec::new(), vec![seq]).await
            }
        }
    }

    /// The next message; says what it waits for when an unacknowledged one holds it up.
    async fn next(
        &self,
        context: &mut Context,
        session: &mut Session,
        unacked: Option<Seq>,
    ) -> Result<Next, CtlError> {
        let next = self.next_of_all(context, session, unacked);
        match self.wait {
            Some(wait) => timeout(wait, next).await.unwrap_or(Ok(Next::Nothing)),
            None => next.await,
        }
    }

    async fn next_of_all(
        &self,
        context: &mut Context,
        session: &mut Session,
        unacked: Option<Seq>,
    ) -> Result<Next, CtlError> {
        if let Some(seq) = unacked {
            match timeout(STALL, session.next()).await {
                Ok(next) => {
                    if let Some(next) = self.sort(context, next) {
                        return Ok(next);
                    }
                }
                Err(_) if self.is_first(session, seq).await? => {
                    context.out.note(&format!("waiting for missionctl ack {seq}"));
                }
                Err(_) => {}
            }
        }
        let connection = session.connection();
        loop {
            let next = match self.heartbeat {
                Some(beat) => timeout(beat, session.next()).await.ok(),
                None => Some(session.next().await),
            };
            match next {
                Some(next) => {
                    if let Some(next) = self.sort(context, next) {
                        return Ok(next);
                    }
                }
                None => {
                    session.ask("say that we are alive", Method::AgentHeartbeat, &Empty {}).await?;
                    if session.connection() != connection {
                        return Ok(Next::Lost);
                    }
                }
            }
        }
    }

    fn sort(&self, context: &mut Context, next: Option<Notification>) -> Option<Next> {
        match next {
            Some(Notification::Message(delivery)) if delivery.subscription == self.subscription => {
                Some(Next::Message(delivery))
            }
            Some(Notification::Lagged(lagged)) => {
                context.out.note(&format!(
                    "messages {} to {} are no longer in the log",
                    lagged.from, lagged.to
                ));
                None
            }
            Some(Notification::Message(_) | Notification::Event(_)) => None,
            None => Some(Next::Lost),
        }
    }

    /// Whether a message is still the oldest that is not acknowledged.
    async fn is_first(&self, session: &mut Session, seq: Seq) -> Result<bool, CtlError> {
        let subscription = self.subscription.clone();
        let params = Fetch { subscription, limit: 1, peek: true, ..Fetch::default() };
        let reply = session.ask("look into the inbox", Method::Fetch, &params).await?;
        let first = read::<Fetched>(&reply)?.messages.first().map(|first| first.message.seq);
        Ok(first == Some(seq))
    }
}

const ACK_AFTER: &str = "\
An acknowledged message does not come again. --nack has it come again, later and later; after five \
times it is dead, and its sender can see that.

Examples:
  missionctl ack 17
  missionctl ack m-17 m-23
  missionctl ack --upto 40
  missionctl ack --nack 17";

/// Acknowledges messages: they are dealt with (inside an agent)
#[derive(Debug, clap::Args)]
#[command(after_help = ACK_AFTER)]
pub(crate) struct Ack {
    /// Which: 17 or m-17
    #[arg(value_name = "MESSAGE", required_unless_present = "upto")]
    messages: Vec<Position>,
    /// All up to and including this one
    #[arg(long, value_name = "MESSAGE")]
    upto: Option<Position>,
    /// They could not be dealt with, and are to come again
    #[arg(long, conflicts_with = "upto")]
    nack: bool,
    /// Another subscription than the inbox
    #[arg(long, default_value = "inbox", value_name = "NAME")]
    subscription: SubscriptionName,
}

impl Ack {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), CtlError> {
        let seqs: Vec<Seq> = self.messages.iter().map(|position| position.0).collect();
        let (seqs, nack) = if self.nack { (Vec::new(), seqs) } else { (seqs, Vec::new()) };
        let upto = self.upto.map(|position| position.0);
        let params = AckParams { subscription: self.subscription, upto, seqs, nack };
        let mut session = context.session().await?;
        refuse_operator(&session)?;
        let reply = session.ask("acknowledge", Method::Ack, &params).await?;
        context.out.reply(&reply, |_, _: &Acked| String::new())
    }
}
