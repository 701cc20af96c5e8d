//! The world of an agent at level 2: what of the host isn't in it, and its bounds.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code outside of a test function"
)]

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::deed::{Deed, Kept, answer};
use crate::raw::Arg;
use crate::stage::{DEADLINE, Daemon, Stage, ends_within, under_load};
use crate::support::skip;

const NOT_THERE: [i32; 2] = [libc::ENOENT, libc::EACCES];

pub(crate) fn abstract_sockets_of_the_host_are_out_of_reach(_: &str) {
    let name = format!("missiond-escape-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let outside = answer(&Deed::ConnectAbstract(name.clone()), &mut Kept::default());
    assert_eq!(outside.errno, 0, "outside it works");
    listener.accept().unwrap();
    for network in ["none", "host"] {
        let mut stage = Stage::new();
        let mut agent = stage.agent("a", "write", &format!("network = {network:?}\n"));
        let mut daemon = stage.start();
        agent.ready();
        for deed in [Deed::ConnectAbstract(name.clone())] {
            for deed in [deed.clone(), Deed::Orphan(Box::new(deed))] {
                let errno = agent.errno(&deed);
                assert!([libc::ECONNREFUSED, libc::EPERM].contains(&errno), "{network}: {errno}");
            }
        }
        daemon.stop();
    }
    assert!(listener.accept().is_err(), "somebody has connected");
}

pub(crate) fn sockets_of_the_host_are_not_there(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "lead", "network = \"host\"\n");
    let mut victim = stage.agent("b", "write", "");
    // As ssh-agent, gpg, dbus, X11 and Wayland put theirs: at home, in the runtime directory, in /tmp.
    let outside = stage.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let in_tmp = tempfile::Builder::new().prefix("esc-sock").tempdir_in("/tmp").unwrap();
    let places = [
        outside.join("S.gpg-agent"),
        stage.path("run/gpg-agent"),
        stage.path("run/wayland-0"),
        in_tmp.path().join("agent.1"),
    ];
    let listeners = places.clone().map(|path| UnixListener::bind(path).unwrap());
    listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
    let mut daemon = stage.start();
    agent.ready();
    victim.ready();
    let link = stage.path("ws/link");
    agent.text(&Deed::Symlink(places[0].clone(), link.clone()));
    let known = [
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run/podman/podman.sock",
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
        "/tmp/.X11-unix/X0",
    ];
    let doors = [stage.control(), stage.socket("b"), link];
    for path in places.iter().cloned().chain(known.map(PathBuf::from)).chain(doors) {
        for deed in [Deed::ConnectTo(path.clone()), Deed::Orphan(Box::new(Deed::ConnectTo(path)))] {
            let errno = agent.errno(&deed);
            assert!(NOT_THERE.contains(&errno), "{deed:?}: {errno}");
        }
    }
    for listener in &listeners {
        assert!(listener.accept().is_err(), "somebody has connected");
    }
    // Its own door is open, and so is the other's to the other.
    agent.is_served_within(DEADLINE);
    victim.is_served_within(DEADLINE);
    daemon.stop();
}

pub(crate) fn there_is_no_network(_: &str) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let datagrams = UdpSocket::bind("0.0.0.0:0").unwrap();
    datagrams.set_nonblocking(true).unwrap();
    let (tcp, udp) =
        (listener.local_addr().unwrap().port(), datagrams.local_addr().unwrap().port());
    let outside = answer(&Deed::Tcp(format!("127.0.0.1:{tcp}")), &mut Kept::default());
    assert_eq!(outside.errno, 0, "outside it works");
    listener.accept().unwrap();
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "network = \"none\"\n");
    let mut daemon = stage.start();
    agent.ready();
    // The address that this machine has towards others, if it has one.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr()).ok();
    let mut hosts = vec!["127.0.0.1".to_owned(), "192.0.2.1".into(), "8.8.8.8".into()];
    hosts.extend(own.map(|address| address.ip().to_string()));
    let refusals = [libc::ENETUNREACH, libc::ECONNREFUSED, libc::EHOSTUNREACH];
    for host in hosts {
        for deed in [
            Deed::Tcp(format!("{host}:{tcp}")),
            Deed::Udp(format!("{host}:{udp}")),
            Deed::Udp(format!("{host}:53")),
        ] {
            let errno = agent.errno(&deed);
            assert!(refusals.contains(&errno), "{deed:?}: {errno}");
        }
    }
    assert!(listener.accept().is_err(), "somebody has connected");
    assert!(datagrams.recv(&mut [0; 8]).is_err(), "something has come");
    let interfaces = agent.text(&Deed::Read("/proc/net/dev".into()));
    assert_eq!(interfaces.lines().skip(2).count(), 1, "{interfaces}");
    daemon.stop();
}

