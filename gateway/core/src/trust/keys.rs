//! Who may sign. The roots are the keys of the configuration; the shell hands them in, because no artifact changes them.

use alloc::vec::Vec;

use proto::{
    artifact::{IssuerKeys, PublicKey},
    trust::{ArtifactKind, IssuerKey, KeyId},
};

use super::{Stale, Trust};
use crate::event::{Event, KeysAdopted};

/// The set of keys in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// 0: none was ever adopted, and the roots sign everything.
    pub(crate) epoch: u64,
    pub(crate) set: Vec<PublicKey>,
}

impl Trust {
    /// Epoch of the set of keys in force; 0: none, the roots sign everything.
    #[must_use]
    pub const fn keys_epoch(&self) -> u64 {
        self.keys.epoch
    }

    /// The keys whose signature counts on an artifact of a kind. `roots`: the keys of the configuration. A retired or
    /// revoked key is none of them.
    #[must_use]
    pub fn signers(&self, kind: ArtifactKind, roots: &[IssuerKey]) -> Vec<IssuerKey> {
        let set = || {
            self.keys
                .set
                .iter()
                .filter_map(|key| IssuerKey::from_bytes(&key.0).ok())
        };
        let mut keys: Vec<IssuerKey> = match kind {
            // The anchor: whatever became of the set, a root can sign the next one.
            ArtifactKind::Keys => roots.iter().copied().chain(set()).collect(),
            ArtifactKind::Other
            | ArtifactKind::List
            | ArtifactKind::Revocations
            | ArtifactKind::Tariffs
            | ArtifactKind::Policy
            | ArtifactKind::Lease
            | ArtifactKind::Voucher
            | ArtifactKind::Firmware => match self.keys.epoch {
                0 => roots.to_vec(),
                _ => set().collect(),
            },
        };
        keys.retain(|key| !self.revoked.has_key(&KeyId(key.id())));
        keys
    }

    pub(crate) fn decide_keys(&self, keys: &IssuerKeys) -> Result<Vec<Event>, Stale> {
        if keys.epoch <= self.keys.epoch {
            return Err(Stale {
                kind: ArtifactKind::Keys,
                found: keys.epoch,
                active: self.keys.epoch,
            });
        }
        Ok(alloc::vec![Event::KeysAdopted(KeysAdopted {
            epoch: keys.epoch,
            keys: keys.keys.clone(),
        })])
    }
}
