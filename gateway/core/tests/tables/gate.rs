//! The gate of lists and prices: what passes, what is set aside with which figures, and what an operator may do then.

use crate::site::*;
use gateway_core::{Event, Ignored, Input, Said};
use proto::{
    artifact::{ListEntry, ListManifest, Whitelist, list_digest, sign, verify_list},
    id::Kind,
    money::Money,
    trust::{ArtifactKind, Issuer},
};

/// Tokens 0 to `count` - 1, each with an account of its own.
fn tokens(count: u8) -> Vec<ListEntry> {
    (0..count).map(|n| entry(n, Whitelist::Always)).collect()
}

/// A site with 100 tokens in list 7, of which the first `used` were served lately.
fn site_with_users(used: u8) -> Site {
    let mut site = Site::empty(config());
    site.put(&tariffs(1));
    site.put(&list(7, tokens(100)));
    for n in 0..used {
        let session = site.open("c1", n);
        site.say("c1", Said::Stop(stop(session, 0, 0, 0)));
        site.pass(10_000);
    }
    site
}

fn changed(change: impl FnOnce(&mut Vec<ListEntry>)) -> Vec<ListEntry> {
    let mut entries = tokens(100);
    change(&mut entries);
    entries
}

#[test]
fn what_the_gate_finds() {
    let check = |used: u8, entries: Vec<ListEntry>, expected: &str| {
        let mut site = site_with_users(used);
        let before = site.gateway.trust().list().clone();
        let expected = match expected {
            "" => String::new(),
            doubts => format!("alarm: list revision 8 is set aside: {doubts}"),
        };
        assert_eq!(words(&site.put(&list(8, entries.clone()))), expected);
        let trust = site.gateway.trust();
        if expected.is_empty() {
            assert_eq!((trust.revisions().0, trust.list().entries()), (8, entries.clone()));
        } else {
            assert_eq!(*trust.list(), before, "the active list stays");
            assert_eq!(
                trust.aside().unwrap().list.entries(),
                entries,
                "the doubtful one is kept"
            );
            // Whoever was served before is served now.
            assert!(words(&site.ask("c1", 0).1).starts_with("grant list"));
        }
        site.check();
    };
    let refused = |n| format!("{n} of 10 users of the last 7 days refused");
    // Whose tokens nobody used may leave, up to the limit.
    check(10, tokens(97), "");
    check(10, tokens(95), "");
    check(10, tokens(94), "94 entries instead of 100");
    check(10, tokens(60), "60 entries instead of 100");
    check(10, vec![], &format!("0 entries instead of 100; {}", refused(10)));
    // One user in ten is more than half a percent.
    check(10, changed(|e| e.retain(|entry| entry.token != token(3))), &refused(1));
    check(10, changed(|e| e[3].valid = false), &refused(1));
    check(10, changed(|e| e[3].whitelist = Whitelist::Never), &refused(1));
    check(10, changed(|e| e[3].not_after_s = WALL_S - 1), &refused(1));
    check(
        10,
        changed(|e| e.iter_mut().for_each(|e| e.valid = false)),
        &refused(10),
    );
    check(10, changed(|e| e[30].valid = false), "");
    check(10, changed(|e| e[3].whitelist = Whitelist::AllowedOffline), "");
    check(10, changed(|e| e[3].credential_revision = 9), "");
    // Balances.
    let poor = |count: usize| changed(move |e| e[..count].iter_mut().for_each(|e| e.balance = Money(0)));
    check(0, poor(1), "");
    check(0, poor(2), "2 of 100 balances go to zero");
    check(0, poor(100), "100 of 100 balances go to zero");
    check(
        0,
        changed(|e| e[..9].iter_mut().for_each(|e| e.balance = Money(-5))),
        "9 of 100 balances go to zero",
    );
    check(
        0,
        changed(|e| e[..99].iter_mut().for_each(|e| e.balance = Money(1))),
        "",
    );
}

