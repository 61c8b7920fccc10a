//! One-time codes: which step was accepted when, and that a guesser has to wait. Codes are looked up among those that an
//! app has shown; the wait is computed a second time from the journal.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{
    Input, Now, Presented, Said,
    event::{Granted, InstrumentAccepted, Refused},
};
use proto::{
    id::{SessionId, TokenHash},
    link::MODE_ALONE,
    message::{ClockQuality, Redeemed, RefusalReason},
};

use super::Auditor;
use crate::marks::{Mark, Marks};

const STEP_S: u64 = 30;
const MINUTE_MS: u64 = 60_000;
/// A failure is forgiven after so long without another one.
const FORGIVE_MS: u64 = 120 * MINUTE_MS;
/// Failures that cost no wait, and those beyond which the wait of 64 minutes no longer grows.
const FREE_FAILURES: u64 = 4;
const FAILURES_MAX: u64 = 11;

/// An account with codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enrolled {
    pub(crate) account: u64,
    pub(crate) token: TokenHash,
    pub(crate) limit: i64,
}

/// Wrong codes of one account, on the gateway's line of time.
#[derive(Clone, Copy, Debug, Default)]
struct Guesses {
    failures: u64,
    last_ms: u64,
}

impl Guesses {
    fn failed(&mut self, at_ms: u64) {
        let forgiven = (at_ms - self.last_ms) / FORGIVE_MS;
        self.failures = (self.failures.saturating_sub(forgiven) + 1).min(FAILURES_MAX);
        self.last_ms = at_ms;
    }

    fn must_wait(&self, at_ms: u64) -> bool {
        let Some(doublings) = self.failures.checked_sub(FREE_FAILURES + 1) else {
            return false;
        };
        at_ms < self.last_ms + (MINUTE_MS << doublings)
    }
}

#[derive(Default)]
pub(super) struct Codes {
    enrolled: BTreeMap<u64, Enrolled>,
    /// Codes that an app has shown, and of which step they are.
    shown: BTreeMap<(u64, u32), u64>,
    /// What was typed for a session that the gateway heard of; `None`: no code.
    typed: BTreeMap<SessionId, (u64, Option<u32>)>,
    /// Last step of each account that the gateway accepted.
    last: BTreeMap<u64, u64>,
    /// The same of each device that accepted it by itself.
    last_alone: BTreeMap<(usize, u64), u64>,
    /// Sessions whose code was accepted.
    accepted: BTreeSet<SessionId>,
    guesses: BTreeMap<u64, Guesses>,
    /// The gateway's line of time.
    at_ms: u64,
}

/// The step of a clock that may judge codes.
fn step_of(wall_s: u64, quality: ClockQuality) -> Option<u64> {
    (quality == ClockQuality::Synchronised).then_some(wall_s / STEP_S)
}

impl Auditor {
    pub(crate) fn enrol(&mut self, enrolled: Vec<Enrolled>) {
        let by_account = enrolled.into_iter().map(|each| (each.account, each));
        self.codes.enrolled.extend(by_account);
    }

    /// An app shows a code.
    pub(crate) fn code_shown(&mut self, account: u64, code: u32, step: u64) {
        self.codes.shown.insert((account, code), step);
    }

    /// Where the next event stands on the gateway's line of time, in ms.
    pub(crate) const fn line(&mut self, at_ms: u64) {
        self.codes.at_ms = at_ms;
    }

    /// Where the gateway is on its line of time, in ms.
    pub(super) const fn line_ms(&self) -> u64 {
        self.codes.at_ms
    }

    pub(super) fn heard_code(&mut self, input: &Input) {
        if let Input::Device { said, .. } = input
            && let Said::Authorize {
                session,
                presented: Presented::Code { account, code },
                ..
            } = said
        {
            self.codes.typed.insert(*session, (*account, *code));
        }
    }

    /// A device has stored that it takes a code by itself.
    pub(super) fn redeemed_code(&mut self, at: usize, redeemed: &Redeemed, marks: &mut Marks) {
        marks.hit(Mark::RedeemedCodeAlone);
        let token = redeemed.token.hash(&crate::shell::TOKEN_KEY);
        let enrolled = self.codes.enrolled.values().find(|each| each.token == token);
        let enrolled = *enrolled.unwrap_or_else(|| panic!("nobody has this secret: {redeemed:?}"));
        assert_eq!(redeemed.money_max.0, enrolled.limit, "a device alone grants the limit");
        let digits = std::str::from_utf8(redeemed.instrument.as_slice()).expect("digits");
        let code = digits.parse().expect("eight digits");
        let step = self.codes.shown.get(&(enrolled.account, code));
        let step = *step.unwrap_or_else(|| panic!("no app showed {digits}: {redeemed:?}"));
        let now = step_of(redeemed.at.wall_s, redeemed.at.quality);
        let now = now.unwrap_or_else(|| panic!("a code by a bad clock: {redeemed:?}"));
        assert!(step.abs_diff(now) <= 1, "a code of step {step} in {now}: {redeemed:?}");
        let last = self.codes.last_alone.insert((at, enrolled.account), step);
        assert!(
            last.is_none_or(|last| last < step),
            "one device took step {step} after {last:?}"
        );
    }

