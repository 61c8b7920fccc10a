//! Lists, full or as changes to an earlier one. Both end in the same trailer, the number of entries and a digest over
//! all of them, so that whoever applies changes knows that the result is the list that was signed.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{ArtifactError, CHUNK_ENTRIES, LIST_ENTRIES_MAX, LIST_REMOVED_MAX, ListEntry, open};
use crate::{
    codec,
    digest::Sha256,
    id::{Hash, TokenHash},
    trust::{ArtifactKind, Issuer, IssuerKey, TrustError},
};

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
    /// Tokens of the base that are no longer in the list, ascending; at most [`LIST_REMOVED_MAX`]. None in a full list.
    pub removed: Vec<TokenHash>,
    /// Trailer: entries of the whole list, after the changes.
    pub total: u32,
    /// Trailer: [`list_digest`] of the whole list, after the changes.
    pub digest: Hash,
}

/// A list whose signature, hashes, count and order were checked; of a full one the trailer, too. Only
/// [`verify_list`] makes one.
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

    /// The entries, sorted by token: all of a full list, the new and changed ones of a list of changes.
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

/// SHA-256 over the entries in order, each as 59 bytes: token, account, group, valid (0 or 1), whitelist, credential
/// revision, balance, not-after, lease-only (0 or 1); numbers big-endian. Not over their CBOR, so that an entry with a field that this
/// version does not know has the same digest everywhere.
#[must_use]
pub fn list_digest<'a>(entries: impl IntoIterator<Item = &'a ListEntry>) -> Hash {
    let mut digest = Sha256::new();
    for entry in entries {
        let mut row = [0; 59];
        row[..16].copy_from_slice(&entry.token.0);
        row[16..24].copy_from_slice(&entry.account.to_be_bytes());
        row[24..32].copy_from_slice(&entry.group.to_be_bytes());
        row[32] = u8::from(entry.valid);
        row[33] = entry.whitelist.code();
        row[34..42].copy_from_slice(&entry.credential_revision.to_be_bytes());
        row[42..50].copy_from_slice(&entry.balance.0.to_be_bytes());
        row[50..58].copy_from_slice(&entry.not_after_s.to_be_bytes());
        row[58] = u8::from(entry.lease_only);
        digest.update(&row);
    }
    Hash(digest.finish())
}

/// What makes `after` of `before`: new and changed entries, and tokens that are gone. Both lists are sorted by token.
#[must_use]
pub fn list_changes(before: &[ListEntry], after: &[ListEntry]) -> (Vec<ListEntry>, Vec<TokenHash>) {
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    let mut old = before.iter().peekable();
    for entry in after {
        while let Some(gone) = old.next_if(|old| old.token < entry.token) {
            removed.push(gone.token);
        }
        let same = old.next_if(|old| old.token == entry.token);
        if same != Some(entry) {
            changed.push(entry.clone());
        }
    }
    removed.extend(old.map(|gone| gone.token));
    (changed, removed)
}

/// `before` with changes: entries of `changed` replace or join, tokens of `removed` leave. All three are sorted by
/// token, and so is the result.
#[must_use]
pub fn list_with(before: &[ListEntry], changed: &[ListEntry], removed: &[TokenHash]) -> Vec<ListEntry> {
    let mut after = Vec::with_capacity(before.len() + changed.len());
    let mut changed = changed.iter().peekable();
    let mut removed = removed.iter().peekable();
    for old in before {
        while let Some(new) = changed.next_if(|new| new.token < old.token) {
            after.push(new.clone());
        }
        while removed.next_if(|gone| **gone < old.token).is_some() {}
        if let Some(new) = changed.next_if(|new| new.token == old.token) {
            after.push(new.clone());
        } else if removed.peek() != Some(&&old.token) {
            after.push(old.clone());
        }
    }
    after.extend(changed.cloned());
    after
}