pub(crate) fn shared_memory_of_the_host_is_not_there(_: &str) {
    const KEY: u64 = 0x4d53_4e44;
    let segment = |flags: u64| {
        let args = vec![Arg::Int(KEY), Arg::Int(4096), Arg::Int(flags)];
        Deed::Call(libc::SYS_shmget, args)
    };
    let queue_name = format!("missiond-escape-{}", std::process::id());
    let queue = |flags: i32| {
        let flags = u64::from(flags.cast_unsigned());
        let args =
            vec![Arg::Text(queue_name.clone()), Arg::Int(flags), Arg::Int(0o600), Arg::Int(0)];
        Deed::Call(libc::SYS_mq_open, args)
    };
    let outside = |deed: &Deed| answer(deed, &mut Kept::default());
    let create = u64::from((libc::IPC_CREAT | 0o600).cast_unsigned());
    let made = outside(&segment(create));
    assert_eq!(made.errno, 0, "{}", made.text);
    let has_queues = outside(&queue(libc::O_CREAT | libc::O_RDWR)).errno == 0;
    let file = tempfile::Builder::new().prefix("missiond-escape").tempfile_in("/dev/shm").unwrap();
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let mut daemon = stage.start();
    agent.ready();
    assert_eq!(agent.errno(&segment(0)), libc::ENOENT);
    assert_eq!(agent.errno(&Deed::Read(file.path().into())), libc::ENOENT);
    if has_queues {
        let errno = agent.errno(&queue(libc::O_RDWR));
        assert!([libc::ENOENT, libc::EPERM, libc::ENOSYS].contains(&errno), "{errno}");
    }
    // A /dev/shm of its own it has, and nothing of that comes out.
    let name = format!("/dev/shm/inside-{}", std::process::id());
    agent.text(&Deed::Write(name.clone().into(), "x".into()));
    assert!(!Path::new(&name).exists());
    daemon.stop();
    let remove = Deed::Call(
        libc::SYS_shmctl,
        vec![Arg::Int(made.text.parse().unwrap()), Arg::Int(0), Arg::Int(0)],
    );
    assert_eq!(outside(&remove).errno, 0);
    if has_queues {
        outside(&Deed::Call(libc::SYS_mq_unlink, vec![Arg::Text(queue_name.clone())]));
    }
}

pub(crate) fn a_directory_swapped_for_a_link_during_setup_gives_nothing(_: &str) {
    const ROUNDS: usize = 60;
    let stage = Stage::new();
    let secret = stage.path("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("key"), "PRIVATE KEY").unwrap();
    let (given, link) = (stage.path("given"), stage.path("link"));
    std::fs::create_dir(&given).unwrap();
    std::fs::write(given.join("key"), "harmless").unwrap();
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    let (name, over) = (given.to_str().unwrap().to_owned(), AtomicBool::new(false));
    let key = format!("{name}/key");
    let quiet = stage.run(&["--rw", &name], &["cat", &key]);
    assert_eq!(quiet.stdout, b"harmless", "{}", String::from_utf8_lossy(&quiet.stderr));
    let (mut harmless, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let here = rustix::fs::CWD;
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !over.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(here, &given, here, &link, exchange).unwrap();
            }
        });
        for _ in 0..ROUNDS {
            let output = stage.run(&["--rw", &name], &["cat", &key]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(!said.contains("PRIVATE"), "it was led to the secret");
            if said == "harmless" { harmless += 1 } else { refused += 1 }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_to_string(secret.join("key")).unwrap(), "PRIVATE KEY");
    assert!(refused > 0, "the link was never met");
    println!("NOTE {ROUNDS} starts beside a swap: {harmless} saw the directory, {refused} nothing");
}

