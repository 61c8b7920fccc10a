//! The twelve conflicts of semantics, section 8: each has one outcome, and the outcome follows from the facts alone.
//!
//! Facts are what gateways recorded and what the operator said. [`Conflicts`] keeps of them what outcomes depend on;
//! `target` computes from it what the books should show; `adjudicate` books the difference to what they do show, as
//! numbered lines of the hub's own. So whatever order the facts come in, the balances end up the same, and no line is
//! ever changed.
//!
//! Sessions are remembered as long as [`super::SESSIONS_CLOSED_MAX`] allows; what was decided about older ones stands.

mod adjudicate;
mod claim;
mod facts;
pub(crate) mod keep;
mod note;
mod operator;
pub(crate) mod revoked;
mod target;

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    book::{Account, Phase, Transfer},
    id::{AccountId, DeviceId, GatewayId, Hash, Kind, OutletId, SessionId},
    link::LedgerRecord,
    message::ClockQuality,
    money::Money,
};

pub(crate) use adjudicate::{clock_offset_s, clock_skew};
pub(crate) use claim::{Claimed, claimed};
pub use facts::{Facts, Standing};
pub(super) use operator::check_reason;
pub use operator::{Order, OrderRefusal, REASON_BYTES_MAX, account_of};

use revoked::{Revocations, Since};

use super::{LogEntry, RecordKey};

/// What a correction or a case is about: the row of semantics, section 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each variant is named after its row")]
pub enum Class {
    /// None of the twelve: the operator's own decision.
    Operator,
    Revoked,
    Overdraft,
    TwoSites,
    ClockSkew,
    PriceChanged,
    Duplicate,
    Spanned,
    DeviceCrash,
    GatewayCrash,
    DeviceLost,
    Restored,
    AmountsDiffer,
    /// None of the twelve: step 10 of the decision order.
    Emergency,
}

impl Class {
    /// All of them; the position is the frozen number.
    pub const ALL: [Self; 14] = [
        Self::Operator,
        Self::Revoked,
        Self::Overdraft,
        Self::TwoSites,
        Self::ClockSkew,
        Self::PriceChanged,
        Self::Duplicate,
        Self::Spanned,
        Self::DeviceCrash,
        Self::GatewayCrash,
        Self::DeviceLost,
        Self::Restored,
        Self::AmountsDiffer,
        Self::Emergency,
    ];

    /// Its number: 1 to 12 as in the law, 0 the operator, 13 emergency credit.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The class of a number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The word in an export.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Revoked => "revoked",
            Self::Overdraft => "overdraft",
            Self::TwoSites => "two_sites",
            Self::ClockSkew => "clock_skew",
            Self::PriceChanged => "price_changed",
            Self::Duplicate => "duplicate",
            Self::Spanned => "spanned",
            Self::DeviceCrash => "device_crash",
            Self::GatewayCrash => "gateway_crash",
            Self::DeviceLost => "device_lost",
            Self::Restored => "restored",
            Self::AmountsDiffer => "amounts_differ",
            Self::Emergency => "emergency",
        }
    }
}

/// Whom a correction concerns: a session, or, if that is zero, an account as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// Which session; zero: none.
    pub session: SessionId,
    /// Whose account; 0 beside a session.
    pub account: AccountId,
}

impl About {
    pub(crate) const fn session(session: SessionId) -> Self {
        Self { session, account: 0 }
    }

    pub(crate) const fn account(account: AccountId) -> Self {
        Self {
            session: SessionId::ZERO,
            account,
        }
    }
}

/// What booking an adjustment does beside its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A correction of the hub's now amounts to [`Adjustment::total`].
    Correct,
    /// The claim of a gateway on a session gives way to another's.
    Displace,
    /// The operator closed a session whose gateway is silent; `total` is what it cost.
    Close,
    /// The gateway spoke after all: the session is held again.
    Reopen,
    /// The operator moved money.
    Move,
}

impl Act {
    pub(crate) const ALL: [Self; 5] = [Self::Correct, Self::Displace, Self::Close, Self::Reopen, Self::Move];

    /// Its frozen number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// One line of an adjustment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdjustmentLine {
    /// What it does.
    pub phase: Phase,
    /// Whose money.
    pub debit: Account,
    /// Who gets it.
    pub credit: Account,
    /// How much.
    pub amount: Money,
}

