//! CONNECT from bytes: the one packet whose version is not known yet, and the one strangers send.

use std::sync::Arc;

use mqtt_protocol_core::mqtt::ArcPayload;
use mqtt_protocol_core::mqtt::packet::{Property, v3_1_1, v5_0};

use crate::access::Protocol;
use crate::decode::{CONNECT, Violation, broken, carried, qos, text, whole};
use crate::message::{Message, Qos, Will};
use crate::reason;

/// CONNECT.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) protocol: Protocol,
    pub(crate) client_id: Box<str>,
    /// Clean session (3.1.1) or clean start (5).
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) username: Option<Box<str>>,
    pub(crate) password: Option<Box<[u8]>>,
    pub(crate) will: Option<Will>,
    /// 3.1.1: none for a clean session, as long as allowed otherwise.
    pub(crate) session_expiry_s: u32,
    /// Messages in flight the client takes.
    pub(crate) receive_max: u16,
    /// Topic aliases the client takes.
    pub(crate) topic_alias_max: u16,
    /// Bytes of a packet the client takes.
    pub(crate) packet_bytes_max: u32,
    /// The client wants enhanced authentication, which is not offered.
    pub(crate) enhanced_authentication: bool,
}

/// Why a CONNECT could not be read, and how to say so: CONNACK in a version the client is likely to understand, or nothing.
#[derive(Debug)]
pub(crate) struct ConnectViolation {
    pub(crate) violation: Violation,
    pub(crate) answer: Option<(Protocol, u8)>,
}

/// Read the first packet of a connection, whatever it is.
///
/// # Errors
/// Not a CONNECT, not MQTT, not a version served here, or malformed.
pub(crate) fn connect(first: u8, body: &[u8]) -> Result<Connect, ConnectViolation> {
    let silent = |violation| ConnectViolation {
        violation,
        answer: None,
    };
    if first != CONNECT << 4 {
        return Err(silent(Violation::protocol("first packet is not CONNECT")));
    }
    let level = match body {
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] => *level,
        // MQTT 3.1, which deserves the answer its successor defines.
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => *level,
        [_, _, _, ..] => return Err(silent(Violation::protocol("protocol name is not MQTT"))),
        _ => return Err(silent(Violation::malformed("CONNECT without a protocol name"))),
    };
    match level {
        4 => connect_v311(body).map_err(silent),
        5 => connect_v5(body).map_err(|violation| {
            let answer = Some((Protocol::V5, violation.code));
            ConnectViolation { violation, answer }
        }),
        _ => {
            let violation = Violation {
                what: "protocol version is neither 3.1.1 nor 5",
                code: reason::UNSUPPORTED_PROTOCOL_VERSION,
            };
            let answer = if level < 4 {
                (Protocol::V311, reason::V311_UNACCEPTABLE_PROTOCOL)
            } else {
                (Protocol::V5, reason::UNSUPPORTED_PROTOCOL_VERSION)
            };
            Err(ConnectViolation {
                violation,
                answer: Some(answer),
            })
        }
    }
}

/// Check the connect flags, which lie behind name and level. The caller has parsed the packet, so they exist.
fn will_flags(body: &[u8]) -> Result<Option<(Qos, bool)>, Violation> {
    const FLAGS_AT: usize = 7;
    let flags = body[FLAGS_AT];
    if flags & 1 != 0 {
        return Err(Violation::malformed("reserved connect flag"));
    }
    if flags & 4 == 0 {
        return if flags & 0x38 == 0 {
            Ok(None)
        } else {
            Err(Violation::malformed("will flags without a will"))
        };
    }
    Ok(Some((qos((flags >> 3) & 3)?, flags & 0x20 != 0)))
}

fn connect_v311(body: &[u8]) -> Result<Connect, Violation> {
    let packet = whole(v3_1_1::Connect::parse(body).map_err(broken("malformed CONNECT"))?, body)?;
    let will = match will_flags(body)? {
        Some((qos, retain)) => Some(Will {
            message: Message {
                topic: text(packet.will_topic().unwrap_or_default())?,
                payload: payload(packet.will_payload().unwrap_or_default()),
                qos,
                retain,
                properties: Vec::new(),
                expires_at: None,
            },
            expiry_s: None,
            delay_s: 0,
        }),
        None => None,
    };
    Ok(Connect {
        protocol: Protocol::V311,
        client_id: text(packet.client_id())?,
        clean_start: packet.clean_session(),
        keep_alive_s: packet.keep_alive(),
        username: packet.user_name().map(text).transpose()?,
        password: packet.password().map(Into::into),
        will,
        session_expiry_s: if packet.clean_session() { 0 } else { u32::MAX },
        receive_max: u16::MAX,
        topic_alias_max: 0,
        packet_bytes_max: u32::MAX,
        enhanced_authentication: false,
    })
}

fn connect_v5(body: &[u8]) -> Result<Connect, Violation> {
    let packet = whole(v5_0::Connect::parse(body).map_err(broken("malformed CONNECT"))?, body)?;
    let will = match will_flags(body)? {
        Some((qos, retain)) => {
            let carried = carried(packet.will_props().clone())?;
            Some(Will {
                message: Message {
                    topic: text(packet.will_topic().unwrap_or_default())?,
                    payload: payload(packet.will_payload().unwrap_or_default()),
                    qos,
                    retain,
                    properties: carried.forwarded,
                    expires_at: None,
                },
                expiry_s: carried.expiry_s,
                delay_s: carried.will_delay_s,
            })
        }
        None => None,
    };
    let mut connect = Connect {
        protocol: Protocol::V5,
        client_id: text(packet.client_id())?,
        clean_start: packet.clean_start(),
        keep_alive_s: packet.keep_alive(),
        username: packet.user_name().map(text).transpose()?,
        password: packet.password().map(Into::into),
        will,
        session_expiry_s: 0,
        receive_max: u16::MAX,
        topic_alias_max: 0,
        packet_bytes_max: u32::MAX,
        enhanced_authentication: false,
    };
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(value) => connect.session_expiry_s = value.val(),
            Property::ReceiveMaximum(value) => connect.receive_max = value.val(),
            Property::MaximumPacketSize(value) => connect.packet_bytes_max = value.val(),
            Property::TopicAliasMaximum(value) => connect.topic_alias_max = value.val(),
            Property::AuthenticationMethod(_) => connect.enhanced_authentication = true,
            // The rest asks for nothing that is done here.
            _ => {}
        }
    }
    if connect.receive_max == 0 || connect.packet_bytes_max == 0 {
        return Err(Violation::protocol("receive maximum or packet size of 0"));
    }
    Ok(connect)
}

fn payload(bytes: &[u8]) -> ArcPayload {
    ArcPayload::new(Arc::from(bytes), 0, bytes.len())
}
