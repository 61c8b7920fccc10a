//! The connection to the gateway: hello, seals, the clock, and when to say a thing again.
//!
//! After every link-up the first message is `hello`; nothing else is published until its [`Clock`] is there. So the
//! gateway knows the device's boot, version and counter before it judges anything, and a device behind a broker whose
//! gateway is away does not fill the broker's queue.

use heapless::Vec;
use proto::{
    VERSION, codec,
    message::{Clock, ClockQuality, Stamp},
    seal::{Counter, Direction, FRAME_BYTES_MAX, SealKey, Window},
    topic::{self, Down, Topic, Up},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::{Config, HELLO_REFUSED_RETRY_MS, HELLO_RETRY_FIRST_MS, HELLO_RETRY_MAX_MS},
    io::{Effect, UP_FRAME_BYTES_MAX},
};

const SECONDS_A_DAY: i64 = 86_400;
/// After so many doublings every wait has reached its longest.
const DOUBLINGS_MAX: u32 = 16;

/// How many messages were not accepted since boot, by the first check that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Topics that are not this device's or carry an unknown word.
    pub topic: u32,
    /// Frames whose seal does not fit.
    pub seal: u32,
    /// Frames whose counter was seen before.
    pub replay: u32,
    /// Bodies that are not the message of their topic.
    pub body: u32,
}

/// When to say something (again): doubling waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    next_ms: u64,
    attempts: u32,
}

impl Retry {
    pub(crate) const fn at(next_ms: u64) -> Self {
        Self { next_ms, attempts: 0 }
    }

    pub(crate) const fn next_ms(&self) -> u64 {
        self.next_ms
    }

    pub(crate) const fn due(&self, now_ms: u64) -> bool {
        now_ms >= self.next_ms
    }

    /// The wait is doubled, and lengthened by up to a quarter that differs from device to device, so that a hall of
    /// devices does not speak in chorus.
    pub(crate) fn said(&mut self, now_ms: u64, first_ms: u64, longest_ms: u64, spread: u8) {
        let wait_ms = (first_ms << self.attempts.min(DOUBLINGS_MAX)).min(longest_ms);
        let spread_ms = wait_ms / 4 * u64::from(spread) / 256;
        self.next_ms = now_ms.saturating_add(wait_ms + spread_ms);
        self.attempts = self.attempts.saturating_add(1);
    }
}

#[derive(Clone, Copy, Debug)]
struct WallClock {
    at_ms: u64,
    wall_s: u64,
    quality: ClockQuality,
    offset_min: i16,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Down,
    /// Connected; the hello is unanswered.
    Greeting(Retry),
    Ready,
}

#[derive(Debug)]
pub(crate) struct Link {
    state: State,
    counter: Counter,
    window: Window,
    up_key: SealKey,
    down_key: SealKey,
    clock: Option<WallClock>,
    spread: u8,
    rejected: Rejected,
}

impl Link {
    pub(crate) fn new(config: &Config, boot: u32) -> Self {
        let up_key = config.secret.key(Direction::Up);
        // Any byte that differs between devices will do for spreading; a keyed hash of the own name has one.
        let spread = proto::id::SessionId::mint(&config.id, 0, 0).0[0];
        Self {
            state: State::Down,
            counter: Counter::of_boot(boot),
            window: Window::default(),
            up_key,
            down_key: config.secret.key(Direction::Down),
            clock: None,
            spread,
            rejected: Rejected::default(),
        }
    }

    pub(crate) fn up(&mut self, now_ms: u64) {
        self.state = State::Greeting(Retry::at(now_ms));
    }

    pub(crate) fn down(&mut self) {
        self.state = State::Down;
    }

    /// Says hello again, on command.
    pub(crate) fn greet(&mut self, now_ms: u64) {
        match self.state {
            State::Down => {}
            State::Greeting(_) | State::Ready => self.state = State::Greeting(Retry::at(now_ms)),
        }
    }

    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    pub(crate) const fn spread(&self) -> u8 {
        self.spread
    }

    pub(crate) const fn down_counter(&self) -> u64 {
        self.window.last
    }

    pub(crate) const fn rejected(&self) -> Rejected {
        self.rejected
    }

    pub(crate) const fn deadline_ms(&self) -> Option<u64> {
        match &self.state {
            State::Greeting(retry) => Some(retry.next_ms()),
            State::Down | State::Ready => None,
        }
    }

