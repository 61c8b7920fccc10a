//! Packets of MQTT 5, by rumqttc.

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::{
    Error, QoS as RawQos,
    v5::{Connect, ConnectProperties, Filter, Login, Packet, Publish as RawPublish, PublishProperties, Subscribe},
};

use super::{
    Options,
    packet::{Frame, Seen, Terms},
};
use crate::{Publish, Qos, connection::EVENTS_MAX};

/// How long a broker keeps our session while we are away, in s.
const SESSION_S: u32 = 24 * 3600;

const fn qos(qos: Qos) -> RawQos {
    match qos {
        Qos::AtMostOnce => RawQos::AtMostOnce,
        Qos::AtLeastOnce => RawQos::AtLeastOnce,
    }
}

fn written(result: Result<usize, Error>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| error.to_string())
}

fn packet(frame: &Frame) -> Result<Packet, String> {
    Packet::read(&mut frame.buffer(), None).map_err(|error| error.to_string())
}

pub(super) fn connect(options: &Options, out: &mut BytesMut) -> Result<(), String> {
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = options.persistent.then_some(SESSION_S);
    properties.receive_maximum = Some(EVENTS_MAX as u16);
    properties.max_packet_size = Some(options.packet_bytes_max);
    let connect = Connect {
        keep_alive: options.keep_alive_s,
        client_id: options.client_id.clone(),
        clean_start: !options.persistent,
        properties: Some(properties),
    };
    let login = options
        .user
        .as_ref()
        .map(|(name, password)| Login::new(name.clone(), password.clone()));
    written(connect.write(&None, &login, out))
}

pub(super) fn subscribe(id: u16, filters: &[(String, Qos)], out: &mut BytesMut) -> Result<(), String> {
    let filters = filters.iter().map(|(filter, wanted)| Filter::new(filter, qos(*wanted)));
    let mut subscribe = Subscribe::new_many(filters, None);
    subscribe.pkid = id;
    written(subscribe.write(out))
}

pub(super) fn publish(id: u16, publish: Publish, out: &mut BytesMut) -> Result<(), String> {
    let properties = publish.expires.map(|expires| {
        // Whole seconds are all MQTT has, and 0 would be "already expired".
        let expires_s = expires.as_millis().div_ceil(1_000).max(1);
        PublishProperties {
            message_expiry_interval: Some(u32::try_from(expires_s).unwrap_or(u32::MAX)),
            ..PublishProperties::default()
        }
    });
    let mut raw = RawPublish::new(publish.topic, qos(publish.qos), publish.payload, properties);
    raw.pkid = id;
    written(raw.write(out))
}

pub(super) fn message(frame: &Frame) -> Result<Seen, String> {
    match packet(frame) {
        Ok(Packet::Publish(publish)) if publish.qos != RawQos::ExactlyOnce => Ok(Seen::Message {
            // We allow no aliases, so there is always a topic.
            topic: String::from_utf8(publish.topic.to_vec()).map_err(|error| format!("a topic: {error}"))?,
            payload: publish.payload,
            id: publish.pkid,
        }),
        Ok(_) => Err("a PUBLISH with a QoS that nobody asked for".to_owned()),
        Err(error) => Err(format!("PUBLISH: {error}")),
    }
}

pub(super) fn terms(frame: &Frame) -> Result<Terms, String> {
    match packet(frame) {
        Ok(Packet::ConnAck(ack)) => Ok(ack.properties.map_or_else(Terms::default, |properties| Terms {
            packet_bytes_max: properties.max_packet_size,
            inflight_max: properties.receive_max,
            keep_alive_s: properties.server_keep_alive,
        })),
        Ok(_) => Err("something else than CONNACK".to_owned()),
        Err(error) => Err(format!("CONNACK: {error}")),
    }
}

/// The reason string, if there is one that can be read.
pub(super) fn said(frame: &Frame) -> Option<String> {
    match packet(frame).ok()? {
        Packet::ConnAck(ack) => ack.properties?.reason_string,
        Packet::PubAck(ack) => ack.properties?.reason_string,
        Packet::Disconnect(disconnect) => disconnect.properties?.reason_string,
        _ => None,
    }
}
