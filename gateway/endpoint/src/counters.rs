//! What the endpoint counts, for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the endpoint began, and gauges of now. Read with `Handle::counters`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Gauge: open connections, those that have not sent CONNECT included.
    pub connections: u64,
    /// Gauge: sessions, connected or away.
    pub sessions: u64,
    /// Gauge: subscriptions.
    pub subscriptions: u64,
    /// Gauge: retained messages.
    pub retained: u64,
    /// Gauge: open connections that have not been let in yet.
    pub pending: u64,
    /// Gauge: bytes of the messages that wait for clients.
    pub queued_bytes: u64,
    /// Connections accepted from the listener or attached.
    pub accepted: u64,
    /// Connections closed on arrival because of `Limits::connections_max`.
    pub over_limit: u64,
    /// The same because of `Limits::connections_per_address_max`.
    pub over_address_limit: u64,
    /// The same because of `Limits::pending_max` or `Limits::pending_per_address_max`.
    pub over_pending_limit: u64,
    /// Connections closed because TLS or CONNECT was not complete in time.
    pub connect_timeouts: u64,
    /// Connections closed because TLS was not as asked: no certificate, or not one of ours.
    pub tls_refused: u64,
    /// CONNECTs refused because the client connects too often (counted in `connects_refused`, too).
    pub connects_too_often: u64,
    /// Times a client was read more slowly because it was above its rate.
    pub throttled: u64,
    /// CONNECTs refused: credentials, identifier, version, no room.
    pub connects_refused: u64,
    /// Connections closed for bytes that are not MQTT as allowed here.
    pub violations: u64,
    /// PUBLISH packets received.
    pub received: u64,
    /// PUBLISH packets refused because the client may not publish there.
    pub forbidden: u64,
    /// PUBLISH packets sent, resent ones included.
    pub sent: u64,
    /// Messages given up: expired, too large for the client, no room in the queue of a client.
    pub dropped: u64,
    /// Clients cut because they did not read.
    pub slow_consumers: u64,
    /// Connections closed because the application dropped an `Ack`.
    pub acks_dropped: u64,
}

/// The same as atomics; gauges of the router are read from it.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) connections: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) over_limit: AtomicU64,
    pub(crate) over_address_limit: AtomicU64,
    pub(crate) over_pending_limit: AtomicU64,
    pub(crate) connect_timeouts: AtomicU64,
    pub(crate) tls_refused: AtomicU64,
    pub(crate) connects_too_often: AtomicU64,
    pub(crate) throttled: AtomicU64,
    /// Shared with every session, which adds and takes away what waits in it.
    pub(crate) queued_bytes: Arc<AtomicU64>,
    pub(crate) connects_refused: AtomicU64,
    pub(crate) violations: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) forbidden: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) slow_consumers: AtomicU64,
    pub(crate) acks_dropped: AtomicU64,
}

/// Count one more. Relaxed: nothing is ordered by a metric.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    if more > 0 {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// Read a counter.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
