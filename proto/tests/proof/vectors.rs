//! The frozen vectors: the code makes exactly these bytes, reads them back, and takes nothing less or else for them.

use std::{collections::BTreeSet, fs};

use proto::{
    artifact::{self, sign_list, sign_list_changes},
    link::LINK_FRAME_BYTES_MAX,
    message::BODY_BYTES_MAX,
    seal::{Direction, FRAME_BYTES_MAX, PairSecret, SealError, SealKey},
    trust::{self, ArtifactKind, Issuer, IssuerKey, TrustError},
};
use sha2::{Digest, Sha256};

use crate::{
    deriv, identities,
    samples::{self, Place, Sample, content},
    tariff,
    vector::{Vector, folder, frozen, read},
};

const DEVICE_SECRET: [u8; 32] = [0xd1; 32];
const LINK_SECRET: [u8; 32] = [0x1f; 32];
const ISSUER_SEED: [u8; 32] = [0x15; 32];

const fn direction(place: Place) -> Option<(Direction, &'static str)> {
    match place {
        Place::Up(_) | Place::LinkUp(_) => Some((Direction::Up, "up")),
        Place::Down(_) | Place::LinkDown(_) => Some((Direction::Down, "down")),
        Place::Inside => None,
    }
}

const fn is_on_link(place: Place) -> bool {
    matches!(place, Place::LinkUp(_) | Place::LinkDown(_))
}

fn message(sample: &Sample) -> Vector {
    let body = sample.value.encoded();
    let (Some(topic), Some((direction, word))) = (sample.place.topic(), direction(sample.place)) else {
        return Vector::new(sample.name, "item", sample.comment)
            .with("rule", sample.rule)
            .with_bytes("body", &body)
            .with_bytes("sha256", &Sha256::digest(&body));
    };
    let vector = Vector::new(sample.name, "message", sample.comment)
        .with("rule", sample.rule)
        .with("topic", &topic);
    if sample.rule == "trouble" {
        return vector
            .with_bytes("body", &body)
            .with_bytes("sha256", &Sha256::digest(&body));
    }
    let secret = if is_on_link(sample.place) {
        LINK_SECRET
    } else {
        DEVICE_SECRET
    };
    let counter = if sample.name.ends_with("extreme") {
        u64::MAX
    } else {
        (3 << 32) + 17
    };
    let mut frame = vec![0; 9];
    frame.extend_from_slice(&body);
    frame.extend_from_slice(&[0; 16]);
    let key = PairSecret(secret).key(direction);
    let len = key
        .seal_in_place(&topic, counter, &mut frame, body.len())
        .expect("made to measure");
    assert_eq!(len, frame.len());
    vector
        .with("direction", word)
        .with_bytes("secret", &secret)
        .with("counter", counter)
        .with_bytes("body", &body)
        .with_bytes("frame", &frame)
}

