//! Step 10: what somebody gets whom nobody knows. Emergency credit is so much a day for each token, for kinds that keep
//! people alive; a free-vend window is the operator's signed word that for some hours nobody is to be asked. Both are
//! paid by the operator, within the site's budget.

use alloc::collections::{BTreeMap, BTreeSet};

use proto::{id::TokenHash, link::Gift, money::Units};
use serde::{Deserialize, Serialize};

use crate::{
    Gateway, List,
    config::KindLimits,
    session::Request,
    time::{Instant, Now},
};

/// Emergency credit renews after so long, in ms: a day.
const DAY_MS: u64 = 24 * 3_600_000;
/// Most tokens that draw emergency credit in one day; nobody else gets any until the day of one of them is over.
const DRAWN_MAX: usize = 10_000;
/// Most tokens remembered that once stood in the list.
const GONE_MAX: usize = 20_000;

/// What one token drew on emergency credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    /// When its day began.
    pub since: Instant,
    /// How much since then: what is granted, then what was delivered.
    pub units: Units,
}

/// Who drew, and who is no stranger although the list does not name him.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strangers {
    pub(crate) drawn: BTreeMap<TokenHash, Drawn>,
    /// Tokens that left the list: seen once, so not unknown.
    pub(crate) gone: BTreeSet<TokenHash>,
}

impl Strangers {
    /// What is left of a token's day.
    fn left(&self, token: &TokenHash, day: Units, at: Instant) -> Units {
        let lives = |drawn: &&Drawn| at.since_ms(drawn.since) < DAY_MS;
        match self.drawn.get(token).filter(lives) {
            Some(drawn) => day.since(drawn.units),
            None if self.drawn.len() < DRAWN_MAX || self.drawn.values().any(|drawn| !lives(&drawn)) => day,
            None => Units::ZERO,
        }
    }

    pub(crate) fn draw(&mut self, token: TokenHash, units: Units, at: Instant) {
        if self.drawn.len() >= DRAWN_MAX {
            self.drawn.retain(|_, drawn| at.since_ms(drawn.since) < DAY_MS);
        }
        let fresh = Drawn {
            since: at,
            units: Units::ZERO,
        };
        let drawn = self.drawn.entry(token).or_insert(fresh);
        if at.since_ms(drawn.since) >= DAY_MS {
            *drawn = fresh;
        }
        drawn.units.0 = drawn.units.0.saturating_add(units.0);
    }

    /// A session that began at `began` delivered less than was granted.
    pub(crate) fn give_back(&mut self, token: &TokenHash, units: Units, began: Instant) {
        if let Some(drawn) = self.drawn.get_mut(token).filter(|drawn| drawn.since <= began) {
            drawn.units = drawn.units.since(units);
        }
    }

    /// The list changed.
    pub(crate) fn list_changed(&mut self, before: &List, now: &List) {
        self.gone.retain(|token| !now.rows().has(token));
        let left = before.rows().tokens().iter().copied();
        let left = left.filter(|token| !now.rows().has(token));
        let room = GONE_MAX.saturating_sub(self.gone.len());
        self.gone.extend(left.take(room));
    }
}

impl Gateway {
    /// Whether nobody ever heard of a token. One that was listed, accepted, denied or revoked is not unknown.
    fn is_stranger(&self, token: &TokenHash) -> bool {
        self.trust.entry(token).is_none()
            && !self.trust.confirmed.contains_key(token)
            && !self.trust.denied.contains_key(token)
            && !self.trust.revoked.has_token(token, 0)
            && !self.strangers.gone.contains(token)
    }

    /// Why, and how many units at most, a stranger gets.
    pub(crate) fn gift(&self, now: &Now, request: &Request, limits: &KindLimits) -> Option<(Gift, Units)> {
        if !self.is_stranger(&request.token) {
            return None;
        }
        let at = self.time.at(now);
        let class = self.config.devices.get(&request.device)?.class();
        let left = self.strangers.left(&request.token, limits.emergency_units, at);
        if left > Units::ZERO {
            return Some((Gift::Emergency, left.min(limits.units_max)));
        }
        let window = self.policies.free_vend(class, now.synchronised_s())?;
        Some((Gift::FreeVend, window.units_max.min(limits.units_max)))
    }
}
