//! Alibaba Cloud IoT Platform, the way its gateways see it (Alink over MQTT). It checks what the platform checks, answers
//! with the platform's codes, and unwraps the operator's frames from the events and services in which they travel.

mod names;
mod services;
mod things;
mod topology;

use std::collections::{BTreeMap, BTreeSet};

use proto::id::GatewayId;
use serde_json::{Value, json};

pub use self::names::Triple;
use self::{
    names::{ClientId, is_password},
    topology::Sub,
};
use super::{
    Command,
    broker::{
        Admitted, Cx, FrameDown, Personality, Refused, Rules, Say, Taken, Tls,
        packet::{Connect, Publish},
    },
    fault::{Fault, Of, Stage},
};

/// Keep-alive that is taken, in s.
const KEEP_ALIVE_S: std::ops::RangeInclusive<u16> = 30..=1_200;
/// Longest topic, in bytes.
const TOPIC_BYTES_MAX: usize = 128;
/// Longest text of an event or a service, in characters.
const TEXT_CHARS_MAX: usize = 10_240;
/// Attempts to connect of one device in a minute.
const CONNECTS_A_MINUTE: usize = 5;
/// A minute, in ms.
const MINUTE_MS: u64 = 60_000;
/// Properties of the CONNACK of MQTT 5: retain and wildcards yes, subscription identifiers no, shared subscriptions yes,
/// highest QoS 1.
const CONNACK_PROPERTIES: &[u8] = &[0x25, 1, 0x28, 1, 0x29, 0, 0x2a, 1, 0x24, 1];

/// The platform's codes.
mod code {
    pub(super) const OK: u32 = 200;
    pub(super) const TOPOLOGY_SIGN: u32 = 401;
    pub(super) const OVERDUE: u32 = 403;
    pub(super) const ELSEWHERE: u32 = 427;
    pub(super) const TOO_MANY_SUBS: u32 = 428;
    pub(super) const TOO_MANY: u32 = 429;
    pub(super) const PARAMETER: u32 = 460;
    pub(super) const NO_SESSION: u32 = 520;
    pub(super) const FORBIDDEN: u32 = 522;
    pub(super) const NOT_FOUND: u32 = 6_100;
    pub(super) const EVENTS: u32 = 6_104;
    pub(super) const PROPERTIES: u32 = 6_106;
    pub(super) const TOPIC: u32 = 6_203;
    pub(super) const NOT_JSON: u32 = 6_207;
    pub(super) const SIGN: u32 = 6_287;
    pub(super) const SCHEMA: u32 = 6_300;
    pub(super) const NO_TOPOLOGY: u32 = 6_401;
    pub(super) const SELF: u32 = 6_402;
    pub(super) const SUBS: u32 = 6_357;
    pub(super) const NO_CONFIG: u32 = 6_710;
}

/// A gateway at the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Which of the operator's.
    pub gateway: GatewayId,
    /// How the platform knows it.
    pub triple: Triple,
}

/// What the platform knows and allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlinkOptions {
    /// Gateways.
    pub gateways: Vec<Home>,
    /// Devices that may hang on gateways.
    pub devices: Vec<Triple>,
    /// Messages with QoS 1 a second of one device; more are dropped and answered with 429.
    pub acknowledged_a_second_max: u32,
    /// Messages with QoS 0 a second of one device; more are dropped.
    pub unacknowledged_a_second_max: u32,
    /// How long the second of these two is, in ms: a test on a loaded machine wants a long one.
    pub second_ms: u64,
    /// Sub-devices of one gateway.
    pub subs_max: usize,
    /// Where firmware and configuration lie, `http://host:port`.
    pub store: Option<String>,
    /// Version of the firmware that is offered; none: nothing is offered.
    pub firmware: Option<String>,
}

impl AlinkOptions {
    /// The platform with its documented limits.
    #[must_use]
    pub const fn new(gateways: Vec<Home>, devices: Vec<Triple>) -> Self {
        Self {
            gateways,
            devices,
            acknowledged_a_second_max: 10,
            unacknowledged_a_second_max: 30,
            second_ms: 1_000,
            subs_max: 2_000,
            store: None,
            firmware: None,
        }
    }
}

/// How often something was done lately.
#[derive(Debug, Default)]
struct Lately(Vec<u64>);