fn envelopes() -> Vec<Vector> {
    let issuer = Issuer::from_seed(&ISSUER_SEED);
    let vector = |file: &str, kind: ArtifactKind, rule: &str, comment: &str, payload: &[u8]| {
        Vector::new(file, "envelope", comment)
            .with("rule", rule)
            .with("kind", kind.word())
            .with_bytes("seed", &ISSUER_SEED)
            .with_bytes("public-key", issuer.key().as_bytes())
            .with_bytes("payload", payload)
            .with_bytes("envelope", &issuer.sign(kind, payload).expect("small"))
    };
    let sign = |file, kind, rule, payload: Vec<u8>| vector(file, kind, rule, "signed by the issuer", &payload);
    let (list, chunks) = sign_list(&issuer, 31, 1_772_371_800, content::entries()).expect("two entries");
    let (before, after) = (content::entries_before(), content::entries());
    let (changes, changed) =
        sign_list_changes(&issuer, (30, &before), (31, &after), 1_772_371_800).expect("one is gone");
    let [mut scratch, mut other] = [[0; 1000]; 2];
    let manifest = trust::open(ArtifactKind::List, &list, &[issuer.key()], &mut scratch).expect("just signed");
    let delta = trust::open(ArtifactKind::List, &changes, &[issuer.key()], &mut other).expect("just signed");
    let [revocations, most_revocations] = content::revocations();
    let [leases, most_leases] = content::leases();
    let [tariffs, most_tariffs] = content::tariff_tables();
    let [keys, most_keys] = content::key_sets();
    let encoded = |value: &dyn samples::Value| value.encoded();
    let (kind_r, kind_t) = (ArtifactKind::Revocations, ArtifactKind::Tariffs);
    let [policy, most_policy] = content::policies();
    let kind_p = ArtifactKind::Policy;
    let [manifest_f, most_manifest] = content::manifests();
    let kind_f = ArtifactKind::Firmware;
    vec![
        vector(
            "envelope-list",
            ArtifactKind::List,
            "list-manifest",
            "names the chunk of the same vector",
            manifest,
        )
        .with_bytes("chunk", &chunks[0]),
        vector(
            "envelope-list-changes",
            ArtifactKind::List,
            "list-manifest",
            "makes the list of envelope-list of the one before it",
            delta,
        )
        .with_bytes("chunk", &changed[0])
        .with_bytes("before", &encoded(&before))
        .with_bytes("before-sha256", &Sha256::digest(encoded(&before))),
        sign(
            "envelope-keys-typical",
            ArtifactKind::Keys,
            "issuer-keys",
            encoded(&keys),
        ),
        sign(
            "envelope-keys-extreme",
            ArtifactKind::Keys,
            "issuer-keys",
            encoded(&most_keys),
        ),
        sign(
            "envelope-revocations-typical",
            kind_r,
            "revocations",
            encoded(&revocations),
        ),
        sign(
            "envelope-revocations-extreme",
            kind_r,
            "revocations",
            encoded(&most_revocations),
        ),
        sign(
            "envelope-leases-typical",
            ArtifactKind::Lease,
            "leases",
            encoded(&leases),
        ),
        sign(
            "envelope-leases-extreme",
            ArtifactKind::Lease,
            "leases",
            encoded(&most_leases),
        ),
        sign("envelope-tariffs-typical", kind_t, "tariff-table", encoded(&tariffs)),
        sign(
            "envelope-tariffs-extreme",
            kind_t,
            "tariff-table",
            encoded(&most_tariffs),
        ),
        sign(
            "envelope-voucher-typical",
            ArtifactKind::Voucher,
            "voucher",
            encoded(&content::voucher()),
        ),
        sign(
            "envelope-voucher-extreme",
            ArtifactKind::Voucher,
            "voucher",
            encoded(&content::most_voucher()),
        ),
        sign("envelope-policy-typical", kind_p, "policy", encoded(&policy)),
        sign("envelope-policy-extreme", kind_p, "policy", encoded(&most_policy)),
        sign("envelope-firmware-typical", kind_f, "manifest", encoded(&manifest_f)),
        sign("envelope-firmware-extreme", kind_f, "manifest", encoded(&most_manifest)),
    ]
}

fn made() -> Vec<Vector> {
    let mut vectors: Vec<Vector> = samples::all().iter().map(message).collect();
    vectors.extend(envelopes());
    vectors.extend(deriv::vectors());
    vectors.extend(tariff::vectors());
    vectors.extend(identities::vectors());
    vectors
}

#[test]
fn the_code_makes_exactly_the_frozen_vectors() {
    let made = made();
    let may_write = std::env::var("HOLDFAST_VECTORS").is_ok_and(|value| value == "write");
    for vector in &made {
        let path = folder().join(format!("{}.hex", vector.name));
        if may_write && !path.exists() {
            fs::write(&path, vector.text()).expect("the folder of the vectors is writable");
            println!("new: {}", vector.name);
        }
        let frozen = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; HOLDFAST_VECTORS=write makes new ones", vector.name));
        assert_eq!(frozen, vector.text(), "{}: the wire has changed", vector.name);
    }
    let names: BTreeSet<&str> = made.iter().map(|vector| vector.name.as_str()).collect();
    assert_eq!(names.len(), made.len(), "two vectors have one name");
    for vector in frozen() {
        assert!(
            names.contains(vector.name.as_str()),
            "nothing makes {} any more",
            vector.name
        );
        assert_eq!(read(&vector.name).text(), vector.text());
    }
    println!("{} vectors", made.len());
}

