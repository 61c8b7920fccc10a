//! A device with the link down: what proves itself is granted here, once, and told when the link is back. The power may
//! fail between any two effects.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod bench;

use std::collections::BTreeMap;

use bench::{Bench, SECRET, Said, WALL_S, config, grant, tariff};
use device::{Config, Input, Screen};
use proto::{
    id::{IdToken, Kind, Name, OutletId, SessionId, TokenKind},
    instrument::{
        AmountClass, CODE_DIGITS, Enrolment, FREE_FAILURES, KeypadToken, STEP_S, Scope, TotpKey, USED_MAX, Voucher,
        WAIT_MAX_MS, keypad_number,
    },
    message::*,
    money::{Money, Units},
    topic::Down,
    trust::Issuer,
};

const CODE_KEY: TotpKey = TotpKey([3; 32]);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn issuer() -> Issuer {
    Issuer::from_seed(&[0x55; 32])
}

fn believing(kind: Kind) -> Config {
    let mut config = config(kind);
    config.instruments.site = Some(name("campus"));
    config.instruments.currency = 156;
    config.instruments.issuers.push(issuer().key()).unwrap();
    config.instruments.keypad = true;
    let enrolment = Enrolment {
        account: 77,
        key: CODE_KEY,
        limit: Money(150),
    };
    config.instruments.enrolments.push(enrolment).unwrap();
    config
}

fn voucher(number: u64, kind: Kind) -> Voucher {
    Voucher {
        number,
        scope: Scope::Site,
        place: name("campus"),
        kind,
        amount: Money(200),
        currency: 156,
        not_before_s: WALL_S - 1_000,
        not_after_s: WALL_S + 100_000,
    }
}

fn signed(voucher: &Voucher) -> Vec<u8> {
    voucher.sign(&issuer()).unwrap()
}

fn keypad(counter: u32) -> IdToken {
    let class = AmountClass::of(Money(300)).unwrap();
    let digits = SECRET.keypad_key().digits(KeypadToken { counter, class });
    IdToken::new(TokenKind::Keypad, &digits).unwrap()
}

/// Knows a price from a session with the gateway; then the link is gone.
fn alone(kind: Kind) -> Bench {
    let mut b = Bench::with(believing(kind));
    learn(&mut b);
    b.input(Input::LinkDown);
    b.said.clear();
    b.order.clear();
    b
}

fn learn(b: &mut Bench) {
    let session = b.granted(1, 9);
    b.input(Input::Button { outlet: 1 });
    b.receipt(session);
    assert_eq!(b.device.unreceipted(), 0);
}

fn present(b: &mut Bench, outlet: OutletId, envelope: &[u8]) {
    b.input(Input::Voucher {
        outlet,
        envelope,
        units_wished: Units::ZERO,
    });
}

fn type_keypad(b: &mut Bench, outlet: OutletId, token: IdToken) {
    b.input(Input::Token {
        outlet,
        token,
        units_wished: Units::ZERO,
    });
}

fn refused(b: &Bench) -> Option<RefusalReason> {
    match b.screens.last() {
        Some((_, Screen::Refused { reason, .. })) => Some(*reason),
        _ => None,
    }
}

/// The refusal of what was just presented, and none of an earlier one.
fn refusal_of(b: &mut Bench, present: impl FnOnce(&mut Bench)) -> Option<RefusalReason> {
    rest(b);
    b.screens.clear();
    present(b);
    refused(b)
}

/// Long enough for one gesture and its notice to be over, with the readings that every outlet lives on.
fn rest(b: &mut Bench) {
    for _ in 0..20 {
        b.wait(1_000);
        b.sense(0, |_| {});
        b.sense(1, |_| {});
    }
}

fn redeemed(b: &Bench) -> Vec<Redeemed> {
    let told = b.said.iter().filter_map(|said| match said {
        Said::Redeemed(redeemed) => Some(redeemed.clone()),
        _ => None,
    });
    told.collect()
}

