//! Rules of the core, as tables.
#![allow(clippy::unwrap_used)]

mod support;

use hub::core::{
    Alarm, Catalogue, Effect, Hub, ImportRefusal, Input, Now, Order, OrderRefusal, QUARANTINE_PART_BYTES,
    QUARANTINE_ROWS_MAX, RECORD_AMOUNT_MAX, REVOCATION_WINDOW, RecordKey, RevocationSpec, Settling, TokenSpec,
};
use proto::{
    artifact::LIST_ENTRIES_MAX,
    book::Account,
    id::{Hash, Kind, Name, SessionId, TokenHash},
    link::{Ask, Echo, LedgerReceipt, RecordKind, UPLOAD_RECORDS_MAX, Verdict, Welcome},
    money::Money,
    trust::ArtifactKind,
};
use support::*;

fn ask_of(token: TokenHash, session: SessionId, amount: i64) -> Ask {
    Ask {
        ask: 5,
        session,
        token,
        kind: Kind::Charger,
        amount: Money(amount),
    }
}

#[test]
fn answers_follow_token_revocation_and_balance() {
    let changed = |change: fn(&mut TokenSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec
    };
    let mut hub = Hub::default();
    let tokens = [
        (token(1), spec()),
        (token(2), changed(|spec| spec.valid = false)),
        (token(3), changed(|spec| spec.not_after_s = NOW.wall_s - 1)),
        (token(4), changed(|spec| spec.not_after_s = NOW.wall_s)),
        (token(5), changed(|spec| spec.account = 8)),
        (token(6), spec()),
        (token(7), changed(|spec| spec.credential_revision = 40)),
    ];
    let mut wanted = catalogue(tokens);
    wanted.accounts.insert(8, Money(0));
    for revoked in [6, 7, 99] {
        let credential_revision = 0;
        wanted.revocations.insert(
            token(revoked),
            RevocationSpec {
                credential_revision,
                ..RevocationSpec::default()
            },
        );
    }
    hub.step(NOW, &SETTINGS, &Input::Import(wanted));

    let (accept, deny) = (Verdict::Accept, Verdict::Deny);
    let draw = session(1);
    let table = [
        ("covered", token(1), draw, 4000, accept, 1, 4000),
        ("a positive remainder", token(1), draw, 99_999, accept, 1, 10_000),
        ("nothing left", token(5), draw, 1, deny, 1, 0),
        ("nothing left, nothing asked", token(5), draw, 0, accept, 1, 0),
        ("a canary draws nothing", token(5), SessionId::ZERO, 4000, accept, 1, 0),
        ("not valid", token(2), draw, 1, deny, 1, 0),
        ("a canary that is not valid", token(2), SessionId::ZERO, 0, deny, 1, 0),
        ("too old by a second", token(3), draw, 1, deny, 1, 0),
        ("in its last second", token(4), draw, 1, accept, 1, 1),
        ("revoked: newer than the list", token(6), draw, 1, deny, 2, 0),
        ("revoked above its own count", token(7), draw, 1, deny, 41, 0),
        ("unknown", token(98), draw, 1, deny, 0, 0),
        ("unknown and revoked", token(99), draw, 1, deny, 1, 0),
    ];
    for (what, token, session, amount, verdict, revision, money_max) in table {
        let answer = hub.answer(NOW, &ask_of(token, session, amount));
        assert_eq!(
            (answer.ask, answer.session, answer.token),
            (5, session, token),
            "{what}"
        );
        assert_eq!(
            (answer.verdict, answer.credential_revision, answer.money_max),
            (verdict, revision, Money(money_max)),
            "{what}"
        );
    }
}

#[test]
fn a_session_may_spend_its_own_hold() {
    let mut hub = open_hub();
    hub.step(
        NOW,
        &SETTINGS,
        &upload(1, 1, [bytes(&record(1, RecordKind::Hold, 1, 9_000))]),
    );
    assert_eq!(hub.available(ACCOUNT), Money(1_000));
    assert_eq!(
        hub.answer(NOW, &ask_of(token(1), session(1), 9_500)).money_max,
        Money(9_500)
    );
    assert_eq!(
        hub.answer(NOW, &ask_of(token(1), session(2), 9_500)).money_max,
        Money(1_000)
    );
}

