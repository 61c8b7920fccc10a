//! The device side: frames in, frames out. Two ways to reach devices, the same contract.

pub mod blocked;
pub mod embedded;
pub mod external;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use gateway_core::{Said, Told};
use proto::{
    codec::{self, CodecError},
    id::{DeviceId, TokenKey},
    seal::{Counter, Direction, FRAME_BYTES_MAX, PairSecret, SealError, SealKey},
    topic::{self, Down, Topic, Up},
    update::Update,
};

use self::blocked::Blocked;
use crate::firmware;

/// To be accepted when the message is in the journal.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "messages are what passes most; a box each would cost an allocation"
)]
pub enum Ack {
    /// Of our own endpoint.
    Embedded(mqtt_endpoint::Ack),
    /// Of an external broker.
    External(carrier::Ack),
}

impl Ack {
    /// PUBACK.
    pub fn accept(self) {
        match self {
            Self::Embedded(ack) => ack.accept(),
            Self::External(ack) => ack.accept(),
        }
    }
}

/// Why a message of a device is dropped.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    /// Not a topic of a device.
    #[error("\"{0}\" is not a topic on which devices speak")]
    Topic(String),
    /// No such device.
    #[error("{0} is not a device of this site")]
    UnknownDevice(DeviceId),
    /// The operator does not want to hear it.
    #[error("{0} is blocked; to let it in again: holdfast device unblock {0}")]
    Blocked(DeviceId),
    /// Published by somebody else.
    #[error("{client} speaks as {device}")]
    NotItself {
        /// Who connected.
        client: String,
        /// As whom.
        device: DeviceId,
    },
    /// The seal does not fit.
    #[error("{device}/{word}: {error}")]
    Seal {
        /// Who.
        device: DeviceId,
        /// What.
        word: &'static str,
        /// Why.
        error: SealError,
    },
    /// The body is not the message.
    #[error("{device}/{word}: {error}")]
    Body {
        /// Who.
        device: DeviceId,
        /// What.
        word: &'static str,
        /// Why.
        error: CodecError,
    },
}

/// What a device said, by who has to know.
#[derive(Debug)]
pub enum Heard {
    /// The core.
    Core(Said),
    /// The keeper of firmware.
    Firmware(Update),
}

/// Opens what devices seal. Shared by the tasks that receive.
#[derive(Debug)]
pub struct Opener {
    keys: RwLock<BTreeMap<DeviceId, SealKey>>,
    token_key: TokenKey,
    blocked: Blocked,
    complained: Mutex<BTreeSet<String>>,
    dropped: AtomicU64,
}

/// Most senders whose bad messages are remembered as logged.
const COMPLAINED_MAX: usize = 4_096;

