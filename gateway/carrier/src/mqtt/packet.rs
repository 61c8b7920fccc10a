//! Packets of both versions. Whole ones are written and read by rumqttc; what can be understood without reading them
//! whole is read here, for rumqttc 0.25 does not take a DISCONNECT of one byte (mosquitto's), a CONNACK with AWS's
//! code 7, or that of a 3.1.1 broker to an MQTT 5 client.

use bytes::{Bytes, BytesMut};

use super::{Options, Version, v3, v5};
use crate::{
    Publish, Qos,
    symptom::{self, Class, Symptom},
};

/// PINGREQ, the same in both versions.
pub(super) const PINGREQ: [u8; 2] = [0xC0, 0x00];
/// Bytes of the longest remaining length.
const LENGTH_BYTES_MAX: usize = 4;

/// Something the broker said.
#[derive(Debug)]
pub(super) enum Seen {
    /// CONNACK: we are in.
    Connected(Terms),
    /// CONNACK or DISCONNECT: it is over.
    Over(Symptom),
    /// SUBACK.
    Granted { id: u16, codes: Vec<u8> },
    /// PUBLISH; id 0: wants no acknowledgement.
    Message { topic: String, payload: Bytes, id: u16 },
    /// PUBACK, with its code and what was said to it.
    Acknowledged { id: u16, code: u8, said: Option<String> },
    /// PINGRESP.
    Ponged,
}

/// What a broker demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) packet_bytes_max: Option<u32>,
    pub(super) inflight_max: Option<u16>,
    pub(super) keep_alive_s: Option<u16>,
}

/// One packet's bytes.
#[derive(Debug)]
pub(super) struct Frame {
    /// Header included.
    pub(super) whole: Bytes,
    /// Without the header.
    pub(super) body: Bytes,
}

impl Frame {
    /// The first whole packet, if there is one yet.
    pub(super) fn take(bytes: &mut BytesMut, bytes_max: u32) -> Result<Option<Self>, String> {
        let mut length = 0;
        for at in 0..LENGTH_BYTES_MAX {
            let Some(byte) = bytes.get(1 + at).copied() else {
                return Ok(None);
            };
            length |= usize::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 != 0 {
                continue;
            }
            let head = 2 + at;
            let total = head + length;
            if total > bytes_max as usize {
                return Err(format!("a packet of {total} bytes, {bytes_max} are the most"));
            }
            if bytes.len() < total {
                return Ok(None);
            }
            let whole = bytes.split_to(total).freeze();
            let body = whole.slice(head..);
            return Ok(Some(Self { whole, body }));
        }
        Err("a length of more than four bytes".to_owned())
    }

    /// For rumqttc, which wants to take it from a buffer of its own.
    pub(super) fn buffer(&self) -> BytesMut {
        BytesMut::from(&*self.whole)
    }

    fn id(&self) -> Result<u16, String> {
        match *self.body {
            [high, low, ..] => Ok(u16::from_be_bytes([high, low])),
            _ => Err("a packet without its id".to_owned()),
        }
    }
}

/// Whether a packet that begins so may be the answer to CONNECT: CONNACK, or MQTT 5's DISCONNECT.
pub(super) const fn is_answer(first: u8) -> bool {
    matches!(first, 0x20 | 0xE0)
}

/// A filter that was not granted. 3.1.1 does not say why; with the filters of one who was let in it can only be that
/// he may not.
pub(super) fn refused(version: Version, filter: &str, code: u8) -> Symptom {
    match version {
        Version::V3 => Symptom::new(Class::Denied, 403, format!("SUBACK of {filter} {code:#04x}: refused")),
        Version::V5 => symptom::reason(&format!("SUBACK of {filter}"), code, None),
    }
}

/// Understands a packet.
pub(super) fn read(version: Version, frame: &Frame) -> Result<Seen, String> {
    match (frame.whole[0] >> 4, version) {
        (2, _) => connack(version, frame),
        (3, Version::V3) => v3::message(frame),
        (3, Version::V5) => v5::message(frame),
        (4, Version::V3) => Ok(Seen::Acknowledged {
            id: frame.id()?,
            code: 0,
            said: None,
        }),
        (4, Version::V5) => Ok(Seen::Acknowledged {
            id: frame.id()?,
            code: frame.body.get(2).copied().unwrap_or(0),
            said: v5::said(frame),
        }),
        (9, _) => Ok(Seen::Granted {
            id: frame.id()?,
            codes: match version {
                Version::V3 => frame.body[2..].to_vec(),
                Version::V5 => behind_properties(&frame.body[2..])?.to_vec(),
            },
        }),
        (13, _) => Ok(Seen::Ponged),
        (14, Version::V5) => {
            let code = frame.body.first().copied().unwrap_or(0);
            let said = v5::said(frame);
            Ok(Seen::Over(symptom::reason("DISCONNECT", code, said.as_deref())))
        }
        (kind, _) => Err(format!("a packet of type {kind}")),
    }
}

