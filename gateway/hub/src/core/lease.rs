//! Leases: the hub splits the balance of an account that is never served on credit into slices, each for one gateway
//! (semantics, section 5).
//!
//! Invariant: what is leased and what is not add up to the balance, always. A slice leaves the gateway's hands by its
//! records only: spent by a capture, given back by a return. Time alone frees nothing, and neither does a fence: what a
//! gateway spent behind a backup is not known to anybody, so it stays withheld until the operator releases it.

use std::collections::BTreeMap;

use proto::{
    artifact::{LEASES_MAX, Lease, Leases},
    book::Account,
    id::{AccountId, GatewayId, SessionId},
    link::{Ask, LedgerRecord, RecordKind, Verdict},
    money::Money,
    trust::ArtifactKind,
};

use super::{Alarm, Decision, Effect, Event, Hub, Now, Settings};

/// A lease, by account and epoch.
pub type LeaseKey = (AccountId, u64);

/// Where a lease stands, as the hub knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// Who may spend it.
    pub gateway: GatewayId,
    /// In which epoch of its journal.
    pub journal_epoch: u32,
    /// Revision of the gateway's leases that says the newest about it.
    pub revision: u64,
    /// All of it.
    pub amount: Money,
    /// Not to be spent after (seconds since 1970 UTC).
    pub not_after_s: u64,
    /// Whether the gateway took it over.
    pub is_taken: bool,
    /// Whether it was asked back.
    pub is_recalled: bool,
    /// Charged.
    pub spent: Money,
    /// Held by sessions.
    pub held: Money,
    /// Given back.
    pub returned: Money,
}

impl LeaseRow {
    /// What the gateway may still spend, as far as the hub knows.
    #[must_use]
    pub const fn left(&self) -> Money {
        let gone = self.spent.saturating_add(self.held).saturating_add(self.returned);
        self.amount.saturating_sub(gone)
    }
}

/// What a record does to leases. `last`: number of the newest lease; `held`: the hold that the record ends, and who
/// pays it.
///
/// # Errors
/// Why it cannot be: the record is quarantined then.
pub(super) fn follow(
    rows: &mut BTreeMap<LeaseKey, LeaseRow>,
    last: u64,
    gateway: GatewayId,
    epoch: u32,
    record: &LedgerRecord,
    held: Option<(Account, Money)>,
) -> Result<(), String> {
    let key = (record.account, record.evidence.lease);
    let own = |row: &LeaseRow| row.gateway == gateway;
    match record.kind {
        RecordKind::LeaseTaken => match rows.get_mut(&key) {
            None if key.1 <= last => Err(format!("lease {} of account {} is over", key.1, key.0)),
            // A hub that was put back from a backup has forgotten what it gave.
            None => {
                let row = LeaseRow {
                    gateway,
                    journal_epoch: epoch,
                    revision: 0,
                    amount: record.amount,
                    not_after_s: 0,
                    is_taken: true,
                    is_recalled: false,
                    spent: Money::ZERO,
                    held: Money::ZERO,
                    returned: Money::ZERO,
                };
                rows.insert(key, row);
                Ok(())
            }
            Some(row) if own(row) && !row.is_taken && row.amount == record.amount => {
                row.is_taken = true;
                Ok(())
            }
            Some(row) if row.is_taken => Err(format!("lease {} of account {} was taken before", key.1, key.0)),
            Some(row) => Err(format!(
                "lease {} of account {} is {} for gateway {}",
                key.1, key.0, row.amount, row.gateway
            )),
        },
        RecordKind::LeaseReturn => {
            // A journal that was put back repeats returns that were booked already; a new one it cannot make.
            let row = rows
                .get_mut(&key)
                .filter(|row| own(row) && row.is_taken && row.journal_epoch == epoch);
            let row = row.ok_or_else(|| format!("lease {} of account {} is not in use", key.1, key.0))?;
            if record.amount > row.left() {
                return Err(format!(
                    "{} come back of a lease that has {} left",
                    record.amount,
                    row.left()
                ));
            }
            row.returned = row.returned.saturating_add(record.amount);
            Ok(())
        }
        RecordKind::Hold if key.1 != 0 => {
            let row = rows.get_mut(&key).filter(|row| own(row) && row.is_taken);
            let row = row.ok_or_else(|| format!("lease {} of account {} was never taken", key.1, key.0))?;
            if record.amount > row.left() {
                return Err(format!(
                    "{} held of a lease that has {} left",
                    record.amount,
                    row.left()
                ));
            }
            row.held = row.held.saturating_add(record.amount);
            Ok(())
        }
        RecordKind::Capture | RecordKind::Void => {
            if let Some((Account::Lease(account, lease), hold)) = held
                && let Some(row) = rows.get_mut(&(account, lease))
            {
                row.held = row.held.saturating_sub(hold);
                if record.kind == RecordKind::Capture {
                    row.spent = row.spent.saturating_add(record.amount);
                }
            }
            Ok(())
        }
        RecordKind::Hold | RecordKind::Started | RecordKind::Indeterminate | RecordKind::Other => Ok(()),
    }
}

