//! Firmware is no matter of sessions: the device opens and seals what is said about it, and tells when it may be replaced.
//! The shell, which has the flash, does the rest.

use heapless::Vec;
use proto::{
    topic::{self, Down, Topic, Up},
    update::{Offer, Piece, Update},
};

use crate::{
    Device,
    io::{Effect, UP_FRAME_BYTES_MAX},
};

/// What the gateway says about firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one exists at a time, and there is no allocator to box it"
)]
pub enum Told {
    /// An image is to be had.
    Offer(Offer),
    /// A piece of one.
    Piece(Piece),
}

impl<const OUTLETS: usize> Device<OUTLETS> {
    /// Whether a topic is about firmware: its message belongs to [`Self::hear_update`], every other to [`Self::handle`].
    #[must_use]
    pub fn is_update(topic: &str) -> bool {
        matches!(topic::parse_down(topic), Some((_, Down::Offer | Down::Piece)))
    }

    /// Opens a message about firmware; `None`: not for this device, not sealed for it or not new, and counted as every
    /// other message.
    #[inline(never)]
    pub fn hear_update(&mut self, topic: &str, frame: &[u8]) -> Option<Told> {
        let (word, body) = self.link.open(&self.config, topic, frame)?;
        match word {
            Down::Offer => self.link.decode(body).map(Told::Offer),
            Down::Piece => self.link.decode(body).map(Told::Piece),
            Down::Clock | Down::Grant | Down::Refusal | Down::Receipt | Down::Command => None,
        }
    }

    /// Seals how the firmware's update stands, stamped with the time of the last input; `None` as long as the gateway has
    /// not answered the hello.
    #[inline(never)]
    pub fn tell_update(&mut self, mut update: Update) -> Option<(Topic, Vec<u8, UP_FRAME_BYTES_MAX>)> {
        if !self.link.is_ready() {
            return None;
        }
        update.at = self.link.stamp(self.now_ms);
        match self.link.seal(&self.config, Up::Update, &update) {
            Effect::Publish { topic, frame } => Some((topic, frame)),
            Effect::Switch { .. } | Effect::Store(_) | Effect::Show { .. } => None,
        }
    }

    /// Whether nobody would be cut off by a restart: no outlet has a session, none is on, no machine runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outlets.iter().all(|outlet| {
            let runs = outlet.sense.is_some_and(|sense| sense.running);
            outlet.session().is_none() && !outlet.output.is_on() && !runs
        })
    }
}
