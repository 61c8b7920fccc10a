//! Signed envelopes for everything that may change what a gateway trusts: COSE_Sign1 (RFC 9052 section 4.2) with
//! Ed25519 (RFC 9053 section 2.2) under pinned issuer keys.
//!
//! The kind of the artifact is external authenticated data, so that a signed tariff can never pass as a list.

use core::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

use crate::{
    codec,
    wire::{byte_id, wire_enum},
};

/// Largest payload of one envelope, in bytes. Larger artifacts are chunked, with the hashes of the chunks signed.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes an envelope adds to its payload, at most.
pub const ENVELOPE_OVERHEAD_BYTES: usize = 96;
/// Length of a key id, in bytes.
pub const KEY_ID_BYTES: usize = 8;

byte_id! {
    /// The id of an issuer key: the first bytes of its public half.
    KeyId, 8
}

/// COSE tag 18 (COSE_Sign1).
const TAG: u8 = 0xd2;
/// Algorithm EdDSA.
const ALG_EDDSA: i8 = -8;

wire_enum! {
    /// What a signed artifact is about.
    ArtifactKind {
        /// A kind of a newer version; ignored.
        Other = 0,
        /// Id tokens trusted offline.
        List = 1,
        /// What is revoked.
        Revocations = 2,
        /// Price tables.
        Tariffs = 3,
        /// Limits and switches of the operator.
        Policy = 4,
        /// A slice of a balance.
        Lease = 5,
        /// A voucher.
        Voucher = 6,
        /// A firmware manifest.
        Firmware = 7,
        /// Which keys sign from now on.
        Keys = 8,
    } else Other
}

impl ArtifactKind {
    /// The external authenticated data of this kind.
    const fn context(self) -> &'static [u8] {
        match self {
            Self::Other => b"holdfast/1/other",
            Self::List => b"holdfast/1/list",
            Self::Revocations => b"holdfast/1/revocations",
            Self::Tariffs => b"holdfast/1/tariffs",
            Self::Policy => b"holdfast/1/policy",
            Self::Lease => b"holdfast/1/lease",
            Self::Voucher => b"holdfast/1/voucher",
            Self::Firmware => b"holdfast/1/firmware",
            Self::Keys => b"holdfast/1/keys",
        }
    }

    /// The glossary's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::List => "list",
            Self::Revocations => "revocations",
            Self::Tariffs => "tariffs",
            Self::Policy => "policy",
            Self::Lease => "lease",
            Self::Voucher => "voucher",
            Self::Firmware => "firmware",
            Self::Keys => "keys",
        }
    }
}

/// Why an envelope is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Not a COSE_Sign1 structure of the shape this protocol uses.
    #[error("not a signed envelope: {0}")]
    Malformed(codec::CodecError),
    /// Another algorithm than EdDSA.
    #[error("the envelope is not signed with Ed25519")]
    Algorithm,
    /// The payload is too large.
    #[error("a payload of {0} bytes is larger than {PAYLOAD_BYTES_MAX}")]
    Long(usize),
    /// No pinned key has this id.
    #[error("no pinned issuer key has the id {0:02x?}")]
    UnknownKey([u8; KEY_ID_BYTES]),
    /// The signature does not fit.
    #[error("the signature does not fit: forged, damaged, or meant for another kind of artifact")]
    Forged,
    /// The buffer is too small.
    #[error("the envelope does not fit the buffer of {0} bytes")]
    Overflow(usize),
}

/// A pinned issuer key. Its id is the first 8 bytes of the public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerKey(VerifyingKey);

impl IssuerKey {
    /// A key from its 32 bytes.
    ///
    /// # Errors
    /// [`TrustError::Forged`] if the bytes are not a point of the curve, or a weak one.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, TrustError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| TrustError::Forged)?;
        if key.is_weak() {
            Err(TrustError::Forged)
        } else {
            Ok(Self(key))
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> [u8; KEY_ID_BYTES] {
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&self.0.as_bytes()[..KEY_ID_BYTES]);
        id
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// The protected header: algorithm (1) and key id (4), in this order.
const PROTECTED_LEN: usize = 4 + 1 + KEY_ID_BYTES;

fn protected(key_id: &[u8; KEY_ID_BYTES]) -> [u8; PROTECTED_LEN] {
    let mut header = [0; PROTECTED_LEN];
    // map(2) { 1: -8, 4: bytes(8) }
    header[..5].copy_from_slice(&[0xa2, 0x01, 0x20 + (-1 - ALG_EDDSA) as u8, 0x04, 0x48]);
    header[5..].copy_from_slice(key_id);
    header
}

#[derive(Serialize, Deserialize)]
struct SignOne<'a>(
    #[serde(borrow)] Octets<'a>,
    Unprotected,
    #[serde(borrow)] Octets<'a>,
    #[serde(borrow)] Octets<'a>,
);

#[derive(Serialize)]
struct ToBeSigned<'a>(&'a str, Octets<'a>, Octets<'a>, Octets<'a>);

/// A CBOR byte string and nothing else. `serde_bytes` takes a text for one too, and then one changed bit that no
/// signature covers makes another envelope with the same content.
struct Octets<'a>(&'a [u8]);

