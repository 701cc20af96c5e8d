//! The handoff table. Accepted is *draining* until there is a checkpoint made after the acceptance, or
//! its deadline passes, or the source dies; then it is *quiesced*: the source's writes are `conflict`.

use super::Cell;

/// The states of a handoff, as the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the table")]
pub enum Column {
    None,
    Requested,
    Accepted,
    Ended,
}

impl Column {
    /// All columns.
    pub const ALL: [Column; 4] = [Column::None, Column::Requested, Column::Accepted, Column::Ended];
}

/// What can happen to a handoff, as the table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Someone asks for the task to go from s to t.
    Request,
    /// t accepts.
    Accept,
    /// t rejects.
    Reject,
    /// t completes.
    Complete,
    /// Another does any of these three.
    ByAnother,
    /// The requester, the source or the operator calls it off.
    Cancel,
    /// The source completes or fails the task.
    SourceSettles,
    /// The source's process ends.
    SourceDies,
    /// The target dies, is removed, or loses `execute`.
    TargetLost,
    /// The source is removed or loses `execute`.
    SourceLost,
    /// The task is cancelled, its deadline passes, or it is assigned to another.
    TaskEnds,
    /// The time of the present step is up.
    Timeout,
    /// It ended badly, and the source is gone.
    BadEndSourceGone,
    /// The daemon was restarted.
    DaemonRestart,
    /// The mission stops.
    MissionStop,
}

impl Row {
    /// All rows.
    pub const ALL: [Row; 15] = [
        Row::Request,
        Row::Accept,
        Row::Reject,
        Row::Complete,
        Row::ByAnother,
        Row::Cancel,
        Row::SourceSettles,
        Row::SourceDies,
        Row::TargetLost,
        Row::SourceLost,
        Row::TaskEnds,
        Row::Timeout,
        Row::BadEndSourceGone,
        Row::DaemonRestart,
        Row::MissionStop,
    ];
}

/// What a clause depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Always,
    /// Source and target are the same agent.
    SameAgent,
    /// The source owns the task and the target may execute.
    Possible,
    /// The open handoff is between the same two.
    SamePair,
    /// The target (a task-mode agent) has no free slot.
    NoSlot,
    /// The source's writes have ended.
    Quiesced,
    /// It was completed.
    Completed,
    /// It was cancelled.
    Cancelled,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Can't happen here (`-`).
    Never,
    /// It stays as it is.
    Keep,
    /// It stays as it is, the task is held for it although its owner is gone.
    KeepTaskHeld,
    /// It is so already: the answer is yes, nothing changes.
    Ok,
    /// Refused: `conflict`.
    Conflict,
    /// Refused: `conflict`, naming the open one.
    ConflictNamingIt,
    /// Refused: `not_found`.
    NotFound,
    /// Refused: `denied`.
    Denied,
    /// Refused: `invalid`.
    Invalid,
    /// Requested.
    Request,
    /// Waits visibly.
    Wait,
    /// Accepted: draining.
    Accept,
    /// Rejected.
    Reject,
    /// Completed: moves owner, checkpoint and leases.
    Complete,
    /// Cancelled; the source goes on.
    Cancel,
    /// Quiesced with the last checkpoint.
    Quiesce,
    /// Failed.
    Fail,
    /// Expired.
    Expire,
    /// The task becomes pending, e+.
    PendTask,
    /// Failed, and the task assigned to the source, e+.
    FailRequeue,
    /// It ended: see the task table.
    TaskTable,
}

use Effect as E;
use Guard as G;

type C = Cell<Guard, Effect>;

const NEVER: C = &[(G::Always, E::Never)];
const KEEP: C = &[(G::Always, E::Keep)];
const CONFLICT: C = &[(G::Always, E::Conflict)];
const NOT_FOUND: C = &[(G::Always, E::NotFound)];
const DENIED: C = &[(G::Always, E::Denied)];
const CANCEL: C = &[(G::Always, E::Cancel)];
const REJECT: C = &[(G::Always, E::Reject)];
const FAIL: C = &[(G::Always, E::Fail)];
const QUIESCE: C = &[(G::Always, E::Quiesce)];
const PEND_TASK: C = &[(G::Always, E::PendTask)];
const ASKED: C = &[(G::SameAgent, E::Invalid), (G::Possible, E::Request), (G::Always, E::Conflict)];
const ASKED_AGAIN: C =
    &[(G::SameAgent, E::Invalid), (G::SamePair, E::Ok), (G::Always, E::ConflictNamingIt)];

/// The table: a row per [`Row`], in each a cell per [`Column`].
#[rustfmt::skip]
pub const TABLE: [(Row, [C; 4]); 15] = [
    //                          none       requested                                           accepted                                              ended
    (Row::Request,          [ASKED,     ASKED_AGAIN,                                        ASKED_AGAIN,                                          ASKED]),
    (Row::Accept,           [NOT_FOUND, &[(G::NoSlot, E::Wait), (G::Always, E::Accept)],    &[(G::Always, E::Ok)],                                CONFLICT]),
    (Row::Reject,           [NOT_FOUND, REJECT,                                             REJECT,                                               CONFLICT]),
    (Row::Complete,         [NOT_FOUND, CONFLICT,                                           &[(G::Quiesced, E::Complete), (G::Always, E::Conflict)], &[(G::Completed, E::Ok), (G::Always, E::Conflict)]]),
    (Row::ByAnother,        [NOT_FOUND, DENIED,                                             DENIED,                                               DENIED]),
    (Row::Cancel,           [NOT_FOUND, CANCEL,                                             CANCEL,                                               &[(G::Cancelled, E::Ok), (G::Always, E::Conflict)]]),
    (Row::SourceSettles,    [NEVER,     CANCEL,                                             &[(G::Quiesced, E::Conflict), (G::Always, E::Cancel)],   NEVER]),
    (Row::SourceDies,       [NEVER,     KEEP,                                               QUIESCE,                                              NEVER]),
    (Row::TargetLost,       [NEVER,     FAIL,                                               FAIL,                                                 &[(G::Always, E::TaskTable)]]),
    (Row::SourceLost,       [NEVER,     &[(G::Always, E::KeepTaskHeld)],                    QUIESCE,                                              NEVER]),
    (Row::TaskEnds,         [NEVER,     CANCEL,                                             CANCEL,                                               NEVER]),
    (Row::Timeout,          [NEVER,     &[(G::Always, E::Expire)],                          FAIL,                                                 NEVER]),
    (Row::BadEndSourceGone, [NEVER,     PEND_TASK,                                          PEND_TASK,                                            NEVER]),
    (Row::DaemonRestart,    [NEVER,     KEEP,                                               &[(G::Always, E::FailRequeue)],                       KEEP]),
    (Row::MissionStop,      [NEVER,     CANCEL,                                             CANCEL,                                               KEEP]),
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
