//! The message bus: who is connected, what they may still ask, what they are owed.
//!
//! The daemon's loop owns the [`Hub`]. Per connection there is one task that reads and one that
//! writes; they reach the loop through one bounded queue ([`Inputs`]) and are reached through their
//! outgoing queues. The hub decides nothing about the mission: requests go to the core, and what the
//! core has made durable comes back for delivery.
//!
//! ```text
//!  socket --accept--> identity --> reader task --Inputs--> Hub::take --> the daemon --> core, store
//!    ^                (kernel)     parse, quotas                                          |
//!    |                                                                                 durable
//!  writer task <---- outgoing queue <---- Hub::{reply, deliver, ephemeral, flush} <-------'
//!                                            |  behind?             ^
//!                                            '-- Hub::reads -> log -' Hub::feed
//! ```
//!
//! Who a peer is takes many reads of `/proc`: a thread does that, and the loop goes on meanwhile.
//!
//! Every queue has a bound and an owner to whom its bytes are charged. Time is an argument of the
//! hub's methods; only tasks that wait for sockets use timers.

mod conn;
mod delivery;
mod ephemeral;
mod follow;
mod frames;
mod hub;
mod identity;
mod inbound;
mod listen;
mod log;
mod mailbox;
mod outbox;
mod pump;
mod quota;
mod reader;
mod reads;
mod recent;
mod subscribe;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use inbound::by_hand;

pub use conn::ConnId;
pub use hub::{Hub, Options};
pub use inbound::{Arrival, Inbound, Input, Inputs, Ticket};
pub use listen::{Anchor, IDENTIFYING, ListenError};
pub use log::{LogPage, LogRead, ReadId, ReadWhat};

pub use crate::sys::peer::ProcessId;

use crate::core::denied::Denied;
use crate::core::spec::Permissions;
use crate::core::view::{AgentView, Party};
use crate::ids::MissionName;
use crate::proto::wire::{Hello, HelloReply};

/// The answer to `hello`: agrees on version and features.
///
/// # Errors
/// The client speaks no version that this daemon speaks.
pub fn hello_reply(
    hello: &Hello,
    mission: MissionName,
    you: Party,
    permissions: Permissions,
    agent: Option<AgentView>,
) -> Result<HelloReply, Denied> {
    let (version, features) = hello.negotiate()?;
    Ok(HelloReply { version, features, mission, you, permissions, agent, pid: std::process::id() })
}
