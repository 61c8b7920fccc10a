//! What is different from cloud to cloud: the adapter, and how the connection is made.

use std::sync::Arc;

use carrier::{Class, Connection, Symptom, http, mqtt::Options};
use proto::{
    id::{GatewayId, Name},
    link::LINK_FRAME_BYTES_MAX,
};

use crate::{
    clock,
    cloud::{
        adapter::{Adapter, Login},
        alink::Alink,
        aws::Aws,
        hcp::Hcp,
        webhook::{self, Webhook},
    },
    config::{CloudConfig, CloudKind},
};

/// Largest packet: a frame in base64 and what a cloud wants around it.
const PACKET_BYTES_MAX: u32 = LINK_FRAME_BYTES_MAX as u32 * 2;

impl CloudKind {
    /// What it speaks, in the words of the configuration.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Hcp { .. } => "hcp",
            Self::Alink(_) => "alink",
            Self::Aws(_) => "aws",
            Self::Webhook { .. } => "webhook",
        }
    }

    /// Shortest time between two uploads, in ms, whatever the configuration says: what the cloud takes of one connection,
    /// less what hellos, questions and echoes need.
    pub(super) const fn upload_ms_min(&self) -> u64 {
        match self {
            Self::Hcp { .. } | Self::Webhook { .. } => 0,
            // Ten acknowledged messages a second of one device.
            Self::Alink(_) => 250,
            // A hundred publishes a second in both directions; more are discarded in silence.
            Self::Aws(_) => 50,
        }
    }

    /// Keep-alive in s: by default, least, most.
    #[must_use]
    pub const fn keep_alive_s(&self) -> (u16, u16, u16) {
        match self {
            Self::Hcp { .. } => (30, 5, 3_600),
            // Outside of this the cloud refuses the connection.
            Self::Alink(_) => (60, 30, 1_200),
            Self::Aws(_) => (60, 30, 1_200),
            // Not looked at: there is no MQTT.
            Self::Webhook { .. } => (30, 0, u16::MAX),
        }
    }
}

impl CloudConfig {
    /// Its adapter, for as long as the process lives.
    pub(super) fn adapter(&self, site: Name, gateway: GatewayId) -> Box<dyn Adapter> {
        match &self.kind {
            CloudKind::Hcp { client_id, user } => {
                Box::new(Hcp::new(site, gateway, self.lane, client_id.clone(), user.clone()))
            }
            CloudKind::Alink(config) => {
                Box::new(Alink::new((**config).clone()).expect("the configuration was checked"))
            }
            CloudKind::Aws(config) => Box::new(Aws::new((**config).clone()).expect("the configuration was checked")),
            CloudKind::Webhook { .. } => Box::new(Webhook::new(webhook::Config {
                gateway,
                lane: self.lane,
            })),
        }
    }

    /// Begins a connection; until when our certificate is good, in seconds since 1970 UTC, if we have one.
    ///
    /// # Errors
    /// What is wrong on our side: files that cannot be used.
    pub(super) async fn open(&self, login: &Login) -> Result<(Connection, Option<i64>), Symptom> {
        let mut until_s = None;
        if let Some(tls) = &self.road.tls {
            // Reads files; it says itself, once, what is wrong with them.
            let tls = tls.clone();
            let read = tokio::task::spawn_blocking(move || tls.config().map(|_| tls.status()));
            let status = read
                .await
                .map_err(|error| error.to_string())
                .and_then(|status| status.map_err(|error| error.to_string()))
                .map_err(|why| Symptom::new(Class::Protocol, 0, why))?;
            until_s = status.identity.map(|validity| validity.not_after_s);
        }
        if let CloudKind::Webhook { url, key } = &self.kind {
            let options = http::Options {
                tls: self.road.tls.clone(),
                poll: login.filters.first().map(|(path, _)| path.clone()),
                clock: Arc::new(clock::synchronised_wall_s),
                ..http::Options::new(url.clone(), key.0.clone())
            };
            return Ok((Connection::open_http(&options), until_s));
        }
        let options = Options {
            user: login.user.clone(),
            keep_alive_s: self.road.keep_alive_s,
            filters: login.filters.clone(),
            packet_bytes_max: PACKET_BYTES_MAX,
            version: self.road.version,
            tls: self.road.tls.clone(),
            ..Options::new(self.road.broker.clone(), login.client_id.clone())
        };
        Ok((Connection::open(&options), until_s))
    }
}
