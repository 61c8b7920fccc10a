//! Who gets a message: sessions by client id, subscriptions by filter, retained messages by topic.
//!
//! The router is a plain struct behind one mutex (see `endpoint::Shared`), not a task: `Handle::publish` must answer at once on
//! a thread outside the runtime, and a task would add two wake-ups to every device's round trip. The lock is held for a tree walk and a
//! few queue pushes, never across an await. Messages are queued under it, so that a new subscriber sees a retained message
//! and the live one that replaced it in that order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

use crate::decode::{SendRetained, Subscription};
use crate::limits::Limits;
use crate::mailbox::Mailbox;
use crate::message::{Delivery, Message, Qos, Will};
use crate::reason;
use crate::session::{Offer, Session};
use crate::subscriptions::{self, Subscriber, Subscriptions};
use crate::topic;

/// Everything clients share.
#[derive(Debug, Default)]
pub(crate) struct Router {
    sessions: HashMap<Arc<str>, Arc<Session>>,
    last_session_id: u64,
    subscriptions: Subscriptions,
    retained: Retained,
    /// What waits in all sessions, in bytes.
    queued_bytes: Arc<AtomicU64>,
}

/// The answer to a connection that wants a session.
#[derive(Debug)]
pub(crate) enum Attach {
    Attached {
        session: Arc<Session>,
        present: bool,
        /// The will of a session that a clean start has just ended.
        ended_will: Option<Will>,
    },
    /// Another connection holds it: close that one, wait until it is gone, ask again.
    Held(Arc<Mailbox>),
    /// No room for another session.
    Full,
}

/// How many sessions a message reached, by how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routed {
    pub(crate) delivered: usize,
    pub(crate) queued: usize,
    pub(crate) full: usize,
    /// It should have been retained, but there was no room.
    pub(crate) not_retained: bool,
}

impl Router {
    /// Without clients; what waits for them will be counted here, in bytes.
    pub(crate) fn new(queued_bytes: Arc<AtomicU64>) -> Router {
        Router {
            queued_bytes,
            ..Router::default()
        }
    }

    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn subscription_count(&self) -> usize {
        self.subscriptions.count()
    }

    pub(crate) fn retained_count(&self) -> usize {
        self.retained.messages.len()
    }

    pub(crate) fn knows(&self, client_id: &str) -> bool {
        self.sessions.contains_key(client_id)
    }

    /// The mailbox of a connected client.
    pub(crate) fn mailbox(&self, client_id: &str) -> Option<Arc<Mailbox>> {
        self.sessions
            .get(client_id)
            .and_then(|session| session.lock().mailbox.clone())
    }

