//! `wear`: what a session costs the flash, and how long an eMMC lasts at campus load. Counted by the kernel for the real
//! process: every page that it dirtied, whatever it wrote it for (journal, witness, snapshots). What a session writes and
//! what a snapshot writes are counted apart, because a day has few snapshots, and each of them is large.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{
    Size,
    load::{Target, Whom},
    post::{self, USERS},
    proc,
    stat::thousands,
    stock::{self, Stock},
    table::{Table, verdict},
};
use crate::site::Ways;

/// Devices of a campus, sessions of each in a day.
const CAMPUS: (u64, u64) = (50, 100);
/// An eMMC of 4 GB whose cells bear 3,000 cycles, with a controller that writes nothing of its own.
const ENDURANCE_BYTES: f64 = 4e9 * 3_000.0;
/// Years that are wanted.
const WANTED_YEARS: f64 = 10.0;
/// Devices that come at once in a burst.
const BURST: usize = 50;
/// How often the gateway is looked at.
const POLL: Duration = Duration::from_millis(100);
/// The disk is at rest when nothing was written for so long: the storage engine writes out what it holds twice a second.
const STILL: Duration = Duration::from_secs(2);
/// How long that may take: a snapshot rests for ten times as long as the one before took.
const SETTLED_MAX: Duration = Duration::from_secs(180);

struct Scale {
    tokens: u32,
    alone: usize,
    /// `store.snapshot_every`; none: as it is shipped.
    every: Option<u64>,
    snapshots: usize,
    burst: Duration,
    idle: Duration,
}

/// Bytes that were written, and what for.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    sessions: u64,
    events: u64,
    bytes: u64,
}

impl Cost {
    fn a_session(self) -> f64 {
        self.bytes as f64 / self.sessions.max(1) as f64
    }

    fn an_event(self) -> f64 {
        self.bytes as f64 / self.events.max(1) as f64
    }
}

/// The gateway that is looked at.
struct Looked<'a> {
    dir: &'a Path,
    pid: u32,
}

