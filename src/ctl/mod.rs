//! `missionctl`: the operator's hand, and inside an agent the agent's voice. One file per command below
//! `command`; around them what they share: finding the daemon, talking to it, and rendering.
//!
//! ```text
//! argv + environment -> cli -> command -> session (client, proto) -> daemon
//!                                 |            ^ target: which socket, as whom
//!                                 `-> views, lines (pure) -> out (table | json | jsonl) -> stdout
//! ```
//!
//! What it deliberately does not do: it knows neither the daemon nor its store, decides nothing (the
//! core does), keeps nothing, and never retries a write without its idempotency key. Results go to
//! standard output, everything said beside them to standard error. Text of agents is escaped on a
//! terminal. What isn't needed is not done: agents call this in loops.

mod child;
mod cli;
mod command;
mod env;
mod error;
mod exit;
mod follow;
mod input;
mod lines;
mod logfile;
mod out;
mod pretty;
mod session;
mod target;
mod time;
mod views;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use cli::{Cli, Command};
use env::Env;
use error::CtlError;
use exit::Exit;
use out::Out;
use session::Session;

use crate::console;
use crate::ids::{Key, MissionName};

/// What a command works with.
struct Context {
    env: Env,
    out: Out,
    mission: Option<MissionName>,
    key: Option<Key>,
}

impl Context {
    /// Connects to the daemon that is meant.
    async fn session(&self) -> Result<Session, CtlError> {
        Session::open(&self.env, self.mission.as_ref(), self.key.as_ref()).await
    }

    /// Reports a failure of one of several things; the others go on.
    fn report(&self, error: &CtlError) {
        // Nobody listens there any more: nothing that could be said about it, and to whom.
        let _ = std::io::stderr().write_all(error.report(self.out.is_raw).as_bytes());
    }
}

/// The `missionctl` program, from its arguments to its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli: Cli = match console::arguments() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let env = Env::of_process();
    let out = Out::stdout(cli.global.output, cli.global.raw, &env);
    let Cli { global, command } = cli;
    let mut context = Context { env, out, mission: global.mission, key: global.key };
    let done = run(&mut context, command).and_then(|()| context.out.flush());
    match done {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            // What was written before the failure belongs before its report.
            let _ = context.out.flush();
            context.report(&error);
            error.exit().into()
        }
    }
}

fn run(context: &mut Context, command: Command) -> Result<(), CtlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| CtlError::Io { doing: "start".to_owned(), source })?;
    runtime.block_on(async {
        match command {
            Command::Status(status) => status.run(context).await,
            Command::Ps(ps) => ps.run(context).await,
            Command::Events(events) => events.run(context).await,
            Command::Logs(logs) => logs.run(context).await,
            Command::Why(why) => why.run(context).await,
            Command::Messages(messages) => messages.run(context).await,
            Command::Tail(tail) => tail.run(context).await,
            Command::Agent(agent) => agent.run(context).await,
            Command::Task(task) => task.run(context).await,
            Command::Assign(assign) => assign.run(context).await,
            Command::Handoff(handoff) => handoff.run(context).await,
            Command::Checkpoint(checkpoint) => checkpoint.run(context).await,
            Command::Workspace(workspace) => workspace.run(context).await,
            Command::Send(send) => send.run(context).await,
            Command::Inbox(inbox) => inbox.run(context).await,
            Command::Ack(ack) => ack.run(context).await,
            Command::Start(start) => start.run(context).await,
            Command::Stop(stop) => stop.run(context).await,
            Command::Restart(restart) => restart.run(context).await,
        }
    })
}
