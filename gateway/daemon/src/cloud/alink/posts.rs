//! What goes up: frames as events of the gateway, and beside records the orders as people in the cloud's console read
//! them. The cloud's reply to a post says that it took it, not that the backend has it; only a refusal means something.

use std::collections::BTreeMap;

use carrier::{Class, Qos};
use proto::link::{LedgerRecord, Upload};
use serde::Serialize;

use super::{
    codes,
    envelope::{Envelope, Identity, Request, bytes},
    topology::{Topology, Turn},
};
use crate::cloud::{
    adapter::{Heard, Meaning, Up},
    told,
    wrap::Wrapped,
};

/// Longest text that an event or service may have, in characters: the cloud's limit.
const TEXT_CHARS_MAX: usize = 10_240;
/// Longest frame that fits such a text in base64, in bytes.
pub const FRAME_BYTES_MAX: usize = TEXT_CHARS_MAX / 4 * 3;
/// Most events and most identities in one message of history.
const EVENTS_MAX: usize = 20;
/// Replies waited for; beyond it the oldest is given up.
const WAITING_MAX: usize = 256;
/// A reply that has not come after so long does not come.
const REPLY_MS: u64 = 10_000;
/// So many missing replies in a row are silence.
const SILENT_MIN: u32 = 3;

/// Which topic it went to: replies are told apart by topic and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// One event, now.
    Event,
    /// History: records that have waited.
    History,
}

/// What a post was about.
#[derive(Clone, Copy, Debug)]
enum About {
    /// A frame, and which question it carries; 0: none.
    Frame { ask: u64 },
    /// Orders of sub-devices, for people.
    Orders,
}

#[derive(Debug)]
struct Waiting {
    way: Way,
    about: About,
    deadline_ms: u64,
}

/// Posts without a reply.
#[derive(Debug, Default)]
pub(super) struct Posts {
    waiting: BTreeMap<u32, Waiting>,
    silent: u32,
}

/// An event of the past.
#[derive(Serialize)]
struct History<'a, E> {
    identity: &'a Identity,
    properties: [(); 0],
    events: Vec<E>,
}

#[derive(Serialize)]
struct FrameEvent {
    hf_up: At<Wrapped>,
}

#[derive(Serialize)]
struct OrderEvent {
    hf_order: At<OrderValue>,
}

/// A value and when it was so, in ms since 1970 UTC.
#[derive(Serialize)]
struct At<T> {
    value: T,
    time: u64,
}

/// A record about a session, readable. `(epoch, seq)` tells repetitions apart: this cloud does not.
#[derive(Serialize)]
struct OrderValue {
    epoch: u32,
    seq: u64,
    session: String,
    kind: &'static str,
    fen: i64,
    units: u64,
    offline: u8,
}

impl Posts {
    /// The connection before is over.
    pub(super) fn lost(&mut self) {
        self.waiting.clear();
        self.silent = 0;
    }

    /// A frame goes up. `wall_ms`: what the time is, by whatever clock there is.
    pub(super) fn send(&mut self, turn: &mut Turn<'_>, up: &Up<'_>, value: Wrapped, wall_ms: u64, topology: &Topology) {
        let (ask, qos) = match up.meaning {
            // Nobody waits for it long, and of messages that need no acknowledgement the cloud takes three times as many.
            Meaning::Ask(ask) => (ask.ask, Qos::AtMostOnce),
            Meaning::Telemetry(_) => (0, Qos::AtMostOnce),
            Meaning::Hello(_) | Meaning::Records(_) | Meaning::Echo(_) | Meaning::Done(_) => (0, Qos::AtLeastOnce),
        };
        let frame = At { value, time: wall_ms };
        if matches!(up.meaning, Meaning::Records(upload) if upload.records.len() > 1) {
            let identity = own(turn);
            self.history(
                turn,
                &[(&identity, vec![FrameEvent { hf_up: frame }])],
                About::Frame { ask },
            );
        } else {
            let id = turn.ids.next();
            let is_answered = !matches!(up.meaning, Meaning::Telemetry(_));
            let request = Request::new(id, "thing.event.hf_up.post", frame, is_answered);
            let topic = turn.names.sys("thing/event/hf_up/post");
            turn.out.publish(topic, bytes(&request), qos);
            if is_answered {
                self.wait_for(turn.now_ms, id, Way::Event, About::Frame { ask });
            }
        }
        if let Meaning::Records(upload) = up.meaning {
            self.tell(turn, upload, wall_ms, topology);
        }
    }

