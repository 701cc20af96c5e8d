//! What an attacker does, inside of an agent: real system calls, the answer is the errno.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    clippy::zombie_processes,
    reason = "test code outside of a test function; orphans are what it is about"
)]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use missiond::sys::channel::{self, Wait};
use missiond::sys::process;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::puppet::raw;
use crate::raw::{self as raw_calls, Arg};
use crate::stage::{DEADLINE, ends_within, readable_within};

/// One thing to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Deed {
    /// A shell command; its standard output and error.
    Sh(String),
    /// Its environment, a line each.
    Environment,
    /// Lines to its own standard output.
    Print(String),
    /// The text of a file.
    Read(PathBuf),
    /// Opens for reading and writing, creating nothing.
    Open(PathBuf),
    /// Creates or replaces a file.
    Write(PathBuf, String),
    Truncate(PathBuf),
    Remove(PathBuf),
    MakeDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Symlink(PathBuf, PathBuf),
    List(PathBuf),
    Kill(u32, i32),
    /// Takes away processor time.
    Limit(u32),
    Affinity(u32),
    Priority(u32),
    Trace(u32),
    ReadMemory(u32),
    TakeDescriptor(u32),
    /// Requests after `hello`, on its own socket or another; the answers, `hello`'s first.
    Ask {
        socket: Option<PathBuf>,
        calls: Vec<(String, Value)>,
    },
    /// After `hello`, these bytes: once, so many times (in large pieces), once. What was answered.
    Stream {
        head: Vec<u8>,
        fill: Vec<u8>,
        times: usize,
        tail: Vec<u8>,
    },
    /// Descriptors beside a request: whether the daemon let go of them.
    PassDescriptors,
    /// So many connections, held for as long as they can be.
    Connect(usize),
    /// Descriptors in flight until the kernel refuses more; they stay there.
    FloodInFlight,
    /// A process that is forked away twice in a session of its own does it.
    Orphan(Box<Deed>),
    /// So many of those that never end by themselves, and ignore what can be ignored.
    Scatter(usize),
    /// A system call, by number.
    Call(i64, Vec<Arg>),
    /// `getpid` by the gate of 32-bit programs.
    Int80,
    /// A process of its own does it; an error of 1000 and a signal's number where that killed it.
    InChild(Box<Deed>),
    /// Starts a thread and waits for it.
    Thread,
    /// `ioctl` with this request, of a newline, on its own controlling terminal; "injected" if one came.
    Terminal(u64),
    /// Connects to a Unix socket.
    ConnectTo(PathBuf),
    /// Connects to an abstract Unix socket.
    ConnectAbstract(String),
    /// Connects by TCP, or sends a datagram.
    Tcp(String),
    Udp(String),
    /// Writes to a file until there is no room, 64 MiB at most; how many bytes.
    Fill(PathBuf),
    /// Starts processes until that fails, 2,000 at most; they live on. How many.
    ForkBomb,
    /// Kills its shim, or waits for its end, and then asks the control socket to stop the mission.
    OutliveShim {
        control: PathBuf,
        kill: bool,
    },
}

/// How it came out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// 0 where it was done.
    pub(crate) errno: i32,
    /// What came of it.
    pub(crate) text: String,
}

/// What a puppet says when it begins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) pid: u32,
    pub(crate) shim: u32,
    /// Open descriptors from 3 up, before it opened any itself.
    pub(crate) descriptors: Vec<String>,
}

/// The attacker's whole life: reads orders until nobody gives any.
pub(crate) fn serve(dir: &Path) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let descriptors = descriptors.filter_map(|path| {
        let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let target = fs::read_link(&path).ok()?.display().to_string();
        // The one that lists them.
        (number > 2 && !target.ends_with("/fd")).then(|| format!("{number} {target}"))
    });
    let descriptors = descriptors.collect();
    let orders = File::open(dir.join("orders")).unwrap();
    let mut answers = File::options().write(true).open(dir.join("answers")).unwrap();
    let ready = Ready { pid: process::own_pid(), shim: process::parent_pid(), descriptors };
    say(&mut answers, &ready);
    let mut kept = Kept::default();
    for line in BufReader::new(orders).lines() {
        let answer = answer(&serde_json::from_str(&line.unwrap()).unwrap(), &mut kept);
        say(&mut answers, &answer);
    }
}

