//! What happens when nothing happens.

use proto::{id::TokenHash, link::RecordKind, message::StopReason, money::Money};

use super::Draft;
use crate::{
    Ignored,
    event::{Event, Silent},
    health::Signal,
    session::Reading,
};

impl Draft<'_> {
    /// One thing whose time has come: a session that must end, canaries, a lease or a reservation that is over, a
    /// question without an answer, a device without a word, a probe.
    pub(super) fn tick(&mut self) -> Result<(), Ignored> {
        let gateway = self.gateway;
        if let Some(session) = gateway.sessions.invalid() {
            self.limit(session);
            return Ok(());
        }
        if gateway.canaries.is_some_and(|pair| pair.until <= self.at) {
            self.witness(Signal::CanariesSilent, TokenHash::ZERO);
            return Ok(());
        }
        if self.leases_end() || self.reservation_ends() || self.ring_due() {
            return Ok(());
        }
        let Some(session) = gateway.sessions.due(self.at).next() else {
            return if self.probe_due() { Ok(()) } else { Err(Ignored::NotDue) };
        };
        if session.is_asking() {
            self.asked_long_enough(session);
            return Ok(());
        }
        let terms = session
            .terms
            .as_ref()
            .expect("only asking and open sessions have a deadline");
        if session.indeterminate {
            let reading = Reading {
                register: session.register_last,
                elapsed_s: session.elapsed_s,
                idle_s: session.idle_s,
                power_w: 0,
            };
            let mut evidenced = session.clone();
            evidenced.started = true; // What was evidenced is captured, be it nothing; a timeout never voids.
            let shown = (!session.started).then_some(Money::ZERO);
            self.close(&evidenced, terms, &reading, shown, StopReason::Other);
        } else {
            let record = self.record(RecordKind::Indeterminate, session, terms.money_max);
            self.event(Event::Silent(Silent {
                session: session.request.session,
                record,
            }));
        }
        Ok(())
    }
}
