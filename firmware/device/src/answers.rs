//! What the gateway's answers do to a session. An answer acts on the session that waits for it and on no other; one that
//! comes too late makes the device repeat that the session is over.

use proto::{
    id::SessionId,
    message::{Grant, Receipt, Refusal, RefusalReason, StopReason},
};

use crate::{
    io::Screen,
    link::Retry,
    outlet::{Context, Outlet, Phase},
    progress,
    stored::Progress,
};

impl Outlet {
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

    /// The device itself refuses a request that nobody heard of.
    pub(crate) fn refuse_alone(&mut self, ctx: &Context<'_>, reason: RefusalReason) {
        if let Some(session) = self.session() {
            let retry_after_s = 0;
            self.refusal(
                ctx,
                &Refusal {
                    session,
                    reason,
                    retry_after_s,
                },
            );
        }
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

    fn repeat_stop(&mut self, ctx: &Context<'_>, session: SessionId) {
        if let Some(i) = self.record.closed.iter().position(|stop| stop.session == session) {
            self.stops[i] = Retry::at(ctx.now_ms);
        }
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
}
