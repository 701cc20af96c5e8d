//! How fast the log is, by itself: `cargo bench --bench log`. The bus as a whole beside its peers is
//! `cargo xtask bench`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a measurement, for a person"
)]

#[expect(dead_code, reason = "the tests of the log use all of it")]
mod support;

use std::time::Instant;

use missiond::store::{Class, Durability, NewSnapshot, Notice, Options, Record, verify};

use support::{open, options, record, try_open};

fn main() {
    a_million_events();
    one_publish_at_a_time();
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn a_million_events() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log =
        try_open(dir.path(), &Options { durability: Durability::Process, ..options() }).unwrap();
    let start = now();
    let mut next = 1;
    while next <= 1_000_000 {
        let batch: Vec<Record> = (next..next + 1000).map(record).collect();
        next += 1000;
        log.store.append(batch, Class::Request).unwrap();
        log.wait_durable(next - 1000);
    }
    println!("append of 1,000,000 in batches of 1,000: {:?}", start.elapsed());
    let start = now();
    let mut bytes = 0;
    log.reader
        .fold(1, |record| {
            bytes += record.envelope.len();
            Ok::<(), std::io::Error>(())
        })
        .unwrap();
    println!("fold of 1,000,000 ({bytes} bytes of envelope): {:?}", start.elapsed());
    let start = now();
    let mut page = log.reader.scan(1, 1000, &[]).unwrap();
    while !page.at_end {
        page = log.reader.scan(page.next_seq, 1000, &[]).unwrap();
    }
    println!("scan of 1,000,000: {:?}", start.elapsed());
    let start = now();
    log.close();
    println!("close: {:?}", start.elapsed());
    let start = now();
    verify(dir.path()).unwrap();
    println!("verify of 1,000,000: {:?}", start.elapsed());
    let start = now();
    let log = open(dir.path());
    println!("open with the whole chain verified: {:?}", start.elapsed());
    let (send, saved) = std::sync::mpsc::channel();
    let snapshot = NewSnapshot { head: log.head, version: 1, state: vec![0; 1 << 20] };
    log.store.save_snapshot(snapshot, move |outcome| send.send(outcome).unwrap());
    saved.recv().unwrap().unwrap();
    log.close();
    let start = now();
    let log = open(dir.path());
    println!("open with a snapshot at the end: {:?}", start.elapsed());
    log.close();
    println!("file: {} MiB", std::fs::metadata(dir.path().join("mission.db")).unwrap().len() >> 20);
}

fn one_publish_at_a_time() {
    use std::io::{Seek as _, Write as _};
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let median = |mut times: Vec<u128>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    // What the disk takes: a page and a frame header over bytes that are allocated already.
    let mut file = std::fs::File::create(dir.path().join("plain")).unwrap();
    file.write_all(&vec![1; 8 << 20]).unwrap();
    file.sync_all().unwrap();
    file.rewind().unwrap();
    let mut plain = || {
        let start = now();
        if file.stream_position().unwrap() > 7 << 20 {
            file.rewind().unwrap();
        }
        file.write_all(&[2; 4120 * 2]).unwrap();
        file.sync_data().unwrap();
        start.elapsed().as_micros()
    };
    for durability in [Durability::Disk, Durability::Process] {
        let dir = dir.path().join(format!("{durability:?}"));
        let log = try_open(&dir, &Options { durability, ..options() }).unwrap();
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for seq in 1..=3000 {
            let start = now();
            log.store.append(vec![record(seq)], Class::Request).unwrap();
            assert!(matches!(log.next_notice(), Notice::Durable { .. }));
            ours.push(start.elapsed().as_micros());
            // Side by side, since the disk is not the same from one second to the next.
            bare.push(plain());
        }
        ours.drain(..1000);
        bare.drain(..1000);
        println!("{durability:?}: publish to durable p50 {} us", median(ours));
        println!("plain write and fdatasync beside it p50 {} us", median(bare));
    }
    let log = try_open(&dir.path().join("pipelined"), &options()).unwrap();
    let start = now();
    let (mut sent, mut durable, mut commits) = (0, 0, 0);
    while durable < 100_000 {
        while sent < durable + 256 && sent < 100_000 {
            sent += 1;
            log.store.append(vec![record(sent)], Class::Request).unwrap();
        }
        let Notice::Durable { head } = log.next_notice() else { panic!("not durable") };
        durable = head.seq;
        commits += 1;
    }
    let rate = 100_000.0 / start.elapsed().as_secs_f64();
    println!("Disk: 256 outstanding: {rate:.0} per second, {commits} commits");
}
