//! What every connection has in common, whatever protocol it speaks: events out of it, publishes into it.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::symptom::{Class, Symptom};

/// Events waiting for their owner; beyond it the connection is not read.
pub(crate) const EVENTS_MAX: usize = 64;
/// Publishes waiting for the connection.
const PUBLISHES_MAX: usize = 256;
/// Longest topic that MQTT can carry, in bytes.
const TOPIC_BYTES_MAX: usize = u16::MAX as usize;

/// How often something is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Once or not at all.
    AtMostOnce,
    /// Once or more.
    AtLeastOnce,
}

/// A message for the cloud: an MQTT publish, or an HTTP request to the path `topic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// How often.
    pub qos: Qos,
    /// Not delivered after so long; MQTT 5 only, elsewhere whoever receives it has the time in the frame.
    pub expires: Option<Duration>,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// Connected and subscribed. Messages that a broker kept for us may come before it.
    Up,
    /// A message; acknowledge it once it is safe.
    Message(Message),
    /// Something is not well; the connection goes on.
    Symptom(Symptom),
    /// The connection is over; why.
    Down(Symptom),
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

/// The promise to acknowledge one message. Dropped, the message is not acknowledged, and the broker sends it again on
/// a later connection.
#[derive(Debug)]
pub struct Ack(Option<(mpsc::Sender<u16>, u16)>);

impl Ack {
    /// Of a message that needs none: QoS 0, and HTTP.
    pub(crate) const NONE: Self = Self(None);

    pub(crate) const fn new(acks: mpsc::Sender<u16>, id: u16) -> Self {
        Self(Some((acks, id)))
    }

    /// The message is safe: PUBACK. If the connection is gone the broker sends the message again.
    pub fn accept(self) {
        let Some((acks, id)) = self.0 else { return };
        if let Err(error) = acks.try_send(id) {
            tracing::debug!(%error, "a PUBACK was not sent; the broker will repeat the message");
        }
    }
}

/// Why something was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyUnsent {
    /// As much waits for the connection as may wait.
    Full,
    /// The connection is over.
    Gone,
    /// It is longer than the cloud takes, or than we send.
    TooLarge {
        /// How long it would be, in bytes.
        bytes: usize,
        /// How long it may be, in bytes.
        bytes_max: u32,
    },
    /// Its topic is empty, too long or has wildcards.
    Topic,
}

/// What was not queued, unchanged, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Unsent {
    /// What.
    pub publish: Publish,
    /// Why.
    pub why: WhyUnsent,
}

impl Unsent {
    fn sentence(&self) -> String {
        let topic = &self.publish.topic;
        match self.why {
            WhyUnsent::Full => "the connection's queue is full".to_owned(),
            WhyUnsent::Gone => "the connection is over".to_owned(),
            WhyUnsent::TooLarge { bytes, bytes_max } => {
                format!("a message of {bytes} bytes for {topic} is longer than {bytes_max}")
            }
            WhyUnsent::Topic => format!("{topic:?} is not a topic one can publish to"),
        }
    }
}

impl From<Unsent> for String {
    fn from(unsent: Unsent) -> Self {
        unsent.sentence()
    }
}

/// Sends on a connection, from any task or thread, and never waits.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<Publish>,
    limit: Limit,
}

impl Sender {
    /// Queues a publish that is delivered once or more.
    ///
    /// # Errors
    /// If the queue is full or the connection is gone; then nothing was queued.
    pub fn publish(&self, topic: &str, payload: Vec<u8>) -> Result<(), String> {
        let topic = topic.to_owned();
        Ok(self.send(Publish {
            topic,
            payload,
            qos: Qos::AtLeastOnce,
            expires: None,
        })?)
    }

    /// Queues a message.
    ///
    /// # Errors
    /// If it does not fit, the queue is full or the connection is gone: the message comes back, and nothing was queued.
    pub fn send(&self, publish: Publish) -> Result<(), Unsent> {
        if let Err(why) = self.limit.check(&publish) {
            return Err(Unsent { publish, why });
        }
        self.queue.try_send(publish).map_err(|error| match error {
            mpsc::error::TrySendError::Full(publish) => Unsent {
                publish,
                why: WhyUnsent::Full,
            },
            mpsc::error::TrySendError::Closed(publish) => Unsent {
                publish,
                why: WhyUnsent::Gone,
            },
        })
    }
}

/// How long a message may be; a cloud may lower it when it lets us in.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    bytes_max: Arc<AtomicU32>,
    /// What a protocol adds to topic and payload, at most, in bytes.
    overhead_bytes: usize,
}

impl Limit {
    pub(crate) fn new(bytes_max: u32, overhead_bytes: usize) -> Self {
        let bytes_max = Arc::new(AtomicU32::new(bytes_max));
        Self {
            bytes_max,
            overhead_bytes,
        }
    }

    pub(crate) fn lower_to(&self, bytes_max: u32) {
        self.bytes_max.fetch_min(bytes_max, Ordering::Relaxed);
    }

    pub(crate) fn check(&self, publish: &Publish) -> Result<(), WhyUnsent> {
        let Publish { topic, payload, .. } = publish;
        if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || topic.contains(['+', '#', '\0']) {
            return Err(WhyUnsent::Topic);
        }
        let bytes = topic.len() + payload.len() + self.overhead_bytes;
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        if bytes > bytes_max as usize {
            return Err(WhyUnsent::TooLarge { bytes, bytes_max });
        }
        Ok(())
    }
}

/// The task's ends of a connection's channels.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) publishes: mpsc::Receiver<Publish>,
}

/// One connection, from attempt to end. Dropped, it is cut.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Runs a connection as a task of its own; what it returns is why it is over.
    pub(crate) fn spawn<F: Future<Output = Symptom> + Send + 'static>(
        limit: Limit,
        run: impl FnOnce(Ends) -> F,
    ) -> Self {
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let (queue, publishes) = mpsc::channel(PUBLISHES_MAX);
        let running = run(Ends {
            events: event_sender.clone(),
            publishes,
        });
        let task = tokio::spawn(async move {
            let down = running.await;
            // The owner may be gone; then nobody needs to know.
            drop(event_sender.send(Event::Down(down)).await);
        });
        let sender = Sender { queue, limit };
        Self { sender, events, task }
    }

    /// What happens next. Can be dropped and called again without losing anything.
    pub async fn next(&mut self) -> Event {
        let over = || Event::Down(Symptom::new(Class::Protocol, 0, "the connection's task ended"));
        self.events.recv().await.unwrap_or_else(over)
    }

    /// Whether everything that has come was taken by [`Self::next`].
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.events.is_empty()
    }

    /// The sending half.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
