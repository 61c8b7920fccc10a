//! CBOR that nobody means well: each kind ends in a typed error, or is tolerated on purpose.

use proto::{
    artifact::ListEntry,
    codec::{self, CodecError},
    link::{Echo, Trouble, Upload},
    message::{Grant, Hello},
};
use serde::de::DeserializeOwned;

use crate::{
    samples,
    vector::{read, unhex},
};

const EARLY: &str = "the input ends early";
const BAD: &str = "bad CBOR";
const FIELD: &str = "a field has the wrong form or is missing";
const INDEFINITE: &str = "an indefinite-length string";

fn check<T: DeserializeOwned + std::fmt::Debug + PartialEq>(text: &str, what: &'static str, at: u64) {
    let bytes = unhex(&text.replace(' ', ""));
    let refused = Err(CodecError::Malformed { what, at });
    assert_eq!(codec::decode::<T>(&bytes), refused, "{text}");
}

#[test]
fn hostile_bodies_are_refused_with_what_and_where() {
    // An echo is {0: nonce}.
    let rows = [
        ("", EARLY, 0),
        ("a1", EARLY, 1),
        ("a1 00", EARLY, 2),
        ("a1 00 1b 00", EARLY, 4),
        ("a1 00 05 00", BAD, 4),
        ("a1 00 05 ff", BAD, 4),
        ("a2 00 05 00 06", FIELD, 4),
        ("a0", FIELD, 1),
        ("00", FIELD, 1),
        ("f6", FIELD, 1),
        ("40", FIELD, 1),
        ("a1 00 20", FIELD, 3),
        ("a1 00 f5", FIELD, 3),
        ("a1 00 f6", FIELD, 3),
        ("a1 00 61 35", FIELD, 4),
        ("a1 00 f9 45 00", FIELD, 5),
        ("a1 00 fb 40 14 00 00 00 00 00 00", FIELD, 11),
        ("a1 00 81 05", FIELD, 3),
        ("a1 00 1c", BAD, 3),
        ("a1 00 f8 20", BAD, 3),
        ("a1 00 ff", BAD, 3),
        ("a2 00 05 01 5f 41 00 ff", INDEFINITE, 5),
        ("a2 00 05 01 7f 61 61 ff", INDEFINITE, 5),
        ("a2 00 05 01 61 ff", BAD, 5),
        ("a2 00 05 01 5b ff ff ff ff ff ff ff ff", EARLY, 13),
        ("a2 00 05 01 7b ff ff ff ff ff ff ff ff", EARLY, 13),
        ("a2 00 05 01 9b ff ff ff ff ff ff ff ff", EARLY, 13),
        ("a2 00 05 01 bb ff ff ff ff ff ff ff ff", EARLY, 13),
        ("bb ff ff ff ff ff ff ff ff 00 05", EARLY, 11),
        ("bf 00 05", EARLY, 3),
        // The field by its name, and an array of the fields: no writer of this protocol writes that.
        ("a1 65 6e 6f 6e 63 65 05", FIELD, 7),
        ("81 05", FIELD, 1),
    ];
    for (text, what, at) in rows {
        check::<Echo>(text, what, at);
    }
}

#[test]
fn what_a_writer_should_not_write_but_a_reader_takes() {
    let rows = [
        ("the rule", "a1 00 05"),
        ("a number in two bytes", "a1 00 18 05"),
        ("in nine bytes", "a1 00 1b 00 00 00 00 00 00 00 05"),
        ("the key in two bytes", "a1 18 00 05"),
        ("the count in two bytes", "b8 01 00 05"),
        ("a map of indefinite length", "bf 00 05 ff"),
        ("a tag around", "c1 a1 00 05"),
        ("unknown keys twice", "a3 00 05 07 01 07 01"),
        ("keys out of order", "a2 01 00 00 05"),
    ];
    for (what, text) in rows {
        assert_eq!(
            codec::decode(&unhex(&text.replace(' ', ""))),
            Ok(Echo { nonce: 5 }),
            "{what}"
        );
    }
}

/// Depth costs stack: it ends at 128 levels, in fields nobody knows too.
#[test]
fn deep_nesting_is_refused() {
    for (opener, closer) in [(0x81, 0x00), (0xc1, 0x00), (0x9f, 0xff)] {
        for depth in [127, 128, 1_000, 60_000] {
            let mut body = vec![0xa2, 0x00, 0x05, 0x01];
            body.extend(std::iter::repeat_n(opener, depth));
            body.push(closer);
            let error = codec::decode::<Echo>(&body).expect_err("too deep");
            assert_eq!(
                error,
                CodecError::Malformed { what: BAD, at: 4 + 127 },
                "{opener:02x} {depth}"
            );
        }
        let mut body = vec![0xa2, 0x00, 0x05, 0x01];
        body.extend(std::iter::repeat_n(0x81, 100));
        body.push(0);
        assert_eq!(codec::decode(&body), Ok(Echo { nonce: 5 }), "100 levels are read");
    }
    let mut maps = vec![0xa2, 0x00, 0x05, 0x01];
    maps.extend(std::iter::repeat_n([0xa1, 0x00], 1_000).flatten());
    assert!(matches!(
        codec::decode::<Echo>(&maps),
        Err(CodecError::Malformed { what: BAD, .. })
    ));
}

