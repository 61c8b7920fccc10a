//! Step 4 of the decision order: what proves by itself that it may draw, where, until when, and once.

use crate::site::*;
use gateway_core::{Config, Decision, Input, Instruments, Presented, Said};
use proto::{
    artifact::{Reason, Revocations, RevokedScope, Subject},
    book::Account,
    id::{Kind, Name, SessionId},
    instrument::{AmountClass, Enrolment, KeypadKey, KeypadToken, STEP_S, Scope, TotpKey, Voucher},
    message::ClockQuality,
    money::{Money, Units},
    trust::Issuer,
};

const CURRENCY: u16 = 156;
/// Somebody who is on no list: what he presents has to prove itself.
const NOBODY: u8 = 99;
const KEYPAD: KeypadKey = KeypadKey([8; 32]);
const CODES: TotpKey = TotpKey([9; 32]);

fn issuer() -> Issuer {
    Issuer::from_seed(&[0x77; 32])
}

fn with_instruments() -> Config {
    let enrolment = Enrolment {
        account: 2,
        key: CODES,
        limit: Money(150),
    };
    Config {
        instruments: Instruments {
            site: Name::new("campus").ok(),
            currency: CURRENCY,
            issuers: vec![issuer().key()],
            keypads: [(id("w1"), KEYPAD)].into(),
            enrolments: [(2, enrolment)].into(),
        },
        ..config()
    }
}

/// 6.00 at any charger of the campus, for a year.
fn voucher() -> Voucher {
    Voucher {
        number: 17,
        scope: Scope::Site,
        place: Name::new("campus").unwrap(),
        kind: Kind::Charger,
        amount: Money(600),
        currency: CURRENCY,
        not_before_s: WALL_S - 86_400,
        not_after_s: WALL_S + 365 * 86_400,
    }
}

fn paper(voucher: &Voucher) -> Presented {
    Presented::Voucher(voucher.sign(&issuer()).unwrap())
}

fn digits(counter: u32, amount: i64) -> Presented {
    let class = AmountClass::of(Money(amount)).unwrap();
    Presented::Keypad(KEYPAD.digits(KeypadToken { counter, class }).to_vec())
}

fn code(wall_s: u64) -> Presented {
    let code = Some(CODES.code(wall_s / STEP_S));
    Presented::Code { account: 2, code }
}

fn present(site: &mut Site, device: &str, presented: Presented) -> (SessionId, Decision) {
    let session = site.mint(device);
    let said = Said::Authorize {
        session,
        outlet: 0,
        token: token(NOBODY),
        units_wished: Units::ZERO,
        register: Units::ZERO,
        presented,
    };
    (session, site.say(device, said))
}

fn verdict(site: &mut Site, device: &str, presented: Presented) -> String {
    words(&present(site, device, presented).1)
}

#[test]
fn a_voucher_draws_where_and_when_it_says() {
    let check = |device: &str, change: &dyn Fn(&mut Voucher), quality: ClockQuality, expected: &str| {
        // The law's order: neither a list nor a cloud is asked.
        let mut site = Site::empty(with_instruments());
        site.put(&tariffs(1));
        site.now.quality = quality;
        let mut own = voucher();
        change(&mut own);
        assert_eq!(verdict(&mut site, device, paper(&own)), expected, "{own:?} at {device}");
        assert_eq!(site.gateway.risk().exposure(), Money::ZERO, "paid for already");
    };
    let sync = ClockQuality::Synchronised;
    check("c1", &|_| (), sync, "grant instrument 600 10000");
    check("c1", &|_| (), ClockQuality::Informative, "grant instrument 600 10000");
    check(
        "c1",
        &|v| v.amount = Money(1_000_000),
        sync,
        "grant instrument 1000000 16666666",
    );
    check("w1", &|_| (), sync, "refuse elsewhere 0");
    check("w1", &|v| v.kind = Kind::Washer, sync, "grant instrument 600 1");
    check(
        "c1",
        &|v| v.place = Name::new("other").unwrap(),
        sync,
        "refuse elsewhere 0",
    );
    check("c1", &|v| v.currency = 840, sync, "refuse elsewhere 0");
    let at = |name: &'static str| {
        move |v: &mut Voucher| {
            v.scope = Scope::Device;
            v.place = Name::new(name).unwrap();
        }
    };
    check("c1", &at("c1"), sync, "grant instrument 600 10000");
    check("c1", &at("c2"), sync, "refuse elsewhere 0");
    check("c1", &|v| v.not_after_s = WALL_S - 1, sync, "refuse expired 0");
    check("c1", &|v| v.not_before_s = WALL_S + 1, sync, "refuse expired 0");
    check("c1", &|_| (), ClockQuality::Unknown, "refuse clock 0");
    // Less than a session can cost.
    check(
        "w1",
        &|v| (v.kind, v.amount) = (Kind::Washer, Money(399)),
        sync,
        "refuse no_credit 300",
    );
}

