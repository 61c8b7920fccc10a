//! A seeded flood of changed bodies, frames and envelopes: no panic, and every refusal is typed. What `fuzz/` does for
//! hours with a coverage guide, this does for seconds in every run.

use proto::{
    artifact,
    codec::{self, CodecError},
    id::Kind,
    instrument::Voucher,
    link::LINK_FRAME_BYTES_MAX,
    message::{Clock, Grant},
    money::Units,
    seal::{Direction, PairSecret, SealError},
    tariff::{Bill, Dimension, Usage},
    trust::{ArtifactKind, Issuer},
    update::{Here, Manifest},
};

use crate::{
    samples::{self, Sample},
    vector::{frozen, read},
};

const BODIES: u32 = 300_000;
const FRAMES: u32 = 50_000;
const ENVELOPES: u32 = 20_000;
/// Large enough to hold any mutant: a splice adds less than this.
const SPLICE_BYTES_MAX: usize = 64;

/// Pseudo-random numbers (SplitMix64), the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    /// `HOLDFAST_SEED` or a constant; printed.
    pub(crate) fn seeded(test: &str) -> Self {
        let seed = std::env::var("HOLDFAST_SEED").map_or(20_231_112, |seed| seed.parse().expect("a number"));
        println!("{test}: HOLDFAST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// One to four changes.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                3 => bytes.truncate(at),
                4 if !bytes.is_empty() => drop(bytes.remove(at)),
                5 => {
                    let from = self.below(other.len());
                    let to = (from + self.below(SPLICE_BYTES_MAX)).min(other.len());
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
                6 => {
                    // Heads of strings, arrays, maps, tags and floats, with lengths of every width.
                    let head = (self.next() as u8) | 0x18;
                    let length = self.next().to_be_bytes();
                    let width = self.below(9);
                    bytes.splice(at..at, [&[head][..], &length[..width]].concat());
                }
                _ => bytes
                    .splice(
                        at..at,
                        [0x9f, 0xbf, 0x5f, 0x7f, 0xff, 0xf6]
                            .into_iter()
                            .cycle()
                            .skip(at % 6)
                            .take(2),
                    )
                    .for_each(drop),
            }
        }
    }
}

/// What was read must be writable, and the same again; and a tariff must bill, whatever it says.
fn check(sample: &Sample, bytes: &[u8]) -> bool {
    match sample.value.recoded(bytes) {
        Ok(again) => {
            assert_eq!(sample.value.recoded(&again), Ok(again.clone()), "{}", sample.name);
            if sample.rule == "grant"
                && let Ok(grant) = codec::decode::<Grant>(bytes)
            {
                let mut bill = Bill::default();
                let usage = Usage {
                    units: grant.units_max,
                    duration_s: 200_000,
                    idle_s: u32::MAX,
                    power_w: 5,
                    second_of_day: Some(grant.duration_max_s),
                };
                bill.add(&grant.tariff, Dimension::Energy, &usage);
                let _ = (bill.total(&grant.tariff), grant.tariff.check(), grant.tariff.hash());
                let _ = Units(u64::MAX).since(grant.units_max);
            }
            true
        }
        Err(CodecError::Malformed { what, at }) => {
            assert!(!what.is_empty());
            assert!(
                at <= bytes.len() as u64,
                "{}: {what} at {at} of {}",
                sample.name,
                bytes.len()
            );
            false
        }
        Err(CodecError::Overflow(_)) => panic!("{}: reading cannot overflow", sample.name),
    }
}

#[test]
fn changed_bodies_are_read_or_refused() {
    let mut random = Random::seeded("bodies");
    let samples = samples::all();
    let bodies: Vec<Vec<u8>> = samples.iter().map(|sample| read(sample.name).bytes("body")).collect();
    let (mut read, mut refused) = (0u32, 0u32);
    for _ in 0..BODIES {
        let (i, j) = (random.below(samples.len()), random.below(samples.len()));
        let mut body = bodies[i].clone();
        random.mutate(&mut body, &bodies[j]);
        // Now and then as another message: a broker may deliver anything anywhere.
        let sample = &samples[if random.below(8) == 0 { j } else { i }];
        if check(sample, &body) { read += 1 } else { refused += 1 }
    }
    println!("{read} read, {refused} refused");
    assert!(
        read > BODIES / 20 && refused > BODIES / 2,
        "the mutations are too wild or too tame"
    );
}

