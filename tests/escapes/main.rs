//! What an agent at level 1 may not be able to do: attacks from inside of agents of a mission that the
//! real `missiond start` runs, on the real kernel, as whoever runs the tests.
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
mod process_rows;
mod puppet;
mod stage;
#[expect(dead_code, reason = "the rows have processes of their own already")]
#[path = "../support/mod.rs"]
mod support;
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

/// How long a row may take in all.
const ROW_DEADLINE: Duration = Duration::from_secs(280);

/// One claim.
struct Row {
    /// Its number in the list of escapes.
    number: &'static str,
    name: &'static str,
    run: fn(&str),
    /// It takes something from all processes of the user, or measures: no other runs beside it.
    alone: bool,
}

macro_rules! rows {
    ($($number:literal $module:ident::$name:ident $($alone:ident)?;)*) => {
        const ROWS: &[Row] = &[$(Row {
            number: $number,
            name: stringify!($name),
            run: $module::$name,
            alone: rows!(@ $($alone)?),
        },)*];
    };
    (@ alone) => { true };
    (@) => { false };
}

rows! {
    "41" bus_rows::bad_input_ends_its_connection_and_nobody_elses;
    "4" terminal::the_terminal_of_the_launcher_cannot_be_opened;
    "17" bus_rows::doors_of_others_are_shut;
    "21" file_rows::files_outside_of_its_own_directories_are_shut;
    "22" file_rows::a_symbolic_link_opens_nothing_and_a_reader_writes_nothing;
    "29" process_rows::a_setuid_program_gives_nothing;
    "31" process_rows::inherited_descriptors_are_closed;
    "40" process_rows::the_environment_of_the_launcher_stays_outside;
    "42" bus_rows::a_role_is_not_exceeded;
    "43" file_rows::a_checkpoint_takes_no_file_from_elsewhere;
    "46" deaths::who_kills_its_shim_is_no_operator;
    "47" process_rows::other_processes_are_out_of_reach;
    "52" terminal::what_agents_say_does_not_act_on_a_terminal;
    "48" deaths::a_flood_of_descriptors_in_flight_stops_no_start alone;
    "44" deaths::a_daemon_killed_during_setup_leaves_nothing alone;
    "38" deaths::nothing_outlives_a_killed_daemon alone;
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
            wanted.iter().for_each(|row| println!("{}: test", row.name));
        }
        return ExitCode::SUCCESS;
    }
    judge(wanted)
}

/// The rows that the command line of a test program selects.
fn wanted(words: &[&str]) -> Vec<&'static Row> {
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
    let fits =
        |row: &&Row, name: &str| if exact { row.name == name } else { row.name.contains(name) };
    let selected = |row: &&Row| {
        (names.is_empty() || names.iter().any(|name| fits(row, name)))
            && !skipped.iter().any(|name| fits(row, name))
    };
    ROWS.iter().filter(selected).collect()
}

/// One row, in this process of its own.
fn run(row: &Row) -> ExitCode {
    missiond::sys::process::become_subreaper().unwrap();
    let outcome = std::panic::catch_unwind(|| (row.run)(row.name));
    let left = stage::nothing_lives_within(stage::under_load(Duration::from_secs(5)));
    if let Err(left) = &left {
        println!("LEFT these processes live still: {left:?}");
        let _as_far_as_it_goes = missiond::launch::sweep(&BTreeSet::new());
    }
    if outcome.is_ok() && left.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs rows in processes of their own, two at a time, and counts.
fn judge(rows: Vec<&'static Row>) -> ExitCode {
    let start = clock::since_boot();
    missiond::sys::process::become_subreaper().unwrap();
    println!("\nrunning {} tests", rows.len());
    let (alone, together): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.alone);
    let failures = Mutex::new(Vec::new());
    let skipped = Mutex::new(0);
    let work = |queue: &Mutex<VecDeque<&'static Row>>| {
        while let Some(row) = { queue.lock().unwrap().pop_front() } {
            let (held, output) = in_a_process(row);
            let is_skipped = output.lines().any(|line| line.starts_with("SKIP "));
            output
                .lines()
                .filter(|line| line.starts_with("SKIP ") || line.starts_with("NOTE "))
                .for_each(|line| println!("{line}"));
            println!("test {} ... {}", row.name, if held { "ok" } else { "FAILED" });
            *skipped.lock().unwrap() += usize::from(held && is_skipped);
            if !held {
                failures.lock().unwrap().push((row, output));
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

    let (failures, skipped) = (failures.into_inner().unwrap(), skipped.into_inner().unwrap());
    if !failures.is_empty() {
        println!("\nfailures:\n");
        for (row, output) in &failures {
            println!("---- {} (row {}) ----\n{output}", row.name, row.number);
        }
    }
    let (count, failed) = (rows.len(), failures.len());
    let outcome = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {outcome}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        count - failed,
        ROWS.len() - count,
        (clock::since_boot() - start).as_secs_f32()
    );
    let held = count - failed - skipped;
    let skips = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    println!("escapes: {count} rows at level 1, {held} held{skips}");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the row held, and what it said.
fn in_a_process(row: &Row) -> (bool, String) {
    let mut output = tempfile::tempfile().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(ROW, row.name)
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
