//! Processes: what a start hands on, what a setuid program gives, and everybody else's processes.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code outside of a test function"
)]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};

use crate::deed::{Deed, Kept, answer};
use crate::stage::{Stage, shut};
use crate::support::{skip, skip_without_landlock, skip_without_seccomp};

pub(crate) fn a_setuid_program_gives_nothing(name: &str) {
    let program = ["/usr/bin/su", "/bin/su"].into_iter().find(|path| {
        std::fs::metadata(path).is_ok_and(|m| m.uid() == 0 && m.permissions().mode() & 0o4000 != 0)
    });
    let why = "there is no setuid su";
    if skip(name, "setuid", program.is_some(), why) {
        return;
    }
    let program = program.unwrap();
    let us = nix::unistd::Uid::effective();
    if skip(name, "user", !us.is_root(), "root has nothing to gain") {
        return;
    }
    // su asks for the password and waits: long enough to look at whose rights it has.
    let script = format!(
        "mkfifo \"$TMPDIR/never\" && {{ {program} -c id root <\"$TMPDIR/never\" >\"$TMPDIR/said\" 2>&1 & \
         exec 9>\"$TMPDIR/never\"; cat /proc/$!/status; kill $!; exec 9>&-; wait; cat \"$TMPDIR/said\"; }}"
    );
    let effective = |status: &str| -> Vec<String> {
        let lines = status.lines().filter(|line| line.starts_with("Uid:"));
        lines.map(|line| line.split_whitespace().nth(2).unwrap().to_owned()).collect()
    };
    // Outside it would: else this proves nothing.
    let gained = outside_of_any_agent(program);
    assert_eq!(gained, "0", "{program} gains nothing outside either");

    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let mut daemon = stage.start();
    agent.ready();
    let own = agent.text(&Deed::Read("/proc/self/status".into()));
    assert!(own.contains("NoNewPrivs:\t1\n"), "{own}");
    let seen = agent.text(&Deed::Sh(script));
    let ids = effective(&seen);
    assert!(!ids.is_empty() && ids.iter().all(|id| *id == us.to_string()), "{seen}");
    assert!(!seen.contains("uid=0"), "{seen}");
    // One of its own making.
    let made = "cp /usr/bin/id \"$HOME/id\" && chmod 6755 \"$HOME/id\" && \"$HOME/id\" -u";
    assert_eq!(agent.text(&Deed::Sh(made.into())), us.to_string());
    daemon.stop();
}

