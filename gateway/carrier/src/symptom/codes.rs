//! What MQTT's codes mean. Names and numbers are those of OASIS MQTT 3.1.1 (3.2.2.3) and 5.0 (2.4); what they mean for
//! us is our table of failure classes.

use super::{Class, Symptom};

/// A code, what it means, what HTTP would call it, and its name.
type Row = (u8, Class, u16, &'static str);

/// CONNACK of MQTT 3.1.1. AWS answers 7 where others answer 5.
const CONNACK_V3: [Row; 6] = [
    (1, Class::Protocol, 400, "unacceptable protocol version"),
    (2, Class::Protocol, 400, "client id rejected"),
    (3, Class::Broken, 503, "server unavailable"),
    (4, Class::Denied, 401, "bad user name or password"),
    (5, Class::Denied, 403, "not authorized"),
    (7, Class::Denied, 403, "not authorized"),
];

/// Reason codes of MQTT 5, whichever packet they come in.
const REASONS: [Row; 38] = [
    (0x00, Class::Partition, 0, "disconnected"),
    (0x10, Class::HalfDead, 503, "no matching subscribers"),
    (0x80, Class::Broken, 500, "unspecified error"),
    (0x81, Class::Protocol, 400, "malformed packet"),
    (0x82, Class::Protocol, 400, "protocol error"),
    (0x83, Class::Broken, 500, "implementation specific error"),
    (0x84, Class::Protocol, 400, "unsupported protocol version"),
    (0x85, Class::Protocol, 400, "client id not valid"),
    (0x86, Class::Denied, 401, "bad user name or password"),
    (0x87, Class::Denied, 403, "not authorized"),
    (0x88, Class::Broken, 503, "server unavailable"),
    (0x89, Class::Broken, 503, "server busy"),
    // EMQX bans who reconnects too often: a matter of pace.
    (0x8A, Class::Throttled, 429, "banned"),
    (0x8B, Class::Broken, 503, "server shutting down"),
    (0x8C, Class::Denied, 401, "bad authentication method"),
    (0x8D, Class::Partition, 408, "keep-alive timeout"),
    (0x8E, Class::Duplicate, 409, "session taken over"),
    (0x8F, Class::Protocol, 400, "topic filter invalid"),
    (0x90, Class::Protocol, 400, "topic name invalid"),
    (0x91, Class::Protocol, 400, "packet id in use"),
    (0x92, Class::Protocol, 400, "packet id not found"),
    (0x93, Class::Throttled, 429, "receive maximum exceeded"),
    (0x94, Class::Protocol, 400, "topic alias invalid"),
    (0x95, Class::Protocol, 413, "packet too large"),
    (0x96, Class::Throttled, 429, "message rate too high"),
    (0x97, Class::Throttled, 429, "quota exceeded"),
    // Nobody signs it: a claim like any other.
    (0x98, Class::Claimed, 403, "administrative action"),
    (0x99, Class::Protocol, 400, "payload format invalid"),
    (0x9A, Class::Protocol, 400, "retain not supported"),
    (0x9B, Class::Protocol, 400, "QoS not supported"),
    // Where to go instead is said by nobody who signs, so it is not followed.
    (0x9C, Class::Broken, 503, "use another server"),
    (0x9D, Class::Broken, 503, "server moved"),
    (0x9E, Class::Protocol, 400, "shared subscriptions not supported"),
    (0x9F, Class::Throttled, 429, "connection rate exceeded"),
    (0xA0, Class::Partition, 408, "maximum connect time"),
    (0xA1, Class::Protocol, 400, "subscription identifiers not supported"),
    (0xA2, Class::Protocol, 400, "wildcard subscriptions not supported"),
    (0x04, Class::Partition, 0, "disconnected with will"),
];

fn find(table: &[Row], code: u8) -> (Class, u16, &'static str) {
    table
        .iter()
        .find(|row| row.0 == code)
        .map_or((Class::Protocol, 400, "a code we do not know"), |row| {
            (row.1, row.2, row.3)
        })
}

/// A CONNACK of MQTT 3.1.1 that does not let us in.
#[must_use]
pub fn connack_v3(code: u8) -> Symptom {
    let (class, http, name) = find(&CONNACK_V3, code);
    Symptom::new(class, http, format!("CONNACK {code}: {name}"))
}

/// A reason code of MQTT 5 that is not plain success: in which packet it came, and what the cloud said to it.
#[must_use]
pub fn reason(packet: &str, code: u8, said: Option<&str>) -> Symptom {
    let (class, http, name) = find(&REASONS, code);
    let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
    Symptom::new(class, http, format!("{packet} {code:#04x}: {name}{said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_table_of_classes_says() {
        let check = |symptom: Symptom, class: Class, code: u16| {
            assert_eq!((symptom.class, symptom.code), (class, code), "{symptom}");
        };
        for code in [4, 5, 7] {
            check(connack_v3(code), Class::Denied, if code == 4 { 401 } else { 403 });
        }
        check(connack_v3(3), Class::Broken, 503);
        for code in [1, 2, 6, 8, 200] {
            check(connack_v3(code), Class::Protocol, 400);
        }
        for (codes, class) in [
            (&[0x86, 0x87, 0x8C][..], Class::Denied),
            (&[0x80, 0x83, 0x88, 0x89, 0x8B, 0x9C, 0x9D], Class::Broken),
            (&[0x8A, 0x93, 0x96, 0x97, 0x9F], Class::Throttled),
            (&[0x81, 0x82, 0x90, 0x95, 0x99], Class::Protocol),
            (&[0x8E], Class::Duplicate),
            (&[0x98], Class::Claimed),
            (&[0x10], Class::HalfDead),
            (&[0x8D, 0xA0, 0x00], Class::Partition),
            (&[0x42, 0xFF], Class::Protocol),
        ] {
            for code in codes {
                assert_eq!(reason("DISCONNECT", *code, None).class, class, "{code:#04x}");
            }
        }
    }

    #[test]
    fn a_symptom_names_the_packet_the_code_and_what_was_said() {
        let symptom = reason("DISCONNECT", 0x8E, Some("someone else"));
        assert_eq!(symptom.text, "DISCONNECT 0x8e: session taken over (someone else)");
        assert_eq!(connack_v3(5).text, "CONNACK 5: not authorized");
    }

    #[test]
    fn no_code_stands_twice() {
        for table in [&CONNACK_V3[..], &REASONS[..]] {
            for (at, row) in table.iter().enumerate() {
                assert!(table[at + 1..].iter().all(|other| other.0 != row.0), "{:#04x}", row.0);
            }
        }
    }
}
