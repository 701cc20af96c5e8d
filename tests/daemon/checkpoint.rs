//! Which checkpoint counts: the one that an agent saved, or what lies in its checkpoint directory.

use crate::mission::{Bench, read};
use nix::sys::signal::Signal;

/// Leaves both kinds, in the order of `script`; the next process says which one it found.
fn mission(script: &str) -> String {
    format!(
        r#"
isolation = 1
[agents.worker]
role = "write"
mode = "task"
command = ["sh", "-c", '''
for kind in saved left; do
    [ -f "$MISSION_HANDOFF_DIR/$kind" ] && echo "found $kind" && exit 0
done
save() {{ echo 1 > "$MISSION_WORKSPACE/saved"; missionctl checkpoint save --file saved; }}
leave() {{ echo 1 > "$MISSION_CHECKPOINT_DIR/left"; }}
{script} && echo done > "$MISSION_WORKSPACE/done" && exec sleep 600
''']
[[tasks]]
id = "t1"
title = "first"
assign = "worker"
"#
    )
}

/// Stops the mission when the first process has done its part, and says what the next one found.
fn found_after(script: &str) -> String {
    let bench = Bench::new(&mission(script));
    let done = bench.path("ws/done");
    nix::unistd::mkfifo(&done, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let daemon = bench.start(&[]);
    assert_eq!(read(&done), "done\n");
    daemon.signal(Signal::SIGTERM);
    daemon.ends_with(1);
    bench.start(&[]).ends_with(0);
    bench.log("worker", "stdout").trim().to_owned()
}

/// What had been left before was collected at the end, and took the place of the newer one.
#[test]
fn a_checkpoint_that_was_saved_is_not_replaced_by_what_lay_there_before() {
    assert!(found_after("leave && save").ends_with("found saved"));
}

#[test]
fn what_is_left_after_a_checkpoint_was_saved_replaces_it() {
    assert!(found_after("save && leave").ends_with("found left"));
    assert!(found_after("leave && save && leave").ends_with("found left"));
}
