//! The decision order, step by step, and every limit.

use crate::site::*;
use gateway_core::{Input, Mode, config::Limits};
use proto::{
    artifact::Whitelist,
    id::Kind,
    message::{Fault, OutletState},
    money::{Money, Units},
    policy::Class,
};

/// How the cloud behaves when it is asked.
#[derive(Clone, Copy, Debug)]
enum Cloud {
    Answers(Reply),
    Silent,
    Trouble(u16),
    /// It denies with nothing to back that; and what it says of the known-good canary. The known-bad one it denies.
    Denies {
        canaries: Option<Reply>,
    },
}

/// What the operator is told of an unbacked denial.
fn alarm(n: u8) -> String {
    let token = token(n);
    format!("alarm: the cloud denies token {token}, which is good by all that is signed, and shows no newer credential")
}

/// Presents token `n` at charger c1; returns what came of it in the end, and whether the cloud was asked.
fn present(site: &mut Site, n: u8, cloud: Cloud) -> (String, bool) {
    let (_, decision) = site.ask("c1", n);
    if words(&decision) != "ask" {
        return (words(&decision), false);
    }
    let end = match cloud {
        Cloud::Answers(reply) => words(&site.answer(&decision, reply)),
        Cloud::Denies { canaries } => {
            let denied = site.answer(&decision, DENY);
            contested(site, n, &denied, canaries)
        }
        Cloud::Silent => site.wait(1_200),
        Cloud::Trouble(code) => {
            let Input::Answer(answer) = answer_to(&decision, ACCEPT) else {
                unreachable!("answer_to makes an answer")
            };
            let denied = site.put(&Input::Trouble { ask: answer.ask, code });
            contested(site, n, &denied, None)
        }
    };
    (end, true)
}

/// The verdict after a denial that nothing may back: at once, or once the canaries are heard.
fn contested(site: &mut Site, n: u8, denied: &gateway_core::Decision, canaries: Option<Reply>) -> String {
    let word = words(denied);
    let said = word.strip_prefix(&format!("{}, ", alarm(n))).unwrap_or(&word);
    if said != "probe" {
        return said.strip_prefix("probe, ").unwrap_or(said).to_owned();
    }
    if let Some(reply) = canaries {
        site.answer(denied, reply);
    }
    site.wait(500)
}

const ALWAYS: u8 = 1;
const ALLOWED: u8 = 2;
const ALLOWED_OFFLINE: u8 = 3;
const NEVER: u8 = 4;
const STRANGER: u8 = 9;

