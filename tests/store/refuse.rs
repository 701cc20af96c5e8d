//! What is not opened, and what is not appended.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use missiond::store::{AppendError, Class, OpenError, Options, Record};

use super::support::{db, open, options, record, skip, skip_without_sqlite3, sqlite, try_open};

fn refused(dir: &Path) -> OpenError {
    try_open(dir, &options()).err().expect("the log is refused")
}

fn closed_log() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.fill(1, 10);
    log.close();
    dir
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_second_opener_is_refused_with_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let own = i32::try_from(std::process::id()).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == own), "{error:?}");
    first.close();
    assert_eq!(open(dir.path()).recovery.stale_lock, None);
}

/// `start --fresh` renamed the state directory of a mission that ran with another runtime directory.
#[test]
fn a_directory_with_an_open_log_can_not_be_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let held = missiond::store::hold(dir.path());
    assert!(matches!(held, Err(OpenError::Locked { pid: Some(_), .. })), "{held:?}");
    first.close();
    let held = missiond::store::hold(dir.path()).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::Locked { .. }));
    drop(held);
    open(dir.path()).close();
}

#[test]
fn the_lock_of_a_dead_opener_is_taken_over() {
    let dir = closed_log();
    std::fs::write(dir.path().join("mission.lock"), "4194303\n").unwrap();
    let log = open(dir.path());
    assert_eq!((log.recovery.stale_lock, log.head.seq), (Some(4_194_303), 10));
}

#[test]
fn a_log_with_a_newer_layout_is_refused() {
    if skip_without_sqlite3("a_log_with_a_newer_layout_is_refused") {
        return;
    }
    let dir = closed_log();
    sqlite(dir.path(), "PRAGMA user_version = 99");
    let error = refused(dir.path());
    assert_eq!(error.to_string(), "the log was written by a newer missiond: layout 99");
}

#[test]
fn a_log_with_a_newer_event_is_refused() {
    for (kind, v) in [("FromTheFuture", 1), ("TaskAssigned", 100)] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let event = Record { kind: kind.into(), v, ..record(1) };
        log.store.append(vec![event], Class::Request).unwrap();
        log.wait_durable(1);
        log.close();
        let error = refused(dir.path()).to_string();
        let what = format!("event 1 is of kind {kind} version {v}");
        assert_eq!(error, format!("the log was written by a newer missiond: {what}"));
    }
}

#[test]
fn a_file_that_is_not_a_log_is_refused_and_left_as_it_is() {
    if skip_without_sqlite3("a_file_that_is_not_a_log_is_refused_and_left_as_it_is") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o700);
    let other = "a letter to my mother, which is longer than a hundred bytes, so that SQLite takes \
                 it for a file with a header, and does not find the one that it wants";
    std::fs::write(db(dir.path()), other).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::NotOurs { .. }));
    assert_eq!(std::fs::read_to_string(db(dir.path())).unwrap(), other);

    std::fs::remove_file(db(dir.path())).unwrap();
    sqlite(dir.path(), "CREATE TABLE recipes(name)");
    assert!(matches!(refused(dir.path()), OpenError::NotOurs { .. }));
    assert_eq!(sqlite(dir.path(), "PRAGMA journal_mode"), "delete\n");

    std::fs::remove_file(db(dir.path())).unwrap();
    std::os::unix::fs::symlink("/dev/null", db(dir.path())).unwrap();
    assert!(matches!(refused(dir.path()), OpenError::NotOurs { .. }));
}

#[test]
fn a_write_ahead_log_without_its_file_is_not_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o700);
    let wal = dir.path().join("mission.db-wal");
    std::fs::write(&wal, "all that is left").unwrap();
    assert!(matches!(refused(dir.path()), OpenError::Corrupt { seq: None, .. }));
    assert_eq!(std::fs::read(&wal).unwrap(), b"all that is left");
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let dir = closed_log();
    chmod(dir.path(), 0o770);
    assert!(matches!(refused(dir.path()), OpenError::BadPermissions { mode: 0o770, .. }));
    chmod(dir.path(), 0o700);
    assert_eq!(open(dir.path()).head.seq, 10);
}

#[test]
fn a_read_only_directory_or_file_is_named() {
    const TEST: &str = "a_read_only_directory_or_file_is_named";
    if nix::unistd::geteuid().is_root() {
        skip(TEST, "user", "root can write everywhere");
        return;
    }
    let dir = closed_log();
    chmod(dir.path(), 0o500);
    std::fs::remove_file(dir.path().join("mission.lock")).unwrap_err();
    chmod(&dir.path().join("mission.lock"), 0o400);
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    chmod(dir.path(), 0o700);
    chmod(&dir.path().join("mission.lock"), 0o600);
    chmod(&db(dir.path()), 0o400);
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::BadPermissions { mode: 0o400, .. }), "{error:?}");
    chmod(&db(dir.path()), 0o600);
    assert_eq!(open(dir.path()).head.seq, 10);
}

#[test]
fn files_and_directory_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state/of/it");
    let log = open(&state);
    log.fill(1, 1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for file in ["mission.db", "mission.db-wal", "mission.db-shm", "mission.lock"] {
        assert_eq!(mode(&state.join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_batch_must_continue_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let append = |seqs: &[u64]| {
        log.store.append(seqs.iter().map(|&seq| record(seq)).collect(), Class::Request)
    };
    let gap = |expected, got| Err(AppendError::OutOfSequence { expected, got });
    assert_eq!(append(&[]), Err(AppendError::Empty));
    assert_eq!(append(&[2]), gap(1, 2));
    assert_eq!(append(&[1, 3]), gap(2, 3));
    assert_eq!(append(&[1, 2]), Ok(()));
    assert_eq!(append(&[2]), gap(3, 2));
    assert_eq!(log.wait_durable(2).seq, 2);
}

#[test]
fn what_waits_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { queue_records: 10, queue_bytes: 1 << 20, ..options() };
    let log = try_open(dir.path(), &small).unwrap();
    let batch = |first: u64, n: u64| (first..first + n).map(record).collect::<Vec<_>>();
    assert_eq!(log.store.append(batch(1, 11), Class::Request), Err(AppendError::QueueFull));
    assert_eq!(log.store.append(batch(1, 21), Class::Fact), Err(AppendError::QueueFull));
    assert_eq!(log.store.append(batch(1, 20), Class::Fact), Ok(()));
    log.wait_durable(20);
    let huge = Record { content: Some("x".repeat(2 << 20).into()), ..record(21) };
    assert_eq!(log.store.append(vec![huge], Class::Request), Err(AppendError::QueueFull));
    let huge = Record { content: Some("x".repeat(65 << 20).into()), ..record(21) };
    let refusal = log.store.append(vec![huge], Class::Fact);
    assert!(matches!(refusal, Err(AppendError::TooLarge { .. })));
}
