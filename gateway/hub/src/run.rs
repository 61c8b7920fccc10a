//! `holdfast-hub run`: puts store, engine, endpoint and control socket together, and takes them apart in order.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use mqtt_endpoint::{Endpoint, Inbound, Limits, Qos, Refusal};
use proto::{
    artifact::LIST_ENTRIES_MAX,
    link::LINK_FRAME_BYTES_MAX,
    topic::{self, Topic},
};
use service::Heart;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{error, info, warn};

use crate::{
    access::GatewayAccess,
    brokers::{self, FRAMES_MAX},
    config::{self, Config, GATEWAYS_MAX},
    control::{self, Door},
    core::{Catalogue, Hub},
    engine::{Ack, Engine, QUEUE_MAX, Sender, Work},
    links::Route,
    seed::{self, SeedError},
    store::{Store, StoreError},
};

/// Bytes of an MQTT packet around a frame: header, topic, properties.
const PACKET_OVERHEAD_BYTES: u32 = 1024;
/// Most bytes that may wait for one gateway: a full list at 80 bytes an entry, and the answers behind it.
const QUEUE_BYTES_MAX: usize = LIST_ENTRIES_MAX * 80 + 4 * 1024 * 1024;
/// Most messages that may wait for one gateway: the parts of such a list, three times over.
const QUEUE_MESSAGES_MAX: usize = 2048;
/// How often the engine is told that time passed.
const TICK: Duration = Duration::from_secs(1);

/// Why the hub ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory cannot be made.
    #[error("{}: {error}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The seed file cannot be used and there is nothing else to start with.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The control socket cannot be made.
    #[error("control socket {}: {error}", path.display())]
    Control {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system refused something basic.
    #[error("{0}")]
    System(io::Error),
    /// The engine panicked: a bug. What was acknowledged is safe.
    #[error("the engine stopped unexpectedly")]
    Engine,
}

/// Runs the hub until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let data_dir = &config.data_dir;
    fs::create_dir_all(data_dir).map_err(|error| RunError::DataDir {
        path: data_dir.clone(),
        error,
    })?;
    warn_of_readable_secrets(&config.secrets_file);
    let (store, hub) = Store::open(data_dir, true)?;
    let seed = first_seed(&config, &hub)?;
    let (inbound_sender, inbound) = mpsc::channel(QUEUE_MAX);
    let access = Arc::new(GatewayAccess::new(config.gateways.clone()));
    let endpoint = Endpoint::bind(config.listen, limits(), access, inbound_sender)
        .await
        .map_err(|error| RunError::Listen {
            address: config.listen,
            error,
        })?;
    let address = endpoint.local_addr();
    let (queue, work) = mpsc::channel(QUEUE_MAX);
    let door = Arc::new(Door {
        engine: queue.clone(),
        reader: store.reader(),
        token_key: config.token_key.clone(),
        seed_file: config.seed_file.clone(),
    });
    let control = control::listen(&config.control_socket).map_err(|error| RunError::Control {
        path: config.control_socket.clone(),
        error,
    })?;
    let (ways, inboxes): (Vec<_>, Vec<_>) = config.brokers.iter().map(|_| mpsc::channel(FRAMES_MAX)).unzip();
    let heart = Heart::default();
    let engine = Engine::start(&config, store, hub, address.to_string(), sender(&endpoint, ways))?;
    let engine = engine.with_heart(heart.clone());
    let mut engine = spawn_engine(engine, work)?;
    if let Some(catalogue) = seed {
        let (reply, _) = oneshot::channel();
        // Before the first gateway is heard. A refusal is logged by the engine; what is known stays.
        let _ = queue.send(Work::Import(catalogue, reply)).await;
    }
    for (number, (broker, inbox)) in config.brokers.iter().zip(inboxes).enumerate() {
        tokio::spawn(brokers::run(broker.clone(), number, queue.clone(), inbox));
    }
    let status = format!("serving {} gateways at {address}", config.gateways.len());
    let tasks = [
        tokio::spawn(forward(inbound, queue.clone())),
        tokio::spawn(tick(queue.clone())),
        tokio::spawn(control::serve(control, Arc::clone(&door))),
        tokio::spawn(service::watch(heart, move || status.clone())),
    ];
    info!(%address, "listening");
    service::ready("listening");
    let ended = tokio::select! {
        ended = &mut engine => Some(ended),
        () = signals.serve(&door) => None,
    };
    service::stopping("closing the books");
    let ended = match ended {
        Some(ended) => ended,
        None => {
            info!("stopping");
            let _ = queue.send(Work::Stop).await;
            engine.await
        }
    };
    endpoint.shutdown().await;
    tasks.iter().for_each(JoinHandle::abort);
    if let Err(error) = fs::remove_file(&config.control_socket) {
        warn!(%error, "control socket not removed");
    }
    ended.map_err(|_| RunError::Engine)??;
    info!("stopped");
    Ok(())
}

