//! One client's session: what survives its connection. Subscriptions, messages waiting and in flight, QoS 2 ids received.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::encode::{self, Recipient};
use crate::inbound::DisconnectReason;
use crate::limits::Limits;
use crate::mailbox::Mailbox;
use crate::message::{Delivery, Qos, Will};
use crate::reason;

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
    pub(crate) fn new(id: u64, client_id: Arc<str>) -> Session {
        Session {
            id,
            client_id,
            state: Mutex::default(),
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
        if !self
            .outgoing
            .has_room(&delivery, queue_max, limits.queue_bytes_max, now)
        {
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

    /// Queue the retained messages of a new subscription. They may exceed the queue, whose limit is about a client that does
    /// not keep up, but only if it keeps up now: else repeated subscribing would grow the queue without bound.
    pub(crate) fn offer_retained(&mut self, deliveries: Vec<Delivery>, limits: &Limits) {
        let Some(mailbox) = &self.mailbox else { return };
        if deliveries.is_empty() {
            return;
        }
        if self.outgoing.queue.len() >= limits.outbound_queue_max {
            mailbox.close(DisconnectReason::SlowConsumer);
            return;
        }
        deliveries.into_iter().for_each(|delivery| self.outgoing.push(delivery));
        mailbox.wake();
    }

    /// The client is gone, the session stays: QoS 0 messages are not kept, nor memory that only a connection needs.
    pub(crate) fn go_away(&mut self) {
        self.mailbox = None;
        self.absences += 1;
        self.outgoing.forget_qos0();
    }
}

/// Messages on their way to the client, in order: first those in flight, then those waiting.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<Delivery>,
    inflight: VecDeque<Inflight>,
    /// How many of `inflight`, from the front, were sent on this connection.
    sent: usize,
    /// What `queue` and `inflight` are charged for.
    bytes: usize,
    last_id: u16,
}

#[derive(Debug)]
struct Inflight {
    id: u16,
    qos: Qos,
    /// `None` once PUBREC came: then PUBREL is what is sent again.
    delivery: Option<Delivery>,
    /// Sent before, on an earlier connection.
    dup: bool,
}

/// What one call of `Outgoing::fill` did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filled {
    /// PUBLISH packets appended.
    pub(crate) sent: u64,
    /// Messages given up: expired, or larger than the client takes.
    pub(crate) dropped: u64,
}

impl Outgoing {
    fn has_room(&mut self, delivery: &Delivery, queue_max: usize, bytes_max: usize, now: Instant) -> bool {
        let cost = delivery.message.cost_bytes();
        let fits = |this: &Outgoing| this.queue.len() < queue_max && this.bytes + cost <= bytes_max;
        if fits(self) {
            return true;
        }
        let mut freed = 0;
        self.queue.retain(|waiting| {
            let keep = !waiting.message.expired(now);
            freed += if keep { 0 } else { waiting.message.cost_bytes() };
            keep
        });
        self.bytes -= freed;
        fits(self)
    }

    fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.message.cost_bytes();
        self.queue.push_back(delivery);
    }

    fn forget_qos0(&mut self) {
        let mut freed = 0;
        self.queue.retain(|waiting| {
            let keep = waiting.qos != Qos::AtMostOnce;
            freed += if keep { 0 } else { waiting.message.cost_bytes() };
            keep
        });
        self.bytes -= freed;
        self.queue.shrink_to_fit();
    }

    /// A new connection has taken the session: everything in flight is to be sent again, marked as such, in the old order.
    pub(crate) fn restart(&mut self) {
        self.sent = 0;
        self.inflight.iter_mut().for_each(|entry| entry.dup = true);
    }

    /// Append packets to `out` until it holds `out_bytes_max` bytes, the client's window is full, or nothing is left.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>, to: &mut Recipient, out_bytes_max: usize, now: Instant) -> Filled {
        let mut filled = Filled::default();
        while out.len() < out_bytes_max {
            let window_open = self.sent < usize::from(to.receive_max);
            if self.sent < self.inflight.len() {
                if !window_open {
                    break;
                }
                self.resend(out, to, now, &mut filled);
                continue;
            }
            match self.queue.front() {
                None => break,
                Some(next) if next.qos != Qos::AtMostOnce && !window_open => break,
                Some(_) => {}
            }
            let Some(delivery) = self.queue.pop_front() else { break };
            self.send(delivery, out, to, now, &mut filled);
        }
        if self.queue.is_empty() && self.queue.capacity() > KEPT_QUEUE_CAPACITY {
            self.queue = VecDeque::new();
        }
        filled
    }

    /// Send the first entry in flight that this connection has not seen.
    fn resend(&mut self, out: &mut Vec<u8>, to: &mut Recipient, now: Instant, filled: &mut Filled) {
        let entry = &self.inflight[self.sent];
        let fits = match &entry.delivery {
            None => {
                encode::acknowledgement(out, to.protocol, encode::PUBREL, entry.id, reason::SUCCESS);
                true
            }
            Some(delivery) => {
                filled.sent += 1;
                encode::publish(out, to, delivery, entry.id, entry.dup, now)
            }
        };
        if fits {
            self.sent += 1;
        } else {
            filled.sent -= 1;
            filled.dropped += 1;
            self.forget(self.sent);
        }
    }

    /// Send a message for the first time.
    fn send(&mut self, delivery: Delivery, out: &mut Vec<u8>, to: &mut Recipient, now: Instant, filled: &mut Filled) {
        let cost = delivery.message.cost_bytes();
        let id = if delivery.qos == Qos::AtMostOnce {
            0
        } else {
            self.next_id()
        };
        let fits = !delivery.message.expired(now) && encode::publish(out, to, &delivery, id, false, now);
        if fits {
            filled.sent += 1;
        } else {
            filled.dropped += 1;
        }
        if fits && delivery.qos != Qos::AtMostOnce {
            self.inflight.push_back(Inflight {
                id,
                qos: delivery.qos,
                delivery: Some(delivery),
                dup: false,
            });
            self.sent += 1;
        } else {
            self.bytes -= cost;
        }
    }

    /// The next packet id that is not in flight. The window is far smaller than the ids, so there is one.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.position(self.last_id).is_none() {
                return self.last_id;
            }
        }
    }

    fn position(&self, id: u16) -> Option<usize> {
        self.inflight.iter().position(|entry| entry.id == id)
    }

    fn forget(&mut self, at: usize) {
        if let Some(entry) = self.inflight.remove(at) {
            self.bytes -= entry.delivery.map_or(0, |delivery| delivery.message.cost_bytes());
            if at < self.sent {
                self.sent -= 1;
            }
        }
    }

    /// PUBACK: a QoS 1 message arrived. One for an unknown id is not an error: it may answer an earlier connection.
    pub(crate) fn puback(&mut self, id: u16) {
        if let Some(at) = self.position(id)
            && self.inflight[at].qos == Qos::AtLeastOnce
        {
            self.forget(at);
        }
    }

    /// PUBREC: a QoS 2 message arrived or was refused. Returns the code of the PUBREL to answer with, if any.
    pub(crate) fn pubrec(&mut self, id: u16, failed: bool) -> Option<u8> {
        let Some(at) = self
            .position(id)
            .filter(|at| self.inflight[*at].qos == Qos::ExactlyOnce)
        else {
            return (!failed).then_some(reason::PACKET_ID_NOT_FOUND);
        };
        if failed {
            self.forget(at);
            return None;
        }
        let freed = self.inflight[at]
            .delivery
            .take()
            .map_or(0, |delivery| delivery.message.cost_bytes());
        self.bytes -= freed;
        Some(reason::SUCCESS)
    }

    /// PUBCOMP: a QoS 2 exchange is complete.
    pub(crate) fn pubcomp(&mut self, id: u16) {
        if let Some(at) = self.position(id)
            && self.inflight[at].qos == Qos::ExactlyOnce
            && self.inflight[at].delivery.is_none()
        {
            self.forget(at);
        }
    }
}

/// Slots a queue keeps once it has run empty; more are given back, so that a burst does not cost an idle client memory.
const KEPT_QUEUE_CAPACITY: usize = 8;
