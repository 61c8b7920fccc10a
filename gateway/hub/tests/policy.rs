//! Limits that the operator wants: imported, published under their own revision, kept, sent, and signed so that a gateway
//! takes them.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod support;

use hub::{
    artifacts::Press,
    core::{Alarm, Catalogue, Effect, ImportRefusal, Input},
    seed,
};
use proto::{
    artifact,
    id::TokenKey,
    policy::{Class, Policy, PolicyError, UnsignedDisable},
    trust::{ArtifactKind, Issuer},
};
use support::*;

const SEED: &str = r#"
[policy]
site_budget = 200000
list_full_s = 259200
list_half_s = 604800
confirmation_s = 259200
attempts_a_minute_max = 10
starts_an_hour_max = 30
master_group = 9

[[policy.classes]]
class = "dispenser"
units_max = 5000
money_max = 200
duration_max_s = 600
outage_count_lower = 6
outage_count_upper = 10
outage_money_max = 1000
emergency_units = 2000
invalidation_units = 100

[[policy.free_vend]]
class = "car"
from_s = 1000
until_s = 2000
units_max = 500
"#;

fn load(text: &str) -> Result<Catalogue, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.toml");
    std::fs::write(&path, text).unwrap();
    seed::load(&path, &TokenKey([1; 32])).map_err(|error| error.to_string())
}

fn wanted() -> Policy {
    load(SEED).unwrap().policy.unwrap()
}

fn import(kept: &mut Kept, policy: Option<Policy>) -> Vec<Effect> {
    let catalogue = Catalogue {
        policy,
        ..Catalogue::default()
    };
    kept.step(&Input::Import(catalogue)).effects
}

#[test]
fn a_seed_file_says_every_limit() {
    let policy = wanted();
    assert_eq!(policy.check(), Ok(()));
    assert_eq!(
        (policy.revision, policy.master_group, policy.site_budget.0),
        (0, 9, 200_000)
    );
    assert_eq!(
        (policy.classes[0].class, policy.free_vend[0].class),
        (Class::Dispenser, Class::Car)
    );
    for (from, to, words) in [
        ("site_budget = 200000\n", "", "missing field `site_budget`"),
        (
            "class = \"dispenser\"",
            "class = \"toaster\"",
            "policy: classes[0]: \"toaster\"",
        ),
        ("class = \"car\"", "class = \"tram\"", "policy: free_vend[0]: \"tram\""),
        (
            "money_max = 200",
            "money_max = 0",
            "policy: classes[0].money_max is out of its range",
        ),
        ("lower = 6", "lower = 11", "policy: classes[0].outage_count_lower"),
        ("until_s = 2000", "until_s = 1000", "policy: free_vend[0]"),
        ("master_group", "master_key", "unknown field `master_key`"),
        (
            "master_group = 9",
            "unsigned_disable = \"never\"",
            "policy: unsigned_disable: \"never\"",
        ),
        (
            "master_group = 9",
            "unsigned_disable = \"suspend_after\"",
            "policy: unsigned_disable_s: suspend_after needs",
        ),
        (
            "master_group = 9",
            "unsigned_disable_s = 60",
            "policy: unsigned_disable_s: 60 s",
        ),
    ] {
        assert!(SEED.contains(from), "{from}");
        let error = load(&SEED.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_an_unsigned_denial_may_do_is_the_operators_word() {
    let check = |lines: &str, expected: (UnsignedDisable, u64)| {
        let policy = load(&SEED.replacen("master_group = 9", lines, 1))
            .unwrap()
            .policy
            .unwrap();
        assert_eq!(
            (policy.unsigned_disable, policy.unsigned_disable_s),
            expected,
            "{lines}"
        );
    };
    check("", (UnsignedDisable::Alert, 0));
    check("unsigned_disable = \"alert\"", (UnsignedDisable::Alert, 0));
    check("unsigned_disable = \"immediate\"", (UnsignedDisable::Immediate, 0));
    check(
        "unsigned_disable = \"suspend_after\"\nunsigned_disable_s = 900",
        (UnsignedDisable::SuspendAfter, 900),
    );
}

#[test]
fn limits_are_published_once_they_change() {
    let mut kept = Kept::open();
    let announced = |effects: &[Effect]| {
        effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Announce {
                    kind: ArtifactKind::Policy,
                    ..
                }
            )
        })
    };
    let revision = |kept: &Kept| kept.hub.policy().map_or(0, |policy| policy.revision);
    let other = Policy {
        master_group: 0,
        ..wanted()
    };
    for (policy, expected) in [
        (None, 0),
        (Some(wanted()), 1),
        (Some(wanted()), 1),
        // A file that says nothing about limits leaves them.
        (None, 1),
        (Some(other.clone()), 2),
        (
            Some(Policy {
                revision: 77,
                issued_s: 5,
                ..other
            }),
            2,
        ),
        (Some(wanted()), 3),
    ] {
        let before = revision(&kept);
        let effects = import(&mut kept, policy);
        assert_eq!(revision(&kept), expected);
        assert_eq!(announced(&effects), before != expected, "{effects:?}");
    }
    assert_eq!(kept.hub.policy().unwrap().issued_s, NOW.wall_s);
    assert!(replayed(&kept.events) == kept.hub, "from its events");
    assert!(restored(&kept.hub) == kept.hub, "from a snapshot");
}

#[test]
fn limits_that_contradict_themselves_change_nothing() {
    let mut kept = Kept::open();
    let wrong = Policy {
        list_half_s: 1,
        ..wanted()
    };
    let effects = import(&mut kept, Some(wrong));
    let refusal = ImportRefusal::Policy(PolicyError::Site("list_half_s"));
    assert_eq!(effects, [Effect::ImportRefused(refusal)]);
    assert_eq!(kept.hub.policy(), None);
}

#[test]
fn a_gateway_gets_limits_that_it_lacks_and_can_verify_them() {
    let mut kept = Kept::open();
    import(&mut kept, Some(wanted()));
    let told = |policy_revision| {
        let hello = proto::link::LinkHello {
            list_revision: 1,
            tariffs_revision: 1,
            policy_revision,
            ..hello(1, 0)
        };
        kept.hub.decide(NOW, &SETTINGS, &greet(hello, 9)).effects
    };
    let sent = |effects: &[Effect]| {
        effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Artifact {
                    kind: ArtifactKind::Policy,
                    revision: 1,
                    ..
                }
            )
        })
    };
    assert!(sent(&told(0)));
    assert!(!sent(&told(1)));
    let ahead = told(2);
    let alarm = |effect: &Effect| {
        let Effect::Alarm(Alarm::Ahead {
            kind, found, newest, ..
        }) = effect
        else {
            return false;
        };
        (*kind, *found, *newest) == (ArtifactKind::Policy, 2, 1)
    };
    assert!(ahead.iter().any(alarm), "{ahead:?}");
    let issuer = Issuer::from_seed(&[7; 32]);
    let key = issuer.key();
    let mut press = Press::new(issuer, Issuer::from_seed(&[8; 32]));
    let parts = press.parts(&kept.hub, ArtifactKind::Policy, 1, 0).unwrap().unwrap();
    let opened = artifact::verify_policy(&parts[0].bytes, &[key]).unwrap();
    assert_eq!(Some(&opened), kept.hub.policy());
    assert_eq!(
        (parts.len(), press.parts(&kept.hub, ArtifactKind::Policy, 2, 0)),
        (1, Ok(None))
    );
}
