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

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use journal::Reader;
use proto::id::DeviceId;
use tokio::net::TcpListener;

pub use self::look::look;
pub use self::metrics::{METRICS, Metric};
use self::{feed::Feed, guard::Guard};
use crate::config::Config;

/// Between two attempts to have the port.
const LISTEN_AGAIN: Duration = Duration::from_secs(15);

/// What answers requests.
struct App {
    site: String,
    gateway: String,
    offset_min: i16,
    devices: BTreeSet<DeviceId>,
    guard: Guard,
    feed: Feed,
}

/// Serves the page for ever, if the configuration wants it. Needs a runtime.
pub fn start(config: &Config, reader: Reader) {
    let Some(page) = config.page.clone() else { return };
    let listen = page.listen;
    let app = Arc::new(App {
        site: config.site.to_string(),
        gateway: config.gateway.to_string(),
        offset_min: config.core.offset_min,
        devices: config.core.devices.keys().copied().collect(),
        guard: Guard::new(page),
        feed: Feed::new(config.dir.clone(), reader, config.core.offset_min),
    });
    tokio::spawn(async move {
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
        server::serve(listener, app).await;
    });
}
