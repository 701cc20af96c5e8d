//! One Rust file, cut into tokens: enough to see paths, macros and attributes, without comments and
//! without what stands in strings. Not a parser.

/// A token and the line it stands on, 1 for the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A Rust file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Where it stands, from the top of the repository, with `/`.
    pub(crate) path: String,
    /// Identifiers, `::`, and single characters.
    pub(crate) tokens: Vec<Token>,
    /// Comments with their lines.
    pub(crate) comments: Vec<Token>,
    /// The lines of items behind `#[cfg(test)]`, ends included.
    pub(crate) tests: Vec<(usize, usize)>,
    /// All lines.
    pub(crate) lines: usize,
    /// Whether it opens with `//!`.
    pub(crate) documented: bool,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let (tokens, comments) = cut(text);
        let tests = test_items(&tokens);
        Source {
            path: path.to_owned(),
            tests,
            lines: text.lines().count(),
            documented: text.trim_start().starts_with("//!"),
            tokens,
            comments,
        }
    }

    /// Lines outside its unit tests.
    pub(crate) fn lines_of_code(&self) -> usize {
        let of_tests: usize = self.tests.iter().map(|(first, last)| last - first + 1).sum();
        self.lines - of_tests
    }

    /// Whether the file is a module of unit tests beside the code: `x/tests.rs`, `x/tests/y.rs`.
    pub(crate) fn is_of_tests(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    pub(crate) fn is_test(&self, line: usize) -> bool {
        let inside = |(first, last): &(usize, usize)| (*first..=*last).contains(&line);
        self.is_of_tests() || self.tests.iter().any(inside)
    }

    /// The lines where these tokens stand one after the other.
    pub(crate) fn lines_with(&self, pattern: &[&str]) -> Vec<usize> {
        let matches = |window: &[Token]| window.iter().zip(pattern).all(|(t, p)| t.text == *p);
        self.tokens.windows(pattern.len()).filter(|w| matches(w)).map(|w| w[0].line).collect()
    }
}

/// Items behind `#[cfg(test)]`: from the attribute to the closing brace or semicolon.
fn test_items(tokens: &[Token]) -> Vec<(usize, usize)> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut items = Vec::new();
    let mut at = 0;
    while at + ATTRIBUTE.len() <= tokens.len() {
        let here = &tokens[at..at + ATTRIBUTE.len()];
        if !here.iter().zip(ATTRIBUTE).all(|(token, text)| token.text == text) {
            at += 1;
            continue;
        }
        let first = here[0].line;
        let (mut depth, mut last) = (0_usize, first);
        at += ATTRIBUTE.len();
        for token in &tokens[at..] {
            at += 1;
            last = token.line;
            match token.text.as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && token.text == "}" {
                        break;
                    }
                }
                ";" if depth == 0 => break,
                _ => {}
            }
        }
        items.push((first, last));
    }
    items
}

fn cut(text: &str) -> (Vec<Token>, Vec<Token>) {
    let mut cutter = Cutter { rest: text, line: 1, tokens: Vec::new(), comments: Vec::new() };
    while cutter.step() {}
    (cutter.tokens, cutter.comments)
}

struct Cutter<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
    comments: Vec<Token>,
}

impl Cutter<'_> {
    fn take(&mut self, bytes: usize) -> String {
        let (taken, rest) = self.rest.split_at(bytes.min(self.rest.len()));
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken.to_owned()
    }

    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        let line = self.line;
        if first.is_whitespace() {
            self.take(first.len_utf8());
        } else if self.rest.starts_with("//") {
            let text = self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            self.comments.push(Token { text, line });
        } else if self.rest.starts_with("/*") {
            let text = self.take(block_comment(self.rest));
            self.comments.push(Token { text, line });
        } else if let Some(bytes) = string(self.rest).or_else(|| character(self.rest)) {
            self.take(bytes);
            self.tokens.push(Token { text: "\"".to_owned(), line });
        } else if first.is_alphanumeric() || first == '_' {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let bytes = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
            let text = self.take(bytes);
            self.tokens.push(Token { text, line });
        } else {
            let bytes = if self.rest.starts_with("::") { 2 } else { first.len_utf8() };
            let text = self.take(bytes);
            self.tokens.push(Token { text, line });
        }
        true
    }
}

/// The bytes of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        match text.as_bytes().get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The bytes of a string literal of any kind, if one begins here.
fn string(text: &str) -> Option<usize> {
    let after = text.trim_start_matches(['b', 'c']);
    if text.len() - after.len() > 1 {
        return None;
    }
    let prefix = text.len() - after.len();
    if let Some(raw) = after.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let body = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let bytes = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(prefix + 1 + hashes + 1 + bytes);
    }
    let body = after.strip_prefix('"')?;
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix + 1 + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The bytes of a character literal, if one begins here and not a lifetime.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix("b'").or_else(|| text.strip_prefix('\''))?;
    let opening = text.len() - body.len();
    let mut chars = body.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        let at = body[2..].find('\'')? + 2;
        return Some(opening + at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(opening + at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let source = Source::new("x.rs", text);
        source.tokens.iter().map(|t| t.text.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_hide_what_they_say() {
        let text = "a /* unsafe /* todo!() */ x */ \"unsafe \\\" b\" r#\"un\"safe\"# 'u' '\\'' b'x' c\"x\" // d\nb";
        assert_eq!(words(text), "a \" \" \" \" \" \" b");
    }

    #[test]
    fn a_lifetime_is_no_character() {
        assert_eq!(words("fn f<'a>(x: &'a str) {}"), "fn f < ' a > ( x : & ' a str ) { }");
    }

    #[test]
    fn lines_count_through_strings_over_several_lines() {
        let source = Source::new("x.rs", "let a = \"1\n2\n3\";\nunsafe {}\n");
        assert_eq!(source.lines_with(&["unsafe"]), [4]);
    }

    #[test]
    fn unit_tests_do_not_count_as_code() {
        let text =
            "//! Doc.\nfn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { {} }\n}\nfn c() {}\n";
        let source = Source::new("x.rs", text);
        assert_eq!((source.lines, source.lines_of_code()), (7, 3));
        assert!(source.is_test(5) && !source.is_test(7) && source.documented);
    }

    #[test]
    fn a_module_of_tests_in_another_file_ends_at_its_semicolon() {
        let source = Source::new("x.rs", "#[cfg(test)]\nmod tests;\nfn a() {\n}\n");
        assert_eq!(source.tests, [(1, 2)]);
    }
}
