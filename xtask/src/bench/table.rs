//! The rows of a bench, as a table and as JSON.

use std::io::{self, Write};

use serde::Serialize;

/// One comparison, or one figure without a peer.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Volatile, after write, after fdatasync; empty for what is no matter of the bus.
    pub(crate) class: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) peer: Option<Peer>,
    pub(crate) goal: Option<Goal>,
}

/// The other side of a comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) figure: f64,
    /// The median of ours / peer over the repetitions.
    pub(crate) ratio: f64,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Goal {
    /// A ratio of at most this (latencies, costs).
    RatioAtMost(f64),
    /// A ratio of at least this (rates).
    RatioAtLeast(f64),
    /// A figure of at most this.
    AtMost(f64),
}

impl Row {
    fn met(&self) -> Option<bool> {
        let ratio = self.peer.as_ref().map(|peer| peer.ratio);
        Some(match self.goal? {
            Goal::RatioAtMost(bound) => ratio? <= bound,
            Goal::RatioAtLeast(bound) => ratio? >= bound,
            Goal::AtMost(bound) => self.ours <= bound,
        })
    }
}

/// All rows of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a figure without a peer.
    pub(crate) fn figure(
        &mut self,
        name: &str,
        class: &'static str,
        unit: &'static str,
        samples: &[f64],
        goal: Option<Goal>,
    ) {
        let ours = median(samples);
        self.rows.push(Row { name: name.to_owned(), class, unit, ours, peer: None, goal });
    }

    /// Adds a comparison of paired samples.
    pub(crate) fn against(
        &mut self,
        name: &str,
        class: &'static str,
        unit: &'static str,
        ours: &[f64],
        (peer, theirs): (&str, &[f64]),
        goal: Option<Goal>,
    ) {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        let peer = Peer { name: peer.to_owned(), figure: median(theirs), ratio: median(&ratios) };
        let ours = median(ours);
        self.rows.push(Row { name: name.to_owned(), class, unit, ours, peer: Some(peer), goal });
    }

    /// The table for people.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<44} {:<16} {:>12} {:<6} {:>12}  {:<22} {:>7}  goal",
            "what", "class", "missiond", "", "peer", "", "ratio"
        )?;
        for row in &self.rows {
            let (name, figure, ratio) = match &row.peer {
                Some(peer) => {
                    (peer.name.as_str(), short(peer.figure), format!("{:.2}", peer.ratio))
                }
                None => ("", String::new(), String::new()),
            };
            let goal = match row.goal {
                Some(Goal::RatioAtMost(bound)) => format!("<= {bound}"),
                Some(Goal::RatioAtLeast(bound)) => format!(">= {bound}"),
                Some(Goal::AtMost(bound)) => format!("<= {bound} {}", row.unit),
                None => String::new(),
            };
            let met = match row.met() {
                Some(true) => "  met",
                Some(false) => "  MISSED",
                None => "",
            };
            writeln!(
                out,
                "{:<44} {:<16} {:>12} {:<6} {figure:>12}  {name:<22} {ratio:>7}  {goal}{met}",
                row.name,
                row.class,
                short(row.ours),
                row.unit
            )?;
        }
        Ok(())
    }

    /// The rows as JSON.
    pub(crate) fn json(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(&self.rows)?)
    }
}

/// The median; 0 of nothing.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn short(figure: f64) -> String {
    match figure {
        f if f >= 1e6 => format!("{:.2} M", f / 1e6),
        f if f >= 1e4 => format!("{:.1} k", f / 1e3),
        f if f >= 100.0 => format!("{f:.0}"),
        f => format!("{f:.2}"),
    }
}
