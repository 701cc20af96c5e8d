//! What a person's terminal gets to see: nothing of an agent's that could act on it.

use std::fs::File;
use std::io::Read as _;
use std::process::Command;

use nix::pty::{Winsize, openpty};
use serde_json::{Value, json};

use crate::fake::{Act, Fake, OPERATOR, agent, task};

#[expect(clippy::unwrap_used, reason = "test code outside of a test function")]
/// What a terminal with so many columns gets from a program.
pub(crate) fn on_terminal(command: &mut Command, columns: u16) -> String {
    let size = Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    let mut child = command.stdout(File::from(pty.slave)).spawn().unwrap();
    // The command keeps the terminal open until it is dropped, and then reading ends with EIO.
    command.stdout(std::process::Stdio::null());
    let mut bytes = Vec::new();
    let mut master = File::from(pty.master);
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = master.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}

fn hostile() -> Value {
    let mut hostile = task("task-1", "active", 9);
    hostile["title"] = json!("\u{1b}]0;owned\u{7}a\u{9b}2Jb\u{202e}c");
    hostile["note"] = json!("x\u{1b}[31m\r\ny");
    hostile
}

#[test]
fn escapes_of_agents_are_shown_and_not_obeyed() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(json!([hostile()]))]);
    let text = on_terminal(fake.operator(&["task", "list"]).env("NO_COLOR", "1"), 200);
    insta::assert_snapshot!(text, @r"
    TASK    STATE   OWNER   DONE  TITLE                              NOTE
    task-1  active  writer   40%  \x1b]0;owned\x07a\x9b2Jb\u{202e}c  x\x1b[31m\r\ny
    ");
    let text = on_terminal(&mut fake.operator(&["-o", "json", "task", "list"]), 200);
    assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{text:?}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value[0]["title"], hostile()["title"], "the JSON still means the same");
    let text = on_terminal(fake.operator(&["task", "list", "--raw"]).env("NO_COLOR", "1"), 200);
    assert!(text.contains("\u{1b}]0;owned\u{7}"), "{text:?}");
}

#[test]
fn colours_are_for_terminals_without_no_color() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(json!([agent("writer")]))]);
    let text = on_terminal(&mut fake.operator(&["agent", "list"]), 200);
    assert!(text.contains("\u{1b}[32mrunning\u{1b}[0m"), "{text:?}");
    let text = on_terminal(fake.operator(&["agent", "list"]).env("NO_COLOR", "1"), 200);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let output = fake.operator(&["agent", "list"]).output().unwrap();
    assert!(!output.stdout.contains(&0x1b));
}

#[test]
fn a_table_is_no_wider_than_the_terminal() {
    let fake = Fake::new(&OPERATOR, |_| {
        let mut long = task("task-1", "active", 9);
        long["title"] = json!("all the words of a very long title ".repeat(9));
        vec![Act::Reply(json!([long]))]
    });
    for columns in [60, 100] {
        let text = on_terminal(fake.operator(&["task", "list"]).env("NO_COLOR", "1"), columns);
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= usize::from(columns) && text.contains('…'), "{columns}: {text}");
    }
    let output = fake.operator(&["task", "list"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(&"all the words of a very long title ".repeat(8)),
        "not cut for a program"
    );
}

#[test]
fn the_log_of_an_agent_is_escaped_on_a_terminal() {
    let root = tempfile::tempdir().unwrap();
    let logs = root.path().join("agents/writer/log");
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::write(logs.join("stdout.log"), b"\x1b]52;c;AAAA\x07 ok\xff\tend\n").unwrap();
    let state_dir = root.path().to_owned();
    let fake = Fake::new(&OPERATOR, move |_| {
        vec![Act::Reply(json!({
            "name": "m", "state": "running", "created": 1, "generation": 1, "started": 1, "pid": 1,
            "state_dir": state_dir, "head": 1, "agents": [agent("writer")], "tasks": [], "handoffs": [],
        }))]
    });
    let text = on_terminal(&mut fake.operator(&["logs", "writer", "--stdout"]), 80);
    assert_eq!(text, "\\x1b]52;c;AAAA\\x07 ok\\xff\tend\n");
}
