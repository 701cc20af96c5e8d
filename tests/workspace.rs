//! The places that agents must not change, under faults.

#[cfg(test)]
#[path = "workspace/kills.rs"]
mod kills;
