//! Appending and reading.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use missiond::store::{Class, Notice, Options, Record};

use super::support::{
    DEADLINE, db, open, open_with, options, record, skip_without_sqlite3, try_open,
};

#[test]
fn what_is_durable_is_read_back_as_it_was_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert!(log.recovery.created);
    let head = log.fill(1, 50);
    let page = log.reader.scan(1, 1000, &[]).unwrap();
    assert_eq!(page.records, (1..=50).map(record).collect::<Vec<_>>());
    assert!(page.at_end);
    assert_eq!(log.reader.head().unwrap(), head);
    assert_eq!(log.close(), head);

    let log = open(dir.path());
    assert_eq!((log.head, log.recovery.created), (head, false));
    assert_eq!(log.reader.get(7).unwrap(), Some(record(7)));
    assert_eq!(log.reader.get(51).unwrap(), None);
    assert_eq!(log.fill(51, 51).seq, 51);
}

#[test]
fn what_waits_while_the_writer_is_busy_shares_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (send, notices) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    // Notices are given on the writer's thread: it is busy for as long as this takes.
    let log = open_with(dir.path(), &options(), move |notice| {
        send.send(notice).unwrap();
        // The end is dropped with the first word, and later ones wait for nothing.
        let _released = released.recv_timeout(DEADLINE);
    });
    let durable = || match notices.recv_timeout(DEADLINE) {
        Ok(Notice::Durable { head }) => head.seq,
        other => panic!("{other:?}"),
    };
    log.append(vec![record(1)], Class::Request).unwrap();
    assert_eq!(durable(), 1);
    for seq in 2..=2000 {
        log.append(vec![record(seq)], Class::Request).unwrap();
    }
    drop(release);
    assert_eq!(durable(), 2000, "the end of the first commit after that");
    log.close();
    assert!(notices.try_recv().is_err(), "2 commits for 2000 batches");
}

#[test]
fn a_filter_skips_events_and_still_comes_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let batch = (1..=3000).map(record).collect();
    log.store.append(batch, Class::Request).unwrap();
    log.wait_durable(3000);
    let kinds = ["AgentExited"];
    let mut found = Vec::new();
    let mut page = log.reader.scan(1, 300, &kinds).unwrap();
    while !page.at_end {
        assert_eq!(page.records.len(), 300);
        found.append(&mut page.records);
        page = log.reader.scan(page.next_seq, 300, &kinds).unwrap();
    }
    found.append(&mut page.records);
    let expected: Vec<Record> = (1..=3000).map(record).filter(|r| &*r.kind == kinds[0]).collect();
    assert_eq!(found, expected);
    let none = log.reader.scan(1, 10, &["NeverHappened"]).unwrap();
    assert_eq!((none.records.len(), none.next_seq, none.at_end), (0, 3001, true));
    let mut folded = 0;
    let last = log.reader.fold(2000, |record| {
        folded += 1;
        assert_eq!(record.content, None);
        if record.seq > 2500 { Err("enough") } else { Ok(()) }
    });
    assert_eq!(
        (folded, last.unwrap_err().to_string().as_str()),
        (502, "reading stopped at event 2501")
    );
}

#[test]
fn an_outside_reader_holds_the_write_ahead_log_up_and_that_is_said() {
    if skip_without_sqlite3("an_outside_reader_holds_the_write_ahead_log_up_and_that_is_said") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = Options { checkpoint_bytes: 4096, ..options() };
    let log = try_open(dir.path(), &small).unwrap();
    log.fill(1, 1);
    let mut outside = Command::new("sqlite3")
        .arg(db(dir.path()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = outside.stdin.take().unwrap();
    stdin.write_all(b"BEGIN; SELECT 'reading', count(*) FROM events;\n").unwrap();
    let mut said = String::new();
    BufReader::new(outside.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "reading|1\n");

    let wal = || std::fs::metadata(dir.path().join("mission.db-wal")).unwrap().len();
    let large = |seq| Record { content: Some("x".repeat(100_000).into()), ..record(seq) };
    let mut seq = 1;
    let mut write = || {
        seq += 1;
        log.store.append(vec![large(seq)], Class::Request).unwrap();
        seq
    };
    let mut alert = None;
    while wal() < 2 << 20 {
        let seq = write();
        loop {
            match log.next_notice() {
                Notice::WalLarge { bytes } => alert = Some(bytes),
                Notice::Durable { head } if head.seq == seq => break,
                other => panic!("{other:?}"),
            }
        }
    }
    // The checkpoint that sees all of this may still be under way, however long it takes.
    let alert = alert.unwrap_or_else(|| match log.next_notice() {
        Notice::WalLarge { bytes } => bytes,
        other => panic!("{other:?}"),
    });
    assert!(alert >= 1 << 20);

    // It lets go, and the log is written from its start again: some write does not lengthen it. How
    // many come before that is for the thread that checkpoints, which nobody waits for.
    drop(stdin);
    outside.wait().unwrap();
    let mut before = 0;
    for writes in 0.. {
        assert!(writes < 5000, "{before} bytes and still growing");
        before = wal();
        log.wait_durable(write());
        if wal() == before {
            break;
        }
    }
    // That was no accident of its size: there is room in it now for as much as it held.
    for _ in 0..10 {
        log.wait_durable(write());
        assert_eq!(wal(), before);
    }
}

/// A thousand messages of half a megabyte were held at once for each reader.
#[test]
fn a_page_of_large_events_is_short_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let content: std::sync::Arc<str> = format!("\"{}\"", "x".repeat(1 << 20)).into();
    for seq in 1..=9 {
        let large = Record { content: Some(content.clone()), ..record(seq) };
        log.store.append(vec![large], Class::Request).unwrap();
    }
    log.wait_durable(9);
    let (mut from, mut sizes) = (1, Vec::new());
    loop {
        let page = log.reader.scan(from, 1000, &[]).unwrap();
        sizes.push(page.records.len());
        from = page.next_seq;
        if page.at_end {
            break;
        }
    }
    assert_eq!((sizes, from), (vec![4, 4, 1], 10));
    log.close();
}
