//! One command, run once, as `missiond run` does.
//!
//! Without libtest, because what is tested wants a process with one thread: this program, started
//! again with [`SCRIPT`] in its environment.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code outside of a test function"
)]

#[path = "launch/rig.rs"]
#[expect(dead_code, reason = "made for another test program")]
mod rig;
#[path = "launch/stage.rs"]
#[expect(dead_code, reason = "made for another test program")]
mod stage;
#[expect(dead_code, reason = "made for other test programs")]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command as Program, ExitCode, Stdio};
use std::time::Duration;

use missiond::launch::{Exit, RunSpec, run_once};
use missiond::policy::Level;
use missiond::sys::process;

use rig::{Rig, readable};
use stage::skip_without_userns;

const SCRIPT: &str = "MISSIOND_TEST_ONCE";

const TESTS: [(&str, fn()); 5] = [
    ("input_output_and_exit_code_pass_through", input_output_and_exit_code_pass_through),
    ("a_setup_that_fails_is_told_with_its_step", a_setup_that_fails_is_told_with_its_step),
    ("signals_are_passed_on", signals_are_passed_on),
    ("nothing_of_it_outlives_its_end_or_its_caller", nothing_of_it_outlives_its_end_or_its_caller),
    ("it_shares_the_callers_terminal_or_has_none", it_shares_the_callers_terminal_or_has_none),
];

fn main() -> ExitCode {
    if let Ok(script) = std::env::var(SCRIPT) {
        return run(&script);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let names: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(*part));
    let selected: Vec<_> = TESTS.iter().filter(|(name, _)| wanted(name)).collect();
    println!("\nrunning {} tests", selected.len());
    let begin = rig::now();
    let skips = skip_without_userns("run once");
    let mut failed = 0;
    for (name, test) in &selected {
        // The panic's message is on standard error by then.
        let passed = skips || std::panic::catch_unwind(test).is_ok();
        failed += usize::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        selected.len() - failed,
        TESTS.len() - selected.len(),
        (rig::now() - begin).as_secs_f32()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The program that runs `script`.
fn runner(script: &str) -> Program {
    let mut program = Program::new(std::env::current_exe().unwrap());
    program.env(SCRIPT, script);
    program
}

/// Says on standard error how it came out, and exits with a code that says the same.
fn run(script: &str) -> ExitCode {
    let level = if script.starts_with("level 1;") { Level::Process } else { Level::Namespaces };
    let script = script.trim_start_matches("level 1;");
    let mut rig = Rig::new();
    let spec = rig.spec(level, &["sh", "-c", script]);
    let argv = if script == "nothing" { vec!["no-such-program".into()] } else { spec.argv };
    let run = RunSpec { argv, cwd: spec.cwd, environment: spec.environment, plan: spec.plan };
    let exit = run_once(run).unwrap().exit;
    let code = match exit {
        Exit::Exited(code) => code,
        Exit::Signaled(number) => 128 + number,
        Exit::SetupFailed { .. } => 127,
        Exit::OutOfMemory | Exit::Lost => 126,
    };
    eprintln!("came out: {exit}");
    u8::try_from(code).unwrap().into()
}

/// Reads the lines of a child until one is `marker`; libtest's own come first.
fn lines_until(child: &mut Child, marker: &str) -> BufReader<std::process::ChildStdout> {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim_end() != marker {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "no line is {marker}");
    }
    reader
}

fn input_output_and_exit_code_pass_through() {
    for (script, code) in [
        ("cat; echo error >&2; exit 7", 7),
        ("cat; kill -9 $$", 128 + 9),
        ("level 1;cat; exit 8", 8),
    ] {
        let mut child = runner(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"marker\nrest").unwrap();
        let mut rest = String::new();
        lines_until(&mut child, "marker").read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "rest");
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(errors.contains("error\n"), code == 7, "{errors}");
        assert_eq!(child.wait().unwrap().code(), Some(code), "{errors}");
    }
}

fn a_setup_that_fails_is_told_with_its_step() {
    let output = runner("nothing").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(127));
    let expected =
        "came out: not started: execute no-such-program: no such file or directory (ENOENT)\n";
    assert_eq!(errors, expected);
}

fn signals_are_passed_on() {
    for prefix in ["", "level 1;"] {
        let script = format!("{prefix}trap 'exit 5' TERM; echo ready; sleep 1000 & wait");
        let mut child = runner(&script).stdout(Stdio::piped()).spawn().unwrap();
        let rest = lines_until(&mut child, "ready");
        let pidfd = process::pidfd(child.id()).unwrap();
        process::signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGTERM).unwrap();
        readable(&pidfd, "the end of the runner");
        assert_eq!(child.wait().unwrap().code(), Some(5));
        drop(rest);
    }
}

fn nothing_of_it_outlives_its_end_or_its_caller() {
    let left = "(setsid sleep 1000 &); echo ready;";
    for (script, kill) in [
        (format!("{left} exit 0"), false),
        (format!("level 1;{left} exit 0"), false),
        (format!("{left} exec sleep 1000"), true),
    ] {
        let mut child =
            runner(&script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut rest = lines_until(&mut child, "ready");
        if kill {
            child.kill().unwrap();
        }
        // Every process of it holds the pipe.
        let begin = rig::now();
        let mut text = String::new();
        rest.read_to_string(&mut text).unwrap();
        assert!(rig::now() - begin < Duration::from_secs(5), "{script}");
        child.wait().unwrap();
    }
}

fn it_shares_the_callers_terminal_or_has_none() {
    let script = "(: < /dev/tty) 2>/dev/null && echo terminal; stty size 2>/dev/null; echo done";
    let output = runner(script).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("done\n") && !text.contains("terminal"), "{text}");

    // script(1) gives a program a terminal.
    let this = std::env::current_exe().unwrap();
    let command = this.display().to_string();
    let interactive = format!("{script}; sleep 1000");
    let mut terminal = Program::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env(SCRIPT, interactive)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = terminal.stdin.take().unwrap();
    let mut text = String::new();
    let mut reader = BufReader::new(terminal.stdout.take().unwrap());
    while !text.contains("done\r\n") {
        assert!(reader.read_line(&mut text).unwrap() > 0, "{text}");
    }
    assert!(text.contains("terminal\r\n"), "{text}");
    // Ctrl-C goes to the payload by the terminal alone, and ends it.
    keyboard.write_all(b"\x03").unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("came out: killed by SIGINT"), "{rest}");
    assert_eq!(terminal.wait().unwrap().code(), Some(128 + libc::SIGINT));
}
