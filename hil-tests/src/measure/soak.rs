//! `soak`: a campus for weeks in an hour. People come a hundred times as often as on a campus; the wire to the hub goes dark,
//! breaks and stands still, strangers knock, and now and then the gateway is killed. Between two rounds of that it is
//! looked at while it rests: what grows then, leaks. At the end both books are compared line by line.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{
    Size,
    bridge::Forwarded,
    drain::close,
    load::{Target, Whom},
    post::{self, Post, USERS},
    proc::Memory,
    stat::{Samples, micros, thousands},
    table::{Table, verdict},
};
use crate::{
    proxy::{Proxy, Weather},
    site::{Site, Ways},
};

/// Devices, and sessions a second at them: a campus has half a session a second.
const LOAD: (usize, u32) = (100, 200);
const CAMPUS_SESSIONS_A_DAY: f64 = 50_000.0;
/// Lives of the gateway; all but the last end with SIGKILL.
const LIVES: usize = 4;
/// How the wire is, one after the other.
const WEATHERS: [Weather; 5] = [
    Weather::Calm,
    Weather::Wild,
    Weather::Dark,
    Weather::Still,
    Weather::Calm,
];
/// Strangers a round: connections that say nothing, or nonsense.
const STRANGERS: usize = 40;
/// What may be resident at the end of a life, above what was in its middle: until then everybody has come, and what is
/// rightly remembered of people and devices is there.
const GROWTH_MAX: f64 = 1.15;
/// A link that tries again soon: the faults are many times as frequent as outside.
const LINK: &str = "reconnect_s_max = 2\nbatches_a_second_max = 1000\nbacklog_batches_a_second_max = 1000\n";

/// The gateway at rest.
#[derive(Clone, Copy, Debug)]
struct Rest {
    at: Duration,
    life: usize,
    sessions: usize,
    resident_mib: f64,
    files: usize,
    threads: usize,
    journal_mib: f64,
    p99: Duration,
}

/// Runs for so many minutes, or as little as shows that it works; prints its tables.
///
/// # Errors
/// If anything does not start, somebody is refused or not answered, or the books do not close.
pub fn run(size: Size, dir: &Path, minutes: Option<u32>) -> anyhow::Result<()> {
    let (time, slice) = match (size, minutes) {
        (_, Some(minutes)) => (Duration::from_secs(u64::from(minutes) * 60), Duration::from_secs(5)),
        (Size::Full, None) => (Duration::from_secs(60 * 60), Duration::from_secs(5)),
        (Size::Quick, None) => (Duration::from_secs(4), Duration::from_millis(100)),
    };
    let plan = post::plan(31, LOAD.0, USERS);
    let (hub, hub_address) = Site::start_hub(&plan, dir)?;
    let wire = Proxy::start(hub_address, 31)?;
    let ways = Ways {
        link: LINK.to_owned(),
        ..Ways::hub(wire.address())
    };
    let mut post = Post::start_beside(plan, dir, hub, &ways)?;
    let target = Target::new(Whom::Gateway, post.address, &post.plan);
    let since = Instant::now();
    let (mut rests, mut sessions) = (Vec::new(), 0);
    for life in 0..LIVES {
        let until = time * (life as u32 + 1) / LIVES as u32;
        let mut round = 0;
        while round == 0 || since.elapsed() < until {
            let target = target.at(post.address);
            let mut waits = Vec::new();
            for (number, weather) in WEATHERS.into_iter().enumerate() {
                wire.set(weather);
                let strangers = knock(post.address)?;
                let seed = (rests.len() * WEATHERS.len() + number) as u64;
                let load = target.open(LOAD.0, LOAD.1, slice, seed)?;
                sessions += load.sessions;
                waits.extend(load.waits);
                drop(strangers);
            }
            post.until("settled", |status| {
                status["waiting"] == 0 && status["sessions_open"] == 0
            })?;
            rests.push(look(&post, since.elapsed(), life, sessions, Samples::new(waits))?);
            round += 1;
        }
        if life + 1 < LIVES {
            post.process.kill()?;
            (post.process, post.address) = post::start(&post.dir, &[])?;
        }
    }
    let mut found = Forwarded::default();
    close(&post, &mut found)?;
    print(&rests, since.elapsed(), sessions, &found);
    Ok(())
}

