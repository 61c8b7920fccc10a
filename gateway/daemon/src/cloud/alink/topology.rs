//! The sub-devices at the cloud: listed, added, logged in, and logged in again, within every limit the cloud names. Only
//! people in its console see the difference; frames of the gateway wait for none of it.
//!
//! What is configured here is the truth. A list that comes back empty, a device that is said to be deleted: told to
//! people, asked again, and nothing is forgotten.

use std::collections::{BTreeMap, VecDeque};

use carrier::{Class, Qos, Symptom};
use proto::id::DeviceId;
use serde::Serialize;

use super::{
    child::{Child, Draw, Stage, State},
    envelope::{Identity, Nothing, Plain, Request, bytes},
    freeze::{Freeze, Naming, WINDOW_MS},
    names::{Ids, Names},
    sign::Method,
};
use crate::cloud::adapter::{Heard, Out};

/// Most sub-devices of a gateway, as the cloud's limit stands today.
pub const CHILDREN_MAX: usize = 2_000;
/// Most sub-devices in one addition.
const ADD_MAX: usize = 30;
/// Most sub-devices in one login.
const LOGIN_MAX: usize = 50;
/// Logins on their way at a time.
const LOGINS_MAX: usize = 4;
/// Logins begun within a second: 200 sub-devices, the cloud's limit of a gateway.
const LOGINS_A_SECOND_MAX: usize = 4;
/// A reply that has not come after so long does not come: logins travel with QoS 0.
const REPLY_MS: u64 = 5_000;
/// So many lists that are not answered: we go on with what we remember.
const LISTS_MAX: u32 = 3;
/// So many requests in a row without a reply are silence.
const SILENT_MIN: u32 = 3;
/// First and longest wait for a list after one that failed.
const LIST_WAIT_MS: (u64, u64) = (2_000, 300_000);

/// What one step works with.
pub(super) struct Turn<'a> {
    pub(super) now_ms: u64,
    pub(super) names: &'a Names,
    pub(super) ids: &'a mut Ids,
    pub(super) out: &'a mut Out,
}

impl Turn<'_> {
    pub(super) fn say(&mut self, class: Class, code: u16, text: impl AsRef<str>) {
        self.out.say(Heard::Symptom(Symptom::new(class, code, text)));
    }
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    List,
    Add,
    Login,
}

impl What {
    const fn word(self) -> &'static str {
        match self {
            Self::List => "topo/get",
            Self::Add => "topo/add",
            Self::Login => "batch_login",
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) id: u32,
    pub(super) what: What,
    /// About whom.
    pub(super) members: Vec<usize>,
    pub(super) deadline_ms: u64,
    /// Asked while frozen.
    pub(super) is_probe: bool,
}

/// What is known of the cloud's own list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// To be asked for.
    Due(u64),
    /// Asked for.
    Asked,
    /// It is here, or we go on without it.
    Done,
}

/// All sub-devices.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) children: Vec<State>,
    pub(super) places: BTreeMap<Identity, usize>,
    devices: BTreeMap<DeviceId, usize>,
    method: Method,
    pub(super) random: fastrand::Rng,
    is_connected: bool,
    pub(super) listing: Listing,
    pub(super) lists_failed: u32,
    pub(super) flights: Vec<Flight>,
    /// When the last logins began.
    begun: VecDeque<u64>,
    /// Nothing is asked for before: the cloud wants to be left alone.
    pub(super) paused_ms: u64,
    pub(super) throttles: u32,
    pub(super) silent: u32,
    pub(super) freeze: Option<Freeze>,
    pub(super) naming: Naming,
    pub(super) losses: VecDeque<u64>,
}

impl Topology {
    pub(super) fn new(children: Vec<Child>, method: Method, seed: u64) -> Self {
        let places = (0..).zip(&children).map(|(at, child)| (child.identity.clone(), at));
        let devices = (0..).zip(&children).map(|(at, child)| (child.device, at));
        Self {
            places: places.collect(),
            devices: devices.collect(),
            children: children.into_iter().map(State::new).collect(),
            method,
            random: fastrand::Rng::with_seed(seed),
            is_connected: false,
            listing: Listing::Due(0),
            lists_failed: 0,
            flights: Vec::new(),
            begun: VecDeque::new(),
            paused_ms: 0,
            throttles: 0,
            silent: 0,
            freeze: None,
            naming: Naming::default(),
            losses: VecDeque::new(),
        }
    }

    /// The connection before is over.
    pub(super) fn lost(&mut self) {
        self.is_connected = false;
        self.flights.clear();
        self.silent = 0;
        for state in &mut self.children {
            state.forget_session();
        }
    }

