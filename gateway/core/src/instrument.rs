//! Step 4: instruments that prove themselves. The proof is checked here with the code that devices use, and what was
//! spent of each is kept here: a purse for each voucher and keypad token, a window and a lockout for each keypad, the
//! last step and a lockout for each account with one-time codes.
//!
//! A purse holds its face value once. What a session did not capture stays usable at this gateway until it is spent, the
//! voucher expires, or the keypad token leaves its window.

use alloc::{collections::BTreeMap, vec::Vec};

use proto::{
    id::{AccountId, DeviceId, IdToken, Kind, Name, TokenKind},
    instrument::{
        Enrolment, Fault, Here, Instrument, KeypadKey, Lockout, NUMBER_MAX, ReplayWindow, Today, TotpClock, Voucher,
        WINDOW, keypad_number, parse_code,
    },
    link::{Evidence, Gift},
    message::{ClockQuality, RefusalReason},
    money::{Money, Units},
    trust::IssuerKey,
};
use serde::{Deserialize, Serialize};

use crate::{
    Gateway,
    authorize::{Outcome, Rule},
    event::{Event, InstrumentAccepted, Kept, KeptCodes, KeptForgotten, KeptPad, KeptPurse},
    ring::sight::Sight,
    session::{Request, Terms, register_dimension},
    time::{Instant, Now},
};

/// Most purses. A site that has more unexpired vouchers in use than this refuses new ones and says so; at 60 bytes each
/// they are 6 MB.
pub const PURSES_MAX: usize = 100_000;

/// Whom to believe, and whose secrets to check against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instruments {
    /// The site that vouchers name; none: no voucher is redeemed here.
    pub site: Option<Name>,
    /// The site's currency, as the number of ISO 4217.
    pub currency: u16,
    /// Keys of voucher issuers.
    pub issuers: Vec<IssuerKey>,
    /// Keys of the devices that have a keypad.
    pub keypads: BTreeMap<DeviceId, KeypadKey>,
    /// Accounts with one-time codes.
    pub enrolments: BTreeMap<AccountId, Enrolment>,
}

/// What was presented, beside the token's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// A token that proves nothing by itself.
    Token,
    /// The envelope of a voucher.
    Voucher(Vec<u8>),
    /// What was typed at a keypad.
    Keypad(Vec<u8>),
    /// A one-time code; `None`: what was typed is none.
    Code {
        /// Whose.
        account: AccountId,
        /// The code.
        code: Option<u32>,
    },
}

impl Presented {
    /// What a device sent, and the token under whose hash it goes on. The token of a voucher is derived from the
    /// envelope, so that nobody dodges a revocation by presenting a voucher under another token.
    #[must_use]
    pub fn of(token: IdToken, instrument: &Instrument) -> (IdToken, Self) {
        let bytes = instrument.as_slice();
        match token.kind {
            TokenKind::Voucher if !bytes.is_empty() => {
                let known = Voucher::peek(bytes).map_or(token, Voucher::id_token);
                (known, Self::Voucher(bytes.to_vec()))
            }
            TokenKind::Keypad => {
                let typed = token.bytes.as_slice().to_vec();
                (token, Self::Keypad(typed))
            }
            TokenKind::Pin if !bytes.is_empty() => match Enrolment::account_of(&token) {
                Some(account) => {
                    let code = parse_code(bytes);
                    (token, Self::Code { account, code })
                }
                None => (token, Self::Token),
            },
            TokenKind::Card | TokenKind::App | TokenKind::Pin | TokenKind::Voucher | TokenKind::Unknown => {
                (token, Self::Token)
            }
        }
    }
}

/// What a sound instrument proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Its number; 0: a one-time code, which has no purse.
    pub(crate) number: u64,
    /// Who pays; 0: the instrument itself.
    pub(crate) account: AccountId,
    pub(crate) face: Money,
    pub(crate) not_after_s: u64,
    /// Of a one-time code.
    pub(crate) step: u64,
}

/// The money of one instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purse {
    /// Face value.
    pub face: Money,
    /// Charged so far.
    pub captured: Money,
    /// Held by open sessions.
    pub held: Money,
    /// Last second of the voucher (seconds since 1970 UTC); 0: a keypad token.
    pub not_after_s: u64,
}

