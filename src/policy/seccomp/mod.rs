//! Which system calls an agent may make: the small filter of level 1, and OCI profiles for level 2.
//!
//! ```text
//! policies/seccomp/default.json + grants/*.json -> oci -> compile -> BPF
//!                                    names, numbers --^
//! ```
//!
//! The filter of level 1 closes what Landlock leaves open between processes of one user (a sibling's
//! limits, affinity, priority), the two terminal ioctls that inject input, and system call tables that
//! a filter by number would miss. Everything else is allowed: level 1 is not a boundary, and a long
//! list here would only break programs.
//!
//! | call | answer at level 1 |
//! |---|---|
//! | another architecture's table, x32 | `ENOSYS` |
//! | `prlimit64`, `sched_set*` | allowed with pid 0, else `EPERM` |
//! | `setpriority`, `ioprio_set` | allowed for oneself or one's own group by 0, else `EPERM` |
//! | `ioctl` `TIOCSTI`, `TIOCLINUX` | `EPERM`, by the low 32 bits (CVE-2019-10063) |
//!
//! "Own pid by number" can't be told from another's pid in a filter, so such calls get `EPERM` too;
//! libc's own wrappers for the calling process pass 0. At level 2 none of those is needed: the pid
//! namespace holds nobody else.

pub(in crate::policy) mod compile;
pub(in crate::policy) mod numbers;
mod oci;

use std::sync::{Arc, OnceLock};

pub use self::oci::{Profile, ProfileError};
use super::bpf::{Assembler, BpfError, DATA_ARCH, DATA_NR, Instruction, data_arg_low};
use super::grants::Grants;

