//! What the gateway says to its hub, sealed, and what it hears, whatever clouds are in between. No connection here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::{
    VERSION,
    codec::{self, CodecError},
    id::{GatewayId, Name},
    link::{
        Answer, ArtifactPart, Ask, CounterSeen, Echo, LINK_FRAME_BYTES_MAX, LedgerReceipt, LinkHello, Order, OrderDone,
        Telemetry, Trouble, Upload, Welcome,
    },
    seal::{Counter, Direction, PairSecret, SealError, SealKey, Window},
    topic::{self, Lane, LinkDown, LinkUp, Topic},
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
    /// The operator wants something done.
    Order(Order),
    /// An error, unauthenticated.
    Trouble(Trouble),
}

/// Why a message from the link is dropped.
#[derive(Debug, thiserror::Error)]
pub enum BadLink {
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
pub struct Sealed {
    site: Name,
    gateway: GatewayId,
    lane: Lane,
    up: SealKey,
    down: SealKey,
    counter: Arc<Mutex<Counter>>,
    window: Window,
}

impl Sealed {
    /// Of one lane. `counter`: of this boot, shared by all lanes, so that the hub can tell what was said later.
    #[must_use]
    pub fn new(site: Name, gateway: GatewayId, lane: Lane, secret: &PairSecret, counter: Arc<Mutex<Counter>>) -> Self {
        Self {
            site,
            gateway,
            lane,
            up: secret.key(Direction::Up),
            down: secret.key(Direction::Down),
            counter,
            window: Window::default(),
        }
    }

    fn count(&self) -> MutexGuard<'_, Counter> {
        self.counter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seal<T: serde::Serialize>(&mut self, word: LinkUp, message: &T) -> (Topic, Vec<u8>) {
        let topic = topic::link_up(&self.site, &self.gateway, word, self.lane);
        let counter = self.count().next();
        let frame = self.up.seal_vec(&topic, counter, message);
        (topic, frame)
    }

    /// The first message of a connection.
    pub fn hello(&mut self, position: &Position) -> (LinkHello, Topic, Vec<u8>) {
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
        let (topic, frame) = self.seal(LinkUp::Hello, &hello);
        (hello, topic, frame)
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

    /// What became of an order.
    pub fn done(&mut self, done: &OrderDone) -> (Topic, Vec<u8>) {
        self.seal(LinkUp::Done, done)
    }

    /// Goes on above a counter that the hub remembers and we do not. Returns whether it does.
    pub fn raise_above(&self, last: u64) -> bool {
        let mut counter = self.count();
        let is_new = last > counter.last();
        counter.raise_above(last);
        is_new
    }

    /// Takes a frame apart, whatever it came in.
    ///
    /// # Errors
    /// [`BadLink`]: drop it.
    pub fn open_frame(&mut self, word: LinkDown, frame: &[u8]) -> Result<Heard, BadLink> {
        let topic = topic::link_down(&self.site, &self.gateway, word, self.lane);
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
        let opened = self.down.open(&topic, frame, LINK_FRAME_BYTES_MAX).map_err(seal)?;
        // A cloud may hand out of order what came by several of its ways. What carries a number of its own does no harm when it
        // comes late or twice, and a revocation must not be lost because an echo overtook it.
        let is_numbered = matches!(word, LinkDown::Artifact | LinkDown::Order);
        if let Err(error) = self.window.check(opened.counter)
            && !is_numbered
        {
            return Err(seal(error));
        }
        self.window.last = self.window.last.max(opened.counter);
        match word {
            LinkDown::Welcome => codec::decode(opened.body).map(Heard::Welcome),
            LinkDown::Answer => codec::decode(opened.body).map(Heard::Answer),
            LinkDown::Receipt => codec::decode(opened.body).map(Heard::Receipt),
            LinkDown::Echo => codec::decode(opened.body).map(Heard::Echo),
            LinkDown::Artifact => codec::decode(opened.body).map(Heard::Part),
            LinkDown::Counter => codec::decode(opened.body).map(Heard::Counter),
            LinkDown::Order => codec::decode(opened.body).map(Heard::Order),
            LinkDown::Trouble => unreachable!("handled above: trouble is not sealed"),
        }
        .map_err(body)
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        link::{ArtifactPart, LedgerReceipt},
        trust::ArtifactKind,
    };

    use super::*;

    #[test]
    fn what_carries_its_own_number_may_come_late() {
        let (site, gateway) = (Name::new("campus").unwrap(), GatewayId::new("gw-1").unwrap());
        let secret = PairSecret([7; 32]);
        let counter = Arc::new(Mutex::new(Counter::of_boot(1)));
        let mut sealed = Sealed::new(site, gateway, Lane::FIRST, &secret, counter);
        let down = secret.key(Direction::Down);
        let topic_of = |word| topic::link_down(&site, &gateway, word, Lane::FIRST);
        let one = ArtifactPart {
            kind: ArtifactKind::Revocations,
            revision: 1,
            part: 0,
            parts: 1,
            bytes: Vec::new().into(),
        };
        let part = |counter| {
            let topic = topic_of(LinkDown::Artifact);
            (LinkDown::Artifact, down.seal_vec(&topic, counter, &one))
        };
        let receipt = |counter| {
            let topic = topic_of(LinkDown::Receipt);
            (
                LinkDown::Receipt,
                down.seal_vec(&topic, counter, &LedgerReceipt::default()),
            )
        };
        let story = [
            (receipt(9), true),
            (part(5), true),
            (receipt(9), false),
            (receipt(6), false),
            (receipt(10), true),
        ];
        for (number, ((word, frame), is_taken)) in story.into_iter().enumerate() {
            assert_eq!(sealed.open_frame(word, &frame).is_ok(), is_taken, "frame {number}");
        }
    }
}