/// Strangers: half of them are silent, half talk nonsense.
fn knock(address: SocketAddr) -> anyhow::Result<Vec<TcpStream>> {
    let strangers = (0..STRANGERS).map(|number| {
        let mut stream = TcpStream::connect(address)?;
        if number % 2 == 0 {
            // It is cut while it talks, or before.
            let _ = stream.write_all(&[0x10, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3]);
        }
        anyhow::Ok(stream)
    });
    strangers.collect()
}

fn look(post: &Post, at: Duration, life: usize, sessions: usize, waits: Samples) -> anyhow::Result<Rest> {
    let pid = post.process.pid();
    let count = |what: &str| anyhow::Ok(fs::read_dir(format!("/proc/{pid}/{what}"))?.count());
    Ok(Rest {
        at,
        life,
        sessions,
        resident_mib: Memory::of(pid)?.mib(),
        files: count("fd")?,
        threads: count("task")?,
        journal_mib: bytes_below(&post.dir.join("gateway/data/journal"))? as f64 / (1 << 20) as f64,
        p99: waits.at(990),
    })
}

fn bytes_below(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        // A file may have gone meanwhile.
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path())?,
            Ok(found) => found.len(),
            Err(_) => 0,
        };
    }
    Ok(bytes)
}

fn print(rests: &[Rest], took: Duration, sessions: usize, found: &Forwarded) {
    println!(
        "{} sessions in {:.0} minutes, as many as on a campus in {:.1} days: {} devices, {} sessions a second, each round \
         with the wire calm, breaking, dark, standing still and calm again, {STRANGERS} strangers each time; a life ends \
         with SIGKILL.\n",
        thousands(sessions as u64),
        took.as_secs_f64() / 60.0,
        sessions as f64 / CAMPUS_SESSIONS_A_DAY,
        LOAD.0,
        LOAD.1,
    );
    let mut table = Table::new(&[
        "life",
        "round",
        "after, min",
        "sessions",
        "resident, MiB",
        "files",
        "threads",
        "journal, MiB",
        "p99 of the round, us",
    ]);
    let (mut filling, mut growth, mut leaks) = (0.0_f64, 0.0_f64, 0);
    for life in 0..LIVES {
        let rounds: Vec<&Rest> = rests.iter().filter(|rest| rest.life == life).collect();
        let (Some(first), Some(last)) = (rounds.first(), rounds.last()) else {
            continue;
        };
        let middle = rounds[rounds.len() / 2];
        filling = filling.max(last.resident_mib / first.resident_mib);
        growth = growth.max(last.resident_mib / middle.resident_mib);
        leaks = leaks.max(last.files.saturating_sub(first.files));
        for at in BTreeSet::from([0, rounds.len() / 2, rounds.len() - 1]) {
            let rest = rounds[at];
            table.row(&[
                (life + 1).to_string(),
                (at + 1).to_string(),
                format!("{:.1}", rest.at.as_secs_f64() / 60.0),
                thousands(rest.sessions as u64),
                format!("{:.1}", rest.resident_mib),
                rest.files.to_string(),
                rest.threads.to_string(),
                format!("{:.1}", rest.journal_mib),
                thousands(micros(rest.p99) as u64),
            ]);
        }
    }
    println!("{}", table.text());
    let mut table = Table::new(&["wanted", "found", ""]);
    table.row(&[
        "records lost or doubled, over all lives".to_owned(),
        (found.lost + found.doubled).to_string(),
        verdict(found.lost + found.doubled == 0, "0"),
    ]);
    table.row(&[
        "resident at the end of a life, to its middle".to_owned(),
        format!("{growth:.2}"),
        verdict(growth <= GROWTH_MAX, &format!("at most {GROWTH_MAX}")),
    ]);
    table.row(&[
        "the same, to after its first round".to_owned(),
        format!("{filling:.2}"),
        "while people come for the first time".to_owned(),
    ]);
    table.row(&[
        "files that stay open".to_owned(),
        leaks.to_string(),
        verdict(leaks <= 2, "at most 2, for segments"),
    ]);
    println!("{}", table.text());
}
