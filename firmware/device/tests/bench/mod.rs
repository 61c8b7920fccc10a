//! A device on the test bench: memory for storage, the gateway's side of the seals, and everything that came out.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its part of the bench"
)]

use std::collections::BTreeMap;

use device::{Config, Device, Effect, Input, Now, RecordKey, Screen, Sense, Stored};
use proto::{
    codec,
    id::{DeviceId, IdToken, Kind, Name, OutletId, SessionId, TokenKind},
    message::*,
    money::{Money, Units},
    seal::{Counter, Direction, FRAME_BYTES_MAX, OVERHEAD_BYTES, PairSecret, SealKey, Window},
    tariff::{Dimension, Tariff},
    topic::{self, Down, Up},
    update::Update,
};
use serde::{Serialize, de::DeserializeOwned};

pub const SECRET: PairSecret = PairSecret([7; 32]);
pub const WALL_S: u64 = 1_700_000_000;

/// What a device said, opened.
#[allow(clippy::large_enum_variant, reason = "a test keeps a handful of these")]
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Hello(Hello),
    Authorize(Authorize),
    Started(Started),
    Meter(Meter),
    Stop(Stop),
    Status(Status),
    Answer(CommandAnswer),
    Redeemed(Redeemed),
    Update(Update),
}

pub struct Bench {
    pub device: Device,
    pub config: Config,
    pub now_ms: u64,
    pub flash: BTreeMap<RecordKey, Vec<u8>>,
    pub outputs: BTreeMap<OutletId, bool>,
    pub said: Vec<Said>,
    pub screens: Vec<(OutletId, Screen)>,
    /// Everything in order, as words: `off 0`, `store`, `on 0`, `stop`.
    pub order: Vec<String>,
    pub senses: BTreeMap<OutletId, Sense>,
    up: SealKey,
    window: Window,
    down: SealKey,
    pub counter: Counter,
    /// Stop carrying out effects after so many: the power fails.
    pub effects_left: Option<usize>,
}

pub fn config(kind: Kind) -> Config {
    Config::new(Name::new("bench-1").unwrap(), kind, 2, SECRET)
}

pub fn token(n: u8) -> IdToken {
    IdToken::new(TokenKind::Card, &[n, 1, 2, 3]).unwrap()
}

pub fn tariff(kind: Kind) -> Tariff {
    match kind {
        Kind::Charger => Tariff::flat(1, &[(Dimension::Energy, 100_000)]),
        Kind::Washer => Tariff::flat(2, &[(Dimension::Cycle, 500_000)]),
        Kind::Dispenser | Kind::Unknown => Tariff::flat(3, &[(Dimension::Volume, 40_000)]),
    }
}

pub fn grant(kind: Kind, session: SessionId) -> Grant {
    let tariff = tariff(kind);
    Grant {
        session,
        units_max: Units(match kind {
            Kind::Charger => 2_000,
            Kind::Washer => 1,
            Kind::Dispenser | Kind::Unknown => 5_000,
        }),
        money_max: Money(600),
        duration_max_s: 28_800,
        start_within_s: 60,
        meter_every_s: 60,
        tariff_hash: tariff.hash(),
        tariff,
        decision: 1,
        stop_tokens: heapless::Vec::new(),
    }
}

impl Bench {
    pub fn new(kind: Kind) -> Self {
        Self::with(config(kind))
    }

    pub fn with(config: Config) -> Self {
        let mut bench = Self::dark(config, BTreeMap::new());
        bench.sense(0, |_| {});
        bench.sense(1, |_| {});
        bench.link();
        bench
    }

    /// Booted from `flash`, not linked, no reading yet.
    pub fn dark(config: Config, flash: BTreeMap<RecordKey, Vec<u8>>) -> Self {
        let mut stored = Stored::new();
        for (key, bytes) in &flash {
            stored.load(*key, bytes).unwrap();
        }
        let device = Device::boot(config.clone(), stored, Now { mono_ms: 1_000 }).unwrap();
        let mut bench = Self {
            device,
            now_ms: 1_000,
            flash,
            outputs: BTreeMap::new(),
            said: Vec::new(),
            screens: Vec::new(),
            order: Vec::new(),
            senses: BTreeMap::new(),
            up: config.secret.key(Direction::Up),
            window: Window::default(),
            down: config.secret.key(Direction::Down),
            counter: Counter::of_boot(1),
            effects_left: None,
            config,
        };
        bench.drain();
        bench
    }

