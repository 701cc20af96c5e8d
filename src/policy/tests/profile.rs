//! Profiles against the programs they become: an interpreter runs every call number with arguments
//! around each check, beside a plain reading of the rules.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use proptest::prelude::*;

use super::filter::{Call, run};
use crate::policy::Grants;
use crate::policy::bpf::{self, Fate, Instruction};
use crate::policy::seccomp::compile::{Comparison, Rule};
use crate::policy::seccomp::{
    AARCH64, ALLOW, Architecture, ERRNO, Profile, ProfileError, TIOCLINUX, TIOCSTI, X32_BIT,
    X86_64, builtin, numbers,
};

const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;
const EAFNOSUPPORT: u32 = ERRNO | 97;

/// None, each alone, and all together: a grant changes calls that no other one changes.
fn all_grants() -> impl Iterator<Item = Grants> {
    [0, 1, 2, 4, 8, 15].into_iter().map(|bits| Grants {
        ptrace: bits & 1 != 0,
        userns: bits & 2 != 0,
        io_uring: bits & 4 != 0,
        perf: bits & 8 != 0,
        ..Grants::default()
    })
}

fn verdict(program: &[Instruction], arch: &Architecture, number: u32, args: [u64; 6]) -> u32 {
    run(program, Call { number, arch: arch.audit, args })
}

/// Values at which a comparison changes its mind, and some with the other half set.
fn around(rule: &Rule) -> Vec<(usize, u64)> {
    let mut values = Vec::new();
    for condition in &rule.conditions {
        let near = match condition.comparison {
            Comparison::Masked { mask, value } => {
                let mut near = vec![value, !value, value ^ mask];
                near.extend([0, 1, 7, 17, 28, 31, 32, 63].map(|bit| value ^ (1 << bit)));
                near
            }
            Comparison::NotEqual(value)
            | Comparison::Less(value)
            | Comparison::AtMost(value)
            | Comparison::Greater(value)
            | Comparison::AtLeast(value) => vec![value],
        };
        for value in near {
            for value in [value.wrapping_sub(1), value, value.wrapping_add(1), value ^ (1 << 32)] {
                values.push((condition.argument as usize, value));
            }
        }
    }
    values
}

/// Compares the program with the reading of the profile for every call number.
fn agree(profile: &Profile, arch: &Architecture) {
    let program = profile.compile(arch).unwrap();
    let rules = profile.all(arch);
    let mut by_call: HashMap<u32, Vec<Rule>> = HashMap::new();
    for rule in &rules {
        by_call.entry(rule.call).or_default().push(rule.clone());
    }
    let check = |number: u32, args: [u64; 6]| {
        let own: &[Rule] = by_call.get(&number).map_or(&[], Vec::as_slice);
        let (ran, read) = (verdict(&program, arch, number, args), profile.says(own, number, args));
        assert_eq!(ran, read, "call {number} with {args:x?}");
    };
    for number in (0..600).chain([4096, X32_BIT - 1]) {
        for args in [[0; 6], [u64::MAX; 6], [1; 6], [0xFFFF_FFFF; 6], [1 << 32; 6]] {
            check(number, args);
        }
    }
    for rule in &rules {
        let values = around(rule);
        for &(index, value) in &values {
            for base in [0, u64::MAX] {
                let mut args = [base; 6];
                args[index] = value;
                check(rule.call, args);
                // Beside what makes the rule's other conditions hold.
                for condition in &rule.conditions {
                    if let Comparison::Masked { value, .. } = condition.comparison
                        && condition.argument as usize != index
                    {
                        args[condition.argument as usize] = value;
                    }
                }
                check(rule.call, args);
            }
        }
    }
}

#[test]
fn the_compiled_profile_says_what_the_file_says() {
    for arch in [X86_64, AARCH64] {
        for grants in all_grants() {
            agree(&Profile::builtin().unwrap().with_grants(grants).unwrap(), &arch);
        }
    }
}

#[test]
fn another_architecture_and_x32_have_no_calls_at_level_2() {
    for arch in [X86_64, AARCH64] {
        let program = builtin(&arch, Grants::default()).unwrap();
        for other in [0x4000_0003, 0x4000_0028, 0xC000_003E, 0xC000_00B7, 0] {
            for number in 0..600 {
                if other != arch.audit {
                    let call = Call { number, arch: other, args: [0; 6] };
                    assert_eq!(run(&program, call), ENOSYS);
                }
            }
        }
    }
    let program = builtin(&X86_64, Grants::default()).unwrap();
    for number in 0..600 {
        assert_eq!(verdict(&program, &X86_64, X32_BIT | number, [0; 6]), ENOSYS);
    }
}

