//! The command line: what is refused before anything is sent, and how.

use crate::fake::{Act, Fake, OPERATOR, outcome};

#[test]
fn a_wrong_command_line_is_exit_code_2_and_nothing_is_sent() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::HangUp]);
    for line in [
        "",
        "fly",
        "assign writer",
        "assign Writer! task-1",
        "handoff",
        "handoff a",
        "handoff a b",
        "handoff a b c d",
        "handoff acept h-3",
        "handoff accept x-3",
        "handoff a b c --timeout 5",
        "task update t-1 --progress 101",
        "task complete t-1 --result {",
        "task fail t-1 --reason a --text b",
        "task list --state busy",
        "task create a/b",
        "checkpoint save",
        "checkpoint get",
        "send",
        "send a --json {}",
        "send --type weather x",
        "inbox --each",
        "inbox --follow --each -- true",
        "inbox --wait 11m",
        "ack",
        "ack h-3",
        "logs",
        "logs a --stdout --stderr",
        "logs a -n some",
        "events -n 3 --since 4",
        "stop --grace 5",
        "stop a --timeout 5s",
        "status --output xml",
        "status --mission A/B",
        "messages -n 0",
        "agent phase busy",
        "agent get",
    ] {
        let args: Vec<&str> = line.split_whitespace().collect();
        let (code, stdout, stderr) = outcome(&mut fake.operator(&args));
        assert_eq!(code, 2, "{line}: {stdout}{stderr}");
        assert!(stderr.contains("error:") || line.is_empty(), "{line}: {stderr}");
        assert!(stdout.is_empty(), "{line}: {stdout}");
    }
    assert!(fake.seen().is_empty(), "{:?}", fake.seen());
}

#[test]
fn every_command_has_help_with_examples() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::HangUp]);
    for line in [
        "",
        "status",
        "ps",
        "events",
        "logs",
        "messages",
        "tail",
        "agent",
        "task",
        "assign",
        "handoff",
        "checkpoint",
        "send",
        "inbox",
        "ack",
        "start",
        "stop",
        "restart",
    ] {
        let args: Vec<&str> = line.split_whitespace().chain(["--help"]).collect();
        let (code, stdout, stderr) = outcome(&mut fake.operator(&args));
        assert_eq!((code, stderr.as_str()), (0, ""), "{line}");
        assert!(stdout.contains("Examples:"), "{line}: {stdout}");
        assert!(stdout.contains(&format!("missionctl {line}")), "{line}: {stdout}");
    }
}

#[test]
fn without_a_daemon_it_is_exit_code_69_with_what_to_do() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::HangUp]);
    fake.hang_up(true);
    let (code, _, stderr) = outcome(&mut fake.operator(&["status"]));
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.starts_with("error: no mission is running\n  cause: "), "{stderr}");
    assert!(stderr.contains("\n  help:  start one by `missiond start mission.toml`\n"), "{stderr}");
    let (code, _, stderr) = outcome(&mut fake.operator(&["-m", "m", "status"]));
    assert_eq!(code, 69, "{stderr}");
    let (code, _, stderr) = outcome(&mut fake.agent(&["status"]));
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("control.sock: "), "{stderr}");
}

#[test]
fn a_mission_is_found_by_the_file_above_the_working_directory() {
    let fake = Fake::new(&OPERATOR, |_| vec![Act::Reply(serde_json::json!([]))]);
    let inner = fake.dir.path().join("project/src");
    std::fs::create_dir_all(&inner).unwrap();
    let file = fake.dir.path().join("project/mission.toml");
    std::fs::write(&file, "[mission]\nname = \"other\"\n").unwrap();
    let (code, _, stderr) = outcome(fake.operator(&["task", "list"]).current_dir(&inner));
    assert_eq!(code, 69, "another mission is never guessed: {stderr}");
    assert!(stderr.contains("running: m") && stderr.contains("missionctl -m m"), "{stderr}");
    std::fs::write(&file, "[mission]\nname = \"m\"\n").unwrap();
    let (code, stdout, _) = outcome(fake.operator(&["task", "list"]).current_dir(&inner));
    assert_eq!((code, stdout.as_str()), (0, "no tasks\n"));
}
