//! Whether the cloud's word is worth waiting for, for each thing that the cloud does. Link state is not asked: only what
//! the operator's backend says with its own key, and what it fails to say, counts.
//!
//! ONLINE -> SUSPECT after one failure, LOCAL after two within ten seconds, a failed canary or a mass denial, RECOVERING
//! with the first proof, ONLINE after three proofs over at least the configured time. LOCAL is entered at once and left
//! slowly. The modes are a fold over the evidence: [`Health::replay`] gives the same ones from the same log.

mod classify;
mod denials;
mod signal;
mod track;

use alloc::vec::Vec;

use proto::id::{IdToken, TokenHash, TokenKey, TokenKind};
use serde::{Deserialize, Serialize};

use self::denials::Window;
pub use self::{
    classify::{Class, Known, Reply, classify},
    denials::{Breaker, Suspect},
    signal::{Capability, Signal, Weight},
    track::Track,
};
use crate::{
    config::Limits,
    event::{Event, Evidence, ModeChanged},
    time::Instant,
};

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
    /// Says who may draw.
    pub authorize: Track,
    /// Takes ledger records.
    pub commit: Track,
    /// Sends artifacts and commands.
    pub control: Track,
    /// Whom it denies, and whether these are too many.
    pub breaker: Breaker,
    /// Since when records wait with none of them acknowledged.
    pub(crate) unreceipted: Option<Instant>,
    /// When to look at that.
    pub(crate) receipt_look_at: Option<Instant>,
    #[serde(skip)]
    window: Window,
}

impl Health {
    /// What is known of a capability.
    #[must_use]
    pub const fn of(&self, capability: Capability) -> &Track {
        match capability {
            Capability::Authorize => &self.authorize,
            Capability::Commit => &self.commit,
            Capability::Control => &self.control,
        }
    }

    /// Whether the operator's backend itself was heard not long ago. Neither a connection nor a PUBACK says so.
    #[must_use]
    pub fn is_healthy(&self, at: Instant, limits: &Limits) -> bool {
        let heard = self.commit.good_at;
        self.commit.mode == Mode::Online && heard.is_some_and(|heard| at.since_ms(heard) <= limits.echo_fresh_ms)
    }

    /// The evidence, and the change of mode that follows from it.
    pub(crate) fn decide(&self, at: Instant, signal: Signal, token: TokenHash, limits: &Limits) -> Vec<Event> {
        let evidence = Evidence { signal, token };
        let capability = signal.capability();
        let mass = self.is_mass(at, signal, token, limits);
        let mode = self.of(capability).mode_after(at, signal, mass, limits);
        let mut events = alloc::vec![Event::Evidence(evidence)];
        if mode != self.of(capability).mode {
            events.push(Event::ModeChanged(ModeChanged { mode, capability }));
        }
        events
    }

    /// Whether this evidence completes a mass denial.
    pub(crate) fn is_mass(&self, at: Instant, signal: Signal, token: TokenHash, limits: &Limits) -> bool {
        signal == Signal::Denied && self.window.is_mass(at, token, limits)
    }

    /// One more piece of evidence.
    pub(crate) fn apply(&mut self, at: Instant, evidence: &Evidence, limits: &Limits) {
        let Evidence { signal, token } = *evidence;
        let mass = self.is_mass(at, signal, token, limits);
        if signal == Signal::Accepted || signal == Signal::Denied {
            self.window.add(at, token, signal == Signal::Denied, limits);
        }
        self.breaker.apply(at, signal, token, mass);
        let idle = idle_ms(signal.capability(), limits);
        let track = match signal.capability() {
            Capability::Authorize => &mut self.authorize,
            Capability::Commit => &mut self.commit,
            Capability::Control => &mut self.control,
        };
        track.apply(at, signal, mass, idle, limits);
        if self.authorize.mode == Mode::Online && self.breaker.lets_go(at, limits) {
            self.breaker.release();
        }
        if signal == Signal::ReceiptOverdue {
            // Once more soon, so that two failures in a row are two within the window; then the echoes look.
            let again = self.commit.mode.asks();
            self.receipt_look_at = again.then(|| at.plus_ms(limits.probe_ms));
        }
    }

    /// The modes that a log of evidence leads to, without anything else of the gateway's state.
    #[must_use]
    pub fn replay<'a>(log: impl IntoIterator<Item = (Instant, &'a Event)>, limits: &Limits) -> Self {
        let mut health = Self::default();
        for (at, event) in log {
            if let Event::Evidence(evidence) = event {
                health.apply(at, evidence, limits);
            } else if let Event::Booted(_) = event {
                health.boot(at, limits);
            }
        }
        health
    }

    /// For how long records have waited with none of them acknowledged, in ms; 0 if none waits.
    #[must_use]
    pub fn unreceipted_ms(&self, at: Instant) -> u64 {
        self.unreceipted.map_or(0, |since| at.since_ms(since))
    }

    /// Whether records wait too long for their receipt.
    pub(crate) fn is_receipt_overdue(&self, at: Instant, limits: &Limits) -> bool {
        limits.receipt_ms > 0
            && self
                .unreceipted
                .is_some_and(|since| at.since_ms(since) >= limits.receipt_ms)
    }

    /// Records wait for a receipt, or none does. `progress`: some were acknowledged just now.
    pub(crate) fn records_wait(&mut self, at: Instant, wait: bool, progress: bool, limits: &Limits) {
        if !wait {
            (self.unreceipted, self.receipt_look_at) = (None, None);
        } else if progress || self.unreceipted.is_none() {
            self.unreceipted = Some(at);
            let looks = limits.receipt_ms > 0 && limits.echo_ms > 0;
            self.receipt_look_at = looks.then(|| at.plus_ms(limits.receipt_ms));
        }
    }

    pub(crate) fn boot(&mut self, at: Instant, limits: &Limits) {
        self.window.forget();
        self.authorize.boot(at, idle_ms(Capability::Authorize, limits), limits);
        self.commit.boot(at, idle_ms(Capability::Commit, limits), limits);
        self.control.boot(at, idle_ms(Capability::Control, limits), limits);
    }
}

/// How long a capability goes without a probe while it is ONLINE, in ms; 0: until it is LOCAL; `None`: it is never
/// probed.
const fn idle_ms(capability: Capability, limits: &Limits) -> Option<u64> {
    let own_ms = match capability {
        Capability::Authorize => return Some(0),
        Capability::Commit => limits.echo_ms,
        Capability::Control => limits.hello_ms,
    };
    if own_ms > 0 { Some(own_ms) } else { None }
}

/// Key under which the known-bad canaries are hashed; no site has it, so no token of any list is among them.
const CANARY_KEY: TokenKey = TokenKey(*b"holdfast known-bad canary token.");

/// A token that cannot exist, another one for each question.
pub(crate) fn bad_canary(seed: u64, boot: u32, ask: u64) -> TokenHash {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    bytes[8..12].copy_from_slice(&boot.to_be_bytes());
    bytes[12..].copy_from_slice(&ask.to_be_bytes());
    let token = IdToken::new(TokenKind::Card, &bytes).expect("twenty bytes are a token");
    token.hash(&CANARY_KEY)
}

/// A number below `below` that looks random and follows from the others (the finaliser of splitmix64).
pub(crate) const fn spread(seed: u64, n: u64, below: u64) -> u64 {
    let mut x = seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % below
}
