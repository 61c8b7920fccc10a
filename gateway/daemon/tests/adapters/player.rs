//! Plays a transcript: a text of lines.
//!
//! ```text
//! # a remark
//! config children=4 user_topic rule=NAME lane=1 seed=7 clock=1700000000000
//! connect                    a connection begins, and stands
//! wait 5000                  so many ms pass
//! next 60000                 as many ms pass as it takes until something is said, at most so many
//! send ask 7                 a frame of ours goes up
//! < TOPIC PAYLOAD            the cloud says
//! > TOPIC PATTERN            we say, with QoS 1; >0 with QoS 0
//! = ready | newer | clock MS | frame WORD HEX
//! ! CLASS CODE [ask=N] words that the symptom's text contains
//! ...                        whatever else was said until here
//! ```
//! A pattern is JSON in which "*" stands for anything; or `*`; or `hex:` and bytes. What is not expected fails.

use std::time::Duration;

use gateway::cloud::adapter::{Adapter, At, Heard, Login, Out, Publish, Qos};
use proto::topic::Lane;
use serde_json::Value;

use crate::clouds::{self, Setting};

/// More ticks than that in one wait are a loop.
const TICKS_MAX: usize = 5_000;

struct Player {
    adapter: Box<dyn Adapter>,
    lane: Lane,
    now_ms: u64,
    wall_ms: Option<u64>,
    counter: u64,
    login: Option<Login>,
    out: Out,
    place: String,
}

