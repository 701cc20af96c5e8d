//! Files: what lies outside of an agent's directories, and what a checkpoint could bring in.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::bus::code;
use crate::deed::Deed;
use crate::puppet::Puppet;
use crate::stage::{Stage, level, listing, shut};
use crate::support::skip_without_landlock;

/// Refusals; the last three only where something isn't there, or is mounted read-only.
const SHUT: [i32; 6] =
    [libc::EACCES, libc::EPERM, libc::EXDEV, libc::ENOENT, libc::EROFS, libc::EBUSY];

/// Everything that could be done to a file that is there.
fn is_shut(agent: &mut Puppet, file: &Path, inside: &Path) {
    let deeds = [
        Deed::Read(file.into()),
        Deed::Open(file.into()),
        Deed::Write(file.into(), "OVERWRITTEN".into()),
        Deed::Truncate(file.into()),
        Deed::Remove(file.into()),
        Deed::Rename(file.into(), inside.join("taken")),
        Deed::Link(file.into(), inside.join("linked")),
        Deed::Rename(inside.join("own"), file.into()),
        Deed::Orphan(Box::new(Deed::Write(file.into(), "OVERWRITTEN".into()))),
    ];
    for deed in deeds {
        let errno = agent.errno(&deed);
        assert!(SHUT.contains(&errno), "{}: {deed:?}: errno {errno}", agent.name);
    }
}

/// Nothing can be made in a directory.
fn takes_nothing(agent: &mut Puppet, dir: &Path, inside: &Path) {
    let new = dir.join("new");
    let deeds = [
        Deed::Write(new.clone(), "x".into()),
        Deed::MakeDir(new.clone()),
        Deed::Symlink("/etc/passwd".into(), new.clone()),
        Deed::Link(inside.join("own"), new.clone()),
        Deed::Rename(inside.join("own"), new.clone()),
        Deed::Sh(format!(
            "mkfifo {0} 2>/dev/null || cp /etc/passwd {0} 2>/dev/null",
            new.display()
        )),
    ];
    for deed in deeds {
        let answer = agent.act(&deed);
        let refused = SHUT.contains(&answer.errno) || matches!(deed, Deed::Sh(_));
        assert!(refused, "{}: {deed:?}: {answer:?}", agent.name);
        assert!(std::fs::symlink_metadata(&new).is_err(), "{}: {deed:?} made it", agent.name);
    }
}

pub(crate) fn files_outside_of_its_own_directories_are_shut(name: &str) {
    if skip_without_landlock(name, 3) {
        return;
    }
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "lead", "");
    let mut sibling = stage.agent("b", "write", "");
    // The user's home, where keys are.
    let home = stage.path("home");
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    std::fs::write(home.join(".ssh/id_ed25519"), "PRIVATE KEY").unwrap();
    let mut command = stage.daemon();
    command.env("HOME", &home);
    let mut daemon = stage.spawn(command);
    agent.ready();
    sibling.ready();
    sibling.text(&Deed::Sh("echo diary >\"$HOME/diary\"; echo t >\"$TMPDIR/t\"".into()));
    agent.text(&Deed::Sh("echo own >own; echo h >\"$HOME/h\"; echo t >\"$TMPDIR/t\"".into()));

    if level() > 1 {
        // Its TMPDIR is in a /tmp of its own: this one is only a file of the host's.
        std::fs::write(stage.state("agents/b/tmp/t"), "t").unwrap();
    }
    let workspace = stage.path("ws");
    let files = [
        home.join(".ssh/id_ed25519"),
        stage.path("mission.toml"),
        stage.state("mission.db"),
        stage.state("agents/b/home/diary"),
        stage.state("agents/b/tmp/t"),
        stage.state("agents/b/log/stdout.log"),
        stage.state("agents/a/log/stdout.log"),
        stage.state("agents/a/lock"),
        stage.path("run/missiond/demo/lock"),
    ];
    let texts = || files.clone().map(|path| std::fs::read(path).unwrap());
    // The log of the mission grows by itself.
    let stable =
        |texts: [Vec<u8>; 9]| texts.into_iter().enumerate().filter(|(n, _)| *n != 2).collect();
    let before: Vec<(usize, Vec<u8>)> = stable(texts());
    for file in &files {
        is_shut(&mut agent, file, &workspace);
    }
    let dirs = [
        home.clone(),
        stage.path("run/missiond/demo"),
        stage.path("run/missiond/demo/agents/a"),
        stage.path("run/missiond/demo/agents/b"),
        stage.state("agents/a"),
        stage.state("agents/b/home"),
        stage.state("blobs"),
        "/tmp".into(),
        "/dev/shm".into(),
        "/var/tmp".into(),
    ];
    // At level 2 the last three are its own; that they are is another row.
    let shared = if level() == 1 { dirs.len() } else { dirs.len() - 3 };
    let existing = || dirs.iter().take(shared).filter(|dir| dir.is_dir());
    for dir in existing() {
        takes_nothing(&mut agent, dir, &workspace);
    }
    let agents = stage.state("agents");
    if level() > 1 {
        // The way to its own is there, and nobody else's.
        assert_eq!(agent.text(&Deed::Sh(format!("ls -A '{}'", agents.display()))), "a");
    }
    let above = (level() == 1).then_some(&agents);
    for dir in [&home, &stage.state("agents/b/home")].into_iter().chain(above) {
        assert_eq!(agent.errno(&Deed::List(dir.clone())), shut(), "{}", dir.display());
    }
    // Its socket's directory can't be put away and made anew, nor its home.
    for (from, to) in
        [("run/missiond/demo/agents/a", "s"), ("state/missiond/demo/agents/a/home", "h")]
    {
        let errno = agent.errno(&Deed::Rename(stage.path(from), workspace.join(to)));
        assert!(SHUT.contains(&errno) || errno == libc::EBUSY, "{from}: {errno}");
    }
    // The system is read, not written, and the operator's key can't be made.
    assert!(SHUT.contains(&agent.errno(&Deed::Write("/etc/passwd".into(), "x".into()))));
    let key = stage.path("run/missiond/demo/operator.key");
    assert!(SHUT.contains(&agent.errno(&Deed::Write(key.clone(), "x".into()))));
    assert!(!key.exists());
    // The other half: its own directories are its own.
    let own =
        agent.text(&Deed::Sh("cat own \"$HOME/h\" \"$TMPDIR/t\"; mv own \"$HOME/own\"".into()));
    assert_eq!(own, "own\nh\nt");
    let after: Vec<(usize, Vec<u8>)> = stable(texts());
    assert_eq!(before, after);
    daemon.stop();
}

