//! One-time codes in the world: whose app shows which code when, and what people make of it at the keypad.

use std::collections::BTreeMap;

use device::{Input, Screen};
use proto::{
    id::{AccountId, OutletId},
    instrument::{Enrolment, STEP_S, TotpKey},
    message::RefusalReason,
    money::{Money, Units},
};

use crate::{auditor::Enrolled, marks::Mark, shell::TOKEN_KEY, world::World};

/// Accounts with codes, and what one code of each is worth at most; cards draw on the same accounts.
const ENROLLED: [(AccountId, i64); 8] = [
    (2, 300),
    (3, 150),
    (4, 600),
    (5, 300),
    (6, 2_000),
    (7, 40),
    (8, 1_200),
    (9, 300),
];
/// An account that this site has no secret of.
const ELSEWHERE: AccountId = 77;
/// Whose codes are guessed.
const GUESSED: AccountId = 9;

/// What somebody types.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Typed {
    /// What his app shows, so many steps ahead of the true time: nobody's clock is perfect, and people are slow.
    Shown(i64),
    /// What was typed before.
    Again,
    /// Eight digits.
    Guess,
    /// Fewer.
    Short,
}

/// The app of every account.
#[derive(Default)]
pub(crate) struct Apps {
    last: BTreeMap<AccountId, String>,
}

fn key(account: AccountId) -> TotpKey {
    TotpKey([account as u8; 32])
}

pub(crate) fn enrolments() -> impl Iterator<Item = Enrolment> {
    ENROLLED.into_iter().map(|(account, limit)| Enrolment {
        account,
        key: key(account),
        limit: Money(limit),
    })
}

/// As the auditor knows them.
pub(crate) fn enrolled() -> Vec<Enrolled> {
    let of = |(account, limit): (AccountId, i64)| Enrolled {
        account,
        token: Enrolment::id_token(account).hash(&TOKEN_KEY),
        limit,
    };
    ENROLLED.into_iter().map(of).collect()
}

impl World {
    /// Somebody with an app, or with patience.
    pub(crate) fn think_of_code(&mut self) -> (AccountId, Typed) {
        let (account, _) = self.random.pick(&ENROLLED);
        match self.random.below(20) {
            0..7 => (account, Typed::Shown(0)),
            7..10 => (account, Typed::Shown(-1)),
            10 => (account, Typed::Shown(1)),
            11 => (account, Typed::Shown(-3)),
            12..14 => (account, Typed::Again),
            14 => (account, Typed::Short),
            15 => (ELSEWHERE, Typed::Shown(0)),
            _ => (GUESSED, Typed::Guess),
        }
    }

    pub(crate) fn present_code(
        &mut self,
        at: usize,
        outlet: OutletId,
        (account, typed): (AccountId, Typed),
        units_wished: Units,
    ) {
        let digits = match typed {
            Typed::Shown(ahead) => self.shown(account, ahead),
            Typed::Again => match self.apps.last.get(&account) {
                Some(digits) => digits.clone(),
                None => self.shown(account, 0),
            },
            Typed::Guess => format!("{:08}", self.random.below(100_000_000)),
            Typed::Short => "1234".to_owned(),
        };
        self.apps.last.insert(account, digits.clone());
        let input = Input::Code {
            outlet,
            account,
            code: digits.as_bytes(),
            units_wished,
        };
        self.drive(at, input);
        if self.random.chance(2_000) {
            self.look_over_shoulder(at, (account, &digits));
        }
        let twin = &self.twins[at];
        let screen = twin.places[usize::from(outlet)].screen;
        if let (Screen::Refused { reason, .. }, false) = (screen, twin.has_link)
            && reason == RefusalReason::Clock
        {
            self.hit(Mark::CodeBeyondDeviceClock);
        }
    }

    /// Somebody else types the same digits at the next device, at once.
    fn look_over_shoulder(&mut self, at: usize, (account, digits): (AccountId, &str)) {
        let next = (at + 1) % self.twins.len();
        if self.twins[next].device.is_none() || self.twins[next].places[0].visit.is_some() {
            return;
        }
        self.sense(next, 0);
        let input = Input::Code {
            outlet: 0,
            account,
            code: digits.as_bytes(),
            units_wished: Units::ZERO,
        };
        self.drive(next, input);
    }

    /// Whether what somebody presents is a guess: then he goes on guessing.
    pub(crate) fn is_guesser(&self, instrument: Option<usize>) -> bool {
        instrument.is_some_and(|sold| self.shop.is_guess(sold))
    }

    fn shown(&mut self, account: AccountId, ahead: i64) -> String {
        let step = (self.true_wall_s() / STEP_S).saturating_add_signed(ahead);
        let code = key(account).code(step);
        self.auditor.code_shown(account, code, step);
        format!("{code:08}")
    }
}
