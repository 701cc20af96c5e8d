//! Values that are one of a few words, and ids.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::problem::nearest;
use super::read::{Findings, Read, Value, leaf, wrong_type};
use super::{Durability, WorkspaceMode};
use crate::core::spec::{Mode, Permission, ReadyWhen, RestartOn, Until};
use crate::ids::IdError;
use crate::policy::sandbox::Network;
use crate::policy::{Enforcement, Grant, LandlockMode, Level};

/// An enum whose values are written as words.
pub(super) trait Words: Copy + 'static {
    /// Each word and what it means.
    const WORDS: &'static [(&'static str, Self)];
}

/// A value written as one of the words of `T`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<T>(pub(super) T);

impl<T: Words> Read for Word<T> {
    const EXPECTED: &'static str = "a string";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let DeValue::String(text) = value.get_ref() else {
            wrong_type::<Self>(value, path, findings);
            return None;
        };
        let found =
            T::WORDS.iter().find(|(word, _)| word == text).map(|(_, meaning)| Word(*meaning));
        if found.is_none() {
            let words = || T::WORDS.iter().map(|(word, _)| *word);
            let help = nearest(text, words()).map_or_else(
                || format!("it is one of {}", quoted(words())),
                |meant| format!("did you mean \"{meant}\"?"),
            );
            findings.error_with_help(
                &value.span(),
                format!("{} can't be \"{text}\"", leaf(path)),
                help,
            );
        }
        found
    }
}

fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

impl<T: Words> JsonSchema for Word<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<T>().into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        json_schema!({ "type": "string", "enum": words })
    }
}

impl Words for Mode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("service", Mode::Service), ("task", Mode::Task)];
}
impl Words for Until {
    const WORDS: &'static [(&'static str, Self)] =
        &[("settled", Until::Settled), ("stopped", Until::Stopped)];
}
impl Words for ReadyWhen {
    const WORDS: &'static [(&'static str, Self)] =
        &[("exec", ReadyWhen::Exec), ("hello", ReadyWhen::Hello)];
}
impl Words for RestartOn {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("never", RestartOn::Never),
        ("on-failure", RestartOn::OnFailure),
        ("failure", RestartOn::OnFailure),
        ("always", RestartOn::Always),
    ];
}
impl Words for Permission {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("read", Permission::Read),
        ("write", Permission::Write),
        ("execute", Permission::Execute),
        ("handoff", Permission::Handoff),
        ("audit", Permission::Audit),
        ("manage_roles", Permission::ManageRoles),
    ];
}
impl Words for Durability {
    const WORDS: &'static [(&'static str, Self)] =
        &[("disk", Durability::Disk), ("process", Durability::Process)];
}
impl Words for WorkspaceMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("shared", WorkspaceMode::Shared), ("private", WorkspaceMode::Private)];
}
impl Words for LandlockMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("files", LandlockMode::Files), ("scope", LandlockMode::ScopeOnly)];
}

impl Words for Enforcement {
    const WORDS: &'static [(&'static str, Self)] =
        &[("required", Enforcement::Required), ("best-effort", Enforcement::BestEffort)];
}
impl Words for Grant {
    const WORDS: &'static [(&'static str, Self)] = &Grant::ALL;
}
impl Words for Network {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Network::None), ("host", Network::Host)];
}

/// An id of `ids`, checked by its own rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id<T>(pub(super) T);

impl<T: FromStr<Err = IdError>> Read for Id<T> {
    const EXPECTED: &'static str = "a string";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let DeValue::String(text) = value.get_ref() else {
            wrong_type::<Self>(value, path, findings);
            return None;
        };
        match text.parse() {
            Ok(id) => Some(Id(id)),
            Err(error) => {
                findings.error(&value.span(), error.to_string());
                None
            }
        }
    }
}

impl<T> JsonSchema for Id<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<T>().into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// All four levels are words of the language; which of them this version grants is decided later.
impl Read for Level {
    const EXPECTED: &'static str = "\"none\", 1, 2 or 3";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let (read, text) = match value.get_ref() {
            DeValue::String(text) if text == "none" => (Some(Level::None), text.to_string()),
            DeValue::String(text) => (None, format!("\"{text}\"")),
            DeValue::Integer(number) => {
                let level = u8::from_str_radix(number.as_str(), number.radix()).ok();
                let level = level.and_then(Level::from_number);
                (level.filter(|level| *level != Level::None), number.to_string())
            }
            DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                wrong_type::<Self>(value, path, findings);
                return None;
            }
        };
        if read.is_none() {
            let message = format!("{} can't be {text}: it is {}", leaf(path), Self::EXPECTED);
            findings.error(&value.span(), message);
        }
        read
    }
}

impl JsonSchema for Level {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Level".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["none", 1, 2, 3] })
    }
}
