//! From TOML to typed sections, with every problem reported and not only the first.
//!
//! A section is declared once, with [`section!`]: the struct, its reader and its JSON Schema come
//! from the same words, so that they can't differ. A value that can't be read leaves `None` and a
//! finding; what doesn't depend on it is still checked.

use std::borrow::Cow;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Finding, nearest};

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Where findings are collected while the file is read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    /// Parts of the file that no message may show.
    pub(super) masked: Vec<Range<usize>>,
}

impl Findings {
    pub(super) fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.push(span, message.into(), None, false);
    }

    pub(super) fn error_with_help(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(span, message.into(), Some(help.into()), false);
    }

    pub(super) fn warning(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(span, message.into(), Some(help.into()), true);
    }

    fn push(&mut self, span: &Range<usize>, message: String, help: Option<String>, warning: bool) {
        self.list.push(Finding { span: span.clone(), message, help, warning });
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// What can be read from a TOML value.
pub(super) trait Read: Sized {
    /// With article, as in `must be a string`.
    const EXPECTED: &'static str;

    /// Reads it, or reports why not. `path` leads to the value: `agents.writer.role`, `tasks[].id`.
    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self>;

    /// Whether a value of the wrong type may be a secret by mistake.
    const CONFIDENTIAL: bool = false;

    /// Marks what no message may show, also where the value turns out to be wrong.
    fn mask(_value: &Value<'_>, _findings: &mut Findings) {}
}

/// A value as messages call it: `` `role` ``.
pub(super) fn leaf(path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or(path);
    last.strip_suffix("[]")
        .map_or_else(|| format!("`{last}`"), |list| format!("an item of `{list}`"))
}

/// A table as messages call it: `[agents.writer]`.
fn table_name(path: &str) -> String {
    // A policy file has its own root.
    let path = match path.strip_prefix("policy") {
        Some("") => return "a policy".into(),
        Some(rest) => rest.strip_prefix('.').unwrap_or(path),
        None => path,
    };
    match path.strip_suffix("[]") {
        Some(list) => format!("[[{list}]]"),
        None if path.is_empty() => "a mission file".into(),
        None => format!("[{}]", path.replace("[]", "")),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Reports a bound of 0, which would let nothing through.
pub(super) fn at_least_one(key: &str, value: u64, span: &Range<usize>, findings: &mut Findings) {
    if value == 0 {
        findings.error(span, format!("`{key}` must be at least 1"));
    }
}

/// Reports a value of the wrong type.
pub(super) fn wrong_type<T: Read>(value: &Value<'_>, path: &str, findings: &mut Findings) {
    let message =
        format!("{} must be {}, not {}", leaf(path), T::EXPECTED, type_of(value.get_ref()));
    findings.error(&value.span(), message);
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<T: Read> Read for At<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const CONFIDENTIAL: bool = T::CONFIDENTIAL;

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        T::read(value, path, findings).map(|read| At { value: read, span: value.span() })
    }

    fn mask(value: &Value<'_>, findings: &mut Findings) {
        T::mask(value, findings);
    }
}

impl Read for String {
    const EXPECTED: &'static str = "a string";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let DeValue::String(text) = value.get_ref() else {
            wrong_type::<Self>(value, path, findings);
            return None;
        };
        if text.contains('\0') {
            findings.error(&value.span(), format!("{} holds a NUL character", leaf(path)));
            return None;
        }
        Some(text.clone().into_owned())
    }
}

impl Read for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let DeValue::Boolean(read) = value.get_ref() else {
            wrong_type::<Self>(value, path, findings);
            return None;
        };
        Some(*read)
    }
}

impl Read for u64 {
    const EXPECTED: &'static str = "a whole number";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let DeValue::Integer(number) = value.get_ref() else {
            wrong_type::<Self>(value, path, findings);
            return None;
        };
        let read = i64::from_str_radix(number.as_str(), number.radix());
        let read = read.ok().and_then(|number| u64::try_from(number).ok());
        if read.is_none() {
            findings.error(&value.span(), format!("{} must be from 0 to {}", leaf(path), i64::MAX));
        }
        read
    }
}

impl Read for u32 {
    const EXPECTED: &'static str = "a whole number";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let number = u64::read(value, path, findings)?;
        let read = u32::try_from(number);
        if read.is_err() {
            findings.error(&value.span(), format!("{} must be from 0 to {}", leaf(path), u32::MAX));
        }
        read.ok()
    }
}

impl<T: Read> Read for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let DeValue::Array(items) = value.get_ref() else {
            let message =
                format!("{} must be a list, not {}", leaf(path), type_of(value.get_ref()));
            let help = if value.get_ref().is_table() {
                format!("a list of tables is written [[{path}]]")
            } else {
                "a list is written in brackets: [\"one\", \"two\"]".into()
            };
            findings.error_with_help(&value.span(), message, help);
            return None;
        };
        let path = format!("{path}[]");
        Some(items.iter().filter_map(|item| T::read(item, &path, findings)).collect())
    }
}

/// Named entries in the order of the file. An entry that couldn't be read keeps its name, so that
/// what refers to it isn't reported as well.
#[derive(Debug, Clone)]
pub(super) struct Named<T>(pub(super) Vec<(At<String>, Option<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("NamedOf{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let entry = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": entry })
    }
}

impl<T: Read> Read for Named<T> {
    const EXPECTED: &'static str = "a table";

    fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type::<Self>(value, path, findings);
            return None;
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let read = entries.into_iter().map(|(key, value)| {
            let name = At { value: key.get_ref().clone().into_owned(), span: key.span() };
            let entry = T::read(value, &join(path, &name.value), findings);
            (name, entry)
        });
        Some(Named(read.collect()))
    }

    fn mask(value: &Value<'_>, findings: &mut Findings) {
        if let DeValue::Table(table) = value.get_ref() {
            table.values().for_each(|entry| T::mask(entry, findings));
        } else if T::CONFIDENTIAL {
            findings.masked.push(value.span());
        }
    }
}

/// The keys of one table while its section is read.
pub(super) struct Fields<'a, 'i> {
    table: &'a DeTable<'i>,
    span: Range<usize>,
    path: &'a str,
    /// Keys that are there in another spelling: nobody is told that they are missing.
    misspelt: Vec<&'static str>,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Opens a table; reports keys that it doesn't know.
    pub(super) fn open(
        table: &'a DeTable<'i>,
        span: Range<usize>,
        path: &'a str,
        known: &[&'static str],
        findings: &mut Findings,
    ) -> Self {
        let mut misspelt = Vec::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let place = table_name(path);
            let meant = nearest(name, known.iter().copied()).or_else(|| synonym(name, known));
            misspelt.extend(meant);
            if confidential(name) || meant.is_some_and(confidential) {
                mask_leaves(value, findings);
            }
            let help = meant.map_or_else(
                || format!("{place} knows {}", known.join(", ")),
                |meant| format!("did you mean `{meant}`?"),
            );
            findings.error_with_help(&key.span(), format!("unknown key `{name}` in {place}"), help);
        }
        Fields { table, span, path, misspelt }
    }

    /// The value of a key that may be missing.
    pub(super) fn optional<T: Read>(&self, key: &str, findings: &mut Findings) -> Option<T> {
        let value = self.table.get(key)?;
        T::mask(value, findings);
        T::read(value, &join(self.path, key), findings)
    }

    /// The value of a key that must be there.
    pub(super) fn required<T: Read>(&self, key: &str, findings: &mut Findings) -> Option<T> {
        if !self.table.contains_key(key) && !self.misspelt.contains(&key) {
            findings.error_with_help(
                &self.span,
                format!("{} has no `{key}`", table_name(self.path)),
                format!("add `{key}`, {}", T::EXPECTED),
            );
        }
        self.optional(key, findings)
    }
}

/// Whether what stands under a key that nobody knows may be a secret.
fn confidential(key: &str) -> bool {
    let key = key.to_lowercase();
    ["env", "secret", "token", "pass", "key", "credential"].iter().any(|word| key.contains(word))
}

fn mask_leaves(value: &Value<'_>, findings: &mut Findings) {
    match value.get_ref() {
        DeValue::Table(table) => table.values().for_each(|entry| mask_leaves(entry, findings)),
        DeValue::Array(items) => items.iter().for_each(|item| mask_leaves(item, findings)),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => findings.masked.push(value.span()),
    }
}

/// What people write who know other tools.
fn synonym(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let meant = match name {
        "cmd" | "exec" | "program" | "run" => "command",
        "depends_on" | "depends" | "requires" | "deps" => "after",
        "deadline" => "timeout",
        "environment" | "envs" => "env",
        "workdir" | "working_directory" | "dir" => "cwd",
        "owner" | "agent" | "assignee" => "assign",
        "level" | "sandbox" => "isolation",
        "retries" | "attempts" => "max_attempts",
        "task" => "tasks",
        "agent_limits" | "resources" => "limits",
        "open_files" => "nofile",
        "file_size" => "fsize",
        _ => return None,
    };
    known.iter().copied().find(|known| *known == meant)
}

/// Declares a section: its struct, how it is read, and its schema.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $kind:ident $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields, transform = Self::require)]
        pub(super) struct $name {
            $($(#[$doc])* pub(super) $field: Option<$ty>,)*
        }

        impl $name {
            /// Every key, and whether it must be there.
            const KEYS: &'static [(&'static str, bool)] =
                &[$((stringify!($field), $crate::config::read::section!(@ $kind))),*];

            fn require(schema: &mut schemars::Schema) {
                let names = Self::KEYS.iter().filter(|(_, required)| *required);
                let names: Vec<&str> = names.map(|(name, _)| *name).collect();
                if !names.is_empty() {
                    schema.insert("required".into(), names.into());
                }
            }

            /// Reads what is there, and reports the rest.
            pub(super) fn of(
                table: &toml::de::DeTable<'_>,
                span: std::ops::Range<usize>,
                path: &str,
                findings: &mut $crate::config::read::Findings,
            ) -> Self {
                const NAMES: &[&str] = &[$(stringify!($field)),*];
                let fields = $crate::config::read::Fields::open(table, span, path, NAMES, findings);
                $name { $($field: fields.$kind(stringify!($field), findings),)* }
            }
        }

        impl $crate::config::read::Read for $name {
            const EXPECTED: &'static str = "a table";

            fn read(
                value: &$crate::config::read::Value<'_>,
                path: &str,
                findings: &mut $crate::config::read::Findings,
            ) -> Option<Self> {
                let toml::de::DeValue::Table(table) = value.get_ref() else {
                    $crate::config::read::wrong_type::<Self>(value, path, findings);
                    return None;
                };
                Some(Self::of(table, value.span(), path, findings))
            }
        }
    };
    (@ required) => { true };
    (@ optional) => { false };
}
pub(super) use section;