    /// Mailboxes of all connected clients.
    pub(crate) fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.sessions
            .values()
            .filter_map(|session| session.lock().mailbox.clone())
            .collect()
    }

    /// Give `client_id` its session, or a new one.
    pub(crate) fn attach(
        &mut self,
        client_id: &Arc<str>,
        clean_start: bool,
        expiry_s: u32,
        mailbox: &Arc<Mailbox>,
        limits: &Limits,
    ) -> Attach {
        let mut ended_will = None;
        if let Some(session) = self.sessions.get(client_id).cloned() {
            let mut state = session.lock();
            if let Some(holder) = &state.mailbox {
                return Attach::Held(holder.clone());
            }
            if let Some(linger) = state.linger.take() {
                linger.abort();
            }
            // A client that comes back in time takes its will back.
            let will = state.waiting_will.take();
            if !clean_start {
                state.mailbox = Some(mailbox.clone());
                state.expiry_s = expiry_s;
                state.outgoing.restart();
                drop(state);
                return Attach::Attached {
                    session,
                    present: true,
                    ended_will: None,
                };
            }
            drop(state);
            ended_will = will;
            self.end(&session);
        }
        if self.sessions.len() >= limits.sessions_max {
            return Attach::Full;
        }
        self.last_session_id += 1;
        let session = Arc::new(Session::new(
            self.last_session_id,
            client_id.clone(),
            self.queued_bytes.clone(),
        ));
        {
            let mut state = session.lock();
            state.mailbox = Some(mailbox.clone());
            state.expiry_s = expiry_s;
        }
        self.sessions.insert(client_id.clone(), session.clone());
        Attach::Attached {
            session,
            present: false,
            ended_will,
        }
    }

    /// Remove a session and its subscriptions.
    pub(crate) fn end(&mut self, session: &Arc<Session>) {
        let filters = std::mem::take(&mut session.lock().filters);
        for filter in filters {
            self.subscriptions.remove(&filter, session.id);
        }
        if let Entry::Occupied(entry) = self.sessions.entry(session.client_id.clone())
            && entry.get().id == session.id
        {
            entry.remove();
        }
    }

    /// Stop all timers of absent sessions; what they hold is given up with the endpoint.
    pub(crate) fn abort_lingering(&self) {
        for session in self.sessions.values() {
            if let Some(linger) = session.lock().linger.take() {
                linger.abort();
            }
        }
    }

    /// Add or replace a subscription that was checked and allowed; queues its retained messages. Returns the SUBACK code.
    pub(crate) fn subscribe(
        &mut self,
        session: &Arc<Session>,
        wanted: &Subscription,
        identifier: Option<u32>,
        limits: &Limits,
        now: Instant,
    ) -> u8 {
        let mut state = session.lock();
        let known = state.filters.contains(&wanted.filter);
        if !known {
            if state.filters.len() >= limits.subscriptions_per_client_max {
                return reason::QUOTA_EXCEEDED;
            }
            state.filters.push(wanted.filter.clone());
        }
        let subscriber = Subscriber {
            session: session.clone(),
            qos: wanted.qos,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            identifier,
        };
        self.subscriptions.insert(&wanted.filter, subscriber);
        let send = match wanted.send_retained {
            SendRetained::Always => true,
            SendRetained::IfNew => !known,
            SendRetained::Never => false,
        };
        // Nobody knows which member of a shared subscription should get them, so the standard says none.
        if send && !subscriptions::is_shared(&wanted.filter) {
            let deliver = |message: &Arc<Message>| Delivery {
                message: message.clone(),
                qos: message.qos.min(wanted.qos),
                retain: true,
                subscription_ids: identifier.into_iter().collect(),
            };
            state.offer_retained(
                self.retained.matching(&wanted.filter, now).map(deliver).collect(),
                limits,
            );
        }
        wanted.qos as u8
    }

    /// Remove a subscription; true if there was one.
    pub(crate) fn unsubscribe(&mut self, session: &Session, filter: &str) -> bool {
        let removed = self.subscriptions.remove(filter, session.id);
        if removed {
            session.lock().filters.retain(|known| **known != *filter);
        }
        removed
    }

    /// Queue a message for everybody who subscribed to it, and retain it if it says so. `publisher` is the session it came from.
    pub(crate) fn publish(
        &mut self,
        message: Message,
        publisher: Option<u64>,
        limits: &Limits,
        now: Instant,
    ) -> Routed {
        let message = Arc::new(message);
        let mut routed = Routed::default();
        if message.retain {
            routed.not_retained = !self.retained.keep(&message, limits, now);
        }
        let matched = self.subscriptions.matching(&message.topic, publisher);
        // Overlapping subscriptions of one client make one delivery, with the highest QoS and all identifiers.
        for same in matched.chunk_by(|a, b| a.0 == b.0) {
            let granted = same.iter().map(|(_, s)| s.qos).max().unwrap_or(Qos::AtMostOnce);
            let delivery = Delivery {
                message: message.clone(),
                qos: message.qos.min(granted),
                retain: message.retain && same.iter().any(|(_, s)| s.retain_as_published),
                subscription_ids: same.iter().filter_map(|(_, s)| s.identifier).collect(),
            };
            match same[0].1.session.lock().offer(delivery, limits, now) {
                Offer::Delivered => routed.delivered += 1,
                Offer::Queued => routed.queued += 1,
                Offer::Absent => {}
                Offer::Full => routed.full += 1,
            }
        }
        routed
    }
}

/// The last message of each topic that was published to be retained.
#[derive(Debug, Default)]
struct Retained {
    messages: HashMap<Box<str>, Arc<Message>>,
    bytes: usize,
}

impl Retained {
    /// Keep, replace or (empty payload) remove; false if there is no room.
    fn keep(&mut self, message: &Arc<Message>, limits: &Limits, now: Instant) -> bool {
        if let Some(old) = self.messages.remove(&message.topic) {
            self.bytes -= old.cost_bytes();
        }
        if message.payload.is_empty() {
            return true;
        }
        let cost = message.cost_bytes();
        let fits = |this: &Retained| {
            this.messages.len() < limits.retained_max && this.bytes + cost <= limits.retained_bytes_max
        };
        if !fits(self) {
            self.messages.retain(|_, kept| !kept.expired(now));
            self.bytes = self.messages.values().map(|kept| kept.cost_bytes()).sum();
        }
        if !fits(self) {
            return false;
        }
        self.bytes += cost;
        self.messages.insert(message.topic.clone(), message.clone());
        true
    }

    fn matching<'a>(&'a self, filter: &'a str, now: Instant) -> impl Iterator<Item = &'a Arc<Message>> {
        // Most subscriptions hold no wildcard: those need no walk over all topics.
        let wild = filter.contains(['+', '#']);
        let exact = if wild { None } else { self.messages.get(filter) };
        let others = wild.then(|| {
            self.messages
                .iter()
                .filter(move |(name, _)| topic::matches(filter, name))
        });
        exact
            .into_iter()
            .chain(others.into_iter().flatten().map(|(_, message)| message))
            .filter(move |message| !message.expired(now))
    }
}