fn say(answers: &mut File, what: &impl Serialize) {
    let line = serde_json::to_string(what).unwrap() + "\n";
    answers.write_all(line.as_bytes()).unwrap();
}

/// What an attacker doesn't let go of.
#[derive(Default)]
pub(crate) struct Kept(Vec<std::os::fd::OwnedFd>);

/// Does it.
pub(crate) fn answer(deed: &Deed, kept: &mut Kept) -> Answer {
    match perform(deed, kept) {
        Ok(text) => Answer { errno: 0, text },
        Err(error) => Answer { errno: error.raw_os_error().unwrap_or(-1), text: error.to_string() },
    }
}

fn perform(deed: &Deed, kept: &mut Kept) -> io::Result<String> {
    let done = |()| String::new();
    match deed {
        Deed::Sh(script) => {
            let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output()?;
            let text = [output.stdout, output.stderr].concat();
            Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
        }
        Deed::Environment => {
            let all = std::env::vars_os().map(|(n, v)| format!("{}={}", n.display(), v.display()));
            Ok(all.collect::<Vec<_>>().join("\n"))
        }
        Deed::Print(text) => {
            println!("{text}");
            io::stdout().flush().map(done)
        }
        Deed::Read(path) => fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()),
        Deed::Open(path) => {
            let mut options = File::options();
            let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
            options.read(true).write(true).custom_flags(flags).open(path).map(|_| String::new())
        }
        Deed::Write(path, text) => fs::write(path, text).map(done),
        Deed::Truncate(path) => Ok(nix::unistd::truncate(path, 0).map(done)?),
        Deed::Remove(path) => fs::remove_file(path).map(done),
        Deed::MakeDir(path) => fs::create_dir(path).map(done),
        Deed::Rename(from, to) => fs::rename(from, to).map(done),
        Deed::Link(from, to) => fs::hard_link(from, to).map(done),
        Deed::Symlink(to, at) => symlink(to, at).map(done),
        Deed::List(path) => fs::read_dir(path).map(|_| String::new()),
        Deed::Kill(..)
        | Deed::Limit(_)
        | Deed::Affinity(_)
        | Deed::Priority(_)
        | Deed::Trace(_)
        | Deed::ReadMemory(_)
        | Deed::TakeDescriptor(_) => on_process(deed),
        Deed::Ask { socket, calls } => ask(socket.as_deref(), calls),
        Deed::Stream { head, fill, times, tail } => stream(head, fill, *times, tail),
        Deed::PassDescriptors => pass_descriptors(),
        Deed::Connect(count) => connect_often(*count, kept),
        Deed::FloodInFlight => flood_in_flight(kept),
        Deed::Orphan(deed) => orphan(deed),
        Deed::Scatter(count) => {
            (0..*count).try_for_each(|_| helper("scatter", "").spawn()?.wait().map(|_| ()))?;
            Ok(String::new())
        }
        Deed::OutliveShim { control, kill } => outlive_shim(control, *kill),
        Deed::Call(number, args) => raw_calls::call(*number, args).map(|value| value.to_string()),
        Deed::Int80 => raw_calls::int_80().map(|value| value.to_string()),
        Deed::InChild(deed) => in_child(deed),
        Deed::Thread => Ok(std::thread::spawn(|| "ran".to_owned()).join().unwrap()),
        Deed::Terminal(request) => on_own_terminal(*request),
        Deed::ConnectTo(path) => {
            std::os::unix::net::UnixStream::connect(path).map(|_| String::new())
        }
        Deed::ConnectAbstract(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            std::os::unix::net::UnixStream::connect_addr(&address).map(|_| String::new())
        }
        Deed::Tcp(address) => std::net::TcpStream::connect(address).map(|_| String::new()),
        Deed::Udp(address) => {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(address)?;
            socket.send(b"x")?;
            // A port without a listener answers, on the loopback device at once.
            socket.send(b"x").map(|_| String::new())
        }
        Deed::Fill(path) => fill(path),
        Deed::ForkBomb => fork_bomb(kept),
    }
}

