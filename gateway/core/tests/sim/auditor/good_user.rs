//! Who may not be refused, ever (semantics, section 9), said once and without the decision order: a token valid in the
//! last adopted list, policy other than NEVER, within its limits, at a sound and free outlet.

use gateway_core::{Mode, Rule, event::Refused};
use proto::{
    artifact::Whitelist,
    message::{OutletState, RefusalReason},
};

use super::Auditor;
use crate::{bill, world::DAY_MS};

impl Auditor {
    /// Whether the one who is refused is a good user. Where wrong clocks leave a doubt about the age of the list, he is not
    /// claimed to be one.
    pub(super) fn is_good_user(&self, t_ms: u64, e: &Refused) -> bool {
        // He went away, or the cloud accepted him for less than the least.
        let own = e.reason != RefusalReason::Other && e.rule != Rule::Cloud;
        own && self.is_valid(e) && self.is_within_limits(t_ms, e) && self.can_pay(e) && self.is_sound_and_free(e)
    }

    fn is_valid(&self, e: &Refused) -> bool {
        let token = &e.request.token;
        let entry = self.list.get(token);
        let listed = entry.is_some_and(|entry| entry.valid && entry.whitelist != Whitelist::Never);
        listed && !self.is_revoked(token) && !self.is_denied(token)
    }

    fn is_within_limits(&self, t_ms: u64, e: &Refused) -> bool {
        let (request, token) = (&e.request, &e.request.token);
        let waited = self.waiting.contains_key(&request.session);
        let attempts = self.attempts(token, t_ms) - usize::from(waited);
        let place = (request.device, request.outlet);
        let concurrent = self.elsewhere(request.session, *token, request.kind, place);
        let class = self.class_of(&request.device);
        let tally = self.tallies.get(&(*token, class)).copied().unwrap_or_default();
        let Some(limits) = self.limits.of(class) else {
            return false;
        };
        let dark = matches!(e.mode, Mode::Local | Mode::Recovering);
        let rated = attempts >= self.limits.attempts_a_minute_max as usize;
        let used_up = dark && tally.0 >= limits.outage_count_max;
        let fast = self.is_fast(t_ms, token, &request.device);
        !rated && !concurrent && !fast && !used_up && !self.law.is_disk_scarce
    }

    /// His own money and the site's, as an old list would leave it; more if the list is young.
    fn can_pay(&self, e: &Refused) -> bool {
        let request = &e.request;
        let class = self.class_of(&request.device);
        let (Some(limits), Some(tariff)) = (self.limits.of(class), self.tariffs.get(&request.kind)) else {
            return false;
        };
        let Some(entry) = self.list.get(&request.token) else {
            return false;
        };
        let balance = entry.balance.0 - self.spent.get(&entry.account).copied().unwrap_or(0);
        let tally = self.tallies.get(&(request.token, class)).copied().unwrap_or_default();
        let left = (balance / 2)
            .min(limits.money_max.0 / 2)
            .min(limits.outage_money_max.0 - tally.1)
            .min(self.limits.site_budget.0 - self.exposure());
        left >= bill::least(tariff) && self.last_ms - self.list_adopted_ms < self.limits.list_half_s * 1000 - 3 * DAY_MS
    }

    fn is_sound_and_free(&self, e: &Refused) -> bool {
        let place = (e.request.device, e.request.outlet);
        let state = self.reported.get(&place).copied().unwrap_or(OutletState::Free);
        let serves = !matches!(state, OutletState::Faulted | OutletState::Updating | OutletState::Other);
        let reserved = self.is_reserved_for_another(place, &e.request.token);
        serves && !reserved && !self.is_device_revoked(&e.request.device)
    }
}
