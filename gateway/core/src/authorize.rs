//! Who may draw: the decision order. The first rule that decides wins; every rule reads local state only. The cloud's
//! word comes in as an argument, so that the local verdict is the same function without it.

use proto::{
    artifact::Whitelist,
    id::{AccountId, DeviceId, TokenHash},
    link::{Evidence, Gift},
    message::{OutletState, RefusalReason},
    money::{Money, Units},
    policy::Class,
    tariff::Tariff,
};
use serde::{Deserialize, Serialize};

use crate::{
    Gateway,
    config::{DeviceConfig, KindLimits},
    instrument::Proof,
    ring::sight::{InRings, Sight},
    session::{Request, Terms, register_dimension},
    time::{Instant, Now},
    trust::{Age, is_over},
};

/// Seconds after which a device may ask again when something passes by itself.
const RETRY_SOON_S: u16 = 5;
/// The account of somebody whom nobody knows: the operator pays.
const NOBODY: AccountId = 0;
/// Seconds after which an exhausted limit may have recovered.
const RETRY_LATER_S: u16 = 300;

/// The step of the decision order that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Rule {
    /// 0: the device or the outlet cannot serve.
    Device,
    /// 2: the revocation set.
    Revoked,
    /// 3: attempts, velocity, concurrency.
    Rate,
    /// 4: a self-proving instrument.
    Instrument,
    /// 5: the cloud's answer.
    Cloud,
    /// 6: a lease.
    Lease,
    /// 7: the list.
    List,
    /// 8: a cached accept.
    CachedAccept,
    /// 9: policy NEVER and no answer.
    Never,
    /// 10: unknown.
    Unknown,
}

impl Rule {
    /// Its number in the decision order.
    #[must_use]
    pub const fn step(self) -> u8 {
        match self {
            Self::Device => 0,
            Self::Revoked => 2,
            Self::Rate => 3,
            Self::Instrument => 4,
            Self::Cloud => 5,
            Self::Lease => 6,
            Self::List => 7,
            Self::CachedAccept => 8,
            Self::Never => 9,
            Self::Unknown => 10,
        }
    }

    /// In plain words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Device => "the device or outlet cannot serve",
            Self::Revoked => "the token is revoked",
            Self::Rate => "too many attempts, or a session is open",
            Self::Instrument => "a self-proving instrument",
            Self::Cloud => "the cloud answered",
            Self::Lease => "a lease covers it",
            Self::List => "the local list",
            Self::CachedAccept => "the cloud accepted this token before",
            Self::Never => "this token needs the cloud's answer",
            Self::Unknown => "the token was never seen",
        }
    }
}

impl From<Rule> for u8 {
    fn from(rule: Rule) -> Self {
        rule.step()
    }
}

impl From<u8> for Rule {
    fn from(step: u8) -> Self {
        match step {
            2 => Self::Revoked,
            3 => Self::Rate,
            4 => Self::Instrument,
            5 => Self::Cloud,
            6 => Self::Lease,
            7 => Self::List,
            8 => Self::CachedAccept,
            9 => Self::Never,
            10 => Self::Unknown,
            _ => Self::Device,
        }
    }
}

/// What the cloud has to say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It was not asked yet.
    NotAsked,
    /// It was asked and there is no credible answer: silence, an error, a denial that nothing backs.
    None,
    /// Yes.
    Accept {
        account: AccountId,
        money_max: Money,
        credential_revision: u64,
        /// A lease that came with it and is not known yet: epoch and amount; epoch 0: none.
        lease: (u64, Money),
    },
    /// No, and it is credible.
    Deny,
    /// Nobody needs to be asked: an instrument that proves itself was presented.
    Proven(Proof),
    /// What was presented as an instrument is none, or does not draw here.
    Unproven(RefusalReason),
}

/// The outcome for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "short-lived, one per request")]
pub(crate) enum Outcome {
    Grant {
        terms: Terms,
        rule: Rule,
        credential_revision: u64,
    },
    Refuse {
        reason: RefusalReason,
        rule: Rule,
    },
    Ask {
        amount: Money,
    },
}

