//! What the agent events do.

use std::collections::VecDeque;

use crate::core::event::{
    AfterEnd, AgentAdded, AgentChanged, AgentEnded, AgentParked, AgentReady, AgentStarted,
    AgentStarting, AgentStopping, Logged,
};
use crate::core::request::Phase;
use crate::core::state::{Agent, Gone, Inbox, Process, State};
use crate::ids::{AgentUid, Incarnation};

impl State {
    pub(super) fn on_agent_added(&mut self, logged: &Logged, e: &AgentAdded) {
        let agent = Agent {
            spec: e.spec.clone(),
            role: e.spec.role.clone(),
            joined: logged.seq,
            process: if e.spec.autostart { Process::Idle } else { Process::Stopped },
            since: logged.at,
            incarnation: Incarnation(0),
            removed: false,
            phase: Phase::Init,
            restarts: 0,
            recent: VecDeque::new(),
            last_exit: None,
            inbox: Inbox::default(),
        };
        self.insert_agent(AgentUid(logged.seq.0), agent);
    }

    pub(super) fn on_agent_changed(&mut self, logged: &Logged, e: &AgentChanged) {
        self.edit_agent(e.agent, |agent| {
            // A role given while the mission ran outlives an unchanged file, not a changed one.
            if agent.spec.role != e.spec.role {
                agent.role = e.spec.role.clone();
            }
            if agent.spec.autostart != e.spec.autostart {
                let (from, to) = match e.spec.autostart {
                    true => (Process::Stopped, Process::Idle),
                    false => (Process::Idle, Process::Stopped),
                };
                if agent.process == from {
                    agent.process = to;
                    agent.since = logged.at;
                }
            }
            agent.spec = e.spec.clone();
        });
    }

    pub(super) fn on_agent_removed(&mut self, uid: AgentUid) {
        let Some(agent) = self.agents.get_mut(&uid) else { return };
        agent.removed = true;
        if self.index.by_name.get(&agent.spec.name) == Some(&uid) {
            self.index.by_name.remove(&agent.spec.name);
        }
        self.keys.remove(&uid);
        if !self.index.live.contains(&uid) {
            self.bury(uid);
        }
    }

    /// Forgets a removed agent without a process, but for what its receipts need.
    fn bury(&mut self, uid: AgentUid) {
        let Some(mut agent) = self.remove_agent(uid) else { return };
        let inbox = agent.inbox.cursors.remove(crate::core::INBOX);
        let gone = Gone { name: agent.spec.name, inbox: inbox.unwrap_or_default() };
        self.gone.insert(uid, gone);
    }

    pub(super) fn on_agent_enabled(&mut self, logged: &Logged, uid: AgentUid) {
        self.edit_agent(uid, |agent| {
            agent.process = Process::Idle;
            agent.since = logged.at;
            agent.recent.clear();
        });
    }

    pub(super) fn on_agent_disabled(&mut self, logged: &Logged, uid: AgentUid) {
        self.edit_agent(uid, |agent| {
            agent.process = Process::Stopped;
            agent.since = logged.at;
        });
    }

    pub(super) fn on_agent_rested(&mut self, logged: &Logged, uid: AgentUid) {
        self.edit_agent(uid, |agent| {
            agent.process = Process::Idle;
            agent.since = logged.at;
        });
    }

    pub(super) fn on_agent_starting(&mut self, logged: &Logged, e: &AgentStarting) {
        self.edit_agent(e.agent, |agent| {
            let parked = e.run.as_ref().and_then(|run| run.handoff).map(|_| false);
            agent.incarnation = e.incarnation;
            agent.since = logged.at;
            agent.phase = Phase::Init;
            agent.process = Process::Starting {
                until: e.until,
                run: e.run.clone(),
                parked,
                pid: None,
                wall: None,
                hello: false,
            };
        });
    }

    pub(super) fn on_agent_parked(&mut self, e: &AgentParked) {
        self.edit_agent(e.agent, |agent| {
            if let Process::Starting { parked: Some(parked), .. } = &mut agent.process {
                *parked = true;
            }
        });
    }

    pub(super) fn on_agent_started(&mut self, logged: &Logged, e: &AgentStarted) {
        self.edit_agent(e.agent, |agent| {
            let Process::Starting { run, pid, wall, .. } = &mut agent.process else { return };
            *pid = Some(e.pid);
            *wall = e.wall;
            if e.ready {
                let run = run.take();
                agent.process = Process::Running { run, pid: e.pid, wall: e.wall };
                agent.since = logged.at;
            }
        });
    }

    pub(super) fn on_agent_ready(&mut self, logged: &Logged, e: &AgentReady) {
        self.edit_agent(e.agent, |agent| {
            let Process::Starting { run, pid, wall, hello, .. } = &mut agent.process else {
                return;
            };
            *hello = true;
            let Some(pid) = *pid else { return };
            let (run, wall) = (run.take(), *wall);
            agent.process = Process::Running { run, pid, wall };
            agent.since = logged.at;
        });
    }

    pub(super) fn on_agent_stopping(&mut self, logged: &Logged, e: &AgentStopping) {
        self.edit_agent(e.agent, |agent| {
            let (run, pid) = match &mut agent.process {
                Process::Starting { run, pid, .. } | Process::Stopping { run, pid, .. } => {
                    (run.take(), *pid)
                }
                Process::Running { run, pid, .. } => (run.take(), Some(*pid)),
                Process::Idle
                | Process::Waiting { .. }
                | Process::Ended
                | Process::Stopped
                | Process::Failed { .. } => return,
            };
            agent.process = Process::Stopping { run, pid, grace_ms: e.grace_ms, why: e.why };
            agent.since = logged.at;
        });
    }

    pub(super) fn on_agent_ended(&mut self, logged: &Logged, e: &AgentEnded) {
        self.edit_agent(e.agent, |agent| {
            agent.last_exit = Some(e.exit.clone());
            agent.since = logged.at;
            agent.process = match &e.next {
                AfterEnd::Idle => Process::Idle,
                AfterEnd::Waiting(until) => {
                    agent.restarts += 1;
                    agent.recent.push_back(logged.at);
                    while agent.recent.len() > agent.spec.restart.max as usize {
                        agent.recent.pop_front();
                    }
                    Process::Waiting { until: *until }
                }
                AfterEnd::Ended => Process::Ended,
                AfterEnd::Stopped => Process::Stopped,
                AfterEnd::Failed(reason) => Process::Failed { reason: reason.clone() },
            };
        });
        if self.agents.get(&e.agent).is_some_and(|agent| agent.removed) {
            self.bury(e.agent);
        }
    }
}
