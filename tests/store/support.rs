//! A log in a directory of its own, with its notices in a channel.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use missiond::store::{
    Class, Head, Notice, OpenError, Opened, Options, Reader, Record, Recovery, Snapshot, Store,
};

/// No wait in these tests is longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Log {
    pub(crate) store: Store,
    pub(crate) reader: Reader,
    pub(crate) head: Head,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) recovery: Recovery,
    pub(crate) notices: Receiver<Notice>,
    pub(crate) dir: PathBuf,
}

/// Small enough that no test depends on the machine's disk.
pub(crate) fn options() -> Options {
    Options { headroom: 0, reserve: 0, ..Options::default() }
}

pub(crate) fn try_open(dir: &Path, options: &Options) -> Result<Log, OpenError> {
    let (send, notices) = mpsc::channel();
    let sink = Box::new(move |notice| {
        // A test that has seen enough has dropped its end.
        let _gone = send.send(notice);
    });
    let known = |kind: &str, v: u16| kind != "FromTheFuture" && v < 100;
    let Opened { store, reader, head, snapshot, recovery } =
        Store::open(dir, options, &known, sink)?;
    Ok(Log { store, reader, head, snapshot, recovery, notices, dir: dir.to_owned() })
}

/// A log whose notices go where the test wants them, on the writer's thread.
pub(crate) fn open_with(
    dir: &Path,
    options: &Options,
    sink: impl Fn(Notice) + Send + 'static,
) -> Store {
    Store::open(dir, options, &|_, _| true, Box::new(sink)).unwrap().store
}

pub(crate) fn open(dir: &Path) -> Log {
    try_open(dir, &options()).unwrap()
}

impl Log {
    pub(crate) fn next_notice(&self) -> Notice {
        self.notices.recv_timeout(DEADLINE).expect("a notice within the deadline")
    }

    /// Waits until `seq` is durable; any other notice than that is a failure.
    pub(crate) fn wait_durable(&self, seq: u64) -> Head {
        loop {
            match self.next_notice() {
                Notice::Durable { head } if head.seq >= seq => return head,
                Notice::Durable { .. } => {}
                other => panic!("expected event {seq} to be durable, got {other:?}"),
            }
        }
    }

    /// Appends events `first..=last`, one batch each, and waits for them.
    pub(crate) fn fill(&self, first: u64, last: u64) -> Head {
        for seq in first..=last {
            self.store.append(vec![record(seq)], Class::Request).unwrap();
        }
        self.wait_durable(last)
    }

    pub(crate) fn close(self) -> Head {
        self.store.close()
    }
}

pub(crate) fn record(seq: u64) -> Record {
    Record {
        seq,
        at_ms: 1_700_000_000_000 + i64::try_from(seq).unwrap(),
        kind: ["MessagePublished", "TaskAssigned", "AgentExited"]
            [usize::try_from(seq % 3).unwrap()]
        .into(),
        v: 1,
        actor: if seq.is_multiple_of(2) { "planner".into() } else { "".into() },
        envelope: format!("{{\"n\":{seq}}}").into(),
        content: (!seq.is_multiple_of(5)).then(|| format!("{{\"text\":\"message {seq}\"}}").into()),
    }
}

pub(crate) fn db(dir: &Path) -> PathBuf {
    dir.join("mission.db")
}

/// Another program with its own SQLite: never this process, whose locks it could drop.
pub(crate) fn sqlite(dir: &Path, sql: &str) -> String {
    let out =
        std::process::Command::new("sqlite3").arg(db(dir)).arg(sql).output().expect("sqlite3 runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// True if there is no sqlite3 program and the test is skipped.
pub(crate) fn skip_without_sqlite3(test: &str) -> bool {
    let present = std::process::Command::new("sqlite3").arg("--version").output().is_ok();
    if !present {
        skip(test, "sqlite3", "no sqlite3 program");
    }
    !present
}

/// Skips a test, or fails it when `MISSIOND_REQUIRE` names what is missing.
pub(crate) fn skip(test: &str, needs: &str, why: &str) {
    let required = std::env::var("MISSIOND_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == needs), "{test} needs {needs}: {why}");
    println!("SKIP {test}: {why}");
}
