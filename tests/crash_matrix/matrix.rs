//! Every N: the N-th writing call of one thread kills the process, fails with EIO, or with ENOSPC.
//!
//! Afterwards the log opens, its chain verifies, there is no gap, and every acknowledged event is
//! there as it was acknowledged.

use std::path::Path;

use missiond::store::{Notice, Options, Store, verify};

use super::child::{Ended, Running, Strace, command, no_strace};
use super::script::{LAST, event};

/// The calls that change what is on the disk. strace counts each of them for itself, so each has
/// its own row of the matrix: in one set the rarer ones would hardly be met.
const CALLS: [&str; 4] = ["pwrite64", "fdatasync", "fsync", "ftruncate"];
/// More calls than any script makes.
const MANY: u32 = 400;

pub(crate) fn skip(test: &str, why: &str) {
    skip_for("strace", test, why);
}

/// Skips a test, or fails it when `MISSIOND_REQUIRE` names what is missing.
pub(crate) fn skip_for(needs: &str, test: &str, why: &str) {
    let required = std::env::var("MISSIOND_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == needs), "{test} needs {needs}: {why}");
    println!("SKIP {test}: {why}");
}

/// Runs the script once for each call and N until nothing is injected any more, and returns the runs.
fn matrix(test: &str, script: &str, fault: &str, prepare: &dyn Fn(&Path)) -> Vec<Ended> {
    if let Some(why) = no_strace() {
        skip(test, why);
        return Vec::new();
    }
    let mut runs = Vec::new();
    for call in CALLS {
        let before = runs.len();
        for n in 1.. {
            assert!(n < MANY, "{script} makes too many calls of {call}");
            let (ended, injected) = run(script, &format!("{call}:{fault}:when={n}"), prepare);
            runs.push(ended);
            if !injected {
                break;
            }
        }
        println!("{test}: {} runs with a fault at {call}", runs.len() - before - 1);
    }
    runs
}

/// Runs the script with one fault, and tells whether it was met.
fn run(script: &str, inject: &str, prepare: &dyn Fn(&Path)) -> (Ended, bool) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    prepare(&state);
    let mut running = Running::start(command(None, &state, "script::child", script));
    let strace = Strace::attach(running.thread, inject, &dir.path().join("log")).unwrap();
    running.proceed();
    let ended = running.finish();
    let injected = strace.finish().contains("(INJECTED)") || !ended.status.success();
    check(&state, &ended, &format!("{script} {inject}"));
    (ended, injected)
}

/// What must hold whatever happened.
fn check(state: &Path, ended: &Ended, case: &str) {
    let acked: Vec<(u64, u32)> = ended
        .said("durable")
        .map(|said| {
            let (seq, attempt) = said.split_once(' ').unwrap();
            (seq.parse().unwrap(), attempt.parse().unwrap())
        })
        .collect();
    assert!(acked.windows(2).all(|two| two[0].0 + 1 == two[1].0), "{case}: {ended:?}");
    let options = Options { headroom: 0, reserve: 0, ..Options::default() };
    let opened = Store::open(state, &options, &|_, _| true, Box::new(|_: Notice| {}))
        .unwrap_or_else(|error| panic!("{case}: {error:?} after {ended:?}"));
    let page = opened.reader.scan(1, 1000, &[]).unwrap();
    let last_acked = acked.last().map_or(0, |(seq, _)| *seq);
    let found = page.records.len() as u64;
    assert!(found >= last_acked && found <= LAST, "{case}: {found} events after {ended:?}");
    for (record, seq) in page.records.iter().zip(1..) {
        assert_eq!(record.seq, seq, "{case}: a gap");
        let as_tried = |attempt| {
            let mut expected = event(seq, attempt);
            if record.content.is_none() && seq <= 2 {
                // The script erases these at its end.
                expected.content = None;
            }
            *record == expected
        };
        match acked.iter().find(|(acked, _)| *acked == seq) {
            Some((_, attempt)) => assert!(as_tried(*attempt), "{case}: event {seq} is another"),
            None => assert!((1..20).any(as_tried), "{case}: event {seq} is none of ours"),
        }
    }
    let head = opened.store.close();
    assert_eq!(verify(state).unwrap(), head, "{case}");
}

fn empty(_: &Path) {}

/// A log that was killed with a full write-ahead log.
fn killed(state: &Path) {
    let mut running = Running::start(command(None, state, "script::child", "killed"));
    running.proceed();
    while running.next_line().expect("it gets there") != "thread opener 0" {}
    drop(running);
    assert!(std::fs::metadata(state.join("mission.db-wal")).unwrap().len() > 32 << 10);
}

/// What must have happened in one run of a matrix at least, or it has shown nothing.
fn once(runs: &[Ended], what: &str, is: impl Fn(&Ended) -> bool) {
    assert!(runs.is_empty() || runs.iter().any(is), "in none of {} runs: {what}", runs.len());
}

fn killed_in_the_middle(run: &Ended) -> bool {
    let acked = run.said("durable").count() as u64;
    !run.status.success() && acked > 0 && acked < LAST
}

fn killed_before_the_end(run: &Ended) -> bool {
    !run.status.success() && run.said("durable").count() == 0
}

fn fatal(run: &Ended) -> bool {
    run.said("fatal").count() == 1
}

/// Something failed, was tried again, and then everything was written.
fn recovered(run: &Ended) -> bool {
    run.said("failed").count() > 0 && run.said("durable").count() as u64 == LAST
}

fn refused(run: &Ended) -> bool {
    run.said("refused").count() == 1
}

macro_rules! matrix {
    ($($name:ident: $script:literal, $fault:literal, $prepare:ident, $($happens:ident),*;)*) => {$(
        #[test]
        fn $name() {
            let runs = matrix(stringify!($name), $script, $fault, &$prepare);
            $(once(&runs, stringify!($happens), $happens);)*
        }
    )*};
}

matrix! {
    killed_at_any_write_of_the_writer_nothing_acknowledged_is_lost:
        "store-writer", "signal=KILL", empty, killed_in_the_middle;
    killed_at_any_write_with_process_durability_nothing_acknowledged_is_lost:
        "store-writer unsynced", "signal=KILL", empty, killed_in_the_middle;
    an_input_output_error_at_any_write_of_the_writer_loses_nothing_acknowledged:
        "store-writer", "error=EIO", empty, fatal;
    a_full_disk_at_any_write_of_the_writer_loses_nothing_acknowledged:
        "store-writer", "error=ENOSPC", empty, recovered, fatal;
    killed_at_any_write_of_a_checkpoint_nothing_acknowledged_is_lost:
        "store-fold", "signal=KILL", empty, killed_in_the_middle;
    an_input_output_error_at_any_write_of_a_checkpoint_loses_nothing_acknowledged:
        "store-fold", "error=EIO", empty, fatal;
    a_full_disk_at_any_write_of_a_checkpoint_loses_nothing_acknowledged:
        "store-fold", "error=ENOSPC", empty, fatal;
    killed_at_any_write_of_making_a_log_it_can_be_made_again:
        "open", "signal=KILL", empty, killed_before_the_end;
    an_error_at_any_write_of_making_a_log_leaves_one_that_opens:
        "open", "error=EIO", empty, refused;
    a_full_disk_at_any_write_of_making_a_log_leaves_one_that_opens:
        "open", "error=ENOSPC", empty, refused;
    killed_at_any_write_of_a_recovery_it_recovers_the_next_time:
        "open", "signal=KILL", killed, killed_before_the_end;
    an_error_at_any_write_of_a_recovery_loses_nothing:
        "open", "error=EIO", killed, refused;
}
