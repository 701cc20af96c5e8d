//! Terminals: the launcher's own, and the one on which a person reads what agents say.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code outside of a test function"
)]

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::thread::JoinHandle;

use missiond::sys::procfs;
use nix::pty::openpty;
use serde_json::json;

use crate::deed::Deed;
use crate::stage::{Daemon, Stage, shut};

/// Takes the standard input as the controlling terminal of a new session, and becomes the command.
pub(crate) fn take(command: &[&str]) -> ExitCode {
    nix::unistd::setsid().unwrap();
    rustix::process::ioctl_tiocsctty(std::io::stdin()).unwrap();
    eprintln!("{}", Command::new(command[0]).args(&command[1..]).exec());
    ExitCode::FAILURE
}

/// A pseudo terminal of a person's: what was shown on it, once its last user has gone.
struct Terminal {
    slave: OwnedFd,
    shown: JoinHandle<Vec<u8>>,
}

impl Terminal {
    fn new() -> Terminal {
        let size = nix::pty::Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let mut master = File::from(pty.master);
        let shown = std::thread::spawn(move || {
            let mut shown = Vec::new();
            // EIO: no other side any more.
            let _end = master.read_to_end(&mut shown);
            shown
        });
        Terminal { slave: pty.slave, shown }
    }

    fn attach(&self, command: &mut Command) {
        let end = || Stdio::from(self.slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
    }

    fn name(&self) -> String {
        nix::unistd::ttyname(&self.slave).unwrap().display().to_string()
    }

    fn shown(self) -> String {
        drop(self.slave);
        String::from_utf8_lossy(&self.shown.join().unwrap()).into_owned()
    }
}

/// The daemon as the leader of a session on this terminal.
fn start_on(stage: &Stage, terminal: &Terminal) -> Daemon {
    let daemon = stage.daemon();
    let mut command = stage.command(std::env::current_exe().unwrap());
    command.arg(crate::ON_TERMINAL).arg(daemon.get_program()).args(daemon.get_args());
    terminal.attach(&mut command);
    Daemon::of(command.spawn().unwrap())
}

pub(crate) fn the_terminal_of_the_launcher_cannot_be_opened(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let terminal = Terminal::new();
    let mut daemon = start_on(&stage, &terminal);
    let ready = stage.ready(&mut agent);
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let tty = |pid| stat(pid).rsplit(") ").next().unwrap().split(' ').nth(4).unwrap().to_owned();
    assert_ne!(tty(daemon.pid()), "0", "the daemon has no terminal, so this would prove nothing");
    assert_eq!(tty(ready.pid), "0");

    assert_eq!(agent.errno(&Deed::Open("/dev/tty".into())), libc::ENXIO);
    assert_eq!(agent.errno(&Deed::Orphan(Box::new(Deed::Open("/dev/tty".into())))), libc::ENXIO);
    // By its own name neither, nor by the descriptors of who has it open.
    let name = terminal.name();
    assert_eq!(agent.errno(&Deed::Open(name.clone().into())), shut(), "{name}");
    let launcher = daemon.launcher(&[ready.shim]);
    for pid in [daemon.pid(), launcher, ready.shim] {
        let errno = agent.errno(&Deed::Open(format!("/proc/{pid}/fd/0").into()));
        assert_eq!(errno, shut(), "fd 0 of process {pid}");
    }
    agent.text(&Deed::Print("\x1b]0;INJECTED\x07".into()));
    assert!(daemon.is_alive());
    daemon.stop();
    let shown = terminal.shown();
    assert!(shown.contains("runs"), "the daemon's own words did come: {shown}");
    assert!(!shown.contains("INJECTED"), "{shown}");
    assert_eq!(procfs::stat(ready.pid).ok().map(|stat| stat.pid), None);
}

/// Sets the title, erases the screen, and turns the reading direction: by C0, by C1, by bidi.
const HOSTILE: &str = "\x1b]0;OWNED\x07\x1b[2J\u{9d}0;OWNED\u{9c}\u{202e}txt.exe\rhidden";
const ACTIVE: [&str; 5] = ["\x1b]0;", "\x07", "\x1b[2J", "\u{9d}", "\u{202e}"];

pub(crate) fn what_agents_say_does_not_act_on_a_terminal(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "lead", "");
    let mut reader = stage.agent("b", "write", "");
    let watched = Terminal::new();
    let mut daemon = start_on(&stage, &watched);
    agent.ready();
    reader.ready();

    // Everywhere that an agent's words go.
    agent.text(&Deed::Print(HOSTILE.into()));
    let carried_out = |answer: serde_json::Value| assert!(answer["result"].is_object(), "{answer}");
    carried_out(agent.ask(
        "task.create",
        &json!({"id": "t1", "title": HOSTILE, "data": {HOSTILE: HOSTILE}, "assign": "b"}),
    ));
    let mine = json!({"type": "broadcast", "content": {"text": HOSTILE, HOSTILE: 1}});
    carried_out(agent.ask("publish", &mine));
    carried_out(agent.ask("publish", &json!({"type": "alert", "content": HOSTILE, "to": ["b"]})));
    let task = reader.ask("task.get", &json!({"task": "t1"}));
    let epoch = &task["result"]["epoch"];
    let update = json!({"task": "t1", "epoch": epoch, "progress": 5, "note": HOSTILE});
    carried_out(reader.ask("task.update", &update));
    let refused = agent.ask(HOSTILE, &json!({}));
    assert!(refused["error"].is_object());
    let refused = reader.ask("agent.role", &json!({"agent": "b", "role": HOSTILE}));
    assert!(refused["error"].is_object());
    let failed = json!({"task": "t1", "epoch": epoch, "result": HOSTILE});
    carried_out(reader.ask("task.fail", &failed));
    stage.event("task_failed", |_| true);

    let show = |args: &[&str]| {
        let terminal = Terminal::new();
        let mut command = stage.command(env!("CARGO_BIN_EXE_missionctl"));
        command.env("TERM", "xterm-256color").args(["-m", "demo"]).args(args);
        terminal.attach(&mut command);
        command.status().unwrap();
        drop(command);
        terminal.shown()
    };
    let commands: [(&[&str], bool); 11] = [
        (&["status"], false),
        (&["ps"], false),
        (&["task", "list"], true),
        (&["task", "get", "t1"], true),
        (&["messages"], true),
        (&["events"], true),
        (&["logs", "a"], true),
        (&["agent", "list"], false),
        (&["-o", "json", "task", "get", "t1"], true),
        (&["-o", "jsonl", "messages"], true),
        (&["-o", "jsonl", "events"], true),
    ];
    for (args, says_it) in commands {
        let shown = show(args);
        for active in ACTIVE {
            assert!(!shown.contains(active), "missionctl {args:?} shows {active:?}: {shown:?}");
        }
        assert!(!says_it || shown.contains("OWNED"), "missionctl {args:?} doesn't tell: {shown:?}");
    }
    for args in [&["--raw", "logs", "a"][..], &["--raw", "task", "get", "t1"]] {
        let shown = show(args);
        assert!(shown.contains("\x1b]0;OWNED"), "missionctl {args:?} changes it: {shown:?}");
    }
    daemon.stop();
    let shown = watched.shown();
    assert!(shown.contains("t1"), "the daemon's own words did come: {shown}");
    for active in ACTIVE {
        assert!(!shown.contains(active), "missiond start shows {active:?}: {shown:?}");
    }
}
