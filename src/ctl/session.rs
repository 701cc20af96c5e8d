//! A conversation with the daemon: one connection, calls with idempotency keys, and one reconnect.
//!
//! A lost connection leaves a call of unknown outcome. Within [`RECONNECT`] the session connects again
//! and repeats the call with the *same* key, so that it is carried out once whatever became of the
//! first. It waits for the daemon's socket to come back by watching its directory, and never polls.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::env::Env;
use super::error::CtlError;
use super::exit::Exit;
use super::target::{self, Target};
use super::watch;
use crate::client::{Client, ClientError, Notifications};
use crate::ids::{Key, MissionName};
use crate::proto::json::Json;
use crate::proto::wire::HelloReply;
use crate::proto::{Method, Notification};

/// How long a call may take, unless its command says otherwise.
pub(crate) const CALL: Duration = Duration::from_secs(30);

/// How long the session waits for a daemon that has gone to come back.
const RECONNECT: Duration = Duration::from_secs(5);

/// A connection to a daemon.
pub(crate) struct Session {
    target: Target,
    client: Client,
    inbound: Notifications,
    keys: Keys,
    connection: u32,
}

/// Idempotency keys: one per call, all derived from one per invocation.
struct Keys {
    base: String,
    used: u32,
}

impl Keys {
    fn new(given: Option<&Key>) -> Result<Self, CtlError> {
        let base = match given {
            Some(key) => key.as_str().to_owned(),
            None => {
                let mut random = [0u8; 16];
                getrandom::fill(&mut random).map_err(|error| CtlError::Io {
                    doing: "make an idempotency key".to_owned(),
                    source: std::io::Error::other(error.to_string()),
                })?;
                format!("ctl-{:032x}", u128::from_ne_bytes(random))
            }
        };
        Ok(Keys { base, used: 0 })
    }

    /// The next key: the first is the base itself, so that `--key` means what it says.
    fn next(&mut self) -> Result<Key, CtlError> {
        self.used += 1;
        let text = match self.used {
            1 => self.base.clone(),
            more => format!("{}.{more}", self.base),
        };
        Key::new(&text).map_err(|error| CtlError::Usage {
            what: "the idempotency key can't be used".to_owned(),
            cause: error.to_string(),
            help: "give a shorter --key".to_owned(),
        })
    }
}

impl Session {
    /// Finds the daemon and connects to it.
    ///
    /// # Errors
    /// There is none, or it is not ours.
    pub(crate) async fn open(
        env: &Env,
        mission: Option<&MissionName>,
        key: Option<&Key>,
    ) -> Result<Self, CtlError> {
        let target = target::find(env, mission).await?;
        let (client, inbound) = connect(&target.socket).await?;
        Ok(Session { target, client, inbound, keys: Keys::new(key)?, connection: 1 })
    }

    /// What the daemon said of itself and of the caller.
    pub(crate) fn hello(&self) -> &HelloReply {
        self.client.hello()
    }

    /// Which connection it is by now: subscriptions end with theirs.
    pub(crate) fn connection(&self) -> u32 {
        self.connection
    }

    /// Calls a method; the answer comes as the daemon's own text.
    ///
    /// # Errors
    /// The daemon refuses (`cannot {doing}`), or does not answer in time.
    pub(crate) async fn ask<P: Serialize>(
        &mut self,
        doing: &str,
        method: Method,
        params: &P,
    ) -> Result<Json, CtlError> {
        self.ask_within(CALL, doing, method, params).await
    }

    /// [`Session::ask`] with a time of its own.
    ///
    /// # Errors
    /// As [`Session::ask`].
    pub(crate) async fn ask_within<P: Serialize>(
        &mut self,
        within: Duration,
        doing: &str,
        method: Method,
        params: &P,
    ) -> Result<Json, CtlError> {
        self.call(within, doing, method, params, true).await
    }

    /// [`Session::ask_within`] without a second attempt, for what must not be said to a new daemon.
    ///
    /// # Errors
    /// As [`Session::ask`]; also when the connection is lost once.
    pub(crate) async fn ask_once_within<P: Serialize>(
        &mut self,
        within: Duration,
        doing: &str,
        method: Method,
        params: &P,
    ) -> Result<Json, CtlError> {
        self.call(within, doing, method, params, false).await
    }

