//! Who asks. Known to all that decides about requests.

use crate::ids::AgentUid;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    /// The person at `missionctl`.
    Operator,
    /// An agent, by the kernel's word.
    Agent(AgentUid),
}