/// After how many seconds it is worth asking again; zero: never. Follows from the refusal alone, so that a repeated
/// request gets the very same answer.
pub(crate) const fn retry_after_s(reason: RefusalReason, rule: Rule) -> u16 {
    match reason {
        RefusalReason::DeviceState | RefusalReason::Concurrent => RETRY_SOON_S,
        RefusalReason::Rate => match rule {
            Rule::Rate => RETRY_SOON_S,
            Rule::Device
            | Rule::Revoked
            | Rule::Instrument
            | Rule::Cloud
            | Rule::Lease
            | Rule::List
            | Rule::CachedAccept
            | Rule::Never
            | Rule::Unknown => RETRY_LATER_S,
        },
        RefusalReason::NoTariff
        | RefusalReason::NoCredit
        | RefusalReason::LockedOut
        | RefusalReason::Storage
        | RefusalReason::Reserved => RETRY_LATER_S,
        RefusalReason::Other
        | RefusalReason::Revoked
        | RefusalReason::Replay
        | RefusalReason::OnlineRequired
        | RefusalReason::Unknown
        | RefusalReason::Denied
        | RefusalReason::Invalid
        | RefusalReason::ListExpired
        | RefusalReason::Version
        | RefusalReason::Forged
        | RefusalReason::Elsewhere
        | RefusalReason::Expired
        | RefusalReason::Clock => 0,
    }
}

struct Basis {
    rule: Rule,
    account: AccountId,
    credential_revision: u64,
    money_max: Money,
    half: bool,
    unsecured: bool,
    /// Why the operator pays, and the most units that he pays for.
    gift: (Gift, Units),
    /// Epoch of the lease that pays; 0: none.
    lease: u64,
}

/// Nobody but the account pays.
const NO_GIFT: (Gift, Units) = (Gift::None, Units(u64::MAX));

impl Gateway {
    /// Whether we have a reason of our own to trust a token.
    pub(crate) fn is_known_good(&self, token: &TokenHash, wall_s: Option<u64>) -> bool {
        let listed = self.trust.entry(token);
        let good = match &listed {
            Some(entry) => entry.valid && !is_over(entry, wall_s),
            None => self.trust.confirmed.contains_key(token),
        };
        good && !self.trust.is_credential_revoked(token, listed.as_ref()) && !self.trust.is_denied(token)
    }

    /// Whether the signed list vouches for a token. The cloud's own earlier accept does not: a cloud that takes back its
    /// own word shows nothing, and one that accepted everybody must take back much.
    pub(crate) fn is_vouched(&self, token: &TokenHash, wall_s: Option<u64>) -> bool {
        self.trust.entry(token).is_some() && self.is_known_good(token, wall_s)
    }

    /// Whether it does so without the cloud: what is granted to such a token is a matter of limits.
    pub(crate) fn is_good_user(&self, token: &TokenHash, wall_s: Option<u64>) -> bool {
        let entry = self.trust.entry(token);
        entry.is_some_and(|entry| entry.whitelist != Whitelist::Never) && self.is_known_good(token, wall_s)
    }

    /// Whether a token that is known good would not be served here either, for want of money or at a limit. A denial of
    /// it is then no sign of a cloud that lies: on some evenings many have spent everything.
    pub(crate) fn refuses_too(&self, now: &Now, request: &Request) -> bool {
        let Some(entry) = self.trust.entry(&request.token) else {
            return false;
        };
        if self.is_good_user(&request.token, now.wall()) {
            return matches!(self.evaluate(now, request, Word::None), Outcome::Refuse { .. });
        }
        entry.balance.saturating_sub(self.risk.spent(entry.account)) <= Money::ZERO
    }

    /// Walks the decision order, by what is active.
    pub(crate) fn evaluate(&self, now: &Now, request: &Request, word: Word) -> Outcome {
        self.evaluate_in(now, request, word, InRings::NONE)
    }