#[test]
fn every_policy_in_every_mode() {
    let list_grant = "grant list 300 3000";
    let cloud_grant = "grant cloud 300 3000";
    // Whoever waits for the canaries is refused if both are answered right, and has the local verdict if not.
    let honest = Cloud::Denies { canaries: Some(ACCEPT) };
    let liar = Cloud::Denies { canaries: Some(DENY) };
    let silent = Cloud::Denies { canaries: None };
    let rows: &[(u8, bool, Cloud, &str)] = &[
        // ALWAYS and ALLOWED never ask.
        (ALWAYS, true, Cloud::Silent, list_grant),
        (ALWAYS, false, Cloud::Silent, list_grant),
        (ALLOWED, true, Cloud::Silent, list_grant),
        (ALLOWED, false, Cloud::Silent, list_grant),
        // ALLOWED_OFFLINE asks, and no unbacked word of the cloud shrinks trust.
        (ALLOWED_OFFLINE, true, Cloud::Answers(ACCEPT), cloud_grant),
        (ALLOWED_OFFLINE, true, honest, list_grant),
        (ALLOWED_OFFLINE, true, liar, list_grant),
        (ALLOWED_OFFLINE, true, silent, list_grant),
        (ALLOWED_OFFLINE, true, Cloud::Answers(DENY_NEWER), "refuse denied 0"),
        (ALLOWED_OFFLINE, true, Cloud::Silent, list_grant),
        (ALLOWED_OFFLINE, true, Cloud::Trouble(404), list_grant),
        (ALLOWED_OFFLINE, true, Cloud::Trouble(429), list_grant),
        (ALLOWED_OFFLINE, false, Cloud::Silent, list_grant),
        // NEVER needs the cloud.
        (NEVER, true, Cloud::Answers(ACCEPT), cloud_grant),
        (NEVER, true, honest, "refuse denied 0"),
        (NEVER, true, liar, "refuse online_required 0"),
        (NEVER, true, silent, "refuse online_required 0"),
        (NEVER, true, Cloud::Answers(DENY_NEWER), "refuse denied 0"),
        (NEVER, true, Cloud::Silent, "refuse online_required 0"),
        (NEVER, true, Cloud::Trouble(401), "refuse online_required 0"),
        (NEVER, false, Cloud::Silent, "refuse online_required 0"),
        // Of a stranger the cloud may say what it likes.
        (STRANGER, true, Cloud::Answers(ACCEPT), cloud_grant),
        (STRANGER, true, Cloud::Answers(DENY), "refuse denied 0"),
        (STRANGER, true, Cloud::Silent, "refuse unknown 0"),
        (STRANGER, true, Cloud::Trouble(500), "refuse unknown 0"),
        (STRANGER, false, Cloud::Silent, "refuse unknown 0"),
    ];
    for &(n, online, cloud, expected) in rows {
        let mut site = Site::new();
        if !online {
            site.go_local();
        }
        let (end, asked) = present(&mut site, n, cloud);
        assert_eq!(end, expected, "token {n}, online {online}, {cloud:?}");
        assert_eq!(asked, online && n >= ALLOWED_OFFLINE, "token {n}, online {online}");
        site.check();
    }
}

#[test]
fn a_list_ages_and_a_cached_accept_stands_in() {
    let check = |age_ms: u64, n: u8, confirmed: bool, expected: &str| {
        let mut site = Site::new();
        site.go_local();
        site.now.quality = proto::message::ClockQuality::Unknown;
        site.pass(age_ms);
        if confirmed {
            confirm_by_probe(&mut site, n);
        }
        let (_, decision) = site.ask("c1", n);
        assert_eq!(
            words(&decision),
            expected,
            "after {age_ms} ms, token {n}, confirmed {confirmed}"
        );
    };
    let full_ms = 72 * HOUR_MS;
    check(full_ms - HOUR_MS, ALWAYS, false, "grant list 300 3000");
    check(full_ms + HOUR_MS, ALWAYS, false, "grant list 150 1500");
    check(7 * DAY_MS - HOUR_MS, ALWAYS, false, "grant list 150 1500");
    check(7 * DAY_MS + HOUR_MS, ALWAYS, false, "refuse list_expired 0");
    check(7 * DAY_MS + HOUR_MS, NEVER, false, "refuse online_required 0");
    check(7 * DAY_MS + HOUR_MS, ALWAYS, true, "grant cachedaccept 150 1500");
}

/// Lets probes go by until one asks about token `n`; the hub accepts it.
fn confirm_by_probe(site: &mut Site, n: u8) {
    for _ in 0..20 {
        let due_ms = site.gateway.next_deadline().unwrap();
        site.pass(due_ms.saturating_sub(site.now.mono_ms));
        let decision = site.put(&Input::Tick);
        if words(&decision) == "probe" && questions(&decision)[0].token == token(n) {
            site.answer(&decision, ACCEPT);
            return;
        }
    }
    panic!("20 deadlines and no probe about token {n}");
}

