//! HTTPS, for backends without MQTT: each frame is posted as JSON, frames for us come in the answers and in those to a
//! long poll beside them. Signing, status codes and the one-after-another of posts are the carrier's: it hands over the
//! body of an answer only if the backend signed it, and it polls what [`Login::filters`] names.

use carrier::{Class, Publish, Qos, Symptom};
use proto::{
    id::GatewayId,
    link::Upload,
    topic::{Lane, LinkUp},
};
use serde::{Deserialize, Serialize};

use crate::cloud::{
    adapter::{Adapter, At, Heard, Login, Meaning, Out, Up},
    told,
    wrap::{self, CODE_MALFORMED},
};

/// How long the backend may hold a poll open, in s: below the minute after which common proxies give up.
const POLL_S: u32 = 25;
/// Most frames in one answer; what is beyond is not read, and asked for again.
const FRAMES_MAX: usize = 256;
/// Where the seal's counter stands in a frame: behind the version.
const COUNTER: std::ops::Range<usize> = 1..9;

/// Who we are at the backend.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name.
    pub gateway: GatewayId,
    /// Our way.
    pub lane: Lane,
}

/// The adapter.
#[derive(Debug)]
pub struct Webhook {
    config: Config,
    path: String,
}

/// What is posted.
#[derive(Serialize)]
struct Posted<'a> {
    /// Unique and growing, over restarts too: the same id is the same message.
    id: String,
    lane: u8,
    word: &'a str,
    frame: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    orders: Vec<OrderEvent>,
}

/// One record about a session, readable. The same id is the same fact, however often it is said.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct OrderEvent {
    id: String,
    #[serde(rename = "type")]
    event: String,
    order_id: String,
    device: String,
    outlet: u8,
    /// Whose account; 0: not known.
    account: u64,
    /// The hold, the charge, or what is released; minor units.
    fen: i64,
    /// Delivered so far: Wh, cycles or ml.
    units: u64,
    /// 0: no fit clock.
    at_s: u64,
    /// The cloud had not accepted this session before the grant.
    offline: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    frames: Vec<AnswerFrame>,
}

#[derive(Deserialize)]
struct AnswerFrame {
    word: String,
    frame: String,
}

impl Webhook {
    /// For one link.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let path = format!("/v1/gateways/{}/messages", config.gateway);
        Self { config, path }
    }

    /// The seal's counter never repeats, over restarts and restores: no other number of ours is as good.
    fn id(frame: &[u8]) -> String {
        let counter = frame.get(COUNTER).and_then(|bytes| bytes.try_into().ok());
        u64::from_be_bytes(counter.unwrap_or_default()).to_string()
    }

    fn orders(&self, upload: &Upload) -> Vec<OrderEvent> {
        let gateway = &self.config.gateway;
        told::sessions(upload)
            .filter_map(|record| {
                Some(OrderEvent {
                    id: format!("{gateway}/{}/{}", upload.epoch, record.sequence),
                    event: format!("order.{}", told::event(record.kind)?),
                    order_id: record.session.to_string(),
                    device: record.device.to_string(),
                    outlet: record.outlet,
                    account: record.account,
                    fen: record.amount.0,
                    units: record.register_end.since(record.register_start).0,
                    at_s: record.at.wall_s,
                    offline: !record.online,
                })
            })
            .collect()
    }
}

impl Adapter for Webhook {
    fn login(&mut self, _at: At) -> Login {
        let poll = format!("{}?lane={}&wait_s={POLL_S}", self.path, self.config.lane.number());
        Login {
            client_id: self.config.gateway.to_string(),
            user: None,
            filters: vec![(poll, Qos::AtLeastOnce)],
        }
    }

    fn connected(&mut self, _at: At, out: &mut Out) {
        out.say(Heard::Ready);
    }

    fn send(&mut self, _at: At, up: Up<'_>, out: &mut Out) {
        let word = up.meaning.word();
        let orders = match up.meaning {
            Meaning::Records(upload) => self.orders(upload),
            Meaning::Hello(_) | Meaning::Ask(_) | Meaning::Echo(_) | Meaning::Telemetry(_) | Meaning::Done(_) => vec![],
        };
        let posted = Posted {
            id: Self::id(up.frame),
            lane: self.config.lane.number(),
            word: word.word(),
            frame: wrap::text(up.frame),
            orders,
        };
        out.publishes.push_back(Publish {
            topic: self.path.clone(),
            payload: serde_json::to_vec(&posted).expect("plain structs are JSON"),
            qos: match word {
                LinkUp::Telemetry => Qos::AtMostOnce,
                LinkUp::Hello | LinkUp::Ask | LinkUp::Records | LinkUp::Echo | LinkUp::Done => Qos::AtLeastOnce,
            },
            expires: None,
        });
    }

    fn heard(&mut self, _at: At, _topic: &str, payload: &[u8], out: &mut Out) {
        let answer = match read(payload) {
            Ok(answer) => answer,
            Err(symptom) => return out.say(Heard::Symptom(symptom)),
        };
        if answer.frames.len() > FRAMES_MAX {
            let what = format!("{} frames in one answer, {FRAMES_MAX} are read", answer.frames.len());
            out.say(Heard::Symptom(Symptom::new(Class::Protocol, CODE_MALFORMED, what)));
        }
        for AnswerFrame { word, frame } in answer.frames.iter().take(FRAMES_MAX) {
            out.say(wrap::open(word, frame).unwrap_or_else(Heard::from));
        }
    }
}

/// An answer, no longer than the carrier takes; nothing at all is one without frames.
fn read(payload: &[u8]) -> Result<Answer, Symptom> {
    let text = payload.trim_ascii();
    match text.first() {
        None => Ok(Answer { frames: Vec::new() }),
        Some(b'<') => Err(Symptom::new(
            Class::Intercepted,
            CODE_MALFORMED,
            "a page of HTML instead of an answer",
        )),
        Some(_) => wrap::json(text)
            .map_err(|error| Symptom::new(Class::Protocol, CODE_MALFORMED, format!("not an answer: {error}"))),
    }
}
