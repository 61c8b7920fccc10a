//! What moves the limits: a signed policy, the disk, and how often a token was here in this outage.

use proto::policy::Policy;

use super::Draft;
use crate::{
    Alarm, Ignored,
    event::{DiskChanged, Event},
    session::{Request, Terms},
};

impl Draft<'_> {
    /// Whether a grant is at or above the lower count of its class. Then the cloud is asked once more, in the background:
    /// nobody waits, because local evidence was enough; its accept takes the session out of the site's risk, its
    /// credible denial ends it at the invalidation limit.
    pub(super) fn asks_again(&self, request: &Request, terms: &Terms) -> bool {
        let gateway = self.gateway;
        let limits = gateway.limits_at(&request.device);
        let tally = gateway.risk.tally(&request.token, gateway.class_of(&request.device));
        let is_counted = terms.unsecured && !gateway.health.authorize.mode.asks();
        is_counted && limits.is_some_and(|limits| tally.count >= limits.outage_count_lower)
    }

    pub(super) fn policy(&mut self, policy: &Policy) -> Result<(), Ignored> {
        let (event, alarm) = self.gateway.decide_policy(policy)?;
        self.out.effects.extend(alarm);
        self.staged(event)
    }

    pub(super) fn disk(&mut self, is_scarce: bool) -> Result<(), Ignored> {
        if is_scarce == self.gateway.is_disk_scarce {
            return Err(Ignored::NotDue);
        }
        self.event(Event::DiskChanged(DiskChanged { is_scarce }));
        if is_scarce {
            self.alarm(Alarm::DiskScarce);
        }
        Ok(())
    }
}
