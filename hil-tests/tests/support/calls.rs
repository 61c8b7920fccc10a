//! Callers of a cloud: MQTT clients that are not the gateway's, and a hub that only listens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mqtt_endpoint::{Access, ConnectDenied, ConnectRequest, Endpoint, Handle, Inbound, Limits, Qos};
use proto::{
    id::{GatewayId, Name},
    seal::PairSecret,
    topic,
};
use rumqttc::{AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use serde_json::Value;
use tokio::sync::mpsc;

/// How long anything may take here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing must come to count as nothing.
pub(crate) const NOTHING: Duration = Duration::from_millis(400);

/// The gateway of these tests.
#[must_use]
pub(crate) fn gateway() -> (GatewayId, Name, PairSecret) {
    (
        Name::new("gw-1").unwrap(),
        Name::new("campus").unwrap(),
        PairSecret([7; 32]),
    )
}

/// A hub that only listens, and says what it is told to say.
pub(crate) struct Ear {
    pub(crate) address: SocketAddr,
    pub(crate) said: mpsc::Receiver<(String, Vec<u8>)>,
    handle: Handle,
    _endpoint: Endpoint,
}

struct AnyGateway;

impl Access for AnyGateway {
    fn connect(&self, request: &ConnectRequest<'_>) -> Result<(), ConnectDenied> {
        let (gateway, _, secret) = gateway();
        let client = topic::parse_link_client(request.client_id);
        let named = client.is_some_and(|(id, _)| id == gateway) && request.username == Some(gateway.as_str());
        let password = secret.password();
        if named && request.password == Some(password.as_bytes()) {
            Ok(())
        } else {
            Err(ConnectDenied::BadCredentials)
        }
    }

    fn may_publish(&self, _: &str, topic: &str) -> bool {
        topic::parse_link_up(topic).is_some()
    }

    fn may_subscribe(&self, _: &str, _: &str) -> bool {
        true
    }

    fn intercepts(&self, topic: &str) -> bool {
        topic::parse_link_up(topic).is_some()
    }
}

impl Ear {
    pub(crate) async fn open() -> Self {
        let (inbound, mut events) = mpsc::channel(64);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = Endpoint::bind(listen, Limits::default(), Arc::new(AnyGateway), inbound)
            .await
            .unwrap();
        let (heard, said) = mpsc::channel(1024);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Inbound::Publish {
                    topic, payload, ack, ..
                } = event
                {
                    ack.accept();
                    if heard.send((topic.to_string(), payload.to_vec())).await.is_err() {
                        return;
                    }
                }
            }
        });
        Self {
            address: endpoint.local_addr(),
            said,
            handle: endpoint.handle(),
            _endpoint: endpoint,
        }
    }

    /// What a gateway said next.
    pub(crate) async fn hear(&mut self) -> (String, Vec<u8>) {
        tokio::time::timeout(PATIENCE, self.said.recv()).await.unwrap().unwrap()
    }

    /// Says something to a gateway.
    pub(crate) fn say(&self, topic: &str, payload: &[u8]) {
        self.handle.publish(topic, payload, Qos::AtLeastOnce, false).unwrap();
    }
}

/// A client of MQTT 3.1.1.
pub(crate) struct Caller {
    pub(crate) client: AsyncClient,
    /// Whether the cloud remembered it.
    pub(crate) session_present: bool,
    events: EventLoop,
    /// What came while something else was waited for.
    messages: Vec<(String, Vec<u8>)>,
    acknowledged: usize,
    next_id: u32,
}

/// How a login ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Refused(u8),
    Closed,
}

