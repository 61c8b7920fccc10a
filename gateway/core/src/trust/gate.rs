//! The gate: what is genuine is not yet sound. A list or a price table that differs too much from the active one is set
//! aside until a person has looked at it.

use core::fmt;

use proto::{
    artifact::{ListEntry, TariffOf, Whitelist},
    id::{AccountId, Kind, TokenHash},
    money::Money,
    tariff::{Dimension, Tariff},
};
use serde::{Deserialize, Serialize};

use super::{Trust, is_over};
use crate::{Activity, config::Limits, lease::Leases, spent::Spent, time::Instant};

/// Most hundredths by which a list may be shorter than the active one.
const SHRINK_PERCENT_MAX: u64 = 5;
/// Most thousandths of the tokens in use that a list may refuse.
const USERS_REFUSED_PERMILLE_MAX: u64 = 5;
/// Most hundredths of the balances that may go to zero.
const ZEROED_PERCENT_MAX: u64 = 1;
/// Most hundredths by which a price may change, up or down.
const PRICE_PERCENT_MAX: u64 = 50;
/// A fee of one minor unit, in the thousandths in which prices are given.
const MILLI: i64 = 1_000;

/// The price that changes most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceChange {
    /// Of what.
    pub kind: Kind,
    /// In thousandths of a minor unit.
    pub before: i64,
    /// In thousandths of a minor unit.
    pub after: i64,
}

impl PriceChange {
    const fn is_doubtful(&self) -> bool {
        self.before.abs_diff(self.after) as u128 * 100 > self.before.unsigned_abs() as u128 * PRICE_PERCENT_MAX as u128
    }

    /// How much it changes, to compare changes: in millionths of the price before.
    const fn share(&self) -> u128 {
        let before = self.before.unsigned_abs() as u128;
        let least = if before == 0 { 1 } else { before };
        self.before.abs_diff(self.after) as u128 * 1_000_000 / least
    }
}

/// What the gate found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Entries of the active list.
    pub active: u32,
    /// Entries of the new one.
    pub found: u32,
    /// Tokens that the active list serves and that were in use in the last 7 days.
    pub users: u32,
    /// Of these, how many the new list would refuse.
    pub users_refused: u32,
    /// Entries in both lists with something left on their balance, after what was spent here.
    pub balances: u32,
    /// Of these, how many have nothing left in the new list.
    pub balances_zeroed: u32,
    /// The price that changes most, if any does.
    pub price: Option<PriceChange>,
}

/// Whether `part` is more than `share` of `of`, the share in units of 1/`unit`.
const fn exceeds(part: u32, of: u32, share: u64, unit: u64) -> bool {
    part as u64 * unit > of as u64 * share
}

impl Findings {
    /// Whether it has lost more entries than may be.
    #[must_use]
    pub const fn shrinks(&self) -> bool {
        exceeds(
            self.active.saturating_sub(self.found),
            self.active,
            SHRINK_PERCENT_MAX,
            100,
        )
    }

    /// Whether it refuses more users than may be.
    #[must_use]
    pub const fn refuses(&self) -> bool {
        exceeds(self.users_refused, self.users, USERS_REFUSED_PERMILLE_MAX, 1000)
    }

    /// Whether it empties more balances than may be.
    #[must_use]
    pub const fn empties(&self) -> bool {
        exceeds(self.balances_zeroed, self.balances, ZEROED_PERCENT_MAX, 100)
    }

    /// Whether a price changes by more than it may.
    #[must_use]
    pub const fn reprices(&self) -> bool {
        match &self.price {
            Some(price) => price.is_doubtful(),
            None => false,
        }
    }

    /// Whether a person has to look at it.
    #[must_use]
    pub const fn are_doubtful(&self) -> bool {
        self.shrinks() || self.refuses() || self.empties() || self.reprices()
    }
}

impl fmt::Display for Findings {
    /// What is doubtful, with its figures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut next = |f: &mut fmt::Formatter<'_>| {
            let before = core::mem::replace(&mut separator, "; ");
            f.write_str(before)
        };
        if self.shrinks() {
            next(f)?;
            write!(f, "{} entries instead of {}", self.found, self.active)?;
        }
        if self.refuses() {
            next(f)?;
            write!(
                f,
                "{} of {} users of the last 7 days refused",
                self.users_refused, self.users
            )?;
        }
        if self.empties() {
            next(f)?;
            write!(f, "{} of {} balances go to zero", self.balances_zeroed, self.balances)?;
        }
        if let Some(price) = self.price.filter(PriceChange::is_doubtful) {
            next(f)?;
            let (kind, before, after) = (price.kind.word(), price.before, price.after);
            write!(f, "a price of the {kind} goes from {before} to {after} thousandths")?;
        }
        if !self.are_doubtful() {
            f.write_str("nothing doubtful")?;
        }
        Ok(())
    }
}

