//! `cargo xtask vm-test`: what can only be seen on a machine of one's own.
//!
//! Limits of control groups, a user's service manager, an older kernel and switched-off user namespaces
//! can't be had on any machine where a test may run. So this boots a Debian under QEMU, from Debian's
//! packages alone and without hardware support, and runs [`mod@guest`] in it: one line for each case.
//!
//! ```text
//! host   tools --> image (kept by the hash of its recipe) --> payload (a tar) --> QEMU
//! guest                          systemd, users --> run --> PASS | FAIL | SKIP a line --> off
//! ```
//!
//! It deliberately is no part of `.ci/run`: it needs root for the first image, and minutes.

mod case;
mod guest;
mod image;
mod kernel;
mod limits;
mod units;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) use guest::run as guest;

/// How long the machine may run, seconds.
const LIMIT: &str = "540";
/// The last line of a guest that got to its end.
const DONE: &str = "VM-DONE";

/// What is asked for on the command line.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Test the optimised build.
    #[arg(long)]
    release: bool,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Show all that the machine prints.
    #[arg(long)]
    console: bool,
}

/// Runs the test; true if no case failed.
pub(crate) fn run(root: &Path, options: &Options) -> io::Result<bool> {
    let exe = std::env::current_exe()?;
    let target = exe.parent().and_then(Path::parent).ok_or(io::ErrorKind::NotFound)?.join("vm");
    fs::create_dir_all(&target)?;
    let mut out = io::stdout();
    let began = missiond::sys::clock::since_boot();
    image::install_tools(&mut out)?;
    let image = image::ready(&target, &mut out)?;
    let payload = payload(root, &target, options)?;
    let prepared = missiond::sys::clock::since_boot();
    let counts = boot(&image, &payload, &target, options)?;
    let done = missiond::sys::clock::since_boot();
    fs::remove_file(&payload)?;
    writeln!(
        out,
        "vm-test: {} passed, {} failed, {} skipped; prepared in {} s, ran for {} s",
        counts.passed,
        counts.failed,
        counts.skipped,
        prepared.saturating_sub(began).as_secs(),
        done.saturating_sub(prepared).as_secs(),
    )?;
    if !counts.done {
        writeln!(
            out,
            "vm-test: FAILED: the machine did not get to the end; see {}",
            target.join("console.log").display()
        )?;
    }
    Ok(counts.done && counts.failed == 0 && counts.passed > 0)
}

/// Builds the programs and packs them with what starts them.
fn payload(root: &Path, target: &Path, options: &Options) -> io::Result<PathBuf> {
    let profile: &[&str] = if options.release { &["--release"] } else { &[] };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // Both packages, as for this program itself: otherwise dependencies are built again with other
    // features.
    let packages = ["--package", "missiond", "--package", "xtask"];
    build.current_dir(root).args(["build", "--quiet", "--bins"]).args(packages);
    must(build.args(profile), "the build")?;
    let exe = std::env::current_exe()?;
    let programs = exe.parent().and_then(Path::parent).ok_or(io::ErrorKind::NotFound)?;
    let programs = programs.join(if options.release { "release" } else { "debug" });

    let dir = target.join("payload");
    let _absent = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("bin"))?;
    for name in ["missiond", "missionctl"] {
        strip(&programs.join(name), &dir.join("bin").join(name))?;
    }
    strip(&exe, &dir.join("bin/xtask"))?;
    let only = options.only.as_deref().unwrap_or("").replace('\'', "");
    fs::write(dir.join("run"), format!("#!/bin/sh\nexec /payload/bin/xtask vm-guest '{only}'\n"))?;
    must(Command::new("chmod").arg("0755").arg(dir.join("run")), "chmod")?;
    let tar = target.join("payload.tar");
    must(Command::new("tar").arg("-C").arg(&dir).arg("-cf").arg(&tar).arg("."), "tar")?;
    fs::remove_dir_all(&dir)?;
    Ok(tar)
}

/// Copies a program without what only a debugger reads: the machine has little memory.
fn strip(from: &Path, to: &Path) -> io::Result<()> {
    let stripped = Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(from, to)?;
    }
    Ok(())
}

/// Runs a command that must succeed.
fn must(command: &mut Command, what: &str) -> io::Result<()> {
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{what}: {status}"))) }
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
    done: bool,
}

/// Boots the machine and hands on what it has to say.
fn boot(image: &Path, payload: &Path, target: &Path, options: &Options) -> io::Result<Counts> {
    let drive = |path: &Path, more: &str| format!("file={},format=raw,{more}", path.display());
    // timeout(1) ends the machine whatever becomes of us; nothing of it is kept.
    let mut child = Command::new("timeout")
        .args([LIMIT, "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=512"])
        .args(["-M", "q35", "-cpu", "max", "-smp", "2", "-m", "1536", "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio", "-nic", "none"])
        .arg("-kernel")
        .arg(image.join("vmlinuz"))
        .arg("-initrd")
        .arg(image.join("initrd.img"))
        .args([
            "-append",
            "root=/dev/vda rw rootfstype=ext4 console=ttyS0 panic=-1 quiet mitigations=off audit=0 \
             systemd.show_status=false",
        ])
        .arg("-drive")
        .arg(drive(&image.join("root.ext4"), "if=virtio,snapshot=on,cache=unsafe"))
        .arg("-drive")
        .arg(drive(payload, "if=virtio,readonly=on"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let console = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut log = fs::File::create(target.join("console.log"))?;
    let mut counts = Counts::default();
    for line in BufReader::new(console).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        writeln!(log, "{line}")?;
        let word = line.split(' ').next().unwrap_or("");
        match word {
            "PASS" => counts.passed += 1,
            "FAIL" => counts.failed += 1,
            "SKIP" => counts.skipped += 1,
            DONE => counts.done = true,
            _ => {}
        }
        // Explanations of a case are indented.
        let told = matches!(word, "PASS" | "FAIL" | "SKIP") || line.starts_with("    ");
        if told || options.console {
            writeln!(io::stdout(), "{line}")?;
        }
    }
    let status = child.wait()?;
    counts.done &= status.success();
    Ok(counts)
}
