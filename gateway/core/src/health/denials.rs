//! Mass denial: the cloud refuses so many who are known good that it is the cloud that is wrong. And the breaker that
//! it trips: while it is latched no unsigned denial counts for anything.

use alloc::{collections::VecDeque, vec::Vec};

use proto::id::TokenHash;
use serde::{Deserialize, Serialize};

use super::Signal;
use crate::{config::Limits, time::Instant};

/// Most attempts in the window: 200 a second for 20 s. Beyond it the oldest is forgotten.
const WINDOW_ROWS_MAX: usize = 4_096;
/// Most denied tokens remembered, so that a snapshot stays small; canaries need a few.
const SUSPECTS_MAX: usize = 32;

/// What the cloud said of known-good tokens in the last while. Forgotten at boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window(VecDeque<Row>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    at: Instant,
    token: TokenHash,
    denied: bool,
}

impl Window {
    /// Whether the attempt at `at` completes a mass denial.
    pub(super) fn is_mass(&self, at: Instant, token: TokenHash, limits: &Limits) -> bool {
        let recent = || self.0.iter().filter(|row| at.since_ms(row.at) < limits.mass_window_ms);
        let mut denied: Vec<TokenHash> = recent().filter(|row| row.denied).map(|row| row.token).collect();
        let (denials, attempts) = (denied.len() + 1, recent().count() + 1);
        denied.push(token);
        denied.sort_unstable();
        denied.dedup();
        denied.len() >= limits.mass_tokens_min as usize && denials * 100 > attempts * limits.mass_percent as usize
    }

    pub(super) fn add(&mut self, at: Instant, token: TokenHash, denied: bool, limits: &Limits) {
        while self
            .0
            .front()
            .is_some_and(|row| at.since_ms(row.at) >= limits.mass_window_ms || self.0.len() >= WINDOW_ROWS_MAX)
        {
            self.0.pop_front();
        }
        self.0.push_back(Row { at, token, denied });
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// A known-good token that the cloud denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Which.
    pub token: TokenHash,
    /// Since when, without an accept in between.
    pub since: Instant,
}

/// The breaker, and whom the cloud denies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Since when it is latched.
    pub latched: Option<Instant>,
    /// Known-good tokens that were denied and not accepted since, oldest first.
    pub suspects: Vec<Suspect>,
    last_denial: Instant,
    /// Since when every echo was returned.
    echoing: Option<Instant>,
}

impl Breaker {
    pub(super) fn apply(&mut self, at: Instant, signal: Signal, token: TokenHash, mass: bool) {
        match signal {
            Signal::Denied | Signal::DeniedIdle => self.denied(at, token),
            Signal::CanariesWrong if token != TokenHash::ZERO => self.denied(at, token),
            Signal::Accepted | Signal::CanariesRight => self.suspects.retain(|suspect| suspect.token != token),
            Signal::Echoed | Signal::EchoedOnly => self.echoing = Some(self.echoing.unwrap_or(at)),
            Signal::EchoMissed => self.echoing = None,
            Signal::Answered
            | Signal::NoAnswer
            | Signal::Failed
            | Signal::CanariesWrong
            | Signal::CanariesSilent
            | Signal::CanariesThrottled
            | Signal::Receipted
            | Signal::ReceiptOverdue
            | Signal::Welcomed
            | Signal::HelloUnanswered
            | Signal::Artifact
            | Signal::Implausible
            | Signal::Refused
            | Signal::Other => {}
        }
        if mass {
            self.latched = Some(self.latched.unwrap_or(at));
        }
    }

    fn denied(&mut self, at: Instant, token: TokenHash) {
        self.last_denial = at;
        if self.suspects.iter().any(|suspect| suspect.token == token) {
            return;
        }
        if self.suspects.len() >= SUSPECTS_MAX {
            self.suspects.remove(0);
        }
        self.suspects.push(Suspect { token, since: at });
    }

    /// Whether the denials are so long over, and the backend so long back, that the breaker lets go.
    pub(super) fn lets_go(&self, at: Instant, limits: &Limits) -> bool {
        let quiet = at.since_ms(self.last_denial) >= limits.breaker_ms;
        let echoes = self
            .echoing
            .is_some_and(|since| at.since_ms(since) >= limits.breaker_ms);
        self.latched.is_some() && quiet && (echoes || limits.echo_ms == 0)
    }

    pub(super) fn release(&mut self) {
        self.latched = None;
        self.suspects.clear();
    }

    /// Whom the next canary should stand for: one of those who were denied and are `vouched` for still. One alone is that
    /// token's own matter; two and more are the cloud's, and it is not believed before it accepts them, or a newer list
    /// leaves them out.
    pub(crate) fn suspect(&self, turn: u64, vouched: impl Fn(&TokenHash) -> bool) -> Option<TokenHash> {
        self.latched?;
        let tokens = self.suspects.iter().map(|suspect| suspect.token);
        let vouched: Vec<TokenHash> = tokens.filter(vouched).collect();
        (vouched.len() >= 2).then(|| vouched[(turn % vouched.len() as u64) as usize])
    }
}
