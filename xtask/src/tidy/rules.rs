//! What holds for each file by itself.

use super::Finding;
use super::reach::{Written, paths};
use super::source::Source;

/// Lines of code a file may have; aim at 150 to 400.
const MAX_LINES: usize = 600;
/// Lines a program's main file may have.
const MAX_BIN_LINES: usize = 20;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "manager", "misc", "data"];
/// Where time may come from.
const CLOCKS: &[&str] = &["src/sys/clock.rs", "src/daemon/clock.rs", "xtask/src/clock.rs"];
/// Where `unsafe` may be: the system calls of the product, and those by which a test attacks it, for
/// which nothing safe exists on purpose.
const UNSAFE: &[&str] = &["src/sys/", "tests/escapes/raw.rs"];
/// Words that stand for something that is not there.
const PLACEHOLDERS: &[&str] = &["todo", "unimplemented", "dbg"];
const MARKS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// Checks one file.
pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let path = source.path.as_str();
    let is_ours = path.starts_with("src/") || path.starts_with("xtask/src/");
    let mut find = |line, what: String| findings.push(Finding::new(source, line, what));

    if !source.documented {
        find(1, "opens without `//!`: what it is for, what it deliberately does not do".to_owned());
    }
    let lines = source.lines_of_code();
    if is_ours && lines > MAX_LINES {
        find(1, format!("{lines} lines of code, at most {MAX_LINES}: split it"));
    }
    if path.starts_with("src/bin/") && source.lines > MAX_BIN_LINES {
        find(
            1,
            format!("{lines} lines, at most {MAX_BIN_LINES}: a program is a call of the library"),
        );
    }
    let stem = path.rsplit('/').find(|part| *part != "mod.rs").unwrap_or(path);
    let stem = stem.trim_end_matches(".rs");
    if is_ours && EMPTY_NAMES.contains(&stem) {
        find(1, format!("`{stem}` names nothing: say what is inside"));
    }
    if !UNSAFE.iter().any(|place| path.starts_with(place)) {
        for line in source.lines_with(&["unsafe"]) {
            find(line, "`unsafe` outside src/sys".to_owned());
        }
    }
    for word in PLACEHOLDERS {
        for line in source.lines_with(&[word, "!"]) {
            find(line, format!("`{word}!` has no place"));
        }
    }
    for comment in &source.comments {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let words = comment.text.split(|c| !is_word(c));
        if let Some(mark) = words.into_iter().find(|word| MARKS.contains(word)) {
            find(comment.line, format!("`{mark}`: do it or file it"));
        }
    }
    for (module, call) in [("thread", "sleep"), ("time", "sleep"), ("thread", "sleep_ms")] {
        // The unit tests of what has a runtime own its clock: there a sleep takes no time.
        if module == "time" && source.is_of_tests() {
            continue;
        }
        for line in source.lines_with(&[module, "::", call]) {
            find(line, format!("`{module}::{call}`: wait for the event, with a deadline"));
        }
    }
    if path.starts_with("src/") && !CLOCKS.contains(&path) {
        let named = paths(source, &["std"]);
        for kind in ["Instant", "SystemTime"] {
            // A runtime's clock, which tests own, has a type of the same name.
            let std = |written: &Written| {
                written.segments.get(1..3) == Some(&["time", kind].map(str::to_owned))
            };
            if !named.iter().any(std) {
                continue;
            }
            for line in source.lines_with(&[kind, "::", "now"]) {
                find(
                    line,
                    format!("`{kind}::now` outside the clock: take the time as an argument"),
                );
            }
        }
    }
    for attribute in [&["#", "[", "allow"][..], &["#", "!", "[", "allow"][..]] {
        // What several test programs share, none of them uses whole: nothing can be expected there.
        if path.starts_with("tests/support/") {
            continue;
        }
        for line in source.lines_with(attribute) {
            find(line, "`allow`: use `#[expect(.., reason = \"..\")]`".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Source::new(path, text), &mut findings);
        findings.into_iter().map(|f| format!("{}: {}", f.line, f.what)).collect()
    }

    #[test]
    fn a_tidy_file_has_nothing_to_find() {
        let text = "//! Doc.\n\n/// Says `unsafe`.\nfn f() { g(\"todo!() thread::sleep\") }\n";
        assert_eq!(findings("src/core/a.rs", text), [""; 0]);
        let kernel = "//! Doc.\nfn f() { unsafe { g() } }\n";
        assert_eq!(findings("src/sys/a.rs", kernel), [""; 0]);
    }

    #[test]
    fn each_rule_names_its_line() {
        let text = "fn f() {\n    unsafe { g() }\n    todo!();\n    std::thread::sleep(x);\n    \
                    tokio::time::sleep(x);\n    std::time::Instant::now();\n    #[allow(dead_code)]\n    \
                    // FIXME later\n}\n";
        let found = findings("src/core/a.rs", text);
        let found: Vec<_> = found.iter().filter_map(|f| f.get(..18.min(f.len()))).collect();
        assert_eq!(
            found,
            [
                "1: opens without `",
                "2: `unsafe` outsid",
                "3: `todo!` has no ",
                "8: `FIXME`: do it ",
                "4: `thread::sleep`",
                "5: `time::sleep`: ",
                "6: `Instant::now` ",
                "7: `allow`: use `#",
            ]
        );
    }

    #[test]
    fn time_of_a_runtime_is_the_tests_own() {
        let text = "//! Doc.\nuse tokio::time::Instant;\nfn f() { Instant::now() }\n";
        assert_eq!(findings("src/bus/a.rs", text), [""; 0]);
        let text = "//! Doc.\nuse std::time::{Duration, Instant};\nfn f() { Instant::now() }\n";
        assert_eq!(findings("src/bus/a.rs", text).len(), 1);
        let text = "//! Doc.\nfn f() { tokio::time::sleep(x) }\n";
        assert_eq!(findings("src/bus/tests/a.rs", text), [""; 0]);
        assert_eq!(findings("src/bus/a.rs", text).len(), 1);
    }

    #[test]
    fn a_long_file_is_found_unless_its_tests_make_it_long() {
        let code = |lines: usize| format!("//! Doc.\n{}", "fn f() {}\n".repeat(lines - 1));
        assert_eq!(findings("src/core/a.rs", &code(600)), [""; 0]);
        assert_eq!(
            findings("src/core/a.rs", &code(601)),
            ["1: 601 lines of code, at most 600: split it"]
        );
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "fn t() {}\n".repeat(900));
        assert_eq!(findings("src/core/a.rs", &format!("{}{tests}", code(500))), [""; 0]);
    }

    #[test]
    fn a_program_is_a_call_of_the_library() {
        let text = format!("//! Doc.\n{}", "fn f() {}\n".repeat(20));
        assert_eq!(findings("src/bin/missiond.rs", &text).len(), 1);
    }

    #[test]
    fn a_module_is_named_for_what_is_inside() {
        for path in ["src/util.rs", "src/core/helpers.rs", "src/common/mod.rs"] {
            assert_eq!(findings(path, "//! Doc.\n").len(), 1, "{path}");
        }
        assert_eq!(findings("src/common/tree.rs", "//! Doc.\n"), [""; 0]);
    }
}
