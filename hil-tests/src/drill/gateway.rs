//! A gateway in the world: seals, the core, and a journal in memory with a group commit. What is decided leaves only
//! when the group is flushed.

use std::collections::BTreeMap;

use gateway_core::{Decision, Event, Gateway, Input, Now, Said, Told};
use proto::{
    codec,
    id::{DeviceId, Hash, TokenKey},
    link::{LedgerRecord, chain},
    message::ClockQuality,
    seal::{Counter, Direction, FRAME_BYTES_MAX, SealKey},
    topic,
};

use super::{
    bridge::{self, Act},
    cloud::Request,
    scenario::Scenario,
    world::{Frame, Next, Twin, World},
};

/// The campus's key for id tokens.
pub(super) const TOKEN_KEY: TokenKey = TokenKey([3; 32]);
/// How long decisions wait for a common flush, in ms: an eMMC or SSD of a small box.
const FLUSH_MS: std::ops::RangeInclusive<u64> = 2..=8;

struct Peer {
    /// Which twin.
    at: usize,
    up: SealKey,
    down: SealKey,
    counter: Counter,
}

/// The running process and its disk.
pub(super) struct Shell {
    pub(super) core: Gateway,
    peers: BTreeMap<DeviceId, Peer>,
    /// Decided and applied, not yet durable.
    staged: Vec<Event>,
    waiting: Vec<gateway_core::Effect>,
    flush_due: bool,
    generation: u32,
    tick_ms: u64,
    /// The ledger records as they are uploaded, with the chain after each. Durable.
    pub(super) records: Vec<(Vec<u8>, Hash)>,
    /// Ledger records of decisions that are not durable yet.
    unflushed: Vec<(Vec<u8>, Hash)>,
    pub(super) events: u64,
}

impl Shell {
    pub(super) fn new(scenario: &Scenario, gateway: usize, twins: &[Twin]) -> Self {
        let own = twins.iter().enumerate().filter(|(_, twin)| twin.gateway == gateway);
        let peers = own.clone().map(|(at, twin)| {
            let secret = &twin.config.secret;
            let peer = Peer {
                at,
                up: secret.key(Direction::Up),
                down: secret.key(Direction::Down),
                counter: Counter::of_boot(1),
            };
            (twin.config.id, peer)
        });
        let config = bridge::config(scenario, gateway, own.map(|(_, twin)| &twin.config));
        Self {
            core: Gateway::new(config),
            peers: peers.collect(),
            staged: Vec::new(),
            waiting: Vec::new(),
            flush_due: false,
            generation: 0,
            tick_ms: u64::MAX,
            records: Vec::new(),
            unflushed: Vec::new(),
            events: 0,
        }
    }

    /// Checks the seal and makes an input of a frame.
    fn open(&self, frame: &Frame) -> Option<Input> {
        let (device, word) = topic::parse_up(&frame.topic)?;
        let peer = self.peers.get(&device)?;
        let opened = peer.up.open(&frame.topic, &frame.bytes, FRAME_BYTES_MAX).ok()?;
        let said = Said::decode(word, opened.body, &TOKEN_KEY).ok()?;
        Some(Input::Device {
            device,
            counter: opened.counter,
            said,
        })
    }

    /// Seals what a device is told.
    fn seal(&mut self, device: &DeviceId, told: &Told) -> Option<(usize, Frame)> {
        let peer = self.peers.get_mut(device)?;
        let (topic, bytes) = told.seal(device, &peer.down, peer.counter.next());
        Some((peer.at, Frame { topic, bytes }))
    }

    fn stage(&mut self, now: &Now, decision: Decision) {
        for event in decision.events {
            self.core.apply(now, &event);
            if let Some(record) = event.record() {
                self.append(record);
            }
            self.staged.push(event);
        }
        self.waiting.extend(decision.effects);
    }

    fn append(&mut self, record: &LedgerRecord) {
        let last = self.unflushed.last().or(self.records.last());
        let before = last.map_or(Hash::ZERO, |(_, hash)| *hash);
        let bytes = codec::to_vec(record);
        let hash = chain(&before, &bytes);
        self.unflushed.push((bytes, hash));
    }
}

