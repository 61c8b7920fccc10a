//! Rules of the washer. Its output is the start permit of a machine that runs its programme by itself and rides through
//! the moment for which a booting device takes the permit away. A started cycle is cut by its user or by a fault only.

use proto::message::{Fault, StartProof, StopReason};

use crate::{
    io::Sense,
    rules::{Recovery, Supplied, View},
};

pub(crate) fn proof(view: &View<'_>) -> Option<StartProof> {
    (view.sense.door_locked && view.sense.running).then_some(StartProof::DoorLock)
}

pub(crate) fn delivering(sense: &Sense) -> bool {
    sense.running
}

pub(crate) fn finish(view: &View<'_>) -> Option<StopReason> {
    (view.idle_ms >= view.tuning.done_after_ms).then_some(StopReason::Finished)
}

pub(crate) fn fault(supplied: &Supplied<'_>) -> Fault {
    if supplied.sense.leaking {
        Fault::Leak
    } else if supplied.sense.running && !supplied.sense.door_locked {
        Fault::Door
    } else {
        Fault::None
    }
}

/// The machine knows.
pub(crate) fn recover(sense: &Sense) -> Recovery {
    if sense.running {
        Recovery::Continue
    } else {
        Recovery::End
    }
}
