//! `[[cloud]]`: by which clouds the operator's backend is reached, the preferred one first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use carrier::{
    mqtt::Version,
    tls::{Section, Tls},
};
use proto::{
    id::{DeviceId, GatewayId, Name},
    seal::PairSecret,
    topic::{self, LANES_MAX, Lane},
};
use serde::Deserialize;

use super::{Checker, ConfigError, TELEMETRY_S_MAX, host_port, secrets::SecretsFile};
use crate::cloud::{
    alink::{self, Alink},
    aws::{self, Aws},
    board::Load,
};

/// Longest time that proofs may have to last before a cloud goes first again, in s.
const FAILBACK_S_MAX: u64 = 86_400;

/// How fast, whichever cloud.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pacing {
    /// Most uploads a second, at least 1.
    pub batches_a_second_max: u32,
    /// As well, of the backlog of an outage. The default lets five hundred gateways come back at once.
    pub backlog_batches_a_second_max: u32,
    /// Longest wait between two attempts to connect, in s, at least 1.
    pub reconnect_s_max: u64,
    /// Time between two reports of telemetry, in s, at most a day; 0: none.
    pub telemetry_s: u64,
    /// How long a cloud must prove itself before it goes first again, in s.
    pub failback_s: u64,
}

/// Five hundred gateways then make fewer than ten small messages of telemetry a second.
impl Default for Pacing {
    fn default() -> Self {
        Self {
            batches_a_second_max: 20,
            backlog_batches_a_second_max: 2,
            reconnect_s_max: 30,
            telemetry_s: 60,
            failback_s: 60,
        }
    }
}

/// One `[[cloud]]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloudSection {
    name: String,
    kind: String,
    broker: Option<String>,
    url: Option<String>,
    #[serde(default)]
    mqtt: MqttVersion,
    keep_alive_s: Option<u16>,
    carries: Option<Vec<Load>>,
    /// Without it the connection is plain.
    tls: Option<Section>,
    client_id: Option<String>,
    username: Option<String>,
    product_key: Option<String>,
    device_name: Option<String>,
    #[serde(default)]
    sign_method: SignMethod,
    #[serde(default)]
    has_user_topic: bool,
    #[serde(default)]
    device: Vec<ChildSection>,
    thing: Option<String>,
    rule: Option<String>,
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

impl From<MqttVersion> for Version {
    fn from(version: MqttVersion) -> Self {
        match version {
            MqttVersion::V3 => Self::V3,
            MqttVersion::V5 => Self::V5,
        }
    }
}

/// As the cloud calls them.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SignMethod {
    #[default]
    HmacSha256,
    HmacSha1,
    HmacMd5,
}

impl From<SignMethod> for alink::Method {
    fn from(method: SignMethod) -> Self {
        match method {
            SignMethod::HmacSha256 => Self::HmacSha256,
            SignMethod::HmacSha1 => Self::HmacSha1,
            SignMethod::HmacMd5 => Self::HmacMd5,
        }
    }
}

/// A device of the site under the cloud's names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChildSection {
    id: String,
    product_key: String,
    device_name: String,
}

/// One `[clouds.NAME]` of the secrets file as written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloudSecrets {
    password: Option<String>,
    device_secret: Option<String>,
    sign_key: Option<String>,
    #[serde(default)]
    devices: BTreeMap<String, String>,
}

/// What a cloud speaks.
#[derive(Clone, Debug)]
pub enum CloudKind {
    /// Our own protocol, on any broker.
    Hcp {
        /// MQTT client id.
        client_id: String,
        /// User name and password; none: the certificate says who we are.
        user: Option<(String, String)>,
    },
    /// Alibaba Cloud's IoT platform.
    Alink(Box<alink::Config>),
    /// AWS IoT Core.
    Aws(Box<aws::Config>),
    /// The operator's own HTTPS endpoint.
    Webhook {
        /// `https://host[:port][/prefix]`.
        url: String,
        /// What both sides sign with.
        key: SignKey,
    },
}

/// What both sides of a webhook sign with. Never printed.
#[derive(Clone)]
pub struct SignKey(pub Vec<u8>);