fn connack(version: Version, frame: &Frame) -> Result<Seen, String> {
    let code = *frame.body.get(1).ok_or("a CONNACK without its code")?;
    // Two bytes are all that 3.1.1 has; a broker that speaks nothing else answers so to MQTT 5, too.
    match (version, frame.body.len()) {
        (Version::V3, _) | (Version::V5, 2) if code != 0 => Ok(Seen::Over(symptom::connack_v3(code))),
        (Version::V3, _) => Ok(Seen::Connected(Terms::default())),
        (Version::V5, _) if code != 0 => {
            let said = v5::said(frame);
            Ok(Seen::Over(symptom::reason("CONNACK", code, said.as_deref())))
        }
        (Version::V5, _) => v5::terms(frame).map(Seen::Connected),
    }
}

/// What follows the properties at the beginning.
fn behind_properties(bytes: &[u8]) -> Result<&[u8], String> {
    let mut length = 0;
    for (at, byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let behind = bytes.get(1 + at + length..);
            return behind.ok_or_else(|| "properties longer than their packet".to_owned());
        }
    }
    Err("a packet without its properties".to_owned())
}

/// CONNECT.
pub(super) fn connect(options: &Options, out: &mut BytesMut) -> Result<(), String> {
    match options.version {
        Version::V3 => v3::connect(options, out),
        Version::V5 => v5::connect(options, out),
    }
}

/// SUBSCRIBE.
pub(super) fn subscribe(
    version: Version,
    id: u16,
    filters: &[(String, Qos)],
    out: &mut BytesMut,
) -> Result<(), String> {
    match version {
        Version::V3 => v3::subscribe(id, filters, out),
        Version::V5 => v5::subscribe(id, filters, out),
    }
}

/// PUBLISH; id 0 for QoS 0.
pub(super) fn publish(version: Version, id: u16, publish: Publish, out: &mut BytesMut) -> Result<(), String> {
    match version {
        Version::V3 => v3::publish(id, publish, out),
        Version::V5 => v5::publish(id, publish, out),
    }
}

