//! AWS IoT Core, the way its things see it: TLS with client certificates, policies that close connections, limits that
//! drop in silence, shadows and jobs. Frames travel on their canonical topics.

mod jobs;
mod shadow;

use std::collections::BTreeMap;

use proto::{
    codec,
    id::{GatewayId, Name},
    link::ArtifactPart,
    topic::{self, LinkDown},
};
use serde_json::{Map, Value, json};

use self::{jobs::Jobs, shadow::Shadow};
use super::{
    Command, Member,
    broker::{
        Admitted, Cx, FrameDown, FrameUp, Message, Personality, Refused, Rules, Say, Taken, Tls,
        packet::{Connect, Publish},
    },
    fault::{Fault, Of, Stage},
    hcp::body,
};

/// The protocol that port 443 wants to hear of.
pub const ALPN: &str = "x-amzn-mqtt-ca";
/// Longest payload, in bytes.
const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// Longest topic, in bytes, and most slashes in one, the part before a rule's topic not counted.
const TOPIC_BYTES_MAX: usize = 256;
const TOPIC_SLASHES_MAX: usize = 7;
/// Longest client id, in characters.
const CLIENT_ID_CHARS_MAX: usize = 128;
/// Messages a second of one connection; more are dropped.
const PUBLISHES_A_SECOND: u32 = 100;
/// How long a session is kept without its client, in ms.
const SESSION_MS_MAX: u64 = 3_600_000;
/// The shadow in which the operator points at artifacts.
const POINTERS: &str = "holdfast";
/// Codes of MQTT 5: not authorized, quota exceeded, packet too large, topic name invalid.
const NOT_AUTHORIZED: u8 = 0x87;
const QUOTA: u8 = 0x97;
const TOO_LARGE: u8 = 0x95;
const TOPIC_INVALID: u8 = 0x90;

/// What the cloud is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsOptions {
    /// Which gateway a thing is.
    pub things: BTreeMap<String, GatewayId>,
    /// Rules that take messages without the broker (Basic Ingest).
    pub rules: Vec<String>,
    /// Whether clients must say [`ALPN`]: it plays port 443, else 8883.
    pub wants_alpn: bool,
    /// How long the second is in which a client logs in once and says a hundred things, in ms: a test on a loaded machine wants
    /// a long one.
    pub second_ms: u64,
}

impl AwsOptions {
    /// These things at port 8883, without rules.
    #[must_use]
    pub const fn new(things: BTreeMap<String, GatewayId>) -> Self {
        Self {
            things,
            rules: Vec::new(),
            wants_alpn: false,
            second_ms: 1_000,
        }
    }
}

/// The cloud.
pub(crate) struct Aws {
    options: AwsOptions,
    host: String,
    members: BTreeMap<GatewayId, Member>,
    logins: BTreeMap<String, u64>,
    sent: BTreeMap<String, (u64, u32)>,
    shadows: BTreeMap<(String, String), Shadow>,
    jobs: BTreeMap<String, Jobs>,
}

