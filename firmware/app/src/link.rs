//! The task that speaks MQTT 5 over any byte stream: a UART with a transparent serial-to-TCP module behind it, or a TCP
//! socket.
//!
//! On a transparent module nobody tells the firmware that the connection is gone: a keep-alive finds out, and every
//! attempt begins by forcing a fresh connection (see [`Transport::renew`]).

use core::future::poll_fn;

use device::io::UP_FRAME_BYTES_MAX;
use embassy_futures::select::{Either, select};
use embassy_sync::{blocking_mutex::raw::CriticalSectionRawMutex, channel::Channel};
use embassy_time::{Duration, Timer, with_timeout};
use heapless::{String, Vec};
use minimq::{Buffers, ConfigBuilder, ConnectEvent, Publication, QoS, Session, SubscriptionOptions, TopicFilter};
use proto::{
    id::DeviceId,
    seal::{FRAME_BYTES_MAX, PairSecret},
    topic::{self, Topic},
};

use crate::transport::Transport;

/// Messages that may wait to be sent; more are said again.
const UP_WAITING_MAX: usize = 2;
/// Events that may wait for the device; the link waits with the next.
const DOWN_WAITING_MAX: usize = 1;
/// Longest topic that a device is sent, in bytes; more is not for it.
const TOPIC_BYTES_MAX: usize = 64;
/// A silent link is found dead after one and a half times this, in s.
const KEEP_ALIVE_S: u16 = 10;
/// How long a CONNACK or SUBACK may take, in s.
const ANSWER_S_MAX: u64 = 5;
/// First and longest wait between attempts, in ms; the wait is drawn between half and all of it.
const WAIT_FIRST_MS: u64 = 500;
const WAIT_MAX_MS: u64 = 30_000;
/// Bytes of a received packet: the largest frame, its topic and the MQTT header.
const RECEIVED_BYTES_MAX: usize = FRAME_BYTES_MAX + 256;
/// Bytes of unacknowledged packets that are kept for sending again.
const SENT_BYTES_MAX: usize = 2 * (UP_FRAME_BYTES_MAX + 128);

/// A message from the gateway.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String<TOPIC_BYTES_MAX>,
    /// The sealed frame.
    pub frame: Vec<u8, FRAME_BYTES_MAX>,
}

/// What the link has to say.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator to box it")]
pub enum Event {
    /// Connected and subscribed.
    Up,
    /// The connection is gone.
    Down,
    /// A message.
    Message(Message),
}

/// What is sent up: topic and sealed frame.
pub type Up = (Topic, Vec<u8, UP_FRAME_BYTES_MAX>);

/// The two channels between link and control.
#[derive(Debug)]
pub struct Wires {
    /// From control to link.
    pub up: Channel<CriticalSectionRawMutex, Up, UP_WAITING_MAX>,
    /// From link to control.
    pub down: Channel<CriticalSectionRawMutex, Event, DOWN_WAITING_MAX>,
}

impl Wires {
    /// Empty channels.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            up: Channel::new(),
            down: Channel::new(),
        }
    }

    /// Waits until there is room for one more event. A message is made only then: what a task holds while it waits takes
    /// its place in RAM for good.
    async fn room(&self) {
        poll_fn(|cx| self.down.poll_ready_to_send(cx)).await;
    }
}

impl Default for Wires {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps the device connected, for good.
pub async fn run<T: Transport>(id: &DeviceId, secret: &PairSecret, mut transport: T, wires: &Wires) -> ! {
    let (mut received, mut sent) = ([0; RECEIVED_BYTES_MAX], [0; SENT_BYTES_MAX]);
    let password = secret.password();
    let settings = ConfigBuilder::new(Buffers::new(&mut received, &mut sent))
        .client_id(id.as_str())
        .and_then(|settings| settings.auth(id.as_str(), password.as_bytes()))
        .expect("names and passwords fit")
        .keepalive_interval(KEEP_ALIVE_S)
        .session_expiry_interval(0);
    let mut session = Session::new(settings);
    // Differs between devices, so that a hall of them does not reconnect in chorus.
    let mut draw = u32::from_le_bytes([secret.0[0], secret.0[1], secret.0[2], secret.0[3]]) | 1;
    let mut wait_ms = WAIT_FIRST_MS;
    loop {
        if transport.renew().await.is_ok() && serve(&mut session, &mut transport, id, wires).await {
            wait_ms = WAIT_FIRST_MS;
        }
        wires.room().await;
        drop(wires.down.try_send(Event::Down));
        // What was to be said on the old connection is said again when the new one stands.
        while wires.up.try_receive().is_ok() {}
        draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let jitter_ms = u64::from(draw >> 8) % (wait_ms / 2 + 1);
        Timer::after_millis(wait_ms / 2 + jitter_ms).await;
        wait_ms = (wait_ms * 2).min(WAIT_MAX_MS);
    }
}

/// One connection, from CONNECT to its end; whether it ever stood.
async fn serve<T: Transport>(session: &mut Session<'_>, transport: &mut T, id: &DeviceId, wires: &Wires) -> bool {
    let limit = Duration::from_secs(ANSWER_S_MAX);
    let Ok(Ok(mut connection)) = with_timeout(limit, session.connect(transport)).await else {
        return false;
    };
    if connection.connect_event() == ConnectEvent::Connected {
        let filter = topic::down_filter(id);
        let options = SubscriptionOptions::default().maximum_qos(QoS::AtLeastOnce);
        let filters = [TopicFilter::new(filter.as_str()).options(options)];
        let subscribed = async {
            let asked = connection.subscribe(&filters, &[]).await.ok()?;
            while connection.is_pending(&asked) {
                connection.poll().await.ok()?;
            }
            Some(())
        };
        if !matches!(with_timeout(limit, subscribed).await, Ok(Some(()))) {
            return false;
        }
    }
    wires.room().await;
    drop(wires.down.try_send(Event::Up));
    loop {
        let may_publish = connection.can_publish(QoS::AtLeastOnce);
        let next_up = async {
            match may_publish {
                true => wires.up.ready_to_receive().await,
                false => core::future::pending().await,
            }
        };
        match select(connection.poll(), next_up).await {
            Either::First(Ok(None)) => {}
            Either::First(Ok(Some(message))) => {
                wires.room().await;
                if let (Ok(topic), Ok(frame)) = (String::try_from(message.topic()), Vec::from_slice(message.payload()))
                {
                    drop(wires.down.try_send(Event::Message(Message { topic, frame })));
                }
            }
            Either::First(Err(_)) => return true,
            Either::Second(()) => {
                let Ok((topic, frame)) = wires.up.try_receive() else {
                    continue;
                };
                let publication = Publication::bytes(topic.as_str(), &frame).qos(QoS::AtLeastOnce);
                if connection.publish(publication).await.is_err() {
                    return true;
                }
            }
        }
    }
}
