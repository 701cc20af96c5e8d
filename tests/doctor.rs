//! `missiond doctor` on the machine that the tests run on, whatever that is.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code outside of a test function")]

#[expect(dead_code, reason = "these tests need no process of their own")]
mod support;

use std::process::{Command, Output, Stdio};

use serde_json::Value;

const MISSIOND: &str = env!("CARGO_BIN_EXE_missiond");

/// A program with a home of its own, and nobody to ask for a control group.
fn command(program: &str, home: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .env_remove("XDG_STATE_HOME")
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .stdin(Stdio::null());
    command
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["checks"].as_array().unwrap();
    all.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"))
}

#[test]
fn it_ends_with_0_exactly_where_level_2_works_and_says_what_to_do_about_what_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let output = command(MISSIOND, home.path()).args(["doctor", "-o", "json"]).output().unwrap();
    let report = report(&output);
    let works = report["levels"][1]["works"] == true;
    assert_eq!(output.status.code(), Some(if works { 0 } else { 1 }), "{report}");
    for check in report["checks"].as_array().unwrap() {
        let is_missing = check["state"] == "missing";
        assert!(!is_missing || check["remedy"][0].is_string(), "{check}");
        assert!(check["state"] != "gap" || check["means"][0].is_string(), "{check}");
    }
    assert_eq!(check(&report, "state directory")["state"], "ok");

    // The same for people.
    let output = command(MISSIOND, home.path()).arg("doctor").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let says = if works { "level 2  works" } else { "level 2  doesn't work: " };
    assert!(text.contains(says), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours for a pipe");
}

#[test]
fn user_namespaces_that_are_switched_off_are_missing_and_the_setting_is_named() {
    const NAME: &str = "user_namespaces_that_are_switched_off_are_missing_and_the_setting_is_named";
    let home = tempfile::tempdir().unwrap();
    let script =
        "echo 0 > /proc/sys/user/max_user_namespaces && echo off >&2; exec \"$0\" doctor -o json";
    let output = command("unshare", home.path())
        .args(["--user", "--map-root-user", "sh", "-c", script, MISSIOND])
        .output()
        .unwrap();
    let off = String::from_utf8_lossy(&output.stderr).contains("off");
    if support::skip(NAME, "userns", off, "user namespaces can't be switched off for a test") {
        return;
    }
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let found = check(&report, "user namespaces");
    assert_eq!(found["state"], "missing");
    assert!(found["found"].as_str().unwrap().contains("ENOSPC"), "{found}");
    let remedy = found["remedy"][0].as_str().unwrap();
    assert_eq!(remedy, "sudo sysctl -w user.max_user_namespaces=15000");
    assert_eq!(report["levels"][1]["because"][0], "user namespaces");
}

#[test]
fn without_missions_there_is_nothing_to_clean() {
    let home = tempfile::tempdir().unwrap();
    let output = command(MISSIOND, home.path()).args(["doctor", "--clean"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("nothing to clean"));
    let usage = command(MISSIOND, home.path()).args(["doctor", "--clean", "-o", "json"]).output();
    assert_eq!(usage.unwrap().status.code(), Some(2));
}
