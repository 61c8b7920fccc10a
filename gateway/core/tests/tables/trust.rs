//! Lists, revocations, tariffs, denials: what changes trust and what does not.

use crate::site::*;
use gateway_core::{Event, Input, Said};
use proto::{
    artifact::{ListEntry, Whitelist},
    id::Kind,
    money::Money,
};

fn tokens(numbers: impl Iterator<Item = u8>) -> Vec<ListEntry> {
    numbers.map(|n| entry(n, Whitelist::Always)).collect()
}

/// A list of `count` tokens; the first 255 of them are 0, 1, 2 ...
fn many(revision: u64, count: usize) -> Input {
    let entries = (0..count).map(|i| {
        let mut entry = entry((i % 256) as u8, Whitelist::Always);
        entry.token.0[..2].copy_from_slice(&(i as u16).to_be_bytes());
        entry
    });
    list(revision, entries.collect())
}

#[test]
fn the_gate_of_the_list() {
    let check = |before: usize, revision: u64, after: usize, expected: &str, tokens: usize| {
        let mut site = Site::empty(config());
        site.put(&many(7, before));
        assert_eq!(
            words(&site.put(&many(revision, after))),
            expected,
            "{before} -> {after}, revision {revision}"
        );
        assert_eq!(site.gateway.trust().tokens(), tokens, "{before} -> {after}");
        site.check();
    };
    check(100, 8, 100, "", 100);
    check(100, 8, 200, "", 200);
    check(
        100,
        7,
        200,
        "ignored: list revision 7 is not newer than the active 7",
        100,
    );
    check(
        100,
        6,
        200,
        "ignored: list revision 6 is not newer than the active 7",
        100,
    );
    check(100, 8, 97, "", 97);
    check(100, 8, 95, "", 95);
    check(
        100,
        8,
        94,
        "alarm: list revision 8 is set aside: 94 entries instead of 100",
        100,
    );
    check(
        100,
        8,
        0,
        "alarm: list revision 8 is set aside: 0 entries instead of 100",
        100,
    );
    check(
        1,
        8,
        0,
        "alarm: list revision 8 is set aside: 0 entries instead of 1",
        1,
    );
    check(0, 8, 0, "", 0);
    check(0, 8, 1_000, "", 1_000);
}

#[test]
fn a_list_that_was_set_aside_changes_nothing() {
    let mut site = Site::empty(config());
    site.put(&tariffs(1));
    site.put(&many(7, 100));
    let quarantined = |event: &Event| matches!(event, Event::Quarantined(_));
    site.put(&many(8, 50));
    assert_eq!(site.count(quarantined), 1);
    assert_eq!(site.gateway.trust().revisions(), (7, 0, 1));
    site.put(&many(8, 99));
    assert_eq!(
        site.gateway.trust().revisions(),
        (8, 0, 1),
        "the same revision, whole this time"
    );
    site.check();
}

#[test]
fn a_list_is_adopted_whole_or_not_at_all() {
    let mut site = Site::empty(config());
    site.put(&tariffs(1));
    site.put(&many(1, 100));
    // The power goes while the parts of the next one are being written.
    let decision = site.gateway.decide(&site.now, &many(2, 180));
    assert_eq!(
        decision.events.len(),
        6,
        "five parts of 40 at most, and the word that makes them the list"
    );
    let written: Vec<Event> = decision.events[..3].to_vec();
    for boots in [false, true] {
        let mut site = site.clone();
        for event in &written {
            site.gateway.apply(&site.now, event);
            site.journal.push((site.now, event.clone()));
        }
        if boots {
            site.reboot(1_000);
        }
        assert_eq!(site.gateway.trust().tokens(), 100);
        site.put(&many(3, 98));
        assert_eq!(
            site.gateway.trust().tokens(),
            98,
            "nothing of revision 2 is left, boots {boots}"
        );
        site.check();
    }
}

#[test]
fn revocations_add_and_stay() {
    let mut site = Site::new();
    site.put(&revocations(3, &[(1, 5)]));
    assert_eq!(words(&site.ask("c1", 1).1), "refuse revoked 0");
    let stale = "ignored: revocations revision 3 is not newer than the active 3";
    assert_eq!(words(&site.put(&revocations(3, &[(2, 5)]))), stale);
    // A later set without the token does not forgive it, nor does a lower credential, nor a new list.
    site.put(&revocations(4, &[(2, 5)]));
    site.put(&revocations(5, &[(1, 1)]));
    site.put(&list(2, tokens(1..=4)));
    assert_eq!(words(&site.ask("c1", 1).1), "refuse revoked 0");
    assert_eq!(words(&site.ask("c1", 2).1), "refuse revoked 0");
    // A new credential does.
    let mut entries = tokens(1..=4);
    entries[0].credential_revision = 6;
    site.put(&list(3, entries));
    assert_eq!(words(&site.ask("c1", 1).1), "grant list 300 3000");
    site.put(&revocations(6, &[]));
    assert_eq!(site.gateway.trust().revisions(), (3, 6, 1));
    site.check();
}

