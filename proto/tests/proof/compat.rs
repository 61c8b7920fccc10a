//! An old reader reads new data, and the reverse.

use proto::{
    codec::{self, CodecError},
    id::{Kind, SessionId},
    message::{Clock, Command, Fault, OutletState, Refusal, RefusalReason, Stamp, Status, StopReason, Verb},
    money::Units,
    tariff::{Dimension, Tariff},
};
use serde::{Deserialize, Serialize};

use crate::{
    samples::{self, content::evening_tariff},
    vector::read,
};

/// `stamp` of a later version.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewStamp {
    mono_ms: u64,
    wall_s: u64,
    quality: u8,
    #[serde(default)]
    uncertainty_ms: u32,
}

/// `status` of a later version: a number more in an enum, a field more inside, fields more at the end.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewStatus {
    outlet: u8,
    state: u8,
    fault: u8,
    register: u64,
    at: NewStamp,
    #[serde(default)]
    temperature_c: i8,
    #[serde(default)]
    note: String,
    #[serde(default)]
    history: Vec<NewStamp>,
}

#[test]
fn an_old_reader_reads_new_data() {
    let stamp = || NewStamp {
        mono_ms: 5,
        wall_s: 6,
        quality: 9,
        uncertainty_ms: 7,
    };
    let new = NewStatus {
        outlet: 1,
        state: 6,
        fault: 200,
        register: 42,
        at: stamp(),
        temperature_c: -20,
        note: "cold".into(),
        history: vec![stamp(), stamp()],
    };
    let old = Status {
        outlet: 1,
        state: OutletState::Other,
        fault: Fault::Other,
        register: Units(42),
        at: Stamp {
            mono_ms: 5,
            wall_s: 6,
            quality: proto::message::ClockQuality::Unknown,
        },
    };
    assert_eq!(codec::decode(&codec::to_vec(&new)), Ok(old));
}

#[test]
fn a_new_reader_reads_old_data() {
    let old = read("status-typical").bytes("body");
    let new: NewStatus = codec::decode(&old).expect("old data");
    assert_eq!((new.outlet, new.state, new.fault, new.register), (0, 1, 1, 88_012));
    assert_eq!((new.temperature_c, new.note.as_str(), new.history), (0, "", vec![]));
    assert_eq!(new.at.uncertainty_ms, 0);
}

