//! Lists as changes, revocations wider than a token, and keys, from the operator's wish to what a gateway makes of it.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use hub::{
    artifacts::Press,
    core::{Catalogue, Content, Effect, Hub, Input, LIST_LEAST_S, Now, Order, TokenSpec},
};
use proto::{
    artifact::{
        LIST_REMOVED_MAX, ListEntry, Reason, Subject, check_trailer, list_with, verify_keys, verify_list,
        verify_revocations,
    },
    book::Account,
    id::{Kind, SessionId, TokenHash},
    link::{ArtifactPart, Ask, Verdict},
    money::Money,
    trust::{ArtifactKind, Issuer, IssuerKey, KeyId},
};
use support::*;

fn number(n: u32) -> TokenHash {
    let mut token = [9; 16];
    token[..4].copy_from_slice(&n.to_be_bytes());
    TokenHash(token)
}

fn import(kept: &mut Kept, tokens: &BTreeMap<TokenHash, TokenSpec>) {
    let mut wanted = catalogue(tokens.clone());
    wanted.may_shrink = true;
    kept.step(&Input::Import(wanted));
}

fn press() -> Press {
    let issuer = || Issuer::from_seed(&[1; 32]);
    Press::new(issuer(), issuer())
}

/// What a gateway with the list `base` makes of the parts.
fn received(parts: &[ArtifactPart], base: (u64, &[ListEntry])) -> (u64, Vec<ListEntry>) {
    let keys = [Issuer::from_seed(&[1; 32]).key()];
    let chunks: Vec<&[u8]> = parts[1..].iter().map(|part| part.bytes.as_slice()).collect();
    let list = verify_list(&parts[0].bytes, &chunks, &keys).unwrap();
    let manifest = list.manifest();
    let whole = match manifest.base {
        0 => list.entries().to_vec(),
        changed => {
            assert_eq!(changed, base.0, "changes to the list that the gateway has");
            list_with(base.1, list.entries(), &manifest.removed)
        }
    };
    assert_eq!(check_trailer(manifest, &whole), Ok(()));
    (manifest.base, whole)
}

/// Walks of random imports: from every list that was ever published a gateway comes to the newest one.
#[test]
fn from_every_known_list_the_changes_lead_to_the_newest() {
    let mut kept = Kept::default();
    let mut random = 0x9e37_79b9_u64;
    let mut below = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    let mut tokens: BTreeMap<TokenHash, TokenSpec> = (0..200).map(|n| (number(n), spec())).collect();
    let mut lists: Vec<(u64, Vec<ListEntry>)> = vec![(0, Vec::new())];
    let (mut as_changes, mut in_full) = (0, 0);
    for round in 0..60 {
        for _ in 0..below(12) {
            let token = number(below(260) as u32);
            match below(3) {
                0 => drop(tokens.remove(&token)),
                1 => drop(tokens.insert(token, spec())),
                _ => drop(tokens.insert(token, TokenSpec { valid: false, ..spec() })),
            }
        }
        import(&mut kept, &tokens);
        if round % 20 == 19 {
            kept.hub = restored(&kept.hub);
            assert_eq!(kept.hub, replayed(&kept.events), "a snapshot knows the steps, too");
        }
        let list = kept.hub.list().unwrap().clone();
        let mut press = press();
        for (base, before) in &lists {
            let parts = press
                .parts(&kept.hub, ArtifactKind::List, list.revision, *base)
                .unwrap()
                .unwrap();
            let again = self::press()
                .parts(&kept.hub, ArtifactKind::List, list.revision, *base)
                .unwrap();
            assert_eq!(again.as_ref(), Some(&parts), "the same content, the same bytes");
            let (was, whole) = received(&parts, (*base, before));
            assert_eq!(whole, list.entries);
            if was > 0 { as_changes += 1 } else { in_full += 1 }
        }
        lists.push((list.revision, list.entries));
        lists.dedup_by_key(|(revision, _)| *revision);
    }
    println!("{as_changes} as changes, {in_full} in full");
    assert!(as_changes > 500 && in_full > 100);
}

