//! The state tables, as data: which input does what to a task or a handoff in which state.
//!
//! `decide` and the rules ask these tables and nothing else; they only work out the guards. A cell is
//! a list of clauses, of which the first with a true guard counts.

pub mod handoff;
pub mod task;

/// A cell: clauses in order.
pub type Cell<G, E> = &'static [(G, E)];

/// The effect of the first clause whose guard holds. Every cell ends with a guard that always does;
/// a test holds that.
pub(crate) fn pick<G: Copy, E: Copy>(
    cell: Cell<G, E>,
    otherwise: E,
    holds: impl Fn(G) -> bool,
) -> E {
    cell.iter().find(|(guard, _)| holds(*guard)).map_or(otherwise, |(_, effect)| *effect)
}
