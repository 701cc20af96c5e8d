//! Where results go, and how: as tables for people, or as JSON for programs.

use std::cell::OnceCell;
use std::io::{self, IsTerminal as _, Write};

use serde::de::DeserializeOwned;

use super::env::Env;
use super::error::CtlError;
use super::pretty;
use super::time::Clock;
use crate::escape;
use crate::proto::json::Json;
use crate::table::{self, Cell, Column, Paint};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    // For people: aligned, coloured on a terminal, with humane times.
    #[default]
    Table,
    // The daemon's answer as it is, laid out over lines.
    Json,
    // One JSON value a line: the items of a list, or of a stream.
    Jsonl,
}

/// How text for people looks here.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// Whether colours are wanted.
    pub(crate) colours: bool,
    /// Whether text of agents is escaped, so that it can't act on the terminal.
    pub(crate) escapes: bool,
    /// The width of the terminal; none where the output is none.
    pub(crate) width: Option<usize>,
    clock: OnceCell<Clock>,
}

impl Look {
    /// A look with fixed time, for tests.
    #[cfg(test)]
    pub(crate) fn at(clock: Clock) -> Self {
        Look { clock: OnceCell::from(clock), escapes: true, ..Look::default() }
    }

    /// The present; read at the first use, for many commands need none.
    pub(crate) fn clock(&self) -> &Clock {
        self.clock.get_or_init(Clock::system)
    }

    /// Text of an agent on one line.
    pub(crate) fn text(&self, text: &str) -> String {
        let safe = if self.escapes { escape::line(text) } else { escape::layout(text) };
        safe.into_owned()
    }

    /// Text of an agent that may have several lines.
    pub(crate) fn lines(&self, text: &str) -> String {
        if !self.escapes {
            return text.to_owned();
        }
        escape::lines(text).into_owned()
    }

    /// JSON of an agent on one line.
    pub(crate) fn json(&self, json: &Json) -> String {
        self.text(&pretty::compact(json.get()))
    }

    /// A word in a colour.
    pub(crate) fn paint(&self, text: &str, paint: Paint) -> String {
        paint.on(text, self.colours)
    }

    /// A table, or `none` where there are no rows.
    pub(crate) fn table(&self, columns: &[Column], rows: &[Vec<Cell>], none: &str) -> String {
        if rows.is_empty() {
            return format!("{}\n", self.paint(none, Paint::Dim));
        }
        table::table(columns, rows, self.width, self.colours)
    }

    /// A list of details.
    pub(crate) fn details(&self, rows: &[(&str, Cell)]) -> String {
        table::details(rows, self.colours)
    }

    /// A line of a stream, cut where it would not fit the terminal's line.
    pub(crate) fn fit(&self, text: &str, used: usize) -> String {
        match self.width {
            Some(width) => table::cut(text, width.saturating_sub(used).max(20)),
            None => text.to_owned(),
        }
    }
}

/// The output of an invocation.
pub(crate) struct Out {
    to: Box<dyn Write>,
    /// How results are written.
    pub(crate) format: Format,
    /// How text for people looks.
    pub(crate) look: Look,
    /// Whether agent-supplied text is shown as it is.
    pub(crate) is_raw: bool,
}

