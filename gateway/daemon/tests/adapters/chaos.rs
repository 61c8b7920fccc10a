//! Whatever a cloud says, and in whatever order: nothing panics, nothing loops, no frame is heard that was not in it, and
//! no limit of a cloud is passed. Bytes choose what happens; the same bytes choose the same.

use std::collections::{BTreeMap, VecDeque};

use gateway::cloud::adapter::{Adapter, At, Heard, Out, Publish, Qos};
use proto::topic::{Lane, LinkDown};
use serde_json::{Value, json};

use crate::clouds::{self, Setting};

/// Sub-devices of the gateway.
const CHILDREN: usize = 7;
/// More ticks than that in one wait are a loop: 20 minutes of logins and posts need fewer.
const TICKS_MAX: usize = 4_000;
/// What one message may make an adapter say.
const SAID_MAX: usize = 64;
/// Longest message of any cloud here, in bytes.
const PAYLOAD_BYTES_MAX: usize = 200 * 1024;
/// The cloud's codes, good and bad.
const CODES: [u32; 16] = [
    200, 200, 200, 400, 401, 403, 427, 428, 429, 460, 520, 521, 522, 6287, 6401, 6760,
];
/// AWS's, as numbers and names.
const WORDS: [&str; 6] = [
    "\"InvalidRequest\"",
    "\"VersionMismatch\"",
    "\"RequestThrottled\"",
    "404",
    "409",
    "500",
];

/// What a cloud may say: topics and payloads.
pub(crate) type Corpus = Vec<(String, Vec<u8>)>;

/// The lines of transcripts in which the cloud speaks.
pub(crate) fn corpus(texts: &[&str]) -> Corpus {
    let lines = texts.iter().flat_map(|text| text.lines());
    let said = lines.filter_map(|line| line.trim().strip_prefix("< "));
    let pairs = said.map(|line| line.split_once(' ').unwrap_or((line, "")));
    pairs
        .map(|(topic, payload)| (topic.to_owned(), payload.as_bytes().to_vec()))
        .collect()
}

/// The choices.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first)
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.next() % choices.len()]
    }
}

struct World<'a> {
    adapter: Box<dyn Adapter>,
    corpus: &'a Corpus,
    now_ms: u64,
    counter: u64,
    out: Out,
    /// The last messages of ours.
    sent: VecDeque<Publish>,
    /// When whom was logged in.
    logins: BTreeMap<String, Vec<u64>>,
    pub frames: usize,
}

/// Lets the bytes decide what happens to this adapter; how many frames it heard.
pub(crate) fn run(kind: &str, bytes: &[u8], corpus: &Corpus) -> usize {
    let mut bytes = Bytes(bytes);
    let setting = Setting {
        children: CHILDREN,
        has_user_topic: true,
        rule: Some("hf_ingest".to_owned()),
        seed: bytes.next() as u64,
        ..Setting::default()
    };
    let mut world = World {
        adapter: clouds::adapter(kind, &setting),
        corpus,
        now_ms: 1,
        counter: 0,
        out: Out::default(),
        sent: VecDeque::new(),
        logins: BTreeMap::new(),
        frames: 0,
    };
    world.connect();
    while !bytes.0.is_empty() {
        world.step(&mut bytes);
    }
    world.frames
}

