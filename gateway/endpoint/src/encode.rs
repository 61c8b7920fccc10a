//! From packets to bytes, appended to the connection's output. The fixed, tiny ones are written as they stand in the standard;
//! CONNACK and PUBLISH, which carry properties, through mqtt-protocol-core.

use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, MaximumPacketSize, MessageExpiryInterval, Properties, Property, Qos as WireQos,
    ReceiveMaximum, ServerKeepAlive, SessionExpiryInterval, SubscriptionIdentifier, TopicAlias, TopicAliasMaximum,
    v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use tokio::time::Instant;

use crate::access::Protocol;
use crate::message::{Delivery, Qos};
use crate::reason;

/// First bytes of the acknowledgements, flags included.
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xB0;

/// Append PUBACK, PUBREC, PUBREL or PUBCOMP. `code` is left out if it says success, and in 3.1.1, which has none.
pub(crate) fn acknowledgement(out: &mut Vec<u8>, protocol: Protocol, first: u8, id: u16, code: u8) {
    let [high, low] = id.to_be_bytes();
    if protocol == Protocol::V5 && code != reason::SUCCESS {
        out.extend_from_slice(&[first, 3, high, low, code]);
    } else {
        out.extend_from_slice(&[first, 2, high, low]);
    }
}

/// Append SUBACK with one code per filter.
pub(crate) fn suback(out: &mut Vec<u8>, protocol: Protocol, id: u16, codes: &[u8]) {
    answer(out, SUBACK, protocol, id, codes);
}

/// Append UNSUBACK; only MQTT 5 has codes in it.
pub(crate) fn unsuback(out: &mut Vec<u8>, protocol: Protocol, id: u16, codes: &[u8]) {
    let codes = if protocol == Protocol::V5 { codes } else { &[] };
    answer(out, UNSUBACK, protocol, id, codes);
}

fn answer(out: &mut Vec<u8>, first: u8, protocol: Protocol, id: u16, codes: &[u8]) {
    let properties: &[u8] = if protocol == Protocol::V5 { &[0] } else { &[] };
    out.push(first);
    remaining_length(out, 2 + properties.len() + codes.len());
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(properties);
    out.extend_from_slice(codes);
}

fn remaining_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Append PINGRESP.
pub(crate) fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xD0, 0]);
}

/// Append an MQTT 5 DISCONNECT. (In 3.1.1 a server has no such packet: it closes.)
pub(crate) fn disconnect(out: &mut Vec<u8>, code: u8) {
    out.extend_from_slice(&[0xE0, 1, code]);
}

/// Append a CONNACK that refuses.
pub(crate) fn connack_refused(out: &mut Vec<u8>, protocol: Protocol, code: u8) {
    match protocol {
        Protocol::V311 => out.extend_from_slice(&[0x20, 2, 0, code]),
        Protocol::V5 => out.extend_from_slice(&[0x20, 3, 0, code, 0]),
    }
}

/// What an accepted MQTT 5 client is told; `None` where what it asked for was granted.
#[derive(Debug)]
pub(crate) struct Granted<'a> {
    pub(crate) session_present: bool,
    pub(crate) assigned_client_id: Option<&'a str>,
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) keep_alive_s: Option<u16>,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) topic_alias_max: u16,
}

/// Append a CONNACK that accepts.
pub(crate) fn connack_accepted(out: &mut Vec<u8>, protocol: Protocol, granted: &Granted<'_>) {
    match protocol {
        Protocol::V311 => out.extend_from_slice(&[0x20, 2, u8::from(granted.session_present), 0]),
        Protocol::V5 => {
            let packet = connack_v5(granted).expect("limits and a client id that was read from a packet fit into one");
            out.extend_from_slice(&packet.to_continuous_buffer());
        }
    }
}

fn connack_v5(granted: &Granted<'_>) -> Result<v5_0::Connack, MqttError> {
    let mut properties = Properties::new();
    if let Some(seconds) = granted.session_expiry_s {
        properties.push(Property::SessionExpiryInterval(SessionExpiryInterval::new(seconds)?));
    }
    properties.push(Property::ReceiveMaximum(ReceiveMaximum::new(
        granted.receive_max.max(1),
    )?));
    properties.push(Property::MaximumPacketSize(MaximumPacketSize::new(
        granted.packet_bytes_max.max(1),
    )?));
    if let Some(client_id) = granted.assigned_client_id {
        properties.push(Property::AssignedClientIdentifier(AssignedClientIdentifier::new(
            client_id,
        )?));
    }
    properties.push(Property::TopicAliasMaximum(TopicAliasMaximum::new(
        granted.topic_alias_max,
    )?));
    if let Some(seconds) = granted.keep_alive_s {
        properties.push(Property::ServerKeepAlive(ServerKeepAlive::new(seconds)?));
    }
    v5_0::Connack::builder()
        .session_present(granted.session_present)
        .reason_code(mqtt_protocol_core::mqtt::result_code::ConnectReasonCode::Success)
        .props(properties)
        .build()
}

