//! The operator's limits, from the hub's seed file to a grant at a device: a policy is adopted, one that looks wrong is
//! set aside with an alarm until an operator at the gateway adopts it, and the one before can be gone back to.
#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, process::Command, time::Instant};

use hil_tests::site::{BrokerKind, Plan, Site, Standing, binary};
use proto::{id::Kind, message::Closing, money::Money};
use serde_json::Value;
use support::{Bytes, PATIENCE};

/// A dispenser's cap without a policy (semantics, section 4).
const CAP: i64 = 200;

/// Has the hub publish this cap of a dispenser's session.
fn publish(site: &Site, money_max: i64) {
    let policy = format!(
        "[policy]\nsite_budget = 200000\nlist_full_s = 259200\nlist_half_s = 604800\nconfirmation_s = 259200\n\
         attempts_a_minute_max = 100\nstarts_an_hour_max = 100\n[[policy.classes]]\nclass = \"dispenser\"\n\
         units_max = 5000\nmoney_max = {money_max}\nduration_max_s = 600\noutage_count_lower = 6\n\
         outage_count_upper = 100\noutage_money_max = 10000\nemergency_units = 2000\ninvalidation_units = 100\n"
    );
    let seed = site.plan.hub_seed() + &policy;
    fs::write(site.dir.join("hub/seed.toml"), seed).unwrap();
    let rows = site.ask_hub("reload").unwrap();
    assert_eq!(rows[0]["policy"], true, "the limits are new: {rows:?}");
}

/// Waits until the gateway says that this policy is active, and that one set aside; asking is the synchronisation.
fn wait_for(site: &Site, active: u64, aside: u64) {
    let since = Instant::now();
    loop {
        let status = site.ask_gateway("status").unwrap();
        if (&status["policy_revision"], &status["policy_aside"]) == (&Value::from(active), &Value::from(aside)) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{status:#}");
        std::thread::yield_now();
    }
}

/// The operator's command at the gateway: its exit code, and what it says.
fn list(site: &Site, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary("holdfast").unwrap())
        .arg("--config")
        .arg(site.dir.join("gateway/holdfast.toml"))
        .arg("list")
        .args(args)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_policy_reaches_the_next_grant_and_a_wrong_one_waits_for_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(11, 3, 30);
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let mut site = Site::start(plan, dir.path(), hub, address, BrokerKind::Embedded).unwrap();
    site.gateway.wait_for("list adopted").unwrap();
    let mut dispensers = site.plan.devices.iter().filter(|device| device.kind == Kind::Dispenser);
    let dispenser = dispensers.next().unwrap().clone();
    let users = site.plan.users.iter();
    let mut good = users.filter(|user| user.standing == Standing::Good && user.whitelist == "always");
    let user = good.next().unwrap().token;
    let (mut boot, mut number) = (1, 0);
    let mut tap = Bytes::connect(site.device_address, &dispenser, boot);
    let mut cap = |tap: &mut Bytes| {
        number += 1;
        let (grant, receipt) = tap.granted_session(number, &user);
        assert_eq!(receipt.closing, Closing::Captured);
        grant.money_max
    };
    assert_eq!(cap(&mut tap), Money(CAP));

    publish(&site, 150);
    wait_for(&site, 1, 0);
    assert_eq!(cap(&mut tap), Money(150));
    assert_eq!(list(&site, &["adopt", "policy"]).0, Some(69), "nothing is set aside");

    // More than ten times as much.
    publish(&site, 1501);
    wait_for(&site, 1, 2);
    let alarm = "policy revision 2 is set aside: money_max of dispenser is 1501 instead of 150";
    site.gateway.wait_for(alarm).unwrap();
    assert_eq!(cap(&mut tap), Money(150), "the active one stays");
    let (code, diff) = list(&site, &["diff", "policy", "--json"]);
    let diff: Value = serde_json::from_str(&diff).unwrap();
    let expected = serde_json::json!([
        {"class": "dispenser", "limit": "money_max", "revision": 2, "before": 150, "after": 1501}
    ]);
    assert_eq!((code, diff), (Some(0), expected));

    // What is set aside outlives the process.
    site.kill_gateway().unwrap();
    wait_for(&site, 1, 2);
    assert_eq!(
        list(&site, &["adopt", "policy", "--revision", "3"]).0,
        Some(69),
        "another one"
    );
    assert_eq!(list(&site, &["adopt", "policy", "--revision", "2"]).0, Some(0));
    wait_for(&site, 2, 0);
    boot += 1;
    let mut tap = Bytes::connect(site.device_address, &dispenser, boot);
    assert_eq!(cap(&mut tap), Money(1501));

    assert_eq!(list(&site, &["rollback", "policy"]).0, Some(0));
    wait_for(&site, 1, 0);
    assert_eq!(cap(&mut tap), Money(150));

    // Less than half as much.
    publish(&site, 74);
    wait_for(&site, 1, 3);
    let alarm = "policy revision 3 is set aside: money_max of dispenser is 74 instead of 150";
    site.gateway.wait_for(alarm).unwrap();
    assert_eq!(cap(&mut tap), Money(150));
    // One that fits makes an end of it.
    publish(&site, 100);
    wait_for(&site, 4, 0);
    assert_eq!(cap(&mut tap), Money(100));
    assert_eq!(site.stop().unwrap(), (0, 0));
}