/// Half a percent of the users: one of two hundred may go, two may not.
#[test]
fn a_share_of_many_users_may_be_refused() {
    let many = |refused: u8| {
        let mut entries: Vec<ListEntry> = (0..=255).map(|n| entry(n, Whitelist::Always)).collect();
        entries[..usize::from(refused)].iter_mut().for_each(|e| e.valid = false);
        entries
    };
    for (refused, expected) in [
        (1, ""),
        (
            2,
            "alarm: list revision 8 is set aside: 2 of 200 users of the last 7 days refused",
        ),
    ] {
        let mut site = Site::empty(config());
        site.put(&tariffs(1));
        site.put(&list(7, many(0)));
        for n in 0..200 {
            let session = site.open("c1", n);
            site.say("c1", Said::Stop(stop(session, 0, 0, 0)));
        }
        assert_eq!(words(&site.put(&list(8, many(refused)))), expected);
    }
}

#[test]
fn who_came_more_than_a_week_ago_is_no_user() {
    let without = changed(|e| e[3].valid = false);
    for (days, boots, set_aside) in [(7, false, true), (7, true, true), (8, false, false), (8, true, false)] {
        let mut site = site_with_users(10);
        for _ in 0..days {
            // A wall clock that goes wrong is not asked.
            site.now.wall_s = 1_000;
            site.pass(DAY_MS - 20_000);
        }
        if boots {
            site.put(&revocations(1, &[]));
            site.reboot(1_000);
        }
        site.put(&list(8, without.clone()));
        assert_eq!(
            site.gateway.trust().revisions().0 == 7,
            set_aside,
            "{days} days, boots {boots}"
        );
        site.check();
    }
}

#[test]
fn what_was_spent_or_revoked_here_is_no_surprise() {
    // Whoever spent the last here has nothing left there.
    let mut site = Site::empty(config());
    site.put(&tariffs(1));
    let few = |balance| {
        vec![ListEntry {
            balance,
            ..entry(1, Whitelist::Always)
        }]
    };
    site.put(&list(7, few(Money(100))));
    let session = site.open("c1", 1);
    site.say("c1", Said::Stop(stop(session, 0, 3_000, 60)));
    assert_eq!(site.gateway.risk().spent(1), Money(100));
    assert_eq!(words(&site.put(&list(8, few(Money(0))))), "");
    // Whoever is revoked, or denied with a newer credential, may leave.
    let mut site = site_with_users(10);
    site.put(&revocations(1, &[(3, 5)]));
    assert_eq!(
        words(&site.put(&list(8, changed(|e| e.retain(|entry| entry.token != token(3)))))),
        ""
    );
    // But revocations that come with the list's own credentials do not hide it.
    let mut site = site_with_users(10);
    site.put(&revocations(1, &[(3, 4)]));
    let lower = changed(|e| e[3].credential_revision = 4);
    let alarm = "alarm: list revision 8 is set aside: 1 of 10 users of the last 7 days refused";
    assert_eq!(
        words(&site.put(&list(8, lower))),
        alarm,
        "a credential of before, revoked since"
    );
}

#[test]
fn the_first_list_is_compared_with_nothing() {
    let mut site = Site::empty(config());
    let first = changed(|e| e.iter_mut().for_each(|e| e.balance = Money(0)));
    assert_eq!(words(&site.put(&list(1, first))), "");
    assert_eq!(
        site.gateway.trust().previous(),
        None,
        "and there is no way back from it"
    );
    assert_eq!(
        words(&site.put(&Input::RollBack(ArtifactKind::List))),
        "ignored: there is no list to go back to"
    );
}

#[test]
fn unsound_lists_never_become_an_input() {
    let issuer = Issuer::from_seed(&[7; 32]);
    let good = ListManifest {
        revision: 8,
        base: 0,
        count: 0,
        issued_s: WALL_S,
        chunks: vec![],
        removed: vec![],
        total: 0,
        digest: list_digest([]),
    };
    let check = |signer: &Issuer, kind, manifest: &ListManifest| {
        let envelope = sign(signer, kind, manifest).unwrap();
        let none: [Vec<u8>; 0] = [];
        verify_list(&envelope, &none, &[issuer.key()]).is_ok()
    };
    assert!(check(&issuer, ArtifactKind::List, &good));
    assert!(
        !check(&Issuer::from_seed(&[8; 32]), ArtifactKind::List, &good),
        "mis-signed"
    );
    assert!(
        !check(&issuer, ArtifactKind::Tariffs, &good),
        "signed as something else"
    );
    assert!(
        !check(
            &issuer,
            ArtifactKind::List,
            &ListManifest {
                count: 1,
                ..good.clone()
            }
        ),
        "mis-counted"
    );
    assert!(
        !check(
            &issuer,
            ArtifactKind::List,
            &ListManifest {
                total: 1,
                ..good.clone()
            }
        ),
        "another trailer"
    );
    let digest = proto::id::Hash::ZERO;
    assert!(
        !check(&issuer, ArtifactKind::List, &ListManifest { digest, ..good }),
        "another trailer"
    );
}

