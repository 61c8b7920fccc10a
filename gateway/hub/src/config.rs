//! `hub.toml` and the secrets file beside it. Unknown keys are refused; every error names file and place.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use carrier::{
    mqtt::Version,
    tls::{Section, Tls},
};
use proto::{
    id::{GatewayId, Name, TokenKey},
    money::Money,
    seal::PairSecret,
    trust::Issuer,
};
use serde::Deserialize;

use crate::{brokers::BrokerConfig, control, core::Settings};

/// Default size of a lease, in minor units: the dearest session of the default limits.
pub const LEASE_SLICE_DEFAULT: i64 = 600;
/// A larger slice is a whole balance, in minor units.
const LEASE_SLICE_MAX: i64 = 1_000_000;
/// Default validity of a lease: as long as a list gives any credit.
pub const LEASE_HOURS_DEFAULT: u64 = 7 * 24;
/// A year.
const LEASE_HOURS_MAX: u64 = 365 * 24;
/// Default age at which the list is published again: well below the 72 h during which gateways trust it in full.
const LIST_EVERY_S_DEFAULT: u64 = 6 * 3600;
/// Shortest age at which the list may be published again: a list of 100,000 tokens is 6 MB to every gateway.
const LIST_EVERY_S_MIN: u64 = 60;
/// Shortest keep-alive at a broker, in s.
const KEEP_ALIVE_S_MIN: u16 = 5;
/// Default of it, in s.
const KEEP_ALIVE_S_DEFAULT: u16 = 30;
/// Most gateways of one hub: each may have a whole list waiting in memory.
pub const GATEWAYS_MAX: usize = 1000;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is not the TOML it should be.
    #[error("{}: {error}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What and where.
        error: Box<toml::de::Error>,
    },
    /// A value is well-formed, but not usable.
    #[error("{}: {key}: {reason}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// Why.
        reason: String,
    },
}

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: SocketAddr,
    data_dir: PathBuf,
    secrets_file: PathBuf,
    seed_file: Option<PathBuf>,
    control_socket: Option<PathBuf>,
    list_every_s: Option<u64>,
    lease_slice: Option<i64>,
    lease_hours: Option<u64>,
    #[serde(default)]
    log: LogFile,
    gateways: Vec<GatewayFile>,
    #[serde(default)]
    brokers: Vec<BrokerFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BrokerFile {
    name: String,
    broker: String,
    #[serde(default)]
    mqtt: MqttVersion,
    keep_alive_s: Option<u16>,
    client_id: Option<String>,
    username: Option<String>,
    tls: Option<Section>,
}

/// As operators write it.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum MqttVersion {
    #[serde(rename = "3.1.1")]
    V3,
    #[default]
    #[serde(rename = "5")]
    V5,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogFile {
    format: LogFormat,
    filter: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayFile {
    id: String,
    site: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretsFile {
    issuer_seed: String,
    /// Written by `keys rotate`.
    signing_seed: Option<String>,
    token_key: String,
    gateways: BTreeMap<String, String>,
    #[serde(default)]
    brokers: BTreeMap<String, String>,
}

/// One gateway that may connect.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Its site, the third level of its topics.
    pub site: Name,
    /// What it shares with this hub.
    pub secret: PairSecret,
}

/// Everything `run` needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gateways connect; port 0: any free one.
    pub listen: SocketAddr,
    /// Where the store lies.
    pub data_dir: PathBuf,
    /// Where the keys came from.
    pub secrets_file: PathBuf,
    /// Accounts, tokens, tariffs and revocations, if a file holds them.
    pub seed_file: Option<PathBuf>,
    /// The Unix socket that answers operators.
    pub control_socket: PathBuf,
    /// What the core has to know.
    pub settings: Settings,
    /// How logs look.
    pub log_format: LogFormat,
    /// What is logged, as `tracing` directives.
    pub log_filter: String,
    /// The seed of the root key, which gateways pin.
    pub issuer_seed: [u8; 32],
    /// The seed of the key that signs lists, tariffs and revocations; the root's until it was rotated.
    pub signing_seed: [u8; 32],
    /// The key under which tokens are hashed.
    pub token_key: TokenKey,
    /// Who may connect.
    pub gateways: BTreeMap<GatewayId, GatewayConfig>,
    /// Brokers behind which gateways are.
    pub brokers: Vec<BrokerConfig>,
}

