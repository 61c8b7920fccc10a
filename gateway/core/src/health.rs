//! Whether the cloud's word on authorizations is worth waiting for. Link state is not asked: only answers count.
//!
//! ONLINE -> SUSPECT after one failure, LOCAL after two within ten seconds, RECOVERING with the first good probe, ONLINE
//! after three good probes over at least the configured time. LOCAL is entered at once and left slowly.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{
    config::Limits,
    event::{Event, Evidence, ModeChanged},
    time::Instant,
};

/// Two failures within this time make LOCAL, in ms.
const FAILURES_WINDOW_MS: u64 = 10_000;
/// Good probes needed to be ONLINE again.
const PROBES_GOOD_MIN: u32 = 3;

/// Mode of a capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Mode {
    /// The cloud is asked.
    #[default]
    Online,
    /// The cloud is asked; it failed once.
    Suspect,
    /// Nobody waits for the cloud; probes ask.
    Local,
    /// As LOCAL; the probes are good again.
    Recovering,
}

impl Mode {
    /// The word in logs and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::Suspect => "SUSPECT",
            Self::Local => "LOCAL",
            Self::Recovering => "RECOVERING",
        }
    }

    /// Whether a user may wait for the cloud.
    #[must_use]
    pub const fn asks(self) -> bool {
        match self {
            Self::Online | Self::Suspect => true,
            Self::Local | Self::Recovering => false,
        }
    }
}

impl From<Mode> for u8 {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Online => 0,
            Mode::Suspect => 1,
            Mode::Local => 2,
            Mode::Recovering => 3,
        }
    }
}

/// A number of a newer version reads as LOCAL: the mode that trusts the cloud least.
impl From<u8> for Mode {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Online,
            1 => Self::Suspect,
            3 => Self::Recovering,
            _ => Self::Local,
        }
    }
}

/// What was seen of the cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Mode of the authorize capability.
    pub mode: Mode,
    /// Since when.
    pub since: Instant,
    last_failure: Option<Instant>,
    first_good: Option<Instant>,
    goods: u32,
    /// When to probe next; only while nobody asks.
    pub(crate) probe_at: Option<Instant>,
    probe_wait_ms: u64,
}

impl Health {
    /// What an observation changes.
    pub(crate) fn decide(&self, at: Instant, good: bool, probe: bool, limits: &Limits) -> Vec<Event> {
        let mode = self.mode_after(at, good, limits);
        let mut events = alloc::vec![Event::Evidence(Evidence { good, probe })];
        if mode != self.mode {
            events.push(Event::ModeChanged(ModeChanged { mode }));
        }
        events
    }

    fn mode_after(&self, at: Instant, good: bool, limits: &Limits) -> Mode {
        match (self.mode, good) {
            (Mode::Online, true) => Mode::Online,
            (Mode::Suspect, true) => Mode::Online,
            (Mode::Online, false) => Mode::Suspect,
            (Mode::Suspect, false) => match self.last_failure {
                Some(last) if at.since_ms(last) <= FAILURES_WINDOW_MS => Mode::Local,
                Some(_) | None => Mode::Suspect,
            },
            (Mode::Local | Mode::Recovering, false) => Mode::Local,
            (Mode::Local | Mode::Recovering, true) => {
                let long_enough = self
                    .first_good
                    .is_some_and(|first| at.since_ms(first) >= limits.recover_ms);
                if self.goods + 1 >= PROBES_GOOD_MIN && long_enough {
                    Mode::Online
                } else {
                    Mode::Recovering
                }
            }
        }
    }

    pub(crate) fn apply_evidence(&mut self, at: Instant, good: bool, limits: &Limits) {
        if good {
            self.first_good = Some(self.first_good.unwrap_or(at));
            self.goods += 1;
            self.probe_wait_ms = limits.probe_ms;
        } else {
            self.last_failure = Some(at);
            self.first_good = None;
            self.goods = 0;
            let doubled = self.probe_wait_ms.saturating_mul(2).max(limits.probe_ms);
            self.probe_wait_ms = doubled.min(limits.probe_max_ms);
        }
        if !self.mode.asks() {
            self.probe_at = Some(at.plus_ms(self.probe_wait_ms));
        }
    }

    pub(crate) fn apply_mode(&mut self, at: Instant, mode: Mode, limits: &Limits) {
        if mode == Mode::Local && self.mode.asks() {
            self.probe_wait_ms = limits.probe_ms;
        }
        self.mode = mode;
        self.since = at;
        self.probe_at = (!mode.asks()).then(|| at.plus_ms(self.probe_wait_ms.max(limits.probe_ms)));
        if mode == Mode::Online {
            self.goods = 0;
            self.first_good = None;
            self.last_failure = None;
        }
    }

    pub(crate) fn boot(&mut self, at: Instant, limits: &Limits) {
        if !self.mode.asks() {
            self.probe_at = Some(at.plus_ms(limits.probe_ms));
        }
    }
}
