//! MQTT 3.1.1 and 5.0 (OASIS) as a vendor's broker reads and writes it: what a client may send, taken apart, and what is
//! sent to it. A vendor's broker is not a right one - it answers codes the standard does not know, closes where it should
//! answer, stays silent - so packets are made here one by one and nobody keeps a protocol's promises for them.

use crate::mqtt_wire::{packet, varint};

/// The property of a session's life in a CONNECT.
const SESSION_EXPIRY: u8 = 0x11;
/// The property of an alias in a PUBLISH.
const TOPIC_ALIAS: u8 = 0x23;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect(Connect),
    Publish(Publish),
    Puback(u16),
    Subscribe { id: u16, filters: Vec<(String, u8)> },
    Unsubscribe { id: u16, filters: Vec<String> },
    Ping,
    Disconnect,
}

/// CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    /// 4: 3.1.1, 5: 5.0.
    pub(crate) version: u8,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    /// How long the session is to be kept, in s; 3.1.1: for ever unless clean.
    pub(crate) session_s: u32,
}

impl Connect {
    /// The password as text; empty if there is none.
    pub(crate) fn password(&self) -> &str {
        let bytes = self.password.as_deref().unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    pub(crate) fn user(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }
}

/// PUBLISH, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    /// Zero for QoS 0.
    pub(crate) id: u16,
    pub(crate) payload: Vec<u8>,
}

/// Why bytes are no packet of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

struct Reader<'a>(&'a [u8]);