#[test]
fn a_stranger_whom_the_cloud_accepted_is_known_for_72_hours() {
    for (age_ms, expected) in [
        (HOUR_MS, "grant cachedaccept 150 1500"),
        (71 * HOUR_MS, "grant cachedaccept 150 1500"),
        (73 * HOUR_MS, "refuse unknown 0"),
    ] {
        let mut site = Site::new();
        let (session, decision) = site.ask("c2", STRANGER);
        assert_eq!(words(&site.answer(&decision, ACCEPT)), "grant cloud 300 3000");
        site.say("c2", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
        site.go_local();
        site.pass(age_ms);
        let (_, decision) = site.ask("c1", STRANGER);
        assert_eq!(words(&decision), expected, "{age_ms} ms later");
        site.check();
    }
}

#[test]
fn the_first_step_that_decides_wins() {
    let check = |name: &str, prepare: fn(&mut Site), device: &str, n: u8, expected: &str| {
        let mut site = Site::new();
        prepare(&mut site);
        let (_, decision) = site.ask(device, n);
        assert_eq!(words(&decision), expected, "{name}");
        site.check();
    };
    let fault = |site: &mut Site| drop(site.say("c1", status(0, OutletState::Faulted, Fault::Leakage)));
    check("faulted", fault, "c1", ALWAYS, "refuse device_state 5");
    let update = |site: &mut Site| drop(site.say("c1", status(0, OutletState::Updating, Fault::None)));
    check("updating", update, "c1", ALWAYS, "refuse device_state 5");
    let other = |site: &mut Site| drop(site.say("c1", status(0, OutletState::Other, Fault::None)));
    check(
        "a state of a newer version",
        other,
        "c1",
        ALWAYS,
        "refuse device_state 5",
    );
    let busy = |site: &mut Site| drop(site.say("c1", status(0, OutletState::Preparing, Fault::None)));
    check(
        "the device asks while it prepares",
        busy,
        "c1",
        ALWAYS,
        "grant list 300 3000",
    );
    check(
        "a kind of a newer version",
        |_| {},
        "x1",
        ALWAYS,
        "refuse device_state 5",
    );
    let elsewhere = |site: &mut Site| drop(site.say("c1", status(1, OutletState::Faulted, Fault::Leakage)));
    check(
        "another outlet is faulted",
        elsewhere,
        "c1",
        ALWAYS,
        "grant list 300 3000",
    );
    let hello_again = |site: &mut Site| {
        site.say("c1", status(0, OutletState::Faulted, Fault::Leakage));
        site.say("c1", hello(Kind::Charger, 2, 2));
    };
    check(
        "after a hello all is reported anew",
        hello_again,
        "c1",
        ALWAYS,
        "grant list 300 3000",
    );
    let revoke = |site: &mut Site| drop(site.put(&revocations(1, &[(ALWAYS, 5), (STRANGER, 0)])));
    check("revoked", revoke, "c1", ALWAYS, "refuse revoked 0");
    check(
        "revoked before it was ever seen",
        revoke,
        "c1",
        STRANGER,
        "refuse revoked 0",
    );
    let older = |site: &mut Site| drop(site.put(&revocations(1, &[(ALWAYS, 4)])));
    check(
        "an older credential is revoked",
        older,
        "c1",
        ALWAYS,
        "grant list 300 3000",
    );
    let faulted_and_revoked = |site: &mut Site| {
        site.put(&revocations(1, &[(ALWAYS, 5)]));
        site.say("c1", status(0, OutletState::Faulted, Fault::Leakage));
    };
    check(
        "device before revoked",
        faulted_and_revoked,
        "c1",
        ALWAYS,
        "refuse device_state 5",
    );
    let revoked_and_open = |site: &mut Site| {
        site.open("c2", ALWAYS);
        site.put(&revocations(1, &[(ALWAYS, 5)]));
    };
    check(
        "revoked before concurrent",
        revoked_and_open,
        "c1",
        ALWAYS,
        "refuse revoked 0",
    );
    let open = |site: &mut Site| {
        site.open("c2", ALWAYS);
    };
    check("a session elsewhere", open, "c1", ALWAYS, "refuse concurrent 5");
    check("a session of another kind", open, "w1", ALWAYS, "grant list 600 1");
    check(
        "the same outlet: the old one is over",
        open,
        "c2",
        ALWAYS,
        "grant list 300 3000",
    );
    let asking = |site: &mut Site| drop(site.ask("c2", ALLOWED_OFFLINE));
    check(
        "a question elsewhere",
        asking,
        "c1",
        ALLOWED_OFFLINE,
        "refuse concurrent 5",
    );
    let silent = |site: &mut Site| {
        site.open("c2", ALWAYS);
        site.wait(HOUR_MS);
    };
    check(
        "a silent device does not lock its user out",
        silent,
        "c1",
        ALWAYS,
        "grant list 300 3000",
    );
    let invalid = |site: &mut Site| {
        let mut entries: Vec<_> = (1..=4).map(|n| entry(n, Whitelist::Always)).collect();
        entries[0].valid = false;
        entries[1].not_after_s = WALL_S - 1;
        entries[2].not_after_s = WALL_S + 60;
        site.put(&list(2, entries));
    };
    check("invalid", invalid, "c1", 1, "refuse invalid 0");
    check("expired", invalid, "c1", 2, "refuse invalid 0");
    check("not yet expired", invalid, "c1", 3, "grant list 300 3000");
}

#[test]
fn a_site_without_prices_or_devices_refuses() {
    let mut site = Site::empty(config());
    site.put(&list(1, vec![entry(1, Whitelist::Always)]));
    assert_eq!(words(&site.ask("c1", 1).1), "refuse no_tariff 300");
    let input = Input::Device {
        device: id("nobody"),
        counter: 1,
        said: hello(Kind::Charger, 1, 1),
    };
    let decision = site.put(&input);
    assert_eq!(words(&decision), "ignored: nobody is not a device of this site");
    assert!(decision.events.is_empty());
    let session = site.mint("c1");
    let beyond = site.say("c1", authorize(session, 2, 1, 0));
    assert_eq!(words(&beyond), "refuse device_state 5", "c1 has outlets 0 and 1");
}

#[test]
fn eleven_attempts_a_minute_are_one_too_many() {
    // Also for tokens about which the cloud is asked: the tenth question is still answered.
    for (n, expected) in [
        (ALWAYS, "grant list 300 3000"),
        (ALLOWED_OFFLINE, "grant cloud 300 3000"),
    ] {
        let mut site = Site::new();
        for attempt in 1..=10 {
            let (session, mut decision) = site.ask("c1", n);
            if words(&decision) == "ask" {
                decision = site.answer(&decision, ACCEPT);
            }
            assert_eq!(words(&decision), expected, "attempt {attempt}");
            site.say("c1", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
            site.pass(5_000);
        }
        assert_eq!(words(&site.ask("c1", n).1), "refuse rate 5");
        site.pass(60_000);
        let (end, _) = present(&mut site, n, Cloud::Answers(ACCEPT));
        assert_eq!(end, expected, "a minute later");
        site.check();
    }
}

#[test]
fn limits_of_one_session() {
    // (device, wish, balance, cloud's limit or none) -> answer
    let check = |device: &str, wished: u64, balance: i64, expected: &str| {
        let mut site = Site::new();
        let mut entries: Vec<_> = (1..=4).map(|n| entry(n, Whitelist::Always)).collect();
        entries[0].balance = Money(balance);
        site.put(&list(2, entries));
        let session = site.mint(device);
        let decision = site.say(device, wish(session, 0, 1, 0, wished));
        assert_eq!(words(&decision), expected, "{device} wishes {wished} with {balance}");
    };
    check("c1", 0, 10_000, "grant list 300 3000");
    check("w1", 0, 10_000, "grant list 600 1");
    check("d1", 0, 10_000, "grant list 200 5000");
    check("c1", 700, 10_000, "grant list 300 700");
    check("c1", 9_000, 10_000, "grant list 300 3000");
    // 0.60 a kWh: 1.50 buys 2.5 kWh, 0.01 buys 16 Wh.
    check("c1", 0, 150, "grant list 150 2500");
    check("c1", 0, 1, "grant list 1 16");
    check("c1", 0, 0, "refuse no_credit 300");
    check("c1", 0, -500, "refuse no_credit 300");
    // A cycle costs 4.00.
    check("w1", 0, 400, "grant list 400 1");
    check("w1", 0, 399, "refuse no_credit 300");

    let mut site = Site::new();
    let (_, decision) = site.ask("c1", ALLOWED_OFFLINE);
    let reply = Reply {
        money_max: Money(120),
        ..ACCEPT
    };
    assert_eq!(words(&site.answer(&decision, reply)), "grant cloud 120 2000");
}

#[test]
fn what_was_spent_since_the_list_was_made_is_gone() {
    let mut site = Site::new();
    let mut entries: Vec<_> = (1..=4).map(|n| entry(n, Whitelist::Always)).collect();
    entries[0].balance = Money(250);
    site.put(&list(2, entries.clone()));
    let first = site.open("c1", 1);
    assert_eq!(site.gateway.risk().spent(1), Money(250), "the hold counts");
    assert_eq!(words(&site.ask("w1", 1).1), "refuse no_credit 300");
    site.say("c1", started(first, 0));
    site.say("c1", gateway_core::Said::Stop(stop(first, 0, 2_000, 60)));
    assert_eq!(site.gateway.risk().spent(1), Money(120), "the charge counts");
    assert_eq!(words(&site.ask("c1", 1).1), "grant list 130 2166");
    // A newer list has newer balances, but not what has no receipt yet.
    site.put(&list(3, entries));
    assert_eq!(
        site.gateway.risk().spent(1),
        Money(250),
        "a charge of 1.20 and a hold of 1.30"
    );
    site.check();
}

#[test]
fn limits_of_an_outage() {
    // (device, charge of each session, sessions granted before the first refusal, the refusal)
    let check = |device: &str, units: u64, granted: u32, expected: &str| {
        let mut site = Site::new();
        site.go_local();
        for nth in 1..=granted {
            let session = site.open(device, ALWAYS);
            site.say(device, gateway_core::Said::Stop(stop(session, 0, units, 60)));
            assert_eq!(site.gateway.sessions().open().count(), 0, "session {nth} is closed");
            site.wait(61_000);
        }
        assert_eq!(
            words(&site.ask(device, ALWAYS).1),
            expected,
            "{device}, session {}",
            granted + 1
        );
        assert_eq!(
            site.gateway.risk().tally(&token(ALWAYS), site_class(device)).count,
            granted
        );
        site.check();
    };
    check("c1", 100, 2, "refuse rate 300");
    check("w1", 1, 2, "refuse rate 300");
    check("d1", 100, 10, "refuse rate 300");
}

fn site_class(device: &str) -> Class {
    config().devices[&id(device)].class()
}

#[test]
fn the_money_of_an_outage() {
    let mut config = config();
    config.limits.dispenser.outage_money_max = Money(250);
    let mut site = Site::with(config);
    site.go_local();
    let first = site.open("d1", ALWAYS);
    site.say("d1", gateway_core::Said::Stop(stop(first, 0, 9_000, 60)));
    assert_eq!(site.closing(first), "captured 100 5000", "five litres were granted");
    site.wait(61_000);
    assert_eq!(
        words(&site.ask("d1", ALWAYS).1),
        "grant list 150 5000",
        "0.20 a litre, 1.50 left"
    );
    // Another kind has limits of its own.
    assert_eq!(words(&site.ask("w1", ALWAYS).1), "grant list 600 1");
}

#[test]
fn what_never_started_or_was_secured_uses_up_no_outage() {
    let mut site = Site::new();
    site.go_local();
    for _ in 0..5 {
        let session = site.open("w1", ALWAYS);
        site.say("w1", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
        assert_eq!(site.closing(session), "voided 0 0");
        site.wait(61_000);
    }
    assert_eq!(
        site.gateway.risk().tally(&token(ALWAYS), Class::Washer),
        gateway_core::Tally::default()
    );
    site.check();
}

#[test]
fn a_session_of_one_outage_does_not_disturb_the_tally_of_the_next() {
    let mut site = Site::new();
    site.go_local();
    let old = site.open("d1", ALWAYS);
    recover(&mut site);
    assert_eq!(site.gateway.risk().tally(&token(ALWAYS), Class::Dispenser).count, 0);
    site.go_local();
    site.say("d1", meter(old, 0, 500, 10));
    // The device had given up the old session; its stop is still on the way.
    let new = site.mint("d1");
    assert_eq!(
        words(&site.say("d1", authorize(new, 0, ALWAYS, 500))),
        "grant list 200 5000"
    );
    let before = site.gateway.risk().tally(&token(ALWAYS), Class::Dispenser);
    site.say("d1", gateway_core::Said::Stop(stop(old, 0, 500, 10)));
    assert_eq!(site.closing(old), "captured 10 500");
    assert_eq!(site.gateway.risk().tally(&token(ALWAYS), Class::Dispenser), before);
    site.check();
}

/// Good probes until the capability is ONLINE.
fn recover(site: &mut Site) {
    for _ in 0..100 {
        if site.gateway.health().authorize.mode == Mode::Online {
            return;
        }
        let due_ms = site.gateway.next_deadline().unwrap();
        site.pass(due_ms.saturating_sub(site.now.mono_ms));
        let decision = site.put(&Input::Tick);
        if words(&decision) == "probe" {
            site.answer(&decision, ACCEPT);
        }
    }
    panic!("100 deadlines and not ONLINE");
}

#[test]
fn the_site_budget_holds_to_the_fen() {
    let check = |budget: i64, expected: &str| {
        let limits = Limits {
            site_budget: Money(budget),
            ..Limits::default()
        };
        let mut site = Site::with(gateway_core::Config { limits, ..config() });
        site.open("c2", ALLOWED);
        assert_eq!(site.gateway.risk().exposure(), Money(300));
        assert_eq!(words(&site.ask("c1", ALWAYS).1), expected, "budget {budget}");
        assert!(site.gateway.risk().exposure().0 <= budget);
        site.check();
    };
    check(601, "grant list 300 3000");
    check(600, "grant list 300 3000");
    check(599, "grant list 299 3000");
    check(301, "grant list 1 16");
    check(300, "refuse no_credit 300");
    // What the cloud accepted is not at risk.
    let mut site = Site::with(gateway_core::Config {
        limits: Limits {
            site_budget: Money(0),
            ..Limits::default()
        },
        ..config()
    });
    assert_eq!(present(&mut site, ALWAYS, Cloud::Silent).0, "refuse no_credit 300");
    assert_eq!(
        present(&mut site, NEVER, Cloud::Answers(ACCEPT)).0,
        "grant cloud 300 3000"
    );
    assert_eq!(site.gateway.risk().exposure(), Money::ZERO);
}

#[test]
fn fees_count_towards_the_least_that_must_be_covered() {
    let check = |start_fee: i64, minimum: i64, balance: i64, expected: &str| {
        let mut site = Site::new();
        let mut tariff = proto::tariff::Tariff::flat(2, &[(proto::tariff::Dimension::Energy, 60_000)]);
        (tariff.start_fee, tariff.minimum) = (Money(start_fee), Money(minimum));
        let entries = vec![proto::artifact::TariffOf {
            kind: Kind::Charger,
            tariff,
        }];
        site.put(&Input::Tariffs(proto::artifact::TariffTable { revision: 2, entries }));
        let mut entries: Vec<_> = (1..=4).map(|n| entry(n, Whitelist::Always)).collect();
        entries[0].balance = Money(balance);
        site.put(&list(2, entries));
        assert_eq!(
            words(&site.ask("c1", 1).1),
            expected,
            "{start_fee}, {minimum}, {balance}"
        );
    };
    check(50, 0, 49, "refuse no_credit 300");
    check(50, 0, 50, "refuse no_credit 300"); // Nothing would be left for a single watt-hour.
    check(50, 0, 80, "grant list 80 500");
    check(0, 100, 99, "refuse no_credit 300");
    check(0, 100, 100, "grant list 100 1666");
    assert_eq!(Units(1_666).0, 100_000 / 60, "1.00 at 0.60 a kWh");
}