impl Serialize for Octets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Octets<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = &'de [u8];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_bytes(Visitor).map(Self)
    }
}

/// The unprotected header: a map, empty when we write it; whatever stands there is not authenticated and ignored. A
/// derived empty struct would take an array for it, and refuse the negative labels that COSE leaves to private use.
struct Unprotected;

impl Serialize for Unprotected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }
}

impl<'de> Deserialize<'de> for Unprotected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Unprotected;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Unprotected, A::Error> {
                while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
                Ok(Unprotected)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// The Sig_structure of RFC 9052 section 4.4, written to `out`.
fn to_be_signed(kind: ArtifactKind, protected: &[u8], payload: &[u8], out: &mut [u8]) -> Result<usize, TrustError> {
    let structure = ToBeSigned("Signature1", Octets(protected), Octets(kind.context()), Octets(payload));
    let room = out.len();
    codec::encode(&structure, out).map_err(|_| TrustError::Overflow(room))
}

/// Checks an envelope and returns its payload. `scratch` holds the structure that was signed: payload and
/// [`ENVELOPE_OVERHEAD_BYTES`].
///
/// # Errors
/// [`TrustError`].
pub fn open<'a>(
    kind: ArtifactKind,
    envelope: &'a [u8],
    keys: &[IssuerKey],
    scratch: &mut [u8],
) -> Result<&'a [u8], TrustError> {
    let body = match envelope.split_first() {
        Some((&TAG, body)) => body,
        Some(_) | None => {
            return Err(TrustError::Malformed(codec::CodecError::Malformed {
                what: "no COSE_Sign1 tag",
                at: 0,
            }));
        }
    };
    let SignOne(Octets(header), Unprotected, Octets(payload), Octets(signature)) =
        codec::decode(body).map_err(TrustError::Malformed)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(TrustError::Long(payload.len()));
    }
    let key_id: [u8; KEY_ID_BYTES] = header
        .get(PROTECTED_LEN - KEY_ID_BYTES..)
        .and_then(|id| id.try_into().ok())
        .ok_or(TrustError::Algorithm)?;
    if header[..] != protected(&key_id)[..] {
        return Err(TrustError::Algorithm);
    }
    let key = keys
        .iter()
        .find(|key| key.id() == key_id)
        .ok_or(TrustError::UnknownKey(key_id))?;
    let signature = Signature::from_slice(signature).map_err(|_| TrustError::Forged)?;
    let len = to_be_signed(kind, header, payload, scratch)?;
    key.0
        .verify_strict(&scratch[..len], &signature)
        .map_err(|_| TrustError::Forged)?;
    Ok(payload)
}

/// The issuer's side.
#[cfg(feature = "host")]
pub struct Issuer(ed25519_dalek::SigningKey);

#[cfg(feature = "host")]
impl Issuer {
    /// An issuer from its secret seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The key to pin.
    #[must_use]
    pub fn key(&self) -> IssuerKey {
        IssuerKey(self.0.verifying_key())
    }

    /// Signs a payload.
    ///
    /// # Errors
    /// [`TrustError::Long`] if the payload is larger than [`PAYLOAD_BYTES_MAX`].
    pub fn sign(&self, kind: ArtifactKind, payload: &[u8]) -> Result<alloc::vec::Vec<u8>, TrustError> {
        use ed25519_dalek::Signer;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(TrustError::Long(payload.len()));
        }
        let header = protected(&self.key().id());
        let mut scratch = alloc::vec![0; payload.len() + ENVELOPE_OVERHEAD_BYTES];
        let len = to_be_signed(kind, &header, payload, &mut scratch)?;
        let signature = self.0.sign(&scratch[..len]).to_bytes();
        let envelope = codec::to_vec(&SignOne(
            Octets(&header),
            Unprotected,
            Octets(payload),
            Octets(&signature),
        ));
        let mut tagged = alloc::vec![TAG];
        tagged.extend_from_slice(&envelope);
        Ok(tagged)
    }
}

#[cfg(feature = "host")]
impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({:02x?})", self.key().id())
    }
}
