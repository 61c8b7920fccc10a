//! `holdfast run`: opens the journal, replays it, starts the engine on a thread of its own, then lets devices and cloud
//! in; stops in the reverse order.

use std::num::NonZero;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
use std::time::Duration;

use carrier::{Qos, mqtt::Options};
use mqtt_endpoint::Endpoint;
use proto::topic;
use service::Heart;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use crate::{
    artifacts::Desk,
    clock::Clock,
    cloud::{
        link::LINK_JOBS_MAX,
        start::{self, Surroundings},
    },
    config::{Config, DEVICE_PACKET_BYTES_MAX, DeviceSide, Loaded},
    control::{self, Sources},
    devices::{
        Opener, Port, Sealer,
        blocked::Blocked,
        embedded::{self, DeviceAccess, Intake},
        external::{self, Outward},
    },
    disk,
    door::Door,
    engine::{Engine, JOBS_MAX, Job, Shell},
    exit,
    firmware::{self, Firmware},
    page::Page,
    reload::{self, Holders, Reloader},
    store::{Store, StoreError},
};

/// Most threads for the network: one moves more than the engine decides, the second is for TLS and the page.
const NETWORK_THREADS_MAX: usize = 2;
/// Epoch of a journal that was never restored from a backup.
const FIRST_EPOCH: u32 = 1;
/// Highest epoch that an operator may begin: more restores than a gateway lives to see, and far from where a slip of
/// the finger would use all epochs up.
pub const EPOCH_MAX: u32 = 1_000_000;

/// Why the gateway stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The journal.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The port for devices.
    #[error("cannot listen for devices on {address}: {error}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The certificates for devices.
    #[error("devices.tls: {0}")]
    Tls(#[from] carrier::tls::Error),
    /// The control socket, or signals.
    #[error("cannot serve {what}: {error}")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// The engine's thread panicked: an invariant is broken. The journal is good; the next start replays it.
    #[error("the engine broke an invariant and stopped; the journal is replayed at the next start")]
    Broken,
}

impl RunError {
    /// For the shell.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Store(_) => exit::STORAGE,
            Self::Tls(_) => exit::CONFIG,
            Self::Listen { .. } | Self::Io { .. } => exit::UNAVAILABLE,
            Self::Broken => exit::SOFTWARE,
        }
    }
}

/// Runs until SIGTERM or SIGINT. `epoch`: to begin, if the journal is not there yet.
///
/// # Errors
/// [`RunError`].
pub fn run(loaded: Loaded, epoch: Option<u32>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(network_threads())
        .enable_all()
        .build()
        .map_err(|error| RunError::Io {
            what: "the network",
            error,
        })?;
    runtime.block_on(serve(Arc::new(loaded), epoch))
}

/// The engine has a processor to itself as long as there is one. A second thread for the network than that only means that
/// each message wakes one more.
fn network_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    processors.saturating_sub(1).clamp(1, NETWORK_THREADS_MAX)
}

