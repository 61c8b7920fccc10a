//! What a cloud's words and failures are worth, whatever they claim. The same text comes from a key that is really bad and
//! from a cloud that has lost its whitelist (2023-11-12), so nothing here takes trust away: a symptom sets the pace, moves
//! the breaker of its cloud, and is told to people.

mod codes;
mod http;
mod transport;

use std::time::Duration;

pub use self::{
    codes::{connack_v3, reason},
    http::{HttpAnswer, http},
    transport::{io, tls},
};

/// What a symptom means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// No way there: name, route, connection, reset, silence.
    Partition,
    /// Somebody else answers in its place: a foreign certificate, a page of HTML.
    Intercepted,
    /// Our clock or a certificate's dates.
    Clock,
    /// It denies who we are, or a key of ours.
    Denied,
    /// It says that one device or token is disabled, deleted or unknown, and signs nothing.
    Claimed,
    /// "Slow down".
    Throttled,
    /// It reports an error of its own.
    Broken,
    /// It takes messages that nobody reads.
    HalfDead,
    /// Somebody else uses our identity.
    Duplicate,
    /// It does not understand us: our fault.
    Protocol,
    /// It wants to be paid.
    Billing,
    /// It has lost our session: log in again.
    SessionLost,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 12] = [
        Self::Partition,
        Self::Intercepted,
        Self::Clock,
        Self::Denied,
        Self::Claimed,
        Self::Throttled,
        Self::Broken,
        Self::HalfDead,
        Self::Duplicate,
        Self::Protocol,
        Self::Billing,
        Self::SessionLost,
    ];

    /// The word in logs, status and transcripts.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Intercepted => "intercepted",
            Self::Clock => "clock",
            Self::Denied => "denied",
            Self::Claimed => "claimed",
            Self::Throttled => "throttled",
            Self::Broken => "broken",
            Self::HalfDead => "half-dead",
            Self::Duplicate => "duplicate",
            Self::Protocol => "protocol",
            Self::Billing => "billing",
            Self::SessionLost => "session-lost",
        }
    }
}

/// Something that a cloud said or failed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symptom {
    /// What it means.
    pub class: Class,
    /// The cloud's own code, as near to HTTP's as it has one: what the core is told as trouble.
    pub code: u16,
    /// Which question it is about; 0: none in particular.
    pub ask: u64,
    /// In the cloud's own words, at most [`TEXT_BYTES_MAX`].
    pub text: String,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// Longest text of a symptom that is kept, in bytes.
pub const TEXT_BYTES_MAX: usize = 160;

impl std::fmt::Display for Symptom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.class.word(), self.text)
    }
}

impl Symptom {
    /// One about no question in particular.
    #[must_use]
    pub fn new(class: Class, code: u16, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let end = (0..=TEXT_BYTES_MAX.min(text.len()))
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        Self {
            class,
            code,
            ask: 0,
            text: text[..end].to_owned(),
            retry_after: None,
        }
    }
}
