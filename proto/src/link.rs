//! Gateway to hub: HCP, our own protocol over any MQTT broker. Everything but [`Trouble`] travels sealed under the
//! gateway's link secret (see [`crate::seal`]), so that whatever stands between the two can delay and drop, but not
//! answer, acknowledge or order.

mod order;

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    artifact::Lease,
    digest::Sha256,
    id::{AccountId, DeviceId, Hash, Kind, OutletId, SessionId, TokenHash},
    message::{ClockQuality, Stamp, StopReason},
    money::{Money, Units},
    tariff::Bill,
    trust::ArtifactKind,
    wire::wire_enum,
};

pub use self::order::*;

/// Largest sealed frame on the link, in bytes: the smallest message limit among brokers and clouds (Huawei, AWS: 128
/// KiB) with a wide margin.
pub const LINK_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Most records in one [`Upload`].
pub const UPLOAD_RECORDS_MAX: usize = 128;
/// Largest part of an artifact, in bytes.
pub const PART_BYTES_MAX: usize = 32 * 1024;

/// Gateway to hub, first after every connect. Answered by [`Welcome`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkHello {
    /// Lowest protocol version spoken.
    pub version_min: u8,
    /// Highest protocol version spoken.
    pub version_max: u8,
    /// Epoch of the gateway's journal: grows with every restore from a backup.
    pub epoch: u32,
    /// Number of this boot.
    pub boot: u32,
    /// Sequence of the newest ledger record.
    pub head: u64,
    /// Sequence of the last record with a receipt.
    pub cursor: u64,
    /// Revision of the adopted list; 0: none.
    pub list_revision: u64,
    /// Revision of the adopted revocations; 0: none.
    pub revocations_revision: u64,
    /// Revision of the adopted tariffs; 0: none.
    pub tariffs_revision: u64,
    /// Highest counter accepted from the hub.
    pub down_counter: u64,
    /// Revision of the newest leases; 0: none.
    #[serde(default)]
    pub leases_revision: u64,
    /// Revision of the adopted policy; 0: none.
    #[serde(default)]
    pub policy_revision: u64,
}

/// Hub to gateway: where the hub stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version to speak; 0: none in common.
    pub version: u8,
    /// Epoch the hub expects; above the gateway's: the gateway is a restored copy and is fenced.
    pub epoch: u32,
    /// The last record the hub has committed.
    pub upto: u64,
    /// Chain hash at `upto`.
    pub hash: Hash,
    /// Seconds since 1970 UTC by the hub's clock.
    pub wall_s: u64,
    /// Revision of the newest list; 0: none, or a hub that does not say.
    #[serde(default)]
    pub list_revision: u64,
    /// Revision of the newest revocations; 0: none, or a hub that does not say.
    #[serde(default)]
    pub revocations_revision: u64,
    /// Revision of the newest tariffs; 0: none, or a hub that does not say.
    #[serde(default)]
    pub tariffs_revision: u64,
}

/// Gateway to hub: may this token draw? Answered by [`Answer`], or by nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Number of the question, unique over the gateway's boots and epochs; below 2^53.
    pub ask: u64,
    /// For which session; zero: a canary, nothing will be drawn.
    pub session: SessionId,
    /// Who.
    pub token: TokenHash,
    /// What for.
    pub kind: Kind,
    /// The hold that the gateway would place.
    pub amount: Money,
}

wire_enum! {
    /// The hub's word on a token.
    Verdict {
        /// A verdict of a newer version; treated as no answer.
        Other = 0,
        /// Yes.
        Accept = 1,
        /// No.
        Deny = 2,
    } else Other
}

/// Hub to gateway: the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which question.
    pub ask: u64,
    /// For which session.
    pub session: SessionId,
    /// About whom.
    pub token: TokenHash,
    /// Yes or no.
    pub verdict: Verdict,
    /// Revision of the token's credential at the hub. A `Deny` is authority only if this is newer than the gateway's.
    pub credential_revision: u64,
    /// Whose account.
    pub account: AccountId,
    /// Most the hub lets this session cost.
    pub money_max: Money,
    /// A lease that comes with the answer, and will come again as an artifact; `epoch` 0: none.
    #[serde(default)]
    pub lease: Lease,
}