impl Lately {
    /// Once more; whether it was done less than `max` times in the time before.
    fn allows(&mut self, now_ms: u64, window_ms: u64, max: usize) -> bool {
        self.0.retain(|at_ms| now_ms < at_ms + window_ms);
        let allowed = self.0.len() < max;
        if allowed {
            self.0.push(now_ms);
        }
        allowed
    }
}

/// The platform.
pub(crate) struct Alink {
    options: AlinkOptions,
    /// Gateways by name.
    homes: BTreeMap<String, Home>,
    subs: BTreeMap<String, Sub>,
    connects: BTreeMap<String, Lately>,
    sent: BTreeMap<(String, u8), Lately>,
    logins: BTreeMap<String, Lately>,
    /// Order events that were seen.
    orders: BTreeSet<(String, u64, u64, String)>,
    wiped: bool,
    next_id: u32,
}

/// A request of a gateway or one of its devices.
struct Request<'a> {
    /// The gateway that says it.
    who: &'a str,
    topic: &'a str,
    id: String,
    wants_reply: bool,
    params: Value,
}

/// What a request comes to: the platform's code, and data.
type Outcome = Result<Value, (u32, Value)>;

fn failed(code: u32) -> Outcome {
    Err((code, json!({})))
}

impl Alink {
    pub(crate) fn new(options: AlinkOptions) -> Self {
        let homes = options.gateways.iter().map(|home| (home.triple.name(), home.clone()));
        let subs = options.devices.iter().map(|triple| (triple.name(), Sub::new(triple)));
        Self {
            homes: homes.collect(),
            subs: subs.collect(),
            options,
            connects: BTreeMap::new(),
            sent: BTreeMap::new(),
            logins: BTreeMap::new(),
            orders: BTreeSet::new(),
            wiped: false,
            next_id: 0,
        }
    }

    fn id(&mut self) -> String {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id.to_string()
    }

    fn request(&mut self, cx: &mut Cx<'_>, who: &str, publish: &Publish) {
        let read = read(who, publish);
        let request = match read {
            Ok(request) => request,
            Err((id, code)) => {
                cx.counters.breaches.add();
                return answer(cx, who, &publish.topic, &id, &failed(code));
            }
        };
        let outcome = match self.judged(cx, &request) {
            Some(code) => {
                cx.counters.denied.add();
                failed(code)
            }
            None => self.dispatch(cx, &request),
        };
        if outcome.as_ref().is_err_and(|(code, _)| *code != code::NO_SESSION) {
            tracing::debug!(who, topic = publish.topic, ?outcome, "the platform says no");
        }
        if request.wants_reply {
            answer(cx, who, &publish.topic, &request.id, &outcome);
        }
    }

    /// The code with which a fault answers everything of a gateway.
    fn judged(&self, cx: &Cx<'_>, request: &Request<'_>) -> Option<u32> {
        if cx.throttled {
            return Some(code::TOO_MANY);
        }
        if cx.faults.has(cx.now_ms, &Fault::Billing) {
            return Some(code::OVERDUE);
        }
        let home = self.homes.get(request.who)?;
        let code = cx
            .faults
            .denies(cx.now_ms, Stage::Reply, Of::Gateway, home.gateway.as_str())?;
        Some(u32::from(code))
    }

