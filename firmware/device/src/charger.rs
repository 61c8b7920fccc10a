//! Rules of the charger: a contactor with a sense contact, a meter IC, a socket that knows whether a plug is in it.

use proto::message::{Fault, StartProof, StopReason};

use crate::{
    config::Tuning,
    io::Sense,
    rules::{Recovery, Supplied, View},
};

/// An empty socket is never live.
pub(crate) fn ready(sense: &Sense) -> bool {
    sense.plugged
}

/// The contactor followed, and something draws: power now, or energy counted already.
pub(crate) fn proof(view: &View<'_>) -> Option<StartProof> {
    let draws = view.sense.power_w >= view.tuning.start_power_w || view.sense.register > view.register_start;
    (view.sense.relay_closed && draws).then_some(StartProof::RelaySense)
}

pub(crate) fn delivering(tuning: &Tuning, sense: &Sense) -> bool {
    sense.power_w >= tuning.full_power_w
}

pub(crate) fn finish(view: &View<'_>) -> Option<StopReason> {
    if !view.sense.plugged {
        Some(StopReason::Unplugged)
    } else if view.idle_ms >= view.tuning.full_after_ms {
        Some(StopReason::Finished)
    } else {
        None
    }
}

pub(crate) fn fault(supplied: &Supplied<'_>) -> Fault {
    if supplied.sense.leaking {
        Fault::Leakage
    } else if supplied.settled_off && supplied.sense.relay_closed {
        Fault::Welded
    } else {
        Fault::None
    }
}

/// Only the same plug may go on, and only after a short loss. Whether it is the same plug nobody knows; that one is in
/// the socket, and how long the power was away, is the best there is.
pub(crate) fn recover(sense: &Sense, started: bool) -> Recovery {
    if sense.plugged && started {
        Recovery::AskClock
    } else {
        Recovery::End
    }
}
