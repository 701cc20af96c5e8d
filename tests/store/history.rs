//! Snapshots, pruning, erasing.

use std::sync::mpsc;

use missiond::store::{Class, Durability, Head, JobError, NewSnapshot, Options, Record, verify};

use super::support::{
    DEADLINE, Log, open, options, record, skip_without_sqlite3, sqlite, try_open,
};

/// Runs a job and waits for its outcome.
fn job<T: Send + 'static>(
    submit: impl FnOnce(Box<dyn FnOnce(Result<T, JobError>) + Send>),
) -> Result<T, JobError> {
    let (send, outcome) = mpsc::channel();
    submit(Box::new(move |result| send.send(result).unwrap()));
    outcome.recv_timeout(DEADLINE).expect("an outcome within the deadline")
}

fn save(log: &Log, head: Head, state: &str) -> Result<(), JobError> {
    let snapshot = NewSnapshot { head, version: 1, state: state.into() };
    job(|done| log.store.save_snapshot(snapshot, done))
}

fn prune(log: &Log, below: u64) -> Result<u64, JobError> {
    job(|done| log.store.prune(below, done))
}

/// Events up to `last` in large batches, which do not sync each.
fn fill_fast(log: &Log, first: u64, last: u64) -> Head {
    let seqs: Vec<u64> = (first..=last).collect();
    let mut head = Head::EMPTY;
    for chunk in seqs.chunks(5000) {
        let batch: Vec<Record> = chunk.iter().map(|&seq| record(seq)).collect();
        log.store.append(batch, Class::Request).unwrap();
        head = log.wait_durable(chunk[chunk.len() - 1]);
    }
    head
}

#[test]
fn the_newest_snapshot_comes_back_at_open_and_two_are_kept() {
    if skip_without_sqlite3("the_newest_snapshot_comes_back_at_open_and_two_are_kept") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for (seq, state) in [(1, "one"), (2, "two"), (3, "three")] {
        let head = log.fill(seq, seq);
        save(&log, head, state).unwrap();
    }
    log.close();
    assert_eq!(sqlite(dir.path(), "SELECT seq FROM snapshots"), "2\n3\n");
    let log = open(dir.path());
    let snapshot = log.snapshot.as_ref().unwrap();
    assert_eq!((snapshot.state.as_slice(), snapshot.head.seq), (&b"three"[..], 3));
    assert_eq!(log.recovery.verified_from, 3);
    assert_eq!(log.reader.latest_snapshot(1).unwrap().as_ref(), Some(snapshot));
    assert_eq!(log.reader.latest_snapshot(2).unwrap(), None);
}

#[test]
fn a_snapshot_of_a_head_that_never_was_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let head = log.fill(1, 2);
    for wrong in [Head { seq: 1, ..head }, Head { seq: 3, ..head }] {
        let outcome = save(&log, wrong, "state");
        assert!(matches!(outcome, Err(JobError::UnknownHead { seq }) if seq == wrong.seq));
    }
    assert_eq!(log.fill(3, 3).seq, 3);
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_older_one_and_then_to_the_whole_log() {
    if skip_without_sqlite3(
        "a_damaged_snapshot_falls_back_to_the_older_one_and_then_to_the_whole_log",
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let first = log.fill(1, 1);
    save(&log, first, "one").unwrap();
    let second = log.fill(2, 2);
    save(&log, second, "two").unwrap();
    log.close();
    sqlite(dir.path(), "UPDATE snapshots SET state = x'747761' WHERE seq = 2");
    let log = open(dir.path());
    assert_eq!(log.snapshot.as_ref().map(|snapshot| snapshot.head), Some(first));
    assert_eq!(log.recovery.damaged_snapshots, [2]);
    log.close();
    sqlite(dir.path(), "UPDATE snapshots SET digest = zeroblob(32)");
    let log = open(dir.path());
    assert_eq!((log.snapshot.is_none(), log.recovery.verified_from), (true, 0));
    assert_eq!(log.recovery.damaged_snapshots, [2, 1]);
    assert_eq!(log.head, second);
}

#[test]
fn erased_content_is_gone_from_the_files_and_the_chain_still_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let secret = "correct horse battery staple";
    let mut event = record(1);
    event.content = Some(format!("\"{secret}\"").into());
    log.store.append(vec![event], Class::Request).unwrap();
    let long: String = secret.repeat(1000);
    log.store
        .append(vec![Record { content: Some(long.into()), ..record(2) }], Class::Request)
        .unwrap();
    let head = log.wait_durable(2);
    log.fill(3, 3);
    let erase = |seqs: Vec<u64>| job(|done| log.store.erase(seqs, done));
    erase(vec![1, 2]).unwrap();
    erase(vec![1]).unwrap();
    assert!(matches!(erase(vec![9]), Err(JobError::NoSuchEvent { seq: 9 })));
    assert_eq!(log.reader.get(1).unwrap().unwrap().content, None);
    assert_eq!(log.reader.get(3).unwrap(), Some(record(3)));
    log.close();
    // Closed: nothing here has it open, so it may be read.
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
    assert_eq!(verify(dir.path()).unwrap().seq, 3);
    let again = open(dir.path());
    assert_eq!(again.reader.scan(2, 1, &[]).unwrap().records[0].content, None);
    assert!(again.head.seq > head.seq);
}

#[test]
fn pruning_takes_whole_segments_below_the_oldest_snapshot_and_leaves_their_heads() {
    if skip_without_sqlite3(
        "pruning_takes_whole_segments_below_the_oldest_snapshot_and_leaves_their_heads",
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fast = Options { durability: Durability::Process, ..options() };
    let log = try_open(dir.path(), &fast).unwrap();
    fill_fast(&log, 1, 65_000);
    let first = fill_fast(&log, 65_001, 65_600);
    assert_eq!(prune(&log, u64::MAX).unwrap(), 0, "no snapshot, so nothing may go");
    save(&log, Head { seq: 65_500, ..hash_at(&log, 65_500) }, "old").unwrap();
    save(&log, first, "new").unwrap();
    assert_eq!(prune(&log, u64::MAX).unwrap(), 0, "the segment ends above the older snapshot");
    save(&log, fill_fast(&log, 65_601, 70_000), "newer").unwrap();
    assert_eq!(prune(&log, 65_536).unwrap(), 0, "the segment's last event was to be kept");
    assert_eq!(prune(&log, 65_537).unwrap(), 65_536);
    assert_eq!(log.reader.floor().unwrap().seq, 65_536);
    assert_eq!(log.reader.scan(1, 1, &[]).unwrap().records[0].seq, 65_537);
    assert_eq!(log.fill(70_001, 70_001).seq, 70_001);
    let head = log.close();
    assert_eq!(
        sqlite(dir.path(), "SELECT first, last FROM segments; SELECT min(seq) FROM events"),
        "1|65536\n65537\n"
    );
    assert_eq!(verify(dir.path()).unwrap(), head);
    assert_eq!(open(dir.path()).head, head);
}

fn hash_at(log: &Log, seq: u64) -> Head {
    // The store gives out hashes only as heads of what is durable: ask another SQLite.
    let dir = log.dir.clone();
    let hex = sqlite(&dir, &format!("SELECT lower(hex(hash)) FROM events WHERE seq = {seq}"));
    Head { seq, hash: hex.trim().parse().unwrap() }
}