type Read<T> = Result<T, Malformed>;

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed("it ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    fn short(&mut self) -> Read<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.short()?;
        self.take(usize::from(len))
    }

    fn text(&mut self) -> Read<String> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// The properties of an MQTT 5 packet; empty for 3.1.1.
    fn properties(&mut self, version: u8) -> Read<Self> {
        if version < 5 {
            return Ok(Reader(&[]));
        }
        let (len, digits) = varint(self.0).ok_or(Malformed("the length of its properties is damaged"))?;
        self.take(digits)?;
        Ok(Reader(self.take(len)?))
    }

    /// The value of a four-byte or two-byte property, skipping the others.
    fn number(mut self, wanted: u8) -> Read<Option<u32>> {
        while !self.0.is_empty() {
            let key = self.byte()?;
            let value = match key {
                // One byte.
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => u32::from(self.byte()?),
                // Two bytes.
                0x13 | 0x21 | 0x22 | TOPIC_ALIAS => u32::from(self.short()?),
                // Four bytes.
                0x02 | SESSION_EXPIRY | 0x18 | 0x27 => {
                    let bytes = self.take(4)?;
                    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
                }
                // A variable byte integer.
                0x0b => {
                    let (value, digits) = varint(self.0).ok_or(Malformed("a property is damaged"))?;
                    self.take(digits)?;
                    value as u32
                }
                // A pair of texts.
                0x26 => {
                    self.bytes()?;
                    self.bytes()?;
                    0
                }
                // A text or bytes.
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
                    self.bytes()?;
                    0
                }
                _ => return Err(Malformed("a property that MQTT 5 does not have")),
            };
            if key == wanted {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

impl Packet {
    /// Takes a whole packet of a client apart, which speaks `version` if it has said so already.
    ///
    /// # Errors
    /// What is wrong with it; a broker closes.
    pub(crate) fn parse(bytes: &[u8], version: u8) -> Read<Self> {
        let first = *bytes.first().ok_or(Malformed("it is empty"))?;
        let (_, digits) = varint(bytes.get(1..).unwrap_or_default()).ok_or(Malformed("its length is damaged"))?;
        let mut rest = Reader(bytes.get(1 + digits..).unwrap_or_default());
        match first >> 4 {
            1 => connect(&mut rest).map(Self::Connect),
            3 => publish(first, &mut rest, version).map(Self::Publish),
            4 => rest.short().map(Self::Puback),
            8 => {
                let id = rest.short()?;
                rest.properties(version)?;
                let mut filters = Vec::new();
                while !rest.0.is_empty() {
                    let filter = rest.text()?;
                    filters.push((filter, rest.byte()? & 3));
                }
                Ok(Self::Subscribe { id, filters })
            }
            10 => {
                let id = rest.short()?;
                rest.properties(version)?;
                let mut filters = Vec::new();
                while !rest.0.is_empty() {
                    filters.push(rest.text()?);
                }
                Ok(Self::Unsubscribe { id, filters })
            }
            12 => Ok(Self::Ping),
            14 => Ok(Self::Disconnect),
            _ => Err(Malformed("a packet that no client with QoS 0 and 1 sends")),
        }
    }
}

fn connect(rest: &mut Reader<'_>) -> Read<Connect> {
    let name = rest.text()?;
    let version = rest.byte()?;
    if !(name == "MQTT" && matches!(version, 4 | 5)) {
        return Err(Malformed("neither MQTT 3.1.1 nor 5"));
    }
    let flags = rest.byte()?;
    let has = |bit: u8| flags & bit != 0;
    let keep_alive_s = rest.short()?;
    let asked_s = rest.properties(version)?.number(SESSION_EXPIRY)?;
    let client_id = rest.text()?;
    if has(0x04) {
        rest.properties(version)?;
        rest.text()?;
        rest.bytes()?;
    }
    let user = has(0x80).then(|| rest.text()).transpose()?;
    let password = has(0x40).then(|| rest.bytes().map(<[u8]>::to_vec)).transpose()?;
    let clean = has(0x02);
    let session_s = match version {
        5 => asked_s.unwrap_or(0),
        _ if clean => 0,
        _ => u32::MAX,
    };
    Ok(Connect {
        version,
        client_id,
        clean,
        keep_alive_s,
        user,
        password,
        session_s,
    })
}

fn publish(first: u8, rest: &mut Reader<'_>, version: u8) -> Read<Publish> {
    let qos = (first >> 1) & 3;
    let topic = rest.text()?;
    let id = if qos == 0 { 0 } else { rest.short()? };
    let alias = rest.properties(version)?.number(TOPIC_ALIAS)?;
    if alias.is_some() || topic.is_empty() {
        return Err(Malformed("a topic alias, of which none was offered"));
    }
    let payload = rest.0.to_vec();
    Ok(Publish {
        topic,
        qos,
        id,
        payload,
    })
}

/// CONNACK; `properties` are encoded ones, for MQTT 5.
pub(crate) fn connack(version: u8, present: bool, code: u8, properties: &[u8]) -> Vec<u8> {
    let mut body = vec![u8::from(present), code];
    if version == 5 {
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
    }
    packet(0x20, &body)
}

/// PUBACK; 3.1.1 has no code.
pub(crate) fn puback(version: u8, id: u16, code: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 && code != 0 {
        body.push(code);
    }
    packet(0x40, &body)
}

/// SUBACK.
pub(crate) fn suback(version: u8, id: u16, codes: &[u8]) -> Vec<u8> {
    acknowledgement(0x90, version, id, codes)
}

/// UNSUBACK; 3.1.1 has no codes.
pub(crate) fn unsuback(version: u8, id: u16, filters: usize) -> Vec<u8> {
    let codes = vec![0; if version == 5 { filters } else { 0 }];
    acknowledgement(0xb0, version, id, &codes)
}

fn acknowledgement(first: u8, version: u8, id: u16, codes: &[u8]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    body.extend_from_slice(codes);
    packet(first, &body)
}

/// PUBLISH to a client.
pub(crate) fn delivery(version: u8, publish: &Publish, again: bool) -> Vec<u8> {
    let mut body = (publish.topic.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(publish.topic.as_bytes());
    if publish.qos > 0 {
        body.extend_from_slice(&publish.id.to_be_bytes());
    }
    if version == 5 {
        body.push(0);
    }
    body.extend_from_slice(&publish.payload);
    packet(0x30 | (publish.qos << 1) | (u8::from(again) << 3), &body)
}

/// PINGRESP.
pub(crate) fn pong() -> Vec<u8> {
    vec![0xd0, 0]
}

/// DISCONNECT with a reason: MQTT 5 only, a 3.1.1 server just closes.
pub(crate) fn disconnect(version: u8, code: u8) -> Vec<u8> {
    if version == 5 {
        vec![0xe0, 2, code, 0]
    } else {
        Vec::new()
    }
}

/// Whether a topic is one of a filter's.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    // "$" topics are not everybody's.
    if topic.starts_with('$') != filter.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            (_, Some(_)) => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn connects_of_both_versions_are_read() {
        for version in [4, 5] {
            let mut body = [&text("MQTT")[..], &[version, 0xc2 | 0x04, 0, 60]].concat();
            if version == 5 {
                body.extend([5, SESSION_EXPIRY, 0, 0, 1, 0]);
            }
            body.extend(text("gw"));
            if version == 5 {
                body.push(0);
            }
            body.extend([text("will"), text("gone"), text("name"), text("secret")].concat());
            let read = Packet::parse(&packet(0x10, &body), 0).unwrap();
            let expected = Connect {
                version,
                client_id: "gw".into(),
                clean: true,
                keep_alive_s: 60,
                user: Some("name".into()),
                password: Some(b"secret".to_vec()),
                session_s: if version == 5 { 256 } else { 0 },
            };
            assert_eq!(read, Packet::Connect(expected));
            for end in 0..body.len() {
                assert!(Packet::parse(&packet(0x10, &body[..end]), 0).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn what_is_delivered_is_read() {
        for version in [4, 5] {
            for qos in [0, 1] {
                let publish = Publish {
                    topic: "a/b".into(),
                    qos,
                    id: u16::from(qos) * 7,
                    payload: vec![1, 2, 3],
                };
                let read = Packet::parse(&delivery(version, &publish, qos == 1), version).unwrap();
                assert_eq!(read, Packet::Publish(publish));
            }
        }
    }

    #[test]
    fn filters() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/+", "a/b", true),
            ("a/+", "a/b/c", false),
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("a/b/c", "a/b", false),
            ("#", "$aws/x", false),
            ("$aws/#", "$aws/x", true),
            ("/sys/+/x", "/sys/a/x", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}
