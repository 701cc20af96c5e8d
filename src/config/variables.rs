//! The variables of an agent's environment: `env`, `env_pass` and `secrets`, each name once.

use std::collections::BTreeMap;

use super::SecretSource;
use super::raw;
use super::read::{At, Findings};
use super::scene::Scene;

/// What an agent's environment has beside what missiond sets.
#[derive(Default)]
pub(super) struct Variables {
    pub(super) env: BTreeMap<String, String>,
    pub(super) pass: Vec<String>,
    pub(super) secrets: BTreeMap<String, SecretSource>,
}

/// Collects them all; a name that is wrong is reported and left to stand.
pub(super) fn variables(raw: &raw::Agent, scene: &Scene<'_>, findings: &mut Findings) -> Variables {
    let mut all = Variables::default();
    let mut seen: BTreeMap<String, &'static str> = BTreeMap::new();
    let mut new = |name: &At<String>, place: &'static str, findings: &mut Findings| {
        let text = name.value.as_str();
        let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !text.starts_with(begins) || !text.chars().all(|c| begins(c) || c.is_ascii_digit()) {
            findings.error(&name.span, format!("\"{text}\" can't be the name of a variable"));
        } else if text.starts_with("MISSION_") {
            findings.error_with_help(
                &name.span,
                format!("`{text}` is reserved: missiond sets all MISSION_ variables itself"),
                "choose another name",
            );
        } else if let Some(before) = seen.insert(text.to_owned(), place) {
            let message = format!("variable `{text}` is in `{place}` and in `{before}`");
            findings.error(&name.span, message);
        }
    };
    for (name, value) in raw.env.iter().flat_map(|named| &named.0) {
        new(name, "env", findings);
        if let Some(value) = value {
            all.env.insert(name.value.clone(), value.0.clone());
        }
    }
    for name in raw.env_pass.iter().flatten() {
        new(name, "env_pass", findings);
        all.pass.push(name.value.clone());
    }
    for (name, entry) in raw.secrets.iter().flat_map(|named| &named.0) {
        new(name, "secrets", findings);
        let Some(At { value: entry, span }) = entry else { continue };
        let source = match (&entry.0.env, &entry.0.file) {
            (Some(variable), None) if variable.value.is_empty() => None,
            (Some(variable), None) => Some(SecretSource::Env(variable.value.clone())),
            (None, Some(file)) => Some(SecretSource::File(scene.base.join(&file.value))),
            (Some(_), Some(_)) | (None, None) => None,
        };
        match source {
            Some(source) => {
                all.secrets.insert(name.value.clone(), source);
            }
            None => findings.error_with_help(
                span,
                format!("secret `{}` needs exactly one source", name.value),
                "write { env = \"NAME\" } or { file = \"PATH\" }",
            ),
        }
    }
    all
}
