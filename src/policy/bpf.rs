//! A small assembler for classic BPF, the language of seccomp filters (seccomp(2)).
//!
//! Jumps go forward to labels; [`Assembler::finish`] turns labels into the 8-bit offsets of the
//! encoding. It deliberately knows only the instructions that a filter over `struct seccomp_data`
//! needs: load a word, mask, compare, jump, return.

use serde::{Deserialize, Serialize};

/// One instruction, as `struct sock_filter` of `linux/filter.h` has it.
///
/// Serialised as an array of four numbers to keep launch requests short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u16, u8, u8, u32)", into = "(u16, u8, u8, u32)")]
pub struct Instruction {
    /// Operation, from `linux/bpf_common.h`.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it doesn't.
    pub jf: u8,
    /// The constant operand.
    pub k: u32,
}

impl From<(u16, u8, u8, u32)> for Instruction {
    fn from((code, jt, jf, k): (u16, u8, u8, u32)) -> Self {
        Self { code, jt, jf, k }
    }
}

impl From<Instruction> for (u16, u8, u8, u32) {
    fn from(i: Instruction) -> Self {
        (i.code, i.jt, i.jf, i.k)
    }
}

/// `BPF_LD | BPF_W | BPF_ABS`: load the 32-bit word at offset `k` of the data.
pub const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub const JUMP_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`, unsigned.
pub const JUMP_AT_LEAST: u16 = 0x35;
/// `BPF_JMP | BPF_JGT | BPF_K`, unsigned.
pub const JUMP_ABOVE: u16 = 0x25;
/// `BPF_JMP | BPF_JSET | BPF_K`: whether the accumulator has one of the bits of `k`.
pub const JUMP_ANY_BIT: u16 = 0x45;
/// `BPF_JMP | BPF_JA`: skip `k` instructions.
pub const JUMP: u16 = 0x05;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub const AND: u16 = 0x54;
/// `BPF_RET | BPF_K`.
pub const RETURN: u16 = 0x06;

/// Offset of `nr` in `struct seccomp_data`.
pub const DATA_NR: u32 = 0;
/// Offset of `arch` in `struct seccomp_data`.
pub const DATA_ARCH: u32 = 4;

/// Offset of the low 32 bits of argument `index` (0 to 5) on a little-endian machine.
#[must_use]
pub const fn data_arg_low(index: u32) -> u32 {
    16 + 8 * index
}

/// Offset of the high 32 bits of argument `index` (0 to 5) on a little-endian machine.
#[must_use]
pub const fn data_arg_high(index: u32) -> u32 {
    data_arg_low(index) + 4
}

/// What a filter says about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Always this `SECCOMP_RET_*`.
    Always(u32),
    /// It depends on the arguments, or can't be told.
    ByArguments,
}

/// Runs a filter for a call with unknown arguments, as the kernel does when it is loaded
/// (`seccomp_is_const_allow`).
#[must_use]
pub fn fate(program: &[Instruction], arch: u32, number: u32) -> Fate {
    let mut accumulator = 0;
    let mut at: usize = 0;
    // Jumps only go forward, so this ends.
    while let Some(&Instruction { code, jt, jf, k }) = program.get(at) {
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        let skip = match (code, k) {
            (LOAD, DATA_NR) => {
                accumulator = number;
                0
            }
            (LOAD, DATA_ARCH) => {
                accumulator = arch;
                0
            }
            (AND, mask) => {
                accumulator &= mask;
                0
            }
            (JUMP, far) => match usize::try_from(far) {
                Ok(far) => far,
                Err(_) => return Fate::ByArguments,
            },
            (JUMP_EQUAL, value) => branch(accumulator == value),
            (JUMP_AT_LEAST, value) => branch(accumulator >= value),
            (JUMP_ABOVE, value) => branch(accumulator > value),
            (JUMP_ANY_BIT, bits) => branch(accumulator & bits != 0),
            (RETURN, answer) => return Fate::Always(answer),
            _ => return Fate::ByArguments,
        };
        at += 1 + skip;
    }
    Fate::ByArguments
}

/// A jump target; made by [`Assembler::label`], set by [`Assembler::place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// Why a program can't be encoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BpfError {
    /// A label was used but never placed, or lies behind the jump.
    #[error("jump at instruction {at} to a label that isn't ahead of it")]
    Unplaced {
        /// Index of the jump.
        at: usize,
    },
    /// A conditional jump skips at most 255 instructions.
    #[error("jump at instruction {at} is too long")]
    TooFar {
        /// Index of the jump.
        at: usize,
    },
    /// The kernel takes at most 4,096 instructions (`BPF_MAXINSNS`).
    #[error("program of {0} instructions is longer than 4096")]
    TooLong(usize),
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Next,
    Label(Label),
}

