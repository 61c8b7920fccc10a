//! A cloud that lies. It stands between a gateway and its hub on the wire, takes MQTT apart just far enough to see what
//! passes, and, told to, answers falsely, falls silent, goes away or throttles. It holds no key: whatever it says is
//! what anybody between the two could say.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::{
    codec,
    id::TokenHash,
    link::{Ask, Trouble, Upload},
    seal::OVERHEAD_BYTES,
    topic::{self, LinkDown, LinkUp},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::Instant,
};

use crate::mqtt_wire::{self as wire, Publish, Splitter};

/// What the cloud does to its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Carries everything.
    Honest,
    /// Acknowledges everything on the MQTT level, and answers every request with the false denial of 2023-11-12.
    Lying,
    /// An incomplete whitelist: questions about a stable part of the tokens, so many in a hundred, are denied as on
    /// 2023-11-12; everything else is carried.
    Partial(u8),
    /// Takes everything and answers nothing.
    Hanging,
    /// Closes every connection.
    Dark,
    /// Carries so many requests a second; the rest is told to slow down.
    Throttled(u32),
}

/// The text that clients saw on 2023-11-12, and see for a key that really does not exist.
pub const FALSE_DENIAL: &str = "InvalidAccessKeyId.NotFound: Specified access key is not found.";
/// The text of a cloud that recovers.
pub const THROTTLED: &str = "Throttling.User: Request was denied due to user flow control.";

/// What passed so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// False denials told.
    pub denied: AtomicU64,
    /// Messages swallowed in silence.
    pub swallowed: AtomicU64,
    /// Requests told to slow down.
    pub throttled: AtomicU64,
    /// Connections refused or closed.
    pub closed: AtomicU64,
}

/// A running cloud.
#[derive(Debug)]
pub struct CloudSim {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    counters: Arc<Counters>,
}

impl CloudSim {
    /// Stands before `hub` on a free loopback port.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(hub: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (mode, watched) = watch::channel(Mode::Honest);
        let counters = Arc::new(Counters::default());
        let counting = counters.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (watched, counting) = (watched.clone(), counting.clone());
                tokio::spawn(async move {
                    // A broken connection is this program's business, not its failure.
                    let _ = carry(stream, hub, watched, counting).await;
                });
            }
        });
        Ok(Self {
            address,
            mode,
            counters,
        })
    }

    /// Where gateways connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does, for connections that stand too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// What passed so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

struct Conversation {
    mode: watch::Receiver<Mode>,
    counters: Arc<Counters>,
    to_gateway: OwnedWriteHalf,
    to_hub: OwnedWriteHalf,
    version: u8,
    allowance: f64,
    refilled: Instant,
}

async fn carry(
    gateway: TcpStream,
    hub: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    counters: Arc<Counters>,
) -> std::io::Result<()> {
    if *mode.borrow_and_update() == Mode::Dark {
        counters.closed.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let upstream = TcpStream::connect(hub).await?;
    gateway.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut from_gateway, to_gateway) = gateway.into_split();
    let (mut from_hub, to_hub) = upstream.into_split();
    let counted = counters.clone();
    let mut conversation = Conversation {
        mode: mode.clone(),
        counters,
        to_gateway,
        to_hub,
        version: 4,
        allowance: 0.0,
        refilled: Instant::now(),
    };
    let (mut up, mut down) = (Splitter::default(), Splitter::default());
    loop {
        tokio::select! {
            read = fill(&mut from_gateway, &mut up) => if !read? { return Ok(()) },
            read = fill(&mut from_hub, &mut down) => if !read? { return Ok(()) },
            changed = mode.changed() => if changed.is_err() { return Ok(()) },
        }
        if *mode.borrow_and_update() == Mode::Dark {
            counted.closed.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        while let Some(packet) = up.next() {
            conversation.up(&packet).await?;
        }
        while let Some(packet) = down.next() {
            conversation.down(&packet).await?;
        }
    }
}

async fn fill(from: &mut OwnedReadHalf, splitter: &mut Splitter) -> std::io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    let len = from.read(&mut buffer).await?;
    splitter.add(&buffer[..len]);
    Ok(len > 0)
}

