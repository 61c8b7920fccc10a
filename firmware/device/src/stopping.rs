//! Who may end a session, and from where: the token that began it, a token of its group, a master token, the button, a
//! command. Nobody is asked: the grant says whose tokens they are, so a stop needs neither gateway nor cloud.

use proto::{id::SessionId, message::StopReason, money::Units};

use crate::{
    config::TOKEN_DEBOUNCE_MS,
    outlet::{Context, Outlet, Phase, Presented},
};

impl Outlet {
    /// A token at the reader: it begins a session, or ends one that is its own. `mint` makes the id of a new session.
    pub(crate) fn present(
        &mut self,
        ctx: &Context<'_>,
        presented: &Presented<'_>,
        units_wished: Units,
        mint: impl FnOnce() -> Option<SessionId>,
    ) {
        let hash = presented.hash;
        let repeated = self
            .gesture
            .is_some_and(|(last, at_ms)| last == hash && ctx.now_ms < at_ms.saturating_add(TOKEN_DEBOUNCE_MS));
        self.gesture = Some((hash, ctx.now_ms));
        if repeated {
            return;
        }
        match self.phase {
            Phase::Idle => self.ask(ctx, presented.token, hash, units_wished, mint),
            // Impatience is no reason to stop.
            Phase::Asking(_) => {}
            Phase::Starting { .. } | Phase::Running(_) | Phase::Recovering { .. } => {
                if self.may_stop(presented) {
                    self.end(ctx, StopReason::User);
                }
            }
        }
    }

    fn may_stop(&self, presented: &Presented<'_>) -> bool {
        let Some(open) = &self.record.open else { return false };
        let named = open.grant.as_ref().map_or(&[][..], |grant| &grant.stop_tokens);
        let is_named = presented.site_hash.is_some_and(|hash| named.contains(&hash));
        open.token == presented.hash || is_named
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

    /// A command to deliver no more than `units` in all; returns whether it was done. It never raises a limit, it is
    /// stored with the grant, and a wash cycle is not cut.
    pub(crate) fn command_limit(&mut self, ctx: &Context<'_>, units: Units) -> bool {
        let Some(grant) = self.record.open.as_mut().and_then(|open| open.grant.as_mut()) else {
            return false;
        };
        if !ctx.supply.may_be_cut() {
            return false;
        }
        grant.units_max = grant.units_max.min(units);
        self.unstored = true;
        self.clockwork(ctx);
        true
    }
}