#[test]
fn when_the_whole_list_is_sent_after_all() {
    let check = |change: &dyn Fn(&mut BTreeMap<TokenHash, TokenSpec>), base: u64, as_changes: bool| {
        let mut kept = Kept::default();
        let mut tokens: BTreeMap<_, _> = (0..2_000).map(|n| (number(n), spec())).collect();
        import(&mut kept, &tokens);
        change(&mut tokens);
        import(&mut kept, &tokens);
        let content = kept.hub.artifact(ArtifactKind::List, 2, base).unwrap();
        assert_eq!(matches!(content, Content::ListChanges(_)), as_changes, "{base}");
    };
    let block = |count: u32| {
        move |tokens: &mut BTreeMap<TokenHash, TokenSpec>| {
            for n in 0..count {
                tokens.insert(number(n), TokenSpec { valid: false, ..spec() });
            }
        }
    };
    let remove = |count: u32| {
        move |tokens: &mut BTreeMap<TokenHash, TokenSpec>| tokens.retain(|token, _| *token >= number(count))
    };
    check(&block(1), 1, true);
    check(&block(1_000), 1, true);
    check(&block(1_001), 1, false);
    check(&remove(LIST_REMOVED_MAX as u32), 1, true);
    check(&remove(LIST_REMOVED_MAX as u32 + 1), 1, false);
    check(&block(1), 0, false);
    check(&block(1), 2, false);
    check(&block(1), 7, false);
}

#[test]
fn a_hello_gets_changes_to_the_list_it_names() {
    let mut kept = Kept::open();
    let wanted: BTreeMap<_, _> = (0..10).map(|n| (number(n), spec())).collect();
    import(&mut kept, &wanted);
    let bases = |list_revision| {
        let words = proto::link::LinkHello {
            list_revision,
            ..hello(1, 0)
        };
        let effects = kept.hub.decide(NOW, &SETTINGS, &greet(words, 9)).effects;
        let of_list = effects.into_iter().filter_map(|effect| match effect {
            Effect::Artifact {
                kind: ArtifactKind::List,
                base,
                ..
            } => Some(base),
            _ => None,
        });
        of_list.collect::<Vec<_>>()
    };
    assert_eq!(bases(0), [0]);
    assert_eq!(bases(1), [1]);
    assert_eq!(bases(2), [0; 0]);
}

#[test]
fn accounts_devices_and_keys_are_revoked_for_good() {
    let mut kept = Kept::open();
    let device = proto::id::Name::new("w-1").unwrap();
    let key = KeyId([4; 8]);
    let scopes = BTreeMap::from([
        (Subject::Account(ACCOUNT), Reason::Fraud),
        (Subject::Device(device), Reason::Stolen),
        (Subject::Key(key), Reason::Compromised),
    ]);
    let wanted = Catalogue {
        scopes: scopes.clone(),
        ..Catalogue::default()
    };
    kept.step(&Input::Import(wanted.clone()));
    let revision = kept.hub.revocations_revision();
    let again = kept.step(&Input::Import(wanted));
    assert_eq!(again.events, [], "once is enough");
    let published = kept.hub.revocations(revision).unwrap();
    let subjects: Vec<_> = published
        .scopes
        .iter()
        .map(|scope| (scope.read().unwrap(), scope.reason))
        .collect();
    assert_eq!(subjects, scopes.into_iter().collect::<Vec<_>>());
    // The account's tokens are not valid any more, here and in the list.
    assert!(kept.hub.is_revoked(&token(1)));
    assert!(!kept.hub.list().unwrap().entries[0].valid);
    let ask = Ask {
        ask: 1,
        session: session(1),
        token: token(1),
        kind: proto::id::Kind::Charger,
        amount: Money(100),
    };
    assert_eq!(kept.hub.answer(NOW, &ask).verdict, Verdict::Deny);
    assert_eq!(kept.hub, replayed(&kept.events));
    assert_eq!(kept.hub, restored(&kept.hub));
}

