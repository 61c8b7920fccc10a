//! Events about orders that the operator gave through his hub.

use proto::{
    id::{DeviceId, OutletId, SessionId, TokenHash},
    link::{OrderOutcome, OrderVerb},
};
use serde::{Deserialize, Serialize};

use crate::{orders::Reservation, time::Instant};

payload! {
    /// An order came, and this became of it. Its raw token is not here.
    Ordered {
        /// Its number.
        id: u64,
        /// What was wanted.
        verb: OrderVerb,
        /// What became of it.
        outcome: OrderOutcome,
        /// Which device; `None`: none in particular.
        device: Option<DeviceId>,
        /// Which outlet.
        outlet: OutletId,
        /// Which session; zero: none.
        session: SessionId,
        /// For whom; zero: nobody.
        whose: TokenHash,
        /// Not to be begun after this time (seconds since 1970 UTC); 0: no limit.
        not_after_s: u64,
        /// Of a reservation that is made: until when.
        until: Instant,
        /// Of a setting: its value.
        value: u64,
    }
    /// The time of a reservation is over.
    Unreserved {
        /// Which device.
        device: DeviceId,
        /// Which outlet.
        outlet: OutletId,
        /// By which order it had been made.
        order: u64,
    }
    /// A reservation, as a snapshot keeps it.
    KeptReservation {
        /// Which device.
        device: DeviceId,
        /// Which outlet.
        outlet: OutletId,
        /// For whom and until when.
        reservation: Reservation,
    }
}
