//! `drain`: store and forward. The records of an outage go to a real hub once the wire carries again; beside it mosquitto's
//! bridge in several configurations, with as many messages of the same size, in the same harness.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{
    Size,
    bridge::{self, Bridge, Forwarded, flap},
    load::{Target, Whom},
    post::{self, Post},
    proc::Memory,
    stat::{Samples, micros, thousands},
    stock::{self, RECORDS_A_SESSION, Stock},
    table::{Table, verdict},
};
use crate::{
    books,
    proxy::{Proxy, Weather},
    site::{self, Site, Ways},
};

/// Users, whose accounts pay for a million records.
const USERS: usize = 2_000;
/// Devices at which people stand meanwhile, and sessions a second there.
const LIVE: (usize, u32) = (30, 50);
/// How often the gateway is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long a drain may take.
const LIMIT: Duration = Duration::from_secs(900);
/// How often the wire is cut while it drains.
const FLAPS: u32 = 6;
/// A link that has its hub to itself.
const LINK: &str = "reconnect_s_max = 2\nbatches_a_second_max = 1000\nbacklog_batches_a_second_max = 1000\n";

/// What happens to ours.
#[derive(Clone, Copy, Debug, Default)]
struct Story {
    records: u32,
    is_killed: bool,
    flaps: u32,
    /// Whether people stand at devices meanwhile.
    is_live: bool,
}

/// What became of it.
#[derive(Default)]
struct Told {
    forwarded: Forwarded,
    /// Verdicts while the wire is dark, and while it drains.
    live: [Samples; 2],
}

/// Runs it; prints its tables. `records`: of the large backlog.
///
/// # Errors
/// If anything does not start, or the books do not close.
pub fn run(size: Size, dir: &Path, records: Option<u32>) -> anyhow::Result<()> {
    let (common, large) = match size {
        Size::Quick => (1_500, records),
        Size::Full => (100_000, Some(records.unwrap_or(1_000_000))),
    };
    let mut table = Table::new(&[
        "system",
        "acknowledged",
        "lost",
        "doubled",
        "first after link-up",
        "all after",
        "rate",
        "most resident, MiB",
    ]);
    let story = Story {
        records: common,
        ..Story::default()
    };
    let mut stories = vec![
        ("Holdfast, silence after link-up", story),
        (
            "Holdfast, killed with SIGKILL in the outage",
            Story {
                is_killed: true,
                ..story
            },
        ),
        (
            "Holdfast, six link flaps while draining",
            Story { flaps: FLAPS, ..story },
        ),
        (
            "Holdfast, people at the devices meanwhile",
            Story { is_live: true, ..story },
        ),
    ];
    if let Some(records) = large {
        stories.push((
            "Holdfast, a large backlog, people meanwhile",
            Story {
                records,
                is_live: true,
                ..story
            },
        ));
    }
    let mut told = Vec::new();
    for (number, (name, story)) in stories.into_iter().enumerate() {
        let result = ours(&dir.join(format!("ours-{number}")), story).context(name)?;
        row(&mut table, name, &result.forwarded);
        told.push(result);
    }
    for (number, (name, bridge)) in bridges(size, u64::from(common)).into_iter().enumerate() {
        let result = bridge::run(&dir.join(format!("bridge-{number}")), bridge).context(name)?;
        row(&mut table, name, &result);
    }
    println!(
        "An outage of the wire to the cloud, then it carries again. Ours: records in a journal, booked in double entry at a \
         real hub, each with a receipt; lost and doubled are counted line by line in both books. mosquitto: messages of 230 \
         bytes, lost and doubled are counted at the far broker.\n\n{}",
        table.text()
    );
    print_live(&told);
    judge(&told);
    Ok(())
}

fn bridges(size: Size, count: u64) -> Vec<(&'static str, Bridge)> {
    const ALL: &str = "max_queued_messages 0\n";
    let bridge = Bridge {
        lines: "",
        count,
        is_killed: false,
        flaps: 0,
    };
    let mut bridges = vec![("mosquitto bridge, defaults", bridge)];
    if size == Size::Full {
        bridges.extend([
            ("as well, max_queued_messages 0", Bridge { lines: ALL, ..bridge }),
            (
                "as well, killed with SIGKILL in the outage",
                Bridge {
                    lines: ALL,
                    is_killed: true,
                    ..bridge
                },
            ),
            (
                "as well, autosave_on_changes, autosave_interval 1, killed",
                Bridge {
                    lines: "max_queued_messages 0\nautosave_on_changes true\nautosave_interval 1\n",
                    is_killed: true,
                    // It writes its whole database for each message.
                    count: count.min(2_000),
                    ..bridge
                },
            ),
            (
                "max_queued_messages 0, six link flaps while draining",
                Bridge {
                    lines: ALL,
                    flaps: FLAPS,
                    ..bridge
                },
            ),
        ]);
    }
    bridges
}

fn row(table: &mut Table, name: &str, found: &Forwarded) {
    let arrived = found.acknowledged - found.lost;
    let seconds = found.took.as_secs_f64();
    table.row(&[
        name.to_owned(),
        thousands(found.acknowledged),
        thousands(found.lost),
        thousands(found.doubled),
        found
            .first
            .map_or("never".to_owned(), |first| format!("{:.2} s", first.as_secs_f64())),
        format!("{seconds:.2} s"),
        if seconds > 0.0 {
            format!("{}/s", thousands((arrived as f64 / seconds) as u64))
        } else {
            String::new()
        },
        format!("{:.1}", found.memory_kib as f64 / 1024.0),
    ]);
}

