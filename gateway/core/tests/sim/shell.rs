//! The gateway's shell as the simulation has it: seals, an in-memory journal with group commit, crashes at every step,
//! recovery from the journal or from a snapshot.

use device::config::Config as DeviceConfig;
use gateway_core::{
    Config, Decision, Effect, Event, Gateway, Input, Now, Said, Told,
    event::{Booted, Granted, Refused},
};
use proto::{
    codec,
    id::{DeviceId, Hash, TokenKey},
    link::{LedgerRecord, chain},
    seal::{Counter, Direction, FRAME_BYTES_MAX, SealKey},
    topic::{self, Topic},
};

/// The site's key for id tokens.
pub(crate) const TOKEN_KEY: TokenKey = TokenKey([3; 32]);

/// A sealed frame on its topic.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) topic: Topic,
    pub(crate) bytes: Vec<u8>,
}

struct Peer {
    id: DeviceId,
    up: SealKey,
    down: SealKey,
    counter: Counter,
}

/// A durable record.
pub(crate) type Entry = (Now, Event);

/// The running process and its disk.
pub(crate) struct Shell {
    /// Volatile.
    pub(crate) gateway: Gateway,
    /// Volatile: decided and applied, not yet durable; with the effects that wait for it.
    staged: Vec<Entry>,
    waiting: Vec<Effect>,
    peers: Vec<Peer>,
    pub(crate) is_up: bool,
    /// Whether all that was in memory when the process died was durable.
    died_durable: bool,
    pub(crate) booted_ms: u64,
    /// Durable.
    pub(crate) journal: Vec<Entry>,
    snapshot: Option<(usize, Vec<Event>)>,
    /// Durable: the ledger records as they are uploaded, with the chain after each.
    pub(crate) records: Vec<(Vec<u8>, Hash)>,
    config: Config,
}

impl Shell {
    pub(crate) fn new(config: Config, devices: &[DeviceConfig]) -> Self {
        let peers = devices.iter().map(|device| Peer {
            id: device.id,
            up: device.secret.key(Direction::Up),
            down: device.secret.key(Direction::Down),
            counter: Counter::of_boot(0),
        });
        Self {
            gateway: Gateway::new(config.clone()),
            staged: Vec::new(),
            waiting: Vec::new(),
            peers: peers.collect(),
            is_up: false,
            died_durable: false,
            booted_ms: 0,
            journal: Vec::new(),
            snapshot: None,
            records: Vec::new(),
            config,
        }
    }

    /// Checks the seal and makes an input of a frame.
    pub(crate) fn open(&self, frame: &Frame) -> Option<Input> {
        let (device, word) = topic::parse_up(&frame.topic)?;
        let peer = self.peers.iter().find(|peer| peer.id == device)?;
        let opened = peer.up.open(&frame.topic, &frame.bytes, FRAME_BYTES_MAX).ok()?;
        let said = Said::decode(word, opened.body, &TOKEN_KEY).ok()?;
        Some(Input::Device {
            device,
            counter: opened.counter,
            said,
        })
    }

    /// Seals what a device is told; returns which device, and the frame.
    pub(crate) fn seal(&mut self, device: &DeviceId, told: &Told) -> (usize, Frame) {
        let at = self.peers.iter().position(|peer| peer.id == *device);
        let at = at.expect("the core speaks to its devices only");
        let peer = &mut self.peers[at];
        let (topic, bytes) = told.seal(device, &peer.down, peer.counter.next());
        (at, Frame { topic, bytes })
    }

