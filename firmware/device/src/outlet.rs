//! The session of one outlet, from the token to the receipt; the same machine for all kinds.
//!
//! ```text
//! Idle -> Asking -> Starting -> Running -> Idle, with a stop that waits for its receipt
//!                      power loss: Recovering -> Running | Idle
//! ```
//! Invariant: the output is wanted only in `Starting` and `Running`, both of which have a stored grant.

use heapless::Vec;
use proto::{
    id::{IdToken, OutletId, SessionId, TokenHash},
    instrument::Instrument,
    message::{Stamp, StartProof, Stop, StopReason},
    money::{Money, Units},
};

use crate::{
    config::{AUTHORIZE_GIVE_UP_MS, CHECKPOINT_EVERY_MS, NOTICE_MS, Supply, Tuning},
    fault::Latch,
    io::{Screen, Sense},
    link::Retry,
    output::Output,
    progress::Mark,
    rules::View,
    stored::{CLOSED_MAX, Open, OutletRecord, Progress},
    voice::Voice,
};

/// What every step needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) now_ms: u64,
    pub(crate) stamp: Stamp,
    pub(crate) second_of_day: Option<u32>,
    pub(crate) supply: Supply,
    pub(crate) tuning: &'a Tuning,
}

/// A token at the reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) token: &'a IdToken,
    /// What proves it, if it proves itself.
    pub(crate) instrument: &'a Instrument,
    /// Under the device's own key.
    pub(crate) hash: TokenHash,
    /// Under the site's key, if the device has it.
    pub(crate) site_hash: Option<TokenHash>,
}

/// Where the session is. The durable part is [`OutletRecord::open`].
#[allow(
    clippy::large_enum_variant,
    reason = "there is no heap; each outlet has one of these"
)]
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Idle,
    Asking(Asking),
    /// Granted; the start is not proven.
    Starting {
        deadline_ms: u64,
    },
    Running(Running),
    /// After a boot, with a granted session in storage.
    Recovering {
        since_ms: u64,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) token: IdToken,
    pub(crate) instrument: Instrument,
    pub(crate) since_ms: u64,
    pub(crate) retry: Retry,
    /// At least one authorize left: a grant may be on its way.
    pub(crate) sent: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// Accounted up to here.
    pub(crate) last_ms: u64,
    pub(crate) elapsed_ms: u64,
    pub(crate) idle_ms: u64,
    /// Since when nothing is delivered.
    pub(crate) still_since_ms: Option<u64>,
    pub(crate) checkpoint_ms: u64,
    pub(crate) meter_ms: u64,
    /// A proof not yet told.
    pub(crate) proof: Option<StartProof>,
}

#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) id: OutletId,
    pub(crate) record: OutletRecord,
    pub(crate) unstored: bool,
    pub(crate) phase: Phase,
    pub(crate) sense: Option<Sense>,
    pub(crate) sensed_ms: u64,
    pub(crate) output: Output,
    pub(crate) fault: Latch,
    /// The token last read and when, to tell one gesture from the next.
    pub(crate) gesture: Option<(TokenHash, u64)>,
    /// One for each closed session.
    pub(crate) stops: Vec<Retry, CLOSED_MAX>,
    /// Sessions of which nothing may be said yet: the gateway does not know them.
    pub(crate) untold: Vec<SessionId, { CLOSED_MAX + 1 }>,
    pub(crate) voice: Voice,
    /// What the display says between sessions, and until when.
    pub(crate) notice: Option<(Screen, u64)>,
}

impl Outlet {
    pub(crate) fn new(id: OutletId) -> Self {
        Self {
            id,
            stops: Vec::new(),
            record: OutletRecord::default(),
            unstored: false,
            phase: Phase::Idle,
            sense: None,
            sensed_ms: 0,
            output: Output::default(),
            fault: Latch::new(),
            gesture: None,
            untold: Vec::new(),
            voice: Voice::default(),
            notice: None,
        }
    }

    /// After a boot, with what was stored.
    pub(crate) fn start(&mut self, ctx: &Context<'_>) {
        self.stops = self.record.closed.iter().map(|_| Retry::at(ctx.now_ms)).collect();
        self.sensed_ms = ctx.now_ms;
        match self.record.open.as_ref().map(|open| open.grant.is_some()) {
            None => {}
            Some(true) => self.phase = Phase::Recovering { since_ms: ctx.now_ms },
            // Whether its authorize ever left is not known: the gateway may have granted it.
            Some(false) => self.end(ctx, StopReason::PowerLoss),
        }
    }