async fn serve(loaded: Arc<Loaded>, epoch: Option<u32>) -> Result<(), RunError> {
    let config = &loaded.config;
    std::fs::create_dir_all(&config.dir).map_err(|error| RunError::Io {
        what: "the store's directory",
        error,
    })?;
    let clock = Clock::start();
    let (store, gateway) = Store::open(&config.dir, config.core.clone(), config.snapshot_every)?;
    let boot = gateway.timeline().boot + 1;
    let epoch_before = gateway.timeline().epoch;
    let ordered = epoch.unwrap_or(FIRST_EPOCH).max(store.epoch_due()?);
    let epoch = epoch_before.max(ordered).max(FIRST_EPOCH);
    if boot > 1 && epoch > epoch_before {
        tracing::warn!(
            from = epoch_before,
            epoch,
            "a new epoch begins: every record is told again"
        );
    }
    let opened = store.opened();
    tracing::info!(
        boot,
        epoch,
        records = store.head(),
        replayed = opened.replayed,
        opening_ms = millis(opened.opening),
        loading_ms = millis(opened.loading),
        replaying_ms = millis(opened.replaying),
        "journal replayed"
    );

    let (jobs, engine_jobs) = mpsc::channel(JOBS_MAX);
    let (link_jobs, link_inbox) = mpsc::channel(LINK_JOBS_MAX);
    let (position, watched) = watch::channel(crate::engine::Position::default());
    let blocked = Blocked::new(config.blocked.clone());
    let opener = Opener::new(&config.device_secrets, config.token_key.clone());
    let opener = Arc::new(opener.deaf_to(blocked.clone()));
    let link_up = Arc::new(AtomicBool::new(false));
    let board = start::board(config.link.as_ref(), link_up.clone());
    let epoch_expected = Arc::new(AtomicU32::new(0));
    let firmware = start_firmware(config, &jobs)?;
    let (port, endpoint, access) = device_port(config, &opener, &jobs, &firmware, &blocked).await?;
    let reader = store.reader();
    let rejected = Arc::new(AtomicU64::new(0));
    let shell = Shell {
        port,
        link: config.link.is_some().then_some(link_jobs),
        link_up: link_up.clone(),
        board: board.clone(),
        epoch_expected: epoch_expected.clone(),
        position,
        opener: opener.clone(),
        issuer_keys: config.issuer_keys.clone(),
        rejected: rejected.clone(),
    };
    let desk = Desk::new(jobs.clone(), rejected);
    let sealer = Sealer::new(&config.device_secrets, boot).silent_to(blocked.clone());
    let heart = Heart::default();
    let engine = Engine::start(gateway, store, sealer, clock, shell, boot, epoch)?;
    let engine = engine.configured(config.core.limits.clone())?;
    let engine = engine.with_heart(heart.clone()).keeping(config.keep_d);
    let (ended, mut engine_ended) = mpsc::channel(1);
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let result = runtime
                .expect("a runtime without I/O needs nothing")
                .block_on(engine.run(engine_jobs));
            // The receiver lives as long as `serve`.
            let _ = ended.blocking_send(());
            result
        })
        .map_err(|error| RunError::Io {
            what: "the engine",
            error,
        })?;
    let holders = Holders {
        engine: jobs.clone(),
        opener,
        access,
        blocked: blocked.clone(),
        firmware: firmware.clone(),
        page: Page::start(config, reader.clone()),
    };
    let reloader = reload::start(loaded.clone(), holders);
    reload_on_signal(reloader.clone())?;
    let sources = Sources {
        reader: reader.clone(),
        engine: jobs.clone(),
        desk: desk.clone(),
        firmware,
        blocked,
        reloader: Some(reloader),
    };
    serve_control(config, sources).await?;
    if let Some(link) = &config.link {
        let around = Surroundings {
            site: config.site,
            gateway: config.gateway,
            boot,
            desk,
            engine: jobs.clone(),
            jobs: link_inbox,
            position: watched,
            reader,
            epoch_expected,
        };
        start::start(link, &board, around);
    }
    if config.reserve_bytes > 0 {
        tokio::spawn(disk::watch(config.dir.clone(), config.reserve_bytes, jobs.clone()));
    }
    let stop = stop_signal()?;
    tracing::info!(site = %config.site, gateway = %config.gateway, devices = config.device_secrets.len(), "ready");
    let status = status(config, link_up);
    service::ready(&status());
    tokio::spawn(service::watch(heart, status));

    tokio::select! {
        () = stop => {}
        _ = engine_ended.recv() => {}
    }
    service::stopping("closing the journal");
    if let Some(endpoint) = endpoint {
        endpoint.shutdown().await;
    }
    // If the engine has ended already, its result says why.
    let _ = jobs.send(Job::Shutdown).await;
    match thread.join() {
        Ok(result) => result?,
        Err(_) => return Err(RunError::Broken),
    }
    tracing::info!("stopped; the journal is closed");
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// For whoever types `systemctl status`.
fn status(config: &Config, link_up: Arc<AtomicBool>) -> impl Fn() -> String + use<> {
    let (devices, has_link) = (config.device_secrets.len(), config.link.is_some());
    move || {
        let cloud = match (has_link, link_up.load(Ordering::Relaxed)) {
            (false, _) => "no cloud is configured",
            (true, true) => "the cloud is reached",
            (true, false) => "the cloud is not reached; the site decides alone",
        };
        format!("serving {devices} devices; {cloud}")
    }
}