#[test]
fn changes_apply_to_the_list_they_name() {
    let mut site = site_with_users(10);
    let (before, after) = (tokens(100), changed(|e| drop(e.drain(90..93))));
    assert_eq!(words(&site.put(&list_of_changes((7, &before), 8, &after))), "");
    assert_eq!(site.gateway.trust().list().entries(), after);
    assert_eq!(
        site.count(|e| matches!(e, Event::ListStaged(_))),
        4,
        "three of the first list, one of changes"
    );
    let stale = "ignored: list revision 8 is not newer than the active 8";
    assert_eq!(words(&site.put(&list_of_changes((7, &before), 8, &after))), stale);
    // Onto another list: nothing happens, and the shell knows that it needs the whole.
    let onto_seven = site.put(&list_of_changes((7, &before), 9, &before));
    let (revision, base, active) = (9, 7, 8);
    assert_eq!(onto_seven.ignored, Some(Ignored::Base { revision, base, active }));
    assert!(onto_seven.events.is_empty());
    // Onto a list of this number, but with other content.
    let onto_other = site.put(&list_of_changes((8, &before), 9, &before[..99]));
    assert_eq!(onto_other.ignored, Some(Ignored::Trailer { revision: 9, base: 8 }));
    let alarm = "alarm: list revision 9 as changes to revision 8 makes another list than the signed one of ours, \
                 ignored: list revision 9 is not what its changes make of revision 8";
    assert_eq!(words(&onto_other), alarm);
    assert_eq!(site.gateway.trust().list().entries(), after);
    // The gate looks at what the changes come to.
    let alarm =
        "alarm: list revision 9 is set aside: 60 entries instead of 97; 1 of 10 users of the last 7 days refused";
    let mut few = after[..60].to_vec();
    few[0].valid = false;
    assert_eq!(words(&site.put(&list_of_changes((8, &after), 9, &few))), alarm);
    assert_eq!(site.gateway.trust().aside().unwrap().list.entries(), few);
    // Nothing changes but the revision.
    assert_eq!(words(&site.put(&list_of_changes((8, &after), 10, &after))), "");
    assert_eq!(site.gateway.trust().aside(), None, "a newer one is here");
    site.check();
}

#[test]
fn an_operator_may_take_what_was_set_aside() {
    let mut site = site_with_users(10);
    let few = tokens(50);
    let adopt = |kind, revision| Input::Adopt { kind, revision };
    let nothing = "ignored: no such list is set aside";
    assert_eq!(words(&site.put(&adopt(ArtifactKind::List, 0))), nothing);
    site.put(&list(8, few.clone()));
    let again = site.put(&list(8, few.clone()));
    let kind = ArtifactKind::List;
    assert_eq!(
        again.ignored,
        Some(Ignored::Aside { kind, revision: 8 }),
        "one alarm is enough"
    );
    assert!(again.effects.is_empty() && again.events.is_empty());
    assert_eq!(words(&site.put(&adopt(ArtifactKind::List, 9))), nothing);
    site.reboot(1_000);
    assert_eq!(words(&site.put(&adopt(ArtifactKind::List, 8))), "");
    assert_eq!(site.gateway.trust().list().entries(), few);
    assert_eq!(site.gateway.trust().revisions().0, 8);
    assert_eq!(words(&site.put(&adopt(ArtifactKind::List, 8))), nothing);
    // An artifact that has no gate has nothing set aside.
    for &kind in ArtifactKind::ALL {
        assert!(site.put(&adopt(kind, 0)).events.is_empty(), "{kind:?}");
    }
    site.check();
}

