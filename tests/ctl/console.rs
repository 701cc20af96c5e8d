//! What both programs have in common: results that can't be written, and what of a command line comes
//! back to a person's terminal.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Command, Stdio};

use crate::fake::{Act, Fake, OPERATOR, agent, outcome, program};

const MISSIOND: &str = env!("CARGO_BIN_EXE_missiond");
const MISSIONCTL: &str = env!("CARGO_BIN_EXE_missionctl");

/// Whatever prints a result and needs no daemon.
const RESULTS: [(&str, &[&str]); 10] = [
    (MISSIOND, &["--help"]),
    (MISSIOND, &["--version"]),
    (MISSIOND, &["schema"]),
    (MISSIOND, &["start", "--help"]),
    (MISSIOND, &["run", "--help"]),
    (MISSIOND, &["unit", "print"]),
    (MISSIOND, &["validate"]),
    (MISSIONCTL, &["--help"]),
    (MISSIONCTL, &["--version"]),
    (MISSIONCTL, &["task", "create", "--help"]),
];

#[expect(clippy::unwrap_used, reason = "test code outside of a test function")]
fn all_results(fake: &Fake) -> Vec<Command> {
    let toml = "[mission]\nname = \"m\"\n[agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n";
    std::fs::write(fake.dir.path().join("mission.toml"), toml).unwrap();
    let mut commands: Vec<_> = RESULTS
        .iter()
        .map(|(name, args)| {
            let mut command = program(name, args);
            command.current_dir(fake.dir.path()).env("HOME", "/nowhere");
            command
        })
        .collect();
    commands.extend([
        fake.operator(&["ps"]),
        fake.operator(&["-o", "json", "ps"]),
        fake.operator(&["-o", "jsonl", "agent", "list"]),
    ]);
    commands
}

fn fake() -> Fake {
    Fake::new(&OPERATOR, |_| vec![Act::Reply(serde_json::json!([agent("writer")]))])
}

#[test]
fn a_result_that_can_not_be_written_is_a_failure_that_says_so() {
    let fake = fake();
    for mut command in all_results(&fake) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
        assert!(
            stderr.starts_with("error: cannot write the output\n  cause: No space left on device"),
            "{command:?}: {stderr}"
        );
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure_and_not_worth_a_word() {
    let fake = fake();
    for mut command in all_results(&fake) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{command:?}");
    }
}

#[test]
fn what_is_wrong_on_a_command_line_can_not_act_on_the_terminal() {
    let hostile = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}x\rerror: y";
    let shown = "\\x1b]0;owned\\x07\\x9b2J\\u{202e}x\\rerror: y";
    let fake = fake();
    for (name, before) in [
        (MISSIONCTL, &[] as &[&str]),
        (MISSIONCTL, &["status"]),
        (MISSIONCTL, &["handoff"]),
        (MISSIONCTL, &["task", "get"]),
        (MISSIONCTL, &["-o"]),
        (MISSIONCTL, &["task", "list", "--state"]),
        (MISSIONCTL, &["task", "create", "t", "--data"]),
        (MISSIONCTL, &["-m"]),
        (MISSIOND, &[]),
        (MISSIOND, &["schema"]),
        (MISSIOND, &["start"]),
        (MISSIOND, &["validate"]),
        (MISSIOND, &["unit", "remove"]),
        (MISSIOND, &["unit", "install", "m"]),
        (MISSIOND, &["run", "--level"]),
    ] {
        let mut command = program(name, before);
        command.arg(hostile).current_dir(fake.dir.path()).env("HOME", "/nowhere");
        let (code, stdout, stderr) = outcome(&mut command);
        // What isn't the command's own is 125 there, as of env(1).
        let wrong = if before.first() == Some(&"run") { 125 } else { 2 };
        assert_eq!((code, stdout.as_str()), (wrong, ""), "{command:?}: {stderr}");
        let quoted = hostile.escape_default().to_string();
        assert!(stderr.contains(shown) || stderr.contains(&quoted), "{command:?}: {stderr}");
        let acts = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!stderr.contains(acts), "{command:?}: {stderr:?}");
    }
}

#[test]
fn an_argument_that_is_no_text_is_refused_where_a_name_is_wanted_and_is_a_file_elsewhere() {
    let no_text = || OsString::from_vec(b"x\xff\x1b".to_vec());
    let fake = fake();
    for args in [&[] as &[&str], &["task", "get"], &["send"], &["-m"]] {
        let mut command = fake.operator(args);
        let (code, _, stderr) = outcome(command.arg(no_text()));
        assert_eq!(code, 2, "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
    }
    for args in [&["start"] as &[&str], &["validate"]] {
        let mut command = program(MISSIOND, args);
        command.arg(no_text()).current_dir(fake.dir.path()).env("HOME", "/nowhere");
        let (code, _, stderr) = outcome(&mut command);
        assert_eq!(code, 2, "{args:?}: {stderr}");
        assert!(stderr.contains("cannot read mission file x"), "{args:?}: {stderr}");
        assert!(!stderr.contains('\u{1b}'), "{args:?}: {stderr:?}");
    }
}

#[test]
fn help_is_wrapped_where_nobody_wraps_it_and_on_a_narrow_terminal() {
    for (name, args) in RESULTS.iter().filter(|(_, args)| args.contains(&"--help")) {
        let (code, stdout, stderr) = outcome(&mut program(name, args));
        assert_eq!((code, stderr.as_str()), (0, ""), "{name} {args:?}");
        let widest = stdout.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 100, "{name} {args:?}: {widest}\n{stdout}");
        let is_whole = args == &["--help"];
        assert!(!is_whole || stdout.contains("\nExamples:\n"), "{name}: {stdout}");
    }
    let text = crate::terminal::on_terminal(&mut program(MISSIOND, &["start", "--help"]), 60);
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 60, "{widest}\n{text}");
}
