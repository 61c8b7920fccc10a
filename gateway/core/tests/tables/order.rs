//! Limits that the operator signs, and whom nobody knows: velocity, classes, policy, gifts, the disk's reserve, who may
//! stop, what a revocation does to a session that runs.

use std::ops::Range;

use crate::site::*;
use gateway_core::{
    Decision, Effect, Gateway, Input, Mode, Said, Told,
    config::{KindLimits, Limits},
};
use proto::{
    artifact::{ListEntry, Whitelist},
    book::{Account, Loss},
    id::{SessionId, TokenHash},
    message::{ClockQuality, CommandAnswer, CommandOutcome},
    money::{Money, Units},
    policy::{Class, ClassLimits, FreeVend, Policy, UnsignedDisable},
    trust::ArtifactKind,
};

const STRANGER: u8 = 9;

fn limited(change: impl FnOnce(&mut Limits)) -> Site {
    let mut config = config();
    change(&mut config.limits);
    Site::with(config)
}

/// Asks, and ends what was granted after so much of the register; returns what came of the request.
fn use_once(site: &mut Site, device: &str, n: u8, register: Range<u64>) -> String {
    let (session, decision) = site.ask(device, n);
    if words(&decision).starts_with("grant") {
        site.say(device, started(session, register.start));
        site.say(device, Said::Stop(stop(session, register.start, register.end, 20)));
    }
    words(&decision)
}

/// The configuration's limits as a policy.
fn policy(revision: u64) -> Policy {
    let limits = Limits::default();
    let column = |class, own: &KindLimits| ClassLimits {
        class,
        units_max: own.units_max,
        money_max: own.money_max,
        duration_max_s: own.duration_max_s,
        outage_count_lower: own.outage_count_lower,
        outage_count_upper: own.outage_count_max,
        outage_money_max: own.outage_money_max,
        emergency_units: own.emergency_units,
        invalidation_units: own.invalidation_units,
    };
    Policy {
        revision,
        issued_s: WALL_S,
        classes: vec![
            column(Class::Charger, &limits.charger),
            column(Class::Washer, &limits.washer),
            column(Class::Dispenser, &limits.dispenser),
            column(Class::Car, &limits.car),
        ],
        site_budget: limits.site_budget,
        list_full_s: limits.list_full_s,
        list_half_s: limits.list_half_s,
        confirmation_s: limits.confirmation_s,
        attempts_a_minute_max: limits.attempts_a_minute_max,
        starts_an_hour_max: limits.starts_an_hour_max,
        device_change_ms: 0,
        master_group: 0,
        unsigned_disable: UnsignedDisable::Alert,
        unsigned_disable_s: 0,
        free_vend: Vec::new(),
    }
}

fn changed(revision: u64, change: impl FnOnce(&mut Policy)) -> Input {
    let mut policy = policy(revision);
    change(&mut policy);
    assert_eq!(policy.check(), Ok(()), "a policy that passes its own check");
    Input::Policy(policy)
}

#[test]
fn so_many_starts_an_hour() {
    let mut site = limited(|limits| limits.starts_an_hour_max = 3);
    for (minutes, expected) in [
        (0, "grant list 200 5000"),
        (10, "grant list 200 5000"),
        (20, "grant list 200 5000"),
        (30, "refuse rate 5"),
        (59, "refuse rate 5"),
        // The first one is an hour ago.
        (60, "grant list 200 5000"),
        (61, "refuse rate 5"),
    ] {
        site.wait(minutes * 60_000 - site.now.mono_ms);
        assert_eq!(use_once(&mut site, "d1", 1, 0..100), expected, "after {minutes} min");
    }
    assert_eq!(
        use_once(&mut site, "d1", 2, 0..100),
        "grant list 200 5000",
        "another token"
    );
    site.check();
}

