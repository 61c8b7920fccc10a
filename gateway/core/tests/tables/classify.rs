//! What each answer means: every verdict against everything that can be known of the token, and every code.

use gateway_core::health::{Class, Known, Reply, classify};
use proto::{link::Verdict, money::Money};

const NEVER_SEEN: Known = Known {
    good: false,
    credential_revision: 0,
    denied_revision: 0,
};
const GOOD: Known = Known {
    good: true,
    credential_revision: 5,
    ..NEVER_SEEN
};
/// Listed, and not valid there.
const BAD: Known = Known { good: false, ..GOOD };
/// Denied for good before, with credential 7.
const DENIED: Known = Known {
    denied_revision: 7,
    ..BAD
};

#[test]
fn an_authenticated_answer() {
    use Class::*;
    let knowns = [NEVER_SEEN, BAD, GOOD, DENIED];
    // (verdict, revision, money) -> class for a token never seen, a bad one, a good one, a denied one
    let table: &[(Verdict, u64, Option<i64>, [Class; 4])] = &[
        (Verdict::Accept, 0, Some(100), [Accept, Accept, Accept, Error]),
        (Verdict::Accept, 5, Some(100), [Accept, Accept, Accept, Error]),
        (Verdict::Accept, 6, Some(100), [Accept, Accept, Accept, Error]),
        (Verdict::Accept, 7, Some(100), [Accept, Accept, Accept, Accept]),
        // A zeroed balance is a negative that nothing backs; to a canary nothing is drawn.
        (
            Verdict::Accept,
            7,
            Some(0),
            [Accept, Accept, DenyUnattributable, Accept],
        ),
        (
            Verdict::Accept,
            7,
            Some(-1),
            [Accept, Accept, DenyUnattributable, Accept],
        ),
        (Verdict::Accept, 7, None, [Accept, Accept, Accept, Accept]),
        (
            Verdict::Deny,
            0,
            Some(0),
            [DenyUncontested, DenyUncontested, DenyUnattributable, DenyUncontested],
        ),
        (
            Verdict::Deny,
            4,
            Some(0),
            [DenyAttributable, DenyUncontested, DenyUnattributable, DenyUncontested],
        ),
        (
            Verdict::Deny,
            5,
            Some(0),
            [DenyAttributable, DenyUncontested, DenyUnattributable, DenyUncontested],
        ),
        (
            Verdict::Deny,
            6,
            None,
            [DenyAttributable, DenyAttributable, DenyAttributable, DenyAttributable],
        ),
        (Verdict::Other, 9, Some(100), [Error, Error, Error, Error]),
    ];
    for &(verdict, credential_revision, money, expected) in table {
        let reply = Reply::Answer {
            verdict,
            credential_revision,
            money_max: money.map(Money),
        };
        let classes = knowns.map(|known| classify(&reply, &known));
        assert_eq!(classes, expected, "{reply:?}");
    }
}

#[test]
fn whatever_nobody_signed() {
    for known in [NEVER_SEEN, BAD, GOOD, DENIED] {
        // Every code there is: no unsigned word is an accept, or a denial that may be followed.
        for code in 0..=u16::MAX {
            let expected = match code {
                401 | 402 | 403 | 404 | 410 => Class::DenyUnattributable,
                429 => Class::Throttled,
                _ => Class::Error,
            };
            assert_eq!(
                classify(&Reply::Trouble { code }, &known),
                expected,
                "{code}, {known:?}"
            );
        }
        for reply in [Reply::Elsewhere, Reply::Unreadable, Reply::Silence] {
            assert_eq!(classify(&reply, &known), Class::Error, "{reply:?}, {known:?}");
        }
    }
}
