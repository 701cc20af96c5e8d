//! The digest of what decides how an agent's process runs. Where it changes, the agent is restarted.
//!
//! It enters the log, so no secret enters it: of `secrets` it has names and sources only.

use sha2::{Digest, Sha256};

use super::{AgentLaunch, SecretSource, WorkspaceMode};

/// SHA-256, as 64 hexadecimal digits, over length-prefixed fields in a fixed order.
pub(super) fn of(launch: &AgentLaunch) -> String {
    // Complete on purpose: a new field must be put in here, or left out with a reason.
    let AgentLaunch {
        command,
        cwd,
        level,
        policy: _, // a name; what it means is in the other fields
        policy_files: _,
        workspace_write,
        workspace_mode,
        enforcement,
        env,
        env_pass,
        environment,
        secrets,
        landlock,
        read,
        write,
        hidden,
        protected,
        network,
        grants,
        filter,
        limits,
        tmp_bytes,
        log,
        asked: _, // lines of files
    } = launch;
    let mut hash = Fields(Sha256::new());
    hash.field("missiond launch 2");
    hash.list("command", command);
    hash.field(&cwd.to_string_lossy());
    hash.field(&format!("{level} {workspace_write} {enforcement:?} {landlock:?} {grants:?}"));
    hash.field(&format!("{limits:?} {log:?}"));
    hash.field(&format!("{network:?} {tmp_bytes:?} {filter:?}"));
    if *workspace_mode != WorkspaceMode::Shared {
        hash.field(&format!("{workspace_mode:?}"));
    }
    hash.list("env", env.iter().flat_map(|(name, value)| [name, value]));
    hash.list("env_pass", env_pass);
    hash.list(
        "secrets",
        secrets.iter().flat_map(|(name, source)| {
            let source = match source {
                SecretSource::Env(variable) => format!("env {variable}"),
                SecretSource::File(path) => format!("file {}", path.to_string_lossy()),
            };
            [name.clone(), source]
        }),
    );
    hash.list("read", read.iter().map(|path| path.to_string_lossy()));
    hash.list("write", write.iter().map(|path| path.to_string_lossy()));
    hash.list("hidden", hidden.iter().map(|path| path.to_string_lossy()));
    hash.list("protected", protected);
    let names = environment.as_deref();
    hash.list(if names.is_some() { "environment" } else { "standard" }, names.unwrap_or_default());
    hash.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Fields(Sha256);

impl Fields {
    fn field(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    fn list<T: AsRef<str>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        self.field(name);
        let mut count = 0_u64;
        for item in items {
            self.field(item.as_ref());
            count += 1;
        }
        self.0.update(count.to_be_bytes());
    }
}
