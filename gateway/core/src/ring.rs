//! Rings: what has passed the gate is tried before the site takes it, at one device, then at its kind, then everywhere.
//!
//! A ring is something that lies aside (`trust::adopt`, `policy`) and that the devices of the ring are judged by already.
//! So nothing is lost by going back: it lies aside again, and what was active never ceased to be. Whoever the new one
//! would refuse, or grant less than half, gets what the active one says (`decide/ring.rs`): it costs the push its good
//! name, and nobody his session.

pub(crate) mod sight;

use alloc::{collections::BTreeMap, vec::Vec};
use core::fmt;

use proto::{
    id::{DeviceId, Kind, TokenHash},
    trust::ArtifactKind,
};
use serde::{Deserialize, Serialize};

use crate::{
    Gateway,
    config::{DeviceConfig, RingLimits},
    event::{Event, KeptRing, RingBegan, RingEnded, RingSeen},
    time::Instant,
};

/// From so many tokens on that fare worse, their share counts: one may be somebody whom the operator means.
pub const WORSE_TOKENS_MIN: usize = 2;
/// More hundredths of the requests of a ring than these may not fare worse, at any time.
pub const WORSE_PERCENT_MAX: u32 = 5;
/// Nor more than these when the ring is to widen, whoever asked: it may have been one and the same person.
pub const WORSE_PERCENT_END_MAX: u32 = 20;
/// From so many faults, silences and failed starts in a ring on, their share counts.
pub const TROUBLES_MIN: u64 = 3;
/// They may be so many times the share before the ring, and elsewhere meanwhile.
pub const TROUBLES_FACTOR: u64 = 2;

/// What is adopted by rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Staged {
    /// 0: a list.
    List,
    /// 1: prices.
    Tariffs,
    /// 2: signed limits.
    Policy,
    /// 3: limits of the configuration.
    Limits,
}

impl Staged {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::List, Self::Tariffs, Self::Policy, Self::Limits];

    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Tariffs => "tariffs",
            Self::Policy => "policy",
            Self::Limits => "config",
        }
    }

    /// What an artifact is adopted as; `None`: it takes effect at once.
    #[must_use]
    pub const fn of(kind: ArtifactKind) -> Option<Self> {
        match kind {
            ArtifactKind::List => Some(Self::List),
            ArtifactKind::Tariffs => Some(Self::Tariffs),
            ArtifactKind::Policy => Some(Self::Policy),
            ArtifactKind::Other
            | ArtifactKind::Revocations
            | ArtifactKind::Lease
            | ArtifactKind::Voucher
            | ArtifactKind::Firmware
            | ArtifactKind::Keys => None,
        }
    }

    /// The artifact, if it is one.
    pub(crate) const fn artifact(self) -> Option<ArtifactKind> {
        match self {
            Self::List => Some(ArtifactKind::List),
            Self::Tariffs => Some(ArtifactKind::Tariffs),
            Self::Policy => Some(ArtifactKind::Policy),
            Self::Limits => None,
        }
    }
}

impl From<Staged> for u8 {
    fn from(what: Staged) -> Self {
        match what {
            Staged::List => 0,
            Staged::Tariffs => 1,
            Staged::Policy => 2,
            Staged::Limits => 3,
        }
    }
}

impl From<u8> for Staged {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Tariffs,
            2 => Self::Policy,
            3 => Self::Limits,
            _ => Self::List,
        }
    }
}

/// How far a ring reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Reach {
    /// 0: one device.
    Device,
    /// 1: every device of its kind.
    Kind,
    /// 2: every device.
    Site,
}

impl Reach {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Kind => "kind",
            Self::Site => "site",
        }
    }

    /// The next one; `None`: it is adopted.
    pub(crate) const fn next(self) -> Option<Self> {
        match self {
            Self::Device => Some(Self::Kind),
            Self::Kind => Some(Self::Site),
            Self::Site => None,
        }
    }
}

impl From<Reach> for u8 {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::Device => 0,
            Reach::Kind => 1,
            Reach::Site => 2,
        }
    }
}

impl From<u8> for Reach {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Kind,
            2 => Self::Site,
            _ => Self::Device,
        }
    }
}