#[test]
fn changed_frames_are_refused() {
    let mut random = Random::seeded("frames");
    let key = PairSecret([0xd1; 32]).key(Direction::Down);
    let topic = read("grant-typical").get("topic").to_string();
    let frame = read("grant-typical").bytes("frame");
    let other = read("stop-extreme").bytes("frame");
    let (mut forged, mut others) = (0, 0);
    for _ in 0..FRAMES {
        let mut bytes = frame.clone();
        random.mutate(&mut bytes, &other);
        match key.open(&topic, &bytes, LINK_FRAME_BYTES_MAX) {
            Ok(opened) => assert_eq!(bytes, frame, "forged: {:?}", codec::decode::<Clock>(opened.body)),
            Err(SealError::Forged) => forged += 1,
            Err(SealError::Short(_) | SealError::Long { .. } | SealError::Version { .. }) => others += 1,
            Err(error @ (SealError::Replayed { .. } | SealError::Overflow(_))) => panic!("{error}"),
        }
    }
    println!("{forged} forged, {others} of another size or version");
    assert!(forged > FRAMES / 2 && others > 0);
}

#[test]
fn changed_envelopes_are_refused() {
    let mut random = Random::seeded("envelopes");
    let issuer = Issuer::from_seed(&[0x15; 32]);
    let vectors: Vec<_> = frozen()
        .into_iter()
        .filter(|vector| vector.get("what") == "envelope")
        .collect();
    let signed: Vec<(&str, Vec<u8>)> = vectors.iter().map(|v| (v.get("kind"), v.bytes("payload"))).collect();
    let (mut refused, mut respelled) = (0, 0);
    for _ in 0..ENVELOPES {
        let (i, j) = (random.below(vectors.len()), random.below(vectors.len()));
        let mut bytes = vectors[i].bytes("envelope");
        random.mutate(&mut bytes, &vectors[j].bytes("envelope"));
        let mut scratch = vec![0; bytes.len() + proto::trust::ENVELOPE_OVERHEAD_BYTES];
        for kind in [ArtifactKind::List, ArtifactKind::Revocations, ArtifactKind::Tariffs] {
            // Lengths in longer form and the unprotected header are nobody's word; the content is.
            match proto::trust::open(kind, &bytes, &[issuer.key()], &mut scratch) {
                Ok(payload) => {
                    assert!(
                        signed.contains(&(kind.word(), payload.to_vec())),
                        "a forged envelope opened"
                    );
                    respelled += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("{respelled} spelled in another way, {refused} refused");
    assert!(refused > 2 * ENVELOPES);
}

/// The payload of an envelope is signed, but whoever signs may be wrong: what is behind the signature must not panic.
#[test]
fn changed_payloads_behind_a_good_signature_do_not_panic() {
    let mut random = Random::seeded("payloads");
    let issuer = Issuer::from_seed(&[0x15; 32]);
    let keys = [issuer.key()];
    let vectors: Vec<_> = frozen()
        .into_iter()
        .filter(|vector| vector.get("what") == "envelope")
        .collect();
    let board = samples::name("b-l475e-iot01a");
    let here = Here {
        board: &board,
        kind: Kind::Charger,
        above: 0,
        room: u32::MAX,
        signers: &keys,
    };
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..5_000 {
        let vector = &vectors[random.below(vectors.len())];
        let mut payload = vector.bytes("payload");
        random.mutate(&mut payload, &vectors[0].bytes("payload"));
        let kind = *ArtifactKind::ALL
            .iter()
            .find(|kind| kind.word() == vector.get("kind"))
            .expect("a kind");
        let envelope = issuer.sign(kind, &payload).expect("small");
        let passes = match kind {
            ArtifactKind::List => artifact::verify_list(&envelope, &[vector.bytes("chunk")], &keys).is_ok(),
            ArtifactKind::Revocations => artifact::verify_revocations(&envelope, &keys).is_ok(),
            ArtifactKind::Tariffs => artifact::verify_tariffs(&envelope, &keys).is_ok(),
            ArtifactKind::Keys => artifact::verify_keys(&envelope, &keys).is_ok(),
            ArtifactKind::Policy => artifact::verify_policy(&envelope, &keys).is_ok(),
            ArtifactKind::Lease => artifact::verify_leases(&envelope, &keys).is_ok(),
            ArtifactKind::Voucher => Voucher::open(&envelope, &keys).is_ok(),
            ArtifactKind::Firmware => Manifest::open(&envelope, &here).is_ok(),
            ArtifactKind::Other => panic!("no such vector"),
        };
        if passes { passed += 1 } else { refused += 1 }
    }
    println!("{passed} passed, {refused} refused");
    assert!(passed > 50 && refused > 1_000);
}
