//! Inside of the machine, as root: runs the cases, says how each came out, and what its processes had
//! to say when one failed.

use std::io::{self, Write};
use std::process::Command;

use super::case::{Outcome, Person};
use super::{kernel, limits, units};

/// A case: its name is a claim.
type Case = (&'static str, fn(&Person) -> Outcome);

const CASES: &[Case] = &[
    ("the_unit_is_ready_when_its_agents_are_up_and_stopping_it_leaves_nothing", units::start_stop),
    ("a_killed_daemon_is_restarted_and_its_mission_goes_on", units::killed),
    ("the_landlock_of_an_older_kernel_is_used_and_what_it_lacks_is_said", kernel::older_landlock),
    ("a_daemon_from_a_terminal_gets_a_scope_and_its_agents_control_groups", limits::terminal),
    ("a_memory_hog_dies_alone_and_is_reported_as_out_of_memory", limits::memory),
    ("a_fork_bomb_ends_at_its_own_limit_and_with_its_mission", limits::pids),
    ("a_quarter_of_a_processor_is_a_quarter", limits::cpu),
    ("a_chain_of_forks_ends_with_its_control_group", limits::kill),
    ("without_control_groups_it_is_said_what_does_not_hold", limits::nowhere),
    ("level_2_a_memory_hog_dies_alone_and_is_reported_as_out_of_memory", limits::memory_2),
    ("level_2_a_fork_bomb_ends_at_its_own_limit_and_with_its_mission", limits::pids_2),
    ("level_2_a_chain_of_forks_ends_with_its_control_group", limits::kill_2),
    ("level_2_a_private_tmp_has_the_size_that_was_asked_for", limits::tmp),
    ("a_control_group_that_cannot_be_written_is_a_gap", kernel::read_only_cgroup),
    ("doctor_finds_a_good_machine_good", kernel::healthy),
    ("doctor_names_what_forbids_user_namespaces_and_its_remedy_works", kernel::no_namespaces),
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
        .args(["-b", "-n", "20", "--no-pager", "-o", "short-monotonic", "-t", "systemd"])
        .output();
    output.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

fn indented(out: &mut impl Write, text: &str) -> io::Result<()> {
    text.lines().try_for_each(|line| writeln!(out, "    {line}"))
}