pub(crate) fn a_setuid_bit_of_its_own_gives_nothing(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let mut daemon = stage.start();
    agent.ready();
    let us = nix::unistd::Uid::effective().to_string();
    let made = agent.text(&Deed::Sh("cp /usr/bin/id own && chmod 6755 own && ./own -u".into()));
    assert_eq!(made, us);
    // Not even one that is root's would: the mount says so.
    let mounts = agent.text(&Deed::Read("/proc/self/mountinfo".into()));
    let lacking: Vec<&str> =
        mounts.lines().filter(|line| !line.split(' ').any(|w| w.contains("nosuid"))).collect();
    assert_eq!(lacking, Vec::<&str>::new(), "mounts without nosuid");
    daemon.stop();
}

pub(crate) fn it_has_no_capability(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "lead", "");
    let mut daemon = stage.start();
    agent.ready();
    for status in ["/proc/self/status", "/proc/1/status"] {
        let text = agent.text(&Deed::Read(status.into()));
        let sets: Vec<&str> = text.lines().filter(|line| line.starts_with("Cap")).collect();
        assert_eq!(sets.len(), 5, "{text}");
        assert!(sets.iter().all(|set| set.ends_with("0000000000000000")), "{status}: {sets:?}");
    }
    daemon.stop();
}

pub(crate) fn running_programs_are_not_overwritten(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let mut daemon = stage.start();
    agent.ready();
    let refusals = [libc::ETXTBSY, libc::EROFS, libc::EACCES, libc::ENOENT, libc::EPERM];
    let program = PathBuf::from(env!("CARGO_BIN_EXE_missiond"));
    let length = || std::fs::metadata(&program).unwrap().len();
    let before = length();
    for path in [
        "/proc/self/exe".into(),
        "/proc/1/exe".into(),
        program.clone(),
        std::env::current_exe().unwrap(),
    ] {
        for deed in [Deed::Open(path.clone()), Deed::Write(path.clone(), "x".into())] {
            let errno = agent.errno(&deed);
            assert!(refusals.contains(&errno), "{deed:?}: {errno}");
        }
    }
    assert_eq!(length(), before);
    daemon.stop();
}

pub(crate) fn the_kernel_tells_and_takes_nothing_by_files(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "lead", "");
    let mut daemon = stage.start();
    agent.ready();
    let refusals = [libc::EACCES, libc::ENOENT, libc::EROFS, libc::EPERM];
    let pattern = || std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let before = pattern();
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sysrq-trigger",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/kernel/uevent_helper",
        "/proc/1/oom_score_adj",
    ] {
        let errno = agent.errno(&Deed::Write(path.into(), "x".into()));
        assert!(refusals.contains(&errno), "write {path}: {errno}");
    }
    for path in [
        "/proc/kcore",
        "/proc/kallsyms",
        "/proc/cmdline",
        "/proc/keys",
        "/proc/timer_list",
        "/sys/kernel/notes",
        "/sys/class/net",
        "/sys/fs/cgroup/cgroup.controllers",
        "/dev/mem",
        "/dev/kmsg",
    ] {
        let read = agent.errno(&Deed::Read(path.into()));
        assert!(refusals.contains(&read), "read {path}: {read}");
    }
    assert_eq!(pattern(), before);
    daemon.stop();
}

pub(crate) fn a_fork_bomb_ends_at_the_limit(name: &str) {
    let root = nix::unistd::Uid::effective().is_root();
    if skip(name, "user", !root, "the kernel counts no processes of root") {
        return;
    }
    let mut stage = Stage::new();
    let mut bomber = stage.agent("a", "write", "limits = { pids = 64 }\n");
    let mut sibling = stage.agent("b", "write", "");
    let mut daemon = stage.start();
    bomber.ready();
    sibling.ready();
    bomber.begin(&Deed::ForkBomb);
    let answer = bomber.answer();
    assert_eq!(answer.errno, libc::EAGAIN, "{answer:?}");
    sibling.is_served_within(under_load(Duration::from_secs(1)));
    daemon.stop();
}

