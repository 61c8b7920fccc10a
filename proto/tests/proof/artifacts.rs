//! The gate: every check has a list, a table or a set of revocations that fails it, and only it.

use proto::{
    artifact::*,
    codec::{self, CodecError},
    id::{Hash, Kind, TokenHash},
    money::Money,
    tariff::{Dimension, PriceElement, Tariff, TariffError},
    trust::{ArtifactKind, Issuer, IssuerKey, PAYLOAD_BYTES_MAX, TrustError},
};
use sha2::{Digest, Sha256};

fn issuer() -> Issuer {
    Issuer::from_seed(&[3; 32])
}

fn keys() -> [IssuerKey; 2] {
    [Issuer::from_seed(&[4; 32]).key(), issuer().key()]
}

fn entry(number: u32) -> ListEntry {
    let mut token = TokenHash::ZERO;
    token.0[..4].copy_from_slice(&number.to_be_bytes());
    ListEntry {
        token,
        account: u64::from(number),
        group: 0,
        valid: true,
        whitelist: Whitelist::Allowed,
        credential_revision: 1,
        balance: Money(100),
        not_after_s: 0,
        lease_only: false,
    }
}

fn entries(count: u32) -> Vec<ListEntry> {
    (0..count).map(entry).collect()
}

/// A list whose head and chunks are as given, signed.
fn signed(chunks: &[Vec<ListEntry>], change: impl FnOnce(&mut ListManifest)) -> (Vec<u8>, Vec<Vec<u8>>) {
    let bytes: Vec<Vec<u8>> = chunks.iter().map(codec::to_vec).collect();
    let mut manifest = ListManifest {
        revision: 7,
        base: 0,
        count: chunks.iter().map(Vec::len).sum::<usize>() as u32,
        issued_s: 1_772_371_800,
        chunks: bytes.iter().map(|chunk| Hash(Sha256::digest(chunk).into())).collect(),
    };
    change(&mut manifest);
    (sign(&issuer(), ArtifactKind::List, &manifest).expect("small"), bytes)
}

fn gate(envelope: &[u8], chunks: &[Vec<u8>]) -> Result<usize, ArtifactError> {
    verify_list(envelope, chunks, &keys()).map(|list| list.entries().len())
}

#[test]
fn a_good_list_passes_with_everything_it_says() {
    let shuffled: Vec<ListEntry> = entries(1_001).into_iter().rev().collect();
    let (envelope, chunks) = sign_list(&issuer(), 7, 1_772_371_800, shuffled).expect("fits");
    assert_eq!(chunks.len(), 3, "{CHUNK_ENTRIES} entries a chunk");
    assert!(chunks.iter().all(|chunk| chunk.len() <= proto::link::PART_BYTES_MAX));
    let list = verify_list(&envelope, &chunks, &keys()).expect("a good list");
    assert_eq!(list.entries(), entries(1_001), "sorted by token");
    let (manifest, sorted) = list.into_parts();
    assert_eq!(
        (manifest.revision, manifest.base, manifest.count, manifest.issued_s),
        (7, 0, 1_001, 1_772_371_800)
    );
    assert_eq!(sorted.len(), 1_001);
    let (empty, none) = sign_list(&issuer(), 8, 0, vec![]).expect("fits");
    assert_eq!(gate(&empty, &none), Ok(0));
}

