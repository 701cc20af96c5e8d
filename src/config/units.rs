//! Durations and sizes: numbers that are written with their unit.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::read::{Findings, Read, Value, leaf, wrong_type};

/// The largest duration that is accepted: 100 years, so that no sum of times overflows.
const MOST_MS: u64 = 100 * 365 * 24 * 3_600_000;

/// A duration in milliseconds, written `500ms`, `60s`, `30m`, `1h30m`, `2d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Millis(pub(super) u64);

/// A size in bytes, written `512KiB`, `64MB`, `2GiB`, `100B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

/// Parses a duration.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with its text.
pub(super) fn parse_duration(text: &str) -> Result<u64, &'static str> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let mut rest = text;
    let mut total = 0_u64;
    let mut last = u64::MAX;
    if rest.is_empty() {
        return Err("is empty");
    }
    while !rest.is_empty() {
        let (number, unit, tail) = split(rest)?;
        if unit.is_empty() {
            return Err("has no unit");
        }
        let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
            return Err("has an unknown unit");
        };
        if *factor >= last {
            return Err("must have its larger units first, each once");
        }
        last = *factor;
        total = number
            .checked_mul(*factor)
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= MOST_MS)
            .ok_or("is more than 100 years")?;
        rest = tail;
    }
    Ok(total)
}

/// Parses a size.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with its text.
pub(super) fn parse_size(text: &str) -> Result<u64, &'static str> {
    let units = [
        ("B", 1),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1_u64 << 40),
    ];
    let (number, unit, rest) = split(text)?;
    if unit.is_empty() {
        return Err("has no unit");
    }
    if !rest.is_empty() {
        return Err("must be one number and one unit");
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err("has an unknown unit");
    };
    // TOML's integers and SQLite's end at i64::MAX.
    number.checked_mul(*factor).filter(|size| *size <= i64::MAX as u64).ok_or("is too large")
}

/// A number, the letters after it, and what follows.
fn split(text: &str) -> Result<(u64, &str, &str), &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err("must be a number and a unit");
    }
    let number = number.parse().map_err(|_| "is too large")?;
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, rest) = rest.split_at(letters);
    Ok((number, unit, rest))
}

macro_rules! unit {
    ($name:ident, $parse:path, $expected:literal, $help:literal, $pattern:literal, $examples:expr) => {
        impl Read for $name {
            const EXPECTED: &'static str = $expected;

            fn read(value: &Value<'_>, path: &str, findings: &mut Findings) -> Option<Self> {
                let text = match value.get_ref() {
                    DeValue::String(text) => text,
                    DeValue::Integer(_) | DeValue::Float(_) => {
                        let message = format!("{} has no unit", leaf(path));
                        findings.error_with_help(&value.span(), message, $help);
                        return None;
                    }
                    DeValue::Boolean(_)
                    | DeValue::Datetime(_)
                    | DeValue::Array(_)
                    | DeValue::Table(_) => {
                        wrong_type::<Self>(value, path, findings);
                        return None;
                    }
                };
                match $parse(text) {
                    Ok(parsed) => Some($name(parsed)),
                    Err(why) => {
                        let message = format!("{}: \"{text}\" {why}", leaf(path));
                        findings.error_with_help(&value.span(), message, $help);
                        None
                    }
                }
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": $examples })
            }
        }
    };
}

unit!(
    Millis,
    parse_duration,
    "a duration such as \"30s\"",
    "durations are written with ms, s, m, h or d: \"500ms\", \"60s\", \"1h30m\"",
    "^([0-9]+ ?d)?([0-9]+ ?h)?([0-9]+ ?m)?([0-9]+ ?s)?([0-9]+ ?ms)?$",
    ["500ms", "60s", "1h30m"]
);
unit!(
    Bytes,
    parse_size,
    "a size such as \"64MiB\"",
    "sizes are written with B, kB, MB, GB, TB or KiB, MiB, GiB, TiB: \"512KiB\", \"2GiB\"",
    "^[0-9]+ ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
    ["512KiB", "64MB", "2GiB"]
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_sums_of_units_from_large_to_small() {
        for (text, ms) in [
            ("500ms", 500),
            ("0s", 0),
            ("60s", 60_000),
            ("30m", 1_800_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("90 s", 90_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn a_duration_says_what_is_wrong_with_it() {
        for (text, why) in [
            ("", "is empty"),
            ("60", "has no unit"),
            ("1h30", "has no unit"),
            ("s", "must be a number and a unit"),
            ("-1s", "must be a number and a unit"),
            ("1.5h", "has no unit"),
            ("60 seconds", "has an unknown unit"),
            ("30m1h", "must have its larger units first, each once"),
            ("1s1s", "must have its larger units first, each once"),
            ("99999999999999999999s", "is too large"),
            ("9999999999999d", "is more than 100 years"),
            ("36501d", "is more than 100 years"),
        ] {
            assert_eq!(parse_duration(text), Err(why), "{text}");
        }
    }

    #[test]
    fn sizes_are_decimal_or_binary() {
        for (text, bytes) in
            [("100B", 100), ("64MB", 64_000_000), ("512KiB", 524_288), ("2GiB", 2 << 30), ("0B", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, why) in [
            ("", "must be a number and a unit"),
            ("12", "has no unit"),
            ("2G", "has an unknown unit"),
            ("2gib", "has an unknown unit"),
            ("1MiB1KiB", "must be one number and one unit"),
            ("99999999TiB", "is too large"),
        ] {
            assert_eq!(parse_size(text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_unit_panic(text in "\\PC{0,20}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }

        #[test]
        fn a_duration_reads_what_its_parts_say(h in 0_u64..1000, m in 0_u64..1000, s in 0_u64..1000) {
            prop_assert_eq!(
                parse_duration(&format!("{h}h{m}m{s}s")),
                Ok(h * 3_600_000 + m * 60_000 + s * 1_000)
            );
        }
    }
}