/// PUBACK, the same in both versions: success needs no code.
pub(super) const fn acknowledge(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 0x02, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(version: Version, bytes: &[u8]) -> Result<Seen, String> {
        let frame = Frame::take(&mut BytesMut::from(bytes), 1024).unwrap().unwrap();
        read(version, &frame)
    }

    #[test]
    fn frames() {
        let check = |bytes: &[u8], expected: Result<Option<usize>, &str>| {
            let mut buffer = BytesMut::from(bytes);
            let found = Frame::take(&mut buffer, 200).map(|frame| frame.map(|frame| frame.body.len()));
            assert_eq!(found, expected.map_err(ToOwned::to_owned), "{bytes:?}");
        };
        check(&[], Ok(None));
        check(&[0x20], Ok(None));
        check(&[0x20, 0x02, 0x00], Ok(None));
        check(&[0x20, 0x02, 0x00, 0x00, 0xD0], Ok(Some(2)));
        check(&[0x30, 0x80], Ok(None));
        check(&[0x30, 0xC6, 0x01], Err("a packet of 201 bytes, 200 are the most"));
        check(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], Err("a length of more than four bytes"));
    }

    #[test]
    fn what_ends_a_connection() {
        for (version, bytes, class, text) in [
            (
                Version::V3,
                &[0x20, 2, 0, 5][..],
                Class::Denied,
                "CONNACK 5: not authorized",
            ),
            (
                Version::V3,
                &[0x20, 2, 0, 7],
                Class::Denied,
                "CONNACK 7: not authorized",
            ),
            (
                Version::V5,
                &[0x20, 2, 0, 1],
                Class::Protocol,
                "CONNACK 1: unacceptable protocol version",
            ),
            (
                Version::V5,
                &[0x20, 3, 0, 0x87, 0],
                Class::Denied,
                "CONNACK 0x87: not authorized",
            ),
            (
                Version::V5,
                &[0x20, 3, 0, 0x44, 0],
                Class::Protocol,
                "CONNACK 0x44: a code we do not know",
            ),
            (
                Version::V5,
                &[0xE0, 0],
                Class::Partition,
                "DISCONNECT 0x00: disconnected",
            ),
            (
                Version::V5,
                &[0xE0, 1, 0x8E],
                Class::Duplicate,
                "DISCONNECT 0x8e: session taken over",
            ),
            (
                Version::V5,
                &[0xE0, 7, 0x97, 5, 0x1F, 0, 2, b'n', b'o'],
                Class::Throttled,
                "DISCONNECT 0x97: quota exceeded (no)",
            ),
        ] {
            match seen(version, bytes).unwrap() {
                Seen::Over(symptom) => assert_eq!((symptom.class, &*symptom.text), (class, text)),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_does_not_end_it() {
        let terms = |version, bytes: &[u8]| match seen(version, bytes) {
            Ok(Seen::Connected(terms)) => terms,
            other => panic!("{other:?}"),
        };
        assert_eq!(terms(Version::V3, &[0x20, 2, 0, 0]), Terms::default());
        let properties = [0x20, 14, 0, 0, 11, 0x21, 0, 20, 0x27, 0, 0, 4, 0, 0x13, 0, 60];
        let expected = Terms {
            packet_bytes_max: Some(1024),
            inflight_max: Some(20),
            keep_alive_s: Some(60),
        };
        assert_eq!(terms(Version::V5, &properties), expected);
        for (version, bytes, expected) in [
            (Version::V3, &[0x40, 2, 0, 9][..], (9, 0, None)),
            (Version::V5, &[0x40, 2, 0, 9], (9, 0, None)),
            (Version::V5, &[0x40, 3, 0, 9, 0x10], (9, 0x10, None)),
            (
                Version::V5,
                &[0x40, 9, 0, 9, 0x87, 5, 0x1F, 0, 2, b'n', b'o'],
                (9, 0x87, Some("no")),
            ),
            (Version::V5, &[0x40, 4, 0, 9, 0x96, 0], (9, 0x96, None)),
        ] {
            match seen(version, bytes).unwrap() {
                Seen::Acknowledged { id, code, said } => assert_eq!((id, code, said.as_deref()), expected),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
        for (version, bytes) in [
            (Version::V3, &[0x90, 4, 0, 1, 1, 0x80][..]),
            (Version::V5, &[0x90, 5, 0, 1, 0, 1, 0x80]),
            (Version::V5, &[0x90, 10, 0, 1, 5, 0x1F, 0, 2, b'n', b'o', 1, 0x80]),
        ] {
            match seen(version, bytes).unwrap() {
                Seen::Granted { id, codes } => assert_eq!((id, codes), (1, vec![1, 0x80])),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_a_broker_never_sends() {
        for (version, bytes) in [
            (Version::V3, &[0x10, 2, 0, 0][..]),
            (Version::V3, &[0xE0, 0]),
            (Version::V5, &[0xF0, 2, 0x18, 0]),
            (Version::V5, &[0x20, 2, 0, 0]),
            (Version::V3, &[0x20, 1, 0]),
            (Version::V3, &[0x40, 1, 0]),
            (Version::V5, &[0x90, 3, 0, 1, 9]),
            (Version::V3, &[0x34, 5, 0, 1, b't', 0, 1]),
            (Version::V3, &[0x32, 5, 0, 1, b't', 0, 0]),
            (Version::V5, &[0x32, 5, 0, 9, b't', 0, 1]),
            (Version::V5, &[0x30, 4, 0, 1, 0xFF, 0]),
        ] {
            assert!(seen(version, bytes).is_err(), "{version:?} {bytes:02x?}");
        }
    }

    /// Damaged packets of every kind are errors or other packets, never a panic.
    #[test]
    fn mutations() {
        const ROUNDS: u64 = 200_000;
        let seeds: [&[u8]; 8] = [
            &[0x20, 14, 0, 0, 11, 0x21, 0, 20, 0x27, 0, 0, 4, 0, 0x13, 0, 60],
            &[0x32, 12, 0, 3, b'a', b'/', b'b', 0, 7, 3, 0x23, 0, 1, b'p'],
            &[
                0x32, 16, 0, 1, b'a', 0, 7, 10, 0x26, 0, 1, b'k', 0, 1, b'v', 0x0B, 0x80, 1,
            ],
            &[0x30, 14, 0, 1, b'a', 10, 0x02, 0, 0, 0, 9, 0x08, 0, 2, b'r', b't'],
            &[0x40, 9, 0, 9, 0x87, 5, 0x1F, 0, 2, b'n', b'o'],
            &[0x90, 10, 0, 1, 5, 0x1F, 0, 2, b'n', b'o', 1, 0x80],
            &[0xE0, 7, 0x97, 5, 0x1F, 0, 2, b'n', b'o'],
            &[0xD0, 0],
        ];
        let mut random = fastrand::Rng::with_seed(5);
        let mut understood = 0;
        for round in 0..ROUNDS {
            let mut bytes = seeds[random.usize(..seeds.len())].to_vec();
            for _ in 0..random.usize(0..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            if random.bool() {
                bytes.truncate(random.usize(..=bytes.len()));
            }
            let version = if round % 2 == 0 { Version::V5 } else { Version::V3 };
            if let Ok(Some(frame)) = Frame::take(&mut BytesMut::from(&*bytes), 64) {
                understood += u64::from(read(version, &frame).is_ok());
            }
        }
        assert!(understood > ROUNDS / 20, "{understood} of {ROUNDS}");
    }
}
