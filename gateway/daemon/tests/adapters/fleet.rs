//! Two thousand sub-devices behind one gateway, and a cloud that keeps its own limits and loses part of its books.

use std::collections::BTreeSet;

use gateway::cloud::adapter::{Adapter, At, Heard, Out, Publish, Symptom};
use serde_json::{Value, json};

use crate::clouds::{self, Setting};

/// How long the cloud takes to answer, in ms.
const ANSWER_MS: u64 = 80;
/// Sub-devices that may be logged in within a second.
const LOGINS_A_SECOND: usize = 200;
/// Requests for logins on their way.
const FLYING_MAX: usize = 4;

/// A cloud with a topology and sessions.
pub(crate) struct Cloud {
    adapter: Box<dyn Adapter>,
    pub(crate) now_ms: u64,
    out: Out,
    /// When which answer arrives.
    answers: Vec<(u64, String, Value)>,
    topology: BTreeSet<String>,
    pub(crate) online: BTreeSet<String>,
    /// Which devices the cloud denies: those whose number leaves a rest below this when divided by 100.
    pub(crate) denied_percent: usize,
    /// Devices whose login was asked for, with the time.
    pub(crate) logins: Vec<(u64, usize)>,
    pub(crate) symptoms: Vec<Symptom>,
}

impl Cloud {
    pub(crate) fn new(children: usize, seed: u64) -> Self {
        let setting = Setting {
            children,
            seed,
            ..Setting::default()
        };
        Self {
            adapter: clouds::adapter("alink", &setting),
            now_ms: 0,
            out: Out::default(),
            answers: Vec::new(),
            topology: BTreeSet::new(),
            online: BTreeSet::new(),
            denied_percent: 0,
            logins: Vec::new(),
            symptoms: Vec::new(),
        }
    }

    const fn at(&self) -> At {
        At {
            mono_ms: self.now_ms,
            wall_ms: None,
        }
    }

    /// A connection begins; the sessions of the one before are gone.
    pub(crate) fn connect(&mut self) {
        self.answers.clear();
        self.online.clear();
        let at = self.at();
        self.adapter.login(at);
        self.adapter.connected(at, &mut self.out);
        self.settle();
    }

    /// The cloud says that these have no session.
    pub(crate) fn lose_sessions(&mut self) {
        for name in std::mem::take(&mut self.online) {
            let error = json!({"id": "1", "code": 520, "message": "device session error", "data": device(&name)});
            let at = self.at();
            let topic = format!("/ext/error/{}/gw-0001", clouds::PRODUCT);
            self.adapter
                .heard(at, &topic, error.to_string().as_bytes(), &mut self.out);
            self.settle();
        }
    }

    /// Until so many are online and know it, at most so long; how long it took, in ms.
    pub(crate) fn run_until_online(&mut self, at_most_ms: u64, count: usize) -> u64 {
        self.run(at_most_ms, |cloud| {
            cloud.online.len() == count && cloud.answers.is_empty()
        })
    }

    /// Until `done`, at most so long; how long it took, in ms.
    pub(crate) fn run(&mut self, at_most_ms: u64, done: impl Fn(&Self) -> bool) -> u64 {
        let begun_ms = self.now_ms;
        while self.now_ms < begun_ms + at_most_ms && !done(self) {
            let answer_ms = self.answers.iter().map(|(at, ..)| *at).min();
            let due_ms = self.adapter.tick_at().into_iter().chain(answer_ms).min();
            let due_ms = due_ms.unwrap_or(u64::MAX).min(begun_ms + at_most_ms);
            self.now_ms = self.now_ms.max(due_ms);
            let (ready, later) = std::mem::take(&mut self.answers)
                .into_iter()
                .partition(|(at, ..)| *at <= self.now_ms);
            self.answers = later;
            let at = self.at();
            for (_, topic, reply) in Vec::from_iter::<Vec<(u64, String, Value)>>(ready) {
                self.adapter
                    .heard(at, &topic, reply.to_string().as_bytes(), &mut self.out);
                self.settle();
            }
            self.adapter.tick(at, &mut self.out);
            self.settle();
        }
        self.now_ms - begun_ms
    }

    fn settle(&mut self) {
        while let Some(heard) = self.out.heard.pop_front() {
            if let Heard::Symptom(symptom) = heard {
                self.symptoms.push(symptom);
            }
        }
        while let Some(publish) = self.out.publishes.pop_front() {
            self.take(&publish);
        }
    }

    fn is_denied(&self, name: &str) -> bool {
        let number: usize = name.trim_start_matches("washer-").parse().unwrap();
        number % 100 < self.denied_percent
    }

    fn take(&mut self, Publish { topic, payload, .. }: &Publish) {
        let asked: Value = serde_json::from_slice(payload).unwrap();
        let (code, data) = if topic.ends_with("/topo/get") {
            (200, self.topology.iter().map(|name| device(name)).collect())
        } else if topic.ends_with("/topo/add") {
            let names = names(&asked["params"]);
            assert!(names.len() <= 30);
            self.topology.extend(names);
            (200, Vec::new())
        } else if topic.ends_with("/batch_login") {
            self.log_in(&names(&asked["params"]["deviceList"]))
        } else {
            return;
        };
        let reply = json!({"id": asked["id"], "code": code, "data": data});
        self.answers
            .push((self.now_ms + ANSWER_MS, format!("{topic}_reply"), reply));
    }

    /// All or nobody.
    fn log_in(&mut self, names: &[String]) -> (u32, Vec<Value>) {
        assert!(names.len() <= 50);
        self.logins.push((self.now_ms, names.len()));
        let now_ms = self.now_ms;
        let lately = self.logins.iter().filter(|(at, _)| now_ms - at < 1_000);
        assert!(lately.map(|(_, count)| count).sum::<usize>() <= LOGINS_A_SECOND);
        let flying = self
            .answers
            .iter()
            .filter(|(_, topic, _)| topic.ends_with("login_reply"));
        assert!(flying.count() < FLYING_MAX);
        let refused: Vec<&String> = names.iter().filter(|name| self.is_denied(name)).collect();
        if refused.is_empty() {
            self.online.extend(names.iter().cloned());
            (200, names.iter().map(|name| device(name)).collect())
        } else {
            (6100, refused.into_iter().map(|name| device(name)).collect())
        }
    }
}

fn device(name: &str) -> Value {
    json!({"productKey": clouds::SUB_PRODUCT, "deviceName": name})
}

fn names(list: &Value) -> Vec<String> {
    let devices = list.as_array().unwrap().iter();
    devices
        .map(|device| device["deviceName"].as_str().unwrap().to_owned())
        .collect()
}
