//! The shipped drills at a small size, the same seed twice, and what a scenario file may not say.

use std::collections::BTreeSet;

use hil_tests::drill::{
    self,
    report::{NUMBERS, Report},
    scenario::Scenario,
    shipped,
};

/// Parts of a million: 1 of 50 devices and people. An unoptimised build is thirty times slower and takes fewer.
const SMALL: u64 = if cfg!(debug_assertions) { 6_000 } else { 30_000 };

fn find(name: &str) -> Scenario {
    shipped::find(name)
        .unwrap_or_else(|| panic!("no drill {name}"))
        .expect("shipped drills can be read")
}

fn replay(name: &str, seed: u64) -> Report {
    let scenario = find(name).scaled(SMALL);
    let report = drill::run(&scenario, seed, false).expect("a shipped drill can be replayed");
    let failed: Vec<_> = report.failed().collect();
    assert!(
        failed.is_empty(),
        "{name}, seed {seed}: {failed:#?}\n{:#?}",
        report.alarm_lines
    );
    report
}

macro_rules! replays {
    ($($test:ident = $name:literal,)+) => {
        $(
            #[test]
            fn $test() {
                let report = replay($name, 1);
                assert!(report.number("sessions_served") > 20, "too few people: {}", report.number("sessions_served"));
                assert_eq!(report.hash, replay($name, 1).hash, "the same seed, another run");
            }
        )+

        #[test]
        fn every_shipped_drill_is_replayed_here() {
            let here = BTreeSet::from([$($name),+]);
            let shipped: BTreeSet<&str> = shipped::SHIPPED.iter().map(|(name, _)| *name).collect();
            assert_eq!(here, shipped);
        }
    };
}

replays! {
    false_whitelist = "2023-11-12",
    control_plane = "2023-11-27",
    fourteen_hours_dark = "2022-12-18",
    a_day_dark = "2022-12-18-24h",
    partial_whitelist = "partial-whitelist",
    half_dead = "half-dead",
    mass_disable = "mass-disable-unsigned",
    signed_revocation = "signed-revocation-during-outage",
    forged_revocation = "forged-revocation",
    bad_lists = "bad-lists",
    login_loop = "login-loop",
}

#[test]
fn another_seed_is_another_evening() {
    assert_ne!(replay("half-dead", 1).hash, replay("half-dead", 2).hash);
}

#[test]
fn a_check_that_does_not_hold_is_named() {
    let mut scenario = find("half-dead").scaled(SMALL);
    scenario.site.budget = 300;
    let report = drill::run(&scenario, 1, false).unwrap();
    assert!(
        report.number("exposure_over_budget_minor") == 0,
        "the budget holds, however small it is"
    );
    scenario.checks = drill::parse("x", &with("[checks]\nsessions_served = 0"))
        .unwrap()
        .checks;
    let report = drill::run(&scenario, 1, false).unwrap();
    let failed: Vec<_> = report.failed().map(|checked| checked.key.as_str()).collect();
    assert_eq!(failed, ["sessions_served"]);
}

/// The result as machines read it.
#[test]
fn the_result_has_its_keys() {
    let value = serde_json::to_value(replay("half-dead", 1)).unwrap();
    let keys = value.as_object().unwrap();
    for key in NUMBERS.into_iter().chain([
        "hash",
        "refusals",
        "counterfactuals",
        "alarms_by_class",
        "rows",
        "checks",
    ]) {
        assert!(keys.contains_key(key), "{key}");
    }
    assert_eq!(value["books_closed"], true);
    assert_eq!(value["hash"].as_str().map(str::len), Some(64));
}

const LEAST: &str = "title = \"t\"\nabout = \"a\"\nbegins = \"2024-05-14 17:30\"\nlasts = \"2h\"\n";

fn with(text: &str) -> String {
    format!("{LEAST}{text}")
}

#[test]
fn the_least_scenario_is_the_model_campus() {
    let scenario = drill::parse("x", LEAST).unwrap();
    assert_eq!(scenario.site.devices.iter().sum::<u32>(), 2_000);
    assert_eq!(scenario.site.users, 20_000);
    assert_eq!(scenario.checks.len(), 8);
}

