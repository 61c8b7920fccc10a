//! What a person has to be told at once.

use proto::{
    id::{DeviceId, OutletId, TokenHash},
    message::Fault,
    trust::ArtifactKind,
};

use crate::{
    health::{Capability, Mode},
    policy::Suspect,
    ring::{Staged, Verdict},
    trust::Findings,
};

/// What an operator must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// The hub's chain differs from ours at a record that both have.
    #[error("the hub's books differ from ours at record {upto}")]
    Diverged {
        /// Which record.
        upto: u64,
    },
    /// A genuine artifact looks wrong.
    #[error("{} revision {revision} is set aside: {findings}", kind.word())]
    Quarantined {
        /// What it is about.
        kind: ArtifactKind,
        /// Its revision.
        revision: u64,
        /// What is wrong with it.
        findings: Findings,
    },
    /// A genuine list of changes does not make the signed list of ours: whoever made it forgot what we have.
    #[error("list revision {revision} as changes to revision {base} makes another list than the signed one of ours")]
    Trailer {
        /// Its revision.
        revision: u64,
        /// The active revision.
        base: u64,
    },
    /// The hub knows less than it had acknowledged.
    #[error("the hub has lost records {} to {cursor}; they are sent again", upto + 1)]
    HubRegressed {
        /// The last record it knows.
        upto: u64,
        /// The last record it had acknowledged.
        cursor: u64,
    },
    /// The hub expects another epoch: this journal is a copy.
    #[error("the hub expects epoch {expected}, this journal has {found}: it is a copy, or the hub is another one")]
    Epoch {
        /// The hub's.
        expected: u32,
        /// Ours.
        found: u32,
    },
    /// A device reports a fault.
    #[error("{device} outlet {outlet}: fault {fault:?}")]
    DeviceFault {
        /// Who.
        device: DeviceId,
        /// Where.
        outlet: OutletId,
        /// What.
        fault: Fault,
    },
    /// A genuine policy looks wrong.
    #[error("policy revision {revision} is set aside: {suspect}")]
    PolicySetAside {
        /// Its revision.
        revision: u64,
        /// What looks wrong.
        suspect: Suspect,
    },
    /// What was tried in a ring went back by itself: it lies aside, and what was active is active everywhere.
    #[error("{} revision {revision} went back from its ring: {verdict}", what.word())]
    RingBack {
        /// What.
        what: Staged,
        /// Its revision.
        revision: u64,
        /// Why.
        verdict: Verdict,
    },
    /// A clock differs from what it should say.
    #[error("{whose} clock is {skew_s} s ahead of what was expected")]
    Clock {
        /// Whose.
        whose: Whose,
        /// By how much, in s.
        skew_s: i64,
    },
    /// The disk's reserve is reached: no new unsecured sessions.
    #[error("the disk's reserve is reached: no new unsecured sessions until there is room")]
    DiskScarce,
    /// The backend cannot book a record of ours. It is kept there, and the others went on.
    #[error("the backend cannot book record {sequence}; it is quarantined there, {total} in all")]
    RecordQuarantined {
        /// Which.
        sequence: u64,
        /// How many of this epoch are.
        total: u64,
    },
    /// The backend computes another charge, or knows another story of the session. Both are kept.
    #[error("the backend disputes record {sequence}")]
    RecordDisputed {
        /// Which.
        sequence: u64,
    },
    /// A register ran backwards, or an interval was reported twice.
    #[error("{device} outlet {outlet}: the register stands at {found}, {billed} is billed already")]
    Register {
        /// Who.
        device: DeviceId,
        /// Where.
        outlet: OutletId,
        /// The reading.
        found: u64,
        /// Billed up to.
        billed: u64,
    },
    /// A capability is decided without the cloud from now on, or with it again.
    #[error("{} is {} now", capability.word(), mode.word())]
    Mode {
        /// Which.
        capability: Capability,
        /// Its mode.
        mode: Mode,
    },
    /// The cloud denies so many known-good tokens that it is not believed any more.
    #[error("the cloud denies known-good tokens by the dozen: unsigned denials are ignored until it is well again")]
    MassDenial,
    /// The cloud denies a token that we know to be good, and shows no newer credential.
    #[error("the cloud denies token {token}, which is good by all that is signed, and shows no newer credential")]
    TokenDenied {
        /// Which.
        token: TokenHash,
    },
    /// A device redeemed an instrument by itself, and something is wrong with it. The session stands.
    #[error("{device} redeemed instrument {number} by itself: {fault}")]
    Redeemed {
        /// Who.
        device: DeviceId,
        /// Which.
        number: u64,
        /// What is wrong.
        fault: proto::instrument::Fault,
    },
    /// A device redeemed an instrument by itself, and either of the two is revoked. The session stands.
    #[error("{device} redeemed instrument {number} by itself, and the device or the instrument is revoked")]
    RedeemedRevoked {
        /// Who.
        device: DeviceId,
        /// Which.
        number: u64,
    },
}

/// Whose clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This gateway's.
    Gateway,
    /// The hub's.
    Hub,
    /// A device's.
    Device(DeviceId),
}

impl core::fmt::Display for Whose {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Gateway => f.write_str("this gateway's"),
            Self::Hub => f.write_str("the hub's"),
            Self::Device(device) => write!(f, "{device}'s"),
        }
    }
}