    fn dispatch(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Outcome {
        let levels: Vec<&str> = request.topic.split('/').skip(1).collect();
        match levels.as_slice() {
            ["ext", "session", pk, dn, "combine", verb] => {
                if names::name(pk, dn) != request.who {
                    cx.counters.breaches.add();
                    return failed(code::PARAMETER);
                }
                self.session(cx, request, verb)
            }
            ["sys", pk, dn, "thing", rest @ ..] => {
                let speaker = names::name(pk, dn);
                if !self.may_speak(cx, request, &speaker) {
                    return failed(code::NO_SESSION);
                }
                match rest {
                    ["topo", verb] if speaker == request.who => self.topology(cx, request, verb),
                    ["list", "found"] | ["sub", "register"] => self.registered(request),
                    ["event", "property", "history", "post"] => self.history(cx, request),
                    ["event", "property", "pack", "post"] => self.pack(cx, request),
                    ["event", "property", "post"] => things::properties(&request.params),
                    ["event", event, "post"] => self.event(cx, request, &speaker, event),
                    ["config", "get"] => self.config(request),
                    _ => failed(code::TOPIC),
                }
            }
            _ => failed(code::TOPIC),
        }
    }

    /// Whether a gateway may speak in this name: its own, or a sub-device's that is logged in.
    fn may_speak(&self, cx: &mut Cx<'_>, request: &Request<'_>, speaker: &str) -> bool {
        if speaker == request.who {
            return true;
        }
        let sub = self.subs.get(speaker);
        let online = sub.is_some_and(|sub| sub.online.as_deref() == Some(request.who));
        if !online {
            cx.counters.breaches.add();
            self.session_error(cx, request.who, speaker, code::NO_SESSION);
        }
        online
    }

    /// A word on a sub-device's session that nobody asked for.
    fn session_error(&self, cx: &mut Cx<'_>, who: &str, sub: &str, code: u32) {
        let (Some(home), Some((dn, pk))) = (self.homes.get(who), sub.split_once('&')) else {
            return;
        };
        let topic = format!("/ext/error/{}/{}", home.triple.product_key, home.triple.device_name);
        let said = json!({
            "id": cx.now_ms.to_string(), "code": code, "message": message(code),
            "data": { "productKey": pk, "deviceName": dn },
        });
        cx.reply(who, topic, said.to_string());
    }
}

impl Personality for Alink {
    fn rules(&self) -> Rules {
        Rules {
            packet_bytes_max: 256 * 1024 + 1_024,
            filters_max: 100,
            subscriptions_max: 100,
            closes_beyond_subscriptions: false,
            closes_on_denied_subscription: false,
            closes_on_qos_2: true,
            session_ms_max: 7 * 24 * 3_600_000,
            stored_a_second: 0,
            connack_properties: CONNACK_PROPERTIES,
        }
    }

    fn connect(&mut self, cx: &mut Cx<'_>, connect: &Connect, tls: Option<&Tls>) -> Result<Admitted, Refused> {
        if !KEEP_ALIVE_S.contains(&connect.keep_alive_s) {
            return Err(Refused::Close("a keep-alive outside 30 to 1200 s"));
        }
        let client = ClientId::parse(&connect.client_id).map_err(|why| Refused::Code(2, why))?;
        let mode = if tls.is_some() { "2" } else { "3" };
        if client.secure_mode != mode {
            return Err(Refused::Code(2, "securemode is not that of this connection"));
        }
        let who = connect.user();
        if !who.contains('&') {
            return Err(Refused::Code(4, "a user name that is not deviceName&productKey"));
        }
        let connects = self.connects.entry(who.to_owned()).or_default();
        if !connects.allows(cx.now_ms, MINUTE_MS, CONNECTS_A_MINUTE) {
            return Err(Refused::Close("more than five connects a minute"));
        }
        let home = self
            .homes
            .get(who)
            .ok_or(Refused::Code(5, "nobody knows this device"))?;
        if !is_password(&home.triple, &client, connect.password()) {
            return Err(Refused::Code(5, "the signature"));
        }
        Ok(Admitted { who: who.to_owned() })
    }

    fn may_subscribe(&mut self, _: &str, filter: &str) -> Result<(), u8> {
        if filter.len() > TOPIC_BYTES_MAX {
            Err(0x8f)
        } else {
            Ok(())
        }
    }

    fn publish(&mut self, cx: &mut Cx<'_>, who: &str, publish: &Publish) -> Taken {
        if publish.topic.len() > TOPIC_BYTES_MAX {
            return Taken::Close(0x90, "a topic that is too long");
        }
        let max = if publish.qos == 0 {
            self.options.unacknowledged_a_second_max
        } else {
            self.options.acknowledged_a_second_max
        };
        let sent = self.sent.entry((who.to_owned(), publish.qos)).or_default();
        if !sent.allows(cx.now_ms, self.options.second_ms, max as usize) {
            cx.counters.throttled.add();
            if let Ok(request) = read(who, publish) {
                answer(cx, who, &publish.topic, &request.id, &failed(code::TOO_MANY));
            }
            return Taken::Yes;
        }
        let levels: Vec<&str> = publish.topic.split('/').skip(1).collect();
        match levels.as_slice() {
            ["ext", "ntp", pk, dn, "request"] => services::time(cx, who, pk, dn, &publish.payload),
            ["ota", "device", "inform" | "request", pk, dn] => self.firmware(cx, who, pk, dn),
            // The platform takes these with QoS 0 only, and says nothing to others.
            ["ext", "session", ..] if publish.qos != 0 => cx.counters.breaches.add(),
            // Progress, answers to services, custom topics: taken, and nothing is said.
            ["ota", "device", "progress", ..] | [_, _, "user", ..] => {}
            [.., last] if last.ends_with("_reply") => {}
            _ => self.request(cx, who, publish),
        }
        Taken::Yes
    }

