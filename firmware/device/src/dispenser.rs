//! Rules of the water dispenser: a valve and a flow counter. The user holds the vessel and works the tap.

use proto::message::{Fault, StartProof, StopReason};

use crate::{
    config::LEAK_ML,
    io::Sense,
    rules::{Supplied, View},
};

pub(crate) fn proof(view: &View<'_>) -> Option<StartProof> {
    (view.sense.register > view.register_start).then_some(StartProof::Flow)
}

pub(crate) fn delivering(sense: &Sense) -> bool {
    sense.flowing
}

pub(crate) fn finish(view: &View<'_>) -> Option<StopReason> {
    (view.idle_ms >= view.tuning.flow_stop_after_ms).then_some(StopReason::Finished)
}

pub(crate) fn fault(supplied: &Supplied<'_>) -> Fault {
    if supplied.sense.leaking || supplied.units_while_off.0 > LEAK_ML {
        Fault::Leak
    } else {
        Fault::None
    }
}
