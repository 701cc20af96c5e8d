//! Under a service manager, which the test plays on `NOTIFY_SOCKET` (sd_notify(3)).

use std::os::unix::net::UnixDatagram;

use crate::mission::{Bench, DEADLINE};
use nix::sys::signal::Signal;

struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(bench: &mut Bench, watchdog_usec: Option<u64>) -> Manager {
        let path = bench.path("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        bench.variables.push(("NOTIFY_SOCKET".into(), path.to_str().unwrap().into()));
        if let Some(usec) = watchdog_usec {
            bench.variables.push(("WATCHDOG_USEC".into(), usec.to_string()));
        }
        Manager { socket, heard: Vec::new() }
    }

    /// Waits for a message with this line.
    fn hears(&mut self, wanted: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let Ok(count) = self.socket.recv(&mut buffer) else {
                panic!("`{wanted}` was not heard, only {:?}", self.heard)
            };
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            self.heard.push(text.clone());
            if let Some(line) = text.lines().find(|line| line.starts_with(wanted)) {
                return line.to_owned();
            }
        }
    }
}

const MISSION: &str = r#"
isolation = 1
until = "stopped"
[agents.slow]
role = "write"
ready = "hello"
start_timeout = "60s"
command = ["sh", "-c", "read -r go < $MISSION_WORKSPACE/fifo; missionctl inbox --follow"]
[agents.fast]
role = "write"
command = ["sh", "-c", "[ -z \"$NOTIFY_SOCKET\" ] && exec sleep 600"]
"#;

#[tokio::test]
async fn ready_comes_when_every_service_agent_is_up_and_stopping_when_it_stops() {
    let mut bench = Bench::new(MISSION);
    let fifo = bench.path("ws/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let mut manager = Manager::new(&mut bench, None);
    let mut daemon = bench.start(&[]);
    daemon.line(&["slow", "runs"]);
    daemon.line(&["fast", "runs"]);
    // One of two is up: not ready.
    assert!(!manager.heard.iter().any(|text| text.contains("READY")));
    std::fs::write(&fifo, "go\n").unwrap();
    manager.hears("READY=1");
    let status = manager.heard.iter().any(|text| text.contains("STATUS=2 agents run"));
    assert!(status, "{:?}", manager.heard);
    daemon.signal(Signal::SIGTERM);
    manager.hears("STOPPING=1");
    daemon.ends_with(0);
    let ready = manager.heard.iter().filter(|text| text.contains("READY=1")).count();
    assert_eq!(ready, 1);
}

#[tokio::test]
async fn the_loop_itself_pings_the_watchdog() {
    let mut bench = Bench::new(
        "until = \"stopped\"\n[agents.a]\nrole = \"write\"\ncommand = [\"sleep\", \"600\"]\n",
    );
    let mut manager = Manager::new(&mut bench, Some(400_000));
    let daemon = bench.start(&[]);
    manager.hears("READY=1");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(0);
}
