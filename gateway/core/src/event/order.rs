//! Events about the limits of the decision order: policy, disk, clock, strangers, and sessions that must end earlier.

use alloc::vec::Vec;

use proto::{
    id::{DeviceId, SessionId, TokenHash},
    message::ClockQuality,
    money::Units,
    policy::Policy,
};
use serde::{Deserialize, Serialize};

use crate::strangers::Drawn;

/// Most tokens in one [`KeptGone`], so that its record stays below the journal's 3.5 KiB.
pub const GONE_PER_EVENT: usize = 150;

payload! {
    /// The operator's limits are these now.
    PolicyAdopted {
        /// All of them.
        policy: Policy,
    }
    /// A genuine policy looks wrong: it is kept for a person to look at.
    PolicySetAside {
        /// All of it.
        policy: Policy,
    }
    /// An operator went back to the policy before the active one.
    PolicyRolledBack {
        /// The policy that is active again.
        revision: u64,
        /// The policy that was.
        from: u64,
    }
    /// The disk has no room for new unsecured sessions, or has room again.
    DiskChanged {
        /// Whether it has none.
        is_scarce: bool,
    }
    /// A session was granted at or above the lower count of its class: the cloud is asked about it, and nobody waits.
    AskedAgain {
        /// Which session.
        session: SessionId,
        /// Number of the question.
        ask: u64,
    }
    /// The token of an open session is no longer valid: its device is told where to end.
    Limited {
        /// Which session.
        session: SessionId,
        /// Whom.
        device: DeviceId,
        /// Number of the command.
        id: u64,
        /// Most units of the whole session.
        units: Units,
    }
    /// The wall clock was set, or is worth more or less than before.
    ClockChanged {
        /// By how much it was set, in s; zero: by no more than clocks drift.
        skew_s: i64,
        /// What it is worth now.
        quality: ClockQuality,
    }
    /// What a stranger drew on emergency credit, as a snapshot keeps it.
    KeptDrawn {
        /// Who.
        token: TokenHash,
        /// How much, since when.
        drawn: Drawn,
    }
    /// Tokens that left the list, as a snapshot keeps them.
    KeptGone {
        /// At most [`GONE_PER_EVENT`].
        tokens: Vec<TokenHash>,
    }
}
