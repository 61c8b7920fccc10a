//! After a power loss (semantics 8.8): which sessions go on.
//!
//! Water ends. A wash goes on if the machine says that it runs. A charger goes on if a plug is in, and the gateway's
//! clock, trusted before and after, says that the power was away for ten minutes at most; it waits a little for that
//! clock with its output off. Whenever something cannot be known the session ends: that is the safe default.

use proto::message::{ClockQuality, Stamp, StopReason};

use crate::{
    config::{RECOVER_CLOCK_MS, RECOVER_SENSE_MS, RESUME_WITHIN_S, Supply},
    outlet::{Context, Outlet},
    rules::Recovery,
    stored::{Open, Progress},
};

impl Outlet {
    pub(crate) fn recover(&mut self, ctx: &Context<'_>, since_ms: u64) {
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
        if goes_on {
            let lost_s = u32::try_from(gap_s.unwrap_or(0)).unwrap_or(u32::MAX);
            open.progress.lost_s = open.progress.lost_s.saturating_add(lost_s);
            open.started = true;
            open.catch_up(ctx.supply, sense.register);
            self.unstored = true;
            self.run(ctx, None);
        } else {
            self.end(ctx, StopReason::PowerLoss);
        }
    }
}

impl Open {
    /// Bills what was delivered before the power went, but not stored. That it was delivered at all proves the start.
    pub(crate) fn interrupted(&mut self, supply: Supply, register: proto::money::Units) {
        if self.grant.is_some() {
            self.started |= register > self.register_start;
            self.catch_up(supply, register);
        }
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