impl Hub {
    /// Leases that are not used up.
    #[must_use]
    pub const fn leases(&self) -> &BTreeMap<LeaseKey, LeaseRow> {
        &self.leases
    }

    /// Whether an account is never served on credit.
    #[must_use]
    pub fn is_lease_only(&self, account: AccountId) -> bool {
        self.lease_only.contains(&account)
    }

    /// Given to gateways that have not said yet that they have it.
    pub(super) fn untaken(&self, account: AccountId) -> Money {
        let rows = self.leases.range((account, 0)..=(account, u64::MAX));
        rows.filter(|(_, row)| !row.is_taken)
            .fold(Money::ZERO, |sum, (_, row)| sum.saturating_add(row.amount))
    }

    /// Everything a gateway has to know of its leases, up to the size of an artifact; `None`: nothing.
    #[must_use]
    pub fn leases_of(&self, gateway: GatewayId) -> Option<Leases> {
        let journal_epoch = self.gateways.get(&gateway)?.epoch;
        let mut rows: Vec<(&LeaseKey, &LeaseRow)> = self
            .leases
            .iter()
            .filter(|(_, row)| row.gateway == gateway && row.journal_epoch == journal_epoch)
            .filter(|(_, row)| !row.is_taken || row.is_recalled)
            .collect();
        rows.sort_by_key(|(key, row)| (row.revision, **key));
        rows.truncate(LEASES_MAX);
        let revision = rows.last().map(|(_, row)| row.revision)?;
        let entries = rows.iter().map(|((account, epoch), row)| Lease {
            account: *account,
            epoch: *epoch,
            amount: if row.is_recalled { Money::ZERO } else { row.amount },
            not_after_s: row.not_after_s,
        });
        Some(Leases {
            revision,
            gateway,
            journal_epoch,
            entries: entries.collect(),
        })
    }

    /// The answer to a question; for an account that is never served on credit it brings a lease.
    pub(super) fn decide_ask(&self, now: Now, settings: &Settings, gateway: GatewayId, ask: &Ask) -> Decision {
        let mut decision = Decision::default();
        let mut answer = self.answer(now, ask);
        let account = answer.account;
        if answer.verdict == Verdict::Accept && self.is_lease_only(account) && ask.session != SessionId::ZERO {
            answer.money_max = Money::ZERO;
            if let Some(lease) = self.give(now, settings, gateway, account, ask.amount, &mut decision) {
                answer.money_max = lease.amount;
                answer.lease = lease;
            } else {
                self.recall(gateway, account, &mut decision);
            }
        }
        decision.effects.insert(0, Effect::Answer(gateway, answer));
        decision
    }

    /// A new lease where the account is active; `None` if nothing is left to lease, or the gateway is not known.
    fn give(
        &self,
        now: Now,
        settings: &Settings,
        gateway: GatewayId,
        account: AccountId,
        wanted: Money,
        decision: &mut Decision,
    ) -> Option<Lease> {
        let journal_epoch = self.gateways.get(&gateway)?.epoch;
        let amount = wanted.max(settings.lease_slice).min(self.available(account));
        if amount.0 <= 0 {
            return None;
        }
        let lease = Lease {
            account,
            epoch: self.lease_last.saturating_add(1).max(u64::from(self.boot) << 32),
            amount,
            not_after_s: now.wall_s.saturating_add(settings.lease_s),
        };
        let revision = self.lease_revision(gateway) + 1;
        decision.events.push(Event::LeaseGiven {
            gateway,
            journal_epoch,
            revision,
            lease,
        });
        announce(gateway, revision, decision);
        Some(lease)
    }

