//! The row of the network: nothing, a list of names, or all of the host's.

use std::collections::{BTreeMap, BTreeSet};

use super::Lattice;

/// Ports of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Every one.
    All,
    /// These.
    Some(BTreeSet<u16>),
}

impl Ports {
    fn none() -> Self {
        Self::Some(BTreeSet::new())
    }
    fn is_none(&self) -> bool {
        *self == Self::none()
    }
    fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Some(one), Self::Some(two)) => Self::Some(one.union(two).copied().collect()),
        }
    }
}

impl Lattice for Ports {
    fn within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) => true,
            (Self::All, Self::Some(_)) => false,
            (Self::Some(one), Self::Some(two)) => one.is_subset(two),
        }
    }
    fn meet(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, ports) | (ports, Self::All) => ports.clone(),
            (Self::Some(one), Self::Some(two)) => {
                Self::Some(one.intersection(two).copied().collect())
            }
        }
    }
}

/// What of the network is reached: none < list < host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// Nothing.
    #[default]
    None,
    /// Names, each exact or with a leading `*.` that stands for one or more labels before it.
    List(Hosts),
    /// All that the host reaches.
    Host,
}

/// Names and their ports; not empty, and none that another one holds already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts(BTreeMap<String, Ports>);

impl Reach {
    /// The names of a list with their ports; [`Reach::None`] if there is none left.
    #[must_use]
    pub fn list(entries: impl IntoIterator<Item = (String, Ports)>) -> Self {
        let mut all: BTreeMap<String, Ports> = BTreeMap::new();
        for (name, ports) in entries {
            let name = name.to_ascii_lowercase();
            let known = all.entry(name).or_insert_with(Ports::none);
            *known = known.union(&ports);
        }
        let whole = Hosts(all);
        let kept: BTreeMap<String, Ports> = whole
            .0
            .iter()
            .filter(|(name, ports)| {
                !ports.is_none() && !ports.within(&whole.without(name).at(name))
            })
            // What wider names hold as well is said at each narrower one, so that equal rights are
            // equal values.
            .map(|(name, _)| (name.clone(), whole.at(name)))
            .collect();
        if kept.is_empty() { Self::None } else { Self::List(Hosts(kept)) }
    }
}

impl Hosts {
    /// The ports of a name, or of every name that a pattern stands for.
    #[must_use]
    pub fn at(&self, name: &str) -> Ports {
        let wider = self.0.iter().filter(|(pattern, _)| covers(pattern, name));
        wider.fold(Ports::none(), |all, (_, ports)| all.union(ports))
    }

    fn without(&self, name: &str) -> Hosts {
        let others = self.0.iter().filter(|(other, _)| *other != name);
        Hosts(others.map(|(name, ports)| (name.clone(), ports.clone())).collect())
    }
}

/// Whether every name that `name` stands for is one that `pattern` stands for.
fn covers(pattern: &str, name: &str) -> bool {
    pattern == name
        || pattern.strip_prefix('*').is_some_and(|suffix| {
            suffix.starts_with('.') && name.len() > suffix.len() && name.ends_with(suffix)
        })
}

impl Lattice for Reach {
    fn within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, _) | (_, Self::Host) => true,
            (Self::List(_) | Self::Host, Self::None) | (Self::Host, Self::List(_)) => false,
            (Self::List(one), Self::List(two)) => {
                one.0.iter().all(|(name, ports)| ports.within(&two.at(name)))
            }
        }
    }

    fn meet(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::Host, reach) | (reach, Self::Host) => reach.clone(),
            (Self::List(one), Self::List(two)) => {
                // The narrower of two names is in both lists, as far as their ports agree.
                let names = one.0.keys().chain(two.0.keys());
                Self::list(names.map(|name| (name.clone(), one.at(name).meet(&two.at(name)))))
            }
        }
    }
}