/// How it went at some devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Requests that were decided.
    pub requests: u64,
    /// Faults that were reported, sessions that never began, devices that fell silent in a session.
    pub troubles: u64,
}

impl Course {
    const fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            troubles: self.troubles.saturating_add(other.troubles),
        }
    }

    const fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            troubles: self.troubles.saturating_sub(before.troubles),
        }
    }

    /// Whether the share of troubles is more than [`TROUBLES_FACTOR`] times the other's. Nothing known has a share of
    /// nothing.
    const fn is_worse_than(self, other: Self) -> bool {
        let (ours, theirs) = (self.troubles as u128, other.troubles as u128);
        let (requests, others) = (self.requests as u128, other.requests as u128);
        if others == 0 {
            return ours > 0;
        }
        ours * others > theirs * requests * TROUBLES_FACTOR as u128
    }
}

/// Something on its way through the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Its revision; of the configuration's limits a number that grows.
    pub revision: u64,
    /// The first device.
    pub device: DeviceId,
    /// Its kind.
    pub kind: Kind,
    /// How far it reaches.
    pub reach: Reach,
    /// Since when it reaches so far.
    pub since: Instant,
    /// An operator holds it where it is.
    pub is_held: bool,
    /// Requests at its devices since then.
    pub requests: u32,
    /// Of these, how many would have fared worse.
    pub worse: u32,
    /// Whose, each once, at most [`WORSE_TOKENS_MIN`].
    pub(crate) tokens: Vec<TokenHash>,
    /// How it had gone at its devices before.
    pub(crate) before: Course,
    /// As well, at all others.
    pub(crate) before_elsewhere: Course,
}

impl Ring {
    /// Whether a device is in it.
    #[must_use]
    pub fn has(&self, device: &DeviceId, kind: Kind) -> bool {
        match self.reach {
            Reach::Device => *device == self.device,
            Reach::Kind => kind == self.kind,
            Reach::Site => true,
        }
    }

    /// When it widens, or is adopted, if nothing speaks against it: after `dwell_s`, if it has seen enough requests, and
    /// after `patience_s` all the same. `None`: it is held.
    #[must_use]
    pub const fn due(&self, limits: &RingLimits) -> Option<Instant> {
        if self.is_held {
            return None;
        }
        let after_s = if self.requests >= limits.requests_min {
            limits.dwell_s
        } else {
            limits.patience_s
        };
        Some(self.since.plus_ms(after_s.saturating_mul(1000)))
    }

    pub(crate) fn see(&mut self, seen: &RingSeen) {
        self.requests = self.requests.saturating_add(1);
        if seen.is_worse {
            self.worse = self.worse.saturating_add(1);
            if self.tokens.len() < WORSE_TOKENS_MIN && !self.tokens.contains(&seen.token) {
                self.tokens.push(seen.token);
            }
        }
    }

    fn exceeds(&self, percent: u32) -> bool {
        u64::from(self.worse) * 100 > u64::from(self.requests) * u64::from(percent)
    }
}

/// Why something left its ring backwards, with the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Why.
    pub why: Why,
    /// How far it had come.
    pub reach: Reach,
    /// The first device.
    pub device: DeviceId,
    /// Requests at its devices, while it reached so far.
    pub requests: u32,
    /// Of these, how many would have fared worse.
    pub worse: u32,
    /// Troubles at its devices meanwhile.
    pub troubles: u64,
}

/// Why something left its ring backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Why {
    /// 0: an operator wanted it.
    Operator,
    /// 1: too many requests would have fared worse.
    Worse,
    /// 2: too many faults, silences and failed starts.
    Troubles,
}

impl From<Why> for u8 {
    fn from(why: Why) -> Self {
        match why {
            Why::Operator => 0,
            Why::Worse => 1,
            Why::Troubles => 2,
        }
    }
}

