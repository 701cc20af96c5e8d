//! `missionctl` as a program, against a daemon that a test plays: what it sends, shows, and exits with.

#[path = "ctl/console.rs"]
mod console;
#[path = "ctl/fake.rs"]
mod fake;
#[path = "ctl/handoffs.rs"]
mod handoffs;
#[path = "ctl/inbox.rs"]
mod inbox;
#[path = "ctl/reads.rs"]
mod reads;
#[path = "ctl/streams.rs"]
mod streams;
#[path = "ctl/terminal.rs"]
mod terminal;
#[path = "ctl/usage.rs"]
mod usage;
#[path = "ctl/writes.rs"]
mod writes;
