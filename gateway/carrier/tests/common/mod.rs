//! What the tests share: patience, certificates made on the spot, a real mosquitto, and a proxy that misbehaves.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part; tests fail by panic"
)]

pub mod backend;
pub mod broker;
pub mod certs;
pub mod proxy;

use std::{future::Future, time::Duration};

use carrier::{Connection, Event, Symptom};

/// Until when something that must happen has to. Only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Wait for something that must happen.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// The next event is [`Event::Up`].
pub async fn up(connection: &mut Connection) {
    match soon("up", connection.next()).await {
        Event::Up => {}
        other => panic!("instead of up: {other:?}"),
    }
}

/// Whatever else comes, the connection ends.
pub async fn down(connection: &mut Connection) -> Symptom {
    soon("down", async {
        loop {
            if let Event::Down(symptom) = connection.next().await {
                return symptom;
            }
        }
    })
    .await
}

/// The next event is a message; it is accepted.
pub async fn message(connection: &mut Connection) -> (String, Vec<u8>) {
    match soon("a message", connection.next()).await {
        Event::Message(message) => {
            message.ack.accept();
            (message.topic, message.payload.to_vec())
        }
        other => panic!("instead of a message: {other:?}"),
    }
}
