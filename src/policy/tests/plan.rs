//! Plans by level, role, limits and kernel.

use std::path::{Path, PathBuf};

use crate::policy::landlock::{
    MAKE_BLOCK, READ_FILE, REFER, RESOLVE_UNIX, SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL, TRUNCATE,
    WRITE_FILE, handled,
};
use crate::policy::sandbox::Network;
use crate::policy::{
    Enforcement, Gap, Grants, HostFacts, LandlockMode, Level, Limits, PlanError, PlanRequest,
    ProcessPlan, RlimitKind, Roots, plan,
};

pub(super) const HOST: HostFacts = HostFacts {
    landlock_abi: 9,
    seccomp: true,
    uid_tasks: 100,
    nofile_soft: 20_000,
    root: false,
    system: Vec::new(),
    fresh_proc: true,
    cgroup: false,
};

fn request() -> PlanRequest {
    PlanRequest {
        level: Level::Process,
        workspace_write: true,
        roots: Roots {
            home: Some("/s/a/home".into()),
            tmpdir: Some("/s/a/tmp".into()),
            workspace: Some("/w".into()),
            bus: Some("/r/a".into()),
            missionctl: Some("/opt/m".into()),
            extra_read: vec!["/data".into()],
            ..Roots::default()
        },
        limits: Limits { pids: Some(50), ..Limits::default() },
        network: Network::Host,
        ..PlanRequest::default()
    }
}

/// Rights that the plan gives on a path: those of every rule at or above it.
fn access(plan: &ProcessPlan, path: &str) -> u64 {
    let rules = &plan.landlock.as_ref().unwrap().rules;
    rules.iter().filter(|rule| Path::new(path).starts_with(&rule.path)).fold(0, |a, r| a | r.access)
}

#[test]
fn level_none_takes_nothing_away() {
    let plan = plan(&PlanRequest { level: Level::None, ..request() }, &HOST).unwrap();
    assert!(!plan.no_new_privs && plan.landlock.is_none());
    assert!(plan.seccomp.is_empty() && plan.rlimits.is_empty() && plan.gaps.is_empty());
}

#[test]
fn a_container_is_not_this_planners_to_give() {
    let level = Level::Container;
    let request = PlanRequest { level, ..request() };
    assert_eq!(plan(&request, &HOST), Err(PlanError::Level(level)));
}

#[test]
fn the_newest_kernel_leaves_only_the_limits_of_limits() {
    assert_eq!(plan(&request(), &HOST).unwrap().gaps, [Gap::PidsPerUser]);
}

#[test]
fn the_workspace_is_writable_by_role_only() {
    let writer = plan(&request(), &HOST).unwrap();
    assert_ne!(access(&writer, "/w/src") & WRITE_FILE, 0);
    let reader = plan(&PlanRequest { workspace_write: false, ..request() }, &HOST).unwrap();
    assert_eq!(access(&reader, "/w/src") & WRITE_FILE, 0);
    assert_ne!(access(&reader, "/w/src") & READ_FILE, 0);
}

#[test]
fn nothing_outside_the_agents_directories_and_the_system_is_granted() {
    let plan = plan(&request(), &HOST).unwrap();
    for path in ["/home/user/.ssh", "/root", "/tmp", "/s/b/home", "/s/mission.db", "/r/b", "/var/x"]
    {
        assert_eq!(access(&plan, path), 0, "{path}");
    }
    for path in ["/usr/bin/git", "/etc/passwd", "/proc/1/stat", "/data/x", "/opt/m/missionctl"] {
        assert_eq!(access(&plan, path) & (WRITE_FILE | READ_FILE), READ_FILE, "{path}");
    }
    assert_eq!(access(&plan, "/dev/sda") & (READ_FILE | WRITE_FILE), 0);
    assert_eq!(access(&plan, "/dev/pts/3") & (READ_FILE | WRITE_FILE), 0);
    assert_eq!(access(&plan, "/dev/shm/x") & WRITE_FILE, 0);
    assert_ne!(access(&plan, "/dev/null") & WRITE_FILE, 0);
    assert_eq!(access(&plan, "/r/a/bus.sock") & (RESOLVE_UNIX | WRITE_FILE), RESOLVE_UNIX);
}

#[test]
fn grants_open_what_they_name() {
    let grants = Grants { pty: true, shared_memory: true, ..Grants::default() };
    let plan = plan(&PlanRequest { grants, ..request() }, &HOST).unwrap();
    assert_ne!(access(&plan, "/dev/pts/3") & WRITE_FILE, 0);
    assert_ne!(access(&plan, "/dev/shm/x") & WRITE_FILE, 0);
}

