//! The pure state machine of a mission. No tokio, files, clock, environment or randomness: time and
//! facts come in as arguments, ids are positions in the log, and equal inputs give equal bytes.
//!
//! ```text
//! request --> permission --> decide --(refusal | events)--.
//! fact -----> facts ------------------------------------. |
//! time -----> tick -----------------------------------. v v
//!                                          Batch: emit + apply, then rules to a fixpoint
//!                                                      |
//!                            Head: Step { events, reply, after, touched }
//! ```
//!
//! - [`event`] is what is logged, [`state`] the fold of it (`apply` never validates, never fails).
//! - [`table`] holds the state tables of tasks and handoffs as data; `decide` and `rules` ask them.
//! - `permission` is the one place where rights are consulted.
//! - [`head`] is the way in: it ticks, decides, settles, coalesces acknowledgements, counts refusals.
//! - [`fact`] also holds [`fact::Want`]: what is to be true of each process, a function of the state.
//!
//! What is not here: launching, storing, delivering, and contents, which pass through unread.

mod apply;
mod batch;
pub mod caller;
mod decide;
pub mod denied;
pub mod event;
pub mod fact;
mod facts;
pub mod head;
pub mod json;
mod permission;
pub mod request;
mod rules;
pub mod spec;
pub mod state;
pub mod table;
mod tick;
pub mod view;
mod views;
mod waits;
pub mod words;

use crate::ids::SubscriptionName;

/// The name of the subscription that every agent has.
pub(crate) const INBOX: &str = "inbox";

/// The subscription that every agent has.
pub(crate) fn inbox_name() -> SubscriptionName {
    match SubscriptionName::new(INBOX) {
        Ok(name) => name,
        Err(_) => unreachable!("`inbox` obeys the rule"),
    }
}
