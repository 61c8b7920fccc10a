//! The only place that knows topic strings.
//!
//! Device side: `dev/1/{device}/up/{word}` and `dev/1/{device}/down/{word}`.
//! Link side: `hf/1/{site}/{gateway}/u/{word}` and `hf/1/{site}/{gateway}/d/{word}`.

use core::fmt::Write;

use crate::id::{DeviceId, GatewayId, Name};

/// Longest topic this protocol builds, in bytes.
pub const TOPIC_BYTES_MAX: usize = 64;
/// A topic of this protocol.
pub type Topic = heapless::String<TOPIC_BYTES_MAX>;

const DEVICE_ROOT: &str = "dev/1";
const LINK_ROOT: &str = "hf/1";

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

/// `hf/1/{site}/{gateway}/u/{word}`.
#[must_use]
pub fn link_up(site: &Name, gateway: &GatewayId, word: LinkUp) -> Topic {
    build(format_args!("{LINK_ROOT}/{site}/{gateway}/u/{}", word.word()))
}

/// `hf/1/{site}/{gateway}/d/{word}`.
#[must_use]
pub fn link_down(site: &Name, gateway: &GatewayId, word: LinkDown) -> Topic {
    build(format_args!("{LINK_ROOT}/{site}/{gateway}/d/{}", word.word()))
}

/// The filter under which a gateway hears everything meant for it.
#[must_use]
pub fn link_down_filter(site: &Name, gateway: &GatewayId) -> Topic {
    build(format_args!("{LINK_ROOT}/{site}/{gateway}/d/+"))
}

/// The filter of everything all gateways say, for a hub behind a broker.
#[must_use]
pub fn link_up_filter() -> Topic {
    build(format_args!("{LINK_ROOT}/+/+/u/+"))
}

/// Takes the topic of a gateway's message apart: site, gateway, word; `None` if it is not one.
#[must_use]
pub fn parse_link_up(topic: &str) -> Option<(Name, GatewayId, LinkUp)> {
    let (site, rest) = topic.strip_prefix(LINK_ROOT)?.strip_prefix('/')?.split_once('/')?;
    let (gateway, word) = rest.split_once("/u/")?;
    Some((Name::new(site).ok()?, Name::new(gateway).ok()?, LinkUp::parse(word)?))
}

/// Takes the topic of a message to a gateway apart: site, gateway, word; `None` if it is not one.
#[must_use]
pub fn parse_link_down(topic: &str) -> Option<(Name, GatewayId, LinkDown)> {
    let (site, rest) = topic.strip_prefix(LINK_ROOT)?.strip_prefix('/')?.split_once('/')?;
    let (gateway, word) = rest.split_once("/d/")?;
    Some((Name::new(site).ok()?, Name::new(gateway).ok()?, LinkDown::parse(word)?))
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
        .expect("TOPIC_BYTES_MAX holds two names of 20 bytes and the longest word");
    topic
}
