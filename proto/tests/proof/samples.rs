//! One typical and one extreme value of everything that travels, by name. The vectors are made from these.

use std::fmt::Debug;

use proto::{
    codec::{self, CodecError},
    id::{Name, SessionId},
    message::{ClockQuality, Stamp},
    topic::{Down, Lane, LinkDown, LinkUp, Topic, Up, down, link_down, link_up, up},
};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) mod content;
mod device;
mod link;

/// A value of any type of the contract.
pub(crate) trait Value {
    /// Its encoding.
    fn encoded(&self) -> Vec<u8>;
    /// Panics unless these bytes decode to this value.
    fn assert_decodes(&self, bytes: &[u8], name: &str);
    /// The encoding of what these bytes decode to, as this type.
    fn recoded(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecError>;
    /// The value as a second implementation sees it, with the names of its fields.
    fn named(&self) -> ciborium::Value;
}

impl<T: Serialize + DeserializeOwned + PartialEq + Debug> Value for T {
    fn encoded(&self) -> Vec<u8> {
        codec::to_vec(self)
    }

    fn assert_decodes(&self, bytes: &[u8], name: &str) {
        assert_eq!(codec::decode::<T>(bytes).as_ref(), Ok(self), "{name}");
    }

    fn recoded(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        codec::decode::<T>(bytes).map(|value| codec::to_vec(&value))
    }

    fn named(&self) -> ciborium::Value {
        ciborium::Value::serialized(self).expect("every type of the contract has a named form")
    }
}

/// Where a sample travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// From a device.
    Up(Up),
    /// To a device.
    Down(Down),
    /// To the hub.
    LinkUp(LinkUp),
    /// From the hub.
    LinkDown(LinkDown),
    /// Inside something else.
    Inside,
}

impl Place {
    /// The full topic, of the sample's device or gateway.
    pub(crate) fn topic(self) -> Option<Topic> {
        let (site, gateway) = (name("north-campus"), name("gw-01"));
        match self {
            Self::Up(word) => Some(up(&name(DEVICE), word)),
            Self::Down(word) => Some(down(&name(DEVICE), word)),
            Self::LinkUp(word) => Some(link_up(&site, &gateway, word, Lane::FIRST)),
            Self::LinkDown(word) => Some(link_down(&site, &gateway, word, Lane::FIRST)),
            Self::Inside => None,
        }
    }
}

/// The device of the samples.
pub(crate) const DEVICE: &str = "charger-07";

/// A value with its name and its rule in the CDDL.
pub(crate) struct Sample {
    /// Name of the vector.
    pub(crate) name: &'static str,
    /// Name of the rule.
    pub(crate) rule: &'static str,
    /// Where it travels.
    pub(crate) place: Place,
    /// What it shows.
    pub(crate) comment: &'static str,
    /// The value.
    pub(crate) value: Box<dyn Value>,
}

fn sample(
    place: Place,
    rule: &'static str,
    name: &'static str,
    comment: &'static str,
    value: impl Value + 'static,
) -> Sample {
    let value = Box::new(value);
    Sample {
        name,
        rule,
        place,
        comment,
        value,
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

/// Everything that travels.
pub(crate) fn all() -> Vec<Sample> {
    let groups = [
        device::up,
        device::up_alone,
        device::up_ends,
        device::down,
        device::firmware,
        link::up,
        link::down,
        content::inside,
    ];
    groups.iter().flat_map(|group| group()).collect()
}

fn session(number: u32) -> SessionId {
    SessionId::mint(&name(DEVICE), 3, number)
}

/// The comment of most extreme samples.
const MOST: &str = "every field at its end";
const MOST_SESSION: SessionId = SessionId([0xff; 16]);

/// 2026-03-01 21:30 in China.
const EVENING_S: u64 = 1_772_371_800;

const fn at(mono_ms: u64) -> Stamp {
    Stamp {
        mono_ms,
        wall_s: EVENING_S + mono_ms / 1000,
        quality: ClockQuality::Synchronised,
    }
}

const MOST_STAMP: Stamp = Stamp {
    mono_ms: u64::MAX,
    wall_s: u64::MAX,
    quality: ClockQuality::Relative,
};
