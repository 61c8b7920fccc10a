//! Everything that exists in a drill, and the queue of what happens next, in virtual time.

use std::{cmp::Reverse, collections::BinaryHeap};

use device::Screen;
use fastrand::Rng;
use gateway_core::Input;
use proto::{
    id::{DeviceId, Kind, SessionId},
    link::Trouble,
    seal::PairSecret,
};
use sha2::{Digest, Sha256};

use super::{
    cloud::{Cloud, Request},
    gateway::Shell,
    hub::HubSite,
    link::{Link, LinkStep},
    oracle::Oracle,
    outlet::Physical,
    people::{Person, Visit},
    scenario::{HOUR_MS, Scenario},
    tally::Tally,
};

/// A sealed frame between a device and its gateway.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) topic: proto::topic::Topic,
    pub(super) bytes: Vec<u8>,
}

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Next {
    /// The core's deadline.
    GatewayTick {
        gateway: usize,
        generation: u32,
    },
    /// The common flush of a group of decisions.
    Commit {
        gateway: usize,
    },
    FrameUp {
        at: usize,
        frame: Box<Frame>,
    },
    FrameDown {
        at: usize,
        frame: Box<Frame>,
    },
    DeviceWake {
        at: usize,
        generation: u32,
    },
    DeviceLink {
        at: usize,
    },
    Arrival,
    Visit {
        at: usize,
        outlet: usize,
        number: u32,
        step: Step,
    },
    /// Something at the gateway's end of the link.
    Link {
        gateway: usize,
        step: LinkStep,
    },
    /// A message of a gateway reaches the cloud on this connection.
    CloudUp {
        gateway: usize,
        connection: u64,
        request: Box<Request>,
    },
    /// A message of the cloud reaches a gateway on this connection.
    CloudDown {
        gateway: usize,
        connection: u64,
        says: Box<Says>,
    },
    /// An artifact reaches a gateway, however it came.
    Artifact {
        gateway: usize,
        input: Box<Input>,
    },
    /// A cloud condition begins or ends.
    Edge,
    Publish {
        event: usize,
    },
    HubTick,
    /// The end of a row of the table.
    Slice,
    /// A revoked person tries.
    RevokedTries {
        user: usize,
    },
}

/// What a person does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// His part: plug in, press start, open the tap.
    Act,
    /// Has enough.
    Stop,
    /// Takes his things and goes.
    Leave,
}

/// What the cloud says.
#[derive(Debug)]
pub(super) enum Says {
    /// Something of the hub's, under its seal.
    Input(Input),
    /// An error of whoever stands before it.
    Trouble(Trouble),
}

struct Scheduled {
    at_ms: u64,
    order: u64,
    next: Next,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.order) == (other.at_ms, other.order)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.order).cmp(&(other.at_ms, other.order))
    }
}

/// One outlet: physics, the session that its device has open, and its visitor.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) physical: Physical,
    pub(super) session: Option<SessionId>,
    pub(super) screen: Screen,
    pub(super) visit: Option<Visit>,
}

/// One device: the real code and its place in the network.
#[derive(Debug)]
pub(super) struct Twin {
    pub(super) gateway: usize,
    pub(super) config: device::Config,
    pub(super) device: device::Device,
    pub(super) generation: u32,
    pub(super) wakes_ms: u64,
    pub(super) sense_ms: u64,
    pub(super) places: Vec<Place>,
    /// Arrival of the newest frame each way: frames keep their order.
    pub(super) up_ms: u64,
    pub(super) down_ms: u64,
}

/// The whole of it.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    /// When the first person comes: the time before makes the list as old as the scenario wants it.
    pub(super) begin_ms: u64,
    pub(super) end_ms: u64,
    pub(super) t_ms: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    /// Chance of the people, and of the network: apart, so that a longer way changes nobody's mind.
    pub(super) people_rng: Rng,
    pub(super) network_rng: Rng,
    pub(super) shells: Vec<Shell>,
    pub(super) links: Vec<Link>,
    pub(super) twins: Vec<Twin>,
    pub(super) persons: Vec<Person>,
    pub(super) hub: HubSite,
    pub(super) cloud: Cloud,
    pub(super) oracle: Oracle,
    pub(super) tally: Tally,
    pub(super) digest: Sha256,
    pub(super) visits: u32,
    /// The evening is over: nobody comes, and the cloud is well.
    pub(super) calm: bool,
    pub(super) trace: bool,
    pub(super) steps: u64,
}