    async fn call<P: Serialize>(
        &mut self,
        within: Duration,
        doing: &str,
        method: Method,
        params: &P,
        may_reconnect: bool,
    ) -> Result<Json, CtlError> {
        let key = if method.takes_key() { Some(self.keys.next()?) } else { None };
        let late = CtlError::TimedOut { doing: doing.to_owned(), after: within };
        let attempts = self.attempts(within, doing, method, params, key.as_ref(), may_reconnect);
        timeout(within, attempts).await.unwrap_or(Err(late))
    }

    async fn attempts<P: Serialize>(
        &mut self,
        within: Duration,
        doing: &str,
        method: Method,
        params: &P,
        key: Option<&Key>,
        mut may_reconnect: bool,
    ) -> Result<Json, CtlError> {
        loop {
            let error = match self.client.call_within(method, params, key, within).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let is_lost = matches!(error, ClientError::Io(_) | ClientError::Closed);
            if !is_lost || !may_reconnect {
                return Err(failed(doing, error, &self.target.socket, within));
            }
            may_reconnect = false;
            self.reconnect(doing).await?;
        }
    }

    /// The next notification; none when the connection is lost. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Notification> {
        self.inbound.next().await
    }

    /// Waits, but not for long, until the daemon has hung up and its process has ended.
    pub(crate) async fn wait_for_end(&mut self, within: Duration) {
        let end = async {
            while self.inbound.next().await.is_some() {}
            // It hangs up before it closes its log and lets go of its locks.
            self.client.wait_for_exit().await;
        };
        // Whether it was reached or not, there is nothing more to wait for.
        let _ = timeout(within, end).await;
    }

    /// Connects again, waiting for the daemon's socket to come back if need be.
    ///
    /// # Errors
    /// It doesn't, within the time for it.
    pub(crate) async fn reconnect(&mut self, doing: &str) -> Result<(), CtlError> {
        let lost = || CtlError::Lost {
            doing: doing.to_owned(),
            cause: "the connection was lost, and no daemon answers now".to_owned(),
        };
        let connected = timeout(RECONNECT, connect_when_there(&self.target.socket)).await;
        let connected = connected.map_err(|_| lost())?;
        (self.client, self.inbound) = connected?.ok_or_else(lost)?;
        self.connection += 1;
        Ok(())
    }
}

/// Connects as soon as somebody listens; none where that can't be waited for.
async fn connect_when_there(socket: &Path) -> Result<Option<(Client, Notifications)>, CtlError> {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    // Watched before the attempt, so that a socket made in between is seen.
    let mut changes = watch::Changes::of(directory).ok();
    loop {
        match connect(socket).await {
            Err(CtlError::NoDaemon { .. }) => {
                let Some(changes) = &mut changes else { return Ok(None) };
                if changes.next().await.is_err() {
                    return Ok(None);
                }
            }
            connected => return connected.map(Some),
        }
    }
}

async fn connect(socket: &Path) -> Result<(Client, Notifications), CtlError> {
    let name = concat!("missionctl ", env!("CARGO_PKG_VERSION"));
    Client::connect_as(socket, name)
        .await
        .map_err(|error| failed("talk to the daemon", error, socket, CALL))
}

/// What a client's error means to a person.
fn failed(doing: &str, error: ClientError, socket: &Path, within: Duration) -> CtlError {
    let doing = doing.to_owned();
    match error {
        ClientError::NoDaemon { source, .. } => {
            CtlError::NoDaemon { socket: socket.to_owned(), cause: source.to_string() }
        }
        ClientError::Refused(denied) => CtlError::Refused { doing, denied },
        ClientError::Io(_) | ClientError::Closed => CtlError::Lost { doing, cause: chain(&error) },
        ClientError::NotOurs { .. } => CtlError::Ended {
            what: "refusing to talk to this daemon".to_owned(),
            cause: chain(&error),
            help: "check XDG_RUNTIME_DIR and MISSION_SOCKET: they point to another user's"
                .to_owned(),
            exit: Exit::Denied,
        },
        ClientError::Protocol { .. } => CtlError::Answer { doing, cause: chain(&error) },
        ClientError::Timeout { .. } => CtlError::TimedOut { doing, after: within },
    }
}

/// An error with all its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_has_one_key_and_a_call_of_its_own_each() {
        let mut keys = Keys::new(None).unwrap();
        let (first, second) = (keys.next().unwrap(), keys.next().unwrap());
        assert_eq!(second.as_str(), format!("{first}.2"));
        assert_ne!(Keys::new(None).unwrap().next().unwrap(), first);
        let given = Key::new("step-7").unwrap();
        assert_eq!(Keys::new(Some(&given)).unwrap().next().unwrap(), given);
    }
}