impl Caller {
    /// Logs in.
    pub(crate) async fn login(mut options: MqttOptions) -> Result<Self, Ended> {
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, events) = AsyncClient::new(options, 256);
        let mut caller = Self {
            client,
            session_present: false,
            events,
            messages: Vec::new(),
            acknowledged: 0,
            next_id: 0,
        };
        loop {
            match tokio::time::timeout(PATIENCE, caller.events.poll())
                .await
                .expect("an answer")
            {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    caller.session_present = ack.session_present;
                    return Ok(caller);
                }
                Ok(_) => {}
                Err(ConnectionError::ConnectionRefused(code)) => return Err(Ended::Refused(number(code))),
                Err(ConnectionError::MqttState(error)) if format!("{error:?}").contains("InvalidConnectReturnCode") => {
                    let text = format!("{error:?}");
                    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                    return Err(Ended::Refused(digits.parse().unwrap()));
                }
                Err(_) => return Err(Ended::Closed),
            }
        }
    }

    /// Subscribes; whether each filter was granted. `Err`: closed.
    pub(crate) async fn subscribe(&mut self, filters: &[&str]) -> Result<Vec<bool>, Ended> {
        let filters = filters
            .iter()
            .map(|filter| rumqttc::SubscribeFilter::new((*filter).to_owned(), QoS::AtLeastOnce));
        self.client.subscribe_many(filters).await.unwrap();
        self.until(|packet| match packet {
            Packet::SubAck(ack) => {
                let granted = ack.return_codes.iter();
                Some(
                    granted
                        .map(|code| *code != rumqttc::SubscribeReasonCode::Failure)
                        .collect(),
                )
            }
            _ => None,
        })
        .await
    }

    /// Works the connection until a packet is the right one. `Err`: it was closed.
    pub(crate) async fn until<T>(&mut self, wanted: impl Fn(&Packet) -> Option<T>) -> Result<T, Ended> {
        loop {
            match tokio::time::timeout(PATIENCE, self.events.poll())
                .await
                .expect("a packet")
            {
                Ok(Event::Incoming(packet)) => {
                    self.note(&packet);
                    if let Some(found) = wanted(&packet) {
                        return Ok(found);
                    }
                }
                Ok(Event::Outgoing(_)) => {}
                Err(_) => return Err(Ended::Closed),
            }
        }
    }

    /// The next message on a topic. `Err`: the connection was closed.
    pub(crate) async fn hear(&mut self, topic: &str) -> Result<Value, Ended> {
        if let Some(at) = self.messages.iter().position(|(on, _)| on == topic) {
            let (_, payload) = self.messages.remove(at);
            return Ok(serde_json::from_slice(&payload).unwrap());
        }
        let payload = self
            .until(|packet| match packet {
                Packet::Publish(publish) if publish.topic == topic => Some(publish.payload.to_vec()),
                _ => None,
            })
            .await?;
        self.messages.pop();
        Ok(serde_json::from_slice(&payload).unwrap())
    }

    /// Whether nothing comes on a topic for a while.
    pub(crate) async fn hears_nothing(&mut self, topic: &str) -> bool {
        tokio::time::timeout(NOTHING, self.hear(topic)).await.is_err()
    }

    /// Whether the cloud closes the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.until(|_| None::<()>).await.is_err()
    }

    /// Publishes; returns once it has left.
    pub(crate) async fn publish(&mut self, topic: &str, qos: QoS, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, qos, false, payload).await.unwrap();
        loop {
            match tokio::time::timeout(PATIENCE, self.events.poll())
                .await
                .expect("it leaves")
            {
                Ok(Event::Outgoing(Outgoing::Publish(_))) | Err(_) => return,
                Ok(Event::Incoming(packet)) => self.note(&packet),
                Ok(Event::Outgoing(_)) => {}
            }
        }
    }

    /// Waits until so many publishes are acknowledged.
    pub(crate) async fn acknowledged(&mut self, times: usize) {
        while self.acknowledged < times {
            let next = self.until(|packet| matches!(packet, Packet::PubAck(_)).then_some(()));
            next.await.unwrap();
        }
    }

    fn note(&mut self, packet: &Packet) {
        match packet {
            Packet::Publish(publish) => self.messages.push((publish.topic.clone(), publish.payload.to_vec())),
            Packet::PubAck(_) => self.acknowledged += 1,
            _ => {}
        }
    }

    /// A number for a request.
    pub(crate) fn id(&mut self) -> String {
        self.next_id += 1;
        self.next_id.to_string()
    }
}

const fn number(code: ConnectReturnCode) -> u8 {
    match code {
        ConnectReturnCode::Success => 0,
        ConnectReturnCode::RefusedProtocolVersion => 1,
        ConnectReturnCode::BadClientId => 2,
        ConnectReturnCode::ServiceUnavailable => 3,
        ConnectReturnCode::BadUserNamePassword => 4,
        ConnectReturnCode::NotAuthorized => 5,
    }
}
