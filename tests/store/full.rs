//! No room: what is refused, what still passes, and that it comes back.

use missiond::store::{AppendError, Class, Notice, Options, Record, WriteError, verify};

use super::support::{open, options, record, skip_without_sqlite3, sqlite, try_open};

fn big(seq: u64, bytes: usize) -> Record {
    Record { content: Some("x".repeat(bytes).into()), ..record(seq) }
}

#[test]
fn a_failed_batch_leaves_no_trace_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let log = try_open(dir.path(), &Options { size_limit: 1 << 20, ..options() }).unwrap();
    let head = log.fill(1, 3);
    // Larger than what is left, then more that was decided on top of it.
    log.store.append(vec![record(4), big(5, 2 << 20)], Class::Request).unwrap();
    let mut next = 6;
    while log.store.append(vec![record(next)], Class::Request).is_ok() {
        next += 1;
    }
    let Notice::Failed { first_seq, why } = log.next_notice() else { panic!("not refused") };
    assert_eq!(first_seq, 4);
    assert!(matches!(why, WriteError::SizeLimit { limit: 0x10_0000 }), "{why:?}");
    let append = |seq| log.store.append(vec![record(seq)], Class::Request);
    assert_eq!(append(4), Err(AppendError::Rewound));
    assert_eq!(log.store.resume(), Ok(head));
    assert_eq!(log.reader.head().unwrap(), head);
    assert_eq!(append(4), Ok(()));
    let head = log.wait_durable(4);
    assert_eq!(log.close(), head);
    assert_eq!(verify(dir.path()).unwrap(), head);
}

#[test]
fn facts_are_written_over_the_limit_and_requests_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 1 << 20;
    let tight = Options { size_limit: limit, reserve: 1 << 20, headroom: 64 << 10, ..options() };
    let log = try_open(dir.path(), &tight).unwrap();
    log.fill(1, 1);
    log.store.append(vec![big(2, 900 << 10)], Class::Request).unwrap();
    log.wait_durable(2);
    log.store.append(vec![big(3, 500 << 10)], Class::Request).unwrap();
    assert!(matches!(log.next_notice(), Notice::Failed { first_seq: 3, .. }));
    log.store.resume().unwrap();
    log.store.append(vec![big(3, 500 << 10)], Class::Fact).unwrap();
    log.wait_durable(3);
    assert!(matches!(log.next_notice(), Notice::Headroom { low: true, log_free: 0, .. }));
    let refusal = log.store.append(vec![record(4)], Class::Request);
    assert_eq!(refusal, Err(AppendError::LowSpace));
    log.store.append(vec![record(4)], Class::Fact).unwrap();
    log.wait_durable(4);
    log.store.append(vec![big(5, 2 << 20)], Class::Fact).unwrap();
    assert!(matches!(log.next_notice(), Notice::Failed { first_seq: 5, .. }));
    assert_eq!(log.store.resume().unwrap().seq, 4);
    log.close();
    // Opening needs no room that is not there.
    let log = try_open(dir.path(), &tight).unwrap();
    assert_eq!(log.head.seq, 4);
}

#[test]
fn a_log_that_somebody_else_wrote_to_is_fatal() {
    if skip_without_sqlite3("a_log_that_somebody_else_wrote_to_is_fatal") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.fill(1, 1);
    sqlite(
        dir.path(),
        "INSERT INTO events SELECT 2, at, kind, v, actor, envelope, hash, salt, content FROM events",
    );
    log.store.append(vec![record(2)], Class::Request).unwrap();
    let notice = log.next_notice();
    assert!(matches!(notice, Notice::Fatal { .. }), "{notice:?}");
    let refusal = log.store.append(vec![record(3)], Class::Fact);
    assert!(matches!(refusal, Err(AppendError::Dead { .. })), "{refusal:?}");
}
