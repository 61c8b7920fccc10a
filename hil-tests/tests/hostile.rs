//! Hostile peers at a running gateway, one after the other, while good devices with people before them go on. For each: what
//! the gateway did about it, the wait of the good ones beside the quiet one, and the gateway's memory. Asserted: nobody good is
//! refused or forgotten, memory stays bounded, and the gateway did something about each. The times are printed.
//!
//! `HOLDFAST_SEED` repeats a run, `HOLDFAST_CASE` runs the cases with that text in their names.
#![allow(clippy::unwrap_used)]

#[path = "hostile/attacks.rs"]
mod attacks;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use attacks::{Attack, Case};
use hil_tests::{
    fleet::{self, Row},
    site::{BrokerKind, Plan, Site, Standing},
};
use serde_json::Value;

/// How long each attack goes on, in ms: a handful of verdicts of the good ones.
const ATTACK_MS: u64 = 3_000;
/// How long the good ones are alone at first, in ms.
const QUIET_MS: u64 = 10_000;
/// Good devices, and bad ones.
const DEVICES: (usize, usize) = (24, 4);
/// How much more memory the gateway may have resident under any attack than in the quiet, in KiB: what may wait for clients
/// (`mqtt_endpoint::limits::QUEUED_BYTES_MAX`), and 4 KiB for each connection that may be open at once.
const GROWTH_KIB_MAX: u64 = (mqtt_endpoint::limits::QUEUED_BYTES_MAX / 1024 + 12_000 * 4) as u64;
/// How often memory is looked at, in ms.
const LOOK_MS: u64 = 50;
/// The books must close within this.
const SETTLE: Duration = Duration::from_secs(120);

