//! Each capability has a mode of its own; the canaries, the mass denial and its breaker; who is served meanwhile.

use crate::site::*;
use gateway_core::{
    Capability, Config, Contest, Effect, Event, Input, Mode,
    config::{Limits, UnsignedDisable},
    health::Signal,
};
use proto::{
    artifact::{ListEntry, Whitelist},
    id::Hash,
    link::{LedgerReceipt, Welcome},
    money::Money,
};

fn mode(site: &Site, of: Capability) -> Mode {
    site.gateway.health().of(of).mode
}

fn with(change: fn(&mut Limits)) -> Site {
    let mut config = config();
    change(&mut config.limits);
    Site::with(config)
}

/// Echoes and hellos as shipped.
fn whole_config() -> Config {
    Config {
        limits: Limits::default(),
        ..config()
    }
}

/// Lets time pass; echoes and hellos come back or not. Returns when the modes of commit and control changed, in s.
fn live(site: &mut Site, s: u64, echoes: bool, hellos: bool) -> Vec<(u64, &'static str, Mode)> {
    let end_ms = site.now.mono_ms + s * 1_000;
    let mut changes = Vec::new();
    while let Some(due_ms) = site.gateway.next_deadline().filter(|&due_ms| due_ms <= end_ms) {
        site.pass(due_ms.saturating_sub(site.now.mono_ms));
        let mut decisions = vec![site.put(&Input::Tick)];
        for effect in decisions[0].effects.clone() {
            match effect {
                Effect::Echo(echo) if echoes => decisions.push(site.put(&Input::Echo { nonce: echo.nonce })),
                Effect::Hello if hellos => decisions.push(site.put(&Input::Welcome(welcome(site)))),
                _ => {}
            }
        }
        for event in decisions.iter().flat_map(|decision| &decision.events) {
            if let Event::ModeChanged(changed) = event {
                changes.push((site.now.mono_ms / 1_000, changed.capability.word(), changed.mode));
            }
        }
    }
    site.pass(end_ms - site.now.mono_ms);
    changes
}

fn welcome(site: &Site) -> Welcome {
    Welcome {
        version: 1,
        epoch: 1,
        upto: site.gateway.outbox().cursor(),
        hash: Hash::ZERO,
        wall_s: WALL_S,
        ..Welcome::default()
    }
}

#[test]
fn commit_and_control_follow_the_backend_and_not_each_other() {
    let mut site = Site::with(whole_config());
    assert_eq!(live(&mut site, 3_600, true, true), []);
    assert!(
        site.gateway
            .health()
            .is_healthy(gateway_core::Instant(site.now.mono_ms), &site.gateway.config().limits)
    );
    // The backend behind a link that stands is gone: echoes miss, hellos are answered.
    let fallen = live(&mut site, 60, false, true);
    let words: Vec<_> = fallen.iter().map(|(_, of, mode)| (*of, *mode)).collect();
    assert_eq!(words, [("commit", Mode::Suspect), ("commit", Mode::Local)]);
    assert!(fallen[1].0 - 3_600 <= 45, "an echo in flight, one more: {fallen:?}");
    // Now hellos are not answered any more, and echoes come back: slowly left, for each its own.
    let changed = live(&mut site, 400, true, false);
    let of = |name| changed.iter().filter(move |(_, of, _)| *of == name).collect::<Vec<_>>();
    let modes = |name| of(name).iter().map(|(_, _, mode)| *mode).collect::<Vec<_>>();
    assert_eq!(modes("commit"), [Mode::Recovering, Mode::Online]);
    assert_eq!(modes("control"), [Mode::Suspect, Mode::Local]);
    let took_s = of("commit")[1].0 - of("commit")[0].0;
    assert!((30..=44).contains(&took_s), "{took_s} s");
    assert_eq!(
        mode(&site, Capability::Authorize),
        Mode::Online,
        "nobody asked about a token"
    );
    site.check();
}

#[test]
fn a_stale_echo_proves_nothing() {
    let mut site = Site::with(whole_config());
    site.pass(2_000);
    let asked = site.put(&Input::Tick);
    let Some(Effect::Echo(echo)) = asked.effects.first().cloned() else {
        panic!("an echo is due: {asked:?}")
    };
    let wrong = echo.nonce + 1;
    assert_eq!(
        words(&site.put(&Input::Echo { nonce: wrong })),
        format!("ignored: question {wrong} is not open")
    );
    assert!(site.put(&Input::Echo { nonce: echo.nonce }).ignored.is_none());
    assert!(site.put(&Input::Echo { nonce: echo.nonce }).ignored.is_some(), "once");
}

