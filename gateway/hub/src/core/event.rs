//! What can happen to the hub's state. Each event stands for itself: a crash between two events of one decision leaves
//! a state from which the same input completes the rest.

use core::fmt;

use proto::{
    artifact::{Lease, PublicKey, Reason, Subject},
    id::{AccountId, GatewayId, Hash, Kind, SessionId, TokenHash},
    link::{LedgerRecord, Order, OrderDone},
    money::Money,
    policy::Policy,
    tariff::Tariff,
};

use super::{
    conflict::{Adjustment, Case},
    settle::Settling,
    state::TokenRow,
};

/// The identity of an uploaded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordKey {
    /// Whose journal.
    pub gateway: GatewayId,
    /// Which sequence.
    pub epoch: u32,
    /// Number in it.
    pub sequence: u64,
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.gateway, self.epoch, self.sequence)
    }
}

/// One change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The process started for the `boot`th time.
    Booted {
        /// Upper half of every counter until the next start.
        boot: u32,
    },
    /// The sum of an account's deposits is known.
    AccountSet {
        /// Which.
        account: AccountId,
        /// All that was ever paid in.
        deposit: Money,
    },
    /// A token is new or changed.
    TokenSet {
        /// Which.
        token: TokenHash,
        /// As it is from now on.
        row: TokenRow,
    },
    /// A token is revoked, for good.
    Revoked {
        /// Which.
        token: TokenHash,
        /// With this credential revision and all before it.
        credential_revision: u64,
        /// Why.
        reason: Reason,
    },
    /// An account, a device or a key is revoked, for good.
    ScopeRevoked {
        /// Which.
        subject: Subject,
        /// Why.
        reason: Reason,
    },
    /// A set of keys was frozen for publication.
    KeysPublished {
        /// Number of the set.
        epoch: u64,
        /// The keys that sign from now on.
        keys: Vec<PublicKey>,
    },
    /// The price of a kind is new or changed.
    TariffSet {
        /// Which kind.
        kind: Kind,
        /// Its price.
        tariff: Tariff,
    },
    /// A full list was frozen for publication.
    ListPublished {
        /// Its revision.
        revision: u64,
        /// When, in seconds since 1970 UTC.
        issued_s: u64,
    },
    /// The next window of revocations was frozen for publication.
    RevocationsPublished {
        /// Its revision.
        revision: u64,
    },
    /// The price table was frozen for publication.
    TariffsPublished {
        /// Its revision.
        revision: u64,
    },
    /// A gateway said hello; in a higher epoch than before its sequence starts anew.
    GatewaySeen {
        /// Who.
        gateway: GatewayId,
        /// Its epoch.
        epoch: u32,
        /// Number of its boot.
        boot: u32,
        /// Counter of the hello: no older frame of this epoch is accepted again, across restarts of the hub.
        counter: u64,
    },
    /// A gateway forgot records that are committed here, or is gone for good: it has to start a new epoch.
    GatewayFenced {
        /// Who.
        gateway: GatewayId,
        /// The epoch in which it spoke last.
        epoch_from: u32,
        /// The epoch expected from now on.
        epoch: u32,
        /// Counter of its last hello.
        counter: u64,
    },
    /// A record is committed and booked.
    Booked {
        /// Which.
        at: RecordKey,
        /// Chain hash behind it.
        hash: Hash,
        /// As received.
        bytes: Vec<u8>,
        /// As read from `bytes`.
        record: LedgerRecord,
    },
    /// Some bytes of a record that is about to be quarantined.
    QuarantinePart {
        /// Which.
        at: RecordKey,
        /// Where in the record.
        offset: u64,
        /// At most `QUARANTINE_PART_BYTES`.
        bytes: Vec<u8>,
    },
    /// A record is committed, but not booked.
    Quarantined {
        /// Which.
        at: RecordKey,
        /// Chain hash behind it.
        hash: Hash,
        /// Why.
        reason: String,
    },
    /// The operator has looked at quarantined records: they are kept here, and wait for nobody.
    QuarantineSettled(Settling),
    /// The operator's limits are new or changed, and published.
    PolicyPublished {
        /// All of them, with their revision.
        policy: Policy,
    },
    /// An account is never served on credit, or is again.
    LeaseOnlySet {
        /// Which.
        account: AccountId,
        /// Whether it is not.
        lease_only: bool,
    },
    /// A lease is given.
    LeaseGiven {
        /// To whom.
        gateway: GatewayId,
        /// For which epoch of its journal.
        journal_epoch: u32,
        /// Revision of its leases with this one.
        revision: u64,
        /// What.
        lease: Lease,
    },
    /// What is left of a lease is asked back.
    LeaseRecalled {
        /// Whose.
        account: AccountId,
        /// Which.
        epoch: u64,
        /// Revision of its gateway's leases with this.
        revision: u64,
    },
    /// The operator freed a lease of an epoch that is over. What is left of it is moved by an entry of the hub's own.
    LeaseReleased {
        /// Whose.
        account: AccountId,
        /// Which.
        epoch: u64,
    },
    /// The charge of a record is not what the hub computes. It is booked as the gateway charged it.
    Disputed {
        /// Which record.
        at: RecordKey,
        /// Which session.
        session: SessionId,
        /// What the gateway charged.
        charged: Money,
        /// What the hub computes; `None`: it has no tariff with that hash.
        computed: Option<Money>,
    },
    /// The hub's clock at a word of the operator: what follows was said then.
    Dated {
        /// Seconds since 1970 UTC.
        wall_s: u64,
    },
    /// An entry of the hub's own is booked.
    Adjusted(Adjustment),
    /// A record of a second claim on a session is committed and kept, but not booked.
    Aside {
        /// Which.
        at: RecordKey,
        /// Chain hash behind it.
        hash: Hash,
        /// As received.
        bytes: Vec<u8>,
        /// As read from `bytes`.
        record: LedgerRecord,
        /// Whether it says the same as the claim that is booked.
        exists: bool,
    },
    /// Something a person should look at.
    CaseOpened(Case),
    /// An account draws nothing unsecured for a while.
    Barred {
        /// Which.
        account: AccountId,
        /// Until when, in seconds since 1970 UTC.
        until_s: u64,
    },
    /// The operator ordered something at a site.
    Dispatched {
        /// By which gateway.
        gateway: GatewayId,
        /// What, with its number and without its raw token.
        order: Box<Order>,
        /// When (seconds since 1970 UTC).
        issued_s: u64,
    },
    /// The time of an order is over, and its gateway has not answered.
    DispatchOverdue {
        /// Whose.
        gateway: GatewayId,
        /// Which.
        id: u64,
    },
    /// A gateway said what became of an order.
    DispatchAnswered {
        /// Who.
        gateway: GatewayId,
        /// What became of it.
        done: OrderDone,
    },
    /// The hub came to the gateway's opinion: the price was not known here before.
    DisputeWithdrawn {
        /// Of which record.
        at: RecordKey,
    },
}