    /// Begins a request, if the outlet can serve one.
    pub(crate) fn ask(
        &mut self,
        ctx: &Context<'_>,
        presented: &Presented<'_>,
        units_wished: Units,
        mint: impl FnOnce() -> Option<SessionId>,
    ) {
        if self.fault.is_set() {
            return;
        }
        let vacant = self.sense.filter(|sense| ctx.supply.vacant(sense));
        let register = vacant.map(|sense| sense.register);
        let room = !self.record.closed.is_full();
        let (Some(register), Some(session)) = (register, register.filter(|_| room).and_then(|_| mint())) else {
            return self.notify(ctx, Screen::Unavailable);
        };
        self.record.open = Some(Open {
            session,
            token: presented.hash,
            units_wished,
            register_start: register,
            grant: None,
            started: false,
            progress: Progress::at(register),
        });
        self.unstored = true;
        self.phase = Phase::Asking(Asking {
            token: presented.token.clone(),
            instrument: presented.instrument.clone(),
            since_ms: ctx.now_ms,
            retry: Retry::at(ctx.now_ms),
            sent: false,
        });
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.record.open.as_ref().map(|open| open.session)
    }

    pub(crate) fn sensed(&mut self, ctx: &Context<'_>, mut sense: Sense) {
        let (before, off_since_ms) = (self.sense.as_ref(), self.output.off_since_ms());
        self.fault
            .look(ctx.now_ms, ctx.supply, ctx.tuning, &sense, before, off_since_ms);
        if let Some(before) = &self.sense {
            sense.register = sense.register.max(before.register);
        }
        self.account_time(ctx);
        self.sense = Some(sense);
        self.sensed_ms = ctx.now_ms;
        self.record.register = sense.register;
        if let Phase::Running(running) = &mut self.phase {
            running.still_since_ms = match ctx.supply.delivering(ctx.tuning, &sense) {
                true => None,
                false => running.still_since_ms.or(Some(ctx.now_ms)),
            };
        }
        self.clockwork(ctx);
    }

    /// Everything that time alone, or a new reading, may bring about.
    pub(crate) fn clockwork(&mut self, ctx: &Context<'_>) {
        self.fault.tick(ctx.now_ms);
        if self.notice.is_some_and(|(_, until_ms)| ctx.now_ms >= until_ms) {
            self.notice = None;
        }
        self.account_time(ctx);
        if self.fault.is_set() && !matches!(self.phase, Phase::Idle | Phase::Recovering { .. }) {
            return self.end(ctx, StopReason::Fault);
        }
        match &self.phase {
            Phase::Idle => {}
            Phase::Asking(asking) => {
                if ctx.now_ms >= asking.since_ms.saturating_add(AUTHORIZE_GIVE_UP_MS) {
                    self.end(ctx, StopReason::Abandoned);
                }
            }
            Phase::Starting { deadline_ms } => self.prove(ctx, *deadline_ms),
            Phase::Running(_) => self.go_on(ctx),
            Phase::Recovering { since_ms } => {
                let since_ms = *since_ms;
                self.recover(ctx, since_ms);
            }
        }
    }

    fn account_time(&mut self, ctx: &Context<'_>) {
        if let Phase::Running(running) = &mut self.phase {
            let passed_ms = ctx.now_ms.saturating_sub(running.last_ms);
            running.last_ms = ctx.now_ms;
            running.elapsed_ms = running.elapsed_ms.saturating_add(passed_ms);
            if running.still_since_ms.is_some() {
                running.idle_ms = running.idle_ms.saturating_add(passed_ms);
            }
        }
    }

    /// Granted: switch on when it is safe to, and look for the proof.
    fn prove(&mut self, ctx: &Context<'_>, deadline_ms: u64) {
        let (Some(open), Some(sense)) = (&mut self.record.open, &self.sense) else {
            return;
        };
        let view = View {
            tuning: ctx.tuning,
            sense,
            register_start: open.register_start,
            idle_ms: 0,
        };
        let proof = ctx.supply.proof(&view).filter(|_| self.output.is_on());
        if let Some(proof) = proof {
            open.started = true;
            self.unstored = true;
            self.fault.followed();
            self.run(ctx, Some(proof));
        } else if self.is_blind(ctx) {
            self.fault.blind(ctx.now_ms);
            self.end(ctx, StopReason::Fault);
        } else if ctx.now_ms >= deadline_ms {
            if self.output.is_on() && ctx.supply == Supply::Charger && !sense.relay_closed {
                self.fault.not_followed(ctx.now_ms);
            }
            self.end(ctx, StopReason::NotStarted);
        } else {
            self.output.wanted = ctx.supply.ready(sense);
        }
    }

    /// Enters `Running` from what the record says.
    pub(crate) fn run(&mut self, ctx: &Context<'_>, proof: Option<StartProof>) {
        let Some(open) = &self.record.open else { return };
        self.output.wanted = true;
        self.phase = Phase::Running(Running {
            last_ms: ctx.now_ms,
            elapsed_ms: u64::from(open.progress.elapsed_s) * 1000,
            idle_ms: u64::from(open.progress.idle_s) * 1000,
            still_since_ms: None,
            checkpoint_ms: ctx.now_ms.saturating_add(CHECKPOINT_EVERY_MS),
            meter_ms: ctx.now_ms,
            proof,
        });
        self.go_on(ctx);
    }

