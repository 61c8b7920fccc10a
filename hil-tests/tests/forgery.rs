//! Replayed, mutated and re-addressed frames, at the gateway and at the device, over reboots of both: none is accepted. And a
//! stolen data directory: no secret and no raw id token is in it.
//!
//! `HOLDFAST_FORGERIES` says how many (10000000 for the long run), `HOLDFAST_SEED` repeats a run.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use device::Config as Device;
use gateway::{
    devices::{Heard, Opener},
    store::Store,
};
use gateway_core::{Config, Gateway, Input, Now, config::DeviceConfig};
use hil_tests::{
    site::{BrokerKind, DevicePlan, Plan, Site, Standing, hex},
    twin::{Outgoing, Twin},
};
use proto::{
    codec,
    id::{DeviceId, IdToken, Kind, OutletId, SessionId, TokenKey, TokenKind},
    instrument::Instrument,
    message::{Authorize, Clock, ClockQuality, Grant, Hello, Refusal, RefusalReason, Stamp},
    money::{Money, Units},
    seal::{Counter, Direction, FRAME_BYTES_MAX, PairSecret},
    tariff::{Dimension, Tariff},
    topic::{self, Down, Up},
};
use support::{Bytes, PATIENCE};

/// Forgeries in the test command, at each side.
const FORGERIES_DEFAULT: u64 = 40_000;
/// Reboots over which they are spread.
const BOOTS: u64 = 20;
const WALL_S: u64 = 1_768_464_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A frame that was sound once, on its topic.
type Frame = (String, Vec<u8>);

/// Makes of sound frames what is none.
struct Forger {
    rng: fastrand::Rng,
    seen: Vec<Frame>,
    /// Topics to which frames are re-addressed.
    topics: Vec<String>,
    /// How many of each: replays, mutations, re-addressed ones.
    made: [u64; 3],
}

impl Forger {
    fn new(topics: Vec<String>) -> Self {
        let seed = number("HOLDFAST_SEED", 7);
        Self {
            rng: fastrand::Rng::with_seed(seed),
            seen: Vec::new(),
            topics,
            made: [0; 3],
        }
    }

    fn forge(&mut self) -> Frame {
        let (topic, frame) = self.seen[self.rng.usize(0..self.seen.len())].clone();
        let how = self.rng.usize(0..3);
        self.made[how] += 1;
        match how {
            0 => (topic, frame),
            1 => {
                let mutated = self.mutate(frame.clone());
                // Bits may be flipped back: then it is a replay.
                (topic, mutated)
            }
            _ => (self.topics[self.rng.usize(0..self.topics.len())].clone(), frame),
        }
    }

    fn mutate(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        let rng = &mut self.rng;
        match rng.u8(0..6) {
            0 => frame.truncate(rng.usize(0..frame.len())),
            1 => frame.extend((0..rng.usize(1..40)).map(|_| rng.u8(..))),
            // A later counter.
            2 => frame[1..9].copy_from_slice(&rng.u64(..).to_be_bytes()),
            // Another body behind the same tag.
            3 => {
                let at = 9 + rng.usize(0..frame.len().saturating_sub(25).max(1));
                frame[at] = rng.u8(..);
            }
            _ => {
                for _ in 0..rng.u8(1..5) {
                    let at = rng.usize(0..frame.len());
                    frame[at] ^= 1 << rng.u8(0..8);
                }
            }
        }
        frame
    }
}

/// A gateway with a real journal.
struct Desk {
    store: Store,
    gateway: Gateway,
    boot: u32,
}

impl Desk {
    fn open(dir: &Path, devices: &[DevicePlan]) -> Self {
        let known = devices.iter().map(|device| {
            let config = DeviceConfig {
                kind: device.kind,
                outlets: 1,
                car: false,
            };
            (device.id, config)
        });
        let config = Config {
            devices: known.collect(),
            ..Config::default()
        };
        let (store, gateway) = Store::open(dir, config, 1_000).unwrap();
        let boot = gateway.timeline().boot + 1;
        let mut desk = Self { store, gateway, boot };
        assert!(desk.takes(&Input::Boot { boot, epoch: 1 }));
        desk
    }

    /// Whether it changes anything; then it is durable.
    fn takes(&mut self, input: &Input) -> bool {
        let now = Now {
            mono_ms: 1_000,
            wall_s: WALL_S,
            quality: ClockQuality::Synchronised,
        };
        let decision = self.gateway.decide(&now, input);
        let is_silent = decision.events.is_empty();
        for event in decision.events {
            self.store.stage(&mut self.gateway, &now, event);
        }
        if is_silent {
            return false;
        }
        self.store.commit().unwrap();
        true
    }

