//! A cloud without order: it stands between a gateway and its hub, and what the hub orders it holds back, and tells again on
//! other connections, as long as anybody likes. It holds no key: this is what anybody between the two could do.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use proto::topic::{self, LinkDown};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
};

use crate::mqtt_wire::{self as wire, Publish, Splitter};

/// CONNECT, as the first half of its first byte.
const CONNECT: u8 = 1;
/// From the head of a CONNECT to its version: the name of the protocol, "MQTT", with its length.
const VERSION_AT: usize = 6;
/// Of MQTT 5, until a gateway says otherwise.
const VERSION: u8 = 5;

/// A running courier.
#[derive(Debug)]
pub struct Courier {
    address: SocketAddr,
    holds: watch::Sender<bool>,
    shared: Arc<Shared>,
    /// Ends with the courier, and everything it carries.
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Shared {
    /// Every order that came by, as topic and sealed frame.
    orders: Mutex<Vec<(String, Vec<u8>)>>,
    /// Whether each new connection begins with all of them.
    haunts: AtomicBool,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Vec<(String, Vec<u8>)>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Courier {
    /// Before `hub`, on a free loopback port.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start(hub: SocketAddr) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let (holds, held) = watch::channel(false);
        let shared = Arc::new(Shared::default());
        let sharing = shared.clone();
        runtime.spawn(async move {
            while let Ok((gateway, _)) = listener.accept().await {
                tokio::spawn(carry(gateway, hub, held.clone(), sharing.clone()));
            }
        });
        Ok(Self {
            address,
            holds,
            shared,
            _runtime: runtime,
        })
    }

    /// Where gateways connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds every order back, or lets go of those that it holds.
    pub fn hold(&self, holds: bool) {
        self.holds.send_replace(holds);
    }

    /// From now on each new connection begins with every order that ever came by, before anything else is heard on it.
    pub fn haunt(&self) {
        self.shared.haunts.store(true, Ordering::SeqCst);
    }

    /// How many orders came by.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.shared.orders().len()
    }
}

async fn carry(
    gateway: TcpStream,
    hub: SocketAddr,
    held: watch::Receiver<bool>,
    shared: Arc<Shared>,
) -> std::io::Result<()> {
    let upstream = TcpStream::connect(hub).await?;
    gateway.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (from_gateway, to_gateway) = gateway.into_split();
    let (from_hub, to_hub) = upstream.into_split();
    let (version, known) = watch::channel(VERSION);
    // Whichever way ends first takes the other with it.
    tokio::select! {
        ended = up(from_gateway, to_hub, version) => ended,
        ended = down(from_hub, to_gateway, known, held, shared) => ended,
    }
}

async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, version: watch::Sender<u8>) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let len = from.read(&mut bytes).await?;
        if len == 0 {
            return Ok(());
        }
        if bytes[0] >> 4 == CONNECT
            && let Some((_, digits)) = wire::varint(&bytes[1..len])
            && let Some(found) = bytes.get(1 + digits + VERSION_AT)
        {
            version.send_replace(*found);
        }
        to.write_all(&bytes[..len]).await?;
    }
}

async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    version: watch::Receiver<u8>,
    mut held: watch::Receiver<bool>,
    shared: Arc<Shared>,
) -> std::io::Result<()> {
    let mut splitter = Splitter::default();
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    let mut bytes = [0; 4096];
    let mut is_fresh = true;
    loop {
        tokio::select! {
            read = from.read(&mut bytes) => match read? {
                0 => return Ok(()),
                len => splitter.add(&bytes[..len]),
            },
            changed = held.changed() => if changed.is_err() { return Ok(()) },
        }
        let holds = *held.borrow_and_update();
        let version = *version.borrow();
        while let Some(packet) = splitter.next() {
            let Some(publish) = Publish::parse(&packet, version) else {
                to.write_all(&packet).await?;
                continue;
            };
            if std::mem::take(&mut is_fresh) && shared.haunts.load(Ordering::SeqCst) {
                let orders = shared.orders().clone();
                for (topic, frame) in &orders {
                    to.write_all(&wire::publish(topic, frame, version)).await?;
                }
            }
            if topic::parse_link_down(publish.topic).is_none_or(|at| at.word != LinkDown::Order) {
                to.write_all(&packet).await?;
                continue;
            }
            shared
                .orders()
                .push((publish.topic.to_owned(), publish.payload.to_owned()));
            waiting.push(packet);
        }
        if !holds {
            for packet in waiting.drain(..) {
                to.write_all(&packet).await?;
            }
        }
    }
}
