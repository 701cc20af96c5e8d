//! What the child does. It says each step on stdout, in lines that begin with `@`:
//!
//! ```text
//! @ thread NAME TID     about to begin; waits for a line on stdin
//! @ durable SEQ TRY     the store has acknowledged SEQ as it was appended in attempt TRY
//! @ failed SEQ          the store has refused everything from SEQ on; the script tries again
//! @ fatal WHY           the outcome is unknown; the script ends
//! @ refused WHY         the log could not be opened; the script ends
//! @ done HEAD           the log was closed in order
//! ```

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use missiond::store::{
    Class, Durability, Head, NewSnapshot, Notice, Opened, Options, Record, Store,
};

pub(crate) const DIR: &str = "MISSIOND_TEST_STATE_DIR";
pub(crate) const SCRIPT: &str = "MISSIOND_TEST_SCRIPT";
/// Events that the script appends.
pub(crate) const LAST: u64 = 14;
const DEADLINE: Duration = Duration::from_secs(20);

/// The child. In an ordinary test run there is nothing for it to do.
#[test]
fn child() {
    let (Some(dir), Ok(script)) = (std::env::var_os(DIR), std::env::var(SCRIPT)) else {
        return;
    };
    let dir = Path::new(&dir);
    let (script, durability) = match script.strip_suffix(" unsynced") {
        Some(script) => (script, Durability::Process),
        None => (script.as_str(), Durability::Disk),
    };
    // Small, so that a short script meets checkpoints by both threads; or none at all.
    let checkpoint_bytes = if script == "killed" { 1 << 20 } else { 12 << 10 };
    let options =
        Options { durability, headroom: 0, reserve: 0, checkpoint_bytes, ..Options::default() };
    let open = |dir| open(dir, &options);
    match script {
        "open" => {
            pause("opener", nix::unistd::gettid().as_raw());
            if let Some((opened, notices)) = open(dir) {
                append(&opened.store, &notices, opened.head, LAST);
                say(&format!("done {}", opened.store.close().seq));
            }
        }
        "killed" => {
            pause("opener", nix::unistd::gettid().as_raw());
            let (opened, notices) = open(dir).expect("nothing is injected");
            append(&opened.store, &notices, opened.head, 9);
            pause("opener", 0);
        }
        thread => {
            let (opened, notices) = open(dir).expect("nothing is injected yet");
            pause(thread, tid(thread));
            if append(&opened.store, &notices, opened.head, LAST) && thread == "store-writer" {
                maintain(&opened.store);
            }
            let head = opened.store.close();
            // The checkpointer's last word may come after the last event.
            for notice in notices.try_iter() {
                if let Notice::Fatal { why } = notice {
                    say(&format!("fatal {why:?}"));
                }
            }
            say(&format!("done {}", head.seq));
        }
    }
}

pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("@ {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Waits for the parent, which bounds the wait by killing us.
pub(crate) fn pause(name: &str, tid: i32) {
    say(&format!("thread {name} {tid}"));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
}

/// The store's threads are the last that were started: the checkpointer, then the writer. Their
/// names would not do, since a thread gives itself its name when it first runs.
pub(crate) fn tid(thread: &str) -> i32 {
    let mut tids: Vec<i32> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    tids.sort_unstable();
    tids[tids.len() - if thread == "store-writer" { 1 } else { 2 }]
}

fn open(dir: &Path, options: &Options) -> Option<(Opened, Receiver<Notice>)> {
    let (send, notices) = mpsc::channel();
    let sink = Box::new(move |notice| {
        let _gone = send.send(notice);
    });
    match Store::open(dir, options, &|_, _| true, sink) {
        Ok(opened) => Some((opened, notices)),
        Err(error) => {
            say(&format!("refused {error:?}"));
            None
        }
    }
}

/// The event `seq` as it is in attempt `attempt`. Some are large enough to need several pages.
pub(crate) fn event(seq: u64, attempt: u32) -> Record {
    let size = if seq % 7 == 5 { 24_000 } else { 40 };
    Record {
        seq,
        at_ms: 0,
        kind: "Tested".into(),
        v: 1,
        actor: "".into(),
        envelope: format!("{{\"seq\":{seq},\"try\":{attempt}}}").into(),
        content: (!seq.is_multiple_of(3)).then(|| "x".repeat(size).into()),
    }
}

/// Appends events up to `last` one by one, and those that failed again. False after an end.
fn append(store: &Store, notices: &Receiver<Notice>, head: Head, last: u64) -> bool {
    let mut attempt = 1;
    let mut next = head.seq + 1;
    while next <= last {
        // Two batches at once now and then, so that groups are met too.
        let until = if next.is_multiple_of(4) { (next + 1).min(last) } else { next };
        for seq in next..=until {
            if store.append(vec![event(seq, attempt)], Class::Fact).is_err() {
                break;
            }
        }
        loop {
            match notices.recv_timeout(DEADLINE).expect("a notice") {
                Notice::Durable { head } => {
                    for seq in next..=head.seq {
                        say(&format!("durable {seq} {attempt}"));
                    }
                    next = head.seq + 1;
                    if head.seq >= until {
                        break;
                    }
                }
                Notice::Failed { first_seq, why } => {
                    say(&format!("failed {first_seq} {why:?}"));
                    assert_eq!(first_seq, next);
                    assert_eq!(store.resume().unwrap().seq + 1, first_seq);
                    attempt += 1;
                    assert!(attempt < 20, "it fails for ever");
                    break;
                }
                Notice::Fatal { why } => {
                    say(&format!("fatal {why:?}"));
                    return false;
                }
                _ => {}
            }
        }
    }
    true
}

/// The other writes of the writer's: a snapshot, an erasure with its checkpoint.
fn maintain(store: &Store) {
    let (send, done) = mpsc::channel();
    let head = store.durable();
    let other = send.clone();
    let snapshot = NewSnapshot { head, version: 1, state: vec![7; 10_000] };
    store.save_snapshot(snapshot, move |outcome| send.send(outcome.is_ok()).unwrap());
    store.erase(vec![1, 2], move |outcome| other.send(outcome.is_ok()).unwrap());
    for _ in 0..2 {
        let outcome = done.recv_timeout(DEADLINE).expect("an outcome");
        say(&format!("job {outcome}"));
    }
}