impl fmt::Debug for SignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignKey(..)")
    }
}

/// How a cloud is reached.
#[derive(Clone, Debug)]
pub struct Road {
    /// `host:port`; empty for a webhook.
    pub broker: String,
    /// Which MQTT.
    pub version: Version,
    /// Keep-alive, in s.
    pub keep_alive_s: u16,
    /// None: plain TCP.
    pub tls: Option<Tls>,
}

/// One cloud.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// The operator's name for it.
    pub name: String,
    /// Its place in the order of preference, and the number in our topics.
    pub lane: Lane,
    /// What it may carry.
    pub carries: Vec<Load>,
    /// How it is reached.
    pub road: Road,
    /// What it speaks.
    pub kind: CloudKind,
}

/// The link to the hub.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Shared with the hub.
    pub secret: PairSecret,
    /// How fast.
    pub pacing: Pacing,
    /// By which clouds, the preferred one first; 1 to [`LANES_MAX`].
    pub clouds: Vec<CloudConfig>,
}

/// What a cloud's section is read beside.
struct Reader<'a> {
    check: &'a Checker<'a>,
    check_secrets: &'a Checker<'a>,
    site: Name,
    gateway: GatewayId,
    secret: &'a PairSecret,
    /// The devices of the site.
    devices: &'a [DeviceId],
}

/// Reads `[link]` and every `[[cloud]]`.
pub(super) fn link(
    check: &Checker<'_>,
    check_secrets: &Checker<'_>,
    (pacing, sections): (Pacing, Vec<CloudSection>),
    secrets: &SecretsFile,
    (site, gateway): (Name, GatewayId),
    devices: &[DeviceId],
) -> Result<Option<LinkConfig>, ConfigError> {
    check_pacing(check, &pacing)?;
    if sections.is_empty() {
        return Ok(None);
    }
    let Some(secret) = &secrets.link else {
        return check_secrets.fail("link", "missing: the secret shared with the hub");
    };
    let secret = check_secrets.secret("link", secret)?;
    if sections.len() > usize::from(LANES_MAX) {
        return check.fail("cloud", format_args!("at most {LANES_MAX} clouds"));
    }
    let reader = Reader {
        check,
        check_secrets,
        site,
        gateway,
        secret: &secret,
        devices,
    };
    let mut clouds: Vec<CloudConfig> = Vec::new();
    let nothing = CloudSecrets::default();
    for (number, section) in sections.into_iter().enumerate() {
        let key = format!("cloud[{number}]");
        let name = check.name(&format!("{key}.name"), &section.name)?;
        if clouds.iter().any(|cloud| cloud.name == name.as_str()) {
            return check.fail(&format!("{key}.name"), format_args!("\"{name}\" stands here twice"));
        }
        let own = secrets.clouds.get(name.as_str()).unwrap_or(&nothing);
        let lane = u8::try_from(number).ok().and_then(Lane::new).unwrap_or_default();
        clouds.push(reader.cloud(&key, name, lane, section, own)?);
    }
    if !clouds.iter().any(|cloud| cloud.carries.contains(&Load::Money)) {
        return check.fail(
            "cloud",
            "no cloud carries money: nobody can be asked, and no record leaves",
        );
    }
    unknown_secrets(check_secrets, &clouds, &secrets.clouds)?;
    Ok(Some(LinkConfig { secret, pacing, clouds }))
}

fn check_pacing(check: &Checker<'_>, pacing: &Pacing) -> Result<(), ConfigError> {
    if pacing.batches_a_second_max == 0 {
        return check.fail("link.batches_a_second_max", "at least 1");
    }
    if pacing.backlog_batches_a_second_max == 0 {
        return check.fail("link.backlog_batches_a_second_max", "at least 1");
    }
    if pacing.reconnect_s_max == 0 {
        return check.fail("link.reconnect_s_max", "at least 1");
    }
    if pacing.telemetry_s > TELEMETRY_S_MAX {
        return check.fail(
            "link.telemetry_s",
            format_args!("at most {TELEMETRY_S_MAX} s, a day; 0: none is sent"),
        );
    }
    if pacing.failback_s > FAILBACK_S_MAX {
        return check.fail("link.failback_s", format_args!("at most {FAILBACK_S_MAX} s, a day"));
    }
    Ok(())
}

