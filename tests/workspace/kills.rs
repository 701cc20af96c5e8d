//! Row 44 for placeholders: whoever makes or removes them is killed at each of its system calls, and
//! the next one finds the workspace as a person left it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use missiond::workspace::{Found, Registry, Scanner, Wanted};

const DIR: &str = "MISSIOND_TEST_PLACEHOLDERS";
/// The calls that change something, or come right after one that did.
const CALLS: [&str; 12] = [
    "openat",
    "openat2",
    "mkdir",
    "mkdirat",
    "write",
    "fsync",
    "statx",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "flock",
];
/// More calls than the script makes.
const MANY: u32 = 400;

fn found(dir: &Path) -> Found {
    let names = vec![".mcp.json".to_owned(), ".vscode/".to_owned(), "mine".to_owned()];
    let wanted = Wanted { trees: vec![dir.join("w")], names, ..Wanted::default() };
    Scanner::default().search(&wanted, true).unwrap()
}

/// Two missions with an agent each, one after the other and at the same time.
#[test]
fn script() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let (one, two) = (Registry::open(&dir).unwrap(), Registry::open(&dir).unwrap());
    let first = one.acquire(&mut found(&dir), &dir.join("lock")).unwrap().unwrap();
    let second = two.acquire(&mut found(&dir), &dir.join("lock")).unwrap().unwrap();
    one.release(first).unwrap();
    two.release(second).unwrap();
}

fn tree(dir: &Path, base: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(tree(&path, base));
        }
        let text = if path.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        all.insert(format!("{} {text:?}", path.strip_prefix(base).unwrap().display()));
    }
    all
}

/// Runs the script, killed at the n-th `call` of a thread; whether it was.
fn killed(dir: &Path, call: &str, n: u32) -> bool {
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={n}")])
        .arg(std::env::current_exe().unwrap())
        .args(["kills::script", "--exact", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success() || status.signal() == Some(9), "{call} {n}: {status}");
    !status.success()
}

#[test]
fn a_kill_at_any_moment_leaves_nothing_and_takes_nothing_of_a_persons() {
    let test = "a_kill_at_any_moment_leaves_nothing_and_takes_nothing_of_a_persons";
    let traces = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !traces.is_ok_and(|status| status.success()) {
        let required = std::env::var("MISSIOND_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name == "strace"), "{test} needs strace");
        println!("SKIP {test}: no strace, or it may not trace");
        return;
    }
    let (mut kills, mut with_litter) = (0, 0);
    for (call, person) in CALLS.into_iter().flat_map(|call| [(call, false), (call, true)]) {
        for n in 1..=MANY {
            assert!(n < MANY, "the script makes too many calls of {call}");
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().canonicalize().unwrap();
            fs::create_dir_all(dir.join("w/.git/objects")).unwrap();
            fs::write(dir.join("w/.git/config"), "").unwrap();
            let mut before = tree(&dir.join("w"), &dir);
            let was_killed = killed(&dir, call, n);
            kills += u32::from(was_killed);
            with_litter += u32::from(tree(&dir.join("w"), &dir) != before);
            // A person makes what looks just like one of ours, wherever there is room for it.
            if person {
                for (name, text) in [(".mcp.json", "{}\n"), (".git/commondir", ".\n"), ("mine", "")]
                {
                    let path = dir.join("w").join(name);
                    let theirs = path.exists();
                    // Removed first: what is there under this name now is theirs.
                    if theirs && n % 2 == 0 {
                        fs::rename(&path, dir.join("aside")).unwrap();
                    }
                    if !theirs || n % 2 == 0 {
                        fs::write(&path, text).unwrap();
                        before.insert(format!("w/{name} {text:?}"));
                    }
                }
            }
            let next = Registry::open(&dir).unwrap();
            let cleaned = next.clean(None).unwrap();
            assert_eq!(cleaned.failed, [""; 0], "{call} {n}");
            assert_eq!(tree(&dir.join("w"), &dir), before, "{call} {n}: {cleaned:?}");
            assert_eq!(
                next.clean(None).unwrap(),
                Default::default(),
                "{call} {n}: nothing is left to do"
            );
            drop(next);
            let records = tree(&dir.join(".placeholders"), &dir);
            let expected = ["holders", "users", "lock", "journal"];
            let own = |record: &String| {
                let rest = record.strip_prefix(".placeholders/").unwrap();
                expected.iter().any(|name| rest.starts_with(name) && !rest.contains('/'))
            };
            assert!(records.iter().all(own), "{call} {n}: {records:?}");
            if !was_killed {
                break;
            }
        }
    }
    println!("{kills} kills, {with_litter} of them with something left to clean");
    assert!(kills >= 400 && with_litter > 100, "{kills} kills, {with_litter} with litter");
}
