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

/// Low bits of a [`Start`] that name its device; those above are its moment, good for more than 500 years.
const DEVICE_BITS: u32 = 20;
/// Most devices that are told apart: many times as many as a site has.
const DEVICES_MAX: usize = 1 << DEVICE_BITS;

/// When and where a session began: 8 bytes, for [`TOKENS_MAX`] tokens may have [`STARTS_MAX`] of them each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start(u64);

impl Start {
    fn new(at: Instant, device: u32) -> Self {
        let ms = at.0.min(u64::MAX >> DEVICE_BITS);
        Self(ms << DEVICE_BITS | u64::from(device))
    }

    const fn at(self) -> Instant {
        Instant(self.0 >> DEVICE_BITS)
    }

    const fn device(self) -> u32 {
        (self.0 & ((1 << DEVICE_BITS) - 1)) as u32
    }
}

/// What began lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Velocity {
    starts: BTreeMap<TokenHash, VecDeque<Start>>,
    /// Numbers of the devices at which something began.
    devices: BTreeMap<DeviceId, u32>,
}

impl Velocity {
    /// Whether a session that begins now, there, is one too many or too soon.
    pub(crate) fn exceeds(&self, token: &TokenHash, device: &DeviceId, at: Instant, limits: &Limits) -> bool {
        self.is_elsewhere(token, device, at, limits)
            || self.starts(token, at) >= limits.starts_an_hour_max.min(STARTS_MAX as u32)
    }

    /// Whether the token began a session at another device so lately that nobody walks from there to here.
    pub(crate) fn is_elsewhere(&self, token: &TokenHash, device: &DeviceId, at: Instant, limits: &Limits) -> bool {
        let here = self.devices.get(device).copied();
        self.within(token, at, limits.device_change_ms)
            .any(|start| Some(start.device()) != here)
    }

    /// Sessions that a token began within the last hour; at most [`STARTS_MAX`] are remembered.
    pub(crate) fn starts(&self, token: &TokenHash, at: Instant) -> u32 {
        self.within(token, at, WINDOW_MS).count() as u32
    }

    fn within(&self, token: &TokenHash, at: Instant, ms: u64) -> impl Iterator<Item = Start> {
        let starts = self.starts.get(token).into_iter().flatten().copied();
        starts.filter(move |start| at.since_ms(start.at()) < ms)
    }

    pub(crate) fn started(&mut self, token: TokenHash, device: DeviceId, at: Instant) {
        let device = match self.devices.get(&device) {
            Some(number) => *number,
            None => self.number(device),
        };
        if self.starts.len() >= TOKENS_MAX && !self.starts.contains_key(&token) {
            self.starts
                .retain(|_, starts| starts.back().is_some_and(|start| at.since_ms(start.at()) < WINDOW_MS));
            if self.starts.len() >= TOKENS_MAX {
                self.starts.clear();
            }
        }
        let starts = self.starts.entry(token).or_default();
        starts.retain(|start| at.since_ms(start.at()) < WINDOW_MS);
        if starts.len() >= STARTS_MAX {
            starts.pop_front();
        }
        starts.push_back(Start::new(at, device));
    }

    /// The number of a device that has none yet.
    fn number(&mut self, device: DeviceId) -> u32 {
        if self.devices.len() >= DEVICES_MAX {
            self.forget();
        }
        let next = self.devices.len() as u32;
        self.devices.insert(device, next);
        next
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_keeps_its_moment_and_its_device() {
        for (ms, device) in [(0, 0), (1, DEVICES_MAX as u32 - 1), ((1 << 44) - 1, 7)] {
            let start = Start::new(Instant(ms), device);
            assert_eq!((start.at(), start.device()), (Instant(ms), device));
        }
        assert_eq!(Start::new(Instant(u64::MAX), 3).device(), 3);
    }

    #[test]
    fn another_device_is_another_place_and_the_same_one_is_not() {
        let [here, there, nowhere] = ["here", "there", "nowhere"].map(|name| DeviceId::new(name).unwrap());
        let limits = Limits {
            device_change_ms: 1_000,
            ..Limits::default()
        };
        let token = TokenHash([7; 16]);
        let mut velocity = Velocity::default();
        velocity.started(TokenHash([8; 16]), there, Instant(0));
        velocity.started(token, here, Instant(5_000));
        let is_elsewhere = |device, at| velocity.is_elsewhere(&token, device, Instant(at), &limits);
        assert!(!is_elsewhere(&here, 5_999) && is_elsewhere(&there, 5_999) && is_elsewhere(&nowhere, 5_999));
        assert!(!is_elsewhere(&there, 6_000) && !is_elsewhere(&nowhere, 6_000));
        assert_eq!(velocity.starts(&token, Instant(6_000)), 1);
        assert_eq!(velocity.starts(&token, Instant(5_000 + WINDOW_MS)), 0);
    }
}
