//! One client's session: what survives its connection. Subscriptions, messages waiting and in flight, QoS 2 ids received.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::inbound::DisconnectReason;
use crate::limits::Limits;
use crate::mailbox::Mailbox;
use crate::message::{Delivery, Qos, Will};
use crate::outgoing::Outgoing;

/// A session, shared by the router and the connection that holds it. Locked after the router, never before it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Unique in this endpoint, unlike the client id, which may get a new session.
    pub(crate) id: u64,
    pub(crate) client_id: Arc<str>,
    state: Mutex<State>,
}

/// The mutable part.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The connection that holds the session, if any.
    pub(crate) mailbox: Option<Arc<Mailbox>>,
    /// Counts the times the client went away, so that a timer of an earlier absence does nothing.
    pub(crate) absences: u64,
    /// Seconds to live without a connection; 0 ends with it.
    pub(crate) expiry_s: u32,
    pub(crate) filters: Vec<Box<str>>,
    /// QoS 2 ids whose PUBREC was sent and whose PUBREL has not come.
    pub(crate) received_qos2: HashSet<u16>,
    /// A will that waits for its delay.
    pub(crate) waiting_will: Option<Will>,
    /// The timer of the current absence.
    pub(crate) linger: Option<AbortHandle>,
    pub(crate) outgoing: Outgoing,
}

/// What became of a message offered to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Queued for a connection that is up.
    Delivered,
    /// Kept for a client that is away.
    Queued,
    /// The client is away and QoS 0 is not kept.
    Absent,
    /// No room. A connected client is cut for it.
    Full,
}

impl Session {
    /// A new one; what waits in it is added to `queued_bytes`.
    pub(crate) fn new(id: u64, client_id: Arc<str>, queued_bytes: Arc<AtomicU64>) -> Session {
        Session {
            id,
            client_id,
            state: Mutex::new(State {
                outgoing: Outgoing::new(queued_bytes),
                ..State::default()
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a session")
    }
}

impl State {
    /// Queue a message for the client, connected or away, within the limits.
    pub(crate) fn offer(&mut self, delivery: Delivery, limits: &Limits, now: Instant) -> Offer {
        let queue_max = match self.mailbox {
            Some(_) => limits.outbound_queue_max,
            None if delivery.qos == Qos::AtMostOnce => return Offer::Absent,
            None => limits.offline_queue_max,
        };
        if !self.outgoing.has_room(&delivery, queue_max, limits, now) {
            if let Some(mailbox) = &self.mailbox {
                mailbox.close(DisconnectReason::SlowConsumer);
            }
            return Offer::Full;
        }
        self.outgoing.push(delivery);
        match &self.mailbox {
            Some(mailbox) => {
                mailbox.wake();
                Offer::Delivered
            }
            None => Offer::Queued,
        }
    }

    /// Queue the retained messages of a new subscription, beside the limit of the queue: that one is about a client that does
    /// not keep up with the others. There is a limit all the same, for a client that subscribes again and again unread.
    pub(crate) fn offer_retained(&mut self, deliveries: Vec<Delivery>, limits: &Limits) {
        let Some(mailbox) = &self.mailbox else { return };
        if self.outgoing.len() > limits.outbound_queue_max + limits.retained_max {
            mailbox.close(DisconnectReason::SlowConsumer);
            return;
        }
        deliveries
            .into_iter()
            .for_each(|delivery| self.outgoing.push_uncounted(delivery));
        mailbox.wake();
    }

    /// The client is gone, the session stays: QoS 0 messages are not kept, nor memory that only a connection needs.
    pub(crate) fn go_away(&mut self) {
        self.mailbox = None;
        self.absences += 1;
        self.outgoing.forget_qos0();
    }
}
