//! An MQTT 3.1.1 and 5 server endpoint that acknowledges when told to.
//!
//! A broker acknowledges a message when the broker has it. Here the application decides: a message to a topic that
//! [`Access::intercepts`] is handed to the [`Application`] with an [`Ack`], and PUBACK waits for it, for example until a journal has it on disk.
//! All other topics are routed as a broker would. Both protocol versions are served on one listener. The endpoint knows no
//! domain: topics, credentials and rights are the caller's, asked through [`Access`].
//!
//! Invariants
//! - No message is acknowledged that was neither routed nor accepted by the application. When the application's queue is
//!   full, nothing is read from the clients that have something for it; nothing is dropped.
//! - Acknowledgements of one connection leave in the order in which the messages came.
//! - For one client, [`Inbound::Connected`] comes before its messages and [`Inbound::Disconnected`] after them. A taken-over
//!   connection is gone, and has said so, before the new one is accepted.
//! - Whatever a peer sends, memory stays within [`Limits`] and nothing panics: bytes that are not MQTT close the connection,
//!   with one line in the log.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use mqtt_endpoint::{Access, ConnectDenied, ConnectRequest, Endpoint, Inbound, Limits, Qos};
//! struct Open;
//! impl Access for Open {
//!     fn connect(&self, _: &ConnectRequest<'_>) -> Result<(), ConnectDenied> { Ok(()) }
//!     fn may_publish(&self, _: &str, _: &str) -> bool { true }
//!     fn may_subscribe(&self, _: &str, _: &str) -> bool { true }
//!     fn intercepts(&self, topic: &str) -> bool { topic.ends_with("/up") }
//! }
//!
//! # async fn example() -> std::io::Result<()> {
//! let (sender, mut inbound) = tokio::sync::mpsc::channel(64);
//! let endpoint = Endpoint::bind(([127, 0, 0, 1], 0).into(), Limits::default(), Arc::new(Open), sender).await?;
//! let handle = endpoint.handle();
//! while let Some(event) = inbound.recv().await {
//!     if let Inbound::Publish { client_id, payload, ack, .. } = event {
//!         // ... make it durable, then:
//!         let _ = handle.publish(&format!("{client_id}/down"), &payload, Qos::AtLeastOnce, false);
//!         ack.accept();
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod access;
mod admission;
mod application;
mod connection;
mod counters;
mod decode;
mod encode;
mod endpoint;
mod exchange;
mod gate;
mod handle;
mod hello;
mod inbound;
pub mod limits;
mod mailbox;
mod message;
mod outgoing;
mod rate;
mod reason;
mod router;
mod session;
mod shared;
mod stream;
mod subscriptions;
mod topic;

pub use access::{Access, ConnectDenied, ConnectRequest, Protocol};
pub use application::{Application, NotTaken, Place, Room};
pub use counters::Counters;
pub use endpoint::Endpoint;
pub use handle::{Handle, PublishError, Published};
pub use inbound::{Ack, DisconnectReason, Inbound, Refusal};
pub use limits::Limits;
pub use message::Qos;
