//! What a git configuration file says (git-config(1), "Syntax"), as far as it decides what git runs.
//!
//! An agent may have written the file, so git itself is never asked: it would run what the file names.
//! This reads generously: what git would refuse may still yield entries, since reading too much only
//! protects too much. It deliberately resolves no path and opens no file.

/// One `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// In lower case.
    pub(super) section: Vec<u8>,
    /// As it is written; empty for none.
    pub(super) subsection: Vec<u8>,
    /// In lower case.
    pub(super) key: Vec<u8>,
    /// Without quotes, escapes and comments; empty for a key alone.
    pub(super) value: Vec<u8>,
}

/// What an entry makes git do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect<'a> {
    /// Read this file as configuration too.
    Include(&'a [u8]),
    /// Run programs of this directory.
    Hooks(&'a [u8]),
    /// Run this, by a shell in most cases.
    Program(&'a [u8]),
    /// The work tree is there.
    WorkTree(&'a [u8]),
}

impl Entry {
    /// Its name, for people.
    pub(super) fn name(&self) -> String {
        let parts =
            [&self.section, &self.subsection, &self.key].map(|part| String::from_utf8_lossy(part));
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).filter(|p| !p.is_empty()).collect();
        parts.join(".")
    }

    /// What of it could run something, or names where it is about.
    pub(super) fn effect(&self) -> Option<Effect<'_>> {
        let value = self.value.as_slice();
        let program = Some(Effect::Program(value));
        match (self.section.as_slice(), self.key.as_slice()) {
            (b"include" | b"includeif", b"path") => Some(Effect::Include(value)),
            (b"core", b"hookspath") => Some(Effect::Hooks(value)),
            (b"core", b"worktree") => Some(Effect::WorkTree(value)),
            // Builtin when it is a truth value.
            (b"core", b"fsmonitor") if is_bool(value) => None,
            (
                b"core",
                b"fsmonitor"
                | b"sshcommand"
                | b"editor"
                | b"pager"
                | b"askpass"
                | b"gitproxy"
                | b"alternaterefscommand",
            )
            | (b"sequence", b"editor")
            | (b"credential", b"helper")
            | (b"diff", b"external" | b"command" | b"textconv")
            | (b"filter", b"clean" | b"smudge" | b"process")
            | (b"merge", b"driver")
            | (b"mergetool" | b"difftool" | b"guitool" | b"man" | b"browser", b"cmd" | b"path")
            | (b"gpg", b"program" | b"defaultkeycommand")
            | (b"interactive", b"difffilter")
            | (b"remote", b"uploadpack" | b"receivepack" | b"vcs")
            | (b"uploadpack", b"packobjectshook")
            | (b"hook", b"command")
            | (b"trailer", b"command" | b"cmd")
            | (b"sendemail", b"smtpserver" | b"tocmd" | b"cccmd" | b"sendmailcmd")
            | (b"tar", b"command")
            | (b"web", b"browser")
            | (b"instaweb", b"httpd") => program,
            (b"pager", _) if !is_bool(value) => program,
            (b"alias", _) if value.starts_with(b"!") => {
                Some(Effect::Program(value.get(1..).unwrap_or_default()))
            }
            (b"submodule", b"update") if value.starts_with(b"!") => {
                Some(Effect::Program(value.get(1..).unwrap_or_default()))
            }
            _ => None,
        }
    }
}

fn is_bool(value: &[u8]) -> bool {
    matches!(
        value.to_ascii_lowercase().as_slice(),
        b"" | b"true" | b"false" | b"yes" | b"no" | b"on" | b"off" | b"0" | b"1"
    )
}

/// Reads a whole file.
pub(super) fn parse(text: &[u8]) -> Vec<Entry> {
    let mut reader = Reader { rest: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) };
    let (mut section, mut subsection) = (Vec::new(), Vec::new());
    let mut entries = Vec::new();
    while let Some(byte) = reader.peek() {
        match byte {
            b'#' | b';' => reader.skip_line(),
            b'[' => {
                reader.bump();
                (section, subsection) = reader.section();
            }
            byte if byte.is_ascii_alphanumeric() => {
                let key = reader.key();
                let value = reader.value();
                let (section, subsection) = (section.clone(), subsection.clone());
                entries.push(Entry { section, subsection, key, value });
            }
            _ => reader.bump(),
        }
    }
    entries
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn bump(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.bump();
        byte
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|byte| byte != b'\n') {}
    }

    /// After the `[`.
    fn section(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut name, mut sub) = (Vec::new(), Vec::new());
        while let Some(byte) = self.next() {
            match byte {
                b']' | b'\n' => break,
                b'"' => {
                    while let Some(byte) = self.next() {
                        match byte {
                            b'"' | b'\n' => break,
                            b'\\' => sub.extend(self.next()),
                            byte => sub.push(byte),
                        }
                    }
                }
                byte if byte.is_ascii_whitespace() => {}
                byte => name.push(byte.to_ascii_lowercase()),
            }
        }
        // The old form: [section.subsection].
        if let Some(dot) = name.iter().position(|byte| *byte == b'.').filter(|_| sub.is_empty()) {
            sub = name.split_off(dot).split_off(1);
        }
        (name, sub)
    }

    fn key(&mut self) -> Vec<u8> {
        let mut key = Vec::new();
        while let Some(byte) = self.peek().filter(|b| b.is_ascii_alphanumeric() || *b == b'-') {
            key.push(byte.to_ascii_lowercase());
            self.bump();
        }
        key
    }

    fn value(&mut self) -> Vec<u8> {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            self.bump();
        }
        if self.peek() != Some(b'=') {
            // A key alone; whatever else is in the line begins anew.
            return Vec::new();
        }
        self.bump();
        let (mut value, mut quoted, mut kept) = (Vec::new(), false, 0);
        while let Some(byte) = self.next() {
            match byte {
                b'\n' if !quoted => break,
                b'#' | b';' if !quoted => {
                    self.skip_line();
                    break;
                }
                b'"' => {
                    quoted = !quoted;
                    kept = value.len();
                }
                b'\\' => {
                    match self.next() {
                        Some(b'\r') if self.peek() == Some(b'\n') => self.bump(),
                        Some(b'\n') | None => {}
                        Some(b'n') => value.push(b'\n'),
                        Some(b't') => value.push(b'\t'),
                        Some(b'b') => value.push(8),
                        Some(other) => value.push(other),
                    }
                    kept = value.len();
                }
                byte if !quoted && byte.is_ascii_whitespace() && value.is_empty() => {}
                byte => {
                    value.push(byte);
                    if quoted || !byte.is_ascii_whitespace() {
                        kept = value.len();
                    }
                }
            }
        }
        value.truncate(kept);
        value
    }
}

