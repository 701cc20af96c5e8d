//! Secrets: looked up when an agent starts, given to its environment, and shown nowhere.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::AgentLaunch;

/// The largest secret, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Where the value of a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A variable of the daemon's environment.
    Env(String),
    /// A file, absolute; its content without the last line break.
    File(PathBuf),
}

/// Why a secret can't be had. Names the key and its source, never a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable isn't set.
    #[error("secret {name}: environment variable {variable} is not set")]
    Unset {
        /// The secret.
        name: String,
        /// The variable.
        variable: String,
    },
    /// The file can't be read.
    #[error("secret {name}: cannot read {}", file.display())]
    Unreadable {
        /// The secret.
        name: String,
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The value can't stand in an environment.
    #[error("secret {name}: its value {why}")]
    Unusable {
        /// The secret.
        name: String,
        /// What is wrong, without the value.
        why: &'static str,
    },
}

/// A resolved environment variable of an agent: its name and its value. No `Debug`, on purpose.
pub type Variable = (String, String);

/// Resolves what an agent's environment has beside its `env`: the passed variables that are set,
/// and all secrets. `variable` looks a name up in the daemon's environment. Blocks on files.
///
/// # Errors
/// A secret isn't there or can't stand in an environment.
pub fn resolve(
    launch: &AgentLaunch,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Variable>, SecretError> {
    let passed = launch.env_pass.iter().filter_map(|name| {
        let value = variable(name)?.into_string().ok()?;
        Some((name.clone(), value))
    });
    let mut resolved: Vec<Variable> = passed.collect();
    for (name, source) in &launch.secrets {
        let unusable = |why| SecretError::Unusable { name: name.clone(), why };
        let value = match source {
            SecretSource::Env(variable_name) => variable(variable_name)
                .ok_or_else(|| SecretError::Unset {
                    name: name.clone(),
                    variable: variable_name.clone(),
                })?
                .into_string()
                .map_err(|_| unusable("is not UTF-8"))?,
            SecretSource::File(file) => {
                let bytes = read(file).map_err(|source| SecretError::Unreadable {
                    name: name.clone(),
                    file: file.clone(),
                    source,
                })?;
                if bytes.len() as u64 > MAX_SECRET {
                    return Err(unusable("has more than 64 KiB"));
                }
                let mut text = String::from_utf8(bytes).map_err(|_| unusable("is not UTF-8"))?;
                if text.ends_with('\n') {
                    text.pop();
                    if text.ends_with('\r') {
                        text.pop();
                    }
                }
                text
            }
        };
        if value.contains('\0') {
            return Err(unusable("holds a NUL byte"));
        }
        resolved.push((name.clone(), value));
    }
    Ok(resolved)
}

fn read(file: &std::path::Path) -> io::Result<Vec<u8>> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    opened.take(MAX_SECRET + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
