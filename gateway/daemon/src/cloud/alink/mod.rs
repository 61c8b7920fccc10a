//! Alibaba Cloud IoT Platform, spoken as a gateway with sub-devices. Frames go up as an event of the gateway and come
//! down as calls of a service; sub-devices are there for people in the cloud's console. Facts, limits and codes:
//! docs/clouds.md.

mod child;
mod codes;
mod down;
mod envelope;
mod freeze;
mod names;
mod posts;
mod replies;
mod sign;
mod topology;

use std::collections::BTreeSet;

use carrier::{Class, Qos, Symptom};
use proto::topic::Lane;
use serde::{Deserialize, Serialize};

pub use self::{
    child::Child,
    envelope::Identity,
    posts::FRAME_BYTES_MAX,
    sign::{Method, Secret, TIMESTAMP_MS},
    topology::CHILDREN_MAX,
};
use self::{
    envelope::{Loose, Plain, bytes},
    names::{Ids, Names},
    posts::Posts,
    topology::{Topology, Turn},
};
use crate::cloud::{
    adapter::{Adapter, At, Heard, Login, Out, Up},
    wrap::{self, Wrapped},
};

/// Longest part of the client id that is ours, in characters.
const CLIENT_CHARS_MAX: usize = 64;
/// Length of a device's name at the cloud, in characters.
const DEVICE_NAME_CHARS: std::ops::RangeInclusive<usize> = 4..=32;
/// An answer about the time that took longer says nothing, in ms.
const NTP_MS: u64 = 10_000;

/// Who we are at the cloud, and who is behind us.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our way.
    pub lane: Lane,
    /// Of the gateway's product.
    pub product_key: String,
    /// The gateway's.
    pub device_name: String,
    /// The gateway's.
    pub device_secret: Secret,
    /// The part of the client id before the first bar; none: product key and device name.
    pub client: Option<String>,
    /// How to sign.
    pub method: Method,
    /// Whether the connection is TLS: the cloud wants to be told.
    pub is_tls: bool,
    /// Whether the product has the topic `user/hf_down`: for frames that are longer than a service's text may be.
    pub has_user_topic: bool,
    /// The site's devices, as far as the cloud shall know them.
    pub children: Vec<Child>,
    /// What decides the waits, and the first number of a request.
    pub seed: u64,
}

/// Why a configuration is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// A product key with other characters than letters and digits, or none.
    #[error("{0:?} is no product key")]
    ProductKey(String),
    /// A device name of the wrong length or with other characters.
    #[error("{0:?} is no device name: 4 to 32 characters of A-Z, a-z, 0-9 and _@.:-")]
    DeviceName(String),
    /// A secret without characters.
    #[error("the secret of {0} is empty")]
    Secret(String),
    /// The client id would be refused.
    #[error("{0:?} is no client id: 1 to {CLIENT_CHARS_MAX} printable characters without '|'")]
    Client(String),
    /// More sub-devices than the cloud allows.
    #[error("{0} sub-devices, at most {CHILDREN_MAX}")]
    Children(usize),
    /// A sub-device twice.
    #[error("{0} is configured twice")]
    Twice(String),
}

impl Config {
    /// Checks what the cloud would refuse.
    ///
    /// # Errors
    /// [`BadConfig`], the first one.
    pub fn check(&self) -> Result<(), BadConfig> {
        check_device(&self.product_key, &self.device_name, &self.device_secret)?;
        let client = self.client();
        let is_char = |c: char| c.is_ascii_graphic() && c != '|';
        if client.is_empty() || client.len() > CLIENT_CHARS_MAX || !client.chars().all(is_char) {
            return Err(BadConfig::Client(client));
        }
        if self.children.len() > CHILDREN_MAX {
            return Err(BadConfig::Children(self.children.len()));
        }
        let mut seen = BTreeSet::new();
        for child in &self.children {
            let identity = &child.identity;
            check_device(&identity.product_key, &identity.device_name, &child.secret)?;
            let is_self = (&identity.product_key, &identity.device_name) == (&self.product_key, &self.device_name);
            let names = [identity.device_name.clone(), format!("device {}", child.device)];
            if is_self
                || !names
                    .into_iter()
                    .all(|name| seen.insert((identity.product_key.clone(), name)))
            {
                return Err(BadConfig::Twice(identity.device_name.clone()));
            }
        }
        Ok(())
    }

    fn client(&self) -> String {
        let usual = || format!("{}.{}", self.product_key, self.device_name);
        self.client.clone().unwrap_or_else(usual)
    }
}

fn check_device(product_key: &str, device_name: &str, secret: &Secret) -> Result<(), BadConfig> {
    if product_key.is_empty() || !product_key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(BadConfig::ProductKey(product_key.to_owned()));
    }
    let is_char = |c: char| c.is_ascii_alphanumeric() || "_@.:-".contains(c);
    if !DEVICE_NAME_CHARS.contains(&device_name.len()) || !device_name.chars().all(is_char) {
        return Err(BadConfig::DeviceName(device_name.to_owned()));
    }
    if secret.0.is_empty() {
        return Err(BadConfig::Secret(device_name.to_owned()));
    }
    Ok(())
}

/// The adapter.
#[derive(Debug)]
pub struct Alink {
    config: Config,
    names: Names,
    ids: Ids,
    posts: Posts,
    topology: Topology,
    /// When we asked what the time is; the question carries it.
    ntp_ms: Option<u64>,
    /// What the cloud's clock showed when ours began.
    cloud_zero_ms: Option<u64>,
}