/// The effective uid of the program while it waits for a password, started by the test itself.
fn outside_of_any_agent(program: &str) -> String {
    let mut child = Command::new(program)
        .args(["-c", "id", "root"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its prompt, or its refusal: it runs, and stdin is still open.
    let mut prompt = [0; 1];
    child.stderr.as_mut().unwrap().read_exact(&mut prompt).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    // An empty password.
    let _answered = child.stdin.take().unwrap().write_all(b"\n");
    child.wait().unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    uid.split_whitespace().nth(2).unwrap().to_owned()
}

pub(crate) fn inherited_descriptors_are_closed(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let secret = stage.path("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("key"), "hush").unwrap();
    let daemon = stage.daemon();
    let mut command = stage.command("sh");
    let script =
        "exec 3<\"$1\" 4</ 5<\"$1/key\" 6>>\"$1/key\" 7<\"$1\" 9<>\"$1/key\"; shift; exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(&secret);
    command.arg(daemon.get_program()).args(daemon.get_args());
    let mut daemon = stage.spawn(command);
    let ready = stage.ready(&mut agent);
    assert_eq!(ready.descriptors, Vec::<String>::new());
    for number in 3..10 {
        let said = agent.text(&Deed::Sh(format!("exec 2>&1; cat <&{number}; echo x >&{number}")));
        assert!(said.contains("Bad file descriptor"), "descriptor {number}: {said}");
        let errno = agent.errno(&Deed::Read(format!("/proc/self/fd/{number}/key").into()));
        assert!([libc::ENOENT, libc::ENOTDIR, libc::EACCES].contains(&errno), "{number}: {errno}");
    }
    // Nor through those who have them.
    let launcher = daemon.launcher(&[ready.shim]);
    for pid in [daemon.pid(), launcher, ready.shim] {
        let errno = agent.errno(&Deed::Read(format!("/proc/{pid}/fd/3/key").into()));
        assert_eq!(errno, shut(), "descriptor 3 of process {pid}");
    }
    daemon.stop();
    assert_eq!(std::fs::read_to_string(secret.join("key")).unwrap(), "hush");
}

pub(crate) fn the_environment_of_the_launcher_stays_outside(_: &str) {
    const HUSH: &str = "sk-do-not-tell-anybody";
    let mut stage = Stage::new();
    let with_secret = "secrets = { API_KEY = { env = \"TEAM_KEY\" } }\n";
    let mut owner = stage.agent("a", "write", with_secret);
    let mut other = stage.agent("b", "write", "");
    let mut command = stage.daemon();
    let outside = [
        ("LD_PRELOAD", "/nowhere/evil.so"),
        ("LD_LIBRARY_PATH", "/nowhere"),
        ("SSH_AUTH_SOCK", "/nowhere/agent"),
        ("AWS_SECRET_ACCESS_KEY", HUSH),
        ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere"),
        ("XAUTHORITY", "/nowhere/x"),
        ("BASH_ENV", "/nowhere/rc"),
        ("MISSION_SOCKET", "/nowhere/sock"),
        ("TEAM_KEY", HUSH),
    ];
    command.envs(outside);
    let mut daemon = stage.spawn(command);
    let (ready, second) = (stage.ready(&mut owner), stage.ready(&mut other));
    let launcher = daemon.launcher(&[ready.shim, second.shim]);
    for agent in [&mut owner, &mut other] {
        let inside = agent.text(&Deed::Environment);
        for (name, value) in outside {
            let line = format!("{name}={value}");
            assert!(!inside.lines().any(|inside| inside == line), "{line} is inside");
        }
        assert!(!inside.contains("/nowhere"), "{inside}");
        // Nor at the others, whose environment began as the launcher's.
        for pid in [daemon.pid(), launcher, ready.shim, second.shim] {
            let errno = agent.errno(&Deed::Read(format!("/proc/{pid}/environ").into()));
            assert_eq!(errno, shut(), "the environment of process {pid}");
        }
    }
    // The one that is to have it has it, under its name; a sibling can't look.
    assert!(owner.text(&Deed::Environment).lines().any(|line| line == format!("API_KEY={HUSH}")));
    assert!(!other.text(&Deed::Environment).contains(HUSH));
    let errno = other.errno(&Deed::Read(format!("/proc/{}/environ", ready.pid).into()));
    assert_eq!(errno, shut());
    daemon.stop();
    // And nothing wrote it down.
    let written = Command::new("grep").args(["-rl", HUSH]).arg(stage.path("")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&written.stdout), "", "files that hold the secret");
}

/// A process that belongs to no mission.
struct Stranger(Child);

impl Stranger {
    fn new() -> Stranger {
        let mut command = Command::new("sleep");
        Stranger(command.arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ended_before = self.0.kill();
        let _status = self.0.wait();
    }
}

fn attacks(pid: u32) -> Vec<Deed> {
    vec![
        Deed::Kill(pid, 0),
        Deed::Kill(pid, libc::SIGCONT),
        Deed::Limit(pid),
        Deed::Affinity(pid),
        Deed::Priority(pid),
        Deed::Trace(pid),
        Deed::ReadMemory(pid),
        Deed::TakeDescriptor(pid),
    ]
}

pub(crate) fn other_processes_are_out_of_reach(name: &str) {
    if skip_without_landlock(name, 6) || skip_without_seccomp(name) {
        return;
    }
    let stranger = Stranger::new();
    // Outside they work, on a process of the same user: else this proves nothing.
    for deed in attacks(stranger.0.id()) {
        let answer = answer(&deed, &mut Kept::default());
        assert_eq!(answer.errno, 0, "{deed:?} does not work outside either: {}", answer.text);
    }
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "lead", "");
    let mut sibling = stage.agent("b", "write", "");
    let mut daemon = stage.start();
    let (own, other) = (stage.ready(&mut agent), stage.ready(&mut sibling));
    let launcher = daemon.launcher(&[own.shim, other.shim]);
    let targets = [
        ("daemon", daemon.pid()),
        ("launcher", launcher),
        ("own shim", own.shim),
        ("sibling's shim", other.shim),
        ("sibling", other.pid),
        ("test", std::process::id()),
    ];
    let limits =
        |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let nice = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().to_owned()
    };
    let before: Vec<_> = targets.iter().map(|(_, pid)| (limits(*pid), nice(*pid))).collect();
    let mut refused = 0;
    for (whom, pid) in targets {
        for deed in attacks(pid) {
            for deed in [deed.clone(), Deed::Orphan(Box::new(deed))] {
                let errno = agent.errno(&deed);
                assert!(
                    [libc::EPERM, libc::ESRCH, libc::EACCES].contains(&errno),
                    "{deed:?} on the {whom}: {errno}"
                );
                refused += 1;
            }
        }
        for file in ["environ", "mem", "maps", "cwd/.", "fd/0"] {
            let path = format!("/proc/{pid}/{file}");
            let errno = agent.errno(&Deed::Read(path.clone().into()));
            assert_eq!(errno, shut(), "{path} of the {whom}");
        }
    }
    let after: Vec<_> = targets.iter().map(|(_, pid)| (limits(*pid), nice(*pid))).collect();
    assert_eq!(before, after);
    // Everybody lives and works.
    sibling.is_served_within(crate::stage::DEADLINE);
    println!("NOTE {refused} attacks on processes refused");
    daemon.stop();
}
