//! What is wrong with a mission file, and where: one [`Problem`] each, printed with its line.
//!
//! What it prints goes to a person's terminal, so control characters are replaced, and values that
//! may be secret (`env`, `secrets`) are blacked out.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::escape::is_active;

/// How much of a long source line is shown.
const WINDOW: usize = 100;

/// One thing that is wrong, or that is allowed but unwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The mission file, as it was named.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong: a lowercase fragment.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether the mission can run all the same.
    pub warning: bool,
    /// The source line, made safe for a terminal.
    excerpt: String,
    /// Where in the excerpt the carets stand, in characters.
    caret: Range<usize>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "warning" } else { "error" };
        let (line, column) = (self.line, self.column);
        writeln!(
            f,
            "{kind}: {}:{line}:{column}: {}",
            self.file.display(),
            printable(&self.message)
        )?;
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        let indent = " ".repeat(self.caret.start);
        let carets = "^".repeat(self.caret.len().max(1));
        writeln!(f, " {gutter} |")?;
        writeln!(f, " {number} | {}", self.excerpt)?;
        write!(f, " {gutter} | {indent}{carets}")?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", printable(help))?;
        }
        Ok(())
    }
}

/// A problem before its position has been worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
    pub(super) warning: bool,
}

/// Places findings in the text, in the order of the text. What lies in `masked` is not shown.
pub(super) fn place(
    file: &Path,
    text: &str,
    mut findings: Vec<Finding>,
    masked: &[Range<usize>],
) -> Vec<Problem> {
    findings.sort_by_key(|finding| finding.span.start);
    findings.dedup();
    findings.into_iter().map(|finding| place_one(file, text, finding, masked)).collect()
}

fn place_one(file: &Path, text: &str, finding: Finding, masked: &[Range<usize>]) -> Problem {
    let start = floor(text, finding.span.start);
    let end = floor(text, finding.span.end).max(start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let line_number = text[..line_start].bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = text[line_start..start].chars().count();
    let carets = text[start..end.min(line_end)].chars().count();

    let skip = if column + carets.min(WINDOW / 2) > WINDOW { column - WINDOW / 2 } else { 0 };
    let excerpt: String = text[line_start..line_end]
        .trim_end_matches('\r')
        .char_indices()
        .skip(skip)
        .take(WINDOW)
        .map(|(at, c)| if hidden(masked, line_start + at) { '*' } else { shown(c) })
        .collect();
    Problem {
        file: file.to_path_buf(),
        line: line_number,
        column: column + 1,
        message: finding.message,
        help: finding.help,
        warning: finding.warning,
        caret: column - skip..(column - skip + carets).min(WINDOW),
        excerpt: excerpt.trim_end().to_owned(),
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn hidden(masked: &[Range<usize>], at: usize) -> bool {
    masked.iter().any(|range| range.contains(&at))
}

fn shown(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_active(c) => '\u{fffd}',
        c => c,
    }
}

/// A text with what could steer a terminal replaced.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_active(c) { '\u{fffd}' } else { c }).collect()
}

/// Of `known`, the one that `text` was probably meant to be.
pub(super) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text: String = text.chars().take(64).flat_map(char::to_lowercase).collect();
    let most = (text.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&text, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