impl Alink {
    /// For one link.
    ///
    /// # Errors
    /// [`BadConfig`] if the cloud would refuse it.
    pub fn new(config: Config) -> Result<Self, BadConfig> {
        config.check()?;
        Ok(Self {
            names: Names {
                product_key: config.product_key.clone(),
                device_name: config.device_name.clone(),
            },
            ids: Ids::after(config.seed as u32),
            posts: Posts::default(),
            topology: Topology::new(config.children.clone(), config.method, config.seed),
            ntp_ms: None,
            cloud_zero_ms: None,
            config,
        })
    }

    fn split<'a>(&'a mut self, at: At, out: &'a mut Out) -> (Turn<'a>, &'a mut Posts, &'a mut Topology) {
        let turn = Turn {
            now_ms: at.mono_ms,
            names: &self.names,
            ids: &mut self.ids,
            out,
        };
        (turn, &mut self.posts, &mut self.topology)
    }

    /// What time to write: ours, or the cloud's own, or none.
    fn wall_ms(&self, at: At) -> u64 {
        let by_cloud = self.cloud_zero_ms.map(|zero_ms| zero_ms.saturating_add(at.mono_ms));
        at.wall_ms.or(by_cloud).unwrap_or(0)
    }

    fn ask_time(&mut self, at: At, out: &mut Out) {
        self.ntp_ms = Some(at.mono_ms);
        let question = NtpQuestion {
            device_send_time: at.mono_ms.to_string(),
        };
        let topic = self.names.around("ext/ntp", "/request");
        out.publish(topic, bytes(&question), Qos::AtMostOnce);
    }

    /// Between sending and hearing lies what the way takes; half of it is the way back.
    fn heard_time(&mut self, at: At, payload: &[u8], out: &mut Out) {
        let Ok(answer) = wrap::json::<NtpAnswer>(payload) else {
            return complain(out, "an answer about the time that cannot be read");
        };
        let Some(sent_ms) = self
            .ntp_ms
            .filter(|sent_ms| answer.device_send_time.number() == Some(*sent_ms))
        else {
            return;
        };
        self.ntp_ms = None;
        let (received, sent) = (answer.server_recv_time.number(), answer.server_send_time.number());
        let (Some(received_ms), Some(left_ms)): (Option<u64>, Option<u64>) = (received, sent) else {
            return complain(out, "an answer about the time without a time");
        };
        let took_ms = at.mono_ms.saturating_sub(sent_ms);
        if took_ms > NTP_MS || left_ms < received_ms || received_ms == 0 {
            return;
        }
        let Some(sum_ms) = received_ms
            .checked_add(left_ms)
            .and_then(|sum| sum.checked_add(took_ms))
        else {
            return;
        };
        self.cloud_zero_ms = Some((sum_ms / 2).saturating_sub(at.mono_ms));
        out.say(Heard::Clock(sum_ms / 2));
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NtpQuestion {
    device_send_time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NtpAnswer {
    device_send_time: Loose,
    server_recv_time: Loose,
    server_send_time: Loose,
}

#[derive(Serialize)]
struct Inform {
    version: &'static str,
}

/// The cloud said something that cannot be read.
fn complain(out: &mut Out, what: impl AsRef<str>) {
    let code = codes::http(Class::Protocol);
    out.say(Heard::Symptom(Symptom::new(Class::Protocol, code, what)));
}

impl Adapter for Alink {
    fn login(&mut self, _at: At) -> Login {
        self.posts.lost();
        self.topology.lost();
        self.ntp_ms = None;
        let Config {
            product_key,
            device_name,
            device_secret,
            method,
            ..
        } = &self.config;
        let client = self.config.client();
        let mode = if self.config.is_tls { 2 } else { 3 };
        let password = method.sign_login(device_secret, &client, device_name, product_key);
        Login {
            client_id: format!(
                "{client}|securemode={mode},signmethod={},timestamp={TIMESTAMP_MS}|",
                method.word()
            ),
            user: Some((format!("{device_name}&{product_key}"), password)),
            filters: self.filters(),
        }
    }

    fn connected(&mut self, at: At, out: &mut Out) {
        self.ask_time(at, out);
        let inform = Plain {
            id: self.ids.next().to_string(),
            params: Inform {
                version: env!("CARGO_PKG_VERSION"),
            },
        };
        let topic = self.names.around("ota/device/inform", "");
        out.publish(topic, bytes(&inform), Qos::AtLeastOnce);
        out.say(Heard::Ready);
        let (mut turn, _, topology) = self.split(at, out);
        topology.connected(&mut turn);
    }

    fn send(&mut self, at: At, up: Up<'_>, out: &mut Out) {
        let wall_ms = self.wall_ms(at);
        let value = Wrapped::of(&up, self.config.lane);
        let (mut turn, posts, topology) = self.split(at, out);
        posts.send(&mut turn, &up, value, wall_ms, topology);
    }

    fn heard(&mut self, at: At, topic: &str, payload: &[u8], out: &mut Out) {
        self.route(at, topic, payload, out);
    }

    fn tick_at(&self) -> Option<u64> {
        self.posts.tick_at().into_iter().chain(self.topology.tick_at()).min()
    }

    fn tick(&mut self, at: At, out: &mut Out) {
        let (mut turn, posts, topology) = self.split(at, out);
        posts.tick(&mut turn);
        topology.tick(&mut turn);
    }

    fn frame_bytes_max(&self) -> usize {
        FRAME_BYTES_MAX
    }
}