#[test]
fn every_check_of_a_list_refuses_by_name() {
    let halves = [entries(6)[..3].to_vec(), entries(6)[3..].to_vec()];
    let whole = signed(&halves, |_| {});
    let (envelope, chunks) = whole.clone();
    assert_eq!(gate(&envelope, &chunks), Ok(6));

    let missing = gate(&envelope, &chunks[..1]);
    assert_eq!(missing, Err(ArtifactError::ChunkCount { found: 1, named: 2 }));
    let extra = [chunks.clone(), vec![chunks[0].clone()]].concat();
    assert_eq!(
        gate(&envelope, &extra),
        Err(ArtifactError::ChunkCount { found: 3, named: 2 })
    );
    let swapped = [chunks[1].clone(), chunks[0].clone()];
    assert_eq!(gate(&envelope, &swapped), Err(ArtifactError::ChunkHash(0)));
    let mut damaged = chunks.clone();
    *damaged[1].last_mut().expect("not empty") ^= 1;
    assert_eq!(gate(&envelope, &damaged), Err(ArtifactError::ChunkHash(1)));
    let cut = [chunks[0].clone(), chunks[1][..20].to_vec()];
    assert_eq!(
        gate(&envelope, &cut),
        Err(ArtifactError::ChunkHash(1)),
        "a truncated list"
    );

    let fewer = signed(&halves, |manifest| manifest.count = 7);
    assert_eq!(
        gate(&fewer.0, &fewer.1),
        Err(ArtifactError::Count { found: 6, signed: 7 })
    );
    let more = signed(&halves, |manifest| manifest.count = 5);
    assert_eq!(
        gate(&more.0, &more.1),
        Err(ArtifactError::Count { found: 6, signed: 5 })
    );
    let long = signed(&halves, |manifest| manifest.count = LIST_ENTRIES_MAX as u32 + 1);
    assert_eq!(gate(&long.0, &long.1), Err(ArtifactError::Long(192_001)));

    let twice = signed(&[vec![entry(1), entry(2)], vec![entry(2), entry(3)]], |_| {});
    assert_eq!(gate(&twice.0, &twice.1), Err(ArtifactError::Order(2)), "across chunks");
    let unsorted = signed(&[vec![entry(1), entry(3), entry(2)]], |_| {});
    assert_eq!(
        gate(&unsorted.0, &unsorted.1),
        Err(ArtifactError::Order(2)),
        "within one"
    );
}

#[test]
fn a_list_that_is_not_believed_is_refused_by_name() {
    let (envelope, chunks) = signed(&[entries(3)], |_| {});
    let strangers = [Issuer::from_seed(&[5; 32]).key()];
    let refused = verify_list(&envelope, &chunks, &strangers);
    assert_eq!(
        refused,
        Err(ArtifactError::Trust(TrustError::UnknownKey(issuer().key().id())))
    );
    assert_eq!(
        verify_list(&envelope, &chunks, &[]),
        Err(ArtifactError::Trust(TrustError::UnknownKey(issuer().key().id())))
    );
    let mut forged = envelope.clone();
    *forged.last_mut().expect("a signature") ^= 1;
    assert_eq!(gate(&forged, &chunks), Err(ArtifactError::Trust(TrustError::Forged)));
    // Signed, but as something else.
    let manifest = ListManifest {
        revision: 1,
        base: 0,
        count: 0,
        issued_s: 0,
        chunks: vec![],
    };
    let as_lease = sign(&issuer(), ArtifactKind::Lease, &manifest).expect("small");
    assert_eq!(gate(&as_lease, &[]), Err(ArtifactError::Trust(TrustError::Forged)));
    // Signed as a list, but no manifest.
    let no_manifest = sign(&issuer(), ArtifactKind::List, &5u8).expect("small");
    let what = "a field has the wrong form or is missing";
    assert_eq!(
        gate(&no_manifest, &[]),
        Err(ArtifactError::Content(CodecError::Malformed { what, at: 1 }))
    );
    // A chunk with the signed hash that cannot be read.
    let garbage = vec![0x81, 0x05];
    let manifest = ListManifest {
        count: 1,
        chunks: vec![Hash(Sha256::digest(&garbage).into())],
        ..manifest
    };
    let envelope = sign(&issuer(), ArtifactKind::List, &manifest).expect("small");
    let error = CodecError::Malformed { what, at: 2 };
    assert_eq!(gate(&envelope, &[garbage]), Err(ArtifactError::Chunk { at: 0, error }));
}

