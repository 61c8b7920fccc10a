//! When time alone brings something about at an outlet.

use crate::{
    config::{AUTHORIZE_GIVE_UP_MS, RECOVER_CLOCK_MS, RECOVER_SENSE_MS, Supply, Tuning},
    outlet::{Outlet, Phase, Running},
};

impl Outlet {
    /// The next moment, in ms since boot; `None`: never.
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
        let closed = self.record.closed.iter().zip(&self.stops);
        let told = closed.filter(|(stop, _)| self.is_told(&stop.session));
        let stop_ms = told.map(|(_, retry)| retry.next_ms()).min().filter(|_| linked);
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
            (linked && self.session().is_some_and(|session| self.is_told(&session))).then_some(running.meter_ms),
            finish_ms,
            cuts[0],
            cuts[1],
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(running.checkpoint_ms)
    }
}
