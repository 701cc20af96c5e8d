//! The image of the machine: made once, kept under the hash of its recipe.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::must;

/// How it is made.
const RECIPE: &str = include_str!("image.sh");

/// What is run, and the package of Debian that has it.
const TOOLS: [(&str, &str); 4] = [
    ("mmdebstrap", "mmdebstrap"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mke2fs", "e2fsprogs"),
    ("tar", "tar"),
];

/// Installs what is missing, where this is root on a Debian; elsewhere says what is.
pub(super) fn install_tools(out: &mut impl Write) -> io::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    dirs.push("/usr/sbin".into());
    let is_there = |tool: &str| dirs.iter().any(|dir| dir.join(tool).is_file());
    let missing: Vec<_> =
        TOOLS.iter().filter(|(tool, _)| !is_there(tool)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !nix::unistd::geteuid().is_root() || !is_there("apt-get") {
        return Err(io::Error::other(format!(
            "needs the Debian packages {packages}: apt-get install {packages}"
        )));
    }
    writeln!(out, "installing {packages}")?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(arguments);
        must(&mut command, "apt-get")
    };
    apt(&["update"])?;
    let mut install =
        vec!["install", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "--yes"];
    install.extend(missing);
    apt(&install)
}

/// The directory of the image, which is made if it isn't there.
pub(super) fn ready(target: &Path, out: &mut impl Write) -> io::Result<PathBuf> {
    let hash: String = Sha256::digest(RECIPE.as_bytes())
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let image = target.join(format!("image-{hash}"));
    if image.is_dir() {
        return Ok(image);
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other(
            "the image of the machine is made as root (users and devices are in it); once it is there, \
             anybody can run the test",
        ));
    }
    writeln!(out, "making the image; this takes a minute or two")?;
    // Images of older recipes, and what an interrupted run has left.
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("image-") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let fresh = target.join("image-new");
    fs::create_dir(&fresh)?;
    let recipe = fresh.join("image.sh");
    fs::write(&recipe, RECIPE)?;
    let log = fs::File::create(target.join("image.log"))?;
    let made = must(
        Command::new("sh")
            .arg(&recipe)
            .arg("build")
            .arg(&fresh)
            .stdout(log.try_clone()?)
            .stderr(log),
        "making the image",
    );
    made.map_err(|error| {
        io::Error::other(format!("{error}; see {}", target.join("image.log").display()))
    })?;
    fs::rename(&fresh, &image)?;
    Ok(image)
}