pub(crate) fn a_symbolic_link_opens_nothing_and_a_reader_writes_nothing(name: &str) {
    if skip_without_landlock(name, 3) {
        return;
    }
    let mut stage = Stage::new();
    let mut writer = stage.agent("w", "write", "");
    let mut readers = [stage.agent("r", "read", ""), stage.agent("au", "audit", "")];
    let workspace = stage.path("ws");
    let outside = stage.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("key"), "PRIVATE KEY").unwrap();
    // One that a person put there, and one of the agent's own.
    symlink(&outside, workspace.join("theirs")).unwrap();
    std::fs::write(workspace.join("own"), "shared").unwrap();
    let mut daemon = stage.start();
    writer.ready();
    writer.text(&Deed::Symlink("../outside".into(), workspace.join("mine")));
    writer.text(&Deed::Symlink(outside.join("key"), workspace.join("file")));
    for link in ["theirs/key", "mine/key", "file"] {
        let path = workspace.join(link);
        for deed in [
            Deed::Read(path.clone()),
            Deed::Write(path.clone(), "OVERWRITTEN".into()),
            Deed::Truncate(path.clone()),
        ] {
            let errno = writer.errno(&deed);
            assert!(SHUT.contains(&errno), "{deed:?}: errno {errno}");
        }
    }
    for link in ["theirs", "mine"] {
        let errno = writer.errno(&Deed::Write(workspace.join(link).join("new"), "x".into()));
        assert!(SHUT.contains(&errno), "{link}: {errno}");
    }
    assert_eq!(listing(&outside), ["key"]);
    assert_eq!(std::fs::read_to_string(outside.join("key")).unwrap(), "PRIVATE KEY");

    let before = listing(&workspace);
    for reader in &mut readers {
        reader.ready();
        assert_eq!(reader.text(&Deed::Read(workspace.join("own"))), "shared", "it reads");
        let own = workspace.join("own");
        for deed in [
            Deed::Open(own.clone()),
            Deed::Write(own.clone(), "OVERWRITTEN".into()),
            Deed::Truncate(own.clone()),
            Deed::Remove(own.clone()),
            Deed::Rename(own.clone(), workspace.join("moved")),
            Deed::Link(own.clone(), workspace.join("moved")),
            Deed::Write(workspace.join("new"), "x".into()),
            Deed::MakeDir(workspace.join("new")),
            Deed::Symlink("/etc/passwd".into(), workspace.join("new")),
            Deed::Rename(workspace.clone(), stage.path("gone")),
        ] {
            let errno = reader.errno(&deed);
            assert!(SHUT.contains(&errno), "{}: {deed:?}: errno {errno}", reader.name);
        }
        reader.text(&Deed::Sh("echo mine >\"$HOME/x\" && cat \"$HOME/x\"".into()));
    }
    assert_eq!(listing(&workspace), before);
    assert_eq!(std::fs::read_to_string(workspace.join("own")).unwrap(), "shared");
    daemon.stop();
}