fn welcome_of(effects: &[Effect]) -> (Welcome, bool) {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Welcome { welcome, is_agreed, .. } => Some((welcome.clone(), *is_agreed)),
            _ => None,
        })
        .expect("a welcome")
}

#[test]
fn hello_negotiates_version_and_epoch() {
    let records: Vec<_> = (1..=3).map(|n| bytes(&record(n, RecordKind::Hold, n, 12))).collect();
    let hash = chain_of(&records);
    // (what, versions, epoch, head) -> (version, epoch, upto, agreed)
    let table = [
        ("as before", (1, 1), 5, 3, (1, 5, 3, true)),
        ("newer versions, too", (1, 9), 5, 10, (1, 5, 3, true)),
        ("only newer versions", (2, 9), 5, 3, (0, 5, 3, false)),
        ("only older versions", (0, 0), 5, 3, (0, 5, 3, false)),
        ("versions the wrong way round", (9, 1), 5, 3, (0, 5, 3, false)),
        ("an old epoch", (1, 1), 4, 3, (1, 5, 3, false)),
        ("a new epoch", (1, 1), 6, 0, (1, 6, 0, true)),
        ("a jump of epochs", (1, 1), u32::MAX, 0, (1, u32::MAX, 0, true)),
        ("forgot a record: a copy", (1, 1), 5, 2, (1, 6, 0, false)),
    ];
    for (what, (version_min, version_max), epoch, head, expected) in table {
        let mut hub = open_hub();
        hub.step(NOW, &SETTINGS, &greet(hello(5, 0), 2));
        hub.step(NOW, &SETTINGS, &upload(5, 1, records.clone()));
        let words = proto::link::LinkHello {
            version_min,
            version_max,
            ..hello(epoch, head)
        };
        let (welcome, agreed) = welcome_of(&hub.step(NOW, &SETTINGS, &greet(words.clone(), 3)).effects);
        assert_eq!(
            (welcome.version, welcome.epoch, welcome.upto, agreed),
            expected,
            "{what}"
        );
        assert_eq!(
            welcome.hash,
            if welcome.upto == 3 { hash } else { Hash::ZERO },
            "{what}"
        );
        assert_eq!(welcome.wall_s, NOW.wall_s, "{what}");
        let again = welcome_of(&hub.step(NOW, &SETTINGS, &greet(words, 4)).effects);
        assert_eq!(again, (welcome, agreed), "{what}: said twice, answered alike");
    }
}

#[test]
fn a_fenced_copy_commits_nothing_until_it_starts_a_new_epoch() {
    let mut hub = open_hub();
    let hold = |n| bytes(&record(n, RecordKind::Hold, n, 12));
    hub.step(NOW, &SETTINGS, &upload(1, 1, [hold(1), hold(2)]));
    hub.step(NOW, &SETTINGS, &greet(hello(1, 1), 2));
    let before = hub.clone();
    let fenced = hub.step(NOW, &SETTINGS, &upload(1, 2, [hold(2)]));
    assert_eq!((fenced.events.len(), &hub), (0, &before), "the old epoch is over");
    assert_eq!(welcome_of(&fenced.effects).0.epoch, 2);
    let (welcome, agreed) = welcome_of(&hub.step(NOW, &SETTINGS, &greet(hello(2, 0), 3)).effects);
    assert_eq!((welcome.upto, agreed), (0, true));
    // The copy still has session 1 open and tells of it again under its new epoch: known here, so not booked twice.
    let first = record(1, RecordKind::Capture, 1, 12);
    let second = record(2, RecordKind::Hold, 1, 12);
    hub.step(NOW, &SETTINGS, &upload(2, 1, [bytes(&first), bytes(&second)]));
    let (key, aside) = hub
        .conflicts()
        .asides()
        .first_key_value()
        .expect("the hold is told again");
    assert_eq!(
        (key.2, aside.exists),
        (2, true),
        "the same words under a new epoch: exists"
    );
    assert_eq!((hub.quarantine().len(), hub.gateways()[&gateway()].aside), (0, 1));
    assert_eq!(hub.book().balance(&Account::Customer(ACCOUNT)).debits_posted, Money(12));
    assert!(hub.book().is_balanced());
}

