//! Envelopes against an independent COSE implementation: it opens ours, we open its.

use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, Label, TaggedCborSerializable, iana};
use ed25519_dalek::{Signer, SigningKey, Verifier};
use proto::{
    codec::CodecError,
    trust::{self, ArtifactKind, Issuer, IssuerKey, PAYLOAD_BYTES_MAX, TrustError},
};

use crate::vector::{frozen, unhex};

const SEED: [u8; 32] = [0x15; 32];

fn open(envelope: &[u8]) -> Result<Vec<u8>, TrustError> {
    let keys = [Issuer::from_seed(&[9; 32]).key(), Issuer::from_seed(&SEED).key()];
    let mut scratch = vec![0; envelope.len() + trust::ENVELOPE_OVERHEAD_BYTES];
    trust::open(ArtifactKind::List, envelope, &keys, &mut scratch).map(<[u8]>::to_vec)
}

/// An envelope made by coset with our header, after a change.
fn made(change: impl FnOnce(CoseSign1Builder) -> CoseSign1Builder) -> Vec<u8> {
    let key = SigningKey::from_bytes(&SEED);
    let header = HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .key_id(key.verifying_key().as_bytes()[..8].to_vec())
        .build();
    let builder = CoseSign1Builder::new().protected(header).payload(b"a list".to_vec());
    change(builder)
        .create_signature(b"holdfast/1/list", |data| key.sign(data).to_bytes().to_vec())
        .build()
        .to_tagged_vec()
        .expect("encodes")
}

#[test]
fn coset_verifies_our_envelopes() {
    let mut opened = 0;
    for vector in frozen().iter().filter(|vector| vector.get("what") == "envelope") {
        let envelope = CoseSign1::from_tagged_slice(&vector.bytes("envelope")).expect("a COSE_Sign1");
        let key = SigningKey::from_bytes(&vector.bytes32("seed")).verifying_key();
        assert_eq!(key.as_bytes()[..], vector.bytes("public-key"));
        assert_eq!(envelope.protected.header.key_id, key.as_bytes()[..8]);
        assert_eq!(envelope.payload.as_deref(), Some(&vector.bytes("payload")[..]));
        assert!(envelope.unprotected.is_empty());
        let verify = |context: &str| {
            envelope.verify_signature(context.as_bytes(), |signature, data| {
                key.verify(
                    data,
                    &ed25519_dalek::Signature::from_slice(signature).expect("64 bytes"),
                )
            })
        };
        let kind = vector.get("kind");
        assert!(verify(&format!("holdfast/1/{kind}")).is_ok(), "{}", vector.name);
        assert!(verify("holdfast/1/other").is_err(), "{}", vector.name);
        opened += 1;
    }
    assert_eq!(opened, 16);
}

#[test]
fn we_open_what_coset_made() {
    assert_eq!(open(&made(|builder| builder)), Ok(b"a list".to_vec()));
    // The unprotected header is nobody's word: whatever stands there, the content is the same.
    let unprotected = HeaderBuilder::new()
        .value(99, 1.into())
        .value(-70_000, ciborium::Value::Array(vec![]))
        .text_value("note".into(), "x".into())
        .build();
    assert_eq!(
        open(&made(|builder| builder.unprotected(unprotected))),
        Ok(b"a list".to_vec())
    );
    assert_eq!(
        open(&made(|builder| builder.payload(vec![7; PAYLOAD_BYTES_MAX]))),
        Ok(vec![7; PAYLOAD_BYTES_MAX])
    );
}

