//! Policy files and what an agent gets of them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code outside of a test function")]

use std::fs;
use std::path::{Path, PathBuf};

use missiond::config::dirs::Places;
use missiond::config::{AgentLaunch, ConfigError, Host, Mission, load_for};
use missiond::ids::AgentName;
use missiond::policy::sandbox::Network;
use missiond::policy::{Enforcement, Level};
use tempfile::TempDir;

/// A user with a home, a mission and policies.
struct Ground {
    root: TempDir,
}

impl Ground {
    fn new() -> Self {
        let ground = Ground { root: tempfile::tempdir().unwrap() };
        for name in ["home/.ssh", "home/tools", "ws/.git", "config/missiond/policies"] {
            fs::create_dir_all(ground.path(name)).unwrap();
        }
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn host(&self) -> Host {
        let state = self.path("home/.local/state");
        let places = Places::from_environment(|name| match name {
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            "XDG_STATE_HOME" => Some(state.clone().into()),
            _ => None,
        });
        Host {
            places: places.unwrap(),
            path: Some("/usr/bin:/bin".into()),
            missionctl_dir: None,
            home: Some(self.path("home")),
            policies: Some(self.path("config/missiond/policies")),
        }
    }

    fn load(&self, mission: &str, agent: &str) -> Result<Mission, ConfigError> {
        let text = format!(
            "[mission]\nname = \"m\"\nworkspace = \"ws\"\n{mission}\n\
             [agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n{agent}\n"
        );
        self.write("mission.toml", &text);
        load_for(&self.path("mission.toml"), &self.host())
    }

    fn agent(&self, mission: &str, agent: &str) -> AgentLaunch {
        let mission = self.load(mission, agent).unwrap_or_else(|error| panic!("{error}"));
        mission.agents[&AgentName::new("a").unwrap()].clone()
    }

    fn refusal(&self, mission: &str, agent: &str) -> String {
        let text = self.load(mission, agent).unwrap_err().to_string();
        text.replace(self.path("").to_str().unwrap().trim_end_matches('/'), "@")
    }
}

#[test]
fn level_2_has_the_coding_policy_unless_another_is_named() {
    let ground = Ground::new();
    let agent = ground.agent("isolation = 2", "");
    assert_eq!((agent.level, agent.policy.as_deref()), (Level::Namespaces, Some("coding")));
    assert_eq!(agent.network, Network::None);
    assert_eq!(agent.enforcement, Enforcement::Required);
    assert_eq!(agent.limits.memory, Some(4 << 30));
    assert_eq!(agent.limits.pids, Some(1024));
    assert_eq!(agent.tmp_bytes, Some(1 << 30));
    assert!(agent.protected.contains(&".mcp.json".to_owned()));
    assert_eq!(agent.hidden, [ground.path("home/.ssh")], "what isn't there is left out");
    let names = agent.environment.unwrap();
    assert!(names.contains(&"LC_*".to_owned()) && names.contains(&"SHELL".to_owned()));
    assert!(agent.filter.is_none(), "the built-in one");

    let service = ground.agent("isolation = 2\npolicy = \"service\"", "");
    assert_eq!(service.network, Network::Host);
    let own = ground.agent("isolation = 2\npolicy = \"service\"", "policy = \"minimal\"");
    assert_eq!((own.policy.as_deref(), own.network), (Some("minimal"), Network::None));
}

#[test]
fn level_1_has_a_policy_only_if_one_is_named() {
    let ground = Ground::new();
    let without = ground.agent("", "");
    assert_eq!((without.policy, without.environment), (None, None));
    assert_eq!((without.network, without.limits.pids), (Network::Host, Some(1024)));
    let with = ground.agent("policy = \"minimal\"", "");
    assert_eq!((with.network, with.limits.pids), (Network::None, Some(128)));
    let free = ground.agent("policy = \"minimal\"", "isolation = \"none\"");
    assert_eq!(free.policy, None);
}

#[test]
fn the_agents_own_section_stands_over_its_policy() {
    let ground = Ground::new();
    let keys = "network = \"host\"\nread = [\"home/tools\"]\ngrants = [\"ptrace\"]\n\
                limits = { memory = \"1GiB\", cpu = 1.5, tmp = \"2MiB\" }";
    let mission = "isolation = 2\nenforcement = \"best-effort\"";
    let agent = ground.agent(mission, keys);
    assert_eq!(agent.network, Network::Host);
    assert!(agent.read.contains(&ground.path("home/tools")) && agent.grants.ptrace);
    assert_eq!((agent.limits.memory, agent.limits.cpu_milli), (Some(1 << 30), Some(1500)));
    assert_eq!((agent.limits.pids, agent.tmp_bytes), (Some(1024), Some(2 << 20)));
    assert_eq!(agent.enforcement, Enforcement::BestEffort);
    let line = |what: &str| agent.asked.origin(what).map(ToString::to_string).unwrap_or_default();
    assert!(line("network").ends_with("mission.toml:9"), "{}", line("network"));
    assert!(line("limits.memory").ends_with("mission.toml:12"), "{}", line("limits.memory"));
    assert!(line("limits.pids").starts_with("coding (built in):"), "{}", line("limits.pids"));
}

#[test]
fn a_policy_of_ones_own_adds_to_the_one_it_inherits() {
    let ground = Ground::new();
    ground.write(
        "mine.toml",
        "inherits = \"coding\"\nread = [\"~/tools\", \"~/nothing\"]\nwrite = [\"$WORKSPACE\"]\n\
         environment = [\"MY_*\"]\ngrants = [\"perf\"]\n[limits]\npids = 7\n",
    );
    let agent = ground.agent("isolation = 2\npolicy = \"./mine.toml\"", "");
    assert!(agent.read.contains(&ground.path("home/tools")));
    assert!(!agent.read.iter().any(|path| path.ends_with("nothing")));
    assert_eq!(agent.write, [ground.path("ws")]);
    assert!(agent.grants.perf && agent.limits.pids == Some(7));
    assert_eq!(agent.limits.memory, Some(4 << 30));
    let names = agent.environment.unwrap();
    assert!(names.contains(&"MY_*".to_owned()) && names.contains(&"TZ".to_owned()));

    // The same by its name.
    fs::copy(ground.path("mine.toml"), ground.path("config/missiond/policies/own.toml")).unwrap();
    let agent = ground.agent("isolation = 2\npolicy = \"own\"", "");
    assert_eq!((agent.policy.as_deref(), agent.limits.pids), (Some("own"), Some(7)));
}

#[test]
fn a_policy_that_says_nothing_gives_nothing() {
    let ground = Ground::new();
    ground.write("mine.toml", "");
    let agent = ground.agent("isolation = 2\npolicy = \"./mine.toml\"", "");
    assert_eq!((agent.network, agent.enforcement), (Network::None, Enforcement::Required));
    assert_eq!(agent.environment, Some(Vec::new()));
    assert_eq!(agent.limits.pids, Some(1024), "never without a bound");
}

#[test]
fn a_seccomp_profile_of_ones_own_is_compiled() {
    let ground = Ground::new();
    ground.write("all.json", r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}"#);
    ground.write("mine.toml", "syscalls = \"all.json\"\n");
    let agent = ground.agent("isolation = 2\npolicy = \"./mine.toml\"", "");
    assert!(agent.filter.is_some_and(|filter| filter.len() < 10));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let ground = Ground::new();
    let case = |text: &str| {
        ground.write("mine.toml", text);
        ground.refusal("isolation = 2\npolicy = \"./mine.toml\"", "")
    };
    let check = |text: &str, parts: &[&str]| {
        let refusal = case(text);
        for part in parts {
            assert!(refusal.contains(part), "{text:?} gave\n{refusal}");
        }
    };
    check(
        "netwrok = \"none\"",
        &["mine.toml:1:1", "unknown key `netwrok` in a policy", "`network`?"],
    );
    check("\nnetwork = \"lan\"", &["mine.toml:2:11", "can't be \"lan\""]);
    check("[limits]\nmemroy = \"1GiB\"", &["mine.toml:2:1", "in [limits]", "`memory`?"]);
    check("read = [\"tools\"]", &["path \"tools\" must begin with /, ~/ or $WORKSPACE"]);
    check("read = [\"~/../x\"]", &["can't have .."]);
    check("write = [\"/\"]", &["root directory"]);
    check("protected = [\"/etc\"]", &["must be a name inside of a tree"]);
    check("environment = [\"*\"]", &["can't be the name of a variable"]);
    check("environment = [\"MISSION_X\"]", &["set by missiond itself"]);
    check("grants = [\"ptrce\"]", &["did you mean \"ptrace\"?"]);
    check("limits = { pids = 0 }", &["at least 1"]);
    check("limits = { cpu = 0 }", &["from 0.001"]);
    check("syscalls = \"none.json\"", &["none.json", "ENOENT"]);
    check("inherits = \"codding\"", &["no policy \"codding\"", "did you mean \"coding\"?"]);
    check("inherits = \"./mine.toml\"", &["mine.toml:1:12", "inherits itself"]);
    check("inherits = [", &["mine.toml:1"]);
    check("write = [\"~\"]", &["mission.toml:5:10", "missiond's own files", "mine.toml:1"]);

    ground.write("bad.json", "{\n\"defaultAction\": 1}");
    check("syscalls = \"bad.json\"", &["bad.json: line 2"]);
    ground.write("other.toml", "inherits = \"./mine.toml\"");
    check("inherits = \"./other.toml\"", &["other.toml:1:12", "inherits itself"]);
    ground.write("other.toml", "netwrok = \"none\"");
    check("inherits = \"./other.toml\"", &["other.toml:1:1", "unknown key"]);
}

#[test]
fn a_row_of_policies_has_an_end() {
    let ground = Ground::new();
    for index in 0..20 {
        ground.write(&format!("{index}.toml"), &format!("inherits = \"./{}.toml\"", index + 1));
    }
    let refusal = ground.refusal("policy = \"./0.toml\"", "");
    assert!(refusal.contains("more than 8 policies inherit one another"), "{refusal}");
}

#[test]
fn what_a_level_cannot_keep_is_refused_where_an_agent_asks_for_it() {
    let ground = Ground::new();
    for (keys, part) in [
        ("network = \"none\"", "level 1 can't keep an agent from the network"),
        ("limits = { tmp = \"1MiB\" }", "no private /tmp"),
        ("isolation = \"none\"\npolicy = \"coding\"", "there is no policy"),
        ("isolation = 3", "not in this version"),
        ("isolation = 2\ncwd = \"home\"", "doesn't see its `cwd`"),
    ] {
        let refusal = ground.refusal("", keys);
        assert!(refusal.contains(part), "{keys}: {refusal}");
    }
    let mission = "isolation = 2\npolicy = \"codng\"";
    let refusal = ground.refusal(mission, "policy = \"minimal\"");
    assert!(refusal.contains("no policy \"codng\""), "also where nobody uses it: {refusal}");
}

#[test]
fn the_presets_are_what_they_say() {
    let ground = Ground::new();
    for preset in ["minimal", "coding", "service"] {
        let agent = ground.agent(&format!("isolation = 2\npolicy = \"{preset}\""), "");
        assert_eq!(agent.policy.as_deref(), Some(preset));
        assert_eq!(agent.grants, Default::default(), "{preset}");
        assert!(agent.write.is_empty() && !agent.hidden.is_empty(), "{preset}");
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("policies/{preset}.toml")).is_file()
        );
    }
}
