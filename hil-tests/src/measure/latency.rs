//! `latency`: from a device's sealed authorize to its sealed, durable grant, beside the floor of the machine and beside
//! mosquitto, which routes the same two messages through a responder. Everything is measured in turns, round by round.
//!
//! Slow disks are made by strace, which holds every fdatasync of the real gateway: it needs no hook in the product and works
//! with any build of it, and with seccomp-bpf no other system call is touched.

use std::{path::Path, time::Duration};

use anyhow::Context;

use super::{
    Size,
    floor::Floor,
    load::{Load, Target, Whom},
    peer::Peer,
    post::{self, Post, USERS},
    stat::{Rounds, Samples, Spread, micros, thousands},
    table::{Table, at_least, at_most, verdict},
};

/// Devices of the plan; the most that ask at once.
const DEVICES: usize = 256;
/// Devices that ask at once.
const CROWDS: [usize; 2] = [20, 100];
/// Sessions begun in a second by whichever of a hundred devices is free.
const RATES: [u32; 3] = [50, 200, 1_000];
/// Devices that ask without a pause when throughput is looked for.
const SATURATION: [usize; 2] = [100, 256];
/// Flush latencies of an eMMC and of SD cards, in microseconds.
const FLUSHES_US: [u64; 3] = [3_000, 6_400, 10_000];

/// How much is measured.
struct Scale {
    rounds: usize,
    serial: usize,
    time: Duration,
    rates: &'static [u32],
    flushes_us: &'static [u64],
}

impl Scale {
    fn of(size: Size) -> Self {
        match size {
            Size::Quick => Self {
                rounds: 1,
                serial: 200,
                time: Duration::from_millis(300),
                rates: &[200],
                flushes_us: &[3_000],
            },
            Size::Full => Self {
                rounds: 5,
                serial: 4_000,
                time: Duration::from_secs(4),
                rates: &RATES,
                flushes_us: &FLUSHES_US,
            },
        }
    }
}

/// Everything of one subject.
#[derive(Default)]
struct Subject {
    serial: Rounds,
    crowds: [Rounds; CROWDS.len()],
    rates: Vec<Rounds>,
    saturation: [Vec<f64>; SATURATION.len()],
}

impl Subject {
    fn new(scale: &Scale) -> Self {
        Self {
            rates: vec![Rounds::default(); scale.rates.len()],
            ..Self::default()
        }
    }

    fn serial(&mut self, target: &Target, scale: &Scale) -> anyhow::Result<usize> {
        let load = target.serial(scale.serial)?;
        Ok(keep(&mut self.serial, load))
    }

    fn round(&mut self, target: &Target, scale: &Scale, round: u64) -> anyhow::Result<usize> {
        let mut sessions = self.serial(target, scale)?;
        for (devices, rounds) in CROWDS.into_iter().zip(&mut self.crowds) {
            sessions += keep(rounds, target.closed(devices, scale.time)?);
        }
        for (a_second, rounds) in scale.rates.iter().zip(&mut self.rates) {
            sessions += keep(rounds, target.open(100, *a_second, scale.time, round)?);
        }
        for (devices, rates) in SATURATION.into_iter().zip(&mut self.saturation) {
            let load = target.closed(devices, scale.time)?;
            rates.push(load.rate());
            sessions += load.sessions;
        }
        Ok(sessions)
    }

    /// The best that any number of devices got, in sessions a second.
    fn best(&self) -> Spread {
        let spreads = self.saturation.iter().map(|rates| Spread::of(rates.clone()));
        spreads.max_by(|a, b| a.median.total_cmp(&b.median)).unwrap_or_default()
    }
}

fn keep(rounds: &mut Rounds, load: Load) -> usize {
    rounds.push(Samples::new(load.waits));
    load.sessions
}

