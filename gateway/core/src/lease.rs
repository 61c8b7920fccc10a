//! Leases: slices of balances that this gateway alone may spend (semantics, section 5).
//!
//! A lease can be spent only in the epoch of the journal to which it was given. A journal that was put back from a
//! backup has another epoch and does not know what was spent after the backup, so it spends nothing of the old leases.
//! Whatever was leased is either spent here, or comes back by a record of this gateway; never by time alone.

use alloc::collections::{BTreeMap, BTreeSet};

use proto::{
    artifact::{Lease, Leases as Artifact},
    id::{AccountId, DeviceId, Hash, Kind, Name, SessionId, TokenHash},
    link::{Evidence, LedgerRecord, RecordKind},
    message::StopReason,
    money::{Money, Units},
    tariff::Bill,
    trust::ArtifactKind,
};
use serde::{Deserialize, Serialize};

use crate::{
    Ignored, Stale,
    decide::Draft,
    event::{Event, LeaseReturned, LeaseTaken, LeasesRead},
    time::Instant,
};

/// A lease that comes while there is no clock may be spent so long, in ms.
const UNCLOCKED_MS: u64 = 24 * 3_600_000;

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// All of it.
    pub amount: Money,
    /// Charged.
    pub spent: Money,
    /// Given back.
    pub returned: Money,
    /// Until when it may be spent.
    pub until: Instant,
    /// Epoch of the journal in which it may be spent.
    pub journal_epoch: u32,
    /// Sequence of the record that took it.
    pub sequence: u64,
    /// Held by open sessions.
    #[serde(skip)]
    pub held: Money,
}

impl LeaseRow {
    /// What can still be spent or given back.
    #[must_use]
    pub const fn left(&self) -> Money {
        let gone = self.spent.saturating_add(self.returned).saturating_add(self.held);
        self.amount.saturating_sub(gone)
    }
}

/// All leases that are not used up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    rows: BTreeMap<(AccountId, u64), LeaseRow>,
    /// By epoch of the journal, and when they are over: those of which something can be given back.
    ends: BTreeSet<(u32, Instant, AccountId, u64)>,
    pub(crate) revision: u64,
}

impl Leases {
    /// The leases: account, epoch and where each stands.
    pub fn rows(&self) -> impl Iterator<Item = (AccountId, u64, &LeaseRow)> {
        self.rows.iter().map(|(&(account, epoch), row)| (account, epoch, row))
    }

    /// Revision of the newest leases that were read; 0: none.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// One lease.
    pub(crate) fn row(&self, account: AccountId, epoch: u64) -> Option<&LeaseRow> {
        self.rows.get(&(account, epoch))
    }

    /// The leases of an account.
    pub(crate) fn rows_of(&self, account: AccountId) -> impl Iterator<Item = (u64, &LeaseRow)> {
        let rows = self.rows.range((account, 0)..=(account, u64::MAX));
        rows.map(|(&(_, epoch), row)| (epoch, row))
    }

    /// A lease as a snapshot kept it, or a new one.
    pub(crate) fn put(&mut self, account: AccountId, epoch: u64, row: LeaseRow) {
        self.forget(account, epoch);
        if row.left().0 > 0 {
            self.ends.insert((row.journal_epoch, row.until, account, epoch));
        }
        self.rows.insert((account, epoch), row);
    }

    fn forget(&mut self, account: AccountId, epoch: u64) -> Option<LeaseRow> {
        let row = self.rows.remove(&(account, epoch))?;
        self.ends.remove(&(row.journal_epoch, row.until, account, epoch));
        Some(row)
    }

    /// The lease of an account from which most can be spent now: its epoch, and how much.
    pub(crate) fn live(&self, account: AccountId, at: Instant, journal_epoch: u32) -> Option<(u64, Money)> {
        self.rows_of(account)
            .filter(|(_, row)| row.journal_epoch == journal_epoch && at < row.until)
            .map(|(epoch, row)| (epoch, row.left()))
            .max_by_key(|(epoch, left)| (*left, core::cmp::Reverse(*epoch)))
    }

    /// When the next lease is over, of which something can be given back.
    pub(crate) fn next_end(&self, journal_epoch: u32) -> Option<Instant> {
        self.first_end(journal_epoch).map(|(until, ..)| until)
    }

    /// It, and which.
    fn first_end(&self, journal_epoch: u32) -> Option<(Instant, AccountId, u64)> {
        let from = (journal_epoch, Instant::default(), AccountId::MIN, 0);
        let (of_epoch, until, account, epoch) = *self.ends.range(from..).next()?;
        (of_epoch == journal_epoch).then_some((until, account, epoch))
    }

    pub(crate) fn take(&mut self, event: &LeaseTaken) {
        let row = LeaseRow {
            amount: event.lease.amount,
            spent: Money::ZERO,
            returned: Money::ZERO,
            until: event.until,
            journal_epoch: event.journal_epoch,
            sequence: event.record.sequence,
            held: Money::ZERO,
        };
        self.put(event.lease.account, event.lease.epoch, row);
    }

