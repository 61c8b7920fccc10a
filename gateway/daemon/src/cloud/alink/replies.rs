//! What the cloud says about sub-devices: replies, errors out of the blue, and claims that they are disabled or gone.

use carrier::Class;
use serde_json::Value;

use super::{
    child::{Draw, Stage, WAIT_MAX_MS},
    codes::{self, CODE_NOT_IN_TOPOLOGY, CODE_OK, CODE_TOO_MANY_DEVICES},
    envelope::{Envelope, Identity, devices},
    freeze::{Freeze, WINDOW_MS, threshold},
    topology::{Flight, Listing, Topology, Turn, What},
};

/// Those who were only in the same group as somebody refused try again within so long.
const SOON_MS: u64 = 2_000;
/// First pause after "too many requests"; doubles with each. Between half of it and the whole.
const PAUSE_FIRST_MS: u64 = 60_000;
/// Longest pause.
const PAUSE_MAX_MS: u64 = 900_000;
/// Somebody else uses a sub-device's identity: not again before.
const DUPLICATE_WAIT_MS: u64 = 120_000;
/// So many lost sessions ...
const LOSSES_MIN: usize = 5;
/// ... within this time are a loop, and told once in it.
const LOSSES_WINDOW_MS: u64 = 300_000;

impl Topology {
    /// A reply to a request about sub-devices. One that fits no request is a late or a doubled one.
    pub(super) fn replied(&mut self, turn: &mut Turn<'_>, what: What, envelope: &Envelope) {
        let fits = |flight: &Flight| flight.what == what && Some(flight.id) == envelope.own_id();
        let Some(at) = self.flights.iter().position(fits) else {
            return;
        };
        let flight = self.flights.swap_remove(at);
        self.silent = 0;
        let code = envelope.code().unwrap_or(codes::CODE_PARAMETER);
        if code == CODE_OK {
            self.throttles = 0;
            self.went_well(turn, &flight, &envelope.data);
        } else {
            self.went_wrong(turn, &flight, code, envelope);
        }
        self.tick(turn);
    }

    fn went_well(&mut self, turn: &mut Turn<'_>, flight: &Flight, data: &Value) {
        for at in &flight.members {
            let state = &mut self.children[*at];
            match flight.what {
                What::List => {}
                What::Add => {
                    state.stage = Stage::Present;
                    state.was_present = true;
                    state.group_max = usize::MAX;
                    state.wait(turn.now_ms, 0, Draw::new(&mut self.random));
                }
                What::Login => state.logged_in(turn.now_ms),
            }
        }
        if flight.what == What::List {
            self.listed(turn, &devices(data));
        }
        if flight.is_probe && flight.what == What::Login {
            let is_over = self.freeze.as_mut().is_some_and(Freeze::went_well);
            if is_over || self.children.iter().all(|state| state.denied_ms.is_none()) {
                self.thaw(turn.now_ms);
            }
        }
    }

    /// The cloud's own list. What it has no longer is a claim, and added again, not at once.
    fn listed(&mut self, turn: &mut Turn<'_>, list: &[Identity]) {
        self.listing = Listing::Done;
        self.lists_failed = 0;
        let mut is_listed = vec![false; self.children.len()];
        for identity in list {
            if let Some(at) = self.places.get(identity) {
                is_listed[*at] = true;
            }
        }
        let remembered = self.children.iter().filter(|state| state.was_present).count();
        let mut missing = 0;
        let draw = Draw::new(&mut self.random);
        for (state, is_listed) in self.children.iter_mut().zip(is_listed) {
            match (state.stage, is_listed) {
                (Stage::Absent, true) => {
                    state.stage = Stage::Present;
                    state.was_present = true;
                }
                (Stage::Present, false) => {
                    state.stage = Stage::Absent;
                    missing += 1;
                    state.back_off(turn.now_ms, draw);
                }
                (Stage::Absent, false)
                | (Stage::Present, true)
                | (Stage::Adding | Stage::LoggingIn | Stage::Online { .. }, _) => {}
            }
        }
        if missing > 0 {
            let text = format!(
                "the cloud's topology lacks {missing} of {remembered} sub-devices that it had: kept here, and added again"
            );
            turn.say(Class::Claimed, codes::http(Class::Claimed), text);
        }
    }

    fn went_wrong(&mut self, turn: &mut Turn<'_>, flight: &Flight, code: u32, envelope: &Envelope) {
        let class = codes::class(code).unwrap_or(Class::Broken);
        if class == Class::Throttled {
            self.throttled(turn, code, envelope.words());
            return self.came_to_nothing(flight, turn.now_ms);
        }
        let concerns_members = codes::is_against_a_device(class) || class == Class::Protocol;
        if flight.members.is_empty() || !concerns_members || code == CODE_TOO_MANY_DEVICES {
            if let Some(symptom) = codes::symptom(code, envelope.words(), "") {
                turn.say(symptom.class, symptom.code, &symptom.text);
            }
            self.came_to_nothing(flight, turn.now_ms);
            if code == CODE_TOO_MANY_DEVICES {
                self.wait_long(&flight.members, turn.now_ms);
            }
            return;
        }
        let named = devices(&envelope.data);
        let is_named = |at: &usize| named.contains(&self.children[*at].child.identity);
        let (refused, others): (Vec<usize>, Vec<usize>) = match &flight.members[..] {
            [only] => (vec![*only], Vec::new()),
            members => members.iter().copied().partition(is_named),
        };
        // Nobody is named: halves of the group find out who it is.
        let half = refused.is_empty().then(|| flight.members.len().div_ceil(2));
        let draw = Draw::new(&mut self.random);
        for at in others {
            let state = &mut self.children[at];
            state.forget_session();
            state.group_max = half.unwrap_or(state.group_max);
            state.wait(turn.now_ms, SOON_MS, draw);
        }
        for at in refused {
            self.refused(turn, at, code, envelope.words(), flight.is_probe);
        }
    }

