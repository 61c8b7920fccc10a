//! Instruments: what is taken where and when, what is spent once, and what a guesser can hope for in a day.

use proto::{instrument::*, money::Money, seal::PairSecret, trust::Issuer};

use crate::samples::{content::voucher, name};

const DAY_MS: u64 = 86_400_000;
/// Chance of a day's guesses that the project promises not to reach: one in so many.
const PROMISE_INVERSE: u64 = 1_000_000;

fn digits(counter: u32) -> [u8; DIGITS] {
    let class = AmountClass::of(Money(600)).expect("an amount");
    PairSecret([7; 32]).keypad_key().digits(KeypadToken { counter, class })
}

/// Most guesses in any 24 hours by somebody who always guesses as soon as it is possible, for days, after any pause.
fn guesses_in_a_day_most() -> u64 {
    let mut lockout = Lockout::default();
    let mut guesses = Vec::new();
    let mut now_ms = 0;
    // A pause in the middle lets failures be forgiven, and the guesser begins better than anybody who never paused.
    for pause_h in [0, 2, 5, 9, 23, 200] {
        now_ms += pause_h * 3_600_000;
        let until_ms = now_ms + 3 * DAY_MS;
        while now_ms < until_ms {
            now_ms += lockout.wait_ms(now_ms);
            guesses.push(now_ms);
            lockout.failed(now_ms);
        }
    }
    let within_a_day = |first: &u64| {
        guesses
            .iter()
            .filter(|at| (*first..*first + DAY_MS).contains(at))
            .count()
    };
    guesses.iter().map(within_a_day).max().expect("guesses") as u64
}

#[test]
fn a_days_guesses_are_below_one_in_a_million() {
    let guesses = guesses_in_a_day_most();
    let keypad = ACCEPTANCE_INVERSE / guesses;
    let code = 100_000_000 / (guesses * STEPS_ACCEPTED);
    println!("{guesses} guesses a day: a keypad token 1 in {keypad}, a one-time code 1 in {code}");
    assert_eq!(guesses, 32);
    assert!(keypad > PROMISE_INVERSE && code > PROMISE_INVERSE);
}

/// The chance of one guess is what the arithmetic says: with the key of another device one in 488 million fits, so of
/// two million random tokens at most a handful may, and as a check of the check every genuine one does.
#[test]
fn a_random_token_hardly_ever_opens() {
    let key = PairSecret([7; 32]).keypad_key();
    let mut window = ReplayWindow::default();
    window.accept(40).expect("in reach");
    // A full cycle generator over all 12-digit numbers: deterministic, and without a pattern in the low digits.
    let mut value: u64 = 271_828_182_845;
    let mut opened = 0;
    for _ in 0..200_000 {
        value = (value * 7_141 + 54_773) % 1_000_000_000_000;
        opened += u32::from(key.open(format!("{value:012}").as_bytes(), &window).is_ok());
    }
    assert_eq!(opened, 0, "of 200,000");
    for counter in 1..=104 {
        let open = key.open(&digits(counter), &window);
        assert_eq!(open.map(|token| token.counter), Ok(counter));
    }
    assert_eq!(key.open(&digits(105), &window), Err(Fault::Forged), "beyond the window");
}

#[test]
fn every_counter_is_accepted_once_in_whatever_order_the_window_allows() {
    let mut window = ReplayWindow::default();
    // Sixty-four are outstanding, and the last of them comes first.
    for counter in (1..=WINDOW).rev() {
        assert!(!window.is_used(counter), "{counter}");
        window.accept(counter).expect("first time");
        assert_eq!(window.accept(counter), Err(Fault::Spent));
    }
    assert_eq!(window.accept(2 * WINDOW + 1), Err(Fault::Forged), "65 ahead");
    window.accept(2 * WINDOW).expect("64 ahead");
    assert!(window.is_used(WINDOW), "fell out of the window");
    assert!(!window.is_used(WINDOW + 1));
}

#[test]
fn the_window_goes_to_the_end_of_the_counter() {
    let mut window = ReplayWindow::default();
    window.force(u32::MAX - 1);
    let key = PairSecret([7; 32]).keypad_key();
    let last = key.open(&digits(u32::MAX), &window).expect("the last one");
    window.accept(last.counter).expect("unused");
    assert_eq!(window.high(), u32::MAX);
    assert_eq!(
        window.candidate((u32::MAX % 128 + 1) % 128),
        None,
        "there is none behind the last"
    );
}

#[test]
fn switching_the_power_off_shortens_no_wait() {
    let mut lockout = Lockout::default();
    for _ in 0..=FREE_FAILURES {
        lockout.failed(1_000);
    }
    assert_eq!(lockout.wait_ms(1_000), WAIT_FIRST_MS);
    assert_eq!(lockout.wait_ms(1_000 + WAIT_FIRST_MS), 0);
    // A boot 20 s later: the line of time begins at zero again, and so does the wait.
    lockout.restart(0);
    assert_eq!(lockout.wait_ms(0), WAIT_FIRST_MS);
    assert_eq!(lockout.failures(FORGIVE_MS), FREE_FAILURES, "one is forgiven");
}

