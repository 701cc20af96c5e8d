//! The two ways in which SQLite was shown to lose an acknowledged commit, as regression tests.
//!
//! 1. A sync fails at COMMIT. The row is invisible to every reader, so it looks as if it had been
//!    taken back; after the next open it is there. Whoever answers "failed" has lied, and whoever
//!    tries again may have it twice.
//! 2. The process reads `mission.db` with plain file calls. Closing that descriptor drops all of
//!    the process's POSIX locks on the file. An outside `sqlite3` then takes itself for the last
//!    user, folds the write-ahead log in and deletes it. What is committed afterwards goes into a
//!    file without a name.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use missiond::store::{
    Class, FatalError, NewSnapshot, Notice, OpenError, Opened, Options, Store, verify,
};

use super::child::{Running, Strace, command, no_strace};
use super::matrix::{skip, skip_for};
use super::script::{DIR, SCRIPT, event, pause, say};

fn open(dir: &Path) -> (Opened, mpsc::Receiver<Notice>) {
    let (send, notices) = mpsc::channel();
    let options = Options { headroom: 0, reserve: 0, ..Options::default() };
    let sink = Box::new(move |notice| {
        let _gone = send.send(notice);
    });
    (Store::open(dir, &options, &|_, _| true, sink).unwrap(), notices)
}