fn start_firmware(config: &Config, jobs: &mpsc::Sender<Job>) -> Result<Firmware, RunError> {
    let kinds = config.core.devices.iter().map(|(device, known)| (*device, known.kind));
    firmware::start(&config.dir, kinds, &config.firmware_keys, jobs.clone()).map_err(|error| RunError::Io {
        what: "the orders of firmware",
        error,
    })
}

async fn serve_control(config: &Config, sources: Sources) -> Result<(), RunError> {
    let failed = |error| RunError::Io {
        what: "the control socket",
        error,
    };
    let door = Door::new(config.control_group.as_deref()).map_err(failed)?;
    control::serve(&config.dir, door, sources).await.map_err(failed)
}

/// SIGHUP asks for what `holdfast reload` asks for. Until here it would have ended the process.
fn reload_on_signal(reloader: Reloader) -> Result<(), RunError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| RunError::Io { what: "signals", error })?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: reading the configuration again");
            // The log and the status say what came of it.
            drop(reloader.reload(false, None).await);
        }
    });
    Ok(())
}

/// Resolves when somebody asks the process to stop; from this call on, not from its first poll, nobody ends it otherwise.
fn stop_signal() -> Result<impl Future<Output = ()>, RunError> {
    let failed = |error| RunError::Io { what: "signals", error };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    })
}

async fn device_port(
    config: &Config,
    opener: &Arc<Opener>,
    jobs: &mpsc::Sender<Job>,
    firmware: &Firmware,
    blocked: &Blocked,
) -> Result<(Port, Option<Endpoint>, Option<Arc<DeviceAccess>>), RunError> {
    match &config.device_side {
        DeviceSide::Embedded { listen, tls, limits } => {
            let access = DeviceAccess::new(&config.device_secrets, config.monitor_password.clone());
            let access = Arc::new(access.closed_to(blocked.clone()));
            let intake = Intake::new(opener.clone(), jobs.clone(), firmware.clone());
            let mut endpoint = Endpoint::bind(*listen, (**limits).clone(), access.clone(), intake)
                .await
                .map_err(|error| RunError::Listen {
                    address: *listen,
                    error,
                })?;
            // Port 0 is for tests and demos, which read the port from this line.
            tracing::info!(address = %endpoint.local_addr(), "devices may connect");
            if let Some(tls) = tls {
                embedded::listen_tls(&mut endpoint, tls).await?;
            }
            let handle = endpoint.handle();
            blocked.cuts_at(handle.clone());
            Ok((Port::Embedded(handle), Some(endpoint), Some(access)))
        }
        DeviceSide::External {
            broker,
            username,
            password,
        } => {
            let options = Options {
                user: username.clone().zip(password.clone()),
                keep_alive_s: 30,
                filters: vec![(topic::up_filter().to_string(), Qos::AtLeastOnce)],
                persistent: true,
                packet_bytes_max: DEVICE_PACKET_BYTES_MAX,
                ..Options::new(broker, config.gateway.to_string())
            };
            let outward = Outward::default();
            tokio::spawn(external::run(
                options,
                opener.clone(),
                outward.clone(),
                jobs.clone(),
                firmware.clone(),
            ));
            Ok((Port::External(outward), None, None))
        }
    }
}
