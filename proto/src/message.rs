//! Every message of a session's life, between device and gateway.
//!
//! On the wire each is a CBOR map keyed by field position. Append fields (with `#[serde(default)]`), never reorder or
//! remove them. One topic, one struct; see [`crate::topic`].

use serde::{Deserialize, Serialize};

use crate::{
    id::{Hash, IdToken, Kind, OutletId, SessionId, TokenHash},
    instrument::Instrument,
    money::{Money, Units},
    tariff::Tariff,
    wire::wire_enum,
};

/// Longest firmware version text, in bytes.
pub const FIRMWARE_BYTES_MAX: usize = 24;
/// Most outlets of one device: the largest charging cabinets have 20.
pub const OUTLETS_MAX: usize = 20;
/// Most other tokens that may stop a session: a household, a shift of caretakers.
pub const STOP_TOKENS_MAX: usize = 8;
/// Largest encoded message body, in bytes. The largest, a grant with a full tariff, stays below it.
pub const BODY_BYTES_MAX: usize = 768;

wire_enum! {
    /// How well a clock is known (OIML R 46 and IEC 62055-21 use the same four).
    ClockQuality {
        /// Not set since power-up.
        Unknown = 0,
        /// From a source that may be wrong: a battery-backed clock, an unauthenticated answer.
        Informative = 1,
        /// Set from a trusted source and kept since.
        Synchronised = 2,
        /// Only differences mean anything.
        Relative = 3,
    } else Unknown
}

impl ClockQuality {
    /// The word for people and exports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Informative => "informative",
            Self::Synchronised => "synchronised",
            Self::Relative => "relative",
        }
    }
}

/// When something happened, on the sender's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since the sender's boot; never runs backwards within a boot.
    pub mono_ms: u64,
    /// Seconds since 1970-01-01 UTC; 0 if the quality is unknown.
    pub wall_s: u64,
    /// What `wall_s` is worth.
    pub quality: ClockQuality,
}

impl Stamp {
    /// A stamp of a device whose wall clock was never set.
    #[must_use]
    pub const fn relative(mono_ms: u64) -> Self {
        Self {
            mono_ms,
            wall_s: 0,
            quality: ClockQuality::Unknown,
        }
    }
}

/// Device to gateway: "I am up." Answered by [`Clock`]. After it the device repeats the `meter` of every open session
/// and the `stop` of every closed one without a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest protocol version the device speaks.
    pub version_min: u8,
    /// Highest protocol version the device speaks.
    pub version_max: u8,
    /// What it dispenses.
    pub kind: Kind,
    /// Number of outlets, 1 to [`OUTLETS_MAX`].
    pub outlets: u8,
    /// Number of this boot; grows by one each time.
    pub boot: u32,
    /// Highest counter accepted from the gateway, so that the gateway can go on above it.
    pub down_counter: u64,
    /// Version of the firmware, for people.
    pub firmware: heapless::String<FIRMWARE_BYTES_MAX>,
    /// When.
    pub at: Stamp,
}

/// Device to gateway: a request to draw. Answered by [`Grant`] or [`Refusal`]; repeated with the same session id until
/// then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorize {
    /// Minted and stored by the device before the first attempt.
    pub session: SessionId,
    /// Where.
    pub outlet: OutletId,
    /// Who.
    pub token: IdToken,
    /// How much the user asked for; zero: no wish.
    pub units_wished: Units,
    /// Reading of the outlet's register now.
    pub register: Units,
    /// When.
    pub at: Stamp,
    /// What proves the token, if it is an instrument that does not fit it: the envelope of a voucher, the digits of a
    /// one-time code.
    #[serde(default)]
    pub instrument: Instrument,
}

/// Device to gateway: a session that the device granted by itself, with the link down, on an instrument. Repeated until
/// it is answered by a [`Grant`] of the same terms or, if it is over, by its [`Receipt`]. It is a fact, not a request:
/// it cannot be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeemed {
    /// Minted and stored by the device before the output went on.
    pub session: SessionId,
    /// Where.
    pub outlet: OutletId,
    /// Who.
    pub token: IdToken,
    /// What proved the token; empty for a keypad token, which is its own proof.
    pub instrument: Instrument,
    /// Number of the instrument as the device read it; 0 for a one-time code.
    pub number: u64,
    /// Most units.
    pub units_max: Units,
    /// Most money: what the instrument is charged with at most.
    pub money_max: Money,
    /// Longest session, in seconds.
    pub duration_max_s: u32,
    /// Interval between `meter` messages, in seconds.
    pub meter_every_s: u16,
    /// The price: the last that the gateway granted at this device.
    pub tariff: Tariff,
    /// Reading of the register when it was granted.
    pub register: Units,
    /// When it was granted.
    pub at: Stamp,
}