#[test]
fn nobody_is_at_two_devices_at_once() {
    let check = |device_change_ms: u64, waited_ms: u64, device: &str, expected: &str| {
        let mut site = limited(|limits| limits.device_change_ms = device_change_ms);
        use_once(&mut site, "d1", 1, 0..100);
        site.wait(waited_ms);
        let words = use_once(&mut site, device, 1, 0..1);
        assert_eq!(words, expected, "{device} after {waited_ms} of {device_change_ms} ms");
        site.check();
    };
    check(0, 0, "c1", "grant list 300 3000");
    check(60_000, 0, "c1", "refuse rate 5");
    check(60_000, 59_999, "c1", "refuse rate 5");
    check(60_000, 60_000, "c1", "grant list 300 3000");
    check(60_000, 0, "d1", "grant list 200 5000");
}

#[test]
fn cars_have_their_own_column() {
    let mut site = Site::new();
    assert_eq!(words(&site.ask("k1", 1).1), "grant list 4000 20000");
    assert_eq!(words(&site.ask("c1", 2).1), "grant list 300 3000");
}

#[test]
fn a_policy_stands_above_the_configuration() {
    let mut site = Site::new();
    let double = |policy: &mut Policy| policy.classes[0].money_max = Money(600);
    site.put(&changed(5, double));
    assert_eq!(site.gateway.policy_revision(), 5);
    assert_eq!(words(&site.ask("c1", 1).1), "grant list 600 3000");
    // A class that it does not name keeps what the configuration says, not what the policy before it said.
    site.put(&changed(6, |policy| {
        policy.classes.retain(|own| own.class != Class::Charger)
    }));
    assert_eq!(words(&site.ask("c2", 2).1), "grant list 300 3000");
    // A newer version's class is nobody's here.
    site.put(&changed(7, |policy| policy.classes[3].class = Class::Unknown));
    assert_eq!(site.gateway.config().limits, Site::new().gateway.config().limits);
    for revision in [0, 6, 7] {
        let decision = site.put(&changed(revision, double));
        assert!(words(&decision).starts_with("ignored"), "{}", words(&decision));
        assert_eq!(decision.events, [], "revision {revision}");
    }
    site.check();
    // A snapshot keeps it.
    let mut restored = Gateway::new(config());
    for event in site.gateway.snapshot() {
        restored.apply(&site.now, &event);
    }
    assert_eq!(restored.policy(), site.gateway.policy());
    assert_eq!(restored.config(), site.gateway.config());
}

#[test]
fn a_policy_that_looks_wrong_is_set_aside() {
    type Change = fn(&mut Policy);
    let rows: [(Change, &str); 8] = [
        (|p| p.site_budget = Money(100_000), ""),
        (
            |p| p.site_budget = Money(99_999),
            "site_budget of site is 99999 instead of 200000",
        ),
        (
            |p| p.site_budget = Money::ZERO,
            "site_budget of site is 0 instead of 200000",
        ),
        (|p| p.site_budget = Money(2_000_000), ""),
        (
            |p| p.site_budget = Money(2_000_001),
            "site_budget of site is 2000001 instead of 200000",
        ),
        (
            |p| p.classes[1].money_max = Money(6),
            "money_max of washer is 6 instead of 600",
        ),
        (
            |p| p.list_half_s = 302_399,
            "list_half_s of site is 302399 instead of 604800",
        ),
        (
            |p| (p.classes[2].outage_count_lower, p.classes[2].outage_count_upper) = (0, 1),
            "outage_count_upper of dispenser is 1 instead of 10",
        ),
    ];
    for (change, suspect) in rows {
        let mut site = Site::new();
        let decision = site.put(&changed(2, change));
        if suspect.is_empty() {
            assert_eq!((words(&decision).as_str(), site.gateway.policy_revision()), ("", 2));
        } else {
            assert_eq!(
                words(&decision),
                format!("alarm: policy revision 2 is set aside: {suspect}")
            );
            assert_eq!(site.gateway.policy_revision(), 0);
            assert_eq!(
                words(&site.ask("w1", 1).1),
                "grant list 600 1",
                "service goes on as before"
            );
        }
    }
}

