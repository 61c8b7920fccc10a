//! From bytes to packets. mqtt-protocol-core reads the fields; this adds the checks it leaves out (flags of the fixed header,
//! packet id 0, NUL in strings, trailing bytes, duplicate identifiers) and makes one shape of both protocol versions.
//!
//! Only the packet layer of that crate is used. Its `Connection` answers a repeated QoS 2 PUBLISH by itself, which a withheld
//! PUBREC cannot allow, keeps a second copy of every message in flight, and counts the receive maximum of a resumed session
//! below zero.

use std::sync::Arc;

use mqtt_protocol_core::mqtt::ArcPayload;
use mqtt_protocol_core::mqtt::packet::{Properties, Property, RetainHandling, SubEntry, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use crate::access::Protocol;
use crate::inbound::DisconnectReason;
use crate::message::Qos;
use crate::reason;

/// A received packet, without the differences between the versions.
#[derive(Debug)]
pub(crate) enum Packet {
    Publish(Publish),
    Puback {
        id: u16,
    },
    Pubrec {
        id: u16,
        failed: bool,
    },
    Pubrel {
        id: u16,
    },
    Pubcomp {
        id: u16,
    },
    Subscribe {
        id: u16,
        identifier: Option<u32>,
        entries: Vec<Subscription>,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<Box<str>>,
    },
    Pingreq,
    Disconnect {
        with_will: bool,
        session_expiry_s: Option<u32>,
    },
    Auth,
}

/// PUBLISH.
#[derive(Debug)]
pub(crate) struct Publish {
    /// 0 for QoS 0, never 0 otherwise.
    pub(crate) id: u16,
    pub(crate) dup: bool,
    /// Empty if only the alias was sent.
    pub(crate) topic: Box<str>,
    pub(crate) alias: Option<u16>,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) payload: ArcPayload,
    pub(crate) properties: Vec<Property>,
    pub(crate) expiry_s: Option<u32>,
}

/// When retained messages are sent on SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendRetained {
    Always,
    IfNew,
    Never,
}

/// One entry of a SUBSCRIBE.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) filter: Box<str>,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) send_retained: SendRetained,
}

/// Bytes that are not MQTT as allowed here, with the MQTT 5 reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) what: &'static str,
    pub(crate) code: u8,
}

impl Violation {
    pub(crate) fn malformed(what: &'static str) -> Violation {
        Violation {
            what,
            code: reason::MALFORMED_PACKET,
        }
    }

    pub(crate) fn protocol(what: &'static str) -> Violation {
        Violation {
            what,
            code: reason::PROTOCOL_ERROR,
        }
    }

    /// The reason as told to the application.
    pub(crate) fn as_disconnect(self) -> DisconnectReason {
        match self.code {
            reason::PACKET_TOO_LARGE => DisconnectReason::PacketTooLarge,
            reason::RECEIVE_MAXIMUM_EXCEEDED => DisconnectReason::ReceiveMaximumExceeded,
            _ => DisconnectReason::ProtocolViolation(self.what),
        }
    }
}

/// One packet at the start of a buffer: its first byte, and where its body lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) body: std::ops::Range<usize>,
}

/// Find the packet at the start of `bytes`; `None` if more bytes are needed.
///
/// # Errors
/// A length that is malformed or above `bytes_max`, as soon as it can be read: before anything is kept for it.
pub(crate) fn frame(bytes: &[u8], bytes_max: u32) -> Result<Option<Frame>, Violation> {
    /// Bytes of the longest length field.
    const LENGTH_BYTES_MAX: usize = 4;
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let mut length = 0usize;
    for (at, byte) in rest.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let start = 2 + at;
            let end = start + length;
            if end > bytes_max as usize {
                return Err(Violation {
                    what: "packet too large",
                    code: reason::PACKET_TOO_LARGE,
                });
            }
            return Ok((bytes.len() >= end).then_some(Frame {
                first,
                body: start..end,
            }));
        }
    }
    if rest.len() >= LENGTH_BYTES_MAX {
        Err(Violation::malformed("length field of five bytes"))
    } else {
        Ok(None)
    }
}

/// The type of CONNECT, as in the upper half of the first byte.
pub(crate) const CONNECT: u8 = 1;

/// Read the body of a packet from a client whose protocol is known.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn packet(protocol: Protocol, first: u8, body: &[u8]) -> Result<Packet, Violation> {
    let (kind, flags) = (first >> 4, first & 0x0F);
    let flags_expected = match kind {
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags != flags_expected {
        return Err(Violation::malformed("reserved flags of the fixed header"));
    }
    match (kind, protocol) {
        (3, _) => publish(protocol, flags, body),
        (4..=7, _) => acknowledgement(protocol, kind, body),
        (8, _) => subscribe(protocol, body),
        (10, _) => unsubscribe(protocol, body),
        (12, _) if body.is_empty() => Ok(Packet::Pingreq),
        (12, _) => Err(Violation::malformed("PINGREQ with a body")),
        (14, _) => disconnect(protocol, body),
        (15, Protocol::V5) => Ok(Packet::Auth),
        (CONNECT, _) => Err(Violation::protocol("second CONNECT")),
        _ => Err(Violation::protocol("packet type a client does not send")),
    }
}