/// Whatever a later version appends to any struct, today's reader takes the rest as it was.
#[test]
fn every_message_is_read_with_any_field_appended() {
    let appended: [(&str, &[u8]); 9] = [
        ("number", &[0x00]),
        ("negative", &[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("text", &[0x63, b'n', b'e', b'w']),
        ("bytes", &[0x42, 0x00, 0xff]),
        ("array", &[0x83, 0x01, 0x80, 0xf5]),
        ("map with text keys", &[0xa1, 0x61, b'k', 0xa1, 0x00, 0xf6]),
        ("float", &[0xfb, 0x40, 0x09, 0x21, 0xfb, 0x54, 0x44, 0x2d, 0x18]),
        ("tagged", &[0xc1, 0x1a, 0x65, 0x00, 0x00, 0x00]),
        ("null", &[0xf6]),
    ];
    for sample in samples::all().iter().filter(|sample| sample.rule != "list-chunk") {
        let body = read(sample.name).bytes("body");
        let fields = body[0] - 0xa0;
        assert!(fields < 23, "{}: a short map head", sample.name);
        for (what, field) in appended {
            let mut new = body.clone();
            new[0] += 1;
            new.push(fields);
            new.extend_from_slice(field);
            let recoded = sample.value.recoded(&new);
            assert_eq!(recoded.as_ref(), Ok(&body), "{} with {what}", sample.name);
        }
    }
}

/// The numbers that a later version may send, and what today's reader makes of them.
#[test]
fn an_unknown_number_becomes_the_careful_choice() {
    fn read_as<T: for<'a> Deserialize<'a>>(number: u16) -> Result<T, CodecError> {
        codec::decode(&codec::to_vec(&number))
    }
    assert_eq!(read_as(77), Ok(Kind::Unknown));
    assert_eq!(read_as(77), Ok(RefusalReason::Other));
    assert_eq!(read_as(77), Ok(StopReason::Other));
    assert_eq!(read_as(77), Ok(OutletState::Other));
    assert_eq!(read_as(77), Ok(Verb::Other));
    assert_eq!(read_as(255), Ok(Verb::Other));
    assert_eq!(read_as(77), Ok(proto::artifact::Whitelist::Never));
    assert_eq!(read_as(77), Ok(proto::link::Verdict::Other));
    // Enums stay within one byte for good.
    assert!(matches!(read_as::<Verb>(256), Err(CodecError::Malformed { .. })));
    let refusal = Refusal {
        session: SessionId::ZERO,
        reason: RefusalReason::Storage,
        retry_after_s: 9,
    };
    let mut body = codec::to_vec(&refusal);
    let position = body.iter().position(|byte| *byte == 14).expect("the reason");
    body[position] = 19;
    let read: Refusal = codec::decode(&body).expect("a newer reason");
    assert_eq!((read.reason, read.retry_after_s), (RefusalReason::Other, 9));
}

/// A price that a reader does not understand must not be billed as something else.
#[test]
fn a_tariff_with_an_unknown_dimension_is_read_and_refused() {
    let tariff = Tariff::flat(1, &[(Dimension::Energy, 5), (Dimension::Idle, 5)]);
    let mut bytes = codec::to_vec(&tariff);
    let position = bytes
        .iter()
        .rposition(|byte| *byte == Dimension::Idle.code() && *byte == 5)
        .expect("the dimension");
    assert!(position > 0);
    let mut read: Tariff = codec::decode(&bytes).expect("a tariff");
    assert_eq!(read.check(), Ok(()));
    // The element is a map; its first value is the dimension.
    let element = bytes.iter().rposition(|byte| *byte == 0xa6).expect("the last element");
    assert_eq!(bytes[element + 2], Dimension::Idle.code());
    bytes[element + 2] = 6;
    read = codec::decode(&bytes).expect("a newer tariff");
    assert_eq!(read.check(), Err(proto::tariff::TariffError::Dimension(1)));
}

/// An appended field changes the hash of a tariff, so a reader that cannot bill it notices.
#[test]
fn a_tariff_with_a_field_appended_does_not_keep_its_hash() {
    let tariff = evening_tariff();
    let mut bytes = codec::to_vec(&tariff);
    bytes[0] += 1;
    bytes.extend_from_slice(&[5, 1]);
    let read: Tariff = codec::decode(&bytes).expect("a newer tariff");
    assert_eq!(read, tariff);
    let sent_hash = proto::id::Hash(<sha2::Sha256 as sha2::Digest>::digest(&bytes).into());
    assert_ne!(read.hash(), sent_hash);
}

/// The only optional field: null and absent are the same; so are the units that were appended, and none.
#[test]
fn a_command_without_a_token_is_read_both_ways() {
    let body = read("command-typical").bytes("body");
    let with_null: Command = codec::decode(&body).expect("with null");
    let mut short = body[..body.len() - 4].to_vec();
    short[0] -= 2;
    assert_eq!(codec::decode::<Command>(&short), Ok(with_null));
}

/// Every other field must be there: a default that nobody chose is not the sender's word.
#[test]
fn a_message_without_its_last_field_is_refused() {
    let body = read("clock-typical").bytes("body");
    let mut short = body[..body.len() - 4].to_vec();
    short[0] -= 1;
    let expected = CodecError::Malformed {
        what: "a field has the wrong form or is missing",
        at: short.len() as u64,
    };
    assert_eq!(codec::decode::<Clock>(&short), Err(expected));
}