impl Conversation {
    /// A packet of the gateway.
    async fn up(&mut self, packet: &[u8]) -> std::io::Result<()> {
        if let Some(version) = wire::connect_version(packet) {
            self.version = version;
        }
        let mode = *self.mode.borrow();
        match mode {
            Mode::Honest | Mode::Dark => self.to_hub.write_all(packet).await,
            Mode::Hanging => {
                self.counters.swallowed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Mode::Lying => match Publish::parse(packet, self.version) {
                Some(publish) => {
                    self.counters.denied.fetch_add(1, Ordering::Relaxed);
                    self.reject(&publish, 404, FALSE_DENIAL).await
                }
                None => self.to_hub.write_all(packet).await,
            },
            Mode::Partial(percent) => match Publish::parse(packet, self.version) {
                Some(publish) if asked(&publish).is_some_and(|ask| leaves_out(percent, &ask.token)) => {
                    self.counters.denied.fetch_add(1, Ordering::Relaxed);
                    self.reject(&publish, 404, FALSE_DENIAL).await
                }
                Some(_) | None => self.to_hub.write_all(packet).await,
            },
            Mode::Throttled(rate) => match Publish::parse(packet, self.version) {
                Some(publish) if !self.allow(rate) => {
                    self.counters.throttled.fetch_add(1, Ordering::Relaxed);
                    self.reject(&publish, 429, THROTTLED).await
                }
                Some(_) | None => self.to_hub.write_all(packet).await,
            },
        }
    }

    /// A packet of the hub.
    async fn down(&mut self, packet: &[u8]) -> std::io::Result<()> {
        let mode = *self.mode.borrow();
        match mode {
            Mode::Hanging => Ok(()),
            // A lying cloud keeps the link alive and delivers nothing of the operator's.
            Mode::Lying if Publish::parse(packet, self.version).is_some() => Ok(()),
            Mode::Lying | Mode::Honest | Mode::Dark | Mode::Partial(_) | Mode::Throttled(_) => {
                self.to_gateway.write_all(packet).await
            }
        }
    }

    fn allow(&mut self, rate: u32) -> bool {
        let now = Instant::now();
        let refill = (now - self.refilled).as_secs_f64() * f64::from(rate);
        self.refilled = now;
        self.allowance = (self.allowance + refill).min(f64::from(rate));
        let allowed = self.allowance >= 1.0;
        if allowed {
            self.allowance -= 1.0;
        }
        allowed
    }

    /// PUBACK, so that the link looks healthy, and the cloud's own words instead of the operator's answer.
    async fn reject(&mut self, publish: &Publish<'_>, code: u16, text: &str) -> std::io::Result<()> {
        if let Some(id) = publish.packet_id {
            self.to_gateway.write_all(&wire::puback(id)).await?;
        }
        let Some((site, gateway, word)) = topic::parse_link_up(publish.topic) else {
            return Ok(());
        };
        let ask = match word {
            LinkUp::Ask => asked(publish).map_or(0, |ask| ask.ask),
            LinkUp::Hello | LinkUp::Records | LinkUp::Echo | LinkUp::Telemetry => 0,
        };
        let trouble = Trouble {
            ask,
            code,
            text: text.to_owned(),
        };
        let topic = topic::link_down(&site, &gateway, LinkDown::Trouble);
        self.to_gateway
            .write_all(&wire::publish(&topic, &codec::to_vec(&trouble), self.version))
            .await
    }
}

/// The question in a publish; `None` if it is something else.
fn asked(publish: &Publish<'_>) -> Option<Ask> {
    let (_, _, word) = topic::parse_link_up(publish.topic)?;
    match word {
        LinkUp::Ask => codec::decode(body(publish.payload)?).ok(),
        LinkUp::Hello | LinkUp::Records | LinkUp::Echo | LinkUp::Telemetry => None,
    }
}

/// Whether the whitelist that lacks so many in a hundred lacks this token: always the same ones.
#[must_use]
pub fn leaves_out(percent: u8, token: &TokenHash) -> bool {
    u16::from_be_bytes([token.0[0], token.0[1]]) % 100 < u16::from(percent)
}

/// The body of a sealed frame, without its key: sealing is not encryption.
fn body(frame: &[u8]) -> Option<&[u8]> {
    const HEADER_BYTES: usize = 9;
    let len = frame.len().checked_sub(OVERHEAD_BYTES)?;
    frame.get(HEADER_BYTES..HEADER_BYTES + len)
}

/// Ledger records in a sealed upload, for those who count what passes.
#[must_use]
pub fn records_in(frame: &[u8]) -> usize {
    body(frame)
        .and_then(|body| codec::decode::<Upload>(body).ok())
        .map_or(0, |upload| upload.records.len())
}

/// Time enough for a mode to be noticed on every connection.
pub const NOTICE: Duration = Duration::from_millis(50);
