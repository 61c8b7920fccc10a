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
    message::{ClockQuality, Grant, Receipt, Refusal, Stamp, StartProof, Stop, StopReason},
    money::{Money, Units},
};

use crate::{
    config::{
        AUTHORIZE_GIVE_UP_MS, CHECKPOINT_EVERY_MS, NOTICE_MS, RECOVER_CLOCK_MS, RECOVER_SENSE_MS, RESUME_WITHIN_S,
        Supply, TOKEN_DEBOUNCE_MS, Tuning,
    },
    fault::Latch,
    io::{Screen, Sense},
    link::Retry,
    progress::{self, Mark},
    rules::{Recovery, View},
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

/// Where the session is. The durable part is [`OutletRecord::open`].
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
    pub(crate) since_ms: u64,
    pub(crate) retry: Retry,
    /// At least one authorize left: a grant may be on its way.
    pub(crate) sent: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// Accounted up to here.
    last_ms: u64,
    pub(crate) elapsed_ms: u64,
    pub(crate) idle_ms: u64,
    /// Since when nothing is delivered.
    still_since_ms: Option<u64>,
    checkpoint_ms: u64,
    pub(crate) meter_ms: u64,
    /// A proof not yet told.
    pub(crate) proof: Option<StartProof>,
}

/// An output: what is wanted, and what was last done. At boot nobody knows, so it is switched off.
#[derive(Clone, Copy, Debug, Default)]
struct Output {
    wanted: bool,
    actual: Option<bool>,
    since_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) id: OutletId,
    pub(crate) record: OutletRecord,
    pub(crate) unstored: bool,
    pub(crate) phase: Phase,
    pub(crate) sense: Option<Sense>,
    sensed_ms: u64,
    output: Output,
    pub(crate) fault: Latch,
    /// The token last read and when, to tell one gesture from the next.
    gesture: Option<(TokenHash, u64)>,
    /// One for each closed session.
    pub(crate) stops: Vec<Retry, CLOSED_MAX>,
    pub(crate) voice: Voice,
    /// What the display says between sessions, and until when.
    pub(crate) notice: Option<(Screen, u64)>,
}

impl Outlet {
    pub(crate) fn boot(id: OutletId, record: OutletRecord, ctx: &Context<'_>) -> Self {
        let mut outlet = Self {
            id,
            stops: record.closed.iter().map(|_| Retry::at(ctx.now_ms)).collect(),
            record,
            unstored: false,
            phase: Phase::Idle,
            sense: None,
            sensed_ms: ctx.now_ms,
            output: Output::default(),
            fault: Latch::new(),
            gesture: None,
            voice: Voice::default(),
            notice: None,
        };
        match outlet.record.open.as_ref().map(|open| open.grant.is_some()) {
            None => {}
            Some(true) => outlet.phase = Phase::Recovering { since_ms: ctx.now_ms },
            // Whether its authorize ever left is not known: the gateway may have granted it.
            Some(false) => outlet.end(ctx, StopReason::PowerLoss),
        }
        outlet
    }

    /// A token at the reader. `mint` makes the id of a new session.
    pub(crate) fn present(
        &mut self,
        ctx: &Context<'_>,
        token: &IdToken,
        hash: TokenHash,
        units_wished: Units,
        mint: impl FnOnce() -> Option<SessionId>,
    ) {
        let repeated = self
            .gesture
            .is_some_and(|(last, at_ms)| last == hash && ctx.now_ms < at_ms.saturating_add(TOKEN_DEBOUNCE_MS));
        self.gesture = Some((hash, ctx.now_ms));
        if repeated {
            return;
        }
        let own = self.record.open.as_ref().is_some_and(|open| open.token == hash);
        match self.phase {
            Phase::Idle => self.ask(ctx, token, hash, units_wished, mint),
            // Impatience is no reason to stop.
            Phase::Asking(_) => {}
            Phase::Starting { .. } | Phase::Running(_) | Phase::Recovering { .. } if own => {
                self.end(ctx, StopReason::User);
            }
            Phase::Starting { .. } | Phase::Running(_) | Phase::Recovering { .. } => {}
        }
    }

