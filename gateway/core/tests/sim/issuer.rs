//! The operator's office: signs what the hub publishes, rotates its keys, and now and then somebody forges, damages or
//! replays what it signed.

use std::collections::BTreeMap;

use gateway_core::{Input, Trust};
use proto::{
    artifact::{
        self, ArtifactError, IssuerKeys, ListEntry, ListManifest, PublicKey, Revocations, TariffTable, list_digest,
        verify_keys, verify_list, verify_policy, verify_revocations, verify_tariffs,
    },
    codec,
    id::Hash,
    policy::Policy,
    trust::{ArtifactKind, Issuer, IssuerKey, KeyId},
};
use sha2::{Digest, Sha256};

use crate::random::Random;

/// Lists of which changes are still published.
const LISTS_KNOWN_MAX: usize = 4;

/// What can be wrong with an artifact that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// Signed by a key that nobody pinned.
    Stranger,
    /// Signed by a key of an earlier set.
    Retired,
    /// A bit of the envelope or of a chunk is another one.
    Damaged,
    /// The manifest counts one entry more.
    Miscounted,
    /// The whole list is another one than the trailer says.
    Trailer,
}

/// What is published.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    List(u64, u64, Vec<ListEntry>),
    Revocations(Revocations),
    Tariffs(TariffTable),
    Keys(IssuerKeys),
    Policy(Policy),
}

/// As it travels.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) kind: ArtifactKind,
    pub(crate) revision: u64,
    pub(crate) signer: KeyId,
    pub(crate) flaw: Flaw,
    envelope: Vec<u8>,
    chunks: Vec<Vec<u8>>,
}

pub(crate) struct Office {
    /// All keys there ever were; the first is the root.
    seeds: Vec<u8>,
    epoch: u64,
    lists: BTreeMap<u64, Vec<ListEntry>>,
}

fn issuer(seed: u8) -> Issuer {
    Issuer::from_seed(&[seed; 32])
}

/// What the configuration of the gateway pins.
pub(crate) fn roots() -> [IssuerKey; 1] {
    [issuer(1).key()]
}

impl Office {
    pub(crate) fn new() -> Self {
        Self {
            seeds: vec![1],
            epoch: 0,
            lists: BTreeMap::new(),
        }
    }