    pub(super) fn accepted_code(&mut self, e: &InstrumentAccepted, now: &Now, marks: &mut Marks) {
        if e.step == 0 {
            assert!(self.is_alone(&e.session), "a code without a step: {e:?}");
            return;
        }
        let (account, code) = self.codes.typed[&e.session];
        assert_eq!(account, e.account, "the code that was typed");
        let shown = code.and_then(|code| self.codes.shown.get(&(account, code)));
        assert_eq!(shown, Some(&e.step), "an app showed the code of this step: {e:?}");
        let present = step_of(now.wall_s, now.quality);
        let present = present.unwrap_or_else(|| panic!("a code by a bad clock: {e:?}"));
        assert!(
            e.step.abs_diff(present) <= 1,
            "a code of another time: {e:?} in {present}"
        );
        assert!(!self.must_wait(account), "a code behind the lockout: {e:?}");
        match e.step.cmp(&present) {
            std::cmp::Ordering::Less => marks.hit(Mark::CodeOfStepBefore),
            std::cmp::Ordering::Greater => marks.hit(Mark::CodeOfStepAfter),
            std::cmp::Ordering::Equal => {}
        }
        let last = self.codes.last.insert(account, e.step);
        assert!(
            last.is_none_or(|last| last < e.step),
            "a step is spent once: {e:?} after {last:?}"
        );
        self.codes.accepted.insert(e.session);
    }

    pub(super) fn code_guessed(&mut self, account: u64) {
        assert!(
            !self.must_wait(account),
            "a guess at {account} is judged behind the lockout"
        );
        let at_ms = self.codes.at_ms;
        self.codes.guesses.entry(account).or_default().failed(at_ms);
    }

    fn must_wait(&self, account: u64) -> bool {
        let guesses = self.codes.guesses.get(&account);
        guesses.is_some_and(|guesses| guesses.must_wait(self.codes.at_ms))
    }

    pub(super) fn granted_code(&self, e: &Granted, marks: &mut Marks) {
        let enrolled = self.codes.enrolled.get(&e.terms.account);
        let enrolled = enrolled.unwrap_or_else(|| panic!("granted to an account without codes: {e:?}"));
        assert_eq!(enrolled.token, e.request.token, "the token is the account's");
        assert!(
            e.terms.money_max.0 <= enrolled.limit,
            "above the limit of a code: {e:?}"
        );
        if e.terms.evidence.mode == MODE_ALONE {
            marks.hit(Mark::RedeemedCodeTold);
            assert!(self.is_alone(&e.request.session), "the device never said so: {e:?}");
            return;
        }
        marks.hit(Mark::GrantByCode);
        assert!(
            self.codes.accepted.contains(&e.request.session),
            "granted before the step was marked: {e:?}"
        );
    }

    /// What a code of the account that a token stands for is worth at most; `None`: it stands for none.
    pub(super) fn code_limit(&self, token: &TokenHash) -> Option<i64> {
        let mut enrolled = self.codes.enrolled.values();
        enrolled.find(|each| each.token == *token).map(|each| each.limit)
    }

    /// Whether a code of a revoked account was typed.
    pub(super) fn is_code_of_revoked(&self, session: &SessionId) -> bool {
        let typed = self.codes.typed.get(session);
        typed.is_some_and(|(account, _)| self.is_account_revoked(*account))
    }

    /// Whether a device may have taken a code of a revoked account.
    pub(crate) fn is_any_code_revoked(&self) -> bool {
        self.codes
            .enrolled
            .keys()
            .any(|account| self.is_account_revoked(*account))
    }

    /// Whether the code that was typed does not draw, for the reason that was given; `None`: no code was typed.
    pub(super) fn is_no_code(&self, e: &Refused, now: &Now, marks: &mut Marks) -> Option<bool> {
        let (account, code) = self.codes.typed.get(&e.request.session)?;
        let step = code.and_then(|code| self.codes.shown.get(&(*account, code))).copied();
        let present = step_of(now.wall_s, now.quality);
        let fits = |step: &u64| present.is_some_and(|present| step.abs_diff(present) <= 1);
        let known = self.codes.enrolled.contains_key(account);
        let is_true = match e.reason {
            RefusalReason::Elsewhere => {
                marks.hit(Mark::RefusedCodeElsewhere);
                !known
            }
            RefusalReason::LockedOut => {
                marks.hit(Mark::RefusedCodeLockedOut);
                self.must_wait(*account)
            }
            RefusalReason::Clock => {
                marks.hit(Mark::RefusedCodeClock);
                present.is_none()
            }
            RefusalReason::Forged => {
                marks.hit(Mark::RefusedCodeForged);
                (code.is_none() || present.is_some()) && !step.as_ref().is_some_and(fits)
            }
            RefusalReason::Replay => {
                marks.hit(Mark::RefusedCodeReplay);
                let last = self.codes.last.get(account).copied().unwrap_or(0);
                step.as_ref().is_some_and(fits) && step.is_some_and(|step| step <= last)
            }
            _ => false,
        };
        Some(is_true && (known || e.reason == RefusalReason::Elsewhere))
    }
}
