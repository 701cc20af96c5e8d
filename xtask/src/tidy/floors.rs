//! The directions of dependency: which module may use which, and that nothing goes in circles.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::reach::{module_of, paths, reach};
use super::source::Source;

/// The floors, lowest first; a room uses only rooms below its own.
const FLOORS: &[&[&str]] = &[
    &["ids", "escape", "table"],
    &["policy", "sys", "console"],
    &["core", "podman", "launch", "workspace"],
    &["store", "config", "proto", "supervise"],
    &["bus", "client", "doctor", "run"],
    &["daemon", "ctl", "mcp", "gateway", "metrics"],
    &["bin"],
];

/// Rooms that see less than their floor allows, and all that they see.
const ONLY: &[(&str, &[&str])] = &[
    ("core", &["ids"]),
    ("policy", &["ids"]),
    ("proto", &["core", "ids"]),
    ("client", &["proto", "core", "ids", "sys"]),
    // `config` for where missions have their sockets: daemon and missionctl must agree on it.
    ("ctl", &["proto", "client", "config", "console", "escape", "table", "workspace", "ids"]),
];

/// Rooms without effects, and what they must not name.
const PURE: &[&str] = &["core", "policy", "proto"];
const IMPURE_CRATES: &[&str] =
    &["tokio", "nix", "libc", "rustix", "rusqlite", "getrandom", "jiff", "sd_notify", "landlock"];
const IMPURE_STD: &[&str] = &["fs", "net", "env", "process", "thread", "io", "os"];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Checks all of `src/`.
pub(super) fn check(sources: &[Source], findings: &mut Vec<Finding>) {
    let mut modules: BTreeSet<Vec<String>> = BTreeSet::new();
    for module in sources.iter().filter_map(|source| module_of(&source.path)) {
        modules.extend((1..=module.len()).map(|length| module[..length].to_vec()));
    }
    let mut circles = Edges::default();
    for source in sources {
        let Some(module) = module_of(&source.path) else { continue };
        // Unit tests may play the part of those above.
        if source.is_of_tests() {
            continue;
        }
        // The map of the house names every room.
        let Some(room) = module.first() else { continue };
        let Some(own) = floor(room) else {
            let what = format!("`{room}` stands on no floor: add it to xtask/src/tidy/floors.rs");
            findings.push(Finding::new(source, 1, what));
            continue;
        };
        for reached in reach(source, &module, &modules) {
            circles.add(source, &module, &reached.segments, reached.line);
            let Some(other) = reached.segments.first().filter(|other| *other != room) else {
                continue;
            };
            let only = ONLY.iter().find(|(who, _)| who == room).map(|(_, seen)| *seen);
            let is_below = floor(other).is_some_and(|theirs| theirs < own);
            if only.is_some_and(|seen| !seen.contains(&other.as_str())) {
                let seen = only.unwrap_or_default().join(", ");
                let what = format!("`{room}` uses `{other}`, but sees only {seen}");
                findings.push(Finding::new(source, reached.line, what));
            } else if !is_below {
                let what = format!("`{room}` uses `{other}`, which is not on a floor below it");
                findings.push(Finding::new(source, reached.line, what));
            }
        }
        if PURE.contains(&room.as_str()) {
            check_purity(source, room, &modules, findings);
        }
    }
    circles.report(findings);
}

fn check_purity(
    source: &Source,
    room: &str,
    modules: &BTreeSet<Vec<String>>,
    findings: &mut Vec<Finding>,
) {
    let mut roots = vec!["std"];
    // `policy::landlock` is a module of ours, not the crate.
    let is_own = |name: &str| modules.contains(&vec![room.to_owned(), name.to_owned()]);
    roots.extend(IMPURE_CRATES.iter().filter(|name| !is_own(name)));
    for written in paths(source, &roots) {
        if source.is_test(written.line) {
            continue;
        }
        let second = written.segments.get(1).map_or("", String::as_str);
        let third = written.segments.get(2).map_or("", String::as_str);
        let clock = second == "time" && matches!(third, "Instant" | "SystemTime");
        if written.segments[0] == "std" && !IMPURE_STD.contains(&second) && !clock {
            continue;
        }
        let what = format!("`{room}` is pure, but names `{}`", written.segments.join("::"));
        findings.push(Finding::new(source, written.line, what));
    }
}

type Step = (String, usize);

/// For each folder: which of its modules uses which, with one place that shows it. Parents and
/// children are not counted: a folder's own file gathers what is in it.
#[derive(Default)]
struct Edges(BTreeMap<Vec<String>, BTreeMap<String, BTreeMap<String, Step>>>);