fn outside_sqlite(dir: &Path) -> String {
    let out = Command::new("sqlite3")
        .arg(dir.join("mission.db"))
        .arg("SELECT count(*) FROM events")
        .output()
        .expect("sqlite3 runs");
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn after_a_failed_sync_nothing_is_said_and_the_restart_decides() {
    const TEST: &str = "after_a_failed_sync_nothing_is_said_and_the_restart_decides";
    if let Some(why) = no_strace() {
        skip(TEST, why);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut running = Running::start(command(None, &state, "losses::syncing_child", "sync"));
    let inject = "fdatasync,fsync:error=EIO:when=3";
    let strace = Strace::attach(running.thread, inject, &dir.path().join("log")).unwrap();
    running.proceed();
    let ended = running.finish();
    let seen = strace.finish();
    // And this is the sync that was built in: of the data alone.
    assert!(seen.contains("fdatasync(") && seen.contains("(INJECTED)"), "{seen}");
    let acked = ended.said("durable").last().unwrap().parse::<u64>().unwrap();
    assert_eq!(ended.said("fatal").count(), 1, "{ended:?}");
    assert_eq!(ended.said("seen").collect::<Vec<_>>(), [acked.to_string()], "{ended:?}");
    assert_eq!(ended.said("dead").count(), 1, "{ended:?}");
    let (opened, _notices) = open(&state);
    // Its bytes had reached the kernel, and only the word on them was missing.
    assert_eq!(opened.head.seq, acked + 1);
    assert_eq!(opened.reader.get(acked + 1).unwrap(), Some(event(acked + 1, 1)));
}

/// Appends until the writer stops, and then looks what a reader sees.
#[test]
fn syncing_child() {
    let (Some(dir), Some("sync")) = (std::env::var_os(DIR), std::env::var(SCRIPT).ok().as_deref())
    else {
        return;
    };
    let (opened, notices) = open(Path::new(&dir));
    pause("store-writer", super::script::tid("store-writer"));
    for seq in 1.. {
        opened.store.append(vec![event(seq, 1)], Class::Request).unwrap();
        match notices.recv().unwrap() {
            Notice::Durable { head } => say(&format!("durable {}", head.seq)),
            Notice::Fatal { why } => {
                say(&format!("fatal {why:?}"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    say(&format!("seen {}", opened.reader.head().unwrap().seq));
    let refusal = opened.store.append(vec![event(99, 1)], Class::Fact).unwrap_err();
    say(&format!("dead {refusal}"));
}

#[test]
fn nothing_that_the_store_does_drops_its_locks_and_what_drops_them_is_noticed() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        const TEST: &str =
            "nothing_that_the_store_does_drops_its_locks_and_what_drops_them_is_noticed";
        skip_for("sqlite3", TEST, "no sqlite3 program");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let wal = state.join("mission.db-wal");
    let mut running = Running::start(command(None, &state, "losses::locked_child", "locks"));
    running.proceed();
    let said = |running: &Running, word: &str| {
        let line = running.next_line().expect("the child says something");
        assert!(line.starts_with(word), "{line} instead of {word}");
    };
    // The child has used everything that the store offers, and has its locks still.
    said(&running, "toured");
    assert_eq!(outside_sqlite(&state), "9");
    assert!(wal.exists(), "an outside sqlite3 deleted the write-ahead log");
    running.proceed();
    said(&running, "durable 10");
    // It has read the file now, by plain file calls.
    said(&running, "unlocked");
    assert_eq!(outside_sqlite(&state), "10");
    assert!(!wal.exists(), "the locks were still there: this test shows nothing");
    running.proceed();
    let ended = running.finish();
    assert_eq!(ended.said("fatal").count(), 1, "{ended:?}");
    assert_eq!(ended.said("durable").count(), 0, "{ended:?}");
    assert_eq!(verify(&state).unwrap().seq, 10);
    assert_eq!(open(&state).0.head.seq, 10);
}

#[test]
fn a_log_is_held_by_its_process_and_taken_over_when_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut running = Running::start(command(None, &state, "script::child", "killed"));
    let pid = i32::try_from(running.pid()).unwrap();
    running.proceed();
    while running.next_line().expect("it gets there") != "thread opener 0" {}
    // The kernel's word counts, not what the file says.
    std::fs::write(state.join("mission.lock"), "1\n").unwrap();
    let refusal = Store::open(&state, &Options::default(), &|_, _| true, Box::new(drop));
    let refusal = refusal.expect_err("it is in use");
    assert!(matches!(refusal, OpenError::Locked { pid: Some(found), .. } if found == pid));
    drop(running);
    let (opened, _notices) = open(&state);
    assert_eq!((opened.recovery.stale_lock, opened.head.seq), (Some(1), 9));
    assert!(opened.recovery.wal_pages > 8, "{:?}", opened.recovery);
}

/// Whether the kernel has a POSIX lock of ours on a file.
fn locked(path: &Path) -> bool {
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    let pid = format!(" {} ", std::process::id());
    let mut locks = String::new();
    std::fs::File::open("/proc/locks").unwrap().read_to_string(&mut locks).unwrap();
    locks.lines().any(|lock| lock.contains("POSIX") && lock.contains(&inode) && lock.contains(&pid))
}

#[test]
fn locked_child() {
    let (Some(dir), Some("locks")) = (std::env::var_os(DIR), std::env::var(SCRIPT).ok().as_deref())
    else {
        return;
    };
    let dir = Path::new(&dir);
    let (opened, notices) = open(dir);
    let Opened { store, reader, .. } = opened;
    pause("nothing", 0);
    let (send, done) = mpsc::channel();
    for seq in 1..=9 {
        store.append(vec![event(seq, 1)], Class::Request).unwrap();
        assert!(matches!(notices.recv().unwrap(), Notice::Durable { .. }));
    }
    let snapshot = NewSnapshot { head: store.durable(), version: 1, state: vec![1] };
    let all = send.clone();
    store.save_snapshot(snapshot, move |outcome| all.send(outcome.is_ok()).unwrap());
    let all = send.clone();
    store.erase(vec![1], move |outcome| all.send(outcome.is_ok()).unwrap());
    store.prune(5, move |outcome| send.send(outcome.is_ok()).unwrap());
    assert_eq!(done.iter().take(3).collect::<Vec<_>>(), [true; 3]);
    assert_eq!(reader.scan(1, 1000, &["Tested"]).unwrap().records.len(), 9);
    assert!(reader.get(3).unwrap().is_some() && reader.latest_snapshot(1).unwrap().is_some());
    reader.fold(1, |_| Ok::<(), std::io::Error>(())).unwrap();
    verify(dir).unwrap();
    drop(reader);
    assert!(Store::open(dir, &Options::default(), &|_, _| true, Box::new(drop)).is_err());
    assert!(locked(&dir.join("mission.db")), "the locks are gone");
    say("toured");
    wait();
    store.append(vec![event(10, 1)], Class::Request).unwrap();
    assert!(matches!(notices.recv().unwrap(), Notice::Durable { .. }));
    say("durable 10");
    std::fs::read(dir.join("mission.db")).unwrap();
    assert!(!locked(&dir.join("mission.db")));
    say("unlocked");
    wait();
    store.append(vec![event(11, 1)], Class::Request).unwrap();
    match notices.recv().unwrap() {
        Notice::Fatal { why: FatalError::Vanished { path, .. } } => {
            say(&format!("fatal {}", path.display()));
        }
        other => panic!("{other:?}"),
    }
}

fn wait() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}
