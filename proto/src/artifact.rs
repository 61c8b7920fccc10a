//! The content of signed artifacts. An artifact of any size is one signed envelope with a small payload; what is large
//! (the entries of a list) travels as chunks whose hashes the payload names.

mod bundle;
mod keys;
mod list;
mod revocations;

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{
    codec::{self, CodecError},
    id::{AccountId, GatewayId, Kind, TokenHash},
    money::Money,
    policy::{Policy, PolicyError},
    tariff::{Tariff, TariffError},
    trust::{self, ArtifactKind, ENVELOPE_OVERHEAD_BYTES, Issuer, IssuerKey, TrustError},
    wire::wire_enum,
};

pub use bundle::{BUNDLE_MAGIC, BundleError, read_bundle, write_bundle};
pub use keys::{ISSUER_KEYS_MAX, IssuerKeys, PublicKey, verify_keys};
pub use list::{
    ListManifest, VerifiedList, check_trailer, list_changes, list_digest, list_with, sign_changes, sign_list,
    sign_list_changes, verify_list,
};
pub use revocations::{Reason, Revocations, Revoked, RevokedScope, Scope, Subject, verify_revocations};

/// Most entries of a list: 479 full chunks, as many as one signed payload can name the hashes of. The scale is 100,000
/// tokens.
pub const LIST_ENTRIES_MAX: usize = 479 * CHUNK_ENTRIES;
/// Most tokens that one list of changes takes away; when more leave, the full list is published.
pub const LIST_REMOVED_MAX: usize = 400;
/// Entries per chunk when a list is published; a chunk stays below `link::PART_BYTES_MAX`.
pub const CHUNK_ENTRIES: usize = 400;
/// Most leases in one artifact.
pub const LEASES_MAX: usize = 400;
/// Most revocations in one artifact.
pub const REVOCATIONS_MAX: usize = 400;

wire_enum! {
    /// OCPI's whitelist policy, exactly (OCPI 2.2.1, mod_tokens, WhitelistType).
    Whitelist {
        /// Decide locally, never ask.
        Always = 0,
        /// Decide locally, refresh later.
        Allowed = 1,
        /// Ask; with no answer allow within limits.
        AllowedOffline = 2,
        /// Ask; with no answer refuse.
        Never = 3,
    } else Never
}

/// One id token of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListEntry {
    /// Under the site's keyed hash.
    pub token: TokenHash,
    /// Whose account.
    pub account: AccountId,
    /// Tokens of one group may stop each other's sessions; 0: none.
    pub group: u64,
    /// Whether it may be used at all.
    pub valid: bool,
    /// When to ask.
    pub whitelist: Whitelist,
    /// Grows whenever the operator changes this token.
    pub credential_revision: u64,
    /// Balance when the list was made.
    pub balance: Money,
    /// Not to be used after (seconds since 1970 UTC); 0: no end.
    pub not_after_s: u64,
    /// The account is never served on credit: only a lease or an instrument pays, so that it cannot be overdrawn by any
    /// number of gateways.
    #[serde(default)]
    pub lease_only: bool,
}

/// A slice of an account's balance that one gateway alone may spend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whose balance.
    pub account: AccountId,
    /// Number of the lease, unique within the account; 0: none.
    pub epoch: u64,
    /// How much; zero: the hub wants what is left back.
    pub amount: Money,
    /// Not to be spent after (seconds since 1970 UTC).
    pub not_after_s: u64,
}

/// Leases of one gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    /// Grows with every artifact for this gateway.
    pub revision: u64,
    /// For whom.
    pub gateway: GatewayId,
    /// Epoch of the gateway's journal in which they may be spent: a journal that was put back from a backup has another.
    pub journal_epoch: u32,
    /// At most [`LEASES_MAX`]. A lease that the gateway has already is not given twice.
    pub entries: Vec<Lease>,
}

/// The price of one kind of outlet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TariffOf {
    /// Which kind.
    pub kind: Kind,
    /// Its price.
    pub tariff: Tariff,
}

/// Price tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TariffTable {
    /// Grows with every table.
    pub revision: u64,
    /// At most one per kind.
    pub entries: Vec<TariffOf>,
}

