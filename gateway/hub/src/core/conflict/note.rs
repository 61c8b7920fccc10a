//! What a gateway hears about its records beside the receipt: those that were not simply booked.

use std::collections::BTreeMap;

use proto::{
    id::{GatewayId, SessionId},
    link::{LedgerReceipt, Mark, NOTES_MAX, Note},
};

use super::Act;
use crate::core::{Decision, Effect, Event, Hub, RecordKey};

impl Hub {
    /// Puts into the receipts of a decision what became of the records behind them. A gateway whose sessions an
    /// operator's word or another gateway's record changed gets a receipt of its own; one that is away then reads it in
    /// the receipt of its next upload that changes them, or with the operator's export.
    pub(in crate::core) fn note(&self, decision: &mut Decision) {
        let mut notes: BTreeMap<(GatewayId, u32), BTreeMap<u64, Mark>> = BTreeMap::new();
        let mut add = |gateway, epoch, sequence, mark| {
            notes.entry((gateway, epoch)).or_default().insert(sequence, mark);
        };
        for event in &decision.events {
            if let Event::Quarantined { at, .. } = event {
                add(at.gateway, at.epoch, at.sequence, Mark::Quarantined);
            } else if let Event::Disputed { at, .. } = event {
                add(at.gateway, at.epoch, at.sequence, Mark::Disputed);
            } else if let Event::Aside { at, exists: false, .. } = event {
                add(at.gateway, at.epoch, at.sequence, Mark::Aside);
            } else if let Event::Adjusted(adjustment) = event
                && adjustment.act != Act::Displace
                && adjustment.about.session != SessionId::ZERO
                && let Some(facts) = self.conflicts.facts.get(&adjustment.about.session)
                && facts.closed_by != 0
            {
                add(facts.gateway, facts.epoch, facts.closed_by, Mark::Adjusted);
            }
        }
        for effect in &mut decision.effects {
            if let Effect::Receipt(gateway, receipt) = effect {
                let found = notes.remove(&(*gateway, receipt.epoch)).unwrap_or_default();
                self.fill(*gateway, receipt, found);
            }
        }
        for ((gateway, epoch), found) in notes {
            let Some(row) = self.gateways.get(&gateway).filter(|row| row.epoch == epoch) else {
                continue; // That epoch is over; nobody there waits for it.
            };
            let mut receipt = LedgerReceipt {
                epoch,
                upto: row.upto,
                hash: row.hash,
                ..LedgerReceipt::default()
            };
            self.fill(gateway, &mut receipt, found);
            decision.effects.push(Effect::Receipt(gateway, receipt));
        }
    }

    fn fill(&self, gateway: GatewayId, receipt: &mut LedgerReceipt, found: BTreeMap<u64, Mark>) {
        let at = |sequence| RecordKey {
            gateway,
            epoch: receipt.epoch,
            sequence,
        };
        receipt.quarantined = self.quarantine.range(at(0)..=at(u64::MAX)).count() as u64;
        let notes = found.into_iter().rev().take(NOTES_MAX);
        receipt.notes = notes.map(|(sequence, mark)| Note { sequence, mark }).collect();
    }
}
