//! The only place that knows topic strings.
//!
//! Device side: `dev/1/{device}/up/{word}` and `dev/1/{device}/down/{word}`.
//! Link side: `hf/1/{site}/{gateway}/u/{word}` and `hf/1/{site}/{gateway}/d/{word}`, on every [`Lane`] but the first
//! with its number behind the word.

use core::fmt::Write;

use crate::id::{DeviceId, GatewayId, Name};

/// Longest topic this protocol builds, in bytes.
pub const TOPIC_BYTES_MAX: usize = 64;
/// A topic of this protocol.
pub type Topic = heapless::String<TOPIC_BYTES_MAX>;

const DEVICE_ROOT: &str = "dev/1";
const LINK_ROOT: &str = "hf/1";
const PRESENCE: &str = "presence";
/// What a connected device says under [`presence`].
pub const PRESENT: &[u8] = b"1";

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every word.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The last level of the topic.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// What a device says.
    Up {
        /// [`crate::message::Hello`]
        Hello = "hello",
        /// [`crate::message::Authorize`]
        Authorize = "authorize",
        /// [`crate::message::Started`]
        Started = "started",
        /// [`crate::message::Meter`]
        Meter = "meter",
        /// [`crate::message::Stop`]
        Stop = "stop",
        /// [`crate::message::Status`]
        Status = "status",
        /// [`crate::message::CommandAnswer`]
        CommandAnswer = "answer",
        /// [`crate::message::Redeemed`]
        Redeemed = "redeemed",
        /// [`crate::update::Update`]
        Update = "update",
    }
}

words! {
    /// What a device hears.
    Down {
        /// [`crate::message::Clock`]
        Clock = "clock",
        /// [`crate::message::Grant`]
        Grant = "grant",
        /// [`crate::message::Refusal`]
        Refusal = "refusal",
        /// [`crate::message::Receipt`]
        Receipt = "receipt",
        /// [`crate::message::Command`]
        Command = "command",
        /// [`crate::update::Offer`]
        Offer = "offer",
        /// [`crate::update::Piece`]
        Piece = "piece",
    }
}

words! {
    /// What a gateway says to its hub.
    LinkUp {
        /// `link::LinkHello`
        Hello = "hello",
        /// `link::Ask`
        Ask = "ask",
        /// `link::Upload`
        Records = "records",
        /// `link::Echo`
        Echo = "echo",
        /// `link::Telemetry`, the only message with QoS 0: it is never said again.
        Telemetry = "telemetry",
        /// `link::OrderDone`
        Done = "done",
    }
}

words! {
    /// What a gateway hears from its hub.
    LinkDown {
        /// `link::Welcome`
        Welcome = "welcome",
        /// `link::Answer`
        Answer = "answer",
        /// `link::LedgerReceipt`
        Receipt = "receipt",
        /// `link::Echo`
        Echo = "echo",
        /// `link::ArtifactPart`
        Artifact = "artifact",
        /// `link::CounterSeen`
        Counter = "counter",
        /// `link::Order`
        Order = "order",
        /// `link::Trouble`, the only unauthenticated message: whatever stands between hub and gateway may say it.
        Trouble = "trouble",
    }
}

/// `dev/1/{device}/up/{word}`.
#[must_use]
pub fn up(device: &DeviceId, word: Up) -> Topic {
    build(format_args!("{DEVICE_ROOT}/{device}/up/{}", word.word()))
}

/// `dev/1/{device}/down/{word}`.
#[must_use]
pub fn down(device: &DeviceId, word: Down) -> Topic {
    build(format_args!("{DEVICE_ROOT}/{device}/down/{}", word.word()))
}

/// The filter under which a device hears everything meant for it.
#[must_use]
pub fn down_filter(device: &DeviceId) -> Topic {
    build(format_args!("{DEVICE_ROOT}/{device}/down/+"))
}

/// The prefix of everything a device says, with the closing slash.
#[must_use]
pub fn up_prefix(device: &DeviceId) -> Topic {
    build(format_args!("{DEVICE_ROOT}/{device}/up/"))
}

/// The filter of everything all devices say, for a gateway behind an external broker.
#[must_use]
pub fn up_filter() -> Topic {
    build(format_args!("{DEVICE_ROOT}/+/up/+"))
}

/// Where a device says, retained, that it is connected: [`PRESENT`], and nothing from its end on. Its last will says the
/// latter for it. Not sealed: nobody acts on it, connected devices are counted for people.
#[must_use]
pub fn presence(device: &DeviceId) -> Topic {
    build(format_args!("{DEVICE_ROOT}/{device}/up/{PRESENCE}"))
}

/// Takes the topic of [`presence`] apart; `None` if it is not one.
#[must_use]
pub fn parse_presence(topic: &str) -> Option<DeviceId> {
    let (device, direction, word) = split(topic, DEVICE_ROOT)?;
    (direction == "up" && word == PRESENCE).then_some(())?;
    Name::new(device).ok()
}

