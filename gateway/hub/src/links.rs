//! Each gateway's side of the wire: its keys, what it may have said before, whether it is there, on each of its lanes.
//!
//! The window of counters lives in memory. It begins at the counter of the last hello that the store holds, so that no
//! hello can be played again after a restart of the hub. A gateway counts over all its lanes, and one of them may be slow:
//! a frame has to be newer than the others of its lane. A hello that would fence its sender has to be newer than all. One
//! that is too old changes nothing, and is answered with the counter above which to go on: its sender may be a gateway
//! that was put back from a backup. Other frames of before may
//! be played again, and do nothing: an upload is idempotent, questions and echoes change nothing. Telemetry is taken on a
//! greeted connection only, and has a window of its own that begins with the hello: with QoS 0 it may overtake an upload,
//! which must not look old for that.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proto::{
    codec::{self, CodecError},
    id::{GatewayId, Name},
    link::{Ask, Echo, LINK_FRAME_BYTES_MAX, LinkHello, OrderDone, Telemetry, Upload},
    seal::{Counter, Direction, SealError, SealKey, Window},
    topic::{self, LANES_MAX, Lane, LinkDown, LinkTopic, LinkUp, Topic},
};
use serde::Serialize;

use crate::{
    config::GatewayConfig,
    core::{GatewayRow, Input},
    reports::Heard,
};

/// Highest counter of ours that a gateway is believed to have seen. A boot number of 2^30 is beyond any hub's life;
/// counters from there on would leave no room.
const DOWN_COUNTER_MAX: u64 = 1 << 62;

/// A gateway behind a broker that was not heard for so long is not connected. It says hello every five minutes at the least.
const BROKER_SILENCE: Duration = Duration::from_secs(15 * 60);

/// How far above a doubtful hello its repetition must be: further than anything that a cloud may still hold back.
const DOUBT: u64 = 1 << 20;

/// Why a frame is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another gateway's prefix, or no topic of this protocol.
    #[error("the topic is not one of this gateway")]
    Topic,
    /// No such gateway here.
    #[error("gateway {0} is not configured")]
    Unknown(GatewayId),
    /// The seal does not fit.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The body is not the message that the topic names.
    #[error(transparent)]
    Body(#[from] CodecError),
    /// A hello that was heard before, or of a gateway that counts from where an old backup stood.
    #[error("a hello with counter {found}, the last accepted is {last}")]
    Behind {
        /// Its counter.
        found: u64,
        /// The counter that it has to be above.
        last: u64,
    },
    /// A value that no gateway can honestly have.
    #[error("the gateway claims to have seen counter {0} of this hub")]
    DownCounter(u64),
    /// Telemetry of a gateway that was not greeted on this connection.
    #[error("a report without a hello")]
    NotGreeted,
}

/// What a good frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Something for the core.
    Input(Input),
    /// How the gateway is.
    Telemetry(Telemetry),
    /// What became of an order.
    Done(OrderDone),
}

/// What was counted of one gateway since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Frames taken.
    pub frames: u64,
    /// Frames dropped.
    pub frames_bad: u64,
    /// Records that came again after they were committed.
    pub duplicates: u64,
    /// Questions answered.
    pub answers: u64,
}

/// By which way frames of a lane reach their gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// It is connected to this hub.
    #[default]
    Endpoint,
    /// It is somewhere behind the broker of this number.
    Broker(usize),
}

/// One way from a gateway to this hub.
#[derive(Clone, Debug, Default)]
pub struct Side {
    window: Window,
    /// Of telemetry.
    reports: Window,
    /// By which way it was heard last.
    pub route: Route,
    /// Whether a connection is open.
    pub connected: bool,
    /// Whether it said hello on this connection and got a version in common.
    pub greeted: bool,
    /// Whether a bad frame was logged on this connection already.
    pub complained: bool,
    /// When it was last asked to say hello.
    pub asked: Option<Instant>,
}

/// One gateway's link.
#[derive(Debug)]
pub struct Link {
    site: Name,
    up: SealKey,
    down: SealKey,
    epoch: u32,
    counter: Counter,
    /// A hello that knows fewer records than are committed here may be one that a cloud held back. Its sender is asked to
    /// say it again above this counter; 0: nobody is asked.
    doubted: u64,
    sides: [Side; LANES_MAX as usize],
    /// What was counted.
    pub counts: LinkCounts,
    /// What was heard of it.
    pub heard: Heard,
}

