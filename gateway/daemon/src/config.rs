//! The configuration file and the secrets file beside it. Unknown keys are refused; every error names the file and the
//! key. `deploy/config/holdfast.toml` documents every key.

mod clouds;
mod devices;
mod health;
mod limits;
mod loaded;
mod page;
mod ring;
mod secrets;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use gateway_core::{
    Instruments,
    config::{Config as CoreConfig, DeviceConfig},
};
use proto::{
    id::{DeviceId, GatewayId, Kind, Name, TokenKey},
    message::OUTLETS_MAX,
    seal::PairSecret,
    trust::IssuerKey,
    update::SIGNERS_MAX,
};
use serde::Deserialize;

pub use self::clouds::{CloudConfig, CloudKind, LinkConfig, Pacing, Road, SignKey};
pub(crate) use self::devices::DEVICE_PACKET_BYTES_MAX;
pub use self::devices::{DeviceSide, DeviceTls};
pub use self::loaded::{Changes, Loaded};
pub use self::page::PageConfig;
pub(crate) use self::secrets::check_mode;
use self::secrets::{SecretsFile, enrolments, keys};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong form.
    #[error("{path}: {error}")]
    Form {
        /// Which file.
        path: PathBuf,
        /// Why, with line and column.
        error: Box<toml::de::Error>,
    },
    /// A value outside its range, or two values that contradict each other.
    #[error("{path}: {key}: {why}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// Why.
        why: String,
    },
    /// Others may read the secrets.
    #[error("{path} holds secrets and may be read by others (mode {mode:o}); type: chmod 600 {path}")]
    Permissions {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    site: SiteSection,
    store: StoreSection,
    devices: devices::DevicesSection,
    #[serde(default)]
    device: Vec<DeviceSection>,
    #[serde(default)]
    link: Pacing,
    #[serde(default)]
    cloud: Vec<clouds::CloudSection>,
    trust: TrustSection,
    #[serde(default)]
    limits: limits::LimitsSection,
    #[serde(default)]
    health: health::HealthSection,
    #[serde(default)]
    control: ControlSection,
    page: Option<page::PageSection>,
    ring: Option<ring::RingSection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlSection {
    group: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteSection {
    name: String,
    gateway: String,
    #[serde(default)]
    utc_offset_min: i16,
    #[serde(default = "currency_default")]
    currency: u16,
}

/// The yuan, as ISO 4217 numbers it.
fn currency_default() -> u16 {
    156
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreSection {
    dir: PathBuf,
    #[serde(default = "snapshot_every_default")]
    snapshot_every: u64,
    #[serde(default = "reserve_default")]
    reserve_mib: u64,
    #[serde(default = "keep_d_default")]
    keep_d: u32,
}

/// Room for the records of everything that goes on when no new unsecured session begins: leases, accepts, stops.
fn reserve_default() -> u64 {
    64
}

/// What a hub that was put back from a backup may still ask for: semantics, section 8, conflict 11.
const fn keep_d_default() -> u32 {
    90
}

fn snapshot_every_default() -> u64 {
    20_000
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceSection {
    id: String,
    kind: String,
    #[serde(default = "one")]
    outlets: u8,
    /// A charger of cars.
    #[serde(default)]
    car: bool,
    #[serde(default)]
    blocked: bool,
}

fn one() -> u8 {
    1
}

/// Rarest telemetry, in s: what is a day old tells nobody how the gateway is.
const TELEMETRY_S_MAX: u64 = proto::link::TELEMETRY_EVERY_S_MAX;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustSection {
    issuer_keys: Vec<String>,
    #[serde(default)]
    firmware_keys: Vec<String>,
}

/// Everything `holdfast run` needs, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The site.
    pub site: Name,
    /// This gateway.
    pub gateway: GatewayId,
    /// Where journal, witness and control socket are.
    pub dir: PathBuf,
    /// Records between snapshots.
    pub snapshot_every: u64,
    /// Free space of the disk at which no new unsecured session begins, in bytes; 0: not looked at.
    pub reserve_bytes: u64,
    /// The journal keeps what is younger than so many days, and whatever has no receipt.
    pub keep_d: u32,
    /// How devices are reached.
    pub device_side: DeviceSide,
    /// One secret a device.
    pub device_secrets: BTreeMap<DeviceId, PairSecret>,
    /// Password of the read-only MQTT user `monitor`; none: no such user.
    pub monitor_password: Option<String>,
    /// The link; none: a site without a cloud.
    pub link: Option<LinkConfig>,
    /// Keys under which lists, tariffs and revocations may be signed.
    pub issuer_keys: Vec<IssuerKey>,
    /// Keys under which firmware may be signed; none: devices take no updates.
    pub firmware_keys: Vec<IssuerKey>,
    /// Key under which id tokens are hashed.
    pub token_key: TokenKey,
    /// Devices that may neither log in nor be granted anything.
    pub blocked: BTreeSet<DeviceId>,
    /// Whose members may ask the running gateway, beside root and its own user; none: nobody.
    pub control_group: Option<String>,
    /// The page; none: it is not served.
    pub page: Option<PageConfig>,
    /// What the core needs.
    pub core: CoreConfig,
}

struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    fn fail<T>(&self, key: &str, why: impl std::fmt::Display) -> Result<T, ConfigError> {
        Err(ConfigError::Value {
            path: self.path.to_owned(),
            key: key.to_owned(),
            why: why.to_string(),
        })
    }

    fn name(&self, key: &str, text: &str) -> Result<Name, ConfigError> {
        Name::new(text).or_else(|error| self.fail(key, format_args!("\"{text}\": {error}")))
    }

    fn secret(&self, key: &str, text: &str) -> Result<PairSecret, ConfigError> {
        text.parse()
            .or_else(|error| self.fail(key, format_args!("a secret is 64 hexadecimal digits; {error}")))
    }

    fn bytes(&self, key: &str, text: &str) -> Result<[u8; 32], ConfigError> {
        let parsed: Result<proto::id::Hash, _> = text.parse();
        parsed
            .map(|hash| hash.0)
            .or_else(|error| self.fail(key, format_args!("32 bytes are 64 hexadecimal digits; {error}")))
    }
}

/// Reads and checks `path` and the secrets file: `secrets`, or what the service manager laid ready as `secrets.toml`, or
/// `secrets.toml` beside `path`.
///
/// # Errors
/// [`ConfigError`], the first that is found.
pub fn load(path: &Path, secrets: Option<&Path>) -> Result<Config, ConfigError> {
    Loaded::read(path, secrets).map(|loaded| loaded.config)
}

/// What both files say.
struct Words<'a> {
    path: &'a Path,
    text: &'a str,
    secrets_path: &'a Path,
    secrets_text: &'a str,
}

fn load_words(words: &Words<'_>) -> Result<Config, ConfigError> {
    let path = words.path;
    let file: File = parse(path, words.text)?;
    let secrets: SecretsFile = parse(words.secrets_path, words.secrets_text)?;
    let check = Checker { path };
    let check_secrets = Checker {
        path: words.secrets_path,
    };

    let (devices, device_secrets) = devices(&check, &check_secrets, &file.device, &secrets)?;
    let blocked = file.device.iter().filter(|section| section.blocked);
    let blocked = blocked.filter_map(|section| Name::new(&section.id).ok()).collect();
    let ids: Vec<DeviceId> = devices.keys().copied().collect();
    let gateway = check.name("site.gateway", &file.site.gateway)?;
    let mut limits = limits::limits(&check, &file.limits)?;
    let name = format!("{}/{}", file.site.name, file.site.gateway);
    file.health.fill(&check, &name, !file.cloud.is_empty(), &mut limits)?;
    let ring = ring::ring(&check, file.ring, &devices)?;
    let mut core = CoreConfig {
        devices,
        limits,
        offset_min: file.site.utc_offset_min,
        instruments: Instruments::default(),
        ring,
        gateway: Some(gateway),
    };
    if !(-720..=840).contains(&core.offset_min) {
        return check.fail("site.utc_offset_min", "an offset from UTC is -720 to 840 minutes");
    }
    let base = path.parent().unwrap_or(Path::new("."));
    let issuer_keys = keys(&check, "trust.issuer_keys", &file.trust.issuer_keys)?;
    let firmware_keys = keys(&check, "trust.firmware_keys", &file.trust.firmware_keys)?;
    if firmware_keys.len() > SIGNERS_MAX {
        return check.fail(
            "trust.firmware_keys",
            format_args!("a device keeps {SIGNERS_MAX} keys at most"),
        );
    }
    if issuer_keys.is_empty() {
        return check.fail(
            "trust.issuer_keys",
            "at least one key: without it no list can ever be adopted",
        );
    }
    let site = check.name("site.name", &file.site.name)?;
    core.instruments = Instruments {
        site: Some(site),
        currency: file.site.currency,
        issuers: issuer_keys.clone(),
        keypads: device_secrets
            .iter()
            .map(|(id, secret)| (*id, secret.keypad_key()))
            .collect(),
        enrolments: enrolments(&check_secrets, &secrets.codes)?,
    };
    Ok(Config {
        site,
        gateway,
        dir: base.join(&file.store.dir),
        snapshot_every: file.store.snapshot_every.max(1),
        reserve_bytes: file.store.reserve_mib.saturating_mul(1 << 20),
        keep_d: file.store.keep_d,
        device_side: devices::device_side(&check, &file.devices, &secrets, base)?,
        device_secrets,
        monitor_password: secrets.monitor_password.clone(),
        link: clouds::link(
            &check,
            &check_secrets,
            (file.link, file.cloud),
            &secrets,
            (site, gateway),
            &ids,
        )?,
        issuer_keys,
        firmware_keys,
        token_key: TokenKey(check_secrets.bytes("token_key", &secrets.token_key)?),
        blocked,
        control_group: file.control.group,
        page: page::page(&check, &check_secrets, file.page, &secrets)?,
        core,
    })
}

/// Where journal and control socket of a configuration are. Reads no secrets: who may ask the running gateway need not be
/// one who may read them.
///
/// # Errors
/// As [`load`], of the form of `path` alone.
pub fn store_dir(path: &Path) -> Result<PathBuf, ConfigError> {
    let text = read_text(path)?;
    let dir = match parse::<File>(path, &text) {
        Ok(file) => file.store.dir,
        // A gateway that runs keeps what it had before the file was spoiled, and can be asked.
        Err(error) => dir_written(&text).ok_or(error)?,
    };
    Ok(path.parent().unwrap_or(Path::new(".")).join(dir))
}

/// `dir` of `[store]` in a file that is not right in other places, as far as it can be told.
fn dir_written(text: &str) -> Option<PathBuf> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[store]")
        .skip(1);
    let is_dir = |line: &&str| line.split('=').next().is_some_and(|key| key.trim() == "dir");
    let line = lines.by_ref().take_while(|line| !line.starts_with('[')).find(is_dir)?;
    let table: toml::Table = line.parse().ok()?;
    table.get("dir")?.as_str().map(PathBuf::from)
}

