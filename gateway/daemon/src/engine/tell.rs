//! What the engine tells people of what it does: the log, and what becomes of orders.

use gateway_core::{Alarm, Decision, Effect, Event};

use super::DONE;

/// What became of an order, in words.
pub(super) fn outcome(decision: &Decision) -> String {
    let alarm = decision.effects.iter().find_map(|effect| match effect {
        Effect::Alarm(alarm) => Some(alarm.to_string()),
        Effect::Send { .. }
        | Effect::RaiseCounter { .. }
        | Effect::Ask(_)
        | Effect::Echo(_)
        | Effect::Hello
        | Effect::OrderDone(_) => None,
    });
    match (decision.ignored, alarm) {
        (Some(ignored), _) => format!("ignored: {ignored}"),
        (None, Some(alarm)) => alarm,
        (None, None) => DONE.to_owned(),
    }
}

/// Tells of an alarm, as loudly as it is.
pub(super) fn raise(alarm: &Alarm) {
    match alarm {
        Alarm::Mode { mode, .. } if mode.asks() => tracing::info!(%alarm, "ALARM over"),
        // Every welcome says so; the link tells it once a connection, with what to do.
        Alarm::Epoch { .. } => tracing::debug!(%alarm, "fenced"),
        Alarm::DeviceFault { .. } | Alarm::Clock { .. } | Alarm::TokenDenied { .. } | Alarm::Mode { .. } => {
            tracing::warn!(%alarm, "ALARM")
        }
        Alarm::Diverged { .. }
        | Alarm::Quarantined { .. }
        | Alarm::Trailer { .. }
        | Alarm::PolicySetAside { .. }
        | Alarm::RingBack { .. }
        | Alarm::DiskScarce
        | Alarm::HubRegressed { .. }
        | Alarm::Redeemed { .. }
        | Alarm::RedeemedRevoked { .. }
        | Alarm::MassDenial
        | Alarm::RecordQuarantined { .. }
        | Alarm::RecordDisputed { .. }
        | Alarm::Register { .. } => tracing::error!(%alarm, "ALARM"),
    }
}

/// What an operator acts on.
pub(super) fn report(event: &Event) {
    match event {
        Event::ModeChanged(e) => {
            let (capability, mode) = (e.capability.word(), e.mode.word());
            tracing::info!(capability, mode, "{capability} is {mode} now");
        }
        Event::ListAdopted(e) => tracing::info!(revision = e.revision, "list adopted"),
        Event::RevocationsAdopted(e) => {
            tracing::info!(revision = e.revision, count = e.entries.len(), "revocations adopted")
        }
        Event::TariffsAdopted(e) => tracing::info!(revision = e.revision, kinds = e.entries.len(), "tariffs adopted"),
        Event::KeysAdopted(e) => tracing::warn!(epoch = e.epoch, keys = e.keys.len(), "issuer keys adopted"),
        Event::Adopted(e) => {
            tracing::warn!(
                kind = e.kind.word(),
                revision = e.revision,
                "the whole site takes what was set aside"
            );
        }
        Event::RolledBack(e) => {
            tracing::warn!(
                revision = e.revision,
                from = e.from,
                "an operator went back to the list before"
            );
        }
        Event::Silent(e) => tracing::warn!(session = %e.session, "the device is silent; the hold stays"),
        Event::Granted(e) => {
            tracing::debug!(session = %e.request.session, device = %e.request.device, rule = e.rule.step(), "granted");
        }
        Event::Refused(e) => {
            tracing::debug!(session = %e.request.session, device = %e.request.device, reason = e.reason.word(), "refused");
        }
        Event::GuessFailed(e) => {
            tracing::debug!(device = %e.device, account = e.account, "a wrong instrument was typed")
        }
        Event::LeaseTaken(e) => {
            tracing::info!(account = e.lease.account, lease = e.lease.epoch, amount = %e.lease.amount, "lease taken over");
        }
        Event::LeaseReturned(e) => {
            tracing::info!(account = e.account, lease = e.epoch, amount = %e.amount, "lease given back");
        }
        Event::PolicyAdopted(e) => tracing::info!(revision = e.policy.revision, "policy adopted"),
        Event::PolicyRolledBack(e) => {
            tracing::warn!(
                revision = e.revision,
                from = e.from,
                "an operator went back to the policy before"
            );
        }
        Event::RingBegan(e) => {
            let what = e.what.word();
            tracing::info!(what, revision = e.revision, device = %e.device, "{what} is tried at one device first");
        }
        Event::RingWidened(e) => {
            let (what, reach) = (e.what.word(), e.reach.word());
            tracing::info!(what, reach, "{what} is tried by more devices");
        }
        Event::RingHeld(e) => tracing::warn!(what = e.what.word(), is_held = e.is_held, "an operator holds a ring"),
        Event::RingEnded(e) => {
            tracing::warn!(what = e.what.word(), revision = e.revision, why = %e.verdict, "went back from its ring");
        }
        Event::LimitsAdopted(e) => tracing::info!(revision = e.revision, "limits of the configuration adopted"),
        Event::DiskChanged(e) => tracing::warn!(is_scarce = e.is_scarce, "the disk's reserve"),
        Event::Limited(e) => {
            tracing::info!(session = %e.session, units = e.units.0, "the device is told to end earlier")
        }
        Event::Ordered(e) => {
            let (device, verb, outcome) = (
                e.device.as_ref().map(ToString::to_string),
                e.verb.word(),
                e.outcome.word(),
            );
            tracing::info!(
                id = e.id,
                verb,
                device,
                outlet = e.outlet,
                outcome,
                "an order of the operator"
            );
        }
        Event::Unreserved(e) => {
            tracing::info!(device = %e.device, outlet = e.outlet, order = e.order, "the time of a reservation is over");
        }
        Event::ClockChanged(e) => tracing::info!(skew_s = e.skew_s, quality = ?e.quality, "the clock changed"),
        Event::LeasesRead(_)
        | Event::InstrumentAccepted(_)
        | Event::AskedAgain(_)
        | Event::Booted(_)
        | Event::Heard(_)
        | Event::Greeted(_)
        | Event::Asked(_)
        | Event::Probed(_)
        | Event::Confirmed(_)
        | Event::Denied(_)
        | Event::Started(_)
        | Event::Metered(_)
        | Event::Closed(_)
        | Event::Reported(_)
        | Event::Commanded(_)
        | Event::CommandAnswered(_)
        | Event::ListStaged(_)
        | Event::Quarantined(_)
        | Event::TariffsStaged(_)
        | Event::Evidence(_)
        | Event::Receipted(_)
        | Event::Rewound(_)
        | Event::Contested(_)
        | Event::CanaryRight(_)
        | Event::EchoAsked(_)
        | Event::HelloAsked(_)
        | Event::Noted(_)
        | Event::PolicySetAside(_)
        | Event::RingSeen(_)
        | Event::LimitsStaged(_)
        | Event::Kept(_) => tracing::trace!(?event, "applied"),
    }
}