/// A reply of shadow or jobs: `accepted` with a document, or `rejected` with a code and why.
type Outcome = Result<Map<String, Value>, (Value, &'static str)>;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

impl Aws {
    /// `host`: what clients must ask for.
    pub(crate) fn new(options: AwsOptions, host: String, members: &[Member]) -> Self {
        Self {
            options,
            host,
            members: members.iter().map(|member| (member.gateway, member.clone())).collect(),
            logins: BTreeMap::new(),
            sent: BTreeMap::new(),
            shadows: BTreeMap::new(),
            jobs: BTreeMap::new(),
        }
    }

    fn member(&self, thing: &str) -> Option<&Member> {
        self.members.get(self.options.things.get(thing)?)
    }

    fn thing(&self, gateway: GatewayId) -> Option<String> {
        let found = self.options.things.iter().find(|(_, id)| **id == gateway);
        found.map(|(thing, _)| thing.clone())
    }

    /// A frame on its canonical topic.
    fn frame(&self, cx: &mut Cx<'_>, who: &str, topic: &str, payload: &[u8]) -> Taken {
        let own = self.member(who).map(|member| (member.site, member.gateway));
        match topic::parse_link_up(topic) {
            Some(at) if own == Some((at.site, at.gateway)) => {
                cx.up(FrameUp {
                    gateway: at.gateway,
                    lane: at.lane,
                    word: at.word,
                    frame: payload.to_vec(),
                });
                Taken::Yes
            }
            Some(_) | None => Taken::Forbidden(NOT_AUTHORIZED, "a topic that the policy does not allow"),
        }
    }

    /// A message to a rule: acknowledged, whether there is such a rule or not.
    fn ingest(&self, cx: &mut Cx<'_>, who: &str, rest: &str, payload: &[u8]) -> Taken {
        let Some((rule, topic)) = rest.split_once('/') else {
            return Taken::Forbidden(NOT_AUTHORIZED, "a rule without a topic");
        };
        if self.options.rules.iter().any(|known| known == rule) {
            return self.frame(cx, who, topic, payload);
        }
        cx.counters.breaches.add();
        Taken::Yes
    }

    /// `$aws/things/{thing}/..`
    fn reserved(&mut self, cx: &mut Cx<'_>, who: &str, rest: &str, publish: &Publish) -> Taken {
        let own = rest.strip_prefix(who).and_then(|rest| rest.strip_prefix('/'));
        let Some(rest) = own else {
            return Taken::Forbidden(NOT_AUTHORIZED, "another thing's topic");
        };
        let document: Result<Value, _> = match publish.payload.as_slice() {
            [] => Ok(json!({})),
            bytes => serde_json::from_slice(bytes),
        };
        let token = document.as_ref().ok().map(|document| document["clientToken"].clone());
        let levels: Vec<&str> = rest.split('/').collect();
        let denied = cx.faults.denies(cx.now_ms, Stage::Reply, Of::Gateway, who);
        let is_job = levels.first() == Some(&"jobs");
        let outcome = match (&document, denied) {
            (_, Some(code)) => {
                cx.counters.denied.add();
                Err((json!(code), "Forbidden"))
            }
            (Err(_), None) if is_job => Err((json!("InvalidJson"), "the document is no JSON")),
            (Err(_), None) => Err((json!(400), "Payload contains invalid json")),
            (Ok(document), None) => match levels.as_slice() {
                ["shadow", verb] => self.shadow(cx, who, "", verb, document, &publish.payload),
                ["shadow", "name", name, verb] => self.shadow(cx, who, name, verb, document, &publish.payload),
                ["jobs", rest @ ..] => self.jobs.entry(who.to_owned()).or_default().ask(rest, document),
                _ => return Taken::Forbidden(NOT_AUTHORIZED, "a reserved topic that there is not"),
            },
        };
        answer(cx, who, rest, token, outcome, is_job);
        if is_job {
            self.notify(cx, who);
        }
        Taken::Yes
    }

    fn shadow(
        &mut self,
        cx: &mut Cx<'_>,
        who: &str,
        name: &str,
        verb: &str,
        document: &Value,
        payload: &[u8],
    ) -> Outcome {
        let shadow = self.shadows.entry((who.to_owned(), name.to_owned())).or_default();
        match verb {
            "get" => shadow.get(),
            "delete" => shadow.delete(),
            "update" => {
                let accepted = shadow.update(document, payload.len())?;
                let delta = shadow.delta();
                let place = place(who, name);
                let documents = shadow.get().unwrap_or_default();
                cx.tell(
                    who,
                    format!("{place}/update/documents"),
                    json!({ "current": documents }).to_string(),
                );
                if let Some(delta) = delta {
                    cx.tell(who, format!("{place}/update/delta"), delta.to_string());
                }
                Ok(accepted)
            }
            _ => Err((json!(400), "no such request")),
        }
    }

    /// Tells of the job that is next, if that has changed.
    fn notify(&mut self, cx: &mut Cx<'_>, who: &str) {
        if let Some(said) = self.jobs.get_mut(who).and_then(Jobs::news) {
            cx.tell(who, format!("$aws/things/{who}/jobs/notify-next"), said.to_string());
        }
    }

    /// The operator points at what he has published: that one is there, and nothing more.
    fn point(&mut self, cx: &mut Cx<'_>, thing: &str, frame: &[u8]) {
        let Some(part) = body(frame).and_then(|body| codec::decode::<ArtifactPart>(body).ok()) else {
            return;
        };
        let shadow = self.shadows.entry((thing.to_owned(), POINTERS.to_owned())).or_default();
        let revision = json!({ part.kind.word(): part.revision });
        let desired = json!({ "state": { "desired": { "artifacts": revision } } });
        if shadow.desires(&revision) || shadow.update(&desired, 0).is_err() {
            return;
        }
        if let Some(delta) = shadow.delta() {
            cx.tell(
                thing,
                format!("{}/update/delta", place(thing, POINTERS)),
                delta.to_string(),
            );
        }
    }
}

/// Where a shadow lies.
fn place(thing: &str, name: &str) -> String {
    if name.is_empty() {
        format!("$aws/things/{thing}/shadow")
    } else {
        format!("$aws/things/{thing}/shadow/name/{name}")
    }
}

/// Says what became of a request about shadow or jobs.
fn answer(cx: &mut Cx<'_>, who: &str, rest: &str, token: Option<Value>, outcome: Outcome, unasked: bool) {
    let (how, mut said) = match outcome {
        Ok(said) => ("accepted", said),
        Err((code, message)) => ("rejected", object(json!({ "code": code, "message": message }))),
    };
    said.insert("timestamp".to_owned(), json!(cx.wall_ms / 1_000));
    if let Some(token) = token.filter(|token| !token.is_null()) {
        let other = cx.faults.has(cx.now_ms, &Fault::WrongId);
        said.insert("clientToken".to_owned(), if other { json!("another") } else { token });
    }
    let topic = format!("$aws/things/{who}/{rest}/{how}");
    let payload = Value::Object(said).to_string();
    if unasked {
        cx.out.push(Say::Unasked {
            who: who.to_owned(),
            message: Message {
                topic,
                payload: payload.into_bytes(),
                qos: 1,
            },
        });
    } else {
        cx.reply(who, topic, payload);
    }
}

impl Personality for Aws {
    fn rules(&self) -> Rules {
        Rules {
            packet_bytes_max: PAYLOAD_BYTES_MAX + 1_024,
            filters_max: 8,
            subscriptions_max: 50,
            closes_beyond_subscriptions: true,
            closes_on_denied_subscription: true,
            closes_on_qos_2: false,
            session_ms_max: SESSION_MS_MAX,
            stored_a_second: 10,
            // Retain yes, wildcards yes, subscription identifiers no, shared subscriptions yes, highest QoS 1.
            connack_properties: &[0x25, 1, 0x28, 1, 0x29, 0, 0x2a, 1, 0x24, 1],
        }
    }

    fn connect(&mut self, cx: &mut Cx<'_>, connect: &Connect, tls: Option<&Tls>) -> Result<Admitted, Refused> {
        let tls = tls.ok_or(Refused::Close("no TLS"))?;
        if tls.sni.as_deref() != Some(self.host.as_str()) {
            return Err(Refused::Close("the host name asked for is not this endpoint's"));
        }
        if self.options.wants_alpn && tls.alpn.as_deref() != Some(ALPN.as_bytes()) {
            return Err(Refused::Close("no ALPN"));
        }
        let who = connect.client_id.as_str();
        let allowed = self.options.things.contains_key(who) && tls.common_name.as_deref() == Some(who);
        if who.is_empty() || who.len() > CLIENT_ID_CHARS_MAX || !allowed {
            return Err(Refused::Code(7, "the certificate's policy does not allow this client"));
        }
        let before_ms = self.logins.get(who);
        if before_ms.is_some_and(|before_ms| cx.now_ms < before_ms + self.options.second_ms) {
            cx.counters.throttled.add();
            return Err(Refused::Close("more than one login a second"));
        }
        self.logins.insert(who.to_owned(), cx.now_ms);
        Ok(Admitted { who: who.to_owned() })
    }

    fn may_subscribe(&mut self, who: &str, filter: &str) -> Result<(), u8> {
        let own = format!("$aws/things/{who}/");
        let allowed = filter.starts_with(&own)
            || self.member(who).is_some_and(|member| {
                let down = topic::parse_link_down(filter);
                let exact = down.is_some_and(|at| (at.site, at.gateway) == (member.site, member.gateway));
                let lanes = (0..topic::LANES_MAX).filter_map(topic::Lane::new);
                let mut whole = lanes.map(|lane| topic::link_down_filter(&member.site, &member.gateway, lane));
                exact || whole.any(|whole| whole.as_str() == filter)
            });
        allowed.then_some(()).ok_or(NOT_AUTHORIZED)
    }

    fn publish(&mut self, cx: &mut Cx<'_>, who: &str, publish: &Publish) -> Taken {
        if publish.payload.len() > PAYLOAD_BYTES_MAX {
            return Taken::Close(TOO_LARGE, "a payload above 128 KB");
        }
        let rest = publish.topic.strip_prefix("$aws/rules/");
        let counted = rest.map_or(publish.topic.as_str(), |rest| {
            rest.split_once('/').map_or(rest, |(_, topic)| topic)
        });
        if counted.len() > TOPIC_BYTES_MAX || counted.matches('/').count() > TOPIC_SLASHES_MAX {
            return Taken::Close(TOPIC_INVALID, "a topic that is too long or too deep");
        }
        let second = cx.now_ms / self.options.second_ms;
        let sent = self.sent.entry(who.to_owned()).or_default();
        *sent = if sent.0 == second {
            (second, sent.1 + 1)
        } else {
            (second, 1)
        };
        if sent.1 > PUBLISHES_A_SECOND {
            cx.counters.throttled.add();
            return Taken::Dropped(QUOTA);
        }
        if cx.throttled {
            return Taken::Dropped(QUOTA);
        }
        if let Some(rest) = rest {
            return self.ingest(cx, who, rest, &publish.payload);
        }
        match publish.topic.strip_prefix("$aws/things/") {
            Some(rest) => self.reserved(cx, who, rest, publish),
            None => self.frame(cx, who, &publish.topic, &publish.payload),
        }
    }

    fn down(&mut self, cx: &mut Cx<'_>, down: FrameDown) {
        let site: Option<Name> = self.members.get(&down.gateway).map(|member| member.site);
        let (Some(thing), Some(site)) = (self.thing(down.gateway), site) else {
            return;
        };
        if down.word == LinkDown::Artifact {
            self.point(cx, &thing, &down.frame);
        }
        let topic = topic::link_down(&site, &down.gateway, down.word, down.lane);
        cx.tell(&thing, topic.as_str(), down.frame);
    }

    fn left(&mut self, cx: &mut Cx<'_>, who: &str) {
        if let Some(gateway) = self.options.things.get(who) {
            cx.out.push(Say::Left(*gateway, None));
        }
    }

    fn command(&mut self, cx: &mut Cx<'_>, command: Command) {
        match command {
            Command::PushConfig => {}
            Command::Job { gateway, document } => {
                if let Some(thing) = self.thing(gateway) {
                    self.jobs.entry(thing.clone()).or_default().queue(document);
                    self.notify(cx, &thing);
                }
            }
        }
    }
}