/// The caps of a charger, after a restart from a snapshot as well.
fn caps(site: &Site) -> (u64, i64) {
    let mut restored = Gateway::new(config());
    for event in site.gateway.snapshot() {
        restored.apply(&site.now, &event);
    }
    assert_eq!(restored.policy(), site.gateway.policy());
    assert_eq!(restored.policy_aside(), site.gateway.policy_aside());
    assert_eq!(restored.config(), site.gateway.config());
    let own = &site.gateway.config().limits.charger;
    (site.gateway.policy_revision(), own.money_max.0)
}

#[test]
fn an_operator_adopts_a_policy_that_was_set_aside_and_goes_back() {
    let mut site = Site::new();
    let kind = ArtifactKind::Policy;
    let adopt = |revision| Input::Adopt { kind, revision };
    let money = |revision, amount| changed(revision, |p| p.classes[0].money_max = Money(amount));
    let nothing = "ignored: no such policy is set aside";
    let first = "ignored: there is no policy to go back to";
    assert_eq!(words(&site.put(&adopt(0))), nothing);
    site.put(&money(1, 200));
    assert_eq!(words(&site.put(&Input::RollBack(kind))), first);
    assert!(words(&site.put(&money(2, 2_001))).starts_with("alarm: policy revision 2 is set aside"));
    assert_eq!(
        words(&site.put(&money(2, 2_001))),
        "ignored: policy revision 2 is set aside already",
        "one alarm is enough"
    );
    assert_eq!(caps(&site), (1, 200));
    let changes = site.gateway.policy_changes();
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["money_max of charger is 2001 instead of 200"]);
    assert_eq!(words(&site.put(&adopt(7))), nothing);
    site.put(&adopt(2));
    assert_eq!((caps(&site), site.gateway.policy_aside()), ((2, 2_001), None));
    assert_eq!(words(&site.put(&adopt(0))), nothing);

    // To and fro; neither comes back by itself.
    for (revision, amount) in [(1, 200), (2, 2_001), (1, 200)] {
        site.put(&Input::RollBack(kind));
        assert_eq!(caps(&site), (revision, amount));
        for known in [money(1, 200), money(2, 2_001)] {
            let decision = site.put(&known);
            assert!(words(&decision).starts_with("ignored"), "{}", words(&decision));
        }
    }
    // What is aside goes when a newer one is adopted, and only then.
    site.put(&money(3, 5_000));
    site.put(&Input::RollBack(kind));
    assert_eq!(caps(&site), (2, 2_001));
    assert_eq!(site.gateway.policy_aside().map(|policy| policy.revision), Some(3));
    site.put(&money(4, 3_000));
    assert_eq!((caps(&site), site.gateway.policy_aside()), ((4, 3_000), None));
    site.put(&Input::RollBack(kind));
    assert_eq!(caps(&site), (2, 2_001));
    site.check();
}

#[test]
fn emergency_credit_is_so_much_a_day() {
    let mut site = Site::new();
    site.go_local();
    // Kinds without it, and tokens that somebody knows.
    assert_eq!(words(&site.ask("c1", STRANGER).1), "refuse unknown 0");
    assert_eq!(words(&site.ask("w1", STRANGER).1), "refuse unknown 0");
    assert_eq!(words(&site.ask("d1", 4).1), "refuse online_required 0");
    assert_eq!(use_once(&mut site, "d1", STRANGER, 0..500), "grant unknown 200 2000");
    assert_eq!(
        use_once(&mut site, "d1", STRANGER, 500..1_900),
        "grant unknown 200 1500"
    );
    assert_eq!(
        use_once(&mut site, "d1", STRANGER, 1_900..2_000),
        "grant unknown 200 100"
    );
    assert_eq!(use_once(&mut site, "d1", STRANGER, 2_000..2_100), "refuse unknown 0");
    // The operator paid for it: 2 l at 0.20.
    let loss = site.gateway.book().balance(&Account::Loss(Loss::Emergency));
    assert_eq!(loss.debits_posted, Money(40));
    assert_eq!(
        site.gateway.book().balance(&Account::Customer(0)).debits_posted,
        Money::ZERO
    );
    site.wait(DAY_MS - 1);
    assert_eq!(use_once(&mut site, "d1", STRANGER, 2_000..2_100), "refuse unknown 0");
    site.wait(1);
    assert_eq!(
        use_once(&mut site, "d1", STRANGER, 2_000..2_100),
        "grant unknown 200 2000"
    );
    site.check();
}

