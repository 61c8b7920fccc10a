//! State as a snapshot keeps it.

use alloc::vec::Vec;

use proto::{
    id::{AccountId, DeviceId, Hash, OutletId, TokenHash},
    instrument::{Lockout, ReplayWindow},
    link::Mark,
    message::{Fault, OutletState},
    money::{Money, Units},
    policy::Class,
};
use serde::{Deserialize, Serialize};

use super::KeptListSlot;
use crate::{claims::Interval, instrument::Purse, lease::LeaseRow, ring::Course, risk::Tally, trust::Confirmation};

payload! {
    /// A device, as a snapshot keeps it.
    KeptDevice {
        /// Who.
        device: DeviceId,
        /// Highest counter accepted.
        counter: u64,
        /// Number of its boot.
        boot: u32,
        /// Number of the last command.
        command: u64,
        /// Its outlets.
        outlets: Vec<KeptOutlet>,
        /// How it went with it.
        #[serde(default)]
        course: Course,
    }
    /// An outlet, as a snapshot keeps it.
    KeptOutlet {
        /// Which.
        outlet: OutletId,
        /// Its state.
        state: OutletState,
        /// What is wrong.
        fault: Fault,
        /// The register up to which everything belongs to a bill ...
        billed: Units,
        /// ... but for these intervals, ascending.
        gaps: Vec<Interval>,
    }
    /// An account, as a snapshot keeps it.
    KeptBalance {
        /// As [`proto::book::Account::parts`] gives it.
        class: u8,
        /// As well.
        number: u64,
        /// As well.
        part: u64,
        /// Set aside to leave.
        debits_pending: Money,
        /// Left.
        debits_posted: Money,
        /// Set aside to come.
        credits_pending: Money,
        /// Came.
        credits_posted: Money,
    }
    /// A confirmation, as a snapshot keeps it.
    KeptConfirmation {
        /// Who.
        token: TokenHash,
        /// What is remembered.
        confirmation: Confirmation,
    }
    /// A denial, as a snapshot keeps it.
    KeptDenial {
        /// Who.
        token: TokenHash,
        /// Revision refused.
        credential_revision: u64,
    }
    /// A token's counters in this outage, as a snapshot keeps them.
    KeptTally {
        /// Who.
        token: TokenHash,
        /// For which class of outlets.
        class: Class,
        /// The counters.
        tally: Tally,
    }
    /// A charge without a receipt, as a snapshot keeps it.
    KeptCharge {
        /// Sequence of its record.
        sequence: u64,
        /// Whose account.
        account: AccountId,
        /// How much.
        amount: Money,
        /// Whether it is at the site's risk.
        unsecured: bool,
    }
    /// Charges without a receipt, as a snapshot keeps them.
    KeptCharges {
        /// In the order of their records.
        rows: Vec<KeptCharge>,
    }
    /// The outbox, as a snapshot keeps it.
    KeptOutbox {
        /// Sequence of the newest record.
        head: u64,
        /// Chain hash there.
        chain: Hash,
        /// Sequence of the last record with a receipt.
        cursor: u64,
    }
    /// What the backend said of a record, as a snapshot keeps it.
    KeptNote {
        /// Which.
        sequence: u64,
        /// What became of it.
        mark: Mark,
        /// Records of this epoch that the backend quarantined.
        quarantined: u64,
    }
    /// A lease, as a snapshot keeps it; what is held of it follows from the sessions.
    KeptLease {
        /// Whose.
        account: AccountId,
        /// Which.
        epoch: u64,
        /// The lease.
        row: LeaseRow,
    }
    /// Revision of the newest leases, as a snapshot keeps it.
    KeptLeases {
        /// It.
        revision: u64,
    }
    /// How many decisions there were, as a snapshot keeps it.
    KeptDecisions {
        /// Number of the last one.
        decisions: u64,
    }
    /// What a customer spent since the list was made, as a snapshot keeps it.
    KeptSpent {
        /// Whose account.
        account: AccountId,
        /// How much.
        amount: Money,
        /// Since which list.
        slot: KeptListSlot,
    }
    /// The money of an instrument, as a snapshot keeps it.
    KeptPurse {
        /// Its number.
        number: u64,
        /// Its money.
        purse: Purse,
    }
    /// A keypad, as a snapshot keeps it.
    KeptPad {
        /// Whose.
        device: DeviceId,
        /// Counters that were accepted.
        window: ReplayWindow,
        /// Failures.
        lockout: Lockout,
    }
    /// An account's one-time codes, as a snapshot keeps them.
    KeptCodes {
        /// Whose.
        account: AccountId,
        /// The last step accepted.
        last_step: u64,
        /// Failures.
        lockout: Lockout,
    }
    /// Which vouchers nobody remembers, as a snapshot keeps it.
    KeptForgotten {
        /// The latest expiry among them (seconds since 1970 UTC).
        forgotten_s: u64,
    }
}