/// An entry of the hub's own. Never changed, only followed by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjustment {
    /// 1, 2, 3 ... without a gap.
    pub number: u64,
    /// Which conflict it settles.
    pub class: Class,
    /// What it does beside its lines.
    pub act: Act,
    /// Whom it concerns.
    pub about: About,
    /// Where a correction takes from.
    pub debit: Account,
    /// Where a correction goes to.
    pub credit: Account,
    /// What the correction amounts to with this entry.
    pub total: Money,
    /// The money it moves.
    pub lines: Vec<AdjustmentLine>,
    /// Why, in words. At most [`REASON_BYTES_MAX`].
    pub reason: String,
    /// When, in seconds since 1970 UTC by the hub's clock.
    pub wall_s: u64,
}

impl Adjustment {
    /// As lines of the book.
    pub fn transfers(&self) -> impl Iterator<Item = Transfer> + '_ {
        self.lines.iter().map(|line| Transfer {
            sequence: self.number,
            session: self.about.session,
            phase: line.phase,
            debit: line.debit,
            credit: line.credit,
            amount: line.amount,
        })
    }
}

/// What a correction amounts to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Where it takes from.
    pub debit: Account,
    /// Where it goes to.
    pub credit: Account,
    /// How much; above zero.
    pub amount: Money,
}

/// Something a person should look at. It moves no money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Which conflict.
    pub class: Class,
    /// Whom it concerns.
    pub about: About,
    /// In words.
    pub what: String,
}

/// A second claim on a session id: its records are kept, and not booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The first record of it that is known.
    pub first: RecordKey,
    /// What it charges; `None`: nothing so far.
    pub charged: Option<Money>,
    /// Whether it says the same as the claim that is booked: the same words sent twice, no dispute.
    pub exists: bool,
}

/// What outcomes depend on, and what was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// The hub's clock at the last word of the operator, in seconds since 1970 UTC.
    pub(crate) wall_s: u64,
    /// Number of the last adjustment.
    pub(crate) number: u64,
    pub(crate) facts: BTreeMap<SessionId, Facts>,
    pub(crate) revocations: Revocations,
    /// Since when which price of a kind is in force.
    pub(crate) prices: BTreeMap<Kind, Vec<(u64, Hash)>>,
    pub(crate) corrections: BTreeMap<(Class, About), Correction>,
    pub(crate) asides: BTreeMap<(SessionId, GatewayId, u32), Aside>,
    pub(crate) cases: BTreeMap<(Class, About), Case>,
    /// Accounts that draw nothing unsecured until then.
    pub(crate) barred: BTreeMap<AccountId, u64>,
    /// Charges of class 1 in sessions that are no longer remembered.
    pub(crate) revoked_before: BTreeMap<AccountId, Money>,
    /// Boot, and wall clock less monotonic clock in s, of the last record with a usable clock.
    pub(crate) clocks: BTreeMap<GatewayId, (u32, i64)>,
    index: Index,
}

/// Ways to find facts. All of it follows from them, so two states do not differ in it.
#[derive(Clone, Debug, Default)]
struct Index {
    by_account: BTreeSet<(AccountId, SessionId)>,
    by_instrument: BTreeSet<(u64, SessionId)>,
    by_outlet: BTreeSet<(DeviceId, OutletId, u64, SessionId)>,
    /// Sessions whose device was lost: the next register seen at their outlet says what they delivered.
    lost: BTreeSet<(DeviceId, OutletId, SessionId)>,
    /// The longest register interval at an outlet: none that began further back can reach a given reading.
    longest: BTreeMap<(DeviceId, OutletId), u64>,
}

impl PartialEq for Index {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Index {}

impl Conflicts {
    /// What is known of a session.
    #[must_use]
    pub fn session(&self, session: &SessionId) -> Option<&Facts> {
        self.facts.get(session)
    }

    /// Every session that is remembered.
    #[must_use]
    pub const fn sessions(&self) -> &BTreeMap<SessionId, Facts> {
        &self.facts
    }

    /// Corrections that stand.
    #[must_use]
    pub const fn corrections(&self) -> &BTreeMap<(Class, About), Correction> {
        &self.corrections
    }

    /// Second claims on sessions, by session, gateway and epoch.
    #[must_use]
    pub const fn asides(&self) -> &BTreeMap<(SessionId, GatewayId, u32), Aside> {
        &self.asides
    }

    /// What a person should look at.
    #[must_use]
    pub const fn cases(&self) -> &BTreeMap<(Class, About), Case> {
        &self.cases
    }