wire_enum! {
    /// What a ledger record states.
    RecordKind {
        /// A statement of a newer version; kept, not booked.
        Other = 0,
        /// Money was set aside: a grant.
        Hold = 1,
        /// The start is proven.
        Started = 2,
        /// Delivery is charged.
        Capture = 3,
        /// The hold is released: nothing was delivered.
        Void = 4,
        /// The device is silent; the hold stays.
        Indeterminate = 5,
        /// What is left of a lease goes back to the account.
        LeaseReturn = 6,
        /// A lease is taken over: from now on this gateway may spend it.
        LeaseTaken = 7,
    } else Other
}

/// [`Evidence::mode`] of a session that the device granted by itself, with the link down, on an instrument.
pub const MODE_ALONE: u8 = 4;

wire_enum! {
    /// Why the operator pays for a session.
    #[derive(Default)]
    Gift {
        /// He does not.
        #[default]
        None = 0,
        /// Emergency credit.
        Emergency = 1,
        /// A signed free-vend window.
        FreeVend = 2,
        /// For a reason of a newer version.
        Other = 3,
    } else Other
}

/// What a decision relied on, for whoever judges it later (semantics, sections 6 and 8). All zero in records that are
/// not about a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Mode of the authorize capability: 0 ONLINE, 1 SUSPECT, 2 LOCAL, 3 RECOVERING; [`MODE_ALONE`]: the device decided.
    pub mode: u8,
    /// Revision of the token's credential that was known; 0: none.
    pub credential_revision: u64,
    /// Revision of the list; 0: none.
    pub list_revision: u64,
    /// Revision of the revocations; 0: none.
    pub revocations_revision: u64,
    /// Epoch of the lease that pays; 0: none.
    pub lease: u64,
    /// Number of the instrument that pays; 0: none.
    pub instrument: u64,
    /// Step 10: the operator pays, for somebody whom nobody knows.
    #[serde(default)]
    pub gift: Gift,
}

/// One fact about money, in the order of the gateway's journal. The unit of upload, of receipt and of comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// 1, 2, 3 ... without a gap, within (gateway, epoch).
    pub sequence: u64,
    /// What it states.
    pub kind: RecordKind,
    /// Which session.
    pub session: SessionId,
    /// At which device.
    pub device: DeviceId,
    /// At which outlet.
    pub outlet: OutletId,
    /// What the device dispenses.
    pub device_kind: Kind,
    /// Who.
    pub token: TokenHash,
    /// Whose account.
    pub account: AccountId,
    /// The hold, the charge, or the amount released.
    pub amount: Money,
    /// Register at the start of the session.
    pub register_start: Units,
    /// Register now or at the end.
    pub register_end: Units,
    /// Quantities per price element.
    pub bill: Bill,
    /// [`crate::tariff::Tariff::hash`] of the granted price.
    pub tariff_hash: Hash,
    /// Why the session ended; `Other` while it runs.
    pub stop_reason: StopReason,
    /// The rule that granted (step of the decision order, 1 to 10).
    pub rule: u8,
    /// Whether the cloud had accepted this session before the grant.
    pub online: bool,
    /// When, on the gateway's clocks.
    pub at: Stamp,
    /// Number of the gateway's boot.
    pub boot: u32,
    /// What the decision relied on.
    #[serde(default)]
    pub evidence: Evidence,
}

/// Gateway to hub: records `first ..`, each as the bytes that are chained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Epoch of the sequence.
    pub epoch: u32,
    /// Sequence of the first record.
    pub first: u64,
    /// Encoded [`LedgerRecord`]s, 1 to [`UPLOAD_RECORDS_MAX`].
    pub records: Vec<ByteBuf>,
}

wire_enum! {
    /// What became of a record that was not simply booked.
    Mark {
        /// Something of a newer version.
        Other = 0,
        /// It cannot be booked; it is kept aside until a person has looked.
        Quarantined = 1,
        /// The backend computes another charge; the gateway's is booked, both are kept.
        Disputed = 2,
        /// Booked, and corrected by an entry of the backend's own.
        Adjusted = 3,
        /// Another claim on its session is booked; this one is kept.
        Aside = 4,
    } else Other
}

/// Most notes in one receipt: one for each record of an upload.
pub const NOTES_MAX: usize = UPLOAD_RECORDS_MAX;

/// What became of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Which.
    pub sequence: u64,
    /// What became of it.
    pub mark: Mark,
}

