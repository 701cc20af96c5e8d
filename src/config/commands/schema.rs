//! `missiond schema`: the JSON Schema of mission files, for editors.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

use super::CommandError;
use crate::config::raw;

/// The schema as JSON, draft 7, which editors of TOML understand.
///
/// # Errors
/// It can't be written as JSON.
pub fn schema() -> Result<String, CommandError> {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<raw::File>();
    schema.insert("title".into(), "missiond mission file".into());
    RecursiveTransform(without_null).transform(&mut schema);
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}

/// TOML has no null: a key that may be missing is just not required.
fn without_null(schema: &mut Schema) {
    let null = Value::from("null");
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| *name != null);
        if let [only] = &types[..] {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    let alternatives = match schema.get("anyOf") {
        Some(Value::Array(list)) => list.clone(),
        Some(_) | None => return,
    };
    let kept: Vec<Value> =
        alternatives.into_iter().filter(|one| one.get("type") != Some(&null)).collect();
    if let [Value::Object(only)] = &kept[..] {
        schema.remove("anyOf");
        for (key, value) in only {
            schema.ensure_object().entry(key.clone()).or_insert_with(|| value.clone());
        }
    } else {
        schema.insert("anyOf".into(), kept.into());
    }
}
