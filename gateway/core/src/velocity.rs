//! How fast one token begins sessions: a card that is cloned or passed around is at two places at once, or at one place
//! all the time. Counted since the boot; beyond so many tokens the oldest are forgotten.

use alloc::collections::{BTreeMap, VecDeque};

use proto::id::{DeviceId, TokenHash};

use crate::{config::Limits, time::Instant};

/// Length of the window in which starts are counted, in ms.
const WINDOW_MS: u64 = 3_600_000;
/// Most tokens whose starts are counted: a campus of 20,000 has fewer in an hour.
const TOKENS_MAX: usize = 10_000;
/// Most starts remembered of one token: above it every limit that makes sense has struck.
const STARTS_MAX: usize = 128;

/// What began lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Velocity(BTreeMap<TokenHash, VecDeque<(Instant, DeviceId)>>);

impl Velocity {
    /// Whether a session that begins now, there, is one too many or too soon.
    pub(crate) fn exceeds(&self, token: &TokenHash, device: &DeviceId, at: Instant, limits: &Limits) -> bool {
        self.is_elsewhere(token, device, at, limits)
            || self.starts(token, at) >= limits.starts_an_hour_max.min(STARTS_MAX as u32)
    }

    /// Whether the token began a session at another device so lately that nobody walks from there to here.
    pub(crate) fn is_elsewhere(&self, token: &TokenHash, device: &DeviceId, at: Instant, limits: &Limits) -> bool {
        self.within(token, at, limits.device_change_ms)
            .any(|(_, other)| other != device)
    }

    /// Sessions that a token began within the last hour; at most [`STARTS_MAX`] are remembered.
    pub(crate) fn starts(&self, token: &TokenHash, at: Instant) -> u32 {
        self.within(token, at, WINDOW_MS).count() as u32
    }

    fn within(&self, token: &TokenHash, at: Instant, ms: u64) -> impl Iterator<Item = &(Instant, DeviceId)> {
        let starts = self.0.get(token).into_iter().flatten();
        starts.filter(move |(then, _)| at.since_ms(*then) < ms)
    }

    pub(crate) fn started(&mut self, token: TokenHash, device: DeviceId, at: Instant) {
        if self.0.len() >= TOKENS_MAX && !self.0.contains_key(&token) {
            self.0
                .retain(|_, starts| starts.back().is_some_and(|(then, _)| at.since_ms(*then) < WINDOW_MS));
            if self.0.len() >= TOKENS_MAX {
                self.0.clear();
            }
        }
        let starts = self.0.entry(token).or_default();
        starts.retain(|(then, _)| at.since_ms(*then) < WINDOW_MS);
        if starts.len() >= STARTS_MAX {
            starts.pop_front();
        }
        starts.push_back((at, device));
    }

    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}