    /// The account is active at `gateway`, and nothing is left: what lies idle elsewhere is wanted back.
    fn recall(&self, gateway: GatewayId, account: AccountId, decision: &mut Decision) {
        let idle = self.leases.range((account, 0)..=(account, u64::MAX));
        let idle = idle.filter(|(_, row)| row.gateway != gateway && !row.is_recalled && row.left().0 > 0);
        let mut revisions: BTreeMap<GatewayId, u64> = BTreeMap::new();
        for (&(account, epoch), row) in idle {
            let last = revisions.entry(row.gateway).or_insert(self.lease_revision(row.gateway));
            *last += 1;
            decision.events.push(Event::LeaseRecalled {
                account,
                epoch,
                revision: *last,
            });
        }
        for (gateway, revision) in revisions {
            announce(gateway, revision, decision);
        }
    }

    /// After an upload: accounts that used up most of a lease at this gateway get the next one before they need it.
    pub(super) fn renew(
        &self,
        now: Now,
        settings: &Settings,
        gateway: GatewayId,
        after: &BTreeMap<LeaseKey, LeaseRow>,
        decision: &mut Decision,
    ) {
        let mut left: BTreeMap<AccountId, Money> = BTreeMap::new();
        for ((account, _), row) in after.iter().filter(|(_, row)| row.gateway == gateway) {
            let sum = left.entry(*account).or_default();
            *sum = sum.saturating_add(row.left());
        }
        // One for each decision: what `available` says is true for the first only.
        let needy = left.into_iter().find(|(account, left)| {
            left.0 * 2 < settings.lease_slice.0 && self.is_lease_only(*account) && self.untaken(*account).0 == 0
        });
        if let Some((account, _)) = needy {
            self.give(now, settings, gateway, account, settings.lease_slice, decision);
        }
    }

    /// Revision of a gateway's newest leases; 0: none.
    #[must_use]
    pub fn lease_revision(&self, gateway: GatewayId) -> u64 {
        self.lease_revisions.get(&gateway).copied().unwrap_or(0)
    }

    pub(super) fn apply_lease_given(&mut self, gateway: GatewayId, journal_epoch: u32, revision: u64, lease: &Lease) {
        let row = LeaseRow {
            gateway,
            journal_epoch,
            revision,
            amount: lease.amount,
            not_after_s: lease.not_after_s,
            is_taken: false,
            is_recalled: false,
            spent: Money::ZERO,
            held: Money::ZERO,
            returned: Money::ZERO,
        };
        self.leases.insert((lease.account, lease.epoch), row);
        self.lease_last = self.lease_last.max(lease.epoch);
        self.lease_revisions.insert(gateway, revision);
        self.list_stale = true;
    }

    pub(super) fn apply_lease_recalled(&mut self, key: LeaseKey, revision: u64) {
        if let Some(row) = self.leases.get_mut(&key) {
            row.is_recalled = true;
            row.revision = revision;
            self.lease_revisions.insert(row.gateway, revision);
        }
    }

    pub(super) fn follow_leases(
        &mut self,
        gateway: GatewayId,
        epoch: u32,
        record: &LedgerRecord,
        held: Option<(Account, Money)>,
    ) {
        follow(&mut self.leases, self.lease_last, gateway, epoch, record, held)
            .expect("a record is judged by the same rule before it becomes an event");
        let key = match held {
            Some((Account::Lease(account, lease), _)) => (account, lease),
            _ => (record.account, record.evidence.lease),
        };
        self.lease_last = self.lease_last.max(record.evidence.lease);
        let used_up = self
            .leases
            .get(&key)
            .is_some_and(|row| row.is_taken && row.held.0 == 0 && row.left().0 == 0);
        if used_up {
            self.leases.remove(&key);
        }
    }
}

fn announce(gateway: GatewayId, revision: u64, decision: &mut Decision) {
    decision.effects.push(Effect::Artifact {
        gateway,
        kind: ArtifactKind::Lease,
        revision,
        base: 0,
    });
}

/// A gateway's lease is asked for that it cannot have: shown to the operator.
#[must_use]
pub(super) fn withheld(hub: &Hub, gateway: GatewayId, epoch: u32) -> Option<Alarm> {
    let rows = hub.leases.values();
    let amount = rows
        .filter(|row| row.gateway == gateway && row.journal_epoch < epoch)
        .fold(Money::ZERO, |sum, row| sum.saturating_add(row.left()));
    (amount.0 > 0).then_some(Alarm::Withheld { gateway, amount })
}
