//! What a mission is configured with, and where it lives.

pub mod dirs;
