//! The one interface behind which every cloud stands. An adapter turns our words into the shapes of its cloud, and what
//! the cloud says back into frames of the operator's backend or into symptoms. It holds no connection and no clock, so
//! that transcripts of the real clouds can be played to it.
//!
//! What a cloud cannot express - receipts, answers, signed artifacts, commands - travels as the backend's sealed frame
//! inside the cloud's own messages (see [`crate::cloud::sealed`]). So no cloud can answer, acknowledge or order in the
//! backend's name, whatever it says.

use std::{collections::VecDeque, fmt::Debug, time::Duration};

use bytes::Bytes;
pub use carrier::{Publish, Qos, Symptom};
use proto::{
    link::{Ask, Echo, LINK_FRAME_BYTES_MAX, LinkHello, OrderDone, Telemetry, Upload},
    topic::{LinkDown, LinkUp},
};

/// What to log in with, made anew for every connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// MQTT client id.
    pub client_id: String,
    /// User name and password; none: the client certificate says who we are.
    pub user: Option<(String, String)>,
    /// What is subscribed before [`Adapter::connected`].
    pub filters: Vec<(String, Qos)>,
}

/// Our clocks, as an adapter needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Since the process began, in ms.
    pub mono_ms: u64,
    /// Since 1970 UTC, in ms; `None`: the clock is not to be trusted.
    pub wall_ms: Option<u64>,
}

/// What a frame of ours says: for clouds that want to show it to people in their own console.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each variant is named after its message")]
pub enum Meaning<'a> {
    Hello(&'a LinkHello),
    Ask(&'a Ask),
    Records(&'a Upload),
    Echo(&'a Echo),
    Telemetry(&'a Telemetry),
    Done(&'a OrderDone),
}

impl Meaning<'_> {
    /// The word under which it is sealed.
    #[must_use]
    pub const fn word(&self) -> LinkUp {
        match self {
            Self::Hello(_) => LinkUp::Hello,
            Self::Ask(_) => LinkUp::Ask,
            Self::Records(_) => LinkUp::Records,
            Self::Echo(_) => LinkUp::Echo,
            Self::Telemetry(_) => LinkUp::Telemetry,
            Self::Done(_) => LinkUp::Done,
        }
    }

    /// For how long it is worth delivering; `None`: for ever.
    #[must_use]
    pub const fn worth(&self) -> Option<Duration> {
        match self {
            Self::Ask(_) => Some(ASK_WORTH),
            Self::Hello(_) | Self::Echo(_) => Some(PROBE_WORTH),
            Self::Records(_) | Self::Telemetry(_) | Self::Done(_) => None,
        }
    }
}

/// Nobody waits longer for an answer.
const ASK_WORTH: Duration = Duration::from_secs(2);
/// A hello or an echo that is older says nothing about now.
const PROBE_WORTH: Duration = Duration::from_secs(10);

/// One sealed frame of ours.
#[derive(Clone, Copy, Debug)]
pub struct Up<'a> {
    /// The canonical topic, which the seal covers.
    pub topic: &'a str,
    /// The sealed frame.
    pub frame: &'a [u8],
    /// What it says.
    pub meaning: Meaning<'a>,
}

/// What an adapter heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The cloud lets us speak: from now on frames may go up.
    Ready,
    /// A frame of the backend's, sealed (but for [`LinkDown::Trouble`], which it never is on a cloud's own shapes).
    Frame {
        /// What.
        word: LinkDown,
        /// The frame.
        frame: Bytes,
    },
    /// The cloud said something about itself, or about us.
    Symptom(Symptom),
    /// The cloud points at something newer than what we have: say hello again.
    Newer,
    /// What the cloud's clock shows, in ms since 1970 UTC. One source among others.
    Clock(u64),
}

/// Where an adapter puts what it wants.
#[derive(Debug, Default)]
pub struct Out {
    /// To be sent, in order.
    pub publishes: VecDeque<Publish>,
    /// For the link, in order.
    pub heard: VecDeque<Heard>,
}

impl Out {
    /// Something for the cloud.
    pub fn publish(&mut self, topic: impl Into<String>, payload: impl Into<Vec<u8>>, qos: Qos) {
        self.publishes.push_back(Publish {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            expires: None,
        });
    }

    /// Something for the link.
    pub fn say(&mut self, heard: Heard) {
        self.heard.push_back(heard);
    }
}

/// A cloud.
pub trait Adapter: Send + Debug {
    /// What to log in with. Called before each attempt; whatever was remembered of the connection before is forgotten.
    fn login(&mut self, at: At) -> Login;

    /// The connection stands, and everything in [`Login::filters`] is subscribed.
    fn connected(&mut self, at: At, out: &mut Out);

    /// A frame of ours goes up.
    fn send(&mut self, at: At, up: Up<'_>, out: &mut Out);

    /// The cloud said something. Whatever cannot be read becomes a [`Heard::Symptom`].
    fn heard(&mut self, at: At, topic: &str, payload: &[u8], out: &mut Out);

    /// When [`Adapter::tick`] is due, in ms of [`At::mono_ms`]; `None`: never.
    fn tick_at(&self) -> Option<u64> {
        None
    }

    /// Time passed.
    fn tick(&mut self, _at: At, _out: &mut Out) {}

    /// Longest frame that is sure to fit this cloud's messages, in bytes: uploads are made no larger.
    fn frame_bytes_max(&self) -> usize {
        LINK_FRAME_BYTES_MAX
    }
}