#[test]
fn a_plan_holds_only_rights_that_its_kernel_knows_and_each_missing_one_is_a_gap() {
    for abi in 1..=9 {
        let host = HostFacts { landlock_abi: abi, ..HOST };
        let plan = plan(&request(), &host).unwrap();
        let domain = plan.landlock.as_ref().unwrap();
        assert_eq!(domain.handled, handled(abi));
        assert!(domain.rules.iter().all(|rule| rule.access & !handled(abi) == 0));
        assert!(domain.rules.iter().all(|rule| rule.access != 0), "the kernel refuses empty rules");
        assert_eq!(access(&plan, "/w/x") & REFER != 0, abi >= 2);
        assert_eq!(access(&plan, "/w/x") & TRUNCATE != 0, abi >= 3);
        let scopes = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
        assert_eq!(domain.scoped, if abi >= 6 { scopes } else { 0 });
        assert_eq!(plan.gaps.contains(&Gap::SignalsOpen { abi }), abi < 6);
        assert_eq!(plan.gaps.contains(&Gap::TruncateOpen { abi }), abi < 3);
        assert_eq!(plan.gaps.contains(&Gap::UnixSocketsOpen { abi }), abi < 9);
    }
}

#[test]
fn scope_only_handles_no_file_right_that_a_program_uses() {
    let request = PlanRequest { landlock: LandlockMode::ScopeOnly, ..request() };
    let domain = plan(&request, &HOST).unwrap().landlock.unwrap();
    assert_eq!((domain.handled, domain.rules.len()), (0, 0));
    let old = HostFacts { landlock_abi: 5, ..HOST };
    let domain = plan(&request, &old).unwrap().landlock.unwrap();
    assert_eq!((domain.handled, domain.scoped), (MAKE_BLOCK, 0));
}

#[test]
fn what_is_required_and_missing_refuses_the_plan_and_best_effort_says_so() {
    let bare = HostFacts { landlock_abi: 0, seccomp: false, ..HOST };
    assert_eq!(plan(&request(), &bare), Err(PlanError::Missing { what: "Landlock" }));
    let no_seccomp = HostFacts { seccomp: false, ..HOST };
    assert_eq!(plan(&request(), &no_seccomp), Err(PlanError::Missing { what: "seccomp filters" }));

    let lenient = PlanRequest { enforcement: Enforcement::BestEffort, ..request() };
    let gaps = plan(&lenient, &bare).unwrap().gaps;
    assert!(gaps.contains(&Gap::NoLandlock) && gaps.contains(&Gap::NoSeccomp));

    let strict = PlanRequest { landlock_min_abi: 6, ..request() };
    let old = HostFacts { landlock_abi: 5, ..HOST };
    assert_eq!(plan(&strict, &old), Err(PlanError::LandlockAbi { wanted: 6, present: 5 }));
}

#[test]
fn a_read_only_workspace_below_a_writable_directory_is_refused() {
    let mut request = PlanRequest { workspace_write: false, ..request() };
    request.roots.workspace = Some("/s/a/home/project".into());
    assert_eq!(
        plan(&request, &HOST),
        Err(PlanError::WorkspaceBelowWritable {
            workspace: "/s/a/home/project".into(),
            writable: "/s/a/home".into(),
        })
    );
}

#[test]
fn a_root_that_is_not_a_plain_absolute_directory_is_refused() {
    for path in ["/", "relative", "/a/../b", ""] {
        let mut request = request();
        request.roots.extra_write = vec![path.into()];
        let error = plan(&request, &HOST).unwrap_err();
        assert_eq!(error, PlanError::UncleanPath { path: PathBuf::from(path) });
    }
}

#[test]
fn limits_become_rlimits_and_cores_are_never_written() {
    let mut request = request();
    request.limits = Limits {
        memory: Some(1 << 30),
        pids: Some(50),
        nofile: Some(1000),
        file_size: Some(1 << 20),
        cpu_seconds: Some(60),
        cpu_milli: Some(1500),
    };
    let plan = plan(&request, &HOST).unwrap();
    let limit = |kind| {
        let found = plan.rlimits.iter().find(|limit| limit.kind == kind).unwrap();
        (found.soft, found.hard)
    };
    assert_eq!(limit(RlimitKind::Core), (1, 1));
    assert_eq!(limit(RlimitKind::Nproc), (150, 150), "on top of what the user runs");
    assert_eq!(limit(RlimitKind::Data), (1 << 30, 1 << 30));
    assert_eq!(limit(RlimitKind::Nofile), (1000, 1000));
    assert_eq!(limit(RlimitKind::FileSize), (1 << 20, 1 << 20));
    assert_eq!(limit(RlimitKind::Cpu), (60, 65));
}

#[test]
fn an_agents_open_files_stay_below_half_of_the_daemons() {
    let small = HostFacts { nofile_soft: 1024, ..HOST };
    let plan_default = plan(&request(), &small).unwrap();
    let nofile = plan_default.rlimits.iter().find(|l| l.kind == RlimitKind::Nofile).unwrap();
    assert_eq!(nofile.hard, 512);

    let mut greedy = request();
    greedy.limits.nofile = Some(513);
    assert_eq!(
        plan(&greedy, &small),
        Err(PlanError::LimitTooHigh { limit: "nofile", asked: 513, most: 512 })
    );
}

#[test]
fn every_gap_is_a_sentence() {
    let gap = Gap::SignalsOpen { abi: 4 }.to_string();
    assert!(gap.starts_with("Landlock ABI 4") && gap.len() > 40);
}
