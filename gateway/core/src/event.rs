//! What happened: the language of the journal. Recovery is replaying it.
//!
//! Each payload is a struct that travels packed, so the rule of the wire holds here too: append fields with
//! `#[serde(default)]`, never reorder or remove. The shell gives each kind its number.

use proto::{
    artifact::Lease,
    id::{AccountId, DeviceId, OutletId, SessionId, TokenHash},
    link::{LedgerRecord, Mark},
    message::{Closing, CommandOutcome, Fault, OutletState, RefusalReason, StartProof, Verb},
    money::{Money, Units},
};
use serde::{Deserialize, Serialize};

use crate::{
    authorize::Rule,
    grounds::Grounds,
    health::{Capability, Health, Mode, Signal},
    orders::Orders,
    session::{Request, Session, Terms},
    time::{Instant, Timeline},
};

macro_rules! payload {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* })+) => {
        $($(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* })+
    };
}

mod kept;
mod modes;
mod order;
mod ordered;
mod ring;

pub use kept::*;
pub use modes::*;
pub use order::*;
pub use ordered::*;
pub use ring::*;

payload! {
    /// The gateway started.
    Booted {
        /// Number of the boot.
        boot: u32,
        /// Epoch of the journal.
        epoch: u32,
    }
    /// A sealed message of a device was accepted of which no other event tells; nothing at or below its counter is accepted
    /// again.
    Heard {
        /// Who.
        device: DeviceId,
        /// The counter of the message.
        counter: u64,
    }
    /// A device started.
    Greeted {
        /// Who.
        device: DeviceId,
        /// Number of the device's boot.
        boot: u32,
        /// Number of outlets it has.
        outlets: u8,
        /// Version of its firmware.
        firmware: heapless::String<{ proto::message::FIRMWARE_BYTES_MAX }>,
    }
    /// The cloud is asked about a request; the local verdict stands if it does not answer in time.
    Asked {
        /// The request.
        request: Request,
        /// Number of the question.
        ask: u64,
        /// Until when an answer counts.
        until: Instant,
    }
    /// The cloud is asked about a pair of canaries: a token that it should accept and one that it should deny.
    Probed {
        /// Known good; zero: nobody here is, and only the other one is asked about.
        token: TokenHash,
        /// Number of the question about it; the one about the other is the next number.
        ask: u64,
        /// Until when answers count.
        until: Instant,
        /// Known bad: no such token can exist.
        bad: TokenHash,
    }
    /// No.
    Refused {
        /// The request.
        request: Request,
        /// Why.
        reason: RefusalReason,
        /// The rule that decided.
        rule: Rule,
        /// Mode of the authorize capability then.
        mode: Mode,
        /// What the decision rested on.
        #[serde(default)]
        grounds: Grounds,
    }
    /// Yes. Everything that `why` needs to explain it.
    Granted {
        /// The request.
        request: Request,
        /// What was granted.
        terms: Terms,
        /// The rule that decided.
        rule: Rule,
        /// Mode of the authorize capability then.
        mode: Mode,
        /// Revision of the token's credential that was relied on; 0: none.
        credential_revision: u64,
        /// Revision of the list then.
        list_revision: u64,
        /// Revision of the tariffs then.
        tariffs_revision: u64,
        /// Money at risk at this site, with this hold.
        exposure: Money,
        /// The hold.
        record: LedgerRecord,
        /// What the decision rested on.
        #[serde(default)]
        grounds: Grounds,
    }
    /// The cloud accepted a token.
    Confirmed {
        /// Who.
        token: TokenHash,
        /// Whose account.
        account: AccountId,
        /// Revision of the credential.
        credential_revision: u64,
        /// The session that this secures after the fact; zero: none.
        session: SessionId,
    }
    /// The cloud refused a token with a credential revision newer than ours.
    Denied {
        /// Who.
        token: TokenHash,
        /// Revision of the credential that is refused.
        credential_revision: u64,
    }
    /// Delivery is proven.
    Started {
        /// Which session.
        session: SessionId,
        /// Register at the start.
        register_start: Units,
        /// The evidence.
        record: LedgerRecord,
        /// What convinced the device; `None`: a later message said that it runs.
        #[serde(default)]
        proof: Option<StartProof>,
        /// Counter of the device's message that it tells of; 0: of none, or of one that another event tells of.
        #[serde(default)]
        counter: u64,
    }
    /// A checkpoint.
    Metered {
        /// Which session.
        session: SessionId,
        /// The register.
        register: Units,
        /// Seconds since the start.
        elapsed_s: u32,
        /// Of these, without delivery.
        idle_s: u32,
        /// Power, in W.
        power_w: u32,
        /// Local second of the day at the previous checkpoint, if the clock could tell.
        second_of_day: Option<u32>,
        /// Counter of the device's message that it tells of; 0: of none, or of one that another event tells of.
        #[serde(default)]
        counter: u64,
    }
    /// The session is over.
    Closed {
        /// Which session.
        session: SessionId,
        /// How.
        closing: Closing,
        /// What the customer pays.
        amount: Money,
        /// What was billed.
        units: Units,
        /// The register at the end.
        register_end: Units,
        /// Capture or void.
        record: LedgerRecord,
        /// What the display showed; `None`: the device never said.
        #[serde(default)]
        shown: Option<Money>,
        /// Counter of the device's message that it tells of; 0: of none, or of one that another event tells of.
        #[serde(default)]
        counter: u64,
    }
    /// The device is silent; the hold stays.
    Silent {
        /// Which session.
        session: SessionId,
        /// The statement.
        record: LedgerRecord,
    }
    /// A device reported an outlet.
    Reported {
        /// Who.
        device: DeviceId,
        /// Where.
        outlet: OutletId,
        /// Its state.
        state: OutletState,
        /// What is wrong.
        fault: Fault,
        /// Its register.
        register: Units,
    }
    /// A device was told to do something.
    Commanded {
        /// Who.
        device: DeviceId,
        /// Number of the command.
        id: u64,
        /// What.
        verb: Verb,
        /// Which session; zero: none.
        session: SessionId,
        /// Number of the operator's order; 0: none.
        #[serde(default)]
        order: u64,
    }
    /// What became of a command.
    CommandAnswered {
        /// Who.
        device: DeviceId,
        /// Number of the command.
        id: u64,
        /// What became of it.
        outcome: CommandOutcome,
    }
    /// Something was seen of the cloud. The modes are a fold over these.
    Evidence {
        /// What.
        signal: Signal,
        /// About whom; zero: nobody.
        token: TokenHash,
    }
    /// A capability changed its mode. Announces what the evidence before it did.
    ModeChanged {
        /// From now on.
        mode: Mode,
        /// Whose mode.
        capability: Capability,
    }
    /// The hub has committed everything up to here.
    Receipted {
        /// The last record.
        upto: u64,
    }
    /// A lease is taken over.
    LeaseTaken {
        /// As the hub gave it.
        lease: Lease,
        /// Revision of the leases that brought it; 0: it came with an answer.
        revision: u64,
        /// Until when it may be spent, on the gateway's own line of time.
        until: Instant,
        /// Epoch of the journal in which it may be spent.
        journal_epoch: u32,
        /// The statement.
        record: LedgerRecord,
    }
    /// What is left of a lease goes back.
    LeaseReturned {
        /// Whose.
        account: AccountId,
        /// Which.
        epoch: u64,
        /// How much.
        amount: Money,
        /// Revision of the leases that asked for it; 0: it is over by itself.
        revision: u64,
        /// The statement.
        record: LedgerRecord,
    }
    /// Leases were read to the end.
    LeasesRead {
        /// Their revision.
        revision: u64,
    }
    /// The hub knows less than it acknowledged: it was restored from a backup. Everything after is sent again.
    Rewound {
        /// The last record that it knows.
        upto: u64,
    }
    /// An instrument is sound and about to be drawn upon. From now on its purse, window or step remembers it.
    InstrumentAccepted {
        /// For which session.
        session: SessionId,
        /// At which device.
        device: DeviceId,
        /// Its number; 0: a one-time code.
        number: u64,
        /// Face value.
        face: Money,
        /// Last second of a voucher (seconds since 1970 UTC); 0: none.
        not_after_s: u64,
        /// Whose one-time code; 0: none.
        account: AccountId,
        /// Step of a one-time code; 0: none, or not known.
        step: u64,
    }
    /// Somebody typed an instrument that does not exist.
    GuessFailed {
        /// Where.
        device: DeviceId,
        /// Whose one-time code was guessed; 0: a keypad token.
        account: AccountId,
    }
    /// The backend said what became of a record beside its receipt.
    Noted {
        /// Which.
        sequence: u64,
        /// What became of it.
        mark: Mark,
        /// Records of this epoch that the backend quarantined.
        quarantined: u64,
    }
}