#[test]
fn an_operator_may_go_back() {
    let mut site = site_with_users(3);
    let (before, after) = (tokens(100), changed(|e| e[50].valid = false));
    site.put(&list(8, after.clone()));
    site.pass(HOUR_MS);
    let rolled = site.put(&Input::RollBack(ArtifactKind::List));
    assert_eq!(
        (words(&rolled), rolled.events.len()),
        (String::new(), 1),
        "one event, however long the list"
    );
    let trust = site.gateway.trust();
    assert_eq!((trust.revisions().0, trust.list_newest()), (7, 8));
    assert_eq!(trust.list().entries(), before);
    // What was left does not come back by itself, nor do changes to it.
    let stale = "ignored: list revision 8 is not newer than the active 8";
    assert_eq!(words(&site.put(&list(8, after.clone()))), stale);
    let onto = site.put(&list_of_changes((8, &after), 9, &after));
    let (revision, base, active) = (9, 8, 7);
    assert_eq!(onto.ignored, Some(Ignored::Base { revision, base, active }));
    assert_eq!(
        words(&site.put(&Input::RollBack(ArtifactKind::List))),
        "ignored: there is no list to go back to"
    );
    site.reboot(1_000);
    // Going back can be taken back.
    site.put(&Input::Adopt {
        kind: ArtifactKind::List,
        revision: 0,
    });
    assert_eq!(site.gateway.trust().list().entries(), after);
    site.put(&Input::RollBack(ArtifactKind::List));
    // And the next list is the next list.
    site.put(&list(9, after.clone()));
    assert_eq!(site.gateway.trust().revisions().0, 9);
    assert_eq!(site.gateway.trust().aside(), None);
    site.check();
}

#[test]
fn an_old_list_is_as_old_as_it_is() {
    let grant = |site: &mut Site| words(&site.ask("c1", 60).1);
    let mut site = site_with_users(0);
    site.pass(2 * DAY_MS);
    site.put(&list(8, tokens(100)));
    site.pass(2 * DAY_MS);
    site.put(&Input::RollBack(ArtifactKind::List));
    assert_eq!(grant(&mut site), "grant list 150 1500", "four days old, half caps");
    // One that lay aside for a week is a week old.
    let mut site = site_with_users(0);
    site.put(&list(8, tokens(90)));
    site.pass(8 * DAY_MS);
    site.put(&Input::Adopt {
        kind: ArtifactKind::List,
        revision: 8,
    });
    assert_eq!(grant(&mut site), "refuse list_expired 0");
}

#[test]
fn neither_going_back_nor_adopting_late_brings_spent_money_back() {
    let mut register = 0;
    let mut spend = |site: &mut Site| {
        let session = site.open("c1", 1);
        site.say("c1", Said::Stop(stop(session, register, register + 1_000, 60)));
        register += 1_000;
        let upto = site.gateway.outbox().head();
        let hash = site.gateway.outbox().chain();
        let receipt = proto::link::LedgerReceipt {
            epoch: 1,
            upto,
            hash,
            quarantined: 0,
            notes: Vec::new(),
        };
        site.put(&Input::Receipt {
            receipt,
            own_hash: hash,
        });
    };
    let spent = |site: &Site| site.gateway.risk().spent(1);
    let mut site = site_with_users(0);
    spend(&mut site);
    assert_eq!(spent(&site), Money(60));
    site.put(&list(8, tokens(100)));
    assert_eq!(spent(&site), Money(0), "the new balances know it");
    spend(&mut site);
    site.put(&list(9, tokens(50)));
    spend(&mut site);
    site.put(&Input::RollBack(ArtifactKind::List));
    assert_eq!(spent(&site), Money(180), "the old ones do not");
    site.reboot(1_000);
    site.put(&list(10, tokens(50)));
    spend(&mut site);
    site.put(&Input::Adopt {
        kind: ArtifactKind::List,
        revision: 10,
    });
    assert_eq!(spent(&site), Money(60), "since it was set aside");
    site.put(&Input::RollBack(ArtifactKind::List));
    assert_eq!(spent(&site), Money(240));
    site.check();
}

#[test]
fn a_denial_outlives_going_back() {
    let mut site = Site::new();
    let (_, question) = site.ask("c1", 3);
    site.answer(&question, DENY_NEWER);
    let policies = [
        Whitelist::Always,
        Whitelist::Allowed,
        Whitelist::AllowedOffline,
        Whitelist::Never,
    ];
    let mut entries: Vec<ListEntry> = (1..=4).map(|n| entry(n, policies[usize::from(n) - 1])).collect();
    entries[2].credential_revision = 6;
    site.put(&list(2, entries));
    site.go_local();
    let session = site.open("c1", 3);
    site.say("c1", Said::Stop(stop(session, 0, 0, 0)));
    site.put(&Input::RollBack(ArtifactKind::List));
    assert_eq!(
        words(&site.ask("c1", 3).1),
        "refuse denied 0",
        "the old credential is as denied as before"
    );
    site.check();
}

