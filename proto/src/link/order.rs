//! Orders: what the operator wants done at a site, through his hub, and what becomes of it.
//!
//! An order has a number and a time after which it is not begun. It may be delayed, doubled, lost, or overtaken on its
//! way: it runs once, or not at all, and the answer to it is the same every time.

use serde::{Deserialize, Serialize};

use crate::{
    id::{DeviceId, IdToken, OutletId, SessionId, TokenHash},
    message::Stamp,
    wire::wire_enum,
};

/// Furthest ahead that a reservation may end, or a start may still be begun, in s: nobody holds an outlet for longer
/// without coming, and nobody expects it to switch on later.
pub const AHEAD_S_MAX: u64 = 7_200;
/// Longest time between two reports of telemetry, in s: a day.
pub const TELEMETRY_EVERY_S_MAX: u64 = 86_400;
/// Orders whose fate a gateway remembers: the newest. It takes a forgotten one for one that has run. So a hub gives no
/// order that is further than this above one that it has no answer to.
pub const ORDERS_REMEMBERED: usize = 64;

wire_enum! {
    /// What the operator wants done.
    OrderVerb {
        /// Something of a newer version; answered `Unsupported`.
        Other = 0,
        /// Begin a session at `outlet` for `token`, as if it had been presented there.
        Start = 1,
        /// End the session named, or whichever is open at `outlet`.
        Stop = 2,
        /// Keep `outlet` free for `whose` until `until_s`.
        Reserve = 3,
        /// Give a reservation of `outlet` up.
        Release = 4,
        /// Send telemetry every `value` s from now on, at most [`TELEMETRY_EVERY_S_MAX`]; 0: none.
        TelemetryEvery = 5,
        /// Look at the outlet: the device reports its status.
        Report = 6,
        /// Nothing any more: what the order of this number wanted is given up. Answered with what became of it, and with
        /// `Stale` if it never came; then it never runs.
        Withdraw = 7,
    } else Other
}

impl OrderVerb {
    /// In logs, reports and exports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reserve => "reserve",
            Self::Release => "release",
            Self::TelemetryEvery => "telemetry",
            Self::Report => "report",
            Self::Withdraw => "withdraw",
        }
    }
}

/// Hub to gateway: the operator's order. Answered by [`OrderDone`]; each number runs once, in whatever order and how
/// often it comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number, above that of every earlier order to this gateway; not 0. A hub begins at its clock, so that one that
    /// was put back from a backup gives no number twice.
    pub id: u64,
    /// Not to be begun after this time (seconds since 1970 UTC); 0: no limit, which a start must have, at most
    /// [`AHEAD_S_MAX`] ahead.
    pub not_after_s: u64,
    /// What.
    pub verb: OrderVerb,
    /// Which device; `None` for those that concern the gateway.
    pub device: Option<DeviceId>,
    /// Which outlet.
    pub outlet: OutletId,
    /// Which session; zero: none.
    pub session: SessionId,
    /// Of a start: what the device presents. It is handed on and never stored.
    pub token: Option<IdToken>,
    /// Of a reservation: until when (seconds since 1970 UTC), at most [`AHEAD_S_MAX`] ahead.
    pub until_s: u64,
    /// Of a setting: its value.
    pub value: u64,
    /// Of a start or a reservation: for whom, under the site's keyed hash; zero: nobody.
    #[serde(default)]
    pub whose: TokenHash,
}

wire_enum! {
    /// What became of an order.
    OrderOutcome {
        /// Something of a newer version.
        Other = 0,
        /// It is done; or, of what a device does, the device is told.
        Done = 1,
        /// It came too late, or no clock was fit to tell.
        Stale = 2,
        /// It may have run before; that was so long ago that nobody remembers what became of it.
        Repeated = 3,
        /// No such device, outlet, reservation or open session here.
        Unknown = 4,
        /// The outlet is in use, out of order, or reserved for somebody else.
        Busy = 5,
        /// Not a thing this version does.
        Unsupported = 6,
        /// Something in it is missing, contradicts itself, or is outside its range.
        Malformed = 7,
    } else Other
}

impl OrderOutcome {
    /// In logs, reports and exports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Done => "done",
            Self::Stale => "stale",
            Self::Repeated => "repeated",
            Self::Unknown => "unknown",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
            Self::Malformed => "malformed",
        }
    }
}

/// Gateway to hub: what became of an [`Order`]. Said again whenever the order comes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDone {
    /// Which.
    pub id: u64,
    /// What became of it.
    pub outcome: OrderOutcome,
    /// When that was decided, on the gateway's clocks.
    pub at: Stamp,
}