#[test]
fn known_bad_is_not_unknown() {
    let mut site = Site::new();
    // It left the list; it was revoked; the cloud denied it with a newer credential.
    let all = (1..=5).chain(31..=60).map(|n| entry(n, Whitelist::Always));
    site.put(&list(2, all.clone().collect()));
    site.put(&list(3, all.filter(|entry| entry.token != token(5)).collect()));
    site.put(&revocations(1, &[(6, 9)]));
    let (_, decision) = site.ask("d1", 7);
    site.answer(&decision, DENY_NEWER);
    site.go_local();
    assert_eq!(words(&site.ask("d1", 5).1), "refuse unknown 0");
    assert_eq!(words(&site.ask("d1", 6).1), "refuse revoked 0");
    assert_eq!(words(&site.ask("d1", 7).1), "refuse denied 0");
    assert_eq!(words(&site.ask("d1", STRANGER).1), "grant unknown 200 2000");
    site.check();
    let mut restored = Gateway::new(config());
    for event in site.gateway.snapshot() {
        restored.apply(&site.now, &event);
    }
    let boot = Input::Boot { boot: 2, epoch: 1 };
    for event in &restored.decide(&site.now, &boot).events {
        restored.apply(&site.now, event);
    }
    let said = authorize(SessionId::mint(&id("c3"), 2, 1), 0, 5, 0);
    let input = Input::Device {
        device: id("c3"),
        counter: u64::MAX,
        said,
    };
    let refused = words(&restored.decide(&site.now, &input));
    assert_eq!(refused, "refuse unknown 0", "a snapshot remembers who left");
}

#[test]
fn the_cloud_is_asked_about_a_stranger_first() {
    let check = |reply: Option<Reply>, expected: &str| {
        let mut site = Site::new();
        let (_, decision) = site.ask("d1", STRANGER);
        assert_eq!(words(&decision), "ask");
        let end = match reply {
            Some(reply) => words(&site.answer(&decision, reply)),
            None => site.wait(1_200),
        };
        assert!(end.starts_with(expected), "{end}");
        site.check();
    };
    check(Some(ACCEPT), "grant cloud 200 5000");
    check(Some(DENY), "refuse denied");
    check(None, "grant unknown 200 2000");
}

#[test]
fn free_vend_is_signed_and_time_boxed() {
    let window = FreeVend {
        class: Class::Charger,
        from_s: WALL_S + 600,
        until_s: WALL_S + 1_200,
        units_max: Units(500),
    };
    let check = |after_s: u64, quality: ClockQuality, device: &str, n: u8, expected: &str| {
        let mut site = Site::new();
        site.put(&changed(1, |policy| policy.free_vend = vec![window]));
        site.go_local();
        site.wait(after_s * 1000 - site.now.mono_ms);
        (site.now.wall_s, site.now.quality) = (WALL_S + after_s, quality);
        assert_eq!(
            words(&site.ask(device, n).1),
            expected,
            "after {after_s} s, {quality:?}"
        );
        site.check();
    };
    use ClockQuality::{Informative, Synchronised};
    check(599, Synchronised, "c1", STRANGER, "refuse unknown 0");
    check(600, Synchronised, "c1", STRANGER, "grant unknown 300 500");
    check(1_199, Synchronised, "c1", STRANGER, "grant unknown 300 500");
    check(1_200, Synchronised, "c1", STRANGER, "refuse unknown 0");
    // A clock that anybody may set opens no window.
    check(600, Informative, "c1", STRANGER, "refuse unknown 0");
    check(600, Synchronised, "k1", STRANGER, "refuse unknown 0");
    check(600, Synchronised, "w1", STRANGER, "refuse unknown 0");
    // Whoever is known pays.
    check(600, Synchronised, "c1", 1, "grant list 300 3000");
}

