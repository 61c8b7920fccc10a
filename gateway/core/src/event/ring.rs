//! Events about what is adopted by rings, and about the limits of the configuration.

use proto::id::{DeviceId, Kind, TokenHash};
use serde::{Deserialize, Serialize};

use crate::{
    config::Limits,
    ring::{Reach, Ring, Staged, Verdict},
};

payload! {
    /// What was set aside last is tried at one device.
    RingBegan {
        /// What.
        what: Staged,
        /// Its revision.
        revision: u64,
        /// Where.
        device: DeviceId,
        /// Its kind.
        kind: Kind,
    }
    /// A request was decided at a device of a ring.
    RingSeen {
        /// Of which.
        what: Staged,
        /// Who asked.
        token: TokenHash,
        /// It would have fared worse than without what is tried.
        is_worse: bool,
    }
    /// Nothing speaks against it: more devices try it.
    RingWidened {
        /// What.
        what: Staged,
        /// How far it reaches now.
        reach: Reach,
    }
    /// An operator holds it where it is, or lets it go on.
    RingHeld {
        /// What.
        what: Staged,
        /// Or lets it go on.
        is_held: bool,
    }
    /// It is tried nowhere any more, and lies aside.
    RingEnded {
        /// What.
        what: Staged,
        /// Its revision.
        revision: u64,
        /// Why.
        verdict: Verdict,
    }
    /// The limits of the configuration are others now, and are about to be tried.
    LimitsStaged {
        /// Grows with each.
        revision: u64,
        /// All of them.
        limits: Limits,
    }
    /// The limits of the configuration are these, whatever the file says.
    LimitsAdopted {
        /// Grows with each.
        revision: u64,
        /// All of them.
        limits: Limits,
    }
    /// A ring, as a snapshot keeps it.
    KeptRing {
        /// What.
        what: Staged,
        /// The ring.
        ring: Ring,
    }
}