#[test]
fn a_gateway_gets_what_it_lacks_revocations_first() {
    let hub = open_hub();
    let lists = |list, revocations, tariffs| {
        let words = proto::link::LinkHello {
            list_revision: list,
            revocations_revision: revocations,
            tariffs_revision: tariffs,
            ..hello(1, 0)
        };
        hub.decide(NOW, &SETTINGS, &greet(words, 9)).effects
    };
    let sent = |effects: &[Effect]| -> Vec<(ArtifactKind, u64)> {
        let of = |effect: &Effect| match effect {
            Effect::Artifact { kind, revision, .. } => Some((*kind, *revision)),
            _ => None,
        };
        effects.iter().filter_map(of).collect()
    };
    assert_eq!(
        sent(&lists(0, 0, 0)),
        [(ArtifactKind::Tariffs, 1), (ArtifactKind::List, 1)]
    );
    assert_eq!(sent(&lists(1, 0, 0)), [(ArtifactKind::Tariffs, 1)]);
    assert_eq!(sent(&lists(1, 0, 1)), []);
    let ahead = lists(7, 0, 1);
    assert!(
        ahead.iter().any(|effect| matches!(
            effect,
            Effect::Alarm(Alarm::Ahead {
                found: 7,
                newest: 1,
                ..
            })
        )),
        "{ahead:?}"
    );
}

#[test]
fn windows_of_revocations_lose_nobody() {
    let mut hub = open_hub();
    let mut wanted = Catalogue::default();
    let many = REVOCATION_WINDOW * 3 + 7;
    for n in 0..many {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
        let credential_revision = 0;
        wanted.revocations.insert(
            TokenHash(id),
            RevocationSpec {
                credential_revision,
                ..RevocationSpec::default()
            },
        );
        // Imports of different sizes, so that windows overlap.
        if n % 150 == 0 || n > REVOCATION_WINDOW * 2 {
            hub.step(NOW, &SETTINGS, &Input::Import(wanted.clone()));
        }
    }
    let newest = hub.revocations_revision();
    assert!(newest > 3, "{newest} revisions");
    for known in [0, 1, 2, newest - 1, newest] {
        let words = proto::link::LinkHello {
            revocations_revision: known,
            list_revision: u64::MAX,
            tariffs_revision: u64::MAX,
            ..hello(1, 0)
        };
        let effects = hub.decide(NOW, &SETTINGS, &greet(words, 9)).effects;
        let mut held: Vec<_> = (1..=known)
            .filter_map(|r| hub.revocations(r))
            .flat_map(|r| r.entries)
            .collect();
        let mut last = known;
        for effect in effects {
            if let Effect::Artifact {
                kind: ArtifactKind::Revocations,
                revision,
                ..
            } = effect
            {
                assert!(revision > last, "in order: a gateway refuses an older one");
                last = revision;
                let artifact = hub.revocations(revision).unwrap();
                assert!(artifact.entries.len() <= REVOCATION_WINDOW);
                held.extend(artifact.entries);
            }
        }
        held.sort_by_key(|revoked| revoked.token);
        held.dedup();
        assert_eq!((held.len(), last), (many, newest), "from revision {known}");
    }
}

fn receipt_of(effects: &[Effect]) -> LedgerReceipt {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Receipt(_, receipt) => Some(receipt.clone()),
            _ => None,
        })
        .expect("a receipt")
}

#[test]
fn uploads_commit_the_contiguous_next_records_only() {
    let records: Vec<_> = (1..=6).map(|n| bytes(&record(n, RecordKind::Hold, n, 12))).collect();
    // (what, first, length) -> (upto, duplicates), after records 1 to 3 are committed
    let table = [
        ("the next", 4, 2, (5, 0)),
        ("all again", 1, 3, (3, 3)),
        ("some again, then new", 2, 4, (5, 2)),
        ("a gap", 5, 2, (3, 0)),
        ("far beyond", u64::MAX, 1, (3, 0)),
        ("nothing", 4, 0, (3, 0)),
        ("from zero", 0, 2, (3, 0)),
    ];
    for (what, first, len, (upto, duplicates)) in table {
        let mut hub = open_hub();
        hub.step(NOW, &SETTINGS, &upload(1, 1, records[..3].to_vec()));
        let from = (first.clamp(1, 6) - 1) as usize;
        let sent = records[from..(from + len).min(6)].to_vec();
        let effects = hub.step(NOW, &SETTINGS, &upload(1, first, sent)).effects;
        let receipt = receipt_of(&effects);
        assert_eq!((receipt.epoch, receipt.upto), (1, upto), "{what}");
        assert_eq!(receipt.hash, chain_of(&records[..upto as usize]), "{what}");
        let counted: u64 = effects
            .iter()
            .map(|effect| if let Effect::Duplicates(_, n) = effect { *n } else { 0 })
            .sum();
        assert_eq!(counted, duplicates, "{what}");
        assert_eq!(hub.book().holds().count() as u64, upto, "{what}");
    }
}

