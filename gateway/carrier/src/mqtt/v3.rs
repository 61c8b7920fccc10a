//! Packets of MQTT 3.1.1, by rumqttc.

use bytes::BytesMut;
use rumqttc::{Connect, Login, Packet, Publish as RawPublish, QoS as RawQos, Subscribe, SubscribeFilter, mqttbytes};

use super::{
    Options,
    packet::{Frame, Seen},
};
use crate::{Publish, Qos};

const fn qos(qos: Qos) -> RawQos {
    match qos {
        Qos::AtMostOnce => RawQos::AtMostOnce,
        Qos::AtLeastOnce => RawQos::AtLeastOnce,
    }
}

fn written(result: Result<usize, mqttbytes::Error>) -> Result<(), String> {
    result.map(|_| ()).map_err(|error| error.to_string())
}

pub(super) fn connect(options: &Options, out: &mut BytesMut) -> Result<(), String> {
    let mut connect = Connect::new(&options.client_id);
    connect.keep_alive = options.keep_alive_s;
    connect.clean_session = !options.persistent;
    connect.login = options
        .user
        .as_ref()
        .map(|(name, password)| Login::new(name.clone(), password.clone()));
    written(connect.write(out))
}

pub(super) fn subscribe(id: u16, filters: &[(String, Qos)], out: &mut BytesMut) -> Result<(), String> {
    let filters = filters.iter().map(|(filter, wanted)| SubscribeFilter {
        path: filter.clone(),
        qos: qos(*wanted),
    });
    let mut subscribe = Subscribe::new_many(filters);
    subscribe.pkid = id;
    written(subscribe.write(out))
}

pub(super) fn publish(id: u16, publish: Publish, out: &mut BytesMut) -> Result<(), String> {
    let mut raw = RawPublish::new(publish.topic, qos(publish.qos), publish.payload);
    raw.pkid = id;
    written(raw.write(out))
}

pub(super) fn message(frame: &Frame) -> Result<Seen, String> {
    match Packet::read(&mut frame.buffer(), frame.whole.len()) {
        Ok(Packet::Publish(publish)) if publish.qos != RawQos::ExactlyOnce => Ok(Seen::Message {
            topic: publish.topic,
            payload: publish.payload,
            id: publish.pkid,
        }),
        Ok(_) => Err("a PUBLISH with a QoS that nobody asked for".to_owned()),
        Err(error) => Err(format!("PUBLISH: {error}")),
    }
}
