//! An MQTT client connection, 3.1.1 or 5. Only the files in `mqtt/` name rumqttc.
//!
//! rumqttc 0.25 writes and reads the packets; its event loop is not used. It discards queued publishes when a session is
//! lost, reads no request (acknowledgements included) while its window is full, waits for ever on a peer that takes no
//! bytes, and loses what brokers say last: mosquitto's DISCONNECT, AWS's CONNACK 7. So a [`Connection`] is used for one
//! connection only, keeps the window itself, gives everything a time, and whoever owns it keeps what must not be lost and
//! connects again after [`Backoff`].

mod packet;
mod pump;
mod v3;
mod v5;
mod window;

use std::fmt;

pub use crate::{Ack, Backoff, Connection, Event, Message, STABLE_S, Sender};
use crate::{Qos, connection::Limit, tls::Tls};

/// Default of [`Options::keep_alive_s`].
const KEEP_ALIVE_S: u16 = 60;
/// Default of [`Options::connect_s_max`]: TLS on a slow box included.
const CONNECT_S_MAX: u16 = 10;
/// Default of [`Options::inflight_max`]: AWS takes 100, mosquitto gives 20.
const INFLIGHT_MAX: u16 = 64;
/// Default of [`Options::packet_bytes_max`]: what AWS takes.
const PACKET_BYTES_MAX: u32 = 128 * 1024;
/// Default of [`Options::answer_s_max`].
const ANSWER_S_MAX: u16 = 30;
/// What a PUBLISH adds to topic and payload, in bytes: header, two lengths, packet id, message expiry.
const PUBLISH_OVERHEAD_BYTES: usize = 5 + 2 + 2 + 1 + 5;

/// Which MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1: refusals without reasons, no message expiry.
    V3,
    /// 5.
    #[default]
    V5,
}

/// How to connect. Fields may be added: begin with [`Options::new`].
#[derive(Clone)]
pub struct Options {
    /// `host:port`. With TLS the host is also the name that is asked for and checked.
    pub broker: String,
    /// MQTT client id.
    pub client_id: String,
    /// User name and password.
    pub user: Option<(String, String)>,
    /// Keep-alive, in s, 1 or more; an MQTT 5 broker may decide otherwise.
    pub keep_alive_s: u16,
    /// Subscribed as soon as the connection stands. All of them, or the connection ends.
    pub filters: Vec<(String, Qos)>,
    /// Whether the broker keeps messages for us while we are away.
    pub persistent: bool,
    /// Largest packet in either direction, in bytes; an MQTT 5 broker may take less.
    pub packet_bytes_max: u32,
    /// Which MQTT.
    pub version: Version,
    /// None: plain TCP.
    pub tls: Option<Tls>,
    /// Longest wait for TCP, TLS and CONNACK together, and then for each SUBACK, in s.
    pub connect_s_max: u16,
    /// Longest wait for a PUBACK, and for the answer to a ping, in s: after it nobody is there.
    pub answer_s_max: u16,
    /// Publishes without a PUBACK; an MQTT 5 broker may take fewer.
    pub inflight_max: u16,
}

impl Options {
    /// MQTT 5 over plain TCP, not logged in, subscribed to nothing, with a clean session.
    #[must_use]
    pub fn new(broker: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            broker: broker.into(),
            client_id: client_id.into(),
            user: None,
            keep_alive_s: KEEP_ALIVE_S,
            filters: Vec::new(),
            persistent: false,
            packet_bytes_max: PACKET_BYTES_MAX,
            version: Version::V5,
            tls: None,
            connect_s_max: CONNECT_S_MAX,
            answer_s_max: ANSWER_S_MAX,
            inflight_max: INFLIGHT_MAX,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the password.
        f.debug_struct("Options")
            .field("broker", &self.broker)
            .field("client_id", &self.client_id)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("filters", &self.filters)
            .field("version", &self.version)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Begins to connect by MQTT.
    #[must_use]
    pub fn open(options: &Options) -> Self {
        let limit = Limit::new(options.packet_bytes_max, PUBLISH_OVERHEAD_BYTES);
        let options = options.clone();
        Self::spawn(limit.clone(), |ends| pump::run(options, limit, ends))
    }
}
