//! An agent that uses up what all processes of a user share.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code outside of a test function"
)]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use missiond::launch::{Exit, LaunchSpec};
use missiond::policy::Level;
use missiond::sys::channel::{self, Wait};

use crate::rig::{Rig, exit, readable, started, stop};
use crate::support::alone;

const FLOODER: &str = "MISSIOND_TEST_FLOODER";

/// Sends descriptors that nobody receives until the kernel refuses more.
fn flood(ready: &str) {
    let null = File::open("/dev/null").unwrap();
    let fds = [null.as_fd(); channel::MAX_FDS];
    let mut pairs = Vec::new();
    let mut sent = 0;
    let errno = 'full: loop {
        let Ok(pair) = channel::pair() else { break 0 };
        loop {
            match channel::send(pair.0.as_fd(), b"x", &fds, Wait::Never) {
                Ok(()) => sent += fds.len(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => break 'full error.raw_os_error().unwrap(),
            }
        }
        pairs.push(pair);
    };
    println!("{sent} descriptors in flight, then errno {errno}");
    std::fs::write(ready, format!("{errno}")).unwrap();
    readable(&pairs.first().unwrap().0, "the stop");
}

#[test]
fn an_agent_that_floods_descriptors_in_flight_does_not_stop_the_next_start() {
    const NAME: &str =
        "flood::an_agent_that_floods_descriptors_in_flight_does_not_stop_the_next_start";
    if let Ok(ready) = std::env::var(FLOODER) {
        return flood(&ready);
    }
    alone(NAME, || {
        let mut rig = Rig::new();
        let ready = rig.path("workspace").join("ready");
        nix::unistd::mkfifo(&ready, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&ready)
            .unwrap();
        let exe = std::env::current_exe().unwrap().canonicalize().unwrap();
        let mut request = rig.request(Level::Process);
        request.roots.extra_read = vec![exe.parent().unwrap().into()];
        let exe = exe.to_str().unwrap();
        let mut spec = rig.spec_for(&request, &[exe, NAME, "--exact", "--nocapture"]);
        spec.lock = None;
        spec.environment.push((FLOODER.into(), ready.to_str().unwrap().into()));
        let mut flooder = rig.start(&spec);
        started(&mut flooder);
        readable(&fifo, "the flood");
        for code in 0..20 {
            let script = format!("cat; exit {code}");
            let stdin = Some(b"x".to_vec());
            let spec = LaunchSpec { lock: None, stdin, ..rig.shell(&script) };
            let mut handle = rig.start(&spec);
            assert_eq!(exit(&mut handle), Exit::Exited(code));
        }
        let end = stop(&mut flooder, Duration::ZERO);
        let said = String::from_utf8_lossy(&end.stdout.unwrap()).into_owned();
        let limit = format!("errno {}", libc::ETOOMANYREFS);
        assert!(said.contains(&limit), "the flood met no limit: {said}");
    });
}
