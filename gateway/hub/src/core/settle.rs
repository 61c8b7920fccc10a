//! The operator has looked at records that cannot be booked. They are settled: they no longer stand against their gateway,
//! and the store keeps them for good. Money that they are about is moved by an entry of its own (`holdfast-hub adjust`).

use std::ops::RangeInclusive;

use proto::id::GatewayId;

use super::{Decision, Effect, Event, Hub, OrderRefusal, RecordKey, conflict::check_reason};

/// Quarantined records that the operator has looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settling {
    /// Whose.
    pub gateway: GatewayId,
    /// Epoch of the records.
    pub epoch: u32,
    /// The first that is settled, by its sequence.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Why.
    pub reason: String,
}

impl Settling {
    fn range(&self) -> RangeInclusive<RecordKey> {
        let at = |sequence| RecordKey {
            gateway: self.gateway,
            epoch: self.epoch,
            sequence,
        };
        at(self.first)..=at(self.last.max(self.first))
    }
}

impl Hub {
    pub(super) fn decide_settle(&self, settling: &Settling) -> Decision {
        let mut decision = Decision::default();
        let rows = self.quarantine.range(settling.range()).count() as u64;
        let refusal = check_reason(&settling.reason).err();
        match refusal.or_else(|| (rows == 0).then_some(OrderRefusal::NotQuarantined(settling.gateway))) {
            Some(refusal) => decision.effects.push(Effect::OrderRefused(refusal)),
            None => {
                decision.events.push(Event::QuarantineSettled(settling.clone()));
                decision.effects.push(Effect::Settled(settling.gateway, rows));
            }
        }
        decision
    }

    pub(super) fn apply_settled(&mut self, settling: &Settling) {
        let settled: Vec<RecordKey> = self.quarantine.range(settling.range()).map(|(at, _)| *at).collect();
        for at in settled {
            self.quarantine.remove(&at);
        }
    }

    /// How many records of a gateway wait for the operator, of all its epochs.
    #[must_use]
    pub fn quarantined(&self, gateway: &GatewayId) -> usize {
        let at = |epoch, sequence| RecordKey {
            gateway: *gateway,
            epoch,
            sequence,
        };
        self.quarantine.range(at(0, 0)..=at(u32::MAX, u64::MAX)).count()
    }
}
