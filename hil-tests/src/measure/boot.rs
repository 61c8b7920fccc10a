//! `boot`: from SIGKILL to the first sealed grant, with the records of a long outage waiting, a long list and no network.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{
    Size,
    load::{Target, Whom},
    post::{self, USERS},
    proc::Memory,
    stat::{Samples, micros, thousands},
    stock::{self, RECORDS_A_SESSION, Stock},
    table::{Table, verdict},
};
use crate::{
    process::Process,
    site::{Plan, Ways},
};

/// Devices of the site.
const DEVICES: usize = 100;
/// Devices that ask until the gateway is killed.
const BUSY: usize = 20;

struct Scale {
    records: u32,
    tokens: u32,
    kills: usize,
    cold_kills: usize,
    load: Duration,
}

/// Runs it; prints its tables. The store is made once and kept in `cache`.
///
/// # Errors
/// If the gateway does not come up, or a record is missing.
pub fn run(size: Size, dir: &Path, cache: &Path) -> anyhow::Result<()> {
    let scale = match size {
        Size::Quick => Scale {
            records: 3_000,
            tokens: 5_000,
            kills: 2,
            cold_kills: 0,
            load: Duration::from_millis(100),
        },
        Size::Full => Scale {
            records: 1_000_000,
            tokens: 100_000,
            kills: 50,
            cold_kills: 10,
            load: Duration::from_millis(500),
        },
    };
    let plan = post::plan(13, DEVICES, (scale.tokens / 2).min(USERS as u32) as usize);
    store(&scale, &plan, dir, cache)?;
    let (mut process, address) = post::start(dir, &[])?;
    let records = |dir: &Path| -> anyhow::Result<u64> {
        post::ask(dir, "status")?["records"]
            .as_u64()
            .context("the status counts records")
    };
    // The sessions of the outage were those of a first boot.
    let mut target = Target::new(Whom::Gateway, address, &plan).booted(100);
    let before = records(dir)?;
    ensure!(before >= u64::from(scale.records), "the store has {before} records");
    let mut memory = Memory::default();
    let mut warm = Vec::new();
    let mut sessions = 0_u64;
    for _ in 0..scale.kills {
        let load = target.closed(BUSY, scale.load)?;
        sessions += load.sessions as u64;
        let start;
        (process, target, start) = again(process, &target, dir, false)?;
        sessions += 1;
        warm.push(start);
        let now = Memory::of(process.pid())?;
        if now.resident > memory.resident {
            memory = now;
        }
    }
    let mut cold = Vec::new();
    for _ in 0..scale.cold_kills {
        if !can_drop_caches() {
            break;
        }
        let start;
        (process, target, start) = again(process, &target, dir, true)?;
        sessions += 1;
        cold.push(start);
    }
    // The first device is served a moment before whoever asks at the socket.
    process.wait_for("ready")?;
    // Each session was a hold and its release, and every one that was answered is there.
    let more = records(dir)? - before;
    ensure!(more == sessions * 2, "{sessions} sessions, and {more} records more");
    print(&scale, &warm, &cold, memory);
    drop(process);
    Ok(())
}

/// A start, as it was seen from outside and as the gateway tells of it.
#[derive(Clone, Copy, Debug, Default)]
struct Start {
    /// From the kill to the grant.
    took: Duration,
    /// Records behind its snapshot.
    replayed: u64,
    /// What opening the journal, loading the snapshot and replaying took, in ms.
    parts_ms: [u64; 3],
}

impl Start {
    /// What the log says of it.
    fn of(process: &Process, took: Duration) -> anyhow::Result<Self> {
        let fields = process
            .fields("journal replayed")
            .context("its log tells of its start")?;
        let field = |name: &str| fields[name].as_u64().with_context(|| format!("its log says {name}"));
        Ok(Self {
            took,
            replayed: field("replayed")?,
            parts_ms: [field("opening_ms")?, field("loading_ms")?, field("replaying_ms")?],
        })
    }
}

/// SIGKILL and a new start.
fn again(mut process: Process, target: &Target, dir: &Path, is_cold: bool) -> anyhow::Result<(Process, Target, Start)> {
    if is_cold {
        process.kill()?;
        drop_caches()?;
    }
    let since = Instant::now();
    if !is_cold {
        process.kill()?;
    }
    drop(process);
    let (process, address) = post::start_listening(dir, &[])?;
    let target = target.at(address);
    let load = target.serial(1)?;
    let took = since.elapsed() - (load.took - load.waits[0]);
    let start = Start::of(&process, took)?;
    Ok((process, target, start))
}