fn ours(dir: &Path, story: Story) -> anyhow::Result<Told> {
    std::fs::create_dir_all(dir)?;
    let plan = post::plan(23, LIVE.0, USERS);
    let (hub, hub_address) = Site::start_hub(&plan, dir)?;
    let wire = Proxy::start(hub_address, 1)?;
    let mut post = Post::start_beside(
        plan,
        dir,
        hub,
        &Ways {
            link: LINK.to_owned(),
            ..Ways::hub(wire.address())
        },
    )?;
    post.process.stop()?;
    wire.set(Weather::Dark);
    let sessions = story.records.div_ceil(RECORDS_A_SESSION);
    stock::fill(dir, &post.plan, Stock { tokens: 0, sessions })?;
    let records = u64::from(sessions * RECORDS_A_SESSION);
    (post.process, post.address) = post::start(dir, &[])?;
    if story.is_killed {
        post.process.kill()?;
        (post.process, post.address) = post::start(dir, &[])?;
    }
    // The sessions of the outage were those of a first boot.
    let target = Target::new(Whom::Gateway, post.address, &post.plan).booted(100);
    let mut told = Told::default();
    if story.is_live {
        told.live[0] = Samples::new(target.open(LIVE.0, LIVE.1, Duration::from_secs(3), 1)?.waits);
    }
    let is_done = AtomicBool::new(false);
    let (forwarded, live) = std::thread::scope(|scope| {
        let people = scope.spawn(|| -> anyhow::Result<Vec<Duration>> {
            let (mut waits, mut seed) = (Vec::new(), 2);
            while story.is_live && !is_done.load(Ordering::Relaxed) {
                waits.extend(target.open(LIVE.0, LIVE.1, Duration::from_secs(1), seed)?.waits);
                seed += 1;
            }
            Ok(waits)
        });
        wire.set(Weather::Calm);
        let flapping = scope.spawn(|| flap(&wire, story.flaps));
        let forwarded = watch(&post, records);
        is_done.store(true, Ordering::Relaxed);
        let _ = flapping.join();
        let live = people.join().map_err(|_| anyhow::anyhow!("the people panicked"))?;
        anyhow::Ok((forwarded?, live?))
    })?;
    told.forwarded = forwarded;
    told.live[1] = Samples::new(live);
    close(&post, &mut told.forwarded)?;
    Ok(told)
}

/// Waits until so many records have their receipt.
fn watch(post: &Post, records: u64) -> anyhow::Result<Forwarded> {
    let since = Instant::now();
    let mut found = Forwarded {
        acknowledged: records,
        ..Forwarded::default()
    };
    loop {
        let status = post.status()?;
        let receipted = status["receipted"]
            .as_u64()
            .context("the status says what is receipted")?;
        if receipted > 0 {
            found.first.get_or_insert_with(|| since.elapsed());
        }
        if receipted >= records {
            found.took = since.elapsed();
            found.memory_kib = Memory::of(post.process.pid())?.most;
            return Ok(found);
        }
        ensure!(since.elapsed() < LIMIT, "not drained: {status}");
        std::thread::sleep(LOOK); // A poll of another process, with its limit above.
    }
}

/// Both books, line by line, once everything is settled.
pub(super) fn close(post: &Post, found: &mut Forwarded) -> anyhow::Result<()> {
    post.until("settled", |status| {
        status["waiting"] == 0 && status["sessions_open"] == 0
    })?;
    let gateway = books::of_gateway(&post.dir.join("gateway/holdfast.toml"))?;
    let books = books::compare(&gateway, &site::ask_hub(&post.dir, "ledger")?)?;
    (found.lost, found.doubled) = (books.records_lost as u64, books.records_doubled as u64);
    ensure!(
        books.are_closed(),
        "the books do not close: {} lost, {} doubled, {} foreign, balanced: {}; {}",
        books.records_lost,
        books.records_doubled,
        books.records_foreign,
        books.ledger_balanced,
        books.difference.as_deref().unwrap_or("no difference")
    );
    Ok(())
}

fn print_live(told: &[Told]) {
    let mut table = Table::new(&[
        "people at the devices, 50 sessions a second",
        "p50, us",
        "p99, us",
        "of",
    ]);
    for told in told.iter().filter(|told| !told.live[1].is_empty()) {
        for (name, samples) in ["the wire is dark", "while draining"].into_iter().zip(&told.live) {
            table.row(&[
                format!("{} records, {name}", thousands(told.forwarded.acknowledged)),
                thousands(micros(samples.at(500)) as u64),
                thousands(micros(samples.at(990)) as u64),
                thousands(samples.len() as u64),
            ]);
        }
    }
    println!("{}", table.text());
}

fn judge(told: &[Told]) {
    let mut table = Table::new(&["wanted", "found", ""]);
    let most = told
        .iter()
        .map(|told| told.forwarded.lost + told.forwarded.doubled)
        .max()
        .unwrap_or_default();
    table.row(&["lost or doubled".to_owned(), most.to_string(), verdict(most == 0, "0")]);
    if let Some(quiet) = told.first() {
        let first = quiet.forwarded.first.unwrap_or(quiet.forwarded.took);
        table.row(&[
            "drain starts after link-up, no new traffic".to_owned(),
            format!("{:.2} s", first.as_secs_f64()),
            verdict(first <= Duration::from_secs(1), "within 1 s"),
        ]);
        let draining = quiet.forwarded.took.saturating_sub(first).as_secs_f64();
        let rate = quiet.forwarded.acknowledged as f64 / draining.max(1e-3);
        table.row(&[
            "records a second from the first receipt on".to_owned(),
            thousands(rate as u64),
            verdict(rate >= 20_000.0, "at least 20,000"),
        ]);
    }
    println!("{}", table.text());
}