    /// Power off and on again; what lies around the device stays.
    pub fn reboot(&mut self) {
        let mut next = Self::dark(self.config.clone(), self.flash.clone());
        next.counter = self.counter;
        next.senses = self.senses.clone();
        next.window = self.window;
        next.order.clear();
        *self = next;
    }

    pub fn kind(&self) -> Kind {
        self.config.kind
    }

    pub fn link(&mut self) {
        self.input(Input::LinkUp);
        self.clock(self.device.boot_number(), ClockQuality::Synchronised, WALL_S);
    }

    pub fn clock(&mut self, boot: u32, quality: ClockQuality, wall_s: u64) {
        let clock = Clock {
            version: 1,
            boot,
            wall_s,
            quality,
            offset_min: 480,
        };
        self.tell(Down::Clock, &clock);
    }

    /// The gateway is there for a hello, and gone.
    pub fn clock_alone(&mut self) {
        self.input(Input::LinkUp);
        // Whatever is said meanwhile is lost.
        let said = self.said.len();
        self.clock(self.device.boot_number(), ClockQuality::Synchronised, WALL_S);
        self.said.truncate(said);
        self.input(Input::LinkDown);
    }

    pub fn input(&mut self, input: Input<'_>) {
        let now = Now { mono_ms: self.now_ms };
        // Nothing is taken here: the drain below takes the same effects.
        let _ = self.device.handle(now, input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            if self.effects_left == Some(0) {
                return;
            }
            let Some(effect) = self.device.effects().next() else {
                return;
            };
            self.effects_left = self.effects_left.map(|left| left - 1);
            self.carry_out(effect);
        }
    }

