//! What the daemon says to whoever looks for a fault: warnings of store and bus, and, where it is asked
//! for by `MISSIOND_LOG`, what it does.
//!
//! `MISSIOND_LOG` is `off`, `error`, `warn` (without it), `info`, `debug` or `trace`. Lines go where the
//! daemon's other words go: to standard error, or into `daemon.log`. Messages are constant, values are
//! fields: ids, roles, levels, pids. Never a secret, a prompt, or an environment value; what agents say
//! is not in a field.
//!
//! Spans: `mission` > `task` > `agent{id, role, level, pid}`. They are made per start of an agent, not
//! per message.

use std::io;

use tracing::Span;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;

use super::screen::Pen;
use crate::ids::{AgentName, MissionName, RoleName, TaskId};

/// The variable that says how much is said.
pub(super) const VARIABLE: &str = "MISSIOND_LOG";

/// How much is to be said; `Err` with the value where it is none of the words.
///
/// # Errors
/// The variable has another value.
pub(super) fn level(value: Option<std::ffi::OsString>) -> Result<LevelFilter, String> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(LevelFilter::WARN) };
    let value = value.to_string_lossy();
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    match value.parse() {
        Ok(level) if known.contains(&value.to_ascii_lowercase().as_str()) => Ok(level),
        Ok(_) | Err(_) => Err(format!("{VARIABLE}={value} is none of {}", known.join(", "))),
    }
}

/// From now on, everybody's words go to `pen`. Once in the life of a process; later calls change nothing.
pub(super) fn install(level: LevelFilter, pen: Pen) {
    let is_file = pen.is_file();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(move || Line { pen: pen.clone(), text: Vec::new() });
    let _installed_already = if is_file {
        tracing::subscriber::set_global_default(subscriber.finish())
    } else {
        // A terminal has a person before it, and a journal its own clock.
        tracing::subscriber::set_global_default(subscriber.without_time().finish())
    };
}

/// One event on its way: handed over as a whole.
struct Line {
    pen: Pen,
    text: Vec<u8>,
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Losing a line is never a reason to stop a mission.
        let _lost = self.pen.write(&String::from_utf8_lossy(&self.text));
    }
}

/// Around everything that the loop does.
pub(super) fn mission(name: &MissionName) -> Span {
    tracing::error_span!("mission", id = %name)
}

/// Around what concerns one start of an agent; its pid is recorded when it is known.
pub(super) fn agent(name: &AgentName, role: &RoleName, level: u8, task: Option<&TaskId>) -> Span {
    let around = match task {
        Some(task) => tracing::error_span!("task", id = %task),
        None => Span::none(),
    };
    around.in_scope(|| tracing::error_span!("agent", id = %name, role = %role, level, pid = Empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_one_of_the_words_and_warn_without() {
        let of = |text: &str| level(Some(text.into()));
        assert_eq!(level(None), Ok(LevelFilter::WARN));
        assert_eq!(of(""), Ok(LevelFilter::WARN));
        assert_eq!(of("Debug"), Ok(LevelFilter::DEBUG));
        assert_eq!(of("off"), Ok(LevelFilter::OFF));
        for wrong in ["3", "loud", "missiond=debug"] {
            assert!(of(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
