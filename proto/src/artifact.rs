//! The content of signed artifacts. An artifact of any size is one signed envelope with a small payload; what is large
//! (the entries of a list) travels as chunks whose hashes the payload names.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    codec::{self, CodecError},
    id::{AccountId, GatewayId, Hash, Kind, TokenHash},
    money::Money,
    tariff::{Tariff, TariffError},
    trust::{self, ArtifactKind, ENVELOPE_OVERHEAD_BYTES, Issuer, IssuerKey, TrustError},
    wire::wire_enum,
};

/// Most entries of a list: 480 full chunks, as many as one signed payload can name the hashes of. The scale is 100,000
/// tokens.
pub const LIST_ENTRIES_MAX: usize = 480 * CHUNK_ENTRIES;
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

/// The signed head of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListManifest {
    /// Grows with every list.
    pub revision: u64,
    /// 0: a full list; otherwise the revision to which the entries are changes.
    pub base: u64,
    /// Entries in all chunks.
    pub count: u32,
    /// When it was made (seconds since 1970 UTC).
    pub issued_s: u64,
    /// SHA-256 of each chunk, in order.
    pub chunks: Vec<Hash>,
}

/// One revoked token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Under the site's keyed hash.
    pub token: TokenHash,
    /// The credential revision that is revoked, with all before it.
    pub credential_revision: u64,
}

/// What is revoked. Sticky: later artifacts add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// Grows with every artifact.
    pub revision: u64,
    /// At most [`REVOCATIONS_MAX`].
    pub entries: Vec<Revoked>,
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
    /// A price table that cannot be used.
    #[error("tariff {id}: {error}")]
    Tariff {
        /// The operator's number for it.
        id: u32,
        /// Why.
        error: TariffError,
    },
}

/// A list whose signature, hashes, count and order were checked. Only [`verify_list`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedList {
    manifest: ListManifest,
    entries: Vec<ListEntry>,
}

impl VerifiedList {
    /// The signed head.
    #[must_use]
    pub const fn manifest(&self) -> &ListManifest {
        &self.manifest
    }

    /// The entries, sorted by token.
    #[must_use]
    pub fn entries(&self) -> &[ListEntry] {
        &self.entries
    }

    /// The parts.
    #[must_use]
    pub fn into_parts(self) -> (ListManifest, Vec<ListEntry>) {
        (self.manifest, self.entries)
    }
}

/// Checks a list: envelope, chunks, count, order.
///
/// # Errors
/// [`ArtifactError`].
pub fn verify_list<C: AsRef<[u8]>>(
    envelope: &[u8],
    chunks: &[C],
    keys: &[IssuerKey],
) -> Result<VerifiedList, ArtifactError> {
    let manifest: ListManifest = open(ArtifactKind::List, envelope, keys)?;
    if manifest.count as usize > LIST_ENTRIES_MAX {
        return Err(ArtifactError::Long(manifest.count as usize));
    }
    if chunks.len() != manifest.chunks.len() {
        return Err(ArtifactError::ChunkCount {
            found: chunks.len(),
            named: manifest.chunks.len(),
        });
    }
    let mut entries: Vec<ListEntry> = Vec::new();
    for (at, (chunk, hash)) in chunks.iter().zip(&manifest.chunks).enumerate() {
        if Sha256::digest(chunk.as_ref())[..] != hash.0 {
            return Err(ArtifactError::ChunkHash(at));
        }
        let part: Vec<ListEntry> = codec::decode(chunk.as_ref()).map_err(|error| ArtifactError::Chunk { at, error })?;
        entries.extend(part);
    }
    if entries.len() != manifest.count as usize {
        return Err(ArtifactError::Count {
            found: entries.len(),
            signed: manifest.count,
        });
    }
    if let Some(i) = entries.windows(2).position(|pair| pair[0].token >= pair[1].token) {
        return Err(ArtifactError::Order(i + 1));
    }
    Ok(VerifiedList { manifest, entries })
}

/// Checks revocations.
///
/// # Errors
/// [`ArtifactError`].
pub fn verify_revocations(envelope: &[u8], keys: &[IssuerKey]) -> Result<Revocations, ArtifactError> {
    let revocations: Revocations = open(ArtifactKind::Revocations, envelope, keys)?;
    match revocations.entries.len() {
        0..=REVOCATIONS_MAX => Ok(revocations),
        len => Err(ArtifactError::Long(len)),
    }
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

/// Signs a list; returns the envelope and the chunks. `entries` are sorted by token here.
///
/// # Errors
/// [`TrustError::Long`] if there are so many entries that the hashes of their chunks do not fit one envelope.
pub fn sign_list(
    issuer: &Issuer,
    revision: u64,
    issued_s: u64,
    mut entries: Vec<ListEntry>,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), TrustError> {
    entries.sort_by_key(|entry| entry.token);
    let chunks: Vec<Vec<u8>> = entries.chunks(CHUNK_ENTRIES).map(|part| codec::to_vec(&part)).collect();
    let hashes = chunks.iter().map(|chunk| Hash(Sha256::digest(chunk).into())).collect();
    let manifest = ListManifest {
        revision,
        base: 0,
        count: entries.len() as u32,
        issued_s,
        chunks: hashes,
    };
    Ok((issuer.sign(ArtifactKind::List, &codec::to_vec(&manifest))?, chunks))
}

/// Signs any small artifact ([`Revocations`], [`TariffTable`]).
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
