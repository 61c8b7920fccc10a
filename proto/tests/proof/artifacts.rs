//! The gate: every check has a list, a table or a set of revocations that fails it, and only it.

use proto::{
    artifact::*,
    codec::{self, CodecError},
    id::{Hash, Kind, Name, TokenHash},
    link::{ArtifactPart, PART_BYTES_MAX},
    money::Money,
    tariff::{Dimension, PriceElement, Tariff, TariffError},
    trust::{ArtifactKind, Issuer, IssuerKey, KeyId, PAYLOAD_BYTES_MAX, TrustError},
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
        removed: vec![],
        total: chunks.iter().map(Vec::len).sum::<usize>() as u32,
        digest: list_digest(chunks.iter().flatten()),
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
    assert_eq!(gate(&long.0, &long.1), Err(ArtifactError::Long(191_601)));

    let short = signed(&halves, |manifest| manifest.total = 7);
    assert_eq!(
        gate(&short.0, &short.1),
        Err(ArtifactError::Total { found: 6, signed: 7 })
    );
    let other = signed(&halves, |manifest| manifest.digest.0[0] ^= 1);
    assert_eq!(gate(&other.0, &other.1), Err(ArtifactError::Digest));
    let loses = signed(&halves, |manifest| manifest.removed = vec![entry(9).token]);
    assert_eq!(
        gate(&loses.0, &loses.1),
        Err(ArtifactError::Removed(0)),
        "a full list loses nobody"
    );

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
        removed: vec![],
        total: 0,
        digest: list_digest([]),
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
        removed: vec![],
        total: LIST_ENTRIES_MAX as u32,
        digest: Hash([0xff; 32]),
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
                credential_revision: u64::MAX,
                reason: Reason::Lost,
            };
            count
        ],
        scopes: vec![],
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

#[test]
fn changes_make_one_list_of_another() {
    let numbers = |numbers: &[u32]| numbers.iter().map(|&n| entry(n)).collect::<Vec<_>>();
    let check = |before: &[ListEntry], after: &[ListEntry], changed: usize, removed: usize| {
        let (some, gone) = list_changes(before, after);
        assert_eq!((some.len(), gone.len()), (changed, removed), "{before:?} -> {after:?}");
        assert_eq!(list_with(before, &some, &gone), after);
        let (envelope, chunks) = sign_list_changes(&issuer(), (6, before), (7, after), 9).expect("few are gone");
        let list = verify_list(&envelope, &chunks, &keys()).expect("good changes");
        let whole = list_with(before, list.entries(), &list.manifest().removed);
        assert_eq!(check_trailer(list.manifest(), &whole), Ok(()));
        assert_eq!((list.manifest().base, list.manifest().revision), (6, 7));
    };
    check(&[], &[], 0, 0);
    check(&[], &numbers(&[1, 2]), 2, 0);
    check(&numbers(&[1, 2]), &[], 0, 2);
    check(&numbers(&[1, 3, 5]), &numbers(&[0, 2, 4, 6]), 4, 3);
    check(&numbers(&[1, 2, 3]), &numbers(&[1, 2, 3]), 0, 0);
    let mut poorer = numbers(&[1, 2, 3]);
    poorer[1].balance = Money(0);
    check(&numbers(&[1, 2, 3]), &poorer, 1, 0);
    check(&entries(1_000), &entries(1_400)[400..], 400, 400);
    let too_many = sign_list_changes(&issuer(), (6, &entries(401)), (7, &[]), 9);
    assert_eq!(too_many, Err(TrustError::Long(401 * 16)));
}

/// Whoever loses or repeats any part of the changes ends at another list than the one that was signed.
#[test]
fn the_trailer_knows_every_other_list() {
    let (before, after) = (entries(20), entries(25)[3..].to_vec());
    let (changed, removed) = list_changes(&before, &after);
    let (envelope, chunks) = sign_list_changes(&issuer(), (6, &before), (7, &after), 9).expect("few");
    let list = verify_list(&envelope, &chunks, &keys()).expect("good changes");
    let check = |whole: &[ListEntry]| check_trailer(list.manifest(), whole);
    assert_eq!(check(&list_with(&before, &changed, &removed)), Ok(()));
    let total = |found| Err(ArtifactError::Total { found, signed: 22 });
    assert_eq!(check(&list_with(&before, &changed, &removed[1..])), total(23));
    assert_eq!(check(&list_with(&before, &changed[1..], &removed)), total(21));
    assert_eq!(
        check(&list_with(&before[..19], &changed, &removed)),
        total(21),
        "another base"
    );
    let mut base = before.clone();
    base[10].account += 1;
    assert_eq!(check(&list_with(&base, &changed, &removed)), Err(ArtifactError::Digest));
}

#[test]
fn every_field_of_an_entry_is_in_the_digest() {
    let good = list_digest(&[entry(1)]);
    let changes: [fn(&mut ListEntry); 9] = [
        |e| e.token.0[15] ^= 1,
        |e| e.account += 1,
        |e| e.group += 1,
        |e| e.valid = false,
        |e| e.whitelist = Whitelist::Never,
        |e| e.credential_revision += 1,
        |e| e.balance = Money(-100),
        |e| e.not_after_s += 1,
        |e| e.lease_only = true,
    ];
    for (field, change) in changes.iter().enumerate() {
        let mut other = entry(1);
        change(&mut other);
        assert_ne!(list_digest(&[other]), good, "field {field}");
    }
}