/// Gateway to device: the outlet may be switched on, within these limits, whichever is reached first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Which request this answers.
    pub session: SessionId,
    /// Most units to deliver.
    pub units_max: Units,
    /// Most money to charge: the hold.
    pub money_max: Money,
    /// Longest session, in seconds.
    pub duration_max_s: u32,
    /// The device must prove the start within so many seconds of receiving this, or give up.
    pub start_within_s: u16,
    /// Interval between `meter` messages, in seconds.
    pub meter_every_s: u16,
    /// The price that was agreed.
    pub tariff: Tariff,
    /// [`Tariff::hash`] of it.
    pub tariff_hash: Hash,
    /// Number of the decision: every grant and refusal of the gateway, in order.
    pub decision: u64,
    /// Tokens, under the site's keyed hash, that may stop the session besides the one that began it: those of its group
    /// and the master tokens.
    #[serde(default)]
    pub stop_tokens: heapless::Vec<TokenHash, STOP_TOKENS_MAX>,
}

wire_enum! {
    /// Why a request was refused.
    RefusalReason {
        /// A reason of a newer version.
        Other = 0,
        /// The device is faulted, updating, unknown to the site, or the outlet is busy.
        DeviceState = 1,
        /// The token is revoked.
        Revoked = 2,
        /// Too many attempts, or the count limit of this outage is reached.
        Rate = 3,
        /// The instrument was used before.
        Replay = 4,
        /// The token has an open session of this kind.
        Concurrent = 5,
        /// This token needs an answer of the cloud, and there is none.
        OnlineRequired = 6,
        /// Never seen.
        Unknown = 7,
        /// The cloud says no, and is credible.
        Denied = 8,
        /// The list says that the token is not valid.
        Invalid = 9,
        /// The balance, or a limit of money, is used up.
        NoCredit = 10,
        /// The list is too old to be used for credit.
        ListExpired = 11,
        /// No tariff for this kind.
        NoTariff = 12,
        /// The gateway speaks none of the device's protocol versions.
        Version = 13,
        /// The gateway cannot store decisions now.
        Storage = 14,
        /// The outlet is kept free for somebody else.
        Reserved = 15,
        /// The instrument is forged, damaged or mistyped.
        Forged = 20,
        /// The instrument is for another site, device, kind or currency.
        Elsewhere = 21,
        /// The time of the instrument is over, or has not come.
        Expired = 22,
        /// Too many wrong instruments were tried.
        LockedOut = 23,
        /// The clock is not good enough to judge the instrument.
        Clock = 24,
    } else Other
}

impl RefusalReason {
    /// The word in logs, reports and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::DeviceState => "device_state",
            Self::Revoked => "revoked",
            Self::Rate => "rate",
            Self::Replay => "replay",
            Self::Concurrent => "concurrent",
            Self::OnlineRequired => "online_required",
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::NoCredit => "no_credit",
            Self::ListExpired => "list_expired",
            Self::NoTariff => "no_tariff",
            Self::Version => "version",
            Self::Storage => "storage",
            Self::Reserved => "reserved",
            Self::Forged => "forged",
            Self::Elsewhere => "elsewhere",
            Self::Expired => "expired",
            Self::LockedOut => "locked_out",
            Self::Clock => "clock",
        }
    }
}

/// Gateway to device: no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which request this answers; zero if the hello is refused.
    pub session: SessionId,
    /// Why.
    pub reason: RefusalReason,
    /// Ask again after so many seconds; zero: do not.
    pub retry_after_s: u16,
}

wire_enum! {
    /// What convinced the device that the supply really runs.
    StartProof {
        /// A proof of a newer version.
        Other = 0,
        /// The contactor's sense input and current.
        RelaySense = 1,
        /// The door is locked and the machine reports running.
        DoorLock = 2,
        /// Flow pulses.
        Flow = 3,
    } else Other
}

/// Device to gateway: delivery has begun. Not repeated: every later `meter` and `stop` carries the same fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Which session.
    pub session: SessionId,
    /// Where.
    pub outlet: OutletId,
    /// Reading of the register at the start.
    pub register_start: Units,
    /// What proves it.
    pub proof: StartProof,
    /// When.
    pub at: Stamp,
}

/// Device to gateway: a checkpoint of a running session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Which session.
    pub session: SessionId,
    /// Where.
    pub outlet: OutletId,
    /// Reading of the register at the start.
    pub register_start: Units,
    /// Reading now.
    pub register: Units,
    /// Power now, in W; zero where it means nothing.
    pub power_w: u32,
    /// Seconds since the start, on the device's monotonic clock.
    pub elapsed_s: u32,
    /// Of these, seconds without delivery.
    pub idle_s: u32,
    /// When.
    pub at: Stamp,
}

wire_enum! {
    /// Why a session ended.
    StopReason {
        /// A reason of a newer version.
        Other = 0,
        /// The user: the same token, the button.
        User = 1,
        /// The units, money or time of the grant are used up.
        Limit = 2,
        /// Nothing more is drawn: battery full, programme finished, vessel full.
        Finished = 3,
        /// Unplugged, door opened.
        Unplugged = 4,
        /// The device found a fault and switched off.
        Fault = 5,
        /// The device lost power.
        PowerLoss = 6,
        /// A command.
        Remote = 7,
        /// Granted, but the start was never proven.
        NotStarted = 8,
        /// The user gave up, or the device did, before an answer came.
        Abandoned = 9,
    } else Other
}