pub(crate) fn broken(what: &'static str) -> impl Fn(MqttError) -> Violation {
    move |error| Violation {
        what,
        code: u8::try_from(error as u16).unwrap_or(reason::MALFORMED_PACKET),
    }
}

pub(crate) fn whole<T>((packet, read): (T, usize), body: &[u8]) -> Result<T, Violation> {
    if read == body.len() {
        Ok(packet)
    } else {
        Err(Violation::malformed("bytes after the end of the packet"))
    }
}

pub(crate) fn text(value: &str) -> Result<Box<str>, Violation> {
    if value.contains('\0') {
        Err(Violation::malformed("NUL in a string"))
    } else {
        Ok(value.into())
    }
}

fn packet_id(id: u16) -> Result<u16, Violation> {
    if id == 0 {
        Err(Violation::protocol("packet id 0"))
    } else {
        Ok(id)
    }
}

pub(crate) fn qos(bits: u8) -> Result<Qos, Violation> {
    match bits {
        0 => Ok(Qos::AtMostOnce),
        1 => Ok(Qos::AtLeastOnce),
        2 => Ok(Qos::ExactlyOnce),
        _ => Err(Violation::malformed("QoS 3")),
    }
}

fn publish(protocol: Protocol, flags: u8, body: &[u8]) -> Result<Packet, Violation> {
    let error = broken("malformed PUBLISH");
    let (id, topic, payload, properties) = match protocol {
        Protocol::V311 => {
            let (packet, _) = v3_1_1::Publish::parse(flags, Arc::from(body)).map_err(error)?;
            (
                packet.packet_id(),
                text(packet.topic_name())?,
                packet.payload().clone(),
                Properties::new(),
            )
        }
        Protocol::V5 => {
            let (packet, _) = v5_0::Publish::parse(flags, Arc::from(body)).map_err(error)?;
            let properties = packet.props().clone();
            (
                packet.packet_id(),
                text(packet.topic_name())?,
                packet.payload().clone(),
                properties,
            )
        }
    };
    let qos = qos((flags >> 1) & 3)?;
    let dup = flags & 8 != 0;
    let id = match qos {
        Qos::AtMostOnce if dup => return Err(Violation::malformed("DUP with QoS 0")),
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce | Qos::ExactlyOnce => packet_id(id.unwrap_or(0))?,
    };
    let carried = carried(properties)?;
    Ok(Packet::Publish(Publish {
        id,
        dup,
        topic,
        alias: carried.alias,
        qos,
        retain: flags & 1 != 0,
        payload,
        properties: carried.forwarded,
        expiry_s: carried.expiry_s,
    }))
}

/// The properties of a PUBLISH or a will, sorted by who they are for.
#[derive(Default)]
pub(crate) struct Carried {
    pub(crate) forwarded: Vec<Property>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) alias: Option<u16>,
    pub(crate) will_delay_s: u32,
}

pub(crate) fn carried(properties: Properties) -> Result<Carried, Violation> {
    let mut carried = Carried::default();
    for property in properties {
        match property {
            Property::MessageExpiryInterval(expiry) => carried.expiry_s = Some(expiry.val()),
            Property::TopicAlias(alias) => carried.alias = Some(alias.val()),
            Property::WillDelayInterval(delay) => carried.will_delay_s = delay.val(),
            Property::SubscriptionIdentifier(_) => {
                return Err(Violation::protocol("subscription identifier from a client"));
            }
            Property::ResponseTopic(topic) if topic.val().contains(['+', '#', '\0']) => {
                return Err(Violation::protocol("response topic with a wildcard"));
            }
            other => carried.forwarded.push(other),
        }
    }
    Ok(carried)
}

