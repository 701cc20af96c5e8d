//! What passes through: input, output, exit codes, signals, the terminal; and that nothing stays.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use missiond::sys::process;

use crate::support::skip;
use crate::{Place, has, texts};

#[test]
fn exit_codes_are_those_of_env() {
    let Some(place) = Place::new("exit_codes_are_those_of_env") else { return };
    for level in ["1", "2"] {
        let level = ["--level", level];
        let code = |command: &[&str]| place.run(&level, command).status.code().unwrap();
        assert_eq!(code(&["true"]), 0);
        assert_eq!(code(&["sh", "-c", "exit 42"]), 42);
        assert_eq!(code(&["sh", "-c", "kill -TERM $$"]), 128 + libc::SIGTERM);
        assert_eq!(code(&["no-such-program"]), 127);
        assert_eq!(code(&["/etc/passwd"]), 126);
    }
    for options in
        [&["--level", "3"][..], &["--policy", "nosuch"], &["--rw", "/no/such"], &["--nosuch"]]
    {
        assert_eq!(place.run(options, &["true"]).status.code(), Some(125), "{options:?}");
    }
    let refused = place.run(&["--level", "1", "--net", "none"], &["true"]);
    assert_eq!(refused.status.code(), Some(125), "level 1 can't, so it must not seem so");
}

#[test]
fn input_and_output_pass_and_the_reader_sees_their_end() {
    let Some(place) = Place::new("input_and_output_pass_and_the_reader_sees_their_end") else {
        return;
    };
    let script =
        "cat; echo error >&2; exec >&- 2>/dev/null; read -r line </proc/self/fd/3 || :; sleep 1000";
    let mut run = place.command(&["--quiet"], &["bash", "-c", script]);
    let mut child =
        run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    let mut out = String::new();
    // It runs on, but its output has ended.
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "through");
    let pidfd = process::pidfd(child.id()).unwrap();
    process::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn signals_reach_the_command() {
    let Some(place) = Place::new("signals_reach_the_command") else { return };
    for level in ["1", "2"] {
        let script = "trap 'exit 9' HUP; echo ready; while :; do sleep 1000 & wait $!; done";
        let mut run = place.command(&["-q", "--level", level], &["bash", "-c", script]);
        let mut child = run.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let pidfd = process::pidfd(child.id()).unwrap();
        process::signal(pidfd.as_fd(), libc::SIGHUP).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(9), "level {level}");
    }
}

#[test]
fn the_workspace_is_written_the_home_is_empty_and_nothing_stays() {
    const NAME: &str = "the_workspace_is_written_the_home_is_empty_and_nothing_stays";
    let Some(place) = Place::new(NAME) else { return };
    std::fs::write(place.path("home/.netrc"), "secret").unwrap();
    std::fs::write(place.path("outside/file"), "outside").unwrap();
    for level in ["1", "2"] {
        let outside = place.path("outside/file").display().to_string();
        let script = format!(
            "echo made >file; ls -A ~; echo x >~/kept; echo x >${{TMPDIR:-/tmp}}/kept; cat '{outside}' && exit 1; \
             echo x >'{outside}' && exit 1; (setsid sleep 1000 &) ; exit 0"
        );
        let output = place.run(&["--level", level], &["bash", "-c", &script]);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{out}\n{err}");
        assert_eq!(out, "", "the home is empty");
        let here = std::fs::read_dir(place.path("ws")).unwrap();
        let names: Vec<_> = here.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(std::fs::read_dir(place.path("home")).unwrap().count(), 1);
        std::fs::remove_file(place.path("ws/file")).unwrap();
    }
    assert_eq!(std::fs::read_to_string(place.path("outside/file")).unwrap(), "outside");
    // What is given is there, as it is given.
    let (given, file) = (place.path("outside"), place.path("outside/file"));
    let (given, file) = (given.to_str().unwrap(), file.to_str().unwrap());
    assert_eq!(
        place.sh(&["--ro", given], &format!("cat {file}; ! echo x 2>/dev/null >{file}")),
        "outside"
    );
    place.sh(&["--rw", given], &format!("echo changed >{file}"));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "changed\n");
}

#[test]
fn the_environment_is_what_was_asked_for() {
    let Some(place) = Place::new("the_environment_is_what_was_asked_for") else { return };
    let mut run = place.command(&["--env", "GIVEN=1", "--env", "PASSED"], &["env"]);
    let output =
        run.env("PASSED", "2").env("SECRET_TOKEN", "hush").env("LD_AUDIT", "x").output().unwrap();
    let (out, _) = texts(&output);
    assert!(out.contains("GIVEN=1\n") && out.contains("PASSED=2\n"), "{out}");
    assert!(!out.contains("hush") && !out.contains("LD_AUDIT"), "{out}");
}

