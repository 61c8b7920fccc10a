//! Who was served here lately. A gate or a breaker that asks "how many of the people who really come?" asks here.

use alloc::{collections::BTreeMap, vec::Vec};

use proto::id::TokenHash;

use crate::{
    config::Limits,
    event::{Event, Kept, KeptActivity},
    time::Instant,
};

/// Most tokens remembered: twice the largest list; beyond it those who have not come for long are forgotten.
const TOKENS_MAX: usize = 200_000;
/// Most rows in one event of a snapshot, so that its record stays below the journal's 3.5 KiB.
const ROWS_MAX: usize = 80;

/// When each token was last granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity(BTreeMap<TokenHash, Instant>);

impl Activity {
    /// Whether a token was granted within [`Limits::active_s`] before `at`.
    #[must_use]
    pub fn is_active(&self, token: &TokenHash, at: Instant, limits: &Limits) -> bool {
        self.0.get(token).is_some_and(|last| is_recent(at, *last, limits))
    }

    /// Everybody who was, in order.
    pub fn active<'a>(&'a self, at: Instant, limits: &'a Limits) -> impl Iterator<Item = &'a TokenHash> {
        let recent = move |(token, last): (&'a TokenHash, &Instant)| is_recent(at, *last, limits).then_some(token);
        self.0.iter().filter_map(recent)
    }

    pub(crate) fn granted(&mut self, token: TokenHash, at: Instant, limits: &Limits) {
        if self.0.len() >= TOKENS_MAX && !self.0.contains_key(&token) {
            self.0.retain(|_, last| is_recent(at, *last, limits));
            if self.0.len() >= TOKENS_MAX {
                self.0.clear();
            }
        }
        self.0.insert(token, at);
    }

    pub(crate) fn keep(&mut self, kept: &KeptActivity) {
        self.0.extend(kept.rows.iter().copied());
    }

    pub(crate) fn snapshot(&self, events: &mut Vec<Event>) {
        let rows: Vec<(TokenHash, Instant)> = self.0.iter().map(|(token, at)| (*token, *at)).collect();
        events.extend(
            rows.chunks(ROWS_MAX)
                .map(|part| Event::Kept(Kept::Activity(KeptActivity { rows: part.to_vec() }))),
        );
    }
}

const fn is_recent(at: Instant, last: Instant, limits: &Limits) -> bool {
    at.since_ms(last) / 1000 <= limits.active_s
}