    /// Begins a request, if the outlet can serve one.
    pub(crate) fn ask(
        &mut self,
        ctx: &Context<'_>,
        token: &IdToken,
        hash: TokenHash,
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
            token: hash,
            units_wished,
            register_start: register,
            grant: None,
            started: false,
            progress: Progress::at(register),
        });
        self.unstored = true;
        self.phase = Phase::Asking(Asking {
            token: token.clone(),
            since_ms: ctx.now_ms,
            retry: Retry::at(ctx.now_ms),
            sent: false,
        });
    }

    /// The user's stop button.
    pub(crate) fn button(&mut self, ctx: &Context<'_>) {
        match self.phase {
            Phase::Idle => {}
            Phase::Asking(_) => self.end(ctx, StopReason::Abandoned),
            Phase::Starting { .. } | Phase::Running(_) | Phase::Recovering { .. } => self.end(ctx, StopReason::User),
        }
    }

    /// A command to stop; returns whether it was done. A wash cycle is not cut.
    pub(crate) fn command_stop(&mut self, ctx: &Context<'_>) -> bool {
        let may = match self.phase {
            Phase::Idle => false,
            Phase::Asking(_) | Phase::Starting { .. } => true,
            Phase::Running(_) | Phase::Recovering { .. } => ctx.supply.may_be_cut(),
        };
        if may {
            self.end(ctx, StopReason::Remote);
        }
        may
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.record.open.as_ref().map(|open| open.session)
    }

    pub(crate) fn grant(&mut self, ctx: &Context<'_>, grant: Grant) {
        if self.session() != Some(grant.session) || !matches!(self.phase, Phase::Asking(_)) {
            // Too late: the gateway holds money for a session that is over. Tell it again.
            return self.repeat_stop(ctx, grant.session);
        }
        if !progress::is_usable(&grant, ctx.supply) {
            return self.end(ctx, StopReason::NotStarted);
        }
        let (Some(open), Some(sense)) = (&mut self.record.open, &self.sense) else {
            return;
        };
        open.register_start = sense.register;
        open.progress = Progress::at(sense.register);
        self.phase = Phase::Starting {
            deadline_ms: ctx.now_ms.saturating_add(u64::from(grant.start_within_s) * 1000),
        };
        open.grant = Some(grant);
        self.unstored = true;
        self.clockwork(ctx);
    }

    pub(crate) fn refusal(&mut self, ctx: &Context<'_>, refusal: &Refusal) {
        if self.session() != Some(refusal.session) || !matches!(self.phase, Phase::Asking(_)) {
            return self.repeat_stop(ctx, refusal.session);
        }
        // A refused session holds nothing at the gateway: there is nothing to stop.
        self.record.open = None;
        self.unstored = true;
        self.phase = Phase::Idle;
        let screen = Screen::Refused {
            reason: refusal.reason,
            retry_after_s: refusal.retry_after_s,
        };
        self.notify(ctx, screen);
    }

    pub(crate) fn receipt(&mut self, ctx: &Context<'_>, receipt: &Receipt) {
        let Some(i) = self
            .record
            .closed
            .iter()
            .position(|stop| stop.session == receipt.session)
        else {
            return;
        };
        self.record.closed.remove(i);
        self.stops.remove(i);
        self.unstored = true;
        self.notify(ctx, Screen::Receipt { amount: receipt.amount });
    }

    pub(crate) fn sensed(&mut self, ctx: &Context<'_>, mut sense: Sense) {
        let off_since_ms = (self.output.actual == Some(false)).then_some(self.output.since_ms);
        self.fault.look(
            ctx.now_ms,
            ctx.supply,
            ctx.tuning,
            &sense,
            self.sense.as_ref(),
            off_since_ms,
        );
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
            Phase::Recovering { since_ms } => self.recover(ctx, *since_ms),
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
        let proof = ctx.supply.proof(&view).filter(|_| self.output.actual == Some(true));
        if let Some(proof) = proof {
            open.started = true;
            self.unstored = true;
            self.fault.followed();
            self.run(ctx, Some(proof));
        } else if self.is_blind(ctx) {
            self.fault.blind(ctx.now_ms);
            self.end(ctx, StopReason::Fault);
        } else if ctx.now_ms >= deadline_ms {
            if self.output.actual == Some(true) && ctx.supply == Supply::Charger && !sense.relay_closed {
                self.fault.not_followed(ctx.now_ms);
            }
            self.end(ctx, StopReason::NotStarted);
        } else {
            self.output.wanted = ctx.supply.ready(sense);
        }
    }

    /// Enters `Running` from what the record says.
    fn run(&mut self, ctx: &Context<'_>, proof: Option<StartProof>) {
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

    /// Running: bill, and end when finished, unplugged, used up or blind.
    fn go_on(&mut self, ctx: &Context<'_>) {
        let (Phase::Running(running), Some(open), Some(sense)) = (&mut self.phase, &mut self.record.open, &self.sense)
        else {
            return;
        };
        let mark = Mark {
            register: sense.register,
            power_w: sense.power_w,
            elapsed_s: seconds(running.elapsed_ms),
            idle_s: seconds(running.idle_ms),
            second_of_day: ctx.second_of_day,
        };
        let used_up = open.advance(ctx.supply, &mark, &ctx.stamp);
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

    /// After a power loss (semantics 8.8). The safe default is the end.
    fn recover(&mut self, ctx: &Context<'_>, since_ms: u64) {
        let waited_ms = ctx.now_ms.saturating_sub(since_ms);
        let Some(sense) = self.sense else {
            if waited_ms >= RECOVER_SENSE_MS {
                self.end(ctx, StopReason::PowerLoss);
            }
            return;
        };
        let Some(open) = &mut self.record.open else { return };
        let gap_s = power_loss_s(&open.progress, &ctx.stamp);
        let readable = sense.register >= open.progress.register && !self.fault.is_set();
        let goes_on = readable
            && match ctx.supply.recover(&sense, open.started) {
                Recovery::Continue => true,
                Recovery::End => false,
                Recovery::AskClock => match gap_s {
                    Some(gap_s) => gap_s <= RESUME_WITHIN_S,
                    None if waited_ms < RECOVER_CLOCK_MS => return,
                    None => false,
                },
            };
        open.started |= goes_on || sense.register > open.register_start;
        open.catch_up(ctx.supply, &sense);
        self.unstored = true;
        if goes_on {
            let lost_s = u32::try_from(gap_s.unwrap_or(0)).unwrap_or(u32::MAX);
            open.progress.lost_s = open.progress.lost_s.saturating_add(lost_s);
            self.run(ctx, None);
        } else {
            self.end(ctx, StopReason::PowerLoss);
        }
    }

    /// Over, for whatever reason: the output goes off first, then everything else is told.
    fn end(&mut self, ctx: &Context<'_>, reason: StopReason) {
        self.output.wanted = false;
        let phase = core::mem::replace(&mut self.phase, Phase::Idle);
        self.unstored = true;
        let Some(open) = self.record.open.take() else { return };
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

    fn repeat_stop(&mut self, ctx: &Context<'_>, session: SessionId) {
        if let Some(i) = self.record.closed.iter().position(|stop| stop.session == session) {
            self.stops[i] = Retry::at(ctx.now_ms);
        }
    }

    fn notify(&mut self, ctx: &Context<'_>, screen: Screen) {
        self.notice = Some((screen, ctx.now_ms.saturating_add(NOTICE_MS)));
    }

    /// The gateway answered a hello: everything is said again.
    pub(crate) fn announce(&mut self, ctx: &Context<'_>) {
        self.voice.forget();
        for stop in &mut self.stops {
            *stop = Retry::at(ctx.now_ms);
        }
        match &mut self.phase {
            Phase::Asking(asking) => asking.retry = Retry::at(ctx.now_ms),
            Phase::Running(running) => running.meter_ms = ctx.now_ms,
            Phase::Idle | Phase::Starting { .. } | Phase::Recovering { .. } => {}
        }
    }

    /// Whether the output must go off now; counts as done.
    pub(crate) fn take_off(&mut self, now_ms: u64) -> bool {
        self.switch(false, now_ms)
    }

    /// Whether the output must go on now; counts as done.
    pub(crate) fn take_on(&mut self, now_ms: u64) -> bool {
        self.switch(true, now_ms)
    }

    fn switch(&mut self, on: bool, now_ms: u64) -> bool {
        let needed = self.output.wanted == on && self.output.actual != Some(on);
        if needed {
            self.output.actual = Some(on);
            self.output.since_ms = now_ms;
        }
        needed
    }

    /// When time alone brings something about; `None`: never.
    pub(crate) fn deadline_ms(&self, tuning: &Tuning, supply: Supply, linked: bool) -> Option<u64> {
        let phase_ms = match &self.phase {
            Phase::Idle => None,
            Phase::Asking(asking) => {
                let give_up_ms = asking.since_ms.saturating_add(AUTHORIZE_GIVE_UP_MS);
                Some(if linked {
                    give_up_ms.min(asking.retry.next_ms())
                } else {
                    give_up_ms
                })
            }
            Phase::Starting { deadline_ms } => {
                Some((*deadline_ms).min(self.sensed_ms.saturating_add(tuning.sense_silent_ms)))
            }
            Phase::Running(running) => Some(self.running_deadline_ms(running, tuning, supply, linked)),
            Phase::Recovering { since_ms } => Some(since_ms.saturating_add(match self.sense {
                None => RECOVER_SENSE_MS,
                Some(_) => RECOVER_CLOCK_MS,
            })),
        };
        let stop_ms = self.stops.iter().map(Retry::next_ms).min().filter(|_| linked);
        let notice_ms = self.notice.map(|(_, until_ms)| until_ms);
        [phase_ms, stop_ms, notice_ms, self.fault.deadline_ms()]
            .into_iter()
            .flatten()
            .min()
    }

    fn running_deadline_ms(&self, running: &Running, tuning: &Tuning, supply: Supply, linked: bool) -> u64 {
        let finish_ms = running
            .still_since_ms
            .map(|since_ms| since_ms.saturating_add(supply.finish_after_ms(tuning)));
        let blind_ms = self.sensed_ms.saturating_add(tuning.sense_silent_ms);
        let limit_ms = self.record.open.as_ref().and_then(|open| {
            let left_s = open.grant.as_ref()?.duration_max_s.saturating_sub(open.progress.lost_s);
            let left_ms = (u64::from(left_s) * 1000).saturating_sub(running.elapsed_ms);
            Some(running.last_ms.saturating_add(left_ms))
        });
        let cuts = [Some(blind_ms), limit_ms].map(|at_ms| at_ms.filter(|_| supply.may_be_cut()));
        [
            Some(running.checkpoint_ms),
            linked.then_some(running.meter_ms),
            finish_ms,
            cuts[0],
            cuts[1],
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(running.checkpoint_ms)
    }

    /// What the user of this outlet has been shown to owe, for the display.
    pub(crate) fn owed(&self) -> (Units, Money) {
        self.record
            .open
            .as_ref()
            .map_or((Units::ZERO, Money::ZERO), |open| (open.units(), open.money()))
    }
}

/// How long the power was away; `None` if the clocks before or after cannot tell.
fn power_loss_s(progress: &Progress, stamp: &Stamp) -> Option<u64> {
    let known = progress.quality == ClockQuality::Synchronised && stamp.quality == ClockQuality::Synchronised;
    if known {
        stamp.wall_s.checked_sub(progress.wall_s)
    } else {
        None
    }
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1000).unwrap_or(u32::MAX)
}