    /// A connection stands.
    pub(super) fn connected(&mut self, turn: &mut Turn<'_>) {
        self.is_connected = true;
        self.listing = Listing::Due(turn.now_ms);
        self.tick(turn);
    }

    /// The sub-device's names at the cloud, if it is logged in.
    pub(super) fn online(&self, device: &DeviceId) -> Option<&Identity> {
        let state = &self.children[*self.devices.get(device)?];
        matches!(state.stage, Stage::Online { .. }).then_some(&state.child.identity)
    }

    /// When something is due.
    pub(super) fn tick_at(&self) -> Option<u64> {
        if !self.is_connected || self.children.is_empty() {
            return None;
        }
        let deadlines = self.flights.iter().map(|flight| flight.deadline_ms);
        let list = match self.listing {
            Listing::Due(at) => Some(at.max(self.paused_ms)),
            Listing::Asked | Listing::Done => None,
        };
        if self.listing != Listing::Done {
            return deadlines.chain(list).min();
        }
        let freeze = self.freeze.as_ref().filter(|_| !self.is_probing());
        let probe = freeze.map(|freeze| freeze.probe_ms.max(self.paused_ms));
        let waiting = self.children.iter().filter(|state| self.may_ask_for(state));
        let due = waiting.map(|state| state.due_ms()).min();
        let due = due.map(|at| at.max(self.free_ms()));
        deadlines.chain(probe).chain(due).min()
    }