/// Why an artifact is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// The envelope is not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The signed content is not what it should be.
    #[error("the signed content of the artifact cannot be read: {0}")]
    Content(CodecError),
    /// A chunk is missing or one too many.
    #[error("{found} chunks, the manifest names {named}")]
    ChunkCount {
        /// Chunks received.
        found: usize,
        /// Chunks named.
        named: usize,
    },
    /// A chunk is not the one that was signed.
    #[error("chunk {0} does not have the signed hash")]
    ChunkHash(usize),
    /// A chunk has the signed hash, but cannot be read.
    #[error("chunk {at} cannot be read: {error}")]
    Chunk {
        /// Which.
        at: usize,
        /// Why.
        error: CodecError,
    },
    /// The number of entries is not the signed one.
    #[error("{found} entries, the manifest says {signed}")]
    Count {
        /// Entries received.
        found: usize,
        /// Entries signed.
        signed: u32,
    },
    /// Entries out of order or twice.
    #[error("entry {0} is not above its predecessor: the list is not sorted, or has a token twice")]
    Order(usize),
    /// Changes to a list that is not older.
    #[error("revision {revision} is given as changes to revision {base}, which is not older")]
    Base {
        /// The list that is changed.
        base: u64,
        /// The list that comes of it.
        revision: u64,
    },
    /// Removed tokens out of order, twice, in a full list, or among the entries.
    #[error("removed token {0} is not above its predecessor, is an entry, too, or leaves a full list")]
    Removed(usize),
    /// The whole list has another length than the signed one.
    #[error("the whole list has {found} entries, its trailer says {signed}")]
    Total {
        /// Entries of the whole list.
        found: usize,
        /// Entries signed.
        signed: u32,
    },
    /// The whole list is another one than the signed one.
    #[error("the whole list does not have the digest of its trailer")]
    Digest,
    /// A revocation that names nobody.
    #[error("scope {0} of the revocations names no account, device or key")]
    Subject(usize),
    /// No key, or too many.
    #[error("{0} keys, a set has 1 to {ISSUER_KEYS_MAX}")]
    KeyCount(usize),
    /// Not a key, or one for the second time.
    #[error("key {0} of the set is none, or is there twice")]
    Key(usize),
    /// Two prices for one kind.
    #[error("entry {at} prices the kind {} a second time", .kind.word())]
    KindTwice {
        /// Position of the second.
        at: usize,
        /// Which kind.
        kind: Kind,
    },
    /// More entries than the limit.
    #[error("{0} entries are more than the limit")]
    Long(usize),
    /// Limits that contradict themselves.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A price table that cannot be used.
    #[error("tariff {id}: {error}")]
    Tariff {
        /// The operator's number for it.
        id: u32,
        /// Why.
        error: TariffError,
    },
}

/// Checks leases.
///
/// # Errors
/// [`ArtifactError`].
pub fn verify_leases(envelope: &[u8], keys: &[IssuerKey]) -> Result<Leases, ArtifactError> {
    let leases: Leases = open(ArtifactKind::Lease, envelope, keys)?;
    match leases.entries.len() {
        0..=LEASES_MAX => Ok(leases),
        len => Err(ArtifactError::Long(len)),
    }
}

/// Checks a price table and every tariff in it.
///
/// # Errors
/// [`ArtifactError`].
pub fn verify_tariffs(envelope: &[u8], keys: &[IssuerKey]) -> Result<TariffTable, ArtifactError> {
    let table: TariffTable = open(ArtifactKind::Tariffs, envelope, keys)?;
    for (at, entry) in table.entries.iter().enumerate() {
        // Which of two would apply must not depend on who reads the table.
        if table.entries[..at].iter().any(|before| before.kind == entry.kind) {
            return Err(ArtifactError::KindTwice { at, kind: entry.kind });
        }
        entry.tariff.check().map_err(|error| ArtifactError::Tariff {
            id: entry.tariff.id,
            error,
        })?;
    }
    Ok(table)
}

/// Checks a policy and every limit in it.
///
/// # Errors
/// [`ArtifactError`].
pub fn verify_policy(envelope: &[u8], keys: &[IssuerKey]) -> Result<Policy, ArtifactError> {
    let policy: Policy = open(ArtifactKind::Policy, envelope, keys)?;
    policy.check()?;
    Ok(policy)
}

/// Signs any small artifact ([`Revocations`], [`TariffTable`], [`Policy`], [`IssuerKeys`]).
///
/// # Errors
/// [`TrustError::Long`].
pub fn sign<T: Serialize>(issuer: &Issuer, kind: ArtifactKind, content: &T) -> Result<Vec<u8>, TrustError> {
    issuer.sign(kind, &codec::to_vec(content))
}

fn open<T: for<'a> Deserialize<'a>>(
    kind: ArtifactKind,
    envelope: &[u8],
    keys: &[IssuerKey],
) -> Result<T, ArtifactError> {
    let mut scratch = alloc::vec![0; envelope.len() + ENVELOPE_OVERHEAD_BYTES];
    let payload = trust::open(kind, envelope, keys, &mut scratch)?;
    codec::decode(payload).map_err(ArtifactError::Content)
}