/// The gateway answers what the device has redeemed by itself.
fn answer(b: &mut Bench, redeemed: &Redeemed) {
    let grant = Grant {
        session: redeemed.session,
        units_max: redeemed.units_max,
        money_max: redeemed.money_max,
        duration_max_s: redeemed.duration_max_s,
        start_within_s: 60,
        meter_every_s: redeemed.meter_every_s,
        tariff: redeemed.tariff.clone(),
        tariff_hash: redeemed.tariff.hash(),
        decision: 12,
        stop_tokens: heapless::Vec::new(),
    };
    b.tell(Down::Grant, &grant);
}

#[test]
fn a_voucher_is_redeemed_with_the_link_down_and_told_in_order_when_it_is_back() {
    for kind in Kind::SERVED {
        let mut b = alone(kind);
        let mut paper = voucher(41, kind);
        paper.amount = Money(600);
        present(&mut b, 0, &signed(&paper));
        assert_eq!(
            b.order,
            ["store", "store", "store", "on 0"],
            "{kind:?}: the spend, what is to be told and the session are stored before anything is on"
        );
        let session = b.device.session(0).unwrap();
        b.begin(0);
        b.pass(30, 0, |s| match kind {
            Kind::Charger => s.register.0 += 10,
            Kind::Washer => {}
            Kind::Dispenser | Kind::Unknown => s.register.0 += 20,
        });
        assert!(b.said.is_empty(), "{kind:?}: there is nobody to tell");
        b.link();
        let told: Vec<&str> = b
            .order
            .iter()
            .map(String::as_str)
            .filter(|word| *word != "store")
            .collect();
        assert_eq!(told, ["on 0", "hello", "redeemed", "status", "status"], "{kind:?}");
        let first = redeemed(&b).remove(0);
        assert_eq!(
            (first.session, first.number, first.money_max),
            (session, 41, Money(600))
        );
        assert_eq!(first.token, Voucher::id_token(41));
        assert_eq!(first.instrument.as_slice(), signed(&paper));
        assert_eq!(first.tariff, tariff(kind));
        b.order.clear();
        b.pass(20, 0, |_| {});
        assert!(b.count("redeemed") >= 2, "{kind:?}: repeated until it is answered");
        assert_eq!(b.count("started") + b.count("meter"), 0, "{kind:?}: not before that");
        b.order.clear();
        answer(&mut b, &first);
        let told: Vec<&str> = b
            .order
            .iter()
            .map(String::as_str)
            .filter(|word| *word != "store")
            .collect();
        assert_eq!(told, ["started", "meter"], "{kind:?}");
        b.input(Input::Button { outlet: 0 });
        let stop = b.last_stop();
        assert!(stop.started && stop.session == session);
        b.receipt(session);
        assert_eq!(b.device.unreceipted(), 0);
        b.order.clear();
        b.wait(600_000);
        assert_eq!(b.count("redeemed") + b.count("stop"), 0, "{kind:?}: a receipt ends it");
        // And the voucher is spent here, also after a boot and without the gateway.
        b.input(Input::LinkDown);
        let again = refusal_of(&mut b, |b| present(b, 1, &signed(&paper)));
        assert_eq!(again, Some(RefusalReason::Replay), "{kind:?}");
    }
}

