//! What the kernel gives: namespaces, Landlock, seccomp.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::report::Check;
use crate::launch::{Level2, Step};

const NAMESPACES: &str = "user namespaces";

/// What it is; a fact for those who are asked for help.
pub(super) fn version() -> Check {
    const NAME: &str = "kernel";
    let Ok(name) = nix::sys::utsname::uname() else {
        return Check::gap(NAME, "unknown", &["uname failed"], &[]);
    };
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    Check::ok(NAME, format!("Linux {} {}", text(name.release()), text(name.machine())))
}

/// Whether a sandbox of level 2 can be made.
pub(super) fn namespaces(probe: Result<&Level2, &io::Error>) -> Check {
    match probe {
        Ok(Level2::Works { .. }) => Check::ok(NAMESPACES, "a sandbox was made"),
        Ok(Level2::Fails { step, errno, detail }) => {
            let errno = Errno::from_raw(*errno);
            let on = if detail.is_empty() { String::new() } else { format!(" {detail}") };
            let found = format!("{step}{on}: {} ({errno:?})", errno.desc().to_lowercase());
            let exe = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/missiond".into());
            let remedy = namespaces_remedy(*step, errno, &Settings::read(), &exe);
            let remedy: Vec<&str> = remedy.iter().map(String::as_str).collect();
            Check::missing(NAMESPACES, 2, found, &remedy)
        }
        Err(error) => Check::missing(
            NAMESPACES,
            2,
            format!("the probe gives no answer: {error}"),
            &["Look for a limit of processes: `ulimit -u`, pids.max of the control group"],
        ),
    }
}

/// A `/proc` of its own is the one thing that level 2 can do without.
pub(super) fn own_proc(probe: Option<&Level2>) -> Option<Check> {
    matches!(probe, Some(Level2::Works { own_proc: false })).then(|| {
        Check::gap(
            "own /proc",
            "the kernel refuses one, because parts of this machine's are covered (a container?)",
            &["agents at level 2 get none: programs that look at their own processes fail"],
            &["Start the container with an uncovered /proc: --security-opt unmask=ALL"],
        )
    })
}

/// What this machine says about user namespaces; `None` where there is no such setting.
#[derive(Debug, Default)]
struct Settings {
    /// `user.max_user_namespaces`.
    max: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, Debian's.
    debian: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, Ubuntu's.
    apparmor: Option<u64>,
    /// We are in a container.
    container: bool,
}

impl Settings {
    fn read() -> Settings {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        let is_there = |path: &str| Path::new(path).exists();
        Settings {
            max: number("/proc/sys/user/max_user_namespaces"),
            debian: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            container: is_there("/run/.containerenv")
                || is_there("/.dockerenv")
                || std::env::var_os("container").is_some(),
        }
    }
}

/// Sets a sysctl now and for the time after a restart.
fn sysctl(setting: &str) -> Vec<String> {
    vec![
        format!("sudo sysctl -w {setting}"),
        format!("echo '{setting}' | sudo tee /etc/sysctl.d/60-missiond.conf"),
    ]
}

fn namespaces_remedy(step: Step, errno: Errno, settings: &Settings, exe: &Path) -> Vec<String> {
    if settings.max == Some(0) {
        return sysctl("user.max_user_namespaces=15000");
    }
    if settings.debian == Some(0) {
        return sysctl("kernel.unprivileged_userns_clone=1");
    }
    // The namespace is granted there, and everything that one has it for is refused.
    if settings.apparmor == Some(1) {
        let exe = exe.display();
        return vec![
            format!(
                "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile missiond {exe} \
                 flags=(unconfined) {{\\n  userns,\\n}}\\n' | sudo tee /etc/apparmor.d/missiond"
            ),
            "sudo apparmor_parser -r /etc/apparmor.d/missiond".to_owned(),
        ];
    }
    if settings.container && matches!(errno, Errno::EPERM | Errno::EACCES) {
        return vec![
            "Start the container with --security-opt seccomp=unconfined and \
             --security-opt apparmor=unconfined, or use level 1 inside of it"
                .to_owned(),
        ];
    }
    match (step, errno) {
        (Step::Namespaces, Errno::ENOSPC) => vec![
            "All user namespaces that this user may have are in use".to_owned(),
            "sudo sysctl -w user.max_user_namespaces=15000".to_owned(),
        ],
        (Step::Namespaces, Errno::EINVAL | Errno::ENOSYS) => {
            vec!["Use a kernel with CONFIG_USER_NS, Linux 5.13 or later".to_owned()]
        }
        _ => vec!["Look for a security module that refuses it: sudo dmesg | tail".to_owned()],
    }
}