/// The words of a command line, as a shell would see them if nothing in it were special but quotes.
pub(super) fn words(command: &[u8]) -> Vec<Vec<u8>> {
    let mut words = vec![Vec::new()];
    let mut quote = None;
    for &byte in command {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            (None, byte) if byte.is_ascii_whitespace() || b";|&()<>".contains(&byte) => {
                words.push(Vec::new());
            }
            (_, byte) => words.last_mut().into_iter().for_each(|word| word.push(byte)),
        }
    }
    words.retain(|word| !word.is_empty());
    // What stands in quotes may be a command line of its own: sh -c './x y'.
    let inner: Vec<_> =
        words.iter().flat_map(|w| w.split(u8::is_ascii_whitespace)).map(<[u8]>::to_vec).collect();
    words.extend(inner);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, String, String)> {
        let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        parse(text.as_bytes())
            .into_iter()
            .map(|e| (text_of(e.section), text_of(e.subsection), text_of(e.key), text_of(e.value)))
            .collect()
    }

    fn entry(s: &str, u: &str, k: &str, v: &str) -> (String, String, String, String) {
        (s.into(), u.into(), k.into(), v.into())
    }

    #[test]
    fn what_git_writes_is_read() {
        let text = "[core]\n\trepositoryformatversion = 0\n\thooksPath = .githooks\n\
                    [remote \"origin\"]\n\turl = git@x:y.git\n\tfetch = +refs/heads/*:refs/x/*\n\
                    [branch \"a \\\"b\\\"\"]\n\tmerge=refs/heads/a\n";
        assert_eq!(
            read(text),
            [
                entry("core", "", "repositoryformatversion", "0"),
                entry("core", "", "hookspath", ".githooks"),
                entry("remote", "origin", "url", "git@x:y.git"),
                entry("remote", "origin", "fetch", "+refs/heads/*:refs/x/*"),
                entry("branch", "a \"b\"", "merge", "refs/heads/a"),
            ]
        );
    }

    #[test]
    fn a_path_can_not_be_hidden_by_the_way_it_is_written() {
        for text in [
            "[core]hooksPath=a/b",
            "[CORE]\nHOOKSPATH = a/b # rest",
            "[core]\nhooksPath = \"a/b\" ; rest",
            "[core]\n  hooksPath = a\\\n/b",
            "[core]\r\nhooksPath\t=\ta/b\r\n",
            "\u{feff}[core]\nhooksPath = a\"/\"b",
            "[ core ]\nbare\nhooksPath = a/b",
        ] {
            let found = parse(text.as_bytes());
            let hooks = found.iter().find_map(Entry::effect);
            assert_eq!(hooks, Some(Effect::Hooks(b"a/b")), "{text:?}: {found:?}");
        }
        let old = parse(b"[includeIf.gitdir:x]\npath = inc");
        assert_eq!(old.first().and_then(Entry::effect), Some(Effect::Include(b"inc")));
    }

    #[test]
    fn quotes_keep_blanks_and_comment_signs() {
        assert_eq!(
            read("[a]\nb = \" x # y \" \nc = x  y  \nd = \"\\t\\\\\""),
            [
                entry("a", "", "b", " x # y "),
                entry("a", "", "c", "x  y"),
                entry("a", "", "d", "\t\\"),
            ]
        );
    }

    #[test]
    fn keys_that_run_programs_are_known_from_those_that_do_not() {
        let runs = |text: &str| parse(text.as_bytes()).iter().any(|e| e.effect().is_some());
        for text in [
            "[core]\nfsmonitor = .git/x",
            "[filter \"lfs\"]\nclean = ./c",
            "[alias]\nst = !./x",
            "[credential \"https://h\"]\nhelper = x",
            "[pager]\nlog = ./p",
            "[diff \"img\"]\ntextconv = t",
        ] {
            assert!(runs(text), "{text}");
        }
        for text in [
            "[core]\nfsmonitor = true",
            "[alias]\nst = status",
            "[user]\nname = n",
            "[pager]\nlog = false",
            "[remote \"o\"]\nurl = /x/y",
        ] {
            assert!(!runs(text), "{text}");
        }
    }

    #[test]
    fn anything_at_all_is_read_to_its_end() {
        for text in ["[", "[\"", "a", "a=", "a=\"", "a=\\", "[x\n]=", "=", "\0\u{ff}[a]b=c"] {
            let _ = parse(text.as_bytes());
        }
        let found = words(b"sh -c './a b' && x/y");
        for word in ["sh", "./a", "x/y"] {
            assert!(found.contains(&word.as_bytes().to_vec()), "{word}: {found:?}");
        }
    }
}
