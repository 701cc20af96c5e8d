//! The command line: what can be said to `missionctl`. Each command's own words stand in its file.

use clap::{Parser, Subcommand};

use super::command::{
    agent, assign, checkpoint, events, handoff, inbox, lifecycle, logs, messages, send, status,
    tail, task, why, workspace,
};
use super::out::Format;
use crate::ids::{Key, MissionName};

const AFTER: &str = "\
Which mission:
  -m NAME, or the mission.toml in this directory or above, or the only one that runs.
  With MISSION_SOCKET set (inside an agent), missionctl speaks as that agent; the task and its \
  epoch come from MISSION_TASK_ID and MISSION_TASK_EPOCH onto every write.

Writes:
  A reply means that it is on disk. Every write carries an idempotency key, used again when the \
  connection has to be made anew, so that it is carried out once. A script that may be run twice \
  gives its own: missionctl --key nightly-2026-11-20 send 'begin'.

Exit codes:
  0 ok   1 failure   2 usage   3 not found   4 denied
  5 conflict, or a former owner's write   69 no daemon
  75 try again (a limit, or the daemon can't now)   124 timed out

Examples:
  missionctl status                          who does what, what waits for what
  missionctl handoff writer reviewer task-1  move a half-done task, step by step
  missionctl events -f -o jsonl | jq .kind   the log as it grows
  missionctl inbox --each -- ./on-message    a shell script as an agent";

/// Steers a mission of agents; inside an agent, speaks as that agent.
#[derive(Debug, Parser)]
#[command(name = "missionctl", version, after_help = AFTER, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The mission to talk to
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) mission: Option<MissionName>,
    /// How results are written: aligned for people, the daemon's answer, or a JSON value a line
    #[arg(short, long, global = true, value_enum, default_value_t, hide_possible_values = true)]
    #[arg(value_name = "table|json|jsonl", help_heading = "Global options")]
    pub(crate) output: Format,
    /// Show text of agents as it is, even where it could act on the terminal
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) raw: bool,
    /// The idempotency key of the write [default: a new one for each invocation]
    #[arg(long, global = true, value_name = "KEY", help_heading = "Global options")]
    pub(crate) key: Option<Key>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    // what happens
    Status(status::Status),
    Ps(status::Ps),
    Events(events::Events),
    Logs(logs::Logs),
    Why(why::Why),
    Messages(messages::Messages),
    Tail(tail::Tail),
    // who and what
    Agent(agent::Agent),
    Task(task::Task),
    Assign(assign::Assign),
    Handoff(handoff::Handoff),
    Checkpoint(checkpoint::Checkpoint),
    Workspace(workspace::Workspace),
    // messages
    Send(send::Send),
    Inbox(inbox::Inbox),
    Ack(inbox::Ack),
    // up and down
    Start(lifecycle::Start),
    Stop(lifecycle::Stop),
    Restart(lifecycle::Restart),
}
