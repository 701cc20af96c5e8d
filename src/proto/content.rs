//! What JSON text may hold so that every reader understands it alike: bounded depth, no lone
//! surrogates, finite numbers. One pass over the bytes; the grammar itself is `serde_json`'s business,
//! whose raw values let exactly these three through.

/// The deepest nesting of a content: `[[1]]` has depth 2.
pub const MAX_DEPTH: usize = 64;

/// How much deeper a whole frame may be: the request object and its `params`.
pub const ENVELOPE_DEPTH: usize = 2;

/// What is wrong with a text, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels at byte {at}")]
    TooDeep {
        /// Offset of the bracket.
        at: usize,
    },
    /// A `\u` escape of one half of a surrogate pair, or one that is no escape at all.
    #[error(
        "invalid escape at byte {at}: a \\u escape is four hexadecimal digits, surrogates come in pairs"
    )]
    Escape {
        /// Offset of the backslash.
        at: usize,
    },
    /// A number beyond the range of a double.
    #[error("number out of range at byte {at}")]
    NotFinite {
        /// Offset of its first character.
        at: usize,
    },
}

/// Scans a text of JSON, or of something that claims to be JSON.
///
/// # Errors
/// The text holds what [`ContentError`] lists, nested deeper than `max_depth` for one.
pub fn scan(text: &str, max_depth: usize) -> Result<(), ContentError> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = end_of_string(bytes, at + 1)?;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(ContentError::TooDeep { at });
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                at = end_of_number(text, at)?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The offset after the closing quote (or of the end of the text).
fn end_of_string(bytes: &[u8], mut at: usize) -> Result<usize, ContentError> {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return Ok(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => {
                let error = ContentError::Escape { at };
                let Some(unit) = hex4(bytes, at + 2) else { return Err(error) };
                at += 6;
                match unit {
                    0xd800..=0xdbff => {
                        let is_escape = bytes.get(at..at + 2) == Some(b"\\u");
                        match hex4(bytes, at + 2) {
                            Some(0xdc00..=0xdfff) if is_escape => at += 6,
                            _ => return Err(error),
                        }
                    }
                    0xdc00..=0xdfff => return Err(error),
                    _ => {}
                }
            }
            b'\\' => at += 2,
            _ => at += plain(bytes, at),
        }
    }
    Ok(at)
}

/// How many bytes from `at` on, at least one, are neither a quote nor a backslash; looked at eight at
/// a time where there are as many.
fn plain(bytes: &[u8], at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // The lowest high bit that is set is that of the first zero byte; those above it may be wrong.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut length = 0;
    let rest = bytes.get(at..).unwrap_or_default();
    for word in rest.chunks_exact(8) {
        let Ok(word) = word.try_into().map(u64::from_le_bytes) else { break };
        let found =
            zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return (length + found.trailing_zeros() as usize / 8).max(1);
        }
        length += 8;
    }
    length.max(1)
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |n, &d| Some(n << 4 | char::from(d).to_digit(16)?))
}

/// The offset after a number. Without an exponent, up to 300 characters are surely finite.
fn end_of_number(text: &str, start: usize) -> Result<usize, ContentError> {
    let rest = text.get(start..).unwrap_or_default();
    let is_part = |b: &u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let len = rest.bytes().take_while(|b| is_part(b)).count();
    let number = rest.get(..len).unwrap_or_default();
    let may_overflow = len > 300 || number.bytes().any(|b| matches!(b, b'e' | b'E'));
    if may_overflow && number.parse::<f64>().is_ok_and(|n| !n.is_finite()) {
        return Err(ContentError::NotFinite { at: start });
    }
    Ok(start + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn depth_is_counted_outside_strings_only() {
        let deep = format!("{}1{}", "[".repeat(64), "]".repeat(64));
        assert_eq!(scan(&deep, MAX_DEPTH), Ok(()));
        assert_eq!(scan(&format!("[{deep}]"), MAX_DEPTH), Err(ContentError::TooDeep { at: 64 }));
        assert_eq!(scan(&format!("\"{}\"", "[".repeat(200)), MAX_DEPTH), Ok(()));
        assert_eq!(scan(&"[]".repeat(200), MAX_DEPTH), Ok(()));
    }

    #[test]
    fn a_lone_surrogate_is_refused_and_a_pair_is_not() {
        assert_eq!(scan(r#""\ud83d\ude00 \u00e9 \\ud800""#, 1), Ok(()));
        for bad in
            [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\ud83d""#, r#""\ud83dxx""#, r#""\u12g4""#]
        {
            assert_eq!(scan(bad, 1), Err(ContentError::Escape { at: 1 }), "{bad}");
        }
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(r#""\ud83d""#).is_ok());
    }

    #[test]
    fn an_infinite_number_is_refused() {
        for good in ["1e308", "-1.5E+10", "1e-400", "0", &"9".repeat(300)] {
            assert_eq!(scan(good, 1), Ok(()), "{good}");
        }
        for bad in ["1e309", "-1e999", &"9".repeat(400)] {
            assert_eq!(scan(bad, 1), Err(ContentError::NotFinite { at: 0 }), "{bad}");
        }
        assert_eq!(scan(r#"{"1e999":"1e999"}"#, 1), Ok(()));
    }

    proptest! {
        #[test]
        fn whatever_passes_and_parses_as_raw_also_parses_as_a_value(text in r#"[\[\]{}",:\\u0-9a-fe.+ -]{0,40}"#) {
            let raw = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            if scan(&text, MAX_DEPTH).is_ok() && raw {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }

        #[test]
        fn any_text_is_scanned_without_a_panic(text in any::<String>()) {
            let _ = scan(&text, MAX_DEPTH);
        }
    }
}
