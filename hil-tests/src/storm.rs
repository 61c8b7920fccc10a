//! Many gateways come back at once to one hub behind a cloud that throttles: each a real `holdfast run` with the backlog of
//! an outage. What must hold: nobody hammers, revocations arrive before money leaves, whoever stands at a device is
//! served as on any day, and memory does not grow with the backlog.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    cloud_sim::{CloudSim, Member, Mode, Options, Way},
    fleet,
    outpost::{Dispenser, Outposts, link_key},
    site::{DevicePlan, Plan, Standing, Ways, ask_hub, hex, key},
};
use anyhow::{Context, ensure};
use proto::{
    id::{Kind, Name},
    seal::PairSecret,
};

/// How long everybody may take to be done.
const LIMIT: Duration = Duration::from_secs(900);
/// How often all gateways are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// People who come during the storm, after the quiet ones: how long, in s.
const PEOPLE_S: f64 = 15.0;
/// Gateways that are started at the same time.
const START_TOGETHER: usize = 8;

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// Gateways.
    pub gateways: usize,
    /// Sessions of each one's outage, three records each.
    pub sessions: u32,
    /// Requests a second that the cloud carries at first; the rest is told to slow down.
    pub rate: u32,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// Records of all backlogs.
    pub records: u64,
    /// From the return of the cloud to the last receipt.
    pub took: Duration,
    /// Most records committed within a second.
    pub records_a_second_max: u64,
    /// Most connections of one gateway within a minute, and the shortest time between two, in ms.
    pub connects: (usize, Option<u64>),
    /// Requests that were told to slow down.
    pub throttled: u64,
    /// Gateways that had a receipt before the new revocation.
    pub money_first: usize,
    /// How long people waited for a verdict while nothing happened and during the storm, 99 of 100 within, in ms.
    pub verdict_p99_ms: (f64, f64),
    /// Good people who were refused.
    pub good_refused: usize,
    /// Largest resident memory of a gateway, in KiB: before the storm, and after it.
    pub memory_kib: (u64, u64),
    /// Lines in both books, lost and doubled ones.
    pub books: (usize, usize, usize),
}

impl Seen {
    /// Whether everything holds that must.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.money_first == 0
            && self.good_refused == 0
            && self.connects.0 <= 5
            && self.books.1 == 0
            && self.books.2 == 0
            && self.books.0 as u64 >= self.records
            && self.verdict_p99_ms.1 > 0.0
    }
}

/// Plays it.
///
/// # Errors
/// If something does not start, or is not done in time.
pub fn play(dir: &Path, orders: Orders) -> anyhow::Result<Seen> {
    let runtime = tokio::runtime::Runtime::new()?;
    let plan = Plan::new(orders.seed, 0, 400);
    let mut site = Outposts::start_hub(plan, dir, orders.gateways, "")?;
    site.fill(orders.sessions)?;
    let members = site.gateways.iter().map(|gateway| {
        Ok(Member {
            gateway: Name::new(&gateway.name)?,
            site: Name::new("campus")?,
            password: PairSecret(link_key(&site.plan, &gateway.name)).password().to_string(),
        })
    });
    let members = members.collect::<anyhow::Result<Vec<_>>>()?;
    let cloud = runtime.block_on(CloudSim::start(Options::new(Way::Hcp, site.hub_address, members)))?;
    cloud.set(Mode::Dark);
    let ways = Ways::hub(cloud.address());
    for gateway in &site.gateways {
        gateway.write(&site.plan, &ways)?;
    }
    start_all(&mut site)?;
    let revision = revoke_one(&site)?;
    let quiet = people(&site, dir, "quiet")?;
    let before = memory(&site)?;
    cloud.set(Mode::Throttled(orders.rate));
    let since = Instant::now();
    let storm = people_beside(&site, Dispenser::Second, dir)?;
    let watched = watch(&site, revision)?;
    let took = since.elapsed();
    let storm = storm.finish()?;
    site.settle(LIMIT)?;
    let crowd = plan_of_people(&site, Dispenser::First)?;
    let books = site.books()?;
    // Who is refused before he has said his name is counted under none.
    let is_gateway = |who: &String| site.gateways.iter().any(|gateway| gateway.name == *who);
    let pace = cloud.counters().pace().into_iter();
    let connects = pace.filter(|(who, _)| is_gateway(who)).map(|(_, pace)| pace);
    let connects = connects.fold((0, None), |(most, least), (many, gap): (usize, Option<u64>)| {
        (most.max(many), least.into_iter().chain(gap).min())
    });
    let seen = Seen {
        records: orders.gateways as u64 * u64::from(orders.sessions) * 3,
        took,
        records_a_second_max: watched.most_a_second,
        connects,
        throttled: cloud.counters().throttled.get(),
        money_first: watched.money_first,
        verdict_p99_ms: (p99(&quiet), p99(&storm)),
        good_refused: refused(&quiet, &crowd) + refused(&storm, &crowd),
        memory_kib: (before, memory(&site)?),
        books: (books.lines, books.records_lost, books.records_doubled),
    };
    site.stop()?;
    Ok(seen)
}

