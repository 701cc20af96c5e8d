//! Makes text that an agent or a stranger supplied safe to show on a person's terminal.
//!
//! A terminal obeys what it reads: C0 and C1 controls, ESC sequences, OSC strings that set titles or
//! clipboards; and bidirectional controls make a line read differently from what it says. All of them
//! are shown as an escape (`\x1b`, `\u{202e}`). It deliberately changes nothing else: letters of any
//! script, emoji and joiners pass.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

/// Whether `c` could act on a terminal, or on how the rest of a line is read.
pub(crate) fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

fn push_escaped(out: &mut String, c: char) {
    // Writing to a String does not fail.
    let _ = match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

fn escape_if(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(&is_bad) else { return Cow::Borrowed(text) };
    let (clean, rest) = text.split_at(first);
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(clean);
    for c in rest.chars() {
        if is_bad(c) { push_escaped(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// One line: line ends and tabs are escaped too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape_if(text, is_active)
}

/// Several lines: only line ends stay.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escape_if(text, |c| c != '\n' && is_active(c))
}

/// A path as a word of a shell's command line that a person may copy.
pub(crate) fn word(path: &Path) -> String {
    let shown = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%,:=~".contains(c);
    if !shown.is_empty() && !shown.starts_with('~') && shown.chars().all(is_plain) {
        return shown;
    }
    format!("'{}'", shown.replace('\'', "'\\''"))
}

/// Only what breaks a table: line ends and tabs.
pub(crate) fn layout(text: &str) -> Cow<'_, str> {
    escape_if(text, |c| matches!(c, '\n' | '\r' | '\t'))
}

/// JSON text: what acts on a terminal can only stand in a string there, and `\uXXXX` means the same.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| is_active(c) && c != '\n';
    let Some(first) = text.find(is_bad) else { return Cow::Borrowed(text) };
    let (clean, rest) = text.split_at(first);
    let mut out = String::from(clean);
    for c in rest.chars() {
        if is_bad(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A line of a program's output, which may be anything: invalid UTF-8 is shown as `\xff`, tabs stay.
pub(crate) fn bytes(line: &[u8]) -> String {
    let mut out = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_active(c) && c != '\t' { push_escaped(&mut out, c) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_moves_a_cursor_sets_a_title_or_turns_a_line_round_is_shown() {
        assert_eq!(line("\x1b[31mred\x07"), "\\x1b[31mred\\x07");
        assert_eq!(line("\u{9b}2J\u{9d}0;t\u{9c}"), "\\x9b2J\\x9d0;t\\x9c");
        assert_eq!(line("a\u{202e}cod.exe\u{2066}"), "a\\u{202e}cod.exe\\u{2066}");
        assert_eq!(line("one\r\ntwo\tx\u{7f}"), "one\\r\\ntwo\\tx\\x7f");
    }

    #[test]
    fn ordinary_text_of_any_script_is_left_alone() {
        for text in ["plain", "größer", "日本語", "עברית", "👩‍🚀", "a\\nb"] {
            assert!(matches!(line(text), Cow::Borrowed(t) if t == text), "{text}");
        }
    }

    #[test]
    fn of_several_lines_only_their_ends_are_left() {
        assert_eq!(lines("a\x1bb\nc\r\n\u{202e}"), "a\\x1bb\nc\\r\n\\u{202e}");
    }

    #[test]
    fn json_means_the_same_after_escaping() {
        let raw = "{\"a\": \"x\u{9b}\u{202e}y\"}";
        let shown = json(raw);
        assert_eq!(shown, "{\"a\": \"x\\u009b\\u202ey\"}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(raw), value(&shown));
    }

    #[test]
    fn output_that_is_no_text_is_shown_byte_by_byte() {
        assert_eq!(bytes(b"ok\t\xff\xfe\x1b]0;t"), "ok\t\\xff\\xfe\\x1b]0;t");
    }

    #[test]
    fn a_path_is_quoted_for_a_shell_where_it_has_to_be() {
        assert_eq!(word(Path::new("/a/b-1.toml")), "/a/b-1.toml");
        assert_eq!(word(Path::new("my proj/it's")), "'my proj/it'\\''s'");
        assert_eq!(word(Path::new("$(x)")), "'$(x)'");
        assert_eq!(word(Path::new("~x")), "'~x'");
    }

    proptest! {
        #[test]
        fn nothing_active_is_left(text in any::<String>(), raw in any::<Vec<u8>>()) {
            prop_assert!(!line(&text).chars().any(is_active));
            prop_assert!(!bytes(&raw).chars().any(|c| is_active(c) && c != '\t'));
            prop_assert!(!layout(&text).contains(['\n', '\r', '\t']));
        }
    }
}
