//! Leases: taken over once, spent to the last fen and not beyond, given back, and worth nothing in another epoch.

use gateway_core::{Event, Ignored, Input};
use proto::{
    artifact::{Lease, Leases, Whitelist},
    book::Account,
    id::{SessionId, TokenHash},
    link::{Answer, RecordKind, Verdict},
    money::Money,
};

use crate::site::{Reply, Site, authorize, entry, id, list, stop, words};

const STRICT: u8 = 20;
const ACCOUNT: u64 = STRICT as u64;
const DAY_S: u64 = 86_400;

fn lease(epoch: u64, amount: i64, site: &Site) -> Lease {
    Lease {
        account: ACCOUNT,
        epoch,
        amount: Money(amount),
        not_after_s: site.now.wall_s + DAY_S,
    }
}

fn leases(revision: u64, entries: Vec<Lease>) -> Leases {
    Leases {
        revision,
        gateway: id("gw-1"),
        journal_epoch: 1,
        entries,
    }
}

/// A site whose list has one account that is never served on credit.
fn strict(whitelist: Whitelist) -> Site {
    let mut site = Site::new();
    let mut strict = entry(STRICT, whitelist);
    strict.lease_only = true;
    let mut entries: Vec<_> = (1..=4).map(|n| entry(n, Whitelist::Allowed)).collect();
    entries.push(strict);
    site.put(&list(50, entries));
    site
}

fn left(site: &Site) -> i64 {
    site.gateway.leases().rows().map(|(_, _, row)| row.left().0).sum()
}

#[test]
fn without_a_lease_nothing_is_granted_on_credit() {
    for whitelist in [Whitelist::Always, Whitelist::Allowed, Whitelist::AllowedOffline] {
        let mut site = strict(whitelist);
        site.go_local();
        let (_, decision) = site.ask("c1", STRICT);
        assert_eq!(words(&decision), "refuse no_credit 300", "{whitelist:?}");
    }
}

#[test]
fn a_lease_is_spent_to_the_last_fen_and_not_beyond() {
    let mut site = strict(Whitelist::Allowed);
    let given = leases(1, vec![lease(7, 500, &site)]);
    let decision = site.put(&Input::Leases(given.clone()));
    assert_eq!(decision.events.iter().filter_map(Event::record).count(), 1);
    assert_eq!(
        site.put(&Input::Leases(given))
            .ignored
            .map(|i| matches!(i, Ignored::Stale(_))),
        Some(true)
    );
    site.go_local();
    let (first, decision) = site.ask("c1", STRICT);
    assert_eq!(words(&decision), "grant lease 300 3000");
    assert_eq!((left(&site), site.gateway.risk().exposure()), (200, Money::ZERO));
    site.say("c1", gateway_core::Said::Stop(stop(first, 1_000, 3_500, 60)));
    let charged = 500 - left(&site);
    assert!(charged > 0 && charged <= 300, "{charged}");
    let (_, decision) = site.ask("c1", STRICT);
    assert!(words(&decision).starts_with("grant lease"), "{}", words(&decision));
    let (_, decision) = site.ask("w1", STRICT);
    assert!(!words(&decision).starts_with("grant list"), "{}", words(&decision));
    assert!(left(&site) >= 0);
    let sums = site.gateway.book().balance(&Account::Lease(ACCOUNT, 7));
    assert_eq!(sums.credits_posted, Money(500));
    assert!(sums.debits_posted.0 + sums.debits_pending.0 <= 500);
    site.check();
}

#[test]
fn an_answer_brings_the_lease_that_pays() {
    let mut site = strict(Whitelist::Allowed);
    let (_, asked) = site.ask("c1", STRICT);
    assert_eq!(
        words(&asked),
        "ask",
        "a token without a lease asks, whatever its policy"
    );
    let reply = Reply {
        verdict: Verdict::Accept,
        credential_revision: 1,
        money_max: Money(300),
    };
    let Input::Answer(mut answer) = crate::site::answer_to(&asked, reply) else {
        unreachable!("it makes answers");
    };
    answer.lease = lease(9, 300, &site);
    let decision = site.put(&Input::Answer(answer.clone()));
    assert_eq!(words(&decision), "grant lease 300 3000");
    assert_eq!(left(&site), 0);
    // The same lease again, as an artifact: nothing is taken twice.
    let again = site.put(&Input::Leases(leases(1, vec![answer.lease])));
    assert_eq!(again.events.iter().filter_map(Event::record).count(), 0);
    site.check();
}