/// The limit of entries is one that can be signed; one chunk more cannot.
#[test]
fn the_largest_list_fits_one_envelope() {
    let chunks = LIST_ENTRIES_MAX / CHUNK_ENTRIES;
    let manifest = |chunks| ListManifest {
        revision: u64::MAX,
        base: u64::MAX,
        count: LIST_ENTRIES_MAX as u32,
        issued_s: u64::MAX,
        chunks: vec![Hash([0xff; 32]); chunks],
    };
    assert!(codec::to_vec(&manifest(chunks)).len() <= PAYLOAD_BYTES_MAX);
    let one_more = codec::to_vec(&manifest(chunks + 1)).len();
    assert_eq!(
        sign(&issuer(), ArtifactKind::List, &manifest(chunks + 1)),
        Err(TrustError::Long(one_more))
    );
    let widest = ListEntry {
        token: TokenHash([0xff; 16]),
        account: u64::MAX,
        group: u64::MAX,
        credential_revision: u64::MAX,
        balance: Money(i64::MIN),
        not_after_s: u64::MAX,
        lease_only: false,
        ..entry(0)
    };
    assert!(codec::to_vec(&vec![widest; CHUNK_ENTRIES]).len() <= proto::link::PART_BYTES_MAX);
}

#[test]
fn revocations_are_limited() {
    let revocations = |count| Revocations {
        revision: 2,
        entries: vec![
            Revoked {
                token: TokenHash([0xff; 16]),
                credential_revision: u64::MAX
            };
            count
        ],
    };
    let verify = |content: &Revocations| {
        let envelope = sign(&issuer(), ArtifactKind::Revocations, content).expect("the limit fits one envelope");
        verify_revocations(&envelope, &keys()).map(|revocations| revocations.entries.len())
    };
    assert_eq!(verify(&revocations(0)), Ok(0));
    assert_eq!(verify(&revocations(REVOCATIONS_MAX)), Ok(400));
    assert_eq!(verify(&revocations(REVOCATIONS_MAX + 1)), Err(ArtifactError::Long(401)));
    let as_tariffs = sign(&issuer(), ArtifactKind::Tariffs, &revocations(1)).expect("small");
    assert_eq!(
        verify_revocations(&as_tariffs, &keys()),
        Err(ArtifactError::Trust(TrustError::Forged))
    );
}

#[test]
fn a_price_table_is_checked_entry_by_entry() {
    let of = |kind, tariff| TariffOf { kind, tariff };
    let verify = |entries: &[TariffOf]| {
        let table = TariffTable {
            revision: 4,
            entries: entries.to_vec(),
        };
        let envelope = sign(&issuer(), ArtifactKind::Tariffs, &table).expect("small");
        verify_tariffs(&envelope, &keys()).map(|verified| assert_eq!(verified, table))
    };
    let charger = of(Kind::Charger, Tariff::flat(1, &[(Dimension::Energy, 100_000)]));
    let washer = of(Kind::Washer, Tariff::flat(2, &[(Dimension::Cycle, 600_000)]));
    let bad = of(
        Kind::Dispenser,
        Tariff::flat(3, &[(Dimension::Volume, 1), (Dimension::Idle, -1)]),
    );
    let never = PriceElement {
        minute_to: 0,
        ..PriceElement::flat(Dimension::Energy, 1)
    };
    let empty = of(
        Kind::Dispenser,
        Tariff {
            id: 9,
            elements: [never].into_iter().collect(),
            ..Tariff::default()
        },
    );
    assert_eq!(verify(&[]), Ok(()));
    assert_eq!(verify(&[charger.clone(), washer.clone()]), Ok(()));
    let error = TariffError::Price(1);
    assert_eq!(
        verify(&[charger.clone(), bad]),
        Err(ArtifactError::Tariff { id: 3, error })
    );
    let error = TariffError::Range(0);
    assert_eq!(verify(&[empty]), Err(ArtifactError::Tariff { id: 9, error }));
    let twice = verify(&[charger.clone(), washer, charger]);
    assert_eq!(
        twice,
        Err(ArtifactError::KindTwice {
            at: 2,
            kind: Kind::Charger
        })
    );
    let text = twice.expect_err("twice").to_string();
    assert_eq!(text, "entry 2 prices the kind charger a second time");
}