/// The time before the beginning in which devices, gateways and hub find each other, in ms.
pub(super) const SETTLE_MS: u64 = 60_000;

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64, trace: bool) -> anyhow::Result<Self> {
        let rng = |stream: u64| Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream);
        let mut people_rng = rng(1);
        let persons = super::people::persons(scenario, &mut people_rng);
        let gateways = scenario.site.regions.len();
        let twins = twins(scenario, &mut people_rng)?;
        let begin_ms = scenario.site.list_age_ms + SETTLE_MS;
        let hub = HubSite::new(scenario, &persons);
        let shells = (0..gateways).map(|i| Shell::new(scenario, i, &twins));
        Ok(Self {
            begin_ms,
            end_ms: begin_ms + scenario.lasts_ms,
            t_ms: 0,
            queue: BinaryHeap::new(),
            order: 0,
            network_rng: rng(2),
            shells: shells.collect(),
            links: (0..gateways).map(|i| Link::new(seed, i)).collect(),
            cloud: Cloud::new(gateways),
            oracle: Oracle::new(scenario, &persons),
            tally: Tally::new(scenario),
            digest: Sha256::new(),
            visits: 0,
            calm: false,
            trace,
            steps: 0,
            people_rng,
            twins,
            persons,
            hub,
            scenario,
        })
    }

    pub(super) fn after(&mut self, ms: u64, next: Next) {
        self.at(self.t_ms + ms, next);
    }

    pub(super) fn at(&mut self, at_ms: u64, next: Next) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled {
            at_ms: at_ms.max(self.t_ms),
            order: self.order,
            next,
        }));
    }

    /// What happens next, if it does before `end_ms`.
    pub(super) fn pop(&mut self, end_ms: u64) -> Option<Next> {
        if self.queue.peek().is_none_or(|Reverse(next)| next.at_ms > end_ms) {
            self.t_ms = end_ms;
            return None;
        }
        let Reverse(scheduled) = self.queue.pop()?;
        self.t_ms = scheduled.at_ms;
        Some(scheduled.next)
    }

    /// Milliseconds after the beginning; 0 before it.
    pub(super) const fn since_begin_ms(&self) -> u64 {
        self.t_ms.saturating_sub(self.begin_ms)
    }

    /// Seconds since 1970 UTC.
    pub(super) const fn wall_s(&self) -> u64 {
        self.scenario.begins_s + self.t_ms / 1000 - self.begin_ms / 1000
    }

    /// Local hour of the day.
    pub(super) fn hour(&self) -> usize {
        let local_s = self.wall_s() as i64 + i64::from(self.scenario.offset_min) * 60;
        (local_s.rem_euclid(24 * 3600) / 3600) as usize
    }

    /// Prints what happens, if anybody wants to know.
    pub(super) fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            let s = self.since_begin_ms() / 1000;
            eprintln!("+{:02}:{:02}:{:02} {}", s / 3600, s / 60 % 60, s % 60, text());
        }
    }

    /// Makes bytes part of the run's hash.
    pub(super) fn absorb(&mut self, from: u8, bytes: &[u8]) {
        self.digest.update([from]);
        self.digest.update(self.t_ms.to_be_bytes());
        self.digest.update((bytes.len() as u64).to_be_bytes());
        self.digest.update(bytes);
    }
}

fn twins(scenario: &Scenario, rng: &mut Rng) -> anyhow::Result<Vec<Twin>> {
    let mut twins = Vec::new();
    let gateways = scenario.site.regions.len();
    for (kind, count) in Kind::SERVED.into_iter().zip(scenario.site.devices) {
        let outlets = if kind == Kind::Charger { 2 } else { 1 };
        for number in 1..=count {
            let id = DeviceId::new(&format!("{}-{number:05}", kind.word()))?;
            let mut secret = [7; 32];
            rng.fill(&mut secret[..16]);
            let config = device::Config::new(id, kind, outlets, PairSecret(secret));
            let now = device::Now { mono_ms: 0 };
            let place = |rng: &mut Rng| Place {
                physical: Physical::new(kind, rng.u64(0..500_000)),
                session: None,
                screen: Screen::Free,
                visit: None,
            };
            twins.push(Twin {
                gateway: number as usize % gateways,
                device: device::Device::boot(config.clone(), device::Stored::new(), now)?,
                config,
                generation: 0,
                wakes_ms: u64::MAX,
                sense_ms: u64::MAX,
                places: (0..outlets).map(|_| place(rng)).collect(),
                up_ms: 0,
                down_ms: 0,
            });
        }
    }
    Ok(twins)
}

/// Longest time after the end before everything must be at rest, in ms: the longest programme of a washer, the last
/// charge, and every retry fit in.
pub(super) const REST_MS: u64 = 4 * HOUR_MS;