#[test]
fn prices_change_by_half_at_most() {
    let check = |before: i64, after: i64, expected: &str| {
        let mut site = Site::empty(config());
        site.put(&tariffs_of(1, &[(Kind::Charger, before), (Kind::Washer, 400_000)]));
        let found = words(&site.put(&tariffs_of(2, &[(Kind::Charger, after), (Kind::Washer, 400_000)])));
        assert_eq!(found, expected, "{before} -> {after}");
        let price = site.gateway.trust().tariff(Kind::Charger).unwrap().elements[0].price_milli;
        assert_eq!(price, if expected.is_empty() { after } else { before });
        if !expected.is_empty() {
            let again = site.put(&tariffs_of(2, &[(Kind::Charger, after), (Kind::Washer, 400_000)]));
            assert_eq!(words(&again), "ignored: tariffs revision 2 is set aside already");
            site.reboot(1_000);
            site.put(&Input::Adopt {
                kind: ArtifactKind::Tariffs,
                revision: 2,
            });
            let price = site.gateway.trust().tariff(Kind::Charger).unwrap().elements[0].price_milli;
            assert_eq!((price, site.gateway.trust().revisions().2), (after, 2));
        }
        assert_eq!(site.gateway.trust().tariffs_aside(), None);
        site.check();
    };
    let doubt = |before, after| {
        format!(
            "alarm: tariffs revision 2 is set aside: a price of the charger goes from {before} to {after} thousandths"
        )
    };
    check(60_000, 60_000, "");
    check(60_000, 90_000, "");
    check(60_000, 90_001, &doubt(60_000, 90_001));
    check(60_000, 30_000, "");
    check(60_000, 29_999, &doubt(60_000, 29_999));
    check(60_000, 6_000_000, &doubt(60_000, 6_000_000));
    check(60_000, 0, &doubt(60_000, 0));
}

#[test]
fn every_part_of_a_price_is_compared() {
    use proto::{
        artifact::{TariffOf, TariffTable},
        tariff::{Dimension, PriceElement, Tariff},
    };
    let active = || {
        let mut tariff = Tariff::flat(1, &[(Dimension::Energy, 60_000), (Dimension::Idle, 10_000)]);
        (tariff.start_fee, tariff.minimum, tariff.cap) = (Money(20), Money(40), Money(300));
        tariff
    };
    let check = |change: &dyn Fn(&mut Tariff), expected: &str| {
        let put = |site: &mut Site, revision, tariff| {
            let entries = vec![TariffOf {
                kind: Kind::Charger,
                tariff,
            }];
            words(&site.put(&Input::Tariffs(TariffTable { revision, entries })))
        };
        let mut site = Site::empty(config());
        assert_eq!(
            put(&mut site, 1, active()),
            "",
            "the first price is compared with nothing"
        );
        let mut tariff = active();
        change(&mut tariff);
        let found = put(&mut site, 2, tariff);
        let found = found.strip_prefix("alarm: tariffs revision 2 is set aside: a price of the charger goes ");
        assert_eq!(found.unwrap_or_default(), expected);
    };
    check(&|_| {}, "");
    check(&|t| t.start_fee = Money(30), "");
    check(&|t| t.start_fee = Money(31), "from 20000 to 31000 thousandths");
    check(&|t| t.start_fee = Money(0), "from 20000 to 0 thousandths");
    check(&|t| t.minimum = Money(61), "from 40000 to 61000 thousandths");
    check(&|t| t.cap = Money(0), "from 300000 to 0 thousandths");
    check(
        &|t| t.elements[1].price_milli = 16_000,
        "from 10000 to 16000 thousandths",
    );
    check(&|t| t.elements.truncate(1), "from 10000 to 0 thousandths");
    let night = |price| PriceElement {
        minute_from: 1_320,
        minute_to: 420,
        ..PriceElement::flat(Dimension::Energy, price)
    };
    check(&|t| t.elements.insert(0, night(30_000)).unwrap(), "");
    check(
        &|t| t.elements.insert(0, night(20_000)).unwrap(),
        "from 60000 to 20000 thousandths",
    );
    let by_minute = PriceElement::flat(Dimension::Time, 10);
    check(&|t| t.elements.push(by_minute).unwrap(), "from 0 to 10 thousandths");
}