#[test]
fn what_is_left_goes_back_when_recalled_or_over() {
    let mut site = strict(Whitelist::Allowed);
    let (one, other) = (lease(1, 400, &site), lease(2, 250, &site));
    site.put(&Input::Leases(leases(1, vec![one, other])));
    site.go_local();
    site.open("c1", STRICT);
    assert_eq!(left(&site), 350);
    let recall = Lease {
        amount: Money::ZERO,
        ..one
    };
    let decision = site.put(&Input::Leases(leases(2, vec![recall])));
    let returned: Vec<(RecordKind, i64)> = decision
        .events
        .iter()
        .filter_map(|event| event.record().map(|record| (record.kind, record.amount.0)))
        .collect();
    assert_eq!(returned, [(RecordKind::LeaseReturn, 100)], "300 of it are held");
    site.pass(DAY_S * 1_000);
    site.put(&Input::Tick);
    while site.put(&Input::Tick).ignored.is_none() {}
    assert_eq!(left(&site), 0, "the other is over");
    site.check();
}

#[test]
fn a_journal_that_was_put_back_spends_nothing_of_the_old_leases() {
    let mut site = strict(Whitelist::Allowed);
    let given = lease(1, 400, &site);
    site.put(&Input::Leases(leases(1, vec![given])));
    site.put(&Input::Boot { boot: 9, epoch: 2 });
    site.go_local();
    let (_, decision) = site.ask("c1", STRICT);
    assert_eq!(words(&decision), "refuse no_credit 300");
    let other = leases(2, vec![lease(2, 400, &site)]);
    site.put(&Input::Leases(other));
    let (_, decision) = site.ask("c2", STRICT);
    assert_eq!(
        words(&decision),
        "refuse no_credit 300",
        "it was given to the old epoch"
    );
}

/// An answer with a lease comes: to its question, late, to nobody, and recorded to another boot or epoch.
#[test]
fn only_an_answer_to_a_question_of_this_boot_brings_a_lease() {
    let taken = |boot: Option<(u32, u32)>, asks_again: bool, change: fn(&mut Answer)| {
        let mut site = strict(Whitelist::Allowed);
        site.put(&Input::Boot { boot: 8, epoch: 1 });
        let (session, asked) = site.ask("c1", STRICT);
        let reply = Reply {
            verdict: Verdict::Accept,
            credential_revision: 1,
            money_max: Money(300),
        };
        let Input::Answer(mut answer) = crate::site::answer_to(&asked, reply) else {
            unreachable!("it makes answers");
        };
        answer.lease = lease(9, 300, &site);
        change(&mut answer);
        site.pass(3_000);
        if boot.is_none() {
            while site.put(&Input::Tick).ignored.is_none() {}
        }
        if let Some((boot, epoch)) = boot {
            site.put(&Input::Boot { boot, epoch });
        }
        if asks_again {
            let again = site.say("c1", authorize(session, 0, STRICT, 1_000));
            assert_eq!(words(&again), "ask");
        }
        site.put(&Input::Answer(answer));
        site.gateway.leases().rows().count()
    };
    let as_it_was: fn(&mut Answer) = |_| {};
    let table = [
        ("late", None, false, as_it_was, 1),
        (
            "late, about another token",
            None,
            false,
            |answer| answer.token = TokenHash([77; 16]),
            0,
        ),
        (
            "late, about no session",
            None,
            false,
            |answer| answer.session = SessionId([7; 16]),
            0,
        ),
        ("recorded in the boot before", Some((9, 1)), false, as_it_was, 0),
        ("recorded, and the device asks again", Some((9, 1)), true, as_it_was, 0),
        (
            "recorded before the journal was put back",
            Some((8, 2)),
            false,
            as_it_was,
            0,
        ),
        ("put back, and the device asks again", Some((8, 2)), true, as_it_was, 0),
    ];
    for (what, boot, asks_again, change, expected) in table {
        assert_eq!(taken(boot, asks_again, change), expected, "{what}");
    }
}

#[test]
fn leases_of_another_gateway_are_not_taken() {
    let mut site = strict(Whitelist::Allowed);
    let mut foreign = leases(1, vec![lease(1, 400, &site)]);
    foreign.gateway = id("gw-2");
    let decision = site.put(&Input::Leases(foreign));
    assert_eq!(decision.ignored, Some(Ignored::OtherGateway(id("gw-2"))));
    assert_eq!(left(&site), 0);
}
