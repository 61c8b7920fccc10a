//! Devices behind an external broker. PUBACK of the broker means only that the broker has the message; ours, to the
//! broker, is sent after commit, so that it repeats what a crash would have lost.

use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock},
};

use carrier::mqtt::{Backoff, Connection, Event, Message, Options, STABLE_S, Sender};
use proto::{id::DeviceId, topic};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    devices::{Ack, Heard, Opener},
    engine::Job,
    firmware::Firmware,
};

/// The way out, replaced with every connection.
#[derive(Clone, Debug, Default)]
pub struct Outward(Arc<RwLock<Open>>);

/// What is known while there is a connection.
#[derive(Debug, Default)]
struct Open {
    sender: Option<Sender>,
    /// Devices that say they are connected, and whose will has not said otherwise.
    present: BTreeSet<DeviceId>,
}

impl Outward {
    /// Sends, if there is a connection.
    ///
    /// # Errors
    /// If there is none, or its window is full.
    pub fn publish(&self, topic: &str, frame: Vec<u8>) -> Result<(), String> {
        let open = self.0.read().expect("no panic happens under this lock");
        open.sender
            .as_ref()
            .ok_or_else(|| "no connection to the broker".to_owned())?
            .publish(topic, frame)
    }

    /// How many of these devices say that they are connected; `None`: the broker cannot be asked.
    pub(super) fn connected<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>) -> Option<usize> {
        let open = self.0.read().expect("no panic happens under this lock");
        open.sender.as_ref()?;
        Some(devices.filter(|device| open.present.contains(device)).count())
    }

    /// A connection stands. What its broker said of who is present may have come before.
    fn open(&self, sender: Sender) {
        self.0.write().expect("no panic happens under this lock").sender = Some(sender);
    }

    /// It is gone, and with it what was known of who is present: the broker tells it anew.
    fn close(&self) {
        *self.0.write().expect("no panic happens under this lock") = Open::default();
    }

    fn note(&self, device: DeviceId, is_present: bool) {
        let mut open = self.0.write().expect("no panic happens under this lock");
        if is_present {
            open.present.insert(device);
        } else {
            open.present.remove(&device);
        }
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
        let mut up = None;
        let why = loop {
            match connection.next().await {
                Event::Up => {
                    up = Some(Instant::now());
                    tracing::info!(broker = options.broker, "devices are reachable through the broker");
                    outward.open(connection.sender());
                }
                Event::Message(message) => {
                    if receive(&opener, &outward, &engine, &firmware, message).await.is_err() {
                        return;
                    }
                }
                Event::Symptom(symptom) => tracing::warn!(%symptom, "the broker is not well"),
                Event::Down(why) => break why,
            }
        };
        outward.close();
        if up.is_some_and(|up| up.elapsed().as_secs() >= STABLE_S) {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        tracing::warn!(
            broker = options.broker,
            %why,
            wait_ms = wait.as_millis() as u64,
            "no connection to the broker"
        );
        tokio::time::sleep(wait).await;
    }
}

async fn receive(
    opener: &Opener,
    outward: &Outward,
    engine: &mpsc::Sender<Job>,
    firmware: &Firmware,
    message: Message,
) -> Result<(), ()> {
    if let Some(device) = topic::parse_presence(&message.topic).filter(|device| opener.knows(device)) {
        outward.note(device, &*message.payload == topic::PRESENT);
        message.ack.accept();
        return Ok(());
    }
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
