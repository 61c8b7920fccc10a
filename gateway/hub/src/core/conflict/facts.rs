//! What is remembered of a session, as its gateway told it.

use proto::{
    book::Account,
    id::{AccountId, DeviceId, GatewayId, Hash, Kind, OutletId, TokenHash},
    link::{Evidence, LedgerRecord, RecordKind},
    message::{ClockQuality, StopReason},
    money::{Money, Units},
    tariff::Bill,
};
use serde::{Deserialize, Serialize};

use super::{RecordKey, keep::account_parts};

/// Where a session's money stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// Set aside.
    Held,
    /// Set aside, and the device is silent.
    Indeterminate,
    /// Charged.
    Captured,
    /// Released: nothing was delivered.
    Voided,
    /// Closed by the operator at the hub; its gateway has not spoken.
    ClosedHere,
}

/// A session, as far as outcomes depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whose journal holds it.
    pub gateway: GatewayId,
    /// Which sequence of that journal.
    pub epoch: u32,
    /// Number of the hold in it.
    pub sequence: u64,
    /// Number of the record that closed it; 0: none yet.
    pub closed_by: u64,
    /// Where the money stands.
    pub standing: Standing,
    /// Who drew.
    pub token: TokenHash,
    /// On whose account.
    pub account: AccountId,
    /// What was dispensed.
    pub kind: Kind,
    /// Where.
    pub device: DeviceId,
    /// Which outlet.
    pub outlet: OutletId,
    /// Who pays.
    #[serde(with = "account_parts")]
    pub payer: Account,
    /// The rule that granted.
    pub rule: u8,
    /// Whether the cloud had accepted before.
    pub online: bool,
    /// What the grant relied on.
    pub evidence: Evidence,
    /// The price granted.
    pub tariff_hash: Hash,
    /// When it was granted, in seconds since 1970 UTC; 0: no clock was fit to tell.
    pub held_s: u64,
    /// Whether that clock was synchronised.
    pub synchronised: bool,
    /// What was set aside.
    pub hold: Money,
    /// What it cost.
    pub charged: Money,
    /// Quantities.
    pub bill: Bill,
    /// Register at the start.
    pub register_start: Units,
    /// Register at the end.
    pub register_end: Units,
    /// Whether the charge is the last checkpoint of a device that fell silent for good.
    pub lost: bool,
    /// The first list published after this session's charge was committed: older ones show a balance without it.
    pub known_from: u64,
}

impl Facts {
    /// A session begins.
    #[must_use]
    pub fn held(at: &RecordKey, record: &LedgerRecord) -> Self {
        let (held_s, synchronised) = match record.at.quality {
            ClockQuality::Synchronised => (record.at.wall_s, true),
            ClockQuality::Informative => (record.at.wall_s, false),
            ClockQuality::Unknown | ClockQuality::Relative => (0, false),
        };
        Self {
            gateway: at.gateway,
            epoch: at.epoch,
            sequence: at.sequence,
            closed_by: 0,
            standing: Standing::Held,
            token: record.token,
            account: record.account,
            kind: record.device_kind,
            device: record.device,
            outlet: record.outlet,
            payer: Account::payer(record.account, &record.evidence),
            rule: record.rule,
            online: record.online,
            evidence: record.evidence,
            tariff_hash: record.tariff_hash,
            held_s,
            synchronised,
            hold: record.amount,
            charged: Money::ZERO,
            bill: Bill::default(),
            register_start: record.register_start,
            register_end: record.register_start,
            lost: false,
            known_from: 0,
        }
    }

    /// The session goes on.
    pub fn hear(&mut self, at: &RecordKey, record: &LedgerRecord) {
        match record.kind {
            RecordKind::Started if self.is_open() => self.standing = Standing::Held,
            RecordKind::Indeterminate if self.is_open() => self.standing = Standing::Indeterminate,
            RecordKind::Started | RecordKind::Indeterminate => {}
            RecordKind::Capture => {
                // A device that spoke again gives a reason; silence has none.
                self.lost = self.standing == Standing::Indeterminate && record.stop_reason == StopReason::Other;
                self.standing = Standing::Captured;
                self.online = record.online;
                self.charged = record.amount;
                self.bill = record.bill;
                self.register_start = record.register_start;
                self.register_end = record.register_end;
                self.closed_by = at.sequence;
            }
            RecordKind::Void => {
                self.standing = Standing::Voided;
                self.closed_by = at.sequence;
            }
            RecordKind::Hold | RecordKind::LeaseReturn | RecordKind::LeaseTaken | RecordKind::Other => {}
        }
    }

    /// Who gets back what was charged too much. What a lease has spent stays spent: it is the customer's money again.
    #[must_use]
    pub const fn refunds_to(&self) -> Account {
        match self.payer {
            Account::Lease(account, _) => Account::Customer(account),
            payer => payer,
        }
    }

    /// Whether money is set aside.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.standing, Standing::Held | Standing::Indeterminate)
    }

    /// Whether a gateway has charged it.
    #[must_use]
    pub const fn is_captured(&self) -> bool {
        matches!(self.standing, Standing::Captured)
    }

    /// Whether it was granted at the site's risk.
    #[must_use]
    pub const fn is_unsecured(&self) -> bool {
        !self.online && self.evidence.lease == 0 && self.evidence.instrument == 0
    }

    /// The register interval: from, and up to.
    #[must_use]
    pub const fn interval(&self) -> (u64, u64) {
        (self.register_start.0, self.register_end.0)
    }

    /// Its place among the sessions of its device: never a clock's word.
    #[must_use]
    pub const fn order(&self) -> (GatewayId, u32, u64) {
        (self.gateway, self.epoch, self.sequence)
    }

    /// Its place among sessions of different sites: by the clock if there is one, and always a place of its own.
    #[must_use]
    pub const fn order_across_sites(&self) -> (u64, GatewayId, u32, u64) {
        let held_s = if self.held_s == 0 { u64::MAX } else { self.held_s };
        (held_s, self.gateway, self.epoch, self.sequence)
    }
}
