//! Why an agent may have been refused something: its own words, held against the plan of its last start.
//!
//! ```text
//! each start --> log/plan.json         its output --> log/stderr.log, log/stdout.log
//!                     `-----------> suspicions() <----------'
//! ```
//!
//! A guess by nature: what a program tried and didn't speak of isn't known, and a path that it names
//! may be another one than it tried. So only words that the plan bears out are told.

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::policy::ProcessPlan;
use crate::policy::why::{self, Blame, Remedy, Rule, Symptom};

/// Name of the file beside an agent's logs.
const FILE: &str = "plan.json";
/// So much of the end of each stream is looked at, bytes.
const MOST: u64 = 256 * 1024;

/// What one start of an agent was given.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    cwd: PathBuf,
    home: PathBuf,
    plan: ProcessPlan,
}

/// One thing that the policy may have refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suspicion {
    /// What the agent said.
    pub line: String,
    /// The rule that fits.
    pub rule: String,
    /// The line for the agent's section of mission.toml that would allow it, if one would.
    pub add: Option<String>,
}

/// Keeps a start's plan beside the agent's logs, in a directory that the agent can't write. Without its
/// seccomp filter, which is large and says nothing about words.
///
/// # Errors
/// The file can't be written.
pub fn keep_plan(log: &Path, plan: &ProcessPlan, cwd: &Path, home: &Path) -> io::Result<()> {
    let plan = ProcessPlan { seccomp: Vec::new(), ..plan.clone() };
    let start = Start { cwd: cwd.to_owned(), home: home.to_owned(), plan };
    let new = log.join("plan.json.new");
    fs::write(&new, serde_json::to_vec(&start)?)?;
    fs::rename(&new, log.join(FILE))
}

/// What in the output of an agent speaks of a refusal by its policy; `None` if it was never started.
///
/// # Errors
/// The plan or the logs can't be read.
pub fn suspicions(log: &Path) -> io::Result<Option<Vec<Suspicion>>> {
    let text = match fs::read(log.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let start: Start = serde_json::from_slice(&text)?;
    let mut found: Vec<Suspicion> = Vec::new();
    for stream in ["stderr.log", "stdout.log"] {
        for mention in why::mentions(&end_of(&log.join(stream))?) {
            for blame in blames(&start, &mention) {
                let (rule, add) = (blame.rule.to_string(), blame.remedy.line());
                let suspicion = Suspicion { line: mention.line.clone(), rule, add };
                if !found.contains(&suspicion) {
                    found.push(suspicion);
                }
            }
        }
    }
    Ok(Some(found))
}

fn blames(start: &Start, mention: &why::Mention) -> Vec<Blame> {
    let plan = &start.plan;
    let limited = |name, kind| {
        let is = plan.rlimits.iter().any(|limit| limit.kind == kind);
        is.then_some(Blame { rule: Rule::Limit(name), remedy: Remedy::Limit(name) })
    };
    use crate::policy::RlimitKind::{Data, FileSize, Nofile, Nproc};
    match mention.symptom {
        Symptom::Path(errno) => {
            let blame = |path: &PathBuf| {
                let path = match path.strip_prefix("~") {
                    Ok(rest) => start.home.join(rest),
                    Err(_) => start.cwd.join(path),
                };
                let outside = fs::symlink_metadata(&path).is_ok();
                why::path(plan, &path, mention.attempt, errno, outside)
            };
            mention.paths.iter().filter_map(blame).collect()
        }
        Symptom::Network => why::network(plan).into_iter().collect(),
        Symptom::Processes => limited("pids", Nproc).into_iter().collect(),
        Symptom::Memory => limited("memory", Data).into_iter().collect(),
        Symptom::Files => limited("nofile", Nofile).into_iter().collect(),
        Symptom::FileSize => limited("fsize", FileSize).into_iter().collect(),
        // Any of a hundred calls, or the kernel's own rules: nothing that could be told from it.
        Symptom::Call => Vec::new(),
    }
}

fn end_of(path: &Path) -> io::Result<String> {
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        other => other?,
    };
    let length = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sandbox::{Access, Network, Node, SandboxPlan, Trust};
    use crate::policy::{HostFacts, Level, PlanRequest, plan};

    fn kept(log: &Path) {
        let host = HostFacts {
            landlock_abi: 0,
            seccomp: false,
            uid_tasks: 0,
            nofile_soft: 1024,
            root: false,
            system: Vec::new(),
            fresh_proc: true,
            cgroup: false,
        };
        let request = PlanRequest { level: Level::None, ..PlanRequest::default() };
        let bind = |path: &str, access| Node::Bind {
            source: path.into(),
            target: path.into(),
            access,
            trust: Trust::None,
        };
        let plan = ProcessPlan {
            level: Level::Namespaces,
            sandbox: Some(SandboxPlan {
                network: Network::None,
                hostname: "x".into(),
                user_namespaces: 0,
                inotify_instances: 1,
                tree: vec![bind("/usr", Access::Read), bind("/w", Access::Write)],
            }),
            ..plan(&request, &host).unwrap()
        };
        keep_plan(log, &plan, Path::new("/w"), Path::new("/w/home")).unwrap();
    }

    #[test]
    fn only_words_that_the_plan_bears_out_are_told() {
        let log = tempfile::tempdir().unwrap();
        assert_eq!(suspicions(log.path()).unwrap(), None, "never started");
        kept(log.path());
        assert_eq!(suspicions(log.path()).unwrap(), Some(Vec::new()), "said nothing");
        let said = "cat: /etc/hostname: No such file or directory\n\
                    cat: /no/such/thing: No such file or directory\n\
                    cat: x: Permission denied\ntouch: cannot touch '/usr/x': Read-only file system\n\
                    curl: (6) Could not resolve host: example.com\n";
        fs::write(log.path().join("stderr.log"), said).unwrap();
        let found = suspicions(log.path()).unwrap().unwrap();
        let told: Vec<_> = found.iter().map(|s| (s.rule.as_str(), s.add.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("not in the sandbox", Some("read = [\"/etc/hostname\"]")),
                ("/usr is read-only", None),
                ("there is no network", Some("network = \"host\"")),
            ]
        );
    }
}
