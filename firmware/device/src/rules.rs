//! Where the three kinds differ, asked by the one session machine in `outlet.rs`.

use proto::{
    message::{Fault, StartProof, StopReason},
    money::Units,
};

use crate::{
    charger,
    config::{Supply, Tuning},
    dispenser,
    io::Sense,
    washer,
};

/// What a rule may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) tuning: &'a Tuning,
    pub(crate) sense: &'a Sense,
    /// Reading when the output was switched on.
    pub(crate) register_start: Units,
    /// How long nothing has been delivered, in ms.
    pub(crate) idle_ms: u64,
}

/// What an output has done lately.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supplied<'a> {
    pub(crate) sense: &'a Sense,
    /// The output is off, and contactor or valve has had the time to follow.
    pub(crate) settled_off: bool,
    /// What the register advanced since the output went off and settled.
    pub(crate) units_while_off: Units,
}

/// What becomes of a session that a power loss interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// It goes on.
    Continue,
    /// It is over.
    End,
    /// It goes on if the power was away for less than [`crate::config::RESUME_WITHIN_S`].
    AskClock,
}

impl Supply {
    /// Whether a session may be asked for at all.
    pub(crate) fn vacant(self, sense: &Sense) -> bool {
        match self {
            Self::Charger | Self::Dispenser => true,
            // The cycle of the last user goes on after its session, if that was stopped by card.
            Self::Washer => !sense.running,
        }
    }

    /// Whether a granted output may be switched on now.
    pub(crate) fn ready(self, sense: &Sense) -> bool {
        match self {
            Self::Charger => charger::ready(sense),
            Self::Washer | Self::Dispenser => true,
        }
    }

    /// What proves that delivery has begun.
    pub(crate) fn proof(self, view: &View<'_>) -> Option<StartProof> {
        match self {
            Self::Charger => charger::proof(view),
            Self::Washer => washer::proof(view),
            Self::Dispenser => dispenser::proof(view),
        }
    }

    /// Whether something is being delivered.
    pub(crate) fn delivering(self, tuning: &Tuning, sense: &Sense) -> bool {
        match self {
            Self::Charger => charger::delivering(tuning, sense),
            Self::Washer => washer::delivering(sense),
            Self::Dispenser => dispenser::delivering(sense),
        }
    }

    /// Whether a running session is over by itself.
    pub(crate) fn finish(self, view: &View<'_>) -> Option<StopReason> {
        match self {
            Self::Charger => charger::finish(view),
            Self::Washer => washer::finish(view),
            Self::Dispenser => dispenser::finish(view),
        }
    }

    /// How long nothing may be delivered before the session is over, in ms.
    pub(crate) const fn finish_after_ms(self, tuning: &Tuning) -> u64 {
        match self {
            Self::Charger => tuning.full_after_ms,
            Self::Washer => tuning.done_after_ms,
            Self::Dispenser => tuning.flow_stop_after_ms,
        }
    }

    /// Whether limits and commands may end a running session: a wash cycle is never cut.
    pub(crate) const fn may_be_cut(self) -> bool {
        match self {
            Self::Charger | Self::Dispenser => true,
            Self::Washer => false,
        }
    }

    /// What is wrong, as far as only this kind can tell.
    pub(crate) fn fault(self, supplied: &Supplied<'_>) -> Fault {
        match self {
            Self::Charger => charger::fault(supplied),
            Self::Washer => washer::fault(supplied),
            Self::Dispenser => dispenser::fault(supplied),
        }
    }

    /// What becomes of a granted session after a power loss.
    pub(crate) fn recover(self, sense: &Sense, started: bool) -> Recovery {
        match self {
            Self::Charger => charger::recover(sense, started),
            Self::Washer => washer::recover(sense),
            Self::Dispenser => Recovery::End,
        }
    }
}