fn wire(qos: Qos) -> WireQos {
    match qos {
        Qos::AtMostOnce => WireQos::AtMostOnce,
        Qos::AtLeastOnce => WireQos::AtLeastOnce,
        Qos::ExactlyOnce => WireQos::ExactlyOnce,
    }
}

/// The client a connection sends to: what it takes, and which topics it has been given an alias for.
#[derive(Debug)]
pub(crate) struct Recipient {
    pub(crate) protocol: Protocol,
    /// Messages in flight.
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    /// Aliases it understands and we use; first come, first served, as a device hears few topics.
    pub(crate) topic_alias_max: u16,
    pub(crate) aliased: Vec<Box<str>>,
}

impl Recipient {
    /// The alias for a topic, and whether the client knows it already.
    fn alias(&self, topic: &str) -> Option<(u16, bool)> {
        match self.aliased.iter().position(|known| **known == *topic) {
            Some(at) => Some((at as u16 + 1, true)),
            None if self.aliased.len() < usize::from(self.topic_alias_max) => {
                Some((self.aliased.len() as u16 + 1, false))
            }
            None => None,
        }
    }
}

/// Append PUBLISH; `id` is ignored for QoS 0. False if the packet is larger than the client takes, and then nothing is appended.
pub(crate) fn publish(
    out: &mut Vec<u8>,
    to: &mut Recipient,
    delivery: &Delivery,
    id: u16,
    dup: bool,
    now: Instant,
) -> bool {
    const BUILT: &str = "a routed message has a valid topic, a packet id if it needs one, and properties of a PUBLISH";
    let message = &delivery.message;
    let id = (delivery.qos != Qos::AtMostOnce).then_some(id);
    match to.protocol {
        Protocol::V311 => {
            let packet = v3_1_1::Publish::builder()
                .topic_name(&*message.topic)
                .expect(BUILT)
                .qos(wire(delivery.qos))
                .dup(dup)
                .retain(delivery.retain)
                .packet_id(id)
                .payload(message.payload.clone())
                .build()
                .expect(BUILT);
            append(out, packet.size(), to.packet_bytes_max, &packet.to_buffers())
        }
        Protocol::V5 => {
            let alias = to.alias(&message.topic);
            let topic = if alias.is_some_and(|(_, known)| known) {
                ""
            } else {
                &*message.topic
            };
            let packet = v5_0::Publish::builder()
                .topic_name(topic)
                .expect(BUILT)
                .qos(wire(delivery.qos))
                .dup(dup)
                .retain(delivery.retain)
                .packet_id(id)
                .props(publish_properties(delivery, alias.map(|(alias, _)| alias), now))
                .payload(message.payload.clone())
                .build()
                .expect(BUILT);
            let appended = append(out, packet.size(), to.packet_bytes_max, &packet.to_buffers());
            if appended && alias.is_some_and(|(_, known)| !known) {
                to.aliased.push(message.topic.clone());
            }
            appended
        }
    }
}

fn append(out: &mut Vec<u8>, size: usize, packet_bytes_max: u32, parts: &[std::io::IoSlice<'_>]) -> bool {
    if size > packet_bytes_max as usize {
        return false;
    }
    out.reserve(size);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    true
}

fn publish_properties(delivery: &Delivery, alias: Option<u16>, now: Instant) -> Properties {
    let mut properties = delivery.message.properties.clone();
    properties.extend(
        alias
            .and_then(|alias| TopicAlias::new(alias).ok())
            .map(Property::TopicAlias),
    );
    if let Some(at) = delivery.message.expires_at {
        // What is left, rounded up, so that a message still worth sending is never sent with 0.
        let left_s = at.saturating_duration_since(now).as_millis().div_ceil(1000);
        let left_s = u32::try_from(left_s).unwrap_or(u32::MAX);
        properties.extend(MessageExpiryInterval::new(left_s).map(Property::MessageExpiryInterval));
    }
    for id in &delivery.subscription_ids {
        properties.extend(SubscriptionIdentifier::new(*id).map(Property::SubscriptionIdentifier));
    }
    properties
}