/// Runs it; prints its tables.
///
/// # Errors
/// If anything does not start, a device is refused or not answered, or a record is missing.
pub fn run(size: Size, dir: &Path) -> anyhow::Result<()> {
    let scale = Scale::of(size);
    let seed = 7;
    let (up_dir, down_dir) = (dir.join("up"), dir.join("down"));
    for dir in [&up_dir, &down_dir] {
        std::fs::create_dir_all(dir)?;
    }
    let up = Post::start(post::plan(seed, DEVICES, USERS), &up_dir)?;
    let mut down = Post::start(post::plan(seed, DEVICES, USERS), &down_dir)?;
    down.cut()?;
    let above = Target::new(Whom::Gateway, up.address, &up.plan);
    let ours = Target::new(Whom::Gateway, down.address, &down.plan);
    let answers = ours.answers()?;
    let mut sessions = DEVICES;
    let peer = Peer::start(dir, answers)?;
    let theirs = Target::new(Whom::Peer, peer.address, &down.plan);

    let mut floor = Floor::start(Some(dir))?;
    let mut wire = Floor::start(None)?;
    let (mut floors, mut wires) = (Rounds::default(), Rounds::default());
    let (mut us, mut them) = (Subject::new(&scale), Subject::new(&scale));
    let (mut with_cloud, mut with_cloud_sessions) = (Subject::new(&scale), 0);
    // Whoever comes first warms the machine.
    ours.serial(100)?;
    sessions += 100;
    theirs.serial(100)?;
    for round in 0..scale.rounds as u64 {
        floors.push(Samples::new(floor.round(scale.serial)?));
        wires.push(Samples::new(wire.round(scale.serial)?));
        sessions += us.round(&ours, &scale, round)?;
        them.round(&theirs, &scale, round)?;
        with_cloud_sessions += with_cloud.serial(&above, &scale)?;
    }
    floor.stop()?;
    wire.stop()?;
    let slow = slow(&mut down, &ours, &scale, dir, &mut sessions)?;
    check_books(&down, sessions)?;
    check_books(&up, with_cloud_sessions)?;
    peer.stop()?;
    print(&scale, &floors, &wires, &us, &them, &with_cloud);
    print_slow(&scale, &slow);
    Ok(())
}

/// A session without a delivery makes two records, the hold and its end: none may be missing.
fn check_books(post: &Post, sessions: usize) -> anyhow::Result<()> {
    let status = post.status()?;
    let records = status["records"].as_u64().context("the status counts records")?;
    anyhow::ensure!(
        records == sessions as u64 * 2 && status["balanced"] == true && status["sessions_open"] == 0,
        "{sessions} sessions, but {status}"
    );
    Ok(())
}

/// With a slow flush: the floor of that disk is the flush itself.
fn slow(
    post: &mut Post,
    target: &Target,
    scale: &Scale,
    dir: &Path,
    sessions: &mut usize,
) -> anyhow::Result<Vec<[Samples; 2]>> {
    let mut measured = Vec::new();
    for flush_us in scale.flushes_us {
        let log = dir.join("strace.log");
        let log = log.to_str().context("a path of characters")?;
        let inject = format!("inject=fdatasync,fsync:delay_exit={flush_us}");
        let under = [
            "strace",
            "-D",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-o",
            log,
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            &inject,
        ];
        post.restart(&under)?;
        let target = target.at(post.address);
        let count = (scale.serial / 8).max(50);
        let alone = target.serial(count)?;
        let crowd = target.closed(20, scale.time)?;
        *sessions += alone.sessions + crowd.sessions;
        measured.push([Samples::new(alone.waits), Samples::new(crowd.waits)]);
    }
    post.restart(&[])?;
    Ok(measured)
}