#[test]
fn a_backend_that_echoes_and_gives_no_receipts_is_not_healthy() {
    let mut site = Site::with(whole_config());
    let session = site.open("c1", 1);
    assert_eq!(site.gateway.outbox().waiting(), 1);
    let changes = live(&mut site, 300, true, true);
    let words: Vec<_> = changes.iter().map(|(_, of, mode)| (*of, *mode)).collect();
    assert_eq!(words, [("commit", Mode::Suspect), ("commit", Mode::Local)]);
    assert!((60..=70).contains(&changes[1].0), "{changes:?}");
    // The receipt comes: from then on echoes count.
    let receipt = LedgerReceipt {
        epoch: 1,
        upto: site.gateway.outbox().head(),
        hash: Hash::ZERO,
        quarantined: 0,
        notes: Vec::new(),
    };
    site.put(&Input::Receipt {
        receipt,
        own_hash: Hash::ZERO,
    });
    live(&mut site, 120, true, true);
    assert_eq!(mode(&site, Capability::Commit), Mode::Online);
    assert!(site.gateway.sessions().get(&session).is_some());
    site.check();
}

/// What a cloud says of the pair: (known good, known bad).
#[test]
fn only_a_cloud_that_tells_good_from_bad_passes() {
    let check = |good: Option<Reply>, bad: Option<Reply>, expected: Mode, signal: Signal| {
        let mut site = Site::new();
        // A denial of a listed token makes the gateway ask.
        let (_, decision) = site.ask("c1", 3);
        let denied = site.answer(&decision, DENY);
        assert!(
            words(&denied).ends_with("probe, grant list 300 3000"),
            "{}",
            words(&denied)
        );
        if let Some(reply) = good {
            site.put(&answer_to(&denied, reply));
        }
        if let Some(reply) = bad {
            site.answer_bad(&denied, reply);
        }
        site.wait(500);
        assert_eq!(mode(&site, Capability::Authorize), expected, "{good:?} {bad:?}");
        let last = site.gateway.health().authorize.last;
        assert_eq!(last, Some(signal), "{good:?} {bad:?}");
        site.check();
    };
    check(Some(ACCEPT), Some(STRANGE), Mode::Online, Signal::CanariesRight);
    check(Some(ACCEPT), Some(ACCEPT), Mode::Local, Signal::CanariesWrong);
    check(Some(DENY), Some(STRANGE), Mode::Local, Signal::CanariesWrong);
    check(Some(ACCEPT), None, Mode::Local, Signal::CanariesSilent);
    check(None, Some(STRANGE), Mode::Local, Signal::CanariesSilent);
    check(None, None, Mode::Local, Signal::CanariesSilent);
}

#[test]
fn an_unsigned_word_about_a_canary() {
    let check = |code: u16, expected: Mode, signal: Signal| {
        for which in [0, 1] {
            let mut site = Site::new();
            let (_, decision) = site.ask("c1", 3);
            let denied = site.answer(&decision, DENY);
            let ask = questions(&denied)[which].ask;
            site.put(&Input::Trouble { ask, code });
            assert_eq!(mode(&site, Capability::Authorize), expected, "{code} about {which}");
            assert_eq!(site.gateway.health().authorize.last, Some(signal));
        }
    };
    // Even a canary that should be denied is denied by the operator's seal, or not at all.
    check(404, Mode::Local, Signal::CanariesWrong);
    check(500, Mode::Local, Signal::CanariesSilent);
    check(429, Mode::Online, Signal::CanariesThrottled);
}

/// Token `n` is denied with nothing to back that; the canaries are answered right. Returns the verdict.
fn denied_by_an_honest_cloud(site: &mut Site, device: &str, n: u8) -> String {
    let (session, decision) = site.ask(device, n);
    let mut end = words(&decision);
    if end == "ask" {
        let denied = site.answer(&decision, DENY);
        end = words(&denied);
        if end.contains("probe") {
            site.answer(&denied, ACCEPT);
        }
        if site.gateway.sessions().get(&session).unwrap().is_asking() {
            end = site.wait(0);
        }
    }
    if end.contains("grant") {
        site.say(device, gateway_core::Said::Stop(stop(session, 0, 0, 0)));
    }
    end
}

/// A list of so many, all of one policy.
fn crowd(site: &mut Site, count: u8, whitelist: Whitelist) {
    site.put(&list(2, (1..=count).map(|n| entry(n, whitelist)).collect()));
}