impl Purse {
    /// What may still be drawn; never negative.
    #[must_use]
    pub fn left(&self) -> Money {
        let left = self.face.saturating_sub(self.captured).saturating_sub(self.held);
        left.max(Money::ZERO)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pad {
    window: ReplayWindow,
    lockout: Lockout,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Codes {
    last_step: u64,
    lockout: Lockout,
}

/// What was spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    purses: BTreeMap<u64, Purse>,
    pads: BTreeMap<DeviceId, Pad>,
    codes: BTreeMap<AccountId, Codes>,
    /// The latest expiry of a purse that was forgotten: no voucher that ends so early is accepted any more.
    forgotten_s: u64,
}

impl Spent {
    /// The purse of an instrument that was accepted.
    #[must_use]
    pub fn purse(&self, number: u64) -> Option<&Purse> {
        self.purses.get(&number)
    }

    /// Every purse, by number.
    pub fn purses(&self) -> impl Iterator<Item = (u64, &Purse)> {
        self.purses.iter().map(|(&number, purse)| (number, purse))
    }

    /// Highest counter accepted at a device's keypad.
    #[must_use]
    pub fn keypad_high(&self, device: &DeviceId) -> u32 {
        self.pads.get(device).map_or(0, |pad| pad.window.high())
    }

    pub(crate) fn accept(&mut self, event: &InstrumentAccepted, wall_high_s: u64) {
        if event.number == 0 {
            let codes = self.codes.entry(event.account).or_default();
            codes.last_step = codes.last_step.max(event.step);
            return;
        }
        if event.number > NUMBER_MAX {
            let window = &mut self.pads.entry(event.device).or_default().window;
            window.force(event.number as u32);
            let oldest = u64::from(window.high().saturating_sub(WINDOW - 1));
            let base = event.number & !u64::from(u32::MAX);
            // What left the window cannot be presented any more.
            let gone: Vec<u64> = self
                .purses
                .range(base..base | oldest)
                .filter(|(_, purse)| purse.held == Money::ZERO)
                .map(|(number, _)| *number)
                .collect();
            for number in gone {
                self.purses.remove(&number);
            }
        } else if self.purses.len() >= PURSES_MAX {
            self.forget(wall_high_s);
        }
        self.purses.entry(event.number).or_insert(Purse {
            face: event.face,
            captured: Money::ZERO,
            held: Money::ZERO,
            not_after_s: event.not_after_s,
        });
    }

    /// Forgets vouchers that expired, and which they were.
    fn forget(&mut self, wall_high_s: u64) {
        let mut forgotten_s = self.forgotten_s;
        self.purses.retain(|number, purse| {
            let over = *number <= NUMBER_MAX && purse.held == Money::ZERO && purse.not_after_s < wall_high_s;
            if over {
                forgotten_s = forgotten_s.max(purse.not_after_s);
            }
            !over
        });
        self.forgotten_s = forgotten_s;
    }

    pub(crate) fn failed(&mut self, device: &DeviceId, account: AccountId, at: Instant) {
        match account {
            0 => self.pads.entry(*device).or_default().lockout.failed(at.0),
            account => self.codes.entry(account).or_default().lockout.failed(at.0),
        }
    }

    pub(crate) fn hold(&mut self, terms: &Terms) {
        if let Some(purse) = self.purses.get_mut(&terms.evidence.instrument) {
            purse.held = purse.held.saturating_add(terms.money_max);
        }
    }

    pub(crate) fn close(&mut self, terms: &Terms, amount: Money) {
        if let Some(purse) = self.purses.get_mut(&terms.evidence.instrument) {
            purse.held = purse.held.saturating_sub(terms.money_max);
            purse.captured = purse.captured.saturating_add(amount);
        }
    }

    pub(crate) fn snapshot(&self, events: &mut Vec<Event>) {
        let kept = |kept| Event::Kept(kept);
        let forgotten_s = self.forgotten_s;
        events.push(kept(Kept::Forgotten(KeptForgotten { forgotten_s })));
        events.extend(
            self.purses
                .iter()
                .map(|(&number, &purse)| kept(Kept::Purse(KeptPurse { number, purse }))),
        );
        events.extend(self.pads.iter().map(|(&device, pad)| {
            let (window, lockout) = (pad.window, pad.lockout);
            kept(Kept::Pad(KeptPad {
                device,
                window,
                lockout,
            }))
        }));
        events.extend(self.codes.iter().map(|(&account, codes)| {
            let (last_step, lockout) = (codes.last_step, codes.lockout);
            kept(Kept::Codes(KeptCodes {
                account,
                last_step,
                lockout,
            }))
        }));
    }

    pub(crate) fn keep_purse(&mut self, kept: &KeptPurse) {
        self.purses.insert(kept.number, kept.purse);
    }

    pub(crate) fn keep_pad(&mut self, kept: &KeptPad) {
        let (window, lockout) = (kept.window, kept.lockout);
        self.pads.insert(kept.device, Pad { window, lockout });
    }

    pub(crate) fn keep_codes(&mut self, kept: &KeptCodes) {
        let (last_step, lockout) = (kept.last_step, kept.lockout);
        self.codes.insert(kept.account, Codes { last_step, lockout });
    }

    pub(crate) fn keep_forgotten(&mut self, kept: &KeptForgotten) {
        self.forgotten_s = kept.forgotten_s;
    }
}

impl Gateway {
    /// What was spent of instruments.
    #[must_use]
    pub const fn spent(&self) -> &Spent {
        &self.spent
    }

    /// Whether what was presented draws here and now. `None`: it is no instrument, and the order goes on.
    pub(crate) fn verify(&self, now: &Now, request: &Request, presented: &Presented) -> Option<Result<Proof, Fault>> {
        let proof = match self.identify(now, &request.device, presented)? {
            Ok(proof) => proof,
            Err(fault) => return Some(Err(fault)),
        };
        Some(self.verify_unspent(now, request, presented, proof))
    }

    fn verify_unspent(
        &self,
        now: &Now,
        request: &Request,
        presented: &Presented,
        proof: Proof,
    ) -> Result<Proof, Fault> {
        if let Presented::Voucher(envelope) = presented {
            let site = self.config.instruments.site.as_ref().ok_or(Fault::Elsewhere)?;
            let here = Here {
                site,
                device: &request.device,
                kind: request.kind,
                currency: self.config.instruments.currency,
            };
            Voucher::open(envelope, &self.config.instruments.issuers)?.check(&here, self.today(now))?;
        }
        if proof.number == 0 {
            return Ok(proof);
        }
        match self.spent.purses.get(&proof.number) {
            Some(purse) if purse.left() > Money::ZERO => Ok(proof),
            Some(_) => Err(Fault::Spent),
            None => self.verify_first(request, &proof).map(|()| proof),
        }
    }

    /// An instrument without a purse was never accepted, or nobody knows any more.
    fn verify_first(&self, request: &Request, proof: &Proof) -> Result<(), Fault> {
        if proof.number > NUMBER_MAX {
            let pad = self.spent.pads.get(&request.device).copied().unwrap_or_default();
            return match pad.window.is_used(proof.number as u32) {
                true => Err(Fault::Spent),
                false => Ok(()),
            };
        }
        if proof.not_after_s <= self.spent.forgotten_s {
            return Err(Fault::Expired);
        }
        let over = |purse: &Purse| purse.held == Money::ZERO && purse.not_after_s < self.time.wall_high_s;
        match self.spent.purses.len() < PURSES_MAX || self.spent.purses.values().any(over) {
            true => Ok(()),
            false => Err(Fault::Full),
        }
    }

    /// Whose an instrument is and what it is worth, by its form alone: signature, MAC or code. Neither the date nor what
    /// was spent is looked at, but a lockout is: behind it no guess is judged.
    pub(crate) fn identify(&self, now: &Now, device: &DeviceId, presented: &Presented) -> Option<Result<Proof, Fault>> {
        match presented {
            Presented::Token => None,
            Presented::Voucher(envelope) => Some(self.identify_voucher(envelope)),
            Presented::Keypad(typed) => Some(self.identify_keypad(now, device, typed)),
            Presented::Code { account, code } => Some(self.identify_code(now, *account, *code)),
        }
    }

    fn identify_voucher(&self, envelope: &[u8]) -> Result<Proof, Fault> {
        let voucher = Voucher::open(envelope, &self.config.instruments.issuers)?;
        Ok(Proof {
            number: voucher.number,
            account: 0,
            face: voucher.amount,
            not_after_s: voucher.not_after_s,
            step: 0,
        })
    }

    fn identify_keypad(&self, now: &Now, device: &DeviceId, typed: &[u8]) -> Result<Proof, Fault> {
        let key = self.config.instruments.keypads.get(device).ok_or(Fault::Elsewhere)?;
        let pad = self.spent.pads.get(device).copied().unwrap_or_default();
        if pad.lockout.wait_ms(self.time.at(now).0) > 0 {
            return Err(Fault::LockedOut);
        }
        let token = key.open(typed, &pad.window)?;
        Ok(Proof {
            number: keypad_number(device, token.counter),
            account: 0,
            face: token.class.amount(),
            not_after_s: 0,
            step: 0,
        })
    }

    fn identify_code(&self, now: &Now, account: AccountId, code: Option<u32>) -> Result<Proof, Fault> {
        let enrolment = self
            .config
            .instruments
            .enrolments
            .get(&account)
            .ok_or(Fault::Elsewhere)?;
        let codes = self.spent.codes.get(&account).copied().unwrap_or_default();
        if codes.lockout.wait_ms(self.time.at(now).0) > 0 {
            return Err(Fault::LockedOut);
        }
        let clock = TotpClock {
            wall_s: now.wall_s,
            quality: now.quality,
            since_set_s: 0,
        };
        let code = code.ok_or(Fault::Malformed)?;
        let step = enrolment.key.verify(code, &clock, codes.last_step)?;
        Ok(Proof {
            number: 0,
            account,
            face: enrolment.limit,
            not_after_s: 0,
            step,
        })
    }

    /// The date as far as it is known. A clock that is merely informative never goes behind what was known before.
    fn today(&self, now: &Now) -> Today {
        match now.quality {
            ClockQuality::Synchronised => Today::Known(now.wall_s),
            ClockQuality::Informative => Today::Known(now.wall_s.max(self.time.wall_high_s)),
            ClockQuality::Unknown | ClockQuality::Relative => Today::AtLeast(self.time.wall_high_s),
        }
    }

    /// Up to what is left of the face value. No session cap of money applies: it is paid for already.
    pub(crate) fn grant_instrument(&self, request: &Request, sight: &Sight<'_>, proof: &Proof) -> Outcome {
        let rule = Rule::Instrument;
        let limits = sight.of_kind().expect("checked before any basis is sought");
        let tariff = sight.tariff(request.kind).expect("checked before any basis is sought");
        let money_max = match self.spent.purses.get(&proof.number) {
            Some(purse) => purse.left(),
            None => proof.face,
        };
        let reason = RefusalReason::NoCredit;
        if money_max < tariff.start_fee.max(tariff.minimum).max(Money(1)) {
            return Outcome::Refuse { reason, rule };
        }
        let affordable = tariff.units_within(register_dimension(request.kind), money_max);
        let mut units_max = match (request.kind, affordable) {
            // A session is one cycle; what is left buys the next.
            (Kind::Washer, Some(units)) => units.min(limits.units_max),
            (_, Some(units)) => units,
            (_, None) => limits.units_max,
        };
        if request.units_wished.0 > 0 {
            units_max = units_max.min(request.units_wished);
        }
        if units_max == Units::ZERO {
            return Outcome::Refuse { reason, rule };
        }
        let (list_revision, revocations_revision, _) = sight.revisions();
        let terms = Terms {
            account: proof.account,
            units_max,
            money_max,
            duration_max_s: limits.duration_max_s,
            start_within_s: limits.start_within_s,
            meter_every_s: limits.meter_every_s,
            tariff_hash: sight.tariff_hash(request.kind),
            tariff: tariff.clone(),
            unsecured: false,
            evidence: Evidence {
                mode: self.health.authorize.mode.into(),
                credential_revision: 0,
                list_revision,
                revocations_revision,
                lease: 0,
                instrument: proof.number,
                gift: Gift::None,
            },
            stop_tokens: self.groups.stoppers(self.policies.master_group(), None, &request.token),
        };
        Outcome::Grant {
            terms,
            rule,
            credential_revision: 0,
        }
    }
}