/// Plays it; how many lines it has.
pub(crate) fn play(kind: &str, text: &str, name: &str) -> usize {
    let mut lines = (1..)
        .zip(text.lines())
        .map(|(number, line)| (number, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    let mut setting = Setting::default();
    let mut wall_ms = None;
    if let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("config")) {
        for word in line.split_whitespace().skip(1) {
            match word.split_once('=').unwrap_or((word, "")) {
                ("children", value) => setting.children = value.parse().unwrap(),
                ("lane", value) => setting.lane = Lane::new(value.parse().unwrap()).unwrap(),
                ("seed", value) => setting.seed = value.parse().unwrap(),
                ("rule", value) => setting.rule = Some(value.to_owned()),
                ("clock", value) => wall_ms = Some(value.parse().unwrap()),
                ("user_topic", "") => setting.has_user_topic = true,
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    let mut player = Player {
        adapter: clouds::adapter(kind, &setting),
        lane: setting.lane,
        now_ms: 1_000,
        wall_ms,
        counter: 0,
        login: None,
        out: Out::default(),
        place: String::new(),
    };
    let mut count = 0;
    for (number, line) in lines {
        player.place = format!("{kind}/{name}:{number}: {line}");
        player.line(line);
        count += 1;
    }
    player.place = format!("{kind}/{name}: end");
    player.nothing_left();
    count
}

impl Player {
    const fn at(&self) -> At {
        At {
            mono_ms: self.now_ms,
            wall_ms: self.wall_ms,
        }
    }

    fn line(&mut self, line: &str) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            ">" => self.published(rest, Qos::AtLeastOnce),
            ">0" => self.published(rest, Qos::AtMostOnce),
            "=" => self.heard(rest),
            "!" => self.symptom(rest),
            "..." => self.out = Out::default(),
            _ => {
                self.nothing_left();
                self.input(mark, rest);
            }
        }
    }

    fn input(&mut self, mark: &str, rest: &str) {
        let at = self.at();
        match mark {
            "connect" => {
                self.login = Some(self.adapter.login(at));
                self.adapter.connected(at, &mut self.out);
            }
            "wait" => self.wait(rest.parse().unwrap(), false),
            "next" => self.wait(rest.parse().unwrap(), true),
            "send" => {
                self.counter += 1;
                let frame = clouds::frame(self.counter);
                let words: Vec<&str> = rest.split_whitespace().collect();
                clouds::send(&mut *self.adapter, self.lane, at, &words, &frame, &mut self.out);
            }
            "<" => {
                let (topic, payload) = rest.split_once(' ').unwrap_or((rest, ""));
                self.adapter.heard(at, topic, &bytes(payload), &mut self.out);
            }
            other => panic!("{}: {other:?} is no mark", self.place),
        }
    }

    fn wait(&mut self, ms: u64, is_for_something: bool) {
        let until_ms = self.now_ms + ms;
        for _ in 0..TICKS_MAX {
            match self.adapter.tick_at() {
                Some(due_ms) if due_ms <= until_ms => {
                    self.now_ms = self.now_ms.max(due_ms);
                    let at = self.at();
                    self.adapter.tick(at, &mut self.out);
                    if is_for_something && !(self.out.publishes.is_empty() && self.out.heard.is_empty()) {
                        return;
                    }
                }
                Some(_) | None => {
                    self.now_ms = until_ms;
                    return;
                }
            }
        }
        panic!("{}: ticks without end", self.place);
    }

    fn nothing_left(&self) {
        assert!(
            self.out.publishes.is_empty() && self.out.heard.is_empty(),
            "{}: before it was also said:\n{}",
            self.place,
            self.left()
        );
    }

    fn left(&self) -> String {
        let sent = self.out.publishes.iter().map(|publish| {
            let payload = String::from_utf8_lossy(&publish.payload);
            format!("> {} {payload}\n", publish.topic)
        });
        sent.chain(self.out.heard.iter().map(|heard| format!("= {heard:?}\n")))
            .collect()
    }

    fn published(&mut self, rest: &str, qos: Qos) {
        let (topic, pattern) = rest.split_once(' ').unwrap_or((rest, ""));
        let Some(Publish {
            topic: found_topic,
            payload,
            qos: found_qos,
            expires,
        }) = self.out.publishes.pop_front()
        else {
            panic!("{}: nothing was published", self.place);
        };
        assert_eq!((found_topic.as_str(), found_qos), (topic, qos), "{}", self.place);
        assert!(
            expires.is_none_or(|expires| expires >= Duration::from_secs(1)),
            "{}",
            self.place
        );
        if pattern == "*" {
            return;
        }
        if pattern.starts_with("hex:") {
            assert_eq!(payload, bytes(pattern), "{}", self.place);
            return;
        }
        let expected: Value = serde_json::from_str(pattern).unwrap_or_else(|error| panic!("{}: {error}", self.place));
        let found: Value = serde_json::from_slice(&payload).unwrap();
        assert!(fits(&expected, &found), "{}: published {found}", self.place);
    }

    fn heard(&mut self, rest: &str) {
        if let Some(login) = rest.strip_prefix("login ") {
            let found = self.login.as_ref().unwrap();
            let (user, password) = found.user.clone().unwrap_or_default();
            assert_eq!(
                format!("{} {user} {password}", found.client_id).trim(),
                login,
                "{}",
                self.place
            );
            return;
        }
        let found = self.out.heard.pop_front();
        let words: Vec<&str> = rest.split_whitespace().collect();
        let fits = match (&words[..], &found) {
            (["ready"], Some(Heard::Ready)) | (["newer"], Some(Heard::Newer)) => true,
            (["clock", ms], Some(Heard::Clock(found))) => ms.parse() == Ok(*found),
            (["frame", word, hex], Some(Heard::Frame { word: found, frame })) => {
                *word == found.word() && frame[..] == bytes(&format!("hex:{hex}"))
            }
            _ => false,
        };
        assert!(fits, "{}: heard {found:?}", self.place);
    }

    fn symptom(&mut self, rest: &str) {
        let found = self.out.heard.pop_front();
        let Some(Heard::Symptom(symptom)) = &found else {
            panic!("{}: heard {found:?}", self.place);
        };
        let mut words = rest.splitn(3, ' ');
        let (class, code) = (words.next().unwrap(), words.next().unwrap());
        let mut text = words.next().unwrap_or("");
        let mut ask = 0;
        if let Some(asked) = text.strip_prefix("ask=") {
            let (number, after) = asked.split_once(' ').unwrap_or((asked, ""));
            ask = number.parse().unwrap();
            text = after;
        }
        let told = (symptom.class.word(), symptom.code.to_string(), symptom.ask);
        assert_eq!(told, (class, code.to_owned(), ask), "{}: {symptom:?}", self.place);
        assert!(symptom.text.contains(text), "{}: {symptom:?}", self.place);
    }
}

fn fits(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(expected), Value::Object(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .all(|(key, value)| found.get(key).is_some_and(|found| fits(value, found)))
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .zip(found)
                    .all(|(expected, found)| fits(expected, found))
        }
        _ => expected == found,
    }
}

/// A payload: text, or `hex:` and bytes.
fn bytes(text: &str) -> Vec<u8> {
    match text.strip_prefix("hex:") {
        Some(hex) => (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect(),
        None => text.as_bytes().to_vec(),
    }
}
