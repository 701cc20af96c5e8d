//! The seccomp filter, run by an interpreter over every call number.

use proptest::prelude::*;

use crate::policy::bpf::{self, Assembler, BpfError, Instruction};
use crate::policy::seccomp::{
    AARCH64, ALLOW, Architecture, ERRNO, TIOCLINUX, TIOCSTI, X32_BIT, X86_64, level_1,
};

const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// `struct seccomp_data`, little-endian.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = Vec::new();
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.arch.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        for arg in self.args {
            bytes.extend(arg.to_le_bytes());
        }
        let at = usize::try_from(offset).unwrap();
        assert_eq!(at % 4, 0, "the kernel refuses unaligned loads");
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

/// Runs a program as the kernel does; panics where the kernel's verifier would refuse it.
pub(super) fn run(program: &[Instruction], call: Call) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds: bool| if holds { jt } else { jf };
        let skip = match code {
            bpf::LOAD => {
                accumulator = call.word(k);
                0
            }
            bpf::AND => {
                accumulator &= k;
                0
            }
            bpf::JUMP => {
                at += usize::try_from(k).unwrap();
                0
            }
            bpf::JUMP_EQUAL => branch(accumulator == k),
            bpf::JUMP_AT_LEAST => branch(accumulator >= k),
            bpf::JUMP_ABOVE => branch(accumulator > k),
            bpf::JUMP_ANY_BIT => branch(accumulator & k != 0),
            bpf::RETURN => return k,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(skip);
    }
}

fn verdict(arch: &Architecture, number: u32, args: [u64; 6]) -> u32 {
    run(&level_1(arch).unwrap(), Call { number, arch: arch.audit, args })
}

fn guarded(arch: &Architecture) -> Vec<u32> {
    let mut list = arch.own_process_only.to_vec();
    list.extend([arch.setpriority, arch.ioprio_set, arch.ioctl]);
    list
}

#[test]
fn every_other_call_number_is_allowed_whatever_its_arguments() {
    for arch in [X86_64, AARCH64] {
        for number in 0..2048 {
            if !guarded(&arch).contains(&number) {
                for args in [[0; 6], [u64::MAX; 6], [u64::from(TIOCSTI); 6]] {
                    assert_eq!(verdict(&arch, number, args), ALLOW, "call {number}");
                }
            }
        }
    }
}

#[test]
fn a_call_about_a_process_goes_through_with_pid_0_only() {
    for arch in [X86_64, AARCH64] {
        for number in arch.own_process_only {
            assert_eq!(verdict(&arch, number, [0, 7, 7, 7, 7, 7]), ALLOW);
            for pid in [1, 4242, u64::from(u32::MAX), 0xFFFF_FFFF_0000_0001] {
                assert_eq!(verdict(&arch, number, [pid, 0, 0, 0, 0, 0]), EPERM);
            }
            // pid_t is 32 bits: the kernel sees 0 here.
            assert_eq!(verdict(&arch, number, [1 << 32, 0, 0, 0, 0, 0]), ALLOW);
        }
    }
}

#[test]
fn priorities_change_for_oneself_and_ones_own_group_only() {
    for arch in [X86_64, AARCH64] {
        for (number, process, group, user) in
            [(arch.setpriority, 0, 1, 2), (arch.ioprio_set, 1, 2, 3)]
        {
            let verdict = |which, who| verdict(&arch, number, [which, who, 5, 0, 0, 0]);
            assert_eq!(verdict(process, 0), ALLOW);
            assert_eq!(verdict(group, 0), ALLOW);
            assert_eq!(verdict(user, 0), EPERM, "0 is every process of the user here");
            for which in [process, group, user, 99] {
                assert_eq!(verdict(which, 4242), EPERM);
            }
        }
    }
}

#[test]
fn terminal_injection_is_refused_by_the_low_32_bits() {
    for arch in [X86_64, AARCH64] {
        for request in [TIOCSTI, TIOCLINUX] {
            for high in [0, 1 << 32, 0xFFFF_FFFF_0000_0000] {
                let args = [0, u64::from(request) | high, 0, 0, 0, 0];
                assert_eq!(verdict(&arch, arch.ioctl, args), EPERM);
            }
        }
        assert_eq!(verdict(&arch, arch.ioctl, [0, 0x5401, 0, 0, 0, 0]), ALLOW, "TCGETS");
    }
}

#[test]
fn another_architecture_and_x32_have_no_calls() {
    for arch in [X86_64, AARCH64] {
        let program = level_1(&arch).unwrap();
        for other in [0x4000_0003, 0x4000_0028, 0xC000_003E, 0xC000_00B7, 0] {
            for number in 0..1024 {
                let call = Call { number, arch: other, args: [0; 6] };
                if other != arch.audit {
                    assert_eq!(run(&program, call), ENOSYS);
                }
            }
        }
    }
    for number in 0..1024 {
        assert_eq!(verdict(&X86_64, X32_BIT | number, [0; 6]), ENOSYS);
    }
}

proptest! {
    #[test]
    fn no_call_has_any_other_answer(number: u32, arch: u32, args: [u64; 6], known: bool) {
        let program = level_1(&X86_64).unwrap();
        let arch = if known { X86_64.audit } else { arch };
        let answer = run(&program, Call { number, arch, args });
        prop_assert!([ALLOW, EPERM, ENOSYS].contains(&answer));
    }
}

#[test]
fn the_assembler_refuses_what_it_cannot_encode() {
    let mut backwards = Assembler::new();
    let label = backwards.label();
    backwards.place(label);
    backwards.if_equal(1, label);
    assert_eq!(backwards.finish(), Err(BpfError::Unplaced { at: 0 }));

    let mut far = Assembler::new();
    let label = far.label();
    far.if_equal(1, label);
    for _ in 0..256 {
        far.ret(0);
    }
    far.place(label);
    far.ret(0);
    assert_eq!(far.finish(), Err(BpfError::TooFar { at: 0 }));

    let mut long = Assembler::new();
    for _ in 0..4097 {
        long.ret(0);
    }
    assert_eq!(long.finish(), Err(BpfError::TooLong(4097)));
}
