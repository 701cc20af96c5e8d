//! An older kernel, and one that forbids things.

use super::case::{Bed, Outcome, Person, check};

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