impl World<'_> {
    /// What a gateway's clocks say.
    pub(super) fn gateway_now(&self) -> Now {
        Now {
            mono_ms: self.t_ms,
            wall_s: self.wall_s(),
            quality: ClockQuality::Synchronised,
        }
    }

    pub(super) fn frame_up(&mut self, at: usize, frame: &Frame) {
        let gateway = self.twins[at].gateway;
        self.absorb(1, &frame.bytes);
        match self.shells[gateway].open(frame) {
            Some(input) => self.put(gateway, &input),
            None => self.tally.frames_rejected += 1,
        }
    }

    /// An input reaches the core.
    pub(super) fn put(&mut self, gateway: usize, input: &Input) {
        let now = self.gateway_now();
        let shell = &mut self.shells[gateway];
        let before = bridge::modes(&shell.core);
        let decision = shell.core.decide(&now, input);
        if !decision.events.is_empty() || !decision.effects.is_empty() {
            shell.stage(&now, decision);
            if !shell.flush_due {
                shell.flush_due = true;
                let ms = self.network_rng.u64(FLUSH_MS);
                self.after(ms, Next::Commit { gateway });
            }
        }
        let after = bridge::modes(&self.shells[gateway].core);
        if before != after {
            self.tally.mode_changes += 1;
            let region = &self.scenario.site.regions[gateway];
            self.say(|| format!("{region}: {before} -> {after}"));
        }
        self.plan_tick(gateway);
    }

    /// The flush: what was decided is durable, and leaves.
    pub(super) fn commit(&mut self, gateway: usize) {
        let shell = &mut self.shells[gateway];
        shell.flush_due = false;
        let events = std::mem::take(&mut shell.staged);
        let effects = std::mem::take(&mut shell.waiting);
        let unflushed = std::mem::take(&mut shell.unflushed);
        shell.records.extend(unflushed);
        shell.events += events.len() as u64;
        let now = self.gateway_now();
        for event in &events {
            if bridge::is_hashed(event) {
                let bytes = ::gateway::record::encode(&now, event);
                self.absorb(2, &bytes);
            }
            self.oracle.durable(gateway, self.t_ms, event);
        }
        let revoked_at_ms = self.t_ms;
        self.oracle
            .look_for_revocations(gateway, revoked_at_ms, &self.shells[gateway].core);
        self.tally.exposure(self.oracle.exposure());
        for effect in effects {
            self.act(gateway, effect);
        }
        self.link_look(gateway);
        self.plan_tick(gateway);
    }

    /// Carries out what a durable decision wants.
    fn act(&mut self, gateway: usize, effect: gateway_core::Effect) {
        match bridge::act(effect) {
            Act::Send(device, told) => {
                if let Some((at, frame)) = self.shells[gateway].seal(&device, &told) {
                    self.absorb(3, &frame.bytes);
                    self.send_down(at, frame);
                }
            }
            Act::RaiseCounter(device, last) => {
                if let Some(peer) = self.shells[gateway].peers.get_mut(&device) {
                    peer.counter.raise_above(last);
                }
            }
            Act::Request(request) => self.link_request(gateway, request),
            Act::Hello => {
                let hello = bridge::hello(&self.shells[gateway].core);
                self.link_request(gateway, Request::Hello(hello));
            }
            Act::Alarm(class, text) => self.alarm(gateway, class, &text),
        }
    }

    /// The operator is told.
    pub(super) fn alarm(&mut self, gateway: usize, class: String, text: &str) {
        let region = &self.scenario.site.regions[gateway];
        self.say(|| format!("{region}: ALARM {text}"));
        self.absorb(4, text.as_bytes());
        self.tally
            .alarm(self.t_ms.saturating_sub(self.begin_ms), gateway, class, text);
    }

    fn plan_tick(&mut self, gateway: usize) {
        let shell = &mut self.shells[gateway];
        let Some(due_ms) = shell.core.next_deadline() else {
            return;
        };
        let due_ms = due_ms.max(self.t_ms + 1);
        if due_ms != shell.tick_ms {
            shell.tick_ms = due_ms;
            shell.generation += 1;
            let generation = shell.generation;
            self.at(due_ms, Next::GatewayTick { gateway, generation });
        }
    }

    pub(super) fn gateway_tick(&mut self, gateway: usize, generation: u32) {
        let shell = &mut self.shells[gateway];
        if generation == shell.generation {
            shell.tick_ms = u64::MAX;
            self.put(gateway, &Input::Tick);
        }
    }

    /// The process starts.
    pub(super) fn boot_gateway(&mut self, gateway: usize) {
        self.put(gateway, &Input::Boot { boot: 1, epoch: 1 });
    }
}
