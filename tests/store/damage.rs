//! Damage is found, named, and left as it is.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use missiond::store::{Flaw, OpenError, VerifyError, verify};

use super::support::{db, open, options, skip_without_sqlite3, sqlite, try_open};

fn closed_log() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.fill(1, 200);
    log.close();
    dir
}

fn flaw(dir: &Path) -> (u64, Flaw) {
    match verify(dir) {
        Err(VerifyError::Broken { seq, flaw }) => (seq, flaw),
        other => panic!("expected a broken chain, got {other:?}"),
    }
}

/// The log is refused, naming `seq`, and not changed by that.
fn refused_at(dir: &Path, seq: u64) {
    let before = std::fs::read(db(dir)).unwrap();
    match try_open(dir, &options()).err() {
        Some(OpenError::Corrupt { seq: Some(found), .. }) => assert_eq!(found, seq),
        other => panic!("expected damage, got {other:?}"),
    }
    assert!(std::fs::read(db(dir)).unwrap() == before, "the file was changed");
}

#[test]
fn a_changed_field_of_any_kind_is_found() {
    if skip_without_sqlite3("a_changed_field_of_any_kind_is_found") {
        return;
    }
    for change in [
        "at = at + 1",
        "kind = 'AgentStarted'",
        "v = 2",
        "actor = 'lead'",
        "envelope = '{}'",
        "content = '{}'",
        "salt = zeroblob(16)",
        "hash = zeroblob(32)",
        "content = NULL",
        "salt = NULL, content = NULL",
    ] {
        let dir = closed_log();
        sqlite(dir.path(), &format!("UPDATE events SET {change} WHERE seq = 123"));
        assert_eq!(flaw(dir.path()), (123, Flaw::Altered), "{change}");
        refused_at(dir.path(), 123);
    }
}

#[test]
fn a_removed_row_is_found() {
    if skip_without_sqlite3("a_removed_row_is_found") {
        return;
    }
    let dir = closed_log();
    sqlite(dir.path(), "DELETE FROM events WHERE seq = 50");
    assert_eq!(flaw(dir.path()), (50, Flaw::Missing));
    refused_at(dir.path(), 50);
}

#[test]
fn swapped_rows_are_found() {
    if skip_without_sqlite3("swapped_rows_are_found") {
        return;
    }
    let dir = closed_log();
    sqlite(
        dir.path(),
        "UPDATE events SET seq = -1 WHERE seq = 10; UPDATE events SET seq = 10 WHERE seq = 11;
         UPDATE events SET seq = 11 WHERE seq = -1",
    );
    assert_eq!(flaw(dir.path()), (10, Flaw::Altered));
    refused_at(dir.path(), 10);
}

#[test]
fn a_tail_that_is_missing_below_a_recorded_head_is_found() {
    if skip_without_sqlite3("a_tail_that_is_missing_below_a_recorded_head_is_found") {
        return;
    }
    let dir = closed_log();
    sqlite(dir.path(), "INSERT INTO segments VALUES (300, 1, zeroblob(32))");
    assert_eq!(flaw(dir.path()), (201, Flaw::Missing));
    refused_at(dir.path(), 201);
}

#[test]
fn a_flipped_bit_in_the_text_of_a_row_is_found() {
    let dir = closed_log();
    let bytes = std::fs::read(db(dir.path())).unwrap();
    let needle = br#"{"n":77}"#;
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(db(dir.path())).unwrap();
    file.write_all_at(b"9", at as u64 + 5).unwrap();
    drop(file);
    assert_eq!(flaw(dir.path()), (77, Flaw::Altered));
    refused_at(dir.path(), 77);
}

#[test]
fn a_page_of_rubbish_is_found() {
    let dir = closed_log();
    let bytes = std::fs::read(db(dir.path())).unwrap();
    let needle = br#"{"n":77}"#;
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(db(dir.path())).unwrap();
    file.write_all_at(&[0x5a; 4096], at as u64 / 4096 * 4096).unwrap();
    drop(file);
    let (seq, flaw) = flaw(dir.path());
    assert!(seq <= 77 && matches!(flaw, Flaw::Unreadable(_)), "event {seq} {flaw}");
    refused_at(dir.path(), seq);
}

#[test]
fn a_file_that_was_cut_off_is_found() {
    let dir = closed_log();
    let file = std::fs::OpenOptions::new().write(true).open(db(dir.path())).unwrap();
    file.set_len(4096 * 8).unwrap();
    drop(file);
    let before = std::fs::read(db(dir.path())).unwrap();
    let refusal = try_open(dir.path(), &options()).err();
    assert!(matches!(refusal, Some(OpenError::Corrupt { .. })), "{refusal:?}");
    assert!(std::fs::read(db(dir.path())).unwrap() == before, "the file was changed");
    assert!(verify(dir.path()).is_err());
}