    fn signing(&self) -> u8 {
        *self.seeds.last().expect("there is always the root")
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn root_signs(&self) -> bool {
        self.seeds.len() == 1
    }

    pub(crate) fn publish_list(&mut self, revision: u64, entries: &[ListEntry]) {
        self.lists.insert(revision, entries.to_vec());
        while self.lists.len() > LISTS_KNOWN_MAX {
            self.lists.pop_first();
        }
    }

    /// A new key signs from now on, and no other.
    pub(crate) fn rotate(&mut self) -> IssuerKeys {
        self.epoch += 1;
        self.seeds.push(self.signing() + 1);
        IssuerKeys {
            epoch: self.epoch,
            keys: vec![PublicKey::from(issuer(self.signing()).key())],
        }
    }

    /// The id of the key that was in use before the present one, if it is not the root.
    pub(crate) fn retired(&self) -> Option<KeyId> {
        let seed = *self.seeds.iter().rev().nth(1).filter(|seed| **seed > 1)?;
        Some(KeyId(issuer(seed).key().id()))
    }

    /// Signs; a list as changes if the list that the gateway has is still known.
    pub(crate) fn sign(&self, content: &Content, base: u64, flaw: Flaw, random: &mut Random) -> Signed {
        let seed = match (flaw, content) {
            (Flaw::Stranger, _) => 200,
            (Flaw::Retired, _) => self.seeds[self.seeds.len().saturating_sub(2)],
            // Half of the sets by the anchor, half by the key that they retire.
            (_, Content::Keys(_)) if random.below(2) == 0 => 1,
            (_, Content::Keys(_)) => self.seeds[self.seeds.len().saturating_sub(2)],
            (_, _) => self.signing(),
        };
        let signer = issuer(seed);
        let (kind, revision, (envelope, chunks)) = match content {
            Content::List(revision, issued_s, entries) => {
                let signed = self.sign_list(&signer, (*revision, entries), *issued_s, base, flaw);
                (ArtifactKind::List, *revision, signed)
            }
            Content::Revocations(set) => (
                ArtifactKind::Revocations,
                set.revision,
                small(&signer, ArtifactKind::Revocations, set),
            ),
            Content::Tariffs(table) => (
                ArtifactKind::Tariffs,
                table.revision,
                small(&signer, ArtifactKind::Tariffs, table),
            ),
            Content::Policy(policy) => (
                ArtifactKind::Policy,
                policy.revision,
                small(&signer, ArtifactKind::Policy, policy),
            ),
            Content::Keys(keys) => (ArtifactKind::Keys, keys.epoch, small(&signer, ArtifactKind::Keys, keys)),
        };
        let mut signed = Signed {
            kind,
            revision,
            signer: KeyId(signer.key().id()),
            flaw,
            envelope,
            chunks,
        };
        if flaw == Flaw::Damaged {
            let bytes = match signed.chunks.last_mut() {
                Some(chunk) if random.below(2) == 0 => chunk,
                Some(_) | None => &mut signed.envelope,
            };
            // The payload or the signature: the head of an envelope says only what it is.
            let at = 20 + random.below(bytes.len() as u64 - 20) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        signed
    }

    fn sign_list(
        &self,
        signer: &Issuer,
        (revision, entries): (u64, &[ListEntry]),
        issued_s: u64,
        base: u64,
        flaw: Flaw,
    ) -> (Vec<u8>, Vec<Vec<u8>>) {
        if matches!(flaw, Flaw::Miscounted | Flaw::Trailer) {
            let chunk = codec::to_vec(&entries);
            let count = entries.len() as u32;
            let mut manifest = ListManifest {
                revision,
                base: 0,
                count: count + u32::from(flaw == Flaw::Miscounted),
                issued_s,
                chunks: vec![Hash(Sha256::digest(&chunk).into())],
                removed: vec![],
                total: count,
                digest: list_digest(entries),
            };
            manifest.digest.0[7] ^= u8::from(flaw == Flaw::Trailer);
            let envelope = artifact::sign(signer, ArtifactKind::List, &manifest).expect("small");
            return (envelope, vec![chunk]);
        }
        match self.lists.get(&base) {
            Some(before) => artifact::sign_list_changes(signer, (base, before), (revision, entries), issued_s),
            None => artifact::sign_list(signer, revision, issued_s, entries.to_vec()),
        }
        .expect("a short list can be signed")
    }
}

fn small<T: serde::Serialize>(signer: &Issuer, kind: ArtifactKind, content: &T) -> (Vec<u8>, Vec<Vec<u8>>) {
    (artifact::sign(signer, kind, content).expect("small"), Vec::new())
}

/// What a gateway's shell makes of an artifact.
pub(crate) fn verify(signed: &Signed, trust: &Trust) -> Result<Input, ArtifactError> {
    let keys = trust.signers(signed.kind, &roots());
    let envelope = &signed.envelope;
    match signed.kind {
        ArtifactKind::List => verify_list(envelope, &signed.chunks, &keys).map(Input::List),
        ArtifactKind::Revocations => verify_revocations(envelope, &keys).map(Input::Revocations),
        ArtifactKind::Tariffs => verify_tariffs(envelope, &keys).map(Input::Tariffs),
        ArtifactKind::Keys => verify_keys(envelope, &keys).map(Input::Keys),
        ArtifactKind::Policy => verify_policy(envelope, &keys).map(Input::Policy),
        ArtifactKind::Other | ArtifactKind::Lease | ArtifactKind::Voucher | ArtifactKind::Firmware => {
            panic!("nobody signs these here")
        }
    }
}