fn warn_of_readable_secrets(path: &Path) {
    if service::credential(config::SECRETS).as_deref() == Some(path) {
        return;
    }
    const OTHERS: u32 = 0o077;
    let mode = fs::metadata(path).map_or(0, |file| file.permissions().mode());
    if mode & OTHERS != 0 {
        warn!(path = %path.display(), "the secrets file is open to others; make it mode 600");
    }
}

fn first_seed(config: &Config, hub: &Hub) -> Result<Option<Catalogue>, SeedError> {
    let Some(path) = &config.seed_file else {
        return Ok(None);
    };
    match seed::load(path, &config.token_key) {
        Ok(catalogue) => Ok(Some(catalogue)),
        // A broken file must not keep a hub dark that knows its tokens already.
        Err(reason) if !hub.tokens().is_empty() => {
            error!(%reason, "seed file refused; going on with what is known");
            Ok(None)
        }
        Err(reason) => Err(reason),
    }
}

fn limits() -> Limits {
    Limits {
        connections_max: GATEWAYS_MAX * 2,
        sessions_max: GATEWAYS_MAX * 2,
        packet_bytes_max: LINK_FRAME_BYTES_MAX as u32 + PACKET_OVERHEAD_BYTES,
        outbound_queue_max: QUEUE_MESSAGES_MAX,
        queue_bytes_max: QUEUE_BYTES_MAX,
        ..Limits::default()
    }
}

fn sender(endpoint: &Endpoint, brokers: Vec<mpsc::Sender<(Topic, Vec<u8>)>>) -> Sender {
    let handle = endpoint.handle();
    Box::new(move |gateway, route, topic, frame| {
        // One quality of service for all: mixed ones may overtake each other, and the seals' counters must not.
        let sent = match route {
            Route::Endpoint => handle
                .publish(&topic, &frame, Qos::AtLeastOnce, false)
                .map(drop)
                .map_err(|error| error.to_string()),
            Route::Broker(number) => match brokers.get(number) {
                Some(broker) => broker
                    .try_send((topic.clone(), frame))
                    .map_err(|error| error.to_string()),
                None => Err("no such broker".to_owned()),
            },
        };
        if let Err(error) = sent {
            warn!(%gateway, topic = topic.as_str(), %error, "frame not sent");
        }
    })
}

/// The engine blocks on the disk, so it has a thread of its own.
fn spawn_engine(
    engine: Engine,
    work: mpsc::Receiver<Work>,
) -> Result<oneshot::Receiver<Result<(), StoreError>>, RunError> {
    let (done, ended) = oneshot::channel();
    thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            // Whoever waits for it ends with the process.
            let _ = done.send(engine.run(work));
        })
        .map_err(RunError::System)?;
    Ok(ended)
}

async fn forward(mut inbound: mpsc::Receiver<Inbound>, queue: mpsc::Sender<Work>) {
    while let Some(event) = inbound.recv().await {
        if let Some(work) = work_of(event) {
            // When the engine has ended, its connections end, too; until then the queue has to be emptied.
            let _ = queue.send(work).await;
        }
    }
}

fn work_of(event: Inbound) -> Option<Work> {
    match event {
        Inbound::Connected { client_id, .. } => topic::parse_link_client(&client_id).map(Work::Connected),
        Inbound::Disconnected { client_id, .. } => topic::parse_link_client(&client_id).map(Work::Disconnected),
        Inbound::Publish {
            client_id,
            topic,
            payload,
            ack,
            ..
        } => {
            let client = topic::parse_link_client(&client_id)?;
            let settle = move |taken| {
                if taken {
                    ack.accept();
                } else {
                    ack.refuse(Refusal::NotAuthorized);
                }
            };
            Some(Work::Frame {
                client,
                route: Route::Endpoint,
                topic: topic.into(),
                frame: payload,
                ack: Ack::new(settle),
            })
        }
    }
}

async fn tick(queue: mpsc::Sender<Work>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        if queue.send(Work::Tick).await.is_err() {
            return;
        }
    }
}

/// The signals, caught from the first moment: SIGHUP would otherwise end a hub that is still starting.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let open = |kind| signal(kind).map_err(RunError::System);
        Ok(Self {
            hangup: open(SignalKind::hangup())?,
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
        })
    }

    /// Reloads the seed file on SIGHUP; returns on SIGTERM or SIGINT.
    async fn serve(&mut self, door: &Door) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(door).await,
            }
        }
    }
}

async fn reload(door: &Door) {
    let Some(file) = &door.seed_file else {
        warn!("SIGHUP, but the configuration names no seed_file");
        return;
    };
    if let Err(reason) = door.import(file).await {
        error!(%reason, "seed file refused; going on with what is known");
    }
}
