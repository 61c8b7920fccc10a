//! Who may sign, and what is revoked beyond a token.

use crate::site::*;
use gateway_core::{Input, Said, Trust};
use proto::{
    artifact::{
        IssuerKeys, PublicKey, Reason, Revocations, RevokedScope, Subject, sign, verify_keys, verify_revocations,
    },
    trust::{ArtifactKind, Issuer, IssuerKey, KeyId},
};

fn issuer(seed: u8) -> Issuer {
    Issuer::from_seed(&[seed; 32])
}

fn keys(epoch: u64, seeds: &[u8]) -> Input {
    let keys = seeds.iter().map(|&seed| PublicKey::from(issuer(seed).key())).collect();
    Input::Keys(IssuerKeys { epoch, keys })
}

fn revoke(revision: u64, subject: Subject) -> Input {
    Input::Revocations(Revocations {
        revision,
        entries: vec![],
        scopes: vec![RevokedScope::new(subject, Reason::Compromised)],
    })
}

fn key_id(seed: u8) -> KeyId {
    KeyId(issuer(seed).key().id())
}

/// Which of the issuers 1 to 5 may sign a kind of artifact, when 1 is the root: asked with real signatures.
fn signers(trust: &Trust, kind: ArtifactKind) -> Vec<u8> {
    let roots: [IssuerKey; 1] = [issuer(1).key()];
    let may = |&seed: &u8| {
        let set = IssuerKeys {
            epoch: 99,
            keys: vec![issuer(5).key().into()],
        };
        let revocations = Revocations {
            revision: 99,
            ..Revocations::default()
        };
        let allowed = trust.signers(kind, &roots);
        match kind {
            ArtifactKind::Keys => verify_keys(&sign(&issuer(seed), kind, &set).unwrap(), &allowed).is_ok(),
            _ => verify_revocations(&sign(&issuer(seed), kind, &revocations).unwrap(), &allowed).is_ok(),
        }
    };
    (1..=5).filter(may).collect()
}

#[test]
fn rotation_retirement_and_revocation_of_keys() {
    let mut site = Site::new();
    let check = |site: &Site, others: &[u8], of_keys: &[u8], what: &str| {
        let trust = site.gateway.trust();
        assert_eq!(signers(trust, ArtifactKind::Revocations), others, "{what}");
        assert_eq!(signers(trust, ArtifactKind::Keys), of_keys, "{what}: sets of keys");
        site.check();
    };
    check(&site, &[1], &[1], "the root signs everything");
    site.put(&keys(1, &[1, 2]));
    check(&site, &[1, 2], &[1, 2], "a second key");
    site.put(&keys(2, &[2]));
    check(&site, &[2], &[1, 2], "the root is retired, and remains the anchor");
    let stale = "ignored: keys revision 2 is not newer than the active 2";
    assert_eq!(words(&site.put(&keys(2, &[3]))), stale);
    assert_eq!(
        words(&site.put(&keys(1, &[1, 2]))),
        "ignored: keys revision 1 is not newer than the active 2"
    );
    check(&site, &[2], &[1, 2], "the epoch only grows");
    site.put(&keys(7, &[3, 4]));
    check(&site, &[3, 4], &[1, 3, 4], "2 is retired");
    site.put(&revoke(1, Subject::Key(key_id(4))));
    check(&site, &[3], &[1, 3], "4 is revoked");
    site.put(&keys(8, &[4, 3]));
    check(&site, &[3], &[1, 3], "no set brings a revoked key back");
    site.put(&revoke(2, Subject::Key(key_id(3))));
    check(&site, &[], &[1], "only the anchor is left");
    site.reboot(1_000);
    site.put(&keys(9, &[5]));
    check(&site, &[5], &[1, 5], "and it signs the next set");
    site.put(&revoke(3, Subject::Key(key_id(1))));
    check(&site, &[5], &[5], "a root can be revoked, too");
}

#[test]
fn a_revoked_account_takes_all_its_tokens_with_it() {
    let mut site = Site::new();
    site.put(&revoke(1, Subject::Account(2)));
    assert_eq!(words(&site.ask("c1", 2).1), "refuse revoked 0");
    assert!(words(&site.ask("c1", 1).1).starts_with("grant list"));
    // A token that only the cloud knows: its account is known with the answer.
    site.put(&revoke(2, Subject::Account(9)));
    let (_, question) = site.ask("c2", 9);
    assert_eq!(words(&site.answer(&question, ACCEPT)), "refuse revoked 0");
    assert_eq!(words(&site.ask("c2", 9).1), "refuse revoked 0", "and from then on");
    // Neither a new list nor a new credential forgives it.
    let mut entries: Vec<_> = (1..=4).map(|n| entry(n, proto::artifact::Whitelist::Always)).collect();
    entries[1].credential_revision = 99;
    site.put(&list(2, entries));
    site.reboot(1_000);
    assert_eq!(words(&site.ask("c1", 2).1), "refuse revoked 0");
    site.check();
}

#[test]
fn at_a_revoked_device_nobody_begins_and_everybody_may_stop() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    site.put(&revoke(1, Subject::Device(id("c1"))));
    assert_eq!(
        words(&site.say("c1", Said::Stop(stop(session, 0, 1_000, 60)))),
        "receipt captured 60 1000"
    );
    assert_eq!(words(&site.ask("c1", 1).1), "refuse revoked 0");
    assert!(words(&site.ask("c2", 1).1).starts_with("grant list"));
    site.check();
}

/// A scope that this version does not know is kept out, and the rest of the set counts.
#[test]
fn an_unknown_scope_revokes_nothing() {
    let mut site = Site::new();
    let strange = RevokedScope {
        scope: proto::artifact::Scope::Other,
        subject: vec![1].into(),
        reason: Reason::Other,
    };
    let Input::Revocations(mut set) = revoke(4, Subject::Account(2)) else {
        panic!("a set")
    };
    set.scopes.insert(0, strange);
    site.put(&Input::Revocations(set));
    assert_eq!(site.gateway.trust().revisions().1, 4);
    assert!(site.gateway.trust().is_account_revoked(2));
    site.check();
}
