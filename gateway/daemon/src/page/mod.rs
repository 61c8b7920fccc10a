//! The page for people, the metrics for machines: HTTP on loopback, or on the local network behind a login. Nothing here may
//! hold up a device: the engine is asked once a second at most, over the same control socket as `holdfast status`; the journal
//! is read beside it; every connection, request and wait has its limit. If the port cannot be had, devices are served all the
//! same.

mod body;
mod day;
mod feed;
mod guard;
mod look;
mod metrics;
mod routes;
mod server;

use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock},
    time::Duration,
};

use journal::Reader;
use proto::id::DeviceId;
use tokio::{net::TcpListener, sync::watch};

pub use self::look::look;
pub use self::metrics::{METRICS, Metric};
use self::{feed::Feed, guard::Guard};
use crate::config::{Config, PageConfig};

/// Between two attempts to have the port.
const LISTEN_AGAIN: Duration = Duration::from_secs(15);

/// What answers requests.
struct App {
    site: String,
    gateway: String,
    offset_min: i16,
    devices: Devices,
    guard: Guard,
    feed: Feed,
}

/// The devices that may be asked about.
type Devices = Arc<RwLock<BTreeSet<DeviceId>>>;

/// What is served to people and machines.
pub struct Page {
    reader: Reader,
    /// As it was configured last.
    config: Option<PageConfig>,
    devices: Devices,
    /// Dropped, it ends the page and all its connections.
    serving: Option<watch::Sender<()>>,
}

impl Page {
    /// Serves it until it is dropped, if the configuration wants it. Needs a runtime.
    #[must_use]
    pub fn start(config: &Config, reader: Reader) -> Self {
        let devices: Devices = Arc::new(RwLock::new(config.core.devices.keys().copied().collect()));
        Self {
            serving: serve(config, reader.clone(), devices.clone()),
            reader,
            config: config.page.clone(),
            devices,
        }
    }

    /// Other devices; and if the page itself is configured otherwise, it is served anew: who has logged in does so again.
    pub fn reconfigure(&mut self, config: &Config) {
        *self.devices.write().expect("nothing panics under this lock") = config.core.devices.keys().copied().collect();
        if self.config != config.page {
            self.serving = None;
            self.serving = serve(config, self.reader.clone(), self.devices.clone());
            self.config.clone_from(&config.page);
        }
    }
}

fn serve(config: &Config, reader: Reader, devices: Devices) -> Option<watch::Sender<()>> {
    let page = config.page.clone()?;
    let (serving, mut over) = watch::channel(());
    let listen = page.listen;
    let app = Arc::new(App {
        site: config.site.to_string(),
        gateway: config.gateway.to_string(),
        offset_min: config.core.offset_min,
        devices,
        guard: Guard::new(page),
        feed: Feed::new(config.dir.clone(), reader, config.core.offset_min),
    });
    let ends = over.clone();
    let serve = async move {
        let listener = loop {
            match TcpListener::bind(listen).await {
                Ok(listener) => break listener,
                Err(error) => tracing::error!(
                    %listen, %error,
                    "the page cannot be served, devices are; tried again in {} s", LISTEN_AGAIN.as_secs()
                ),
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        };
        match listener.local_addr() {
            Ok(at) => tracing::info!(page = %at, "the page is served"),
            Err(error) => tracing::warn!(%error, "the page is served"),
        }
        server::serve(listener, app, ends).await;
    };
    tokio::spawn(async move {
        tokio::select! {
            () = serve => {}
            _ = over.changed() => tracing::info!("the page is served no more"),
        }
    });
    Some(serving)
}