    fn hears(&mut self, opener: &Opener, topic: &str, frame: &[u8]) -> bool {
        match opener.open(None, topic, frame) {
            Ok((device, counter, Heard::Core(said))) => self.takes(&Input::Device { device, counter, said }),
            Ok((_, _, Heard::Firmware(_))) | Err(_) => false,
        }
    }
}

/// Sound frames of a device in a boot of its own.
fn speak(device: &DevicePlan, boot: u32) -> Vec<Frame> {
    let key = device.secret.key(Direction::Up);
    let mut counter = Counter::of_boot(boot);
    let at = Stamp::relative(1);
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        kind: device.kind,
        outlets: 1,
        boot,
        down_counter: 0,
        firmware: "forged".parse().unwrap(),
        at,
    };
    let authorize = Authorize {
        session: SessionId::mint(&device.id, boot, 1),
        outlet: 0,
        token: IdToken::new(TokenKind::Card, &[4, 1, 2, 3, 4, 5, 6]).unwrap(),
        units_wished: Units::ZERO,
        register: Units::ZERO,
        at,
        instrument: Instrument::NONE,
    };
    let (hello_topic, authorize_topic) = (topic::up(&device.id, Up::Hello), topic::up(&device.id, Up::Authorize));
    vec![
        (
            hello_topic.to_string(),
            key.seal_vec(&hello_topic, counter.next(), &hello),
        ),
        (
            authorize_topic.to_string(),
            key.seal_vec(&authorize_topic, counter.next(), &authorize),
        ),
    ]
}

#[test]
fn the_gateway_accepts_no_forged_frame_over_reboots_of_both() {
    let count = number("HOLDFAST_FORGERIES", FORGERIES_DEFAULT);
    let dir = tempfile::tempdir().unwrap();
    let devices = Plan::new(41, 3, 0).devices;
    let secrets: BTreeMap<DeviceId, PairSecret> = devices.iter().map(|d| (d.id, d.secret.clone())).collect();
    let words = [
        Up::Hello,
        Up::Authorize,
        Up::Started,
        Up::Meter,
        Up::Stop,
        Up::Status,
        Up::Redeemed,
    ];
    let mut topics: Vec<String> = Vec::new();
    for device in &devices {
        topics.extend(words.map(|word| topic::up(&device.id, word).to_string()));
        topics.push(topic::down(&device.id, Down::Grant).to_string());
    }
    let mut forger = Forger::new(topics);
    let mut accepted = 0;
    for boot in 0..BOOTS {
        // The gateway's power was cut, and comes back with what is in its journal.
        let opener = Opener::new(&secrets, TokenKey([3; 32]));
        let mut desk = Desk::open(dir.path(), &devices);
        assert_eq!(u64::from(desk.boot), boot + 1);
        // Each device has booted, too; what it says is accepted, once.
        for device in &devices {
            for (topic, frame) in speak(device, boot as u32 + 1) {
                assert!(
                    desk.hears(&opener, &topic, &frame),
                    "{topic}: a sound frame is accepted"
                );
                forger.seen.push((topic, frame));
            }
        }
        for _ in 0..count / BOOTS {
            let (topic, frame) = forger.forge();
            // A frame that is re-addressed to where it belongs is a replay, too.
            accepted += u64::from(desk.hears(&opener, &topic, &frame));
        }
    }
    println!(
        "gateway: {:?} replayed, mutated, re-addressed over {BOOTS} boots: {accepted} accepted",
        forger.made
    );
    assert_eq!(accepted, 0);
    assert!(forger.made.iter().all(|made| *made > count / 4));
}

/// A gateway's voice towards one device, as far as it takes to grant.
struct Voice {
    device: DevicePlan,
    counter: Counter,
}

impl Voice {
    fn seal<T: serde::Serialize>(&mut self, word: Down, message: &T) -> Frame {
        let topic = topic::down(&self.device.id, word);
        let frame = self
            .device
            .secret
            .key(Direction::Down)
            .seal_vec(&topic, self.counter.next(), message);
        (topic.to_string(), frame)
    }