    /// Orders for people, in messages of their own: a sub-device that the cloud does not know must not cost a frame.
    fn tell(&mut self, turn: &mut Turn<'_>, upload: &Upload, wall_ms: u64, topology: &Topology) {
        let records = told::sessions(upload).filter_map(|record| Some((topology.online(&record.device)?, record)));
        let records: Vec<(&Identity, LedgerRecord)> = records.collect();
        for some in records.chunks(EVENTS_MAX) {
            let mut by_identity: BTreeMap<&Identity, Vec<OrderEvent>> = BTreeMap::new();
            for (identity, record) in some {
                let event = order(upload.epoch, record, wall_ms);
                by_identity.entry(identity).or_default().extend(event);
            }
            let histories: Vec<_> = by_identity.into_iter().collect();
            self.history(turn, &histories, About::Orders);
        }
    }

    fn history<E: Serialize>(&mut self, turn: &mut Turn<'_>, of: &[(&Identity, Vec<E>)], about: About) {
        let id = turn.ids.next();
        let params: Vec<_> = of
            .iter()
            .map(|(identity, events)| History {
                identity,
                properties: [],
                events: events.iter().collect(),
            })
            .collect();
        let request = Request::new(id, "thing.event.property.history.post", params, true);
        let topic = turn.names.sys("thing/event/property/history/post");
        turn.out.publish(topic, bytes(&request), Qos::AtLeastOnce);
        self.wait_for(turn.now_ms, id, Way::History, about);
    }

    fn wait_for(&mut self, now_ms: u64, id: u32, way: Way, about: About) {
        if self.waiting.len() >= WAITING_MAX
            && let Some(oldest) = self.oldest()
        {
            self.waiting.remove(&oldest);
        }
        let deadline_ms = now_ms + REPLY_MS;
        self.waiting.insert(
            id,
            Waiting {
                way,
                about,
                deadline_ms,
            },
        );
    }

    fn oldest(&self) -> Option<u32> {
        let (id, _) = self.waiting.iter().min_by_key(|(_, waiting)| waiting.deadline_ms)?;
        Some(*id)
    }

    /// A reply to a post. One that fits none is a late or a doubled one, unless it names none at all.
    pub(super) fn replied(&mut self, turn: &mut Turn<'_>, way: Way, envelope: &Envelope) {
        let about = match envelope.own_id() {
            Some(id) if self.waiting.get(&id).is_some_and(|waiting| waiting.way == way) => {
                self.silent = 0;
                self.waiting.remove(&id).map(|waiting| waiting.about)
            }
            Some(_) => return,
            None => None,
        };
        let code = envelope.code().unwrap_or(codes::CODE_PARAMETER);
        let symptom = match about {
            Some(About::Orders) => codes::claim(code, envelope.words(), "orders of sub-devices"),
            Some(About::Frame { .. }) | None => codes::symptom(code, envelope.words(), ""),
        };
        if let Some(mut symptom) = symptom {
            if let Some(About::Frame { ask }) = about {
                symptom.ask = ask;
            }
            turn.out.say(Heard::Symptom(symptom));
        }
    }

    /// When the next reply is overdue.
    pub(super) fn tick_at(&self) -> Option<u64> {
        self.waiting.values().map(|waiting| waiting.deadline_ms).min()
    }

    /// Gives up what is overdue.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        let before = self.waiting.len();
        self.waiting.retain(|_, waiting| waiting.deadline_ms > turn.now_ms);
        let late = u32::try_from(before - self.waiting.len()).unwrap_or(u32::MAX);
        let was_silent = self.silent >= SILENT_MIN;
        self.silent = self.silent.saturating_add(late);
        if self.silent >= SILENT_MIN && !was_silent {
            turn.say(
                Class::Partition,
                0,
                format!("no reply to {} posts in a row", self.silent),
            );
        }
    }
}

fn own(turn: &Turn<'_>) -> Identity {
    Identity {
        product_key: turn.names.product_key.clone(),
        device_name: turn.names.device_name.clone(),
    }
}

fn order(epoch: u32, record: &LedgerRecord, wall_ms: u64) -> Option<OrderEvent> {
    let value = OrderValue {
        epoch,
        seq: record.sequence,
        session: record.session.to_string(),
        kind: told::event(record.kind)?,
        fen: record.amount.0,
        units: record.register_end.since(record.register_start).0,
        offline: u8::from(!record.online),
    };
    let time = match record.at.wall_s {
        0 => wall_ms,
        wall_s => wall_s.saturating_mul(1000),
    };
    let hf_order = At { value, time };
    Some(OrderEvent { hf_order })
}