pub(crate) fn the_memory_hog_alone_is_killed(name: &str) {
    let why = "a limit of memory for the whole agent takes a cgroup of one's own; `cargo xtask vm-test` \
               has one";
    skip(name, "cgroup2-memory", false, why);
}

pub(crate) fn a_private_directory_is_full_at_its_limit(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "limits = { tmp = \"8MiB\" }\n");
    let mut daemon = stage.start();
    agent.ready();
    for dir in ["/tmp", "/dev/shm"] {
        let file = format!("{dir}/fill-{}", std::process::id());
        assert_eq!(agent.errno(&Deed::Fill(file.clone().into())), libc::ENOSPC, "{dir}");
        assert!(!Path::new(&file).exists(), "{file} is the host's");
        agent.text(&Deed::Remove(file.into()));
    }
    // So many files that it isn't the bytes.
    let many = "for i in $(seq 1 5000); do : >/tmp/f$i || exit 0; done 2>/dev/null; echo all";
    assert_eq!(agent.text(&Deed::Sh(many.into())), "");
    daemon.stop();
}

pub(crate) fn a_later_mount_of_the_host_is_not_seen(name: &str) {
    // A host of one's own, in which one may mount: a user and a mount namespace around the daemon.
    let enter = ["-U", "-c", "--keep-caps", "-m"];
    let works = Command::new("unshare")
        .args(enter)
        .args(["sh", "-c", "mount --make-rshared / && mount -t tmpfs none /mnt"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if skip(name, "unshare", works, "unshare(1) can't make a namespace to mount in") {
        return;
    }
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let place = stage.path("ws/place");
    std::fs::create_dir(&place).unwrap();
    let daemon = stage.daemon();
    let mut command = stage.command("unshare");
    // Its children have none of its capabilities.
    let script = "mount --make-rshared /; setpriv --inh-caps=-all --ambient-caps=-all \"$@\" </dev/null & \
                  while read -r line; do eval \"$line\"; done; kill %1; wait";
    command.args(enter).args(["bash", "-c", script, "bash"]);
    command.arg(daemon.get_program()).args(daemon.get_args());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    let (mut host, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut daemon = Daemon::of(child);
    agent.ready();
    let at = place.display();
    writeln!(host, "mount -t tmpfs none '{at}' && echo x >'{at}/marker' && cat '{at}/marker'")
        .unwrap();
    let mut answer = [0; 2];
    std::io::Read::read_exact(&mut { said }, &mut answer).unwrap();
    assert_eq!(&answer, b"x\n", "the host sees its mount");
    assert_eq!(agent.errno(&Deed::Read(place.join("marker"))), libc::ENOENT);
    // What it writes there is beneath the host's mount, not in it.
    agent.text(&Deed::Write(place.join("own"), "x".into()));
    // The end of its orders ends the daemon, too.
    drop(host);
    assert!(ends_within(daemon.pid(), DEADLINE), "the daemon lives on");
    daemon.kill();
    assert_eq!(crate::stage::listing(&place), ["own"]);
}

pub(crate) fn its_shim_and_its_init_are_out_of_reach(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let mut daemon = stage.start();
    let host = stage.ready(&mut agent);
    // By the numbers that they have outside, and the one that the init has inside.
    for pid in [host.shim, host.pid, daemon.pid()] {
        let errno = agent.errno(&Deed::Kill(pid, libc::SIGKILL));
        assert!([libc::ESRCH, libc::EPERM].contains(&errno), "{pid}: {errno}");
    }
    // The kernel drops what an init hasn't asked for, if it even takes it.
    agent.act(&Deed::Kill(1, libc::SIGKILL));
    agent.act(&Deed::Kill(1, libc::SIGTERM));
    agent.is_served_within(DEADLINE);
    let errno = agent.errno(&Deed::ConnectTo(stage.control()));
    assert!(NOT_THERE.contains(&errno), "{errno}");
    assert!(daemon.is_alive());
    daemon.stop();
}
