//! An older kernel, and one that forbids things.

use std::process::Command;

use serde_json::Value;

use super::case::{Bed, Outcome, Person, both, check};
use crate::crash::Failure;

const PROBER: &str = r#"
until = "stopped"
isolation = 1
[agents.prober]
role = "read"
command = ["sh", "-c", "(echo x > $MISSION_WORKSPACE/../outside) 2> $HOME/why || echo kept > $HOME/result; echo y > $HOME/mine && echo done >> $HOME/result; sleep 1000"]
[agents.teller]
role = "write"
command = ["sh", "-c", "echo up > $MISSION_WORKSPACE/tell; sleep 1000"]
"#;

const LIMITED: &str = r#"
until = "stopped"
isolation = 1
[agents.limited]
role = "write"
limits = { memory = "64MiB" }
command = ["sh", "-c", "echo up > $MISSION_WORKSPACE/tell; exec sleep 1000"]
"#;

/// Debian 12 has Linux 6.1, whose Landlock is ABI 2.
pub(super) fn older_landlock(person: &Person) -> Outcome {
    let mut bed = Bed::new(person, "landlock", PROBER)?;
    let mut daemon = bed.start(bed.typed())?;
    bed.hears("up")?;
    let line = daemon.line(&["prober", "runs"])?;
    let gaps = bed.agent("prober")?["gaps"].to_string();
    check(gaps.contains("Landlock ABI 2"), || format!("{line}: its gaps are {gaps}"))?;
    check(gaps.contains("signal"), || format!("nothing about signals: {gaps}"))?;
    daemon.stop(&bed)?;
    check(!bed.dir.join("outside").exists(), || {
        "it has written outside of its directories".into()
    })?;
    let home = bed.state()?.join("agents/prober/home");
    let result = std::fs::read_to_string(home.join("result"))?;
    check(result == "kept\ndone\n", || format!("the agent says `{result}`"))
}

/// What `doctor` says, and its exit code.
fn doctor(person: &Person) -> Result<(Option<i32>, Value), Failure> {
    let output = person.command("missiond").args(["doctor", "-o", "json"]).output()?;
    let report = serde_json::from_slice(&output.stdout);
    let report = report.map_err(|error| Failure::from(format!("{error}: {}", both(&output))))?;
    Ok((output.status.code(), report))
}

/// A check of a report by its name.
fn found<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|check| check["name"] == name).unwrap_or(&Value::Null)
}

/// Runs a command of a remedy as it is shown, except that we are root already.
fn as_shown(remedy: &str) -> Outcome {
    let command = remedy.replace("sudo ", "");
    let output = Command::new("sh").arg("-c").arg(&command).output()?;
    check(output.status.success(), || format!("{command}: {}", both(&output)))
}

/// A machine as it should be; only the kernel is older.
pub(super) fn healthy(person: &Person) -> Outcome {
    let (code, report) = doctor(person)?;
    for (name, state) in [
        ("user namespaces", "ok"),
        ("landlock", "gap"),
        ("seccomp", "ok"),
        ("runtime directory", "ok"),
        ("state directory", "ok"),
        ("lingering", "ok"),
        ("control groups", "ok"),
        ("subordinate ids", "ok"),
        ("podman", "missing"),
    ] {
        let is = found(&report, name);
        check(is["state"] == state, || format!("{name}: {is}"))?;
    }
    let works: Vec<_> = (0..3).map(|at| report["levels"][at]["works"] == true).collect();
    check(works == [true, true, false], || format!("levels: {}", report["levels"]))?;
    check(code == Some(0), || format!("exit code {code:?}"))?;
    let text = person.runs(&["missiond", "doctor"])?;
    check(text.contains("level 2  works"), || text.clone())
}

/// Each setting that forbids user namespaces is named, and its remedy works.
pub(super) fn no_namespaces(person: &Person) -> Outcome {
    for setting in ["user.max_user_namespaces", "kernel.unprivileged_userns_clone"] {
        let off = Command::new("sysctl").args(["-q", "-w", &format!("{setting}=0")]).status()?;
        check(off.success(), || format!("there is no {setting}"))?;
        let (code, report) = doctor(person)?;
        let is = found(&report, "user namespaces");
        check(code == Some(1) && is["state"] == "missing", || format!("{code:?}, {is}"))?;
        check(report["levels"][0]["works"] == true, || "level 1 needs none".into())?;
        let remedy = is["remedy"][0].as_str().unwrap_or_default();
        check(remedy.contains(setting), || format!("{setting} is off, and doctor says {is}"))?;
        as_shown(remedy)?;
        let (code, report) = doctor(person)?;
        check(code == Some(0), || format!("after `{remedy}`: {report}"))?;
    }
    Ok(())
}

/// A control group that can't be written: a gap that says so, and the mission runs.
pub(super) fn read_only_cgroup(person: &Person) -> Outcome {
    let mut bed = Bed::new(person, "readonly", LIMITED)?;
    let typed = bed.typed();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .args(["mount -o remount,bind,ro /sys/fs/cgroup && exec \"$@\"", "sh"])
        .arg(typed.get_program())
        .args(typed.get_args())
        .env_clear()
        .envs(typed.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = bed.start(command)?;
    bed.hears("up")?;
    let gaps = bed.agent("limited")?["gaps"].to_string();
    check(gaps.contains("Read-only file system"), || format!("its gaps are {gaps}"))?;
    daemon.stop(&bed)
}