mod trust;
pub use self::trust::{
    Adopted, KeptList, KeptListSlot, KeptTariffs, KeptTrust, KeysAdopted, ListAdopted, ListStaged, Quarantined,
    RevocationsAdopted, RolledBack, STAGED_ENTRIES_MAX, STAGED_REMOVED_MAX, TariffsAdopted, TariffsStaged,
};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is named after its payload")]
#[expect(
    clippy::large_enum_variant,
    reason = "grants are the most frequent events; a box each would cost more"
)]
pub enum Event {
    Booted(Booted),
    Heard(Heard),
    Greeted(Greeted),
    Asked(Asked),
    Probed(Probed),
    Refused(Refused),
    Granted(Granted),
    Confirmed(Confirmed),
    Denied(Denied),
    Started(Started),
    Metered(Metered),
    Closed(Closed),
    Silent(Silent),
    Reported(Reported),
    Commanded(Commanded),
    CommandAnswered(CommandAnswered),
    ListStaged(ListStaged),
    ListAdopted(ListAdopted),
    RevocationsAdopted(RevocationsAdopted),
    TariffsAdopted(TariffsAdopted),
    Quarantined(Quarantined),
    TariffsStaged(TariffsStaged),
    Adopted(Adopted),
    RolledBack(RolledBack),
    KeysAdopted(KeysAdopted),
    Evidence(Evidence),
    ModeChanged(ModeChanged),
    Receipted(Receipted),
    Rewound(Rewound),
    InstrumentAccepted(InstrumentAccepted),
    GuessFailed(GuessFailed),
    Noted(Noted),
    LeaseTaken(LeaseTaken),
    LeaseReturned(LeaseReturned),
    LeasesRead(LeasesRead),
    Contested(Contested),
    CanaryRight(CanaryRight),
    EchoAsked(EchoAsked),
    HelloAsked(HelloAsked),
    PolicyAdopted(PolicyAdopted),
    PolicySetAside(PolicySetAside),
    PolicyRolledBack(PolicyRolledBack),
    RingBegan(RingBegan),
    RingSeen(RingSeen),
    RingWidened(RingWidened),
    RingHeld(RingHeld),
    RingEnded(RingEnded),
    LimitsStaged(LimitsStaged),
    LimitsAdopted(LimitsAdopted),
    DiskChanged(DiskChanged),
    AskedAgain(AskedAgain),
    Limited(Limited),
    ClockChanged(ClockChanged),
    Ordered(Ordered),
    Unreserved(Unreserved),
    /// Only in snapshots: a piece of state as it was.
    Kept(Kept),
}