    /// Time passed.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        if !self.is_connected || self.children.is_empty() {
            return;
        }
        self.expire(turn);
        if turn.now_ms < self.paused_ms {
            return;
        }
        if matches!(self.listing, Listing::Due(at) if at <= turn.now_ms) {
            self.listing = Listing::Asked;
            self.ask(turn, What::List, Vec::new(), false);
        }
        if self.listing != Listing::Done {
            return;
        }
        if !self.is_asking(What::Add) {
            let members = self.group(turn.now_ms, Stage::Absent, ADD_MAX);
            if !members.is_empty() {
                self.ask(turn, What::Add, members, false);
            }
        }
        while self.free_ms() <= turn.now_ms {
            let members = self.group(turn.now_ms, Stage::Present, LOGIN_MAX);
            if members.is_empty() {
                break;
            }
            self.ask(turn, What::Login, members, false);
        }
        self.probe(turn);
    }

    /// When the next login may begin; the end of time if too many are on their way, for then a reply comes first.
    fn free_ms(&self) -> u64 {
        let flying = self.flights.iter().filter(|flight| flight.what == What::Login).count();
        if flying >= LOGINS_MAX {
            return u64::MAX;
        }
        let second = match self.begun.front() {
            Some(first) if self.begun.len() >= LOGINS_A_SECOND_MAX => first + 1_000,
            Some(_) | None => 0,
        };
        second.max(self.paused_ms)
    }

    fn is_asking(&self, what: What) -> bool {
        self.flights.iter().any(|flight| flight.what == what)
    }

    fn is_probing(&self) -> bool {
        self.flights.iter().any(|flight| flight.is_probe)
    }

    /// Those who are denied while all is frozen wait for the probe.
    fn is_held(&self, state: &State) -> bool {
        self.freeze.is_some() && state.denied_ms.is_some()
    }

    fn may_ask_for(&self, state: &State) -> bool {
        let is_waiting = match state.stage {
            Stage::Absent => !self.is_asking(What::Add),
            Stage::Present => true,
            Stage::Adding | Stage::LoggingIn | Stage::Online { .. } => false,
        };
        is_waiting && !self.is_held(state)
    }

    /// Those who are due at this stage, as many as one request may name.
    fn group(&self, now_ms: u64, stage: Stage, most: usize) -> Vec<usize> {
        let is_due = |state: &State| state.stage == stage && state.due_ms() <= now_ms && !self.is_held(state);
        let due = || (0..).zip(&self.children).filter(|(_, state)| is_due(state));
        let Some((_, first)) = due().next() else {
            return Vec::new();
        };
        due()
            .filter(|(_, state)| state.group_max == first.group_max)
            .map(|(at, _)| at)
            .take(most.min(first.group_max))
            .collect()
    }

    /// While frozen: one of the denied, if it is time. Over when nobody is left to ask for and nobody was denied lately.
    fn probe(&mut self, turn: &mut Turn<'_>) {
        let Some(freeze) = &mut self.freeze else {
            return;
        };
        if freeze.probe_ms > turn.now_ms || self.flights.iter().any(|flight| flight.is_probe) {
            return;
        }
        freeze.schedule(turn.now_ms, &mut self.random);
        let denied = (0..).zip(&self.children).filter(|(_, state)| state.denied_ms.is_some());
        let last_ms = denied.clone().filter_map(|(_, state)| state.denied_ms).max();
        let waiting: Vec<(usize, What)> = denied
            .filter_map(|(at, state)| match state.stage {
                Stage::Absent => Some((at, What::Add)),
                Stage::Present => Some((at, What::Login)),
                Stage::Adding | Stage::LoggingIn | Stage::Online { .. } => None,
            })
            .collect();
        match self.random.choice(&waiting) {
            Some((at, what)) => self.ask(turn, *what, vec![*at], true),
            None if last_ms.is_none_or(|at| at + WINDOW_MS <= turn.now_ms) => self.thaw(turn.now_ms),
            None => {}
        }
    }

    /// Denials count again. Those who were denied come back spread over a minute.
    pub(super) fn thaw(&mut self, now_ms: u64) {
        self.freeze = None;
        for state in self.children.iter_mut().filter(|state| state.denied_ms.is_some()) {
            state.denied_ms = None;
            state.forget_tries();
            state.wait(now_ms, THAW_MS, Draw::new(&mut self.random));
        }
    }

    fn ask(&mut self, turn: &mut Turn<'_>, what: What, members: Vec<usize>, is_probe: bool) {
        let id = turn.ids.next();
        let (topic, payload, qos) = match what {
            What::List => (
                turn.names.sys("thing/topo/get"),
                bytes(&Request::new(id, "thing.topo.get", Nothing {}, true)),
                Qos::AtLeastOnce,
            ),
            What::Add => {
                let additions: Vec<_> = self.of(&members).map(|state| state.addition(self.method)).collect();
                let request = bytes(&Request::new(id, "thing.topo.add", additions, true));
                (turn.names.sys("thing/topo/add"), request, Qos::AtLeastOnce)
            }
            What::Login => {
                let device_list = self.of(&members).map(|state| state.login(self.method)).collect();
                let request = bytes(&Plain {
                    id: id.to_string(),
                    params: DeviceList { device_list },
                });
                (
                    turn.names.around("ext/session", "/combine/batch_login"),
                    request,
                    Qos::AtMostOnce,
                )
            }
        };
        if what == What::Login {
            if self.begun.len() >= LOGINS_A_SECOND_MAX {
                self.begun.pop_front();
            }
            self.begun.push_back(turn.now_ms);
        }
        for at in &members {
            match what {
                What::List => {}
                What::Add => self.children[*at].stage = Stage::Adding,
                What::Login => self.children[*at].begin_login(turn.now_ms),
            }
        }
        turn.out.publish(topic, payload, qos);
        self.flights.push(Flight {
            id,
            what,
            members,
            deadline_ms: turn.now_ms + REPLY_MS,
            is_probe,
        });
    }

    fn of<'a>(&'a self, members: &'a [usize]) -> impl Iterator<Item = &'a State> {
        members.iter().map(|at| &self.children[*at])
    }

    /// Requests whose reply does not come.
    fn expire(&mut self, turn: &mut Turn<'_>) {
        let (late, flying) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition(|flight| flight.deadline_ms <= turn.now_ms);
        self.flights = flying;
        for flight in late {
            self.silent = self.silent.saturating_add(1);
            if self.silent == SILENT_MIN {
                let text = format!("no reply to {} and two requests before it", flight.what.word());
                turn.say(Class::Partition, 0, text);
            }
            self.came_to_nothing(&flight, turn.now_ms);
        }
    }

    /// Everybody in it tries again later.
    pub(super) fn came_to_nothing(&mut self, flight: &Flight, now_ms: u64) {
        if flight.is_probe
            && let Some(freeze) = &mut self.freeze
        {
            freeze.failed();
        }
        if flight.what == What::List {
            self.list_failed(now_ms);
        }
        let draw = Draw::new(&mut self.random);
        for at in &flight.members {
            self.children[*at].forget_session();
            self.children[*at].back_off(now_ms, draw);
        }
    }

    fn list_failed(&mut self, now_ms: u64) {
        self.lists_failed += 1;
        if self.lists_failed >= LISTS_MAX {
            self.lists_failed = 0;
            self.listing = Listing::Done;
            return;
        }
        let (first_ms, most_ms) = LIST_WAIT_MS;
        let ceiling_ms = (first_ms << self.lists_failed).min(most_ms);
        self.listing = Listing::Due(now_ms + self.random.u64(0..=ceiling_ms));
    }
}

/// Over how long those who were denied come back.
const THAW_MS: u64 = 60_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceList<T> {
    device_list: Vec<T>,
}
