//! One file per command: its arguments with their help, and what it asks the daemon.

pub(super) mod agent;
pub(super) mod assign;
pub(super) mod checkpoint;
pub(super) mod events;
pub(super) mod handoff;
pub(super) mod inbox;
pub(super) mod lifecycle;
pub(super) mod logs;
pub(super) mod messages;
pub(super) mod send;
pub(super) mod status;
pub(super) mod tail;
pub(super) mod task;
pub(super) mod why;
pub(super) mod workspace;
