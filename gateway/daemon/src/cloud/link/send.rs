//! How frames leave, and what it means if they do not.

use carrier::{Class, Qos, Symptom, WhyUnsent};

use super::{CODE_THROTTLED, Life, Link, Talk};
use crate::cloud::adapter::{Adapter, Heard, Meaning, Up};

/// Code of a question that does not leave, because nothing leaves.
const CODE_UNSENT: u16 = 503;

/// What depends on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// It is asked again, or nobody waits for it any more.
    Passing,
    /// The books, or the conversation with the cloud.
    Needed,
}

impl Weight {
    const fn of(meaning: &Meaning<'_>) -> Self {
        match meaning {
            Meaning::Records(_) | Meaning::Done(_) => Self::Needed,
            Meaning::Hello(_) | Meaning::Ask(_) | Meaning::Echo(_) | Meaning::Telemetry(_) => Self::Passing,
        }
    }
}

/// Whether a message left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is on its way.
    Yes,
    /// It is not; as a code of trouble.
    No(u16),
}

impl Link {
    /// A frame of ours leaves.
    pub(super) fn up(
        &self,
        adapter: &mut dyn Adapter,
        life: &Life,
        talk: &mut Talk,
        topic: &str,
        frame: &[u8],
        meaning: Meaning<'_>,
    ) -> Sent {
        let up = Up { topic, frame, meaning };
        adapter.send(life.at(), up, &mut talk.out);
        self.flush(talk, Weight::of(&meaning))
    }

    /// What the adapter wants to say leaves. More than the connection takes is a loss of what is passing: a sound cloud that
    /// has too much to do is not connected to again for that. What is needed is said again on the next connection.
    pub(super) fn flush(&self, talk: &mut Talk, weight: Weight) -> Sent {
        let mut sent = Sent::Yes;
        while let Some(publish) = talk.out.publishes.pop_front() {
            let is_lossy = publish.qos == Qos::AtMostOnce;
            let Err(unsent) = talk.sender.send(publish) else {
                continue;
            };
            match unsent.why {
                // It would not fit the next connection either.
                WhyUnsent::TooLarge { .. } | WhyUnsent::Topic => {
                    let symptom = Symptom::new(Class::Protocol, 0, unsent.to_string());
                    talk.out.say(Heard::Symptom(symptom));
                }
                WhyUnsent::Full if is_lossy || weight == Weight::Passing => sent = Sent::No(CODE_THROTTLED),
                WhyUnsent::Gone if is_lossy => sent = Sent::No(CODE_UNSENT),
                WhyUnsent::Full | WhyUnsent::Gone => {
                    talk.broken = Some(Symptom::new(Class::Partition, 0, unsent.to_string()));
                    return Sent::No(CODE_UNSENT);
                }
            }
        }
        sent
    }
}
