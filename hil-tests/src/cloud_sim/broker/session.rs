//! What a broker keeps of a client: what it subscribed to, what it has not acknowledged, and what waits for it.

use std::collections::VecDeque;

use super::{
    Conn, Message,
    packet::{self, Publish},
};

/// Messages without a PUBACK, as with the vendors.
const INFLIGHT_MAX: usize = 100;
/// Messages that wait for a client; the oldest go first.
const WAITING_MAX: usize = 2_048;

#[derive(Debug)]
pub(super) struct Session {
    /// Its connection, while there is one.
    pub(super) conn: Option<Conn>,
    pub(super) version: u8,
    pub(super) filters: Vec<(String, u8)>,
    /// How long it lives without a connection, in ms.
    pub(super) kept_ms: u64,
    /// When it was left.
    pub(super) left_ms: u64,
    next_id: u16,
    inflight: VecDeque<Publish>,
    waiting: VecDeque<Publish>,
    /// Of the waiting ones, so many were there when the client came back, and the next may go then.
    stored: usize,
    next_stored_ms: u64,
}

impl Session {
    pub(super) fn new(conn: Conn, version: u8, kept_ms: u64) -> Self {
        Self {
            conn: Some(conn),
            version,
            filters: Vec::new(),
            kept_ms,
            left_ms: 0,
            next_id: 0,
            inflight: VecDeque::new(),
            waiting: VecDeque::new(),
            stored: 0,
            next_stored_ms: 0,
        }
    }

    /// The QoS under which a topic is wanted; the highest, if several filters have it.
    pub(super) fn wants(&self, topic: &str) -> Option<u8> {
        let fitting = self.filters.iter().filter(|(filter, _)| packet::matches(filter, topic));
        fitting.map(|(_, qos)| *qos).max()
    }

    pub(super) fn subscribe(&mut self, filter: &str, qos: u8) {
        self.unsubscribe(filter);
        self.filters.push((filter.to_owned(), qos));
    }

    pub(super) fn unsubscribe(&mut self, filter: &str) {
        self.filters.retain(|(known, _)| known != filter);
    }

    /// The client came back: what it did not acknowledge is sent again.
    pub(super) fn resume(&mut self, conn: Conn, version: u8, now_ms: u64) -> Vec<Vec<u8>> {
        (self.conn, self.version) = (Some(conn), version);
        (self.stored, self.next_stored_ms) = (self.waiting.len(), now_ms);
        let again = self.inflight.iter();
        again.map(|publish| packet::delivery(version, publish, true)).collect()
    }

    /// A message for the client, which wants it with this QoS at most. Whether it was kept.
    pub(super) fn add(&mut self, message: Message, wanted: u8) -> bool {
        let qos = message.qos.min(wanted);
        if self.conn.is_none() && qos == 0 {
            return false;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
            self.stored = self.stored.saturating_sub(1);
        }
        self.waiting.push_back(Publish {
            topic: message.topic,
            qos,
            id: 0,
            payload: message.payload,
        });
        true
    }

    pub(super) fn acknowledged(&mut self, id: u16) {
        self.inflight.retain(|publish| publish.id != id);
    }

    /// What may be sent now.
    pub(super) fn pump(&mut self, now_ms: u64, stored_a_second: u64) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while self.conn.is_some() && self.inflight.len() < INFLIGHT_MAX {
            if self.stored > 0 && stored_a_second > 0 {
                if now_ms < self.next_stored_ms {
                    break;
                }
                self.next_stored_ms = now_ms + 1_000 / stored_a_second;
            }
            let Some(mut publish) = self.waiting.pop_front() else {
                break;
            };
            self.stored = self.stored.saturating_sub(1);
            if publish.qos > 0 {
                self.next_id = self.next_id.checked_add(1).unwrap_or(1);
                publish.id = self.next_id;
            }
            sent.push(packet::delivery(self.version, &publish, false));
            if publish.qos > 0 {
                self.inflight.push_back(publish);
            }
        }
        sent
    }

    /// When the next stored message may go.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (self.conn.is_some() && self.stored > 0).then_some(self.next_stored_ms)
    }
}
