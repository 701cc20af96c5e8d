//! From rules to a filter whose shape is cheap to load and to run.
//!
//! ```text
//! load arch; not ours -> ENOSYS
//! load nr;   x32      -> ENOSYS
//! balanced tree of "nr >= k ?" over ranges of calls with equal answers
//!    `- leaf: an answer, or checks of arguments and then the default
//! ```
//!
//! The kernel runs a filter once for each call number when it is loaded, to know which calls it may
//! let through without running it again: so depth counts at each start, and a tree beats a list.
//!
//! It deliberately doesn't cache and doesn't know names; arguments are compared as 64-bit values, as
//! libseccomp does, so a profile that means 32 bits says so with a mask.

use super::{Architecture, ENOSYS, ERRNO, X32_BIT};
use crate::policy::bpf::{
    Assembler, BpfError, DATA_ARCH, DATA_NR, Instruction, JUMP, JUMP_AT_LEAST, JUMP_EQUAL, LOAD,
    Label, RETURN, data_arg_high, data_arg_low,
};

/// Alternatives in one stretch of jumps: each takes four instructions at most, and a jump reaches 255.
const STRETCH: usize = 48;

/// What is said about one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct Rule {
    /// The call's number.
    pub(in crate::policy) call: u32,
    /// A `SECCOMP_RET_*`.
    pub(in crate::policy) answer: u32,
    /// All of them must hold.
    pub(in crate::policy) conditions: Vec<Condition>,
}

/// A look at one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) struct Condition {
    /// 0 to 5.
    pub(in crate::policy) argument: u32,
    /// What must be so.
    pub(in crate::policy) comparison: Comparison,
}

/// An unsigned comparison of all 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) enum Comparison {
    /// The bits of the mask are those of the value.
    Masked {
        mask: u64,
        value: u64,
    },
    NotEqual(u64),
    Less(u64),
    AtMost(u64),
    Greater(u64),
    AtLeast(u64),
}

#[cfg(test)]
impl Rule {
    /// Whether it is about a call with these arguments.
    pub(in crate::policy) fn fits(&self, args: [u64; 6]) -> bool {
        self.conditions.iter().all(|condition| {
            let arg = args[condition.argument as usize];
            match condition.comparison {
                Comparison::Masked { mask, value } => arg & mask == value,
                Comparison::NotEqual(value) => arg != value,
                Comparison::Less(value) => arg < value,
                Comparison::AtMost(value) => arg <= value,
                Comparison::Greater(value) => arg > value,
                Comparison::AtLeast(value) => arg >= value,
            }
        })
    }
}

