//! Appending and reading.

use missiond::store::Class;

use super::support::{open, record};

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
fn many_batches_share_few_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for seq in 1..=2000 {
        log.store.append(vec![record(seq)], Class::Request).unwrap();
    }
    log.store.close();
    let commits = log.notices.iter().count();
    assert!(commits < 1000, "{commits} commits for 2000 batches");
}
