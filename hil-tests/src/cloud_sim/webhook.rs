//! The operator's own HTTPS interface, as a gateway without an MQTT cloud speaks to it; for operators a reference of the
//! server's side. A gateway posts frames one after another, and asks for those that wait for it; every request and every
//! answer is signed under a key of the two, so that nobody between them can answer in the operator's name.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use hyper::Method;
use proto::{
    id::{GatewayId, Name, TokenHash},
    topic::{Lane, LinkUp},
};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;
use tokio::sync::{Notify, mpsc};

use super::{
    allowance::Allowances,
    bridge::Bridge,
    broker::{FrameDown, FrameUp},
    fault::Fault,
    gate::{Clock, Gate},
    hcp::asked,
    http::{Answer, Answering, Handler, Request},
};

/// Header of the time, in s since 1970 UTC; 0: the gateway has no fit clock.
const TIME: &str = "x-holdfast-time";
/// Header of a number that is used once.
const NONCE: &str = "x-holdfast-nonce";
/// Header of the signature.
const SIGN: &str = "x-holdfast-sign";
/// How far a gateway's time may be from ours, in s.
const WINDOW_S: u64 = 300;
/// Digits of a nonce.
const NONCE_DIGITS: usize = 32;
/// Nonces that are remembered: five minutes of a gateway that posts a hundred times a second.
const NONCES_MAX: usize = 30_000;
/// A post waits so long for frames that answer it: most do within it.
const ANSWER_WAIT: Duration = Duration::from_millis(200);
/// Longest that a gateway may ask to wait, in s.
const WAIT_S_MAX: u64 = 60;
/// Frames in one answer.
const FRAMES_MAX: usize = 64;
/// Frames that wait for a gateway; the oldest go first.
const WAITING_MAX: usize = 2_048;
/// A gateway that asked nothing for so long is gone, in ms.
const GONE_MS: u64 = 70_000;
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What a webhook is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookOptions {
    /// The key of each gateway.
    pub keys: BTreeMap<GatewayId, Vec<u8>>,
}

/// A message of a gateway's.
#[derive(Deserialize)]
struct Posted {
    /// Unique, a number in decimal digits.
    id: String,
    lane: u8,
    word: String,
    frame: String,
    #[serde(default)]
    orders: Vec<OrderEvent>,
}

/// An order, readable.
#[derive(Deserialize)]
struct OrderEvent {
    id: String,
    #[serde(rename = "type")]
    event: String,
}

/// What waits for one gateway on one lane.
#[derive(Debug, Default)]
struct Mailbox {
    frames: VecDeque<FrameDown>,
    heard_ms: u64,
    came: Arc<Notify>,
}

#[derive(Default)]
struct State {
    mailboxes: BTreeMap<(GatewayId, Lane), Mailbox>,
    nonces: VecDeque<String>,
    known: BTreeSet<String>,
    orders: BTreeSet<String>,
    allowances: Allowances,
}

/// The interface.
pub(crate) struct Webhook {
    keys: BTreeMap<GatewayId, Vec<u8>>,
    state: Mutex<State>,
    bridge: Mutex<Bridge>,
}

/// A request that is what it says.
struct Checked {
    gateway: GatewayId,
    key: Vec<u8>,
    nonce: String,
}

