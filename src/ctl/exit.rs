//! The exit codes of `missionctl`: a contract with scripts, so they are in one place.

use std::process::ExitCode;

use crate::proto::denied::Code;

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was done.
    Ok,
    /// It was not done, for a reason that has no code of its own.
    Failure,
    /// The command line, or what it carries, is wrong.
    Usage,
    /// No such agent, task, handoff, message, checkpoint or mission.
    NotFound,
    /// The role lacks the permission.
    Denied,
    /// The state does not allow it, or the caller's epoch is a former one.
    Conflict,
    /// No daemon answers.
    NoDaemon,
    /// A bound was reached, or the daemon can't do it now.
    TryAgain,
    /// It did not happen in time.
    TimedOut,
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Denied => 4,
            Exit::Conflict => 5,
            Exit::NoDaemon => 69,
            Exit::TryAgain => 75,
            Exit::TimedOut => 124,
        }
    }
}

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        match code {
            Code::Denied => Exit::Denied,
            Code::NotFound => Exit::NotFound,
            Code::Conflict | Code::Stale => Exit::Conflict,
            Code::Limit | Code::Unavailable => Exit::TryAgain,
            Code::Invalid => Exit::Usage,
            Code::Timeout => Exit::TimedOut,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_a_refusal_has_its_documented_exit_code() {
        let table = [
            (Code::Denied, 4),
            (Code::NotFound, 3),
            (Code::Conflict, 5),
            (Code::Stale, 5),
            (Code::Limit, 75),
            (Code::Unavailable, 75),
            (Code::Invalid, 2),
            (Code::Timeout, 124),
        ];
        for (code, exit) in table {
            assert_eq!(Exit::from(code).code(), exit, "{code}");
        }
    }
}