#[test]
fn poison_is_kept_aside_and_money_behind_it_goes_on() {
    let good = |n| bytes(&record(n, RecordKind::Hold, n, 12));
    let huge = vec![0xff; QUARANTINE_PART_BYTES * 3 + 5];
    let table: [(&str, Vec<u8>, &str); 8] = [
        ("no bytes", Vec::new(), "ends early"),
        ("garbage", vec![0xff; 40], "not a valid message"),
        ("a lot of garbage", huge, "not a valid message"),
        (
            "another number",
            bytes(&record(9, RecordKind::Hold, 2, 12)),
            "says that it is record 9",
        ),
        (
            "a second hold",
            bytes(&record(2, RecordKind::Hold, 1, 12)),
            "has a hold already",
        ),
        ("no hold", bytes(&record(2, RecordKind::Capture, 2, 12)), "has no hold"),
        (
            "more than the hold",
            bytes(&record(2, RecordKind::Capture, 1, 24)),
            "holds 0.12",
        ),
        (
            "below zero",
            bytes(&record(2, RecordKind::Hold, 2, -1)),
            "cannot be booked",
        ),
    ];
    for (what, poison, reason) in table {
        let mut kept = Kept::open();
        let sent = [good(1), poison.clone(), good(3)];
        let effects = kept.step(&upload(1, 1, sent.clone())).effects;
        let receipt = receipt_of(&effects);
        assert_eq!((receipt.upto, receipt.hash), (3, chain_of(&sent)), "{what}");
        let (at, row) = kept.hub.quarantine().first_key_value().expect(what);
        let (gateway, epoch, sequence) = (gateway(), 1, 2);
        assert_eq!(
            *at,
            RecordKey {
                gateway,
                epoch,
                sequence
            },
            "{what}"
        );
        assert_eq!(row.bytes, poison, "{what}: kept to the last byte");
        assert!(row.reason.contains(reason), "{what}: {}", row.reason);
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Alarm(Alarm::Quarantined { .. }))),
            "{what}"
        );
        let row = &kept.hub.gateways()[&gateway];
        assert_eq!((row.booked, row.quarantined), (2, 1), "{what}");
        assert_eq!(kept.hub.book().holds().count(), 2, "{what}");
        assert_eq!(replayed(&kept.events), kept.hub, "{what}");
        for event in &kept.events {
            assert!(hub::record::encode(event).len() <= journal::RECORD_BYTES_MAX, "{what}");
        }
    }
}

#[test]
fn the_counter_of_the_newest_hello_is_remembered() {
    let mut hub = open_hub();
    // Epoch and counter of a hello -> what the store remembers, for the next start of the hub.
    for (epoch, counter, expected) in [(1, 10, (1, 10)), (1, 7, (1, 10)), (1, 11, (1, 11)), (2, 3, (2, 3))] {
        hub.step(NOW, &SETTINGS, &greet(hello(epoch, 0), counter));
        let row = &hub.gateways()[&gateway()];
        assert_eq!((row.counter_epoch, row.counter), expected, "{epoch} {counter}");
    }
}