    /// Walks the decision order, by what is tried in these rings.
    pub(crate) fn evaluate_in(&self, now: &Now, request: &Request, word: Word, rings: InRings) -> Outcome {
        let at = self.time.at(now);
        let sight = &self.sight(&request.device, rings);
        let refuse = |rule, reason| Outcome::Refuse { reason, rule };
        if sight.of_kind().is_none() {
            return refuse(Rule::Device, RefusalReason::DeviceState);
        }
        if !self.outlet_serves(request) {
            return refuse(Rule::Device, RefusalReason::DeviceState);
        }
        let (device, outlet) = (&request.device, request.outlet);
        if self.reservations.is_for_another(device, outlet, &request.token, at) {
            return refuse(Rule::Device, RefusalReason::Reserved);
        }
        if self.trust.is_revoked(&request.token) || self.trust.is_device_revoked(&request.device) {
            return refuse(Rule::Revoked, RefusalReason::Revoked);
        }
        if let Some(reason) = self.rate(request, sight, at) {
            return refuse(Rule::Rate, reason);
        }
        if sight.tariff(request.kind).is_none() {
            return refuse(Rule::Device, RefusalReason::NoTariff);
        }
        match word {
            // The token of a one-time code is in no list; its account is known only now.
            Word::Proven(proof) if proof.account != 0 && self.trust.is_account_revoked(proof.account) => {
                return refuse(Rule::Revoked, RefusalReason::Revoked);
            }
            Word::Proven(proof) => return self.grant_instrument(request, sight, &proof),
            Word::Unproven(reason) => return refuse(Rule::Instrument, reason),
            Word::NotAsked | Word::None | Word::Accept { .. } | Word::Deny => {}
        }
        match self.basis(now, request, word, sight) {
            // An account that only the cloud or a lease named.
            Ok(basis) if self.trust.is_account_revoked(basis.account) => refuse(Rule::Revoked, RefusalReason::Revoked),
            Ok(basis) => self.grant(request, sight, &basis),
            Err(outcome) => outcome,
        }
    }

    /// The limits of a device's class; none for a class this version cannot serve.
    pub(crate) fn limits_at(&self, device: &DeviceId) -> Option<&KindLimits> {
        self.config.limits.of(self.class_of(device))
    }

    pub(crate) fn class_of(&self, device: &DeviceId) -> Class {
        self.config
            .devices
            .get(device)
            .map_or(Class::Unknown, DeviceConfig::class)
    }

    fn outlet_serves(&self, request: &Request) -> bool {
        let Some(config) = self.config.devices.get(&request.device) else {
            return false;
        };
        let reported = self
            .devices
            .get(&request.device)
            .and_then(|device| device.outlets.get(&request.outlet));
        request.outlet < config.outlets
            && reported.is_none_or(|outlet| match outlet.state {
                OutletState::Free | OutletState::Preparing | OutletState::Busy => true,
                OutletState::Faulted | OutletState::Updating | OutletState::Other => false,
            })
    }

    fn rate(&self, request: &Request, sight: &Sight<'_>, at: Instant) -> Option<RefusalReason> {
        // A device asks for an outlet only when nothing runs there, so an older session at the same outlet is over,
        // even if its stop is still on the way.
        let elsewhere = |other: &Request| (other.device, other.outlet) != (request.device, request.outlet);
        // A silent device may stay silent for days; its user is not locked out for so long. The hold stays.
        let concurrent = self.sessions.active_of(&request.token, request.kind).any(|session| {
            session.request.session != request.session && !session.indeterminate && elsewhere(&session.request)
        });
        if concurrent {
            return Some(RefusalReason::Concurrent);
        }
        // Another session of the token may have begun while the cloud was asked about this one.
        let fast = self
            .velocity
            .exceeds(&request.token, &request.device, at, &sight.limits);
        // As an attempt it was counted when the cloud was asked, and was within the limit then.
        let limit = sight.limits.attempts_a_minute_max;
        let often = self.sessions.get(&request.session).is_none() && self.risk.attempts(&request.token, at) >= limit;
        (fast || often).then_some(RefusalReason::Rate)
    }

