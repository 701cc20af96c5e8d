//! What an agent may not be able to do: attacks from inside of agents of a mission that the real
//! `missiond start` runs, on the real kernel, as whoever runs the tests; each row at the levels at which
//! it holds.
//!
//! Each row runs in a process of its own, the subreaper of all that it starts, and has failed if
//! anything of it lives in the end. This program is also the attacker: an agent of a test is it again,
//! and does what the test says (`puppet`, `deed`). A harness of its own, for all of that and for the
//! count at the end; it takes the names of rows, `--exact`, `--skip NAME` and `--list`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code outside of a test function"
)]

mod bus;
mod bus_rows;
mod deaths;
mod deed;
mod file_rows;
mod git_rows;
mod process_rows;
mod puppet;
mod raw;
mod sandbox_rows;
mod stage;
#[expect(dead_code, reason = "the rows have processes of their own already")]
#[path = "../support/mod.rs"]
mod support;
mod syscall_rows;
mod terminal;

use std::collections::{BTreeSet, VecDeque};
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use missiond::sys::clock;

/// First argument of an attacker: then the directory of its orders.
pub(crate) const ATTACKER: &str = "--attacker";
/// First argument of an attacker's helper: then its task and an argument.
pub(crate) const HELPER: &str = "--helper";
/// First argument of what takes its standard input for its terminal and then becomes another program.
pub(crate) const ON_TERMINAL: &str = "--on-terminal";
/// The row that this process is for.
const ROW: &str = "MISSIOND_TEST_ESCAPE";

/// The level that its agents run at.
pub(crate) const LEVEL: &str = "MISSIOND_TEST_LEVEL";

/// How long a row may take in all.
const ROW_DEADLINE: Duration = Duration::from_secs(280);

/// One claim.
struct Row {
    /// Its numbers in the list of escapes.
    numbers: &'static [u8],
    /// The levels at which it holds.
    levels: &'static [u8],
    name: &'static str,
    run: fn(&str),
    /// It takes something from all processes of the user, or measures: no other runs beside it.
    alone: bool,
}

/// A claim at a level.
#[derive(Clone, Copy)]
struct Case {
    row: &'static Row,
    level: u8,
}

impl Case {
    fn name(&self) -> String {
        format!("{}_at_level_{}", self.row.name, self.level)
    }
}

macro_rules! rows {
    ($([$($number:literal)+] at [$($level:literal)+] $module:ident::$name:ident $($alone:ident)?;)*) => {
        const ROWS: &[Row] = &[$(Row {
            numbers: &[$($number),+],
            levels: &[$($level),+],
            name: stringify!($name),
            run: $module::$name,
            alone: rows!(@ $($alone)?),
        },)*];
    };
    (@ alone) => { true };
    (@) => { false };
}

