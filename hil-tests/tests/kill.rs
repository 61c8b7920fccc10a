//! The running gateway is killed with SIGKILL again and again under load, at random moments, on both kinds of broker.
//! Afterwards the books of gateway and hub are closed and equal, nothing is lost, nothing is doubled, and nobody got
//! anything without a durable record.
//!
//! `HOLDFAST_SEED` and `HOLDFAST_KILLS` repeat or lengthen a run.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hil_tests::{
    fleet,
    site::{BrokerKind, Plan, Site},
};

/// Kills in the test command; 100 and more are a matter of `HOLDFAST_KILLS`.
const KILLS_DEFAULT: u32 = 100;
/// Longest life between two kills, in ms.
const LIFE_MS_MAX: u64 = 700;
/// The books must close within this.
const SETTLE: Duration = Duration::from_secs(120);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().expect("a number"))
}

fn survive(broker: BrokerKind, kills: u64) {
    let seed = number("HOLDFAST_SEED", 20_231_112);
    println!("HOLDFAST_SEED={seed} HOLDFAST_KILLS={kills} {broker:?}");
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Plan::new(seed, 24, 24 * 24);
    plan.limits = "[health]\nrecover_ms = 500\nprobe_ms = 300\nprobe_max_ms = 600\n[limits]\nattempts_a_minute_max = 1000\n\
                   site_budget = 100000000\n[limits.charger]\nmeter_every_s = 1\noutage_count_max = 1000\noutage_money_max = 10000000\n\
                   [limits.washer]\nmeter_every_s = 1\noutage_count_max = 1000\noutage_money_max = 10000000\n\
                   [limits.dispenser]\nmeter_every_s = 1\noutage_count_max = 1000\noutage_money_max = 10000000\n"
        .to_owned();
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let mut site = Site::start(plan, dir.path(), hub, address, broker).unwrap();
    site.gateway.wait_for("list adopted").unwrap();

    let mut rng = fastrand::Rng::with_seed(seed);
    let lives: Vec<u64> = (0..kills).map(|_| rng.u64(30..LIFE_MS_MAX)).collect();
    // Replay and reconnection take their time too.
    let seconds = lives.iter().sum::<u64>() as f64 / 1000.0 * 1.3 + 5.0;
    let fleet = fleet::Process::start(&site.plan, site.device_address, seconds, dir.path()).unwrap();
    let since = Instant::now();
    for life_ms in lives {
        // Not synchronisation: the moment of the kill is the random input of this test.
        std::thread::sleep(Duration::from_millis(life_ms));
        site.kill_gateway().unwrap();
    }
    println!("{kills} kills in {:.1} s", since.elapsed().as_secs_f64());
    let rows = fleet.finish().unwrap();
    site.settle(SETTLE).unwrap();
    let books = site.books().unwrap();
    println!(
        "{} sessions seen by users, {} held, {} charged, {} lines in both books",
        rows.len(),
        books.holds.len(),
        books.charges.len(),
        books.lines
    );
    assert!(books.are_closed(), "{books:?}");
    for row in &rows {
        assert_eq!(row.ungranted_milli, 0, "delivered without a grant: {row:?}");
        if row.granted {
            assert!(
                books.holds.contains(&row.session),
                "a grant without a durable record: {row:?}"
            );
        }
        if let Some(amount) = row.receipt_amount {
            assert_eq!(
                books.charges.get(&row.session).copied().unwrap_or(0),
                amount,
                "another charge than the receipt: {row:?}"
            );
            assert!(amount <= row.shown, "charged above what was shown: {row:?}");
        }
        if row.started {
            assert!(
                row.receipt_amount.is_some(),
                "delivered, and never settled with the device: {row:?}"
            );
        }
    }
    assert!(rows.iter().filter(|row| row.granted).count() > 20, "the load was real");
    assert_eq!(site.stop().unwrap(), (0, 0));
}

#[test]
fn the_books_close_after_kills_with_the_embedded_endpoint() {
    survive(BrokerKind::Embedded, number("HOLDFAST_KILLS", KILLS_DEFAULT.into()));
}

#[test]
fn the_books_close_after_kills_with_mosquitto_between() {
    survive(BrokerKind::Mosquitto, number("HOLDFAST_KILLS", KILLS_DEFAULT.into()));
}