    fn down(&mut self, cx: &mut Cx<'_>, frame: FrameDown) {
        self.invoke(cx, &frame);
    }

    fn left(&mut self, cx: &mut Cx<'_>, who: &str) {
        for sub in self.subs.values_mut().filter(|sub| sub.online.as_deref() == Some(who)) {
            sub.online = None;
        }
        if let Some(home) = self.homes.get(who) {
            cx.out.push(Say::Left(home.gateway, None));
        }
    }

    fn changed(&mut self, cx: &mut Cx<'_>) {
        self.unsigned_claims(cx);
    }

    fn command(&mut self, cx: &mut Cx<'_>, command: Command) {
        match command {
            Command::PushConfig => self.push_config(cx),
            Command::Job { .. } => {}
        }
    }
}

/// Reads the envelope of a request.
///
/// # Errors
/// The id as far as it could be read, and the code.
fn read<'a>(who: &'a str, publish: &'a Publish) -> Result<Request<'a>, (String, u32)> {
    let value: Value = serde_json::from_slice(&publish.payload).map_err(|_| ("0".to_owned(), code::NOT_JSON))?;
    let id = match &value["id"] {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => String::new(),
    };
    if id.parse::<u32>().is_err() {
        return Err((id, code::PARAMETER));
    }
    // Requests of before there was such a word are answered.
    let wants_reply = value.pointer("/sys/ack").is_none_or(|ack| ack == &json!(1));
    Ok(Request {
        who,
        topic: &publish.topic,
        id,
        wants_reply,
        params: value["params"].clone(),
    })
}

/// Says what became of a request, on its topic's `_reply`.
fn answer(cx: &mut Cx<'_>, who: &str, topic: &str, id: &str, outcome: &Outcome) {
    let (code, data) = match outcome {
        Ok(data) => (code::OK, data),
        Err((code, data)) => (*code, data),
    };
    let id = if cx.faults.has(cx.now_ms, &Fault::WrongId) {
        id.parse::<u32>()
            .map_or_else(|_| "1".to_owned(), |id| id.wrapping_add(1).to_string())
    } else {
        id.to_owned()
    };
    // The platform itself is not of one mind about the shape of a code.
    let code_said = if topic.ends_with("batch_login") {
        json!(code.to_string())
    } else {
        json!(code)
    };
    let said = json!({ "id": id, "code": code_said, "data": data, "message": message(code) });
    cx.reply(who, format!("{topic}_reply"), said.to_string());
}

/// The platform's words for a code.
const fn message(code: u32) -> &'static str {
    match code {
        code::OK => "success",
        code::TOPOLOGY_SIGN => "request auth error",
        code::OVERDUE => "request forbidden because of overdue payments",
        code::ELSEWHERE => "device connect in elsewhere",
        code::TOO_MANY_SUBS => "too many subdevices under gateway",
        code::TOO_MANY => "too many requests",
        code::PARAMETER => "request parameter error",
        code::NO_SESSION => "device session error",
        521 => "device deleted",
        code::FORBIDDEN => "device forbidden",
        code::NOT_FOUND => "device not found",
        code::TOPIC => "parse topic error",
        code::NOT_JSON => "invalid json",
        6_204 => "device is disabled",
        code::SIGN => "invalid sign",
        code::NO_TOPOLOGY => "topological relationship does not exist",
        code::NO_CONFIG => "no config data",
        6_313 => "tsl service not available",
        6_760 => "system exception",
        400 => "request error",
        500 => "server error",
        _ => "failed",
    }
}
