//! Signs what the core published and cuts it into parts. Signing is deterministic, so nothing has to be stored.

use std::{collections::BTreeMap, sync::Arc};

use proto::{
    artifact::{self, Leases},
    id::Hash,
    link::ArtifactPart,
    trust::{ArtifactKind, Issuer, TrustError},
};
use serde_bytes::ByteBuf;

use crate::core::{Content, Hub};

/// Signed parts of one artifact.
pub type Parts = Arc<Vec<ArtifactPart>>;

/// Signs artifacts and keeps the newest of each kind at hand.
#[derive(Debug)]
pub struct Press {
    issuer: Issuer,
    newest: BTreeMap<ArtifactKind, (u64, Parts)>,
}

impl Press {
    /// A press that signs as `issuer`.
    #[must_use]
    pub const fn new(issuer: Issuer) -> Self {
        Self {
            issuer,
            newest: BTreeMap::new(),
        }
    }

    /// The parts of a published artifact; `None` if there is no such revision any more.
    ///
    /// # Errors
    /// [`TrustError::Long`] if it does not fit an envelope.
    pub fn parts(&mut self, hub: &Hub, kind: ArtifactKind, revision: u64) -> Result<Option<Parts>, TrustError> {
        if let Some((kept, parts)) = self.newest.get(&kind)
            && *kept == revision
        {
            return Ok(Some(Arc::clone(parts)));
        }
        let Some(content) = hub.artifact(kind, revision) else {
            return Ok(None);
        };
        let (envelope, chunks) = match content {
            Content::List(list) => artifact::sign_list(&self.issuer, list.revision, list.issued_s, list.entries)?,
            Content::Revocations(revocations) => (artifact::sign(&self.issuer, kind, &revocations)?, Vec::new()),
            Content::Tariffs(table) => (artifact::sign(&self.issuer, kind, &table)?, Vec::new()),
        };
        let count = 1 + chunks.len() as u32;
        let parts = std::iter::once(envelope)
            .chain(chunks)
            .zip(0..)
            .map(|(bytes, part)| ArtifactPart {
                kind,
                revision,
                part,
                parts: count,
                bytes: ByteBuf::from(bytes),
            })
            .collect();
        let parts = Arc::new(parts);
        if self.newest.get(&kind).is_none_or(|(kept, _)| *kept < revision) {
            self.newest.insert(kind, (revision, Arc::clone(&parts)));
        }
        Ok(Some(parts))
    }

    /// The only part of a gateway's leases.
    ///
    /// # Errors
    /// [`TrustError::Long`] if they do not fit an envelope.
    pub fn leases(&self, leases: &Leases) -> Result<ArtifactPart, TrustError> {
        let envelope = artifact::sign(&self.issuer, ArtifactKind::Lease, leases)?;
        Ok(ArtifactPart {
            kind: ArtifactKind::Lease,
            revision: leases.revision,
            part: 0,
            parts: 1,
            bytes: ByteBuf::from(envelope),
        })
    }

    /// The public key that gateways pin.
    #[must_use]
    pub fn key(&self) -> Hash {
        Hash(*self.issuer.key().as_bytes())
    }
}
