//! Messages on their way to one client: the order they leave in, the window they leave through, and what is sent again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::encode::{self, Recipient};
use crate::limits::{Limits, QUEUE_BYTES_SHARE};
use crate::message::{Delivery, Qos};
use crate::reason;

/// Slots a queue keeps once it has run empty; more are given back, so that a burst does not cost an idle client memory.
const KEPT_QUEUE_CAPACITY: usize = 8;

/// Messages on their way to the client, in order: first those in flight, then those waiting.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<Waiting>,
    /// How many of `queue` count against its limit.
    counted: usize,
    inflight: VecDeque<Inflight>,
    /// How many of `inflight`, from the front, were sent on this connection.
    sent: usize,
    /// What `queue` and `inflight` are charged for.
    bytes: Charge,
    last_id: u16,
}

/// Bytes of one client, and those of all together.
#[derive(Debug, Default)]
struct Charge {
    own: usize,
    all: Arc<AtomicU64>,
}

impl Charge {
    /// What is below a client's share fits however much the others have waiting.
    fn has_room(&self, cost: usize, limits: &Limits) -> bool {
        let own = self.own + cost;
        let all = self.all.load(Relaxed) as usize + cost;
        own <= limits.queue_bytes_max && (own <= QUEUE_BYTES_SHARE || all <= limits.queued_bytes_max)
    }

    fn add(&mut self, bytes: usize) {
        self.own += bytes;
        self.all.fetch_add(bytes as u64, Relaxed);
    }

    fn sub(&mut self, bytes: usize) {
        self.own -= bytes;
        self.all.fetch_sub(bytes as u64, Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own as u64, Relaxed);
    }
}

#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    /// Bytes it is charged for; 0 if it does not count (retained messages of a new subscription).
    cost: usize,
}

#[derive(Debug)]
struct Inflight {
    id: u16,
    qos: Qos,
    /// `None` once PUBREC came: then PUBREL is what is sent again.
    delivery: Option<Delivery>,
    cost: usize,
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
    /// Empty; what waits is added to `all`, in bytes.
    pub(crate) fn new(all: Arc<AtomicU64>) -> Outgoing {
        Outgoing {
            bytes: Charge { own: 0, all },
            ..Outgoing::default()
        }
    }

    /// Messages waiting, those that do not count included.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// True if another message fits; expired ones make room if need be.
    pub(crate) fn has_room(&mut self, delivery: &Delivery, queue_max: usize, limits: &Limits, now: Instant) -> bool {
        let cost = delivery.message.cost_bytes();
        let fits = |this: &Outgoing| this.counted < queue_max && this.bytes.has_room(cost, limits);
        if fits(self) {
            return true;
        }
        self.keep(|waiting| !waiting.message.expired(now));
        fits(self)
    }

    /// Keep some of what waits.
    fn keep(&mut self, keep: impl Fn(&Delivery) -> bool) {
        self.queue.retain(|waiting| {
            let kept = keep(&waiting.delivery);
            if !kept {
                self.bytes.sub(waiting.cost);
                self.counted -= usize::from(waiting.cost > 0);
            }
            kept
        });
    }

    /// Add a message for which there is room.
    pub(crate) fn push(&mut self, delivery: Delivery) {
        let cost = delivery.message.cost_bytes();
        self.bytes.add(cost);
        self.counted += 1;
        self.queue.push_back(Waiting { delivery, cost });
    }

    /// Add a message beside the limits.
    pub(crate) fn push_uncounted(&mut self, delivery: Delivery) {
        self.queue.push_back(Waiting { delivery, cost: 0 });
    }

    /// The client is gone: QoS 0 messages are not kept for it.
    pub(crate) fn forget_qos0(&mut self) {
        self.keep(|waiting| waiting.qos != Qos::AtMostOnce);
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
                Some(next) if next.delivery.qos != Qos::AtMostOnce && !window_open => break,
                Some(_) => {}
            }
            let Some(next) = self.queue.pop_front() else { break };
            self.counted -= usize::from(next.cost > 0);
            self.send(next, out, to, now, &mut filled);
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
    fn send(&mut self, next: Waiting, out: &mut Vec<u8>, to: &mut Recipient, now: Instant, filled: &mut Filled) {
        let Waiting { delivery, cost } = next;
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
                cost,
                dup: false,
            });
            self.sent += 1;
        } else {
            self.bytes.sub(cost);
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
            self.bytes.sub(entry.cost);
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
        let entry = &mut self.inflight[at];
        entry.delivery = None;
        self.bytes.sub(std::mem::take(&mut entry.cost));
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
