//! Connections to clouds and brokers, and what their failures mean. It knows no domain: what travels are topics and bytes.
//!
//! Every connection is used once, from attempt to end, holds a small window, and says what happens as [`Event`]s.
//! Whoever owns it keeps what must not be lost, and connects again.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
mod connection;
pub mod http;
pub mod mqtt;
mod net;
pub mod symptom;
pub mod tls;

pub use crate::{
    backoff::{Backoff, STABLE_S},
    connection::{Ack, Connection, Event, Message, Publish, Qos, Sender, Unsent, WhyUnsent},
    symptom::{Class, Symptom},
};

/// Whether the way to another side is open: name, TCP and, if given, TLS with its certificates. Nothing is said there.
///
/// # Errors
/// What fails, within `within_s` seconds.
pub async fn reach(host: &str, port: u16, tls: Option<tls::Tls>, within_s: u16) -> Result<(), Symptom> {
    net::dial(host, port, tls, net::in_s(within_s)).await.map(drop)
}

/// `host:port` in two; `None` if it is not that.
#[must_use]
pub fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty() && port != 0).then_some((host.trim_start_matches('[').trim_end_matches(']'), port))
}