/// A length that is a lie must cost neither memory nor time.
#[test]
fn huge_lengths_allocate_nothing_to_speak_of() {
    check::<Vec<ListEntry>>("9b 7f ff ff ff ff ff ff ff", EARLY, 9);
    check::<Vec<ListEntry>>("9a ff ff ff ff a0", FIELD, 6);
    check::<Upload>("a3 00 01 01 01 02 9b 7f ff ff ff ff ff ff ff", EARLY, 15);
    check::<Upload>("a3 00 01 01 01 02 81 5b 7f ff ff ff ff ff ff ff 00", EARLY, 17);
    check::<Trouble>("a3 00 01 01 01 02 7b 7f ff ff ff ff ff ff ff 00", EARLY, 16);
}

/// Every known key twice is an error in every struct, even with the same value.
#[test]
fn a_known_key_twice_is_refused() {
    for sample in samples::all().iter().filter(|sample| sample.rule != "list-chunk") {
        let mut body = read(sample.name).bytes("body");
        body[0] += 1;
        body.extend_from_slice(&[0x00, 0x00]);
        let error = sample.value.recoded(&body).expect_err(sample.name);
        assert!(
            matches!(error, CodecError::Malformed { what: FIELD, .. }),
            "{}: {error}",
            sample.name
        );
    }
}

#[test]
fn fields_beyond_their_range_are_refused() {
    let hello = read("hello-typical").bytes("body");
    assert_eq!(
        hello[..9],
        unhex("a8 00 01 01 01 02 00 03 02".replace(' ', "").as_str())
    );
    let with = |at: usize, bytes: &[u8]| {
        let mut body = hello.clone();
        body.splice(at..=at, bytes.iter().copied());
        codec::decode::<Hello>(&body)
    };
    assert!(with(2, &[0x18, 0xff]).is_ok(), "255 is a byte");
    for (what, at, bytes) in [
        ("a version of 256", 2, &[0x19, 0x01, 0x00][..]),
        ("a negative version", 2, &[0x20]),
        ("a kind of 256", 6, &[0x19, 0x01, 0x00]),
        ("a kind by name", 6, &[0x61, b'c']),
    ] {
        assert!(with(at, bytes).is_err(), "{what}");
    }
    let mut long = hello.clone();
    let firmware = hello
        .windows(5)
        .position(|window| window == b"1.4.2")
        .expect("the firmware");
    long.splice(firmware - 1..firmware + 5, [&[0x78, 25][..], &[b'x'; 25]].concat());
    assert!(matches!(
        codec::decode::<Hello>(&long),
        Err(CodecError::Malformed { what: FIELD, .. })
    ));
    // A ninth price element.
    let grant = read("grant-extreme").bytes("body");
    let elements = grant
        .windows(2)
        .position(|window| window == [0x88, 0xa6])
        .expect("eight elements");
    let element = grant[elements + 1..]
        .windows(2)
        .skip(1)
        .position(|window| window == [0xa6, 0x00])
        .expect("a second");
    let mut nine = grant.clone();
    nine[elements] = 0x89;
    let copy = grant[elements + 1..elements + 2 + element].to_vec();
    nine.splice(elements + 1..elements + 1, copy);
    assert!(codec::decode::<Grant>(&grant).is_ok());
    assert!(matches!(
        codec::decode::<Grant>(&nine),
        Err(CodecError::Malformed { .. })
    ));
}

#[test]
fn ids_of_the_wrong_length_or_form_are_refused() {
    let receipt = read("receipt-typical").bytes("body");
    assert_eq!(receipt[..3], [0xa4, 0x00, 0x50]);
    for (what, head, len) in [
        ("15 bytes", 0x4f, 15),
        ("17 bytes", 0x51, 17),
        ("text", 0x70, 16),
        ("array", 0x90, 16),
    ] {
        let mut body = receipt.clone();
        body.splice(2..19, [&[head][..], &vec![0x11; len]].concat());
        let error = codec::decode::<proto::message::Receipt>(&body).expect_err(what);
        assert!(
            matches!(error, CodecError::Malformed { what: FIELD, .. }),
            "{what}: {error}"
        );
    }
}

/// Encoding into a buffer that is too small says how large the buffer was.
#[test]
fn a_buffer_that_is_too_small_is_an_error_at_every_size() {
    let grant: Grant = codec::decode(&read("grant-extreme").bytes("body")).expect("a grant");
    let len = codec::to_vec(&grant).len();
    println!("the largest grant has {len} bytes");
    for room in 0..len {
        assert_eq!(
            codec::encode(&grant, &mut vec![0; room]),
            Err(CodecError::Overflow(room))
        );
    }
    assert_eq!(codec::encode(&grant, &mut vec![0; len]), Ok(len));
}
