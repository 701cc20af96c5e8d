//! Inside of the machine, as root: runs the cases, says how each came out, and what its processes had
//! to say when one failed.

use std::io::{self, Write};
use std::process::Command;

use super::case::{Outcome, Person};
use super::{kernel, units};

/// A case: its name is a claim.
type Case = (&'static str, fn(&Person) -> Outcome);

const CASES: &[Case] = &[
    ("the_unit_is_ready_when_its_agents_are_up_and_stopping_it_leaves_nothing", units::start_stop),
    ("a_killed_daemon_is_restarted_and_its_mission_goes_on", units::killed),
    ("the_landlock_of_an_older_kernel_is_used_and_what_it_lacks_is_said", kernel::older_landlock),
];

/// Runs the cases whose name contains `only`; true if it got through them.
pub(crate) fn run(only: &str) -> io::Result<bool> {
    let mut out = io::stdout();
    let person = match Person::named("demo") {
        Ok(person) => person,
        Err(failure) => {
            writeln!(out, "FAIL setup: {failure}")?;
            return Ok(false);
        }
    };
    for (name, case) in CASES.iter().filter(|(name, _)| name.contains(only)) {
        let began = missiond::sys::clock::since_boot();
        let outcome = case(&person);
        let took = missiond::sys::clock::since_boot().saturating_sub(began).as_secs();
        match outcome {
            Ok(()) => writeln!(out, "PASS {name} ({took} s)")?,
            Err(failure) => {
                writeln!(out, "FAIL {name} ({took} s)")?;
                indented(&mut out, &failure.to_string())?;
                indented(&mut out, &journal())?;
            }
        }
    }
    writeln!(out, "{}", super::DONE)?;
    out.flush()?;
    Ok(true)
}

/// The last that the services of the machine said.
fn journal() -> String {
    let output = Command::new("journalctl")
        .args(["-b", "-n", "40", "--no-pager", "-o", "short-monotonic"])
        .output();
    output.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

fn indented(out: &mut impl Write, text: &str) -> io::Result<()> {
    text.lines().try_for_each(|line| writeln!(out, "    {line}"))
}