    /// Leases were read up to `revision`. Used up ones may be forgotten once the hub knows that they were taken, which is
    /// up to the record `cursor`: until then it sends them again.
    pub(crate) fn read(&mut self, revision: u64, at: Instant, cursor: u64) {
        self.revision = revision;
        // What has nothing left stands in no index.
        self.rows
            .retain(|_, row| row.left().0 > 0 || row.held.0 > 0 || at < row.until || row.sequence > cursor);
    }

    pub(crate) fn give_back(&mut self, event: &LeaseReturned) {
        self.change(event.account, event.epoch, |row| {
            row.returned = row.returned.saturating_add(event.amount);
        });
    }

    pub(crate) fn hold(&mut self, account: AccountId, epoch: u64, amount: Money) {
        self.change(account, epoch, |row| row.held = row.held.saturating_add(amount));
    }

    /// A hold became a charge, or nothing. The row stays: that an epoch was used up must be remembered, so that the same
    /// lease is not taken twice.
    pub(crate) fn close(&mut self, account: AccountId, epoch: u64, hold: Money, charge: Money) {
        self.change(account, epoch, |row| {
            row.held = row.held.saturating_sub(hold);
            row.spent = row.spent.saturating_add(charge);
        });
    }

    fn change(&mut self, account: AccountId, epoch: u64, change: impl FnOnce(&mut LeaseRow)) {
        if let Some(mut row) = self.forget(account, epoch) {
            change(&mut row);
            self.put(account, epoch, row);
        }
    }
}

impl Draft<'_> {
    /// Leases arrive: new ones are taken over, recalled ones go back.
    pub(crate) fn leases(&mut self, artifact: &Artifact) -> Result<(), Ignored> {
        if self.gateway.config.gateway != Some(artifact.gateway) {
            return Err(Ignored::OtherGateway(artifact.gateway));
        }
        let active = self.gateway.leases.revision;
        if artifact.revision <= active {
            return Err(Ignored::Stale(Stale {
                kind: ArtifactKind::Lease,
                found: artifact.revision,
                active,
            }));
        }
        let revision = artifact.revision;
        if artifact.journal_epoch == self.gateway.time.epoch {
            for lease in &artifact.entries {
                self.lease(lease, revision);
            }
        }
        self.event(Event::LeasesRead(LeasesRead { revision }));
        Ok(())
    }

    /// One lease; nothing if it is known. `revision` 0: it came with an answer, which is about this journal.
    pub(crate) fn lease(&mut self, lease: &Lease, revision: u64) {
        let known = self.gateway.leases.row(lease.account, lease.epoch).copied();
        match (known, lease.amount) {
            (_, _) if lease.epoch == 0 => {}
            (None, amount) if amount.0 > 0 => {
                let left_ms = match self.now.wall() {
                    Some(wall_s) => lease.not_after_s.saturating_sub(wall_s).saturating_mul(1_000),
                    None => UNCLOCKED_MS,
                };
                let record = self.lease_record(RecordKind::LeaseTaken, lease.account, lease.epoch, amount);
                self.event(Event::LeaseTaken(LeaseTaken {
                    lease: *lease,
                    revision,
                    until: self.at.plus_ms(left_ms),
                    journal_epoch: self.gateway.time.epoch,
                    record,
                }));
            }
            (Some(row), Money::ZERO) => self.give_back(lease.account, lease.epoch, &row, revision),
            (None | Some(_), _) => {}
        }
    }

    /// Leases that are over go back. Returns whether one did.
    pub(crate) fn leases_end(&mut self) -> bool {
        let gateway = self.gateway;
        let first = gateway.leases.first_end(gateway.time.epoch);
        let Some((_, account, epoch)) = first.filter(|(until, ..)| *until <= self.at) else {
            return false;
        };
        let row = gateway.leases.row(account, epoch).expect("the index follows the rows");
        self.give_back(account, epoch, row, 0);
        true
    }

    fn give_back(&mut self, account: AccountId, epoch: u64, row: &LeaseRow, revision: u64) {
        let amount = row.left();
        if amount.0 <= 0 || row.journal_epoch != self.gateway.time.epoch {
            return;
        }
        let record = self.lease_record(RecordKind::LeaseReturn, account, epoch, amount);
        self.event(Event::LeaseReturned(LeaseReturned {
            account,
            epoch,
            amount,
            revision,
            record,
        }));
    }

    fn lease_record(&mut self, kind: RecordKind, account: AccountId, epoch: u64, amount: Money) -> LedgerRecord {
        self.sequence += 1;
        LedgerRecord {
            sequence: self.sequence,
            kind,
            session: SessionId::ZERO,
            device: nobody(),
            outlet: 0,
            device_kind: Kind::Unknown,
            token: TokenHash::ZERO,
            account,
            amount,
            register_start: Units::ZERO,
            register_end: Units::ZERO,
            bill: Bill::default(),
            tariff_hash: Hash::ZERO,
            stop_reason: StopReason::Other,
            rule: 0,
            online: false,
            at: self.now.stamp(),
            boot: self.gateway.time.boot,
            evidence: Evidence {
                lease: epoch,
                ..Evidence::default()
            },
        }
    }
}

/// The device of a record that is about none.
fn nobody() -> DeviceId {
    Name::new("none").expect("a name")
}