/// Takes the topic of a device's message apart; `None` if it is not one.
#[must_use]
pub fn parse_up(topic: &str) -> Option<(DeviceId, Up)> {
    let (device, direction, word) = split(topic, DEVICE_ROOT)?;
    (direction == "up").then_some(())?;
    Some((Name::new(device).ok()?, Up::parse(word)?))
}

/// Takes the topic of a message to a device apart; `None` if it is not one.
#[must_use]
pub fn parse_down(topic: &str) -> Option<(DeviceId, Down)> {
    let (device, direction, word) = split(topic, DEVICE_ROOT)?;
    (direction == "down").then_some(())?;
    Some((Name::new(device).ok()?, Down::parse(word)?))
}

/// Most ways from one gateway to its hub.
pub const LANES_MAX: u8 = 4;

/// One of several ways from a gateway to its hub: a cloud each. Frames of one are none of another, because the seal
/// covers the topic; so each has counters of its own, and what one delays does not make the others look old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u8);

impl Lane {
    /// The first.
    pub const FIRST: Self = Self(0);

    /// The lane of this number; `None` above [`LANES_MAX`] - 1.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < LANES_MAX { Some(Self(number)) } else { None }
    }

    /// Its number: 0 is the first.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let number = text.parse().ok().filter(|number| *number > 0)?;
        Self::new(number).filter(|_| text.len() == 1)
    }
}

/// What stands behind the word; nothing on the first lane.
impl core::fmt::Display for Lane {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, "/{}", self.0) }
    }
}

/// A topic between gateway and hub, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTopic<W> {
    /// The site.
    pub site: Name,
    /// The gateway.
    pub gateway: GatewayId,
    /// What is said.
    pub word: W,
    /// On which way.
    pub lane: Lane,
}

/// `hf/1/{site}/{gateway}/u/{word}`.
#[must_use]
pub fn link_up(site: &Name, gateway: &GatewayId, word: LinkUp, lane: Lane) -> Topic {
    build(format_args!("{LINK_ROOT}/{site}/{gateway}/u/{}{lane}", word.word()))
}

/// `hf/1/{site}/{gateway}/d/{word}`.
#[must_use]
pub fn link_down(site: &Name, gateway: &GatewayId, word: LinkDown, lane: Lane) -> Topic {
    build(format_args!("{LINK_ROOT}/{site}/{gateway}/d/{}{lane}", word.word()))
}

/// The filter under which a gateway hears everything meant for it on one lane.
#[must_use]
pub fn link_down_filter(site: &Name, gateway: &GatewayId, lane: Lane) -> Topic {
    build(format_args!("{LINK_ROOT}/{site}/{gateway}/d/+{lane}"))
}

/// The filter of everything all gateways say, for a hub behind a broker.
#[must_use]
pub fn link_up_filter() -> Topic {
    build(format_args!("{LINK_ROOT}/+/+/u/#"))
}

/// The MQTT client id of a gateway at its hub, one for each lane.
#[must_use]
pub fn link_client(gateway: &GatewayId, lane: Lane) -> Topic {
    build(format_args!("{gateway}{lane}"))
}

/// Takes a client id of [`link_client`] apart; `None` if it is not one.
#[must_use]
pub fn parse_link_client(client: &str) -> Option<(GatewayId, Lane)> {
    let (gateway, lane) = with_lane(client)?;
    Some((Name::new(gateway).ok()?, lane))
}

/// Takes the topic of a gateway's message apart; `None` if it is not one.
#[must_use]
pub fn parse_link_up(topic: &str) -> Option<LinkTopic<LinkUp>> {
    parse_link(topic, "/u/", LinkUp::parse)
}

/// Takes the topic of a message to a gateway apart; `None` if it is not one.
#[must_use]
pub fn parse_link_down(topic: &str) -> Option<LinkTopic<LinkDown>> {
    parse_link(topic, "/d/", LinkDown::parse)
}

fn parse_link<W>(topic: &str, direction: &str, word: impl Fn(&str) -> Option<W>) -> Option<LinkTopic<W>> {
    let (site, rest) = topic.strip_prefix(LINK_ROOT)?.strip_prefix('/')?.split_once('/')?;
    let (gateway, rest) = rest.split_once(direction)?;
    let (last, lane) = with_lane(rest)?;
    Some(LinkTopic {
        site: Name::new(site).ok()?,
        gateway: Name::new(gateway).ok()?,
        word: word(last)?,
        lane,
    })
}

/// What stands before a lane, and the lane.
fn with_lane(text: &str) -> Option<(&str, Lane)> {
    match text.split_once('/') {
        Some((before, lane)) => Some((before, Lane::parse(lane)?)),
        None => Some((text, Lane::FIRST)),
    }
}

fn split<'a>(topic: &'a str, root: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (device, rest) = topic.strip_prefix(root)?.strip_prefix('/')?.split_once('/')?;
    let (direction, word) = rest.split_once('/')?;
    Some((device, direction, word))
}

fn build(text: core::fmt::Arguments<'_>) -> Topic {
    let mut topic = Topic::new();
    topic
        .write_fmt(text)
        .expect("TOPIC_BYTES_MAX holds two names of 20 bytes, the longest word and a lane");
    topic
}