impl Opener {
    /// For these devices.
    #[must_use]
    pub fn new(secrets: &BTreeMap<DeviceId, PairSecret>, token_key: TokenKey) -> Self {
        Self {
            keys: RwLock::new(up_keys(secrets)),
            token_key,
            blocked: Blocked::default(),
            complained: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// As well, deaf to these.
    #[must_use]
    pub fn deaf_to(self, blocked: Blocked) -> Self {
        Self { blocked, ..self }
    }

    /// Other devices, or the same with other secrets, from the next message on.
    pub fn reconfigure(&self, secrets: &BTreeMap<DeviceId, PairSecret>) {
        *self.keys.write().expect("no panic happens under this lock") = up_keys(secrets);
    }

    fn keys(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<DeviceId, SealKey>> {
        self.keys.read().expect("no panic happens under this lock")
    }

    /// Whether this is a device of the site: nobody else takes room in memory.
    pub(super) fn knows(&self, device: &DeviceId) -> bool {
        self.keys().contains_key(device)
    }

    /// From topic and frame to what was said. `client`: who published, if the carrier knows.
    ///
    /// # Errors
    /// [`Bad`]: drop the message.
    pub fn open(&self, client: Option<&str>, topic: &str, frame: &[u8]) -> Result<(DeviceId, u64, Heard), Bad> {
        let (device, word) = topic::parse_up(topic).ok_or_else(|| Bad::Topic(shorten(topic)))?;
        if let Some(client) = client.filter(|client| *client != device.as_str()) {
            return Err(Bad::NotItself {
                client: shorten(client),
                device,
            });
        }
        let keys = self.keys();
        let key = keys.get(&device).ok_or(Bad::UnknownDevice(device))?;
        if self.blocked.has(&device) {
            return Err(Bad::Blocked(device));
        }
        let opened = key.open(topic, frame, FRAME_BYTES_MAX).map_err(|error| Bad::Seal {
            device,
            word: word.word(),
            error,
        })?;
        let heard = match word {
            Up::Update => codec::decode(opened.body).map(Heard::Firmware),
            Up::Hello
            | Up::Authorize
            | Up::Redeemed
            | Up::Started
            | Up::Meter
            | Up::Stop
            | Up::Status
            | Up::CommandAnswer => Said::decode(word, opened.body, &self.token_key).map(Heard::Core),
        };
        let heard = heard.map_err(|error| Bad::Body {
            device,
            word: word.word(),
            error,
        })?;
        Ok((device, opened.counter, heard))
    }

    /// Counts a dropped message and logs the first of each sender.
    pub fn complain(&self, sender: &str, bad: &Bad) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        let mut complained = self.complained.lock().expect("no panic happens under this lock");
        if complained.len() < COMPLAINED_MAX && complained.insert(shorten(sender)) {
            tracing::warn!(sender = shorten(sender), %bad, "message dropped; further ones of this sender are only counted");
        }
    }

    /// Messages dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn up_keys(secrets: &BTreeMap<DeviceId, PairSecret>) -> BTreeMap<DeviceId, SealKey> {
    let keys = secrets.iter().map(|(id, secret)| (*id, secret.key(Direction::Up)));
    keys.collect()
}

/// Longest foreign text in a log line, in characters.
const LOGGED_CHARS_MAX: usize = 80;

fn shorten(text: &str) -> String {
    text.chars().take(LOGGED_CHARS_MAX).collect()
}

/// Seals what devices are told. Owned by the engine: counters have one owner.
#[derive(Debug)]
pub struct Sealer {
    devices: BTreeMap<DeviceId, (SealKey, Counter)>,
    boot: u32,
    blocked: Blocked,
}

impl Sealer {
    /// For these devices, in this boot of the gateway.
    #[must_use]
    pub fn new(secrets: &BTreeMap<DeviceId, PairSecret>, boot: u32) -> Self {
        let mut sealer = Self {
            devices: BTreeMap::new(),
            boot,
            blocked: Blocked::default(),
        };
        sealer.reconfigure(secrets);
        sealer
    }

    /// Other devices, or the same with other secrets. A device's counter goes on, whatever its secret.
    pub fn reconfigure(&mut self, secrets: &BTreeMap<DeviceId, PairSecret>) {
        let mut before = std::mem::take(&mut self.devices);
        let row = |(id, secret): (&DeviceId, &PairSecret)| {
            let counter = before
                .remove(id)
                .map_or_else(|| Counter::of_boot(self.boot), |(_, counter)| counter);
            (*id, (secret.key(Direction::Down), counter))
        };
        self.devices = secrets.iter().map(row).collect();
    }

    /// As well, silent to these.
    #[must_use]
    pub fn silent_to(self, blocked: Blocked) -> Self {
        Self { blocked, ..self }
    }

    /// Whom something may be told, and under which counter.
    fn spoken_to(&mut self, device: &DeviceId) -> Option<&mut (SealKey, Counter)> {
        self.devices.get_mut(device).filter(|_| !self.blocked.has(device))
    }

    /// The device remembers a counter: go on above it.
    pub fn raise(&mut self, device: &DeviceId, last: u64) {
        if let Some((_, counter)) = self.devices.get_mut(device) {
            counter.raise_above(last);
        }
    }

    /// Topic and frame of a message; `None` for a device without a secret, and for one that is blocked.
    pub fn seal(&mut self, device: &DeviceId, message: &Told) -> Option<(Topic, Vec<u8>)> {
        let (key, counter) = self.spoken_to(device)?;
        Some(message.seal(device, key, counter.next()))
    }

    /// Topic and frame of a message about firmware; `None` as in [`Self::seal`].
    pub fn seal_firmware(&mut self, device: &DeviceId, told: &firmware::Told) -> Option<(Topic, Vec<u8>)> {
        let (key, counter) = self.spoken_to(device)?;
        Some(match told {
            firmware::Told::Offer(offer) => {
                let topic = topic::down(device, Down::Offer);
                let frame = key.seal_vec(&topic, counter.next(), offer);
                (topic, frame)
            }
            firmware::Told::Piece(piece) => {
                let topic = topic::down(device, Down::Piece);
                let frame = key.seal_vec(&topic, counter.next(), piece);
                (topic, frame)
            }
        })
    }
}

/// Carries frames to devices. Never blocks: what cannot be carried now is asked for again by the device.
pub enum Port {
    /// Our own endpoint.
    Embedded(mqtt_endpoint::Handle),
    /// An external broker.
    External(external::Outward),
}

impl Port {
    /// How many of these devices have an open connection; `None`: a broker has them, and there is no connection to it.
    #[must_use]
    pub fn connected<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>) -> Option<u32> {
        let connected = match self {
            Self::Embedded(handle) => devices.filter(|device| handle.is_connected(device.as_str())).count(),
            Self::External(outward) => outward.connected(devices)?,
        };
        Some(u32::try_from(connected).unwrap_or(u32::MAX))
    }

    /// What the endpoint counts, for status; null where a broker has the devices.
    #[must_use]
    pub fn counters(&self) -> serde_json::Value {
        let Self::Embedded(handle) = self else {
            return serde_json::Value::Null;
        };
        let seen = handle.counters();
        serde_json::json!({
            "connections": seen.connections,
            "pending": seen.pending,
            "sessions": seen.sessions,
            "queued_bytes": seen.queued_bytes,
            "accepted": seen.accepted,
            "over_connections": seen.over_limit,
            "over_connections_per_address": seen.over_address_limit,
            "over_pending": seen.over_pending_limit,
            "connect_timeouts": seen.connect_timeouts,
            "tls_refused": seen.tls_refused,
            "connects_refused": seen.connects_refused,
            "connects_too_often": seen.connects_too_often,
            "violations": seen.violations,
            "throttled": seen.throttled,
            "forbidden": seen.forbidden,
            "slow_consumers": seen.slow_consumers,
            "messages_received": seen.received,
            "messages_dropped": seen.dropped,
        })
    }

    /// Sends one frame.
    pub fn send(&self, topic: &str, frame: Vec<u8>) {
        let result = match self {
            Self::Embedded(handle) => handle
                .publish(topic, &frame, mqtt_endpoint::Qos::AtLeastOnce, false)
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Self::External(outward) => outward.publish(topic, frame),
        };
        if let Err(error) = result {
            tracing::debug!(topic, error, "not sent; the device will ask again");
        }
    }
}