#[test]
fn what_a_device_alone_refuses() {
    let kind = Kind::Dispenser;
    let good = voucher(1, kind);
    let at = |change: fn(&mut Voucher)| {
        let mut voucher = good.clone();
        change(&mut voucher);
        signed(&voucher)
    };
    let mut damaged = signed(&good);
    *damaged.last_mut().unwrap() ^= 1;
    let stranger = good.sign(&Issuer::from_seed(&[9; 32])).unwrap();
    let table: [(&str, Vec<u8>, RefusalReason); 10] = [
        ("damaged", damaged, RefusalReason::Forged),
        ("of another issuer", stranger, RefusalReason::Forged),
        ("no envelope", vec![1, 2, 3], RefusalReason::Forged),
        ("too long", vec![0xd2; 400], RefusalReason::Forged),
        (
            "another site",
            at(|v| v.place = name("other")),
            RefusalReason::Elsewhere,
        ),
        (
            "another device",
            at(|v| v.scope = Scope::Device),
            RefusalReason::Elsewhere,
        ),
        ("another kind", at(|v| v.kind = Kind::Charger), RefusalReason::Elsewhere),
        ("another currency", at(|v| v.currency = 978), RefusalReason::Elsewhere),
        ("expired", at(|v| v.not_after_s = WALL_S - 10), RefusalReason::Expired),
        (
            "not yet",
            at(|v| v.not_before_s = WALL_S + 9_000),
            RefusalReason::Expired,
        ),
    ];
    let mut b = alone(kind);
    for (word, envelope, reason) in table {
        let found = refusal_of(&mut b, |b| present(b, 0, &envelope));
        assert_eq!(found, Some(reason), "{word}");
        assert!(!b.on(0) && b.device.session(0).is_none(), "{word}");
    }
    assert_eq!(b.count("on 0"), 0);
    // Bound to this very device it is good.
    let own = at(|v| {
        v.scope = Scope::Device;
        v.place = name("bench-1");
        v.number = 2;
    });
    present(&mut b, 0, &own);
    assert!(b.device.session(0).is_some());

    // A card proves nothing by itself.
    let mut b = alone(kind);
    b.present(0, 1);
    assert!(!b.on(0));
    // Nobody is believed without being told whom to believe, nothing is sold without a price.
    let mut b = Bench::with(config(kind));
    learn(&mut b);
    b.input(Input::LinkDown);
    assert_eq!(
        refusal_of(&mut b, |b| present(b, 0, &signed(&good))),
        Some(RefusalReason::Forged)
    );
    let mut b = Bench::with(believing(kind));
    b.input(Input::LinkDown);
    assert_eq!(
        refusal_of(&mut b, |b| present(b, 0, &signed(&good))),
        Some(RefusalReason::NoTariff)
    );
    // After a boot without a link there is no clock: the date cannot be judged, a keypad token needs none.
    let mut b = alone(kind);
    b.reboot();
    b.sense(0, |_| {});
    assert_eq!(
        refusal_of(&mut b, |b| present(b, 0, &signed(&good))),
        Some(RefusalReason::Clock)
    );
    rest(&mut b);
    type_keypad(&mut b, 0, keypad(1));
    assert!(b.device.session(0).is_some());
}

#[test]
fn keypad_tokens_are_taken_once_each_in_any_order_and_guesses_lock_the_keypad_over_power_cuts() {
    let mut b = alone(Kind::Dispenser);
    for (i, counter) in [5, 1, 64, 2].into_iter().enumerate() {
        rest(&mut b);
        type_keypad(&mut b, 0, keypad(counter));
        let session = b.device.session(0).unwrap();
        b.input(Input::Button { outlet: 0 });
        assert_eq!(b.device.unreceipted(), i + 1);
        assert!(b.device.session(0).is_none());
        let _ = session;
    }
    // Four ends wait for their receipts: the outlet is full, the other one is not.
    b.sense(1, |_| {});
    for counter in [5, 64] {
        let found = refusal_of(&mut b, |b| type_keypad(b, 1, keypad(counter)));
        assert_eq!(found, Some(RefusalReason::Replay), "{counter}");
    }
    let wrong = |n: u8| IdToken::new(TokenKind::Keypad, &[b'0' + n; 12]).unwrap();
    for n in 0..=FREE_FAILURES {
        let found = refusal_of(&mut b, |b| type_keypad(b, 1, wrong(n)));
        assert_eq!(found, Some(RefusalReason::Forged), "{n}");
    }
    let found = refusal_of(&mut b, |b| type_keypad(b, 1, keypad(7)));
    assert_eq!(found, Some(RefusalReason::LockedOut), "even a good one");
    b.reboot();
    b.sense(1, |_| {});
    let found = refusal_of(&mut b, |b| type_keypad(b, 1, keypad(7)));
    assert_eq!(found, Some(RefusalReason::LockedOut), "a power cut shortens nothing");
    b.wait(WAIT_MAX_MS);
    b.sense(1, |_| {});
    type_keypad(&mut b, 1, keypad(7));
    assert!(b.device.session(1).is_some());
    b.link();
    let first = redeemed(&b).remove(0);
    assert_eq!(first.number, keypad_number(&b.id(), 5), "the oldest first");
    assert_eq!(redeemed(&b).len(), 1, "one at a time");
}

