//! Rehearsals: a script of a cloud's day, played on the wire before a real hub, a real gateway and real device code, with
//! people who come and go; and what must hold at the end, whatever the cloud did.

mod deed;
mod outcome;
mod storm;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

pub use self::outcome::Outcome;
use self::{deed::Done, outcome::Seen};
use crate::{
    account::Account,
    cloud_sim::{CloudSim, Vendor, script::Script},
    fleet,
    site::{BrokerKind, Plan, Site},
};

/// Devices of a rehearsal, of the three kinds in turn.
const DEVICES: usize = 12;
/// Users per device: enough that nobody meets the limits of one outage.
const USERS_PER_DEVICE: usize = 14;
/// Longest time for the books to close after the script: what a cloud has throttled waits for so long at the slowest rate.
const SETTLE: Duration = Duration::from_secs(300);
/// An outage of seconds needs health and meters of seconds.
const LIMITS: &str = "[health]\nrecover_ms = 1500\nprobe_ms = 500\nprobe_max_ms = 1500\necho_ms = 500\n\
    echo_wait_ms = 600\nhello_ms = 700\n\
    [limits.charger]\nmeter_every_s = 2\n[limits.washer]\nmeter_every_s = 2\n[limits.dispenser]\nmeter_every_s = 2\n";

/// Plays a script on one kind of cloud; blocks until the books are closed.
///
/// # Errors
/// If something does not come up, or the books do not close in time. What people saw is no error, but in the outcome.
pub fn play(script: &Script, vendor: Vendor, seed: u64) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    if script.gateways > 1 {
        return runtime.block_on(storm::play(script, vendor, seed));
    }
    let dir = tempfile::tempdir()?;
    let mut plan = Plan::new(seed, DEVICES, DEVICES * USERS_PER_DEVICE);
    plan.limits = LIMITS.to_owned();
    plan.telemetry_s = 1;
    let (hub, hub_address) = Site::start_hub(&plan, dir.path())?;
    let account = Account::new(&plan, vendor)?;
    let mut options = account.cloud(hub_address)?;
    options.times = script.times;
    let cloud = runtime.block_on(CloudSim::start(options))?;
    let ways = account.ways(&cloud, &dir.path().join("gateway"))?;
    let site = Site::start_through(plan, dir.path(), hub, &ways, BrokerKind::Embedded)?;
    rehearse(script, vendor, &cloud, site, dir.path())
}

fn rehearse(script: &Script, vendor: Vendor, cloud: &CloudSim, mut site: Site, dir: &Path) -> anyhow::Result<Outcome> {
    site.gateway.wait_for("list adopted")?;
    let before = deed::prepare(script, &site, dir)?;
    let fleet = fleet::Process::start(&site.plan, site.device_address, script.length().as_secs_f64(), dir)?;
    let began = Instant::now();
    let done = course(script, vendor, cloud, &site, before.as_ref(), began)?;
    let rows = fleet.finish()?;
    let settled = site
        .settle(SETTLE)
        .with_context(|| format!("{} on {vendor}; {:?}", script.name, cloud.counters().rows()))?;
    let books = site.books()?;
    let sessions = site.ask_gateway("sessions")?;
    let outcome = Outcome::new(&Seen {
        script,
        vendor,
        plan: &site.plan,
        rows: &rows,
        books: &books,
        sessions: &sessions,
        counters: cloud.counters(),
        done: &done,
        settled,
    });
    let codes = site.stop()?;
    ensure!(codes == (0, 0), "gateway and hub ended with codes {codes:?}");
    Ok(outcome)
}

/// Plays the day, moment by moment.
fn course(
    script: &Script,
    vendor: Vendor,
    cloud: &CloudSim,
    site: &Site,
    prepared: Option<&deed::Prepared>,
    began: Instant,
) -> anyhow::Result<Vec<Done>> {
    enum Moment<'a> {
        Act(Vec<crate::cloud_sim::fault::Fault>),
        Deed(&'a crate::cloud_sim::script::Deed),
    }
    let acts = script
        .acts(vendor)
        .into_iter()
        .map(|(at_ms, faults)| (at_ms, Moment::Act(faults)));
    let deeds = script.deeds.iter().map(|deed| (deed.at_ms, Moment::Deed(deed)));
    let mut moments: Vec<(u64, Moment<'_>)> = acts.chain(deeds).collect();
    moments.sort_by_key(|(at_ms, _)| *at_ms);
    let mut done = Vec::new();
    for (at_ms, moment) in moments {
        let wait = script.wall(at_ms).saturating_sub(began.elapsed());
        std::thread::sleep(wait); // The pace of the script: the world around the gateway has a clock of its own.
        match moment {
            Moment::Act(faults) => cloud.play(faults)?,
            Moment::Deed(deed) => {
                let prepared = prepared.context("what the operator does was prepared")?;
                done.push(deed::run(deed, site, prepared, began)?);
            }
        }
    }
    Ok(done)
}
