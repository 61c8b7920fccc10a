//! Instruments: what was sold, where it may be drawn upon, and that nobody draws more than it is worth. Purses are kept a
//! second time here, by number; of the core's window and lockout nothing is used but what their rules promise.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{
    Now,
    event::{Granted, GuessFailed, InstrumentAccepted, Refused},
};
use proto::{
    id::{DeviceId, Kind, SessionId, TokenHash},
    instrument::Fault,
    link::MODE_ALONE,
    message::{ClockQuality, Redeemed, RefusalReason},
};

use super::Auditor;
use crate::marks::{Mark, Marks};

/// Counters of a keypad that are told apart, on either side of the highest.
const WINDOW: u32 = 64;
/// Wrong ones that cost no wait.
const FREE_FAILURES: u32 = 4;
const KEYPAD: u64 = 1 << 63;

/// An instrument as it was sold.
#[derive(Clone, Debug)]
pub(crate) struct Sold {
    pub(crate) number: u64,
    pub(crate) token: TokenHash,
    pub(crate) face: i64,
    /// The only device; `None`: all of its kind at this site.
    pub(crate) device: Option<DeviceId>,
    pub(crate) kind: Kind,
    pub(crate) valid_s: (u64, u64),
}

#[derive(Default)]
pub(super) struct Instruments {
    sold: BTreeMap<u64, Sold>,
    numbers: BTreeMap<TokenHash, u64>,
    held: BTreeMap<u64, i64>,
    captured: BTreeMap<u64, i64>,
    /// Numbers that the gateway has accepted.
    accepted: BTreeSet<u64>,
    /// Highest counter accepted of each keypad.
    high: BTreeMap<DeviceId, u32>,
    failures: BTreeMap<DeviceId, u32>,
    /// Sessions that devices have granted by themselves, as they stand in flash: where, and of which number.
    alone: BTreeMap<SessionId, (usize, u64)>,
    /// Numbers of which the gateway said that they were drawn upon too often.
    alarmed: BTreeSet<u64>,
    /// Numbers of which more was granted by devices alone than was left then.
    overdrawn: BTreeSet<u64>,
    clock: Option<Now>,
}

impl Instruments {
    pub(super) fn hold(&mut self, number: u64, amount: i64) {
        *self.held.entry(number).or_default() += amount;
    }

    pub(super) fn release(&mut self, number: u64, amount: i64) {
        self.hold(number, -amount);
    }

    pub(super) fn capture(&mut self, number: u64, amount: i64) {
        *self.captured.entry(number).or_default() += amount;
    }

    fn left(&self, number: u64) -> i64 {
        let used = |sums: &BTreeMap<u64, i64>| sums.get(&number).copied().unwrap_or(0);
        self.sold.get(&number).map_or(0, |sold| sold.face) - used(&self.held) - used(&self.captured)
    }

    /// At how many devices an instrument was accepted with no gateway to ask.
    fn alone_at(&self, number: u64) -> usize {
        let places: BTreeSet<usize> = self
            .alone
            .values()
            .filter(|(_, n)| *n == number)
            .map(|(at, _)| *at)
            .collect();
        places.len()
    }
}

impl Auditor {
    /// Somebody has bought an instrument.
    pub(crate) fn sold(&mut self, sold: Sold) {
        self.instruments.numbers.insert(sold.token, sold.number);
        self.instruments.sold.insert(sold.number, sold);
    }

    /// The gateway's clocks at the next event.
    pub(crate) const fn clock(&mut self, now: &Now) {
        self.instruments.clock = Some(*now);
    }

    /// What the gateway's clocks said at the event.
    pub(super) fn now(&self) -> Now {
        self.instruments.clock.expect("an event has its time")
    }

    /// A device has stored that it grants a session by itself.
    pub(crate) fn redeemed(&mut self, at: usize, redeemed: &Redeemed, marks: &mut Marks) {
        let known = self.instruments.alone.insert(redeemed.session, (at, redeemed.number));
        if known.is_some() {
            return;
        }
        if redeemed.number == 0 {
            return self.redeemed_code(at, redeemed, marks);
        }
        marks.hit(Mark::RedeemedAlone);
        let sold = self.instruments.sold.get(&redeemed.number);
        let sold = sold.unwrap_or_else(|| panic!("nobody sold what was redeemed: {redeemed:?}"));
        assert_eq!(redeemed.money_max.0, sold.face, "a device alone grants the face value");
        let before = self.instruments.alone.iter().filter(|(session, (place, number))| {
            (*place, *number) == (at, redeemed.number) && **session != redeemed.session
        });
        assert_eq!(before.count(), 0, "one device took {} twice", redeemed.number);
    }

    /// Whether a device has granted a session by itself, and stored it.
    pub(super) fn is_alone(&self, session: &SessionId) -> bool {
        self.instruments.alone.contains_key(session)
    }

    pub(super) fn accepted(&mut self, e: &InstrumentAccepted, marks: &mut Marks) {
        if e.number == 0 {
            let now = self.instruments.clock.expect("an event has its time");
            return self.accepted_code(e, &now, marks);
        }
        self.instruments.accepted.insert(e.number);
        if e.number >= KEYPAD {
            let high = self.instruments.high.entry(e.device).or_default();
            *high = (e.number as u32).max(*high);
        }
    }

