//! What all tasks of one endpoint hold. No global state: two endpoints in one process do not know of each other.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::access::Access;
use crate::application::{Application, deliver};
use crate::counters::{self, Counting};
use crate::gate::Gate;
use crate::inbound::{Ack, Inbound};
use crate::limits::Limits;
use crate::message::{Message, Will, shared_bytes};
use crate::rate::Telling;
use crate::router::{Routed, Router};
use crate::session::Session;

/// Limits, rules, router and counters of one endpoint. The sender to the application is not here but with the tasks that use
/// it, so that the application sees the end of its queue when the last of them is gone, even if a `Handle` lives on.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) access: Arc<dyn Access>,
    pub(crate) counting: Counting,
    pub(crate) gate: Gate,
    pub(crate) refusals: Telling,
    router: Mutex<Router>,
    /// Called when the last connection is gone.
    pub(crate) idle: Notify,
    /// True once `Endpoint::shutdown` was called: nobody is let in any more.
    closing: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(limits: Limits, access: Arc<dyn Access>) -> Shared {
        let counting = Counting::default();
        Shared {
            limits,
            access,
            router: Mutex::new(Router::new(counting.queued_bytes.clone())),
            counting,
            gate: Gate::default(),
            refusals: Telling::new(Instant::now()),
            idle: Notify::new(),
            closing: watch::Sender::new(false),
        }
    }

    pub(crate) fn router(&self) -> MutexGuard<'_, Router> {
        self.router.lock().expect("nothing panics while it holds the router")
    }

    /// A client that was told no is news; a thousand of them are one piece of news.
    pub(crate) fn tell_refusal(&self, peer: SocketAddr, reason: &dyn fmt::Display) {
        if let Some(untold) = self.refusals.next(Instant::now()) {
            tracing::info!(%peer, %reason, untold, "connection refused");
        }
    }

    /// Let nobody in any more.
    pub(crate) fn begin_closing(&self) {
        self.closing.send_replace(true);
    }

    /// Wait for `begin_closing`.
    pub(crate) async fn closing(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Route a message and count what was lost.
    pub(crate) fn publish(&self, message: Message, publisher: Option<u64>) -> Routed {
        let routed = self.router().publish(message, publisher, &self.limits, Instant::now());
        counters::add(
            &self.counting.dropped,
            routed.full as u64 + u64::from(routed.not_retained),
        );
        routed
    }

    /// Publish the will of a client that is lost, to the application or to subscribers, as if the client had.
    pub(crate) async fn publish_will(&self, session: &Session, will: Will, application: &Arc<dyn Application>) {
        let Will {
            mut message, expiry_s, ..
        } = will;
        if self.access.intercepts(&message.topic) {
            let event = Inbound::Publish {
                client_id: session.client_id.clone(),
                topic: message.topic,
                payload: shared_bytes(message.payload),
                qos: message.qos,
                retain: message.retain,
                dup: false,
                ack: Ack::none(),
            };
            // It only fails if the application is gone, and then nobody misses the will.
            let _ = deliver(application, event).await;
        } else {
            message.expires_at = expiry_at(expiry_s);
            self.publish(message, Some(session.id));
        }
    }

    /// A client identifier nobody has, for a client that sent none.
    pub(crate) fn assign_client_id(&self) -> String {
        loop {
            // The hasher's seed is random, so the identifier cannot be guessed by a client that would like to take it over.
            let id = format!(
                "auto-{:016x}",
                RandomState::new().hash_one(self as *const Shared as usize)
            );
            if !self.router().knows(&id) {
                return id;
            }
        }
    }
}

/// The instant a message published now expires.
pub(crate) fn expiry_at(expiry_s: Option<u32>) -> Option<Instant> {
    expiry_s.map(|seconds| Instant::now() + std::time::Duration::from_secs(u64::from(seconds)))
}