/// Leaves in its checkpoint directory what is no file of its own, and fails so that it is collected.
const LITTER: &str = r#"
[agents.t]
role = "write"
mode = "task"
restart = "never"
command = ["sh", "-c", '''
cd "$MISSION_CHECKPOINT_DIR" || exit 9
echo good >good; mkdir sub; echo deep >sub/deep; ln -s "$OUTSIDE/key" link; ln -s "$OUTSIDE" dir; mkfifo fifo
ln -s /etc/passwd checkpoint.json; ln good hard
exit 7
''']
[[tasks]]
id = "litter"
title = "leave litter"
assign = "t"
max_attempts = 1
"#;

pub(crate) fn a_checkpoint_takes_no_file_from_elsewhere(_: &str) {
    let mut stage = Stage::new();
    let mut agent = stage.agent("a", "write", "");
    let outside = stage.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("key"), "PRIVATE KEY").unwrap();
    stage.more(&LITTER.replace("$OUTSIDE", outside.to_str().unwrap()));
    stage.more("[[tasks]]\nid = \"t1\"\ntitle = \"first\"\nassign = \"a\"\n");
    let mut daemon = stage.start();
    agent.ready();
    // What a task-mode program leaves is collected when it ends: the good, and nothing else.
    stage.event("task_failed", |_| true);
    let mut operator = stage.operator();
    let events = operator.events();
    let saved: Vec<_> = events.iter().filter(|event| event["kind"] == "checkpoint_saved").collect();
    assert!(!saved.is_empty(), "nothing was collected: {events:?}");
    for event in &saved {
        let files = event["data"]["files"].as_array().unwrap();
        let names: Vec<_> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
        assert_eq!(names, ["good", "hard", "sub/deep"], "{event}");
    }

    let blobs = || listing(&stage.state("blobs"));
    let before = blobs();
    let workspace = stage.path("ws");
    agent.text(&Deed::Sh(format!(
        "echo good >good; mkdir dir; mkfifo fifo; ln -s {0}/key link; ln -s {0} through; ln -s good alias
         ln -s /dev/zero zero; echo h >\"$HOME/h\"; echo a >..x; perl -MSocket -e 'socket(S,1,1,0); bind(S, pack(\"Sa*\",1,\"sock\"))'",
        outside.display()
    )));
    let task = agent.ask("task.get", &json!({"task": "t1"}));
    let epoch = task["result"]["epoch"].clone();
    let inside = |name: &str| workspace.join(name).display().to_string();
    let bad = [
        "../outside/key".to_owned(),
        "dir/../../outside/key".to_owned(),
        "../x".to_owned(),
        outside.join("key").display().to_string(),
        "/etc/passwd".to_owned(),
        format!("{}/../outside/key", workspace.display()),
        stage.state("mission.db").display().to_string(),
        stage.state("agents/a/log/stdout.log").display().to_string(),
        "link".to_owned(),
        inside("link"),
        "alias".to_owned(),
        "through/key".to_owned(),
        inside("through/key"),
        "zero".to_owned(),
        "/dev/zero".to_owned(),
        "fifo".to_owned(),
        "sock".to_owned(),
        "dir".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        "/".to_owned(),
        String::new(),
        "good\0".to_owned(),
        "good/".to_owned() + "..",
        "no\nsuch".to_owned(),
        "x".repeat(10_000),
    ];
    for file in &bad {
        let params = json!({"task": "t1", "epoch": epoch, "files": ["good", file]});
        let answer = agent.ask("checkpoint.save", &params);
        assert!(["invalid", "not_found"].contains(&code(&answer)), "{file:?}: {answer}");
    }
    // Nor one that is not its task, or of a former epoch.
    let params = json!({"task": "litter", "epoch": epoch, "files": ["good"]});
    assert!(!code(&agent.ask("checkpoint.save", &params)).is_empty());
    let params = json!({"task": "t1", "epoch": 1, "files": ["good"]});
    assert_eq!(code(&agent.ask("checkpoint.save", &params)), "stale");
    let saved_now = operator.events().iter().filter(|e| e["kind"] == "checkpoint_saved").count();
    assert_eq!(saved_now, saved.len(), "no checkpoint came of it");
    let content =
        |name: &String| std::fs::read(stage.state("blobs").join(name)).unwrap_or_default();
    let holds_key = |name: &&String| content(name).starts_with(b"PRIVATE");
    assert_eq!(blobs().iter().find(holds_key), None);

    // The other half: its own files are taken, by either name.
    let home = stage.state("agents/a/home/h").display().to_string();
    let params = json!({"task": "t1", "epoch": epoch, "files": ["good", home, "..x"]});
    let answer = agent.ask("checkpoint.save", &params);
    assert_eq!(answer["result"]["files"].as_array().map(Vec::len), Some(3), "{answer}");
    daemon.stop();
    let stored = |list: &[String]| list.iter().filter(|name| !before.contains(name)).count();
    assert!(stored(&blobs()) <= 5, "more is stored than was saved: {:?}", blobs());
}
