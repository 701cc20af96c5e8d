//! The row of paths: which bits below which prefixes, less what is denied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Lattice;

/// What may be done below a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct PathBits {
    /// Read and run.
    pub read: bool,
    /// Write.
    pub write: bool,
}

impl PathBits {
    fn none(self) -> bool {
        !self.read && !self.write
    }
    fn and(self, other: Self) -> Self {
        Self { read: self.read && other.read, write: self.write && other.write }
    }
    fn or(self, other: Self) -> Self {
        Self { read: self.read || other.read, write: self.write || other.write }
    }
    fn covers(self, other: Self) -> bool {
        self.and(other) == other
    }
}

/// Paths: granted by prefix, denied by pattern.
///
/// Prefixes are resolved by the caller and hold no patterns. Denying patterns are never looked into:
/// two that mean the same are two, and a child keeps each of its parent's word for word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths {
    granted: BTreeMap<PathBuf, PathBits>,
    denied: BTreeSet<String>,
}

impl Paths {
    /// Grants and denials; a grant that an outer one already holds is left out, so that equal rights
    /// are equal values.
    #[must_use]
    pub fn new(
        granted: impl IntoIterator<Item = (PathBuf, PathBits)>,
        denied: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut all: BTreeMap<PathBuf, PathBits> = BTreeMap::new();
        for (path, bits) in granted {
            let known = all.entry(path).or_default();
            *known = known.or(bits);
        }
        let mut paths = Self { granted: BTreeMap::new(), denied: denied.into_iter().collect() };
        // In the order of paths an outer one comes before those in it.
        for (path, bits) in all {
            let above = paths.at(&path);
            if !above.covers(bits) {
                paths.granted.insert(path, bits.or(above));
            }
        }
        paths
    }

    /// What is granted at a path, denials aside.
    #[must_use]
    pub fn at(&self, path: &Path) -> PathBits {
        let above = path.ancestors().filter_map(|above| self.granted.get(above));
        above.fold(PathBits::default(), |all, bits| all.or(*bits))
    }

    /// The prefixes with their bits.
    pub fn granted(&self) -> impl Iterator<Item = (&Path, PathBits)> {
        self.granted.iter().map(|(path, bits)| (path.as_path(), *bits))
    }

    /// The denying patterns.
    pub fn denied(&self) -> impl Iterator<Item = &str> {
        self.denied.iter().map(String::as_str)
    }
}

impl Lattice for Paths {
    fn within(&self, other: &Self) -> bool {
        self.granted.iter().all(|(path, bits)| other.at(path).covers(*bits))
            && self.denied.is_superset(&other.denied)
    }

    fn meet(&self, other: &Self) -> Self {
        // At each prefix of either what both give there; between prefixes nothing changes.
        let prefixes = self.granted.keys().chain(other.granted.keys());
        let both = prefixes.map(|path| (path.clone(), self.at(path).and(other.at(path))));
        let denied = self.denied.union(&other.denied).cloned();
        Self::new(both.filter(|(_, bits)| !bits.none()), denied)
    }
}