impl Edges {
    fn add(&mut self, source: &Source, from: &[String], to: &[String], line: usize) {
        if source.is_test(line) {
            return;
        }
        let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) else { return };
        let folder = self.0.entry(from[..shared].to_vec()).or_default();
        let uses = folder.entry(a.clone()).or_default();
        uses.entry(b.clone()).or_insert_with(|| (source.path.clone(), line));
    }

    fn report(&self, findings: &mut Vec<Finding>) {
        for (folder, uses) in &self.0 {
            // The floors already keep the rooms apart.
            if folder.is_empty() {
                continue;
            }
            for circle in circles(uses) {
                let place = &uses[&circle[0]][&circle[1]];
                let what = format!("circle in `{}`: {}", folder.join("::"), circle.join(" -> "));
                findings.push(Finding { path: place.0.clone(), line: place.1, what });
            }
        }
    }
}

/// One shortest circle through each module that is in one, each circle named once.
fn circles(uses: &BTreeMap<String, BTreeMap<String, Step>>) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for start in uses.keys() {
        if found.iter().any(|circle| circle.contains(start)) {
            continue;
        }
        let mut ways = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        'search: while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                let Some(last) = way.last() else { continue };
                for next in uses.get(last).into_iter().flat_map(BTreeMap::keys) {
                    let mut way = way.clone();
                    way.push(next.clone());
                    if next == start {
                        found.push(way);
                        break 'search;
                    }
                    if seen.insert(next.clone()) {
                        longer.push(way);
                    }
                }
            }
            ways = longer;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let mut findings = Vec::new();
        check(&sources, &mut findings);
        findings.into_iter().map(|f| format!("{}:{}: {}", f.path, f.line, f.what)).collect()
    }

    #[test]
    fn a_room_uses_the_rooms_below() {
        let files = [
            ("src/ids.rs", ""),
            ("src/sys/mod.rs", "use crate::ids::Seq;"),
            ("src/launch/mod.rs", "use crate::{ids::Seq, sys::Pid};"),
            ("src/bin/missiond.rs", "fn main() { missiond::launch::run() }"),
        ];
        assert_eq!(findings(&files), [""; 0]);
    }

    #[test]
    fn a_room_never_uses_one_above_or_beside_it() {
        let files = [
            ("src/core/mod.rs", ""),
            ("src/sys/mod.rs", "\nfn f() { crate::launch::x() }"),
            ("src/launch/mod.rs", "use crate::core::Seq;"),
        ];
        assert_eq!(
            findings(&files),
            [
                "src/sys/mod.rs:2: `sys` uses `launch`, which is not on a floor below it",
                "src/launch/mod.rs:1: `launch` uses `core`, which is not on a floor below it",
            ]
        );
    }

    #[test]
    fn missionctl_sees_only_the_protocol() {
        let files = [
            ("src/ctl/mod.rs", "use crate::{client::Client, proto::Method, ids::Seq};"),
            ("src/ctl/ps.rs", "use crate::store::Store;"),
            ("src/client.rs", ""),
            ("src/proto/mod.rs", ""),
            ("src/ids.rs", ""),
            ("src/store/mod.rs", ""),
        ];
        assert_eq!(
            findings(&files),
            [
                "src/ctl/ps.rs:1: `ctl` uses `store`, but sees only proto, client, config, console, escape, table, workspace, ids"
            ]
        );
    }

    #[test]
    fn a_pure_room_names_no_file_clock_or_runtime() {
        let text = "use std::collections::BTreeMap;\nuse std::time::{Duration, Instant};\n\
                    use tokio::sync::mpsc;\nfn f() { std::fs::read(x) }\n\
                    #[cfg(test)]\nmod tests { use std::fs; }\n";
        assert_eq!(
            findings(&[("src/core/a.rs", text)]),
            [
                "src/core/a.rs:2: `core` is pure, but names `std::time::Instant`",
                "src/core/a.rs:3: `core` is pure, but names `tokio::sync::mpsc`",
                "src/core/a.rs:4: `core` is pure, but names `std::fs::read`",
            ]
        );
    }

    #[test]
    fn files_of_a_folder_use_each_other_in_one_direction() {
        let files = [
            ("src/core/mod.rs", "use a::A; use b::B;"),
            ("src/core/a.rs", "use super::b::B;"),
            ("src/core/b/mod.rs", ""),
            ("src/core/b/inner.rs", "use crate::core::c::C; use super::X;"),
            ("src/core/c.rs", "use super::a::A;"),
        ];
        assert_eq!(findings(&files), ["src/core/a.rs:1: circle in `core`: a -> b -> c -> a"]);
    }

    #[test]
    fn a_room_without_a_floor_is_found() {
        assert_eq!(
            findings(&[("src/util/mod.rs", "")]),
            ["src/util/mod.rs:1: `util` stands on no floor: add it to xtask/src/tidy/floors.rs"]
        );
    }
}