fn in_child(deed: &Deed) -> io::Result<String> {
    use std::os::unix::process::ExitStatusExt;
    let order = serde_json::to_string(deed)?;
    let output = helper("child", &order).stderr(Stdio::inherit()).output()?;
    if let Some(signal) = output.status.signal() {
        return Err(io::Error::from_raw_os_error(1000 + signal));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)?;
    match answer.errno {
        0 => Ok(answer.text),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn on_own_terminal(request: u64) -> io::Result<String> {
    let pty = nix::pty::openpty(None, None)?;
    let mut slave = File::from(pty.slave);
    let output = helper("terminal", &request.to_string()).stdin(slave.try_clone()?).output()?;
    let answer: Answer = serde_json::from_slice(&output.stdout)?;
    channel::set_nonblocking(slave.as_fd())?;
    let injected = matches!(io::Read::read(&mut slave, &mut [0; 8]), Ok(1..));
    if injected {
        return Ok("injected".to_owned());
    }
    match answer.errno {
        0 => Ok(answer.text),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn fill(path: &Path) -> io::Result<String> {
    let mut file = File::create(path)?;
    let piece = vec![b'x'; 1 << 20];
    let mut written = 0;
    for _ in 0..64 {
        match file.write(&piece) {
            Ok(length) => written += length,
            Err(error) => {
                println!("{written} bytes");
                return Err(error);
            }
        }
    }
    Ok(written.to_string())
}

fn fork_bomb(kept: &mut Kept) -> io::Result<String> {
    let (ours, theirs) = channel::pair()?;
    for _ in 0..2_000 {
        // They wait for what never comes, and end when the attacker does.
        let child = Command::new("cat").stdin(theirs.try_clone()?).stdout(Stdio::null()).spawn();
        if let Err(error) = child {
            kept.0.push(ours);
            return Err(error);
        }
    }
    Ok("2000".to_owned())
}

fn on_process(deed: &Deed) -> io::Result<String> {
    let done = |()| String::new();
    let of = |pid: &u32| Pid::from_raw(raw(*pid));
    let rustix_of = |pid: &u32| rustix::process::Pid::from_raw(raw(*pid));
    match deed {
        Deed::Kill(pid, signal) => {
            let signal = match signal {
                0 => None,
                number => Some(nix::sys::signal::Signal::try_from(*number)?),
            };
            Ok(nix::sys::signal::kill(of(pid), signal).map(done)?)
        }
        Deed::Limit(pid) => {
            let limit = rustix::process::Rlimit { current: Some(3600), maximum: Some(3600) };
            let old =
                rustix::process::prlimit(rustix_of(pid), rustix::process::Resource::Cpu, limit)?;
            Ok(format!("{old:?}"))
        }
        Deed::Affinity(pid) => {
            let all = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
            Ok(nix::sched::sched_setaffinity(of(pid), &all).map(done)?)
        }
        Deed::Priority(pid) => {
            Ok(rustix::process::setpriority_process(rustix_of(pid), 19).map(done)?)
        }
        Deed::Trace(pid) => {
            nix::sys::ptrace::attach(of(pid))?;
            nix::sys::wait::waitpid(of(pid), None)?;
            Ok(nix::sys::ptrace::detach(of(pid), None).map(done)?)
        }
        Deed::ReadMemory(pid) => {
            let mut bytes = [0; 8];
            let remote = nix::sys::uio::RemoteIoVec { base: 0x1000, len: 8 };
            let mut local = [io::IoSliceMut::new(&mut bytes)];
            match nix::sys::uio::process_vm_readv(of(pid), &mut local, &[remote]) {
                // There is nothing at that address: it has been allowed to look.
                Ok(_) | Err(nix::Error::EFAULT) => Ok(String::new()),
                Err(error) => Err(error.into()),
            }
        }
        Deed::TakeDescriptor(pid) => {
            let pidfd = process::pidfd(*pid)?;
            let flags = rustix::process::PidfdGetfdFlags::empty();
            rustix::process::pidfd_getfd(&pidfd, 0, flags)?;
            Ok(String::new())
        }
        other => Err(io::Error::other(format!("{other:?} is about no process"))),
    }
}

fn own_socket() -> PathBuf {
    std::env::var_os("MISSION_SOCKET").unwrap().into()
}

fn ask(socket: Option<&Path>, calls: &[(String, Value)]) -> io::Result<String> {
    let socket = socket.map_or_else(own_socket, Path::to_owned);
    let mut bus = Bus::connect(&socket)?;
    let mut answers = vec![bus.hello()?];
    if answers[0].get("result").is_some() {
        for (method, params) in calls {
            answers.push(bus.request(method, params)?);
        }
    }
    Ok(serde_json::to_string(&answers)?)
}

fn stream(head: &[u8], fill: &[u8], times: usize, tail: &[u8]) -> io::Result<String> {
    let mut bus = Bus::connect(&own_socket())?;
    bus.hello()?;
    let piece = ((1 << 20) / fill.len().max(1)).clamp(1, times.max(1));
    let (fill, times) = (fill.repeat(piece), times / piece);
    let mut written = 0;
    let mut send = |bytes: &[u8]| {
        let sent = bus.write(bytes);
        written += if sent.is_ok() { bytes.len() } else { 0 };
        sent
    };
    let sent = send(head)
        .and_then(|()| (0..times).try_for_each(|_| send(&fill)))
        .and_then(|()| send(tail));
    let answer = bus.line();
    let ended = matches!(&answer, Err(error) if error.kind() != io::ErrorKind::WouldBlock);
    let ended = ended || bus.line().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock);
    Ok(json!({
        "written": written,
        "sent": sent.is_ok(),
        "answer": answer.unwrap_or(Value::Null),
        "hung_up": ended,
    })
    .to_string())
}

fn pass_descriptors() -> io::Result<String> {
    let mut bus = Bus::connect(&own_socket())?;
    bus.hello()?;
    for round in 0..50 {
        let (theirs, ours) = channel::pair()?;
        let fds = [theirs.as_fd(); channel::MAX_FDS];
        let line =
            format!(r#"{{"jsonrpc":"2.0","id":"p{round}","method":"agent.heartbeat"}}"#) + "\n";
        channel::send(bus.stream().as_fd(), line.as_bytes(), &fds, Wait::Never)?;
        drop(theirs);
        let answer = bus.line()?;
        if answer.get("result").is_none() {
            return Ok(answer.to_string());
        }
        // Readable: the other end is closed, which only the daemon could have had.
        if !readable_within(&ours, DEADLINE) {
            return Ok(format!("round {round}: the daemon holds on to a descriptor"));
        }
    }
    Ok("dropped".to_owned())
}

fn connect_often(count: usize, kept: &mut Kept) -> io::Result<String> {
    let address = UnixAddr::new(&own_socket())?;
    let (mut connected, mut turned_away) = (0, 0);
    for _ in 0..count {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = match socket(AddressFamily::Unix, SockType::Stream, flags, None) {
            Err(nix::Error::EMFILE) => {
                // All that it may hold: those go, and more come.
                kept.0.clear();
                continue;
            }
            other => other?,
        };
        match connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address) {
            Ok(()) => {
                connected += 1;
                kept.0.push(fd);
            }
            Err(nix::Error::EAGAIN | nix::Error::ECONNREFUSED) => turned_away += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(format!("{connected} connected, {turned_away} turned away"))
}

fn flood_in_flight(kept: &mut Kept) -> io::Result<String> {
    let null = File::open("/dev/null")?;
    let fds = [null.as_fd(); channel::MAX_FDS];
    let mut sent = 0;
    loop {
        let (a, b) = channel::pair()?;
        let full = loop {
            match channel::send(a.as_fd(), b"x", &fds, Wait::Never) {
                Ok(()) => sent += fds.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break None,
                Err(error) => break Some(error),
            }
        };
        kept.0.extend([a, b]);
        if let Some(error) = full {
            return Ok(format!("{sent} {}", error.raw_os_error().unwrap_or(-1)));
        }
    }
}

/// This program again, for what takes another process.
fn helper(task: &str, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([crate::HELPER, task, argument]).stdin(Stdio::null());
    command
}

fn orphan(deed: &Deed) -> io::Result<String> {
    let order = serde_json::to_string(deed)?;
    // `output` ends when the last process that holds the pipe does: the orphan.
    let output = helper("orphan", &order).stderr(Stdio::inherit()).output()?;
    let answer: Answer = serde_json::from_slice(&output.stdout)?;
    match answer.errno {
        0 => Ok(answer.text),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn outlive_shim(control: &Path, kill: bool) -> io::Result<String> {
    let argument = json!([control, process::parent_pid()]).to_string();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        // They write what they are told into the workspace.
        waiting.push(helper("outlive", &argument).stderr(Stdio::piped()).spawn()?);
    }
    for child in &mut waiting {
        // Its first word: it waits.
        io::Read::read_exact(&mut child.stderr.as_mut().unwrap(), &mut [0; 1])?;
    }
    if kill {
        on_process(&Deed::Kill(process::parent_pid(), libc::SIGKILL))?;
    }
    Ok(String::new())
}

/// What a helper does: `fork` is not safe in Rust, so every step is this program again.
pub(crate) fn help(task: &str, argument: &str) {
    match task {
        // The first forks the second and ends; the second waits for that.
        "orphan" => {
            nix::unistd::setsid().unwrap();
            let parent = process::own_pid();
            let argument = json!([parent, argument]).to_string();
            helper("orphaned", &argument).spawn().unwrap();
        }
        "orphaned" => {
            let (parent, deed): (u32, String) = serde_json::from_str(argument).unwrap();
            assert!(ends_within(parent, DEADLINE), "the parent lives");
            let answer = answer(&serde_json::from_str(&deed).unwrap(), &mut Kept::default());
            println!("{}", serde_json::to_string(&answer).unwrap());
        }
        "child" => {
            let answer = answer(&serde_json::from_str(argument).unwrap(), &mut Kept::default());
            println!("{}", serde_json::to_string(&answer).unwrap());
        }
        "terminal" => {
            nix::unistd::setsid().unwrap();
            rustix::process::ioctl_tiocsctty(io::stdin()).unwrap();
            let request = argument.parse().unwrap();
            let args = vec![Arg::Int(0), Arg::Int(request), Arg::Bytes(b"\n\0".to_vec())];
            let answer = answer(&Deed::Call(libc::SYS_ioctl, args), &mut Kept::default());
            println!("{}", serde_json::to_string(&answer).unwrap());
        }
        "scatter" => {
            nix::unistd::setsid().unwrap();
            helper("scattered", "").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        }
        "scattered" => {
            // Ignored signals stay so over exec: the shell has no say in it.
            let script =
                "trap '' TERM HUP INT QUIT USR1 USR2 PIPE; (setsid sleep 1000 &) ; exec sleep 1000";
            let _never = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).status();
        }
        "outlive" => {
            let (control, shim): (PathBuf, u32) = serde_json::from_str(argument).unwrap();
            let shim = process::pidfd(shim).unwrap();
            io::stderr().write_all(b"!").unwrap();
            assert!(readable_within(&shim, DEADLINE), "the shim lives");
            let calls = [("mission.stop".to_owned(), json!({}))];
            let told = ask(Some(&control), &calls).unwrap_or_else(|error| error.to_string());
            // Not to standard output: its reader was the shim.
            let name = format!("told-{}", process::own_pid());
            let workspace = PathBuf::from(std::env::var_os("MISSION_WORKSPACE").unwrap());
            fs::write(workspace.join(name), told).unwrap();
        }
        other => println!("nobody knows the task {other}"),
    }
}