#[test]
fn a_large_set_of_revocations_takes_effect_whole_and_is_repeated_if_it_was_cut() {
    let all: Vec<(u8, u64)> = (0..200).map(|n| (n, 5)).collect();
    let mut site = Site::new();
    let decision = site.gateway.decide(&site.now, &revocations(9, &all));
    assert_eq!(decision.events.len(), 3);
    for event in &decision.events[..2] {
        site.gateway.apply(&site.now, event);
        site.journal.push((site.now, event.clone()));
    }
    assert_eq!(site.gateway.trust().revisions().1, 0, "the set is not complete");
    site.put(&revocations(9, &all));
    assert_eq!(site.gateway.trust().revisions().1, 9);
    let revoked = (0..200).filter(|&n| site.gateway.trust().is_revoked(&token(n))).count();
    assert_eq!(revoked, 200);
    site.check();
}

#[test]
fn tariffs_replace_what_they_name() {
    let mut site = Site::new();
    assert_eq!(
        words(&site.put(&tariffs(1))),
        "ignored: tariffs revision 1 is not newer than the active 1"
    );
    site.put(&tariffs_of(2, &[(Kind::Charger, 90_000)]));
    let price = |kind| site.gateway.trust().tariff(kind).unwrap().elements[0].price_milli;
    assert_eq!(price(Kind::Charger), 90_000);
    assert_eq!(price(Kind::Washer), 400_000, "not named, so it stays");
    assert_eq!(site.gateway.trust().revisions().2, 2);
    site.check();
}

#[test]
fn a_backed_denial_sticks_until_a_newer_credential() {
    let mut site = Site::new();
    let (_, question) = site.ask("c1", 3);
    assert_eq!(words(&site.answer(&question, DENY_NEWER)), "refuse denied 0");
    site.go_local();
    assert_eq!(words(&site.ask("c1", 3).1), "refuse denied 0", "also without the cloud");
    site.reboot(1_000);
    assert_eq!(words(&site.ask("c1", 3).1), "refuse denied 0", "also after a boot");
    // The same old credential in a newer list does not lift it.
    let mut entries = tokens(1..=4);
    site.put(&list(2, entries.clone()));
    assert_eq!(words(&site.ask("c1", 3).1), "refuse denied 0");
    entries[2].credential_revision = 6;
    site.put(&list(3, entries.clone()));
    assert_eq!(words(&site.ask("c1", 3).1), "grant list 300 3000");
    site.check();
}

#[test]
fn an_answer_that_was_long_on_its_way_brings_no_older_credential_back() {
    let mut site = Site::new();
    let accept = |credential_revision| Reply {
        credential_revision,
        ..ACCEPT
    };
    let (session, question) = site.ask("c1", 9);
    site.answer(&question, accept(8));
    site.say("c1", Said::Stop(stop(session, 0, 0, 0)));
    let (session, question) = site.ask("c1", 9);
    site.answer(&question, accept(7));
    site.say("c1", Said::Stop(stop(session, 0, 0, 0)));
    assert_eq!(site.gateway.trust().credential_revision(&token(9)), 8);
    // A denial of revision 9, then an older one: the newest counts.
    for (revision, reply) in [(9, DENY_NEWER), (10, DENY_NEWER), (9, DENY_NEWER)] {
        let (_, question) = site.ask("c1", 9);
        let reply = Reply {
            credential_revision: revision,
            ..reply
        };
        assert_eq!(words(&site.answer(&question, reply)), "refuse denied 0");
    }
    let (_, question) = site.ask("c1", 9);
    site.answer(&question, accept(9));
    assert!(site.gateway.trust().is_denied(&token(9)), "10 was denied, 9 is older");
    site.check();
}

#[test]
fn balances_of_a_newer_list_count_from_there() {
    let mut site = Site::new();
    let open = site.open("c1", 1);
    assert_eq!(site.gateway.risk().spent(1), Money(300));
    site.put(&list(2, tokens(1..=4)));
    assert_eq!(
        site.gateway.risk().spent(1),
        Money(300),
        "an open hold is not in the new balance"
    );
    site.say("c1", Said::Stop(stop(open, 0, 1_000, 60)));
    assert_eq!(site.gateway.risk().spent(1), Money(60));
    site.put(&list(3, tokens(1..=4)));
    assert_eq!(
        site.gateway.risk().spent(1),
        Money(60),
        "a charge without a receipt neither"
    );
    let upto = site.gateway.outbox().head();
    receipt(&mut site, upto);
    assert_eq!(site.gateway.risk().spent(1), Money(60));
    site.put(&list(4, tokens(1..=4)));
    assert_eq!(site.gateway.risk().spent(1), Money(0), "what has a receipt is");
    site.check();
}

fn receipt(site: &mut Site, upto: u64) {
    let hash = site.gateway.outbox().chain();
    let receipt = proto::link::LedgerReceipt {
        epoch: 1,
        upto,
        hash,
        ..Default::default()
    };
    site.put(&Input::Receipt {
        receipt,
        own_hash: hash,
    });
}
