//! Who speaks is the kernel's word: an agent at another socket is refused, and that is in the log.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use crate::mission::{self, Bench, holds, processes};
use missiond::client::{Client, ClientError};
use missiond::core::view::{MissionView, Published};
use missiond::proto::Method;
use missiond::proto::wire::Empty;
use nix::sys::signal::Signal;
use serde_json::json;

/// `spy` tries what `TRY` says, and ends with its exit code.
const SPY: &str = r#"
isolation = 1
until = "stopped"
[agents.victim]
role = "lead"
command = ["sleep", "600"]
[agents.spy]
role = "write"
restart = { on = "never" }
command = ["sh", "-c", '''
run=${MISSION_SOCKET%/agents/*}
TRY
''']
"#;

#[tokio::test]
async fn an_agent_at_another_agents_socket_is_refused_and_that_is_logged() {
    let body =
        SPY.replace("TRY", "MISSION_SOCKET=$run/agents/victim/bus.sock missionctl agent list");
    let bench = Bench::new(&body);
    let mut daemon = bench.start(&[]);
    daemon.line(&["victim", "runs"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    let refused = operator.event("peer_refused", |_| true).await;
    assert!(refused.data.get().contains("victim"), "{}", refused.data.get());
    let ended = operator.event("agent_ended", |_| true).await;
    assert!(!ended.data.get().contains("\"exited\":0"), "{}", ended.data.get());
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

#[tokio::test]
async fn an_agent_at_the_control_socket_is_refused_and_that_is_logged() {
    let body = SPY.replace(
        "TRY",
        "XDG_RUNTIME_DIR=${run%/missiond/*} env -u MISSION_SOCKET missionctl -m demo stop",
    );
    let bench = Bench::new(&body);
    let mut daemon = bench.start(&[]);
    daemon.line(&["victim", "runs"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    let refused = operator.event("peer_refused", |_| true).await;
    assert!(refused.data.get().contains("control"), "{}", refused.data.get());
    let ended = operator.event("agent_ended", |_| true).await;
    assert!(!ended.data.get().contains("\"exited\":0"), "{}", ended.data.get());
    let status: MissionView = operator.status().await;
    assert_eq!(status.agents.iter().filter(|agent| agent.pid.is_some()).count(), 1);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

#[tokio::test]
async fn an_orphan_of_a_killed_shim_is_no_operator_and_does_not_survive() {
    // At level `none` nothing keeps an agent from killing its shim.
    let body = SPY.replace("isolation = 1", "isolation = \"none\"").replace(
        "TRY",
        r#"
export XDG_RUNTIME_DIR=${run%/missiond/*} shim=$PPID
setsid sh -c '
    kill -9 $shim
    env -u MISSION_SOCKET missionctl -m demo status && touch "$MISSION_WORKSPACE/got-in"
    sleep 600
' &
wait
"#,
    );
    let bench = Bench::new(&body);
    let mut daemon = bench.start(&[]);
    daemon.line(&["victim", "runs"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    let ended = operator.event("agent_ended", |_| true).await;
    assert!(ended.data.get().contains("lost"), "{}", ended.data.get());
    assert!(!bench.path("ws/got-in").exists());
    // Told only when nothing was left of it; its processes show by their environment.
    let mark = format!("MISSION_HOME={}", bench.state().join("agents/spy/home").display());
    assert_eq!(processes(&mark), Vec::<u32>::new());
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
    assert!(processes(bench.path("ws").to_str().unwrap()).is_empty());
}

#[tokio::test]
async fn at_level_1_an_agent_cannot_signal_its_shim_or_the_daemon() {
    let test = "at_level_1_an_agent_cannot_signal_its_shim_or_the_daemon";
    if crate::support::skip_without_landlock(test, 6) {
        return;
    }
    let body = SPY.replace("TRY", "kill -9 $PPID; kill -9 DAEMON; exit 7");
    let bench = Bench::new(&body.replace("DAEMON", &std::process::id().to_string()));
    let mut daemon = bench.start(&[]);
    daemon.line(&["spy", "ended: exit code 7"]);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

/// One try at a connection that is not waited for.
fn connect_at_once(path: &Path) -> Option<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    let address = UnixAddr::new(path).ok()?;
    connect(fd.as_raw_fd(), &address).ok().map(|()| fd)
}

#[tokio::test]
async fn ten_thousand_connections_disturb_nobody_else() {
    let bench = Bench::new(
        r#"
isolation = 1
until = "stopped"
[agents.echo]
role = "write"
command = ["sh", "-c", '''
missionctl inbox --each -- missionctl send --type custom.echo --json 1
''']
"#,
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["echo", "runs"]);
    let mut operator = bench.operator().await;
    operator.follow().await;
    let control = bench.runtime().join("control.sock");
    let agent = bench.runtime().join("agents/echo/bus.sock");
    let mut held = Vec::new();
    for _ in 0..5_000 {
        held.extend(connect_at_once(&control));
        held.extend(connect_at_once(&agent));
    }
    assert!(held.len() >= 100, "only {} connections were possible", held.len());
    // The agent at the flooded socket, and who was there before, go on.
    let ask = json!({"type": "custom.ping", "to": ["echo"], "content": 1});
    let _sent: Published = operator.call(Method::Publish, ask).await;
    operator.event("message_published", holds("custom.echo")).await;
    let statm = mission::read(Path::new(&format!("/proc/{}/statm", daemon.pid())));
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(pages * 4096 < 256 << 20, "the daemon holds {} MiB", pages >> 8);
    drop(held);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

#[tokio::test]
async fn a_bad_line_ends_its_own_connection_and_no_other() {
    use std::io::{Read, Write};
    let bench = Bench::new(
        "until = \"stopped\"\n[agents.quiet]\nrole = \"write\"\ncommand = [\"sleep\", \"600\"]\n",
    );
    let mut daemon = bench.start(&[]);
    daemon.line(&["quiet", "runs"]);
    let operator = bench.operator().await;
    let control = bench.runtime().join("control.sock");
    let lines: [&[u8]; 4] =
        [b"not json\n", b"\xff\xfe\n", b"[[[[[[\n", b"{\"jsonrpc\":\"2.0\",\"id\":1}\n"];
    for line in lines {
        let mut stream = std::os::unix::net::UnixStream::connect(&control).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(line).unwrap();
        let mut answer = vec![0; 4096];
        let count = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        assert!(answer.contains("\"error\""), "{answer}");
    }
    let mut stream = std::os::unix::net::UnixStream::connect(&control).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    let piece = vec![b'['; 1 << 20];
    let refused = (0..64).any(|_| stream.write_all(&piece).is_err());
    assert!(refused, "64 MiB of one line were taken");
    let _still: MissionView = operator.call(Method::MissionStatus, Empty {}).await;
    drop(operator);
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}

#[tokio::test]
async fn nobody_listens_where_no_mission_runs() {
    let bench = Bench::new("[agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n");
    let answer = Client::connect(&bench.runtime().join("control.sock")).await;
    assert!(matches!(answer, Err(ClientError::NoDaemon { .. })));
}
