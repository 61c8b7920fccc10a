//! A wire that breaks: between a client and a server it carries bytes, and cuts, stalls, resets, corrupts or slows a
//! connection after as many bytes as its seed says, so that every stage is met: TCP, TLS, login, subscription, data.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Both ends are closed in order.
    Cut,
    /// The client gets a reset.
    Reset,
    /// Nothing passes any more, and nobody is told.
    Stall,
    /// One bit of what the server says is turned; then everything passes.
    Corrupt,
    /// A few bytes at a time from then on.
    Slow,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cut, Self::Reset, Self::Stall, Self::Corrupt, Self::Slow];
}

/// How the wire is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// It carries everything.
    Calm,
    /// Every connection meets a fault, sooner or later.
    Wild,
    /// It takes no connection, and those that stand are closed.
    Dark,
    /// Connections stand, and nothing passes.
    Still,
}

/// Bytes of the server's after which a fault comes: up to the first a connection is being made, up to the second it has
/// just been, up to the third it carries records. With TLS and a certificate chain a login is about 3 KiB.
const STAGES: [(u64, &str); 3] = [(3_000, "connecting"), (4_500, "logged in"), (7_000, "carrying")];
/// Bytes of a slow connection at a time ...
const SLOW_BYTES: usize = 64;
/// ... and the time between them.
const SLOW_EVERY: Duration = Duration::from_millis(20);

/// The wire.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    shared: Arc<Mutex<Shared>>,
    /// Ends with the proxy, and everything it carries.
    _runtime: Runtime,
}

#[derive(Debug)]
struct Shared {
    random: fastrand::Rng,
    met: BTreeMap<(Fault, &'static str), u32>,
    connections: u32,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Before `server`, on a free loopback port.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start(server: SocketAddr, seed: u64) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let (weather, watched) = watch::channel(Weather::Calm);
        let shared = Arc::new(Mutex::new(Shared {
            random: fastrand::Rng::with_seed(seed),
            met: BTreeMap::new(),
            connections: 0,
        }));
        let sharing = shared.clone();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, watched.clone(), sharing.clone()));
            }
        });
        Ok(Self {
            address,
            weather,
            shared,
            _runtime: runtime,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how the wire is, for connections that stand too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u32 {
        lock(&self.shared).connections
    }

    /// Which faults were met at which stage, how often.
    #[must_use]
    pub fn met(&self) -> BTreeMap<(Fault, &'static str), u32> {
        lock(&self.shared).met.clone()
    }
}

/// A fault to come, after so many bytes of the server's.
#[derive(Clone, Copy)]
struct Doom {
    fault: Fault,
    after_bytes: u64,
    stage: &'static str,
}

fn doom(shared: &Mutex<Shared>, weather: Weather) -> Option<Doom> {
    let mut shared = lock(shared);
    shared.connections += 1;
    if weather != Weather::Wild {
        return None;
    }
    let fault = Fault::ALL[shared.random.usize(..Fault::ALL.len())];
    let number = shared.random.usize(..STAGES.len());
    let least = number.checked_sub(1).map_or(0, |before| STAGES[before].0);
    let (most, stage) = STAGES[number];
    Some(Doom {
        fault,
        after_bytes: shared.random.u64(least..most),
        stage,
    })
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    shared: Arc<Mutex<Shared>>,
) -> Option<()> {
    let now = *weather.borrow_and_update();
    let doom = doom(&shared, now);
    if now == Weather::Dark {
        return None;
    }
    let upstream = TcpStream::connect(server).await.ok()?;
    client.set_nodelay(true).ok()?;
    upstream.set_nodelay(true).ok()?;
    // A reset is what the client sees of a socket that is closed with bytes unread and no time to linger.
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    let mut passed = 0_u64;
    let mut down = [0; 4096];
    let mut up = [0; 4096];
    let mut is_slow = false;
    let mut pending = doom;
    loop {
        let is_still = *weather.borrow() == Weather::Still;
        tokio::select! {
            changed = weather.changed() => {
                changed.ok()?;
                if *weather.borrow_and_update() == Weather::Dark {
                    return None;
                }
            }
            read = from_client.read(&mut up), if !is_still => {
                let len = read.ok().filter(|len| *len > 0)?;
                pass(&mut to_server, &up[..len], false).await?;
            }
            read = from_server.read(&mut down), if !is_still => {
                let len = read.ok().filter(|len| *len > 0)?;
                passed += len as u64;
                if let Some(doom) = pending.filter(|doom| passed > doom.after_bytes) {
                    pending = None;
                    *lock(&shared).met.entry((doom.fault, doom.stage)).or_default() += 1;
                    match doom.fault {
                        Fault::Cut => return None,
                        Fault::Reset => {
                            let client = from_client.reunite(to_client).ok()?;
                            client.set_zero_linger().ok()?;
                            return None;
                        }
                        Fault::Stall => stall(&mut from_client, &mut weather).await?,
                        Fault::Corrupt => down[len / 2] ^= 0x10,
                        Fault::Slow => is_slow = true,
                    }
                }
                pass(&mut to_client, &down[..len], is_slow).await?;
            }
        }
    }
}

/// Nothing passes until the client gives up.
async fn stall(client: &mut (impl AsyncRead + Unpin), weather: &mut watch::Receiver<Weather>) -> Option<()> {
    let mut lost = [0; 4096];
    loop {
        tokio::select! {
            read = client.read(&mut lost) => {
                read.ok().filter(|len| *len > 0)?;
            }
            changed = weather.changed() => {
                changed.ok()?;
                if *weather.borrow_and_update() == Weather::Dark {
                    return None;
                }
            }
        }
    }
}

async fn pass(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], is_slow: bool) -> Option<()> {
    if !is_slow {
        return to.write_all(bytes).await.ok();
    }
    for some in bytes.chunks(SLOW_BYTES) {
        to.write_all(some).await.ok()?;
        tokio::time::sleep(SLOW_EVERY).await; // How slow the wire is.
    }
    Some(())
}