impl Looked<'_> {
    fn status(&self) -> anyhow::Result<serde_json::Value> {
        post::ask(self.dir, "status")
    }

    fn events(&self) -> anyhow::Result<u64> {
        self.status()?["journal"].as_u64().context("the status counts events")
    }

    fn snapshot_at(&self) -> anyhow::Result<u64> {
        let at = &self.status()?["snapshot"]["at"];
        at.as_u64().context("the status says where the snapshot stands")
    }

    /// Waits until no snapshot is under way or wanted, and nothing is written any more.
    fn settle(&self) -> anyhow::Result<()> {
        let (since, mut still_since, mut before) = (Instant::now(), Instant::now(), proc::written(self.pid)?);
        while still_since.elapsed() < STILL {
            ensure!(since.elapsed() < SETTLED_MAX, "the gateway does not come to rest");
            std::thread::sleep(POLL); // A poll of another process, with its limit above.
            let now = proc::written(self.pid)?;
            if now != before || self.status()?["snapshot"]["pending"] == true {
                (before, still_since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// What `load` costs, and whatever snapshots follow from it.
    fn cost(&self, load: impl FnOnce() -> anyhow::Result<usize>) -> anyhow::Result<Cost> {
        let (bytes, events) = (proc::written(self.pid)?, self.events()?);
        let sessions = load()? as u64;
        self.settle()?;
        Ok(Cost {
            sessions,
            events: self.events()? - events,
            bytes: proc::written(self.pid)? - bytes,
        })
    }
}

/// Runs it; prints its tables.
///
/// # Errors
/// If anything does not come up, or a snapshot comes when none is due, or does not when one is.
pub fn run(size: Size, dir: &Path) -> anyhow::Result<()> {
    let scale = match size {
        Size::Quick => Scale {
            tokens: 5_000,
            alone: 20,
            every: Some(400),
            snapshots: 1,
            burst: Duration::from_millis(200),
            idle: Duration::from_millis(200),
        },
        Size::Full => Scale {
            tokens: 100_000,
            alone: 1_500,
            every: None,
            snapshots: 3,
            burst: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        },
    };
    let plan = post::plan(19, BURST, USERS.min(scale.tokens as usize));
    let no_cloud = Ways {
        link: String::new(),
        ..Ways::default()
    };
    post::write(&plan, dir, &no_cloud)?;
    let path = dir.join("gateway/holdfast.toml");
    if let Some(every) = scale.every {
        let section = "[store]\n";
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(section), "the configuration has a section for the store");
        fs::write(
            &path,
            text.replace(section, &format!("{section}snapshot_every = {every}\n")),
        )?;
    }
    let every = gateway::config::load(&path, None)?.snapshot_every;
    stock::fill(
        dir,
        &plan,
        Stock {
            tokens: scale.tokens,
            sessions: 0,
        },
    )?;
    let (process, address) = post::start(dir, &[])?;
    let target = Target::new(Whom::Gateway, address, &plan);
    let looked = Looked {
        dir,
        pid: process.pid(),
    };
    let one_by_one = |sessions: usize| Ok(target.whole(1, Some(sessions), Duration::MAX)?.sessions);
    looked.settle()?;

    let before = looked.snapshot_at()?;
    let alone = looked.cost(|| one_by_one(scale.alone))?;
    ensure!(
        looked.snapshot_at()? == before,
        "these sessions were to be counted without a snapshot"
    );
    let mut snapshots_bytes = 0.0;
    for _ in 0..scale.snapshots {
        let at = looked.snapshot_at()?;
        let missing = (at + every).saturating_sub(looked.events()?);
        let sessions = missing as f64 * alone.sessions as f64 / alone.events as f64;
        let cost = looked.cost(|| one_by_one(sessions.ceil() as usize + 2))?;
        ensure!(looked.snapshot_at()? > at, "a snapshot was due");
        snapshots_bytes += cost.bytes as f64 - alone.an_event() * cost.events as f64;
    }
    let snapshot_bytes = (snapshots_bytes / scale.snapshots as f64).max(0.0);
    let burst = looked.cost(|| Ok(target.whole(BURST, None, scale.burst)?.sessions))?;
    let from = proc::written(process.pid())?;
    // Nothing happens for so long: that is what is measured.
    std::thread::sleep(scale.idle);
    let idle_bytes = proc::written(process.pid())? - from;
    drop(process);
    let found = Found {
        every,
        alone,
        snapshot_bytes,
        burst,
        idle_bytes,
    };
    print(&scale, &found);
    Ok(())
}

/// What was counted.
struct Found {
    /// `store.snapshot_every`.
    every: u64,
    /// Without a snapshot.
    alone: Cost,
    /// Of one snapshot, behind so many records.
    snapshot_bytes: f64,
    /// With the snapshots behind it.
    burst: Cost,
    /// While nobody asked.
    idle_bytes: u64,
}

impl Found {
    /// Bytes of a day of so many sessions, one after the other: theirs, their snapshots', and those of an idle day.
    fn day(&self, sessions: f64, idle: Duration) -> f64 {
        sessions * self.alone.a_session() + self.snapshots(sessions) * self.snapshot_bytes + self.idle_day(idle)
    }

    /// As well, but all in bursts, whose snapshots are in what a session of them costs.
    fn day_in_bursts(&self, sessions: f64, idle: Duration) -> f64 {
        sessions * self.burst.a_session() + self.idle_day(idle)
    }

    /// One behind every so many records. That a snapshot writes no more than the log before it holds off none of them: a
    /// log written record by record is larger.
    fn snapshots(&self, sessions: f64) -> f64 {
        sessions * self.alone.events as f64 / self.alone.sessions.max(1) as f64 / self.every as f64
    }

    fn idle_day(&self, idle: Duration) -> f64 {
        self.idle_bytes as f64 * 86_400.0 / idle.as_secs_f64()
    }
}

fn print(scale: &Scale, found: &Found) {
    let sessions = (CAMPUS.0 * CAMPUS.1) as f64;
    println!(
        "Bytes that the kernel counts as written by the gateway, in dirtied pages; {} tokens, no cloud. A session is authorize, \
         started, one meter value and stop. Each count ends when no snapshot is under way or due and the process has written \
         nothing for {} s. The file system's own journal and the write amplification of the flash are not in it.\n",
        thousands(scale.tokens.into()),
        STILL.as_secs()
    );
    let mut table = Table::new(&[
        "",
        "sessions",
        "bytes a session",
        "bytes a journal record",
        "a day on a campus",
        "years on the eMMC",
    ]);
    let days = [
        (
            "one after the other, each event synced alone, no snapshot",
            found.alone,
            found.day(sessions, scale.idle),
        ),
        (
            "in a burst of 50 devices at once, with its snapshots",
            found.burst,
            found.day_in_bursts(sessions, scale.idle),
        ),
    ];
    let years = |day: f64| ENDURANCE_BYTES / day / 365.0;
    for (name, cost, day) in days {
        table.row(&[
            name.to_owned(),
            thousands(cost.sessions),
            thousands(cost.a_session() as u64),
            thousands(cost.an_event() as u64),
            format!("{:.1} MB", day / 1e6),
            format!("{:.0}", years(day)),
        ]);
    }
    println!("{}", table.text());
    println!(
        "A campus: {} devices, {} sessions a day each. The gateway takes a snapshot behind every {} records, as long as it \
         writes no more than the log did since the last one: {:.1} a day here, of {:.1} MB each (the mean of {}, counted by \
         themselves). The day of the first row is its sessions, these snapshots, and what is written while nobody asks; that \
         of the second has its snapshots in its sessions. Nobody asking: {} bytes in {} s.\n",
        CAMPUS.0,
        CAMPUS.1,
        thousands(found.every),
        found.snapshots(sessions),
        found.snapshot_bytes / 1e6,
        scale.snapshots,
        thousands(found.idle_bytes),
        scale.idle.as_secs_f64()
    );
    let least = days.iter().map(|(_, _, day)| years(*day)).fold(f64::MAX, f64::min);
    let mut table = Table::new(&["wanted", "found", ""]);
    table.row(&[
        "years on a 4 GB, 3,000-cycle eMMC at campus load".to_owned(),
        format!("{least:.0}"),
        verdict(least >= WANTED_YEARS, "at least 10"),
    ]);
    println!("{}", table.text());
}