impl Out {
    /// Standard output.
    pub(crate) fn stdout(format: Format, is_raw: bool, env: &Env) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let size = if is_terminal { rustix::termios::tcgetwinsize(&stdout).ok() } else { None };
        let look = Look {
            colours: is_terminal && !env.no_colour,
            escapes: is_terminal && !is_raw,
            width: size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0),
            clock: OnceCell::new(),
        };
        Out { to: Box::new(io::BufWriter::new(stdout)), format, look, is_raw }
    }

    /// Writes text that is made for people already.
    pub(crate) fn write(&mut self, text: &str) -> Result<(), CtlError> {
        self.to.write_all(text.as_bytes()).map_err(CtlError::output)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CtlError> {
        self.to.write_all(bytes).map_err(CtlError::output)
    }

    /// Sends off what was written: at the end, and after each item of a stream.
    pub(crate) fn flush(&mut self) -> Result<(), CtlError> {
        self.to.flush().map_err(CtlError::output)
    }

    /// One JSON value in the chosen format.
    pub(crate) fn json(&mut self, raw: &str) -> Result<(), CtlError> {
        let text = match self.format {
            Format::Jsonl => pretty::compact(raw),
            Format::Json | Format::Table => pretty::pretty(raw),
        };
        let text = if self.look.escapes { escape::json(&text).into_owned() } else { text };
        self.write(&text)?;
        self.write("\n")
    }

    /// A reply: `render` makes the text for people; as JSON it is what the daemon said.
    pub(crate) fn reply<T: DeserializeOwned>(
        &mut self,
        raw: &Json,
        render: impl FnOnce(&Look, &T) -> String,
    ) -> Result<(), CtlError> {
        match self.format {
            Format::Json | Format::Jsonl => self.json(raw.get()),
            Format::Table => {
                let text = render(&self.look, &read(raw)?);
                self.write(&text)
            }
        }
    }

    /// A reply that is a list: with `jsonl`, an item a line.
    pub(crate) fn list<T: DeserializeOwned>(
        &mut self,
        raw: &Json,
        render: impl FnOnce(&Look, &[T]) -> String,
    ) -> Result<(), CtlError> {
        match self.format {
            Format::Json => self.json(raw.get()),
            Format::Jsonl => {
                for item in read::<Vec<Json>>(raw)? {
                    self.json(item.get())?;
                }
                Ok(())
            }
            Format::Table => {
                let text = render(&self.look, &read::<Vec<T>>(raw)?);
                self.write(&text)
            }
        }
    }

    /// Something said beside the results, for people: to standard error.
    pub(crate) fn note(&mut self, text: &str) {
        let safe = if self.is_raw { escape::layout(text) } else { escape::line(text) };
        // Nobody listens there any more: nothing that could be said about it, and to whom.
        let _ = writeln!(io::stderr(), "{safe}");
    }
}

/// The typed form of an answer.
pub(crate) fn read<T: DeserializeOwned>(raw: &Json) -> Result<T, CtlError> {
    serde_json::from_str(raw.get()).map_err(|error| CtlError::Answer {
        doing: "read the daemon's answer".to_owned(),
        cause: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, escapes: bool, raw: &str) -> String {
        let sink = Sink::default();
        let look = Look { escapes, ..Look::default() };
        let mut out = Out { to: Box::new(sink.clone()), format, look, is_raw: !escapes };
        out.list::<serde_json::Value>(&Json::parse(raw).unwrap(), |_, items| {
            format!("{}\n", items.len())
        })
        .unwrap();
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_list_is_a_table_or_the_answer_or_a_line_an_item() {
        let raw = r#"[{"b":1,"a":2.50},{"x":"y z"}]"#;
        assert_eq!(written(Format::Table, true, raw), "2\n");
        assert_eq!(written(Format::Jsonl, true, raw), "{\"b\":1,\"a\":2.50}\n{\"x\":\"y z\"}\n");
        assert!(written(Format::Json, true, raw).starts_with("[\n  {\n    \"b\": 1,"));
    }

    #[test]
    fn json_for_a_terminal_is_escaped_and_otherwise_it_is_not() {
        assert_eq!(written(Format::Jsonl, true, "[\"\u{9b}\"]"), "\"\\u009b\"\n");
        assert_eq!(written(Format::Jsonl, false, "[\"\u{9b}\"]"), "\"\u{9b}\"\n");
    }

    #[test]
    fn text_of_several_lines_keeps_its_lines_only() {
        let look = Look { escapes: true, ..Look::default() };
        assert_eq!(look.lines("a\x1bb\nc\r"), "a\\x1bb\nc\\r");
        assert_eq!(look.text("a\nb"), "a\\nb");
        assert_eq!(Look::default().text("a\nb\x1b"), "a\\nb\x1b");
    }
}