/// Who looks at the gate: the moment, the wall clock if there is one, and what was spent here.
pub(crate) struct Look<'a> {
    pub(crate) at: Instant,
    pub(crate) wall_s: Option<u64>,
    pub(crate) activity: &'a Activity,
    pub(crate) limits: &'a Limits,
    pub(crate) spent: &'a Spent,
    pub(crate) leases: &'a Leases,
}

impl Look<'_> {
    /// Whether there is, or was lately, a lease of this account here.
    fn is_leased(&self, account: AccountId) -> bool {
        self.leases.rows_of(account).next().is_some()
    }
}

impl Trust {
    /// Compares a whole list with the active one. The first list ever has nothing to be compared with.
    pub(crate) fn compare_list(&self, entries: &[ListEntry], look: &Look<'_>) -> Findings {
        let mut findings = Findings {
            active: self.list.rows.len() as u32,
            found: entries.len() as u32,
            ..Findings::default()
        };
        let mut new = entries.iter().peekable();
        for old in self.list.rows.iter() {
            while new.next_if(|new| new.token < old.token).is_some() {}
            let new = new.next_if(|new| new.token == old.token);
            self.compare_entry(&old, new, look, &mut findings);
        }
        findings
    }

    fn compare_entry(&self, old: &ListEntry, new: Option<&ListEntry>, look: &Look<'_>, findings: &mut Findings) {
        let token = &old.token;
        let in_use = look.activity.is_active(token, look.at, look.limits);
        if in_use && self.serves(old, look.wall_s) && !self.is_denied(token) {
            findings.users += 1;
            let served = |new: &ListEntry| {
                // Who had credit and gets none any more needs a lease to be served.
                let credit = old.lease_only || !new.lease_only || look.is_leased(new.account);
                credit && self.serves(new, look.wall_s)
            };
            findings.users_refused += u32::from(!new.is_some_and(served));
        }
        // What was spent here explains a balance that is gone, and so does a lease. Who has no credit needs none.
        let left = old.balance.saturating_sub(look.spent.of(old.account));
        let unexplained = |new: &&ListEntry| left > Money::ZERO && !new.lease_only && !look.is_leased(new.account);
        if let Some(new) = new.filter(unexplained) {
            findings.balances += 1;
            findings.balances_zeroed += u32::from(new.balance <= Money::ZERO);
        }
    }

    /// Whether an entry alone would serve its token when the cloud is silent.
    fn serves(&self, entry: &ListEntry, wall_s: Option<u64>) -> bool {
        let usable = entry.valid && entry.whitelist != Whitelist::Never && !is_over(entry, wall_s);
        usable && !self.revokes(&entry.token, entry.credential_revision, entry.account)
    }

    /// Whether a credential is revoked, in this revision and with this account.
    fn revokes(&self, token: &TokenHash, credential_revision: u64, account: AccountId) -> bool {
        let newest = self.confirmed.get(token).map_or(0, |c| c.credential_revision);
        self.revoked.has_token(token, credential_revision.max(newest)) || self.revoked.has_account(account)
    }

    /// Compares prices with the active ones. A kind that had no price has nothing to be compared with.
    pub(crate) fn compare_tariffs(&self, entries: &[TariffOf]) -> Findings {
        let changes = entries.iter().flat_map(|entry| {
            let active = self.tariffs.get(&entry.kind);
            active
                .into_iter()
                .flat_map(move |old| price_changes(entry.kind, old, &entry.tariff))
        });
        Findings {
            price: changes
                .filter(|change| change.share() > 0)
                .max_by_key(PriceChange::share),
            ..Findings::default()
        }
    }
}

/// Every price of two tariffs, side by side: the fees, and of each dimension the highest and the lowest price.
fn price_changes<'a>(kind: Kind, old: &'a Tariff, new: &'a Tariff) -> impl Iterator<Item = PriceChange> + 'a {
    let fee = move |before: Money, after: Money| PriceChange {
        kind,
        before: before.0.saturating_mul(MILLI),
        after: after.0.saturating_mul(MILLI),
    };
    let fees = [
        fee(old.start_fee, new.start_fee),
        fee(old.minimum, new.minimum),
        fee(old.cap, new.cap),
    ];
    let prices = |tariff: &Tariff, dimension: Dimension| {
        let of = tariff
            .elements
            .iter()
            .filter(move |element| element.dimension == dimension);
        let milli = of.map(|element| element.price_milli);
        (milli.clone().min().unwrap_or(0), milli.max().unwrap_or(0))
    };
    let extremes = Dimension::ALL.iter().flat_map(move |&dimension| {
        let ((low, high), (new_low, new_high)) = (prices(old, dimension), prices(new, dimension));
        [(low, new_low), (high, new_high)].map(|(before, after)| PriceChange { kind, before, after })
    });
    fees.into_iter().chain(extremes)
}