#[test]
fn every_body_decodes_to_its_value_and_encodes_to_itself() {
    for sample in samples::all() {
        let body = read(sample.name).bytes("body");
        sample.value.assert_decodes(&body, sample.name);
        assert_eq!(sample.value.recoded(&body), Ok(body.clone()), "{}", sample.name);
        if matches!(sample.place, Place::Up(_) | Place::Down(_)) {
            assert!(body.len() <= BODY_BYTES_MAX, "{}: {} bytes", sample.name, body.len());
        }
    }
}

#[test]
fn every_prefix_of_a_body_is_an_error() {
    let mut prefixes = 0;
    for sample in samples::all() {
        let body = read(sample.name).bytes("body");
        for len in 0..body.len() {
            let error = sample.value.recoded(&body[..len]).expect_err(sample.name);
            let proto::codec::CodecError::Malformed { what, at } = error else {
                panic!("{}: {error}", sample.name)
            };
            assert_eq!(what, "the input ends early", "{} cut to {len}", sample.name);
            assert!(at <= len as u64, "{} cut to {len}: {error}", sample.name);
            prefixes += 1;
        }
    }
    println!("{prefixes} prefixes");
    assert!(prefixes > 3_000);
}

/// A sealed sample, with what opens it.
struct Sealed {
    name: &'static str,
    topic: String,
    key: SealKey,
    counter: u64,
    body: Vec<u8>,
    frame: Vec<u8>,
    frame_bytes_max: usize,
}

fn sealed() -> Vec<Sealed> {
    let samples = samples::all();
    let sealed = samples
        .iter()
        .filter(|sample| sample.rule != "trouble")
        .filter_map(|sample| {
            let (direction, _) = direction(sample.place)?;
            let vector = read(sample.name);
            let max = if is_on_link(sample.place) {
                LINK_FRAME_BYTES_MAX
            } else {
                FRAME_BYTES_MAX
            };
            Some(Sealed {
                name: sample.name,
                topic: vector.get("topic").into(),
                key: PairSecret(vector.bytes32("secret")).key(direction),
                counter: vector.get("counter").parse().expect("a counter"),
                body: vector.bytes("body"),
                frame: vector.bytes("frame"),
                frame_bytes_max: max,
            })
        });
    sealed.collect()
}

#[test]
fn every_frame_opens_to_its_body() {
    for sealed in sealed() {
        let opened = sealed.key.open(&sealed.topic, &sealed.frame, sealed.frame_bytes_max);
        let opened = opened.unwrap_or_else(|error| panic!("{}: {error}", sealed.name));
        assert_eq!(
            (opened.counter, opened.body),
            (sealed.counter, &sealed.body[..]),
            "{}",
            sealed.name
        );
    }
}

#[test]
fn every_prefix_and_every_flipped_bit_of_a_frame_is_refused() {
    let (mut prefixes, mut flips) = (0, 0);
    for sealed in sealed() {
        let open = |frame: &[u8]| {
            sealed
                .key
                .open(&sealed.topic, frame, sealed.frame_bytes_max)
                .map(|_| ())
        };
        for len in 0..sealed.frame.len() {
            let expected = if len < 25 {
                SealError::Short(len)
            } else {
                SealError::Forged
            };
            assert_eq!(
                open(&sealed.frame[..len]),
                Err(expected),
                "{} cut to {len}",
                sealed.name
            );
            prefixes += 1;
        }
        let mut frame = sealed.frame.clone();
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit {
                0..8 => SealError::Version { found: frame[0] },
                _ => SealError::Forged,
            };
            assert_eq!(open(&frame), Err(expected), "{} bit {bit}", sealed.name);
            frame[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
        }
    }
    println!("{prefixes} prefixes, {flips} flips");
    assert!(prefixes > 4_000 && flips > 32_000);
}