    pub(crate) fn raise_counter(&mut self, device: &DeviceId, last: u64) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == *device) {
            peer.counter.raise_above(last);
        }
    }

    /// Takes a decision into memory, to be made durable with the next commit.
    pub(crate) fn stage(&mut self, now: &Now, decision: Decision) {
        for event in decision.events {
            self.gateway.apply(now, &event);
            self.staged.push((*now, event));
        }
        self.waiting.extend(decision.effects);
    }

    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Makes everything staged durable; returns where it begins in the journal, and the effects that may leave now.
    pub(crate) fn commit(&mut self) -> (usize, Vec<Effect>) {
        let first = self.journal.len();
        for entry in std::mem::take(&mut self.staged) {
            self.write(entry);
        }
        (first, std::mem::take(&mut self.waiting))
    }

    fn write(&mut self, entry: Entry) {
        let previous = self.records.last().map_or(Hash::ZERO, |(_, hash)| *hash);
        if let Event::Granted(Granted { grounds, .. }) | Event::Refused(Refused { grounds, .. }) = &entry.1 {
            assert_eq!(grounds.previous, previous, "a decision names the chain that it follows");
        }
        if let Some(record) = entry.1.record() {
            let bytes = encode(record);
            let hash = chain(&previous, &bytes);
            self.records.push((bytes, hash));
        }
        self.journal.push(entry);
    }

    /// The power goes when so many events of a decision are durable and none is applied. Returns where they begin in the
    /// journal.
    pub(crate) fn write_and_die(&mut self, now: &Now, decision: Decision, events: usize) -> usize {
        assert!(self.staged.is_empty(), "what was staged before is durable");
        let first = self.journal.len();
        for event in decision.events.into_iter().take(events) {
            // Nobody sees this state any more, but the one after the boot must be its successor.
            self.gateway.apply(now, &event);
            self.write((*now, event));
        }
        self.die();
        first
    }

    /// Whether a decision may be found in part after a power cut: a list does not fit one append. All others do.
    pub(crate) fn is_long(decision: &Decision) -> bool {
        decision
            .events
            .iter()
            .any(|event| matches!(event, Event::ListStaged(_) | Event::TariffsStaged(_)))
    }

    /// The process is gone; memory with it.
    pub(crate) fn die(&mut self) {
        self.is_up = false;
        self.died_durable = self.staged.is_empty();
        self.staged.clear();
        self.waiting.clear();
    }

    /// Notes the state, so that a later boot need not read everything.
    pub(crate) fn take_snapshot(&mut self) {
        if self.is_up && self.staged.is_empty() {
            self.snapshot = Some((self.journal.len(), self.gateway.snapshot().into_iter().collect()));
        }
    }

    pub(crate) fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// The state that the whole journal leads to.
    pub(crate) fn replay(&self) -> Gateway {
        let mut gateway = Gateway::new(self.config.clone());
        for (now, event) in &self.journal {
            gateway.apply(now, event);
        }
        gateway
    }

    /// The state that the last snapshot and what came after it lead to. `now`: the clocks while it is read.
    fn restore(&self, now: &Now) -> Gateway {
        let mut gateway = Gateway::new(self.config.clone());
        let Some((from, kept)) = &self.snapshot else {
            return self.replay();
        };
        for event in kept {
            gateway.apply(now, event);
        }
        for (then, event) in &self.journal[*from..] {
            gateway.apply(then, event);
        }
        gateway
    }

    /// Starts again from the disk; returns where the new records begin. The state must be the one that was lived.
    pub(crate) fn boot(&mut self, t_ms: u64, now: &Now, from_snapshot: bool) -> usize {
        let replayed = self.replay();
        if self.died_durable {
            same(
                "the journal leads to another state than the one that was lived",
                &replayed,
                &self.gateway,
            );
        }
        let number = replayed.timeline().boot + 1;
        let booted = Event::Booted(Booted { boot: number, epoch: 1 });
        let mut states = [Some(replayed), from_snapshot.then(|| self.restore(now))];
        for state in states.iter_mut().flatten() {
            state.apply(now, &booted);
        }
        let [replayed, restored] = states;
        let replayed = replayed.expect("made above");
        if let Some(restored) = &restored {
            same(
                "the snapshot leads to another state than the journal",
                restored,
                &replayed,
            );
        }
        self.gateway = restored.unwrap_or(replayed);
        let first = self.journal.len();
        self.write((*now, booted));
        for peer in &mut self.peers {
            peer.counter = Counter::of_boot(number);
        }
        self.is_up = true;
        self.booted_ms = t_ms - now.mono_ms;
        first
    }
}

/// Asserts that two states are one.
pub(crate) fn same(what: &str, one: &Gateway, other: &Gateway) {
    if one != other {
        let (one, other) = (format!("{one:#?}"), format!("{other:#?}"));
        let first = one.lines().zip(other.lines()).position(|(a, b)| a != b).unwrap_or(0);
        let part = |text: &str| {
            let lines: Vec<_> = text.lines().skip(first.saturating_sub(12)).take(16).collect();
            lines.join("\n")
        };
        panic!("{what}\n{}\n--- instead of ---\n{}", part(&one), part(&other));
    }
}

fn encode(record: &LedgerRecord) -> Vec<u8> {
    codec::to_vec(record)
}
