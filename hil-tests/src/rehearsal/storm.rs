//! Many gateways that lose their cloud in one moment. They are connections and nothing more, with the product's own client
//! and its own waits between attempts.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use carrier::{Class, Connection, Event, Symptom, mqtt::Options as Mqtt};
use gateway::cloud::reconnect::{Reconnect, floor};
use proto::{
    id::Name,
    seal::PairSecret,
    topic::{self, Lane},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::Outcome;
use crate::{
    cloud_sim::{CloudSim, Member, Options, Vendor, Way, counters::MINUTE_MS, script::Script},
    site::{SITE, key},
};

/// Longest wait of a gateway between two attempts, in s.
const RECONNECT_S_MAX: u64 = 30;
/// A connection that lasted so long was good.
const STABLE: Duration = Duration::from_secs(carrier::STABLE_S);
/// Before the storm gateways come one after another, so many ms apart.
const FIRST_APART_MS: u64 = 4;
/// The window in which a rush is looked for, in ms.
const SECOND_MS: u64 = 1_000;

/// What one gateway did: when it knocked, in ms, and whether it is connected at the end.
struct Knocks {
    at_ms: Vec<u64>,
    connected: bool,
}

/// Plays it.
pub(super) async fn play(script: &Script, vendor: Vendor, seed: u64) -> anyhow::Result<Outcome> {
    anyhow::ensure!(vendor == Vendor::Hcp, "a storm is played on hcp");
    let members: Vec<Member> = (0..script.gateways)
        .map(|i| {
            Ok(Member {
                gateway: Name::new(&format!("gw-{i}"))?,
                site: Name::new(SITE)?,
                password: PairSecret(key(seed, &format!("storm {i}"))).password().to_string(),
            })
        })
        .collect::<anyhow::Result<_>>()?;
    // Nobody says anything, so there is no hub.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut options = Options::new(Way::Hcp, nowhere, members.clone());
    (options.seed, options.times) = (seed, script.times);
    let cloud = Arc::new(CloudSim::start(options).await?);
    let began = Instant::now();
    let (over, ends) = watch::channel(false);
    let mut gateways = JoinSet::new();
    for (i, member) in members.into_iter().enumerate() {
        let first = began + Duration::from_millis(i as u64 * FIRST_APART_MS);
        gateways.spawn(gateway(
            cloud.address(),
            member,
            seed ^ i as u64,
            began,
            first,
            ends.clone(),
        ));
    }
    for (at_ms, faults) in script.acts(vendor) {
        sleep_until(began + script.wall(at_ms)).await; // The pace of the script.
        cloud.play(faults)?;
    }
    over.send_replace(true);
    let knocks = gateways.join_all().await;
    Ok(judge(script, vendor, &knocks))
}

async fn gateway(
    cloud: SocketAddr,
    member: Member,
    seed: u64,
    began: Instant,
    first: Instant,
    mut ends: watch::Receiver<bool>,
) -> Knocks {
    let mut reconnect = Reconnect::with_seed(RECONNECT_S_MAX, seed);
    let options = Mqtt {
        user: Some((member.gateway.to_string(), member.password)),
        filters: vec![(
            topic::link_down_filter(&member.site, &member.gateway, Lane::FIRST).to_string(),
            carrier::Qos::AtLeastOnce,
        )],
        ..Mqtt::new(cloud.to_string(), member.gateway.to_string())
    };
    let mut knocks = Knocks {
        at_ms: Vec::new(),
        connected: false,
    };
    let mut at = first;
    reconnect.first(first);
    loop {
        tokio::select! {
            () = sleep_until(at) => {}
            _ = ends.wait_for(|over| *over) => return knocks,
        }
        let since = Instant::now();
        knocks.at_ms.push((since - began).as_millis() as u64);
        let mut connection = Connection::open(&options);
        let why = loop {
            let event = tokio::select! {
                event = connection.next() => event,
                _ = ends.wait_for(|over| *over) => return knocks,
            };
            match event {
                Event::Up => knocks.connected = true,
                Event::Message(_) | Event::Symptom(_) => {}
                Event::Down(why) => break why,
            }
        };
        knocks.connected = false;
        if since.elapsed() >= STABLE {
            reconnect.reset();
        }
        at = reconnect.next(Instant::now(), floor(&quiet(why), true));
    }
}

/// As a link without a history would take it.
fn quiet(why: Symptom) -> Symptom {
    match why.class {
        Class::Duplicate => Symptom::new(Class::Partition, 0, ""),
        _ => why,
    }
}

fn judge(script: &Script, vendor: Vendor, knocks: &[Knocks]) -> Outcome {
    let outage = script
        .outage(vendor)
        .map_or(0, |(from, _)| script.wall(from).as_millis() as u64);
    let within = |times: &[u64], window_ms: u64| {
        let from = |at: usize| {
            times[at..]
                .iter()
                .take_while(|later| **later < times[at] + window_ms)
                .count()
        };
        (0..times.len()).map(from).max().unwrap_or(0)
    };
    let apart = knocks
        .iter()
        .flat_map(|own| own.at_ms.windows(2).map(|pair| pair[1] - pair[0]));
    let mut all: Vec<u64> = knocks.iter().flat_map(|own| own.at_ms.iter().copied()).collect();
    all.retain(|at_ms| *at_ms >= outage);
    all.sort_unstable();
    let mut values = BTreeMap::new();
    let most = knocks.iter().map(|own| within(&own.at_ms, MINUTE_MS)).max();
    values.insert("attempts_a_minute", most.unwrap_or(0) as f64);
    values.insert("attempts_apart_ms", apart.min().unwrap_or(u64::MAX) as f64);
    values.insert("in_one_second", within(&all, SECOND_MS) as f64);
    values.insert("back", knocks.iter().filter(|own| own.connected).count() as f64);
    Outcome::judged(script, vendor, values, None)
}
