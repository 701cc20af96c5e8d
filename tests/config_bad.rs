//! What a bad mission file is answered with: the whole message, as a person sees it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail loudly too")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use missiond::config::dirs::Places;
use missiond::config::{self, ConfigError, Host};
use proptest::prelude::*;
use tempfile::TempDir;

const HEAD: &str = "[mission]\nname = \"m\"\nworkspace = \"tree\"\n";
const AGENT: &str = "[agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n";

struct Scene {
    _dir: TempDir,
    root: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["tree", "tree/inside", "own/missiond/state"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("plain.txt"), "no program\n").unwrap();
        fs::set_permissions(root.join("plain.txt"), fs::Permissions::from_mode(0o644)).unwrap();
        for program in ["run.sh", "tree/run.sh"] {
            fs::write(root.join(program), "#!/bin/sh\n").unwrap();
            fs::set_permissions(root.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Scene { _dir: dir, root }
    }

    fn host(&self, runtime: &str) -> Host {
        let state = self.root.join("own");
        Host {
            places: Places::from_environment(|name| match name {
                "XDG_RUNTIME_DIR" => Some(runtime.into()),
                "XDG_STATE_HOME" => Some(state.clone().into()),
                _ => None,
            })
            .unwrap(),
            path: Some("/usr/bin:/bin".into()),
            missionctl_dir: None,
            home: None,
            policies: None,
        }
    }

    fn error_of(&self, file: &Path, host: &Host) -> ConfigError {
        config::load_for(file, host).expect_err("this file is bad")
    }

    fn shown(&self, error: &ConfigError) -> String {
        let root = self.root.to_str().unwrap();
        error.to_string().replace(root, "DIR")
    }

    fn answer(&self, text: impl AsRef<[u8]>) -> String {
        let file = self.root.join("mission.toml");
        fs::write(&file, text).unwrap();
        self.shown(&self.error_of(&file, &self.host("/run/user/1000")))
    }
}

/// Answers to all cases of a topic, one after the other.
fn table(cases: &[(&str, String)]) -> String {
    let scene = Scene::new();
    let mut text = String::new();
    for (title, input) in cases {
        let answer = scene.answer(input);
        writeln!(text, "# {title}\n{answer}\n").unwrap();
    }
    text
}

#[test]
fn keys_and_types() {
    let answers = table(&[
        ("a typo in a key", format!("{HEAD}isolaton = 1\n{AGENT}")),
        ("a typo in a section", format!("{HEAD}[agent.a]\nrole = \"write\"\n")),
        (
            "a key that other tools have",
            format!("{HEAD}{AGENT}[[tasks]]\nid = \"t\"\ndepends_on = [\"u\"]\n"),
        ),
        ("a key of nothing", format!("{HEAD}colour = \"red\"\n{AGENT}")),
        (
            "a string for a list",
            format!("{HEAD}[agents.a]\nrole = \"write\"\ncommand = \"true\"\n"),
        ),
        (
            "a list for a string",
            format!("{HEAD}[agents.a]\nrole = [\"write\"]\ncommand = [\"true\"]\n"),
        ),
        (
            "a number in a list of strings",
            format!("{HEAD}[agents.a]\nrole = \"write\"\ncommand = [\"true\", 1]\n"),
        ),
        ("a string for a flag", format!("{HEAD}{AGENT}autostart = \"yes\"\n")),
        ("a fraction for a whole number", format!("{HEAD}{AGENT}limits = {{ pids = 1.5 }}\n")),
        ("a negative number", format!("{HEAD}{AGENT}limits = {{ pids = -1 }}\n")),
        ("a number above all bounds", format!("{HEAD}{AGENT}[limits]\nmax_agents = 99999999999\n")),
        ("one task for a list of tasks", format!("{HEAD}{AGENT}[tasks]\nid = \"t\"\n")),
        ("an agent that is no table", format!("{HEAD}[agents]\na = \"true\"\n")),
        ("keys that are missing", "[agents.a]\nmode = \"task\"\n".into()),
        ("nothing at all", String::new()),
        ("no agent", format!("{HEAD}[agents]\n")),
    ]);
    insta::assert_snapshot!(answers);
}

#[test]
fn syntax() {
    let answers = table(&[
        ("an unfinished string", "[mission]\nname = \"m\n".into()),
        ("a key without a value", "[mission]\nname =\n".into()),
        ("a key twice", "[mission]\nname = \"m\"\nname = \"n\"\n".into()),
        ("a section twice", format!("{HEAD}{AGENT}{AGENT}")),
        (
            "an agent twice, in two ways",
            format!("{HEAD}{AGENT}[agents]\na = {{ role = \"write\" }}\n"),
        ),
        ("something else than TOML", "<?xml version=\"1.0\"?>\n".into()),
        ("nested without end", format!("x = {}", "[".repeat(5000))),
        ("an escape sequence", "[mission]\nname = \"\u{1b}[31mred\"\n".into()),
        ("a very long line", format!("name = \"{}\" = 1\n", "x".repeat(500))),
    ]);
    insta::assert_snapshot!(answers);
}

#[test]
fn values() {
    let answers = table(&[
        ("an isolation of 4", format!("{HEAD}isolation = 4\n{AGENT}")),
        ("an isolation of 0", format!("{HEAD}isolation = 0\n{AGENT}")),
        ("an isolation of 3", format!("{HEAD}isolation = 3\n{AGENT}")),
        ("an isolation of 3 of one agent", format!("{HEAD}{AGENT}isolation = 3\n")),
        ("an isolation in words", format!("{HEAD}isolation = \"full\"\n{AGENT}")),
        ("a mode that isn't one", format!("{HEAD}{AGENT}mode = \"tasks\"\n")),
        ("until what", format!("{HEAD}until = \"tomorrow\"\n{AGENT}")),
        ("a restart that isn't one", format!("{HEAD}{AGENT}restart = \"onfailure\"\n")),
        ("a restart of the wrong type", format!("{HEAD}{AGENT}restart = 5\n")),
        ("a backoff that shrinks", format!("{HEAD}{AGENT}restart = {{ on = \"failure\", backoff = \"9s\", backoff_max = \"1s\" }}\n")),
        ("a duration without a unit", format!("{HEAD}{AGENT}grace = 5\n")),
        ("a duration that isn't one", format!("{HEAD}{AGENT}grace = \"5 parsecs\"\n")),
        ("a time of nothing", format!("{HEAD}{AGENT}silence = \"0s\"\n")),
        ("a size without a unit", format!("{HEAD}{AGENT}limits = {{ memory = \"2\" }}\n")),
        ("a size that isn't one", format!("{HEAD}{AGENT}[limits]\nmax_content = \"lots\"\n")),
        ("a bound of nothing", format!("{HEAD}{AGENT}[limits]\nmax_nacks = 0\n")),
        ("a share of no processor", format!("{HEAD}{AGENT}limits = {{ cpu = 0 }}\n")),
        ("a mission name with capitals", "[mission]\nname = \"My Mission\"\nworkspace = \"tree\"\n[agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n".into()),
        ("an agent named operator", format!("{HEAD}[agents.operator]\nrole = \"write\"\ncommand = [\"true\"]\n")),
        ("an unknown permission", format!("{HEAD}{AGENT}[roles.r]\npermissions = [\"read\", \"wirte\"]\n")),
        ("a built-in role again", format!("{HEAD}{AGENT}[roles.lead]\npermissions = []\n")),
        ("a number that JSON lacks", format!("{HEAD}{AGENT}[[tasks]]\nid = \"t\"\ndata = {{ x = nan }}\n")),
        ("data that is too large", format!("{HEAD}{AGENT}[limits]\nmax_content = \"10B\"\n[[tasks]]\nid = \"t\"\ndata = \"more than ten\"\n")),
    ]);
    insta::assert_snapshot!(answers);
}

#[test]
fn a_private_workspace_is_refused_where_there_is_no_sandbox() {
    let scene = Scene::new();
    for text in [
        format!("{HEAD}workspace_mode = \"private\"\n{AGENT}"),
        format!("{HEAD}{AGENT}workspace_mode = \"private\"\n"),
        format!("{HEAD}{AGENT}isolation = \"none\"\nworkspace_mode = \"private\"\n"),
    ] {
        let answer = scene.answer(&text);
        assert!(answer.contains("a private workspace needs isolation level 2"), "{answer}");
        assert!(answer.contains("workspace_mode"), "{answer}");
    }
    let answer = scene.answer(format!("{HEAD}{AGENT}workspace_mode = \"own\"\n"));
    assert!(answer.contains("\"shared\", \"private\""), "{answer}");
}

#[test]
fn agents() {
    let answers = table(&[
        ("an unknown role", format!("{HEAD}[agents.a]\nrole = \"writer\"\ncommand = [\"true\"]\n")),
        ("a role of nothing", format!("{HEAD}[agents.a]\nrole = \"cook\"\ncommand = [\"true\"]\n")),
        ("a command that PATH lacks", format!("{HEAD}[agents.a]\nrole = \"write\"\ncommand = [\"no-such-program\"]\n")),
        ("a command beside the file", format!("{HEAD}[agents.a]\nrole = \"write\"\ncommand = [\"run.sh\"]\n")),
        ("a command that isn't there", format!("{HEAD}[agents.a]\nrole = \"write\"\ncommand = [\"./gone.sh\"]\n")),
        ("a command that isn't executable", format!("{HEAD}[agents.a]\nrole = \"write\"\ncommand = [\"./plain.txt\"]\n")),
        ("a command that is a directory", format!("{HEAD}[agents.a]\nrole = \"write\"\ncommand = [\"./tree\"]\n")),
        ("a command that level 1 can't read", format!("{HEAD}[agents.a]\nrole = \"write\"\ncommand = [\"./run.sh\"]\n")),
        ("an empty command", format!("{HEAD}[agents.a]\nrole = \"write\"\ncommand = []\n")),
        ("a reserved variable", format!("{HEAD}{AGENT}env = {{ MISSION_AGENT = \"b\" }}\n")),
        ("a variable that isn't one", format!("{HEAD}{AGENT}env = {{ \"A=B\" = \"c\" }}\n")),
        ("a variable from two places", format!("{HEAD}{AGENT}env = {{ A = \"1\" }}\nsecrets = {{ A = {{ env = \"A\" }} }}\n")),
        ("a secret without a source", format!("{HEAD}{AGENT}secrets = {{ A = {{}} }}\n")),
        ("a secret with two sources", format!("{HEAD}{AGENT}secrets = {{ A = {{ env = \"A\", file = \"a\" }} }}\n")),
        ("a workspace that isn't there", "[mission]\nname = \"m\"\nworkspace = \"gone\"\n[agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n".into()),
        ("a workspace that is a file", "[mission]\nname = \"m\"\nworkspace = \"plain.txt\"\n[agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n".into()),
        ("the whole machine as the workspace", "[mission]\nname = \"m\"\nworkspace = \"/\"\n[agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n".into()),
        ("a workspace around missiond's state", "[mission]\nname = \"m\"\nworkspace = \".\"\n[agents.a]\nrole = \"write\"\ncommand = [\"true\"]\n".into()),
        (
            "a workspace that is read-only and writable",
            format!("{HEAD}[agents.a]\nrole = \"read\"\ncommand = [\"true\"]\nwrite = [\"tree\"]\n")
        ),
        ("a tilde", format!("{HEAD}{AGENT}read = [\"~/tools\"]\n")),
        ("more agents than allowed", format!("{HEAD}{AGENT}[agents.b]\nrole = \"read\"\ncommand = [\"true\"]\n[limits]\nmax_agents = 1\n")),
    ]);
    insta::assert_snapshot!(answers);
}

#[test]
fn tasks() {
    let task = |id: &str, rest: &str| format!("[[tasks]]\nid = \"{id}\"\n{rest}\n");
    let base = format!("{HEAD}{AGENT}[agents.reader]\nrole = \"read\"\ncommand = [\"true\"]\n");
    let answers = table(&[
        ("an id twice", format!("{base}{}{}", task("t", ""), task("t", ""))),
        ("an id that isn't one", format!("{base}{}", task("a b", ""))),
        (
            "after a task that isn't there",
            format!("{base}{}{}", task("build", ""), task("t", "after = [\"biuld\"]")),
        ),
        (
            "a circle",
            format!(
                "{base}{}{}{}{}",
                task("a", "after = [\"c\"]"),
                task("b", "after = [\"a\"]"),
                task("c", "after = [\"b\"]"),
                task("d", "after = [\"a\"]")
            ),
        ),
        ("after itself", format!("{base}{}", task("t", "after = [\"t\"]"))),
        ("for nobody", format!("{base}{}", task("t", "assign = \"raeder\""))),
        ("for an agent without execute", format!("{base}{}", task("t", "assign = \"reader\""))),
        (
            "more tasks than allowed",
            format!("{base}[limits]\nmax_tasks = 1\n{}{}", task("t", ""), task("u", "")),
        ),
        ("no attempt", format!("{base}{}", task("t", "max_attempts = 0"))),
    ]);
    insta::assert_snapshot!(answers);
}

#[test]
fn independent_errors_come_in_one_go() {
    let scene = Scene::new();
    let answer = scene.answer(
        "[mission]\nname = \"M\"\nworkspace = \"tree\"\nisolation = 4\nuntill = \"settled\"\n\n\
         [agents.one]\nrole = \"writer\"\ncommand = [\"./gone\"]\ngrace = 5\n\n\
         [agents.two]\nrole = \"read\"\n\n\
         [[tasks]]\nid = \"t\"\nassign = \"one\"\n\n\
         [[tasks]]\nid = \"t\"\nassign = \"two\"\nafter = [\"u\"]\n",
    );
    insta::assert_snapshot!(answer);
}

#[test]
fn what_may_be_secret_is_not_shown() {
    let cases = [
        format!("{HEAD}{AGENT}secrets = {{ A = \"hush\" }}\n"),
        format!("{HEAD}{AGENT}secrets = {{ A = {{ value = \"hush\" }} }}\n"),
        format!("{HEAD}{AGENT}secrets = [\"hush\"]\n"),
        format!("{HEAD}{AGENT}env = \"hush\"\n"),
        format!("{HEAD}{AGENT}env = {{ A = \"hush\", MISSION_X = \"hush\" }}\n"),
        format!("{HEAD}{AGENT}env = {{ A = [\"hush\"] }}\n"),
        format!("{HEAD}{AGENT}[agents.a.secrets]\nA = \"hush\n"),
        format!("{HEAD}{AGENT}env = {{ A = \"hush }}\n"),
        format!("{HEAD}{AGENT}env = {{ A = \"hush\"\n"),
        format!("{HEAD}{AGENT}env.A = hush\n"),
        format!("{HEAD}{AGENT}secret = {{ A = {{ value = \"hush\" }} }}\n"),
        format!("{HEAD}{AGENT}secrets = {{ A = {{ env = \"X\", file = \"hush\" }} }}\n")
            .replace("file = \"hush\"", "fiel = \"hush\""),
    ];
    let scene = Scene::new();
    for text in cases {
        let answer = scene.answer(&text);
        assert!(answer.contains("error: DIR/mission.toml:"), "{answer}");
        assert!(!answer.contains("hush"), "{text}\n---\n{answer}");
    }
}

#[test]
fn files_that_are_no_mission_files() {
    let scene = Scene::new();
    let host = scene.host("/run/user/1000");
    let mut text = String::new();
    let mut add = |title: &str, name: &str| {
        let error = scene.error_of(&scene.root.join(name), &host);
        writeln!(text, "# {title}\n{}\n", scene.shown(&error)).unwrap();
    };
    add("no file", "gone.toml");
    add("a directory", "tree");
    fs::write(scene.root.join("tree/mission.toml"), "").unwrap();
    add("a directory with a mission file", "tree");
    fs::write(scene.root.join("latin1.toml"), b"[mission]\nname = \"m\"\n# caf\xe9\n").unwrap();
    add("invalid UTF-8", "latin1.toml");
    nix::unistd::mkfifo(&scene.root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    add("a named pipe, which never blocks", "pipe");
    symlink("loop", scene.root.join("loop")).unwrap();
    add("a symbolic link to itself", "loop");
    let large = fs::File::create(scene.root.join("large.toml")).unwrap();
    large.set_len(100_000_000).unwrap();
    add("100 MB", "large.toml");
    insta::assert_snapshot!(text);
}

#[test]
fn an_endless_file_is_read_to_its_bound_only() {
    let scene = Scene::new();
    let error = scene.error_of(Path::new("/dev/zero"), &scene.host("/run/user/1000"));
    assert!(matches!(error, ConfigError::NotRegular { .. }), "{error}");
    // Regular by its type, and of size 0 by its metadata.
    let symbols = Path::new("/proc/kallsyms");
    if !symbols.exists() {
        println!("SKIP an_endless_file_is_read_to_its_bound_only: no /proc/kallsyms");
        return;
    }
    let error = scene.error_of(symbols, &scene.host("/run/user/1000"));
    assert!(
        matches!(error, ConfigError::TooLarge { size, .. } if size == config::MAX_FILE + 1),
        "{error}"
    );
}

#[test]
fn an_unreadable_file_is_an_error_with_its_cause() {
    if nix::unistd::Uid::effective().is_root() {
        println!("SKIP an_unreadable_file_is_an_error_with_its_cause: root reads everything");
        return;
    }
    let scene = Scene::new();
    let file = scene.root.join("closed.toml");
    fs::write(&file, HEAD).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let answer = scene.shown(&scene.error_of(&file, &scene.host("/run/user/1000")));
    assert_eq!(
        answer,
        "error: cannot read mission file DIR/closed.toml\n  cause: permission denied (EACCES)"
    );
}

#[test]
fn a_socket_path_that_is_too_long_is_known_before_anything_starts() {
    let scene = Scene::new();
    let file = scene.root.join("mission.toml");
    let name = "n".repeat(40);
    fs::write(&file, format!("{HEAD}[agents.{name}]\nrole = \"write\"\ncommand = [\"true\"]\n"))
        .unwrap();
    assert!(config::load_for(&file, &scene.host("/run/user/1000")).is_ok());
    let long = format!("/run/{}", "x".repeat(70));
    let agent = scene.shown(&scene.error_of(&file, &scene.host(&long)));
    let long = format!("/run/{}", "x".repeat(100));
    let control = scene.shown(&scene.error_of(&file, &scene.host(&long)));
    let answers = format!("{agent}\n\n{control}");
    insta::assert_snapshot!(answers);
}

#[test]
fn a_large_but_allowed_file_is_checked_quickly() {
    let scene = Scene::new();
    let mut text = format!("{HEAD}{AGENT}[limits]\nmax_tasks = 100000\n");
    let mut last = String::new();
    for number in 0.. {
        let after = if last.is_empty() { String::new() } else { format!("after=[\"{last}\"]\n") };
        let task = format!("[[tasks]]\nid=\"t{number}\"\n{after}");
        if text.len() + task.len() > 1 << 20 {
            break;
        }
        text.push_str(&task);
        last = format!("t{number}");
    }
    let file = scene.root.join("mission.toml");
    fs::write(&file, &text).unwrap();
    let mission =
        config::load_for(&file, &scene.host("/run/user/1000")).unwrap_or_else(|e| panic!("{e}"));
    assert!(mission.spec.tasks.len() > 20_000, "{}", mission.spec.tasks.len());
}

/// Words that a mission file is made of, so that arbitrary texts get past the first line.
fn scrap() -> impl Strategy<Value = String> {
    let words = [
        "[mission]",
        "[agents.a]",
        "[[tasks]]",
        "[limits]",
        "[roles.r]",
        "name = \"m\"",
        "role = \"write\"",
        "command = [\"true\"]",
        "isolation = 1",
        "isolation = \"none\"",
        "env = { A = \"b\" }",
        "id = \"t\"",
        "after = [\"t\"]",
        "assign = \"a\"",
        "workspace = \"tree\"",
        "data = { x = [1, 2.5, \"é\"] }",
        "secrets = { S = { env = \"S\" } }",
        "restart = \"always\"",
        "permissions = []",
        "grace = \"1h\"",
    ];
    prop_oneof![
        6 => prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => "[a-z_]{1,8} = [\\[\\]{}\"0-9a-z.,= ]{0,16}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(lines in prop::collection::vec(scrap(), 0..24)) {
        check_arbitrary(lines.join("\n").as_bytes())?;
    }

    #[test]
    fn no_bytes_make_the_loader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_arbitrary(&bytes)?;
    }
}

fn check_arbitrary(bytes: &[u8]) -> Result<(), TestCaseError> {
    thread_local! {
        static SCENE: Scene = Scene::new();
    }
    SCENE.with(|scene| {
        let file = scene.root.join("mission.toml");
        fs::write(&file, bytes).unwrap();
        match config::load_for(&file, &scene.host("/run/user/1000")) {
            Ok(mission) => prop_assert!(mission.warnings.iter().all(|problem| problem.warning)),
            Err(ConfigError::Invalid { problems }) => {
                prop_assert!(problems.iter().any(|problem| !problem.warning), "an error says why");
                let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
                prop_assert!(
                    problems.iter().all(|p| p.line >= 1 && p.line <= lines && p.column >= 1)
                );
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
        Ok(())
    })
}