fn open_all_ways(envelope: &[u8], kind: ArtifactKind, key: IssuerKey) -> Result<Vec<u8>, TrustError> {
    let mut scratch = vec![0; envelope.len() + trust::ENVELOPE_OVERHEAD_BYTES];
    trust::open(kind, envelope, &[key], &mut scratch).map(<[u8]>::to_vec)
}

#[test]
fn every_envelope_opens_and_no_prefix_or_flip_of_it_does() {
    let (mut prefixes, mut flips) = (0, 0);
    for expected in envelopes() {
        let vector = read(&expected.name);
        let name = &vector.name;
        let mut envelope = vector.bytes("envelope");
        let key = IssuerKey::from_bytes(&vector.bytes32("public-key")).expect("a good key");
        let kind = *ArtifactKind::ALL
            .iter()
            .find(|kind| kind.word() == vector.get("kind"))
            .expect("a kind");
        assert_eq!(
            open_all_ways(&envelope, kind, key),
            Ok(vector.bytes("payload")),
            "{name}"
        );
        for len in 0..envelope.len() {
            let cut = open_all_ways(&envelope[..len], kind, key);
            assert!(
                matches!(cut, Err(TrustError::Malformed(_))),
                "{name} cut to {len}: {cut:?}"
            );
            prefixes += 1;
        }
        for bit in 0..envelope.len() * 8 {
            envelope[bit / 8] ^= 1 << (bit % 8);
            assert!(open_all_ways(&envelope, kind, key).is_err(), "{name} bit {bit}");
            envelope[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
        }
        for other in ArtifactKind::ALL.iter().filter(|other| **other != kind) {
            assert_eq!(
                open_all_ways(&envelope, *other, key),
                Err(TrustError::Forged),
                "{name} as {other:?}"
            );
        }
    }
    println!("{prefixes} prefixes, {flips} flips");
    assert!(prefixes > 700 && flips > 5_600);
}

#[test]
fn the_envelopes_of_the_vectors_pass_the_gate() {
    let list = read("envelope-list");
    let key = [IssuerKey::from_bytes(&list.bytes32("public-key")).expect("a good key")];
    let verified = artifact::verify_list(&list.bytes("envelope"), &[list.bytes("chunk")], &key).expect("a good list");
    assert_eq!(verified.entries(), content::entries());
    assert_eq!(verified.manifest().revision, 31);
    let changes = read("envelope-list-changes");
    let delta = artifact::verify_list(&changes.bytes("envelope"), &[changes.bytes("chunk")], &key).expect("changes");
    let whole = artifact::list_with(&content::entries_before(), delta.entries(), &delta.manifest().removed);
    assert_eq!(whole, content::entries());
    assert_eq!(artifact::check_trailer(delta.manifest(), &whole), Ok(()));
    let opened = ["envelope-keys-typical", "envelope-keys-extreme"]
        .map(|name| artifact::verify_keys(&read(name).bytes("envelope"), &key).expect(name));
    assert_eq!(opened, content::key_sets());
    let opened = ["envelope-revocations-typical", "envelope-revocations-extreme"]
        .map(|name| artifact::verify_revocations(&read(name).bytes("envelope"), &key).expect(name));
    assert_eq!(opened, content::revocations());
    let opened = ["envelope-tariffs-typical", "envelope-tariffs-extreme"]
        .map(|name| artifact::verify_tariffs(&read(name).bytes("envelope"), &key).expect(name));
    assert_eq!(opened, content::tariff_tables());
    let opened = ["envelope-policy-typical", "envelope-policy-extreme"]
        .map(|name| artifact::verify_policy(&read(name).bytes("envelope"), &key).expect(name));
    assert_eq!(opened, content::policies());
    let opened = ["envelope-leases-typical", "envelope-leases-extreme"]
        .map(|name| artifact::verify_leases(&read(name).bytes("envelope"), &key).expect(name));
    assert_eq!(opened, content::leases());
}
