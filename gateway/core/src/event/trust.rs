//! Events about what is trusted: lists, revocations, prices and keys; and what of it is in a snapshot.

use alloc::vec::Vec;

use proto::{
    artifact::{ListEntry, PublicKey, Revoked, RevokedScope, TariffOf},
    id::{Hash, TokenHash},
    trust::ArtifactKind,
};
use serde::{Deserialize, Serialize};

use crate::trust::{Findings, ListHead};

/// Most list entries in one event, so that its record stays below the journal's 3.5 KiB.
pub const STAGED_ENTRIES_MAX: usize = 40;
/// Most removed tokens in one event, for the same reason.
pub const STAGED_REMOVED_MAX: usize = 150;

payload! {
    /// Part of a list that is about to be adopted.
    ListStaged {
        /// Revision of the list.
        revision: u64,
        /// At most [`STAGED_ENTRIES_MAX`].
        entries: Vec<ListEntry>,
        /// Tokens that leave, if the list comes as changes; at most [`STAGED_REMOVED_MAX`].
        removed: Vec<TokenHash>,
    }
    /// The staged list is the list now.
    ListAdopted {
        /// Its revision.
        revision: u64,
        /// When it was made (seconds since 1970 UTC).
        issued_s: u64,
        /// 0: what is staged is the whole list; otherwise it is changes to the active one, which has this revision.
        base: u64,
        /// Its signed digest.
        digest: Hash,
    }
    /// Revocations were added.
    RevocationsAdopted {
        /// Their revision.
        revision: u64,
        /// What is revoked.
        entries: Vec<Revoked>,
        /// Accounts, devices and keys.
        scopes: Vec<RevokedScope>,
    }
    /// New prices; kinds that are not named keep theirs.
    TariffsAdopted {
        /// Revision of the table.
        revision: u64,
        /// The prices.
        entries: Vec<TariffOf>,
    }
    /// A genuine artifact looks wrong: what is staged of it is set aside for a person to look at.
    Quarantined {
        /// What it is about.
        kind: ArtifactKind,
        /// Its revision.
        revision: u64,
        /// As [`ListAdopted::base`].
        base: u64,
        /// When it was made (seconds since 1970 UTC); 0: it does not say.
        issued_s: u64,
        /// Its signed digest, if it has one.
        digest: Hash,
        /// What is wrong with it.
        findings: Findings,
    }
    /// Prices that are about to be set aside.
    TariffsStaged {
        /// Revision of the table.
        revision: u64,
        /// The prices.
        entries: Vec<TariffOf>,
    }
    /// An operator took what was set aside.
    Adopted {
        /// What it is about.
        kind: ArtifactKind,
        /// Its revision.
        revision: u64,
    }
    /// An operator went back to the list before the active one.
    RolledBack {
        /// The list that is active again.
        revision: u64,
        /// The list that was.
        from: u64,
    }
    /// These keys sign from now on, and no others.
    KeysAdopted {
        /// Number of the set.
        epoch: u64,
        /// The keys.
        keys: Vec<PublicKey>,
    }
    /// The end of a list in a snapshot.
    KeptList {
        /// Which of the lists.
        slot: KeptListSlot,
        /// What it says of itself, and its age.
        head: ListHead,
        /// Why it is set aside.
        findings: Findings,
    }
    /// Prices that were set aside, as a snapshot keeps them.
    KeptTariffs {
        /// Revision of the table.
        revision: u64,
        /// The prices.
        entries: Vec<TariffOf>,
    }
    /// The revisions of what is trusted.
    KeptTrust {
        /// Highest revision of a list that was ever adopted.
        list_newest: u64,
        /// Revision of the revocations.
        revocations_revision: u64,
        /// Revision of the tariffs.
        tariffs_revision: u64,
    }
}

/// One of the lists that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum KeptListSlot {
    /// 0: the active one.
    Active,
    /// 1: the one before.
    Previous,
    /// 2: the one that is set aside.
    Aside,
}

impl From<KeptListSlot> for u8 {
    fn from(slot: KeptListSlot) -> Self {
        match slot {
            KeptListSlot::Active => 0,
            KeptListSlot::Previous => 1,
            KeptListSlot::Aside => 2,
        }
    }
}

impl From<u8> for KeptListSlot {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Active,
            1 => Self::Previous,
            _ => Self::Aside,
        }
    }
}