impl Reader<'_> {
    fn cloud(
        &self,
        key: &str,
        name: Name,
        lane: Lane,
        section: CloudSection,
        own: &CloudSecrets,
    ) -> Result<CloudConfig, ConfigError> {
        let kind = match section.kind.as_str() {
            "hcp" => self.hcp(lane, &section, own),
            "alink" => self.alink(key, name, lane, &section, own)?,
            "aws" => self.aws(key, lane, &section)?,
            "webhook" => self.webhook(key, name, &section, own)?,
            other => {
                let why = format!("\"{other}\" is not hcp, alink, aws or webhook");
                return self.check.fail(&format!("{key}.kind"), why);
            }
        };
        Ok(CloudConfig {
            name: name.to_string(),
            lane,
            road: self.road(key, &section, &kind)?,
            carries: section.carries.unwrap_or_else(|| vec![Load::Money, Load::Telemetry]),
            kind,
        })
    }

    fn road(&self, key: &str, section: &CloudSection, kind: &CloudKind) -> Result<Road, ConfigError> {
        let broker = match (kind, &section.broker) {
            (CloudKind::Webhook { .. }, None) => "",
            (CloudKind::Webhook { .. }, Some(_)) => {
                return self.check.fail(&format!("{key}.broker"), "a webhook has a url");
            }
            (_, None) => return self.check.fail(&format!("{key}.broker"), "missing: host:port"),
            (_, Some(broker)) => {
                host_port(self.check, &format!("{key}.broker"), broker)?;
                broker
            }
        };
        let (default, least, most) = kind.keep_alive_s();
        let keep_alive_s = section.keep_alive_s.unwrap_or(default);
        if !(least..=most).contains(&keep_alive_s) {
            let why = format!("{} takes {least} to {most} s", section.kind);
            return self.check.fail(&format!("{key}.keep_alive_s"), why);
        }
        Ok(Road {
            broker: broker.to_owned(),
            version: section.mqtt.into(),
            keep_alive_s,
            tls: section.tls.as_ref().map(|tls| self.tls(key, tls)).transpose()?,
        })
    }

    fn tls(&self, key: &str, section: &Section) -> Result<Tls, ConfigError> {
        let base = self.check.path.parent().unwrap_or(Path::new("."));
        let files = section
            .files(base)
            .or_else(|error| self.check.fail(&format!("{key}.tls"), error))?;
        let tls = Tls::new(files);
        match tls.config() {
            Ok(_) => Ok(tls),
            Err(error) => self.check.fail(&format!("{key}.tls"), error),
        }
    }

    fn hcp(&self, lane: Lane, section: &CloudSection, own: &CloudSecrets) -> CloudKind {
        let client_id = section
            .client_id
            .clone()
            .unwrap_or_else(|| topic::link_client(&self.gateway, lane).to_string());
        let has_certificate = section.tls.as_ref().is_some_and(|tls| tls.certificate.is_some());
        let user = match (&section.username, &own.password) {
            (None, None) if has_certificate => None,
            // Our own hub knows its gateways by what it shares with them.
            (name, password) => Some((
                name.clone().unwrap_or_else(|| client_id.clone()),
                password.clone().unwrap_or_else(|| self.secret.password().to_string()),
            )),
        };
        CloudKind::Hcp { client_id, user }
    }

    fn aws(&self, key: &str, lane: Lane, section: &CloudSection) -> Result<CloudKind, ConfigError> {
        let Some(thing) = &section.thing else {
            return self
                .check
                .fail(&format!("{key}.thing"), "missing: the name of the gateway's thing");
        };
        if section.tls.as_ref().is_none_or(|tls| tls.certificate.is_none()) {
            return self.check.fail(
                &format!("{key}.tls"),
                "this cloud knows its things by their certificate alone",
            );
        }
        let config = aws::Config {
            site: self.site,
            gateway: self.gateway,
            lane,
            thing: thing.clone(),
            rule: section.rule.clone(),
            seed: fastrand::u64(..),
        };
        match Aws::new(config.clone()) {
            Ok(_) => Ok(CloudKind::Aws(Box::new(config))),
            Err(error) => self.check.fail(key, error),
        }
    }

    fn webhook(
        &self,
        key: &str,
        name: Name,
        section: &CloudSection,
        own: &CloudSecrets,
    ) -> Result<CloudKind, ConfigError> {
        let Some(url) = &section.url else {
            return self
                .check
                .fail(&format!("{key}.url"), "missing: https://host[:port][/prefix]");
        };
        let is_safe = url.starts_with("https://") == section.tls.is_some();
        if !is_safe || !(url.starts_with("https://") || url.starts_with("http://")) {
            let why = "https:// with a tls table, or http:// without one";
            return self.check.fail(&format!("{key}.url"), format_args!("\"{url}\": {why}"));
        }
        let Some(sign_key) = &own.sign_key else {
            return self
                .check_secrets
                .fail(&format!("clouds.{name}.sign_key"), "missing: 64 hexadecimal digits");
        };
        let sign_key = self.check_secrets.bytes(&format!("clouds.{name}.sign_key"), sign_key)?;
        Ok(CloudKind::Webhook {
            url: url.clone(),
            key: SignKey(sign_key.to_vec()),
        })
    }

    fn alink(
        &self,
        key: &str,
        name: Name,
        lane: Lane,
        section: &CloudSection,
        own: &CloudSecrets,
    ) -> Result<CloudKind, ConfigError> {
        let needed = |field: &str, value: &Option<String>| match value {
            Some(value) => Ok(value.clone()),
            None => self.check.fail(&format!("{key}.{field}"), "missing"),
        };
        let Some(device_secret) = &own.device_secret else {
            return self
                .check_secrets
                .fail(&format!("clouds.{name}.device_secret"), "missing");
        };
        let mut children = Vec::new();
        for (number, child) in section.device.iter().enumerate() {
            let device = self.check.name(&format!("{key}.device[{number}].id"), &child.id)?;
            if !self.devices.contains(&device) {
                let why = format!("{device} is not a device of this site");
                return self.check.fail(&format!("{key}.device[{number}].id"), why);
            }
            let Some(secret) = own.devices.get(&child.id) else {
                let secret_key = format!("clouds.{name}.devices.{device}");
                return self
                    .check_secrets
                    .fail(&secret_key, "missing: its secret at this cloud");
            };
            children.push(alink::Child {
                device,
                identity: alink::Identity {
                    product_key: child.product_key.clone(),
                    device_name: child.device_name.clone(),
                },
                secret: alink::Secret(secret.clone()),
            });
        }
        let config = alink::Config {
            lane,
            product_key: needed("product_key", &section.product_key)?,
            device_name: needed("device_name", &section.device_name)?,
            device_secret: alink::Secret(device_secret.clone()),
            client: section.client_id.clone(),
            method: section.sign_method.into(),
            is_tls: section.tls.is_some(),
            has_user_topic: section.has_user_topic,
            children,
            seed: fastrand::u64(..),
        };
        match Alink::new(config.clone()) {
            Ok(_) => Ok(CloudKind::Alink(Box::new(config))),
            Err(error) => self.check.fail(key, error),
        }
    }
}

/// Secrets of a cloud that is not configured are a name written wrongly.
fn unknown_secrets(
    check: &Checker<'_>,
    clouds: &[CloudConfig],
    secrets: &BTreeMap<String, CloudSecrets>,
) -> Result<(), ConfigError> {
    let known: BTreeSet<&str> = clouds.iter().map(|cloud| cloud.name.as_str()).collect();
    match secrets.keys().find(|name| !known.contains(name.as_str())) {
        Some(name) => check.fail(&format!("clouds.{name}"), "no [[cloud]] has this name"),
        None => Ok(()),
    }
}