    /// What answers this: to a hello a clock, to an authorize a grant and then a refusal.
    fn answers(&mut self, said: &Outgoing) -> Vec<Frame> {
        let (_, word) = topic::parse_up(&said.topic).unwrap();
        let key = self.device.secret.key(Direction::Up);
        let opened = key.open(&said.topic, &said.frame, FRAME_BYTES_MAX).unwrap();
        match word {
            Up::Hello => {
                let hello: Hello = codec::decode(opened.body).unwrap();
                let clock = Clock {
                    version: 1,
                    boot: hello.boot,
                    wall_s: WALL_S,
                    quality: ClockQuality::Synchronised,
                    offset_min: 480,
                };
                vec![self.seal(Down::Clock, &clock)]
            }
            Up::Authorize => {
                let authorize: Authorize = codec::decode(opened.body).unwrap();
                let refusal = Refusal {
                    session: authorize.session,
                    reason: RefusalReason::Other,
                    retry_after_s: 0,
                };
                let grant = self.seal(Down::Grant, &grant(authorize.session));
                vec![grant, self.seal(Down::Refusal, &refusal)]
            }
            Up::Redeemed | Up::Started | Up::Meter | Up::Stop | Up::Status | Up::CommandAnswer | Up::Update => {
                Vec::new()
            }
        }
    }
}

fn grant(session: SessionId) -> Grant {
    let tariff = Tariff::flat(1, &[(Dimension::Volume, 20_000)]);
    Grant {
        session,
        units_max: Units(5_000),
        money_max: Money(600),
        duration_max_s: 600,
        start_within_s: 60,
        meter_every_s: 60,
        tariff_hash: tariff.hash(),
        tariff,
        decision: 1,
        stop_tokens: Default::default(),
    }
}

#[test]
fn the_device_acts_on_no_forged_frame_over_reboots_of_both() {
    let count = number("HOLDFAST_FORGERIES", FORGERIES_DEFAULT);
    let devices = Plan::new(42, 3, 0).devices;
    let plan = devices
        .iter()
        .find(|device| device.kind == Kind::Dispenser)
        .unwrap()
        .clone();
    let outlet: OutletId = 0;
    let words = [Down::Clock, Down::Grant, Down::Refusal, Down::Receipt, Down::Command];
    let topics = devices
        .iter()
        .flat_map(|device| words.map(|word| topic::down(&device.id, word).to_string()));
    let mut forger = Forger::new(topics.collect());
    let config = Device::new(plan.id, plan.kind, 1, plan.secret.clone());
    let mut twin = Twin::new(config, 1, 1, 0).unwrap();
    let mut now_ms = 0;
    let mut accepted = 0;
    let token = || IdToken::new(TokenKind::Card, &[4, 1, 2, 3, 4, 5, 6]).unwrap();
    for boot in 0..BOOTS as u32 {
        // Both have booted: the gateway's counter is in its new range, the device's window is empty.
        let mut voice = Voice {
            device: plan.clone(),
            counter: Counter::of_boot(boot + 1),
        };
        now_ms += 1_000;
        let mut clocks = Vec::new();
        for said in twin.link(now_ms, true) {
            clocks.extend(voice.answers(&said));
        }
        assert!(!clocks.is_empty(), "the device says hello");
        for (topic, frame) in &clocks {
            twin.message(now_ms, topic, frame);
        }
        let (session, said) = twin.present(now_ms, outlet, token(), Units::ZERO);
        assert!(session.is_some());
        let answers: Vec<Frame> = said.iter().flat_map(|said| voice.answers(said)).collect();
        let [held_back, refusal] = &answers[..] else {
            panic!("{answers:?}")
        };
        twin.message(now_ms, &refusal.0, &refusal.1);
        assert_eq!(twin.session(outlet), None, "refused");
        forger.seen.extend(clocks);
        forger.seen.extend([held_back.clone(), refusal.clone()]);
        // What the device itself said comes back to it, too.
        forger
            .seen
            .extend(said.into_iter().map(|said| (said.topic, said.frame)));
        for i in 0..count / BOOTS {
            let (topic, frame) = forger.forge();
            if i % 64 == 0 {
                now_ms += 1;
            }
            twin.message(now_ms, &topic, &frame);
            accepted += u64::from(twin.is_on(outlet) || twin.session(outlet).is_some());
        }
        twin.power_cut(now_ms);
        now_ms += 1_000;
        twin.power_restore(now_ms).unwrap();
    }
    println!(
        "device: {:?} replayed, mutated, re-addressed over {BOOTS} boots: {accepted} accepted",
        forger.made
    );
    assert_eq!(accepted, 0);
    assert!(forger.made.iter().all(|made| *made > count / 4));
    // The same grant, in time, is acted on: the test can see it.
    let mut voice = Voice {
        device: plan.clone(),
        counter: Counter::of_boot(BOOTS as u32 + 1),
    };
    for said in twin.link(now_ms, true) {
        for (topic, frame) in voice.answers(&said) {
            twin.message(now_ms, &topic, &frame);
        }
    }
    let (_, said) = twin.present(now_ms, outlet, token(), Units::ZERO);
    let held_back = said.iter().flat_map(|said| voice.answers(said)).next().unwrap();
    twin.message(now_ms, &held_back.0, &held_back.1);
    assert!(twin.session(outlet).is_some(), "a grant in time");
}

