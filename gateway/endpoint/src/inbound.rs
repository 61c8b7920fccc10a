//! What the application receives: clients coming and going, intercepted messages, and the handle that acknowledges each.

use std::sync::Arc;

use bytes::Bytes;

use crate::access::Protocol;
use crate::mailbox::Mailbox;
use crate::message::Qos;

/// An event for the application, in the order in which it happened to that client. For one client, `Connected` comes
/// before its messages and `Disconnected` after them; a client that is taken over is `Disconnected` first.
#[derive(Debug)]
pub enum Inbound {
    /// A client was accepted. Sent before its CONNACK.
    Connected {
        /// The client identifier, given or assigned.
        client_id: Arc<str>,
        /// Protocol version of the connection.
        protocol: Protocol,
        /// True if the endpoint still had the client's session, with subscriptions and waiting messages.
        session_present: bool,
    },
    /// A message to a topic that `Access::intercepts`. A client's will arrives here too, with an `ack` that does nothing.
    Publish {
        /// Who published.
        client_id: Arc<str>,
        /// To which topic; valid, no wildcard, aliases resolved.
        topic: Box<str>,
        /// The bytes sent.
        payload: Bytes,
        /// The publisher's QoS.
        qos: Qos,
        /// The publisher's RETAIN flag. An intercepted message is not retained.
        retain: bool,
        /// The client says it may have sent this before.
        dup: bool,
        /// Acknowledges the message; PUBACK or PUBREC waits for it.
        ack: Ack,
    },
    /// A connection ended. The session may live on.
    Disconnected {
        /// Whose connection.
        client_id: Arc<str>,
        /// Why.
        reason: DisconnectReason,
    },
}

/// Why a connection ended, or is to be ended by `Handle::disconnect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DisconnectReason {
    /// The client said DISCONNECT.
    #[error("client disconnected")]
    ByClient,
    /// The client said DISCONNECT and asked for its will (MQTT 5).
    #[error("client disconnected and asked for its will")]
    ByClientWithWill,
    /// The connection closed or failed without a DISCONNECT.
    #[error("connection lost")]
    ConnectionLost,
    /// Nothing was received for one and a half keep-alive intervals.
    #[error("keep-alive expired")]
    KeepAliveExpired,
    /// Another connection took over the session.
    #[error("session taken over")]
    TakenOver,
    /// The client sent something the protocol forbids; the text names what.
    #[error("protocol violation: {0}")]
    ProtocolViolation(&'static str),
    /// A packet was larger than `Limits::packet_bytes_max`.
    #[error("packet too large")]
    PacketTooLarge,
    /// More unacknowledged messages than `Limits::inflight_max`.
    #[error("receive maximum exceeded")]
    ReceiveMaximumExceeded,
    /// The client does not read what it subscribed to.
    #[error("slow consumer")]
    SlowConsumer,
    /// An MQTT 3.1.1 client published where it may not. MQTT 5 clients are told in the acknowledgement instead.
    #[error("forbidden topic")]
    Forbidden,
    /// The application dropped an `Ack`, so the message must be sent again.
    #[error("a message was not acknowledged by the application")]
    AckDropped,
    /// The application asked for it.
    #[error("administrative action")]
    Administrative,
    /// The endpoint is shutting down.
    #[error("server shutting down")]
    ShuttingDown,
}

/// Why the application refuses a message, as an MQTT 5 reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 0x80
    Unspecified,
    /// 0x83
    ImplementationSpecific,
    /// 0x87
    NotAuthorized,
    /// 0x90
    TopicNameInvalid,
    /// 0x97
    QuotaExceeded,
    /// 0x99
    PayloadFormatInvalid,
}

/// What became of an intercepted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    /// Routed, but nobody had subscribed; MQTT 5 publishers are told.
    AcceptedUnheard,
    Refused(Refusal),
    Dropped,
}

/// The promise to acknowledge one message. PUBACK (QoS 1) or PUBREC (QoS 2) leaves when this is accepted or refused, but
/// never before those of earlier messages of the same connection. For QoS 0, and after the connection ended, it does nothing.
///
/// Dropping it says that the message could not be taken. MQTT has no negative acknowledgement that makes a client send
/// again, only a new connection does; so the connection is closed, and nothing received after this message is acknowledged
/// on it. The client reconnects and sends all of them again.
#[derive(Debug)]
pub struct Ack {
    waiting: Option<(Arc<Mailbox>, u64)>,
}

impl Ack {
    /// An acknowledgement of the message with this sequence number of the connection.
    pub(crate) fn new(mailbox: Arc<Mailbox>, sequence: u64) -> Ack {
        Ack {
            waiting: Some((mailbox, sequence)),
        }
    }

    /// For messages nobody waits for: QoS 0, wills.
    pub(crate) fn none() -> Ack {
        Ack { waiting: None }
    }

    /// The message is safe here: acknowledge it. Callable from any thread.
    pub fn accept(self) {
        self.settle(Outcome::Accepted);
    }

    /// The message is settled and must not come again, but it was refused. MQTT 5: the acknowledgement carries the reason.
    /// MQTT 3.1.1 has no such thing: the client gets a plain PUBACK, and what went wrong must be told by a message.
    pub fn refuse(self, refusal: Refusal) {
        self.settle(Outcome::Refused(refusal));
    }

    fn settle(mut self, outcome: Outcome) {
        if let Some((mailbox, sequence)) = self.waiting.take() {
            mailbox.settle(sequence, outcome);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some((mailbox, sequence)) = self.waiting.take() {
            mailbox.settle(sequence, Outcome::Dropped);
        }
    }
}