/// Hub to gateway: everything up to `upto` is committed. The only thing that retires records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerReceipt {
    /// Epoch of the sequence.
    pub epoch: u32,
    /// Last committed record.
    pub upto: u64,
    /// Chain hash at `upto`: the gateway compares it with its own.
    pub hash: Hash,
    /// Records of the epoch that are quarantined; the others went on.
    #[serde(default)]
    pub quarantined: u64,
    /// Records that were not simply booked, at most [`NOTES_MAX`]. A backend may say the same again.
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// There and back: proof that the operator's backend itself is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Returned as it was sent.
    pub nonce: u64,
}

/// Hub to gateway: that hello's counter is an old one, go on above this. A gateway that was put back from a backup does
/// not know how far it had counted. The hub answers so whoever plays an old hello again, and does nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterSeen {
    /// The highest counter of the gateway's that the hub accepted.
    pub last: u64,
}

/// Hub to gateway: one part of a signed artifact, retained by the broker or sent after a hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactPart {
    /// What it is about.
    pub kind: ArtifactKind,
    /// Its revision.
    pub revision: u64,
    /// Number of this part: 0 is the signed envelope, 1 .. the chunks it names.
    pub part: u32,
    /// Number of parts.
    pub parts: u32,
    /// At most [`PART_BYTES_MAX`].
    pub bytes: ByteBuf,
}

/// Cloud to gateway, unauthenticated: an error in the cloud's own words. Evidence, never authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Which question; 0: none in particular.
    pub ask: u64,
    /// As in HTTP: 401, 403, 404, 429, 5xx.
    pub code: u16,
    /// At most [`TROUBLE_TEXT_BYTES_MAX`] are kept.
    pub text: String,
}

/// Longest text of a [`Trouble`] that is kept, in bytes.
pub const TROUBLE_TEXT_BYTES_MAX: usize = 160;

wire_enum! {
    /// Mode of a capability of the cloud, with the numbers of [`Evidence::mode`].
    Mode {
        /// The cloud is asked.
        Online = 0,
        /// The cloud is asked; it failed once.
        Suspect = 1,
        /// Nobody waits for the cloud; probes ask.
        Local = 2,
        /// As LOCAL; the probes are good again.
        Recovering = 3,
        /// A mode of a newer version.
        Other = 255,
    } else Other
}

/// A mode, and how long it has lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeSince {
    /// Which.
    pub mode: Mode,
    /// For how long, in s.
    pub since_s: u64,
}

/// Gateway to hub: how the gateway is. The lane that is shed first: sent once and never again, not journaled, answered by
/// nothing, and sent only while no record waits to be sent. Nothing about money may rest on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Capability authorize: the cloud says who may draw.
    pub authorize: ModeSince,
    /// Capability commit: the cloud takes ledger records.
    pub commit: ModeSince,
    /// Capability control: the cloud sends artifacts and commands.
    pub control: ModeSince,
    /// Money at risk: unsecured and not yet settled; minor units.
    pub exposure: Money,
    /// How much more may be at risk at this site; minor units, not negative.
    pub budget_left: Money,
    /// Sessions without a receipt.
    pub sessions_open: u32,
    /// Devices with an open connection; none: they are connected to a broker, which does not say.
    pub devices_connected: Option<u32>,
    /// Ledger records without a receipt.
    pub waiting: u64,
    /// For how long records have waited with none of them receipted, in s; 0 if none waits.
    pub waiting_s: u64,
    /// Whether the disk's reserve is reached: no new unsecured session begins.
    pub disk_scarce: bool,
    /// What the gateway's wall clock is worth.
    pub clock: ClockQuality,
    /// Revision of the list; 0: none.
    pub list_revision: u64,
    /// Revision of the tariffs; 0: none.
    pub tariffs_revision: u64,
    /// Revision of the policy; 0: none.
    pub policy_revision: u64,
    /// Revision of the revocations; 0: none.
    pub revocations_revision: u64,
    /// Since the gateway's boot, in s.
    pub up_s: u64,
    /// Reports that fell due since the last one that was sent, and were not.
    pub shed: u64,
}

/// The chain over uploaded records: `h(n) = SHA-256(h(n-1) | bytes(n))`, `h(0)` all zero.
#[must_use]
pub fn chain(previous: &Hash, record: &[u8]) -> Hash {
    Hash(Sha256::of(&[&previous.0, record]))
}
