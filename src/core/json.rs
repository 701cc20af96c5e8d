//! JSON that is carried, not read: message contents, task data, results, checkpoints.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON value as its text, shared. The core never looks inside; the edge has checked it once
/// (see `proto`), and it goes out to every reader with the same bytes.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Parses a text that must hold exactly one JSON value.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<Box<RawValue>>(text).map(Json::from)
    }

    /// The JSON text of a value that this program made.
    ///
    /// # Errors
    /// The value has no JSON form (a map with keys that aren't strings, a failing `Serialize`).
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Json::from)
    }

    /// The text.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The text's length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.get().len()
    }

    /// A JSON value is never empty; here because there is a `len`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.get().is_empty()
    }
}

impl From<Box<RawValue>> for Json {
    fn from(raw: Box<RawValue>) -> Self {
        Json(Arc::from(raw))
    }
}
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}
impl Eq for Json {}
impl fmt::Debug for Json {
    /// Shows the length only: contents may hold prompts and never belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.len())
    }
}
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Json::from)
    }
}
