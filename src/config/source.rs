//! Reading a mission file: bounded, regular files only, UTF-8.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;

use super::problem::{Finding, place};
use super::{ConfigError, Problem};

/// The largest mission file that is read, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// Reads the whole file.
///
/// # Errors
/// It can't be read, isn't a regular file, is larger than [`MAX_FILE`], or isn't UTF-8.
pub(super) fn read(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_path_buf(), source };
    // O_NONBLOCK, so that a named pipe is refused and doesn't block (open(2)).
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file);
    let opened = opened.map_err(unreadable)?;
    let metadata = opened.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(ConfigError::Directory { file: file.to_path_buf() });
    }
    if !metadata.is_file() {
        return Err(ConfigError::NotRegular { file: file.to_path_buf() });
    }
    let too_large = |size| ConfigError::TooLarge { file: file.to_path_buf(), size };
    if metadata.len() > MAX_FILE {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    let size = opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)? as u64;
    if size > MAX_FILE {
        return Err(too_large(size));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(at).copied().unwrap_or_default();
        let shown = String::from_utf8_lossy(error.as_bytes());
        // Up to the first bad byte the lossy text has the same offsets.
        let finding = Finding {
            span: at..at + 1,
            message: format!("byte 0x{byte:02x} at offset {at} is not UTF-8"),
            help: Some("a mission file is UTF-8 text; `file` and `iconv` tell and convert".into()),
            warning: false,
        };
        let masked: Vec<_> = hidden_parts(&shown, at).into_iter().collect();
        ConfigError::Invalid { problems: place(file, &shown, vec![finding], &masked) }
    })
}

/// Problems of a text that isn't TOML. What may be a secret on the lines of the errors is masked by
/// a look at the text alone, for there is no tree to ask.
pub(super) fn syntax(file: &Path, text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    const MOST: usize = 8;
    let mut masked = Vec::new();
    let mut findings: Vec<Finding> = Vec::new();
    let mut twice = None;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let (start, end) = line(text, span.start);
        let mut message = error.message().to_owned();
        if message == "duplicate key" {
            let header = |text: &str| text.trim_start().starts_with('[');
            // A table that is there twice says so once, and not again for each of its keys.
            let within = |from: usize| !text[from..start].lines().any(header);
            if twice.is_some_and(within) {
                continue;
            }
            twice = header(&text[start..end]).then_some(end);
            message = format!("`{}` is there twice", text.get(span.clone()).unwrap_or_default());
        }
        masked.extend(hidden_parts(text, span.start));
        findings.push(Finding { span, message, help: None, warning: false });
        if findings.len() == MOST {
            break;
        }
    }
    place(file, text, findings, &masked)
}

/// Where the line of `at` begins and ends.
fn line(text: &str, at: usize) -> (usize, usize) {
    let start = text.get(..at).unwrap_or(text).rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[start..].find('\n').map_or(text.len(), |length| start + length);
    (start, end)
}

/// What to hide on the line of `at`: everything after its first `=`, if the line or its table's
/// header speaks of `env` or `secrets`.
fn hidden_parts(text: &str, at: usize) -> Option<Range<usize>> {
    let (start, end) = line(text, at);
    let line = &text[start..end];
    let header = text[..start].lines().rev().find(|line| line.trim_start().starts_with('['));
    let confidential =
        |line: &str| line.contains("env") || line.contains("secret") || line.contains("\"\"\"");
    if !confidential(line) && !header.is_some_and(confidential) {
        return None;
    }
    Some(line.find('=').map_or(start, |equals| start + equals + 1)..end)
}

/// The cause of an I/O error in words, and the name of its errno.
pub(super) fn cause(error: &io::Error) -> String {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw) else {
        return error.to_string().to_lowercase();
    };
    format!("{} ({errno:?})", errno.desc().to_lowercase())
}
