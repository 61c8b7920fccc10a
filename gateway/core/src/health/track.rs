//! The mode of one capability: entered at once, left slowly.

use serde::{Deserialize, Serialize};

use super::{Mode, Signal, signal::Weight, spread};
use crate::{config::Limits, time::Instant};

/// What is known of one capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Its mode.
    pub mode: Mode,
    /// Since when.
    pub since: Instant,
    /// The last thing seen; `None`: nothing yet.
    pub last: Option<Signal>,
    /// When.
    pub last_at: Instant,
    /// When it last worked.
    pub good_at: Option<Instant>,
    /// When it last failed since it was ONLINE.
    last_failure: Option<Instant>,
    /// The first of the proofs in a row.
    first_proof: Option<Instant>,
    proofs: u32,
    /// When to probe next.
    pub(crate) probe_at: Option<Instant>,
    probe_wait_ms: u64,
}

impl Track {
    /// The mode with one more signal. `mass`: the signal completes a mass denial.
    pub(super) fn mode_after(&self, at: Instant, signal: Signal, mass: bool, limits: &Limits) -> Mode {
        match (self.mode, signal.weight()) {
            (_, _) if mass => Mode::Local,
            (mode, Weight::Neutral) => mode,
            (_, Weight::Fatal) => Mode::Local,
            (Mode::Online | Mode::Suspect, Weight::Good { .. }) => Mode::Online,
            (Mode::Online, Weight::Failure) => Mode::Suspect,
            (Mode::Suspect, Weight::Failure) => match self.last_failure {
                Some(last) if at.since_ms(last) <= limits.failures_window_ms => Mode::Local,
                Some(_) | None => Mode::Suspect,
            },
            (Mode::Local | Mode::Recovering, Weight::Failure) => Mode::Local,
            (mode @ (Mode::Local | Mode::Recovering), Weight::Good { proves: false }) => mode,
            (Mode::Local | Mode::Recovering, Weight::Good { proves: true }) => {
                let first = self.first_proof.unwrap_or(at);
                let long_enough = at.since_ms(first) >= recover_ms(first, limits);
                if self.proofs + 1 >= limits.recover_proofs && long_enough {
                    Mode::Online
                } else {
                    Mode::Recovering
                }
            }
        }
    }

    /// `idle_ms`: how long an ONLINE capability goes without a probe; 0: for ever; `None`: it is never probed.
    pub(super) fn apply(&mut self, at: Instant, signal: Signal, mass: bool, idle_ms: Option<u64>, limits: &Limits) {
        let before = self.mode;
        self.mode = self.mode_after(at, signal, mass, limits);
        (self.last, self.last_at) = (Some(signal), at);
        match signal.weight() {
            Weight::Good { proves } => {
                self.good_at = Some(at);
                if proves {
                    self.first_proof = Some(self.first_proof.unwrap_or(at));
                    self.proofs = self.proofs.saturating_add(1);
                    self.probe_wait_ms = limits.probe_ms;
                }
            }
            Weight::Failure | Weight::Fatal => self.failed(at, signal, limits),
            Weight::Neutral if mass => self.failed(at, signal, limits),
            Weight::Neutral if signal.ends_probe() => self.slow_down(limits),
            Weight::Neutral => {}
        }
        if self.mode != before {
            self.since = at;
            if self.mode == Mode::Local && before.asks() {
                self.probe_wait_ms = limits.probe_ms;
            }
            if self.mode == Mode::Online {
                (self.last_failure, self.first_proof, self.proofs) = (None, None, 0);
            }
        }
        if self.mode != before || signal.ends_probe() || self.mode.asks() {
            self.plan(at, idle_ms, limits);
        }
    }

    fn failed(&mut self, at: Instant, signal: Signal, limits: &Limits) {
        self.last_failure = Some(at);
        (self.first_proof, self.proofs) = (None, 0);
        if signal.ends_probe() {
            self.slow_down(limits);
        }
    }

    fn slow_down(&mut self, limits: &Limits) {
        let doubled = self.probe_wait_ms.saturating_mul(2).max(limits.probe_ms);
        self.probe_wait_ms = doubled.min(limits.probe_max_ms);
    }

    fn plan(&mut self, at: Instant, idle_ms: Option<u64>, limits: &Limits) {
        let wait_ms = idle_ms.map_or(0, |idle_ms| match self.mode {
            Mode::Local | Mode::Recovering => self.probe_wait_ms.max(limits.probe_ms),
            // Where users ask they will tell; a capability that has probes of its own is looked at again soon.
            Mode::Suspect => limits.probe_ms.min(idle_ms),
            Mode::Online => idle_ms,
        });
        self.probe_at = (wait_ms > 0).then(|| at.plus_ms(wait_ms));
    }

    pub(super) fn boot(&mut self, at: Instant, idle_ms: Option<u64>, limits: &Limits) {
        let soon_ms = idle_ms.map_or(0, |idle_ms| match self.mode.asks() {
            true => idle_ms.min(limits.probe_ms),
            false => limits.probe_ms,
        });
        self.probe_at = (soon_ms > 0).then(|| at.plus_ms(soon_ms));
    }
}

/// How long proofs must last before LOCAL is left: the configured time and up to a third more, so that a thousand
/// gateways which saw the same outage do not come back in the same second.
pub(super) const fn recover_ms(first: Instant, limits: &Limits) -> u64 {
    limits.recover_ms + spread(limits.jitter_seed, first.0, limits.recover_ms / 3 + 1)
}
