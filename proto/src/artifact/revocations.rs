//! What is revoked: one token, or everything of an account, a device, an issuer key.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{ArtifactError, REVOCATIONS_MAX, open};
use crate::{
    id::{AccountId, DeviceId, Name, TokenHash},
    trust::{ArtifactKind, IssuerKey, KEY_ID_BYTES, KeyId},
    wire::wire_enum,
};

wire_enum! {
    /// Why something is revoked. For people; every reason has the same effect.
    #[derive(Default)]
    Reason {
        /// Not said, or a reason of a newer version.
        #[default]
        Other = 0,
        /// Lost.
        Lost = 1,
        /// Stolen.
        Stolen = 2,
        /// Used by whom it does not belong to, or against the terms.
        Fraud = 3,
        /// The contract has ended.
        Closed = 4,
        /// There is a successor.
        Replaced = 5,
        /// Its secret is known to others.
        Compromised = 6,
    } else Other
}

impl Reason {
    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Lost => "lost",
            Self::Stolen => "stolen",
            Self::Fraud => "fraud",
            Self::Closed => "closed",
            Self::Replaced => "replaced",
            Self::Compromised => "compromised",
        }
    }
}

wire_enum! {
    /// What a revocation that is wider than one token is about.
    Scope {
        /// A scope of a newer version; ignored.
        Other = 0,
        /// Every token of an account.
        Account = 1,
        /// Everybody at a device: it is out of our hands.
        Device = 2,
        /// Everything that an issuer key signs.
        Key = 3,
    } else Other
}

/// One revoked token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Under the site's keyed hash.
    pub token: TokenHash,
    /// The credential revision that is revoked, with all before it.
    pub credential_revision: u64,
    /// Why.
    #[serde(default)]
    pub reason: Reason,
}

/// Something revoked that is more than one token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedScope {
    /// What it is about.
    pub scope: Scope,
    /// Which one: an account as 8 bytes, big-endian; a device's name; a key's id.
    pub subject: ByteBuf,
    /// Why.
    pub reason: Reason,
}

/// A [`RevokedScope`], read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Every token of it.
    Account(AccountId),
    /// Everybody at it.
    Device(DeviceId),
    /// Everything that it signs.
    Key(KeyId),
}

impl RevokedScope {
    /// A revocation of `subject`.
    #[must_use]
    pub fn new(subject: Subject, reason: Reason) -> Self {
        let (scope, bytes) = match subject {
            Subject::Account(account) => (Scope::Account, account.to_be_bytes().to_vec()),
            Subject::Device(device) => (Scope::Device, device.as_str().as_bytes().to_vec()),
            Subject::Key(key) => (Scope::Key, key.0.to_vec()),
        };
        Self {
            scope,
            subject: ByteBuf::from(bytes),
            reason,
        }
    }

    /// Whom it is about; `None`: a scope of a newer version, or a subject that is none.
    #[must_use]
    pub fn read(&self) -> Option<Subject> {
        let bytes = self.subject.as_slice();
        match self.scope {
            Scope::Account => bytes.try_into().ok().map(|b| Subject::Account(u64::from_be_bytes(b))),
            Scope::Device => {
                let name = core::str::from_utf8(bytes).ok()?;
                Name::new(name).ok().map(Subject::Device)
            }
            Scope::Key => <[u8; KEY_ID_BYTES]>::try_from(bytes)
                .ok()
                .map(|id| Subject::Key(KeyId(id))),
            Scope::Other => None,
        }
    }
}

/// What is revoked. Sticky: later artifacts add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// Grows with every artifact.
    pub revision: u64,
    /// Tokens; together with `scopes` at most [`REVOCATIONS_MAX`].
    pub entries: Vec<Revoked>,
    /// Accounts, devices and keys.
    #[serde(default)]
    pub scopes: Vec<RevokedScope>,
}

/// Checks revocations.
///
/// # Errors
/// [`ArtifactError`].
pub fn verify_revocations(envelope: &[u8], keys: &[IssuerKey]) -> Result<Revocations, ArtifactError> {
    let revocations: Revocations = open(ArtifactKind::Revocations, envelope, keys)?;
    let len = revocations.entries.len() + revocations.scopes.len();
    if len > REVOCATIONS_MAX {
        return Err(ArtifactError::Long(len));
    }
    // A scope of a newer version is no fault; a known one that names nothing is.
    let bad = |revoked: &RevokedScope| revoked.scope != Scope::Other && revoked.read().is_none();
    match revocations.scopes.iter().position(bad) {
        Some(at) => Err(ArtifactError::Subject(at)),
        None => Ok(revocations),
    }
}
