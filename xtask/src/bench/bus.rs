//! The rows of the bus.

use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

use super::lead::Lead;
use super::peer::Redis;
use super::rig::{Daemon, Ground};
use super::table::{Goal, Report, median};
use super::wire::{Kind, Speaks, Target};
use super::{Options, clock, programs};

const VOLATILE: &str = "volatile";
const DURABLE: &str = "after fdatasync";

/// Measures all rows of the bus.
pub(crate) fn run(root: &Path, options: &Options) -> io::Result<()> {
    let programs = programs(root)?;
    let ground = Ground::new(&programs)?;
    let daemon = Daemon::start(&programs, ground.path(), IDLE, |line| line.contains("runs (pid"))?;
    let always = Redis::start(ground.path(), "always")?;
    let everysec = Redis::start(ground.path(), "everysec")?;
    let mut report = Report::default();
    {
        let peers = (always.as_ref().map(|r| &r.target), everysec.as_ref().map(|r| &r.target));
        let mut bench = Bench { ours: &daemon.target, options, report: &mut report };
        bench.durable(peers.0)?;
        bench.with_readers(peers.0, "missiond / Redis always", 3.0)?;
        bench.with_readers(peers.1, "missiond / Redis everysec", 1.5)?;
        bench.ephemeral(peers.1)?;
    }
    drop((daemon, always, everysec));
    if options.wants("recovery") {
        recovery(&programs, ground.path(), &mut report)?;
    }
    options.finish(&report)
}

const IDLE: &str = "isolation = \"none\"\n[agents.idle]\nrole = \"audit\"\ncommand = [\"/bin/sleep\", \"infinity\"]\n";

struct Bench<'a> {
    ours: &'a Target,
    options: &'a Options,
    report: &'a mut Report,
}

impl Bench<'_> {
    /// Runs `measure` for us and for the peer in turn.
    fn compare(
        &mut self,
        name: &str,
        class: &'static str,
        unit: &'static str,
        peer: Option<&Target>,
        goal: Option<Goal>,
        measure: impl Fn(&Target) -> io::Result<f64>,
    ) -> io::Result<()> {
        if !self.options.wants(name) {
            return Ok(());
        }
        // Once each to warm up.
        measure(self.ours)?;
        if let Some(peer) = peer {
            measure(peer)?;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.options.repetitions {
            ours.push(measure(self.ours)?);
            if let Some(peer) = peer {
                theirs.push(measure(peer)?);
            }
        }
        match peer {
            Some(peer) => {
                self.report.against(name, class, unit, &ours, (&peer.name, &theirs), goal);
            }
            None => self.report.figure(name, class, unit, &ours, None),
        }
        Ok(())
    }

    fn durable(&mut self, peer: Option<&Target>) -> io::Result<()> {
        let kind = Kind::Logged;
        let goal = Some(Goal::RatioAtMost(1.0));
        self.compare("durable publish, 1 x 1, p50", DURABLE, "us", peer, goal, |target| {
            let delays =
                target.publish_many(&mut target.connect()?, kind, 1_000, 1, clock::now(), None)?;
            Ok(micros(&delays, 50))
        })?;
        let goal = Some(Goal::RatioAtLeast(2.0));
        self.compare("durable publish, 1 x 256", DURABLE, "/s", peer, goal, |target| {
            rate(20_000, || publish(target, kind, 20_000, 256))
        })?;
        let goal = Some(Goal::RatioAtLeast(1.2));
        self.compare("durable publish, 64 x 1", DURABLE, "/s", peer, goal, |target| {
            let connections: io::Result<Vec<_>> = (0..64).map(|_| target.connect()).collect();
            let connections = connections?;
            rate(64 * 200, || {
                std::thread::scope(|scope| {
                    let threads: Vec<_> = connections
                        .into_iter()
                        .map(|mut c| {
                            scope.spawn(move || {
                                target.publish_many(&mut c, kind, 200, 1, clock::now(), None)
                            })
                        })
                        .collect();
                    threads.into_iter().try_for_each(|t| joined(t.join()).map(drop))
                })
            })
        })
    }

    fn with_readers(&mut self, peer: Option<&Target>, against: &str, goal: f64) -> io::Result<()> {
        let name = format!("durable publish, 8 live readers: {against}");
        let goal = Some(Goal::RatioAtLeast(goal));
        self.compare(&name, DURABLE, "/s", peer, goal, |target| {
            if target.speaks == Speaks::Redis {
                Redis::empty(target)?;
            }
            fan_out(target, Kind::Logged, 8, 20_000).map(|(rate, _)| rate)
        })
    }

    fn ephemeral(&mut self, peer: Option<&Target>) -> io::Result<()> {
        for (readers, count) in [(8, 100_000), (64, 20_000)] {
            let name = format!("ephemeral fan-out to {readers}, deliveries");
            let goal = Some(Goal::RatioAtLeast(1.0));
            self.compare(&name, VOLATILE, "/s", peer, goal, |target| {
                let (rate, _) = fan_out(target, Kind::Ephemeral, readers, count)?;
                Ok(rate * f64::from(u32::try_from(readers).unwrap_or(0)))
            })?;
        }
        let goal = Some(Goal::RatioAtMost(1.5));
        self.compare("CPU per delivery at 8 readers", VOLATILE, "ns", peer, goal, |target| {
            fan_out(target, Kind::Ephemeral, 8, 100_000).map(|(_, cpu)| cpu / 8.0)
        })?;
        let goal = Some(Goal::RatioAtMost(1.0));
        self.compare("ephemeral one-way at 2,000/s, p50", VOLATILE, "us", peer, goal, one_way)
    }
}

