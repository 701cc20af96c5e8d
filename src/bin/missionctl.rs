//! The `missionctl` program.
fn main() {}