rows! {
    [41] at [1 2] bus_rows::bad_input_ends_its_connection_and_nobody_elses;
    [1 2 3] at [2] syscall_rows::input_cannot_be_put_into_a_terminal;
    [4] at [1 2] terminal::the_terminal_of_the_launcher_cannot_be_opened;
    [5 6] at [2] syscall_rows::no_namespace_is_made_and_threads_still_work;
    [7] at [2] syscall_rows::nothing_is_mounted;
    [8 9 10] at [2] syscall_rows::dangerous_parts_of_the_kernel_are_shut;
    [11 12 13 47] at [1 2] process_rows::other_processes_are_out_of_reach;
    [14] at [2] syscall_rows::tables_of_other_machines_are_shut;
    [15 34] at [2] syscall_rows::what_changes_the_machine_is_refused;
    [16] at [2] sandbox_rows::abstract_sockets_of_the_host_are_out_of_reach;
    [17] at [1] bus_rows::doors_of_others_are_shut;
    [17] at [2] sandbox_rows::sockets_of_the_host_are_not_there;
    [18] at [2] sandbox_rows::there_is_no_network;
    [19] at [2] syscall_rows::exotic_sockets_are_refused;
    [20] at [2] sandbox_rows::shared_memory_of_the_host_is_not_there;
    [21] at [1 2] file_rows::files_outside_of_its_own_directories_are_shut;
    [22] at [1 2] file_rows::a_symbolic_link_opens_nothing_and_a_reader_writes_nothing;
    [23] at [2] sandbox_rows::a_directory_swapped_for_a_link_during_setup_gives_nothing;
    [24] at [2] git_rows::a_link_in_the_place_of_a_parent_makes_nothing_outside;
    [25] at [2] git_rows::a_missing_protected_file_is_not_made_and_nothing_stays;
    [26 49] at [2] git_rows::hooks_and_configuration_of_git_are_read_only;
    [27] at [2] git_rows::what_holds_something_protected_stays_in_its_place;
    [28] at [2] sandbox_rows::a_setuid_bit_of_its_own_gives_nothing;
    [29] at [1 2] process_rows::a_setuid_program_gives_nothing;
    [30] at [2] sandbox_rows::it_has_no_capability;
    [31] at [1 2] process_rows::inherited_descriptors_are_closed;
    [32] at [2] sandbox_rows::running_programs_are_not_overwritten;
    [33] at [2] sandbox_rows::the_kernel_tells_and_takes_nothing_by_files;
    [35] at [2] sandbox_rows::a_fork_bomb_ends_at_the_limit alone;
    [36] at [2] sandbox_rows::the_memory_hog_alone_is_killed;
    [37] at [2] sandbox_rows::a_private_directory_is_full_at_its_limit;
    [39] at [2] sandbox_rows::a_later_mount_of_the_host_is_not_seen;
    [40] at [1 2] process_rows::the_environment_of_the_launcher_stays_outside;
    [42] at [1 2] bus_rows::a_role_is_not_exceeded;
    [43] at [1 2] file_rows::a_checkpoint_takes_no_file_from_elsewhere;
    [45] at [2] syscall_rows::its_own_limits_stay;
    [46] at [1] deaths::who_kills_its_shim_is_no_operator;
    [46] at [2] sandbox_rows::its_shim_and_its_init_are_out_of_reach;
        [50] at [2] git_rows::protection_that_the_host_takes_off_ends_the_agent;
    [51] at [2] git_rows::programs_of_other_agents_are_read_only;
    [52] at [1 2] terminal::what_agents_say_does_not_act_on_a_terminal;
    [48] at [1 2] deaths::a_flood_of_descriptors_in_flight_stops_no_start alone;
    [44] at [1 2] deaths::a_daemon_killed_during_setup_leaves_nothing alone;
    [38] at [1 2] deaths::nothing_outlives_a_killed_daemon alone;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [ATTACKER, dir] => {
            deed::serve(dir.as_ref());
            return ExitCode::SUCCESS;
        }
        [HELPER, task, argument] => {
            deed::help(task, argument);
            return ExitCode::SUCCESS;
        }
        [ON_TERMINAL, ref command @ ..] => return terminal::take(command),
        _ => {}
    }
    if let Ok(name) = std::env::var(ROW) {
        return run(ROWS.iter().find(|row| row.name == name).unwrap());
    }
    let wanted = wanted(&words);
    if words.contains(&"--list") {
        if !words.contains(&"--ignored") {
            wanted.iter().for_each(|case| println!("{}: test", case.name()));
        }
        return ExitCode::SUCCESS;
    }
    judge(wanted)
}

/// The rows that the command line of a test program selects.
fn wanted(words: &[&str]) -> Vec<Case> {
    let (mut names, mut skipped, mut exact) = (Vec::<&str>::new(), Vec::<&str>::new(), false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--exact" => exact = true,
            "--skip" => skipped.extend(words.next().copied()),
            "--test-threads" | "--format" | "--color" | "-Z" => {
                words.next();
            }
            option if option.starts_with('-') => {}
            name => names.push(name),
        }
    }
    let fits = |case: &Case, name: &str| {
        let own = case.name();
        if exact { own == name } else { own.contains(name) }
    };
    let selected = |case: &Case| {
        (names.is_empty() || names.iter().any(|name| fits(case, name)))
            && !skipped.iter().any(|name| fits(case, name))
    };
    all().filter(selected).collect()
}

fn all() -> impl Iterator<Item = Case> {
    ROWS.iter().flat_map(|row| row.levels.iter().map(move |&level| Case { row, level }))
}

/// One row, in this process of its own.
fn run(row: &Row) -> ExitCode {
    if stage::level() == 2 && skip_without_level_2(row.name) {
        return ExitCode::SUCCESS;
    }
    missiond::sys::process::become_subreaper().unwrap();
    let outcome = std::panic::catch_unwind(|| (row.run)(row.name));
    let left = stage::nothing_lives_within(stage::under_load(Duration::from_secs(5)));
    if let Err(left) = &left {
        println!("LEFT these processes live still: {left:?}");
        let _as_far_as_it_goes = missiond::launch::sweep(&BTreeSet::new());
    }
    if outcome.is_ok() && left.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How one case came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Held,
    Skipped,
    Failed,
}