#[test]
fn a_forged_voucher_draws_nothing_and_locks_nobody_out() {
    let mut site = Site::with(with_instruments());
    let stranger = Issuer::from_seed(&[0x78; 32]);
    let forged = voucher().sign(&stranger).unwrap();
    let mut bent = voucher().sign(&issuer()).unwrap();
    *bent.last_mut().unwrap() ^= 1;
    for envelope in [forged, bent, vec![0xd2], Vec::new()] {
        for _ in 0..2 {
            let said = verdict(&mut site, "c1", Presented::Voucher(envelope.clone()));
            assert_eq!(said, "refuse forged 0", "{} bytes", envelope.len());
        }
    }
    assert_eq!(
        verdict(&mut site, "c1", paper(&voucher())),
        "grant instrument 600 10000"
    );
}

#[test]
fn what_a_session_leaves_is_drawn_by_the_next() {
    let mut site = Site::with(with_instruments());
    let draw = |site: &mut Site, device: &str, wh: u64| {
        let (session, decision) = present(site, device, paper(&voucher()));
        if words(&decision).starts_with("grant") {
            site.say(device, started(session, 0));
            site.say(device, Said::Stop(stop(session, 0, wh, 60)));
            site.pass(3_600_000);
        }
        words(&decision)
    };
    assert_eq!(draw(&mut site, "c1", 4_000), "grant instrument 600 10000");
    site.reboot(1_000);
    assert_eq!(draw(&mut site, "c2", 5_000), "grant instrument 360 6000");
    assert_eq!(draw(&mut site, "c3", 1_000), "grant instrument 60 1000");
    assert_eq!(draw(&mut site, "k1", 1_000), "refuse replay 0");
    let prepaid = site.gateway.book().balance(&Account::Prepaid);
    assert_eq!(prepaid.debits_posted, Money(600), "never more than it was sold for");
}

#[test]
fn two_sessions_share_a_voucher_only_as_far_as_it_goes() {
    let mut site = Site::with(with_instruments());
    assert_eq!(
        verdict(&mut site, "c1", paper(&voucher())),
        "grant instrument 600 10000"
    );
    // All of it is held; the same person may come to another outlet, the money may not.
    assert!(verdict(&mut site, "c2", paper(&voucher())).starts_with("refuse"));
}

#[test]
fn twelve_digits_draw_once_in_any_order_within_the_window() {
    let mut site = Site::with(with_instruments());
    let mut use_up = |counter: u32| {
        let (session, decision) = present(&mut site, "w1", digits(counter, 400));
        if words(&decision).starts_with("grant") {
            site.say("w1", started(session, 0));
            site.say("w1", Said::Stop(stop(session, 0, 1, 60)));
        }
        site.pass(3_600_000);
        words(&decision)
    };
    assert_eq!(use_up(3), "grant instrument 400 1");
    assert_eq!(use_up(1), "grant instrument 400 1");
    assert_eq!(use_up(3), "refuse replay 0", "spent");
    assert_eq!(use_up(66), "grant instrument 400 1");
    // 64 wide: what fell out of it is no token any more, spent or not; the fourth is still in it.
    assert_eq!(use_up(1), "refuse forged 0");
    assert_eq!(use_up(2), "refuse forged 0");
    assert_eq!(use_up(4), "grant instrument 400 1");
    // Sold for another keypad.
    assert_eq!(verdict(&mut site, "w2", digits(70, 400)), "refuse elsewhere 0");
}

