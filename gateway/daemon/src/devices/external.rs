//! Devices behind an external broker. PUBACK of the broker means only that the broker has the message; ours, to the
//! broker, is sent after commit, so that it repeats what a crash would have lost.

use std::sync::{Arc, RwLock};

use tokio::{sync::mpsc, time::Instant};

use crate::{
    devices::{Ack, Heard, Opener},
    engine::Job,
    firmware::Firmware,
    mqtt::{Backoff, Connection, Event, Message, Options, STABLE_S, Sender},
};

/// The way out, replaced with every connection.
#[derive(Clone, Debug, Default)]
pub struct Outward(Arc<RwLock<Option<Sender>>>);

impl Outward {
    /// Sends, if there is a connection.
    ///
    /// # Errors
    /// If there is none, or its window is full.
    pub fn publish(&self, topic: &str, frame: Vec<u8>) -> Result<(), String> {
        let sender = self.0.read().expect("no panic happens under this lock");
        sender
            .as_ref()
            .ok_or_else(|| "no connection to the broker".to_owned())?
            .publish(topic, frame)
    }

    fn replace(&self, sender: Option<Sender>) {
        *self.0.write().expect("no panic happens under this lock") = sender;
    }
}

/// Receives for ever, connecting again as often as it takes.
pub async fn run(
    options: Options,
    opener: Arc<Opener>,
    outward: Outward,
    engine: mpsc::Sender<Job>,
    firmware: Firmware,
) {
    let mut backoff = Backoff::new(10);
    loop {
        let mut connection = Connection::open(&options);
        let since = Instant::now();
        let why = loop {
            match connection.next().await {
                Event::Up => {
                    tracing::info!(broker = options.broker, "devices are reachable through the broker");
                    outward.replace(Some(connection.sender()));
                }
                Event::Message(message) => {
                    if receive(&opener, &engine, &firmware, message).await.is_err() {
                        return;
                    }
                }
                Event::Down(why) => break why,
            }
        };
        outward.replace(None);
        if since.elapsed().as_secs() >= STABLE_S {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        tracing::warn!(
            broker = options.broker,
            why,
            wait_ms = wait.as_millis() as u64,
            "no connection to the broker"
        );
        tokio::time::sleep(wait).await;
    }
}

async fn receive(opener: &Opener, engine: &mpsc::Sender<Job>, firmware: &Firmware, message: Message) -> Result<(), ()> {
    match opener.open(None, &message.topic, &message.payload) {
        Ok((device, counter, Heard::Firmware(update))) => {
            firmware.heard(device, counter, update);
            message.ack.accept();
            Ok(())
        }
        Ok((device, counter, Heard::Core(said))) => {
            let job = Job::Device {
                device,
                counter,
                said,
                ack: Ack::External(message.ack),
            };
            engine.send(job).await.map_err(|_| ())
        }
        Err(bad) => {
            opener.complain(&message.topic, &bad);
            message.ack.accept();
            Ok(())
        }
    }
}
