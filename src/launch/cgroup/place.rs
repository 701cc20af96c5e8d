//! Where this process stands in the hierarchy of control groups (cgroups(7), "/proc files").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// The directory of our own group in the version 2 hierarchy.
///
/// # Errors
/// No such hierarchy is mounted, we are in no group of it that can be seen, or `/proc` can't be read.
pub(super) fn own() -> Result<PathBuf, CgroupError> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|source| CgroupError::Io {
            what: "read",
            path: path.into(),
            source,
        })
    };
    let mounts = read("/proc/self/mountinfo")?;
    let groups = read("/proc/self/cgroup")?;
    find(&mounts, &groups).ok_or(CgroupError::NoHierarchy)
}

/// The members of a group, as far as they can be seen from here.
pub(super) fn members(group: &Path) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn find(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // One mounted later lies on top of an earlier one.
    mounts.lines().rev().filter_map(mount).find_map(|(root, point)| {
        // A mount may show a part of the hierarchy only (a container's does).
        let below = Path::new(group).strip_prefix(&root).ok()?;
        let is_outside = below.components().any(|part| part.as_os_str() == "..");
        (!is_outside).then(|| point.join(below))
    })
}

/// The root and the mount point of a version 2 hierarchy; of a line of mountinfo (proc(5)).
fn mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (left, right) = line.split_once(" - ")?;
    if right.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = left.split(' ').skip(3);
    Some((unescape(fields.next()?), unescape(fields.next()?)))
}

/// Blanks and the like are written in octal there.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = after.get(3..).unwrap_or("");
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "\
        22 28 0:20 / /proc rw,nosuid - proc proc rw\n\
        30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "\
        30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n";

    #[test]
    fn our_group_is_found_in_a_unified_and_in_a_hybrid_hierarchy() {
        let groups = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/m.service\n";
        let found =
            "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/m.service";
        assert_eq!(find(UNIFIED, groups).unwrap(), Path::new(found));
        let groups = "9:name=systemd:/\n4:memory:/a\n0::/x\n";
        assert_eq!(find(HYBRID, groups).unwrap(), Path::new("/sys/fs/cgroup/unified/x"));
    }

    #[test]
    fn a_container_sees_its_part_of_the_hierarchy_and_nothing_outside() {
        let mounts = "30 23 0:26 /docker/abc /sys/fs/c\\040g rw - cgroup2 cgroup rw\n";
        assert_eq!(find(mounts, "0::/docker/abc/x\n").unwrap(), Path::new("/sys/fs/c g/x"));
        assert_eq!(find(mounts, "0::/docker/other\n"), None);
        assert_eq!(find(UNIFIED, "0::/../other\n"), None);
    }

    #[test]
    fn without_a_version_2_hierarchy_there_is_no_group() {
        assert_eq!(find("22 28 0:20 / /proc rw - proc proc rw\n", "0::/\n"), None);
        assert_eq!(find(UNIFIED, "4:memory:/a\n"), None);
    }
}
