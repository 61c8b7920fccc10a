//! What really happened, kept beside the device and never asked of it: what was physically delivered in which session,
//! and what the user of each session saw. Auditors compare it with what gateway and hub wrote down.

use std::collections::BTreeMap;

use proto::{
    codec,
    id::{OutletId, SessionId},
    message::{Grant, Receipt, Refusal, RefusalReason, Started, Stop, StopReason},
    money::{Money, Units},
    seal::{Direction, FRAME_BYTES_MAX, PairSecret, SealKey},
    topic::{self, Down, Up},
};

/// Water and current that still run so long after switching off belong to the valve, not to a fault, in ms.
const TAIL_MS: u64 = 1_000;

/// The answer that the user got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None yet, or none before the session ended.
    Unanswered,
    /// Yes.
    Granted {
        /// The hold.
        money_max: Money,
        /// Most units.
        units_max: Units,
    },
    /// No.
    Refused(RefusalReason),
}

/// One session, as the world saw it. Delivered quantities are in thousandths of the kind's base unit.
#[derive(Clone, Debug)]
pub struct SessionTruth {
    /// Its id.
    pub session: SessionId,
    /// Where.
    pub outlet: OutletId,
    /// When the user presented the token.
    pub asked_ms: u64,
    /// The answer.
    pub verdict: Verdict,
    /// When it came.
    pub verdict_ms: Option<u64>,
    /// When the device said that delivery began.
    pub started_ms: Option<u64>,
    /// When and why the device said that it is over.
    pub ended: Option<(u64, StopReason)>,
    /// What the device showed the user, at the end.
    pub shown: Money,
    /// What the device's register counted, at the end.
    pub register_units: Units,
    /// Delivered under the grant, and with the valve closing.
    pub delivered_milli: u64,
    /// Delivered without: must be zero.
    pub ungranted_milli: u64,
    /// The receipt: when and what.
    pub receipt: Option<(u64, Receipt)>,
}

/// The books of one twin.
#[derive(Debug)]
pub struct Truth {
    up: SealKey,
    down: SealKey,
    sessions: BTreeMap<SessionId, SessionTruth>,
    /// The last session of each outlet.
    current: BTreeMap<OutletId, SessionId>,
    /// Since when each output has been off.
    off_since_ms: BTreeMap<OutletId, Option<u64>>,
    stray_milli: u64,
}

impl Truth {
    pub(super) fn new(secret: &PairSecret) -> Self {
        Self {
            up: secret.key(Direction::Up),
            down: secret.key(Direction::Down),
            sessions: BTreeMap::new(),
            current: BTreeMap::new(),
            off_since_ms: BTreeMap::new(),
            stray_milli: 0,
        }
    }

    /// Every session, in the order of their ids, which is the order in which the device minted them.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionTruth> {
        self.sessions.values()
    }

    /// One session.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<&SessionTruth> {
        self.sessions.get(&session)
    }

    /// Delivered outside any session, in thousandths of the base unit: must be zero.
    #[must_use]
    pub const fn stray_milli(&self) -> u64 {
        self.stray_milli
    }

    pub(super) fn asked(&mut self, now_ms: u64, outlet: OutletId, session: SessionId) {
        self.current.insert(outlet, session);
        self.sessions.entry(session).or_insert(SessionTruth {
            session,
            outlet,
            asked_ms: now_ms,
            verdict: Verdict::Unanswered,
            verdict_ms: None,
            started_ms: None,
            ended: None,
            shown: Money::ZERO,
            register_units: Units::ZERO,
            delivered_milli: 0,
            ungranted_milli: 0,
            receipt: None,
        });
    }

    pub(super) fn switched(&mut self, now_ms: u64, outlet: OutletId, on: bool) {
        self.off_since_ms.insert(outlet, if on { None } else { Some(now_ms) });
    }

    pub(super) fn delivered(&mut self, now_ms: u64, outlet: OutletId, milli: u64) {
        if milli == 0 {
            return;
        }
        let session = self.current.get(&outlet).and_then(|s| self.sessions.get_mut(s));
        let Some(session) = session else {
            self.stray_milli += milli;
            return;
        };
        let granted = matches!(session.verdict, Verdict::Granted { .. });
        let running = match self.off_since_ms.get(&outlet) {
            Some(None) => true,
            Some(Some(off_ms)) => now_ms <= off_ms + TAIL_MS,
            None => false,
        };
        if granted && running {
            session.delivered_milli += milli;
        } else {
            session.ungranted_milli += milli;
        }
    }

    /// Listens to what the device says.
    pub(super) fn said(&mut self, now_ms: u64, topic: &str, frame: &[u8]) {
        let Some((_, word)) = topic::parse_up(topic) else {
            return;
        };
        let Ok(opened) = self.up.open(topic, frame, FRAME_BYTES_MAX) else {
            return;
        };
        match word {
            Up::Started => {
                let Ok(started) = codec::decode::<Started>(opened.body) else {
                    return;
                };
                self.with(started.session, |s| {
                    s.started_ms.get_or_insert(now_ms);
                });
            }
            Up::Stop => {
                let Ok(stop) = codec::decode::<Stop>(opened.body) else {
                    return;
                };
                self.with(stop.session, |s| {
                    s.ended.get_or_insert((now_ms, stop.reason));
                    s.shown = stop.shown;
                    s.register_units = stop.register_end.since(stop.register_start);
                    if stop.started {
                        s.started_ms.get_or_insert(now_ms);
                    }
                });
            }
            Up::Hello | Up::Authorize | Up::Redeemed | Up::Meter | Up::Status | Up::CommandAnswer | Up::Update => {}
        }
    }

    /// Listens to what the device hears. Only the first answer of a session counts, as for the user.
    pub(super) fn heard(&mut self, now_ms: u64, topic: &str, frame: &[u8]) {
        let Some((_, word)) = topic::parse_down(topic) else {
            return;
        };
        let Ok(opened) = self.down.open(topic, frame, FRAME_BYTES_MAX) else {
            return;
        };
        match word {
            Down::Grant => {
                let Ok(grant) = codec::decode::<Grant>(opened.body) else {
                    return;
                };
                let verdict = Verdict::Granted {
                    money_max: grant.money_max,
                    units_max: grant.units_max,
                };
                self.with(grant.session, |s| s.answer(now_ms, verdict));
            }
            Down::Refusal => {
                let Ok(refusal) = codec::decode::<Refusal>(opened.body) else {
                    return;
                };
                self.with(refusal.session, |s| s.answer(now_ms, Verdict::Refused(refusal.reason)));
            }
            Down::Receipt => {
                let Ok(receipt) = codec::decode::<Receipt>(opened.body) else {
                    return;
                };
                self.with(receipt.session, |s| {
                    s.receipt.get_or_insert((now_ms, receipt));
                });
            }
            Down::Clock | Down::Command | Down::Offer | Down::Piece => {}
        }
    }

    fn with(&mut self, session: SessionId, note: impl FnOnce(&mut SessionTruth)) {
        if let Some(session) = self.sessions.get_mut(&session) {
            note(session);
        }
    }
}

impl SessionTruth {
    fn answer(&mut self, now_ms: u64, verdict: Verdict) {
        if self.verdict_ms.is_none() && self.ended.is_none() {
            self.verdict = verdict;
            self.verdict_ms = Some(now_ms);
        }
    }

    /// Whether nothing more will happen: refused, or ended and receipted.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.verdict, Verdict::Refused(_)) || (self.ended.is_some() && self.receipt.is_some())
    }
}