#[test]
fn a_denial_that_nothing_backs_evicts_nobody() {
    for policy in [Whitelist::AllowedOffline, Whitelist::Never] {
        let mut site = Site::new();
        crowd(&mut site, 9, policy);
        let before = (site.gateway.trust().clone(), site.gateway.risk().clone());
        let end = denied_by_an_honest_cloud(&mut site, "c1", 5);
        match policy {
            Whitelist::Never => assert_eq!(end, "refuse denied 0", "for this attempt"),
            _ => assert!(end.ends_with("grant list 300 3000"), "{end}"),
        }
        let (list, _) = before;
        let confirmed = questions_confirmed(&site);
        assert_eq!(site.gateway.trust().tokens(), list.tokens());
        assert!(!confirmed.contains(&5), "an error, or a denial, is no accept");
        // The next time the cloud is right again.
        let (_, decision) = site.ask("c2", 5);
        assert_eq!(words(&site.answer(&decision, ACCEPT)), "grant cloud 300 3000");
        site.check();
    }
}

fn questions_confirmed(site: &Site) -> Vec<u8> {
    let confirmed = site.journal.iter().filter_map(|(_, event)| match event {
        Event::Confirmed(e) => Some(e.token.0[0]),
        _ => None,
    });
    confirmed.collect()
}

