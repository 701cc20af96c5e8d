//! Lifts envelopes that an older version wrote: one pure step per kind and version, applied one after
//! another until the version is the present one. Nothing is ever rewritten in the log.

use super::DecodeError;

/// One step: a `kind` of version `from` becomes one of version `from + 1`.
pub struct Upcast {
    /// Which kind.
    pub kind: &'static str,
    /// The version that it reads.
    pub from: u16,
    /// The step.
    pub lift: fn(serde_json::Value) -> serde_json::Value,
}

/// All steps there are. The first release has none: every kind is at version 1.
pub const UPCASTS: &[Upcast] = &[];

/// Lifts `envelope` of `kind` from version `v` to version `to`, through `steps`.
///
/// # Errors
/// The envelope isn't JSON, or a step between the two versions is missing.
pub fn lift(
    steps: &[Upcast],
    kind: &str,
    v: u16,
    to: u16,
    envelope: &[u8],
) -> Result<Vec<u8>, DecodeError> {
    let malformed = |source| DecodeError::Malformed { kind: kind.to_owned(), source };
    let mut value: serde_json::Value = serde_json::from_slice(envelope).map_err(malformed)?;
    for version in v..to {
        let step = steps.iter().find(|step| step.kind == kind && step.from == version);
        let Some(step) = step else {
            return Err(DecodeError::Newer { kind: kind.to_owned(), v });
        };
        value = (step.lift)(value);
    }
    serde_json::to_vec(&value).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_envelope_is_lifted_step_by_step() {
        let steps = [
            Upcast { kind: "x", from: 1, lift: |v| serde_json::json!({ "b": v["a"] }) },
            Upcast { kind: "x", from: 2, lift: |v| serde_json::json!({ "c": [v["b"]] }) },
        ];
        let lifted = lift(&steps, "x", 1, 3, br#"{"a":7}"#).unwrap();
        assert_eq!(lifted, br#"{"c":[7]}"#);
    }

    #[test]
    fn a_missing_step_is_an_error_and_not_a_guess() {
        assert!(lift(&[], "x", 1, 2, b"{}").is_err());
    }
}
