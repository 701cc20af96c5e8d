//! A disk that is really full: a small tmpfs in a mount namespace of the child's own.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use missiond::store::{
    AppendError, Class, Notice, Opened, Options, Record, Store, WriteError, verify,
};

use super::child::{Running, command};
use super::matrix::skip_for;
use super::script::{DIR, SCRIPT, event, pause, say};

const DEADLINE: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

#[test]
fn on_a_full_disk_facts_pass_requests_do_not_and_room_brings_them_back() {
    const TEST: &str = "on_a_full_disk_facts_pass_requests_do_not_and_room_brings_them_back";
    let dir = tempfile::tempdir().unwrap();
    let mount =
        "mount -t tmpfs -o size=8m tmpfs \"$MISSIOND_TEST_STATE_DIR\" && exec \"$0\" \"$@\"";
    let probe = std::process::Command::new("unshare")
        .args(["-Urm", "sh", "-c", "mount -t tmpfs tmpfs /tmp"])
        .output();
    if !probe.as_ref().is_ok_and(|out| out.status.success()) {
        skip_for("userns", TEST, &format!("no mount namespace: {probe:?}"));
        return;
    }
    let unshare = ["unshare", "-Urm", "sh", "-c", mount];
    let command = command(Some(&unshare), dir.path(), "tmpfs::full_child", "full");
    let mut running = Running::start(command);
    running.proceed();
    let ended = running.finish();
    assert!(ended.status.success(), "{:?}: {}", ended.said, ended.complaint);
    assert_eq!(ended.said("done").count(), 1, "{ended:?}");
}

fn big(seq: u64, bytes: u64) -> Record {
    let bytes = usize::try_from(bytes).unwrap();
    Record { content: Some("x".repeat(bytes).into()), ..event(seq, 1) }
}

struct Log {
    opened: Opened,
    notices: Receiver<Notice>,
}

impl Log {
    fn open(dir: &Path) -> Self {
        let (send, notices) = mpsc::channel();
        let options = Options { headroom: 2 * MIB, reserve: MIB, ..Options::default() };
        let sink = Box::new(move |notice| {
            let _gone = send.send(notice);
        });
        let opened = Store::open(dir, &options, &|_, _| true, sink).unwrap();
        Self { opened, notices }
    }

    fn append(&self, record: Record, class: Class) -> Result<(), AppendError> {
        self.opened.store.append(vec![record], class)
    }

    #[track_caller]
    fn notice(&self) -> Notice {
        self.notices.recv_timeout(DEADLINE).expect("a notice")
    }

    #[track_caller]
    fn durable(&self, seq: u64) {
        let notice = self.notice();
        assert!(matches!(notice, Notice::Durable { head } if head.seq == seq), "{notice:?}");
    }
}

#[test]
fn full_child() {
    let (Some(dir), Some("full")) = (std::env::var_os(DIR), std::env::var(SCRIPT).ok().as_deref())
    else {
        return;
    };
    pause("nothing", 0);
    let mount = Path::new(&dir);
    let dir = mount.join("state");
    let log = Log::open(&dir);
    log.append(event(1, 1), Class::Request).unwrap();
    log.durable(1);
    assert_eq!(std::fs::metadata(dir.join("mission.reserve")).unwrap().len(), MIB);

    // Somebody else fills the disk. The next event still fits, and after it requests are refused.
    let filler = mount.join("filler");
    let filled = std::process::Command::new("dd")
        .args(["if=/dev/zero", "bs=4k", &format!("of={}", filler.display())])
        .output()
        .unwrap();
    assert!(!filled.status.success(), "the disk did not fill up");
    let file = std::fs::OpenOptions::new().write(true).open(&filler).unwrap();
    file.set_len(file.metadata().unwrap().len() - 128 * 1024).unwrap();
    drop(file);
    log.append(event(2, 1), Class::Request).unwrap();
    log.durable(2);
    assert!(matches!(log.notice(), Notice::Headroom { low: true, .. }));
    assert_eq!(log.append(event(3, 1), Class::Request), Err(AppendError::LowSpace));
    say("low");

    // A fact that no longer fits takes the reserve.
    log.append(big(3, 400 * 1024), Class::Fact).unwrap();
    log.durable(3);
    assert!(!dir.join("mission.reserve").exists());
    say("reserve");

    // One that does not fit there either is refused, and leaves no trace.
    log.append(big(4, 4 * MIB), Class::Fact).unwrap();
    log.append(event(5, 1), Class::Fact).ok();
    let notice = log.notice();
    let Notice::Failed { first_seq: 4, why: WriteError::DiskFull } = notice else {
        panic!("{notice:?}");
    };
    assert_eq!(log.opened.store.resume().unwrap().seq, 3);
    assert_eq!(log.opened.reader.scan(1, 10, &[]).unwrap().records.len(), 3);
    log.append(event(4, 1), Class::Fact).unwrap();
    log.durable(4);
    say("failed");

    // A restart on the full disk works as well.
    let head = log.opened.store.close();
    let log = Log::open(&dir);
    assert_eq!(log.opened.head, head);
    assert!(matches!(log.notice(), Notice::Headroom { low: true, .. }));

    // Room is back. A refused request makes the writer look, and then requests pass.
    std::fs::remove_file(filler).unwrap();
    assert_eq!(log.append(event(5, 1), Class::Request), Err(AppendError::LowSpace));
    assert!(matches!(log.notice(), Notice::Headroom { low: false, .. }));
    assert!(dir.join("mission.reserve").exists());
    log.append(event(5, 1), Class::Request).unwrap();
    log.durable(5);
    let head = log.opened.store.close();
    assert_eq!(verify(&dir).unwrap(), head);
    say("done");
}
