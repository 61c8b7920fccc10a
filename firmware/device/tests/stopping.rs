//! Who may end a session at the device, with no gateway to ask; and the lower limit of a token that was revoked.
#![allow(clippy::unwrap_used)]

mod bench;

use bench::{Bench, config, grant, token};
use device::Config;
use proto::{
    id::{Kind, TokenKey},
    message::{Command, CommandOutcome, OutletState, StopReason, Verb},
    money::Units,
    topic::Down,
};

const SITE: TokenKey = TokenKey([4; 32]);
const OWN: u8 = 1;
const FAMILY: u8 = 2;
const MASTER: u8 = 3;
const STRANGER: u8 = 4;

/// A session of token 1 whose grant names the tokens 2 and 3. `site_key`: whether the device can tell whose they are.
fn named(kind: Kind, site_key: Option<TokenKey>) -> (Bench, proto::id::SessionId) {
    let mut b = Bench::with(Config {
        site_key,
        ..config(kind)
    });
    b.present(0, OWN);
    let session = b.device.session(0).unwrap();
    let mut grant = grant(kind, session);
    grant.stop_tokens = [FAMILY, MASTER].map(|n| token(n).hash(&SITE)).into_iter().collect();
    b.tell(Down::Grant, &grant);
    (b, session)
}

#[test]
fn own_token_group_and_masters_stop_with_no_gateway() {
    for kind in Kind::SERVED {
        for (n, site_key, stops) in [
            (OWN, Some(SITE), true),
            (FAMILY, Some(SITE), true),
            (MASTER, Some(SITE), true),
            (STRANGER, Some(SITE), false),
            (OWN, None, true),
            (FAMILY, None, false),
            (FAMILY, Some(TokenKey([5; 32])), false),
        ] {
            // While it starts, while it runs, and after a power loss.
            for phase in 0..3 {
                let (mut b, session) = named(kind, site_key.clone());
                if phase > 0 {
                    b.begin(0);
                    assert_eq!(b.device.state(0), Some(OutletState::Busy));
                }
                if phase == 2 {
                    b.reboot();
                    // The relay opened with the power.
                    b.sense(0, |s| (s.relay_closed, s.power_w) = (false, 0));
                }
                b.input(device::Input::LinkDown);
                b.pass(3, 0, |_| {});
                let before = b.device.session(0);
                b.present(0, n);
                let name = format!("{kind:?}, token {n}, phase {phase}, {site_key:?}");
                if before.is_none() {
                    // A dispenser ends at a power loss; a new token asks anew.
                    assert_eq!((kind, phase), (Kind::Dispenser, 2), "{name}");
                    continue;
                }
                assert_eq!(b.device.session(0).is_none(), stops, "{name}");
                if stops {
                    assert!(!b.on(0), "{name}");
                    b.link();
                    let stop = b.last_stop();
                    assert_eq!((stop.session, stop.reason), (session, StopReason::User), "{name}");
                }
            }
        }
    }
}

fn limit(id: u64, session: proto::id::SessionId, units: u64) -> Command {
    Command {
        id,
        verb: Verb::Limit,
        outlet: 0,
        session,
        not_after_s: 0,
        token: None,
        units: Units(units),
    }
}

fn outcome(b: &Bench) -> CommandOutcome {
    let answers = b.said.iter().rev().filter_map(|said| match said {
        bench::Said::Answer(answer) => Some(answer.outcome),
        _ => None,
    });
    answers.into_iter().next().unwrap()
}

#[test]
fn a_lower_limit_ends_the_session_there() {
    for (kind, limits, ends) in [
        (Kind::Charger, &[50][..], Some(50)),
        (Kind::Charger, &[50, 500], Some(50)),
        (Kind::Dispenser, &[100], Some(100)),
        // Below what has flowed already: at once.
        (Kind::Charger, &[0], Some(10)),
        // A wash cycle finishes.
        (Kind::Washer, &[0], None),
    ] {
        let (mut b, session) = named(kind, None);
        let start = b.senses[&0].register;
        b.begin(0);
        b.sense(0, |s| s.register.0 += 10);
        for (i, &units) in limits.iter().enumerate() {
            b.tell(Down::Command, &limit(i as u64 + 1, session, units));
            let expected = if kind == Kind::Washer {
                CommandOutcome::NotApplicable
            } else {
                CommandOutcome::Done
            };
            assert_eq!(outcome(&b), expected, "{kind:?}");
        }
        b.pass(120, 0, |s| {
            if s.register.0 < start.0 + 400 {
                s.register.0 += 10;
            }
        });
        match ends {
            None => assert_eq!(b.device.session(0), Some(session), "{kind:?}"),
            Some(units) => {
                assert!(!b.on(0), "{kind:?}");
                let stop = b.last_stop();
                let delivered = stop.register_end.since(stop.register_start).0;
                assert_eq!(
                    (stop.reason, delivered),
                    (StopReason::Limit, units),
                    "{kind:?} {limits:?}"
                );
            }
        }
    }
}

#[test]
fn a_lower_limit_survives_a_power_loss() {
    let (mut b, session) = named(Kind::Charger, None);
    b.begin(0);
    b.tell(Down::Command, &limit(1, session, 60));
    b.reboot();
    b.sense(0, |s| (s.relay_closed, s.power_w) = (false, 0));
    b.link();
    b.wait(2_000);
    if b.device.session(0) == Some(session) {
        b.begin(0);
        b.pass(30, 0, |s| s.register.0 += 10);
    }
    let stop = b.last_stop();
    assert!(stop.register_end.since(stop.register_start).0 <= 60, "{stop:?}");
    assert_eq!(stop.reason, StopReason::Limit);
}
