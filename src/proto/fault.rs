//! Where in the parameters something is wrong, said so that a person finds it:
//! ``params.files[2]: invalid type: integer `3`, expected a string``.

/// The longest fault, in characters: it may quote what the caller sent.
const MAX_CHARS: usize = 400;

/// Renders a parse error of the text `json`, which is called `root` (`params`).
#[must_use]
pub fn describe(root: &str, json: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.rfind(" at line ").map_or(&*message, |end| &message[..end]);
    let path = path_at(root, json, error.column());
    bounded(&format!("{path}: {message}"))
}

/// A text from outside, cut and with control characters escaped.
#[must_use]
pub fn bounded(text: &str) -> String {
    let escape = |c: char| -> Box<dyn Iterator<Item = char>> {
        if c.is_control() { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
    };
    let mut shown: String = text.chars().flat_map(escape).take(MAX_CHARS).collect();
    if shown.len() < text.len() && shown.chars().count() == MAX_CHARS {
        shown.push_str("...");
    }
    shown
}

enum Level {
    Object { key: Option<String>, is_at_key: bool },
    Array { index: usize },
}

/// The path to what the first `offset` bytes of `json` end in.
fn path_at(root: &str, json: &str, offset: usize) -> String {
    let bytes = json.as_bytes();
    let end = offset.min(bytes.len());
    let mut levels: Vec<Level> = Vec::new();
    let mut at = 0;
    while at < end {
        match (bytes[at], levels.last_mut()) {
            (b'"', top) => {
                let start = at + 1;
                at = start;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                if let Some(Level::Object { key, is_at_key: true }) = top {
                    *key = json.get(start..at.min(bytes.len())).map(str::to_owned);
                }
            }
            (b'{', _) => levels.push(Level::Object { key: None, is_at_key: true }),
            (b'[', _) => levels.push(Level::Array { index: 0 }),
            (b'}' | b']', _) => {
                levels.pop();
            }
            (b':', Some(Level::Object { is_at_key, .. })) => *is_at_key = false,
            (b',', Some(Level::Object { is_at_key, .. })) => *is_at_key = true,
            (b',', Some(Level::Array { index })) => *index += 1,
            _ => {}
        }
        at += 1;
    }
    let mut path = root.to_owned();
    for level in &levels {
        match level {
            Level::Object { key: Some(key), .. } => {
                path.push('.');
                path.extend(key.chars().take(80));
            }
            Level::Object { key: None, .. } => {}
            Level::Array { index } => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::request::{Publish, TaskUpdate};
    use crate::proto::wire::SaveCheckpoint;
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    fn fault<T: DeserializeOwned + std::fmt::Debug>(json: &str) -> String {
        describe("params", json, &serde_json::from_str::<T>(json).unwrap_err())
    }

    #[test]
    fn a_fault_names_the_field() {
        assert_eq!(
            fault::<TaskUpdate>(r#"{"task":"t-1", "epoch":3, "progres":5}"#),
            "params.progres: unknown field `progres`, expected one of `task`, `epoch`, `progress`, `note`"
        );
        assert_eq!(fault::<TaskUpdate>(r#"{"task":"t-1"}"#), "params: missing field `epoch`");
        assert_eq!(
            fault::<TaskUpdate>(r#"{"task":"t-1","epoch":"x"}"#),
            r#"params.epoch: invalid type: string "x", expected u64"#
        );
        assert_eq!(
            fault::<SaveCheckpoint>(r#"{"task":"t","epoch":1,"files":["a","b",{"c":[]}]}"#),
            "params.files[2]: invalid type: map, expected a string"
        );
        let fault = fault::<Publish>(r#"{"type":"alert","content":{},"to":["a","../b"]}"#);
        assert!(fault.starts_with("params.to: `../b` is no agent name"), "{fault}");
    }

    #[test]
    fn a_fault_is_short_and_holds_no_control_characters() {
        let long = format!(r#"{{"task":"t","epoch":"{}"}}"#, "\\u001b[31m".repeat(1000));
        let fault = fault::<TaskUpdate>(&long);
        assert!(fault.chars().count() <= MAX_CHARS + 3, "{fault}");
        assert!(!fault.contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn any_text_and_offset_have_a_path(text in any::<String>(), offset in 0usize..100) {
            prop_assert!(path_at("params", &text, offset).starts_with("params"));
        }
    }
}
