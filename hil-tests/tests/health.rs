//! The modes of a running gateway: a link that stands is no health, the backend's own echo is; and it comes back.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use hil_tests::{
    cloud_sim::{CloudSim, Mode},
    site::{BrokerKind, Plan, Site},
};
use serde_json::Value;

/// How long a change of mode may take, with the short times of this test and the reconnects of a minute.
const PATIENCE: Duration = Duration::from_secs(100);

/// Waits until the gateway says so.
fn wait_for(site: &Site, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = site.ask_gateway("status").unwrap();
        if is(&status) {
            return status;
        }
        assert!(Instant::now() < end, "no {what}: {status:#}");
        // Asking is the synchronisation; this only spares the processor.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// As the hub shows it.
fn wait_for_report(site: &Site, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let row = site.ask_hub("gateways").unwrap().remove(0);
        if is(&row["report"]) {
            return row["report"].clone();
        }
        assert!(Instant::now() < end, "no report that is {what}: {row:#}");
        // As above.
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_backend_is_heard_missed_and_heard_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Plan::new(7, 3, 30);
    plan.limits = "[health]\nrecover_ms = 600\nprobe_ms = 200\nprobe_max_ms = 500\necho_ms = 300\necho_wait_ms = 400\nhello_ms = 400\n".to_owned();
    plan.telemetry_s = 1;
    let (hub, hub_address) = Site::start_hub(&plan, dir.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let cloud = runtime.block_on(CloudSim::start(plan.cloud(hub_address))).unwrap();
    let site = Site::start(plan, dir.path(), hub, cloud.address(), BrokerKind::Embedded).unwrap();

    let heard = wait_for(&site, "health", |status| {
        status["healthy"] == true && status["control"] == "ONLINE"
    });
    assert!(
        heard["commit_evidence"]
            .as_str()
            .unwrap()
            .starts_with("the operator's backend returned an echo"),
        "{heard:#}"
    );
    let reported = wait_for_report(&site, "healthy", |report| report["control"] == "ONLINE");
    assert_eq!(reported["list_revision"], heard["list_revision"]);
    assert_eq!(reported["devices_connected"], 0);
    // Everything is acknowledged on the MQTT level, and nobody is behind it.
    cloud.set(Mode::Lying);
    let missed = wait_for(&site, "LOCAL", |status| {
        status["commit"] == "LOCAL" && status["control"] == "LOCAL"
    });
    assert_eq!(missed["healthy"], false, "{missed:#}");
    assert_eq!(missed["authorize"], "ONLINE", "nobody asked about a token");
    cloud.set(Mode::Honest);
    wait_for(&site, "recovery", |status| {
        status["healthy"] == true && status["control"] == "ONLINE"
    });
    wait_for_report(&site, "newer", |report| {
        report["up_s"].as_u64() > reported["up_s"].as_u64()
    });
    drop(site);
}