/// A program on a terminal of its own, on which `keys` are typed once a text was shown, step by step:
/// its exit code, and all that was shown.
fn on_terminal(
    place: &Place,
    options: &[&str],
    command: &[&str],
    steps: &[(&str, &str)],
) -> (Option<i32>, String) {
    let missiond = place.command(options, command);
    let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let words = missiond.get_args().map(|word| quoted(word.to_str().unwrap()));
    let line = format!(
        "exec '{}' {}",
        env!("CARGO_BIN_EXE_missiond"),
        words.collect::<Vec<_>>().join(" ")
    );
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(place.path("ws"));
    script.env("HOME", place.path("home")).env("XDG_STATE_HOME", place.path("state"));
    script.env("TERM", "dumb").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = script.spawn().unwrap();
    let mut shown: File = child.stdout.take().unwrap().into_std();
    let mut keyboard = child.stdin.take().unwrap();
    let mut text = Vec::new();
    let mut chunk = [0; 1024];
    let mut from = 0;
    for (marker, keys) in steps {
        while !String::from_utf8_lossy(&text[from..]).contains(marker) {
            let length = shown.read(&mut chunk).unwrap();
            assert!(length > 0, "{}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&chunk[..length]);
        }
        from = text.len();
        keyboard.write_all(keys.as_bytes()).unwrap();
    }
    shown.read_to_end(&mut text).unwrap();
    (child.wait().unwrap().code(), String::from_utf8_lossy(&text).into_owned())
}

trait IntoStd {
    fn into_std(self) -> File;
}

impl IntoStd for std::process::ChildStdout {
    fn into_std(self) -> File {
        File::from(std::os::fd::OwnedFd::from(self))
    }
}

#[test]
fn a_terminal_works_and_takes_no_forged_input() {
    const NAME: &str = "a_terminal_works_and_takes_no_forged_input";
    if skip(NAME, "script", has("script") && has("perl"), "there is no script(1) or no perl") {
        return;
    }
    let Some(place) = Place::new(NAME) else { return };
    for level in ["1", "2"] {
        let options = ["--level", level, "-q"];
        // A line that is typed, and ctrl-C.
        let read = "echo READY; read -r line; echo \"got $line\"; test -t 0 && test -t 1 && tty >/dev/null; exit 3";
        let (code, shown) =
            on_terminal(&place, &options, &["bash", "-c", read], &[("READY", "hello\n")]);
        assert!(code == Some(3) && shown.contains("got hello"), "{code:?} {shown}");
        let wait =
            "trap 'echo INTERRUPTED; exit 4' INT; echo READY; while :; do sleep 1000 & wait; done";
        let (code, shown) =
            on_terminal(&place, &options, &["bash", "-c", wait], &[("READY", "\u{3}")]);
        assert!(code == Some(4) && shown.contains("INTERRUPTED"), "{code:?} {shown}");
        // TIOCSTI (0x5412) on the shared terminal; the second with a bit that the kernel drops.
        let forge = "$|=1; for my $r (0x5412, 0x5412 | 1 << 32) { my $c = \"x\"; \
                     print syscall(16, 0, $r, $c) == -1 ? \"errno \" . ($!+0) . \"\\n\" : \"FORGED\\n\" } print \"READY\\n\"; <STDIN>";
        if cfg!(target_arch = "x86_64") {
            let (_, shown) =
                on_terminal(&place, &options, &["perl", "-e", forge], &[("READY", "\n")]);
            assert_eq!(shown.matches("errno 1\r").count(), 2, "{shown}");
        }
    }
    // An interactive shell has jobs: it gets the terminal for them, and takes it back.
    let steps = [
        ("READY", "sh -c 'echo R''UNNING; sleep 1000'\n"),
        ("RUNNING", "\u{1a}"),
        ("Stopped", "kill %1; exit 5; exit 5\n"),
    ];
    let shell = "export PS1='READY '; exec bash --norc -i";
    let (code, shown) = on_terminal(&place, &["-q"], &["bash", "-c", shell], &steps);
    assert_eq!(code, Some(5), "{shown}");
    assert!(!shown.contains("no job control"), "{shown}");
}
