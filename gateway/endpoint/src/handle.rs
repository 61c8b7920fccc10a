//! What the application does to the endpoint: publish, disconnect, look.

use std::sync::Arc;

use mqtt_protocol_core::mqtt::ArcPayload;

use crate::counters::{self, Counters};
use crate::inbound::DisconnectReason;
use crate::message::{Message, Qos};
use crate::shared::Shared;
use crate::topic;

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Published {
    /// Queued for at least one connected subscriber. (That it arrived is known to its client alone.)
    Delivered,
    /// No subscriber is connected; kept for at least one persistent session.
    Queued,
    /// Nobody subscribed, or only clients that are away and QoS 0 is not kept for them.
    NoSubscriber,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PublishError {
    /// The topic is empty, too long, or holds a wildcard.
    #[error("topic is empty, too long or holds a wildcard")]
    TopicInvalid,
    /// The message is larger than `Limits::packet_bytes_max` allows a packet to be.
    #[error("payload of {bytes} bytes is too large")]
    PayloadTooLarge {
        /// Bytes of the payload.
        bytes: usize,
    },
    /// There are subscribers, but none has room. Those that were connected are being cut.
    #[error("no subscriber has room in its queue")]
    QueueFull,
}

/// A handle to the endpoint. Cheap to clone; its methods do not block and need no runtime.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        Handle { shared }
    }

    /// Publish to every subscriber of `topic`, and retain the message if `retain` says so (an empty payload removes the one
    /// that is). `Access` is not asked: the application may do everything.
    ///
    /// # Errors
    /// The topic or size is not acceptable, or subscribers exist and none has room.
    pub fn publish(&self, topic: &str, payload: &[u8], qos: Qos, retain: bool) -> Result<Published, PublishError> {
        /// What a PUBLISH has beside topic and payload: header, length, packet id, topic length, no properties.
        const HEADER_BYTES: usize = 10;
        let limits = &self.shared.limits;
        if !topic::valid_name(topic, limits.topic_bytes_max) {
            return Err(PublishError::TopicInvalid);
        }
        if HEADER_BYTES + topic.len() + payload.len() > limits.packet_bytes_max as usize {
            return Err(PublishError::PayloadTooLarge { bytes: payload.len() });
        }
        let message = Message {
            topic: topic.into(),
            payload: ArcPayload::new(Arc::from(payload), 0, payload.len()),
            qos,
            retain,
            properties: Vec::new(),
            expires_at: None,
        };
        let routed = self.shared.publish(message, None);
        match (routed.delivered, routed.queued, routed.full) {
            (1.., _, _) => Ok(Published::Delivered),
            (0, 1.., _) => Ok(Published::Queued),
            (0, 0, 0) => Ok(Published::NoSubscriber),
            (0, 0, 1..) => Err(PublishError::QueueFull),
        }
    }

    /// Close the connection of a client; MQTT 5 clients are told the reason. False if it is not connected.
    pub fn disconnect(&self, client_id: &str, reason: DisconnectReason) -> bool {
        let mailbox = self.shared.router().mailbox(client_id);
        mailbox.inspect(|mailbox| mailbox.close(reason)).is_some()
    }

    /// True if the client is connected now.
    pub fn is_connected(&self, client_id: &str) -> bool {
        self.shared.router().mailbox(client_id).is_some()
    }

    /// Open connections, those that have not sent CONNECT included.
    pub fn connections(&self) -> usize {
        counters::read(&self.shared.counting.connections) as usize
    }

    /// All counters, for metrics.
    pub fn counters(&self) -> Counters {
        let (sessions, subscriptions, retained) = {
            let router = self.shared.router();
            (
                router.session_count() as u64,
                router.subscription_count() as u64,
                router.retained_count() as u64,
            )
        };
        let counting = &self.shared.counting;
        Counters {
            connections: counters::read(&counting.connections),
            pending: self.shared.gate.pending() as u64,
            queued_bytes: counters::read(&counting.queued_bytes),
            sessions,
            subscriptions,
            retained,
            accepted: counters::read(&counting.accepted),
            over_limit: counters::read(&counting.over_limit),
            over_address_limit: counters::read(&counting.over_address_limit),
            over_pending_limit: counters::read(&counting.over_pending_limit),
            connect_timeouts: counters::read(&counting.connect_timeouts),
            tls_refused: counters::read(&counting.tls_refused),
            connects_too_often: counters::read(&counting.connects_too_often),
            throttled: counters::read(&counting.throttled),
            connects_refused: counters::read(&counting.connects_refused),
            violations: counters::read(&counting.violations),
            received: counters::read(&counting.received),
            forbidden: counters::read(&counting.forbidden),
            sent: counters::read(&counting.sent),
            dropped: counters::read(&counting.dropped),
            slow_consumers: counters::read(&counting.slow_consumers),
            acks_dropped: counters::read(&counting.acks_dropped),
        }
    }
}
