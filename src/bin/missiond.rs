//! The `missiond` program.
fn main() {}