fn compiled(arch: &Architecture, grants: Grants) -> Arc<[Instruction]> {
    type Programs = Mutex<HashMap<String, Arc<[Instruction]>>>;
    static PROGRAMS: LazyLock<Programs> = LazyLock::new(Programs::default);
    let mut programs = PROGRAMS.lock().unwrap();
    let program = programs.entry(format!("{} {grants:?}", arch.goarch));
    Arc::clone(program.or_insert_with(|| builtin(arch, grants).unwrap()))
}

/// The answer of the built-in profile.
fn answer(grants: Grants, name: &str, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let mut answers = [X86_64, AARCH64].into_iter().filter_map(|arch| {
        let number = numbers::number(name, &arch)?;
        Some(verdict(&compiled(&arch, grants), &arch, number, all))
    });
    let first = answers.next().unwrap();
    assert!(answers.all(|other| other == first), "{name}: the machines differ");
    first
}

#[test]
fn what_an_agent_must_not_do_is_refused() {
    let plain = |name: &str, args: &[u64]| answer(Grants::default(), name, args);
    for name in [
        "mount",
        "umount2",
        "fsopen",
        "open_tree",
        "move_mount",
        "pivot_root",
        "mount_setattr",
        "setns",
        "chroot",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "kexec_load",
        "init_module",
        "keyctl",
        "add_key",
        "request_key",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
        "kcmp",
        "open_by_handle_at",
        "name_to_handle_at",
        "sethostname",
        "syslog",
        "clock_settime",
        "reboot",
        "swapon",
        "quotactl",
        "io_uring_setup",
        "io_uring_enter",
    ] {
        assert_eq!(plain(name, &[]), EPERM, "{name}");
    }
    assert_eq!(plain("clone3", &[]), ENOSYS, "programs then use clone");
    for high in [0, 1 << 32, 0xFFFF_FFFF_0000_0000] {
        for request in [TIOCSTI, TIOCLINUX] {
            assert_eq!(plain("ioctl", &[0, u64::from(request) | high]), EPERM);
        }
    }
    for flag in
        [0x20000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
    {
        assert_eq!(plain("clone", &[flag | 17]), EPERM);
        assert_eq!(plain("unshare", &[flag | 0x400]), EPERM);
    }
    assert_eq!(plain("personality", &[0x0040_0000]), EPERM, "READ_IMPLIES_EXEC");
    for family in [17, 38, 40, 31, 29, 9] {
        assert_eq!(plain("socket", &[family, 2, 0]), EAFNOSUPPORT, "family {family}");
    }
    assert_eq!(plain("socket", &[16, 3, 12]), EPERM, "nfnetlink");
}

#[test]
fn what_programs_need_is_allowed() {
    let plain = |name: &str, args: &[u64]| answer(Grants::default(), name, args);
    for name in [
        "read",
        "openat",
        "openat2",
        "execve",
        "execveat",
        "mmap",
        "futex",
        "memfd_create",
        "inotify_init1",
        "setpriority",
        "linkat",
        "faccessat2",
        "statx",
        "rseq",
        "prlimit64",
        "close_range",
        "pidfd_open",
        "landlock_restrict_self",
        "seccomp",
        "epoll_pwait2",
        "shmget",
        "mknodat",
    ] {
        assert_eq!(plain(name, &[]), ALLOW, "{name}");
    }
    // pthread_create and fork, as glibc calls them.
    for flags in [0x003D_0F00, 0x0120_0011, 0x4111] {
        assert_eq!(plain("clone", &[flags]), ALLOW);
    }
    assert_eq!(plain("unshare", &[0x600]), ALLOW, "CLONE_FS | CLONE_FILES");
    for request in
        [0x5401, 0x5413, 0x541B, 0x5421, 0x5451, 0x5410, 0x5411, 0x5414, 0x541D, 0x8004_5430]
    {
        assert_eq!(plain("ioctl", &[0, request]), ALLOW, "{request:#x}");
    }
    for (family, protocol) in [(1, 0), (2, 6), (10, 17), (16, 0)] {
        assert_eq!(plain("socket", &[family, 1, protocol]), ALLOW);
    }
    for persona in [0, 0xFFFF_FFFF] {
        assert_eq!(plain("personality", &[persona]), ALLOW);
    }
}

#[test]
fn a_grant_opens_what_it_names_and_nothing_else() {
    let none = Grants::default();
    let grants = [
        (
            Grants { ptrace: true, ..none },
            vec!["ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"],
        ),
        (
            Grants { io_uring: true, ..none },
            vec!["io_uring_setup", "io_uring_enter", "io_uring_register"],
        ),
        (Grants { perf: true, ..none }, vec!["perf_event_open"]),
    ];
    for (granted, calls) in grants {
        for name in numbers::names() {
            let expected = if calls.contains(&name) { ALLOW } else { answer(none, name, &[]) };
            assert_eq!(answer(granted, name, &[]), expected, "{name}");
        }
    }
    let ptrace = Grants { ptrace: true, ..none };
    assert_eq!(answer(ptrace, "personality", &[0x0040_0000]), EPERM);
    assert_eq!(answer(ptrace, "personality", &[0x0004_0000]), ALLOW, "ADDR_NO_RANDOMIZE");
    assert_eq!(answer(none, "personality", &[0x0004_0000]), EPERM);
    let userns = Grants { userns: true, ..none };
    assert_eq!(answer(userns, "clone", &[0x1000_0011]), ALLOW);
    for name in ["clone3", "mount", "unshare", "pivot_root"] {
        assert_eq!(answer(userns, name, &[0x1000_0000]), ALLOW, "{name}");
    }
    assert_eq!(answer(userns, "bpf", &[]), EPERM);
}

#[test]
fn the_profiles_read_the_same_under_libseccomps_rule() {
    // There an unconditional rule wins over conditional ones, whatever their order.
    for arch in [X86_64, AARCH64] {
        for grants in all_grants() {
            let profile = Profile::builtin().unwrap().with_grants(grants).unwrap();
            let rules = profile.all(&arch);
            for rule in rules.iter().filter(|rule| rule.conditions.is_empty()) {
                let same = rules.iter().filter(|other| other.call == rule.call).count();
                assert_eq!(same, 1, "call {}", rule.call);
            }
        }
    }
    for name in Profile::builtin().unwrap().names() {
        assert!(numbers::names().any(|known| known == name), "{name} is no call of any machine");
    }
}

#[test]
fn the_table_of_numbers_is_sorted() {
    assert!(numbers::names().zip(numbers::names().skip(1)).all(|(one, next)| one < next));
}

#[test]
fn a_filter_is_small_and_its_tree_is_shallow() {
    for arch in [X86_64, AARCH64] {
        let program = builtin(&arch, Grants::default()).unwrap();
        assert!(program.len() < 700, "{} instructions", program.len());
        // The kernel runs it once for each number when it is loaded.
        let deepest = (0..500).map(|number| steps(&program, &arch, number)).max().unwrap();
        assert!(deepest < 24, "{deepest} steps to a plain call");
    }
}

/// Instructions until the program returns or looks at an argument.
fn steps(program: &[Instruction], arch: &Architecture, number: u32) -> usize {
    let (mut at, mut accumulator, mut count) = (0, 0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        count += 1;
        at += 1;
        let skip = match code {
            bpf::LOAD if k == bpf::DATA_ARCH => {
                accumulator = arch.audit;
                0
            }
            bpf::LOAD if k == bpf::DATA_NR => {
                accumulator = number;
                0
            }
            bpf::JUMP_EQUAL => {
                if accumulator == k {
                    jt
                } else {
                    jf
                }
            }
            bpf::JUMP_AT_LEAST => {
                if accumulator >= k {
                    jt
                } else {
                    jf
                }
            }
            bpf::JUMP => {
                at += usize::try_from(k).unwrap();
                0
            }
            _ => return count,
        };
        at += usize::from(skip);
    }
}

#[test]
fn what_is_said_of_a_call_is_what_happens_to_it() {
    let program = builtin(&X86_64, Grants::default()).unwrap();
    for number in 0..600 {
        match bpf::fate(&program, X86_64.audit, number) {
            Fate::Always(answer) => {
                for args in [[0; 6], [u64::MAX; 6], [u64::from(TIOCSTI); 6]] {
                    assert_eq!(verdict(&program, &X86_64, number, args), answer);
                }
            }
            Fate::ByArguments => {
                let by_arguments = ["clone", "unshare", "ioctl", "socket", "personality"];
                let is = |name: &&str| numbers::number(name, &X86_64) == Some(number);
                assert!(by_arguments.iter().any(is), "call {number}");
            }
        }
    }
}

fn rule_text(
    call: &str,
    action: &str,
    errno: Option<u16>,
    args: &[(u32, &str, u64, u64)],
) -> String {
    let errno = errno.map_or(String::new(), |errno| format!(r#","errnoRet":{errno}"#));
    let args: Vec<String> = args
        .iter()
        .map(|(index, op, value, two)| {
            format!(r#"{{"index":{index},"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}"#)
        })
        .collect();
    format!(
        r#"{{"names":["{call}"],"action":"SCMP_ACT_{action}"{errno},"args":[{}]}}"#,
        args.join(",")
    )
}

proptest! {
    /// Whatever somebody writes, the program says what the rules say.
    #[test]
    fn any_profile_compiles_to_what_it_says(
        rules in proptest::collection::vec(
            (
                prop::sample::select(vec!["read", "ioctl", "socket", "clone", "no_such_call"]),
                prop::sample::select(vec!["ALLOW", "ERRNO", "KILL_PROCESS", "LOG"]),
                proptest::option::of(0_u16..200),
                proptest::collection::vec(
                    (
                        0_u32..3,
                        prop::sample::select(vec!["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"]),
                        prop::sample::select(vec![0_u64, 1, 2, 0x5412, 0xFFFF_FFFF, 1 << 32, (1 << 32) | 1, u64::MAX]),
                        prop::sample::select(vec![0_u64, 1, 2, 0x5412, 0xFFFF_FFFF, 1 << 32, (1 << 32) | 1]),
                    ),
                    0..3,
                ),
            ),
            0..12,
        ),
    ) {
        let rules: Vec<String> = rules
            .iter()
            .map(|(call, action, errno, args)| rule_text(call, action, *errno, args))
            .collect();
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#,
            rules.join(",")
        );
        agree(&Profile::parse(&text).unwrap(), &X86_64);
    }
}

#[test]
fn a_podman_profile_is_read() {
    let text = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
        "syscalls": [
            {"names": ["bdflush"], "action": "SCMP_ACT_ERRNO", "args": [], "comment": "", "includes": {}, "excludes": {}, "errnoRet": 1, "errno": "EPERM"},
            {"names": ["read", "_llseek"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": {"minKernel": "4.8"}, "excludes": {}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}, "errnoRet": 1, "errno": "EPERM"}
        ]}"#;
    let profile = Profile::parse(text).unwrap();
    let says = |arch: &Architecture, name: &str| {
        numbers::number(name, arch).map(|number| profile.says(&profile.all(arch), number, [0; 6]))
    };
    assert_eq!(says(&X86_64, "read"), Some(ALLOW));
    assert_eq!(says(&X86_64, "ptrace"), Some(ALLOW));
    assert_eq!(says(&X86_64, "arch_prctl"), Some(ALLOW));
    assert_eq!(says(&AARCH64, "arch_prctl"), None);
    assert_eq!(says(&X86_64, "bpf"), Some(EPERM));
    assert_eq!(says(&X86_64, "mount"), Some(ENOSYS));
    agree(&profile, &X86_64);
    agree(&profile, &AARCH64);
}

#[test]
fn a_profile_that_cannot_be_enforced_is_refused_with_its_place() {
    let parse = |text: &str| Profile::parse(text).unwrap_err();
    let bad = "{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n \"syscalls\": [{\"names\": [\"read\"], \"action\": \"SCMP_ACT_NOTIFY\"}]}";
    let ProfileError::Format { line, what, .. } = parse(bad) else { panic!("another error") };
    assert_eq!(line, 2);
    assert!(what.contains("SCMP_ACT_NOTIFY") && !what.contains(" at line "), "{what}");
    let arg = rule_text("read", "ALLOW", None, &[(6, "EQ", 0, 0)]);
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{arg}]}}"#);
    assert_eq!(parse(&text), ProfileError::Argument { call: "read".into(), index: 6 });
    let unknown = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[],"sysclals":[]}"#;
    assert!(matches!(parse(unknown), ProfileError::Format { .. }));
}

#[test]
fn a_large_profile_still_compiles() {
    // A different answer for each, so that no two share their code.
    let rules: Vec<String> = (0..)
        .zip(numbers::names())
        .map(|(errno, name)| rule_text(name, "ERRNO", Some(errno), &[(0, "EQ", 7, 0)]))
        .collect();
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, rules.join(","));
    let profile = Profile::parse(&text).unwrap();
    assert!(profile.compile(&X86_64).unwrap().len() > 1000, "long jumps are needed");
    agree(&profile, &X86_64);
}
