//! The supervisor with a real launcher, where the kernel refuses it something.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "these tests need little of it")]
mod support;

#[path = "../launch/rig.rs"]
#[expect(dead_code, reason = "these tests need little of it")]
mod rig;

use missiond::core::fact::{Fact, Want};
use missiond::core::view::Exit;
use missiond::ids::{AgentUid, Incarnation, Timestamp};
use missiond::launch::{Launcher, sweep};
use missiond::supervise::{Order, Prepared, Stage, Supervisor};
use missiond::sys::rlimit::{self, Resource};
use missiond::sys::{process, seccomp};

use rig::{DEADLINE, Rig};

const UID: AgentUid = AgentUid(7);
const FIRST: Incarnation = Incarnation(1);
const NOW: Timestamp = Timestamp(0);

/// Runs a test over a supervisor, in a process of its own.
fn supervised(test: &str, body: impl AsyncFnOnce(Supervisor, missiond::launch::LaunchSpec)) {
    support::alone(test, || {
        let mut rig = Rig::new();
        let mut spec = rig.shell("sleep 600");
        spec.park = true;
        let exe = std::path::Path::new(env!("CARGO_BIN_EXE_missiond"));
        let launcher = std::mem::replace(&mut rig.launcher, Launcher::spawn(exe).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { body(Supervisor::new(launcher).unwrap(), spec).await });
    });
}

/// Waits for orders of the supervisor.
async fn orders(supervisor: &mut Supervisor) -> Vec<Order> {
    let mut orders = Vec::new();
    while orders.is_empty() {
        tokio::time::timeout(DEADLINE, supervisor.readable()).await.unwrap().unwrap();
        supervisor.drain(&mut orders).unwrap();
    }
    orders
}

fn wanted(supervisor: &mut Supervisor, parked: bool) -> Vec<Order> {
    let mut orders = Vec::new();
    let want = Want::Run { incarnation: FIRST, run: None, parked };
    supervisor.wanted(NOW, UID, want, &mut orders);
    orders
}

fn prepared(supervisor: &mut Supervisor, prepared: Prepared) -> Vec<Order> {
    let mut orders = Vec::new();
    supervisor.prepared(UID, FIRST, Ok(prepared), &mut orders);
    orders
}

/// How an agent's end is told, if it is.
fn ended(orders: &[Order]) -> Option<&Exit> {
    orders.iter().find_map(|order| {
        if let Order::Tell(Fact::AgentEnded { exit, .. }) = order { Some(exit) } else { None }
    })
}

/// Its end was told before anybody had looked whether its processes were gone.
#[test]
fn a_shim_that_cannot_be_watched_has_ended_only_when_a_sweep_has_shown_it() {
    let test = "a_shim_that_cannot_be_watched_has_ended_only_when_a_sweep_has_shown_it";
    if support::skip_without_seccomp(test) {
        return;
    }
    supervised(test, async |mut supervisor, spec| {
        assert!(matches!(wanted(&mut supervisor, true)[..], [Order::Prepare(_)]));
        // epoll_ctl(2): ENOSPC is the limit of what a user may watch.
        let call = u32::try_from(libc::SYS_epoll_ctl).unwrap();
        let refusal = 0x0005_0000 | libc::ENOSPC.unsigned_abs();
        process::no_new_privs().unwrap();
        seccomp::load([
            (0x20, 0, 0, 0),
            (0x15, 0, 1, call),
            (0x06, 0, 0, refusal),
            (0x06, 0, 0, 0x7fff_0000),
        ])
        .unwrap();
        let orders = prepared(&mut supervisor, Prepared::Launch(Box::new(spec)));
        assert_eq!(ended(&orders), None, "{orders:?}");
        let [Order::Sweep { known }] = &orders[..] else { panic!("{orders:?}") };
        assert!(!supervisor.is_empty());
        let mut orders = Vec::new();
        supervisor.swept(sweep(known), &mut orders);
        let expected = Exit::SetupFailed { step: "watch the shim".into(), errno: libc::ENOSPC };
        assert_eq!(ended(&orders), Some(&expected), "{orders:?}");
        assert!(supervisor.is_empty());
    });
}

/// The parked process was left to wait for its start timeout.
#[test]
fn a_parked_process_that_cannot_be_released_is_ended_at_once_and_says_why() {
    let test = "a_parked_process_that_cannot_be_released_is_ended_at_once_and_says_why";
    supervised(test, async |mut supervisor, spec| {
        wanted(&mut supervisor, true);
        prepared(&mut supervisor, Prepared::Launch(Box::new(spec)));
        loop {
            let orders = orders(&mut supervisor).await;
            assert_eq!(ended(&orders), None, "{orders:?}");
            let parked = |order: &Order| matches!(order, Order::Tell(Fact::AgentParked { .. }));
            if orders.iter().any(parked) {
                break;
            }
        }
        let orders = wanted(&mut supervisor, false);
        let [Order::Prepare(release)] = &orders[..] else { panic!("{orders:?}") };
        assert_eq!(release.stage, Stage::Release);
        let (_, hard) = rlimit::get(Resource::RLIMIT_NOFILE).unwrap();
        rlimit::lower(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        let release = Prepared::Release { environment: Vec::new(), stdin: None };
        let mut told = prepared(&mut supervisor, release);
        while ended(&told).is_none() {
            told = self::orders(&mut supervisor).await;
        }
        let step = "release it to its exec".into();
        assert_eq!(ended(&told), Some(&Exit::SetupFailed { step, errno: libc::EMFILE }));
    });
}