#[test]
fn a_one_time_code_needs_a_clock_and_serves_once() {
    let code = |step: u64| format!("{:0width$}", CODE_KEY.code(step), width = CODE_DIGITS).into_bytes();
    let type_code = |b: &mut Bench, code: &[u8]| {
        b.input(Input::Code {
            outlet: 0,
            account: 77,
            code,
            units_wished: Units::ZERO,
        });
    };
    let mut b = alone(Kind::Dispenser);
    let step = WALL_S / STEP_S;
    assert_eq!(
        refusal_of(&mut b, |b| type_code(b, &code(step + 5))),
        Some(RefusalReason::Forged)
    );
    rest(&mut b);
    let step = (WALL_S + b.now_ms / 1_000) / STEP_S;
    type_code(&mut b, &code(step));
    let session = b.device.session(0).expect("it is granted");
    b.input(Input::Button { outlet: 0 });
    assert_eq!(
        refusal_of(&mut b, |b| type_code(b, &code(step))),
        Some(RefusalReason::Replay)
    );
    b.link();
    let told = redeemed(&b).remove(0);
    assert_eq!((told.session, told.number, told.money_max), (session, 0, Money(150)));
    b.reboot();
    b.sense(0, |_| {});
    assert_eq!(
        refusal_of(&mut b, |b| type_code(b, &code(step + 1))),
        Some(RefusalReason::Clock)
    );
}

/// The gateway grants what was just presented, and nothing is drawn.
fn through_the_gateway(b: &mut Bench) {
    let session = b.device.session(0).unwrap();
    let asked = b.said.iter().rev().find_map(|said| match said {
        Said::Authorize(authorize) => Some(authorize.clone()),
        _ => None,
    });
    assert_eq!(asked.unwrap().session, session, "with the link up the gateway decides");
    b.tell(Down::Grant, &grant(Kind::Dispenser, session));
    assert!(redeemed(b).is_empty());
    b.input(Input::Button { outlet: 0 });
    b.receipt(session);
    rest(b);
}

#[test]
fn what_the_gateway_took_is_not_taken_again_without_it() {
    let mut b = Bench::with(believing(Kind::Dispenser));
    let envelope = signed(&voucher(8, Kind::Dispenser));
    present(&mut b, 0, &envelope);
    through_the_gateway(&mut b);
    type_keypad(&mut b, 0, keypad(3));
    through_the_gateway(&mut b);
    b.reboot();
    b.sense(0, |_| {});
    b.link();
    b.input(Input::LinkDown);
    assert_eq!(
        refusal_of(&mut b, |b| present(b, 0, &envelope)),
        Some(RefusalReason::Replay)
    );
    assert_eq!(
        refusal_of(&mut b, |b| type_keypad(b, 0, keypad(3))),
        Some(RefusalReason::Replay)
    );
}

#[test]
fn the_memory_of_vouchers_refuses_rather_than_forgets() {
    let mut b = alone(Kind::Dispenser);
    for number in 1..=USED_MAX as u64 + 1 {
        rest(&mut b);
        b.screens.clear();
        present(&mut b, 0, &signed(&voucher(number, Kind::Dispenser)));
        let Some(session) = b.device.session(0) else {
            assert_eq!(
                (number, refused(&b)),
                (USED_MAX as u64 + 1, Some(RefusalReason::Storage))
            );
            return;
        };
        b.input(Input::Button { outlet: 0 });
        b.link();
        let told = redeemed(&b).pop().unwrap();
        answer(&mut b, &told);
        b.receipt(session);
        b.input(Input::LinkDown);
    }
    panic!("one more than fits was taken");
}

/// A gateway that remembers.
#[derive(Default)]
struct Ledger {
    /// Sessions with a hold.
    held: BTreeMap<SessionId, Redeemed>,
    ends: BTreeMap<SessionId, Stop>,
    heard: usize,
}