impl From<u8> for Why {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Worse,
            2 => Self::Troubles,
            _ => Self::Operator,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requests,
            worse,
            troubles,
            ..
        } = self;
        match self.why {
            Why::Operator => f.write_str("an operator took it back")?,
            Why::Worse => write!(
                f,
                "{worse} of {requests} requests are refused by it, or granted less than half, and not without it"
            )?,
            Why::Troubles => write!(
                f,
                "{troubles} faults, silences and failed starts in {requests} requests, more than before it and elsewhere"
            )?,
        }
        match self.reach {
            Reach::Device => write!(f, "; it reached {} alone", self.device),
            Reach::Kind => write!(f, "; it reached the kind of {}", self.device),
            Reach::Site => f.write_str("; it reached the whole site"),
        }
    }
}

/// What is on its way, and what came back from it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    pub(crate) rows: BTreeMap<Staged, Ring>,
    pub(crate) back: BTreeMap<Staged, (u64, Verdict)>,
}

impl Rings {
    /// What is on its way.
    pub fn iter(&self) -> impl Iterator<Item = (Staged, &Ring)> {
        self.rows.iter().map(|(what, ring)| (*what, ring))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, what: Staged) -> Option<&Ring> {
        self.rows.get(&what)
    }

    /// What came back and still lies aside, with its revision.
    pub fn back(&self) -> impl Iterator<Item = (Staged, u64, &Verdict)> {
        self.back.iter().map(|(what, (revision, why))| (*what, *revision, why))
    }

    pub(crate) fn next_due(&self, limits: &RingLimits) -> Option<Instant> {
        self.rows.values().filter_map(|ring| ring.due(limits)).min()
    }

    pub(crate) fn due(&self, at: Instant, limits: &RingLimits) -> Option<(Staged, &Ring)> {
        self.iter()
            .find(|(_, ring)| ring.due(limits).is_some_and(|due| due <= at))
    }
}

impl Gateway {
    /// Something is tried at these devices first.
    #[must_use]
    pub const fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Revision of what lies aside of a kind; 0: nothing.
    #[must_use]
    pub fn aside_revision(&self, what: Staged) -> u64 {
        match what {
            Staged::List => self.trust.aside().map_or(0, |aside| aside.list.head().revision),
            Staged::Tariffs => self.trust.tariffs_aside().map_or(0, |table| table.revision),
            Staged::Policy => self.policies.aside.as_ref().map_or(0, |policy| policy.revision),
            Staged::Limits => self.policies.configured_aside.as_ref().map_or(0, |aside| aside.0),
        }
    }

    /// Where a ring begins: the device that the operator named, or else the one that was asked most often, so that
    /// something is seen soon. `kinds`: what it is about; empty: every kind.
    pub(crate) fn first_device(&self, kinds: &[Kind]) -> Option<(DeviceId, Kind)> {
        let concerned = |known: &DeviceConfig| kinds.is_empty() || kinds.contains(&known.kind);
        let named = self.config.ring.device.as_ref();
        let named = named.and_then(|id| self.config.devices.get_key_value(id));
        if let Some((id, known)) = named.filter(|(_, known)| concerned(known)) {
            return Some((*id, known.kind));
        }
        let asked = |id: &DeviceId| self.devices.get(id).map_or(0, |device| device.course.requests);
        let devices = self.config.devices.iter().filter(|(_, known)| concerned(known));
        // Of equals the first one by name.
        devices
            .rev()
            .max_by_key(|(id, _)| asked(id))
            .map(|(id, known)| (*id, known.kind))
    }

    /// How it went in a ring that reaches so far, and elsewhere.
    fn courses(&self, has: impl Fn(&DeviceId, Kind) -> bool) -> (Course, Course) {
        let mut sums = (Course::default(), Course::default());
        for (id, known) in &self.config.devices {
            let course = self.devices.get(id).map_or(Course::default(), |device| device.course);
            match has(id, known.kind) {
                true => sums.0 = sums.0.plus(course),
                false => sums.1 = sums.1.plus(course),
            }
        }
        sums
    }