#[test]
fn a_broken_gateway_stops_its_own_books_only_until_the_operator_settles_some() {
    let mut kept = Kept::open();
    let other = Name::new("gw-2").unwrap();
    kept.step(&Input::Hello {
        gateway: other,
        counter: 1,
        hello: hello(1, 0),
    });
    let full = QUARANTINE_ROWS_MAX as u64;
    while kept.hub.gateways()[&gateway()].upto < full {
        let next = kept.hub.gateways()[&gateway()].upto + 1;
        let some = (full + 1 - next).min(UPLOAD_RECORDS_MAX as u64);
        kept.step(&upload(1, next, (0..some).map(|_| vec![0xff])));
    }
    let upto_of = |kept: &mut Kept, input: &Input| receipt_of(&kept.step(input).effects).upto;
    let good = |sequence| bytes(&record(sequence, RecordKind::Hold, sequence, 12));
    let of_other = Input::Upload {
        gateway: other,
        upload: proto::link::Upload {
            epoch: 1,
            first: 1,
            records: vec![vec![0xff].into(), bytes(&record(2, RecordKind::Hold, 2, 12)).into()],
        },
    };
    assert_eq!(
        upto_of(&mut kept, &of_other),
        2,
        "another gateway, its own bad record included"
    );
    let sent = [good(full + 1), vec![0xff], good(full + 3)];
    let more = upload(1, full + 1, sent.clone());
    assert_eq!(
        upto_of(&mut kept, &more),
        full + 1,
        "a good record goes on, the next bad one stops"
    );
    assert_eq!(kept.hub.quarantined(&gateway()), QUARANTINE_ROWS_MAX);

    let settle = |first, last, reason: &str| {
        Input::Order(Order::Settle(Settling {
            gateway: gateway(),
            epoch: 1,
            first,
            last,
            reason: reason.to_owned(),
        }))
    };
    let table = [
        ("no reason", settle(1, 2, ""), Err(OrderRefusal::Reason(0))),
        (
            "none there",
            settle(full + 1, full + 9, "seen"),
            Err(OrderRefusal::NotQuarantined(gateway())),
        ),
        ("two of them", settle(1, 2, "seen"), Ok(2)),
        (
            "settled before",
            settle(1, 2, "seen"),
            Err(OrderRefusal::NotQuarantined(gateway())),
        ),
    ];
    for (what, input, expected) in table {
        let said = kept.step(&input).effects.into_iter().find_map(|effect| match effect {
            Effect::Settled(_, rows) => Some(Ok(rows)),
            Effect::OrderRefused(refusal) => Some(Err(refusal)),
            _ => None,
        });
        assert_eq!(said, Some(expected), "{what}");
    }
    let effects = kept.step(&upload(1, full + 2, sent[1..].to_vec())).effects;
    assert_eq!(receipt_of(&effects).upto, full + 3, "it goes on by itself");
    let row = &kept.hub.gateways()[&gateway()];
    assert_eq!(
        (row.booked, row.quarantined),
        (2, full + 1),
        "what was settled is counted for good"
    );
    assert_eq!(replayed(&kept.events), kept.hub);
}

#[test]
fn amounts_beyond_the_book_are_quarantined_and_foreign_sessions_set_aside() {
    let mut hub = open_hub();
    let other = Name::new("gw-2").unwrap();
    hub.step(
        NOW,
        &SETTINGS,
        &Input::Hello {
            gateway: other,
            counter: 1,
            hello: hello(1, 0),
        },
    );
    let too_much = record(1, RecordKind::Hold, 1, RECORD_AMOUNT_MAX.0 + 1);
    hub.step(
        NOW,
        &SETTINGS,
        &upload(1, 1, [bytes(&too_much), bytes(&record(2, RecordKind::Hold, 2, 12))]),
    );
    assert_eq!(hub.quarantine().len(), 1);
    let foreign = Input::Upload {
        gateway: other,
        upload: proto::link::Upload {
            epoch: 1,
            first: 1,
            records: vec![bytes(&record(1, RecordKind::Capture, 2, 12)).into()],
        },
    };
    hub.step(NOW, &SETTINGS, &foreign);
    assert_eq!(hub.quarantine().len(), 1);
    let aside = hub
        .conflicts()
        .asides()
        .values()
        .next()
        .expect("the second claim is kept");
    assert_eq!((aside.charged, aside.exists), (Some(Money(12)), false));
    assert_eq!(hub.book().holds().count(), 1, "the hold of gw-1 stands");
}

#[test]
fn a_record_of_a_newer_kind_is_kept_in_order() {
    let mut hub = open_hub();
    hub.step(
        NOW,
        &SETTINGS,
        &upload(1, 1, [bytes(&record(1, RecordKind::Other, 1, 12))]),
    );
    let row = &hub.gateways()[&gateway()];
    assert_eq!((row.upto, row.booked, row.quarantined), (1, 1, 0));
    assert_eq!(hub.book().balances().count(), 0);
}