impl Link {
    fn new(config: &GatewayConfig, row: &GatewayRow, boot: u32) -> Self {
        Self {
            site: config.site,
            up: config.secret.key(Direction::Up),
            down: config.secret.key(Direction::Down),
            epoch: row.counter_epoch,
            counter: Counter::of_boot(boot),
            doubted: 0,
            sides: std::array::from_fn(|_| Side {
                window: Window { last: row.counter },
                reports: Window { last: row.counter },
                ..Side::default()
            }),
            counts: LinkCounts::default(),
            heard: Heard::default(),
        }
    }

    /// One of its lanes.
    #[must_use]
    pub const fn side(&self, lane: Lane) -> &Side {
        &self.sides[lane.number() as usize]
    }

    /// One of its lanes.
    pub const fn side_mut(&mut self, lane: Lane) -> &mut Side {
        &mut self.sides[lane.number() as usize]
    }

    /// The lanes on which it said hello, and got a version in common.
    pub fn greeted(&self) -> impl Iterator<Item = Lane> {
        let lanes = (0..LANES_MAX).filter_map(Lane::new);
        lanes.filter(|lane| self.side(*lane).connected && self.side(*lane).greeted)
    }

    /// Whether it is connected, and said hello.
    #[must_use]
    pub fn is_greeted(&self, now: Instant) -> bool {
        self.is_connected(now) && self.greeted().next().is_some()
    }

    /// Whether it is connected by any way. Behind a broker nobody says that it went: it is there while it is heard.
    #[must_use]
    pub fn is_connected(&self, now: Instant) -> bool {
        let is_heard = self.heard.is_within(BROKER_SILENCE, now);
        let is_there = |side: &Side| side.connected && (side.route == Route::Endpoint || is_heard);
        self.sides.iter().any(is_there)
    }

    /// A connection of a lane opened or ended.
    pub fn connection(&mut self, lane: Lane, connected: bool) {
        self.side_mut(lane).reset(connected);
    }

    /// Everything behind a broker is out of reach.
    pub fn broker_lost(&mut self, broker: usize) {
        for side in &mut self.sides {
            if side.route == Route::Broker(broker) {
                side.reset(false);
            }
        }
    }

    /// Seals a message to this gateway.
    pub fn seal<T: Serialize>(
        &mut self,
        gateway: &GatewayId,
        lane: Lane,
        word: LinkDown,
        message: &T,
    ) -> (Topic, Vec<u8>) {
        let topic = topic::link_down(&self.site, gateway, word, lane);
        let frame = self.down.seal_vec(&topic, self.counter.next(), message);
        (topic, frame)
    }

    fn open(
        &mut self,
        at: &LinkTopic<LinkUp>,
        known: (u32, u64),
        topic: &str,
        frame: &[u8],
    ) -> Result<Taken, FrameError> {
        let LinkTopic {
            gateway, word, lane, ..
        } = *at;
        if at.site != self.site {
            return Err(FrameError::Topic);
        }
        let opened = self.up.open(topic, frame, LINK_FRAME_BYTES_MAX)?;
        let counter = opened.counter;
        let input = match word {
            LinkUp::Hello => {
                let hello: LinkHello = codec::decode(opened.body)?;
                // A restored gateway counts from where its backup stood, but its epoch has grown.
                if hello.epoch > self.epoch {
                    for side in &mut self.sides {
                        (side.window, side.reports) = (Window::default(), Window::default());
                    }
                }
                let would_fence = hello.epoch == known.0 && hello.head < known.1;
                // What another lane brought since was said later: on a slow one an old hello is no sign of an old gateway.
                let last = match would_fence {
                    true => self.sides.iter().map(|side| side.window.last).max().unwrap_or(0),
                    false => self.side(lane).last(),
                };
                let last = last.max(self.doubted);
                if counter <= last {
                    return Err(FrameError::Behind { found: counter, last });
                }
                if would_fence && self.doubted == 0 {
                    self.doubted = counter.saturating_add(DOUBT);
                    let last = self.doubted;
                    return Err(FrameError::Behind { found: counter, last });
                }
                self.doubted = 0;
                if hello.down_counter > DOWN_COUNTER_MAX {
                    return Err(FrameError::DownCounter(hello.down_counter));
                }
                self.counter.raise_above(hello.down_counter);
                self.epoch = self.epoch.max(hello.epoch);
                let reports = &mut self.side_mut(lane).reports;
                reports.last = reports.last.max(counter);
                Input::Hello {
                    gateway,
                    counter,
                    hello,
                }
            }
            LinkUp::Ask => {
                let ask: Ask = codec::decode(opened.body)?;
                Input::Ask { gateway, ask }
            }
            LinkUp::Records => {
                let upload: Upload = codec::decode(opened.body)?;
                Input::Upload { gateway, upload }
            }
            LinkUp::Echo => {
                let echo: Echo = codec::decode(opened.body)?;
                Input::Echo { gateway, echo }
            }
            LinkUp::Done => {
                let done: OrderDone = codec::decode(opened.body)?;
                self.side_mut(lane).accept(counter)?;
                return Ok(Taken::Done(done));
            }
            LinkUp::Telemetry => {
                let telemetry: Telemetry = codec::decode(opened.body)?;
                let side = self.side_mut(lane);
                if !side.greeted {
                    return Err(FrameError::NotGreeted);
                }
                side.reports.check(counter)?;
                side.reports.last = counter;
                return Ok(Taken::Telemetry(telemetry));
            }
        };
        self.side_mut(lane).accept(counter)?;
        Ok(Taken::Input(input))
    }
}

