//! What arrives in an environment, and what never does.

use std::path::Path;

use crate::policy::{EnvironmentError, EnvironmentRequest, Level, environment};

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|&(name, value)| (name.into(), value.into())).collect()
}

fn request<'a>(level: Level, host: &'a [(String, String)]) -> EnvironmentRequest<'a> {
    EnvironmentRequest {
        allowed: None,
        level,
        host,
        home: Some(Path::new("/state/home")),
        tmpdir: Some(Path::new("/state/tmp")),
        declared: &[],
        mission: &[],
        missionctl_dir: Some(Path::new("/opt/missiond/bin")),
        workspace: Some(Path::new("/work space")),
    }
}

#[test]
fn at_level_1_only_the_allow_list_and_what_was_declared_arrive() {
    let host = pairs(&[
        ("HOME", "/home/user"),
        ("LANG", "C.UTF-8"),
        ("LC_TIME", "C"),
        ("LD_PRELOAD", "/tmp/evil.so"),
        ("MISSION_SOCKET", "/somebody/else"),
        ("PATH", "/usr/bin:/bin"),
        ("SSH_AUTH_SOCK", "/run/agent"),
        ("TERM", "xterm"),
        ("TMPDIR", "/tmp"),
        ("API_KEY", "from the host"),
    ]);
    let declared = pairs(&[("API_KEY", "declared")]);
    let mission = pairs(&[("MISSION_NAME", "m")]);
    let request = EnvironmentRequest {
        declared: &declared,
        mission: &mission,
        ..request(Level::Process, &host)
    };
    assert_eq!(
        environment(&request).unwrap(),
        pairs(&[
            ("API_KEY", "declared"),
            ("HOME", "/state/home"),
            ("LANG", "C.UTF-8"),
            ("LC_TIME", "C"),
            ("MISSION_NAME", "m"),
            ("PATH", "/opt/missiond/bin:/usr/bin:/bin"),
            ("TERM", "xterm"),
            ("TMPDIR", "/state/tmp"),
        ])
    );
}

#[test]
fn at_none_the_host_s_environment_is_inherited_except_another_agents_names() {
    let host = pairs(&[
        ("HOME", "/home/user"),
        ("LD_PRELOAD", "x"),
        ("MISSION_SOCKET", "/somebody/else"),
        ("PATH", "bin:/bin"),
    ]);
    assert_eq!(
        environment(&request(Level::None, &host)).unwrap(),
        pairs(&[
            ("HOME", "/home/user"),
            ("LD_PRELOAD", "x"),
            ("PATH", "/opt/missiond/bin:bin:/bin"),
        ])
    );
}

#[test]
fn the_search_path_has_no_entry_that_an_agent_could_fill() {
    let host = pairs(&[("PATH", ":.:bin:/work space/bin:/work space:/usr/bin:")]);
    let list = environment(&request(Level::Process, &host)).unwrap();
    assert!(list.contains(&("PATH".into(), "/opt/missiond/bin:/usr/bin".into())));

    let list = environment(&request(Level::Process, &[])).unwrap();
    let path = "/opt/missiond/bin:/usr/local/bin:/usr/bin:/bin";
    assert!(list.contains(&("PATH".into(), path.into())));
}

#[test]
fn reserved_and_impossible_names_are_refused_without_their_values() {
    let case = |name: &str, value: &str| {
        let declared = pairs(&[(name, value)]);
        let request = EnvironmentRequest { declared: &declared, ..request(Level::Process, &[]) };
        environment(&request).unwrap_err()
    };
    assert_eq!(case("MISSION_ROLE", "lead"), EnvironmentError::Reserved("MISSION_ROLE".into()));
    assert_eq!(case("", "x"), EnvironmentError::Name(String::new()));
    assert_eq!(case("A=B", "x"), EnvironmentError::Name("A=B".into()));
    let error = case("KEY", "sec\0ret");
    assert_eq!(error, EnvironmentError::Value("KEY".into()));
    assert!(!error.to_string().contains("sec"));
}