/// Name of the secrets file, and of the manager's credential.
const SECRETS: &str = "secrets.toml";

/// Where the secrets are; nobody else may read them there.
pub(crate) fn secrets_path(path: &Path, named: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(given) = service::credential(SECRETS).filter(|_| named.is_none()) {
        return Ok(given);
    }
    let beside = named.map_or_else(|| path.with_file_name(SECRETS), Path::to_owned);
    // Where the file is encrypted, an operator's command reads what the running gateway was given.
    let given = service::credential_of("holdfast.service", SECRETS);
    if let Some(given) = given.filter(|_| named.is_none() && !beside.exists()) {
        return Ok(given);
    }
    check_mode(&beside)?;
    Ok(beside)
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Form {
        path: path.to_owned(),
        error: Box::new(error),
    })
}

type Devices = (BTreeMap<DeviceId, DeviceConfig>, BTreeMap<DeviceId, PairSecret>);

fn devices(
    check: &Checker<'_>,
    check_secrets: &Checker<'_>,
    sections: &[DeviceSection],
    secrets: &SecretsFile,
) -> Result<Devices, ConfigError> {
    let mut devices = BTreeMap::new();
    let mut keys = BTreeMap::new();
    for (i, section) in sections.iter().enumerate() {
        let key = format!("device[{i}]");
        let id = check.name(&format!("{key}.id"), &section.id)?;
        let kind = Kind::SERVED.into_iter().find(|kind| kind.word() == section.kind);
        let Some(kind) = kind else {
            return check.fail(
                &format!("{key}.kind"),
                format_args!("\"{}\" is not charger, washer or dispenser", section.kind),
            );
        };
        if !(1..=OUTLETS_MAX as u8).contains(&section.outlets) {
            return check.fail(
                &format!("{key}.outlets"),
                format_args!("a device has 1 to {OUTLETS_MAX} outlets"),
            );
        }
        if section.car && kind != Kind::Charger {
            return check.fail(&format!("{key}.car"), format_args!("a {} charges no car", kind.word()));
        }
        let Some(secret) = secrets.devices.get(&section.id) else {
            return check_secrets.fail("devices", format_args!("no secret for device {id}"));
        };
        keys.insert(id, check_secrets.secret(&format!("devices.{id}"), secret)?);
        if devices
            .insert(
                id,
                DeviceConfig {
                    kind,
                    outlets: section.outlets,
                    car: section.car,
                },
            )
            .is_some()
        {
            return check.fail(&format!("{key}.id"), format_args!("{id} stands here twice"));
        }
    }
    Ok((devices, keys))
}

fn host_port(check: &Checker<'_>, key: &str, text: &str) -> Result<(), ConfigError> {
    match carrier::split_host_port(text) {
        Some(_) => Ok(()),
        None => check.fail(key, format_args!("\"{text}\" is not host:port")),
    }
}
