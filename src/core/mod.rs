//! The pure state machine.

mod apply;
mod batch;
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