/// Checks a list: envelope, chunks, count, order; of a full list also the trailer. That of a list of changes is checked
/// by whoever applies it, with [`check_trailer`].
///
/// # Errors
/// [`ArtifactError`].
pub fn verify_list<C: AsRef<[u8]>>(
    envelope: &[u8],
    chunks: &[C],
    keys: &[IssuerKey],
) -> Result<VerifiedList, ArtifactError> {
    let manifest: ListManifest = open(ArtifactKind::List, envelope, keys)?;
    let longest = manifest.count.max(manifest.total) as usize;
    if longest > LIST_ENTRIES_MAX {
        return Err(ArtifactError::Long(longest));
    }
    check_removed(&manifest)?;
    if chunks.len() != manifest.chunks.len() {
        return Err(ArtifactError::ChunkCount {
            found: chunks.len(),
            named: manifest.chunks.len(),
        });
    }
    let mut entries: Vec<ListEntry> = Vec::new();
    for (at, (chunk, hash)) in chunks.iter().zip(&manifest.chunks).enumerate() {
        if Sha256::of(&[chunk.as_ref()]) != hash.0 {
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
    let is_entry = |token: &TokenHash| entries.binary_search_by_key(token, |entry| entry.token).is_ok();
    if let Some(at) = manifest.removed.iter().position(is_entry) {
        return Err(ArtifactError::Removed(at));
    }
    if manifest.base == 0 {
        check_trailer(&manifest, &entries)?;
    }
    Ok(VerifiedList { manifest, entries })
}

fn check_removed(manifest: &ListManifest) -> Result<(), ArtifactError> {
    let ListManifest {
        base,
        revision,
        removed,
        ..
    } = manifest;
    if *base > 0 && base >= revision {
        return Err(ArtifactError::Base {
            base: *base,
            revision: *revision,
        });
    }
    if removed.len() > LIST_REMOVED_MAX {
        return Err(ArtifactError::Long(removed.len()));
    }
    if *base == 0 && !removed.is_empty() {
        return Err(ArtifactError::Removed(0));
    }
    match removed.windows(2).position(|pair| pair[0] >= pair[1]) {
        Some(at) => Err(ArtifactError::Removed(at + 1)),
        None => Ok(()),
    }
}

/// Compares a whole list with the trailer that was signed.
///
/// # Errors
/// [`ArtifactError::Total`], [`ArtifactError::Digest`].
pub fn check_trailer(manifest: &ListManifest, whole: &[ListEntry]) -> Result<(), ArtifactError> {
    if whole.len() != manifest.total as usize {
        return Err(ArtifactError::Total {
            found: whole.len(),
            signed: manifest.total,
        });
    }
    if list_digest(whole) != manifest.digest {
        return Err(ArtifactError::Digest);
    }
    Ok(())
}

/// Signs a full list; returns the envelope and the chunks. `entries` are sorted by token here.
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
    let manifest = ListManifest {
        revision,
        base: 0,
        count: entries.len() as u32,
        issued_s,
        chunks: Vec::new(),
        removed: Vec::new(),
        total: entries.len() as u32,
        digest: list_digest(&entries),
    };
    sign_chunked(issuer, manifest, &entries)
}

/// Signs a list as changes to `before`, the list of revision `base`; returns the envelope and the chunks. Both lists are
/// sorted by token.
///
/// # Errors
/// [`TrustError::Long`] if more than [`LIST_REMOVED_MAX`] tokens leave: sign the full list instead.
pub fn sign_list_changes(
    issuer: &Issuer,
    (base, before): (u64, &[ListEntry]),
    (revision, after): (u64, &[ListEntry]),
    issued_s: u64,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), TrustError> {
    let (changed, removed) = list_changes(before, after);
    let trailer = (after.len() as u32, list_digest(after));
    sign_changes(issuer, (base, revision), issued_s, (&changed, removed), trailer)
}

/// As [`sign_list_changes`], for whoever knows the changes and has the list of `base` no more: `changed` and `removed`
/// as [`list_changes`] gives them, and the trailer: number of entries and [`list_digest`] after the changes.
///
/// # Errors
/// As [`sign_list_changes`].
pub fn sign_changes(
    issuer: &Issuer,
    (base, revision): (u64, u64),
    issued_s: u64,
    (changed, removed): (&[ListEntry], Vec<TokenHash>),
    (total, digest): (u32, Hash),
) -> Result<(Vec<u8>, Vec<Vec<u8>>), TrustError> {
    if removed.len() > LIST_REMOVED_MAX {
        return Err(TrustError::Long(removed.len() * TokenHash::LEN));
    }
    let manifest = ListManifest {
        revision,
        base,
        count: changed.len() as u32,
        issued_s,
        chunks: Vec::new(),
        removed,
        total,
        digest,
    };
    sign_chunked(issuer, manifest, changed)
}

fn sign_chunked(
    issuer: &Issuer,
    mut manifest: ListManifest,
    entries: &[ListEntry],
) -> Result<(Vec<u8>, Vec<Vec<u8>>), TrustError> {
    let chunks: Vec<Vec<u8>> = entries.chunks(CHUNK_ENTRIES).map(|part| codec::to_vec(&part)).collect();
    manifest.chunks = chunks.iter().map(|chunk| Hash(Sha256::of(&[chunk]))).collect();
    Ok((issuer.sign(ArtifactKind::List, &codec::to_vec(&manifest))?, chunks))
}
