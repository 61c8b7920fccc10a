//! What happens when nothing happens.

use proto::{link::RecordKind, message::StopReason, money::Money};

use super::Draft;
use crate::{
    Ignored,
    authorize::Word,
    event::{Event, Silent},
    grounds::CloudWord,
    session::Reading,
};

impl Draft<'_> {
    /// One thing whose time has come: a probe, a question without an answer, a device without a word.
    pub(super) fn tick(&mut self) -> Result<(), Ignored> {
        let gateway = self.gateway;
        if let Some(probe) = gateway.probe {
            if probe.until <= self.at {
                let events = gateway.health.decide(self.at, false, true, &gateway.config.limits);
                self.out.events.extend(events);
                return Ok(());
            }
        } else if gateway.health.probe_at.is_some_and(|due| due <= self.at) {
            self.start_probe();
            return Ok(());
        }
        if self.leases_end() {
            return Ok(());
        }
        let session = gateway.sessions.due(self.at).next().ok_or(Ignored::NotDue)?;
        if session.is_asking() {
            let events = gateway.health.decide(self.at, false, false, &gateway.config.limits);
            self.out.events.extend(events);
            self.cloud = (CloudWord::Silence, 0);
            let outcome = gateway.evaluate(self.now, &session.request, Word::None);
            self.conclude(session.request.clone(), outcome);
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