    /// The granted session that is stored for an outlet.
    pub fn stored_grant(&self, outlet: OutletId) -> Option<SessionId> {
        let key = RecordKey::Outlet(outlet);
        let mut stored: Stored = Stored::new();
        stored.load(key, self.flash.get(&key)?).unwrap();
        stored
            .open(outlet)
            .filter(|(_, granted)| *granted)
            .map(|(session, _)| session)
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Switch { outlet, on } => {
                self.order.push(format!("{} {outlet}", if on { "on" } else { "off" }));
                self.outputs.insert(outlet, on);
            }
            Effect::Store(record) => {
                self.order.push("store".into());
                self.flash.insert(record.key, record.bytes.to_vec());
            }
            Effect::Publish { topic, frame } => {
                let (device, word) = topic::parse_up(&topic).unwrap();
                assert_eq!(device, self.config.id);
                self.order.push(word.word().into());
                let opened = self.up.open(&topic, &frame, FRAME_BYTES_MAX).unwrap();
                self.window.check(opened.counter).expect("a counter was used twice");
                self.window.last = opened.counter;
                self.said.push(open(word, opened.body));
            }
            Effect::Show { outlet, screen } => self.screens.push((outlet, screen)),
        }
        // The power may fail here: whatever is on must be covered by what is stored, after every single effect.
        for (outlet, on) in &self.outputs {
            assert!(
                !on || self.stored_grant(*outlet).is_some(),
                "outlet {outlet} is on without a stored grant"
            );
        }
    }

    pub fn frame<T: Serialize>(&mut self, word: Down, message: &T) -> (topic::Topic, Vec<u8>) {
        let topic = topic::down(&self.config.id, word);
        let mut frame = [0; FRAME_BYTES_MAX];
        let len = self
            .down
            .seal(&topic, self.counter.next(), message, &mut frame)
            .unwrap();
        (topic, frame[..len].to_vec())
    }

    /// Any body, sealed by the gateway.
    pub fn frame_of(&mut self, word: Down, body: &[u8]) -> (topic::Topic, Vec<u8>) {
        let topic = topic::down(&self.config.id, word);
        let mut frame = vec![0; OVERHEAD_BYTES + body.len()];
        frame[9..9 + body.len()].copy_from_slice(body);
        let counter = self.counter.next();
        self.down
            .seal_in_place(&topic, counter, &mut frame, body.len())
            .unwrap();
        (topic, frame)
    }

    pub fn tell<T: Serialize>(&mut self, word: Down, message: &T) {
        let (topic, frame) = self.frame(word, message);
        self.input(Input::Message {
            topic: &topic,
            frame: &frame,
        });
    }

    pub fn sense(&mut self, outlet: OutletId, change: impl FnOnce(&mut Sense)) {
        let sense = self.senses.entry(outlet).or_insert(Sense {
            plugged: true,
            temperature_c: 20,
            ..Sense::default()
        });
        change(sense);
        let sense = *sense;
        self.input(Input::Sense { outlet, sense });
    }

    pub fn present(&mut self, outlet: OutletId, n: u8) {
        self.input(Input::Token {
            outlet,
            token: token(n),
            units_wished: Units::ZERO,
        });
    }

    /// Lets time pass with a tick at every deadline.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(at) = self.device.next_deadline().filter(|at| *at <= end) {
            if self.effects_left == Some(0) {
                break;
            }
            assert!(at >= self.now_ms, "a deadline in the past");
            self.now_ms = at.max(self.now_ms);
            self.input(Input::Tick);
            let next = self.device.next_deadline();
            assert!(
                next.is_none_or(|next| next > self.now_ms) || self.effects_left == Some(0),
                "the deadline did not move: {:?}",
                self.device
            );
        }
        self.now_ms = end;
        self.input(Input::Tick);
    }

    /// Lets time pass with a reading every second.
    pub fn pass(&mut self, seconds: u64, outlet: OutletId, mut change: impl FnMut(&mut Sense)) {
        for _ in 0..seconds {
            self.wait(1_000);
            self.sense(outlet, &mut change);
        }
    }

    /// Presents a token and grants it; returns the session.
    pub fn granted(&mut self, outlet: OutletId, n: u8) -> SessionId {
        self.present(outlet, n);
        let session = self.device.session(outlet).expect("a session is asked for");
        let grant = grant(self.kind(), session);
        self.tell(Down::Grant, &grant);
        session
    }

    /// Makes the outlet look as if it delivers.
    pub fn begin(&mut self, outlet: OutletId) {
        let kind = self.kind();
        self.sense(outlet, |s| match kind {
            Kind::Charger => {
                s.relay_closed = true;
                s.power_w = 2_000;
            }
            Kind::Washer => {
                s.door_locked = true;
                s.running = true;
                s.register.0 += 1;
            }
            Kind::Dispenser | Kind::Unknown => {
                s.flowing = true;
                s.register.0 += 20;
            }
        });
    }

    /// Presents, grants and begins.
    pub fn running(&mut self, outlet: OutletId, n: u8) -> SessionId {
        let session = self.granted(outlet, n);
        self.begin(outlet);
        assert_eq!(self.device.state(outlet), Some(OutletState::Busy));
        session
    }

    pub fn on(&self, outlet: OutletId) -> bool {
        self.outputs[&outlet]
    }

    pub fn stops(&self) -> Vec<Stop> {
        self.said
            .iter()
            .filter_map(|said| match said {
                Said::Stop(stop) => Some(stop.clone()),
                _ => None,
            })
            .collect()
    }

    pub fn last_stop(&self) -> Stop {
        self.stops().pop().expect("a stop was said")
    }

    pub fn count(&self, word: &str) -> usize {
        self.order.iter().filter(|said| *said == word).count()
    }

    pub fn receipt(&mut self, session: SessionId) {
        let receipt = Receipt {
            session,
            closing: Closing::Captured,
            amount: Money(1),
            units: Units(1),
        };
        self.tell(Down::Receipt, &receipt);
    }

    pub fn id(&self) -> DeviceId {
        self.config.id
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for choosing.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

fn open(word: Up, body: &[u8]) -> Said {
    fn decode<T: DeserializeOwned>(body: &[u8]) -> T {
        codec::decode(body).unwrap()
    }
    match word {
        Up::Hello => Said::Hello(decode(body)),
        Up::Authorize => Said::Authorize(decode(body)),
        Up::Started => Said::Started(decode(body)),
        Up::Meter => Said::Meter(decode(body)),
        Up::Stop => Said::Stop(decode(body)),
        Up::Status => Said::Status(decode(body)),
        Up::CommandAnswer => Said::Answer(decode(body)),
        Up::Redeemed => Said::Redeemed(decode(body)),
        Up::Update => Said::Update(decode(body)),
    }
}