    /// What speaks against a ring now. `is_end`: it is about to widen.
    pub(crate) fn against(&self, ring: &Ring, is_end: bool) -> Option<Verdict> {
        let (inside, elsewhere) = self.courses(|id, kind| ring.has(id, kind));
        let inside = inside.since(ring.before);
        let elsewhere = elsewhere.since(ring.before_elsewhere);
        let many = ring.tokens.len() >= WORSE_TOKENS_MIN && ring.exceeds(WORSE_PERCENT_MAX);
        let troubled =
            inside.troubles >= TROUBLES_MIN && inside.is_worse_than(ring.before) && inside.is_worse_than(elsewhere);
        let why = if many || is_end && ring.exceeds(WORSE_PERCENT_END_MAX) {
            Why::Worse
        } else if troubled {
            Why::Troubles
        } else {
            return None;
        };
        Some(self.verdict(ring, why))
    }

    pub(crate) fn verdict(&self, ring: &Ring, why: Why) -> Verdict {
        let (inside, _) = self.courses(|id, kind| ring.has(id, kind));
        Verdict {
            why,
            reach: ring.reach,
            device: ring.device,
            requests: ring.requests,
            worse: ring.worse,
            troubles: inside.since(ring.before).troubles,
        }
    }

    /// How it goes with a device.
    pub(crate) fn course(&mut self, device: &DeviceId) -> &mut Course {
        &mut self.devices.entry(*device).or_default().course
    }

    /// What happened to something on its way; nothing else is told here.
    pub(crate) fn apply_ring(&mut self, at: Instant, event: &Event) {
        match event {
            Event::RingBegan(e) => self.apply_ring_began(at, e),
            Event::RingSeen(e) => {
                if let Some(ring) = self.rings.rows.get_mut(&e.what) {
                    ring.see(e);
                }
            }
            Event::RingWidened(e) => self.apply_ring_widened(at, e.what, e.reach),
            Event::RingHeld(e) => {
                if let Some(ring) = self.rings.rows.get_mut(&e.what) {
                    ring.is_held = e.is_held;
                }
            }
            Event::RingEnded(e) => self.apply_ring_ended(e),
            _ => {}
        }
    }

    fn apply_ring_began(&mut self, at: Instant, event: &RingBegan) {
        let ring = Ring {
            revision: event.revision,
            device: event.device,
            kind: event.kind,
            reach: Reach::Device,
            since: at,
            is_held: false,
            requests: 0,
            worse: 0,
            tokens: Vec::new(),
            before: Course::default(),
            before_elsewhere: Course::default(),
        };
        self.rings.back.remove(&event.what);
        let ring = self.reaching(ring, Reach::Device, at);
        self.rings.rows.insert(event.what, ring);
    }

    fn apply_ring_widened(&mut self, at: Instant, what: Staged, reach: Reach) {
        if let Some(ring) = self.rings.rows.remove(&what) {
            let ring = self.reaching(ring, reach, at);
            self.rings.rows.insert(what, ring);
        }
    }

    /// It reaches so far from now on, and its counts begin anew.
    fn reaching(&self, mut ring: Ring, reach: Reach, at: Instant) -> Ring {
        (ring.reach, ring.since) = (reach, at);
        (ring.requests, ring.worse) = (0, 0);
        ring.tokens.clear();
        let (inside, elsewhere) = self.courses(|id, kind| ring.has(id, kind));
        (ring.before, ring.before_elsewhere) = (inside, elsewhere);
        ring
    }

    fn apply_ring_ended(&mut self, event: &RingEnded) {
        self.rings.rows.remove(&event.what);
        self.rings.back.insert(event.what, (event.revision, event.verdict));
    }

    /// What lies aside no more is on no way, whoever took it up or put something else in its place.
    pub(crate) fn forget_rings(&mut self) {
        if self.rings.rows.is_empty() && self.rings.back.is_empty() {
            return;
        }
        let aside = Staged::ALL.map(|what| (what, self.aside_revision(what)));
        let lies = |what: Staged, revision: u64| aside.contains(&(what, revision));
        self.rings.rows.retain(|what, ring| lies(*what, ring.revision));
        self.rings.back.retain(|what, (revision, _)| lies(*what, *revision));
    }

    pub(crate) fn keep_ring(&mut self, kept: &KeptRing) {
        self.rings.rows.insert(kept.what, kept.ring.clone());
    }
}