/// Device to gateway: the session is over and the outlet is off. Repeated until its [`Receipt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Which session.
    pub session: SessionId,
    /// Where.
    pub outlet: OutletId,
    /// Why.
    pub reason: StopReason,
    /// Whether delivery ever began.
    pub started: bool,
    /// Reading of the register at the start.
    pub register_start: Units,
    /// Reading at the end.
    pub register_end: Units,
    /// Seconds from start to end, on the device's monotonic clock.
    pub elapsed_s: u32,
    /// Of these, seconds without delivery.
    pub idle_s: u32,
    /// What the device showed the user. Never billed above this.
    pub shown: Money,
    /// When.
    pub at: Stamp,
}

wire_enum! {
    /// How the gateway closed a session.
    Closing {
        /// An outcome of a newer version.
        Other = 0,
        /// Delivery was charged.
        Captured = 1,
        /// Nothing was delivered, nothing charged.
        Voided = 2,
        /// The gateway never granted this session.
        Unknown = 3,
    } else Other
}

/// Gateway to device: the end is in the journal; the device may forget the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which session.
    pub session: SessionId,
    /// How it was closed.
    pub closing: Closing,
    /// What the customer pays.
    pub amount: Money,
    /// What was billed.
    pub units: Units,
}

wire_enum! {
    /// State of an outlet.
    OutletState {
        /// A state of a newer version; treated as not usable.
        Other = 0,
        /// Ready for a user.
        Free = 1,
        /// Waiting for an answer or for the start proof.
        Preparing = 2,
        /// Delivering.
        Busy = 3,
        /// Out of order; the outlet is off.
        Faulted = 4,
        /// Updating its firmware.
        Updating = 5,
    } else Other
}

wire_enum! {
    /// What is wrong with an outlet.
    Fault {
        /// A fault of a newer version.
        Other = 0,
        /// Nothing.
        None = 1,
        /// Current above the limit.
        OverCurrent = 2,
        /// Temperature above the limit.
        OverTemperature = 3,
        /// Residual current.
        Leakage = 4,
        /// The contactor does not open.
        Welded = 5,
        /// Water runs with the valve closed.
        Leak = 6,
        /// The pump runs without water.
        DryRun = 7,
        /// The door does not lock.
        Door = 8,
        /// The machine does not answer, or the start was not proven again and again.
        NoStart = 9,
        /// The register ran backwards or stands still under load.
        Meter = 10,
    } else Other
}

/// Device to gateway: the state of one outlet, on change and on request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Which outlet.
    pub outlet: OutletId,
    /// Its state.
    pub state: OutletState,
    /// What is wrong.
    pub fault: Fault,
    /// Reading of its register.
    pub register: Units,
    /// When.
    pub at: Stamp,
}

wire_enum! {
    /// What a device is told to do.
    Verb {
        /// A verb of a newer version; answered `unsupported`.
        Other = 0,
        /// Stop the session named.
        Stop = 1,
        /// Report the status of the outlet.
        Report = 2,
        /// Begin a request with the token given, as if it had been presented.
        Start = 3,
        /// Say hello again.
        Hello = 4,
        /// End the session named once it has delivered `units`, if it has not ended by then. A wash cycle is not cut.
        Limit = 5,
    } else Other
}

/// Gateway to device: do something, once, unless it is too late. Answered by [`CommandAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Grows with every command to this device; one at or below the last executed is answered `repeated`.
    pub id: u64,
    /// What.
    pub verb: Verb,
    /// Where.
    pub outlet: OutletId,
    /// Which session; zero if none.
    pub session: SessionId,
    /// Not to be begun after this time (seconds since 1970 UTC); zero: no limit. A device whose clock is unknown
    /// refuses a limited `start` and executes a limited `stop`.
    pub not_after_s: u64,
    /// The token of a `start`.
    pub token: Option<IdToken>,
    /// Of a `limit`: most units of the whole session, from its start.
    #[serde(default)]
    pub units: Units,
}

wire_enum! {
    /// What became of a command.
    CommandOutcome {
        /// An outcome of a newer version.
        Other = 0,
        /// Done.
        Done = 1,
        /// Already executed.
        Repeated = 2,
        /// Too late, or the device cannot tell.
        Stale = 3,
        /// This device has no such verb.
        Unsupported = 4,
        /// There is no such session, or the outlet is not in a state for it.
        NotApplicable = 5,
    } else Other
}

/// Device to gateway: what became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// Which command.
    pub id: u64,
    /// What became of it.
    pub outcome: CommandOutcome,
    /// When.
    pub at: Stamp,
}

/// Gateway to device: the answer to a hello, and whenever the gateway's clock steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The protocol version to speak.
    pub version: u8,
    /// The boot of the device whose hello this answers.
    pub boot: u32,
    /// Seconds since 1970-01-01 UTC; 0 if unknown.
    pub wall_s: u64,
    /// What `wall_s` is worth.
    pub quality: ClockQuality,
    /// Offset of local time from UTC, in minutes, -720 to 840; for times of use.
    pub offset_min: i16,
}
