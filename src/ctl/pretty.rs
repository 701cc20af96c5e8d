//! JSON text laid out for reading, without parsing its values: numbers, the order of keys and the
//! spelling of strings stay exactly as the daemon sent them.

/// `raw`, which must be one JSON value, over several lines with two spaces per level.
pub(crate) fn pretty(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out = String::with_capacity(raw.len() * 2);
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = end_of_string(bytes, at);
                out.push_str(raw.get(at..end).unwrap_or_default());
                at = end;
                continue;
            }
            b'{' | b'[' => {
                let close = if byte == b'{' { b'}' } else { b']' };
                let next = (at + 1..bytes.len()).find(|i| !bytes[*i].is_ascii_whitespace());
                out.push(char::from(byte));
                if let Some(next) = next.filter(|i| bytes[*i] == close) {
                    out.push(char::from(close));
                    at = next + 1;
                    continue;
                }
                depth += 1;
                new_line(&mut out, depth);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(char::from(byte));
            }
            b',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            b':' => out.push_str(": "),
            byte if byte.is_ascii_whitespace() => {}
            byte => out.push(char::from(byte)),
        }
        at += 1;
    }
    out
}

/// `raw` on one line: what its writer broke into lines is joined.
pub(crate) fn compact(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"' {
            let end = end_of_string(bytes, at);
            out.push_str(raw.get(at..end).unwrap_or_default());
            at = end;
            continue;
        }
        if !byte.is_ascii_whitespace() {
            out.push(char::from(byte));
        }
        at += 1;
    }
    out
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_keep_their_order_and_numbers_their_digits() {
        let raw = r#"{"z":1.10,"a":[18446744073709551616,{}, [ ],"x{\"\\"],"é":null}"#;
        insta::assert_snapshot!(pretty(raw), @r#"
        {
          "z": 1.10,
          "a": [
            18446744073709551616,
            {},
            [],
            "x{\"\\"
          ],
          "é": null
        }
        "#);
        assert_eq!(compact("{ \"a b\" :\n [1, 2] }"), r#"{"a b":[1,2]}"#);
    }

    proptest! {
        #[test]
        fn the_value_is_the_same(keys in proptest::collection::vec(any::<String>(), 0..4), n in any::<i64>()) {
            let value = serde_json::json!({ "list": keys, "n": n, "empty": {}, "deep": [[keys.clone()]] });
            let raw = value.to_string();
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&pretty(&raw)).unwrap(), &value);
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&compact(&raw)).unwrap(), &value);
        }
    }
}
