//! What a good mission file becomes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly too")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use missiond::config::dirs::Places;
use missiond::config::{self, Durability, Host, LogLimits, Mission, SecretSource};
use missiond::core::spec::{
    Mode, Permission, Permissions, ReadyWhen, RestartOn, RestartSpec, Until,
};
use missiond::policy::{LandlockMode, Level};
use tempfile::TempDir;

struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        fs::create_dir(dir.path().join("extra")).unwrap();
        let program = dir.path().join("planner.sh");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Scene { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    fn load(&self, text: &str) -> Mission {
        let file = self.path("mission.toml");
        fs::write(&file, text).unwrap();
        config::load_for(&file, &host()).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn host() -> Host {
    Host {
        places: Places::from_environment(|name| match name {
            "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
            "XDG_STATE_HOME" => Some("/var/state".into()),
            _ => None,
        })
        .unwrap(),
        path: Some("/usr/bin:/bin".into()),
        missionctl_dir: None,
        home: None,
        policies: None,
    }
}

const SMALL: &str = r#"
[mission]
name = "small"
workspace = "tree"

[agents.one]
role = "write"
command = ["true"]
"#;

#[test]
fn what_is_not_said_has_its_default() {
    let scene = Scene::new();
    let mission = scene.load(SMALL);
    assert_eq!(mission.warnings, []);
    assert_eq!(mission.file, scene.path("mission.toml"));
    assert_eq!(mission.workspace, scene.path("tree"));
    assert_eq!(mission.durability, Durability::Disk);
    assert_eq!((mission.store_bytes, mission.blob_bytes), (4 << 30, 16 << 30));
    assert_eq!(mission.spec.until, Until::Settled);
    assert_eq!(mission.spec.roles.len(), 4);
    assert_eq!(mission.spec.limits, Default::default());
    let [spec] = &mission.spec.agents[..] else { panic!("{:?}", mission.spec.agents) };
    assert_eq!((spec.level, spec.mode, spec.ready), (1, Mode::Service, ReadyWhen::Exec));
    assert_eq!((spec.start_timeout_ms, spec.grace_ms), (10_000, 5_000));
    assert_eq!((spec.wall_ms, spec.silence_ms, spec.autostart), (None, None, true));
    let launch = &mission.agents["one"];
    assert_eq!(launch.command, ["true"]);
    assert_eq!(launch.cwd, mission.workspace);
    assert_eq!((launch.level, launch.landlock), (Level::Process, LandlockMode::Files));
    assert!(launch.workspace_write);
    assert_eq!(launch.log, LogLimits { max_bytes: 10 << 20, keep: 3 });
}

#[test]
fn everything_that_can_be_said_arrives() {
    let scene = Scene::new();
    let mission = scene.load(
        r#"
[mission]
name = "full"
workspace = "tree"
isolation = "none"
workspace_mode = "shared"
until = "stopped"
durability = "process"

[roles.tester]
permissions = ["read", "execute"]

[limits]
max_agents = 8
handoff_request = "90s"
max_content = "64KiB"
store_bytes = "1GiB"
blob_bytes = "2GiB"
key_bytes = "1MiB"

[agents.zoe]
role = "tester"
command = ["./planner.sh", "--fast", "a b"]
capabilities = ["planning"]
mode = "task"
isolation = 1
restart = { on = "failure", max = 2, within = "5m", backoff = "1s", backoff_max = "8s" }
ready = "hello"
start_timeout = "3s"
silence = "2m"
grace = "0s"
autostart = false
env = { LANG = "C" }
env_pass = ["EDITOR"]
secrets = { TOKEN = { env = "MY_TOKEN" }, KEY = { file = "key.txt" } }
cwd = "extra"
limits = { memory = "2GiB", pids = 256, cpu_time = "90s", nofile = 100, fsize = "1MB", wall = "30m" }
landlock = "scope"
read = ["extra"]
write = ["extra"]
log = { max = "1MiB", keep = 1 }

[agents.adam]
role = "lead"
command = ["true"]
restart = "always"

[[tasks]]
id = "first"
title = "the first"
assign = "zoe"
needs = ["planning"]
timeout = "10m"
max_attempts = 1
data = { file = "src/parse.rs", lines = [1, 2.5, true], when = 2026-11-20 }

[[tasks]]
id = "second"
after = ["first"]
"#,
    );
    assert_eq!((mission.durability, mission.store_bytes), (Durability::Process, 1 << 30));
    assert_eq!((mission.blob_bytes, mission.spec.limits.key_bytes), (2 << 30, 1 << 20));
    assert_eq!(mission.spec.until, Until::Stopped);
    assert_eq!(
        mission.spec.roles["tester"],
        Permissions::of(&[Permission::Read, Permission::Execute])
    );
    let limits = mission.spec.limits;
    assert_eq!((limits.max_agents, limits.handoff_request_ms), (8, 90_000));
    assert_eq!((limits.max_content, limits.handoff_drain_ms), (64 << 10, 60_000));

    let names: Vec<&str> = mission.spec.agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["zoe", "adam"], "in the order of the file");
    let spec = &mission.spec.agents[0];
    assert_eq!((spec.level, spec.mode, spec.ready), (1, Mode::Task, ReadyWhen::Hello));
    assert_eq!(
        spec.restart,
        RestartSpec {
            on: RestartOn::OnFailure,
            max: 2,
            within_ms: 300_000,
            backoff_ms: 1_000,
            backoff_max_ms: 8_000
        }
    );
    assert_eq!((spec.start_timeout_ms, spec.grace_ms), (3_000, 0));
    assert_eq!((spec.wall_ms, spec.silence_ms), (Some(1_800_000), Some(120_000)));
    assert!(!spec.autostart);
    assert_eq!(mission.spec.agents[1].restart.on, RestartOn::Always);
    assert_eq!(mission.spec.agents[1].level, 0, "the mission's level");

    let launch = &mission.agents["zoe"];
    let program = scene.path("planner.sh").display().to_string();
    assert_eq!(launch.command, [program.as_str(), "--fast", "a b"]);
    assert_eq!(launch.cwd, scene.path("extra"));
    assert!(!launch.workspace_write);
    assert_eq!(launch.env["LANG"], "C");
    assert_eq!(launch.env_pass, ["EDITOR"]);
    assert_eq!(launch.secrets["TOKEN"], SecretSource::Env("MY_TOKEN".into()));
    assert_eq!(launch.secrets["KEY"], SecretSource::File(scene.path("key.txt")));
    assert_eq!(launch.landlock, LandlockMode::ScopeOnly);
    assert_eq!(
        (&launch.read, &launch.write),
        (&vec![scene.path("extra")], &vec![scene.path("extra")])
    );
    assert_eq!((launch.limits.memory, launch.limits.pids), (Some(2 << 30), Some(256)));
    assert_eq!((launch.limits.cpu_seconds, launch.limits.nofile), (Some(90), Some(100)));
    assert_eq!(launch.limits.file_size, Some(1_000_000));
    assert_eq!(launch.log, LogLimits { max_bytes: 1 << 20, keep: 1 });

    let [first, second] = &mission.spec.tasks[..] else { panic!("{:?}", mission.spec.tasks) };
    assert_eq!((first.timeout_ms, first.max_attempts), (Some(600_000), 1));
    let data = first.data.as_ref().unwrap().get();
    assert_eq!(data, r#"{"file":"src/parse.rs","lines":[1,2.5,true],"when":"2026-11-20"}"#);
    assert_eq!((second.title.as_str(), second.max_attempts), ("second", 3));
    assert_eq!(second.after, std::slice::from_ref(&first.id));
}

#[test]
fn the_digest_changes_with_what_decides_how_the_process_runs_and_only_then() {
    let scene = Scene::new();
    let digest = |text: &str| scene.load(text).spec.agents[0].launch_digest.clone();
    let base = digest(SMALL);
    assert_eq!(base.len(), 64);
    assert_eq!(base, digest(&SMALL.replace("role = ", "capabilities = [\"a\"]\nrole = ")));
    let mut seen = vec![base];
    for addition in [
        "env = { A = \"1\" }",
        "env = { A = \"2\" }",
        "env_pass = [\"A\"]",
        "secrets = { A = { env = \"B\" } }",
        "secrets = { A = { file = \"B\" } }",
        "isolation = \"none\"",
        "landlock = \"scope\"",
        "limits = { pids = 7 }",
        "read = [\"extra\"]",
        "write = [\"extra\"]",
        "cwd = \"extra\"",
        "grants = [\"pty\"]",
        "log = { keep = 9 }",
    ] {
        let digest = digest(&format!("{SMALL}{addition}\n"));
        assert!(!seen.contains(&digest), "{addition}");
        seen.push(digest);
    }
    assert!(!seen.contains(&digest(&SMALL.replace("\"true\"", "\"true\", \"x\""))));
    assert!(!seen.contains(&digest(&SMALL.replace("\"write\"", "\"read\""))));
}

#[test]
fn a_program_that_agents_can_rewrite_is_warned_of() {
    let scene = Scene::new();
    let mission = scene.load(
        "[mission]\nname = \"w\"\n[agents.a]\nrole = \"write\"\ncommand = [\"./planner.sh\"]\n",
    );
    let [warning] = &mission.warnings[..] else { panic!("{:?}", mission.warnings) };
    assert_eq!((warning.line, warning.column), (5, 12));
    assert!(warning.to_string().starts_with("warning: "), "{warning}");

    let readers =
        "[mission]\nname = \"w\"\n[agents.a]\nrole = \"read\"\ncommand = [\"./planner.sh\"]\n";
    assert_eq!(scene.load(readers).warnings, [], "where nobody may write there is no danger");
}

#[test]
fn secrets_are_resolved_at_the_start_and_never_shown() {
    let scene = Scene::new();
    let text = format!(
        "{SMALL}env_pass = [\"E\", \"GONE\"]\nsecrets.T = {{ env = \"V\" }}\nsecrets.K = {{ file = \"k\" }}\n"
    );
    let launch = &scene.load(&text).agents["one"];
    fs::write(scene.path("k"), "from the file\r\n").unwrap();
    let variable = |name: &str| match name {
        "V" => Some("from V".into()),
        "E" => Some("vi".into()),
        _ => None,
    };
    let resolved = config::secrets::resolve(launch, variable).unwrap();
    let resolved: Vec<_> = resolved.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(resolved, [("E", "vi"), ("K", "from the file"), ("T", "from V")]);

    let error = config::secrets::resolve(launch, |_| None).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "secret T: environment variable V is not set");
    fs::remove_file(scene.path("k")).unwrap();
    let error = config::secrets::resolve(launch, variable).map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("secret K: cannot read /"), "{error}");
    fs::write(scene.path("k"), b"hush\0hush").unwrap();
    let error = config::secrets::resolve(launch, variable).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "secret K: its value holds a NUL byte");
}

#[test]
fn debug_output_of_a_launch_shows_no_value() {
    let scene = Scene::new();
    let mission = scene.load(&format!("{SMALL}env = {{ A = \"hush\" }}\n"));
    let shown = format!("{:?}", mission.agents);
    assert!(shown.contains("\"A\"") && !shown.contains("hush"), "{shown}");
}

#[test]
fn paths_start_at_the_file_wherever_missiond_was_started() {
    let scene = Scene::new();
    let mission = scene.load(SMALL);
    assert!(mission.workspace.is_absolute() && Path::new(&mission.workspace).ends_with("tree"));
}
