//! An MQTT client connection: the only file that names rumqttc.
//!
//! What was learned the hard way about rumqttc 0.25: it may discard queued publishes when a session is lost, it has no
//! backoff, and it must be polled by a task of its own. So a [`Connection`] is used for one connection only, holds a
//! small window, and whoever owns it keeps what must not be lost and connects again after [`Backoff`].

use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    NetworkOptions,
    v5::{
        AsyncClient, Event as RawEvent, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{Filter, Packet, Publish, SubscribeReasonCode},
        },
    },
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::config::split_host_port;

/// Events waiting for their owner; beyond it the connection is not read.
const EVENTS_MAX: usize = 64;
/// Publishes waiting for the connection.
const REQUESTS_MAX: usize = 256;
/// A connection attempt is given up after so long, in s: TLS on a slow box included.
const CONNECT_S_MAX: u64 = 10;
/// How long a broker keeps our session while we are away, in s.
const SESSION_S: u32 = 24 * 3600;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// `host:port`, checked by the configuration.
    pub broker: String,
    /// MQTT client id.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// Keep-alive, in s.
    pub keep_alive_s: u16,
    /// Subscribed with QoS 1 as soon as the connection stands.
    pub filter: String,
    /// Whether the broker keeps messages for us while we are away.
    pub persistent: bool,
    /// Largest packet in either direction, in bytes.
    pub packet_bytes_max: u32,
}

/// What happened on a connection.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "messages are what passes most; a box each would cost an allocation"
)]
pub enum Event {
    /// Connected and subscribed.
    Up,
    /// A message; acknowledge it once it is safe.
    Message(Message),
    /// The connection is over; why.
    Down(String),
}

/// A received message.
#[derive(Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its bytes.
    pub payload: Bytes,
    /// To be accepted after commit.
    pub ack: Ack,
}

/// The promise to acknowledge one message.
#[derive(Debug)]
pub struct Ack {
    client: AsyncClient,
    publish: Publish,
}

impl Ack {
    /// The message is safe: PUBACK. If the connection is gone the broker sends the message again.
    pub fn accept(self) {
        if let Err(error) = self.client.try_ack(&self.publish) {
            tracing::debug!(%error, "a PUBACK was not sent; the broker will repeat the message");
        }
    }
}

/// Sends on a connection, from any task or thread.
#[derive(Clone, Debug)]
pub struct Sender(AsyncClient);

impl Sender {
    /// Queues a publish with QoS 1.
    ///
    /// # Errors
    /// If the window is full or the connection is gone; then nothing was queued.
    pub fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<(), String> {
        self.0
            .try_publish(topic, QoS::AtLeastOnce, false, payload)
            .map_err(|error| error.to_string())
    }

    /// Queues a publish with QoS 0: it arrives once or not at all, and takes nothing from the window.
    ///
    /// # Errors
    /// If the queue is full or the connection is gone; then nothing was queued.
    pub fn publish_once(&self, topic: &str, payload: Vec<u8>) -> Result<(), String> {
        self.0
            .try_publish(topic, QoS::AtMostOnce, false, payload)
            .map_err(|error| error.to_string())
    }
}

/// One connection, from attempt to end.
#[derive(Debug)]
pub struct Connection {
    client: AsyncClient,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Begins to connect.
    #[must_use]
    pub fn open(options: &Options) -> Self {
        let (host, port) = split_host_port(&options.broker).expect("the configuration was checked");
        let mut mqtt = MqttOptions::new(options.client_id.clone(), host, port);
        mqtt.set_keep_alive(Duration::from_secs(u64::from(options.keep_alive_s)))
            .set_clean_start(!options.persistent)
            .set_session_expiry_interval(options.persistent.then_some(SESSION_S))
            .set_connection_timeout(CONNECT_S_MAX)
            .set_max_packet_size(Some(options.packet_bytes_max))
            .set_receive_maximum(Some(EVENTS_MAX as u16))
            .set_manual_acks(true);
        if let Some((name, password)) = &options.login {
            mqtt.set_credentials(name.clone(), password.clone());
        }
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        mqtt.set_network_options(network);
        let (client, mut eventloop) = AsyncClient::new(mqtt, REQUESTS_MAX);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let polling = client.clone();
        let filter = options.filter.clone();
        let task = tokio::spawn(async move {
            let down = loop {
                match eventloop.poll().await {
                    Ok(RawEvent::Incoming(packet)) => match incoming(&polling, &filter, packet) {
                        Ok(Some(event)) => {
                            if sender.send(event).await.is_err() {
                                return;
                            }
                        }
                        Ok(None) => {}
                        Err(why) => break why,
                    },
                    Ok(RawEvent::Outgoing(_)) => {}
                    Err(error) => break error.to_string(),
                }
            };
            // The owner may be gone; then nobody needs to know.
            let _ = sender.send(Event::Down(down)).await;
        });
        Self { client, events, task }
    }

    /// What happens next.
    pub async fn next(&mut self) -> Event {
        self.events
            .recv()
            .await
            .unwrap_or_else(|| Event::Down("the connection's task ended".to_owned()))
    }

    /// The sending half.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender(self.client.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn incoming(client: &AsyncClient, filter: &str, packet: Packet) -> Result<Option<Event>, String> {
    match packet {
        Packet::ConnAck(_) => {
            let filter = Filter::new(filter, QoS::AtLeastOnce);
            client.try_subscribe_many([filter]).map_err(|error| error.to_string())?;
            Ok(None)
        }
        Packet::SubAck(ack) => match ack.return_codes.first() {
            Some(SubscribeReasonCode::Success(_)) => Ok(Some(Event::Up)),
            code => Err(format!("the broker refuses our subscription: {code:?}")),
        },
        Packet::Publish(publish) => {
            let topic = String::from_utf8_lossy(&publish.topic).into_owned();
            let payload = publish.payload.clone();
            let ack = Ack {
                client: client.clone(),
                publish,
            };
            Ok(Some(Event::Message(Message { topic, payload, ack })))
        }
        Packet::Disconnect(disconnect) => Err(format!("the broker disconnects us: {:?}", disconnect.reason_code)),
        _ => Ok(None),
    }
}

/// Waits between attempts: full jitter, doubling, and back to the start only after a connection that lasted.
#[derive(Debug)]
pub struct Backoff {
    max_ms: u64,
    ceiling_ms: u64,
}

/// First ceiling of a wait, in ms.
const BACKOFF_FIRST_MS: u64 = 500;
/// No attempt follows another faster than this, in ms: a refused port must not be hammered.
const BACKOFF_LEAST_MS: u64 = 100;
/// A connection that lasted so long was good, in s.
pub const STABLE_S: u64 = 10;

impl Backoff {
    /// Waits of at most `max_s` seconds.
    #[must_use]
    pub const fn new(max_s: u64) -> Self {
        Self {
            max_ms: max_s * 1000,
            ceiling_ms: BACKOFF_FIRST_MS,
        }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.ceiling_ms.min(self.max_ms).max(BACKOFF_LEAST_MS + 1);
        self.ceiling_ms = ceiling.saturating_mul(2);
        Duration::from_millis(fastrand::u64(BACKOFF_LEAST_MS..ceiling))
    }

    /// The last connection was good.
    pub const fn reset(&mut self) {
        self.ceiling_ms = BACKOFF_FIRST_MS;
    }
}