impl Event {
    /// The request that it decides, or asks the cloud about.
    #[must_use]
    pub(crate) const fn request(&self) -> Option<&Request> {
        match self {
            Self::Asked(event) => Some(&event.request),
            Self::Refused(event) => Some(&event.request),
            Self::Granted(event) => Some(&event.request),
            _ => None,
        }
    }

    /// The ledger record it carries.
    #[must_use]
    pub const fn record(&self) -> Option<&LedgerRecord> {
        match self {
            Self::Granted(event) => Some(&event.record),
            Self::Started(event) => Some(&event.record),
            Self::Closed(event) => Some(&event.record),
            Self::Silent(event) => Some(&event.record),
            Self::LeaseTaken(event) => Some(&event.record),
            Self::LeaseReturned(event) => Some(&event.record),
            Self::Booted(_)
            | Self::Heard(_)
            | Self::Greeted(_)
            | Self::Asked(_)
            | Self::Probed(_)
            | Self::Refused(_)
            | Self::Confirmed(_)
            | Self::Denied(_)
            | Self::Metered(_)
            | Self::Reported(_)
            | Self::Commanded(_)
            | Self::CommandAnswered(_)
            | Self::ListStaged(_)
            | Self::ListAdopted(_)
            | Self::RevocationsAdopted(_)
            | Self::TariffsAdopted(_)
            | Self::Quarantined(_)
            | Self::TariffsStaged(_)
            | Self::Adopted(_)
            | Self::RolledBack(_)
            | Self::KeysAdopted(_)
            | Self::Evidence(_)
            | Self::ModeChanged(_)
            | Self::Receipted(_)
            | Self::Rewound(_)
            | Self::InstrumentAccepted(_)
            | Self::GuessFailed(_)
            | Self::Noted(_)
            | Self::LeasesRead(_)
            | Self::Contested(_)
            | Self::CanaryRight(_)
            | Self::EchoAsked(_)
            | Self::HelloAsked(_)
            | Self::PolicyAdopted(_)
            | Self::PolicySetAside(_)
            | Self::PolicyRolledBack(_)
            | Self::RingBegan(_)
            | Self::RingSeen(_)
            | Self::RingWidened(_)
            | Self::RingHeld(_)
            | Self::RingEnded(_)
            | Self::LimitsStaged(_)
            | Self::LimitsAdopted(_)
            | Self::DiskChanged(_)
            | Self::AskedAgain(_)
            | Self::Limited(_)
            | Self::ClockChanged(_)
            | Self::Ordered(_)
            | Self::Unreserved(_)
            | Self::Kept(_) => None,
        }
    }
}

/// A piece of state in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is named after its payload")]
pub enum Kept {
    Timeline(Timeline),
    Device(KeptDevice),
    Session(alloc::boxed::Box<Session>),
    Balance(KeptBalance),
    Confirmation(KeptConfirmation),
    Denial(KeptDenial),
    Tally(KeptTally),
    Charge(KeptCharge),
    Charges(KeptCharges),
    Spent(KeptSpent),
    Outbox(KeptOutbox),
    Trust(KeptTrust),
    Purse(KeptPurse),
    Pad(KeptPad),
    Codes(KeptCodes),
    Forgotten(KeptForgotten),
    Health(alloc::boxed::Box<Health>),
    List(KeptList),
    Tariffs(KeptTariffs),
    Note(KeptNote),
    Orders(Orders),
    Reservation(KeptReservation),
    Lease(KeptLease),
    Leases(KeptLeases),
    Decisions(KeptDecisions),
    Activity(KeptActivity),
    Drawn(KeptDrawn),
    Gone(KeptGone),
    Ring(KeptRing),
}