#[test]
fn the_key_that_signs_is_published_when_gateways_cannot_know_it() {
    let issuer = |seed| Issuer::from_seed(&[seed; 32]);
    let keys = |signing: u8| Input::Keys {
        signing: issuer(signing).key().into(),
        root: issuer(1).key().into(),
    };
    let mut kept = Kept::open();
    assert_eq!(kept.step(&keys(1)).events, [], "the root is pinned");
    let mut trusted: Vec<IssuerKey> = vec![issuer(1).key()];
    for (signing, epoch) in [(2, 1), (2, 1), (3, 2), (1, 3)] {
        kept.step(&keys(signing));
        assert_eq!(kept.hub.keys().map(|set| set.epoch), Some(epoch));
        let mut press = Press::new(issuer(signing), issuer(1));
        let all = press.everything(&kept.hub).unwrap();
        assert_eq!(all[0].kind, ArtifactKind::Keys, "first, because it signs the rest");
        let set = verify_keys(&all[0].bytes, &[issuer(1).key()]).unwrap();
        trusted = set
            .keys
            .iter()
            .map(|key| IssuerKey::from_bytes(&key.0).unwrap())
            .collect();
        assert_eq!(trusted, [issuer(signing).key()]);
        for part in &all[1..] {
            let believed = match part.kind {
                ArtifactKind::Revocations => verify_revocations(&part.bytes, &trusted).is_ok(),
                ArtifactKind::List if part.part == 0 => {
                    let chunks: Vec<&[u8]> = all
                        .iter()
                        .filter(|p| p.kind == part.kind && p.part > 0)
                        .map(|p| p.bytes.as_slice())
                        .collect();
                    verify_list(&part.bytes, &chunks, &trusted).is_ok()
                }
                _ => true,
            };
            assert!(believed, "{part:?}");
        }
        let hello = kept.hub.decide(NOW, &SETTINGS, &greet(hello(1, 0), 9));
        let first = hello.effects.iter().find_map(|effect| match effect {
            Effect::Artifact { kind, revision, .. } => Some((*kind, *revision)),
            _ => None,
        });
        assert_eq!(first, Some((ArtifactKind::Keys, epoch)));
    }
    assert_eq!(trusted.len(), 1);
    let whole: &Hub = &kept.hub;
    assert_eq!(*whole, replayed(&kept.events));
    assert_eq!(*whole, restored(whole));
}

/// Balances move with every lease and every debt; a list for each of them would be one a second.
#[test]
fn what_moves_by_itself_is_published_every_five_minutes() {
    let mut hub = open_hub();
    let at = |s: u64| Now { wall_s: NOW.wall_s + s };
    let publishes = |decision: hub::core::Decision| {
        let list = |effect: &&Effect| {
            matches!(
                effect,
                Effect::Announce {
                    kind: ArtifactKind::List,
                    ..
                }
            )
        };
        decision.effects.iter().filter(list).count()
    };
    let gift = || {
        Input::Order(Order::Move {
            debit: Account::Revenue(Kind::Charger),
            credit: Account::Customer(ACCOUNT),
            amount: Money(1),
            session: SessionId::ZERO,
            reason: "a test".to_owned(),
        })
    };
    hub.step(at(1), &SETTINGS, &gift());
    for s in 1..LIST_LEAST_S {
        assert_eq!(publishes(hub.step(at(s), &SETTINGS, &Input::Tick)), 0, "after {s} s");
    }
    assert_eq!(publishes(hub.step(at(LIST_LEAST_S), &SETTINGS, &Input::Tick)), 1);
    assert_eq!(publishes(hub.step(at(LIST_LEAST_S + 1), &SETTINGS, &Input::Tick)), 0);
    // What the operator imports does not wait.
    let wanted = catalogue([(token(1), spec()), (token(2), spec())]);
    assert_eq!(
        publishes(hub.step(at(LIST_LEAST_S + 2), &SETTINGS, &Input::Import(wanted))),
        1
    );
    // A clock that is set back does not stop it.
    hub.step(at(0), &SETTINGS, &gift());
    assert_eq!(publishes(hub.step(at(0), &SETTINGS, &Input::Tick)), 1);
}
