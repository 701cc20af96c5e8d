//! Tests of the planner; pure, like what they test.

mod environment;
mod filter;
mod plan;
mod profile;
mod restrict;
mod tree;