/// Compiles rules; of those for one call the first that fits decides.
pub(super) fn compile(
    rules: &[Rule],
    default: u32,
    arch: &Architecture,
) -> Result<Vec<Instruction>, BpfError> {
    let ranges = ranges(rules, default)?;
    let mut program = vec![
        instruction(LOAD, 0, 0, DATA_ARCH),
        instruction(JUMP_EQUAL, 1, 0, arch.audit),
        instruction(RETURN, 0, 0, ERRNO | ENOSYS),
        instruction(LOAD, 0, 0, DATA_NR),
    ];
    if arch.x32 {
        program.push(instruction(JUMP_AT_LEAST, 0, 1, X32_BIT));
        program.push(instruction(RETURN, 0, 0, ERRNO | ENOSYS));
    }
    program.extend(tree(&ranges)?);
    if program.len() > 4096 {
        return Err(BpfError::TooLong(program.len()));
    }
    Ok(program)
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Calls from `start` to the next range, and the code for them.
struct Range {
    start: u32,
    code: Vec<Instruction>,
}

fn ranges(rules: &[Rule], default: u32) -> Result<Vec<Range>, BpfError> {
    let mut by_call: std::collections::BTreeMap<u32, Vec<&Rule>> = Default::default();
    for rule in rules {
        by_call.entry(rule.call).or_default().push(rule);
    }
    let mut ranges: Vec<Range> = Vec::new();
    let mut push = |start, code: Vec<Instruction>| {
        if ranges.last().is_none_or(|last: &Range| last.code != code) {
            ranges.push(Range { start, code });
        }
    };
    let otherwise = || vec![instruction(RETURN, 0, 0, default)];
    let mut next = 0;
    for (call, rules) in by_call {
        if call > next {
            push(next, otherwise());
        }
        push(call, leaf(&rules, default)?);
        next = call + 1;
    }
    push(next, otherwise());
    Ok(ranges)
}

/// A balanced search for the range of a number.
fn tree(ranges: &[Range]) -> Result<Vec<Instruction>, BpfError> {
    let [first, .., _] = ranges else {
        return Ok(ranges.first().map(|range| range.code.clone()).unwrap_or_default());
    };
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let start = high.first().unwrap_or(first).start;
    let (low, high) = (tree(low)?, tree(high)?);
    let mut code = match u8::try_from(low.len()) {
        Ok(skip) => vec![instruction(JUMP_AT_LEAST, skip, 0, start)],
        Err(_) => {
            let far = u32::try_from(low.len()).map_err(|_| BpfError::TooLong(low.len()))?;
            vec![instruction(JUMP_AT_LEAST, 0, 1, start), instruction(JUMP, 0, 0, far)]
        }
    };
    code.extend(low);
    code.extend(high);
    Ok(code)
}

/// The code for one call: its rules in order, then the default.
fn leaf(rules: &[&Rule], default: u32) -> Result<Vec<Instruction>, BpfError> {
    let mut asm = Assembler::new();
    let mut rest = rules;
    while let Some((rule, after)) = rest.split_first() {
        match &rule.conditions[..] {
            [] => {
                asm.ret(rule.answer);
                return asm.finish();
            }
            [_] => {
                let alike = rest
                    .iter()
                    .take_while(|other| other.answer == rule.answer && other.conditions.len() == 1)
                    .take(STRETCH)
                    .count();
                let (these, others) = rest.split_at(alike);
                rest = others;
                let alternatives = these.iter().flat_map(|rule| rule.conditions.iter().copied());
                any_of(&mut asm, &united(alternatives), rule.answer);
            }
            all => {
                rest = after;
                let past = asm.label();
                for condition in all {
                    let holds = asm.label();
                    test(&mut asm, *condition, holds, past, &mut None);
                    asm.place(holds);
                }
                asm.ret(rule.answer);
                asm.place(past);
            }
        }
    }
    asm.ret(default);
    asm.finish()
}

/// Makes "one of these bits" of neighbours that each want one bit set: one instruction for all.
fn united(alternatives: impl Iterator<Item = Condition>) -> Vec<Alternative> {
    let mut list: Vec<Alternative> = Vec::new();
    for condition in alternatives {
        let bit = match condition.comparison {
            Comparison::Masked { mask, value } if mask == value && mask.is_power_of_two() => {
                u32::try_from(mask).ok()
            }
            Comparison::Masked { .. }
            | Comparison::NotEqual(_)
            | Comparison::Less(_)
            | Comparison::AtMost(_)
            | Comparison::Greater(_)
            | Comparison::AtLeast(_) => None,
        };
        match (bit, list.last_mut()) {
            (Some(bit), Some(Alternative::AnyBit { argument, bits }))
                if *argument == condition.argument =>
            {
                *bits |= bit;
            }
            (Some(bits), _) => {
                list.push(Alternative::AnyBit { argument: condition.argument, bits });
            }
            (None, _) => list.push(Alternative::One(condition)),
        }
    }
    list
}

enum Alternative {
    One(Condition),
    /// At least one of these bits of the low half.
    AnyBit {
        argument: u32,
        bits: u32,
    },
}

fn any_of(asm: &mut Assembler, alternatives: &[Alternative], answer: u32) {
    let (hit, past) = (asm.label(), asm.label());
    let mut loaded = None;
    for (at, alternative) in alternatives.iter().enumerate() {
        let last = at + 1 == alternatives.len();
        let no = if last { past } else { asm.label() };
        match alternative {
            Alternative::One(condition) => test(asm, *condition, hit, no, &mut loaded),
            Alternative::AnyBit { argument, bits } => {
                load(asm, data_arg_low(*argument), &mut loaded);
                asm.if_any_bit(*bits, hit, no);
            }
        }
        if !last {
            asm.place(no);
        }
    }
    asm.place(hit);
    asm.ret(answer);
    asm.place(past);
}

/// Loads a word that isn't in the accumulator yet.
fn load(asm: &mut Assembler, offset: u32, loaded: &mut Option<u32>) {
    if *loaded != Some(offset) {
        asm.load(offset);
        *loaded = Some(offset);
    }
}

/// Goes to `yes` or to `no`. `loaded` is the word in the accumulator on every way to `no`, if one is
/// known; what comes at `yes` must not count on any.
fn test(
    asm: &mut Assembler,
    Condition { argument, comparison }: Condition,
    yes: Label,
    no: Label,
    loaded: &mut Option<u32>,
) {
    let (high, low) = (data_arg_high(argument), data_arg_low(argument));
    let halves = |value: u64| ((value >> 32) as u32, (value & 0xFFFF_FFFF) as u32);
    let (value, greater, equal_counts) = match comparison {
        Comparison::Masked { mask, value } => {
            let ((mask_high, mask_low), (value_high, value_low)) = (halves(mask), halves(value));
            if value & !mask != 0 {
                asm.jump(no);
                return;
            }
            if mask_high == 0 {
                masked(asm, low, mask_low, value_low, yes, no, loaded);
            } else {
                let high_fits = asm.label();
                masked(asm, high, mask_high, value_high, high_fits, no, loaded);
                asm.place(high_fits);
                masked(asm, low, mask_low, value_low, yes, no, loaded);
                *loaded = None;
            }
            return;
        }
        Comparison::NotEqual(value) => {
            let (value_high, value_low) = halves(value);
            let same = asm.label();
            load(asm, high, loaded);
            asm.branch_equal(value_high, same, yes);
            asm.place(same);
            load(asm, low, loaded);
            asm.branch_equal(value_low, no, yes);
            return;
        }
        Comparison::Greater(value) => (value, true, false),
        Comparison::AtLeast(value) => (value, true, true),
        Comparison::Less(value) => (value, false, true),
        Comparison::AtMost(value) => (value, false, false),
    };
    // "Less" is "not at least", "at most" is "not greater".
    let (yes, no) = if greater { (yes, no) } else { (no, yes) };
    let (value_high, value_low) = halves(value);
    let (not_above, same) = (asm.label(), asm.label());
    load(asm, high, loaded);
    asm.branch_above(value_high, yes, not_above);
    asm.place(not_above);
    asm.branch_equal(value_high, same, no);
    asm.place(same);
    load(asm, low, loaded);
    if equal_counts {
        asm.branch_at_least(value_low, yes, no);
    } else {
        asm.branch_above(value_low, yes, no);
    }
    *loaded = None;
}

fn masked(
    asm: &mut Assembler,
    offset: u32,
    mask: u32,
    value: u32,
    yes: Label,
    no: Label,
    loaded: &mut Option<u32>,
) {
    if mask == 0 {
        asm.jump(yes);
        return;
    }
    load(asm, offset, loaded);
    if mask == u32::MAX {
        asm.branch_equal(value, yes, no);
    } else if value == 0 {
        asm.if_any_bit(mask, no, yes);
    } else if mask.is_power_of_two() {
        asm.if_any_bit(mask, yes, no);
    } else {
        asm.and(mask);
        *loaded = None;
        asm.branch_equal(value, yes, no);
    }
}
