//! Which keys sign from now on. The keys of a gateway's configuration are its roots: before the first set of keys they
//! sign everything, afterwards only sets of keys.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{ArtifactError, open};
use crate::{
    trust::{ArtifactKind, IssuerKey},
    wire::byte_id,
};

/// Most keys that sign at the same time: one, its successor, and those of a few more issuers.
pub const ISSUER_KEYS_MAX: usize = 8;

byte_id! {
    /// The public half of an issuer key (Ed25519).
    PublicKey, 32
}

impl From<IssuerKey> for PublicKey {
    fn from(key: IssuerKey) -> Self {
        Self(*key.as_bytes())
    }
}

/// A set of issuer keys. It replaces the one before it: a key that is not in it is retired and signs nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerKeys {
    /// Grows with every set.
    pub epoch: u64,
    /// 1 to [`ISSUER_KEYS_MAX`], none twice.
    pub keys: Vec<PublicKey>,
}

/// Checks a set of keys. `keys`: those that may sign one, the roots and the set in force, without revoked ones.
///
/// # Errors
/// [`ArtifactError`].
pub fn verify_keys(envelope: &[u8], keys: &[IssuerKey]) -> Result<IssuerKeys, ArtifactError> {
    let set: IssuerKeys = open(ArtifactKind::Keys, envelope, keys)?;
    if set.keys.is_empty() || set.keys.len() > ISSUER_KEYS_MAX {
        return Err(ArtifactError::KeyCount(set.keys.len()));
    }
    for (at, key) in set.keys.iter().enumerate() {
        let is_key = IssuerKey::from_bytes(&key.0).is_ok();
        if !is_key || set.keys[..at].contains(key) {
            return Err(ArtifactError::Key(at));
        }
    }
    Ok(set)
}