    /// Accounts that draw nothing unsecured, and until when (seconds since 1970 UTC).
    #[must_use]
    pub const fn barred(&self) -> &BTreeMap<AccountId, u64> {
        &self.barred
    }

    /// Number of the last adjustment; 0: none.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Whether an account draws nothing unsecured at this time.
    #[must_use]
    pub fn is_barred(&self, account: AccountId, wall_s: u64) -> bool {
        self.barred.get(&account).is_some_and(|until_s| wall_s < *until_s)
    }

    /// A price is in force from the operator's word on.
    pub(crate) fn price_set(&mut self, kind: Kind, hash: Hash) {
        self.prices.entry(kind).or_default().push((self.wall_s, hash));
    }

    /// Revocations are published under this revision.
    pub(crate) fn revoked(&mut self, revision: u64, entries: &[LogEntry]) {
        let at_s = self.wall_s;
        self.revocations.publish(Since { revision, at_s }, entries);
    }

    pub(crate) fn see_clock(&mut self, at: &RecordKey, record: &LedgerRecord) {
        if record.at.quality == ClockQuality::Synchronised {
            let offset_s = adjudicate::clock_offset_s(record);
            self.clocks.insert(at.gateway, (record.boot, offset_s));
        }
    }

    pub(crate) fn put(&mut self, session: SessionId, facts: Facts) {
        self.take(&session);
        self.index.by_account.insert((facts.account, session));
        if facts.evidence.instrument != 0 {
            self.index.by_instrument.insert((facts.evidence.instrument, session));
        }
        let (from, upto) = facts.interval();
        self.index.by_outlet.insert((facts.device, facts.outlet, from, session));
        if facts.lost {
            self.index.lost.insert((facts.device, facts.outlet, session));
        }
        let longest = self.index.longest.entry((facts.device, facts.outlet)).or_default();
        *longest = (*longest).max(upto.saturating_sub(from));
        self.facts.insert(session, facts);
    }

    pub(crate) fn take(&mut self, session: &SessionId) -> Option<Facts> {
        let facts = self.facts.remove(session)?;
        self.index.by_account.remove(&(facts.account, *session));
        self.index.by_instrument.remove(&(facts.evidence.instrument, *session));
        let (from, _) = facts.interval();
        self.index
            .by_outlet
            .remove(&(facts.device, facts.outlet, from, *session));
        self.index.lost.remove(&(facts.device, facts.outlet, *session));
        Some(facts)
    }

    /// A session is forgotten; what was decided about it stands.
    pub(crate) fn forget(&mut self, session: &SessionId) {
        let revoked = self
            .facts
            .get(session)
            .and_then(|facts| self.revoked_charge(session, facts));
        if let (Some(charge), Some(facts)) = (revoked, self.take(session)) {
            let sum = self.revoked_before.entry(facts.account).or_default();
            *sum = sum.saturating_add(charge);
        }
        self.take(session);
        self.corrections
            .retain(|(_, about), _| about.session != *session || *session == SessionId::ZERO);
    }

    /// Sessions whose register interval may touch that of `facts`, and those that ended at its outlet without a word.
    fn neighbours(&self, facts: &Facts) -> Vec<SessionId> {
        let (from, upto) = facts.interval();
        let longest = self
            .index
            .longest
            .get(&(facts.device, facts.outlet))
            .copied()
            .unwrap_or(0);
        let at = |register: u64, session| (facts.device, facts.outlet, register, session);
        let (least, most) = (SessionId([0; 16]), SessionId([255; 16]));
        let low = at(from.saturating_sub(longest), least);
        let touching = self.index.by_outlet.range(low..=at(upto, most));
        let touching = touching.map(|(_, _, _, session)| *session);
        let outlet = |session| (facts.device, facts.outlet, session);
        let lost = self.index.lost.range(outlet(least)..=outlet(most));
        touching.chain(lost.map(|(_, _, session)| *session)).collect()
    }

    /// The least register above or at `upto` at which a later session of the outlet began.
    fn next_register(&self, facts: &Facts) -> Option<u64> {
        let (_, upto) = facts.interval();
        let at = |register: u64, session| (facts.device, facts.outlet, register, session);
        self.index
            .by_outlet
            .range(at(upto, SessionId([0; 16]))..=at(u64::MAX, SessionId([255; 16])))
            .find(|(_, _, _, session)| self.facts.get(session).is_some_and(|next| next.order() > facts.order()))
            .map(|(_, _, register, _)| *register)
    }
}
