//! What a program's own words say about a refusal: lines such as
//! `cat: /etc/shadow: Permission denied`.
//!
//! A guess by nature: programs translate, shorten and invent. So a mention only counts together with a
//! plan that indeed refuses that path.

use std::path::PathBuf;

use super::Attempt;

/// What kind of refusal a line speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symptom {
    /// A path, with the errno that the words stand for.
    Path(i32),
    /// The network.
    Network,
    /// No more processes or threads.
    Processes,
    /// No more memory.
    Memory,
    /// No more open files.
    Files,
    /// A file that is too large.
    FileSize,
    /// A system call that is refused.
    Call,
}

/// One line that speaks of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// The line.
    pub line: String,
    /// What it speaks of.
    pub symptom: Symptom,
    /// Paths that it names, as they stand there.
    pub paths: Vec<PathBuf>,
    /// What was tried, as far as the words say.
    pub attempt: Attempt,
}

/// The words of the C library for an errno, and those of other runtimes. In lower case.
const WORDS: [(&str, Symptom); 24] = [
    ("permission denied", Symptom::Path(13)),
    ("eacces", Symptom::Path(13)),
    ("read-only file system", Symptom::Path(30)),
    ("erofs", Symptom::Path(30)),
    ("no such file or directory", Symptom::Path(2)),
    ("enoent", Symptom::Path(2)),
    ("device or resource busy", Symptom::Path(16)),
    ("invalid cross-device link", Symptom::Path(18)),
    ("no space left on device", Symptom::Path(28)),
    ("enospc", Symptom::Path(28)),
    ("network is unreachable", Symptom::Network),
    ("enetunreach", Symptom::Network),
    ("could not resolve", Symptom::Network),
    ("couldn't resolve", Symptom::Network),
    ("temporary failure in name resolution", Symptom::Network),
    ("name or service not known", Symptom::Network),
    ("getaddrinfo", Symptom::Network),
    ("failed to lookup address", Symptom::Network),
    ("resource temporarily unavailable", Symptom::Processes),
    ("cannot allocate memory", Symptom::Memory),
    ("too many open files", Symptom::Files),
    ("file too large", Symptom::FileSize),
    ("operation not permitted", Symptom::Call),
    ("function not implemented", Symptom::Call),
];

/// Words of a line that speak of writing.
const WRITING: [&str; 14] = [
    "create",
    "creat",
    "write",
    "writing",
    "remove",
    "delete",
    "unlink",
    "rename",
    "mkdir",
    "touch",
    "move",
    "open for writing",
    "lock",
    "chmod",
];

/// Most lines that are given back.
const MOST: usize = 100;

/// The lines of an output that speak of a refusal, each once, the last ones if there are many.
#[must_use]
pub fn mentions(text: &str) -> Vec<Mention> {
    let mut found: Vec<Mention> = Vec::new();
    for line in text.lines() {
        let lower = line.to_lowercase();
        let Some((_, symptom)) = WORDS.iter().find(|(words, _)| lower.contains(words)) else {
            continue;
        };
        let writes = WRITING.iter().any(|word| lower.contains(word));
        let of_writing = matches!(symptom, Symptom::Path(16 | 18 | 28 | 30));
        let attempt = if writes || of_writing { Attempt::Write } else { Attempt::Read };
        let mention =
            Mention { line: line.to_owned(), symptom: *symptom, paths: paths(line), attempt };
        found.retain(|other| other.line != mention.line);
        found.push(mention);
    }
    let surplus = found.len().saturating_sub(MOST);
    found.drain(..surplus);
    found
}

/// What in a line looks like a path: in quotes, or from a `/`, `./`, `../` or `~/` on.
fn paths(line: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut add = |text: &str| {
        let path = PathBuf::from(text);
        if text.len() > 1 && !found.contains(&path) {
            found.push(path);
        }
    };
    for (open, close) in [('\'', '\''), ('"', '"'), ('`', '`'), ('\u{2018}', '\u{2019}')] {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once(open)
            && let Some((inside, after)) = after.split_once(close)
        {
            if inside.contains('/') {
                add(inside);
            }
            rest = after;
        }
    }
    let ends = |c: char| c.is_whitespace() || "'\"`\u{2018}\u{2019}()[]{}<>,;|".contains(c);
    for word in line.split(ends) {
        let word = word.trim_end_matches([':', '.', '!', '?']);
        // `tool:/path` and `file=/path`.
        let word = word.rsplit_once([':', '=']).map_or(word, |(_, last)| last);
        if ["/", "./", "../", "~/"].iter().any(|start| word.starts_with(start)) {
            add(word);
        }
    }
    found
}
