//! `validate`, `schema`, `init` and `unit`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail loudly too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use missiond::config::commands::{
    CommandError, UnitHome, init, schema, unit_install, unit_print, unit_remove, validate,
};
use missiond::config::dirs::Places;
use missiond::config::{Host, load_for};
use serde_json::Value;
use tempfile::TempDir;

fn host() -> Host {
    let places = Places::from_environment(|name| match name {
        "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
        "XDG_STATE_HOME" => Some("/var/state".into()),
        _ => None,
    });
    let missionctl_dir =
        Path::new(env!("CARGO_BIN_EXE_missionctl")).parent().map(Path::to_path_buf);
    let path = Some("/usr/bin:/bin".into());
    Host { places: places.unwrap(), path, missionctl_dir, home: None, policies: None }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn schema_value() -> Value {
    serde_json::from_str(&schema().unwrap()).unwrap()
}

/// A validator of just the keywords that the schema uses; any other is an error, so that none is
/// passed over in silence.
fn check(root: &Value, schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let schema = schema.as_object().ok_or("a schema is an object")?;
    for (keyword, rule) in schema {
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" | "definitions" | "examples" | "format"
            | "pattern" => true,
            "$ref" => {
                let name =
                    rule.as_str().and_then(|r| r.strip_prefix("#/definitions/")).ok_or("a $ref")?;
                check(root, &root["definitions"][name], value, path)?;
                true
            }
            "allOf" => {
                for one in rule.as_array().ok_or("allOf")? {
                    check(root, one, value, path)?;
                }
                true
            }
            "anyOf" => rule
                .as_array()
                .ok_or("anyOf")?
                .iter()
                .any(|one| check(root, one, value, path).is_ok()),
            "enum" => rule.as_array().ok_or("enum")?.contains(value),
            "type" => match rule.as_str().ok_or("a type")? {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                other => return Err(format!("type {other}")),
            },
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "exclusiveMinimum" => {
                value.as_f64().is_none_or(|number| number > rule.as_f64().unwrap())
            }
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "required" => {
                let names = rule.as_array().ok_or("required")?;
                names.iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "properties" => {
                for (name, schema) in rule.as_object().ok_or("properties")? {
                    if let Some(value) = value.get(name) {
                        check(root, schema, value, &format!("{path}.{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let known = |name: &String| known.is_some_and(|known| known.contains_key(name));
                let others =
                    value.as_object().into_iter().flatten().filter(|(name, _)| !known(name));
                if let Value::Bool(allowed) = rule {
                    *allowed || others.count() == 0
                } else {
                    for (name, value) in others {
                        check(root, rule, value, &format!("{path}.{name}"))?;
                    }
                    true
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    check(root, rule, item, &format!("{path}[]"))?;
                }
                true
            }
            other => return Err(format!("the test knows no keyword {other}")),
        };
        if !holds {
            return Err(format!("{path}: {keyword} {rule} does not hold for {value}"));
        }
    }
    Ok(())
}

fn agrees(text: &str) -> Result<(), String> {
    let value: Value = serde_json::to_value(toml::from_str::<toml::Value>(text).unwrap()).unwrap();
    let root = schema_value();
    check(&root, &root, &value, "")
}

#[test]
fn the_examples_agree_with_the_schema() {
    let dir = TempDir::new().unwrap();
    init(dir.path()).unwrap();
    agrees(&fs::read_to_string(dir.path().join("mission.toml")).unwrap()).unwrap();
    let quickstart = repository().join("examples/quickstart/mission.toml");
    agrees(&fs::read_to_string(quickstart).unwrap()).unwrap();
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let good = "[mission]\nname = \"m\"\n[agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n";
    agrees(good).unwrap();
    for bad in [
        good.replace("name", "nmae"),
        good.replace("\"m\"", "1"),
        good.replace("role = \"write\"\n", ""),
        good.replace("[\"true\"]", "\"true\""),
        format!("{good}isolation = 4\n"),
        format!("{good}autostart = \"yes\"\n"),
        format!("{good}restart = \"maybe\"\n"),
        format!("{good}restart = {{ max = 1 }}\n"),
        format!("{good}[limits]\nmax_agents = -1\n"),
        format!("{good}[roles.r]\npermissions = [\"fly\"]\n"),
        format!("{good}[[tasks]]\ntitle = \"no id\"\n"),
    ] {
        assert!(agrees(&bad).is_err(), "{bad}");
    }
}

/// Every key of every section, from the schema: the parser must know each of them, and the schema
/// none that the parser doesn't.
#[test]
fn every_key_of_the_schema_is_known_to_the_parser_and_the_other_way_round() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("mission.toml");
    let root = schema_value();
    let sections = [
        ("mission", "[mission]\n", "Mission"),
        ("agents.a", "[agents.a]\n", "Agent"),
        ("roles.r", "[roles.r]\n", "Role"),
        ("limits", "[limits]\n", "Limits"),
        ("tasks", "[[tasks]]\n", "Task"),
        ("agents.a.restart", "[agents.a.restart]\n", "RestartTable"),
        ("agents.a.limits", "[agents.a.limits]\n", "AgentLimits"),
        ("agents.a.log", "[agents.a.log]\n", "Log"),
        ("agents.a.secrets.S", "[agents.a.secrets.S]\n", "Secret"),
    ];
    assert_eq!(root["definitions"].as_object().unwrap().len(), sections.len());
    for (section, header, definition) in sections {
        let definition =
            root["definitions"][definition].as_object().unwrap_or_else(|| panic!("{definition}"));
        let keys: Vec<&String> = definition["properties"].as_object().unwrap().keys().collect();
        let lines: Vec<String> = keys.iter().map(|key| format!("{key} = {{}}\n")).collect();
        fs::write(&file, format!("{header}{}no_such_key = 1\n", lines.concat())).unwrap();
        let answer = load_for(&file, &host()).unwrap_err().to_string();
        let unknown: Vec<&str> =
            answer.lines().filter(|line| line.contains("unknown key")).collect();
        assert_eq!(unknown.len(), 1, "[{section}] {answer}");
        assert!(unknown[0].contains("no_such_key"), "[{section}] {answer}");
        let known =
            answer.lines().find_map(|line| line.trim_start().strip_prefix("help: [")).unwrap();
        let mut known: Vec<&str> = known.split(" knows ").nth(1).unwrap().split(", ").collect();
        known.sort_unstable();
        assert_eq!(known, keys, "[{section}]");
    }
}

#[test]
fn every_key_has_a_description() {
    let root = schema_value();
    let definitions = root["definitions"].as_object().unwrap();
    for (name, definition) in definitions.iter().chain([(&"root".to_owned(), &root)]) {
        for (key, schema) in definition["properties"].as_object().unwrap() {
            let text = schema["description"].as_str().unwrap_or_default();
            assert!(text.len() > 10, "{name}.{key}: {schema}");
        }
    }
}

#[test]
fn init_writes_a_mission_that_is_valid_and_named_after_its_directory() {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("My Project_2");
    let said = init(&target).unwrap();
    let file = target.join("mission.toml");
    assert_eq!(said, format!("wrote {0}\nnext:  missiond start '{0}'\n", file.display()));
    let mission = load_for(&file, &host()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(mission.spec.name.as_str(), "my-project-2");
    assert_eq!(mission.warnings, []);
    assert!(mission.spec.tasks.iter().all(|task| task.assign.is_some()), "it ends by itself");
}

#[test]
fn init_overwrites_nothing() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("mission.toml");
    fs::write(&file, "mine").unwrap();
    let error = init(dir.path()).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    // Nor through a symbolic link that leads nowhere.
    let other = TempDir::new().unwrap();
    std::os::unix::fs::symlink("elsewhere", other.path().join("mission.toml")).unwrap();
    assert_eq!(init(other.path()).unwrap_err().exit_code(), 5);
    assert!(!other.path().join("elsewhere").exists());
}

#[test]
fn validate_says_what_would_be_started() {
    let dir = TempDir::new().unwrap();
    init(&dir.path().join("demo")).unwrap();
    let file = dir.path().join("demo/mission.toml");
    let root = dir.path().canonicalize().unwrap();
    let said = validate(&file, &host()).unwrap().replace(dir.path().to_str().unwrap(), "DIR");
    let said = said.replace(root.to_str().unwrap(), "DIR");
    insta::assert_snapshot!(said);
    fs::write(&file, "[mission]\n").unwrap();
    assert_eq!(validate(&file, &host()).unwrap_err().exit_code(), 2);
}

struct Units {
    dir: TempDir,
    home: UnitHome,
}

impl Units {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for name in ["review", "build 100%"] {
            init(&dir.path().join(name)).unwrap();
        }
        let home = UnitHome {
            units: dir.path().join("config/systemd/user"),
            program: "/opt/missiond/bin/missiond".into(),
            systemctl: false,
        };
        Units { dir, home }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name).join("mission.toml")
    }
}

#[test]
fn the_printed_unit_is_the_example_with_this_executable() {
    let units = Units::new();
    let printed = unit_print(&units.home).unwrap();
    let example =
        fs::read_to_string(repository().join("examples/systemd/missiond@.service")).unwrap();
    assert_eq!(
        printed.replace("\"/opt/missiond/bin/missiond\" start", "/usr/bin/env missiond start"),
        example
    );
    for line in [
        "Type=notify",
        "WatchdogSec=30",
        "Delegate=yes",
        "KillMode=mixed",
        "Restart=on-failure",
        "ExecStart=\"/opt/missiond/bin/missiond\" start ${MISSIOND_FILE}",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}");
    }
}

#[test]
fn a_unit_is_installed_and_removed_again() {
    let units = Units::new();
    let said = unit_install(&units.home, "review", &units.file("review"), &host()).unwrap();
    assert!(said.contains("systemctl --user enable --now missiond@review"), "{said}");
    let drop_in = units.home.units.join("missiond@review.service.d/mission.conf");
    let file = units.file("review");
    assert_eq!(
        fs::read_to_string(&drop_in).unwrap(),
        format!(
            "# written by `missiond unit install`\n[Service]\n\
             Environment=\"MISSIOND_FILE={}\"\nEnvironment=\"PATH=/usr/bin:/bin\"\n",
            file.display()
        )
    );
    let template = units.home.units.join("missiond@.service");
    assert_eq!(fs::read_to_string(&template).unwrap(), unit_print(&units.home).unwrap());

    // A second mission keeps the template when the first one goes.
    unit_install(&units.home, "build-100", &units.file("build 100%"), &host()).unwrap();
    let text =
        fs::read_to_string(units.home.units.join("missiond@build-100.service.d/mission.conf"));
    assert!(text.unwrap().contains("/build 100%%/mission.toml\""), "% is escaped");
    unit_remove(&units.home, "review").unwrap();
    assert!(!drop_in.exists() && template.exists());
    unit_remove(&units.home, "build-100").unwrap();
    assert!(!template.exists());
    assert_eq!(unit_remove(&units.home, "build-100").unwrap_err().exit_code(), 3);
}

#[test]
fn a_unit_is_named_like_its_mission_and_its_file_is_checked() {
    let units = Units::new();
    let install = |name: &str, file: &Path| unit_install(&units.home, name, file, &host());
    let error = install("other", &units.file("review")).unwrap_err();
    assert!(matches!(error, CommandError::Usage { .. }) && error.exit_code() == 2, "{error}");
    assert!(error.to_string().contains("is mission `review`, not `other`"), "{error}");
    assert_eq!(install("../x", &units.file("review")).unwrap_err().exit_code(), 2);
    assert_eq!(install("review", &units.file("gone")).unwrap_err().exit_code(), 2);
    assert!(!units.home.units.exists(), "nothing was written");
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let available = Command::new("systemd-analyze").arg("--version").output();
    if available.is_err() {
        let required = std::env::var("MISSIOND_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name == "systemd"), "systemd-analyze is required");
        println!("SKIP systemd_finds_no_fault_with_the_units: no systemd-analyze");
        return;
    }
    let mut units = Units::new();
    // The executable of a unit must exist.
    units.home.program = "/bin/true".into();
    unit_install(&units.home, "build-100", &units.file("build 100%"), &host()).unwrap();
    let runtime = units.dir.path().join("run");
    fs::create_dir(&runtime).unwrap();
    let example = repository().join("examples/systemd/missiond@.service");
    for unit in [example, units.home.units.join("missiond@build-100.service")] {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--user", "--man=no"])
            .arg(&unit)
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("XDG_CONFIG_HOME", units.dir.path().join("config"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", unit.display());
    }
}
