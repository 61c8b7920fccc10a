//! Signs what the core published and cuts it into parts. Signing is deterministic, so nothing has to be stored.

use std::{collections::BTreeMap, sync::Arc};

use proto::{
    artifact::{self, Leases, PublicKey},
    link::ArtifactPart,
    trust::{ArtifactKind, Issuer, TrustError},
};
use serde_bytes::ByteBuf;

use crate::core::{Content, Hub};

/// Signed parts of one artifact.
pub type Parts = Arc<Vec<ArtifactPart>>;

/// Signs artifacts and keeps the newest of each kind at hand, of a list also its changes to earlier ones.
#[derive(Debug)]
pub struct Press {
    issuer: Issuer,
    root: Issuer,
    newest: BTreeMap<ArtifactKind, (u64, BTreeMap<u64, Parts>)>,
}

impl Press {
    /// A press that signs as `issuer`, and sets of keys as `root`.
    #[must_use]
    pub const fn new(issuer: Issuer, root: Issuer) -> Self {
        Self {
            issuer,
            root,
            newest: BTreeMap::new(),
        }
    }

    /// The parts of a published artifact; `None` if there is no such revision any more. `base`: the list that whoever
    /// gets it has; if it is still known, changes to it are enough. 0: none.
    ///
    /// # Errors
    /// [`TrustError::Long`] if it does not fit an envelope.
    pub fn parts(
        &mut self,
        hub: &Hub,
        kind: ArtifactKind,
        revision: u64,
        base: u64,
    ) -> Result<Option<Parts>, TrustError> {
        if let Some((kept, by_base)) = self.newest.get(&kind)
            && *kept == revision
            && let Some(parts) = by_base.get(&base)
        {
            return Ok(Some(Arc::clone(parts)));
        }
        let Some(content) = hub.artifact(kind, revision, base) else {
            return Ok(None);
        };
        let (envelope, chunks) = self.sign(kind, content)?;
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
        let kept = self.newest.entry(kind).or_default();
        if kept.0 < revision {
            *kept = (revision, BTreeMap::new());
        }
        if kept.0 == revision {
            kept.1.insert(base, Arc::clone(&parts));
        }
        Ok(Some(parts))
    }

    fn sign(&self, kind: ArtifactKind, content: Content) -> Result<(Vec<u8>, Vec<Vec<u8>>), TrustError> {
        let small = |envelope| (envelope, Vec::new());
        match content {
            Content::List(list) => artifact::sign_list(&self.issuer, list.revision, list.issued_s, list.entries),
            Content::ListChanges(changes) => artifact::sign_changes(
                &self.issuer,
                (changes.base, changes.revision),
                changes.issued_s,
                (&changes.changed, changes.removed),
                (changes.total, changes.digest),
            ),
            Content::Revocations(revocations) => artifact::sign(&self.issuer, kind, &revocations).map(small),
            Content::Tariffs(table) => artifact::sign(&self.issuer, kind, &table).map(small),
            Content::Policy(policy) => artifact::sign(&self.issuer, kind, &policy).map(small),
            Content::Keys(keys) => artifact::sign(&self.root, kind, &keys).map(small),
        }
    }

    /// Everything that a gateway without any artifact needs, in the order in which it is to be taken in.
    ///
    /// # Errors
    /// As [`Self::parts`].
    pub fn everything(&mut self, hub: &Hub) -> Result<Vec<ArtifactPart>, TrustError> {
        let mut all = Vec::new();
        for (kind, revision) in hub.published() {
            if let Some(parts) = self.parts(hub, kind, revision, 0)? {
                all.extend(parts.iter().cloned());
            }
        }
        Ok(all)
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

    /// The public half of the root, which gateways pin.
    #[must_use]
    pub fn root_key(&self) -> PublicKey {
        PublicKey::from(self.root.key())
    }

    /// The public half of the key that signs.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        PublicKey::from(self.issuer.key())
    }
}