#[test]
fn what_is_not_our_envelope_is_refused_by_name() {
    let key_id = SigningKey::from_bytes(&SEED).verifying_key().as_bytes()[..8].to_vec();
    let header = |algorithm, key_id: Vec<u8>| HeaderBuilder::new().algorithm(algorithm).key_id(key_id).build();
    let with_header = |header| made(|builder| builder.protected(header));
    let stranger = [0xee; 8];
    let noted = HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .key_id(key_id.clone())
        .value(99, 1.into())
        .build();
    let long = PAYLOAD_BYTES_MAX + 1;
    let whole = made(|builder| builder);
    let no_tag = CborSerializable::to_vec(CoseSign1::from_tagged_slice(&whole).expect("ours")).expect("encodes");
    let mut trailing = whole.clone();
    trailing.push(0);
    let rows: Vec<(&str, Vec<u8>, TrustError)> = vec![
        (
            "ES256",
            with_header(header(iana::Algorithm::ES256, key_id.clone())),
            TrustError::Algorithm,
        ),
        (
            "no key id",
            with_header(HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA).build()),
            TrustError::Algorithm,
        ),
        ("another header", with_header(noted), TrustError::Algorithm),
        (
            "empty header",
            with_header(HeaderBuilder::new().build()),
            TrustError::Algorithm,
        ),
        (
            "stranger",
            with_header(header(iana::Algorithm::EdDSA, stranger.to_vec())),
            TrustError::UnknownKey(stranger),
        ),
        (
            "too large",
            made(|builder| builder.payload(vec![0; long])),
            TrustError::Long(long),
        ),
        ("no tag", no_tag, malformed("no COSE_Sign1 tag", 0)),
        ("empty", vec![], malformed("no COSE_Sign1 tag", 0)),
        (
            "trailing",
            trailing.clone(),
            malformed("bad CBOR", trailing.len() as u64 - 1),
        ),
    ];
    for (name, envelope, expected) in rows {
        assert_eq!(open(&envelope), Err(expected), "{name}");
    }
    // Another issuer's envelope under a key that is pinned, but not by us.
    let foreign = Issuer::from_seed(&[3; 32]);
    let envelope = foreign.sign(ArtifactKind::List, b"a list").expect("small");
    assert_eq!(open(&envelope), Err(TrustError::UnknownKey(foreign.key().id())));
    assert_eq!(
        foreign.sign(ArtifactKind::List, &vec![0; long]),
        Err(TrustError::Long(long)),
    );
}

fn malformed(what: &'static str, at: u64) -> TrustError {
    TrustError::Malformed(CodecError::Malformed { what, at })
}

/// The same content must have one envelope: another spelling that no signature covers would pass for news.
#[test]
fn another_spelling_of_an_envelope_is_refused() {
    let envelope = made(|builder| builder.payload(b"plain text".to_vec()));
    assert_eq!(open(&envelope), Ok(b"plain text".to_vec()));
    let respelled = |from: u8, to: u8, at: usize| {
        let mut envelope = envelope.clone();
        assert_eq!(envelope[at], from);
        envelope[at] = to;
        open(&envelope)
    };
    // tag, array, header of 1 + 13 bytes, unprotected, payload
    assert!(
        matches!(respelled(0xa0, 0x80, 16), Err(TrustError::Malformed(_))),
        "an array for the empty map"
    );
    assert!(
        matches!(respelled(0x4a, 0x6a, 17), Err(TrustError::Malformed(_))),
        "a text for the payload"
    );
    assert!(
        matches!(respelled(0x84, 0xa4, 1), Err(TrustError::Malformed(_))),
        "a map for the array"
    );
    let mut as_array = envelope.clone();
    as_array.splice(
        17..28,
        [&[0x8a][..], &b"plain text".map(|byte| byte & 0x17)[..]].concat(),
    );
    assert!(
        matches!(open(&as_array), Err(TrustError::Malformed(_))),
        "an array of numbers for the payload"
    );
}

#[test]
fn labels_of_private_use_are_ignored_where_nothing_is_authenticated() {
    let unprotected = coset::Header {
        rest: vec![(Label::Int(-65_537), ciborium::Value::Null)],
        ..coset::Header::default()
    };
    assert_eq!(
        open(&made(|builder| builder.unprotected(unprotected))),
        Ok(b"a list".to_vec())
    );
}

#[test]
fn a_weak_or_impossible_key_is_not_pinned() {
    let good = *Issuer::from_seed(&SEED).key().as_bytes();
    assert_eq!(
        IssuerKey::from_bytes(&good).map(|key| key.id()),
        Ok(good[..8].try_into().expect("8 bytes"))
    );
    // The neutral element, a point of order 8 and no point at all.
    let weak = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "0200000000000000000000000000000000000000000000000000000000000000",
    ];
    for key in weak {
        let bytes = unhex(key).try_into().expect("32 bytes");
        assert_eq!(IssuerKey::from_bytes(&bytes), Err(TrustError::Forged), "{key}");
    }
}

#[test]
fn a_scratch_that_is_too_small_is_an_error() {
    let envelope = made(|builder| builder);
    let keys = [Issuer::from_seed(&SEED).key()];
    let open = |room: usize| trust::open(ArtifactKind::List, &envelope, &keys, &mut vec![0; room]).map(<[u8]>::len);
    assert_eq!(open(10), Err(TrustError::Overflow(10)));
    assert_eq!(open(6 + trust::ENVELOPE_OVERHEAD_BYTES), Ok(6));
}