/// The store, from the cache if it was made before.
fn store(scale: &Scale, plan: &Plan, dir: &Path, cache: &Path) -> anyhow::Result<()> {
    let no_cloud = Ways {
        link: String::new(),
        ..Ways::default()
    };
    post::write(plan, dir, &no_cloud)?;
    // The name says what is in it and who wrote it: another format is another store.
    let (records, tokens, users) = (scale.records, scale.tokens, plan.users.len());
    let name = format!("store-{records}-{tokens}-{users}-{}", env!("CARGO_PKG_VERSION"));
    let kept = cache.join(name);
    let data = dir.join("gateway/data");
    if !kept.is_dir() {
        let sessions = scale.records.div_ceil(RECORDS_A_SESSION);
        stock::fill(
            dir,
            plan,
            Stock {
                tokens: scale.tokens,
                sessions,
            },
        )?;
        // A store that is half copied must not be taken for one.
        let half = cache.join("store-half");
        remove(&half)?;
        copy(&data, &half)?;
        fs::rename(&half, &kept)?;
        return Ok(());
    }
    copy(&kept, &data)
}

fn remove(dir: &PathBuf) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

/// As after a power cut: nothing of the store is in memory. Needs root.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

fn can_drop_caches() -> bool {
    fs::OpenOptions::new().write(true).open(DROP_CACHES).is_ok()
}

fn drop_caches() -> anyhow::Result<()> {
    rustix::fs::sync();
    Ok(fs::write(DROP_CACHES, "3")?)
}

fn samples(starts: &[Start]) -> Samples {
    Samples::new(starts.iter().map(|start| start.took).collect())
}

fn print(scale: &Scale, warm_starts: &[Start], cold_starts: &[Start], memory: Memory) {
    let (warm, cold) = (samples(warm_starts), samples(cold_starts));
    println!(
        "A gateway with {} records that wait for a receipt, {} tokens and no cloud is killed with SIGKILL as soon as \
         {BUSY} devices have asked without a pause for {} s, and started again on the same files, {} times; the time runs from the kill until a device that \
         was told the port has its grant, login and hello included.\n",
        thousands(scale.records.into()),
        thousands(scale.tokens.into()),
        scale.load.as_secs_f64(),
        scale.kills
    );
    let mut table = Table::new(&["", "p50, ms", "p99, ms", "most, ms"]);
    for (name, samples) in [("killed", &warm), ("as well, nothing in the page cache", &cold)] {
        if samples.is_empty() {
            continue;
        }
        let cells = [500, 990, 1000].map(|at| format!("{:.0}", micros(samples.at(at)) / 1000.0));
        table.row(&[&[name.to_owned()][..], &cells].concat());
    }
    println!("{}", table.text());
    print_parts(warm_starts);
    let mut table = Table::new(&["wanted", "found", ""]);
    let p99 = micros(warm.at(990)) / 1000.0;
    let row = |table: &mut Table, name: &str, found: String, judged| table.row(&[name.to_owned(), found, judged]);
    row(
        &mut table,
        "boot to first grant, p99",
        format!("{p99:.0} ms"),
        verdict(p99 < 1000.0, "under 1,000 ms, aim 250"),
    );
    row(
        &mut table,
        "resident then, MiB (proportional)",
        memory.text(),
        verdict(memory.mib() < 128.0, "under 128"),
    );
    println!("{}", table.text());
}

/// Where the gateway says that its starts after a kill spent their time: the one in the middle, and the slowest.
fn print_parts(starts: &[Start]) {
    let mut by_time = starts.to_vec();
    by_time.sort_by_key(|start| start.took);
    let names = [
        "",
        "to the grant, ms",
        "opening",
        "snapshot",
        "replay",
        "records replayed",
    ];
    let mut table = Table::new(&names);
    for (name, start) in [
        ("in the middle", by_time.get(by_time.len() / 2)),
        ("the slowest", by_time.last()),
    ] {
        let Some(start) = start else { continue };
        let parts = start.parts_ms.map(|part| part.to_string());
        let took = format!("{:.0}", micros(start.took) / 1000.0);
        let row = [&[name.to_owned(), took][..], &parts, &[thousands(start.replayed)]].concat();
        table.row(&row);
    }
    println!("{}", table.text());
}