/// Landlock, by the ABI that the kernel names when it is asked for a ruleset.
pub(super) fn landlock(abi: u32) -> Check {
    const NAME: &str = "landlock";
    if abi == 0 {
        let active = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        let active = active.trim();
        let remedy = if active.is_empty() || active.contains("landlock") {
            "Use Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK".to_owned()
        } else {
            format!("Boot with lsm=landlock,{active} on the kernel's command line")
        };
        let found = "this kernel has none, or it is switched off";
        return Check::missing(NAME, 1, found, &[&remedy]);
    }
    let found = format!("ABI {abi}");
    let lacks: Vec<_> = [
        (3, "truncating files outside is open at level 1 (Linux 6.2)"),
        (
            6,
            "signals and abstract sockets of the user's processes are open at level 1 (Linux 6.12)",
        ),
        (9, "services of the user with a Unix socket are open at level 1 (Linux 7.1)"),
    ]
    .into_iter()
    .filter(|(since, _)| abi < *since)
    .map(|(_, what)| what)
    .collect();
    if lacks.is_empty() {
        return Check::ok(NAME, found);
    }
    Check::gap(NAME, found, &lacks, &["Use the kernel named, or level 2"])
}

/// Seccomp, by loading a filter that can't be loaded.
pub(super) fn seccomp(available: bool) -> Check {
    const NAME: &str = "seccomp";
    if available {
        Check::ok(NAME, "filters can be loaded")
    } else {
        let remedy = ["Use a kernel with CONFIG_SECCOMP_FILTER"];
        Check::missing(NAME, 1, "this kernel loads no filters", &remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy(step: Step, errno: Errno, settings: &Settings) -> String {
        namespaces_remedy(step, errno, settings, Path::new("/opt/missiond")).join("\n")
    }

    #[test]
    fn each_way_of_forbidding_user_namespaces_has_its_own_remedy() {
        let none = Settings::default();
        let off = Settings { max: Some(0), ..Settings::default() };
        let text = remedy(Step::Namespaces, Errno::ENOSPC, &off);
        assert!(text.contains("sysctl -w user.max_user_namespaces=15000"), "{text}");
        assert!(text.contains("/etc/sysctl.d/"), "{text}");
        let debian = Settings { max: Some(100), debian: Some(0), ..Settings::default() };
        let text = remedy(Step::Namespaces, Errno::EPERM, &debian);
        assert!(text.contains("kernel.unprivileged_userns_clone=1"), "{text}");
        let ubuntu = Settings { apparmor: Some(1), debian: Some(1), ..Settings::default() };
        let text = remedy(Step::IdMap, Errno::EPERM, &ubuntu);
        assert!(text.contains("profile missiond /opt/missiond flags=(unconfined)"), "{text}");
        let container = Settings { container: true, ..Settings::default() };
        let text = remedy(Step::Namespaces, Errno::EPERM, &container);
        assert!(text.contains("--security-opt seccomp=unconfined"), "{text}");
        assert!(remedy(Step::Namespaces, Errno::ENOSPC, &none).contains("are in use"));
        assert!(remedy(Step::Mount, Errno::EPERM, &none).contains("security module"));
    }

    #[test]
    fn a_failed_probe_names_its_step_and_errno() {
        let probe = Level2::Fails {
            step: Step::IdMap,
            errno: libc::EPERM,
            detail: "/proc/self/uid_map".into(),
        };
        let check = namespaces(Ok(&probe));
        assert!(check.found.contains("/proc/self/uid_map"), "{check:?}");
        assert!(check.found.contains("(EPERM)") && check.level == 2, "{check:?}");
        assert!(own_proc(Some(&Level2::Works { own_proc: false })).is_some());
        assert_eq!(own_proc(Some(&Level2::Works { own_proc: true })), None);
    }

    #[test]
    fn an_older_landlock_is_a_gap_and_none_is_missing() {
        use super::super::report::State;
        assert_eq!(landlock(9).state, State::Ok);
        let old = landlock(2);
        assert_eq!((old.state, old.means.len()), (State::Gap, 3));
        assert!(old.means[0].contains("truncating") && old.means[1].contains("signals"));
        assert_eq!(landlock(7).means.len(), 1);
        assert_eq!((landlock(0).state, landlock(0).level), (State::Missing, 1));
    }
}