#[test]
fn at_the_disks_reserve_only_what_is_secured_begins() {
    let mut site = Site::new();
    let open = site.open("c3", 2);
    assert!(words(&site.put(&Input::Disk { is_scarce: true })).starts_with("alarm: the disk's reserve"));
    assert_eq!(
        words(&site.put(&Input::Disk { is_scarce: true })),
        "ignored: nothing is due"
    );
    assert!(site.gateway.is_disk_scarce());
    assert_eq!(words(&site.ask("c1", 1).1), "refuse storage 300");
    let (_, decision) = site.ask("c2", 3);
    assert_eq!(words(&site.answer(&decision, ACCEPT)), "grant cloud 300 3000");
    // What runs goes on and ends.
    site.say("c3", started(open, 0));
    site.say("c3", Said::Stop(stop(open, 0, 1_000, 60)));
    assert_eq!(site.closing(open), "captured 60 1000");
    site.reboot(0);
    assert_eq!(words(&site.ask("c1", 1).1), "refuse storage 300", "also after a boot");
    assert_eq!(words(&site.put(&Input::Disk { is_scarce: false })), "");
    assert_eq!(words(&site.ask("c1", 1).1), "grant list 300 3000");
    site.check();
}

fn stop_tokens(decision: &Decision) -> Vec<TokenHash> {
    let mut grants = decision.effects.iter().filter_map(|effect| match effect {
        Effect::Send {
            message: Told::Grant(grant),
            ..
        } => Some(grant.stop_tokens.to_vec()),
        _ => None,
    });
    grants.next_back().expect("a grant")
}

#[test]
fn a_grant_names_who_may_stop() {
    let member = |n: u8, group: u64| ListEntry {
        group,
        ..entry(n, Whitelist::Always)
    };
    let check = |master_group: u64, n: u8, expected: &[u8]| {
        let mut site = Site::new();
        let groups = [(1, 7), (2, 7), (3, 0), (4, 0), (5, 9), (6, 9)];
        site.put(&list(2, groups.map(|(n, group)| member(n, group)).to_vec()));
        site.put(&changed(1, |policy| policy.master_group = master_group));
        let (_, decision) = site.ask("c1", n);
        let expected: Vec<_> = expected.iter().map(|&n| token(n)).collect();
        assert_eq!(stop_tokens(&decision), expected, "masters {master_group}, token {n}");
        site.check();
    };
    check(0, 1, &[2]);
    // Without a group nobody else is family.
    check(0, 3, &[]);
    check(9, 1, &[5, 6, 2]);
    check(9, 3, &[5, 6]);
    check(9, 5, &[6]);
}

#[test]
fn a_grant_names_eight_at_most_and_masters_first() {
    let mut site = Site::new();
    let member = |n: u8, group: u64| ListEntry {
        group,
        ..entry(n, Whitelist::Always)
    };
    let household = (1..=20).map(|n| member(n, 7)).chain([member(30, 9)]);
    site.put(&list(2, household.collect()));
    site.put(&changed(1, |policy| policy.master_group = 9));
    let (_, decision) = site.ask("c1", 1);
    let expected: Vec<_> = [30, 2, 3, 4, 5, 6, 7, 8].map(token).into();
    assert_eq!(stop_tokens(&decision), expected);
}

fn answered(id: u64, outcome: CommandOutcome) -> Said {
    Said::CommandAnswer(CommandAnswer { id, outcome, at: STAMP })
}

