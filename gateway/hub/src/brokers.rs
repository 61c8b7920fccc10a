//! Gateways behind a broker: the hub is a client there, and hears what they all say. The seals say who is who; the broker
//! is trusted with nothing.

use std::{collections::VecDeque, time::Duration};

use carrier::{
    Backoff, Connection, Event, Publish, Qos, STABLE_S, Sender, WhyUnsent,
    mqtt::{Options, Version},
    tls::Tls,
};
use proto::{
    link::LINK_FRAME_BYTES_MAX,
    topic::{self, Topic},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use crate::{
    engine::{Ack, Work},
    links::Route,
};

/// Frames that may wait for a broker: the parts of a full list, three times over, for one gateway at least.
pub const FRAMES_MAX: usize = 4096;
/// Longest wait between two attempts, in s.
const RECONNECT_S_MAX: u64 = 10;
/// How soon a full connection is tried again.
const AGAIN: Duration = Duration::from_millis(5);
/// Bytes of an MQTT packet around a frame.
const PACKET_OVERHEAD_BYTES: u32 = 1024;

/// One broker.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The operator's name for it.
    pub name: String,
    /// `host:port`.
    pub broker: String,
    /// Which MQTT.
    pub version: Version,
    /// Keep-alive, in s.
    pub keep_alive_s: u16,
    /// MQTT client id.
    pub client_id: String,
    /// User name and password; none: a certificate says who we are, or nobody asks.
    pub user: Option<(String, String)>,
    /// None: plain TCP.
    pub tls: Option<Tls>,
}

/// Hears and speaks at one broker, for ever. `number`: its place in the configuration.
pub async fn run(
    config: BrokerConfig,
    number: usize,
    engine: mpsc::Sender<Work>,
    mut frames: mpsc::Receiver<(Topic, Vec<u8>)>,
) {
    let mut backoff = Backoff::new(RECONNECT_S_MAX);
    loop {
        let options = Options {
            user: config.user.clone(),
            keep_alive_s: config.keep_alive_s,
            filters: vec![(topic::link_up_filter().to_string(), Qos::AtLeastOnce)],
            packet_bytes_max: LINK_FRAME_BYTES_MAX as u32 + PACKET_OVERHEAD_BYTES,
            version: config.version,
            tls: config.tls.clone(),
            ..Options::new(config.broker.clone(), config.client_id.clone())
        };
        let mut connection = Connection::open(&options);
        let Some((why, up)) = talk(&config.name, number, &mut connection, &engine, &mut frames).await else {
            return;
        };
        if engine.send(Work::BrokerLost(number)).await.is_err() {
            return;
        }
        if up.is_some_and(|up| up.elapsed().as_secs() >= STABLE_S) {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        warn!(
            broker = config.name,
            why,
            wait_ms = wait.as_millis() as u64,
            "no connection to the broker"
        );
        tokio::time::sleep(wait).await;
        // What waits is for gateways that say hello again anyway.
        while frames.try_recv().is_ok() {}
    }
}

/// One connection; why it ended and since when it stood, `None`: the engine is gone.
async fn talk(
    name: &str,
    number: usize,
    connection: &mut Connection,
    engine: &mpsc::Sender<Work>,
    frames: &mut mpsc::Receiver<(Topic, Vec<u8>)>,
) -> Option<(String, Option<Instant>)> {
    let sender = connection.sender();
    let mut waiting: VecDeque<Publish> = VecDeque::new();
    let mut up = None;
    loop {
        let again = Instant::now() + AGAIN;
        tokio::select! {
            event = connection.next() => match event {
                Event::Up => {
                    up = Some(Instant::now());
                    info!(broker = name, "gateways are reachable through the broker");
                }
                Event::Message(message) => {
                    let Some(at) = topic::parse_link_up(&message.topic) else {
                        message.ack.accept();
                        continue;
                    };
                    let ack = message.ack;
                    let work = Work::Frame {
                        client: (at.gateway, at.lane),
                        route: Route::Broker(number),
                        topic: message.topic,
                        frame: message.payload,
                        ack: Ack::new(move |_| ack.accept()),
                    };
                    engine.send(work).await.ok()?;
                }
                Event::Symptom(symptom) => warn!(broker = name, %symptom, "the broker is not well"),
                Event::Down(why) => return Some((why.to_string(), up)),
            },
            frame = frames.recv(), if waiting.is_empty() => {
                let (topic, payload) = frame?;
                if up.is_some() {
                    waiting.push_back(Publish {
                        topic: topic.to_string(),
                        payload,
                        qos: Qos::AtLeastOnce,
                        expires: None,
                    });
                }
            }
            () = sleep_until(again), if !waiting.is_empty() => {}
        }
        if let Some(why) = send(name, &sender, &mut waiting) {
            return Some((why, up));
        }
    }
}

fn send(name: &str, sender: &Sender, waiting: &mut VecDeque<Publish>) -> Option<String> {
    while let Some(publish) = waiting.pop_front() {
        let Err(unsent) = sender.send(publish) else { continue };
        match unsent.why {
            WhyUnsent::Full => {
                waiting.push_front(unsent.publish);
                return None;
            }
            WhyUnsent::Gone => return Some(unsent.to_string()),
            WhyUnsent::TooLarge { .. } | WhyUnsent::Topic => warn!(broker = name, %unsent, "frame not sent"),
        }
    }
    None
}