impl Config {
    /// Signs lists, tariffs and revocations.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        Issuer::from_seed(&self.signing_seed)
    }

    /// Signs sets of keys.
    #[must_use]
    pub fn root(&self) -> Issuer {
        Issuer::from_seed(&self.issuer_seed)
    }
}

/// Name of the service manager's credential that goes before the secrets file.
pub(crate) const SECRETS: &str = "hub-secrets.toml";

/// Reads and checks a configuration and its secrets. Relative paths are relative to the configuration file.
///
/// # Errors
/// [`ConfigError`], naming file and place.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let file: File = read_toml(path)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let secrets_path = service::credential(SECRETS).unwrap_or_else(|| base.join(&file.secrets_file));
    let secrets: SecretsFile = read_toml(&secrets_path)?;
    let value = |key: &str, reason: String| ConfigError::Value {
        path: path.to_owned(),
        key: key.to_owned(),
        reason,
    };
    let list_every_s = file.list_every_s.unwrap_or(LIST_EVERY_S_DEFAULT);
    if list_every_s != 0 && list_every_s < LIST_EVERY_S_MIN {
        return Err(value(
            "list_every_s",
            format!("{list_every_s} s is below {LIST_EVERY_S_MIN} s (0: never)"),
        ));
    }
    let lease_slice = file.lease_slice.unwrap_or(LEASE_SLICE_DEFAULT);
    if !(1..=LEASE_SLICE_MAX).contains(&lease_slice) {
        return Err(value(
            "lease_slice",
            format!("{lease_slice}: allowed are 1 to {LEASE_SLICE_MAX} minor units"),
        ));
    }
    let lease_hours = file.lease_hours.unwrap_or(LEASE_HOURS_DEFAULT);
    if !(1..=LEASE_HOURS_MAX).contains(&lease_hours) {
        return Err(value(
            "lease_hours",
            format!("{lease_hours}: allowed are 1 to {LEASE_HOURS_MAX} hours"),
        ));
    }
    if file.gateways.is_empty() || file.gateways.len() > GATEWAYS_MAX {
        return Err(value(
            "gateways",
            format!("{} gateways, allowed are 1 to {GATEWAYS_MAX}", file.gateways.len()),
        ));
    }
    let data_dir = base.join(&file.data_dir);
    let control_socket = file
        .control_socket
        .map_or_else(|| control::socket_in(&data_dir), |socket| base.join(socket));
    let issuer_seed = secret(&secrets_path, "issuer_seed", &secrets.issuer_seed)?;
    let signing_seed = match &secrets.signing_seed {
        Some(text) => secret(&secrets_path, "signing_seed", text)?,
        None => issuer_seed,
    };
    Ok(Config {
        listen: file.listen,
        control_socket,
        data_dir,
        seed_file: file.seed_file.map(|seed| base.join(seed)),
        settings: Settings {
            list_every_s,
            lease_slice: Money(lease_slice),
            lease_s: lease_hours * 3_600,
        },
        log_format: file.log.format,
        log_filter: file.log.filter.unwrap_or_else(|| "info".to_owned()),
        issuer_seed,
        signing_seed,
        token_key: TokenKey(secret(&secrets_path, "token_key", &secrets.token_key)?),
        gateways: gateways(path, &file.gateways, &secrets_path, &secrets)?,
        brokers: brokers(path, file.brokers, &secrets_path, &secrets)?,
        secrets_file: secrets_path,
    })
}

