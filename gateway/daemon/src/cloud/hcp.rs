//! HCP on the wire: what the gateway says to its hub, sealed, and what it hears. No connection here.

use proto::{
    VERSION,
    codec::{self, CodecError},
    id::{GatewayId, Name},
    link::{
        Answer, ArtifactPart, Ask, CounterSeen, Echo, LINK_FRAME_BYTES_MAX, LedgerReceipt, LinkHello, Telemetry,
        Trouble, Upload, Welcome,
    },
    seal::{Counter, Direction, PairSecret, SealError, SealKey, Window},
    topic::{self, LinkDown, LinkUp, Topic},
};

use crate::engine::Position;

/// What the hub, or what stands before it, said.
#[derive(Debug)]
pub enum Heard {
    /// Answer to our hello.
    Welcome(Welcome),
    /// Answer to a question.
    Answer(Answer),
    /// Records are committed.
    Receipt(LedgerReceipt),
    /// The hub is alive.
    Echo(Echo),
    /// Part of an artifact.
    Part(ArtifactPart),
    /// Our hello was not taken; the next one goes on above this.
    Counter(CounterSeen),
    /// An error, unauthenticated.
    Trouble(Trouble),
}

/// Why a message from the link is dropped.
#[derive(Debug, thiserror::Error)]
pub enum BadLink {
    /// Not a topic for us.
    #[error("not a topic of this gateway's link")]
    Topic,
    /// Not sealed by the hub.
    #[error("{word}: {error}")]
    Seal {
        /// What.
        word: &'static str,
        /// Why.
        error: SealError,
    },
    /// Sealed, but not the message.
    #[error("{word}: {error}")]
    Body {
        /// What.
        word: &'static str,
        /// Why.
        error: CodecError,
    },
}

/// Both ends of the seal.
#[derive(Debug)]
pub struct Hcp {
    site: Name,
    gateway: GatewayId,
    up: SealKey,
    down: SealKey,
    counter: Counter,
    window: Window,
}

impl Hcp {
    /// For one boot of the gateway.
    #[must_use]
    pub fn new(site: Name, gateway: GatewayId, secret: &PairSecret, boot: u32) -> Self {
        Self {
            site,
            gateway,
            up: secret.key(Direction::Up),
            down: secret.key(Direction::Down),
            counter: Counter::of_boot(boot),
            window: Window::default(),
        }
    }

    /// The filter of everything meant for us.
    #[must_use]
    pub fn filter(&self) -> Topic {
        topic::link_down_filter(&self.site, &self.gateway)
    }

    fn seal<T: serde::Serialize>(&mut self, word: LinkUp, message: &T) -> (Topic, Vec<u8>) {
        let topic = topic::link_up(&self.site, &self.gateway, word);
        let frame = self.up.seal_vec(&topic, self.counter.next(), message);
        (topic, frame)
    }

    /// The first message of a connection.
    pub fn hello(&mut self, position: &Position) -> (Topic, Vec<u8>) {
        let (list_revision, revocations_revision, tariffs_revision) = position.revisions;
        let hello = LinkHello {
            version_min: VERSION,
            version_max: VERSION,
            epoch: position.epoch,
            boot: position.boot,
            head: position.head,
            cursor: position.cursor,
            list_revision,
            revocations_revision,
            tariffs_revision,
            down_counter: self.window.last,
            leases_revision: position.leases_revision,
            policy_revision: position.policy_revision,
        };
        self.seal(LinkUp::Hello, &hello)
    }

    /// A question.
    pub fn ask(&mut self, ask: &Ask) -> (Topic, Vec<u8>) {
        self.seal(LinkUp::Ask, ask)
    }

    /// A question to the backend itself: is it there?
    pub fn echo(&mut self, echo: &Echo) -> (Topic, Vec<u8>) {
        self.seal(LinkUp::Echo, echo)
    }

    /// Records.
    pub fn upload(&mut self, upload: &Upload) -> (Topic, Vec<u8>) {
        self.seal(LinkUp::Records, upload)
    }

    /// How the gateway is.
    pub fn telemetry(&mut self, telemetry: &Telemetry) -> (Topic, Vec<u8>) {
        self.seal(LinkUp::Telemetry, telemetry)
    }

    /// Goes on above a counter that the hub remembers and we do not.
    pub const fn raise_above(&mut self, last: u64) {
        self.counter.raise_above(last);
    }

    /// Takes a message apart.
    ///
    /// # Errors
    /// [`BadLink`]: drop it.
    pub fn open(&mut self, topic: &str, frame: &[u8]) -> Result<Heard, BadLink> {
        let (site, gateway, word) = topic::parse_link_down(topic).ok_or(BadLink::Topic)?;
        if (site, gateway) != (self.site, self.gateway) {
            return Err(BadLink::Topic);
        }
        let body = |error| BadLink::Body {
            word: word.word(),
            error,
        };
        if word == LinkDown::Trouble {
            return codec::decode(frame).map(Heard::Trouble).map_err(body);
        }
        let seal = |error| BadLink::Seal {
            word: word.word(),
            error,
        };
        let opened = self.down.open(topic, frame, LINK_FRAME_BYTES_MAX).map_err(seal)?;
        self.window.check(opened.counter).map_err(seal)?;
        self.window.last = opened.counter;
        match word {
            LinkDown::Welcome => codec::decode(opened.body).map(Heard::Welcome),
            LinkDown::Answer => codec::decode(opened.body).map(Heard::Answer),
            LinkDown::Receipt => codec::decode(opened.body).map(Heard::Receipt),
            LinkDown::Echo => codec::decode(opened.body).map(Heard::Echo),
            LinkDown::Artifact => codec::decode(opened.body).map(Heard::Part),
            LinkDown::Counter => codec::decode(opened.body).map(Heard::Counter),
            LinkDown::Trouble => unreachable!("handled above: trouble is not sealed"),
        }
        .map_err(body)
    }
}