    pub(super) fn guess_failed(&mut self, e: &GuessFailed) {
        match e.account {
            0 => *self.instruments.failures.entry(e.device).or_default() += 1,
            account => self.code_guessed(account),
        }
    }

    pub(super) fn granted_instrument(&mut self, e: &Granted, marks: &mut Marks) {
        let number = e.terms.evidence.instrument;
        if number == 0 {
            return self.granted_code(e, marks);
        }
        let sold = self.instruments.sold.get(&number);
        let sold = sold.unwrap_or_else(|| panic!("granted on what nobody sold: {e:?}"));
        assert_eq!(sold.token, e.request.token, "the token is the instrument's");
        assert_eq!(sold.kind, e.request.kind, "issued for another kind: {e:?}");
        assert!(
            sold.device.is_none_or(|device| device == e.request.device),
            "issued for another device: {e:?}"
        );
        assert!(
            self.instruments.accepted.contains(&number),
            "granted before it was marked"
        );
        if e.terms.evidence.mode == MODE_ALONE {
            marks.hit(Mark::RedeemedTold);
            assert!(self.is_alone(&e.request.session), "the device never said so: {e:?}");
            if e.terms.money_max.0 > self.instruments.left(number) {
                self.instruments.overdrawn.insert(number);
            }
            return;
        }
        let left = self.instruments.left(number);
        assert!(
            e.terms.money_max.0 <= left,
            "{} granted, {left} left: {e:?}",
            e.terms.money_max
        );
        marks.hit(match number >= KEYPAD {
            true => Mark::GrantByKeypad,
            false => Mark::GrantByVoucher,
        });
        if left < sold.face {
            marks.hit(Mark::RemainderDrawn);
        }
    }

    /// What is left of the instrument that a token stands for.
    pub(super) fn left_of(&self, token: &TokenHash) -> i64 {
        if let Some(limit) = self.code_limit(token) {
            return limit;
        }
        let number = self.instruments.numbers.get(token).expect("what was sold");
        self.instruments.left(*number)
    }

    /// Whether what was presented does not draw, for the reason that was given.
    pub(super) fn is_no_instrument(&self, e: &Refused, marks: &mut Marks) -> bool {
        let now = self.instruments.clock.expect("an event has its time");
        if let Some(is_true) = self.is_no_code(e, &now, marks) {
            return is_true;
        }
        let device = e.request.device;
        let sold = self
            .instruments
            .numbers
            .get(&e.request.token)
            .map(|number| &self.instruments.sold[number]);
        let elsewhere = |sold: &Sold| sold.kind != e.request.kind || sold.device.is_some_and(|d| d != device);
        let high = self.instruments.high.get(&device).copied().unwrap_or(0);
        let is_far = |sold: &Sold| {
            let counter = sold.number as u32;
            sold.number >= KEYPAD && (counter > high.saturating_add(WINDOW) || counter + WINDOW <= high)
        };
        match e.reason {
            RefusalReason::Forged => {
                marks.hit(Mark::RefusedForged);
                // Digits for another keypad are no better than made up ones here.
                sold.is_none_or(|sold| is_far(sold) || (sold.number >= KEYPAD && elsewhere(sold)))
            }
            RefusalReason::Elsewhere => {
                marks.hit(Mark::RefusedElsewhere);
                sold.is_some_and(elsewhere)
            }
            RefusalReason::Replay => {
                marks.hit(Mark::RefusedReplay);
                let used = |sold: &Sold| self.instruments.accepted.contains(&sold.number);
                sold.is_some_and(|sold| used(sold) && (self.instruments.left(sold.number) <= 0 || is_far(sold)))
            }
            RefusalReason::LockedOut => {
                marks.hit(Mark::RefusedLockedOut);
                self.instruments
                    .failures
                    .get(&device)
                    .is_some_and(|failures| *failures > FREE_FAILURES)
            }
            RefusalReason::Clock => {
                marks.hit(Mark::RefusedClock);
                matches!(now.quality, ClockQuality::Unknown | ClockQuality::Relative)
            }
            RefusalReason::Expired => sold.is_some_and(|sold| !(sold.valid_s.0..=sold.valid_s.1).contains(&now.wall_s)),
            _ => false,
        }
    }

    /// The gateway says that something is wrong with what a device redeemed by itself. It must be.
    pub(crate) fn redeemed_wrongly(&mut self, number: u64, fault: Fault) {
        assert_eq!(fault, Fault::Spent, "instrument {number} was redeemed by itself");
        assert!(
            self.instruments.overdrawn.contains(&number),
            "instrument {number} had enough left"
        );
        self.instruments.alarmed.insert(number);
    }

    /// What instruments have paid.
    pub(crate) fn prepaid(&self) -> i64 {
        self.instruments.captured.values().sum()
    }

    /// Spent once: whatever is accepted at one place only never pays more than its face value. A voucher for the whole
    /// site may, at devices that nobody can ask; that is conflict 3, and then the gateway said so.
    pub(crate) fn instruments_at_rest(&self) {
        for (number, captured) in &self.instruments.captured {
            let sold = &self.instruments.sold[number];
            if *captured <= sold.face {
                continue;
            }
            assert!(sold.device.is_none(), "{sold:?} paid {captured}");
            assert!(
                self.instruments.alone_at(*number) > 0,
                "the gateway let {sold:?} pay {captured}"
            );
            assert!(
                self.instruments.alarmed.contains(number),
                "{sold:?} paid {captured}, and nobody said so"
            );
        }
    }
}
