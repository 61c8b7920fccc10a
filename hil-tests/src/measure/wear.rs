//! `wear`: what a session costs the flash, and how long an eMMC lasts at campus load. Counted by the kernel for the real
//! process: every page that it dirtied, whatever it wrote it for (journal, witness, snapshots).

use std::{path::Path, time::Duration};

use anyhow::Context;

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

struct Scale {
    alone: usize,
    burst: Duration,
    idle: Duration,
}

/// Runs it; prints its tables.
///
/// # Errors
/// If anything does not come up, or a record is missing.
pub fn run(size: Size, dir: &Path) -> anyhow::Result<()> {
    let (scale, tokens) = match size {
        Size::Quick => (
            Scale {
                alone: 50,
                burst: Duration::from_millis(200),
                idle: Duration::from_millis(200),
            },
            5_000,
        ),
        Size::Full => (
            Scale {
                alone: 10_000,
                burst: Duration::from_secs(10),
                idle: Duration::from_secs(30),
            },
            100_000,
        ),
    };
    let plan = post::plan(19, BURST, USERS.min(tokens as usize));
    let no_cloud = Ways {
        link: String::new(),
        ..Ways::default()
    };
    post::write(&plan, dir, &no_cloud)?;
    stock::fill(dir, &plan, Stock { tokens, sessions: 0 })?;
    let (process, address) = post::start(dir, &[])?;
    let target = Target::new(Whom::Gateway, address, &plan);
    let pid = process.pid();
    let events = || -> anyhow::Result<u64> {
        post::ask(dir, "status")?["journal"]
            .as_u64()
            .context("the status counts events")
    };

    let (from, events_from) = (proc::written(pid)?, events()?);
    let alone = target.whole(1, Some(scale.alone), Duration::MAX)?;
    let (alone_bytes, alone_events) = (proc::written(pid)? - from, events()? - events_from);
    let (from, events_from) = (proc::written(pid)?, events()?);
    let burst = target.whole(BURST, None, scale.burst)?;
    let (burst_bytes, burst_events) = (proc::written(pid)? - from, events()? - events_from);
    let from = proc::written(pid)?;
    // Nothing happens for so long: that is what is measured.
    std::thread::sleep(scale.idle);
    let idle_bytes = proc::written(pid)? - from;

    println!(
        "Bytes that the kernel counts as written by the gateway, in dirtied pages, snapshots included; {} tokens, no cloud. A \
         session is authorize, started, one meter value and stop. The file system's own journal and the write amplification \
         of the flash are not in it.\n",
        thousands(tokens.into())
    );
    let mut table = Table::new(&[
        "",
        "sessions",
        "bytes a session",
        "bytes a journal record",
        "a day on a campus",
        "years on the eMMC",
    ]);
    let idle_day = idle_bytes as f64 * 86_400.0 / scale.idle.as_secs_f64();
    let sessions_a_day = (CAMPUS.0 * CAMPUS.1) as f64;
    let mut years = Vec::new();
    for (name, sessions, bytes, events) in [
        (
            "one after the other, each event synced alone",
            alone.sessions,
            alone_bytes,
            alone_events,
        ),
        (
            "in a burst of 50 devices at once",
            burst.sessions,
            burst_bytes,
            burst_events,
        ),
    ] {
        let each = bytes as f64 / sessions.max(1) as f64;
        let day = each * sessions_a_day + idle_day;
        let last = ENDURANCE_BYTES / day / 365.0;
        years.push(last);
        table.row(&[
            name.to_owned(),
            thousands(sessions as u64),
            thousands(each as u64),
            thousands(bytes / events.max(1)),
            format!("{:.1} MB", day / 1e6),
            format!("{last:.0}"),
        ]);
    }
    println!("{}", table.text());
    println!(
        "A campus: {} devices, {} sessions a day each. Nobody asking: {} bytes in {} s, which is in the day above.\n",
        CAMPUS.0,
        CAMPUS.1,
        thousands(idle_bytes),
        scale.idle.as_secs_f64()
    );
    let least = years.into_iter().fold(f64::MAX, f64::min);
    let mut table = Table::new(&["wanted", "found", ""]);
    table.row(&[
        "years on a 4 GB, 3,000-cycle eMMC at campus load".to_owned(),
        format!("{least:.0}"),
        verdict(least >= WANTED_YEARS, "at least 10"),
    ]);
    println!("{}", table.text());
    drop(process);
    Ok(())
}
