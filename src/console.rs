//! What both programs do with their command line, standard output and standard error.
//!
//! A result that can't be written is a failure (exit code 1, and why): a script that redirects to a
//! full disk must not go on as if it had been told. Only a reader that has gone (EPIPE) has seen
//! enough: that is no failure and not worth a word. What is said to a person is escaped, also what
//! comes back from the command line: arguments may be names that an agent chose.
//!
//! It deliberately knows no command: each program has its own.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextValue, Error};

use crate::escape;

/// The command line, or the exit code of a program that ends with it: 0 after `--help` and
/// `--version`, 1 where those can't be written, 2 for a wrong usage, which is explained.
pub(crate) fn arguments<C: Parser>() -> Result<C, ExitCode> {
    arguments_of(std::env::args_os(), 2)
}

/// The same for a part of a command line, and with another exit code for a wrong usage.
pub(crate) fn arguments_of<C: Parser>(
    words: impl Iterator<Item = OsString>,
    wrong: u8,
) -> Result<C, ExitCode> {
    C::try_parse_from(words).map_err(|error| {
        if error.use_stderr() {
            complain(&explanation(error));
            return ExitCode::from(wrong);
        }
        match print(&error.render().to_string()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(code) => code,
        }
    })
}

/// What is wrong with a command line, without what a terminal would obey.
fn explanation(mut error: Error) -> String {
    // Arguments within the explanation stay on their line.
    let context: Vec<_> = error.context().map(|(kind, value)| (kind, one_line(value))).collect();
    for (kind, value) in context {
        if let Some(value) = value {
            error.insert(kind, value);
        }
    }
    // Reasons that our own types give are not among those, and may quote an argument.
    let text = error.render().to_string();
    escape::lines(text.trim_end()).into_owned()
}

/// A word or words of the command line with their line ends escaped, where there are any.
fn one_line(value: &ContextValue) -> Option<ContextValue> {
    let escaped = |text: &String| escape::line(text).into_owned();
    if let ContextValue::String(text) = value {
        Some(ContextValue::String(escaped(text)))
    } else if let ContextValue::Strings(texts) = value {
        Some(ContextValue::Strings(texts.iter().map(escaped).collect()))
    } else {
        None
    }
}

/// Writes a result to standard output; the exit code of a program that can't.
pub(crate) fn print(text: &str) -> Result<(), ExitCode> {
    written(io::stdout().lock(), text).map_err(|error| {
        complain(&format!("error: cannot write the output\n  cause: {error}"));
        ExitCode::FAILURE
    })
}

/// Writes it all; a reader that has gone is no failure.
fn written(mut to: impl Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Tells a person what is wrong, on standard error, with what a terminal would obey escaped.
pub(crate) fn complain(text: &str) {
    // Nobody listens there: nothing that could be said about it, and to whom.
    let _unheard = writeln!(io::stderr(), "{}", escape::lines(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Sample {
        #[arg(long, value_parser = number)]
        count: Option<u8>,
    }

    fn number(text: &str) -> Result<u8, String> {
        text.parse().map_err(|_| format!("`{text}` is no number"))
    }

    fn said(argument: &str) -> String {
        explanation(Sample::try_parse_from(["sample", argument]).unwrap_err())
    }

    #[test]
    fn an_argument_can_not_act_on_the_terminal_that_it_is_shown_on() {
        let hostile = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}x\nerror: forged\r";
        for argument in [hostile.to_owned(), format!("--{hostile}"), format!("--count={hostile}")] {
            let text = said(&argument);
            assert!(text.contains("\\x1b]0;owned\\x07\\x9b2J\\u{202e}x"), "{text:?}");
            let is_active = |c: char| c != '\n' && escape::is_active(c);
            assert!(!text.contains(is_active), "{text:?}");
        }
        let text = said(hostile);
        assert!(!text.lines().any(|line| line.starts_with("error: forged")), "{text}");
    }

    struct Refusing(io::ErrorKind);
    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_a_failure_and_a_reader_that_has_gone_is_none() {
        let full = written(Refusing(io::ErrorKind::StorageFull), "x").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        written(Refusing(io::ErrorKind::BrokenPipe), "x").unwrap();
    }
}