    /// Bills what a running session delivered until now; returns whether its grant is used up.
    fn bill(&mut self, ctx: &Context<'_>) -> bool {
        self.account_time(ctx);
        let (Phase::Running(running), Some(open), Some(sense)) = (&self.phase, &mut self.record.open, &self.sense)
        else {
            return false;
        };
        let mark = Mark {
            register: sense.register,
            power_w: sense.power_w,
            elapsed_s: seconds(running.elapsed_ms),
            idle_s: seconds(running.idle_ms),
            second_of_day: ctx.second_of_day,
        };
        open.advance(ctx.supply, &mark, &ctx.stamp)
    }

    /// Running: bill, and end when finished, unplugged, used up or blind.
    fn go_on(&mut self, ctx: &Context<'_>) {
        let used_up = self.bill(ctx);
        let (Phase::Running(running), Some(open), Some(sense)) = (&mut self.phase, &self.record.open, &self.sense)
        else {
            return;
        };
        if ctx.now_ms >= running.checkpoint_ms {
            running.checkpoint_ms = ctx.now_ms.saturating_add(CHECKPOINT_EVERY_MS);
            self.unstored = true;
        }
        let still_since_ms = running.still_since_ms.unwrap_or(ctx.now_ms);
        let view = View {
            tuning: ctx.tuning,
            sense,
            register_start: open.register_start,
            idle_ms: ctx.now_ms.saturating_sub(still_since_ms),
        };
        if let Some(reason) = ctx.supply.finish(&view) {
            self.end(ctx, reason);
        } else if used_up && ctx.supply.may_be_cut() {
            self.end(ctx, StopReason::Limit);
        } else if self.is_blind(ctx) && ctx.supply.may_be_cut() {
            self.fault.blind(ctx.now_ms);
            self.end(ctx, StopReason::Fault);
        }
    }

    /// Without readings no limit can be enforced.
    fn is_blind(&self, ctx: &Context<'_>) -> bool {
        ctx.now_ms.saturating_sub(self.sensed_ms) >= ctx.tuning.sense_silent_ms
    }

    /// Over, for whatever reason: the output goes off first, then everything else is told.
    pub(crate) fn end(&mut self, ctx: &Context<'_>, reason: StopReason) {
        self.output.wanted = false;
        self.bill(ctx);
        let phase = core::mem::replace(&mut self.phase, Phase::Idle);
        self.unstored = true;
        let Some(mut open) = self.record.open.take() else {
            return;
        };
        if let (Phase::Recovering { .. }, Some(sense)) = (&phase, &self.sense) {
            open.interrupted(ctx.supply, sense.register);
        }
        if let Phase::Asking(Asking { sent: false, .. }) = phase {
            // Nobody ever heard of it.
            return self.notify(ctx, Screen::Unavailable);
        }
        let register_end = match (&open.grant, &self.sense) {
            (Some(_), Some(sense)) => sense.register.max(open.progress.register),
            (Some(_), None) => open.progress.register.max(self.record.register),
            (None, _) => open.register_start,
        };
        let stop = Stop {
            session: open.session,
            outlet: self.id,
            reason,
            started: open.started,
            register_start: open.register_start,
            register_end,
            elapsed_s: open.progress.elapsed_s,
            idle_s: open.progress.idle_s,
            shown: open.money(),
            at: ctx.stamp,
        };
        self.record
            .closed
            .push(stop)
            .expect("a session is opened only while there is room to close it");
        self.stops
            .push(Retry::at(ctx.now_ms))
            .expect("one for each closed session");
        let screen = Screen::Ended {
            reason,
            units: open.units(),
            money: open.money(),
        };
        self.notify(ctx, screen);
    }

    pub(crate) fn notify(&mut self, ctx: &Context<'_>, screen: Screen) {
        self.notice = Some((screen, ctx.now_ms.saturating_add(NOTICE_MS)));
    }

    /// Whether the gateway knows a session.
    pub(crate) fn is_told(&self, session: &SessionId) -> bool {
        !self.untold.contains(session)
    }

    /// Whether the outlet has, or had, a session that is not receipted.
    pub(crate) fn traces(&self, session: &SessionId) -> bool {
        self.session() == Some(*session) || self.record.closed.iter().any(|stop| stop.session == *session)
    }

    /// What the user of this outlet has been shown to owe, for the display.
    pub(crate) fn owed(&self) -> (Units, Money) {
        self.record
            .open
            .as_ref()
            .map_or((Units::ZERO, Money::ZERO), |open| (open.units(), open.money()))
    }
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1000).unwrap_or(u32::MAX)
}
