//! What left the gateway, and what devices did in the physical world.

use gateway_core::Told;
use proto::{
    id::SessionId,
    message::{Closing, Stop},
};

use super::Auditor;

impl Auditor {
    /// Something left for a device. It must be in the journal.
    pub(crate) fn told(&self, told: &Told) {
        match told {
            Told::Grant(grant) => {
                let hold = self
                    .holds
                    .get(&grant.session)
                    .expect("a grant left before its record was durable");
                assert_eq!((grant.money_max.0, grant.units_max.0), (hold.amount, hold.units_max));
                assert!(
                    grant.decision > 0 && grant.decision <= self.decisions,
                    "the grant names its decision"
                );
            }
            Told::Refusal(refusal) if refusal.session == SessionId::ZERO => {}
            Told::Refusal(refusal) => {
                let reason = self.refused.get(&refusal.session);
                assert_eq!(
                    reason,
                    Some(&refusal.reason),
                    "a refusal left before its record was durable"
                );
            }
            Told::Receipt(receipt) => match receipt.closing {
                Closing::Unknown => {
                    let held = self
                        .holds
                        .get(&receipt.session)
                        .is_some_and(|hold| hold.closed.is_none());
                    assert!(!held, "a session with a hold is called unknown");
                }
                closing => {
                    let hold = self
                        .holds
                        .get(&receipt.session)
                        .expect("a receipt for a session without a hold");
                    let told = Some((closing, receipt.amount.0, receipt.units.0));
                    assert_eq!(told, hold.closed, "a receipt left before its record was durable");
                }
            },
            Told::Clock(_) | Told::Command(_) => {}
        }
    }

    /// An output is switched on.
    pub(crate) fn switched_on(&self, session: Option<SessionId>, place: (usize, usize)) {
        let hold = session.and_then(|session| self.holds.get(&session));
        assert!(
            hold.is_some_and(|hold| hold.closed.is_none()),
            "outlet {place:?} goes on for {session:?} without a durable hold: {hold:?}"
        );
    }

    /// Something flowed.
    pub(crate) fn delivered(&mut self, session: Option<SessionId>, units: u64, place: (usize, usize)) {
        let session = session.unwrap_or_else(|| panic!("{units} flowed at {place:?} for nobody"));
        let hold = self.holds.get(&session);
        assert!(
            hold.is_some_and(|hold| hold.closed.is_none()),
            "{units} flowed for {session}: {hold:?}"
        );
        *self.delivered.entry(session).or_default() += units;
    }

    /// The device reads the register of a session's outlet.
    pub(crate) fn read(&mut self, session: Option<SessionId>) {
        if let Some((session, units)) = session.and_then(|session| self.delivered.get_key_value(&session)) {
            self.read.insert(*session, *units);
        }
    }

    /// The device of a session loses power.
    pub(crate) fn cut(&mut self, session: Option<SessionId>) {
        self.cut.extend(session);
    }

    /// A device says that a session is over; returns whether for the first time.
    pub(crate) fn stopped(&mut self, stop: &Stop) -> bool {
        match self.stops.get(&stop.session) {
            Some(first) => {
                assert_eq!(first, stop, "the same stop, word for word");
                false
            }
            None => {
                let units = stop.register_end.0 - stop.register_start.0;
                let read = self.read.get(&stop.session).copied().unwrap_or(0);
                let lossless = !self.cut.contains(&stop.session);
                assert!(
                    !lossless || units >= read,
                    "{read} were read, the stop says {units}: {stop:?}"
                );
                self.stops.insert(stop.session, stop.clone()).is_none()
            }
        }
    }
}