    /// Whether a hello is due; marks it said.
    pub(crate) fn take_hello(&mut self, now_ms: u64) -> bool {
        match &mut self.state {
            State::Greeting(retry) if retry.due(now_ms) => {
                retry.said(now_ms, HELLO_RETRY_FIRST_MS, HELLO_RETRY_MAX_MS, self.spread);
                true
            }
            State::Greeting(_) | State::Down | State::Ready => false,
        }
    }

    /// The hello was refused: the gateway has to change before it is worth asking again. An answered hello cannot be
    /// refused any more: that would be the replay of an old refusal.
    pub(crate) fn hello_refused(&mut self, now_ms: u64, retry_after_s: u16) {
        let wait_ms = match retry_after_s {
            0 => HELLO_REFUSED_RETRY_MS,
            seconds => u64::from(seconds) * 1000,
        };
        match self.state {
            State::Down | State::Ready => {}
            State::Greeting(_) => self.state = State::Greeting(Retry::at(now_ms.saturating_add(wait_ms))),
        }
    }

    /// Takes the gateway's clock over; returns whether the link became ready by it.
    pub(crate) fn clock(&mut self, now_ms: u64, boot: u32, clock: &Clock) -> bool {
        // The clock of a former boot is a replay: without a stored window only this tells it from a true one.
        if clock.boot != boot || clock.version != VERSION {
            return false;
        }
        self.clock = (clock.quality != ClockQuality::Unknown && clock.wall_s > 0).then_some(WallClock {
            at_ms: now_ms,
            wall_s: clock.wall_s,
            quality: clock.quality,
            offset_min: clock.offset_min,
        });
        match self.state {
            State::Greeting(_) => {
                self.state = State::Ready;
                true
            }
            State::Down | State::Ready => false,
        }
    }

    pub(crate) fn stamp(&self, now_ms: u64) -> Stamp {
        match &self.clock {
            None => Stamp::relative(now_ms),
            Some(clock) => Stamp {
                mono_ms: now_ms,
                wall_s: clock.wall_s.saturating_add(now_ms.saturating_sub(clock.at_ms) / 1000),
                quality: clock.quality,
            },
        }
    }

    /// How long ago the clock was set, in s; 0 without one.
    pub(crate) fn clock_age_s(&self, now_ms: u64) -> u64 {
        let set_ms = self.clock.as_ref().map_or(now_ms, |clock| clock.at_ms);
        now_ms.saturating_sub(set_ms) / 1000
    }

    /// The local second of the day; `None` unless the clock is synchronised: then the customer's favour decides.
    pub(crate) fn second_of_day(&self, now_ms: u64) -> Option<u32> {
        let clock = self.clock.as_ref()?;
        let stamp = self.stamp(now_ms);
        if stamp.quality != ClockQuality::Synchronised {
            return None;
        }
        let wall_s = i64::try_from(stamp.wall_s).ok()?;
        let local_s = wall_s.checked_add(i64::from(clock.offset_min) * 60)?;
        u32::try_from(local_s.rem_euclid(SECONDS_A_DAY)).ok()
    }

    /// Checks topic, seal and counter; counts what fails.
    pub(crate) fn open<'a>(&mut self, config: &Config, topic: &str, frame: &'a [u8]) -> Option<(Down, &'a [u8])> {
        let Some((device, word)) = topic::parse_down(topic) else {
            return reject(&mut self.rejected.topic);
        };
        if device != config.id {
            return reject(&mut self.rejected.topic);
        }
        let Ok(opened) = self.down_key.open(topic, frame, FRAME_BYTES_MAX) else {
            return reject(&mut self.rejected.seal);
        };
        if self.window.check(opened.counter).is_err() {
            return reject(&mut self.rejected.replay);
        }
        self.window.last = opened.counter;
        Some((word, opened.body))
    }

    pub(crate) fn decode<T: DeserializeOwned>(&mut self, body: &[u8]) -> Option<T> {
        match codec::decode(body) {
            Ok(message) => Some(message),
            Err(_) => reject(&mut self.rejected.body),
        }
    }

    pub(crate) fn seal<T: Serialize>(&mut self, config: &Config, word: Up, message: &T) -> Effect {
        let topic: Topic = topic::up(&config.id, word);
        let mut frame = Vec::new();
        frame
            .resize(UP_FRAME_BYTES_MAX, 0)
            .expect("the capacity is UP_FRAME_BYTES_MAX");
        let counter = self.counter.next();
        let len = self
            .up_key
            .seal(&topic, counter, message, &mut frame)
            .expect("UP_FRAME_BYTES_MAX holds the largest message of a device");
        frame.truncate(len);
        Effect::Publish { topic, frame }
    }
}

fn reject<T>(count: &mut u32) -> Option<T> {
    *count = count.saturating_add(1);
    None
}