fn publish(target: &Target, kind: Kind, count: usize, window: usize) -> io::Result<()> {
    target.publish_many(&mut target.connect()?, kind, count, window, clock::now(), None).map(drop)
}

/// Messages a second until every reader has all, and the server's processor time a message in ns.
fn fan_out(target: &Target, kind: Kind, readers: usize, count: usize) -> io::Result<(f64, f64)> {
    let origin = clock::now();
    let (ready, lead) = (&Barrier::new(readers + 1), &Lead::new(readers));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|reader| {
                scope.spawn(move || {
                    let listener = target.listen(kind);
                    ready.wait();
                    listener?.count(count, |seen| lead.saw(reader, seen))
                })
            })
            .collect();
        let mut publisher = target.connect()?;
        ready.wait();
        let before = clock::processor_time(target.pid)?;
        let rate = rate(count, || {
            // What is logged waits for its readers in the log.
            let lead = (kind == Kind::Ephemeral).then_some(lead);
            target.publish_many(&mut publisher, kind, count, 256, origin, lead)?;
            threads.into_iter().try_for_each(|t| joined(t.join()).map(drop))
        })?;
        let spent = clock::processor_time(target.pid)? - before;
        Ok((rate, float(spent) / float(count as u64)))
    })
}

/// The median one-way delay in microseconds, at 2,000 messages a second.
fn one_way(target: &Target) -> io::Result<f64> {
    const COUNT: usize = 4_000;
    let origin = clock::now();
    let listener = target.listen(Kind::Ephemeral)?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || listener.delays(COUNT, origin));
        let mut publisher = target.connect()?;
        // A receiver that never receives: its deadline paces the sending.
        let (_keep, pace) = std::sync::mpsc::channel::<()>();
        for n in 0..COUNT {
            let due = origin + Duration::from_micros(500 * n as u64);
            let left = due.saturating_duration_since(clock::now());
            if !left.is_zero() {
                let _ = pace.recv_timeout(left);
            }
            target.publish_many(&mut publisher, Kind::Ephemeral, 1, 1, origin, None)?;
        }
        joined(reader.join()).map(|delays| micros(&delays, 50))
    })
}

/// From `missiond start` until the agents run, over a log of a million events.
fn recovery(programs: &Path, root: &Path, report: &mut Report) -> io::Result<()> {
    const EVENTS: usize = 1_000_000;
    let dir = root.join("recovery");
    std::fs::create_dir_all(&dir)?;
    let up = |line: &str| line.contains("runs (pid");
    let daemon = Daemon::start(programs, &dir, IDLE, up)?;
    publish(&daemon.target, Kind::Logged, EVENTS, 256)?;
    // Killed: the last snapshot is up to 250,000 events old.
    drop(daemon);
    let begin = clock::now();
    let daemon = Daemon::start(programs, &dir, IDLE, up)?;
    let killed = float(clock::nanos(begin)) / 1e9;
    daemon.stop()?;
    let begin = clock::now();
    let daemon = Daemon::start(programs, &dir, IDLE, up)?;
    let stopped = float(clock::nanos(begin)) / 1e9;
    daemon.stop()?;
    let db = rusqlite::Connection::open(dir.join("state/missiond/bench/mission.db"))
        .map_err(io::Error::other)?;
    db.execute("DELETE FROM snapshots", []).map_err(io::Error::other)?;
    drop(db);
    let begin = clock::now();
    drop(Daemon::start(programs, &dir, IDLE, up)?);
    let whole = float(clock::nanos(begin)) / 1e9;
    let bound = |bound| Some(Goal::AtMost(bound));
    report.figure("recovery of 1,000,000 events, no snapshot", DURABLE, "s", &[whole], bound(2.0));
    report.figure("recovery after kill -9, old snapshot", DURABLE, "s", &[killed], bound(2.0));
    report.figure(
        "recovery after a stop, snapshot at the end",
        DURABLE,
        "s",
        &[stopped],
        bound(0.5),
    );
    Ok(())
}

/// Events a second.
fn rate(count: usize, work: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let begin = clock::now();
    work()?;
    Ok(float(count as u64) * 1e9 / float(clock::nanos(begin).max(1)))
}

fn joined<T>(result: std::thread::Result<io::Result<T>>) -> io::Result<T> {
    result.unwrap_or_else(|_| Err(io::Error::other("a client of the bench panicked")))
}

/// A percentile, in microseconds.
fn micros(nanos: &[u64], percent: usize) -> f64 {
    let mut sorted: Vec<f64> = nanos.iter().map(|n| float(*n) / 1e3).collect();
    sorted.sort_by(f64::total_cmp);
    match percent {
        50 => median(&sorted),
        _ => sorted.get(sorted.len() * percent / 100).copied().unwrap_or(0.0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people has fewer than 53 bits")]
pub(crate) fn float(n: u64) -> f64 {
    n as f64
}
