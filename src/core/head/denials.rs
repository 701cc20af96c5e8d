//! Refusals are logged one by one, ten a minute per asker, method and code; more are counted and logged
//! once, when the minute is over. Not state: after a restart of the daemon the minute begins anew.

use std::collections::BTreeMap;

use crate::core::denied::Code;
use crate::core::event::DenialsCounted;
use crate::core::view::Party;
use crate::ids::Timestamp;

const MINUTE_MS: u64 = 60_000;

#[derive(Debug, Clone)]
struct Window {
    since: Timestamp,
    logged: u32,
    more: u64,
}

/// The refusals of the present minutes.
#[derive(Debug, Clone, Default)]
pub(super) struct Denials {
    windows: BTreeMap<(Party, String, Code), Window>,
    /// When the next count is to be logged: asked before every request.
    next: Option<Timestamp>,
}

impl Denials {
    /// Whether this refusal is to be logged by itself; it is counted if not.
    pub(super) fn may_log(
        &mut self,
        now: Timestamp,
        party: Party,
        method: &str,
        code: Code,
        max: u32,
    ) -> bool {
        // Bounded by agents, methods and codes; those of former agents go with their minute.
        self.windows.retain(|_, window| window.more > 0 || window.since.plus_ms(MINUTE_MS) > now);
        let new = Window { since: now, logged: 0, more: 0 };
        let window = self.windows.entry((party, method.to_owned(), code)).or_insert(new);
        if window.logged < max {
            window.logged += 1;
            return true;
        }
        window.more += 1;
        if window.more == 1 {
            self.next = self.earliest();
        }
        false
    }

    /// When the next count is to be logged.
    pub(super) fn first_due(&self) -> Option<Timestamp> {
        self.next
    }

    fn earliest(&self) -> Option<Timestamp> {
        let counting = self.windows.values().filter(|window| window.more > 0);
        counting.map(|window| window.since.plus_ms(MINUTE_MS)).min()
    }

    /// The counts of the minutes that are over.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<(Party, DenialsCounted)> {
        let over = |window: &Window| window.since.plus_ms(MINUTE_MS) <= now;
        let counted = self.windows.iter().filter(|(_, window)| over(window) && window.more > 0);
        let counted = counted
            .map(|((party, method, code), window)| {
                let (method, code, count) = (method.clone(), *code, window.more);
                (party.clone(), DenialsCounted { method, code, count })
            })
            .collect();
        self.windows.retain(|_, window| !over(window));
        self.next = self.earliest();
        counted
    }
}
