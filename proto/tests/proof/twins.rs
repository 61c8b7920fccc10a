//! The reader of CBOR against serde_cbor: whatever both take, they take for the same, and what the reader refuses is
//! what this protocol does not write.

use proto::{
    artifact::ListEntry,
    codec,
    link::{Ask, LedgerRecord, LinkHello, Upload},
    message::{Authorize, Grant, Hello, Redeemed, Status, Stop},
};
use serde::de::DeserializeOwned;

use crate::{mutation::Random, samples, vector::read};

const CASES: usize = 400_000;

fn compare<T: DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8], seen: &mut [usize; 3]) {
    let ours = codec::decode::<T>(body);
    let mut scratch = [];
    let mut theirs = serde_cbor::de::Deserializer::from_slice_with_scratch(body, &mut scratch);
    let theirs = T::deserialize(&mut theirs).and_then(|value| theirs.end().map(|()| value));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours, theirs, "{body:02x?}");
            seen[0] += 1;
        }
        (Err(_), Err(_)) => seen[1] += 1,
        // Fields by their names, structs as arrays, and in fields nobody knows, text that is none.
        (Err(_), Ok(_)) => seen[2] += 1,
        (Ok(ours), Err(error)) => panic!("taken for {ours:?}, which serde_cbor refuses ({error}): {body:02x?}"),
    }
}

#[test]
fn both_readers_take_damaged_bodies_for_the_same() {
    type Compare = fn(&[u8], &mut [usize; 3]);
    let rules: [(&str, Compare); 11] = [
        ("hello", compare::<Hello>),
        ("authorize", compare::<Authorize>),
        ("grant", compare::<Grant>),
        ("redeemed", compare::<Redeemed>),
        ("stop", compare::<Stop>),
        ("status", compare::<Status>),
        ("ledger-record", compare::<LedgerRecord>),
        ("upload", compare::<Upload>),
        ("link-hello", compare::<LinkHello>),
        ("ask", compare::<Ask>),
        ("list-chunk", compare::<Vec<ListEntry>>),
    ];
    let mut rng = Random::seeded("twins");
    let samples = samples::all();
    let bodies: Vec<(Vec<u8>, Compare)> = samples
        .iter()
        .filter_map(|sample| {
            let (_, compare) = rules.iter().find(|(rule, _)| *rule == sample.rule)?;
            Some((read(sample.name).bytes("body"), *compare))
        })
        .collect();
    let mut seen = [0; 3];
    for case in 0..CASES {
        let (body, compare) = &bodies[rng.below(bodies.len())];
        let mut body = body.clone();
        if case % 8 != 0 {
            rng.mutate(&mut body, &bodies[case % bodies.len()].0);
        }
        compare(&body, &mut seen);
    }
    let [same, refused, stricter] = seen;
    println!("{same} the same, {refused} refused by both, {stricter} by the reader only");
    assert!(same > CASES / 8, "too little was taken to mean anything");
}