#[test]
fn a_mass_denial_is_the_clouds_fault() {
    // (tokens denied, tokens accepted meanwhile, s between denials) -> LOCAL
    let check = |denied: u8, accepted: u8, gap_s: u64, used: bool, expected: bool| {
        let mut site = Site::new();
        crowd(&mut site, 100, Whitelist::AllowedOffline);
        if used {
            for n in 1..=denied {
                let (session, decision) = site.ask("c1", n);
                site.answer(&decision, ACCEPT);
                site.say("c1", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
            }
        }
        site.pass(120_000);
        for n in 51..51 + accepted {
            let (session, decision) = site.ask("c2", n);
            site.answer(&decision, ACCEPT);
            site.say("c2", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
        }
        for n in 1..=denied {
            let end = denied_by_an_honest_cloud(&mut site, "c1", n);
            assert!(end.ends_with("grant list 300 3000"), "a good user is served: {end}");
            site.pass(gap_s * 1_000);
        }
        let latched = site.gateway.health().breaker.latched.is_some();
        let local = mode(&site, Capability::Authorize) == Mode::Local;
        assert_eq!(
            (local, latched),
            (expected, expected),
            "{denied} of {accepted}, {gap_s} s, used {used}"
        );
        site.check();
    };
    check(2, 0, 1, true, false);
    check(3, 0, 1, true, true);
    check(3, 0, 35, true, false);
    check(3, 0, 25, true, true);
    // Three of fifteen are a fifth, not more; three of fourteen are.
    check(3, 12, 1, true, false);
    check(3, 11, 1, true, true);
    // Cards from a drawer that nobody uses prove nothing.
    check(3, 0, 1, false, false);
}

#[test]
fn an_evening_of_empty_accounts_is_no_mass_denial() {
    for policy in [Whitelist::AllowedOffline, Whitelist::Never] {
        let mut site = Site::new();
        crowd(&mut site, 60, policy);
        for n in 1..=30 {
            let (session, decision) = site.ask("c1", n);
            site.answer(&decision, ACCEPT);
            site.say("c1", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
        }
        let broke = (1..=60).map(|n| ListEntry {
            balance: Money(0),
            ..entry(n, policy)
        });
        site.put(&list(3, broke.collect()));
        for n in 1..=30 {
            let end = denied_by_an_honest_cloud(&mut site, "c1", n);
            let expected = match policy {
                Whitelist::Never => "refuse denied 0",
                _ => "refuse no_credit 300",
            };
            assert_eq!(end, expected);
            site.pass(1_000);
        }
        assert!(site.gateway.health().breaker.latched.is_none());
        assert_eq!(mode(&site, Capability::Authorize), Mode::Online);
        site.check();
    }
}

/// The incomplete whitelist: a stable part of the tokens is denied, everybody else and both kinds of canary are fine.
#[test]
fn a_partial_whitelist_refuses_no_good_user_and_is_not_believed_before_it_is_whole() {
    let left_out = |n: u8| n.is_multiple_of(3);
    let mut site = Site::new();
    crowd(&mut site, 90, Whitelist::AllowedOffline);
    let serve = |site: &mut Site, n: u8, ill: bool| {
        let (session, decision) = site.ask("c1", n);
        let mut end = words(&decision);
        if end == "ask" {
            let reply = if ill && left_out(n) { DENY } else { ACCEPT };
            let said = site.answer(&decision, reply);
            end = words(&said);
            if end.contains("probe") {
                let canary = questions(&said)[0].token.0[0];
                site.answer(&said, if ill && left_out(canary) { DENY } else { ACCEPT });
            }
        }
        assert!(end.contains("grant"), "token {n} is refused: {end}");
        site.say("c1", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
    };
    for n in 1..=90 {
        serve(&mut site, n, false);
        site.pass(1_000);
    }
    for n in 1..=60 {
        serve(&mut site, n, true);
        site.pass(1_000);
    }
    assert_eq!(mode(&site, Capability::Authorize), Mode::Local);
    assert!(site.gateway.health().breaker.latched.is_some());
    // For an hour canaries ask; the part that is served says yes, and that is not enough.
    let canaries = |site: &mut Site, s: u64, ill: bool| {
        let end_ms = site.now.mono_ms + s * 1_000;
        while let Some(due_ms) = site.gateway.next_deadline().filter(|&due_ms| due_ms <= end_ms) {
            site.pass(due_ms.saturating_sub(site.now.mono_ms));
            let decision = site.put(&Input::Tick);
            if words(&decision) == "probe" {
                let canary = questions(&decision)[0].token.0[0];
                site.answer(&decision, if ill && left_out(canary) { DENY } else { ACCEPT });
            }
            assert!(!ill || !mode(site, Capability::Authorize).asks(), "believed too early");
        }
        site.pass(end_ms.saturating_sub(site.now.mono_ms));
    };
    canaries(&mut site, 3_600, true);
    let right = site.count(|e| matches!(e, Event::Evidence(e) if e.signal == Signal::CanariesRight));
    assert!(
        right > 20,
        "{right}: a canary from the served part alone would have been believed"
    );
    for n in 61..=90 {
        serve(&mut site, n, true);
    }
    // The whitelist is whole again.
    canaries(&mut site, 120, false);
    assert_eq!(mode(&site, Capability::Authorize), Mode::Online);
    for n in 1..=30 {
        serve(&mut site, n, false);
    }
    site.check();
}

#[test]
fn a_latched_breaker_ignores_every_unsigned_denial_until_the_cloud_was_well_for_long() {
    let mut site = Site::new();
    let mut entries: Vec<_> = (1..=50).map(|n| entry(n, Whitelist::AllowedOffline)).collect();
    entries[39].whitelist = Whitelist::Never;
    site.put(&list(2, entries));
    for round in 0..2 {
        for n in 1..=3 {
            let (session, decision) = site.ask("c1", n);
            let said = site.answer(&decision, if round == 0 { ACCEPT } else { DENY });
            assert!(words(&said).contains("grant"), "{}", words(&said));
            site.say("c1", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
        }
    }
    assert!(site.gateway.health().breaker.latched.is_some());
    for _ in 0..40 {
        let due_ms = site.gateway.next_deadline().unwrap_or(site.now.mono_ms);
        site.pass(due_ms.saturating_sub(site.now.mono_ms));
        let decision = site.put(&Input::Tick);
        if words(&decision) == "probe" {
            site.answer(&decision, ACCEPT);
        }
    }
    assert_eq!(mode(&site, Capability::Authorize), Mode::Online);
    // Latched still: nobody waits for canaries, and NEVER is refused because no answer counts, not because of the denial.
    let (session, decision) = site.ask("c1", 40);
    let said = site.answer(&decision, DENY);
    assert!(words(&said).ends_with("refuse online_required 0"), "{}", words(&said));
    assert_eq!(site.gateway.sessions().get(&session).unwrap().contest, Contest::None);
    site.wait(500);
    // Ten minutes without a denial, and the next thing that goes well releases it.
    for _ in 0..400 {
        if mode(&site, Capability::Authorize) == Mode::Online {
            break;
        }
        let due_ms = site.gateway.next_deadline().unwrap();
        site.pass(due_ms.saturating_sub(site.now.mono_ms));
        let decision = site.put(&Input::Tick);
        if words(&decision) == "probe" {
            site.answer(&decision, ACCEPT);
        }
    }
    assert!(site.gateway.health().breaker.latched.is_some());
    site.pass(600_000);
    let (_, decision) = site.ask("c1", 10);
    site.answer(&decision, ACCEPT);
    assert!(site.gateway.health().breaker.latched.is_none());
    site.check();
}

#[test]
fn what_a_signed_policy_may_allow_an_unsigned_denial() {
    let check = |policy: fn(&mut Limits), first: &str, later: &str| {
        let mut site = with(policy);
        crowd(&mut site, 50, Whitelist::AllowedOffline);
        let end = denied_by_an_honest_cloud(&mut site, "c1", 7);
        assert!(end.ends_with(first), "{end}");
        site.pass(200_000);
        let end = denied_by_an_honest_cloud(&mut site, "c1", 7);
        assert!(end.ends_with(later), "{end}");
        site.check();
    };
    let served = "grant list 300 3000";
    check(|_| {}, served, served);
    check(
        |limits| limits.unsigned_disable = UnsignedDisable::Immediate,
        "refuse denied 0",
        "refuse denied 0",
    );
    check(
        |limits| limits.unsigned_disable = UnsignedDisable::SuspendAfter { s: 120 },
        served,
        "refuse denied 0",
    );
    check(
        |limits| limits.unsigned_disable = UnsignedDisable::SuspendAfter { s: 600 },
        served,
        served,
    );
}

#[test]
fn a_true_answer_wins_over_a_false_one_that_was_faster() {
    let mut site = Site::new();
    let (_, decision) = site.ask("c1", 4);
    let ask = questions(&decision)[0].ask;
    let said = site.put(&Input::Trouble { ask, code: 404 });
    assert!(
        words(&said).ends_with("probe"),
        "NEVER waits for the canaries: {}",
        words(&said)
    );
    assert_eq!(
        words(&site.put(&Input::Trouble { ask, code: 404 })),
        format!("ignored: question {ask} is not open"),
        "once said is said"
    );
    assert_eq!(words(&site.answer(&decision, ACCEPT)), "grant cloud 300 3000");
    site.check();
}

/// The two seconds: whatever the cloud does, and whenever it does it.
#[test]
fn nobody_waits_longer_than_two_seconds() {
    for says_after_ms in [0, 1, 700, 1_199] {
        for code in [401, 403, 404, 429, 500, 503, 302] {
            for n in [3, 4, 9] {
                for canaries_ms in [None, Some(100), Some(499)] {
                    let mut site = Site::new();
                    let (session, decision) = site.ask("c1", n);
                    let asked_ms = site.now.mono_ms;
                    site.wait(says_after_ms);
                    let ask = questions(&decision)[0].ask;
                    let said = site.put(&Input::Trouble { ask, code });
                    if let Some(ms) = canaries_ms.filter(|_| words(&said).contains("probe")) {
                        site.wait(ms);
                        site.answer(&said, ACCEPT);
                        site.wait(0);
                    }
                    let left_ms = (asked_ms + 2_000).saturating_sub(site.now.mono_ms);
                    site.wait(left_ms);
                    let decided = !site.gateway.sessions().get(&session).unwrap().is_asking();
                    assert!(
                        decided,
                        "{n} waits after {code} at {says_after_ms} ms, canaries {canaries_ms:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn gateways_of_one_outage_do_not_return_together() {
    let returns = |seed: u64| {
        let mut config = config();
        config.limits.jitter_seed = seed;
        let mut site = Site::with(config);
        site.go_local();
        for _ in 0..200 {
            if mode(&site, Capability::Authorize) == Mode::Online {
                break;
            }
            let due_ms = site.gateway.next_deadline().unwrap();
            site.pass(due_ms.saturating_sub(site.now.mono_ms));
            let decision = site.put(&Input::Tick);
            if words(&decision) == "probe" {
                site.answer(&decision, ACCEPT);
            }
        }
        site.now.mono_ms / 1_000
    };
    let mut seconds: Vec<u64> = (0..100).map(returns).collect();
    seconds.sort_unstable();
    seconds.dedup();
    assert!(seconds.len() >= 5, "{seconds:?}");
    assert!(seconds.last().unwrap() - seconds[0] <= 12, "{seconds:?}");
}

#[test]
fn a_cloud_that_takes_its_own_accepts_back_is_not_lying() {
    let mut site = Site::new();
    // For a while the cloud accepts everybody; ten strangers are remembered for it.
    for n in 101..=110 {
        let (session, decision) = site.ask("c1", n);
        site.answer(&decision, ACCEPT);
        site.say("c1", gateway_core::Said::Stop(stop(session, 0, 0, 0)));
    }
    for n in 101..=110 {
        let end = denied_by_an_honest_cloud(&mut site, "c1", n);
        assert_eq!(
            end, "refuse denied 0",
            "for this attempt: the canaries say that the cloud is well"
        );
        site.pass(1_000);
    }
    assert!(site.gateway.health().breaker.latched.is_none());
    assert_eq!(mode(&site, Capability::Authorize), Mode::Online);
    site.check();
}