impl Webhook {
    /// Starts what brings the operator's frames.
    pub(crate) fn start(
        options: &WebhookOptions,
        bridge: Bridge,
        mut down: mpsc::Receiver<FrameDown>,
        gate: &Gate,
    ) -> Arc<Self> {
        let webhook = Arc::new(Self {
            keys: options.keys.clone(),
            state: Mutex::default(),
            bridge: Mutex::new(bridge),
        });
        let (own, gate) = (Arc::downgrade(&webhook), gate.clone());
        tokio::spawn(async move {
            let mut look = tokio::time::interval(LOOK);
            loop {
                let frame = tokio::select! {
                    frame = down.recv() => Some(frame),
                    _ = look.tick() => None,
                };
                let Some(webhook) = own.upgrade() else { return };
                match frame {
                    Some(Some(frame)) => webhook.down(frame, &gate),
                    Some(None) => return,
                    None => webhook.look(gate.clock.now_ms()),
                }
            }
        });
        webhook
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    fn down(&self, frame: FrameDown, gate: &Gate) {
        if gate.has(&Fault::HalfDead) {
            return gate.counters.swallowed.add();
        }
        gate.counters.carried_down.add();
        let mut state = self.state();
        let mailbox = state.mailboxes.entry((frame.gateway, frame.lane)).or_default();
        if mailbox.frames.len() >= WAITING_MAX {
            mailbox.frames.pop_front();
        }
        mailbox.frames.push_back(frame);
        mailbox.came.notify_waiters();
    }

    /// Gateways that ask no more are gone: the hub shall see that.
    fn look(&self, now_ms: u64) {
        let mut gone = Vec::new();
        self.state().mailboxes.retain(|of, mailbox| {
            let is_here = now_ms < mailbox.heard_ms + GONE_MS;
            if !is_here {
                gone.push(*of);
            }
            is_here
        });
        let mut bridge = self.bridge.lock().expect("nothing panics under this lock");
        for (gateway, lane) in gone {
            bridge.left(gateway, Some(lane));
        }
    }

    /// Who asks, if the request is signed, new and timely.
    fn check(&self, request: &Request, gate: &Gate) -> Result<Checked, Answer> {
        let refuse = |status: u16, why: &str| Answer::json(status, json!({ "error": why }));
        let gateway = gateway_of(&request.path).ok_or_else(|| refuse(404, "no such path"))?;
        let key = self
            .keys
            .get(&gateway)
            .ok_or_else(|| refuse(401, "nobody knows this gateway"))?;
        let (time, nonce) = (request.header(TIME), request.header(NONCE));
        let is_nonce = nonce.len() == NONCE_DIGITS && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
        let time_s: u64 = time.parse().map_err(|_| refuse(401, "no time"))?;
        if !is_nonce {
            return Err(refuse(401, "no nonce"));
        }
        let signed = [
            format!("{}\n{}\n{time}.{nonce}.", request.method, request.path).as_bytes(),
            &request.body,
        ]
        .concat();
        if !is_signed(key, &signed, request.header(SIGN)) {
            return Err(refuse(401, "the signature"));
        }
        let skew_ms = gate.find(|fault| match fault {
            Fault::ClockSkew(ms) => Some(*ms),
            _ => None,
        });
        let now_s = Clock::wall_ms().saturating_add_signed(skew_ms.unwrap_or(0)) / 1_000;
        if time_s != 0 && time_s.abs_diff(now_s) > WINDOW_S {
            return Err(refuse(401, "the time is not now"));
        }
        let mut state = self.state();
        if !state.known.insert(nonce.to_owned()) {
            return Err(refuse(401, "a nonce is used once"));
        }
        state.nonces.push_back(nonce.to_owned());
        if state.nonces.len() > NONCES_MAX
            && let Some(oldest) = state.nonces.pop_front()
        {
            state.known.remove(&oldest);
        }
        Ok(Checked {
            gateway,
            key: key.clone(),
            nonce: nonce.to_owned(),
        })
    }

    async fn serve(&self, request: &Request, gate: &Gate) -> Answer {
        let checked = match self.check(request, gate) {
            Ok(checked) => checked,
            Err(refused) => {
                gate.counters.breaches.add();
                return refused;
            }
        };
        let answer = match request.method {
            Method::POST => self.posted(request, &checked, gate).await,
            Method::GET => self.polled(request, &checked, gate).await,
            _ => Answer::json(405, json!({ "error": "POST or GET" })),
        };
        let nonce = if gate.has(&Fault::WrongId) {
            "0".repeat(NONCE_DIGITS)
        } else {
            checked.nonce
        };
        sign_answer(answer, &checked.key, &nonce)
    }

    async fn posted(&self, request: &Request, checked: &Checked, gate: &Gate) -> Answer {
        let bad = |why: &str| {
            gate.counters.breaches.add();
            Answer::json(400, json!({ "error": why }))
        };
        let posted: Posted = match serde_json::from_slice(&request.body) {
            Ok(posted) => posted,
            Err(error) => return bad(&error.to_string()),
        };
        if posted.id.is_empty() || !posted.id.bytes().all(|byte| byte.is_ascii_digit()) {
            return bad("id: a number in decimal digits");
        }
        let Some(frame) = frame(checked.gateway, &posted) else {
            return bad("word, lane or frame");
        };
        let half_dead = gate.has(&Fault::HalfDead);
        let of = (frame.gateway, frame.lane);
        self.book(&posted.orders, gate);
        if half_dead {
            gate.counters.swallowed.add();
        } else {
            gate.counters.carried_up.add();
            let mut bridge = self.bridge.lock().expect("nothing panics under this lock");
            bridge.up(frame);
        }
        let wait = if half_dead { Duration::ZERO } else { ANSWER_WAIT };
        self.frames(of, wait, gate).await
    }

    fn book(&self, orders: &[OrderEvent], gate: &Gate) {
        let mut state = self.state();
        for order in orders {
            if !order.event.starts_with("order.") {
                gate.counters.breaches.add();
            } else if state.orders.insert(order.id.clone()) {
                gate.counters.orders.add();
            } else {
                gate.counters.orders_again.add();
            }
        }
    }

    async fn polled(&self, request: &Request, checked: &Checked, gate: &Gate) -> Answer {
        let number = |name: &str| request.query(name).and_then(|text| text.parse::<u64>().ok());
        let lane = number("lane").and_then(|lane| Lane::new(u8::try_from(lane).ok()?));
        let (Some(lane), Some(wait_s)) = (lane, number("wait_s").filter(|wait_s| *wait_s <= WAIT_S_MAX)) else {
            gate.counters.breaches.add();
            return Answer::json(400, json!({ "error": "lane and wait_s" }));
        };
        self.frames((checked.gateway, lane), Duration::from_secs(wait_s), gate)
            .await
    }

    /// What waits for a gateway, or comes for it in time.
    async fn frames(&self, of: (GatewayId, Lane), wait: Duration, gate: &Gate) -> Answer {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let came = {
                let mut state = self.state();
                let mailbox = state.mailboxes.entry(of).or_default();
                mailbox.heard_ms = gate.clock.now_ms();
                let some = mailbox.frames.len().min(FRAMES_MAX);
                if some > 0 {
                    let frames = mailbox.frames.drain(..some);
                    let frames: Vec<_> = frames
                        .map(|down| json!({ "word": down.word.word(), "frame": STANDARD.encode(&down.frame) }))
                        .collect();
                    return Answer::json(200, json!({ "frames": frames }));
                }
                mailbox.came.clone()
            };
            let came = came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            // Something may have come before it was listened for.
            let empty = self
                .state()
                .mailboxes
                .get(&of)
                .is_none_or(|mailbox| mailbox.frames.is_empty());
            if empty && tokio::time::timeout_at(until, came).await.is_err() {
                return Answer::json(200, json!({ "frames": [] }));
            }
        }
    }
}