fn print(scale: &Scale, floors: &Rounds, wires: &Rounds, us: &Subject, them: &Subject, with_cloud: &Subject) {
    println!(
        "Microseconds from the first byte of a sealed authorize to the last of its sealed grant, on the device's side of a \
         TCP connection over loopback. {} rounds in turns, {} sessions or {} s each; each figure is the median of the \
         rounds, and in brackets the least and the most.\n",
        scale.rounds,
        thousands(scale.serial as u64),
        scale.time.as_secs_f64()
    );
    let mut table = Table::new(&["one device", "p50", "p99", "p99.9"]);
    let row = |table: &mut Table, name: &str, rounds: &Rounds| {
        let [p50, p99, p999] = [500, 990, 999].map(|at| rounds.at(at).text());
        table.row(&[name.to_owned(), p50, p99, p999]);
    };
    row(&mut table, "loopback round trip alone", wires);
    row(&mut table, "floor: round trip and synced 128 B append", floors);
    row(&mut table, "mosquitto, responder, nothing stored", &them.serial);
    row(&mut table, "Holdfast, cloud down", &us.serial);
    row(&mut table, "Holdfast, cloud up", &with_cloud.serial);
    println!("{}", table.text());

    let mut table = Table::new(&["many devices", "p50", "p99", "p99.9", "mosquitto p50", "p99", "p99.9"]);
    let both = |table: &mut Table, name: String, us: &Rounds, them: &Rounds| {
        let mut cells = vec![name];
        for rounds in [us, them] {
            cells.extend([500, 990, 999].map(|at| rounds.at(at).text()));
        }
        table.row(&cells);
    };
    for ((devices, us), them) in CROWDS.iter().zip(&us.crowds).zip(&them.crowds) {
        both(&mut table, format!("{devices} at once, without pause"), us, them);
    }
    for ((rate, us), them) in scale.rates.iter().zip(&us.rates).zip(&them.rates) {
        both(&mut table, format!("{rate} sessions a second, at random"), us, them);
    }
    println!("{}", table.text());

    let mut table = Table::new(&["saturation", "Holdfast", "mosquitto"]);
    for ((devices, us), them) in SATURATION.iter().zip(&us.saturation).zip(&them.saturation) {
        let text = |rates: &Vec<f64>| Spread::of(rates.iter().map(|rate| rate * 2.0).collect()).text();
        table.row(&[format!("answers a second, {devices} devices"), text(us), text(them)]);
    }
    println!("{}", table.text());
    println!(
        "Half of the answers are grants, half receipts; ours are all durable before they leave, mosquitto's are stored \
         nowhere.\n"
    );

    let mut table = Table::new(&["wanted", "ratio", ""]);
    let mut ratio = |name: &str, [found, judged]: [String; 2]| table.row(&[name.to_owned(), found, judged]);
    let of = |a: &Rounds, b: &Rounds, at: usize| a.at(at).median / b.at(at).median;
    ratio(
        "one device, p50 to the floor's",
        at_most(of(&us.serial, floors, 500), 1.5),
    );
    ratio(
        "one device, p99 to the floor's",
        at_most(of(&us.serial, floors, 990), 2.5),
    );
    for ((devices, us), them) in CROWDS.iter().zip(&us.crowds).zip(&them.crowds) {
        ratio(
            &format!("{devices} devices, p50 to mosquitto's"),
            at_most(of(us, them, 500), 1.0),
        );
        ratio(
            &format!("{devices} devices, p99 to mosquitto's"),
            at_most(of(us, them, 990), 1.0),
        );
    }
    for at in [500, 990] {
        let found = of(&us.serial, &with_cloud.serial, at);
        let name = format!("cloud down to cloud up, p{}", at / 10);
        ratio(
            &name,
            [
                format!("{found:.2}"),
                verdict((found - 1.0).abs() <= 0.05, "within 5 %"),
            ],
        );
    }
    ratio(
        "answers a second to mosquitto's",
        at_least(us.best().median / them.best().median, 2.0),
    );
    println!("{}", table.text());
}

fn print_slow(scale: &Scale, slow: &[[Samples; 2]]) {
    println!(
        "With a flush that takes longer: strace holds every fdatasync of the gateway for that long. The wanted ratio is \
         p99 to the flush.\n"
    );
    let mut table = Table::new(&["flush", "devices", "p50", "p99", "p99 to flush", ""]);
    for (flush_us, both) in scale.flushes_us.iter().zip(slow) {
        for (devices, waits) in ["1", "20"].into_iter().zip(both) {
            let p99 = micros(waits.at(990));
            let [ratio, judged] = at_most(p99 / *flush_us as f64, 3.0);
            table.row(&[
                format!("{:.1} ms", *flush_us as f64 / 1000.0),
                devices.to_owned(),
                format!("{:.1} ms", micros(waits.at(500)) / 1000.0),
                format!("{:.1} ms", p99 / 1000.0),
                ratio,
                judged,
            ]);
        }
    }
    println!("{}", table.text());
}
