//! System calls: their names, and what the plan's filter says to one.

use super::super::bpf::{self, Instruction};
use super::super::seccomp::{self, Architecture, numbers};
use super::{Blame, Remedy, Rule};

/// One system call, as a filter sees it (`struct seccomp_data`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// Grants that open calls, by name.
const GRANTED: [(&str, &[&str]); 4] = [
    ("ptrace", &["ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "personality"]),
    (
        "userns",
        &[
            "unshare",
            "setns",
            "clone",
            "clone3",
            "mount",
            "umount2",
            "pivot_root",
            "fsopen",
            "fsmount",
            "fsconfig",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "chroot",
            "sethostname",
        ],
    ),
    ("io_uring", &["io_uring_setup", "io_uring_enter", "io_uring_register"]),
    ("perf", &["perf_event_open"]),
];

/// The name of a call of this machine's table.
#[must_use]
pub fn call_name(call: &Call) -> Option<&'static str> {
    let arch = seccomp::native().filter(|arch: &Architecture| arch.audit == call.arch)?;
    numbers::name(call.number, &arch)
}

/// Whether the filter refuses this call with this errno, and what would allow it.
#[must_use]
pub fn filtered(filter: &[Instruction], call: &Call, errno: i32) -> Option<Blame> {
    let answer = evaluate(filter, call)?;
    let refused = answer & 0xffff_0000 == seccomp::ERRNO
        && i32::try_from(answer & 0xffff).is_ok_and(|said| said == errno);
    if !refused {
        return None;
    }
    let name = call_name(call).unwrap_or("of another machine's table");
    let grant = GRANTED.iter().find(|(_, calls)| calls.contains(&name));
    let remedy = grant.map_or(Remedy::None, |(grant, _)| Remedy::Grant(grant));
    Some(Blame { rule: Rule::SystemCall(name), remedy })
}

/// What a filter answers, as the kernel runs it; `None` for no filter, or one that the kernel wouldn't
/// have loaded.
fn evaluate(filter: &[Instruction], call: &Call) -> Option<u32> {
    let word = |offset: u32| {
        let half = |value: u64, high: bool| {
            u32::try_from(if high { value >> 32 } else { value & 0xffff_ffff }).ok()
        };
        match offset {
            bpf::DATA_NR => Some(call.number),
            bpf::DATA_ARCH => Some(call.arch),
            _ => {
                let index = usize::try_from(offset.checked_sub(16)? / 8).ok()?;
                half(*call.args.get(index)?, offset % 8 == 4)
            }
        }
    };
    let mut accumulator = 0;
    let mut at = 0_usize;
    // Jumps only go forward: a program of n instructions ends after n steps.
    for _ in 0..=filter.len() {
        let Instruction { code, jt, jf, k } = *filter.get(at)?;
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        at += match code {
            bpf::LOAD => {
                accumulator = word(k)?;
                0
            }
            bpf::AND => {
                accumulator &= k;
                0
            }
            bpf::JUMP => usize::try_from(k).ok()?,
            bpf::JUMP_EQUAL => branch(accumulator == k),
            bpf::JUMP_AT_LEAST => branch(accumulator >= k),
            bpf::JUMP_ABOVE => branch(accumulator > k),
            bpf::JUMP_ANY_BIT => branch(accumulator & k != 0),
            bpf::RETURN => return Some(k),
            _ => return None,
        };
    }
    None
}