impl Handler for Webhook {
    fn who(&self, request: &Request) -> String {
        gateway_of(&request.path).map_or_else(String::new, |gateway| gateway.to_string())
    }

    fn token(&self, request: &Request) -> Option<TokenHash> {
        let posted: Posted = serde_json::from_slice(&request.body).ok()?;
        let frame = frame(gateway_of(&request.path)?, &posted)?;
        Some(asked(frame.word, &frame.frame)?.token)
    }

    fn allows(&self, who: &str, rate: Option<u32>, now_ms: u64) -> bool {
        let mut state = self.state();
        let Some(rate) = rate else {
            state.allowances.forget();
            return true;
        };
        state.allowances.allows(who, rate, now_ms)
    }

    fn answer<'a>(&'a self, request: &'a Request, gate: &'a Gate) -> Answering<'a> {
        Box::pin(self.serve(request, gate))
    }
}

/// `{base}/v1/gateways/{gateway}/messages`, whatever the base.
fn gateway_of(path: &str) -> Option<GatewayId> {
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    let (_, rest) = path.rsplit_once("/v1/gateways/")?;
    Name::new(rest.strip_suffix("/messages")?).ok()
}

fn frame(gateway: GatewayId, posted: &Posted) -> Option<FrameUp> {
    Some(FrameUp {
        gateway,
        lane: Lane::new(posted.lane)?,
        word: LinkUp::ALL.iter().copied().find(|word| word.word() == posted.word)?,
        frame: STANDARD.decode(&posted.frame).ok()?,
    })
}

fn mac(key: &[u8], signed: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(signed);
    mac
}

fn is_signed(key: &[u8], signed: &[u8], signature: &str) -> bool {
    let expected = crate::site::hex(&mac(key, signed).finalize().into_bytes());
    expected.eq_ignore_ascii_case(signature)
}

fn sign_answer(mut answer: Answer, key: &[u8], nonce: &str) -> Answer {
    let signed = [
        format!("answer\n{nonce}\n{}.", answer.status).as_bytes(),
        answer.body.as_bytes(),
    ]
    .concat();
    let signature = crate::site::hex(&mac(key, &signed).finalize().into_bytes());
    answer.headers.push((SIGN, signature));
    answer
}
