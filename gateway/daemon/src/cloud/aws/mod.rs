//! AWS IoT Core. Frames travel on their canonical topics, which the thing's policy allows; a named shadow points at newer
//! artifacts, and jobs bring frames to gateways that were away. Facts, limits and policy: docs/clouds.md.

mod jobs;
mod shadow;
mod words;

use bytes::Bytes;
use carrier::{Class, Publish, Qos, Symptom};
use proto::{
    id::{GatewayId, Name},
    topic::{self, Lane, LinkUp},
};

use self::{
    jobs::Jobs,
    shadow::Shadow,
    words::{Tokens, Turn},
};
use crate::cloud::{
    adapter::{Adapter, At, Heard, Login, Meaning, Out, Up},
    wrap::CODE_MALFORMED,
};

/// Longest payload, in bytes: the broker's limit.
const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// HTTP's code for something that is too long.
const CODE_LONG: u16 = 413;
/// Longest name of a thing or a rule, in characters.
const NAME_CHARS_MAX: usize = 128;

/// Who we are at the cloud.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our site.
    pub site: Name,
    /// Our name.
    pub gateway: GatewayId,
    /// Our way.
    pub lane: Lane,
    /// Name of the thing, which is the client id, too.
    pub thing: String,
    /// The rule that takes records and telemetry without the broker (Basic Ingest); none: everything goes by the broker.
    pub rule: Option<String>,
    /// What decides the waits.
    pub seed: u64,
}

/// Why a configuration is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// The cloud has no such names of things.
    #[error("{0:?} is no name of a thing: 1 to 128 characters of A-Z, a-z, 0-9 and :_-")]
    Thing(String),
    /// The cloud has no such names of rules.
    #[error("{0:?} is no name of a rule: 1 to 128 characters of A-Z, a-z, 0-9 and _")]
    Rule(String),
}

impl Config {
    /// Checks what the cloud would refuse, and what would change the topics.
    ///
    /// # Errors
    /// [`BadConfig`], the first one.
    pub fn check(&self) -> Result<(), BadConfig> {
        if !is_name(&self.thing, ":_-") {
            return Err(BadConfig::Thing(self.thing.clone()));
        }
        match &self.rule {
            Some(rule) if !is_name(rule, "_") => Err(BadConfig::Rule(rule.clone())),
            Some(_) | None => Ok(()),
        }
    }
}

fn is_name(text: &str, also: &str) -> bool {
    let is_char = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.chars().all(is_char)
}

/// The adapter.
#[derive(Debug)]
pub struct Aws {
    config: Config,
    /// What all reserved topics of the thing begin with.
    thing: String,
    tokens: Tokens,
    shadow: Shadow,
    jobs: Jobs,
}

impl Aws {
    /// For one link.
    ///
    /// # Errors
    /// [`BadConfig`] if the cloud would refuse it.
    pub fn new(config: Config) -> Result<Self, BadConfig> {
        config.check()?;
        let thing = format!("$aws/things/{}/", config.thing);
        Ok(Self {
            tokens: Tokens::new(config.seed),
            shadow: Shadow::new(&thing),
            jobs: Jobs::new(&thing, config.lane),
            thing,
            config,
        })
    }

    fn split<'a>(&'a mut self, at: At, out: &'a mut Out) -> (Turn<'a>, &'a mut Shadow, &'a mut Jobs) {
        let turn = Turn {
            now_ms: at.mono_ms,
            tokens: &mut self.tokens,
            out,
        };
        (turn, &mut self.shadow, &mut self.jobs)
    }

    fn frame(&self, topic: &str, payload: &[u8], out: &mut Out) {
        let own = (self.config.site, self.config.gateway, self.config.lane);
        match topic::parse_link_down(topic) {
            Some(found) if (found.site, found.gateway, found.lane) == own => out.say(Heard::Frame {
                word: found.word,
                frame: Bytes::copy_from_slice(payload),
            }),
            Some(_) | None => {
                let text = format!("a message on {topic:.80}, which is no topic of this gateway's lane");
                out.say(Heard::Symptom(Symptom::new(Class::Protocol, CODE_MALFORMED, text)));
            }
        }
    }
}

impl Adapter for Aws {
    fn login(&mut self, _at: At) -> Login {
        self.shadow.lost();
        self.jobs.lost();
        let Config {
            site, gateway, lane, ..
        } = &self.config;
        let down = topic::link_down_filter(site, gateway, *lane).to_string();
        let own = shadow::FILTERS.iter().chain(&jobs::FILTERS);
        let reserved = own.map(|rest| format!("{}{rest}", self.thing));
        Login {
            client_id: self.config.thing.clone(),
            user: None,
            filters: std::iter::once(down)
                .chain(reserved)
                .map(|filter| (filter, Qos::AtLeastOnce))
                .collect(),
        }
    }

    fn connected(&mut self, at: At, out: &mut Out) {
        out.say(Heard::Ready);
        let (mut turn, shadow, jobs) = self.split(at, out);
        shadow.connected(&mut turn);
        jobs.connected(&mut turn);
    }

    fn send(&mut self, at: At, up: Up<'_>, out: &mut Out) {
        if up.frame.len() > PAYLOAD_BYTES_MAX {
            let text = format!("a frame of {} bytes, {PAYLOAD_BYTES_MAX} at most", up.frame.len());
            return out.say(Heard::Symptom(Symptom::new(Class::Protocol, CODE_LONG, text)));
        }
        let word = up.meaning.word();
        let (is_bulk, qos) = match word {
            LinkUp::Records => (true, Qos::AtLeastOnce),
            LinkUp::Telemetry => (true, Qos::AtMostOnce),
            LinkUp::Hello | LinkUp::Ask | LinkUp::Echo | LinkUp::Done => (false, Qos::AtLeastOnce),
        };
        let topic = match &self.config.rule {
            Some(rule) if is_bulk => format!("$aws/rules/{rule}/{}", up.topic),
            Some(_) | None => up.topic.to_owned(),
        };
        out.publishes.push_back(Publish {
            topic,
            payload: up.frame.to_vec(),
            qos,
            expires: up.meaning.worth(),
        });
        if let Meaning::Hello(hello) = up.meaning {
            let (mut turn, shadow, _) = self.split(at, out);
            shadow.applied(&mut turn, hello);
        }
    }

    fn heard(&mut self, at: At, topic: &str, payload: &[u8], out: &mut Out) {
        let Some(rest) = topic.strip_prefix(&self.thing) else {
            return self.frame(topic, payload, out);
        };
        if payload.len() > PAYLOAD_BYTES_MAX {
            let text = format!("{topic:.80}: {} bytes, {PAYLOAD_BYTES_MAX} at most", payload.len());
            return out.say(Heard::Symptom(Symptom::new(Class::Protocol, CODE_LONG, text)));
        }
        let (mut turn, shadow, jobs) = self.split(at, out);
        if let Some(about) = rest.strip_prefix(shadow::PLACE) {
            shadow.heard(&mut turn, about, payload);
        } else if let Some(about) = rest.strip_prefix(jobs::PLACE) {
            jobs.heard(&mut turn, about, payload);
        } else {
            turn.complain(format!("a message on a topic that we do not know: {topic}"));
        }
    }

    fn tick_at(&self) -> Option<u64> {
        self.shadow.tick_at().into_iter().chain(self.jobs.tick_at()).min()
    }

    fn tick(&mut self, at: At, out: &mut Out) {
        let (mut turn, shadow, jobs) = self.split(at, out);
        shadow.tick(&mut turn);
        jobs.tick(&mut turn);
    }
}
