//! What was found, what it means for the levels, and how that is shown.

use std::fmt::Write as _;

use serde::Serialize;

use crate::escape;
use crate::table::Paint;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and something is not enforced or not there.
    Gap,
    /// A level can't do without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What, in a word or two; doesn't change between versions.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What follows from that, where something does; a sentence each.
    pub means: Vec<String>,
    /// What to do: commands, or sentences that begin with a capital letter.
    pub remedy: Vec<String>,
    /// The lowest level that can't do without it when it is [`State::Missing`].
    pub level: u8,
}

impl Check {
    /// It is as it should be.
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Check {
        let (means, remedy) = (Vec::new(), Vec::new());
        Check { name, state: State::Ok, found: found.into(), means, remedy, level: 0 }
    }

    /// Something is not enforced.
    pub(super) fn gap(
        name: &'static str,
        found: impl Into<String>,
        means: &[&str],
        remedy: &[&str],
    ) -> Check {
        Check {
            state: State::Gap,
            means: means.iter().map(|&line| line.to_owned()).collect(),
            remedy: remedy.iter().map(|&line| line.to_owned()).collect(),
            ..Check::ok(name, found)
        }
    }

    /// `level` and those above don't work.
    pub(super) fn missing(
        name: &'static str,
        level: u8,
        found: impl Into<String>,
        remedy: &[&str],
    ) -> Check {
        Check {
            state: State::Missing,
            remedy: remedy.iter().map(|&line| line.to_owned()).collect(),
            level,
            ..Check::ok(name, found)
        }
    }
}

/// Whether agents can run at a level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LevelVerdict {
    /// The level.
    pub level: u8,
    /// They can.
    pub works: bool,
    /// Names of the checks that stand against it.
    pub because: Vec<&'static str>,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Of missiond.
    pub version: &'static str,
    /// Each thing.
    pub checks: Vec<Check>,
    /// Levels 1 to 3.
    pub levels: Vec<LevelVerdict>,
}

impl Report {
    /// Judges the levels by what is missing.
    pub(super) fn new(checks: Vec<Check>) -> Report {
        let verdict = |level: u8| {
            let against = |check: &&Check| check.state == State::Missing && check.level <= level;
            let because: Vec<_> = checks.iter().filter(against).map(|check| check.name).collect();
            LevelVerdict { level, works: because.is_empty(), because }
        };
        let levels = (1..=3).map(verdict).collect();
        Report { version: env!("CARGO_PKG_VERSION"), checks, levels }
    }

    /// Whether a level works.
    #[must_use]
    pub fn works(&self, level: u8) -> bool {
        self.levels.iter().any(|verdict| verdict.level == level && verdict.works)
    }

    /// For programs.
    ///
    /// # Errors
    /// It can't be written as JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// For people.
    #[must_use]
    pub fn table(&self, colours: bool) -> String {
        let mut text = String::new();
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let margin = " ".repeat(8 + 1 + width + 2);
        for check in &self.checks {
            let (word, paint) = match check.state {
                State::Ok => ("ok", Paint::Green),
                State::Gap => ("gap", Paint::Yellow),
                State::Missing => ("missing", Paint::Red),
            };
            // The colour takes no room; the padding comes after it.
            let word = format!("{}{}", paint.on(word, colours), " ".repeat(8 - word.len()));
            let mut line = |text_of: &str, head: &str| {
                let _infallible = writeln!(text, "{head}{}", escape::line(text_of));
            };
            line(&check.found, &format!("{word} {:<width$}  ", check.name));
            for means in &check.means {
                line(means, &margin);
            }
            for (at, step) in check.remedy.iter().enumerate() {
                let head = if at == 0 { "do:  " } else { "     " };
                line(step, &format!("{margin}{head}"));
            }
        }
        text.push('\n');
        for LevelVerdict { level, works, because } in &self.levels {
            let says = match works {
                true => Paint::Green.on("works", colours),
                false => {
                    let why = format!("doesn't work: {}", because.join(", "));
                    Paint::Red.on(&why, colours)
                }
            };
            let _infallible = writeln!(text, "level {level}  {says}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Check::ok("kernel", "Linux 6.1"),
            Check::gap("landlock", "ABI 2", &["signals are open"], &["Linux 6.12 or later"]),
            Check::missing("user namespaces", 2, "clone: EPERM", &["sudo a", "sudo b"]),
            Check::missing(
                "podman",
                3,
                "not \u{1b}[31minstalled",
                &["sudo apt-get install podman"],
            ),
        ])
    }

    #[test]
    fn a_level_works_when_nothing_that_it_needs_is_missing() {
        let report = report();
        let because: Vec<_> = report.levels.iter().map(|level| level.because.clone()).collect();
        assert_eq!(because, [vec![], vec!["user namespaces"], vec!["user namespaces", "podman"]]);
        assert_eq!((report.works(1), report.works(2), report.works(3)), (true, false, false));
    }

    #[test]
    fn a_person_reads_what_is_wrong_what_it_means_and_what_to_do() {
        assert_eq!(
            report().table(false),
            "\
ok       kernel           Linux 6.1
gap      landlock         ABI 2
                          signals are open
                          do:  Linux 6.12 or later
missing  user namespaces  clone: EPERM
                          do:  sudo a
                               sudo b
missing  podman           not \\x1b[31minstalled
                          do:  sudo apt-get install podman

level 1  works
level 2  doesn't work: user namespaces
level 3  doesn't work: user namespaces, podman
"
        );
    }

    #[test]
    fn programs_get_the_same_as_json() {
        let json: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!(json["checks"][1]["state"], "gap");
        assert_eq!(json["checks"][2]["remedy"][1], "sudo b");
        assert_eq!(json["levels"][1]["works"], false);
        assert_eq!(json["levels"][1]["because"][0], "user namespaces");
    }
}
