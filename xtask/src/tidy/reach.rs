//! Which modules a file reaches: every path that begins with `crate`, `super`, `self` or `missiond`,
//! with its groups unfolded, resolved to the module it stands for.

use std::collections::BTreeSet;

use super::source::{Source, Token};

/// A path as written, and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// The paths of a file whose first segment is one of `roots`.
pub(crate) fn paths(source: &Source, roots: &[&str]) -> Vec<Written> {
    let mut found = Vec::new();
    let tokens = &source.tokens;
    for (at, token) in tokens.iter().enumerate() {
        let begins = at == 0 || tokens[at - 1].text != "::";
        let goes_on = tokens.get(at + 1).is_some_and(|next| next.text == "::");
        if begins && goes_on && roots.contains(&token.text.as_str()) {
            tree(&tokens[at..], &[], &mut found);
        }
    }
    found
}

/// Reads one tree of a `use` (or a plain path) and returns the tokens it took.
fn tree(tokens: &[Token], before: &[String], found: &mut Vec<Written>) -> usize {
    let mut segments = before.to_vec();
    let line = tokens.first().map_or(0, |token| token.line);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.text == "{" {
            return at + group(&tokens[at..], &segments, found);
        }
        let is_word = token.text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if !is_word && token.text != "*" {
            break;
        }
        segments.push(token.text.clone());
        at += 1;
        if tokens.get(at).is_none_or(|next| next.text != "::") {
            break;
        }
        at += 1;
    }
    found.push(Written { segments, line });
    at
}

/// Reads `{a, b::c}` and returns the tokens it took.
fn group(tokens: &[Token], before: &[String], found: &mut Vec<Written>) -> usize {
    let mut at = 1;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "}" => return at + 1,
            "," => at += 1,
            "as" => at += 2,
            _ => at += tree(&tokens[at..], before, found).max(1),
        }
    }
    at
}

/// The module of a file below `src/`: `src/core/state/mod.rs` is `core::state`.
pub(crate) fn module_of(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    if module == ["lib"] {
        module.clear();
    }
    Some(module)
}

/// What a file in `module` reaches: each target as the longest path that is a module of the crate.
pub(crate) fn reach(
    source: &Source,
    module: &[String],
    modules: &BTreeSet<Vec<String>>,
) -> Vec<Written> {
    let mut reached = Vec::new();
    for written in paths(source, &["crate", "super", "self", "missiond"]) {
        let mut base = module.to_vec();
        let mut rest = written.segments.as_slice();
        match rest.first().map(String::as_str) {
            Some("crate" | "missiond") => base.clear(),
            Some("super") => drop(base.pop()),
            _ => {}
        }
        rest = &rest[1..];
        // A unit test's module adds a level that isn't a file.
        let mut inner = usize::from(source.is_test(written.line) && !source.is_of_tests());
        if inner > 0 && written.segments[0] == "super" {
            base = module.to_vec();
            inner = 0;
        }
        while rest.first().is_some_and(|segment| segment == "super") {
            if inner == 0 {
                base.pop();
            }
            inner = 0;
            rest = &rest[1..];
        }
        let mut target = base;
        target.extend(rest.iter().cloned());
        while !target.is_empty() && !modules.contains(&target) {
            target.pop();
        }
        reached.push(Written { segments: target, line: written.line });
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> Vec<String> {
        let source = Source::new("src/a/b.rs", text);
        paths(&source, &["crate", "super"]).into_iter().map(|w| w.segments.join("::")).collect()
    }

    #[test]
    fn groups_unfold() {
        assert_eq!(
            flat("use crate::{core::{event::Event, state::{self, State}}, ids as i, sys::*};"),
            [
                "crate::core::event::Event",
                "crate::core::state::self",
                "crate::core::state::State",
                "crate::ids",
                "crate::sys::*",
            ]
        );
    }

    #[test]
    fn paths_in_code_are_seen_too() {
        assert_eq!(
            flat("fn f() -> crate::core::Seq { x::crate_y(); super::super::z() }"),
            ["crate::core::Seq", "super::super::z"]
        );
    }

    #[test]
    fn a_path_resolves_to_its_module() {
        let modules = ["a", "a::b", "a::c", "d", "d::e"];
        let modules = modules.iter().map(|m| m.split("::").map(str::to_owned).collect()).collect();
        let text = "use super::c::X; use crate::d::e::Y; use super::Z; use self::W;\n\
                    #[cfg(test)]\nmod tests { use super::V; use super::super::c::U; }\n";
        let source = Source::new("src/a/b.rs", text);
        let module = module_of("src/a/b.rs").unwrap();
        let reached = reach(&source, &module, &modules);
        let reached: Vec<_> = reached.iter().map(|w| w.segments.join("::")).collect();
        assert_eq!(reached, ["a::c", "d::e", "a", "a::b", "a::b", "a::c"]);
    }

    #[test]
    fn the_module_of_a_file() {
        let of = |path| module_of(path).map(|m| m.join("::"));
        assert_eq!(of("src/core/state/mod.rs").as_deref(), Some("core::state"));
        assert_eq!(of("src/ids.rs").as_deref(), Some("ids"));
        assert_eq!(of("src/lib.rs").as_deref(), Some(""));
        assert_eq!(of("xtask/src/main.rs"), None);
    }
}
