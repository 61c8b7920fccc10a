//! A person at an outlet: brings a thing, presents a token, waits, is served or not, and leaves.

use proto::{
    id::{IdToken, Kind, OutletId, SessionId},
    money::Units,
};

use super::{Battery, Outgoing, Twin, Verdict};

/// From arriving to presenting the token, in ms.
const HANDS_MS: u64 = 200;
/// Between two gestures with the same card, in ms: the device takes quicker ones for one.
const GESTURE_MS: u64 = 2_500;
/// How long a user stays for the receipt, in ms.
const LINGER_MS: u64 = 5_000;

/// What a user brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// To a charger.
    Battery(Battery),
    /// To a washer.
    Laundry,
    /// To a dispenser.
    Vessel {
        /// Its room, in ml.
        volume_ml: u64,
    },
}

/// How a user ends the visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// When the device says that it is over.
    WhenDone,
    /// By presenting the token again, so long after delivery began, in ms.
    ByToken(u64),
    /// By taking the thing away, so long after delivery began, in ms. A locked door does not open.
    ByTaking(u64),
    /// By the stop button, before the answer.
    BeforeAnswer,
}

/// What a user means to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub outlet: OutletId,
    /// Who.
    pub token: IdToken,
    /// Asked for; zero: no wish.
    pub units_wished: Units,
    /// Brought.
    pub thing: Thing,
    /// The end.
    pub leaves: Leaves,
    /// After so long the user presses stop and goes, in ms.
    pub patience_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Arriving,
    Asking,
    Served,
    Leaving { since_ms: u64 },
    Gone,
}

/// One visit on its way.
#[derive(Debug)]
pub struct Visit {
    plan: Plan,
    stage: Stage,
    arrived_ms: u64,
    presented_ms: u64,
    session: Option<SessionId>,
}

impl Visit {
    /// The user arrives.
    #[must_use]
    pub const fn new(plan: Plan, now_ms: u64) -> Self {
        Self {
            plan,
            stage: Stage::Arriving,
            arrived_ms: now_ms,
            presented_ms: now_ms,
            session: None,
        }
    }

    /// What the user means to do.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The session of this visit; `None` before the token was presented, or if the device took no session.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Whether the user has left.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    /// Does what is to be done now; returns what the device says to it.
    pub fn step(&mut self, now_ms: u64, twin: &mut Twin) -> Vec<Outgoing> {
        let outlet = self.plan.outlet;
        let out_of_patience = now_ms >= self.arrived_ms + self.plan.patience_ms;
        match self.stage {
            Stage::Arriving => {
                if now_ms < self.arrived_ms + HANDS_MS {
                    return Vec::new();
                }
                self.arrive(now_ms, twin)
            }
            Stage::Asking | Stage::Served if out_of_patience => {
                self.stage = Stage::Leaving { since_ms: now_ms };
                let mut out = twin.press_stop(now_ms, outlet);
                out.extend(twin.take_away(now_ms, outlet));
                out
            }
            Stage::Asking => self.await_answer(now_ms, twin),
            Stage::Served => self.be_served(now_ms, twin),
            Stage::Leaving { since_ms } => {
                let closed = self.truth(twin).is_none_or(super::SessionTruth::is_closed);
                if closed || now_ms >= since_ms + LINGER_MS {
                    self.stage = Stage::Gone;
                }
                // Again and again: a washer unlocks its door only after a while.
                twin.take_away(now_ms, outlet)
            }
            Stage::Gone => Vec::new(),
        }
    }

    fn arrive(&mut self, now_ms: u64, twin: &mut Twin) -> Vec<Outgoing> {
        let outlet = self.plan.outlet;
        let mut out = twin.bring(now_ms, outlet, self.plan.thing);
        let (session, said) = twin.present(now_ms, outlet, self.plan.token.clone(), self.plan.units_wished);
        out.extend(said);
        self.presented_ms = now_ms;
        self.session = session;
        self.stage = match session {
            Some(_) => Stage::Asking,
            None => Stage::Leaving { since_ms: now_ms },
        };
        out
    }

    fn await_answer(&mut self, now_ms: u64, twin: &mut Twin) -> Vec<Outgoing> {
        let Some(truth) = self.truth(twin) else {
            return Vec::new();
        };
        let (verdict, ended) = (truth.verdict, truth.ended.is_some());
        match verdict {
            Verdict::Granted { .. } => {
                self.stage = Stage::Served;
                if twin.config().kind == Kind::Washer {
                    return twin.press_start(now_ms, self.plan.outlet);
                }
            }
            Verdict::Refused(_) => self.stage = Stage::Leaving { since_ms: now_ms },
            Verdict::Unanswered if ended => self.stage = Stage::Leaving { since_ms: now_ms },
            Verdict::Unanswered if self.plan.leaves == Leaves::BeforeAnswer => {
                return twin.press_stop(now_ms, self.plan.outlet);
            }
            Verdict::Unanswered => {}
        }
        Vec::new()
    }

    fn be_served(&mut self, now_ms: u64, twin: &mut Twin) -> Vec<Outgoing> {
        let Some(truth) = self.truth(twin) else {
            return Vec::new();
        };
        // The display says it is over long before the gateway hears of it, if the link is down; whose card then meets
        // the reader would begin a session that nobody wants.
        if truth.ended.is_some() || twin.session(self.plan.outlet) != self.session {
            self.stage = Stage::Leaving { since_ms: now_ms };
            return twin.take_away(now_ms, self.plan.outlet);
        }
        let served_ms = truth
            .started_ms
            .map_or(0, |started_ms| now_ms.saturating_sub(started_ms));
        let hand_free = now_ms >= self.presented_ms + GESTURE_MS;
        match self.plan.leaves {
            Leaves::ByToken(after_ms) if hand_free && served_ms >= after_ms.max(1) => {
                self.presented_ms = now_ms;
                let token = self.plan.token.clone();
                twin.present(now_ms, self.plan.outlet, token, Units::ZERO).1
            }
            Leaves::ByTaking(after_ms) if served_ms >= after_ms.max(1) => twin.take_away(now_ms, self.plan.outlet),
            Leaves::WhenDone | Leaves::ByToken(_) | Leaves::ByTaking(_) | Leaves::BeforeAnswer => Vec::new(),
        }
    }

    fn truth<'a>(&self, twin: &'a Twin) -> Option<&'a super::SessionTruth> {
        twin.truth().session(self.session?)
    }
}