fn gateways(
    path: &Path,
    rows: &[GatewayFile],
    secrets_path: &Path,
    secrets: &SecretsFile,
) -> Result<BTreeMap<GatewayId, GatewayConfig>, ConfigError> {
    let mut gateways = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        let wrong = |field: &str, reason: String| ConfigError::Value {
            path: path.to_owned(),
            key: format!("gateways[{i}].{field}"),
            reason,
        };
        let id = Name::from_str(&row.id).map_err(|error| wrong("id", error.to_string()))?;
        let site = Name::from_str(&row.site).map_err(|error| wrong("site", error.to_string()))?;
        let key = format!("gateways.{id}");
        let text = secrets.gateways.get(id.as_str()).ok_or_else(|| ConfigError::Value {
            path: secrets_path.to_owned(),
            key: key.clone(),
            reason: "this gateway has no secret".to_owned(),
        })?;
        let secret = PairSecret(secret(secrets_path, &key, text)?);
        if gateways.insert(id, GatewayConfig { site, secret }).is_some() {
            return Err(wrong("id", format!("{id} is here twice")));
        }
    }
    Ok(gateways)
}

fn brokers(
    path: &Path,
    rows: Vec<BrokerFile>,
    secrets_path: &Path,
    secrets: &SecretsFile,
) -> Result<Vec<BrokerConfig>, ConfigError> {
    let base = path.parent().unwrap_or(Path::new("."));
    let known: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    if let Some(name) = secrets.brokers.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(ConfigError::Value {
            path: secrets_path.to_owned(),
            key: format!("brokers.{name}"),
            reason: "no [[brokers]] has this name".to_owned(),
        });
    }
    let mut brokers = Vec::new();
    for (i, row) in rows.into_iter().enumerate() {
        let wrong = |field: &str, reason: String| ConfigError::Value {
            path: path.to_owned(),
            key: format!("brokers[{i}].{field}"),
            reason,
        };
        if carrier::split_host_port(&row.broker).is_none() {
            return Err(wrong("broker", format!("\"{}\" is not host:port", row.broker)));
        }
        if row
            .keep_alive_s
            .is_some_and(|keep_alive_s| keep_alive_s < KEEP_ALIVE_S_MIN)
        {
            return Err(wrong("keep_alive_s", format!("at least {KEEP_ALIVE_S_MIN} s")));
        }
        let tls = match &row.tls {
            Some(section) => {
                let files = section.files(base).map_err(|error| wrong("tls", error.to_string()))?;
                let tls = Tls::new(files);
                tls.config().map_err(|error| wrong("tls", error.to_string()))?;
                Some(tls)
            }
            None => None,
        };
        let password = secrets.brokers.get(&row.name).cloned();
        brokers.push(BrokerConfig {
            client_id: row.client_id.unwrap_or_else(|| format!("holdfast-hub-{}", row.name)),
            user: row.username.map(|name| (name, password.unwrap_or_default())),
            broker: row.broker,
            version: match row.mqtt {
                MqttVersion::V3 => Version::V3,
                MqttVersion::V5 => Version::V5,
            },
            keep_alive_s: row.keep_alive_s.unwrap_or(KEEP_ALIVE_S_DEFAULT),
            name: row.name,
            tls,
        });
    }
    Ok(brokers)
}

fn read_toml<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        error: Box::new(without_input(error)),
    })
}

/// The line of a secret must not be quoted in an error.
fn without_input(mut error: toml::de::Error) -> toml::de::Error {
    error.set_input(None);
    error
}

fn secret(path: &Path, key: &str, text: &str) -> Result<[u8; 32], ConfigError> {
    PairSecret::from_str(text.trim())
        .map(|secret| secret.0)
        .map_err(|error| ConfigError::Value {
            path: path.to_owned(),
            key: key.to_owned(),
            reason: format!("{error} (32 bytes in hexadecimal)"),
        })
}
