//! The pure state machine.

pub mod denied;
pub mod event;
pub mod fact;
pub mod head;
pub mod json;
pub mod request;
pub mod spec;
pub mod state;
pub mod view;

use crate::ids::SubscriptionName;

/// The subscription that every agent has.
pub(crate) fn inbox_name() -> SubscriptionName {
    const INBOX: &str = "inbox";
    match SubscriptionName::new(INBOX) {
        Ok(name) => name,
        Err(_) => unreachable!("`inbox` obeys the rule"),
    }
}
