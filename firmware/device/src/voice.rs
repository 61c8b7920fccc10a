//! What an outlet has to say and to show now, derived from its state. There is no queue of messages: what was not said
//! stays due, what is no longer true is never said.

use proto::message::{Authorize, Fault, Meter, OutletState, Started, Status, Stop};

use crate::{
    config::{AUTHORIZE_RETRY_FIRST_MS, AUTHORIZE_RETRY_MAX_MS, SHOW_EVERY_MS, STOP_RETRY_FIRST_MS, STOP_RETRY_MAX_MS},
    io::Screen,
    outlet::{Context, Outlet, Phase},
    stored::{Record, RecordKey, encode},
};

/// What was said and shown last.
#[derive(Debug, Default)]
pub(crate) struct Voice {
    status: Option<(OutletState, Fault)>,
    screen: Option<(Screen, u64)>,
}

impl Voice {
    /// Says the status again.
    pub(crate) fn forget(&mut self) {
        self.status = None;
    }
}

/// A message of an outlet.
#[allow(clippy::large_enum_variant, reason = "there is no heap; one of these at a time")]
#[derive(Debug)]
pub(crate) enum Message {
    Stop(Stop),
    Authorize(Authorize),
    Started(Started),
    Meter(Meter),
    Status(Status),
}

impl Outlet {
    /// The record, if it has to be stored.
    pub(crate) fn take_store(&mut self) -> Option<Record> {
        core::mem::take(&mut self.unstored).then(|| encode(RecordKey::Outlet(self.id), &self.record))
    }

    /// The next message that is due; counts as said.
    pub(crate) fn take_message(&mut self, ctx: &Context<'_>, spread: u8) -> Option<Message> {
        if let Some(stop) = self.take_stop(ctx, spread) {
            return Some(Message::Stop(stop));
        }
        if let Some(message) = self.take_session_message(ctx, spread) {
            return Some(message);
        }
        let status = (self.state(), self.fault.fault());
        if self.voice.status == Some(status) {
            return None;
        }
        self.voice.status = Some(status);
        Some(Message::Status(Status {
            outlet: self.id,
            state: status.0,
            fault: status.1,
            register: self.record.register,
            at: ctx.stamp,
        }))
    }

    fn take_stop(&mut self, ctx: &Context<'_>, spread: u8) -> Option<Stop> {
        let closed = self.record.closed.iter().zip(&self.stops);
        let i = closed
            .map(|(stop, retry)| retry.due(ctx.now_ms) && self.is_told(&stop.session))
            .position(|due| due)?;
        self.stops[i].said(ctx.now_ms, STOP_RETRY_FIRST_MS, STOP_RETRY_MAX_MS, spread);
        self.record.closed.get(i).cloned()
    }

    fn take_session_message(&mut self, ctx: &Context<'_>, spread: u8) -> Option<Message> {
        let open = self.record.open.as_ref()?;
        if !self.is_told(&open.session) {
            return None;
        }
        match &mut self.phase {
            Phase::Asking(asking) if asking.retry.due(ctx.now_ms) => {
                asking
                    .retry
                    .said(ctx.now_ms, AUTHORIZE_RETRY_FIRST_MS, AUTHORIZE_RETRY_MAX_MS, spread);
                asking.sent = true;
                Some(Message::Authorize(Authorize {
                    session: open.session,
                    outlet: self.id,
                    token: asking.token.clone(),
                    units_wished: open.units_wished,
                    register: open.register_start,
                    at: ctx.stamp,
                    instrument: asking.instrument.clone(),
                }))
            }
            Phase::Running(running) => {
                if let Some(proof) = running.proof.take() {
                    return Some(Message::Started(Started {
                        session: open.session,
                        outlet: self.id,
                        register_start: open.register_start,
                        proof,
                        at: ctx.stamp,
                    }));
                }
                if ctx.now_ms < running.meter_ms {
                    return None;
                }
                let every_s = open.grant.as_ref().map_or(1, |grant| grant.meter_every_s.max(1));
                running.meter_ms = ctx.now_ms.saturating_add(u64::from(every_s) * 1000);
                Some(Message::Meter(Meter {
                    session: open.session,
                    outlet: self.id,
                    register_start: open.register_start,
                    register: self.record.register.max(open.progress.register),
                    power_w: self.sense.map_or(0, |sense| sense.power_w),
                    elapsed_s: open.progress.elapsed_s,
                    idle_s: open.progress.idle_s,
                    at: ctx.stamp,
                }))
            }
            Phase::Idle | Phase::Asking(_) | Phase::Starting { .. } | Phase::Recovering { .. } => None,
        }
    }

    /// The display, if it has to change; counts as shown.
    pub(crate) fn take_screen(&mut self, now_ms: u64) -> Option<Screen> {
        let screen = self.screen();
        if let Some((shown, at_ms)) = &self.voice.screen {
            let same_kind = core::mem::discriminant(shown) == core::mem::discriminant(&screen);
            let figures_only = same_kind && matches!(screen, Screen::Delivering { .. });
            if *shown == screen || (figures_only && now_ms < at_ms.saturating_add(SHOW_EVERY_MS)) {
                return None;
            }
        }
        self.voice.screen = Some((screen, now_ms));
        Some(screen)
    }

    fn screen(&self) -> Screen {
        match &self.phase {
            Phase::Idle if self.fault.is_set() => Screen::Faulted(self.fault.fault()),
            Phase::Idle => self.notice.map_or(Screen::Free, |(screen, _)| screen),
            Phase::Asking(_) => Screen::Asking,
            Phase::Starting { .. } => {
                let grant = self.record.open.as_ref().and_then(|open| {
                    let grant = open.grant.as_ref()?;
                    Some((grant.money_max, open.units_max(grant)))
                });
                let (money_max, units_max) = grant.unwrap_or_default();
                Screen::Begin { money_max, units_max }
            }
            Phase::Running(_) => {
                let (units, money) = self.owed();
                Screen::Delivering { units, money }
            }
            Phase::Recovering { .. } => Screen::Recovering,
        }
    }

    /// The state that the gateway is told.
    pub(crate) fn state(&self) -> OutletState {
        match &self.phase {
            Phase::Idle if self.fault.is_set() => OutletState::Faulted,
            Phase::Idle => OutletState::Free,
            Phase::Asking(_) | Phase::Starting { .. } | Phase::Recovering { .. } => OutletState::Preparing,
            Phase::Running(_) => OutletState::Busy,
        }
    }
}