#[test]
fn changes_that_contradict_themselves_are_refused_by_name() {
    let delta = |change: &dyn Fn(&mut ListManifest)| {
        let (envelope, chunks) = signed(&[entries(3)], |manifest| {
            manifest.base = 6;
            change(manifest);
        });
        gate(&envelope, &chunks)
    };
    assert_eq!(delta(&|_| {}), Ok(3));
    let (base, revision) = (7, 7);
    assert_eq!(
        delta(&|manifest| manifest.base = 7),
        Err(ArtifactError::Base { base, revision })
    );
    let tokens = |numbers: &[u32]| numbers.iter().map(|&n| entry(n).token).collect::<Vec<_>>();
    assert_eq!(delta(&|manifest| manifest.removed = tokens(&[4, 9])), Ok(3));
    for (removed, at) in [(tokens(&[9, 4]), 1), (tokens(&[4, 4]), 1), (tokens(&[2, 9]), 0)] {
        let refused = delta(&|manifest| manifest.removed.clone_from(&removed));
        assert_eq!(refused, Err(ArtifactError::Removed(at)));
    }
    let many = delta(&|manifest| manifest.removed = tokens(&(10..411).collect::<Vec<_>>()));
    assert_eq!(many, Err(ArtifactError::Long(401)));
    let long = delta(&|manifest| manifest.total = 191_601);
    assert_eq!(long, Err(ArtifactError::Long(191_601)));
}

#[test]
fn a_scope_of_revocations_names_somebody() {
    let named = [
        Subject::Account(u64::MAX),
        Subject::Device(Name::new("w-3").expect("a name")),
        Subject::Key(KeyId([7; 8])),
    ];
    let scopes: Vec<RevokedScope> = named.map(|subject| RevokedScope::new(subject, Reason::Stolen)).to_vec();
    let verify = |scopes: &[RevokedScope]| {
        let content = Revocations {
            revision: 2,
            entries: vec![],
            scopes: scopes.to_vec(),
        };
        let envelope = sign(&issuer(), ArtifactKind::Revocations, &content).expect("small");
        verify_revocations(&envelope, &keys()).map(|set| set.scopes.iter().map(RevokedScope::read).collect::<Vec<_>>())
    };
    assert_eq!(verify(&scopes), Ok(named.map(Some).to_vec()));
    let with = |scope, subject: &[u8]| {
        let subject = subject.to_vec().into();
        let reason = Reason::Other;
        verify(&[scopes[0].clone(), RevokedScope { scope, subject, reason }])
    };
    assert_eq!(
        with(Scope::Other, b"??"),
        Ok(vec![Some(named[0]), None]),
        "a newer scope is no fault"
    );
    for (scope, subject) in [
        (Scope::Account, &b"1234567"[..]),
        (Scope::Device, b"W"),
        (Scope::Key, b"123456789"),
    ] {
        assert_eq!(with(scope, subject), Err(ArtifactError::Subject(1)), "{scope:?}");
    }
    assert_eq!(verify(&vec![scopes[0].clone(); 401]), Err(ArtifactError::Long(401)));
}

#[test]
fn a_set_of_keys_is_keys() {
    let key = |seed| PublicKey::from(Issuer::from_seed(&[seed; 32]).key());
    let verify = |set: &[PublicKey]| {
        let content = IssuerKeys {
            epoch: 3,
            keys: set.to_vec(),
        };
        let envelope = sign(&issuer(), ArtifactKind::Keys, &content).expect("small");
        verify_keys(&envelope, &keys()).map(|set| set.keys.len())
    };
    assert_eq!(verify(&[key(1), key(2)]), Ok(2));
    assert_eq!(verify(&[]), Err(ArtifactError::KeyCount(0)));
    assert_eq!(
        verify(&(1..=9).map(key).collect::<Vec<_>>()),
        Err(ArtifactError::KeyCount(9))
    );
    assert_eq!(verify(&[key(1), key(2), key(1)]), Err(ArtifactError::Key(2)));
    assert_eq!(
        verify(&[key(1), PublicKey([0; 32])]),
        Err(ArtifactError::Key(1)),
        "a weak point"
    );
    let as_list = sign(
        &issuer(),
        ArtifactKind::List,
        &IssuerKeys {
            epoch: 3,
            keys: vec![key(1)],
        },
    )
    .expect("small");
    assert_eq!(
        verify_keys(&as_list, &keys()),
        Err(ArtifactError::Trust(TrustError::Forged))
    );
}

#[test]
fn a_file_of_artifacts_is_read_whole_or_not_at_all() {
    let part = |part, bytes: &[u8]| ArtifactPart {
        kind: ArtifactKind::List,
        revision: 7,
        part,
        parts: 2,
        bytes: bytes.to_vec().into(),
    };
    let parts = vec![part(0, b"envelope"), part(1, &vec![5; PART_BYTES_MAX])];
    let file = write_bundle(&parts);
    assert_eq!(read_bundle(&file), Ok(parts));
    assert_eq!(read_bundle(&write_bundle([])), Ok(vec![]));
    assert_eq!(read_bundle(b"HOLDFST2"), Err(BundleError::Magic));
    assert_eq!(read_bundle(&file[..5]), Err(BundleError::Magic));
    let first = 8 + 4 + codec::to_vec(&part(0, b"envelope")).len();
    for len in 9..file.len() {
        let expected = if len < first {
            Err(BundleError::Length(0))
        } else {
            Err(BundleError::Length(1))
        };
        let found = read_bundle(&file[..len]).map(|parts| parts.len());
        assert_eq!(found, if len == first { Ok(1) } else { expected }, "{len} bytes");
    }
    let mut endless = file.clone();
    endless[8] = 0xff;
    assert_eq!(read_bundle(&endless), Err(BundleError::Length(0)));
    let mut garbage = file;
    garbage[12] = 0xff;
    assert!(matches!(read_bundle(&garbage), Err(BundleError::Part { at: 0, .. })));
}
