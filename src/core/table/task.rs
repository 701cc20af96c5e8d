//! The task table. `e+` in its text means a new epoch: every change of owner fences the former one.
//!
//! ```text
//! pending -> assigned -> active -> completed | failed | cancelled
//!    ^----------'-----------'  (released, owner gone)
//! ```

use super::Cell;

/// The states of a task, as the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the table")]
pub enum Column {
    Pending,
    Assigned,
    Active,
    Settled,
}

impl Column {
    /// All columns.
    pub const ALL: [Column; 4] =
        [Column::Pending, Column::Assigned, Column::Active, Column::Settled];
}

/// What can happen to a task, as the table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Someone assigns it to t.
    Assign,
    /// c claims it.
    Claim,
    /// Its owner starts it, reports progress or saves a checkpoint.
    Work,
    /// Its owner completes or fails it.
    Settle,
    /// Its owner gives it back.
    Release,
    /// Someone calls it off.
    Cancel,
    /// Its owner's process ends and will be started again.
    OwnerExits,
    /// Its owner is gone, removed, or loses `execute`.
    OwnerGone,
    /// Its time is up.
    Deadline,
    /// A dependency failed or was cancelled.
    DependencyEnded,
    /// A handoff of it completes.
    HandoffCompletes,
    /// The daemon was restarted.
    DaemonRestart,
    /// The mission stops.
    MissionStop,
}

impl Row {
    /// All rows.
    pub const ALL: [Row; 13] = [
        Row::Assign,
        Row::Claim,
        Row::Work,
        Row::Settle,
        Row::Release,
        Row::Cancel,
        Row::OwnerExits,
        Row::OwnerGone,
        Row::Deadline,
        Row::DependencyEnded,
        Row::HandoffCompletes,
        Row::DaemonRestart,
        Row::MissionStop,
    ];
}

/// What a clause depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Always,
    /// Dependencies are not all completed.
    DepsOpen,
    /// The one it is to go to, or who claims it, is its owner.
    Owns,
    /// The claimer matches, the dependencies are met, and it is not reserved for another.
    Claimable,
    /// Its handoff is quiesced.
    Quiesced,
    /// It was settled by the same request: same verdict, epoch and result.
    Same,
    /// It was cancelled.
    Cancelled,
    /// One more attempt would be one too many.
    OverMax,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Can't happen here (`-`).
    Never,
    /// It stays as it is, without a reply to give.
    Keep,
    /// It is so already: the answer is yes, nothing changes.
    Ok,
    /// Refused: `conflict`.
    Conflict,
    /// Refused: `conflict`, ask for a handoff.
    HandOff,
    /// Refused: `stale`.
    Stale,
    /// Reserved for t.
    Reserve,
    /// The reservation is dropped.
    Unreserve,
    /// Assigned, e+.
    Assign,
    /// Active.
    Start,
    /// Completed or failed.
    Settle,
    /// Pending, e+, given back.
    Release,
    /// Cancelled.
    Cancel,
    /// Cancelled, e+; its process stops.
    CancelOwned,
    /// Assigned to the same owner, e+.
    Requeue,
    /// Assigned to the same owner, e+, one attempt more.
    RequeueCounted,
    /// Pending, e+.
    Pend,
    /// Pending, e+, one attempt more.
    PendCounted,
    /// Failed: the attempts are used up.
    FailAttempts,
    /// Failed by its deadline.
    Fail,
    /// Failed by its deadline, e+; its process stops.
    FailOwned,
    /// Active with t, e+.
    HandOver,
}

use Effect as E;
use Guard as G;

type C = Cell<Guard, Effect>;

const NEVER: C = &[(G::Always, E::Never)];
const KEEP: C = &[(G::Always, E::Keep)];
const CONFLICT: C = &[(G::Always, E::Conflict)];
const REQUEUE: C = &[(G::Always, E::Requeue)];
const FAIL_OWNED: C = &[(G::Always, E::FailOwned)];
const CANCEL_OWNED: C = &[(G::Always, E::CancelOwned)];
const HAND_OVER: C = &[(G::Always, E::HandOver)];
const CLAIM_OWNED: C = &[(G::Owns, E::Ok), (G::Always, E::Conflict)];
const SETTLE: C = &[(G::Quiesced, E::Conflict), (G::Always, E::Settle)];
const RELEASE: C = &[(G::Quiesced, E::Conflict), (G::Always, E::Release)];

/// The table: a row per [`Row`], in each a cell per [`Column`].
#[rustfmt::skip]
pub const TABLE: [(Row, [C; 4]); 13] = [
    //                          pending                                                   assigned                                          active                                                            settled
    (Row::Assign,           [&[(G::DepsOpen, E::Reserve), (G::Always, E::Assign)],    &[(G::Owns, E::Ok), (G::Always, E::Assign)],      &[(G::Owns, E::Ok), (G::Always, E::HandOff)],                     CONFLICT]),
    (Row::Claim,            [&[(G::Claimable, E::Assign), (G::Always, E::Conflict)],  CLAIM_OWNED,                                      CLAIM_OWNED,                                                      CONFLICT]),
    (Row::Work,             [CONFLICT,                                                &[(G::Quiesced, E::Conflict), (G::Always, E::Start)], &[(G::Quiesced, E::Conflict), (G::Always, E::Ok)],            &[(G::Always, E::Stale)]]),
    (Row::Settle,           [CONFLICT,                                                SETTLE,                                           SETTLE,                                                           &[(G::Same, E::Ok), (G::Always, E::Conflict)]]),
    (Row::Release,          [CONFLICT,                                                RELEASE,                                          RELEASE,                                                          CONFLICT]),
    (Row::Cancel,           [&[(G::Always, E::Cancel)],                               CANCEL_OWNED,                                     CANCEL_OWNED,                                                     &[(G::Cancelled, E::Ok), (G::Always, E::Conflict)]]),
    (Row::OwnerExits,       [NEVER,                                                   REQUEUE,                                          &[(G::OverMax, E::FailAttempts), (G::Always, E::RequeueCounted)], NEVER]),
    (Row::OwnerGone,        [&[(G::Always, E::Unreserve)],                            &[(G::Always, E::Pend)],                          &[(G::OverMax, E::FailAttempts), (G::Always, E::PendCounted)],    NEVER]),
    (Row::Deadline,         [&[(G::Always, E::Fail)],                                 FAIL_OWNED,                                       FAIL_OWNED,                                                       NEVER]),
    (Row::DependencyEnded,  [&[(G::Always, E::Cancel)],                               NEVER,                                            NEVER,                                                            NEVER]),
    (Row::HandoffCompletes, [NEVER,                                                   HAND_OVER,                                        HAND_OVER,                                                        NEVER]),
    (Row::DaemonRestart,    [KEEP,                                                    REQUEUE,                                          REQUEUE,                                                          KEEP]),
    (Row::MissionStop,      [KEEP,                                                    KEEP,                                             REQUEUE,                                                          KEEP]),
];

/// The cell of a row and a column.
#[must_use]
pub fn cell(row: Row, column: Column) -> C {
    TABLE[row as usize].1[column as usize]
}

/// What happens, given which guards hold.
pub(crate) fn look_up(row: Row, column: Column, holds: impl Fn(Guard) -> bool) -> Effect {
    super::pick(cell(row, column), Effect::Never, |guard| guard == Guard::Always || holds(guard))
}