    fn wait_long(&mut self, members: &[usize], now_ms: u64) {
        let draw = Draw::new(&mut self.random);
        for at in members {
            self.children[*at].wait(now_ms, WAIT_MAX_MS, draw);
        }
    }

    fn throttled(&mut self, turn: &mut Turn<'_>, code: u32, words: &str) {
        let wait_ms = PAUSE_FIRST_MS
            .saturating_mul(1 << self.throttles.min(16))
            .min(PAUSE_MAX_MS);
        if self.paused_ms <= turn.now_ms {
            self.throttles = self.throttles.saturating_add(1);
            self.paused_ms = turn.now_ms + self.random.u64(wait_ms / 2..=wait_ms);
            if let Some(symptom) = codes::symptom(code, words, "sub-devices") {
                turn.say(symptom.class, symptom.code, &symptom.text);
            }
        }
    }

    /// One sub-device was refused by name, or alone.
    fn refused(&mut self, turn: &mut Turn<'_>, at: usize, code: u32, words: &str, is_probe: bool) {
        let state = &mut self.children[at];
        state.stage = match state.stage {
            Stage::Absent | Stage::Adding => Stage::Absent,
            Stage::Present | Stage::LoggingIn | Stage::Online { .. } if code == CODE_NOT_IN_TOPOLOGY => Stage::Absent,
            Stage::Present | Stage::LoggingIn | Stage::Online { .. } => Stage::Present,
        };
        state.back_off(turn.now_ms, Draw::new(&mut self.random));
        if is_probe && let Some(freeze) = &mut self.freeze {
            freeze.failed();
        }
        self.spoken_against(turn, at, code, words);
    }

    /// The cloud speaks against a sub-device. Counted if it was good before; told by name, or all at once by number.
    pub(super) fn spoken_against(&mut self, turn: &mut Turn<'_>, at: usize, code: u32, words: &str) {
        let class = codes::class(code).unwrap_or(Class::Broken);
        let state = &mut self.children[at];
        if state.was_good && codes::is_against_a_device(class) {
            state.denied_ms = Some(turn.now_ms);
        }
        if self.freeze.is_some() {
            return;
        }
        let good = self.children.iter().filter(|state| state.was_good).count();
        let is_recent = |denied_ms: u64| denied_ms + WINDOW_MS > turn.now_ms;
        let denied = self
            .children
            .iter()
            .filter(|state| state.denied_ms.is_some_and(is_recent))
            .count();
        if denied >= threshold(good) {
            self.freeze = Some(Freeze::begin(turn.now_ms, &mut self.random));
            let text = format!(
                "{denied} of {good} sub-devices that were good are denied within ten minutes: all kept, asked for slowly"
            );
            return turn.say(Class::Denied, codes::http(Class::Denied), text);
        }
        let state = &mut self.children[at];
        let is_told = state.named_ms.is_some_and(|told_ms| told_ms + WINDOW_MS > turn.now_ms);
        if !is_told && self.naming.may_name(turn.now_ms) {
            state.named_ms = Some(turn.now_ms);
            if let Some(symptom) = codes::claim(code, words, state.child.device.as_str()) {
                turn.say(symptom.class, symptom.code, &symptom.text);
            }
        }
    }

    /// An error about a sub-device that nobody asked for.
    pub(super) fn error(&mut self, turn: &mut Turn<'_>, at: usize, code: u32, words: &str) {
        match codes::class(code) {
            None => {}
            Some(Class::SessionLost) => self.lost_session(turn, at),
            Some(Class::Duplicate) => {
                let state = &mut self.children[at];
                state.forget_session();
                let wait_ms = DUPLICATE_WAIT_MS / 2;
                state.wait(turn.now_ms + wait_ms, wait_ms, Draw::new(&mut self.random));
                if let Some(symptom) = codes::symptom(code, words, state.child.device.as_str()) {
                    turn.say(symptom.class, symptom.code, &symptom.text);
                }
            }
            Some(Class::Throttled) => self.throttled(turn, code, words),
            Some(Class::Denied | Class::Claimed | Class::Protocol) => self.refused(turn, at, code, words, false),
            Some(
                Class::Partition | Class::Intercepted | Class::Clock | Class::Broken | Class::HalfDead | Class::Billing,
            ) => {
                self.children[at].forget_session();
                self.children[at].back_off(turn.now_ms, Draw::new(&mut self.random));
            }
        }
    }

    fn lost_session(&mut self, turn: &mut Turn<'_>, at: usize) {
        let state = &mut self.children[at];
        if !matches!(state.stage, Stage::Online { .. }) {
            return;
        }
        state.lost_session(turn.now_ms, Draw::new(&mut self.random));
        let device = state.child.device;
        while self
            .losses
            .front()
            .is_some_and(|first| first + LOSSES_WINDOW_MS <= turn.now_ms)
        {
            self.losses.pop_front();
        }
        // One more than the loop's number stands for all that follow in this time.
        if self.losses.len() > LOSSES_MIN {
            return;
        }
        self.losses.push_back(turn.now_ms);
        if self.losses.len() == LOSSES_MIN {
            let text = format!("{LOSSES_MIN} sub-devices lost their sessions within five minutes, {device} the last");
            turn.say(Class::SessionLost, codes::http(Class::SessionLost), text);
        }
    }
}
