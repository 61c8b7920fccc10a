//! How the gateway is, in the words of the wire: the source of `holdfast status` and of what the hub is told.

use gateway_core::{Instant, health::Track};
use proto::link::{Mode, ModeSince, Telemetry};

use crate::control::Look;

impl Look<'_> {
    /// How the gateway is now. How many reports were shed the link knows, which adds it.
    #[must_use]
    pub fn telemetry(&self) -> Telemetry {
        let Look { gateway, now, .. } = *self;
        let at = gateway.timeline().at(&now);
        let health = gateway.health();
        let (list_revision, revocations_revision, tariffs_revision) = gateway.trust().revisions();
        let exposure = gateway.risk().exposure();
        let budget_left = gateway.config().limits.site_budget.saturating_sub(exposure);
        Telemetry {
            authorize: mode_since(&health.authorize, at),
            commit: mode_since(&health.commit, at),
            control: mode_since(&health.control, at),
            exposure,
            // A policy may have lowered the budget below what is at risk already.
            budget_left: budget_left.max(proto::money::Money::ZERO),
            sessions_open: u32::try_from(gateway.sessions().open().count()).unwrap_or(u32::MAX),
            devices_connected: self.port.connected(gateway.config().devices.keys()),
            waiting: gateway.outbox().waiting(),
            waiting_s: health.unreceipted_ms(at) / 1000,
            disk_scarce: gateway.is_disk_scarce(),
            clock: now.quality,
            list_revision,
            tariffs_revision,
            policy_revision: gateway.policy_revision(),
            revocations_revision,
            up_s: now.mono_ms / 1000,
            shed: 0,
        }
    }
}

fn mode_since(track: &Track, at: Instant) -> ModeSince {
    ModeSince {
        mode: Mode::from_code(track.mode.into()),
        since_s: at.since_ms(track.since) / 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire counts modes as the core does: one list would drag the core's into the contract.
    #[test]
    fn a_mode_has_one_number() {
        for mode in [Mode::Online, Mode::Suspect, Mode::Local, Mode::Recovering] {
            let of_core = gateway_core::Mode::from(mode.code());
            assert_eq!(u8::from(of_core), mode.code());
            assert_eq!(of_core.word().to_lowercase(), format!("{mode:?}").to_lowercase());
        }
    }
}
