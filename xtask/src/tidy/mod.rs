//! `cargo xtask tidy`: the rules of the house that no lint knows. Directions of dependency and circles
//! ([`floors`]), and what holds for each file ([`rules`]). It reads text and tokens, not types: what a
//! macro makes is not seen.

mod floors;
mod reach;
mod rules;
mod source;

use std::io::{self, Write};
use std::path::Path;

use source::Source;

/// Where Rust files are looked for.
const FOLDERS: &[&str] = &["src", "tests", "xtask/src", "benches", "fuzz"];

/// Something that isn't tidy.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(source: &Source, line: usize, what: String) -> Finding {
        Finding { path: source.path.clone(), line, what }
    }
}

fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    floors::check(sources, &mut findings);
    for source in sources {
        rules::check(source, &mut findings);
    }
    findings.sort();
    findings.dedup();
    findings
}

/// Checks the repository at `root`; true if there is nothing to find.
pub(crate) fn run(root: &Path) -> io::Result<bool> {
    let mut sources = Vec::new();
    for folder in FOLDERS {
        gather(root, folder, &mut sources)?;
    }
    let findings = check(&sources);
    let mut out = io::stdout().lock();
    for Finding { path, line, what } in &findings {
        writeln!(out, "{path}:{line}: {what}")?;
    }
    writeln!(out, "tidy: {} files, {} findings", sources.len(), findings.len())?;
    Ok(findings.is_empty())
}

fn gather(root: &Path, folder: &str, sources: &mut Vec<Source>) -> io::Result<()> {
    let entries = match std::fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut entries: Vec<_> = entries.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{folder}/{name}");
        if entry.file_type()?.is_dir() {
            gather(root, &path, sources)?;
        } else if name.ends_with(".rs") {
            sources.push(Source::new(&path, &std::fs::read_to_string(entry.path())?));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_come_in_order_and_once() {
        let sources = [
            Source::new("src/sys/b.rs", "use crate::core::A;\n"),
            Source::new("src/core/a.rs", "//! Doc.\nfn f() { unsafe {} }\n"),
        ];
        let found: Vec<_> = check(&sources).into_iter().map(|f| (f.path, f.line)).collect();
        let at = |path: &str, line| (path.to_owned(), line);
        assert_eq!(found, [at("src/core/a.rs", 2), at("src/sys/b.rs", 1), at("src/sys/b.rs", 1)]);
    }
}