impl Ledger {
    /// Takes in what the device said since the last call, and answers.
    fn hear(&mut self, b: &mut Bench) {
        while let Some(said) = b.said.get(self.heard).cloned() {
            self.heard += 1;
            match said {
                Said::Redeemed(redeemed) => {
                    if !self.ends.contains_key(&redeemed.session) {
                        answer(b, &redeemed);
                    } else {
                        b.receipt(redeemed.session);
                    }
                    let known = self.held.entry(redeemed.session).or_insert(redeemed.clone());
                    assert_eq!(*known, redeemed, "the same fact every time");
                }
                Said::Stop(stop) => {
                    let session = stop.session;
                    assert!(self.held.contains_key(&session), "an end before its beginning");
                    let known = self.ends.entry(session).or_insert(stop.clone());
                    assert_eq!(*known, stop, "the same end every time");
                    b.receipt(session);
                }
                Said::Started(Started { session, .. }) | Said::Meter(Meter { session, .. }) => {
                    assert!(self.held.contains_key(&session), "a reading before the hold");
                }
                Said::Hello(_) | Said::Status(_) => {}
                Said::Authorize(_) | Said::Answer(_) | Said::Update(_) => panic!("nobody asked: {said:?}"),
            }
        }
    }
}

/// The whole life of a voucher with the power failing after every single effect: whatever the cut, nothing flows that
/// is not stored, the voucher is granted at most once if anything flowed, and the gateway hears of every session that
/// drew, first its hold and then its end, with all that it drew.
#[test]
fn the_power_may_fail_after_any_effect() {
    let envelope = signed(&voucher(41, Kind::Dispenser));
    let (mut cuts, mut granted_again, mut drew) = (0, 0, 0);
    for cut in 0.. {
        let mut b = alone(Kind::Dispenser);
        let mut ledger = Ledger::default();
        b.effects_left = Some(cut);
        present(&mut b, 0, &envelope);
        live(&mut b, &mut ledger);
        if b.effects_left != Some(0) {
            assert_eq!(
                (ledger.held.len(), ledger.ends.len()),
                (1, 1),
                "without a cut the session ran"
            );
            assert_eq!(b.device.unreceipted(), 0);
            break;
        }
        cuts += 1;
        let flowed = b.senses[&0].register;
        b.reboot();
        ledger.heard = 0;
        b.pass(20, 0, |s| s.flowing = false);
        assert!(!b.on(0), "cut {cut}: a tap ends with the power");
        b.clock_alone();
        let again = refusal_of(&mut b, |b| present(b, 0, &envelope));
        if b.device.session(0).is_some() {
            assert_eq!(flowed, Units::ZERO, "cut {cut}: granted twice");
            granted_again += 1;
        } else {
            assert_eq!(again, Some(RefusalReason::Replay), "cut {cut}");
        }
        b.input(Input::Button { outlet: 0 });
        b.link();
        for _ in 0..200 {
            ledger.hear(&mut b);
            b.pass(1, 0, |_| {});
        }
        assert_eq!(b.device.unreceipted(), 0, "cut {cut}");
        assert_eq!(ledger.held.len(), ledger.ends.len(), "cut {cut}");
        let told: u64 = ledger
            .ends
            .values()
            .map(|end| end.register_end.since(end.register_start).0)
            .sum();
        assert_eq!(told, flowed.0, "cut {cut}: all that flowed is told");
        drew += u32::from(flowed > Units::ZERO);
        let said = b.said.len();
        b.pass(300, 0, |_| {});
        assert!(
            b.said[said..].iter().all(|said| matches!(said, Said::Status(_))),
            "cut {cut}: at rest"
        );
    }
    println!("{cuts} cuts; granted again after {granted_again}, in which nothing had flowed; {drew} had drawn");
    assert!(
        cuts > 12 && granted_again >= 1 && drew > 6,
        "{cuts} {granted_again} {drew}"
    );
}

/// Delivers, stops, links and tells, as far as the power lasts.
fn live(b: &mut Bench, ledger: &mut Ledger) {
    if b.outputs.get(&0) != Some(&true) {
        return;
    }
    b.begin(0);
    b.pass(5, 0, |s| {
        if s.flowing {
            s.register.0 += 20;
        }
    });
    if b.effects_left == Some(0) {
        return;
    }
    b.input(Input::Button { outlet: 0 });
    b.sense(0, |s| s.flowing = false);
    b.link();
    ledger.hear(b);
    b.pass(5, 0, |_| {});
    ledger.hear(b);
}
