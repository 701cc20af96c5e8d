//! What the tests of the real kernel share: skipping, running a test in a process of its own.
//!
//! A test program that doesn't use all of it says `#[expect(dead_code, reason = "..")] mod support;`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code outside of a test function"
)]

use std::process::Command;

/// Skips a test whose `feature` this machine lacks: prints `SKIP <test>: <why>` and returns true.
/// Panics instead if `MISSIOND_REQUIRE` (a comma-separated list) names the feature.
pub(crate) fn skip(test: &str, feature: &str, present: bool, why: &str) -> bool {
    if present {
        return false;
    }
    let required = std::env::var("MISSIOND_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == feature),
        "{test} needs {feature}, which MISSIOND_REQUIRE promises: {why}"
    );
    println!("SKIP {test}: {why}");
    true
}

/// True if Landlock of at least this ABI is missing and the test is skipped.
pub(crate) fn skip_without_landlock(test: &str, abi: u32) -> bool {
    let present = missiond::sys::landlock::abi();
    skip(test, "landlock", present >= abi, &format!("needs Landlock ABI {abi}, has {present}"))
}

/// True if seccomp filters are missing and the test is skipped.
pub(crate) fn skip_without_seccomp(test: &str) -> bool {
    skip(test, "seccomp", missiond::sys::seccomp::available(), "no seccomp filters")
}

const ALONE: &str = "MISSIOND_TEST_ALONE";

/// Runs `body` in a process of its own, in which no other test has children: this test program is
/// started again for this one test. `test` is the test's full name (`module::name`).
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some_and(|name| name == test) {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.starts_with("SKIP ")) {
        println!("{line}");
    }
    assert!(text.contains("1 passed") || !output.status.success(), "no test is named {test}");
    assert!(
        output.status.success(),
        "{test} failed:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