    #[expect(
        clippy::result_large_err,
        reason = "one call per request; a box would cost an allocation"
    )]
    /// Steps 4 to 10: on whose word, and for how much at most.
    fn basis(&self, now: &Now, request: &Request, word: Word, sight: &Sight<'_>) -> Result<Basis, Outcome> {
        let refuse = |rule, reason| Err(Outcome::Refuse { reason, rule });
        let at = self.time.at(now);
        let token = &request.token;
        let limits = sight.of_kind().expect("checked before any basis is sought");
        let entry = sight.entry(token);
        let entry = entry.as_ref();
        let expired = entry.is_some_and(|entry| is_over(entry, now.wall()));
        let policy = entry.map(|e| e.whitelist);
        let leased = entry.and_then(|e| self.leases.live(e.account, at, self.time.epoch));
        let mut leased = leased.filter(|(_, left)| *left >= least_of(sight, request));
        let lease_only = entry.is_some_and(|e| e.lease_only);
        let asks = match policy {
            // Whoever is never served on credit needs a lease, and the cloud can give one.
            _ if lease_only && leased.is_none() => true,
            Some(Whitelist::Always | Whitelist::Allowed) => false,
            Some(Whitelist::AllowedOffline | Whitelist::Never) | None => true,
        };
        match word {
            Word::NotAsked if asks && self.health.authorize.mode.asks() => {
                return Err(Outcome::Ask {
                    amount: limits.money_max,
                });
            }
            Word::Accept {
                account,
                money_max,
                credential_revision,
                lease: _,
            } if !lease_only => {
                let rule = Rule::Cloud;
                return Ok(Basis {
                    rule,
                    account,
                    credential_revision,
                    money_max,
                    half: false,
                    unsecured: false,
                    gift: NO_GIFT,
                    lease: 0,
                });
            }
            Word::Accept {
                lease: (epoch, amount), ..
            } if epoch > 0 && leased.is_none_or(|(_, left)| left < amount) => leased = Some((epoch, amount)),
            Word::Deny => return refuse(Rule::Cloud, RefusalReason::Denied),
            Word::NotAsked | Word::None | Word::Accept { .. } | Word::Proven(_) | Word::Unproven(_) => {}
        }
        if self.trust.is_denied(token) {
            return refuse(Rule::Cloud, RefusalReason::Denied);
        }
        match entry {
            Some(e) if !e.valid || expired => refuse(Rule::List, RefusalReason::Invalid),
            Some(e) if leased.is_some() || e.lease_only => match leased {
                Some((lease, money_max)) => Ok(Basis {
                    rule: Rule::Lease,
                    account: e.account,
                    credential_revision: e.credential_revision,
                    money_max,
                    half: false,
                    unsecured: false,
                    gift: NO_GIFT,
                    lease,
                }),
                None => refuse(Rule::Lease, RefusalReason::NoCredit),
            },
            Some(e) if e.whitelist == Whitelist::Never => refuse(Rule::Never, RefusalReason::OnlineRequired),
            Some(e) => {
                let half = match sight.list_age(at) {
                    Age::Full => false,
                    Age::Half => true,
                    Age::Expired => {
                        let cached = self.cached_accept(token, sight, at);
                        return cached.map_or_else(|| refuse(Rule::List, RefusalReason::ListExpired), Ok);
                    }
                };
                let left = e.balance.saturating_sub(self.spent_in(sight, e.account));
                Ok(Basis {
                    rule: Rule::List,
                    account: e.account,
                    credential_revision: e.credential_revision,
                    // What an old list says of a balance is half true: the customer may have spent it elsewhere.
                    money_max: if half { left.half() } else { left },
                    half,
                    unsecured: true,
                    gift: NO_GIFT,
                    lease: 0,
                })
            }
            None => {
                let known = self.cached_accept(token, sight, at);
                let known = known.or_else(|| self.stranger(now, request, limits));
                known.map_or_else(|| refuse(Rule::Unknown, RefusalReason::Unknown), Ok)
            }
        }
    }

    /// Step 8: the cloud accepted this token not long ago. The balance is not known, hence the half caps.
    fn cached_accept(&self, token: &TokenHash, sight: &Sight<'_>, at: Instant) -> Option<Basis> {
        let known = self.trust.confirmed.get(token)?;
        (at.since_ms(known.at) / 1000 <= sight.limits.confirmation_s).then_some(Basis {
            rule: Rule::CachedAccept,
            account: known.account,
            credential_revision: known.credential_revision,
            money_max: Money(i64::MAX),
            half: true,
            unsecured: true,
            gift: NO_GIFT,
            lease: 0,
        })
    }

    /// Step 10: the operator pays.
    fn stranger(&self, now: &Now, request: &Request, limits: &KindLimits) -> Option<Basis> {
        let gift = self.gift(now, request, limits)?;
        Some(Basis {
            rule: Rule::Unknown,
            account: NOBODY,
            credential_revision: 0,
            money_max: Money(i64::MAX),
            half: false,
            unsecured: true,
            gift,
            lease: 0,
        })
    }

    fn evidence(&self, basis: &Basis, sight: &Sight<'_>) -> Evidence {
        let (list_revision, revocations_revision, _) = sight.revisions();
        Evidence {
            mode: self.health.authorize.mode.into(),
            credential_revision: basis.credential_revision,
            list_revision,
            revocations_revision,
            lease: basis.lease,
            instrument: 0,
            gift: basis.gift.0,
        }
    }

    fn grant(&self, request: &Request, sight: &Sight<'_>, basis: &Basis) -> Outcome {
        let limits = sight.of_kind().expect("checked before any basis is sought");
        let tariff = sight.tariff(request.kind).expect("checked before any basis is sought");
        let refuse = |reason| Outcome::Refuse {
            reason,
            rule: basis.rule,
        };
        let mut money_max = if basis.half {
            limits.money_max.half()
        } else {
            limits.money_max
        };
        money_max = money_max.min(basis.money_max);
        if basis.unsecured {
            if self.is_disk_scarce {
                return refuse(RefusalReason::Storage);
            }
            if !self.health.authorize.mode.asks() {
                let tally = self.risk.tally(&request.token, self.class_of(&request.device));
                if tally.count >= limits.outage_count_max {
                    return refuse(RefusalReason::Rate);
                }
                money_max = money_max.min(limits.outage_money_max.saturating_sub(tally.money));
            }
            money_max = money_max.min(sight.limits.site_budget.saturating_sub(self.risk.exposure()));
        }
        if money_max < least(tariff) {
            return refuse(RefusalReason::NoCredit);
        }
        let mut units_max = if basis.half && limits.units_max.0 > 1 {
            Units(limits.units_max.0 / 2)
        } else {
            limits.units_max
        };
        units_max = units_max.min(basis.gift.1);
        if request.units_wished.0 > 0 {
            units_max = units_max.min(request.units_wished);
        }
        if let Some(affordable) = tariff.units_within(register_dimension(request.kind), money_max) {
            units_max = units_max.min(affordable);
        }
        if units_max == Units::ZERO {
            return refuse(RefusalReason::NoCredit);
        }
        let terms = Terms {
            account: basis.account,
            units_max,
            money_max,
            duration_max_s: limits.duration_max_s,
            start_within_s: limits.start_within_s,
            meter_every_s: limits.meter_every_s,
            tariff_hash: sight.tariff_hash(request.kind),
            tariff: tariff.clone(),
            unsecured: basis.unsecured,
            evidence: self.evidence(basis, sight),
            stop_tokens: self.groups.stoppers(
                self.policies.master_group(),
                sight.entry(&request.token).as_ref(),
                &request.token,
            ),
        };
        Outcome::Grant {
            terms,
            rule: basis.rule,
            credential_revision: basis.credential_revision,
        }
    }
}

/// The least that is worth granting; nothing is, if the kind has no price.
fn least_of(sight: &Sight<'_>, request: &Request) -> Money {
    sight.tariff(request.kind).map_or(Money(i64::MAX), least)
}

/// A smaller hold could not even pay for the start.
fn least(tariff: &Tariff) -> Money {
    tariff.start_fee.max(tariff.minimum).max(Money(1))
}