#[test]
fn a_revoked_session_ends_at_the_invalidation_limit() {
    let mut site = Site::new();
    let (charger, washer) = (site.open("c1", 1), site.open("w1", 1));
    site.say("c1", started(charger, 0));
    site.say("w1", started(washer, 0));
    site.say("c1", meter(charger, 0, 700, 60));
    let other = site.open("c2", 2);
    site.put(&revocations(1, &[(1, 9)]));
    // 50 Wh more; the washer finishes, and nobody else is touched.
    assert_eq!(site.wait(0), "limit 1 750");
    assert_eq!(site.wait(30_000), "");
    // Told again with each reading until it says that it heard; the limit stays where it was.
    assert_eq!(words(&site.say("c1", meter(charger, 0, 720, 120))), "limit 2 750");
    site.say("c1", answered(1, CommandOutcome::Done));
    assert_eq!(words(&site.say("c1", meter(charger, 0, 730, 150))), "limit 3 750");
    site.say("c1", answered(3, CommandOutcome::Done));
    assert_eq!(words(&site.say("c1", meter(charger, 0, 740, 160))), "");
    assert_eq!(words(&site.say("w1", meter(washer, 0, 0, 60))), "");
    assert_eq!(words(&site.say("c2", meter(other, 0, 100, 60))), "");
    let ended = site.say("c1", Said::Stop(stop(charger, 0, 750, 200)));
    assert_eq!(words(&ended), "receipt captured 45 750");
    site.check();
}

#[test]
fn the_invalidation_limit_is_never_above_the_grant() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    site.say("c1", started(session, 0));
    site.say("c1", meter(session, 0, 2_980, 60));
    site.put(&revocations(1, &[(1, 9)]));
    assert_eq!(site.wait(0), "limit 1 3000");
    // It is remembered over a boot.
    site.reboot(0);
    assert_eq!(words(&site.say("c1", meter(session, 0, 2_990, 90))), "limit 2 3000");
    site.check();
}

#[test]
fn from_the_lower_count_on_the_cloud_is_asked_once_more() {
    let mut site = Site::new();
    site.go_local();
    for i in 0..11 {
        site.wait(HOUR_MS);
        let (session, decision) = site.ask("d1", 1);
        let expected = match i {
            0..6 => "grant list 200 5000",
            6..10 => "grant list 200 5000, ask",
            _ => "refuse rate 300",
        };
        assert_eq!(words(&decision), expected, "session {i} of the outage");
        if i < 10 {
            site.say("d1", started(session, 0));
            site.say("d1", Said::Stop(stop(session, 0, 100, 10)));
        }
    }
    assert_eq!(site.gateway.health().authorize.mode, Mode::Local);
    site.check();
}

#[test]
fn the_second_answer_secures_or_ends() {
    for (reply, expected) in [(ACCEPT, ""), (DENY, ""), (DENY_NEWER, "limit 1 100")] {
        let mut site = Site::new();
        site.go_local();
        for _ in 0..6 {
            site.wait(HOUR_MS);
            use_once(&mut site, "d1", 1, 0..100);
        }
        site.wait(HOUR_MS);
        let (session, decision) = site.ask("d1", 1);
        site.say("d1", started(session, 0));
        let before = site.gateway.risk().exposure();
        site.answer(&decision, reply);
        let secured = before.0 - site.gateway.risk().exposure().0;
        assert_eq!(
            secured,
            if reply.verdict == ACCEPT.verdict { 200 } else { 0 },
            "{reply:?}"
        );
        let said: Vec<_> = [site.wait(0)]
            .into_iter()
            .filter(|words| words.contains("limit"))
            .collect();
        assert_eq!(said.join(""), expected, "{reply:?}");
        site.check();
    }
}

#[test]
fn an_old_list_says_half_of_a_balance() {
    let mut site = Site::new();
    let poor = ListEntry {
        balance: Money(200),
        ..entry(1, Whitelist::Always)
    };
    let others = (2..=4).map(|n| entry(n, Whitelist::Always));
    site.put(&list(2, others.chain([poor]).collect()));
    site.pass(73 * HOUR_MS);
    assert_eq!(words(&site.ask("c1", 1).1), "grant list 100 1500");
}