/// One line of the table.
struct Line {
    name: &'static str,
    did: String,
    from_ms: u64,
    to_ms: u64,
    /// Resident memory before, most, after, in KiB.
    memory_kib: [u64; 3],
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/status"))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn counters(site: &Site) -> BTreeMap<String, u64> {
    let status = site.ask_gateway("status").unwrap();
    let number = |(name, value): (&String, &Value)| Some((name.clone(), value.as_u64()?));
    let mut counters: BTreeMap<_, _> = status["endpoint"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(number)
        .collect();
    // The endpoint has another of that name: what its queues gave up.
    counters.insert(
        "messages_dropped".to_owned(),
        status["messages_dropped"].as_u64().unwrap(),
    );
    counters
}

/// What is a state and not a count.
const GAUGES: [&str; 4] = ["connections", "pending", "sessions", "queued_bytes"];

fn run(site: &mut Site, case: &Case, bad: &Plan, number: u32, since: Instant) -> Line {
    let (before, at) = (counters(site), Instant::now());
    let pid = site.gateway.pid();
    let mut memory_kib = [resident_kib(pid), 0, 0];
    let attack = Arc::new(Attack {
        address: site.device_address,
        bad: bad.devices.clone(),
        good: site.plan.devices[0].clone(),
        until: at + Duration::from_millis(ATTACK_MS),
        number,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let work = (case.attack)(attack);
    runtime.block_on(async {
        tokio::pin!(work);
        let mut look = tokio::time::interval(Duration::from_millis(LOOK_MS));
        loop {
            tokio::select! {
                () = &mut work => break,
                _ = look.tick() => memory_kib[1] = memory_kib[1].max(resident_kib(pid)),
            }
        }
    });
    drop(runtime);
    assert!(site.gateway.is_running(), "{}: {}", case.name, site.gateway.log_tail());
    memory_kib[2] = resident_kib(pid);
    memory_kib[1] = memory_kib[1].max(memory_kib[2]);
    let after = counters(site);
    let rose = |name: &str| after[name] - before[name];
    for name in case.rises {
        assert!(rose(name) > 0, "{}: \"{name}\" did not rise: {after:?}", case.name);
    }
    let did: Vec<String> = after
        .keys()
        .filter(|name| !GAUGES.contains(&name.as_str()) && *name != "messages_received" && rose(name) > 0)
        .map(|name| format!("{name} +{}", rose(name)))
        .collect();
    let from_ms = at.duration_since(since).as_millis() as u64;
    Line {
        name: case.name,
        did: did.join(", "),
        from_ms,
        to_ms: since.elapsed().as_millis() as u64,
        memory_kib,
    }
}

/// The 99th percentile and how many there were.
fn p99_ms(rows: &[&Row]) -> (f64, usize) {
    let mut waits: Vec<f64> = rows.iter().filter_map(|row| row.verdict_ms).collect();
    waits.sort_by(f64::total_cmp);
    let at = (waits.len() * 99).div_ceil(100).saturating_sub(1);
    (waits.get(at).copied().unwrap_or(0.0), waits.len())
}

#[test]
fn good_devices_go_on_whatever_the_bad_ones_do() {
    let seed = std::env::var("HOLDFAST_SEED").map_or(20_231_112, |text| text.parse().expect("a number"));
    let only = std::env::var("HOLDFAST_CASE").unwrap_or_default();
    let cases: Vec<Case> = attacks::cases()
        .into_iter()
        .filter(|case| case.name.contains(&only))
        .collect();
    assert!(only.is_empty() == (cases.len() >= 25), "{} cases", cases.len());
    println!("HOLDFAST_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Plan::new(seed, DEVICES.0 + DEVICES.1, 1_200);
    plan.limits = "[limits]\nattempts_a_minute_max = 1000\nsite_budget = 100000000\n\
                   [limits.charger]\nmeter_every_s = 1\noutage_count_max = 1000\noutage_money_max = 10000000\n\
                   [limits.washer]\nmeter_every_s = 1\noutage_count_max = 1000\noutage_money_max = 10000000\n\
                   [limits.dispenser]\nmeter_every_s = 1\noutage_count_max = 1000\noutage_money_max = 10000000\n"
        .to_owned();
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let mut site = Site::start(plan.clone(), dir.path(), hub, address, BrokerKind::Embedded).unwrap();
    site.gateway.wait_for("list adopted").unwrap();
    let (mut good, mut bad) = (plan.clone(), plan.clone());
    bad.devices = good.devices.split_off(DEVICES.0);
    let seconds = (QUIET_MS + (ATTACK_MS + 1_000) * cases.len() as u64) as f64 / 1000.0;
    let fleet = fleet::Process::start(&good, site.device_address, seconds, dir.path()).unwrap();
    let since = Instant::now();
    // Not synchronisation: how long the quiet lasts is an input of this test.
    std::thread::sleep(Duration::from_millis(QUIET_MS));
    let quiet_ms = since.elapsed().as_millis() as u64;
    let quiet_kib = resident_kib(site.gateway.pid());
    let lines: Vec<Line> = (1..)
        .zip(&cases)
        .map(|(number, case)| run(&mut site, case, &bad, number, since))
        .collect();
    let rows = fleet.finish().unwrap();
    site.settle(SETTLE).unwrap();
    let books = site.books().unwrap();

    let between = |from: u64, to: u64| rows.iter().filter(move |row| (from..to).contains(&row.asked_ms));
    let quiet: Vec<&Row> = between(1_000, quiet_ms).collect();
    let (quiet_p99, quiet_count) = p99_ms(&quiet);
    println!("quiet: p99 {quiet_p99} ms of {quiet_count} verdicts, {quiet_kib} KiB resident\n");
    println!(
        "| case | what the gateway did | p99 of the good, ms (of) | ratio | KiB before / most / after | good refused or lost |"
    );
    println!("|---|---|---|---|---|---|");
    let is_good = |row: &&Row| plan.users[row.user].standing == Standing::Good;
    let unserved = |row: &&Row| row.refused.is_some() || row.verdict_ms.is_none();
    for line in &lines {
        let met: Vec<&Row> = between(line.from_ms, line.to_ms).collect();
        let (p99, count) = p99_ms(&met);
        let [before, most, after] = line.memory_kib;
        let lost = met.iter().copied().filter(is_good).filter(unserved).count();
        println!(
            "| {} | {} | {p99} ({count}) | {:.1} | {before} / {most} / {after} | {lost} |",
            line.name,
            if line.did.is_empty() { "refused it" } else { &line.did },
            p99 / quiet_p99.max(1.0),
        );
    }
    for row in rows.iter().filter(is_good) {
        assert!(!unserved(&row), "a good request was refused or lost: {row:?}");
    }
    for line in &lines {
        let most = line.memory_kib[1];
        assert!(most <= quiet_kib + GROWTH_KIB_MAX, "{}: {most} KiB resident", line.name);
    }
    assert!(
        rows.iter().filter(is_good).count() > cases.len() * 3,
        "the load was real"
    );
    assert!(books.are_closed(), "{books:?}");
    assert_eq!(site.stop().unwrap(), (0, 0));
}
