//! missiond: a privilege-free supervisor for teams of agents.