#[test]
fn a_voucher_is_bound_to_place_kind_currency_and_date() {
    let good = voucher();
    let (site, device) = (name("north-campus"), name("charger-07"));
    let here = Here {
        site: &site,
        device: &device,
        kind: good.kind,
        currency: good.currency,
    };
    let (elsewhere, noon_s) = (name("south-campus"), good.not_before_s + 43_200);
    let other_kind = proto::id::Kind::Washer;
    let bound = Voucher {
        scope: Scope::Device,
        place: device,
        ..good.clone()
    };
    let rows = [
        ("as issued", &good, here, Today::Known(noon_s), Ok(())),
        ("last second", &good, here, Today::Known(good.not_after_s), Ok(())),
        (
            "another site",
            &good,
            Here {
                site: &elsewhere,
                ..here
            },
            Today::Known(noon_s),
            Err(Fault::Elsewhere),
        ),
        (
            "another kind",
            &good,
            Here {
                kind: other_kind,
                ..here
            },
            Today::Known(noon_s),
            Err(Fault::Kind),
        ),
        (
            "another currency",
            &good,
            Here { currency: 840, ..here },
            Today::Known(noon_s),
            Err(Fault::Currency),
        ),
        (
            "too early",
            &good,
            here,
            Today::Known(good.not_before_s - 1),
            Err(Fault::NotYet),
        ),
        (
            "too late",
            &good,
            here,
            Today::Known(good.not_after_s + 1),
            Err(Fault::Expired),
        ),
        ("no clock", &good, here, Today::AtLeast(0), Err(Fault::Clock)),
        (
            "no clock, but surely over",
            &good,
            here,
            Today::AtLeast(good.not_after_s + 1),
            Err(Fault::Expired),
        ),
        ("its device", &bound, here, Today::Known(noon_s), Ok(())),
        (
            "another device",
            &bound,
            Here {
                device: &elsewhere,
                ..here
            },
            Today::Known(noon_s),
            Err(Fault::Elsewhere),
        ),
    ];
    for (what, voucher, here, today, expected) in rows {
        assert_eq!(voucher.check(&here, today), expected, "{what}");
    }
}

#[test]
fn a_voucher_opens_under_its_issuer_alone_and_as_it_was_signed() {
    let (issuer, stranger) = (Issuer::from_seed(&[0x15; 32]), Issuer::from_seed(&[0x16; 32]));
    let envelope = voucher().sign(&issuer).expect("small");
    assert_eq!(Voucher::open(&envelope, &[stranger.key(), issuer.key()]), Ok(voucher()));
    assert_eq!(Voucher::open(&envelope, &[stranger.key()]), Err(Fault::Forged));
    assert_eq!(Voucher::open(&envelope, &[]), Err(Fault::Forged));
    for at in 0..envelope.len() {
        let mut damaged = envelope.clone();
        damaged[at] ^= 1;
        assert!(Voucher::open(&damaged, &[issuer.key()]).is_err(), "byte {at}");
    }
    let worthless = Voucher {
        amount: Money::ZERO,
        ..voucher()
    };
    let envelope = worthless.sign(&issuer).expect("small");
    assert_eq!(
        Voucher::open(&envelope, &[issuer.key()]),
        Err(Fault::Malformed),
        "signed, and nothing worth"
    );
}

#[test]
fn a_used_number_is_forgotten_only_together_with_all_that_expire_no_later() {
    let mut used = Used::default();
    for number in 1..=USED_MAX as u64 {
        used.mark(number, 1_000 + number, Some(500)).expect("room");
    }
    assert_eq!(used.check(1, 1_001, Some(500)), Err(Fault::Spent));
    assert_eq!(used.check(99, 5_000, Some(500)), Err(Fault::Full));
    assert_eq!(
        used.check(99, 5_000, None),
        Err(Fault::Full),
        "no clock forgets nothing"
    );
    used.mark(99, 5_000, Some(1_002)).expect("the first is over");
    // The clock is set back: what was forgotten is not taken again.
    assert_eq!(used.check(1, 1_001, Some(500)), Err(Fault::Expired));
    assert_eq!(used.check(99, 5_000, Some(500)), Err(Fault::Spent));
}

#[test]
fn a_code_is_taken_once_under_a_good_clock_and_not_before_the_last() {
    let key = TotpKey([3; 32]);
    let clock = |wall_s| TotpClock {
        wall_s,
        quality: proto::message::ClockQuality::Synchronised,
        since_set_s: 0,
    };
    let step = 59_000_000;
    let now = clock(step * STEP_S);
    assert_eq!(key.verify(key.code(step), &now, 0), Ok(step));
    assert_eq!(key.verify(key.code(step), &now, step), Err(Fault::Spent));
    assert_eq!(
        key.verify(key.code(step + 1), &now, step),
        Ok(step + 1),
        "an app that is fast"
    );
    assert_eq!(
        key.verify(key.code(step - 1), &now, step),
        Err(Fault::Spent),
        "none before the last"
    );
    assert_eq!(key.verify(key.code(step + 2), &now, 0), Err(Fault::Forged));
    let stale = TotpClock {
        since_set_s: DRIFT_MAX_S + 1,
        ..now
    };
    assert_eq!(key.verify(key.code(step), &stale, 0), Err(Fault::Clock));
    let doubtful = TotpClock {
        quality: proto::message::ClockQuality::Informative,
        ..now
    };
    assert_eq!(key.verify(key.code(step), &doubtful, 0), Err(Fault::Clock));
}
