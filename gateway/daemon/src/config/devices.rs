//! `[devices]`: how devices are reached, and how much one of them may take.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use carrier::tls::{Identity, ServerFiles};
use mqtt_endpoint::{Limits, limits};
use proto::seal::FRAME_BYTES_MAX;
use serde::Deserialize;

use super::{Checker, ConfigError, host_port, secrets::SecretsFile};

/// Largest MQTT packet of a device, in bytes: a frame, a topic and the header, with room for properties.
pub(crate) const DEVICE_PACKET_BYTES_MAX: u32 = FRAME_BYTES_MAX as u32 + 512;
/// Packets of a device in a second: many times what one sends that works, and room for asking for firmware.
const PACKETS_A_SECOND_MAX: u32 = 50;
/// Messages of a device that wait for the engine: what stands before another device's request.
const UNSETTLED_MAX: usize = 16;
/// Kilobytes of a device in a second: more than any line to a device carries but Ethernet.
const KIB_A_SECOND_MAX: u32 = 256;

/// The table as written; every limit has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DevicesSection {
    /// Serve devices here ...
    listen: Option<SocketAddr>,
    /// ... or meet them at a broker.
    broker: Option<String>,
    username: Option<String>,
    /// A second listener, with TLS.
    tls: Option<TlsSection>,
    connections_max: Option<usize>,
    connections_per_address_max: Option<usize>,
    pending_max: Option<usize>,
    pending_per_address_max: Option<usize>,
    connect_timeout_ms: Option<u64>,
    connects_a_minute_max: Option<u32>,
    packets_a_second_max: Option<u32>,
    kib_a_second_max: Option<u32>,
    queue_kib_max: Option<usize>,
    write_stall_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    listen: SocketAddr,
    certificate: PathBuf,
    key: PathBuf,
    clients: PathBuf,
}

/// The second listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTls {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its files.
    pub files: ServerFiles,
}

/// How devices are reached.
#[derive(Clone, Debug)]
pub enum DeviceSide {
    /// We are the MQTT endpoint.
    Embedded {
        /// Where we listen.
        listen: SocketAddr,
        /// Where we listen with TLS.
        tls: Option<DeviceTls>,
        /// What a device may take.
        limits: Box<Limits>,
    },
    /// A broker stands between us.
    External {
        /// `host:port`.
        broker: String,
        /// Our user name there.
        username: Option<String>,
        /// Our password there.
        password: Option<String>,
    },
}

/// Checks the table; paths are relative to `base`.
pub(super) fn device_side(
    check: &Checker<'_>,
    section: &DevicesSection,
    secrets: &SecretsFile,
    base: &Path,
) -> Result<DeviceSide, ConfigError> {
    match (section.listen, &section.broker) {
        (Some(listen), None) => Ok(DeviceSide::Embedded {
            listen,
            tls: section.tls.as_ref().map(|tls| tls.files(base)),
            limits: Box::new(section.limits(check)?),
        }),
        (None, Some(broker)) => {
            host_port(check, "devices.broker", broker)?;
            if section.tls.is_some() {
                return check.fail("devices.tls", "devices that meet us at a broker have the broker's TLS");
            }
            Ok(DeviceSide::External {
                broker: broker.clone(),
                username: section.username.clone(),
                password: secrets.broker_password.clone(),
            })
        }
        (Some(_), Some(_)) | (None, None) => check.fail(
            "devices",
            "either `listen` (serve devices here) or `broker` (meet them at a broker)",
        ),
    }
}

impl TlsSection {
    fn files(&self, base: &Path) -> DeviceTls {
        DeviceTls {
            listen: self.listen,
            files: ServerFiles {
                identity: Identity {
                    certificate: base.join(&self.certificate),
                    key: base.join(&self.key),
                },
                clients: base.join(&self.clients),
            },
        }
    }
}

impl DevicesSection {
    fn limits(&self, check: &Checker<'_>) -> Result<Limits, ConfigError> {
        let above_zero = |key: &str, written: Option<u64>, default: u64| match written {
            Some(0) => check.fail(
                &format!("devices.{key}"),
                "0 would let nobody in; leave it out for the default",
            ),
            Some(written) => Ok(written),
            None => Ok(default),
        };
        let size = |key: &str, written: Option<usize>, default: usize| {
            above_zero(key, written.map(|size| size as u64), default as u64).map(|size| size as usize)
        };
        let rate = |key: &str, written: Option<u32>, default: u32| {
            above_zero(key, written.map(u64::from), default.into()).map(|rate| rate as u32)
        };
        Ok(Limits {
            connections_max: size("connections_max", self.connections_max, limits::CONNECTIONS_MAX)?,
            connections_per_address_max: size(
                "connections_per_address_max",
                self.connections_per_address_max,
                limits::CONNECTIONS_PER_ADDRESS_MAX,
            )?,
            pending_max: size("pending_max", self.pending_max, limits::PENDING_MAX)?,
            pending_per_address_max: size(
                "pending_per_address_max",
                self.pending_per_address_max,
                limits::PENDING_PER_ADDRESS_MAX,
            )?,
            connect_timeout_ms: above_zero(
                "connect_timeout_ms",
                self.connect_timeout_ms,
                limits::CONNECT_TIMEOUT_MS,
            )?,
            connects_a_minute_max: rate(
                "connects_a_minute_max",
                self.connects_a_minute_max,
                limits::CONNECTS_A_MINUTE_MAX,
            )?,
            packets_a_second_max: rate("packets_a_second_max", self.packets_a_second_max, PACKETS_A_SECOND_MAX)?,
            bytes_a_second_max: rate("kib_a_second_max", self.kib_a_second_max, KIB_A_SECOND_MAX)?.saturating_mul(1024),
            queue_bytes_max: size("queue_kib_max", self.queue_kib_max, limits::QUEUE_BYTES_MAX / 1024)?
                .saturating_mul(1024),
            write_stall_ms: above_zero("write_stall_ms", self.write_stall_ms, limits::WRITE_STALL_MS)?,
            unsettled_max: UNSETTLED_MAX,
            packet_bytes_max: DEVICE_PACKET_BYTES_MAX,
            ..Limits::default()
        })
    }
}