#[test]
fn who_guesses_waits_longer_each_time_and_across_a_boot() {
    let mut site = Site::with(with_instruments());
    let wrong = || Presented::Keypad(b"000000000000".to_vec());
    // Nobody waits for a mistake or four.
    for _ in 0..4 {
        assert_eq!(verdict(&mut site, "w1", wrong()), "refuse forged 0");
        site.pass(60_000);
    }
    assert_eq!(verdict(&mut site, "w1", wrong()), "refuse forged 0");
    for minutes in [1, 2, 4] {
        let said = verdict(&mut site, "w1", digits(1, 400));
        assert!(said.starts_with("refuse locked_out"), "{said}");
        site.pass(minutes * 60_000 - 1_000);
        let said = verdict(&mut site, "w1", digits(1, 400));
        assert!(
            said.starts_with("refuse locked_out"),
            "after almost {minutes} min: {said}"
        );
        site.pass(1_000);
        assert_eq!(verdict(&mut site, "w1", wrong()), "refuse forged 0");
    }
    // A restart does not shorten it.
    site.reboot(0);
    let said = verdict(&mut site, "w1", digits(1, 400));
    assert!(said.starts_with("refuse locked_out"), "{said}");
    // Who has a voucher or a card is not locked out.
    let washing = Voucher {
        kind: Kind::Washer,
        ..voucher()
    };
    assert_eq!(verdict(&mut site, "w1", paper(&washing)), "grant instrument 600 1");
}

#[test]
fn a_one_time_code_draws_once_up_to_the_accounts_limit() {
    let mut site = Site::with(with_instruments());
    let now_s = site.now.wall_s;
    let use_up = |site: &mut Site, presented: Presented| {
        let (session, decision) = present(site, "c1", presented);
        if words(&decision).starts_with("grant") {
            site.say("c1", Said::Stop(stop(session, 0, 0, 0)));
        }
        words(&decision)
    };
    assert_eq!(
        use_up(&mut site, code(now_s - 4 * STEP_S)),
        "refuse forged 0",
        "too old"
    );
    assert_eq!(use_up(&mut site, code(now_s - STEP_S)), "grant instrument 150 2500");
    assert_eq!(
        use_up(&mut site, code(now_s - STEP_S)),
        "refuse replay 0",
        "the same again"
    );
    assert_eq!(use_up(&mut site, code(now_s)), "grant instrument 150 2500");
    assert_eq!(
        use_up(&mut site, code(now_s - STEP_S)),
        "refuse replay 0",
        "an older one"
    );
    site.now.quality = ClockQuality::Unknown;
    assert_eq!(use_up(&mut site, code(now_s + STEP_S)), "refuse clock 0");
    let unknown = Presented::Code {
        account: 3,
        code: Some(1),
    };
    assert_eq!(use_up(&mut site, unknown), "refuse elsewhere 0");
}

#[test]
fn what_comes_before_step_four_still_decides() {
    let mut site = Site::with(with_instruments());
    site.put(&revocations(1, &[(NOBODY, u64::MAX)]));
    assert_eq!(verdict(&mut site, "c1", paper(&voucher())), "refuse revoked 0");
    let mut bare = Site::empty(with_instruments());
    assert_eq!(verdict(&mut bare, "c1", paper(&voucher())), "refuse no_tariff 300");
    // An account that is revoked does not draw by code either, though its token is in no list.
    let mut closed = Site::with(with_instruments());
    let now_s = closed.now.wall_s;
    closed.put(&Input::Revocations(Revocations {
        revision: 1,
        entries: Vec::new(),
        scopes: vec![RevokedScope::new(Subject::Account(2), Reason::Fraud)],
    }));
    assert_eq!(verdict(&mut closed, "c1", code(now_s)), "refuse revoked 0");
    assert_eq!(
        verdict(&mut closed, "c1", paper(&voucher())),
        "grant instrument 600 10000"
    );
    // The cloud has no say in any of it.
    let mut dark = Site::with(with_instruments());
    dark.go_local();
    assert_eq!(
        verdict(&mut dark, "c1", paper(&voucher())),
        "grant instrument 600 10000"
    );
}