/// True if level 2 doesn't work here and the row is skipped.
fn skip_without_level_2(name: &str) -> bool {
    use missiond::launch::{Level2, probe_level_2};
    let found = probe_level_2(env!("CARGO_BIN_EXE_missiond").as_ref());
    let works = matches!(found, Ok(Level2::Works { .. }));
    support::skip(name, "userns", works, &format!("level 2 doesn't work here: {found:?}"))
}

/// Runs rows in processes of their own, three at a time, and counts.
fn judge(cases: Vec<Case>) -> ExitCode {
    let start = clock::since_boot();
    missiond::sys::process::become_subreaper().unwrap();
    println!("\nrunning {} tests", cases.len());
    let count = cases.len();
    let (alone, together): (Vec<Case>, Vec<Case>) = cases.iter().partition(|case| case.row.alone);
    let verdicts = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    let work = |queue: &Mutex<VecDeque<Case>>| {
        while let Some(case) = { queue.lock().unwrap().pop_front() } {
            let (held, output) = in_a_process(case);
            let is_skipped = output.lines().any(|line| line.starts_with("SKIP "));
            output
                .lines()
                .filter(|line| line.starts_with("SKIP ") || line.starts_with("NOTE "))
                .for_each(|line| println!("{line}"));
            println!("test {} ... {}", case.name(), if held { "ok" } else { "FAILED" });
            let verdict = match (held, is_skipped) {
                (false, _) => Verdict::Failed,
                (true, true) => Verdict::Skipped,
                (true, false) => Verdict::Held,
            };
            verdicts.lock().unwrap().push((case, verdict));
            if !held {
                failures.lock().unwrap().push((case, output));
            }
        }
    };
    let queue = Mutex::new(together.into_iter().collect());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| work(&queue));
        }
    });
    work(&Mutex::new(alone.into_iter().collect()));

    let failures = failures.into_inner().unwrap();
    if !failures.is_empty() {
        println!("\nfailures:\n");
        for (case, output) in &failures {
            println!("---- {} (rows {:?}) ----\n{output}", case.name(), case.row.numbers);
        }
    }
    let failed = failures.len();
    let outcome = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {outcome}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        count - failed,
        all().count() - count,
        (clock::since_boot() - start).as_secs_f32()
    );
    let verdicts = verdicts.into_inner().unwrap();
    for level in [1, 2] {
        count_rows(level, &verdicts);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says how many numbers of the list held at a level.
fn count_rows(level: u8, verdicts: &[(Case, Verdict)]) {
    let of = |wanted: Verdict| -> BTreeSet<u8> {
        let cases = verdicts.iter().filter(|(case, v)| case.level == level && *v == wanted);
        cases.flat_map(|(case, _)| case.row.numbers.iter().copied()).collect()
    };
    let (mut held, mut skipped, failed) =
        (of(Verdict::Held), of(Verdict::Skipped), of(Verdict::Failed));
    skipped.retain(|row| !failed.contains(row));
    held.retain(|row| !failed.contains(row) && !skipped.contains(row));
    let rows = held.len() + skipped.len() + failed.len();
    let mut line = format!("ESCAPES at level {level}: {rows} rows, {} held", held.len());
    for (what, which) in [("skipped", &skipped), ("FAILED", &failed)] {
        if !which.is_empty() {
            line.push_str(&format!(", {} {what} {which:?}", which.len()));
        }
    }
    println!("{line}");
}

/// Whether the row held, and what it said.
fn in_a_process(case: Case) -> (bool, String) {
    let mut output = tempfile::tempfile().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(ROW, case.row.name)
        .env(LEVEL, case.level.to_string())
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output.try_clone().unwrap())
        .spawn()
        .unwrap();
    let in_time = stage::ends_within(child.id(), ROW_DEADLINE);
    if !in_time {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let mut text = String::new();
    std::io::Seek::rewind(&mut output).unwrap();
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes).unwrap();
    text.push_str(&String::from_utf8_lossy(&bytes));
    if !in_time {
        text.push_str("\nit did not end in time");
    }
    (in_time && status.success(), text)
}