#[test]
fn a_charge_that_differs_is_disputed_and_booked_as_charged() {
    let hold = record(1, RecordKind::Hold, 1, 120);
    let capture = record(2, RecordKind::Capture, 1, 60);
    let mut unknown_tariff = capture.clone();
    unknown_tariff.tariff_hash = Hash([9; 32]);
    let mut above_hold = record(2, RecordKind::Capture, 1, 120);
    above_hold.bill = bill_of(240);
    let mut overcharged = capture.clone();
    overcharged.bill = bill_of(48);
    // (what, record) -> dispute (charged, computed)
    let table = [
        ("right", capture, None),
        ("capped by the hold", above_hold, None),
        ("overcharged", overcharged, Some((60, Some(48)))),
        ("tariff unknown", unknown_tariff, Some((60, None))),
    ];
    for (what, capture, expected) in table {
        let mut hub = open_hub();
        let effects = hub
            .step(NOW, &SETTINGS, &upload(1, 1, [bytes(&hold), bytes(&capture)]))
            .effects;
        let found = hub
            .disputes()
            .values()
            .next()
            .map(|row| (row.charged.0, row.computed.map(|money| money.0)));
        assert_eq!(found, expected, "{what}");
        let alarmed = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Alarm(Alarm::Disputed { .. })));
        assert_eq!(alarmed, expected.is_some(), "{what}");
        let posted = hub.book().balance(&Account::Customer(ACCOUNT)).debits_posted;
        assert_eq!(posted, capture.amount, "{what}: booked as charged");
    }
}

#[test]
fn every_change_of_a_token_is_a_new_revision() {
    let mut hub = open_hub();
    let revision = |hub: &Hub| hub.tokens()[&token(1)].credential_revision;
    let import = |hub: &mut Hub, change: fn(&mut TokenSpec), revoked: Option<u64>| {
        let mut spec = spec();
        change(&mut spec);
        let mut wanted = catalogue([(token(1), spec)]);
        if let Some(credential_revision) = revoked {
            wanted.revocations.insert(
                token(1),
                RevocationSpec {
                    credential_revision,
                    ..RevocationSpec::default()
                },
            );
        }
        hub.step(NOW, &SETTINGS, &Input::Import(wanted)).events.len()
    };
    assert_eq!(
        (import(&mut hub, |_| {}, None), revision(&hub)),
        (0, 1),
        "nothing changed, nothing happens"
    );
    import(&mut hub, |spec| spec.valid = false, None);
    assert_eq!(revision(&hub), 2);
    import(&mut hub, |_| {}, None);
    assert_eq!(revision(&hub), 3, "valid again");
    import(&mut hub, |_| {}, Some(0));
    assert_eq!((revision(&hub), hub.is_revoked(&token(1))), (4, true));
    assert_eq!(import(&mut hub, |_| {}, Some(0)), 0, "revoked once is revoked");
    import(&mut hub, |spec| spec.group = 3, None);
    assert!(
        hub.is_revoked(&token(1)),
        "neither a change nor a missing row revives it"
    );
    import(&mut hub, |spec| spec.credential_revision = 5, Some(0));
    assert!(!hub.is_revoked(&token(1)), "reissued");
    import(&mut hub, |spec| spec.credential_revision = 5, Some(5));
    assert_eq!(
        (revision(&hub), hub.is_revoked(&token(1))),
        (6, true),
        "and revoked again"
    );
}

#[test]
fn an_import_of_old_revocations_does_not_revoke_a_reissued_token() {
    let mut hub = Hub::default();
    let reissued = TokenSpec {
        credential_revision: 6,
        ..spec()
    };
    let mut wanted = catalogue([(token(1), reissued)]);
    let credential_revision = 5;
    wanted.revocations.insert(
        token(1),
        RevocationSpec {
            credential_revision,
            ..RevocationSpec::default()
        },
    );
    hub.step(NOW, &SETTINGS, &Input::Import(wanted.clone()));
    assert!(!hub.is_revoked(&token(1)));
    assert_eq!(hub.step(NOW, &SETTINGS, &Input::Import(wanted)).events, []);
}

