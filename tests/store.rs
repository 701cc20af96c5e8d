//! The log as its users see it: append, read, reopen, and what it does when something is wrong.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it expects and no more")]

#[cfg(test)]
#[path = "store/append.rs"]
mod append;
#[cfg(test)]
#[path = "store/damage.rs"]
mod damage;
#[cfg(test)]
#[path = "store/full.rs"]
mod full;
#[cfg(test)]
#[path = "store/history.rs"]
mod history;
#[cfg(test)]
#[path = "store/refuse.rs"]
mod refuse;
#[cfg(test)]
#[path = "store/support.rs"]
mod support;