#[test]
fn wrong_scenarios_are_refused_with_what_and_where() {
    let check = |text: &str, parts: &[&str]| {
        let error = drill::parse("x", &with(text)).expect_err(text).to_string();
        for part in parts {
            assert!(error.contains(part), "{text}\n{error}\nshould say {part:?}");
        }
    };
    check("extra = 1", &["unknown field `extra`", "line 5"]);
    check("[site]\nusers = \"many\"", &["line 6", "expected u32"]);
    check("[site]\nusers = 0", &["site.users", "1 to"]);
    check("[site]\nchargers = 90000", &["site", "devices"]);
    check("[site]\ndemand = [1, 2]", &["site.demand", "24 hours"]);
    check("[site]\nregions = []", &["site.regions"]);
    check("[site]\nregions = [\"A b\"]", &["site.regions[0]", "a-z"]);
    check("[site]\nregions = [\"a\", \"a\"]", &["site.regions[1]", "twice"]);
    check("[site]\nbudget_minor = 0", &["site.budget_minor"]);
    check("[site]\nlist_age = \"old\"", &["site.list_age", "no duration"]);
    check("[people]\nalways = 90\nnever = 20", &["people", "100"]);
    check(
        "[[cloud]]\nfrom = \"18:00\"\nuntil = \"19:00\"\ndoes = \"explode\"",
        &["cloud[0].does", "explode", "half-dead"],
    );
    check(
        "[[cloud]]\nfrom = \"19:00\"\nuntil = \"18:00\"\ndoes = \"dark\"",
        &["cloud[0].until", "not after"],
    );
    check(
        "[[cloud]]\nfrom = \"18:00\"\nuntil = \"21:00\"\ndoes = \"dark\"",
        &["cloud[0].until", "after the end"],
    );
    check(
        "[[cloud]]\nfrom = \"+x\"\nuntil = \"19:00\"\ndoes = \"dark\"",
        &["cloud[0].from", "no duration"],
    );
    let cloud = "[[cloud]]\nfrom = \"18:00\"\nuntil = \"19:00\"\n";
    check(
        &format!("{cloud}does = \"deny\"\npercent = 101"),
        &["cloud[0].percent", "101"],
    );
    check(&format!("{cloud}does = \"throttle\""), &["cloud[0].rate_a_second"]);
    check(
        &format!("{cloud}does = \"dark\"\npercent = 5"),
        &["cloud[0].percent", "means nothing"],
    );
    check(
        &format!("{cloud}does = \"dark\"\ncapabilities = [\"commit\"]"),
        &["cloud[0].capabilities", "whole link"],
    );
    check(
        &format!("{cloud}does = \"hang\"\ncapabilities = [\"all\"]"),
        &["cloud[0].capabilities", "all"],
    );
    check(
        &format!("{cloud}does = \"hang\"\nregions = [\"mars\"]"),
        &["cloud[0].regions", "mars"],
    );
    check(
        "[[publish]]\nat = \"18:00\"\nwhat = \"rumour\"",
        &["publish[0].what", "rumour"],
    );
    check(
        "[[publish]]\nat = \"18:00\"\nwhat = \"list\"\nflaw = \"late\"",
        &["publish[0].flaw", "late"],
    );
    check(
        "[[publish]]\nat = \"18:00\"\nwhat = \"leavers\"\nflaw = \"forged\"",
        &["publish[0].flaw"],
    );
    check(
        "[[publish]]\nat = \"18:00\"\nwhat = \"list\"\nby = \"pigeon\"",
        &["publish[0].by", "pigeon"],
    );
    check("[checks]\nhappiness = 1", &["checks.happiness", "good_users_refused"]);
    check(
        "[checks]\nsessions_served = \"> 3\"",
        &["checks.sessions_served", ">= N"],
    );
    check(
        "[checks]\nsessions_served = 1.5",
        &["checks.sessions_served", "a number"],
    );
    for (text, part) in [
        (LEAST.replace("2h", "0s"), "lasts"),
        (LEAST.replace("2h", "90d"), "lasts"),
        (LEAST.replace("2024-05-14 17:30", "yesterday"), "begins"),
        ("title = 3".to_owned(), "line 1"),
    ] {
        let error = drill::parse("x", &text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}
