//! Gateways and hub through a real mosquitto with TLS and client certificates, over a wire that breaks at every stage.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hil_tests::{
    cloud_broker::{Authority, CloudBroker, for_gateway},
    outpost::Outposts,
    proxy::{Proxy, Weather},
    site::{Plan, Ways},
    storm::{self, Orders},
};

/// Gateways whose wires break at the same time: each may try five times a minute.
const GATEWAYS: usize = 6;
/// Sessions of each outage; three records each.
const SESSIONS: u32 = 2_000;
/// Sessions of the backlog that goes through two clouds.
const BACKLOG_SESSIONS: u32 = 6_000;
/// How long the wires break. Long enough for a stall to be noticed, and for six gateways to meet thirty faults.
const WILD: Duration = Duration::from_secs(50);
/// How long everything may take to close once they do not.
const SETTLE: Duration = Duration::from_secs(120);
/// Least faults for the test to mean anything.
const FAULTS_MIN: u32 = 10;

/// Attempts follow each other as fast as the limit of five a minute lets them.
const LINK: &str = "reconnect_s_max = 3\ntelemetry_s = 1\n";

fn seed() -> u64 {
    let seed = std::env::var("HOLDFAST_SEED").map_or_else(|_| fastrand::u64(..10_000), |text| text.parse().unwrap());
    println!("seed {seed} (HOLDFAST_SEED={seed} repeats it)");
    seed
}

#[test]
fn a_wire_that_breaks_at_every_stage_loses_and_doubles_nothing() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("campus").unwrap();
    let broker = CloudBroker::start(&dir.path().join("mosquitto"), &authority).unwrap();
    let plan = Plan::new(seed, 0, 120);
    let mut site = Outposts::start_hub(plan, dir.path(), GATEWAYS, &broker.for_hub("own")).unwrap();
    site.fill(SESSIONS).unwrap();
    let mut wires = Vec::new();
    for (number, gateway) in site.gateways.iter_mut().enumerate() {
        let wire = Proxy::start(broker.address(), seed.wrapping_add(number as u64)).unwrap();
        authority.write(&gateway.dir, &gateway.name, 2040).unwrap();
        std::fs::write(gateway.dir.join("ca.pem"), authority.pem()).unwrap();
        // Both versions of the protocol in turn.
        let mqtt = ["5", "3.1.1"][number % 2];
        let ways = Ways {
            clouds: for_gateway("own", wire.address().port(), mqtt, &gateway.dir, &gateway.name),
            secrets: String::new(),
            link: LINK.to_owned(),
        };
        gateway.write(&site.plan, &ways).unwrap();
        wire.set(Weather::Wild);
        gateway.start().unwrap();
        wires.push(wire);
    }
    let met = || -> u32 { wires.iter().flat_map(|wire| wire.met().into_values()).sum() };
    let since = Instant::now();
    while since.elapsed() < WILD {
        std::thread::sleep(Duration::from_millis(200)); // How long the weather lasts.
    }
    let (faults, wild_s) = (met(), since.elapsed().as_secs());
    wires.iter().for_each(|wire| wire.set(Weather::Calm));
    let took = site.settle(SETTLE).unwrap();
    let mut table = std::collections::BTreeMap::<_, u32>::new();
    for (what, times) in wires.iter().flat_map(Proxy::met) {
        *table.entry(what).or_default() += times;
    }
    println!(
        "faults in {wild_s} s, then {:.1} s until every record had its receipt:",
        took.as_secs_f64()
    );
    for ((fault, stage), times) in &table {
        println!("  {:<8} {stage:<12} {times:>4}", format!("{fault:?}").to_lowercase());
    }
    let books = site.books().unwrap();
    println!(
        "{} lines in both books, {} lost, {} doubled",
        books.lines, books.records_lost, books.records_doubled
    );
    assert!(faults >= FAULTS_MIN, "only {faults} faults were met");
    assert_eq!(books.lines as u64, GATEWAYS as u64 * u64::from(SESSIONS) * 3);
    assert_eq!(
        (books.records_lost, books.records_doubled, books.records_foreign),
        (0, 0, 0),
        "{:?}",
        books.difference
    );
    assert!(books.ledger_balanced);
    // I4, with the attempts that the wire saw and the rest of the minute in which they began.
    for wire in &wires {
        let minutes = (wild_s + took.as_secs()) / 60 + 1;
        assert!(
            u64::from(wire.connections()) <= 5 * minutes,
            "{} attempts",
            wire.connections()
        );
    }
    site.stop().unwrap();
}