impl Side {
    /// Another connection, or none.
    const fn reset(&mut self, connected: bool) {
        (self.connected, self.greeted, self.complained, self.asked) = (connected, false, false, None);
    }

    /// The highest counter that was accepted.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.window.last
    }

    fn accept(&mut self, counter: u64) -> Result<(), SealError> {
        self.window.check(counter)?;
        self.window.last = counter;
        Ok(())
    }
}

/// Every gateway of the configuration.
#[derive(Debug, Default)]
pub struct Links(pub BTreeMap<GatewayId, Link>);

impl Links {
    /// Links of the configured gateways, with what the store remembers of them.
    #[must_use]
    pub fn new(
        configured: &BTreeMap<GatewayId, GatewayConfig>,
        known: &BTreeMap<GatewayId, GatewayRow>,
        boot: u32,
    ) -> Self {
        let unknown = GatewayRow::default();
        Self(
            configured
                .iter()
                .map(|(id, config)| (*id, Link::new(config, known.get(id).unwrap_or(&unknown), boot)))
                .collect(),
        )
    }

    /// What a frame says, if it is of this gateway and lane, sealed, new and well-formed. `known`: the epoch of its
    /// records, and how many of them are committed.
    ///
    /// # Errors
    /// [`FrameError`]; it is counted.
    pub fn open(
        &mut self,
        client: (GatewayId, Lane),
        known: (u32, u64),
        topic: &str,
        frame: &[u8],
    ) -> Result<Taken, FrameError> {
        let link = self.0.get_mut(&client.0).ok_or(FrameError::Unknown(client.0))?;
        let opened = match topic::parse_link_up(topic) {
            Some(at) if (at.gateway, at.lane) == client => link.open(&at, known, topic, frame),
            Some(_) | None => Err(FrameError::Topic),
        };
        match &opened {
            Ok(_) => link.counts.frames += 1,
            Err(_) => link.counts.frames_bad += 1,
        }
        opened
    }
}

#[cfg(test)]
mod tests {
    use proto::seal::PairSecret;

    use super::*;

    #[test]
    fn a_gateway_behind_a_broker_is_there_while_it_is_heard() {
        let config = GatewayConfig {
            site: Name::new("campus").expect("a name"),
            secret: PairSecret([1; 32]),
        };
        let heard = Instant::now();
        let check = |route, connected, silent: Duration, expected: bool| {
            let mut link = Link::new(&config, &GatewayRow::default(), 1);
            link.heard.seen(heard);
            let side = link.side_mut(Lane::FIRST);
            (side.route, side.connected) = (route, connected);
            assert_eq!(
                link.is_connected(heard + silent),
                expected,
                "{route:?} {connected} {silent:?}"
            );
        };
        let day = Duration::from_secs(86_400);
        check(Route::Endpoint, true, Duration::ZERO, true);
        check(Route::Endpoint, true, day, true);
        check(Route::Endpoint, false, Duration::ZERO, false);
        check(Route::Broker(0), true, BROKER_SILENCE, true);
        check(Route::Broker(0), true, BROKER_SILENCE + Duration::from_millis(1), false);
        check(Route::Broker(0), false, Duration::ZERO, false);
    }
}
