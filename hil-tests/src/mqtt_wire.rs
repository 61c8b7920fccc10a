//! Just enough MQTT (OASIS 3.1.1 and 5.0, section 2) to tell packets apart and to speak in another's name.

const PUBLISH: u8 = 3;
/// Most digits of a variable byte integer.
const VARINT_BYTES_MAX: usize = 4;

/// Cuts a byte stream into packets.
#[derive(Debug, Default)]
pub(crate) struct Splitter(Vec<u8>);

impl Splitter {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// How long the packet will be that has begun to arrive, in bytes; `None`: its length is not here yet.
    pub(crate) fn coming(&self) -> Option<usize> {
        let (len, digits) = varint(self.0.get(1..)?)?;
        Some(1 + digits + len)
    }

    /// The next whole packet.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let (len, digits) = varint(self.0.get(1..)?)?;
        let end = 1 + digits + len;
        if self.0.len() < end {
            return None;
        }
        let rest = self.0.split_off(end);
        Some(std::mem::replace(&mut self.0, rest))
    }
}

/// A PUBLISH packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a str,
    /// None for QoS 0.
    pub(crate) packet_id: Option<u16>,
    pub(crate) payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// `None` if the packet is another one, or damaged.
    pub(crate) fn parse(packet: &'a [u8], version: u8) -> Option<Self> {
        let first = *packet.first()?;
        if first >> 4 != PUBLISH {
            return None;
        }
        let (_, digits) = varint(packet.get(1..)?)?;
        let rest = packet.get(1 + digits..)?;
        let (topic, mut rest) = string(rest)?;
        let packet_id = if first & 0b110 == 0 {
            None
        } else {
            let (id, behind) = rest.split_at_checked(2)?;
            rest = behind;
            Some(u16::from_be_bytes(id.try_into().ok()?))
        };
        if version == 5 {
            let (properties, digits) = varint(rest)?;
            rest = rest.get(digits + properties..)?;
        }
        Some(Self {
            topic,
            packet_id,
            payload: rest,
        })
    }
}

/// PUBLISH with QoS 0.
pub(crate) fn publish(topic: &str, payload: &[u8], version: u8) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    if version == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(PUBLISH << 4, &body)
}

/// The same PUBLISH with another payload; `None` if the packet is another one, or damaged.
pub(crate) fn with_payload(publish: &[u8], version: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let old = Publish::parse(publish, version)?.payload.len();
    let (_, digits) = varint(publish.get(1..)?)?;
    let head = publish.get(1 + digits..publish.len() - old)?;
    Some(packet(publish[0], &[head, payload].concat()))
}

/// A packet with its length in front.
#[must_use]
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut len = body.len();
    loop {
        let digit = (len % 128) as u8;
        len /= 128;
        packet.push(if len > 0 { digit | 0x80 } else { digit });
        if len == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// Value and number of digits.
pub(crate) fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

fn string(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_at_checked(2)?;
    let len = u16::from_be_bytes(len.try_into().ok()?);
    let (text, rest) = rest.split_at_checked(usize::from(len))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for version in [4, 5] {
            let message = publish("a/b", &[7; 300], version);
            let mut splitter = Splitter::default();
            splitter.add(&message[..100]);
            assert_eq!(splitter.next(), None);
            splitter.add(&message[100..]);
            splitter.add(&packet(0x40, &[0, 9]));
            let whole = splitter.next().unwrap();
            let parsed = Publish::parse(&whole, version).unwrap();
            assert_eq!(
                (parsed.topic, parsed.packet_id, parsed.payload),
                ("a/b", None, &[7; 300][..])
            );
            assert_eq!(splitter.next().unwrap(), packet(0x40, &[0, 9]));
            for len in [3, 100, 20_000] {
                let other = with_payload(&message, version, &vec![8; len]).unwrap();
                let parsed = Publish::parse(&other, version).unwrap();
                assert_eq!((parsed.topic, parsed.payload), ("a/b", &*vec![8; len]));
            }
        }
    }
}
