//! Freezing what is published. The frozen content is state, so that signing it again after a restart gives the same
//! bytes under the same revision.

use proto::{
    artifact::{ListEntry, PublicKey, TariffOf, TariffTable, Whitelist},
    money::Money,
    trust::ArtifactKind,
};

use super::{Decision, Effect, Event, Hub, Now, Settings, TokenRow, state::REVOCATION_WINDOW};

/// The list follows balances, leases and debts at most so often, in seconds; what the operator imports and what is revoked
/// does not wait. A gateway writes each list that it adopts to its flash.
pub const LIST_LEAST_S: u64 = 300;

/// A full list as it is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedList {
    /// Grows with every list.
    pub revision: u64,
    /// When it was made, in seconds since 1970 UTC.
    pub issued_s: u64,
    /// Sorted by token.
    pub entries: Vec<ListEntry>,
}

/// What a decision is about to change, and which publications follow from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// Tokens or accounts change.
    pub(super) list: bool,
    /// Revocations added.
    pub(super) revocations: usize,
    /// A price changes.
    pub(super) tariffs: bool,
}

impl Hub {
    /// Publishes what is stale, and the list again when it is old: its balances move with every session, and gateways
    /// trust it less with age.
    pub(super) fn decide_publication(&self, now: Now, settings: &Settings) -> Decision {
        let mut decision = Decision::default();
        let old = settings.list_every_s > 0
            && self
                .list
                .as_ref()
                .is_some_and(|list| now.wall_s >= list.issued_s.saturating_add(settings.list_every_s));
        let changes = Changes {
            list: old,
            ..Changes::default()
        };
        self.publish(now, changes, &mut decision);
        decision
    }

    /// Publishes the key that signs, if gateways cannot know it yet.
    pub(super) fn decide_keys(&self, signing: PublicKey, root: PublicKey) -> Decision {
        let mut decision = Decision::default();
        let known = match &self.keys {
            Some(set) => set.keys == [signing],
            None => signing == root,
        };
        if !known {
            let epoch = self.keys.as_ref().map_or(0, |set| set.epoch) + 1;
            let keys = vec![signing];
            decision.events.push(Event::KeysPublished { epoch, keys });
            announce(&mut decision, ArtifactKind::Keys, epoch, 0);
        }
        decision
    }

    /// Kind and revision of everything that a gateway without any artifact needs, keys and revocations first.
    #[must_use]
    pub fn published(&self) -> Vec<(ArtifactKind, u64)> {
        let keys = self.keys.as_ref().map(|set| (ArtifactKind::Keys, set.epoch));
        let revocations = self.revocations_to_send(0).into_iter();
        let tariffs = self
            .tariff_table
            .as_ref()
            .map(|table| (ArtifactKind::Tariffs, table.revision));
        let policy = self
            .policy
            .as_ref()
            .map(|policy| (ArtifactKind::Policy, policy.revision));
        let list = self.list.as_ref().map(|list| (ArtifactKind::List, list.revision));
        keys.into_iter()
            .chain(revocations.map(|revision| (ArtifactKind::Revocations, revision)))
            .chain(tariffs)
            .chain(policy)
            .chain(list)
            .collect()
    }

    pub(super) fn publish(&self, now: Now, changes: Changes, decision: &mut Decision) {
        let waiting = self.revocation_log.len() - self.revocations_published() + changes.revocations;
        for page in 1..=waiting.div_ceil(REVOCATION_WINDOW) as u64 {
            let revision = self.revocations_revision() + page;
            decision.events.push(Event::RevocationsPublished { revision });
            announce(decision, ArtifactKind::Revocations, revision, 0);
        }
        if self.tariffs_stale || changes.tariffs {
            let revision = self.tariff_table.as_ref().map_or(0, |table| table.revision) + 1;
            decision.events.push(Event::TariffsPublished { revision });
            announce(decision, ArtifactKind::Tariffs, revision, 0);
        }
        let is_due = |list: &PublishedList| now.wall_s.abs_diff(list.issued_s) >= LIST_LEAST_S;
        let stale = self.list_stale && self.list.as_ref().is_none_or(is_due);
        if stale || changes.list || changes.revocations > 0 {
            let base = self.list.as_ref().map_or(0, |list| list.revision);
            let revision = base + 1;
            decision.events.push(Event::ListPublished {
                revision,
                issued_s: now.wall_s,
            });
            announce(decision, ArtifactKind::List, revision, base);
        }
    }

    pub(super) fn freeze_list(&self, revision: u64, issued_s: u64) -> PublishedList {
        let entries = self
            .tokens
            .iter()
            .filter(|(_, row)| row.listed)
            .map(|(token, row)| ListEntry {
                token: *token,
                account: row.account,
                group: row.group,
                valid: row.valid && !self.is_revoked(token),
                whitelist: self.whitelist_of(row, issued_s),
                credential_revision: row.credential_revision,
                balance: self.available(row.account),
                not_after_s: row.not_after_s,
                lease_only: self.is_lease_only(row.account),
            })
            .collect();
        PublishedList {
            revision,
            issued_s,
            entries,
        }
    }

    /// Who owes, or spent one balance twice, draws only what the hub itself accepts. There is one list for all sites,
    /// so this holds at home, too; a lease serves offline all the same.
    fn whitelist_of(&self, row: &TokenRow, wall_s: u64) -> Whitelist {
        let owes = self.arrears(row.account) > Money::ZERO;
        if owes || self.conflicts.is_barred(row.account, wall_s) {
            return Whitelist::Never;
        }
        row.whitelist
    }

    pub(super) fn freeze_tariffs(&self, revision: u64) -> TariffTable {
        let entries = self
            .tariffs
            .iter()
            .map(|(kind, tariff)| TariffOf {
                kind: *kind,
                tariff: tariff.clone(),
            })
            .collect();
        TariffTable { revision, entries }
    }
}

fn announce(decision: &mut Decision, kind: ArtifactKind, revision: u64, base: u64) {
    decision.effects.push(Effect::Announce { kind, revision, base });
}