impl World<'_> {
    fn at(&self) -> At {
        At {
            mono_ms: self.now_ms,
            wall_ms: self.now_ms.is_multiple_of(3).then_some(1_700_000_000_000),
        }
    }

    fn connect(&mut self) {
        let at = self.at();
        let login = self.adapter.login(at);
        assert!(!login.client_id.is_empty() && !login.filters.is_empty());
        self.adapter.connected(at, &mut self.out);
        self.settle(None);
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.next() % 12 {
            0 => self.connect(),
            1 | 2 => self.wait((bytes.next() * bytes.next() * 20) as u64),
            3 => self.send(bytes),
            4 => {
                let (topic, _) = self.said(bytes);
                let length = bytes.next();
                let payload = bytes.take(length).to_vec();
                self.hear(&topic, &payload);
            }
            5 => {
                let (topic, payload) = self.said(bytes);
                self.hear(&topic, &payload);
            }
            6 => {
                let (topic, mut payload) = self.said(bytes);
                for _ in 0..bytes.next() % 4 {
                    let (at, byte) = (bytes.next() * 256 + bytes.next(), bytes.next() as u8);
                    if !payload.is_empty() {
                        let at = at % payload.len();
                        payload[at] = byte;
                    }
                }
                self.hear(&topic, &payload);
            }
            7 => {
                let length = bytes.next();
                let topic = String::from_utf8_lossy(bytes.take(length)).into_owned();
                let length = bytes.next();
                let payload = bytes.take(length).to_vec();
                self.hear(&topic, &payload);
            }
            _ => self.reply(bytes),
        }
    }

    fn said(&self, bytes: &mut Bytes<'_>) -> (String, Vec<u8>) {
        let at = bytes.next() * 256 + bytes.next();
        self.corpus[at % self.corpus.len()].clone()
    }

    fn send(&mut self, bytes: &mut Bytes<'_>) {
        self.counter += 1;
        let frame = clouds::frame(self.counter);
        let words: &[&str] = match bytes.next() % 5 {
            0 => &["hello", "4", "2"],
            1 => &["ask", "7"],
            2 => &["echo", "1"],
            3 => &["records", "1:hold:washer-1", "2:capture:washer-2", "3:void:nobody"],
            _ => &["records", "4:indeterminate:washer-3"],
        };
        let at = self.at();
        clouds::send(&mut *self.adapter, Lane::FIRST, at, words, &frame, &mut self.out);
        self.settle(None);
    }

    /// The cloud answers something that we said, well or not.
    fn reply(&mut self, bytes: &mut Bytes<'_>) {
        let Some(publish) = self.sent.get(bytes.next() % self.sent.len().max(1)).cloned() else {
            return;
        };
        let asked: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
        let (topic, payload) = if publish.topic.starts_with("$aws/") {
            aws_reply(&publish.topic, &asked, bytes)
        } else {
            let named: Vec<Value> = (1..=CHILDREN)
                .filter(|_| bytes.next().is_multiple_of(2))
                .map(named)
                .collect();
            let data = if bytes.next().is_multiple_of(3) {
                json!("")
            } else {
                json!(named)
            };
            let reply = json!({"id": asked["id"], "code": bytes.of(&CODES), "data": data});
            (format!("{}_reply", publish.topic), reply.to_string())
        };
        self.hear(&topic, payload.as_bytes());
    }

    fn hear(&mut self, topic: &str, payload: &[u8]) {
        let at = self.at();
        self.adapter.heard(at, topic, payload, &mut self.out);
        self.settle(Some((topic, payload)));
    }

    fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        for _ in 0..TICKS_MAX {
            match self.adapter.tick_at() {
                Some(due_ms) if due_ms <= until_ms => {
                    self.now_ms = self.now_ms.max(due_ms);
                    let at = self.at();
                    self.adapter.tick(at, &mut self.out);
                    self.settle(None);
                }
                Some(_) | None => {
                    self.now_ms = until_ms;
                    return;
                }
            }
        }
        panic!("ticks without end");
    }

    /// Looks at everything that was said because of `cause`.
    fn settle(&mut self, cause: Option<(&str, &[u8])>) {
        let said = self.out.publishes.len() + self.out.heard.len();
        assert!(
            said <= SAID_MAX + cause.map_or(0, |(_, payload)| payload.len() / 16),
            "{said} at once"
        );
        while let Some(heard) = self.out.heard.pop_front() {
            match heard {
                Heard::Frame { word, frame } => {
                    let (topic, payload) = cause.expect("frames come with messages");
                    self.frames += 1;
                    let is_canonical = topic.contains("/d/");
                    assert!(is_canonical || word != LinkDown::Trouble, "{topic}");
                    let is_in_it = (is_canonical && frame == payload) || holds(payload, &frame);
                    assert!(is_in_it, "{topic}: {payload:?} made {frame:?}");
                }
                Heard::Symptom(symptom) => assert!(symptom.text.len() <= 160 && !symptom.text.is_empty()),
                Heard::Ready | Heard::Newer | Heard::Clock(_) => {}
            }
        }
        while let Some(publish) = self.out.publishes.pop_front() {
            self.check(&publish);
            self.sent.push_front(publish);
            self.sent.truncate(16);
        }
    }

    fn check(&mut self, publish: &Publish) {
        let Publish {
            topic, payload, qos, ..
        } = publish;
        assert!(!topic.contains(['+', '#', '\0']) && topic.len() <= 256, "{topic}");
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "{topic}: {} bytes", payload.len());
        if topic.ends_with("/combine/batch_login") {
            assert_eq!(*qos, Qos::AtMostOnce);
            let asked: Value = serde_json::from_slice(payload).unwrap();
            for device in asked["params"]["deviceList"].as_array().unwrap() {
                let logins = self.logins.entry(device["deviceName"].to_string()).or_default();
                logins.push(self.now_ms);
                let sixth = logins.len().checked_sub(6).map(|at| logins[at]);
                assert!(
                    sixth.is_none_or(|at| self.now_ms - at >= 60_000),
                    "{device}: {logins:?}"
                );
            }
        }
    }
}

fn named(number: usize) -> Value {
    json!({"productKey": clouds::SUB_PRODUCT, "deviceName": format!("washer-{number:02}")})
}

fn aws_reply(topic: &str, asked: &Value, bytes: &mut Bytes<'_>) -> (String, String) {
    let token = &asked["clientToken"];
    if bytes.next().is_multiple_of(3) {
        let error = format!(
            "{{\"code\":{},\"message\":\"no\",\"clientToken\":{token}}}",
            bytes.of(&WORDS)
        );
        return (format!("{topic}/rejected"), error);
    }
    let frames = match bytes.next() % 3 {
        0 => json!([{"w": "order", "l": 0, "f": "AQID"}]),
        1 => json!([{"w": "order", "l": bytes.next(), "f": "AQI"}]),
        _ => json!([]),
    };
    let reply = json!({
        "clientToken": token,
        "version": bytes.next(),
        "state": {"desired": {"artifacts": {"list": bytes.next()}}, "reported": {"artifacts": {"list": bytes.next()}}},
        "execution": {"jobId": "hf-1", "versionNumber": 1, "jobDocument": {"holdfast": 1, "frames": frames}},
    });
    (format!("{topic}/accepted"), reply.to_string())
}

/// Whether some text in this JSON is this frame.
fn holds(payload: &[u8], frame: &[u8]) -> bool {
    fn texts(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => {
                found.push(text.clone());
                if let Ok(inner) = serde_json::from_str::<Value>(text)
                    && !inner.is_string()
                {
                    texts(&inner, found);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| texts(value, found)),
            Value::Object(object) => object.values().for_each(|value| texts(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut found = Vec::new();
    texts(&serde_json::from_slice(payload).unwrap_or_default(), &mut found);
    let expected = gateway::cloud::wrap::text(frame);
    found
        .iter()
        .any(|text| text.trim_end_matches('=') == expected.trim_end_matches('='))
}