/// Every file below a folder, with its bytes.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found
}

/// In which files something stands, in any of its spellings.
fn found(files: &[(String, Vec<u8>)], what: &[u8]) -> Vec<String> {
    let spellings = [
        what.to_vec(),
        hex(what).into_bytes(),
        hex(what).to_uppercase().into_bytes(),
    ];
    let stands = |bytes: &[u8], text: &[u8]| {
        let first = text[0];
        let mut starts = (0..bytes.len()).filter(|at| bytes[*at] == first);
        starts.any(|at| bytes[at..].starts_with(text))
    };
    let holds = |bytes: &[u8]| spellings.iter().any(|text| stands(bytes, text));
    let hits = files.iter().filter(|(_, bytes)| holds(bytes));
    hits.map(|(name, _)| name.clone()).collect()
}

#[test]
fn a_stolen_data_directory_holds_no_key_and_no_id_token() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(43, 3, 60);
    let (hub, address) = Site::start_hub(&plan, dir.path()).unwrap();
    let mut site = Site::start(plan, dir.path(), hub, address, BrokerKind::Embedded).unwrap();
    site.gateway.wait_for("list adopted").unwrap();
    let with = |standing: Standing| {
        let users = site.plan.users.iter().filter(move |user| user.standing == standing);
        users.map(|user| user.token).collect::<Vec<_>>()
    };
    let (good, revoked) = (with(Standing::Good), with(Standing::Revoked));
    for (number, token) in (1..).zip(good.iter().take(3)) {
        Bytes::connect(site.device_address, &site.plan.devices[2], number).session(number, token);
    }
    // What was refused is in no file either.
    Bytes::connect(site.device_address, &site.plan.devices[1], 1).refused(1, &revoked[0]);
    site.settle(PATIENCE).unwrap();
    site.gateway.kill().unwrap();

    let gateway = dir.path().join("gateway");
    let stolen = files(&gateway.join("data"));
    let bytes: usize = stolen.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes > 1_000, "the store was used");
    let nowhere: Vec<String> = Vec::new();
    for device in &site.plan.devices {
        assert_eq!(found(&stolen, &device.secret.0), nowhere, "secret of {}", device.id);
        let password = device.secret.password();
        assert_eq!(
            found(&stolen, password.as_bytes()),
            nowhere,
            "password of {}",
            device.id
        );
    }
    for user in &site.plan.users {
        assert_eq!(found(&stolen, &user.token), nowhere, "an id token");
    }
    let config = fs::read_to_string(gateway.join("secrets.toml")).unwrap();
    let secrets: Vec<&str> = config
        .lines()
        .filter_map(|line| line.split_once(" = \"").map(|(_, value)| value.trim_end_matches('"')))
        .collect();
    assert!(secrets.len() >= 6, "token key, link, monitor and devices");
    for secret in secrets {
        let raw: Vec<u8> = (0..secret.len() / 2)
            .filter_map(|i| u8::from_str_radix(&secret[2 * i..2 * i + 2], 16).ok())
            .collect();
        assert_eq!(found(&stolen, secret.as_bytes()), nowhere, "a line of secrets.toml");
        assert_eq!(found(&stolen, &raw), nowhere, "a line of secrets.toml");
    }
    // The search finds what is there: names are no secrets, and the secrets are where they belong.
    assert!(!found(&stolen, site.plan.devices[2].id.as_str().as_bytes()).is_empty());
    let kept = found(&files(&gateway), &site.plan.devices[0].secret.0);
    assert!(kept.len() == 1 && kept[0].ends_with("secrets.toml"), "{kept:?}");
}
