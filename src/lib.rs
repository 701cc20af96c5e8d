//! missiond: a privilege-free supervisor for teams of agents.

pub mod bus;
pub mod client;
pub mod config;
pub mod core;
pub mod ctl;
pub mod daemon;
pub mod ids;
pub mod launch;
pub mod policy;
pub mod proto;
pub mod store;
pub mod supervise;
pub mod sys;