#[derive(Debug)]
struct Draft {
    code: u16,
    k: u32,
    yes: Target,
    no: Target,
}

/// Collects instructions and resolves labels.
#[derive(Debug, Default)]
pub struct Assembler {
    drafts: Vec<Draft>,
    labels: Vec<Option<usize>>,
}

impl Assembler {
    /// An empty program.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a label that is not yet placed.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places `label` before the next instruction.
    pub fn place(&mut self, label: Label) {
        let here = self.drafts.len();
        if let Some(slot) = self.labels.get_mut(label.0) {
            *slot = Some(here);
        }
    }

    /// Loads the word at `offset` of the data into the accumulator.
    pub fn load(&mut self, offset: u32) {
        self.push(LOAD, offset, Target::Next, Target::Next);
    }

    /// Goes to `label` if the accumulator equals `value`, else on.
    pub fn if_equal(&mut self, value: u32, label: Label) {
        self.push(JUMP_EQUAL, value, Target::Label(label), Target::Next);
    }

    /// Goes on if the accumulator equals `value`, else to `label`.
    pub fn unless_equal(&mut self, value: u32, label: Label) {
        self.push(JUMP_EQUAL, value, Target::Next, Target::Label(label));
    }

    /// Goes to `label` if the accumulator is `value` or more, unsigned.
    pub fn if_at_least(&mut self, value: u32, label: Label) {
        self.push(JUMP_AT_LEAST, value, Target::Label(label), Target::Next);
    }

    /// Goes to `yes` if the accumulator equals `value`, else to `no`.
    pub fn branch_equal(&mut self, value: u32, yes: Label, no: Label) {
        self.push(JUMP_EQUAL, value, Target::Label(yes), Target::Label(no));
    }

    /// Goes to `yes` if the accumulator is more than `value`, unsigned, else to `no`.
    pub fn branch_above(&mut self, value: u32, yes: Label, no: Label) {
        self.push(JUMP_ABOVE, value, Target::Label(yes), Target::Label(no));
    }

    /// Goes to `yes` if the accumulator is `value` or more, unsigned, else to `no`.
    pub fn branch_at_least(&mut self, value: u32, yes: Label, no: Label) {
        self.push(JUMP_AT_LEAST, value, Target::Label(yes), Target::Label(no));
    }

    /// Goes to `yes` if the accumulator has one of these bits, else to `no`.
    pub fn if_any_bit(&mut self, bits: u32, yes: Label, no: Label) {
        self.push(JUMP_ANY_BIT, bits, Target::Label(yes), Target::Label(no));
    }

    /// Goes to `label`.
    pub fn jump(&mut self, label: Label) {
        self.branch_equal(0, label, label);
    }

    /// Keeps only these bits of the accumulator.
    pub fn and(&mut self, bits: u32) {
        self.push(AND, bits, Target::Next, Target::Next);
    }

    /// Ends the program with `value` (a `SECCOMP_RET_*` action).
    pub fn ret(&mut self, value: u32) {
        self.push(RETURN, value, Target::Next, Target::Next);
    }

    fn push(&mut self, code: u16, k: u32, yes: Target, no: Target) {
        self.drafts.push(Draft { code, k, yes, no });
    }

    /// Encodes the program.
    ///
    /// # Errors
    /// When a label is missing or too far, or the program is too long.
    pub fn finish(self) -> Result<Vec<Instruction>, BpfError> {
        if self.drafts.len() > 4096 {
            return Err(BpfError::TooLong(self.drafts.len()));
        }
        let offset = |at: usize, target: Target| match target {
            Target::Next => Ok(0),
            Target::Label(Label(index)) => {
                let place = self.labels.get(index).copied().flatten();
                let skip = place
                    .and_then(|place| place.checked_sub(at + 1))
                    .ok_or(BpfError::Unplaced { at })?;
                u8::try_from(skip).map_err(|_| BpfError::TooFar { at })
            }
        };
        self.drafts
            .iter()
            .enumerate()
            .map(|(at, draft)| {
                Ok(Instruction {
                    code: draft.code,
                    jt: offset(at, draft.yes)?,
                    jf: offset(at, draft.no)?,
                    k: draft.k,
                })
            })
            .collect()
    }
}
