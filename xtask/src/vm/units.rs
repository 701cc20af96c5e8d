//! The systemd user unit that `missiond unit install` writes, under a real service manager.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case::{Bed, Outcome, Person, check};
use crate::crash::Failure;

const TEAM: &str = r#"
until = "stopped"
isolation = 1
[agents.ann]
role = "write"
command = ["sh", "-c", "echo ann $$ > $MISSION_WORKSPACE/tell; exec sleep 1000"]
[agents.worker]
role = "write"
mode = "task"
command = ["sh", "-c", "echo worker > $MISSION_WORKSPACE/tell; read go < $MISSION_WORKSPACE/go; echo 1"]
[[tasks]]
id = "t1"
title = "wait for the word"
assign = "worker"
"#;

/// A mission as a unit; stopped and removed at the end.
struct Unit<'a> {
    person: &'a Person,
    mission: &'static str,
}

impl<'a> Unit<'a> {
    fn start(bed: &Bed<'a>) -> Result<Unit<'a>, Failure> {
        bed.person.runs(&["missiond", "unit", "install", bed.name, &bed.file()])?;
        let unit = Unit { person: bed.person, mission: bed.name };
        // Returns when READY came, or fails.
        bed.person.runs(&["systemctl", "--user", "start", &unit.name()])?;
        Ok(unit)
    }

    fn name(&self) -> String {
        format!("missiond@{}.service", self.mission)
    }

    fn show(&self, property: &str) -> Result<String, Failure> {
        self.person.runs(&["systemctl", "--user", "show", "-P", property, &self.name()])
    }

    fn cgroup(&self) -> Result<PathBuf, Failure> {
        let group = self.show("ControlGroup")?;
        check(!group.is_empty(), || "the unit has no control group".into())?;
        Ok(Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/')))
    }

    fn main_pid(&self) -> Result<Pid, Failure> {
        let text = self.show("MainPID")?;
        match text.parse() {
            Ok(pid @ 1..) => Ok(Pid::from_raw(pid)),
            _ => Err(Failure::from(format!("MainPID is `{text}`"))),
        }
    }

    fn stop(&self) -> Outcome {
        self.person.runs(&["systemctl", "--user", "stop", &self.name()]).map(drop)
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        let _stopped = self.stop();
        let _removed = self.person.runs(&["missiond", "unit", "remove", self.mission]);
    }
}

pub(super) fn start_stop(person: &Person) -> Outcome {
    let mut bed = Bed::new(person, "ready", TEAM)?;
    let unit = Unit::start(&bed)?;
    let state = unit.show("ActiveState")?;
    check(state == "active", || format!("the unit is {state}"))?;
    bed.hears("ann")?;
    let agent = bed.agent("ann")?;
    check(agent["pid"].is_u64(), || format!("ready, but {agent}"))?;
    let group = std::fs::read_to_string(format!("/proc/{}/cgroup", agent["pid"]))?;
    check(group.contains(&format!("{}/agent.ann.", unit.name())), || {
        format!("not in a group of its own in that of the unit, but in {group}")
    })?;
    let text = unit.show("StatusText")?;
    check(text.contains("agents run"), || format!("StatusText is `{text}`"))?;
    let (cgroup, main) = (unit.cgroup()?, unit.main_pid()?);
    check(cgroup.is_dir() && !bed.processes()?.is_empty(), || "nothing to be stopped".into())?;

    unit.stop()?;
    let left = bed.processes()?;
    check(left.is_empty(), || format!("processes {left:?} are left"))?;
    check(kill(main, None).is_err(), || "the daemon is left".into())?;
    check(!cgroup.exists(), || format!("{} is left", cgroup.display()))?;
    let (state, result) = (unit.show("ActiveState")?, unit.show("Result")?);
    check(state == "inactive" && result == "success", || format!("{state}, {result}"))
}

pub(super) fn killed(person: &Person) -> Outcome {
    let mut bed = Bed::new(person, "killed", TEAM)?;
    let unit = Unit::start(&bed)?;
    let ann = bed.hears("ann")?;
    bed.hears("worker")?;
    let main = unit.main_pid()?;
    kill(main, Signal::SIGKILL).map_err(std::io::Error::from)?;

    let again = bed.hears("ann")?;
    bed.hears("worker")?;
    check(ann != again, || format!("the same process: {again}"))?;
    let pid = ann.trim_start_matches("ann ").parse().map_err(|_| Failure::from(ann.as_str()))?;
    check(kill(Pid::from_raw(pid), None).is_err(), || format!("{ann} outlived its daemon"))?;
    let (restarts, now) = (unit.show("NRestarts")?, unit.main_pid()?);
    check(restarts == "1" && now != main, || format!("{restarts} restarts, main pid {now}"))?;
    bed.go()?;
    bed.event("task_completed", &["t1"])?;
    unit.stop()
}