#[test]
fn a_list_that_shrinks_by_accident_is_refused() {
    let all: Vec<_> = (1..=100).map(|n| (token(n), spec())).collect();
    // (what, tokens left, may shrink) -> refused
    let table = [
        ("ten gone: always", 90, false, None),
        ("eleven of a hundred", 89, false, Some(11)),
        ("all of them", 0, false, Some(100)),
        ("all of them, meant", 0, true, None),
    ];
    for (what, left, may_shrink, refused) in table {
        let mut hub = Hub::default();
        hub.step(NOW, &SETTINGS, &Input::Import(catalogue(all.clone())));
        let wanted = Catalogue {
            may_shrink,
            ..catalogue(all[..left].to_vec())
        };
        let before = hub.clone();
        let decision = hub.step(NOW, &SETTINGS, &Input::Import(wanted));
        let expected = refused.map(|gone| Effect::ImportRefused(ImportRefusal::Shrinks { gone, listed: 100 }));
        match expected {
            Some(refusal) => assert_eq!((decision.effects, &hub), (vec![refusal], &before), "{what}"),
            None => assert_eq!(hub.list().unwrap().entries.len(), left, "{what}"),
        }
    }
    let mut hub = Hub::default();
    hub.step(NOW, &SETTINGS, &Input::Import(catalogue(all)));
    let no_tokens_named = Catalogue::default();
    assert_eq!(hub.step(NOW, &SETTINGS, &Input::Import(no_tokens_named)).events, []);
}

#[test]
fn a_token_that_was_gone_comes_back_with_a_newer_revision() {
    let mut hub = open_hub();
    hub.step(NOW, &SETTINGS, &Input::Import(catalogue([(token(2), spec())])));
    let unknown = hub.answer(NOW, &ask_of(token(1), session(1), 1));
    assert_eq!(
        (unknown.verdict, unknown.credential_revision),
        (Verdict::Deny, 0),
        "no authority"
    );
    hub.step(NOW, &SETTINGS, &Input::Import(catalogue([(token(1), spec())])));
    let back = hub.answer(NOW, &ask_of(token(1), session(1), 1));
    assert_eq!((back.verdict, back.credential_revision), (Verdict::Accept, 2));
}

#[test]
fn lists_are_published_again_with_age_and_balances() {
    let mut hub = open_hub();
    assert_eq!(hub.list().unwrap().entries[0].balance, DEPOSIT);
    hub.step(
        NOW,
        &SETTINGS,
        &upload(1, 1, [bytes(&record(1, RecordKind::Hold, 1, 120))]),
    );
    let at = |after_s| Now {
        wall_s: NOW.wall_s + after_s,
    };
    assert_eq!(hub.step(at(3599), &SETTINGS, &Input::Tick).events, []);
    let effects = hub.step(at(3600), &SETTINGS, &Input::Tick).effects;
    let (kind, revision) = (ArtifactKind::List, 2);
    assert_eq!(
        effects,
        [Effect::Announce {
            kind,
            revision,
            base: 1
        }]
    );
    assert_eq!(hub.list().unwrap().entries[0].balance, Money(9_880));
    assert_eq!(hub.step(at(3601), &SETTINGS, &Input::Tick).events, []);
}

#[test]
fn an_echo_comes_back() {
    let (gateway, echo) = (gateway(), Echo { nonce: u64::MAX });
    let input = Input::Echo {
        gateway,
        echo: echo.clone(),
    };
    let hub = open_hub();
    assert_eq!(
        hub.decide(NOW, &SETTINGS, &input).effects,
        [Effect::Echo(gateway, echo)]
    );
}

#[test]
fn as_many_tokens_as_can_be_signed_and_not_one_more() {
    let many = |tokens: usize| {
        let hash = |n: usize| {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&(n as u64).to_be_bytes());
            TokenHash(id)
        };
        Input::Import(catalogue((0..tokens).map(|n| (hash(n), spec()))))
    };
    let mut hub = Hub::default();
    let refused = hub.step(NOW, &SETTINGS, &many(LIST_ENTRIES_MAX + 1));
    assert_eq!(
        refused.effects,
        [Effect::ImportRefused(ImportRefusal::Long(LIST_ENTRIES_MAX + 1))]
    );
    assert_eq!(hub, Hub::default());
    hub.step(NOW, &SETTINGS, &many(LIST_ENTRIES_MAX));
    let issuer = || proto::trust::Issuer::from_seed(&[1; 32]);
    let mut press = hub::artifacts::Press::new(issuer(), issuer());
    let parts = press
        .parts(&hub, ArtifactKind::List, 1, 0)
        .unwrap()
        .expect("it was published");
    assert_eq!(
        parts.len(),
        1 + LIST_ENTRIES_MAX.div_ceil(proto::artifact::CHUNK_ENTRIES)
    );
    let largest = parts.iter().map(|part| part.bytes.len()).max().unwrap();
    assert!(largest <= proto::link::PART_BYTES_MAX, "{largest}");
}