fn start_all(site: &mut Outposts) -> anyhow::Result<()> {
    for some in site.gateways.chunks_mut(START_TOGETHER) {
        let results: Vec<anyhow::Result<()>> = std::thread::scope(|scope| {
            let started: Vec<_> = some.iter_mut().map(|gateway| scope.spawn(|| gateway.start())).collect();
            started
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| anyhow::bail!("starting a gateway panicked"))
                })
                .collect()
        });
        results.into_iter().collect::<anyhow::Result<()>>()?;
    }
    Ok(())
}

/// The operator revokes somebody while everybody is cut off; the revision of it.
fn revoke_one(site: &Outposts) -> anyhow::Result<u64> {
    let path = site.dir.join("hub/seed.toml");
    let somebody = site
        .plan
        .users
        .iter()
        .rfind(|user| user.standing == Standing::Good)
        .context("the plan has good users")?;
    let mut text = fs::read_to_string(&path)?;
    let _ = writeln!(
        text,
        "\n[[revocations]]\nkind = \"card\"\nraw = \"{}\"",
        hex(&somebody.token)
    );
    fs::write(&path, text)?;
    ask_hub(&site.dir, "reload")?;
    let status = ask_hub(&site.dir, "status")?;
    status
        .first()
        .and_then(|status| status["revocations_revision"].as_u64())
        .context("the hub says which revocations it has")
}

/// The plan of the people at the first gateway: others than those of the outage.
fn plan_of_people(site: &Outposts, which: Dispenser) -> anyhow::Result<Plan> {
    let first = site.gateways.first().context("there is a gateway")?;
    let device = first.dispenser(which)?;
    let half = site.plan.users.len() / 2;
    let end = site.plan.users.len() - 20;
    Ok(Plan {
        devices: vec![DevicePlan {
            id: device,
            kind: Kind::Dispenser,
            secret: PairSecret(key(site.plan.seed, device.as_str())),
        }],
        users: site.plan.users[half..end].to_vec(),
        ..site.plan.clone()
    })
}

fn people_beside(site: &Outposts, which: Dispenser, dir: &Path) -> anyhow::Result<fleet::Process> {
    let plan = plan_of_people(site, which)?;
    let first = site.gateways.first().context("there is a gateway")?;
    let address = first.process.as_ref().context("the first gateway runs")?.address()?;
    fleet::Process::start(&plan, address, PEOPLE_S, dir)
}

fn people(site: &Outposts, dir: &Path, name: &str) -> anyhow::Result<Vec<fleet::Row>> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir)?;
    people_beside(site, Dispenser::First, &dir)?.finish()
}

struct Watched {
    most_a_second: u64,
    money_first: usize,
}

/// Looks at every gateway until all are done.
fn watch(site: &Outposts, revision: u64) -> anyhow::Result<Watched> {
    let since = Instant::now();
    let mut watched = Watched {
        most_a_second: 0,
        money_first: 0,
    };
    let (mut committed, mut looked) = (0, since);
    let mut first: BTreeMap<&str, bool> = BTreeMap::new();
    loop {
        let mut waiting = 0;
        let mut receipted = 0;
        for gateway in &site.gateways {
            let status = gateway.ask("status")?;
            let number = |field: &str| status[field].as_u64().unwrap_or(0);
            waiting += number("waiting");
            receipted += number("receipted");
            if number("receipted") > 0 {
                first
                    .entry(&gateway.name)
                    .or_insert_with(|| number("revocations_revision") >= revision);
            }
        }
        let seconds = looked.elapsed().as_secs_f64().max(0.001);
        let rate = (receipted.saturating_sub(committed) as f64 / seconds) as u64;
        watched.most_a_second = watched.most_a_second.max(rate);
        (committed, looked) = (receipted, Instant::now());
        if waiting == 0 && first.len() == site.gateways.len() {
            break;
        }
        ensure!(since.elapsed() < LIMIT, "{waiting} records still wait");
        std::thread::sleep(LOOK); // A poll of other processes, with its limit above.
    }
    watched.money_first = first.values().filter(|was_revoked| !**was_revoked).count();
    Ok(watched)
}

fn memory(site: &Outposts) -> anyhow::Result<u64> {
    let mut most = 0;
    for gateway in &site.gateways {
        let pid = gateway.process.as_ref().context("every gateway runs")?.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        most = most.max(kib.unwrap_or(0));
    }
    Ok(most)
}

fn p99(rows: &[fleet::Row]) -> f64 {
    let mut waits: Vec<f64> = rows.iter().filter_map(|row| row.verdict_ms).collect();
    waits.sort_by(f64::total_cmp);
    let at = (waits.len() * 99 / 100).min(waits.len().saturating_sub(1));
    waits.get(at).copied().unwrap_or(0.0)
}

/// Good people who were refused.
fn refused(rows: &[fleet::Row], plan: &Plan) -> usize {
    let is_good = |row: &&fleet::Row| plan.users[row.user].standing == Standing::Good;
    rows.iter().filter(|row| row.refused.is_some()).filter(is_good).count()
}