#[test]
fn a_certificate_that_is_swapped_while_the_gateway_runs_is_used_at_the_next_connect() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let old = Authority::new("the old one").unwrap();
    let mut broker = CloudBroker::start(&dir.path().join("mosquitto"), &old).unwrap();
    let plan = Plan::new(seed, 0, 120);
    let mut site = Outposts::start_hub(plan, dir.path(), 1, &broker.for_hub("own")).unwrap();
    site.fill(1).unwrap();
    let gateway = &mut site.gateways[0];
    old.write(&gateway.dir, &gateway.name, 2038).unwrap();
    std::fs::write(gateway.dir.join("ca.pem"), old.pem()).unwrap();
    let ways = Ways {
        clouds: for_gateway("own", broker.address().port(), "5", &gateway.dir, &gateway.name),
        secrets: String::new(),
        link: LINK.to_owned(),
    };
    gateway.write(&site.plan, &ways).unwrap();
    gateway.start().unwrap();
    let until = |status: &serde_json::Value| status["clouds"][0]["certificate_until_s"].as_i64();
    let is_greeted = |status: &serde_json::Value| status["clouds"][0]["stage"] == "greeted";
    let before = until(&gateway.wait_until("greeted", is_greeted).unwrap());

    // A bad pair first: the one before stays in use.
    let new = Authority::new("the new one").unwrap();
    std::fs::write(gateway.dir.join(format!("{}.pem", gateway.name)), "no certificate").unwrap();
    broker.trust(&old).unwrap();
    let still = gateway
        .wait_until("greeted again", |status| {
            is_greeted(status) && status["clouds"][0]["since_s"].as_u64() < Some(5)
        })
        .unwrap();
    assert_eq!(until(&still), before);

    new.write(&gateway.dir, &gateway.name, 2039).unwrap();
    std::fs::write(gateway.dir.join("ca.pem"), new.pem()).unwrap();
    // From now on the old certificate opens no door.
    broker.trust(&new).unwrap();
    let after = gateway
        .wait_until("greeted with the new certificate", |status| {
            is_greeted(status) && until(status) != before
        })
        .unwrap();
    println!("certificate until {before:?}, then until {:?}", until(&after));
    assert!(until(&after) > before);
    site.settle(SETTLE).unwrap();
    site.stop().unwrap();
}

#[test]
fn a_backlog_goes_up_once_through_two_clouds_of_which_one_is_dark_then_lies() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let drained = hil_tests::drain::two_clouds(dir.path(), seed, BACKLOG_SESSIONS).unwrap();
    println!("{drained:?}");
    assert!(drained.books.are_closed(), "{:?}", drained.books.difference);
    assert_eq!(drained.books.lines as u64, u64::from(BACKLOG_SESSIONS) * 3);
    let by: Vec<&str> = drained.carried_by.iter().map(|(_, cloud)| cloud.as_str()).collect();
    assert_eq!(by[..3], ["second", "second", "first"]);
}

#[test]
fn gateways_that_come_back_together_keep_to_the_limits() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let orders = Orders {
        gateways: 12,
        sessions: 50,
        rate: 10,
        seed,
    };
    let seen = storm::play(dir.path(), orders).unwrap();
    println!("{seen:?}");
    assert!(seen.throttled > 0, "the cloud throttled nobody");
    assert!(seen.holds());
}
