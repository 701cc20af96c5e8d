//! What level 3 stands on: ids of the user's own, and podman.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use nix::unistd::{User, geteuid};

use super::places::program;
use super::report::Check;

/// Ids that a container's users need, beside the user's own one.
const IDS: u64 = 65_536;
/// Bits of `st_mode`: set-uid.
const SET_UID: u32 = 0o4000;

/// Subordinate ids, and the programs that may map them.
pub(super) fn subordinate_ids() -> Check {
    const NAME: &str = "subordinate ids";
    let uid = geteuid();
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name).unwrap_or_default();
    let count = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        granted(&text, &name, uid.as_raw())
    };
    let (uids, gids) = (count("/etc/subuid"), count("/etc/subgid"));
    if uids.min(gids) < IDS && !uid.is_root() {
        let command =
            format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}");
        let found = format!("{uids} uids and {gids} gids of {IDS}");
        return Check::missing(NAME, 3, found, &[&command]);
    }
    for tool in ["newuidmap", "newgidmap"] {
        let file = program(tool, std::env::var_os("PATH"));
        let is_able = file.as_ref().and_then(|file| fs::metadata(file).ok()).is_some_and(|meta| {
            // Some distributions give it a capability instead, which only its owner can't fake.
            meta.uid() == 0
                && (meta.permissions().mode() & SET_UID != 0 || has_capability(file.as_deref()))
        });
        if !is_able {
            let found = format!("{tool} is not installed, or may not map ids");
            return Check::missing(NAME, 3, found, &["sudo apt-get install uidmap"]);
        }
    }
    Check::ok(NAME, format!("{uids} uids, {gids} gids"))
}

fn has_capability(file: Option<&std::path::Path>) -> bool {
    let Some(file) = file else { return false };
    rustix::fs::getxattr(file, "security.capability", &mut [0_u8; 64][..]).is_ok()
}

/// How many ids a file like `/etc/subuid` grants to a user, named or by number (subuid(5)).
fn granted(text: &str, name: &str, uid: u32) -> u64 {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let who = fields.next()?;
            let count = fields.nth(1)?.trim().parse::<u64>().ok()?;
            (who == name || who == uid).then_some(count)
        })
        .sum()
}

/// Podman, by asking it for its version.
pub(super) fn podman() -> Check {
    const NAME: &str = "podman";
    let Some(podman) = program("podman", std::env::var_os("PATH")) else {
        let found = "not installed";
        return Check::missing(NAME, 3, found, &["sudo apt-get install podman"]);
    };
    // It may hang on a storage that doesn't answer.
    let output = Command::new("timeout")
        .arg("10")
        .arg(podman)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Check::missing(
                NAME,
                3,
                format!("{text}; this version of missiond has no level 3"),
                &["Use level 2"],
            )
        }
        Ok(output) => Check::missing(
            NAME,
            3,
            format!("podman --version ended with {}", output.status),
            &["podman info"],
        ),
        Err(error) => Check::missing(NAME, 3, format!("cannot be run: {error}"), &["podman info"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_granted_by_name_or_by_number_and_add_up() {
        let text = "root:1:2\ndemo:100000:65536\n1000:300000:10\n# demo\ndemo:x:y\n";
        assert_eq!(granted(text, "demo", 1000), 65_546);
        assert_eq!(granted(text, "demo", 7), 65_536);
        assert_eq!(granted(text, "other", 7), 0);
    }
}