fn acknowledgement(protocol: Protocol, kind: u8, body: &[u8]) -> Result<Packet, Violation> {
    // A reason code of 0x80 and above is a failure; without one the packet says success.
    let failed = match protocol {
        Protocol::V311 => body.len() != 2,
        Protocol::V5 => body.get(2).is_some_and(|code| *code >= 0x80),
    };
    if protocol == Protocol::V311 && failed {
        return Err(Violation::malformed("acknowledgement that is not two bytes"));
    }
    let id = match kind {
        4 if protocol == Protocol::V5 => {
            whole(v5_0::Puback::parse(body).map_err(broken("malformed PUBACK"))?, body)?.packet_id()
        }
        5 if protocol == Protocol::V5 => {
            whole(v5_0::Pubrec::parse(body).map_err(broken("malformed PUBREC"))?, body)?.packet_id()
        }
        6 if protocol == Protocol::V5 => {
            whole(v5_0::Pubrel::parse(body).map_err(broken("malformed PUBREL"))?, body)?.packet_id()
        }
        7 if protocol == Protocol::V5 => {
            whole(v5_0::Pubcomp::parse(body).map_err(broken("malformed PUBCOMP"))?, body)?.packet_id()
        }
        _ => u16::from_be_bytes([body[0], body[1]]),
    };
    let id = packet_id(id)?;
    Ok(match kind {
        4 => Packet::Puback { id },
        5 => Packet::Pubrec { id, failed },
        6 => Packet::Pubrel { id },
        _ => Packet::Pubcomp { id },
    })
}

fn subscribe(protocol: Protocol, body: &[u8]) -> Result<Packet, Violation> {
    let error = broken("malformed SUBSCRIBE");
    let (id, entries, properties) = match protocol {
        Protocol::V311 => {
            let packet = whole(v3_1_1::Subscribe::parse(body).map_err(error)?, body)?;
            (packet.packet_id(), packet.entries().clone(), Properties::new())
        }
        Protocol::V5 => {
            let packet = whole(v5_0::Subscribe::parse(body).map_err(error)?, body)?;
            (packet.packet_id(), packet.entries().clone(), packet.props().clone())
        }
    };
    let mut identifier = None;
    for property in properties {
        if let Property::SubscriptionIdentifier(value) = property
            && identifier.replace(value.val()).is_some()
        {
            return Err(Violation::protocol("two subscription identifiers"));
        }
    }
    let entries = entries
        .iter()
        .map(|entry| subscription(protocol, entry))
        .collect::<Result<_, _>>()?;
    Ok(Packet::Subscribe {
        id: packet_id(id)?,
        identifier,
        entries,
    })
}

fn subscription(protocol: Protocol, entry: &SubEntry) -> Result<Subscription, Violation> {
    let options = entry.sub_opts();
    if protocol == Protocol::V311 && options.to_buffer()[0] & !3 != 0 {
        return Err(Violation::malformed("reserved bits of a subscription"));
    }
    let shared = entry.topic_filter().starts_with("$share/");
    if shared && options.nl() {
        return Err(Violation::protocol("no local on a shared subscription"));
    }
    Ok(Subscription {
        filter: text(entry.topic_filter())?,
        qos: qos(options.qos() as u8)?,
        no_local: options.nl(),
        retain_as_published: options.rap(),
        send_retained: match options.rh() {
            RetainHandling::SendRetained => SendRetained::Always,
            RetainHandling::SendRetainedIfNotExists => SendRetained::IfNew,
            RetainHandling::DoNotSendRetained => SendRetained::Never,
        },
    })
}

fn unsubscribe(protocol: Protocol, body: &[u8]) -> Result<Packet, Violation> {
    let error = broken("malformed UNSUBSCRIBE");
    let (id, filters) = match protocol {
        Protocol::V311 => {
            let packet = whole(v3_1_1::Unsubscribe::parse(body).map_err(error)?, body)?;
            (
                packet.packet_id(),
                packet
                    .entries()
                    .iter()
                    .map(|e| text(e.as_str()))
                    .collect::<Result<_, _>>()?,
            )
        }
        Protocol::V5 => {
            let packet = whole(v5_0::Unsubscribe::parse(body).map_err(error)?, body)?;
            (
                packet.packet_id(),
                packet
                    .entries()
                    .iter()
                    .map(|e| text(e.as_str()))
                    .collect::<Result<_, _>>()?,
            )
        }
    };
    Ok(Packet::Unsubscribe {
        id: packet_id(id)?,
        filters,
    })
}

fn disconnect(protocol: Protocol, body: &[u8]) -> Result<Packet, Violation> {
    /// MQTT 5: "disconnect with will message".
    const WITH_WILL: u8 = 0x04;
    match protocol {
        Protocol::V311 if body.is_empty() => Ok(Packet::Disconnect {
            with_will: false,
            session_expiry_s: None,
        }),
        Protocol::V311 => Err(Violation::malformed("DISCONNECT with a body")),
        Protocol::V5 => {
            let packet = whole(
                v5_0::Disconnect::parse(body).map_err(broken("malformed DISCONNECT"))?,
                body,
            )?;
            let session_expiry_s = packet.props().iter().flatten().find_map(|property| match property {
                Property::SessionExpiryInterval(value) => Some(value.val()),
                _ => None,
            });
            Ok(Packet::Disconnect {
                with_will: body.first() == Some(&WITH_WILL),
                session_expiry_s,
            })
        }
    }
}
