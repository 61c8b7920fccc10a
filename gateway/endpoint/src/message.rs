//! One application message on its way through the endpoint, and its delivery to one subscriber.

use std::sync::Arc;

use bytes::Bytes;
use mqtt_protocol_core::mqtt::ArcPayload;
use mqtt_protocol_core::mqtt::packet::Property;
use tokio::time::Instant;

/// How hard both sides try to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0: sent once, lost if the connection is.
    AtMostOnce = 0,
    /// QoS 1: sent until acknowledged, may arrive twice.
    AtLeastOnce = 1,
    /// QoS 2: arrives once.
    ExactlyOnce = 2,
}

/// What a queued message costs beside its bytes: the structs and allocator overhead around them.
const MESSAGE_OVERHEAD_BYTES: usize = 128;
/// The same for one property.
const PROPERTY_OVERHEAD_BYTES: usize = 96;

/// A message as published. Shared between all its subscribers, so a fan-out copies no payload.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: Box<str>,
    pub(crate) payload: ArcPayload,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// MQTT 5 properties that travel with the message: content type, response topic, correlation data, user properties.
    pub(crate) properties: Vec<Property>,
    /// When the message stops being worth delivering (MQTT 5 message expiry).
    pub(crate) expires_at: Option<Instant>,
}

impl Message {
    /// Bytes this message is charged for in a queue.
    pub(crate) fn cost_bytes(&self) -> usize {
        let properties: usize = self.properties.iter().map(|p| p.size() + PROPERTY_OVERHEAD_BYTES).sum();
        MESSAGE_OVERHEAD_BYTES + self.topic.len() + self.payload.len() + properties
    }

    /// True once its expiry has passed.
    pub(crate) fn expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// The payload as the application sees it: the same allocation, not a copy.
pub(crate) fn shared_bytes(payload: ArcPayload) -> Bytes {
    struct Owner(ArcPayload);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_slice()
        }
    }
    Bytes::from_owner(Owner(payload))
}

/// A message for one subscriber.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    /// The lower of the publisher's and the subscription's QoS.
    pub(crate) qos: Qos,
    /// The RETAIN flag to send, which is not the publisher's (see "retain as published").
    pub(crate) retain: bool,
    /// Identifiers of the MQTT 5 subscriptions that matched.
    pub(crate) subscription_ids: Vec<u32>,
}

/// A message to be published when its client is lost.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Message,
    /// Seconds from the message's publication to its expiry; the clock starts when the will is sent.
    pub(crate) expiry_s: Option<u32>,
    /// Seconds to wait for the client to come back (MQTT 5).
    pub(crate) delay_s: u32,
}