/// `SECCOMP_RET_ALLOW`.
pub const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_ERRNO`; the low 16 bits are the errno.
pub const ERRNO: u32 = 0x0005_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// First number of the x32 table on x86-64 (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u32 = 0x4000_0000;

/// `TIOCSTI`, asm-generic/ioctls.h: puts a byte into a terminal's input.
pub const TIOCSTI: u32 = 0x5412;
/// `TIOCLINUX`, asm-generic/ioctls.h: selection and paste on a virtual console.
pub const TIOCLINUX: u32 = 0x541C;

/// A machine whose system call numbers this build knows (linux/audit.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// `AUDIT_ARCH_*`.
    pub audit: u32,
    /// What container engines call it (Go's `GOARCH`).
    pub goarch: &'static str,
    /// The table has an x32 half.
    pub x32: bool,
    /// Calls whose argument 0 is a process and must be 0.
    pub own_process_only: [u32; 5],
    /// `setpriority`.
    pub setpriority: u32,
    /// `ioprio_set`.
    pub ioprio_set: u32,
    /// `ioctl`.
    pub ioctl: u32,
}

/// x86-64: arch/x86/entry/syscalls/syscall_64.tbl.
pub const X86_64: Architecture = Architecture {
    audit: 0xC000_003E,
    goarch: "amd64",
    x32: true,
    // prlimit64, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr
    own_process_only: [302, 142, 144, 203, 314],
    setpriority: 141,
    ioprio_set: 251,
    ioctl: 16,
};

/// arm64: include/uapi/asm-generic/unistd.h.
pub const AARCH64: Architecture = Architecture {
    audit: 0xC000_00B7,
    goarch: "arm64",
    x32: false,
    own_process_only: [261, 118, 119, 122, 274],
    setpriority: 140,
    ioprio_set: 30,
    ioctl: 29,
};

/// The machine this program was built for, if its table is known.
#[must_use]
pub const fn native() -> Option<Architecture> {
    if cfg!(target_arch = "x86_64") {
        Some(X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(AARCH64)
    } else {
        None
    }
}

/// `PRIO_PROCESS` and `PRIO_PGRP`; 2 is `PRIO_USER`, which would reach the daemon.
const SETPRIORITY_WHICH: [u32; 2] = [0, 1];
/// `IOPRIO_WHO_PROCESS` and `IOPRIO_WHO_PGRP`; 3 is `IOPRIO_WHO_USER`.
const IOPRIO_WHICH: [u32; 2] = [1, 2];

/// The profile of level 2, as it is written.
const DEFAULT: &str = include_str!("../../../policies/seccomp/default.json");

/// Whether something is granted.
type Granted = fn(&Grants) -> bool;

/// What each grant changes in a profile.
const AMENDMENTS: [(Granted, &str); 4] = [
    (|grants| grants.ptrace, include_str!("../../../policies/seccomp/grants/ptrace.json")),
    (|grants| grants.userns, include_str!("../../../policies/seccomp/grants/userns.json")),
    (|grants| grants.io_uring, include_str!("../../../policies/seccomp/grants/io_uring.json")),
    (|grants| grants.perf, include_str!("../../../policies/seccomp/grants/perf.json")),
];

impl Profile {
    /// The profile that is built in.
    ///
    /// # Errors
    /// It can't be read, which the tests exclude.
    pub fn builtin() -> Result<Self, ProfileError> {
        Self::parse(DEFAULT)
    }

    /// The same profile with what these grants change in it.
    ///
    /// # Errors
    /// A grant's part can't be read, which the tests exclude.
    pub fn with_grants(mut self, grants: Grants) -> Result<Self, ProfileError> {
        for (granted, text) in AMENDMENTS {
            if granted(&grants) {
                self.amend(text)?;
            }
        }
        Ok(self)
    }
}

/// The built-in filter for these grants on this machine, compiled at its first use.
///
/// # Errors
/// It can't be compiled, which the tests exclude for every known architecture.
pub fn builtin(arch: &Architecture, grants: Grants) -> Result<Arc<[Instruction]>, ProfileError> {
    /// One for each combination of grants, of the native architecture only.
    static COMPILED: [OnceLock<Arc<[Instruction]>>; 16] = [const { OnceLock::new() }; 16];
    let slot = AMENDMENTS
        .iter()
        .enumerate()
        .fold(0, |slot, (bit, (granted, _))| slot | usize::from(granted(&grants)) << bit);
    let cached = COMPILED.get(slot).filter(|_| native().as_ref() == Some(arch));
    if let Some(filter) = cached.and_then(OnceLock::get) {
        return Ok(Arc::clone(filter));
    }
    let filter: Arc<[Instruction]> = Profile::builtin()?.with_grants(grants)?.compile(arch)?.into();
    if let Some(slot) = cached {
        return Ok(Arc::clone(slot.get_or_init(|| filter)));
    }
    Ok(filter)
}

/// Assembles the filter of level 1.
///
/// The kernel runs a filter once per system call number when it is loaded (to know which calls are
/// always allowed), so the shape is a short chain: one load, nine comparisons.
///
/// # Errors
/// Only if the program can't be encoded, which the tests exclude for every known architecture.
pub fn level_1(arch: &Architecture) -> Result<Vec<Instruction>, BpfError> {
    let mut asm = Assembler::new();
    let (absent, denied, allowed) = (asm.label(), asm.label(), asm.label());
    let (own_process, setpriority, ioprio_set, ioctl) =
        (asm.label(), asm.label(), asm.label(), asm.label());

    asm.load(DATA_ARCH);
    asm.unless_equal(arch.audit, absent);
    asm.load(DATA_NR);
    if arch.x32 {
        asm.if_at_least(X32_BIT, absent);
    }
    asm.if_equal(arch.ioctl, ioctl);
    for number in arch.own_process_only {
        asm.if_equal(number, own_process);
    }
    asm.if_equal(arch.setpriority, setpriority);
    asm.if_equal(arch.ioprio_set, ioprio_set);
    asm.ret(ALLOW);

    asm.place(ioctl);
    asm.load(data_arg_low(1));
    asm.if_equal(TIOCSTI, denied);
    asm.if_equal(TIOCLINUX, denied);
    asm.ret(ALLOW);

    // pid_t is an int: the kernel drops the high half of the register, so does the filter.
    for (label, which) in [(setpriority, SETPRIORITY_WHICH), (ioprio_set, IOPRIO_WHICH)] {
        let who = asm.label();
        asm.place(label);
        asm.load(data_arg_low(0));
        asm.if_equal(which[0], who);
        asm.unless_equal(which[1], denied);
        asm.place(who);
        asm.load(data_arg_low(1));
        asm.if_equal(0, allowed);
        asm.ret(ERRNO | EPERM);
    }

    asm.place(own_process);
    asm.load(data_arg_low(0));
    asm.unless_equal(0, denied);
    asm.place(allowed);
    asm.ret(ALLOW);
    asm.place(denied);
    asm.ret(ERRNO | EPERM);
    asm.place(absent);
    asm.ret(ERRNO | ENOSYS);
    asm.finish()
}