#[test]
fn what_was_written_in_part_changes_nothing() {
    let all = [
        list(8, tokens(99)),
        list(8, tokens(50)),
        list_of_changes((7, &tokens(100)), 8, &tokens(99)),
        tariffs_of(2, &[(Kind::Charger, 1)]),
    ];
    for input in all {
        let site = site_with_users(3);
        let decision = site.gateway.decide(&site.now, &input);
        let (last, parts) = decision.events.split_last().unwrap();
        let mut cut = site.clone();
        for event in parts {
            cut.gateway.apply(&cut.now, event);
            cut.journal.push((cut.now, event.clone()));
            assert_eq!(
                cut.gateway.trust().list(),
                site.gateway.trust().list(),
                "before {last:?}"
            );
            assert_eq!(cut.gateway.trust().aside(), None);
        }
        cut.reboot(1_000);
        cut.put(&input);
        cut.check();
        let mut whole = site.clone();
        whole.reboot(1_000);
        whole.put(&input);
        assert!(
            cut.gateway == whole.gateway,
            "the second time it is as if there had been no first"
        );
    }
}

/// I1: whatever is not signed, or is signed and unsound, takes trust from nobody.
#[test]
fn no_unsound_input_shrinks_trust() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = move |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    let issuer = Issuer::from_seed(&[7; 32]);
    let (mut believed, mut aside, mut answered) = (0, 0, 0);
    for round in 0..40 {
        let mut site = site_with_users(20);
        let trusted = |site: &Site| {
            let good = |n: &u8| {
                site.gateway.trust().entry(&token(*n)).is_some_and(|e| e.valid)
                    && !site.gateway.trust().is_revoked(&token(*n))
                    && !site.gateway.trust().is_denied(&token(*n))
            };
            (0..100).filter(good).collect::<Vec<u8>>()
        };
        let all: Vec<u8> = (0..100).collect();
        for step in 0..60 {
            let revision = 8 + below(5);
            match below(6) {
                // A signed list with any bit of it changed.
                0 => {
                    let (mut envelope, mut chunks) =
                        proto::artifact::sign_list(&issuer, revision, 0, tokens(40)).unwrap();
                    let bytes = if below(2) == 0 { &mut envelope } else { &mut chunks[0] };
                    let at = below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << below(8);
                    let list = verify_list(
                        &envelope,
                        &chunks,
                        &site.gateway.trust().signers(ArtifactKind::List, &[issuer.key()]),
                    );
                    believed += usize::from(list.is_ok());
                }
                // Signed and unsound, or old.
                1 => {
                    let unsound = list(revision, tokens(below(94) as u8));
                    aside += site.put(&unsound).events.len();
                }
                2 => drop(site.put(&list(below(8), tokens(3)))),
                3 => {
                    let base = tokens(100 - below(3) as u8);
                    let onto = list_of_changes((7 + below(3), &base), 20, &base[..50]);
                    site.put(&onto);
                }
                // What a lying cloud says.
                4 => {
                    let code = [400, 401, 403, 404, 410, 429, 500, 503][below(8) as usize];
                    let ask = below(5);
                    site.put(&Input::Trouble { ask, code });
                }
                _ => {
                    let (_, question) = site.ask("c2", 200 + below(40) as u8);
                    if words(&question) == "ask" {
                        let lie = answer_to(&question, DENY);
                        let Input::Answer(mut lie) = lie else {
                            panic!("an answer")
                        };
                        lie.token = token(below(100) as u8);
                        site.put(&Input::Answer(lie));
                        answered += 1;
                    }
                }
            }
            assert_eq!(trusted(&site), all, "round {round}, step {step}");
        }
        site.check();
    }
    assert_eq!(believed, 0, "no changed bit is believed");
    println!("{aside} events about lists set aside, {answered} lies");
    assert!(aside > 300 && answered > 100);
}
